/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared interrupt inputs (irq_share.h). Threads: any, under the share's lock. Owner: its users,
 * by reference.
 */
#include "hw/legacy/irq_share.h"

#include <stdlib.h>

#include "vmm/core/util.h"

struct irq_share *irq_share_new(struct irq_line *line)
{
	struct irq_share *share = xcalloc(1, sizeof(*share));

	share->line = line;
	share->users = 1;
	pthread_mutex_init(&share->lock, NULL);
	return share;
}

struct irq_share *irq_share_ref(struct irq_share *share)
{
	share->users++;
	return share;
}

void irq_share_unref(struct irq_share *share)
{
	if (!share || --share->users)
		return;
	pthread_mutex_destroy(&share->lock);
	free(share);
}

void irq_share_set(struct irq_share *share, bool *own, bool level)
{
	if (*own == level)
		return;
	*own = level;
	pthread_mutex_lock(&share->lock);
	if (level ? !share->up++ : !--share->up)
		irq_set(share->line, level);
	pthread_mutex_unlock(&share->lock);
}
