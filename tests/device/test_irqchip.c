/* SPDX-License-Identifier: Apache-2.0 */
/* i8259, I/O APIC and i8254 as the board's own: edges, levels, priorities, ends, timer modes. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hw/legacy/legacy.h"
#include "tests/lib/legacy_machine.h"
#include "vmm/core/util.h"

static struct test_machine m;
static struct test_irq intr;
static struct msi_sink sink;
static struct msi_msg sent[64];
static unsigned sent_count;
static uint32_t pin_data[24]; /* what the accelerator was told */

static void intr_set(struct irq_line *line, bool level)
{
	intr.edges += level && !intr.level;
	intr.level = level;
}

static void sink_send(struct msi_sink *s, struct msi_msg msg, uint32_t requester)
{
	if (sent_count < ARRAY_SIZE(sent))
		sent[sent_count] = msg;
	sent_count++;
}

static void sink_pin(struct msi_sink *s, unsigned pin, const struct msi_msg *msg)
{
	pin_data[pin] = msg ? msg->data : 0;
}

static const struct msi_sink_ops sink_ops = {.send = sink_send, .ioapic_pin = sink_pin};

static int setup(void **state)
{
	test_machine_init(&m);
	intr = (struct test_irq){.line = {.set = intr_set}};
	sink = (struct msi_sink){.ops = &sink_ops};
	m.vm.msi = &sink;
	sent_count = 0;
	return 0;
}

static int teardown(void **state)
{
	test_machine_destroy(&m);
	return 0;
}

static struct device *make_pic(void)
{
	struct device *pic = device_new(&m.vm, &i8259_desc, NULL);

	i8259_set_output(pic, &intr.line);
	assert_true(device_realize(pic, NULL, NULL));
	pic->desc->reset(pic);
	static const uint8_t master[] = {0x20, 4, 1}, slave[] = {0x28, 2, 1};
	test_outb(&m, 0x20, 0x11);
	test_outb(&m, 0xa0, 0x11);
	for (int i = 0; i < 3; i++) {
		test_outb(&m, 0x21, master[i]);
		test_outb(&m, 0xa1, slave[i]);
	}
	return pic;
}

static void line(struct device *pic, unsigned n, bool level)
{
	irq_set(i8259_input(pic, n), level);
}

static void test_pic_edges_and_priorities(void **state)
{
	struct device *pic = make_pic();

	line(pic, 4, true);
	line(pic, 1, true);
	assert_true(intr.level);
	assert_int_equal(i8259_acknowledge(pic), 0x21);
	assert_false(intr.level); /* 4 waits for 1's end */
	line(pic, 0, true);
	assert_true(intr.level); /* 0 does not */
	assert_int_equal(i8259_acknowledge(pic), 0x20);
	test_outb(&m, 0x20, 0x20);
	test_outb(&m, 0x20, 0x20);
	assert_int_equal(i8259_acknowledge(pic), 0x24);
	test_outb(&m, 0x20, 0x64); /* specific end of 4 */
	assert_false(intr.level);  /* the lines are still up: no new edge */
	line(pic, 4, false);
	line(pic, 4, true);
	assert_true(i8259_pending(pic));
	line(pic, 4, false);
	assert_int_equal(i8259_acknowledge(pic), 0x27); /* gone meanwhile: spurious */
}

static void test_pic_cascade_and_masks(void **state)
{
	struct device *pic = make_pic();

	test_outb(&m, 0xa1, 0x01); /* mask 8 */
	line(pic, 8, true);
	assert_false(intr.level);
	line(pic, 12, true);
	assert_int_equal(i8259_acknowledge(pic), 0x2c);
	test_outb(&m, 0xa1, 0x00);
	assert_false(intr.level); /* the master still serves its input 2 */
	test_outb(&m, 0xa0, 0x20);
	test_outb(&m, 0x20, 0x20);
	assert_true(intr.level);
	assert_int_equal(i8259_acknowledge(pic), 0x28);
	test_outb(&m, 0xa0, 0x0b);
	assert_int_equal(test_inb(&m, 0xa0), 0x01); /* in service */
	assert_int_equal(test_inb(&m, 0xa1), 0x00);
}

static void test_pic_levels(void **state)
{
	struct device *pic = make_pic();

	test_outb(&m, 0x4d0, 0xff);
	test_outb(&m, 0x4d1, 0x02); /* 9 */
	assert_int_equal(test_inb(&m, 0x4d0), 0xf8);
	line(pic, 9, true);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(i8259_acknowledge(pic), 0x29);
		test_outb(&m, 0xa0, 0x20);
		test_outb(&m, 0x20, 0x20);
	}
	line(pic, 9, false);
	assert_false(intr.level);
}

static void test_pic_automatic_end_and_rotation(void **state)
{
	struct device *pic = make_pic();

	test_outb(&m, 0x20, 0x11);
	test_outb(&m, 0x21, 0x20);
	test_outb(&m, 0x21, 4);
	test_outb(&m, 0x21, 3);
	test_outb(&m, 0x20, 0x80);
	line(pic, 3, true);
	line(pic, 5, true);
	assert_int_equal(i8259_acknowledge(pic), 0x23);
	line(pic, 3, false);
	line(pic, 3, true);
	assert_int_equal(i8259_acknowledge(pic), 0x25);
	assert_int_equal(i8259_acknowledge(pic), 0x23);
	test_outb(&m, 0x20, 0x0c); /* poll: nothing */
	assert_int_equal(test_inb(&m, 0x20), 0);
}

static void apic_write(uint8_t index, uint32_t value)
{
	test_write32(&m, 0xfec00000, index);
	test_write32(&m, 0xfec00010, value);
}

static uint32_t apic_read(uint8_t index)
{
	test_write32(&m, 0xfec00000, index);
	return test_read32(&m, 0xfec00010);
}

static void test_ioapic_edge(void **state)
{
	struct device *a = test_device(&m, &ioapic_desc, NULL);

	assert_int_equal(apic_read(1), 0x00170020);
	assert_int_equal(apic_read(0x10 + 8), 0x10000);
	irq_pulse(ioapic_input(a, 4));
	assert_int_equal(sent_count, 0);
	apic_write(0x11 + 8, 0x03000000);
	apic_write(0x10 + 8, 0x0931); /* lowest priority, logical */
	assert_int_equal(pin_data[4] & 0xff, 0x31);
	irq_pulse(ioapic_input(a, 4));
	irq_set(ioapic_input(a, 4), true);
	irq_set(ioapic_input(a, 4), true);
	assert_int_equal(sent_count, 2);
	assert_int_equal(sent[0].addr, 0xfee03004);
	assert_int_equal(sent[0].data, 0x4131);
	apic_write(0x10 + 8, 0x10932); /* masked, and still told: it may be in service */
	assert_int_equal(pin_data[4] & 0xff, 0x32);
}

static void test_ioapic_level(void **state)
{
	struct device *a = test_device(&m, &ioapic_desc, NULL);

	irq_set(ioapic_input(a, 16), true);
	apic_write(0x11 + 32, 0x01000000);
	apic_write(0x10 + 32, 0x8041);
	assert_int_equal(sent_count, 1); /* was up before */
	assert_int_equal(sent[0].data, 0xc041);
	assert_int_equal(apic_read(0x10 + 32), 0xc041);
	irq_set(ioapic_input(a, 16), true);
	assert_int_equal(sent_count, 1);
	ioapic_eoi(a, 0x42);
	assert_int_equal(sent_count, 1);
	ioapic_eoi(a, 0x41);
	assert_int_equal(sent_count, 2); /* still up */
	irq_set(ioapic_input(a, 16), false);
	test_write32(&m, 0xfec00040, 0x41);
	assert_int_equal(sent_count, 2);
	assert_int_equal(apic_read(0x10 + 32), 0x8041);
}

static void pit_load(uint8_t control, uint8_t port, uint16_t count)
{
	test_outb(&m, 0x43, control);
	test_outb(&m, port, count & 0xff);
	test_outb(&m, port, count >> 8);
}

static void test_pit_periodic(void **state)
{
	test_device(&m, &i8254_desc, NULL);
	pit_load(0x34, 0x40, 11932); /* 100 Hz */
	test_settle(&m);
	for (int i = 0; i < 1000; i++) {
		m.clock.now += NSEC_PER_MSEC;
		test_settle(&m);
	}
	assert_in_range(m.irq[0].edges, 99, 101);
	/* Away for a second: one tick, and on as before. */
	unsigned before = m.irq[0].edges;
	m.clock.now += NSEC_PER_SEC;
	test_settle(&m);
	assert_int_equal(m.irq[0].edges, before + 1);
}

static void test_pit_one_shot(void **state)
{
	test_device(&m, &i8254_desc, NULL);
	pit_load(0x30, 0x40, 1193); /* 1 ms */
	test_settle(&m);
	m.clock.now += NSEC_PER_MSEC * 9 / 10;
	test_settle(&m);
	assert_int_equal(m.irq[0].edges, 0);
	test_outb(&m, 0x43, 0xe2); /* read back the status */
	assert_int_equal(test_inb(&m, 0x40) & 0xbf, 0x30);
	m.clock.now += NSEC_PER_MSEC / 5;
	test_settle(&m);
	assert_int_equal(m.irq[0].edges, 1);
	test_outb(&m, 0x43, 0xe2);
	assert_int_equal(test_inb(&m, 0x40), 0xb0);
	m.clock.now += NSEC_PER_SEC;
	test_settle(&m);
	assert_int_equal(m.irq[0].edges, 1);
}

static void test_pit_latch(void **state)
{
	test_device(&m, &i8254_desc, NULL);
	pit_load(0x34, 0x40, 0);
	m.clock.now += NSEC_PER_MSEC; /* 1193 ticks */
	test_outb(&m, 0x43, 0x00);
	m.clock.now += NSEC_PER_MSEC;
	unsigned low = test_inb(&m, 0x40), high = test_inb(&m, 0x40);
	assert_int_equal(low | high << 8, 65536 - 1193);
	low = test_inb(&m, 0x40);
	high = test_inb(&m, 0x40);
	assert_int_equal(low | high << 8, 65536 - 2386);
}

static void test_speaker_port_measures_time(void **state)
{
	test_device(&m, &i8254_desc, NULL);
	/* As Linux measures its clock: gate up, speaker off, mode 0. */
	test_outb(&m, 0x61, 0x01);
	pit_load(0xb0, 0x42, 11932); /* 10 ms */
	assert_int_equal(test_inb(&m, 0x61) & 0x21, 0x01);
	m.clock.now += 9 * NSEC_PER_MSEC;
	assert_int_equal(test_inb(&m, 0x61) & 0x20, 0);
	test_outb(&m, 0x61, 0x00); /* the gate holds it */
	m.clock.now += 9 * NSEC_PER_MSEC;
	test_outb(&m, 0x61, 0x01);
	assert_int_equal(test_inb(&m, 0x61) & 0x20, 0);
	m.clock.now += 2 * NSEC_PER_MSEC;
	assert_int_equal(test_inb(&m, 0x61) & 0x20, 0x20);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_pic_edges_and_priorities),
		TEST(test_pic_cascade_and_masks),
		TEST(test_pic_levels),
		TEST(test_pic_automatic_end_and_rotation),
		TEST(test_ioapic_edge),
		TEST(test_ioapic_level),
		TEST(test_pit_periodic),
		TEST(test_pit_one_shot),
		TEST(test_pit_latch),
		TEST(test_speaker_port_measures_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
