/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the CMOS clock: its registers' bits and its state, between the clock (cmos_rtc.c) and the
 * device around it (cmos_device.c).
 */
#ifndef HW_LEGACY_CMOS_H
#define HW_LEGACY_CMOS_H

#include <pthread.h>

#include "hw/legacy/rtc_time.h"
#include "vmm/core/device.h"
#include "vmm/core/evloop.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/irq.h"
#include "vmm/core/notifier.h"

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
	CMOS_RAM_SIZE = 128,
	CMOS_IRQ = 8,
	CMOS_PORT = 0x70,

	/* How many lost ticks one acknowledgement may bring back before the next regular one. */
	SLEW_BURST = 20,
};

/* The properties' values. */
enum cmos_clock { CMOS_CLOCK_HOST, CMOS_CLOCK_RT, CMOS_CLOCK_VM };
enum cmos_drift { CMOS_DRIFT_NONE, CMOS_DRIFT_SLEW };

struct cmos {
	struct device dev;
	char *base;
	int clock, driftfix; /* enum cmos_clock, enum cmos_drift */
	const struct clock *host, *monotonic;

	pthread_mutex_t lock;
	struct io_region io;
	struct irq_line *irq;
	bool irq_up;
	struct ev_timer timer;
	bool timer_live;
	struct ev_work timer_work, change_work;
	struct notifier state_changed;

	uint8_t ram[CMOS_RAM_SIZE];
	uint8_t index;

	/* The guest's time is the clock's plus offset ns plus epoch seconds. Two parts, since ns
	 * alone do not reach the years that a guest may write. */
	int64_t offset, epoch;
	int64_t initial_offset, initial_epoch; /* what base= asked for */
	bool vm_stopped;		       /* clock=vm: time stands still at stopped_at */
	int64_t stopped_at, stopped_ns;

	int64_t seen_second;   /* updates up to here are in C */
	int64_t periodic_next; /* guest time of the next periodic tick, ns */
	uint32_t lost_ticks, slewed;

	int64_t saved_now; /* ns without epoch, for the saved state */
};

extern const struct io_ops cmos_port_ops;

/* With the lock held. */
int64_t cmos_source_now(const struct cmos *c); /* ns of the clock that base= was added to */
int64_t cmos_now(const struct cmos *c);	       /* ns, the guest's without epoch */
int64_t cmos_second(const struct cmos *c);     /* s since 1970, the guest's */
/* The divider chain runs and the guest has not frozen the registers. */
bool cmos_running(const struct cmos *c);
void cmos_show_time(struct cmos *c); /* into the RAM's bytes */
void cmos_update_irq(struct cmos *c);
/* Puts into register C what happened since the last look. */
void cmos_catch_up(struct cmos *c);

/* Without it. Work for the main loop: arms the timer for the next interrupt; tells a change of the
 * guest's clock. */
void cmos_timer_init(struct cmos *c);
void cmos_arm_timer(void *c);

#endif
