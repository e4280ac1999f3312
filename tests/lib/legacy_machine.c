/* SPDX-License-Identifier: Apache-2.0 */
/* A guest without CPUs (legacy_machine.h). One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "tests/lib/legacy_machine.h"
#include "vmm/core/util.h"

static int64_t clock_fn(const struct clock *clock)
{
	return __atomic_load_n(&container_of(clock, struct test_clock, clock)->now,
			       __ATOMIC_RELAXED);
}

static void irq_fn(struct irq_line *line, bool level)
{
	struct test_irq *irq = container_of(line, struct test_irq, line);

	irq->edges += level && !irq->level;
	irq->level = level;
}

static size_t chr_write(struct chardev *c, const uint8_t *data, size_t len)
{
	struct test_chardev *t = container_of(c, struct test_chardev, chr);
	size_t n = MIN(len, MIN(t->room, sizeof(t->out) - t->len));

	t->writes++;
	memcpy(t->out + t->len, data, n);
	t->len += n;
	t->room -= n;
	return n;
}

static void chr_accept(struct chardev *c)
{
	container_of(c, struct test_chardev, chr)->accepts++;
}

static void chr_set_line(struct chardev *c, unsigned baud, unsigned data_bits, char parity,
			 unsigned stop_bits)
{
	container_of(c, struct test_chardev, chr)->baud = baud;
}

static void chr_break(struct chardev *c)
{
	container_of(c, struct test_chardev, chr)->breaks++;
}

static const struct chardev_ops chr_ops = {
	.write = chr_write,
	.accept_input = chr_accept,
	.set_line = chr_set_line,
	.send_break = chr_break,
};

static void on_event(struct notifier *n, void *data)
{
	struct test_machine *m = container_of(n, struct test_machine, events);

	m->last_event = *(const struct vm_event *)data;
	m->event_count++;
}

static void *resolve(void *opaque, const struct prop *prop, const char *name, struct error **err)
{
	struct test_machine *m = opaque;

	return prop->type == PROP_CHARDEV ? &m->chr.chr : NULL;
}

void test_machine_init(struct test_machine *m)
{
	memset(m, 0, sizeof(*m));
	m->clock.clock.now = clock_fn;
	m->clock.now = NSEC_PER_SEC;
	struct evloop *loop = evloop_new(&m->clock.clock, NULL);
	assert_non_null(loop);
	vm_init(&m->vm, loop);
	m->vm.resolver = (struct prop_resolver){resolve, m};
	for (unsigned i = 0; i < ARRAY_SIZE(m->irq); i++) {
		m->irq[i].line = (struct irq_line){.set = irq_fn, .number = i};
		m->vm.gsi[i] = &m->irq[i].line;
	}
	m->chr.chr.ops = &chr_ops;
	m->chr.room = SIZE_MAX;
	m->events.fn = on_event;
	notifier_add(&m->vm.events, &m->events);
	io_reader_register(&m->vm.pio, &m->pio);
	io_reader_register(&m->vm.mmio, &m->mmio);
}

void test_machine_destroy(struct test_machine *m)
{
	struct evloop *loop = m->vm.loop;

	io_reader_unregister(&m->vm.pio, &m->pio);
	io_reader_unregister(&m->vm.mmio, &m->mmio);
	vm_destroy(&m->vm);
	evloop_free(loop);
}

struct device *test_device(struct test_machine *m, const struct device_desc *desc,
			   const char *props)
{
	struct device *dev = device_new(&m->vm, desc, NULL);
	struct error *err = NULL;
	struct opts opts = {0};

	if (props)
		assert_true(opts_parse(&opts, props, NULL, &err));
	for (size_t i = 0; i < opts.count; i++)
		if (!device_set(dev, opts.items[i].key, opts.items[i].value, &err))
			fail_msg("%s", error_message(err));
	opts_free(&opts);
	if (!device_realize(dev, NULL, &err))
		fail_msg("%s", error_message(err));
	if (desc->reset)
		desc->reset(dev);
	return dev;
}

uint8_t test_inb(struct test_machine *m, uint16_t port)
{
	uint8_t value;

	io_bus_read(&m->vm.pio, &m->pio, port, &value, 1);
	return value;
}

void test_outb(struct test_machine *m, uint16_t port, uint8_t value)
{
	io_bus_write(&m->vm.pio, &m->pio, port, &value, 1);
}

uint32_t test_read32(struct test_machine *m, uint64_t addr)
{
	uint8_t raw[4];

	io_bus_read(&m->vm.mmio, &m->mmio, addr, raw, 4);
	return load_le32(raw);
}

void test_write32(struct test_machine *m, uint64_t addr, uint32_t value)
{
	uint8_t raw[4];

	store_le32(raw, value);
	io_bus_write(&m->vm.mmio, &m->mmio, addr, raw, 4);
}

uint8_t test_read8(struct test_machine *m, uint64_t addr)
{
	uint8_t value;

	io_bus_read(&m->vm.mmio, &m->mmio, addr, &value, 1);
	return value;
}

void test_write8(struct test_machine *m, uint64_t addr, uint8_t value)
{
	io_bus_write(&m->vm.mmio, &m->mmio, addr, &value, 1);
}

void test_settle(struct test_machine *m)
{
	for (int i = 0; i < 100 && evloop_run_once(m->vm.loop, 0); i++)
		;
}

void test_advance(struct test_machine *m, int64_t ns)
{
	int64_t end = m->clock.now + ns, step = MAX(ns / 64, 1);

	while (m->clock.now < end) {
		test_settle(m);
		m->clock.now = MIN(m->clock.now + step, end);
	}
	test_settle(m);
}

size_t test_type(struct test_machine *m, const char *text, size_t len)
{
	const struct chardev_peer *peer = m->chr.chr.peer;
	size_t sent = 0;

	assert_non_null(peer);
	while (sent < len) {
		size_t room = peer->can_receive(peer->opaque);

		if (!room)
			break;
		room = MIN(room, len - sent);
		peer->receive(peer->opaque, (const uint8_t *)text + sent, room);
		sent += room;
	}
	test_settle(m);
	return sent;
}
