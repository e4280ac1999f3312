/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Throttling under a fake clock: when exactly each request starts, bursts, groups of disks on
 * different loops, draining; which limits are refused; and two threads in one group.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/throttle.h"
#include "tests/lib/block_memdisk.h"
#include "vmm/core/thread.h"

#define DISKS 2
#define MSEC  NSEC_PER_MSEC

struct fake_clock {
	struct clock clock;
	int64_t now;
};

struct sent {
	struct bench *bench;
	int disk, ret;
	struct iovec iov;
	struct block_req *req;
};

/* Two disks, each on a loop of its own. */
struct bench {
	struct fake_clock clock;
	struct throttle_groups *groups;
	struct evloop *loops[DISKS];
	struct memdisk *disks[DISKS];
	struct block_node *nodes[DISKS];
	struct sent sent[1024];
	unsigned sent_count;
	/* In the order of completion. */
	unsigned done_count;
	int64_t when[1024]; /* ms */
	int who[1024];
	uint8_t buf[64 * 1024];
};

static int64_t fake_now(const struct clock *clock)
{
	return container_of(clock, struct fake_clock, clock)->now;
}

static struct block_node *find_file(void *opaque, const char *name)
{
	return ((struct memdisk *)opaque)->node;
}

static struct block_node *open_throttle(struct bench *b, int i)
{
	struct block_names names = {find_file, b->disks[i], b->groups};
	struct block_open how = {.flags = BLOCK_OPEN_RDWR | BLOCK_OPEN_BLOCKDEV | BLOCK_OPEN_UNMAP,
				 .names = &names,
				 .loop = b->loops[i],
				 .home = b->loops[i]};
	struct opts opts;
	struct error *err = NULL;
	struct block_node *node;

	assert_true(opts_parse(&opts, "throttle,throttle-group=g,file=f", "driver", NULL));
	node = block_open_node(&how, &opts, &err);
	if (!node)
		fail_msg("%s", error_message(err));
	assert_true(opts_check_used(&opts, NULL, 0, NULL));
	opts_free(&opts);
	return node;
}

static int setup(void **state)
{
	struct bench *b = xcalloc(1, sizeof(*b));

	b->clock = (struct fake_clock){{fake_now}, 1000 * MSEC};
	b->groups = throttle_groups_new();
	for (int i = 0; i < DISKS; i++) {
		b->loops[i] = evloop_new(&b->clock.clock, NULL);
		b->disks[i] = memdisk_new(b->loops[i], NULL, MiB, MiB);
	}
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	for (int i = 0; i < DISKS; i++) {
		block_unref(b->nodes[i]);
		memdisk_free(b->disks[i]);
		evloop_free(b->loops[i]);
	}
	for (unsigned i = 0; i < b->sent_count; i++)
		free(b->sent[i].req);
	throttle_groups_free(b->groups);
	free(b);
	return 0;
}

/* The bench, both of its disks under the group's limits. */
static struct bench *limited(void **state, const char *limits)
{
	struct bench *b = *state;
	struct error *err = NULL;
	struct opts opts;

	assert_true(opts_parse(&opts, limits, NULL, NULL));
	if (!throttle_groups_add(b->groups, "g", &opts, &err))
		fail_msg("%s", error_message(err));
	opts_free(&opts);
	for (int i = 0; i < DISKS; i++)
		b->nodes[i] = open_throttle(b, i);
	return b;
}

static void seen(struct block_req *req, int ret)
{
	struct sent *s = req->ctx;
	struct bench *b = s->bench;

	s->ret = ret;
	b->who[b->done_count] = s->disk;
	b->when[b->done_count++] = b->clock.now / MSEC - 1000;
}

static void send_ops(struct bench *b, int disk, enum block_op op, size_t bytes, unsigned n)
{
	while (n--) {
		struct sent *s = &b->sent[b->sent_count++];

		*s = (struct sent){b, disk, 1, {b->buf, bytes}, NULL};
		s->req = xmalloc(block_req_size(b->nodes[disk]));
		s->req->node = b->nodes[disk];
		s->req->op = op;
		s->req->flags = 0;
		s->req->offset = 0;
		s->req->bytes = bytes;
		s->req->iov = &s->iov;
		s->req->iovcnt = 1;
		s->req->done = seen;
		s->req->ctx = s;
		block_submit(s->req);
	}
}

/* All that happens without time going on. */
static void settle(struct bench *b)
{
	for (int idle = 0; idle < 3; idle++)
		for (int i = 0; i < DISKS; i++)
			if (evloop_run_once(b->loops[i], 0))
				idle = 0;
}

/* ms on, one at a time. */
static void pass(struct bench *b, int ms)
{
	settle(b);
	while (ms--) {
		b->clock.now += MSEC;
		settle(b);
	}
}

static void expect_times(struct bench *b, const int64_t *when, unsigned n)
{
	assert_int_equal(b->done_count, n);
	for (unsigned i = 0; i < n; i++)
		if (b->when[i] != when[i])
			fail_msg("request %u after %d ms, not %d", i, (int)b->when[i],
				 (int)when[i]);
}

static void test_iops(void **state)
{
	static const int64_t when[] = {0, 0, 100, 200, 300, 400};
	struct bench *b = limited(state, "limits.iops-total=10");

	send_ops(b, 0, BLOCK_READ, 512, 6);
	pass(b, 399);
	assert_int_equal(b->done_count, 5);
	pass(b, 1);
	expect_times(b, when, 6);
	assert_int_equal(b->disks[0]->reads, 6);
	/* An idle time saves up no more than the bucket. */
	pass(b, 5000);
	send_ops(b, 0, BLOCK_READ, 512, 3);
	pass(b, 99);
	assert_int_equal(b->done_count, 8);
	pass(b, 1);
	assert_int_equal(b->done_count, 9);
}

static void test_to_the_nanosecond(void **state)
{
	struct bench *b = limited(state, "x-iops-total=3");

	/* The bucket holds 0.3; after one request 0.7 have to leak, a third of a second each. */
	send_ops(b, 0, BLOCK_READ, 512, 2);
	settle(b);
	assert_int_equal(b->done_count, 1);
	b->clock.now += 233333333;
	settle(b);
	assert_int_equal(b->done_count, 1);
	b->clock.now += 1;
	settle(b);
	assert_int_equal(b->done_count, 2);
}

static void test_bps_directions(void **state)
{
	/* 4096 a request, 40960 a second: the bucket is one request. Reads are free. */
	static const int64_t when[] = {0, 0, 0, 0, 0, 100, 200};
	struct bench *b = limited(state, "limits.bps-write=40960");

	send_ops(b, 0, BLOCK_WRITE, 4096, 4);
	send_ops(b, 0, BLOCK_READ, 65536, 3);
	pass(b, 200);
	expect_times(b, when, 7);
	/* A flush waits for nothing. */
	send_ops(b, 0, BLOCK_WRITE, 4096, 3);
	send_ops(b, 0, BLOCK_FLUSH, 0, 1);
	pass(b, 0);
	assert_int_equal(b->disks[0]->flushes, 1);
	pass(b, 1000);
	assert_int_equal(b->disks[0]->writes, 7);
}

static void test_large_request(void **state)
{
	/* 64 KiB at 64 KiB a second go at once; what comes next waits until 0.1 s are left. */
	static const int64_t when[] = {0, 900};
	struct bench *b = limited(state, "limits.bps-total=65536");

	send_ops(b, 0, BLOCK_WRITE, 65536, 1);
	send_ops(b, 0, BLOCK_READ, 512, 1);
	pass(b, 1000);
	expect_times(b, when, 2);
}

static void test_zeroes_and_discards(void **state)
{
	static const int64_t when[] = {0, 900, 1900};
	struct bench *b = limited(state, "limits.bps-total=65536");

	send_ops(b, 0, BLOCK_WRITE_ZEROES, 65536, 1);
	send_ops(b, 0, BLOCK_DISCARD, 65536, 1);
	send_ops(b, 0, BLOCK_WRITE, 512, 1);
	pass(b, 2000);
	expect_times(b, when, 3);
}

static void test_burst(void **state)
{
	struct bench *b = limited(state, "limits.iops-total=10,limits.iops-total-max=50");

	send_ops(b, 0, BLOCK_READ, 512, 60);
	settle(b);
	assert_int_equal(b->done_count, 51);
	pass(b, 899);
	assert_int_equal(b->done_count, 59);
	pass(b, 1);
	assert_int_equal(b->done_count, 60);
}

static void test_long_burst(void **state)
{
	struct bench *b = limited(state, "limits.iops-total=10,limits.iops-total-max=100,"
					 "limits.iops-total-max-length=2");

	/* 11 at once, then one each 10 ms, until 200 (and what leaks meanwhile) are there. */
	send_ops(b, 0, BLOCK_READ, 512, 400);
	settle(b);
	assert_int_equal(b->done_count, 11);
	pass(b, 9);
	assert_int_equal(b->done_count, 11);
	pass(b, 1);
	assert_int_equal(b->done_count, 12);
	pass(b, 990);
	assert_int_equal(b->done_count, 111);
	/* Level after n requests at 10(n - 11) ms: n - 0.1(n - 11) is over 200 for n = 222. */
	pass(b, 1100);
	assert_int_equal(b->done_count, 221);
	pass(b, 10);
	assert_int_equal(b->done_count, 222);
	pass(b, 80);
	assert_int_equal(b->done_count, 222);
	pass(b, 1000);
	assert_in_range(b->done_count, 232, 233);
}

static void test_iops_size(void **state)
{
	/* 6144 bytes are 1.5 requests of 4096, 512 are one. */
	static const int64_t when[] = {0, 50, 200, 350};
	struct bench *b = limited(state, "limits.iops-total=10,limits.iops-size=4096");

	send_ops(b, 0, BLOCK_READ, 6144, 3);
	send_ops(b, 0, BLOCK_READ, 512, 1);
	pass(b, 400);
	expect_times(b, when, 4);
}

static void test_group_in_turn(void **state)
{
	struct bench *b = limited(state, "limits.iops-total=100");

	/* One disk is full of requests before the other has its first. */
	send_ops(b, 0, BLOCK_READ, 512, 100);
	pass(b, 5);
	send_ops(b, 1, BLOCK_READ, 512, 20);
	pass(b, 395);
	assert_int_equal(b->done_count, 11 + 40);
	for (unsigned i = 13; i < 51; i++)
		if (b->who[i] == b->who[i - 1])
			fail_msg("not in turn at %u", i);
	pass(b, 1000);
	assert_int_equal(b->done_count, 120);
}

static void test_read_and_write_share(void **state)
{
	struct bench *b = limited(state, "limits.iops-total=10");

	send_ops(b, 0, BLOCK_READ, 512, 10);
	send_ops(b, 1, BLOCK_WRITE, 512, 10);
	pass(b, 900);
	/* Both directions fill the bucket that both ask. */
	assert_in_range(b->done_count, 11, 13);
	pass(b, 1200);
	assert_int_equal(b->done_count, 20);
}

static void test_drain(void **state)
{
	struct bench *b = limited(state, "limits.iops-total=1");

	send_ops(b, 0, BLOCK_READ, 512, 20);
	send_ops(b, 1, BLOCK_WRITE, 512, 5);
	settle(b);
	assert_int_equal(b->done_count, 1);
	/* Time stands still, and nobody waits for it. */
	block_drain(b->nodes[0]);
	assert_int_equal(b->disks[0]->reads, 20);
	assert_int_equal(b->disks[1]->writes, 0);
	block_drain(b->nodes[1]);
	assert_int_equal(b->done_count, 25);
	/* It was accounted. */
	send_ops(b, 0, BLOCK_READ, 512, 1);
	pass(b, 20000);
	assert_int_equal(b->done_count, 25);
	pass(b, 10000);
	assert_int_equal(b->done_count, 26);
}

static void test_holder_leaves(void **state)
{
	struct bench *b = limited(state, "limits.iops-total=10");

	/* Disk 0 has the timer when it is drained and closed; disk 1 goes on. */
	send_ops(b, 0, BLOCK_READ, 512, 3);
	send_ops(b, 1, BLOCK_READ, 512, 3);
	settle(b);
	assert_int_equal(b->done_count, 2);
	block_drain(b->nodes[0]);
	block_unref(b->nodes[0]);
	b->nodes[0] = NULL;
	pass(b, 1000);
	assert_int_equal(b->done_count, 6);
}

static void test_other_loop(void **state)
{
	struct bench *b = limited(state, "limits.iops-total=10");

	send_ops(b, 0, BLOCK_READ, 512, 4);
	settle(b);
	block_set_loop(b->nodes[0], b->loops[1]);
	assert_int_equal(b->done_count, 4);
	send_ops(b, 0, BLOCK_READ, 512, 2);
	pass(b, 1000);
	assert_int_equal(b->done_count, 6);
	block_set_loop(b->nodes[0], b->loops[0]);
}

static void refused(const char *text, const char *why)
{
	struct throttle_groups *groups = throttle_groups_new();
	struct error *err = NULL;
	struct opts opts;

	assert_true(opts_parse(&opts, text, NULL, NULL));
	assert_false(throttle_groups_add(groups, "g", &opts, &err));
	if (!strstr(error_message(err), why))
		fail_msg("%s: '%s'", text, error_message(err));
	error_free(err);
	opts_free(&opts);
	throttle_groups_free(groups);
}

static void test_refused_limits(void **state)
{
	refused("x-bps-total=1,limits.bps-total=1", "same");
	refused("x-bps-total=10,x-bps-read=5", "bps-total");
	refused("x-iops-total=10,x-iops-write=5", "iops-total");
	refused("x-iops-total-max=10,x-iops-write-max=5", "iops-total");
	refused("x-iops-size=10", "iops-size");
	refused("x-bps-total=1000000000000001", "at most");
	refused("x-bps-total=1,x-bps-total-max-length=0", "length");
	refused("x-bps-total=1,x-bps-total-max-length=2", "no rate");
	refused("x-bps-total=1,x-bps-total-max=1000000000000,x-bps-total-max-length=1001", "long");
	refused("x-bps-total-max=5", "beside");
	refused("x-bps-total=5,x-bps-total-max=4", "slower");
	refused("x-bps-total=fast", "bps-total");
	refused("x-bps-total=-1", "bps-total");
}

static struct block_node *drive(struct bench *b, const char *text, const char *id,
				struct error **err)
{
	struct opts opts;
	struct block_node *node;

	assert_true(opts_parse(&opts, text, "file", NULL));
	node = block_open_drive(b->loops[0], id, &opts,
				&(struct block_names){.throttles = b->groups}, err);
	opts_free(&opts);
	return node;
}

/* Another in the place of a disk; NULL: none. */
static void replace(struct bench *b, int disk, const char *text)
{
	struct error *err = NULL;

	block_unref(b->nodes[disk]);
	b->nodes[disk] = NULL;
	if (!text)
		return;
	b->nodes[disk] = drive(b, text, disk ? "d1" : "d0", &err);
	if (!b->nodes[disk])
		fail_msg("%s", error_message(err));
}

static void drive_refused(struct bench *b, const char *text, const char *why)
{
	struct error *err = NULL;

	assert_null(drive(b, text, "d0", &err));
	if (!strstr(error_message(err), why))
		fail_msg("%s: '%s'", text, error_message(err));
	error_free(err);
}

static void test_drive(void **state)
{
	struct bench *b = limited(state, "");
	struct block_node *plain;
	struct error *err = NULL;

	replace(b, 0, "driver=null-co,size=1M,bps=40960,bps_max=81920,group=h");
	assert_string_equal(throttle_group_of(b->nodes[0]), "h");
	assert_string_equal(block_format(b->nodes[0]), "null-co");
	assert_int_equal(block_length(b->nodes[0]), MiB);
	/* A drive that only names the group comes under its limits. */
	replace(b, 1, "driver=null-co,size=1M,throttling.group=h");
	send_ops(b, 0, BLOCK_READ, 65536, 2);
	send_ops(b, 1, BLOCK_DISCARD, 65536, 1); /* of a -drive, free */
	send_ops(b, 1, BLOCK_READ, 4096, 1);
	settle(b);
	assert_int_equal(b->done_count, 3);
	pass(b, 1199);
	assert_int_equal(b->done_count, 3);
	pass(b, 1);
	assert_int_equal(b->done_count, 4);
	replace(b, 0, NULL);
	replace(b, 1, NULL);
	/* Without limits and group there is no gate. */
	plain = drive(b, "driver=null-co", "d0", &err);
	assert_null(throttle_group_of(plain));
	block_unref(plain);
	drive_refused(b, "driver=null-co,bps=1,throttling.bps-total=1", "same");
	drive_refused(b, "driver=null-co,group=a,throttling.group=a", "same");
	drive_refused(b, "driver=null-co,iops_rd_max=5", "iops-read");
	drive_refused(b, "driver=null-co,bps_raed=5", "bps_raed");
	drive_refused(b, "driver=nil,bps=5", "nil");
}

static bool change(struct bench *b, int disk, const char *text)
{
	struct error *err = NULL;
	struct opts opts;
	bool ok;

	assert_true(opts_parse(&opts, text, NULL, NULL));
	ok = throttle_change(b->groups, b->nodes[disk], disk ? "d1" : "d0", &opts, &err);
	opts_free(&opts);
	assert_true(ok == !err);
	error_free(err);
	return ok;
}

/* Limits come, change and go while requests wait. */
static void test_change(void **state)
{
	struct bench *b = limited(state, "");

	for (int i = 0; i < DISKS; i++)
		replace(b, i, "driver=null-co,size=1M");
	send_ops(b, 0, BLOCK_READ, 4096, 3);
	settle(b);
	assert_int_equal(b->done_count, 3);
	assert_true(change(b, 0, "iops=1"));
	assert_string_equal(throttle_group_of(b->nodes[0]), "d0");
	send_ops(b, 0, BLOCK_READ, 4096, 4);
	settle(b);
	assert_int_equal(b->done_count, 4);
	pass(b, 1000);
	assert_int_equal(b->done_count, 5);
	/* Higher: those that wait are judged anew. */
	assert_true(change(b, 0, "iops=100"));
	pass(b, 20);
	assert_int_equal(b->done_count, 7);
	/* A refused change changes nothing. */
	assert_true(change(b, 0, "iops=1"));
	assert_false(change(b, 0, "iops=1,iops_rd=1"));
	assert_false(change(b, 0, "iops=1,iops_reed=1"));
	send_ops(b, 0, BLOCK_READ, 4096, 4);
	settle(b);
	assert_int_equal(b->done_count, 8);
	/* None: what waits goes at once. */
	assert_true(change(b, 0, "iops=0,bps=0"));
	assert_null(throttle_group_of(b->nodes[0]));
	settle(b);
	assert_int_equal(b->done_count, 11);
	/* Two disks in one group, and one of them leaves it. */
	assert_true(change(b, 0, "iops=10,group=g"));
	assert_true(change(b, 1, "iops=1,group=g"));
	send_ops(b, 0, BLOCK_READ, 4096, 1);
	settle(b);
	send_ops(b, 1, BLOCK_READ, 4096, 1);
	settle(b);
	assert_int_equal(b->done_count, 12);
	assert_true(change(b, 1, "iops=5,group=other"));
	settle(b);
	assert_int_equal(b->done_count, 13);
}

static void test_no_group(void **state)
{
	struct bench *b = limited(state, "");
	struct block_names names = {find_file, b->disks[0], b->groups};
	struct error *err = NULL;
	struct opts opts;

	assert_true(opts_parse(&opts, "throttle,file.driver=null-co,throttle-group=no", "driver",
			       NULL));
	assert_null(block_open_blockdev(b->loops[0], &opts, &names, &err));
	assert_non_null(strstr(error_message(err), "'no' does not exist"));
	error_free(err);
	err = NULL;
	opts_free(&opts);
	assert_true(opts_parse(&opts, "throttle,file.driver=null-co", "driver", NULL));
	assert_null(block_open_blockdev(b->loops[0], &opts, &names, &err));
	assert_non_null(strstr(error_message(err), "throttle-group"));
	error_free(err);
	opts_free(&opts);
}

/* Each of two threads keeps 8 requests in flight on a disk of its own. */
struct load {
	struct iothread *thread;
	struct block_node *node;
	struct block_req *reqs[8];
	unsigned done, flying;
	bool stop;
};

static void again(struct block_req *req, int ret)
{
	struct load *l = req->ctx;

	l->done++;
	if (l->stop)
		l->flying--;
	else
		block_submit(req);
}

static void start_load(void *opaque)
{
	static char buf[512];
	static const struct iovec iov = {buf, sizeof(buf)};
	struct load *l = opaque;

	for (size_t i = 0; i < ARRAY_SIZE(l->reqs); i++) {
		struct block_req *req = l->reqs[i] = xmalloc(block_req_size(l->node));

		*req = (struct block_req){.node = l->node,
					  .op = BLOCK_WRITE,
					  .bytes = 512,
					  .iov = &iov,
					  .iovcnt = 1,
					  .done = again,
					  .ctx = l};
		l->flying++;
		block_submit(req);
	}
}

static void stop_load(void *opaque)
{
	struct load *l = opaque;

	l->stop = true;
	block_drain(l->node);
}

static void test_threads(void **state)
{
	struct throttle_groups *groups = throttle_groups_new();
	struct load loads[DISKS] = {0};
	struct error *err = NULL;

	for (int i = 0; i < DISKS; i++) {
		struct opts opts;

		assert_true(opts_parse(&opts, "driver=null-co,iops=2000,group=g", NULL, NULL));
		loads[i].thread = iothread_new("t", &err);
		loads[i].node = block_open_drive(loads[i].thread->loop, "d", &opts,
						 &(struct block_names){.throttles = groups}, &err);
		assert_non_null(loads[i].node);
		opts_free(&opts);
	}
	for (int i = 0; i < DISKS; i++)
		evloop_call(loads[i].thread->loop, start_load, &loads[i]);
	usleep(300000);
	for (int i = 0; i < DISKS; i++)
		evloop_call(loads[i].thread->loop, stop_load, &loads[i]);
	for (int i = 0; i < DISKS; i++) {
		assert_int_equal(loads[i].flying, 0);
		/* 300 each if the machine is idle; never one alone. */
		assert_in_range(loads[i].done, 20, 20000);
		evloop_stop(loads[i].thread->loop);
	}
	assert_true(loads[0].done < loads[1].done * 3 && loads[1].done < loads[0].done * 3);
	for (int i = 0; i < DISKS; i++) {
		struct evloop *home = evloop_new(NULL, NULL);

		evloop_call(loads[i].thread->loop, stop_load, &loads[i]);
		block_set_loop(loads[i].node, home);
		block_unref(loads[i].node);
		evloop_free(home);
		iothread_free(loads[i].thread);
		for (size_t k = 0; k < ARRAY_SIZE(loads[i].reqs); k++)
			free(loads[i].reqs[k]);
	}
	throttle_groups_free(groups);
}

#define BENCH(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BENCH(test_iops),
		BENCH(test_to_the_nanosecond),
		BENCH(test_bps_directions),
		BENCH(test_large_request),
		BENCH(test_zeroes_and_discards),
		BENCH(test_burst),
		BENCH(test_long_burst),
		BENCH(test_iops_size),
		BENCH(test_group_in_turn),
		BENCH(test_read_and_write_share),
		BENCH(test_drain),
		BENCH(test_holder_leaves),
		BENCH(test_other_loop),
		cmocka_unit_test(test_refused_limits),
		BENCH(test_drive),
		BENCH(test_change),
		BENCH(test_no_group),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
