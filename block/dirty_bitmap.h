/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dirty bitmap in memory: which parts of a disk were written. One bit stands for a granule of a
 * power of two of bytes; memory is taken where bits differ, 4 KiB for each 32768 of them, so that a
 * bitmap that nobody wrote to costs nothing.
 *
 * Recording never fails: without memory more counts as dirty than was written. Offsets and lengths
 * are bytes of the disk; what lies beyond its end is left out.
 *
 * Thread: the owner's. Pure; who records, stores and reads it is block/bitmap.h's affair.
 */
#ifndef BLOCK_DIRTY_BITMAP_H
#define BLOCK_DIRTY_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DIRTY_BITMAP_MIN_SHIFT = 9, DIRTY_BITMAP_MAX_SHIFT = 31 };

struct dirty_bitmap {
	uint64_t size;	/* of the disk */
	unsigned shift; /* a granule is 1 << shift bytes */
	uint64_t bits;	/* size in granules */
	uint64_t dirty; /* bits that are set */
	uint64_t **chunks;
	bool lost; /* there was no memory: all of it is dirty */
};

/* All clean. Takes no memory. */
void dirty_bitmap_init(struct dirty_bitmap *bm, uint64_t size, unsigned shift);
/* All clean again, and its memory given back. */
void dirty_bitmap_clear(struct dirty_bitmap *bm);

/* Every granule that the range touches. */
void dirty_bitmap_set(struct dirty_bitmap *bm, uint64_t offset, uint64_t bytes);
/* Every granule that lies wholly inside the range (the last one ends with the disk). */
void dirty_bitmap_reset(struct dirty_bitmap *bm, uint64_t offset, uint64_t bytes);
bool dirty_bitmap_get(const struct dirty_bitmap *bm, uint64_t offset);
/* The first dirty run that ends behind from. False: there is none. */
bool dirty_bitmap_next(const struct dirty_bitmap *bm, uint64_t from, uint64_t *offset,
		       uint64_t *bytes);
/* What is dirty in from becomes dirty in to as well; of any granularity. */
void dirty_bitmap_merge(struct dirty_bitmap *to, const struct dirty_bitmap *from);
/* The disk's size changes: what is new is clean. */
void dirty_bitmap_resize(struct dirty_bitmap *bm, uint64_t size);

/*
 * Bits as formats store them: the first bit is the lowest of the first byte. first is a multiple of
 * 64 and bytes of 8; bits beyond the end are read as clean and not taken.
 */
uint64_t dirty_bitmap_count(const struct dirty_bitmap *bm, uint64_t first, uint64_t bits);
/* Sets in buf what is set here; the rest of buf stays. */
void dirty_bitmap_give(const struct dirty_bitmap *bm, uint64_t first, uint8_t *buf, size_t bytes);
/* Sets here what is set in buf. */
void dirty_bitmap_take(struct dirty_bitmap *bm, uint64_t first, const uint8_t *buf, size_t bytes);

#endif
