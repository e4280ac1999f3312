/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest without CPUs for tests of old devices: ports and memory that a test reads and writes, a
 * clock that moves when told, interrupt lines that count their edges, and a chardev that can be
 * full.
 */
#ifndef TESTS_LIB_LEGACY_MACHINE_H
#define TESTS_LIB_LEGACY_MACHINE_H

#include "vmm/core/chardev.h"
#include "vmm/core/device.h"
#include "vmm/core/evloop.h"
#include "vmm/core/vm.h"

struct test_clock {
	struct clock clock;
	int64_t now; /* ns */
};

struct test_irq {
	struct irq_line line;
	bool level;
	unsigned edges; /* low to high */
};

struct test_chardev {
	struct chardev chr;
	char out[65536];
	size_t len;
	size_t room; /* what it still takes */
	unsigned writes, accepts, breaks, baud;
};

struct test_machine {
	struct vm vm;
	struct test_clock clock;
	struct test_irq irq[24];
	struct test_chardev chr;
	struct io_reader pio, mmio;
	struct notifier events;
	struct vm_event last_event;
	unsigned event_count;
};

void test_machine_init(struct test_machine *m);
void test_machine_destroy(struct test_machine *m);

/* props: "name=value,name=value" or NULL; fails the test if it cannot be made. */
struct device *test_device(struct test_machine *m, const struct device_desc *desc,
			   const char *props);

uint8_t test_inb(struct test_machine *m, uint16_t port);
void test_outb(struct test_machine *m, uint16_t port, uint8_t value);
uint32_t test_read32(struct test_machine *m, uint64_t addr);
void test_write32(struct test_machine *m, uint64_t addr, uint32_t value);
uint8_t test_read8(struct test_machine *m, uint64_t addr);
void test_write8(struct test_machine *m, uint64_t addr, uint8_t value);

/* Runs what is ready on the loop, without time passing. */
void test_settle(struct test_machine *m);
/* Moves the clock, stopping at what is due on the way every step_ns. */
void test_advance(struct test_machine *m, int64_t ns);

/* Lets the chardev's peer have as many of these bytes as it takes; returns how many. */
size_t test_type(struct test_machine *m, const char *text, size_t len);

#endif
