/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing what an image's header says: the backing file's name, the format's version, lazy
 * refcounts. Main thread, synchronous, drained.
 *
 * The first cluster is put together anew from what it has, extensions that nobody here knows
 * included. Its first sector goes last, behind a sync. The backing file's name moves behind the old
 * one where there is room, so that the old sector's name is whole until the new one counts.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/create.h"
#include "block/qcow2/bitmap.h"

struct plan {
	unsigned version;
	bool lazy;
	const char *backing, *format; /* NULL: none */
	bool no_names;		      /* of features: where there is no room for them */
	const char *data;	      /* the data file's name, or NULL */
	bool raw_data;
};

static size_t put(uint8_t *out, size_t at, uint32_t type, const void *data, size_t len)
{
	store_be32(out + at, type);
	store_be32(out + at + 4, len);
	memcpy(out + at + 8, data, len);
	return at + 8 + ALIGN_UP(len, (size_t)8);
}

/* One more extension at *at, with room for the end behind it. False: it does not fit. */
static bool put_one(const struct qcow2 *s, uint8_t *out, size_t *at, uint32_t type,
		    const void *data, size_t len)
{
	if (*at + 8 + ALIGN_UP(len, (size_t)8) + 8 > s->cluster_size)
		return false;
	*at = put(out, *at, type, data, len);
	return true;
}

/* The extensions of old, with the plan's backing format and data file in their places. 0: they do
 * not fit. */
static size_t put_extensions(const struct qcow2 *s, const struct plan *p, const uint8_t *old,
			     uint8_t *out, size_t at)
{
	const uint32_t format = (uint32_t)QCOW2_EXT_BACKING_FORMAT;
	uint64_t from = s->h.header_length, end = s->cluster_size;
	bool placed = !p->format, data_placed = !p->data, ok = true;

	if (s->h.backing_offset)
		end = MIN(end, s->h.backing_offset);
	while (ok && from + 8 <= end) {
		uint32_t type = load_be32(old + from), len = load_be32(old + from + 4);

		if (type == QCOW2_EXT_END || len > end - from - 8)
			break;
		if (type == QCOW2_EXT_FEATURES && (p->version < 3 || p->no_names)) {
			/* Names of bits that an old header has not. */
		} else if (type == QCOW2_EXT_DATA_FILE) {
			if (!data_placed)
				ok = put_one(s, out, &at, type, p->data, strlen(p->data));
			data_placed = true;
		} else if (type != format) {
			ok = put_one(s, out, &at, type, old + from + 8, len);
		} else if (!placed) {
			ok = put_one(s, out, &at, format, p->format, strlen(p->format));
			placed = true;
		}
		from += 8 + ALIGN_UP((uint64_t)len, 8);
	}
	if (ok && !placed)
		ok = put_one(s, out, &at, format, p->format, strlen(p->format));
	if (ok && !data_placed)
		ok = put_one(s, out, &at, QCOW2_EXT_DATA_FILE, p->data, strlen(p->data));
	return ok ? at + 8 : 0; /* the end is zeroes */
}

/* The new first cluster; how many bytes of it are in use, or 0. */
static size_t build(const struct qcow2 *s, const struct plan *p, const uint8_t *old, uint8_t *out)
{
	size_t length = p->version < 3 ? QCOW2_V2_HEADER : MAX(s->h.header_length, 112u), at, name;
	uint64_t compatible = s->h.compatible & ~(uint64_t)QCOW2_COMPAT_LAZY_REFCOUNTS;

	memcpy(out, old, MIN(length, (size_t)s->h.header_length));
	store_be32(out + 4, p->version);
	if (p->version >= 3) {
		store_be64(out + QCOW2_OFF_COMPATIBLE,
			   compatible | (p->lazy ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0));
		if (s->external)
			store_be64(out + QCOW2_OFF_AUTOCLEAR,
				   (s->h.autoclear & ~(uint64_t)QCOW2_AUTOCLEAR_RAW_DATA) |
					   (p->raw_data ? QCOW2_AUTOCLEAR_RAW_DATA : 0));
		store_be32(out + 96, s->h.refcount_order);
		store_be32(out + 100, length);
	}
	at = put_extensions(s, p, old, out, length);
	if (!at)
		return 0;
	store_be64(out + 8, 0);
	store_be32(out + 16, 0);
	if (!p->backing)
		return at;
	name = strlen(p->backing);
	if (s->h.backing_offset &&
	    MAX((uint64_t)at, s->h.backing_offset + s->h.backing_len) + name <= s->cluster_size)
		at = MAX((uint64_t)at, s->h.backing_offset + s->h.backing_len);
	if (at + name > s->cluster_size)
		return 0;
	store_be64(out + 8, at);
	store_be32(out + 16, name);
	memcpy(out + at, p->backing, name);
	return at + name;
}

static int write_out(struct qcow2 *s, uint8_t *out, size_t len)
{
	size_t sector = sizeof(s->header);
	int ret = 0;

	len = ALIGN_UP(MAX(len, sector), sector);
	/* The bitmaps' extension may be torn meanwhile; it does not count then. */
	if (len > sector && (s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
		store_be64(s->header + QCOW2_OFF_AUTOCLEAR,
			   s->h.autoclear & ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS);
		ret = qcow2_write_header(s);
		if (!ret)
			ret = block_flush(s->file);
	}
	if (len > sector && !ret) {
		ret = block_pwrite(s->file, sector, out + sector, len - sector, 0);
		if (!ret)
			ret = block_flush(s->file);
	}
	if (!ret)
		ret = block_pwrite(s->file, 0, out, sector, 0);
	if (!ret)
		ret = block_flush(s->file);
	if (!ret)
		memcpy(s->header, out, sector);
	return ret;
}

static bool rewrite(struct qcow2 *s, const struct plan *p, struct error **err)
{
	uint8_t *old = calloc(1, s->cluster_size), *out = calloc(1, s->cluster_size);
	struct qcow2_header h;
	size_t len = 0;
	int ret = old && out ? 0 : -ENOMEM;

	if (!ret)
		ret = qcow2_commit_sync(s);
	if (!ret)
		ret = block_pread(s->file, 0, old, MIN(s->cluster_size, s->file->length));
	if (!ret) {
		memcpy(old, s->header, sizeof(s->header));
		len = build(s, p, old, out);
		if (!len) {
			struct plan shorter = *p;

			shorter.no_names = true;
			memset(out, 0, s->cluster_size);
			len = build(s, &shorter, old, out);
		}
		if (!len)
			ret = -ENOSPC;
	}
	if (!ret && !qcow2_header_parse(&h, out, s->cluster_size, s->file->length, NULL))
		ret = -EINVAL;
	if (!ret)
		ret = write_out(s, out, len);
	if (!ret)
		s->h = h;
	else
		error_set_errno(err, ret, "Could not write the new header");
	free(old);
	free(out);
	return !ret;
}

static struct plan as_it_is(const struct qcow2 *s)
{
	return (struct plan){
		.version = s->h.version,
		.lazy = s->h.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS,
		.backing = s->node->backing_name,
		.format = s->node->backing_format,
		.data = s->data_name,
		.raw_data = s->raw_data,
	};
}

bool qcow2_change_backing(struct block_node *node, const char *backing, const char *format,
			  struct error **err)
{
	struct qcow2 *s = node->opaque;
	struct plan p = as_it_is(s);

	p.backing = backing;
	p.format = backing ? format : NULL;
	if (backing && strlen(backing) > 1023) {
		error_set(err, "Backing file name too long");
		return false;
	}
	if (!rewrite(s, &p, err))
		return false;
	free(node->backing_name);
	free(node->backing_format);
	node->backing_name = backing ? xstrdup(backing) : NULL;
	node->backing_format = p.format ? xstrdup(p.format) : NULL;
	return true;
}

/* An old header has no word for clusters of zeroes: they become data, or nothing. */
static int expand_zeroes(struct qcow2 *s)
{
	struct block_node *node = s->node;
	uint8_t *zero = NULL;
	int ret = 0;

	if (node->backing_name && posix_memalign((void **)&zero, 4096, s->cluster_size))
		return -ENOMEM;
	if (zero)
		memset(zero, 0, s->cluster_size);
	for (uint64_t at = 0; !ret && at < node->length;) {
		struct block_extent x;
		uint64_t n;

		ret = block_status(node, at, node->length - at, &x);
		if (ret)
			break;
		n = x.bytes;
		if (x.allocated && !x.data && !zero) {
			ret = block_discard(node, at, n);
		} else if (x.allocated && !x.data) {
			n = MIN(n, s->cluster_size);
			ret = block_pwrite(node, at, zero, n, 0);
		}
		at += n;
	}
	free(zero);
	return ret ? ret : qcow2_commit_sync(s);
}

static bool can_be_old(const struct qcow2 *s, const struct plan *p, struct error **err)
{
	if (s->h.refcount_order != 4)
		error_set(err, "compat=0.10 requires refcount_bits=16");
	else if (s->h.incompatible)
		error_set(err, "Cannot downgrade an image with incompatible features set");
	else if (s->h.snapshots)
		error_set(err, "Cannot downgrade an image with internal snapshots");
	else if (p->lazy)
		error_set(err, "Lazy refcounts only supported with compatibility level 1.1 and "
			       "above (use compat=1.1 or greater)");
	else
		return true;
	return false;
}

/* data_file: the name in the header alone, "" for none; data_file_raw can only be given up. */
static bool data_file_options(struct qcow2 *s, struct opts *opts, struct plan *p,
			      struct error **err)
{
	const char *name = opts_get(opts, "data_file");

	if (!opts_get_bool(opts, "data_file_raw", &p->raw_data, err))
		return false;
	if (name && !s->external)
		error_set(err, "data-file can only be set for images that use an external data file");
	else if (p->raw_data && !s->raw_data)
		error_set(err, "data-file-raw cannot be set on existing images");
	else if (name && strlen(name) > 1023)
		error_set(err, "Data file name too long for the image's header");
	else {
		if (name)
			p->data = *name ? name : NULL;
		return true;
	}
	return false;
}

static bool set_width(struct qcow2 *s, uint64_t bits, struct error **err)
{
	return bits == 1u << s->h.refcount_order ||
	       qcow2_change_order(s, __builtin_ctzll(bits), err);
}

bool qcow2_amend(struct block_node *node, struct opts *opts, bool force,
		 const struct objects *objects, struct error **err)
{
	struct qcow2 *s = node->opaque;
	struct plan p = as_it_is(s);
	const char *compat = opts_get(opts, "compat"), *backing = opts_get(opts, "backing_file");
	const char *format = opts_get(opts, "backing_fmt");
	uint64_t bits = 1u << s->h.refcount_order, size = node->length;
	int ret;

	if (compat && (!strcmp(compat, "0.10") || !strcmp(compat, "v2"))) {
		p.version = 2;
	} else if (compat && (!strcmp(compat, "1.1") || !strcmp(compat, "v3"))) {
		p.version = 3;
	} else if (compat) {
		error_set(err, "Unknown compatibility level %s", compat);
		return false;
	}
	if (!opts_get_bool(opts, "lazy_refcounts", &p.lazy, err) ||
	    !opts_get_u64(opts, "refcount_bits", &bits, err) ||
	    !opts_get_size(opts, "size", 1, &size, err))
		return false;
	if ((backing && strcmp(backing, node->backing_name ? node->backing_name : "")) ||
	    (format && strcmp(format, node->backing_format ? node->backing_format : ""))) {
		error_set(err, "Cannot amend the backing file\nYou can use 'vmm-img rebase' "
			       "instead.");
		return false;
	}
	if (!is_pow2(bits) || bits > 64) {
		error_set(err, "Refcount width must be a power of two and may not exceed 64 bits");
		return false;
	}
	if (p.version < 3 && bits != 16) {
		error_set(err, "Refcount widths other than 16 bits require compatibility level 1.1 "
			       "or above (use compat=1.1 or greater)");
		return false;
	}
	if (!data_file_options(s, opts, &p, err))
		return false;
	/* The mark of lazy refcounts is no feature that an old header lacks. */
	ret = qcow2_mark_clean(s);
	if (ret) {
		error_set_errno(err, ret, "Could not write the image's metadata");
		return false;
	}
	if (p.version <= s->h.version && !set_width(s, bits, err))
		return false;
	if (p.version < 3 && !can_be_old(s, &p, err))
		return false;
	if (!qcow2_amend_crypt(s, opts, force, objects, err))
		return false;
	s->lazy &= p.lazy;
	if (p.version < s->h.version) {
		/* Lazy refcounts could make the header dirty again. */
		ret = expand_zeroes(s);
		if (ret) {
			error_set_errno(err, ret, "Turning zero into data clusters failed");
			return false;
		}
		ret = qcow2_bitmaps_drop(s);
		if (ret) {
			error_set_errno(err, ret, "Could not remove the bitmaps");
			return false;
		}
	}
	if ((p.version != s->h.version || p.data != s->data_name || p.raw_data != s->raw_data ||
	     p.lazy != !!(s->h.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS)) &&
	    !rewrite(s, &p, err))
		return false;
	s->raw_data = p.raw_data;
	if (!set_width(s, bits, err))
		return false;
	return size == node->length || !block_truncate(node, ALIGN_UP(size, 512), err);
}
