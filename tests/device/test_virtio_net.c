/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net driven through its registers and rings: negotiation and the data paths. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/state_copy.h"
#include "tests/lib/vnet.h"
#include "vmm/core/util.h"

#define ALL UINT64_MAX
enum { BIG = 65550, MTU_FRAME = 1514 };

static int setup(void **state)
{
	struct vnet *v = calloc(1, sizeof(*v));

	vnet_init(v, 1, 12, VNET_ALL_OFFLOADS);
	*state = v;
	return 0;
}

static int setup_plain(void **state)
{
	struct vnet *v = calloc(1, sizeof(*v));

	vnet_init(v, 1, 0, 0);
	*state = v;
	return 0;
}

static int teardown(void **state)
{
	struct vnet *v = *state;

	vnet_destroy(v);
	free(v);
	return 0;
}

static void start(struct vnet *v, const char *props, uint64_t features)
{
	vnet_add(v, props);
	vnet_drive(v, false, features, true);
}

static void check_receives(struct vnet *v, unsigned pair, size_t len, unsigned seed)
{
	static uint8_t frame[BIG], got[BIG + 20];

	vnet_frame(frame, len, NULL, seed);
	assert_true(vnet_arrive(v, pair, frame, len));
	assert_int_equal(vnet_take(v, pair, got, sizeof(got), NULL), v->hdr + len);
	assert_memory_equal(got + v->hdr, frame, len);
}

static void check_sends(struct vnet *v, unsigned pair, size_t len, unsigned seed)
{
	static uint8_t frame[BIG];
	struct fake_netdev_packet *p;
	unsigned before = v->net.sent_count, hdr = v->net.nd.vnet_hdr;

	vnet_frame(frame, len, vnet_broadcast, seed);
	vnet_send(v, pair, NULL, frame, len);
	assert_int_equal(v->net.sent_count, before + 1);
	p = &v->net.sent[before % FAKE_NETDEV_PACKETS];
	assert_int_equal(p->queue, pair);
	assert_int_equal(p->len, hdr + len);
	assert_memory_equal(p->data + hdr, frame, len);
}

/* Both ways. */
static void check_works(struct vnet *v)
{
	vnet_post(v, 0, 4, 2048);
	check_receives(v, 0, 200, 1);
	check_sends(v, 0, 200, 2);
}

/* ---- negotiation and configuration ---- */

static void every_feature_has_its_property(void **state)
{
	struct vnet *v = *state;
	static const struct {
		const char *name;
		uint64_t bit;
	} features[] = {
		{"csum", VIRTIO_NET_F_CSUM},
		{"guest_csum", VIRTIO_NET_F_GUEST_CSUM},
		{"gso", VIRTIO_NET_F_GSO},
		{"guest_tso4", VIRTIO_NET_F_GUEST_TSO4},
		{"guest_tso6", VIRTIO_NET_F_GUEST_TSO6},
		{"guest_ecn", VIRTIO_NET_F_GUEST_ECN},
		{"guest_ufo", VIRTIO_NET_F_GUEST_UFO},
		{"guest_uso4", VIRTIO_NET_F_GUEST_USO4},
		{"guest_uso6", VIRTIO_NET_F_GUEST_USO6},
		{"host_tso4", VIRTIO_NET_F_HOST_TSO4},
		{"host_tso6", VIRTIO_NET_F_HOST_TSO6},
		{"host_ecn", VIRTIO_NET_F_HOST_ECN},
		{"host_ufo", VIRTIO_NET_F_HOST_UFO},
		{"host_uso", VIRTIO_NET_F_HOST_USO},
		{"mrg_rxbuf", VIRTIO_NET_F_MRG_RXBUF},
		{"status", VIRTIO_NET_F_STATUS},
		{"ctrl_rx", VIRTIO_NET_F_CTRL_RX},
		{"ctrl_vlan", VIRTIO_NET_F_CTRL_VLAN},
		{"ctrl_rx_extra", VIRTIO_NET_F_CTRL_RX_EXTRA},
		{"ctrl_mac_addr", VIRTIO_NET_F_CTRL_MAC_ADDR},
		{"guest_announce", VIRTIO_NET_F_GUEST_ANNOUNCE},
		{"ctrl_guest_offloads", VIRTIO_NET_F_CTRL_GUEST_OFFLOADS},
		{"event_idx", VIRTIO_F_EVENT_IDX},
		{"indirect_desc", VIRTIO_F_INDIRECT_DESC},
	};
	const uint64_t always = VIRTIO_NET_F_MAC | VIRTIO_NET_F_CTRL_VQ | VIRTIO_F_VERSION_1;
	uint64_t all = always;
	char props[64];

	for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
		all |= features[i].bit;
	vnet_add(v, NULL);
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_int_equal(vdriver_offered(&v->d), all);
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		device_free(v->dev);
		snprintf(props, sizeof(props), "%s=off", features[i].name);
		vnet_add(v, props);
		vdriver_open(&v->d, &v->g, v->dev, false);
		assert_int_equal(vdriver_offered(&v->d), all & ~features[i].bit);
	}
	device_free(v->dev);
	vnet_add(v, "ctrl_vq=off,rss=on,hash=on,host_mtu=9000,speed=1000");
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_false(vdriver_offered(&v->d) &
		     (VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_RSS |
		      VIRTIO_NET_F_GUEST_ANNOUNCE | VIRTIO_NET_F_HASH_REPORT));
	assert_int_equal(vguest_in(&v->g, false, v->d.common + 18, 2), 2);
	assert_true(vdriver_offered(&v->d) & VIRTIO_NET_F_MTU);
	assert_true(vdriver_offered(&v->d) & VIRTIO_NET_F_SPEED_DUPLEX);
	device_free(v->dev);
	vnet_add(v, "rss=on,hash=on");
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_int_equal(vdriver_offered(&v->d), all | VIRTIO_NET_F_RSS | VIRTIO_NET_F_HASH_REPORT);
}

static void offloads_are_the_back_ends(void **state)
{
	struct vnet *v = *state;
	const uint64_t none = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GSO | VIRTIO_NET_F_HOST_TSO4 |
			      VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN |
			      VIRTIO_NET_F_HOST_UFO | VIRTIO_NET_F_HOST_USO |
			      VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | VIRTIO_NET_GUEST_OFFLOADS;

	vnet_add(v, NULL);
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_false(vdriver_offered(&v->d) & none);
	assert_true(vdriver_offered(&v->d) & VIRTIO_NET_F_MRG_RXBUF);
	device_free(v->dev);
	/* Some of them. */
	v->net.nd.vnet_hdr_max = 10;
	v->net.nd.offloads_able = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_USO4;
	vnet_add(v, NULL);
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_int_equal(vdriver_offered(&v->d) & none,
			 VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_HOST_TSO4 |
				 VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_USO4 |
				 VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
}

static void configuration_space(void **state)
{
	struct vnet *v = *state;
	struct vdriver *d = &v->d;

	vnet_add(v, "mac=52:54:00:aa:bb:cc,host_mtu=9000,speed=25000,duplex=full,rss=on,"
		    "rx_queue_size=512,tx_queue_size=1024");
	vdriver_open(d, &v->g, v->dev, false);
	assert_int_equal(vdriver_config_read(d, 0, 4), 0xaa005452);
	assert_int_equal(vdriver_config_read(d, 4, 2), 0xccbb);
	assert_int_equal(vdriver_config_read(d, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(vdriver_config_read(d, 8, 2), 1);
	assert_int_equal(vdriver_config_read(d, 10, 2), 9000);
	assert_int_equal(vdriver_config_read(d, 12, 4), 25000);
	assert_int_equal(vdriver_config_read(d, 16, 1), 1);
	assert_int_equal(vdriver_config_read(d, 17, 1), 40);
	assert_int_equal(vdriver_config_read(d, 18, 2), 128);
	assert_int_equal(vdriver_config_read(d, 20, 4), 0x1ff);
	assert_int_equal(vdriver_config_read(d, 24, 4), 0xffffffff);
	assert_int_equal(vguest_in(&v->g, false, d->common + 18, 2), 3);
	static const unsigned sizes[] = {512, 1024, 64};
	for (unsigned i = 0; i < 3; i++) {
		vguest_out(&v->g, false, d->common + 22, i, 2);
		assert_int_equal(vguest_in(&v->g, false, d->common + 24, 2), sizes[i]);
	}
	assert_int_equal(vdriver_pci_read(d, PCI_VENDOR_ID, 4), 0x10001af4);
	assert_int_equal(vdriver_pci_read(d, 8, 4) >> 8, 0x020000);
	assert_int_equal(d->pci->msix.count, 4);
	/* The address is not for modern drivers to write. */
	vdriver_config_write(d, 0, 0, 4);
	vnet_drive(v, false, ALL, false);
	vdriver_config_write(d, 0, 0, 4);
	assert_int_equal(vdriver_config_read(d, 0, 4), 0xaa005452);
	/* Speed and duplex unknown. */
	device_free(v->dev);
	vnet_add(v, NULL);
	vdriver_open(d, &v->g, v->dev, false);
	assert_int_equal(vdriver_config_read(d, 12, 4), 0xffffffff);
	assert_int_equal(vdriver_config_read(d, 16, 1), 0xff);
}

static void addresses_are_counted_up(void **state)
{
	struct vnet *v = *state;
	struct vdriver other;
	struct device *dev;

	dev = vguest_add(&v->g, &virtio_net_pci_desc, NULL, NULL);
	vnet_add(v, NULL);
	vdriver_open(&v->d, &v->g, v->dev, false);
	vdriver_open(&other, &v->g, dev, false);
	assert_int_equal(vdriver_config_read(&other, 4, 2), 0x5634);
	assert_int_equal(vdriver_config_read(&v->d, 4, 2), 0x5734);
	device_free(dev);
	dev = vguest_add(&v->g, &virtio_net_pci_desc, NULL, NULL);
	vguest_boot(&v->g);
	vdriver_open(&other, &v->g, dev, false);
	assert_int_equal(vdriver_config_read(&other, 4, 2), 0x5634);
}

static void bad_properties_are_refused(void **state)
{
	struct vnet *v = *state;
	static const char *const bad[] = {
		"rx_queue_size=100",
		"rx_queue_size=128",
		"tx_queue_size=2048",
		"tx_queue_size=300",
		"tx=timer",
		"tx=x",
		"speed=-2",
		"duplex=both",
		"mac=53:54:00:12:34:56",
		"mac=1",
		"netdev=nothing",
		"netdev=n1",
		"vectors=5000",
		"disable-modern=on,disable-legacy=on",
	};
	struct fake_netdev taken;

	fake_netdev_init(&taken, "n1", 1, 0, 0);
	taken.nd.peer = (const struct net_peer *)v;
	vguest_object(&v->g, "n1", &taken.nd);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error *err = NULL;
		char props[128];

		snprintf(props, sizeof(props), "netdev=n0,%s", bad[i]);
		if (vguest_add(&v->g, &virtio_net_pci_desc, props, &err))
			fail_msg("%s was accepted", bad[i]);
		assert_non_null(err);
		error_free(err);
		assert_null(v->net.nd.peer);
	}
	taken.nd.peer = NULL;
	fake_netdev_destroy(&taken);
	start(v, "tx=bh", ALL);
	check_works(v);
}

static void a_card_without_a_network_loses_packets(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[60];

	v->dev = vguest_add(&v->g, &virtio_net_pci_desc, NULL, NULL);
	vguest_boot(&v->g);
	vnet_drive(v, false, ALL, true);
	vnet_post(v, 0, 4, 2048);
	vnet_frame(frame, sizeof(frame), NULL, 0);
	vnet_send(v, 0, NULL, frame, sizeof(frame));
	vdriver_reset(&v->d);
}

/* A card to boot from has iPXE's ROM, if that is installed, with the device's own number in it. */
static void a_rom_to_boot_from(void **state)
{
	struct vnet *v = *state;
	struct pci_device *pci;

	for (int modern = 0; modern < 2; modern++) {
		vnet_add(v, modern ? "bootindex=1,disable-legacy=on" : "bootindex=1");
		pci = pci_device_of(v->dev);
		if (pci->rom_data) {
			const uint8_t *pcir = pci->rom_data + load_le16(pci->rom_data + 0x18);
			uint8_t sum = 0;

			assert_int_equal(load_le16(pcir + 6), modern ? 0x1041 : 0x1000);
			for (unsigned i = 0; i < pci->rom_data[2] * 512u; i++)
				sum += pci->rom_data[i];
			assert_int_equal(sum, 0);
		}
		device_free(v->dev);
		vnet_add(v, modern ? "bootindex=1,romfile=" : "bootindex=1,rombar=0");
		assert_null(pci_device_of(v->dev)->rom_data);
		device_free(v->dev);
	}
	vnet_add(v, NULL);
	assert_null(pci_device_of(v->dev)->rom_data);
}

/* ---- headers ---- */

static void headers_go_both_ways_as_they_are(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[9000], packet[9012], got[9012];
	struct virtio_net_hdr h = {
		.flags = 1,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = 54,
		.gso_size = 1448,
		.csum_start = 34,
		.csum_offset = 16,
		.num_buffers = 77,
	};
	struct fake_netdev_packet *p;

	start(v, NULL, ALL);
	assert_int_equal(v->net.nd.vnet_hdr, 12);
	assert_int_equal(v->net.offloads, VNET_ALL_OFFLOADS);
	vnet_frame(frame, sizeof(frame), NULL, 3);
	vnet_send(v, 0, &h, frame, sizeof(frame));
	p = &v->net.sent[0];
	assert_int_equal(p->len, 9012);
	h.num_buffers = 0;
	assert_memory_equal(p->data, &h, 12);
	assert_memory_equal(p->data + 12, frame, sizeof(frame));

	vnet_post(v, 0, 10, 10000);
	memcpy(packet, &h, 12);
	memcpy(packet + 12, frame, sizeof(frame));
	assert_true(fake_netdev_receive(&v->net, 0, packet, sizeof(packet)));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 9012);
	store_le16(packet + 10, 1);
	assert_memory_equal(got, packet, sizeof(packet));
}

static void back_ends_without_headers_see_plain_frames(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[100], got[200];

	start(v, NULL, ALL);
	assert_int_equal(v->net.nd.vnet_hdr, 0);
	check_works(v);
	vnet_frame(frame, sizeof(frame), NULL, 9);
	assert_true(vnet_arrive(v, 0, frame, sizeof(frame)));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 112);
	static const uint8_t expected[12] = {[10] = 1};
	assert_memory_equal(got, expected, 12);
}

static void short_headers_of_the_back_end(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[100], got[200];

	v->net.nd.vnet_hdr_max = 10;
	start(v, NULL, ALL);
	assert_int_equal(v->net.nd.vnet_hdr, 10);
	check_works(v);
	vnet_frame(frame, sizeof(frame), NULL, 9);
	assert_true(vnet_arrive(v, 0, frame, sizeof(frame)));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 112);
	assert_int_equal(load_le16(got + 10), 1);
	assert_memory_equal(got + 12, frame, sizeof(frame));
}

static void legacy_drivers(void **state)
{
	struct vnet *v = *state;
	struct vdriver *d = &v->d;

	vnet_add(v, NULL);
	/* Headers of 10 bytes, one buffer a packet, in any layout. */
	vnet_drive(v, true, 0, false);
	assert_int_equal(v->hdr, 10);
	assert_int_equal(v->net.nd.vnet_hdr, 10);
	assert_int_equal(v->net.offloads, 0);
	check_works(v);
	/* The address is written, byte by byte. */
	for (unsigned i = 0; i < 6; i++)
		vdriver_config_write(d, i, 0x10 + i * 2, 1);
	vguest_settle(&v->g);
	assert_int_equal(vdriver_config_read(d, 0, 4), 0x16141210);
	assert_int_equal(vdriver_config_read(d, 4, 2), 0x1a18);
	vdriver_reset(d);
	assert_int_equal(vdriver_config_read(d, 4, 2), 0x5634);
	vnet_drive(v, true, VIRTIO_NET_F_MRG_RXBUF, false);
	assert_int_equal(v->hdr, 12);
	assert_int_equal(v->net.nd.vnet_hdr, 12);
	check_works(v);
	vdriver_reset(d);
	vnet_drive(v, true, ALL, true);
	check_works(v);
	assert_true(v->g.msi[1]);
	assert_true(v->g.msi[2]);
}

/* A header in a descriptor of its own, which some old drivers must have. */
static void a_header_of_its_own(void **state)
{
	struct vnet *v = *state;
	uint64_t gpa;
	uint8_t frame[300];
	struct vbuf bufs[3];

	for (int plain = 0; plain < 2; plain++) {
		v->net.nd.vnet_hdr_max = plain ? 0 : 12;
		v->net.nd.offloads_able = plain ? 0 : VNET_ALL_OFFLOADS;
		vnet_add(v, NULL);
		vnet_drive(v, true, 0, false);
		gpa = vguest_alloc(&v->g, 4096, 16);
		bufs[0] = (struct vbuf){gpa, 10};
		bufs[1] = (struct vbuf){gpa + 100, 20};
		bufs[2] = (struct vbuf){gpa + 200, 1600};
		memset(vguest_ptr(&v->g, gpa), 0xcc, 4096);
		vring_add(v->rx[0], bufs, 0, 3, false);
		vring_kick(v->rx[0]);
		vguest_settle(&v->g);
		vnet_frame(frame, sizeof(frame), NULL, 4);
		assert_true(vnet_arrive(v, 0, frame, sizeof(frame)));
		vguest_settle(&v->g);
		assert_true(vring_used(v->rx[0], NULL, NULL));
		assert_memory_equal(vguest_ptr(&v->g, gpa), "\0\0\0\0\0\0\0\0\0\0\xcc", 11);
		assert_memory_equal(vguest_ptr(&v->g, gpa + 100), frame, 20);
		assert_memory_equal(vguest_ptr(&v->g, gpa + 200), frame + 20, 280);
		assert_int_equal(*(uint8_t *)vguest_ptr(&v->g, gpa + 480), 0xcc);
		/* Outwards, the same. */
		memset(vguest_ptr(&v->g, gpa), 0, 10);
		bufs[2].len = 280;
		fake_netdev_clear(&v->net);
		vring_add(v->tx[0], bufs, 3, 0, false);
		vring_kick(v->tx[0]);
		vguest_settle(&v->g);
		assert_int_equal(v->net.sent_count, 1);
		assert_memory_equal(v->net.sent[0].data + v->net.nd.vnet_hdr, frame, 300);
		device_free(v->dev);
	}
}

static void malformed_packets_are_dropped(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[65536 + 100];
	static const struct {
		struct virtio_net_hdr h;
		size_t len;
	} bad[] = {
		{{.flags = 1, .csum_start = 100, .csum_offset = 0}, 100},
		{{.flags = 1, .csum_start = 98, .csum_offset = 1}, 100},
		{{.flags = 1, .csum_start = 65535, .csum_offset = 65535}, 100},
		{{.gso_type = 1, .gso_size = 1000}, 100},
		{{.flags = 1, .gso_type = 1, .csum_start = 34, .csum_offset = 16}, 100},
		{{.flags = 1, .gso_type = 2, .gso_size = 9, .csum_start = 3}, 100},
		{{.flags = 1, .gso_type = 0x7f, .gso_size = 9, .csum_start = 3}, 100},
		{{.flags = 1, .gso_type = 0x80, .gso_size = 9, .csum_start = 3}, 100},
		{{.flags = 1, .gso_type = 0x83, .gso_size = 9, .csum_start = 3}, 100},
		{{0}, 13},
		{{0}, 1},
		{{0}, 65536 + 100},
	};

	start(v, NULL, ALL);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		vnet_send(v, 0, &bad[i].h, frame, bad[i].len);
		if (v->net.sent_count)
			fail_msg("packet %u was sent", i);
		assert_false(vdriver_status(&v->d) & VIRTIO_STATUS_NEEDS_RESET);
	}
	/* At the very end it is still right; what means nothing is not passed on. */
	struct virtio_net_hdr edge = {.flags = 0xff, .csum_start = 90, .csum_offset = 8};
	vnet_send(v, 0, &edge, frame, 100);
	assert_int_equal(v->net.sent[0].data[0], 1);
	struct virtio_net_hdr odd = {.gso_size = 5, .hdr_len = 60000, .csum_start = 60000};
	vnet_send(v, 0, &odd, frame, 100);
	static const uint8_t zero[12];
	assert_memory_equal(v->net.sent[1].data, zero, 12);
	vnet_send(v, 0, NULL, frame, 14);
	vnet_send(v, 0, NULL, frame, 65550);
	assert_int_equal(v->net.sent_count, 4);
	check_works(v);
	/* What was not negotiated. */
	vdriver_reset(&v->d);
	vnet_drive_again(v, VIRTIO_NET_F_CSUM);
	fake_netdev_clear(&v->net);
	static const struct virtio_net_hdr unasked[] = {
		{.flags = 1, .gso_type = 1, .gso_size = 9, .csum_start = 3},
		{.flags = 1, .gso_type = 3, .gso_size = 9, .csum_start = 3},
		{.flags = 1, .gso_type = 4, .gso_size = 9, .csum_start = 3},
		{.flags = 1, .gso_type = 5, .gso_size = 9, .csum_start = 3},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(unasked); i++)
		vnet_send(v, 0, &unasked[i], frame, 100);
	assert_int_equal(v->net.sent_count, 0);
	vnet_send(v, 0, &edge, frame, 100);
	assert_int_equal(v->net.sent_count, 1);
	vdriver_reset(&v->d);
	vnet_drive_again(v, 0);
	vnet_send(v, 0, &edge, frame, 100);
	assert_int_equal(v->net.sent_count, 1);
}

static void a_driver_without_headers_needs_a_reset(void **state)
{
	struct vnet *v = *state;
	struct vbuf buf;

	start(v, NULL, ALL);
	for (int out = 0; out < 2; out++) {
		buf = (struct vbuf){vguest_alloc(&v->g, 64, 16), 11};
		vring_add(out ? v->tx[0] : v->rx[0], &buf, out, !out, false);
		vring_kick(out ? v->tx[0] : v->rx[0]);
		vguest_settle(&v->g);
		if (!out) {
			uint8_t frame[60] = {0};

			assert_false(vnet_arrive(v, 0, frame, sizeof(frame)));
		}
		assert_true(vdriver_status(&v->d) & VIRTIO_STATUS_NEEDS_RESET);
		assert_false(fake_netdev_receive(&v->net, 0, "x", 1));
		vdriver_reset(&v->d);
		vnet_drive_again(v, ALL);
		check_works(v);
	}
}

/* ---- receiving ---- */

static void packets_fill_several_buffers(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[BIG], got[BIG + 12];
	unsigned buffers;

	start(v, NULL, ALL);
	vnet_post(v, 0, 200, 1526);
	for (unsigned len = 60; len < BIG; len = len * 2 + 77) {
		vnet_frame(frame, len, NULL, len);
		assert_true(vnet_arrive(v, 0, frame, len));
		assert_int_equal(vnet_take(v, 0, got, sizeof(got), &buffers), 12 + len);
		assert_int_equal(buffers, div_round_up(12 + len, 1526));
		assert_memory_equal(got + 12, frame, len);
	}
}

/* Bytes of guest memory in the next room. */
static size_t next_room(struct vnet *v, unsigned n, unsigned *rooms)
{
	struct net_packet pkts[NET_BATCH];

	*rooms = net_receive_buffers(&v->net.nd.queue[0], pkts, n);
	return *rooms ? pkts[0].len - NET_PACKET_MAX : 0;
}

static void rooms_follow_what_comes(void **state)
{
	struct vnet *v = *state;
	unsigned rooms;

	start(v, NULL, ALL);
	vnet_post(v, 0, 256, 1600);
	assert_int_equal(next_room(v, 64, &rooms), 1600);
	assert_int_equal(rooms, 16);
	check_receives(v, 0, 60, 1);
	check_receives(v, 0, 9000, 1);
	/* From now on the large ones are read where they belong. */
	assert_true(next_room(v, 64, &rooms) >= 65535);
	assert_true(rooms <= 6);
	check_receives(v, 0, 65000, 1);
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned j = 0; j < 190; j++)
			check_receives(v, 0, 1514, j);
		while (v->rx[0]->avail_idx != v->rx[0]->used_idx)
			check_receives(v, 0, 60, 2);
		vnet_post(v, 0, 256, 1600);
	}
	assert_int_equal(next_room(v, 64, &rooms), 1600);
	check_receives(v, 0, 60000, 1);
}

static void large_packets_wait_for_buffers(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[BIG], got[BIG + 12];
	unsigned buffers;

	start(v, NULL, ALL);
	vnet_post(v, 0, 10, 1526);
	vnet_frame(frame, 40000, NULL, 1);
	assert_true(vnet_arrive(v, 0, frame, 40000));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 0);
	/* Nothing overtakes it. */
	assert_false(vnet_arrive(v, 0, frame, 60));
	vnet_post(v, 0, 10, 1526);
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 0);
	assert_int_equal(v->net.ready[0], 1);
	vnet_post(v, 0, 10, 1526);
	assert_int_equal(v->net.ready[0], 2);
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), &buffers), 40012);
	assert_int_equal(buffers, 27);
	assert_memory_equal(got + 12, frame, 40000);
	check_receives(v, 0, 60, 3);
	check_receives(v, 0, 3000, 4);
	assert_false(vnet_arrive(v, 0, frame, 60));
}

static void a_packet_that_no_ring_can_hold_is_lost(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[BIG];

	start(v, NULL, ALL);
	vnet_post(v, 0, 256, 100);
	vnet_frame(frame, 60000, NULL, 1);
	assert_true(vnet_arrive(v, 0, frame, 60000));
	check_receives(v, 0, 60, 3);
	check_receives(v, 0, 25000, 3);
}

static void jumbo_frames_without_large_segments(void **state)
{
	struct vnet *v = *state;
	static uint8_t frames[3][9014], got[9026];
	struct iovec batch[3];

	start(v, NULL, ALL);
	vnet_post(v, 0, 200, 1526);
	/* The first are unexpected, and more than one at a time. */
	for (unsigned round = 0; round < 3; round++) {
		unsigned n;

		for (unsigned i = 0; i < 3; i++) {
			vnet_frame(frames[i], 9014, NULL, 10 * round + i);
			batch[i] = (struct iovec){frames[i], i == 1 ? 500 : 9014};
		}
		n = fake_netdev_receive_batch(&v->net, 0, batch, 3);
		assert_int_equal(n, 3);
		for (unsigned i = 0; i < n; i++) {
			assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL),
					 12 + batch[i].iov_len);
			assert_memory_equal(got + 12, frames[i], batch[i].iov_len);
		}
	}
}

static void batches(void **state)
{
	struct vnet *v = *state;
	static uint8_t frames[NET_BATCH][200], got[300];
	struct iovec batch[NET_BATCH];

	start(v, NULL, ALL);
	vnet_post(v, 0, 256, 1526);
	for (unsigned round = 0; round < 10; round++) {
		unsigned expected = 0, posted = 0;

		for (unsigned i = 0; i < NET_BATCH; i++) {
			vnet_frame(frames[i], 200, NULL, round * 64 + i);
			/* Some rooms stay empty, some packets are too short to be any. */
			batch[i] = (struct iovec){frames[i], i % 7 == 3	   ? 0
							     : i % 11 == 4 ? 13
									   : 200};
		}
		assert_int_equal(fake_netdev_receive_batch(&v->net, 0, batch, NET_BATCH),
				 NET_BATCH);
		for (unsigned i = 0; i < NET_BATCH; i++) {
			if (batch[i].iov_len != 200)
				continue;
			assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 212);
			assert_memory_equal(got + 12, frames[i], 200);
			expected++;
		}
		assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 0);
		assert_int_equal(v->rx[0]->used_idx, (uint16_t)(expected * (round + 1)));
		/* As a driver refills: in the ring's places that are free again. */
		for (; posted < expected; posted++) {
			uint8_t *used = vguest_ptr(&v->g, v->rx[0]->used);
			uint16_t at = v->rx[0]->used_idx - expected + posted;

			vring_offer(v->rx[0], load_le32(used + 4 + 8 * (at % 256)));
		}
		vring_kick(v->rx[0]);
		vguest_settle(&v->g);
	}
}

static void small_buffers_without_merging(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[BIG], got[BIG + 12];

	start(v, NULL, ALL & ~VIRTIO_NET_F_MRG_RXBUF);
	vnet_post(v, 0, 3, 1526);
	vnet_frame(frame, 1515, NULL, 0);
	/* Too long for its buffer: lost, and the buffer is not. */
	assert_true(vnet_arrive(v, 0, frame, 1515));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 0);
	check_receives(v, 0, 1514, 1);
	check_receives(v, 0, 60, 2);
	vnet_post(v, 0, 1, 65562);
	check_receives(v, 0, 14, 3);
	check_receives(v, 0, 65550, 3);
	assert_false(vnet_arrive(v, 0, frame, 60));
}

static void buffers_of_many_pieces(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[BIG], got[8];
	struct vbuf bufs[1000];
	uint32_t len;

	(void)got;
	start(v, NULL, ALL & ~VIRTIO_NET_F_MRG_RXBUF);
	for (unsigned round = 0; round < 6; round++) {
		uint64_t gpa = vguest_alloc(&v->g, 80000, 16);

		for (unsigned i = 0; i < 1000; i++)
			bufs[i] = (struct vbuf){gpa + i * 80, i ? 70 : 5};
		vring_add(v->rx[0], bufs, 0, 1000, true);
		vring_kick(v->rx[0]);
		vguest_settle(&v->g);
		vnet_frame(frame, 60000, NULL, round);
		assert_true(vnet_arrive(v, 0, frame, 60000));
		vguest_settle(&v->g);
		assert_true(vring_used(v->rx[0], NULL, &len));
		assert_int_equal(len, 60012);
		/* Five bytes of header, then seven, then 63 of the frame. */
		assert_memory_equal(vguest_ptr(&v->g, gpa + 80 + 7), frame, 63);
		assert_memory_equal(vguest_ptr(&v->g, gpa + 160), frame + 63, 70);
		assert_memory_equal(vguest_ptr(&v->g, gpa + 80 * 500), frame + 63 + 70 * 498, 70);
	}
}

static void back_pressure_towards_the_network(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[60];

	start(v, NULL, ALL);
	vnet_frame(frame, sizeof(frame), NULL, 0);
	assert_false(vnet_arrive(v, 0, frame, sizeof(frame)));
	assert_int_equal(v->net.ready[0], 0);
	vnet_post(v, 0, 2, 2048);
	assert_int_equal(v->net.ready[0], 1);
	check_receives(v, 0, 60, 1);
	check_receives(v, 0, 60, 2);
	assert_false(vnet_arrive(v, 0, frame, sizeof(frame)));
	/* The driver is asked for a kick once it has none, and not before. */
	vnet_post(v, 0, 2, 2048);
	assert_int_equal(v->net.ready[0], 2);
	check_receives(v, 0, 60, 3);
	unsigned kicks = v->rx[0]->kicks;
	vnet_post(v, 0, 2, 2048);
	assert_int_equal(v->rx[0]->kicks, kicks);
	assert_int_equal(v->net.ready[0], 2);
	for (int i = 0; i < 3; i++)
		check_receives(v, 0, 60, 4);
}

/* ---- sending ---- */

static void bursts_go_out_in_batches(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[100];

	start(v, NULL, ALL);
	for (unsigned i = 0; i < 200; i++) {
		vnet_frame(frame, sizeof(frame), vnet_broadcast, i);
		vnet_put(v, 0, NULL, frame, sizeof(frame), 1 + i % 5);
	}
	vring_kick(v->tx[0]);
	vguest_settle(&v->g);
	assert_int_equal(v->net.sent_count, 200);
	assert_int_equal(v->net.send_calls, 4);
	assert_int_equal(v->net.largest_batch, NET_BATCH);
	assert_int_equal(v->g.msi[2], 1);
	for (unsigned i = 0; i < 200; i++) {
		vnet_frame(frame, sizeof(frame), vnet_broadcast, i);
		assert_memory_equal(v->net.sent[i].data + 12, frame, sizeof(frame));
		assert_true(vring_used(v->tx[0], NULL, NULL));
	}
}

static void long_chains(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[65550];

	start(v, NULL, ALL);
	vnet_frame(frame, sizeof(frame), vnet_broadcast, 5);
	for (unsigned i = 0; i < 5; i++)
		vnet_put(v, 0, NULL, frame, sizeof(frame), 1000);
	vring_kick(v->tx[0]);
	vguest_settle(&v->g);
	assert_int_equal(v->net.sent_count, 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_memory_equal(v->net.sent[i].data + 12, frame, sizeof(frame));
		assert_true(v->net.sent[i].iovcnt <= 1024);
	}
}

static void a_full_back_end_says_when_it_has_room(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[100];

	start(v, NULL, ALL);
	v->net.take = 10;
	for (unsigned i = 0; i < 100; i++) {
		vnet_frame(frame, sizeof(frame), vnet_broadcast, i);
		vnet_put(v, 0, NULL, frame, sizeof(frame), 1);
	}
	vring_kick(v->tx[0]);
	vguest_settle(&v->g);
	assert_int_equal(v->net.sent_count, 10);
	/* Meanwhile kicks are of no use. */
	vnet_put(v, 0, NULL, frame, sizeof(frame), 1);
	assert_false(vring_kick(v->tx[0]));
	vring_ring(v->tx[0]);
	vguest_settle(&v->g);
	assert_int_equal(v->net.sent_count, 10);
	v->net.take = 60;
	net_writable(&v->net.nd.queue[0]);
	assert_int_equal(v->net.sent_count, 70);
	v->net.take = UINT_MAX;
	net_writable(&v->net.nd.queue[0]);
	vguest_settle(&v->g);
	assert_int_equal(v->net.sent_count, 101);
	for (unsigned i = 0; i < 100; i++) {
		vnet_frame(frame, sizeof(frame), vnet_broadcast, i);
		assert_memory_equal(v->net.sent[i].data + 12, frame, sizeof(frame));
	}
	for (unsigned i = 0; i < 101; i++)
		assert_true(vring_used(v->tx[0], NULL, NULL));
	check_sends(v, 0, 60, 1);
}

static void interrupts_follow_the_event_index(void **state)
{
	struct vnet *v = *state;

	start(v, NULL, ALL);
	vnet_post(v, 0, 20, 2048);
	vring_set_used_event(v->rx[0], 2);
	check_receives(v, 0, 60, 0);
	check_receives(v, 0, 60, 0);
	assert_int_equal(v->g.msi[1], 0);
	check_receives(v, 0, 60, 0);
	assert_int_equal(v->g.msi[1], 1);
	check_receives(v, 0, 60, 0);
	assert_int_equal(v->g.msi[1], 1);
}

/* ---- stops and goes ---- */

static void a_reset_in_the_middle_of_a_burst(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[40000];

	start(v, NULL, ALL);
	for (int round = 0; round < 3; round++) {
		fake_netdev_clear(&v->net);
		v->net.take = 5;
		vnet_post(v, 0, 10, 1526);
		vnet_frame(frame, sizeof(frame), NULL, 1);
		/* One that waits for buffers, and some that wait for the network. */
		assert_true(vnet_arrive(v, 0, frame, sizeof(frame)));
		for (unsigned i = 0; i < 100; i++)
			vnet_put(v, 0, NULL, frame, 100, 1);
		vring_kick(v->tx[0]);
		vguest_settle(&v->g);
		assert_int_equal(v->net.sent_count, 5);
		if (round == 1) {
			vm_reset(&v->g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
			vguest_boot(&v->g);
			v->net.take = UINT_MAX;
			net_writable(&v->net.nd.queue[0]);
			assert_false(vnet_arrive(v, 0, frame, 60));
			vnet_drive(v, false, ALL, true);
		} else if (round == 2) {
			device_free(v->dev);
			v->net.take = UINT_MAX;
			vnet_add(v, NULL);
			vnet_drive(v, false, ALL, true);
		} else {
			vdriver_reset(&v->d);
			v->net.take = UINT_MAX;
			net_writable(&v->net.nd.queue[0]);
			assert_false(vnet_arrive(v, 0, frame, 60));
			vnet_drive_again(v, ALL);
		}
		assert_int_equal(v->net.sent_count, 5);
		check_works(v);
	}
}

static void a_paused_guest_sees_nothing(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[100];
	unsigned ready;

	start(v, NULL, ALL);
	vnet_post(v, 0, 10, 1526);
	check_receives(v, 0, 60, 0);
	v->net.take = 0;
	vnet_frame(frame, sizeof(frame), vnet_broadcast, 0);
	for (unsigned i = 0; i < 5; i++)
		vnet_put(v, 0, NULL, frame, sizeof(frame), 1);
	vring_kick(v->tx[0]);
	vguest_settle(&v->g);
	vm_stop(&v->g.vm, RUN_STATE_PAUSED);
	v->net.take = UINT_MAX;
	net_writable(&v->net.nd.queue[0]);
	assert_int_equal(v->net.sent_count, 0);
	assert_false(vnet_arrive(v, 0, frame, sizeof(frame)));
	ready = v->net.ready[0];
	vm_start(&v->g.vm);
	vguest_settle(&v->g);
	assert_int_equal(v->net.ready[0], ready + 1);
	assert_int_equal(v->net.sent_count, 5);
	for (unsigned i = 0; i < 5; i++)
		assert_true(vring_used(v->tx[0], NULL, NULL));
	check_receives(v, 0, 60, 0);
	check_sends(v, 0, 60, 0);
}

static void another_device_goes_on_where_this_one_was(void **state)
{
	struct vnet *v = *state, *to;
	static uint8_t saved[1 << 20], frame[BIG], got[BIG + 12];
	static const uint8_t macs[] = {1, 0, 0, 0, 2, 0, 0, 0, 0, 9, 0, 0, 0, 0};
	struct iovec batch[3] = {{frame, 100}, {frame, 0}, {frame, 2000}};
	struct error *err = NULL;
	uint64_t offloads = htole64(VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4);
	void *other;
	size_t len;

	start(v, NULL, ALL);
	vnet_post(v, 0, 200, 1526);
	memset(frame, 0, sizeof(frame));
	/* Rooms in the middle stay unused, so that what is popped is no tidy end of the ring. */
	assert_int_equal(fake_netdev_receive_batch(&v->net, 0, batch, 3), 3);
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 100);
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 2000);
	assert_int_equal(vnet_command(v, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, macs,
				      sizeof(macs)),
			 VIRTIO_NET_OK);
	assert_int_equal(vnet_command(v, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "", 1),
			 VIRTIO_NET_OK);
	assert_int_equal(vnet_command(v, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
				      "\2\0\0\0\0\7", 6),
			 VIRTIO_NET_OK);
	assert_int_equal(vnet_command(v, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &offloads, 8),
			 VIRTIO_NET_OK);
	v->net.take = 1;
	for (unsigned i = 0; i < 5; i++)
		vnet_put(v, 0, NULL, frame, 60 + i, 1);
	vring_kick(v->tx[0]);
	vguest_settle(&v->g);
	vm_stop(&v->g.vm, RUN_STATE_PAUSED);
	len = state_save(v->dev->desc->state, v->dev, saved, sizeof(saved));

	setup(&other);
	to = other;
	to->dev = vguest_add(&to->g, &virtio_net_pci_desc, "netdev=n0", NULL);
	memcpy(to->g.ram, v->g.ram, v->g.next);
	to->g.next = v->g.next;
	if (!state_load(to->dev->desc->state, to->dev, saved, len, &err))
		fail_msg("%s", error_message(err));
	vm_stop(&to->g.vm, RUN_STATE_PAUSED);
	to->g.vm.state = RUN_STATE_PAUSED;
	to->g.vm.launched = true;
	vm_start(&to->g.vm);
	vguest_settle(&to->g);
	vdriver_open(&to->d, &to->g, to->dev, false);
	to->d.features = v->d.features;
	to->d.msix = true;
	memcpy(to->d.rings, v->d.rings, sizeof(to->d.rings));
	memcpy(to->posted, v->posted, sizeof(to->posted));
	to->hdr = 12;
	for (unsigned i = 0; i < 3; i++)
		to->d.rings[i].d = &to->d;
	to->rx[0] = &to->d.rings[0];
	to->tx[0] = &to->d.rings[1];
	to->ctrl = &to->d.rings[2];
	/* The four that had not gone, in order. */
	assert_int_equal(to->net.sent_count, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(to->net.sent[i].len, 12 + 61 + i);
	for (unsigned i = 0; i < 5; i++)
		assert_true(vring_used(to->tx[0], NULL, NULL));
	assert_int_equal(to->net.offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
	assert_int_equal(vdriver_config_read(&to->d, 0, 4), 2);
	/* Its filter, and all its buffers. */
	vnet_frame(frame, 100, NULL, 0);
	assert_true(vnet_arrive(to, 0, frame, 100));
	assert_int_equal(vnet_take(to, 0, got, sizeof(got), NULL), 0);
	vnet_frame(frame, 60000, (const uint8_t *)"\2\0\0\0\0\7", 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(vnet_arrive(to, 0, frame, 60000));
		assert_int_equal(vnet_take(to, 0, got, sizeof(got), NULL), 60012);
		assert_memory_equal(got + 12, frame, 60000);
	}
	check_sends(to, 0, 60, 0);
	/* What cannot be is refused. */
	vm_stop(&to->g.vm, RUN_STATE_PAUSED);
	struct virtio_net *net = &((struct virtio_net_pci *)to->dev)->net;
	state_save(to->dev->desc->state, to->dev, saved, sizeof(saved));
	net->saved.pairs = 2;
	assert_false(virtio_net_load(net, NULL));
	net->saved.pairs = 1;
	net->saved.filter.uni_count = 65;
	assert_false(virtio_net_load(net, NULL));
	net->saved.filter.uni_count = 64;
	net->saved.rss.table_len = 3;
	assert_false(virtio_net_load(net, NULL));
	teardown(&other);
}

static void the_saved_device_itself_goes_on(void **state)
{
	struct vnet *v = *state;
	static uint8_t saved[1 << 20];

	start(v, NULL, ALL);
	vnet_post(v, 0, 100, 1526);
	check_receives(v, 0, 5000, 0);
	vm_stop(&v->g.vm, RUN_STATE_PAUSED);
	state_save(v->dev->desc->state, v->dev, saved, sizeof(saved));
	vm_start(&v->g.vm);
	vguest_settle(&v->g);
	for (unsigned i = 0; i < 5; i++)
		check_receives(v, 0, 25000 + i, i);
	check_sends(v, 0, 60, 0);
}

#define TEST(fn)  cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define PLAIN(fn) cmocka_unit_test_setup_teardown(fn, setup_plain, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_feature_has_its_property),
		PLAIN(offloads_are_the_back_ends),
		TEST(configuration_space),
		TEST(addresses_are_counted_up),
		TEST(bad_properties_are_refused),
		TEST(a_card_without_a_network_loses_packets),
		TEST(a_rom_to_boot_from),
		TEST(headers_go_both_ways_as_they_are),
		PLAIN(back_ends_without_headers_see_plain_frames),
		TEST(short_headers_of_the_back_end),
		TEST(legacy_drivers),
		TEST(a_header_of_its_own),
		TEST(malformed_packets_are_dropped),
		TEST(a_driver_without_headers_needs_a_reset),
		TEST(packets_fill_several_buffers),
		TEST(rooms_follow_what_comes),
		TEST(large_packets_wait_for_buffers),
		TEST(a_packet_that_no_ring_can_hold_is_lost),
		PLAIN(jumbo_frames_without_large_segments),
		PLAIN(batches),
		TEST(small_buffers_without_merging),
		TEST(buffers_of_many_pieces),
		TEST(back_pressure_towards_the_network),
		TEST(bursts_go_out_in_batches),
		TEST(long_chains),
		TEST(a_full_back_end_says_when_it_has_room),
		TEST(interrupts_follow_the_event_index),
		TEST(a_reset_in_the_middle_of_a_burst),
		TEST(a_paused_guest_sees_nothing),
		TEST(another_device_goes_on_where_this_one_was),
		TEST(the_saved_device_itself_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
