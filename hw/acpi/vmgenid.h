/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VM generation ID (Microsoft's "Virtual Machine Generation ID"; QEMU's docs/specs/vmgenid): a GUID
 * in guest memory that changes when the guest is restored or cloned, told by a general-purpose
 * event. Firmware chooses the place and reports it through fw_cfg; at direct boot the board does.
 *
 * Main thread; the guest's write of the address comes on a vCPU thread.
 */
#ifndef HW_ACPI_VMGENID_H
#define HW_ACPI_VMGENID_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/device.h"

struct acpi_pm;
struct fw_cfg;
struct vmgenid;

enum {
	VMGENID_PAGE_SIZE = 4096,
	/* Where in the page the GUID lies: firmware that looks for an ACPI table's header at the
	 * page's start must not find one. */
	VMGENID_GUID_OFFSET = 40,
};

/* "vmgenid", property guid ("auto" or a UUID); at most one, no bus. */
extern const struct device_desc vmgenid_desc;

/* The realized one, or NULL. */
struct vmgenid *vmgenid_find(struct vm *vm);
/* Board, once: the event's place, and the two files. fw NULL: no firmware. */
void vmgenid_connect(struct vmgenid *v, struct acpi_pm *pm, struct fw_cfg *fw);
/* Direct boot: the page lies at gpa from now on (and after each reset, so call it again then). */
bool vmgenid_place(struct vmgenid *v, uint64_t gpa);
/* A new identity (snapshot restored, clone): written, and the guest told. guid NULL: random. */
void vmgenid_set_guid(struct vmgenid *v, const uint8_t guid[16]);

#endif
