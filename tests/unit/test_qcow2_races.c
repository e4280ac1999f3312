/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What meets in a qcow2 image: packed clusters and a discard that is under way, a table that is let
 * go while it is being read, a flush and what is given back behind it, and tables that nothing
 * counts in the way of new refcount blocks.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/check.h"
#include "block/create.h"
#include "config.h"
#include "tests/lib/block_memdisk.h"

enum { ROOM = 16 << 20 };

static struct world {
	struct evloop *loop;
	struct memdisk *disk;
	struct block_node *node;
} * w(void)
{
	static struct world world;

	return &world;
}

static void open_image(uint8_t *image, uint64_t length)
{
	struct error *err = NULL;

	w()->loop = evloop_new(NULL, NULL);
	w()->disk = memdisk_new(w()->loop, image, length, ROOM);
	free(image);
	w()->node = memdisk_open(w()->disk, "qcow2", NULL, BLOCK_OPEN_RDWR, &err);
	if (!w()->node)
		fail_msg("%s", error_message(err));
}

static void close_image(void)
{
	block_unref(w()->node);
	memdisk_free(w()->disk);
	evloop_free(w()->loop);
}

/* Whatever was let go is free by then. */
static void settle(void)
{
	assert_int_equal(block_flush(w()->node), 0);
	block_drain(w()->node);
	assert_int_equal(block_flush(w()->node), 0);
	block_drain(w()->node);
}

static void check_clean(void)
{
	struct block_check found = {0};

	settle();
	assert_int_equal(w()->node->drv->check(w()->node, 0, &found, NULL), 0);
	assert_int_equal(found.corruptions, 0);
	assert_int_equal(found.leaks, 0);
}

static bool is_discard(const struct block_req *req)
{
	return req->act == BLOCK_DISCARD;
}

static void fill(uint8_t *buf, size_t n, uint8_t seed)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = i % 64 ? seed : i / 64;
}

/* What is packed while its cluster is given back to the host must not go away with it. */
static void test_packed_and_discard(void **state)
{
	const struct block_create c = {
		.size = MiB, .cluster_bits = 16, .refcount_bits = 16};
	static uint8_t one[65536], two[65536], got[65536];
	uint64_t length;
	uint8_t *image = memdisk_make_qcow2(&c, &length);
	int ret;

#if !defined(CONFIG_ZLIB) && !defined(CONFIG_LIBDEFLATE)
	free(image);
	skip();
#endif
	open_image(image, length);
	fill(one, sizeof(one), 1);
	fill(two, sizeof(two), 2);
	ret = block_pwrite(w()->node, 0, one, sizeof(one), BLOCK_COMPRESSED);
	assert_int_equal(ret, 0);
	w()->disk->holds = is_discard;
	assert_int_equal(block_discard(w()->node, 0, 65536), 0);
	assert_int_equal(block_flush(w()->node), 0);
	while (!w()->disk->held_count)
		evloop_run_once(w()->loop, -1);
	ret = block_pwrite(w()->node, 65536, two, sizeof(two), BLOCK_COMPRESSED);
	assert_int_equal(ret, 0);
	memdisk_release(w()->disk);
	settle();
	assert_int_equal(block_pread(w()->node, 65536, got, sizeof(got)), 0);
	assert_memory_equal(got, two, sizeof(two));
	check_clean();
	close_image();
}

struct running {
	struct iovec iov;
	bool done;
	int ret;
	struct block_req *req;
};

static void request_done(struct block_req *req, int ret)
{
	struct running *r = req->ctx;

	r->ret = ret;
	r->done = true;
	free(req);
}

static void start(struct running *r, enum block_op op, uint64_t offset, void *buf, size_t bytes)
{
	*r = (struct running){.iov = {buf, bytes}, .req = xmalloc(block_req_size(w()->node))};
	*r->req = (struct block_req){.node = w()->node,
				     .op = op,
				     .offset = offset,
				     .bytes = bytes,
				     .iov = &r->iov,
				     .iovcnt = 1,
				     .done = request_done,
				     .ctx = r};
	block_submit(r->req);
}

/* As far as it goes by itself. */
static void some_turns(void)
{
	for (int i = 0; i < 1000; i++)
		evloop_run_once(w()->loop, 0);
}

static uint64_t *table_read(void)
{
	static uint64_t offset;

	return &offset;
}

static bool is_this_table(const struct block_req *req)
{
	return req->act == BLOCK_READ && req->offset == *table_read();
}

/* A table that only looks shared is copied and given back while somebody still reads it; what comes
 * of that read is not what its cluster has by then. */
static void test_table_read_and_reused(void **state)
{
	const struct block_create c = {
		.size = GiB, .cluster_bits = 16, .refcount_bits = 16};
	static uint8_t data[65536], got[65536], first[512];
	struct running reader, writer;
	uint64_t length, l1, table;
	uint8_t *image = memdisk_make_qcow2(&c, &length);

	open_image(image, length);
	memset(data, 7, sizeof(data));
	assert_int_equal(block_pwrite(w()->node, 0, data, sizeof(data), 0), 0);
	settle();
	block_unref(w()->node);
	l1 = load_be64(w()->disk->data + 40);
	table = load_be64(w()->disk->data + l1);
	store_be64(w()->disk->data + l1, table & ~(UINT64_C(1) << 63));
	table &= ~(UINT64_C(1) << 63);
	*table_read() = table;
	w()->node = memdisk_open(w()->disk, "qcow2", NULL, BLOCK_OPEN_RDWR, NULL);
	assert_non_null(w()->node);
	w()->disk->holds = is_this_table;
	start(&reader, BLOCK_READ, 0, first, sizeof(first));
	while (!w()->disk->held_count)
		evloop_run_once(w()->loop, -1);
	w()->disk->holds = NULL;
	/* Another part of the same table: the copy. */
	assert_int_equal(block_pwrite(w()->node, 32 * MiB, data, sizeof(data), 0), 0);
	assert_int_equal(block_flush(w()->node), 0);
	some_turns();
	/* The second table of the disk comes to lie where the first was. */
	memset(data, 9, sizeof(data));
	start(&writer, BLOCK_WRITE, 512 * MiB + 65536, data, sizeof(data));
	some_turns();
	memdisk_release(w()->disk);
	while (!reader.done || !writer.done)
		evloop_run_once(w()->loop, -1);
	assert_int_equal(reader.ret | writer.ret, 0);
	settle();
	assert_int_equal(load_be64(w()->disk->data + load_be64(w()->disk->data + 40) + 8) &
				 ~(UINT64_C(1) << 63),
			 table);
	assert_int_equal(first[0], 7);
	assert_int_equal(block_pread(w()->node, 512 * MiB, got, sizeof(got)), 0);
	assert_int_equal(got[0], 0);
	assert_int_equal(block_pread(w()->node, 512 * MiB + 65536, got, sizeof(got)), 0);
	assert_int_equal(got[0], 9);
	check_clean();
	close_image();
}

/* An L2 table of this image lies there, and nothing counts it. */
static void stray_table(uint64_t host)
{
	struct memdisk *m = w()->disk;
	uint64_t l1;

	block_unref(w()->node);
	l1 = load_be64(m->data + 40);
	assert_int_equal(load_be64(m->data + l1 + 8 * 100), 0);
	store_be64(m->data + l1 + 8 * 100, host | UINT64_C(1) << 63);
	store_be64(m->data + host, UINT64_C(0x7777) << 9 | UINT64_C(1) << 63);
	m->node->length = MAX(m->node->length, host + 512);
	w()->node = memdisk_open(m, "qcow2", NULL, BLOCK_OPEN_RDWR, NULL);
	assert_non_null(w()->node);
}

static void test_in_the_way(uint64_t host)
{
	const struct block_create c = {.size = 8 * MiB, .cluster_bits = 9, .refcount_bits = 64};
	static uint8_t data[512] = {1};
	uint64_t length;
	uint8_t *image = memdisk_make_qcow2(&c, &length);
	int ret = 0;

	open_image(image, length);
	stray_table(host);
	for (unsigned i = 0; i < 6000 && !ret; i++)
		ret = block_pwrite(w()->node, i * 512, data, 512, 0);
	assert_int_equal(ret, -EIO);
	assert_int_equal(load_be64(w()->disk->data + host), UINT64_C(0x7777) << 9 | UINT64_C(1) << 63);
	close_image();
}

/* At the first cluster of the second refcount block's, and of those that the table has no room for. */
static void test_in_the_way_of_a_block(void **state)
{
	test_in_the_way(64 * 512);
}

static void test_in_the_way_of_the_table(void **state)
{
	test_in_the_way(64 * 64 * 512);
}

/* All of a large refcount table has one block, in which nothing is free: others' turns meanwhile. */
static void test_endless_refcounts(void **state)
{
	const struct block_create c = {.size = MiB, .cluster_bits = 9, .refcount_bits = 16};
	enum { TABLE = 64 * 512, AT = 256 << 10, BLOCK = AT + TABLE };
	static uint8_t data[512] = {1};
	struct running writer;
	uint64_t length;
	uint8_t *image = memdisk_make_qcow2(&c, &length), *disk;
	unsigned turns = 0;

	open_image(image, length);
	block_unref(w()->node);
	disk = w()->disk->data;
	store_be64(disk + 48, AT);
	store_be32(disk + 56, TABLE / 512);
	for (unsigned i = 0; i < TABLE / 8; i++)
		store_be64(disk + AT + i * 8, BLOCK);
	for (unsigned i = 0; i < 256; i++)
		store_be16(disk + BLOCK + i * 2, 1);
	w()->disk->node->length = BLOCK + 512;
	w()->node = memdisk_open(w()->disk, "qcow2", NULL, BLOCK_OPEN_RDWR, NULL);
	assert_non_null(w()->node);
	start(&writer, BLOCK_WRITE, 0, data, sizeof(data));
	for (; !writer.done; turns++)
		evloop_run_once(w()->loop, -1);
	assert_int_equal(writer.ret, -ENOSPC); /* of this disk's end, behind all that is counted */
	assert_true(turns > 100);
	close_image();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_packed_and_discard),
		cmocka_unit_test(test_table_read_and_reused),
		cmocka_unit_test(test_in_the_way_of_a_block),
		cmocka_unit_test(test_in_the_way_of_the_table),
		cmocka_unit_test(test_endless_refcounts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
