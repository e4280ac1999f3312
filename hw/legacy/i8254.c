/* SPDX-License-Identifier: Apache-2.0 */
/*
 * i8254 interval timer at 0x40 and the speaker port 0x61 (Intel 82C54 data sheet;
 * ICH9 13.3, 13.7.1), for boards whose accelerator has only local APICs.
 *
 * Counters are not counted: their value and output follow from when they were loaded. Counter 0 has
 * a timer on the main loop that gives an edge to interrupt 0; ticks that the host was too late for
 * are lost, as if the processor had been.
 *
 * Threads: ports on vCPU threads, the timer on the main loop, under the device's lock.
 * Owner: the machine.
 */
#include <pthread.h>

#include "hw/legacy/legacy.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	FREQUENCY = 1193182, /* Hz */
	CONTROL = 3,

	RW_LATCH = 0,
	RW_LOW = 1,
	RW_HIGH = 2,
	RW_BOTH = 3,
	READ_BACK = 3,
	READ_BACK_NO_COUNT = 1 << 5,
	READ_BACK_NO_STATUS = 1 << 4,
	STATUS_OUT = 1 << 7,
	STATUS_NULL = 1 << 6,

	PORT61 = 0x61,
	PORT61_GATE2 = 1 << 0,
	PORT61_SPEAKER = 1 << 1,
	PORT61_REFRESH = 1 << 4,
	PORT61_OUT2 = 1 << 5,
	PORT61_WRITABLE = 0x0f,
	REFRESH_NS = 15085,

	FASTEST_NS = 100000, /* a guest cannot make the host's timer run faster than this */
};

struct counter {
	uint32_t reload; /* ticks, 1 to 65536 */
	uint8_t mode;	 /* 0 to 5 */
	uint8_t rw;
	bool bcd, gate, loaded;
	bool write_high, read_high; /* RW_BOTH: the next byte */
	uint8_t write_low;
	bool count_latched, status_latched;
	uint16_t latch;
	uint8_t latch_bytes; /* left to be read */
	uint8_t status;
	int64_t start;	 /* ns: when counting began */
	int64_t stopped; /* ns: when the gate went down, while it is */
};

struct pit {
	struct device dev;
	pthread_mutex_t lock;
	struct io_region io, port61_io;
	struct irq_line *irq;
	struct ev_timer timer;
	struct ev_work work;
	struct counter counter[3];
	uint8_t port61;
	int64_t next; /* ns of the next edge of counter 0, or INT64_MAX */
	int64_t saved_now;
};

static int64_t now(const struct pit *p)
{
	return evloop_now(p->dev.vm->loop);
}

static uint64_t ticks_of(int64_t ns)
{
	return ns <= 0 ? 0 : (uint64_t)((unsigned __int128)ns * FREQUENCY / NSEC_PER_SEC);
}

/* Rounded up, so that a timer at that time finds the tick over. */
static int64_t ns_of(uint64_t ticks)
{
	return (int64_t)(((unsigned __int128)ticks * NSEC_PER_SEC + FREQUENCY - 1) / FREQUENCY);
}

static bool periodic(const struct counter *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Modes 1 and 5 wait for the gate to rise; in the others it lets the counter run. */
static bool triggered(const struct counter *c)
{
	return c->mode == 1 || c->mode == 5;
}

static uint64_t elapsed(const struct counter *c, int64_t t)
{
	if (!c->gate && !triggered(c))
		t = c->stopped;
	return ticks_of(t - c->start);
}

static bool output(const struct counter *c, int64_t t)
{
	uint64_t d = elapsed(c, t);

	if (!c->loaded)
		return c->mode != 0;
	switch (c->mode) {
	case 0:
	case 1:
		return d >= c->reload;
	case 2:
		return !c->gate || d % c->reload != c->reload - 1;
	case 3:
		return !c->gate || d % c->reload < (c->reload + 1) / 2;
	}
	return d != c->reload;
}

static uint16_t value_of(const struct counter *c, int64_t t)
{
	uint64_t d = elapsed(c, t);
	uint32_t wrap = c->bcd ? 10000 : 65536, v;

	if (c->mode == 2)
		v = c->reload - d % c->reload;
	else if (c->mode == 3)
		v = c->reload - 2 * d % c->reload;
	else
		v = (uint32_t)((c->reload + wrap - d % wrap) % wrap);
	if (!c->bcd)
		return (uint16_t)v;
	v %= 10000;
	return (uint16_t)(v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10);
}

/* When the output next rises after t, or INT64_MAX. */
static int64_t next_edge(const struct counter *c, int64_t t)
{
	uint64_t d = elapsed(c, t);

	if (!c->loaded || (!c->gate && !triggered(c)))
		return INT64_MAX;
	if (periodic(c))
		return c->start + ns_of((d / c->reload + 1) * c->reload);
	uint64_t rise = c->mode >= 4 ? (uint64_t)c->reload + 1 : c->reload;
	return d < rise ? c->start + ns_of(rise) : INT64_MAX;
}

/* Counter 0 was changed on a vCPU's thread: the main loop's timer follows. */
static void reschedule(struct pit *p)
{
	int64_t next = next_edge(&p->counter[0], now(p));

	if (next == p->next)
		return;
	p->next = next;
	evloop_post(p->dev.vm->loop, &p->work);
}

static void arm(void *opaque)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	int64_t next = p->next;
	pthread_mutex_unlock(&p->lock);
	if (next == INT64_MAX)
		evloop_timer_cancel(p->dev.vm->loop, &p->timer);
	else
		evloop_timer_arm(p->dev.vm->loop, &p->timer, next);
}

static void fired(void *opaque)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	int64_t t = now(p);
	if (t >= p->next) {
		irq_set(p->irq, false);
		irq_set(p->irq, true);
		p->next = next_edge(&p->counter[0], t);
		if (p->next != INT64_MAX)
			p->next = MAX(p->next, t + FASTEST_NS);
	}
	pthread_mutex_unlock(&p->lock);
	arm(p);
}

static void load(struct pit *p, struct counter *c, uint16_t value)
{
	uint32_t count = value;

	if (c->bcd)
		count = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 +
			(value & 15);
	if (!count)
		count = c->bcd ? 10000 : 65536;
	/* Modes 2 and 3 cannot count by one. */
	c->reload = periodic(c) && count == 1 ? 2 : count;
	c->loaded = true;
	c->start = now(p);
	c->stopped = c->start;
}

static void write_count(struct pit *p, struct counter *c, uint8_t value)
{
	switch (c->rw) {
	case RW_LOW:
		load(p, c, value);
		return;
	case RW_HIGH:
		load(p, c, (uint16_t)(value << 8));
		return;
	}
	if (c->write_high)
		load(p, c, (uint16_t)(c->write_low | value << 8));
	else
		c->write_low = value;
	c->write_high = !c->write_high;
}

static void latch_count(struct counter *c, int64_t t)
{
	if (c->count_latched)
		return;
	c->latch = value_of(c, t);
	c->latch_bytes = c->rw == RW_BOTH ? 2 : 1;
	c->count_latched = true;
}

static void latch_status(struct counter *c, int64_t t)
{
	if (c->status_latched)
		return;
	c->status = (output(c, t) ? STATUS_OUT : 0) | (c->loaded ? 0 : STATUS_NULL) | c->rw << 4 |
		    c->mode << 1 | c->bcd;
	c->status_latched = true;
}

static void write_control(struct pit *p, uint8_t value)
{
	unsigned select = value >> 6, rw = value >> 4 & 3;
	int64_t t = now(p);

	if (select == READ_BACK) {
		for (unsigned i = 0; i < 3; i++) {
			if (!(value & 2u << i))
				continue;
			if (!(value & READ_BACK_NO_COUNT))
				latch_count(&p->counter[i], t);
			if (!(value & READ_BACK_NO_STATUS))
				latch_status(&p->counter[i], t);
		}
		return;
	}
	struct counter *c = &p->counter[select];
	if (rw == RW_LATCH) {
		latch_count(c, t);
		return;
	}
	unsigned mode = value >> 1 & 7;
	c->rw = rw;
	c->mode = mode > 5 ? mode - 4 : mode;
	c->bcd = value & 1;
	c->loaded = c->write_high = c->read_high = false;
	c->count_latched = c->status_latched = false;
	if (!c->reload)
		c->reload = 65536;
}

static uint8_t read_count(struct pit *p, struct counter *c)
{
	uint16_t v;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	if (c->count_latched) {
		v = c->latch;
		if (c->rw == RW_HIGH || (c->rw == RW_BOTH && c->latch_bytes == 1))
			v >>= 8;
		if (!--c->latch_bytes)
			c->count_latched = false;
		return (uint8_t)v;
	}
	v = value_of(c, now(p));
	if (c->rw == RW_HIGH)
		return v >> 8;
	if (c->rw == RW_BOTH) {
		c->read_high = !c->read_high;
		return c->read_high ? (uint8_t)v : v >> 8;
	}
	return (uint8_t)v;
}

static void set_gate(struct pit *p, struct counter *c, bool gate)
{
	int64_t t = now(p);

	if (gate == c->gate)
		return;
	if (gate && (periodic(c) || triggered(c)))
		c->start = t; /* a rising gate starts anew */
	else if (gate)
		c->start += t - c->stopped;
	else
		c->stopped = t;
	c->gate = gate;
}

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;

	if (offset == CONTROL)
		return 0xff; /* write-only */
	pthread_mutex_lock(&p->lock);
	uint8_t value = read_count(p, &p->counter[offset]);
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void pit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	if (offset == CONTROL)
		write_control(p, (uint8_t)value);
	else
		write_count(p, &p->counter[offset], (uint8_t)value);
	reschedule(p);
	pthread_mutex_unlock(&p->lock);
}

static uint64_t port61_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	int64_t t = now(p);
	uint8_t value = p->port61 | (output(&p->counter[2], t) ? PORT61_OUT2 : 0) |
			(t / REFRESH_NS & 1 ? PORT61_REFRESH : 0);
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void port61_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	p->port61 = value & PORT61_WRITABLE;
	set_gate(p, &p->counter[2], value & PORT61_GATE2);
	pthread_mutex_unlock(&p->lock);
}

static const struct io_ops pit_ops = {.read = pit_read, .write = pit_write};
static const struct io_ops port61_ops = {.read = port61_read, .write = port61_write};

static void pit_reset(struct device *dev)
{
	struct pit *p = (struct pit *)dev;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < 3; i++)
		p->counter[i] = (struct counter){.reload = 65536,
						 .mode = 3,
						 .rw = RW_BOTH,
						 .gate = i != 2,
						 .start = now(p),
						 .stopped = now(p)};
	p->port61 = 0;
	irq_set(p->irq, false);
	reschedule(p);
	pthread_mutex_unlock(&p->lock);
}

static bool pit_realize(struct device *dev, struct error **err)
{
	struct pit *p = (struct pit *)dev;

	p->irq = dev->vm->gsi[0];
	p->next = INT64_MAX;
	ev_timer_init(&p->timer, fired, p);
	ev_work_init(&p->work, arm, p);
	pit_reset(dev);
	p->io = (struct io_region){.base = 0x40,
				   .size = 4,
				   .ops = &pit_ops,
				   .opaque = p,
				   .name = "pit",
				   .max_access = 1};
	p->port61_io = (struct io_region){.base = PORT61,
					  .size = 1,
					  .ops = &port61_ops,
					  .opaque = p,
					  .name = "speaker",
					  .max_access = 1};
	if (!io_bus_add(&dev->vm->pio, &p->io, err))
		return false;
	if (!io_bus_add(&dev->vm->pio, &p->port61_io, err)) {
		io_bus_remove(&dev->vm->pio, &p->io);
		return false;
	}
	return true;
}

static void pit_unrealize(struct device *dev)
{
	struct pit *p = (struct pit *)dev;

	io_bus_remove(&dev->vm->pio, &p->io);
	io_bus_remove(&dev->vm->pio, &p->port61_io);
	io_bus_quiesce(&dev->vm->pio);
	evloop_unpost(dev->vm->loop, &p->work);
	evloop_timer_cancel(dev->vm->loop, &p->timer);
}

static void pit_init(struct device *dev)
{
	pthread_mutex_init(&((struct pit *)dev)->lock, NULL);
}

static void pit_destroy(struct device *dev)
{
	pthread_mutex_destroy(&((struct pit *)dev)->lock);
}

static void pre_save(void *object)
{
	struct pit *p = object;

	p->saved_now = now(p);
}

static bool post_load(void *object, unsigned version, struct error **err)
{
	struct pit *p = object;
	const int64_t limit = INT64_C(1) << 61;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < 3; i++) {
		struct counter *c = &p->counter[i];

		if (c->mode > 5 || c->rw > RW_BOTH || !c->rw || !c->reload || c->reload > 65536 ||
		    c->latch_bytes > 2 || (c->count_latched && !c->latch_bytes) ||
		    c->start > limit || c->start < -limit || c->stopped > limit ||
		    c->stopped < -limit || p->saved_now > limit || p->saved_now < -limit) {
			error_set(err, "i8254: state out of range");
			pthread_mutex_unlock(&p->lock);
			pit_reset(&p->dev);
			return false;
		}
		/* This host's clock tells another time. */
		c->start += now(p) - p->saved_now;
		c->stopped += now(p) - p->saved_now;
	}
	reschedule(p);
	pthread_mutex_unlock(&p->lock);
	return true;
}

static const struct state_desc counter_state = {
	.name = "i8254-counter",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct counter, reload, STATE_U32),
			STATE_FIELD(struct counter, mode, STATE_U8),
			STATE_FIELD(struct counter, rw, STATE_U8),
			STATE_FIELD(struct counter, bcd, STATE_BOOL),
			STATE_FIELD(struct counter, gate, STATE_BOOL),
			STATE_FIELD(struct counter, loaded, STATE_BOOL),
			STATE_FIELD(struct counter, write_high, STATE_BOOL),
			STATE_FIELD(struct counter, read_high, STATE_BOOL),
			STATE_FIELD(struct counter, write_low, STATE_U8),
			STATE_FIELD(struct counter, count_latched, STATE_BOOL),
			STATE_FIELD(struct counter, status_latched, STATE_BOOL),
			STATE_FIELD(struct counter, latch, STATE_U16),
			STATE_FIELD(struct counter, latch_bytes, STATE_U8),
			STATE_FIELD(struct counter, status, STATE_U8),
			STATE_FIELD(struct counter, start, STATE_I64),
			STATE_FIELD(struct counter, stopped, STATE_I64),
			{0},
		},
};

static const struct state_desc pit_state = {
	.name = "i8254",
	.version = 1,
	.fields =
		(const struct state_field[]){
			{.name = "counter",
			 .type = STATE_STRUCT,
			 .offset = offsetof(struct pit, counter),
			 .size = sizeof(struct counter),
			 .count = 3,
			 .desc = &counter_state},
			STATE_FIELD(struct pit, port61, STATE_U8),
			STATE_FIELD(struct pit, saved_now, STATE_I64),
			{0},
		},
	.pre_save = pre_save,
	.post_load = post_load,
};

const struct device_desc i8254_desc = {
	.name = "i8254",
	.help = "interval timer and speaker port",
	.size = sizeof(struct pit),
	.state = &pit_state,
	.internal = true,
	.init = pit_init,
	.realize = pit_realize,
	.reset = pit_reset,
	.unrealize = pit_unrealize,
	.destroy = pit_destroy,
};
