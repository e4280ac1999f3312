/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preallocation of a new image: every cluster gets its place, which reads as zero, in order.
 *
 * Main thread, on the caller's loop; the node was just created.
 */
#include <errno.h>
#include <stdlib.h>

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
	uint64_t host = offset;
	struct qslice *e;
	unsigned index;
	int ret = 0;

	if (!s->external)
		ret = qcow2_alloc_some(s, *clusters, &host, clusters);
	if (!ret)
		ret = own_slice_now(s, offset, &e, &index);
	if (ret)
		return ret;
	for (uint64_t i = 0; i < *clusters; i++) {
		uint8_t *p = e->data + ((index + i) << s->entry_bits);

		store_be64(p, (host + (i << s->cluster_bits)) | ENTRY_COPIED | zero);
		/* What lies below shines through until it is written. */
		if (s->extended)
			store_be64(p + 8, s->node->backing_name ? 0
					  : s->h.crypt_method	? (uint64_t)UINT32_MAX << 32
								: UINT32_MAX);
	}
	qcache_dirty(e);
	return 0;
}

static int write_zeroes(struct block_node *node, uint64_t bytes)
{
	const size_t piece = 1 << 20;
	void *zero = calloc(1, piece);
	int ret = zero ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < bytes && !ret; at += piece)
		ret = block_pwrite(node, at, zero, MIN((uint64_t)piece, bytes - at), 0);
	free(zero);
	return ret;
}

int qcow2_preallocate(struct block_node *node, bool full)
{
	struct qcow2 *s = node->opaque;
	uint64_t per_slice = UINT64_C(1) << (s->l2.slice_bits - s->entry_bits);
	uint64_t clusters = div_round_up(s->h.size, s->cluster_size), n;
	int ret = 0;

	for (uint64_t i = 0; i < clusters && !ret; i += n) {
		n = MIN(clusters - i, per_slice - i % per_slice);
		ret = fill(s, i << s->cluster_bits, &n);
	}
	if (!ret)
		ret = qcow2_commit_sync(s);
	if (!ret && s->fresh > s->file->length)
		ret = block_truncate(s->file, s->fresh, NULL);
	if (!ret && full && !s->external)
		ret = write_zeroes(node, node->length);
	return ret ? ret : block_flush(node);
}
