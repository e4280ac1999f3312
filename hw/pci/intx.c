/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupt pins: from a device through the bridges above it to an input of the root, which is high
 * while anybody holds it up. PCI Local Bus 3.0, 2.2.6; PCI-to-PCI Bridge 1.2, 9.1.
 *
 * Any thread, under root->intx_lock. Bridges above a device do not change while it is there.
 */
#include "hw/pci/internal.h"

unsigned pci_intx_input(const struct pci_device *dev)
{
	const struct pci_root *root = dev->bus->root;
	unsigned pin = dev->info->intx_pin - 1;

	for (; dev->bus->bridge; dev = dev->bus->bridge)
		pin = (pin + PCI_SLOT(dev->devfn)) % PCI_PINS;
	return root->ops->map_intx(root->opaque, dev->devfn, pin) % PCI_ROOT_INPUTS;
}

static void hold(struct pci_device *dev, int input)
{
	struct pci_root *root = dev->bus->root;
	int old = dev->intx_asserted;

	if (input == old)
		return;
	dev->intx_asserted = input;
	if (input >= 0 && root->input_count[input]++ == 0)
		root->ops->set_intx(root->opaque, input, true);
	if (old >= 0 && --root->input_count[old] == 0)
		root->ops->set_intx(root->opaque, old, false);
}

static void evaluate(struct pci_device *dev)
{
	if (!dev->bus->root->ops)
		return;
	if (!dev->intx_level || !dev->intx_allowed)
		hold(dev, -1);
	else if (dev->intx_asserted < 0)
		hold(dev, pci_intx_input(dev));
}

void pci_irq_set(struct pci_device *dev, bool level)
{
	struct pci_root *root = dev->bus->root;

	if (!dev->info->intx_pin)
		return;
	pthread_mutex_lock(&root->intx_lock);
	if (dev->intx_level != level) {
		dev->intx_level = level;
		evaluate(dev);
	}
	pthread_mutex_unlock(&root->intx_lock);
}

void pci_intx_set_allowed(struct pci_device *dev, bool allowed)
{
	struct pci_root *root = dev->bus->root;

	if (!dev->info->intx_pin)
		return;
	pthread_mutex_lock(&root->intx_lock);
	if (dev->intx_allowed != allowed) {
		dev->intx_allowed = allowed;
		evaluate(dev);
	}
	pthread_mutex_unlock(&root->intx_lock);
}

bool pci_intx_level(struct pci_device *dev)
{
	struct pci_root *root = dev->bus->root;
	bool level;

	pthread_mutex_lock(&root->intx_lock);
	level = dev->intx_level;
	pthread_mutex_unlock(&root->intx_lock);
	return level;
}

void pci_intx_restored(struct pci_device *dev)
{
	struct pci_root *root = dev->bus->root;

	pthread_mutex_lock(&root->intx_lock);
	if (!dev->info->intx_pin)
		dev->intx_level = false;
	else
		evaluate(dev);
	pthread_mutex_unlock(&root->intx_lock);
}

static void reroute(struct pci_bus *bus)
{
	for (unsigned i = 0; i < PCI_DEVFNS; i++) {
		struct pci_device *dev = bus->devices[i];
		struct pci_bus *below;

		if (!dev || !dev->initialised)
			continue;
		if (dev->intx_asserted >= 0)
			hold(dev, pci_intx_input(dev));
		below = pci_bridge_secondary(dev);
		if (below)
			reroute(below);
	}
}

void pci_root_intx_rerouted(struct pci_root *root)
{
	pthread_mutex_lock(&root->lock);
	pthread_mutex_lock(&root->intx_lock);
	reroute(&root->bus);
	pthread_mutex_unlock(&root->intx_lock);
	pthread_mutex_unlock(&root->lock);
}
