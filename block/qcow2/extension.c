/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bitmaps' extension in the header ("Header extensions" in the format's document): written,
 * changed and taken away in the first cluster, whose other extensions and backing file's name stay.
 *
 * The order of writes is such that a cut leaves the old state, the new one, or an extension that
 * counts for nothing because its autoclear bit is off; the other extensions can be read at any
 * moment. A new extension goes behind the last one, where there was nothing but the end. Where the
 * backing file's name is in the way, it moves first, behind its old place.
 *
 * Main thread, synchronous, drained; what the directory refers to is durable. -EFBIG: the header
 * has no room, and is what it was; after another error nobody knows what it is.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/bitmap.h"

enum { SECTOR = 512, EXT = 8 + QBITMAP_EXT_BYTES };

struct first {
	struct qcow2 *s;
	uint8_t *bytes;	  /* the first cluster */
	uint64_t at, end; /* the bitmaps' extension (0: none), and where the last one ends */
	bool last;	  /* nothing follows it */
};

/* Whole sectors around [from, to), durably. */
static int put_sectors(struct first *f, uint64_t from, uint64_t to)
{
	struct qcow2 *s = f->s;
	int ret;

	from = ALIGN_DOWN(from, SECTOR);
	to = ALIGN_UP(to, SECTOR);
	ret = block_pwrite(s->file, from, f->bytes + from, to - from, 0);
	if (!ret)
		ret = block_flush(s->file);
	if (!ret && !from)
		memcpy(s->header, f->bytes, sizeof(s->header));
	return ret;
}

static void find(struct first *f)
{
	const struct qcow2 *s = f->s;
	uint64_t at = s->h.header_length, end = s->cluster_size;

	if (s->h.backing_offset)
		end = MIN(end, s->h.backing_offset);
	f->at = 0;
	f->last = false;
	while (at + 8 <= end) {
		uint32_t type = load_be32(f->bytes + at), len = load_be32(f->bytes + at + 4);

		if (type == QCOW2_EXT_END || len > end - at - 8)
			break;
		f->last = type == QCOW2_EXT_BITMAPS;
		if (f->last)
			f->at = at;
		at += 8 + ALIGN_UP((uint64_t)len, 8);
	}
	f->end = at;
}

static bool set_autoclear(struct first *f, bool on)
{
	struct qcow2 *s = f->s;
	uint64_t old = s->h.autoclear;

	s->h.autoclear &= ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS;
	s->h.autoclear |= on ? QCOW2_AUTOCLEAR_BITMAPS : 0;
	store_be64(f->bytes + QCOW2_OFF_AUTOCLEAR, s->h.autoclear);
	return s->h.autoclear != old;
}

static int switch_autoclear(struct first *f, bool on)
{
	return set_autoclear(f, on) ? put_sectors(f, 0, SECTOR) : 0;
}

/* The data of the extension that is there. */
static int change(struct first *f, const uint8_t *data)
{
	uint64_t from = f->at + 8, to = from + QBITMAP_EXT_BYTES;
	bool one_sector = from / SECTOR == (to - 1) / SECTOR;
	int ret = 0;

	if (!one_sector)
		ret = switch_autoclear(f, false);
	memcpy(f->bytes + from, data, QBITMAP_EXT_BYTES);
	if (!ret && one_sector && from < SECTOR)
		set_autoclear(f, true);
	if (!ret)
		ret = put_sectors(f, from, to);
	return ret ? ret : switch_autoclear(f, true);
}

/* Where the backing file's name leaves room for one more extension: behind its old place, or, where
 * all of that is one sector, right behind the extension. 0: nowhere. */
static uint64_t new_place(const struct first *f)
{
	const struct qcow2 *s = f->s;
	uint64_t old = s->h.backing_offset, len = s->h.backing_len, to = f->end + EXT + 8;
	bool ended = f->end + 8 <= old && !load_be64(f->bytes + f->end);

	if (!old || (!ended && f->end >= SECTOR))
		return 0; /* without an end the old name would be read as an extension */
	if (MAX(to, old + len) + len <= s->cluster_size)
		return MAX(to, old + len);
	return to + len <= SECTOR ? to : 0;
}

static int move_name(struct first *f, uint64_t to)
{
	struct qcow2 *s = f->s;
	uint64_t len = s->h.backing_len;
	int ret = 0;

	memmove(f->bytes + to, f->bytes + s->h.backing_offset, len);
	if (to + len > SECTOR)
		ret = put_sectors(f, MAX(to, (uint64_t)SECTOR), to + len);
	if (f->end < SECTOR)
		memset(f->bytes + f->end, 0, 8);
	store_be64(f->bytes + 8, to);
	if (!ret)
		ret = put_sectors(f, 0, SECTOR);
	if (!ret)
		s->h.backing_offset = to;
	return ret;
}

static bool has_room(const struct first *f)
{
	const struct qcow2 *s = f->s;
	uint64_t limit = s->cluster_size;

	if (s->h.backing_offset)
		limit = MIN(limit, s->h.backing_offset);
	return f->end + EXT + 8 <= limit;
}

static int append(struct first *f, const uint8_t *data)
{
	uint64_t at = f->end, to = at + EXT + 8;
	int ret = 0;

	/* What is behind the end first: it counts when the sector with the end is there. */
	memset(f->bytes + at, 0, EXT + 8);
	if (ALIGN_DOWN(to - 1, SECTOR) > at)
		memcpy(f->bytes + at + 8, data, QBITMAP_EXT_BYTES);
	if (ALIGN_DOWN(to - 1, SECTOR) > at)
		ret = put_sectors(f, ALIGN_UP(at + 1, SECTOR), to);
	store_be32(f->bytes + at, QCOW2_EXT_BITMAPS);
	store_be32(f->bytes + at + 4, QBITMAP_EXT_BYTES);
	memcpy(f->bytes + at + 8, data, QBITMAP_EXT_BYTES);
	if (!ret && at < SECTOR)
		set_autoclear(f, true);
	if (!ret)
		ret = put_sectors(f, at, at + 1);
	return ret ? ret : switch_autoclear(f, true);
}

/* Names of features are a courtesy, and may go where there is no room: where they are; or 0. More
 * than a sector does not change at once. */
static uint64_t find_names(const struct first *f, uint64_t *len)
{
	uint64_t at = f->s->h.header_length;

	if (f->end + 8 > SECTOR)
		return 0;
	for (; at < f->end; at += *len) {
		*len = 8 + ALIGN_UP((uint64_t)load_be32(f->bytes + at + 4), 8);
		if (load_be32(f->bytes + at) == QCOW2_EXT_FEATURES)
			return *len >= EXT ? at : 0;
	}
	return 0;
}

static int drop_names(struct first *f, uint64_t at, uint64_t len)
{
	memmove(f->bytes + at, f->bytes + at + len, f->end - at - len);
	memset(f->bytes + f->end - len, 0, len);
	f->end -= len;
	return put_sectors(f, 0, SECTOR);
}

static int add(struct first *f, const uint8_t *data)
{
	uint64_t to = new_place(f), len, names = find_names(f, &len);
	int ret = 0;

	if (has_room(f))
		return append(f, data);
	if (to)
		ret = move_name(f, to);
	else if (names)
		ret = drop_names(f, names, len);
	if (ret)
		return ret;
	return has_room(f) ? append(f, data) : -EFBIG;
}

static int take_away(struct first *f)
{
	uint64_t tail = f->at + 8 + ALIGN_UP((uint64_t)load_be32(f->bytes + f->at + 4), 8);
	int ret = switch_autoclear(f, false);

	if (ret)
		return ret;
	if (f->last) {
		memset(f->bytes + f->at, 0, 8);
		return put_sectors(f, f->at, f->at + 8);
	}
	/* Others follow: they move up, if that is one sector's affair; else it stays, for nothing.
	 */
	if (f->at / SECTOR != (f->end + 7) / SECTOR || f->end + 8 > f->s->cluster_size)
		return 0;
	memmove(f->bytes + f->at, f->bytes + tail, f->end - tail);
	memset(f->bytes + f->at + f->end - tail, 0, tail - f->at);
	return put_sectors(f, f->at, f->end);
}

static int load_first(struct first *f, struct qcow2 *s)
{
	int ret;

	*f = (struct first){.s = s, .bytes = calloc(1, s->cluster_size)};
	if (!f->bytes)
		return -ENOMEM;
	ret = block_pread(s->file, 0, f->bytes, MIN(s->cluster_size, s->file->length));
	memcpy(f->bytes, s->header, sizeof(s->header));
	find(f);
	return ret;
}

bool qcow2_bitmaps_fit(struct qcow2 *s)
{
	struct first f;
	uint64_t len;
	bool ok = !load_first(&f, s) &&
		  (f.at || has_room(&f) || new_place(&f) || find_names(&f, &len));

	free(f.bytes);
	return ok;
}

int qcow2_put_bitmaps(struct qcow2 *s, const struct qbitmap_ext *x)
{
	uint8_t data[QBITMAP_EXT_BYTES];
	struct first f;
	int ret = load_first(&f, s);

	if (!ret) {
		if (x)
			qbitmap_ext_put(data, x);
		/* One of an odd length was no good anyway. */
		if (x && f.at && load_be32(f.bytes + f.at + 4) != QBITMAP_EXT_BYTES) {
			ret = take_away(&f);
			find(&f);
			if (!ret && f.at)
				ret = -EFBIG;
		}
		if (!ret && x)
			ret = f.at ? change(&f, data) : add(&f, data);
		else if (!ret && f.at)
			ret = take_away(&f);
		else if (!ret)
			ret = switch_autoclear(&f, false);
	}
	free(f.bytes);
	return ret;
}
