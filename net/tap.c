/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets through a tap or macvtap device, straight from and into the front end's buffers; see
 * tap.h. The kernel has a read or write for each; those of a burst are handed to it in one system
 * call where it can (batch.h). Each queue runs on its own loop; the rest is the main thread's.
 *
 * A descriptor is watched for input as long as the front end has room. Queues that the guest does
 * not use, and those whose device was deleted, report errors without end, so they leave the loop.
 */
#include "net/tap.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net/batch.h"
#include "vmm/core/iov.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

enum {
	BURST = 4 * NET_BATCH, /* packets between two looks at the rest of the loop */
	BATCH_FIRST = 8,       /* packets at once that show that batches pay */
	BATCH_MIN = 2,
	ASK_MIN = 2,
	HDR_MAX = 64,
};

static struct tap *tap_of(struct netdev *nd)
{
	return container_of(nd, struct tap, nd);
}

static struct tap_queue *queue_of(struct net_queue *nq)
{
	return &tap_of(nq->netdev)->q[nq->index];
}

static void watch(struct tap_queue *q)
{
	evloop_fd_mod(q->queue->loop, &q->ev, (q->idle ? 0 : EPOLLIN) | (q->full ? EPOLLOUT : 0));
}

/* The device is gone, not the guest's fault: its link is down from now on. */
static void lose(struct tap_queue *q)
{
	evloop_fd_del(q->queue->loop, &q->ev);
	q->full = false;
	evloop_post(q->tap->main_loop, &q->tap->gone_work);
}

static void on_gone(void *opaque)
{
	struct tap *t = opaque;

	if (!t->nd.link_up)
		return;
	log_error("netdev %s: the tap device was deleted", t->nd.id);
	net_link_changed(&t->nd, false);
}

/* Whether the kernel's header is not the front end's. */
static bool hides_header(const struct tap_queue *q)
{
	return q->tap->host_hdr && !q->tap->nd.vnet_hdr;
}

/* NULL: n packets are read or written one by one. */
static struct net_batch *batch_for(struct tap_queue *q, unsigned n)
{
	if (n < (q->batch_tried ? BATCH_MIN : BATCH_FIRST) || hides_header(q))
		return NULL;
	if (!q->batch_tried) {
		q->batch_tried = true;
		q->batch = net_batch_new(q->fd);
		q->endless = tap_device_is_endless(q->fd);
	}
	return q->batch;
}

static void forget_batch(struct tap_queue *q)
{
	net_batch_free(q->batch);
	q->batch = NULL;
}

static ssize_t write_packet(struct tap_queue *q, const struct net_packet *pkt)
{
	uint8_t hdr[HDR_MAX] = {0}, flat[NET_PACKET_MAX];
	struct iovec v[IOV_MAX];
	size_t len;

	if (!hides_header(q))
		return writev(q->fd, pkt->iov, pkt->iovcnt);
	v[0] = (struct iovec){hdr, q->tap->hdr};
	if (pkt->iovcnt < IOV_MAX) {
		memcpy(v + 1, pkt->iov, pkt->iovcnt * sizeof(*v));
		return writev(q->fd, v, pkt->iovcnt + 1);
	}
	/* More pieces than one call takes. */
	len = iov_bytes(pkt->iov, pkt->iovcnt);
	if (len > sizeof(flat))
		return 0;
	iov_to_buf(pkt->iov, pkt->iovcnt, 0, flat, len);
	v[1] = (struct iovec){flat, len};
	return writev(q->fd, v, 2);
}

/* The kernel cuts off what does not fit without a word, so there is a byte behind small rooms that
 * must stay empty. 0: the packet was larger than its room, and is lost. */
static ssize_t read_packet(struct tap_queue *q, const struct net_packet *pkt)
{
	unsigned hide = hides_header(q) ? q->tap->hdr : 0, n = 0;
	uint8_t hdr[HDR_MAX], spare;
	struct iovec v[IOV_MAX];
	size_t room = hide;
	ssize_t r;

	if (!hide && pkt->len >= NET_PACKET_MAX)
		return readv(q->fd, pkt->iov, pkt->iovcnt);
	if (hide)
		v[n++] = (struct iovec){hdr, hide};
	for (unsigned i = 0; i < pkt->iovcnt && n < IOV_MAX - 1; i++) {
		v[n++] = pkt->iov[i];
		room += pkt->iov[i].iov_len;
	}
	v[n++] = (struct iovec){&spare, 1};
	r = readv(q->fd, v, n);
	if (r < 0)
		return r;
	return (size_t)r > room || r < (ssize_t)hide ? 0 : r - (ssize_t)hide;
}

/* What is wrong with one of them is about that one, which is lost. But a queue that fills up takes a
 * packet behind one that it refused, so this is for those that do not. */
static bool send_batch(struct tap_queue *q, const struct net_packet *pkts, unsigned n)
{
	int results[NET_BATCH];

	if (!batch_for(q, n) || !q->endless || n > NET_BATCH)
		return false;
	if (net_batch_write(q->batch, pkts, n, results))
		return true;
	forget_batch(q);
	return false;
}

static unsigned tap_send(struct net_queue *nq, const struct net_packet *pkts, unsigned n)
{
	struct tap_queue *q = queue_of(nq);

	if (q->full)
		return 0;
	if (send_batch(q, pkts, n))
		return n;
	for (unsigned i = 0; i < n; i++) {
		ssize_t r;

		do
			r = write_packet(q, &pkts[i]);
		while (r < 0 && errno == EINTR);
		/* Whatever else is wrong is about this packet (a header that makes no sense, an
		 * interface that is down), which is lost. */
		if (r < 0 && errno == EAGAIN && q->ev.added) {
			q->full = true;
			watch(q);
			return i;
		}
	}
	return n;
}

/* Whether none of the rooms needs read_packet()'s care. */
static bool are_large(const struct net_packet *pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (pkts[i].len < NET_PACKET_MAX)
			return false;
	return true;
}

/* False: it is to be tried one by one. *count: up to the last that was filled. */
static bool read_at_once(struct tap_queue *q, struct net_packet *pkts, unsigned n, unsigned *count,
			 bool *drained)
{
	int results[NET_BATCH];

	if (!batch_for(q, n) || !are_large(pkts, n))
		return false;
	if (!net_batch_read(q->batch, pkts, n, results)) {
		forget_batch(q);
		return false;
	}
	*count = 0;
	for (unsigned i = 0; i < n; i++) {
		pkts[i].len = MAX(results[i], 0);
		if (results[i] > 0)
			*count = i + 1;
		else if (results[i] == -EAGAIN || results[i] == -EBADFD)
			*drained = true;
	}
	return true;
}

/* Fills as many of the packets as the kernel has; *drained: there are no more. */
static unsigned read_batch(struct tap_queue *q, struct net_packet *pkts, unsigned n, bool *drained)
{
	unsigned i;

	if (read_at_once(q, pkts, n, &i, drained))
		return i;

	for (i = 0; i < n; i++) {
		ssize_t len;

		do
			len = read_packet(q, &pkts[i]);
		while (len < 0 && errno == EINTR);
		if (len < 0 && (errno == EAGAIN || errno == EBADFD)) {
			*drained = true;
			break;
		}
		pkts[i].len = MAX(len, 0);
	}
	return i;
}

static void drain(struct tap_queue *q)
{
	struct net_packet pkts[NET_BATCH];
	bool drained = false;

	q->idle = false;
	for (unsigned left = BURST; left && !drained;) {
		unsigned room = net_receive_buffers(q->queue, pkts, MIN(left, q->ask)), n;

		if (!room) {
			q->idle = true;
			break;
		}
		n = read_batch(q, pkts, room, &drained);
		if (n)
			net_received(q->queue, pkts, n);
		left -= n;
		q->ask = drained ? MAX(n, ASK_MIN) : MIN(q->ask * 4, NET_BATCH);
	}
	watch(q);
}

static void on_event(void *opaque, uint32_t revents)
{
	struct tap_queue *q = opaque;

	if (!q->enabled) {
		evloop_fd_del(q->queue->loop, &q->ev);
		return;
	}
	if (revents & (EPOLLERR | EPOLLHUP)) {
		lose(q);
		return;
	}
	if (revents & EPOLLIN)
		drain(q);
	if (revents & EPOLLOUT && q->full) {
		q->full = false;
		net_writable(q->queue);
		watch(q);
	}
}

static void tap_receive_ready(struct net_queue *nq)
{
	struct tap_queue *q = queue_of(nq);

	if (q->ev.added && q->idle)
		drain(q);
}

/* The queue's loop: what set_queues() chose takes effect. */
static bool settle(struct tap_queue *q, struct error **err)
{
	int r;

	if (!q->attached || q->enabled == q->ev.added)
		return true;
	if (!q->enabled) {
		evloop_fd_del(q->queue->loop, &q->ev);
		if (q->full) {
			q->full = false;
			net_writable(q->queue);
		}
		return true;
	}
	q->idle = false;
	r = evloop_fd_add(q->queue->loop, &q->ev, q->fd, EPOLLIN, on_event, q);
	if (r < 0)
		error_set_errno(err, r, "netdev %s: cannot watch the tap device", q->tap->nd.id);
	return r == 0;
}

static void on_resume(void *opaque)
{
	settle(opaque, NULL);
}

static bool tap_attach(struct net_queue *nq, struct error **err)
{
	struct tap_queue *q = queue_of(nq);

	q->attached = true;
	q->full = false;
	q->ask = ASK_MIN;
	q->attached = settle(q, err);
	return q->attached;
}

static void tap_detach(struct net_queue *nq)
{
	struct tap_queue *q = queue_of(nq);

	evloop_unpost(nq->loop, &q->resume);
	evloop_fd_del(nq->loop, &q->ev);
	q->attached = false;
	forget_batch(q);
	q->batch_tried = false;
}

/* The kernel is told first where queues come, and our loops last where they go: in between there
 * are but errors, which on_event() knows. */
static bool tap_set_queues(struct netdev *nd, unsigned pairs)
{
	struct tap *t = tap_of(nd);
	bool all = true;

	for (unsigned i = 0; i < nd->queues; i++) {
		struct tap_queue *q = &t->q[i];
		bool on = i < pairs;

		if (q->enabled == on || nd->queues == 1)
			continue;
		if (!tap_device_set_queue(q, on)) {
			all = false;
			continue;
		}
		q->enabled = on;
		if (nd->queue[i].loop)
			evloop_post(nd->queue[i].loop, &q->resume);
	}
	return all;
}

static void tap_set_vnet_hdr(struct netdev *nd, unsigned bytes)
{
	if (bytes)
		tap_device_set_hdr(tap_of(nd), bytes);
}

static bool tap_set_offloads(struct netdev *nd, unsigned offloads)
{
	return tap_device_set_offloads(tap_of(nd), offloads);
}

static char *tap_info(struct netdev *nd)
{
	return xstrdup(tap_of(nd)->info ?: "");
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void tap_destroy(struct netdev *nd)
{
	struct tap *t = tap_of(nd);
	struct error *err = NULL;

	evloop_unpost(t->main_loop, &t->gone_work);
	if (t->q[0].fd >= 0)
		tap_device_restore(t);
	if (t->downscript && !tap_run_script(t->downscript, t->ifname, &err))
		error_report(err);
	for (unsigned i = 0; i < NET_MAX_QUEUES; i++) {
		close_fd(t->q[i].fd);
		close_fd(nd->vhost.vhost_fd[i]);
	}
	free(t->downscript);
	free(t->info);
	netdev_destroy(nd);
	free(t);
}

static const struct netdev_ops tap_ops = {
	.type = "tap",
	.send = tap_send,
	.receive_ready = tap_receive_ready,
	.attach = tap_attach,
	.detach = tap_detach,
	.set_queues = tap_set_queues,
	.set_vnet_hdr = tap_set_vnet_hdr,
	.set_offloads = tap_set_offloads,
	.info = tap_info,
	.destroy = tap_destroy,
};

static const struct netdev_ops bridge_ops = {
	.type = "bridge",
	.send = tap_send,
	.receive_ready = tap_receive_ready,
	.attach = tap_attach,
	.detach = tap_detach,
	.set_vnet_hdr = tap_set_vnet_hdr,
	.set_offloads = tap_set_offloads,
	.info = tap_info,
	.destroy = tap_destroy,
};

struct tap *tap_new(struct evloop *main_loop, const char *type, const char *id, unsigned queues)
{
	struct tap *t = xcalloc(1, sizeof(*t));

	netdev_init(&t->nd, strcmp(type, "bridge") ? &tap_ops : &bridge_ops, id, queues);
	t->main_loop = main_loop;
	ev_work_init(&t->gone_work, on_gone, t);
	for (unsigned i = 0; i < NET_MAX_QUEUES; i++) {
		struct tap_queue *q = &t->q[i];

		q->tap = t;
		q->queue = &t->nd.queue[i];
		q->fd = -1;
		q->enabled = true;
		ev_work_init(&q->resume, on_resume, q);
	}
	return t;
}
