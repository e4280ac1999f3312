/* SPDX-License-Identifier: Apache-2.0 */
/* The memory map: carving, merging, searching, wire form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "target-x86/e820.h"
#include "vmm/core/util.h"

static void expect(const struct e820 *map, size_t i, uint64_t base, uint64_t size, uint32_t type)
{
	assert_true(i < map->count);
	assert_int_equal(map->entries[i].base, base);
	assert_int_equal(map->entries[i].size, size);
	assert_int_equal(map->entries[i].type, type);
}

static void test_later_ranges_carve_earlier_ones(void **state)
{
	struct e820 map;
	e820_init(&map);
	e820_add(&map, 0, 256 * MiB, E820_RAM);
	e820_add(&map, 0x9fc00, 0x400, E820_RESERVED);
	e820_add(&map, 0xf0000, 0x10000, E820_RESERVED);
	e820_add(&map, 255 * MiB, MiB, E820_ACPI);
	assert_int_equal(map.count, 6);
	expect(&map, 0, 0, 0x9fc00, E820_RAM);
	expect(&map, 1, 0x9fc00, 0x400, E820_RESERVED);
	expect(&map, 2, 0xa0000, 0x50000, E820_RAM);
	expect(&map, 3, 0xf0000, 0x10000, E820_RESERVED);
	expect(&map, 4, MiB, 254 * MiB, E820_RAM);
	expect(&map, 5, 255 * MiB, MiB, E820_ACPI);
	e820_remove(&map, 0xa0000, 0x50000);
	assert_int_equal(map.count, 5);
	assert_null(e820_find(&map, 0xa0000));
	e820_add(&map, 0, 256 * MiB, E820_RAM);
	assert_int_equal(map.count, 1);
	e820_destroy(&map);
}

static void test_neighbours_merge(void **state)
{
	struct e820 map;
	e820_init(&map);
	e820_add(&map, 0x1000, 0x1000, E820_RAM);
	e820_add(&map, 0x3000, 0x1000, E820_RAM);
	e820_add(&map, 0x2000, 0x1000, E820_RAM);
	assert_int_equal(map.count, 1);
	expect(&map, 0, 0x1000, 0x3000, E820_RAM);
	e820_add(&map, 0, 0, E820_RAM);
	assert_int_equal(map.count, 1);
	e820_destroy(&map);
}

static void test_the_last_byte_does_not_wrap(void **state)
{
	struct e820 map;
	e820_init(&map);
	e820_add(&map, UINT64_MAX - 0xfff, UINT64_MAX, E820_RESERVED);
	expect(&map, 0, UINT64_MAX - 0xfff, 0x1000, E820_RESERVED);
	assert_non_null(e820_find(&map, UINT64_MAX));
	e820_add(&map, UINT64_MAX - 0x7ff, 0x800, E820_RAM);
	assert_int_equal(map.count, 2);
	expect(&map, 0, UINT64_MAX - 0xfff, 0x800, E820_RESERVED);
	e820_remove(&map, 0, UINT64_MAX);
	expect(&map, 0, UINT64_MAX, 1, E820_RAM);
	e820_destroy(&map);
}

static void test_search_from_the_top(void **state)
{
	struct e820 map;
	uint64_t at;
	e820_init(&map);
	e820_add(&map, 0, 0x9fc00, E820_RAM);
	e820_add(&map, MiB, 127 * MiB, E820_RAM);
	e820_add(&map, 4 * GiB, GiB, E820_RAM);
	assert_true(e820_alloc_top(&map, 0x1800, 0x1000, MiB, 4 * GiB, &at));
	assert_int_equal(at, 128 * MiB - 0x2000);
	assert_true(e820_alloc_top(&map, 127 * MiB, 0x1000, MiB, 4 * GiB, &at));
	assert_int_equal(at, MiB);
	assert_false(e820_alloc_top(&map, 127 * MiB + 1, 0x1000, MiB, 4 * GiB, &at));
	assert_true(e820_alloc_top(&map, 0x1000, 0x1000, 0, 64 * MiB, &at));
	assert_int_equal(at, 64 * MiB - 0x1000);
	assert_true(e820_alloc_top(&map, 0x1000, 0x1000, 0, UINT64_MAX, &at));
	assert_int_equal(at, 5 * GiB - 0x1000);
	assert_false(e820_alloc_top(&map, UINT64_MAX, 1, 0, UINT64_MAX, &at));
	assert_true(e820_alloc_bottom(&map, 0x1000, 0x1000, 0x1234, 4 * GiB, &at));
	assert_int_equal(at, 0x2000);
	assert_true(e820_alloc_bottom(&map, 128 * MiB, 0x1000, 0, UINT64_MAX, &at));
	assert_int_equal(at, 4 * GiB);
	assert_false(e820_alloc_bottom(&map, 128 * MiB, 0x1000, 0, 4 * GiB, &at));
	assert_true(e820_is_ram(&map, MiB, 127 * MiB));
	assert_false(e820_is_ram(&map, MiB, 127 * MiB + 1));
	assert_false(e820_is_ram(&map, 0x9f000, 0x1000));
	e820_destroy(&map);
}

static void test_wire_form(void **state)
{
	static const uint8_t want[] = {0,    0, 0x10, 0, 0, 0, 0, 0, 0, 0,
				       0xf0, 7, 0,    0, 0, 0, 1, 0, 0, 0};
	struct e820 map;
	uint8_t buf[3 * E820_WIRE_SIZE];
	e820_init(&map);
	e820_add(&map, 0, 0x1000, E820_NVS);
	e820_add(&map, MiB, 127 * MiB, E820_RAM);
	assert_int_equal(e820_to_wire(&map, 0, 3, buf), 2);
	assert_memory_equal(buf + E820_WIRE_SIZE, want, sizeof(want));
	assert_int_equal(e820_to_wire(&map, 1, 3, buf), 1);
	assert_memory_equal(buf, want, sizeof(want));
	assert_int_equal(e820_to_wire(&map, 2, 3, buf), 0);
	e820_destroy(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_later_ranges_carve_earlier_ones),
		cmocka_unit_test(test_neighbours_merge),
		cmocka_unit_test(test_the_last_byte_does_not_wrap),
		cmocka_unit_test(test_search_from_the_top),
		cmocka_unit_test(test_wire_form),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
