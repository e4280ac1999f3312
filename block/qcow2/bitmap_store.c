/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bitmap's table and clusters: read into memory, and written. See bitmap.h.
 *
 * A table's entry is a cluster of bits, or says that all of them are 0 or 1. One cluster is in
 * memory at a time, and the table.
 *
 * Main thread, synchronous, drained.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/bitmap.h"
#include "block/qcow2/snapshot.h"

enum { SECTOR = 512 };

/* A run of new clusters that are given out one by one. */
struct supply {
	struct qcow2 *s;
	uint64_t host, left, wanted;
};

static int take_cluster(struct supply *p, uint64_t *host)
{
	int ret = 0;

	if (!p->left)
		ret = qcow2_alloc_some(p->s, MAX(p->wanted, UINT64_C(1)), &p->host, &p->left);
	if (ret)
		return ret;
	*host = p->host;
	p->host += p->s->cluster_size;
	p->left--;
	p->wanted -= p->wanted > 0;
	return 0;
}

static void return_rest(struct supply *p)
{
	if (p->left)
		qcow2_free_later(p->s, p->host, p->left, QFREE_OTHER);
	p->left = 0;
}

static uint64_t cluster_bits_of(const struct qcow2 *s)
{
	return s->cluster_size * 8;
}

/* Where an entry's cluster is (0: nowhere), or -EIO. */
static int entry_host(struct qcow2 *s, uint64_t entry, uint64_t *host)
{
	*host = entry & QBITMAP_ENTRY_OFFSET;
	if (entry & QBITMAP_ENTRY_RESERVED)
		return -EIO;
	if (!*host)
		return 0;
	if ((entry & QBITMAP_ENTRY_ONES) || !IS_ALIGNED(*host, s->cluster_size) ||
	    !qcow2_host_ok(s, *host, s->cluster_size) ||
	    qcache_overlaps(&s->l2, *host, s->cluster_size) ||
	    qcache_overlaps(&s->refcounts, *host, s->cluster_size) ||
	    !range_inside(*host, s->cluster_size, ALIGN_UP(s->file->length, s->cluster_size)))
		return -EIO;
	return 0;
}

/* The table, in the disk's order. */
static int read_table(struct qcow2 *s, uint64_t table, uint32_t entries, uint64_t **out)
{
	uint64_t bytes = entries * UINT64_C(8);
	int ret;

	*out = NULL;
	if (!qcow2_tables_ok(s, table, bytes) ||
	    !range_inside(table, bytes, ALIGN_UP(s->file->length, s->cluster_size)))
		return -EIO;
	*out = malloc(bytes);
	ret = *out ? block_pread(s->file, table, *out, bytes) : -ENOMEM;
	if (ret) {
		free(*out);
		*out = NULL;
	}
	return ret;
}

static int load_cluster(struct qcow2 *s, struct block_bitmap *bm, uint64_t i, uint64_t entry,
			uint8_t *buf)
{
	uint64_t first = i * cluster_bits_of(s), host;
	int ret = entry_host(s, entry, &host);

	if (ret || entry == 0)
		return ret;
	if (!host)
		memset(buf, 0xff, s->cluster_size);
	else
		ret = block_pread(s->file, host, buf, s->cluster_size);
	if (!ret)
		dirty_bitmap_take(&bm->dirty, first, buf, s->cluster_size);
	return ret;
}

int qbitmap_load(struct qcow2 *s, struct block_bitmap *bm)
{
	const struct qbitmap *q = bm->stored;
	uint64_t clusters = qbitmap_clusters(bm, s->cluster_size), *table = NULL;
	uint8_t *buf = malloc(s->cluster_size);
	int ret = buf ? 0 : -ENOMEM;

	if (!ret && q->entries < clusters)
		ret = -EIO;
	if (!ret)
		ret = read_table(s, q->table, clusters, &table);
	for (uint64_t i = 0; i < clusters && !ret; i++)
		ret = load_cluster(s, bm, i, be64toh(table[i]), buf);
	free(table);
	free(buf);
	return ret;
}

int qbitmap_count(struct qcow2 *s, struct qcounts *c, uint64_t at, uint32_t entries)
{
	uint64_t *table, host;
	int ret = read_table(s, at, entries, &table);

	if (!ret)
		ret = qcounts_add(c, at, entries * UINT64_C(8));
	for (uint32_t i = 0; i < entries && !ret; i++) {
		ret = entry_host(s, be64toh(table[i]), &host);
		if (!ret && host)
			ret = qcounts_add(c, host, s->cluster_size);
	}
	free(table);
	return ret;
}

/* Nothing refers to them: what the table has, from the front. */
static void free_clusters(struct qcow2 *s, const uint64_t *table, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (be64toh(table[i]) & QBITMAP_ENTRY_OFFSET)
			qcow2_free_later(s, be64toh(table[i]) & QBITMAP_ENTRY_OFFSET, 1, QFREE_OTHER);
}

/* All of it, from memory, beside what there was. */
static int write_whole(struct qcow2 *s, struct block_bitmap *bm)
{
	struct qbitmap *q = bm->stored;
	uint64_t n = qbitmap_clusters(bm, s->cluster_size), per = cluster_bits_of(s);
	uint64_t bytes = ALIGN_UP(n * 8, s->cluster_size), *table = calloc(1, bytes), host = 0;
	uint8_t *buf = malloc(s->cluster_size);
	struct supply supply = {.s = s, .wanted = 0};
	int ret = table && buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < n && !ret; i++) {
		uint64_t dirty = dirty_bitmap_count(&bm->dirty, i * per, per);

		if (dirty && dirty == MIN(per, bm->dirty.bits - i * per)) {
			table[i] = htobe64(QBITMAP_ENTRY_ONES);
		} else if (dirty) {
			table[i] = htobe64(QBITMAP_ENTRY_RESERVED);
			supply.wanted++;
		}
	}
	for (uint64_t i = 0; i < n && !ret; i++) {
		if (table[i] != htobe64(QBITMAP_ENTRY_RESERVED))
			continue;
		table[i] = 0;
		memset(buf, 0, s->cluster_size);
		dirty_bitmap_give(&bm->dirty, i * per, buf, s->cluster_size);
		ret = take_cluster(&supply, &host);
		if (ret)
			break;
		table[i] = htobe64(host);
		ret = block_pwrite(s->file, host, buf, s->cluster_size, 0);
	}
	host = 0;
	if (!ret)
		ret = qcow2_alloc_now(s, bytes >> s->cluster_bits, &host);
	if (!ret)
		ret = qcow2_commit_sync(s);
	if (!ret)
		ret = block_pwrite(s->file, host, table, bytes, 0);
	if (!ret) {
		q->new_table = host;
		q->new_entries = n;
	} else if (table) {
		for (uint64_t i = 0; i < n; i++)
			if (table[i] == htobe64(QBITMAP_ENTRY_RESERVED))
				table[i] = 0;
		free_clusters(s, table, n);
		if (host)
			qcow2_free_later(s, host, bytes >> s->cluster_bits, QFREE_OTHER);
	}
	return_rest(&supply);
	free(table);
	free(buf);
	return ret;
}

/* One cluster's bits in memory go to those on the disk. *entry may change. */
static int add_cluster(struct qcow2 *s, struct block_bitmap *bm, uint64_t i, uint64_t *entry,
		       uint8_t *buf, struct supply *supply)
{
	uint64_t per = cluster_bits_of(s), first = i * per, host;
	uint64_t dirty = dirty_bitmap_count(&bm->dirty, first, per);
	int ret = entry_host(s, *entry, &host);

	if (ret || !dirty || *entry == QBITMAP_ENTRY_ONES)
		return ret;
	if (!host && dirty == MIN(per, bm->dirty.bits - first)) {
		*entry = QBITMAP_ENTRY_ONES;
		return 0;
	}
	memset(buf, 0, s->cluster_size);
	if (host)
		ret = block_pread(s->file, host, buf, s->cluster_size);
	else
		ret = take_cluster(supply, &host);
	if (ret)
		return ret;
	*entry = host;
	dirty_bitmap_give(&bm->dirty, first, buf, s->cluster_size);
	return block_pwrite(s->file, host, buf, s->cluster_size, 0);
}

/* What is in memory goes to what is on the disk, which says "in use". */
static int write_added(struct qcow2 *s, struct block_bitmap *bm)
{
	struct qbitmap *q = bm->stored;
	uint64_t n = qbitmap_clusters(bm, s->cluster_size), from = UINT64_MAX, to = 0, *table;
	struct supply supply = {.s = s, .wanted = 1};
	uint8_t *buf = malloc(s->cluster_size);
	int ret = q->entries < n ? -EIO : read_table(s, q->table, n, &table);

	if (ret) {
		free(buf);
		return ret;
	}
	if (!buf)
		ret = -ENOMEM;
	for (uint64_t i = 0; i < n && !ret; i++) {
		uint64_t old = be64toh(table[i]), entry = old;

		ret = add_cluster(s, bm, i, &entry, buf, &supply);
		if (entry == old)
			continue;
		table[i] = htobe64(entry);
		from = MIN(from, ALIGN_DOWN(i * 8, SECTOR));
		to = MIN(ALIGN_UP(i * 8 + 8, SECTOR), n * 8);
	}
	return_rest(&supply);
	/* Counted and written before an entry leads there. What fails leaks: entries may be there.
	 */
	if (!ret)
		ret = qcow2_commit_sync(s);
	if (!ret)
		ret = block_flush(s->file);
	if (!ret && from < to)
		ret = block_pwrite(s->file, q->table + from, (uint8_t *)table + from, to - from, 0);
	if (!ret && from < to)
		ret = block_flush(s->file);
	free(table);
	free(buf);
	return ret;
}

int qbitmap_write(struct qcow2 *s, struct block_bitmap *bm)
{
	const struct qbitmap *q = bm->stored;

	if (bm->complete || !q->table)
		return write_whole(s, bm);
	return write_added(s, bm);
}
