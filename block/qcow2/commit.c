/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commits: metadata goes to the disk in the order that qcow2.h argues for. One at a time; whoever
 * asks while one is under way is served by the next.
 *
 *   frozen:  sync, refcount table -> refcounts -> sync -> L2 slices, L1
 *   then:    sync -> clusters let go before the freeze lose their refcount
 *
 * With lazy refcounts (lazy.c) nothing is done before the L2 slices but the sync.
 * A step with nothing to write is left out, and so is a sync with no write since the last one.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2.h"

static void step_on(struct qcow2 *s);

/* Refcounts can wait. */
static bool is_lazy(const struct qcow2 *s)
{
	return s->lazy && !s->full_commit && (s->h.incompatible & QCOW2_INCOMPAT_DIRTY);
}

bool qcow2_is_dirty(const struct qcow2 *s)
{
	return s->any_l1_dirty || s->l2.dirty || s->frees->count || s->step != COMMIT_IDLE ||
	       ((s->any_reftable_dirty || s->refcounts.dirty) && !is_lazy(s));
}

static void thaw(struct qcow2 *s)
{
	s->frozen = false;
	waitq_move(&s->runq, &s->thawed, 0);
}

/* Waiters hear of it; what could not be written stays dirty. */
static void commit_failed(struct qcow2 *s, int ret)
{
	s->step = COMMIT_IDLE;
	/* Not yet durable, so not yet free: back to the list. They were taken from it, so that as
	 * many fit as are not there by now; what does not fit leaks. */
	for (unsigned i = 0; i < s->freeing->count; i++)
		qcow2_free_later(s, s->freeing->items[i].offset, s->freeing->items[i].clusters,
				 s->freeing->items[i].kind);
	s->freeing->count = 0;
	thaw(s);
	waitq_move(&s->runq, &s->commit_now, ret);
	block_idle(s->node);
	if (s->commit_wanted) {
		s->commit_wanted = false;
		waitq_move(&s->runq, &s->commit_next, ret);
	}
	qcow2_run_soon(s);
}

static void begin(struct qcow2 *s)
{
	struct qfree_list *list = s->freeing;

	s->commit_wanted = false;
	waitq_move(&s->commit_now, &s->commit_next, 0);
	s->freeing = s->frees; /* which is empty while a commit begins */
	s->frees = list;
	s->freeing_at = 0;
	s->freeing_done = 0;
	s->freeing_discarded = 0;
	s->frozen = true;
	s->commit_at = 0;
	s->data_synced = COMMIT_IDLE;
	s->step = COMMIT_TABLE_SYNC;
	block_busy(s->node);
	step_on(s);
}

void qcow2_commit(struct qcow2 *s, struct waiter *w)
{
	if (w)
		waitq_add(&s->commit_next, w);
	s->commit_wanted = true;
	if (s->step == COMMIT_IDLE)
		qcow2_run_soon(s); /* begins there: never inside a step that changes metadata */
}

/* Called from the run queue's end. */
void qcow2_commit_poll(struct qcow2 *s)
{
	if (s->commit_wanted && s->step == COMMIT_IDLE)
		begin(s);
}

void qcow2_commit_written(struct qcow2 *s, int ret)
{
	if (ret)
		s->commit_error = ret;
	if (--s->commit_writes)
		return;
	ret = s->commit_error;
	s->commit_error = 0;
	if (ret) {
		commit_failed(s, ret);
		return;
	}
	s->step++;
	step_on(s);
}

void qcow2_commit_io_done(struct block_req *req, int ret)
{
	struct qcow2 *s = req->ctx;

	if (req->op == BLOCK_DISCARD) {
		s->freeing_discarded = req->offset; /* a hint: its failure changes nothing */
		step_on(s);
		return;
	}
	if (req->op == BLOCK_FLUSH && ret)
		s->unsynced = true;
	if (req->op == BLOCK_WRITE && !ret)
		s->unsynced = true;
	if (ret && s->step == COMMIT_TABLE) {
		s->any_reftable_dirty = true;
		s->reftable_dirty[s->commit_at] = 1;
	} else if (ret && s->step == COMMIT_L1) {
		s->any_l1_dirty = true;
		s->l1_dirty[s->commit_at] = 1;
	}
	if (ret) {
		commit_failed(s, ret);
		return;
	}
	if (s->step != COMMIT_TABLE && s->step != COMMIT_L1)
		s->step++;
	step_on(s);
}

/* True: a sync is under way. */
static bool start_sync(struct qcow2 *s)
{
	if (qcow2_sync_data(s))
		return true;
	if (!s->unsynced)
		return false;
	s->unsynced = false;
	block_tell(s->file, BLOCK_EV_FLUSH_TO_OS);
	qcow2_file_io(s, s->commit_req, BLOCK_FLUSH, 0, NULL, NULL, 0);
	return true;
}

void qcow2_commit_data_synced(struct qcow2 *s, int ret)
{
	if (ret)
		commit_failed(s, ret);
	else
		step_on(s); /* the same step: now the image itself */
}

/* The next dirty piece of a table of entries. True: a write is under way. */
static bool write_piece(struct qcow2 *s, const uint64_t *table, uint64_t offset, uint32_t entries,
			uint8_t *dirty)
{
	uint32_t pieces = div_round_up(entries, 64), n;

	while (s->commit_at < pieces && !dirty[s->commit_at])
		s->commit_at++;
	if (s->commit_at == pieces)
		return false;
	dirty[s->commit_at] = 0;
	n = MIN(64u, entries - s->commit_at * 64);
	for (uint32_t i = 0; i < n; i++)
		store_be64(s->commit_buf + i * 8, table[s->commit_at * 64 + i]);
	block_tell(s->file,
		   table == s->l1 ? BLOCK_EV_L1_UPDATE : BLOCK_EV_REFTABLE_UPDATE);
	qcow2_file_io(s, s->commit_req, BLOCK_WRITE, offset + s->commit_at * UINT64_C(512),
		      &s->commit_iov, s->commit_buf, n * 8);
	return true;
}

static bool write_slices(struct qcow2 *s, struct qcache *c)
{
	/* One more than are written, so that an early end does not count as the last. */
	s->commit_writes = 1;
	s->commit_error = 0;
	s->commit_writes += qcache_write_all(c);
	if (s->commit_writes == 1)
		return false;
	qcow2_commit_written(s, 0);
	return true;
}

/* One cluster of the list. False: it waits. */
static bool free_one(struct qcow2 *s)
{
	struct qfree *f = &s->freeing->items[s->freeing_at];
	uint64_t offset = f->offset + (s->freeing_done << s->cluster_bits), left;
	int ret = s->freeing_waiter.error;

	s->freeing_waiter.error = 0;
	if (!ret)
		ret = qcow2_refcount_lower(s, offset >> s->cluster_bits, &s->freeing_waiter, true,
					   &left);
	if (!ret && !left && (s->pass_discard & 1u << f->kind) && s->freeing_discarded != offset) {
		/* It stays counted until that is done, but nothing more may be packed into it. */
		if (s->packed >> s->cluster_bits == offset >> s->cluster_bits)
			s->packed = 0;
		qcow2_file_io(s, s->commit_req, BLOCK_DISCARD, offset, NULL, NULL, s->cluster_size);
		return false;
	}
	if (!ret)
		ret = qcow2_refcount_lower(s, offset >> s->cluster_bits, &s->freeing_waiter, false,
					   &left);
	if (ret == -EAGAIN)
		return false;
	/* Otherwise it failed: the cluster stays counted, a leak. */
	if (++s->freeing_done == f->clusters) {
		s->freeing_at++;
		s->freeing_done = 0;
	}
	return true;
}

void qcow2_freeing_wake(struct waiter *w)
{
	step_on(container_of(w, struct qcow2, freeing_waiter));
}

static void ended(struct qcow2 *s)
{
	s->freeing->count = 0;
	s->step = COMMIT_IDLE;
	block_idle(s->node);
	qcow2_run_soon(s);
}

/* Goes on from s->step until something is under way. */
static void step_on(struct qcow2 *s)
{
	for (;; s->step++) {
		switch (s->step) {
		case COMMIT_IDLE:
			return;
		case COMMIT_TABLE_SYNC:
			if (is_lazy(s))
				s->step = COMMIT_REFCOUNTS;
			else if (s->any_reftable_dirty && start_sync(s))
				return;
			break;
		case COMMIT_TABLE:
			if (s->any_reftable_dirty &&
			    write_piece(s, s->reftable, s->h.reftable_offset, s->reftable_size,
					s->reftable_dirty))
				return;
			s->any_reftable_dirty = false;
			break;
		case COMMIT_REFCOUNTS:
			if (write_slices(s, &s->refcounts))
				return;
			break;
		case COMMIT_SYNC:
			if ((s->l2.dirty || s->any_l1_dirty) && start_sync(s))
				return;
			break;
		case COMMIT_L2:
			s->commit_at = 0;
			if (write_slices(s, &s->l2))
				return;
			break;
		case COMMIT_L1: /* a new table was written whole, and is durable since the sync */
			if (s->any_l1_dirty &&
			    write_piece(s, s->l1, s->h.l1_offset, s->h.l1_size, s->l1_dirty))
				return;
			s->any_l1_dirty = false;
			break;
		case COMMIT_LAST_SYNC:
			thaw(s);
			qcow2_run_soon(s);
			if (start_sync(s))
				return;
			break;
		case COMMIT_FREES:
			if (s->commit_now.first) {
				waitq_move(&s->runq, &s->commit_now, 0);
				qcow2_run_soon(s); /* it need not wait for what follows */
			}
			while (s->freeing_at < s->freeing->count)
				if (!free_one(s))
					return;
			ended(s);
			return;
		}
	}
}

bool qcow2_frees_room(const struct qcow2 *s, unsigned items)
{
	/* Room is kept for a commit that fails and hands its list back. */
	return s->frees->count + items + s->freeing->count <= QCOW2_FREES;
}

void qcow2_free_later(struct qcow2 *s, uint64_t offset, uint64_t clusters, enum qfree_kind kind)
{
	struct qfree_list *l = s->frees;
	struct qfree *last = l->count ? &l->items[l->count - 1] : NULL;

	if (last && last->kind == kind && last->offset + (last->clusters << s->cluster_bits) == offset)
		last->clusters += clusters;
	else if (l->count < QCOW2_FREES)
		l->items[l->count++] = (struct qfree){offset, clusters, kind};
}

struct sync_wait {
	struct waiter waiter;
	bool done;
};

static void sync_wake(struct waiter *w)
{
	container_of(w, struct sync_wait, waiter)->done = true;
}

static int commit_all(struct qcow2 *s)
{
	/* Frees of one commit make refcounts dirty for the next. */
	for (int round = 0; round < 4; round++) {
		struct sync_wait wait = {.waiter.fn = sync_wake};

		if (!qcow2_is_dirty(s) && !s->unsynced && !s->data_unsynced)
			return 0;
		qcow2_commit(s, &wait.waiter);
		while (!wait.done)
			evloop_run_once(s->node->loop, -1);
		while (s->step != COMMIT_IDLE)
			evloop_run_once(s->node->loop, -1);
		if (wait.waiter.error)
			return wait.waiter.error;
	}
	return 0;
}

int qcow2_commit_sync(struct qcow2 *s)
{
	int ret;

	/* A lazy one that is under way would not count as full. */
	while (s->step != COMMIT_IDLE)
		evloop_run_once(s->node->loop, -1);
	s->full_commit = true;
	ret = commit_all(s);
	s->full_commit = false;
	return ret;
}
