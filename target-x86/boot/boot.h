/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct boot (-kernel, -initrd, -append): the kernel's file is recognised (Linux bzImage, PVH ELF,
 * multiboot 1), put into guest memory, and the first CPU's state says where it begins. No firmware
 * runs and no code of ours.
 *
 * Kernel files are hostile: each format's parser (NAME_parse.c) is a pure function over their
 * bytes.
 *
 * Errors begin with the option they are about ("-kernel FILE: ...").
 *
 * Low memory from BOOT_LOW_BASE to BOOT_LOW_END is the loader's: boot parameters, command line,
 * page tables, lists. All RAM that layout->e820 calls so may be used for the kernel and the initrd;
 * the board keeps its tables in other types.
 *
 * Main thread.
 */
#ifndef TARGET_X86_BOOT_BOOT_H
#define TARGET_X86_BOOT_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#include "target-x86/cpu_state.h"
#include "target-x86/e820.h"
#include "vmm/core/error.h"
#include "vmm/core/guest_mem.h"

#define BOOT_LOW_BASE 0x10000
#define BOOT_LOW_END  0x90000

/* An opened and recognised kernel with what goes with it. */
struct boot_source;

/* kernel and initrd are paths; initrd and cmdline may be NULL. For multiboot, initrd is a list of
 * modules, "FILE [ARGUMENTS]", separated by commas (a doubled comma is one in a name). */
struct boot_source *boot_source_open(const char *kernel, const char *initrd, const char *cmdline,
				     struct error **err);
void boot_source_close(struct boot_source *src); /* NULL is allowed */
/* "Linux bzImage", "PVH ELF", "multiboot" */
const char *boot_source_kind(const struct boot_source *src);

struct boot_layout {
	const struct e820 *e820;
	uint64_t rsdp;	  /* guest address of the ACPI root pointer; 0: none */
	bool ram_is_zero; /* nobody has written to RAM yet: what must be 0 is left alone */
};

/* Fills guest memory and *out. Called again at every reset of the machine, since a kernel
 * overwrites itself; the files stay open for that. Without mem it only finds out whether all has
 * its place. */
bool boot_load(const struct boot_source *src, const struct boot_layout *layout,
	       struct guest_mem *mem, struct x86_boot_state *out, struct error **err);

#endif
