/* SPDX-License-Identifier: Apache-2.0 */
/* TLS below libnbd; see starttls.h. Thread: the link's loop. */
#include "block/nbd/starttls.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/nbd/proto.h"
#include "vmm/core/util.h"

enum { ROOM = 64 << 10, TURNS = 32, FLAGS_BYTES = 4 };

enum phase { GREETING, ASKED, HANDSHAKE, PASSING, FAILED };

/* Bytes on their way in one direction. */
struct flow {
	uint8_t *buf;
	size_t at, end;
	bool ended; /* the source has no more */
	bool told;  /* the sink knows it */
};

struct nbd_starttls {
	struct evloop *loop;
	const struct tls_creds *creds;
	char *hostname;
	struct tls_session *tls;
	enum phase phase;
	int net, local;
	struct ev_fd net_ev, local_ev;
	struct ev_work work;
	struct flow down, up; /* from the server; to it */
	size_t skip;	      /* of what libnbd answers to the greeting, which the server has had */
	uint16_t flags;
	uint32_t reply;
	void (*done)(void *opaque, int fd, struct error *why);
	void *opaque;
};

static void fail(struct nbd_starttls *t, struct error *why)
{
	t->phase = FAILED;
	evloop_fd_del(t->loop, &t->net_ev);
	t->done(t->opaque, -1, why);
}

/* Reads until n bytes are there. False: not yet, or it failed. */
static bool have(struct nbd_starttls *t, size_t n)
{
	struct error *why = NULL;

	while (t->down.end < n) {
		ssize_t ret = recv(t->net, t->down.buf + t->down.end, n - t->down.end, 0);

		if (ret < 0 && (errno == EAGAIN || errno == EINTR))
			return false;
		if (ret <= 0) {
			error_set_errno(&why, ret ? errno : ECONNRESET,
					"Failed to read from the server");
			fail(t, why);
			return false;
		}
		t->down.end += ret;
	}
	return true;
}

static void on_greeting(struct nbd_starttls *t)
{
	uint8_t out[FLAGS_BYTES + NBD_OPTION_BYTES];
	struct error *why = NULL;
	const uint8_t *in = t->down.buf;

	if (!have(t, NBD_HELLO_BYTES))
		return;
	t->flags = load_be16(in + 16);
	if (load_be64(in) != NBD_MAGIC || load_be64(in + 8) != NBD_OPTION_MAGIC ||
	    !(t->flags & NBD_FLAG_FIXED_NEWSTYLE)) {
		error_set(&why, "The server speaks no protocol that has TLS");
		fail(t, why);
		return;
	}
	t->flags &= NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES;
	store_be32(out, t->flags);
	store_be64(out + 4, NBD_OPTION_MAGIC);
	store_be32(out + 12, NBD_OPT_STARTTLS);
	store_be32(out + 16, 0);
	/* The first bytes on a new connection always find room. */
	if (send(t->net, out, sizeof(out), MSG_NOSIGNAL) != sizeof(out)) {
		error_set(&why, "Failed to write to the server");
		fail(t, why);
		return;
	}
	t->down.end = 0;
	t->phase = ASKED;
}

static void on_reply(struct nbd_starttls *t)
{
	const uint8_t *in = t->down.buf;
	struct error *why = NULL;
	uint32_t length;

	if (!have(t, NBD_OPTION_REPLY_BYTES))
		return;
	t->reply = load_be32(in + 12);
	length = load_be32(in + 16);
	if (load_be64(in) != NBD_REPLY_MAGIC || load_be32(in + 8) != NBD_OPT_STARTTLS ||
	    (t->reply == NBD_REP_ACK && length)) {
		error_set(&why, "The server's answer to NBD_OPT_STARTTLS is malformed");
	} else if (t->reply != NBD_REP_ACK) {
		error_set(&why, "The server refuses TLS");
	} else {
		t->tls = tls_session_new(t->creds, t->net, t->hostname, &why);
		t->down.end = 0;
		t->phase = HANDSHAKE;
	}
	if (why)
		fail(t, why);
}

static void update_events(struct nbd_starttls *t)
{
	uint32_t net = EPOLLIN, local = 0;

	if (t->phase == FAILED)
		return;
	if (t->phase == HANDSHAKE)
		net = tls_wants_write(t->tls) ? EPOLLOUT : EPOLLIN;
	if (t->phase == PASSING) {
		net = (t->down.at == t->down.end && !t->down.ended ? EPOLLIN : 0) |
		      (t->up.at < t->up.end ? EPOLLOUT : 0);
		local = (t->up.at == t->up.end && !t->up.ended ? EPOLLIN : 0) |
			(t->down.at < t->down.end ? EPOLLOUT : 0);
		evloop_fd_mod(t->loop, &t->local_ev, local);
	}
	evloop_fd_mod(t->loop, &t->net_ev, net);
}

/* What the source gave, or how it ended. False: nothing now. */
static bool filled(struct flow *f, ssize_t ret)
{
	if (ret == -EAGAIN || ret == -EINTR)
		return false;
	f->at = 0;
	f->end = ret > 0 ? ret : 0;
	f->ended = ret <= 0;
	return true;
}

static bool emptied(struct flow *f, ssize_t ret)
{
	if (ret == -EAGAIN || ret == -EINTR)
		return false;
	if (ret < 0) { /* nobody takes it any more */
		f->at = f->end;
		f->ended = true;
	} else {
		f->at += ret;
	}
	return true;
}

static ssize_t result(ssize_t ret)
{
	return ret < 0 ? -errno : ret;
}

static bool pass_down(struct nbd_starttls *t)
{
	struct flow *f = &t->down;

	if (f->at < f->end)
		return emptied(
			f, result(send(t->local, f->buf + f->at, f->end - f->at, MSG_NOSIGNAL)));
	if (!f->ended)
		return filled(f, tls_recv(t->tls, f->buf, ROOM));
	if (!f->told)
		shutdown(t->local, SHUT_WR);
	f->told = true;
	return false;
}

static bool pass_up(struct nbd_starttls *t)
{
	struct flow *f = &t->up;
	size_t skip;

	if (f->at < f->end)
		return emptied(f, tls_send(t->tls, f->buf + f->at, f->end - f->at));
	if (!f->ended) {
		if (!filled(f, result(recv(t->local, f->buf, ROOM, 0))))
			return false;
		skip = MIN(t->skip, f->end);
		t->skip -= skip;
		f->at = skip;
		return true;
	}
	if (!f->told)
		tls_bye(t->tls);
	f->told = true;
	return false;
}

static void pass(struct nbd_starttls *t)
{
	int turns = 0;

	while (turns < TURNS && (pass_down(t) | pass_up(t)))
		turns++;
	if (turns == TURNS)
		evloop_post(t->loop, &t->work); /* TLS may have bytes that no event tells of */
}

static void go_on(struct nbd_starttls *t);

static void on_event(void *opaque, uint32_t revents)
{
	struct nbd_starttls *t = opaque;

	/* A socket that is gone and from which nothing is wanted would wake us for ever. */
	if ((revents & (EPOLLHUP | EPOLLERR)) && t->phase == PASSING && t->down.ended &&
	    t->up.ended) {
		evloop_fd_del(t->loop, &t->net_ev);
		evloop_fd_del(t->loop, &t->local_ev);
		return;
	}
	go_on(t);
}

static void on_work(void *opaque)
{
	go_on(opaque);
}

/* Both ends trust each other: libnbd gets its end. */
static void start_passing(struct nbd_starttls *t)
{
	struct error *why = NULL;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0) {
		error_set_errno(&why, errno, "Cannot make a pair of sockets");
		fail(t, why);
		return;
	}
	t->local = fds[0];
	if (evloop_fd_add(t->loop, &t->local_ev, t->local, EPOLLIN, on_event, t)) {
		error_set(&why, "Cannot wait for a socket");
		close(fds[1]);
		fail(t, why);
		return;
	}
	nbd_put_hello(t->down.buf, t->flags);
	t->down.at = 0;
	t->down.end = NBD_HELLO_BYTES;
	t->skip = FLAGS_BYTES;
	t->phase = PASSING;
	pass(t);
	update_events(t);
	t->done(t->opaque, fds[1], NULL);
}

static void go_on(struct nbd_starttls *t)
{
	struct error *why = NULL;
	int ret;

	if (t->phase == GREETING)
		on_greeting(t);
	if (t->phase == ASKED)
		on_reply(t);
	if (t->phase == HANDSHAKE) {
		ret = tls_handshake(t->tls, &why);
		if (!ret) {
			start_passing(t); /* which may have freed it */
			return;
		}
		if (ret != -EAGAIN) {
			fail(t, why);
			return;
		}
	}
	if (t->phase == PASSING)
		pass(t);
	if (t->phase != FAILED)
		update_events(t);
}

struct nbd_starttls *nbd_starttls_new(struct evloop *loop, int fd, const struct tls_creds *creds,
				      const char *hostname,
				      void (*done)(void *opaque, int fd, struct error *why),
				      void *opaque, struct error **err)
{
	struct nbd_starttls *t = xcalloc(1, sizeof(*t));
	int ret;

	t->loop = loop;
	t->creds = creds;
	t->hostname = hostname ? xstrdup(hostname) : NULL;
	t->net = fd;
	t->local = -1;
	t->down.buf = xmalloc(ROOM);
	t->up.buf = xmalloc(ROOM);
	t->done = done;
	t->opaque = opaque;
	ev_work_init(&t->work, on_work, t);
	ret = evloop_fd_add(loop, &t->net_ev, fd, EPOLLIN, on_event, t);
	if (!ret)
		return t;
	error_set_errno(err, ret, "Cannot wait for a socket");
	nbd_starttls_free(t);
	return NULL;
}

void nbd_starttls_detach(struct nbd_starttls *t)
{
	evloop_fd_del(t->loop, &t->net_ev);
	if (t->local >= 0)
		evloop_fd_del(t->loop, &t->local_ev);
	evloop_unpost(t->loop, &t->work);
}

void nbd_starttls_attach(struct nbd_starttls *t, struct evloop *loop)
{
	t->loop = loop;
	evloop_fd_add(loop, &t->net_ev, t->net, EPOLLIN, on_event, t);
	if (t->local >= 0)
		evloop_fd_add(loop, &t->local_ev, t->local, EPOLLIN, on_event, t);
	evloop_post(loop, &t->work);
}

void nbd_starttls_free(struct nbd_starttls *t)
{
	if (!t)
		return;
	if (t->phase == PASSING)
		while (pass_up(t))
			;
	nbd_starttls_detach(t);
	tls_session_free(t->tls);
	if (t->local >= 0)
		close(t->local);
	close(t->net);
	free(t->hostname);
	free(t->down.buf);
	free(t->up.buf);
	free(t);
}
