/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices, the buses they sit on, and the one table that describes each kind.
 *
 * A descriptor is a `static const` object; all of them stand in vmm/devices.c. A device's struct
 * begins with struct device. Its life:
 *
 *   device_new()      zeroed, defaults, desc->init
 *   device_set()      properties from text
 *   device_realize()  the bus gives it a place (bus->attach), desc->realize makes it work,
 *                     bus->plugged shows it to the guest
 *   desc->reset       at power-on and at every reset of the machine or its bus
 *   device_unplug()   asks; desc->unplug talks to the guest, or NULL: at once
 *   device_free()     desc->unrealize (if realized), bus->detach, desc->destroy, freed
 *
 * Main thread, vCPUs running or not. A failed realize undoes itself; device_free() still applies.
 */
#ifndef VMM_CORE_DEVICE_H
#define VMM_CORE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "vmm/core/error.h"
#include "vmm/core/opts.h"
#include "vmm/core/prop.h"
#include "vmm/core/state.h"

struct vm;
struct device;

struct device_desc {
	const char *name;  /* "virtio-blk-pci" */
	const char *alias; /* another accepted name, or NULL */
	const char *help;  /* one line */
	const char *bus;   /* type of bus it sits on ("pci", "isa"), NULL: none */
	size_t size;	   /* of the device's struct */
	const struct prop_set *props;
	const struct state_desc *state;
	bool internal;	   /* made by boards only: not in -device */
	bool hotpluggable;
	void (*init)(struct device *dev);
	bool (*realize)(struct device *dev, struct error **err);
	void (*reset)(struct device *dev);
	/* Asks the guest to let go; the device calls device_free() through device_unplugged(). */
	bool (*unplug)(struct device *dev, struct error **err);
	void (*unrealize)(struct device *dev);
	void (*destroy)(struct device *dev);
};

/* Embedded in whoever has slots (a host bridge, a root port, an HBA). */
struct bus {
	const char *type; /* "pci" */
	char *name;	  /* "pcie.0"; owned */
	struct device *owner; /* NULL: the board */
	struct device *first;
	struct bus *next; /* in vm->buses */
	/* Finds or checks the place asked for in the device's properties. */
	bool (*attach)(struct bus *bus, struct device *dev, struct error **err);
	void (*detach)(struct bus *bus, struct device *dev);
	/* desc->realize succeeded: the guest may see it from now on. NULL: nothing to do. */
	void (*plugged)(struct bus *bus, struct device *dev);
	/* Whether a further device fits: what -device without bus= asks. NULL: always. */
	bool (*has_room)(struct bus *bus);
};

struct device {
	const struct device_desc *desc;
	struct vm *vm;
	struct bus *bus;
	char *id; /* owned; NULL when anonymous */
	bool realized;
	bool hotplugged;
	bool unplug_pending;
	struct error *global_error; /* of a -global that could not be set; device_realize() fails */
	bool unplug_due; /* let go while devices were held */
	struct device *next_on_bus;
	struct device *next; /* in vm->devices, in order of realization */
};

struct device *device_new(struct vm *vm, const struct device_desc *desc, const char *id);
bool device_set(struct device *dev, const char *name, const char *value, struct error **err);
/* bus NULL for devices whose desc->bus is NULL. */
bool device_realize(struct device *dev, struct bus *bus, struct error **err);
bool device_unplug(struct device *dev, struct error **err);
/* What desc->unplug calls, on the main loop, once the guest let go: tells vm->events, frees; later
 * if devices are held. */
void device_unplugged(struct device *dev);
/* Between the two no device is freed by its guest. Around what turns the main loop from inside a
 * device's function (waiting for requests in flight): what then runs may want to free that device.
 * Nests. */
void device_hold(struct vm *vm);
void device_release(struct vm *vm);
/* vm.c's: frees those that were let go meanwhile. */
void device_unplug_due(struct vm *vm);
void device_free(struct device *dev);

/* "NAME,id=,bus=,prop=...": finds the descriptor and the bus (bus= or the first of the right type
 * with room), makes, sets, realizes. Unknown names are answered with the nearest known one. */
struct device *device_add(struct vm *vm, struct opts *opts, struct error **err);
/* Once all devices are there: warns of each -global that nothing has taken or could take. */
void device_check_globals(const struct vm *vm);
const struct device_desc *device_desc_find(const struct vm *vm, const char *name);
struct device *device_find(const struct vm *vm, const char *id);
/* id, or the kind's name, for messages; valid as long as the device. */
const char *device_label(const struct device *dev);

void bus_init(struct vm *vm, struct bus *bus, const char *type, const char *name,
	      struct device *owner);
/* Frees the devices on it first. */
void bus_destroy(struct vm *vm, struct bus *bus);
struct bus *bus_find(const struct vm *vm, const char *name);
struct bus *bus_find_type(const struct vm *vm, const char *type);
void bus_reset(struct bus *bus);

#endif
