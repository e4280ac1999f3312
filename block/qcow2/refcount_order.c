/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New refcount blocks and a new table for the whole file: for a check that cannot mend the old
 * ones, and for counts of another width. They are written behind the file's end and synced before
 * the header's sector switches to them; until then nothing refers to them, and after that nothing
 * to the old ones.
 *
 * Main thread, synchronous, drained, nothing dirty.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2.h"

enum { OFF_ORDER = 96 };

int qcow2_refcounts_write(struct qcow2 *s, uint64_t base, unsigned order,
			  int (*count)(void *opaque, uint64_t cluster, uint64_t *out), void *opaque,
			  uint64_t *end)
{
	uint64_t per_block = UINT64_C(1) << (s->cluster_bits + 3 - order), blocks = 0, tables = 1;
	uint64_t before, total, n;
	uint8_t *buf;
	int ret = 0;

	do {
		before = blocks + tables;
		total = base + blocks + tables;
		blocks = div_round_up(total, per_block);
		tables = div_round_up(blocks * 8, s->cluster_size);
	} while (before != blocks + tables);
	total = base + blocks + tables;
	if (tables << s->cluster_bits > QCOW2_MAX_REFTABLE_BYTES)
		return -EFBIG;
	if (posix_memalign((void **)&buf, 4096, s->cluster_size))
		return -ENOMEM;
	for (uint64_t b = 0; b < blocks && !ret; b++) {
		memset(buf, 0, s->cluster_size);
		for (uint64_t i = 0; i < per_block && b * per_block + i < total && !ret; i++) {
			n = 1;
			if (b * per_block + i < base)
				ret = count(opaque, b * per_block + i, &n);
			refcount_set(buf, order, i, n);
		}
		if (!ret)
			ret = block_pwrite(s->file, (base + b) << s->cluster_bits, buf,
					   s->cluster_size, 0);
	}
	for (uint64_t t = 0; t < tables && !ret; t++) {
		memset(buf, 0, s->cluster_size);
		for (uint64_t i = 0; i < s->cluster_size / 8; i++) {
			uint64_t block = t * (s->cluster_size / 8) + i;

			if (block < blocks)
				store_be64(buf + i * 8, (base + block) << s->cluster_bits);
		}
		ret = block_pwrite(s->file, (base + blocks + t) << s->cluster_bits, buf,
				   s->cluster_size, 0);
	}
	free(buf);
	if (!ret)
		ret = block_flush(s->file);
	if (ret)
		return ret;
	s->h.reftable_offset = (base + blocks) << s->cluster_bits;
	s->h.reftable_clusters = tables;
	s->h.refcount_order = order;
	store_be64(s->header + QCOW2_OFF_REFTABLE, s->h.reftable_offset);
	store_be32(s->header + QCOW2_OFF_REFTABLE_CLUSTERS, tables);
	if (s->h.version >= 3)
		store_be32(s->header + OFF_ORDER, order);
	ret = qcow2_write_header(s);
	if (!ret)
		ret = block_flush(s->file);
	if (ret)
		s->broken = true; /* which of the two the disk has is not known */
	*end = total;
	return ret;
}

int qcow2_refcounts_reload(struct qcow2 *s, uint64_t clusters)
{
	uint64_t entries = (uint64_t)s->h.reftable_clusters << (s->cluster_bits - 3);
	uint64_t *table = calloc(entries, 8);
	uint8_t *dirty = calloc(entries / 64 + 1, 1);
	int ret = table && dirty ? block_pread(s->file, s->h.reftable_offset, table, entries * 8)
				 : -ENOMEM;

	if (ret) {
		free(table);
		free(dirty);
		s->broken = true;
		return ret;
	}
	for (uint64_t i = 0; i < entries; i++)
		table[i] = be64toh(table[i]);
	free(s->reftable);
	free(s->reftable_dirty);
	s->reftable = table;
	s->reftable_dirty = dirty;
	s->reftable_size = entries;
	s->block_bits = s->cluster_bits + 3 - s->h.refcount_order;
	s->free_hint = 1;
	s->fresh = MAX(s->fresh, clusters << s->cluster_bits);
	qcow2_guard_drop(s);
	qcache_clear(&s->l2);
	qcache_clear(&s->refcounts);
	return 0;
}

/* Counts of another width */

struct old {
	struct qcow2 *s;
	uint64_t max;	 /* that the new width can say */
	uint8_t *tables; /* a bit for each cluster of the old blocks and table */
	uint8_t *block;
	uint64_t index;	  /* what it holds; UINT64_MAX: nothing */
	uint64_t too_big; /* the cluster with that count */
	uint64_t count;
};

static int old_count(void *opaque, uint64_t cluster, uint64_t *out)
{
	struct old *o = opaque;
	struct qcow2 *s = o->s;
	uint64_t index = cluster >> s->block_bits, offset;
	int ret;

	*out = 0;
	if (o->tables[cluster / 8] >> (cluster % 8) & 1)
		return 0;
	offset = index < s->reftable_size ? s->reftable[index] & ~REFTABLE_RESERVED : 0;
	if (!offset)
		return 0;
	if (!IS_ALIGNED(offset, s->cluster_size) || !qcow2_host_ok(s, offset, s->cluster_size))
		return -EIO;
	if (o->index != index) {
		ret = block_pread(s->file, offset, o->block, s->cluster_size);
		if (ret)
			return ret;
		o->index = index;
	}
	*out = refcount_get(o->block, s->h.refcount_order,
			    cluster & ((UINT64_C(1) << s->block_bits) - 1));
	if (*out <= o->max)
		return 0;
	o->too_big = cluster;
	o->count = *out;
	return -EOVERFLOW;
}

static void mark_old(struct old *o, uint64_t offset, uint64_t clusters, uint64_t all)
{
	uint64_t first = offset >> o->s->cluster_bits;

	for (uint64_t i = first; i < MIN(first + clusters, all); i++)
		o->tables[i / 8] |= 1 << (i % 8);
}

bool qcow2_change_order(struct qcow2 *s, unsigned order, struct error **err)
{
	struct old o = {.s = s, .max = UINT64_MAX >> (64 - (1u << order)), .index = UINT64_MAX};
	uint64_t base = 0, end = 0;
	int ret = qcow2_mark_clean(s);

	if (!ret) {
		base = div_round_up(MAX(s->file->length, s->fresh), s->cluster_size);
		o.tables = calloc(base / 8 + 1, 1);
		o.block = malloc(s->cluster_size);
		ret = o.tables && o.block ? 0 : -ENOMEM;
	}
	if (!ret) {
		mark_old(&o, s->h.reftable_offset, s->h.reftable_clusters, base);
		for (uint64_t i = 0; i < s->reftable_size; i++)
			if (s->reftable[i] & ~REFTABLE_RESERVED)
				mark_old(&o, s->reftable[i], 1, base);
		ret = qcow2_refcounts_write(s, base, order, old_count, &o, &end);
	}
	if (!ret)
		ret = qcow2_refcounts_reload(s, end);
	if (ret == -EOVERFLOW)
		error_set(err,
			  "Cannot decrease refcount entry width to %u bits: Cluster at offset "
			  "0x%llx has a refcount of %llu",
			  1u << order, (unsigned long long)(o.too_big << s->cluster_bits),
			  (unsigned long long)o.count);
	else if (ret)
		error_set_errno(err, ret, "Changing the refcount width failed");
	free(o.tables);
	free(o.block);
	return !ret;
}
