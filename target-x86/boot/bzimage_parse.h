/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux' setup header (Linux Documentation/arch/x86/boot.rst), read and checked.
 * Pure functions over hostile bytes.
 */
#ifndef TARGET_X86_BOOT_BZIMAGE_PARSE_H
#define TARGET_X86_BOOT_BZIMAGE_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "target-x86/boot/boot_file.h"
#include "vmm/core/error.h"

/* Offsets in the file's first sectors, and equally in struct boot_params. */
enum {
	BP_ACPI_RSDP = 0x070,
	BP_EXT_RAMDISK_IMAGE = 0x0c0,
	BP_EXT_RAMDISK_SIZE = 0x0c4,
	BP_E820_ENTRIES = 0x1e8,
	BP_SETUP_SECTS = 0x1f1, /* the setup header begins here */
	BP_SYSSIZE = 0x1f4,
	BP_VID_MODE = 0x1fa,
	BP_BOOT_FLAG = 0x1fe,
	BP_JUMP = 0x200,
	BP_MAGIC = 0x202,
	BP_VERSION = 0x206,
	BP_TYPE_OF_LOADER = 0x210,
	BP_LOADFLAGS = 0x211,
	BP_CODE32_START = 0x214,
	BP_RAMDISK_IMAGE = 0x218,
	BP_RAMDISK_SIZE = 0x21c,
	BP_CMD_LINE_PTR = 0x228,
	BP_INITRD_ADDR_MAX = 0x22c,
	BP_KERNEL_ALIGNMENT = 0x230,
	BP_RELOCATABLE = 0x234,
	BP_XLOADFLAGS = 0x236,
	BP_CMDLINE_SIZE = 0x238,
	BP_SETUP_DATA = 0x250,
	BP_PREF_ADDRESS = 0x258,
	BP_INIT_SIZE = 0x260,
	BP_HEADER_END = 0x290, /* the next field of boot_params */
	BP_E820_TABLE = 0x2d0,
	BP_E820_MAX = 128,
	BP_SIZE = 4096,
};

struct bzimage {
	uint16_t protocol;	 /* 0x020c: 2.12 */
	bool entry64;		 /* can begin in long mode, 0x200 behind its load address */
	bool above_4g;		 /* takes an initrd above 4 GiB */
	bool relocatable;	 /* to multiples of alignment */
	uint64_t payload_offset; /* of the protected-mode part in the file */
	uint64_t payload_size;	 /* bytes to load */
	uint64_t memory_size;	 /* bytes it needs from its load address on */
	uint64_t preferred;	 /* load address */
	uint32_t alignment;	 /* a power of two */
	uint32_t cmdline_max;	 /* without the final zero */
	uint64_t initrd_max;	 /* last byte may lie here */
	uint32_t header_len;	 /* of the setup header as the file has it */
	uint8_t header[BP_HEADER_END - BP_SETUP_SECTS];
};

/* Whether it looks like one at all. */
bool bzimage_probe(const struct boot_file *f);
bool bzimage_parse(const struct boot_file *f, struct bzimage *out, struct error **err);

#endif
