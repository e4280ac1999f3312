/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overlap checks: nothing is given out or written over that is one of the image's own tables, or
 * the image is marked corrupt instead. Which tables count is the option overlap-check.
 *
 * L2 tables and refcount blocks are found by their cluster in a hash table, made at the first write
 * from the L1 and the refcount table. What it says is held against those tables, so that an entry
 * that came to nothing does no harm; new tables are added when they are linked, and whoever changes
 * many drops it.
 *
 * Thread: the node's loop; reading other snapshots' tables: main thread, as opening.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2.h"

enum { GUARD_MAX = 1 << 20 }; /* tables; with more only those in the caches are known */
#define GUARD_REFCOUNTS (UINT32_C(1) << 31)

struct qguard {
	unsigned bits, count;
	struct qguard_entry {
		uint64_t cluster; /* 0: none */
		uint32_t index;	  /* in its table */
	} * entries;
};

static const struct {
	const char *name;
	unsigned bit;
} kinds[] = {
	{"main-header", OVERLAP_HEADER},	  {"active-l1", OVERLAP_ACTIVE_L1},
	{"active-l2", OVERLAP_ACTIVE_L2},	  {"refcount-table", OVERLAP_REFTABLE},
	{"refcount-block", OVERLAP_REFBLOCK},	  {"snapshot-table", OVERLAP_SNAPSHOTS},
	{"inactive-l1", OVERLAP_INACTIVE_L1},	  {"inactive-l2", OVERLAP_INACTIVE_L2},
	{"bitmap-directory", OVERLAP_BITMAP_DIR},
};

static bool mode_bits(const char *mode, unsigned *bits)
{
	static const struct {
		const char *name;
		unsigned bits;
	} modes[] = {
		{"none", 0},
		{"constant", OVERLAP_CONSTANT},
		{"cached", OVERLAP_CACHED},
		{"all", OVERLAP_ALL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (!strcmp(modes[i].name, mode)) {
			*bits = modes[i].bits;
			return true;
		}
	}
	return false;
}

bool qcow2_overlap_options(struct qcow2 *s, struct opts *opts, struct error **err)
{
	const char *mode = opts_get(opts, "overlap-check");
	const char *template = opts_get(opts, "overlap-check.template");

	if (mode && template && strcmp(mode, template)) {
		error_set(err,
			  "Conflicting values for qcow2 options 'overlap-check' ('%s') and "
			  "'overlap-check.template' ('%s')",
			  mode, template);
		return false;
	}
	mode = mode ? mode : template ? template : "cached";
	if (!mode_bits(mode, &s->overlap)) {
		error_set(err,
			  "Unsupported value '%s' for qcow2 option 'overlap-check'. Allowed are "
			  "any of the following: none, constant, cached, all",
			  mode);
		return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		char *key = xasprintf("overlap-check.%s", kinds[i].name);
		bool on = s->overlap & kinds[i].bit, ok = opts_get_bool(opts, key, &on, err);

		free(key);
		if (!ok)
			return false;
		s->overlap = on ? s->overlap | kinds[i].bit : s->overlap & ~kinds[i].bit;
	}
	return true;
}

/* The guard */

static struct qguard_entry *guard_slot(const struct qguard *g, uint64_t cluster)
{
	uint64_t i = cluster * UINT64_C(0x9e3779b97f4a7c15) >> (64 - g->bits);

	while (g->entries[i].cluster && g->entries[i].cluster != cluster)
		i = (i + 1) & ((UINT64_C(1) << g->bits) - 1);
	return &g->entries[i];
}

static void guard_put(struct qguard *g, uint64_t cluster, uint32_t index)
{
	struct qguard_entry *e = guard_slot(g, cluster);

	g->count += !e->cluster;
	*e = (struct qguard_entry){cluster, index};
}

void qcow2_guard_drop(struct qcow2 *s)
{
	if (s->guard)
		free(s->guard->entries);
	free(s->guard);
	s->guard = NULL;
}

static bool guard_make(struct qcow2 *s)
{
	uint64_t most = (uint64_t)s->h.l1_size + s->reftable_size;
	struct qguard *g;

	if (most > GUARD_MAX || !(g = calloc(1, sizeof(*g))))
		return false;
	/* Half of it stays free, and there is room for what replaced something. */
	for (g->bits = 6; UINT64_C(1) << g->bits < 4 * most;)
		g->bits++;
	g->entries = calloc(UINT64_C(1) << g->bits, sizeof(*g->entries));
	if (!g->entries) {
		free(g);
		return false;
	}
	for (uint64_t i = 0; i < s->h.l1_size; i++)
		if (s->l1[i] & ENTRY_OFFSET)
			guard_put(g, (s->l1[i] & ENTRY_OFFSET) >> s->cluster_bits, i);
	for (uint64_t i = 0; i < s->reftable_size; i++)
		if (s->reftable[i] & ~REFTABLE_RESERVED)
			guard_put(g, s->reftable[i] >> s->cluster_bits, i | GUARD_REFCOUNTS);
	s->guard = g;
	return true;
}

void qcow2_guard_add(struct qcow2 *s, uint64_t host, uint32_t index, bool refcounts)
{
	struct qguard *g = s->guard;

	if (!g)
		return;
	if (g->count * 2 >= UINT64_C(1) << g->bits)
		qcow2_guard_drop(s); /* it is made anew, without what came to nothing */
	else
		guard_put(g, host >> s->cluster_bits, refcounts ? index | GUARD_REFCOUNTS : index);
}

static bool guard_entry_hit(const struct qcow2 *s, const struct qguard_entry *e)
{
	uint32_t index = e->index & ~GUARD_REFCOUNTS;

	if (e->index & GUARD_REFCOUNTS)
		return (s->overlap & OVERLAP_REFBLOCK) && index < s->reftable_size &&
		       s->reftable[index] >> s->cluster_bits == e->cluster;
	return (s->overlap & OVERLAP_ACTIVE_L2) && index < s->h.l1_size &&
	       (s->l1[index] & ENTRY_OFFSET) >> s->cluster_bits == e->cluster;
}

static bool guard_hit(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	const struct qguard *g = s->guard;
	uint64_t first = host >> s->cluster_bits, last = (host + bytes - 1) >> s->cluster_bits;

	if (last - first < UINT64_C(1) << g->bits) {
		for (uint64_t c = first; c <= last; c++) {
			const struct qguard_entry *e = guard_slot(g, c);

			if (e->cluster && guard_entry_hit(s, e))
				return true;
		}
		return false;
	}
	for (uint64_t i = 0; i < UINT64_C(1) << g->bits; i++) {
		const struct qguard_entry *e = &g->entries[i];

		if (e->cluster >= MAX(first, UINT64_C(1)) && e->cluster <= last &&
		    guard_entry_hit(s, e))
			return true;
	}
	return false;
}

/* Snapshots' L2 tables */

static int compare_clusters(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int qcow2_overlap_read_snapshots(struct qcow2 *s)
{
	const struct qsnapshots *t = &s->snapshots;
	uint64_t *all = NULL, n = 0;
	int ret = 0;

	free(s->inactive_l2);
	s->inactive_l2 = NULL;
	s->inactive_l2_count = 0;
	if (!(s->overlap & OVERLAP_INACTIVE_L2) || s->node->read_only)
		return 0;
	for (unsigned i = 0; i < t->count && !ret; i++) {
		uint64_t entries = t->more[i].l1_size, bytes = entries * 8, *more;

		/* What cannot be right is found when the snapshot is used. */
		if (!bytes || bytes > QCOW2_MAX_L1_BYTES ||
		    !range_inside(t->more[i].l1_offset, bytes, s->file->length))
			continue;
		more = realloc(all, (n + entries) * 8);
		if (!more) {
			ret = -ENOMEM;
			break;
		}
		all = more;
		ret = block_pread(s->file, t->more[i].l1_offset, all + n, bytes);
		for (uint64_t k = 0, first = n; k < entries && !ret; k++) {
			uint64_t table = be64toh(all[first + k]) & ENTRY_OFFSET;

			if (table)
				all[n++] = table;
		}
	}
	if (ret) {
		free(all);
		return ret;
	}
	if (n)
		qsort(all, n, 8, compare_clusters);
	s->inactive_l2 = all;
	s->inactive_l2_count = n;
	return 0;
}

static bool on_inactive_l2(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	uint64_t lo = 0, hi = s->inactive_l2_count;

	/* The first table that ends behind host. */
	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (s->inactive_l2[mid] + s->cluster_size <= host)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < s->inactive_l2_count && s->inactive_l2[lo] < host + bytes;
}

/* What may lie where */

static bool on_snapshot_l1(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	const struct qsnapshots *t = &s->snapshots;

	for (unsigned i = 0; i < t->count; i++)
		if (ranges_overlap(host, bytes, t->more[i].l1_offset,
				   t->more[i].l1_size * UINT64_C(8)))
			return true;
	return false;
}

static bool on_snapshot_table(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	return ranges_overlap(host, bytes, s->h.snapshots_offset, s->snapshots.bytes);
}

static bool on_l1(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	return ranges_overlap(host, bytes, s->h.l1_offset, (uint64_t)s->h.l1_size * 8);
}

static bool on_reftable(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	return ranges_overlap(host, bytes, s->h.reftable_offset,
			      (uint64_t)s->h.reftable_clusters << s->cluster_bits);
}

/* The image's own, and the one that LUKS has. */
static bool on_header(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	return host < s->cluster_size || ranges_overlap(host, bytes, s->crypt_offset, s->crypt_bytes);
}

bool qcow2_tables_ok(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	return !on_header(s, host, bytes) && !on_l1(s, host, bytes) &&
	       !on_reftable(s, host, bytes);
}

bool qcow2_host_ok(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	return qcow2_tables_ok(s, host, bytes) && !qcow2_in_bitmaps(s, host, bytes) &&
	       (!s->snapshots.count ||
		(!on_snapshot_table(s, host, bytes) && !on_snapshot_l1(s, host, bytes)));
}

bool qcow2_overlaps(struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	unsigned on = s->overlap;

	if (((on & OVERLAP_HEADER) && on_header(s, host, bytes)) ||
	    ((on & OVERLAP_ACTIVE_L1) && on_l1(s, host, bytes)) ||
	    ((on & OVERLAP_REFTABLE) && on_reftable(s, host, bytes)) ||
	    ((on & OVERLAP_SNAPSHOTS) && on_snapshot_table(s, host, bytes)) ||
	    ((on & OVERLAP_INACTIVE_L1) && on_snapshot_l1(s, host, bytes)) ||
	    ((on & OVERLAP_INACTIVE_L2) && on_inactive_l2(s, host, bytes)) ||
	    ((on & OVERLAP_BITMAP_DIR) && qcow2_in_bitmaps(s, host, bytes)))
		return true;
	if (!(on & (OVERLAP_ACTIVE_L2 | OVERLAP_REFBLOCK)))
		return false;
	if (s->guard || guard_make(s))
		return guard_hit(s, host, bytes);
	return ((on & OVERLAP_ACTIVE_L2) && qcache_overlaps(&s->l2, host, bytes)) ||
	       ((on & OVERLAP_REFBLOCK) && qcache_overlaps(&s->refcounts, host, bytes));
}

bool qcow2_data_ok(struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	if (s->external || !qcow2_overlaps(s, host, bytes))
		return true;
	qcow2_mark_corrupt(s, "Preventing invalid write on metadata at offset 0x%llx",
			   (unsigned long long)host);
	return false;
}
