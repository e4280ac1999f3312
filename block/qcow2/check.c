/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking: every table is walked and every reference counted, then compared with what the refcount
 * blocks say. Too high is a leak; too low, or a table that leads nowhere, is a corruption.
 *
 * Repairing writes refcounts in place. If blocks are missing or lie outside, new ones and a new
 * table are written behind the end of the file, synced, and then the header switches to them.
 * COPIED flags are set by the new counts. The image's sizes bound all memory: one counter for each
 * cluster of the file.
 *
 * Main thread; nobody else uses the node meanwhile.
 */
#include "block/qcow2/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "block/qcow2/bitmap.h"

struct check {
	struct qcow2 *s;
	struct block_check *r;
	unsigned fix;
	void (*message)(void *opaque, const char *line);
	void *opaque;
	uint64_t clusters; /* of the file */
	uint32_t *refs;
	uint64_t *table;      /* one cluster: an L2 table */
	uint8_t *block;	      /* one cluster: a refcount block */
	uint64_t block_index; /* what it holds; UINT64_MAX: nothing */
	bool rebuild;
	bool agree; /* the disk's counts are refs, all of them */
	uint64_t bitmaps_mended; /* corruptions that are gone by now */
	uint64_t next_host; /* for fragmentation */
	uint64_t copied_wrong;
};

static void say(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct check *c, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	if (!c->message)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->message(c->opaque, line);
}

/* Counts a reference to each cluster that [offset, offset + bytes) touches. */
static void reference(struct check *c, uint64_t offset, uint64_t bytes)
{
	struct qcow2 *s = c->s;
	uint64_t first, last;

	if (!bytes)
		return;
	first = offset >> s->cluster_bits;
	last = (offset + bytes - 1) >> s->cluster_bits;
	if (offset > INT64_MAX - bytes || last >= c->clusters) {
		say(c, "ERROR: offset 0x%llx lies outside of the file", (unsigned long long)offset);
		c->r->corruptions++;
		return;
	}
	for (uint64_t i = first; i <= last; i++) {
		if (c->refs[i] < UINT32_MAX)
			c->refs[i]++;
	}
	c->r->image_end = MAX(c->r->image_end, (last + 1) << s->cluster_bits);
}

/* The refcount that the disk has. */
static int disk_refcount(struct check *c, uint64_t cluster, uint64_t *count)
{
	struct qcow2 *s = c->s;
	uint64_t index = cluster >> s->block_bits, offset;
	int ret;

	*count = 0;
	if (index >= s->reftable_size)
		return 0;
	offset = s->reftable[index] & ~REFTABLE_RESERVED;
	if (!offset)
		return 0;
	if (!IS_ALIGNED(offset, s->cluster_size) ||
	    !range_inside(offset, s->cluster_size, c->clusters << s->cluster_bits))
		return 0; /* reported with the table */
	if (c->block_index != index) {
		c->block_index = UINT64_MAX;
		ret = block_pread(s->file, offset, c->block, s->cluster_size);
		if (ret)
			return ret;
		c->block_index = index;
	}
	*count = refcount_get(c->block, s->h.refcount_order,
			      cluster & ((UINT64_C(1) << s->block_bits) - 1));
	return 0;
}

static bool table_valid(struct check *c, uint64_t offset, const char *what, uint64_t index)
{
	struct qcow2 *s = c->s;

	if (!IS_ALIGNED(offset, s->cluster_size)) {
		say(c, "ERROR %s offset=%llx: Table is not cluster aligned; index %llu", what,
		    (unsigned long long)offset, (unsigned long long)index);
	} else if (!range_inside(offset, s->cluster_size, c->clusters << s->cluster_bits)) {
		say(c, "ERROR %s offset=%llx lies outside of the file; index %llu", what,
		    (unsigned long long)offset, (unsigned long long)index);
	} else {
		return true;
	}
	c->r->corruptions++;
	return false;
}

static void walk_l2_entry(struct check *c, uint64_t entry, bool active)
{
	struct qcow2 *s = c->s;
	uint64_t offset = entry & ENTRY_OFFSET, bytes = s->cluster_size;
	enum qtype type = qcow2_entry_type(s, entry);

	if (type == Q_UNALLOCATED || type == Q_ZERO)
		return;
	if (type == Q_COMPRESSED && s->external) {
		say(c, "ERROR compressed cluster in an image with an external data file: %llx",
		    (unsigned long long)entry);
		c->r->corruptions++;
		return;
	}
	if (type == Q_COMPRESSED) {
		if (entry & ENTRY_COPIED) {
			say(c,
			    "ERROR: coffset=0x%llx: copied flag must never be set for compressed "
			    "clusters",
			    (unsigned long long)offset);
			c->r->corruptions++;
		}
		qcow2_compressed_range(s, entry, &offset, &bytes);
		/* The last sector may stick out of the file; the clusters must not. */
		reference(c, offset, bytes);
		if (active) {
			c->r->allocated_clusters++;
			c->r->compressed_clusters++;
			c->r->fragmented_clusters++;
		}
		return;
	}
	if (s->external) { /* not in this file, and not counted */
		if (active)
			c->r->allocated_clusters++;
		return;
	}
	if (!IS_ALIGNED(offset, s->cluster_size)) {
		say(c, "ERROR offset=%llx: Cluster is not properly aligned; L2 entry corrupted.",
		    (unsigned long long)offset);
		c->r->corruptions++;
		return;
	}
	reference(c, offset, bytes);
	if (active) {
		c->r->allocated_clusters++;
		if (c->next_host && offset != c->next_host)
			c->r->fragmented_clusters++;
		c->next_host = offset + s->cluster_size;
	}
}

static int walk_l1(struct check *c, const uint64_t *l1, uint64_t entries, bool active)
{
	struct qcow2 *s = c->s;

	for (uint64_t i = 0; i < entries; i++) {
		uint64_t offset = l1[i] & ENTRY_OFFSET;
		int ret;

		if (l1[i] & L1_RESERVED) {
			say(c, "ERROR found L1 entry with reserved bits set: %llx",
			    (unsigned long long)l1[i]);
			c->r->corruptions++;
		}
		if (!offset || !table_valid(c, offset, "L2", i))
			continue;
		reference(c, offset, s->cluster_size);
		c->next_host = 0;
		ret = block_pread(s->file, offset, c->table, s->cluster_size);
		if (ret)
			return ret;
		for (uint64_t k = 0; k < UINT64_C(1) << s->l2_bits; k++) {
			const uint64_t *e = &c->table[k << (s->entry_bits - 3)];

			walk_l2_entry(c, be64toh(*e), active);
			if (s->extended && !qsub_entry_ok(s, be64toh(*e), be64toh(e[1]))) {
				say(c, "ERROR invalid extended L2 entry %llx %llx",
				    (unsigned long long)be64toh(*e),
				    (unsigned long long)be64toh(e[1]));
				c->r->corruptions++;
			}
		}
	}
	return 0;
}

/* The table of snapshots, and what each of them holds. */
static int walk_snapshots(struct check *c)
{
	struct qcow2 *s = c->s;
	int ret = 0;

	if (s->snapshots.bad) {
		say(c, "ERROR snapshot table is invalid");
		c->r->corruptions++;
		return 0;
	}
	for (unsigned i = 0; i < s->snapshots.count && !ret; i++) {
		const struct qsnapshot *sn = &s->snapshots.more[i];
		uint64_t bytes = sn->l1_size * UINT64_C(8), *l1;

		if (!IS_ALIGNED(sn->l1_offset, s->cluster_size) || bytes > QCOW2_MAX_L1_BYTES ||
		    !range_inside(sn->l1_offset, bytes, c->clusters << s->cluster_bits)) {
			say(c, "ERROR snapshot %u (%s): L1 table is invalid", i,
			    s->snapshots.pub[i].name);
			c->r->corruptions++;
			continue;
		}
		reference(c, sn->l1_offset, bytes);
		l1 = malloc(MAX(bytes, UINT64_C(8)));
		ret = !l1 ? -ENOMEM : bytes ? block_pread(s->file, sn->l1_offset, l1, bytes) : 0;
		for (uint32_t k = 0; k < sn->l1_size && !ret; k++)
			l1[k] = be64toh(l1[k]);
		if (!ret)
			ret = walk_l1(c, l1, sn->l1_size, false);
		free(l1);
	}
	reference(c, s->h.snapshots_offset, s->snapshots.bytes);
	return ret;
}

static void walk_refcount_table(struct check *c)
{
	struct qcow2 *s = c->s;

	reference(c, s->h.reftable_offset, (uint64_t)s->h.reftable_clusters << s->cluster_bits);
	for (uint64_t i = 0; i < s->reftable_size; i++) {
		uint64_t offset = s->reftable[i] & ~REFTABLE_RESERVED;

		if (!s->reftable[i])
			continue;
		if (!table_valid(c, offset, "refcount block", i)) {
			c->rebuild = true;
			continue;
		}
		reference(c, offset, s->cluster_size);
		if (c->refs[offset >> s->cluster_bits] != 1) {
			say(c, "ERROR refcount block %llu refcount=%u", (unsigned long long)i,
			    c->refs[offset >> s->cluster_bits]);
			c->r->corruptions++;
			c->rebuild = true;
		}
	}
}

static bool has_block(const struct check *c, uint64_t cluster)
{
	uint64_t index = cluster >> c->s->block_bits;

	return index < c->s->reftable_size && c->s->reftable[index];
}

/* How many counts from i on are right, in a block that is in memory; only of the usual width. */
static uint64_t alike(const struct check *c, uint64_t index, uint64_t i)
{
	const struct qcow2 *s = c->s;
	uint64_t first = index << s->block_bits, at = i;
	uint64_t end = MIN(UINT64_C(1) << s->block_bits, c->clusters - MIN(c->clusters, first));

	if (s->h.refcount_order != 4 || c->block_index != index)
		return 0;
	while (at < end && load_be16(c->block + 2 * at) == c->refs[first + at])
		at++;
	return at - i;
}

/* Compares, and with fix writes the block back where it changed. */
static int compare_block(struct check *c, uint64_t index, bool fix)
{
	struct qcow2 *s = c->s;
	uint64_t first = index << s->block_bits, n = UINT64_C(1) << s->block_bits, count;
	uint64_t max = s->h.refcount_order == 6 ? UINT64_MAX
						: (UINT64_C(1) << (1u << s->h.refcount_order)) - 1;
	bool changed = false;
	int ret = 0;

	for (uint64_t i = 0; i < n && !ret; i++) {
		uint64_t refs;
		bool leak, mend;

		if (i)
			i += alike(c, index, i);
		if (i == n)
			break;
		refs = first + i < c->clusters ? c->refs[first + i] : 0;
		ret = disk_refcount(c, first + i, &count);
		if (ret || count == refs)
			continue;
		c->agree = false;
		leak = count > refs;
		mend = fix && refs <= max && has_block(c, first + i) &&
		       (c->fix & (leak ? BLOCK_FIX_LEAKS : BLOCK_FIX_ERRORS));
		if (!fix) {
			say(c, "%s cluster %llu refcount=%llu reference=%llu",
			    leak ? "Leaked" : "ERROR", (unsigned long long)(first + i),
			    (unsigned long long)count, (unsigned long long)refs);
			if (leak)
				c->r->leaks++;
			else
				c->r->corruptions++;
			if (!leak && !has_block(c, first + i))
				c->rebuild = true;
		} else if (mend) {
			refcount_set(c->block, s->h.refcount_order, i, refs);
			changed = true;
			if (leak)
				c->r->leaks_fixed++;
			else
				c->r->corruptions_fixed++;
		}
	}
	if (!ret && changed)
		ret = block_pwrite(s->file, s->reftable[index] & ~REFTABLE_RESERVED, c->block,
				   s->cluster_size, 0);
	return ret;
}

static int compare(struct check *c, bool fix)
{
	struct qcow2 *s = c->s;
	uint64_t blocks = div_round_up(c->clusters, UINT64_C(1) << s->block_bits);
	int ret = 0;

	c->block_index = UINT64_MAX;
	c->agree = true;
	for (uint64_t i = 0; i < MAX(blocks, (uint64_t)s->reftable_size) && !ret; i++) {
		uint64_t offset = i < s->reftable_size ? s->reftable[i] & ~REFTABLE_RESERVED : 0;

		/* No block: all counts are zero, which only matters inside the file. */
		if (!offset && i >= blocks)
			continue;
		if (fix && !offset)
			continue;
		if (offset &&
		    (!IS_ALIGNED(offset, s->cluster_size) ||
		     !range_inside(offset, s->cluster_size, c->clusters << s->cluster_bits))) {
			c->agree = false;
			continue;
		}
		ret = compare_block(c, i, fix);
	}
	return ret;
}

static int counted(void *opaque, uint64_t cluster, uint64_t *out)
{
	struct check *c = opaque;

	*out = c->refs[cluster];
	/* More than the width can say: a lower count would be worse than none. */
	return *out > UINT64_MAX >> (64 - (1u << c->s->h.refcount_order)) ? -EOVERFLOW : 0;
}

/* New refcount blocks and table behind the end of the file. */
static int rebuild(struct check *c)
{
	struct qcow2 *s = c->s;
	uint64_t base = c->clusters, total = 0;
	uint32_t *refs;
	int ret;

	/* The old structures are nobody's any more. */
	for (uint64_t i = 0; i < s->h.reftable_clusters; i++)
		c->refs[(s->h.reftable_offset >> s->cluster_bits) + i]--;
	for (uint64_t i = 0; i < s->reftable_size; i++) {
		uint64_t at = (s->reftable[i] & ~REFTABLE_RESERVED) >> s->cluster_bits;

		if (s->reftable[i] && at < base &&
		    IS_ALIGNED(s->reftable[i] & ~REFTABLE_RESERVED, s->cluster_size) && c->refs[at])
			c->refs[at]--;
	}
	ret = qcow2_refcounts_write(s, base, s->h.refcount_order, counted, c, &total);
	if (ret)
		return ret;
	refs = realloc(c->refs, total * sizeof(*refs));
	if (!refs)
		return -ENOMEM;
	c->refs = refs;
	for (uint64_t i = base; i < total; i++)
		refs[i] = 1;
	c->block_index = UINT64_MAX;
	c->clusters = total;
	return 0;
}

/*
 * COPIED is set exactly where the refcount is 1. With fix, by the references; else by the disk: but
 * where one reference is counted too often the flag is right, and the leak is reported.
 */
static bool copied_wrong(struct check *c, uint64_t *entry, uint64_t offset, bool fix,
			 const char *what)
{
	uint64_t count = 0, cluster = offset >> c->s->cluster_bits;

	if (cluster >= c->clusters)
		return false;
	if (fix || c->agree)
		count = c->refs[cluster];
	else if (disk_refcount(c, cluster, &count))
		return false;
	if ((count == 1) == !!(*entry & ENTRY_COPIED) ||
	    ((*entry & ENTRY_COPIED) && count > 1 && c->refs[cluster] == 1))
		return false;
	if (!fix) {
		say(c, "ERROR OFLAG_COPIED %s: entry=%llx refcount=%llu", what,
		    (unsigned long long)*entry, (unsigned long long)count);
		c->r->corruptions++;
		c->copied_wrong++;
	}
	*entry ^= ENTRY_COPIED;
	return true;
}

static int check_copied(struct check *c, bool fix)
{
	struct qcow2 *s = c->s;
	bool l1_changed = false;
	int ret = 0;

	for (uint64_t i = 0; i < s->h.l1_size && !ret; i++) {
		uint64_t l1 = s->l1[i], offset = l1 & ENTRY_OFFSET;
		bool changed = false;

		if (!offset || !IS_ALIGNED(offset, s->cluster_size) ||
		    !range_inside(offset, s->cluster_size, c->clusters << s->cluster_bits))
			continue;
		if (copied_wrong(c, &l1, offset, fix, "L2 cluster") && fix) {
			s->l1[i] = l1;
			l1_changed = true;
		}
		ret = block_pread(s->file, offset, c->table, s->cluster_size);
		for (uint64_t k = 0; k < UINT64_C(1) << s->l2_bits && !ret; k++) {
			uint64_t *e = &c->table[k << (s->entry_bits - 3)], l2 = be64toh(*e);
			enum qtype type = qcow2_entry_type(s, l2);

			if ((type != Q_DATA && type != Q_ZERO_ALLOC) || s->external ||
			    !IS_ALIGNED(l2 & ENTRY_OFFSET, s->cluster_size))
				continue;
			if (copied_wrong(c, &l2, l2 & ENTRY_OFFSET, fix, "data cluster") && fix) {
				*e = htobe64(l2);
				changed = true;
			}
		}
		if (!ret && changed)
			ret = block_pwrite(s->file, offset, c->table, s->cluster_size, 0);
	}
	if (!ret && l1_changed) {
		uint64_t *disk = malloc(s->h.l1_size * UINT64_C(8));

		if (!disk)
			return -ENOMEM;
		for (uint64_t i = 0; i < s->h.l1_size; i++)
			disk[i] = htobe64(s->l1[i]);
		ret = block_pwrite(s->file, s->h.l1_offset, disk, s->h.l1_size * UINT64_C(8), 0);
		free(disk);
	}
	return ret;
}

/* A bitmap's table and the clusters that it names. An entry that is no good becomes "all dirty". */
static int walk_bitmap(struct check *c, const struct qbitmap_entry *e)
{
	struct qcow2 *s = c->s;
	uint64_t bytes = e->entries * UINT64_C(8), end = c->clusters << s->cluster_bits, *table;
	bool mend = c->fix & BLOCK_FIX_ERRORS, changed = false;
	int ret;

	reference(c, e->table, bytes);
	table = malloc(bytes);
	if (!table)
		return -ENOMEM;
	ret = block_pread(s->file, e->table, table, bytes);
	for (uint32_t i = 0; i < e->entries && !ret; i++) {
		uint64_t entry = be64toh(table[i]), at = entry & QBITMAP_ENTRY_OFFSET;

		if (!(entry & QBITMAP_ENTRY_RESERVED) && !(at && (entry & QBITMAP_ENTRY_ONES)) &&
		    IS_ALIGNED(at, s->cluster_size) && (!at || range_inside(at, 1, end))) {
			if (at)
				reference(c, at, s->cluster_size);
			continue;
		}
		say(c, "ERROR bitmap '%.*s' table entry %u: %llx", e->name_len, e->name, i,
		    (unsigned long long)entry);
		table[i] = htobe64(QBITMAP_ENTRY_ONES);
		changed = true;
		*(mend ? &c->bitmaps_mended : &c->r->corruptions) += 1;
	}
	if (!ret && changed && mend)
		ret = block_pwrite(s->file, e->table, table, bytes, 0);
	free(table);
	return ret;
}

/* Persistent bitmaps ("Bitmaps extension" in the format's document). Where opening found the
 * directory to be wrong, what can be reached. */
static int walk_bitmaps(struct check *c)
{
	struct qcow2 *s = c->s;
	uint64_t at = 0, file = ALIGN_UP(s->file->length, s->cluster_size);
	const char *what;
	int ret = 0;

	if (s->bm.dir)
		reference(c, s->bm.dir_offset, s->bm.dir_bytes);
	for (uint32_t i = 0; i < s->bm.count && s->bm.dir && !ret; i++) {
		struct qbitmap_entry e;

		if (!qbitmap_entry_parse(&e, s->bm.dir, s->bm.dir_bytes, at, &what))
			break;
		if (qbitmap_entry_check(&e, s->cluster_size, file, s->node->length, &what))
			ret = walk_bitmap(c, &e);
		at += e.bytes;
	}
	if (s->bm.bad) {
		say(c, "ERROR bitmaps: %s", s->bm.bad);
		c->r->corruptions++;
	}
	return ret;
}

/* Bitmaps that nobody can use keep the image from being opened: what they held will leak. */
static int drop_bitmaps(struct check *c)
{
	struct qcow2 *s = c->s;
	int ret = qcow2_put_bitmaps(s, NULL);

	if (ret)
		return ret;
	say(c, "ERROR bitmaps: %s", s->bm.bad);
	free(s->bm.dir);
	s->bm = (struct qbitmaps){0};
	c->bitmaps_mended++;
	return 0;
}

static int count_all(struct check *c)
{
	struct qcow2 *s = c->s;
	int ret;

	reference(c, 0, s->cluster_size);
	reference(c, s->h.l1_offset, s->h.l1_size * UINT64_C(8));
	reference(c, s->crypt_offset, s->crypt_bytes);
	ret = walk_l1(c, s->l1, s->h.l1_size, true);
	if (!ret)
		ret = walk_snapshots(c);
	if (!ret)
		ret = walk_bitmaps(c);
	return ret;
}

static int repair(struct check *c)
{
	struct qcow2 *s = c->s;
	uint64_t left;
	int ret = 0;

	if ((c->fix & BLOCK_FIX_ERRORS) && c->rebuild) {
		ret = rebuild(c);
		if (!ret) {
			c->r->corruptions_fixed += c->r->corruptions - c->copied_wrong;
			c->r->leaks_fixed = c->r->leaks;
		}
	} else {
		ret = compare(c, true);
	}
	if (!ret && (c->fix & BLOCK_FIX_ERRORS)) {
		ret = check_copied(c, true);
		if (!ret)
			c->r->corruptions_fixed += c->copied_wrong;
	}
	if (!ret)
		ret = block_flush(s->file);
	left = c->r->corruptions - MIN(c->r->corruptions, c->r->corruptions_fixed);
	if (!ret && !left && (c->fix & BLOCK_FIX_ERRORS) &&
	    (s->h.incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT))) {
		s->h.incompatible &= ~(uint64_t)(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
		store_be64(s->header + QCOW2_OFF_INCOMPATIBLE, s->h.incompatible);
		ret = qcow2_write_header(s);
		if (!ret)
			ret = block_flush(s->file);
	}
	/* What is in memory follows. */
	return ret ? ret : qcow2_refcounts_reload(s, c->clusters);
}

/* Fewer page faults, which cost as much as the counting. */
static void large_pages(void *p, size_t bytes)
{
	uintptr_t from = ALIGN_UP((uintptr_t)p, (uintptr_t)2 << 20);
	uintptr_t to = ALIGN_DOWN((uintptr_t)p + bytes, (uintptr_t)2 << 20);

	if (from < to)
		madvise((void *)from, to - from, MADV_HUGEPAGE);
}

int qcow2_check(struct block_node *node, unsigned fix, struct block_check *result,
		void (*message)(void *opaque, const char *line), void *opaque)
{
	struct qcow2 *s = node->opaque;
	struct check c = {.s = s,
			  .r = result,
			  .fix = fix,
			  .message = message,
			  .opaque = opaque,
			  .block_index = UINT64_MAX};
	int ret = 0;

	*result = (struct block_check){0};
	block_drain(node);
	if (!node->read_only && !s->broken)
		ret = qcow2_commit_sync(s);
	c.clusters = div_round_up(MAX(s->file->length, s->fresh), s->cluster_size);
	result->total_clusters = div_round_up(s->h.size, s->cluster_size);
	c.refs = calloc(c.clusters + 1, sizeof(*c.refs));
	if (c.refs)
		large_pages(c.refs, (c.clusters + 1) * sizeof(*c.refs));
	c.table = malloc(s->cluster_size);
	c.block = malloc(s->cluster_size);
	if (!c.refs || !c.table || !c.block)
		ret = -ENOMEM;
	if (!ret && s->bm.bad && (fix & BLOCK_FIX_ERRORS))
		ret = drop_bitmaps(&c);
	if (!ret)
		ret = count_all(&c);
	if (!ret) {
		walk_refcount_table(&c);
		ret = compare(&c, false);
	}
	if (!ret)
		ret = check_copied(&c, false);
	if (!ret && fix &&
	    (result->corruptions || result->leaks ||
	     (s->h.incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT))))
		ret = repair(&c);
	result->corruptions -= MIN(result->corruptions, result->corruptions_fixed);
	result->leaks -= MIN(result->leaks, result->leaks_fixed);
	result->corruptions_fixed += c.bitmaps_mended;
	if (ret)
		result->check_errors++;
	free(c.refs);
	free(c.table);
	free(c.block);
	return ret;
}
