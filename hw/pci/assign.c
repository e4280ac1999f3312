/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What firmware does to PCI before it starts a kernel: bus numbers, windows of bridges, places of
 * BARs, interrupt lines (PCI Firmware 3.3, 3; PCI-to-PCI Bridge 1.2, 3.2.5).
 *
 * Each bus is laid out in each kind of space by itself: its BARs and the windows of its bridges,
 * the strictest alignment first, which leaves no hole that matters. A window is as large as the
 * layout of the bus behind it. Main thread, vCPUs not running.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

/* Wide: may lie above 4 GiB, all the way down. */
enum space { SPACE_IO, SPACE_MEM, SPACE_WIDE, SPACES };

enum { NOT_A_BAR = -1, BUSES_MAX = 256 };

struct item {
	struct pci_device *dev;
	int bar; /* or NOT_A_BAR: the window of a bridge */
	uint64_t size, align, offset;
};

struct layout {
	struct item *items;
	unsigned count;
	uint64_t size, align; /* of the whole */
};

static uint64_t granularity(enum space space)
{
	return space == SPACE_IO ? 4 * KiB : MiB;
}

/* What a slot keeps free for a card that comes later. */
static uint64_t reserve(const struct pci_bus *bus, enum space space)
{
	bool plugs = bus->hotplug && bus->hotplug->unplug_request;

	return plugs && space != SPACE_IO ? 2 * MiB : 0;
}

static enum space bar_space(const struct pci_device *dev, unsigned n)
{
	enum pci_bar_type type = dev->bars[n].type;

	if (type & PCI_BAR_IO)
		return SPACE_IO;
	/* Bridges pass on what lies above 4 GiB only if it is prefetchable. */
	if (type & PCI_BAR_MEM_64 && (type & PCI_BAR_MEM_PREFETCH || pci_bus_is_root(dev->bus)))
		return SPACE_WIDE;
	return SPACE_MEM;
}

static int compare(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->align != y->align)
		return x->align < y->align ? 1 : -1;
	if (x->dev->devfn != y->dev->devfn)
		return x->dev->devfn - y->dev->devfn;
	return x->bar - y->bar;
}

static void add_item(struct layout *l, struct item item)
{
	if (!(l->count & (l->count + 1)))
		l->items = xrealloc(l->items, (2 * l->count + 2) * sizeof(*l->items));
	l->items[l->count++] = item;
}

static void add_bars(struct layout *l, struct pci_device *dev, enum space space)
{
	for (unsigned n = 0; n <= PCI_ROM_BAR; n++) {
		uint64_t size = dev->bars[n].size;

		if (size && bar_space(dev, n) == space)
			add_item(l, (struct item){
					    .dev = dev,
					    .bar = n,
					    .size = size,
					    .align = space == SPACE_IO ? size : MAX(size, 4096),
				    });
	}
}

static struct layout lay_out(struct pci_bus *bus, enum space space);

static void add_window(struct layout *l, struct pci_device *dev, enum space space)
{
	struct layout behind = lay_out(pci_bridge_secondary(dev), space);

	if (behind.size)
		add_item(l, (struct item){.dev = dev,
					  .bar = NOT_A_BAR,
					  .size = ALIGN_UP(behind.size, granularity(space)),
					  .align = MAX(behind.align, granularity(space))});
	free(behind.items);
}

/* Items with their offsets; the caller frees them. */
static struct layout lay_out(struct pci_bus *bus, enum space space)
{
	struct layout l = {.align = 1};

	for (unsigned i = 0; i < PCI_DEVFNS; i++) {
		struct pci_device *dev = bus->devices[i];

		if (!dev || !dev->initialised)
			continue;
		add_bars(&l, dev, space);
		if (dev->info->bridge)
			add_window(&l, dev, space);
	}
	if (l.count)
		qsort(l.items, l.count, sizeof(*l.items), compare);
	for (unsigned i = 0; i < l.count; i++) {
		struct item *item = &l.items[i];

		item->offset = ALIGN_UP(l.size, item->align);
		l.size = item->offset + item->size;
		l.align = MAX(l.align, item->align);
	}
	l.size = MAX(l.size, reserve(bus, space));
	return l;
}

static void set_window(struct pci_device *dev, enum space space, uint64_t base, uint64_t size)
{
	uint8_t *c = dev->config;
	uint64_t last = base + size - 1;

	switch (space) {
	case SPACE_IO:
		c[PCI_IO_BASE] = (c[PCI_IO_BASE] & 0x0f) | (base >> 8 & 0xf0);
		c[PCI_IO_LIMIT] = (c[PCI_IO_LIMIT] & 0x0f) | (last >> 8 & 0xf0);
		break;
	case SPACE_MEM:
		pci_set16(c + PCI_MEMORY_BASE, base >> 16 & 0xfff0);
		pci_set16(c + PCI_MEMORY_LIMIT, last >> 16 & 0xfff0);
		break;
	default:
		pci_set16(c + PCI_PREF_MEMORY_BASE,
			  (c[PCI_PREF_MEMORY_BASE] & 0x0f) | (base >> 16 & 0xfff0));
		pci_set16(c + PCI_PREF_MEMORY_LIMIT,
			  (c[PCI_PREF_MEMORY_LIMIT] & 0x0f) | (last >> 16 & 0xfff0));
		pci_set32(c + PCI_PREF_BASE_UPPER32, base >> 32);
		pci_set32(c + PCI_PREF_LIMIT_UPPER32, last >> 32);
	}
}

/* A base above the limit passes nothing on. */
static void close_windows(struct pci_device *dev)
{
	uint8_t *c = dev->config;

	c[PCI_IO_BASE] |= 0xf0;
	c[PCI_IO_LIMIT] &= 0x0f;
	pci_set16(c + PCI_MEMORY_BASE, 0xfff0);
	pci_set16(c + PCI_MEMORY_LIMIT, 0);
	pci_set16(c + PCI_PREF_MEMORY_BASE, 0xfff0 | (c[PCI_PREF_MEMORY_BASE] & 0x0f));
	pci_set16(c + PCI_PREF_MEMORY_LIMIT, c[PCI_PREF_MEMORY_LIMIT] & 0x0f);
	pci_set32(c + PCI_PREF_BASE_UPPER32, 0);
	pci_set32(c + PCI_PREF_LIMIT_UPPER32, 0);
}

static void set_bar(struct pci_device *dev, unsigned n, uint64_t addr)
{
	uint8_t *reg = dev->config + pci_bar_register(dev, n);

	pci_set32(reg, addr | (n == PCI_ROM_BAR ? 0 : dev->bars[n].type));
	if (dev->bars[n].type & PCI_BAR_MEM_64)
		pci_set32(reg + 4, addr >> 32);
}

static void place(struct pci_bus *bus, enum space space, uint64_t base)
{
	struct layout l = lay_out(bus, space);

	for (unsigned i = 0; i < l.count; i++) {
		const struct item *item = &l.items[i];
		uint64_t addr = base + item->offset;

		if (item->bar != NOT_A_BAR) {
			set_bar(item->dev, item->bar, addr);
			continue;
		}
		set_window(item->dev, space, addr, item->size);
		place(pci_bridge_secondary(item->dev), space, addr);
	}
	free(l.items);
}

/* One kind of space of the root: into a window, from its first fitting address on. */
struct room {
	uint64_t next, end;
};

static bool put(struct pci_bus *root, enum space space, struct room *room, bool dry)
{
	struct layout l = lay_out(root, space);
	uint64_t base = ALIGN_UP(room->next, l.align);

	free(l.items);
	if (base < room->next || base > room->end || l.size > room->end - base)
		return false;
	room->next = base + l.size;
	if (!dry && l.size)
		place(root, space, base);
	return true;
}

static struct room room_of(uint64_t base, uint64_t size)
{
	return (struct room){base, base + size};
}

static bool place_memory(struct pci_bus *root, const struct pci_windows *w, struct error **err)
{
	struct room low = room_of(w->mem32_base, w->mem32_size), high = low;
	bool wide_below = put(root, SPACE_MEM, &high, true) && put(root, SPACE_WIDE, &high, true);

	if (!wide_below)
		high = room_of(w->mem64_base, w->mem64_size);
	if (put(root, SPACE_MEM, &low, false) &&
	    put(root, SPACE_WIDE, wide_below ? &low : &high, false))
		return true;
	error_set(err,
		  "the PCI devices' memory does not fit into %" PRIu64
		  " MiB below 4 GiB and %" PRIu64 " MiB above",
		  w->mem32_size / MiB, w->mem64_size / MiB);
	return false;
}

/* Depth first, as the type 1 forwarding of configuration accesses needs it. */
static bool number_buses(struct pci_bus *bus, uint8_t number, unsigned *last)
{
	for (unsigned i = 0; i < PCI_DEVFNS; i++) {
		struct pci_device *dev = bus->devices[i];

		if (!dev || !dev->initialised || !dev->info->bridge)
			continue;
		if (++*last >= BUSES_MAX)
			return false;
		dev->config[PCI_PRIMARY_BUS] = number;
		dev->config[PCI_SECONDARY_BUS] = *last;
		if (!number_buses(pci_bridge_secondary(dev), *last, last))
			return false;
		dev->config[PCI_SUBORDINATE_BUS] = *last;
	}
	return true;
}

static bool prepare(struct pci_device *dev, void *opaque)
{
	pci_set16(dev->config + PCI_COMMAND,
		  pci_get16(dev->config + PCI_COMMAND) & ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
	if (dev->info->bridge)
		close_windows(dev);
	return true;
}

static bool enable(struct pci_device *dev, void *opaque)
{
	const struct pci_windows *w = opaque;
	uint16_t command = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

	command &= pci_get16(dev->wmask + PCI_COMMAND);
	pci_set16(dev->config + PCI_COMMAND, pci_get16(dev->initial + PCI_COMMAND) | command);
	if (dev->info->intx_pin)
		dev->config[PCI_INTERRUPT_LINE] = w->line && dev->bus->root->ops
							  ? w->line(w->opaque, pci_intx_input(dev))
							  : 0xff;
	return true;
}

static bool assign(struct pci_root *root, const struct pci_windows *w, struct error **err)
{
	struct room io = room_of(w->io_base, w->io_size);
	unsigned last = 0;

	pci_bus_for_each(&root->bus, prepare, NULL);
	if (!number_buses(&root->bus, 0, &last)) {
		error_set(err, "there are more than %d PCI buses", BUSES_MAX);
		return false;
	}
	if (!put(&root->bus, SPACE_IO, &io, false)) {
		error_set(err, "the PCI devices' ports do not fit into %" PRIu64 " bytes",
			  w->io_size);
		return false;
	}
	return place_memory(&root->bus, w, err);
}

bool pci_assign_resources(struct pci_root *root, const struct pci_windows *windows,
			  struct error **err)
{
	struct vm *vm = root->vm;
	bool ok;

	io_bus_begin(&vm->pio);
	io_bus_begin(&vm->mmio);
	pthread_mutex_lock(&root->lock);
	ok = assign(root, windows, err);
	if (ok)
		pci_bus_for_each(&root->bus, enable, (void *)windows);
	pci_bus_sync(&root->bus);
	pthread_mutex_unlock(&root->lock);
	io_bus_commit(&vm->mmio);
	io_bus_commit(&vm->pio);
	return ok;
}
