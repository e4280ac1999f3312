/* SPDX-License-Identifier: Apache-2.0 */
/* What devices refer to by name; see resources.h. Main thread. */
#include "vmm/resources.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hw/virtio/rng_backend.h"
#include "net/dump.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

static struct drive *find_drive(const struct resources *r, const char *id)
{
	for (struct drive *d = r->drives; d; d = d->next)
		if (!strcmp(d->id, id))
			return d;
	return NULL;
}

static struct block_node *find_node(void *opaque, const char *node_name)
{
	const struct resources *r = opaque;

	for (struct named_node *n = r->nodes; n; n = n->next)
		if (!strcmp(block_name(n->node), node_name))
			return n->node;
	return NULL;
}

/* A drive's image proved corrupt: told on the main thread, once. */
struct corrupt_drive {
	struct block_watch watch;
	struct ev_work work;
	struct vm *vm;
	struct corrupt_drive *next;
	_Atomic bool told;
	char *id;
	char node_name[64], message[200];
};

static void tell_corrupted(void *opaque)
{
	struct corrupt_drive *c = opaque;

	vm_send_event(c->vm, &(struct vm_event){ .kind = VM_EVENT_BLOCK_IMAGE_CORRUPTED,
						 .device = c->id,
						 .node_name = c->node_name,
						 .message = c->message });
}

/* On the node's loop. */
static void corrupted(struct block_watch *watch, const struct block_node *node, const char *message)
{
	struct corrupt_drive *c = container_of(watch, struct corrupt_drive, watch);

	if (atomic_exchange(&c->told, true))
		return;
	snprintf(c->node_name, sizeof(c->node_name), "%s", block_name(node));
	snprintf(c->message, sizeof(c->message), "%s", message);
	evloop_post(c->vm->loop, &c->work);
}

static void watch_drive(struct resources *r, const struct drive *d)
{
	struct corrupt_drive *c = xcalloc(1, sizeof(*c));

	c->watch.corrupted = corrupted;
	c->vm = r->vm;
	c->id = xstrdup(d->id);
	ev_work_init(&c->work, tell_corrupted, c);
	c->next = r->corrupt;
	r->corrupt = c;
	block_set_watch(d->node, &c->watch);
}

static struct drive *add_drive(struct resources *r, const char *id, struct block_node *node)
{
	struct drive *d = xcalloc(1, sizeof(*d)), **p = &r->drives;

	d->id = xstrdup(id);
	d->node = node;
	d->throttles = r->throttles;
	d->rerror = BLOCK_ERR_REPORT;
	d->werror = BLOCK_ERR_ENOSPC;
	while (*p)
		p = &(*p)->next;
	*p = d;
	if (node)
		watch_drive(r, d);
	return d;
}

/* drive= names a -drive, or a -blockdev, which becomes a drive with the default policy. */
static struct drive *resolve_drive(struct resources *r, const char *name, struct error **err)
{
	struct drive *d = find_drive(r, name);
	struct block_node *node;

	if (!d) {
		node = find_node(r, name);
		if (!node)
			return NULL;
		block_ref(node);
		d = add_drive(r, name, node);
	}
	if (d->taken_by) {
		error_set(err, "Drive '%s' is already in use by another block device", name);
		return NULL;
	}
	return d;
}

/* netdev= names a back end that no other device has. */
static struct netdev *resolve_netdev(struct resources *r, const char *name, struct error **err)
{
	struct netdev *nd = netdevs_find(&r->netdevs, name);

	if (nd && nd->peer) {
		error_set(err, "Property 'netdev' can't take value '%s', it's in use", name);
		return NULL;
	}
	return nd;
}

static void *resolve(void *opaque, const struct prop *prop, const char *name, struct error **err)
{
	struct resources *r = opaque;

	switch (prop->type) {
	case PROP_DRIVE:
		return resolve_drive(r, name, err);
	case PROP_CHARDEV:
		return chardevs_take(r->chardevs, name, err);
	case PROP_NETDEV:
		return resolve_netdev(r, name, err);
	case PROP_IOTHREAD:
		for (struct named_thread *t = r->threads; t; t = t->next)
			if (!strcmp(t->thread->id, name))
				return t->thread;
		return NULL;
	case PROP_BACKEND:
		for (struct named_rng *g = r->rngs; g; g = g->next)
			if (!strcmp(g->backend->id, name))
				return g->backend;
		return NULL;
	default:
		return NULL;
	}
}

static struct chardev *take_chardev(void *opaque, const char *id, struct error **err)
{
	struct resources *r = opaque;

	return chardevs_take(r->chardevs, id, err);
}

static void release_chardev(void *opaque, struct chardev *c)
{
	struct resources *r = opaque;

	chardevs_release(r->chardevs, c);
}

static bool wait_chardev(void *opaque, struct chardev *c, struct error **err)
{
	struct resources *r = opaque;

	if (c->open || !r->opened)
		return chardevs_wait(r->chardevs, c, c->id, err);
	error_set(err, "nobody is connected to chardev '%s'", c->id);
	return false;
}

void resources_init(struct resources *r, struct vm *vm, struct chardevs *chardevs)
{
	const struct net_context net = {.loop = vm->loop,
					.take_chardev = take_chardev,
					.release_chardev = release_chardev,
					.wait_chardev = wait_chardev,
					.opaque = r};

	*r = (struct resources){.vm = vm,
				.chardevs = chardevs,
				.throttles = throttle_groups_new(),
				.objects = objects_new()};
	netdevs_init(&r->netdevs, &net);
	vm->resolver = (struct prop_resolver){ .resolve = resolve, .opaque = r };
}

/* -object */

struct polling {
	struct evloop *loop;
	uint64_t ns;
};

static void set_polling(void *opaque)
{
	const struct polling *p = opaque;

	evloop_set_poll_ns(p->loop, MIN(p->ns, (uint64_t)INT64_MAX));
}

static bool add_iothread(struct resources *r, struct opts *opts, const char *id,
			 struct error **err)
{
	static const char *const known[] = { "qom-type", "id", "poll-max-ns" };
	struct polling polling = { 0 };
	struct named_thread *t;

	if (!opts_get_u64(opts, "poll-max-ns", &polling.ns, err) ||
	    !opts_check_used(opts, known, ARRAY_SIZE(known), err))
		return false;
	t = xcalloc(1, sizeof(*t));
	t->thread = iothread_new(id, err);
	if (!t->thread) {
		free(t);
		return false;
	}
	polling.loop = t->thread->loop;
	evloop_call(polling.loop, set_polling, &polling);
	t->next = r->threads;
	r->threads = t;
	return true;
}

static bool add_rng(struct resources *r, struct opts *opts, const char *id, bool builtin,
		    struct error **err)
{
	static const char *const known[] = { "qom-type", "id", "filename" };
	const char *filename = builtin ? NULL : opts_get(opts, "filename");
	struct rng_backend *backend;
	struct named_rng *g;

	if (!opts_check_used(opts, known, ARRAY_SIZE(known), err))
		return false;
	backend = builtin ? rng_builtin_new(id) : rng_random_new(id, filename, err);
	if (!backend)
		return false;
	g = xcalloc(1, sizeof(*g));
	g->backend = backend;
	g->next = r->rngs;
	r->rngs = g;
	return true;
}

static bool add_throttle_group(struct resources *r, struct opts *opts, const char *id,
			       struct error **err)
{
	return throttle_groups_add(r->throttles, id, opts, err) &&
	       opts_check_used(opts, NULL, 0, err);
}

/* Filters come after the back ends that they look at. */
static bool is_filter(const struct opts *opts)
{
	return !strcmp(opts_peek(opts, "qom-type"), "filter-dump");
}

static bool add_dump(struct resources *r, struct opts *opts, struct error **err)
{
	static const char *const known[] = {"qom-type", "id",	   "netdev",
					    "file",	"maxlen", "queue"};
	const char *name = opts_get(opts, "netdev");
	struct netdev *nd;
	struct named_dump *d;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		opts_get(opts, known[i]);
	/* Before the file is emptied for a misspelt option's sake. */
	if (!opts_check_used(opts, known, ARRAY_SIZE(known), err))
		return false;
	nd = name ? netdevs_find(&r->netdevs, name) : NULL;
	if (!name)
		error_set(err, "Parameter 'netdev' is missing");
	else if (!nd)
		error_set(err, "there is no netdev '%s'", name);
	if (!nd)
		return false;
	d = xcalloc(1, sizeof(*d));
	d->dump = net_dump_new(nd, opts, err);
	d->next = r->dumps;
	r->dumps = d;
	return d->dump != NULL;
}

static bool add_filters(struct resources *r, const struct vm_config *config, struct error **err)
{
	for (size_t i = 0; i < config->objects.count; i++) {
		struct config_item *item = &config->objects.items[i];

		if (is_filter(&item->opts) && !add_dump(r, &item->opts, err)) {
			error_prefix(err, "%s: ", item->from);
			return false;
		}
	}
	return true;
}

static bool add_object(struct resources *r, struct opts *opts, struct error **err)
{
	static const char *const types[] = { "iothread", "rng-random", "rng-builtin",
					     "throttle-group" };
	const char *type = opts_get(opts, "qom-type"), *id = opts_get(opts, "id"), *nearest;

	if (!id) {
		error_set(err, "Parameter 'id' is missing");
		return false;
	}
	if (!strcmp(type, "iothread"))
		return add_iothread(r, opts, id, err);
	if (!strcmp(type, "rng-random") || !strcmp(type, "rng-builtin"))
		return add_rng(r, opts, id, !strcmp(type, "rng-builtin"), err);
	if (!strcmp(type, "throttle-group"))
		return add_throttle_group(r, opts, id, err);
	if (memory_backend_is_type(type))
		return memory_backends_add(&r->memory, opts, &r->memory_defaults, err);
	if (objects_type(type))
		return objects_add(r->objects, opts, err);
	nearest = nearest_name(type, types, ARRAY_SIZE(types));
	error_set(err, "objects of type '%s' are not supported%s%s%s", type,
		  nearest ? " (did you mean '" : "", nearest ? nearest : "",
		  nearest ? "'?)" : "");
	return false;
}

/* -blockdev, -drive */

static bool add_blockdev(struct resources *r, struct opts *opts, struct error **err)
{
	struct block_names names = {
		.find = find_node, .opaque = r, .throttles = r->throttles, .objects = r->objects};
	struct named_node *n;
	struct block_node *node;

	if (!opts_has(opts, "node-name")) {
		error_set(err, "'node-name' must be specified for the root node");
		return false;
	}
	if (find_node(r, opts_peek(opts, "node-name"))) {
		error_set(err, "Duplicate nodes with node-name='%s'", opts_peek(opts, "node-name"));
		return false;
	}
	node = block_open_blockdev(r->vm->loop, opts, &names, err);
	if (!node)
		return false;
	n = xcalloc(1, sizeof(*n));
	n->node = node;
	n->next = r->nodes;
	r->nodes = n;
	return true;
}

static bool add_config_drive(struct resources *r, const struct config_drive *c,
			     struct error **err)
{
	const struct block_names names = {.throttles = r->throttles, .objects = r->objects};
	struct block_node *node = NULL;
	struct drive *d;

	if (throttle_asked(&c->block) && (c->cdrom || !c->has_medium)) {
		error_set(err, "limits on a drive whose medium can change are not supported");
		return false;
	}
	if (c->has_medium) {
		node = block_open_drive(r->vm->loop, c->id, (struct opts *)&c->block, &names, err);
		if (!node)
			return false;
	}
	d = add_drive(r, c->id, node);
	d->cdrom = c->cdrom;
	d->rerror = (enum block_on_error)c->rerror;
	d->werror = (enum block_on_error)c->werror;
	d->serial = c->serial ? xstrdup(c->serial) : NULL;
	return true;
}

/* Memory that the options do not name as an object. */
static bool add_default_ram(struct resources *r, const struct vm_config *config,
			    struct error **err)
{
	const struct config_memory *m = &config->memory;
	struct memory_backend *mb;

	if (m->path) {
		struct opts opts = {0};
		char size[24];

		snprintf(size, sizeof(size), "%" PRIu64, m->size);
		opts_add(&opts, "qom-type", "memory-backend-file");
		opts_add(&opts, "id", "pc.ram");
		opts_add(&opts, "size", size);
		opts_add(&opts, "mem-path", m->path);
		opts_add(&opts, "share", r->vm->shared_ram ? "on" : "off");
		bool ok = memory_backends_add(&r->memory, &opts, &r->memory_defaults, err);

		opts_free(&opts);
		if (!ok)
			error_prefix(err, "-mem-path %s: ", m->path);
		return ok;
	}
	mb = memory_backend_new(m->size, r->vm->shared_ram, &r->memory_defaults, err);
	if (!mb) {
		error_prefix(err, "-m %" PRIu64 "M: ", m->size >> 20);
		return false;
	}
	mb->next = r->memory;
	r->memory = mb;
	return true;
}

struct memory_backend *resources_ram(struct resources *r, const struct vm_config *config,
				     struct error **err)
{
	const char *id = config->machine.memory_backend;
	struct memory_backend *mb;

	if (!id)
		return add_default_ram(r, config, err) ? r->memory : NULL;
	mb = memory_backends_find(r->memory, id);
	if (!mb)
		error_set(err, "there is no memory backend '%s'", id);
	else if (config->memory.path)
		error_set(err, "-mem-path does not go with memory backend '%s'", id);
	else if (config->memory.from && config->memory.size != mb->size)
		error_set(err, "%s: memory backend '%s' has %" PRIu64 "M", config->memory.from, id,
			  mb->size >> 20);
	else if (r->vm->shared_ram && (!mb->share || mb->fd < 0))
		error_set(err,
			  "memory backend '%s' cannot be shared with a vhost-user back end (a "
			  "memfd or a file with share=on can)", id);
	else
		return mb;
	return NULL;
}

bool resources_open(struct resources *r, const struct vm_config *config, struct error **err)
{
	r->memory_defaults = (struct memory_defaults){.merge = config->machine.mem_merge,
						      .dump = config->machine.dump_guest_core,
						      .prealloc = config->memory.prealloc};
	for (size_t i = 0; i < config->objects.count; i++) {
		struct config_item *item = &config->objects.items[i];

		if (!is_filter(&item->opts) && !add_object(r, &item->opts, err)) {
			error_prefix(err, "%s: ", item->from);
			return false;
		}
	}
	for (size_t i = 0; i < config->blockdevs.count; i++) {
		struct config_item *item = &config->blockdevs.items[i];

		if (!add_blockdev(r, &item->opts, err)) {
			error_prefix(err, "%s: ", item->from);
			return false;
		}
	}
	for (size_t i = 0; i < config->drive_count; i++) {
		if (!add_config_drive(r, &config->drives[i], err)) {
			error_prefix(err, "%s: ", config->drives[i].from);
			return false;
		}
	}
	for (size_t i = 0; i < config->netdevs.count; i++) {
		struct config_item *item = &config->netdevs.items[i];

		if (!netdevs_add(&r->netdevs, &item->opts, err)) {
			error_prefix(err, "%s: ", item->from);
			return false;
		}
	}
	for (const struct netdev *nd = r->netdevs.first; nd; nd = nd->next)
		if (nd->vhost.kind == NET_VHOST_USER)
			r->vm->shared_ram = true;
	r->opened = true;
	return add_filters(r, config, err);
}

void resources_check_use(const struct resources *r)
{
	for (const struct netdev *nd = r->netdevs.first; nd; nd = nd->next)
		if (!nd->peer)
			log_warn("netdev %s has no peer", nd->id);
}

void resources_close(struct resources *r)
{
	while (r->dumps) {
		struct named_dump *d = r->dumps;

		r->dumps = d->next;
		net_dump_free(d->dump);
		free(d);
	}
	netdevs_destroy(&r->netdevs);
	while (r->drives) {
		struct drive *d = r->drives;

		r->drives = d->next;
		if (d->node) {
			int ret = block_flush(d->node);

			if (ret < 0)
				log_error("drive '%s': %s", d->id, strerror(-ret));
			block_unref(d->node);
		}
		free(d->serial);
		free(d->id);
		free(d);
	}
	while (r->nodes) {
		struct named_node *n = r->nodes;

		r->nodes = n->next;
		block_unref(n->node);
		free(n);
	}
	while (r->rngs) {
		struct named_rng *g = r->rngs;

		r->rngs = g->next;
		rng_backend_free(g->backend);
		free(g);
	}
	while (r->threads) {
		struct named_thread *t = r->threads;

		r->threads = t->next;
		iothread_free(t->thread);
		free(t);
	}
	while (r->corrupt) {
		struct corrupt_drive *c = r->corrupt;

		r->corrupt = c->next;
		evloop_unpost(r->vm->loop, &c->work);
		free(c->id);
		free(c);
	}
	throttle_groups_free(r->throttles);
	r->throttles = NULL;
	objects_free(r->objects);
	r->objects = NULL;
	while (r->memory) {
		struct memory_backend *mb = r->memory;

		r->memory = mb->next;
		memory_backend_free(mb);
	}
}
