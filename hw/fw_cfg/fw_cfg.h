/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fw_cfg: how the VMM hands items and named files to firmware (QEMU's interface: docs/specs/fw_cfg,
 * and linux/qemu_fw_cfg.h). Ports: selector and data at iobase, DMA at iobase + 4.
 *
 * The board makes one, adds items before the guest starts, and may replace a file's bytes at any
 * time. Registers: any vCPU thread, under the device's own lock, a leaf, which is not held while
 * select is called. Adding: the main thread, before the first instruction.
 */
#ifndef HW_FW_CFG_FW_CFG_H
#define HW_FW_CFG_FW_CFG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/device.h"
#include "vmm/core/opts.h"

/* Keys with a fixed number; numbers are little-endian. */
enum {
	FW_CFG_SIGNATURE = 0x00, /* the device's own */
	FW_CFG_ID = 0x01,	 /* the device's own */
	FW_CFG_UUID = 0x02,	 /* 16 bytes as written */
	FW_CFG_RAM_SIZE = 0x03,	 /* u64, below 4 GiB and above */
	FW_CFG_NOGRAPHIC = 0x04, /* u16 */
	FW_CFG_NB_CPUS = 0x05,	 /* u16 */
	FW_CFG_KERNEL_ADDR = 0x07,
	FW_CFG_KERNEL_SIZE = 0x08,
	FW_CFG_INITRD_ADDR = 0x0a,
	FW_CFG_INITRD_SIZE = 0x0b,
	FW_CFG_BOOT_DEVICE = 0x0c,
	FW_CFG_BOOT_MENU = 0x0e, /* u16: 1 to show it */
	FW_CFG_MAX_CPUS = 0x0f,	 /* u16: highest APIC id + 1 */
	FW_CFG_KERNEL_DATA = 0x11,
	FW_CFG_INITRD_DATA = 0x12,
	FW_CFG_CMDLINE_ADDR = 0x13,
	FW_CFG_CMDLINE_SIZE = 0x14,
	FW_CFG_CMDLINE_DATA = 0x15,
	FW_CFG_SETUP_ADDR = 0x16,
	FW_CFG_SETUP_SIZE = 0x17,
	FW_CFG_SETUP_DATA = 0x18,
	FW_CFG_FILE_DIR = 0x19, /* the device's own */
	FW_CFG_FILE_FIRST = 0x20,
	FW_CFG_ARCH_LOCAL = 0x8000,
	FW_CFG_X86_IRQ0_OVERRIDE = 0x8002, /* u32: 1 */
	FW_CFG_X86_E820 = 0x8003,
};

enum {
	FW_CFG_PORTS = 12, /* from iobase on, DMA included */
	FW_CFG_NAME_MAX = 55,
	FW_CFG_FILES_MAX = 1024,
	FW_CFG_USER_FILE_MAX = 1 << 30, /* bytes of -fw_cfg file= */
};

struct fw_cfg;

/* What a file can have beyond bytes. The structure is copied, name included. */
struct fw_cfg_file {
	const char *name; /* at most FW_CFG_NAME_MAX bytes, not empty, not there yet */
	void *data;
	size_t len;
	bool owned;    /* data came from malloc() and is freed with the device; else borrowed */
	bool writable; /* by DMA; then data is not const, and keeps its length */
	/* The guest selected it, and will read it: a last chance to fw_cfg_replace(). NULL: none */
	void (*select)(void *opaque);
	void *opaque;
};

/* Internal device, no bus; property iobase. */
extern const struct device_desc fw_cfg_desc;

/* Items by number. A key set twice is the program's mistake. Bytes are copied. */
void fw_cfg_add_bytes(struct fw_cfg *fw, uint16_t key, const void *data, size_t len);
void fw_cfg_add_u16(struct fw_cfg *fw, uint16_t key, uint16_t value);
void fw_cfg_add_u32(struct fw_cfg *fw, uint16_t key, uint32_t value);
void fw_cfg_add_u64(struct fw_cfg *fw, uint16_t key, uint64_t value);
/* The same without a copy: data outlives the device (kernels, initrds). */
void fw_cfg_add_borrowed(struct fw_cfg *fw, uint16_t key, const void *data, size_t len);

/* Files. False only for what a user can cause: a name that is taken or too long, too many files. */
bool fw_cfg_add_file(struct fw_cfg *fw, const struct fw_cfg_file *file, struct error **err);
/* A copy of len bytes, for the board's own names. */
void fw_cfg_add_blob(struct fw_cfg *fw, const char *name, const void *data, size_t len);
void fw_cfg_add_string(struct fw_cfg *fw, const char *name, const char *text); /* with its NUL */
/* "etc/..." files of one little-endian number */
void fw_cfg_add_file_u64(struct fw_cfg *fw, const char *name, uint64_t value);
bool fw_cfg_has_file(const struct fw_cfg *fw, const char *name);
/* Its length; 0 if it is not there. */
size_t fw_cfg_file_len(const struct fw_cfg *fw, const char *name);
/* Any thread: new bytes for a file, copied; adds it when it is not there (main thread only). A
 * guest that has read the directory knows the old length, so keep it when the guest is running. */
void fw_cfg_replace(struct fw_cfg *fw, const char *name, const void *data, size_t len);

/* -fw_cfg [name=]NAME,file=PATH | string=TEXT. Warns about names outside opt/. */
bool fw_cfg_add_user(struct fw_cfg *fw, struct opts *opts, struct error **err);

#endif
