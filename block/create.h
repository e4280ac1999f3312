/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making images. Main thread; synchronous.
 */
#ifndef BLOCK_CREATE_H
#define BLOCK_CREATE_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/error.h"

enum block_prealloc { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

struct block_create {
	uint64_t size;		/* bytes; rounded up to 512 */
	unsigned cluster_bits;	/* qcow2; 0: 16 */
	unsigned refcount_bits; /* qcow2; 0: 16 */
	bool v2;		/* qcow2: compat=0.10 */
	bool lazy_refcounts, zstd;
	const char *backing, *backing_format; /* as the header is to have them, or NULL */
	enum block_prealloc prealloc;
};

bool block_create_raw(const char *filename, const struct block_create *c, struct error **err);
bool block_create_qcow2(const char *filename, const struct block_create *c, struct error **err);

#endif
