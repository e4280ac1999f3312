/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of instructions for reports: prefixes, tables, cut-off bytes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdint.h>
#include <string.h>

#include "accel/kvm/insn.h"

#define NAME(long_mode, ...)                                                                  \
	insn_name((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }), \
		  long_mode)

static void test_known(void **state)
{
	assert_string_equal(NAME(true, 0x48, 0x0f, 0xc7, 0x0b), "cmpxchg16b");
	assert_string_equal(NAME(true, 0xf0, 0x49, 0x0f, 0xc7, 0x08), "cmpxchg16b");
	assert_string_equal(NAME(true, 0x0f, 0xc7, 0x0b), "cmpxchg8b");
	assert_string_equal(NAME(false, 0xf0, 0x0f, 0xc7, 0x0b), "cmpxchg8b");
	assert_string_equal(NAME(true, 0x48, 0x0f, 0xae, 0x2f), "xrstor");
	assert_string_equal(NAME(true, 0xf3, 0x48, 0x0f, 0xae, 0xd0), "wrfsbase");
	assert_string_equal(NAME(true, 0x0f, 0xae, 0xe8), "lfence");
	assert_string_equal(NAME(true, 0x0f, 0x01, 0xd1), "xsetbv");
	assert_string_equal(NAME(true, 0x48, 0x0f, 0xc7, 0xf0), "rdrand");
	assert_non_null(strstr(NAME(true, 0xcc), "int3"));
	assert_non_null(strstr(NAME(true, 0xc5, 0xf8, 0x77), "AVX"));
	assert_non_null(strstr(NAME(true, 0x66, 0x0f, 0x6f, 0x00), "SSE"));
	assert_non_null(strstr(NAME(true, 0, 0, 0, 0), "astray"));
	assert_non_null(strstr(NAME(true, 0xff, 0xff), "no memory"));
}

static void test_unknown(void **state)
{
	assert_null(NAME(true, 0x90));
	/* REX prefixes are instructions outside 64-bit mode. */
	assert_null(NAME(false, 0x48, 0x0f, 0xc7, 0x0b));
	/* LES, LDS and BOUND. */
	assert_null(NAME(false, 0xc4, 0x00));
	assert_null(NAME(false, 0xc5, 0x00));
	assert_null(NAME(false, 0x62, 0x00));
	assert_null(NAME(true, 0x0f));
	assert_null(NAME(true, 0x66, 0x48));
	assert_null(insn_name((const uint8_t *)"", 0, true));
}

/* Every two bytes, cut off after none, one or both: reads inside. */
static void test_all(void **state)
{
	for (unsigned i = 0; i < 0x10000; i++) {
		uint8_t bytes[4] = { 0x0f, i, i >> 8, 0 };

		for (size_t n = 0; n <= 3; n++) {
			insn_name(bytes, n, true);
			insn_name(bytes + 1, n < 3 ? n : 2, i & 1);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
