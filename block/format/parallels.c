/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parallels expandable disks (QEMU's docs/interop/parallels.txt), for reading: a header, a table of
 * 32-bit entries right behind it, and clusters. Entries count sectors in the older kind and
 * clusters in the newer one. A check repairs what QEMU's does: entries that lead out of the file,
 * the mark of one who did not close the image, and what is left over at the file's end.
 *
 * Thread: the node's loop.
 */
#include <errno.h>

#include "block/format/mapped.h"

enum { PARALLELS_HEADER = 64, PARALLELS_OFF_IN_USE = 44, PARALLELS_IN_USE = 0x746f6e59 };

struct parallels {
	struct mapped m;
	uint64_t multiplier; /* sectors that an entry counts */
	uint32_t entries;
	uint64_t data; /* where clusters begin */
	bool in_use;   /* or was not closed properly */
	bool extended; /* there is a format extension, which refers to clusters of its own */
};

/* Pure. */
static bool parse(struct parallels *s, const uint8_t *h, uint64_t *size, struct error **err)
{
	bool ext = !memcmp(h, "WithouFreSpacExt", 16);
	uint32_t tracks = load_le32(h + 28);
	uint64_t sectors = load_le64(h + 36);

	s->multiplier = ext ? tracks : 1;
	s->in_use = load_le32(h + PARALLELS_OFF_IN_USE) == PARALLELS_IN_USE;
	s->extended = load_le64(h + 56);
	s->data = load_le32(h + 48) * UINT64_C(512);
	s->m.unit = tracks * UINT64_C(512);
	s->entries = load_le32(h + 32);
	if (!ext) /* the upper half is something else there */
		sectors &= UINT32_MAX;
	*size = sectors * 512;
	if (!ext && memcmp(h, "WithoutFreeSpace", 16))
		error_set(err, "Image not in Parallels format");
	else if (load_le32(h + 16) != 2)
		error_set(err, "Unsupported Parallels version %u", load_le32(h + 16));
	else if (!tracks)
		error_set(err, "Invalid image: Zero sectors per track");
	else if (tracks > INT32_MAX / 513)
		error_set(err, "Invalid image: Too big cluster");
	else if (sectors > (INT64_MAX - 511) / 512 || div_round_up(*size, s->m.unit) > s->entries)
		error_set(err, "Invalid image: The catalog is too small for the disk");
	else
		return true;
	return false;
}

static int entry_at(struct mapped *m, uint64_t unit, uint64_t *at)
{
	struct parallels *s = container_of(m, struct parallels, m);

	*at = PARALLELS_HEADER + unit * 4;
	return unit < s->entries ? 0 : -EIO;
}

static int decode(struct mapped *m, uint64_t unit, const uint8_t *entry, struct mapped_run *run)
{
	struct parallels *s = container_of(m, struct parallels, m);
	uint64_t e = load_le32(entry);

	if (!e)
		return 0;
	run->type = MAPPED_DATA;
	run->host = e * s->multiplier * 512;
	return mapped_inside(m, run->host) ? 0 : -EIO;
}

static const struct mapped_ops ops = {.entry_at = entry_at, .decode = decode};

static bool parallels_open(struct block_node *node, const struct block_open *how, struct opts *opts,
			   struct error **err)
{
	struct parallels *s = node->opaque;
	uint8_t h[PARALLELS_HEADER];

	if (!mapped_read_header(node, h, sizeof(h), err) || !parse(s, h, &node->length, err) ||
	    !mapped_read_only(node, how, err))
		return false;
	s->m.data_start = PARALLELS_HEADER + s->entries * UINT64_C(4);
	if (s->m.data_start > node->file->length) {
		error_set(err, "Invalid image: The catalog ends behind the file's end");
		return false;
	}
	if (!s->data)
		s->data = ALIGN_UP(s->m.data_start, 512);
	s->m.entry_bytes = 4;
	mapped_init(&s->m, node, &ops);
	return true;
}

static bool parallels_probe(const uint8_t *buf, size_t len)
{
	return len >= PARALLELS_HEADER && load_le32(buf + 16) == 2 &&
	       (!memcmp(buf, "WithoutFreeSpace", 16) || !memcmp(buf, "WithouFreSpacExt", 16));
}

static int mark_closed(struct parallels *s)
{
	static const uint8_t closed[4];
	int ret = block_pwrite(s->m.file, PARALLELS_OFF_IN_USE, closed, sizeof(closed), 0);

	if (!ret)
		ret = block_flush(s->m.file);
	s->in_use = ret != 0;
	return ret;
}

/* What follows the last cluster, which may be cut short itself. */
static int check_end(struct parallels *s, struct mapped_check *c, bool repair)
{
	uint64_t file = s->m.file->length, used = MAX(s->data, c->r->image_end), clusters;

	c->r->image_end = used;
	if (file <= used || s->extended)
		return 0;
	clusters = div_round_up(file - used, s->m.unit);
	mapped_check_say(c, "%s space leaked at the end of the image %llu",
			 repair ? "Repairing" : "ERROR", (unsigned long long)(file - used));
	c->r->leaks += clusters;
	if (!repair)
		return 0;
	c->r->leaks_fixed += clusters;
	return block_truncate(s->m.file, used, NULL);
}

static int parallels_check(struct block_node *node, unsigned fix, struct block_check *result,
			   const struct block_check_out *out)
{
	struct parallels *s = node->opaque;
	struct mapped_check c = {.m = &s->m,
				 .r = result,
				 .out = out,
				 .repair = fix & BLOCK_FIX_ERRORS};
	bool unclean = s->in_use;
	int ret;

	if (unclean)
		mapped_check_found(&c, c.repair, "image was not closed correctly");
	ret = mapped_check_units(&c);
	if (!ret && unclean && c.repair)
		ret = mark_closed(s);
	if (!ret) {
		mapped_check_overlaps(&c);
		ret = check_end(s, &c, fix & BLOCK_FIX_LEAKS);
	}
	mapped_check_end(&c);
	return ret;
}

const struct block_driver block_parallels = {
	.name = "parallels",
	.node_size = sizeof(struct parallels),
	.req_size = MAPPED_REQ_SIZE,
	.probe = parallels_probe,
	.open = parallels_open,
	.close = mapped_close,
	.submit = mapped_submit,
	.status = mapped_status,
	.check = parallels_check,
};
