/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State tables: what of a device must be saved so that the guest sees no difference when it goes on
 * elsewhere. The table alone feeds snapshots and migration, so every device declares it when it is
 * written. What follows from properties or from other fields is not state.
 *
 * Integers are saved little-endian at their declared width; the order is the table's.
 */
#ifndef VMM_CORE_STATE_H
#define VMM_CORE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"

enum state_type {
	STATE_END,
	STATE_BOOL,
	STATE_U8,
	STATE_U16,
	STATE_U32,
	STATE_U64,
	STATE_I64,
	STATE_BYTES,  /* size bytes as they are */
	STATE_STRUCT, /* count structs of size bytes, each by its own table */
	STATE_PTR,    /* as STATE_STRUCT, through a pointer */
};

struct state_field {
	const char *name;
	enum state_type type;
	size_t offset;
	size_t size;  /* BYTES: length; STRUCT, PTR: sizeof one */
	size_t count; /* array length; 0 means 1 */
	/* The array's length at run time lies here as a uint32_t, at most count; 0: unused */
	size_t count_offset;
	const struct state_desc *desc; /* STRUCT, PTR */
	unsigned since;		       /* first version that has it; 0: all */
};

struct state_desc {
	const char *name;
	unsigned version; /* written; raised when a field is added */
	const struct state_field *fields; /* ends with STATE_END */
	void (*pre_save)(void *object);
	/* Loaded bytes are hostile: validates all, then makes what follows from them. */
	bool (*post_load)(void *object, unsigned version, struct error **err);
};

#define STATE_FIELD(struct_type, member, type_)                                  \
	{                                                                        \
		.name = #member, .type = type_, .offset = offsetof(struct_type, member) \
	}
#define STATE_ARRAY(struct_type, member, type_)                                   \
	{                                                                         \
		.name = #member, .type = type_, .offset = offsetof(struct_type, member), \
		.count = sizeof(((struct_type *)0)->member) /                     \
			 sizeof(((struct_type *)0)->member[0])                    \
	}
#define STATE_BUFFER(struct_type, member)                                                \
	{                                                                                \
		.name = #member, .type = STATE_BYTES, .offset = offsetof(struct_type, member), \
		.size = sizeof(((struct_type *)0)->member)                               \
	}

#endif
