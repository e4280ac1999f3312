/* SPDX-License-Identifier: Apache-2.0 */
/* The one array of device descriptors; what vm->device_table points at. */
#ifndef VMM_DEVICES_H
#define VMM_DEVICES_H

#include <stdio.h>

#include "vmm/core/device.h"

extern const struct device_desc *const device_table[]; /* ends with NULL */

/* -device help: the names by bus, a line each. */
void device_help(FILE *out);
/* -device NAME,help: its properties with types, defaults, meanings. False if there is none. */
bool device_help_of(FILE *out, const char *name, struct error **err);

/* -nic model=help: the network cards. */
void nic_help(FILE *out);

#endif
