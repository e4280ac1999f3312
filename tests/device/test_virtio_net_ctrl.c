/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net's control queue, many queues, links and announcements. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/vnet.h"
#include "vmm/core/util.h"

#define ALL UINT64_MAX
#define OK  VIRTIO_NET_OK
#define ERR VIRTIO_NET_ERR

enum {
	QUEUES = 4,
	RX = VIRTIO_NET_CTRL_RX,
	MAC = VIRTIO_NET_CTRL_MAC,
	VLAN = VIRTIO_NET_CTRL_VLAN,
	ANNOUNCE = VIRTIO_NET_CTRL_ANNOUNCE,
	MQ = VIRTIO_NET_CTRL_MQ,
	OFFLOADS = VIRTIO_NET_CTRL_GUEST_OFFLOADS,
};

static const uint8_t other[6] = {2, 0, 0, 0, 0, 2}, group[6] = {1, 0, 0x5e, 0, 0, 1};

static int setup(void **state)
{
	struct vnet *v = calloc(1, sizeof(*v));

	vnet_init(v, QUEUES, 12, VNET_ALL_OFFLOADS);
	*state = v;
	return 0;
}

/* Whether a packet to dst (of a VLAN if not negative) reaches the guest. */
static bool reaches(struct vnet *v, const uint8_t *dst, int vlan)
{
	uint8_t frame[64], got[128];

	vnet_frame(frame, sizeof(frame), dst, 1);
	if (vlan >= 0) {
		store_be16(frame + 12, 0x8100);
		store_be16(frame + 14, vlan);
	}
	assert_true(vnet_arrive(v, 0, frame, sizeof(frame)));
	return vnet_take(v, 0, got, sizeof(got), NULL) != 0;
}

static uint8_t mode(struct vnet *v, uint8_t cmd, uint8_t on)
{
	return vnet_command(v, RX, cmd, &on, 1);
}

/* ---- filters ---- */

static void receive_modes(void **state)
{
	struct vnet *v = *state;

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 100, 2048);
	assert_true(reaches(v, other, -1) && reaches(v, group, -1));
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_PROMISC, 0), OK);
	assert_true(reaches(v, vnet_mac, -1) && reaches(v, vnet_broadcast, -1));
	assert_false(reaches(v, other, -1) || reaches(v, group, -1));
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_ALLMULTI, 1), OK);
	assert_true(reaches(v, group, -1));
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_NOMULTI, 1), OK);
	assert_false(reaches(v, group, -1));
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_ALLUNI, 1), OK);
	assert_true(reaches(v, other, -1));
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_NOUNI, 1), OK);
	assert_false(reaches(v, vnet_mac, -1));
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_NOBCAST, 1), OK);
	assert_false(reaches(v, vnet_broadcast, -1));
	assert_int_equal(mode(v, 6, 1), ERR);
	assert_int_equal(vnet_command(v, RX, 0, "\1\1", 2), ERR);
	assert_int_equal(vnet_command(v, RX, 0, NULL, 0), ERR);
	/* A reset forgets. */
	vdriver_reset(&v->d);
	vnet_drive_again(v, ALL);
	vnet_post(v, 0, 100, 2048);
	assert_true(reaches(v, other, -1) && reaches(v, group, -1));
}

static void what_was_not_negotiated_is_refused(void **state)
{
	struct vnet *v = *state;
	static const uint8_t zeros[16];

	vnet_start(v, NULL, VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX);
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_ALLMULTI, 1), OK);
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_NOUNI, 1), ERR);
	assert_int_equal(vnet_command(v, MAC, 0, zeros, 8), OK);
	assert_int_equal(vnet_command(v, MAC, 1, zeros, 6), ERR);
	assert_int_equal(vnet_command(v, VLAN, 0, zeros, 2), ERR);
	assert_int_equal(vnet_command(v, ANNOUNCE, 0, NULL, 0), ERR);
	assert_int_equal(vnet_command(v, MQ, 0, "\1\0", 2), ERR);
	assert_int_equal(vnet_command(v, MQ, 1, zeros, 16), ERR);
	assert_int_equal(vnet_command(v, MQ, 2, zeros, 13), ERR);
	assert_int_equal(vnet_command(v, OFFLOADS, 0, zeros, 8), ERR);
	assert_int_equal(vnet_command(v, 6, 0, zeros, 8), ERR);
	assert_int_equal(vnet_command(v, 255, 255, NULL, 0), ERR);
	vdriver_reset(&v->d);
	vnet_drive_again(v, VIRTIO_NET_F_CTRL_VQ);
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_ALLMULTI, 1), ERR);
	assert_int_equal(vnet_command(v, MAC, 0, zeros, 8), ERR);
}

static void tables_of_addresses(void **state)
{
	struct vnet *v = *state;
	static uint8_t table[8 + 6 * 300];
	unsigned at;

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 100, 2048);
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_PROMISC, 0), OK);
	/* One of each. */
	store_le32(table, 1);
	memcpy(table + 4, other, 6);
	store_le32(table + 10, 1);
	memcpy(table + 14, group, 6);
	assert_int_equal(vnet_command(v, MAC, 0, table, 20), OK);
	assert_true(reaches(v, other, -1) && reaches(v, group, -1));
	assert_false(reaches(v, (const uint8_t *)"\2\0\0\0\0\3", -1));
	/* Bytes too many or too few change nothing. */
	memset(table + 4, 0, 6);
	assert_int_equal(vnet_command(v, MAC, 0, table, 19), ERR);
	assert_int_equal(vnet_command(v, MAC, 0, table, 21), ERR);
	assert_int_equal(vnet_command(v, MAC, 0, table, 3), ERR);
	assert_int_equal(vnet_command(v, MAC, 0, NULL, 0), ERR);
	store_le32(table, UINT32_MAX);
	assert_int_equal(vnet_command(v, MAC, 0, table, 20), ERR);
	store_le32(table, 0x2aaaaaab); /* times 6 wraps */
	assert_int_equal(vnet_command(v, MAC, 0, table, 20), ERR);
	assert_true(reaches(v, other, -1));
	/* 64 are remembered, more are all. */
	for (unsigned n = 64; n <= 65; n++) {
		store_le32(table, n);
		for (unsigned i = 0; i < n; i++) {
			memset(table + 4 + 6 * i, 0, 6);
			table[4 + 6 * i + 5] = i;
		}
		at = 4 + 6 * n;
		store_le32(table + at, n);
		for (unsigned i = 0; i < n; i++) {
			memset(table + at + 4 + 6 * i, 1, 6);
			table[at + 4 + 6 * i + 5] = i;
		}
		assert_int_equal(vnet_command(v, MAC, 0, table, at + 4 + 6 * n), OK);
		assert_true(reaches(v, (const uint8_t *)"\0\0\0\0\0\77", -1));
		assert_true(reaches(v, (const uint8_t *)"\1\1\1\1\1\77", -1));
		assert_int_equal(reaches(v, other, -1), n == 65);
		assert_int_equal(reaches(v, group, -1), n == 65);
	}
}

static void the_address_may_change(void **state)
{
	struct vnet *v = *state;

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 100, 2048);
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_PROMISC, 0), OK);
	assert_int_equal(vnet_command(v, MAC, 1, other, 5), ERR);
	assert_int_equal(vnet_command(v, MAC, 1, other, 6), OK);
	assert_int_equal(vnet_command(v, MAC, 2, other, 6), ERR);
	assert_int_equal(vdriver_config_read(&v->d, 2, 4), 0x02000000);
	assert_true(reaches(v, other, -1));
	assert_false(reaches(v, vnet_mac, -1));
	char *text = v->net.nd.peer->info(v->net.nd.peer->opaque);
	assert_string_equal(text, "model=virtio-net-pci,macaddr=02:00:00:00:00:02");
	free(text);
	vdriver_reset(&v->d);
	assert_int_equal(vdriver_config_read(&v->d, 4, 2), 0x5634);
	vnet_drive_again(v, ALL);
	vnet_post(v, 0, 10, 2048);
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_PROMISC, 0), OK);
	assert_true(reaches(v, vnet_mac, -1));
}

static void vlans(void **state)
{
	struct vnet *v = *state;

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 100, 2048);
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_PROMISC, 0), OK);
	assert_false(reaches(v, vnet_mac, 100));
	assert_int_equal(vnet_command(v, VLAN, 0, "\144\0", 2), OK);
	assert_true(reaches(v, vnet_mac, 100));
	assert_false(reaches(v, vnet_mac, 101));
	assert_int_equal(vnet_command(v, VLAN, 1, "\144\0", 2), OK);
	assert_false(reaches(v, vnet_mac, 100));
	assert_int_equal(vnet_command(v, VLAN, 0, "\377\17", 2), OK);
	assert_true(reaches(v, vnet_mac, 4095));
	assert_int_equal(vnet_command(v, VLAN, 0, "\0\20", 2), ERR);
	assert_int_equal(vnet_command(v, VLAN, 2, "\0\0", 2), ERR);
	assert_int_equal(vnet_command(v, VLAN, 0, "\0", 1), ERR);
	/* Without the feature all pass. */
	vdriver_reset(&v->d);
	vnet_drive_again(v, ALL & ~VIRTIO_NET_F_CTRL_VLAN);
	vnet_post(v, 0, 100, 2048);
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_PROMISC, 0), OK);
	assert_true(reaches(v, vnet_mac, 100));
}

/* ---- offloads ---- */

static uint8_t set_offloads(struct vnet *v, uint64_t offloads)
{
	offloads = htole64(offloads);
	return vnet_command(v, OFFLOADS, 0, &offloads, sizeof(offloads));
}

static void offloads_while_it_runs(void **state)
{
	struct vnet *v = *state;

	vnet_start(v, NULL, ALL & ~VIRTIO_NET_F_GUEST_UFO);
	assert_int_equal(v->net.offloads, VNET_ALL_OFFLOADS & ~NET_OFFLOAD_UFO);
	assert_int_equal(set_offloads(v, 0), OK);
	assert_int_equal(v->net.offloads, 0);
	assert_int_equal(set_offloads(v, VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_USO6), OK);
	assert_int_equal(v->net.offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_USO6);
	/* Segments without checksums there are not. */
	assert_int_equal(set_offloads(v, VIRTIO_NET_F_GUEST_TSO4), OK);
	assert_int_equal(v->net.offloads, 0);
	assert_int_equal(set_offloads(v, VIRTIO_NET_F_GUEST_UFO), ERR);
	assert_int_equal(set_offloads(v, VIRTIO_NET_F_CSUM), ERR);
	assert_int_equal(vnet_command(v, OFFLOADS, 1, "\0\0\0\0\0\0\0\0", 8), ERR);
	assert_int_equal(vnet_command(v, OFFLOADS, 0, "\0\0\0\0", 4), ERR);
	vdriver_reset(&v->d);
	assert_int_equal(v->net.offloads, 0);
	vnet_drive_again(v, VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO6);
	assert_int_equal(v->net.offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO6);
	vdriver_reset(&v->d);
	vnet_drive_again(v, VIRTIO_NET_F_GUEST_TSO6);
	assert_int_equal(v->net.offloads, 0);
}

/* ---- many queues ---- */

static void arrives_at(struct vnet *v, unsigned queue, unsigned expected, const void *frame,
		       size_t len)
{
	uint8_t got[2048];

	assert_true(vnet_arrive(v, queue, frame, len));
	for (unsigned i = 0; i < v->pairs; i++) {
		size_t n = vnet_take(v, i, got, sizeof(got), NULL);

		assert_int_equal(n, i == expected ? v->hdr + len : 0);
		if (n)
			assert_memory_equal(got + v->hdr, frame, len);
	}
}

static void queue_pairs(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[64];

	vnet_start(v, "mq=on", ALL);
	assert_true(v->d.features & VIRTIO_NET_F_MQ);
	assert_int_equal(v->pairs, QUEUES);
	assert_int_equal(v->d.pci->msix.count, 2 * QUEUES + 2);
	assert_int_equal(v->net.attached, QUEUES);
	assert_int_equal(v->net.pairs, 1);
	vnet_frame(frame, sizeof(frame), NULL, 0);
	for (unsigned i = 0; i < QUEUES; i++)
		vnet_post(v, i, 10, 2048);
	arrives_at(v, 0, 0, frame, sizeof(frame));
	assert_false(vnet_arrive(v, 1, frame, sizeof(frame)));
	/* A queue that is not in use yet. */
	vnet_put(v, 2, NULL, frame, sizeof(frame), 1);
	vring_kick(v->tx[2]);
	vguest_settle(&v->g);
	assert_int_equal(v->net.sent_count, 0);
	assert_int_equal(vnet_command(v, MQ, 0, "\0\0", 2), ERR);
	assert_int_equal(vnet_command(v, MQ, 0, "\5\0", 2), ERR);
	assert_int_equal(vnet_command(v, MQ, 0, "\4", 1), ERR);
	assert_int_equal(vnet_command(v, MQ, 0, "\4\0", 2), OK);
	assert_int_equal(v->net.pairs, 4);
	vguest_settle(&v->g);
	assert_int_equal(v->net.sent_count, 1);
	assert_int_equal(v->net.sent[0].queue, 2);
	assert_int_equal(v->net.ready[1], 1);
	for (unsigned i = 0; i < QUEUES; i++) {
		arrives_at(v, i, i, frame, sizeof(frame));
		assert_true(v->g.msi[2 * i + 1]);
	}
	assert_int_equal(vnet_command(v, MQ, 0, "\2\0", 2), OK);
	assert_false(vnet_arrive(v, 2, frame, sizeof(frame)));
	arrives_at(v, 1, 1, frame, sizeof(frame));
	vdriver_reset(&v->d);
	assert_int_equal(v->net.pairs, 1);
	/* A driver that knows of one pair only finds the control queue behind it. */
	vnet_drive_again(v, ALL & ~VIRTIO_NET_F_MQ);
	assert_int_equal(mode(v, VIRTIO_NET_CTRL_RX_PROMISC, 0), OK);
	vnet_post(v, 0, 10, 2048);
	arrives_at(v, 0, 0, frame, sizeof(frame));
	assert_false(vnet_arrive(v, 1, frame, sizeof(frame)));
}

static const uint8_t key[40] = {
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
	0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
	0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

/* 66.9.149.187:2794 to 161.142.100.80:1766; its hash is 0x51ccc178. */
static const uint8_t tcp_packet[64] = {
	2, 0, 0, 0,  0, 2, 2, 0,  0, 0,	  0,   1,   8,	 0,   0x45, 0,	  0,	50,   0,
	0, 0, 0, 64, 6, 0, 0, 66, 9, 149, 187, 161, 142, 100, 80,   0x0a, 0xea, 0x06, 0xe6,
};

struct rss_command {
	uint8_t bytes[512];
	size_t len;
};

static void rss_command(struct rss_command *c, uint32_t types, unsigned table_len,
			uint16_t fallback, const uint16_t *table, uint16_t pairs, unsigned key_len)
{
	uint8_t *p = c->bytes;

	store_le32(p, types);
	store_le16(p + 4, table_len - 1);
	store_le16(p + 6, fallback);
	p += 8;
	for (unsigned i = 0; i < table_len; i++, p += 2)
		store_le16(p, table[i]);
	store_le16(p, pairs);
	p[2] = key_len;
	memcpy(p + 3, key, MIN(key_len, 40u));
	c->len = p + 3 + key_len - c->bytes;
}

static uint8_t rss(struct vnet *v, const struct rss_command *c)
{
	return vnet_command(v, MQ, VIRTIO_NET_CTRL_MQ_RSS_CONFIG, c->bytes, c->len);
}

static void packets_are_spread_by_their_hash(void **state)
{
	struct vnet *v = *state;
	struct rss_command c;
	uint16_t table[128] = {0};
	uint8_t arp[64];

	/* Without large segments a packet needs one buffer, and several come at a time. */
	vnet_start(v, "mq=on,rss=on", ALL & ~VIRTIO_NET_GUEST_OFFLOADS);
	assert_int_equal(vdriver_config_read(&v->d, 18, 2), 128);
	for (unsigned i = 0; i < QUEUES; i++)
		vnet_post(v, i, 20, 2048);
	table[0x78] = 2;
	rss_command(&c, VIRTIO_NET_HASH_TYPE_TCPV4, 128, 3, table, 4, 40);
	assert_int_equal(rss(v, &c), OK);
	assert_int_equal(v->net.pairs, 4);
	vnet_frame(arp, sizeof(arp), NULL, 0);
	for (unsigned from = 0; from < QUEUES; from++) {
		arrives_at(v, from, 2, tcp_packet, sizeof(tcp_packet));
		arrives_at(v, from, 3, arp, sizeof(arp));
	}
	/* In one batch, mixed. */
	static uint8_t a[76], b[76];
	memcpy(a + 12, tcp_packet, 64);
	memcpy(b + 12, arp, 64);
	struct iovec batch[4] = {{a, 76}, {b, 76}, {a, 76}, {b, 76}};
	assert_int_equal(fake_netdev_receive_batch(&v->net, 3, batch, 4), 4);
	uint8_t got[200];
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(vnet_take(v, 2, got, sizeof(got), NULL), 76);
		assert_memory_equal(got + 12, tcp_packet, 64);
		assert_int_equal(vnet_take(v, 3, got, sizeof(got), NULL), 76);
		assert_memory_equal(got + 12, arp, 64);
	}
	/* A queue without buffers loses its packets, and no other's. */
	for (unsigned i = 0; i < 40; i++)
		assert_true(vnet_arrive(v, 3, tcp_packet, sizeof(tcp_packet)));
	for (unsigned i = 0; i < 20 - 6; i++)
		assert_int_equal(vnet_take(v, 2, got, sizeof(got), NULL), 76);
	assert_int_equal(vnet_take(v, 2, got, sizeof(got), NULL), 0);
	arrives_at(v, 0, 3, arp, sizeof(arp));
	/* A queue that is not in use is not chosen. */
	rss_command(&c, VIRTIO_NET_HASH_TYPE_TCPV4, 128, 0, table, 2, 40);
	assert_int_equal(rss(v, &c), OK);
	arrives_at(v, 1, 1, tcp_packet, sizeof(tcp_packet));
	arrives_at(v, 1, 0, arp, sizeof(arp));
	/* The old command ends it. */
	assert_int_equal(vnet_command(v, MQ, 0, "\4\0", 2), OK);
	arrives_at(v, 1, 1, tcp_packet, sizeof(tcp_packet));
}

static void large_packets_go_to_other_queues(void **state)
{
	struct vnet *v = *state;
	struct rss_command c;
	uint16_t table[1] = {1};
	static uint8_t frame[40000], got[40012];
	unsigned buffers;

	vnet_start(v, "mq=on,rss=on", ALL);
	for (unsigned i = 0; i < QUEUES; i++)
		vnet_post(v, i, 60, 1526);
	rss_command(&c, 0, 1, 1, table, 4, 0);
	assert_int_equal(rss(v, &c), OK);
	vnet_frame(frame, sizeof(frame), NULL, 4);
	assert_true(vnet_arrive(v, 0, frame, sizeof(frame)));
	assert_int_equal(vnet_take(v, 1, got, sizeof(got), &buffers), 40012);
	assert_int_equal(buffers, 27);
	assert_memory_equal(got + 12, frame, sizeof(frame));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 0);
}

static void bad_rss_commands(void **state)
{
	struct vnet *v = *state;
	struct rss_command c;
	uint16_t table[256] = {0};

	vnet_start(v, "mq=on,rss=on,hash=on", ALL);
	static const struct {
		uint32_t types;
		unsigned table_len;
		uint16_t fallback, pairs;
		unsigned key_len;
	} bad[] = {
		{0x200, 128, 0, 4, 40}, {1, 3, 0, 4, 40},   {1, 256, 0, 4, 40}, {1, 128, 4, 4, 40},
		{1, 128, 0, 0, 40},	{1, 128, 0, 5, 40}, {1, 128, 0, 4, 41}, {1, 128, 0, 4, 0},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(&c, 0, sizeof(c));
		rss_command(&c, bad[i].types, MIN(bad[i].table_len, 200u), bad[i].fallback, table,
			    bad[i].pairs, bad[i].key_len);
		if (bad[i].table_len > 200)
			store_le16(c.bytes + 4, bad[i].table_len - 1);
		if (rss(v, &c) != ERR)
			fail_msg("%u was taken", i);
	}
	store_le16(c.bytes + 4, 0xffff);
	assert_int_equal(rss(v, &c), ERR);
	rss_command(&c, 1, 128, 0, table, 4, 40);
	for (size_t len = 0; len < c.len; len++)
		assert_int_equal(vnet_command(v, MQ, 1, c.bytes, len), ERR);
	assert_int_equal(vnet_command(v, MQ, 1, c.bytes, c.len + 1), ERR);
	table[127] = 4;
	rss_command(&c, 1, 128, 0, table, 4, 40);
	assert_int_equal(rss(v, &c), ERR);
	assert_int_equal(v->net.pairs, 1);
	table[127] = 3;
	rss_command(&c, 1, 128, 0, table, 4, 16);
	assert_int_equal(rss(v, &c), OK);
	assert_int_equal(v->net.pairs, 4);
	assert_int_equal(vnet_command(v, MQ, 3, c.bytes, c.len), ERR);
}

static void hashes_are_reported(void **state)
{
	struct vnet *v = *state;
	uint8_t cmd[13 + 40 + 1] = {0}, got[200], arp[64];
	static uint8_t big[9000], all[9020];

	vnet_start(v, "hash=on", ALL);
	assert_int_equal(v->hdr, 20);
	assert_int_equal(v->net.nd.vnet_hdr, 12);
	vnet_post(v, 0, 50, 2048);
	/* Before the driver asks for them there are none. */
	assert_true(vnet_arrive(v, 0, tcp_packet, sizeof(tcp_packet)));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 84);
	assert_int_equal(load_le64(got + 12), 0);
	store_le32(cmd, VIRTIO_NET_HASH_TYPE_TCPV4);
	cmd[12] = 40;
	memcpy(cmd + 13, key, 40);
	assert_int_equal(vnet_command(v, MQ, 2, cmd, 52), ERR);
	assert_int_equal(vnet_command(v, MQ, 2, cmd, 54), ERR);
	assert_int_equal(vnet_command(v, MQ, 2, cmd, 53), OK);
	assert_true(vnet_arrive(v, 0, tcp_packet, sizeof(tcp_packet)));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 84);
	assert_int_equal(load_le32(got + 12), 0x51ccc178);
	assert_int_equal(load_le16(got + 16), VIRTIO_NET_HASH_REPORT_TCPV4);
	assert_memory_equal(got + 20, tcp_packet, 64);
	vnet_frame(arp, sizeof(arp), NULL, 0);
	assert_true(vnet_arrive(v, 0, arp, sizeof(arp)));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 84);
	assert_int_equal(load_le64(got + 12), 0);
	/* Over several buffers, and longer than a header. */
	memcpy(big, tcp_packet, 64);
	for (unsigned i = 64; i < sizeof(big); i++)
		big[i] = i;
	assert_true(vnet_arrive(v, 0, big, sizeof(big)));
	assert_int_equal(vnet_take(v, 0, all, sizeof(all), NULL), 9020);
	assert_int_equal(load_le32(all + 12), 0x51ccc178);
	assert_memory_equal(all + 20, big, sizeof(big));
	/* Outwards, the longer header. */
	vnet_send(v, 0, NULL, big, 500);
	assert_int_equal(v->net.sent[0].len, 512);
	assert_memory_equal(v->net.sent[0].data + 12, big, 500);
}

/* ---- the queue itself ---- */

static void commands_in_any_layout(void **state)
{
	struct vnet *v = *state;
	uint64_t gpa;
	uint8_t *p;
	struct vbuf bufs[8];
	uint32_t len;

	vnet_start(v, NULL, ALL);
	gpa = vguest_alloc(&v->g, 64, 16);
	p = vguest_ptr(&v->g, gpa);
	/* A byte a descriptor, and an answer with room to spare. */
	memcpy(p, "\1\1\2\4\6\10\12\14", 8);
	memset(p + 8, VNET_PENDING, 8);
	for (unsigned i = 0; i < 6; i++)
		bufs[i] = (struct vbuf){gpa + i, 1};
	bufs[6] = (struct vbuf){gpa + 6, 2};
	bufs[7] = (struct vbuf){gpa + 8, 8};
	vring_add(v->ctrl, bufs, 7, 1, true);
	vring_kick(v->ctrl);
	vguest_settle(&v->g);
	assert_true(vring_used(v->ctrl, NULL, &len));
	assert_int_equal(len, 1);
	assert_int_equal(p[8], OK);
	assert_int_equal(p[9], VNET_PENDING);
	assert_int_equal(vdriver_config_read(&v->d, 0, 4), 0x08060402);
	/* Too short for a command. */
	bufs[1] = bufs[7];
	p[8] = VNET_PENDING;
	vring_add(v->ctrl, bufs, 1, 1, false);
	vring_kick(v->ctrl);
	vguest_settle(&v->g);
	assert_int_equal(p[8], ERR);
	assert_false(vdriver_status(&v->d) & VIRTIO_STATUS_NEEDS_RESET);
	/* No room for an answer. */
	vring_add(v->ctrl, bufs, 1, 0, false);
	vring_kick(v->ctrl);
	vguest_settle(&v->g);
	assert_true(vdriver_status(&v->d) & VIRTIO_STATUS_NEEDS_RESET);
	vdriver_reset(&v->d);
	vnet_drive_again(v, ALL);
	assert_int_equal(mode(v, 0, 0), OK);
}

/* ---- link and announcements ---- */

static unsigned status(struct vnet *v)
{
	return vdriver_config_read(&v->d, 6, 2);
}

static void the_link_goes_and_comes(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[64];
	unsigned ready;

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 10, 2048);
	assert_true(reaches(v, vnet_mac, -1));
	vnet_frame(frame, sizeof(frame), NULL, 0);
	v->net.take = 0;
	vnet_put(v, 0, NULL, frame, sizeof(frame), 1);
	vring_kick(v->tx[0]);
	vguest_settle(&v->g);
	net_set_link(&v->net.nd, false);
	vguest_settle(&v->g);
	assert_int_equal(status(v), 0);
	assert_int_equal(v->g.msi[0], 1);
	/* What waited is lost, as on any cable. */
	assert_true(vring_used(v->tx[0], NULL, NULL));
	assert_int_equal(v->net.sent_count, 0);
	vnet_send(v, 0, NULL, frame, sizeof(frame));
	assert_int_equal(v->net.sent_count, 0);
	assert_false(vnet_arrive(v, 0, frame, sizeof(frame)));
	v->net.take = UINT_MAX;
	ready = v->net.ready[0];
	net_set_link(&v->net.nd, true);
	vguest_settle(&v->g);
	assert_int_equal(status(v), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(v->g.msi[0], 2);
	assert_int_equal(v->net.ready[0], ready + 1);
	assert_true(reaches(v, vnet_mac, -1));
	vnet_send(v, 0, NULL, frame, sizeof(frame));
	assert_int_equal(v->net.sent_count, 1);
	/* Down before there was a driver. */
	device_free(v->dev);
	net_set_link(&v->net.nd, false);
	vnet_add(v, NULL);
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_int_equal(status(v), 0);
}

static void the_guest_announces_itself(void **state)
{
	struct vnet *v = *state;
	const struct net_peer *peer;

	vnet_start(v, NULL, ALL);
	peer = v->net.nd.peer;
	assert_int_equal(vnet_command(v, ANNOUNCE, 0, NULL, 0), ERR);
	peer->announce(peer->opaque);
	assert_int_equal(status(v), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_int_equal(v->g.msi[0], 1);
	assert_int_equal(vnet_command(v, ANNOUNCE, 0, "x", 1), ERR);
	assert_int_equal(vnet_command(v, ANNOUNCE, 1, NULL, 0), ERR);
	assert_int_equal(vnet_command(v, ANNOUNCE, 0, NULL, 0), OK);
	assert_int_equal(status(v), VIRTIO_NET_S_LINK_UP);
	vguest_settle(&v->g);
	assert_int_equal(v->net.sent_count, 0);
	peer->announce(peer->opaque);
	vdriver_reset(&v->d);
	assert_int_equal(status(v), VIRTIO_NET_S_LINK_UP);
	/* For a guest that cannot, the card does. */
	vnet_drive_again(v, ALL & ~VIRTIO_NET_F_GUEST_ANNOUNCE);
	peer->announce(peer->opaque);
	vguest_settle(&v->g);
	assert_int_equal(v->net.sent_count, 1);
	assert_int_equal(v->net.sent[0].len, 72);
	const uint8_t *f = v->net.sent[0].data + 12;
	assert_memory_equal(f, vnet_broadcast, 6);
	assert_memory_equal(f + 6, vnet_mac, 6);
	assert_int_equal(load_be16(f + 12), 0x8035);
	assert_int_equal(load_be16(f + 20), 3);
	assert_memory_equal(f + 22, vnet_mac, 6);
	assert_memory_equal(f + 32, vnet_mac, 6);
}

/* ---- threads ---- */

/* Sends and receives on the loop's own thread while this one resets, pauses and unplugs. */
struct storm {
	struct vnet *v;
	struct ev_timer timer;
	unsigned arrived;
	bool end;
};

static void storm(void *opaque)
{
	struct storm *s = opaque;
	struct vnet *v = s->v;
	uint8_t packet[212] = {0};

	if (s->end)
		return;
	for (unsigned q = 0; q < QUEUES && v->net.nd.peer; q++)
		for (unsigned i = 0; i < 20; i++)
			s->arrived += fake_netdev_receive(&v->net, q, packet,
							  v->net.nd.vnet_hdr + 200);
	evloop_timer_arm(v->iothread->loop, &s->timer,
			 evloop_now(v->iothread->loop) + NSEC_PER_MSEC / 20);
}

static void end_storm(void *opaque)
{
	struct storm *s = opaque;

	s->end = true;
	evloop_timer_cancel(s->v->iothread->loop, &s->timer);
}

static void in_an_iothread(void **state)
{
	struct vnet *v = *state;
	struct error *err = NULL;
	struct storm s = {.v = v};
	uint8_t frame[100];
	unsigned before = 0;

	v->iothread = iothread_new("io0", &err);
	assert_non_null(v->iothread);
	vguest_object(&v->g, "io0", v->iothread);
	vnet_add(v, "mq=on,iothread=io0");
	ev_timer_init(&s.timer, storm, &s);
	evloop_call(v->iothread->loop, storm, &s);
	vdriver_open(&v->d, &v->g, v->dev, false);
	vnet_frame(frame, sizeof(frame), NULL, 0);
	for (unsigned round = 0; round < 30; round++) {
		vdriver_reset(&v->d);
		v->g.next = 1 << 20;
		vnet_drive_again(v, ALL);
		for (unsigned i = 0; i < QUEUES; i++) {
			vnet_post(v, i, 100, 1526);
			for (unsigned j = 0; j < 50; j++)
				vnet_put(v, i, NULL, frame, sizeof(frame), 1);
			vring_kick(v->tx[i]);
		}
		if (round % 5 == 2)
			vm_stop(&v->g.vm, RUN_STATE_PAUSED);
		if (round % 5 == 3) {
			vm_start(&v->g.vm);
			net_set_link(&v->net.nd, round % 10 == 3);
		}
		for (int tries = 0; round % 5 < 2 && !vring_used(v->tx[0], NULL, NULL); tries++) {
			assert_true(tries < 5000);
			evloop_run_once(v->g.vm.loop, NSEC_PER_MSEC / 10);
		}
	}
	evloop_call(v->iothread->loop, end_storm, &s);
	before = s.arrived;
	assert_true(before > 0);
	device_free(v->dev);
	assert_int_equal(v->net.attached, 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, vnet_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(receive_modes),
		TEST(what_was_not_negotiated_is_refused),
		TEST(tables_of_addresses),
		TEST(the_address_may_change),
		TEST(vlans),
		TEST(offloads_while_it_runs),
		TEST(queue_pairs),
		TEST(packets_are_spread_by_their_hash),
		TEST(large_packets_go_to_other_queues),
		TEST(bad_rss_commands),
		TEST(hashes_are_reported),
		TEST(commands_in_any_layout),
		TEST(the_link_goes_and_comes),
		TEST(the_guest_announces_itself),
		TEST(in_an_iothread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
