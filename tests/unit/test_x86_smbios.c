/* SPDX-License-Identifier: Apache-2.0 */
/* SMBIOS tables: what is in them, byte by byte where it matters, and what -smbios refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "target-x86/smbios.h"
#include "vmm/core/util.h"

static const uint8_t uuid[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
				 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
static const struct smbios_mem_range ranges[] = {
	{0, 2 * GiB},
	{4 * GiB, 18 * GiB},
};

static struct smbios_machine machine(void)
{
	return (struct smbios_machine){
		.name = "pc-q35",
		.version = "0.1",
		.uuid = uuid,
		.topology = {2, 1, 4, 2},
		.cpu_signature = 0x60fb1,
		.cpu_features = 0x78bfbfd,
		.ram_size = 20 * GiB,
		.max_ram_size = 32 * GiB,
		.slots = 2,
		.ranges = ranges,
		.range_count = 2,
	};
}

/* NULL, or an error message to be freed. */
static char *add(struct smbios_options *o, const char *text)
{
	struct error *err = NULL;
	struct opts opts;
	char *message = NULL;
	assert_true(opts_parse(&opts, text, NULL, NULL));
	if (!smbios_options_add(o, &opts, &err)) {
		message = xstrdup(error_message(err));
		error_free(err);
	}
	opts_free(&opts);
	return message;
}

/* The nth structure of a type. */
static const uint8_t *find(const struct smbios_tables *t, uint8_t type, unsigned nth)
{
	for (const uint8_t *p = t->tables, *end = p + t->tables_len; p < end;) {
		if (p[0] == type && nth-- == 0)
			return p;
		p += p[1];
		while (p[0] || p[1])
			p++;
		p += 2;
	}
	return NULL;
}

static const char *string(const uint8_t *p, size_t offset)
{
	const char *s = (const char *)p + p[1];
	if (!p[offset])
		return NULL;
	for (unsigned i = 1; i < p[offset]; i++)
		s += strlen(s) + 1;
	return s;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;
	while (len--)
		s += *p++;
	return s;
}

static void test_defaults(void **state)
{
	struct smbios_machine m = machine();
	struct smbios_tables t;
	assert_true(smbios_build(NULL, &m, &t, NULL));
	assert_int_equal(t.anchor_len, 31);
	assert_memory_equal(t.anchor, "_SM_", 4);
	assert_int_equal(sum(t.anchor, 31), 0);
	assert_int_equal(sum(t.anchor + 16, 15), 0);
	assert_int_equal(load_le16(t.anchor + 0x16), t.tables_len);
	assert_int_equal(load_le32(t.anchor + 0x18), 0);
	/* 1, 3, two of 4, 16, two DIMMs and two free slots, two ranges, 32, 127 */
	assert_int_equal(load_le16(t.anchor + 0x1c), 13);

	assert_null(find(&t, 0, 0));
	assert_null(find(&t, 2, 0));
	assert_null(find(&t, 11, 0));
	const uint8_t *p = find(&t, 1, 0);
	static const uint8_t wire[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
					 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
	assert_int_equal(p[1], 0x1b);
	assert_int_equal(load_le16(p + 2), 0x100);
	assert_memory_equal(p + 8, wire, 16);
	assert_string_equal(string(p, 4), "vmm");
	assert_string_equal(string(p, 5), "pc-q35");
	assert_null(string(p, 7));

	p = find(&t, 4, 1);
	assert_int_equal(p[1], 0x30);
	assert_int_equal(load_le16(p + 2), 0x401);
	assert_string_equal(string(p, 4), "CPU 1");
	assert_int_equal(load_le32(p + 8), 0x60fb1);
	assert_int_equal(p[0x23], 4);
	assert_int_equal(p[0x25], 8);
	assert_int_equal(load_le16(p + 0x2e), 8);
	assert_null(find(&t, 4, 2));

	p = find(&t, 16, 0);
	assert_int_equal(load_le32(p + 7), 32 * MiB);
	assert_int_equal(load_le16(p + 0xd), 4);
	p = find(&t, 17, 0);
	assert_int_equal(load_le16(p + 0xc), 16384);
	p = find(&t, 17, 1);
	assert_int_equal(load_le16(p + 0xc), 4096);
	assert_string_equal(string(p, 0x10), "DIMM 1");
	p = find(&t, 17, 2);
	assert_int_equal(load_le16(p + 0xc), 0);
	p = find(&t, 19, 1);
	assert_int_equal(load_le32(p + 4), 4 * MiB);
	assert_int_equal(load_le32(p + 8), 22 * MiB - 1);
	p = find(&t, 127, 0);
	assert_ptr_equal(p + 6, t.tables + t.tables_len);
	smbios_tables_destroy(&t);
}

static void test_options_reach_the_tables(void **state)
{
	struct smbios_machine m = machine();
	struct smbios_options *o = smbios_options_new();
	struct smbios_tables t;
	assert_null(add(o, "type=0,vendor=V,version=1.2,date=02/03/2024,release=4.7,uefi=on"));
	assert_null(add(o, "type=1,serial=ds=nocloud;s=http://10.0.2.2/,manufacturer=M"));
	assert_null(add(o, "type=1,uuid=ffeeddcc-bbaa-9988-7766-554433221100,product=P"));
	assert_null(add(o, "type=2,location=L"));
	assert_null(add(o, "type=3,asset=A"));
	assert_null(add(o, "type=4,sock_pfx=S,processor-id=0x1122334455667788,max-speed=3000"));
	assert_null(add(o, "type=11,value=one,value=two"));
	assert_null(add(o, "type=17,loc_pfx=D,bank=B,speed=3200"));
	assert_true(smbios_build(o, &m, &t, NULL));

	const uint8_t *p = find(&t, 0, 0);
	assert_string_equal(string(p, 4), "V");
	assert_string_equal(string(p, 5), "1.2");
	assert_string_equal(string(p, 8), "02/03/2024");
	assert_int_equal(p[0x14], 4);
	assert_int_equal(p[0x15], 7);
	assert_int_equal(p[0x13], 0x1c);
	p = find(&t, 1, 0);
	assert_string_equal(string(p, 7), "ds=nocloud;s=http://10.0.2.2/");
	assert_string_equal(string(p, 4), "M");
	assert_string_equal(string(p, 5), "P");
	assert_int_equal(load_le32(p + 8), 0xffeeddcc);
	p = find(&t, 2, 0);
	assert_string_equal(string(p, 0xa), "L");
	assert_int_equal(load_le16(p + 0xb), 0x300);
	assert_string_equal(string(find(&t, 3, 0), 8), "A");
	p = find(&t, 4, 0);
	assert_string_equal(string(p, 4), "S 0");
	assert_int_equal(load_le64(p + 8), 0x1122334455667788);
	assert_int_equal(load_le16(p + 0x14), 3000);
	p = find(&t, 11, 0);
	assert_int_equal(p[4], 2);
	assert_string_equal((const char *)p + 5, "one");
	assert_string_equal((const char *)p + 9, "two");
	p = find(&t, 17, 0);
	assert_string_equal(string(p, 0x10), "D 0");
	assert_string_equal(string(p, 0x11), "B");
	assert_int_equal(load_le16(p + 0x15), 3200);
	smbios_tables_destroy(&t);
	smbios_options_free(o);
}

static void test_files(void **state)
{
	static const uint8_t blob[] = {3, 5, 0x34, 0x12, 1, 'h', 'i', 0, 0, 200, 4, 1, 0, 0, 0};
	struct smbios_machine m = machine();
	struct smbios_options *o = smbios_options_new();
	struct smbios_tables t;
	char text[64], *message;
	int fd = memfd_create("smbios", MFD_CLOEXEC);
	assert_int_equal(write_full(fd, blob, sizeof(blob)), 0);
	snprintf(text, sizeof(text), "file=/proc/self/fd/%d", fd);
	assert_null(add(o, text));
	assert_true(smbios_build(o, &m, &t, NULL));
	/* The file's chassis stands in for ours. */
	const uint8_t *p = find(&t, 3, 0);
	assert_int_equal(load_le16(p + 2), 0x1234);
	assert_string_equal(string(p, 4), "hi");
	assert_null(find(&t, 3, 1));
	assert_non_null(find(&t, 200, 0));
	assert_non_null(find(&t, 1, 0));
	assert_int_equal(load_le16(t.anchor + 0x1c), 14);
	smbios_tables_destroy(&t);

	assert_int_equal(ftruncate(fd, sizeof(blob) - 1), 0);
	message = add(o, text);
	assert_non_null(strstr(message, "is not made of whole SMBIOS structures (byte 9)"));
	free(message);
	assert_int_equal(ftruncate(fd, 2 * MiB), 0);
	message = add(o, text);
	assert_non_null(strstr(message, "at most 1 MiB"));
	free(message);

	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, "io.systemd=x", 12, 0), 12);
	snprintf(text, sizeof(text), "type=11,value=a,path=/proc/self/fd/%d,value=b", fd);
	assert_null(add(o, text));
	assert_true(smbios_build(o, &m, &t, NULL));
	p = find(&t, 11, 0);
	assert_int_equal(p[4], 3);
	assert_string_equal((const char *)p + 7, "io.systemd=x");
	smbios_tables_destroy(&t);
	close(fd);
	smbios_options_free(o);
}

static void test_bad_options(void **state)
{
	static const char *const bad[][2] = {
		{"type=5", "type=5: only 0, 1, 2, 3, 4, 11 and 17 can be set"},
		{"serial=x", "type= or file= is missing"},
		{"type=1,file=x", "file= and type= exclude each other"},
		{"type=1,uuid=0011", "uuid=0011: not a UUID"},
		{"type=0,release=1", "release=1: expected MAJOR.MINOR, each at most 255"},
		{"type=0,release=1.256", "release=1.256: expected MAJOR.MINOR, each at most 255"},
		{"type=4,max-speed=70000", "max-speed=70000: at most 65535"},
		{"type=11,value=", "an OEM string cannot be empty"},
		{"file=/nonexistent", "cannot open '/nonexistent': No such file or directory"},
	};
	struct smbios_options *o = smbios_options_new();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char *message = add(o, bad[i][0]);
		assert_non_null(message);
		assert_string_equal(message, bad[i][1]);
		free(message);
	}
	char *message = add(o, "type=1,serail=x");
	assert_non_null(strstr(message, "serail"));
	assert_non_null(strstr(message, "serial"));
	free(message);
	smbios_options_free(o);
}

static void test_large_tables_take_the_64_bit_entry_point(void **state)
{
	struct smbios_machine m = machine();
	struct smbios_options *o = smbios_options_new();
	struct smbios_tables t;
	struct error *err = NULL;
	char *value = xcalloc(1, 40100);
	strcpy(value, "type=11,value=");
	memset(value + 14, 'x', 40000);
	assert_null(add(o, value));
	assert_null(add(o, value));
	free(value);
	assert_true(smbios_build(o, &m, &t, NULL));
	assert_int_equal(t.anchor_len, 24);
	assert_memory_equal(t.anchor, "_SM3_", 5);
	assert_int_equal(sum(t.anchor, 24), 0);
	assert_int_equal(load_le32(t.anchor + 0xc), t.tables_len);
	smbios_tables_destroy(&t);
	m.entry_point = SMBIOS_EP_32;
	assert_false(smbios_build(o, &m, &t, &err));
	assert_non_null(strstr(error_message(err), "do not fit a 32-bit entry point"));
	error_free(err);
	smbios_options_free(o);

	/* Terabytes: larger DIMMs, 64-bit ranges. */
	static const struct smbios_mem_range huge[] = {{4 * GiB, 12 * TiB}};
	m = machine();
	m.ram_size = m.max_ram_size = 12 * TiB;
	m.ranges = huge;
	m.range_count = 1;
	assert_true(smbios_build(NULL, &m, &t, NULL));
	const uint8_t *p = find(&t, 17, 0);
	assert_int_equal(load_le16(p + 0xc), 0x7fff);
	assert_int_equal(load_le32(p + 0x1c), 32768);
	p = find(&t, 19, 0);
	assert_int_equal(load_le32(p + 4), 0xffffffff);
	assert_int_equal(load_le64(p + 0x17), 4 * GiB + 12 * TiB - 1);
	assert_int_equal(load_le64(find(&t, 16, 0) + 0xf), 12 * TiB);
	smbios_tables_destroy(&t);
}

static void test_placing(void **state)
{
	struct smbios_machine m = machine();
	struct smbios_tables t;
	struct guest_mem mem;
	struct error *err = NULL;
	size_t used;
	static uint8_t ram[MiB] __attribute__((aligned(4096)));
	struct mem_region r = {.size = sizeof(ram), .hva = ram, .fd = -1};
	guest_mem_init(&mem);
	assert_true(guest_mem_add(&mem, &r, NULL));
	m.bios = true;
	for (int ep = SMBIOS_EP_32; ep <= SMBIOS_EP_64; ep++) {
		m.entry_point = ep;
		assert_true(smbios_build(NULL, &m, &t, NULL));
		assert_non_null(find(&t, 0, 0));
		assert_true(smbios_place(&t, &mem, 0xf0000, 0x100000, &used, NULL));
		uint64_t at = ep == SMBIOS_EP_32 ? load_le32(ram + 0xf0018)
						 : load_le64(ram + 0xf0010);
		assert_int_equal(at, 0xf0020);
		assert_int_equal(sum(ram + 0xf0000, t.anchor_len), 0);
		assert_memory_equal(ram + at, t.tables, t.tables_len);
		assert_int_equal(used, 0x20 + t.tables_len);
		assert_false(smbios_place(&t, &mem, 0xf0000, 0xf0100, &used, &err));
		assert_non_null(strstr(error_message(err), "do not fit below 0xf0100"));
		error_free(err);
		err = NULL;
		smbios_tables_destroy(&t);
	}
	guest_mem_destroy(&mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_options_reach_the_tables),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_bad_options),
		cmocka_unit_test(test_large_tables_take_the_64_bit_entry_point),
		cmocka_unit_test(test_placing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
