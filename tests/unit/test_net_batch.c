/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many packets in one system call: over pipes that keep writes apart, where the host has io_uring.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/batch.h"

enum { ROOM = 100 };

struct fixture {
	int fds[2];
	struct net_batch *reader, *writer;
	uint8_t bytes[NET_BATCH][ROOM];
	struct iovec iov[NET_BATCH][2];
	struct net_packet pkts[NET_BATCH];
	int results[NET_BATCH];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(pipe2(f->fds, O_DIRECT | O_NONBLOCK | O_CLOEXEC), 0);
	f->reader = net_batch_new(f->fds[0]);
	f->writer = net_batch_new(f->fds[1]);
	for (unsigned i = 0; i < NET_BATCH; i++) {
		f->iov[i][0] = (struct iovec){f->bytes[i], 10};
		f->iov[i][1] = (struct iovec){f->bytes[i] + 10, ROOM - 10};
		f->pkts[i] = (struct net_packet){f->iov[i], 2, ROOM};
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	net_batch_free(f->reader);
	net_batch_free(f->writer);
	close(f->fds[0]);
	close(f->fds[1]);
	free(f);
	return 0;
}

static struct fixture *ready(void **state)
{
	struct fixture *f = *state;

	if (!f->reader || !f->writer)
		skip();
	return f;
}

/* Packet i has 20 + i bytes of i. */
static void put(struct fixture *f, unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n; i++) {
		uint8_t bytes[ROOM];

		memset(bytes, i, sizeof(bytes));
		assert_int_equal(write(f->fds[1], bytes, 20 + i), 20 + i);
	}
}

static void test_read(void **state)
{
	struct fixture *f = ready(state);

	/* Fewer than asked for, in order, and again. */
	for (unsigned round = 0; round < 100; round++) {
		put(f, 0, 5);
		assert_true(net_batch_read(f->reader, f->pkts, 8, f->results));
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(f->results[i], i < 5 ? 20 + (int)i : -EAGAIN);
			if (i < 5) {
				assert_int_equal(f->bytes[i][0], i);
				assert_int_equal(f->bytes[i][19 + i], i);
			}
		}
	}
	assert_true(net_batch_read(f->reader, f->pkts, NET_BATCH, f->results));
	assert_int_equal(f->results[0], -EAGAIN);
	/* What came later is nobody's but the next call's. */
	put(f, 7, 1);
	assert_true(net_batch_read(f->reader, f->pkts, 1, f->results));
	assert_int_equal(f->results[0], 27);
}

static void test_write(void **state)
{
	struct fixture *f = ready(state);
	uint8_t got[ROOM];

	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 10; i++) {
			memset(f->bytes[i], round + i, ROOM);
			f->iov[i][1].iov_len = i;
		}
		/* One that makes no sense does not keep those behind it. */
		f->iov[4][1].iov_base = NULL;
		assert_true(net_batch_write(f->writer, f->pkts, 10, f->results));
		f->iov[4][1].iov_base = f->bytes[4] + 10;
		for (unsigned i = 0; i < 10; i++) {
			if (i == 4 && f->results[4] < 0)
				continue;
			assert_int_equal(f->results[i], i == 4 ? 10 : 10 + (int)i);
			assert_int_equal(read(f->fds[0], got, sizeof(got)), f->results[i]);
			assert_int_equal(got[0], (uint8_t)(round + i));
		}
	}
}

static void test_full(void **state)
{
	struct fixture *f = ready(state);
	unsigned taken = 0, calls = 0;
	uint8_t got[ROOM];

	while (calls++ < 1000) {
		assert_true(net_batch_write(f->writer, f->pkts, NET_BATCH, f->results));
		for (unsigned i = 0; i < NET_BATCH; i++)
			taken += f->results[i] == ROOM;
		if (f->results[NET_BATCH - 1] == -EAGAIN)
			break;
	}
	assert_in_range(calls, 1, 999);
	while (read(f->fds[0], got, sizeof(got)) == ROOM)
		taken--;
	assert_int_equal(taken, 0);
}

/* Nothing has been done, and nothing is tried again. */
static void test_refused(void **state)
{
	struct fixture *f = ready(state);
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	struct net_batch *b = net_batch_new(fd);

	assert_non_null(b);
	assert_false(net_batch_read(b, f->pkts, 4, f->results));
	assert_false(net_batch_read(b, f->pkts, 4, f->results));
	net_batch_free(b);
	close(fd);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_read),
		TEST(test_write),
		TEST(test_full),
		TEST(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
