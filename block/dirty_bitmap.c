/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty bitmaps in memory; see dirty_bitmap.h.
 *
 * Bits lie in chunks of 32768. A chunk that is all clean is NULL, one that is all dirty is FULL.
 * The last chunk is as long as it needs to be.
 */
#include "block/dirty_bitmap.h"

#include <stdlib.h>

#include "vmm/core/util.h"

#define CHUNK_BITS  UINT64_C(32768)
#define CHUNK_WORDS (CHUNK_BITS / 64)
#define FULL	    ((uint64_t *)1)

static uint64_t chunk_count(uint64_t bits)
{
	return div_round_up(bits, CHUNK_BITS);
}

static uint64_t chunk_bits(const struct dirty_bitmap *bm, uint64_t chunk)
{
	return MIN(CHUNK_BITS, bm->bits - chunk * CHUNK_BITS);
}

static bool in_memory(const uint64_t *chunk)
{
	return chunk && chunk != FULL;
}

void dirty_bitmap_init(struct dirty_bitmap *bm, uint64_t size, unsigned shift)
{
	*bm = (struct dirty_bitmap){
		.size = size,
		.shift = shift,
		.bits = div_round_up(size, UINT64_C(1) << shift),
	};
}

void dirty_bitmap_clear(struct dirty_bitmap *bm)
{
	for (uint64_t i = 0; bm->chunks && i < chunk_count(bm->bits); i++)
		if (in_memory(bm->chunks[i]))
			free(bm->chunks[i]);
	free(bm->chunks);
	bm->chunks = NULL;
	bm->dirty = 0;
	bm->lost = false;
}

/* The bits of word w that the bitmap has. */
static uint64_t word_mask(const struct dirty_bitmap *bm, uint64_t w)
{
	if (w * 64 >= bm->bits)
		return 0;
	return bm->bits - w * 64 >= 64 ? UINT64_MAX : (UINT64_C(1) << (bm->bits % 64)) - 1;
}

static uint64_t get_word(const struct dirty_bitmap *bm, uint64_t w)
{
	const uint64_t *chunk;

	if (bm->lost)
		return word_mask(bm, w);
	if (!bm->chunks || w * 64 >= bm->bits)
		return 0;
	chunk = bm->chunks[w / CHUNK_WORDS];
	if (!chunk)
		return 0;
	return chunk == FULL ? word_mask(bm, w) : chunk[w % CHUNK_WORDS];
}

static uint64_t chunk_dirty(const struct dirty_bitmap *bm, uint64_t i)
{
	uint64_t n = 0;

	if (!bm->chunks[i])
		return 0;
	if (bm->chunks[i] == FULL)
		return chunk_bits(bm, i);
	for (uint64_t w = 0; w < div_round_up(chunk_bits(bm, i), 64); w++)
		n += __builtin_popcountll(bm->chunks[i][w]);
	return n;
}

static void fill_chunk(struct dirty_bitmap *bm, uint64_t i)
{
	bm->dirty += chunk_bits(bm, i) - chunk_dirty(bm, i);
	if (in_memory(bm->chunks[i]))
		free(bm->chunks[i]);
	bm->chunks[i] = FULL;
}

/* False: everything is dirty by now. */
static bool need_chunks(struct dirty_bitmap *bm)
{
	if (bm->lost)
		return false;
	if (!bm->chunks)
		bm->chunks = calloc(chunk_count(bm->bits), sizeof(*bm->chunks));
	if (bm->chunks)
		return true;
	bm->lost = true;
	bm->dirty = bm->bits;
	return false;
}

/* A chunk in memory; NULL if it could not be had. */
static uint64_t *make_chunk(struct dirty_bitmap *bm, uint64_t i)
{
	uint64_t words = div_round_up(chunk_bits(bm, i), 64), *chunk;

	if (in_memory(bm->chunks[i]))
		return bm->chunks[i];
	chunk = calloc(words, sizeof(*chunk));
	if (!chunk)
		return NULL;
	for (uint64_t w = 0; bm->chunks[i] == FULL && w < words; w++)
		chunk[w] = word_mask(bm, i * CHUNK_WORDS + w);
	bm->chunks[i] = chunk;
	return chunk;
}

static void or_word(struct dirty_bitmap *bm, uint64_t w, uint64_t value)
{
	uint64_t i = w / CHUNK_WORDS, *chunk;

	value &= ~get_word(bm, w) & word_mask(bm, w);
	if (!value || !need_chunks(bm))
		return;
	chunk = make_chunk(bm, i);
	if (!chunk) {
		fill_chunk(bm, i);
		return;
	}
	chunk[w % CHUNK_WORDS] |= value;
	bm->dirty += __builtin_popcountll(value);
}

static void clear_word(struct dirty_bitmap *bm, uint64_t w, uint64_t value)
{
	uint64_t *chunk;

	value &= get_word(bm, w);
	if (!value || bm->lost)
		return;
	chunk = make_chunk(bm, w / CHUNK_WORDS);
	if (!chunk)
		return; /* it stays dirty */
	chunk[w % CHUNK_WORDS] &= ~value;
	bm->dirty -= __builtin_popcountll(value);
}

/* The bits of word w in [first, end). */
static uint64_t span_mask(uint64_t w, uint64_t first, uint64_t end)
{
	uint64_t mask = UINT64_MAX;

	if (first > w * 64)
		mask &= UINT64_MAX << (first - w * 64);
	if (end - w * 64 < 64)
		mask &= (UINT64_C(1) << (end - w * 64)) - 1;
	return mask;
}

static void set_bits(struct dirty_bitmap *bm, uint64_t first, uint64_t end)
{
	while (first < end) {
		uint64_t i = first / CHUNK_BITS, stop = MIN(end, (i + 1) * CHUNK_BITS);

		if (stop - first == chunk_bits(bm, i)) {
			if (!need_chunks(bm))
				return;
			fill_chunk(bm, i);
			first = stop;
			continue;
		}
		for (uint64_t w = first / 64; w * 64 < stop; w++)
			or_word(bm, w, span_mask(w, first, stop));
		first = stop;
	}
}

static void clear_bits(struct dirty_bitmap *bm, uint64_t first, uint64_t end)
{
	while (first < end && bm->chunks) {
		uint64_t i = first / CHUNK_BITS, stop = MIN(end, (i + 1) * CHUNK_BITS);

		if (stop - first == chunk_bits(bm, i)) {
			bm->dirty -= chunk_dirty(bm, i);
			if (in_memory(bm->chunks[i]))
				free(bm->chunks[i]);
			bm->chunks[i] = NULL;
		}
		for (uint64_t w = first / 64; bm->chunks[i] && w * 64 < stop; w++)
			clear_word(bm, w, span_mask(w, first, stop));
		first = stop;
	}
}

void dirty_bitmap_set(struct dirty_bitmap *bm, uint64_t offset, uint64_t bytes)
{
	if (offset >= bm->size || !bytes)
		return;
	bytes = MIN(bytes, bm->size - offset);
	set_bits(bm, offset >> bm->shift, ((offset + bytes - 1) >> bm->shift) + 1);
}

void dirty_bitmap_reset(struct dirty_bitmap *bm, uint64_t offset, uint64_t bytes)
{
	uint64_t granule = UINT64_C(1) << bm->shift, first, end;

	if (offset >= bm->size)
		return;
	first = div_round_up(offset, granule);
	end = bytes >= bm->size - offset ? bm->bits : (offset + bytes) >> bm->shift;
	if (!first && end == bm->bits)
		dirty_bitmap_clear(bm);
	else
		clear_bits(bm, first, end);
}

bool dirty_bitmap_get(const struct dirty_bitmap *bm, uint64_t offset)
{
	uint64_t bit = offset >> bm->shift;

	return offset < bm->size && (get_word(bm, bit / 64) >> (bit % 64) & 1);
}

/* The first bit from on that is set (or not); bm->bits if there is none. */
static uint64_t find_bit(const struct dirty_bitmap *bm, uint64_t from, bool set)
{
	while (from < bm->bits) {
		uint64_t i = from / CHUNK_BITS, w = from / 64, word;

		if (bm->lost || !bm->chunks)
			return set == bm->lost ? from : bm->bits;
		if (!in_memory(bm->chunks[i])) {
			if (set == (bm->chunks[i] == FULL))
				return from;
			from = (i + 1) * CHUNK_BITS;
			continue;
		}
		word = get_word(bm, w);
		if (!set)
			word = ~word;
		word &= UINT64_MAX << (from % 64);
		if (word)
			return MIN(w * 64 + __builtin_ctzll(word), bm->bits);
		from = (w + 1) * 64;
	}
	return bm->bits;
}

bool dirty_bitmap_next(const struct dirty_bitmap *bm, uint64_t from, uint64_t *offset,
		       uint64_t *bytes)
{
	uint64_t first, end;

	if (from >= bm->size)
		return false;
	first = find_bit(bm, from >> bm->shift, true);
	if (first == bm->bits)
		return false;
	end = find_bit(bm, first, false);
	*offset = MAX(first << bm->shift, from);
	*bytes = (end == bm->bits ? bm->size : end << bm->shift) - *offset;
	return true;
}

void dirty_bitmap_merge(struct dirty_bitmap *to, const struct dirty_bitmap *from)
{
	uint64_t offset, bytes;

	for (uint64_t at = 0; dirty_bitmap_next(from, at, &offset, &bytes); at = offset + bytes)
		dirty_bitmap_set(to, offset, bytes);
}

void dirty_bitmap_resize(struct dirty_bitmap *bm, uint64_t size)
{
	struct dirty_bitmap old = *bm;
	uint64_t offset, bytes;

	if (size == bm->size)
		return;
	dirty_bitmap_init(bm, size, old.shift);
	for (uint64_t at = 0; at < size && dirty_bitmap_next(&old, at, &offset, &bytes);
	     at = offset + bytes)
		dirty_bitmap_set(bm, offset, bytes);
	dirty_bitmap_clear(&old);
}

uint64_t dirty_bitmap_count(const struct dirty_bitmap *bm, uint64_t first, uint64_t bits)
{
	uint64_t n = 0, end = MIN(first + bits, bm->bits);

	for (uint64_t w = first / 64; w * 64 < end; w++) {
		uint64_t i = w / CHUNK_WORDS;

		if (!bm->lost && (!bm->chunks || !bm->chunks[i]))
			w = (i + 1) * CHUNK_WORDS - 1;
		else
			n += __builtin_popcountll(get_word(bm, w) & span_mask(w, first, end));
	}
	return n;
}

void dirty_bitmap_give(const struct dirty_bitmap *bm, uint64_t first, uint8_t *buf, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 8)
		store_le64(buf + at, load_le64(buf + at) | get_word(bm, first / 64 + at / 8));
}

void dirty_bitmap_take(struct dirty_bitmap *bm, uint64_t first, const uint8_t *buf, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 8)
		or_word(bm, first / 64 + at / 8, load_le64(buf + at));
}
