/* SPDX-License-Identifier: Apache-2.0 */
/* ELF executables for x86 and their Xen notes. Pure functions over hostile bytes. */
#include "target-x86/boot/elf_parse.h"

#include <elf.h>

#include "vmm/core/util.h"

enum {
	XEN_ELFNOTE_PHYS32_ENTRY = 18,
	MAX_HEADERS = 256,
	MAX_NOTES = 1024, /* looked at in one segment; a kernel has a dozen */
};

/* A program header, whichever the class. */
struct header {
	uint32_t type;
	uint64_t offset, paddr, file_size, memory_size;
};

static void decode_header(const uint8_t *p, bool is64, struct header *h)
{
	h->type = load_le32(p);
	if (is64) {
		h->offset = load_le64(p + offsetof(Elf64_Phdr, p_offset));
		h->paddr = load_le64(p + offsetof(Elf64_Phdr, p_paddr));
		h->file_size = load_le64(p + offsetof(Elf64_Phdr, p_filesz));
		h->memory_size = load_le64(p + offsetof(Elf64_Phdr, p_memsz));
	} else {
		h->offset = load_le32(p + offsetof(Elf32_Phdr, p_offset));
		h->paddr = load_le32(p + offsetof(Elf32_Phdr, p_paddr));
		h->file_size = load_le32(p + offsetof(Elf32_Phdr, p_filesz));
		h->memory_size = load_le32(p + offsetof(Elf32_Phdr, p_memsz));
	}
}

bool elf_probe(const struct boot_file *f)
{
	uint8_t magic[SELFMAG];
	return boot_file_read(f, 0, magic, sizeof(magic)) && !memcmp(magic, ELFMAG, SELFMAG);
}

static bool add_segment(const struct boot_file *f, const struct header *h, struct elf_image *out,
			struct error **err)
{
	if (!h->memory_size)
		return true;
	if (!range_inside(h->offset, h->file_size, f->size)) {
		error_set(err, "truncated kernel: a segment ends at byte %llu of %llu",
			  (unsigned long long)(h->offset + h->file_size),
			  (unsigned long long)f->size);
		return false;
	}
	if (h->file_size > h->memory_size || h->paddr > UINT64_MAX - h->memory_size) {
		error_set(err, "not a sound kernel: segment at 0x%llx",
			  (unsigned long long)h->paddr);
		return false;
	}
	if (out->segment_count == ELF_MAX_SEGMENTS) {
		error_set(err, "not a sound kernel: more than %d segments", ELF_MAX_SEGMENTS);
		return false;
	}
	out->segments[out->segment_count++] = (struct boot_segment){
		h->offset,
		h->file_size,
		h->paddr,
		h->memory_size,
	};
	return true;
}

/* Notes are padded to 4 bytes, whatever the segment's alignment says: Linux and Xen do so. */
static void scan_notes(const struct boot_file *f, const struct header *h, struct elf_image *out)
{
	uint64_t pos = h->offset, left = h->file_size;
	if (!range_inside(pos, left, f->size))
		return;
	for (int i = 0; i < MAX_NOTES && left >= sizeof(Elf32_Nhdr); i++) {
		uint8_t note[sizeof(Elf32_Nhdr) + 4];
		uint8_t value[8];
		if (!boot_file_read(f, pos, note, sizeof(Elf32_Nhdr)))
			return;
		uint64_t name_len = load_le32(note), desc_len = load_le32(note + 4);
		uint64_t desc = sizeof(Elf32_Nhdr) + ALIGN_UP(name_len, 4);
		uint64_t size = desc + ALIGN_UP(desc_len, 4);
		/* The last note's padding may be cut off. */
		if (desc + desc_len > left)
			return;
		if (name_len == 4 && load_le32(note + 8) == XEN_ELFNOTE_PHYS32_ENTRY &&
		    (desc_len == 4 || desc_len == 8) &&
		    boot_file_read(f, pos, note, sizeof(note)) &&
		    !memcmp(note + sizeof(Elf32_Nhdr), "Xen", 4) &&
		    boot_file_read(f, pos + desc, value, desc_len)) {
			uint64_t entry = load_le(value, (unsigned)desc_len);
			if (entry <= UINT32_MAX) {
				out->pvh_entry = (uint32_t)entry;
				out->has_pvh_entry = true;
			}
			return;
		}
		if (size >= left)
			return;
		pos += size;
		left -= size;
	}
}

static bool check_ident(const uint8_t *e, bool is64, struct error **err)
{
	uint16_t machine = load_le16(e + offsetof(Elf64_Ehdr, e_machine));
	if (e[EI_DATA] != ELFDATA2LSB || machine != (is64 ? EM_X86_64 : EM_386)) {
		error_set(err, "an ELF file, but not for x86");
		return false;
	}
	if (load_le16(e + offsetof(Elf64_Ehdr, e_type)) != ET_EXEC &&
	    load_le16(e + offsetof(Elf64_Ehdr, e_type)) != ET_DYN) {
		error_set(err, "an ELF file, but not an executable");
		return false;
	}
	return true;
}

bool elf_parse(const struct boot_file *f, struct elf_image *out, struct error **err)
{
	uint8_t e[sizeof(Elf64_Ehdr)] = {0}, p[sizeof(Elf64_Phdr)];
	*out = (struct elf_image){0};
	if (!elf_probe(f)) {
		error_set(err, "not an ELF file");
		return false;
	}
	if (!boot_file_read(f, 0, e, sizeof(Elf32_Ehdr))) {
		error_set(err, "truncated kernel");
		return false;
	}
	out->is64 = e[EI_CLASS] == ELFCLASS64;
	if (out->is64 && !boot_file_read(f, 0, e, sizeof(Elf64_Ehdr))) {
		error_set(err, "truncated kernel");
		return false;
	}
	if (!check_ident(e, out->is64, err))
		return false;
	uint64_t at;
	uint16_t size, count;
	if (out->is64) {
		out->entry = load_le64(e + offsetof(Elf64_Ehdr, e_entry));
		at = load_le64(e + offsetof(Elf64_Ehdr, e_phoff));
		size = load_le16(e + offsetof(Elf64_Ehdr, e_phentsize));
		count = load_le16(e + offsetof(Elf64_Ehdr, e_phnum));
	} else {
		out->entry = load_le32(e + offsetof(Elf32_Ehdr, e_entry));
		at = load_le32(e + offsetof(Elf32_Ehdr, e_phoff));
		size = load_le16(e + offsetof(Elf32_Ehdr, e_phentsize));
		count = load_le16(e + offsetof(Elf32_Ehdr, e_phnum));
	}
	size_t want = out->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	if (size < want || !count || count > MAX_HEADERS) {
		error_set(err, "not a sound kernel: %u program headers of %u bytes", count, size);
		return false;
	}
	if (!range_inside(at, (uint64_t)size * count, f->size)) {
		error_set(err, "truncated kernel");
		return false;
	}
	for (unsigned i = 0; i < count; i++) {
		struct header h;
		if (!boot_file_read(f, at + (uint64_t)i * size, p, want)) {
			error_set(err, "truncated kernel");
			return false;
		}
		decode_header(p, out->is64, &h);
		if (h.type == PT_LOAD && !add_segment(f, &h, out, err))
			return false;
		if (h.type == PT_NOTE && !out->has_pvh_entry)
			scan_notes(f, &h, out);
	}
	if (!out->segment_count) {
		error_set(err, "an ELF file with nothing to load");
		return false;
	}
	return true;
}
