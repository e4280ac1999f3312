/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration space as a guest reaches it: ports, ECAM, masks, slots, power states, resets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tests/lib/pci_machine.h"
#include "vmm/core/util.h"

static const unsigned at = PCI_DEVFN(3, 0);

static struct pci_test *add(struct pci_machine *m, const char *props)
{
	return (struct pci_test *)pci_machine_add(m, &pci_test_desc, "t", NULL, props);
}

static uint64_t ecam(unsigned bus, unsigned devfn, unsigned offset)
{
	return PCI_TEST_ECAM + (bus << 20 | devfn << 12 | offset);
}

static void header(void **state)
{
	struct pci_machine *m = *state;

	add(m, "addr=3");
	assert_int_equal(pci_cfg_read(m, 0, at, 0, 4), PCI_TEST_DEVICE << 16 | PCI_TEST_VENDOR);
	assert_int_equal(pci_cfg_read(m, 0, at, 2, 2), PCI_TEST_DEVICE);
	assert_int_equal(pci_cfg_read(m, 0, at, 1, 1), PCI_TEST_VENDOR >> 8);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_REVISION, 4), 0x00ff0103);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_HEADER_TYPE, 1), 0);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001af4);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_INTERRUPT_PIN, 1), 1);
	/* Nobody there. */
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(4, 0), 0, 4), 0xffffffff);
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(3, 1), 0, 2), 0xffff);
	assert_int_equal(pci_cfg_read(m, 1, at, 0, 1), 0xff);
}

static void masks(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3");

	pci_cfg_write(m, 0, at, 0, 4, 0);
	assert_int_equal(pci_cfg_read(m, 0, at, 0, 4), PCI_TEST_DEVICE << 16 | PCI_TEST_VENDOR);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, 0xffff);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_COMMAND, 2), 0x0547);
	pci_cfg_write(m, 0, at, PCI_COMMAND + 1, 1, 0);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_COMMAND, 2), 0x0047);
	pci_cfg_write(m, 0, at, PCI_INTERRUPT_LINE, 1, 0x5a);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_INTERRUPT_LINE, 4), 0x015a);

	/* Errors in the status register are cleared by writing ones, and by nothing else. */
	pci_set16(t->pci.config + PCI_STATUS, 0xf910);
	pci_cfg_write(m, 0, at, PCI_STATUS, 2, 0);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_STATUS, 2), 0xf910);
	pci_cfg_write(m, 0, at, PCI_STATUS, 2, 0x8010);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_STATUS, 2), 0x7910);
}

static void device_hooks(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3");

	pci_cfg_write(m, 0, at, 0xf0, 4, 0x12345678);
	assert_int_equal(t->written_value, 0x12345678);
	assert_int_equal(pci_get32(t->pci.config + 0xf0), 0x12345678);
	assert_int_equal(pci_cfg_read(m, 0, at, 0xf0, 4), 0xfeedface);
	assert_int_equal(pci_cfg_read(m, 0, at, 0xf0, 2), 0x5678);
}

static void address_port(void **state)
{
	struct pci_machine *m = *state;

	add(m, "addr=3");
	pci_port_write(m, 0xcf8, 4, 0x80001802);
	assert_int_equal(pci_port_read(m, 0xcf8, 4), 0x80001800);
	/* Bytes and words are not for it. */
	pci_port_write(m, 0xcf8, 1, 0xff);
	pci_port_write(m, 0xcf8, 2, 0xffff);
	assert_int_equal(pci_port_read(m, 0xcf8, 4), 0x80001800);
	assert_int_equal(pci_port_read(m, 0xcf8, 1), 0xff);
	assert_int_equal(pci_port_read(m, 0xcfa, 2), 0xffff);
	assert_int_equal(pci_port_read(m, 0xcfc, 2), PCI_TEST_VENDOR);
	/* Not enabled: no cycle. */
	pci_port_write(m, 0xcf8, 4, 0x00001800);
	assert_int_equal(pci_port_read(m, 0xcfc, 4), 0xffffffff);
	assert_int_equal(pci_port_read(m, 0xcfd, 1), 0xff);
	/* Across the port's end, and across a register's. */
	pci_port_write(m, 0xcf8, 4, 0x80001800);
	assert_int_equal(pci_port_read(m, 0xcfe, 4), 0xffffffff);
}

static uint8_t reset_value;

static uint64_t reset_read(void *opaque, uint64_t offset, unsigned size)
{
	return reset_value;
}

static void reset_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	reset_value = value;
}

static void reset_port(void **state)
{
	static const struct io_ops ops = {.read = reset_read, .write = reset_write};
	struct pci_machine *m = *state;

	pci_root_set_reset_port(&m->root, &ops, NULL);
	pci_port_write(m, 0xcf8, 4, 0x80001800);
	pci_port_write(m, 0xcf9, 1, 0x0a);
	assert_int_equal(reset_value, 0x0a);
	assert_int_equal(pci_port_read(m, 0xcf9, 1), 0x0a);
	assert_int_equal(pci_port_read(m, 0xcf8, 4), 0x80001800);
	pci_port_write(m, 0xcf8, 4, 0x8000ff00);
	assert_int_equal(reset_value, 0x0a);
}

static void ecam_window(void **state)
{
	struct pci_machine *m = *state;

	add(m, "addr=3,express=on");
	assert_int_equal(pci_mem_read(m, ecam(0, at, 0), 4),
			 PCI_TEST_DEVICE << 16 | PCI_TEST_VENDOR);
	assert_int_equal(pci_mem_read(m, ecam(0, at, 3), 1), PCI_TEST_DEVICE >> 8);
	/* Eight bytes are two registers. */
	pci_mem_write(m, ecam(0, at, PCI_BAR0 + 4 * PCI_TEST_WIDE_BAR), 8,
		      UINT64_C(0x123456789abcc000));
	assert_true(pci_mem_read(m, ecam(0, at, PCI_BAR0 + 4 * PCI_TEST_WIDE_BAR), 8) ==
		    UINT64_C(0x123456789abcc00c));
	/* The upper 3840 bytes. */
	assert_int_equal(pci_mem_read(m, ecam(0, at, 0x100), 4), 0);
	assert_int_equal(pci_mem_read(m, ecam(0, at, 0xffc), 4), 0);
	/* Across a register's end, and into the next function. */
	assert_int_equal(pci_mem_read(m, ecam(0, at, 2), 4), 0xffffffff);
	assert_int_equal(pci_mem_read(m, ecam(0, at, 0xffe), 4), 0xffffffff);
	assert_int_equal(pci_mem_read(m, ecam(255, 255, 0), 4), 0xffffffff);
}

static void ecam_of_conventional(void **state)
{
	struct pci_machine *m = *state;

	add(m, "addr=3");
	assert_int_equal(pci_mem_read(m, ecam(0, at, 0xfc), 4), 0);
	assert_int_equal(pci_mem_read(m, ecam(0, at, 0x100), 4), 0xffffffff);
	pci_mem_write(m, ecam(0, at, 0x100), 4, 0);
}

static void ecam_moves(void **state)
{
	struct pci_machine *m = *state;

	add(m, "addr=3");
	assert_true(pci_root_set_ecam(&m->root, 0xc0000000, 64 * MiB, NULL));
	assert_int_equal(pci_mem_read(m, ecam(0, at, 0), 2), 0xffff);
	assert_int_equal(pci_mem_read(m, 0xc0000000 + (at << 12), 2), PCI_TEST_VENDOR);
	assert_true(pci_root_set_ecam(&m->root, 0, 0, NULL));
	assert_int_equal(pci_mem_read(m, 0xc0000000 + (at << 12), 2), 0xffff);
}

static void expect_refused(struct pci_machine *m, struct bus *bus, const char *props,
			   const char *message)
{
	struct error *err = NULL;

	assert_null(pci_machine_try(m, &pci_test_desc, "x", bus, props, false, &err));
	assert_non_null(err);
	if (!strstr(error_message(err), message))
		fail_msg("'%s' does not say '%s'", error_message(err), message);
	error_free(err);
}

static void slots(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *a = add(m, NULL), *b = add(m, NULL);

	assert_int_equal(a->pci.devfn, PCI_DEVFN(0, 0));
	assert_int_equal(b->pci.devfn, PCI_DEVFN(1, 0));
	expect_refused(m, NULL, "addr=1", "in use");
	expect_refused(m, NULL, "addr=1.1", "multifunction");
	add(m, "addr=2.1");
	expect_refused(m, NULL, "addr=2", "multifunction");
	add(m, "addr=2,multifunction=on");
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(2, 0), PCI_HEADER_TYPE, 1), 0x80);
	add(m, "addr=2.7");
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(2, 7), 0, 2), PCI_TEST_VENDOR);
	/* What is in use is not given out, and what becomes free is. */
	assert_int_equal(add(m, NULL)->pci.devfn, PCI_DEVFN(3, 0));
	device_free(&b->pci.dev);
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(1, 0), 0, 2), 0xffff);
	assert_int_equal(add(m, NULL)->pci.devfn, PCI_DEVFN(1, 0));
	while (m->root.bus.bus.has_room(&m->root.bus.bus))
		add(m, NULL);
	expect_refused(m, NULL, NULL, "no free slot");
}

static void no_hotplug_on_the_root(void **state)
{
	struct pci_machine *m = *state;
	struct error *err = NULL;
	struct pci_test *t = add(m, NULL);

	assert_null(pci_machine_try(m, &pci_test_desc, "x", NULL, NULL, true, &err));
	assert_string_equal(error_message(err), "Bus 'pcie.0' does not support hotplugging");
	error_free(err);
	err = NULL;
	assert_false(device_unplug(&t->pci.dev, &err));
	assert_string_equal(error_message(err), "Bus 'pcie.0' does not support hotplugging");
	assert_false(t->pci.dev.unplug_pending);
	error_free(err);
}

static void power_states(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3");
	unsigned pm = pci_cfg_capability(m, 0, at, PCI_CAP_PM);

	pci_cfg_write(m, 0, at, PCI_BAR0 + 4, 4, 0xd0000000);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, 7);
	assert_true(pci_bar_addr(&t->pci, 1) == 0xd0000000);
	pci_irq_set(&t->pci, true);
	assert_true(m->input[3]);
	/* D1 and D2 are not offered. */
	pci_cfg_write(m, 0, at, pm + PCI_PM_CTRL, 2, 1);
	assert_int_equal(pci_cfg_read(m, 0, at, pm + PCI_PM_CTRL, 2), 8);
	pci_cfg_write(m, 0, at, pm + PCI_PM_CTRL, 2, 3);
	assert_int_equal(pci_cfg_read(m, 0, at, pm + PCI_PM_CTRL, 2), 0xb);
	assert_true(pci_bar_addr(&t->pci, 1) == PCI_UNMAPPED);
	assert_false(pci_device_is_master(&t->pci));
	assert_false(m->input[3]);
	pci_cfg_write(m, 0, at, pm + PCI_PM_CTRL, 2, 0);
	assert_true(pci_bar_addr(&t->pci, 1) == 0xd0000000);
	assert_true(pci_device_is_master(&t->pci));
	assert_true(m->input[3]);
	pci_irq_set(&t->pci, false);
}

static void machine_reset(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3");

	pci_cfg_write(m, 0, at, PCI_BAR0, 4, 0xc000);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, 7);
	pci_port_write(m, 0xc000, 1, 0x77);
	pci_irq_set(&t->pci, true);
	assert_int_equal(pci_port_read(m, 0xc000, 1), 0x77);
	t->pci.dev.desc->reset(&t->pci.dev);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_COMMAND, 2), 0);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_BAR0, 4), 1);
	assert_int_equal(pci_port_read(m, 0xc000, 1), 0xff);
	assert_false(m->input[3]);
}

static void function_level_reset(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3,express=on");
	unsigned exp = pci_cfg_capability(m, 0, at, PCI_CAP_EXPRESS);

	assert_true(pci_cfg_read(m, 0, at, exp + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR);
	pci_cfg_write(m, 0, at, PCI_BAR0 + 4, 4, 0xd0000000);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, 7);
	pci_cfg_write(m, 0, at, exp + PCI_EXP_DEVCTL, 2, 0xa810);
	/* Silent at once; whole again when the main loop got to it. */
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_COMMAND, 4), 0xffffffff);
	assert_true(pci_bar_addr(&t->pci, 1) == PCI_UNMAPPED);
	assert_int_equal(t->resets, 0);
	pci_machine_settle(m);
	assert_int_equal(t->resets, 1);
	assert_int_equal(pci_cfg_read(m, 0, at, 0, 2), PCI_TEST_VENDOR);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_COMMAND, 2), 0);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_BAR0 + 4, 4), 0);
	assert_int_equal(pci_cfg_read(m, 0, at, exp + PCI_EXP_DEVCTL, 2), 0x2810);

	/* One byte does it, too; and the machine's reset does for one that is due. */
	pci_cfg_write(m, 0, at, exp + PCI_EXP_DEVCTL + 1, 1, 0x80);
	t->pci.dev.desc->reset(&t->pci.dev);
	pci_machine_settle(m);
	assert_int_equal(t->resets, 2);
	/* And a device may go while one is due. */
	pci_cfg_write(m, 0, at, exp + PCI_EXP_DEVCTL, 2, 0x8000);
	device_free(&t->pci.dev);
	pci_machine_settle(m);
}

static void extended_capabilities(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3,express=on");
	uint16_t a = pci_add_ext_capability(&t->pci, PCI_EXT_CAP_DSN, 1, 12);
	uint16_t b = pci_add_ext_capability(&t->pci, PCI_EXT_CAP_ACS, 2, 6);

	assert_int_equal(a, 0x100);
	assert_int_equal(b, 0x10c);
	assert_int_equal(pci_mem_read(m, ecam(0, at, a), 4), 0x10c10003);
	assert_int_equal(pci_mem_read(m, ecam(0, at, b), 4), 0x0002000d);
	assert_int_equal(pci_add_ext_capability(&t->pci, PCI_EXT_CAP_AER, 1, 0xf00), 0);
	/* Capabilities run out as well. */
	assert_int_equal(pci_add_capability(&t->pci, PCI_CAP_VENDOR, 0, 200), 0);
	assert_int_not_equal(pci_add_capability(&t->pci, PCI_CAP_VENDOR, 0xa8, 16), 0);
	assert_int_equal(pci_cfg_capability(m, 0, at, PCI_CAP_VENDOR), 0xa8);
	assert_int_equal(pci_find_capability(&t->pci, PCI_CAP_VENDOR), 0xa8);
	assert_int_equal(pci_find_capability(&t->pci, PCI_CAP_SATA), 0);
}

/* Loaded bytes: what a guest can write is taken, the rest is the device's own. */
static void loaded_state(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3,vectors=2,msi=1");

	memset(t->pci.config, 0xff, sizeof(t->pci.config));
	pci_set32(t->pci.config + PCI_BAR0 + 4, 0xd0000123);
	pci_set16(t->pci.config + t->pci.pm_pos + PCI_PM_CTRL, 0);
	memset(t->pci.msix.vectors[1].entry, 0xff, PCI_MSIX_ENTRY_SIZE);
	t->pci.intx_level = true;
	assert_true(pci_device_state.post_load(t, 1, NULL));
	assert_int_equal(pci_cfg_read(m, 0, at, 0, 4), PCI_TEST_DEVICE << 16 | PCI_TEST_VENDOR);
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_COMMAND, 2), 0x0547);
	assert_int_equal(pci_mem_read(m, 0xd0000000, 4), 0);
	assert_int_equal(pci_mem_read(m, 0xd0000000 + PCI_TEST_MSIX_TABLE + 28, 4), 1);
	/* Messages are enabled, so that the pin's level does not show. */
	assert_true(pci_msix_enabled(&t->pci) && pci_msi_enabled(&t->pci));
	assert_false(m->input[3]);
	pci_set16(t->pci.config + PCI_COMMAND, 0);
	pci_set16(t->pci.config + t->pci.msi.pos + PCI_MSI_FLAGS, 0);
	pci_set16(t->pci.config + t->pci.msix.pos + PCI_MSIX_FLAGS, 0);
	assert_true(pci_device_state.post_load(t, 1, NULL));
	assert_true(m->input[3]);
	assert_int_equal(pci_mem_read(m, 0xd0000000, 4), 0xffffffff);
	/* A reset that was due when it was saved comes after it is loaded. */
	t->pci.resetting = true;
	assert_true(pci_device_state.post_load(t, 1, NULL));
	assert_int_equal(pci_cfg_read(m, 0, at, 0, 4), 0xffffffff);
	pci_machine_settle(m);
	assert_int_equal(t->resets, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(header, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(masks, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(device_hooks, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(address_port, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(reset_port, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(ecam_window, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(ecam_of_conventional, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(ecam_moves, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(slots, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(no_hotplug_on_the_root, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(power_states, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(machine_reset, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(function_level_reset, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(extended_capabilities, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(loaded_state, pci_machine_setup,
						pci_machine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
