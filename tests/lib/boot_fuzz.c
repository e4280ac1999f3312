/* SPDX-License-Identifier: Apache-2.0 */
/* See boot_fuzz.h. */
#include "tests/lib/boot_fuzz.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "vmm/core/util.h"

#define RAM_SIZE (32 * MiB)

void boot_fuzz_load(struct boot_source *src)
{
	static uint8_t *ram; /* kept from input to input: mapping it anew is what takes time */
	char path[] = "kernel", cmdline[] = "console=ttyS0", text[] = "initrd a b";
	struct boot_module module = {.text = text, .path = path};
	struct boot_layout layout = {.rsdp = 0xe0000};
	struct x86_boot_state state;
	struct guest_mem mem;
	struct e820 map;
	struct error *err = NULL;

	if (!ram)
		ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert(ram != MAP_FAILED);
	guest_mem_init(&mem);
	struct mem_region region = {.size = RAM_SIZE, .hva = ram, .fd = -1};
	assert(guest_mem_add(&mem, &region, NULL));
	e820_init(&map);
	e820_add(&map, 0, RAM_SIZE, E820_RAM);
	e820_add(&map, 0x9fc00, 0x60400, E820_RESERVED);
	layout.e820 = &map;
	/* The same bytes are first the kernel, then the initrd: their sizes vary together. */
	boot_file_from_bytes(&module.file, src->kernel.bytes, src->kernel.size);
	src->path = path;
	src->cmdline = cmdline;
	src->modules = &module;
	src->module_count = 1;
	/* Without clearing now and then, a large bss would take all the time. */
	layout.ram_is_zero = src->kernel.size & 1;
	if (boot_load(src, &layout, &mem, &state, &err)) {
		uint64_t list = state.regs.rsi | state.regs.rbx;
		assert(!err);
		assert(list >= BOOT_LOW_BASE && list < BOOT_LOW_END);
		assert(state.sregs.cr3 < BOOT_LOW_END && state.sregs.gdt.base < BOOT_LOW_END);
		assert(src->kind != BOOT_BZIMAGE || e820_is_ram(&map, state.regs.rip, 1));
	} else {
		assert(err && !strchr(error_message(err), '\n'));
		error_free(err);
	}
	e820_destroy(&map);
	guest_mem_destroy(&mem);
}
