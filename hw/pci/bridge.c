/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all bridges share: header type 1, windows, the secondary bus and its reset. PCI-to-PCI
 * Bridge Architecture 1.2, 3.2 and 4. Registers under root->lock.
 */
#include <stdlib.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

enum { MIN_IO_WINDOW_MASK = 0xf0, MIN_MEM_WINDOW_MASK = 0xfff0, PREF_IS_64BIT = 1 };

struct pci_bus *pci_bridge_secondary(struct pci_device *dev)
{
	return dev->info && dev->info->bridge ? &((struct pci_bridge *)dev)->secondary : NULL;
}

static void registers_init(struct pci_device *dev)
{
	uint8_t *c = dev->config, *w = dev->wmask;

	w[PCI_PRIMARY_BUS] = w[PCI_SECONDARY_BUS] = w[PCI_SUBORDINATE_BUS] = 0xff;
	if (!dev->info->express)
		w[PCI_SEC_LATENCY_TIMER] = 0xff;
	w[PCI_IO_BASE] = w[PCI_IO_LIMIT] = MIN_IO_WINDOW_MASK;
	pci_set16(w + PCI_MEMORY_BASE, MIN_MEM_WINDOW_MASK);
	pci_set16(w + PCI_MEMORY_LIMIT, MIN_MEM_WINDOW_MASK);
	pci_set16(w + PCI_PREF_MEMORY_BASE, MIN_MEM_WINDOW_MASK);
	pci_set16(w + PCI_PREF_MEMORY_LIMIT, MIN_MEM_WINDOW_MASK);
	pci_set16(c + PCI_PREF_MEMORY_BASE, PREF_IS_64BIT);
	pci_set16(c + PCI_PREF_MEMORY_LIMIT, PREF_IS_64BIT);
	pci_set32(w + PCI_PREF_BASE_UPPER32, 0xffffffff);
	pci_set32(w + PCI_PREF_LIMIT_UPPER32, 0xffffffff);
	pci_set16(dev->w1cmask + PCI_SEC_STATUS, PCI_STATUS_W1C);
	pci_set16(w + PCI_BRIDGE_CONTROL, PCI_BRIDGE_CTL_PARITY | PCI_BRIDGE_CTL_SERR |
						  PCI_BRIDGE_CTL_ISA | PCI_BRIDGE_CTL_MASTER_ABORT |
						  PCI_BRIDGE_CTL_BUS_RESET);
}

bool pci_bridge_init(struct pci_bridge *br, const struct pci_info *info, bool express,
		     struct error **err)
{
	struct pci_device *dev = &br->pci;
	char *name;

	if (!pci_device_init(dev, info, err))
		return false;
	registers_init(dev);
	br->bus_reset_held = false;
	name = dev->dev.id ? xstrdup(dev->dev.id) : xasprintf("pci.%u", dev->serial);
	pci_bus_init(dev->dev.vm, &br->secondary, name, dev->bus->root, dev, express);
	br->secondary.first_slot = express ? 0 : 1;
	free(name);
	return true;
}

void pci_bridge_exit(struct pci_bridge *br)
{
	if (!br->pci.initialised)
		return;
	pci_bus_destroy(&br->secondary);
	pci_device_exit(&br->pci);
}

static bool bus_reset_held(const struct pci_device *dev)
{
	return dev->config[PCI_BRIDGE_CONTROL] & PCI_BRIDGE_CTL_BUS_RESET;
}

void pci_bridge_config_written(struct pci_device *dev, unsigned offset, unsigned size)
{
	struct pci_bridge *br = (struct pci_bridge *)dev;

	if (!pci_touches(offset, size, PCI_BRIDGE_CONTROL, 1) ||
	    br->bus_reset_held == bus_reset_held(dev))
		return;
	br->bus_reset_held = bus_reset_held(dev);
	if (br->bus_reset_held)
		pci_bus_begin_reset(&br->secondary);
}

static bool in_window(uint64_t base, uint64_t limit, uint64_t addr, uint64_t size)
{
	return base <= limit && addr >= base && addr <= limit && size - 1 <= limit - addr;
}

static bool forwards_io(const uint8_t *c, uint64_t addr, uint64_t size)
{
	uint64_t base = (uint64_t)(c[PCI_IO_BASE] & 0xf0) << 8;
	uint64_t limit = (uint64_t)(c[PCI_IO_LIMIT] & 0xf0) << 8 | 0xfff;

	/* With ISA enable the upper 768 bytes of each KiB stay on the primary side. */
	if (c[PCI_BRIDGE_CONTROL] & PCI_BRIDGE_CTL_ISA && (addr & 0x3ff) + size > 0x100)
		return false;
	return in_window(base, limit, addr, size);
}

static bool forwards_memory(const uint8_t *c, uint64_t addr, uint64_t size)
{
	uint64_t base = (uint64_t)(pci_get16(c + PCI_MEMORY_BASE) & 0xfff0) << 16;
	uint64_t limit = (uint64_t)(pci_get16(c + PCI_MEMORY_LIMIT) & 0xfff0) << 16 | 0xfffff;

	if (in_window(base, limit, addr, size))
		return true;
	base = (uint64_t)(pci_get16(c + PCI_PREF_MEMORY_BASE) & 0xfff0) << 16 |
	       (uint64_t)pci_get32(c + PCI_PREF_BASE_UPPER32) << 32;
	limit = (uint64_t)(pci_get16(c + PCI_PREF_MEMORY_LIMIT) & 0xfff0) << 16 | 0xfffff |
		(uint64_t)pci_get32(c + PCI_PREF_LIMIT_UPPER32) << 32;
	return in_window(base, limit, addr, size);
}

bool pci_bridge_forwards(const struct pci_device *dev, bool io, uint64_t addr, uint64_t size)
{
	uint16_t command = pci_get16(dev->config + PCI_COMMAND);

	if (!(command & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) || !pci_device_is_awake(dev) ||
	    bus_reset_held(dev))
		return false;
	return io ? forwards_io(dev->config, addr, size) : forwards_memory(dev->config, addr, size);
}

bool pci_bridge_passes_config(struct pci_device *dev)
{
	return pci_device_is_awake(dev) && !bus_reset_held(dev) && !pci_bridge_secondary(dev)->off;
}

static bool post_load(void *object, unsigned version, struct error **err)
{
	struct pci_bridge *br = object;

	br->bus_reset_held = bus_reset_held(&br->pci);
	return true;
}

const struct state_desc pci_bridge_state = {
	.name = "pci-bridge-header",
	.version = 1,
	.fields =
		(const struct state_field[]){
			PCI_DEVICE_STATE,
			{.type = STATE_END},
		},
	.post_load = post_load,
};
