/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed writes: whole clusters that the pool's threads compress, several at once if several
 * requests are under way, and that then lie one behind the other in the file at any byte.
 *
 * A host cluster may hold the data of several guest clusters. Each counts it once, so that the
 * order of things is that of plain clusters (qcow2.h): the count goes up, the data is written, the
 * entry is set; and what an entry let go is counted down by a commit. s->packed is where the last
 * cluster has room yet; it is forgotten when that cluster's count falls to 0.
 *
 * Thread: the node's loop; deflate_job() runs on the pool's threads and touches its struct qpack.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/request.h"

static int deflate_job(struct pool_job *job)
{
	struct qpack *p = container_of(job, struct qpack, job);

	return qcow2_deflate(p->s, p);
}

void qpack_free(struct qpack *p)
{
	qcow2_deflate_end(p);
	free(p->in);
	free(p->out);
	free(p);
}

struct pool *qcow2_pool(struct qcow2 *s)
{
	if (!s->pool) {
		s->pool = pool_new();
		pool_attach(s->pool, s->node->loop);
	}
	return s->pool;
}

static struct qpack *take_pack(struct qcow2 *s)
{
	struct qpack *p = s->packs;

	if (p) {
		s->packs = p->next;
		return p;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->s = s;
	if (posix_memalign((void **)&p->in, 4096, s->cluster_size))
		p->in = NULL;
	if (posix_memalign((void **)&p->out, 4096, s->cluster_size))
		p->out = NULL;
	if (p->in && p->out)
		return p;
	qpack_free(p);
	return NULL;
}

void qreq_drop_pack(struct qreq *q)
{
	if (!q->pack)
		return;
	q->pack->next = q->s->packs;
	q->s->packs = q->pack;
	q->pack = NULL;
}

/* Compression has won nothing: an ordinary cluster. */
static enum qstep plain_step(struct qreq *q)
{
	return qreq_write_piece(q, MIN(q->left, q->s->cluster_size));
}

static enum qstep link_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	unsigned shift = 62 - (s->cluster_bits - 8), index;
	uint64_t sectors = ((q->pack->at + q->pack->len - 1) >> 9) - (q->pack->at >> 9);
	struct qslice *e;
	uint8_t *p;
	int ret;

	ret = qreq_own_slice(q, &e, &index);
	if (ret)
		return qreq_wait_or_end(q, ret);
	p = e->data + ((size_t)index << s->entry_bits);
	qcow2_let_go(s, load_be64(p), QFREE_OTHER);
	if (s->extended)
		store_be64(p + 8, 0);
	store_be64(p, L2_COMPRESSED | sectors << shift | q->pack->at);
	qcache_dirty(e);
	q->host_taken = false;
	qreq_drop_pack(q);
	qreq_advance(q);
	q->step = qpack_step;
	return STEP_GO;
}

static enum qstep written(struct qreq *q)
{
	if (q->ret)
		return qreq_end(q, q->ret);
	q->step = link_step;
	return STEP_GO;
}

static enum qstep write_at(struct qreq *q, uint64_t at)
{
	struct qcow2 *s = q->s;
	uint64_t end = at + q->pack->len;

	s->packed = end & (s->cluster_size - 1) ? end : 0;
	q->pack->at = at;
	block_tell(s->file, BLOCK_EV_WRITE_COMPRESSED);
	return qreq_io(q, s->file, BLOCK_WRITE, at, q->pack->out, q->pack->len, written);
}

/* There is a new cluster; if it lies behind the last one the data may begin there. */
static enum qstep join_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t last = qcow2_cluster_start(s, s->packed);
	int ret;

	if (s->packed && last + s->cluster_size == q->host) {
		ret = qcow2_refcount_raise(s, last >> s->cluster_bits, &q->waiter);
		if (!ret) {
			q->host = last;
			q->clusters = 2;
			return write_at(q, s->packed);
		}
		if (ret != -EOVERFLOW)
			return qreq_wait_or_end(q, ret);
	}
	return write_at(q, q->host);
}

static enum qstep place_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t last = qcow2_cluster_start(s, s->packed), host, got;
	int ret = -EOVERFLOW;

	if (s->packed && q->pack->len <= last + s->cluster_size - s->packed)
		ret = qcow2_refcount_raise(s, last >> s->cluster_bits, &q->waiter);
	if (!ret) {
		q->host = last;
		q->clusters = 1;
		q->host_taken = true;
		return write_at(q, s->packed);
	}
	if (ret == -EOVERFLOW)
		ret = qcow2_alloc(s, 1, &q->waiter, &host, &got);
	if (ret)
		return qreq_wait_or_end(q, ret);
	/* The entry has fewer bits for the place than a plain one. */
	if ((host + s->cluster_size) >> (62 - (s->cluster_bits - 8))) {
		qcow2_free_later(s, host, 1, QFREE_OTHER);
		return qreq_end(q, -EFBIG);
	}
	q->host = host;
	q->clusters = 1;
	q->host_taken = true;
	s->fresh = MAX(s->fresh, host + s->cluster_size);
	q->step = join_step;
	return STEP_GO;
}

static void deflated(struct pool_job *job, int ret)
{
	struct qreq *q = container_of(job, struct qpack, job)->q;

	q->ret = ret;
	q->step = place_step;
	if (ret == -E2BIG) {
		q->ret = 0;
		qreq_drop_pack(q);
		qreq_drop_range(q);
		q->step = plain_step;
	}
	qreq_resume(q);
}

enum qstep qpack_step(struct qreq *q)
{
	struct qcow2 *s = q->s;
	uint64_t in = q->offset & (s->cluster_size - 1);
	struct qpack *p;

	if (!q->left)
		return qreq_finish_write(q);
	if (in || (q->left < s->cluster_size && q->offset + q->left != s->node->length))
		return qreq_end(q, -EINVAL);
	if (qreq_blocked(q, q->offset, q->offset + s->cluster_size, true))
		return STEP_WAIT;
	p = take_pack(s);
	if (!p)
		return qreq_end(q, -ENOMEM);
	range_take(&s->ranges, &q->range, q->offset, q->offset + s->cluster_size, true);
	q->ranged = true;
	q->reused = false;
	q->pack = p;
	q->chunk = MIN(q->left, s->cluster_size);
	iov_to_buf(q->req->iov, q->req->iovcnt, q->req->iov_skip + q->at, p->in, q->chunk);
	memset(p->in + q->chunk, 0, s->cluster_size - q->chunk);
	p->q = q;
	p->job.fn = deflate_job;
	p->job.done = deflated;
	pool_submit(qcow2_pool(s), &p->job);
	return STEP_WAIT;
}
