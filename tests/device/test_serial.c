/* SPDX-License-Identifier: Apache-2.0 */
/* The 16550 as a driver sees it: transmit, receive, interrupts and their order, loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "hw/legacy/legacy.h"
#include "tests/lib/legacy_machine.h"
#include "vmm/core/util.h"

enum { COM1 = 0x3f8, COM3 = 0x3e8, RBR = 0, IER = 1, IIR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6 };

static int setup(void **state)
{
	static struct test_machine m;

	test_machine_init(&m);
	*state = &m;
	return 0;
}

static int teardown(void **state)
{
	test_machine_destroy(*state);
	return 0;
}

static uint8_t in(struct test_machine *m, int reg)
{
	return test_inb(m, COM1 + reg);
}

static void out(struct test_machine *m, int reg, uint8_t value)
{
	test_outb(m, COM1 + reg, value);
}

static void test_text_reaches_the_chardev_in_few_writes(void **state)
{
	struct test_machine *m = *state;
	const char *text = "Linux version 6.1 on a serial line\r\n";

	test_device(m, &isa_serial_desc, "chardev=c");
	assert_int_equal(in(m, LSR) & 0x60, 0x60);
	out(m, RBR, 'x');
	test_settle(m);
	assert_int_equal(m->chr.len, 1); /* the first byte at once */
	for (const char *p = text; *p; p++)
		out(m, RBR, *p);
	test_settle(m);
	assert_int_equal(m->chr.len, 1); /* the rest together, soon */
	test_advance(m, NSEC_PER_MSEC);
	assert_memory_equal(m->chr.out + 1, text, strlen(text));
	assert_int_equal(m->chr.writes, 2);
	test_advance(m, 10 * NSEC_PER_MSEC);
	out(m, RBR, 'y');
	test_settle(m);
	assert_int_equal(m->chr.out[m->chr.len - 1], 'y'); /* idle again: at once */
}

static void test_a_full_chardev_holds_thre_down(void **state)
{
	struct test_machine *m = *state;
	unsigned sent = 0;

	test_device(m, &isa_serial_desc, "chardev=c");
	out(m, IIR, 1);
	m->chr.room = 100;
	while (in(m, LSR) & 0x20) {
		for (int i = 0; i < 16; i++)
			out(m, RBR, 'a' + sent++ % 26);
		test_settle(m);
		assert_true(sent < 100000);
	}
	assert_int_equal(m->chr.len, 100);
	out(m, IER, 2);
	assert_false(m->irq[4].level);
	m->chr.room = SIZE_MAX;
	m->chr.chr.peer->writable(m->chr.chr.peer->opaque);
	assert_true(m->irq[4].level);
	assert_int_equal(in(m, IIR), 0xc2);
	assert_int_equal(m->chr.len, sent);
	for (unsigned i = 0; i < sent; i++)
		assert_int_equal(m->chr.out[i], 'a' + i % 26);
}

static void test_thre_interrupt_comes_with_each_enabling(void **state)
{
	struct test_machine *m = *state;

	test_device(m, &isa_serial_desc, "chardev=c");
	out(m, IER, 2);
	assert_int_equal(in(m, IIR), 2);
	assert_int_equal(in(m, IIR), 1); /* reading it takes it back */
	assert_false(m->irq[4].level);
	out(m, IER, 0);
	out(m, IER, 2);
	assert_true(m->irq[4].level);
	out(m, RBR, 'a');
	assert_int_equal(in(m, IIR), 2);
	assert_int_equal(m->irq[4].edges, 2);
}

static void test_receive_fifo_trigger_and_timeout(void **state)
{
	struct test_machine *m = *state;

	test_device(m, &isa_serial_desc, "chardev=c");
	out(m, LCR, 0x83);
	out(m, RBR, 1); /* 115200 */
	out(m, IER, 0);
	out(m, LCR, 3);
	out(m, IIR, 0x81); /* trigger at 8 */
	out(m, IER, 1);
	assert_int_equal(test_type(m, "1234567", 7), 7);
	assert_false(m->irq[4].level);
	test_advance(m, NSEC_PER_MSEC); /* four characters are 350 us */
	assert_true(m->irq[4].level);
	assert_int_equal(in(m, IIR), 0xcc);
	assert_int_equal(in(m, RBR), '1');
	assert_false(m->irq[4].level);
	test_type(m, "89", 2);
	assert_int_equal(in(m, IIR), 0xc4);
	for (int i = 2; i <= 9; i++)
		assert_int_equal(in(m, RBR), '0' + i);
	assert_false(m->irq[4].level);
	assert_int_equal(in(m, LSR) & 1, 0);
}

static void test_what_does_not_fit_waits_at_the_chardev(void **state)
{
	struct test_machine *m = *state;
	const char text[] = "abcdefghijklmnopqrstuvwxyz";
	char got[27] = "";

	test_device(m, &isa_serial_desc, "chardev=c");
	out(m, IIR, 1);
	unsigned accepts = m->chr.accepts;
	size_t sent = test_type(m, text, 26);
	assert_int_equal(sent, 16);
	for (int i = 0; i < 16; i++)
		got[i] = in(m, RBR);
	test_settle(m);
	assert_int_equal(m->chr.accepts, accepts + 1); /* one request, when it is empty */
	assert_int_equal(test_type(m, text + sent, 10), 10);
	for (int i = 16; i < 26; i++)
		got[i] = in(m, RBR);
	assert_string_equal(got, text);
	assert_int_equal(in(m, LSR) & 0x02, 0);
}

static void test_priorities(void **state)
{
	struct test_machine *m = *state;

	test_device(m, &isa_serial_desc, "chardev=c");
	out(m, MCR, 0);
	out(m, IER, 0x0f);
	m->chr.chr.peer->event(m->chr.chr.peer->opaque, CHARDEV_BREAK);
	out(m, MCR, 0x10); /* loopback changes the modem lines */
	assert_int_equal(in(m, IIR), 6);
	assert_int_equal(in(m, LSR) & 0x1f, 0x19);
	assert_int_equal(in(m, IIR), 4);
	assert_int_equal(in(m, RBR), 0);
	assert_int_equal(in(m, IIR), 2);
	assert_int_equal(in(m, IIR), 0);
	assert_int_equal(in(m, MSR) & 0x0f, 0x0b);
	assert_int_equal(in(m, IIR), 1);
	assert_false(m->irq[4].level);
}

static void test_loopback(void **state)
{
	struct test_machine *m = *state;

	test_device(m, &isa_serial_desc, "chardev=c");
	out(m, MCR, 0x1a);
	assert_int_equal(in(m, MSR) & 0xf0, 0x90); /* what Linux probes for */
	out(m, RBR, 0x5a);
	assert_int_equal(in(m, LSR) & 1, 1);
	assert_int_equal(in(m, RBR), 0x5a);
	test_advance(m, NSEC_PER_MSEC);
	assert_int_equal(m->chr.len, 0);
	assert_int_equal(m->chr.chr.peer->can_receive(m->chr.chr.peer->opaque), 0);
	unsigned accepts = m->chr.accepts;
	out(m, MCR, 0x0b);
	test_settle(m);
	assert_int_equal(m->chr.accepts, accepts + 1);
}

static void test_line_parameters_and_break(void **state)
{
	struct test_machine *m = *state;

	test_device(m, &isa_serial_desc, "chardev=c");
	out(m, LCR, 0x83);
	out(m, RBR, 3);
	out(m, IER, 0);
	assert_int_equal(in(m, RBR), 3);
	out(m, LCR, 3);
	test_settle(m);
	assert_int_equal(m->chr.baud, 38400);
	out(m, LCR, 0x43);
	out(m, LCR, 3);
	test_settle(m);
	assert_int_equal(m->chr.breaks, 1);
}

static void test_ports_share_an_interrupt(void **state)
{
	struct test_machine *m = *state;
	struct device *first = test_device(m, &isa_serial_desc, "chardev=c");

	test_device(m, &isa_serial_desc, "index=2");
	test_outb(m, COM1 + IER, 2);
	test_outb(m, COM3 + IER, 2);
	assert_true(m->irq[4].level);
	assert_int_equal(test_inb(m, COM1 + IIR), 2);
	assert_true(m->irq[4].level);
	assert_int_equal(test_inb(m, COM3 + IIR), 2);
	assert_false(m->irq[4].level);
	test_outb(m, COM1 + IER, 0);
	test_outb(m, COM1 + IER, 2);
	assert_true(m->irq[4].level);
	device_free(first);
	assert_false(m->irq[4].level);
}

static void test_only_four(void **state)
{
	struct test_machine *m = *state;
	struct error *err = NULL;

	for (int i = 0; i < 4; i++)
		test_device(m, &isa_serial_desc, NULL);
	struct device *fifth = device_new(&m->vm, &isa_serial_desc, NULL);
	assert_false(device_realize(fifth, NULL, &err));
	assert_non_null(err);
	error_free(err);
	device_free(fifth);
	test_outb(m, 0x2e8 + 7, 0x5a);
	assert_int_equal(test_inb(m, 0x2e8 + 7), 0x5a);
}

static void test_bytes_leave_before_the_end(void **state)
{
	struct test_machine *m = *state;
	struct device *dev = test_device(m, &isa_serial_desc, "chardev=c");

	for (int i = 0; i < 10; i++)
		out(m, RBR, '0' + i);
	device_free(dev);
	assert_int_equal(m->chr.len, 10);
}

enum { STREAM = 60000 };

static void *print_stream(void *opaque)
{
	struct test_machine *m = opaque;
	struct io_reader reader = {0};
	uint8_t byte;

	io_reader_register(&m->vm.pio, &reader);
	for (unsigned i = 0; i < STREAM; i++) {
		do
			io_bus_read(&m->vm.pio, &reader, COM1 + LSR, &byte, 1);
		while (!(byte & 0x20));
		byte = (uint8_t)(i * 7 + i / 256);
		io_bus_write(&m->vm.pio, &reader, COM1 + RBR, &byte, 1);
	}
	io_reader_unregister(&m->vm.pio, &reader);
	return NULL;
}

/* Every byte arrives, in order, and the loop is woken for few of them. */
static void test_a_thread_prints_while_the_loop_drains(void **state)
{
	struct test_machine *m = *state;
	struct device *dev = test_device(m, &isa_serial_desc, "chardev=c");
	pthread_t thread;

	pthread_create(&thread, NULL, print_stream, m);
	while (m->chr.len < STREAM) {
		__atomic_fetch_add(&m->clock.now, NSEC_PER_MSEC, __ATOMIC_RELAXED);
		evloop_run_once(m->vm.loop, 0);
	}
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < STREAM; i++)
		assert_int_equal((uint8_t)m->chr.out[i], (uint8_t)(i * 7 + i / 256));
	device_free(dev);
	assert_int_equal(m->chr.len, STREAM);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_text_reaches_the_chardev_in_few_writes),
		TEST(test_a_full_chardev_holds_thre_down),
		TEST(test_thre_interrupt_comes_with_each_enabling),
		TEST(test_receive_fifo_trigger_and_timeout),
		TEST(test_what_does_not_fit_waits_at_the_chardev),
		TEST(test_priorities),
		TEST(test_loopback),
		TEST(test_line_parameters_and_break),
		TEST(test_ports_share_an_interrupt),
		TEST(test_only_four),
		TEST(test_bytes_leave_before_the_end),
		TEST(test_a_thread_prints_while_the_loop_drains),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
