/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest's request goes through: steps that run to their end, and waits between them. Reads
 * and flushes are here, what changes the image in write.c.
 *
 * A step that finds something missing queues the request on what it waits for and is run again from
 * its beginning; nothing is changed before everything needed is at hand. Wakes go to a run queue
 * that is worked off outside of any step.
 *
 * Thread: the node's loop.
 */
#include "block/qcow2/request.h"

#include <errno.h>
#include <stdlib.h>

#include "block/crypt/crypt_io.h"

static void run(struct qreq *q)
{
	while (q->step(q) == STEP_GO)
		;
}

static void wake(struct waiter *w)
{
	struct qreq *q = container_of(w, struct qreq, waiter);
	int error = w->error;

	w->error = 0;
	if (error) {
		qreq_end(q, error);
		return;
	}
	run(q);
}

void qcow2_run_waiters(struct qcow2 *s)
{
	struct waiter *w;

	if (s->running)
		return;
	s->running = true;
	do {
		while ((w = waitq_pop(&s->runq)))
			w->fn(w);
		qcow2_commit_poll(s);
	} while (s->runq.first);
	s->running = false;
}

void qcow2_run_soon(struct qcow2 *s)
{
	evloop_post(s->node->loop, &s->run_work);
}

void qreq_drop_range(struct qreq *q)
{
	if (q->ranged)
		range_drop(&q->range, &q->s->runq);
	q->ranged = false;
}

static void drop_buf(struct qreq *q)
{
	struct qcow2 *s = q->s;

	if (!q->buf)
		return;
	q->buf->next = s->bufs;
	s->bufs = q->buf;
	q->buf = NULL;
	waitq_move(&s->runq, &s->buf_wait, 0);
}

enum qstep qreq_end(struct qreq *q, int ret)
{
	if (q->host_taken) {
		/* It was never linked. */
		if (!q->reused)
			qcow2_free_later(q->s, q->host, q->clusters, QFREE_OTHER);
		q->host_taken = false;
	}
	qreq_drop_range(q);
	drop_buf(q);
	qreq_drop_pack(q);
	block_complete(q->req, ret);
	return STEP_WAIT;
}

enum qstep qreq_wait_or_end(struct qreq *q, int ret)
{
	return ret == -EAGAIN ? STEP_WAIT : qreq_end(q, ret);
}

bool qreq_blocked(struct qreq *q, uint64_t start, uint64_t end, bool exclusive)
{
	struct range *other = range_conflict(&q->s->ranges, start, end, exclusive);

	if (other)
		waitq_add(&other->waiters, &q->waiter);
	return other != NULL;
}

void qreq_resume(struct qreq *q)
{
	struct qcow2 *s = q->s;

	run(q);
	if (s->runq.first || s->commit_wanted)
		qcow2_run_waiters(s);
}

static void child_done(struct block_req *child, int ret)
{
	struct qreq *q = child->ctx;
	struct qcow2 *s = q->s;

	q->ret = ret;
	if (child->node == s->data && child->op != BLOCK_READ && child->op != BLOCK_FLUSH)
		*(s->external ? &s->data_unsynced : &s->unsynced) = true;
	qreq_resume(q);
}

enum qstep qreq_io(struct qreq *q, struct block_node *child_node, enum block_op op, uint64_t offset,
		   void *buf, uint64_t bytes, enum qstep (*step)(struct qreq *q))
{
	struct block_req *child = block_child_req(q->req);

	q->step = step;
	child->node = child_node;
	child->op = op;
	child->flags = 0;
	/* Only the data file's own clusters may become holes: others are found by their counts. */
	if (q->s->external && op == BLOCK_WRITE_ZEROES)
		child->flags = q->req->act_flags & BLOCK_MAY_UNMAP;
	child->offset = offset;
	child->bytes = bytes;
	child->done = child_done;
	child->ctx = q;
	if (q->s->guest_iv && child_node == q->s->data)
		crypt_io_set_iv(child, qcow2_cluster_start(q->s, q->offset) +
					       (offset & (q->s->cluster_size - 1)));
	if (buf) {
		q->iov = (struct iovec){buf, bytes};
		child->iov = &q->iov;
		child->iovcnt = 1;
		block_submit_at(child, 0);
	} else {
		child->iov = q->req->iov;
		child->iovcnt = q->req->iovcnt;
		block_submit_at(child, q->req->iov_skip + q->at);
	}
	return STEP_WAIT;
}

int qreq_own_slice(struct qreq *q, struct qslice **e, unsigned *index)
{
	struct qcow2 *s = q->s;

	if (s->frozen) {
		waitq_add(&s->thawed, &q->waiter);
		return -EAGAIN;
	}
	if (!qcow2_frees_room(s, 4)) {
		qcow2_commit(s, &q->waiter);
		return -EAGAIN;
	}
	return qcow2_own_slice(s, q->offset, &q->waiter, e, index);
}

void qreq_advance(struct qreq *q)
{
	q->offset += q->chunk;
	q->at += q->chunk;
	q->left -= q->chunk;
	drop_buf(q);
	qreq_drop_range(q);
}

/* Reading */

static enum qstep read_step(struct qreq *q);

static enum qstep read_done(struct qreq *q)
{
	if (q->ret)
		return qreq_end(q, q->ret);
	qreq_advance(q);
	q->step = read_step;
	return STEP_GO;
}

static enum qstep read_unpacked(struct qreq *q)
{
	struct qcow2 *s = q->s;

	if (!q->ret)
		iov_from_buf(q->req->iov, q->req->iovcnt, q->req->iov_skip + q->at,
			     q->unpack->out + (q->offset & (s->cluster_size - 1)), q->chunk);
	return read_done(q);
}

static enum qstep read_compressed(struct qreq *q)
{
	return qreq_unpack(q, read_unpacked);
}

static enum qstep read_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	struct block_node *backing = s->node->backing;
	int ret;

	if (!q->left)
		return qreq_end(q, 0);
	ret = qcow2_map(s, q->offset, q->left, &q->waiter, &q->map);
	if (ret)
		return qreq_wait_or_end(q, ret);
	q->chunk = q->map.bytes;
	if (q->map.type == Q_UNALLOCATED && backing && q->offset < backing->length) {
		q->chunk = MIN(q->chunk, backing->length - q->offset);
		q->req->act_flags |= BLOCK_FROM_BELOW;
		block_tell(s->file, BLOCK_EV_READ_BACKING_AIO);
		return qreq_io(q, backing, BLOCK_READ, q->offset, NULL, q->chunk, read_done);
	}
	if (q->map.type != Q_DATA && q->map.type != Q_COMPRESSED) {
		block_iov_zero(q->req->iov, q->req->iovcnt, q->req->iov_skip + q->at, q->chunk);
		qreq_advance(q);
		return STEP_GO;
	}
	if (qreq_blocked(q, q->offset, q->offset + q->chunk, false))
		return STEP_WAIT;
	range_take(&s->ranges, &q->range, q->offset, q->offset + q->chunk, false);
	q->ranged = true;
	if (q->map.type == Q_DATA) {
		block_tell(s->file, BLOCK_EV_READ_AIO);
		return qreq_io(q, s->data, BLOCK_READ, q->map.host, NULL, q->chunk, read_done);
	}
	q->step = read_compressed;
	return STEP_GO;
}

/* Flushing */

static enum qstep end_step(struct qreq *q)
{
	return qreq_end(q, q->ret);
}

static enum qstep flush_image(struct qreq *q)
{
	struct qcow2 *s = q->s;

	q->ret = 0;
	block_tell(s->file, BLOCK_EV_FLUSH_TO_OS);
	if (!qcow2_is_dirty(s))
		return qreq_io(q, s->file, BLOCK_FLUSH, 0, NULL, 0, end_step);
	q->step = end_step;
	qcow2_commit(s, &q->waiter);
	return STEP_WAIT;
}

static enum qstep data_flushed(struct qreq *q)
{
	return q->ret ? qreq_end(q, q->ret) : flush_image(q);
}

static enum qstep flush_step(struct qreq *q)
{
	if (q->s->external)
		return qreq_io(q, q->s->data, BLOCK_FLUSH, 0, NULL, 0, data_flushed);
	return flush_image(q);
}

enum qstep qreq_finish_write(struct qreq *q)
{
	if (!(q->req->act_flags & BLOCK_FUA))
		return qreq_end(q, 0);
	q->step = flush_step;
	return STEP_GO;
}

void qcow2_submit(struct block_node *node, struct block_req *req)
{
	static enum qstep (*const first[])(struct qreq * q) = {
		[BLOCK_READ] = read_step,	   [BLOCK_WRITE] = qwrite_step,
		[BLOCK_FLUSH] = flush_step,	   [BLOCK_DISCARD] = qdiscard_step,
		[BLOCK_WRITE_ZEROES] = qzero_step,
	};
	struct qcow2 *s = node->opaque;
	struct qreq *q = block_ctx(req);

	if (s->broken || !s->data) {
		block_complete(req, -EIO);
		return;
	}
	/* Zeroes are metadata only where clusters can be zero by themselves. */
	if (((s->external || s->h.crypt_method) && (req->act_flags & BLOCK_COMPRESSED)) ||
	    ((s->external || s->h.version < 3) && (req->act_flags & BLOCK_NO_FALLBACK))) {
		block_complete(req, -ENOTSUP);
		return;
	}
	q->req = req;
	q->s = s;
	q->waiter.fn = wake;
	q->waiter.error = 0;
	q->ranged = q->reused = q->host_taken = false;
	q->step = first[req->act];
	if (req->act == BLOCK_WRITE && (req->act_flags & BLOCK_COMPRESSED))
		q->step = qpack_step;
	q->offset = req->offset;
	q->left = req->bytes;
	q->at = 0;
	q->buf = NULL;
	q->pack = NULL;
	if (s->bm.unmarked && req->act != BLOCK_READ && req->act != BLOCK_FLUSH &&
	    !(req->act_flags & BLOCK_UNCHANGED)) {
		waitq_add(&s->bm.waiters, &q->waiter);
		qcow2_bitmaps_mark(s);
	} else {
		run(q);
	}
	if (s->runq.first || s->commit_wanted)
		qcow2_run_waiters(s);
}
