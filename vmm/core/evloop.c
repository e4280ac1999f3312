/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop on epoll(7); see evloop.h.
 *
 * Posted work is a lock-free stack that posters push and the owner takes whole and reverses.
 * Timers are a binary heap of pointers. Sleeping is epoll_pwait2 with nanoseconds where the kernel
 * has it. A callback may remove a descriptor whose event was already fetched: evloop_fd_del()
 * strikes it from the batch.
 */
#include "vmm/core/evloop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vmm/core/notifier.h"
#include "vmm/core/util.h"

enum { BATCH = 64 };

/* What one epoll_wait brought; an inner turn's lies on top of the outer one's. */
struct batch {
	struct epoll_event events[BATCH];
	int count;
	struct batch *outer;
};

struct evloop {
	const struct clock *clock;
	int epfd;
	struct event_notifier wake;
	struct ev_work *_Atomic posted; /* newest first */
	struct ev_work *ready;		/* oldest first, taken from posted */
	_Atomic bool stop;
	_Atomic bool sleeping;
	_Atomic bool running; /* some thread is inside run or run_once */
	_Atomic pthread_t owner; /* while running */
	unsigned depth;	      /* nested run_once calls */

	struct ev_timer **heap;
	size_t heap_count, heap_room;

	struct ev_hook *hooks, *hook_next;
	int64_t poll_ns;
	bool no_pwait2;

	struct batch *batch; /* being dispatched, innermost */
};

static int64_t clock_read(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static int64_t monotonic_now(const struct clock *clock)
{
	return clock_read(CLOCK_MONOTONIC);
}

static int64_t realtime_now(const struct clock *clock)
{
	return clock_read(CLOCK_REALTIME);
}

const struct clock clock_monotonic = { monotonic_now };
const struct clock clock_realtime = { realtime_now };

struct evloop *evloop_new(const struct clock *clock, struct error **err)
{
	struct evloop *loop = xcalloc(1, sizeof(*loop));
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
	int r;

	loop->clock = clock ? clock : &clock_monotonic;
	loop->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epfd < 0) {
		error_set_errno(err, errno, "cannot create an event loop");
		goto fail;
	}
	r = event_notifier_init(&loop->wake);
	if (r < 0) {
		error_set_errno(err, r, "cannot create an event loop");
		goto fail_epfd;
	}
	if (epoll_ctl(loop->epfd, EPOLL_CTL_ADD, loop->wake.fd, &ev) < 0) {
		error_set_errno(err, errno, "cannot create an event loop");
		goto fail_wake;
	}
	return loop;
fail_wake:
	event_notifier_destroy(&loop->wake);
fail_epfd:
	close(loop->epfd);
fail:
	free(loop);
	return NULL;
}

void evloop_free(struct evloop *loop)
{
	if (!loop)
		return;
	event_notifier_destroy(&loop->wake);
	close(loop->epfd);
	free(loop->heap);
	free(loop);
}

int64_t evloop_now(const struct evloop *loop)
{
	return clock_now(loop->clock);
}

bool evloop_is_mine(const struct evloop *loop)
{
	return !atomic_load(&loop->running) ||
	       pthread_equal(atomic_load(&loop->owner), pthread_self());
}

void evloop_wake(struct evloop *loop)
{
	event_notifier_set(&loop->wake);
}

void evloop_stop(struct evloop *loop)
{
	atomic_store(&loop->stop, true);
	evloop_wake(loop);
}

/* File descriptors */

int evloop_fd_add(struct evloop *loop, struct ev_fd *ef, int fd, uint32_t events,
		  void (*fn)(void *opaque, uint32_t revents), void *opaque)
{
	struct epoll_event ev = { .events = events, .data.ptr = ef };

	*ef = (struct ev_fd){ .fd = fd, .events = events, .fn = fn, .opaque = opaque };
	if (epoll_ctl(loop->epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	ef->added = true;
	return 0;
}

void evloop_fd_mod(struct evloop *loop, struct ev_fd *ef, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = ef };

	if (!ef->added || ef->events == events)
		return;
	ef->events = events;
	epoll_ctl(loop->epfd, EPOLL_CTL_MOD, ef->fd, &ev);
}

void evloop_fd_del(struct evloop *loop, struct ev_fd *ef)
{
	if (!ef->added)
		return;
	epoll_ctl(loop->epfd, EPOLL_CTL_DEL, ef->fd, NULL);
	ef->added = false;
	for (struct batch *b = loop->batch; b; b = b->outer)
		for (int i = 0; i < b->count; i++)
			if (b->events[i].data.ptr == ef)
				b->events[i].events = 0;
}

/* Timers: heap[0] is due first; a timer's slot is its index plus one. */

void ev_timer_init(struct ev_timer *t, void (*fn)(void *opaque), void *opaque)
{
	*t = (struct ev_timer){ .fn = fn, .opaque = opaque };
}

static void heap_put(struct evloop *loop, size_t i, struct ev_timer *t)
{
	loop->heap[i] = t;
	t->slot = i + 1;
}

static void heap_up(struct evloop *loop, size_t i, struct ev_timer *t)
{
	while (i > 0 && loop->heap[(i - 1) / 2]->deadline > t->deadline) {
		heap_put(loop, i, loop->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(loop, i, t);
}

static void heap_down(struct evloop *loop, size_t i, struct ev_timer *t)
{
	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= loop->heap_count)
			break;
		if (child + 1 < loop->heap_count &&
		    loop->heap[child + 1]->deadline < loop->heap[child]->deadline)
			child++;
		if (loop->heap[child]->deadline >= t->deadline)
			break;
		heap_put(loop, i, loop->heap[child]);
		i = child;
	}
	heap_put(loop, i, t);
}

void evloop_timer_cancel(struct evloop *loop, struct ev_timer *t)
{
	struct ev_timer *last;
	size_t i;

	if (!t->slot)
		return;
	i = t->slot - 1;
	t->slot = 0;
	last = loop->heap[--loop->heap_count];
	if (last == t)
		return;
	if (i > 0 && loop->heap[(i - 1) / 2]->deadline > last->deadline)
		heap_up(loop, i, last);
	else
		heap_down(loop, i, last);
}

void evloop_timer_arm(struct evloop *loop, struct ev_timer *t, int64_t deadline)
{
	evloop_timer_cancel(loop, t);
	t->deadline = deadline;
	if (loop->heap_count == loop->heap_room) {
		loop->heap_room = loop->heap_room ? loop->heap_room * 2 : 16;
		loop->heap = xrealloc(loop->heap, loop->heap_room * sizeof(*loop->heap));
	}
	heap_up(loop, loop->heap_count++, t);
}

static bool run_timers(struct evloop *loop)
{
	bool any = false;
	int64_t now;

	if (!loop->heap_count)
		return false;
	now = evloop_now(loop);
	/* A timer that re-arms itself into the past waits for the next turn. */
	for (size_t left = loop->heap_count; left && loop->heap_count; left--) {
		struct ev_timer *t = loop->heap[0];

		if (t->deadline > now)
			break;
		evloop_timer_cancel(loop, t);
		any = true;
		t->fn(t->opaque);
	}
	return any;
}

/* Posted work */

void ev_work_init(struct ev_work *w, void (*fn)(void *opaque), void *opaque)
{
	w->fn = fn;
	w->opaque = opaque;
	atomic_init(&w->next, NULL);
	atomic_init(&w->queued, false);
}

void evloop_post(struct evloop *loop, struct ev_work *w)
{
	struct ev_work *head;

	if (atomic_exchange(&w->queued, true))
		return;
	head = atomic_load_explicit(&loop->posted, memory_order_relaxed);
	do
		atomic_store_explicit(&w->next, head, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&loop->posted, &head, w));
	/* Pairs with the order in wait(): either it sees the work, or we see it asleep. */
	if (atomic_load(&loop->sleeping))
		evloop_wake(loop);
}

/* Moves what was posted behind what is ready, oldest first. */
static void take_posted(struct evloop *loop)
{
	struct ev_work *w = atomic_exchange(&loop->posted, NULL), *oldest = NULL, *r;

	while (w) {
		struct ev_work *next = atomic_load_explicit(&w->next, memory_order_relaxed);

		atomic_store_explicit(&w->next, oldest, memory_order_relaxed);
		oldest = w;
		w = next;
	}
	if (!loop->ready) {
		loop->ready = oldest;
		return;
	}
	for (r = loop->ready; atomic_load_explicit(&r->next, memory_order_relaxed);)
		r = atomic_load_explicit(&r->next, memory_order_relaxed);
	atomic_store_explicit(&r->next, oldest, memory_order_relaxed);
}

void evloop_unpost(struct evloop *loop, struct ev_work *w)
{
	struct ev_work *r, *prev = NULL;

	if (!atomic_load(&w->queued))
		return;
	take_posted(loop);
	for (r = loop->ready; r && r != w;) {
		prev = r;
		r = atomic_load_explicit(&r->next, memory_order_relaxed);
	}
	if (!r)
		return;
	r = atomic_load_explicit(&w->next, memory_order_relaxed);
	if (prev)
		atomic_store_explicit(&prev->next, r, memory_order_relaxed);
	else
		loop->ready = r;
	atomic_store(&w->queued, false);
}

static bool run_posted(struct evloop *loop)
{
	struct ev_work *w, *last;

	/* What is posted meanwhile waits for the next turn, so that no poster starves the rest. */
	take_posted(loop);
	last = loop->ready;
	if (!last)
		return false;
	while ((w = atomic_load_explicit(&last->next, memory_order_relaxed)))
		last = w;
	do {
		w = loop->ready;
		loop->ready = atomic_load_explicit(&w->next, memory_order_relaxed);
		atomic_store(&w->queued, false);
		w->fn(w->opaque);
	} while (w != last && loop->ready);
	return true;
}

struct call {
	struct ev_work work;
	void (*fn)(void *opaque);
	void *opaque;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
};

static void run_call(void *opaque)
{
	struct call *c = opaque;

	c->fn(c->opaque);
	pthread_mutex_lock(&c->lock);
	c->done = true;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

void evloop_call(struct evloop *loop, void (*fn)(void *opaque), void *opaque)
{
	struct call c = {
		.fn = fn,
		.opaque = opaque,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.cond = PTHREAD_COND_INITIALIZER,
	};

	if (evloop_is_mine(loop)) {
		fn(opaque);
		return;
	}
	ev_work_init(&c.work, run_call, &c);
	evloop_post(loop, &c.work);
	pthread_mutex_lock(&c.lock);
	while (!c.done)
		pthread_cond_wait(&c.cond, &c.lock);
	pthread_mutex_unlock(&c.lock);
	pthread_mutex_destroy(&c.lock);
	pthread_cond_destroy(&c.cond);
}

/* Hooks */

void evloop_hook_add(struct evloop *loop, struct ev_hook *hook)
{
	hook->next = loop->hooks;
	hook->pprev = &loop->hooks;
	if (hook->next)
		hook->next->pprev = &hook->next;
	loop->hooks = hook;
}

void evloop_hook_del(struct evloop *loop, struct ev_hook *hook)
{
	if (!hook->pprev)
		return;
	if (loop->hook_next == hook)
		loop->hook_next = hook->next;
	*hook->pprev = hook->next;
	if (hook->next)
		hook->next->pprev = hook->pprev;
	hook->next = NULL;
	hook->pprev = NULL;
}

static bool call_poll_ends(struct evloop *loop)
{
	bool any = false;

	for (struct ev_hook *h = loop->hooks; h; h = loop->hook_next) {
		loop->hook_next = h->next;
		if (h->poll_end && h->poll_end(h->opaque))
			any = true;
	}
	return any;
}

void evloop_set_poll_ns(struct evloop *loop, int64_t ns)
{
	bool ended = loop->poll_ns && !ns;

	/* Each turn polls anew, so no more is ever needed. */
	loop->poll_ns = MAX(0, MIN(ns, NSEC_PER_SEC));
	if (ended)
		call_poll_ends(loop);
}

static void call_before_sleep(struct evloop *loop)
{
	for (struct ev_hook *h = loop->hooks; h; h = loop->hook_next) {
		loop->hook_next = h->next;
		if (h->before_sleep)
			h->before_sleep(h->opaque);
	}
}

static bool call_polls(struct evloop *loop)
{
	bool any = false;

	for (struct ev_hook *h = loop->hooks; h; h = loop->hook_next) {
		loop->hook_next = h->next;
		if (h->poll && h->poll(h->opaque))
			any = true;
	}
	return any;
}

/* Polls up to poll_ns, or until something is found or due. */
static bool poll_phase(struct evloop *loop, int64_t timeout_ns)
{
	int64_t end = clock_read(CLOCK_MONOTONIC) + MIN((uint64_t)loop->poll_ns, (uint64_t)timeout_ns);

	do {
		if (call_polls(loop))
			return true;
		if (atomic_load_explicit(&loop->posted, memory_order_relaxed) ||
		    atomic_load_explicit(&loop->stop, memory_order_relaxed))
			break;
	} while (clock_read(CLOCK_MONOTONIC) < end);
	return call_poll_ends(loop);
}

static int64_t until_next(struct evloop *loop, int64_t timeout_ns)
{
	int64_t left;

	if (!loop->heap_count)
		return timeout_ns;
	left = loop->heap[0]->deadline - evloop_now(loop);
	if (left < 0)
		left = 0;
	/* A fake clock moves only when told: do not sleep for its time. */
	if (loop->clock != &clock_monotonic && left > 0)
		return timeout_ns;
	return timeout_ns < 0 ? left : MIN(left, timeout_ns);
}

static int wait(struct evloop *loop, struct epoll_event *events, int64_t timeout_ns)
{
	int n;

	if (timeout_ns != 0) {
		atomic_store(&loop->sleeping, true);
		if (atomic_load(&loop->posted) || atomic_load(&loop->stop))
			timeout_ns = 0;
	}
	if (timeout_ns > 0 && !loop->no_pwait2) {
		struct timespec ts = { timeout_ns / NSEC_PER_SEC, timeout_ns % NSEC_PER_SEC };

		n = syscall(SYS_epoll_pwait2, loop->epfd, events, BATCH, &ts, NULL, 0);
		if (n < 0 && errno == ENOSYS)
			loop->no_pwait2 = true;
	} else {
		n = 0;
	}
	if (timeout_ns <= 0 || loop->no_pwait2) {
		/* Rounded up: waking early would only mean another turn. */
		int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;

		n = epoll_wait(loop->epfd, events, BATCH, MIN(ms, INT64_C(0x7fffffff)));
	}
	atomic_store(&loop->sleeping, false);
	return MAX(n, 0);
}

/* One turn. Callbacks may turn the loop themselves (block_pread() in set-up code). */
static bool turn(struct evloop *loop, int64_t timeout_ns)
{
	struct batch batch;
	bool any;

	any = run_posted(loop);
	any |= run_timers(loop);
	call_before_sleep(loop);
	if (any || loop->ready || atomic_load(&loop->posted))
		timeout_ns = 0;
	timeout_ns = until_next(loop, timeout_ns);
	if (loop->poll_ns && timeout_ns != 0 && poll_phase(loop, timeout_ns)) {
		any = true;
		timeout_ns = 0;
	}
	batch.count = wait(loop, batch.events, timeout_ns);
	batch.outer = loop->batch;
	loop->batch = &batch;
	for (int i = 0; i < batch.count; i++) {
		struct ev_fd *ef = batch.events[i].data.ptr;

		if (!ef) {
			event_notifier_test_and_clear(&loop->wake);
		} else if (batch.events[i].events) {
			any = true;
			ef->fn(ef->opaque, batch.events[i].events);
		}
	}
	loop->batch = batch.outer;
	any |= run_timers(loop);
	any |= run_posted(loop);
	if (any)
		call_before_sleep(loop);
	return any;
}

static void enter(struct evloop *loop)
{
	if (loop->depth++ == 0) {
		atomic_store(&loop->owner, pthread_self());
		atomic_store(&loop->running, true);
	}
}

static void leave(struct evloop *loop)
{
	if (--loop->depth == 0)
		atomic_store(&loop->running, false);
}

bool evloop_run_once(struct evloop *loop, int64_t timeout_ns)
{
	bool any;

	enter(loop);
	any = turn(loop, timeout_ns);
	leave(loop);
	return any;
}

void evloop_run(struct evloop *loop)
{
	enter(loop);
	while (!atomic_exchange(&loop->stop, false))
		turn(loop, -1);
	leave(loop);
}
