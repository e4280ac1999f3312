/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty bitmaps in memory against an array of bytes, one for each granule; and what a node's writes
 * do to the bitmaps that are on it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/bitmap.h"
#include "block/create.h"
#include "block/driver.h"
#include "tests/lib/block_memdisk.h"

enum { BITS = 100000 };

struct model {
	struct dirty_bitmap bm;
	uint8_t *set;
};

static void same(const struct model *m)
{
	uint64_t count = 0, at = 0, offset, bytes, granule = UINT64_C(1) << m->bm.shift;
	uint64_t bits = m->bm.bits;

	while (dirty_bitmap_next(&m->bm, at, &offset, &bytes)) {
		assert_true(bytes > 0 && offset >= at && offset + bytes <= m->bm.size);
		for (uint64_t i = at / granule; i < offset / granule; i++)
			assert_int_equal(m->set[i], 0);
		for (uint64_t i = offset / granule; i < div_round_up(offset + bytes, granule);
		     i++) {
			assert_int_equal(m->set[i], 1);
			count++;
		}
		at = offset + bytes;
	}
	for (uint64_t i = div_round_up(at, granule); i < bits; i++)
		assert_int_equal(m->set[i], 0);
	assert_int_equal(count, m->bm.dirty);
	assert_int_equal(dirty_bitmap_count(&m->bm, 0, bits), count);
}

static void change(struct model *m, unsigned *seed, bool set)
{
	uint64_t granule = UINT64_C(1) << m->bm.shift;
	uint64_t offset = ((uint64_t)rand_r(seed) * 7919) % m->bm.size, bytes;
	uint64_t first = offset / granule, end;

	bytes = 1 + (uint64_t)rand_r(seed) % (rand_r(seed) % 3 ? granule * 40 : m->bm.size);
	end = MIN(div_round_up(offset + bytes, granule), m->bm.bits);
	if (set) {
		dirty_bitmap_set(&m->bm, offset, bytes);
	} else {
		dirty_bitmap_reset(&m->bm, offset, bytes);
		first = div_round_up(offset, granule);
		end = offset + bytes >= m->bm.size ? m->bm.bits : (offset + bytes) / granule;
	}
	for (uint64_t i = first; i < end; i++)
		m->set[i] = set;
}

static void test_random(void **state)
{
	unsigned seed = 4;

	for (unsigned shift = 9; shift <= 16; shift += 7) {
		struct model m = {.set = xcalloc(1, BITS)};

		dirty_bitmap_init(&m.bm, ((uint64_t)BITS << shift) - 3 * 512, shift);
		assert_int_equal(m.bm.bits, shift == 9 ? BITS - 3 : BITS);
		for (int i = 0; i < 60; i++) {
			change(&m, &seed, rand_r(&seed) % 2);
			same(&m);
			assert_int_equal(dirty_bitmap_get(&m.bm, (uint64_t)i << shift), m.set[i]);
		}
		dirty_bitmap_clear(&m.bm);
		memset(m.set, 0, BITS);
		same(&m);
		free(m.set);
	}
}

static void test_bytes(void **state)
{
	unsigned seed = 9;
	struct model m = {.set = xcalloc(1, BITS)}, copy = {.set = m.set};
	uint8_t *buf = xcalloc(1, BITS);

	dirty_bitmap_init(&m.bm, (uint64_t)BITS << 12, 12);
	for (int i = 0; i < 12; i++)
		change(&m, &seed, i % 4 != 3);
	dirty_bitmap_give(&m.bm, 0, buf, ALIGN_UP(BITS / 8, 8));
	for (int i = 0; i < BITS; i++)
		assert_int_equal(buf[i / 8] >> (i % 8) & 1, m.set[i]);
	/* What lies beyond the end is not taken. */
	memset(buf + BITS / 8, 0xff, 512);
	dirty_bitmap_init(&copy.bm, (uint64_t)BITS << 12, 12);
	dirty_bitmap_take(&copy.bm, 0, buf, ALIGN_UP(BITS / 8, 512));
	same(&copy);
	dirty_bitmap_clear(&m.bm);
	dirty_bitmap_clear(&copy.bm);
	free(m.set);
	free(buf);
}

static void test_merge_and_resize(void **state)
{
	struct dirty_bitmap fine, coarse;
	uint64_t offset, bytes;

	dirty_bitmap_init(&fine, 10 * MiB + 512, 9);
	dirty_bitmap_init(&coarse, 10 * MiB + 512, 16);
	dirty_bitmap_set(&fine, 70000, 1);
	dirty_bitmap_set(&fine, 10 * MiB, 512);
	dirty_bitmap_merge(&coarse, &fine);
	assert_int_equal(coarse.dirty, 2);
	assert_true(dirty_bitmap_next(&coarse, 0, &offset, &bytes));
	assert_true(offset == 65536 && bytes == 65536);
	assert_true(dirty_bitmap_next(&coarse, offset + bytes, &offset, &bytes));
	assert_true(offset == 10 * MiB && bytes == 512);
	/* What is new is clean, even where the last granule was all that a chunk had. */
	dirty_bitmap_set(&fine, 0, UINT64_MAX);
	assert_int_equal(fine.dirty, fine.bits);
	dirty_bitmap_resize(&fine, 40 * MiB);
	assert_int_equal(fine.dirty, 20481);
	assert_false(dirty_bitmap_get(&fine, 10 * MiB + 512));
	dirty_bitmap_resize(&fine, 1 * MiB);
	assert_int_equal(fine.dirty, fine.bits);
	dirty_bitmap_resize(&fine, 2 * MiB);
	assert_int_equal(fine.dirty, 2048);
	dirty_bitmap_clear(&fine);
	dirty_bitmap_clear(&coarse);
	/* A disk without bytes. */
	dirty_bitmap_init(&fine, 0, 9);
	dirty_bitmap_set(&fine, 0, 512);
	assert_false(dirty_bitmap_next(&fine, 0, &offset, &bytes));
}

/* Any node records, whatever its format. */
static void test_on_node(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct memdisk *disk = memdisk_new(loop, NULL, MiB, MiB);
	struct block_node *node = memdisk_open(disk, "raw", NULL, BLOCK_OPEN_RDWR, NULL);
	struct block_bitmap *a, *b;
	struct error *err = NULL;
	uint8_t buf[1024] = {1};
	struct iovec iov = {buf, 512};

	assert_non_null(node);
	assert_null(block_bitmap_add(node, "a", 0, true, &err));
	assert_non_null(strstr(error_message(err), "Operation not supported"));
	error_free(err);
	a = block_bitmap_add(node, "a", 512, false, NULL);
	b = block_bitmap_add(node, "b", 0, false, NULL);
	assert_true(a && b);
	assert_int_equal(block_bitmap_granularity(b), 65536);
	assert_null(block_bitmap_add(node, "a", 512, false, NULL));
	assert_null(block_bitmap_add(node, "c", 511, false, NULL));
	assert_true(block_bitmap_enable(node, b, false, NULL));
	assert_int_equal(block_pwrite(node, 1000, buf, 1024, 0), 0);
	assert_int_equal(block_zero(node, 4096, 512, 0), 0);
	assert_int_equal(block_discard(node, 8192, 512), 0);
	assert_int_equal(block_pread(node, 65536, buf, 512), 0);
	assert_int_equal(block_do(node, BLOCK_WRITE, 131072, &iov, 1, 512, BLOCK_UNCHANGED), 0);
	assert_int_equal(block_flush(node), 0);
	assert_int_equal(a->dirty.dirty, 3 + 1 + 1);
	assert_int_equal(b->dirty.dirty, 0);
	assert_true(block_bitmap_merge(node, b, node, a, NULL));
	assert_int_equal(b->dirty.dirty, 1);
	assert_true(block_bitmap_clear(node, a, NULL));
	assert_int_equal(a->dirty.dirty, 0);
	/* What fails may have changed something. */
	disk->fail_at = disk->ops + 1;
	assert_int_not_equal(block_pwrite(node, 0, buf, 512, 0), 0);
	assert_int_equal(a->dirty.dirty, 1);
	assert_true(block_bitmap_remove(node, a, NULL));
	assert_null(block_bitmap_find(node, "a"));
	assert_ptr_equal(block_bitmaps(node), b);
	assert_int_equal(block_bitmaps_store(node), 0);
	block_unref(node);
	memdisk_free(disk);
	evloop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_merge_and_resize),
		cmocka_unit_test(test_on_node),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
