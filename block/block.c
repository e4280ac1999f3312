/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way in and the way out: what a node's policy makes of a request (read-only, discard=,
 * detect-zeroes=, writethrough), and completions that never come from inside submit.
 *
 * Thread: the node's loop. Owner of a request: whoever submitted it, from submit to done.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/bitmap.h"
#include "block/filter/throttle.h"

static bool is_write(enum block_op op)
{
	return op == BLOCK_WRITE || op == BLOCK_DISCARD || op == BLOCK_WRITE_ZEROES;
}

/* Adapts the request. False: it ends here, with *ret. */
static bool apply_policy(struct block_node *node, struct block_req *req, int *ret)
{
	*ret = 0;
	if (req->act == BLOCK_FLUSH)
		return true;
	if (is_write(req->act) && node->read_only) {
		*ret = -EPERM;
		return false;
	}
	if (!range_inside(req->offset, req->bytes, node->growable ? INT64_MAX : node->length)) {
		*ret = -EIO;
		return false;
	}
	if (!req->bytes)
		return false;
	if (req->act == BLOCK_READ)
		return true;
	if ((req->act_flags & BLOCK_COMPRESSED) && !node->drv->compresses) {
		*ret = -ENOTSUP;
		return false;
	}
	if ((req->act_flags & BLOCK_NO_FALLBACK) && !node->drv->fast_zeroes) {
		*ret = -ENOTSUP;
		return false;
	}
	node->written = true;
	if (req->act == BLOCK_DISCARD && node->ignore_discard)
		return false;
	/* Before it happens: what fails half-way has changed something as well. */
	if (node->bitmaps && !(req->act_flags & BLOCK_UNCHANGED))
		block_bitmaps_record(node, req->offset, req->bytes);
	if (req->act == BLOCK_DISCARD)
		return true;
	if (req->act == BLOCK_WRITE && node->detect_zeroes &&
	    block_iov_is_zero(req->iov, req->iovcnt, req->iov_skip, req->bytes)) {
		req->act = BLOCK_WRITE_ZEROES;
		if (node->detect_zeroes == 2)
			req->act_flags |= BLOCK_MAY_UNMAP;
	}
	if (node->ignore_discard)
		req->act_flags &= ~BLOCK_MAY_UNMAP;
	if (!node->writeback)
		req->act_flags |= BLOCK_FUA;
	if (node->no_flush)
		req->act_flags &= ~BLOCK_FUA;
	return true;
}

static void finish(struct block_req *req, int ret)
{
	struct block_node *node = req->node;

	node->in_flight--;
	if (node->growable && !ret && (req->act == BLOCK_WRITE || req->act == BLOCK_WRITE_ZEROES) &&
	    req->offset + req->bytes > node->length)
		node->length = ALIGN_UP(req->offset + req->bytes, 512);
	req->done(req, ret);
}

static void run_deferred(void *opaque)
{
	struct block_node *node = opaque;
	struct block_req *req = node->deferred, *next;

	node->deferred = NULL;
	node->deferred_tail = &node->deferred;
	for (; req; req = next) {
		next = req->next;
		finish(req, req->ret);
	}
}

void block_complete(struct block_req *req, int ret)
{
	struct block_node *node = req->node;

	if (!node->submitting) {
		finish(req, ret);
		return;
	}
	req->ret = ret;
	req->next = NULL;
	if (!node->deferred)
		evloop_post(node->loop, &node->deferred_work);
	*node->deferred_tail = req;
	node->deferred_tail = &req->next;
}

void block_submit_at(struct block_req *req, size_t skip)
{
	struct block_node *node = req->node;
	int ret;

	req->act = req->op;
	req->act_flags = req->flags;
	req->iov_skip = skip;
	node->in_flight++;
	node->submitting++;
	if (!apply_policy(node, req, &ret))
		block_complete(req, ret);
	else if (node->gate)
		throttle_take(node->gate, req);
	else
		node->drv->submit(node, req);
	node->submitting--;
}

void block_submit(struct block_req *req)
{
	block_submit_at(req, 0);
}

static bool tree_busy(const struct block_node *node)
{
	if (!node)
		return false;
	for (unsigned i = 0; i < node->extent_count; i++)
		if (tree_busy(node->extents[i]))
			return true;
	return node->in_flight || tree_busy(node->file) || tree_busy(node->backing) ||
	       tree_busy(node->data);
}

static void hurry_tree(struct block_node *node)
{
	if (!node)
		return;
	if (node->gate)
		throttle_hurry(node->gate);
	if (node->drv->hurry)
		node->drv->hurry(node);
	for (unsigned i = 0; i < node->extent_count; i++)
		hurry_tree(node->extents[i]);
	hurry_tree(node->file);
	hurry_tree(node->backing);
	hurry_tree(node->data);
}

void block_drain(struct block_node *node)
{
	while (tree_busy(node)) {
		hurry_tree(node);
		if (tree_busy(node))
			evloop_run_once(node->loop, -1);
	}
}

struct sync_done {
	bool done;
	int ret;
};

static void sync_cb(struct block_req *req, int ret)
{
	struct sync_done *sync = req->ctx;

	sync->ret = ret;
	sync->done = true;
}

int block_do(struct block_node *node, enum block_op op, uint64_t offset, const struct iovec *iov,
	     int iovcnt, uint64_t bytes, uint32_t flags)
{
	struct sync_done sync = {false, 0};
	struct block_req *req = xmalloc(block_req_size(node));

	req->node = node;
	req->op = op;
	req->flags = flags;
	req->offset = offset;
	req->bytes = bytes;
	req->iov = iov;
	req->iovcnt = iovcnt;
	req->done = sync_cb;
	req->ctx = &sync;
	block_submit(req);
	while (!sync.done)
		evloop_run_once(node->loop, -1);
	free(req);
	return sync.ret;
}

int block_pread(struct block_node *node, uint64_t offset, void *buf, size_t bytes)
{
	struct iovec iov = {buf, bytes};

	return block_do(node, BLOCK_READ, offset, &iov, 1, bytes, 0);
}

int block_pwrite(struct block_node *node, uint64_t offset, const void *buf, size_t bytes,
		 uint32_t flags)
{
	struct iovec iov = {(void *)buf, bytes};

	return block_do(node, BLOCK_WRITE, offset, &iov, 1, bytes, flags);
}

int block_flush(struct block_node *node)
{
	return block_do(node, BLOCK_FLUSH, 0, NULL, 0, 0, 0);
}

int block_zero(struct block_node *node, uint64_t offset, uint64_t bytes, uint32_t flags)
{
	return block_do(node, BLOCK_WRITE_ZEROES, offset, NULL, 0, bytes, flags);
}

int block_discard(struct block_node *node, uint64_t offset, uint64_t bytes)
{
	return block_do(node, BLOCK_DISCARD, offset, NULL, 0, bytes, 0);
}

int block_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_extent *out)
{
	memset(out, 0, sizeof(*out));
	if (offset >= node->length)
		return -EINVAL;
	bytes = MIN(bytes, node->length - offset);
	if (node->drv->status)
		return node->drv->status(node, offset, bytes, out);
	out->bytes = bytes;
	out->allocated = out->data = true;
	return 0;
}

int block_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	int ret;

	if (node->read_only) {
		error_set(err, "Image is read-only");
		return -EACCES;
	}
	if (!node->drv->truncate) {
		error_set(err, "Image format driver does not support resize");
		return -ENOTSUP;
	}
	block_drain(node);
	ret = node->drv->truncate(node, bytes, err);
	return ret;
}

int block_tray(struct block_node *node, enum block_tray action)
{
	struct block_node *low = node;
	int ret;

	while (!low->drv->tray && low->file)
		low = low->file;
	if (!low->drv->tray)
		return -ENOTSUP;
	ret = low->drv->tray(low, action);
	/* What passes it through is as long as the disc is. */
	for (struct block_node *n = node; n != low; n = n->file)
		block_set_length(n, low->length);
	return ret;
}

int block_vm_state(struct block_node *node, bool write, uint64_t offset, void *buf, size_t bytes)
{
	while (!node->drv->vm_state && node->file)
		node = node->file;
	if (!node->drv->vm_state)
		return -ENOTSUP;
	if (write && node->read_only)
		return -EPERM;
	block_drain(node);
	return node->drv->vm_state(node, write, offset, buf, bytes);
}

int block_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode)
{
	return node->drv->preallocate ? node->drv->preallocate(node, from, mode) : -ENOTSUP;
}

int block_write_nothing(struct block_node *node, uint64_t from)
{
	const size_t piece = MiB;
	void *zero = calloc(1, piece);
	int ret = zero ? 0 : -ENOMEM;

	for (uint64_t at = from; at < node->length && !ret; at += piece)
		ret = block_pwrite(node, at, zero, MIN((uint64_t)piece, node->length - at), 0);
	free(zero);
	return ret;
}

int block_grow(struct block_node *node, uint64_t bytes, enum block_prealloc mode,
	       struct error **err)
{
	static const char *const names[] = {"off", "metadata", "falloc", "full"};
	uint64_t old = node->length;
	int ret;

	if (mode != PREALLOC_OFF && bytes < old) {
		error_set(err, "Preallocation can only be used for growing images");
		return -EINVAL;
	}
	ret = block_truncate(node, bytes, err);
	if (ret || mode == PREALLOC_OFF)
		return ret;
	ret = block_preallocate(node, old, mode);
	if (!ret)
		return 0;
	if (ret == -ENOTSUP)
		error_set(err, "Unsupported preallocation mode: %s", names[mode]);
	else
		error_set_errno(err, ret, "Could not preallocate the new space");
	block_truncate(node, old, NULL);
	return ret;
}

int64_t block_allocated(struct block_node *node)
{
	if (node->drv->allocated)
		return node->drv->allocated(node);
	return node->file ? block_allocated(node->file) : -ENOTSUP;
}

void block_set_length(struct block_node *node, uint64_t bytes)
{
	if (node->length == bytes)
		return;
	node->length = bytes;
	for (struct block_bitmap *bm = node->bitmaps; bm; bm = bm->next)
		dirty_bitmap_resize(&bm->dirty, bytes);
	notifier_fire(&node->resized, node);
}

/* Used by nodes at their making (node.c). */
void block_deferred_init(struct block_node *node)
{
	node->deferred_tail = &node->deferred;
	ev_work_init(&node->deferred_work, run_deferred, node);
}
