/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed loop images (cloop 2.0), for reading: a table of offsets and blocks compressed by
 * zlib, as Knoppix had them.
 *
 * Thread: the node's loop.
 */
#include "config.h"

#include <errno.h>

#ifdef CONFIG_ZLIB
#include <zlib.h>
#endif

#include "block/format/mapped.h"

enum { CLOOP_HEADER = 136, CLOOP_MAX_BLOCK = 64 << 20 };

struct cloop {
	struct mapped m;
	uint32_t blocks;
};

static int find(struct mapped *m, uint64_t offset, struct waiter *w, struct mapped_run *run)
{
	struct cloop *s = container_of(m, struct cloop, m);
	uint64_t block = offset / m->unit, at = CLOOP_HEADER + block * 8, start, end;
	struct mapped_page *page;
	int ret = mapped_page(m, at, w, &page);

	if (ret)
		return ret;
	start = load_be64(mapped_at(page, at));
	ret = mapped_page(m, at + 8, w, &page);
	if (ret)
		return ret;
	end = load_be64(mapped_at(page, at + 8));
	if (end <= start || end - start > m->unit + m->unit / 512 + 1024 || start < m->data_start ||
	    !range_inside(start, end - start, m->file->length))
		return -EIO;
	run->type = MAPPED_PACKED;
	run->host = start;
	run->packed = end - start;
	run->start = block * m->unit;
	run->size = m->unit;
	return block < s->blocks ? 0 : -EIO;
}

static int unpack(struct mapped *m, const struct mapped_run *run, const uint8_t *in, uint8_t *out)
{
#ifdef CONFIG_ZLIB
	uLongf n = run->size;

	return uncompress(out, &n, in, run->packed) == Z_OK && n == run->size ? 0 : -EIO;
#else
	return -ENOTSUP;
#endif
}

static const struct mapped_ops ops = {.find = find, .unpack = unpack};

static bool cloop_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		       struct error **err)
{
	struct cloop *s = node->opaque;
	uint8_t h[CLOOP_HEADER];
	uint32_t block;

	if (!mapped_read_header(node, h, sizeof(h), err))
		return false;
	block = load_be32(h + 128);
	s->blocks = load_be32(h + 132);
	s->m.unit = block;
	s->m.data_start = CLOOP_HEADER + (s->blocks + UINT64_C(1)) * 8;
	if (!block || block % 512 || block > CLOOP_MAX_BLOCK) {
		error_set(err, "block_size %u must be a multiple of 512, and at most 64 MB", block);
		return false;
	}
	if (s->m.data_start > node->file->length) {
		error_set(err, "The table of offsets ends behind the file's end");
		return false;
	}
	if (!mapped_read_only(node, how, err))
		return false;
	node->length = (uint64_t)s->blocks * block;
	mapped_init(&s->m, node, &ops);
	return true;
}

static bool cloop_probe(const uint8_t *buf, size_t len)
{
	static const char script[] = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r "
				     "-t iso9660 /dev/cloop $1\n";

	return len >= sizeof(script) - 1 && !memcmp(buf, script, sizeof(script) - 1);
}

const struct block_driver block_cloop = {
	.name = "cloop",
	.node_size = sizeof(struct cloop),
	.req_size = MAPPED_REQ_SIZE,
	.probe = cloop_probe,
	.open = cloop_open,
	.close = mapped_close,
	.submit = mapped_submit,
	.status = mapped_status,
};
