/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed reads: the pool's threads decompress, several clusters at once if several requests are
 * under way. What was decompressed last is kept, for the next request of a guest that reads a
 * cluster in pieces, until something else needs the room or the cluster is let go.
 *
 * A request holds its range meanwhile, so nobody lets go of a cluster that is being decompressed.
 *
 * Thread: the node's loop; inflate_job() runs on the pool's threads and touches its struct qunpack.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/qcow2/request.h"

/* Bytes that clusters being decompressed may take together, if that is enough for two. */
enum { ROOM = 8 << 20, UNPACKS = 16 };

void qunpack_init(struct qcow2 *s)
{
	/* While all processors decompress, another two are read. */
	unsigned long want = MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L) + 2;

	s->unpack_max = MIN(MIN(want, (unsigned long)UNPACKS), MAX(ROOM / (3 * s->cluster_size), 2u));
}

static void free_unpack(struct qunpack *u)
{
	qcow2_inflate_end(u);
	free(u->in);
	free(u->out);
	free(u);
}

void qunpack_destroy(struct qcow2 *s)
{
	struct qunpack *u;

	while ((u = s->unpacks)) {
		s->unpacks = u->next;
		free_unpack(u);
	}
	s->unpack_count = 0;
}

void qunpack_forget(struct qcow2 *s, uint64_t entry)
{
	for (struct qunpack *u = s->unpacks; u; u = u->next)
		if (!u->busy && (!entry || u->entry == entry))
			u->entry = 0;
}

static struct qunpack *new_unpack(struct qcow2 *s)
{
	struct qunpack *u = s->unpack_count < s->unpack_max ? calloc(1, sizeof(*u)) : NULL;

	if (!u)
		return NULL;
	u->s = s;
	u->in = malloc(2 * s->cluster_size);
	u->out = malloc(s->cluster_size);
	if (!u->in || !u->out) {
		free_unpack(u);
		return NULL;
	}
	s->unpack_count++;
	return u;
}

/* The one that has the entry; or a new one; or one that is idle, the longest unused; or NULL. */
static struct qunpack *take_unpack(struct qcow2 *s, uint64_t entry)
{
	struct qunpack **at, **found = NULL, *u;

	for (at = &s->unpacks; *at; at = &(*at)->next) {
		if ((*at)->entry == entry) {
			found = at;
			break;
		}
		if (!(*at)->busy)
			found = at;
	}
	u = !found || (*found)->entry != entry ? new_unpack(s) : NULL;
	if (!u && found) {
		u = *found;
		*found = u->next;
	}
	if (!u)
		return NULL;
	u->next = s->unpacks;
	s->unpacks = u;
	return u;
}

static enum qstep unpacked(struct qreq *q)
{
	struct qunpack *u = q->unpack;

	u->busy = false;
	if (q->ret)
		u->entry = 0;
	waitq_move(&q->s->runq, &u->waiters, 0);
	waitq_move(&q->s->runq, &q->s->unpack_wait, 0);
	q->step = q->after_unpack;
	return STEP_GO;
}

static int inflate_job(struct pool_job *job)
{
	struct qunpack *u = container_of(job, struct qunpack, job);

	return qcow2_inflate(u->s, u);
}

static void inflated(struct pool_job *job, int ret)
{
	struct qreq *q = container_of(job, struct qunpack, job)->q;

	q->ret = ret;
	q->step = unpacked;
	qreq_resume(q);
}

static enum qstep packed_read(struct qreq *q)
{
	struct qunpack *u = q->unpack;

	if (q->ret)
		return unpacked(q);
	u->job.fn = inflate_job;
	u->job.done = inflated;
	pool_submit(qcow2_pool(q->s), &u->job);
	return STEP_WAIT;
}

enum qstep qreq_unpack(struct qreq *q, enum qstep (*step)(struct qreq *q))
{
	struct qcow2 *s = q->s;
	struct qunpack *u = take_unpack(s, q->map.entry);
	uint64_t offset, bytes;

	if (!u && !s->unpack_count)
		return qreq_end(q, -ENOMEM);
	if (!u || u->busy) {
		waitq_add(u ? &u->waiters : &s->unpack_wait, &q->waiter);
		return STEP_WAIT;
	}
	q->unpack = u;
	q->ret = 0;
	if (u->entry == q->map.entry)
		return step(q);
	qcow2_compressed_range(s, q->map.entry, &offset, &bytes);
	u->q = q;
	u->entry = q->map.entry;
	u->busy = true;
	u->in_len = bytes;
	q->after_unpack = step;
	block_tell(s->file, BLOCK_EV_READ_COMPRESSED);
	return qreq_io(q, s->file, BLOCK_READ, offset, u->in, bytes, packed_read);
}
