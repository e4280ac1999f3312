/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory: bounds, seams between regions, all or nothing, dirty marks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "vmm/core/guest_mem.h"
#include "vmm/core/util.h"

static uint8_t low[0x2000], high[0x1000], beyond[0x1000];

static void set_up(struct guest_mem *gm)
{
	guest_mem_init(gm);
	memset(low, 0, sizeof(low));
	memset(high, 0, sizeof(high));
	assert_true(guest_mem_add(gm, &(struct mem_region){ .gpa = 0x100000000, .size = 0x1000,
							    .hva = beyond, .fd = -1 }, NULL));
	assert_true(guest_mem_add(gm, &(struct mem_region){ .gpa = 0, .size = 0x2000, .hva = low,
							    .fd = -1 }, NULL));
	assert_true(guest_mem_add(gm, &(struct mem_region){ .gpa = 0x2000, .size = 0x1000,
							    .hva = high, .fd = -1 }, NULL));
}

static void test_copies_cross_seams_or_do_nothing(void **state)
{
	struct guest_mem gm;
	char buf[8] = "";

	set_up(&gm);
	assert_int_equal(gm_total(&gm), 0x4000);
	assert_true(gm_write(&gm, 0x1ffd, "abcdef", 6));
	assert_memory_equal(low + 0x1ffd, "abc", 3);
	assert_memory_equal(high, "def", 3);
	assert_true(gm_read(&gm, 0x1ffd, buf, 6));
	assert_memory_equal(buf, "abcdef", 6);
	assert_false(gm_write(&gm, 0x2ffe, "xyz", 3));
	assert_int_equal(high[0xffe], 0);
	assert_false(gm_read(&gm, UINT64_MAX, buf, 2));
	assert_false(gm_read(&gm, 0x100000ffe, buf, 3));
	assert_true(gm_read(&gm, 0x5000000, buf, 0));
	guest_mem_destroy(&gm);
}

static void test_map(void **state)
{
	struct guest_mem gm;
	struct iovec iov[2];

	set_up(&gm);
	assert_int_equal(gm_map(&gm, 0x1000, 0x1800, GM_FROM_GUEST, iov, 2), 2);
	assert_ptr_equal(iov[0].iov_base, low + 0x1000);
	assert_int_equal(iov[0].iov_len, 0x1000);
	assert_ptr_equal(iov[1].iov_base, high);
	assert_int_equal(iov[1].iov_len, 0x800);
	assert_int_equal(gm_map(&gm, 0x1000, 0x1800, GM_FROM_GUEST, iov, 1), -E2BIG);
	assert_int_equal(gm_map(&gm, 0x2000, 0x1001, GM_FROM_GUEST, iov, 2), -EFAULT);
	assert_int_equal(gm_map(&gm, UINT64_MAX - 1, 4, GM_FROM_GUEST, iov, 2), -EFAULT);
	assert_int_equal(gm_map(&gm, 0, UINT64_MAX, GM_FROM_GUEST, iov, 2), -EFAULT);
	assert_int_equal(gm_map(&gm, 0x9999, 0, GM_FROM_GUEST, iov, 2), 0);
	assert_null(gm_ptr(&gm, 0x1fff, 2, GM_FROM_GUEST));
	assert_ptr_equal(gm_ptr(&gm, 0x1ffe, 2, GM_FROM_GUEST), low + 0x1ffe);
	guest_mem_destroy(&gm);
}

static void test_overlaps_and_wraps_are_refused(void **state)
{
	struct guest_mem gm;

	set_up(&gm);
	assert_false(guest_mem_add(&gm, &(struct mem_region){ .gpa = 0x2000, .size = 0x1000 }, NULL));
	assert_false(guest_mem_add(&gm, &(struct mem_region){ .gpa = 0xffffffff, .size = 2 }, NULL));
	assert_false(guest_mem_add(&gm, &(struct mem_region){ .gpa = UINT64_MAX, .size = 2 }, NULL));
	assert_false(guest_mem_add(&gm, &(struct mem_region){ .gpa = 0x5000, .size = 0 }, NULL));
	guest_mem_remove(&gm, 0x2000);
	assert_null(gm_ptr(&gm, 0x2000, 1, GM_FROM_GUEST));
	assert_true(guest_mem_add(&gm, &(struct mem_region){ .gpa = 0x2000, .size = 0x1000,
							     .hva = beyond }, NULL));
	assert_ptr_equal(gm_ptr(&gm, 0x2000, 1, GM_FROM_GUEST), beyond);
	guest_mem_destroy(&gm);
}

static void test_writes_mark_pages(void **state)
{
	_Atomic uint64_t dirty[1] = { 0 };
	struct guest_mem gm;
	struct iovec iov[1];

	guest_mem_init(&gm);
	assert_true(guest_mem_add(&gm, &(struct mem_region){ .gpa = 0x10000, .size = 0x2000,
							     .hva = low, .flags = GM_DIRTY_LOG,
							     .dirty = dirty }, NULL));
	assert_int_equal(gm_map(&gm, 0x10000, 4, GM_FROM_GUEST, iov, 1), 1);
	assert_int_equal(dirty[0], 0);
	assert_true(gm_write(&gm, 0x10ffe, "abcd", 4));
	assert_int_equal(dirty[0], 3);
	dirty[0] = 0;
	assert_int_equal(gm_map(&gm, 0x11000, 4, GM_TO_GUEST, iov, 1), 1);
	assert_int_equal(dirty[0], 2);
	guest_mem_destroy(&gm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copies_cross_seams_or_do_nothing),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_overlaps_and_wraps_are_refused),
		cmocka_unit_test(test_writes_mark_pages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
