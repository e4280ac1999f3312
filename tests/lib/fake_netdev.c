/* SPDX-License-Identifier: Apache-2.0 */
/* A network back end for tests of cards: see fake_netdev.h. */
#include "tests/lib/fake_netdev.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/core/util.h"

static struct fake_netdev *of(struct netdev *nd)
{
	return container_of(nd, struct fake_netdev, nd);
}

static void keep(struct fake_netdev *f, unsigned queue, const struct net_packet *pkt)
{
	struct fake_netdev_packet *p = &f->sent[f->sent_count++ % FAKE_NETDEV_PACKETS];
	size_t at = 0;

	free(p->data);
	*p = (struct fake_netdev_packet){queue, pkt->iovcnt, pkt->len, xmalloc(pkt->len + 1)};
	for (unsigned i = 0; i < pkt->iovcnt; i++) {
		assert_true(pkt->iov[i].iov_len <= pkt->len - at);
		memcpy(p->data + at, pkt->iov[i].iov_base, pkt->iov[i].iov_len);
		at += pkt->iov[i].iov_len;
	}
	assert_int_equal(at, pkt->len);
	if (f->nd.vnet_hdr)
		assert_int_equal(pkt->iov[0].iov_len, f->nd.vnet_hdr);
}

static unsigned fake_send(struct net_queue *q, const struct net_packet *pkts, unsigned n)
{
	struct fake_netdev *f = of(q->netdev);
	unsigned taken = MIN(n, f->take);

	assert_true(n && n <= NET_BATCH);
	assert_true(evloop_is_mine(q->loop));
	if (f->on_send)
		f->on_send(f->opaque);
	f->send_calls++;
	f->largest_batch = MAX(f->largest_batch, n);
	if (f->take != UINT_MAX)
		f->take -= taken;
	for (unsigned i = 0; i < taken; i++)
		keep(f, q->index, &pkts[i]);
	return taken;
}

static void fake_receive_ready(struct net_queue *q)
{
	of(q->netdev)->ready[q->index]++;
}

static bool fake_attach(struct net_queue *q, struct error **err)
{
	of(q->netdev)->attached++;
	return true;
}

static void fake_detach(struct net_queue *q)
{
	of(q->netdev)->attached--;
}

static bool fake_set_queues(struct netdev *nd, unsigned pairs)
{
	of(nd)->pairs = pairs;
	return true;
}

static bool fake_set_offloads(struct netdev *nd, unsigned offloads)
{
	if (offloads & ~nd->offloads_able)
		return false;
	of(nd)->offloads = offloads;
	return true;
}

static void fake_destroy(struct netdev *nd)
{
}

static const struct netdev_ops fake_ops = {
	.type = "fake",
	.send = fake_send,
	.receive_ready = fake_receive_ready,
	.attach = fake_attach,
	.detach = fake_detach,
	.set_queues = fake_set_queues,
	.set_offloads = fake_set_offloads,
	.destroy = fake_destroy,
};

void fake_netdev_init(struct fake_netdev *f, const char *id, unsigned queues, unsigned vnet_hdr,
		      unsigned offloads)
{
	memset(f, 0, sizeof(*f));
	netdev_init(&f->nd, &fake_ops, id, queues);
	f->nd.vnet_hdr_max = vnet_hdr;
	f->nd.offloads_able = offloads;
	f->take = UINT_MAX;
	f->alive = true;
}

void fake_netdev_clear(struct fake_netdev *f)
{
	for (unsigned i = 0; i < FAKE_NETDEV_PACKETS; i++)
		free(f->sent[i].data);
	memset(f->sent, 0, sizeof(f->sent));
	f->sent_count = f->send_calls = f->largest_batch = 0;
}

void fake_netdev_destroy(struct fake_netdev *f)
{
	if (!f->alive)
		return;
	assert_null(f->nd.peer);
	assert_int_equal(f->attached, 0);
	fake_netdev_clear(f);
	netdev_destroy(&f->nd);
	f->alive = false;
}

static void lay(const struct net_packet *room, const struct iovec *packet)
{
	size_t at = 0, all = 0;

	for (unsigned i = 0; i < room->iovcnt; i++) {
		size_t n = MIN(packet->iov_len - at, room->iov[i].iov_len);

		memcpy(room->iov[i].iov_base, (uint8_t *)packet->iov_base + at, n);
		at += n;
		all += room->iov[i].iov_len;
	}
	assert_int_equal(at, packet->iov_len);
	assert_int_equal(all, room->len);
	assert_true(room->len >= NET_PACKET_MAX);
	assert_true(room->iovcnt <= 1024);
}

unsigned fake_netdev_receive_batch(struct fake_netdev *f, unsigned queue,
				   const struct iovec *packets, unsigned n)
{
	struct net_packet rooms[NET_BATCH];
	unsigned room_count = net_receive_buffers(&f->nd.queue[queue], rooms, n);

	assert_true(room_count <= n);
	if (!room_count)
		return 0;
	for (unsigned i = 0; i < room_count; i++) {
		lay(&rooms[i], &packets[i]);
		rooms[i].len = packets[i].iov_len;
	}
	net_received(&f->nd.queue[queue], rooms, room_count);
	return room_count;
}

bool fake_netdev_receive(struct fake_netdev *f, unsigned queue, const void *data, size_t len)
{
	struct iovec packet = {(void *)data, len};

	return fake_netdev_receive_batch(f, queue, &packet, 1) == 1;
}
