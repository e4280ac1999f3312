/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map of physical memory (ACPI 6.4, section 15): an array kept sorted, disjoint and merged.
 * Main thread; owned by the board.
 */
#include "target-x86/e820.h"

#include <stdlib.h>

#include "vmm/core/util.h"

void e820_init(struct e820 *map)
{
	*map = (struct e820){0};
}

void e820_destroy(struct e820 *map)
{
	free(map->entries);
	e820_init(map);
}

static void insert(struct e820 *map, size_t at, struct e820_entry entry)
{
	if (map->count == map->room) {
		map->room = map->room ? map->room * 2 : 16;
		map->entries = xrealloc(map->entries, map->room * sizeof(*map->entries));
	}
	memmove(&map->entries[at + 1], &map->entries[at],
		(map->count - at) * sizeof(*map->entries));
	map->entries[at] = entry;
	map->count++;
}

static void delete_at(struct e820 *map, size_t at)
{
	map->count--;
	memmove(&map->entries[at], &map->entries[at + 1],
		(map->count - at) * sizeof(*map->entries));
}

/* Last byte of the range; ranges are never empty. */
static uint64_t last_of(const struct e820_entry *e)
{
	return e->base + (e->size - 1);
}

static uint64_t clip(uint64_t base, uint64_t size)
{
	return size - 1 > UINT64_MAX - base ? UINT64_MAX - base + 1 : size;
}

void e820_remove(struct e820 *map, uint64_t base, uint64_t size)
{
	if (!size)
		return;
	size = clip(base, size);
	uint64_t last = base + (size - 1);
	for (size_t i = 0; i < map->count;) {
		struct e820_entry *e = &map->entries[i];
		uint64_t elast = last_of(e);
		if (elast < base || e->base > last) {
			i++;
			continue;
		}
		struct e820_entry tail = {last + 1, elast - last, e->type};
		if (e->base < base) {
			e->size = base - e->base;
			i++;
		} else {
			delete_at(map, i);
		}
		if (elast > last)
			insert(map, i++, tail);
	}
}

void e820_add(struct e820 *map, uint64_t base, uint64_t size, enum e820_type type)
{
	if (!size)
		return;
	size = clip(base, size);
	e820_remove(map, base, size);
	size_t at = 0;
	while (at < map->count && map->entries[at].base < base)
		at++;
	insert(map, at, (struct e820_entry){base, size, type});
	struct e820_entry *e = &map->entries[at];
	if (at + 1 < map->count && e[1].type == type && last_of(e) + 1 == e[1].base) {
		e->size += e[1].size;
		delete_at(map, at + 1);
	}
	if (at > 0 && e[-1].type == type && last_of(e - 1) + 1 == e->base) {
		e[-1].size += e->size;
		delete_at(map, at);
	}
}

const struct e820_entry *e820_find(const struct e820 *map, uint64_t addr)
{
	for (size_t i = 0; i < map->count; i++) {
		const struct e820_entry *e = &map->entries[i];
		if (addr >= e->base && addr <= last_of(e))
			return e;
	}
	return NULL;
}

bool e820_is_ram(const struct e820 *map, uint64_t base, uint64_t size)
{
	if (!size)
		return true;
	const struct e820_entry *e = e820_find(map, base);
	return e && e->type == E820_RAM && size - 1 <= last_of(e) - base;
}

bool e820_alloc_top(const struct e820 *map, uint64_t size, uint64_t align, uint64_t min,
		    uint64_t max, uint64_t *addr)
{
	if (!size || min >= max)
		return false;
	for (size_t i = map->count; i-- > 0;) {
		const struct e820_entry *e = &map->entries[i];
		uint64_t low = MAX(e->base, min), last = MIN(last_of(e), max - 1);
		if (e->type != E820_RAM || low > last || last - low < size - 1)
			continue;
		uint64_t at = ALIGN_DOWN(last - (size - 1), align);
		if (at >= low) {
			*addr = at;
			return true;
		}
	}
	return false;
}

bool e820_alloc_bottom(const struct e820 *map, uint64_t size, uint64_t align, uint64_t min,
		       uint64_t max, uint64_t *addr)
{
	if (!size || min >= max)
		return false;
	for (size_t i = 0; i < map->count; i++) {
		const struct e820_entry *e = &map->entries[i];
		uint64_t low = MAX(e->base, min), last = MIN(last_of(e), max - 1);
		if (e->type != E820_RAM || low > UINT64_MAX - (align - 1))
			continue;
		uint64_t at = ALIGN_UP(low, align);
		if (at <= last && last - at >= size - 1) {
			*addr = at;
			return true;
		}
	}
	return false;
}

size_t e820_to_wire(const struct e820 *map, size_t first, size_t max, void *buf)
{
	size_t n = 0;
	for (uint8_t *p = buf; n < max && first + n < map->count; n++, p += E820_WIRE_SIZE) {
		const struct e820_entry *e = &map->entries[first + n];
		store_le64(p, e->base);
		store_le64(p + 8, e->size);
		store_le32(p + 16, e->type);
	}
	return n;
}
