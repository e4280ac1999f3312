/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine's state in the image: guest clusters behind the disk's last L1 entry, where a
 * snapshot's table keeps them. In the active table they are only on their way there.
 *
 * Thread: the caller's, drained.
 */
#include <errno.h>

#include "block/qcow2/qcow2.h"

/* The part that the active table covers; node->length is that table's end meanwhile. What lies
 * below has no such place. */
static int transfer(struct qcow2 *s, bool write, uint64_t offset, void *buf, size_t bytes)
{
	struct block_node *node = s->node, *backing = node->backing;
	uint64_t length = node->length;
	int ret;

	node->length = MIN((uint64_t)s->h.l1_size << (s->l2_bits + s->cluster_bits),
			   (uint64_t)ALIGN_DOWN(INT64_MAX, 512));
	node->backing = NULL;
	/* No bitmap of the disk's counts it. */
	ret = write ? block_pwrite(node, offset, buf, bytes, BLOCK_UNCHANGED)
		    : block_pread(node, offset, buf, bytes);
	node->backing = backing;
	node->length = length;
	return ret;
}

int qcow2_vm_state(struct block_node *node, bool write, uint64_t offset, void *buf, size_t bytes)
{
	struct qcow2 *s = node->opaque;
	unsigned bits = s->l2_bits + s->cluster_bits;
	uint64_t start = ALIGN_UP(s->h.size, UINT64_C(1) << bits), entries, covered;
	int ret = 0;

	if (s->external)
		return -ENOTSUP;
	if (!range_inside(offset, bytes, INT64_MAX - 511) ||
	    start > INT64_MAX - 511 - offset - bytes)
		return -EFBIG;
	entries = div_round_up(start + offset + bytes, UINT64_C(1) << bits);
	if (write && entries > s->h.l1_size) {
		if (entries * 8 > QCOW2_MAX_L1_BYTES)
			return -EFBIG;
		ret = qcow2_grow_l1(s, entries, s->h.size);
		if (!ret)
			ret = qcow2_commit_sync(s);
	}
	if (ret)
		return ret;
	covered = (uint64_t)s->h.l1_size << bits;
	covered = covered > start + offset ? MIN(covered - start - offset, (uint64_t)bytes) : 0;
	memset((uint8_t *)buf + covered, 0, bytes - covered);
	return covered ? transfer(s, write, start + offset, buf, covered) : 0;
}
