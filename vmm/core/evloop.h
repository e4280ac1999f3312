/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop: file descriptors, timers, deferred work, and hooks around sleeping.
 *
 * A loop is run by one thread at a time, its owner; everything registered with it is called on
 * that thread. Only evloop_post(), evloop_stop(), evloop_wake() and evloop_now() may be called from
 * others.
 * Registered objects are embedded in their users, which must outlive the registration; the loop
 * never allocates for them. A callback may add, change or remove anything, itself included.
 *
 * Times are nanoseconds of the loop's clock (CLOCK_MONOTONIC unless a fake is given).
 */
#ifndef VMM_CORE_EVLOOP_H
#define VMM_CORE_EVLOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/error.h"

struct evloop;

/* A source of time; the fake one in tests moves only when told. */
struct clock {
	int64_t (*now)(const struct clock *clock); /* ns */
};
extern const struct clock clock_monotonic; /* CLOCK_MONOTONIC */
extern const struct clock clock_realtime;  /* CLOCK_REALTIME, since the epoch */

static inline int64_t clock_now(const struct clock *clock)
{
	return clock->now(clock);
}

/* clock NULL: clock_monotonic. Fails only when the host has no file descriptors left. */
struct evloop *evloop_new(const struct clock *clock, struct error **err);
/* Nothing may be registered any more. NULL is allowed. */
void evloop_free(struct evloop *loop);

/* Runs until evloop_stop(); a stop that came earlier counts. */
void evloop_run(struct evloop *loop);
/* One turn: waits at most timeout_ns (-1: as long as it takes, 0: not at all), dispatches what is
 * ready, returns whether anything was. Used by tools and tests, and by set-up code that must wait. */
bool evloop_run_once(struct evloop *loop, int64_t timeout_ns);
void evloop_stop(struct evloop *loop);
void evloop_wake(struct evloop *loop);
int64_t evloop_now(const struct evloop *loop); /* any thread */
/* Whether the calling thread is the one that runs the loop now (or nobody does). */
bool evloop_is_mine(const struct evloop *loop);

/* A file descriptor. events and revents are EPOLLIN, EPOLLOUT, ...; level-triggered. */
struct ev_fd {
	int fd;
	uint32_t events;
	void (*fn)(void *opaque, uint32_t revents);
	void *opaque;
	bool added; /* the loop's own */
};
/* 0 or -errno (EPERM for regular files, ENOSPC at the host's limit). */
int evloop_fd_add(struct evloop *loop, struct ev_fd *ef, int fd, uint32_t events,
		  void (*fn)(void *opaque, uint32_t revents), void *opaque);
/* events 0 keeps it registered but silent (errors and hang-ups excepted). */
void evloop_fd_mod(struct evloop *loop, struct ev_fd *ef, uint32_t events);
/* Harmless if it is not registered. Does not close the descriptor. */
void evloop_fd_del(struct evloop *loop, struct ev_fd *ef);

/* A one-shot timer; re-arm in the callback for a periodic one. */
struct ev_timer {
	void (*fn)(void *opaque);
	void *opaque;
	int64_t deadline; /* ns of the loop's clock */
	uint32_t slot;	  /* the loop's own: heap index + 1, 0 when idle */
};
void ev_timer_init(struct ev_timer *t, void (*fn)(void *opaque), void *opaque);
void evloop_timer_arm(struct evloop *loop, struct ev_timer *t, int64_t deadline);
void evloop_timer_cancel(struct evloop *loop, struct ev_timer *t);
static inline bool ev_timer_armed(const struct ev_timer *t)
{
	return t->slot != 0;
}

/*
 * Work to be done later on the loop's thread. Posting is lock-free, from any thread, and counts
 * once until it has begun to run; a post during its own run runs it once more. Memory written
 * before the post is visible to fn.
 */
struct ev_work {
	void (*fn)(void *opaque);
	void *opaque;
	struct ev_work *_Atomic next;
	_Atomic bool queued;
};
void ev_work_init(struct ev_work *w, void (*fn)(void *opaque), void *opaque);
void evloop_post(struct evloop *loop, struct ev_work *w);
/* On the loop's thread: takes back a post that has not begun. */
void evloop_unpost(struct evloop *loop, struct ev_work *w);
/* From another thread: runs fn on the loop's thread and waits for its end. From the loop's own
 * thread, or if nobody runs the loop: calls it directly. */
void evloop_call(struct evloop *loop, void (*fn)(void *opaque), void *opaque);

/*
 * Hooks around sleeping. before_sleep is called once a turn, after all callbacks and just before
 * the loop would wait: the place to submit what was batched. poll, if not NULL, is called in turn
 * with the waiting, up to the loop's polling time, and returns whether it found work. poll_end is
 * called when polling is over and the loop will wait: whoever silenced a source because it was being
 * polled lets it speak again, and returns whether work came meanwhile.
 */
struct ev_hook {
	void (*before_sleep)(void *opaque);
	bool (*poll)(void *opaque);
	bool (*poll_end)(void *opaque);
	void *opaque;
	struct ev_hook *next, **pprev; /* the loop's own */
};
void evloop_hook_add(struct evloop *loop, struct ev_hook *hook);
void evloop_hook_del(struct evloop *loop, struct ev_hook *hook);
/* How long to poll before sleeping, at most; 0 (the default) never polls. On the loop's thread. */
void evloop_set_poll_ns(struct evloop *loop, int64_t ns);

#endif
