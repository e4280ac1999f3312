/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty bitmaps of nodes: named records of what was written since some moment, for incremental
 * backups. A node's writes set bits in all of its bitmaps that are enabled. A persistent one is
 * kept by the image's format (qcow2) when the node closes, and is marked there as in use before the
 * first write that it records: after a crash it is inconsistent, and can only be removed.
 *
 * All functions but block_bitmaps_record(): main thread, synchronous; the node is drained, on a
 * loop that the caller runs, and nobody submits meanwhile.
 */
#ifndef BLOCK_BITMAP_H
#define BLOCK_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "block/dirty_bitmap.h"
#include "vmm/core/error.h"

struct block_node;

enum { BLOCK_BITMAP_NAME_MAX = 1023 };

struct block_bitmap {
	char *name;
	bool enabled;	   /* records writes; stored as the flag "auto" */
	bool persistent;   /* the format keeps it */
	bool inconsistent; /* its contents are not to be had */

	/*
	 * The bits: all of them if complete, which block_bitmap_load() makes true. Otherwise what
	 * was set since the format's own copy was read or written; both together count.
	 */
	struct dirty_bitmap dirty;
	bool complete;
	bool replaced; /* complete, and the format's copy is to be thrown away */

	void *stored; /* the format's; NULL: it has none yet */
	struct block_bitmap *next;
};

/* Whether the image can keep bitmaps. */
bool block_keeps_bitmaps(const struct block_node *node);
/* The first, in the image's order; bitmap->next goes on. */
struct block_bitmap *block_bitmaps(const struct block_node *node);
struct block_bitmap *block_bitmap_find(const struct block_node *node, const char *name);
static inline uint64_t block_bitmap_granularity(const struct block_bitmap *bm)
{
	return UINT64_C(1) << bm->dirty.shift;
}

/* A clean bitmap, enabled. granularity 0: the node's default. A persistent one is stored when the
 * node closes, or by block_bitmaps_store(). */
struct block_bitmap *block_bitmap_add(struct block_node *node, const char *name,
				      uint64_t granularity, bool persistent, struct error **err);
/* From the image as well, durably; an inconsistent one too. */
bool block_bitmap_remove(struct block_node *node, struct block_bitmap *bm, struct error **err);
bool block_bitmap_clear(struct block_node *node, struct block_bitmap *bm, struct error **err);
bool block_bitmap_enable(struct block_node *node, struct block_bitmap *bm, bool enabled,
			 struct error **err);
/* Has all bits in bm->dirty. */
bool block_bitmap_load(struct block_node *node, struct block_bitmap *bm, struct error **err);
/* Sets in to what is set in from, a bitmap of the same node or another. */
bool block_bitmap_merge(struct block_node *node, struct block_bitmap *to,
			struct block_node *from_node, struct block_bitmap *from,
			struct error **err);
/* Brings what is persistent to the disk; from now on, until the next write, a crash loses none of
 * it. 0 or -errno. block_unref() does it last. */
int block_bitmaps_store(struct block_node *node);

#endif
