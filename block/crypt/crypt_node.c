/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node "crypt", which no option names: qcow2 puts it between itself and the file (or the data
 * file), sends the guest's bytes through it and metadata past it. Thread: the node's loop.
 */
#include "block/crypt/crypt_io.h"
#include "block/filter/filter.h"

static void crypt_close(struct block_node *node)
{
	crypt_io_destroy(node->opaque);
}

static void crypt_submit(struct block_node *node, struct block_req *req)
{
	crypt_io_submit(node->opaque, req);
}

static const struct block_driver block_crypt = {
	.name = "crypt",
	.node_size = sizeof(struct crypt_io),
	.req_size = sizeof(struct crypt_req),
	.filter = true,
	.close = crypt_close,
	.submit = crypt_submit,
	.truncate = block_filter_truncate,
};

struct block_node *crypt_node_above(struct block_node *file, struct crypt *crypt, bool other_iv)
{
	struct block_node *node = block_filter_above(&block_crypt, file);
	struct crypt_io *io = node->opaque;

	crypt_io_init(io, node, crypt, 0);
	io->other_iv = other_iv;
	block_filter_init(node);
	node->zero_past_end = false; /* it reads as noise */
	node->growable = file->growable;
	return node;
}
