/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The static ACPI tables and their pointers to one another (ACPI 6.4, 5.2; the MCFG of PCI Firmware
 * 3.3, 4.1.2; the WAET of Microsoft's "Windows ACPI Emulated Devices Table").
 *
 * All but the RSDP lie in one run of bytes. A pointer is written as an offset in its target, a
 * relocation says that the target's address is to be added.
 *
 * Pure functions; the caller owns the result.
 */
#include <stdlib.h>
#include <string.h>

#include "hw/acpi/aml.h"
#include "hw/acpi/dsdt.h"
#include "hw/acpi/pm.h"
#include "hw/acpi/tables.h"
#include "hw/acpi/vmgenid.h"
#include "vmm/core/util.h"

enum {
	TABLES_MAX = 8, /* that the RSDT lists */
	HEADER_SIZE = 36,
	HEADER_LENGTH = 4,
	HEADER_CHECKSUM = 9,

	FACS_SIZE = 64,
	FADT_SIZE = 276,
	FADT_FACS = 36,
	FADT_DSDT = 40,
	FADT_X_DSDT = 140,

	/* IAPC_BOOT_ARCH */
	BOOT_LEGACY_DEVICES = 1 << 0,
	BOOT_8042 = 1 << 1,
	BOOT_NO_VGA = 1 << 2,
	BOOT_NO_CMOS_RTC = 1 << 5,
	/* Flags */
	FADT_WBINVD = 1 << 0,
	FADT_PROC_C1 = 1 << 2,
	FADT_NO_FIXED_SLEEP_BUTTON = 1 << 5,
	FADT_NO_FIXED_RTC = 1 << 6,
	FADT_RESET_REGISTER = 1 << 10,
	FADT_USE_PLATFORM_CLOCK = 1 << 15,
	FADT_CLUSTER_MODEL = 1 << 18,
	FLAT_MODEL_CPUS = 8, /* what the flat logical destination mode can name */
	C2_C3_UNSUPPORTED = 0xfff,

	MADT_PCAT_COMPAT = 1 << 0,
	MADT_CPU_ENABLED = 1 << 0,
	MADT_LAPIC = 0,
	MADT_IOAPIC = 1,
	MADT_OVERRIDE = 2,
	MADT_LAPIC_NMI = 4,
	MADT_X2APIC = 9,
	MADT_X2APIC_NMI = 10,
	XAPIC_ID_MAX = 254, /* 255 is everybody */
	NMI_LINT = 1,

	WAET_PM_TIMER_GOOD = 1 << 1, /* one read gives the right value */
};

struct builder {
	struct aml a;
	const struct acpi_config *c;
	struct acpi_reloc *relocs;
	size_t reloc_count, reloc_capacity;
	uint32_t listed[TABLES_MAX]; /* offsets */
	unsigned listed_count;
};

static void add_reloc(struct builder *b, struct acpi_reloc r)
{
	if (b->reloc_count == b->reloc_capacity) {
		b->reloc_capacity = MAX(32, 2 * b->reloc_capacity);
		b->relocs = xrealloc(b->relocs, b->reloc_capacity * sizeof(*b->relocs));
	}
	b->relocs[b->reloc_count++] = r;
}

static void add_pointer(struct builder *b, enum acpi_file file, uint32_t offset, uint8_t size,
			enum acpi_file target)
{
	add_reloc(b, (struct acpi_reloc){.kind = ACPI_RELOC_POINTER,
					 .file = file,
					 .offset = offset,
					 .target = target,
					 .size = size});
}

static void add_checksum(struct builder *b, enum acpi_file file, uint32_t offset, uint32_t start,
			 uint32_t length)
{
	add_reloc(b, (struct acpi_reloc){.kind = ACPI_RELOC_CHECKSUM,
					 .file = file,
					 .offset = offset,
					 .start = start,
					 .length = length});
}

/* DESCRIPTION_HEADER (5.2.6); the length and the checksum come with table_end(). */
static uint32_t table_begin(struct builder *b, const char *signature, uint8_t revision)
{
	struct aml *a = &b->a;
	uint32_t start = a->len;

	aml_bytes(a, signature, 4);
	aml_u32(a, 0);
	aml_u8(a, revision);
	aml_u8(a, 0);
	aml_bytes(a, "VMM   ", 6);
	aml_bytes(a, "VMMQ35  ", 8);
	aml_u32(a, 1);
	aml_bytes(a, "VMM ", 4);
	aml_u32(a, 1);
	return start;
}

/* A table with pointers gets its checksum when they are known. */
static void table_end(struct builder *b, uint32_t start, bool has_pointers)
{
	uint8_t *table = b->a.data + start;
	uint32_t length = b->a.len - start;
	uint8_t sum = 0;

	store_le32(table + HEADER_LENGTH, length);
	if (has_pointers) {
		add_checksum(b, ACPI_FILE_TABLES, start + HEADER_CHECKSUM, start, length);
		return;
	}
	for (uint32_t i = 0; i < length; i++)
		sum += table[i];
	table[HEADER_CHECKSUM] = -sum;
}

static void list_table(struct builder *b, uint32_t start)
{
	b->listed[b->listed_count++] = start;
}

/* 5.2.10. First, because it alone must be aligned. */
static void build_facs(struct builder *b)
{
	aml_bytes(&b->a, "FACS", 4);
	aml_u32(&b->a, FACS_SIZE);
	aml_zeroes(&b->a, FACS_SIZE - 8);
	b->a.data[32] = 2; /* version */
}

static uint32_t build_dsdt(struct builder *b)
{
	uint32_t start = table_begin(b, "DSDT", 2); /* 2: integers have 64 bits */

	acpi_dsdt(&b->a, b->c);
	table_end(b, start, false);
	return start;
}

/* Generic Address Structure (5.2.3.2) of a port block; access size undefined: as the block is. */
static void put_io_gas(uint8_t *p, unsigned bytes, uint16_t port)
{
	p[0] = 1; /* system I/O */
	p[1] = 8 * bytes;
	store_le64(p + 4, port);
}

/* A register block has an old 32-bit address, a length, and an extended address. */
static void put_block(uint8_t *fadt, unsigned old, unsigned length_at, unsigned extended,
		      uint16_t port, uint8_t length)
{
	store_le32(fadt + old, port);
	fadt[length_at] = length;
	put_io_gas(fadt + extended, length, port);
}

static uint16_t boot_flags(const struct acpi_config *c)
{
	return BOOT_LEGACY_DEVICES | (c->i8042 ? BOOT_8042 : 0) | (c->vga ? 0 : BOOT_NO_VGA) |
	       (c->rtc_port ? 0 : BOOT_NO_CMOS_RTC);
}

static uint32_t fadt_flags(const struct acpi_config *c)
{
	return FADT_WBINVD | FADT_PROC_C1 | FADT_NO_FIXED_SLEEP_BUTTON | FADT_NO_FIXED_RTC |
	       FADT_USE_PLATFORM_CLOCK | (c->reset_port ? FADT_RESET_REGISTER : 0) |
	       (c->cpu_count > FLAT_MODEL_CPUS ? FADT_CLUSTER_MODEL : 0);
}

/* 5.2.9. No SMI command port: the machine is in ACPI mode from reset on. */
static void build_fadt(struct builder *b, uint32_t dsdt)
{
	const struct acpi_config *c = b->c;
	uint32_t start = table_begin(b, "FACP", 6);
	uint8_t *f;

	aml_zeroes(&b->a, FADT_SIZE - HEADER_SIZE);
	f = b->a.data + start;
	store_le32(f + FADT_DSDT, dsdt);
	store_le64(f + FADT_X_DSDT, dsdt);
	store_le16(f + 46, c->sci_irq);
	put_block(f, 56, 88, 148, c->pm_base + ACPI_PM_PM1_STS, 4);
	put_block(f, 64, 89, 172, c->pm_base + ACPI_PM_PM1_CNT, 2);
	put_block(f, 76, 91, 208, c->pm_base + ACPI_PM_TMR, 4);
	put_block(f, 80, 92, 220, c->pm_base + ACPI_PM_GPE0, ACPI_PM_GPE0_LEN);
	store_le16(f + 96, C2_C3_UNSUPPORTED);
	store_le16(f + 98, C2_C3_UNSUPPORTED);
	f[108] = c->rtc_century;
	store_le16(f + 109, boot_flags(c));
	store_le32(f + 112, fadt_flags(c));
	if (c->reset_port) {
		put_io_gas(f + 116, 1, c->reset_port);
		f[128] = c->reset_value;
	}
	f[131] = 3; /* minor version: 6.3 */
	add_pointer(b, ACPI_FILE_TABLES, start + FADT_FACS, 4, ACPI_FILE_TABLES);
	add_pointer(b, ACPI_FILE_TABLES, start + FADT_DSDT, 4, ACPI_FILE_TABLES);
	add_pointer(b, ACPI_FILE_TABLES, start + FADT_X_DSDT, 8, ACPI_FILE_TABLES);
	table_end(b, start, true);
	list_table(b, start);
}

size_t acpi_madt_cpu(uint8_t out[16], uint32_t uid, uint32_t apic_id)
{
	memset(out, 0, 16);
	if (uid <= XAPIC_ID_MAX && apic_id <= XAPIC_ID_MAX) {
		out[0] = MADT_LAPIC;
		out[1] = 8;
		out[2] = uid;
		out[3] = apic_id;
		store_le32(out + 4, MADT_CPU_ENABLED);
		return 8;
	}
	out[0] = MADT_X2APIC;
	out[1] = 16;
	store_le32(out + 4, apic_id);
	store_le32(out + 8, MADT_CPU_ENABLED);
	store_le32(out + 12, uid);
	return 16;
}

static void madt_nmis(struct aml *a, bool x2apic)
{
	aml_u8(a, MADT_LAPIC_NMI);
	aml_u8(a, 6);
	aml_u8(a, 0xff); /* all processors */
	aml_u16(a, 0);	 /* as the bus has it */
	aml_u8(a, NMI_LINT);
	if (!x2apic)
		return;
	aml_u8(a, MADT_X2APIC_NMI);
	aml_u8(a, 12);
	aml_u16(a, 0);
	aml_u32(a, 0xffffffff);
	aml_u8(a, NMI_LINT);
	aml_zeroes(a, 3);
}

/* 5.2.12 */
static void build_madt(struct builder *b)
{
	const struct acpi_config *c = b->c;
	struct aml *a = &b->a;
	uint32_t start = table_begin(b, "APIC", 5);
	bool x2apic = false;
	uint8_t cpu[16];

	aml_u32(a, c->lapic_base);
	aml_u32(a, MADT_PCAT_COMPAT);
	for (unsigned i = 0; i < c->cpu_count; i++) {
		size_t len = acpi_madt_cpu(cpu, i, c->apic_ids[i]);

		aml_bytes(a, cpu, len);
		x2apic |= cpu[0] == MADT_X2APIC;
	}
	aml_u8(a, MADT_IOAPIC);
	aml_u8(a, 12);
	aml_u8(a, c->ioapic_id);
	aml_u8(a, 0);
	aml_u32(a, c->ioapic_base);
	aml_u32(a, 0); /* its first GSI */
	for (unsigned i = 0; i < c->override_count; i++) {
		aml_u8(a, MADT_OVERRIDE);
		aml_u8(a, 10);
		aml_u8(a, 0); /* ISA */
		aml_u8(a, c->overrides[i].source);
		aml_u32(a, c->overrides[i].gsi);
		aml_u16(a, c->overrides[i].flags);
	}
	madt_nmis(a, x2apic);
	table_end(b, start, false);
	list_table(b, start);
}

static void build_mcfg(struct builder *b)
{
	uint32_t start = table_begin(b, "MCFG", 1);

	aml_zeroes(&b->a, 8);
	aml_u64(&b->a, b->c->ecam.base);
	aml_u16(&b->a, 0); /* segment */
	aml_u8(&b->a, 0);
	aml_u8(&b->a, b->c->bus_last);
	aml_zeroes(&b->a, 4);
	table_end(b, start, false);
	list_table(b, start);
}

static void build_waet(struct builder *b)
{
	uint32_t start = table_begin(b, "WAET", 1);

	aml_u32(&b->a, WAET_PM_TIMER_GOOD);
	table_end(b, start, false);
	list_table(b, start);
}

static void build_vmgenid(struct builder *b)
{
	uint32_t start = table_begin(b, "SSDT", 1);
	size_t address = acpi_vmgenid_ssdt(&b->a);

	add_pointer(b, ACPI_FILE_TABLES, address, 4, ACPI_FILE_VMGENID);
	table_end(b, start, true);
	list_table(b, start);
}

/* RSDT and XSDT (5.2.7, 5.2.8) list the same tables. */
static uint32_t build_list(struct builder *b, const char *signature, unsigned size)
{
	uint32_t start = table_begin(b, signature, 1);

	for (unsigned i = 0; i < b->listed_count; i++) {
		add_pointer(b, ACPI_FILE_TABLES, b->a.len, size, ACPI_FILE_TABLES);
		aml_u32(&b->a, b->listed[i]);
		aml_zeroes(&b->a, size - 4);
	}
	table_end(b, start, true);
	return start;
}

/* 5.2.5.3 */
static void build_rsdp(struct builder *b, uint8_t rsdp[ACPI_RSDP_SIZE], uint32_t rsdt,
		       uint32_t xsdt)
{
	memset(rsdp, 0, ACPI_RSDP_SIZE);
	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "VMM   ", 6);
	rsdp[15] = 2;
	store_le32(rsdp + 16, rsdt);
	store_le32(rsdp + 20, ACPI_RSDP_SIZE);
	store_le64(rsdp + 24, xsdt);
	add_pointer(b, ACPI_FILE_RSDP, 16, 4, ACPI_FILE_TABLES);
	add_pointer(b, ACPI_FILE_RSDP, 24, 8, ACPI_FILE_TABLES);
	add_checksum(b, ACPI_FILE_RSDP, 8, 0, 20);
	add_checksum(b, ACPI_FILE_RSDP, 32, 0, ACPI_RSDP_SIZE);
}

void acpi_tables_build(struct acpi_tables *tables, const struct acpi_config *config)
{
	struct builder b = {.c = config};
	uint32_t dsdt, rsdt, xsdt;

	aml_init(&b.a);
	build_facs(&b);
	dsdt = build_dsdt(&b);
	build_fadt(&b, dsdt);
	build_madt(&b);
	if (config->ecam.size)
		build_mcfg(&b);
	build_waet(&b);
	if (config->vmgenid)
		build_vmgenid(&b);
	rsdt = build_list(&b, "RSDT", 4);
	xsdt = build_list(&b, "XSDT", 8);
	build_rsdp(&b, tables->rsdp, rsdt, xsdt);

	tables->data = b.a.data;
	tables->len = b.a.len;
	tables->relocs = b.relocs;
	tables->reloc_count = b.reloc_count;
	tables->vmgenid = config->vmgenid;
}

void acpi_tables_destroy(struct acpi_tables *tables)
{
	free(tables->data);
	free(tables->relocs);
	tables->data = NULL;
	tables->relocs = NULL;
}
