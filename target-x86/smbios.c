/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SMBIOS structures and entry points (DMTF DSP0134 3.0, sections 5 to 7; what is written also fits
 * 2.8).
 * Main thread; whoever builds owns the tables.
 */
#include "target-x86/smbios.h"

#include <stdio.h>
#include <stdlib.h>

#include "target-x86/smbios_internal.h"
#include "vmm/core/util.h"

enum {
	HANDLE_BIOS = 0x000,
	HANDLE_SYSTEM = 0x100,
	HANDLE_BOARD = 0x200,
	HANDLE_CHASSIS = 0x300,
	HANDLE_PROCESSOR = 0x400, /* and as many more as there are sockets */
	HANDLE_OEM = 0xe00,
	HANDLE_ARRAY = 0x1000,
	HANDLE_DIMM = 0x1100,
	HANDLE_RANGE = 0x1900,
	HANDLE_BOOT = 0x2000,
	HANDLE_END = 0x7f00,
	NO_HANDLE = 0xffff, /* and 0xfffe: no error information */
	NO_ERROR_HANDLE = 0xfffe,
	EP32_SIZE = 31,
	EP64_SIZE = 24,
	MAX_DIMMS = 512,
	MAX_SOCKETS = HANDLE_OEM - HANDLE_PROCESSOR,
};

static const struct smbios_options no_options;

struct builder {
	const struct smbios_options *o;
	const struct smbios_machine *m;
	uint8_t *buf;
	size_t len, room;
	size_t start;	  /* of the structure being written */
	unsigned strings; /* that it has */
	unsigned count;	  /* of structures */
	size_t longest;
};

static uint8_t *grow(struct builder *b, size_t n)
{
	if (b->len + n > b->room) {
		b->room = MAX(b->room * 2, b->len + n + 1024);
		b->buf = xrealloc(b->buf, b->room);
	}
	uint8_t *p = b->buf + b->len;
	memset(p, 0, n);
	b->len += n;
	return p;
}

/* The fixed part is written through at(); strings come behind it in the order of set_string(). */
static bool begin(struct builder *b, uint8_t type, uint8_t size, uint16_t handle)
{
	if (b->o->blob_types[type])
		return false;
	b->start = b->len;
	b->strings = 0;
	uint8_t *p = grow(b, size);
	p[0] = type;
	p[1] = size;
	store_le16(p + 2, handle);
	return true;
}

static uint8_t *at(struct builder *b, size_t offset)
{
	return b->buf + b->start + offset;
}

/* Number 0 stands for no string. */
static void set_string(struct builder *b, size_t offset, const char *s)
{
	if (!s || !*s)
		return;
	size_t size = strlen(s) + 1;
	memcpy(grow(b, size), s, size);
	*at(b, offset) = (uint8_t)++b->strings;
}

/* What -smbios says, or else a default, which may be NULL. */
static void set_option(struct builder *b, size_t offset, enum smbios_string which, const char *def)
{
	set_string(b, offset, b->o->strings[which] ? b->o->strings[which] : def);
}

static void end(struct builder *b)
{
	grow(b, b->strings ? 1 : 2);
	b->longest = MAX(b->longest, b->len - b->start);
	b->count++;
}

static void build_bios(struct builder *b)
{
	enum { NO_CHARACTERISTICS = 1 << 3, TARGETED_CONTENT = 1 << 2, UEFI = 1 << 3, VM = 1 << 4 };
	if (!b->o->type0 && !b->m->bios)
		return;
	if (!begin(b, 0, 0x18, HANDLE_BIOS))
		return;
	store_le16(at(b, 6), 0xe800);
	store_le64(at(b, 0xa), NO_CHARACTERISTICS);
	*at(b, 0x13) = TARGETED_CONTENT | VM | (b->o->uefi ? UEFI : 0);
	*at(b, 0x14) = b->o->release_major;
	*at(b, 0x15) = b->o->release_minor;
	*at(b, 0x16) = *at(b, 0x17) = 0xff; /* no embedded controller */
	set_option(b, 4, T0_VENDOR, "vmm");
	set_option(b, 5, T0_VERSION, b->m->version);
	/* Not too long ago: kernels distrust the ACPI tables of old firmware. */
	set_option(b, 8, T0_DATE, "01/01/2026");
	end(b);
}

/* The first three fields of a UUID are little-endian here. */
static void put_uuid(uint8_t *p, const uint8_t *u)
{
	store_le32(p, load_be32(u));
	store_le16(p + 4, load_be16(u + 4));
	store_le16(p + 6, load_be16(u + 6));
	memcpy(p + 8, u + 8, 8);
}

static void build_system(struct builder *b)
{
	enum { WAKE_POWER_SWITCH = 6 };
	const uint8_t *uuid = b->o->uuid_set ? b->o->uuid : b->m->uuid;
	if (!begin(b, 1, 0x1b, HANDLE_SYSTEM))
		return;
	if (uuid)
		put_uuid(at(b, 8), uuid);
	*at(b, 0x18) = WAKE_POWER_SWITCH;
	set_option(b, 4, T1_MANUFACTURER, "vmm");
	set_option(b, 5, T1_PRODUCT, b->m->name);
	set_option(b, 6, T1_VERSION, b->m->version);
	set_option(b, 7, T1_SERIAL, NULL);
	set_option(b, 0x19, T1_SKU, NULL);
	set_option(b, 0x1a, T1_FAMILY, NULL);
	end(b);
}

static void build_board(struct builder *b)
{
	enum { HOSTING_BOARD = 1, MOTHERBOARD = 0xa };
	if (!b->o->type2 || !begin(b, 2, 0xf, HANDLE_BOARD))
		return;
	*at(b, 9) = HOSTING_BOARD;
	store_le16(at(b, 0xb), HANDLE_CHASSIS);
	*at(b, 0xd) = MOTHERBOARD;
	set_option(b, 4, T2_MANUFACTURER, "vmm");
	set_option(b, 5, T2_PRODUCT, b->m->name);
	set_option(b, 6, T2_VERSION, b->m->version);
	set_option(b, 7, T2_SERIAL, NULL);
	set_option(b, 8, T2_ASSET, NULL);
	set_option(b, 0xa, T2_LOCATION, NULL);
	end(b);
}

static void build_chassis(struct builder *b)
{
	enum { OTHER = 1, UNKNOWN = 2, SAFE = 3 };
	if (!begin(b, 3, 0x16, HANDLE_CHASSIS))
		return;
	*at(b, 5) = OTHER;
	*at(b, 9) = *at(b, 0xa) = *at(b, 0xb) = SAFE; /* boot-up, power supply, thermal */
	*at(b, 0xc) = UNKNOWN;			      /* security */
	set_option(b, 4, T3_MANUFACTURER, "vmm");
	set_option(b, 6, T3_VERSION, b->m->version);
	set_option(b, 7, T3_SERIAL, NULL);
	set_option(b, 8, T3_ASSET, NULL);
	set_option(b, 0x15, T3_SKU, NULL);
	end(b);
}

static void build_processor(struct builder *b, unsigned socket)
{
	enum {
		CENTRAL = 3,
		OTHER = 1,
		POPULATED_ENABLED = 0x41,
		CAPABLE_64_BIT = 1 << 2,
		MULTI_CORE = 1 << 3,
		MULTI_THREAD = 1 << 4,
	};
	const struct cpu_topology *t = &b->m->topology;
	unsigned cores = t->dies * t->cores, threads = cores * t->threads;
	char name[64];
	if (!begin(b, 4, 0x30, (uint16_t)(HANDLE_PROCESSOR + socket)))
		return;
	*at(b, 5) = CENTRAL;
	*at(b, 6) = OTHER;
	if (b->o->processor_id_set) {
		store_le64(at(b, 8), b->o->processor_id);
	} else {
		store_le32(at(b, 8), b->m->cpu_signature);
		store_le32(at(b, 0xc), b->m->cpu_features);
	}
	store_le16(at(b, 0x14), b->o->max_speed ? b->o->max_speed : 2000);
	store_le16(at(b, 0x16), b->o->current_speed ? b->o->current_speed : 2000);
	*at(b, 0x18) = POPULATED_ENABLED;
	*at(b, 0x19) = OTHER;
	for (size_t cache = 0x1a; cache <= 0x1e; cache += 2)
		store_le16(at(b, cache), NO_HANDLE);
	*at(b, 0x23) = *at(b, 0x24) = (uint8_t)MIN(cores, 255u);
	*at(b, 0x25) = (uint8_t)MIN(threads, 255u);
	store_le16(at(b, 0x26), CAPABLE_64_BIT | (cores > 1 ? MULTI_CORE : 0) |
					(t->threads > 1 ? MULTI_THREAD : 0));
	store_le16(at(b, 0x28), OTHER);
	store_le16(at(b, 0x2a), (uint16_t)cores);
	store_le16(at(b, 0x2c), (uint16_t)cores);
	store_le16(at(b, 0x2e), (uint16_t)threads);
	const char *prefix = b->o->strings[T4_SOCK_PFX];
	snprintf(name, sizeof(name), "%.40s %u", prefix ? prefix : "CPU", socket);
	set_string(b, 4, name);
	set_option(b, 7, T4_MANUFACTURER, "vmm");
	set_option(b, 0x10, T4_VERSION, b->m->cpu_version ? b->m->cpu_version : b->m->version);
	set_option(b, 0x20, T4_SERIAL, NULL);
	set_option(b, 0x21, T4_ASSET, NULL);
	set_option(b, 0x22, T4_PART, NULL);
	end(b);
}

static void build_oem_strings(struct builder *b)
{
	if (!b->o->oem_count || !begin(b, 11, 5, HANDLE_OEM))
		return;
	for (size_t i = 0; i < b->o->oem_count; i++)
		set_string(b, 4, b->o->oem[i]); /* the last one's number is their count */
	end(b);
}

static void build_array(struct builder *b, unsigned devices)
{
	enum { LOCATION_OTHER = 1, SYSTEM_MEMORY = 3, MULTI_BIT_ECC = 6 };
	uint64_t max = MAX(b->m->max_ram_size, b->m->ram_size), kib = max / KiB;
	if (!begin(b, 16, 0x17, HANDLE_ARRAY))
		return;
	*at(b, 4) = LOCATION_OTHER;
	*at(b, 5) = SYSTEM_MEMORY;
	*at(b, 6) = MULTI_BIT_ECC;
	if (kib < 0x80000000) {
		store_le32(at(b, 7), (uint32_t)kib);
	} else {
		store_le32(at(b, 7), 0x80000000);
		store_le64(at(b, 0xf), max);
	}
	store_le16(at(b, 0xb), NO_ERROR_HANDLE);
	store_le16(at(b, 0xd), (uint16_t)devices);
	end(b);
}

/* size 0: an empty slot. */
static void build_dimm(struct builder *b, unsigned index, uint64_t size)
{
	enum { WIDTH_UNKNOWN = 0xffff, DIMM = 9, TYPE_UNKNOWN = 2, TYPE_RAM = 7, DETAIL_OTHER = 2 };
	uint64_t mib = div_round_up(size, MiB);
	char name[64];
	if (!begin(b, 17, 0x28, (uint16_t)(HANDLE_DIMM + index)))
		return;
	store_le16(at(b, 4), HANDLE_ARRAY);
	store_le16(at(b, 6), NO_ERROR_HANDLE);
	store_le16(at(b, 8), WIDTH_UNKNOWN);
	store_le16(at(b, 0xa), WIDTH_UNKNOWN);
	store_le16(at(b, 0xc), (uint16_t)MIN(mib, UINT64_C(0x7fff)));
	if (mib >= 0x7fff)
		store_le32(at(b, 0x1c), (uint32_t)mib);
	*at(b, 0xe) = DIMM;
	*at(b, 0x12) = size ? TYPE_RAM : TYPE_UNKNOWN;
	store_le16(at(b, 0x13), DETAIL_OTHER);
	if (size) {
		store_le16(at(b, 0x15), b->o->memory_speed);
		store_le16(at(b, 0x20), b->o->memory_speed);
	}
	const char *prefix = b->o->strings[T17_LOC_PFX];
	snprintf(name, sizeof(name), "%.40s %u", prefix ? prefix : "DIMM", index);
	set_string(b, 0x10, name);
	set_option(b, 0x11, T17_BANK, NULL);
	if (size) {
		set_option(b, 0x17, T17_MANUFACTURER, "vmm");
		set_option(b, 0x18, T17_SERIAL, NULL);
		set_option(b, 0x19, T17_ASSET, NULL);
		set_option(b, 0x1a, T17_PART, NULL);
	}
	end(b);
}

static void build_range(struct builder *b, unsigned index, const struct smbios_mem_range *r)
{
	uint64_t first = r->base / KiB, last = (r->base + r->size - 1) / KiB;
	if (!begin(b, 19, 0x1f, (uint16_t)(HANDLE_RANGE + index)))
		return;
	if (last < 0xffffffff) {
		store_le32(at(b, 4), (uint32_t)first);
		store_le32(at(b, 8), (uint32_t)last);
	} else {
		store_le32(at(b, 4), 0xffffffff);
		store_le32(at(b, 8), 0xffffffff);
		store_le64(at(b, 0xf), r->base);
		store_le64(at(b, 0x17), r->base + r->size - 1);
	}
	store_le16(at(b, 0xc), HANDLE_ARRAY);
	*at(b, 0xe) = 1; /* devices that make a row */
	end(b);
}

static void build_memory(struct builder *b)
{
	/* DIMMs of 16 GiB, or larger if there would be too many. */
	uint64_t size = 16 * GiB, left = b->m->ram_size;
	while (div_round_up(left, size) > MAX_DIMMS)
		size *= 2;
	unsigned dimms = (unsigned)div_round_up(left, size), slots = MIN(b->m->slots, 256u);
	build_array(b, dimms + slots);
	for (unsigned i = 0; i < dimms; i++, left -= size)
		build_dimm(b, i, MIN(left, size));
	for (unsigned i = 0; i < slots; i++)
		build_dimm(b, dimms + i, 0);
	for (unsigned i = 0; i < b->m->range_count; i++)
		build_range(b, i, &b->m->ranges[i]);
}

static void build_boot_and_end(struct builder *b)
{
	if (begin(b, 32, 0xb, HANDLE_BOOT))
		end(b); /* status 0: no errors */
	if (begin(b, 127, 4, HANDLE_END))
		end(b);
}

/* The user's structures come in front, so that an end-of-table of ours stays the last. */
static void build_blob(struct builder *b)
{
	const struct smbios_options *o = b->o;
	for (size_t pos = 0, n; pos < o->blob_len; pos += n) {
		n = smbios_structure_len(o->blob + pos, o->blob_len - pos);
		memcpy(grow(b, n), o->blob + pos, n);
		b->longest = MAX(b->longest, n);
		b->count++;
	}
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;
	for (size_t i = 0; i < len; i++)
		sum += p[i];
	return (uint8_t)-sum;
}

static void seal(struct smbios_tables *t, uint64_t address)
{
	uint8_t *a = t->anchor;
	if (t->anchor_len == EP32_SIZE) {
		store_le32(a + 0x18, (uint32_t)address);
		a[4] = a[0x15] = 0;
		a[0x15] = checksum(a + 0x10, 0xf);
		a[4] = checksum(a, EP32_SIZE);
	} else {
		store_le64(a + 0x10, address);
		a[5] = 0;
		a[5] = checksum(a, EP64_SIZE);
	}
}

static void build_anchor(const struct builder *b, bool ep64, struct smbios_tables *out)
{
	out->anchor_len = ep64 ? EP64_SIZE : EP32_SIZE;
	uint8_t *a = out->anchor = xcalloc(1, out->anchor_len);
	if (ep64) {
		memcpy(a, "_SM3_", 5);
		a[6] = EP64_SIZE;
		a[7] = 3;
		a[0xa] = 1; /* revision of this entry point */
		store_le32(a + 0xc, (uint32_t)b->len);
	} else {
		memcpy(a, "_SM_", 4);
		a[5] = EP32_SIZE;
		a[6] = 2;
		a[7] = 8;
		store_le16(a + 8, (uint16_t)b->longest);
		memcpy(a + 0x10, "_DMI_", 5);
		store_le16(a + 0x16, (uint16_t)b->len);
		store_le16(a + 0x1c, (uint16_t)b->count);
		a[0x1e] = 0x28;
	}
	seal(out, 0);
}

bool smbios_build(const struct smbios_options *o, const struct smbios_machine *machine,
		  struct smbios_tables *out, struct error **err)
{
	struct builder b = {.o = o ? o : &no_options, .m = machine};
	*out = (struct smbios_tables){0};
	build_blob(&b);
	build_bios(&b);
	build_system(&b);
	build_board(&b);
	build_chassis(&b);
	for (unsigned i = 0; i < MIN(machine->topology.sockets, (unsigned)MAX_SOCKETS); i++)
		build_processor(&b, i);
	build_oem_strings(&b);
	build_memory(&b);
	build_boot_and_end(&b);
	bool fits = b.len <= UINT16_MAX && b.longest <= UINT16_MAX;
	if (!fits && machine->entry_point == SMBIOS_EP_32) {
		error_set(err, "SMBIOS tables of %zu bytes do not fit a 32-bit entry point", b.len);
		free(b.buf);
		return false;
	}
	build_anchor(&b, !fits || machine->entry_point == SMBIOS_EP_64, out);
	out->tables = b.buf;
	out->tables_len = b.len;
	return true;
}

void smbios_tables_destroy(struct smbios_tables *t)
{
	free(t->anchor);
	free(t->tables);
	*t = (struct smbios_tables){0};
}

bool smbios_place(struct smbios_tables *t, struct guest_mem *mem, uint64_t base, uint64_t end,
		  size_t *used, struct error **err)
{
	uint64_t tables = ALIGN_UP(base + t->anchor_len, 16);
	if (tables + t->tables_len > end) {
		error_set(err, "SMBIOS tables of %zu bytes do not fit below 0x%llx", t->tables_len,
			  (unsigned long long)end);
		return false;
	}
	seal(t, tables);
	if (!gm_write(mem, base, t->anchor, t->anchor_len) ||
	    !gm_write(mem, tables, t->tables, t->tables_len)) {
		error_set(err, "there is no memory for SMBIOS tables at 0x%llx",
			  (unsigned long long)base);
		return false;
	}
	*used = tables + t->tables_len - base;
	return true;
}
