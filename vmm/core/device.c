/* SPDX-License-Identifier: Apache-2.0 */
/* A device's life, from its descriptor to its end; see device.h. Main thread. */
#include "vmm/core/device.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/log.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

/* Whether a name on the command line means this kind of device. */
static bool is_named(const struct device_desc *desc, const char *name, size_t len)
{
	return (!strncmp(desc->name, name, len) && !desc->name[len]) ||
	       (desc->alias && !strncmp(desc->alias, name, len) && !desc->alias[len]);
}

const struct device_desc *device_desc_find(const struct vm *vm, const char *name)
{
	const struct device_desc *const *d = vm->device_table;

	for (; d && *d; d++)
		if (is_named(*d, name, strlen(name)))
			return *d;
	return NULL;
}

/* The first that cannot be had is told by device_realize(). */
static void apply_globals(struct device *dev)
{
	struct opts *globals = &dev->vm->globals;

	for (size_t i = 0; i < globals->count; i++) {
		struct opt *o = &globals->items[i];
		size_t len = strcspn(o->key, ".");
		struct error **err = &dev->global_error;

		if (!o->key[len] || !is_named(dev->desc, o->key, len))
			continue;
		o->used = true;
		if (!*err && !device_set(dev, o->key + len + 1, o->value, err))
			error_prefix(err, "-global %s=%s: ", o->key, o->value);
	}
}

void device_check_globals(const struct vm *vm)
{
	for (size_t i = 0; i < vm->globals.count; i++) {
		const struct opt *o = &vm->globals.items[i];
		const struct device_desc *const *d = vm->device_table;
		size_t len = strcspn(o->key, ".");

		while (d && *d && !is_named(*d, o->key, len))
			d++;
		if (!d || !*d)
			log_warn("-global %s=%s: there is no device '%.*s'", o->key, o->value,
				 (int)len, o->key);
		else if (!o->used && !(*d)->hotpluggable)
			log_warn("-global %s=%s: no such device is in use", o->key, o->value);
	}
}

struct device *device_new(struct vm *vm, const struct device_desc *desc, const char *id)
{
	struct device *dev = xcalloc(1, desc->size);

	dev->desc = desc;
	dev->vm = vm;
	dev->id = id ? xstrdup(id) : NULL;
	prop_set_defaults(desc->props, dev);
	if (desc->init)
		desc->init(dev);
	apply_globals(dev);
	return dev;
}

bool device_set(struct device *dev, const char *name, const char *value, struct error **err)
{
	return prop_assign(dev->desc->props, dev, name, value, &dev->vm->resolver, err);
}

const char *device_label(const struct device *dev)
{
	return dev->id ? dev->id : dev->desc->name;
}

bool device_realize(struct device *dev, struct bus *bus, struct error **err)
{
	struct device **p;

	if (dev->global_error) {
		error_propagate(err, dev->global_error);
		dev->global_error = NULL;
		return false;
	}
	if (bus && bus->attach && !bus->attach(bus, dev, err))
		return false;
	dev->bus = bus;
	if (dev->desc->realize && !dev->desc->realize(dev, err)) {
		if (bus && bus->detach)
			bus->detach(bus, dev);
		dev->bus = NULL;
		return false;
	}
	if (bus) {
		for (p = &bus->first; *p; p = &(*p)->next_on_bus)
			;
		*p = dev;
	}
	for (p = &dev->vm->devices; *p; p = &(*p)->next)
		;
	*p = dev;
	dev->realized = true;
	if (dev->hotplugged && dev->desc->reset)
		dev->desc->reset(dev);
	if (bus && bus->plugged)
		bus->plugged(bus, dev);
	return true;
}

bool device_unplug(struct device *dev, struct error **err)
{
	if (!dev->desc->hotpluggable) {
		error_set(err, "Device '%s' does not support hotplugging", device_label(dev));
		return false;
	}
	if (dev->unplug_pending) {
		error_set(err, "Device %s is already in the process of unplug", device_label(dev));
		return false;
	}
	if (dev->desc->unplug) {
		dev->unplug_pending = true;
		if (!dev->desc->unplug(dev, err)) {
			dev->unplug_pending = false;
			return false;
		}
		return true;
	}
	device_unplugged(dev);
	return true;
}

void device_unplugged(struct device *dev)
{
	struct vm *vm = dev->vm;
	char *id;

	if (vm->device_holds) {
		dev->unplug_due = true;
		return;
	}
	id = xstrdup(dev->id ? dev->id : "");
	device_hold(vm);
	device_free(dev);
	device_release(vm);
	vm_send_event(vm, &(struct vm_event){.kind = VM_EVENT_DEVICE_DELETED, .device = id});
	free(id);
}

void device_hold(struct vm *vm)
{
	vm->device_holds++;
}

void device_release(struct vm *vm)
{
	if (--vm->device_holds)
		return;
	/* Whoever held them may still look at one: they go in the loop's next turn. */
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->unplug_due)
			evloop_post(vm->loop, &vm->unplug_work);
}

void device_unplug_due(struct vm *vm)
{
	struct device *d = vm->devices;

	while (d && !vm->device_holds) {
		if (!d->unplug_due) {
			d = d->next;
			continue;
		}
		d->unplug_due = false;
		device_unplugged(d);
		d = vm->devices; /* others may have gone with it */
	}
}

static void unlink_device(struct device *dev)
{
	struct device **p;

	for (p = &dev->vm->devices; *p && *p != dev; p = &(*p)->next)
		;
	if (*p)
		*p = dev->next;
	if (!dev->bus)
		return;
	for (p = &dev->bus->first; *p && *p != dev; p = &(*p)->next_on_bus)
		;
	if (*p)
		*p = dev->next_on_bus;
}

void device_free(struct device *dev)
{
	if (!dev)
		return;
	if (dev->realized) {
		if (dev->desc->unrealize)
			dev->desc->unrealize(dev);
		unlink_device(dev);
		if (dev->bus && dev->bus->detach)
			dev->bus->detach(dev->bus, dev);
		dev->realized = false;
	}
	if (dev->desc->destroy)
		dev->desc->destroy(dev);
	prop_release(dev->desc->props, dev);
	error_free(dev->global_error);
	free(dev->id);
	free(dev);
}

struct device *device_find(const struct vm *vm, const char *id)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->id && !strcmp(d->id, id))
			return d;
	return NULL;
}

static void unknown_device(const struct vm *vm, const char *name, struct error **err)
{
	const char *names[512], *nearest;
	size_t count = 0;

	for (const struct device_desc *const *d = vm->device_table; d && *d; d++) {
		if ((*d)->internal || count + 2 > ARRAY_SIZE(names))
			continue;
		names[count++] = (*d)->name;
		if ((*d)->alias)
			names[count++] = (*d)->alias;
	}
	nearest = nearest_name(name, names, count);
	error_set(err, "'%s' is not a valid device model name%s%s%s", name,
		  nearest ? " (did you mean '" : "", nearest ? nearest : "", nearest ? "'?)" : "");
}

static bool choose_bus(struct vm *vm, const struct device_desc *desc, const char *name,
		       struct bus **out, struct error **err)
{
	struct bus *bus;

	*out = NULL;
	if (!desc->bus) {
		if (name)
			error_set(err, "Device '%s' can't go on a bus", desc->name);
		return !name;
	}
	bus = name ? bus_find(vm, name) : bus_find_type(vm, desc->bus);
	if (!bus && name)
		error_set(err, "Bus '%s' not found", name);
	else if (!bus)
		error_set(err, "No '%s' bus with a free place found for device '%s'", desc->bus,
			  desc->name);
	else if (strcmp(bus->type, desc->bus))
		error_set(err, "Device '%s' can't go on %s bus", desc->name, bus->type);
	else
		*out = bus;
	return *out != NULL;
}

/* What must be known before others: a place that properties of the bus's own depend on. */
static bool set_all(struct device *dev, struct opts *opts, struct error **err)
{
	for (size_t i = 0; i < opts->count; i++) {
		struct opt *o = &opts->items[i];

		if (!strcmp(o->key, "driver") || !strcmp(o->key, "id") || !strcmp(o->key, "bus"))
			continue;
		o->used = true;
		if (!device_set(dev, o->key, o->value, err))
			return false;
	}
	return true;
}

static bool id_is_well_formed(const char *id)
{
	if (!((*id >= 'a' && *id <= 'z') || (*id >= 'A' && *id <= 'Z')))
		return false;
	for (; *id; id++)
		if (!((*id >= 'a' && *id <= 'z') || (*id >= 'A' && *id <= 'Z') ||
		      (*id >= '0' && *id <= '9') || strchr("-._", *id)))
			return false;
	return true;
}

struct device *device_add(struct vm *vm, struct opts *opts, struct error **err)
{
	const char *name = opts_get(opts, "driver"), *id = opts_get(opts, "id");
	const struct device_desc *desc;
	struct device *dev;
	struct bus *bus;

	if (!name || !*name) {
		error_set(err, "Parameter 'driver' is missing");
		return NULL;
	}
	desc = device_desc_find(vm, name);
	if (!desc) {
		unknown_device(vm, name, err);
		return NULL;
	}
	if (desc->internal) {
		error_set(err, "Device '%s' belongs to the board and can't be added", name);
		return NULL;
	}
	if (id && !id_is_well_formed(id)) {
		error_set(err, "Parameter 'id' expects an identifier (letters, digits, '-', '.', "
			       "'_', starting with a letter)");
		return NULL;
	}
	if (id && device_find(vm, id)) {
		error_set(err, "Duplicate device ID '%s'", id);
		return NULL;
	}
	if (!choose_bus(vm, desc, opts_get(opts, "bus"), &bus, err))
		return NULL;
	dev = device_new(vm, desc, id);
	dev->hotplugged = vm->launched;
	if (dev->hotplugged && !desc->hotpluggable) {
		error_set(err, "Device '%s' does not support hotplugging", name);
		goto fail;
	}
	if (!set_all(dev, opts, err) || !device_realize(dev, bus, err))
		goto fail;
	return dev;
fail:
	device_free(dev);
	return NULL;
}

/* Buses */

void bus_init(struct vm *vm, struct bus *bus, const char *type, const char *name,
	      struct device *owner)
{
	struct bus **p;

	bus->type = type;
	bus->name = xstrdup(name);
	bus->owner = owner;
	bus->first = NULL;
	bus->next = NULL;
	for (p = &vm->buses; *p; p = &(*p)->next)
		;
	*p = bus;
}

void bus_destroy(struct vm *vm, struct bus *bus)
{
	struct bus **p;

	if (!bus->name)
		return;
	while (bus->first)
		device_free(bus->first);
	for (p = &vm->buses; *p && *p != bus; p = &(*p)->next)
		;
	if (*p)
		*p = bus->next;
	free(bus->name);
	bus->name = NULL;
}

struct bus *bus_find(const struct vm *vm, const char *name)
{
	for (struct bus *b = vm->buses; b; b = b->next)
		if (!strcmp(b->name, name))
			return b;
	return NULL;
}

struct bus *bus_find_type(const struct vm *vm, const char *type)
{
	for (struct bus *b = vm->buses; b; b = b->next)
		if (!strcmp(b->type, type) && (!b->has_room || b->has_room(b)))
			return b;
	return NULL;
}

void bus_reset(struct bus *bus)
{
	for (struct device *d = bus->first; d; d = d->next_on_bus)
		if (d->desc->reset)
			d->desc->reset(d);
}
