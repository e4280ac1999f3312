/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy-on-read filter: what a read brought up from the backing file is written into the image,
 * so that it need not be fetched again.
 *
 * The guest's read goes down as it is. If the format says that some of it came from below, the
 * clusters it touched are gone through once more, each alone: read whole, and written back if it
 * still comes from below. Meanwhile the cluster is an exclusive range, so that no write of the
 * guest's can lie between the two and be undone. Zeroes are written as zeroes.
 *
 * The read ends when its copies are there; a copy that fails (a full disk) fails the read, as
 * QEMU's does. Thread: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/filter/filter.h"
#include "block/wait.h"

#define UNIT_MIN (64 * KiB)
#define UNIT_MAX (2 * MiB)

struct cor_node {
	uint64_t unit; /* bytes, a power of two: whole clusters */
	struct range_set ranges;
	struct waitq runq;
	bool running;
};

struct cor_req {
	struct block_req *req;
	struct range range;
	struct waiter waiter;
	uint64_t at, bytes; /* what is being copied */
	void *buf;
	struct iovec iov;
};

/* One of the copy's own requests. */
static void submit_copy(struct cor_req *c, enum block_op op,
			void (*done)(struct block_req *child, int ret))
{
	struct block_req *child = block_child_req(c->req);

	c->iov = (struct iovec){c->buf, c->bytes};
	child->node = c->req->node->file;
	child->op = op;
	child->flags = BLOCK_UNCHANGED;
	child->offset = c->at;
	child->bytes = c->bytes;
	child->iov = &c->iov;
	child->iovcnt = 1;
	child->done = done;
	child->ctx = c;
	block_submit(child);
}

/* Writing: not while a copy of the same place is being made */

static void write_done(struct block_req *child, int ret)
{
	struct cor_req *c = child->ctx;
	struct cor_node *s = c->req->node->opaque;

	range_drop(&c->range, &s->runq);
	block_complete(c->req, ret);
	waitq_run(&s->runq, &s->running);
}

static void try_write(struct waiter *w)
{
	struct cor_req *c = container_of(w, struct cor_req, waiter);
	struct cor_node *s = c->req->node->opaque;
	uint64_t start = c->req->offset, end = start + c->req->bytes;
	struct range *other = range_conflict(&s->ranges, start, end, false);

	if (other) {
		waitq_add(&other->waiters, w);
		return;
	}
	range_take(&s->ranges, &c->range, start, end, false);
	block_filter_submit(c->req, write_done, c);
}

/* Reading */

static void end_read(struct cor_req *c, int ret)
{
	free(c->buf);
	block_complete(c->req, ret);
}

static void copy_unit(struct waiter *w);

/* The unit is done: the next one, or the end. */
static void next_unit(struct cor_req *c, int ret)
{
	struct cor_node *s = c->req->node->opaque;

	range_drop(&c->range, &s->runq);
	c->at += c->bytes;
	if (ret)
		end_read(c, ret);
	else
		copy_unit(&c->waiter);
	waitq_run(&s->runq, &s->running);
}

static void unit_written(struct block_req *child, int ret)
{
	next_unit(child->ctx, ret);
}

static void unit_read(struct block_req *child, int ret)
{
	struct cor_req *c = child->ctx;

	if (ret || !(child->act_flags & BLOCK_FROM_BELOW))
		next_unit(c, ret);
	else if (block_buf_is_zero(c->buf, c->bytes))
		submit_copy(c, BLOCK_WRITE_ZEROES, unit_written);
	else
		submit_copy(c, BLOCK_WRITE, unit_written);
}

static void copy_unit(struct waiter *w)
{
	struct cor_req *c = container_of(w, struct cor_req, waiter);
	struct block_req *req = c->req;
	struct cor_node *s = req->node->opaque;
	struct range *other;

	if (c->at >= req->offset + req->bytes) {
		end_read(c, 0);
		return;
	}
	c->bytes = MIN(s->unit, req->node->file->length - c->at);
	other = range_conflict(&s->ranges, c->at, c->at + c->bytes, true);
	if (other) {
		waitq_add(&other->waiters, w);
		return;
	}
	if (!c->buf && posix_memalign(&c->buf, 4096, s->unit)) {
		c->buf = NULL;
		end_read(c, -ENOMEM);
		return;
	}
	range_take(&s->ranges, &c->range, c->at, c->at + c->bytes, true);
	submit_copy(c, BLOCK_READ, unit_read);
}

static void read_done(struct block_req *child, int ret)
{
	struct cor_req *c = child->ctx;
	struct cor_node *s = c->req->node->opaque;

	if (ret || !(child->act_flags & BLOCK_FROM_BELOW)) {
		end_read(c, ret);
		return;
	}
	c->at = ALIGN_DOWN(c->req->offset, s->unit);
	copy_unit(&c->waiter);
}

static void cor_submit(struct block_node *node, struct block_req *req)
{
	struct cor_req *c = block_ctx(req);

	c->req = req;
	c->buf = NULL;
	if (req->act == BLOCK_READ) {
		c->waiter.fn = copy_unit;
		block_filter_submit(req, read_done, c);
	} else if (req->act == BLOCK_FLUSH) {
		block_filter_pass(req, 0);
	} else {
		c->waiter.fn = try_write;
		try_write(&c->waiter);
	}
}

bool block_copy_on_read_init(struct block_node *node, struct error **err)
{
	struct cor_node *s = node->opaque;

	if (node->read_only) {
		error_set(err, "Can't use copy-on-read on read-only device");
		return false;
	}
	block_filter_init(node);
	s->unit = UNIT_MIN;
	if (is_pow2(node->limits.discard_alignment))
		s->unit = MIN(MAX(UNIT_MIN, node->limits.discard_alignment), UNIT_MAX);
	return true;
}

static bool cor_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		     struct error **err)
{
	return block_copy_on_read_init(node, err);
}

const struct block_driver block_copy_on_read = {
	.name = "copy-on-read",
	.node_size = sizeof(struct cor_node),
	.req_size = sizeof(struct cor_req),
	.filter = true,
	.compresses = true,
	.fast_zeroes = true,
	.open = cor_open,
	.submit = cor_submit,
	.truncate = block_filter_truncate,
	.status = block_filter_status,
};
