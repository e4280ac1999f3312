/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy-on-read: what is copied and what is not, and that no copy undoes a write, with a disk that
 * finishes requests in random order.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/create.h"
#include "tests/lib/block_memdisk.h"

#define CLUSTER	  65536
#define SIZE	  (16 * CLUSTER)
#define WORKERS	  24
#define SLOT	  (20 * KiB)
#define ZERO_FROM (12 * CLUSTER)

struct bench {
	struct evloop *loop;
	struct memdisk *base, *file;
	struct block_node *image, *top; /* the qcow2 node, and what lies above */
};

static struct bench *make(unsigned seed)
{
	struct bench *b = xcalloc(1, sizeof(*b));
	struct block_create c = {.size = SIZE};
	uint8_t *bytes = xcalloc(1, SIZE), *image;
	struct error *err = NULL;
	uint64_t length;

	b->loop = evloop_new(NULL, NULL);
	for (unsigned i = 0; i < ZERO_FROM; i++)
		bytes[i] = i / 512 + i + 1;
	b->base = memdisk_new(b->loop, bytes, SIZE, SIZE);
	free(bytes);
	image = memdisk_make_qcow2(&c, &length);
	assert_non_null(image);
	b->file = memdisk_new(b->loop, image, length, 4 * SIZE);
	free(image);
	b->base->seed = seed;
	b->file->seed = seed + 1;
	b->image = memdisk_open(b->file, "qcow2", b->base, BLOCK_OPEN_RDWR, &err);
	assert_non_null(b->image);
	b->top = block_filter_above(&block_copy_on_read, b->image);
	assert_true(block_copy_on_read_init(b->top, &err));
	return b;
}

static void drop(struct bench *b)
{
	block_unref(b->top);
	memdisk_free(b->file);
	memdisk_free(b->base);
	evloop_free(b->loop);
	free(b);
}

static struct block_extent status(struct bench *b, unsigned cluster)
{
	struct block_extent e;

	assert_int_equal(block_status(b->image, cluster * CLUSTER, CLUSTER, &e), 0);
	return e;
}

static void test_what_is_copied(void **state)
{
	struct bench *b = make(1);
	uint8_t buf[3 * CLUSTER];
	uint64_t reads;

	assert_int_equal(block_pread(b->top, CLUSTER + 5000, buf, 100), 0);
	assert_memory_equal(buf, b->base->data + CLUSTER + 5000, 100);
	assert_false(status(b, 0).allocated);
	assert_true(status(b, 1).allocated && status(b, 1).data);
	assert_false(status(b, 2).allocated);
	/* From now on the base is not asked for it. */
	reads = b->base->reads;
	assert_int_equal(block_pread(b->top, CLUSTER, buf, CLUSTER), 0);
	assert_memory_equal(buf, b->base->data + CLUSTER, CLUSTER);
	assert_int_equal(b->base->reads, reads);
	/* Over what is there and what is not; zeroes stay zeroes. */
	assert_int_equal(block_pread(b->top, CLUSTER / 2, buf, 2 * CLUSTER), 0);
	assert_memory_equal(buf, b->base->data + CLUSTER / 2, 2 * CLUSTER);
	assert_true(status(b, 0).allocated && status(b, 2).allocated);
	assert_false(status(b, 3).allocated);
	assert_int_equal(block_pread(b->top, ZERO_FROM, buf, 512), 0);
	assert_true(status(b, ZERO_FROM / CLUSTER).allocated);
	assert_true(status(b, ZERO_FROM / CLUSTER).zero);
	assert_false(status(b, ZERO_FROM / CLUSTER + 1).allocated);
	assert_int_equal(b->base->writes, 0);
	drop(b);
}

static void test_read_only(void **state)
{
	struct bench *b = make(1);
	struct block_node *over;
	struct error *err = NULL;

	b->top->read_only = true;
	over = block_filter_above(&block_copy_on_read, b->top);
	assert_false(block_copy_on_read_init(over, &err));
	assert_non_null(strstr(error_message(err), "read-only"));
	error_free(err);
	b->top = over;
	drop(b);
}

static void test_copy_fails(void **state)
{
	struct bench *b = make(3);
	uint8_t buf[512], cluster[CLUSTER];

	/* The tables are in memory, so that only the copy writes. */
	assert_int_equal(block_pread(b->top, 0, buf, 512), 0);
	b->file->fail_at = b->file->ops + 1;
	b->file->fail_on = true;
	b->file->fail_with = -ENOSPC;
	assert_int_equal(block_pread(b->top, 5 * CLUSTER, buf, 512), -ENOSPC);
	b->file->fail_at = 0;
	/* Nobody waits for it for ever. */
	assert_int_equal(block_pwrite(b->top, 5 * CLUSTER + 512, buf, 512, 0), 0);
	assert_int_equal(block_pread(b->top, 5 * CLUSTER, cluster, CLUSTER), 0);
	assert_memory_equal(cluster, b->base->data + 5 * CLUSTER, 512);
	drop(b);
}

/* Each works on a part of the disk of its own, smaller than a cluster. */
struct worker {
	struct bench *b;
	uint64_t start;
	uint8_t *model, buf[SLOT];
	struct iovec iov;
	struct block_req *req;
	unsigned left;
	unsigned *seed;
};

static void next(struct worker *w)
{
	unsigned at = rand_r(w->seed) % SLOT, n = 1 + rand_r(w->seed) % (SLOT - at);
	struct block_req *req = w->req;

	if (!w->left--)
		return;
	if (rand_r(w->seed) % 2) {
		at = ALIGN_DOWN(at, 512);
		n = MIN(ALIGN_UP(n, 512), SLOT - at);
	}
	switch (rand_r(w->seed) % 8) {
	case 0:
	case 1:
		req->op = BLOCK_WRITE;
		memset(w->buf, rand_r(w->seed), n);
		break;
	case 2:
		req->op = BLOCK_WRITE_ZEROES;
		break;
	default:
		req->op = BLOCK_READ;
		break;
	}
	req->offset = w->start + at;
	req->bytes = w->iov.iov_len = n;
	block_submit(req);
}

static void worker_done(struct block_req *req, int ret)
{
	struct worker *w = req->ctx;
	uint8_t *model = w->model + (req->offset - w->start);

	assert_int_equal(ret, 0);
	if (req->op == BLOCK_READ)
		assert_memory_equal(w->buf, model, req->bytes);
	else if (req->op == BLOCK_WRITE)
		memcpy(model, w->buf, req->bytes);
	else
		memset(model, 0, req->bytes);
	next(w);
}

static void run_seed(unsigned seed)
{
	struct bench *b = make(seed);
	struct worker *workers = xcalloc(WORKERS, sizeof(*workers));
	uint8_t *model = xmalloc(SIZE), *all = xmalloc(SIZE);

	memcpy(model, b->base->data, SIZE);
	for (int i = 0; i < WORKERS; i++) {
		struct worker *w = &workers[i];

		w->b = b;
		w->start = i * SLOT;
		w->model = model + w->start;
		w->iov.iov_base = w->buf;
		w->left = 12;
		w->seed = &seed;
		w->req = xcalloc(1, block_req_size(b->top));
		*w->req = (struct block_req){
			.node = b->top, .iov = &w->iov, .iovcnt = 1, .done = worker_done, .ctx = w};
		next(w);
	}
	block_drain(b->top);
	assert_int_equal(block_pread(b->top, 0, all, SIZE), 0);
	assert_memory_equal(all, model, SIZE);
	assert_int_equal(b->base->writes, 0);
	/* The whole disk was read: nothing is left below. */
	for (unsigned i = 0; i < SIZE / CLUSTER; i++)
		assert_true(status(b, i).allocated);
	for (int i = 0; i < WORKERS; i++)
		free(workers[i].req);
	free(workers);
	free(model);
	free(all);
	drop(b);
}

static void test_no_write_is_undone(void **state)
{
	for (unsigned seed = 1; seed <= 60; seed++)
		run_seed(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_copied),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_copy_fails),
		cmocka_unit_test(test_no_write_is_undone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
