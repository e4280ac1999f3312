/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of Apple's disk images: "mish" blocks, in a property list or in a resource fork. Pure;
 * any thread.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/format/dmg.h"

enum { MISH_HEADER = 204, MISH_ENTRY = 40 };

static bool damaged(struct error **err)
{
	error_set(err, "The image's table of chunks is damaged");
	return false;
}

static bool chunk_ok(const struct dmg_chunks *c, const struct dmg_chunk *k)
{
	if (!k->sectors || k->sectors > INT64_MAX / 512 || k->sector > INT64_MAX / 512 - k->sectors)
		return false;
	if (k->type == DMG_ZERO || k->type == DMG_IGNORED)
		return true;
	if (!range_inside(k->offset, k->bytes, c->file_size))
		return false;
	if (k->type == DMG_RAW)
		return k->bytes >= k->sectors * 512;
	return k->bytes && k->bytes <= DMG_MAX_CHUNK && k->sectors <= DMG_MAX_CHUNK / 512;
}

static bool add(struct dmg_chunks *c, const struct dmg_chunk *k)
{
	if (c->count == c->room) {
		size_t room = c->room ? c->room * 2 : 64;
		struct dmg_chunk *grown = realloc(c->list, room * sizeof(*grown));

		if (!grown)
			return false;
		c->list = grown;
		c->room = room;
	}
	c->list[c->count++] = *k;
	return true;
}

bool dmg_parse_mish(struct dmg_chunks *c, const uint8_t *buf, size_t len, struct error **err)
{
	uint64_t first, base;

	if (len < MISH_HEADER || memcmp(buf, "mish", 4))
		return true; /* something else */
	first = load_be64(buf + 8);
	base = load_be64(buf + 0x18) + c->data_fork;
	for (size_t at = MISH_HEADER; at + MISH_ENTRY <= len; at += MISH_ENTRY) {
		struct dmg_chunk k = {
			.type = load_be32(buf + at),
			.sector = load_be64(buf + at + 8) + first,
			.sectors = load_be64(buf + at + 16),
			.offset = load_be64(buf + at + 24) + base,
			.bytes = load_be64(buf + at + 32),
		};

		switch (k.type) {
		case DMG_COMMENT:
			continue;
		case DMG_END:
			return true;
		case DMG_ADC:
		case DMG_LZFSE:
		case DMG_LZMA:
			error_set(err, "Chunks compressed by %s are not supported",
				  k.type == DMG_ADC	? "ADC"
				  : k.type == DMG_LZFSE ? "lzfse"
							: "lzma");
			return false;
		case DMG_ZERO:
		case DMG_RAW:
		case DMG_IGNORED:
		case DMG_ZLIB:
		case DMG_BZIP2:
			break;
		default:
			error_set(err, "Chunks of unknown type 0x%08x are not supported", k.type);
			return false;
		}
		if (!k.sectors && k.type <= DMG_IGNORED)
			continue;
		if (!chunk_ok(c, &k))
			return damaged(err);
		if (!add(c, &k)) {
			error_set_errno(err, ENOMEM, "Could not read the table of chunks");
			return false;
		}
	}
	return true;
}

/* Base64 with white space in it; how many bytes. Anything else ends it. */
static size_t decode64(const char *text, size_t len, uint8_t *out)
{
	uint32_t word = 0;
	unsigned bits = 0;
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		int value = c >= 'A' && c <= 'Z'   ? c - 'A'
			    : c >= 'a' && c <= 'z' ? c - 'a' + 26
			    : c >= '0' && c <= '9' ? c - '0' + 52
			    : c == '+'		   ? 62
			    : c == '/'		   ? 63
						   : -1;

		if (value < 0) {
			if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
				continue;
			break;
		}
		word = word << 6 | value;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[n++] = word >> bits;
		}
	}
	return n;
}

/* Every <data> element; those that are no mish blocks are passed over. */
bool dmg_parse_plist(struct dmg_chunks *c, const char *text, size_t len, struct error **err)
{
	const char *at = text, *end = text + len;
	uint8_t *buf = malloc(MAX(len, (size_t)1));
	bool ok = buf != NULL;

	if (!buf)
		error_set_errno(err, ENOMEM, "Could not read the property list");
	while (ok && (at = memmem(at, end - at, "<data>", 6))) {
		const char *stop;

		at += 6;
		stop = memmem(at, end - at, "</data>", 7);
		if (!stop)
			break;
		ok = dmg_parse_mish(c, buf, decode64(at, stop - at, buf), err);
		at = stop;
	}
	free(buf);
	return ok;
}

/* A resource fork: where its data are, then each with its length in front. */
bool dmg_parse_resources(struct dmg_chunks *c, const uint8_t *buf, size_t len, struct error **err)
{
	uint64_t at, end;

	if (len < 16)
		return damaged(err);
	at = load_be32(buf);
	end = at + load_be32(buf + 8);
	if (end > len)
		return damaged(err);
	while (at + 4 <= end) {
		uint64_t n = load_be32(buf + at);

		at += 4;
		if (!n || n > end - at)
			return damaged(err);
		if (!dmg_parse_mish(c, buf + at, n, err))
			return false;
		at += n;
	}
	return true;
}

static int compare(const void *a, const void *b)
{
	const struct dmg_chunk *x = a, *y = b;

	return x->sector < y->sector ? -1 : x->sector > y->sector;
}

bool dmg_sort(struct dmg_chunks *c, struct error **err)
{
	if (c->count)
		qsort(c->list, c->count, sizeof(*c->list), compare);
	for (size_t i = 1; i < c->count; i++)
		if (c->list[i - 1].sector + c->list[i - 1].sectors > c->list[i].sector)
			return damaged(err);
	return true;
}
