/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's connection: bytes in, cut into what the stage waits for, and bytes out, through TLS if
 * that was agreed on; see conn.h. Thread: the server's loop.
 */
#include "block/nbd/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_ROOM = NBD_MAX_OPTION + NBD_OPTION_BYTES, TURNS = 64 };

static bool text_left(const struct nbd_conn *c)
{
	return c->text_sent < c->text_len;
}

static bool output_left(const struct nbd_conn *c)
{
	return text_left(c) || c->piece_count || c->replies;
}

/* One option at a time: its answer goes out before the next is looked at. */
static bool wants_input(const struct nbd_conn *c)
{
	return !c->closed && !c->waiting && c->stage != NBD_STAGE_TLS &&
	       c->stage != NBD_STAGE_LAST && !text_left(c);
}

static void update_events(struct nbd_conn *c)
{
	uint32_t events = 0;

	if (c->closed)
		return;
	if (c->stage == NBD_STAGE_TLS)
		events = tls_wants_write(c->tls) ? EPOLLOUT : EPOLLIN;
	if (wants_input(c))
		events |= EPOLLIN;
	if (output_left(c))
		events |= EPOLLOUT;
	evloop_fd_mod(c->server->loop, &c->ev, events);
}

void nbd_conn_close(struct nbd_conn *c)
{
	if (c->closed)
		return;
	c->closed = true;
	evloop_fd_del(c->server->loop, &c->ev);
	evloop_timer_cancel(c->server->loop, &c->timer);
	evloop_unpost(c->server->loop, &c->work);
	tls_session_free(c->tls);
	c->tls = NULL;
	close(c->fd);
	while (c->piece_count) {
		struct nbd_slot *slot = c->pieces[--c->piece_count].slot;

		if (slot)
			nbd_slot_free(slot);
	}
	while (c->replies) {
		struct nbd_slot *slot = c->replies;

		c->replies = slot->next;
		nbd_slot_free(slot);
	}
	if (c->incoming)
		nbd_slot_free(c->incoming);
	c->incoming = NULL;
	nbd_conn_left(c);
}

void nbd_conn_put(struct nbd_conn *c)
{
	if (--c->refs || !c->closed)
		return;
	nbd_conn_gone(c);
	for (size_t i = 0; i < NBD_SLOTS; i++) {
		free(c->slots[i].req);
		free(c->slots[i].buf);
	}
	free(c->in);
	free(c->text);
	free(c->record);
	free(c);
}

void nbd_conn_kick(struct nbd_conn *c)
{
	if (!c->closed)
		evloop_post(c->server->loop, &c->work);
}

/* Output */

void nbd_conn_write(struct nbd_conn *c, const void *data, size_t bytes)
{
	if (!bytes)
		return;
	if (c->text_room - c->text_len < bytes) {
		c->text_room = c->text_len + bytes + 1024;
		c->text = xrealloc(c->text, c->text_room);
	}
	memcpy(c->text + c->text_len, data, bytes);
	c->text_len += bytes;
}

/* What is taken of iov, or -errno. */
static ssize_t put(struct nbd_conn *c, const struct iovec *iov, int n)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n};
	ssize_t ret;

	if (!c->tls) {
		ret = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		return ret < 0 ? -errno : ret;
	}
	if (!c->record)
		c->record = xmalloc(NBD_RECORD);
	/* What once met a full socket is what must be sent next. */
	for (int i = c->record_len ? n : 0; i < n; i++) {
		size_t bytes = MIN(iov[i].iov_len, NBD_RECORD - c->record_len);

		memcpy(c->record + c->record_len, iov[i].iov_base, bytes);
		c->record_len += bytes;
	}
	ret = tls_send(c->tls, c->record, c->record_len);
	if (ret != -EAGAIN)
		c->record_len = 0;
	return ret;
}

/* n bytes of the pieces are out. */
static void pieces_sent(struct nbd_conn *c, size_t n)
{
	unsigned done = 0;

	for (; done < c->piece_count; done++) {
		struct nbd_piece *p = &c->pieces[done];
		size_t head = MIN(n, p->head_len - p->head_sent), data;

		p->head_sent += head;
		n -= head;
		data = MIN(n, p->data_len);
		if (data)
			p->data += data;
		p->data_len -= data;
		n -= data;
		if (p->head_sent < p->head_len || p->data_len)
			break;
		if (p->slot)
			nbd_slot_free(p->slot);
	}
	c->piece_count -= done;
	memmove(c->pieces, c->pieces + done, c->piece_count * sizeof(c->pieces[0]));
}

static ssize_t send_pieces(struct nbd_conn *c)
{
	struct iovec iov[2 * NBD_PIECES];
	ssize_t ret;
	int n = 0;

	while (c->piece_count < NBD_PIECES && nbd_next_piece(c, &c->pieces[c->piece_count]))
		c->piece_count++;
	for (unsigned i = 0; i < c->piece_count; i++) {
		struct nbd_piece *p = &c->pieces[i];

		if (p->head_sent < p->head_len)
			iov[n++] = (struct iovec){p->head + p->head_sent,
						  p->head_len - p->head_sent};
		if (p->data_len)
			iov[n++] = (struct iovec){(void *)p->data, p->data_len};
	}
	ret = put(c, iov, n);
	if (ret > 0)
		pieces_sent(c, ret);
	return ret;
}

static ssize_t send_text(struct nbd_conn *c)
{
	struct iovec iov = {c->text + c->text_sent, c->text_len - c->text_sent};
	ssize_t ret = put(c, &iov, 1);

	if (ret > 0)
		c->text_sent += ret;
	if (!text_left(c))
		c->text_len = c->text_sent = 0;
	return ret;
}

static void start_tls(struct nbd_conn *c)
{
	c->starttls = false;
	/* What came behind the option came without TLS, from whomever. */
	if (c->in_at == c->in_end)
		c->tls = tls_session_new(c->server->config.tls, c->fd, NULL, NULL);
	if (c->tls)
		c->stage = NBD_STAGE_TLS;
	else
		nbd_conn_close(c);
}

static void output(struct nbd_conn *c)
{
	ssize_t ret = 1;

	while (!c->closed && c->stage != NBD_STAGE_TLS && ret > 0 && output_left(c))
		ret = text_left(c) ? send_text(c) : send_pieces(c);
	if (c->closed)
		return;
	if (ret < 0 && ret != -EAGAIN && ret != -EINTR) {
		nbd_conn_close(c);
		return;
	}
	if (output_left(c))
		return;
	if (c->starttls)
		start_tls(c);
	else if (c->stage == NBD_STAGE_LAST) {
		if (c->tls)
			tls_bye(c->tls);
		nbd_conn_close(c);
	}
}

/* Input */

static size_t stage_bytes(const struct nbd_conn *c)
{
	switch (c->stage) {
	case NBD_STAGE_FLAGS:
		return 4;
	case NBD_STAGE_OPTION:
		return NBD_OPTION_BYTES;
	case NBD_STAGE_OPTION_DATA:
		return c->option.length;
	default:
		return NBD_REQUEST_BYTES;
	}
}

static ssize_t get(struct nbd_conn *c, void *buf, size_t bytes)
{
	ssize_t ret;

	if (c->tls)
		return tls_recv(c->tls, buf, bytes);
	ret = recv(c->fd, buf, bytes, MSG_DONTWAIT);
	return ret < 0 ? -errno : ret;
}

/* More bytes, or 0, or -errno. A write's payload goes to its place if nothing lies before it. */
static ssize_t fill(struct nbd_conn *c)
{
	ssize_t ret;

	if (c->in_at == c->in_end)
		c->in_at = c->in_end = 0;
	if (c->stage == NBD_STAGE_PAYLOAD && !c->in_end) {
		ret = get(c, c->incoming->buf + c->got, c->incoming->r.length - c->got);
		if (ret > 0)
			c->got += ret;
		return ret;
	}
	if (c->in_at) {
		memmove(c->in, c->in + c->in_at, c->in_end - c->in_at);
		c->in_end -= c->in_at;
		c->in_at = 0;
	}
	ret = get(c, c->in + c->in_end, IN_ROOM - c->in_end);
	if (ret > 0)
		c->in_end += ret;
	return ret;
}

static bool step_payload(struct nbd_conn *c, size_t have)
{
	struct nbd_slot *slot = c->incoming;
	size_t n = MIN(have, slot->r.length - c->got);

	if (n)
		memcpy(slot->buf + c->got, c->in + c->in_at, n);
	c->got += n;
	c->in_at += n;
	if (c->got < slot->r.length)
		return n;
	c->incoming = NULL;
	c->stage = NBD_STAGE_REQUEST;
	nbd_slot_start(slot);
	return true;
}

/* Does what the bytes that are there allow. False: it takes more of them. */
static bool step(struct nbd_conn *c)
{
	size_t have = c->in_end - c->in_at, n = stage_bytes(c);
	const uint8_t *data = c->in + c->in_at;

	if (c->stage == NBD_STAGE_PAYLOAD)
		return step_payload(c, have);
	if (c->stage == NBD_STAGE_SKIP) {
		n = MIN(c->skip, have);
		c->in_at += n;
		c->skip -= n;
		if (!c->skip)
			c->stage = c->after_skip;
		return n || !c->skip;
	}
	if (have < n)
		return false;
	c->in_at += n;
	switch (c->stage) {
	case NBD_STAGE_FLAGS:
		nbd_on_flags(c, data);
		break;
	case NBD_STAGE_OPTION:
		nbd_on_option(c, data);
		break;
	case NBD_STAGE_OPTION_DATA:
		nbd_on_option_data(c, data);
		break;
	default:
		if (!nbd_on_request(c, data)) {
			c->in_at -= n;
			c->waiting = true;
		}
	}
	return true;
}

static void input(struct nbd_conn *c)
{
	for (int turns = 0; wants_input(c); turns++) {
		ssize_t ret;

		if (turns == TURNS) {
			nbd_conn_kick(c); /* others have their turn */
			return;
		}
		if (step(c)) {
			if (text_left(c))
				output(c);
			continue;
		}
		ret = fill(c);
		if (ret == -EAGAIN)
			return;
		if (ret <= 0 && ret != -EINTR)
			nbd_conn_close(c);
	}
}

static void handshake_tls(struct nbd_conn *c)
{
	int ret = tls_handshake(c->tls, NULL);

	if (!ret)
		c->stage = NBD_STAGE_OPTION;
	else if (ret != -EAGAIN)
		nbd_conn_close(c);
}

static void go_on(struct nbd_conn *c)
{
	nbd_conn_get(c);
	if (c->stage == NBD_STAGE_TLS)
		handshake_tls(c);
	if (!c->closed && c->stage != NBD_STAGE_TLS) {
		output(c);
		input(c);
	}
	update_events(c);
	nbd_conn_put(c);
}

static void on_event(void *opaque, uint32_t revents)
{
	struct nbd_conn *c = opaque;

	/* It has hung up while nothing is wanted from it. */
	if ((revents & (EPOLLHUP | EPOLLERR)) && !wants_input(c) && c->stage != NBD_STAGE_TLS) {
		nbd_conn_get(c);
		nbd_conn_close(c);
		nbd_conn_put(c);
		return;
	}
	go_on(c);
}

static void on_work(void *opaque)
{
	go_on(opaque);
}

static void on_timeout(void *opaque)
{
	struct nbd_conn *c = opaque;

	nbd_conn_get(c);
	nbd_conn_close(c);
	nbd_conn_put(c);
}

void nbd_conn_new(struct nbd_server *server, int fd)
{
	struct nbd_conn *c = xcalloc(1, sizeof(*c));
	int on = 1;

	c->server = server;
	c->fd = fd;
	c->in = xmalloc(IN_ROOM);
	c->replies_tail = &c->replies;
	c->next = server->conns;
	c->pprev = &server->conns;
	if (c->next)
		c->next->pprev = &c->next;
	server->conns = c;
	for (size_t i = NBD_SLOTS; i--;) {
		c->slots[i].conn = c;
		c->slots[i].next = c->idle;
		c->idle = &c->slots[i];
	}
	ev_work_init(&c->work, on_work, c);
	ev_timer_init(&c->timer, on_timeout, c);
	/* Only TCP knows it. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	nbd_conn_get(c);
	if (evloop_fd_add(server->loop, &c->ev, fd, EPOLLIN | EPOLLOUT, on_event, c))
		nbd_conn_close(c);
	else if (server->config.handshake_ns)
		evloop_timer_arm(server->loop, &c->timer,
				 evloop_now(server->loop) + server->config.handshake_ns);
	if (!c->closed)
		nbd_start(c);
	nbd_conn_put(c);
}
