/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: each is an L1 table of its own over tables and clusters that it shares with the active
 * image. All is done in bulk while nobody else uses the node; why a power cut at any point loses
 * nothing stands in qcow2.h, rule 6.
 *
 * The active L1 table covers the disk alone: a virtual machine's state lies behind the disk's end
 * in the snapshot's table, and stays there.
 *
 * Main thread, on the caller's loop; drained.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "block/qcow2/snapshot.h"

static uint64_t l1_entries(const struct qcow2 *s, uint64_t size)
{
	return div_round_up(size, UINT64_C(1) << (s->l2_bits + s->cluster_bits));
}

static uint64_t l1_clusters(const struct qcow2 *s, uint64_t entries)
{
	return div_round_up(entries * 8, s->cluster_size);
}

/* The header's sector, wholly or not at all. After a failure nobody knows which. */
static int switch_header(struct qcow2 *s)
{
	int ret = qcow2_write_header(s);

	if (!ret)
		ret = block_flush(s->file);
	if (ret)
		s->broken = true;
	return ret;
}

static void put_dirty(struct qcow2 *s, bool dirty)
{
	if (s->h.version < 3)
		return;
	s->h.incompatible &= ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
	s->h.incompatible |= dirty ? QCOW2_INCOMPAT_DIRTY : 0;
	store_be64(s->header + QCOW2_OFF_INCOMPATIBLE, s->h.incompatible);
}

static int set_dirty(struct qcow2 *s)
{
	int ret;

	put_dirty(s, true);
	if (s->h.version < 3)
		return block_flush(s->file);
	ret = block_flush(s->file);
	return ret ? ret : switch_header(s);
}

static int set_clean(struct qcow2 *s)
{
	put_dirty(s, false);
	return s->h.version < 3 ? 0 : switch_header(s);
}

static void forget_caches(struct qcow2 *s)
{
	qcache_clear(&s->l2);
	qcache_clear(&s->refcounts);
	s->free_hint = 1;
	s->packed = 0;
}

static int write_table(struct qcow2 *s, uint64_t offset, const uint64_t *l1, uint64_t entries)
{
	uint64_t bytes = l1_clusters(s, entries) << s->cluster_bits;
	uint64_t *disk;
	int ret;

	if (!entries)
		return 0;
	disk = calloc(1, bytes);
	if (!disk)
		return -ENOMEM;
	for (uint64_t i = 0; i < entries; i++)
		disk[i] = htobe64(l1[i]);
	ret = block_pwrite(s->file, offset, disk, bytes, 0);
	free(disk);
	return ret;
}

/* A snapshot's table, with room for want entries; those that it has not are 0. */
static int load_l1(struct qcow2 *s, const struct qsnapshot *q, uint64_t want, uint64_t **l1)
{
	uint64_t bytes = q->l1_size * UINT64_C(8);
	int ret = 0;

	*l1 = NULL;
	if (bytes > QCOW2_MAX_L1_BYTES || want * 8 > QCOW2_MAX_L1_BYTES ||
	    (bytes && (!IS_ALIGNED(q->l1_offset, s->cluster_size) ||
		       !qcow2_tables_ok(s, q->l1_offset, bytes) ||
		       !range_inside(q->l1_offset, bytes, s->file->length))))
		return -EIO;
	*l1 = calloc(MAX(MAX((uint64_t)q->l1_size, want), UINT64_C(1)), 8);
	if (!*l1)
		return -ENOMEM;
	if (bytes)
		ret = block_pread(s->file, q->l1_offset, *l1, bytes);
	for (uint32_t i = 0; i < q->l1_size; i++)
		(*l1)[i] = be64toh((*l1)[i]);
	return ret;
}

static const struct block_snapshot *list(const struct block_node *node, size_t *count)
{
	const struct qcow2 *s = node->opaque;

	*count = s->snapshots.count;
	return s->snapshots.pub;
}

/* Writes the table without that entry to new clusters (none if it is empty). Counted by then. */
static int write_list(struct qcow2 *s, unsigned without, uint64_t *offset, uint64_t *bytes)
{
	uint8_t *buf = qcow2_snapshots_pack(s, without, bytes);
	uint64_t clusters = div_round_up(*bytes, s->cluster_size);
	int ret = buf ? 0 : -ENOMEM;

	*offset = 0;
	if (!ret && *bytes > QCOW2_MAX_SNAPSHOT_TABLE)
		ret = -EFBIG;
	if (!ret && clusters) {
		ret = qcow2_alloc_now(s, clusters, offset);
		if (ret)
			*offset = 0;
	}
	if (!ret)
		ret = qcow2_commit_sync(s);
	if (!ret && clusters)
		ret = block_pwrite(s->file, *offset, buf, clusters << s->cluster_bits, 0);
	if (ret && *offset) {
		qcow2_free_later(s, *offset, clusters, QFREE_SNAPSHOT);
		*offset = 0;
	}
	free(buf);
	return ret;
}

/* The header's fields for a table at offset; the old table's clusters are let go by the caller. */
static void put_list(struct qcow2 *s, unsigned count, uint64_t offset)
{
	store_be32(s->header + QCOW2_OFF_SNAPSHOTS, count);
	store_be64(s->header + QCOW2_OFF_SNAPSHOT_TABLE, offset);
}

static int list_switched(struct qcow2 *s, unsigned count, uint64_t offset, uint64_t bytes)
{
	int ret;

	if (s->snapshots.bytes)
		qcow2_free_later(s, s->h.snapshots_offset,
				 div_round_up(s->snapshots.bytes, s->cluster_size), QFREE_SNAPSHOT);
	s->h.snapshots = count;
	s->h.snapshots_offset = offset;
	s->snapshots.bytes = bytes;
	ret = qcow2_commit_sync(s);
	return ret ? ret : qcow2_overlap_read_snapshots(s);
}

/* The other file's bytes could not be kept. */
static bool has_data(const struct qcow2 *s, struct error **err)
{
	if (s->external)
		error_set(err, "Images with an external data file have no internal snapshots");
	return !s->external;
}

static char *next_id(const struct qcow2 *s)
{
	unsigned long long most = 0, id;

	for (unsigned i = 0; i < s->snapshots.count; i++) {
		id = strtoull(s->snapshots.pub[i].id, NULL, 10);
		if (id < ULLONG_MAX)
			most = MAX(most, id);
	}
	return xasprintf("%llu", most + 1);
}

/* Everything that the active image has of the disk is counted once more. */
static int share_active(struct qcow2 *s, struct qcounts *up, uint64_t entries)
{
	int ret = set_dirty(s);

	if (!ret)
		ret = qcounts_apply(up, true);
	if (!ret)
		ret = block_flush(s->file);
	if (!ret)
		ret = qcow2_flags_update(s, s->l1, entries, NULL);
	if (!ret)
		ret = write_table(s, s->h.l1_offset, s->l1, s->h.l1_size);
	if (!ret)
		ret = block_flush(s->file);
	forget_caches(s);
	return ret;
}

static int make_snapshot(struct qcow2 *s, const struct block_snapshot *info)
{
	uint64_t entries = l1_entries(s, s->h.size), offset = 0, bytes = 0;
	struct qsnapshot q = {.l1_size = entries};
	struct qcounts up = {0};
	uint64_t *copy = NULL;
	int ret = qcow2_commit_sync(s);

	if (!ret)
		ret = qcounts_init(&up, s);
	if (!ret)
		ret = qcounts_add_tree(&up, s->l1, entries);
	if (!ret)
		ret = qcounts_check(&up, true);
	if (!ret && entries)
		ret = qcow2_alloc_now(s, l1_clusters(s, entries), &q.l1_offset);
	if (ret)
		goto out;
	qcow2_snapshots_append(s, info, &q);
	ret = write_list(s, UINT_MAX, &offset, &bytes);
	copy = calloc(MAX(entries, UINT64_C(1)), 8);
	if (!ret && !copy)
		ret = -ENOMEM;
	for (uint64_t i = 0; !ret && i < entries; i++)
		copy[i] = s->l1[i] & ~ENTRY_COPIED;
	if (!ret && entries)
		ret = write_table(s, q.l1_offset, copy, entries);
	if (!ret) {
		ret = share_active(s, &up, entries);
	} else {
		if (entries)
			qcow2_free_later(s, q.l1_offset, l1_clusters(s, entries), QFREE_SNAPSHOT);
		if (offset)
			qcow2_free_later(s, offset, div_round_up(bytes, s->cluster_size), QFREE_SNAPSHOT);
	}
	if (!ret) {
		put_dirty(s, false);
		put_list(s, s->snapshots.count, offset);
		ret = switch_header(s);
	}
	if (!ret)
		ret = list_switched(s, s->snapshots.count, offset, bytes);
	else
		qcow2_snapshots_remove(s, s->snapshots.count - 1);
out:
	qcounts_free(&up);
	free(copy);
	return ret;
}

static bool create(struct block_node *node, const struct block_snapshot *info, struct error **err)
{
	struct qcow2 *s = node->opaque;
	struct block_snapshot sn = *info;
	int ret = -EIO;

	if (!has_data(s, err))
		return false;
	if (s->h.snapshots >= QCOW2_MAX_SNAPSHOTS || strlen(sn.name) > UINT16_MAX) {
		error_set(err, s->h.snapshots >= QCOW2_MAX_SNAPSHOTS ? "Too many snapshots"
								     : "Name is too long");
		return false;
	}
	sn.id = next_id(s);
	sn.vm_state_bytes = 0;
	sn.disk_size = s->h.size;
	if (!s->broken)
		ret = make_snapshot(s, &sn);
	free(sn.id);
	if (ret)
		error_set_errno(err, ret, "Could not create snapshot '%s'", sn.name);
	return !ret;
}

static int drop_snapshot(struct qcow2 *s, unsigned index)
{
	struct qsnapshot *q = &s->snapshots.more[index];
	uint64_t *l1 = NULL, offset, bytes;
	struct qcounts down = {0};
	int ret = qcow2_commit_sync(s);

	if (!ret)
		ret = load_l1(s, q, 0, &l1);
	if (!ret)
		ret = qcounts_init(&down, s);
	if (!ret)
		ret = qcounts_add_tree(&down, l1, q->l1_size);
	if (!ret)
		ret = qcounts_add(&down, q->l1_offset, q->l1_size * UINT64_C(8));
	if (!ret)
		ret = qcounts_check(&down, false);
	if (!ret)
		ret = write_list(s, index, &offset, &bytes);
	if (!ret)
		ret = block_flush(s->file);
	if (ret)
		goto out;
	put_dirty(s, true);
	put_list(s, s->snapshots.count - 1, offset);
	ret = switch_header(s);
	if (ret)
		goto out;
	qcow2_snapshots_remove(s, index);
	ret = qcow2_flags_update(s, s->l1, s->h.l1_size, &down);
	if (!ret)
		ret = write_table(s, s->h.l1_offset, s->l1, s->h.l1_size);
	if (!ret)
		ret = block_flush(s->file);
	if (!ret)
		ret = qcounts_apply(&down, false);
	if (!ret)
		ret = block_flush(s->file);
	forget_caches(s);
	if (!ret && (s->pass_discard & 1 << QFREE_SNAPSHOT))
		qcounts_discard(&down);
	if (!ret)
		ret = list_switched(s, s->snapshots.count, offset, bytes);
	if (!ret)
		ret = set_clean(s);
out:
	qcounts_free(&down);
	free(l1);
	return ret;
}

static bool drop(struct block_node *node, const struct block_snapshot *sn, struct error **err)
{
	struct qcow2 *s = node->opaque;
	char *name;
	int ret;

	if (!has_data(s, err))
		return false;
	name = xstrdup(sn->name);
	ret = s->broken ? -EIO : drop_snapshot(s, sn - s->snapshots.pub);
	if (ret)
		error_set_errno(err, ret, "Could not delete snapshot '%s'", name);
	free(name);
	return !ret;
}

/* The tables in memory become l1's, which is taken. */
static bool take_l1(struct qcow2 *s, uint64_t *l1, uint64_t entries, uint64_t offset, uint64_t size)
{
	uint8_t *dirty = calloc(entries / 64 + 1, 1);

	if (!dirty)
		return false;
	free(s->l1);
	free(s->l1_dirty);
	s->l1 = l1;
	qcow2_guard_drop(s);
	s->l1_dirty = dirty;
	s->h.l1_size = entries;
	s->h.l1_offset = offset;
	s->h.size = size;
	qcache_clear(&s->l2);
	return true;
}

int qcow2_release(struct qcow2 *s, struct qcounts *down)
{
	int ret = qcounts_check(down, false);

	if (!ret)
		ret = qcounts_apply(down, false);
	if (!ret)
		ret = block_flush(s->file);
	forget_caches(s);
	if (!ret && (s->pass_discard & 1 << QFREE_SNAPSHOT))
		qcounts_discard(down);
	return ret;
}

static int share_snapshot(struct qcow2 *s, struct qcounts *up, uint64_t *l1, uint64_t entries)
{
	int ret = set_dirty(s);

	if (!ret)
		ret = qcounts_apply(up, true);
	if (!ret)
		ret = block_flush(s->file);
	if (!ret)
		ret = qcow2_flags_update(s, l1, entries, NULL);
	if (!ret)
		ret = block_flush(s->file);
	forget_caches(s);
	return ret;
}

static int go_back(struct qcow2 *s, unsigned index)
{
	uint64_t size = s->snapshots.pub[index].disk_size, entries, host = 0, *l1 = NULL;
	struct qcounts up = {0}, down = {0};
	int ret;

	if (size > INT64_MAX - 511)
		return -EFBIG;
	entries = MAX(l1_entries(s, size), UINT64_C(1));
	ret = qcow2_commit_sync(s);
	if (!ret)
		ret = load_l1(s, &s->snapshots.more[index], entries, &l1);
	for (uint64_t i = 0; !ret && i < entries; i++)
		l1[i] &= ~ENTRY_COPIED;
	if (!ret)
		ret = qcounts_init(&up, s);
	if (!ret)
		ret = qcounts_add_tree(&up, l1, entries);
	if (!ret)
		ret = qcounts_check(&up, true);
	if (!ret)
		ret = qcounts_init(&down, s);
	if (!ret)
		ret = qcounts_add_tree(&down, s->l1, s->h.l1_size);
	if (!ret)
		ret = qcounts_add(&down, s->h.l1_offset, s->h.l1_size * UINT64_C(8));
	if (!ret)
		ret = qcounts_check(&down, false);
	if (!ret)
		ret = qcow2_alloc_now(s, l1_clusters(s, entries), &host);
	if (!ret) {
		ret = qcow2_commit_sync(s);
		if (!ret)
			ret = write_table(s, host, l1, entries);
		if (ret)
			qcow2_free_later(s, host, l1_clusters(s, entries), QFREE_SNAPSHOT);
	}
	if (!ret)
		ret = share_snapshot(s, &up, l1, entries);
	if (!ret) {
		store_be64(s->header + QCOW2_OFF_SIZE, size);
		store_be64(s->header + QCOW2_OFF_L1, host);
		store_be32(s->header + QCOW2_OFF_L1_SIZE, entries);
		ret = switch_header(s);
	}
	if (!ret && !take_l1(s, l1, entries, host, size)) {
		s->broken = true; /* the disk has it; we cannot go on here */
		ret = -ENOMEM;
	}
	if (!ret) {
		l1 = NULL;
		ret = qcow2_release(s, &down);
		if (!ret)
			ret = set_clean(s);
	}
	qcounts_free(&up);
	qcounts_free(&down);
	free(l1);
	return ret;
}

static bool apply(struct block_node *node, const struct block_snapshot *sn, struct error **err)
{
	struct qcow2 *s = node->opaque;
	int ret;

	if (!has_data(s, err))
		return false;
	ret = s->broken ? -EIO : go_back(s, sn - s->snapshots.pub);
	block_set_length(node, ALIGN_DOWN(s->h.size, 512));
	if (ret)
		error_set_errno(err, ret, "Could not apply snapshot '%s'", sn->name);
	return !ret;
}

static bool show(struct block_node *node, const struct block_snapshot *sn, struct error **err)
{
	struct qcow2 *s = node->opaque;
	const struct qsnapshot *q = &s->snapshots.more[sn - s->snapshots.pub];
	uint64_t *l1, entries;
	int ret = -EFBIG;

	if (!has_data(s, err))
		return false;
	if (sn->disk_size <= INT64_MAX - 511) {
		entries = l1_entries(s, sn->disk_size);
		ret = load_l1(s, q, entries, &l1);
		if (!ret && !take_l1(s, l1, entries, q->l1_offset, sn->disk_size))
			ret = -ENOMEM;
		if (ret)
			free(l1);
	}
	if (ret)
		error_set_errno(err, ret, "Could not open snapshot '%s'", sn->name);
	else
		block_set_length(node, ALIGN_DOWN(s->h.size, 512));
	return !ret;
}

const struct block_snapshot_ops qcow2_snapshot_ops = {
	.list = list,
	.create = create,
	.apply = apply,
	.remove = drop,
	.show = show,
};
