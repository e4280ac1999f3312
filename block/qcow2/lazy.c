/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lazy refcounts: while the image is marked dirty on the disk, commits write no refcounts; they go
 * out when the cache lets go of them, when the image is closed, and before anything that relies on
 * them. Whoever opens a dirty image counts all references anew, so that after a power cut the
 * refcounts are of no account.
 *
 * The mark is durable before the first cluster is given out (refcount.c), and goes away behind
 * everything else.
 *
 * Thread: the node's loop; qcow2_mark_clean() as commit_sync.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2.h"

bool qcow2_needs_mark(const struct qcow2 *s)
{
	return s->lazy && !(s->h.incompatible & QCOW2_INCOMPAT_DIRTY);
}

static void put_mark(struct qcow2 *s, bool dirty)
{
	uint64_t bits = s->h.incompatible & ~(uint64_t)QCOW2_INCOMPAT_DIRTY;

	store_be64(s->header + QCOW2_OFF_INCOMPATIBLE, dirty ? bits | QCOW2_INCOMPAT_DIRTY : bits);
}

static void mark_synced(struct qcow2 *s, int ret)
{
	if (ret) {
		put_mark(s, false);
	} else {
		s->h.incompatible |= QCOW2_INCOMPAT_DIRTY;
		s->marked = true;
	}
	qcow2_job_end(s, ret);
}

static void mark_written(struct qcow2 *s, int ret)
{
	if (ret)
		mark_synced(s, ret);
	else
		qcow2_job_io(s, BLOCK_FLUSH, 0, NULL, 0, mark_synced);
}

int qcow2_mark_dirty(struct qcow2 *s, struct waiter *w)
{
	struct qjob *job = &s->job;

	if (!job->busy) {
		if (posix_memalign((void **)&job->buf, 4096, sizeof(s->header))) {
			job->buf = NULL;
			return -ENOMEM;
		}
		job->busy = true;
		put_mark(s, true);
		memcpy(job->buf, s->header, sizeof(s->header));
		waitq_add(&job->waiters, w);
		qcow2_job_io(s, BLOCK_WRITE, 0, job->buf, sizeof(s->header), mark_written);
	} else {
		waitq_add(&job->waiters, w);
	}
	return -EAGAIN;
}

int qcow2_mark_clean(struct qcow2 *s)
{
	int ret = qcow2_commit_sync(s);

	if (ret || !s->marked)
		return ret;
	s->marked = false;
	if (!(s->h.incompatible & QCOW2_INCOMPAT_DIRTY))
		return 0; /* a snapshot or a check has done it */
	put_mark(s, false);
	s->h.incompatible &= ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
	ret = qcow2_write_header(s);
	return ret ? ret : block_flush(s->file);
}
