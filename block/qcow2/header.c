/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing the qcow2 header; see header.h.
 */
#include "block/qcow2/header.h"

#include <stdio.h>

#include "vmm/core/util.h"

static bool check_table(const char *name, uint64_t offset, uint64_t bytes, uint64_t max,
			uint64_t cluster_size, uint64_t file_size, struct error **err)
{
	if (bytes > max) {
		error_set(err, "%s too large", name);
		return false;
	}
	if (!IS_ALIGNED(offset, cluster_size) || offset > INT64_MAX - bytes) {
		error_set(err, "%s offset invalid", name);
		return false;
	}
	/* The file's last cluster may be short. */
	if (bytes && (offset < cluster_size ||
		      !range_inside(offset, bytes, ALIGN_UP(file_size, cluster_size)))) {
		error_set(err, "%s lies outside of the file", name);
		return false;
	}
	return true;
}

static bool check_sizes(const struct qcow2_header *h, uint64_t file_size, struct error **err)
{
	uint64_t cluster = UINT64_C(1) << h->cluster_bits;
	/* Guest bytes that one L1 entry stands for. */
	unsigned l1_bits = 2 * h->cluster_bits - (h->incompatible & QCOW2_INCOMPAT_EXTL2 ? 4 : 3);

	if (h->size > INT64_MAX - 511 ||
	    (h->size >> l1_bits) + !IS_ALIGNED(h->size, UINT64_C(1) << l1_bits) > h->l1_size) {
		error_set(err, "L1 table is too small");
		return false;
	}
	if (!h->reftable_clusters) {
		error_set(err, "Image does not contain a reference count table");
		return false;
	}
	return check_table("Active L1 table", h->l1_offset, (uint64_t)h->l1_size * 8,
			   QCOW2_MAX_L1_BYTES, cluster, file_size, err) &&
	       check_table("Reference count table", h->reftable_offset,
			   (uint64_t)h->reftable_clusters << h->cluster_bits,
			   QCOW2_MAX_REFTABLE_BYTES, cluster, file_size, err) &&
	       check_table("Snapshot table", h->snapshots_offset, (uint64_t)h->snapshots * 40,
			   QCOW2_MAX_SNAPSHOTS * UINT64_C(40), cluster, file_size, err);
}

bool qcow2_header_parse(struct qcow2_header *h, const uint8_t *buf, size_t len, uint64_t file_size,
			struct error **err)
{
	*h = (struct qcow2_header){0};
	if (len < QCOW2_V3_HEADER || load_be32(buf) != QCOW2_MAGIC) {
		error_set(err, "Image is not in qcow2 format");
		return false;
	}
	h->version = load_be32(buf + 4);
	h->backing_offset = load_be64(buf + 8);
	h->backing_len = load_be32(buf + 16);
	h->cluster_bits = load_be32(buf + 20);
	h->size = load_be64(buf + QCOW2_OFF_SIZE);
	h->crypt_method = load_be32(buf + QCOW2_OFF_CRYPT_METHOD);
	h->l1_size = load_be32(buf + QCOW2_OFF_L1_SIZE);
	h->l1_offset = load_be64(buf + QCOW2_OFF_L1);
	h->reftable_offset = load_be64(buf + QCOW2_OFF_REFTABLE);
	h->reftable_clusters = load_be32(buf + QCOW2_OFF_REFTABLE_CLUSTERS);
	h->snapshots = load_be32(buf + QCOW2_OFF_SNAPSHOTS);
	h->snapshots_offset = load_be64(buf + QCOW2_OFF_SNAPSHOT_TABLE);
	h->refcount_order = 4;
	h->header_length = QCOW2_V2_HEADER;
	if (h->version != 2 && h->version != 3) {
		error_set(err, "Unsupported qcow2 version %u", h->version);
		return false;
	}
	if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
		error_set(err, "Unsupported cluster size: 2^%u", h->cluster_bits);
		return false;
	}
	if (h->version == 3) {
		h->incompatible = load_be64(buf + QCOW2_OFF_INCOMPATIBLE);
		h->compatible = load_be64(buf + QCOW2_OFF_COMPATIBLE);
		h->autoclear = load_be64(buf + QCOW2_OFF_AUTOCLEAR);
		h->refcount_order = load_be32(buf + 96);
		h->header_length = load_be32(buf + 100);
		if (h->header_length < QCOW2_V3_HEADER) {
			error_set(err, "qcow2 header too short");
			return false;
		}
	}
	if (h->header_length > UINT64_C(1) << h->cluster_bits || h->header_length % 8) {
		error_set(err, "qcow2 header exceeds cluster size");
		return false;
	}
	if (h->header_length > QCOW2_V3_HEADER && len > QCOW2_V3_HEADER)
		h->compression = buf[QCOW2_V3_HEADER];
	if ((h->incompatible & QCOW2_INCOMPAT_EXTL2) && h->cluster_bits < 14) {
		error_set(err, "Extended L2 entries need clusters of 16 KiB or more");
		return false;
	}
	if (h->refcount_order > 6) {
		error_set(err, "Reference count entry width too large; may not exceed 64 bits");
		return false;
	}
	if (h->backing_offset &&
	    (h->backing_offset < h->header_length ||
	     !range_inside(h->backing_offset, h->backing_len, UINT64_C(1) << h->cluster_bits))) {
		error_set(err, "Invalid backing file offset");
		return false;
	}
	if (h->backing_offset && h->backing_len > 1023) {
		error_set(err, "Backing file name too long");
		return false;
	}
	if (h->snapshots > QCOW2_MAX_SNAPSHOTS) {
		error_set(err, "Too many snapshots");
		return false;
	}
	return check_sizes(h, file_size, err);
}

static void take_extension(struct qcow2_extensions *x, uint32_t type, const uint8_t *data,
			   uint32_t offset, uint32_t len)
{
	switch (type) {
	case (uint32_t)QCOW2_EXT_BACKING_FORMAT:
		memcpy(x->backing_format, data, MIN(len, sizeof(x->backing_format) - 1));
		break;
	case QCOW2_EXT_BITMAPS:
		x->bitmaps_offset = offset;
		x->bitmaps_len = len;
		break;
	case QCOW2_EXT_CRYPTO:
		if (len < 16)
			break;
		x->crypt_offset = load_be64(data);
		x->crypt_bytes = load_be64(data + 8);
		break;
	case QCOW2_EXT_DATA_FILE:
		x->data_offset = offset;
		x->data_len = len;
		break;
	case QCOW2_EXT_FEATURES:
		x->features_offset = offset;
		x->features_len = len;
		break;
	}
}

static bool walk_extensions(struct qcow2_extensions *x, const struct qcow2_header *h,
			    const uint8_t *first, size_t len, struct error **err)
{
	uint64_t end = MIN((uint64_t)len, UINT64_C(1) << h->cluster_bits);
	uint64_t at = h->header_length;

	*x = (struct qcow2_extensions){""};
	if (h->backing_offset)
		end = MIN(end, h->backing_offset);
	while (at + 8 <= end) {
		uint32_t type = load_be32(first + at), bytes = load_be32(first + at + 4);

		at += 8;
		if (type == QCOW2_EXT_END)
			return true;
		if (bytes > end - at) {
			error_set(err, "Header extension too large");
			return false;
		}
		if (type == (uint32_t)QCOW2_EXT_BACKING_FORMAT &&
		    bytes >= sizeof(x->backing_format)) {
			error_set(err, "Backing format name too long");
			return false;
		}
		take_extension(x, type, first + at, at, bytes);
		at += ALIGN_UP(bytes, 8u);
	}
	return true;
}

bool qcow2_extensions_parse(struct qcow2_extensions *x, const struct qcow2_header *h,
			    const uint8_t *first, size_t len, uint64_t file_size,
			    struct error **err)
{
	uint64_t cluster = UINT64_C(1) << h->cluster_bits;

	if (!walk_extensions(x, h, first, len, err))
		return false;
	if (h->crypt_method != QCOW2_CRYPT_LUKS) {
		x->crypt_offset = x->crypt_bytes = 0;
		return true;
	}
	if (!x->crypt_offset || !x->crypt_bytes) {
		error_set(err, "The image tells of no LUKS header");
		return false;
	}
	return check_table("LUKS header", x->crypt_offset, x->crypt_bytes, QCOW2_MAX_CRYPT_BYTES,
			   cluster, file_size, err);
}

/* The name that the image itself gives to an incompatible feature, or NULL. */
static const uint8_t *feature_name(const struct qcow2_extensions *x, const uint8_t *first, int bit)
{
	for (uint32_t at = 0; at + 48 <= x->features_len; at += 48) {
		const uint8_t *f = first + x->features_offset + at;

		if (f[0] == 0 && f[1] == bit && f[2])
			return f + 2;
	}
	return NULL;
}

bool qcow2_features_check(const struct qcow2_header *h, const struct qcow2_extensions *x,
			  const uint8_t *first, struct error **err)
{
	static const char *const known[] = {"dirty", "corrupt", "external data file",
					    "compression type", "extended L2 entries"};
	uint64_t unsupported = h->incompatible &
			       ~(uint64_t)(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT |
					   QCOW2_INCOMPAT_COMPRESSION | QCOW2_INCOMPAT_DATA_FILE |
					   QCOW2_INCOMPAT_EXTL2);
	const uint8_t *name;
	char clean[47] = "";
	int bit;

	if (h->crypt_method > QCOW2_CRYPT_LUKS) {
		error_set(err, "Unsupported encryption method %u", h->crypt_method);
		return false;
	}
	if (!!(h->incompatible & QCOW2_INCOMPAT_COMPRESSION) != (h->compression != QCOW2_ZLIB)) {
		error_set(err, "Compression type in the header and its feature bit disagree");
		return false;
	}
	if (h->compression > QCOW2_ZSTD) {
		error_set(err, "Unknown compression type %u", h->compression);
		return false;
	}
	if (!unsupported)
		return true;
	bit = __builtin_ctzll(unsupported);
	name = feature_name(x, first, bit);
	for (int i = 0; name && i < 46 && name[i]; i++)
		clean[i] = name[i] < ' ' || name[i] > '~' ? '?' : name[i];
	if (bit < (int)ARRAY_SIZE(known))
		error_set(err, "Unsupported qcow2 feature(s): %s", known[bit]);
	else if (name)
		error_set(err, "Unsupported qcow2 feature(s): %s", clean);
	else
		error_set(err, "Unsupported qcow2 feature(s): Unknown incompatible feature: %llx",
			  (unsigned long long)unsupported);
	return false;
}
