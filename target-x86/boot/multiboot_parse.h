/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiboot 0.6.96 (multiboot 1), section 3.1: the header and what it says of loading.
 * Pure functions over hostile bytes.
 */
#ifndef TARGET_X86_BOOT_MULTIBOOT_PARSE_H
#define TARGET_X86_BOOT_MULTIBOOT_PARSE_H

#include "target-x86/boot/elf_parse.h"

struct multiboot_image {
	uint32_t flags;
	uint32_t entry;
	unsigned segment_count;
	struct boot_segment segments[ELF_MAX_SEGMENTS];
};

/* Whether it has a header that can be followed: a 64-bit ELF file without addresses in its header
 * has not, since multiboot does not know how to load it. */
bool multiboot_probe(const struct boot_file *f);
bool multiboot_parse(const struct boot_file *f, struct multiboot_image *out, struct error **err);

#endif
