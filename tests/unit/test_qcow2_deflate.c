/* SPDX-License-Identifier: Apache-2.0 */
/* What the encoder makes is read back by zlib with qcow2's window of 4 KiB, and is as short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>

#include "block/qcow2/deflate.h"
#include "vmm/core/util.h"

static uint8_t out[3 << 20], back[(2 << 20) + 1];

static size_t round_trip(struct deflate *d, const uint8_t *in, size_t len)
{
	size_t n = deflate_block(d, in, len, out, sizeof(out));
	z_stream z = {.next_in = out, .avail_in = n, .next_out = back, .avail_out = len + 1};

	assert_true(n > 0);
	assert_int_equal(inflateInit2(&z, -12), Z_OK);
	assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
	assert_int_equal(z.total_out, len);
	assert_int_equal(z.avail_in, 0);
	assert_memory_equal(back, in, len);
	inflateEnd(&z);
	return n;
}

static uint32_t next(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* Bytes of a small or large alphabet, with pieces of what came before. */
static void fill(uint8_t *buf, size_t len, unsigned alphabet, unsigned repeats, uint32_t seed)
{
	for (size_t i = 0; i < len;) {
		size_t n = next(&seed) % 300, from = next(&seed) % 5000 + 1;

		if (next(&seed) % 100 >= repeats || from > i) {
			buf[i++] = next(&seed) % alphabet;
			continue;
		}
		for (; n && i < len; n--, i++)
			buf[i] = buf[i - from];
	}
}

static void test_all_sizes(void **state)
{
	struct deflate *d = deflate_new();
	uint8_t *buf = malloc(2 << 20);

	for (size_t len = 1; len < 700; len++) {
		fill(buf, len, len % 256 + 1, len % 100, len);
		round_trip(d, buf, len);
	}
	for (size_t len = 4096; len <= 2 << 20; len *= 2)
		for (unsigned repeats = 0; repeats <= 80; repeats += 40) {
			fill(buf, len, repeats ? 40 : 256, repeats, len);
			round_trip(d, buf, len);
		}
	free(buf);
	deflate_free(d);
}

static void test_extremes(void **state)
{
	struct deflate *d = deflate_new();
	uint8_t *buf = calloc(1, 1 << 20);
	uint64_t a = 1, b = 1;
	size_t at = 0;

	assert_true(round_trip(d, buf, 1 << 20) < 2000);
	memset(buf, 0xff, 1 << 20);
	assert_true(round_trip(d, buf, 1 << 20) < 2000);
	/* Frequencies like these make codes that are longer than allowed. */
	for (unsigned symbol = 0; symbol < 24; symbol++) {
		for (uint64_t i = 0; i < a && at < 1 << 16; i++)
			buf[at++] = symbol * 7;
		b += a;
		a = b - a;
	}
	for (size_t i = at; i-- > 1;) {
		uint32_t seed = i;
		size_t k = next(&seed) % (i + 1);
		uint8_t t = buf[i];

		buf[i] = buf[k];
		buf[k] = t;
	}
	round_trip(d, buf, at);
	/* Each distance and each length. */
	fill(buf, 1 << 16, 256, 0, 5);
	for (unsigned distance = 1; distance <= 4095; distance += 13)
		for (unsigned i = 0; i < 258; i++)
			buf[5000 + i] = buf[5000 + i - distance];
	round_trip(d, buf, 1 << 16);
	free(buf);
	deflate_free(d);
}

static void test_no_room(void **state)
{
	struct deflate *d = deflate_new();
	uint8_t *buf = malloc(65536), *small;
	size_t n;

	fill(buf, 65536, 256, 0, 1);
	assert_int_equal(deflate_block(d, buf, 65536, out, 65535), 0);
	fill(buf, 65536, 20, 50, 1);
	n = deflate_block(d, buf, 65536, out, sizeof(out));
	for (size_t room = 1; room <= n + 8; room = room < n - 4 ? room * 2 : room + 1) {
		small = malloc(room); /* the sanitizer sees a byte too many */
		assert_int_equal(deflate_block(d, buf, 65536, small, room), room < n ? 0 : n);
		free(small);
		room = MIN(room, n);
	}
	free(buf);
	deflate_free(d);
}

static void test_as_short_as_zlib(void **state)
{
	struct deflate *d = deflate_new();
	uint8_t *buf = malloc(65536);

	for (unsigned alphabet = 16; alphabet <= 128; alphabet *= 2) {
		z_stream z = {.next_in = buf, .avail_in = 65536, .next_out = back, .avail_out = 65536};

		fill(buf, 65536, alphabet, 30, alphabet);
		assert_int_equal(deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, 0), Z_OK);
		assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
		assert_true(round_trip(d, buf, 65536) <= z.total_out * 104 / 100);
		deflateEnd(&z);
	}
	free(buf);
	deflate_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_sizes),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_as_short_as_zlib),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
