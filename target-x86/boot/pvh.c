/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads an ELF kernel with a PVH entry, its initrd as the one module, and writes struct
 * hvm_start_info, version 1 (Xen docs/misc/pvh.pandoc,
 * xen/include/public/arch-x86/hvm/start_info.h). Main thread.
 */
#include <stdlib.h>

#include "target-x86/boot/boot_internal.h"
#include "vmm/core/util.h"

enum {
	START_INFO_MAGIC = 0x336ec578,
	START_INFO_VERSION = 1,
	START_INFO_SIZE = 56,
	MODULE_SIZE = 32,
	MEMMAP_SIZE = 24,
};

/* Behind the kernel and below 4 GiB: Linux moves it if it must. */
static bool load_module(struct boot_load *b, uint64_t *gpa, struct error **err)
{
	const struct boot_module *m = &b->src->modules[0];
	if (!e820_alloc_top(&b->avail, m->file.size, 4096, MiB, 4 * GiB, gpa)) {
		boot_module_too_big(m, err);
		return false;
	}
	return boot_module_at(b, m, *gpa, err);
}

static void write_memmap(const struct e820 *map, uint8_t *p)
{
	for (size_t i = 0; i < map->count; i++, p += MEMMAP_SIZE) {
		store_le64(p, map->entries[i].base);
		store_le64(p + 8, map->entries[i].size);
		store_le32(p + 16, map->entries[i].type);
	}
}

bool boot_pvh(struct boot_load *b, struct error **err)
{
	const struct boot_source *src = b->src;
	const struct e820 *map = b->layout->e820;
	bool module = src->module_count && src->modules[0].file.size;
	uint64_t module_at = 0, low;
	if (!boot_cmdline_fits(b, UINT64_MAX, err) ||
	    !boot_segments(b, src->elf.segments, src->elf.segment_count, err) ||
	    (module && !load_module(b, &module_at, err)))
		return false;

	size_t modlist = START_INFO_SIZE, memmap = modlist + (module ? MODULE_SIZE : 0);
	size_t cmdline = memmap + map->count * MEMMAP_SIZE;
	size_t size = cmdline + strlen(src->cmdline) + 1;
	if (!boot_low_alloc(b, size, &low, err))
		return false;
	uint8_t *p = xcalloc(1, size);
	store_le32(p, START_INFO_MAGIC);
	store_le32(p + 4, START_INFO_VERSION);
	store_le32(p + 12, module);
	store_le64(p + 16, module ? low + modlist : 0);
	store_le64(p + 24, low + cmdline);
	store_le64(p + 32, b->layout->rsdp);
	store_le64(p + 40, low + memmap);
	store_le32(p + 48, (uint32_t)map->count);
	if (module) {
		store_le64(p + modlist, module_at);
		store_le64(p + modlist + 8, src->modules[0].file.size);
	}
	write_memmap(map, p + memmap);
	memcpy(p + cmdline, src->cmdline, strlen(src->cmdline) + 1);
	bool ok = boot_write(b, low, p, size, err);
	free(p);
	if (!ok)
		return false;
	x86_boot_state_protected(b->out, src->elf.pvh_entry, 0);
	b->out->regs.rbx = low;
	return true;
}
