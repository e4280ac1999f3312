/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preallocation of a new image, or of what it has grown by: every cluster gets its place, which
 * reads as zero, in order.
 *
 * Main thread, on the caller's loop; nobody else uses the node.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/create.h"
#include "block/qcow2/qcow2.h"

struct slice_wait {
	struct waiter waiter;
	bool woken;
};

static void slice_wake(struct waiter *w)
{
	container_of(w, struct slice_wait, waiter)->woken = true;
}

/* As qcow2_own_slice(), at a moment when metadata may change. */
static int own_slice_now(struct qcow2 *s, uint64_t offset, struct qslice **e, unsigned *index)
{
	for (;;) {
		struct slice_wait wait = {.waiter.fn = slice_wake};
		int ret = 0;

		if (s->frozen)
			waitq_add(&s->thawed, &wait.waiter);
		else
			ret = qcow2_own_slice(s, offset, &wait.waiter, e, index);
		if (!s->frozen && ret != -EAGAIN)
			return ret;
		while (!wait.woken)
			evloop_run_once(s->node->loop, -1);
		if (wait.waiter.error)
			return wait.waiter.error;
	}
}

/* Some of the clusters from offset on, as many as have places side by side. */
static int fill(struct qcow2 *s, uint64_t offset, uint64_t *clusters)
{
	/* Zeroes in the file are noise for who decrypts them. */
	uint64_t zero = s->h.crypt_method && s->h.version >= 3 && !s->extended ? L2_ZERO : 0;
	uint64_t host = offset, fresh = s->fresh;
	struct qslice *e;
	unsigned index;
	int ret = 0;

	if (!s->external)
		ret = qcow2_alloc_some(s, *clusters, &host, clusters);
	/* What was in use before has something else in it. */
	if (!ret && !s->external && (host < fresh || !s->fresh_is_zero) && !zero)
		ret = block_zero(s->file, host, *clusters << s->cluster_bits, 0);
	if (!ret)
		ret = own_slice_now(s, offset, &e, &index);
	if (ret)
		return ret;
	for (uint64_t i = 0; i < *clusters; i++) {
		uint8_t *p = e->data + ((index + i) << s->entry_bits);

		store_be64(p, (host + (i << s->cluster_bits)) | ENTRY_COPIED | zero);
		/* What lies below shines through until it is written, save where it is hidden. */
		if (s->extended)
			store_be64(p + 8, s->node->backing_name
						  ? load_be64(p + 8) & (uint64_t)UINT32_MAX << 32
					  : s->h.crypt_method ? (uint64_t)UINT32_MAX << 32
							      : UINT32_MAX);
	}
	qcache_dirty(e);
	return 0;
}

static int fill_all(struct qcow2 *s, uint64_t from)
{
	uint64_t per_slice = UINT64_C(1) << (s->l2.slice_bits - s->entry_bits);
	uint64_t clusters = div_round_up(s->h.size, s->cluster_size), n;
	int ret = 0;

	/* A cluster that the image had a part of stays as it is. */
	for (uint64_t i = div_round_up(from, s->cluster_size); i < clusters && !ret; i += n) {
		n = MIN(clusters - i, per_slice - i % per_slice);
		ret = fill(s, i << s->cluster_bits, &n);
	}
	return ret ? ret : qcow2_commit_sync(s);
}

int qcow2_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode)
{
	struct qcow2 *s = node->opaque;
	uint64_t file_from = s->file->length;
	int ret = fill_all(s, from);

	if (!ret && s->fresh > s->file->length)
		ret = block_truncate(s->file, s->fresh, NULL);
	if (!ret && s->external)
		ret = mode == PREALLOC_METADATA ? 0 : block_preallocate(s->data, from, mode);
	else if (!ret && mode == PREALLOC_FALLOC)
		ret = block_preallocate(s->file, from ? file_from : 0, mode);
	else if (!ret && mode == PREALLOC_FULL)
		ret = block_write_nothing(node, from);
	return ret ? ret : block_flush(node);
}
