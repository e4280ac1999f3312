/* SPDX-License-Identifier: Apache-2.0 */
/* BARs: where regions appear, when they move, what bridges let through, expansion ROMs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/pci_machine.h"
#include "vmm/core/util.h"

static const unsigned at = PCI_DEVFN(3, 0);

enum { BAR_IO = PCI_BAR0, BAR_MEM = PCI_BAR0 + 4, BAR_WIDE = PCI_BAR0 + 8 };

static struct pci_test *add(struct pci_machine *m, struct bus *bus, const char *props)
{
	return (struct pci_test *)pci_machine_add(m, &pci_test_desc, NULL, bus, props);
}

static void sizing(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, NULL, "addr=3");

	assert_int_equal(pci_cfg_read(m, 0, at, BAR_IO, 4), 1);
	assert_int_equal(pci_cfg_read(m, 0, at, BAR_WIDE, 4), 0xc);
	/* With decoding on, as some drivers do: nothing may appear at the top. */
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, 3);
	for (unsigned reg = BAR_IO; reg < PCI_BAR0 + 24; reg += 4)
		pci_cfg_write(m, 0, at, reg, 4, 0xffffffff);
	assert_int_equal(pci_cfg_read(m, 0, at, BAR_IO, 4), 0xffffffe1);
	assert_int_equal(pci_cfg_read(m, 0, at, BAR_MEM, 4), 0xfffff000);
	assert_int_equal(pci_cfg_read(m, 0, at, BAR_WIDE, 4), 0xffffc00c);
	assert_int_equal(pci_cfg_read(m, 0, at, BAR_WIDE + 4, 4), 0xffffffff);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_BAR0 + 16, 4), 0);
	assert_int_equal(t->moves, 0);
	pci_cfg_write(m, 0, at, BAR_WIDE + 4, 4, 0);
	assert_true(pci_bar_addr(&t->pci, PCI_TEST_WIDE_BAR) == PCI_UNMAPPED);
	/* No ROM without a file. */
	pci_cfg_write(m, 0, at, PCI_ROM_ADDRESS, 4, 0xffffffff);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_ROM_ADDRESS, 4), 0);
}

static void decoding(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, NULL, "addr=3");

	pci_cfg_write(m, 0, at, BAR_IO, 4, 0xc020);
	pci_cfg_write(m, 0, at, BAR_MEM, 4, 0xd0001000);
	assert_int_equal(t->moves, 0);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(t->moves, 1);
	assert_int_equal(t->moved_bar, PCI_TEST_MEM_BAR);
	assert_true(t->moved_from == PCI_UNMAPPED && t->moved_to == 0xd0001000);
	pci_mem_write(m, 0xd0001ffc, 4, 0x11223344);
	assert_int_equal(t->words[PCI_TEST_MEM_SIZE / 4 - 1], 0x11223344);
	assert_int_equal(pci_mem_read(m, 0xd0001ffe, 2), 0x1122);
	/* Half in, half out is nobody's. */
	assert_int_equal(pci_mem_read(m, 0xd0001ffe, 4), 0xffffffff);
	assert_int_equal(pci_port_read(m, 0xc020, 4), 0xffffffff);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_IO);
	assert_int_equal(pci_mem_read(m, 0xd0001ffc, 4), 0xffffffff);
	pci_port_write(m, 0xc03c, 4, 0xcafef00d);
	assert_int_equal(load_le32(t->ports + 28), 0xcafef00d);
	assert_int_equal(t->moves, 3);
}

static void moving(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, NULL, "addr=3");

	pci_cfg_write(m, 0, at, BAR_WIDE, 4, 0xd0000000);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(pci_mem_read(m, 0xd0000010, 4), 0x1010);
	assert_int_equal(pci_mem_read(m, 0xd0001000, 4), 0xffffffff);
	assert_int_equal(pci_mem_read(m, 0xd0002ffc, 4), 0x2ffc);
	pci_cfg_write(m, 0, at, BAR_WIDE + 4, 4, 0x18);
	assert_true(t->moved_from == 0xd0000000 && t->moved_to == UINT64_C(0x18d0000000));
	assert_int_equal(pci_mem_read(m, 0xd0000010, 4), 0xffffffff);
	assert_int_equal(pci_mem_read(m, UINT64_C(0x18d0002004), 4), 0x2004);
	/* Written again with the same value: nothing moves. */
	pci_cfg_write(m, 0, at, BAR_WIDE + 4, 4, 0x18);
	assert_int_equal(t->moves, 2);
	/* The very top would be a driver sizing it; just below it is a place. */
	pci_cfg_write(m, 0, at, BAR_WIDE + 4, 4, 0xffffffff);
	assert_int_equal(pci_mem_read(m, UINT64_C(0xffffffffd0002004), 4), 0x2004);
	pci_cfg_write(m, 0, at, BAR_WIDE, 4, 0xffffc000);
	assert_true(t->moved_to == PCI_UNMAPPED);
}

static void overlap(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *a = add(m, NULL, "addr=3"), *b = add(m, NULL, "addr=4");
	const unsigned at_b = PCI_DEVFN(4, 0);

	a->words[0] = 0xaaaa;
	b->words[0] = 0xbbbb;
	for (unsigned devfn = at; devfn <= at_b; devfn += 8) {
		pci_cfg_write(m, 0, devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
		pci_cfg_write(m, 0, devfn, BAR_MEM, 4, 0xd0000000);
	}
	assert_int_equal(pci_mem_read(m, 0xd0000000, 4), 0xaaaa);
	/* The one that was hidden is there as soon as the other leaves. */
	pci_cfg_write(m, 0, at, BAR_MEM, 4, 0xd0008000);
	assert_int_equal(pci_mem_read(m, 0xd0000000, 4), 0xbbbb);
	assert_int_equal(pci_mem_read(m, 0xd0008000, 4), 0xaaaa);
	/* On top of the ECAM window: the board's wins. */
	pci_cfg_write(m, 0, at, BAR_MEM, 4, PCI_TEST_ECAM);
	assert_int_equal(pci_mem_read(m, PCI_TEST_ECAM + (at << 12), 2), PCI_TEST_VENDOR);
	/* Two BARs of one device. */
	pci_cfg_write(m, 0, at, BAR_MEM, 4, 0xd0004000);
	pci_cfg_write(m, 0, at, BAR_WIDE, 4, 0xd0004000);
	assert_int_equal(pci_mem_read(m, 0xd0006000, 4), 0x2000);
}

static void goes_with_the_device(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, NULL, "addr=3");

	pci_cfg_write(m, 0, at, BAR_MEM, 4, 0xd0000000);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(pci_mem_read(m, 0xd0000000, 4), 0);
	device_free(&t->pci.dev);
	assert_int_equal(pci_mem_read(m, 0xd0000000, 4), 0xffffffff);
}

static void behind_a_bridge(void **state)
{
	struct pci_machine *m = *state;
	struct device *bridge = pci_machine_add(m, &pci_bridge_desc, "b1", NULL,
						"addr=5,chassis_nr=1");
	struct pci_test *t = add(m, &pci_machine_bus(bridge)->bus, "addr=3");
	const unsigned br = PCI_DEVFN(5, 0);

	pci_open_bridge(m, 0, br, 1, 1, 0xd0000000, 0xd01fffff);
	pci_cfg_write(m, 1, at, BAR_MEM, 4, 0xd0100000);
	pci_cfg_write(m, 1, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
	assert_int_equal(pci_mem_read(m, 0xd0100000, 4), 0);
	/* Outside the window. */
	pci_cfg_write(m, 1, at, BAR_MEM, 4, 0xd0200000);
	assert_int_equal(pci_mem_read(m, 0xd0200000, 4), 0xffffffff);
	/* The window grows; decoding stops and starts at the bridge. */
	pci_cfg_write(m, 0, br, PCI_MEMORY_LIMIT, 2, 0xd020);
	assert_int_equal(pci_mem_read(m, 0xd0200000, 4), 0);
	pci_cfg_write(m, 0, br, PCI_COMMAND, 2, 0);
	assert_true(t->moved_to == PCI_UNMAPPED);
	pci_cfg_write(m, 0, br, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
	assert_true(t->moved_to == 0xd0200000);
	/* The prefetchable window reaches above 4 GiB. */
	pci_cfg_write(m, 1, at, BAR_WIDE + 4, 4, 0x20);
	assert_true(pci_bar_addr(&t->pci, PCI_TEST_WIDE_BAR) == PCI_UNMAPPED);
	pci_cfg_write(m, 0, br, PCI_PREF_BASE_UPPER32, 4, 0x20);
	pci_cfg_write(m, 0, br, PCI_PREF_LIMIT_UPPER32, 4, 0x20);
	pci_cfg_write(m, 0, br, PCI_PREF_MEMORY_LIMIT, 2, 0x0010);
	assert_true(pci_bar_addr(&t->pci, PCI_TEST_WIDE_BAR) == UINT64_C(0x2000000000));
	/* Ports; with ISA enable only the lowest 256 of each KiB. */
	pci_cfg_write(m, 0, br, PCI_IO_BASE, 2, 0xc0c0);
	pci_cfg_write(m, 1, at, BAR_IO, 4, 0xc400);
	assert_int_equal(pci_port_read(m, 0xc400, 1), 0);
	pci_cfg_write(m, 1, at, BAR_IO, 4, 0xc500);
	assert_int_equal(pci_port_read(m, 0xc500, 1), 0);
	pci_cfg_write(m, 0, br, PCI_BRIDGE_CONTROL, 1, PCI_BRIDGE_CTL_ISA);
	assert_int_equal(pci_port_read(m, 0xc500, 1), 0xff);
	pci_cfg_write(m, 1, at, BAR_IO, 4, 0xc4e0);
	assert_int_equal(pci_port_read(m, 0xc4e0, 1), 0);
}

static void nested_bridges(void **state)
{
	struct pci_machine *m = *state;
	struct device *outer = pci_machine_add(m, &pcie_pci_bridge_desc, "b1", NULL, "addr=5");
	struct device *inner = pci_machine_add(m, &pci_bridge_desc, "b2",
					       &pci_machine_bus(outer)->bus, "addr=6,chassis_nr=2");
	struct pci_test *t = add(m, &pci_machine_bus(inner)->bus, "addr=3,express=on");

	pci_open_bridge(m, 0, PCI_DEVFN(5, 0), 1, 2, 0xd0000000, 0xd00fffff);
	pci_open_bridge(m, 1, PCI_DEVFN(6, 0), 2, 2, 0xd0000000, 0xd00fffff);
	assert_int_equal(pci_cfg_read(m, 2, at, 0, 2), PCI_TEST_VENDOR);
	assert_int_equal(pci_cfg_read(m, 1, at, 0, 2), 0xffff);
	/* Conventional buses do not carry the upper registers. */
	assert_int_equal(pci_mem_read(m, PCI_TEST_ECAM + (2 << 20 | at << 12 | 0x100), 4),
			 0xffffffff);
	pci_cfg_write(m, 2, at, BAR_MEM, 4, 0xd0010000);
	pci_cfg_write(m, 2, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_true(pci_bar_addr(&t->pci, 1) == 0xd0010000);
	assert_int_equal(pci_requester_id(&t->pci), 2 << 8 | at);
	pci_cfg_write(m, 0, PCI_DEVFN(5, 0), PCI_MEMORY_LIMIT, 2, 0);
	assert_true(pci_bar_addr(&t->pci, 1) == PCI_UNMAPPED);
	/* Bus numbers lead there, whatever they are. */
	pci_cfg_write(m, 0, PCI_DEVFN(5, 0), PCI_PRIMARY_BUS, 4, 0x00604000);
	assert_int_equal(pci_cfg_read(m, 2, at, 0, 2), 0xffff);
	pci_cfg_write(m, 0x40, PCI_DEVFN(6, 0), PCI_PRIMARY_BUS, 4, 0x00505040);
	assert_int_equal(pci_cfg_read(m, 0x50, at, 0, 2), PCI_TEST_VENDOR);
	assert_int_equal(pci_requester_id(&t->pci), 0x50 << 8 | at);
}

static void secondary_bus_reset(void **state)
{
	struct pci_machine *m = *state;
	struct device *bridge = pci_machine_add(m, &pci_bridge_desc, "b1", NULL,
						"addr=5,chassis_nr=1");
	struct pci_test *t = add(m, &pci_machine_bus(bridge)->bus, "addr=3");
	const unsigned br = PCI_DEVFN(5, 0);

	pci_open_bridge(m, 0, br, 1, 1, 0xd0000000, 0xd01fffff);
	pci_cfg_write(m, 1, at, BAR_MEM, 4, 0xd0100000);
	pci_cfg_write(m, 1, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	pci_cfg_write(m, 0, br, PCI_BRIDGE_CONTROL, 2, PCI_BRIDGE_CTL_BUS_RESET);
	assert_int_equal(pci_cfg_read(m, 1, at, 0, 2), 0xffff);
	assert_true(pci_bar_addr(&t->pci, 1) == PCI_UNMAPPED);
	pci_machine_settle(m);
	assert_int_equal(t->resets, 1);
	/* Held as long as the bit is. */
	assert_int_equal(pci_cfg_read(m, 1, at, 0, 2), 0xffff);
	pci_cfg_write(m, 0, br, PCI_BRIDGE_CONTROL, 2, 0);
	assert_int_equal(pci_cfg_read(m, 1, at, 0, 2), PCI_TEST_VENDOR);
	assert_int_equal(pci_cfg_read(m, 1, at, PCI_COMMAND, 2), 0);
	pci_machine_settle(m);
	assert_int_equal(t->resets, 1);
}

static void expansion_rom(void **state)
{
	struct pci_machine *m = *state;
	char path[] = "/tmp/test_pci_bar.XXXXXX", props[64];
	uint8_t rom[3000];
	struct pci_test *t;
	struct error *err = NULL;
	int fd = mkstemp(path);

	for (unsigned i = 0; i < sizeof(rom); i++)
		rom[i] = i * 7;
	assert_true(fd >= 0);
	assert_int_equal(write_full(fd, rom, sizeof(rom)), 0);
	close(fd);
	snprintf(props, sizeof(props), "addr=3,romfile=%s", path);
	t = add(m, NULL, props);
	pci_cfg_write(m, 0, at, PCI_ROM_ADDRESS, 4, 0xffffffff);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_ROM_ADDRESS, 4), 0xfffff001);
	pci_cfg_write(m, 0, at, PCI_ROM_ADDRESS, 4, 0xd0000000);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_true(pci_bar_addr(&t->pci, PCI_ROM_BAR) == PCI_UNMAPPED);
	pci_cfg_write(m, 0, at, PCI_ROM_ADDRESS, 4, 0xd0000001);
	assert_int_equal(pci_mem_read(m, 0xd0000100, 4), load_le32(rom + 0x100));
	assert_int_equal(pci_mem_read(m, 0xd0000000 + 2998, 4), 0xffff0000 | load_le16(rom + 2998));
	assert_int_equal(pci_mem_read(m, 0xd0000ff8, 8), UINT64_MAX);
	pci_mem_write(m, 0xd0000100, 4, 0);
	assert_int_equal(pci_mem_read(m, 0xd0000100, 4), load_le32(rom + 0x100));

	snprintf(props, sizeof(props), "rombar=0,romfile=%s", path);
	assert_int_equal(add(m, NULL, props)->pci.bars[PCI_ROM_BAR].size, 0);
	assert_int_equal(add(m, NULL, "romfile=")->pci.bars[PCI_ROM_BAR].size, 0);
	unlink(path);
	snprintf(props, sizeof(props), "romfile=%s", path);
	assert_null(pci_machine_try(m, &pci_test_desc, "x", NULL, props, false, &err));
	assert_non_null(strstr(error_message(err), path));
	error_free(err);
	err = NULL;
	assert_null(
		pci_machine_try(m, &pci_test_desc, "x", NULL, "romfile=/dev/zero", false, &err));
	error_free(err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(sizing, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(decoding, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(moving, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(overlap, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(goes_with_the_device, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(behind_a_bridge, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(nested_bridges, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(secondary_bus_reset, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(expansion_rom, pci_machine_setup,
						pci_machine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
