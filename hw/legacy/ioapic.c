/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O APIC with 24 inputs at 0xfec00000 (Intel 82093AA data sheet; ICH9 13.5), for boards whose
 * accelerator has only local APICs. An interrupt leaves as the message that a PCI device would
 * send; the accelerator is told each input's message, so that it reports the ends of level
 * interrupts.
 *
 * Threads: any, under the device's lock; messages are sent with it held (the sink is a leaf).
 * Owner: the machine.
 */
#include <pthread.h>

#include "hw/legacy/legacy.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	PINS = 24,
	IOAPIC_BASE = 0xfec00000,
	IOAPIC_SIZE = 0x1000,
	REG_SELECT = 0x00,
	REG_WINDOW = 0x10,
	REG_EOI = 0x40,

	INDEX_ID = 0,
	INDEX_VERSION = 1,
	INDEX_ARBITRATION = 2,
	INDEX_REDIRECTION = 0x10,
	VERSION = 0x20 | (PINS - 1) << 16, /* 0x20: has the EOI register */

	ENTRY_VECTOR = 0xff,
	ENTRY_DELIVERY_SHIFT = 8,
	ENTRY_DELIVERY = 7 << 8,
	ENTRY_LOGICAL = 1 << 11,
	ENTRY_LOW = 1 << 13,
	ENTRY_REMOTE_IRR = 1 << 14,
	ENTRY_LEVEL = 1 << 15,
	ENTRY_MASKED = 1 << 16,
	ENTRY_WRITABLE = 0x1afff, /* low half, without status and remote IRR */

	MSI_LOGICAL = 1 << 2,
	MSI_DEST_SHIFT = 12,
	MSI_ASSERT = 1 << 14,
	MSI_LEVEL = 1 << 15,
	DELIVERY_EXTINT = 7,
};
#define MSI_BASE UINT64_C(0xfee00000)

struct ioapic {
	struct device dev;
	pthread_mutex_t lock;
	struct io_region io;
	struct irq_line inputs[PINS];

	uint8_t id, select;
	uint32_t lines; /* levels of the inputs */
	uint64_t entry[PINS];
};

static struct msi_msg message(uint64_t entry)
{
	uint32_t dest = (uint32_t)(entry >> 56);

	return (struct msi_msg){
		.addr = MSI_BASE | dest << MSI_DEST_SHIFT |
			(entry & ENTRY_LOGICAL ? MSI_LOGICAL : 0),
		.data = (uint32_t)(entry & (ENTRY_VECTOR | ENTRY_DELIVERY)) | MSI_ASSERT |
			(entry & ENTRY_LEVEL ? MSI_LEVEL : 0),
	};
}

static void send(struct ioapic *a, unsigned pin)
{
	if (a->dev.vm->msi)
		msi_send(a->dev.vm->msi, message(a->entry[pin]), 0);
}

/* A level input that is up interrupts unless it is masked or still being served. */
static void service_level(struct ioapic *a, unsigned pin)
{
	uint64_t e = a->entry[pin];

	if (!(e & ENTRY_LEVEL) || (e & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) ||
	    !(a->lines & 1u << pin))
		return;
	a->entry[pin] |= ENTRY_REMOTE_IRR;
	send(a, pin);
}

static void input_set(struct irq_line *line, bool level)
{
	struct ioapic *a = line->opaque;
	uint32_t bit = 1u << line->number;

	pthread_mutex_lock(&a->lock);
	uint64_t e = a->entry[line->number];
	/* An active-low input's senders still say when they want service: polarity is wiring. */
	bool rising = level && !(a->lines & bit);
	a->lines = level ? a->lines | bit : a->lines & ~bit;
	if (e & ENTRY_LEVEL)
		service_level(a, line->number);
	else if (rising && !(e & ENTRY_MASKED))
		send(a, line->number);
	pthread_mutex_unlock(&a->lock);
}

/* Masked or not: an interrupt may be masked while it is being served, and its end matters then. */
static void tell_pin(struct ioapic *a, unsigned pin)
{
	struct msi_msg msg = message(a->entry[pin]);

	if (a->dev.vm->msi)
		msi_ioapic_pin(a->dev.vm->msi, pin, &msg);
}

static void end_of_interrupt(struct ioapic *a, uint8_t vector)
{
	for (unsigned i = 0; i < PINS; i++) {
		uint64_t e = a->entry[i];

		if ((e & ENTRY_VECTOR) != vector || !(e & ENTRY_REMOTE_IRR))
			continue;
		a->entry[i] &= ~(uint64_t)ENTRY_REMOTE_IRR;
		service_level(a, i);
	}
}

void ioapic_eoi(struct device *dev, uint8_t vector)
{
	struct ioapic *a = (struct ioapic *)dev;

	pthread_mutex_lock(&a->lock);
	end_of_interrupt(a, vector);
	pthread_mutex_unlock(&a->lock);
}

static uint32_t read_window(const struct ioapic *a)
{
	switch (a->select) {
	case INDEX_ID:
	case INDEX_ARBITRATION:
		return (uint32_t)a->id << 24;
	case INDEX_VERSION:
		return VERSION;
	}
	unsigned i = a->select - INDEX_REDIRECTION;
	if (a->select < INDEX_REDIRECTION || i >= 2 * PINS)
		return 0;
	return (uint32_t)(a->entry[i / 2] >> (i & 1 ? 32 : 0));
}

static void write_entry(struct ioapic *a, unsigned pin, bool high, uint32_t value)
{
	uint64_t e = a->entry[pin];

	if (high) {
		e = (e & 0xffffffff) | (uint64_t)(value & 0xff000000) << 32;
	} else {
		e = (e & ~(uint64_t)ENTRY_WRITABLE) | (value & ENTRY_WRITABLE);
		/* Switching to edge mode is how software clears a stuck remote IRR. */
		if (!(e & ENTRY_LEVEL))
			e &= ~(uint64_t)ENTRY_REMOTE_IRR;
	}
	if (e == a->entry[pin])
		return;
	a->entry[pin] = e;
	tell_pin(a, pin);
	service_level(a, pin);
}

static void write_window(struct ioapic *a, uint32_t value)
{
	unsigned i = a->select - INDEX_REDIRECTION;

	if (a->select == INDEX_ID)
		a->id = value >> 24 & 0x0f;
	else if (a->select >= INDEX_REDIRECTION && i < 2 * PINS)
		write_entry(a, i / 2, i & 1, value);
}

static uint64_t ioapic_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ioapic *a = opaque;
	uint32_t value = 0;

	if (size != 4 && offset != REG_SELECT)
		return 0;
	pthread_mutex_lock(&a->lock);
	if (offset == REG_SELECT)
		value = a->select;
	else if (offset == REG_WINDOW)
		value = read_window(a);
	pthread_mutex_unlock(&a->lock);
	return value;
}

static void ioapic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ioapic *a = opaque;

	if (size != 4 && offset != REG_SELECT)
		return;
	pthread_mutex_lock(&a->lock);
	switch (offset) {
	case REG_SELECT:
		a->select = (uint8_t)value;
		break;
	case REG_WINDOW:
		write_window(a, (uint32_t)value);
		break;
	case REG_EOI:
		end_of_interrupt(a, (uint8_t)value);
		break;
	}
	pthread_mutex_unlock(&a->lock);
}

static const struct io_ops ioapic_ops = {.read = ioapic_read, .write = ioapic_write};

struct irq_line *ioapic_input(struct device *dev, unsigned pin)
{
	return pin < PINS ? &((struct ioapic *)dev)->inputs[pin] : NULL;
}

static void ioapic_reset(struct device *dev)
{
	struct ioapic *a = (struct ioapic *)dev;

	pthread_mutex_lock(&a->lock);
	a->id = a->select = 0;
	for (unsigned i = 0; i < PINS; i++) {
		a->entry[i] = ENTRY_MASKED;
		tell_pin(a, i);
	}
	pthread_mutex_unlock(&a->lock);
}

static bool ioapic_realize(struct device *dev, struct error **err)
{
	struct ioapic *a = (struct ioapic *)dev;

	for (unsigned i = 0; i < PINS; i++)
		a->entry[i] = ENTRY_MASKED;
	a->io = (struct io_region){.base = IOAPIC_BASE,
				   .size = IOAPIC_SIZE,
				   .ops = &ioapic_ops,
				   .opaque = a,
				   .name = "ioapic",
				   .max_access = 4};
	return io_bus_add(&dev->vm->mmio, &a->io, err);
}

static void ioapic_unrealize(struct device *dev)
{
	struct ioapic *a = (struct ioapic *)dev;

	io_bus_remove(&dev->vm->mmio, &a->io);
	io_bus_quiesce(&dev->vm->mmio);
}

static void ioapic_init(struct device *dev)
{
	struct ioapic *a = (struct ioapic *)dev;

	pthread_mutex_init(&a->lock, NULL);
	for (unsigned i = 0; i < PINS; i++)
		a->inputs[i] = (struct irq_line){.set = input_set, .opaque = a, .number = i};
}

static void ioapic_destroy(struct device *dev)
{
	pthread_mutex_destroy(&((struct ioapic *)dev)->lock);
}

static bool ioapic_post_load(void *object, unsigned version, struct error **err)
{
	struct ioapic *a = object;

	pthread_mutex_lock(&a->lock);
	a->id &= 0x0f;
	for (unsigned i = 0; i < PINS; i++) {
		a->entry[i] &= UINT64_C(0xff00000000000000) | ENTRY_WRITABLE | ENTRY_REMOTE_IRR;
		tell_pin(a, i);
	}
	pthread_mutex_unlock(&a->lock);
	return true;
}

static const struct state_desc ioapic_state = {
	.name = "ioapic",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct ioapic, id, STATE_U8),
			STATE_FIELD(struct ioapic, select, STATE_U8),
			STATE_FIELD(struct ioapic, lines, STATE_U32),
			STATE_ARRAY(struct ioapic, entry, STATE_U64),
			{0},
		},
	.post_load = ioapic_post_load,
};

const struct device_desc ioapic_desc = {
	.name = "ioapic",
	.help = "I/O APIC",
	.size = sizeof(struct ioapic),
	.state = &ioapic_state,
	.internal = true,
	.init = ioapic_init,
	.realize = ioapic_realize,
	.reset = ioapic_reset,
	.unrealize = ioapic_unrealize,
	.destroy = ioapic_destroy,
};
