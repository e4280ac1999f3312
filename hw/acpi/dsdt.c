/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DSDT of a q35 machine: processors, the PCI Express host bridge with its windows and interrupt
 * routing, and what sits behind the LPC bridge (ACPI 6.4, chapters 5 to 9; PCI Firmware 3.3,
 * chapter 4; ICH9 datasheet, 13.1.17 for the PIRQ registers). And the small SSDT of the VM
 * generation ID.
 *
 * Pure functions; the caller owns the buffer.
 */
#include <stdio.h>
#include <string.h>

#include "hw/acpi/aml.h"
#include "hw/acpi/dsdt.h"
#include "hw/acpi/pm.h"
#include "hw/acpi/tables.h"
#include "hw/acpi/vmgenid.h"
#include "vmm/core/util.h"

enum {
	PIRQ_COUNT = 8,
	PIRQ_OFFSET = 0x60, /* PIRQA to D in the LPC bridge's config space; E to H at 0x68 */
	PIRQ_LENGTH = 12,
	PIRQ_DISABLED = 0x80,
	/* Of Interrupt() in a template: tag, length, flags and count come first. */
	RES_INTERRUPT_NUMBER = 5,

	STA_PRESENT_ENABLED_WORKING = 0x0b,
	STA_ALL = 0x0f, /* shown to the user, too */
	STA_PRESENT_DISABLED = 0x09,

	OSC_QUERY_FAILED = 1 << 2, /* unknown UUID */
	OSC_BAD_REVISION = 1 << 3,
	OSC_MASKED = 1 << 4,
	/* Native hotplug, SHPC hotplug, PME, AER, capability structure. */
	OSC_PCI_CONTROL = 0x1f,
};

#define OSC_PCI_UUID "33db4d5b-1ff7-401c-9657-7441c03dd766"

static void name_n(char out[5], const char prefix[3], char last)
{
	memcpy(out, prefix, 3);
	out[3] = last;
	out[4] = 0;
}

/* CDWn |= value */
static void or_in(struct aml *a, const char *name, unsigned value)
{
	aml_op(a, AML_OR);
	aml_path(a, name);
	aml_int(a, value);
	aml_path(a, name);
}

static void osc_field(struct aml *a, unsigned byte, const char *name)
{
	aml_op(a, AML_CREATE_DWORD_FIELD);
	aml_arg(a, 3);
	aml_int(a, byte);
	aml_path(a, name);
}

/* PCI Firmware 3.3, 4.5.1: the guest may control everything that it knows of. */
static void host_bridge_osc(struct aml *a)
{
	aml_method_serialized(a, "_OSC", 4);
	osc_field(a, 0, "CDW1");
	aml_if(a);
	aml_op(a, AML_LEQUAL);
	aml_arg(a, 0);
	aml_uuid(a, OSC_PCI_UUID);
	{
		osc_field(a, 8, "CDW3");
		aml_op(a, AML_AND);
		aml_path(a, "CDW3");
		aml_int(a, OSC_PCI_CONTROL);
		aml_local(a, 0);
		aml_if(a);
		aml_op(a, AML_LNOT);
		aml_op(a, AML_LEQUAL);
		aml_arg(a, 1);
		aml_op(a, AML_ONE);
		or_in(a, "CDW1", OSC_BAD_REVISION);
		aml_end(a);
		aml_if(a);
		aml_op(a, AML_LNOT);
		aml_op(a, AML_LEQUAL);
		aml_path(a, "CDW3");
		aml_local(a, 0);
		or_in(a, "CDW1", OSC_MASKED);
		aml_end(a);
		aml_store(a);
		aml_local(a, 0);
		aml_path(a, "CDW3");
	}
	aml_end(a);
	aml_else(a);
	or_in(a, "CDW1", OSC_QUERY_FAILED);
	aml_end(a);
	aml_return(a);
	aml_arg(a, 3);
	aml_end(a);
}

static void memory_window(struct aml *a, const struct acpi_range *r)
{
	uint64_t last = r->base + r->size - 1;

	if (last <= UINT32_MAX)
		aml_res_dword(a, AML_RES_MEMORY, AML_RES_READ_WRITE, r->base, last);
	else
		aml_res_qword(a, AML_RES_MEMORY, AML_RES_READ_WRITE | AML_RES_CACHEABLE, r->base,
			      last);
}

static void host_bridge_crs(struct aml *a, const struct acpi_config *c)
{
	aml_name(a, "_CRS");
	aml_resources(a);
	aml_res_word(a, AML_RES_BUS, 0, 0, c->bus_last);
	aml_res_io(a, 0xcf8, 0xcf8, 1, 8);
	for (unsigned i = 0; i < c->io_window_count; i++)
		aml_res_word(a, AML_RES_IO, AML_RES_ENTIRE_RANGE, c->io_windows[i].base,
			     c->io_windows[i].base + c->io_windows[i].size - 1);
	for (unsigned i = 0; i < c->mem_window_count; i++)
		memory_window(a, &c->mem_windows[i]);
	aml_end(a);
}

/* At most 4 * 32 packages, one for each pin of each slot in use: address, pin, the link's name, its
 * first resource. */
static void routing_table(struct aml *a, const struct acpi_config *c, const char *name,
			  const char *link)
{
	uint32_t slots = c->pci_slots ? c->pci_slots : UINT32_MAX;
	char target[5];

	aml_name(a, name);
	aml_package(a, 4 * __builtin_popcount(slots));
	for (unsigned slot = 0; slot < ACPI_PCI_SLOTS; slot++) {
		if (!(slots >> slot & 1))
			continue;
		for (unsigned pin = 0; pin < 4; pin++) {
			name_n(target, link, 'A' + c->pirq[slot][pin] % PIRQ_COUNT);
			aml_package(a, 4);
			aml_int(a, slot << 16 | 0xffff);
			aml_int(a, pin);
			aml_path(a, target);
			aml_op(a, AML_ZERO);
			aml_end(a);
		}
	}
	aml_end(a);
}

static void host_bridge_prt(struct aml *a, const struct acpi_config *c)
{
	routing_table(a, c, "PRTP", "LNK");
	routing_table(a, c, "PRTA", "GSI");
	aml_method(a, "_PRT", 0);
	aml_if(a);
	aml_path(a, "PICF");
	aml_return(a);
	aml_path(a, "PRTA");
	aml_end(a);
	aml_return(a);
	aml_path(a, "PRTP");
	aml_end(a);
}

static void uart(struct aml *a, const struct acpi_uart *u, unsigned n)
{
	char name[5];

	if (!u->port)
		return;
	name_n(name, "COM", '1' + n);
	aml_device(a, name);
	aml_name_eisaid(a, "_HID", "PNP0501");
	aml_name_int(a, "_UID", n + 1);
	aml_name_int(a, "_STA", STA_ALL);
	aml_name(a, "_CRS");
	aml_resources(a);
	aml_res_io(a, u->port, u->port, 0, 8);
	aml_res_irq(a, 1 << u->irq);
	aml_end(a);
	aml_end(a);
}

static void i8042(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "KBD");
	aml_name_eisaid(a, "_HID", "PNP0303");
	aml_name_int(a, "_STA", STA_ALL);
	aml_name(a, "_CRS");
	aml_resources(a);
	aml_res_io(a, 0x60, 0x60, 1, 1);
	aml_res_io(a, 0x64, 0x64, 1, 1);
	aml_res_irq(a, 1 << c->kbd_irq);
	aml_end(a);
	aml_end(a);

	aml_device(a, "MOU");
	aml_name_eisaid(a, "_HID", "PNP0F13");
	aml_name_int(a, "_STA", STA_ALL);
	aml_name(a, "_CRS");
	aml_resources(a);
	aml_res_irq(a, 1 << c->mouse_irq);
	aml_end(a);
	aml_end(a);
}

static void rtc(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "RTC");
	aml_name_eisaid(a, "_HID", "PNP0B00");
	aml_name(a, "_CRS");
	aml_resources(a);
	aml_res_io(a, c->rtc_port, c->rtc_port, 1, 2);
	aml_res_irq(a, 1 << c->rtc_irq);
	aml_end(a);
	aml_end(a);
}

/* A paravirtual device that is known by its name and has a few ports. */
static void named_ports(struct aml *a, const char *name, const char *hid, unsigned sta,
			uint16_t port, uint8_t count)
{
	aml_device(a, name);
	aml_name_string(a, "_HID", hid);
	aml_name_int(a, "_STA", sta);
	aml_name(a, "_CRS");
	aml_resources(a);
	aml_res_io(a, port, port, 1, count);
	aml_end(a);
	aml_end(a);
}

static void isa_bridge(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "ISA");
	aml_name_int(a, "_ADR", (c->lpc_devfn >> 3) << 16 | (c->lpc_devfn & 7));
	aml_operation_region(a, "PIRQ", AML_PCI_CONFIG, PIRQ_OFFSET, PIRQ_LENGTH);
	if (c->rtc_port)
		rtc(a, c);
	if (c->i8042)
		i8042(a, c);
	for (unsigned i = 0; i < ACPI_UARTS_MAX; i++)
		uart(a, &c->uarts[i], i);
	if (c->pvpanic_port)
		named_ports(a, "PEVT", "QEMU0001", STA_ALL, c->pvpanic_port, 1);
	aml_end(a);
}

static void host_bridge(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "PCI0");
	aml_name_eisaid(a, "_HID", "PNP0A08");
	aml_name_eisaid(a, "_CID", "PNP0A03");
	aml_name_int(a, "_ADR", 0);
	aml_name_int(a, "_UID", 0);
	aml_name_int(a, "_BBN", 0);
	host_bridge_crs(a, c);
	host_bridge_osc(a);
	host_bridge_prt(a, c);
	isa_bridge(a, c);
	if (c->fw_cfg_port)
		named_ports(a, "FWCF", "QEMU0002", STA_PRESENT_ENABLED_WORKING, c->fw_cfg_port,
			    c->fw_cfg_ports);
	aml_end(a);
}

/* What the links' methods share: status and current setting from a PIRQ register's value. */
static void link_helpers(struct aml *a)
{
	const uint32_t none = 0;

	aml_method(a, "IQST", 1);
	aml_if(a);
	aml_op(a, AML_AND);
	aml_arg(a, 0);
	aml_int(a, PIRQ_DISABLED);
	aml_op(a, AML_ZERO);
	aml_return(a);
	aml_int(a, STA_PRESENT_DISABLED);
	aml_end(a);
	aml_return(a);
	aml_int(a, STA_PRESENT_ENABLED_WORKING);
	aml_end(a);

	aml_method_serialized(a, "IQCR", 1);
	aml_name(a, "BUF");
	aml_resources(a);
	aml_res_interrupt(a, AML_IRQ_CONSUMER | AML_IRQ_SHARED, &none, 1);
	aml_end(a);
	aml_op(a, AML_CREATE_DWORD_FIELD);
	aml_path(a, "BUF");
	aml_int(a, RES_INTERRUPT_NUMBER);
	aml_path(a, "IRQN");
	aml_op(a, AML_AND);
	aml_arg(a, 0);
	aml_int(a, 0xf);
	aml_path(a, "IRQN");
	aml_return(a);
	aml_path(a, "BUF");
	aml_end(a);
}

static void return_call(struct aml *a, const char *method, const char *argument)
{
	aml_return(a);
	aml_path(a, method);
	aml_path(a, argument);
}

/* PIC mode: the guest chooses the ISA interrupt of a PIRQ. */
static void pic_link(struct aml *a, const struct acpi_config *c, unsigned n)
{
	uint32_t irqs[ACPI_ISA_IRQS_MAX];
	char name[5], reg[5];

	for (unsigned i = 0; i < c->pirq_isa_count; i++)
		irqs[i] = c->pirq_isa[i];
	name_n(name, "LNK", 'A' + n);
	name_n(reg, "PRQ", 'A' + n);
	aml_device(a, name);
	aml_name_eisaid(a, "_HID", "PNP0C0F");
	aml_name_int(a, "_UID", n);
	aml_name(a, "_PRS");
	aml_resources(a);
	aml_res_interrupt(a, AML_IRQ_CONSUMER | AML_IRQ_SHARED, irqs, c->pirq_isa_count);
	aml_end(a);
	aml_method(a, "_STA", 0);
	return_call(a, "IQST", reg);
	aml_end(a);
	aml_method(a, "_CRS", 0);
	return_call(a, "IQCR", reg);
	aml_end(a);
	aml_method(a, "_DIS", 0);
	or_in(a, reg, PIRQ_DISABLED);
	aml_end(a);
	aml_method_serialized(a, "_SRS", 1);
	aml_op(a, AML_CREATE_DWORD_FIELD);
	aml_arg(a, 0);
	aml_int(a, RES_INTERRUPT_NUMBER);
	aml_path(a, "IRQN");
	aml_store(a);
	aml_path(a, "IRQN");
	aml_path(a, reg);
	aml_end(a);
	aml_end(a);
}

/* APIC mode: each PIRQ has its own I/O APIC input. A link, because a bare number would mean active
 * low. */
static void apic_link(struct aml *a, const struct acpi_config *c, unsigned n)
{
	char name[5];

	name_n(name, "GSI", 'A' + n);
	aml_device(a, name);
	aml_name_eisaid(a, "_HID", "PNP0C0F");
	aml_name_int(a, "_UID", PIRQ_COUNT + n);
	for (unsigned i = 0; i < 2; i++) {
		aml_name(a, i ? "_CRS" : "_PRS");
		aml_resources(a);
		aml_res_interrupt(a, AML_IRQ_CONSUMER | AML_IRQ_SHARED, &c->pirq_gsi[n], 1);
		aml_end(a);
	}
	aml_method(a, "_DIS", 0);
	aml_end(a);
	aml_method(a, "_SRS", 1);
	aml_end(a);
	aml_end(a);
}

static void links(struct aml *a, const struct acpi_config *c)
{
	char reg[5];

	aml_field(a, "PCI0.ISA.PIRQ", AML_BYTE_ACC);
	for (unsigned i = 0; i < PIRQ_COUNT; i++) {
		if (i == 4)
			aml_field_skip(a, 32);
		name_n(reg, "PRQ", 'A' + i);
		aml_field_bits(a, reg, 8);
	}
	aml_end(a);
	link_helpers(a);
	for (unsigned i = 0; i < PIRQ_COUNT; i++)
		pic_link(a, c, i);
	for (unsigned i = 0; i < PIRQ_COUNT; i++)
		apic_link(a, c, i);
}

static void processors(struct aml *a, const struct acpi_config *c)
{
	uint8_t mat[16];
	char name[8];

	aml_device(a, "CPUS");
	aml_name_string(a, "_HID", "ACPI0010");
	aml_name_eisaid(a, "_CID", "PNP0A05");
	for (unsigned i = 0; i < c->cpu_count; i++) {
		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		aml_device(a, name);
		aml_name_string(a, "_HID", "ACPI0007");
		aml_name_int(a, "_UID", i);
		aml_name_int(a, "_STA", STA_ALL);
		aml_name(a, "_MAT");
		aml_buffer(a, mat, acpi_madt_cpu(mat, i, c->apic_ids[i]));
		aml_end(a);
	}
	aml_end(a);
}

/* Addresses that no bus driver may hand out: the ECAM, whose MCFG entry counts only if it is
 * reserved here, and the power management block. */
static void motherboard(struct aml *a, const struct acpi_config *c)
{
	uint64_t ecam_last = c->ecam.base + c->ecam.size - 1;

	aml_device(a, "MBRD");
	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_int(a, "_UID", 0);
	aml_name(a, "_CRS");
	aml_resources(a);
	if (c->pm_base)
		aml_res_io(a, c->pm_base, c->pm_base, 1, ACPI_PM_SIZE);
	if (c->ecam.size && ecam_last <= UINT32_MAX)
		aml_res_memory32_fixed(a, AML_RES_READ_WRITE, c->ecam.base, c->ecam.size);
	else if (c->ecam.size)
		aml_res_qword(a, AML_RES_MEMORY, AML_RES_READ_WRITE, c->ecam.base, ecam_last);
	aml_end(a);
	aml_end(a);
}

void acpi_dsdt(struct aml *a, const struct acpi_config *c)
{
	/* Soft off is sleep type 0 (hw/acpi/pm.c); other sleeping states are not offered. */
	aml_name(a, "_S5");
	aml_package(a, 4);
	for (unsigned i = 0; i < 4; i++)
		aml_op(a, AML_ZERO);
	aml_end(a);

	aml_name_int(a, "PICF", 0);
	aml_method(a, "_PIC", 1);
	aml_store(a);
	aml_arg(a, 0);
	aml_path(a, "PICF");
	aml_end(a);

	aml_scope(a, "_SB");
	motherboard(a, c);
	host_bridge(a, c);
	links(a, c);
	processors(a, c);
	aml_end(a);
}

size_t acpi_vmgenid_ssdt(struct aml *a)
{
	char event[] = "\\_GPE._E00";
	size_t address;

	aml_name(a, "VGIA");
	aml_dword(a, 0);
	address = a->len - 4;

	aml_scope(a, "\\_SB");
	aml_device(a, "VGEN");
	aml_name_string(a, "_HID", "VMGC0001");
	/* What guests look for; the hardware id is anybody's. */
	aml_name_string(a, "_CID", "VM_Gen_Counter");
	aml_name_string(a, "_DDN", "VM_Gen_Counter");
	aml_method(a, "_STA", 0);
	aml_if(a);
	aml_path(a, "VGIA");
	aml_return(a);
	aml_int(a, STA_ALL);
	aml_end(a);
	aml_return(a);
	aml_op(a, AML_ZERO);
	aml_end(a);
	/* Low and high half of the GUID's address. */
	aml_method_serialized(a, "ADDR", 0);
	aml_name(a, "PKG");
	aml_package(a, 2);
	aml_op(a, AML_ZERO);
	aml_op(a, AML_ZERO);
	aml_end(a);
	aml_op(a, AML_ADD);
	aml_path(a, "VGIA");
	aml_int(a, VMGENID_GUID_OFFSET);
	aml_op(a, AML_INDEX);
	aml_path(a, "PKG");
	aml_op(a, AML_ZERO);
	aml_op(a, AML_ZERO);
	aml_return(a);
	aml_path(a, "PKG");
	aml_end(a);
	aml_end(a);
	aml_end(a);

	event[9] = '0' + ACPI_GPE_VMGENID;
	aml_method(a, event, 0);
	aml_op(a, AML_NOTIFY);
	aml_path(a, "\\_SB.VGEN");
	aml_int(a, 0x80);
	aml_end(a);
	return address;
}
