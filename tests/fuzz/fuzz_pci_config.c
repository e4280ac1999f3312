/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest on a PCI tree: the q35 chipset, a root port, bridges of both kinds, devices with
 * every kind of BAR and interrupt, and saved state from an enemy. Input: a run of operations, a
 * byte that says which and its operands; numbers are little-endian.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hw/pci/q35_chipset.h"
#include "tests/lib/fuzz_input.h"
#include "tests/lib/pci_machine.h"
#include "vmm/core/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct rig {
	struct pci_machine m;
	struct device *mch, *lpc, *port;
	struct irq_line gsi[24];
	bool level[24];
};

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void gsi_set(struct irq_line *line, bool level)
{
	struct rig *r = line->opaque;

	check(r->level[line->number] != level);
	r->level[line->number] = level;
}

static struct device *add(struct rig *r, const struct device_desc *desc, const char *id,
			  struct device *bridge, const char *props)
{
	return pci_machine_add(&r->m, desc, id, bridge ? &pci_machine_bus(bridge)->bus : NULL,
			       props);
}

static void build(struct rig *r)
{
	struct device *outer, *inner;

	pci_machine_init(&r->m);
	pci_root_set_ecam(&r->m.root, 0, 0, NULL);
	for (unsigned i = 0; i < 24; i++) {
		r->gsi[i] = (struct irq_line){.set = gsi_set, .opaque = r, .number = i};
		r->m.vm.gsi[i] = &r->gsi[i];
	}
	r->mch = add(r, &q35_mch_desc, NULL, NULL, NULL);
	r->lpc = add(r, &ich9_lpc_desc, NULL, NULL, NULL);
	add(r, &pci_test_desc, "a", NULL, "addr=2,multifunction=on,vectors=3,express=on");
	add(r, &pci_test_desc, "b", NULL, "addr=2.1,msi=4");
	r->port = add(r, &pcie_root_port_desc, "rp", NULL, "addr=3,slot=1");
	outer = add(r, &pcie_pci_bridge_desc, "outer", NULL, "addr=4");
	inner = add(r, &pci_bridge_desc, "inner", outer, "addr=5,chassis_nr=1");
	add(r, &pci_test_desc, "c", inner, "addr=6,vectors=2,msi=1");
	q35_chipset_firmware_init(r->mch, r->lpc, PCI_TEST_ECAM, 0x600);
}

static struct pci_device *device(struct rig *r, unsigned n)
{
	struct device *d = r->m.vm.devices;

	for (n &= 15; n && d->next; n--)
		d = d->next;
	return pci_device_of(d);
}

/* Firmware's work in one stroke, so that the rest of an input finds things in their places. */
static void assign(struct rig *r)
{
	const struct pci_windows windows = {.io_base = 0x1000,
					    .io_size = 0xf000,
					    .mem32_base = 0xc0000000,
					    .mem32_size = 256 * MiB,
					    .mem64_base = UINT64_C(0x100000000),
					    .mem64_size = GiB,
					    .line = ich9_lpc_line,
					    .opaque = r->lpc};

	pci_assign_resources(&r->m.root, &windows, NULL);
}

static void access_bar(struct rig *r, struct fuzz_input *in)
{
	struct pci_device *dev = device(r, fuzz_take(in, 1));
	uint8_t how = fuzz_take(in, 1);
	unsigned n = how % (PCI_BARS + 1), size = 1 << (how >> 6);
	uint64_t addr = pci_bar_addr(dev, n) + fuzz_take(in, 2), value = fuzz_take(in, 4);

	if (pci_bar_addr(dev, n) == PCI_UNMAPPED)
		return;
	if (dev->bars[n].type & PCI_BAR_IO) {
		pci_port_write(&r->m, addr, MIN(size, 4), value);
		pci_port_read(&r->m, addr, MIN(size, 4));
	} else {
		pci_mem_write(&r->m, addr, size, value);
		pci_mem_read(&r->m, addr, size);
	}
}

static void interrupt(struct rig *r, struct fuzz_input *in)
{
	struct pci_device *dev = device(r, fuzz_take(in, 1));
	uint8_t how = fuzz_take(in, 1);

	switch (how & 7) {
	case 0:
	case 1:
		pci_irq_set(dev, how & 1);
		break;
	case 2:
		pci_msi_notify(dev, how >> 3);
		break;
	case 3:
		pci_msix_notify(dev, how >> 3);
		break;
	case 4:
		pci_msix_vector_use(dev, how >> 3);
		break;
	case 5:
		pci_msix_vector_unuse(dev, how >> 3);
		break;
	default:
		pci_machine_pump(&r->m);
	}
}

static void plug(struct rig *r)
{
	struct pci_bus *bus = pci_machine_bus(r->port);

	if (bus->devices[0])
		device_unplug(&bus->devices[0]->dev, NULL);
	else
		pci_machine_try(&r->m, &pci_test_desc, "hot", &bus->bus, "vectors=4,express=on",
				true, NULL);
}

static void reset_all(struct rig *r)
{
	for (struct device *d = r->m.vm.devices; d; d = d->next)
		d->desc->reset(d);
}

/* Saved state with arbitrary bytes in it. */
static void load(struct rig *r, struct fuzz_input *in)
{
	struct pci_device *dev = device(r, fuzz_take(in, 1));
	const struct state_desc *state = dev->dev.desc->state;
	unsigned at = fuzz_take(in, 1);
	uint64_t bytes = fuzz_take(in, 8);

	pci_device_state.pre_save(dev);
	memcpy(dev->config + at, &bytes, MIN(sizeof(bytes), dev->config_size - at));
	if (dev->msix.count)
		store_le64(dev->msix.vectors[0].entry + 8, bytes);
	dev->intx_level = bytes >> 63;
	pci_device_state.post_load(dev, 1, NULL);
	if (state->post_load)
		state->post_load(dev, 1, NULL);
}

static void step(struct rig *r, struct fuzz_input *in)
{
	uint8_t op = fuzz_take(in, 1);
	unsigned size = 1 << (op >> 4 & 3);
	uint64_t addr;

	switch (op & 15) {
	case 0:
		assign(r);
		break;
	case 1:
		pci_machine_settle(&r->m);
		break;
	case 2:
		access_bar(r, in);
		break;
	case 3:
		interrupt(r, in);
		break;
	case 4:
		plug(r);
		break;
	case 5:
		reset_all(r);
		break;
	case 6:
		addr = fuzz_take(in, 4);
		pci_mem_write(&r->m, addr, size, fuzz_take(in, 8));
		pci_mem_read(&r->m, addr, size);
		break;
	case 7:
		addr = fuzz_take(in, 2);
		pci_port_write(&r->m, addr, MIN(size, 4), fuzz_take(in, 4));
		pci_port_read(&r->m, addr, MIN(size, 4));
		break;
	case 8:
		addr = fuzz_take(in, 2) << 12 | fuzz_take(in, 2) % 4096;
		pci_mem_write(&r->m, PCI_TEST_ECAM + addr, size, fuzz_take(in, 4));
		pci_mem_read(&r->m, PCI_TEST_ECAM + addr, size);
		break;
	case 9:
		load(r, in);
		break;
	default: {
		struct pci_device *dev = device(r, fuzz_take(in, 1));
		unsigned at = fuzz_take(in, 1) & ~(MIN(size, 4) - 1),
			 bus = pci_bus_number(dev->bus);

		pci_cfg_write(&r->m, bus, dev->devfn, at, MIN(size, 4), fuzz_take(in, size));
		pci_cfg_read(&r->m, bus, dev->devfn, at, MIN(size, 4));
	}
	}
}

/* What no guest can bring about. */
static bool is_sound(struct pci_device *dev, void *opaque)
{
	uint16_t command = pci_get16(dev->config + PCI_COMMAND);

	check(pci_get16(dev->config + PCI_VENDOR_ID) == dev->info->vendor_id);
	for (unsigned n = 0; n <= PCI_ROM_BAR; n++) {
		const struct pci_bar *bar = &dev->bars[n];

		if (bar->addr == PCI_UNMAPPED)
			continue;
		check(!(bar->addr & (bar->size - 1)) && dev->visible && !dev->resetting);
		check(command & (bar->type & PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY));
	}
	for (unsigned v = 0; v < dev->msix.count; v++)
		check(!dev->msix.vectors[v].direct || dev->msix.vectors[v].live);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, MIN(size, 4096)};
	struct rig *r = xcalloc(1, sizeof(*r));

	build(r);
	while (in.left) {
		step(r, &in);
		pci_bus_for_each(&r->m.root.bus, is_sound, NULL);
	}
	pci_machine_destroy(&r->m);
	for (unsigned i = 0; i < 24; i++)
		check(!r->level[i]);
	free(r);
	return 0;
}
