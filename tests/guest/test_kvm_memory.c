/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory slots of KVM: ROM, the dirty log, what may be mapped, changes while the guest runs.
 * Skipped where there is no /dev/kvm.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/guest/guest.h"
#include "vmm/core/util.h"

GUEST_CODE_PIECE(hello);
GUEST_CODE_PIECE(rom);
GUEST_CODE_PIECE(dirty);
GUEST_CODE_PIECE(watch);

enum { HIGH = 0xc0000000u };

static void *map_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void test_readonly(void **state)
{
	struct guest g;
	uint32_t *rom;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(rom)});
	rom = map_pages(4096);
	rom[0] = 0xabcdef01;
	rom[2] = 0x11111111;
	assert_int_equal(g.accel->ops->mem_map(g.accel, HIGH, 4096, rom, ACCEL_MEM_READONLY), 0);
	io_bus_remove(&g.vm.mmio, &g.mmio);
	g.mmio.base = HIGH;
	assert_true(io_bus_add(&g.vm.mmio, &g.mmio, NULL));
	assert_true(guest_run(&g));
	assert_int_equal(g.numbers_got[0], 0xabcdef01);
	assert_int_equal(g.numbers_got[1], 0x11111111);
	assert_int_equal(g.mmio_reads, 0);
	assert_int_equal(g.mmio_writes, 1);
	assert_int_equal(load_le32(g.mmio_bytes + 8), 0x12345678);
	assert_int_equal(rom[2], 0x11111111);
	guest_destroy(&g);
	munmap(rom, 4096);
}

static void test_dirty_log(void **state)
{
	enum { PAGES = 80, SIZE = PAGES * 4096 };
	const struct accel_ops *ops;
	uint64_t bitmap[2];
	struct guest g;
	void *memory;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(dirty)});
	ops = g.accel->ops;
	memory = map_pages(SIZE);
	assert_int_equal(ops->mem_map(g.accel, HIGH, SIZE, memory, 0), 0);
	assert_true(guest_run(&g));
	assert_int_equal(ops->dirty_get(g.accel, HIGH, SIZE, bitmap), -ENOENT);

	/* Switched on in place. */
	assert_int_equal(ops->mem_map(g.accel, HIGH, SIZE, memory, ACCEL_MEM_DIRTY_LOG), 0);
	assert_int_equal(ops->dirty_get(g.accel, HIGH, SIZE, bitmap), 0);
	assert_true(guest_rerun(&g));
	memset(bitmap, 0xff, sizeof(bitmap));
	assert_int_equal(ops->dirty_get(g.accel, HIGH, SIZE, bitmap), 0);
	assert_int_equal(bitmap[0], 1 << 3 | 1 << 5);
	assert_int_equal(bitmap[1], 1 << 6);
	assert_int_equal(ops->dirty_get(g.accel, HIGH, SIZE, bitmap), 0);
	assert_int_equal(bitmap[0] | bitmap[1], 0);
	assert_int_equal(ops->mem_map(g.accel, HIGH, SIZE, memory, 0), 0);
	guest_destroy(&g);
	munmap(memory, SIZE);
}

static void test_slot_rules(void **state)
{
	const struct accel_ops *ops;
	struct guest g;
	char *memory;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(hello)});
	ops = g.accel->ops;
	memory = map_pages(256 * 4096);
	assert_int_equal(ops->mem_map(g.accel, HIGH + 1, 4096, memory, 0), -EINVAL);
	assert_int_equal(ops->mem_map(g.accel, HIGH, 4095, memory, 0), -EINVAL);
	assert_int_equal(ops->mem_map(g.accel, HIGH, 0, memory, 0), -EINVAL);
	assert_int_equal(ops->mem_map(g.accel, -4096ull, 8192, memory, 0), -EINVAL);
	assert_int_equal(ops->mem_map(g.accel, HIGH, 4096, memory + 1, 0), -EINVAL);
	/* Every second page, backwards, then the gaps. */
	for (int i = 254; i >= 0; i -= 2)
		assert_int_equal(ops->mem_map(g.accel, HIGH + i * 4096, 4096, memory + i * 4096, 0),
				 0);
	assert_int_equal(ops->mem_map(g.accel, HIGH + 4096, 8192, memory, 0), -EEXIST);
	assert_int_equal(ops->mem_map(g.accel, HIGH - 4096, 8192, memory, 0), -EEXIST);
	assert_int_equal(ops->mem_map(g.accel, HIGH, 4096, memory + 4096, 0), -EEXIST);
	for (int i = 1; i < 256; i += 2)
		assert_int_equal(ops->mem_map(g.accel, HIGH + i * 4096, 4096, memory + i * 4096, 0),
				 0);
	assert_int_equal(ops->mem_unmap(g.accel, HIGH, 8192), -ENOENT);
	assert_int_equal(ops->mem_unmap(g.accel, HIGH + 256 * 4096, 4096), -ENOENT);
	for (int i = 0; i < 256; i++)
		assert_int_equal(ops->mem_unmap(g.accel, HIGH + i * 4096, 4096), 0);
	assert_true(guest_run(&g));
	guest_destroy(&g);
	munmap(memory, 256 * 4096);
}

static void test_remap_while_running(void **state)
{
	const struct accel_ops *ops;
	struct guest g;
	uint32_t *memory;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(watch)});
	ops = g.accel->ops;
	memory = map_pages(4096);
	*memory = 0x600d600d;
	vm_start(&g.vm);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(ops->mem_map(g.accel, HIGH, 4096, memory, 0), 0);
		usleep(100);
		assert_int_equal(ops->mem_unmap(g.accel, HIGH, 4096), 0);
		usleep(100);
	}
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	assert_int_equal(guest_data64(&g, 0), 0);
	assert_true(guest_data64(&g, 8) > 0);
	assert_true(guest_data64(&g, 16) > 0);
	guest_destroy(&g);
	munmap(memory, 4096);
}

/* An argument chooses tests by a pattern ("test_mm*"). */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_slot_rules),
		cmocka_unit_test(test_remap_while_running),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
