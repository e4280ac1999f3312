/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets as datagrams, in batches of one system call, straight from and into the guest's memory;
 * see dgram.h. The queue's loop; making and ending is the main thread's.
 *
 * Sockets are connected: the kernel looks the other end up once, not for each packet, nobody else
 * can send to the guest, and between two paths that are connected to each other not ten packets may
 * wait but as many as the sender's buffer holds. A path's peer may go and come back, or come late:
 * connecting again finds that out, on the first packet that fails and every second.
 */
#include "net/dgram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/core/util.h"

enum {
	BURST = 4 * NET_BATCH, /* packets between two looks at the rest of the loop */
	ASK_MIN = 4,
};
#define LOOK_NS NSEC_PER_SEC

static struct dgram *dgram_of(struct netdev *nd)
{
	return container_of(nd, struct dgram, nd);
}

static struct net_queue *queue_of(struct dgram *d)
{
	return &d->nd.queue[0];
}

static void watch(struct dgram *d)
{
	uint32_t in = d->idle ? 0 : EPOLLIN, out = d->full ? EPOLLOUT : 0;
	struct evloop *loop = queue_of(d)->loop;

	evloop_fd_mod(loop, &d->ev, d->group_fd < 0 ? in | out : in);
	evloop_fd_mod(loop, &d->group_ev, out);
}

/* ---- sending ---- */

/* To the path; nothing happens if it is the same peer still. */
static void look_for_peer(struct dgram *d)
{
	const struct net_addr *r = &d->remote;

	if (r->type == NET_ADDR_UNIX)
		d->connected = connect(d->fd, (struct sockaddr *)&r->sa[0], r->sa_len[0]) == 0;
}

static void on_look(void *opaque)
{
	struct dgram *d = opaque;
	struct evloop *loop = queue_of(d)->loop;

	look_for_peer(d);
	evloop_timer_arm(loop, &d->look, evloop_now(loop) + LOOK_NS);
}

enum verdict { AGAIN, LOST, FULL, NOBODY };

/* Why the first of the packets was not sent. */
static enum verdict judge(struct dgram *d, int e, unsigned *tries)
{
	switch (e) {
	case EINTR:
		return AGAIN;
	case EAGAIN:
		return FULL;
	case ECONNREFUSED:
	case ENOTCONN:
	case ECONNRESET:
		/* Of a path: its socket is gone. Of UDP: the answer to an earlier one, and this one
		 * has not been tried. */
		if ((*tries)++)
			return NOBODY;
		look_for_peer(d);
		return d->remote.type != NET_ADDR_UNIX || d->connected ? AGAIN : NOBODY;
	}
	return LOST; /* too long, no memory, no route: this one's trouble */
}

static unsigned dgram_send(struct net_queue *q, const struct net_packet *pkts, unsigned n)
{
	struct dgram *d = dgram_of(q->netdev);
	int fd = d->group_fd < 0 ? d->fd : d->group_fd;
	struct mmsghdr m[NET_BATCH];
	unsigned done = 0, tries = 0;

	if (d->full)
		return 0;
	n = MIN(n, NET_BATCH);
	for (unsigned i = 0; i < n; i++)
		m[i].msg_hdr = (struct msghdr){
			.msg_iov = pkts[i].iov,
			.msg_iovlen = pkts[i].iovcnt,
		};
	while (done < n) {
		int r = sendmmsg(fd, m + done, n - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (r > 0) {
			done += r;
			continue;
		}
		switch (judge(d, errno, &tries)) {
		case AGAIN:
			break;
		case LOST:
			done++;
			break;
		case NOBODY:
			return n;
		case FULL:
			d->full = true;
			watch(d);
			return done;
		}
	}
	return done;
}

/* ---- receiving ---- */

static bool is_own(const struct dgram *d, const struct sockaddr_in *from)
{
	return from->sin_port == d->own.sin_port && from->sin_addr.s_addr == d->own.sin_addr.s_addr;
}

/* As many as the kernel has, at most n; -1: try again. */
static int read_batch(struct dgram *d, struct net_packet *pkts, unsigned n)
{
	struct sockaddr_in from[NET_BATCH];
	struct mmsghdr m[NET_BATCH];
	int r;

	for (unsigned i = 0; i < n; i++)
		m[i].msg_hdr = (struct msghdr){
			.msg_name = d->multicast ? &from[i] : NULL,
			.msg_namelen = d->multicast ? sizeof(from[i]) : 0,
			.msg_iov = pkts[i].iov,
			.msg_iovlen = pkts[i].iovcnt,
		};
	r = recvmmsg(d->fd, m, n, MSG_DONTWAIT, NULL);
	if (r < 0)
		return errno == EAGAIN ? 0 : -1;
	for (int i = 0; i < r; i++) {
		bool lost = m[i].msg_hdr.msg_flags & MSG_TRUNC ||
			    (d->multicast && is_own(d, &from[i]));

		pkts[i].len = lost ? 0 : m[i].msg_len;
	}
	return r;
}

static void drain(struct dgram *d)
{
	struct net_packet pkts[NET_BATCH];

	d->idle = false;
	for (unsigned left = BURST; left;) {
		unsigned room = net_receive_buffers(queue_of(d), pkts, MIN(left, d->ask));
		int n;

		if (!room) {
			d->idle = true;
			break;
		}
		n = read_batch(d, pkts, room);
		if (n < 0) { /* an error of what was sent before; it is gone now */
			left--;
			continue;
		}
		if (n)
			net_received(queue_of(d), pkts, n);
		left -= n;
		if ((unsigned)n < room) {
			d->ask = MAX((unsigned)n, ASK_MIN);
			break;
		}
		d->ask = MIN(d->ask * 4, NET_BATCH);
	}
	watch(d);
}

static void on_event(void *opaque, uint32_t revents)
{
	struct dgram *d = opaque;

	if (revents & (EPOLLIN | EPOLLERR) && !d->idle)
		drain(d);
	if (revents & EPOLLERR && d->idle) {
		/* Nobody reads, and the error would be told for ever. */
		int e;
		socklen_t len = sizeof(e);

		getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &e, &len);
	}
	if (revents & EPOLLOUT && d->full) {
		d->full = false;
		net_writable(queue_of(d));
		watch(d);
	}
	/* The end of a pair that was made for us is gone. */
	if (revents & EPOLLHUP)
		evloop_fd_del(queue_of(d)->loop, &d->ev);
}

static void on_group_event(void *opaque, uint32_t revents)
{
	struct dgram *d = opaque;

	if (!(revents & EPOLLOUT) || !d->full) {
		int e;
		socklen_t len = sizeof(e);

		getsockopt(d->group_fd, SOL_SOCKET, SO_ERROR, &e, &len);
		return;
	}
	d->full = false;
	net_writable(queue_of(d));
	watch(d);
}

static void dgram_receive_ready(struct net_queue *q)
{
	struct dgram *d = dgram_of(q->netdev);

	if (d->ev.added && d->idle)
		drain(d);
}

/* ---- beginning and end ---- */

static bool dgram_attach(struct net_queue *q, struct error **err)
{
	struct dgram *d = dgram_of(q->netdev);
	int r = evloop_fd_add(q->loop, &d->ev, d->fd, EPOLLIN, on_event, d);

	if (r == 0 && d->group_fd >= 0) {
		r = evloop_fd_add(q->loop, &d->group_ev, d->group_fd, 0, on_group_event, d);
		if (r < 0)
			evloop_fd_del(q->loop, &d->ev);
	}
	if (r < 0) {
		error_set_errno(err, r, "netdev %s: cannot watch the socket", d->nd.id);
		return false;
	}
	d->idle = d->full = false;
	d->ask = ASK_MIN;
	if (d->remote.type == NET_ADDR_UNIX)
		on_look(d);
	return true;
}

static void dgram_detach(struct net_queue *q)
{
	struct dgram *d = dgram_of(q->netdev);

	evloop_fd_del(q->loop, &d->ev);
	evloop_fd_del(q->loop, &d->group_ev);
	evloop_timer_cancel(q->loop, &d->look);
}

static char *dgram_info(struct netdev *nd)
{
	return xstrdup(dgram_of(nd)->info);
}

static void dgram_destroy(struct netdev *nd)
{
	struct dgram *d = dgram_of(nd);

	if (d->fd >= 0)
		close(d->fd);
	if (d->group_fd >= 0)
		close(d->group_fd);
	net_addr_destroy(&d->local);
	net_addr_destroy(&d->remote);
	free(d->info);
	netdev_destroy(nd);
	free(d);
}

static const struct netdev_ops dgram_ops = {
	.type = "dgram",
	.send = dgram_send,
	.receive_ready = dgram_receive_ready,
	.attach = dgram_attach,
	.detach = dgram_detach,
	.info = dgram_info,
	.destroy = dgram_destroy,
};

static const struct netdev_ops socket_ops = {
	.type = "socket",
	.send = dgram_send,
	.receive_ready = dgram_receive_ready,
	.attach = dgram_attach,
	.detach = dgram_detach,
	.info = dgram_info,
	.destroy = dgram_destroy,
};

static struct dgram *dgram_new(const char *type, const char *id, struct net_addr *local,
			       struct net_addr *remote)
{
	struct dgram *d = xcalloc(1, sizeof(*d));

	netdev_init(&d->nd, strcmp(type, "socket") ? &dgram_ops : &socket_ops, id, 1);
	d->fd = d->group_fd = -1;
	d->local = *local;
	*local = (struct net_addr){.fd = -1};
	d->remote = (struct net_addr){.fd = -1};
	if (remote) {
		d->remote = *remote;
		*remote = (struct net_addr){.fd = -1};
	}
	ev_timer_init(&d->look, on_look, d);
	return d;
}

/* As much as the host lets us: what waits in a socket is what a burst does not lose. */
static void widen(int fd)
{
	int bytes = 4 << 20;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

static struct netdev *fail(struct dgram *d)
{
	net_free(&d->nd);
	return NULL;
}

/* A name may have addresses of both kinds: the one of ours. */
static bool connect_inet(struct dgram *d, struct error **err)
{
	struct sockaddr_storage own;
	socklen_t len = sizeof(own);
	int e = EAFNOSUPPORT;
	char *text;

	getsockname(d->fd, (struct sockaddr *)&own, &len);
	for (unsigned i = 0; i < d->remote.count; i++) {
		if (d->remote.sa[i].ss_family != own.ss_family)
			continue;
		if (connect(d->fd, (struct sockaddr *)&d->remote.sa[i], d->remote.sa_len[i]) == 0)
			return true;
		e = errno;
	}
	text = net_addr_text(&d->remote, "udp");
	error_set_errno(err, e, "cannot send to %s", text);
	free(text);
	return false;
}

struct netdev *dgram_new_pair(const char *type, const char *id, struct net_addr *local,
			      struct net_addr *remote, struct error **err)
{
	struct dgram *d = dgram_new(type, id, local, remote);
	char *from = net_addr_text(&d->local, "udp"), *to = net_addr_text(&d->remote, "udp");

	d->info = xasprintf("local=%s,remote=%s", from, to);
	free(from);
	free(to);
	d->fd = net_addr_bind(&d->local, err);
	if (d->fd < 0)
		return fail(d);
	widen(d->fd);
	if (d->remote.type == NET_ADDR_INET && !connect_inet(d, err))
		return fail(d);
	return &d->nd;
}

struct netdev *dgram_new_fd(const char *type, const char *id, struct net_addr *local,
			    struct error **err)
{
	struct dgram *d = dgram_new(type, id, local, NULL);
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	d->info = net_addr_text(&d->local, "udp");
	d->fd = net_addr_take_fd(&d->local, SOCK_DGRAM, false, err);
	if (d->fd < 0)
		return fail(d);
	if (getpeername(d->fd, (struct sockaddr *)&peer, &len) < 0) {
		error_set_errno(err, errno, "file descriptor %d is not connected", d->fd);
		return fail(d);
	}
	return &d->nd;
}

/* ---- multicast ---- */

/* Members on one host share the port: who sent is told by another one's. */
static bool open_group_sender(struct dgram *d, struct in_addr iface, struct error **err)
{
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = iface};
	socklen_t len = sizeof(d->own);
	int one = 1;

	d->group_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->group_fd >= 0 &&
	    setsockopt(d->group_fd, IPPROTO_IP, IP_MULTICAST_LOOP, &one, sizeof(one)) == 0 &&
	    (!iface.s_addr ||
	     (setsockopt(d->group_fd, IPPROTO_IP, IP_MULTICAST_IF, &iface, sizeof(iface)) == 0 &&
	      bind(d->group_fd, (struct sockaddr *)&from, sizeof(from)) == 0)) &&
	    connect(d->group_fd, (struct sockaddr *)&d->remote.sa[0], d->remote.sa_len[0]) == 0 &&
	    getsockname(d->group_fd, (struct sockaddr *)&d->own, &len) == 0) {
		widen(d->group_fd);
		return true;
	}
	error_set_errno(err, errno, "cannot send to the multicast group %s:%s", d->remote.host,
			d->remote.port);
	return false;
}

static bool join(struct dgram *d, struct in_addr iface, struct error **err)
{
	const struct sockaddr_in *group = (struct sockaddr_in *)&d->remote.sa[0];
	struct ip_mreq mreq = {.imr_multiaddr = group->sin_addr, .imr_interface = iface};
	int one = 1;

	d->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->fd >= 0 && setsockopt(d->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
	    bind(d->fd, (struct sockaddr *)group, sizeof(*group)) == 0 &&
	    setsockopt(d->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &mreq, sizeof(mreq)) == 0) {
		widen(d->fd);
		return true;
	}
	error_set_errno(err, errno, "cannot join the multicast group %s:%s", d->remote.host,
			d->remote.port);
	return false;
}

struct netdev *dgram_new_group(const char *type, const char *id, struct net_addr *local,
			       struct net_addr *group, struct error **err)
{
	struct dgram *d = dgram_new(type, id, local, group);
	struct in_addr iface = {0};

	d->multicast = true;
	d->info = xasprintf("mcast=%s:%s", d->remote.host, d->remote.port);
	if (d->local.type == NET_ADDR_INET)
		iface = ((struct sockaddr_in *)&d->local.sa[0])->sin_addr;
	if (d->local.type == NET_ADDR_FD) {
		d->fd = net_addr_take_fd(&d->local, SOCK_DGRAM, false, err);
		if (d->fd < 0)
			return fail(d);
	} else if (!join(d, iface, err)) {
		return fail(d);
	}
	return open_group_sender(d, iface, err) ? &d->nd : fail(d);
}
