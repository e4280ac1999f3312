/* SPDX-License-Identifier: Apache-2.0 */
/* A connection to an NBD server; see link.h. Thread: the loop's. */
#include "config.h"
#ifdef CONFIG_LIBNBD
#include "block/nbd/link.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/nbd/starttls.h"
#include "vmm/core/util.h"

static bool set_unix(struct nbd_target *t, const char *path, struct error **err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path)) {
		error_set(err, "UNIX socket path '%s' is too long", path);
		return false;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	memcpy(&t->addresses[0].address, &address, sizeof(address));
	t->addresses[0].len = sizeof(address);
	t->count = 1;
	return true;
}

bool nbd_target_set(struct nbd_target *t, const char *path, const char *host, const char *port,
		    struct error **err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	int ret;

	if (path)
		return set_unix(t, path, err);
	ret = getaddrinfo(host, port, &hints, &list);
	if (ret) {
		error_set(err, "address resolution failed for %s:%s: %s", host, port,
			  gai_strerror(ret));
		return false;
	}
	for (struct addrinfo *ai = list; ai && t->count < NBD_ADDRESSES; ai = ai->ai_next) {
		memcpy(&t->addresses[t->count].address, ai->ai_addr, ai->ai_addrlen);
		t->addresses[t->count++].len = ai->ai_addrlen;
	}
	freeaddrinfo(list);
	return true;
}

void nbd_target_destroy(struct nbd_target *t)
{
	free(t->export);
	free(t->context);
	free(t->hostname);
}

static void lost(struct nbd_link *l, struct error *why)
{
	evloop_fd_del(l->loop, &l->ev);
	if (l->why)
		error_free(why);
	else
		l->why = why;
	l->phase = NBD_LINK_LOST;
	evloop_post(l->loop, &l->work);
}

static void lost_libnbd(struct nbd_link *l)
{
	struct error *why = NULL;
	const char *text = l->lib.get_error();

	error_set(&why, "%s", text ? text : "The server hung up");
	lost(l, why);
}

/* What libnbd waits for now, or that it has come to an end. */
static void update(struct nbd_link *l)
{
	unsigned direction;

	if (!l->h || l->phase == NBD_LINK_LOST)
		return;
	if (l->lib.aio_is_dead(l->h) || l->lib.aio_is_closed(l->h)) {
		lost_libnbd(l);
		return;
	}
	if (l->phase == NBD_LINK_NEGOTIATE &&
	    (l->target->list ? l->lib.aio_is_negotiating(l->h) : l->lib.aio_is_ready(l->h))) {
		l->phase = NBD_LINK_UP;
		evloop_post(l->loop, &l->work);
	}
	direction = l->lib.aio_get_direction(l->h);
	evloop_fd_mod(l->loop, &l->ev,
		      (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0) |
			      (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0));
}

void nbd_link_poke(struct nbd_link *l)
{
	update(l);
}

static void on_ready(void *opaque, uint32_t revents)
{
	struct nbd_link *l = opaque;
	unsigned direction = l->lib.aio_get_direction(l->h);
	uint32_t gone = EPOLLHUP | EPOLLERR;

	if ((revents & (EPOLLIN | gone)) && (direction & LIBNBD_AIO_DIRECTION_READ))
		l->lib.aio_notify_read(l->h);
	else if ((revents & (EPOLLOUT | gone)) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		l->lib.aio_notify_write(l->h);
	update(l);
	l->progress(l->opaque);
}

static bool make_handle(struct nbd_link *l)
{
	const struct nbd_target *t = l->target;

	l->h = l->lib.create();
	return l->h && !l->lib.set_export_name(l->h, t->export ? t->export : "") &&
	       !l->lib.set_full_info(l->h, t->list) && !l->lib.set_opt_mode(l->h, t->list) &&
	       (!t->context || !l->lib.add_meta_context(l->h, t->context));
}

/* A socket that speaks NBD without TLS becomes libnbd's. */
static void hand_over(struct nbd_link *l, int fd)
{
	struct error *why = NULL;
	int ret;

	if (!make_handle(l)) {
		close(fd);
		lost_libnbd(l);
		return;
	}
	l->phase = NBD_LINK_NEGOTIATE;
	ret = evloop_fd_add(l->loop, &l->ev, fd, EPOLLIN, on_ready, l);
	if (ret) {
		close(fd);
		error_set_errno(&why, ret, "Cannot wait for a socket");
		lost(l, why);
		return;
	}
	if (l->lib.aio_connect_socket(l->h, fd) < 0)
		lost_libnbd(l);
	else
		update(l);
}

static void on_tls(void *opaque, int fd, struct error *why)
{
	struct nbd_link *l = opaque;

	if (fd >= 0)
		hand_over(l, fd);
	else
		lost(l, why);
}

static void connected(struct nbd_link *l)
{
	struct error *why = NULL;
	int fd = l->fd, on = 1;

	evloop_fd_del(l->loop, &l->ev);
	l->fd = -1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* only TCP knows it */
	if (!l->target->tls) {
		hand_over(l, fd);
		return;
	}
	l->phase = NBD_LINK_TLS;
	l->tls = nbd_starttls_new(l->loop, fd, l->target->tls, l->target->hostname, on_tls, l,
				  &why);
	if (!l->tls)
		lost(l, why);
}

static void try_next(struct nbd_link *l, int error);

static void on_connect(void *opaque, uint32_t revents)
{
	struct nbd_link *l = opaque;
	socklen_t len = sizeof(int);
	int ret = 0;

	getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &ret, &len);
	if (!ret) {
		connected(l);
		return;
	}
	evloop_fd_del(l->loop, &l->ev);
	close(l->fd);
	l->fd = -1;
	try_next(l, ret);
}

/* error is how the address before failed. */
static void try_next(struct nbd_link *l, int error)
{
	struct error *why = NULL;

	while (l->next < l->target->count) {
		const struct nbd_address *a = &l->target->addresses[l->next++];

		l->fd = socket(a->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (l->fd < 0) {
			error = errno;
			continue;
		}
		if (!connect(l->fd, (const struct sockaddr *)&a->address, a->len)) {
			connected(l);
			return;
		}
		if (errno == EINPROGRESS &&
		    !evloop_fd_add(l->loop, &l->ev, l->fd, EPOLLOUT, on_connect, l))
			return;
		error = errno;
		close(l->fd);
		l->fd = -1;
	}
	error_set_errno(&why, error, "Failed to connect to the server");
	lost(l, why);
}

static void on_work(void *opaque)
{
	struct nbd_link *l = opaque;

	l->progress(l->opaque);
}

void nbd_link_init(struct nbd_link *l, const struct nbd_target *target,
		   void (*progress)(void *opaque), void *opaque)
{
	*l = (struct nbd_link){.target = target, .progress = progress, .opaque = opaque, .fd = -1};
	ev_work_init(&l->work, on_work, l);
}

void nbd_link_start(struct nbd_link *l, struct evloop *loop)
{
	nbd_link_stop(l, false);
	l->loop = loop;
	l->phase = NBD_LINK_CONNECT;
	l->next = 0;
	try_next(l, 0);
}

void nbd_link_stop(struct nbd_link *l, bool polite)
{
	if (l->phase == NBD_LINK_IDLE)
		return;
	if (polite && l->phase == NBD_LINK_UP)
		l->lib.aio_disconnect(l->h, 0);
	evloop_fd_del(l->loop, &l->ev);
	evloop_unpost(l->loop, &l->work);
	l->lib.close(l->h);
	l->h = NULL;
	nbd_starttls_free(l->tls); /* after libnbd: passes its last words on */
	l->tls = NULL;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	error_free(l->why);
	l->why = NULL;
	l->phase = NBD_LINK_IDLE;
}

void nbd_link_detach(struct nbd_link *l)
{
	if (l->phase == NBD_LINK_IDLE)
		return;
	evloop_fd_del(l->loop, &l->ev);
	evloop_unpost(l->loop, &l->work);
	if (l->tls)
		nbd_starttls_detach(l->tls);
}

void nbd_link_attach(struct nbd_link *l, struct evloop *loop)
{
	if (l->phase == NBD_LINK_IDLE)
		return;
	l->loop = loop;
	if (l->phase == NBD_LINK_CONNECT)
		evloop_fd_add(loop, &l->ev, l->fd, EPOLLOUT, on_connect, l);
	if (l->tls)
		nbd_starttls_attach(l->tls, loop);
	if (l->h && l->phase != NBD_LINK_LOST) {
		evloop_fd_add(loop, &l->ev, l->lib.aio_get_fd(l->h), EPOLLIN, on_ready, l);
		update(l);
	}
	evloop_post(loop, &l->work);
}
#endif
