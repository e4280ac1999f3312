/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AML encoding (ACPI 6.4, 20.2: the grammar's byte values; 6.4: resource descriptors).
 * Pure functions; the caller owns the buffer.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "hw/acpi/aml.h"
#include "vmm/core/util.h"

enum {
	NAME_OP = 0x08,
	BYTE_PREFIX = 0x0a,
	WORD_PREFIX = 0x0b,
	DWORD_PREFIX = 0x0c,
	STRING_PREFIX = 0x0d,
	QWORD_PREFIX = 0x0e,
	SCOPE_OP = 0x10,
	BUFFER_OP = 0x11,
	PACKAGE_OP = 0x12,
	METHOD_OP = 0x14,
	DUAL_NAME_PREFIX = 0x2e,
	MULTI_NAME_PREFIX = 0x2f,
	EXT_OP_PREFIX = 0x5b,
	EXT_REGION_OP = 0x80,
	EXT_FIELD_OP = 0x81,
	EXT_DEVICE_OP = 0x82,
	LOCAL0_OP = 0x60,
	ARG0_OP = 0x68,
	IF_OP = 0xa0,
	ELSE_OP = 0xa1,
	METHOD_SERIALIZED = 1 << 3,
	RES_IO = 0x47,
	RES_IRQ = 0x22,
	RES_END = 0x79,
	RES_MEMORY32_FIXED = 0x86,
	RES_DWORD = 0x87,
	RES_WORD = 0x88,
	RES_INTERRUPT = 0x89,
	RES_QWORD = 0x8a,
	RES_FIXED = 0x0c, /* minimum and maximum are; positive decoding */
	NAME_SEG = 4,
	PKG_LENGTH_MAX = 4, /* bytes */
	INT_MAX_BYTES = 9,
};

void aml_init(struct aml *a)
{
	*a = (struct aml){.capacity = 8192};
	a->data = xmalloc(a->capacity);
}

void aml_destroy(struct aml *a)
{
	free(a->data);
	a->data = NULL;
}

static uint8_t *reserve(struct aml *a, size_t len)
{
	if (len > a->capacity - a->len) {
		a->capacity = MAX(2 * a->capacity, a->len + len);
		a->data = xrealloc(a->data, a->capacity);
	}
	a->len += len;
	return a->data + a->len - len;
}

void aml_bytes(struct aml *a, const void *bytes, size_t len)
{
	if (len)
		memcpy(reserve(a, len), bytes, len);
}

void aml_zeroes(struct aml *a, size_t len)
{
	memset(reserve(a, len), 0, len);
}

void aml_u8(struct aml *a, uint8_t v)
{
	*reserve(a, 1) = v;
}

void aml_u16(struct aml *a, uint16_t v)
{
	store_le16(reserve(a, 2), v);
}

void aml_u32(struct aml *a, uint32_t v)
{
	store_le32(reserve(a, 4), v);
}

void aml_u64(struct aml *a, uint64_t v)
{
	store_le64(reserve(a, 8), v);
}

/* ComputationalData of an integer; returns its bytes. */
static size_t encode_int(uint8_t out[INT_MAX_BYTES], uint64_t v)
{
	if (v <= 1) {
		out[0] = v;
		return 1;
	}
	if (v == UINT64_MAX) {
		out[0] = AML_ONES;
		return 1;
	}
	if (v <= UINT8_MAX) {
		out[0] = BYTE_PREFIX;
		out[1] = v;
		return 2;
	}
	if (v <= UINT16_MAX) {
		out[0] = WORD_PREFIX;
		store_le16(out + 1, v);
		return 3;
	}
	if (v <= UINT32_MAX) {
		out[0] = DWORD_PREFIX;
		store_le32(out + 1, v);
		return 5;
	}
	out[0] = QWORD_PREFIX;
	store_le64(out + 1, v);
	return 9;
}

/* PkgLength of exactly this value (20.2.4): six bits in one byte, or four and up to three bytes. */
static size_t encode_pkg_length(uint8_t out[PKG_LENGTH_MAX], size_t v)
{
	size_t extra = v < 1 << 6 ? 0 : v < 1 << 12 ? 1 : v < 1 << 20 ? 2 : 3;

	assert(v < 1 << 28);
	if (!extra) {
		out[0] = v;
		return 1;
	}
	out[0] = extra << 6 | (v & 0xf);
	v >>= 4;
	for (size_t i = 1; i <= extra; i++, v >>= 8)
		out[i] = v;
	return 1 + extra;
}

/* The length of a block counts its own bytes. */
static size_t encode_block_length(uint8_t out[PKG_LENGTH_MAX], size_t body)
{
	size_t own = body + 1 < 1 << 6 ? 1 : body + 2 < 1 << 12 ? 2 : body + 3 < 1 << 20 ? 3 : 4;

	return encode_pkg_length(out, body + own);
}

void aml_int(struct aml *a, uint64_t v)
{
	uint8_t bytes[INT_MAX_BYTES];

	aml_bytes(a, bytes, encode_int(bytes, v));
}

void aml_dword(struct aml *a, uint32_t v)
{
	aml_u8(a, DWORD_PREFIX);
	aml_u32(a, v);
}

void aml_string(struct aml *a, const char *s)
{
	aml_u8(a, STRING_PREFIX);
	aml_bytes(a, s, strlen(s) + 1);
}

static unsigned hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	assert(c >= 'a' && c <= 'f');
	return c - 'a' + 10;
}

/* 19.3.4: three letters of five bits and four hexadecimal digits, big end first. */
void aml_eisaid(struct aml *a, const char *id)
{
	uint32_t v = 0;

	assert(strlen(id) == 7);
	for (unsigned i = 0; i < 3; i++)
		v = v << 5 | ((id[i] - 0x40) & 0x1f);
	for (unsigned i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	aml_u8(a, DWORD_PREFIX);
	store_be32(reserve(a, 4), v);
}

void aml_buffer(struct aml *a, const void *bytes, size_t len)
{
	uint8_t size[INT_MAX_BYTES], pkg[PKG_LENGTH_MAX];
	size_t size_len = encode_int(size, len);

	aml_u8(a, BUFFER_OP);
	aml_bytes(a, pkg, encode_block_length(pkg, size_len + len));
	aml_bytes(a, size, size_len);
	aml_bytes(a, bytes, len);
}

/* 19.6.142: the first three groups are little-endian. */
void aml_uuid(struct aml *a, const char *uuid)
{
	static const uint8_t place[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
	uint8_t bytes[16];

	assert(strlen(uuid) == 36);
	for (unsigned i = 0; i < 16; i++) {
		if (*uuid == '-')
			uuid++;
		bytes[place[i]] = hex_digit(uuid[0]) << 4 | hex_digit(uuid[1]);
		uuid += 2;
	}
	aml_buffer(a, bytes, sizeof(bytes));
}

static const char *path_segment(struct aml *a, const char *p)
{
	uint8_t *seg = reserve(a, NAME_SEG);
	unsigned n = 0;

	while (*p && *p != '.') {
		assert(n < NAME_SEG &&
		       ((*p >= 'A' && *p <= 'Z') || *p == '_' || (n && *p >= '0' && *p <= '9')));
		seg[n++] = *p++;
	}
	assert(n);
	while (n < NAME_SEG)
		seg[n++] = '_';
	return *p == '.' ? p + 1 : p;
}

void aml_path(struct aml *a, const char *path)
{
	unsigned segments = 1;

	while (*path == '\\' || *path == '^')
		aml_u8(a, *path++);
	if (!*path) {
		aml_u8(a, 0); /* NullName: the root, or a parent itself */
		return;
	}
	for (const char *p = path; *p; p++)
		segments += *p == '.';
	if (segments == 2)
		aml_u8(a, DUAL_NAME_PREFIX);
	if (segments > 2) {
		aml_u8(a, MULTI_NAME_PREFIX);
		aml_u8(a, segments);
	}
	while (*path)
		path = path_segment(a, path);
}

void aml_arg(struct aml *a, unsigned n)
{
	assert(n <= 6);
	aml_u8(a, ARG0_OP + n);
}

void aml_local(struct aml *a, unsigned n)
{
	assert(n <= 7);
	aml_u8(a, LOCAL0_OP + n);
}

void aml_op(struct aml *a, enum aml_op op)
{
	aml_u8(a, op);
}

void aml_name(struct aml *a, const char *name)
{
	aml_u8(a, NAME_OP);
	aml_path(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
	aml_name(a, name);
	aml_int(a, v);
}

void aml_name_string(struct aml *a, const char *name, const char *s)
{
	aml_name(a, name);
	aml_string(a, s);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	aml_name(a, name);
	aml_eisaid(a, id);
}

static void open_block(struct aml *a, bool resources)
{
	assert(a->depth < AML_DEPTH_MAX);
	a->open[a->depth].start = a->len;
	a->open[a->depth].resources = resources;
	a->depth++;
}

void aml_scope(struct aml *a, const char *path)
{
	aml_u8(a, SCOPE_OP);
	open_block(a, false);
	aml_path(a, path);
}

void aml_device(struct aml *a, const char *name)
{
	aml_u8(a, EXT_OP_PREFIX);
	aml_u8(a, EXT_DEVICE_OP);
	open_block(a, false);
	aml_path(a, name);
}

static void method(struct aml *a, const char *name, unsigned args, uint8_t flags)
{
	assert(args <= 7);
	aml_u8(a, METHOD_OP);
	open_block(a, false);
	aml_path(a, name);
	aml_u8(a, args | flags);
}

void aml_method(struct aml *a, const char *name, unsigned args)
{
	method(a, name, args, 0);
}

void aml_method_serialized(struct aml *a, const char *name, unsigned args)
{
	method(a, name, args, METHOD_SERIALIZED);
}

void aml_if(struct aml *a)
{
	aml_u8(a, IF_OP);
	open_block(a, false);
}

void aml_else(struct aml *a)
{
	aml_u8(a, ELSE_OP);
	open_block(a, false);
}

void aml_package(struct aml *a, unsigned count)
{
	assert(count <= UINT8_MAX);
	aml_u8(a, PACKAGE_OP);
	open_block(a, false);
	aml_u8(a, count);
}

void aml_field(struct aml *a, const char *region, enum aml_access access)
{
	aml_u8(a, EXT_OP_PREFIX);
	aml_u8(a, EXT_FIELD_OP);
	open_block(a, false);
	aml_path(a, region);
	aml_u8(a, access); /* no lock, preserving the other bits */
}

void aml_resources(struct aml *a)
{
	aml_u8(a, BUFFER_OP);
	open_block(a, true);
}

/* Lengths take one to four bytes, so they are put in front of a body that is complete. */
void aml_end(struct aml *a)
{
	uint8_t prefix[PKG_LENGTH_MAX + INT_MAX_BYTES], size[INT_MAX_BYTES];
	size_t start, body, size_len = 0, n;

	assert(a->depth);
	a->depth--;
	start = a->open[a->depth].start;
	if (a->open[a->depth].resources) {
		aml_u8(a, RES_END);
		aml_u8(a, 0); /* a checksum of zero counts as right */
		size_len = encode_int(size, a->len - start);
	}
	body = a->len - start;
	n = encode_block_length(prefix, size_len + body);
	memcpy(prefix + n, size, size_len);
	n += size_len;
	reserve(a, n);
	memmove(a->data + start + n, a->data + start, body);
	memcpy(a->data + start, prefix, n);
}

void aml_operation_region(struct aml *a, const char *name, enum aml_space space, uint64_t offset,
			  uint64_t len)
{
	aml_u8(a, EXT_OP_PREFIX);
	aml_u8(a, EXT_REGION_OP);
	aml_path(a, name);
	aml_u8(a, space);
	aml_int(a, offset);
	aml_int(a, len);
}

static void field_length(struct aml *a, unsigned bits)
{
	uint8_t pkg[PKG_LENGTH_MAX];

	aml_bytes(a, pkg, encode_pkg_length(pkg, bits));
}

void aml_field_bits(struct aml *a, const char *name, unsigned bits)
{
	path_segment(a, name);
	field_length(a, bits);
}

void aml_field_skip(struct aml *a, unsigned bits)
{
	aml_u8(a, 0);
	field_length(a, bits);
}

void aml_res_io(struct aml *a, uint16_t min, uint16_t max, uint8_t align, uint8_t len)
{
	aml_u8(a, RES_IO);
	aml_u8(a, 1); /* decodes 16 bits */
	aml_u16(a, min);
	aml_u16(a, max);
	aml_u8(a, align);
	aml_u8(a, len);
}

void aml_res_irq(struct aml *a, uint16_t mask)
{
	aml_u8(a, RES_IRQ);
	aml_u16(a, mask);
}

void aml_res_interrupt(struct aml *a, unsigned flags, const uint32_t *gsis, unsigned count)
{
	assert(count <= UINT8_MAX);
	aml_u8(a, RES_INTERRUPT);
	aml_u16(a, 2 + 4 * count);
	aml_u8(a, flags);
	aml_u8(a, count);
	for (unsigned i = 0; i < count; i++)
		aml_u32(a, gsis[i]);
}

void aml_res_memory32_fixed(struct aml *a, unsigned flags, uint32_t base, uint32_t len)
{
	aml_u8(a, RES_MEMORY32_FIXED);
	aml_u16(a, 9);
	aml_u8(a, flags & AML_RES_READ_WRITE);
	aml_u32(a, base);
	aml_u32(a, len);
}

static void address_head(struct aml *a, uint8_t tag, uint16_t len, enum aml_res_type type,
			 unsigned flags)
{
	aml_u8(a, tag);
	aml_u16(a, len);
	aml_u8(a, type);
	aml_u8(a, RES_FIXED);
	aml_u8(a, flags);
}

void aml_res_word(struct aml *a, enum aml_res_type type, unsigned flags, uint16_t min, uint16_t max)
{
	address_head(a, RES_WORD, 13, type, flags);
	aml_u16(a, 0); /* granularity */
	aml_u16(a, min);
	aml_u16(a, max);
	aml_u16(a, 0); /* translation */
	aml_u16(a, max - min + 1);
}

void aml_res_dword(struct aml *a, enum aml_res_type type, unsigned flags, uint32_t min,
		   uint32_t max)
{
	address_head(a, RES_DWORD, 23, type, flags);
	aml_u32(a, 0);
	aml_u32(a, min);
	aml_u32(a, max);
	aml_u32(a, 0);
	aml_u32(a, max - min + 1);
}

void aml_res_qword(struct aml *a, enum aml_res_type type, unsigned flags, uint64_t min,
		   uint64_t max)
{
	address_head(a, RES_QWORD, 43, type, flags);
	aml_u64(a, 0);
	aml_u64(a, min);
	aml_u64(a, max);
	aml_u64(a, 0);
	aml_u64(a, max - min + 1);
}
