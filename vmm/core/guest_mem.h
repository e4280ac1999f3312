/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM as devices see it (DMA): an immutable sorted snapshot of regions, replaced whole when
 * memory is plugged. There is no translation without a length, and a write marks the pages dirty
 * in the same call.
 *
 * What the CPUs see (ROM shadows, PAM, flash) is the board's business and lies in the accelerator's
 * slots; DMA always reaches RAM.
 *
 * Reading is lock-free from any thread. Adding and removing: the main thread. Old snapshots live
 * until guest_mem_destroy(), since a reader may hold one; their number is that of the operator's
 * hotplugs. A region's bytes may be unmapped only after every loop that used it was drained.
 */
#ifndef VMM_CORE_GUEST_MEM_H
#define VMM_CORE_GUEST_MEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/core/error.h"
#include "vmm/core/notifier.h"

struct mem_region {
	uint64_t gpa;	    /* guest physical address, page aligned */
	uint64_t size;	    /* bytes, page aligned */
	uint8_t *hva;	    /* host address */
	int fd;		    /* shareable memory behind it, or -1 */
	uint64_t fd_offset; /* of hva in fd */
	uint32_t flags;	    /* GM_* */
	_Atomic uint64_t *dirty; /* one bit a 4 KiB page while GM_DIRTY_LOG, else NULL */
};

enum {
	GM_DIRTY_LOG = 1 << 0,
};

enum gm_direction {
	GM_FROM_GUEST, /* the device reads guest memory */
	GM_TO_GUEST,   /* the device writes guest memory */
};

struct gm_snapshot {
	size_t count;
	struct gm_snapshot *older;
	struct mem_region regions[];
};

struct guest_mem {
	struct gm_snapshot *_Atomic current;
	struct notifier_list changed; /* data: struct gm_change *; vhost, VFIO */
};

struct gm_change {
	bool added; /* else removed */
	const struct mem_region *region;
};

void guest_mem_init(struct guest_mem *gm);
/* Frees snapshots, not the regions' bytes: those belong to whoever mapped them. */
void guest_mem_destroy(struct guest_mem *gm);
/* Fails if it overlaps a region or wraps. */
bool guest_mem_add(struct guest_mem *gm, const struct mem_region *region, struct error **err);
void guest_mem_remove(struct guest_mem *gm, uint64_t gpa);

static inline const struct gm_snapshot *guest_mem_get(const struct guest_mem *gm)
{
	return atomic_load_explicit(&((struct guest_mem *)gm)->current, memory_order_acquire);
}

/* The whole of len bytes (they may span adjacent regions), or false and nothing is written. */
bool gm_read(const struct guest_mem *gm, uint64_t gpa, void *buf, size_t len);
bool gm_write(const struct guest_mem *gm, uint64_t gpa, const void *buf, size_t len);

/*
 * Host addresses for [gpa, gpa + len): fills at most max entries and returns how many, or -EFAULT
 * if some byte is not RAM, -E2BIG if max is too small. len 0 gives 0 entries. TO_GUEST marks the
 * pages dirty; if the device goes on writing after the call, gm_mark_dirty() again when it is done.
 */
int gm_map(const struct guest_mem *gm, uint64_t gpa, uint64_t len, enum gm_direction dir,
	   struct iovec *iov, int max);
/* As gm_map() for what must be one piece (rings, tables): NULL unless it lies in one region. */
void *gm_ptr(const struct guest_mem *gm, uint64_t gpa, uint64_t len, enum gm_direction dir);
void gm_mark_dirty(const struct guest_mem *gm, uint64_t gpa, uint64_t len);
/* Total bytes of RAM. */
uint64_t gm_total(const struct guest_mem *gm);

#endif
