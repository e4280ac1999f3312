/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing, zeroing and discarding. A request is worked off in pieces: clusters that may be written
 * in place, one cluster of which a part is new, or a run of whole new clusters.
 *
 * A new cluster is written whole, from a buffer with the old contents and the new bytes over them,
 * unless what surrounds the new bytes is zero and the file has zeroes there already.
 *
 * Thread: the node's loop. Why the order of things is safe stands in qcow2.h.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/request.h"

static bool below_has(const struct qcow2 *s, uint64_t offset)
{
	return s->node->backing && offset < s->node->backing->length;
}

/* Whether the guest reads zeroes there now. */
static bool reads_zero(const struct qreq *q, uint64_t offset)
{
	return q->map.type == Q_ZERO || q->map.type == Q_ZERO_ALLOC ||
	       (q->map.type == Q_UNALLOCATED && !below_has(q->s, offset));
}

enum qstep qreq_start_of(struct qreq *q)
{
	if (q->req->act != BLOCK_WRITE)
		q->step = qzero_step;
	else
		q->step = q->req->act_flags & BLOCK_COMPRESSED ? qpack_step : qwrite_step;
	return STEP_GO;
}

static bool is_zeroing(const struct qreq *q)
{
	return q->req->act != BLOCK_WRITE;
}

static enum qstep link_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	struct qslice *e;
	unsigned index;
	int ret;

	ret = qreq_own_slice(q, &e, &index);
	if (ret)
		return qreq_wait_or_end(q, ret);
	for (uint64_t i = 0; i < q->clusters; i++) {
		uint8_t *p = e->data + (index + i) * 8;

		if (!q->reused)
			qcow2_let_go(s, load_be64(p), QFREE_OTHER);
		store_be64(p, (q->host + (i << s->cluster_bits)) | ENTRY_COPIED);
	}
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

/* The buffer has the old contents. */
static enum qstep cow_merge(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint8_t *at = q->buf->data + (q->offset & (s->cluster_size - 1));

	if (q->ret)
		return qreq_end(q, q->ret);
	if (is_zeroing(q))
		memset(at, 0, q->chunk);
	else
		iov_to_buf(q->req->iov, q->req->iovcnt, q->req->iov_skip + q->at, at, q->chunk);
	block_tell(s->file, BLOCK_EV_COW_WRITE);
	return qreq_io(q, s->data, BLOCK_WRITE, q->host, q->buf->data, s->cluster_size, written);
}

static enum qstep cow_unpacked(struct qreq *q)
{
	if (!q->ret)
		memcpy(q->buf->data, q->unpack->out, q->s->cluster_size);
	return cow_merge(q);
}

static enum qstep cow_compressed(struct qreq *q)
{
	return qreq_unpack(q, cow_unpacked);
}

bool qreq_take_buf(struct qreq *q)
{
	struct qcow2 *s = q->s;

	if (s->bufs) {
		q->buf = s->bufs;
		s->bufs = q->buf->next;
		return true;
	}
	if (s->buf_count < s->buf_max) {
		struct qbuf *buf = malloc(sizeof(*buf));

		if (buf && posix_memalign((void **)&buf->data, 4096, s->cluster_size)) {
			free(buf);
			buf = NULL;
		}
		q->buf = buf;
		s->buf_count += buf != NULL;
	}
	return q->buf != NULL;
}

static enum qstep cow_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t start = qcow2_cluster_start(s, q->offset), n;

	if (!q->buf && !qreq_take_buf(q)) {
		if (!s->buf_count)
			return qreq_end(q, -ENOMEM);
		waitq_add(&s->buf_wait, &q->waiter);
		return STEP_WAIT;
	}
	q->ret = 0;
	block_tell(s->file, BLOCK_EV_COW_READ);
	if (q->map.type == Q_DATA)
		return qreq_io(q, s->data, BLOCK_READ, qcow2_cluster_start(s, q->map.host),
			       q->buf->data, s->cluster_size, cow_merge);
	if (q->map.type == Q_COMPRESSED) {
		q->step = cow_compressed;
		return STEP_GO;
	}
	memset(q->buf->data, 0, s->cluster_size);
	if (q->map.type == Q_UNALLOCATED && below_has(s, start)) {
		n = MIN(s->cluster_size, s->node->backing->length - start);
		return qreq_io(q, s->node->backing, BLOCK_READ, start, q->buf->data, n, cow_merge);
	}
	return cow_merge(q);
}

/* The range is ours; find clusters and fill them. */
static enum qstep alloc_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t in = q->offset & (s->cluster_size - 1), end;
	bool fresh = false, whole;
	int ret;

	if (!q->reused) {
		uint64_t host, got;

		ret = qcow2_alloc(s, q->clusters, &q->waiter, &host, &got);
		if (ret)
			return qreq_wait_or_end(q, ret);
		q->host = host;
		q->clusters = got;
		q->host_taken = true;
		q->chunk = MIN(q->chunk, (got << s->cluster_bits) - in);
		fresh = s->fresh_is_zero && host >= s->fresh;
		end = host + (got << s->cluster_bits);
		s->fresh = MAX(s->fresh, end);
	}
	whole = q->chunk == q->clusters << s->cluster_bits;
	if (!whole && !(fresh && reads_zero(q, qcow2_cluster_start(s, q->offset)))) {
		q->step = cow_step;
		return STEP_GO;
	}
	block_tell(s->file, BLOCK_EV_WRITE_AIO);
	return qreq_io(q, s->data, is_zeroing(q) ? BLOCK_WRITE_ZEROES : BLOCK_WRITE, q->host + in,
		       NULL, q->chunk, written);
}

static enum qstep in_place_done(struct qreq *q)
{
	if (q->ret)
		return qreq_end(q, q->ret);
	qreq_advance(q);
	return qreq_start_of(q);
}

enum qstep qreq_write_piece(struct qreq *q, uint64_t limit)
{
	struct qcow2 *s = q->s;
	uint64_t in = q->offset & (s->cluster_size - 1), start = q->offset - in;
	struct qslice *e;
	unsigned index;
	int ret;

	ret = qcow2_map(s, q->offset, limit, &q->waiter, &q->map);
	if (ret)
		return qreq_wait_or_end(q, ret);
	q->chunk = q->map.bytes;
	if (q->map.type == Q_DATA && (q->map.copied || s->external) &&
	    (s->l1[q->offset >> (s->l2_bits + s->cluster_bits)] & ENTRY_COPIED)) {
		if (qreq_blocked(q, q->offset, q->offset + q->chunk, false))
			return STEP_WAIT;
		if (!qcow2_data_ok(s, q->map.host, q->chunk))
			return qreq_end(q, -EIO);
		range_take(&s->ranges, &q->range, q->offset, q->offset + q->chunk, false);
		q->ranged = true;
		block_tell(s->file, BLOCK_EV_WRITE_AIO);
		return qreq_io(q, s->data, is_zeroing(q) ? BLOCK_WRITE_ZEROES : BLOCK_WRITE,
			       q->map.host, NULL, q->chunk, in_place_done);
	}
	if (s->extended)
		return qsub_write(q, limit);
	ret = qcow2_own_slice(s, q->offset, &q->waiter, &e, &index);
	if (ret)
		return qreq_wait_or_end(q, ret);
	if (in || q->chunk < s->cluster_size) {
		q->clusters = 1;
		q->chunk = MIN(limit, s->cluster_size - in);
	} else {
		q->clusters = q->chunk >> s->cluster_bits;
		q->chunk = q->clusters << s->cluster_bits;
	}
	if (qreq_blocked(q, start, start + (q->clusters << s->cluster_bits), true))
		return STEP_WAIT;
	range_take(&s->ranges, &q->range, start, start + (q->clusters << s->cluster_bits), true);
	q->ranged = true;
	q->reused = s->external || (q->map.type == Q_ZERO_ALLOC && q->map.copied);
	if (q->reused && !s->external && !qcow2_data_ok(s, q->map.host, q->map.bytes))
		return qreq_end(q, -EIO);
	if (q->reused) {
		q->host = s->external ? start : q->map.host;
		q->host_taken = true;
	}
	q->step = alloc_step;
	return STEP_GO;
}

enum qstep qwrite_step(struct qreq *q)
{
	return q->left ? qreq_write_piece(q, q->left) : qreq_finish_write(q);
}

/*
 * Sets the entries of q->map's clusters, chunk bytes (the last may stick out of the disk), to what
 * change makes of them, and lets go of what they had unless change kept it.
 */
static enum qstep change_entries(struct qreq *q, uint64_t (*change)(struct qreq *q, uint64_t old))
{
	struct qcow2 *s = q->s;
	uint64_t clusters = div_round_up(q->chunk, s->cluster_size);
	struct qslice *e;
	unsigned index;
	int ret;

	if (qreq_blocked(q, q->offset, q->offset + (clusters << s->cluster_bits), true))
		return STEP_WAIT;
	ret = qreq_own_slice(q, &e, &index);
	if (ret)
		return qreq_wait_or_end(q, ret);
	for (uint64_t i = 0; i < clusters; i++) {
		uint8_t *p = e->data + (index + i) * 8;
		uint64_t old = load_be64(p), new = change(q, old);

		if (!(new &ENTRY_OFFSET))
			qcow2_let_go(s, old, QFREE_REQUEST);
		store_be64(p, new);
	}
	qcache_dirty(e);
	qreq_advance(q);
	return STEP_GO;
}

/* The cluster stays where it is unless it may be given back. */
static uint64_t zeroed(struct qreq *q, uint64_t old)
{
	if (q->s->h.version < 3)
		return 0;
	if ((old & L2_COMPRESSED) || (q->req->act_flags & BLOCK_MAY_UNMAP))
		return L2_ZERO;
	return old | L2_ZERO;
}

enum qstep qzero_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t in = q->offset & (s->cluster_size - 1), limit;
	bool to_end = q->offset + q->left == s->node->length;
	bool partial = in || (q->left < s->cluster_size && !to_end);
	int ret;

	if (s->extended)
		return qsub_zero(q);
	if (!q->left)
		return qreq_finish_write(q);
	limit = partial	 ? MIN(q->left, s->cluster_size - in)
		: to_end ? q->left
			 : qcow2_cluster_start(s, q->left);
	ret = qcow2_map(s, q->offset, limit, &q->waiter, &q->map);
	if (ret)
		return qreq_wait_or_end(q, ret);
	q->chunk = q->map.bytes;
	if (reads_zero(q, q->offset) &&
	    !(q->map.type == Q_ZERO_ALLOC && !partial && (q->req->act_flags & BLOCK_MAY_UNMAP))) {
		qreq_advance(q);
		return STEP_GO;
	}
	if (s->external && q->map.type == Q_DATA)
		return qreq_write_piece(q, limit);
	if (partial || (s->h.version < 3 && below_has(s, q->offset)))
		return qreq_write_piece(q, partial ? limit : MIN(limit, s->cluster_size));
	return change_entries(q, zeroed);
}

static uint64_t discarded(struct qreq *q, uint64_t old)
{
	return q->s->h.version >= 3 && q->s->node->backing ? L2_ZERO : 0;
}

static enum qstep discard_done(struct qreq *q)
{
	qreq_advance(q); /* a hint: its failure changes nothing */
	q->step = qdiscard_step;
	return STEP_GO;
}

/* What lies in the data file stays where it is, whatever becomes of the bytes. */
static enum qstep discard_external(struct qreq *q)
{
	struct qcow2 *s = q->s;

	if (!(s->pass_discard & 1 << QFREE_REQUEST)) {
		qreq_advance(q);
		return STEP_GO;
	}
	if (qreq_blocked(q, q->offset, q->offset + q->chunk, true))
		return STEP_WAIT;
	range_take(&s->ranges, &q->range, q->offset, q->offset + q->chunk, true);
	q->ranged = true;
	return qreq_io(q, s->data, BLOCK_DISCARD, q->map.host, NULL, q->chunk, discard_done);
}

enum qstep qdiscard_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t in = q->offset & (s->cluster_size - 1);
	bool to_end = q->offset + q->left == s->node->length;
	int ret;

	if (s->extended)
		return qsub_discard(q);
	if (!q->left)
		return qreq_finish_write(q);
	if (in || (q->left < s->cluster_size && !to_end)) {
		q->chunk = MIN(q->left, s->cluster_size - in);
		qreq_advance(q);
		return STEP_GO;
	}
	ret = qcow2_map(s, q->offset, to_end ? q->left : qcow2_cluster_start(s, q->left),
			&q->waiter, &q->map);
	if (ret)
		return qreq_wait_or_end(q, ret);
	q->chunk = q->map.bytes;
	/* In an old image with a backing file there is no way to say that nothing is there. */
	if (q->map.type == Q_UNALLOCATED || (q->map.type == Q_ZERO && s->node->backing) ||
	    (s->h.version < 3 && s->node->backing)) {
		qreq_advance(q);
		return STEP_GO;
	}
	if (s->external && q->map.type == Q_DATA)
		return discard_external(q);
	return change_entries(q, discarded);
}
