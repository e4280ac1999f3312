/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deflate: matches are found through chains of positions with equal hashes of three bytes, and put
 * off by one byte where the next one is longer; their lengths and distances are collected and
 * written in blocks with Huffman codes of their own.
 *
 * The window is that of the readers, not of the format: qcow2 clusters are inflated with 4 KiB.
 */
#include "block/qcow2/deflate.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

enum {
	WINDOW = 4096,
	HASH_BITS = 14,
	MIN_MATCH = 3,
	MAX_MATCH = 258,
	CHAIN = 32,	 /* candidates looked at */
	LAZY_CHAIN = 16, /* when there is a match already */
	ENOUGH = 96,	 /* a match this long is taken as it is */
	TOKENS = 32768,	 /* of a block */
	LITERALS = 286,
	DISTANCES = 30,
	PRECODES = 19,
	END = 256,
	NOWHERE = INT32_MIN / 2,
};

struct code {
	uint16_t bits[LITERALS]; /* reversed, as they are written */
	uint8_t length[LITERALS];
};

struct deflate {
	int32_t head[1 << HASH_BITS];
	int32_t prev[WINDOW];
	uint32_t tokens[TOKENS]; /* a byte, or length << 16 | distance */
	uint32_t count;
	uint32_t literal_freq[LITERALS], distance_freq[DISTANCES];
	uint8_t length_symbol[MAX_MATCH + 1]; /* less 257 */
	uint8_t distance_symbol[512];	      /* of distance - 1, and of (distance - 1) >> 7 */
	struct code literals, distances;

	uint64_t hold; /* bits not yet written */
	unsigned held;
	uint8_t *out;
	size_t at, max;
};

static const uint8_t length_extra[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
				       2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t length_base[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
				       31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t distance_extra[] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
					 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
static const uint16_t distance_base[] = {1,   2,   3,	4,   5,	  7,	9,    13,   17,	  25,
					 33,  49,  65,	97,  129, 193,	257,  385,  513,  769,
					 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

struct deflate *deflate_new(void)
{
	struct deflate *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	for (unsigned s = 0; s < ARRAY_SIZE(length_base); s++)
		for (unsigned n = length_base[s]; n <= MAX_MATCH; n++)
			d->length_symbol[n] = s;
	for (unsigned s = 0; s < DISTANCES; s++) {
		for (unsigned n = distance_base[s] - 1u; n < 256; n++)
			d->distance_symbol[n] = s;
		for (unsigned n = (distance_base[s] - 1u + 127) >> 7; n < 256; n++)
			d->distance_symbol[256 + n] = s;
	}
	return d;
}

void deflate_free(struct deflate *d)
{
	free(d);
}

static unsigned distance_to_symbol(const struct deflate *d, unsigned distance)
{
	distance--;
	return distance < 256 ? d->distance_symbol[distance]
			      : d->distance_symbol[256 + (distance >> 7)];
}

/* Bits, from the least significant on. What is past the end is counted, not written. */
static inline void put(struct deflate *d, uint32_t bits, unsigned n)
{
	d->hold |= (uint64_t)bits << d->held;
	d->held += n;
	if (d->held < 32)
		return;
	if (d->at + 4 <= d->max)
		store_le32(d->out + d->at, (uint32_t)d->hold);
	d->at += 4;
	d->hold >>= 32;
	d->held -= 32;
}

static void finish_bits(struct deflate *d)
{
	while (d->held) {
		if (d->at < d->max)
			d->out[d->at] = (uint8_t)d->hold;
		d->at++;
		d->hold >>= 8;
		d->held -= MIN(d->held, 8u);
	}
}

/* Huffman codes */

struct leaf {
	uint32_t freq;
	uint16_t symbol;
};

static int by_freq(const void *a, const void *b)
{
	const struct leaf *x = a, *y = b;

	if (x->freq != y->freq)
		return x->freq < y->freq ? -1 : 1;
	return x->symbol < y->symbol ? -1 : 1;
}

/* How many codes of each length an unlimited code has, of n >= 2 leaves in ascending order. */
static void count_lengths(const struct leaf *leaf, unsigned n, unsigned count[64])
{
	uint64_t weight[2 * LITERALS];
	uint16_t parent[2 * LITERALS];
	uint8_t depth[2 * LITERALS];
	unsigned next_leaf = 0, next_node = n, total = n;

	for (unsigned i = 0; i < n; i++)
		weight[i] = leaf[i].freq;
	while (total < 2 * n - 1) {
		uint64_t sum = 0;

		for (int i = 0; i < 2; i++) {
			bool take_leaf = next_leaf < n &&
					 (next_node == total || weight[next_leaf] <= weight[next_node]);
			unsigned child = take_leaf ? next_leaf++ : next_node++;

			sum += weight[child];
			parent[child] = total;
		}
		weight[total++] = sum;
	}
	depth[total - 1] = 0;
	for (unsigned i = total - 1; i-- > 0;) {
		depth[i] = MIN(depth[parent[i]] + 1, 63);
		if (i < n)
			count[depth[i]]++;
	}
}

/* Codes longer than max become max long, and others longer until all fit again. */
static void limit_lengths(unsigned count[64], unsigned max)
{
	uint64_t used = 0;

	for (unsigned i = max + 1; i < 64; i++) {
		count[max] += count[i];
		count[i] = 0;
	}
	for (unsigned i = 1; i <= max; i++)
		used += (uint64_t)count[i] << (max - i);
	while (used > UINT64_C(1) << max) {
		unsigned i = max - 1;

		/* One of length i goes a level down, beside one that was the deepest. */
		while (!count[i])
			i--;
		count[i]--;
		count[i + 1] += 2;
		count[max]--;
		used--;
	}
}

static void assign_codes(struct code *c, unsigned symbols)
{
	unsigned count[16] = {0}, next[16] = {0}, code = 0;

	for (unsigned i = 0; i < symbols; i++)
		count[c->length[i]]++;
	count[0] = 0;
	for (unsigned i = 1; i < 16; i++) {
		code = (code + count[i - 1]) << 1;
		next[i] = code;
	}
	for (unsigned i = 0; i < symbols; i++) {
		unsigned n = c->length[i], bits = n ? next[n]++ : 0, reversed = 0;

		for (unsigned k = 0; k < n; k++)
			reversed |= ((bits >> k) & 1) << (n - 1 - k);
		c->bits[i] = reversed;
	}
}

static void make_code(struct code *c, const uint32_t *freq, unsigned symbols, unsigned max)
{
	struct leaf leaf[LITERALS];
	unsigned count[64] = {0}, n = 0, length = max;

	memset(c->length, 0, symbols);
	for (unsigned i = 0; i < symbols; i++)
		if (freq[i])
			leaf[n++] = (struct leaf){freq[i], i};
	/* A code of fewer than two is completed, which every reader takes. */
	for (unsigned i = 0; n < 2; i++)
		if (!freq[i])
			leaf[n++] = (struct leaf){1, i};
	qsort(leaf, n, sizeof(*leaf), by_freq);
	count_lengths(leaf, n, count);
	limit_lengths(count, max);
	for (unsigned i = 0; i < n; i++) {
		while (!count[length])
			length--;
		c->length[leaf[i].symbol] = length;
		count[length]--;
	}
	assign_codes(c, symbols);
}

/* The lengths of both codes, run by run, in the precode's symbols: symbol | extra << 8. */
static unsigned pack_lengths(const uint8_t *length, unsigned n, uint16_t *out, uint32_t *freq)
{
	unsigned used = 0;

	for (unsigned i = 0, run; i < n; i += run) {
		unsigned symbol = length[i], extra = 0;

		for (run = 1; i + run < n && length[i + run] == length[i] && run < 138;)
			run++;
		if (!length[i] && run >= 11) {
			symbol = 18;
			extra = run - 11;
		} else if (!length[i] && run >= 3) {
			symbol = 17;
			extra = run - 3;
		} else if (length[i] && i && length[i - 1] == length[i] && run >= 3) {
			run = MIN(run, 6u);
			symbol = 16;
			extra = run - 3;
		} else {
			run = 1;
		}
		out[used++] = symbol | extra << 8;
		freq[symbol]++;
	}
	return used;
}

static void put_codes(struct deflate *d)
{
	static const uint8_t order[PRECODES] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
						11, 4,	12, 3, 13, 2, 14, 1, 15};
	uint8_t lengths[LITERALS + DISTANCES];
	uint16_t packed[LITERALS + DISTANCES];
	uint32_t freq[PRECODES] = {0};
	unsigned literals = LITERALS, distances = DISTANCES, precodes = PRECODES, n;
	struct code pre;

	while (literals > 257 && !d->literals.length[literals - 1])
		literals--;
	while (distances > 1 && !d->distances.length[distances - 1])
		distances--;
	memcpy(lengths, d->literals.length, literals);
	memcpy(lengths + literals, d->distances.length, distances);
	n = pack_lengths(lengths, literals + distances, packed, freq);
	make_code(&pre, freq, PRECODES, 7);
	while (precodes > 4 && !pre.length[order[precodes - 1]])
		precodes--;
	put(d, literals - 257, 5);
	put(d, distances - 1, 5);
	put(d, precodes - 4, 4);
	for (unsigned i = 0; i < precodes; i++)
		put(d, pre.length[order[i]], 3);
	for (unsigned i = 0; i < n; i++) {
		unsigned symbol = packed[i] & 0xff;

		put(d, pre.bits[symbol], pre.length[symbol]);
		if (symbol >= 16)
			put(d, packed[i] >> 8, symbol == 16 ? 2 : symbol == 17 ? 3 : 7);
	}
}

static void put_block(struct deflate *d, bool last)
{
	d->literal_freq[END] = 1;
	make_code(&d->literals, d->literal_freq, LITERALS, 15);
	make_code(&d->distances, d->distance_freq, DISTANCES, 15);
	put(d, last | 2 << 1, 3);
	put_codes(d);
	for (uint32_t i = 0; i < d->count && d->at <= d->max; i++) {
		uint32_t token = d->tokens[i], length = token >> 16, distance = token & 0xffff;
		unsigned s;

		if (!length) {
			put(d, d->literals.bits[token], d->literals.length[token]);
			continue;
		}
		s = d->length_symbol[length];
		put(d, d->literals.bits[257 + s] |
			       (length - length_base[s]) << d->literals.length[257 + s],
		    d->literals.length[257 + s] + length_extra[s]);
		s = distance_to_symbol(d, distance);
		put(d, d->distances.bits[s] | (distance - distance_base[s])
						      << d->distances.length[s],
		    d->distances.length[s] + distance_extra[s]);
	}
	put(d, d->literals.bits[END], d->literals.length[END]);
	d->count = 0;
	memset(d->literal_freq, 0, sizeof(d->literal_freq));
	memset(d->distance_freq, 0, sizeof(d->distance_freq));
}

/* Matches */

static inline uint32_t hash_at(const uint8_t *p)
{
	return ((uint32_t)p[0] | p[1] << 8 | p[2] << 16) * 0x9e3779b1u << 8 >> (32 - HASH_BITS);
}

static inline void remember(struct deflate *d, const uint8_t *in, size_t pos)
{
	uint32_t h = hash_at(in + pos);

	d->prev[pos % WINDOW] = d->head[h];
	d->head[h] = (int32_t)pos;
}

static inline unsigned same_bytes(const uint8_t *a, const uint8_t *b, unsigned max)
{
	unsigned n = 0;

	for (; n + 8 <= max; n += 8) {
		uint64_t diff = load_le64(a + n) ^ load_le64(b + n);

		if (diff)
			return n + __builtin_ctzll(diff) / 8;
	}
	while (n < max && a[n] == b[n])
		n++;
	return n;
}

/* The longest match at pos that is longer than best; its length, or best. */
static unsigned find(struct deflate *d, const uint8_t *in, size_t len, size_t pos, unsigned best,
		     unsigned chain, unsigned *distance)
{
	unsigned max = MIN(len - pos, (size_t)MAX_MATCH);
	int32_t at = d->head[hash_at(in + pos)];
	int32_t oldest = (int32_t)pos - (WINDOW - 1);

	while (at >= 0 && at >= oldest && chain--) {
		if (best >= max)
			break;
		if (in[at + best] == in[pos + best]) {
			unsigned n = same_bytes(in + at, in + pos, max);

			if (n > best) {
				best = n;
				*distance = (unsigned)(pos - at);
				if (n >= ENOUGH)
					break;
			}
		}
		at = d->prev[at % WINDOW];
	}
	return best;
}

static void emit(struct deflate *d, uint32_t literal)
{
	d->tokens[d->count++] = literal;
	d->literal_freq[literal]++;
}

static void emit_match(struct deflate *d, unsigned length, unsigned distance)
{
	d->tokens[d->count++] = length << 16 | distance;
	d->literal_freq[257 + d->length_symbol[length]]++;
	d->distance_freq[distance_to_symbol(d, distance)]++;
}

size_t deflate_block(struct deflate *d, const uint8_t *in, size_t len, uint8_t *out, size_t max)
{
	size_t pos = 0;

	if (len > INT32_MAX / 2)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(d->head); i++)
		d->head[i] = NOWHERE;
	d->out = out;
	d->max = max;
	d->at = 0;
	d->hold = d->held = 0;
	d->count = 0;
	memset(d->literal_freq, 0, sizeof(d->literal_freq));
	memset(d->distance_freq, 0, sizeof(d->distance_freq));
	while (pos + MIN_MATCH < len) {
		unsigned distance = 0, later = 0, n, longer;

		if (d->count + 2 >= TOKENS) {
			put_block(d, false);
			if (d->at > d->max)
				return 0;
		}
		n = find(d, in, len, pos, MIN_MATCH - 1, CHAIN, &distance);
		remember(d, in, pos);
		/* Three bytes from afar cost more than they save. */
		if (n < MIN_MATCH || (n == MIN_MATCH && distance > 2048)) {
			emit(d, in[pos++]);
			continue;
		}
		while (n < ENOUGH && pos + 1 + MIN_MATCH < len && d->count + 2 < TOKENS) {
			longer = find(d, in, len, pos + 1, n, LAZY_CHAIN, &later);
			if (longer <= n)
				break;
			emit(d, in[pos++]);
			remember(d, in, pos);
			n = longer;
			distance = later;
		}
		emit_match(d, n, distance);
		for (size_t end = pos + n; ++pos < end;)
			if (pos + MIN_MATCH < len)
				remember(d, in, pos);
	}
	while (pos < len) {
		if (d->count + 1 >= TOKENS)
			put_block(d, false);
		emit(d, in[pos++]);
	}
	put_block(d, true);
	finish_bits(d);
	return d->at > d->max ? 0 : d->at;
}
