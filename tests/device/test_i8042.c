/* SPDX-License-Identifier: Apache-2.0 */
/* Keyboard controller, keyboard and mouse: what firmware and Linux do to find and use them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hw/legacy/legacy.h"
#include "tests/lib/legacy_machine.h"

static struct test_machine m;
static struct device *kbc;

static int setup(void **state)
{
	test_machine_init(&m);
	kbc = test_device(&m, &i8042_desc, NULL);
	test_device(&m, &port92_desc, NULL);
	return 0;
}

static int teardown(void **state)
{
	test_machine_destroy(&m);
	return 0;
}

static uint8_t status(void)
{
	return test_inb(&m, 0x64);
}

static void command(uint8_t c)
{
	assert_int_equal(status() & 2, 0);
	test_outb(&m, 0x64, c);
}

/* The next byte; from_aux: whose it must be. */
static uint8_t take(bool from_aux)
{
	assert_int_equal(status() & 0x21, from_aux ? 0x21 : 0x01);
	return test_inb(&m, 0x60);
}

static void to_mouse(uint8_t byte)
{
	command(0xd4);
	test_outb(&m, 0x60, byte);
}

static void enable(uint8_t mode)
{
	command(0x60);
	test_outb(&m, 0x60, mode);
}

static void test_controller_tests(void **state)
{
	command(0xaa);
	assert_int_equal(take(false), 0x55);
	command(0xab);
	assert_int_equal(take(false), 0x00);
	command(0xa9);
	assert_int_equal(take(false), 0x00);
	enable(0x74);
	command(0x20);
	assert_int_equal(take(false), 0x74);
	assert_int_equal(status() & 0x04, 0x04);
	command(0xa8);
	command(0x20);
	assert_int_equal(take(false), 0x54);
	assert_int_equal(status() & 1, 0);
}

static void test_aux_loop_interrupts(void **state)
{
	enable(0x47);
	command(0xd3);
	test_outb(&m, 0x60, 0xa5);
	assert_true(m.irq[12].level);
	assert_false(m.irq[1].level);
	assert_int_equal(take(true), 0xa5);
	assert_false(m.irq[12].level);
}

static void test_keyboard_reset_and_id(void **state)
{
	enable(0x45);
	test_outb(&m, 0x60, 0xff);
	assert_true(m.irq[1].level);
	assert_int_equal(take(false), 0xfa);
	assert_int_equal(take(false), 0xaa);
	test_outb(&m, 0x60, 0xf2);
	assert_int_equal(take(false), 0xfa);
	assert_int_equal(take(false), 0xab);
	assert_int_equal(take(false), 0x41); /* translated */
	assert_int_equal(m.irq[1].edges, 5); /* one for each byte */
	enable(0x05);
	test_outb(&m, 0x60, 0xf2);
	take(false);
	take(false);
	assert_int_equal(take(false), 0x83);
}

static void test_keys_in_each_set(void **state)
{
	enable(0x45);
	ps2_key(kbc, 0x1e, true);
	ps2_key(kbc, 0x1e, false);
	assert_int_equal(take(false), 0x1e);
	assert_int_equal(take(false), 0x9e);
	ps2_key(kbc, PS2_KEY_E0 | 0x48, false);
	assert_int_equal(take(false), 0xe0);
	assert_int_equal(take(false), 0xc8);
	enable(0x05); /* set 2 as it comes */
	ps2_key(kbc, 0x1e, false);
	assert_int_equal(take(false), 0xf0);
	assert_int_equal(take(false), 0x1c);
	ps2_key(kbc, 0x41, true); /* F7 */
	assert_int_equal(take(false), 0x83);
	test_outb(&m, 0x60, 0xf0);
	assert_int_equal(take(false), 0xfa);
	test_outb(&m, 0x60, 3);
	assert_int_equal(take(false), 0xfa);
	ps2_key(kbc, PS2_KEY_E0 | 0x48, true);
	assert_int_equal(take(false), 0x63);
	test_outb(&m, 0x60, 0xf0);
	take(false);
	test_outb(&m, 0x60, 0);
	take(false);
	assert_int_equal(take(false), 3);
}

/* Every set 2 code that a key makes comes out of the translation as that key. */
static void test_translation_is_inverted(void **state)
{
	enable(0x45);
	for (uint8_t code = 1; code <= 0x58; code++) {
		if (code == 0x55)
			continue;
		ps2_key(kbc, code, true);
		assert_int_equal(take(false), code);
	}
}

static void test_commands_with_arguments(void **state)
{
	test_outb(&m, 0x60, 0xed);
	assert_int_equal(take(false), 0xfa);
	test_outb(&m, 0x60, 0x07);
	assert_int_equal(take(false), 0xfa);
	test_outb(&m, 0x60, 0xf3);
	assert_int_equal(take(false), 0xfa);
	test_outb(&m, 0x60, 0x00);
	assert_int_equal(take(false), 0xfa);
	test_outb(&m, 0x60, 0xee);
	assert_int_equal(take(false), 0xee);
	test_outb(&m, 0x60, 0xee);
	test_outb(&m, 0x60, 0xfe);
	take(false);
	assert_int_equal(take(false), 0xee);
	test_outb(&m, 0x60, 0xf5);
	assert_int_equal(take(false), 0xfa);
	ps2_key(kbc, 0x1e, true);
	assert_int_equal(status() & 1, 0);
	test_outb(&m, 0x60, 0xf4);
	assert_int_equal(take(false), 0xfa);
	ps2_key(kbc, 0x1e, true);
	assert_int_equal(status() & 1, 1);
}

static void test_keys_wait_while_the_keyboard_is_off(void **state)
{
	enable(0x55);
	ps2_key(kbc, 0x02, true);
	assert_int_equal(status() & 1, 0);
	command(0xae);
	assert_int_equal(take(false), 0x02);
	for (int i = 0; i < 1000; i++)
		ps2_key(kbc, 0x02, true);
	int n = 0;
	while (status() & 1 && n < 1000) {
		test_inb(&m, 0x60);
		n++;
	}
	assert_in_range(n, 8, 32);
}

static void test_mouse(void **state)
{
	enable(0x03);
	to_mouse(0xff);
	assert_true(m.irq[12].level);
	assert_int_equal(take(true), 0xfa);
	assert_int_equal(take(true), 0xaa);
	assert_int_equal(take(true), 0x00);
	static const uint8_t rates[] = {200, 100, 80};
	for (int i = 0; i < 3; i++) {
		to_mouse(0xf3);
		assert_int_equal(take(true), 0xfa);
		to_mouse(rates[i]);
		assert_int_equal(take(true), 0xfa);
	}
	to_mouse(0xf2);
	assert_int_equal(take(true), 0xfa);
	assert_int_equal(take(true), 0x03);
	ps2_mouse(kbc, 5, 5, 0, 0);
	assert_int_equal(status() & 1, 0); /* not asked to report */
	to_mouse(0xf4);
	assert_int_equal(take(true), 0xfa);
	ps2_mouse(kbc, -3, 300, -1, 1);
	assert_int_equal(take(true), 0x19);
	assert_int_equal(take(true), 0xfd);
	assert_int_equal(take(true), 0xff);
	assert_int_equal(take(true), 0xff);
	assert_int_equal(take(true), 0x09); /* the rest of the 300 */
	assert_int_equal(take(true), 0x00);
	assert_int_equal(take(true), 45);
	assert_int_equal(take(true), 0x00);
	assert_int_equal(status() & 1, 0);
	to_mouse(0xe9);
	assert_int_equal(take(true), 0xfa);
	assert_int_equal(take(true), 0x24);
	assert_int_equal(take(true), 2);
	assert_int_equal(take(true), 80);
}

static void test_ways_to_reset(void **state)
{
	command(0xfe);
	assert_true(atomic_load(&m.vm.stop_requested));
	assert_true(atomic_load(&m.vm.requests) != 0);
	test_settle(&m);
	atomic_store(&m.vm.requests, 0);
	test_outb(&m, 0x92, 0x02);
	assert_int_equal(atomic_load(&m.vm.requests), 0);
	test_outb(&m, 0x92, 0x03);
	assert_true(atomic_load(&m.vm.requests) != 0);
	test_settle(&m);
	command(0xd1);
	test_outb(&m, 0x60, 0xdf);
	assert_int_equal(atomic_load(&m.vm.requests), 0);
	command(0xd1);
	test_outb(&m, 0x60, 0xde);
	assert_true(atomic_load(&m.vm.requests) != 0);
}

static void test_unread_replies_do_no_harm(void **state)
{
	for (int i = 0; i < 1000; i++) {
		test_outb(&m, 0x64, (uint8_t)(i * 7));
		test_outb(&m, 0x60, (uint8_t)(i * 13));
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_controller_tests),
		TEST(test_aux_loop_interrupts),
		TEST(test_keyboard_reset_and_id),
		TEST(test_keys_in_each_set),
		TEST(test_translation_is_inverted),
		TEST(test_commands_with_arguments),
		TEST(test_keys_wait_while_the_keyboard_is_off),
		TEST(test_mouse),
		TEST(test_ways_to_reset),
		TEST(test_unread_replies_do_no_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
