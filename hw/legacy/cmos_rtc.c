/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818A clock and 128 bytes of CMOS RAM at ports 0x70 and 0x71 (Motorola MC146818A data sheet;
 * Intel ICH9, 13.6 Real Time Clock Registers), interrupt 8.
 *
 * Nothing ticks: time is a clock's plus an offset, and flags that would have been set since the
 * last look are worked out when somebody looks. The main loop's timer runs only while an interrupt
 * is enabled.
 *
 * Threads: ports on vCPU threads, the timer and the rest on the main loop, under the device's lock.
 * Owner: the machine.
 */
#include "hw/legacy/cmos.h"

#include "hw/legacy/legacy.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

static const int64_t UPDATE_WARNING = 244 * 1000; /* ns for which UIP announces an update */

int64_t cmos_source_now(const struct cmos *c)
{
	if (c->clock == CMOS_CLOCK_HOST)
		return clock_now(c->host);
	if (c->clock == CMOS_CLOCK_VM && c->vm_stopped)
		return c->stopped_at - c->stopped_ns;
	return clock_now(c->monotonic) - c->stopped_ns;
}

int64_t cmos_now(const struct cmos *c)
{
	return cmos_source_now(c) + c->offset;
}

int64_t cmos_second(const struct cmos *c)
{
	return rtc_floor_second(cmos_now(c)) + c->epoch;
}

bool cmos_running(const struct cmos *c)
{
	return !(c->ram[RTC_REG_B] & B_SET) && (c->ram[RTC_REG_A] & A_DIVIDER) <= A_DIVIDER_32KHZ;
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

void cmos_update_irq(struct cmos *c)
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
	if (c->driftfix == CMOS_DRIFT_SLEW && (c->ram[RTC_REG_B] & B_PIE))
		c->lost_ticks = (uint32_t)MIN(c->lost_ticks + ticks - 1, 1000000);
	c->ram[RTC_REG_C] |= C_PF;
}

void cmos_catch_up(struct cmos *c)
{
	int64_t now = cmos_now(c);

	catch_up_periodic(c, now);
	int64_t second = rtc_floor_second(now) + c->epoch;
	if (cmos_running(c) && second > c->seen_second) {
		c->ram[RTC_REG_C] |= C_UF;
		if (rtc_next_alarm(c->ram, c->ram[RTC_REG_B], c->seen_second) <= second)
			c->ram[RTC_REG_C] |= C_AF;
	}
	c->seen_second = second;
	cmos_update_irq(c);
}

/* When the next interrupt that is enabled comes, in ns as cmos_now() counts, or INT64_MAX. */
static int64_t next_event(const struct cmos *c)
{
	uint8_t enabled = c->ram[RTC_REG_B];
	int64_t next = INT64_MAX;

	if ((enabled & B_PIE) && c->periodic_next)
		next = c->periodic_next;
	if (!cmos_running(c))
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

void cmos_arm_timer(void *opaque)
{
	struct cmos *c = opaque;
	struct evloop *loop = c->dev.vm->loop;

	pthread_mutex_lock(&c->lock);
	int64_t next = next_event(c);
	int64_t wait = next == INT64_MAX ? 0 : next - cmos_now(c);
	c->timer_live = next != INT64_MAX && !(c->clock == CMOS_CLOCK_VM && c->vm_stopped);
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
	cmos_catch_up(c);
	pthread_mutex_unlock(&c->lock);
	cmos_arm_timer(c);
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
	struct vm_event event = {.kind = VM_EVENT_RTC_CHANGE, .value = cmos_offset(&c->dev)};

	vm_send_event(c->dev.vm, &event);
}

/* Registers. */

static bool is_time(uint8_t index)
{
	return index == RTC_SECONDS || index == RTC_MINUTES || index == RTC_HOURS ||
	       (index >= RTC_WEEKDAY && index <= RTC_YEAR) || index == RTC_CENTURY ||
	       index == CENTURY_PS2;
}

void cmos_show_time(struct cmos *c)
{
	rtc_encode(c->ram, c->ram[RTC_REG_B], cmos_second(c));
}

/* The guest's time bytes become the time; the fraction of the second goes on as it was. */
static void take_time(struct cmos *c)
{
	int64_t before = cmos_second(c), after = rtc_decode(c->ram, c->ram[RTC_REG_B]);

	if (before == after)
		return;
	c->epoch += after - before;
	c->seen_second = after;
	evloop_post(c->dev.vm->loop, &c->change_work);
}

static void write_a(struct cmos *c, uint8_t value)
{
	bool was_running = cmos_running(c);

	if (was_running)
		cmos_show_time(c);
	c->ram[RTC_REG_A] = value & ~A_UIP;
	if (!was_running && cmos_running(c)) {
		/* The first update comes half a second after the divider was released. */
		int64_t half = NSEC_PER_SEC / 2, now = cmos_now(c);

		take_time(c);
		c->offset += half - (now - rtc_floor_second(now) * NSEC_PER_SEC);
	}
	c->periodic_next = 0;
	catch_up_periodic(c, cmos_now(c));
}

static void write_b(struct cmos *c, uint8_t value)
{
	uint8_t old = c->ram[RTC_REG_B];
	bool was_running = cmos_running(c);

	/* Changing the format leaves the registers' bytes alone, as on the chip, so fetch them in
	 * the old one when they freeze. Freezing also disables the update interrupt. */
	if (was_running && (value & B_SET))
		cmos_show_time(c);
	if (value & B_SET)
		value &= ~B_UIE;
	c->ram[RTC_REG_B] = value;
	if (!was_running && cmos_running(c))
		take_time(c);
	if (~old & value & B_PIE) {
		c->lost_ticks = 0;
		c->ram[RTC_REG_C] &= ~C_PF;
	}
	cmos_update_irq(c);
}

static void cmos_write(struct cmos *c, uint8_t index, uint8_t value)
{
	cmos_catch_up(c);
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
		if (is_time(index) && cmos_running(c)) {
			cmos_show_time(c);
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
	int64_t now = cmos_now(c);

	return cmos_running(c) &&
	       (rtc_floor_second(now) + 1) * NSEC_PER_SEC - now <= UPDATE_WARNING;
}

static uint8_t read_c(struct cmos *c)
{
	uint8_t value;

	cmos_catch_up(c);
	value = c->ram[RTC_REG_C];
	c->ram[RTC_REG_C] = 0;
	cmos_update_irq(c);
	if ((value & C_PF) && (c->ram[RTC_REG_B] & B_PIE) && c->lost_ticks &&
	    c->slewed < SLEW_BURST) {
		c->lost_ticks--;
		c->slewed++;
		c->ram[RTC_REG_C] |= C_PF;
		cmos_update_irq(c);
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
	if (is_time(index) && cmos_running(c))
		cmos_show_time(c);
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
		c->index = value & (CMOS_RAM_SIZE - 1); /* bit 7 is the NMI gate */
	else
		cmos_write(c, c->index, value);
	pthread_mutex_unlock(&c->lock);
}

const struct io_ops cmos_port_ops = {.read = port_read, .write = port_write};

void cmos_timer_init(struct cmos *c)
{
	ev_timer_init(&c->timer, timer_fired, c);
	ev_work_init(&c->timer_work, cmos_arm_timer, c);
	ev_work_init(&c->change_work, tell_change, c);
}
