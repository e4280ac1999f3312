/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all network back ends share: attaching, links, filters, and the copy for those that have the
 * packet already; see net.h. Threads: as net.h says for each function.
 */
#include "net/net.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

void netdev_init(struct netdev *nd, const struct netdev_ops *ops, const char *id, unsigned queues)
{
	*nd = (struct netdev){
		.ops = ops,
		.id = xstrdup(id),
		.queues = queues,
		.link_up = true,
		.link_set = true,
	};
	for (unsigned i = 0; i < NET_MAX_QUEUES; i++) {
		nd->queue[i] = (struct net_queue){.netdev = nd, .index = i};
		nd->vhost.vhost_fd[i] = nd->vhost.tap_fd[i] = -1;
	}
}

void netdev_destroy(struct netdev *nd)
{
	free(nd->id);
	nd->id = NULL;
}

void net_free(struct netdev *nd)
{
	if (nd)
		nd->ops->destroy(nd);
}

struct attaching {
	struct net_queue *queue;
	struct error **err;
	bool done;
};

static void attach_queue(void *opaque)
{
	struct attaching *a = opaque;

	a->done = a->queue->netdev->ops->attach(a->queue, a->err);
}

static void detach_queue(void *opaque)
{
	struct net_queue *q = opaque;

	q->netdev->ops->detach(q);
}

static void detach_queues(struct netdev *nd, unsigned count)
{
	while (count--) {
		evloop_call(nd->queue[count].loop, detach_queue, &nd->queue[count]);
		nd->queue[count].loop = NULL;
	}
}

bool net_attach(struct netdev *nd, const struct net_peer *peer, struct evloop *const *loops,
		unsigned pairs, struct error **err)
{
	if (nd->peer) {
		error_set(err, "network back end '%s' is in use by another device", nd->id);
		return false;
	}
	nd->peer = peer;
	for (unsigned i = 0; i < pairs; i++) {
		struct attaching a = {&nd->queue[i], err, false};

		nd->queue[i].loop = loops[i];
		nd->queue[i].told = false;
		evloop_call(loops[i], attach_queue, &a);
		if (!a.done) {
			nd->queue[i].loop = NULL;
			detach_queues(nd, i);
			nd->peer = NULL;
			return false;
		}
	}
	return true;
}

void net_detach(struct netdev *nd)
{
	for (unsigned i = NET_MAX_QUEUES; i--;)
		if (nd->queue[i].loop) {
			detach_queues(nd, i + 1);
			break;
		}
	nd->peer = NULL;
	if (nd->doomed)
		evloop_post(nd->set->context.loop, &nd->set->sweep);
}

static void tell_filters(struct netdev *nd, bool to_guest, const struct net_packet *pkts,
			 unsigned n)
{
	for (struct net_filter *f = nd->filters; f; f = f->next)
		for (unsigned i = 0; i < n; i++)
			if (pkts[i].len)
				f->packet(f, to_guest, &pkts[i], nd->vnet_hdr);
}

/* One at a time, so that filters see a packet before what answers it. What the back end does not
 * take yet, they have seen when it comes again. */
static unsigned send_filtered(struct net_queue *q, const struct net_packet *pkts, unsigned n)
{
	struct netdev *nd = q->netdev;
	unsigned taken = 0;

	for (; taken < n; taken++) {
		if (!q->told)
			tell_filters(nd, false, &pkts[taken], 1);
		q->told = !nd->ops->send(q, &pkts[taken], 1);
		if (q->told)
			break;
	}
	return taken;
}

unsigned net_send(struct netdev *nd, unsigned queue, const struct net_packet *pkts, unsigned n)
{
	if (!net_link(nd))
		return n;
	return nd->filters ? send_filtered(&nd->queue[queue], pkts, n)
			   : nd->ops->send(&nd->queue[queue], pkts, n);
}

void net_receive_ready(struct netdev *nd, unsigned queue)
{
	nd->ops->receive_ready(&nd->queue[queue]);
}

bool net_set_queues(struct netdev *nd, unsigned pairs)
{
	return !nd->ops->set_queues || nd->ops->set_queues(nd, pairs);
}

void net_set_vnet_hdr(struct netdev *nd, unsigned bytes)
{
	nd->vnet_hdr = bytes;
	if (nd->ops->set_vnet_hdr)
		nd->ops->set_vnet_hdr(nd, bytes);
}

bool net_set_offloads(struct netdev *nd, unsigned offloads)
{
	return nd->ops->set_offloads ? nd->ops->set_offloads(nd, offloads) : !offloads;
}

unsigned net_receive_buffers(struct net_queue *q, struct net_packet *pkts, unsigned n)
{
	struct netdev *nd = q->netdev;

	return nd->peer && net_link(nd) ? nd->peer->buffers(nd->peer->opaque, q->index, pkts, n)
					: 0;
}

void net_received(struct net_queue *q, const struct net_packet *pkts, unsigned n)
{
	struct netdev *nd = q->netdev;

	if (nd->filters)
		tell_filters(nd, true, pkts, n);
	nd->peer->received(nd->peer->opaque, q->index, pkts, n);
}

void net_fill(struct net_packet *room, const struct iovec *iov, unsigned iovcnt)
{
	unsigned to = 0;
	size_t at = 0, done = 0;

	for (unsigned i = 0; i < iovcnt; i++) {
		const char *from = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left && to < room->iovcnt) {
			size_t n = MIN(left, room->iov[to].iov_len - at);

			memcpy((char *)room->iov[to].iov_base + at, from, n);
			from += n, left -= n, at += n, done += n;
			if (at == room->iov[to].iov_len)
				to++, at = 0;
		}
		if (left) {
			done = 0;
			break;
		}
	}
	room->len = done;
}

bool net_receive_copy(struct net_queue *q, const struct iovec *iov, unsigned iovcnt)
{
	struct net_packet pkt;

	if (!net_link(q->netdev))
		return true;
	if (!net_receive_buffers(q, &pkt, 1))
		return false;
	net_fill(&pkt, iov, iovcnt);
	net_received(q, &pkt, 1);
	return true;
}

unsigned net_receive_frames(struct net_queue *q, const struct iovec *frames, unsigned n)
{
	struct net_packet pkts[NET_BATCH];
	unsigned done = 0;

	if (!net_link(q->netdev))
		return n;
	while (done < n) {
		unsigned room = net_receive_buffers(q, pkts, MIN(n - done, NET_BATCH));

		if (!room)
			break;
		for (unsigned i = 0; i < room; i++)
			net_fill(&pkts[i], &frames[done + i], 1);
		net_received(q, pkts, room);
		done += room;
	}
	return done;
}

void net_writable(struct net_queue *q)
{
	struct netdev *nd = q->netdev;

	if (nd->peer && nd->peer->writable)
		nd->peer->writable(nd->peer->opaque, q->index);
}

static void tell_link(struct netdev *nd, bool before)
{
	if (nd->peer && nd->peer->link_changed && net_link(nd) != before)
		nd->peer->link_changed(nd->peer->opaque, net_link(nd));
}

void net_link_changed(struct netdev *nd, bool up)
{
	bool before = net_link(nd);

	nd->link_up = up;
	tell_link(nd, before);
}

void net_set_link(struct netdev *nd, bool up)
{
	bool before = net_link(nd);

	nd->link_set = up;
	tell_link(nd, before);
}

char *net_info(struct netdev *nd)
{
	char *own = nd->ops->info ? nd->ops->info(nd) : xstrdup("");
	char *all = xasprintf("index=0,type=%s%s%s%s", nd->ops->type, *own ? "," : "", own,
			      nd->link_set ? "" : " (link down)");

	free(own);
	return all;
}

void net_make_announcement(uint8_t frame[NET_ANNOUNCE_FRAME], const uint8_t mac[6])
{
	static const uint8_t request[] = {
		0x80, 0x35, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x03,
	};

	memset(frame, 0, NET_ANNOUNCE_FRAME);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, mac, 6);
	memcpy(frame + 12, request, sizeof(request));
	memcpy(frame + 22, mac, 6);
	memcpy(frame + 32, mac, 6);
}

void net_filter_add(struct netdev *nd, struct net_filter *f)
{
	f->next = nd->filters;
	nd->filters = f;
}

void net_filter_del(struct netdev *nd, struct net_filter *f)
{
	struct net_filter **p = &nd->filters;

	while (*p && *p != f)
		p = &(*p)->next;
	if (*p)
		*p = f->next;
}
