/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e1000e sending: descriptors of all kinds, checksums, tags, large segments cut or left to the
 * network, a network that is full, and rings that no driver makes.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hw/virtio/virtio_net_hdr.h"
#include "tests/lib/e1000e_rig.h"
#include "vmm/core/util.h"

enum {
	EOP = E1000E_TXD_EOP,
	RS = E1000E_TXD_RS,
	DATA = E1000E_TXD_DEXT | E1000E_TXD_DTYP_DATA,
	CONTEXT = E1000E_TXD_DEXT,
	IXSM = E1000E_TXD_POPTS_IXSM,
	TXSM = E1000E_TXD_POPTS_TXSM,
	ETH = 14,
	OFFLOADS = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN,
};

static struct e1000e_rig *r;

static void begin(unsigned vnet_hdr, unsigned offloads)
{
	r = xcalloc(1, sizeof(*r));
	e1000e_rig_init(r, vnet_hdr, offloads, "mac=52:54:00:0a:0b:0c");
	e1000e_rig_start(r, 2, 0);
	e1000e_rig_read(r, E1000E_ICR);
}

static int setup(void **state)
{
	begin(0, 0);
	return 0;
}

static int setup_headers(void **state)
{
	begin(12, OFFLOADS);
	return 0;
}

static int setup_csum(void **state)
{
	begin(10, NET_OFFLOAD_CSUM);
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

static void put(unsigned queue, const void *bytes, size_t len, uint32_t command, uint32_t status)
{
	e1000e_rig_put_bytes(r, queue, bytes, len, command, status);
}

static const struct fake_netdev_packet *sent(unsigned i)
{
	assert_true(i < r->net.sent_count);
	return &r->net.sent[i];
}

static uint32_t status_of(unsigned queue, unsigned i)
{
	return load_le32(r->ram + E1000E_RIG_TX + queue * 0x1000 + i * 16 + 12);
}

/* The sum of big-endian words as RFC 1071 has it. */
static uint16_t sum(const uint8_t *p, size_t len, uint32_t s)
{
	for (size_t i = 0; i < len; i++)
		s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* A TCP or UDP packet over IP of version 4 or 6 behind an Ethernet header: lengths and checksums as
 * drivers leave them to the card. Returns where its data begins. */
static size_t make_packet(uint8_t *p, int version, bool tcp, size_t data, bool large)
{
	size_t ip = version == 4 ? 20 : 40, l4 = tcp ? 20 : 8, len = l4 + data;
	uint8_t *ph = p + ETH, *h = ph + ip;
	uint16_t pseudo;

	memset(p, 0, ETH + ip + l4);
	for (unsigned i = 0; i < 12; i++)
		p[i] = i * 2;
	store_be16(p + 12, version == 4 ? 0x0800 : 0x86dd);
	ph[0] = version == 4 ? 0x45 : 0x60;
	if (version == 4) {
		store_be16(ph + 2, large ? 0 : ip + len);
		store_be16(ph + 4, 0xfffe); /* the id goes round */
		ph[8] = 64;
		ph[9] = tcp ? 6 : 17;
		store_be32(ph + 12, 0x0a000201);
		store_be32(ph + 16, 0x0a000202);
		pseudo = sum(ph + 12, 8, tcp ? 6 : 17);
	} else {
		store_be16(ph + 4, large ? 0 : len);
		ph[6] = tcp ? 6 : 17;
		for (unsigned i = 0; i < 32; i++)
			ph[8 + i] = 3 * i;
		pseudo = sum(ph + 8, 32, tcp ? 6 : 17);
	}
	store_be32(h, 0x12345678);
	if (tcp) {
		store_be32(h + 4, 0xfffffff0);
		h[12] = 5 << 4;
		h[13] = 0x80 | 0x10 | 0x08 | 0x01; /* CWR, ACK, PSH, FIN */
	} else {
		store_be16(h + 4, len);
	}
	store_be16(h + (tcp ? 16 : 6), large ? pseudo : sum(NULL, 0, pseudo + len));
	for (size_t i = 0; i < data; i++)
		h[l4 + i] = i * 7 + i / 256;
	return ETH + ip + l4;
}

/* All sums are right in a frame with these headers. */
static void check_sums(const uint8_t *p, size_t len, int version)
{
	const uint8_t *ip = p + ETH;
	size_t header = version == 4 ? 20 : 40;
	uint32_t pseudo = len - ETH - header + ip[version == 4 ? 9 : 6];

	if (version == 4) {
		assert_int_equal(load_be16(ip + 2), len - ETH);
		assert_int_equal(sum(ip, 20, 0), 0xffff);
		pseudo = sum(ip + 12, 8, pseudo);
	} else {
		assert_int_equal(load_be16(ip + 4), len - ETH - 40);
		pseudo = sum(ip + 8, 32, pseudo);
	}
	assert_int_equal(sum(ip + header, len - ETH - header, pseudo), 0xffff);
}

static void put_context(int version, bool tcp, size_t headers, size_t mss)
{
	size_t l4 = ETH + (version == 4 ? 20 : 40), field = l4 + (tcp ? 16 : 6);

	e1000e_rig_put(r, 0,
		       ETH | (ETH + 10) << 8 | (l4 - 1) << 16 | (uint64_t)l4 << 32 |
			       (uint64_t)field << 40,
		       CONTEXT | (version == 4 ? E1000E_TXD_IP : 0) | (tcp ? E1000E_TXD_TCP : 0) |
			       E1000E_TXD_TSE,
		       headers << 8 | mss << 16);
}

/* ---- descriptors ---- */

static void test_legacy(void **state)
{
	uint8_t frame[100];

	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = i;
	put(0, frame, 40, 0, 0);
	put(0, frame + 40, 0, 0, 0);
	put(0, frame + 40, 60, EOP | RS, 0);
	put(0, frame, 80, EOP, 0);
	set(E1000E_IMS, E1000E_INT_TXDW);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 2);
	assert_int_equal(sent(0)->len, 100);
	assert_memory_equal(sent(0)->data, frame, 100);
	assert_int_equal(sent(1)->len, 80);
	assert_int_equal(get(E1000E_TDH), 4);
	/* Told of what should be. */
	assert_int_equal(status_of(0, 0), 0);
	assert_int_equal(status_of(0, 2), E1000E_TXD_DD);
	assert_int_equal(status_of(0, 3), 0);
	assert_true(r->m.input[E1000E_RIG_INPUT]);
	assert_int_equal(get(E1000E_ICR), E1000E_INT_ASSERTED | E1000E_INT_TXDW | E1000E_INT_TXQE);
	/* And once round the ring. */
	for (unsigned i = 0; i < 15; i++)
		put(0, frame, 60 + i, EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 17);
	assert_int_equal(sent(16)->len, 74);
	assert_int_equal(get(E1000E_TDH), 3);
}

static void test_off(void **state)
{
	uint8_t frame[60] = {1};

	set(E1000E_TCTL, 0);
	put(0, frame, 60, EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 0);
	set(E1000E_TCTL, E1000E_TCTL_EN);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.sent_count, 1);
	/* Without the right to read memory, and while the guest stands still. */
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_COMMAND, 2, 3);
	put(0, frame, 60, EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 1);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_COMMAND, 2, 7);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.sent_count, 2);
	vm_stop(&r->m.vm, RUN_STATE_PAUSED);
	put(0, frame, 60, EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 2);
	vm_start(&r->m.vm);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.sent_count, 3);
	/* The second ring, with a vector of its own. */
	set(E1000E_TARC + 0x100, 0);
	put(1, frame, 60, EOP | RS, 0);
	e1000e_rig_kick(r, 1);
	assert_int_equal(r->net.sent_count, 3);
	e1000e_rig_use_msix(r);
	set(E1000E_IVAR, 0x0000a000);
	set(E1000E_IMS, E1000E_INT_TXQ0 << 1);
	set(E1000E_TARC + 0x100, E1000E_TARC_ENABLE);
	e1000e_rig_kick(r, 1);
	assert_int_equal(r->net.sent_count, 4);
	assert_int_equal(r->m.message_count, 1);
	assert_int_equal(r->m.messages[0].data, 0x42);
}

static void test_padding(void **state)
{
	static const uint8_t zeros[60];
	uint8_t frame[20];

	memset(frame, 0xaa, sizeof(frame));
	put(0, frame, 20, EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(sent(0)->len, 20);
	set(E1000E_TCTL, E1000E_TCTL_EN | E1000E_TCTL_PSP);
	put(0, frame, 20, EOP, 0);
	put(0, frame, 13, EOP, 0); /* no Ethernet frame at all */
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 2);
	assert_int_equal(sent(1)->len, 60);
	assert_memory_equal(sent(1)->data, frame, 20);
	assert_memory_equal(sent(1)->data + 20, zeros, 40);
}

static void test_statistics(void **state)
{
	uint8_t frame[1000] = {0};

	put(0, frame, 60, EOP, 0);
	frame[0] = 1;
	put(0, frame, 124, EOP, 0);
	memset(frame, 0xff, 6);
	put(0, frame, 1000, EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(get(E1000E_TPT), 3);
	assert_int_equal(get(E1000E_TPT), 0);
	assert_int_equal(get(E1000E_GPTC), 3);
	assert_int_equal(get(E1000E_MPTC), 1);
	assert_int_equal(get(E1000E_BPTC), 1);
	assert_int_equal(get(E1000E_PTC64), 1);
	assert_int_equal(get(E1000E_PTC64 + 8), 1);
	assert_int_equal(get(E1000E_PTC64 + 16), 1);
	/* Reading the upper half clears both. */
	assert_int_equal(get(E1000E_GOTCL), 60 + 124 + 1000 + 12);
	assert_int_equal(get(E1000E_GOTCL), 60 + 124 + 1000 + 12);
	assert_int_equal(get(E1000E_GOTCL + 4), 0);
	assert_int_equal(get(E1000E_GOTCL), 0);
}

/* ---- checksums and tags ---- */

static void test_checksums(void **state)
{
	static const struct {
		int version;
		bool tcp;
		size_t data;
	} kinds[] = {{4, true, 100}, {4, false, 33}, {6, true, 1}, {6, false, 0}};
	uint8_t frame[256];

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t len = make_packet(frame, kinds[i].version, kinds[i].tcp, kinds[i].data,
					 false) +
			     kinds[i].data;

		put_context(kinds[i].version, kinds[i].tcp, 0, 0);
		/* What is asked for stands in the first. */
		put(0, frame, 20, DATA, (kinds[i].version == 4 ? IXSM : 0) | TXSM);
		put(0, frame + 20, len - 20, DATA | EOP, 0);
		e1000e_rig_kick(r, 0);
		assert_int_equal(sent(i)->len, len);
		check_sums(sent(i)->data, len, kinds[i].version);
	}
	/* The context stays; a packet that asks for nothing gets nothing. */
	put(0, frame, 100, DATA | EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_memory_equal(sent(4)->data, frame, 62);
}

static void test_legacy_checksum(void **state)
{
	uint8_t frame[134];
	size_t len = make_packet(frame, 4, true, 80, false) + 80;

	put(0, frame, len, EOP | E1000E_TXD_IC | 50 << E1000E_TXD_CSO_SHIFT, 34 << 8);
	e1000e_rig_kick(r, 0);
	store_be16(sent(0)->data + 24,
		   ~sum(sent(0)->data + ETH, 20, 0)); /* IP's was not asked for */
	check_sums(sent(0)->data, len, 4);
	/* Places that are none. */
	put(0, frame, len, EOP | E1000E_TXD_IC | 250 << E1000E_TXD_CSO_SHIFT, 34 << 8);
	put(0, frame, len, EOP | E1000E_TXD_IC | 133 << E1000E_TXD_CSO_SHIFT, 34 << 8);
	put(0, frame, len, EOP | E1000E_TXD_IC | 20 << E1000E_TXD_CSO_SHIFT, 34 << 8);
	put(0, frame, len, EOP | E1000E_TXD_IC | 50 << E1000E_TXD_CSO_SHIFT, 255 << 8);
	e1000e_rig_kick(r, 0);
	for (unsigned i = 1; i < 5; i++)
		assert_memory_equal(sent(i)->data, frame, len);
}

static void test_checksum_left(void **state)
{
	struct virtio_net_hdr hdr;
	uint8_t frame[256];
	size_t len = make_packet(frame, 4, true, 100, false) + 100;

	assert_int_equal(r->net.nd.vnet_hdr, 12);
	assert_int_equal(r->net.offloads, NET_OFFLOAD_CSUM);
	put_context(4, true, 0, 0);
	put(0, frame, len, DATA | EOP, IXSM | TXSM);
	put(0, frame, len, DATA | EOP, IXSM);
	e1000e_rig_kick(r, 0);
	assert_int_equal(sent(0)->len, 12 + len);
	memcpy(&hdr, sent(0)->data, 12);
	assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(hdr.gso_type, 0);
	assert_int_equal(le16toh(hdr.csum_start), 34);
	assert_int_equal(le16toh(hdr.csum_offset), 16);
	/* IP's is made here; TCP's field is as it was. */
	assert_int_equal(sum(sent(0)->data + 12 + ETH, 20, 0), 0xffff);
	assert_memory_equal(sent(0)->data + 12 + 34, frame + 34, len - 34);
	memcpy(&hdr, sent(1)->data, 12);
	assert_int_equal(hdr.flags, 0);
	/* With a tag in front all lies further behind. */
	set(E1000E_CTRL, get(E1000E_CTRL) | E1000E_CTRL_VME);
	put(0, frame, len, DATA | EOP | E1000E_TXD_VLE, 0xa123u << 16 | IXSM | TXSM);
	e1000e_rig_kick(r, 0);
	assert_int_equal(sent(2)->len, 12 + len + 4);
	memcpy(&hdr, sent(2)->data, 12);
	assert_int_equal(le16toh(hdr.csum_start), 38);
	assert_int_equal(load_be32(sent(2)->data + 12 + 12), 0x8100a123);
	assert_memory_equal(sent(2)->data + 12, frame, 12);
	assert_int_equal(sum(sent(2)->data + 12 + 4 + ETH, 20, 0), 0xffff);
	assert_memory_equal(sent(2)->data + 12 + 38, frame + 34, len - 34);
}

static void test_tag(void **state)
{
	uint8_t frame[200];
	size_t len = make_packet(frame, 4, false, 50, false) + 50;

	/* Only if both want it. */
	put(0, frame, len, EOP | E1000E_TXD_VLE, 0x0123u << 16);
	e1000e_rig_kick(r, 0);
	assert_int_equal(sent(0)->len, len);
	set(E1000E_CTRL, get(E1000E_CTRL) | E1000E_CTRL_VME);
	set(E1000E_VET, 0x88a8);
	put(0, frame, len, EOP | E1000E_TXD_VLE, 0x0123u << 16);
	put_context(4, false, 0, 0);
	put(0, frame, 30, DATA, IXSM | TXSM);
	put(0, frame + 30, len - 30, DATA | EOP | E1000E_TXD_VLE, 0x0fffu << 16);
	e1000e_rig_kick(r, 0);
	assert_int_equal(sent(1)->len, len + 4);
	assert_memory_equal(sent(1)->data, frame, 12);
	assert_int_equal(load_be32(sent(1)->data + 12), 0x88a80123);
	assert_memory_equal(sent(1)->data + 16, frame + 12, len - 12);
	memmove(sent(2)->data + 12, sent(2)->data + 16, len - 12);
	check_sums(sent(2)->data, len, 4);
}

/* ---- large segments ---- */

/* Sends one, and checks all the frames it became. */
static void check_cut(int version, bool tcp, size_t data, size_t mss, unsigned hdr)
{
	static uint8_t frame[70000];
	size_t headers = make_packet(frame, version, tcp, data, true), at = 0;
	unsigned count = data ? div_round_up(data, mss) : 1;
	uint8_t *l4;

	fake_netdev_clear(&r->net);
	put_context(version, tcp, headers, mss);
	put(0, frame, headers, DATA | E1000E_TXD_TSE, IXSM | TXSM);
	for (size_t n; at < data; at += n) {
		n = MIN(data - at, (size_t)16000);
		put(0, frame + headers + at, n, DATA | E1000E_TXD_TSE | (at + n == data ? EOP : 0),
		    0);
	}
	if (!data)
		put(0, frame, 0, DATA | E1000E_TXD_TSE | EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, count);
	at = 0;
	for (unsigned i = 0; i < count; i++) {
		size_t n = MIN(data - at, mss);
		uint8_t *p = sent(i)->data + hdr;
		bool last = i + 1 == count;

		assert_int_equal(sent(i)->len, hdr + headers + n);
		check_sums(p, headers + n, version);
		assert_memory_equal(p + headers, frame + headers + at, n);
		assert_memory_equal(p, frame, 14);
		if (version == 4)
			assert_int_equal(load_be16(p + 18), (uint16_t)(0xfffe + i));
		l4 = p + ETH + (version == 4 ? 20 : 40);
		if (tcp) {
			assert_int_equal(load_be32(l4 + 4), (uint32_t)(0xfffffff0 + at));
			assert_int_equal(l4[13], 0x10 | (i ? 0 : 0x80) | (last ? 0x09 : 0));
		} else {
			assert_int_equal(load_be16(l4 + 4), 8 + n);
		}
		at += n;
	}
}

static void test_cut(void **state)
{
	check_cut(4, true, 10000, 1460, 0);
	check_cut(4, true, 2920, 1460, 0);
	check_cut(4, true, 100, 1460, 0);
	check_cut(4, true, 0, 1460, 0);
	check_cut(4, true, 60000, 1448, 0);
	check_cut(4, true, 37, 1, 0); /* less than a header */
	check_cut(6, true, 10001, 1440, 0);
	check_cut(4, false, 5000, 1000, 0);
	check_cut(6, false, 5000, 999, 0);
	assert_int_equal(get(E1000E_TSCTC), 9);
}

static void test_cut_tagged(void **state)
{
	static uint8_t frame[5000];
	size_t headers = make_packet(frame, 4, true, 3000, true);

	set(E1000E_CTRL, get(E1000E_CTRL) | E1000E_CTRL_VME);
	put_context(4, true, headers, 1460);
	put(0, frame, headers + 3000, DATA | E1000E_TXD_TSE | EOP | E1000E_TXD_VLE,
	    0x0055u << 16 | IXSM | TXSM);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 3);
	for (unsigned i = 0; i < 3; i++) {
		size_t n = i < 2 ? 1460 : 80;
		uint8_t *p = sent(i)->data;

		assert_int_equal(sent(i)->len, headers + 4 + n);
		assert_int_equal(load_be32(p + 12), 0x81000055);
		assert_memory_equal(p + 4 + headers, frame + headers + i * 1460, n);
		memmove(p + 12, p + 16, headers + n - 12);
		check_sums(p, headers + n, 4);
	}
}

static void test_left_large(void **state)
{
	static uint8_t frame[30000];

	for (int version = 4; version <= 6; version += 2) {
		size_t headers = make_packet(frame, version, true, 20000, true);
		struct virtio_net_hdr hdr;
		uint8_t *p;

		fake_netdev_clear(&r->net);
		put_context(version, true, headers, 1400);
		put(0, frame, headers + 20000, DATA | E1000E_TXD_TSE | EOP, IXSM | TXSM);
		e1000e_rig_kick(r, 0);
		assert_int_equal(r->net.sent_count, 1);
		assert_int_equal(sent(0)->len, 12 + headers + 20000);
		memcpy(&hdr, sent(0)->data, 12);
		assert_int_equal(hdr.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
		/* CWR is set in it. */
		assert_int_equal(hdr.gso_type, VIRTIO_NET_HDR_GSO_ECN |
						       (version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4
								     : VIRTIO_NET_HDR_GSO_TCPV6));
		assert_int_equal(le16toh(hdr.gso_size), 1400);
		assert_int_equal(le16toh(hdr.hdr_len), headers);
		assert_int_equal(le16toh(hdr.csum_start), headers - 20);
		assert_int_equal(le16toh(hdr.csum_offset), 16);
		/* The sum that is asked for makes it right. */
		p = sent(0)->data + 12;
		store_be16(p + headers - 4, ~sum(p + headers - 20, 20020, 0));
		check_sums(p, headers + 20000, version);
	}
	/* One segment is none, and UDP is cut here. */
	check_cut(4, true, 500, 1400, 12);
	check_cut(4, false, 5000, 1400, 12);
}

static void test_cut_for_want_of_offloads(void **state)
{
	check_cut(4, true, 10000, 1460, 10);
}

static void test_bad_segments(void **state)
{
	static uint8_t frame[3000];
	static const struct {
		uint8_t ip, l4, field, headers;
		uint16_t mss;
	} bad[] = {
		{14, 34, 50, 54, 0},	 {14, 34, 50, 53, 1460}, {14, 30, 50, 54, 1460},
		{14, 34, 53, 54, 1460},	 {14, 34, 33, 54, 1460}, {34, 14, 30, 54, 1460},
		{255, 255, 255, 255, 1}, {15, 35, 51, 55, 1460}, {14, 34, 50, 255, 1460},
	};
	unsigned before;

	make_packet(frame, 4, true, 100, true);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		e1000e_rig_put(r, 0,
			       bad[i].ip | (uint64_t)bad[i].l4 << 32 | (uint64_t)bad[i].field << 40,
			       CONTEXT | E1000E_TXD_IP | E1000E_TXD_TCP,
			       (uint32_t)bad[i].headers << 8 | (uint32_t)bad[i].mss << 16);
		put(0, frame, 154, DATA | E1000E_TXD_TSE | EOP, IXSM | TXSM);
		e1000e_rig_kick(r, 0);
	}
	assert_int_equal(r->net.sent_count, 0);
	/* An IP header that says it is longer than it can be. */
	before = r->net.sent_count;
	frame[ETH] = 0x4f;
	put_context(4, true, 54, 1460);
	put(0, frame, 154, DATA | E1000E_TXD_TSE | EOP, IXSM | TXSM);
	frame[ETH] = 0x41;
	put(0, frame, 154, DATA | E1000E_TXD_TSE | EOP, IXSM | TXSM);
	frame[ETH] = 0x65;
	put(0, frame, 154, DATA | E1000E_TXD_TSE | EOP, IXSM | TXSM);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, before);
	/* Offsets of plain checksums that lie outside ask for nothing. */
	e1000e_rig_put(r, 0, UINT64_MAX, CONTEXT | 0xfffff, UINT32_MAX);
	put(0, frame, 154, DATA | EOP, IXSM | TXSM);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, before + 1);
	assert_memory_equal(sent(before)->data, frame, 154);
}

/* ---- a network that is full ---- */

static void test_back_pressure(void **state)
{
	uint8_t frame[60] = {0};

	r->net.take = 2;
	for (unsigned i = 0; i < 5; i++) {
		frame[20] = i;
		put(0, frame, 60, EOP | RS, 0);
	}
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 2);
	r->net.take = UINT_MAX;
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 2); /* it has not said that it takes more */
	net_writable(&r->net.nd.queue[0]);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.sent_count, 5);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(sent(i)->data[20], i);
	/* What waits for it at a reset is gone, and the ring works. */
	r->net.take = 0;
	put(0, frame, 60, EOP, 0);
	e1000e_rig_kick(r, 0);
	set(E1000E_CTRL, get(E1000E_CTRL) | E1000E_CTRL_RST);
	e1000e_rig_start(r, 1, 0);
	r->net.take = UINT_MAX;
	net_writable(&r->net.nd.queue[0]);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.sent_count, 5);
	put(0, frame, 60, EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 6);
	/* A link that goes takes with it what waited. */
	r->net.take = 0;
	put(0, frame, 60, EOP, 0);
	e1000e_rig_kick(r, 0);
	net_set_link(&r->net.nd, false);
	e1000e_rig_settle(r);
	assert_int_equal(get(E1000E_TDH), get(E1000E_TDT));
	assert_int_equal(get(E1000E_TPT), 2); /* since the reset */
}

static void test_segments_wait(void **state)
{
	static uint8_t frame[10000];
	size_t headers = make_packet(frame, 4, true, 9000, true);

	put_context(4, true, headers, 1000);
	put(0, frame, headers + 9000, DATA | E1000E_TXD_TSE | EOP, IXSM | TXSM);
	for (unsigned i = 0; i < 9; i++) {
		r->net.take = 1;
		if (i)
			net_writable(&r->net.nd.queue[0]);
		e1000e_rig_kick(r, 0);
		assert_int_equal(r->net.sent_count, i + 1);
		check_sums(sent(i)->data, headers + 1000, 4);
		assert_memory_equal(sent(i)->data + headers, frame + headers + i * 1000, 1000);
	}
}

/* ---- what no driver does ---- */

static void test_hostile_rings(void **state)
{
	uint8_t frame[60] = {0};

	/* A tail that cannot be met, a head outside. */
	put(0, frame, 60, EOP, 0);
	set(E1000E_TDT, 0xffff);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.sent_count, 0);
	set(E1000E_TDH, 0xffff);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 0);
	set(E1000E_TDH, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 1);
	/* A ring that is not memory, or only in part. */
	set(E1000E_TDBAH, 0xffffffff);
	put(0, frame, 60, EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 1);
	set(E1000E_TDBAH, 0);
	set(E1000E_TDLEN, 0xfff80);
	set(E1000E_TDBAL, E1000E_RIG_RAM - 64);
	set(E1000E_TDH, 0);
	set(E1000E_TDT, 100);
	e1000e_rig_settle(r);
	assert_int_equal(get(E1000E_TDH), 4);
	set(E1000E_TDLEN, 0);
	set(E1000E_TDT, 0);
	e1000e_rig_settle(r);
}

static void test_hostile_packets(void **state)
{
	uint8_t frame[60] = {0};

	/* Bytes that are not memory, and a packet that is too long: each is lost up to its end. */
	e1000e_rig_put(r, 0, UINT64_MAX - 30, 60 | EOP | RS, 0);
	e1000e_rig_put(r, 0, E1000E_RIG_RAM - 10, 60, 0);
	put(0, frame, 60, EOP, 0);
	for (unsigned i = 0; i < 6; i++)
		e1000e_rig_put(r, 0, 0, DATA | 0xfffff, 0);
	put(0, frame, 60, DATA | EOP, 0);
	put(0, frame, 60, DATA | EOP | RS, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(status_of(0, 0), E1000E_TXD_DD);
	assert_int_equal(r->net.sent_count, 1);
	assert_int_equal(get(E1000E_TDH), get(E1000E_TDT));
	/* No end ever. */
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 15; i++)
			put(0, frame, 60, 0, 0);
		e1000e_rig_kick(r, 0);
		r->tx_at = E1000E_RIG_TX_BYTES;
	}
	assert_int_equal(r->net.sent_count, 1);
	put(0, frame, 60, EOP, 0);
	put(0, frame, 60, EOP, 0);
	e1000e_rig_kick(r, 0);
	assert_int_equal(r->net.sent_count, 2);
}

/* However much there is to do, the loop's other work comes in between. */
static void test_bounded_passes(void **state)
{
	uint8_t *ring = r->ram + 0x100000;
	unsigned before, turns = 0;

	set(E1000E_TDBAL, 0x100000);
	set(E1000E_TDLEN, 4096 * 16);
	set(E1000E_TDH, 0);
	for (unsigned i = 0; i < 4096; i++) {
		store_le64(ring + 16 * i, 0);
		store_le32(ring + 16 * i + 8, EOP | 60);
	}
	set(E1000E_TDT, 4095);
	for (; get(E1000E_TDH) != 4095; turns++) {
		before = get(E1000E_TDH);
		evloop_run_once(r->m.vm.loop, 0);
		assert_true(get(E1000E_TDH) - before <= 512);
		assert_true(turns < 100);
	}
	assert_true(turns >= 8);
	/* So it is with the pieces of one. */
	make_packet(r->ram + 0x200000, 4, true, 60000, true);
	store_le64(ring, 14 | (uint64_t)34 << 32 | (uint64_t)50 << 40);
	store_le32(ring + 8, CONTEXT | E1000E_TXD_IP | E1000E_TXD_TCP);
	store_le32(ring + 12, 54 << 8 | 1 << 16);
	store_le64(ring + 16, 0x200000);
	store_le32(ring + 24, DATA | E1000E_TXD_TSE | EOP | 60054);
	set(E1000E_TDH, 0);
	before = r->net.sent_count;
	set(E1000E_TDT, 2);
	for (turns = 0; r->net.sent_count < before + 60000; turns++) {
		unsigned had = r->net.sent_count;

		evloop_run_once(r->m.vm.loop, 0);
		assert_true(r->net.sent_count - had <= 512);
		assert_true(turns < 1000);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_legacy),
		TEST(test_off),
		TEST(test_padding),
		TEST(test_statistics),
		TEST(test_checksums),
		TEST(test_legacy_checksum),
		cmocka_unit_test_setup_teardown(test_checksum_left, setup_headers, teardown),
		TEST(test_tag),
		TEST(test_cut),
		TEST(test_cut_tagged),
		cmocka_unit_test_setup_teardown(test_left_large, setup_headers, teardown),
		cmocka_unit_test_setup_teardown(test_cut_for_want_of_offloads, setup_csum,
						teardown),
		TEST(test_bad_segments),
		TEST(test_back_pressure),
		TEST(test_segments_wait),
		TEST(test_hostile_rings),
		TEST(test_hostile_packets),
		TEST(test_bounded_passes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
