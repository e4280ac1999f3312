/* SPDX-License-Identifier: Apache-2.0 */
/* The CMOS clock: formats, update flag, alarm, periodic and update interrupts, setting, drift. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hw/legacy/legacy.h"
#include "hw/legacy/rtc_time.h"
#include "tests/lib/legacy_machine.h"
#include "vmm/core/util.h"

enum { BASE_2024 = 1709164799 }; /* 2024-02-28 23:59:59 UTC, a Wednesday */

static struct test_clock wall;

static int64_t wall_now(const struct clock *clock)
{
	return container_of(clock, struct test_clock, clock)->now;
}

static struct test_machine m;
static struct device *rtc;

static void make(const char *props)
{
	struct opts opts = {0};

	rtc = device_new(&m.vm, &mc146818rtc_desc, NULL);
	cmos_set_clocks(rtc, &wall.clock, &m.clock.clock);
	if (props)
		assert_true(opts_parse(&opts, props, NULL, NULL));
	for (size_t i = 0; i < opts.count; i++)
		assert_true(device_set(rtc, opts.items[i].key, opts.items[i].value, NULL));
	opts_free(&opts);
	assert_true(device_realize(rtc, NULL, NULL));
	rtc->desc->reset(rtc);
}

static int setup(void **state)
{
	test_machine_init(&m);
	wall.clock.now = wall_now;
	wall.now = (int64_t)BASE_2024 * NSEC_PER_SEC;
	return 0;
}

static int teardown(void **state)
{
	test_machine_destroy(&m);
	return 0;
}

static uint8_t get(uint8_t index)
{
	test_outb(&m, 0x70, index);
	return test_inb(&m, 0x71);
}

static void put(uint8_t index, uint8_t value)
{
	test_outb(&m, 0x70, index);
	test_outb(&m, 0x71, value);
}

/* Both clocks go on. */
static void pass(int64_t ns)
{
	int64_t end = m.clock.now + ns, step = MAX(ns / 64, 1);

	while (m.clock.now < end) {
		int64_t by = MIN(step, end - m.clock.now);

		m.clock.now += by;
		wall.now += by;
		test_settle(&m);
	}
}

static void test_formats(void **state)
{
	make(NULL);
	assert_int_equal(get(0), 0x59);
	assert_int_equal(get(2), 0x59);
	assert_int_equal(get(4), 0x23);
	assert_int_equal(get(6), 4);
	assert_int_equal(get(7), 0x28);
	assert_int_equal(get(8), 0x02);
	assert_int_equal(get(9), 0x24);
	assert_int_equal(get(0x32), 0x20);
	assert_int_equal(get(0x0d), 0x80);
	pass(NSEC_PER_SEC);
	assert_int_equal(get(7), 0x29); /* a leap year */
	assert_int_equal(get(4), 0x00);
	put(0x0b, 0x04); /* binary, 12 hours */
	assert_int_equal(get(4), 12);
	assert_int_equal(get(9), 24);
	pass(12 * 3600 * NSEC_PER_SEC);
	assert_int_equal(get(4), 12 | 0x80);
}

static void test_bases(void **state)
{
	struct device *bad = device_new(&m.vm, &mc146818rtc_desc, NULL);
	struct error *err = NULL;

	assert_true(device_set(bad, "base", "2006-13-17", NULL));
	assert_false(device_realize(bad, NULL, &err));
	assert_non_null(strstr(error_message(err), "2006-13-17"));
	error_free(err);
	device_free(bad);
	make("base=2006-06-17T16:01:21,clock=rt");
	assert_int_equal(get(9), 0x06);
	assert_int_equal(get(4), 0x16);
	assert_int_equal(get(0), 0x21);
	wall.now += 1000 * NSEC_PER_SEC; /* somebody sets the host's date */
	assert_int_equal(get(0), 0x21);
	m.clock.now += 2 * NSEC_PER_SEC;
	assert_int_equal(get(0), 0x23);
}

static void test_update_in_progress(void **state)
{
	make(NULL);
	assert_int_equal(get(0x0a) & 0x80, 0);
	pass(NSEC_PER_SEC - 245000);
	assert_int_equal(get(0x0a) & 0x80, 0);
	pass(2000);
	assert_int_equal(get(0x0a) & 0x80, 0x80);
	assert_int_equal(get(0), 0x59);
	pass(243000);
	assert_int_equal(get(0x0a) & 0x80, 0);
	assert_int_equal(get(0), 0x00);
}

static void test_update_interrupt(void **state)
{
	make(NULL);
	put(0x0b, 0x12);
	pass(NSEC_PER_SEC / 2);
	assert_false(m.irq[8].level);
	pass(NSEC_PER_SEC / 2);
	assert_true(m.irq[8].level);
	assert_int_equal(get(0x0c) & 0x90, 0x90);
	assert_false(m.irq[8].level);
	assert_int_equal(get(0x0c), 0);
	for (int i = 0; i < 3; i++) {
		pass(NSEC_PER_SEC);
		assert_int_equal(get(0x0c) & 0x90, 0x90);
	}
	assert_int_equal(m.irq[8].edges, 4);
}

static void test_alarm(void **state)
{
	make(NULL);
	put(0x05, 0x00);
	put(0x03, 0x10);
	put(0x01, 0x30);
	put(0x0b, 0x22);
	pass(630 * NSEC_PER_SEC); /* 00:10:29 */
	assert_false(m.irq[8].level);
	pass(NSEC_PER_SEC);
	assert_true(m.irq[8].level);
	assert_int_equal(get(0x0c) & 0xa0, 0xa0);
	put(0x05, 0xff); /* every hour */
	pass(3600 * NSEC_PER_SEC);
	assert_int_equal(get(0x0c) & 0xa0, 0xa0);
	put(0x0b, 0x02);
	get(0x0c);
	pass(3600 * NSEC_PER_SEC);
	assert_false(m.irq[8].level);
	assert_int_equal(get(0x0c) & 0xb0, 0x30); /* flags come without interrupts too */
}

static void test_periodic(void **state)
{
	make(NULL);
	put(0x0a, 0x26); /* 1024 Hz */
	put(0x0b, 0x42);
	unsigned seen = 0;
	for (int i = 0; i < 1024; i++) {
		pass(NSEC_PER_SEC / 1024);
		seen += m.irq[8].level;
		get(0x0c);
	}
	assert_in_range(seen, 1022, 1024);
	put(0x0a, 0x20);
	pass(NSEC_PER_SEC / 10);
	assert_false(m.irq[8].level);
}

static void test_slewing_makes_up_for_lost_ticks(void **state)
{
	make("driftfix=slew");
	put(0x0a, 0x26);
	put(0x0b, 0x42);
	pass(NSEC_PER_SEC / 1024 + 1000);
	/* The host was away for ten ticks. */
	m.clock.now += 10 * NSEC_PER_SEC / 1024;
	wall.now += 10 * NSEC_PER_SEC / 1024;
	test_settle(&m);
	unsigned seen = 0;
	while (m.irq[8].level && seen < 100) {
		get(0x0c);
		seen++;
	}
	assert_in_range(seen, 10, 12);
}

static void test_setting_the_time(void **state)
{
	make(NULL);
	put(0x0b, 0x82);
	int64_t frozen = get(0);
	pass(5 * NSEC_PER_SEC);
	assert_int_equal(get(0), frozen);
	put(0x09, 0x30);
	put(0x08, 0x12);
	put(0x07, 0x31);
	put(0x04, 0x23);
	put(0x02, 0x59);
	put(0x00, 0x58);
	put(0x0b, 0x02);
	test_settle(&m);
	assert_int_equal(m.last_event.kind, VM_EVENT_RTC_CHANGE);
	assert_int_equal(m.last_event.value, INT64_C(1924991998) - (BASE_2024 + 5));
	assert_int_equal(cmos_offset(rtc), m.last_event.value);
	pass(2 * NSEC_PER_SEC);
	assert_int_equal(get(9), 0x31);
	assert_int_equal(get(0), 0x00);
	assert_int_equal(m.event_count, 1);
}

static void test_setting_a_year_far_away(void **state)
{
	make(NULL);
	put(0x0b, 0x82);
	put(0x32, 0x99);
	put(0x09, 0x99);
	put(0x08, 0x12);
	put(0x07, 0x31);
	put(0x04, 0x23);
	put(0x02, 0x59);
	put(0x00, 0x59);
	put(0x0b, 0x02);
	assert_int_equal(get(0x32), 0x99);
	/* And bytes that are no date at all. */
	for (int i = 0; i < 10; i++)
		put((uint8_t)i, 0xff);
	put(0x32, 0xff);
	put(0x0b, 0x36);
	pass(3 * NSEC_PER_SEC);
	get(0x0c);
}

static void test_ram_and_board(void **state)
{
	make(NULL);
	cmos_set(rtc, 0x34, 0x12);
	assert_int_equal(get(0x34), 0x12);
	put(0x80 | 0x0f, 0x05); /* with the NMI gate */
	assert_int_equal(cmos_get(rtc, 0x0f), 0x05);
	assert_int_equal(test_inb(&m, 0x70), 0xff);
	rtc->desc->reset(rtc);
	assert_int_equal(cmos_get(rtc, 0x0f), 0x05);
}

static void test_time_stands_still_with_the_guest(void **state)
{
	enum run_state running = RUN_STATE_RUNNING, paused = RUN_STATE_PAUSED;

	make("clock=vm");
	notifier_fire(&m.vm.state_changed, &running);
	pass(NSEC_PER_SEC);
	assert_int_equal(get(0), 0x00);
	notifier_fire(&m.vm.state_changed, &paused);
	pass(10 * NSEC_PER_SEC);
	assert_int_equal(get(0), 0x00);
	notifier_fire(&m.vm.state_changed, &running);
	pass(2 * NSEC_PER_SEC);
	assert_int_equal(get(0), 0x02);
}

static void test_parsing_dates(void **state)
{
	int64_t s;

	assert_true(rtc_parse_date("1970-01-02", &s));
	assert_int_equal(s, 86400);
	assert_true(rtc_parse_date("2006-06-17T16:01:21", &s));
	assert_int_equal(s, 1150560081);
	assert_false(rtc_parse_date("2006-06-17T16:01", &s));
	assert_false(rtc_parse_date("2006-06-17x", &s));
	assert_false(rtc_parse_date("yesterday", &s));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_formats),
		TEST(test_bases),
		TEST(test_update_in_progress),
		TEST(test_update_interrupt),
		TEST(test_alarm),
		TEST(test_periodic),
		TEST(test_slewing_makes_up_for_lost_ticks),
		TEST(test_setting_the_time),
		TEST(test_setting_a_year_far_away),
		TEST(test_ram_and_board),
		TEST(test_time_stands_still_with_the_guest),
		TEST(test_parsing_dates),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
