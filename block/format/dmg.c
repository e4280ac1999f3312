/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Apple's disk images (UDIF, dmg), for reading: a trailer that tells where the property list or
 * resource fork with the tables is, and chunks: raw, zero, compressed by zlib, or by bzip2 if the
 * program was built with it. ADC, lzfse and lzma are refused by name.
 *
 * Thread: the node's loop.
 */
#include "config.h"

#include "block/format/dmg.h"

#include <errno.h>
#include <stdlib.h>

#ifdef CONFIG_ZLIB
#include <zlib.h>
#endif
#ifdef CONFIG_BZIP2
#include <bzlib.h>
#endif

#include "block/format/mapped.h"

struct dmg {
	struct mapped m;
	struct dmg_chunks chunks;
};

static int find(struct mapped *m, uint64_t offset, struct waiter *w, struct mapped_run *run)
{
	struct dmg *s = container_of(m, struct dmg, m);
	uint64_t sector = offset / 512;
	size_t low = 0, high = s->chunks.count;
	const struct dmg_chunk *k;

	/* The first that begins behind it. */
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->chunks.list[mid].sector <= sector)
			low = mid + 1;
		else
			high = mid;
	}
	run->bytes = (low < s->chunks.count ? s->chunks.list[low].sector * 512 : m->node->length) -
		     offset;
	k = low ? &s->chunks.list[low - 1] : NULL;
	if (!k || sector >= k->sector + k->sectors)
		return 0; /* between two chunks: zero */
	run->bytes = (k->sector + k->sectors) * 512 - offset;
	if (k->type == DMG_ZERO || k->type == DMG_IGNORED) {
		run->type = MAPPED_ZERO;
	} else if (k->type == DMG_RAW) {
		run->type = MAPPED_DATA;
		run->host = k->offset + offset - k->sector * 512;
	} else {
		run->type = MAPPED_PACKED;
		run->host = k->offset;
		run->packed = k->bytes;
		run->start = k->sector * 512;
		run->size = k->sectors * 512;
		run->method = k->type;
	}
	return 0;
}

static int unpack(struct mapped *m, const struct mapped_run *run, const uint8_t *in, uint8_t *out)
{
#ifdef CONFIG_ZLIB
	if (run->method == DMG_ZLIB) {
		uLongf n = run->size;

		return uncompress(out, &n, in, run->packed) == Z_OK && n == run->size ? 0 : -EIO;
	}
#endif
#ifdef CONFIG_BZIP2
	if (run->method == DMG_BZIP2) {
		unsigned n = run->size;
		int ret = BZ2_bzBuffToBuffDecompress((char *)out, &n, (char *)in, run->packed, 0,
						     0);

		return ret == BZ_OK && n == run->size ? 0 : -EIO;
	}
#endif
	return -ENOTSUP;
}

static const struct mapped_ops ops = {.find = find, .unpack = unpack};

/* The trailer stands at the file's end, whose length may not be a multiple of 512. */
static bool find_trailer(struct block_node *node, uint8_t *trailer, struct error **err)
{
	uint64_t length = node->file->length, at = length < 1024 ? 0 : length - 1024;
	uint8_t buf[1024] = {0};
	int ret = block_pread(node->file, at, buf, MIN(length, (uint64_t)sizeof(buf)));

	if (ret) {
		error_set_errno(err, ret, "Could not read the image's trailer");
		return false;
	}
	for (size_t i = sizeof(buf) - DMG_TRAILER + 1; i--;) {
		if (!memcmp(buf + i, "koly", 4)) {
			memcpy(trailer, buf + i, DMG_TRAILER);
			return true;
		}
	}
	error_set(err, "Could not locate UDIF trailer in dmg file");
	return false;
}

static bool can_unpack(const struct dmg_chunks *c, struct error **err)
{
	for (size_t i = 0; i < c->count; i++) {
#ifndef CONFIG_ZLIB
		if (c->list[i].type == DMG_ZLIB) {
			error_set(err,
				  "This program was built without zlib, which the image needs");
			return false;
		}
#endif
#ifndef CONFIG_BZIP2
		if (c->list[i].type == DMG_BZIP2) {
			error_set(err,
				  "This program was built without bzip2, which the image needs");
			return false;
		}
#endif
	}
	return true;
}

static bool dmg_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		     struct error **err)
{
	struct dmg *s = node->opaque;
	uint8_t t[DMG_TRAILER];
	uint64_t at, bytes, sectors;
	bool fork, ok;
	void *table;

	if (!find_trailer(node, t, err) || !mapped_read_only(node, how, err))
		return false;
	s->chunks.data_fork = load_be64(t + 0x18);
	s->chunks.file_size = node->file->length;
	fork = load_be64(t + 0x30);
	at = load_be64(t + (fork ? 0x28 : 0xd8));
	bytes = load_be64(t + (fork ? 0x30 : 0xe0));
	sectors = load_be64(t + 0x1ec);
	if (sectors > (INT64_MAX - 511) / 512) {
		error_set(err, "The image's size is invalid");
		return false;
	}
	if (!bytes || bytes > DMG_MAX_TEXT) {
		error_set(err, "The image has no table of chunks, or one that is too large");
		return false;
	}
	table = mapped_read_table(node, at, bytes, "table of chunks", err);
	if (!table)
		return false;
	ok = fork ? dmg_parse_resources(&s->chunks, table, bytes, err)
		  : dmg_parse_plist(&s->chunks, table, bytes, err);
	free(table);
	if (!ok || !dmg_sort(&s->chunks, err) || !can_unpack(&s->chunks, err))
		return false;
	node->length = sectors * 512;
	s->m.unit = 512;
	mapped_init(&s->m, node, &ops);
	return true;
}

static void dmg_close(struct block_node *node)
{
	struct dmg *s = node->opaque;

	mapped_close(node);
	free(s->chunks.list);
	s->chunks.list = NULL;
}

/* The magic is at the file's end: never guessed from its beginning. */
const struct block_driver block_dmg = {
	.name = "dmg",
	.node_size = sizeof(struct dmg),
	.req_size = MAPPED_REQ_SIZE,
	.open = dmg_open,
	.close = dmg_close,
	.submit = mapped_submit,
	.status = mapped_status,
};
