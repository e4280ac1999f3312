/* SPDX-License-Identifier: Apache-2.0 */
/* Linux' setup header (Linux Documentation/arch/x86/boot.rst). Pure functions over hostile bytes.
 */
#include "target-x86/boot/bzimage_parse.h"

#include "vmm/core/util.h"

enum {
	LOADED_HIGH = 1 << 0,
	XLF_KERNEL_64 = 1 << 0,
	XLF_ABOVE_4G = 1 << 1,
	/* Protocols before 2.03 and 2.06 do not say: what their document gives. */
	OLD_INITRD_MAX = 0x37ffffff,
	OLD_CMDLINE_MAX = 255,
	SECTOR = 512,
};

bool bzimage_probe(const struct boot_file *f)
{
	uint8_t head[BP_VERSION];
	return boot_file_read(f, 0, head, sizeof(head)) &&
	       load_le16(head + BP_BOOT_FLAG) == 0xaa55 && !memcmp(head + BP_MAGIC, "HdrS", 4);
}

static bool parse_placement(struct bzimage *b, const uint8_t *head, struct error **err)
{
	b->preferred = MiB;
	b->alignment = 1;
	b->memory_size = b->payload_size;
	b->relocatable = b->protocol >= 0x0205 && head[BP_RELOCATABLE];
	if (b->relocatable) {
		b->alignment = load_le32(head + BP_KERNEL_ALIGNMENT);
		if (!is_pow2(b->alignment) || b->alignment < 4096) {
			error_set(err, "not a sound kernel: alignment 0x%x", b->alignment);
			return false;
		}
	}
	if (b->protocol >= 0x020a) {
		b->preferred = load_le64(head + BP_PREF_ADDRESS);
		b->memory_size = MAX(b->memory_size, load_le32(head + BP_INIT_SIZE));
		if (b->preferred < MiB || b->preferred >= 4 * GiB ||
		    !IS_ALIGNED(b->preferred, b->alignment)) {
			error_set(err, "not a sound kernel: load address 0x%llx",
				  (unsigned long long)b->preferred);
			return false;
		}
	}
	return true;
}

bool bzimage_parse(const struct boot_file *f, struct bzimage *b, struct error **err)
{
	uint8_t head[BP_HEADER_END] = {0};
	*b = (struct bzimage){0};
	if (!bzimage_probe(f)) {
		error_set(err, "not a kernel");
		return false;
	}
	/* The jump over the header tells where it ends. */
	if (!boot_file_read(f, 0, head, BP_LOADFLAGS + 1)) {
		error_set(err, "truncated kernel");
		return false;
	}
	uint32_t end = BP_MAGIC + head[BP_JUMP + 1];
	end = MIN(end, (uint32_t)BP_HEADER_END);
	b->protocol = load_le16(head + BP_VERSION);
	if (b->protocol < 0x0202 || !(head[BP_LOADFLAGS] & LOADED_HIGH)) {
		error_set(err, "too old a kernel: boot protocol %u.%02u, not loaded high",
			  b->protocol >> 8, b->protocol & 0xff);
		return false;
	}
	if (end <= BP_LOADFLAGS || !boot_file_read(f, 0, head, end)) {
		error_set(err, "truncated kernel");
		return false;
	}
	b->header_len = end - BP_SETUP_SECTS;
	memcpy(b->header, head + BP_SETUP_SECTS, b->header_len);

	unsigned sectors = head[BP_SETUP_SECTS] ? head[BP_SETUP_SECTS] : 4;
	b->payload_offset = (1 + sectors) * SECTOR;
	if (f->size <= b->payload_offset) {
		error_set(err, "truncated kernel: %llu bytes, only its header",
			  (unsigned long long)f->size);
		return false;
	}
	b->payload_size = f->size - b->payload_offset;
	/* Counts paragraphs, the last of which may be partial; 16 bits wide in old protocols. */
	uint64_t paragraphs = b->protocol >= 0x0204 ? load_le32(head + BP_SYSSIZE)
						    : load_le16(head + BP_SYSSIZE);
	if (paragraphs && b->payload_size < (paragraphs - 1) * 16 + 1) {
		error_set(err, "truncated kernel: %llu of %llu bytes", (unsigned long long)f->size,
			  (unsigned long long)(b->payload_offset + paragraphs * 16));
		return false;
	}

	b->initrd_max = b->protocol >= 0x0203 ? load_le32(head + BP_INITRD_ADDR_MAX)
					      : OLD_INITRD_MAX;
	b->cmdline_max = b->protocol >= 0x0206 ? load_le32(head + BP_CMDLINE_SIZE)
					       : OLD_CMDLINE_MAX;
	if (!b->cmdline_max)
		b->cmdline_max = OLD_CMDLINE_MAX;
	if (b->protocol >= 0x020c) {
		uint16_t flags = load_le16(head + BP_XLOADFLAGS);
		b->entry64 = flags & XLF_KERNEL_64;
		b->above_4g = b->entry64 && (flags & XLF_ABOVE_4G);
	}
	return parse_placement(b, head, err);
}
