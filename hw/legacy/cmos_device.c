/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CMOS clock as a device: properties, what boards ask, life, state. cmos_rtc.c has the clock.
 * Thread: main. Owner: the machine.
 */
#include "hw/legacy/cmos.h"

#include <stdlib.h>
#include <time.h>

#include "hw/legacy/legacy.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

/* What a saved state may hold: ns are added to a clock's, seconds to what ten bytes can tell. */
#define MAX_NS	  (INT64_C(1) << 61)
#define MAX_EPOCH INT64_C(1000000000000)

static const char *const clock_names[] = {"host", "rt", "vm", NULL};
static const char *const drift_names[] = {"none", "slew", NULL};

/* What boards ask. */

void cmos_set(struct device *dev, uint8_t index, uint8_t value)
{
	struct cmos *c = (struct cmos *)dev;

	pthread_mutex_lock(&c->lock);
	c->ram[index & (CMOS_RAM_SIZE - 1)] = value;
	pthread_mutex_unlock(&c->lock);
}

uint8_t cmos_get(struct device *dev, uint8_t index)
{
	struct cmos *c = (struct cmos *)dev;

	pthread_mutex_lock(&c->lock);
	uint8_t value = c->ram[index & (CMOS_RAM_SIZE - 1)];
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
	return seconds + rtc_floor_second(ns + NSEC_PER_SEC / 2);
}

/* Life. */

static void state_changed(struct notifier *n, void *data)
{
	struct cmos *c = container_of(n, struct cmos, state_changed);
	bool stop = *(const enum run_state *)data != RUN_STATE_RUNNING;

	if (c->clock != CMOS_CLOCK_VM)
		return;
	pthread_mutex_lock(&c->lock);
	if (stop && !c->vm_stopped)
		c->stopped_at = clock_now(c->monotonic);
	else if (!stop && c->vm_stopped)
		c->stopped_ns += clock_now(c->monotonic) - c->stopped_at;
	c->vm_stopped = stop;
	pthread_mutex_unlock(&c->lock);
	cmos_arm_timer(c);
}

/* Sets offset and epoch so that the guest's clock begins with what base= asks for. */
static bool set_base(struct cmos *c, struct error **err)
{
	int64_t now = clock_now(c->host), seconds;

	c->offset = now - cmos_source_now(c);
	if (!c->base || !strcmp(c->base, "utc")) {
		c->epoch = 0;
	} else if (!strcmp(c->base, "localtime")) {
		time_t t = rtc_floor_second(now);
		struct tm tm;

		localtime_r(&t, &tm);
		c->epoch = tm.tm_gmtoff;
	} else if (rtc_parse_date(c->base, &seconds)) {
		c->offset = -cmos_source_now(c);
		c->epoch = seconds;
	} else {
		error_set(err,
			  "invalid datetime format '%s': valid formats are 'utc', 'localtime', "
			  "'2006-06-17T16:01:21' and '2006-06-17'",
			  c->base);
		return false;
	}
	c->initial_offset = c->offset;
	c->initial_epoch = c->epoch;
	c->seen_second = cmos_second(c);
	return true;
}

static void cmos_reset(struct device *dev)
{
	struct cmos *c = (struct cmos *)dev;

	pthread_mutex_lock(&c->lock);
	c->ram[RTC_REG_B] &= ~(B_INTERRUPTS | B_SQWE);
	c->ram[RTC_REG_C] = 0;
	c->lost_ticks = c->slewed = 0;
	cmos_update_irq(c);
	pthread_mutex_unlock(&c->lock);
	cmos_arm_timer(c);
}

static bool cmos_realize(struct device *dev, struct error **err)
{
	struct cmos *c = (struct cmos *)dev;

	if (c->clock == CMOS_CLOCK_VM && !vm_is_running(dev->vm)) {
		c->vm_stopped = true;
		c->stopped_at = clock_now(c->monotonic);
	}
	if (!set_base(c, err))
		return false;
	c->irq = dev->vm->gsi[CMOS_IRQ];
	c->ram[RTC_REG_A] = A_DIVIDER_32KHZ | 6;
	c->ram[RTC_REG_B] = RTC_B_24H;
	c->ram[RTC_REG_D] = D_VALID;
	cmos_show_time(c);
	cmos_timer_init(c);

	c->io = (struct io_region){.base = CMOS_PORT,
				   .size = 2,
				   .ops = &cmos_port_ops,
				   .opaque = c,
				   .name = "rtc",
				   .max_access = 1};
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
	cmos_catch_up(c);
	if (cmos_running(c))
		cmos_show_time(c);
	c->saved_now = cmos_now(c);
	pthread_mutex_unlock(&c->lock);
}

static bool post_load(void *object, unsigned version, struct error **err)
{
	struct cmos *c = object;

	if (c->index >= CMOS_RAM_SIZE || c->epoch > MAX_EPOCH || c->epoch < -MAX_EPOCH ||
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
	if (c->clock != CMOS_CLOCK_HOST)
		c->offset = c->saved_now - cmos_source_now(c);
	c->seen_second = cmos_second(c);
	c->periodic_next = 0;
	cmos_catch_up(c);
	pthread_mutex_unlock(&c->lock);
	cmos_arm_timer(c);
	return true;
}

static const struct prop cmos_props[] = {
	{.name = "base",
	 .type = PROP_STRING,
	 .offset = offsetof(struct cmos, base),
	 .def = "utc",
	 .help = "utc, localtime, or the date to start at"},
	{.name = "clock",
	 .type = PROP_ENUM,
	 .offset = offsetof(struct cmos, clock),
	 .def = "host",
	 .names = clock_names,
	 .help = "host: follows the host's date; rt: its uptime; vm: stands while the guest does"},
	{.name = "driftfix",
	 .type = PROP_ENUM,
	 .offset = offsetof(struct cmos, driftfix),
	 .def = "none",
	 .names = drift_names,
	 .help = "slew: periodic interrupts that came too late are made up for"},
	{0},
};

static const struct state_desc cmos_state = {
	.name = "mc146818rtc",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_BUFFER(struct cmos, ram),
			STATE_FIELD(struct cmos, index, STATE_U8),
			STATE_FIELD(struct cmos, lost_ticks, STATE_U32),
			STATE_FIELD(struct cmos, saved_now, STATE_I64),
			STATE_FIELD(struct cmos, offset, STATE_I64),
			STATE_FIELD(struct cmos, epoch, STATE_I64),
			{0},
		},
	.pre_save = pre_save,
	.post_load = post_load,
};

const struct device_desc mc146818rtc_desc = {
	.name = "mc146818rtc",
	.help = "CMOS clock",
	.bus = "isa",
	.size = sizeof(struct cmos),
	.props = (const struct prop_set[]){{cmos_props, 0}, {0}},
	.state = &cmos_state,
	.internal = true,
	.init = cmos_init,
	.realize = cmos_realize,
	.reset = cmos_reset,
	.unrealize = cmos_unrealize,
	.destroy = cmos_destroy,
};
