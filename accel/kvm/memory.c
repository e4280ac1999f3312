/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory slots (Linux: Documentation/virt/kvm/api.rst, KVM_SET_USER_MEMORY_REGION). Any thread,
 * under slot_lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/kvm/kvm.h"

enum { PAGE = 4096 };

static int set_slot(struct kvm_accel *k, const struct kvm_slot *s, uint64_t size, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = s->id,
		.guest_phys_addr = s->gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)s->hva,
	};

	if (flags & ACCEL_MEM_READONLY)
		region.flags |= KVM_MEM_READONLY;
	if (flags & ACCEL_MEM_DIRTY_LOG)
		region.flags |= KVM_MEM_LOG_DIRTY_PAGES;
	return kvm_ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Index of the first slot that ends behind gpa. */
static size_t slot_after(const struct kvm_accel *k, uint64_t gpa)
{
	size_t low = 0, high = k->slot_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (k->slots[mid].gpa + k->slots[mid].size > gpa)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

static bool slot_grow(struct kvm_accel *k)
{
	size_t space = k->slot_space ? k->slot_space * 2 : 64;
	struct kvm_slot *slots;
	uint64_t *ids;

	if (k->slot_count < k->slot_space)
		return true;
	slots = realloc(k->slots, space * sizeof(*slots));
	if (!slots)
		return false;
	k->slots = slots;
	ids = realloc(k->slot_ids, space / 8);
	if (!ids)
		return false;
	memset((char *)ids + k->slot_space / 8, 0, (space - k->slot_space) / 8);
	k->slot_ids = ids;
	k->slot_space = space;
	return true;
}

/* There is a free one: slot_count < slot_space. */
static uint32_t id_take(struct kvm_accel *k)
{
	for (size_t i = 0;; i++) {
		if (~k->slot_ids[i]) {
			unsigned bit = __builtin_ctzll(~k->slot_ids[i]);

			k->slot_ids[i] |= UINT64_C(1) << bit;
			return i * 64 + bit;
		}
	}
}

static void id_release(struct kvm_accel *k, uint32_t id)
{
	k->slot_ids[id / 64] &= ~(UINT64_C(1) << (id % 64));
}

static int map_locked(struct kvm_accel *k, uint64_t gpa, uint64_t size, void *hva, uint32_t flags)
{
	size_t i = slot_after(k, gpa);
	struct kvm_slot *s = &k->slots[i], new = { gpa, size, hva, flags, 0 };
	int ret;

	if (i < k->slot_count && s->gpa < gpa + size) {
		if (s->gpa != gpa || s->size != size || s->hva != hva)
			return -EEXIST;
		ret = set_slot(k, s, size, flags);
		if (!ret)
			s->flags = flags;
		return ret;
	}
	if (k->slot_count >= k->slot_max)
		return -ENOSPC;
	if (!slot_grow(k))
		return -ENOMEM;
	new.id = id_take(k);
	ret = set_slot(k, &new, size, flags);
	if (ret) {
		id_release(k, new.id);
		return ret;
	}
	memmove(&k->slots[i + 1], &k->slots[i], (k->slot_count - i) * sizeof(*k->slots));
	k->slots[i] = new;
	k->slot_count++;
	return 0;
}

int kvm_mem_map(struct accel *a, uint64_t gpa, uint64_t size, void *hva, uint32_t flags)
{
	struct kvm_accel *k = to_kvm(a);
	int ret;

	if (!size || !IS_ALIGNED(gpa | size | (uintptr_t)hva, (uint64_t)PAGE) || gpa + size < gpa)
		return -EINVAL;
	pthread_mutex_lock(&k->slot_lock);
	ret = map_locked(k, gpa, size, hva, flags);
	pthread_mutex_unlock(&k->slot_lock);
	return ret;
}

/* The slot that is exactly this, or NULL. */
static struct kvm_slot *slot_find(struct kvm_accel *k, uint64_t gpa, uint64_t size)
{
	size_t i = slot_after(k, gpa);

	if (i == k->slot_count || k->slots[i].gpa != gpa || k->slots[i].size != size)
		return NULL;
	return &k->slots[i];
}

int kvm_mem_unmap(struct accel *a, uint64_t gpa, uint64_t size)
{
	struct kvm_accel *k = to_kvm(a);
	struct kvm_slot *s;
	int ret = -ENOENT;

	pthread_mutex_lock(&k->slot_lock);
	s = slot_find(k, gpa, size);
	if (s) {
		ret = set_slot(k, s, 0, 0);
		if (!ret) {
			id_release(k, s->id);
			k->slot_count--;
			memmove(s, s + 1, (char *)&k->slots[k->slot_count] - (char *)s);
		}
	}
	pthread_mutex_unlock(&k->slot_lock);
	return ret;
}

int kvm_dirty_get(struct accel *a, uint64_t gpa, uint64_t size, uint64_t *bitmap)
{
	struct kvm_accel *k = to_kvm(a);
	struct kvm_dirty_log log = { .dirty_bitmap = bitmap };
	struct kvm_slot *s;
	int ret = -ENOENT;

	pthread_mutex_lock(&k->slot_lock);
	s = slot_find(k, gpa, size);
	if (s) {
		log.slot = s->id;
		ret = kvm_ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log);
	}
	pthread_mutex_unlock(&k->slot_lock);
	return ret;
}

size_t kvm_mem_peek(struct kvm_accel *k, uint64_t gpa, void *buf, size_t len)
{
	size_t done = 0;

	pthread_mutex_lock(&k->slot_lock);
	while (done < len) {
		size_t i = slot_after(k, gpa + done), n;
		const struct kvm_slot *s = &k->slots[i];

		if (i == k->slot_count || s->gpa > gpa + done)
			break;
		n = MIN(len - done, s->gpa + s->size - (gpa + done));
		memcpy((char *)buf + done, (char *)s->hva + (gpa + done - s->gpa), n);
		done += n;
	}
	pthread_mutex_unlock(&k->slot_lock);
	return done;
}

void kvm_mem_destroy(struct kvm_accel *k)
{
	free(k->slots);
	free(k->slot_ids);
	pthread_mutex_destroy(&k->slot_lock);
}
