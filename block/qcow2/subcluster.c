/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended L2 entries: each has a bitmap beside it that tells for each 32nd of its cluster whether
 * it is there (low half), reads as zero (high half) or comes from below ("Extended L2 Entries" in
 * the format's document). So a small write to a new cluster copies at most a subcluster's borders.
 *
 * A piece of a request stays within a cluster. What is written grows to whole subclusters, first in
 * a buffer; what a snapshot shares is copied whole. An entry and its bitmap change at once: both
 * lie in 16 aligned bytes.
 *
 * Thread: the node's loop. The order of things is that of write.c.
 */
#include <errno.h>

#include "block/qcow2/request.h"

enum { SUBS = 32 };

static bool has_host(const struct qcow2 *s, uint64_t entry)
{
	return !(entry & L2_COMPRESSED) &&
	       (entry & (s->external ? ENTRY_COPIED | ENTRY_OFFSET : ENTRY_OFFSET));
}

bool qsub_entry_ok(const struct qcow2 *s, uint64_t entry, uint64_t bitmap)
{
	if (entry & L2_COMPRESSED)
		return !bitmap;
	if ((entry & L2_ZERO) || ((bitmap >> SUBS) & bitmap & UINT32_MAX))
		return false;
	return has_host(s, entry) || !(bitmap & UINT32_MAX);
}

static enum qtype sub_type(const struct qcow2 *s, uint64_t entry, uint64_t bitmap, unsigned sub)
{
	if (bitmap >> sub & 1)
		return Q_DATA;
	if (bitmap >> (SUBS + sub) & 1)
		return has_host(s, entry) ? Q_ZERO_ALLOC : Q_ZERO;
	return Q_UNALLOCATED;
}

int qsub_map(struct qcow2 *s, const struct qslice *e, unsigned index, uint64_t offset,
	     uint64_t bytes, struct qmap *map)
{
	const uint8_t *p = e->data + ((size_t)index << s->entry_bits);
	uint64_t in = offset & (s->cluster_size - 1), sub_size = s->cluster_size / SUBS, left;
	unsigned sub = in / sub_size;

	map->entry = load_be64(p);
	map->bitmap = load_be64(p + 8);
	map->copied = map->entry & ENTRY_COPIED;
	map->host = map->entry & ENTRY_OFFSET;
	if (!qsub_entry_ok(s, map->entry, map->bitmap)) {
		qcow2_mark_corrupt(s, "Invalid extended L2 entry %llx %llx",
				   (unsigned long long)map->entry, (unsigned long long)map->bitmap);
		return -EIO;
	}
	if (map->entry & L2_COMPRESSED) {
		map->type = Q_COMPRESSED;
		map->bytes = MIN(bytes, s->cluster_size - in);
		return 0;
	}
	map->type = sub_type(s, map->entry, map->bitmap, sub);
	if (map->type == Q_DATA)
		map->host += in;
	left = sub_size - in % sub_size;
	while (left < bytes && ++sub < SUBS &&
	       sub_type(s, map->entry, map->bitmap, sub) == map->type)
		left += sub_size;
	map->bytes = MIN(bytes, left);
	return 0;
}

/* The bits of the subclusters that [from, to) of one cluster touches. */
static uint64_t sub_mask(const struct qcow2 *s, uint64_t from, uint64_t to)
{
	uint64_t start = qcow2_cluster_start(s, from), sub_size = s->cluster_size / SUBS;
	unsigned first = (from - start) / sub_size, end = div_round_up(to - start, sub_size);

	return (UINT64_C(1) << end) - (UINT64_C(1) << first);
}

/* Metadata may change now, and the entry is at hand. */
static int at_entry(struct qreq *q, uint8_t **p, struct qslice **e)
{
	struct qcow2 *s = q->s;
	unsigned index;
	int ret;

	ret = qreq_own_slice(q, e, &index);
	if (!ret)
		*p = (*e)->data + ((size_t)index << s->entry_bits);
	return ret;
}

/* Writing */

static enum qstep link_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t mask = sub_mask(s, q->from, q->to), bitmap;
	struct qslice *e;
	uint8_t *p;
	int ret = at_entry(q, &p, &e);

	if (ret)
		return qreq_wait_or_end(q, ret);
	bitmap = load_be64(p + 8);
	if (!q->reused)
		qcow2_let_go(s, load_be64(p), QFREE_OTHER);
	bitmap = (bitmap | mask) & ~(mask << SUBS);
	store_be64(p, q->host | ENTRY_COPIED);
	store_be64(p + 8, bitmap);
	qcache_dirty(e);
	q->host_taken = false;
	qreq_advance(q);
	return qreq_start_of(q);
}

static enum qstep written(struct qreq *q)
{
	if (q->ret)
		return qreq_end(q, q->ret);
	q->step = link_step;
	return STEP_GO;
}

static enum qstep fill_step(struct qreq *q);

static enum qstep filled(struct qreq *q)
{
	if (q->ret)
		return qreq_end(q, q->ret);
	q->fill += q->map.bytes;
	q->step = fill_step;
	return STEP_GO;
}

static enum qstep fill_unpacked(struct qreq *q)
{
	uint64_t in = q->fill & (q->s->cluster_size - 1);

	if (!q->ret)
		memcpy(q->buf->data + in, q->unpack->out + in, q->map.bytes);
	return filled(q);
}

static enum qstep fill_compressed(struct qreq *q)
{
	return qreq_unpack(q, fill_unpacked);
}

/* The buffer gets what the guest reads in [from, to), and then the new bytes. */
static enum qstep fill_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	struct block_node *below = s->node->backing;
	uint64_t start = qcow2_cluster_start(s, q->offset);
	uint8_t *at = q->buf->data + (q->fill - start);
	int ret;

	if (q->fill >= q->to) {
		at = q->buf->data + (q->offset - start);
		if (q->req->act == BLOCK_WRITE)
			iov_to_buf(q->req->iov, q->req->iovcnt, q->req->iov_skip + q->at, at,
				   q->chunk);
		else
			memset(at, 0, q->chunk);
		block_tell(s->file, BLOCK_EV_COW_WRITE);
		return qreq_io(q, s->data, BLOCK_WRITE, q->host + (q->from - start),
			       q->buf->data + (q->from - start), q->to - q->from, written);
	}
	ret = qcow2_map(s, q->fill, q->to - q->fill, &q->waiter, &q->map);
	if (ret)
		return qreq_wait_or_end(q, ret);
	block_tell(s->file, BLOCK_EV_COW_READ);
	if (q->map.type == Q_DATA)
		return qreq_io(q, s->data, BLOCK_READ, q->map.host, at, q->map.bytes, filled);
	if (q->map.type == Q_COMPRESSED) {
		q->step = fill_compressed;
		return STEP_GO;
	}
	memset(at, 0, q->map.bytes);
	q->ret = 0;
	if (q->map.type == Q_UNALLOCATED && below && q->fill < below->length)
		return qreq_io(q, below, BLOCK_READ, q->fill, at,
			       MIN(q->map.bytes, below->length - q->fill), filled);
	return filled(q);
}

static enum qstep buf_step(struct qreq *q)
{
	struct qcow2 *s = q->s;

	if (!q->buf && !qreq_take_buf(q)) {
		if (!s->buf_count)
			return qreq_end(q, -ENOMEM);
		waitq_add(&s->buf_wait, &q->waiter);
		return STEP_WAIT;
	}
	q->fill = q->from;
	q->step = fill_step;
	return STEP_GO;
}

static enum qstep alloc_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t host, got;
	int ret;

	if (!q->reused) {
		ret = qcow2_alloc(s, 1, &q->waiter, &host, &got);
		if (ret)
			return qreq_wait_or_end(q, ret);
		q->host = host;
		q->host_taken = true;
		s->fresh = MAX(s->fresh, host + s->cluster_size);
	}
	if (q->from == q->offset && q->to == q->offset + q->chunk) {
		block_tell(s->file, BLOCK_EV_WRITE_AIO);
		return qreq_io(
			q, s->data, q->req->act == BLOCK_WRITE ? BLOCK_WRITE : BLOCK_WRITE_ZEROES,
			q->host + (q->from & (s->cluster_size - 1)), NULL, q->chunk, written);
	}
	q->step = buf_step;
	return STEP_GO;
}

enum qstep qsub_write(struct qreq *q, uint64_t limit)
{
	struct qcow2 *s = q->s;
	uint64_t start = qcow2_cluster_start(s, q->offset), end = start + s->cluster_size;
	uint64_t sub_size = s->cluster_size / SUBS;
	bool has = has_host(s, q->map.entry);
	struct qslice *e;
	unsigned index;
	int ret = qcow2_own_slice(s, q->offset, &q->waiter, &e, &index);

	if (ret)
		return qreq_wait_or_end(q, ret);
	if (qreq_blocked(q, start, end, true))
		return STEP_WAIT;
	range_take(&s->ranges, &q->range, start, end, true);
	q->ranged = true;
	if (has && !s->external && !qcow2_data_ok(s, q->map.entry & ENTRY_OFFSET, s->cluster_size))
		return qreq_end(q, -EIO);
	q->clusters = 1;
	q->chunk = MIN(limit, end - q->offset);
	q->reused = s->external || (has && q->map.copied);
	if (q->reused)
		q->host = s->external ? start : q->map.entry & ENTRY_OFFSET;
	q->from = ALIGN_DOWN(q->offset, sub_size);
	q->to = ALIGN_UP(q->offset + q->chunk, sub_size);
	if (!q->reused && (has || (q->map.entry & L2_COMPRESSED))) {
		q->from = start;
		q->to = end;
	}
	q->step = alloc_step;
	return STEP_GO;
}

/* Zeroing and discarding */

static enum qstep zero_bits(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t start = qcow2_cluster_start(s, q->offset), bitmap, entry;
	uint64_t mask = sub_mask(s, q->offset, q->offset + q->chunk);
	struct qslice *e;
	uint8_t *p;
	int ret;

	if (qreq_blocked(q, start, start + s->cluster_size, true))
		return STEP_WAIT;
	ret = at_entry(q, &p, &e);
	if (ret)
		return qreq_wait_or_end(q, ret);
	entry = load_be64(p);
	bitmap = load_be64(p + 8);
	if (mask == UINT32_MAX && !s->external &&
	    ((entry & L2_COMPRESSED) || (q->req->act_flags & BLOCK_MAY_UNMAP))) {
		qcow2_let_go(s, entry, QFREE_REQUEST);
		store_be64(p, 0);
		bitmap = 0;
	}
	store_be64(p + 8, (bitmap & ~mask) | mask << SUBS);
	qcache_dirty(e);
	qreq_advance(q);
	return STEP_GO;
}

enum qstep qsub_zero(struct qreq *q)
{
	struct qcow2 *s = q->s;
	struct block_node *below = s->node->backing;
	uint64_t sub_size = s->cluster_size / SUBS, in = q->offset & (sub_size - 1), limit;
	bool to_end = q->offset + q->left == s->node->length;
	bool partial = in || (q->left < sub_size && !to_end), zero, unmap;
	int ret;

	if (!q->left)
		return qreq_finish_write(q);
	limit = partial ? MIN(q->left, sub_size - in)
			: MIN(to_end ? q->left : ALIGN_DOWN(q->left, sub_size),
			      s->cluster_size - (q->offset & (s->cluster_size - 1)));
	ret = qcow2_map(s, q->offset, limit, &q->waiter, &q->map);
	if (ret)
		return qreq_wait_or_end(q, ret);
	q->chunk = q->map.bytes;
	zero = q->map.type == Q_ZERO || q->map.type == Q_ZERO_ALLOC ||
	       (q->map.type == Q_UNALLOCATED && (!below || q->offset >= below->length));
	unmap = has_host(s, q->map.entry) && limit == s->cluster_size &&
		(q->req->act_flags & BLOCK_MAY_UNMAP);
	if (zero && !unmap) {
		qreq_advance(q);
		return STEP_GO;
	}
	if (partial || (s->external && q->map.type == Q_DATA) ||
	    (q->map.type == Q_COMPRESSED &&
	     sub_mask(s, q->offset, q->offset + limit) != UINT32_MAX))
		return qreq_write_piece(q, s->external ? q->chunk : limit);
	if (!s->external)
		q->chunk = limit;
	return zero_bits(q);
}

enum qstep qsub_discard(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t in = q->offset & (s->cluster_size - 1);
	bool to_end = q->offset + q->left == s->node->length;
	struct qslice *e;
	uint8_t *p;
	int ret;

	if (!q->left)
		return qreq_finish_write(q);
	q->chunk = MIN(q->left, s->cluster_size - in);
	if (in || (q->chunk < s->cluster_size && !to_end) || s->external) {
		qreq_advance(q);
		return STEP_GO;
	}
	ret = qcow2_map(s, q->offset, q->chunk, &q->waiter, &q->map);
	if (ret)
		return qreq_wait_or_end(q, ret);
	if (!q->map.entry) {
		qreq_advance(q);
		return STEP_GO;
	}
	if (qreq_blocked(q, q->offset, q->offset + s->cluster_size, true))
		return STEP_WAIT;
	ret = at_entry(q, &p, &e);
	if (ret)
		return qreq_wait_or_end(q, ret);
	qcow2_let_go(s, load_be64(p), QFREE_REQUEST);
	store_be64(p, 0);
	store_be64(p + 8, s->node->backing ? (uint64_t)UINT32_MAX << SUBS : 0);
	qcache_dirty(e);
	qreq_advance(q);
	return STEP_GO;
}
