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

static int crypt_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode)
{
	return block_preallocate(node->file, from, mode);
}

static const struct block_driver block_crypt = {
	.name = "crypt",
	.node_size = sizeof(struct crypt_io),
	.req_size = sizeof(struct crypt_req),
	.filter = true,
	.close = crypt_close,
	.submit = crypt_submit,
	.truncate = block_filter_truncate,
	.preallocate = crypt_preallocate,
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
