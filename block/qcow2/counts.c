/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting the references of a whole tree, and changing refcounts in bulk: one pass over the tables
 * and one over the refcount blocks, however the clusters lie. Memory: 4 bytes for each cluster of
 * the refcount blocks concerned.
 *
 * Main thread, on the caller's loop; see snapshot.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/snapshot.h"

#define BECOMES_ONE  0x80000000u
#define BECOMES_ZERO 0x40000000u
#define COUNT_MASK   0x3fffffffu

int qcounts_init(struct qcounts *c, struct qcow2 *s)
{
	/* The table may grow until the counts are applied; what is counted here lies below. */
	*c = (struct qcounts){.s = s, .block_count = s->reftable_size};
	c->blocks = calloc(MAX(c->block_count, 1u), sizeof(*c->blocks));
	if (posix_memalign((void **)&c->table, 4096, s->cluster_size))
		c->table = NULL;
	return c->blocks && c->table ? 0 : -ENOMEM;
}

void qcounts_free(struct qcounts *c)
{
	for (uint32_t i = 0; c->blocks && i < c->block_count; i++)
		free(c->blocks[i]);
	free(c->blocks);
	free(c->table);
	*c = (struct qcounts){0};
}

static bool block_ok(const struct qcounts *c, uint64_t index)
{
	const struct qcow2 *s = c->s;
	uint64_t offset = index < c->block_count ? s->reftable[index] : 0;

	return offset && IS_ALIGNED(offset, s->cluster_size) &&
	       qcow2_host_ok(s, offset, s->cluster_size);
}

int qcounts_add(struct qcounts *c, uint64_t offset, uint64_t bytes)
{
	struct qcow2 *s = c->s;
	uint64_t end = ALIGN_UP(MAX(s->file->length, s->fresh), s->cluster_size), last, block;
	uint32_t *count;

	if (!bytes)
		return 0;
	if (!range_inside(offset, bytes, end))
		return -EIO;
	last = (offset + bytes - 1) >> s->cluster_bits;
	for (uint64_t i = offset >> s->cluster_bits; i <= last; i++) {
		block = i >> s->block_bits;
		if (!block_ok(c, block))
			return -EIO;
		if (!c->blocks[block])
			c->blocks[block] = calloc(UINT64_C(1) << s->block_bits,
						  sizeof(**c->blocks));
		if (!c->blocks[block])
			return -ENOMEM;
		count = &c->blocks[block][i & ((UINT64_C(1) << s->block_bits) - 1)];
		if (*count == COUNT_MASK)
			return -EOVERFLOW;
		++*count;
	}
	return 0;
}

/* What an L2 entry refers to. */
static int add_entry(struct qcounts *c, uint64_t entry)
{
	struct qcow2 *s = c->s;
	uint64_t offset = entry & ENTRY_OFFSET, bytes = s->cluster_size;

	switch (qcow2_entry_type(s, entry)) {
	case Q_COMPRESSED:
		qcow2_compressed_range(s, entry, &offset, &bytes);
		return qcounts_add(c, offset, bytes);
	case Q_DATA:
	case Q_ZERO_ALLOC:
		return IS_ALIGNED(offset, s->cluster_size) ? qcounts_add(c, offset, bytes) : -EIO;
	default:
		return 0;
	}
}

static bool table_ok(const struct qcow2 *s, uint64_t entry)
{
	uint64_t offset = entry & ENTRY_OFFSET;

	return !(entry & L1_RESERVED) && IS_ALIGNED(offset, s->cluster_size) &&
	       qcow2_host_ok(s, offset, s->cluster_size);
}

int qcounts_add_tree(struct qcounts *c, const uint64_t *l1, uint64_t n)
{
	struct qcow2 *s = c->s;
	int ret = 0;

	for (uint64_t i = 0; i < n && !ret; i++) {
		uint64_t offset = l1[i] & ENTRY_OFFSET;

		if (!l1[i])
			continue;
		if (!table_ok(s, l1[i]))
			return -EIO;
		ret = qcounts_add(c, offset, s->cluster_size);
		if (!ret)
			ret = block_pread(s->file, offset, c->table, s->cluster_size);
		for (uint64_t k = 0; k < s->cluster_size && !ret; k += UINT64_C(1) << s->entry_bits)
			ret = add_entry(c, load_be64(c->table + k));
	}
	return ret;
}

/* Going up: nothing is free or full. Going down: nothing falls below 0. */
static int check_block(struct qcounts *c, uint32_t *delta, bool up)
{
	struct qcow2 *s = c->s;
	unsigned order = s->h.refcount_order;
	uint64_t max = UINT64_MAX >> (64 - (1u << order)), count;

	for (uint64_t i = 0; i < UINT64_C(1) << s->block_bits; i++) {
		delta[i] &= COUNT_MASK;
		if (!delta[i])
			continue;
		count = refcount_get(c->table, order, i);
		if (!count || (!up && count < delta[i]))
			return -EIO;
		if (up && max - count < delta[i])
			return -EOVERFLOW;
		if (!up && count - delta[i] < 2)
			delta[i] |= count == delta[i] ? BECOMES_ZERO : BECOMES_ONE;
	}
	return 0;
}

int qcounts_check(struct qcounts *c, bool up)
{
	struct qcow2 *s = c->s;
	int ret = 0;

	for (uint32_t i = 0; i < c->block_count && !ret; i++) {
		if (!c->blocks[i])
			continue;
		ret = block_pread(s->file, s->reftable[i], c->table, s->cluster_size);
		if (!ret)
			ret = check_block(c, c->blocks[i], up);
	}
	return ret;
}

bool qcounts_becomes_one(const struct qcounts *c, uint64_t offset)
{
	uint64_t cluster = offset >> c->s->cluster_bits, block = cluster >> c->s->block_bits;

	return block < c->block_count && c->blocks[block] &&
	       (c->blocks[block][cluster & ((UINT64_C(1) << c->s->block_bits) - 1)] & BECOMES_ONE);
}

int qcounts_apply(struct qcounts *c, bool up)
{
	struct qcow2 *s = c->s;
	unsigned order = s->h.refcount_order;
	uint64_t count, delta;
	int ret = 0;

	for (uint32_t b = 0; b < c->block_count && !ret; b++) {
		if (!c->blocks[b])
			continue;
		ret = block_pread(s->file, s->reftable[b], c->table, s->cluster_size);
		if (ret)
			break;
		for (uint64_t i = 0; i < UINT64_C(1) << s->block_bits; i++) {
			delta = c->blocks[b][i] & COUNT_MASK;
			if (!delta)
				continue;
			count = refcount_get(c->table, order, i);
			refcount_set(c->table, order, i, up ? count + delta : count - delta);
		}
		ret = block_pwrite(s->file, s->reftable[b], c->table, s->cluster_size, 0);
	}
	return ret;
}

void qcounts_discard(struct qcounts *c)
{
	struct qcow2 *s = c->s;
	uint64_t per_block = UINT64_C(1) << s->block_bits, n;

	for (uint64_t b = 0; b < c->block_count; b++) {
		for (uint64_t i = 0; c->blocks[b] && i < per_block; i += n + 1) {
			for (n = 0; i + n < per_block && (c->blocks[b][i + n] & BECOMES_ZERO);)
				n++;
			if (n) /* a hint: its failure changes nothing */
				block_discard(s->file,
					      ((b << s->block_bits) + i) << s->cluster_bits,
					      n << s->cluster_bits);
		}
	}
}

/* True: the table has changed. */
static bool update_table(struct qcow2 *s, uint8_t *table, const struct qcounts *lowered)
{
	bool changed = false;

	for (uint64_t k = 0; k < s->cluster_size; k += UINT64_C(1) << s->entry_bits) {
		uint64_t old = load_be64(table + k), new = old;

		if (old & L2_COMPRESSED)
			continue;
		if (!lowered)
			new &= ~ENTRY_COPIED;
		else if ((old & ENTRY_OFFSET) && qcounts_becomes_one(lowered, old & ENTRY_OFFSET))
			new |= ENTRY_COPIED;
		if (new != old) {
			store_be64(table + k, new);
			changed = true;
		}
	}
	return changed;
}

int qcow2_flags_update(struct qcow2 *s, uint64_t *l1, uint64_t n, const struct qcounts *lowered)
{
	uint8_t *table;
	int ret = 0;

	if (posix_memalign((void **)&table, 4096, s->cluster_size))
		return -ENOMEM;
	for (uint64_t i = 0; i < n && !ret; i++) {
		uint64_t offset = l1[i] & ENTRY_OFFSET;

		if (!offset)
			continue;
		if (!table_ok(s, l1[i])) {
			ret = -EIO;
			break;
		}
		ret = block_pread(s->file, offset, table, s->cluster_size);
		if (!ret && update_table(s, table, lowered))
			ret = block_pwrite(s->file, offset, table, s->cluster_size, 0);
		if (!lowered)
			l1[i] &= ~ENTRY_COPIED;
		else if (qcounts_becomes_one(lowered, offset))
			l1[i] |= ENTRY_COPIED;
	}
	free(table);
	return ret;
}
