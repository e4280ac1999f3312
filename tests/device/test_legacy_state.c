/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State tables of the old devices: a device in the middle of something is saved, another of its
 * kind loads it, and the guest sees no difference; bytes that no device wrote are refused or do no
 * harm.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hw/legacy/legacy.h"
#include "tests/lib/legacy_machine.h"
#include "tests/lib/state_copy.h"
#include "vmm/core/util.h"

enum { ROOM = 32768, SERIAL_REGISTERS = 19 };

static struct test_machine from, to;
static uint8_t bytes[ROOM];

static int setup(void **state)
{
	test_machine_init(&from);
	test_machine_init(&to);
	to.clock.now = 77 * NSEC_PER_SEC; /* another host's clock */
	return 0;
}

static int teardown(void **state)
{
	test_machine_destroy(&from);
	test_machine_destroy(&to);
	return 0;
}

static void move(struct device *a, struct device *b)
{
	size_t len = state_save(a->desc->state, a, bytes, sizeof(bytes));
	struct error *err = NULL;

	if (!state_load(b->desc->state, b, bytes, len, &err))
		fail_msg("%s", error_message(err));
}

static void test_serial(void **state)
{
	struct device *a = test_device(&from, &isa_serial_desc, "chardev=c");
	struct device *b = test_device(&to, &isa_serial_desc, "chardev=c");

	from.chr.room = 3;
	test_outb(&from, 0x3f8 + 2, 0x81);
	test_outb(&from, 0x3f8 + 1, 0x01);
	test_outb(&from, 0x3f8 + 7, 0x42);
	for (const char *p = "abcdef"; *p; p++)
		test_outb(&from, 0x3f8, *p);
	test_advance(&from, 2 * NSEC_PER_MSEC);
	test_type(&from, "12345678", 8);
	assert_int_equal(test_inb(&from, 0x3f8), '1');
	move(a, b);
	assert_int_equal(test_inb(&to, 0x3f8 + 7), 0x42);
	for (char c = '2'; c <= '8'; c++)
		assert_int_equal(test_inb(&to, 0x3f8), c);
	test_advance(&to, 2 * NSEC_PER_MSEC);
	assert_int_equal(to.chr.len, 3);
	assert_memory_equal(to.chr.out, "def", 3);
}

static void test_a_timeout_comes_after_loading(void **state)
{
	struct device *a = test_device(&from, &isa_serial_desc, "chardev=c");
	struct device *b = test_device(&to, &isa_serial_desc, "chardev=c");

	test_outb(&from, 0x3f8 + 2, 0x81);
	test_outb(&from, 0x3f8 + 1, 0x01);
	test_type(&from, "1", 1);
	move(a, b);
	assert_false(to.irq[4].level);
	test_advance(&to, 20 * NSEC_PER_MSEC);
	assert_true(to.irq[4].level);
}

static void test_keyboard(void **state)
{
	struct device *a = test_device(&from, &i8042_desc, NULL);
	struct device *b = test_device(&to, &i8042_desc, NULL);

	test_outb(&from, 0x64, 0x60);
	test_outb(&from, 0x60, 0x45);
	ps2_key(a, 0x1e, true);
	ps2_key(a, 0x1e, false);
	test_outb(&from, 0x64, 0xd4); /* a byte for the mouse is to follow */
	move(a, b);
	assert_true(to.irq[1].level);
	assert_int_equal(test_inb(&to, 0x60), 0x1e);
	assert_int_equal(test_inb(&to, 0x60), 0x9e);
	test_outb(&to, 0x60, 0xf2);
	assert_int_equal(test_inb(&to, 0x64) & 0x21, 0x21);
}

static void test_clock(void **state)
{
	struct device *a = test_device(&from, &mc146818rtc_desc,
				       "base=2006-06-17T16:01:21,clock=rt");
	struct device *b = test_device(&to, &mc146818rtc_desc, "base=2020-01-01,clock=rt");

	cmos_set(a, 0x40, 0x99);
	from.clock.now += 5 * NSEC_PER_SEC;
	move(a, b);
	assert_int_equal(cmos_get(b, 0x40), 0x99);
	test_outb(&to, 0x70, 9);
	assert_int_equal(test_inb(&to, 0x71), 0x06);
	test_outb(&to, 0x70, 0x0b);
	test_outb(&to, 0x71, 0x12);
	to.clock.now += NSEC_PER_SEC;
	test_settle(&to);
	test_outb(&to, 0x70, 4);
	assert_int_equal(test_inb(&to, 0x71), 0x16);
}

static void test_timer(void **state)
{
	struct device *a = test_device(&from, &i8254_desc, NULL);
	struct device *b = test_device(&to, &i8254_desc, NULL);

	test_outb(&from, 0x43, 0x30);
	test_outb(&from, 0x40, 0xa9); /* 1193: 1 ms */
	test_outb(&from, 0x40, 0x04);
	from.clock.now += NSEC_PER_MSEC / 2;
	move(a, b);
	test_settle(&to);
	to.clock.now += NSEC_PER_MSEC * 4 / 10;
	test_settle(&to);
	assert_int_equal(to.irq[0].edges, 0);
	to.clock.now += NSEC_PER_MSEC * 2 / 10;
	test_settle(&to);
	assert_int_equal(to.irq[0].edges, 1);
}

static void test_interrupt_controllers(void **state)
{
	struct device *a = test_device(&from, &i8259_desc, NULL);
	struct device *b = test_device(&to, &i8259_desc, NULL);
	struct device *c = test_device(&from, &ioapic_desc, NULL);
	struct device *d = test_device(&to, &ioapic_desc, NULL);

	test_outb(&from, 0x20, 0x11);
	test_outb(&from, 0x21, 0x40);
	test_outb(&from, 0x21, 4);
	test_outb(&from, 0x21, 1);
	irq_set(i8259_input(a, 3), true);
	move(a, b);
	assert_true(i8259_pending(b));
	assert_int_equal(i8259_acknowledge(b), 0x43);

	test_write32(&from, 0xfec00000, 0x14);
	test_write32(&from, 0xfec00010, 0x8055);
	move(c, d);
	test_write32(&to, 0xfec00000, 0x14);
	assert_int_equal(test_read32(&to, 0xfec00010), 0x8055);
}

/* Every kind: all bits set, then noise; and the device still answers afterwards. */
static void test_hostile_bytes(void **state)
{
	static const struct device_desc *const kinds[] = {
		&isa_serial_desc, &mc146818rtc_desc, &i8042_desc, &port92_desc,
		&i8259_desc,	  &ioapic_desc,	     &i8254_desc,
	};
	uint32_t noise = 1;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct device *a = test_device(&from, kinds[i], NULL);
		size_t len = state_save(kinds[i]->state, a, bytes, sizeof(bytes));
		/* Behind the serial port's registers is a counted array: the loader's to refuse. */
		size_t noisy = kinds[i] == &isa_serial_desc ? SERIAL_REGISTERS : len;

		for (int round = 0; round < 50; round++) {
			for (size_t k = 0; k < noisy; k++) {
				noise = noise * 1664525 + 1013904223;
				bytes[k] = round ? noise >> 24 : 0xff;
			}
			struct error *err = NULL;
			if (!state_load(kinds[i]->state, a, bytes, len, &err))
				error_free(err);
			from.clock.now += NSEC_PER_SEC;
			test_settle(&from);
			if (kinds[i]->reset)
				kinds[i]->reset(a);
			for (uint16_t port = 0x20; port < 0x100; port++)
				test_inb(&from, port);
			for (uint16_t port = 0x3f8; port < 0x400; port++)
				test_inb(&from, port);
		}
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_serial),	  TEST(test_a_timeout_comes_after_loading),
		TEST(test_keyboard),	  TEST(test_clock),
		TEST(test_timer),	  TEST(test_interrupt_controllers),
		TEST(test_hostile_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
