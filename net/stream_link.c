/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets over a connection: who is connected; see stream.h. The main loop.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net/stream.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

/* ---- who it is ---- */

static void forget_peer(struct net_stream *s)
{
	free(s->peer_text);
	free(s->peer_host);
	free(s->peer_port);
	s->peer_text = s->peer_host = s->peer_port = NULL;
}

static void learn_peer(struct net_stream *s, int fd)
{
	char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	forget_peer(s);
	if (getpeername(fd, (struct sockaddr *)&sa, &len) < 0 || sa.ss_family == AF_UNIX ||
	    getnameinfo((struct sockaddr *)&sa, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	s->peer_text = net_addr_name_text(&sa, "tcp");
	s->peer_host = xstrdup(host);
	s->peer_port = xstrdup(port);
}

static void tell(struct net_stream *s, bool connected)
{
	struct net_event event = {
		.netdev = &s->nd,
		.connected = connected,
		.host = s->peer_host,
		.port = s->peer_port,
		.path = s->addr.path,
		.str = s->addr.str,
	};

	event.type = event.host ? "inet" : event.path ? "unix" : "fd";
	if (event.host)
		event.path = event.str = NULL;
	else if (event.path)
		event.str = NULL;
	notifier_fire(&s->nd.events, &event);
}

/* ---- on the queue's loop, if there is one ---- */

struct handover {
	struct net_stream *stream;
	int fd;
};

static void do_use(void *opaque)
{
	struct handover *h = opaque;

	net_stream_use(h->stream, h->fd);
}

static void do_drop(void *opaque)
{
	net_stream_drop(opaque);
}

static void on_queue(struct net_stream *s, void (*fn)(void *opaque), void *opaque)
{
	if (s->nd.queue[0].loop)
		evloop_call(s->nd.queue[0].loop, fn, opaque);
	else
		fn(opaque);
}

/* ---- coming and going ---- */

static void come(struct net_stream *s, int fd)
{
	int one = 1;

	/* Not a socket of TCP's: harmless. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	learn_peer(s, fd);
	s->told = false;
	on_queue(s, do_use, &(struct handover){s, fd});
	net_link_changed(&s->nd, true);
	tell(s, true);
}

static void wait_again(struct net_stream *s)
{
	evloop_timer_arm(s->main_loop, &s->reconnect, evloop_now(s->main_loop) + s->reconnect_ns);
}

void net_stream_on_lost(void *opaque)
{
	struct net_stream *s = opaque;

	if (s->fd < 0)
		return;
	on_queue(s, do_drop, s);
	net_link_changed(&s->nd, false);
	tell(s, false);
	forget_peer(s);
	if (s->server)
		evloop_fd_mod(s->main_loop, &s->listen_ev, EPOLLIN);
	else if (s->reconnect_ns)
		wait_again(s);
}

static void on_accept(void *opaque, uint32_t revents)
{
	struct net_stream *s = opaque;
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	/* The next one waits in the kernel. */
	evloop_fd_mod(s->main_loop, &s->listen_ev, 0);
	come(s, fd);
}

/* Says it once, and again only after it worked. */
static void failed_to_connect(struct net_stream *s, struct error *why)
{
	if (!s->told)
		log_warn("netdev %s: %s", s->nd.id, error_message(why));
	error_free(why);
	s->told = true;
	if (s->reconnect_ns)
		wait_again(s);
}

static bool try_connect(struct net_stream *s, struct error **err);

static void on_connected(void *opaque, uint32_t revents)
{
	struct net_stream *s = opaque;
	int e = 0, fd = s->connect_fd;
	struct error *err = NULL;
	socklen_t len = sizeof(e);
	char *text;

	evloop_fd_del(s->main_loop, &s->connect_ev);
	s->connect_fd = -1;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) == 0 && !e) {
		come(s, fd);
		return;
	}
	close(fd);
	if (s->connect_next < s->addr.count) {
		if (!try_connect(s, &err))
			failed_to_connect(s, err);
		return;
	}
	text = net_addr_text(&s->addr, "tcp");
	error_set_errno(&err, e, "cannot connect to %s", text);
	free(text);
	failed_to_connect(s, err);
}

/* To the next of the addresses. */
static bool try_connect(struct net_stream *s, struct error **err)
{
	bool under_way;
	int fd = net_addr_connect(&s->addr, &s->connect_next, &under_way, err), r;

	if (fd < 0)
		return false;
	s->connect_fd = fd;
	if (!under_way) {
		evloop_post(s->main_loop, &s->arrived_work);
		return true;
	}
	r = evloop_fd_add(s->main_loop, &s->connect_ev, fd, EPOLLOUT, on_connected, s);
	if (r == 0)
		return true;
	error_set_errno(err, r, "cannot watch a connection");
	close(fd);
	s->connect_fd = -1;
	return false;
}

void net_stream_on_arrived(void *opaque)
{
	struct net_stream *s = opaque;
	int fd = s->connect_fd;

	s->connect_fd = -1;
	come(s, fd);
}

void net_stream_on_reconnect(void *opaque)
{
	struct net_stream *s = opaque;
	struct error *err = NULL;

	s->connect_next = 0;
	if (!try_connect(s, &err))
		failed_to_connect(s, err);
}

/* ---- beginning and end ---- */

static bool start_server(struct net_stream *s, struct error **err)
{
	int r;

	s->listen_fd = s->addr.type == NET_ADDR_FD
			       ? net_addr_take_fd(&s->addr, SOCK_STREAM, true, err)
			       : net_addr_listen(&s->addr, err);
	if (s->listen_fd < 0)
		return false;
	r = evloop_fd_add(s->main_loop, &s->listen_ev, s->listen_fd, EPOLLIN, on_accept, s);
	if (r < 0)
		error_set_errno(err, r, "cannot watch a listening socket");
	return r == 0;
}

bool net_stream_start(struct net_stream *s, struct error **err)
{
	struct error *why = NULL;

	if (s->server)
		return start_server(s, err);
	if (s->addr.type == NET_ADDR_FD) {
		s->connect_fd = net_addr_take_fd(&s->addr, SOCK_STREAM, false, err);
		if (s->connect_fd >= 0)
			evloop_post(s->main_loop, &s->arrived_work);
		return s->connect_fd >= 0;
	}
	if (try_connect(s, &why))
		return true;
	if (!s->reconnect_ns) {
		error_propagate(err, why);
		return false;
	}
	failed_to_connect(s, why);
	return true;
}

void net_stream_stop(struct net_stream *s)
{
	evloop_unpost(s->main_loop, &s->lost_work);
	evloop_unpost(s->main_loop, &s->arrived_work);
	evloop_timer_cancel(s->main_loop, &s->reconnect);
	evloop_fd_del(s->main_loop, &s->listen_ev);
	evloop_fd_del(s->main_loop, &s->connect_ev);
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	if (s->connect_fd >= 0)
		close(s->connect_fd);
	forget_peer(s);
}
