/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Refcounts: which clusters are in use ("Host cluster management" in the format's document).
 *
 * Free clusters are found from s->free_hint upwards. A refcount block that is missing is put at the
 * first cluster that it counts itself, and a table that is too short moves to the first cluster
 * that it did not cover, with the blocks that count it in front: both lie where nothing can be yet.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2.h"

/* L2 entries have room for 56 bits of offset. */
#define HOST_MAX (UINT64_C(1) << 55)
/* Full ones that are gone through at once. */
enum { SCAN_SLICES = 16 };

uint64_t refcount_get(const uint8_t *block, unsigned order, uint64_t index)
{
	switch (order) {
	case 3:
		return block[index];
	case 4:
		return load_be16(block + index * 2);
	case 5:
		return load_be32(block + index * 4);
	case 6:
		return load_be64(block + index * 8);
	default: { /* 1, 2 or 4 bits, from the least significant on */
		unsigned bits = 1u << order, shift = index * bits % 8;

		return block[index * bits / 8] >> shift & ((1u << bits) - 1);
	}
	}
}

void refcount_set(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
	switch (order) {
	case 3:
		block[index] = value;
		break;
	case 4:
		store_be16(block + index * 2, value);
		break;
	case 5:
		store_be32(block + index * 4, value);
		break;
	case 6:
		store_be64(block + index * 8, value);
		break;
	default: {
		unsigned bits = 1u << order, shift = index * bits % 8;
		uint8_t *p = &block[index * bits / 8];

		*p = (*p & ~(((1u << bits) - 1) << shift)) | value << shift;
	}
	}
}

/* The slice that counts the cluster, and where in it; -ENOENT if there is no block. */
static int get_slice(struct qcow2 *s, uint64_t cluster, struct waiter *w, struct qslice **e,
		     uint64_t *index)
{
	unsigned slice_entry_bits = s->refcounts.slice_bits + 3 - s->h.refcount_order;
	uint64_t block, in_block = cluster & ((UINT64_C(1) << s->block_bits) - 1), offset;

	block = cluster >> s->block_bits;
	if (block >= s->reftable_size || !(s->reftable[block] & ~REFTABLE_RESERVED))
		return -ENOENT;
	offset = s->reftable[block];
	if (!IS_ALIGNED(offset, s->cluster_size) || !qcow2_host_ok(s, offset, s->cluster_size)) {
		qcow2_mark_corrupt(s, "Refblock offset 0x%llx invalid (reftable index: 0x%llx)",
				   (unsigned long long)offset, (unsigned long long)block);
		return -EIO;
	}
	*index = in_block & ((UINT64_C(1) << slice_entry_bits) - 1);
	return qcache_get(&s->refcounts, offset + (in_block >> slice_entry_bits << s->refcounts.slice_bits),
			  w, e);
}

void qcow2_job_end(struct qcow2 *s, int ret)
{
	free(s->job.buf);
	s->job.buf = NULL;
	s->job.busy = false;
	waitq_move(&s->runq, &s->job.waiters, ret);
	qcow2_run_waiters(s);
}

void qcow2_job_io_done(struct block_req *req, int ret)
{
	struct qcow2 *s = req->ctx;

	block_idle(s->node);
	if (!ret && req->op == BLOCK_WRITE)
		s->unsynced = true;
	s->job.next(s, ret);
}

void qcow2_job_wake(struct waiter *w)
{
	struct qcow2 *s = container_of(w, struct qcow2, job.waiter);
	int ret = w->error;

	w->error = 0;
	block_idle(s->node);
	s->job.next(s, ret);
}

void qcow2_job_io(struct qcow2 *s, enum block_op op, uint64_t offset, void *buf, uint64_t bytes,
		  void (*next)(struct qcow2 *s, int ret))
{
	s->job.next = next;
	block_busy(s->node);
	qcow2_file_io(s, s->job.req, op, offset, &s->job.iov, buf, bytes);
}

/* Runs next again when the metadata may change. True: it may now. */
bool qcow2_job_thawed(struct qcow2 *s, void (*next)(struct qcow2 *s, int ret))
{
	if (!s->frozen)
		return true;
	s->job.next = next;
	block_busy(s->node);
	waitq_add(&s->thawed, &s->job.waiter);
	return false;
}

/* A missing refcount block */

static void block_written(struct qcow2 *s, int ret)
{
	if (ret) {
		qcow2_job_end(s, ret);
		return;
	}
	if (!qcow2_job_thawed(s, block_written))
		return;
	s->reftable[s->job.index] = s->job.host;
	qcow2_guard_add(s, s->job.host, s->job.index, true);
	s->reftable_dirty[s->job.index / 64] = 1;
	s->any_reftable_dirty = true;
	s->fresh = MAX(s->fresh, s->job.host + s->cluster_size);
	qcow2_job_end(s, 0);
}

/* Whether nothing can be there, as is when everything is counted that is in use. */
static bool place_ok(struct qcow2 *s, uint64_t host, uint64_t bytes)
{
	return qcow2_host_ok(s, host, bytes) && !qcow2_overlaps(s, host, bytes);
}

static int make_block(struct qcow2 *s, uint64_t index, struct waiter *w)
{
	struct qjob *job = &s->job;

	if (posix_memalign((void **)&job->buf, 4096, s->cluster_size))
		return -ENOMEM;
	memset(job->buf, 0, s->cluster_size);
	refcount_set(job->buf, s->h.refcount_order, 0, 1);
	job->busy = true;
	job->index = index;
	job->host = index << (s->block_bits + s->cluster_bits);
	waitq_add(&job->waiters, w);
	if (!place_ok(s, job->host, s->cluster_size)) {
		qcow2_mark_corrupt(s, "No refcount block covers the metadata at 0x%llx",
				   (unsigned long long)job->host);
		waitq_add(&s->runq, waitq_pop(&job->waiters));
		w->error = -EIO;
		free(job->buf);
		job->buf = NULL;
		job->busy = false;
		qcow2_run_soon(s);
		return -EAGAIN;
	}
	block_tell(s->file, BLOCK_EV_REFBLOCK_ALLOC_WRITE);
	qcow2_job_io(s, BLOCK_WRITE, job->host, job->buf, s->cluster_size, block_written);
	return -EAGAIN;
}

/* A refcount table that is too short */

static void table_switched(struct qcow2 *s, int ret)
{
	struct qjob *job = &s->job;
	uint64_t entries = job->tables << (s->cluster_bits - 3);
	uint64_t old_offset = s->h.reftable_offset, old_clusters = s->h.reftable_clusters;
	uint64_t *table;
	uint8_t *dirty;

	if (ret) {
		/* Which of the two the disk has is not known: both stay counted, and nothing goes
		 * on. */
		s->broken = true;
		qcow2_job_end(s, ret);
		return;
	}
	if (!qcow2_job_thawed(s, table_switched))
		return;
	table = realloc(s->reftable, entries * 8);
	if (table)
		s->reftable = table;
	dirty = realloc(s->reftable_dirty, div_round_up(entries, 64));
	if (dirty)
		s->reftable_dirty = dirty;
	if (!table || !dirty) {
		s->broken = true; /* the new table is good; we just cannot go on here */
		qcow2_job_end(s, -ENOMEM);
		return;
	}
	memset(table + s->reftable_size, 0, (entries - s->reftable_size) * 8);
	memset(dirty + div_round_up(s->reftable_size, 64), 0,
	       div_round_up(entries, 64) - div_round_up(s->reftable_size, 64));
	for (uint64_t i = 0; i < job->blocks; i++)
		table[s->reftable_size + i] = job->host + (i << s->cluster_bits);
	s->reftable_size = entries;
	s->h.reftable_offset = load_be64(s->header + QCOW2_OFF_REFTABLE);
	s->h.reftable_clusters = job->tables;
	s->fresh = MAX(s->fresh, job->host + ((job->blocks + job->tables) << s->cluster_bits));
	qcow2_guard_drop(s);
	qcow2_free_later(s, old_offset, old_clusters, QFREE_OTHER);
	qcow2_job_end(s, 0);
}

static void header_written(struct qcow2 *s, int ret)
{
	if (ret) {
		table_switched(s, ret);
		return;
	}
	qcow2_job_io(s, BLOCK_FLUSH, 0, NULL, 0, table_switched);
}

static void table_synced(struct qcow2 *s, int ret)
{
	struct qjob *job = &s->job;

	if (ret) {
		qcow2_job_end(s, ret);
		return;
	}
	store_be64(s->header + QCOW2_OFF_REFTABLE, job->host + (job->blocks << s->cluster_bits));
	store_be32(s->header + QCOW2_OFF_REFTABLE_CLUSTERS, job->tables);
	memcpy(job->buf, s->header, sizeof(s->header));
	block_tell(s->file, BLOCK_EV_REFBLOCK_ALLOC_SWITCH_TABLE);
	qcow2_job_io(s, BLOCK_WRITE, 0, job->buf, sizeof(s->header), header_written);
}

static void table_written(struct qcow2 *s, int ret)
{
	if (ret) {
		qcow2_job_end(s, ret);
		return;
	}
	qcow2_job_io(s, BLOCK_FLUSH, 0, NULL, 0, table_synced);
}

static int grow_table(struct qcow2 *s, struct waiter *w)
{
	struct qjob *job = &s->job;
	unsigned order = s->h.refcount_order;
	uint64_t per_block = UINT64_C(1) << s->block_bits, per_table = s->cluster_size / 8;
	uint64_t tables, blocks = 0, need, bytes, entry;

	/* Half as many again, and the blocks that count the new ones. */
	tables = MAX(s->h.reftable_clusters + s->h.reftable_clusters / 2,
		     s->h.reftable_clusters + UINT64_C(1));
	do {
		need = blocks;
		blocks = div_round_up(tables + need, per_block);
		if (tables * per_table < s->reftable_size + blocks)
			tables = div_round_up(s->reftable_size + blocks, per_table);
	} while (blocks != need);
	job->host = (uint64_t)s->reftable_size << (s->block_bits + s->cluster_bits);
	if (tables << s->cluster_bits > QCOW2_MAX_REFTABLE_BYTES || job->host >= HOST_MAX)
		return -EFBIG;
	if (!qcow2_frees_room(s, 1)) {
		qcow2_commit(s, w);
		return -EAGAIN;
	}
	bytes = (tables + blocks) << s->cluster_bits;
	if (!place_ok(s, job->host, bytes)) {
		qcow2_mark_corrupt(s, "No refcount block covers the metadata behind 0x%llx",
				   (unsigned long long)job->host);
		return -EIO;
	}
	if (posix_memalign((void **)&job->buf, 4096, bytes))
		return -ENOMEM;
	memset(job->buf, 0, bytes);
	for (uint64_t i = 0; i < tables + blocks; i++)
		refcount_set(job->buf + ((i >> s->block_bits) << s->cluster_bits), order,
			     i & (per_block - 1), 1);
	for (uint64_t i = 0; i < s->reftable_size + blocks; i++) {
		entry = i < s->reftable_size
				? s->reftable[i]
				: job->host + ((i - s->reftable_size) << s->cluster_bits);
		store_be64(job->buf + (blocks << s->cluster_bits) + i * 8, entry);
	}
	job->busy = true;
	job->blocks = blocks;
	job->tables = tables;
	waitq_add(&job->waiters, w);
	block_tell(s->file, BLOCK_EV_REFBLOCK_ALLOC_WRITE_TABLE);
	qcow2_job_io(s, BLOCK_WRITE, job->host, job->buf, bytes, table_written);
	return -EAGAIN;
}

/* How many of the want clusters from index on in the slice are free. */
static uint64_t free_run(const struct qcow2 *s, const struct qslice *e, uint64_t index,
			 uint64_t want)
{
	uint64_t end = UINT64_C(1) << (s->refcounts.slice_bits + 3 - s->h.refcount_order), n = 0;

	while (n < want && index + n < end &&
	       !refcount_get(e->data, s->h.refcount_order, index + n))
		n++;
	return n;
}

/* A corrupt image may count as free what is in use: not with our help. */
static bool check_run(struct qcow2 *s, uint64_t cluster, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t host = (cluster + i) << s->cluster_bits;

		if (!qcow2_overlaps(s, host, s->cluster_size))
			continue;
		qcow2_mark_corrupt(s, "Preventing invalid allocation of metadata at offset 0x%llx",
				   (unsigned long long)host);
		return false;
	}
	return true;
}

int qcow2_alloc(struct qcow2 *s, uint64_t want, struct waiter *w, uint64_t *host, uint64_t *got)
{
	unsigned slices = 0;
	struct qslice *e;
	uint64_t index, n = 0;
	int ret;

	if (s->frozen) {
		waitq_add(&s->thawed, w);
		return -EAGAIN;
	}
	if (qcow2_needs_mark(s))
		return qcow2_mark_dirty(s, w);
	block_tell(s->file, BLOCK_EV_CLUSTER_ALLOC);
	for (;;) {
		uint64_t per_slice = UINT64_C(1) << (s->refcounts.slice_bits + 3 - s->h.refcount_order);

		if (s->free_hint >= HOST_MAX >> s->cluster_bits)
			return -EFBIG;
		/* An image may have one full block in all of a large table: others' turn. */
		if (slices++ == SCAN_SLICES) {
			waitq_add(&s->later, w);
			qcow2_run_soon(s);
			return -EAGAIN;
		}
		ret = get_slice(s, s->free_hint, w, &e, &index);
		if (ret == -ENOENT) {
			if (s->job.busy) {
				waitq_add(&s->job.waiters, w);
				return -EAGAIN;
			}
			if (s->free_hint >> s->block_bits >= s->reftable_size)
				return grow_table(s, w);
			block_tell(s->file, BLOCK_EV_REFBLOCK_ALLOC);
			return make_block(s, s->free_hint >> s->block_bits, w);
		}
		if (ret)
			return ret;
		while (index < per_slice && !(n = free_run(s, e, index, want))) {
			index++;
			s->free_hint++;
		}
		if (index < per_slice)
			break;
	}
	if (e->writing) {
		waitq_add(&e->waiters, w);
		return -EAGAIN;
	}
	if (!check_run(s, s->free_hint, n))
		return -EIO;
	for (uint64_t i = 0; i < n; i++)
		refcount_set(e->data, s->h.refcount_order, index + i, 1);
	qcache_dirty(e);
	*host = s->free_hint << s->cluster_bits;
	*got = n;
	s->free_hint += n;
	return 0;
}

int qcow2_refcount_raise(struct qcow2 *s, uint64_t cluster, struct waiter *w)
{
	uint64_t index, count, max = UINT64_MAX >> (64 - (1u << s->h.refcount_order));
	struct qslice *e;
	int ret;

	if (s->frozen) {
		waitq_add(&s->thawed, w);
		return -EAGAIN;
	}
	ret = get_slice(s, cluster, w, &e, &index);
	if (ret)
		return ret == -ENOENT ? -EIO : ret;
	count = refcount_get(e->data, s->h.refcount_order, index);
	if (!count)
		return -EIO;
	if (count == max)
		return -EOVERFLOW;
	if (e->writing) {
		waitq_add(&e->waiters, w);
		return -EAGAIN;
	}
	refcount_set(e->data, s->h.refcount_order, index, count + 1);
	qcache_dirty(e);
	return 0;
}

int qcow2_refcount_lower(struct qcow2 *s, uint64_t cluster, struct waiter *w, bool peek,
			 uint64_t *left)
{
	struct qslice *e;
	uint64_t index, count;
	int ret = get_slice(s, cluster, w, &e, &index);

	if (ret)
		return ret == -ENOENT ? -EIO : ret;
	count = refcount_get(e->data, s->h.refcount_order, index);
	if (!count)
		return -EIO; /* a corrupt image let go of it twice; check tells */
	*left = count - 1;
	if (peek)
		return 0;
	if (e->writing) {
		waitq_add(&e->waiters, w);
		return -EAGAIN;
	}
	block_tell(s->file, BLOCK_EV_CLUSTER_FREE);
	refcount_set(e->data, s->h.refcount_order, index, count - 1);
	qcache_dirty(e);
	if (count == 1) {
		qcache_forget(&s->l2, cluster << s->cluster_bits);
		if (s->packed >> s->cluster_bits == cluster)
			s->packed = 0;
		s->free_hint = MIN(s->free_hint, cluster);
	}
	return 0;
}
