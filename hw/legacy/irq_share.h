/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One interrupt input that several devices drive, as COM1 and COM3 do with IRQ 4: the input is up
 * while any of them is. Made by the first device, freed by the last; main thread. Setting: any
 * thread.
 */
#ifndef HW_LEGACY_IRQ_SHARE_H
#define HW_LEGACY_IRQ_SHARE_H

#include <pthread.h>

#include "vmm/core/irq.h"

struct irq_share {
	struct irq_line *line;
	pthread_mutex_t lock; /* a leaf */
	unsigned users, up;
};

struct irq_share *irq_share_new(struct irq_line *line);
struct irq_share *irq_share_ref(struct irq_share *share);
void irq_share_unref(struct irq_share *share);

/* level is where the caller's own line goes from *own. */
void irq_share_set(struct irq_share *share, bool *own, bool level);

#endif
