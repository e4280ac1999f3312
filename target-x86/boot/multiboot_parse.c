/* SPDX-License-Identifier: Apache-2.0 */
/* Multiboot headers (Multiboot 0.6.96, section 3.1). Pure functions over hostile bytes. */
#include "target-x86/boot/multiboot_parse.h"

#include <elf.h>

#include "vmm/core/util.h"

enum {
	HEADER_MAGIC = 0x1badb002,
	SEARCH = 8192, /* the header lies wholly in these first bytes */
	FLAG_ALIGN = 1 << 0,
	FLAG_MEMORY = 1 << 1,
	FLAG_VIDEO = 1 << 2, /* a wish, which is not granted */
	FLAG_ADDRESSES = 1 << 16,
	REQUIREMENTS = 0xffff,
};

struct mb_header {
	uint32_t at; /* in the file */
	uint32_t flags;
	uint32_t header_addr, load_addr, load_end, bss_end, entry; /* FLAG_ADDRESSES */
};

static bool find_header(const struct boot_file *f, struct mb_header *h)
{
	uint8_t head[SEARCH + 32] = {0};
	uint32_t len = (uint32_t)MIN(f->size, (uint64_t)SEARCH);
	if (!boot_file_read(f, 0, head, len))
		return false;
	for (uint32_t at = 0; at + 12 <= len; at += 4) {
		const uint8_t *p = head + at;
		uint32_t flags = load_le32(p + 4);
		if (load_le32(p) != HEADER_MAGIC || HEADER_MAGIC + flags + load_le32(p + 8) != 0)
			continue;
		if ((flags & FLAG_ADDRESSES) && at + 32 > len)
			continue;
		*h = (struct mb_header){
			at,
			flags,
			load_le32(p + 12),
			load_le32(p + 16),
			load_le32(p + 20),
			load_le32(p + 24),
			load_le32(p + 28),
		};
		return true;
	}
	return false;
}

bool multiboot_probe(const struct boot_file *f)
{
	struct mb_header h;
	uint8_t ident[EI_CLASS + 1];
	if (!find_header(f, &h))
		return false;
	return (h.flags & FLAG_ADDRESSES) ||
	       (elf_probe(f) && boot_file_read(f, 0, ident, sizeof(ident)) &&
		ident[EI_CLASS] == ELFCLASS32);
}

static bool parse_addresses(const struct boot_file *f, const struct mb_header *h,
			    struct multiboot_image *out, struct error **err)
{
	/* The file is one piece; its header at header_addr tells where it begins. */
	if (h->header_addr < h->load_addr || h->header_addr - h->load_addr > h->at) {
		error_set(err, "not a sound kernel: multiboot header at 0x%x, load address 0x%x",
			  h->header_addr, h->load_addr);
		return false;
	}
	struct boot_segment s = {.gpa = h->load_addr};
	s.offset = h->at - (h->header_addr - h->load_addr);
	if (h->load_end && h->load_end <= h->load_addr) {
		error_set(err, "not a sound kernel: multiboot load end 0x%x", h->load_end);
		return false;
	}
	s.file_size = h->load_end ? h->load_end - h->load_addr : f->size - s.offset;
	if (!range_inside(s.offset, s.file_size, f->size)) {
		error_set(err, "truncated kernel: its multiboot header wants %llu bytes of %llu",
			  (unsigned long long)(s.offset + s.file_size),
			  (unsigned long long)f->size);
		return false;
	}
	s.memory_size = s.file_size;
	if (h->bss_end) {
		if (h->bss_end < h->load_addr || h->bss_end - h->load_addr < s.file_size) {
			error_set(err, "not a sound kernel: multiboot bss end 0x%x", h->bss_end);
			return false;
		}
		s.memory_size = h->bss_end - h->load_addr;
	}
	out->entry = h->entry;
	out->segments[out->segment_count++] = s;
	return true;
}

static bool parse_elf(const struct boot_file *f, struct multiboot_image *out, struct error **err)
{
	struct elf_image elf;
	if (!elf_parse(f, &elf, err))
		return false;
	if (elf.is64 || elf.entry > UINT32_MAX) {
		error_set(err, "multiboot loads 32-bit ELF files only");
		return false;
	}
	out->entry = (uint32_t)elf.entry;
	out->segment_count = elf.segment_count;
	memcpy(out->segments, elf.segments, elf.segment_count * sizeof(elf.segments[0]));
	return true;
}

bool multiboot_parse(const struct boot_file *f, struct multiboot_image *out, struct error **err)
{
	struct mb_header h;
	*out = (struct multiboot_image){0};
	if (!find_header(f, &h)) {
		error_set(err, "not a multiboot kernel");
		return false;
	}
	out->flags = h.flags;
	if (h.flags & REQUIREMENTS & ~(FLAG_ALIGN | FLAG_MEMORY | FLAG_VIDEO)) {
		error_set(err, "the multiboot header requires what is unknown (flags 0x%x)",
			  h.flags);
		return false;
	}
	return h.flags & FLAG_ADDRESSES ? parse_addresses(f, &h, out, err) : parse_elf(f, out, err);
}
