/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base address registers: where the guest sees a device's regions.
 * PCI Local Bus 3.0, 6.2.5; PCI-to-PCI Bridge 1.2, 4.
 *
 * A BAR answers where its register says if its decoding is on, the device is awake, and every
 * bridge above passes the range on. Of BARs that overlap, the older device's answers; all of them
 * yield to what the board put on the bus. Under root->lock.
 */
#include <assert.h>
#include <inttypes.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

/* Below the board's regions, and different for every BAR, so that no BAR is ever refused a place.
 */
static int bar_priority(const struct pci_device *dev, unsigned n, int piece)
{
	return -1 - (int)((dev->serial & 0xffffff) << 7 | n << 4 | (15 - (piece & 15)));
}

unsigned pci_bar_register(const struct pci_device *dev, unsigned n)
{
	if (n == PCI_ROM_BAR)
		return dev->info->bridge ? PCI_BRIDGE_ROM_ADDRESS : PCI_ROM_ADDRESS;
	return PCI_BAR0 + 4 * n;
}

void pci_bar_init(struct pci_device *dev, unsigned n, enum pci_bar_type type, uint64_t size)
{
	unsigned reg = pci_bar_register(dev, n);
	uint64_t mask = ~(size - 1);

	assert(is_pow2(size) && n <= PCI_ROM_BAR && !dev->bars[n].size);
	assert(n < (dev->info->bridge ? 2 : PCI_BARS) || n == PCI_ROM_BAR);
	dev->bars[n] = (struct pci_bar){.size = size, .type = type, .addr = PCI_UNMAPPED};
	if (n == PCI_ROM_BAR) {
		pci_set32(dev->wmask + reg, (mask & 0xfffff800) | PCI_ROM_ENABLE);
		return;
	}
	pci_set32(dev->config + reg, type);
	pci_set32(dev->wmask + reg, mask & (type & PCI_BAR_IO ? ~UINT64_C(3) : ~UINT64_C(15)));
	if (type & PCI_BAR_MEM_64)
		pci_set32(dev->wmask + reg + 4, mask >> 32);
}

void pci_bar_add_region(struct pci_device *dev, unsigned n, uint64_t offset,
			struct pci_bar_region *region)
{
	struct pci_bar *bar = &dev->bars[n];

	assert(range_inside(offset, region->io.size, bar->size));
	region->offset = offset;
	region->io.priority = bar_priority(dev, n, region->io.priority);
	region->next = bar->regions;
	bar->regions = region;
}

static bool path_forwards(const struct pci_device *dev, bool io, uint64_t addr, uint64_t size)
{
	const struct pci_bus *bus = dev->bus;

	for (; bus->bridge; bus = bus->bridge->bus)
		if (bus->off || !pci_bridge_forwards(bus->bridge, io, addr, size))
			return false;
	return true;
}

static uint64_t bar_target(const struct pci_device *dev, unsigned n)
{
	const struct pci_bar *bar = &dev->bars[n];
	const uint8_t *reg = dev->config + pci_bar_register(dev, n);
	uint16_t command = pci_get16(dev->config + PCI_COMMAND);
	bool io = bar->type & PCI_BAR_IO;
	uint64_t addr = pci_get32(reg), limit = UINT32_MAX;

	if (!(command & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) || !pci_device_is_awake(dev))
		return PCI_UNMAPPED;
	if (n == PCI_ROM_BAR && !(addr & PCI_ROM_ENABLE))
		return PCI_UNMAPPED;
	if (bar->type & PCI_BAR_MEM_64) {
		addr |= (uint64_t)pci_get32(reg + 4) << 32;
		/* All ones in the low half alone is a driver that is sizing the BAR. */
		limit = addr >> 32 ? UINT64_MAX : UINT32_MAX;
	} else if (io) {
		limit = 0x10000;
	}
	addr &= ~(bar->size - 1);
	/* Nought is a BAR without a place; one that ends at the top is being sized. */
	if (!addr || addr + (bar->size - 1) < addr || addr + (bar->size - 1) >= limit)
		return PCI_UNMAPPED;
	return path_forwards(dev, io, addr, bar->size) ? addr : PCI_UNMAPPED;
}

static struct io_bus *bar_bus(const struct pci_device *dev, unsigned n)
{
	struct vm *vm = dev->dev.vm;

	return dev->bars[n].type & PCI_BAR_IO ? &vm->pio : &vm->mmio;
}

static void bar_unmap(struct pci_device *dev, unsigned n)
{
	for (struct pci_bar_region *r = dev->bars[n].regions; r; r = r->next)
		io_bus_remove(bar_bus(dev, n), &r->io);
}

static void bar_map(struct pci_device *dev, unsigned n, uint64_t addr)
{
	for (struct pci_bar_region *r = dev->bars[n].regions; r; r = r->next) {
		struct error *err = NULL;

		r->io.base = addr + r->offset;
		if (!io_bus_add(bar_bus(dev, n), &r->io, &err)) {
			log_guest_error(&dev->log, "%s: BAR %u at 0x%" PRIx64 ": %s",
					device_label(&dev->dev), n, addr, error_message(err));
			error_free(err);
		}
	}
}

static void update_one(struct pci_device *dev)
{
	struct vm *vm = dev->dev.vm;
	uint64_t from[PCI_BARS + 1], to[PCI_BARS + 1];
	bool changed = false;

	for (unsigned n = 0; n <= PCI_ROM_BAR; n++) {
		from[n] = to[n] = dev->bars[n].addr;
		if (dev->bars[n].size)
			to[n] = bar_target(dev, n);
		changed |= from[n] != to[n];
	}
	if (!changed)
		return;
	io_bus_begin(&vm->pio);
	io_bus_begin(&vm->mmio);
	for (unsigned n = 0; n <= PCI_ROM_BAR; n++)
		if (from[n] != to[n] && from[n] != PCI_UNMAPPED)
			bar_unmap(dev, n);
	for (unsigned n = 0; n <= PCI_ROM_BAR; n++)
		if (from[n] != to[n] && to[n] != PCI_UNMAPPED)
			bar_map(dev, n, to[n]);
	io_bus_commit(&vm->mmio);
	io_bus_commit(&vm->pio);
	for (unsigned n = 0; n <= PCI_ROM_BAR; n++) {
		if (from[n] == to[n])
			continue;
		dev->bars[n].addr = to[n];
		if (dev->info->ops && dev->info->ops->bar_moved)
			dev->info->ops->bar_moved(dev, n, from[n], to[n]);
	}
}

void pci_update_mappings(struct pci_device *dev)
{
	struct pci_bus *bus = pci_bridge_secondary(dev);

	update_one(dev);
	for (unsigned i = 0; bus && i < PCI_DEVFNS; i++)
		if (bus->devices[i] && bus->devices[i]->initialised)
			pci_update_mappings(bus->devices[i]);
}
