/* SPDX-License-Identifier: Apache-2.0 */
/* Event loop: order of work, timers under a fake clock, removal from inside, posts from threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "vmm/core/evloop.h"
#include "vmm/core/notifier.h"
#include "vmm/core/thread.h"
#include "vmm/core/util.h"

struct fake_clock {
	struct clock clock;
	int64_t now;
};

static int64_t fake_now(const struct clock *clock)
{
	return container_of(clock, struct fake_clock, clock)->now;
}

static char trace[64];

static void note(void *opaque)
{
	size_t n = strlen(trace);

	trace[n] = *(const char *)opaque;
	trace[n + 1] = '\0';
}

static void test_timers_fire_in_order_of_deadline(void **state)
{
	struct fake_clock clock = { { fake_now }, 1000 };
	struct evloop *loop = evloop_new(&clock.clock, NULL);
	struct ev_timer a, b, c, d;

	trace[0] = '\0';
	ev_timer_init(&a, note, "a");
	ev_timer_init(&b, note, "b");
	ev_timer_init(&c, note, "c");
	ev_timer_init(&d, note, "d");
	evloop_timer_arm(loop, &c, 3000);
	evloop_timer_arm(loop, &a, 1001);
	evloop_timer_arm(loop, &d, 2500);
	evloop_timer_arm(loop, &b, 2000);
	evloop_run_once(loop, 0);
	assert_string_equal(trace, "");
	evloop_timer_cancel(loop, &d);
	assert_false(ev_timer_armed(&d));
	clock.now = 2000;
	evloop_run_once(loop, 0);
	assert_string_equal(trace, "ab");
	assert_true(ev_timer_armed(&c));
	evloop_timer_arm(loop, &c, 9000);
	clock.now = 8999;
	evloop_run_once(loop, 0);
	assert_string_equal(trace, "ab");
	clock.now = 9000;
	evloop_run_once(loop, 0);
	assert_string_equal(trace, "abc");
	evloop_free(loop);
}

static void test_many_timers_keep_the_heap(void **state)
{
	struct fake_clock clock = { { fake_now }, 0 };
	struct evloop *loop = evloop_new(&clock.clock, NULL);
	struct ev_timer t[200];
	unsigned seed = 1, live = 0;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		ev_timer_init(&t[i], note, "x");
		seed = seed * 1103515245 + 12345;
		evloop_timer_arm(loop, &t[i], 1 + seed % 1000);
	}
	for (size_t i = 0; i < ARRAY_SIZE(t); i += 3)
		evloop_timer_cancel(loop, &t[i]);
	for (clock.now = 1; clock.now <= 1000; clock.now++) {
		trace[0] = '\0';
		while (evloop_run_once(loop, 0))
			trace[0] = '\0';
		for (size_t i = live = 0; i < ARRAY_SIZE(t); i++) {
			if (ev_timer_armed(&t[i])) {
				assert_true(t[i].deadline > clock.now);
				live++;
			}
		}
	}
	assert_int_equal(live, 0);
	evloop_free(loop);
}

static void test_posts_run_once_in_order(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct ev_work a, b, c;

	trace[0] = '\0';
	ev_work_init(&a, note, "a");
	ev_work_init(&b, note, "b");
	ev_work_init(&c, note, "c");
	evloop_post(loop, &a);
	evloop_post(loop, &b);
	evloop_post(loop, &a);
	evloop_post(loop, &c);
	evloop_unpost(loop, &b);
	evloop_run_once(loop, 0);
	assert_string_equal(trace, "ac");
	evloop_post(loop, &b);
	evloop_run_once(loop, 0);
	assert_string_equal(trace, "acb");
	evloop_free(loop);
}

struct pair {
	struct evloop *loop;
	struct ev_fd a, b;
	int seen;
};

static void remove_both(void *opaque, uint32_t revents)
{
	struct pair *p = opaque;

	p->seen++;
	evloop_fd_del(p->loop, &p->a);
	evloop_fd_del(p->loop, &p->b);
}

static void test_a_removed_descriptor_is_silent_at_once(void **state)
{
	struct pair p = { .loop = evloop_new(NULL, NULL) };
	struct event_notifier x, y;

	assert_int_equal(event_notifier_init(&x), 0);
	assert_int_equal(event_notifier_init(&y), 0);
	assert_int_equal(evloop_fd_add(p.loop, &p.a, x.fd, EPOLLIN, remove_both, &p), 0);
	assert_int_equal(evloop_fd_add(p.loop, &p.b, y.fd, EPOLLIN, remove_both, &p), 0);
	event_notifier_set(&x);
	event_notifier_set(&y);
	assert_true(evloop_run_once(p.loop, 0));
	assert_int_equal(p.seen, 1);
	assert_false(evloop_run_once(p.loop, 0));
	event_notifier_destroy(&x);
	event_notifier_destroy(&y);
	evloop_free(p.loop);
}

enum { POSTERS = 2, POSTS = 20000 };
struct counter {
	struct iothread *t;
	struct ev_work work;
	_Atomic int wanted;
	int served;
};

static void serve(void *opaque)
{
	struct counter *c = opaque;

	c->served += atomic_exchange(&c->wanted, 0);
}

static void *poster(void *opaque)
{
	struct counter *c = opaque;

	for (int i = 0; i < POSTS; i++) {
		atomic_fetch_add(&c->wanted, 1);
		evloop_post(c->t->loop, &c->work);
	}
	return NULL;
}

static void test_no_post_from_a_thread_is_lost(void **state)
{
	struct counter c = { .t = iothread_new("t", NULL) };
	pthread_t threads[POSTERS];

	ev_work_init(&c.work, serve, &c);
	for (int i = 0; i < POSTERS; i++)
		pthread_create(&threads[i], NULL, poster, &c);
	for (int i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	evloop_call(c.t->loop, serve, &c);
	assert_int_equal(c.served, POSTERS * POSTS);
	iothread_free(c.t);
}

static int slept;

static void before_sleep(void *opaque)
{
	slept++;
}

static bool poll_work(void *opaque)
{
	return ++*(int *)opaque == 3;
}

static void test_hooks(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	int polls = 0;
	struct ev_hook hook = { .before_sleep = before_sleep, .poll = poll_work, .opaque = &polls };

	slept = 0;
	evloop_hook_add(loop, &hook);
	evloop_run_once(loop, 0);
	assert_int_equal(slept, 1);
	assert_int_equal(polls, 0);
	evloop_set_poll_ns(loop, NSEC_PER_SEC);
	assert_true(evloop_run_once(loop, -1));
	assert_int_equal(polls, 3);
	evloop_hook_del(loop, &hook);
	evloop_set_poll_ns(loop, 0);
	evloop_run_once(loop, 0);
	assert_int_equal(polls, 3);
	evloop_free(loop);
}

static void test_stop_before_run_counts(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);

	evloop_stop(loop);
	evloop_run(loop);
	evloop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timers_fire_in_order_of_deadline),
		cmocka_unit_test(test_many_timers_keep_the_heap),
		cmocka_unit_test(test_posts_run_once_in_order),
		cmocka_unit_test(test_a_removed_descriptor_is_silent_at_once),
		cmocka_unit_test(test_no_post_from_a_thread_is_lost),
		cmocka_unit_test(test_hooks),
		cmocka_unit_test(test_stop_before_run_counts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
