/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Consistency of a qcow2 image: counts every reference and compares with the refcounts.
 * Main thread, on the caller's loop; the node is drained and nobody submits meanwhile.
 */
#ifndef BLOCK_QCOW2_CHECK_H
#define BLOCK_QCOW2_CHECK_H

#include "block/check.h"
#include "block/driver.h"

/* message gets one line for each finding (without a newline). 0, or -errno when it could not be
 * carried through (out of memory, unreadable tables). */
int qcow2_check(struct block_node *node, unsigned fix, struct block_check *result,
		void (*message)(void *opaque, const char *line), void *opaque);

#endif
