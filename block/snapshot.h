/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots inside an image (qcow2): states of the disk, perhaps with a virtual machine's, that the
 * image keeps beside the one in use.
 *
 * Main thread, synchronous: the node is drained, on a loop that the caller runs, and nobody submits
 * meanwhile. Each function leaves the image as it was or with the change durable; when the host
 * fails on the way, what remains is at worst space that a check gives back.
 */
#ifndef BLOCK_SNAPSHOT_H
#define BLOCK_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"

struct block_node;

#define BLOCK_SNAPSHOT_NO_ICOUNT UINT64_MAX

struct block_snapshot {
	char *id;   /* unique in the image; "1", "2", ... */
	char *name; /* the user's; may be "" */
	uint64_t vm_state_bytes;
	uint64_t date_sec; /* since 1970 */
	uint32_t date_nsec;
	uint64_t vm_clock_ns;
	uint64_t icount;    /* or BLOCK_SNAPSHOT_NO_ICOUNT */
	uint64_t disk_size; /* bytes, when it was taken */
};

/* Whether the node's format has snapshots at all. */
bool block_has_snapshots(const struct block_node *node);
/* In the image's order; lives until the list changes or the node closes. */
const struct block_snapshot *block_snapshots(const struct block_node *node, size_t *count);
/* The first with that id, or else the first with that name; NULL if there is none. */
const struct block_snapshot *block_snapshot_find(const struct block_node *node,
						 const char *id_or_name);
/* By id, by name, or both: what is NULL does not matter. */
const struct block_snapshot *block_snapshot_find_both(const struct block_node *node, const char *id,
						      const char *name);

/* Keeps the disk as it is now. name as given (may be taken already); the id is the next free one;
 * date 0: now. vm_state_bytes is 0. */
bool block_snapshot_create(struct block_node *node, const struct block_snapshot *info,
			   struct error **err);
/* The disk becomes what it was, in size too; the snapshot stays. */
bool block_snapshot_apply(struct block_node *node, const struct block_snapshot *sn,
			  struct error **err);
bool block_snapshot_delete(struct block_node *node, const struct block_snapshot *sn,
			   struct error **err);
/* A read-only node shows the snapshot's disk from now on. */
bool block_snapshot_show(struct block_node *node, const struct block_snapshot *sn,
			 struct error **err);

#endif
