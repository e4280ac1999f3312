/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots, and counting many references at once; for block/qcow2/ only.
 */
#ifndef BLOCK_QCOW2_SNAPSHOT_H
#define BLOCK_QCOW2_SNAPSHOT_H

#include "block/qcow2/qcow2.h"

enum { QCOW2_MAX_SNAPSHOT_EXTRA = 1024, QCOW2_MAX_SNAPSHOT_TABLE = 64 << 20 };

/* snapshot.c */
extern const struct block_snapshot_ops qcow2_snapshot_ops;

/* snapshot_table.c: s->snapshots from the disk, and the other way. */
int qcow2_snapshots_read(struct qcow2 *s, struct error **err);
void qcow2_snapshots_free(struct qcow2 *s);
/* Copies sn's strings; q's extra becomes the table's. */
void qcow2_snapshots_append(struct qcow2 *s, const struct block_snapshot *sn,
			    const struct qsnapshot *q);
void qcow2_snapshots_remove(struct qcow2 *s, unsigned index);
/* The table's bytes, in a buffer of whole clusters; NULL without memory. without: an index to leave
 * out, or UINT_MAX. */
uint8_t *qcow2_snapshots_pack(const struct qcow2 *s, unsigned without, uint64_t *bytes);

/*
 * counts.c: how often clusters are referred to by a tree of tables, and changing the refcounts on
 * the disk by that, block after block. Nothing else uses the image meanwhile, no metadata is dirty,
 * and the caches are cleared by whoever changed the disk.
 */
struct qcounts {
	struct qcow2 *s;
	uint32_t block_count;
	uint32_t **blocks; /* one for each refcount block; NULL: nothing counted there */
	uint8_t *table;	   /* one cluster */
};

int qcounts_init(struct qcounts *c, struct qcow2 *s);
void qcounts_free(struct qcounts *c);
/* One reference to each cluster of the range. -EIO: outside of the file. */
int qcounts_add(struct qcounts *c, uint64_t offset, uint64_t bytes);
/* Everything below n L1 entries. -EIO: a table leads nowhere. */
int qcounts_add_tree(struct qcounts *c, const uint64_t *l1, uint64_t n);
/* Whether the counts can go up or down by that. -EIO: the refcounts are wrong; -EOVERFLOW. Going
 * down, remembers which will be 1. */
int qcounts_check(struct qcounts *c, bool up);
/* Whether a cluster's count was lowered and will be 1. */
bool qcounts_becomes_one(const struct qcounts *c, uint64_t offset);
/* Changes the disk's counts; not synced. */
int qcounts_apply(struct qcounts *c, bool up);
/* Gives what fell to 0 to the host. */
void qcounts_discard(struct qcounts *c);

/* Checks and lowers, durably; nothing refers to that any more. Clears the caches. */
int qcow2_release(struct qcow2 *s, struct qcounts *down);

/* Sets the COPIED flags below n entries of an L1 table, on the disk: all off (lowered NULL), or on
 * where a count becomes one. l1 itself is changed in memory. */
int qcow2_flags_update(struct qcow2 *s, uint64_t *l1, uint64_t n, const struct qcounts *lowered);

#endif
