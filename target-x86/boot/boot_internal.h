/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the loaders of the three formats share. Main thread; private to target-x86/boot.
 */
#ifndef TARGET_X86_BOOT_BOOT_INTERNAL_H
#define TARGET_X86_BOOT_BOOT_INTERNAL_H

#include "target-x86/boot/boot.h"
#include "target-x86/boot/bzimage_parse.h"
#include "target-x86/boot/multiboot_parse.h"

enum boot_kind { BOOT_BZIMAGE, BOOT_MULTIBOOT, BOOT_PVH };

struct boot_module {
	char *text; /* the file's name and its arguments */
	char *path;
	struct boot_file file;
};

struct boot_source {
	enum boot_kind kind;
	char *path;
	char *cmdline; /* never NULL */
	struct boot_file kernel;
	struct boot_module *modules;
	size_t module_count;
	union {
		struct bzimage bzimage;
		struct multiboot_image multiboot;
		struct elf_image elf;
	};
};

/* Recognises and parses src->kernel. */
bool boot_source_identify(struct boot_source *src, struct error **err);

/* One loading. Errors of these functions come with their option's name in front. */
struct boot_load {
	const struct boot_source *src;
	const struct boot_layout *layout;
	struct guest_mem *mem;
	struct x86_boot_state *out;
	struct e820 avail; /* RAM that holds nothing yet */
};

bool boot_bzimage(struct boot_load *b, struct error **err);
bool boot_multiboot(struct boot_load *b, struct error **err);
bool boot_pvh(struct boot_load *b, struct error **err);

/* Puts a kernel's segments where they want to be. */
bool boot_segments(struct boot_load *b, const struct boot_segment *segments, unsigned count,
		   struct error **err);
/* Whether a segment holds this address. */
bool boot_segments_hold(const struct boot_segment *segments, unsigned count, uint64_t gpa);
/* Puts a module at an address that was chosen for it. */
bool boot_module_at(struct boot_load *b, const struct boot_module *m, uint64_t gpa,
		    struct error **err);
void boot_module_too_big(const struct boot_module *m, struct error **err);
/* Takes pages of low memory. */
bool boot_low_alloc(struct boot_load *b, uint64_t size, uint64_t *gpa, struct error **err);
bool boot_write(struct boot_load *b, uint64_t gpa, const void *buf, size_t len, struct error **err);
bool boot_cmdline_fits(const struct boot_load *b, uint64_t max, struct error **err);

#endif
