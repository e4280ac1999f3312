/* SPDX-License-Identifier: Apache-2.0 */
/* What the metadata caches keep when they are cleaned, and slices of other sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/block_memdisk.h"

static void test_clean(void **state)
{
	struct block_create c = {.size = 64 * MiB, .cluster_bits = 9};
	uint64_t length;
	uint8_t *image = memdisk_make_qcow2(&c, &length), buf[512] = {1};
	struct evloop *loop = evloop_new(NULL, NULL);
	struct memdisk *m = memdisk_new(loop, image, length, 4 * MiB);
	struct block_node *node = memdisk_open(m, "qcow2", NULL, BLOCK_OPEN_RDWR, NULL);
	struct qcow2 *s = node->opaque;

	assert_non_null(node);
	for (uint64_t at = 0; at < 20; at++)
		assert_int_equal(block_pwrite(node, at * 32768, buf, sizeof(buf), 0), 0);
	/* What is dirty stays, used or not. */
	qcache_clean(&s->l2);
	qcache_clean(&s->l2);
	assert_int_equal(s->l2.count, 20);
	assert_int_equal(block_flush(node), 0);
	/* What was used since the last time stays once more. */
	assert_int_equal(block_pread(node, 0, buf, sizeof(buf)), 0);
	qcache_clean(&s->l2);
	assert_int_equal(s->l2.count, 1);
	qcache_clean(&s->l2);
	qcache_clean(&s->refcounts);
	qcache_clean(&s->refcounts);
	assert_int_equal(s->l2.count + s->refcounts.count, 0);
	for (uint64_t at = 0; at < 20; at++) {
		memset(buf, 0, sizeof(buf));
		assert_int_equal(block_pread(node, at * 32768, buf, sizeof(buf)), 0);
		assert_int_equal(buf[0], 1);
	}
	block_unref(node);
	memdisk_free(m);
	free(image);
	evloop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
