/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Property tables: what a user may set on a device (or another configurable thing), its type, its
 * default, and its one-line description. The table alone feeds -device, -device NAME,help, QMP's
 * device_add and introspection, -global, and the manual.
 *
 * A value lies at an offset in the owner's struct, in the C type named at its PROP_ constant.
 */
#ifndef VMM_CORE_PROP_H
#define VMM_CORE_PROP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"

enum prop_type {
	PROP_END,
	PROP_BOOL,     /* bool */
	PROP_TRISTATE, /* enum prop_tristate: on, off, auto */
	PROP_U8,       /* uint8_t */
	PROP_U16,      /* uint16_t */
	PROP_U32,      /* uint32_t */
	PROP_U64,      /* uint64_t */
	PROP_I32,      /* int32_t */
	PROP_SIZE,     /* uint64_t, with suffix; a bare number is bytes */
	PROP_STRING,   /* char *, owned; NULL when unset */
	PROP_ENUM,     /* int, index into names */
	PROP_MAC,      /* uint8_t[6] */
	PROP_UUID,     /* uint8_t[16], as written (big-endian fields) */
	PROP_PCI_ADDR, /* int32_t: slot << 3 | function, "5", "1f.3"; -1: any */
	PROP_PCI_HOST, /* char *: [domain:]bus:slot.func on the host */
	PROP_DRIVE,    /* struct drive *, borrowed */
	PROP_CHARDEV,  /* struct chardev *, borrowed */
	PROP_NETDEV,   /* struct netdev *, borrowed */
	PROP_IOTHREAD, /* struct iothread *, borrowed */
	PROP_BACKEND,  /* void *, any other -object, borrowed; names[0] is its type */
};

enum prop_tristate { TRISTATE_AUTO, TRISTATE_ON, TRISTATE_OFF };

struct prop {
	const char *name;
	enum prop_type type;
	size_t offset;
	const char *def; /* as text; NULL: zero, NULL, or PROP_PCI_ADDR's -1 */
	const char *help;
	uint64_t min, max;	  /* integers; max 0: the type's */
	const char *const *names; /* PROP_ENUM, NULL-terminated */
};

/* A table and where its struct begins in the owner: lets a device include its transport's table. */
struct prop_set {
	const struct prop *props; /* ends with PROP_END; NULL ends the sets */
	size_t base;
};

/* Turns names into objects (PROP_DRIVE ... PROP_BACKEND). NULL with err if there is none or it is
 * already taken. */
struct prop_resolver {
	void *(*resolve)(void *opaque, const struct prop *prop, const char *name,
			 struct error **err);
	void *opaque;
};

/* object is the owner's struct. Defaults need no resolver. */
void prop_set_defaults(const struct prop_set *sets, void *object);
bool prop_assign(const struct prop_set *sets, void *object, const char *name, const char *value,
		 const struct prop_resolver *resolver, struct error **err);
/* The value as text, allocated; NULL for a property that is unset. */
char *prop_to_text(const struct prop *prop, const struct prop_set *set, const void *object);
const struct prop *prop_find(const struct prop_set *sets, const char *name,
			     const struct prop_set **set);
/* Frees owned strings. */
void prop_release(const struct prop_set *sets, void *object);
/* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" */
bool parse_uuid(const char *s, uint8_t uuid[16]);
const char *prop_type_name(const struct prop *prop);

#endif
