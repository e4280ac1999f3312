/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host fails: EIO or ENOSPC at every N-th request of the file below, once or for good. No
 * operation hangs, none that failed is taken for done, the image has leaks at most, and once the
 * host is well again everything goes on.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/qcow2/check.h"
#include "tests/lib/block_memdisk.h"

enum { SECTOR = 512, SIZE = 128 << 10, SECTORS = SIZE / SECTOR, DISK = 1 << 20 };

struct guest {
	struct evloop *loop;
	struct memdisk *disk, *below;
	struct block_node *node;
	uint8_t now[SECTORS];	/* each sector's fill byte */
	uint8_t maybe[SECTORS]; /* or this, after a failed write */
	bool anything[SECTORS]; /* a discard */
	unsigned seed;
};

static void operate(struct guest *g)
{
	unsigned what = rand_r(&g->seed) % 10, n = 1 + rand_r(&g->seed) % 40;
	unsigned at = rand_r(&g->seed) % (SECTORS - n);
	uint8_t byte = 1 + rand_r(&g->seed) % 255, *buf;
	int ret;

	if (what == 0) {
		block_flush(g->node);
		return;
	}
	if (what < 6) {
		buf = xmalloc(n * SECTOR);
		memset(buf, byte, n * SECTOR);
		ret = block_pwrite(g->node, at * SECTOR, buf, n * SECTOR,
				   what == 1 ? BLOCK_FUA : 0);
		free(buf);
	} else if (what < 8) {
		byte = 0;
		ret = block_zero(g->node, at * SECTOR, n * SECTOR, BLOCK_MAY_UNMAP);
	} else {
		ret = block_discard(g->node, at * SECTOR, n * SECTOR);
		for (unsigned i = at; i < at + n; i++)
			g->anything[i] = true;
		(void)ret;
		return;
	}
	for (unsigned i = at; i < at + n; i++) {
		if (!ret) {
			g->now[i] = g->maybe[i] = byte;
			g->anything[i] = false;
		} else if (g->maybe[i] != g->now[i]) {
			g->anything[i] = true; /* two failures: three possible values */
		} else {
			g->maybe[i] = byte;
		}
	}
}

static void verify(struct guest *g, const char *when)
{
	struct block_check result;
	uint8_t *all = xmalloc(SIZE);

	assert_int_equal(qcow2_check(g->node, 0, &result, NULL, NULL), 0);
	if (result.corruptions)
		fail_msg("%s: %llu corruptions, failed at %llu", when,
			 (unsigned long long)result.corruptions,
			 (unsigned long long)g->disk->fail_at);
	assert_int_equal(block_pread(g->node, 0, all, SIZE), 0);
	for (unsigned s = 0; s < SECTORS; s++)
		for (unsigned i = 0; i < SECTOR && !g->anything[s]; i++)
			if (all[s * SECTOR + i] != g->now[s] && all[s * SECTOR + i] != g->maybe[s])
				fail_msg("%s: sector %u holds %u, not %u or %u", when, s,
					 all[s * SECTOR + i], g->now[s], g->maybe[s]);
	free(all);
}

static uint64_t play(const uint8_t *image, uint64_t length, bool backing, uint64_t fail_at, bool on,
		     int with)
{
	struct guest *g = xcalloc(1, sizeof(*g));
	struct error *err = NULL;
	uint64_t ops;

	g->loop = evloop_new(NULL, NULL);
	g->disk = memdisk_new(g->loop, image, length, DISK);
	if (backing) {
		g->below = memdisk_new(g->loop, NULL, SIZE, SIZE);
		memset(g->below->data, 7, SIZE);
		memset(g->now, 7, SECTORS);
		memset(g->maybe, 7, SECTORS);
	}
	g->seed = 11;
	g->node = memdisk_open(g->disk, "qcow2", g->below, BLOCK_OPEN_RDWR, &err);
	assert_non_null(g->node);
	g->disk->ops = 0;
	g->disk->fail_at = fail_at;
	g->disk->fail_on = on;
	g->disk->fail_with = with;
	for (int i = 0; i < 60; i++)
		operate(g);
	ops = g->disk->ops;
	g->disk->fail_at = 0;
	verify(g, "after the failure");
	for (int i = 0; i < 20; i++)
		operate(g);
	assert_int_equal(block_flush(g->node), 0);
	verify(g, "going on");
	block_unref(g->node);
	/* And from the disk alone. */
	g->node = memdisk_open(g->disk, "qcow2", g->below, 0, &err);
	assert_non_null(g->node);
	verify(g, "opened again");
	block_unref(g->node);
	memdisk_free(g->disk);
	memdisk_free(g->below);
	evloop_free(g->loop);
	free(g);
	return ops;
}

static void every_request(bool backing, bool on, int with)
{
	struct block_create create = {.size = SIZE, .cluster_bits = 10};
	uint64_t length, ops;
	uint8_t *image = memdisk_make_qcow2(&create, &length);

	assert_non_null(image);
	ops = play(image, length, backing, 0, false, 0);
	assert_true(ops > 100);
	for (uint64_t n = 1; n <= ops; n++)
		play(image, length, backing, n, on, with);
	free(image);
}

static void test_each_fails_once(void **state)
{
	every_request(false, false, -EIO);
	every_request(true, false, -EIO);
}

static void test_disk_full(void **state)
{
	every_request(false, true, -ENOSPC);
	every_request(true, true, -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_fails_once),
		cmocka_unit_test(test_disk_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
