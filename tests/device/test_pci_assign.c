/* SPDX-License-Identifier: Apache-2.0 */
/* Resources as firmware assigns them: every BAR has its place, aligned, apart from the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "tests/lib/pci_machine.h"
#include "vmm/core/util.h"

static uint8_t line(void *opaque, unsigned input)
{
	return 16 + input;
}

static const struct pci_windows windows = {
	.io_base = 0xc000,
	.io_size = 0x4000,
	.mem32_base = 0xc0000000,
	.mem32_size = 512 * MiB,
	.mem64_base = UINT64_C(0x8000000000),
	.mem64_size = 512 * GiB,
	.line = line,
};

struct claim {
	uint64_t base, size;
	bool io;
};

struct claims {
	struct claim list[256];
	unsigned count;
};

static bool collect(struct pci_device *dev, void *opaque)
{
	struct claims *c = opaque;

	for (unsigned n = 0; n < PCI_BARS; n++) {
		const struct pci_bar *bar = &dev->bars[n];

		if (!bar->size)
			continue;
		if (bar->addr == PCI_UNMAPPED)
			fail_msg("BAR %u of %s has no place", n, device_label(&dev->dev));
		assert_int_equal(bar->addr & (bar->size - 1), 0);
		c->list[c->count++] = (struct claim){bar->addr, bar->size, bar->type & PCI_BAR_IO};
	}
	return true;
}

static void check_all(struct pci_machine *m, const struct pci_windows *w)
{
	struct claims c = {0};

	pci_bus_for_each(&m->root.bus, collect, &c);
	for (unsigned i = 0; i < c.count; i++) {
		const struct claim *a = &c.list[i];

		if (a->io)
			assert_true(a->base >= w->io_base &&
				    range_inside(a->base - w->io_base, a->size, w->io_size));
		else
			assert_true(
				(a->base >= w->mem32_base &&
				 range_inside(a->base - w->mem32_base, a->size, w->mem32_size)) ||
				(a->base >= w->mem64_base &&
				 range_inside(a->base - w->mem64_base, a->size, w->mem64_size)));
		for (unsigned j = 0; j < i; j++)
			assert_false(
				c.list[j].io == a->io &&
				ranges_overlap(c.list[j].base, c.list[j].size, a->base, a->size));
	}
}

static void assign(struct pci_machine *m, const struct pci_windows *w)
{
	struct error *err = NULL;

	if (!pci_assign_resources(&m->root, w, &err))
		fail_msg("%s", error_message(err));
	check_all(m, w);
}

static struct pci_test *add(struct pci_machine *m, struct bus *bus, const char *props)
{
	return (struct pci_test *)pci_machine_add(m, &pci_test_desc, NULL, bus, props);
}

static void flat(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t;

	for (unsigned i = 0; i < 20; i++)
		t = add(m, NULL, NULL);
	assign(m, &windows);
	assert_int_equal(pci_cfg_read(m, 0, t->pci.devfn, PCI_COMMAND, 2),
			 PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_int_equal(pci_cfg_read(m, 0, t->pci.devfn, PCI_INTERRUPT_LINE, 1),
			 16 + PCI_SLOT(t->pci.devfn) % 4);
	/* All of it fits below 4 GiB. */
	assert_true(pci_bar_addr(&t->pci, PCI_TEST_WIDE_BAR) < 4 * GiB);
	/* Once more, as after a reset. */
	t->pci.dev.desc->reset(&t->pci.dev);
	assign(m, &windows);
}

static void tree(void **state)
{
	struct pci_machine *m = *state;
	struct device *port, *outer, *inner;
	struct pci_test *deep, *direct;

	add(m, NULL, NULL);
	port = pci_machine_add(m, &pcie_root_port_desc, "rp", NULL, "slot=1");
	outer = pci_machine_add(m, &pcie_pci_bridge_desc, "b1", &pci_machine_bus(port)->bus, NULL);
	inner = pci_machine_add(m, &pci_bridge_desc, "b2", &pci_machine_bus(outer)->bus,
				"chassis_nr=2");
	add(m, &pci_machine_bus(outer)->bus, NULL);
	deep = add(m, &pci_machine_bus(inner)->bus, NULL);
	port = pci_machine_add(m, &pcie_root_port_desc, "rp2", NULL, "slot=2");
	direct = add(m, &pci_machine_bus(port)->bus, "express=on");
	pci_machine_add(m, &pcie_root_port_desc, "rp3", NULL, "slot=3");
	assign(m, &windows);
	assert_int_equal(pci_bus_number(deep->pci.bus), 3);
	assert_int_equal(pci_bus_number(direct->pci.bus), 4);
	assert_int_equal(pci_cfg_read(m, 3, deep->pci.devfn, 0, 2), PCI_TEST_VENDOR);
	/* The BAR really answers there. */
	deep->words[1] = 0x5555;
	assert_int_equal(pci_mem_read(m, pci_bar_addr(&deep->pci, 1) + 4, 4), 0x5555);
	/* An empty slot keeps room for a card, and no ports. */
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(3, 0), PCI_HEADER_TYPE, 1), 1);
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(3, 0), PCI_MEMORY_LIMIT, 2) -
				 pci_cfg_read(m, 0, PCI_DEVFN(3, 0), PCI_MEMORY_BASE, 2),
			 0x10);
	assert_true(pci_cfg_read(m, 0, PCI_DEVFN(3, 0), PCI_IO_BASE, 1) >
		    pci_cfg_read(m, 0, PCI_DEVFN(3, 0), PCI_IO_LIMIT, 1));
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(3, 0), PCI_SECONDARY_BUS, 2), 0x0505);
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(1, 0), PCI_PRIMARY_BUS, 4) & 0xffffff,
			 0x030100);
}

static void above_4g(void **state)
{
	struct pci_machine *m = *state;
	struct device *port = pci_machine_add(m, &pcie_root_port_desc, "rp", NULL, "slot=1");
	struct pci_test *big = add(m, &pci_machine_bus(port)->bus, "express=on,wide=16G");
	struct pci_test *small = add(m, NULL, NULL);

	assign(m, &windows);
	assert_true(pci_bar_addr(&big->pci, PCI_TEST_WIDE_BAR) >= windows.mem64_base);
	assert_true(pci_bar_addr(&small->pci, PCI_TEST_WIDE_BAR) >= windows.mem64_base);
	assert_true(pci_bar_addr(&small->pci, PCI_TEST_MEM_BAR) < 4 * GiB);
	assert_int_equal(pci_mem_read(m, pci_bar_addr(&big->pci, PCI_TEST_WIDE_BAR), 4), 0x1000);
}

static void does_not_fit(void **state)
{
	struct pci_machine *m = *state;
	struct pci_windows small = windows;
	struct error *err = NULL;

	for (unsigned i = 0; i < 16; i++)
		add(m, NULL, NULL);
	small.io_size = 256;
	assert_false(pci_assign_resources(&m->root, &small, &err));
	assert_non_null(strstr(error_message(err), "ports"));
	error_free(err);
	err = NULL;
	small = windows;
	small.mem32_size = 8 * 4096;
	assert_false(pci_assign_resources(&m->root, &small, &err));
	assert_non_null(strstr(error_message(err), "memory"));
	error_free(err);
	err = NULL;
	small = windows;
	small.mem32_size = 16 * 4096;
	small.mem64_size = 0;
	assert_false(pci_assign_resources(&m->root, &small, &err));
	error_free(err);
	small.mem64_size = 16 * 16384;
	assign(m, &small);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(flat, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(tree, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(above_4g, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(does_not_fit, pci_machine_setup,
						pci_machine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
