/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e1000e receiving: filters, descriptors of all kinds, checksums, tags, two queues, a guest without
 * buffers, and rings that no driver makes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hw/virtio/virtio_net_hash.h"
#include "hw/virtio/virtio_net_hdr.h"
#include "tests/lib/e1000e_rig.h"
#include "vmm/core/util.h"

enum {
	UPE = E1000E_RCTL_UPE,
	SECRC = E1000E_RCTL_SECRC,
	LPE = E1000E_RCTL_LPE,
	PLAIN = UPE | SECRC,
	ETH = 14,
};

static const uint8_t own[6] = {0x52, 0x54, 0x00, 0x0a, 0x0b, 0x0c};
static struct e1000e_rig *r;

static void begin(unsigned vnet_hdr, unsigned offloads)
{
	r = xcalloc(1, sizeof(*r));
	e1000e_rig_init(r, vnet_hdr, offloads, "mac=52:54:00:0a:0b:0c");
}

static int setup(void **state)
{
	begin(0, 0);
	return 0;
}

static int setup_headers(void **state)
{
	begin(12, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
	return 0;
}

static int teardown(void **state)
{
	e1000e_rig_destroy(r);
	free(r);
	return 0;
}

static uint32_t get(unsigned reg)
{
	return e1000e_rig_read(r, reg);
}

static void set(unsigned reg, uint32_t value)
{
	e1000e_rig_write(r, reg, value);
}

/* A frame to somebody, whose bytes tell where they are. */
static void make_frame(uint8_t *p, size_t len, const uint8_t *to)
{
	for (size_t i = 0; i < len; i++)
		p[i] = i * 5 + i / 256;
	memcpy(p, to, 6);
	p[12] = 0x88;
	p[13] = 0xb5;
}

static bool arrive(const void *frame, size_t len)
{
	bool taken = fake_netdev_receive(&r->net, 0, frame, len);

	e1000e_rig_settle(r);
	return taken;
}

/* As legacy descriptors tell it. */
struct legacy {
	uint16_t len, checksum;
	uint8_t status, errors;
	uint16_t special;
};

static struct legacy legacy(unsigned i)
{
	const uint8_t *p = e1000e_rig_rx_desc(r, 0, i);

	return (struct legacy){load_le16(p + 8), load_le16(p + 10), p[12], p[13],
			       load_le16(p + 14)};
}

/* As extended ones do. */
struct extended {
	uint32_t mrq, hash, status;
	uint16_t len, vlan;
};

static struct extended extended(unsigned queue, unsigned i)
{
	const uint8_t *p = e1000e_rig_rx_desc(r, queue, i);

	return (struct extended){load_le32(p), load_le32(p + 4), load_le32(p + 8),
				 load_le16(p + 12), load_le16(p + 14)};
}

/* How many frames were received since the last time: the ring's head moves. */
static unsigned moved(unsigned queue)
{
	static unsigned last[2];
	unsigned head = get(E1000E_RDH + queue * 0x100), n = (head + 16 - last[queue]) % 16;

	last[queue] = head;
	return n;
}

static void start(unsigned queues, uint32_t rctl, unsigned buffers)
{
	e1000e_rig_start(r, queues, rctl);
	for (unsigned q = 0; q < queues; q++) {
		e1000e_rig_offer(r, q, buffers);
		moved(q);
	}
}

/* ---- filters ---- */

static bool passes(const uint8_t *to)
{
	uint8_t frame[60];

	make_frame(frame, sizeof(frame), to);
	assert_true(arrive(frame, sizeof(frame)));
	if (!moved(0))
		return false;
	e1000e_rig_offer(r, 0, 1);
	return true;
}

static void test_addresses(void **state)
{
	static const uint8_t other[] = {0x52, 0x54, 0, 1, 2, 3};
	static const uint8_t broadcast[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const uint8_t group[] = {0x01, 0x00, 0x5e, 0x00, 0x12, 0x34};

	start(1, SECRC, 8);
	assert_true(passes(own));
	assert_false(passes(other));
	assert_false(passes(broadcast));
	assert_false(passes(group));
	set(E1000E_RCTL, SECRC | E1000E_RCTL_EN | E1000E_RCTL_BAM);
	assert_true(passes(broadcast));
	assert_false(passes(group));
	set(E1000E_RCTL, SECRC | E1000E_RCTL_EN | E1000E_RCTL_MPE);
	assert_true(passes(broadcast));
	assert_true(passes(group));
	assert_false(passes(other));
	set(E1000E_RCTL, SECRC | E1000E_RCTL_EN | UPE);
	assert_true(passes(other));
	assert_false(passes(group));
	/* One address more, and its source. */
	set(E1000E_RCTL, SECRC | E1000E_RCTL_EN);
	set(E1000E_RAL + 8 * 15, 0x01005452);
	set(E1000E_RAH + 8 * 15, 0x0302);
	assert_false(passes(other));
	set(E1000E_RAH + 8 * 15, 0x0302 | E1000E_RAH_AV);
	assert_true(passes(other));
	set(E1000E_RAL + 8 * 15, 0x2d28231e);
	set(E1000E_RAH + 8 * 15, 0x3732 | E1000E_RAH_AV | E1000E_RAH_ASEL_SOURCE);
	assert_true(passes(other)); /* bytes 6 to 11 of the frame */
	set(E1000E_RAH + 8 * 15, 0x3732 | E1000E_RAH_AV);
	assert_false(passes(other));
	/* By hash of bits 47:36, 46:35, 45:34, 43:32. */
	for (unsigned mo = 0; mo < 4; mo++) {
		static const unsigned bits[] = {0x341, 0x682, 0xd04, 0x412};

		set(E1000E_RCTL, SECRC | E1000E_RCTL_EN | mo << 12);
		assert_false(passes(group));
		set(E1000E_MTA + bits[mo] / 32 * 4, 1u << bits[mo] % 32);
		assert_true(passes(group));
		set(E1000E_MTA + bits[mo] / 32 * 4, 0);
	}
}

static void test_vlans(void **state)
{
	uint8_t frame[64];

	make_frame(frame, sizeof(frame), own);
	store_be32(frame + 12, 0x81006123);
	start(1, PLAIN | E1000E_RCTL_VFE, 8);
	arrive(frame, sizeof(frame));
	assert_int_equal(moved(0), 0);
	set(E1000E_VFTA + 0x123 / 32 * 4, 1 << 0x123 % 32);
	arrive(frame, sizeof(frame));
	assert_int_equal(moved(0), 1);
	/* As it came. */
	assert_int_equal(legacy(0).len, 64);
	assert_int_equal(legacy(0).status & E1000E_RXD_VP, 0);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 0, 0), frame, 64);
	/* Without its tag. */
	set(E1000E_CTRL, get(E1000E_CTRL) | E1000E_CTRL_VME);
	arrive(frame, sizeof(frame));
	assert_int_equal(moved(0), 1);
	assert_int_equal(legacy(1).len, 60);
	assert_int_equal(legacy(1).status & E1000E_RXD_VP, E1000E_RXD_VP);
	assert_int_equal(legacy(1).special, 0x6123);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 1, 0), frame, 12);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 1, 0) + 12, frame + 16, 48);
	/* By its CFI bit. */
	set(E1000E_RCTL, get(E1000E_RCTL) | E1000E_RCTL_CFIEN);
	arrive(frame, sizeof(frame));
	assert_int_equal(moved(0), 1);
	frame[14] |= 0x10;
	arrive(frame, sizeof(frame));
	assert_int_equal(moved(0), 0);
	set(E1000E_RCTL, get(E1000E_RCTL) | E1000E_RCTL_CFI);
	arrive(frame, sizeof(frame));
	assert_int_equal(moved(0), 1);
}

/* ---- legacy descriptors ---- */

static void test_legacy(void **state)
{
	uint8_t frame[1514], zeros[60] = {0};

	start(1, PLAIN, 4);
	set(E1000E_IMS, E1000E_INT_RXT0);
	get(E1000E_ICR);
	make_frame(frame, sizeof(frame), own);
	assert_true(arrive(frame, 1514));
	assert_int_equal(moved(0), 1);
	assert_int_equal(legacy(0).len, 1514);
	assert_int_equal(legacy(0).status, E1000E_RXD_DD | E1000E_RXD_EOP);
	assert_int_equal(legacy(0).errors, 0);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 0, 0), frame, 1514);
	assert_true(r->m.input[E1000E_RIG_INPUT]);
	assert_int_equal(get(E1000E_ICR) & E1000E_INT_RXT0, E1000E_INT_RXT0);
	/* Filled up to what a wire carries. */
	assert_true(arrive(frame, 20));
	assert_int_equal(legacy(1).len, 60);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 1, 0), frame, 20);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 1, 0) + 20, zeros, 40);
	/* With its check sequence: its remainder is a constant. */
	set(E1000E_RCTL, UPE | E1000E_RCTL_EN);
	assert_true(arrive(frame, 100));
	assert_int_equal(legacy(2).len, 104);
	assert_int_equal(net_frame_crc(e1000e_rig_buffer(r, 0, 2, 0), 104), 0x2144df1c);
	assert_int_equal(net_frame_crc((const uint8_t *)"123456789", 9), 0xcbf43926);
	/* What is none: too short, too long. */
	moved(0);
	assert_true(arrive(frame, 13));
	assert_true(arrive(frame, 0));
	fake_netdev_receive(&r->net, 0, (uint8_t[1515]){0}, 1515);
	assert_int_equal(moved(0), 0);
	assert_int_equal(get(E1000E_ROC), 1);
	assert_int_equal(get(E1000E_TPR), 4);
	assert_int_equal(get(E1000E_GPRC), 3);
	assert_int_equal(get(E1000E_GORCL), 1514 + 60 + 100 + 12);
	assert_int_equal(get(E1000E_PRC64), 1);
	assert_int_equal(get(E1000E_PRC64 + 20), 1);
}

static void test_several_buffers(void **state)
{
	uint8_t frame[9014];
	size_t at = 0;

	make_frame(frame, sizeof(frame), own);
	start(1, PLAIN | LPE, 15); /* 2 KiB each */
	assert_true(arrive(frame, sizeof(frame)));
	assert_int_equal(moved(0), 5);
	for (unsigned i = 0; i < 5; i++) {
		size_t n = MIN(sizeof(frame) - at, (size_t)2048);

		assert_int_equal(legacy(i).len, n);
		assert_int_equal(legacy(i).status, E1000E_RXD_DD | (i == 4 ? E1000E_RXD_EOP : 0));
		assert_memory_equal(e1000e_rig_buffer(r, 0, i, 0), frame + at, n);
		at += n;
	}
	/* Sizes: 256, 4096, 8192 and 3 KiB. */
	set(E1000E_RCTL, PLAIN | LPE | E1000E_RCTL_EN | 3 << 16);
	assert_true(arrive(frame, 1000));
	assert_int_equal(moved(0), 4);
	set(E1000E_RCTL, PLAIN | LPE | E1000E_RCTL_EN | 3 << 16 | E1000E_RCTL_BSEX);
	assert_true(arrive(frame, 4096));
	assert_int_equal(moved(0), 1);
	assert_int_equal(legacy(9).len, 4096);
	set(E1000E_RCTL, PLAIN | LPE | E1000E_RCTL_EN | 2 << 16 | E1000E_RCTL_BSEX);
	assert_true(arrive(frame, 8192));
	assert_int_equal(moved(0), 1);
	set(E1000E_RCTL, PLAIN | LPE | E1000E_RCTL_EN | 3 << 27);
	assert_true(arrive(frame, 6144));
	assert_int_equal(moved(0), 2);
	assert_int_equal(legacy(12).len, 3072);
}

static void test_waiting(void **state)
{
	uint8_t frame[3][100];
	struct iovec batch[3];

	start(1, PLAIN, 1);
	for (unsigned i = 0; i < 3; i++) {
		make_frame(frame[i], sizeof(frame[i]), own);
		frame[i][50] = i;
		batch[i] = (struct iovec){frame[i], sizeof(frame[i])};
	}
	r->net.ready[0] = 0;
	assert_int_equal(fake_netdev_receive_batch(&r->net, 0, batch, 3), 3);
	e1000e_rig_settle(r);
	assert_int_equal(moved(0), 1);
	/* Two wait, and no more may come. */
	assert_false(arrive(frame[0], 100));
	assert_int_equal(r->net.ready[0], 0);
	e1000e_rig_offer(r, 0, 1);
	assert_int_equal(moved(0), 1);
	assert_int_equal(r->net.ready[0], 0);
	e1000e_rig_offer(r, 0, 2);
	assert_int_equal(moved(0), 1);
	assert_int_equal(r->net.ready[0], 1);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(e1000e_rig_buffer(r, 0, i, 0)[50], i);
	assert_int_equal(get(E1000E_RNBC), 1 + 1);
	assert_true(arrive(frame[0], 100));
	assert_int_equal(moved(0), 1);
	assert_false(arrive(frame[0], 100));
	/* A reset forgets who waits. */
	e1000e_rig_offer(r, 0, 1);
	assert_int_equal(fake_netdev_receive_batch(&r->net, 0, batch, 3), 3);
	set(E1000E_CTRL, get(E1000E_CTRL) | E1000E_CTRL_RST);
	assert_false(arrive(frame[0], 100));
	start(1, PLAIN, 4);
	assert_int_equal(moved(0), 0);
	assert_true(arrive(frame[2], 100));
	assert_int_equal(moved(0), 1);
	assert_int_equal(e1000e_rig_buffer(r, 0, 0, 0)[50], 2);
}

static void test_off(void **state)
{
	uint8_t frame[60];

	make_frame(frame, sizeof(frame), own);
	start(1, PLAIN, 8);
	set(E1000E_RCTL, PLAIN);
	assert_false(arrive(frame, 60));
	set(E1000E_RCTL, PLAIN | E1000E_RCTL_EN);
	e1000e_rig_settle(r);
	assert_true(arrive(frame, 60));
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_COMMAND, 2, 3);
	assert_false(arrive(frame, 60));
	r->net.ready[0] = 0;
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_COMMAND, 2, 7);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.ready[0], 1);
	assert_true(arrive(frame, 60));
	vm_stop(&r->m.vm, RUN_STATE_PAUSED);
	assert_false(arrive(frame, 60));
	r->net.ready[0] = 0;
	vm_start(&r->m.vm);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.ready[0], 1);
	/* Without a link. */
	set(E1000E_MDIC, 1u << 26 | 1 << 21 | 0x1940);
	assert_false(arrive(frame, 60));
	assert_int_equal(moved(0), 2);
}

static void test_threshold(void **state)
{
	uint8_t frame[60];

	make_frame(frame, sizeof(frame), own);
	for (unsigned code = 0; code < 3; code++) {
		start(1, PLAIN | code << 8, 12);
		for (unsigned left = 12; left > 0; left--) {
			get(E1000E_ICR);
			assert_true(arrive(frame, 60));
			assert_int_equal(!!(get(E1000E_ICR) & E1000E_INT_RXDMT0),
					 left - 1 == 8u >> code);
		}
	}
	/* Small ones. */
	start(1, PLAIN, 12);
	set(E1000E_RSRPD, 100);
	get(E1000E_ICR);
	assert_true(arrive(frame, 60));
	assert_true(get(E1000E_ICR) & E1000E_INT_SRPD);
	set(E1000E_RSRPD, 59);
	assert_true(arrive(frame, 60));
	assert_false(get(E1000E_ICR) & E1000E_INT_SRPD);
}

/* ---- checksums ---- */

static uint16_t sum(const uint8_t *p, size_t len, uint32_t s)
{
	for (size_t i = 0; i < len; i++)
		s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* With right sums; how long it is. */
static size_t make_packet(uint8_t *p, int version, uint8_t proto, size_t data)
{
	size_t ip = version == 4 ? 20 : 40, l4 = proto == 6 ? 20 : 8, len = l4 + data;
	uint8_t *ph = p + ETH, *h = ph + ip;
	uint32_t pseudo;

	make_frame(p, ETH + ip + len, own);
	memset(ph, 0, ip + l4);
	store_be16(p + 12, version == 4 ? 0x0800 : 0x86dd);
	ph[0] = version == 4 ? 0x45 : 0x60;
	if (version == 4) {
		store_be16(ph + 2, ip + len);
		store_be16(ph + 4, 0x4321);
		ph[9] = proto;
		store_be32(ph + 12, 0x0a000201);
		store_be32(ph + 16, 0x0a000202);
		store_be16(ph + 10, ~sum(ph, 20, 0));
		pseudo = sum(ph + 12, 8, proto + len);
	} else {
		store_be16(ph + 4, len);
		ph[6] = proto;
		for (unsigned i = 0; i < 32; i++)
			ph[8 + i] = 3 * i;
		pseudo = sum(ph + 8, 32, proto + len);
	}
	store_be32(h, 0x12345678);
	if (proto == 6)
		h[12] = 5 << 4;
	else
		store_be16(h + 4, len);
	store_be16(h + (proto == 6 ? 16 : 6), ~sum(h, len, pseudo));
	return ETH + ip + len;
}

/* Status and errors of a frame in an extended descriptor. */
static uint32_t judged(const uint8_t *frame, size_t len)
{
	static unsigned i;

	start(1, PLAIN, 8);
	assert_true(arrive(frame, len));
	assert_int_equal(moved(0), 1);
	i = 0;
	return extended(0, i).status & ~(uint32_t)(E1000E_RXD_DD | E1000E_RXD_EOP);
}

static void test_checksums(void **state)
{
	uint8_t frame[200];
	uint32_t type4 = 2 << 16, type6 = 6 << 16;
	size_t len;

	set(E1000E_RFCTL, E1000E_RFCTL_EXTEN);
	set(E1000E_RXCSUM, E1000E_RXCSUM_IPOFL | E1000E_RXCSUM_TUOFL | E1000E_RXCSUM_PCSD);
	len = make_packet(frame, 4, 6, 77);
	assert_int_equal(judged(frame, len), E1000E_RXD_IPCS | E1000E_RXD_L4CS | type4);
	frame[len - 1] ^= 1;
	assert_int_equal(judged(frame, len),
			 E1000E_RXD_IPCS | E1000E_RXD_L4CS | E1000E_RXD_L4E | type4);
	len = make_packet(frame, 4, 6, 77);
	frame[ETH + 8] ^= 1;
	assert_int_equal(judged(frame, len),
			 E1000E_RXD_IPCS | E1000E_RXD_IPE | E1000E_RXD_L4CS | type4);
	/* UDP, with a sum and without. */
	len = make_packet(frame, 4, 17, 33);
	assert_int_equal(judged(frame, len), E1000E_RXD_IPCS | E1000E_RXD_L4CS | E1000E_RXD_UDPCS |
						     E1000E_RXD_UDPV | type4);
	store_be16(frame + ETH + 26, 0);
	assert_int_equal(judged(frame, len), E1000E_RXD_IPCS | type4);
	/* Version 6 has none for IP. */
	len = make_packet(frame, 6, 6, 5);
	assert_int_equal(judged(frame, len), E1000E_RXD_L4CS | type6);
	set(E1000E_RFCTL, E1000E_RFCTL_EXTEN | E1000E_RFCTL_IPV6_XSUM_DIS);
	assert_int_equal(judged(frame, len), type6);
	set(E1000E_RFCTL, E1000E_RFCTL_EXTEN);
	/* Fragments, other protocols, packets that are cut or padded. */
	len = make_packet(frame, 4, 6, 77);
	store_be16(frame + ETH + 6, 0x2000);
	store_be16(frame + ETH + 10, 0);
	store_be16(frame + ETH + 10, ~sum(frame + ETH, 20, 0));
	assert_int_equal(judged(frame, len), E1000E_RXD_IPCS | 1 << 16);
	len = make_packet(frame, 4, 6, 0);
	assert_int_equal(judged(frame, len), E1000E_RXD_IPCS | E1000E_RXD_L4CS | type4);
	assert_int_equal(judged(frame, len - 1), E1000E_RXD_IPCS | E1000E_RXD_L4CS |
							 E1000E_RXD_L4E * (frame[len - 1] != 0) |
							 type4);
	store_be16(frame + ETH + 2, 1000);
	assert_int_equal(judged(frame, len), 0);
	/* Not asked for. */
	len = make_packet(frame, 4, 6, 77);
	set(E1000E_RXCSUM, E1000E_RXCSUM_PCSD);
	assert_int_equal(judged(frame, len), E1000E_RXD_IXSM | type4);
	/* The sum of all, and IP's identification. */
	set(E1000E_RXCSUM, E1000E_RXCSUM_IPOFL | ETH);
	assert_int_equal(judged(frame, len), E1000E_RXD_IPCS | E1000E_RXD_IPIDV | type4);
	assert_int_equal(extended(0, 0).hash & 0xffff, 0x4321);
	assert_int_equal(extended(0, 0).hash >> 16, (uint16_t)~sum(frame + ETH, len - ETH, 0));
	set(E1000E_RFCTL, 0);
	judged(frame, len);
	assert_int_equal(legacy(0).checksum, (uint16_t)~sum(frame + ETH, len - ETH, 0));
	assert_int_equal(legacy(0).status, E1000E_RXD_DD | E1000E_RXD_EOP | E1000E_RXD_IPCS);
}

/* What the back end has checked is not checked again, and what it left out is made. */
static void test_headers(void **state)
{
	struct virtio_net_hdr hdr = {.flags = VIRTIO_NET_HDR_F_DATA_VALID};
	uint8_t packet[300];
	size_t len = make_packet(packet + 12, 4, 6, 77);
	uint8_t *tcp = packet + 12 + ETH + 20;
	uint16_t right = load_be16(tcp + 16);

	set(E1000E_RFCTL, E1000E_RFCTL_EXTEN);
	assert_int_equal(r->net.offloads, NET_OFFLOAD_CSUM);
	memcpy(packet, &hdr, 12);
	store_be16(tcp + 16, 0);
	assert_int_equal(judged(packet, 12 + len) & (E1000E_RXD_L4CS | E1000E_RXD_L4E),
			 E1000E_RXD_L4CS);
	assert_int_equal(extended(0, 0).len, len);
	hdr = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
				      .csum_start = htole16(ETH + 20),
				      .csum_offset = htole16(16)};
	memcpy(packet, &hdr, 12);
	store_be16(tcp + 16, sum(packet + 12 + ETH + 12, 8, 6 + len - ETH - 20));
	assert_int_equal(judged(packet, 12 + len) & (E1000E_RXD_L4CS | E1000E_RXD_L4E),
			 E1000E_RXD_L4CS);
	assert_int_equal(load_be16(e1000e_rig_buffer(r, 0, 0, 0) + ETH + 20 + 16), right);
	/* A place outside: it is as it came. */
	hdr.csum_offset = htole16(60000);
	memcpy(packet, &hdr, 12);
	assert_true(judged(packet, 12 + len) & E1000E_RXD_L4E);
	/* What was never asked for is lost, as is less than a header. */
	hdr = (struct virtio_net_hdr){.gso_type = VIRTIO_NET_HDR_GSO_TCPV4};
	memcpy(packet, &hdr, 12);
	assert_true(arrive(packet, 12 + len));
	assert_true(arrive(packet, 11));
	assert_int_equal(moved(0), 0);
}

/* ---- two queues ---- */

static void test_rss(void **state)
{
	static const uint8_t key[VIRTIO_NET_HASH_KEY] = {
		0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
		0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
		0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
	uint8_t frame[200];
	size_t len = make_packet(frame, 4, 6, 50);

	e1000e_rig_use_msix(r);
	set(E1000E_IVAR, 0x000000ba);
	set(E1000E_IMS, E1000E_INT_MSIX);
	set(E1000E_RFCTL, E1000E_RFCTL_EXTEN);
	set(E1000E_RXCSUM, E1000E_RXCSUM_PCSD);
	set(E1000E_MRQC, E1000E_MRQC_RSS | E1000E_MRQC_TCPIPV4 | E1000E_MRQC_IPV4);
	for (unsigned i = 0; i < sizeof(key); i += 4)
		set(E1000E_RSSRK + i, load_le32(key + i));
	start(2, PLAIN, 8);
	/* The known answer: 66.9.149.187:2794 to 161.142.100.80:1766. */
	store_be32(frame + 26, 0x420995bb);
	store_be32(frame + 30, 0xa18e6450);
	store_be16(frame + 34, 2794);
	store_be16(frame + 36, 1766);
	assert_true(arrive(frame, len));
	assert_int_equal(moved(0), 1);
	assert_int_equal(extended(0, 0).hash, 0x51ccc178);
	assert_int_equal(extended(0, 0).mrq, E1000E_RSS_TCPIPV4);
	assert_int_equal(r->m.messages[0].data, 0x42);
	/* Its entry says queue 1. */
	set(E1000E_RETA + 0x78, 0x80);
	assert_true(arrive(frame, len));
	assert_int_equal(moved(0), 0);
	assert_int_equal(moved(1), 1);
	assert_int_equal(extended(1, 0).mrq, E1000E_RSS_TCPIPV4 | 1 << 8);
	assert_int_equal(extended(1, 0).len, len);
	assert_memory_equal(e1000e_rig_buffer(r, 1, 0, 0), frame, len);
	assert_int_equal(r->m.messages[1].data, 0x43);
	/* Addresses alone. */
	set(E1000E_MRQC, E1000E_MRQC_RSS | E1000E_MRQC_IPV4);
	assert_true(arrive(frame, len));
	assert_int_equal(moved(0), 1);
	assert_int_equal(extended(0, 1).hash, 0x323e8fc2);
	assert_int_equal(extended(0, 1).mrq, E1000E_RSS_IPV4);
	/* No IP, no hash; and without the switch neither. */
	make_frame(frame, 100, own);
	assert_true(arrive(frame, 100));
	assert_int_equal(extended(0, 2).mrq, 0);
	make_packet(frame, 6, 6, 50);
	set(E1000E_MRQC, E1000E_MRQC_RSS | E1000E_MRQC_TCPIPV6);
	assert_true(arrive(frame, 124));
	moved(0);
	moved(1);
	set(E1000E_MRQC, 0);
	assert_true(arrive(frame, 124));
	assert_int_equal(moved(0), 1);
}

/* ---- split descriptors ---- */

static void test_split(void **state)
{
	static uint8_t frame[9000];
	size_t len = make_packet(frame, 4, 6, 5000);
	uint8_t *desc;

	set(E1000E_RFCTL, E1000E_RFCTL_EXTEN);
	set(E1000E_PSRCTL, 1 | 1 << 8 | 2 << 16 | 0 << 24); /* 128, 1 KiB, 2 KiB, none */
	start(1, PLAIN | LPE | E1000E_RCTL_DTYP_PS, 12);
	assert_true(arrive(frame, len));
	/* 54 bytes of headers; 3 KiB of data in each. */
	assert_int_equal(moved(0), 2);
	desc = e1000e_rig_rx_desc(r, 0, 0);
	assert_int_equal(load_le32(desc + 8) & 3, E1000E_RXD_DD);
	assert_int_equal(load_le16(desc + 12), 54);
	assert_int_equal(load_le16(desc + 16), E1000E_RXD_HDRSP | 54);
	assert_int_equal(load_le16(desc + 18), 1024);
	assert_int_equal(load_le16(desc + 20), 2048);
	assert_int_equal(load_le16(desc + 22), 0);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 0, 0), frame, 54);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 0, 1), frame + 54, 1024);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 0, 2), frame + 54 + 1024, 2048);
	desc = e1000e_rig_rx_desc(r, 0, 1);
	assert_int_equal(load_le32(desc + 8) & 3, E1000E_RXD_DD | E1000E_RXD_EOP);
	assert_int_equal(load_le16(desc + 12), 0);
	assert_int_equal(load_le16(desc + 16), 0);
	assert_int_equal(load_le16(desc + 18), 1024);
	assert_int_equal(load_le16(desc + 20), 5000 - 3072 - 1024);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 1, 1), frame + 54 + 3072, 1024);
	/* Nothing to split: it begins in the first buffer. */
	make_frame(frame, 1000, own);
	assert_true(arrive(frame, 1000));
	assert_int_equal(moved(0), 1);
	desc = e1000e_rig_rx_desc(r, 0, 2);
	assert_int_equal(load_le16(desc + 12), 128);
	assert_int_equal(load_le16(desc + 16), 0);
	assert_int_equal(load_le16(desc + 18), 872);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 2, 0), frame, 128);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 2, 1), frame + 128, 872);
	/* All headers, with a tag that is taken off. */
	len = make_packet(frame, 6, 17, 10);
	memmove(frame + 16, frame + 12, len - 12);
	store_be32(frame + 12, 0x81000007);
	set(E1000E_CTRL, get(E1000E_CTRL) | E1000E_CTRL_VME);
	assert_true(arrive(frame, len + 4));
	desc = e1000e_rig_rx_desc(r, 0, 3);
	assert_int_equal(load_le16(desc + 12), 62);
	assert_int_equal(load_le16(desc + 14), 7);
	assert_int_equal(load_le16(desc + 18), 10);
	moved(0);
	/* Buffers of no size take nothing, and nobody waits for that. */
	set(E1000E_PSRCTL, 0);
	assert_true(arrive(frame, 100));
	assert_true(arrive(frame, 100));
	assert_int_equal(moved(0), 0);
	assert_int_equal(get(E1000E_MPC), 2);
}

/* ---- frames that come back ---- */

static void test_loop_back(void **state)
{
	uint8_t frame[200];
	size_t len = make_packet(frame, 4, 6, 50);

	start(1, UPE | 3 << 6, 4);
	e1000e_rig_put_bytes(r, 0, frame, len, E1000E_TXD_EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 0);
	assert_int_equal(moved(0), 1);
	assert_int_equal(legacy(0).len, len + 4);
	assert_memory_equal(e1000e_rig_buffer(r, 0, 0, 0), frame, len);
	for (unsigned i = 0; i < 5; i++)
		e1000e_rig_put_bytes(r, 0, frame, len, E1000E_TXD_EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(moved(0), 3);
	assert_int_equal(get(E1000E_MPC), 2);
	/* In the PHY. */
	start(1, PLAIN, 4);
	set(E1000E_MDIC, 1u << 26 | 1 << 21 | 0x4140);
	e1000e_rig_put_bytes(r, 0, frame, len, E1000E_TXD_EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(moved(0), 1);
	assert_int_equal(r->net.sent_count, 0);
}

/* ---- what no driver does ---- */

static void test_hostile_rings(void **state)
{
	static uint8_t frame[16000];

	make_frame(frame, sizeof(frame), own);
	start(1, PLAIN | LPE, 4);
	/* Indices outside. */
	set(E1000E_RDT, 0xffff);
	assert_false(arrive(frame, 60));
	set(E1000E_RDT, 16);
	assert_false(arrive(frame, 60));
	set(E1000E_RDT, 8);
	set(E1000E_RDH, 0xffff);
	assert_false(arrive(frame, 60));
	set(E1000E_RDH, 0);
	/* A frame that no number of buffers takes. */
	set(E1000E_RDLEN, 128);
	set(E1000E_RDT, 7);
	assert_true(arrive(frame, 15999));
	assert_int_equal(get(E1000E_RDH), 0);
	assert_int_equal(get(E1000E_MPC), 1);
	/* Not in memory: the ring, and buffers. */
	set(E1000E_RDBAH, 0x80000000);
	assert_true(arrive(frame, 60));
	assert_int_equal(get(E1000E_RDH), 0);
	assert_int_equal(get(E1000E_MPC), 1);
	set(E1000E_RDBAH, 0);
	store_le64(e1000e_rig_rx_desc(r, 0, 0), UINT64_MAX - 5);
	store_le64(e1000e_rig_rx_desc(r, 0, 1), E1000E_RIG_RAM - 10);
	store_le64(e1000e_rig_rx_desc(r, 0, 2), 0);
	memset(r->ram, 0x5a, 64);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(arrive(frame, 60));
		assert_int_equal(legacy(i).status & 3, 3);
	}
	assert_int_equal(r->ram[0], 0x5a);
	/* The ring's last piece is not memory. */
	set(E1000E_RDBAL, E1000E_RIG_RAM - 48);
	set(E1000E_RDH, 2);
	set(E1000E_RDT, 6);
	assert_true(arrive(frame, 60));
	assert_true(arrive(frame, 60));
	assert_int_equal(get(E1000E_RDH), 3);
	set(E1000E_RDLEN, 0);
	assert_false(arrive(frame, 60));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_addresses),
		TEST(test_vlans),
		TEST(test_legacy),
		TEST(test_several_buffers),
		TEST(test_waiting),
		TEST(test_off),
		TEST(test_threshold),
		TEST(test_checksums),
		cmocka_unit_test_setup_teardown(test_headers, setup_headers, teardown),
		TEST(test_rss),
		TEST(test_split),
		TEST(test_loop_back),
		TEST(test_hostile_rings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
