/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's first copy-on-write format (qcow version 1), for reading: two levels of tables, clusters
 * plain or compressed, a backing file. Encrypted images are refused by name.
 *
 * Thread: the node's loop.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#ifdef CONFIG_ZLIB
#include <zlib.h>
#endif

#include "block/format/mapped.h"

enum { QCOW_HEADER = 48, QCOW_MAX_L1 = 32 << 20, QCOW_MAX_NAME = 1023 };
#define QCOW_COMPRESSED (UINT64_C(1) << 63)

struct qcow1 {
	struct mapped m;
	unsigned cluster_bits, l2_bits;
	uint64_t l1_offset, l1_size;
	uint64_t *l1; /* host order */
	uint64_t name_offset;
	uint32_t name_bytes;
};

/* Pure. */
static bool parse(struct qcow1 *s, const uint8_t *h, uint64_t *size, struct error **err)
{
	uint64_t covers;

	*size = load_be64(h + 24);
	s->name_offset = load_be64(h + 8);
	s->name_bytes = load_be32(h + 16);
	s->cluster_bits = h[32];
	s->l2_bits = h[33];
	s->l1_offset = load_be64(h + 40);
	if (memcmp(h, "QFI\xfb", 4)) {
		error_set(err, "Image not in qcow format");
	} else if (load_be32(h + 4) != 1) {
		error_set(err, "qcow (v%u) does not support qcow version %u", 1, load_be32(h + 4));
	} else if (s->cluster_bits < 9 || s->cluster_bits > 16) {
		error_set(err, "Cluster size must be between 512 and 64k");
	} else if (s->l2_bits < 6 || s->l2_bits > 13) {
		error_set(err, "L2 table size must be between 512 and 64k");
	} else if (load_be32(h + 36)) {
		error_set(err, "Encrypted qcow images are not supported");
	} else if (*size < 1 || *size > INT64_MAX - 511) {
		error_set(err, "Image size is invalid");
	} else if (s->name_offset && s->name_bytes > QCOW_MAX_NAME) {
		error_set(err, "Backing file name too long");
	} else {
		covers = UINT64_C(1) << (s->cluster_bits + s->l2_bits);
		s->l1_size = div_round_up(*size, covers);
		if (s->l1_size * 8 <= QCOW_MAX_L1)
			return true;
		error_set(err, "Image too large");
	}
	return false;
}

static int entry_at(struct mapped *m, uint64_t unit, uint64_t *at)
{
	struct qcow1 *s = container_of(m, struct qcow1, m);
	uint64_t table = unit >> s->l2_bits, l2;

	if (table >= s->l1_size)
		return -EIO;
	l2 = s->l1[table];
	if (l2 && (!IS_ALIGNED(l2, 8) || l2 >= m->file->length))
		return -EIO;
	*at = l2 ? l2 + (unit & ((UINT64_C(1) << s->l2_bits) - 1)) * 8 : 0;
	return 0;
}

static int decode(struct mapped *m, uint64_t unit, const uint8_t *entry, struct mapped_run *run)
{
	struct qcow1 *s = container_of(m, struct qcow1, m);
	uint64_t e = load_be64(entry);
	unsigned shift = 63 - s->cluster_bits;

	if (!e)
		return 0;
	run->type = MAPPED_DATA;
	run->host = e;
	if (e & QCOW_COMPRESSED) {
		run->type = MAPPED_PACKED;
		run->host = e & ((UINT64_C(1) << shift) - 1);
		run->packed = (e >> shift) & (m->unit - 1);
	}
	return mapped_inside(m, run->host) ? 0 : -EIO;
}

static int unpack(struct mapped *m, const struct mapped_run *run, const uint8_t *in, uint8_t *out)
{
#ifdef CONFIG_ZLIB
	z_stream z = {.next_in = (uint8_t *)in,
		      .avail_in = run->packed,
		      .next_out = out,
		      .avail_out = run->size};
	int ret;

	if (inflateInit2(&z, -12) != Z_OK)
		return -ENOMEM;
	ret = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
#else
	return -ENOTSUP;
#endif
}

static const struct mapped_ops ops = {.entry_at = entry_at, .decode = decode, .unpack = unpack};

static bool qcow1_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		       struct error **err)
{
	struct qcow1 *s = node->opaque;
	uint8_t h[QCOW_HEADER];
	uint64_t size;

	if (!mapped_read_header(node, h, sizeof(h), err) || !parse(s, h, &size, err) ||
	    !mapped_read_only(node, how, err))
		return false;
	s->l1 = mapped_read_table(node, s->l1_offset, s->l1_size * 8, "L1 table", err);
	if (!s->l1)
		return false;
	for (uint64_t i = 0; i < s->l1_size; i++)
		s->l1[i] = be64toh(s->l1[i]);
	if (s->name_offset && s->name_bytes) {
		char *name = mapped_read_table(node, s->name_offset, s->name_bytes,
					       "backing file's name", err);

		if (!name)
			return false;
		node->backing_name = xstrndup(name, s->name_bytes);
		free(name);
	}
	node->length = ALIGN_DOWN(size, 512);
	s->m.unit = UINT64_C(1) << s->cluster_bits;
	s->m.entry_bytes = 8;
	s->m.data_start = QCOW_HEADER;
	mapped_init(&s->m, node, &ops);
	return block_open_backing(node, how, opts, err);
}

static void qcow1_close(struct block_node *node)
{
	struct qcow1 *s = node->opaque;

	mapped_close(node);
	free(s->l1);
	s->l1 = NULL;
}

static bool qcow1_probe(const uint8_t *buf, size_t len)
{
	return len >= 8 && !memcmp(buf, "QFI\xfb", 4) && load_be32(buf + 4) == 1;
}

const struct block_driver block_qcow1 = {
	.name = "qcow",
	.node_size = sizeof(struct qcow1),
	.req_size = MAPPED_REQ_SIZE,
	.probe = qcow1_probe,
	.open = qcow1_open,
	.close = qcow1_close,
	.submit = mapped_submit,
	.info = mapped_info,
	.status = mapped_status,
};
