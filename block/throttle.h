/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits on I/O: throttle groups, which -object throttle-group makes or a -drive with limits. The
 * throttle driver puts a disk into a group; the disks of a group share its limits in turn, on
 * whatever loops they are.
 *
 * Main thread; what the disks do with a group on their loops is under the group's own lock.
 */
#ifndef BLOCK_THROTTLE_H
#define BLOCK_THROTTLE_H

#include <stdbool.h>

#include "vmm/core/error.h"
#include "vmm/core/opts.h"

struct throttle_groups;

struct throttle_groups *throttle_groups_new(void);
/* All nodes are closed. NULL is allowed. */
void throttle_groups_free(struct throttle_groups *groups);
/* -object throttle-group: limits as "limits.bps-total" or "x-bps-total" and so on. */
bool throttle_groups_add(struct throttle_groups *groups, const char *name, struct opts *opts,
			 struct error **err);
/* Whether one of -drive's keys for throttling is there. */
bool throttle_asked(const struct opts *opts);

#endif
