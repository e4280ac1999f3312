/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bitmaps extension's data and the bitmaps' directory, as bytes that nobody trusts.
 * Pure functions, any thread.
 */
#include <stdlib.h>

#include "block/qcow2/bitmap.h"

bool qbitmap_ext_parse(struct qbitmap_ext *x, const uint8_t *data, uint32_t len,
		       uint64_t cluster_size, uint64_t file_size, const char **what)
{
	*x = (struct qbitmap_ext){0};
	*what = "Invalid extension length";
	if (len != QBITMAP_EXT_BYTES)
		return false;
	x->count = load_be32(data);
	x->dir_bytes = load_be64(data + 8);
	x->dir_offset = load_be64(data + 16);
	*what = NULL;
	if (load_be32(data + 4))
		*what = "Reserved field is not zero";
	else if (x->count > QBITMAP_MAX)
		*what = "too many bitmaps";
	else if (!x->count)
		*what = "found bitmaps extension with zero bitmaps";
	else if (x->dir_bytes > QBITMAP_MAX_DIR)
		*what = "bitmap directory is too large";
	else if (!x->dir_offset || !IS_ALIGNED(x->dir_offset, cluster_size))
		*what = "invalid bitmap directory offset";
	else if (!range_inside(x->dir_offset, x->dir_bytes, file_size))
		*what = "bitmap directory lies outside of the file";
	return !*what;
}

void qbitmap_ext_put(uint8_t data[QBITMAP_EXT_BYTES], const struct qbitmap_ext *x)
{
	store_be32(data, x->count);
	store_be32(data + 4, 0);
	store_be64(data + 8, x->dir_bytes);
	store_be64(data + 16, x->dir_offset);
}

uint64_t qbitmap_entry_bytes(uint64_t name_len, uint64_t extra_len)
{
	return ALIGN_UP(QBITMAP_HEAD + name_len + extra_len, 8);
}

bool qbitmap_entry_parse(struct qbitmap_entry *e, const uint8_t *dir, uint64_t bytes, uint64_t at,
			 const char **what)
{
	const uint8_t *p = dir + at;

	*what = "bitmap directory is too short";
	if (!range_inside(at, QBITMAP_HEAD, bytes))
		return false;
	*e = (struct qbitmap_entry){
		.table = load_be64(p),
		.entries = load_be32(p + 8),
		.flags = load_be32(p + QBITMAP_OFF_FLAGS),
		.type = p[16],
		.shift = p[17],
		.name_len = load_be16(p + 18),
		.extra_len = load_be32(p + 20),
		.extra = p + QBITMAP_HEAD,
	};
	e->bytes = qbitmap_entry_bytes(e->name_len, e->extra_len);
	if (!range_inside(at, e->bytes, bytes))
		return false;
	e->name = e->extra + e->extra_len;
	return true;
}

bool qbitmap_entry_check(const struct qbitmap_entry *e, uint64_t cluster_size, uint64_t file_size,
			 uint64_t size, const char **what)
{
	uint64_t bytes = e->entries * cluster_size;

	*what = NULL;
	if (!e->name_len || e->name_len > BLOCK_BITMAP_NAME_MAX ||
	    memchr(e->name, '\0', e->name_len))
		*what = "name";
	else if (e->type != QBITMAP_TYPE_DIRTY)
		*what = "type";
	else if (e->flags & ~(uint32_t)QBITMAP_FLAGS)
		*what = "flags";
	else if (e->shift < DIRTY_BITMAP_MIN_SHIFT || e->shift > DIRTY_BITMAP_MAX_SHIFT)
		*what = "granularity";
	else if (!e->entries || e->entries > QBITMAP_MAX_TABLE || bytes > QBITMAP_MAX_BYTES)
		*what = "table's size";
	else if (!e->table || !IS_ALIGNED(e->table, cluster_size) ||
		 !range_inside(e->table, e->entries * UINT64_C(8), file_size))
		*what = "table's offset";
	/* One that was not closed may be of another size. */
	else if (!(e->flags & QBITMAP_IN_USE) &&
		 bytes * 8 < div_round_up(size, UINT64_C(1) << e->shift))
		*what = "table's size for this disk";
	return !*what;
}

void qbitmap_entry_put(uint8_t *p, const struct block_bitmap *bm, const struct qbitmap *q)
{
	store_be64(p, q->table);
	store_be32(p + 8, q->entries);
	store_be32(p + QBITMAP_OFF_FLAGS, q->flags);
	p[16] = QBITMAP_TYPE_DIRTY;
	p[17] = bm->dirty.shift;
	store_be16(p + 18, strlen(bm->name));
	store_be32(p + 20, q->extra_len);
	if (q->extra_len)
		memcpy(p + QBITMAP_HEAD, q->extra, q->extra_len);
	memcpy(p + QBITMAP_HEAD + q->extra_len, bm->name, strlen(bm->name));
}
