/* SPDX-License-Identifier: Apache-2.0 */
/* The table of objects; see objects.h. Main thread. */
#include "vmm/core/objects.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/secret.h"
#include "vmm/core/tls.h"
#include "vmm/core/util.h"

static const struct object_type *const types[] = {
	&secret_type,
	&tls_creds_x509_type,
	&tls_creds_psk_type,
};

struct named_object {
	const struct object_type *type;
	char *id;
	void *object;
	struct named_object *next;
};

struct objects {
	struct named_object *newest;
};

struct objects *objects_new(void)
{
	return xcalloc(1, sizeof(struct objects));
}

void objects_free(struct objects *objects)
{
	if (!objects)
		return;
	while (objects->newest) {
		struct named_object *o = objects->newest;

		objects->newest = o->next;
		o->type->free(o->object);
		free(o->id);
		free(o);
	}
	free(objects);
}

const struct object_type *objects_type(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(types[i]->name, name))
			return types[i];
	return NULL;
}

const char *objects_type_name(unsigned i)
{
	return i < ARRAY_SIZE(types) ? types[i]->name : NULL;
}

static const struct object_type *need_type(const char *name, struct error **err)
{
	const struct object_type *type = name ? objects_type(name) : NULL;
	const char *names[ARRAY_SIZE(types)], *nearest;

	if (type)
		return type;
	if (!name) {
		error_set(err, "Parameter 'qom-type' is missing");
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		names[i] = types[i]->name;
	nearest = nearest_name(name, names, ARRAY_SIZE(types));
	error_set(err, "objects of type '%s' are not supported%s%s%s", name,
		  nearest ? " (did you mean '" : "", nearest ? nearest : "", nearest ? "'?)" : "");
	return NULL;
}

bool objects_add(struct objects *objects, struct opts *opts, struct error **err)
{
	const struct object_type *type = need_type(opts_get(opts, "qom-type"), err);
	const char *id = opts_get(opts, "id");
	struct named_object *o;
	void *object;

	if (!type)
		return false;
	if (!id || !*id) {
		error_set(err, "Parameter 'id' is missing");
		return false;
	}
	for (o = objects->newest; o; o = o->next) {
		if (!strcmp(o->id, id)) {
			error_set(err, "there is an object '%s' already", id);
			return false;
		}
	}
	object = type->create(objects, id, opts, err);
	if (!object)
		return false;
	if (!opts_check_used(opts, NULL, 0, err)) {
		type->free(object);
		return false;
	}
	o = xcalloc(1, sizeof(*o));
	*o = (struct named_object){type, xstrdup(id), object, objects->newest};
	objects->newest = o;
	return true;
}

void *objects_find(const struct objects *objects, const struct object_type *type, const char *id)
{
	for (const struct named_object *o = objects ? objects->newest : NULL; o; o = o->next)
		if (o->type == type && !strcmp(o->id, id))
			return o->object;
	return NULL;
}
