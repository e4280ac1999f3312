/* SPDX-License-Identifier: Apache-2.0 */
/* The board's parts among themselves. */
#ifndef TARGET_X86_Q35_INTERNAL_H
#define TARGET_X86_Q35_INTERNAL_H

#include "hw/acpi/pm.h"
#include "hw/acpi/tables.h"
#include "hw/pci/pci.h"
#include "hw/pci/q35_chipset.h"
#include "target-x86/boot/boot.h"
#include "target-x86/cpu.h"
#include "target-x86/cpu_state.h"
#include "target-x86/e820.h"
#include "target-x86/q35.h"

struct fw_cfg;

#define Q35_LOW_RAM_END	  UINT64_C(0xa0000)
#define Q35_VGA_SIZE	  UINT64_C(0x20000)
#define Q35_SHADOW_BASE  UINT64_C(0xc0000)
#define Q35_SHADOW_END UINT64_C(0x100000)
#define Q35_ECAM_BASE	  UINT64_C(0xb0000000)
#define Q35_ECAM_SIZE	  UINT64_C(0x10000000)
#define Q35_PCI_HOLE_BASE UINT64_C(0xc0000000)
#define Q35_IOAPIC_BASE	  UINT64_C(0xfec00000)
#define Q35_LAPIC_BASE	  UINT64_C(0xfee00000)
#define Q35_4G		  UINT64_C(0x100000000)
#define Q35_PM_BASE	0x600
#define Q35_SCI		9

/* Direct boot: where the tables lie, in what E820 calls reserved. */
#define Q35_RSDP	UINT64_C(0xe0000)
#define Q35_ACPI_TABLES UINT64_C(0xe0040)
#define Q35_VMGENID	UINT64_C(0xef000)
#define Q35_SMBIOS	UINT64_C(0xf0000)

enum q35_shadow { SHADOW_ROM, SHADOW_RAM_READ, SHADOW_RAM };
enum { Q35_SHADOW_PIECE_SIZE = 0x4000 };

/* A slot that changes while the guest runs. */
struct q35_slot {
	uint64_t gpa, size;
	uint8_t *hva;
	uint32_t flags; /* ACCEL_MEM_* */
};

struct q35 {
	struct vm *vm;
	struct accel *accel;
	struct q35_config config;

	uint8_t *ram; /* config.ram's bytes, low part first */
	uint64_t ram_below_4g, ram_above_4g;
	uint8_t *bios; /* -bios or the default, mapped below 4 GiB; NULL with pflash or kernel */
	uint64_t bios_size;

	pthread_mutex_t shadow_lock;
	enum q35_shadow shadow[Q35_SHADOW_PIECES];
	struct q35_slot shadow_slots[Q35_SHADOW_PIECES + 1];
	unsigned shadow_slot_count;
	bool smram_open;
	struct device *pflash[Q35_PFLASHES];
	bool pflash_mapped[Q35_PFLASHES];

	struct cpu_type *cpu_type;
	struct cpu_reset cpu_reset;
	struct x86_boot_state boot_state;
	uint32_t *apic_ids;

	struct pci_root pci;
	struct bus isa;
	struct device *mch, *lpc, *rtc, *fw_cfg_dev, *ahci;
	struct device *pic, *ioapic; /* split irqchip */
	struct irq_line split_gsi[24], pic_output;
	struct fw_cfg *fw_cfg;

	struct boot_source *boot;
	struct e820 e820;
	/* Of the four below, once the guest runs; nests inside the root bus's lock. */
	pthread_mutex_t acpi_lock;
	struct acpi_range ecam; /* where the chipset decodes it now */
	bool acpi_fresh;	/* built since the last reset */
	struct acpi_config acpi;
	struct acpi_tables tables;
	struct smbios_tables smbios;

	struct notifier reset;
	bool started_once; /* -boot once= is over */
	bool loaded_once;  /* RAM may hold what the guest left */
};

/* q35_memory.c */
bool q35_memory_init(struct q35 *b, struct error **err);
void q35_memory_destroy(struct q35 *b);
bool q35_firmware_load(struct q35 *b, struct error **err);
/* Any thread. */
void q35_memory_set_shadow(struct q35 *b, const enum q35_shadow shadow[Q35_SHADOW_PIECES]);
void q35_memory_set_smram(struct q35 *b, bool open);
void q35_memory_pflash_mode(struct device *dev, bool array, void *opaque);
/* Where RAM below and above 4 GiB ends. */
uint64_t q35_pci64_base(const struct q35 *b);
uint64_t q35_pci64_end(const struct q35 *b);

/* q35_tables.c */
void q35_tables_init(struct q35 *b);
bool q35_tables_complete(struct q35 *b, struct error **err);
/* What the CMOS has of them, at every reset. */
void q35_tables_reset(struct q35 *b);
/* Writes them into guest memory (direct boot). */
bool q35_tables_place(struct q35 *b, struct error **err);
void q35_tables_destroy(struct q35 *b);

#endif
