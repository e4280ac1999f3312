/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a check of an image found. Main thread, on the caller's loop; the node is drained and nobody
 * submits meanwhile.
 */
#ifndef BLOCK_CHECK_H
#define BLOCK_CHECK_H

#include <stdint.h>

enum { BLOCK_FIX_LEAKS = 1 << 0, BLOCK_FIX_ERRORS = 1 << 1, BLOCK_FIX_ALL = 3 };

struct block_check {
	uint64_t corruptions, leaks, check_errors;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t image_end; /* bytes */
	/* total 0: the format does not count them. */
	uint64_t total_clusters, allocated_clusters, compressed_clusters, fragmented_clusters;
};

struct block_check_out {
	/* One line for each finding, without a newline. NULL: nobody listens. */
	void (*message)(void *opaque, const char *line);
	void *opaque;
};

#endif
