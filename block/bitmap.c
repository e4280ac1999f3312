/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bitmaps of nodes, and the way to the format that keeps them. See bitmap.h.
 */
#include "block/bitmap.h"

#include <errno.h>
#include <stdlib.h>

#include "block/driver.h"

bool block_keeps_bitmaps(const struct block_node *node)
{
	return node->drv->bitmaps && node->drv->bitmaps->supported(node);
}

struct block_bitmap *block_bitmaps(const struct block_node *node)
{
	return node->bitmaps;
}

struct block_bitmap *block_bitmap_find(const struct block_node *node, const char *name)
{
	for (struct block_bitmap *bm = node->bitmaps; bm; bm = bm->next)
		if (!strcmp(bm->name, name))
			return bm;
	return NULL;
}

void block_bitmaps_record(struct block_node *node, uint64_t offset, uint64_t bytes)
{
	for (struct block_bitmap *bm = node->bitmaps; bm; bm = bm->next)
		if (bm->enabled && !bm->inconsistent)
			dirty_bitmap_set(&bm->dirty, offset, bytes);
}

struct block_bitmap *block_bitmap_new(const char *name, uint64_t size, unsigned shift)
{
	struct block_bitmap *bm = xcalloc(1, sizeof(*bm));

	bm->name = xstrdup(name);
	dirty_bitmap_init(&bm->dirty, size, shift);
	return bm;
}

void block_bitmap_free(struct block_bitmap *bm)
{
	dirty_bitmap_clear(&bm->dirty);
	free(bm->name);
	free(bm);
}

static void append(struct block_node *node, struct block_bitmap *bm)
{
	struct block_bitmap **end = &node->bitmaps;

	while (*end)
		end = &(*end)->next;
	*end = bm;
}

static void unlink_bitmap(struct block_node *node, struct block_bitmap *bm)
{
	struct block_bitmap **p = &node->bitmaps;

	while (*p != bm)
		p = &(*p)->next;
	*p = bm->next;
	bm->next = NULL;
}

static void list_changed(struct block_node *node)
{
	if (node->drv->bitmaps)
		node->drv->bitmaps->changed(node);
}

static uint64_t default_granularity(const struct block_node *node)
{
	if (!node->drv->bitmaps)
		return 64 * KiB;
	return MIN(MAX(node->limits.discard_alignment, 4096u), 65536u);
}

static bool can_persist(struct block_node *node, const char *name, uint64_t granularity,
			struct error **err)
{
	const char *where = node->name ? node->name : block_filename(node);

	if (!node->drv->bitmaps) {
		error_set(err, "Can't store persistent bitmaps to %s: Operation not supported",
			  where);
		return false;
	}
	if (node->read_only) {
		error_set(err, "Can't make bitmap '%s' persistent in '%s': Image is read-only",
			  name, where);
		return false;
	}
	if (node->drv->bitmaps->can_add(node, name, granularity, err))
		return true;
	error_prefix(err, "Can't make bitmap '%s' persistent in '%s': ", name, where);
	return false;
}

struct block_bitmap *block_bitmap_add(struct block_node *node, const char *name,
				      uint64_t granularity, bool persistent, struct error **err)
{
	struct block_bitmap *bm;

	if (!granularity)
		granularity = default_granularity(node);
	if (!*name) {
		error_set(err, "Bitmap name cannot be empty");
		return NULL;
	}
	if (!is_pow2(granularity) || granularity < UINT64_C(1) << DIRTY_BITMAP_MIN_SHIFT ||
	    granularity > UINT64_C(1) << DIRTY_BITMAP_MAX_SHIFT) {
		error_set(err, "Granularity must be power of 2 and at least 512");
		return NULL;
	}
	block_drain(node);
	if (persistent && !can_persist(node, name, granularity, err))
		return NULL;
	if (block_bitmap_find(node, name)) {
		error_set(err, "Bitmap already exists: %s", name);
		return NULL;
	}
	bm = block_bitmap_new(name, node->length, __builtin_ctzll(granularity));
	bm->enabled = bm->complete = bm->replaced = true;
	bm->persistent = persistent;
	append(node, bm);
	list_changed(node);
	return bm;
}

static bool usable(const struct block_bitmap *bm, struct error **err)
{
	if (bm->inconsistent)
		error_set(err,
			  "Bitmap '%s' is inconsistent and cannot be used; it can only be "
			  "removed",
			  bm->name);
	return !bm->inconsistent;
}

/* The same for changes. */
static bool changeable(const struct block_node *node, const struct block_bitmap *bm,
		       struct error **err)
{
	if (!usable(bm, err))
		return false;
	if (bm->persistent && node->read_only) {
		error_set(err, "Bitmap '%s' is readonly and cannot be modified", bm->name);
		return false;
	}
	return true;
}

bool block_bitmap_remove(struct block_node *node, struct block_bitmap *bm, struct error **err)
{
	int ret = 0;

	if (bm->persistent && node->read_only) {
		error_set(err, "Bitmap '%s' is readonly and cannot be modified", bm->name);
		return false;
	}
	block_drain(node);
	unlink_bitmap(node, bm);
	if (bm->persistent && bm->stored)
		ret = node->drv->bitmaps->remove(node, bm);
	if (ret)
		error_set_errno(err, ret, "Failed to remove persistent bitmap '%s'", bm->name);
	block_bitmap_free(bm);
	list_changed(node);
	return !ret;
}

bool block_bitmap_clear(struct block_node *node, struct block_bitmap *bm, struct error **err)
{
	if (!changeable(node, bm, err))
		return false;
	block_drain(node);
	dirty_bitmap_clear(&bm->dirty);
	bm->complete = bm->replaced = true;
	return true;
}

bool block_bitmap_enable(struct block_node *node, struct block_bitmap *bm, bool enabled,
			 struct error **err)
{
	if (!changeable(node, bm, err))
		return false;
	block_drain(node);
	bm->enabled = enabled;
	list_changed(node);
	return true;
}

bool block_bitmap_load(struct block_node *node, struct block_bitmap *bm, struct error **err)
{
	int ret = 0;

	if (!usable(bm, err))
		return false;
	block_drain(node);
	if (!bm->complete)
		ret = node->drv->bitmaps->load(node, bm);
	if (ret)
		error_set_errno(err, ret, "Could not read bitmap '%s'", bm->name);
	else
		bm->complete = true;
	return !ret;
}

bool block_bitmap_merge(struct block_node *node, struct block_bitmap *to,
			struct block_node *from_node, struct block_bitmap *from, struct error **err)
{
	if (!changeable(node, to, err) || !usable(from, err))
		return false;
	if (to->dirty.size != from->dirty.size) {
		error_set(err,
			  "Bitmaps are of different sizes (destination size is %llu, source size "
			  "is %llu) and can't be merged",
			  (unsigned long long)to->dirty.size, (unsigned long long)from->dirty.size);
		return false;
	}
	if (!block_bitmap_load(from_node, from, err))
		return false;
	block_drain(node);
	if (to != from)
		dirty_bitmap_merge(&to->dirty, &from->dirty);
	/* Bits that are in memory alone, until they are stored. */
	to->replaced |= to->complete;
	return true;
}

int block_bitmaps_store(struct block_node *node)
{
	if (!node->bitmaps || !node->drv->bitmaps || node->read_only)
		return 0;
	block_drain(node);
	return node->drv->bitmaps->store(node);
}

void block_bitmaps_free(struct block_node *node)
{
	struct block_bitmap *bm;

	while ((bm = node->bitmaps)) {
		node->bitmaps = bm->next;
		block_bitmap_free(bm);
	}
}
