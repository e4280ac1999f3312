/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot order for firmware: OpenFirmware device paths (IEEE 1275, with the unit addresses of its PCI
 * binding) as SeaBIOS and OVMF parse them, and the "bootorder" file made of them, sorted by
 * bootindex. Pure functions; any thread.
 */
#ifndef HW_FW_CFG_BOOTORDER_H
#define HW_FW_CFG_BOOTORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"

enum boot_kind {
	BOOT_VIRTIO_BLK,  /* scsi@S/disk@0,0 */
	BOOT_VIRTIO_SCSI, /* scsi@S/channel@C/disk@T,L */
	BOOT_ETHERNET,	  /* ethernet@S/ethernet-phy@0 */
	BOOT_NVME,	  /* pci8086,5845@S/namespace@N,0: vendor and device from the path */
	BOOT_AHCI_DISK,	  /* pci8086,2922@S/drive@P/disk@0 */
	BOOT_AHCI_CDROM,  /* the same: the drive tells which it is */
	BOOT_FLOPPY,	  /* isa@S/fdc@03f0/floppy@N */
	BOOT_ROM,	  /* rom@NAME: an option ROM or a kernel in fw_cfg */
	BOOT_PCI,	  /* pciVVVV,DDDD@S: any other function (VFIO, an option ROM of its own) */
};

struct boot_entry {
	enum boot_kind kind;
	int32_t bootindex; /* negative: not in the list */
	/* devfn (slot << 3 | function) of each bridge from the root bus down, then the device's */
	uint8_t path[8];
	unsigned path_len;
	uint16_t vendor, device;       /* PCI ids, for the kinds named by them */
	unsigned channel, target, lun; /* SCSI; target: AHCI port, floppy unit, NVMe namespace */
	const char *rom;	       /* BOOT_ROM */
	const char *label;	       /* for messages; NULL allowed */
};

/* The entry's path, allocated. */
char *boot_path(const struct boot_entry *entry);

/*
 * The file's bytes, allocated: paths separated by newlines and ended with NUL, "HALT" last when
 * strict; *len counts the NUL. With nothing to say, NULL and 0. False when two share a bootindex.
 */
bool boot_order_build(const struct boot_entry *entries, size_t count, bool strict, char **text,
		      size_t *len, struct error **err);

#endif
