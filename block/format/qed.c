/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU Enhanced Disk images (QEMU's docs/interop/qed_spec.txt), for reading: two levels of tables
 * of equal size, clusters, a backing file. Unknown incompatible features are refused; an image that
 * needs a check is read as it is. A check repairs what QEMU's does: entries that lead out of the
 * file, and the mark that there was no check; leaks stay.
 *
 * Thread: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/format/mapped.h"

enum {
	QED_HEADER = 64,
	QED_OFF_FEATURES = 16,
	QED_FEATURE_BACKING = 1,
	QED_FEATURE_NEED_CHECK = 2,
	QED_FEATURE_NO_PROBE = 4,
	QED_FEATURES = 7,
	QED_MAX_L1 = 32 << 20,
	QED_MAX_NAME = 4096,
};

struct qed {
	struct mapped m;
	uint64_t features, l1_offset, l1_size, entries; /* of each table */
	uint64_t header_bytes;
	uint32_t name_offset, name_bytes;
	uint64_t *l1; /* host order */
};

/* Pure. */
static bool parse(struct qed *s, const uint8_t *h, uint64_t *size, struct error **err)
{
	uint32_t cluster = load_le32(h + 4), table = load_le32(h + 8);

	s->features = load_le64(h + QED_OFF_FEATURES);
	s->header_bytes = (uint64_t)load_le32(h + 12) * cluster;
	s->l1_offset = load_le64(h + 40);
	*size = load_le64(h + 48);
	s->name_offset = load_le32(h + 56);
	s->name_bytes = load_le32(h + 60);
	s->m.unit = cluster;
	s->entries = (uint64_t)cluster * table / 8;
	if (memcmp(h, "QED", 4)) {
		error_set(err, "Image not in QED format");
	} else if (s->features & ~(uint64_t)QED_FEATURES) {
		error_set(err, "Unsupported QED features: %llx",
			  (unsigned long long)s->features & ~(uint64_t)QED_FEATURES);
	} else if (!is_pow2(cluster) || cluster < 4096 || cluster > 64 * MiB) {
		error_set(err, "QED cluster size must be within range [4096, 67108864] and power "
			       "of 2");
	} else if (!is_pow2(table) || table > 16) {
		error_set(err, "QED table size must be within range [1, 16] and power of 2");
	} else if (!IS_ALIGNED(*size, 512) || *size > INT64_MAX - 511) {
		error_set(err, "QED image size is invalid");
	} else if (!IS_ALIGNED(s->l1_offset, cluster) || !s->l1_offset) {
		error_set(err, "QED L1 table offset is invalid");
	} else if ((s->features & QED_FEATURE_BACKING) && s->name_bytes > QED_MAX_NAME) {
		error_set(err, "Backing file name too long");
	} else {
		s->l1_size = div_round_up(div_round_up(*size, cluster), s->entries);
		if (s->l1_size <= s->entries && s->l1_size * 8 <= QED_MAX_L1)
			return true;
		error_set(err, "QED image size is too large");
	}
	return false;
}

static int entry_at(struct mapped *m, uint64_t unit, uint64_t *at)
{
	struct qed *s = container_of(m, struct qed, m);
	uint64_t table = unit / s->entries, l2;

	if (table >= s->l1_size)
		return -EIO;
	l2 = s->l1[table];
	if (l2 && (!IS_ALIGNED(l2, m->unit) || l2 >= m->file->length))
		return -EIO;
	*at = l2 ? l2 + unit % s->entries * 8 : 0;
	return 0;
}

static int decode(struct mapped *m, uint64_t unit, const uint8_t *entry, struct mapped_run *run)
{
	uint64_t e = load_le64(entry);

	if (e <= 1) {
		run->type = e ? MAPPED_ZERO : MAPPED_NONE;
		return 0;
	}
	run->type = MAPPED_DATA;
	run->host = e;
	return IS_ALIGNED(e, m->unit) && mapped_inside(m, e) ? 0 : -EIO;
}

static const struct mapped_ops ops = {.entry_at = entry_at, .decode = decode};

static bool qed_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		     struct error **err)
{
	struct qed *s = node->opaque;
	uint8_t h[QED_HEADER];

	if (!mapped_read_header(node, h, sizeof(h), err) || !parse(s, h, &node->length, err) ||
	    !mapped_read_only(node, how, err))
		return false;
	s->l1 = mapped_read_table(node, s->l1_offset, s->l1_size * 8, "L1 table", err);
	if (!s->l1)
		return false;
	for (uint64_t i = 0; i < s->l1_size; i++)
		s->l1[i] = le64toh(s->l1[i]);
	if (s->features & QED_FEATURE_BACKING) {
		char *name = mapped_read_table(node, s->name_offset, s->name_bytes,
					       "backing file's name", err);

		if (!name)
			return false;
		node->backing_name = xstrndup(name, s->name_bytes);
		if (s->features & QED_FEATURE_NO_PROBE)
			node->backing_format = xstrdup("raw");
		free(name);
	}
	s->m.entry_bytes = 8;
	s->m.data_start = s->m.unit;
	mapped_init(&s->m, node, &ops);
	return block_open_backing(node, how, opts, err);
}

static void qed_close(struct block_node *node)
{
	struct qed *s = node->opaque;

	mapped_close(node);
	free(s->l1);
	s->l1 = NULL;
}

static bool qed_probe(const uint8_t *buf, size_t len)
{
	return len >= 4 && !memcmp(buf, "QED", 4);
}

static bool in_file(const struct qed *s, uint64_t table)
{
	return table && IS_ALIGNED(table, s->m.unit) && table < s->m.file->length;
}

/* The header and all tables. *end: of the last. */
static int tables(struct qed *s, struct mapped_check *c, uint64_t *end)
{
	uint64_t bytes = s->entries * 8;
	int ret = mapped_check_span(c, 0, s->header_bytes);

	if (!ret)
		ret = mapped_check_span(c, s->l1_offset, bytes);
	*end = s->l1_offset + bytes;
	for (uint64_t i = 0; i < s->l1_size && !ret; i++) {
		if (!in_file(s, s->l1[i]))
			continue;
		ret = mapped_check_span(c, s->l1[i], bytes);
		*end = MAX(*end, s->l1[i] + bytes);
	}
	return ret;
}

/* Whether tables lie upon one another: what is put right in one would be wrong in the other. */
static int tables_mixed(struct qed *s, bool *mixed)
{
	struct block_check found = {0};
	struct mapped_check c = {.m = &s->m, .r = &found};
	uint64_t end;
	int ret = tables(s, &c, &end);

	if (!ret)
		mapped_check_overlaps(&c);
	mapped_check_end(&c);
	*mixed = found.corruptions > 0;
	return ret;
}

static int repair_l1(struct qed *s, struct mapped_check *c)
{
	bool changed = false;
	uint64_t *out;
	int ret;

	for (uint64_t i = 0; i < s->l1_size; i++) {
		if (!s->l1[i] || in_file(s, s->l1[i]))
			continue;
		mapped_check_found(c, true, "table %llu is outside image", (unsigned long long)i);
		s->l1[i] = 0;
		changed = true;
	}
	if (!changed)
		return 0;
	out = malloc(s->l1_size * 8);
	if (!out)
		return -ENOMEM;
	for (uint64_t i = 0; i < s->l1_size; i++)
		out[i] = htole64(s->l1[i]);
	ret = block_pwrite(s->m.file, s->l1_offset, out, s->l1_size * 8, 0);
	free(out);
	return ret;
}

/* Everything else is right, and durable before the mark goes. */
static int mark_clean(struct qed *s)
{
	uint8_t features[8];
	int ret;

	if (!(s->features & QED_FEATURE_NEED_CHECK))
		return 0;
	store_le64(features, s->features & ~(uint64_t)QED_FEATURE_NEED_CHECK);
	ret = block_flush(s->m.file);
	if (!ret)
		ret = block_pwrite(s->m.file, QED_OFF_FEATURES, features, sizeof(features), 0);
	if (!ret)
		ret = block_flush(s->m.file);
	if (!ret)
		s->features &= ~(uint64_t)QED_FEATURE_NEED_CHECK;
	return ret;
}

/* What begins in the file's last bytes and ends behind them gets the rest. */
static int check_end(struct qed *s, struct mapped_check *c, uint64_t end)
{
	if (end <= s->m.file->length)
		return 0;
	mapped_check_found(c, c->repair, "the file ends inside of a cluster");
	return c->repair ? block_truncate(s->m.file, end, NULL) : 0;
}

static int qed_check(struct block_node *node, unsigned fix, struct block_check *result,
		     const struct block_check_out *out)
{
	struct qed *s = node->opaque;
	struct mapped_check c = {.m = &s->m, .r = result, .out = out, .table_units = s->entries};
	uint64_t unit = s->m.unit, clusters = node->file->length / unit, used, end;
	bool mixed;
	int ret = tables_mixed(s, &mixed);

	c.repair = fix && !mixed;
	if (!ret && c.repair)
		ret = repair_l1(s, &c);
	if (!ret)
		ret = mapped_check_units(&c);
	if (!ret)
		ret = tables(s, &c, &end);
	if (!ret)
		ret = check_end(s, &c, MAX(end, result->image_end));
	if (!ret) {
		used = div_round_up(mapped_check_overlaps(&c), unit);
		result->leaks = clusters > used && !result->corruptions ? clusters - used : 0;
		result->image_end = 0;
	}
	if (!ret && fix && !result->corruptions)
		ret = mark_clean(s);
	mapped_check_end(&c);
	return ret;
}

static void qed_info(struct block_node *node, struct block_info *info)
{
	struct qed *s = node->opaque;

	mapped_info(node, info);
	info->dirty = s->features & QED_FEATURE_NEED_CHECK;
}

const struct block_driver block_qed = {
	.name = "qed",
	.node_size = sizeof(struct qed),
	.req_size = MAPPED_REQ_SIZE,
	.probe = qed_probe,
	.open = qed_open,
	.close = qed_close,
	.submit = mapped_submit,
	.status = mapped_status,
	.check = qed_check,
	.info = qed_info,
};
