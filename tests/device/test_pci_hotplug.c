/* SPDX-License-Identifier: Apache-2.0 */
/* Root ports: presence, power, link, buttons and their interrupts, as a guest's driver uses them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "tests/lib/pci_machine.h"
#include "vmm/core/util.h"

static const unsigned at = PCI_DEVFN(4, 0);
/* Blinking is 2, on 1, off 3. */
enum { PIC_ON = 1 << 8, PIC_BLINK = 2 << 8, PIC_OFF = 3 << 8, AIC_OFF = 3 << 6 };

struct fixture {
	struct pci_machine m;
	struct device *port;
	unsigned exp, msi;
};

static int setup(void **state)
{
	static struct fixture f;

	pci_machine_init(&f.m);
	f.port = pci_machine_add(&f.m, &pcie_root_port_desc, "rp", NULL,
				 "addr=4,chassis=1,slot=9,port=0x10");
	f.exp = pci_cfg_capability(&f.m, 0, at, PCI_CAP_EXPRESS);
	f.msi = pci_cfg_capability(&f.m, 0, at, PCI_CAP_MSI);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pci_machine_destroy(&f->m);
	return 0;
}

static uint16_t get(struct fixture *f, unsigned reg)
{
	return pci_cfg_read(&f->m, 0, at, f->exp + reg, 2);
}

static void set(struct fixture *f, unsigned reg, uint16_t value)
{
	pci_cfg_write(&f->m, 0, at, f->exp + reg, 2, value);
}

static struct pci_test *plug(struct fixture *f, const char *id, bool hot)
{
	struct error *err = NULL;
	struct device *dev = pci_machine_try(
		&f->m, &pci_test_desc, id, &pci_machine_bus(f->port)->bus, "express=on", hot, &err);

	if (!dev)
		fail_msg("%s", error_message(err));
	return (struct pci_test *)dev;
}

static void open_port(struct fixture *f)
{
	pci_open_bridge(&f->m, 0, at, 1, 1, 0xd0000000, 0xd01fffff);
}

/* As a driver does at its start: MSI on, all events cleared and enabled. */
static void drive(struct fixture *f)
{
	open_port(f);
	pci_cfg_write(&f->m, 0, at, f->msi + 4, 4, 0xfee00000);
	pci_cfg_write(&f->m, 0, at, f->msi + 12, 2, 0x55);
	pci_cfg_write(&f->m, 0, at, f->msi + 2, 2, 1);
	set(f, PCI_EXP_SLTSTA, 0x11f);
	set(f, PCI_EXP_SLTCTL,
	    get(f, PCI_EXP_SLTCTL) | PCI_EXP_SLTCTL_ABPE | PCI_EXP_SLTCTL_PDCE |
		    PCI_EXP_SLTCTL_HPIE | PCI_EXP_SLTCTL_CCIE | PCI_EXP_SLTCTL_DLLSCE);
	set(f, PCI_EXP_SLTSTA, 0x11f);
	f->m.message_count = 0;
}

static void identity(void **state)
{
	struct fixture *f = *state;
	struct error *err = NULL;

	assert_int_equal(pci_cfg_read(&f->m, 0, at, 0, 4), 0x000c1b36);
	assert_int_equal(pci_cfg_read(&f->m, 0, at, PCI_HEADER_TYPE, 1), 1);
	assert_int_equal(get(f, PCI_EXP_FLAGS), 0x0142);
	assert_int_equal(pci_cfg_read(&f->m, 0, at, f->exp + PCI_EXP_SLTCAP, 4), 9 << 19 | 0x7b);
	assert_int_equal(pci_cfg_read(&f->m, 0, at, f->exp + PCI_EXP_LNKCAP, 4), 0x10100204);
	assert_null(pci_machine_try(&f->m, &pcie_root_port_desc, "x", NULL, "chassis=1,slot=9",
				    false, &err));
	assert_non_null(strstr(error_message(err), "chassis 1 slot 9"));
	error_free(err);
	err = NULL;
	assert_null(pci_machine_try(&f->m, &pcie_root_port_desc, "x",
				    &pci_machine_bus(f->port)->bus, "slot=10", false, &err));
	assert_non_null(strstr(error_message(err), "root bus"));
	error_free(err);
	err = NULL;
	assert_null(pci_machine_try(&f->m, &pci_test_desc, "x", &pci_machine_bus(f->port)->bus,
				    "addr=1", false, &err));
	assert_string_equal(error_message(err), "bus 'rp' has no slot 01");
	error_free(err);
}

static void cold_plugged(void **state)
{
	struct fixture *f = *state;
	struct pci_test *t;

	assert_int_equal(get(f, PCI_EXP_SLTSTA), 0);
	assert_int_equal(get(f, PCI_EXP_SLTCTL), PCI_EXP_SLTCTL_PCC | PIC_OFF | AIC_OFF);
	assert_int_equal(get(f, PCI_EXP_LNKSTA) & PCI_EXP_LNKSTA_DLLLA, 0);
	t = plug(f, "t", false);
	assert_int_equal(get(f, PCI_EXP_SLTSTA), PCI_EXP_SLTSTA_PDS);
	assert_int_equal(get(f, PCI_EXP_SLTCTL), PIC_ON | AIC_OFF);
	assert_int_equal(get(f, PCI_EXP_LNKSTA) & PCI_EXP_LNKSTA_DLLLA, PCI_EXP_LNKSTA_DLLLA);
	open_port(f);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), PCI_TEST_VENDOR);
	/* And the same after a reset of the machine. */
	f->port->desc->reset(f->port);
	t->pci.dev.desc->reset(&t->pci.dev);
	assert_int_equal(get(f, PCI_EXP_SLTSTA), PCI_EXP_SLTSTA_PDS);
	assert_int_equal(get(f, PCI_EXP_SLTCTL), PIC_ON | AIC_OFF);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), 0xffff);
	open_port(f);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), PCI_TEST_VENDOR);
}

static void plug_in(void **state)
{
	struct fixture *f = *state;

	drive(f);
	plug(f, "t", true);
	assert_int_equal(f->m.message_count, 1);
	assert_int_equal(f->m.messages[0].data, 0x55);
	assert_int_equal(get(f, PCI_EXP_SLTSTA),
			 PCI_EXP_SLTSTA_PDS | PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_ABP);
	/* No power yet. */
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), 0xffff);
	set(f, PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_ABP);
	assert_int_equal(get(f, PCI_EXP_SLTSTA), PCI_EXP_SLTSTA_PDS);
	set(f, PCI_EXP_SLTCTL,
	    (get(f, PCI_EXP_SLTCTL) & ~(PCI_EXP_SLTCTL_PCC | PIC_OFF)) | PIC_BLINK);
	/* The command is done, the link is up; one message for both. */
	assert_int_equal(f->m.message_count, 2);
	assert_int_equal(get(f, PCI_EXP_SLTSTA),
			 PCI_EXP_SLTSTA_PDS | PCI_EXP_SLTSTA_CC | PCI_EXP_SLTSTA_DLLSC);
	assert_true(get(f, PCI_EXP_LNKSTA) & PCI_EXP_LNKSTA_DLLLA);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), PCI_TEST_VENDOR);
	set(f, PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_CC | PCI_EXP_SLTSTA_DLLSC);
	set(f, PCI_EXP_SLTCTL, (get(f, PCI_EXP_SLTCTL) & ~PIC_OFF) | PIC_ON);
	assert_int_equal(f->m.message_count, 3);
}

static struct pci_test *plugged_card(struct fixture *f)
{
	struct pci_test *t = plug(f, "t", false);

	drive(f);
	pci_cfg_write(&f->m, 1, 0, PCI_BAR0 + 4, 4, 0xd0000000);
	pci_cfg_write(&f->m, 1, 0, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_int_equal(pci_mem_read(&f->m, 0xd0000000, 4), 0);
	return t;
}

static void take_out(void **state)
{
	struct fixture *f = *state;
	struct pci_test *t = plugged_card(f);
	struct error *err = NULL;

	assert_true(device_unplug(&t->pci.dev, &err));
	assert_int_equal(f->m.message_count, 1);
	assert_int_equal(get(f, PCI_EXP_SLTSTA), PCI_EXP_SLTSTA_PDS | PCI_EXP_SLTSTA_ABP);
	assert_false(device_unplug(&t->pci.dev, &err));
	error_free(err);
	set(f, PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_ABP);
	/* Five seconds of blinking, in which the operator might change his mind. */
	set(f, PCI_EXP_SLTCTL, (get(f, PCI_EXP_SLTCTL) & ~PIC_OFF) | PIC_BLINK);
	pci_machine_settle(&f->m);
	assert_int_equal(f->m.deleted_count, 0);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), PCI_TEST_VENDOR);
	set(f, PCI_EXP_SLTCTL, get(f, PCI_EXP_SLTCTL) | PCI_EXP_SLTCTL_PCC);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), 0xffff);
	assert_int_equal(pci_mem_read(&f->m, 0xd0000000, 4), 0xffffffff);
	assert_int_equal(f->m.deleted_count, 0);
	pci_machine_settle(&f->m);
	assert_int_equal(f->m.deleted_count, 1);
	assert_string_equal(f->m.deleted[0], "t");
	assert_int_equal(get(f, PCI_EXP_SLTSTA) & (PCI_EXP_SLTSTA_PDS | PCI_EXP_SLTSTA_PDC),
			 PCI_EXP_SLTSTA_PDC);
	assert_null(device_find(&f->m.vm, "t"));
	/* And the next one comes. */
	set(f, PCI_EXP_SLTSTA, 0x11f);
	f->m.message_count = 0;
	plug(f, "u", true);
	assert_int_equal(f->m.message_count, 1);
}

static void busy_guest(void **state)
{
	struct fixture *f = *state;
	struct pci_test *t = plugged_card(f);
	struct error *err = NULL;

	set(f, PCI_EXP_SLTCTL, (get(f, PCI_EXP_SLTCTL) & ~PIC_OFF) | PIC_BLINK);
	assert_false(device_unplug(&t->pci.dev, &err));
	assert_non_null(strstr(error_message(err), "blinks"));
	assert_false(t->pci.dev.unplug_pending);
	error_free(err);
}

static void power_cycle(void **state)
{
	struct fixture *f = *state;
	struct pci_test *t = plugged_card(f);

	/* Power off without being asked: the card stays, silent. */
	set(f, PCI_EXP_SLTCTL, get(f, PCI_EXP_SLTCTL) | PCI_EXP_SLTCTL_PCC);
	pci_machine_settle(&f->m);
	assert_int_equal(f->m.deleted_count, 0);
	assert_int_equal(t->resets, 1);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), 0xffff);
	assert_true(get(f, PCI_EXP_SLTSTA) & PCI_EXP_SLTSTA_PDS);
	set(f, PCI_EXP_SLTCTL, get(f, PCI_EXP_SLTCTL) & ~PCI_EXP_SLTCTL_PCC);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), PCI_TEST_VENDOR);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, PCI_COMMAND, 2), 0);
	/* Asked while it is off: gone at once. */
	set(f, PCI_EXP_SLTCTL, get(f, PCI_EXP_SLTCTL) | PCI_EXP_SLTCTL_PCC);
	assert_true(device_unplug(&t->pci.dev, NULL));
	pci_machine_settle(&f->m);
	assert_int_equal(f->m.deleted_count, 1);
}

static void link_disable(void **state)
{
	struct fixture *f = *state;
	struct pci_test *t = plugged_card(f);

	set(f, PCI_EXP_LNKCTL, PCI_EXP_LNKCTL_DISABLE);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), 0xffff);
	assert_true(get(f, PCI_EXP_SLTSTA) & PCI_EXP_SLTSTA_DLLSC);
	assert_int_equal(f->m.message_count, 1);
	set(f, PCI_EXP_LNKCTL, 0);
	pci_machine_settle(&f->m);
	assert_int_equal(t->resets, 1);
	assert_int_equal(pci_cfg_read(&f->m, 1, 0, 0, 2), PCI_TEST_VENDOR);
}

static void reset_completes_unplug(void **state)
{
	struct fixture *f = *state;
	struct pci_test *t = plugged_card(f);

	assert_true(device_unplug(&t->pci.dev, NULL));
	f->port->desc->reset(f->port);
	pci_machine_settle(&f->m);
	assert_int_equal(f->m.deleted_count, 1);
	assert_int_equal(get(f, PCI_EXP_SLTSTA) & PCI_EXP_SLTSTA_PDS, 0);
}

static void interrupt_pin(void **state)
{
	struct fixture *f = *state;

	drive(f);
	pci_cfg_write(&f->m, 0, at, f->msi + 2, 2, 0);
	plug(f, "t", true);
	assert_int_equal(f->m.message_count, 0);
	assert_true(f->m.input[0]);
	set(f, PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_PDC);
	assert_true(f->m.input[0]);
	set(f, PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_ABP);
	assert_false(f->m.input[0]);
	set(f, PCI_EXP_SLTCTL, get(f, PCI_EXP_SLTCTL) & ~PCI_EXP_SLTCTL_PCC);
	assert_true(f->m.input[0]);
	set(f, PCI_EXP_SLTCTL, get(f, PCI_EXP_SLTCTL) & ~PCI_EXP_SLTCTL_HPIE);
	assert_false(f->m.input[0]);
}

static void without_hotplug(void **state)
{
	struct fixture *f = *state;
	struct device *port = pci_machine_add(&f->m, &pcie_root_port_desc, "rp2", NULL,
					      "addr=5,slot=2,hotplug=off");
	struct error *err = NULL;
	unsigned exp = pci_cfg_capability(&f->m, 0, PCI_DEVFN(5, 0), PCI_CAP_EXPRESS);

	assert_int_equal(pci_cfg_read(&f->m, 0, PCI_DEVFN(5, 0), exp + PCI_EXP_SLTCAP, 4), 2 << 19);
	assert_null(pci_machine_try(&f->m, &pci_test_desc, "x", &pci_machine_bus(port)->bus, NULL,
				    true, &err));
	assert_string_equal(error_message(err), "Bus 'rp2' does not support hotplugging");
	error_free(err);
	pci_machine_add(&f->m, &pci_test_desc, "t", &pci_machine_bus(port)->bus, NULL);
	pci_open_bridge(&f->m, 0, PCI_DEVFN(5, 0), 2, 2, 0xd0000000, 0xd00fffff);
	assert_int_equal(pci_cfg_read(&f->m, 2, 0, 0, 2), PCI_TEST_VENDOR);
	assert_int_equal(pci_cfg_read(&f->m, 0, PCI_DEVFN(5, 0), exp + PCI_EXP_SLTSTA, 2), 0x40);
}

static void several_functions(void **state)
{
	struct fixture *f = *state;
	struct bus *bus = &pci_machine_bus(f->port)->bus;
	struct device *zero;

	drive(f);
	assert_non_null(pci_machine_try(&f->m, &pci_test_desc, "t1", bus, "addr=0.1", true, NULL));
	assert_int_equal(f->m.message_count, 0);
	zero = pci_machine_try(&f->m, &pci_test_desc, "t0", bus, "addr=0,multifunction=on", true,
			       NULL);
	assert_non_null(zero);
	assert_int_equal(f->m.message_count, 1);
	assert_null(pci_machine_try(&f->m, &pci_test_desc, "t2", bus, "addr=0.2", true, NULL));
	/* They leave together, function 0 last. */
	assert_true(device_unplug(zero, NULL));
	pci_machine_settle(&f->m);
	assert_int_equal(f->m.deleted_count, 2);
	assert_string_equal(f->m.deleted[0], "t1");
	assert_string_equal(f->m.deleted[1], "t0");
}

/* Whole bridges come and go, with what is behind them. */
static void port_with_a_tree(void **state)
{
	struct fixture *f = *state;
	struct device *bridge;

	drive(f);
	bridge = pci_machine_try(&f->m, &pcie_pci_bridge_desc, "br", &pci_machine_bus(f->port)->bus,
				 NULL, true, NULL);
	assert_non_null(bridge);
	pci_machine_add(&f->m, &pci_test_desc, "t", &pci_machine_bus(bridge)->bus, "addr=3");
	assert_true(device_unplug(bridge, NULL));
	pci_machine_settle(&f->m);
	assert_null(device_find(&f->m.vm, "t"));
	assert_null(device_find(&f->m.vm, "br"));
}

/* A processor that looks at everything all the time, while cards come and go. */
struct watcher {
	struct fixture *f;
	struct io_reader reader;
	_Atomic bool stop;
	_Atomic unsigned turns, seen;
};

static void *watch(void *opaque)
{
	struct watcher *w = opaque;
	struct pci_machine *m = &w->f->m;
	uint32_t value;

	for (; !w->stop; w->turns++) {
		w->seen += pci_config_read(&m->root, 1, 0, 0, 2) == PCI_TEST_VENDOR;
		for (unsigned reg = 0; reg < 0x40; reg += 4)
			pci_config_read(&m->root, 1, 0, reg, 4);
		pci_config_write(&m->root, 1, 0, PCI_BAR0 + 4, 0xd0000000, 4);
		pci_config_write(&m->root, 1, 0, PCI_COMMAND, 6, 2);
		value = 1;
		io_bus_write(&m->vm.mmio, &w->reader, 0xd0000000, &value, 4);
		io_bus_read(&m->vm.mmio, &w->reader, 0xd0000000, &value, 4);
		value = 0;
		io_bus_write(&m->vm.mmio, &w->reader, 0xd000080c, &value, 4);
	}
	return NULL;
}

static void come_and_go(void **state)
{
	struct fixture *f = *state;
	static struct watcher w;
	pthread_t thread;

	w.f = f;
	drive(f);
	io_reader_register(&f->m.vm.mmio, &w.reader);
	assert_int_equal(pthread_create(&thread, NULL, watch, &w), 0);
	for (unsigned i = 0; i < 200; i++) {
		struct error *err = NULL;
		unsigned turn;
		struct device *dev = pci_machine_try(&f->m, &pci_test_desc, "t",
						     &pci_machine_bus(f->port)->bus,
						     "express=on,vectors=4", true, &err);

		assert_non_null(dev);
		set(f, PCI_EXP_SLTCTL, get(f, PCI_EXP_SLTCTL) & ~PCI_EXP_SLTCTL_PCC);
		for (turn = w.turns; w.turns < turn + 2;)
			sched_yield();
		pci_msix_notify(pci_device_of(dev), 0);
		assert_true(device_unplug(dev, NULL));
		set(f, PCI_EXP_SLTCTL, get(f, PCI_EXP_SLTCTL) | PCI_EXP_SLTCTL_PCC);
		pci_machine_settle(&f->m);
		assert_null(device_find(&f->m.vm, "t"));
	}
	w.stop = true;
	pthread_join(thread, NULL);
	assert_true(w.seen > 0);
	io_reader_unregister(&f->m.vm.mmio, &w.reader);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(identity, setup, teardown),
		cmocka_unit_test_setup_teardown(cold_plugged, setup, teardown),
		cmocka_unit_test_setup_teardown(plug_in, setup, teardown),
		cmocka_unit_test_setup_teardown(take_out, setup, teardown),
		cmocka_unit_test_setup_teardown(busy_guest, setup, teardown),
		cmocka_unit_test_setup_teardown(power_cycle, setup, teardown),
		cmocka_unit_test_setup_teardown(link_disable, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_completes_unplug, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupt_pin, setup, teardown),
		cmocka_unit_test_setup_teardown(without_hotplug, setup, teardown),
		cmocka_unit_test_setup_teardown(several_functions, setup, teardown),
		cmocka_unit_test_setup_teardown(port_with_a_tree, setup, teardown),
		cmocka_unit_test_setup_teardown(come_and_go, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
