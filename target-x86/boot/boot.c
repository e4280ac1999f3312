/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct boot: opens and recognises the kernel, and what the three formats' loaders share.
 * Main thread; the board owns the source.
 */
#include "target-x86/boot/boot.h"

#include <stdlib.h>

#include "target-x86/boot/boot_internal.h"
#include "vmm/core/util.h"

bool boot_source_identify(struct boot_source *src, struct error **err)
{
	const struct boot_file *f = &src->kernel;
	if (bzimage_probe(f)) {
		src->kind = BOOT_BZIMAGE;
		return bzimage_parse(f, &src->bzimage, err);
	}
	if (multiboot_probe(f)) {
		src->kind = BOOT_MULTIBOOT;
		return multiboot_parse(f, &src->multiboot, err);
	}
	if (!elf_probe(f)) {
		if (f->size < 4096)
			error_set(err, "truncated, or not a kernel: %llu bytes",
				  (unsigned long long)f->size);
		else
			error_set(err, "not a kernel: neither bzImage, nor ELF, nor multiboot");
		return false;
	}
	src->kind = BOOT_PVH;
	if (!elf_parse(f, &src->elf, err))
		return false;
	if (!src->elf.has_pvh_entry) {
		error_set(err, "an ELF kernel without a PVH entry (Linux: CONFIG_PVH)");
		return false;
	}
	if (!boot_segments_hold(src->elf.segments, src->elf.segment_count, src->elf.pvh_entry)) {
		error_set(err, "not a sound kernel: PVH entry 0x%x lies outside of it",
			  src->elf.pvh_entry);
		return false;
	}
	return true;
}

/* Cuts the next item off a list in which ",," stands for a comma. */
static char *next_item(const char **list)
{
	const char *s = *list;
	char *item = xmalloc(strlen(s) + 1), *out = item;
	while (*s && (*s != ',' || s[1] == ',')) {
		s += *s == ',';
		*out++ = *s++;
	}
	*out = '\0';
	*list = *s ? s + 1 : NULL;
	return item;
}

static bool add_module(struct boot_source *src, const char *text, bool arguments,
		       struct error **err)
{
	src->modules = xrealloc(src->modules, (src->module_count + 1) * sizeof(*src->modules));
	struct boot_module *m = &src->modules[src->module_count++];
	*m = (struct boot_module){.text = xstrdup(text), .file.fd = -1};
	m->path = xstrndup(text, arguments ? strcspn(text, " ") : strlen(text));
	if (!boot_file_open(&m->file, m->path, err)) {
		error_prefix(err, "-initrd %s: ", m->path);
		return false;
	}
	return true;
}

static bool open_modules(struct boot_source *src, const char *initrd, struct error **err)
{
	if (src->kind != BOOT_MULTIBOOT)
		return add_module(src, initrd, false, err);
	while (initrd) {
		char *item = next_item(&initrd);
		bool ok = add_module(src, item, true, err);
		free(item);
		if (!ok)
			return false;
	}
	return true;
}

struct boot_source *boot_source_open(const char *kernel, const char *initrd, const char *cmdline,
				     struct error **err)
{
	struct boot_source *src = xcalloc(1, sizeof(*src));
	src->path = xstrdup(kernel);
	src->cmdline = xstrdup(cmdline ? cmdline : "");
	if (!boot_file_open(&src->kernel, kernel, err) || !boot_source_identify(src, err)) {
		error_prefix(err, "-kernel %s: ", kernel);
		goto fail;
	}
	if (initrd && !open_modules(src, initrd, err))
		goto fail;
	return src;
fail:
	boot_source_close(src);
	return NULL;
}

void boot_source_close(struct boot_source *src)
{
	if (!src)
		return;
	for (size_t i = 0; i < src->module_count; i++) {
		boot_file_close(&src->modules[i].file);
		free(src->modules[i].path);
		free(src->modules[i].text);
	}
	free(src->modules);
	boot_file_close(&src->kernel);
	free(src->path);
	free(src->cmdline);
	free(src);
}

const char *boot_source_kind(const struct boot_source *src)
{
	switch (src->kind) {
	case BOOT_BZIMAGE:
		return "Linux bzImage";
	case BOOT_MULTIBOOT:
		return "multiboot";
	case BOOT_PVH:
		return "PVH ELF";
	}
	return NULL;
}

static bool clear(const struct boot_load *b, uint64_t gpa, uint64_t len)
{
	struct iovec iov[16];
	if (!b->mem || b->layout->ram_is_zero)
		return true;
	int n = gm_map(b->mem, gpa, len, GM_TO_GUEST, iov, ARRAY_SIZE(iov));
	for (int i = 0; i < n; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
	return n >= 0;
}

bool boot_segments(struct boot_load *b, const struct boot_segment *segments, unsigned count,
		   struct error **err)
{
	for (unsigned i = 0; i < count; i++) {
		const struct boot_segment *s = &segments[i];
		if (!e820_is_ram(b->layout->e820, s->gpa, s->memory_size)) {
			error_set(err,
				  "needs more memory: %llu KiB from 0x%llx on, which the guest "
				  "has not",
				  (unsigned long long)div_round_up(s->memory_size, KiB),
				  (unsigned long long)s->gpa);
			goto fail;
		}
		if (!boot_file_load(&b->src->kernel, s->offset, s->file_size, b->mem, s->gpa, err))
			goto fail;
		if (!clear(b, s->gpa + s->file_size, s->memory_size - s->file_size)) {
			error_set(err, "there is no memory at 0x%llx", (unsigned long long)s->gpa);
			goto fail;
		}
		e820_remove(&b->avail, s->gpa, s->memory_size);
	}
	return true;
fail:
	error_prefix(err, "-kernel %s: ", b->src->path);
	return false;
}

bool boot_segments_hold(const struct boot_segment *segments, unsigned count, uint64_t gpa)
{
	for (unsigned i = 0; i < count; i++)
		if (gpa >= segments[i].gpa && gpa - segments[i].gpa < segments[i].memory_size)
			return true;
	return false;
}

bool boot_module_at(struct boot_load *b, const struct boot_module *m, uint64_t gpa,
		    struct error **err)
{
	if (!boot_file_load(&m->file, 0, m->file.size, b->mem, gpa, err)) {
		error_prefix(err, "-initrd %s: ", m->path);
		return false;
	}
	e820_remove(&b->avail, gpa, m->file.size);
	return true;
}

void boot_module_too_big(const struct boot_module *m, struct error **err)
{
	error_set(err, "-initrd %s: too big: no room for %llu KiB in memory beside the kernel",
		  m->path, (unsigned long long)div_round_up(m->file.size, KiB));
}

bool boot_low_alloc(struct boot_load *b, uint64_t size, uint64_t *gpa, struct error **err)
{
	size = ALIGN_UP(size, 4096);
	if (e820_alloc_bottom(&b->avail, size, 4096, BOOT_LOW_BASE, BOOT_LOW_END, gpa)) {
		e820_remove(&b->avail, *gpa, size);
		return true;
	}
	error_set(err, "-kernel %s: no room for %llu KiB of boot parameters below 0x%x",
		  b->src->path, (unsigned long long)(size / KiB), BOOT_LOW_END);
	return false;
}

bool boot_write(struct boot_load *b, uint64_t gpa, const void *buf, size_t len, struct error **err)
{
	if (!b->mem || gm_write(b->mem, gpa, buf, len))
		return true;
	error_set(err, "-kernel %s: there is no memory at 0x%llx", b->src->path,
		  (unsigned long long)gpa);
	return false;
}

bool boot_cmdline_fits(const struct boot_load *b, uint64_t max, struct error **err)
{
	size_t len = strlen(b->src->cmdline);
	max = MIN(max, (uint64_t)(BOOT_LOW_END - BOOT_LOW_BASE) / 2);
	if (len <= max)
		return true;
	error_set(err, "-append: command line too long: %zu bytes, this kernel takes %llu", len,
		  (unsigned long long)max);
	return false;
}

bool boot_load(const struct boot_source *src, const struct boot_layout *layout,
	       struct guest_mem *mem, struct x86_boot_state *out, struct error **err)
{
	struct boot_load b = {.src = src, .layout = layout, .mem = mem, .out = out};
	bool ok = false;
	e820_init(&b.avail);
	for (size_t i = 0; i < layout->e820->count; i++)
		if (layout->e820->entries[i].type == E820_RAM)
			e820_add(&b.avail, layout->e820->entries[i].base,
				 layout->e820->entries[i].size, E820_RAM);
	switch (src->kind) {
	case BOOT_BZIMAGE:
		ok = boot_bzimage(&b, err);
		break;
	case BOOT_MULTIBOOT:
		ok = boot_multiboot(&b, err);
		break;
	case BOOT_PVH:
		ok = boot_pvh(&b, err);
		break;
	}
	e820_destroy(&b.avail);
	return ok;
}
