/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The raw format: the file's bytes from offset on, size of them.
 *
 * If raw was only guessed, a guest that writes another format's magic to sector 0 would make the
 * next start take the disk for an image of the guest's design. Such a write fails with EPERM, as
 * QEMU's does. The sector as written so far is kept here, so that a magic cannot come in pieces
 * either.
 *
 * Thread: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/create.h"
#include "block/filter/filter.h"

struct raw_node {
	uint64_t offset;
	uint8_t sector0[512]; /* while node->probed */
};

static bool raw_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		     struct error **err)
{
	struct raw_node *s = node->opaque;
	uint64_t length = node->file->length, size = 0;
	bool has_size = opts_has(opts, "size");
	int ret;

	if (!opts_get_size(opts, "offset", 1, &s->offset, err) ||
	    !opts_get_size(opts, "size", 1, &size, err))
		return false;
	if (s->offset > length) {
		error_set(err,
			  "Offset (%llu) cannot be greater than size of the containing file (%llu)",
			  (unsigned long long)s->offset, (unsigned long long)length);
		return false;
	}
	if (has_size && !range_inside(s->offset, size, length)) {
		error_set(err,
			  "The sum of offset (%llu) and size (%llu) has to be smaller or equal "
			  "to the actual size of the containing file (%llu)",
			  (unsigned long long)s->offset, (unsigned long long)size,
			  (unsigned long long)length);
		return false;
	}
	if (has_size && !IS_ALIGNED(size, 512)) {
		error_set(err, "Specified size is not multiple of 512");
		return false;
	}
	node->length = ALIGN_DOWN(has_size ? size : length - s->offset, 512);
	node->limits = node->file->limits;
	node->zero_past_end = node->file->zero_past_end;
	if (node->probed && node->length >= sizeof(s->sector0)) {
		ret = block_pread(node->file, s->offset, s->sector0, sizeof(s->sector0));
		if (ret < 0) {
			error_set_errno(err, ret, "Could not read the first sector");
			return false;
		}
	}
	return true;
}

/* Whether the write may go on; sector0 then is what it will be. */
static bool guard_sector0(struct raw_node *s, const struct block_req *req)
{
	uint8_t sector[sizeof(s->sector0)];
	const char *unsupported;
	size_t at = req->offset, n = MIN(req->bytes, sizeof(sector) - at);

	memcpy(sector, s->sector0, sizeof(sector));
	if (req->act == BLOCK_WRITE)
		iov_to_buf(req->iov, req->iovcnt, req->iov_skip, sector + at, n);
	else
		memset(sector + at, 0, n);
	if (block_probe(sector, sizeof(sector), &unsupported) != &block_raw || unsupported)
		return false;
	memcpy(s->sector0, sector, sizeof(sector));
	return true;
}

static void raw_submit(struct block_node *node, struct block_req *req)
{
	struct raw_node *s = node->opaque;

	if (node->probed && (req->act == BLOCK_WRITE || req->act == BLOCK_WRITE_ZEROES) &&
	    req->offset < sizeof(s->sector0) && !guard_sector0(s, req)) {
		block_complete(req, -EPERM);
		return;
	}
	if (req->act == BLOCK_READ || req->act == BLOCK_WRITE)
		block_tell(node->file,
			   req->act == BLOCK_READ ? BLOCK_EV_READ_AIO : BLOCK_EV_WRITE_AIO);
	block_filter_pass(req, s->offset);
}

static int raw_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	struct raw_node *s = node->opaque;
	int ret;

	if (s->offset) {
		error_set(err, "Cannot resize a raw image with an offset");
		return -ENOTSUP;
	}
	ret = block_truncate(node->file, bytes, err);
	if (!ret)
		block_set_length(node, bytes);
	return ret;
}

static int raw_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode)
{
	struct raw_node *s = node->opaque;

	return block_preallocate(node->file, from + s->offset, mode);
}

static int raw_status(struct block_node *node, uint64_t offset, uint64_t bytes,
		      struct block_extent *out)
{
	struct raw_node *s = node->opaque;

	return block_status(node->file, offset + s->offset, bytes, out);
}

const struct block_driver block_raw = {
	.name = "raw",
	.node_size = sizeof(struct raw_node),
	.fast_zeroes = true,
	.open = raw_open,
	.submit = raw_submit,
	.truncate = raw_truncate,
	.preallocate = raw_preallocate,
	.status = raw_status,
	.create = block_create_raw,
	.create_options = block_raw_create_options,
};
