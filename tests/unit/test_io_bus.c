/* SPDX-License-Identifier: Apache-2.0 */
/* I/O bus: whole accesses only, priorities, cutting, doorbells, changes under readers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "vmm/core/io_bus.h"
#include "vmm/core/notifier.h"
#include "vmm/core/util.h"

struct log_entry {
	uint64_t offset, value;
	unsigned size;
};
static struct log_entry writes[16];
static size_t write_count;

static uint64_t read_offset(void *opaque, uint64_t offset, unsigned size)
{
	return (uintptr_t)opaque + offset;
}

static void log_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	if (write_count < ARRAY_SIZE(writes))
		writes[write_count++] = (struct log_entry){ offset, value, size };
}

static const struct io_ops ops = { read_offset, log_write };

static struct io_region region(uint64_t base, uint64_t size, uintptr_t tag, int priority)
{
	return (struct io_region){ .base = base, .size = size, .ops = &ops,
				   .opaque = (void *)tag, .name = "r", .priority = priority };
}

static void test_an_access_lies_whole_inside_one_region(void **state)
{
	struct io_bus bus;
	struct io_reader reader = { 0 };
	struct io_region a = region(0x100, 4, 0x10, 0), b = region(0x104, 4, 0x20, 0);
	uint32_t v = 0;

	io_bus_init(&bus, 4);
	io_reader_register(&bus, &reader);
	assert_true(io_bus_add(&bus, &a, NULL));
	assert_true(io_bus_add(&bus, &b, NULL));
	assert_true(io_bus_read(&bus, &reader, 0x102, &v, 1));
	assert_int_equal(v & 0xff, 0x12);
	assert_true(io_bus_read(&bus, &reader, 0x104, &v, 4));
	assert_int_equal(v, 0x20);
	assert_false(io_bus_read(&bus, &reader, 0x102, &v, 4));
	assert_int_equal(v, 0xffffffff);
	assert_false(io_bus_read(&bus, &reader, 0x108, &v, 1));
	assert_false(io_bus_read(&bus, &reader, 0xff, &v, 2));
	io_bus_remove(&bus, &a);
	assert_false(io_bus_read(&bus, &reader, 0x100, &v, 1));
	io_bus_destroy(&bus);
}

static void test_overlaps_need_a_priority(void **state)
{
	struct io_bus bus;
	struct io_reader reader = { 0 };
	struct io_region low = region(0x1000, 0x1000, 0x10, 0), same = region(0x1fff, 2, 0x20, 0);
	struct io_region high = region(0x1400, 0x100, 0x5000, 1);
	struct io_region wraps = region(UINT64_MAX - 3, 8, 0, 0), empty = region(0, 0, 0, 0);
	struct error *err = NULL;
	uint32_t v;

	io_bus_init(&bus, 8);
	io_reader_register(&bus, &reader);
	assert_true(io_bus_add(&bus, &low, NULL));
	assert_false(io_bus_add(&bus, &same, &err));
	assert_string_equal(error_message(err), "I/O regions 'r' and 'r' overlap at 0x1fff");
	error_free(err);
	assert_false(io_bus_add(&bus, &low, NULL));
	assert_false(io_bus_add(&bus, &wraps, NULL));
	assert_false(io_bus_add(&bus, &empty, NULL));
	assert_true(io_bus_add(&bus, &high, NULL));
	assert_true(io_bus_read(&bus, &reader, 0x1404, &v, 4));
	assert_int_equal(v, 0x5004);
	assert_true(io_bus_read(&bus, &reader, 0x1500, &v, 4));
	assert_int_equal(v, 0x510);
	assert_false(io_bus_read(&bus, &reader, 0x13fe, &v, 4)); /* straddles */
	io_bus_remove(&bus, &high);
	assert_true(io_bus_read(&bus, &reader, 0x13fe, &v, 4));
	assert_int_equal(v, 0x40e);
	io_bus_destroy(&bus);
}

static void test_wide_accesses_are_cut_little_end_first(void **state)
{
	struct io_bus bus;
	struct io_reader reader = { 0 };
	struct io_region a = region(0, 16, 0, 0);
	uint8_t data[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };

	a.max_access = 2;
	io_bus_init(&bus, 8);
	io_reader_register(&bus, &reader);
	io_bus_add(&bus, &a, NULL);
	write_count = 0;
	assert_true(io_bus_write(&bus, &reader, 4, data, 8));
	assert_int_equal(write_count, 4);
	assert_int_equal(writes[0].offset, 4);
	assert_int_equal(writes[0].value, 0x0201);
	assert_int_equal(writes[3].offset, 10);
	assert_int_equal(writes[3].value, 0x0807);
	write_count = 0;
	assert_true(io_bus_write(&bus, &reader, 4, data, 3)); /* an odd length is two accesses */
	assert_int_equal(write_count, 2);
	assert_int_equal(writes[0].size, 2);
	assert_int_equal(writes[1].size, 1);
	assert_int_equal(writes[1].value, 3);
	io_bus_destroy(&bus);
}

static void test_doorbells_signal_and_do_nothing_else(void **state)
{
	struct io_bus bus;
	struct io_reader reader = { 0 };
	struct io_region a = region(0x1000, 16, 0, 0);
	struct event_notifier n;
	uint16_t three = 3, four = 4;

	assert_int_equal(event_notifier_init(&n), 0);
	struct io_doorbell db = { .addr = 0x1000, .size = 2, .match = true, .value = 3, .fd = n.fd };
	io_bus_init(&bus, 8);
	io_reader_register(&bus, &reader);
	io_bus_add(&bus, &a, NULL);
	assert_true(io_bus_add_doorbell(&bus, &db, NULL));
	write_count = 0;
	assert_true(io_bus_write(&bus, &reader, 0x1000, &three, 2));
	assert_int_equal(write_count, 0);
	assert_true(event_notifier_test_and_clear(&n));
	assert_true(io_bus_write(&bus, &reader, 0x1000, &four, 2));
	assert_int_equal(write_count, 1);
	assert_false(event_notifier_test_and_clear(&n));
	io_bus_remove_doorbell(&bus, &db);
	assert_true(io_bus_write(&bus, &reader, 0x1000, &three, 2));
	assert_int_equal(write_count, 2);
	event_notifier_destroy(&n);
	io_bus_destroy(&bus);
}

static int taken;

static int take(void *opaque, const struct io_doorbell *db)
{
	taken++;
	return 0;
}

static void give_back(void *opaque, const struct io_doorbell *db)
{
	taken--;
}

static void test_the_kernel_takes_doorbells(void **state)
{
	static const struct io_doorbell_ops in_kernel = { take, give_back };
	struct io_bus bus;
	struct io_doorbell db = { .addr = 0x1000, .size = 2, .fd = -1 };

	io_bus_init(&bus, 8);
	taken = 0;
	io_bus_add_doorbell(&bus, &db, NULL);
	io_bus_set_doorbell_ops(&bus, &in_kernel, NULL);
	assert_int_equal(taken, 1);
	io_bus_remove_doorbell(&bus, &db);
	assert_int_equal(taken, 0);
	io_bus_destroy(&bus);
}

/* A region that moves itself from inside its own handler, as a BAR does, while others read. */
struct mover {
	struct io_bus *bus;
	struct io_region region;
	unsigned moves;
};

static void move(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct mover *m = opaque;

	io_bus_remove(m->bus, &m->region);
	m->region.base = value;
	io_bus_add(m->bus, &m->region, NULL);
	m->moves++;
}

static uint64_t read_mark(void *opaque, uint64_t offset, unsigned size)
{
	return 0x5a;
}

static _Atomic bool done;

static void *spin(void *opaque)
{
	struct io_bus *bus = opaque;
	struct io_reader reader = { 0 };
	uintptr_t bad = 0;

	io_reader_register(bus, &reader);
	while (!atomic_load(&done)) {
		uint8_t v;

		if (io_bus_read(bus, &reader, 0x1000, &v, 1) ? v != 0x5a : v != 0xff)
			bad++;
		if (io_bus_read(bus, &reader, 0x9000, &v, 1) ? v != 0x5a : v != 0xff)
			bad++;
	}
	io_reader_unregister(bus, &reader);
	return (void *)bad;
}

static void test_regions_move_under_readers(void **state)
{
	static const struct io_ops mover_ops = { read_mark, move };
	struct io_bus bus;
	struct io_reader reader = { 0 };
	struct mover m = { .bus = &bus,
			   .region = { .base = 0x1000, .size = 8, .ops = &mover_ops, .name = "m" } };
	pthread_t thread;
	void *bad;

	m.region.opaque = &m;
	io_bus_init(&bus, 8);
	io_reader_register(&bus, &reader);
	assert_true(io_bus_add(&bus, &m.region, NULL));
	atomic_store(&done, false);
	pthread_create(&thread, NULL, spin, &bus);
	for (int i = 0; i < 5000; i++) {
		uint16_t to = i % 2 ? 0x1000 : 0x9000;

		assert_true(io_bus_write(&bus, &reader, m.region.base, &to, 2));
	}
	atomic_store(&done, true);
	pthread_join(thread, &bad);
	assert_null(bad);
	assert_int_equal(m.moves, 5000);
	io_bus_quiesce(&bus);
	assert_null(bus.retired);
	io_bus_destroy(&bus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_access_lies_whole_inside_one_region),
		cmocka_unit_test(test_overlaps_need_a_priority),
		cmocka_unit_test(test_wide_accesses_are_cut_little_end_first),
		cmocka_unit_test(test_doorbells_signal_and_do_nothing_else),
		cmocka_unit_test(test_the_kernel_takes_doorbells),
		cmocka_unit_test(test_regions_move_under_readers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
