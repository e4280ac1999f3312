/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts of PCI devices: pins through bridges, MSI, MSI-X with and without routes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/pci_machine.h"
#include "vmm/core/util.h"

static const unsigned at = PCI_DEVFN(3, 0);
static const uint64_t bar = 0xd0000000;

static struct pci_test *add(struct pci_machine *m, const char *props)
{
	struct pci_test *t = (struct pci_test *)pci_machine_add(m, &pci_test_desc, NULL, NULL,
								props);

	pci_cfg_write(m, 0, t->pci.devfn, PCI_BAR0 + 4, 4, bar);
	pci_cfg_write(m, 0, t->pci.devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	return t;
}

/* Pins. */

static void pins_are_shared(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *a = (void *)pci_machine_add(m, &pci_test_desc, NULL, NULL, "addr=3");
	struct pci_test *b = (void *)pci_machine_add(m, &pci_test_desc, NULL, NULL, "addr=7");

	pci_irq_set(&a->pci, true);
	pci_irq_set(&a->pci, true);
	assert_true(m->input[3]);
	pci_irq_set(&b->pci, true);
	pci_irq_set(&a->pci, false);
	assert_true(m->input[3]);
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(3, 0), PCI_STATUS, 2) & 8, 0);
	assert_int_equal(pci_cfg_read(m, 0, PCI_DEVFN(7, 0), PCI_STATUS, 2) & 8, 8);
	pci_irq_set(&b->pci, false);
	assert_false(m->input[3]);
}

static void pin_disable(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3");

	pci_irq_set(&t->pci, true);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	assert_false(m->input[3]);
	/* The status bit shows what the device wants all the same. */
	assert_int_equal(pci_cfg_read(m, 0, at, PCI_STATUS, 2) & 8, 8);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, 0);
	assert_true(m->input[3]);
	device_free(&t->pci.dev);
	assert_false(m->input[3]);
}

static void pins_through_bridges(void **state)
{
	struct pci_machine *m = *state;
	struct device *outer = pci_machine_add(m, &pcie_pci_bridge_desc, "b1", NULL, "addr=5");
	struct device *inner = pci_machine_add(m, &pci_bridge_desc, "b2",
					       &pci_machine_bus(outer)->bus, "addr=6,chassis_nr=2");
	struct pci_test *t = (void *)pci_machine_add(m, &pci_test_desc, NULL,
						     &pci_machine_bus(inner)->bus, "addr=3");
	unsigned input = (0 + 3 + 6 + 5) % 4;

	pci_irq_set(&t->pci, true);
	assert_true(m->input[input]);
	/* The board wires it differently now. */
	m->rotation = 1;
	pci_root_intx_rerouted(&m->root);
	assert_false(m->input[input]);
	assert_true(m->input[(input + 1) % 4]);
	pci_irq_set(&t->pci, false);
	assert_false(m->input[(input + 1) % 4]);
}

/* MSI. */

static void msi_vectors(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3,msi=4");
	unsigned pos = pci_cfg_capability(m, 0, at, PCI_CAP_MSI);

	assert_int_equal(pci_cfg_read(m, 0, at, pos + PCI_MSI_FLAGS, 2), 0x0184);
	pci_msi_notify(&t->pci, 0);
	assert_int_equal(m->message_count, 0);
	pci_cfg_write(m, 0, at, pos + 4, 4, 0xfee01003);
	pci_cfg_write(m, 0, at, pos + 8, 4, 1);
	pci_cfg_write(m, 0, at, pos + 12, 2, 0x4043);
	/* Eight wanted, four there are. */
	pci_cfg_write(m, 0, at, pos + PCI_MSI_FLAGS, 2, 3 << 4 | 1);
	assert_true(pci_msi_enabled(&t->pci));
	assert_int_equal(pci_msi_vectors(&t->pci), 4);
	pci_msi_notify(&t->pci, 2);
	assert_int_equal(m->message_count, 1);
	assert_true(m->messages[0].addr == UINT64_C(0x1fee01000));
	assert_int_equal(m->messages[0].data, 0x4042);
	assert_int_equal(m->requesters[0], at);
	pci_msi_notify(&t->pci, 4);
	assert_int_equal(m->message_count, 1);
}

static void msi_masked(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3,msi=2");
	unsigned pos = pci_cfg_capability(m, 0, at, PCI_CAP_MSI);

	pci_cfg_write(m, 0, at, pos + 4, 4, 0xfee00000);
	pci_cfg_write(m, 0, at, pos + 12, 2, 0x50);
	pci_cfg_write(m, 0, at, pos + 16, 4, 0xffffffff);
	assert_int_equal(pci_cfg_read(m, 0, at, pos + 16, 4), 3);
	pci_cfg_write(m, 0, at, pos + PCI_MSI_FLAGS, 2, 1 << 4 | 1);
	pci_msi_notify(&t->pci, 1);
	pci_msi_notify(&t->pci, 1);
	assert_int_equal(m->message_count, 0);
	assert_int_equal(pci_cfg_read(m, 0, at, pos + 20, 4), 2);
	pci_cfg_write(m, 0, at, pos + 16, 4, 1);
	assert_int_equal(m->message_count, 1);
	assert_int_equal(m->messages[0].data, 0x51);
	assert_int_equal(pci_cfg_read(m, 0, at, pos + 20, 4), 0);
	/* Without bus mastering nothing leaves until there is. */
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, 0);
	pci_msi_notify(&t->pci, 1);
	assert_int_equal(m->message_count, 1);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	assert_int_equal(m->message_count, 2);
	/* The pin is silent while messages are enabled. */
	pci_irq_set(&t->pci, true);
	assert_false(m->input[3]);
	pci_cfg_write(m, 0, at, pos + PCI_MSI_FLAGS, 2, 0);
	assert_true(m->input[3]);
	pci_irq_set(&t->pci, false);
}

/* MSI-X. */

static uint64_t entry(unsigned v)
{
	return bar + PCI_TEST_MSIX_TABLE + 16 * v;
}

static void program(struct pci_machine *m, unsigned v, uint32_t data, bool masked)
{
	pci_mem_write(m, entry(v), 4, 0xfee00000);
	pci_mem_write(m, entry(v) + 4, 4, 0);
	pci_mem_write(m, entry(v) + 8, 4, data);
	pci_mem_write(m, entry(v) + 12, 4, masked);
}

static void control(struct pci_machine *m, uint16_t flags)
{
	unsigned pos = pci_cfg_capability(m, 0, at, PCI_CAP_MSIX);

	pci_cfg_write(m, 0, at, pos + PCI_MSIX_FLAGS, 2, flags);
}

static uint64_t pending(struct pci_machine *m)
{
	return pci_mem_read(m, bar + PCI_TEST_MSIX_PBA, 8);
}

static void msix_registers(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3,vectors=5");
	unsigned pos = pci_cfg_capability(m, 0, at, PCI_CAP_MSIX);

	assert_int_equal(pci_cfg_read(m, 0, at, pos + PCI_MSIX_FLAGS, 2), 4);
	assert_int_equal(pci_cfg_read(m, 0, at, pos + PCI_MSIX_TABLE, 4), PCI_TEST_MSIX_TABLE | 1);
	assert_int_equal(pci_cfg_read(m, 0, at, pos + PCI_MSIX_PBA, 4), PCI_TEST_MSIX_PBA | 1);
	assert_int_equal(pci_mem_read(m, entry(4) + 12, 4), 1);
	/* Behind the last entry is the device's own again. */
	t->words[(PCI_TEST_MSIX_TABLE + 16 * 5) / 4] = 0x1234;
	assert_int_equal(pci_mem_read(m, entry(5), 4), 0x1234);
	/* Reserved bits of the control word; a quadword; bytes; unaligned. */
	pci_mem_write(m, entry(0) + 8, 8, UINT64_C(0xffffffff00000041));
	assert_true(pci_mem_read(m, entry(0) + 8, 8) == UINT64_C(0x100000041));
	pci_mem_write(m, entry(0) + 2, 1, 0xe0);
	assert_int_equal(pci_mem_read(m, entry(0), 4), 0x00e00000);
	pci_mem_write(m, entry(0) + 2, 4, 0);
	assert_int_equal(pci_mem_read(m, entry(0), 4), 0x00e00000);
	assert_int_equal(pci_mem_read(m, entry(0) + 1, 2), 0xffff);
	/* The pending bits are not the guest's to write. */
	pci_mem_write(m, bar + PCI_TEST_MSIX_PBA, 8, UINT64_MAX);
	assert_int_equal(pending(m), 0);
	assert_int_equal(pci_msix_vector_use(&t->pci, 5), -EINVAL);
	pci_msix_notify(&t->pci, 5);
	assert_int_equal(pci_msix_vector_fd(&t->pci, 5), -1);
}

static void deliver(struct pci_machine *m, struct pci_test *t, unsigned v, uint32_t data)
{
	unsigned before = m->message_count;

	pci_msix_notify(&t->pci, v);
	pci_machine_pump(m);
	assert_int_equal(m->message_count, before + 1);
	assert_int_equal(m->messages[before].data, data);
}

static void deliver_nothing(struct pci_machine *m, struct pci_test *t, unsigned v)
{
	unsigned before = m->message_count;

	pci_msix_notify(&t->pci, v);
	pci_machine_pump(m);
	assert_int_equal(m->message_count, before);
}

static void msix_life(struct pci_machine *m, bool in_use)
{
	struct pci_test *t = add(m, "addr=3,vectors=4");

	if (in_use) {
		assert_int_equal(pci_msix_vector_use(&t->pci, 1), 0);
		assert_int_equal(pci_msix_vector_use(&t->pci, 2), 0);
	}
	program(m, 1, 0x41, false);
	program(m, 2, 0x42, true);
	/* Disabled: lost. */
	assert_false(pci_msix_enabled(&t->pci));
	assert_true(pci_msix_masked(&t->pci, 1));
	deliver_nothing(m, t, 1);
	control(m, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	assert_true(pci_msix_enabled(&t->pci));
	assert_true(pci_msix_masked(&t->pci, 1));
	assert_int_equal(pending(m), 0);
	/* Masked all over, then one alone. */
	deliver_nothing(m, t, 1);
	deliver_nothing(m, t, 1);
	assert_int_equal(pending(m), 2);
	control(m, PCI_MSIX_FLAGS_ENABLE);
	pci_machine_pump(m);
	assert_int_equal(m->message_count, 1);
	assert_int_equal(m->messages[0].data, 0x41);
	assert_int_equal(pending(m), 0);
	assert_false(pci_msix_masked(&t->pci, 1));
	assert_true(pci_msix_masked(&t->pci, 2));
	deliver(m, t, 1, 0x41);
	deliver_nothing(m, t, 2);
	assert_int_equal(pending(m), 4);
	/* The message as it is when it leaves. */
	program(m, 2, 0x52, false);
	pci_machine_pump(m);
	assert_int_equal(m->messages[2].data, 0x52);
	assert_int_equal(m->messages[2].addr, 0xfee00000);
	/* Changed while live. */
	pci_mem_write(m, entry(1) + 8, 4, 0x61);
	deliver(m, t, 1, 0x61);
	/* Bus mastering off holds it back. */
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	deliver_nothing(m, t, 1);
	assert_int_equal(pending(m), 2);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	pci_machine_pump(m);
	assert_int_equal(m->message_count, 5);
	/* Disabling forgets. */
	pci_mem_write(m, entry(1) + 12, 4, 1);
	deliver_nothing(m, t, 1);
	control(m, 0);
	assert_int_equal(pending(m), 0);
	control(m, PCI_MSIX_FLAGS_ENABLE);
	pci_mem_write(m, entry(1) + 12, 4, 0);
	pci_machine_pump(m);
	assert_int_equal(m->message_count, 5);
	if (in_use) {
		pci_msix_vector_unuse(&t->pci, 1);
		deliver(m, t, 1, 0x61);
	}
	/* A reset masks all, and what waits is gone. */
	pci_mem_write(m, entry(1) + 12, 4, 1);
	deliver_nothing(m, t, 1);
	t->pci.dev.desc->reset(&t->pci.dev);
	assert_int_equal(m->route_count, 0);
	pci_cfg_write(m, 0, at, PCI_BAR0 + 4, 4, bar);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_int_equal(pci_mem_read(m, entry(1), 4), 0);
	assert_int_equal(pci_mem_read(m, entry(1) + 12, 4), 1);
	assert_int_equal(pending(m), 0);
}

static void msix_unused(void **state)
{
	msix_life(*state, false);
}

static void msix_in_use(void **state)
{
	msix_life(*state, true);
}

static void msix_without_routes(void **state)
{
	struct pci_machine *m = *state;

	m->no_routes = true;
	msix_life(m, true);
}

static void msix_routes_run_out(void **state)
{
	struct pci_machine *m = *state;

	m->route_error = -ENOSPC;
	msix_life(m, true);
}

static void msix_eventfds(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3,vectors=4");
	uint64_t one = 1;
	int fd;

	assert_int_equal(pci_msix_vector_use(&t->pci, 3), 0);
	assert_int_equal(pci_msix_vector_use(&t->pci, 3), 0);
	fd = pci_msix_vector_fd(&t->pci, 3);
	assert_true(fd >= 0);
	assert_int_equal(m->route_count, 0);
	program(m, 3, 0x73, true);
	control(m, PCI_MSIX_FLAGS_ENABLE);
	/* Whoever writes it while it is masked has raised it. */
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(pending(m), 8);
	pci_mem_write(m, entry(3) + 12, 4, 0);
	assert_int_equal(m->route_count, 1);
	assert_int_equal(m->routes[0].fd, fd);
	assert_int_equal(pci_machine_pump(m), 1);
	assert_int_equal(m->messages[0].data, 0x73);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(pci_machine_pump(m), 1);
	/* A new address while it is live changes the route in its place. */
	pci_mem_write(m, entry(3), 4, 0xfee02000);
	assert_int_equal(m->route_count, 1);
	assert_int_equal(m->routes[0].msg.addr, 0xfee02000);
	pci_msix_vector_unuse(&t->pci, 3);
	assert_int_equal(m->route_count, 1);
	pci_msix_vector_unuse(&t->pci, 3);
	assert_int_equal(m->route_count, 0);
	/* The descriptor is the same the next time. */
	assert_int_equal(pci_msix_vector_use(&t->pci, 3), 0);
	assert_int_equal(pci_msix_vector_fd(&t->pci, 3), fd);
	assert_int_equal(m->route_count, 1);
	/* With routes that the sink refuses, eventfds are of no use. */
	device_free(&t->pci.dev);
	m->no_routes = true;
	t = add(m, "addr=3,vectors=1");
	assert_int_equal(pci_msix_vector_use(&t->pci, 0), 0);
	program(m, 0, 0x30, false);
	control(m, PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(pci_msix_vector_fd(&t->pci, 0), -1);
}

static void msix_hook(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3,vectors=4");

	program(m, 0, 0x30, false);
	program(m, 2, 0x32, false);
	assert_int_equal(t->changes, 0);
	control(m, PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(t->changes, 2);
	assert_int_equal(t->changed_vector, 2);
	control(m, PCI_MSIX_FLAGS_ENABLE);
	pci_mem_write(m, entry(2) + 8, 4, 0x33);
	assert_int_equal(t->changes, 2);
	pci_mem_write(m, entry(0) + 12, 4, 1);
	assert_int_equal(t->changes, 3);
	assert_int_equal(t->changed_vector, 0);
	control(m, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	assert_int_equal(t->changes, 4);
}

static void exclusive_bar(void **state)
{
	struct pci_machine *m = *state;
	struct pci_test *t = add(m, "addr=3");

	/* 200 vectors are 3200 bytes: the halves are 4 KiB each. */
	assert_true(pci_msix_init_exclusive(&t->pci, 200, 4, NULL));
	assert_int_equal(t->pci.bars[4].size, 8192);
	pci_cfg_write(m, 0, at, PCI_BAR0 + 16, 4, 0xd1000000);
	pci_mem_write(m, 0xd1000000 + 16 * 199, 4, 0xfee00004);
	assert_int_equal(pci_mem_read(m, 0xd1000000 + 16 * 199, 4), 0xfee00004);
	pci_cfg_write(m, 0, at, t->pci.msix.pos + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	pci_msix_notify(&t->pci, 199);
	assert_true(pci_mem_read(m, 0xd1001000 + 24, 8) == 1 << 7);
	assert_int_equal(pci_mem_read(m, 0xd1001000 + 24, 1), 0x80);
	assert_int_equal(pci_mem_read(m, 0xd1001000 + 28, 4), 0);
}

/* One thread raises, one masks and moves the BAR, one reads: nothing is lost, nothing hangs. */
struct race {
	struct pci_machine *m;
	struct pci_test *t;
	_Atomic bool stop;
};

static void *raise_vectors(void *opaque)
{
	struct race *r = opaque;

	while (!r->stop) {
		pci_msix_notify(&r->t->pci, 0);
		pci_msix_notify(&r->t->pci, 1);
		pci_irq_set(&r->t->pci, true);
		pci_irq_set(&r->t->pci, false);
	}
	return NULL;
}

static void *read_config(void *opaque)
{
	struct race *r = opaque;

	while (!r->stop) {
		pci_config_read(&r->m->root, 0, at, PCI_STATUS, 2);
		pci_config_write(&r->m->root, 0, at, PCI_COMMAND, 2 | r->t->words[0], 2);
		r->t->words[0] ^= PCI_COMMAND_MASTER;
	}
	return NULL;
}

static void threads(void **state)
{
	struct pci_machine *m = *state;
	struct race r = {.m = m, .t = add(m, "addr=3,vectors=2")};
	pthread_t a, b;

	assert_int_equal(pci_msix_vector_use(&r.t->pci, 0), 0);
	program(m, 0, 0x30, false);
	program(m, 1, 0x31, false);
	control(m, PCI_MSIX_FLAGS_ENABLE);
	assert_int_equal(pthread_create(&a, NULL, raise_vectors, &r), 0);
	assert_int_equal(pthread_create(&b, NULL, read_config, &r), 0);
	for (unsigned i = 0; i < 3000; i++) {
		pci_mem_write(m, entry(i & 1) + 12, 4, i >> 1 & 1);
		pending(m);
	}
	r.stop = true;
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	pci_cfg_write(m, 0, at, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	program(m, 0, 0x30, false);
	pci_machine_pump(m);
	m->message_count = 0;
	deliver(m, r.t, 0, 0x30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(pins_are_shared, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(pin_disable, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(pins_through_bridges, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(msi_vectors, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(msi_masked, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(msix_registers, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(msix_unused, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(msix_in_use, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(msix_without_routes, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(msix_routes_run_out, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(msix_eventfds, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(msix_hook, pci_machine_setup, pci_machine_teardown),
		cmocka_unit_test_setup_teardown(exclusive_bar, pci_machine_setup,
						pci_machine_teardown),
		cmocka_unit_test_setup_teardown(threads, pci_machine_setup, pci_machine_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
