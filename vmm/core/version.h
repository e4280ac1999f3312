/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this program is called in -version, QMP and SMBIOS, and the QEMU whose command line and QMP
 * it speaks: clients decide by that what they may ask for.
 */
#ifndef VMM_CORE_VERSION_H
#define VMM_CORE_VERSION_H

#define VMM_VERSION "0.1"

#define QEMU_VERSION_MAJOR 7
#define QEMU_VERSION_MINOR 2
#define QEMU_VERSION_MICRO 0

#endif
