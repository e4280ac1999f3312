/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bochs' growing disks ("Redolog", "Growing", versions 1 and 2), for reading: a catalog of extents,
 * each a bitmap of its sectors and the sectors.
 *
 * Thread: the node's loop.
 */
#include <errno.h>

#include "block/format/mapped.h"

enum { BOCHS_HEADER = 512, BOCHS_MAX_CATALOG = 0x100000, BOCHS_MAX_EXTENT = 0x800000 };

struct bochs {
	struct mapped m;
	uint32_t header, catalog; /* bytes; entries */
	uint64_t bitmap, extent;  /* bytes in the file */
};

/* Pure. */
static bool parse(struct bochs *s, const uint8_t *h, uint64_t *size, struct error **err)
{
	uint32_t version = load_le32(h + 64), bitmap = load_le32(h + 76);

	*size = load_le64(h + (version == 0x10000 ? 84 : 88));
	s->header = load_le32(h + 68);
	s->catalog = load_le32(h + 72);
	s->bitmap = ALIGN_UP((uint64_t)bitmap, 512);
	s->extent = load_le32(h + 80);
	s->m.unit = s->extent;
	if (strncmp((const char *)h, "Bochs Virtual HD Image", 32) ||
	    strncmp((const char *)h + 32, "Redolog", 16) ||
	    strncmp((const char *)h + 48, "Growing", 16) ||
	    (version != 0x10000 && version != 0x20000))
		error_set(err, "Image not in Bochs format");
	else if (s->catalog > BOCHS_MAX_CATALOG)
		error_set(err, "Catalog size is too large");
	else if (s->header < BOCHS_HEADER || s->header > MiB || !IS_ALIGNED(s->header, 4))
		error_set(err, "Header size %u is invalid", s->header);
	else if (s->extent < 512 || !is_pow2(s->extent) || s->extent > BOCHS_MAX_EXTENT)
		error_set(err, "Extent size %llu is invalid", (unsigned long long)s->extent);
	else if (bitmap < div_round_up(s->extent / 512, 8) || bitmap > BOCHS_MAX_EXTENT)
		error_set(err, "Bitmap size %u is invalid", bitmap);
	else if (*size > INT64_MAX - 511 || s->catalog < div_round_up(*size, s->extent))
		error_set(err, "Catalog size is too small for this disk size");
	else
		return true;
	return false;
}

static int find(struct mapped *m, uint64_t offset, struct waiter *w, struct mapped_run *run)
{
	struct bochs *s = container_of(m, struct bochs, m);
	uint64_t at = s->header + offset / s->extent * 4, in = offset % s->extent,
		 sector = in / 512;
	uint64_t bitmap;
	struct mapped_page *page;
	uint32_t entry;
	bool present;
	int ret = mapped_page(m, at, w, &page);

	if (ret)
		return ret;
	entry = load_le32(mapped_at(page, at));
	run->bytes = s->extent - in;
	if (entry == UINT32_MAX)
		return 0;
	bitmap = m->data_start + entry * (s->bitmap + s->extent);
	if (!mapped_inside(m, bitmap))
		return -EIO;
	at = bitmap + sector / 8;
	ret = mapped_page(m, at, w, &page);
	if (ret)
		return ret;
	present = *mapped_at(page, at) & (1 << sector % 8);
	run->type = present ? MAPPED_DATA : MAPPED_NONE;
	run->host = bitmap + s->bitmap + in;
	run->bytes = 512 - in % 512;
	while (++sector < s->extent / 512) {
		at = bitmap + sector / 8;
		if (at - page->offset >= MAPPED_PAGE ||
		    present != !!(*mapped_at(page, at) & (1 << sector % 8)))
			break;
		run->bytes += 512;
	}
	return 0;
}

static const struct mapped_ops ops = {.find = find};

static bool bochs_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		       struct error **err)
{
	struct bochs *s = node->opaque;
	uint8_t h[BOCHS_HEADER];
	uint64_t size;

	if (!mapped_read_header(node, h, sizeof(h), err) || !parse(s, h, &size, err) ||
	    !mapped_read_only(node, how, err))
		return false;
	s->m.data_start = s->header + s->catalog * UINT64_C(4);
	if (s->m.data_start > node->file->length) {
		error_set(err, "The catalog ends behind the file's end");
		return false;
	}
	node->length = ALIGN_DOWN(size, 512);
	mapped_init(&s->m, node, &ops);
	return true;
}

static bool bochs_probe(const uint8_t *buf, size_t len)
{
	return len >= BOCHS_HEADER && !strncmp((const char *)buf, "Bochs Virtual HD Image", 32) &&
	       !strncmp((const char *)buf + 32, "Redolog", 16) &&
	       !strncmp((const char *)buf + 48, "Growing", 16);
}

const struct block_driver block_bochs = {
	.name = "bochs",
	.node_size = sizeof(struct bochs),
	.req_size = MAPPED_REQ_SIZE,
	.probe = bochs_probe,
	.open = bochs_open,
	.close = mapped_close,
	.submit = mapped_submit,
	.status = mapped_status,
};
