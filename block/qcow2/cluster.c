/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From guest offsets to host clusters ("Cluster mapping" in the format's document), and L2 tables
 * that the active image may change: missing ones are made, those that snapshots share are copied.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2.h"

enum qtype qcow2_entry_type(const struct qcow2 *s, uint64_t entry)
{
	if (entry & L2_COMPRESSED)
		return Q_COMPRESSED;
	if ((entry & L2_ZERO) && s->h.version >= 3 && !s->extended)
		return entry & ENTRY_OFFSET ? Q_ZERO_ALLOC : Q_ZERO;
	/* The data file has a cluster at 0. */
	if (s->external && (entry & ENTRY_COPIED))
		return Q_DATA;
	return entry & ENTRY_OFFSET ? Q_DATA : Q_UNALLOCATED;
}

void qcow2_compressed_range(const struct qcow2 *s, uint64_t entry, uint64_t *offset,
			    uint64_t *bytes)
{
	unsigned shift = 62 - (s->cluster_bits - 8);
	uint64_t sectors = ((entry >> shift) & ((UINT64_C(1) << (s->cluster_bits - 8)) - 1)) + 1;

	*offset = entry & ((UINT64_C(1) << shift) - 1);
	*bytes = sectors * 512 - (*offset & 511);
}

/* Where the L2 table of that L1 entry is; 0 if there is none. False: the image is corrupt. */
static bool table_offset(struct qcow2 *s, uint64_t l1_index, uint64_t *table)
{
	uint64_t entry = s->l1[l1_index];

	*table = entry & ENTRY_OFFSET;
	if (!*table && !(entry & L1_RESERVED))
		return true;
	if ((entry & L1_RESERVED) || !IS_ALIGNED(*table, s->cluster_size) ||
	    !qcow2_host_ok(s, *table, s->cluster_size)) {
		qcow2_mark_corrupt(s, "L2 table offset 0x%llx invalid (L1 index: 0x%llx)",
				   (unsigned long long)*table, (unsigned long long)l1_index);
		return false;
	}
	return true;
}

static int get_slice(struct qcow2 *s, uint64_t table, uint64_t l2_index, struct waiter *w,
		     struct qslice **e, unsigned *index)
{
	unsigned bits = s->l2.slice_bits - s->entry_bits;

	*index = l2_index & ((1u << bits) - 1);
	return qcache_get(&s->l2, table + (l2_index >> bits << s->l2.slice_bits), w, e);
}

/* Whether a cluster of data may lie there. */
static bool data_ok(const struct qcow2 *s, uint64_t entry, uint64_t host)
{
	if (s->external)
		return !(entry & L2_COMPRESSED) && IS_ALIGNED(host, s->cluster_size);
	return !host ||
	       (IS_ALIGNED(host, s->cluster_size) && qcow2_host_ok(s, host, s->cluster_size));
}

static bool entry_ok(struct qcow2 *s, uint64_t entry, uint64_t guest)
{
	uint64_t host = entry & ENTRY_OFFSET;

	if ((entry & L2_COMPRESSED) && !s->external)
		return true; /* any offset can be read, and none is written */
	if (!data_ok(s, entry, host)) {
		qcow2_mark_corrupt(s,
				   "Cluster allocation offset 0x%llx unaligned or on metadata "
				   "(guest offset: 0x%llx)",
				   (unsigned long long)host, (unsigned long long)guest);
		return false;
	}
	return true;
}

int qcow2_map(struct qcow2 *s, uint64_t offset, uint64_t bytes, struct waiter *w, struct qmap *map)
{
	uint64_t cluster = offset >> s->cluster_bits, in = offset & (s->cluster_size - 1);
	uint64_t l1_index = cluster >> s->l2_bits, table, entry, last, left;
	unsigned index, end = 1u << (s->l2.slice_bits - s->entry_bits);
	struct qslice *e;
	int ret;

	if (l1_index >= s->h.l1_size)
		return -EIO;
	if (!table_offset(s, l1_index, &table))
		return -EIO;
	if (!table) {
		left = (UINT64_C(1) << (s->l2_bits + s->cluster_bits)) -
		       (offset & ((UINT64_C(1) << (s->l2_bits + s->cluster_bits)) - 1));
		*map = (struct qmap){.type = Q_UNALLOCATED, .bytes = MIN(bytes, left)};
		return 0;
	}
	ret = get_slice(s, table, cluster & ((UINT64_C(1) << s->l2_bits) - 1), w, &e, &index);
	if (ret)
		return ret;
	entry = load_be64(e->data + ((size_t)index << s->entry_bits));
	if (!entry_ok(s, entry, offset))
		return -EIO;
	if (s->extended)
		return qsub_map(s, e, index, offset, bytes, map);
	map->type = qcow2_entry_type(s, entry);
	map->copied = entry & ENTRY_COPIED;
	map->entry = entry;
	map->host = entry & ENTRY_OFFSET;
	if (map->type == Q_DATA)
		map->host += in;
	left = s->cluster_size - in;
	/* What follows in the same way belongs to the run; compressed clusters stand alone. */
	while (left < bytes && ++index < end && map->type != Q_COMPRESSED) {
		last = entry;
		entry = load_be64(e->data + index * 8);
		if (qcow2_entry_type(s, entry) != map->type ||
		    (entry & ENTRY_COPIED) != (last & ENTRY_COPIED))
			break;
		if ((map->type == Q_DATA || map->type == Q_ZERO_ALLOC) &&
		    ((entry & ENTRY_OFFSET) != (last & ENTRY_OFFSET) + s->cluster_size ||
		     !data_ok(s, entry, entry & ENTRY_OFFSET)))
			break;
		left += s->cluster_size;
	}
	map->bytes = MIN(bytes, left);
	return 0;
}

/* Making a table */

static void table_written(struct qcow2 *s, int ret)
{
	struct qjob *job = &s->job;

	if (ret) {
		qcow2_free_later(s, job->host, 1, QFREE_OTHER);
		qcow2_job_end(s, ret);
		return;
	}
	if (!qcow2_job_thawed(s, table_written))
		return;
	s->l1[job->index] = job->host | ENTRY_COPIED;
	qcow2_guard_add(s, job->host, job->index, false);
	s->l1_dirty[job->index / 64] = 1;
	s->any_l1_dirty = true;
	if (job->old)
		qcow2_free_later(s, job->old, 1, QFREE_OTHER);
	qcow2_job_end(s, 0);
}

static void old_read(struct qcow2 *s, int ret)
{
	struct qjob *job = &s->job;

	if (ret) {
		table_written(s, ret);
		return;
	}
	block_tell(s->file, BLOCK_EV_L2_ALLOC_WRITE);
	qcow2_job_io(s, BLOCK_WRITE, job->host, job->buf, s->cluster_size, table_written);
}

/* The job is free and a cluster is there: no more waiting before the I/O. */
static int make_table(struct qcow2 *s, uint64_t l1_index, uint64_t old, struct waiter *w)
{
	struct qjob *job = &s->job;
	uint64_t host, got;
	uint8_t *buf;
	int ret;

	if (!qcow2_frees_room(s, 2)) {
		qcow2_commit(s, w);
		return -EAGAIN;
	}
	if (posix_memalign((void **)&buf, 4096, s->cluster_size))
		return -ENOMEM;
	ret = qcow2_alloc(s, 1, w, &host, &got);
	if (ret) {
		free(buf);
		return ret;
	}
	s->fresh = MAX(s->fresh, host + s->cluster_size);
	memset(buf, 0, s->cluster_size);
	job->buf = buf;
	job->busy = true;
	job->index = l1_index;
	job->host = host;
	job->old = old;
	waitq_add(&job->waiters, w);
	block_tell(s->file, old ? BLOCK_EV_L2_ALLOC_COW_READ : BLOCK_EV_L2_ALLOC_WRITE);
	if (old)
		qcow2_job_io(s, BLOCK_READ, old, buf, s->cluster_size, old_read);
	else
		qcow2_job_io(s, BLOCK_WRITE, host, buf, s->cluster_size, table_written);
	return -EAGAIN;
}

int qcow2_own_slice(struct qcow2 *s, uint64_t offset, struct waiter *w, struct qslice **out,
		    unsigned *index)
{
	uint64_t cluster = offset >> s->cluster_bits, l1_index = cluster >> s->l2_bits, table;

	if (l1_index >= s->h.l1_size || !table_offset(s, l1_index, &table))
		return -EIO;
	if (!table || !(s->l1[l1_index] & ENTRY_COPIED)) {
		if (s->job.busy) {
			waitq_add(&s->job.waiters, w);
			return -EAGAIN;
		}
		return make_table(s, l1_index, table, w);
	}
	return get_slice(s, table, cluster & ((UINT64_C(1) << s->l2_bits) - 1), w, out, index);
}

void qcow2_let_go(struct qcow2 *s, uint64_t entry, enum qfree_kind kind)
{
	uint64_t offset, bytes, first, last;

	switch (qcow2_entry_type(s, entry)) {
	case Q_COMPRESSED:
		qcow2_compressed_range(s, entry, &offset, &bytes);
		first = qcow2_cluster_start(s, offset);
		last = qcow2_cluster_start(s, offset + bytes - 1);
		qcow2_free_later(s, first, ((last - first) >> s->cluster_bits) + 1, kind);
		qunpack_forget(s, entry);
		break;
	case Q_DATA:
	case Q_ZERO_ALLOC:
		if (s->external)
			break; /* not counted, and not reused */
		qcow2_free_later(s, entry & ENTRY_OFFSET, 1, kind);
		break;
	default:
		break;
	}
}
