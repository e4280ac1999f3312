/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads a multiboot kernel and its modules, and writes the information structure (Multiboot 0.6.96,
 * sections 3.2 and 3.3).
 * Main thread.
 */
#include <stdlib.h>

#include "target-x86/boot/boot_internal.h"
#include "vmm/core/util.h"

enum {
	BOOTED_BY_MULTIBOOT = 0x2badb002, /* in eax */
	HAS_MEMORY = 1 << 0,
	HAS_CMDLINE = 1 << 2,
	HAS_MODULES = 1 << 3,
	HAS_MMAP = 1 << 6,
	HAS_LOADER_NAME = 1 << 9,
	INFO_SIZE = 88,
	MODULE_SIZE = 16,
	MMAP_SIZE = 24,
};

static const char loader_name[] = "vmm";

/* Right behind the kernel: small kernels map no more than the first megabytes. */
static bool load_modules(struct boot_load *b, uint64_t *at, struct error **err)
{
	const struct multiboot_image *k = &b->src->multiboot;
	uint64_t min = MiB;
	for (unsigned i = 0; i < k->segment_count; i++)
		min = MAX(min, k->segments[i].gpa + k->segments[i].memory_size);
	for (size_t i = 0; i < b->src->module_count; i++) {
		const struct boot_module *m = &b->src->modules[i];
		if (!e820_alloc_bottom(&b->avail, MAX(m->file.size, UINT64_C(1)), 4096, min,
				       4 * GiB, &at[i])) {
			boot_module_too_big(m, err);
			return false;
		}
		if (!boot_module_at(b, m, at[i], err))
			return false;
	}
	return true;
}

/* Memory below 1 MiB from 0 on, and from 1 MiB on, in KiB. */
static uint32_t ram_kib(const struct e820 *map, uint64_t from, uint64_t max)
{
	const struct e820_entry *e = e820_find(map, from);
	if (!e || e->type != E820_RAM)
		return 0;
	return (uint32_t)MIN((e->size - (from - e->base)) / KiB, max);
}

/* Strings behind one another at text; returns the next free offset. */
static size_t put_string(uint8_t *buf, size_t at, const char *s)
{
	size_t size = strlen(s) + 1;
	if (buf)
		memcpy(buf + at, s, size);
	return at + size;
}

/* The whole structure for guest address low; with buf NULL its size only. */
static size_t build(const struct boot_load *b, uint8_t *buf, uint32_t low,
		    const uint64_t *module_at, const char *cmdline)
{
	const struct boot_source *src = b->src;
	const struct e820 *map = b->layout->e820;
	size_t mods = INFO_SIZE, mmap = mods + src->module_count * MODULE_SIZE;
	size_t text = mmap + map->count * MMAP_SIZE, name = put_string(buf, text, cmdline);
	size_t end = put_string(buf, name, loader_name);
	for (size_t i = 0; i < src->module_count; i++) {
		size_t string = end;
		end = put_string(buf, string, src->modules[i].text);
		if (!buf)
			continue;
		uint8_t *m = buf + mods + i * MODULE_SIZE;
		store_le32(m, (uint32_t)module_at[i]);
		store_le32(m + 4, (uint32_t)(module_at[i] + src->modules[i].file.size));
		store_le32(m + 8, (uint32_t)(low + string));
	}
	if (!buf)
		return end;
	for (size_t i = 0; i < map->count; i++) {
		uint8_t *m = buf + mmap + i * MMAP_SIZE;
		store_le32(m, MMAP_SIZE - 4); /* does not count itself */
		store_le64(m + 4, map->entries[i].base);
		store_le64(m + 12, map->entries[i].size);
		store_le32(m + 20, map->entries[i].type);
	}
	store_le32(buf, HAS_MEMORY | HAS_CMDLINE | HAS_MMAP | HAS_LOADER_NAME |
				(src->module_count ? HAS_MODULES : 0));
	store_le32(buf + 4, ram_kib(map, 0, 640));
	store_le32(buf + 8, ram_kib(map, MiB, UINT32_MAX));
	store_le32(buf + 16, (uint32_t)(low + text));
	store_le32(buf + 20, (uint32_t)src->module_count);
	store_le32(buf + 24, (uint32_t)(low + mods));
	store_le32(buf + 44, (uint32_t)(map->count * MMAP_SIZE));
	store_le32(buf + 48, (uint32_t)(low + mmap));
	store_le32(buf + 64, (uint32_t)(low + name));
	return end;
}

bool boot_multiboot(struct boot_load *b, struct error **err)
{
	const struct multiboot_image *k = &b->src->multiboot;
	uint64_t low;
	bool ok = false;
	uint64_t *module_at = xcalloc(b->src->module_count + 1, sizeof(*module_at));
	/* Such kernels expect their own name first. */
	char *cmdline = xasprintf("%s%s%s", b->src->path, *b->src->cmdline ? " " : "",
				  b->src->cmdline);
	uint8_t *buf = NULL;
	if (!boot_cmdline_fits(b, UINT64_MAX, err) ||
	    !boot_segments(b, k->segments, k->segment_count, err) ||
	    !load_modules(b, module_at, err))
		goto out;
	size_t size = build(b, NULL, 0, module_at, cmdline);
	if (!boot_low_alloc(b, size, &low, err))
		goto out;
	buf = xcalloc(1, size);
	build(b, buf, (uint32_t)low, module_at, cmdline);
	if (!boot_write(b, low, buf, size, err))
		goto out;
	x86_boot_state_protected(b->out, k->entry, 0);
	b->out->regs.rax = BOOTED_BY_MULTIBOOT;
	b->out->regs.rbx = low;
	ok = true;
out:
	free(buf);
	free(cmdline);
	free(module_at);
	return ok;
}
