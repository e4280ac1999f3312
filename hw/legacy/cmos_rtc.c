/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818A clock and 128 bytes of CMOS RAM at ports 0x70 and 0x71 (Motorola MC146818A data sheet;
 * Intel ICH9, 13.6 Real Time Clock Registers), interrupt 8.
 *
 * Nothing ticks: time is a clock's plus an offset, and flags that would have been set since the last
 * look are worked out when somebody looks. The main loop's timer runs only while an interrupt is
 * enabled.
 *
 * Threads: ports on vCPU threads, the timer and the rest on the main loop, under the device's lock.
 * Owner: the machine.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "hw/legacy/legacy.h"
#include "hw/legacy/rtc_time.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	A_UIP = 1 << 7,
	A_DIVIDER = 0x70,
	A_DIVIDER_32KHZ = 0x20,
	A_RATE = 0x0f,

	B_SET = 1 << 7,
	B_PIE = 1 << 6,
	B_AIE = 1 << 5,
	B_UIE = 1 << 4,
	B_SQWE = 1 << 3,
	B_INTERRUPTS = B_PIE | B_AIE | B_UIE, /* at the places of their flags in C */

	C_IRQF = 1 << 7,
	C_PF = 1 << 6,
	C_AF = 1 << 5,
	C_UF = 1 << 4,

	D_VALID = 1 << 7,

	CENTURY_PS2 = 0x37,
	RAM_SIZE = 128,
	RTC_IRQ = 8,
	PORT_INDEX = 0x70,

	/* How many lost ticks one acknowledgement may bring back before the next regular one. */
	SLEW_BURST = 20,
};

/* What a saved state may hold: ns are added to a clock's, seconds to what ten bytes can tell. */
#define MAX_NS (INT64_C(1) << 61)
#define MAX_EPOCH INT64_C(1000000000000)

static const int64_t UPDATE_WARNING = 244 * 1000; /* ns for which UIP announces an update */

enum { CLOCK_HOST, CLOCK_RT, CLOCK_VM };
static const char *const clock_names[] = { "host", "rt", "vm", NULL };
enum { DRIFT_NONE, DRIFT_SLEW };
static const char *const drift_names[] = { "none", "slew", NULL };

struct cmos {
	struct device dev;
	char *base;
	int clock, driftfix;
	const struct clock *host, *monotonic;

	pthread_mutex_t lock;
	struct io_region io;
	struct irq_line *irq;
	bool irq_up;
	struct ev_timer timer;
	bool timer_live;
	struct ev_work timer_work, change_work;
	struct notifier state_changed;

	uint8_t ram[RAM_SIZE];
	uint8_t index;

	/* The guest's time is the clock's plus offset ns plus epoch seconds. Two parts, since ns alone
	 * do not reach the years that a guest may write. */
	int64_t offset, epoch;
	int64_t initial_offset, initial_epoch; /* what base= asked for */
	bool vm_stopped;	/* clock=vm: time stands still at stopped_at */
	int64_t stopped_at, stopped_ns;

	int64_t seen_second;  /* updates up to here are in C */
	int64_t periodic_next; /* guest time of the next periodic tick, ns */
	uint32_t lost_ticks, slewed;

	int64_t saved_now; /* ns without epoch, for the saved state */
};

/* Time. All with the lock held. */

static int64_t source_now(const struct cmos *c)
{
	if (c->clock == CLOCK_HOST)
		return clock_now(c->host);
	if (c->clock == CLOCK_VM && c->vm_stopped)
		return c->stopped_at - c->stopped_ns;
	return clock_now(c->monotonic) - c->stopped_ns;
}

static int64_t guest_now(const struct cmos *c)
{
	return source_now(c) + c->offset;
}

static int64_t floor_second(int64_t ns)
{
	return ns / NSEC_PER_SEC - (ns % NSEC_PER_SEC < 0);
}

static int64_t guest_second(const struct cmos *c)
{
	return floor_second(guest_now(c)) + c->epoch;
}

/* The divider chain runs and the guest has not frozen the registers. */
static bool running(const struct cmos *c)
{
	return !(c->ram[RTC_REG_B] & B_SET) &&
	       (c->ram[RTC_REG_A] & A_DIVIDER) <= A_DIVIDER_32KHZ;
}

/* ns between periodic ticks, 0 for none. */
static int64_t period(const struct cmos *c)
{
	unsigned rate = c->ram[RTC_REG_A] & A_RATE;

	if (!rate || (c->ram[RTC_REG_A] & A_DIVIDER) > A_DIVIDER_32KHZ)
		return 0;
	if (rate <= 2)
		rate += 7;
	return ((int64_t)1 << (rate - 1)) * NSEC_PER_SEC / 32768;
}

static void update_irq(struct cmos *c)
{
	bool up = c->ram[RTC_REG_B] & c->ram[RTC_REG_C] & B_INTERRUPTS;

	if (up)
		c->ram[RTC_REG_C] |= C_IRQF;
	else
		c->ram[RTC_REG_C] &= ~C_IRQF;
	if (up != c->irq_up) {
		c->irq_up = up;
		irq_set(c->irq, up);
	}
}

static void catch_up_periodic(struct cmos *c, int64_t now)
{
	int64_t step = period(c);

	if (!step) {
		c->periodic_next = 0;
		return;
	}
	if (!c->periodic_next || c->periodic_next > now + step)
		c->periodic_next = (now / step + 1) * step;
	if (now < c->periodic_next)
		return;
	int64_t ticks = (now - c->periodic_next) / step + 1;
	c->periodic_next += ticks * step;
	c->slewed = 0;
	/* A tick that nobody took yet is lost, unless they are to be made up for. */
	if (c->ram[RTC_REG_C] & C_PF)
		ticks++;
	if (c->driftfix == DRIFT_SLEW && (c->ram[RTC_REG_B] & B_PIE))
		c->lost_ticks = (uint32_t)MIN(c->lost_ticks + ticks - 1, 1000000);
	c->ram[RTC_REG_C] |= C_PF;
}

/* Puts into C what happened since the last look. */
static void catch_up(struct cmos *c)
{
	int64_t now = guest_now(c);

	catch_up_periodic(c, now);
	int64_t second = floor_second(now) + c->epoch;
	if (running(c) && second > c->seen_second) {
		c->ram[RTC_REG_C] |= C_UF;
		if (rtc_next_alarm(c->ram, c->ram[RTC_REG_B], c->seen_second) <= second)
			c->ram[RTC_REG_C] |= C_AF;
	}
	c->seen_second = second;
	update_irq(c);
}

/* When the next interrupt that is enabled comes, in ns as guest_now() counts, or INT64_MAX. */
static int64_t next_event(const struct cmos *c)
{
	uint8_t enabled = c->ram[RTC_REG_B];
	int64_t next = INT64_MAX;

	if ((enabled & B_PIE) && c->periodic_next)
		next = c->periodic_next;
	if (!running(c))
		return next;
	if (enabled & B_UIE) {
		next = MIN(next, (c->seen_second + 1 - c->epoch) * NSEC_PER_SEC);
	} else if (enabled & B_AIE) {
		int64_t alarm = rtc_next_alarm(c->ram, c->ram[RTC_REG_B], c->seen_second);

		if (alarm != INT64_MAX)
			next = MIN(next, (alarm - c->epoch) * NSEC_PER_SEC);
	}
	return next;
}

static void arm_timer(void *opaque)
{
	struct cmos *c = opaque;
	struct evloop *loop = c->dev.vm->loop;

	pthread_mutex_lock(&c->lock);
	int64_t next = next_event(c);
	int64_t wait = next == INT64_MAX ? 0 : next - guest_now(c);
	c->timer_live = next != INT64_MAX && !(c->clock == CLOCK_VM && c->vm_stopped);
	bool live = c->timer_live;
	pthread_mutex_unlock(&c->lock);
	/* The host's date may be set meanwhile: look again once an hour. */
	if (live)
		evloop_timer_arm(loop, &c->timer,
				 evloop_now(loop) + MIN(MAX(wait, 0), 3600 * NSEC_PER_SEC));
	else
		evloop_timer_cancel(loop, &c->timer);
}

static void timer_fired(void *opaque)
{
	struct cmos *c = opaque;

	pthread_mutex_lock(&c->lock);
	catch_up(c);
	pthread_mutex_unlock(&c->lock);
	arm_timer(c);
}

/* Any thread, with the lock held: what the timer waits for may have changed. */
static void timer_changed(struct cmos *c)
{
	if ((c->ram[RTC_REG_B] & B_INTERRUPTS) || c->timer_live)
		evloop_post(c->dev.vm->loop, &c->timer_work);
}

static void tell_change(void *opaque)
{
	struct cmos *c = opaque;
	struct vm_event event = { .kind = VM_EVENT_RTC_CHANGE, .value = cmos_offset(&c->dev) };

	vm_send_event(c->dev.vm, &event);
}

/* Registers. */

static bool is_time(uint8_t index)
{
	return index == RTC_SECONDS || index == RTC_MINUTES || index == RTC_HOURS ||
	       (index >= RTC_WEEKDAY && index <= RTC_YEAR) || index == RTC_CENTURY ||
	       index == CENTURY_PS2;
}

static void show_time(struct cmos *c)
{
	rtc_encode(c->ram, c->ram[RTC_REG_B], guest_second(c));
}

/* The guest's time bytes become the time; the fraction of the second goes on as it was. */
static void take_time(struct cmos *c)
{
	int64_t before = guest_second(c), after = rtc_decode(c->ram, c->ram[RTC_REG_B]);

	if (before == after)
		return;
	c->epoch += after - before;
	c->seen_second = after;
	evloop_post(c->dev.vm->loop, &c->change_work);
}

static void write_a(struct cmos *c, uint8_t value)
{
	bool was_running = running(c);

	if (was_running)
		show_time(c);
	c->ram[RTC_REG_A] = value & ~A_UIP;
	if (!was_running && running(c)) {
		/* The first update comes half a second after the divider was released. */
		int64_t half = NSEC_PER_SEC / 2, now = guest_now(c);

		take_time(c);
		c->offset += half - (now - floor_second(now) * NSEC_PER_SEC);
	}
	c->periodic_next = 0;
	catch_up_periodic(c, guest_now(c));
}

static void write_b(struct cmos *c, uint8_t value)
{
	uint8_t old = c->ram[RTC_REG_B];
	bool was_running = running(c);

	/* Changing the format leaves the registers' bytes alone, as on the chip, so fetch them in
	 * the old one when they freeze. Freezing also disables the update interrupt. */
	if (was_running && (value & B_SET))
		show_time(c);
	if (value & B_SET)
		value &= ~B_UIE;
	c->ram[RTC_REG_B] = value;
	if (!was_running && running(c))
		take_time(c);
	if (~old & value & B_PIE) {
		c->lost_ticks = 0;
		c->ram[RTC_REG_C] &= ~C_PF;
	}
	update_irq(c);
}

static void cmos_write(struct cmos *c, uint8_t index, uint8_t value)
{
	catch_up(c);
	switch (index) {
	case RTC_REG_A:
		write_a(c, value);
		break;
	case RTC_REG_B:
		write_b(c, value);
		break;
	case RTC_REG_C:
	case RTC_REG_D:
		return; /* read-only */
	default:
		if (index == CENTURY_PS2)
			index = RTC_CENTURY;
		if (is_time(index) && running(c)) {
			show_time(c);
			c->ram[index] = value;
			take_time(c);
		} else {
			c->ram[index] = value;
		}
		break;
	}
	if (index <= RTC_REG_B || index == RTC_CENTURY)
		timer_changed(c);
}

/* UIP is up for the last 244 us before an update, and the time may be read whenever it is down. */
static bool update_in_progress(const struct cmos *c)
{
	int64_t now = guest_now(c);

	return running(c) &&
	       (floor_second(now) + 1) * NSEC_PER_SEC - now <= UPDATE_WARNING;
}

static uint8_t read_c(struct cmos *c)
{
	uint8_t value;

	catch_up(c);
	value = c->ram[RTC_REG_C];
	c->ram[RTC_REG_C] = 0;
	update_irq(c);
	if ((value & C_PF) && (c->ram[RTC_REG_B] & B_PIE) && c->lost_ticks &&
	    c->slewed < SLEW_BURST) {
		c->lost_ticks--;
		c->slewed++;
		c->ram[RTC_REG_C] |= C_PF;
		update_irq(c);
	}
	return value;
}

static uint8_t cmos_read(struct cmos *c, uint8_t index)
{
	switch (index) {
	case RTC_REG_A:
		return c->ram[RTC_REG_A] | (update_in_progress(c) ? A_UIP : 0);
	case RTC_REG_C:
		return read_c(c);
	case RTC_REG_D:
		return D_VALID;
	}
	if (index == CENTURY_PS2)
		index = RTC_CENTURY;
	if (is_time(index) && running(c))
		show_time(c);
	return c->ram[index];
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct cmos *c = opaque;

	if (offset == 0)
		return 0xff; /* the index is write-only */
	pthread_mutex_lock(&c->lock);
	uint8_t value = cmos_read(c, c->index);
	pthread_mutex_unlock(&c->lock);
	return value;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct cmos *c = opaque;

	pthread_mutex_lock(&c->lock);
	if (offset == 0)
		c->index = value & (RAM_SIZE - 1); /* bit 7 is the NMI gate */
	else
		cmos_write(c, c->index, value);
	pthread_mutex_unlock(&c->lock);
}

static const struct io_ops port_ops = { .read = port_read, .write = port_write };

/* What boards ask. */

void cmos_set(struct device *dev, uint8_t index, uint8_t value)
{
	struct cmos *c = (struct cmos *)dev;

	pthread_mutex_lock(&c->lock);
	c->ram[index & (RAM_SIZE - 1)] = value;
	pthread_mutex_unlock(&c->lock);
}

uint8_t cmos_get(struct device *dev, uint8_t index)
{
	struct cmos *c = (struct cmos *)dev;

	pthread_mutex_lock(&c->lock);
	uint8_t value = c->ram[index & (RAM_SIZE - 1)];
	pthread_mutex_unlock(&c->lock);
	return value;
}

void cmos_set_clocks(struct device *dev, const struct clock *host, const struct clock *monotonic)
{
	struct cmos *c = (struct cmos *)dev;

	c->host = host;
	c->monotonic = monotonic;
}

int64_t cmos_offset(struct device *dev)
{
	struct cmos *c = (struct cmos *)dev;

	pthread_mutex_lock(&c->lock);
	int64_t ns = c->offset - c->initial_offset, seconds = c->epoch - c->initial_epoch;
	pthread_mutex_unlock(&c->lock);
	return seconds + floor_second(ns + NSEC_PER_SEC / 2);
}

/* Life. */

static void state_changed(struct notifier *n, void *data)
{
	struct cmos *c = container_of(n, struct cmos, state_changed);
	bool stop = *(const enum run_state *)data != RUN_STATE_RUNNING;

	if (c->clock != CLOCK_VM)
		return;
	pthread_mutex_lock(&c->lock);
	if (stop && !c->vm_stopped)
		c->stopped_at = clock_now(c->monotonic);
	else if (!stop && c->vm_stopped)
		c->stopped_ns += clock_now(c->monotonic) - c->stopped_at;
	c->vm_stopped = stop;
	pthread_mutex_unlock(&c->lock);
	arm_timer(c);
}

/* Sets offset and epoch so that the guest's clock begins with what base= asks for. */
static bool set_base(struct cmos *c, struct error **err)
{
	int64_t now = clock_now(c->host), seconds;

	c->offset = now - source_now(c);
	if (!c->base || !strcmp(c->base, "utc")) {
		c->epoch = 0;
	} else if (!strcmp(c->base, "localtime")) {
		time_t t = floor_second(now);
		struct tm tm;

		localtime_r(&t, &tm);
		c->epoch = tm.tm_gmtoff;
	} else if (rtc_parse_date(c->base, &seconds)) {
		c->offset = -source_now(c);
		c->epoch = seconds;
	} else {
		error_set(err, "invalid datetime format '%s': valid formats are 'utc', 'localtime', "
			       "'2006-06-17T16:01:21' and '2006-06-17'", c->base);
		return false;
	}
	c->initial_offset = c->offset;
	c->initial_epoch = c->epoch;
	c->seen_second = guest_second(c);
	return true;
}

static void cmos_reset(struct device *dev)
{
	struct cmos *c = (struct cmos *)dev;

	pthread_mutex_lock(&c->lock);
	c->ram[RTC_REG_B] &= ~(B_INTERRUPTS | B_SQWE);
	c->ram[RTC_REG_C] = 0;
	c->lost_ticks = c->slewed = 0;
	update_irq(c);
	pthread_mutex_unlock(&c->lock);
	arm_timer(c);
}

static bool cmos_realize(struct device *dev, struct error **err)
{
	struct cmos *c = (struct cmos *)dev;

	if (c->clock == CLOCK_VM && !vm_is_running(dev->vm)) {
		c->vm_stopped = true;
		c->stopped_at = clock_now(c->monotonic);
	}
	if (!set_base(c, err))
		return false;
	c->irq = dev->vm->gsi[RTC_IRQ];
	c->ram[RTC_REG_A] = A_DIVIDER_32KHZ | 6;
	c->ram[RTC_REG_B] = RTC_B_24H;
	c->ram[RTC_REG_D] = D_VALID;
	show_time(c);
	ev_timer_init(&c->timer, timer_fired, c);
	ev_work_init(&c->timer_work, arm_timer, c);
	ev_work_init(&c->change_work, tell_change, c);

	c->io = (struct io_region){ .base = PORT_INDEX, .size = 2, .ops = &port_ops, .opaque = c,
				    .name = "rtc", .max_access = 1 };
	if (!io_bus_add(&dev->vm->pio, &c->io, err))
		return false;
	c->state_changed.fn = state_changed;
	notifier_add(&dev->vm->state_changed, &c->state_changed);
	return true;
}

static void cmos_unrealize(struct device *dev)
{
	struct cmos *c = (struct cmos *)dev;

	io_bus_remove(&dev->vm->pio, &c->io);
	io_bus_quiesce(&dev->vm->pio);
	notifier_remove(&dev->vm->state_changed, &c->state_changed);
	evloop_timer_cancel(dev->vm->loop, &c->timer);
	evloop_unpost(dev->vm->loop, &c->timer_work);
	evloop_unpost(dev->vm->loop, &c->change_work);
}

static void cmos_init(struct device *dev)
{
	struct cmos *c = (struct cmos *)dev;

	pthread_mutex_init(&c->lock, NULL);
	c->host = &clock_realtime;
	c->monotonic = &clock_monotonic;
}

static void cmos_destroy(struct device *dev)
{
	pthread_mutex_destroy(&((struct cmos *)dev)->lock);
}

static void pre_save(void *object)
{
	struct cmos *c = object;

	pthread_mutex_lock(&c->lock);
	catch_up(c);
	if (running(c))
		show_time(c);
	c->saved_now = guest_now(c);
	pthread_mutex_unlock(&c->lock);
}

static bool post_load(void *object, unsigned version, struct error **err)
{
	struct cmos *c = object;

	if (c->index >= RAM_SIZE || c->epoch > MAX_EPOCH || c->epoch < -MAX_EPOCH ||
	    c->offset > MAX_NS || c->offset < -MAX_NS || c->saved_now > MAX_NS ||
	    c->saved_now < -MAX_NS) {
		error_set(err, "rtc: register or time out of range");
		c->index = 0;
		c->offset = c->epoch = 0;
		return false;
	}
	pthread_mutex_lock(&c->lock);
	/* The host's date is the same elsewhere; uptimes are not, so they go on from where they
	 * stood. */
	if (c->clock != CLOCK_HOST)
		c->offset = c->saved_now - source_now(c);
	c->seen_second = guest_second(c);
	c->periodic_next = 0;
	catch_up(c);
	pthread_mutex_unlock(&c->lock);
	arm_timer(c);
	return true;
}

static const struct prop cmos_props[] = {
	{ .name = "base", .type = PROP_STRING, .offset = offsetof(struct cmos, base),
	  .def = "utc", .help = "utc, localtime, or the date to start at" },
	{ .name = "clock", .type = PROP_ENUM, .offset = offsetof(struct cmos, clock),
	  .def = "host", .names = clock_names,
	  .help = "host: follows the host's date; rt: its uptime; vm: stands while the guest does" },
	{ .name = "driftfix", .type = PROP_ENUM, .offset = offsetof(struct cmos, driftfix),
	  .def = "none", .names = drift_names,
	  .help = "slew: periodic interrupts that came too late are made up for" },
	{ 0 },
};

static const struct state_desc cmos_state = {
	.name = "mc146818rtc",
	.version = 1,
	.fields = (const struct state_field[]){
		STATE_BUFFER(struct cmos, ram),
		STATE_FIELD(struct cmos, index, STATE_U8),
		STATE_FIELD(struct cmos, lost_ticks, STATE_U32),
		STATE_FIELD(struct cmos, saved_now, STATE_I64),
		STATE_FIELD(struct cmos, offset, STATE_I64),
		STATE_FIELD(struct cmos, epoch, STATE_I64),
		{ 0 },
	},
	.pre_save = pre_save,
	.post_load = post_load,
};

const struct device_desc mc146818rtc_desc = {
	.name = "mc146818rtc",
	.help = "CMOS clock",
	.bus = "isa",
	.size = sizeof(struct cmos),
	.props = (const struct prop_set[]){ { cmos_props, 0 }, { 0 } },
	.state = &cmos_state,
	.internal = true,
	.init = cmos_init,
	.realize = cmos_realize,
	.reset = cmos_reset,
	.unrealize = cmos_unrealize,
	.destroy = cmos_destroy,
};
