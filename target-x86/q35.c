/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The q35 board put together: engine, processors, chipset, the devices that each PC has, and what
 * happens at reset. Memory is q35_memory.c's, tables are q35_tables.c's. See q35.h.
 *
 * Main thread.
 */
#include "target-x86/q35.h"

#include <errno.h>
#include <stdlib.h>

#include "hw/ata/ahci.h"
#include "hw/fw_cfg/fw_cfg.h"
#include "hw/legacy/legacy.h"
#include "target-x86/q35_internal.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

/* A device of the board's own; property pairs end with NULL. */
static struct device *add(struct q35 *b, const struct device_desc *desc, struct bus *bus,
			  const char *const *properties, struct error **err)
{
	struct device *d = device_new(b->vm, desc, NULL);

	for (; properties && *properties; properties += 2) {
		if (!device_set(d, properties[0], properties[1], err)) {
			device_free(d);
			return NULL;
		}
	}
	if (!device_realize(d, bus, err)) {
		device_free(d);
		return NULL;
	}
	return d;
}

/* Interrupts */

/* kernel_irqchip=split: an ISA interrupt reaches the PIC and the I/O APIC, whose pin 2 is the
 * timer's. */
static void split_gsi_set(struct irq_line *line, bool level)
{
	struct q35 *b = line->opaque;
	unsigned n = line->number;

	if (n < 16)
		irq_set(i8259_input(b->pic, n), level);
	irq_set(ioapic_input(b->ioapic, n == 0 ? 2 : n), level);
}

static void split_eoi(void *opaque, uint8_t vector)
{
	struct q35 *b = opaque;

	ioapic_eoi(b->ioapic, vector);
}

static bool split_extint_pending(void *opaque)
{
	struct q35 *b = opaque;

	return i8259_pending(b->pic);
}

static uint8_t split_extint_acknowledge(void *opaque)
{
	struct q35 *b = opaque;

	return i8259_acknowledge(b->pic);
}

/* The PIC leads to the boot CPU alone, as other CPUs' LINT0 is masked on every PC. */
static const struct vcpu_irq_ops split_boot_cpu_ops = {
	.eoi = split_eoi,
	.extint_pending = split_extint_pending,
	.extint_acknowledge = split_extint_acknowledge,
};
static const struct vcpu_irq_ops split_cpu_ops = {.eoi = split_eoi};

static void pic_output_set(struct irq_line *line, bool level)
{
	struct q35 *b = line->opaque;

	if (level)
		vcpu_interrupt(vcpu_get(b->vm, 0));
}

static bool make_pic(struct q35 *b, struct error **err)
{
	b->pic_output = (struct irq_line){.set = pic_output_set, .opaque = b};
	b->pic = device_new(b->vm, &i8259_desc, NULL);
	i8259_set_output(b->pic, &b->pic_output);
	if (device_realize(b->pic, &b->isa, err))
		return true;
	device_free(b->pic);
	b->pic = NULL;
	return false;
}

static bool make_interrupts(struct q35 *b, struct error **err)
{
	struct vm *vm = b->vm;

	vm->msi = &b->accel->msi;
	if (b->accel->config.irqchip == IRQCHIP_KERNEL) {
		for (unsigned i = 0; i < ARRAY_SIZE(vm->gsi); i++)
			vm->gsi[i] = &b->accel->gsi[i];
		return true;
	}
	b->ioapic = add(b, &ioapic_desc, NULL, NULL, err);
	if (!b->ioapic || !make_pic(b, err))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(vm->gsi); i++) {
		b->split_gsi[i] = (struct irq_line){.set = split_gsi_set, .opaque = b, .number = i};
		vm->gsi[i] = &b->split_gsi[i];
	}
	return add(b, &i8254_desc, &b->isa, NULL, err) != NULL;
}

/* Processors */

/* Before memory is mapped: the kernel would make tables for all of it first. */
static bool make_cpu_type(struct q35 *b, struct error **err)
{
	const struct q35_config *c = &b->config;

	b->cpu_type = cpu_type_new(b->accel, c->cpu, &c->topology, err);
	if (!b->cpu_type) {
		error_prefix(err, "-cpu %s: ", c->cpu ? c->cpu : CPU_DEFAULT_MODEL);
		return false;
	}
	return true;
}

static bool make_cpus(struct q35 *b, struct error **err)
{
	const struct q35_config *c = &b->config;

	b->apic_ids = xcalloc(c->max_cpus, sizeof(*b->apic_ids));
	for (unsigned i = 0; i < c->max_cpus; i++)
		b->apic_ids[i] = cpu_topology_apic_id(&c->topology, i);
	if (!vcpus_create(b->accel, c->cpus, b->apic_ids, err))
		return false;
	b->cpu_reset.type = b->cpu_type;
	for (unsigned i = 0; i < c->cpus; i++) {
		struct vcpu *v = vcpu_get(b->vm, i);

		v->reset = cpu_reset;
		v->reset_opaque = &b->cpu_reset;
		if (b->accel->config.irqchip == IRQCHIP_SPLIT) {
			v->irq_ops = i ? &split_cpu_ops : &split_boot_cpu_ops;
			v->irq_opaque = b;
		}
		if (!cpu_type_apply(b->cpu_type, v, err))
			return false;
	}
	return true;
}

/* Firmware and kernels */

/* A flash unit that ends at end, or fails. */
static struct device *add_flash(struct q35 *b, const char *drive, uint64_t end, struct error **err)
{
	struct device *d = device_new(b->vm, &pflash_desc, NULL);

	pflash_place_below(d, end);
	pflash_set_mode_callback(d, q35_memory_pflash_mode, b);
	if (device_set(d, "drive", drive, err) && device_realize(d, NULL, err))
		return d;
	device_free(d);
	return NULL;
}

static bool make_pflash(struct q35 *b, struct error **err)
{
	uint64_t end = Q35_4G;

	for (unsigned i = 0; i < Q35_PFLASHES; i++) {
		const char *from = b->config.pflash[i].from;
		struct device *d;

		if (!b->config.pflash[i].drive)
			continue;
		d = add_flash(b, b->config.pflash[i].drive, end, err);
		if (!d) {
			error_prefix(err, "%s: ", from);
			return false;
		}
		b->pflash[i] = d;
		end = pflash_base(d);
		if (Q35_4G - end > 16 * MiB) {
			error_set(err, "%s: more than 16 MiB of flash", from);
			return false;
		}
		q35_memory_pflash_mode(d, true, b);
	}
	return true;
}

static bool make_boot(struct q35 *b, struct error **err)
{
	const struct q35_config *c = &b->config;

	if (c->kernel) {
		b->boot = boot_source_open(c->kernel, c->initrd, c->append, err);
		return b->boot != NULL;
	}
	if (!c->pflash[0].drive)
		return q35_firmware_load(b, err);
	return true;
}

static void shadow_changed(void *opaque, const uint8_t pieces[Q35_SHADOW_PIECES])
{
	struct q35 *b = opaque;
	/* Writes alone to RAM are not to be had from slots: such a piece stays ROM, as in QEMU. */
	static const enum q35_shadow modes[4] = {
		[Q35_SHADOW_READ] = SHADOW_RAM_READ,
		[Q35_SHADOW_READ | Q35_SHADOW_WRITE] = SHADOW_RAM,
		[Q35_SHADOW_WRITE] = SHADOW_ROM,
		[0] = SHADOW_ROM,
	};
	enum q35_shadow shadow[Q35_SHADOW_PIECES];

	/* Directly booted guests have no ROM to show. */
	for (unsigned i = 0; i < Q35_SHADOW_PIECES; i++)
		shadow[i] = b->boot ? SHADOW_RAM : modes[pieces[i] & 3];
	q35_memory_set_shadow(b, shadow);
}

/* The chipset tells changes; this is where it begins. */
static void init_shadow(struct q35 *b)
{
	static const uint8_t after_reset[Q35_SHADOW_PIECES];

	shadow_changed(b, after_reset);
}

/* Chipset */

static void smram_changed(void *opaque, const struct q35_smram *smram)
{
	q35_memory_set_smram(opaque, smram->open);
}

static void ecam_changed(void *opaque, uint64_t base, uint64_t size)
{
	struct q35 *b = opaque;

	pthread_mutex_lock(&b->acpi_lock);
	b->ecam = (struct acpi_range){base, size};
	pthread_mutex_unlock(&b->acpi_lock);
}

static const struct q35_mch_ops mch_ops = {
	.shadow_changed = shadow_changed,
	.smram_changed = smram_changed,
	.ecam_changed = ecam_changed,
};

static bool make_chipset(struct q35 *b, struct error **err)
{
	struct vm *vm = b->vm;

	pci_root_init(&b->pci, vm, "pcie.0", true);
	bus_init(vm, &b->isa, "isa", "isa.0", NULL);
	if (!pci_root_map_ports(&b->pci, err) || !make_interrupts(b, err))
		return false;
	b->mch = device_new(vm, &q35_mch_desc, NULL);
	q35_mch_set_ops(b->mch, &mch_ops, b);
	if (!device_realize(b->mch, &b->pci.bus.bus, err)) {
		device_free(b->mch);
		b->mch = NULL;
		return false;
	}
	b->lpc = add(b, &ich9_lpc_desc, &b->pci.bus.bus, NULL, err);
	if (!b->lpc)
		return false;
	b->ahci = add(b, &ich9_ahci_desc, &b->pci.bus.bus,
		      (const char *const[]){"addr", "1f.2", "multifunction", "on", NULL}, err);
	return b->ahci != NULL;
}

static bool make_serials(struct q35 *b, struct error **err)
{
	for (unsigned i = 0; i < Q35_SERIALS; i++) {
		char index[8];

		if (!b->config.serials[i].present)
			continue;
		snprintf(index, sizeof(index), "%u", i);
		const char *const properties[] = {
			"index",
			index,
			b->config.serials[i].chardev ? "chardev" : NULL,
			b->config.serials[i].chardev,
			NULL,
		};
		if (!add(b, &isa_serial_desc, &b->isa, properties, err)) {
			error_prefix(err, "-serial chardev:%s: ",
				     b->config.serials[i].chardev ?: "none");
			return false;
		}
	}
	return true;
}

static bool make_isa_devices(struct q35 *b, struct error **err)
{
	const struct q35_config *c = &b->config;
	const char *rtc[8], **p = rtc;
	struct device *fw;

	if (c->rtc_base) {
		*p++ = "base";
		*p++ = c->rtc_base;
	}
	if (c->rtc_clock) {
		*p++ = "clock";
		*p++ = c->rtc_clock;
	}
	if (c->rtc_slew) {
		*p++ = "driftfix";
		*p++ = "slew";
	}
	*p = NULL;
	b->rtc = add(b, &mc146818rtc_desc, &b->isa, rtc, err);
	fw = b->rtc ? add(b, &fw_cfg_desc, NULL, NULL, err) : NULL;
	b->fw_cfg = (struct fw_cfg *)fw;
	return fw && add(b, &i8042_desc, &b->isa, NULL, err) &&
	       add(b, &port92_desc, &b->isa, NULL, err) && make_serials(b, err);
}

/* Reset and start */

/* What firmware would leave behind: devices placed, tables and kernel in memory; without load only
 * whether the kernel finds its place. */
static bool direct_boot(struct q35 *b, bool load, struct error **err)
{
	struct pci_windows windows = {
		/* The board's own ports lie below; bridges take 4 KiB each. */
		.io_base = 0x1000,
		.io_size = 0xf000,
		.mem32_base = Q35_PCI_HOLE_BASE,
		.mem32_size = Q35_IOAPIC_BASE - Q35_PCI_HOLE_BASE,
		.mem64_base = q35_pci64_base(b),
		.mem64_size = q35_pci64_end(b) - q35_pci64_base(b),
		.line = ich9_lpc_line,
		.opaque = b->lpc,
	};
	struct boot_layout layout = {
		.e820 = &b->e820,
		.rsdp = Q35_RSDP,
		.ram_is_zero = !b->loaded_once,
	};

	q35_chipset_firmware_init(b->mch, b->lpc, Q35_ECAM_BASE, Q35_PM_BASE);
	b->loaded_once |= load;
	return pci_assign_resources(&b->pci, &windows, err) && q35_tables_place(b, err) &&
	       boot_load(b->boot, &layout, load ? &b->vm->mem : NULL, &b->boot_state, err);
}

static void board_reset(struct notifier *n, void *data)
{
	struct q35 *b = container_of(n, struct q35, reset);
	struct error *err = NULL;

	b->acpi_fresh = false;
	/* What the kernel before left unmasked would interrupt this one before it knows of it. */
	if (b->accel->ops->x86->reset_irqchip(b->accel) < 0) {
		log_error("the interrupt controllers cannot be reset");
		vm_request_stop(b->vm, RUN_STATE_INTERNAL_ERROR);
	}
	q35_tables_reset(b);
	if (!b->boot)
		return;
	if (!direct_boot(b, true, &err)) {
		/* q35_complete() has shown that it works: the files have changed since. */
		error_report(err);
		vm_request_stop(b->vm, RUN_STATE_INTERNAL_ERROR);
	}
}

struct q35 *q35_new(struct vm *vm, struct accel *accel, const struct q35_config *config,
		    struct error **err)
{
	struct q35 *b = xcalloc(1, sizeof(*b));

	b->vm = vm;
	b->accel = accel;
	b->config = *config;
	pthread_mutex_init(&b->acpi_lock, NULL);
	pthread_mutex_init(&b->shadow_lock, NULL);
	io_bus_begin(&vm->pio);
	io_bus_begin(&vm->mmio);
	if (!make_cpu_type(b, err) || !q35_memory_init(b, err) || !make_boot(b, err))
		goto fail;
	init_shadow(b); /* before the vCPUs: a later change of slots is slow */
	if (!make_cpus(b, err) || !make_chipset(b, err) || !make_isa_devices(b, err) ||
	    !make_pflash(b, err))
		goto fail;
	q35_tables_init(b);
	init_shadow(b);
	if (b->boot)
		b->cpu_reset.boot = &b->boot_state;
	b->reset.fn = board_reset;
	notifier_add(&vm->reset, &b->reset);
	return b;
fail:
	io_bus_commit(&vm->pio);
	io_bus_commit(&vm->mmio);
	q35_free(b);
	return NULL;
}

bool q35_complete(struct q35 *b, struct error **err)
{
	/* The first start is a reset, where nobody can refuse any more: try it now. */
	bool ok = q35_tables_complete(b, err) && (!b->boot || direct_boot(b, false, err));

	io_bus_commit(&b->vm->pio);
	io_bus_commit(&b->vm->mmio);
	return ok;
}

void q35_free(struct q35 *b)
{
	struct vm *vm;

	if (!b)
		return;
	vm = b->vm;
	notifier_remove(&vm->reset, &b->reset);
	/* In reverse order of making: what sits on a bus before the bus's owner. */
	while (vm->devices) {
		struct device *last = vm->devices;

		while (last->next)
			last = last->next;
		device_free(last);
	}
	if (b->isa.name)
		bus_destroy(vm, &b->isa);
	if (b->pci.vm)
		pci_root_destroy(&b->pci);
	q35_tables_destroy(b);
	boot_source_close(b->boot);
	cpu_type_free(b->cpu_type);
	free(b->apic_ids);
	q35_memory_destroy(b);
	pthread_mutex_destroy(&b->shadow_lock);
	pthread_mutex_destroy(&b->acpi_lock);
	free(b);
}
