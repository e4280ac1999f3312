/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O bus: an immutable map of non-overlapping ranges, each with its handler, found by binary
 * search; see io_bus.h.
 *
 * Readers announce the map they use (a hazard pointer): they store it, then look again whether it
 * is still the current one. A writer publishes the new map first and then frees those retired maps
 * that nobody announces. Both sides use sequentially consistent operations, so either the writer
 * sees the announcement or the reader sees the new map.
 */
#include "vmm/core/io_bus.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/core/util.h"

struct io_range {
	uint64_t first, last; /* inclusive */
	const struct io_region *region;
	uint64_t region_base;
	const struct io_ops *ops;
	void *opaque;
	unsigned max_access;
};

struct io_map {
	struct io_map *retired_next;
	size_t count;
	size_t doorbell_count;
	struct io_doorbell *doorbells; /* behind ranges */
	struct io_range ranges[];
};

static struct io_map *map_alloc(size_t ranges, size_t doorbells)
{
	struct io_map *map = xcalloc(1, sizeof(*map) + ranges * sizeof(struct io_range) +
						doorbells * sizeof(struct io_doorbell));

	map->doorbells = (struct io_doorbell *)(map->ranges + ranges);
	map->doorbell_count = doorbells;
	return map;
}

void io_bus_init(struct io_bus *bus, unsigned max_access)
{
	memset(bus, 0, sizeof(*bus));
	pthread_mutex_init(&bus->lock, NULL);
	bus->default_max_access = max_access;
	atomic_store(&bus->current, map_alloc(0, 0));
}

void io_bus_destroy(struct io_bus *bus)
{
	while (bus->retired) {
		struct io_map *next = bus->retired->retired_next;

		free(bus->retired);
		bus->retired = next;
	}
	free(atomic_load(&bus->current));
	atomic_store(&bus->current, NULL);
	free(bus->regions);
	free(bus->doorbells);
	pthread_mutex_destroy(&bus->lock);
}

void io_reader_register(struct io_bus *bus, struct io_reader *reader)
{
	atomic_store(&reader->using, NULL);
	pthread_mutex_lock(&bus->lock);
	reader->next = bus->readers;
	bus->readers = reader;
	pthread_mutex_unlock(&bus->lock);
}

void io_reader_unregister(struct io_bus *bus, struct io_reader *reader)
{
	pthread_mutex_lock(&bus->lock);
	for (struct io_reader **p = &bus->readers; *p; p = &(*p)->next) {
		if (*p == reader) {
			*p = reader->next;
			break;
		}
	}
	pthread_mutex_unlock(&bus->lock);
}

/* Lock held. */
static bool map_in_use(const struct io_bus *bus, const struct io_map *map)
{
	for (const struct io_reader *r = bus->readers; r; r = r->next)
		if (atomic_load(&r->using) == map)
			return true;
	return false;
}

static void reclaim(struct io_bus *bus)
{
	for (struct io_map **p = &bus->retired; *p;) {
		struct io_map *map = *p;

		if (map_in_use(bus, map)) {
			p = &map->retired_next;
		} else {
			*p = map->retired_next;
			free(map);
		}
	}
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static const struct io_region *top_region(const struct io_bus *bus, uint64_t addr)
{
	const struct io_region *best = NULL;

	for (size_t i = 0; i < bus->region_count; i++) {
		const struct io_region *r = bus->regions[i];

		if (addr >= r->base && addr - r->base < r->size &&
		    (!best || r->priority > best->priority))
			best = r;
	}
	return best;
}

/* Cuts the address space at every region's edges and gives each piece to the highest. Lock held. */
static struct io_map *map_build(struct io_bus *bus)
{
	size_t n = 0, edge_count = 0;
	uint64_t *edges = xmalloc((2 * bus->region_count + 1) * sizeof(*edges));
	struct io_map *map = map_alloc(2 * bus->region_count + 1, bus->doorbell_count);

	for (size_t i = 0; i < bus->region_count; i++) {
		const struct io_region *r = bus->regions[i];

		edges[edge_count++] = r->base;
		if (r->base + r->size) /* a region may end at the top of the address space */
			edges[edge_count++] = r->base + r->size;
	}
	qsort(edges, edge_count, sizeof(*edges), compare_u64);
	for (size_t i = 0; i < edge_count; i++) {
		const struct io_region *r;
		uint64_t last = i + 1 < edge_count ? edges[i + 1] - 1 : UINT64_MAX;

		if (i + 1 < edge_count && edges[i + 1] == edges[i])
			continue;
		r = top_region(bus, edges[i]);
		if (!r)
			continue;
		if (n && map->ranges[n - 1].region == r && map->ranges[n - 1].last + 1 == edges[i]) {
			map->ranges[n - 1].last = last;
			continue;
		}
		map->ranges[n++] = (struct io_range){
			.first = edges[i],
			.last = last,
			.region = r,
			.region_base = r->base,
			.ops = r->ops,
			.opaque = r->opaque,
			.max_access = r->max_access ? r->max_access : bus->default_max_access,
		};
	}
	free(edges);
	map->count = n;
	map->doorbell_count = 0;
	for (size_t i = 0; i < bus->doorbell_count; i++)
		if (!bus->doorbells[i].in_kernel)
			map->doorbells[map->doorbell_count++] = bus->doorbells[i];
	return map;
}

/* Lock held. */
static void rebuild(struct io_bus *bus)
{
	struct io_map *old;

	if (bus->hold)
		return;
	old = atomic_exchange(&bus->current, map_build(bus));
	old->retired_next = bus->retired;
	bus->retired = old;
	reclaim(bus);
}

void io_bus_set_doorbell_ops(struct io_bus *bus, const struct io_doorbell_ops *ops, void *opaque)
{
	pthread_mutex_lock(&bus->lock);
	bus->doorbell_ops = ops;
	bus->doorbell_opaque = opaque;
	if (ops)
		for (size_t i = 0; i < bus->doorbell_count; i++)
			bus->doorbells[i].in_kernel = ops->add(opaque, &bus->doorbells[i]) == 0;
	rebuild(bus);
	pthread_mutex_unlock(&bus->lock);
}

void io_bus_begin(struct io_bus *bus)
{
	pthread_mutex_lock(&bus->lock);
	bus->hold++;
	pthread_mutex_unlock(&bus->lock);
}

void io_bus_commit(struct io_bus *bus)
{
	pthread_mutex_lock(&bus->lock);
	bus->hold--;
	rebuild(bus);
	pthread_mutex_unlock(&bus->lock);
}

bool io_bus_add(struct io_bus *bus, struct io_region *region, struct error **err)
{
	bool ok = true;

	if (!region->size || region->base + (region->size - 1) < region->base) {
		error_set(err, "I/O region '%s' has an impossible size", region->name);
		return false;
	}
	pthread_mutex_lock(&bus->lock);
	for (size_t i = 0; ok && i < bus->region_count; i++) {
		const struct io_region *r = bus->regions[i];

		if (r == region ||
		    (r->priority == region->priority &&
		     region->base <= r->base + (r->size - 1) &&
		     r->base <= region->base + (region->size - 1))) {
			error_set(err, "I/O regions '%s' and '%s' overlap at 0x%" PRIx64,
				  region->name, r->name, MAX(region->base, r->base));
			ok = false;
		}
	}
	if (ok) {
		bus->regions = xrealloc(bus->regions,
					(bus->region_count + 1) * sizeof(*bus->regions));
		bus->regions[bus->region_count++] = region;
		rebuild(bus);
	}
	pthread_mutex_unlock(&bus->lock);
	return ok;
}

void io_bus_remove(struct io_bus *bus, struct io_region *region)
{
	pthread_mutex_lock(&bus->lock);
	for (size_t i = 0; i < bus->region_count; i++) {
		if (bus->regions[i] == region) {
			memmove(bus->regions + i, bus->regions + i + 1,
				(bus->region_count - i - 1) * sizeof(*bus->regions));
			bus->region_count--;
			rebuild(bus);
			break;
		}
	}
	pthread_mutex_unlock(&bus->lock);
}

void io_bus_quiesce(struct io_bus *bus)
{
	for (;;) {
		bool idle;

		pthread_mutex_lock(&bus->lock);
		reclaim(bus);
		idle = !bus->retired;
		pthread_mutex_unlock(&bus->lock);
		if (idle)
			return;
		sched_yield();
	}
}

static bool doorbells_equal(const struct io_doorbell *a, const struct io_doorbell *b)
{
	return a->addr == b->addr && a->size == b->size && a->match == b->match &&
	       (!a->match || a->value == b->value) && a->fd == b->fd;
}

bool io_bus_add_doorbell(struct io_bus *bus, const struct io_doorbell *db, struct error **err)
{
	pthread_mutex_lock(&bus->lock);
	bus->doorbells = xrealloc(bus->doorbells,
				  (bus->doorbell_count + 1) * sizeof(*bus->doorbells));
	bus->doorbells[bus->doorbell_count] = *db;
	/* One that the kernel refuses is served from the map. */
	bus->doorbells[bus->doorbell_count++].in_kernel =
		bus->doorbell_ops && bus->doorbell_ops->add(bus->doorbell_opaque, db) == 0;
	rebuild(bus);
	pthread_mutex_unlock(&bus->lock);
	return true;
}

void io_bus_remove_doorbell(struct io_bus *bus, const struct io_doorbell *db)
{
	pthread_mutex_lock(&bus->lock);
	for (size_t i = 0; i < bus->doorbell_count; i++) {
		if (doorbells_equal(&bus->doorbells[i], db)) {
			if (bus->doorbells[i].in_kernel)
				bus->doorbell_ops->remove(bus->doorbell_opaque, db);
			memmove(bus->doorbells + i, bus->doorbells + i + 1,
				(bus->doorbell_count - i - 1) * sizeof(*bus->doorbells));
			bus->doorbell_count--;
			rebuild(bus);
			break;
		}
	}
	pthread_mutex_unlock(&bus->lock);
}

static const struct io_range *map_find(const struct io_map *map, uint64_t addr, unsigned len)
{
	size_t low = 0, high = map->count;

	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct io_range *r = &map->ranges[mid];

		if (addr < r->first)
			high = mid;
		else if (addr > r->last)
			low = mid + 1;
		else
			return len - 1 <= r->last - addr ? r : NULL;
	}
	return NULL;
}

static struct io_map *reader_enter(struct io_bus *bus, struct io_reader *reader)
{
	struct io_map *map = atomic_load(&bus->current);

	for (;;) {
		struct io_map *again;

		atomic_store(&reader->using, map);
		again = atomic_load(&bus->current);
		if (again == map)
			return map;
		map = again;
	}
}

static void reader_leave(struct io_reader *reader)
{
	atomic_store_explicit(&reader->using, NULL, memory_order_release);
}

/* The widest access a handler gets of what is left: a power of two, at most its limit. */
static unsigned piece(unsigned left, unsigned limit)
{
	unsigned size = limit;

	while (size > left)
		size /= 2;
	return size;
}

bool io_bus_read(struct io_bus *bus, struct io_reader *reader, uint64_t addr, void *data,
		 unsigned len)
{
	const struct io_map *map = reader_enter(bus, reader);
	const struct io_range *r = map_find(map, addr, len);
	uint8_t *bytes = data;
	uint64_t offset;

	memset(data, 0xff, len);
	if (r && r->ops->read) {
		offset = addr - r->region_base;
		for (unsigned done = 0, size; done < len; done += size) {
			size = piece(len - done, r->max_access);
			store_le(bytes + done, size, r->ops->read(r->opaque, offset + done, size));
		}
	}
	reader_leave(reader);
	return r != NULL;
}

/* Doorbells that the accelerator did not take. */
static bool ring(const struct io_map *map, uint64_t addr, const void *data, unsigned len)
{
	bool rung = false;

	for (size_t i = 0; i < map->doorbell_count; i++) {
		const struct io_doorbell *db = &map->doorbells[i];
		uint64_t one = 1;

		if (db->addr != addr || (db->size && db->size != len) ||
		    (db->match && load_le(data, len) != db->value))
			continue;
		(void)!write(db->fd, &one, sizeof(one));
		rung = true;
	}
	return rung;
}

bool io_bus_write(struct io_bus *bus, struct io_reader *reader, uint64_t addr, const void *data,
		  unsigned len)
{
	const struct io_map *map = reader_enter(bus, reader);
	const struct io_range *r = map_find(map, addr, len);
	const uint8_t *bytes = data;
	bool answered = true;

	if (map->doorbell_count && ring(map, addr, data, len)) {
		/* A doorbell's write only signals. */
	} else if (!r) {
		answered = false;
	} else if (r->ops->write) {
		uint64_t offset = addr - r->region_base;

		for (unsigned done = 0, size; done < len; done += size) {
			size = piece(len - done, r->max_access);
			r->ops->write(r->opaque, offset + done, load_le(bytes + done, size), size);
		}
	}
	reader_leave(reader);
	return answered;
}
