/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What -object (and --object of the tools) makes and options refer to by id, as far as it is plain
 * data: secrets, credentials. The kinds stand in one array in objects.c.
 *
 * Main thread. The table owns its objects; whoever found one uses it no longer than the table
 * lives.
 */
#ifndef VMM_CORE_OBJECTS_H
#define VMM_CORE_OBJECTS_H

#include <stdbool.h>

#include "vmm/core/error.h"
#include "vmm/core/opts.h"

struct objects;

struct object_type {
	const char *name; /* qom-type */
	/* opts has its keys besides qom-type and id; those that it does not read are refused. An
	 * object may refer to older ones. */
	void *(*create)(const struct objects *objects, const char *id, struct opts *opts,
			struct error **err);
	void (*free)(void *object);
};

struct objects *objects_new(void);
/* Newest first. NULL is allowed. */
void objects_free(struct objects *objects);
/* NULL: no object of this type can be made here. */
const struct object_type *objects_type(const char *name);
/* The i-th type's name, NULL behind the last. */
const char *objects_type_name(unsigned i);
bool objects_add(struct objects *objects, struct opts *opts, struct error **err);
/* NULL if there is none of that type; objects NULL: there are none. */
void *objects_find(const struct objects *objects, const struct object_type *type, const char *id);

#endif
