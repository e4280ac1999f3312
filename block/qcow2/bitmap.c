/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Persistent bitmaps: from the directory to the node's list and back. See bitmap.h.
 *
 * Thread: qcow2_bitmaps_mark() the node's loop; the rest the main thread, drained.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/bitmap.h"
#include "block/qcow2/snapshot.h"
#include "vmm/core/log.h"

enum { SECTOR = 512, MAX_TRACKED = 1 << 30 /* bytes of bits, of all together */ };

/* Opening */

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct block_bitmap *const *)a)->name,
		      (*(struct block_bitmap *const *)b)->name);
}

static const struct qbitmap *stored(const struct block_bitmap *bm)
{
	return bm->stored;
}

static int by_table(const void *a, const void *b)
{
	uint64_t x = stored(*(struct block_bitmap *const *)a)->table;
	uint64_t y = stored(*(struct block_bitmap *const *)b)->table;

	return x < y ? -1 : x > y;
}

/* Names are unique, and tables lie beside one another and beside everything else. */
static const char *check_all(const struct qcow2 *s, struct block_bitmap **all, uint32_t n)
{
	uint64_t tracked = 0, end = 0;

	if (!qcow2_tables_ok(s, s->bm.dir_offset, s->bm.dir_bytes))
		return "bitmap directory overlaps another table";
	qsort(all, n, sizeof(*all), by_name);
	for (uint32_t i = 1; i < n; i++)
		if (!strcmp(all[i - 1]->name, all[i]->name))
			return "two bitmaps have the same name";
	qsort(all, n, sizeof(*all), by_table);
	for (uint32_t i = 0; i < n; i++) {
		const struct qbitmap *q = all[i]->stored;
		uint64_t bytes = q->entries * UINT64_C(8);

		if (q->table < end || !qcow2_tables_ok(s, q->table, bytes) ||
		    ranges_overlap(q->table, bytes, s->bm.dir_offset, s->bm.dir_bytes))
			return "a bitmap's table overlaps another table";
		end = q->table + bytes;
		if (all[i]->enabled)
			tracked += all[i]->dirty.bits / 8;
	}
	return tracked > MAX_TRACKED ? "bitmaps take too much memory" : NULL;
}

static struct block_bitmap *take_entry(const struct qcow2 *s, const struct qbitmap_entry *e,
				       uint64_t at)
{
	char *name = xstrndup((const char *)e->name, e->name_len);
	struct block_bitmap *bm = block_bitmap_new(name, s->node->length, e->shift);
	struct qbitmap *q = xcalloc(1, sizeof(*q));

	free(name);
	q->table = e->table;
	q->entries = e->entries;
	q->flags = e->flags;
	q->at = at;
	q->extra_len = e->extra_len;
	if (e->extra_len) {
		q->extra = xmalloc(e->extra_len);
		memcpy(q->extra, e->extra, e->extra_len);
	}
	bm->stored = q;
	bm->persistent = true;
	/* Extra data that nobody here knows may forbid to use the bitmap without it. */
	bm->inconsistent = (e->flags & QBITMAP_IN_USE) ||
			   (e->extra_len && !(e->flags & QBITMAP_EXTRA_COMPATIBLE));
	bm->enabled = (e->flags & QBITMAP_AUTO) && !bm->inconsistent;
	return bm;
}

static void free_stored(struct block_bitmap *bm)
{
	struct qbitmap *q = bm->stored;

	if (q)
		free(q->extra);
	free(q);
	bm->stored = NULL;
}

static const char *read_entries(struct qcow2 *s, struct block_bitmap **all)
{
	uint64_t at = 0, file = ALIGN_UP(s->file->length, s->cluster_size);
	struct block_bitmap **end = &s->node->bitmaps;
	struct qbitmap_entry e;
	const char *what;

	for (uint32_t i = 0; i < s->bm.count; i++) {
		if (!qbitmap_entry_parse(&e, s->bm.dir, s->bm.dir_bytes, at, &what) ||
		    !qbitmap_entry_check(&e, s->cluster_size, file, s->node->length, &what))
			return what;
		all[i] = *end = take_entry(s, &e, at);
		end = &(*end)->next;
		at += e.bytes;
	}
	return at == s->bm.dir_bytes ? check_all(s, all, s->bm.count)
				     : "bitmap directory is too long";
}

static const char *read_all(struct qcow2 *s, const struct qcow2_extensions *x, const uint8_t *first)
{
	struct block_bitmap **all;
	struct qbitmap_ext ext;
	const char *what;

	if (!qbitmap_ext_parse(&ext, first + x->bitmaps_offset, x->bitmaps_len, s->cluster_size,
			       s->file->length, &what))
		return what;
	s->bm.count = ext.count;
	s->bm.dir_offset = ext.dir_offset;
	s->bm.dir_bytes = ext.dir_bytes;
	s->bm.dir = malloc(MAX(ext.dir_bytes, UINT64_C(1)));
	all = calloc(ext.count, sizeof(*all));
	if (!s->bm.dir || !all)
		what = "out of memory";
	else if (ext.dir_bytes && block_pread(s->file, ext.dir_offset, s->bm.dir, ext.dir_bytes))
		what = "bitmap directory cannot be read";
	else
		what = read_entries(s, all);
	free(all);
	return what;
}

bool qcow2_bitmaps_open(struct qcow2 *s, const struct qcow2_extensions *x, const uint8_t *first,
			const struct block_open *how, struct error **err)
{
	const char *what;

	s->node->length = ALIGN_DOWN(s->h.size, 512);
	if (!x->bitmaps_offset)
		return true;
	if (!(s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
		log_warn("'%s' was modified by a program without support for bitmaps: all of its "
			 "bitmaps are inconsistent, and will be removed",
			 s->node->filename);
		s->bm.stale = true;
		return true;
	}
	what = read_all(s, x, first);
	if (!what) {
		qcow2_bitmap_ops.changed(s->node);
		return true;
	}
	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next)
		free_stored(bm);
	block_bitmaps_free(s->node);
	s->bm.bad = what;
	if (how->flags & BLOCK_OPEN_CHECK)
		return true;
	error_set(err, "Invalid bitmaps: %s", what);
	return false;
}

void qcow2_bitmaps_close(struct qcow2 *s)
{
	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next)
		free_stored(bm);
	free(s->bm.dir);
	free(s->bm.gone);
	free(s->bm.req);
	s->bm = (struct qbitmaps){0};
}

int qcow2_bitmaps_tidy(struct qcow2 *s)
{
	int ret = 0;

	if (s->bm.stale)
		ret = qcow2_put_bitmaps(s, NULL);
	s->bm.stale = false;
	return ret;
}

bool qcow2_in_bitmaps(const struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	if (!s->bm.count)
		return false;
	if (ranges_overlap(host, bytes, s->bm.dir_offset, s->bm.dir_bytes))
		return true;
	for (const struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next)
		if (bm->stored && ranges_overlap(host, bytes, stored(bm)->table,
						 stored(bm)->entries * UINT64_C(8)))
			return true;
	return false;
}

/* Marking */

/* Writes would make the disk's copy wrong, and it does not say so. */
static bool is_unmarked(const struct block_bitmap *bm)
{
	const struct qbitmap *q = bm->stored;

	return q && q->table && !(q->flags & QBITMAP_IN_USE) &&
	       (bm->enabled || (q->flags & QBITMAP_AUTO));
}

static void changed(struct block_node *node)
{
	struct qcow2 *s = node->opaque;

	s->bm.unmarked = false;
	for (const struct block_bitmap *bm = node->bitmaps; bm; bm = bm->next)
		s->bm.unmarked |= is_unmarked(bm);
}

/* The flags in the directory's bytes; *from, *to: whole sectors that change. False: none. */
static bool put_in_use(struct qcow2 *s, bool (*which)(const struct block_bitmap *bm),
		       uint64_t *from, uint64_t *to)
{
	*from = UINT64_MAX;
	*to = 0;
	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next) {
		struct qbitmap *q = bm->stored;
		uint64_t at;

		if (!which(bm) || !q || !q->table || (q->flags & QBITMAP_IN_USE))
			continue;
		at = q->at + QBITMAP_OFF_FLAGS;
		store_be32(s->bm.dir + at, q->flags | QBITMAP_IN_USE);
		*from = MIN(*from, ALIGN_DOWN(at, SECTOR));
		*to = MAX(*to, MIN(ALIGN_UP(at + 4, SECTOR), s->bm.dir_bytes));
	}
	return *from < *to;
}

static void have_in_use(struct qcow2 *s, bool (*which)(const struct block_bitmap *bm))
{
	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next) {
		struct qbitmap *q = bm->stored;

		if (which(bm) && q && q->table)
			q->flags |= QBITMAP_IN_USE;
	}
	changed(s->node);
}

static void mark_end(struct qcow2 *s, int ret)
{
	s->bm.marking = false;
	if (!ret)
		have_in_use(s, is_unmarked);
	waitq_move(&s->runq, &s->bm.waiters, ret);
	block_idle(s->node);
	qcow2_run_waiters(s);
}

static void mark_done(struct block_req *req, int ret)
{
	struct qcow2 *s = req->ctx;

	if (ret || req->op == BLOCK_FLUSH)
		mark_end(s, ret);
	else
		qcow2_file_io(s, s->bm.req, BLOCK_FLUSH, 0, NULL, NULL, 0);
}

void qcow2_bitmaps_mark(struct qcow2 *s)
{
	uint64_t from, to;

	if (s->bm.marking)
		return;
	s->bm.marking = true;
	block_busy(s->node);
	if (!s->bm.req)
		s->bm.req = qcow2_file_req(s, mark_done, s);
	put_in_use(s, is_unmarked, &from, &to);
	qcow2_file_io(s, s->bm.req, BLOCK_WRITE, s->bm.dir_offset + from, &s->bm.iov,
		      s->bm.dir + from, to - from);
}

int qcow2_bitmaps_mark_now(struct qcow2 *s, bool (*which)(const struct block_bitmap *bm))
{
	uint64_t from, to;
	int ret;

	if (!put_in_use(s, which, &from, &to))
		return 0;
	ret = block_pwrite(s->file, s->bm.dir_offset + from, s->bm.dir + from, to - from, 0);
	if (!ret)
		ret = block_flush(s->file);
	if (!ret)
		have_in_use(s, which);
	return ret;
}

/* Storing */

static bool contents_changed(const struct block_bitmap *bm)
{
	const struct qbitmap *q = bm->stored;

	if (!bm->persistent || bm->inconsistent)
		return false;
	return !q || !q->table || bm->replaced ||
	       (bm->complete ? q->flags & QBITMAP_IN_USE : bm->dirty.dirty != 0);
}

static uint32_t wanted_flags(const struct block_bitmap *bm)
{
	const struct qbitmap *q = bm->stored;

	if (bm->inconsistent)
		return q->flags;
	return (bm->enabled ? QBITMAP_AUTO : 0) | (q->flags & QBITMAP_EXTRA_COMPATIBLE);
}

static void let_table_go(struct qcow2 *s, uint64_t table, uint32_t entries)
{
	struct qbitmaps *b = &s->bm;

	if (!table)
		return;
	b->gone = xrealloc(b->gone, (b->gone_count + 1) * sizeof(*b->gone));
	b->gone[b->gone_count++] = (struct qbitmap_gone){table, entries};
}

/* The old directory and what it alone led to. What cannot be counted leaks. */
static int release(struct qcow2 *s, uint64_t dir_offset, uint64_t dir_bytes)
{
	struct qcounts down = {0};
	int ret = qcow2_commit_sync(s);

	if (!ret)
		ret = qcounts_init(&down, s);
	if (!ret) {
		qcounts_add(&down, dir_offset, dir_bytes);
		for (unsigned i = 0; i < s->bm.gone_count; i++)
			qbitmap_count(s, &down, s->bm.gone[i].table, s->bm.gone[i].entries);
		ret = qcow2_release(s, &down);
	}
	qcounts_free(&down);
	s->bm.gone_count = 0;
	return ret == -EIO || ret == -EOVERFLOW ? 0 : ret;
}

/* The directory as the list is now; *count, *bytes. */
static uint8_t *pack(struct qcow2 *s, uint32_t *count, uint64_t *bytes)
{
	uint64_t at = 0;
	uint8_t *dir;

	*count = 0;
	*bytes = 0;
	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next)
		if (bm->stored) {
			++*count;
			*bytes += qbitmap_entry_bytes(strlen(bm->name), stored(bm)->extra_len);
		}
	dir = calloc(1, ALIGN_UP(MAX(*bytes, UINT64_C(1)), s->cluster_size));
	for (struct block_bitmap *bm = s->node->bitmaps; dir && bm; bm = bm->next) {
		struct qbitmap q;

		if (!bm->stored)
			continue;
		q = *stored(bm);
		q.flags = wanted_flags(bm);
		if (q.new_table) {
			q.table = q.new_table;
			q.entries = q.new_entries;
		}
		qbitmap_entry_put(dir + at, bm, &q);
		at += qbitmap_entry_bytes(strlen(bm->name), q.extra_len);
	}
	return dir;
}

/* The directory on the disk is dir now. */
static void switched(struct qcow2 *s, uint8_t *dir, const struct qbitmap_ext *x)
{
	uint64_t at = 0;

	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next) {
		struct qbitmap *q = bm->stored;

		if (!q)
			continue;
		if (q->new_table) {
			let_table_go(s, q->table, q->entries);
			q->table = q->new_table;
			q->entries = q->new_entries;
			q->new_table = 0;
		}
		q->flags = wanted_flags(bm);
		q->at = at;
		at += qbitmap_entry_bytes(strlen(bm->name), q->extra_len);
	}
	free(s->bm.dir);
	s->bm.dir = dir;
	s->bm.count = x->count;
	s->bm.dir_offset = x->dir_offset;
	s->bm.dir_bytes = x->dir_bytes;
	s->bm.moved = false;
}

static int new_directory(struct qcow2 *s)
{
	uint64_t old_offset = s->bm.dir_offset, old_bytes = s->bm.dir_bytes, clusters;
	struct qbitmap_ext x = {0};
	uint8_t *dir = pack(s, &x.count, &x.dir_bytes);
	int ret = dir ? 0 : -ENOMEM;

	clusters = div_round_up(x.dir_bytes, s->cluster_size);
	if (!ret && x.dir_bytes > QBITMAP_MAX_DIR)
		ret = -EFBIG;
	if (!ret && clusters)
		ret = qcow2_alloc_now(s, clusters, &x.dir_offset);
	if (!ret)
		ret = qcow2_commit_sync(s);
	if (!ret && clusters)
		ret = block_pwrite(s->file, x.dir_offset, dir, clusters << s->cluster_bits, 0);
	if (!ret)
		ret = block_flush(s->file);
	if (!ret) {
		ret = qcow2_put_bitmaps(s, x.count ? &x : NULL);
		if (ret && ret != -EFBIG)
			s->broken = true; /* which of the two the disk has is not known */
	}
	if (ret) {
		if (x.dir_offset && !s->broken)
			qcow2_free_later(s, x.dir_offset, clusters, QFREE_OTHER);
		free(dir);
		return ret;
	}
	switched(s, dir, &x);
	return release(s, old_offset, old_bytes);
}

/* Only flags are different. */
static int same_directory(struct qcow2 *s)
{
	bool any = false;
	int ret;

	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next)
		if (bm->stored && stored(bm)->flags != wanted_flags(bm)) {
			store_be32(s->bm.dir + stored(bm)->at + QBITMAP_OFF_FLAGS,
				   wanted_flags(bm));
			any = true;
		}
	if (!any)
		return 0;
	ret = block_pwrite(s->file, s->bm.dir_offset, s->bm.dir, s->bm.dir_bytes, 0);
	if (!ret)
		ret = block_flush(s->file);
	for (struct block_bitmap *bm = s->node->bitmaps; !ret && bm; bm = bm->next)
		if (bm->stored)
			((struct qbitmap *)bm->stored)->flags = wanted_flags(bm);
	return ret;
}

static int write_contents(struct qcow2 *s)
{
	int ret = qcow2_bitmaps_mark_now(s, contents_changed);

	for (struct block_bitmap *bm = s->node->bitmaps; bm && !ret; bm = bm->next) {
		if (!contents_changed(bm))
			continue;
		if (!bm->stored)
			bm->stored = xcalloc(1, sizeof(struct qbitmap));
		ret = qbitmap_write(s, bm);
	}
	return ret;
}

/* What was written for a directory that did not come about. */
static void forget_new(struct qcow2 *s)
{
	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next) {
		struct qbitmap *q = bm->stored;

		if (!q)
			continue;
		if (q->new_table && !s->broken) {
			struct qcounts down = {0};

			if (!qcow2_commit_sync(s) && !qcounts_init(&down, s) &&
			    !qbitmap_count(s, &down, q->new_table, q->new_entries))
				qcow2_release(s, &down);
			qcounts_free(&down);
		}
		q->new_table = 0;
		if (!q->table)
			free_stored(bm);
	}
}

static int store(struct block_node *node)
{
	struct qcow2 *s = node->opaque;
	bool moved = s->bm.moved;
	int ret;

	if (s->broken || s->bm.bad)
		return s->broken ? -EIO : 0;
	ret = qcow2_commit_sync(s);
	if (!ret)
		ret = write_contents(s);
	for (struct block_bitmap *bm = node->bitmaps; bm; bm = bm->next)
		moved |= bm->stored && stored(bm)->new_table;
	if (!ret)
		ret = moved ? new_directory(s) : same_directory(s);
	if (ret) {
		forget_new(s);
		return ret;
	}
	for (struct block_bitmap *bm = node->bitmaps; bm; bm = bm->next) {
		if (bm->persistent && !bm->complete)
			dirty_bitmap_clear(&bm->dirty);
		bm->replaced = false;
	}
	changed(node);
	return 0;
}

/* Ways in */

static bool supported(const struct block_node *node)
{
	const struct qcow2 *s = node->opaque;

	return s->h.version >= 3;
}

uint64_t qbitmap_clusters(const struct block_bitmap *bm, uint64_t cluster_size)
{
	return MAX(div_round_up(bm->dirty.bits, cluster_size * 8), UINT64_C(1));
}

static bool can_add(struct block_node *node, const char *name, uint64_t granularity,
		    struct error **err)
{
	struct qcow2 *s = node->opaque;
	uint64_t dir = qbitmap_entry_bytes(strlen(name), 0);
	uint64_t bytes = div_round_up(div_round_up(node->length, granularity), 8);
	uint32_t count = 0;

	for (const struct block_bitmap *bm = node->bitmaps; bm; bm = bm->next)
		if (bm->persistent) {
			count++;
			dir += qbitmap_entry_bytes(strlen(bm->name),
						   bm->stored ? stored(bm)->extra_len : 0);
		}
	if (s->h.version < 3)
		error_set(err, "Cannot store dirty bitmaps in qcow2 v2 files");
	else if (s->bm.bad)
		error_set(err, "Invalid bitmaps: %s", s->bm.bad);
	else if (strlen(name) > BLOCK_BITMAP_NAME_MAX)
		error_set(err, "Name length exceeds maximum (%u characters)",
			  BLOCK_BITMAP_NAME_MAX);
	else if (bytes > QBITMAP_MAX_BYTES)
		error_set(err, "Too much space will be occupied by the bitmap. Use larger "
			       "granularity");
	else if (count >= QBITMAP_MAX)
		error_set(err, "Maximum number of persistent bitmaps is already reached");
	else if (dir > QBITMAP_MAX_DIR)
		error_set(err, "Not enough space in the bitmap directory");
	else if (!s->bm.count && !qcow2_bitmaps_fit(s))
		error_set(err, "The image's header has no room for bitmaps");
	else
		return true;
	return false;
}

static int load(struct block_node *node, struct block_bitmap *bm)
{
	return bm->stored ? qbitmap_load(node->opaque, bm) : 0;
}

static int remove_bitmap(struct block_node *node, struct block_bitmap *bm)
{
	struct qcow2 *s = node->opaque;

	if (stored(bm)->table) {
		let_table_go(s, stored(bm)->table, stored(bm)->entries);
		s->bm.moved = true;
	}
	free_stored(bm);
	return store(node);
}

int qcow2_bitmaps_drop(struct qcow2 *s)
{
	struct block_bitmap **p = &s->node->bitmaps, *bm;

	if (s->bm.bad)
		return qcow2_put_bitmaps(s, NULL);
	while ((bm = *p)) {
		if (!bm->persistent) {
			p = &bm->next;
			continue;
		}
		*p = bm->next;
		if (bm->stored) {
			let_table_go(s, stored(bm)->table, stored(bm)->entries);
			s->bm.moved = true;
			free_stored(bm);
		}
		block_bitmap_free(bm);
	}
	return store(s->node);
}

static bool is_persistent(const struct block_bitmap *bm)
{
	return bm->persistent;
}

bool qcow2_bitmaps_may_resize(struct qcow2 *s, struct error **err)
{
	int ret;

	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next)
		if (bm->persistent && !block_bitmap_load(s->node, bm, err))
			return false;
	ret = qcow2_bitmaps_mark_now(s, is_persistent);
	if (ret) {
		error_set_errno(err, ret, "Could not mark bitmaps as in use");
		return false;
	}
	/* Their tables are made anew for the size, whatever it will be. */
	for (struct block_bitmap *bm = s->node->bitmaps; bm; bm = bm->next)
		bm->replaced |= bm->persistent;
	return true;
}

const struct block_bitmap_ops qcow2_bitmap_ops = {
	.supported = supported,
	.can_add = can_add,
	.load = load,
	.remove = remove_bitmap,
	.store = store,
	.changed = changed,
};
