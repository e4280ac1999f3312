/* SPDX-License-Identifier: Apache-2.0 */
/*
 * null-co and null-aio: a disk that swallows everything, for measuring what is above it.
 * Options as QEMU's: size, latency-ns, read-zeroes. Thread: the node's loop.
 */
#include <errno.h>

#include "block/driver.h"

struct null_node {
	uint64_t latency;
	bool read_zeroes;
};

struct null_req {
	struct block_req *req;
	struct ev_timer timer;
};

static bool null_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		      struct error **err)
{
	struct null_node *s = node->opaque;

	node->length = GiB;
	if (!opts_get_size(opts, "size", 1, &node->length, err) ||
	    !opts_get_u64(opts, "latency-ns", &s->latency, err) ||
	    !opts_get_bool(opts, "read-zeroes", &s->read_zeroes, err))
		return false;
	if (node->length > INT64_MAX - 511) {
		error_set(err, "Parameter 'size' is too large");
		return false;
	}
	if (s->latency > 60 * (uint64_t)NSEC_PER_SEC) {
		error_set(err, "latency-ns is invalid");
		return false;
	}
	node->length = ALIGN_UP(node->length, 512);
	node->filename = xasprintf("%s://", node->drv->name);
	node->limits.discard = node->limits.write_zeroes = true;
	return true;
}

static void late(void *opaque)
{
	struct null_req *n = opaque;

	block_complete(n->req, 0);
}

static void null_submit(struct block_node *node, struct block_req *req)
{
	struct null_node *s = node->opaque;
	struct null_req *n = block_ctx(req);

	if (req->act == BLOCK_READ && s->read_zeroes)
		block_iov_zero(req->iov, req->iovcnt, req->iov_skip, req->bytes);
	if (!s->latency) {
		block_complete(req, 0);
		return;
	}
	n->req = req;
	ev_timer_init(&n->timer, late, n);
	evloop_timer_arm(node->loop, &n->timer, evloop_now(node->loop) + s->latency);
}

static int null_status(struct block_node *node, uint64_t offset, uint64_t bytes,
		       struct block_extent *out)
{
	struct null_node *s = node->opaque;

	out->bytes = bytes;
	out->allocated = out->data = out->has_offset = true;
	out->offset = offset;
	out->zero = s->read_zeroes;
	return 0;
}

const struct block_driver block_null_co = {
	.name = "null-co",
	.node_size = sizeof(struct null_node),
	.req_size = sizeof(struct null_req),
	.protocol = true,
	.fast_zeroes = true,
	.open = null_open,
	.submit = null_submit,
	.status = null_status,
};

const struct block_driver block_null_aio = {
	.name = "null-aio",
	.node_size = sizeof(struct null_node),
	.req_size = sizeof(struct null_req),
	.protocol = true,
	.fast_zeroes = true,
	.open = null_open,
	.submit = null_submit,
	.status = null_status,
};
