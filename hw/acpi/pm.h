/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICH9's ACPI power management block: 128 ports with PM1 event and control registers, the PM
 * timer, GPE0 and the SMI enables (Intel I/O Controller Hub 9 datasheet, 13.8.3; ACPI 6.4, 4.8).
 *
 * There is no SMM: APMC_EN and SCI_EN read as set from reset on, so that firmware takes its SMI
 * handler for installed and the guest finds ACPI mode entered.
 *
 * Embedded in the LPC bridge, which owns it. Registers: any vCPU thread, under the block's own
 * lock (a leaf, but for irq_set() and evloop_post()). Everything else: the main thread.
 */
#ifndef HW_ACPI_PM_H
#define HW_ACPI_PM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/evloop.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/irq.h"
#include "vmm/core/log.h"
#include "vmm/core/notifier.h"
#include "vmm/core/state.h"

struct vm;

/* Offsets from the block's base, and lengths: what the FADT tells. */
enum {
	ACPI_PM_PM1_STS = 0x00,
	ACPI_PM_PM1_EN = 0x02,
	ACPI_PM_PM1_CNT = 0x04,
	ACPI_PM_TMR = 0x08,
	ACPI_PM_GPE0 = 0x20,
	ACPI_PM_GPE0_LEN = 16, /* status and enable together */
	ACPI_PM_SMI_EN = 0x30,
	ACPI_PM_SMI_STS = 0x34,
	ACPI_PM_SIZE = 0x80,
};

enum {
	ACPI_PM_TIMER_HZ = 3579545,
};

/* General-purpose events in use: the numbers of \_GPE._Exx. */
enum {
	ACPI_GPE_VMGENID = 5,
};

struct acpi_pm {
	struct vm *vm;
	pthread_mutex_t lock;
	struct io_region io;
	bool mapped;
	struct irq_line *sci;
	bool sci_level;

	uint16_t pm1_sts, pm1_en, pm1_cnt;
	uint8_t gpe0_sts[ACPI_PM_GPE0_LEN / 2], gpe0_en[ACPI_PM_GPE0_LEN / 2];
	uint32_t smi_en;

	/* The PM timer counts guest time, which stands still while the guest is stopped. */
	bool running;
	int64_t guest_ns;  /* guest time so far, as of the last stop */
	int64_t resumed;   /* the loop's clock at the last start */
	uint64_t overflow; /* ticks at which TMR_STS is set next */
	struct ev_timer timer;
	struct ev_work rearm; /* only the loop's thread may touch the timer */

	struct notifier powerdown, state_changed;
	struct log_ratelimit ratelimit;
};

extern const struct state_desc acpi_pm_state;

/* Not on the bus, not connected, registers as after reset. */
void acpi_pm_init(struct acpi_pm *pm, struct vm *vm);
void acpi_pm_destroy(struct acpi_pm *pm);
/* Registers only: the place in port space is the LPC bridge's to reset. */
void acpi_pm_reset(struct acpi_pm *pm);

/* Any thread, register handlers included (but not with the block's own lock held): puts the ports
 * at base, or takes them away. base must be a multiple of ACPI_PM_SIZE. */
void acpi_pm_set_base(struct acpi_pm *pm, uint16_t base, bool enabled);
/* Any thread: the line that carries the SCI from now on, NULL for none. The old one is lowered,
 * the new one raised if an event is pending. */
void acpi_pm_set_sci(struct acpi_pm *pm, struct irq_line *line);

/* Any thread: general-purpose event n (0 to 63) has happened. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned n);

#endif
