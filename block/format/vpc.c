/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual PC and Hyper-V disks (VHD; Microsoft's "Virtual Hard Disk Image Format Specification"),
 * fixed and dynamic. Differencing disks are refused by name.
 *
 * Fixed: the disk's bytes, then a footer. Dynamic: a copy of the footer, a header, a table with the
 * sector of each block, blocks with a bitmap of their sectors in front, and the footer.
 *
 * Option force_size_calc=chs|current_size|auto: the disk's size is the geometry's, or the footer's;
 * auto goes by who made the image, as QEMU does.
 *
 * Order of writes as in mapped.h. A new block lies where the footer was; the footer is written
 * behind it before the table. Until then the copy at the file's start is what counts.
 *
 * Thread: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "block/create.h"
#include "block/format/mapped.h"
#include "vmm/core/log.h"

enum {
	VPC_FOOTER = 512,
	VPC_DYN = 1024,
	VPC_TYPE_FIXED = 2,
	VPC_TYPE_DYNAMIC = 3,
	VPC_MAX_C = 65535,
	VPC_MAX_H = 16,
	VPC_MAX_S = 255,
	VPC_MAX_TABLE = 32 << 20,
};
#define VPC_CHS_MAX	(UINT64_C(1) * VPC_MAX_C * VPC_MAX_H * VPC_MAX_S)
#define VPC_MAX_SECTORS (2040 * GiB / 512)
#define VPC_UNUSED	UINT32_C(0xffffffff)

struct vpc {
	struct mapped m;
	uint64_t table;
	uint64_t entries; /* that the disk needs */
};

enum { SIZE_AUTO, SIZE_CHS, SIZE_CURRENT };

static uint32_t checksum(const uint8_t *buf, size_t len, size_t field)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		if (i < field || i >= field + 4)
			sum += buf[i];
	return ~sum;
}

/* The disk's size in sectors by what the footer says. */
static uint64_t footer_sectors(const uint8_t *f, int how)
{
	static const char *const exact[] = {"win ", "qem2", "d2v ", "CTXS", "tap"};
	uint64_t chs = (uint64_t)load_be16(f + 0x38) * f[0x3a] * f[0x3b];
	bool use_chs = true;

	for (size_t i = 0; i < ARRAY_SIZE(exact); i++)
		if (!memcmp(f + 0x1c, exact[i], 4))
			use_chs = false;
	if (how != SIZE_AUTO)
		use_chs = how == SIZE_CHS;
	return use_chs && (chs != VPC_CHS_MAX || how == SIZE_CHS) ? chs : load_be64(f + 0x30) / 512;
}

static bool read_footer(struct block_node *node, uint8_t *f, struct error **err)
{
	uint64_t length = node->file->length;
	int ret = block_pread(node->file, 0, f, VPC_FOOTER);

	/* A fixed disk has it at the end only. */
	if (!ret && memcmp(f, "conectix", 8) && length >= VPC_FOOTER)
		ret = block_pread(node->file, length - VPC_FOOTER, f, VPC_FOOTER);
	if (ret) {
		error_set_errno(err, ret, "Could not read the image's footer");
		return false;
	}
	if (memcmp(f, "conectix", 8)) {
		error_set(err, "invalid VPC image");
		return false;
	}
	if (load_be32(f + 0x40) != checksum(f, VPC_FOOTER, 0x40))
		log_warn("The header checksum of '%s' is incorrect.", node->filename);
	return true;
}

/* Dynamic disks */

static int entry_at(struct mapped *m, uint64_t unit, uint64_t *at)
{
	struct vpc *s = container_of(m, struct vpc, m);

	*at = s->table + unit * 4;
	return unit < s->entries ? 0 : -EIO;
}

static int decode(struct mapped *m, uint64_t unit, const uint8_t *entry, struct mapped_run *run)
{
	uint32_t sector = load_be32(entry);

	if (sector == VPC_UNUSED)
		return 0;
	run->type = MAPPED_DATA;
	run->host = sector * UINT64_C(512) + m->head;
	return sector * UINT64_C(512) >= m->data_start && mapped_inside(m, run->host) ? 0 : -EIO;
}

static int vpc_link(struct mapped *m, uint64_t unit, uint64_t host, struct waiter *w)
{
	uint64_t sector = (host - m->head) / 512, at;
	struct mapped_page *page;
	int ret = entry_at(m, unit, &at);

	if (ret || sector >= VPC_UNUSED)
		return ret ? ret : -EFBIG;
	ret = mapped_page(m, at, w, &page);
	if (ret)
		return ret;
	store_be32(mapped_at(page, at), sector);
	mapped_dirty(m, page, at, false);
	return 0;
}

/* Sectors that somebody left out of the block's bitmap are in use now. */
static int vpc_touch(struct mapped *m, uint64_t offset, uint64_t bytes, uint64_t host,
		     struct waiter *w)
{
	uint64_t in = offset % m->unit, first = in / 512, last = (in + bytes - 1) / 512;
	uint64_t bitmap = host - in - m->head;
	struct mapped_page *page;

	for (uint64_t i = first; i <= last; i++) {
		uint64_t at = bitmap + i / 8;
		uint8_t bit = 0x80 >> (i % 8);
		int ret;

		if (i == first || at % MAPPED_PAGE == 0) {
			ret = mapped_page(m, at, w, &page);
			if (ret)
				return ret;
		}
		if (*mapped_at(page, at) & bit)
			continue;
		if (m->frozen) {
			waitq_add(&m->thawed, w);
			return -EAGAIN;
		}
		*mapped_at(page, at) |= bit;
		mapped_dirty(m, page, at, false);
	}
	return 0;
}

static const struct mapped_ops dynamic_ops = {
	.entry_at = entry_at,
	.decode = decode,
	.link = vpc_link,
	.touch = vpc_touch,
};

/* Where the last block ends. */
static bool find_end(struct block_node *node, struct vpc *s, struct error **err)
{
	uint8_t *table = mapped_read_table(node, s->table, s->entries * 4, "block table", err);

	if (!table)
		return false;
	s->m.end = s->m.data_start;
	for (uint64_t i = 0; i < s->entries; i++) {
		uint64_t at = load_be32(table + i * 4) * UINT64_C(512);

		if (load_be32(table + i * 4) != VPC_UNUSED && at < node->file->length)
			s->m.end = MAX(s->m.end, at + s->m.head + s->m.unit);
	}
	free(table);
	return true;
}

static bool open_dynamic(struct block_node *node, const uint8_t *footer, struct error **err)
{
	struct vpc *s = node->opaque;
	uint64_t at = load_be64(footer + 0x10), length = node->file->length;
	uint8_t d[VPC_DYN];
	int ret = -EINVAL;

	if (IS_ALIGNED(at, 512) && range_inside(at, sizeof(d), length))
		ret = block_pread(node->file, at, d, sizeof(d));
	if (ret) {
		error_set_errno(err, ret, "Could not read the dynamic disk's header");
		return false;
	}
	if (memcmp(d, "cxsparse", 8)) {
		error_set(err, "Dynamic disk header is invalid");
		return false;
	}
	s->table = load_be64(d + 16);
	s->m.unit = load_be32(d + 32);
	if (!is_pow2(s->m.unit) || s->m.unit < 4096 || s->m.unit > 256 * MiB) {
		error_set(err, "Invalid block size %llu", (unsigned long long)s->m.unit);
		return false;
	}
	s->entries = div_round_up(node->length, s->m.unit);
	if (s->entries > load_be32(d + 28)) {
		error_set(err, "Page table too small");
		return false;
	}
	if (s->entries * 4 > VPC_MAX_TABLE) {
		error_set(err, "Page table too large");
		return false;
	}
	if (!IS_ALIGNED(s->table, 512) || s->table < VPC_FOOTER ||
	    !range_inside(s->table, s->entries * 4, length) ||
	    ranges_overlap(s->table, s->entries * 4, at, sizeof(d))) {
		error_set(err, "Page table offset 0x%llx is invalid", (unsigned long long)s->table);
		return false;
	}
	s->m.entry_bytes = 4;
	s->m.head = ALIGN_UP(s->m.unit / 512 / 8, 512);
	s->m.data_start = ALIGN_UP(MAX(s->table + s->entries * 4, at + sizeof(d)), 512);
	if (node->read_only) {
		mapped_init(&s->m, node, &dynamic_ops);
		return true;
	}
	if (!find_end(node, s, err))
		return false;
	s->m.head_data = xcalloc(1, s->m.head);
	memset(s->m.head_data, 0xff, s->m.unit / 512 / 8);
	s->m.tail = xmalloc(VPC_FOOTER);
	memcpy(s->m.tail, footer, VPC_FOOTER);
	mapped_init(&s->m, node, &dynamic_ops);
	return true;
}

/* Fixed disks */

static int fixed_find(struct mapped *m, uint64_t offset, struct waiter *w, struct mapped_run *run)
{
	run->type = MAPPED_DATA;
	run->host = offset;
	run->bytes = m->node->length - offset;
	return 0;
}

static const struct mapped_ops fixed_ops = {.find = fixed_find};

static bool vpc_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		     struct error **err)
{
	static const char *const calc[] = {"auto", "chs", "current_size", NULL};
	struct vpc *s = node->opaque;
	uint8_t footer[VPC_FOOTER];
	int size = SIZE_AUTO;
	uint64_t sectors;
	uint32_t type;

	if (!opts_get_enum(opts, "force_size_calc", calc, &size, err) ||
	    !read_footer(node, footer, err))
		return false;
	type = load_be32(footer + 0x3c);
	sectors = footer_sectors(footer, size);
	if (type != VPC_TYPE_FIXED && type != VPC_TYPE_DYNAMIC) {
		error_set(err,
			  type == 4 ? "Differencing VHD images are not supported"
				    : "Unknown type of VHD image: %u",
			  type);
		return false;
	}
	if (sectors > VPC_MAX_SECTORS) {
		error_set(err, "The image is larger than 2040 GiB");
		return false;
	}
	node->length = sectors * 512;
	if (type == VPC_TYPE_DYNAMIC)
		return open_dynamic(node, footer, err);
	if (node->length > node->file->length) {
		error_set(err, "The image's file is too short for its size");
		return false;
	}
	s->m.unit = MAX(node->length, UINT64_C(512));
	mapped_init(&s->m, node, &fixed_ops);
	return true;
}

static bool vpc_probe(const uint8_t *buf, size_t len)
{
	return len >= 8 && !memcmp(buf, "conectix", 8);
}

/* New images */

struct chs {
	uint64_t c;
	unsigned h, s;
};

/* The specification's appendix: the geometry that holds at most so many sectors. */
static struct chs geometry(uint64_t sectors)
{
	uint64_t tracks;
	struct chs g = {.h = 16};

	sectors = MIN(sectors, VPC_CHS_MAX);
	if (sectors >= UINT64_C(65535) * 16 * 63) {
		g.s = 255;
		tracks = sectors / g.s;
	} else {
		g.s = 17;
		tracks = sectors / g.s;
		g.h = MAX((tracks + 1023) / 1024, UINT64_C(4));
		if (tracks >= g.h * UINT64_C(1024) || g.h > 16) {
			g.s = 31;
			g.h = 16;
			tracks = sectors / g.s;
		}
		if (tracks >= g.h * UINT64_C(1024)) {
			g.s = 63;
			g.h = 16;
			tracks = sectors / g.s;
		}
	}
	g.c = tracks / g.h;
	return g;
}

static void make_footer(uint8_t *f, uint64_t sectors, struct chs g, bool fixed)
{
	memset(f, 0, VPC_FOOTER);
	memcpy(f, "conectix", 8);
	store_be32(f + 8, 2);
	store_be32(f + 0xc, 0x10000);
	store_be64(f + 0x10, fixed ? UINT64_MAX : VPC_FOOTER);
	store_be32(f + 0x18, time(NULL) - 946684800); /* since 2000 */
	memcpy(f + 0x1c, "vmm ", 4);
	store_be32(f + 0x20, 0x10000);
	memcpy(f + 0x24, "Wi2k", 4);
	store_be64(f + 0x28, sectors * 512);
	store_be64(f + 0x30, sectors * 512);
	store_be16(f + 0x38, g.c);
	f[0x3a] = g.h;
	f[0x3b] = g.s;
	store_be32(f + 0x3c, fixed ? VPC_TYPE_FIXED : VPC_TYPE_DYNAMIC);
	block_create_uuid(f + 0x44);
	store_be32(f + 0x40, checksum(f, VPC_FOOTER, 0x40));
}

static int create_dynamic(int fd, const uint8_t *footer, uint64_t sectors)
{
	uint64_t entries = div_round_up(sectors, 2 * MiB / 512), table = VPC_FOOTER + VPC_DYN;
	uint8_t d[VPC_DYN] = {0};
	int ret;

	memcpy(d, "cxsparse", 8);
	store_be64(d + 8, UINT64_MAX);
	store_be64(d + 16, table);
	store_be32(d + 24, 0x10000);
	store_be32(d + 28, entries);
	store_be32(d + 32, 2 * MiB);
	store_be32(d + 36, checksum(d, sizeof(d), 36));
	ret = block_create_write(fd, 0, footer, VPC_FOOTER);
	if (!ret)
		ret = block_create_write(fd, VPC_FOOTER, d, sizeof(d));
	if (!ret)
		ret = block_create_fill(fd, table, 0xff, ALIGN_UP(entries * 4, 512));
	if (!ret)
		ret = block_create_write(fd, table + ALIGN_UP(entries * 4, 512), footer,
					 VPC_FOOTER);
	return ret;
}

static bool vpc_create(const char *filename, const struct block_create *c, struct error **err)
{
	static const char *const formats[] = {"dynamic", "fixed", NULL};
	struct chs g = {VPC_MAX_C, VPC_MAX_H, VPC_MAX_S};
	uint64_t sectors = div_round_up(c->size, 512);
	uint8_t footer[VPC_FOOTER];
	bool force = false;
	int fixed = 0, fd, ret;

	if (!opts_get_enum(c->opts, "subformat", formats, &fixed, err) ||
	    !opts_get_bool(c->opts, "force_size", &force, err))
		return false;
	/* Rounded up to a size that a geometry has, so that nothing is cut off. */
	for (uint64_t i = 0; !force && sectors < VPC_CHS_MAX; i++) {
		g = geometry(sectors + i);
		if (g.c * g.h * g.s >= sectors)
			break;
	}
	if (!force && sectors < VPC_CHS_MAX)
		sectors = g.c * g.h * g.s;
	if (sectors > VPC_MAX_SECTORS) {
		error_set(err, "Disk size is too large, max size is 2040 GiB");
		return false;
	}
	make_footer(footer, sectors, g, fixed);
	fd = block_create_file(filename, err);
	if (fd < 0)
		return false;
	if (fixed)
		ret = block_create_write(fd, sectors * 512, footer, sizeof(footer));
	else
		ret = create_dynamic(fd, footer, sectors);
	return block_create_end(filename, fd, ret, err);
}

static const struct block_create_option options[] = {
	{"size", "size", NULL, "Virtual disk size"},
	{"subformat", "str", NULL,
	 "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed}"},
	{"force_size", "bool (on/off)", NULL,
	 "The size as given, rather than the nearest one that a CHS geometry has"},
	{0},
};

const struct block_driver block_vpc = {
	.name = "vpc",
	.node_size = sizeof(struct vpc),
	.req_size = MAPPED_REQ_SIZE,
	.probe = vpc_probe,
	.open = vpc_open,
	.close = mapped_close,
	.submit = mapped_submit,
	.info = mapped_info,
	.status = mapped_status,
	.create = vpc_create,
	.create_options = options,
};
