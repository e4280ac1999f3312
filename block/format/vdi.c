/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VirtualBox disk images (VDI 1.1), dynamic and static: a header, a map with a 32-bit block number
 * for each block of the disk, and the blocks. Differencing images are refused by name.
 *
 * Options: none. Order of writes as in mapped.h; the header's count of blocks is written before the
 * map's entries, since others (VirtualBox, QEMU) append at that count. After a power cut it may be
 * too high, never too low.
 *
 * Thread: the node's loop.
 */
#include <errno.h>
#include <unistd.h>

#include "block/create.h"
#include "block/format/mapped.h"

enum {
	VDI_HEADER = 512,
	VDI_SIGNATURE = 0x40,
	VDI_VERSION = 0x44,
	VDI_HEADER_SIZE = 0x48,
	VDI_TYPE = 0x4c,
	VDI_MAP = 0x154,
	VDI_DATA = 0x158,
	VDI_SECTOR_SIZE = 0x168,
	VDI_DISK_SIZE = 0x170,
	VDI_BLOCK_SIZE = 0x178,
	VDI_EXTRA = 0x17c,
	VDI_BLOCKS = 0x180,
	VDI_ALLOCATED = 0x184,
	VDI_UUID = 0x188,
	VDI_SNAPSHOT_UUID = 0x198,
	VDI_LINK_UUID = 0x1a8,
	VDI_PARENT_UUID = 0x1b8,
	VDI_DYNAMIC = 1,
	VDI_STATIC = 2,
};
#define VDI_MAGIC      UINT32_C(0xbeda107f)
#define VDI_NONE       UINT32_C(0xffffffff)
#define VDI_ZERO       UINT32_C(0xfffffffe) /* given back: reads as zero */
#define VDI_MAX_BLOCKS UINT32_C(0x1ffffffe)

struct vdi {
	struct mapped m;
	uint32_t map, data, blocks;
};

static bool is_null(const uint8_t *uuid)
{
	return block_buf_is_zero(uuid, 16);
}

/* Pure: what buf, the file's first 512 bytes, says, checked. */
static bool parse(struct vdi *s, const uint8_t *buf, uint64_t *size, struct error **err)
{
	uint32_t block = load_le32(buf + VDI_BLOCK_SIZE);

	s->map = load_le32(buf + VDI_MAP);
	s->data = load_le32(buf + VDI_DATA);
	s->blocks = load_le32(buf + VDI_BLOCKS);
	*size = load_le64(buf + VDI_DISK_SIZE);
	s->m.unit = block;
	if (load_le32(buf + VDI_SIGNATURE) != VDI_MAGIC)
		error_set(err, "Image not in VDI format (bad signature %08x)",
			  load_le32(buf + VDI_SIGNATURE));
	else if (load_le32(buf + VDI_VERSION) != 0x00010001)
		error_set(err, "unsupported VDI image (version %u.%u)",
			  load_le16(buf + VDI_VERSION + 2), load_le16(buf + VDI_VERSION));
	else if (load_le32(buf + VDI_SECTOR_SIZE) != 512)
		error_set(err, "unsupported VDI image (sector size %u is not 512)",
			  load_le32(buf + VDI_SECTOR_SIZE));
	else if (!is_pow2(block) || block < 4096 || block > 64 * MiB || load_le32(buf + VDI_EXTRA))
		error_set(err, "unsupported VDI image (block size %u with %u extra bytes)", block,
			  load_le32(buf + VDI_EXTRA));
	else if (!IS_ALIGNED(s->map, 512) || s->map < VDI_HEADER)
		error_set(err, "unsupported VDI image (block map offset 0x%x)", s->map);
	else if (s->blocks > VDI_MAX_BLOCKS || *size > (uint64_t)s->blocks * block)
		error_set(err,
			  "unsupported VDI image (disk size %llu, image bitmap has room for %llu)",
			  (unsigned long long)*size, (unsigned long long)s->blocks * block);
	else if (!IS_ALIGNED(s->data, 512) || s->data < s->map + s->blocks * UINT64_C(4))
		error_set(err, "unsupported VDI image (data offset 0x%x)", s->data);
	else if (!is_null(buf + VDI_LINK_UUID))
		error_set(err, "unsupported VDI image (non-NULL link UUID)");
	else if (!is_null(buf + VDI_PARENT_UUID))
		error_set(err, "unsupported VDI image (non-NULL parent UUID)");
	else
		return true;
	return false;
}

static int entry_at(struct mapped *m, uint64_t unit, uint64_t *at)
{
	struct vdi *s = container_of(m, struct vdi, m);

	*at = s->map + unit * 4;
	return unit < s->blocks ? 0 : -EIO;
}

static int decode(struct mapped *m, uint64_t unit, const uint8_t *entry, struct mapped_run *run)
{
	struct vdi *s = container_of(m, struct vdi, m);
	uint32_t block = load_le32(entry);

	if (block >= VDI_ZERO) {
		run->type = block == VDI_ZERO ? MAPPED_ZERO : MAPPED_NONE;
	} else {
		run->type = MAPPED_DATA;
		run->host = s->data + block * m->unit;
		if (!mapped_inside(m, run->host))
			return -EIO;
	}
	return 0;
}

static int vdi_link(struct mapped *m, uint64_t unit, uint64_t host, struct waiter *w)
{
	struct vdi *s = container_of(m, struct vdi, m);
	uint64_t block = (host - s->data) / m->unit, at;
	struct mapped_page *header, *page;
	int ret = entry_at(m, unit, &at);

	if (ret || block >= VDI_MAX_BLOCKS)
		return ret ? ret : -EFBIG;
	ret = mapped_page(m, 0, w, &header);
	if (!ret)
		ret = mapped_page(m, at, w, &page);
	if (ret)
		return ret;
	if (load_le32(header->data + VDI_ALLOCATED) <= block) {
		store_le32(header->data + VDI_ALLOCATED, block + 1);
		mapped_dirty(m, header, VDI_ALLOCATED, true);
	}
	store_le32(mapped_at(page, at), block);
	mapped_dirty(m, page, at, false);
	return 0;
}

static const struct mapped_ops ops = {.entry_at = entry_at, .decode = decode, .link = vdi_link};

static bool vdi_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		     struct error **err)
{
	struct vdi *s = node->opaque;
	uint8_t buf[VDI_HEADER];
	uint64_t size, used;

	if (!mapped_read_header(node, buf, sizeof(buf), err) || !parse(s, buf, &size, err))
		return false;
	if (s->map + s->blocks * UINT64_C(4) > node->file->length) {
		error_set(err, "unsupported VDI image (the block map ends behind the file's end)");
		return false;
	}
	s->m.entry_bytes = 4;
	s->m.data_start = s->data;
	used = div_round_up(node->file->length - MIN(node->file->length, (uint64_t)s->data),
			    s->m.unit);
	used = MAX(used, MIN(load_le32(buf + VDI_ALLOCATED), s->blocks));
	s->m.end = s->data + used * s->m.unit;
	node->length = ALIGN_UP(size, 512);
	if (node->length > s->blocks * s->m.unit)
		node->length = size - size % 512;
	mapped_init(&s->m, node, &ops);
	return true;
}

static int vdi_check(struct block_node *node, unsigned fix, struct block_check *result,
		     const struct block_check_out *out)
{
	struct vdi *s = node->opaque;
	uint8_t buf[VDI_HEADER];
	uint64_t in_use, allocated;
	int ret = fix ? -ENOTSUP : mapped_check(node, 0, result, out, &allocated);

	if (!ret)
		ret = block_pread(node->file, 0, buf, sizeof(buf));
	if (ret)
		return ret;
	in_use = load_le32(buf + VDI_ALLOCATED);
	if (in_use != allocated) {
		mapped_check_say(&(struct mapped_check){.m = &s->m, .out = out},
				 "ERROR: allocated blocks mismatch, is %llu, should be %llu",
				 (unsigned long long)allocated, (unsigned long long)in_use);
		result->corruptions++;
	}
	return 0;
}

static bool vdi_probe(const uint8_t *buf, size_t len)
{
	return len >= VDI_SIGNATURE + 4 && load_le32(buf + VDI_SIGNATURE) == VDI_MAGIC;
}

static bool vdi_create(const char *filename, const struct block_create *c, struct error **err)
{
	static const char text[] = "<<< VMM Virtual Disk Image >>>\n";
	uint64_t blocks = div_round_up(c->size, MiB), map, data;
	uint8_t header[VDI_HEADER] = {0};
	bool is_static = false;
	int fd, ret;

	if (!opts_get_bool(c->opts, "static", &is_static, err))
		return false;
	if (blocks > VDI_MAX_BLOCKS) {
		error_set(err,
			  "Unsupported VDI image size (size is 0x%llx, max supported is 0x%llx)",
			  (unsigned long long)c->size, (unsigned long long)VDI_MAX_BLOCKS * MiB);
		return false;
	}
	map = ALIGN_UP(blocks * 4, 512);
	data = VDI_HEADER + map;
	memcpy(header, text, sizeof(text) - 1);
	store_le32(header + VDI_SIGNATURE, VDI_MAGIC);
	store_le32(header + VDI_VERSION, 0x00010001);
	store_le32(header + VDI_HEADER_SIZE, 0x180);
	store_le32(header + VDI_TYPE, is_static ? VDI_STATIC : VDI_DYNAMIC);
	store_le32(header + VDI_MAP, VDI_HEADER);
	store_le32(header + VDI_DATA, data);
	store_le32(header + VDI_SECTOR_SIZE, 512);
	store_le64(header + VDI_DISK_SIZE, ALIGN_UP(c->size, 512));
	store_le32(header + VDI_BLOCK_SIZE, MiB);
	store_le32(header + VDI_BLOCKS, blocks);
	store_le32(header + VDI_ALLOCATED, is_static ? blocks : 0);
	block_create_uuid(header + VDI_UUID);
	block_create_uuid(header + VDI_SNAPSHOT_UUID);
	fd = block_create_file(filename, err);
	if (fd < 0)
		return false;
	ret = block_create_write(fd, 0, header, sizeof(header));
	if (!ret)
		ret = block_create_fill(fd, VDI_HEADER, is_static ? 0 : 0xff, blocks * 4);
	if (!ret)
		ret = block_create_fill(fd, VDI_HEADER + blocks * 4, 0, map - blocks * 4);
	for (uint64_t i = 0; is_static && i < blocks && !ret;) {
		uint8_t entries[4096];
		size_t n = 0;

		for (; i + n < blocks && n < sizeof(entries) / 4; n++)
			store_le32(entries + n * 4, i + n);
		ret = block_create_write(fd, VDI_HEADER + i * 4, entries, n * 4);
		i += n;
	}
	if (!ret && is_static && ftruncate(fd, data + blocks * MiB) < 0)
		ret = -errno;
	return block_create_end(filename, fd, ret, err);
}

static const struct block_create_option options[] = {
	{"size", "size", NULL, "Virtual disk size"},
	{"static", "bool (on/off)", "off", "VDI static (pre-allocated) image"},
	{0},
};

const struct block_driver block_vdi = {
	.name = "vdi",
	.node_size = sizeof(struct vdi),
	.req_size = MAPPED_REQ_SIZE,
	.probe = vdi_probe,
	.open = vdi_open,
	.close = mapped_close,
	.submit = mapped_submit,
	.status = mapped_status,
	.check = vdi_check,
	.info = mapped_info,
	.create = vdi_create,
	.create_options = options,
};
