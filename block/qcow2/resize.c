/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growing and shrinking an image. Synchronous, drained. Growing: what the tables have beyond the
 * old end goes first, then comes a longer L1 table if needed, then zeroes where the backing file is
 * longer than the disk was, then the size. Shrinking: the size, and then what lies beyond it; a cut
 * in between leaves that to the next change of the size.
 *
 * The new table is counted, written and synced before the header's sector, which switches size and
 * table at once; the old table's clusters are let go after that is durable.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/bitmap.h"
#include "block/qcow2/snapshot.h"

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

		/* Narrow refcount blocks, each in the way of a run, may leave no room for it ever.
		 */
		if (!ret && have && at != *host + (have << s->cluster_bits) && again++ > 256)
			ret = -EFBIG;
		if (ret) {
			if (have)
				qcow2_free_later(s, *host, have, QFREE_OTHER);
			return ret;
		}
		if (have && at != *host + (have << s->cluster_bits)) {
			qcow2_free_later(s, *host, have, QFREE_OTHER);
			have = 0;
		}
		if (!have)
			*host = at;
		have += got;
	}
	return 0;
}

int qcow2_grow_l1(struct qcow2 *s, uint64_t entries, uint64_t size)
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
		qcow2_free_later(s, host, bytes >> s->cluster_bits, QFREE_OTHER);
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
		qcow2_free_later(s, old, old_clusters, QFREE_OTHER);
	free(s->l1);
	free(s->l1_dirty);
	s->l1 = table;
	s->l1_dirty = dirty;
	qcow2_guard_drop(s);
	table = NULL;
	dirty = NULL;
out:
	free(table);
	free(dirty);
	free(disk);
	return ret;
}

/* L1 entries from keep on, with all below. */
static int drop_tail(struct qcow2 *s, uint64_t keep)
{
	struct qcounts down;
	bool any = false;
	int ret;

	for (uint64_t i = keep; i < s->h.l1_size; i++)
		any |= s->l1[i] != 0;
	if (!any)
		return 0;
	ret = qcounts_init(&down, s);
	if (!ret)
		ret = qcounts_add_tree(&down, s->l1 + keep, s->h.l1_size - keep);
	if (!ret)
		ret = qcounts_check(&down, false);
	if (!ret) {
		for (uint64_t i = keep; i < s->h.l1_size; i++) {
			s->l1[i] = 0;
			s->l1_dirty[i / 64] = 1;
		}
		s->any_l1_dirty = true;
		ret = qcow2_commit_sync(s);
	}
	if (!ret)
		ret = qcow2_release(s, &down);
	qcounts_free(&down);
	return ret;
}

/* Lets go of what the active tables have behind the cluster in which size lies. */
static int drop_beyond(struct block_node *node, uint64_t size)
{
	struct qcow2 *s = node->opaque;
	unsigned bits = s->l2_bits + s->cluster_bits;
	uint64_t keep = div_round_up(size, UINT64_C(1) << bits), length = node->length;
	uint64_t first = ALIGN_UP(size, s->cluster_size);
	uint64_t end = MIN(keep << bits, (uint64_t)ALIGN_DOWN(INT64_MAX, 512));
	unsigned passed = s->pass_discard;
	bool ignored = node->ignore_discard;
	int ret = 0;

	if (first < end && (s->l1[keep - 1] & ENTRY_OFFSET)) {
		node->length = MAX(length, end);
		node->ignore_discard = false;
		s->pass_discard |= 1 << QFREE_REQUEST;
		ret = block_discard(node, first, end - first);
		if (!ret)
			ret = qcow2_commit_sync(s);
		node->length = length;
		node->ignore_discard = ignored;
		s->pass_discard = passed;
	}
	return ret ? ret : drop_tail(s, keep);
}

static int set_size(struct qcow2 *s, uint64_t bytes)
{
	int ret = qcow2_commit_sync(s);

	if (ret)
		return ret;
	store_be64(s->header + QCOW2_OFF_SIZE, bytes);
	ret = qcow2_write_header(s);
	return ret ? ret : block_flush(s->file);
}

static int shrink(struct block_node *node, uint64_t bytes, struct error **err)
{
	struct qcow2 *s = node->opaque;
	int ret;

	if (s->h.version < 3 && node->backing_name) {
		/* Nothing could hide what lies below, when it grows again. */
		error_set(err, "Can't shrink a v2 image with a backing file");
		return -ENOTSUP;
	}
	ret = set_size(s, bytes);
	if (ret) {
		s->broken = true; /* which of the two the disk has is not known */
		error_set_errno(err, ret, "Failed to update the image size");
		return ret;
	}
	s->h.size = bytes;
	ret = drop_beyond(node, bytes);
	block_set_length(node, bytes);
	if (!ret && s->external && s->data)
		ret = block_truncate(s->data, bytes, NULL);
	if (ret)
		error_set_errno(err, ret, "Failed to discard cropped clusters");
	return ret;
}

/* What lay behind the old end inside its last cluster becomes visible: as zeroes. */
static int clear_last_cluster(struct block_node *node, uint64_t old, uint64_t bytes)
{
	struct qcow2 *s = node->opaque;
	uint64_t end = MIN(bytes, (uint64_t)ALIGN_UP(old, s->cluster_size));
	struct block_extent x;
	int ret = 0;

	node->length = MAX(end, node->length);
	for (uint64_t at = old; at < end && !ret; at += x.bytes) {
		ret = block_status(node, at, end - at, &x);
		if (!ret && x.data)
			ret = block_zero(node, at, MIN(x.bytes, end - at), 0);
	}
	node->length = ALIGN_DOWN(old, 512);
	return ret;
}

/* A longer backing file must not shine through where the disk was not, from the moment on at which
 * the disk is there. The L1 table is long enough. */
static int hide_backing(struct block_node *node, uint64_t old, uint64_t bytes)
{
	uint64_t end = MIN(bytes, node->backing->length);
	int ret;

	node->length = bytes;
	ret = block_zero(node, old, end - old, 0);
	node->length = ALIGN_DOWN(old, 512);
	return ret;
}

int qcow2_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	struct qcow2 *s = node->opaque;
	uint64_t entries, old = s->h.size;
	bool hide, moves;
	int ret;

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
	if (!qcow2_bitmaps_may_resize(s, err))
		return -ENOTSUP;
	if (bytes < old)
		return shrink(node, bytes, err);
	ret = bytes > old ? drop_beyond(node, old) : 0;
	if (ret) {
		error_set_errno(err, ret, "Failed to clear what lies beyond the end");
		return ret;
	}
	ret = clear_last_cluster(node, old, bytes);
	if (ret) {
		error_set_errno(err, ret, "Failed to clear the image's last cluster");
		return ret;
	}
	if (s->external && s->data && s->data->length < bytes)
		ret = block_truncate(s->data, bytes, NULL);
	hide = bytes > old && node->backing && node->backing->length > old;
	moves = entries > s->h.l1_size;
	if (!ret && moves)
		ret = qcow2_grow_l1(s, entries, hide ? old : bytes);
	if (!ret && hide)
		ret = hide_backing(node, old, bytes);
	if (!ret)
		ret = moves && !hide ? qcow2_commit_sync(s) : set_size(s, bytes);
	if (ret) {
		error_set_errno(err, ret, "Failed to grow the image");
		return ret;
	}
	s->h.size = bytes;
	block_set_length(node, bytes);
	return 0;
}
