/* SPDX-License-Identifier: Apache-2.0 */
/* See net_fake.h. */
#include "tests/lib/net_fake.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

#define PATIENCE (2 * NSEC_PER_SEC)

static unsigned fake_buffers(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n)
{
	struct net_fake *f = opaque;
	struct net_fake_queue *q = &f->q[queue];

	n = MIN(n, q->room);
	for (unsigned i = 0; i < n; i++) {
		unsigned slot = (q->next + i) % NET_FAKE_ROOM;
		size_t piece = f->size / f->pieces, at = 0;

		for (unsigned k = 0; k < f->pieces; k++) {
			size_t len = k + 1 < f->pieces ? piece : f->size - at;

			q->iov[slot][k] = (struct iovec){q->slots[slot] + at, len};
			at += len;
		}
		pkts[i] = (struct net_packet){q->iov[slot], f->pieces, f->size};
	}
	return n;
}

/* Packets of no bytes leave their room, which is used again after the rest: those behind move up.
 */
static void fake_received(void *opaque, unsigned queue, const struct net_packet *pkts, unsigned n)
{
	struct net_fake *f = opaque;
	struct net_fake_queue *q = &f->q[queue];
	unsigned from = q->next;

	q->batches++;
	for (unsigned i = 0; i < n; i++) {
		unsigned slot = (from + i) % NET_FAKE_ROOM, to = q->next % NET_FAKE_ROOM;
		uint8_t *bytes = q->slots[to];

		if (!pkts[i].len)
			continue;
		q->slots[to] = q->slots[slot];
		q->slots[slot] = bytes;
		q->lens[to] = pkts[i].len;
		q->next++;
		q->room--;
	}
}

static void fake_writable(void *opaque, unsigned queue)
{
	struct net_fake *f = opaque;

	f->q[queue].writables++;
}

static void all_ready(void *opaque)
{
	struct net_fake *f = opaque;

	for (unsigned i = 0; i < f->pairs; i++)
		net_receive_ready(f->nd, i);
}

static void fake_link_changed(void *opaque, bool up)
{
	struct net_fake *f = opaque;

	f->link = up;
	f->link_changes++;
	if (up)
		evloop_call(f->loop, all_ready, f);
}

void net_fake_init(struct net_fake *f, struct netdev *nd, struct evloop *loop, unsigned pairs,
		   size_t size, unsigned pieces)
{
	struct evloop *loops[NET_MAX_QUEUES];
	struct error *err = NULL;

	*f = (struct net_fake){
		.nd = nd, .loop = loop, .pairs = pairs, .size = size, .pieces = pieces};
	f->peer = (struct net_peer){
		.buffers = fake_buffers,
		.received = fake_received,
		.writable = fake_writable,
		.link_changed = fake_link_changed,
		.opaque = f,
	};
	for (unsigned i = 0; i < pairs; i++) {
		loops[i] = loop;
		for (unsigned k = 0; k < NET_FAKE_ROOM; k++)
			f->q[i].slots[k] = xcalloc(1, size);
	}
	if (!net_attach(nd, &f->peer, loops, pairs, &err)) {
		error_report(err);
		abort();
	}
	f->link = net_link(nd);
}

void net_fake_destroy(struct net_fake *f)
{
	net_detach(f->nd);
	for (unsigned i = 0; i < f->pairs; i++)
		for (unsigned k = 0; k < NET_FAKE_ROOM; k++)
			free(f->q[i].slots[k]);
}

void net_fake_add_room(struct net_fake *f, unsigned queue, unsigned n)
{
	struct net_fake_queue *q = &f->q[queue];

	q->room += MIN(n, NET_FAKE_ROOM - q->room - (q->next - q->got));
	net_receive_ready(f->nd, queue);
}

bool net_fake_send(struct net_fake *f, unsigned queue, const void *data, size_t len)
{
	struct iovec iov = {(void *)data, len};
	struct net_packet pkt = {&iov, 1, len};

	return net_send(f->nd, queue, &pkt, 1) == 1;
}

ssize_t net_fake_take(struct net_fake *f, unsigned queue, void *buf)
{
	struct net_fake_queue *q = &f->q[queue];
	unsigned slot = q->got % NET_FAKE_ROOM;

	if (q->got == q->next)
		return -1;
	memcpy(buf, q->slots[slot], MIN(q->lens[slot], f->size));
	q->got++;
	return q->lens[slot];
}

unsigned net_fake_count(const struct net_fake *f, unsigned queue)
{
	return f->q[queue].next - f->q[queue].got;
}

bool net_fake_wait(struct net_fake *f, unsigned queue, unsigned n)
{
	int64_t end = clock_now(&clock_monotonic) + PATIENCE;

	while (net_fake_count(f, queue) < n && clock_now(&clock_monotonic) < end)
		evloop_run_once(f->loop, 10 * NSEC_PER_MSEC);
	return net_fake_count(f, queue) >= n;
}

bool net_fake_wait_link(struct net_fake *f, bool up)
{
	int64_t end = clock_now(&clock_monotonic) + PATIENCE;

	while (net_link(f->nd) != up && clock_now(&clock_monotonic) < end)
		evloop_run_once(f->loop, 10 * NSEC_PER_MSEC);
	return net_link(f->nd) == up;
}

void net_fake_settle(struct net_fake *f)
{
	for (unsigned i = 0; i < 1000 && evloop_run_once(f->loop, 0); i++)
		;
}
