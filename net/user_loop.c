/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libslirp on our event loop; see user.h.
 *
 * libslirp knows poll(2): before sleeping it names all it waits for, afterwards it asks what came.
 * Here it is asked only if something happened to it since (a packet, an event, a timer), and what
 * it names is compared with what the loop watches already, so that a turn in which nothing changes
 * costs no system call. What came is collected from the loop's callbacks and told at once, at the
 * turn's end.
 */
#include "config.h"

#ifdef CONFIG_SLIRP
#include <stdlib.h>
#include <sys/epoll.h>

#include "net/user.h"
#include "vmm/core/util.h"

enum { IDLE_MS = 1000 }; /* what libslirp answers when it waits for no time */

/* Descriptors */

static uint32_t to_epoll(int events)
{
	return (events & SLIRP_POLL_IN ? EPOLLIN : 0) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
	       (events & SLIRP_POLL_PRI ? EPOLLPRI : 0);
}

static int from_epoll(uint32_t events)
{
	return (events & EPOLLIN ? SLIRP_POLL_IN : 0) | (events & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
	       (events & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (events & EPOLLERR ? SLIRP_POLL_ERR : 0) |
	       (events & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static struct user_fd *fd_entry(struct user *u, int fd)
{
	if (fd >= u->fd_room) {
		int room = MAX(fd + 1, u->fd_room * 2);

		u->fds = xrealloc(u->fds, room * sizeof(*u->fds));
		while (u->fd_room < room)
			u->fds[u->fd_room++] = NULL;
	}
	if (!u->fds[fd]) {
		u->fds[fd] = xcalloc(1, sizeof(**u->fds));
		u->fds[fd]->user = u;
	}
	return u->fds[fd];
}

static void on_fd(void *opaque, uint32_t revents)
{
	struct user_fd *f = opaque;

	f->revents |= revents;
	f->user->due = true;
}

/* The descriptor is new, or about to be closed: nothing that is known of its number holds. */
static void forget_fd(int fd, void *opaque)
{
	struct user *u = opaque;

	if (fd < 0 || fd >= u->fd_room || !u->fds[fd])
		return;
	if (u->loop)
		evloop_fd_del(u->loop, &u->fds[fd]->ev);
	u->fds[fd]->revents = 0;
	u->fds[fd]->wanted = 0;
	u->changed = true;
}

static int add_poll(int fd, int events, void *opaque)
{
	struct user *u = opaque;
	struct user_fd *f = fd_entry(u, fd);

	f->wanted = to_epoll(events);
	f->generation = u->generation;
	if (f->ev.added) {
		evloop_fd_mod(u->loop, &f->ev, f->wanted);
		return fd;
	}
	if (evloop_fd_add(u->loop, &f->ev, fd, f->wanted, on_fd, f) < 0)
		return fd; /* the host's limit: libslirp's own time-outs end the connection */
	if (f->listed)
		return fd;
	f->listed = true;
	if (u->watched_count == u->watched_room) {
		u->watched_room = MAX(16, u->watched_room * 2);
		u->watched = xrealloc(u->watched, u->watched_room * sizeof(*u->watched));
	}
	u->watched[u->watched_count++] = fd;
	return fd;
}

/* Numbers that libslirp named no more leave the loop: errors and hang-ups would go on waking it. */
static void drop_unwanted(struct user *u)
{
	int kept = 0;

	for (int i = 0; i < u->watched_count; i++) {
		int fd = u->watched[i];
		struct user_fd *f = u->fds[fd];

		if (f->ev.added && f->generation == u->generation) {
			u->watched[kept++] = fd;
			continue;
		}
		evloop_fd_del(u->loop, &f->ev);
		f->revents = 0;
		f->listed = false;
	}
	u->watched_count = kept;
}

static int get_revents(int index, void *opaque)
{
	struct user *u = opaque;
	struct user_fd *f = u->fds[index];
	int events = from_epoll(f->revents & (f->wanted | EPOLLERR | EPOLLHUP));

	f->revents = 0;
	return events;
}

/* Turns */

static void on_timer(void *opaque)
{
	struct user *u = opaque;

	u->due = true;
}

static void ask(struct user *u)
{
	uint32_t timeout = UINT32_MAX;

	u->changed = false;
	u->generation++;
	slirp_pollfds_fill(u->slirp, &timeout, add_poll, u);
	drop_unwanted(u);
	if (timeout < IDLE_MS)
		evloop_timer_arm(u->loop, &u->timer, evloop_now(u->loop) + timeout * NSEC_PER_MSEC);
	else
		evloop_timer_cancel(u->loop, &u->timer);
}

void user_tick(struct user *u)
{
	int64_t now = evloop_now(u->loop ? u->loop : u->context->loop) / NSEC_PER_MSEC;

	if (now == u->now_ms)
		return;
	u->now_ms = now;
	slirp_pollfds_poll(u->slirp, 1, get_revents, u); /* time alone */
}

static void before_sleep(void *opaque)
{
	struct user *u = opaque;

	if (u->due) {
		u->due = false;
		u->changed = true;
		u->now_ms = evloop_now(u->loop) / NSEC_PER_MSEC;
		slirp_pollfds_poll(u->slirp, 0, get_revents, u);
	}
	if (u->can_take) {
		u->can_take = false;
		user_forwards_accept(u);
	}
	user_flush(u);
	if (u->changed)
		ask(u);
}

/* Timers that libslirp sets itself */

static void on_own_timer(void *opaque)
{
	struct user_timer *t = opaque;
	struct user *u = t->user;

	t->deadline = 0;
	user_tick(u);
	slirp_handle_timer(u->slirp, t->id, t->opaque);
	user_flush(u);
	u->changed = true;
}

static void *timer_new(SlirpTimerId id, void *timer_opaque, void *opaque)
{
	struct user *u = opaque;
	struct user_timer *t = xcalloc(1, sizeof(*t));

	*t = (struct user_timer){.user = u, .id = id, .opaque = timer_opaque, .next = u->timers};
	ev_timer_init(&t->ev, on_own_timer, t);
	u->timers = t;
	return t;
}

static void timer_free(void *timer, void *opaque)
{
	struct user *u = opaque;
	struct user_timer **p = &u->timers, *t = timer;

	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	if (u->loop)
		evloop_timer_cancel(u->loop, &t->ev);
	free(t);
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct user *u = opaque;
	struct user_timer *t = timer;

	t->deadline = expire_ms * NSEC_PER_MSEC;
	if (u->loop)
		evloop_timer_arm(u->loop, &t->ev, t->deadline);
}

/* Other callbacks */

static ssize_t send_packet(const void *buf, size_t len, void *opaque)
{
	user_to_guest(opaque, buf, len);
	return len;
}

static void guest_error(const char *msg, void *opaque)
{
	struct user *u = opaque;

	log_guest_error(&u->guest_errors, "netdev %s: %s", u->nd.id, msg);
}

static int64_t clock_get_ns(void *opaque)
{
	struct user *u = opaque;

	return evloop_now(u->context->loop);
}

static void notify(void *opaque)
{
	struct user *u = opaque;

	u->changed = true;
	u->can_take = true;
}

const SlirpCb user_callbacks = {
	.send_packet = send_packet,
	.guest_error = guest_error,
	.clock_get_ns = clock_get_ns,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = forget_fd,
	.unregister_poll_fd = forget_fd,
	.notify = notify,
	.timer_new_opaque = timer_new,
};

void user_call(struct user *u, void (*fn)(void *opaque), void *opaque)
{
	if (u->loop)
		evloop_call(u->loop, fn, opaque);
	else
		fn(opaque);
}

void user_loop_attach(struct user *u, struct evloop *loop)
{
	u->loop = loop;
	u->hook = (struct ev_hook){.before_sleep = before_sleep, .opaque = u};
	evloop_hook_add(loop, &u->hook);
	ev_timer_init(&u->timer, on_timer, u);
	for (struct user_timer *t = u->timers; t; t = t->next)
		if (t->deadline)
			evloop_timer_arm(loop, &t->ev, t->deadline);
	u->due = true;
	evloop_wake(loop);
}

void user_loop_detach(struct user *u)
{
	for (struct user_timer *t = u->timers; t; t = t->next)
		evloop_timer_cancel(u->loop, &t->ev);
	evloop_timer_cancel(u->loop, &u->timer);
	u->generation++;
	drop_unwanted(u);
	evloop_hook_del(u->loop, &u->hook);
	u->loop = NULL;
}

void user_loop_destroy(struct user *u)
{
	for (int i = 0; i < u->fd_room; i++)
		free(u->fds[i]);
	free(u->fds);
	free(u->watched);
}
#endif
