/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI Machine Language, written from front to back (ACPI 6.4, chapters 6.4 and 20).
 *
 * AML puts an operator before its operands, so calls in the order of the ASL source produce it:
 *
 *	aml_device(a, "LNKA");
 *		aml_name_eisaid(a, "_HID", "PNP0C0F");
 *		aml_method(a, "_STA", 0);
 *			aml_return(a);
 *			aml_int(a, 0x0b);
 *		aml_end(a);
 *	aml_end(a);
 *
 * What has a length is opened by its call and closed by aml_end(), which inserts the length. So an
 * offset in the buffer is final only when nothing is open. Names and nesting are the program's own:
 * a malformed one is a mistake in it (assert).
 *
 * Pure functions; one thread at a time for each buffer.
 */
#ifndef HW_ACPI_AML_H
#define HW_ACPI_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AML_DEPTH_MAX = 12 };

struct aml {
	uint8_t *data; /* owned */
	size_t len, capacity;
	struct {
		size_t start; /* of what the length counts */
		bool resources;
	} open[AML_DEPTH_MAX];
	unsigned depth;
};

/* Operators whose operands simply follow. A target that is not wanted is AML_ZERO. */
enum aml_op {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_STORE = 0x70,	       /* source, target */
	AML_ADD = 0x72,		       /* a, b, target */
	AML_SUBTRACT = 0x74,	       /* a, b, target */
	AML_INCREMENT = 0x75,	       /* target */
	AML_SHIFT_LEFT = 0x79,	       /* a, count, target */
	AML_SHIFT_RIGHT = 0x7a,	       /* a, count, target */
	AML_AND = 0x7b,		       /* a, b, target */
	AML_OR = 0x7d,		       /* a, b, target */
	AML_NOTIFY = 0x86,	       /* object, value */
	AML_INDEX = 0x88,	       /* object, index, target */
	AML_CREATE_DWORD_FIELD = 0x8a, /* buffer, byte index, new name */
	AML_LAND = 0x90,	       /* a, b */
	AML_LOR = 0x91,		       /* a, b */
	AML_LNOT = 0x92,	       /* a */
	AML_LEQUAL = 0x93,	       /* a, b */
	AML_LGREATER = 0x94,	       /* a, b */
	AML_LLESS = 0x95,	       /* a, b */
	AML_RETURN = 0xa4,	       /* value */
	AML_ONES = 0xff,
};

enum aml_space { AML_SYSTEM_MEMORY = 0, AML_SYSTEM_IO = 1, AML_PCI_CONFIG = 2 };
enum aml_access { AML_ANY_ACC, AML_BYTE_ACC, AML_WORD_ACC, AML_DWORD_ACC };

void aml_init(struct aml *a);
void aml_destroy(struct aml *a);
/* Bytes as they are: headers and tables that are not AML use the same buffer. */
void aml_bytes(struct aml *a, const void *bytes, size_t len);
void aml_u8(struct aml *a, uint8_t v);
void aml_u16(struct aml *a, uint16_t v);
void aml_u32(struct aml *a, uint32_t v);
void aml_u64(struct aml *a, uint64_t v);
void aml_zeroes(struct aml *a, size_t len);

/* Data. */
void aml_int(struct aml *a, uint64_t v);   /* in its shortest form */
void aml_dword(struct aml *a, uint32_t v); /* always 5 bytes, so that it can be patched: last 4 */
void aml_string(struct aml *a, const char *s);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0A03" */
void aml_buffer(struct aml *a, const void *bytes, size_t len);
void aml_uuid(struct aml *a, const char *uuid); /* ToUUID("33db4d5b-1ff7-...") */
/* "\\_SB.PCI0", "^X", "LNKA"; shorter segments are filled up with '_'. */
void aml_path(struct aml *a, const char *path);
void aml_arg(struct aml *a, unsigned n);
void aml_local(struct aml *a, unsigned n);
void aml_op(struct aml *a, enum aml_op op);
static inline void aml_return(struct aml *a)
{
	aml_op(a, AML_RETURN);
}
static inline void aml_store(struct aml *a)
{
	aml_op(a, AML_STORE);
}

/* Name(name, ...): the object follows. */
void aml_name(struct aml *a, const char *name);
void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_string(struct aml *a, const char *name, const char *s);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

/* Each of these stays open until its aml_end(). */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *name);
void aml_method(struct aml *a, const char *name, unsigned args);
void aml_method_serialized(struct aml *a, const char *name, unsigned args);
void aml_if(struct aml *a); /* the predicate follows, then the body */
void aml_else(struct aml *a);
void aml_package(struct aml *a, unsigned count);
void aml_field(struct aml *a, const char *region, enum aml_access access);
void aml_resources(struct aml *a); /* ResourceTemplate() */
void aml_end(struct aml *a);

void aml_operation_region(struct aml *a, const char *name, enum aml_space space, uint64_t offset,
			  uint64_t len);
/* Inside aml_field(). */
void aml_field_bits(struct aml *a, const char *name, unsigned bits);
void aml_field_skip(struct aml *a, unsigned bits);

/* Resource descriptors, inside aml_resources(). */
enum aml_irq_flags { /* as in the extended interrupt descriptor */
		     AML_IRQ_CONSUMER = 1 << 0,
		     AML_IRQ_EDGE = 1 << 1, /* else level */
		     AML_IRQ_LOW = 1 << 2,  /* else active high */
		     AML_IRQ_SHARED = 1 << 3,
};
enum aml_res_type { AML_RES_MEMORY, AML_RES_IO, AML_RES_BUS };
enum aml_res_flags { /* type-specific */
		     AML_RES_READ_ONLY = 0,
		     AML_RES_READ_WRITE = 1 << 0,
		     AML_RES_CACHEABLE = 1 << 1,
		     AML_RES_PREFETCHABLE = 3 << 1,
		     AML_RES_ENTIRE_RANGE = 3, /* IO */
};
void aml_res_io(struct aml *a, uint16_t min, uint16_t max, uint8_t align, uint8_t len);
void aml_res_irq(struct aml *a, uint16_t mask); /* edge, active high, exclusive */
void aml_res_interrupt(struct aml *a, unsigned flags, const uint32_t *gsis, unsigned count);
void aml_res_memory32_fixed(struct aml *a, unsigned flags, uint32_t base, uint32_t len);
/* What a bridge passes on, at a fixed place: [min, max], no translation. */
void aml_res_word(struct aml *a, enum aml_res_type type, unsigned flags, uint16_t min,
		  uint16_t max);
void aml_res_dword(struct aml *a, enum aml_res_type type, unsigned flags, uint32_t min,
		   uint32_t max);
void aml_res_qword(struct aml *a, enum aml_res_type type, unsigned flags, uint64_t min,
		   uint64_t max);

#endif
