/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growing an image: a longer L1 table if needed, then the size. Synchronous, drained.
 *
 * The new table is counted, written and synced before the header's sector, which switches size and
 * table at once; the old table's clusters are let go after that is durable.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2.h"

struct alloc_wait {
	struct waiter waiter;
	bool woken;
};

static void alloc_wake(struct waiter *w)
{
	container_of(w, struct alloc_wait, waiter)->woken = true;
}

int qcow2_alloc_some(struct qcow2 *s, uint64_t want, uint64_t *host, uint64_t *got)
{
	for (;;) {
		struct alloc_wait wait = {.waiter.fn = alloc_wake};
		int ret = qcow2_alloc(s, want, &wait.waiter, host, got);

		if (!ret)
			s->fresh = MAX(s->fresh, *host + (*got << s->cluster_bits));
		if (ret != -EAGAIN)
			return ret;
		while (!wait.woken)
			evloop_run_once(s->node->loop, -1);
		if (wait.waiter.error)
			return wait.waiter.error;
	}
}

/* Each piece right behind the last one, or all over again. */
int qcow2_alloc_now(struct qcow2 *s, uint64_t clusters, uint64_t *host)
{
	uint64_t have = 0, got, at;
	unsigned again = 0;

	while (have < clusters) {
		int ret = qcow2_alloc_some(s, clusters - have, &at, &got);

		/* Narrow refcount blocks, each in the way of a run, may leave no room for it ever. */
		if (!ret && have && at != *host + (have << s->cluster_bits) && again++ > 256)
			ret = -EFBIG;
		if (ret) {
			if (have)
				qcow2_free_later(s, *host, have);
			return ret;
		}
		if (have && at != *host + (have << s->cluster_bits)) {
			qcow2_free_later(s, *host, have);
			have = 0;
		}
		if (!have)
			*host = at;
		have += got;
	}
	return 0;
}

static int move_l1(struct qcow2 *s, uint64_t entries, uint64_t size)
{
	uint64_t bytes = ALIGN_UP(entries * 8, s->cluster_size), host = 0;
	uint64_t old = s->h.l1_offset, old_clusters;
	uint64_t *table = calloc(entries, 8), *disk = calloc(1, bytes);
	uint8_t *dirty = calloc(entries / 64 + 1, 1);
	int ret = table && disk && dirty ? 0 : -ENOMEM;

	if (!ret)
		ret = qcow2_alloc_now(s, bytes >> s->cluster_bits, &host);
	/* Refcounts and L2 tables first; the old L1 table then has all there is. */
	if (!ret)
		ret = qcow2_commit_sync(s);
	if (ret)
		goto out;
	memcpy(table, s->l1, s->h.l1_size * UINT64_C(8));
	for (uint64_t i = 0; i < s->h.l1_size; i++)
		disk[i] = htobe64(s->l1[i]);
	ret = block_pwrite(s->file, host, disk, bytes, 0);
	if (!ret)
		ret = block_flush(s->file);
	if (ret) {
		qcow2_free_later(s, host, bytes >> s->cluster_bits);
		goto out;
	}
	store_be64(s->header + QCOW2_OFF_SIZE, size);
	store_be64(s->header + QCOW2_OFF_L1, host);
	store_be32(s->header + QCOW2_OFF_L1_SIZE, entries);
	ret = qcow2_write_header(s);
	if (!ret)
		ret = block_flush(s->file);
	if (ret) {
		s->broken = true; /* which of the two the disk has is not known */
		goto out;
	}
	old_clusters = div_round_up(s->h.l1_size * UINT64_C(8), s->cluster_size);
	s->h.l1_offset = host;
	s->h.l1_size = entries;
	if (old && old_clusters)
		qcow2_free_later(s, old, old_clusters);
	free(s->l1);
	free(s->l1_dirty);
	s->l1 = table;
	s->l1_dirty = dirty;
	table = NULL;
	dirty = NULL;
out:
	free(table);
	free(dirty);
	free(disk);
	return ret;
}

int qcow2_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	struct qcow2 *s = node->opaque;
	uint64_t entries, old = s->h.size;
	int ret;

	if (bytes < old) {
		error_set(err, "qcow2 images cannot be shrunk");
		return -ENOTSUP;
	}
	if (s->h.snapshots && s->h.version < 3) {
		error_set(err, "Can't resize a v2 image which has snapshots");
		return -ENOTSUP;
	}
	if (!IS_ALIGNED(bytes, 512)) {
		error_set(err, "The new size must be a multiple of 512");
		return -EINVAL;
	}
	entries = div_round_up(bytes, UINT64_C(1) << (s->l2_bits + s->cluster_bits));
	if (bytes > INT64_MAX - 511 || entries * 8 > QCOW2_MAX_L1_BYTES) {
		error_set(err, "Image size is too large");
		return -EFBIG;
	}
	/* What lay behind the old end inside its last cluster becomes visible: as zeroes. */
	if (bytes > old && !IS_ALIGNED(old, s->cluster_size) && !node->backing) {
		struct block_extent x;
		uint64_t end = MIN(bytes, ALIGN_UP(old, s->cluster_size));

		node->length = end;
		ret = block_status(node, old, end - old, &x);
		if (!ret && x.data)
			ret = block_zero(node, old, end - old, 0);
		node->length = ALIGN_DOWN(old, 512);
		if (ret) {
			error_set_errno(err, ret, "Failed to clear the image's last cluster");
			return ret;
		}
	}
	if (entries > s->h.l1_size) {
		ret = move_l1(s, entries, bytes);
	} else {
		ret = qcow2_commit_sync(s);
		if (!ret) {
			store_be64(s->header + QCOW2_OFF_SIZE, bytes);
			ret = qcow2_write_header(s);
		}
		if (!ret)
			ret = block_flush(s->file);
	}
	if (!ret)
		ret = qcow2_commit_sync(s);
	if (!ret && s->external && s->data && s->data->length < bytes)
		ret = block_truncate(s->data, bytes, NULL);
	if (ret) {
		error_set_errno(err, ret, "Failed to grow the image");
		return ret;
	}
	s->h.size = bytes;
	block_set_length(node, bytes);
	/* A longer backing file must not shine through where the disk was not. */
	if (node->backing && node->backing->length > old) {
		ret = block_zero(node, old, MIN(bytes, node->backing->length) - old, 0);
		if (ret)
			error_set_errno(err, ret, "Failed to clear the new area");
	}
	return ret;
}
