/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AML encodings against the specification's (ACPI 6.4, 20.2), and a definition block that iasl
 * reads back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hw/acpi/aml.h"
#include "tests/lib/acpi_fake.h"
#include "vmm/core/util.h"

#define EXPECT(a, ...)                                                                             \
	do {                                                                                       \
		const uint8_t expected[] = {__VA_ARGS__};                                          \
		assert_int_equal((a)->len, sizeof(expected));                                      \
		assert_memory_equal((a)->data, expected, sizeof(expected));                        \
		(a)->len = 0;                                                                      \
	} while (0)

static void test_integers(void **state)
{
	struct aml a;

	aml_init(&a);
	aml_int(&a, 0);
	aml_int(&a, 1);
	aml_int(&a, 2);
	EXPECT(&a, 0x00, 0x01, 0x0a, 0x02);
	aml_int(&a, 0xff);
	aml_int(&a, 0x100);
	EXPECT(&a, 0x0a, 0xff, 0x0b, 0x00, 0x01);
	aml_int(&a, 0x10000);
	EXPECT(&a, 0x0c, 0x00, 0x00, 0x01, 0x00);
	aml_int(&a, 0x123456789aULL);
	EXPECT(&a, 0x0e, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0);
	aml_int(&a, UINT64_MAX);
	EXPECT(&a, 0xff);
	aml_dword(&a, 1);
	EXPECT(&a, 0x0c, 1, 0, 0, 0);
	aml_destroy(&a);
}

static void test_names(void **state)
{
	struct aml a;

	aml_init(&a);
	aml_path(&a, "PCI0");
	EXPECT(&a, 'P', 'C', 'I', '0');
	aml_path(&a, "\\_SB");
	EXPECT(&a, '\\', '_', 'S', 'B', '_');
	aml_path(&a, "^^X.Y");
	EXPECT(&a, '^', '^', 0x2e, 'X', '_', '_', '_', 'Y', '_', '_', '_');
	aml_path(&a, "A.B.C");
	EXPECT(&a, 0x2f, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_');
	aml_path(&a, "\\");
	EXPECT(&a, '\\', 0);
	aml_string(&a, "hi");
	EXPECT(&a, 0x0d, 'h', 'i', 0);
	aml_eisaid(&a, "PNP0A03");
	EXPECT(&a, 0x0c, 0x41, 0xd0, 0x0a, 0x03);
	aml_uuid(&a, "33db4d5b-1ff7-401c-9657-7441c03dd766");
	EXPECT(&a, 0x11, 0x13, 0x0a, 0x10, 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96,
	       0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66);
	aml_destroy(&a);
}

/* The length field itself counts, and grows where one more byte would not fit. */
static void test_lengths(void **state)
{
	static const struct {
		size_t body; /* behind the scope's 4 bytes of name */
		uint8_t head[5];
		size_t head_len;
	} cases[] = {
		{0, {0x10, 0x05}, 2},
		{58, {0x10, 0x3f}, 2},
		{59, {0x10, 0x41, 0x04}, 3},
		{0xfff - 6, {0x10, 0x4f, 0xff}, 3},
		{0xfff - 5, {0x10, 0x81, 0x00, 0x01}, 4},
		{0xfffff - 7, {0x10, 0x8f, 0xff, 0xff}, 4},
		{0xfffff - 6, {0x10, 0xc1, 0x00, 0x00, 0x01}, 5},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct aml a;

		aml_init(&a);
		aml_scope(&a, "ABCD");
		aml_zeroes(&a, cases[i].body);
		aml_end(&a);
		assert_int_equal(a.len, cases[i].head_len + 4 + cases[i].body);
		assert_memory_equal(a.data, cases[i].head, cases[i].head_len);
		assert_memory_equal(a.data + cases[i].head_len, "ABCD", 4);
		aml_destroy(&a);
	}
}

static void test_resources(void **state)
{
	const uint32_t gsis[] = {16, 17};
	struct aml a;

	aml_init(&a);
	aml_resources(&a);
	aml_end(&a);
	EXPECT(&a, 0x11, 0x05, 0x0a, 0x02, 0x79, 0x00);
	aml_resources(&a);
	aml_res_io(&a, 0x60, 0x60, 1, 1);
	aml_res_irq(&a, 1 << 12);
	aml_end(&a);
	EXPECT(&a, 0x11, 0x10, 0x0a, 0x0d, 0x47, 1, 0x60, 0, 0x60, 0, 1, 1, 0x22, 0x00, 0x10, 0x79,
	       0);
	aml_res_interrupt(&a, AML_IRQ_CONSUMER | AML_IRQ_SHARED, gsis, 2);
	EXPECT(&a, 0x89, 10, 0, 0x09, 2, 16, 0, 0, 0, 17, 0, 0, 0);
	aml_res_memory32_fixed(&a, AML_RES_READ_WRITE, 0xb0000000, 0x10000000);
	EXPECT(&a, 0x86, 9, 0, 1, 0, 0, 0, 0xb0, 0, 0, 0, 0x10);
	aml_res_word(&a, AML_RES_BUS, 0, 0, 0xff);
	EXPECT(&a, 0x88, 13, 0, 2, 0x0c, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1);
	aml_res_dword(&a, AML_RES_MEMORY, AML_RES_READ_WRITE, 0xc0000000, 0xcfffffff);
	EXPECT(&a, 0x87, 23, 0, 0, 0x0c, 1, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff, 0xff, 0xcf, 0, 0,
	       0, 0, 0, 0, 0, 0x10);
	aml_res_qword(&a, AML_RES_MEMORY, AML_RES_READ_WRITE, 0x100000000, 0x1ffffffff);
	assert_int_equal(a.len, 46);
	assert_int_equal(load_le64(a.data + 14), 0x100000000);
	assert_int_equal(load_le64(a.data + 38), 0x100000000);
	aml_destroy(&a);
}

static void test_fields(void **state)
{
	struct aml a;

	aml_init(&a);
	aml_operation_region(&a, "REG", AML_SYSTEM_IO, 0x600, 4);
	EXPECT(&a, 0x5b, 0x80, 'R', 'E', 'G', '_', 1, 0x0b, 0x00, 0x06, 0x0a, 4);
	aml_field(&a, "REG", AML_DWORD_ACC);
	aml_field_skip(&a, 64);
	aml_field_bits(&a, "FLD", 8);
	aml_end(&a);
	EXPECT(&a, 0x5b, 0x81, 0x0e, 'R', 'E', 'G', '_', 3, 0, 0x40, 0x04, 'F', 'L', 'D', '_', 8);
	aml_destroy(&a);
}

/* A block of a bit of everything, read by somebody else's parser. */
static void test_iasl(void **state)
{
	static const char *const expected[] = {
		"Device (DEVA)",
		"EisaId (\"PNP0C0F\")",
		"Method (METH, 2, Serialized)",
		"If ((Arg0 == 0x1234))",
		"Local3 = (Arg1 + 0x05)",
		"Else",
		"Notify (\\_SB.DEVA, 0x80)",
		"Memory32Fixed (ReadWrite,",
		"QWordMemory (ResourceProducer",
		"ToUUID (\"33db4d5b-1ff7-401c-9657-7441c03dd766\")",
	};
	uint8_t sum = 0;
	char *source;
	struct aml a;

	if (!iasl_present())
		skip();
	aml_init(&a);
	aml_bytes(&a, "SSDT\0\0\0\0\2\0VMM   VMMTEST \1\0\0\0VMM \1\0\0\0", 36);
	aml_scope(&a, "\\_SB");
	aml_device(&a, "DEVA");
	aml_name_eisaid(&a, "_HID", "PNP0C0F");
	aml_name_string(&a, "_UID", "one");
	aml_name(&a, "GUID");
	aml_uuid(&a, "33db4d5b-1ff7-401c-9657-7441c03dd766");
	aml_name(&a, "_CRS");
	aml_resources(&a);
	aml_res_memory32_fixed(&a, AML_RES_READ_WRITE, 0xb0000000, 0x10000000);
	aml_res_qword(&a, AML_RES_MEMORY, AML_RES_READ_WRITE, 0x100000000, 0x1ffffffff);
	aml_end(&a);
	aml_method_serialized(&a, "METH", 2);
	aml_if(&a);
	aml_op(&a, AML_LEQUAL);
	aml_arg(&a, 0);
	aml_int(&a, 0x1234);
	aml_op(&a, AML_ADD);
	aml_arg(&a, 1);
	aml_int(&a, 5);
	aml_local(&a, 3);
	aml_end(&a);
	aml_else(&a);
	aml_op(&a, AML_NOTIFY);
	aml_path(&a, "\\_SB.DEVA");
	aml_int(&a, 0x80);
	aml_end(&a);
	aml_end(&a);
	aml_end(&a);
	aml_end(&a);
	assert_int_equal(a.depth, 0);
	store_le32(a.data + 4, a.len);
	for (size_t i = 0; i < a.len; i++)
		sum += a.data[i];
	a.data[9] = -sum;
	assert_true(iasl_accepts(a.data, a.len, &source));
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		if (!strstr(source, expected[i]))
			fail_msg("no '%s' in\n%s", expected[i], source);
	free(source);
	aml_destroy(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_integers), cmocka_unit_test(test_names),
		cmocka_unit_test(test_lengths),	 cmocka_unit_test(test_resources),
		cmocka_unit_test(test_fields),	 cmocka_unit_test(test_iasl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
