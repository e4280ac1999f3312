/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Consistency of a qcow2 image: counts every reference and compares with the refcounts.
 * Main thread, on the caller's loop; the node is drained and nobody submits meanwhile.
 */
#ifndef BLOCK_QCOW2_CHECK_H
#define BLOCK_QCOW2_CHECK_H

#include "block/driver.h"

enum { QCOW2_FIX_LEAKS = 1 << 0, QCOW2_FIX_ERRORS = 1 << 1, QCOW2_FIX_ALL = 3 };

struct qcow2_check {
	uint64_t corruptions, leaks, check_errors;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t image_end; /* bytes */
	uint64_t total_clusters, allocated_clusters, compressed_clusters, fragmented_clusters;
};

/* message gets one line for each finding (without a newline). 0, or -errno when it could not be
 * carried through (out of memory, unreadable tables). */
int qcow2_check(struct block_node *node, unsigned fix, struct qcow2_check *result,
		void (*message)(void *opaque, const char *line), void *opaque);

#endif
