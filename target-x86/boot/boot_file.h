/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that a guest is made from: random access to hostile bytes, on disk or (tests, fuzzing) in
 * memory. Reads that reach past the end fail; the size is that at opening.
 * Main thread; private to target-x86/boot.
 */
#ifndef TARGET_X86_BOOT_BOOT_FILE_H
#define TARGET_X86_BOOT_BOOT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"
#include "vmm/core/guest_mem.h"

struct boot_file {
	int fd;		      /* -1: bytes */
	const uint8_t *bytes; /* borrowed */
	uint64_t size;
};

bool boot_file_open(struct boot_file *f, const char *path, struct error **err);
void boot_file_from_bytes(struct boot_file *f, const void *bytes, size_t size);
void boot_file_close(struct boot_file *f);
/* All of len bytes, or false (past the end, or the host cannot read). */
bool boot_file_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len);
/* The same straight into guest memory. */
bool boot_file_load(const struct boot_file *f, uint64_t offset, uint64_t len,
		    const struct guest_mem *mem, uint64_t gpa, struct error **err);

#endif
