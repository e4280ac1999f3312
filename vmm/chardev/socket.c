/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream sockets, unix and TCP, as server or client. A server serves one client at a time: further
 * ones wait in the kernel's queue. A client with reconnect= tries again for ever.
 *
 * Names are resolved while options are handled, once. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/chardev/backend.h"
#include "vmm/chardev/stream.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

#define ACCEPT_RETRY_NS (100 * NSEC_PER_MSEC)

struct socket_chardev {
	struct stream stream;
	bool server, nodelay;
	uint64_t reconnect; /* s; 0: not */
	struct sockaddr_storage addr;
	socklen_t addr_len;
	char *label;  /* "unix:/x,server=on" */
	char *unlink; /* socket file of our making, or NULL */
	dev_t unlink_dev;
	ino_t unlink_ino;
	int listen_fd, fd;
	struct ev_fd listen_ev, connect_ev;
	struct ev_timer retry;
	struct ev_work disconnect_work;
};

static struct socket_chardev *from_stream(struct stream *s)
{
	return container_of(s, struct socket_chardev, stream);
}

static void start_listening(struct socket_chardev *s);

static void connected(struct socket_chardev *s, int fd)
{
	int one = 1;

	s->fd = fd;
	if (s->nodelay && s->addr.ss_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (stream_start(&s->stream, fd, fd) < 0) {
		close(fd);
		s->fd = -1;
		return;
	}
	stream_set_open(&s->stream, true);
}

static void on_accept(void *opaque, uint32_t revents)
{
	struct socket_chardev *s = opaque;
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR))
		return; /* it went away again */
	evloop_fd_del(s->stream.loop, &s->listen_ev);
	if (fd < 0) {
		/* Out of descriptors: whoever waits would wake the loop without end. */
		evloop_timer_arm(s->stream.loop, &s->retry,
				 evloop_now(s->stream.loop) + ACCEPT_RETRY_NS);
		return;
	}
	connected(s, fd);
	if (s->fd < 0)
		start_listening(s);
}

static void start_listening(struct socket_chardev *s)
{
	evloop_fd_add(s->stream.loop, &s->listen_ev, s->listen_fd, EPOLLIN, on_accept, s);
}

static void retry_later(struct socket_chardev *s)
{
	if (s->reconnect)
		evloop_timer_arm(s->stream.loop, &s->retry,
				 evloop_now(s->stream.loop) + s->reconnect * NSEC_PER_SEC);
}

static void on_connect(void *opaque, uint32_t revents)
{
	struct socket_chardev *s = opaque;
	int fd = s->fd, error = 0;
	socklen_t len = sizeof(error);

	evloop_fd_del(s->stream.loop, &s->connect_ev);
	s->fd = -1;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error) {
		close(fd);
		retry_later(s);
		return;
	}
	connected(s, fd);
}

/* 0: connected, or on the way; -errno. */
static int start_connecting(struct socket_chardev *s)
{
	int ret, fd = socket(s->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (!connect(fd, (struct sockaddr *)&s->addr, s->addr_len)) {
		connected(s, fd);
		return 0;
	}
	ret = errno == EINPROGRESS
		      ? evloop_fd_add(s->stream.loop, &s->connect_ev, fd, EPOLLOUT, on_connect, s)
		      : -errno;
	if (ret < 0) {
		close(fd);
		return ret;
	}
	s->fd = fd;
	return 0;
}

static void on_retry(void *opaque)
{
	struct socket_chardev *s = opaque;

	if (s->server)
		start_listening(s);
	else if (start_connecting(s) < 0)
		retry_later(s);
}

static void socket_closed(struct stream *stream)
{
	struct socket_chardev *s = from_stream(stream);

	stream_stop(stream);
	close(s->fd);
	s->fd = -1;
	if (s->server)
		start_listening(s);
	else
		retry_later(s);
	stream_set_open(stream, false);
}

static void on_disconnect_work(void *opaque)
{
	struct socket_chardev *s = opaque;

	if (s->stream.base.open)
		socket_closed(&s->stream);
}

static void socket_disconnect(struct chardev *c)
{
	struct socket_chardev *s = container_of(c, struct socket_chardev, stream.base);

	evloop_post(s->stream.loop, &s->disconnect_work);
}

static void remove_file(struct socket_chardev *s)
{
	struct stat st;

	/* Only what is still ours: another process may have taken the name over. */
	if (s->unlink && !lstat(s->unlink, &st) && st.st_dev == s->unlink_dev &&
	    st.st_ino == s->unlink_ino)
		unlink(s->unlink);
	free(s->unlink);
}

static void socket_destroy(struct chardev *c)
{
	struct socket_chardev *s = container_of(c, struct socket_chardev, stream.base);
	struct evloop *loop = s->stream.loop;

	stream_flush(&s->stream);
	stream_stop(&s->stream);
	evloop_unpost(loop, &s->disconnect_work);
	evloop_timer_cancel(loop, &s->retry);
	evloop_fd_del(loop, &s->connect_ev);
	evloop_fd_del(loop, &s->listen_ev);
	if (s->fd >= 0)
		close(s->fd);
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	remove_file(s);
	free(s->label);
	free(s);
}

/* The front end has no room for input, ever; the end of the connection is all that is seen. */
static int socket_socket(struct chardev *c)
{
	struct socket_chardev *s = container_of(c, struct socket_chardev, stream.base);

	s->stream.hup_closes = true;
	return c->open ? s->fd : -1;
}

static const struct chardev_ops socket_ops = {
	.write = stream_write,
	.accept_input = stream_accept_input,
	.disconnect = socket_disconnect,
	.socket = socket_socket,
	.destroy = socket_destroy,
};

static bool unix_address(struct socket_chardev *s, const char *path, struct error **err)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&s->addr;

	if (strlen(path) >= sizeof(un->sun_path)) {
		error_set(err, "the socket's path is longer than %zu bytes",
			  sizeof(un->sun_path) - 1);
		return false;
	}
	un->sun_family = AF_UNIX;
	strcpy(un->sun_path, path);
	s->addr_len = sizeof(*un);
	s->label = xasprintf("unix:%s%s", path, s->server ? ",server=on" : "");
	return true;
}

static bool tcp_address(struct socket_chardev *s, const char *host, const char *port,
			struct error **err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = s->server ? AI_PASSIVE : 0};
	struct addrinfo *list;
	bool v6 = strchr(host, ':');
	int ret;

	/* The resolver would take a number modulo 65536. */
	if (port[strspn(port, "0123456789")] == '\0' &&
	    (strlen(port) > 5 || strtoul(port, NULL, 10) > UINT16_MAX)) {
		error_set(err, "port %s: there are 65535 of them", port);
		return false;
	}
	if (s->server && !*host)
		hints.ai_family = AF_INET;
	ret = getaddrinfo(*host ? host : NULL, port, &hints, &list);
	if (ret) {
		error_set(err, "address %s:%s: %s", host, port, gai_strerror(ret));
		return false;
	}
	memcpy(&s->addr, list->ai_addr, list->ai_addrlen);
	s->addr_len = list->ai_addrlen;
	freeaddrinfo(list);
	s->label = xasprintf("tcp:%s%s%s:%s%s", v6 ? "[" : "", *host ? host : "0.0.0.0",
			     v6 ? "]" : "", port, s->server ? ",server=on" : "");
	return true;
}

static void remove_stale(const char *path)
{
	struct stat st;

	if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
		unlink(path);
}

/* A port of 0 was the kernel's to choose: the label tells which. */
static void name_port(struct socket_chardev *s)
{
	char host[64], port[16];

	s->addr_len = sizeof(s->addr);
	if (getsockname(s->listen_fd, (struct sockaddr *)&s->addr, &s->addr_len) < 0 ||
	    getnameinfo((struct sockaddr *)&s->addr, s->addr_len, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	free(s->label);
	s->label = xasprintf(strchr(host, ':') ? "tcp:[%s]:%s,server=on" : "tcp:%s:%s,server=on",
			     host, port);
}

static bool open_server(struct socket_chardev *s, struct error **err)
{
	bool is_unix = s->addr.ss_family == AF_UNIX;
	const char *path = ((struct sockaddr_un *)&s->addr)->sun_path;
	struct stat st;
	int one = 1;

	s->listen_fd = socket(s->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd < 0) {
		error_set_errno(err, errno, "cannot make a socket");
		return false;
	}
	if (is_unix)
		remove_stale(path);
	else
		setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s->listen_fd, (struct sockaddr *)&s->addr, s->addr_len) < 0 ||
	    listen(s->listen_fd, 1) < 0) {
		error_set_errno(err, errno, "cannot listen on %s", s->label);
		return false;
	}
	if (!is_unix) {
		name_port(s);
	} else if (!lstat(path, &st)) {
		s->unlink = realpath(path, NULL); /* -daemonize changes the directory */
		s->unlink_dev = st.st_dev;
		s->unlink_ino = st.st_ino;
	}
	start_listening(s);
	return true;
}

static bool open_client(struct chardevs *set, struct socket_chardev *s, struct error **err)
{
	int ret = start_connecting(s);

	if (s->reconnect) {
		if (ret < 0)
			retry_later(s);
		return true;
	}
	/* The first and only time is waited for, so that its failure can be told. */
	while (!ret && !s->stream.base.open && s->fd >= 0 && !set->cancelled)
		evloop_run_once(s->stream.loop, -1);
	if (!s->stream.base.open)
		ret = ret ? ret : set->cancelled ? -EINTR : -ECONNREFUSED;
	if (ret < 0)
		error_set_errno(err, ret, "cannot connect to %s", s->label);
	return ret >= 0;
}

struct socket_options {
	const char *path, *host, *port;
	bool wait;
};

static bool read_options(struct socket_chardev *s, struct opts *opts, struct socket_options *o,
			 struct error **err)
{
	bool telnet = false;

	o->path = opts_get(opts, "path");
	o->host = opts_get(opts, "host");
	o->port = opts_get(opts, "port");
	o->wait = true;
	if (!opts_get_bool(opts, "server", &s->server, err))
		return false;
	if (!s->server && opts_has(opts, "wait")) {
		error_set(err, "wait is for servers");
		return false;
	}
	if (!opts_get_bool(opts, "wait", &o->wait, err) ||
	    !opts_get_bool(opts, "telnet", &telnet, err) ||
	    !opts_get_bool(opts, "nodelay", &s->nodelay, err) ||
	    !opts_get_u64(opts, "reconnect", &s->reconnect, err))
		return false;
	if (telnet)
		error_set(err, "telnet=on is not supported by this build");
	else if (s->server && s->reconnect)
		error_set(err, "reconnect is for clients");
	else if (s->reconnect > 86400)
		error_set(err, "reconnect is at most 86400 seconds");
	else if (o->path && (o->host || o->port))
		error_set(err, "it is either path or host and port");
	else if (!o->path && !o->port)
		error_set(err, "path, or host and port, are missing");
	else
		return true;
	return false;
}

static struct chardev *socket_create(struct chardevs *set, const char *id, struct opts *opts,
				     struct error **err)
{
	struct socket_chardev *s = xcalloc(1, sizeof(*s));
	struct socket_options o = {0};
	bool ok;

	stream_init(&s->stream, set->loop, &socket_ops, socket_closed);
	s->fd = s->listen_fd = -1;
	ev_timer_init(&s->retry, on_retry, s);
	ev_work_init(&s->disconnect_work, on_disconnect_work, s);
	ok = read_options(s, opts, &o, err) &&
	     (o.path ? unix_address(s, o.path, err)
		     : tcp_address(s, o.host ? o.host : "", o.port, err)) &&
	     (s->server ? open_server(s, err) : open_client(set, s, err)) &&
	     (!s->server || !o.wait || chardevs_wait(set, &s->stream.base, s->label, err));
	if (!ok) {
		socket_destroy(&s->stream.base);
		return NULL;
	}
	return &s->stream.base;
}

static char *socket_filename(const struct chardev *c)
{
	const struct socket_chardev *s = container_of(c, struct socket_chardev, stream.base);

	return xasprintf("%s%s", c->open ? "" : "disconnected:", s->label);
}

static const char *const socket_keys[] = {"path",    "host",   "port",	    "server", "wait",
					  "nodelay", "telnet", "reconnect", NULL};

const struct chardev_backend chardev_backend_socket = {
	.name = "socket",
	.keys = socket_keys,
	.create = socket_create,
	.filename = socket_filename,
};
