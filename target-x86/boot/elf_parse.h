/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF executables for x86, as kernels are: what to load where, and the PVH entry that a Xen note
 * names (System V ABI; Xen docs/misc/pvh.pandoc).
 * Pure functions over hostile bytes.
 */
#ifndef TARGET_X86_BOOT_ELF_PARSE_H
#define TARGET_X86_BOOT_ELF_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "target-x86/boot/boot_file.h"
#include "vmm/core/error.h"

#define ELF_MAX_SEGMENTS 64

/* One piece of a kernel; bytes between file_size and memory_size are 0. */
struct boot_segment {
	uint64_t offset, file_size; /* inside the file */
	uint64_t gpa, memory_size;  /* does not wrap; at least file_size, not 0 */
};

struct elf_image {
	bool is64;
	uint64_t entry;
	bool has_pvh_entry;
	uint32_t pvh_entry; /* physical, in 32-bit protected mode */
	unsigned segment_count;
	struct boot_segment segments[ELF_MAX_SEGMENTS];
};

bool elf_probe(const struct boot_file *f);
bool elf_parse(const struct boot_file *f, struct elf_image *out, struct error **err);

#endif
