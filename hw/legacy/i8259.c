/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two cascaded i8259A interrupt controllers with edge/level control registers (Intel 8259A data
 * sheet; ICH9 13.4), for boards whose accelerator has only local APICs.
 *
 * Threads: any, under the device's lock; the output line is driven with it held. Owner: the
 * machine.
 */
#include <pthread.h>

#include "hw/legacy/legacy.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	CASCADE = 2, /* the master's input that the slave drives */

	ICW1 = 1 << 4,
	ICW1_NEED_ICW4 = 1 << 0,
	ICW1_SINGLE = 1 << 1,
	ICW4_AUTO_EOI = 1 << 1,
	ICW4_FULLY_NESTED = 1 << 4,
	OCW3 = 1 << 3,
	OCW3_READ_ISR = 1 << 0,
	OCW3_READ = 1 << 1,
	OCW3_POLL = 1 << 2,
	OCW3_MASK_ON = 1 << 5,
	OCW3_MASK = 1 << 6,

	/* The top bits of OCW2. */
	OCW2_ROTATE_AUTO_OFF = 0,
	OCW2_EOI = 1,
	OCW2_EOI_LEVEL = 3,
	OCW2_ROTATE_AUTO_ON = 4,
	OCW2_ROTATE_EOI = 5,
	OCW2_SET_PRIORITY = 6,
	OCW2_ROTATE_EOI_LEVEL = 7,

	SPURIOUS = 7,
};

enum init_step { INIT_NONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

struct pic_chip {
	uint8_t irr, imr, isr, lines, elcr;
	uint8_t base; /* vector of input 0 */
	uint8_t top;  /* the input of highest priority */
	uint8_t init; /* enum init_step */
	bool need_icw4, read_isr, poll, auto_eoi, rotate_auto, special_mask, fully_nested;
};

struct pic {
	struct device dev;
	pthread_mutex_t lock;
	struct io_region io[2], elcr_io;
	struct irq_line inputs[16];
	struct irq_line *output;
	bool output_up;
	struct pic_chip chip[2]; /* master, slave */
};

/* The lowest distance from top among the bits, 8 if there are none. */
static unsigned priority(const struct pic_chip *c, uint8_t bits)
{
	for (unsigned i = 0; i < 8; i++)
		if (bits & 1u << ((c->top + i) & 7))
			return i;
	return 8;
}

/* The input to be served, or -1. */
static int pending(const struct pic *p, const struct pic_chip *c)
{
	unsigned want = priority(c, c->irr & ~c->imr);
	uint8_t serving = c->isr;

	if (want == 8)
		return -1;
	if (c->special_mask)
		serving &= ~c->imr;
	/* Fully nested: the slave's inputs may interrupt one another. */
	if (c->fully_nested && c == &p->chip[0])
		serving &= ~(1u << CASCADE);
	return want < priority(c, serving) ? (int)((c->top + want) & 7) : -1;
}

static void set_input(struct pic_chip *c, unsigned n, bool level)
{
	uint8_t bit = 1u << n;

	if (c->elcr & bit)
		c->irr = level ? c->irr | bit : c->irr & ~bit;
	else if (level && !(c->lines & bit))
		c->irr |= bit;
	else if (!level)
		c->irr &= ~bit;
	c->lines = level ? c->lines | bit : c->lines & ~bit;
}

static void update(struct pic *p)
{
	bool slave = pending(p, &p->chip[1]) >= 0;

	/* The slave's output is an edge for each of its interrupts. */
	if (slave && (p->chip[0].lines & 1u << CASCADE) && !(p->chip[0].irr & 1u << CASCADE))
		set_input(&p->chip[0], CASCADE, false);
	set_input(&p->chip[0], CASCADE, slave);
	bool up = pending(p, &p->chip[0]) >= 0;
	if (up != p->output_up) {
		p->output_up = up;
		irq_set(p->output, up);
	}
}

static void acknowledge(struct pic_chip *c, unsigned n)
{
	if (!c->auto_eoi)
		c->isr |= 1u << n;
	else if (c->rotate_auto)
		c->top = (n + 1) & 7;
	if (!(c->elcr & 1u << n))
		c->irr &= ~(1u << n);
}

uint8_t i8259_acknowledge(struct device *dev)
{
	struct pic *p = (struct pic *)dev;

	pthread_mutex_lock(&p->lock);
	int n = pending(p, &p->chip[0]);
	uint8_t vector;
	if (n < 0) {
		vector = p->chip[0].base + SPURIOUS;
	} else if (n == CASCADE) {
		int k = pending(p, &p->chip[1]);

		if (k >= 0)
			acknowledge(&p->chip[1], k);
		vector = p->chip[1].base + (k >= 0 ? k : SPURIOUS);
		acknowledge(&p->chip[0], CASCADE);
	} else {
		vector = p->chip[0].base + n;
		acknowledge(&p->chip[0], n);
	}
	update(p);
	pthread_mutex_unlock(&p->lock);
	return vector;
}

bool i8259_pending(struct device *dev)
{
	struct pic *p = (struct pic *)dev;

	pthread_mutex_lock(&p->lock);
	bool up = p->output_up;
	pthread_mutex_unlock(&p->lock);
	return up;
}

static void input_set(struct irq_line *line, bool level)
{
	struct pic *p = line->opaque;

	pthread_mutex_lock(&p->lock);
	set_input(&p->chip[line->number >> 3], line->number & 7, level);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static void icw1(struct pic_chip *c, uint8_t value)
{
	uint8_t elcr = c->elcr, lines = c->lines;

	*c = (struct pic_chip){.elcr = elcr,
			       .lines = lines,
			       .init = INIT_ICW2,
			       .irr = elcr & lines,
			       .need_icw4 = value & ICW1_NEED_ICW4};
}

static void ocw2(struct pic_chip *c, uint8_t value)
{
	unsigned op = value >> 5, level = value & 7, n;

	switch (op) {
	case OCW2_ROTATE_AUTO_OFF:
	case OCW2_ROTATE_AUTO_ON:
		c->rotate_auto = op == OCW2_ROTATE_AUTO_ON;
		break;
	case OCW2_EOI:
	case OCW2_ROTATE_EOI:
		n = priority(c, c->isr);
		if (n == 8)
			break;
		n = (c->top + n) & 7;
		c->isr &= ~(1u << n);
		if (op == OCW2_ROTATE_EOI)
			c->top = (n + 1) & 7;
		break;
	case OCW2_EOI_LEVEL:
	case OCW2_ROTATE_EOI_LEVEL:
		c->isr &= ~(1u << level);
		if (op == OCW2_ROTATE_EOI_LEVEL)
			c->top = (level + 1) & 7;
		break;
	case OCW2_SET_PRIORITY:
		c->top = (level + 1) & 7;
		break;
	}
}

static void ocw3(struct pic_chip *c, uint8_t value)
{
	if (value & OCW3_POLL)
		c->poll = true;
	if (value & OCW3_READ)
		c->read_isr = value & OCW3_READ_ISR;
	if (value & OCW3_MASK)
		c->special_mask = value & OCW3_MASK_ON;
}

static void write_data(struct pic_chip *c, uint8_t value)
{
	switch (c->init) {
	case INIT_NONE:
		c->imr = value;
		break;
	case INIT_ICW2:
		c->base = value & 0xf8;
		c->init = INIT_ICW3;
		break;
	case INIT_ICW3: /* the cascade is wired as it is */
		c->init = c->need_icw4 ? INIT_ICW4 : INIT_NONE;
		break;
	case INIT_ICW4:
		c->auto_eoi = value & ICW4_AUTO_EOI;
		c->fully_nested = value & ICW4_FULLY_NESTED;
		c->init = INIT_NONE;
		break;
	}
}

static uint8_t poll(struct pic *p, struct pic_chip *c)
{
	int n = pending(p, c);

	c->poll = false;
	if (n < 0)
		return 0;
	acknowledge(c, n);
	if (c == &p->chip[1])
		acknowledge(&p->chip[0], CASCADE);
	return 0x80 | n;
}

static uint64_t chip_read(struct pic *p, struct pic_chip *c, uint64_t offset)
{
	uint8_t value;

	pthread_mutex_lock(&p->lock);
	if (c->poll)
		value = poll(p, c);
	else if (offset)
		value = c->imr;
	else
		value = c->read_isr ? c->isr : c->irr;
	update(p);
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void chip_write(struct pic *p, struct pic_chip *c, uint64_t offset, uint8_t value)
{
	pthread_mutex_lock(&p->lock);
	if (offset)
		write_data(c, value);
	else if (value & ICW1)
		icw1(c, value);
	else if (value & OCW3)
		ocw3(c, value);
	else
		ocw2(c, value);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static uint64_t master_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pic *p = opaque;

	return chip_read(p, &p->chip[0], offset);
}

static void master_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pic *p = opaque;

	chip_write(p, &p->chip[0], offset, (uint8_t)value);
}

static uint64_t slave_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pic *p = opaque;

	return chip_read(p, &p->chip[1], offset);
}

static void slave_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pic *p = opaque;

	chip_write(p, &p->chip[1], offset, (uint8_t)value);
}

static const struct io_ops master_ops = {.read = master_read, .write = master_write};
static const struct io_ops slave_ops = {.read = slave_read, .write = slave_write};

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pic *p = opaque;

	pthread_mutex_lock(&p->lock);
	uint8_t value = p->chip[offset].elcr;
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void elcr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	/* Timer, keyboard, cascade; clock, FPU: always edges. */
	static const uint8_t may_be_level[2] = {0xf8, 0xde};
	struct pic *p = opaque;

	pthread_mutex_lock(&p->lock);
	p->chip[offset].elcr = value & may_be_level[offset];
	pthread_mutex_unlock(&p->lock);
}

static const struct io_ops elcr_ops = {.read = elcr_read, .write = elcr_write};

struct irq_line *i8259_input(struct device *dev, unsigned irq)
{
	return &((struct pic *)dev)->inputs[irq & 15];
}

void i8259_set_output(struct device *dev, struct irq_line *intr)
{
	((struct pic *)dev)->output = intr;
}

static void pic_reset(struct device *dev)
{
	struct pic *p = (struct pic *)dev;

	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < 2; i++)
		p->chip[i] = (struct pic_chip){.lines = p->chip[i].lines};
	p->chip[0].lines &= ~(1u << CASCADE);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static bool pic_realize(struct device *dev, struct error **err)
{
	struct pic *p = (struct pic *)dev;
	struct io_bus *pio = &dev->vm->pio;

	p->io[0] = (struct io_region){.base = 0x20,
				      .size = 2,
				      .ops = &master_ops,
				      .opaque = p,
				      .name = "pic-master",
				      .max_access = 1};
	p->io[1] = (struct io_region){.base = 0xa0,
				      .size = 2,
				      .ops = &slave_ops,
				      .opaque = p,
				      .name = "pic-slave",
				      .max_access = 1};
	p->elcr_io = (struct io_region){.base = 0x4d0,
					.size = 2,
					.ops = &elcr_ops,
					.opaque = p,
					.name = "elcr",
					.max_access = 1};
	if (io_bus_add(pio, &p->io[0], err) && io_bus_add(pio, &p->io[1], err) &&
	    io_bus_add(pio, &p->elcr_io, err))
		return true;
	io_bus_remove(pio, &p->io[0]);
	io_bus_remove(pio, &p->io[1]);
	return false;
}

static void pic_unrealize(struct device *dev)
{
	struct pic *p = (struct pic *)dev;

	io_bus_remove(&dev->vm->pio, &p->io[0]);
	io_bus_remove(&dev->vm->pio, &p->io[1]);
	io_bus_remove(&dev->vm->pio, &p->elcr_io);
	io_bus_quiesce(&dev->vm->pio);
}

static void pic_init(struct device *dev)
{
	struct pic *p = (struct pic *)dev;

	pthread_mutex_init(&p->lock, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(p->inputs); i++)
		p->inputs[i] = (struct irq_line){.set = input_set, .opaque = p, .number = i};
}

static void pic_destroy(struct device *dev)
{
	pthread_mutex_destroy(&((struct pic *)dev)->lock);
}

static bool pic_post_load(void *object, unsigned version, struct error **err)
{
	struct pic *p = object;

	for (int i = 0; i < 2; i++) {
		p->chip[i].top &= 7;
		if (p->chip[i].init > INIT_ICW4) {
			error_set(err, "i8259: state out of range");
			p->chip[i].init = INIT_NONE;
			return false;
		}
	}
	pthread_mutex_lock(&p->lock);
	update(p);
	pthread_mutex_unlock(&p->lock);
	return true;
}

static const struct state_desc chip_state = {
	.name = "i8259-chip",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct pic_chip, irr, STATE_U8),
			STATE_FIELD(struct pic_chip, imr, STATE_U8),
			STATE_FIELD(struct pic_chip, isr, STATE_U8),
			STATE_FIELD(struct pic_chip, lines, STATE_U8),
			STATE_FIELD(struct pic_chip, elcr, STATE_U8),
			STATE_FIELD(struct pic_chip, base, STATE_U8),
			STATE_FIELD(struct pic_chip, top, STATE_U8),
			STATE_FIELD(struct pic_chip, init, STATE_U8),
			STATE_FIELD(struct pic_chip, need_icw4, STATE_BOOL),
			STATE_FIELD(struct pic_chip, read_isr, STATE_BOOL),
			STATE_FIELD(struct pic_chip, poll, STATE_BOOL),
			STATE_FIELD(struct pic_chip, auto_eoi, STATE_BOOL),
			STATE_FIELD(struct pic_chip, rotate_auto, STATE_BOOL),
			STATE_FIELD(struct pic_chip, special_mask, STATE_BOOL),
			STATE_FIELD(struct pic_chip, fully_nested, STATE_BOOL),
			{0},
		},
};

static const struct state_desc pic_state = {
	.name = "i8259",
	.version = 1,
	.fields =
		(const struct state_field[]){
			{.name = "chip",
			 .type = STATE_STRUCT,
			 .offset = offsetof(struct pic, chip),
			 .size = sizeof(struct pic_chip),
			 .count = 2,
			 .desc = &chip_state},
			{0},
		},
	.post_load = pic_post_load,
};

const struct device_desc i8259_desc = {
	.name = "i8259",
	.help = "ISA interrupt controllers",
	.size = sizeof(struct pic),
	.state = &pic_state,
	.internal = true,
	.init = pic_init,
	.realize = pic_realize,
	.reset = pic_reset,
	.unrealize = pic_unrealize,
	.destroy = pic_destroy,
};
