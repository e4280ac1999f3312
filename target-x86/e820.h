/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map of physical memory that a PC tells its guest (ACPI 6.4, section 15): sorted, without
 * overlaps, neighbours of one type merged. Boot protocols copy it into their own structures;
 * firmware reads it from fw_cfg as "etc/e820".
 *
 * Main thread, at start-up.
 */
#ifndef TARGET_X86_E820_H
#define TARGET_X86_E820_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum e820_type {
	E820_RAM = 1,
	E820_RESERVED = 2,
	E820_ACPI = 3, /* tables, free once the guest has read them */
	E820_NVS = 4,
	E820_UNUSABLE = 5,
	E820_PMEM = 7,
};

/* One entry on the wire: base, size (64 bits each) and type (32 bits), little-endian. */
#define E820_WIRE_SIZE 20

struct e820_entry {
	uint64_t base, size; /* bytes; size is not 0 and the range does not wrap */
	uint32_t type;
};

struct e820 {
	struct e820_entry *entries;
	size_t count, room;
};

void e820_init(struct e820 *map);
void e820_destroy(struct e820 *map);
/* What was there before in [base, base + size) becomes of this type. size 0 does nothing; a range
 * that would wrap ends at the last byte. */
void e820_add(struct e820 *map, uint64_t base, uint64_t size, enum e820_type type);
/* Forgets [base, base + size), whatever it was. */
void e820_remove(struct e820 *map, uint64_t base, uint64_t size);
/* The entry that holds addr, or NULL. */
const struct e820_entry *e820_find(const struct e820 *map, uint64_t addr);
/* Whether all of [base, base + size) is RAM. */
bool e820_is_ram(const struct e820 *map, uint64_t base, uint64_t size);
/* The highest aligned address (align: a power of two) at which size bytes of RAM lie inside
 * [min, max), or false. */
bool e820_alloc_top(const struct e820 *map, uint64_t size, uint64_t align, uint64_t min,
		    uint64_t max, uint64_t *addr);
/* The same with the lowest address. */
bool e820_alloc_bottom(const struct e820 *map, uint64_t size, uint64_t align, uint64_t min,
		       uint64_t max, uint64_t *addr);
/* Wire form of at most max entries beginning with first, into buf of max * E820_WIRE_SIZE bytes;
 * returns how many entries. */
size_t e820_to_wire(const struct e820 *map, size_t first, size_t max, void *buf);

#endif
