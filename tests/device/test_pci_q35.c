/* SPDX-License-Identifier: Apache-2.0 */
/* The q35 chipset as firmware drives it: ECAM, shadows, SMRAM; interrupt routes, PM base, reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "hw/pci/q35_chipset.h"
#include "tests/lib/pci_machine.h"
#include "vmm/core/util.h"

struct fixture {
	struct pci_machine m;
	struct device *mch, *lpc;
	struct irq_line gsi[24];
	bool level[24];
	uint8_t shadow[Q35_SHADOW_PIECES];
	unsigned shadow_changes, smram_changes, resets;
	struct q35_smram smram;
	uint64_t ecam_base, ecam_size;
	struct notifier events;
};

static const unsigned lpc = Q35_LPC_DEVFN;
static const uint64_t rcba = 0xfed1c000;

static void gsi_set(struct irq_line *line, bool level)
{
	struct fixture *f = line->opaque;

	assert_int_not_equal(f->level[line->number], level);
	f->level[line->number] = level;
}

static void shadow_changed(void *opaque, const uint8_t pieces[Q35_SHADOW_PIECES])
{
	struct fixture *f = opaque;

	memcpy(f->shadow, pieces, sizeof(f->shadow));
	f->shadow_changes++;
}

static void smram_changed(void *opaque, const struct q35_smram *smram)
{
	struct fixture *f = opaque;

	f->smram = *smram;
	f->smram_changes++;
}

static void ecam_changed(void *opaque, uint64_t base, uint64_t size)
{
	struct fixture *f = opaque;

	f->ecam_base = base;
	f->ecam_size = size;
}

static const struct q35_mch_ops mch_ops = {
	.shadow_changed = shadow_changed,
	.smram_changed = smram_changed,
	.ecam_changed = ecam_changed,
};

static void on_event(struct notifier *n, void *data)
{
	struct fixture *f = container_of(n, struct fixture, events);
	const struct vm_event *event = data;

	f->resets += event->kind == VM_EVENT_RESET && event->cause == CAUSE_GUEST_RESET;
}

static int setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	pci_machine_init(&f.m);
	assert_true(pci_root_set_ecam(&f.m.root, 0, 0, NULL));
	for (unsigned i = 0; i < 24; i++) {
		f.gsi[i] = (struct irq_line){.set = gsi_set, .opaque = &f, .number = i};
		f.m.vm.gsi[i] = &f.gsi[i];
	}
	f.events.fn = on_event;
	notifier_add(&f.m.vm.events, &f.events);
	f.mch = device_new(&f.m.vm, &q35_mch_desc, NULL);
	q35_mch_set_ops(f.mch, &mch_ops, &f);
	assert_true(device_realize(f.mch, &f.m.root.bus.bus, NULL));
	f.lpc = pci_machine_add(&f.m, &ich9_lpc_desc, NULL, NULL, NULL);
	f.mch->desc->reset(f.mch);
	f.lpc->desc->reset(f.lpc);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pci_machine_destroy(&f->m);
	for (unsigned i = 0; i < 24; i++)
		assert_false(f->level[i]);
	return 0;
}

static uint32_t get(struct fixture *f, unsigned devfn, unsigned offset, unsigned size)
{
	return pci_cfg_read(&f->m, 0, devfn, offset, size);
}

static void set(struct fixture *f, unsigned devfn, unsigned offset, unsigned size, uint32_t value)
{
	pci_cfg_write(&f->m, 0, devfn, offset, size, value);
}

/* The memory controller hub. */

static void identity(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, 0, 0, 4), 0x29c08086);
	assert_int_equal(get(f, 0, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001af4);
	assert_int_equal(get(f, 0, PCI_CLASS_PROG, 2) | get(f, 0, 0xa, 2) << 8, 0x060000);
	assert_int_equal(get(f, lpc, 0, 4), 0x29188086);
	assert_int_equal(get(f, lpc, PCI_REVISION, 4), 0x06010002);
	assert_int_equal(get(f, lpc, PCI_HEADER_TYPE, 1), 0x80);
}

static void pciexbar(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, 0, 0x60, 4), 0xb0000000);
	assert_int_equal(f->ecam_size, 0);
	set(f, 0, 0x60, 4, 0xb0000001);
	assert_true(f->ecam_base == 0xb0000000 && f->ecam_size == 256 * MiB);
	assert_int_equal(pci_mem_read(&f->m, 0xb0000000 + (lpc << 12), 4), 0x29188086);
	/* Through the window itself, it moves away; 64 MiB are 64 buses. */
	pci_mem_write(&f->m, 0xb0000060, 4, 0xe4000005);
	assert_true(f->ecam_base == 0xe4000000 && f->ecam_size == 64 * MiB);
	assert_int_equal(pci_mem_read(&f->m, 0xb0000000, 4), 0xffffffff);
	assert_int_equal(pci_mem_read(&f->m, 0xe4000000, 4), 0x29c08086);
	/* Above 4 GiB; address bits below its size do not count. */
	set(f, 0, 0x64, 4, 0xffffffff);
	assert_int_equal(get(f, 0, 0x64, 4), 0xf);
	set(f, 0, 0x60, 4, 0xe4000001);
	assert_true(f->ecam_base == UINT64_C(0xfe0000000) && f->ecam_size == 256 * MiB);
	set(f, 0, 0x60, 4, 0xe4000007);
	assert_int_equal(f->ecam_size, 0);
	set(f, 0, 0x60, 4, 0xe0000001);
	f->mch->desc->reset(f->mch);
	assert_int_equal(f->ecam_size, 0);
	assert_int_equal(pci_mem_read(&f->m, UINT64_C(0xfe0000000), 4), 0xffffffff);
}

static void shadows(void **state)
{
	struct fixture *f = *state;

	set(f, 0, 0x90, 1, 0xff);
	assert_int_equal(get(f, 0, 0x90, 1), 0x30);
	assert_int_equal(f->shadow_changes, 1);
	for (unsigned i = 0; i < Q35_SHADOW_PIECES; i++)
		assert_int_equal(f->shadow[i], i < 12 ? 0 : 3);
	/* One write of firmware's, one change for the board. */
	set(f, 0, 0x94, 4, 0x00312013);
	assert_int_equal(f->shadow_changes, 2);
	assert_int_equal(f->shadow[6], 3);
	assert_int_equal(f->shadow[7], 1);
	assert_int_equal(f->shadow[8], 0);
	assert_int_equal(f->shadow[9], 2);
	assert_int_equal(f->shadow[10], 1);
	assert_int_equal(f->shadow[11], 3);
	set(f, 0, 0x94, 4, 0x00312013);
	assert_int_equal(f->shadow_changes, 2);
	f->mch->desc->reset(f->mch);
	assert_int_equal(f->shadow_changes, 3);
	assert_int_equal(f->shadow[15] | f->shadow[6], 0);
}

static void smram(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, 0, 0x9d, 2), 0x3802);
	set(f, 0, 0x9d, 1, 0x4a);
	assert_true(f->smram.open);
	set(f, 0, 0x9d, 1, 0x0a);
	assert_false(f->smram.open);
	/* 8 MiB of TSEG, or as many as the extension says. */
	set(f, 0, 0x9e, 1, 0x05);
	assert_int_equal(f->smram.tseg_size, 8 * MiB);
	set(f, 0, 0x50, 2, 0xffff);
	assert_int_equal(get(f, 0, 0x50, 2), 16);
	set(f, 0, 0x9e, 1, 0x07);
	assert_int_equal(f->smram.tseg_size, 16 * MiB);
	/* Locked while open: closed, and only a reset opens it again. */
	set(f, 0, 0x9d, 1, 0x5a);
	assert_int_equal(get(f, 0, 0x9d, 1), 0x1a);
	assert_false(f->smram.open);
	set(f, 0, 0x9d, 2, 0x0042);
	assert_int_equal(get(f, 0, 0x9d, 2), 0x3f1a);
	assert_int_equal(f->smram.tseg_size, 16 * MiB);
	f->mch->desc->reset(f->mch);
	assert_int_equal(get(f, 0, 0x9d, 2), 0x3802);
	assert_int_equal(f->smram.tseg_size, 0);
	set(f, 0, 0x9d, 1, 0x4a);
	assert_true(f->smram.open);
}

/* The LPC bridge. */

static struct pci_test *add(struct fixture *f, const char *props)
{
	return (struct pci_test *)pci_machine_add(&f->m, &pci_test_desc, NULL, NULL, props);
}

static void pirq_map(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ich9_lpc_pirq(f->lpc, 0, 0), 4);
	assert_int_equal(ich9_lpc_pirq(f->lpc, 3, 0), 7);
	assert_int_equal(ich9_lpc_pirq(f->lpc, 3, 2), 5);
	assert_int_equal(ich9_lpc_pirq(f->lpc, 24, 3), 7);
	assert_int_equal(ich9_lpc_pirq(f->lpc, 25, 1), 1);
	assert_int_equal(ich9_lpc_pirq(f->lpc, 30, 1), 5);
	assert_int_equal(ich9_lpc_pirq(f->lpc, 31, 0), 0);
	assert_int_equal(ich9_lpc_pirq(f->lpc, 31, 3), 3);
}

static void both_ways(void **state)
{
	struct fixture *f = *state;
	struct pci_test *a = add(f, "addr=3"), *b = add(f, "addr=2"), *c = add(f, "addr=7");

	/* Not routed to ISA: the I/O APIC alone. */
	pci_irq_set(&a->pci, true);
	assert_true(f->level[23]);
	set(f, lpc, 0x6b, 1, 10);
	assert_true(f->level[10]);
	assert_int_equal(ich9_lpc_line(f->lpc, 7), 10);
	assert_int_equal(ich9_lpc_line(f->lpc, 6), 0xff);
	/* Another link shares it. */
	set(f, lpc, 0x6a, 1, 10);
	pci_irq_set(&b->pci, true);
	pci_irq_set(&c->pci, true);
	pci_irq_set(&a->pci, false);
	assert_true(f->level[23] && f->level[22] && f->level[10]);
	pci_irq_set(&c->pci, false);
	assert_false(f->level[23]);
	assert_true(f->level[10]);
	/* Moved while it is high; reserved and disabled routes lead nowhere. */
	set(f, lpc, 0x6a, 1, 11);
	assert_false(f->level[10]);
	assert_true(f->level[11]);
	set(f, lpc, 0x6a, 1, 8);
	assert_false(f->level[11]);
	set(f, lpc, 0x6a, 1, 0x8b);
	assert_false(f->level[11]);
	assert_true(f->level[22]);
	pci_irq_set(&b->pci, false);
	assert_false(f->level[22]);
}

static void routes_of_the_root_complex(void **state)
{
	struct fixture *f = *state;
	struct pci_test *t = add(f, "addr=1f.2");

	pci_irq_set(&t->pci, true);
	assert_true(f->level[16]);
	assert_int_equal(pci_mem_read(&f->m, rcba + 0x3140, 2), 0xffff);
	set(f, lpc, 0xf0, 4, rcba | 1);
	assert_int_equal(pci_mem_read(&f->m, rcba + 0x3140, 2), 0x3210);
	pci_mem_write(&f->m, rcba + 0x3140, 2, 0x3215);
	assert_false(f->level[16]);
	assert_true(f->level[21]);
	assert_int_equal(ich9_lpc_pirq(f->lpc, 31, 0), 5);
	pci_mem_write(&f->m, rcba + 0x3150, 2, 0x7654);
	assert_int_equal(ich9_lpc_pirq(f->lpc, 25, 3), 7);
	pci_mem_write(&f->m, rcba + 0x3410, 4, 0x20);
	assert_int_equal(pci_mem_read(&f->m, rcba + 0x3410, 4), 0x20);
	assert_int_equal(pci_mem_read(&f->m, rcba + 0x3414, 4), 0);
	assert_int_equal(pci_mem_read(&f->m, rcba, 8), 0);
	f->lpc->desc->reset(f->lpc);
	assert_true(f->level[16]);
	assert_int_equal(pci_mem_read(&f->m, rcba + 0x3140, 2), 0xffff);
	pci_irq_set(&t->pci, false);
}

static void pm_block(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, lpc, 0x40, 4), 1);
	set(f, lpc, 0x40, 4, 0xffffffff);
	assert_int_equal(get(f, lpc, 0x40, 4), 0xff81);
	set(f, lpc, 0x40, 4, 0x600);
	assert_int_equal(pci_port_read(&f->m, 0x600, 2), 0xffff);
	set(f, lpc, 0x44, 1, 0x80);
	pci_port_write(&f->m, 0x602, 2, 0x0020);
	assert_int_equal(pci_port_read(&f->m, 0x602, 2), 0x0020);
	set(f, lpc, 0x40, 4, 0xb000);
	assert_int_equal(pci_port_read(&f->m, 0x602, 2), 0xffff);
	assert_int_equal(pci_port_read(&f->m, 0xb002, 2), 0x0020);
	set(f, lpc, 0x40, 4, 0);
	assert_int_equal(pci_port_read(&f->m, 0x2, 2), 0xffff);
}

static void system_control_interrupt(void **state)
{
	struct fixture *f = *state;
	struct acpi_pm *pm = ich9_lpc_pm(f->lpc);
	struct pci_test *t = add(f, "addr=1");

	irq_set(pm->sci, true);
	assert_true(f->level[9]);
	/* Shared with a link. */
	set(f, lpc, 0x69, 1, 9);
	pci_irq_set(&t->pci, true);
	irq_set(pm->sci, false);
	assert_true(f->level[9] && f->level[21]);
	irq_set(pm->sci, true);
	set(f, lpc, 0x44, 1, 5);
	pci_irq_set(&t->pci, false);
	assert_true(f->level[21]);
	assert_false(f->level[9]);
	set(f, lpc, 0x44, 1, 1);
	assert_true(f->level[10]);
	irq_set(pm->sci, false);
	assert_false(f->level[10]);
}

static void ports(void **state)
{
	struct fixture *f = *state;

	pci_port_write(&f->m, 0xb2, 1, ICH9_ACPI_ENABLE);
	pci_port_write(&f->m, 0xb3, 1, 0x55);
	assert_int_equal(pci_port_read(&f->m, 0xb2, 2), 0x5500 | ICH9_ACPI_ENABLE);
	/* SYS_RST alone does nothing, with RST_CPU the machine is reset. */
	pci_port_write(&f->m, ICH9_RESET_PORT, 1, 0x02);
	assert_int_equal(pci_port_read(&f->m, ICH9_RESET_PORT, 1), 0x02);
	pci_machine_settle(&f->m);
	assert_int_equal(f->resets, 0);
	pci_port_write(&f->m, ICH9_RESET_PORT, 1, ICH9_RESET_VALUE);
	pci_machine_settle(&f->m);
	assert_int_equal(f->resets, 1);
}

static void smi_lock(void **state)
{
	struct fixture *f = *state;

	set(f, lpc, 0xa0, 2, 0x10);
	set(f, lpc, 0xa0, 2, 0);
	assert_int_equal(get(f, lpc, 0xa0, 2), 0x10);
	f->lpc->desc->reset(f->lpc);
	assert_int_equal(get(f, lpc, 0xa0, 2), 0);
}

static void firmware_init(void **state)
{
	struct fixture *f = *state;

	q35_chipset_firmware_init(f->mch, f->lpc, 0xb0000000, 0x600);
	assert_int_equal(f->ecam_size, 256 * MiB);
	assert_int_equal(ich9_lpc_line(f->lpc, 0), 10);
	assert_int_equal(ich9_lpc_line(f->lpc, 7), 11);
	assert_int_not_equal(pci_port_read(&f->m, 0x604, 2), 0xffff);
	assert_int_equal(pci_mem_read(&f->m, rcba + 0x3140, 2), 0x3210);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(identity, setup, teardown),
		cmocka_unit_test_setup_teardown(pciexbar, setup, teardown),
		cmocka_unit_test_setup_teardown(shadows, setup, teardown),
		cmocka_unit_test_setup_teardown(smram, setup, teardown),
		cmocka_unit_test_setup_teardown(pirq_map, setup, teardown),
		cmocka_unit_test_setup_teardown(both_ways, setup, teardown),
		cmocka_unit_test_setup_teardown(routes_of_the_root_complex, setup, teardown),
		cmocka_unit_test_setup_teardown(pm_block, setup, teardown),
		cmocka_unit_test_setup_teardown(system_control_interrupt, setup, teardown),
		cmocka_unit_test_setup_teardown(ports, setup, teardown),
		cmocka_unit_test_setup_teardown(smi_lock, setup, teardown),
		cmocka_unit_test_setup_teardown(firmware_init, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
