/* SPDX-License-Identifier: Apache-2.0 */
/* A server's exports, printed as qemu-nbd -L does. Main thread; waits on the loop. */
#include "block/nbd/list.h"

#include "config.h"
#ifdef CONFIG_LIBNBD
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/nbd/link.h"
#include "vmm/core/util.h"

struct export
{
	char *name, *description;
	struct export *next;
};

struct lister {
	struct nbd_target target;
	struct nbd_link link;
	struct export *exports, **tail;
	unsigned count, contexts;
	char **context_names;
	bool done;
	int error;
};

enum { MOST = 100000 }; /* a server that tells of more has lost its way */

static void on_progress(void *opaque)
{
}

static int on_done(void *opaque, int *error)
{
	struct lister *l = opaque;

	l->done = true;
	l->error = *error;
	return 1;
}

static nbd_completion_callback completion(struct lister *l)
{
	l->done = false;
	l->error = 0;
	return (nbd_completion_callback){.callback = on_done, .user_data = l};
}

static int on_export(void *opaque, const char *name, const char *description)
{
	struct lister *l = opaque;
	struct export *e;

	if (l->count == MOST)
		return 0;
	e = xcalloc(1, sizeof(*e));
	e->name = xstrdup(name);
	e->description = description && *description ? xstrdup(description) : NULL;
	*l->tail = e;
	l->tail = &e->next;
	l->count++;
	return 0;
}

static int on_context(void *opaque, const char *name)
{
	struct lister *l = opaque;

	if (l->contexts == MOST)
		return 0;
	l->context_names = xrealloc(l->context_names, (l->contexts + 1) * sizeof(char *));
	l->context_names[l->contexts++] = xstrdup(name);
	return 0;
}

/* Whether what was begun went well. */
static bool wait_done(struct lister *l, int begun)
{
	if (begun < 0)
		return false;
	nbd_link_poke(&l->link);
	while (!l->done && l->link.phase != NBD_LINK_LOST)
		evloop_run_once(l->link.loop, -1);
	return l->done && !l->error;
}

static void print_flags(const struct lister *l)
{
	struct nbd_handle *h = l->link.h;

	const struct {
		int set;
		const char *name;
		unsigned bit;
	} flags[] = {
		{1, NULL, 0},
		{l->link.lib.is_read_only(h), "readonly", 1},
		{l->link.lib.can_flush(h), "flush", 2},
		{l->link.lib.can_fua(h), "fua", 3},
		{l->link.lib.is_rotational(h), "rotational", 4},
		{l->link.lib.can_trim(h), "trim", 5},
		{l->link.lib.can_zero(h), "zeroes", 6},
		{l->link.lib.can_df(h), "df", 7},
		{l->link.lib.can_multi_conn(h), "multi", 8},
		{l->link.lib.can_cache(h), "cache", 10},
		{l->link.lib.can_fast_zero(h), "fast-zero", 11},
	};
	unsigned value = 0;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (flags[i].set > 0)
			value |= 1u << flags[i].bit;
	printf("  flags: 0x%x (", value);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (flags[i].set > 0 && flags[i].name)
			printf(" %s", flags[i].name);
	printf(" )\n");
}

static bool print_export(struct lister *l, const struct export *e)
{
	static const char *const sizes[] = {"min", "opt", "max"};
	struct nbd_handle *h = l->link.h;

	printf(" export: '%s'\n", e->name);
	if (e->description)
		printf("  description: %s\n", e->description);
	if (l->link.lib.set_export_name(h, e->name) < 0 ||
	    !wait_done(l, l->link.lib.aio_opt_info(h, completion(l))))
		return false;
	printf("  size:  %" PRIu64 "\n", (uint64_t)l->link.lib.get_size(h));
	print_flags(l);
	for (int i = 0; i < 3; i++) {
		int64_t size = l->link.lib.get_block_size(h, i);

		if (size > 0)
			printf("  %s block: %" PRIi64 "\n", sizes[i], size);
	}
	if (!wait_done(l, l->link.lib.aio_opt_list_meta_context(h,
							(nbd_context_callback){
								.callback = on_context,
								.user_data = l,
							},
							completion(l))))
		return true; /* a server without them */
	if (l->contexts)
		printf("  available meta contexts: %u\n", l->contexts);
	for (unsigned i = 0; i < l->contexts; i++)
		printf("   %s\n", l->context_names[i]);
	return true;
}

static void forget_contexts(struct lister *l)
{
	while (l->contexts)
		free(l->context_names[--l->contexts]);
	free(l->context_names);
	l->context_names = NULL;
}

static bool run(struct lister *l, struct evloop *loop, struct error **err)
{
	nbd_link_start(&l->link, loop);
	while (l->link.phase != NBD_LINK_UP && l->link.phase != NBD_LINK_LOST)
		evloop_run_once(loop, -1);
	if (l->link.phase == NBD_LINK_LOST) {
		error_propagate(err, l->link.why);
		l->link.why = NULL;
		return false;
	}
	if (!wait_done(l,
		       l->link.lib.aio_opt_list(l->link.h,
					(nbd_list_callback){.callback = on_export, .user_data = l},
					completion(l)))) {
		error_set(err, "The server does not list its exports");
		return false;
	}
	printf("exports available: %u\n", l->count);
	for (struct export *e = l->exports; e; e = e->next) {
		if (!print_export(l, e)) {
			error_set(err, "The server tells nothing of its export '%s'", e->name);
			return false;
		}
		forget_contexts(l);
	}
	return true;
}

bool nbd_list(struct evloop *loop, const struct nbd_list_config *config, struct error **err)
{
	struct lister l = {.target = {.list = true, .tls = config->tls}};
	const char *hostname = config->tls_hostname;
	bool ok;

	l.tail = &l.exports;
	if (!hostname && !config->path)
		hostname = config->host;
	if (!nbd_target_set(&l.target, config->path, config->host, config->port, err))
		return false;
	l.target.hostname = hostname ? xstrdup(hostname) : NULL;
	nbd_link_init(&l.link, &l.target, on_progress, &l);
	ok = nbd_calls_load(&l.link.lib, err) && run(&l, loop, err);
	if (ok)
		l.link.lib.aio_opt_abort(l.link.h);
	nbd_link_stop(&l.link, false);
	forget_contexts(&l);
	while (l.exports) {
		struct export *e = l.exports;

		l.exports = e->next;
		free(e->name);
		free(e->description);
		free(e);
	}
	nbd_target_destroy(&l.target);
	return ok;
}

#else

bool nbd_list(struct evloop *loop, const struct nbd_list_config *config, struct error **err)
{
	error_set(err, "-L is not supported by this build (libnbd was missing)");
	return false;
}
#endif
