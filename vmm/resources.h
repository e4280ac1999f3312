/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What devices refer to by name: drives, block nodes, network back ends, I/O threads, chardevs,
 * random number sources.
 * Opened from the configuration before any device is made; the resolver hands them out.
 *
 * Main thread.
 */
#ifndef VMM_RESOURCES_H
#define VMM_RESOURCES_H

#include "block/block.h"
#include "block/throttle.h"
#include "net/net.h"
#include "vmm/chardev/chardev.h"
#include "vmm/config.h"
#include "vmm/core/memory_backend.h"
#include "vmm/core/objects.h"
#include "vmm/core/thread.h"
#include "vmm/core/vm.h"

struct named_node {
	struct block_node *node;
	struct named_node *next;
};

struct named_thread {
	struct iothread *thread;
	struct named_thread *next;
};

struct named_rng {
	struct rng_backend *backend;
	struct named_rng *next;
};

struct named_dump {
	struct net_dump *dump;
	struct named_dump *next;
};

struct resources {
	struct vm *vm;
	struct chardevs *chardevs;
	struct drive *drives; /* -drive, and one for each -blockdev that a device took */
	struct named_node *nodes;
	struct named_thread *threads;
	struct named_rng *rngs;
	struct netdevs netdevs;
	struct named_dump *dumps;
	struct throttle_groups *throttles;
	struct corrupt_drive *corrupt; /* who hears of their images */
	struct objects *objects;
	struct memory_backend *memory; /* -object memory-backend-..., and what -m alone makes */
	struct memory_defaults memory_defaults;
	bool opened; /* what the command line names is there */
};

/* Sets vm->resolver. chardevs is borrowed. */
void resources_init(struct resources *r, struct vm *vm, struct chardevs *chardevs);
/* -object, -blockdev, -drive, -netdev, -object filter-dump, in this order. */
bool resources_open(struct resources *r, const struct vm_config *config, struct error **err);
/* After resources_open(): the machine's RAM, as -machine memory-backend or -m and -mem-path say. The
 * resources keep it. */
struct memory_backend *resources_ram(struct resources *r, const struct vm_config *config,
				     struct error **err);
/* Devices are there: warns of each -netdev that none of them uses. */
void resources_check_use(const struct resources *r);
/* Devices are gone. Flushes and closes disks, frees back ends, stops threads. */
void resources_close(struct resources *r);

#endif
