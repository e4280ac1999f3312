/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buses and their root: who sits in which slot, and who is seen. Main thread; what changes is
 * changed under root->lock.
 */
#include <stdlib.h>
#include <string.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

static struct pci_bus *pci_bus_of(struct bus *bus)
{
	return container_of(bus, struct pci_bus, bus);
}

static bool slot_is_free(const struct pci_bus *bus, unsigned slot)
{
	for (unsigned f = 0; f < PCI_FUNCTIONS; f++)
		if (bus->devices[PCI_DEVFN(slot, f)])
			return false;
	return true;
}

static int find_slot(const struct pci_bus *bus)
{
	for (unsigned slot = bus->first_slot; slot <= bus->last_slot; slot++)
		if (slot_is_free(bus, slot))
			return slot;
	return -1;
}

static bool has_room(struct bus *bus)
{
	return find_slot(pci_bus_of(bus)) >= 0;
}

/* A slot with several functions says so in function 0, which is where guests look. */
static bool check_functions(const struct pci_bus *bus, const struct pci_device *dev, uint8_t devfn,
			    struct error **err)
{
	unsigned slot = PCI_SLOT(devfn);
	const struct pci_device *zero = bus->devices[PCI_DEVFN(slot, 0)];

	if (PCI_FUNC(devfn)) {
		if (zero && !zero->multifunction) {
			error_set(err,
				  "function %02x.%x of bus '%s' needs multifunction=on in function "
				  "0 ('%s')",
				  slot, PCI_FUNC(devfn), bus->bus.name, device_label(&zero->dev));
			return false;
		}
		if (zero && dev->dev.hotplugged) {
			error_set(err,
				  "slot %02x of bus '%s' is in use: its functions must be added "
				  "before function 0 ('%s')",
				  slot, bus->bus.name, device_label(&zero->dev));
			return false;
		}
		return true;
	}
	if (!dev->multifunction && !slot_is_free(bus, slot)) {
		error_set(err,
			  "slot %02x of bus '%s' has other functions: multifunction=on is needed",
			  slot, bus->bus.name);
		return false;
	}
	return true;
}

static bool choose_devfn(const struct pci_bus *bus, const struct pci_device *dev, uint8_t *devfn,
			 struct error **err)
{
	const struct pci_device *other;
	int slot;

	if (dev->addr < 0) {
		slot = find_slot(bus);
		if (slot < 0) {
			error_set(err, "no free slot on bus '%s' for %s", bus->bus.name,
				  dev->dev.desc->name);
			return false;
		}
		*devfn = PCI_DEVFN(slot, 0);
		return true;
	}
	if (dev->addr >= PCI_DEVFNS || PCI_SLOT(dev->addr) > bus->last_slot) {
		error_set(err, "bus '%s' has no slot %02x", bus->bus.name,
			  (unsigned)dev->addr >> 3);
		return false;
	}
	*devfn = dev->addr;
	other = bus->devices[*devfn];
	if (other) {
		error_set(err, "function %02x.%x of bus '%s' is in use by '%s'", PCI_SLOT(*devfn),
			  PCI_FUNC(*devfn), bus->bus.name, device_label(&other->dev));
		return false;
	}
	return check_functions(bus, dev, *devfn, err);
}

static bool attach(struct bus *b, struct device *d, struct error **err)
{
	struct pci_bus *bus = pci_bus_of(b);
	struct pci_device *dev = pci_device_of(d);
	uint8_t devfn;

	if (dev->dev.hotplugged && (!bus->hotplug || !bus->hotplug->unplug_request)) {
		error_set(err, "Bus '%s' does not support hotplugging", b->name);
		return false;
	}
	if (!choose_devfn(bus, dev, &devfn, err))
		return false;
	pthread_mutex_lock(&bus->root->lock);
	dev->bus = bus;
	dev->devfn = devfn;
	dev->addr = devfn;
	bus->devices[devfn] = dev;
	pthread_mutex_unlock(&bus->root->lock);
	return true;
}

static void detach(struct bus *b, struct device *d)
{
	struct pci_bus *bus = pci_bus_of(b);
	struct pci_device *dev = pci_device_of(d);

	pthread_mutex_lock(&bus->root->lock);
	bus->devices[dev->devfn] = NULL;
	pthread_mutex_unlock(&bus->root->lock);
	if (d->realized && bus->hotplug && bus->hotplug->unplugged)
		bus->hotplug->unplugged(bus, dev);
}

static void plugged(struct bus *b, struct device *d)
{
	struct pci_bus *bus = pci_bus_of(b);
	struct pci_device *dev = pci_device_of(d);

	pthread_mutex_lock(&bus->root->lock);
	memcpy(dev->initial, dev->config, dev->config_size);
	dev->visible = true;
	pci_device_sync(dev);
	pthread_mutex_unlock(&bus->root->lock);
	if (bus->hotplug && bus->hotplug->plugged)
		bus->hotplug->plugged(bus, dev);
}

void pci_bus_init(struct vm *vm, struct pci_bus *bus, const char *name, struct pci_root *root,
		  struct pci_device *bridge, bool express)
{
	memset(bus, 0, sizeof(*bus));
	bus->root = root;
	bus->bridge = bridge;
	bus->express = express;
	bus->last_slot = PCI_SLOTS - 1;
	bus->bus.attach = attach;
	bus->bus.detach = detach;
	bus->bus.plugged = plugged;
	bus->bus.has_room = has_room;
	bus_init(vm, &bus->bus, "pci", name, bridge ? &bridge->dev : NULL);
}

void pci_bus_destroy(struct pci_bus *bus)
{
	if (bus->root)
		bus_destroy(bus->root->vm, &bus->bus);
}

bool pci_bus_for_each(struct pci_bus *bus, bool (*fn)(struct pci_device *dev, void *opaque),
		      void *opaque)
{
	for (unsigned i = 0; i < PCI_DEVFNS; i++) {
		struct pci_device *dev = bus->devices[i];
		struct pci_bus *below;

		if (!dev || !dev->initialised)
			continue;
		if (!fn(dev, opaque))
			return false;
		below = pci_bridge_secondary(dev);
		if (below && !pci_bus_for_each(below, fn, opaque))
			return false;
	}
	return true;
}

static bool sync_one(struct pci_device *dev, void *opaque)
{
	pci_device_sync(dev);
	return true;
}

void pci_bus_sync(struct pci_bus *bus)
{
	pci_bus_for_each(bus, sync_one, NULL);
}

static bool reset_one(struct pci_device *dev, void *opaque)
{
	pci_device_begin_reset(dev);
	return true;
}

void pci_bus_begin_reset(struct pci_bus *bus)
{
	pci_bus_for_each(bus, reset_one, NULL);
}

/* The root. */

void pci_root_init(struct pci_root *root, struct vm *vm, const char *name, bool express)
{
	memset(root, 0, sizeof(*root));
	root->vm = vm;
	pthread_mutex_init(&root->lock, NULL);
	pthread_mutex_init(&root->intx_lock, NULL);
	pci_bus_init(vm, &root->bus, name, root, NULL, express);
}

void pci_root_set_intx(struct pci_root *root, const struct pci_root_ops *ops, void *opaque)
{
	root->ops = ops;
	root->opaque = opaque;
}

void pci_root_destroy(struct pci_root *root)
{
	if (!root->vm)
		return;
	pci_bus_destroy(&root->bus);
	if (root->ports_mapped) {
		io_bus_remove(&root->vm->pio, &root->address_port);
		io_bus_remove(&root->vm->pio, &root->data_port);
	}
	if (root->ecam_mapped)
		io_bus_remove(&root->vm->mmio, &root->ecam);
	io_bus_quiesce(&root->vm->pio);
	io_bus_quiesce(&root->vm->mmio);
	pthread_mutex_destroy(&root->intx_lock);
	pthread_mutex_destroy(&root->lock);
	root->vm = NULL;
}
