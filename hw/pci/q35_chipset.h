/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two chips of a q35 board that are PCI functions: the memory controller hub (00.0) and the LPC
 * bridge of the ICH9 (1f.0). The board makes both on the root bus, the hub first.
 *
 * What boards call here is the main thread's; what is called back runs on vCPU threads as said.
 */
#ifndef HW_PCI_Q35_CHIPSET_H
#define HW_PCI_Q35_CHIPSET_H

#include <stdbool.h>
#include <stdint.h>

#include "hw/acpi/pm.h"
#include "hw/pci/pci.h"

/* ---- the memory controller hub: 8086:29c0, "mch" ---- */

extern const struct device_desc q35_mch_desc;

enum {
	Q35_MCH_DEVFN = PCI_DEVFN(0, 0),
	Q35_LPC_DEVFN = PCI_DEVFN(0x1f, 0),
	/* The shadowed area from 0xc0000 to 1 MiB, in pieces of 16 KiB. */
	Q35_SHADOW_PIECES = 16,
	/* A piece's attributes: reads, writes go to RAM; else to the bus. */
	Q35_SHADOW_READ = 1 << 0,
	Q35_SHADOW_WRITE = 1 << 1,
};

struct q35_smram {
	bool open;	    /* RAM is to be seen at 0xa0000 to 0xbffff */
	uint64_t tseg_size; /* bytes at the end of low RAM that are hidden; 0: none */
};

/* Called when something changed, on the vCPU thread that wrote or on the main thread at reset, with
 * root->lock held. Any may be NULL. */
struct q35_mch_ops {
	void (*shadow_changed)(void *opaque, const uint8_t pieces[Q35_SHADOW_PIECES]);
	void (*smram_changed)(void *opaque, const struct q35_smram *smram);
	/* The window is already there; size 0: it is off. */
	void (*ecam_changed)(void *opaque, uint64_t base, uint64_t size);
};
/* Before it is realized. */
void q35_mch_set_ops(struct device *mch, const struct q35_mch_ops *ops, void *opaque);

/* ---- the LPC bridge: 8086:2918, "ICH9-LPC" ---- */

/* Owns the ACPI power management block and port 0xcf9, and is where INTx of the whole root arrive:
 * PIRQA to PIRQH are vm->gsi[16] to [23] and, as their routing registers say, ISA interrupts. */
extern const struct device_desc ich9_lpc_desc;

struct acpi_pm *ich9_lpc_pm(struct device *lpc);
/* PIRQA is 0 .. PIRQH is 7; pin 0 is INTA#. For _PRT. */
unsigned ich9_lpc_pirq(struct device *lpc, unsigned slot, unsigned pin);
/* For pci_windows.line, opaque the device: the ISA interrupt that a root input is routed to. */
uint8_t ich9_lpc_line(void *lpc, unsigned input);

enum {
	ICH9_RESET_PORT = 0xcf9,
	ICH9_RESET_VALUE = 0x06, /* that resets when written there */
	ICH9_APM_PORT = 0xb2,
	ICH9_ACPI_ENABLE = 0x02, /* written to the APM port; without SMM there is nothing to do */
	ICH9_ACPI_DISABLE = 0x03,
};

/* ---- both ---- */

/* What firmware would have written before a direct boot: the ECAM and PM windows, links routed to
 * ISA interrupts 10 and 11, the RCBA window. After reset, vCPUs not running. */
void q35_chipset_firmware_init(struct device *mch, struct device *lpc, uint64_t ecam_base,
			       uint16_t pm_base);

#endif
