/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMware disks (VMDK). Two kinds of nodes:
 *
 *   sparse  one file with a header, two levels of tables and grains: monolithicSparse,
 *           streamOptimized (compressed grains, each written once), and the extents of split images
 *   text    a descriptor that names extents, sparse or flat, one behind the other: monolithicFlat,
 *           twoGbMaxExtentSparse, twoGbMaxExtentFlat, vmfs
 *
 * Which files a descriptor may open: only ones beside it, by a name without a slash, taken as it is
 * (no protocols). extent-paths=on lifts that for images that the user trusts. QEMU opens whatever
 * path or protocol an untrusted descriptor names. vmm-img info opens no extent at all.
 *
 * Order of writes as in mapped.h: a grain, then its entries in the table and the redundant table.
 * The content ID in the descriptor, by which overlays notice that their parent was changed, is
 * renewed when an image that was written is closed.
 *
 * Thread: the node's loop.
 */
#include "config.h"

#include "block/format/vmdk.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef CONFIG_ZLIB
#include <zlib.h>
#endif

#include "block/create.h"
#include "block/format/mapped.h"
#include "vmm/core/log.h"

struct vmdk {
	struct mapped m;
	bool is_text, no_extents;
	struct vmdk_text text;
	uint64_t text_offset; /* in file */
	struct vmdk_sparse h;
	uint32_t *gd, *rgd; /* host order; sectors */
	/* Split: where each extent begins on the disk, and which child it is. */
	struct part {
		uint64_t start, bytes, offset;
		struct block_node *node; /* NULL: zeroes */
	} * parts;
	unsigned part_count;
};

struct vmdk_req {
	struct block_req *req;
	struct vmdk *s;
	uint64_t offset, left;
	size_t at;
	unsigned part; /* FLUSH: the next child */
};

/* Sparse nodes */

static int entry_at(struct mapped *m, uint64_t unit, uint64_t *at)
{
	struct vmdk *s = container_of(m, struct vmdk, m);
	uint64_t table = unit / s->h.gtes;

	if (table >= s->h.tables)
		return -EIO;
	*at = s->gd[table] ? s->gd[table] * UINT64_C(512) + unit % s->h.gtes * 4 : 0;
	return 0;
}

static int decode(struct mapped *m, uint64_t unit, const uint8_t *entry, struct mapped_run *run)
{
	struct vmdk *s = container_of(m, struct vmdk, m);
	uint32_t sector = load_le32(entry);

	if (!sector)
		return 0;
	if (sector == 1 && (s->h.flags & VMDK_FLAG_ZERO_GRAIN)) {
		run->type = MAPPED_ZERO;
		return 0;
	}
	run->host = sector * UINT64_C(512);
	if (!mapped_inside(m, run->host))
		return -EIO;
	run->type = MAPPED_DATA;
	if (s->h.flags & VMDK_FLAG_COMPRESSED) {
		run->type = MAPPED_PACKED;
		/* How long it really is stands in front of it. */
		run->packed = MIN(2 * m->unit, MAX(m->file->length, m->end) - run->host);
	}
	return 0;
}

static int vmdk_link(struct mapped *m, uint64_t unit, uint64_t host, struct waiter *w)
{
	struct vmdk *s = container_of(m, struct vmdk, m);
	uint64_t table = unit / s->h.gtes, at, again = 0;
	struct mapped_page *page, *other = NULL;
	int ret = entry_at(m, unit, &at);

	if (ret || host / 512 > UINT32_MAX)
		return ret ? ret : -EFBIG;
	ret = mapped_page(m, at, w, &page);
	if (!ret && s->rgd) {
		again = s->rgd[table] * UINT64_C(512) + unit % s->h.gtes * 4;
		ret = mapped_page(m, again, w, &other);
	}
	if (ret)
		return ret;
	store_le32(mapped_at(page, at), host / 512);
	mapped_dirty(m, page, at, false);
	if (other) {
		store_le32(mapped_at(other, again), host / 512);
		mapped_dirty(m, other, again, false);
	}
	return 0;
}

static int unpack(struct mapped *m, const struct mapped_run *run, const uint8_t *in, uint8_t *out)
{
#ifdef CONFIG_ZLIB
	struct vmdk *s = container_of(m, struct vmdk, m);
	uLongf n = run->size;
	uint32_t bytes = run->packed;

	if (s->h.flags & VMDK_FLAG_MARKERS) {
		if (bytes < 12 || load_le64(in) != run->start / 512 ||
		    load_le32(in + 8) > bytes - 12)
			return -EIO;
		bytes = load_le32(in + 8);
		in += 12;
	}
	/* The last grain may be shorter; a marker's data ends where it says. */
	if (uncompress(out, &n, in, bytes) != Z_OK)
		return -EIO;
	memset(out + n, 0, run->size - n);
	return 0;
#else
	return -ENOTSUP;
#endif
}

static int64_t pack(struct mapped *m, uint64_t unit, const uint8_t *in, uint8_t *out)
{
#ifdef CONFIG_ZLIB
	uLongf n = 2 * m->unit - 12 - 512;

	if (compress(out + 12, &n, in, m->unit) != Z_OK)
		return -EIO;
	store_le64(out, unit * m->unit / 512);
	store_le32(out + 8, n);
	return n + 12;
#else
	return -ENOTSUP;
#endif
}

static const struct mapped_ops plain_ops = {
	.entry_at = entry_at, .decode = decode, .link = vmdk_link, .unpack = unpack};
static const struct mapped_ops packed_ops = {
	.entry_at = entry_at, .decode = decode, .link = vmdk_link, .unpack = unpack, .pack = pack};

/* A grain directory, whose tables must lie inside the file. */
static uint32_t *read_gd(struct block_node *node, struct vmdk *s, uint64_t sector, bool whole,
			 struct error **err)
{
	uint64_t length = node->file->length;
	uint32_t *gd = NULL;

	if (sector <= INT64_MAX / 512)
		gd = mapped_read_table(node, sector * 512, s->h.tables * 4, "grain directory", err);
	else
		error_set(err, "The grain directory lies outside of the file");
	for (uint64_t i = 0; gd && i < s->h.tables; i++) {
		gd[i] = le32toh(gd[i]);
		if ((!gd[i] && !whole) ||
		    (gd[i] && range_inside(gd[i] * UINT64_C(512), s->h.gtes * 4, length)))
			continue;
		error_set(err, gd[i] ? "A grain table lies outside of the file"
				     : "The image lacks grain tables, and can only be read");
		free(gd);
		gd = NULL;
	}
	return gd;
}

/* The header's copy at the file's end, with the directory's place: footer marker, header, end. */
static bool read_end(struct block_node *node, struct vmdk *s, struct error **err)
{
	uint64_t length = node->file->length;
	uint8_t buf[1536];
	int ret = length < 2048 ? -EINVAL
				: block_pread(node->file, length - 1536, buf, sizeof(buf));

	if (ret || load_le32(buf + 8) || load_le32(buf + 12) != 3) {
		error_set_errno(err, ret ? ret : EINVAL, "Could not read the image's footer");
		return false;
	}
	if (!vmdk_parse_sparse(&s->h, buf + 512, length, err))
		return false;
	if (s->h.gd == VMDK_GD_AT_END) {
		error_set(err, "The image's footer has no grain directory");
		return false;
	}
	return true;
}

static bool read_text(struct block_node *node, struct vmdk *s, uint64_t offset, uint64_t bytes,
		      struct error **err)
{
	char *text = mapped_read_table(node, offset, bytes, "descriptor", err);
	bool ok = text && vmdk_parse_text(&s->text, text, bytes, err);

	s->text_offset = offset;
	free(text);
	return ok;
}

static bool open_parent(struct block_node *node, const struct block_open *how, struct opts *opts,
			struct error **err)
{
	struct vmdk *s = node->opaque, *below;

	if (s->text.parent_cid != VMDK_NO_PARENT && s->text.parent) {
		node->backing_name = xstrdup(s->text.parent);
		node->backing_format = xstrdup("vmdk");
	}
	if (!block_open_backing(node, how, opts, err))
		return false;
	if (!node->backing || node->backing->drv != &block_vmdk || !node->backing_name)
		return true;
	below = node->backing->opaque;
	if (below->text.cid == s->text.parent_cid)
		return true;
	error_set(err, "The parent '%s' was changed since this image was made",
		  node->backing->filename);
	return false;
}

static bool open_sparse(struct block_node *node, const struct block_open *how, const uint8_t *buf,
			struct opts *opts, struct error **err)
{
	struct vmdk *s = node->opaque;
	uint64_t length = node->file->length, text_offset, text_bytes, grain;
	bool compressed;

	if (!vmdk_parse_sparse(&s->h, buf, length, err))
		return false;
	text_offset = s->h.text_offset;
	text_bytes = s->h.text_bytes;
	if (s->h.gd == VMDK_GD_AT_END && !read_end(node, s, err))
		return false;
	compressed = s->h.flags & VMDK_FLAG_COMPRESSED;
#ifndef CONFIG_ZLIB
	if (compressed) {
		error_set(err, "This program was built without zlib, which the image needs");
		return false;
	}
#endif
	if (s->h.version == 3 && !compressed && !node->read_only) {
		error_set(err, "VMDK version 3 must be read only");
		return false;
	}
	if (text_bytes && !read_text(node, s, text_offset, text_bytes, err))
		return false;
	s->gd = read_gd(node, s, s->h.gd, !node->read_only, err);
	if (!s->gd)
		return false;
	if (!node->read_only && (s->h.flags & VMDK_FLAG_RGD)) {
		s->rgd = read_gd(node, s, s->h.rgd, true, err);
		if (!s->rgd)
			return false;
	}
	grain = s->h.grain * 512;
	node->length = s->h.capacity * 512;
	s->m.unit = grain;
	s->m.entry_bytes = 4;
	s->m.data_start = 512;
	/* Grains stand on multiples of their size, or else somewhere: then the last one may be cut
	 * short by the file's end. */
	s->m.end = compressed ? ALIGN_UP(length, 512) : ALIGN_UP(length, grain);
	if (!compressed && s->h.overhead % s->h.grain)
		s->m.end += grain;
	if (!open_parent(node, how, opts, err))
		return false;
	mapped_init(&s->m, node, compressed ? &packed_ops : &plain_ops);
	node->packs = compressed;
	node->limits.discard_alignment = compressed ? grain : node->limits.discard_alignment;
	if (compressed && node->backing && !node->read_only) {
		error_set(err, "Compressed images with a parent can only be read");
		return false;
	}
	return true;
}

/* Text nodes */

static bool open_part(struct block_node *node, const struct block_open *how, struct vmdk *s,
		      const struct vmdk_extent *e, bool any_path, struct error **err)
{
	struct part *p = &s->parts[s->part_count];
	char *path;
	bool ok;

	*p = (struct part){
		.start = node->length, .bytes = e->sectors * 512, .offset = e->offset * 512};
	if (p->bytes > INT64_MAX - node->length - 511) {
		error_set(err, "The image's extents are too long");
		return false;
	}
	s->part_count++;
	node->length += p->bytes;
	if (e->kind == VMDK_ZERO || s->no_extents)
		return true;
	if (!any_path && !vmdk_plain_name(e->name)) {
		error_set(
			err,
			"The extent '%s' does not lie beside the descriptor; if the image is to be "
			"trusted, open it with extent-paths=on",
			e->name);
		return false;
	}
	if (*e->name == '/' || !strchr(node->filename, '/'))
		path = xstrdup(e->name);
	else
		path = xasprintf("%.*s/%s", (int)(strrchr(node->filename, '/') - node->filename),
				 node->filename, e->name);
	ok = block_open_extent(node, how, e->kind == VMDK_FLAT ? "file" : "vmdk", path, err);
	free(path);
	if (!ok)
		return false;
	p->node = node->extents[node->extent_count - 1];
	if (!range_inside(p->offset, p->bytes, ALIGN_UP(p->node->length, 512))) {
		error_set(err, "The extent '%s' is shorter than the descriptor says", e->name);
		return false;
	}
	if (e->kind == VMDK_SPARSE && ((struct vmdk *)p->node->opaque)->is_text) {
		error_set(err, "The extent '%s' is not a sparse extent", e->name);
		return false;
	}
	if (p->node->read_only && !node->read_only) {
		error_set(err, "The extent '%s' can only be read", e->name);
		return false;
	}
	return true;
}

static bool open_text(struct block_node *node, const struct block_open *how, struct opts *opts,
		      struct error **err)
{
	struct vmdk *s = node->opaque;
	bool any_path = false;

	s->is_text = true;
	s->no_extents = how->flags & BLOCK_OPEN_NO_BACKING;
	if (node->file->length > VMDK_MAX_TEXT) {
		error_set(err, "The descriptor is longer than 64 KiB");
		return false;
	}
	if (!opts_get_bool(opts, "extent-paths", &any_path, err) ||
	    !read_text(node, s, 0, node->file->length, err))
		return false;
	if (s->text.parent_cid != VMDK_NO_PARENT) {
		error_set(err, "VMDK images with a parent in several files are not supported");
		return false;
	}
	if (!s->text.count) {
		error_set(err, "The descriptor names no extents");
		return false;
	}
	s->parts = xcalloc(s->text.count, sizeof(*s->parts));
	for (unsigned i = 0; i < s->text.count; i++)
		if (!open_part(node, how, s, &s->text.extents[i], any_path, err))
			return false;
	node->limits.discard = node->limits.write_zeroes = true;
	return true;
}

static void next_part(struct vmdk_req *v);

static void part_done(struct block_req *child, int ret)
{
	struct vmdk_req *v = child->ctx;

	if (ret) {
		block_complete(v->req, ret);
		return;
	}
	v->offset += child->bytes;
	v->at += child->bytes;
	v->left -= child->bytes;
	next_part(v);
}

static struct part *part_of(struct vmdk *s, uint64_t offset)
{
	unsigned low = 0, high = s->part_count - 1;

	while (low < high) {
		unsigned mid = low + (high - low + 1) / 2;

		if (s->parts[mid].start <= offset)
			low = mid;
		else
			high = mid - 1;
	}
	return &s->parts[low];
}

static void start_part(struct vmdk_req *v, struct block_node *node, uint64_t offset, uint64_t bytes)
{
	struct block_req *req = v->req, *child = block_child_req(req);

	child->node = node;
	child->op = req->act;
	child->flags = req->act_flags;
	child->offset = offset;
	child->bytes = bytes;
	child->iov = req->iov;
	child->iovcnt = req->iovcnt;
	child->done = part_done;
	child->ctx = v;
	block_submit_at(child, req->iov_skip + v->at);
}

static void next_part(struct vmdk_req *v)
{
	struct vmdk *s = v->s;
	struct block_req *req = v->req;
	struct block_node *node = s->m.node;

	if (req->act == BLOCK_FLUSH) {
		if (v->part == node->extent_count)
			block_complete(req, 0);
		else
			start_part(v, node->extents[v->part++], 0, 0);
		return;
	}
	while (v->left) {
		struct part *p = part_of(s, v->offset);
		uint64_t in = v->offset - p->start, n = MIN(v->left, p->bytes - in);

		if (p->node) {
			start_part(v, p->node, p->offset + in, n);
			return;
		}
		if (req->act == BLOCK_WRITE) {
			block_complete(req, -EIO);
			return;
		}
		if (req->act == BLOCK_READ)
			block_iov_zero(req->iov, req->iovcnt, req->iov_skip + v->at, n);
		v->offset += n;
		v->at += n;
		v->left -= n;
	}
	block_complete(req, 0);
}

/* The driver */

static void vmdk_submit(struct block_node *node, struct block_req *req)
{
	struct vmdk *s = node->opaque;
	struct vmdk_req *v = block_ctx(req);

	if (req->act != BLOCK_FLUSH && s->no_extents) {
		block_complete(req, -EIO);
		return;
	}
	if ((req->act_flags & BLOCK_COMPRESSED) && !node->packs) {
		block_complete(req, -ENOTSUP);
		return;
	}
	if (!s->is_text) {
		mapped_submit(node, req);
		return;
	}
	*v = (struct vmdk_req){.req = req, .s = s, .offset = req->offset, .left = req->bytes};
	next_part(v);
}

static bool vmdk_probe(const uint8_t *buf, size_t len)
{
	static const char text[] = "# Disk DescriptorFile";

	return (len >= 4 && !memcmp(buf, "KDMV", 4)) ||
	       (len >= sizeof(text) - 1 && !memcmp(buf, text, sizeof(text) - 1));
}

static bool vmdk_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		      struct error **err)
{
	struct vmdk *s = node->opaque;
	uint8_t buf[VMDK_HEADER] = {0};
	int ret = block_pread(node->file, 0, buf, MIN(node->file->length, (uint64_t)VMDK_HEADER));

	s->m.node = node;
	if (ret) {
		error_set_errno(err, ret, "Could not read the image's header");
		return false;
	}
	if (!memcmp(buf, "KDMV", 4))
		return open_sparse(node, how, buf, opts, err);
	if (vmdk_probe(buf, sizeof(buf)))
		return open_text(node, how, opts, err);
	error_set(err, "Image is not in VMDK format");
	return false;
}

static void renew_cid(struct block_node *node)
{
	struct vmdk *s = node->opaque;
	unsigned n = s->text.cid_digits;
	uint32_t cid = s->text.cid;
	char digits[9];
	uint8_t id[16];
	int ret;

	/* Written over the one before, which need not have all eight digits. */
	while (cid == s->text.cid) {
		block_create_uuid(id);
		cid = load_le32(id) & 0x7fffffff & UINT32_MAX >> (32 - 4 * n);
	}
	snprintf(digits, sizeof(digits), "%0*x", (int)n, cid);
	ret = block_pwrite(node->file, s->text_offset + s->text.cid_at, digits, n, 0);
	if (!ret)
		ret = block_flush(node->file);
	if (ret)
		log_error("could not write '%s': %s", node->filename, strerror(-ret));
}

static void vmdk_close(struct block_node *node)
{
	struct vmdk *s = node->opaque;

	if (node->written && s->text.cid_at)
		renew_cid(node);
	mapped_close(node);
	vmdk_text_free(&s->text);
	free(s->gd);
	free(s->rgd);
	free(s->parts);
	s->gd = s->rgd = NULL;
	s->parts = NULL;
}

static int vmdk_status(struct block_node *node, uint64_t offset, uint64_t bytes,
		       struct block_extent *out)
{
	struct vmdk *s = node->opaque;
	struct part *p;
	uint64_t in;
	int ret;

	if (!s->is_text)
		return mapped_status(node, offset, bytes, out);
	if (s->no_extents)
		return -EIO;
	p = part_of(s, offset);
	in = offset - p->start;
	bytes = MIN(bytes, p->bytes - in);
	if (!p->node) {
		out->bytes = bytes;
		out->allocated = out->zero = true;
		return 0;
	}
	ret = block_status(p->node, p->offset + in, bytes, out);
	out->has_offset = false; /* it is in another file */
	return ret;
}

static int64_t vmdk_allocated(struct block_node *node)
{
	int64_t sum = block_allocated(node->file);

	for (unsigned i = 0; i < node->extent_count && sum >= 0; i++) {
		int64_t more = block_allocated(node->extents[i]);

		sum = more < 0 ? more : sum + more;
	}
	return sum;
}

static int vmdk_check(struct block_node *node, unsigned fix, struct block_check *result,
		      const struct block_check_out *out)
{
	struct vmdk *s = node->opaque;
	struct block_check one;
	int ret = fix ? -ENOTSUP : 0;

	if (!ret && !s->is_text)
		ret = mapped_check(node, s->h.gtes, result, out, NULL);
	for (unsigned i = 0; i < node->extent_count && !ret; i++) {
		struct block_node *part = node->extents[i];

		one = (struct block_check){0};
		if (part->drv->check)
			ret = part->drv->check(part, fix, &one, out);
		result->corruptions += one.corruptions;
	}
	return ret;
}

/* Of split images what the descriptor has: its extents stay closed. */
static json_t *describe_extents(const struct block_node *node)
{
	static const char *const kinds[] = {
		[VMDK_FLAT] = "FLAT", [VMDK_SPARSE] = "SPARSE", [VMDK_ZERO] = "ZERO"};
	const struct vmdk *s = node->opaque;
	json_t *list = json_array(), *one;

	if (!s->is_text) {
		one = json_object();
		if (s->h.flags & VMDK_FLAG_COMPRESSED)
			json_object_set_new(one, "compressed", json_true());
		json_object_set_new(one, "virtual-size", json_integer(node->length));
		json_object_set_new(one, "filename", json_string(node->filename));
		json_object_set_new(one, "cluster-size", json_integer(s->m.unit));
		json_object_set_new(one, "format", json_string(""));
		json_array_append_new(list, one);
	}
	for (unsigned i = 0; i < s->text.count && s->is_text; i++) {
		const struct vmdk_extent *e = &s->text.extents[i];
		char *path = block_backing_path(node->filename, e->name ? e->name : "");

		one = json_object();
		json_object_set_new(one, "virtual-size", json_integer(e->sectors * 512));
		json_object_set_new(one, "filename", json_string(path));
		json_object_set_new(one, "format", json_string(kinds[e->kind]));
		json_array_append_new(list, one);
		free(path);
	}
	return list;
}

static void vmdk_info(struct block_node *node, struct block_info *info)
{
	const struct vmdk *s = node->opaque;

	info->cluster_size = s->is_text ? 0 : s->m.unit;
	info->specific = json_pack("{s:s, s:{s:I, s:I, s:s, s:o}}", "type", "vmdk", "data", "cid",
				   (json_int_t)s->text.cid, "parent-cid",
				   (json_int_t)s->text.parent_cid, "create-type", s->text.type,
				   "extents", describe_extents(node));
}

const struct block_driver block_vmdk = {
	.name = "vmdk",
	.node_size = sizeof(struct vmdk),
	.req_size = MAX(MAPPED_REQ_SIZE, sizeof(struct vmdk_req)),
	.compresses = true,
	.probe = vmdk_probe,
	.open = vmdk_open,
	.close = vmdk_close,
	.submit = vmdk_submit,
	.status = vmdk_status,
	.check = vmdk_check,
	.info = vmdk_info,
	.allocated = vmdk_allocated,
	.create = vmdk_create,
	.create_options = vmdk_create_options,
};
