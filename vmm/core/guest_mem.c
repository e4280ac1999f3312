/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM for devices: lookups in an immutable snapshot; see guest_mem.h. */
#include "vmm/core/guest_mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

enum { DIRTY_PAGE_SHIFT = 12 };

static struct gm_snapshot *snapshot_new(size_t count)
{
	struct gm_snapshot *s =
		xcalloc(1, sizeof(*s) + count * sizeof(struct mem_region));

	s->count = count;
	return s;
}

static void publish(struct guest_mem *gm, struct gm_snapshot *s)
{
	s->older = atomic_load_explicit(&gm->current, memory_order_relaxed);
	atomic_store_explicit(&gm->current, s, memory_order_release);
}

void guest_mem_init(struct guest_mem *gm)
{
	memset(gm, 0, sizeof(*gm));
	publish(gm, snapshot_new(0));
}

void guest_mem_destroy(struct guest_mem *gm)
{
	struct gm_snapshot *s = atomic_load(&gm->current);

	while (s) {
		struct gm_snapshot *older = s->older;

		free(s);
		s = older;
	}
	atomic_store(&gm->current, NULL);
}

bool guest_mem_add(struct guest_mem *gm, const struct mem_region *region, struct error **err)
{
	const struct gm_snapshot *old = guest_mem_get(gm);
	struct gm_snapshot *s;
	size_t at = 0;

	if (!region->size || region->gpa + region->size - 1 < region->gpa) {
		error_set(err, "memory region at 0x%" PRIx64 " has an impossible size",
			  region->gpa);
		return false;
	}
	for (size_t i = 0; i < old->count; i++) {
		const struct mem_region *r = &old->regions[i];

		if (region->gpa <= r->gpa + (r->size - 1) &&
		    r->gpa <= region->gpa + (region->size - 1)) {
			error_set(err, "memory regions at 0x%" PRIx64 " and 0x%" PRIx64 " overlap",
				  region->gpa, r->gpa);
			return false;
		}
		if (r->gpa < region->gpa)
			at = i + 1;
	}
	s = snapshot_new(old->count + 1);
	memcpy(s->regions, old->regions, at * sizeof(*region));
	s->regions[at] = *region;
	memcpy(s->regions + at + 1, old->regions + at, (old->count - at) * sizeof(*region));
	publish(gm, s);
	notifier_fire(&gm->changed, &(struct gm_change){ .added = true, .region = &s->regions[at] });
	return true;
}

void guest_mem_remove(struct guest_mem *gm, uint64_t gpa)
{
	const struct gm_snapshot *old = guest_mem_get(gm);
	struct gm_snapshot *s;
	size_t at;

	for (at = 0; at < old->count && old->regions[at].gpa != gpa; at++)
		;
	if (at == old->count)
		return;
	s = snapshot_new(old->count - 1);
	memcpy(s->regions, old->regions, at * sizeof(struct mem_region));
	memcpy(s->regions + at, old->regions + at + 1,
	       (s->count - at) * sizeof(struct mem_region));
	publish(gm, s);
	notifier_fire(&gm->changed,
		      &(struct gm_change){ .added = false, .region = &old->regions[at] });
}

static const struct mem_region *region_at(const struct gm_snapshot *s, uint64_t gpa)
{
	size_t low = 0, high = s->count;

	while (low < high) {
		size_t mid = (low + high) / 2;
		const struct mem_region *r = &s->regions[mid];

		if (gpa < r->gpa)
			high = mid;
		else if (gpa - r->gpa >= r->size)
			low = mid + 1;
		else
			return r;
	}
	return NULL;
}

static void mark(const struct mem_region *r, uint64_t offset, uint64_t len)
{
	if (!(r->flags & GM_DIRTY_LOG) || !len)
		return;
	for (uint64_t page = offset >> DIRTY_PAGE_SHIFT;
	     page <= (offset + len - 1) >> DIRTY_PAGE_SHIFT; page++)
		atomic_fetch_or_explicit(&r->dirty[page / 64], UINT64_C(1) << (page % 64),
					 memory_order_relaxed);
}

int gm_map(const struct guest_mem *gm, uint64_t gpa, uint64_t len, enum gm_direction dir,
	   struct iovec *iov, int max)
{
	const struct gm_snapshot *s = guest_mem_get(gm);
	int n = 0;

	/* All of it is found before any of it is marked. */
	for (uint64_t at = gpa, left = len; left;) {
		const struct mem_region *r = region_at(s, at);
		uint64_t here;

		if (!r)
			return -EFAULT;
		if (n == max)
			return -E2BIG;
		here = MIN(left, r->size - (at - r->gpa));
		iov[n++] = (struct iovec){ .iov_base = r->hva + (at - r->gpa), .iov_len = here };
		at += here;
		left -= here;
		if (left && at == 0)
			return -EFAULT; /* wrapped */
	}
	if (dir == GM_TO_GUEST)
		gm_mark_dirty(gm, gpa, len);
	return n;
}

void *gm_ptr(const struct guest_mem *gm, uint64_t gpa, uint64_t len, enum gm_direction dir)
{
	const struct mem_region *r = region_at(guest_mem_get(gm), gpa);

	if (!r || !range_inside(gpa - r->gpa, len, r->size))
		return NULL;
	if (dir == GM_TO_GUEST)
		mark(r, gpa - r->gpa, len);
	return r->hva + (gpa - r->gpa);
}

void gm_mark_dirty(const struct guest_mem *gm, uint64_t gpa, uint64_t len)
{
	const struct gm_snapshot *s = guest_mem_get(gm);

	while (len) {
		const struct mem_region *r = region_at(s, gpa);
		uint64_t here;

		if (!r)
			return;
		here = MIN(len, r->size - (gpa - r->gpa));
		mark(r, gpa - r->gpa, here);
		gpa += here;
		len -= here;
	}
}

/* Copies between buf and guest memory, whole or not at all. */
static bool copy(const struct guest_mem *gm, uint64_t gpa, void *buf, size_t len,
		 enum gm_direction dir)
{
	const struct gm_snapshot *s = guest_mem_get(gm);
	const struct mem_region *r;
	uint64_t at = gpa;
	size_t left = len;

	while (left) {
		r = region_at(s, at);
		if (!r)
			return false;
		uint64_t here = MIN((uint64_t)left, r->size - (at - r->gpa));
		at += here;
		left -= here;
		if (left && at == 0)
			return false;
	}
	for (at = gpa, left = len; left;) {
		r = region_at(s, at);
		uint64_t offset = at - r->gpa;
		size_t here = MIN((uint64_t)left, r->size - offset);

		if (dir == GM_TO_GUEST) {
			memcpy(r->hva + offset, buf, here);
			mark(r, offset, here);
		} else {
			memcpy(buf, r->hva + offset, here);
		}
		buf = (char *)buf + here;
		at += here;
		left -= here;
	}
	return true;
}

bool gm_read(const struct guest_mem *gm, uint64_t gpa, void *buf, size_t len)
{
	return copy(gm, gpa, buf, len, GM_FROM_GUEST);
}

bool gm_write(const struct guest_mem *gm, uint64_t gpa, const void *buf, size_t len)
{
	return copy(gm, gpa, (void *)buf, len, GM_TO_GUEST);
}

uint64_t gm_total(const struct guest_mem *gm)
{
	const struct gm_snapshot *s = guest_mem_get(gm);
	uint64_t total = 0;

	for (size_t i = 0; i < s->count; i++)
		total += s->regions[i].size;
	return total;
}
