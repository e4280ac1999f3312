/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of a guest's chardevs: by id, made from -chardev's options, handed out to front ends.
 * Main thread; owned by the program's main.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/chardev/backend.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

struct chardev_entry {
	char *id;
	const struct chardev_backend *backend;
	struct chardev *chardev;
	struct mux *mux; /* mux=on */
	struct chardev_entry *next;
};

static const struct chardev_backend *const backends[] = {
	&chardev_backend_stdio,	 &chardev_backend_file, &chardev_backend_pty,
	&chardev_backend_socket, &chardev_backend_null, &chardev_backend_ringbuf,
};

static const char *const backend_names[] = { "stdio", "file",	 "pty", "socket",
					     "null",  "ringbuf", NULL };

const char *const *chardev_backend_names(void)
{
	return backend_names;
}

static const struct chardev_backend *find_backend(const char *name, struct error **err)
{
	const char *near;

	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		if (!strcmp(backends[i]->name, name))
			return backends[i];
	near = nearest_name(name, backend_names, ARRAY_SIZE(backend_names) - 1);
	if (near)
		error_set(err, "unknown back end '%s'; did you mean '%s'?", name, near);
	else
		error_set(err, "unknown back end '%s' (-chardev help lists them)", name);
	return NULL;
}

static struct chardev_entry *find(const struct chardevs *set, const char *id)
{
	struct chardev_entry *e = set->first;

	while (e && strcmp(e->id, id))
		e = e->next;
	return e;
}

void chardevs_init(struct chardevs *set, struct evloop *loop)
{
	*set = (struct chardevs){ .loop = loop, .escape_char = 1 };
}

bool chardevs_wait(struct chardevs *set, const struct chardev *c, const char *label,
		   struct error **err)
{
	if (!c->open)
		log_info("waiting for a connection on %s", label);
	while (!c->open && !set->cancelled)
		evloop_run_once(set->loop, -1);
	if (!c->open)
		error_set(err, "ended while waiting for a connection");
	return c->open;
}

void chardevs_cancel(struct chardevs *set)
{
	set->cancelled = true;
	evloop_wake(set->loop);
}

static void entry_free(struct chardev_entry *e)
{
	mux_free(e->mux);
	e->chardev->ops->destroy(e->chardev);
	free(e->id);
	free(e);
}

void chardevs_destroy(struct chardevs *set)
{
	while (set->first) {
		struct chardev_entry *e = set->first;

		set->first = e->next;
		entry_free(e);
	}
}

static bool has_name(const char *const *names, const char *name)
{
	while (names && *names && strcmp(*names, name))
		names++;
	return names && *names;
}

/* Before anything is opened: a file must not be emptied for the sake of a misspelt option. */
static bool check_keys(const struct chardev_backend *backend, const struct opts *opts,
		       struct error **err)
{
	static const char *const common[] = { "backend", "id", "mux", NULL };

	for (size_t i = 0; i < opts->count; i++) {
		const char *key = opts->items[i].key;
		bool negated = opts->items[i].bare && !strncmp(key, "no", 2);

		if (has_name(common, key) || has_name(backend->keys, key) ||
		    (negated && has_name(backend->keys, key + 2)))
			continue;
		error_set(err, "back end '%s' has no option '%s'", backend->name, key);
		return false;
	}
	return true;
}

bool chardevs_add(struct chardevs *set, struct opts *opts, struct error **err)
{
	const char *id = opts_get(opts, "id"), *name = opts_get(opts, "backend");
	const struct chardev_backend *backend;
	struct chardev_entry *e, **end = &set->first;
	struct chardev *c;
	bool mux = false;

	if (!id || !name) {
		error_set(err, "%s is missing", id ? "the back end" : "id");
		return false;
	}
	if (find(set, id)) {
		error_set(err, "there is a chardev '%s' already", id);
		return false;
	}
	backend = find_backend(name, err);
	if (!backend || !check_keys(backend, opts, err) || !opts_get_bool(opts, "mux", &mux, err))
		return false;
	c = backend->create(set, id, opts, err);
	if (!c)
		return false;
	c->id = xstrdup(id);
	e = xcalloc(1, sizeof(*e));
	*e = (struct chardev_entry){ .id = c->id, .backend = backend, .chardev = c };
	if (mux)
		e->mux = mux_new(set, c);
	while (*end)
		end = &(*end)->next;
	*end = e;
	return true;
}

struct chardev *chardevs_take(struct chardevs *set, const char *id, struct error **err)
{
	struct chardev_entry *e = find(set, id);

	if (!e) {
		error_set(err, "there is no chardev '%s'", id);
		return NULL;
	}
	if (e->mux)
		return mux_take(e->mux, err);
	if (e->chardev->taken) {
		error_set(err, "chardev '%s' is in use (mux=on shares it)", id);
		return NULL;
	}
	e->chardev->taken = true;
	return e->chardev;
}

void chardevs_release(struct chardevs *set, struct chardev *c)
{
	for (struct chardev_entry *e = set->first; e; e = e->next) {
		if (e->mux ? mux_release(e->mux, c) : e->chardev == c) {
			if (!e->mux)
				chardev_attach(c, NULL);
			if (!e->mux)
				c->taken = false;
			return;
		}
	}
}

void chardevs_each(const struct chardevs *set,
		   void (*fn)(void *opaque, const char *id, const char *filename, bool open),
		   void *opaque)
{
	for (struct chardev_entry *e = set->first; e; e = e->next) {
		char *filename = e->mux			? xstrdup("mux")
				 : e->backend->filename ? e->backend->filename(e->chardev)
							: xstrdup(e->backend->name);

		fn(opaque, e->id, filename, e->mux || e->chardev->taken);
		free(filename);
	}
}

static struct chardev *find_ringbuf(struct chardevs *set, const char *id, long *error)
{
	struct chardev_entry *e = find(set, id);

	*error = !e ? -ENOENT : -EINVAL;
	return e && e->backend == &chardev_backend_ringbuf ? e->chardev : NULL;
}

long chardevs_ringbuf_read(struct chardevs *set, const char *id, uint8_t *buf, size_t len)
{
	long error;
	struct chardev *c = find_ringbuf(set, id, &error);

	return c ? ringbuf_read(c, buf, len) : error;
}

long chardevs_ringbuf_write(struct chardevs *set, const char *id, const uint8_t *buf, size_t len)
{
	long error;
	struct chardev *c = find_ringbuf(set, id, &error);

	return c ? ringbuf_write(c, buf, len) : error;
}
