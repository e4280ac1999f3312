/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hyper-V disks, version 2 (VHDX; [MS-VHDX]), dynamic and fixed. Differencing disks are refused by
 * name.
 *
 * Two headers take turns, the one with the higher number counts; a region table says where the
 * metadata and the block table are. An image with entries in its log is replayed when it is opened
 * for writing, and refused when it is only read, as QEMU does.
 *
 * Order of writes as in mapped.h. The log is for updates that a power cut could tear; here the only
 * metadata that changes while an image is open are block table entries of 8 bytes, which lie in one
 * sector each and are written after their block is durable, so that the log stays empty. The
 * headers are written when the image is opened for writing, the one that does not count first.
 *
 * Thread: the node's loop.
 */
#include "block/format/vhdx.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/create.h"
#include "block/format/mapped.h"

enum {
	HEADER_1 = 64 << 10,
	HEADER_2 = 128 << 10,
	HEADER_BYTES = 4096,
	REGIONS_1 = 192 << 10,
	REGIONS_2 = 256 << 10,
	REGIONS_BYTES = 64 << 10,
	META_TABLE = 64 << 10,
	MAX_ENTRIES = 2047,
	BLOCK_STATE = 7,
	BLOCK_NOT_PRESENT = 0,
	BLOCK_UNDEFINED = 1,
	BLOCK_ZERO = 2,
	BLOCK_UNMAPPED = 3,
	BLOCK_UNMAPPED_OLD = 5,
	BLOCK_PRESENT = 6,
};

/* Identifiers as they are on the disk. */
static const uint8_t bat_guid[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
				     0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
static const uint8_t meta_guid[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
				      0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};

enum { ITEM_PARAMETERS, ITEM_SIZE, ITEM_PAGE83, ITEM_LOGICAL, ITEM_PHYSICAL, ITEMS };
static const struct {
	uint8_t guid[16];
	uint32_t bytes, flags;
} items[ITEMS] = {
	{{0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7,
	  0x6b},
	 8,
	 4},
	{{0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4,
	  0xb8},
	 8,
	 6},
	{{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7,
	  0x46},
	 16,
	 6},
	{{0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab,
	  0x5f},
	 4,
	 6},
	{{0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5,
	  0x56},
	 4,
	 6},
};

struct region {
	uint64_t offset, bytes;
};

struct vhdx {
	struct mapped m;
	uint8_t header[HEADER_BYTES]; /* the one that counts */
	bool second;		      /* it is at HEADER_2 */
	bool replayed;		      /* its log, when it was opened */
	struct region log, bat, meta;
	uint64_t blocks, ratio;
};

static bool sum_ok(uint8_t *buf, size_t bytes)
{
	uint32_t stored = load_le32(buf + 4), sum;

	store_le32(buf + 4, 0);
	sum = vhdx_crc(0, buf, bytes);
	store_le32(buf + 4, stored);
	return sum == stored;
}

static void put_sum(uint8_t *buf, size_t bytes)
{
	store_le32(buf + 4, 0);
	store_le32(buf + 4, vhdx_crc(0, buf, bytes));
}

static bool header_ok(uint8_t *h)
{
	return !memcmp(h, "head", 4) && sum_ok(h, HEADER_BYTES) && load_le16(h + 66) == 1;
}

static bool read_header(struct block_node *node, struct vhdx *s, struct error **err)
{
	uint8_t other[HEADER_BYTES], id[8];
	bool one, two;
	int ret = block_pread(node->file, 0, id, sizeof(id));

	if (!ret)
		ret = block_pread(node->file, HEADER_1, s->header, HEADER_BYTES);
	if (!ret)
		ret = block_pread(node->file, HEADER_2, other, HEADER_BYTES);
	if (ret) {
		error_set_errno(err, ret, "Could not read the image's header");
		return false;
	}
	if (memcmp(id, "vhdxfile", 8)) {
		error_set(err, "Image is not in VHDX format");
		return false;
	}
	one = header_ok(s->header);
	two = header_ok(other);
	if (!one && !two) {
		error_set(err, "No valid VHDX header found");
		return false;
	}
	s->second = two && (!one || load_le64(other + 8) > load_le64(s->header + 8));
	if (s->second)
		memcpy(s->header, other, HEADER_BYTES);
	s->log.offset = load_le64(s->header + 72);
	s->log.bytes = load_le32(s->header + 68);
	return true;
}

/* Writes both headers anew: with other identities, since the contents are going to change, and
 * without a log. */
static bool write_headers(struct block_node *node, struct vhdx *s, struct error **err)
{
	int ret = 0;

	block_create_uuid(s->header + 16);
	block_create_uuid(s->header + 32);
	memset(s->header + 48, 0, 16);
	for (int i = 0; i < 2 && !ret; i++) {
		store_le64(s->header + 8, load_le64(s->header + 8) + 1);
		put_sum(s->header, HEADER_BYTES);
		s->second = !s->second;
		ret = block_pwrite(node->file, s->second ? HEADER_2 : HEADER_1, s->header,
				   HEADER_BYTES, 0);
		if (!ret)
			ret = block_flush(node->file);
	}
	if (ret)
		error_set_errno(err, ret, "Could not write the image's headers");
	return !ret;
}

static bool open_log(struct block_node *node, struct vhdx *s, struct error **err)
{
	struct vhdx_log log = {.guid = s->header + 48, .length = s->log.bytes};
	uint8_t *data;
	bool ok;

	if (block_buf_is_zero(s->header + 48, 16))
		return true;
	if (load_le16(s->header + 64) || !s->log.bytes || !IS_ALIGNED(s->log.bytes, MiB) ||
	    s->log.bytes > VHDX_MAX_LOG) {
		error_set(err, "Unsupported VHDX log: version %u, %llu bytes",
			  load_le16(s->header + 64), (unsigned long long)s->log.bytes);
		return false;
	}
	data = mapped_read_table(node, s->log.offset, s->log.bytes, "image's log", err);
	if (!data)
		return false;
	log.data = data;
	ok = vhdx_log_find(&log, err);
	if (ok && log.count && node->read_only) {
		error_set(err,
			  "VHDX image file '%s' opened read-only, but contains a log that needs "
			  "to be replayed. To replay the log, run: vmm-img check -r all '%s'",
			  node->filename, node->filename);
		ok = false;
	}
	if (ok && log.count)
		ok = s->replayed = vhdx_log_replay(&log, node->file, err);
	free(data);
	return ok;
}

static bool region_ok(const struct vhdx *s, const struct region *r)
{
	return IS_ALIGNED(r->offset, MiB) && r->offset >= MiB && r->bytes &&
	       range_inside(r->offset, r->bytes, VHDX_MAX_FILE) &&
	       !ranges_overlap(r->offset, r->bytes, s->log.offset, s->log.bytes);
}

static bool read_regions(struct block_node *node, struct vhdx *s, struct error **err)
{
	uint8_t *t = mapped_read_table(node, REGIONS_1, REGIONS_BYTES, "region table", err);
	uint32_t count;
	bool ok = false;

	if (t && (memcmp(t, "regi", 4) || !sum_ok(t, REGIONS_BYTES))) {
		free(t);
		t = mapped_read_table(node, REGIONS_2, REGIONS_BYTES, "region table", err);
	}
	if (!t)
		return false;
	count = load_le32(t + 8);
	if (memcmp(t, "regi", 4) || !sum_ok(t, REGIONS_BYTES) || count > MAX_ENTRIES) {
		error_set(err, "The image's region tables are damaged");
		goto out;
	}
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *e = t + 16 + i * 32;
		struct region r = {load_le64(e + 16), load_le32(e + 24)};
		struct region *to = !memcmp(e, bat_guid, 16)	? &s->bat
				    : !memcmp(e, meta_guid, 16) ? &s->meta
								: NULL;

		if (to && (to->bytes || !region_ok(s, &r))) {
			error_set(err, "The image's region table has a bad entry");
			goto out;
		}
		if (to)
			*to = r;
		else if (load_le32(e + 28) & 1) {
			error_set(err, "The image has a required region of unknown kind");
			goto out;
		}
	}
	ok = s->bat.bytes && s->meta.bytes && s->meta.bytes >= META_TABLE &&
	     !ranges_overlap(s->bat.offset, s->bat.bytes, s->meta.offset, s->meta.bytes);
	if (!ok)
		error_set(err, "The image's region table is incomplete");
out:
	free(t);
	return ok;
}

/* The items' values; false if one is missing, or needed and not known. */
static bool read_items(struct block_node *node, struct vhdx *s, uint8_t values[ITEMS][16],
		       struct error **err)
{
	uint8_t *t = mapped_read_table(node, s->meta.offset, META_TABLE, "metadata table", err);
	bool seen[ITEMS] = {0}, ok = false;
	uint32_t count;

	if (!t)
		return false;
	count = load_le16(t + 10);
	if (memcmp(t, "metadata", 8) || count > MAX_ENTRIES) {
		error_set(err, "The image's metadata table is damaged");
		goto out;
	}
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *e = t + 32 + i * 32;
		uint32_t offset = load_le32(e + 16), bytes = load_le32(e + 20), k = 0;

		while (k < ITEMS && memcmp(e, items[k].guid, 16))
			k++;
		if (k == ITEMS) {
			if (!(load_le32(e + 24) & 4))
				continue;
			error_set(err, "The image has a required metadata item of unknown kind");
			goto out;
		}
		if (seen[k] || bytes < items[k].bytes || offset < META_TABLE ||
		    !range_inside(offset, bytes, s->meta.bytes) ||
		    block_pread(node->file, s->meta.offset + offset, values[k], items[k].bytes)) {
			error_set(err, "The image's metadata table has a bad entry");
			goto out;
		}
		seen[k] = true;
	}
	ok = seen[ITEM_PARAMETERS] && seen[ITEM_SIZE] && seen[ITEM_LOGICAL];
	if (!ok)
		error_set(err, "The image's metadata is incomplete");
out:
	free(t);
	return ok;
}

static bool read_metadata(struct block_node *node, struct vhdx *s, struct error **err)
{
	uint8_t values[ITEMS][16] = {0};
	uint64_t block, size, entries;
	uint32_t sector;

	if (!read_items(node, s, values, err))
		return false;
	block = load_le32(values[ITEM_PARAMETERS]);
	size = load_le64(values[ITEM_SIZE]);
	sector = load_le32(values[ITEM_LOGICAL]);
	if (load_le32(values[ITEM_PARAMETERS] + 4) & 2) {
		error_set(err, "Differencing VHDX images are not supported");
		return false;
	}
	if (!is_pow2(block) || block < MiB || block > 256 * MiB) {
		error_set(err, "Invalid block size %llu", (unsigned long long)block);
		return false;
	}
	if (sector != 512 && sector != 4096) {
		error_set(err, "Invalid logical sector size %u", sector);
		return false;
	}
	if (size > 64 * TiB || !IS_ALIGNED(size, sector)) {
		error_set(err, "Invalid disk size %llu", (unsigned long long)size);
		return false;
	}
	node->length = size;
	s->m.unit = block;
	s->blocks = div_round_up(size, block);
	s->ratio = (sector * UINT64_C(8388608)) / block;
	entries = s->blocks ? s->blocks + (s->blocks - 1) / s->ratio : 0;
	if (entries * 8 > s->bat.bytes ||
	    !range_inside(s->bat.offset, entries * 8, node->file->length)) {
		error_set(err, "The image's block table is too short");
		return false;
	}
	return true;
}

static int entry_at(struct mapped *m, uint64_t unit, uint64_t *at)
{
	struct vhdx *s = container_of(m, struct vhdx, m);

	*at = s->bat.offset + (unit + unit / s->ratio) * 8;
	return unit < s->blocks ? 0 : -EIO;
}

static bool hits(const struct vhdx *s, const struct region *r, uint64_t host)
{
	return ranges_overlap(host, s->m.unit, r->offset, r->bytes);
}

static int decode(struct mapped *m, uint64_t unit, const uint8_t *entry, struct mapped_run *run)
{
	struct vhdx *s = container_of(m, struct vhdx, m);
	uint64_t e = load_le64(entry);

	switch (e & BLOCK_STATE) {
	case BLOCK_NOT_PRESENT:
		return 0;
	case BLOCK_UNDEFINED:
	case BLOCK_ZERO:
	case BLOCK_UNMAPPED:
	case BLOCK_UNMAPPED_OLD:
		run->type = MAPPED_ZERO;
		return 0;
	case BLOCK_PRESENT:
		run->type = MAPPED_DATA;
		run->host = ALIGN_DOWN(e, MiB);
		if (!mapped_inside(m, run->host) || hits(s, &s->log, run->host) ||
		    hits(s, &s->bat, run->host) || hits(s, &s->meta, run->host))
			return -EIO;
		return 0;
	}
	return -EIO;
}

static int vhdx_link(struct mapped *m, uint64_t unit, uint64_t host, struct waiter *w)
{
	struct mapped_page *page;
	uint64_t at;
	int ret = entry_at(m, unit, &at);

	if (!ret)
		ret = mapped_page(m, at, w, &page);
	if (ret)
		return ret;
	store_le64(mapped_at(page, at), host | BLOCK_PRESENT);
	mapped_dirty(m, page, at, false);
	return 0;
}

static const struct mapped_ops ops = {.entry_at = entry_at, .decode = decode, .link = vhdx_link};

/* Behind all blocks, even one that the file's end cuts short. */
static bool find_end(struct block_node *node, struct vhdx *s, struct error **err)
{
	uint64_t bytes = s->blocks ? (s->blocks + (s->blocks - 1) / s->ratio) * 8 : 0;

	s->m.end = ALIGN_UP(node->file->length, MiB);
	s->m.end = MAX(s->m.end, s->bat.offset + s->bat.bytes);
	s->m.end = MAX(s->m.end, s->meta.offset + s->meta.bytes);
	s->m.end = MAX(s->m.end, s->log.offset + s->log.bytes);
	for (uint64_t at = 0; at < bytes; at += MiB) {
		uint64_t n = MIN(bytes - at, MiB);
		uint8_t *part = mapped_read_table(node, s->bat.offset + at, n, "block table", err);

		if (!part)
			return false;
		for (uint64_t i = 0; i < n; i += 8) {
			uint64_t e = load_le64(part + i), host = ALIGN_DOWN(e, MiB);

			if ((e & BLOCK_STATE) == BLOCK_PRESENT && host < node->file->length)
				s->m.end = MAX(s->m.end, host + s->m.unit);
		}
		free(part);
	}
	return true;
}

static bool vhdx_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		      struct error **err)
{
	struct vhdx *s = node->opaque;

	if (!read_header(node, s, err) || !open_log(node, s, err))
		return false;
	if (s->log.offset > VHDX_MAX_FILE) {
		error_set(err, "Invalid VHDX log offset");
		return false;
	}
	if (!read_regions(node, s, err) || !read_metadata(node, s, err))
		return false;
	s->m.entry_bytes = 8;
	s->m.data_start = MiB;
	if (!node->read_only && (!find_end(node, s, err) || !write_headers(node, s, err)))
		return false;
	mapped_init(&s->m, node, &ops);
	return true;
}

static bool vhdx_probe(const uint8_t *buf, size_t len)
{
	return len >= 8 && !memcmp(buf, "vhdxfile", 8);
}

/* New images */

struct layout {
	uint64_t size, block, log, bat_bytes, data, blocks, ratio;
	bool fixed, zero;
};

static bool plan(struct layout *l, const struct block_create *c, struct error **err)
{
	static const char *const formats[] = {"dynamic", "fixed", NULL};
	int fixed = 0;

	*l = (struct layout){.size = ALIGN_UP(c->size, 512), .log = MiB, .zero = true};
	if (!opts_get_enum(c->opts, "subformat", formats, &fixed, err) ||
	    !opts_get_size(c->opts, "block_size", 1, &l->block, err) ||
	    !opts_get_size(c->opts, "log_size", 1, &l->log, err) ||
	    !opts_get_bool(c->opts, "block_state_zero", &l->zero, err))
		return false;
	l->fixed = fixed;
	if (c->size > 64 * TiB) {
		error_set(err, "Image size too large; max of 64TB");
		return false;
	}
	if (!l->log || !IS_ALIGNED(l->log, MiB) || l->log > VHDX_MAX_LOG) {
		error_set(err, "Log size must be a multiple of 1 MB, and at most 64 MB");
		return false;
	}
	if (!l->block)
		l->block = l->size > 32 * TiB	 ? 64 * MiB
			   : l->size > 100 * GiB ? 32 * MiB
			   : l->size > GiB	 ? 16 * MiB
						 : 8 * MiB;
	if (!is_pow2(l->block) || l->block < MiB || l->block > 256 * MiB) {
		error_set(err, "Block size must be a power of two from 1 MB to 256 MB");
		return false;
	}
	l->ratio = 512 * UINT64_C(8388608) / l->block;
	l->blocks = div_round_up(l->size, l->block);
	l->bat_bytes = l->blocks ? (l->blocks + (l->blocks - 1) / l->ratio) * 8 : 8;
	l->data = 2 * MiB + l->log + ALIGN_UP(l->bat_bytes, MiB);
	return true;
}

static int put_headers(int fd, const struct layout *l)
{
	static const char creator[] = "vmm";
	uint8_t id[8 + sizeof(creator) * 2] = "vhdxfile", h[HEADER_BYTES] = {0};
	int ret;

	for (size_t i = 0; i < sizeof(creator); i++)
		store_le16(id + 8 + i * 2, creator[i]);
	ret = block_create_write(fd, 0, id, sizeof(id));
	memcpy(h, "head", 4);
	block_create_uuid(h + 16);
	block_create_uuid(h + 32);
	store_le16(h + 66, 1);
	store_le32(h + 68, l->log);
	store_le64(h + 72, MiB);
	for (int i = 0; i < 2 && !ret; i++) {
		store_le64(h + 8, i + 1);
		put_sum(h, HEADER_BYTES);
		ret = block_create_write(fd, i ? HEADER_2 : HEADER_1, h, HEADER_BYTES);
	}
	return ret;
}

static int put_regions(int fd, const struct layout *l)
{
	uint8_t *t = xcalloc(1, REGIONS_BYTES);
	int ret;

	memcpy(t, "regi", 4);
	store_le32(t + 8, 2);
	memcpy(t + 16, bat_guid, 16);
	store_le64(t + 32, 2 * MiB + l->log);
	store_le32(t + 40, ALIGN_UP(l->bat_bytes, MiB));
	store_le32(t + 44, 1);
	memcpy(t + 48, meta_guid, 16);
	store_le64(t + 64, MiB + l->log);
	store_le32(t + 72, MiB);
	store_le32(t + 76, 1);
	put_sum(t, REGIONS_BYTES);
	ret = block_create_write(fd, REGIONS_1, t, REGIONS_BYTES);
	if (!ret)
		ret = block_create_write(fd, REGIONS_2, t, REGIONS_BYTES);
	free(t);
	return ret;
}

static int put_metadata(int fd, const struct layout *l)
{
	uint8_t *t = xcalloc(1, META_TABLE + ITEMS * 16);
	int ret;

	memcpy(t, "metadata", 8);
	store_le16(t + 10, ITEMS);
	for (uint32_t i = 0; i < ITEMS; i++) {
		uint8_t *e = t + 32 + i * 32, *value = t + META_TABLE + i * 16;

		memcpy(e, items[i].guid, 16);
		store_le32(e + 16, META_TABLE + i * 16);
		store_le32(e + 20, items[i].bytes);
		store_le32(e + 24, items[i].flags);
		if (i == ITEM_PARAMETERS) {
			store_le32(value, l->block);
			store_le32(value + 4, l->fixed); /* blocks stay allocated */
		} else if (i == ITEM_SIZE) {
			store_le64(value, l->size);
		} else if (i == ITEM_PAGE83) {
			block_create_uuid(value);
		} else {
			store_le32(value, i == ITEM_LOGICAL ? 512 : 4096);
		}
	}
	ret = block_create_write(fd, MiB + l->log, t, META_TABLE + ITEMS * 16);
	free(t);
	return ret;
}

static int put_table(int fd, const struct layout *l)
{
	uint64_t bat = 2 * MiB + l->log;
	int ret = 0;

	for (uint64_t i = 0; i < l->blocks && (l->fixed || l->zero) && !ret;) {
		uint8_t buf[VHDX_SECTOR] = {0};
		uint64_t first = i + i / l->ratio, n = 0;

		/* As many as are next to one another, and fit. */
		for (; i < l->blocks && i + i / l->ratio == first + n && n < sizeof(buf) / 8;
		     n++, i++)
			store_le64(buf + n * 8, l->fixed ? (l->data + i * l->block) | BLOCK_PRESENT
							 : (uint64_t)BLOCK_ZERO);
		ret = block_create_write(fd, bat + first * 8, buf, n * 8);
	}
	if (!ret && ftruncate(fd, l->data + (l->fixed ? l->blocks * l->block : 0)) < 0)
		ret = -errno;
	return ret;
}

static bool vhdx_create(const char *filename, const struct block_create *c, struct error **err)
{
	struct layout l;
	int fd, ret;

	if (!plan(&l, c, err))
		return false;
	fd = block_create_file(filename, err);
	if (fd < 0)
		return false;
	ret = put_headers(fd, &l);
	if (!ret)
		ret = put_regions(fd, &l);
	if (!ret)
		ret = put_metadata(fd, &l);
	if (!ret)
		ret = put_table(fd, &l);
	return block_create_end(filename, fd, ret, err);
}

static const struct block_create_option options[] = {
	{"size", "size", NULL, "Virtual disk size; max of 64TB"},
	{"log_size", "size", "1048576", "Log size; 1 MB to 64 MB"},
	{"block_size", "size", "0", "Block size; 1 MB to 256 MB. 0 means by the image's size"},
	{"subformat", "str", NULL, "dynamic (default) or fixed"},
	{"block_state_zero", "bool (on/off)", NULL,
	 "Blocks of dynamic images that were not written are of type ZERO (default: on)"},
	{0},
};

static int vhdx_check(struct block_node *node, unsigned fix, struct block_check *result,
		      const struct block_check_out *out)
{
	const struct vhdx *s = node->opaque;
	int ret = mapped_check(node, 0, result, out, NULL);

	/* That is all the repair there is, and opening has done it. */
	result->corruptions_fixed = s->replayed;
	return ret;
}

const struct block_driver block_vhdx = {
	.name = "vhdx",
	.node_size = sizeof(struct vhdx),
	.req_size = MAPPED_REQ_SIZE,
	.probe = vhdx_probe,
	.open = vhdx_open,
	.close = mapped_close,
	.submit = mapped_submit,
	.status = mapped_status,
	.check = vhdx_check,
	.info = mapped_info,
	.create = vhdx_create,
	.create_options = options,
};
