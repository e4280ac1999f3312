/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chardevs on file descriptors. Main thread; see stream.h.
 */
#include "vmm/chardev/stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/core/util.h"

#define FLUSH_MS 200

static void update_events(struct stream *s)
{
	uint32_t in = s->in_polled && !s->in_paused ? EPOLLIN : 0;
	uint32_t out = s->out_len || s->front_waits ? EPOLLOUT : 0;

	if (s->in_fd >= 0 && s->in_fd == s->out_fd) {
		if (s->in_polled)
			evloop_fd_mod(s->loop, &s->in_ev, in | out);
		return;
	}
	if (s->in_polled)
		evloop_fd_mod(s->loop, &s->in_ev, in);
	if (s->out_polled)
		evloop_fd_mod(s->loop, &s->out_ev, out);
}

/* Bytes written, 0: not now, -errno: never again. */
static ssize_t write_some(struct stream *s, const uint8_t *data, size_t len)
{
	struct pollfd pfd = { .fd = s->out_fd, .events = POLLOUT };
	ssize_t n;

	if (s->one_by_one) {
		if (poll(&pfd, 1, 0) <= 0 || !(pfd.revents & POLLOUT))
			return 0;
		len = 1;
	}
	do {
		n = s->out_socket ? send(s->out_fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT)
				  : write(s->out_fd, data, len);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
	return n;
}

/* Output is dead: nobody waits for it any more; the owner hears of it from the loop. */
static void output_failed(struct stream *s)
{
	s->out_len = 0;
	s->out_failed = true;
	evloop_post(s->loop, &s->closed_work);
}

static void drain_output(struct stream *s)
{
	while (s->out_len) {
		ssize_t n = write_some(s, s->out + s->out_start, s->out_len);

		if (n < 0) {
			output_failed(s);
			return;
		}
		if (n == 0)
			return;
		s->out_start += n;
		s->out_len -= n;
	}
	s->out_start = 0;
}

static void tell_writable(struct stream *s)
{
	const struct chardev_peer *peer = s->base.peer;

	if (!s->front_waits || s->out_len)
		return;
	s->front_waits = false;
	if (peer && peer->writable)
		peer->writable(peer->opaque);
}

static void on_output(struct stream *s)
{
	drain_output(s);
	tell_writable(s);
	update_events(s);
}

size_t stream_write(struct chardev *c, const uint8_t *data, size_t len)
{
	struct stream *s = container_of(c, struct stream, base);
	size_t taken = 0, room;

	if (s->out_fd < 0)
		return len;
	if (s->out_len)
		drain_output(s);
	while (!s->out_len && taken < len) {
		ssize_t n = write_some(s, data + taken, len - taken);

		if (n < 0) {
			output_failed(s);
			return len;
		}
		if (n == 0)
			break;
		taken += n;
	}
	if (taken < len) {
		memmove(s->out, s->out + s->out_start, s->out_len);
		s->out_start = 0;
		room = MIN(sizeof(s->out) - s->out_len, len - taken);
		memcpy(s->out + s->out_len, data + taken, room);
		s->out_len += room;
		taken += room;
		s->front_waits |= taken < len;
		update_events(s);
	}
	return taken;
}

/* Reads what the front end can take. */
static void on_input(struct stream *s)
{
	const struct chardev_peer *peer = s->base.peer;
	size_t room = peer ? peer->can_receive(peer->opaque) : 0;
	uint8_t buf[CHARDEV_BUFFER];
	ssize_t n;

	if (!room) {
		s->in_paused = true;
		update_events(s);
		return;
	}
	n = read(s->in_fd, buf, MIN(room, sizeof(buf)));
	if (n > 0) {
		peer->receive(peer->opaque, buf, n);
		if (!s->in_polled && s->in_fd >= 0)
			evloop_post(s->loop, &s->in_work);
		return;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	s->closed(s);
}

/* A hang-up is always reported: with input paused it would be so for ever, so that the descriptor
 * leaves the loop until there is room for what it still holds. */
static void on_in_event(void *opaque, uint32_t revents)
{
	struct stream *s = opaque;

	if ((revents & (EPOLLHUP | EPOLLERR)) && s->in_paused) {
		const struct chardev_peer *peer = s->base.peer;

		if (!peer || !peer->can_receive(peer->opaque)) {
			if (s->hup_closes) {
				s->closed(s);
				return;
			}
			evloop_fd_del(s->loop, &s->in_ev);
			s->in_polled = false;
			if (s->in_fd == s->out_fd && (s->out_len || s->front_waits))
				output_failed(s);
			return;
		}
		s->in_paused = false;
	}
	if (s->in_fd == s->out_fd && (revents & EPOLLOUT))
		on_output(s);
	if (s->in_fd >= 0 && (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		on_input(s);
}

static void on_out_event(void *opaque, uint32_t revents)
{
	struct stream *s = opaque;

	if (revents & EPOLLERR) {
		evloop_fd_del(s->loop, &s->out_ev);
		s->out_polled = false;
		output_failed(s);
		return;
	}
	on_output(s);
}

static void on_in_work(void *opaque)
{
	struct stream *s = opaque;

	if (s->in_fd >= 0 && !s->in_paused)
		on_input(s);
}

static void on_closed_work(void *opaque)
{
	struct stream *s = opaque;

	if (s->out_fd >= 0)
		s->closed(s);
}

void stream_accept_input(struct chardev *c)
{
	struct stream *s = container_of(c, struct stream, base);
	const struct chardev_peer *peer = c->peer;

	if (!s->in_paused || s->in_fd < 0 || !peer || !peer->can_receive(peer->opaque))
		return;
	s->in_paused = false;
	if (s->in_polled)
		update_events(s);
	else
		evloop_post(s->loop, &s->in_work);
}

void stream_init(struct stream *s, struct evloop *loop, const struct chardev_ops *ops,
		 void (*closed)(struct stream *s))
{
	s->base.ops = ops;
	s->loop = loop;
	s->in_fd = s->out_fd = -1;
	s->closed = closed;
	ev_work_init(&s->in_work, on_in_work, s);
	ev_work_init(&s->closed_work, on_closed_work, s);
}

int stream_start(struct stream *s, int in_fd, int out_fd)
{
	struct stat st;
	int ret;

	s->in_fd = in_fd;
	s->out_fd = out_fd;
	s->out_socket = out_fd >= 0 && !fstat(out_fd, &st) && S_ISSOCK(st.st_mode);
	s->in_paused = s->out_failed = false;
	s->in_polled = s->out_polled = false;
	if (in_fd >= 0) {
		ret = evloop_fd_add(s->loop, &s->in_ev, in_fd, EPOLLIN, on_in_event, s);
		if (ret < 0 && ret != -EPERM)
			goto fail;
		s->in_polled = ret == 0;
		if (!s->in_polled)
			evloop_post(s->loop, &s->in_work);
	}
	if (out_fd >= 0 && out_fd != in_fd) {
		ret = evloop_fd_add(s->loop, &s->out_ev, out_fd, 0, on_out_event, s);
		if (ret < 0 && ret != -EPERM)
			goto fail;
		s->out_polled = ret == 0;
	}
	return 0;
fail:
	stream_stop(s);
	return ret;
}

void stream_stop_input(struct stream *s)
{
	evloop_unpost(s->loop, &s->in_work);
	if (s->in_polled)
		evloop_fd_del(s->loop, &s->in_ev);
	s->in_polled = false;
	s->in_fd = -1;
}

void stream_stop_output(struct stream *s)
{
	evloop_unpost(s->loop, &s->closed_work);
	if (s->out_polled)
		evloop_fd_del(s->loop, &s->out_ev);
	s->out_polled = false;
	s->out_fd = -1;
	s->out_len = s->out_start = 0;
	s->out_failed = false;
	tell_writable(s);
}

void stream_stop(struct stream *s)
{
	stream_stop_input(s);
	stream_stop_output(s);
}

void stream_set_open(struct stream *s, bool open)
{
	const struct chardev_peer *peer = s->base.peer;

	if (s->base.open == open)
		return;
	s->base.open = open;
	if (peer && peer->event)
		peer->event(peer->opaque, open ? CHARDEV_OPENED : CHARDEV_CLOSED);
}

void stream_flush(struct stream *s)
{
	int64_t end = clock_now(&clock_monotonic) + FLUSH_MS * NSEC_PER_MSEC;
	struct pollfd pfd = { .fd = s->out_fd, .events = POLLOUT };

	while (s->out_fd >= 0 && s->out_len) {
		int64_t left = end - clock_now(&clock_monotonic);

		drain_output(s);
		if (!s->out_len || left <= 0 || poll(&pfd, 1, left / NSEC_PER_MSEC + 1) <= 0)
			return;
	}
}
