/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SATA as boards see it: the ICH9 AHCI controller on a PCI bus, with six buses of type "ide"
 * ("ide.0" to "ide.5") that take one ide-hd or ide-cd each.
 */
#ifndef HW_ATA_AHCI_H
#define HW_ATA_AHCI_H

#include "vmm/core/device.h"

extern const struct device_desc ich9_ahci_desc;
extern const struct device_desc ide_hd_desc;
extern const struct device_desc ide_cd_desc;

#endif
