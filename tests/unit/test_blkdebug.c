/* SPDX-License-Identifier: Apache-2.0 */
/* blkdebug's rules and states, and delay's latencies, above null disks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/filter/blkdebug.h"

static struct block_node *open_text(struct evloop *loop, const char *text, struct error **err)
{
	struct opts opts = {0};
	struct block_node *node;

	assert_true(opts_parse(&opts, text, NULL, err));
	node = block_open_tool(loop, &opts, BLOCK_OPEN_RDWR | BLOCK_OPEN_BLOCKDEV, NULL, err);
	opts_free(&opts);
	return node;
}

static struct block_node *must_open(struct evloop *loop, const char *text)
{
	struct error *err = NULL;
	struct block_node *node = open_text(loop, text, &err);

	if (!node)
		fail_msg("%s: %s", text, error_message(err));
	return node;
}

#define NULL_IMAGE "driver=blkdebug,image.driver=null-co,image.size=1M,"
#define BELOW_RAW  "driver=raw,file.driver=blkdebug,file.image.driver=null-co,file.image.size=1M,"

static void test_once_and_place(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct block_node *node = must_open(
		loop, NULL_IMAGE "inject-error.0.event=none,inject-error.0.errno=28,"
				 "inject-error.0.once=on,inject-error.0.sector=3,"
				 "inject-error.1.event=none,inject-error.1.iotype=discard");
	uint8_t buf[1024];

	/* What does not touch the sector is let through; what does fails, and only once. */
	assert_int_equal(block_pread(node, 0, buf, 1024), 0);
	assert_int_equal(block_pread(node, 2048, buf, 1024), 0);
	assert_int_equal(block_pwrite(node, 1024, buf, 1024, 0), -ENOSPC);
	assert_int_equal(block_pwrite(node, 1024, buf, 1024, 0), 0);
	node->ignore_discard = false;
	assert_int_equal(block_discard(node, 0, 512), -EIO);
	assert_int_equal(block_discard(node, 0, 512), -EIO);
	assert_int_equal(block_zero(node, 0, 512, 0), 0);
	block_unref(node);
	evloop_free(loop);
}

static void test_states(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct block_node *node = must_open(
		loop, BELOW_RAW "file.set-state.0.event=read_aio,file.set-state.0.state=1,"
				"file.set-state.0.new_state=2,"
				"file.set-state.1.event=write_aio,file.set-state.1.state=2,"
				"file.set-state.1.new_state=3,"
				"file.inject-error.0.event=write_aio,file.inject-error.0.state=3,"
				"file.inject-error.0.iotype=write,file.inject-error.0.errno=5");
	uint8_t buf[512] = {0};

	assert_int_equal(block_pwrite(node, 0, buf, 512, 0), 0); /* 1 */
	assert_int_equal(block_pread(node, 0, buf, 512), 0);	 /* 1 -> 2 */
	assert_int_equal(block_pwrite(node, 0, buf, 512, 0), 0); /* 2 -> 3 */
	assert_int_equal(block_pwrite(node, 0, buf, 512, 0), -EIO);
	assert_int_equal(block_pread(node, 0, buf, 512), 0);
	assert_int_equal(block_flush(node), 0);
	block_unref(node);
	evloop_free(loop);
}

static void try_config(const char *text, bool good)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	char path[] = "/tmp/blkdebug.XXXXXX";
	int fd = mkstemp(path);
	struct error *err = NULL;
	struct block_node *node;
	char *options;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	options = xasprintf(NULL_IMAGE "config=%s", path);
	node = open_text(loop, options, &err);
	free(options);
	unlink(path);
	if (!good) {
		assert_null(node);
		assert_non_null(error_message(err));
		error_free(err);
	} else {
		uint8_t buf[512] = {0};

		assert_non_null(node);
		assert_int_equal(block_flush(node), -ENOSPC);
		assert_int_equal(block_flush(node), 0);
		assert_int_equal(block_pwrite(node, 0, buf, 512, 0), 0);
		block_unref(node);
	}
	evloop_free(loop);
}

static void test_config(void **state)
{
	try_config("# a comment\n[inject-error]\n  event = \"none\"\nerrno=\"28\"\n"
		   "iotype = \"flush\"\nonce = \"on\"\n\n[set-state]\nevent = \"pwritev\"\n"
		   "state = \"1\"\nnew_state = \"2\"\n",
		   true);
	try_config("[inject-error]\nerrno = \"28\"\n", false);
	try_config("[inject-error]\nevent = \"nothing\"\n", false);
	try_config("[inject-error]\nevent = none\n", false);
	try_config("[inject-error]\nevent = \"none\"\nerror = \"1\"\n", false);
	try_config("[other]\nevent = \"none\"\n", false);
	try_config("event = \"none\"\n", false);
	try_config("[inject-error]\nevent = \"none\"\nerrno = \"99999999\"\n", false);
}

static void test_map(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct block_node *node = must_open(loop, NULL_IMAGE "inject-error.0.event=none,"
							     "inject-error.0.iotype=block-status,"
							     "inject-error.0.sector=8");
	struct block_extent x;

	assert_int_equal(block_status(node, 0, 4096, &x), 0);
	assert_int_equal(block_status(node, 0, 8192, &x), -EIO);
	block_unref(node);
	evloop_free(loop);
}

static int64_t timed(struct block_node *node, enum block_op op)
{
	static uint8_t buf[512];
	struct iovec iov = {buf, 512};
	int64_t start = evloop_now(node->loop);
	bool data = op == BLOCK_READ || op == BLOCK_WRITE;

	assert_int_equal(
		block_do(node, op, 0, data ? &iov : NULL, data, op == BLOCK_FLUSH ? 0 : 512, 0), 0);
	return evloop_now(node->loop) - start;
}

static void test_delay(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct block_node *node = must_open(loop, "driver=delay,file.driver=null-co,"
						  "write-latency-ns=30000000,"
						  "flush-latency-ns=5000000");
	struct error *err = NULL;

	assert_true(timed(node, BLOCK_WRITE) >= 30000000);
	assert_true(timed(node, BLOCK_WRITE_ZEROES) >= 30000000);
	assert_true(timed(node, BLOCK_FLUSH) >= 5000000);
	assert_true(timed(node, BLOCK_READ) < 30000000);
	block_unref(node);
	assert_null(open_text(loop, "driver=delay,file.driver=null-co,read-latency-ns=60000000001",
			      &err));
	error_free(err);
	evloop_free(loop);
}

static void note(void *opaque, const char *tag, bool resumed)
{
	char *told = opaque;

	sprintf(told + strlen(told), "%s%s ", resumed ? "-" : "+", tag);
}

static void set_done(struct block_req *req, int ret)
{
	*(int *)req->ctx = ret;
}

static struct block_req *start(struct block_node *node, enum block_op op, int *ret)
{
	static uint8_t buf[512];
	static struct iovec iov = {buf, 512};
	struct block_req *req = xcalloc(1, block_req_size(node));

	*req = (struct block_req){.node = node,
				  .op = op,
				  .bytes = op == BLOCK_FLUSH ? 0 : 512,
				  .iov = &iov,
				  .iovcnt = 1,
				  .done = set_done,
				  .ctx = ret};
	*ret = 1;
	block_submit(req);
	for (int i = 0; i < 20; i++)
		evloop_run_once(node->loop, 0);
	return req;
}

static void test_breakpoints(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct block_node *node = must_open(loop, "driver=raw,file.driver=blkdebug,"
						  "file.image.driver=null-co,file.image.size=1M");
	struct block_req *reqs[3];
	int ret[3];
	char told[200] = "";

	assert_int_equal(blkdebug_break(node, "nothing", "x", note, told), -ENOENT);
	assert_int_equal(blkdebug_break(node, "write_aio", "a", note, told), 0);
	assert_int_equal(blkdebug_break(node, "pwritev_done", "b", note, told), 0);
	assert_int_equal(blkdebug_break(node, "flush_to_disk", "c", note, told), 0);
	for (int i = 0; i < 3; i++)
		reqs[i] = start(node, i < 2 ? BLOCK_WRITE : BLOCK_FLUSH, &ret[i]);
	/* The first before it began, the second when it had ended, the third by itself. */
	assert_true(blkdebug_is_suspended(node, "a") && blkdebug_is_suspended(node, "b"));
	assert_true(blkdebug_is_suspended(node, "c"));
	assert_int_equal(ret[0] + ret[1] + ret[2], 3);
	assert_int_equal(blkdebug_resume(node, "d"), -ENOENT);
	assert_int_equal(blkdebug_resume(node, "b"), 0);
	block_drain(node->file->file);
	evloop_run_once(loop, 0);
	assert_int_equal(ret[1], 0);
	assert_int_equal(ret[0], 1);
	assert_int_equal(blkdebug_remove_break(node, "c"), -ENOENT);
	evloop_run_once(loop, 0);
	assert_int_equal(ret[2], 0);
	assert_string_equal(told, "+a +b +c -b -c ");
	block_drain(node);
	assert_int_equal(ret[0], 0);
	assert_string_equal(told, "+a +b +c -b -c -a ");
	assert_int_equal(blkdebug_break(node, "write_aio", "left over", note, told), 0);
	block_unref(node);
	node = must_open(loop, "driver=null-co,size=1M");
	assert_int_equal(blkdebug_break(node, "write_aio", "a", note, told), -ENOTSUP);
	assert_int_equal(blkdebug_resume(node, "a"), -ENOTSUP);
	assert_int_equal(blkdebug_remove_break(node, "a"), -ENOTSUP);
	block_unref(node);
	for (int i = 0; i < 3; i++)
		free(reqs[i]);
	evloop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_once_and_place), cmocka_unit_test(test_states),
		cmocka_unit_test(test_config),	       cmocka_unit_test(test_map),
		cmocka_unit_test(test_breakpoints),
		cmocka_unit_test(test_delay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
