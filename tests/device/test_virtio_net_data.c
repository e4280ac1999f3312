/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net driven through its rings: headers, receiving and sending. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/lib/vnet.h"
#include "vmm/core/util.h"

#define ALL UINT64_MAX
enum { MTU_FRAME = 1514 };

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

	vnet_start(v, NULL, ALL);
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

	vnet_start(v, NULL, ALL);
	assert_int_equal(v->net.nd.vnet_hdr, 0);
	vnet_check_works(v);
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
	vnet_start(v, NULL, ALL);
	assert_int_equal(v->net.nd.vnet_hdr, 10);
	vnet_check_works(v);
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
	vnet_check_works(v);
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
	vnet_check_works(v);
	vdriver_reset(d);
	vnet_drive(v, true, ALL, true);
	vnet_check_works(v);
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

	vnet_start(v, NULL, ALL);
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
	vnet_check_works(v);
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

	vnet_start(v, NULL, ALL);
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
		vnet_check_works(v);
	}
}

/* ---- receiving ---- */

static void packets_fill_several_buffers(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[VNET_LARGEST], got[VNET_LARGEST + 12];
	unsigned buffers;

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 200, 1526);
	for (unsigned len = 60; len < VNET_LARGEST; len = len * 2 + 77) {
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

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 256, 1600);
	assert_int_equal(next_room(v, 64, &rooms), 1600);
	assert_int_equal(rooms, 16);
	vnet_check_receives(v, 0, 60, 1);
	vnet_check_receives(v, 0, 9000, 1);
	/* From now on the large ones are read where they belong. */
	assert_true(next_room(v, 64, &rooms) >= 65535);
	assert_true(rooms <= 6);
	vnet_check_receives(v, 0, 65000, 1);
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned j = 0; j < 190; j++)
			vnet_check_receives(v, 0, 1514, j);
		while (v->rx[0]->avail_idx != v->rx[0]->used_idx)
			vnet_check_receives(v, 0, 60, 2);
		vnet_post(v, 0, 256, 1600);
	}
	assert_int_equal(next_room(v, 64, &rooms), 1600);
	vnet_check_receives(v, 0, 60000, 1);
}

static void large_packets_wait_for_buffers(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[VNET_LARGEST], got[VNET_LARGEST + 12];
	unsigned buffers;

	vnet_start(v, NULL, ALL);
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
	vnet_check_receives(v, 0, 60, 3);
	vnet_check_receives(v, 0, 3000, 4);
	assert_false(vnet_arrive(v, 0, frame, 60));
}

static void a_packet_that_no_ring_can_hold_is_lost(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[VNET_LARGEST];

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 256, 100);
	vnet_frame(frame, 60000, NULL, 1);
	assert_true(vnet_arrive(v, 0, frame, 60000));
	vnet_check_receives(v, 0, 60, 3);
	vnet_check_receives(v, 0, 25000, 3);
}

static void jumbo_frames_without_large_segments(void **state)
{
	struct vnet *v = *state;
	static uint8_t frames[3][9014], got[9026];
	struct iovec batch[3];

	vnet_start(v, NULL, ALL);
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

	vnet_start(v, NULL, ALL);
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
	static uint8_t frame[VNET_LARGEST], got[VNET_LARGEST + 12];

	vnet_start(v, NULL, ALL & ~VIRTIO_NET_F_MRG_RXBUF);
	vnet_post(v, 0, 3, 1526);
	vnet_frame(frame, 1515, NULL, 0);
	/* Too long for its buffer: lost, and the buffer is not. */
	assert_true(vnet_arrive(v, 0, frame, 1515));
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 0);
	vnet_check_receives(v, 0, 1514, 1);
	vnet_check_receives(v, 0, 60, 2);
	vnet_post(v, 0, 1, 65562);
	vnet_check_receives(v, 0, 14, 3);
	vnet_check_receives(v, 0, 65550, 3);
	assert_false(vnet_arrive(v, 0, frame, 60));
}

static void buffers_of_many_pieces(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[VNET_LARGEST], got[8];
	struct vbuf bufs[1000];
	uint32_t len;

	(void)got;
	vnet_start(v, NULL, ALL & ~VIRTIO_NET_F_MRG_RXBUF);
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

	vnet_start(v, NULL, ALL);
	vnet_frame(frame, sizeof(frame), NULL, 0);
	assert_false(vnet_arrive(v, 0, frame, sizeof(frame)));
	assert_int_equal(v->net.ready[0], 0);
	vnet_post(v, 0, 2, 2048);
	assert_int_equal(v->net.ready[0], 1);
	vnet_check_receives(v, 0, 60, 1);
	vnet_check_receives(v, 0, 60, 2);
	assert_false(vnet_arrive(v, 0, frame, sizeof(frame)));
	/* The driver is asked for a kick once it has none, and not before. */
	vnet_post(v, 0, 2, 2048);
	assert_int_equal(v->net.ready[0], 2);
	vnet_check_receives(v, 0, 60, 3);
	unsigned kicks = v->rx[0]->kicks;
	vnet_post(v, 0, 2, 2048);
	assert_int_equal(v->rx[0]->kicks, kicks);
	assert_int_equal(v->net.ready[0], 2);
	for (int i = 0; i < 3; i++)
		vnet_check_receives(v, 0, 60, 4);
}

static uint16_t used_now(struct vnet *v, const struct vring *r)
{
	return load_le16((uint8_t *)vguest_ptr(&v->g, r->used) + 2);
}

/* A driver on another processor goes on with a batch while the next one is read. */
static void a_batch_is_the_drivers_at_once(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[200];
	struct iovec batch[4] = {{frame, 200}, {frame, 200}, {frame, 200}, {frame, 200}};

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 256, 1526);
	vnet_frame(frame, sizeof(frame), NULL, 1);
	assert_int_equal(fake_netdev_receive_batch(&v->net, 0, batch, 4), 4);
	assert_int_equal(used_now(v, v->rx[0]), 4);
	assert_int_equal(fake_netdev_receive_batch(&v->net, 0, batch, 3), 3);
	assert_int_equal(used_now(v, v->rx[0]), 7);
	assert_int_equal(v->g.msi[1], 1);
}

/* ---- sending ---- */

static void look_at_used(void *opaque)
{
	struct vnet *v = opaque;

	assert_int_equal(used_now(v, v->tx[0]), v->net.sent_count);
}

static void what_was_sent_is_the_drivers_at_once(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[100] = {0};

	vnet_start(v, NULL, ALL);
	for (unsigned i = 0; i < 200; i++)
		vnet_put(v, 0, NULL, frame, sizeof(frame), 1);
	v->net.on_send = look_at_used;
	v->net.opaque = v;
	vring_kick(v->tx[0]);
	vguest_settle(&v->g);
	assert_int_equal(v->net.send_calls, 4);
	assert_int_equal(used_now(v, v->tx[0]), 200);
	assert_int_equal(v->g.msi[2], 1);
}

static void bursts_go_out_in_batches(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[100];

	vnet_start(v, NULL, ALL);
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

	vnet_start(v, NULL, ALL);
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

	vnet_start(v, NULL, ALL);
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
	vnet_check_sends(v, 0, 60, 1);
}

static void interrupts_follow_the_event_index(void **state)
{
	struct vnet *v = *state;

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 20, 2048);
	vring_set_used_event(v->rx[0], 2);
	vnet_check_receives(v, 0, 60, 0);
	vnet_check_receives(v, 0, 60, 0);
	assert_int_equal(v->g.msi[1], 0);
	vnet_check_receives(v, 0, 60, 0);
	assert_int_equal(v->g.msi[1], 1);
	vnet_check_receives(v, 0, 60, 0);
	assert_int_equal(v->g.msi[1], 1);
}

#define TEST(fn)  cmocka_unit_test_setup_teardown(fn, vnet_setup, vnet_teardown)
#define PLAIN(fn) cmocka_unit_test_setup_teardown(fn, vnet_setup_plain, vnet_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
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
		TEST(a_batch_is_the_drivers_at_once),
		TEST(what_was_sent_is_the_drivers_at_once),
		TEST(bursts_go_out_in_batches),
		TEST(long_chains),
		TEST(a_full_back_end_says_when_it_has_room),
		TEST(interrupts_follow_the_event_index),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
