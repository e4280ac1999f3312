/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads a Linux bzImage and its initrd, and writes struct boot_params (Linux
 * Documentation/arch/x86/boot.rst and zero-page.rst). It begins at its 64-bit entry when it has
 * one, else at the 32-bit one. Main thread.
 */
#include <stdlib.h>
#include <sys/random.h>

#include "target-x86/boot/boot_internal.h"
#include "vmm/core/util.h"

enum {
	LOADER_UNDEFINED = 0xff, /* type_of_loader of those without a number */
	VID_MODE_NORMAL = 0xffff,
	SETUP_E820_EXT = 1,
	SETUP_RNG_SEED = 9,
	SETUP_DATA_HEADER = 16,
	RNG_SEED_SIZE = 32,
	GDT_ROOM = 64,
};
_Static_assert(GDT_ROOM >= X86_BOOT_GDT_SIZE, "the GDT lies in front of the setup data");

static bool load_kernel(struct boot_load *b, uint64_t *load, struct error **err)
{
	const struct bzimage *k = &b->src->bzimage;
	*load = k->preferred;
	if (!e820_is_ram(b->layout->e820, *load, k->memory_size) &&
	    !(k->relocatable && e820_alloc_bottom(&b->avail, k->memory_size, k->alignment,
						  k->preferred, 4 * GiB, load))) {
		error_set(err, "needs more memory: %llu MiB from 0x%llx on",
			  (unsigned long long)div_round_up(k->memory_size, MiB),
			  (unsigned long long)k->preferred);
		goto fail;
	}
	if (!boot_file_load(&b->src->kernel, k->payload_offset, k->payload_size, b->mem, *load,
			    err))
		goto fail;
	e820_remove(&b->avail, *load, k->memory_size);
	return true;
fail:
	error_prefix(err, "-kernel %s: ", b->src->path);
	return false;
}

/* At the top of what the kernel can reach. */
static bool load_initrd(struct boot_load *b, uint8_t *params, struct error **err)
{
	const struct bzimage *k = &b->src->bzimage;
	if (!b->src->module_count || !b->src->modules[0].file.size)
		return true;
	const struct boot_module *m = &b->src->modules[0];
	uint64_t gpa, size = m->file.size;
	if (!e820_alloc_top(&b->avail, size, 4096, MiB, k->initrd_max + 1, &gpa) &&
	    !(k->above_4g && e820_alloc_top(&b->avail, size, 4096, 4 * GiB, UINT64_MAX, &gpa))) {
		boot_module_too_big(m, err);
		return false;
	}
	if (!k->above_4g && size > UINT32_MAX) {
		boot_module_too_big(m, err);
		return false;
	}
	store_le32(params + BP_RAMDISK_IMAGE, (uint32_t)gpa);
	store_le32(params + BP_RAMDISK_SIZE, (uint32_t)size);
	store_le32(params + BP_EXT_RAMDISK_IMAGE, (uint32_t)(gpa >> 32));
	store_le32(params + BP_EXT_RAMDISK_SIZE, (uint32_t)(size >> 32));
	return boot_module_at(b, m, gpa, err);
}

static void setup_data(uint8_t *p, uint64_t next, uint32_t type, uint32_t len)
{
	store_le64(p, next);
	store_le32(p + 8, type);
	store_le32(p + 12, len);
}

/*
 * What boot_params points to, in one piece at gpa: GDT, setup data (random seed, memory map beyond
 * the 128 entries that boot_params has room for), command line. Returns its size; with buf NULL
 * only that.
 */
static size_t build_extra(const struct boot_load *b, uint8_t *buf, uint64_t gpa, uint8_t *params)
{
	const struct e820 *map = b->layout->e820;
	size_t over = map->count > BP_E820_MAX ? map->count - BP_E820_MAX : 0;
	size_t seed = GDT_ROOM;
	size_t ext = seed + SETUP_DATA_HEADER + RNG_SEED_SIZE;
	size_t cmdline = ext + (over ? SETUP_DATA_HEADER + over * E820_WIRE_SIZE : 0);
	size_t cmdline_size = strlen(b->src->cmdline) + 1;
	if (!buf)
		return cmdline + cmdline_size;

	x86_boot_gdt(buf, b->src->bzimage.entry64);
	setup_data(buf + seed, over ? gpa + ext : 0, SETUP_RNG_SEED, RNG_SEED_SIZE);
	/* Without entropy the kernel gets zeros, which it does not count as any. */
	if (getrandom(buf + seed + SETUP_DATA_HEADER, RNG_SEED_SIZE, GRND_NONBLOCK) !=
	    RNG_SEED_SIZE)
		memset(buf + seed + SETUP_DATA_HEADER, 0, RNG_SEED_SIZE);
	if (over) {
		setup_data(buf + ext, 0, SETUP_E820_EXT, (uint32_t)(over * E820_WIRE_SIZE));
		e820_to_wire(map, BP_E820_MAX, over, buf + ext + SETUP_DATA_HEADER);
	}
	memcpy(buf + cmdline, b->src->cmdline, cmdline_size);
	store_le32(params + BP_CMD_LINE_PTR, (uint32_t)(gpa + cmdline));
	/* Older kernels do not look for the chain; its place in the header is theirs. */
	if (b->src->bzimage.protocol >= 0x0209)
		store_le64(params + BP_SETUP_DATA, gpa + seed);
	return cmdline + cmdline_size;
}

static void init_params(const struct boot_load *b, uint8_t *params, uint64_t load)
{
	const struct bzimage *k = &b->src->bzimage;
	memset(params, 0, BP_SIZE);
	memcpy(params + BP_SETUP_SECTS, k->header, k->header_len);
	params[BP_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	store_le16(params + BP_VID_MODE, VID_MODE_NORMAL);
	store_le32(params + BP_CODE32_START, (uint32_t)load);
	store_le32(params + BP_RAMDISK_IMAGE, 0);
	store_le32(params + BP_RAMDISK_SIZE, 0);
	store_le64(params + BP_ACPI_RSDP, b->layout->rsdp);
	params[BP_E820_ENTRIES] = (uint8_t)e820_to_wire(b->layout->e820, 0, BP_E820_MAX,
							params + BP_E820_TABLE);
}

static bool write_page_tables(struct boot_load *b, uint64_t gpa, struct error **err)
{
	if (!b->mem)
		return true;
	uint8_t *tables = gm_ptr(b->mem, gpa, X86_BOOT_PAGES_SIZE, GM_TO_GUEST);
	if (!tables) {
		error_set(err, "-kernel %s: there is no memory at 0x%llx", b->src->path,
			  (unsigned long long)gpa);
		return false;
	}
	x86_boot_page_tables(tables, gpa);
	return true;
}

bool boot_bzimage(struct boot_load *b, struct error **err)
{
	const struct bzimage *k = &b->src->bzimage;
	uint8_t params[BP_SIZE];
	uint64_t load, low, tables = k->entry64 ? X86_BOOT_PAGES_SIZE : 0;
	if (!boot_cmdline_fits(b, k->cmdline_max, err) || !load_kernel(b, &load, err))
		return false;
	init_params(b, params, load);
	size_t extra_size = build_extra(b, NULL, 0, NULL);
	if (!load_initrd(b, params, err) ||
	    !boot_low_alloc(b, tables + BP_SIZE + extra_size, &low, err))
		return false;
	uint64_t params_at = low + tables, extra_at = params_at + BP_SIZE;
	uint8_t *extra = xcalloc(1, extra_size);
	build_extra(b, extra, extra_at, params);
	bool ok = boot_write(b, extra_at, extra, extra_size, err) &&
		  boot_write(b, params_at, params, sizeof(params), err) &&
		  (!tables || write_page_tables(b, low, err));
	free(extra);
	if (!ok)
		return false;
	if (k->entry64)
		x86_boot_state_long(b->out, load + 0x200, low, extra_at);
	else
		x86_boot_state_protected(b->out, (uint32_t)load, extra_at);
	b->out->regs.rsi = params_at;
	return true;
}
