/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What passes through a filter unchanged: requests, the length, the map. Thread: the node's loop.
 */
#include "block/filter/filter.h"

void block_filter_init(struct block_node *node)
{
	node->length = node->file->length;
	node->limits = node->file->limits;
	node->zero_past_end = node->file->zero_past_end;
}

static void submit(struct block_req *req, uint64_t shift,
		   void (*done)(struct block_req *child, int ret), void *ctx)
{
	struct block_req *child = block_child_req(req);

	child->node = req->node->file;
	child->op = req->act;
	child->flags = req->act_flags;
	child->offset = req->act == BLOCK_FLUSH ? 0 : req->offset + shift;
	child->bytes = req->bytes;
	child->iov = req->iov;
	child->iovcnt = req->iovcnt;
	child->done = done;
	child->ctx = ctx;
	block_submit_at(child, req->iov_skip);
}

void block_filter_submit(struct block_req *req, void (*done)(struct block_req *child, int ret),
			 void *ctx)
{
	submit(req, 0, done, ctx);
}

static void passed(struct block_req *child, int ret)
{
	struct block_req *req = child->ctx;

	req->act_flags |= child->act_flags & BLOCK_FROM_BELOW;
	block_complete(req, ret);
}

void block_filter_pass(struct block_req *req, uint64_t shift)
{
	submit(req, shift, passed, req);
}

int block_filter_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	int ret = block_truncate(node->file, bytes, err);

	if (!ret)
		block_set_length(node, bytes);
	return ret;
}

int block_filter_status(struct block_node *node, uint64_t offset, uint64_t bytes,
			struct block_extent *out)
{
	return block_status(node->file, offset, bytes, out);
}
