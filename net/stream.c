/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets over a connection: the data path; see stream.h. The queue's loop.
 *
 * Sending gathers as many packets as one system call takes, out of the guest's memory. Receiving
 * reads as much as there is, finds the packets in it and copies them into the guest's memory, the
 * one copy of theirs that is ours.
 */
#include "net/stream.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "vmm/core/iov.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

/* Reads between two looks at the rest of the loop. */
enum { BURST = 4 };

static struct net_stream *stream_of(struct netdev *nd)
{
	return container_of(nd, struct net_stream, nd);
}

static struct net_queue *queue_of(struct net_stream *s)
{
	return &s->nd.queue[0];
}

static bool is_full(const struct net_stream *s)
{
	return s->tx_start < s->tx_end;
}

static void watch(struct net_stream *s)
{
	evloop_fd_mod(queue_of(s)->loop, &s->ev,
		      EPOLLRDHUP | (s->idle ? 0 : EPOLLIN) | (is_full(s) ? EPOLLOUT : 0));
}

/* From here on packets are taken and lost. */
static void lose(struct net_stream *s)
{
	evloop_fd_del(queue_of(s)->loop, &s->ev);
	s->tx_start = s->tx_end = 0;
	evloop_post(s->main_loop, &s->lost_work);
}

/* ---- sending ---- */

/* The rest of a packet of which sent bytes, its length among them, are gone. */
static void keep_rest(struct net_stream *s, const struct net_packet *pkt, size_t sent)
{
	uint8_t length[NET_FRAMES_HEADER];
	size_t skip = sent;

	store_be32(length, pkt->len);
	s->tx_start = s->tx_end = 0;
	if (skip < sizeof(length)) {
		memcpy(s->tx, length + skip, sizeof(length) - skip);
		s->tx_end = sizeof(length) - skip;
		skip = 0;
	} else {
		skip -= sizeof(length);
	}
	s->tx_end += iov_to_buf(pkt->iov, pkt->iovcnt, skip, s->tx + s->tx_end, pkt->len - skip);
}

/* Whether nothing is left of it. */
static bool flush(struct net_stream *s)
{
	while (is_full(s)) {
		ssize_t n = send(s->fd, s->tx + s->tx_start, s->tx_end - s->tx_start,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			lose(s);
		if (n < 0)
			break;
		s->tx_start += n;
	}
	return !is_full(s);
}

/* What one system call takes of n packets. A packet that the other end would not take, or whose
 * pieces do not add up, is a lost one of no pieces. */
struct gathering {
	struct iovec iov[IOV_MAX];
	uint8_t lengths[NET_BATCH][NET_FRAMES_HEADER];
	size_t sizes[NET_BATCH];
	unsigned iovs, packets;
};

static void gather(struct gathering *g, const struct net_packet *pkts, unsigned n)
{
	g->iovs = g->packets = 0;
	for (unsigned i = 0; i < MIN(n, NET_BATCH); i++) {
		const struct net_packet *pkt = &pkts[i];
		bool fit = pkt->len && pkt->len <= NET_PACKET_MAX &&
			   iov_bytes(pkt->iov, pkt->iovcnt) == pkt->len;

		if (fit && pkt->iovcnt + 1 > IOV_MAX - g->iovs)
			break;
		g->sizes[g->packets++] = fit ? NET_FRAMES_HEADER + pkt->len : 0;
		if (!fit)
			continue;
		store_be32(g->lengths[i], pkt->len);
		g->iov[g->iovs++] = (struct iovec){g->lengths[i], NET_FRAMES_HEADER};
		memcpy(g->iov + g->iovs, pkt->iov, pkt->iovcnt * sizeof(*pkt->iov));
		g->iovs += pkt->iovcnt;
	}
}

/* How many of the packets are gone, wholly, in part, or because there is nobody. */
static unsigned send_gathered(struct net_stream *s, const struct gathering *g,
			      const struct net_packet *pkts)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)g->iov, .msg_iovlen = g->iovs};
	ssize_t n;

	if (!g->iovs)
		return g->packets;
	do
		n = sendmsg(s->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		lose(s);
		return g->packets;
	}
	n = MAX(n, 0);
	for (unsigned i = 0; i < g->packets; i++) {
		if ((size_t)n < g->sizes[i]) {
			/* Even of one that did not begin: something must wake the front end. */
			keep_rest(s, &pkts[i], n);
			return i + 1;
		}
		n -= g->sizes[i];
	}
	return g->packets;
}

static unsigned stream_send(struct net_queue *q, const struct net_packet *pkts, unsigned n)
{
	struct net_stream *s = stream_of(q->netdev);
	struct gathering g;
	unsigned done = 0;

	if (!s->ev.added)
		return n;
	while (done < n && !is_full(s) && s->ev.added) {
		unsigned taken;

		gather(&g, pkts + done, n - done);
		if (!g.packets) {
			/* More pieces than one call takes. */
			keep_rest(s, &pkts[done++], 0);
			flush(s);
			continue;
		}
		taken = send_gathered(s, &g, pkts + done);
		done += taken;
		if (taken < g.packets)
			break;
	}
	if (!s->ev.added)
		return n;
	watch(s);
	return done;
}

/* ---- receiving ---- */

/* Everything that was read and is whole; whether the front end had room for it. */
static bool deliver(struct net_stream *s)
{
	struct iovec frames[NET_BATCH];

	for (;;) {
		uint8_t *from = s->rx + s->rx_start;
		unsigned taken;
		size_t used;
		ssize_t n = net_frames_cut(from, s->rx_end - s->rx_start, frames, NET_BATCH, &used);

		if (n < 0) {
			log_warn("netdev %s: a packet's length is impossible: the connection is "
				 "closed",
				 s->nd.id);
			lose(s);
			return false;
		}
		taken = n ? net_receive_frames(queue_of(s), frames, n) : 0;
		if (taken < n) {
			s->rx_start = (uint8_t *)frames[taken].iov_base - NET_FRAMES_HEADER - s->rx;
			return false;
		}
		s->rx_start += used;
		if (!used)
			return true;
	}
}

/* The start of a packet moves to the front, so that the rest of it has room. */
static void make_room(struct net_stream *s)
{
	if (s->rx_start && s->rx_end > STREAM_RX / 2) {
		memmove(s->rx, s->rx + s->rx_start, s->rx_end - s->rx_start);
		s->rx_end -= s->rx_start;
		s->rx_start = 0;
	}
	if (s->rx_start == s->rx_end)
		s->rx_start = s->rx_end = 0;
}

static void receive(struct net_stream *s)
{
	s->idle = !deliver(s);
	for (unsigned i = 0; i < BURST && !s->idle && s->ev.added; i++) {
		size_t room;
		ssize_t n;

		make_room(s);
		room = STREAM_RX - s->rx_end;
		n = recv(s->fd, s->rx + s->rx_end, room, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0) {
			lose(s);
			return;
		}
		s->rx_end += n;
		s->idle = !deliver(s);
		/* Less than there was room for is all there was. */
		if ((size_t)n < room)
			break;
	}
	watch(s);
}

static void on_event(void *opaque, uint32_t revents)
{
	struct net_stream *s = opaque;
	bool waiting = is_full(s);

	if (revents & EPOLLIN && !s->idle)
		receive(s);
	/* With nobody to read what came before it, the end is the end. */
	if (s->ev.added && revents & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) &&
	    (s->idle || !(revents & EPOLLIN)))
		lose(s);
	if (s->ev.added && revents & EPOLLOUT && flush(s))
		watch(s);
	if (waiting && !is_full(s))
		net_writable(queue_of(s));
}

static void stream_receive_ready(struct net_queue *q)
{
	struct net_stream *s = stream_of(q->netdev);
	bool waiting = is_full(s);

	if (!s->ev.added || !s->idle)
		return;
	receive(s);
	if (waiting && !is_full(s))
		net_writable(q);
}

/* ---- a connection's life ---- */

static int begin(struct net_stream *s)
{
	s->idle = false;
	s->rx_start = s->rx_end = s->tx_start = s->tx_end = 0;
	return evloop_fd_add(queue_of(s)->loop, &s->ev, s->fd, EPOLLIN | EPOLLRDHUP, on_event, s);
}

void net_stream_use(struct net_stream *s, int fd)
{
	s->fd = fd;
	if (queue_of(s)->loop && begin(s) < 0)
		evloop_post(s->main_loop, &s->lost_work);
}

void net_stream_drop(struct net_stream *s)
{
	if (queue_of(s)->loop)
		evloop_fd_del(queue_of(s)->loop, &s->ev);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->rx_start = s->rx_end = s->tx_start = s->tx_end = 0;
}

static bool stream_attach(struct net_queue *q, struct error **err)
{
	struct net_stream *s = stream_of(q->netdev);
	int r = s->fd < 0 ? 0 : begin(s);

	if (r < 0)
		error_set_errno(err, r, "netdev %s: cannot watch the connection", s->nd.id);
	return r == 0;
}

/* A packet in the middle of which the front end goes away cannot be finished, nor the stream go on
 * without: the connection ends. */
static void stream_detach(struct net_queue *q)
{
	struct net_stream *s = stream_of(q->netdev);

	evloop_fd_del(q->loop, &s->ev);
	if (is_full(s) || s->rx_start < s->rx_end)
		evloop_post(s->main_loop, &s->lost_work);
}

static char *stream_info(struct netdev *nd)
{
	struct net_stream *s = stream_of(nd);
	char *own, *all;

	if (s->peer_text && *s->peer_text)
		return xasprintf("%s %s", s->server ? "connection from" : "connection to",
				 s->peer_text);
	own = net_addr_text(&s->addr, "tcp");
	all = xasprintf("%s%s",
			nd->link_up ? ""
			: s->server ? "listening on "
				    : "disconnected from ",
			own);
	free(own);
	return all;
}

static void stream_destroy(struct netdev *nd)
{
	struct net_stream *s = stream_of(nd);

	net_stream_stop(s);
	net_stream_drop(s);
	net_addr_destroy(&s->addr);
	free(s->rx);
	free(s->tx);
	netdev_destroy(nd);
	free(s);
}

static const struct netdev_ops stream_ops = {
	.type = "stream",
	.send = stream_send,
	.receive_ready = stream_receive_ready,
	.attach = stream_attach,
	.detach = stream_detach,
	.info = stream_info,
	.destroy = stream_destroy,
};

static const struct netdev_ops socket_ops = {
	.type = "socket",
	.send = stream_send,
	.receive_ready = stream_receive_ready,
	.attach = stream_attach,
	.detach = stream_detach,
	.info = stream_info,
	.destroy = stream_destroy,
};

struct net_stream *net_stream_new(struct evloop *main_loop, const char *type, const char *id,
				  struct net_addr *addr, bool server)
{
	struct net_stream *s = xcalloc(1, sizeof(*s));

	netdev_init(&s->nd, strcmp(type, "socket") ? &stream_ops : &socket_ops, id, 1);
	s->nd.link_up = false;
	s->main_loop = main_loop;
	s->addr = *addr;
	*addr = (struct net_addr){.fd = -1};
	s->server = server;
	s->fd = s->listen_fd = s->connect_fd = -1;
	s->rx = xmalloc(STREAM_RX);
	s->tx = xmalloc(STREAM_TX);
	ev_work_init(&s->lost_work, net_stream_on_lost, s);
	ev_work_init(&s->arrived_work, net_stream_on_arrived, s);
	ev_timer_init(&s->reconnect, net_stream_on_reconnect, s);
	return s;
}
