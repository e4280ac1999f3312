/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O bus: port space and memory-mapped space alike. A sorted immutable map of regions, replaced
 * whole on change; an access matches only if the whole of it lies inside one region.
 *
 * Dispatch is lock-free from any thread that owns an io_reader (each vCPU has one per bus). A
 * handler runs on that thread with offset and size, and takes its device's own lock; it may add,
 * move or remove regions, its own included (the next access sees it). Changes from several threads
 * are serialised by the bus's lock, which is a leaf: no callback is called under it except
 * io_doorbell_ops.
 *
 * After io_bus_remove() a handler may still be running on another thread: io_bus_quiesce() waits
 * until none is, and must be called before the opaque is freed (never from a handler).
 */
#ifndef VMM_CORE_IO_BUS_H
#define VMM_CORE_IO_BUS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/error.h"

struct io_ops {
	/* size is 1, 2, 4 or 8; only the low size bytes of a value count. NULL: reads as all ones. */
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
	/* NULL: ignored. */
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
};

/*
 * Embedded in the device. base and size may change only while it is off the bus.
 * priority: where regions overlap, the higher one answers (PCI windows over boards' defaults,
 * flash under shadow RAM); equal priorities may not overlap.
 */
struct io_region {
	uint64_t base, size;
	const struct io_ops *ops;
	void *opaque;
	const char *name;
	int priority;
	/* Sizes that handlers get: accesses that are wider are cut, little end first. 0 means 8
	 * on memory buses and 4 on ports. */
	unsigned max_access;
};

/* A write that only signals: the bus writes the eventfd, or the accelerator does so in the kernel. */
struct io_doorbell {
	uint64_t addr;
	unsigned size; /* 1, 2, 4, 8; 0: any size */
	bool match;    /* only a write of this value */
	uint64_t value;
	int fd; /* eventfd */
	bool in_kernel; /* the bus's own */
};

/* What an accelerator installs: puts doorbells into the kernel (ioeventfd). 0 or -errno; a refused
 * one is served by the bus itself. */
struct io_doorbell_ops {
	int (*add)(void *opaque, const struct io_doorbell *db);
	void (*remove)(void *opaque, const struct io_doorbell *db);
};

struct io_map;

struct io_reader {
	struct io_map *_Atomic using;
	struct io_reader *next;
};

struct io_bus {
	struct io_map *_Atomic current;
	pthread_mutex_t lock; /* changes */
	struct io_region **regions;
	size_t region_count;
	struct io_doorbell *doorbells;
	size_t doorbell_count;
	struct io_reader *readers;
	struct io_map *retired;
	const struct io_doorbell_ops *doorbell_ops;
	void *doorbell_opaque;
	unsigned default_max_access;
	unsigned hold; /* transactions open: the map is rebuilt at the last io_bus_commit() */
};

/* max_access: 8 for memory, 4 for ports. */
void io_bus_init(struct io_bus *bus, unsigned max_access);
void io_bus_destroy(struct io_bus *bus);
void io_bus_set_doorbell_ops(struct io_bus *bus, const struct io_doorbell_ops *ops, void *opaque);

void io_reader_register(struct io_bus *bus, struct io_reader *reader);
void io_reader_unregister(struct io_bus *bus, struct io_reader *reader);

/* False if it wraps or overlaps a region of the same priority. The region is not copied. */
bool io_bus_add(struct io_bus *bus, struct io_region *region, struct error **err);
/* Harmless if it is not on the bus. */
void io_bus_remove(struct io_bus *bus, struct io_region *region);
/* Many changes, one new map. Nests. For set-up, before readers run: what is removed between the two
 * stays visible until the last commit. */
void io_bus_begin(struct io_bus *bus);
void io_bus_commit(struct io_bus *bus);
void io_bus_quiesce(struct io_bus *bus);

bool io_bus_add_doorbell(struct io_bus *bus, const struct io_doorbell *db, struct error **err);
/* The one with the same address, size, value and fd. */
void io_bus_remove_doorbell(struct io_bus *bus, const struct io_doorbell *db);

/*
 * One access of len bytes (1 to 8) at addr. A read that nothing answers gives all ones, a write
 * vanishes; both return false. An access that straddles the edge of a region is nothing's.
 */
bool io_bus_read(struct io_bus *bus, struct io_reader *reader, uint64_t addr, void *data,
		 unsigned len);
bool io_bus_write(struct io_bus *bus, struct io_reader *reader, uint64_t addr, const void *data,
		  unsigned len);

#endif
