/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Breakpoints of blkdebug, the first such node below the one that is given: the next request after
 * an event waits until it is resumed. For tools; on the node's loop.
 */
#ifndef BLOCK_FILTER_BLKDEBUG_H
#define BLOCK_FILTER_BLKDEBUG_H

#include "block/driver.h"

/* A request waits, or goes on. */
typedef void blkdebug_report(void *opaque, const char *tag, bool resumed);

/* All: 0, -ENOTSUP if there is no such node, or -ENOENT if there is no such event or tag. */
int blkdebug_break(struct block_node *node, const char *event, const char *tag,
		   blkdebug_report *report, void *opaque);
/* Requests with that tag go on, too; they do not count as found, as with QEMU. */
int blkdebug_remove_break(struct block_node *node, const char *tag);
/* The first request with that tag. */
int blkdebug_resume(struct block_node *node, const char *tag);
bool blkdebug_is_suspended(struct block_node *node, const char *tag);

#endif
