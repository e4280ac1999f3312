/* SPDX-License-Identifier: Apache-2.0 */
/* The array of network back ends, and what makes one of options; see types.h. Main thread. */
#include "net/types.h"

#include <string.h>

#include "vmm/core/util.h"

const struct net_type *const net_types[] = {
	NULL,
};

enum { OPTIONS_MAX = 64 };

static const struct net_type *find_type(const char *name)
{
	for (const struct net_type *const *t = net_types; *t; t++)
		if (!strcmp((*t)->name, name))
			return *t;
	return NULL;
}

/* Options of the table count as taken; whatever else was given is refused before anything is
 * opened. */
static bool check_options(const struct net_type *type, struct opts *opts, struct error **err)
{
	const char *known[OPTIONS_MAX];
	size_t n = 0;

	for (const struct net_option *o = type->options; o->name && n < OPTIONS_MAX; o++) {
		known[n++] = o->name;
		opts_get(opts, o->name);
	}
	return opts_check_used(opts, known, n, err);
}

struct netdev *net_new(struct evloop *main_loop, struct opts *opts, struct error **err)
{
	const char *name = opts_get(opts, "type"), *id = opts_get(opts, "id");
	const struct net_type *type = find_type(name);

	if (!type) {
		error_set(err, "Parameter 'type' expects a network back end, not '%s'", name);
		return NULL;
	}
	return check_options(type, opts, err) ? type->create(main_loop, id, opts, err) : NULL;
}
