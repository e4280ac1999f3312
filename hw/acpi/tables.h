/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables for a q35 machine (ACPI 6.4, chapter 5; PCI Firmware 3.3), from one plain struct that
 * the board fills in. One builder, two ways to the guest: firmware gets them through fw_cfg with a
 * linker script that it runs, a directly booted kernel finds them laid out and patched in memory.
 *
 * Pure functions: any thread, nothing shared.
 */
#ifndef HW_ACPI_TABLES_H
#define HW_ACPI_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guest_mem;

struct acpi_range {
	uint64_t base, size; /* size 0: none */
};

struct acpi_uart {
	uint16_t port; /* 0: not present */
	uint8_t irq;
};

struct acpi_irq_override {
	uint8_t source; /* ISA */
	uint32_t gsi;
	uint16_t
		flags; /* MADT's: 0 as the bus has it, 5 edge high, 0xd level high, 0xf level low */
};

enum {
	ACPI_WINDOWS_MAX = 8,
	ACPI_OVERRIDES_MAX = 16,
	ACPI_UARTS_MAX = 4,
	ACPI_ISA_IRQS_MAX = 8,
	ACPI_PCI_SLOTS = 32,
};

struct acpi_config {
	/* Processors, in order of their _UIDs (from 0): local APIC ids. */
	const uint32_t *apic_ids;
	unsigned cpu_count;

	uint32_t lapic_base, ioapic_base;
	uint8_t ioapic_id;
	struct acpi_irq_override overrides[ACPI_OVERRIDES_MAX];
	unsigned override_count;

	uint16_t pm_base; /* hw/acpi/pm.h has the rest */
	uint8_t sci_irq;
	uint16_t reset_port; /* 0: no reset register */
	uint8_t reset_value;
	uint8_t rtc_century; /* index in CMOS; 0: none */

	/* PCI. Windows are what the host bridge decodes for devices, the ECAM and ports 0xcf8 to
	 * 0xcff not among them. */
	struct acpi_range ecam; /* of segment 0 from bus 0 on; size 0: no MCFG */
	uint8_t bus_last;
	struct acpi_range io_windows[ACPI_WINDOWS_MAX];
	unsigned io_window_count;
	struct acpi_range mem_windows[ACPI_WINDOWS_MAX]; /* below or above 4 GiB, not across */
	unsigned mem_window_count;
	uint32_t pci_slots; /* slots of bus 0 that need routing, bit n for slot n; 0: all */
	uint8_t lpc_devfn;  /* slot << 3 | function of the ICH9 LPC bridge */
	uint8_t pirq[ACPI_PCI_SLOTS][4];     /* slot, pin (INTA 0): PIRQA is 0, PIRQH is 7 */
	uint32_t pirq_gsi[8];		     /* in APIC mode */
	uint8_t pirq_isa[ACPI_ISA_IRQS_MAX]; /* in PIC mode: what a link may be set to */
	unsigned pirq_isa_count;

	/* ISA devices; a port of 0 means not present. */
	uint16_t rtc_port;
	uint8_t rtc_irq;
	bool i8042; /* ports 0x60 and 0x64, IRQ 1 and 12 */
	uint8_t kbd_irq, mouse_irq;
	struct acpi_uart uarts[ACPI_UARTS_MAX];
	uint16_t fw_cfg_port;
	uint8_t fw_cfg_ports;
	uint16_t pvpanic_port;
	bool vga;

	bool vmgenid;
};

/* The parts; the names are their fw_cfg files'. */
enum acpi_file {
	ACPI_FILE_RSDP,	   /* etc/acpi/rsdp */
	ACPI_FILE_TABLES,  /* etc/acpi/tables */
	ACPI_FILE_VMGENID, /* etc/vmgenid_guid; its bytes are hw/acpi/vmgenid.c's */
	ACPI_FILE_COUNT,
};

/* What must be done to the bytes once it is known where they lie. In order. */
enum acpi_reloc_kind {
	ACPI_RELOC_POINTER,  /* add target's address to size bytes at offset */
	ACPI_RELOC_CHECKSUM, /* make the bytes [start, start + length) sum up to zero at offset */
};

struct acpi_reloc {
	enum acpi_reloc_kind kind;
	enum acpi_file file; /* that is changed */
	uint32_t offset;
	enum acpi_file target;
	uint8_t size;
	uint32_t start, length;
};

enum {
	ACPI_RSDP_SIZE = 36,
	ACPI_TABLES_ALIGN = 64, /* the FACS's, which comes first */
};

struct acpi_tables {
	uint8_t rsdp[ACPI_RSDP_SIZE];
	uint8_t *data; /* owned */
	size_t len;
	struct acpi_reloc *relocs; /* owned */
	size_t reloc_count;
	bool vmgenid;
};

void acpi_tables_build(struct acpi_tables *tables, const struct acpi_config *config);
void acpi_tables_destroy(struct acpi_tables *tables);

/* The linker script ("etc/table-loader") for these tables; allocated, *len bytes, a multiple of
 * 4096 with unused entries at the end. */
uint8_t *acpi_loader_script(const struct acpi_tables *tables, size_t *len);

/*
 * Direct boot: patches and writes both parts. rsdp_gpa is a multiple of 16, tables_gpa of
 * ACPI_TABLES_ALIGN below 4 GiB; vmgenid_gpa is where that page was put, or 0. False when some of
 * it is not RAM.
 */
bool acpi_tables_place(const struct acpi_tables *tables, const struct guest_mem *gm,
		       uint64_t rsdp_gpa, uint64_t tables_gpa, uint64_t vmgenid_gpa);

struct fw_cfg;
/*
 * Adds the three files, or replaces their bytes when they are there: in that case any thread. Files
 * are longer than needed and keep their length, since firmware has read the directory when the
 * board knows better.
 * refresh (may be NULL; counts when they are added) is called on a vCPU thread each time the guest
 * selects one of the three, before it reads: firmware has placed the ECAM and BARs by then, so the
 * board builds and replaces them once after each reset.
 */
void acpi_tables_to_fw_cfg(const struct acpi_tables *tables, struct fw_cfg *fw,
			   void (*refresh)(void *opaque), void *opaque);

#endif
