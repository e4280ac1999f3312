/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two readers of the tables' relocations: the linker script that firmware runs (the
 * etc/table-loader format that SeaBIOS, OVMF and QEMU share: entries of 128 bytes), and placing at
 * direct boot.
 *
 * Pure functions; any thread.
 */
#include <stdlib.h>
#include <string.h>

#include "hw/acpi/tables.h"
#include "hw/acpi/vmgenid.h"
#include "hw/fw_cfg/fw_cfg.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/util.h"

enum {
	ENTRY_SIZE = 128,
	ENTRY_NAME_SIZE = 56,
	ENTRY_FIRST_NAME = 4,
	ENTRY_SECOND_NAME = 60,

	COMMAND_ALLOCATE = 1,	   /* name, align, zone */
	COMMAND_ADD_POINTER = 2,   /* where, target, offset, size */
	COMMAND_ADD_CHECKSUM = 3,  /* where, offset, start, length */
	COMMAND_WRITE_POINTER = 4, /* where (writable), target, offset, target's offset, size */

	ZONE_HIGH = 1,
	ZONE_FSEG = 2, /* 0xf0000 to 0xfffff, where an RSDP is looked for */

	RSDP_ALIGN = 16,
	TABLES_ROOM = 2048,
	SCRIPT_ROOM = 4 * ENTRY_SIZE,
	SCRIPT_PAD = 4096,
};

#define LOADER_FILE	  "etc/table-loader"
#define VMGENID_ADDR_FILE "etc/vmgenid_addr"

static const char *const file_names[ACPI_FILE_COUNT] = {
	[ACPI_FILE_RSDP] = "etc/acpi/rsdp",
	[ACPI_FILE_TABLES] = "etc/acpi/tables",
	[ACPI_FILE_VMGENID] = "etc/vmgenid_guid",
};
_Static_assert(sizeof(VMGENID_ADDR_FILE) <= ENTRY_NAME_SIZE, "fits an entry");

static uint8_t *entry(uint8_t *p, uint32_t command, const char *name, const char *second)
{
	store_le32(p, command);
	memcpy(p + ENTRY_FIRST_NAME, name, strlen(name));
	if (second)
		memcpy(p + ENTRY_SECOND_NAME, second, strlen(second));
	return p + ENTRY_SIZE;
}

static uint8_t *allocate(uint8_t *p, enum acpi_file file, uint32_t align, uint8_t zone)
{
	store_le32(p + 60, align);
	p[64] = zone;
	return entry(p, COMMAND_ALLOCATE, file_names[file], NULL);
}

static uint8_t *relocate(uint8_t *p, const struct acpi_reloc *r)
{
	if (r->kind == ACPI_RELOC_POINTER) {
		store_le32(p + 116, r->offset);
		p[120] = r->size;
		return entry(p, COMMAND_ADD_POINTER, file_names[r->file], file_names[r->target]);
	}
	store_le32(p + 60, r->offset);
	store_le32(p + 64, r->start);
	store_le32(p + 68, r->length);
	return entry(p, COMMAND_ADD_CHECKSUM, file_names[r->file], NULL);
}

uint8_t *acpi_loader_script(const struct acpi_tables *tables, size_t *len)
{
	size_t count = 2 + tables->reloc_count + (tables->vmgenid ? 2 : 0);
	uint8_t *script, *p;

	*len = ALIGN_UP(count * ENTRY_SIZE + SCRIPT_ROOM, (size_t)SCRIPT_PAD);
	script = p = xcalloc(1, *len);
	p = allocate(p, ACPI_FILE_RSDP, RSDP_ALIGN, ZONE_FSEG);
	p = allocate(p, ACPI_FILE_TABLES, ACPI_TABLES_ALIGN, ZONE_HIGH);
	if (tables->vmgenid)
		p = allocate(p, ACPI_FILE_VMGENID, VMGENID_PAGE_SIZE, ZONE_HIGH);
	for (size_t i = 0; i < tables->reloc_count; i++)
		p = relocate(p, &tables->relocs[i]);
	if (tables->vmgenid) {
		store_le32(p + 120, VMGENID_GUID_OFFSET);
		p[124] = 8;
		entry(p, COMMAND_WRITE_POINTER, VMGENID_ADDR_FILE, file_names[ACPI_FILE_VMGENID]);
	}
	return script;
}

static void patch(const struct acpi_reloc *r, uint8_t *bytes,
		  const uint64_t address[ACPI_FILE_COUNT])
{
	uint8_t sum = 0;

	if (r->kind == ACPI_RELOC_POINTER) {
		store_le(bytes + r->offset, r->size,
			 load_le(bytes + r->offset, r->size) + address[r->target]);
		return;
	}
	bytes[r->offset] = 0;
	for (uint32_t i = 0; i < r->length; i++)
		sum += bytes[r->start + i];
	bytes[r->offset] = -sum;
}

bool acpi_tables_place(const struct acpi_tables *tables, const struct guest_mem *gm,
		       uint64_t rsdp_gpa, uint64_t tables_gpa, uint64_t vmgenid_gpa)
{
	const uint64_t address[ACPI_FILE_COUNT] = {
		[ACPI_FILE_RSDP] = rsdp_gpa,
		[ACPI_FILE_TABLES] = tables_gpa,
		[ACPI_FILE_VMGENID] = vmgenid_gpa,
	};
	uint8_t rsdp[ACPI_RSDP_SIZE], *data = xmalloc(tables->len);
	bool ok;

	memcpy(rsdp, tables->rsdp, sizeof(rsdp));
	memcpy(data, tables->data, tables->len);
	for (size_t i = 0; i < tables->reloc_count; i++) {
		const struct acpi_reloc *r = &tables->relocs[i];

		patch(r, r->file == ACPI_FILE_RSDP ? rsdp : data, address);
	}
	ok = gm_write(gm, tables_gpa, data, tables->len) &&
	     gm_write(gm, rsdp_gpa, rsdp, sizeof(rsdp));
	free(data);
	return ok;
}

/*
 * Adds the file with some room to grow, or fills an existing one up with zeroes. What may come
 * between the two builds is an MCFG and a few windows.
 */
static void publish(struct fw_cfg *fw, const char *name, const void *data, size_t len, size_t room,
		    void (*refresh)(void *opaque), void *opaque)
{
	bool there = fw_cfg_has_file(fw, name);
	size_t padded = there ? MAX(len, fw_cfg_file_len(fw, name)) : len + room;
	struct fw_cfg_file file = {.name = name,
				   .data = xcalloc(1, padded),
				   .len = padded,
				   .owned = true,
				   .select = refresh,
				   .opaque = opaque};

	memcpy(file.data, data, len);
	if (!there) {
		fw_cfg_add_file(fw, &file, NULL);
		return;
	}
	fw_cfg_replace(fw, name, file.data, padded);
	free(file.data);
}

void acpi_tables_to_fw_cfg(const struct acpi_tables *tables, struct fw_cfg *fw,
			   void (*refresh)(void *opaque), void *opaque)
{
	size_t script_len;
	uint8_t *script = acpi_loader_script(tables, &script_len);

	publish(fw, file_names[ACPI_FILE_RSDP], tables->rsdp, sizeof(tables->rsdp), 0, refresh,
		opaque);
	publish(fw, file_names[ACPI_FILE_TABLES], tables->data, tables->len, TABLES_ROOM, refresh,
		opaque);
	publish(fw, LOADER_FILE, script, script_len, 0, refresh, opaque);
	free(script);
}
