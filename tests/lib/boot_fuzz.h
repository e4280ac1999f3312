/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets of kernel formats share: a kernel made of the input, an initrd, 32 MiB of
 * guest memory.
 */
#ifndef TESTS_LIB_BOOT_FUZZ_H
#define TESTS_LIB_BOOT_FUZZ_H

#include "target-x86/boot/boot_internal.h"

/* src->kind and its parsed header are the caller's; src->kernel is the input. Loads it, and checks
 * what must hold of a CPU that is about to start. */
void boot_fuzz_load(struct boot_source *src);

#endif
