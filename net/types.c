/* SPDX-License-Identifier: Apache-2.0 */
/* The array of network back ends, and what makes one of options; see types.h. Main thread. */
#include "net/types.h"

#include <string.h>

#include "vmm/core/util.h"

const struct net_type *const net_types[] = {
	&net_type_user,
	&net_type_tap,
	&net_type_bridge,
	&net_type_stream,
	&net_type_dgram,
	&net_type_socket,
	&net_type_vhost_user,
	NULL,
};

enum { OPTIONS_MAX = 64, TYPES_MAX = 16 };

const struct net_type *net_type_find(const char *name, struct error **err)
{
	/* QEMU's that are not here are no misspelt ones. */
	static const char *const absent[] = {"hubport", "l2tpv3",     "netmap",
					     "vde",	"vhost-vdpa", "af-xdp"};
	const char *names[TYPES_MAX] = {NULL}, *nearest;
	size_t count = 0;

	for (const struct net_type *const *t = net_types; *t && count < TYPES_MAX; t++) {
		if (!strcmp((*t)->name, name))
			return *t;
		names[count++] = (*t)->name;
	}
	for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
		if (!strcmp(absent[i], name)) {
			error_set(err, "network back end '%s' is not supported", name);
			return NULL;
		}
	}
	nearest = nearest_name(name, names, count);
	error_set(err, "Parameter 'type' expects a network back end, not '%s'%s%s%s", name,
		  nearest ? " (did you mean '" : "", nearest ? nearest : "", nearest ? "'?)" : "");
	return NULL;
}

/* "hostfwd.0.str" and "hostfwd.0", which JSON's lists of strings or of {"str": ...} have become, are
 * "hostfwd"; an option that does not repeat keeps its name. */
static void join_list(const struct net_option *option, struct opt *o)
{
	size_t len = strlen(option->name), digits;
	const char *rest;

	if (!option->repeats || strncmp(o->key, option->name, len) || o->key[len] != '.')
		return;
	rest = o->key + len + 1;
	digits = strspn(rest, "0123456789");
	if (digits && (!rest[digits] || !strcmp(rest + digits, ".str")))
		o->key[len] = '\0';
}

/* Options of the table count as taken; whatever else was given is refused before anything is
 * opened. */
static bool check_options(const struct net_type *type, struct opts *opts, struct error **err)
{
	const char *known[OPTIONS_MAX];
	size_t n = 0;

	for (const struct net_option *o = type->options; o->name && n < OPTIONS_MAX; o++) {
		for (size_t i = 0; i < opts->count; i++)
			join_list(o, &opts->items[i]);
		known[n++] = o->name;
		opts_get(opts, o->name);
	}
	return opts_check_used(opts, known, n, err);
}

static const struct net_type *check(struct opts *opts, struct error **err)
{
	const char *name = opts_get(opts, "type"), *id = opts_get(opts, "id");
	const struct net_type *type;

	if (!name || !*name || !id || !*id) {
		error_set(err, "Parameter '%s' is missing", name && *name ? "id" : "type");
		return NULL;
	}
	type = net_type_find(name, err);
	return type && check_options(type, opts, err) ? type : NULL;
}

bool net_check_options(struct opts *opts, struct error **err)
{
	return check(opts, err) != NULL;
}

struct netdev *net_new(const struct net_context *context, struct opts *opts, struct error **err)
{
	const struct net_type *type = check(opts, err);

	return type ? type->create(context, opts_get(opts, "id"), opts, err) : NULL;
}
