/* SPDX-License-Identifier: Apache-2.0 */
/* Flash as OVMF probes, programs and erases it; its way to the drive; bytes on small ports beside.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hw/legacy/legacy.h"
#include "tests/lib/fake_block.h"
#include "tests/lib/legacy_machine.h"

enum { SIZE = 64 << 10, SECTOR = 4096 };

/* The synchronous calls, which the shared fake has no need of. */
int block_pread(struct block_node *node, uint64_t offset, void *buf, size_t bytes)
{
	memcpy(buf, node->data + offset, bytes);
	return 0;
}

int block_pwrite(struct block_node *node, uint64_t offset, const void *buf, size_t bytes,
		 uint32_t flags)
{
	memcpy(node->data + offset, buf, bytes);
	return 0;
}

int block_flush(struct block_node *node)
{
	return 0;
}

static struct test_machine m;
static struct block_node *node;
static struct drive drive;
static struct device *flash;
static uint64_t base;
static char modes[64];

static void *resolve(void *opaque, const struct prop *prop, const char *name, struct error **err)
{
	return prop->type == PROP_CHARDEV ? (void *)&m.chr.chr : &drive;
}

static void on_mode(struct device *dev, bool array, void *opaque)
{
	size_t n = strlen(modes);

	assert_true(n + 1 < sizeof(modes));
	modes[n] = array ? 'a' : 'c';
	modes[n + 1] = '\0';
}

static void make(void)
{
	flash = device_new(&m.vm, &pflash_desc, NULL);
	assert_true(device_set(flash, "drive", "d", NULL));
	pflash_place_below(flash, UINT64_C(1) << 32);
	assert_true(device_realize(flash, NULL, NULL));
	pflash_set_mode_callback(flash, on_mode, NULL);
	flash->desc->reset(flash);
	base = pflash_base(flash);
}

static int setup(void **state)
{
	test_machine_init(&m);
	m.vm.resolver.resolve = resolve;
	node = fake_block_new(m.vm.loop, SIZE);
	for (unsigned i = 0; i < SIZE; i++)
		node->data[i] = (uint8_t)(i * 31);
	drive = (struct drive){.id = "d", .node = node};
	modes[0] = '\0';
	return 0;
}

static int teardown(void **state)
{
	test_machine_destroy(&m);
	block_unref(node);
	return 0;
}

static uint8_t get(uint64_t at)
{
	return test_read8(&m, base + at);
}

static void put(uint64_t at, uint8_t value)
{
	test_write8(&m, base + at, value);
}

static void test_place_and_contents(void **state)
{
	make();
	assert_int_equal(base, (UINT64_C(1) << 32) - SIZE);
	assert_int_equal(pflash_size(flash), SIZE);
	assert_memory_equal(pflash_memory(flash), node->data, SIZE);
	assert_int_equal(get(7), node->data[7]);
	assert_int_equal(test_read32(&m, base + 5), load_le32(node->data + 5));
	assert_true(pflash_array_mode(flash));
}

/* What OVMF does to find out whether variables can be written. */
static void test_probe(void **state)
{
	make();
	uint8_t original = get(3);
	put(3, 0x50);
	assert_int_equal(get(3), original);
	put(3, 0x70);
	assert_int_equal(get(3), 0x00);
	assert_false(pflash_array_mode(flash));
	put(3, 0xff);
	assert_int_equal(get(3), original);
	assert_string_equal(modes, "ca");
}

static void test_erase_program_and_write_through(void **state)
{
	make();
	put(2 * SECTOR + 5, 0x20);
	put(2 * SECTOR + 5, 0xd0);
	assert_int_equal(get(0) & 0x80, 0x80);
	for (int i = 0; i < 16; i++) {
		put(2 * SECTOR + 100 + i, 0x40);
		put(2 * SECTOR + 100 + i, (uint8_t)(0xa0 + i));
	}
	put(5 * SECTOR, 0x10);
	put(5 * SECTOR, 0x00);
	assert_int_equal(fake_block_count(node, BLOCK_WRITE), 0);
	put(0, 0xff);
	test_settle(&m);
	assert_int_equal(fake_block_count(node, BLOCK_WRITE), 2);
	assert_int_equal(fake_block_count(node, BLOCK_FLUSH), 1);
	assert_int_equal(node->data[2 * SECTOR], 0xff);
	assert_int_equal(node->data[2 * SECTOR + 115], 0xaf);
	assert_int_equal(node->data[5 * SECTOR], 0x00);
	assert_memory_equal(pflash_memory(flash), node->data, SIZE);
	/* Only an erase sets bits. */
	put(5 * SECTOR, 0x40);
	put(5 * SECTOR, 0xff);
	put(5 * SECTOR, 0xff);
	assert_int_equal(get(5 * SECTOR), 0x00);
	assert_string_equal(modes, "caca");
}

static void test_buffered_program(void **state)
{
	make();
	put(SECTOR, 0x20);
	put(SECTOR, 0xd0);
	put(SECTOR, 0xe8);
	assert_int_equal(get(SECTOR) & 0x80, 0x80);
	put(SECTOR, 3);
	for (int i = 0; i < 4; i++)
		put(SECTOR + 8 + i, (uint8_t)(0x10 + i));
	put(SECTOR, 0xd0);
	put(SECTOR, 0xff);
	assert_int_equal(test_read32(&m, base + SECTOR + 8), 0x13121110);
	assert_int_equal(get(SECTOR), 0xff);
	/* Counts and addresses that make no sense. */
	put(SECTOR, 0x50);
	put(SECTOR, 0xe8);
	put(SECTOR, 200);
	put(SECTOR, 0x70);
	assert_int_equal(get(0) & 0x30, 0x30);
	put(SECTOR, 0xe8);
	put(SECTOR, 31);
	for (int i = 0; i < 32; i++)
		put((uint64_t)i * 2000, 0);
	put(SECTOR, 0xd0);
	assert_int_equal(get(0) & 0x30, 0x30);
}

static void test_identification(void **state)
{
	make();
	put(0, 0x90);
	assert_int_equal(get(0), 0x89);
	assert_int_equal(get(1), 0x18);
	put(0, 0x98);
	assert_int_equal(get(0x10), 'Q');
	assert_int_equal(get(0x27), 16);
	assert_int_equal(get(0x2d) | get(0x2e) << 8, SIZE / SECTOR - 1);
	assert_int_equal((get(0x2f) | get(0x30) << 8) * 256, SECTOR);
	flash->desc->reset(flash);
	assert_true(pflash_array_mode(flash));
}

static void test_read_only(void **state)
{
	node->read_only = true;
	make();
	put(0, 0x40);
	put(0, 0x00);
	assert_int_equal(get(0) & 0x10, 0x10);
	put(0, 0x20);
	put(0, 0xd0);
	assert_int_equal(get(0) & 0x30, 0x30);
	put(0, 0xff);
	test_settle(&m);
	assert_int_equal(get(1), node->data[1]);
	assert_int_equal(node->seen_count, 0);
}

static void test_a_failing_drive_stops_and_is_retried(void **state)
{
	enum run_state running = RUN_STATE_RUNNING;

	make();
	drive.werror = BLOCK_ERR_STOP;
	node->fail_count = 1;
	node->fail_error = -EIO;
	put(0, 0x20);
	put(0, 0xd0);
	put(0, 0xff);
	test_settle(&m);
	assert_int_equal(m.last_event.kind, VM_EVENT_BLOCK_IO_ERROR);
	assert_string_equal(m.last_event.action, "stop");
	assert_int_not_equal(node->data[1], 0xff);
	notifier_fire(&m.vm.state_changed, &running);
	test_settle(&m);
	assert_int_equal(node->data[1], 0xff);
	assert_int_equal(fake_block_count(node, BLOCK_FLUSH), 1);
}

static void test_the_end_writes_what_is_left(void **state)
{
	make();
	put(SECTOR, 0x20);
	put(SECTOR, 0xd0); /* no read-array command follows */
	device_free(flash);
	assert_int_equal(node->data[SECTOR + 9], 0xff);
	assert_null(drive.taken_by);
}

static void test_bad_images(void **state)
{
	struct error *err = NULL;
	struct device *dev = device_new(&m.vm, &pflash_desc, NULL);

	assert_false(device_realize(dev, NULL, &err));
	error_free(err);
	err = NULL;
	node->length = SIZE - 512;
	assert_true(device_set(dev, "drive", "d", NULL));
	assert_false(device_realize(dev, NULL, &err));
	assert_non_null(strstr(error_message(err), "multiple of 4096"));
	error_free(err);
	assert_null(drive.taken_by);
	device_free(dev);
	node->length = SIZE;
}

static void test_debug_console(void **state)
{
	test_device(&m, &isa_debugcon_desc, "iobase=0x402,chardev=c");
	assert_int_equal(test_inb(&m, 0x402), 0xe9);
	for (const char *p = "SeaBIOS\n"; *p; p++)
		test_outb(&m, 0x402, *p);
	test_advance(&m, NSEC_PER_MSEC);
	assert_memory_equal(m.chr.out, "SeaBIOS\n", 8);
	assert_int_equal(m.chr.len, 8);
}

static void test_debug_exit_and_panic(void **state)
{
	test_device(&m, &isa_debug_exit_desc, NULL);
	test_device(&m, &pvpanic_desc, NULL);
	assert_int_equal(test_inb(&m, 0x505), 7);
	test_outb(&m, 0x505, 2);
	test_settle(&m);
	assert_int_equal(m.last_event.kind, VM_EVENT_GUEST_CRASHLOADED);
	m.vm.panic_action = PANIC_NONE;
	test_outb(&m, 0x505, 1);
	test_settle(&m);
	assert_int_equal(m.last_event.kind, VM_EVENT_GUEST_PANICKED);
	test_outb(&m, 0x501, 0x10);
	test_settle(&m);
	assert_int_equal(m.vm.exit_status, 0x21);
	assert_true(m.vm.exiting);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_place_and_contents),
		TEST(test_probe),
		TEST(test_erase_program_and_write_through),
		TEST(test_buffered_program),
		TEST(test_identification),
		TEST(test_read_only),
		TEST(test_a_failing_drive_stops_and_is_retried),
		TEST(test_the_end_writes_what_is_left),
		TEST(test_bad_images),
		TEST(test_debug_console),
		TEST(test_debug_exit_and_panic),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
