/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert -C: data goes from file to file without passing through here (copy_file_range), which a
 * file system may do by sharing blocks. That works where a raw target takes what a source has as it
 * is, in a plain file; from where it does not on, the ordinary copy goes on. Main thread.
 */
#include <errno.h>
#include <unistd.h>

#include "block/file.h"
#include "block/img/copy.h"
#include "block/qcow2/qcow2.h"

enum { PIECE = 64 << 20 };

static bool is_plain(const struct block_node *node)
{
	return node && node->drv == &block_file;
}

/* The file with the layer's bytes as they are, or NULL. */
static struct block_node *plain_file(struct block_node *layer)
{
	struct block_node *file = layer->data ? layer->data : layer->file;

	if (is_plain(layer))
		return layer;
	if (layer->drv == &block_qcow2 && ((struct qcow2 *)layer->opaque)->h.crypt_method)
		return NULL;
	if (layer->drv != &block_qcow2 && layer->drv != &block_raw)
		return NULL;
	return is_plain(file) ? file : NULL;
}

static int copy_range(struct block_node *from, uint64_t at, struct block_node *to, uint64_t there,
		      uint64_t bytes)
{
	struct file_node *in = from->opaque, *out = to->opaque;
	off64_t a = at, b = there;

	while (bytes) {
		ssize_t n = copy_file_range(in->fd, &a, out->fd, &b, MIN(bytes, (uint64_t)PIECE),
					    0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO; /* the file ends before the disk does */
		bytes -= n;
	}
	return 0;
}

/* One range of the source. False: it wants the ordinary copy. */
static bool offload_range(struct img_copy *c, const struct img_range *e, struct block_node *to,
			  uint64_t delta, uint64_t at, uint64_t bytes)
{
	struct block_node *from = e->data && e->has_offset ? plain_file(e->node) : NULL;

	if (e->zero)
		return c->zero_target || !block_zero(c->dst, at, bytes, BLOCK_MAY_UNMAP);
	if (!from || copy_range(from, e->offset, to, at + delta, bytes))
		return false;
	c->dst->written = to->written = true;
	((struct file_node *)to->opaque)->data_end = 0;
	return true;
}

void img_offload(struct img_copy *c)
{
	struct block_node *to = plain_file(c->dst);
	struct block_extent first;
	struct img_range e;

	if (!to || c->dst->drv == &block_qcow2 || c->srcs != 1 || c->rate || c->depth ||
	    !c->bytes || block_status(c->dst, 0, c->bytes, &first) || !first.has_offset)
		return;
	while (c->begin < c->bytes) {
		uint64_t bytes;

		if (img_resolve(c->src[0], c->begin, MIN(c->bytes - c->begin, (uint64_t)PIECE), &e))
			return;
		bytes = e.length;
		if (!offload_range(c, &e, to, first.offset, c->begin, bytes))
			return;
		c->begin += bytes;
		img_progress(c->progress, c->begin, c->bytes);
	}
}
