/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues: see virtqueue.h. virtio 1.2, sections 2.6 to 2.8.
 *
 * Memory order: the driver fills descriptors and ring entries and then stores the available index,
 * so that index is loaded with acquire; the used index is stored with release. Where each side
 * writes one thing and then looks at the other's (index, then the event or flag that says whether
 * to signal), a full fence stands between, or both could miss each other.
 *
 * Thread: the device's event loop. Owner: the virtio device that embeds the queue.
 */
#include "hw/virtio/virtqueue.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "vmm/core/util.h"

/* Offsets in the available and the used ring (2.7.6, 2.7.8). */
enum {
	RING_FLAGS = 0,
	RING_IDX = 2,
	RING_ENTRIES = 4,
	AVAIL_ENTRY = 2,
	USED_ENTRY = 8,
	AVAIL_NO_INTERRUPT = 1,
	USED_NO_NOTIFY = 1,
};

#define CHAIN_MAX_BYTES (UINT64_C(1) << 32)

static uint16_t ring_load(const uint8_t *ring, size_t offset, int order)
{
	return le16toh(__atomic_load_n((const uint16_t *)(ring + offset), order));
}

static void ring_store(uint8_t *ring, size_t offset, uint16_t value, int order)
{
	__atomic_store_n((uint16_t *)(ring + offset), htole16(value), order);
}

static size_t avail_size(const struct virtqueue *vq)
{
	return RING_ENTRIES + (size_t)AVAIL_ENTRY * vq->size + (vq->event_idx ? 2 : 0);
}

static size_t used_size(const struct virtqueue *vq)
{
	return RING_ENTRIES + (size_t)USED_ENTRY * vq->size + (vq->event_idx ? 2 : 0);
}

/* The event fields lie behind the entries of either ring. */
static size_t used_event_offset(const struct virtqueue *vq)
{
	return RING_ENTRIES + (size_t)AVAIL_ENTRY * vq->size;
}

static size_t avail_event_offset(const struct virtqueue *vq)
{
	return RING_ENTRIES + (size_t)USED_ENTRY * vq->size;
}

static void vq_break(struct virtqueue *vq, const char *why)
{
	if (vq->broken)
		return;
	vq->broken = true;
	vq->live = false;
	vq->fail(vq, why);
}

void vq_init(struct virtqueue *vq, struct guest_mem *mem, uint16_t index, uint16_t max,
	     void (*fail)(struct virtqueue *vq, const char *why), void *opaque)
{
	memset(vq, 0, sizeof(*vq));
	vq->mem = mem;
	vq->index = index;
	vq->size_max = max;
	vq->fail = fail;
	vq->opaque = opaque;
	vq->table = xmalloc(VQ_MAX_TABLE * sizeof(*vq->table));
	vq_reset(vq);
}

void vq_destroy(struct virtqueue *vq)
{
	free(vq->table);
	vq->table = NULL;
}

void vq_reset(struct virtqueue *vq)
{
	vq->size = vq->size_max;
	vq->enabled = false;
	vq->desc_gpa = vq->avail_gpa = vq->used_gpa = 0;
	vq->event_idx = vq->indirect = vq->notify_on_empty = false;
	vq->live = vq->broken = false;
	vq->last_avail = vq->avail_seen = 0;
	vq->used_next = vq->used_published = 0;
	vq->in_flight = 0;
	vq->returned_count = 0;
	vq->snapshot = NULL;
	vq->desc = vq->avail = NULL;
	vq->used = NULL;
}

/* Resolves the rings again when guest memory has changed. */
static bool vq_map(struct virtqueue *vq)
{
	const struct gm_snapshot *now = guest_mem_get(vq->mem);

	if (now == vq->snapshot)
		return true;
	vq->desc = gm_ptr(vq->mem, vq->desc_gpa, sizeof(struct vq_desc) * vq->size, GM_FROM_GUEST);
	vq->avail = gm_ptr(vq->mem, vq->avail_gpa, avail_size(vq), GM_FROM_GUEST);
	vq->used = gm_ptr(vq->mem, vq->used_gpa, used_size(vq), GM_TO_GUEST);
	if (!vq->desc || !vq->avail || !vq->used) {
		vq->snapshot = NULL;
		vq_break(vq, "its rings are not in RAM");
		return false;
	}
	vq->snapshot = now;
	vq->dirty_log = false;
	for (size_t i = 0; i < now->count; i++)
		vq->dirty_log |= (now->regions[i].flags & GM_DIRTY_LOG) != 0;
	return true;
}

static bool vq_usable(struct virtqueue *vq)
{
	return vq->live && vq_map(vq);
}

bool vq_start(struct virtqueue *vq)
{
	if (!vq->enabled || vq->broken)
		return false;
	if (!is_pow2(vq->size) || vq->size > vq->size_max) {
		vq_break(vq, "its size is not a power of two within the limit");
		return false;
	}
	if (!IS_ALIGNED(vq->desc_gpa, 16) || !IS_ALIGNED(vq->avail_gpa, 2) ||
	    !IS_ALIGNED(vq->used_gpa, 4)) {
		vq_break(vq, "its rings are misaligned");
		return false;
	}
	vq->snapshot = NULL;
	if (!vq_map(vq))
		return false;
	vq->live = true;
	vq->notify = true;
	vq->avail_seen = vq->last_avail;
	vq->used_published = vq->used_next;
	return true;
}

void vq_stop(struct virtqueue *vq)
{
	vq->live = false;
}

/* How many chains the driver has added beyond those taken; -EINVAL if that cannot be. */
static int vq_look(struct virtqueue *vq)
{
	vq->avail_seen = ring_load(vq->avail, RING_IDX, __ATOMIC_ACQUIRE);
	uint16_t ready = vq->avail_seen - vq->last_avail;

	if (ready > vq->size) {
		vq_break(vq, "the available index jumped by more than the ring holds");
		return -EINVAL;
	}
	return ready;
}

static struct vq_desc ring_desc(const struct virtqueue *vq, uint16_t i)
{
	const uint64_t *p = (const uint64_t *)(vq->desc + sizeof(struct vq_desc) * i);
	uint64_t word[2] = {__atomic_load_n(&p[0], __ATOMIC_RELAXED),
			    __atomic_load_n(&p[1], __ATOMIC_RELAXED)};
	struct vq_desc d;

	memcpy(&d, word, sizeof(d));
	return d;
}

/* Appends one descriptor's memory to the chain; NULL or what is wrong. */
static const char *chain_add(struct virtqueue *vq, struct vq_chain *chain, const struct vq_desc *d)
{
	bool write = (le16toh(d->flags) & VQ_DESC_WRITE) != 0;
	uint32_t len = le32toh(d->len);
	unsigned used = chain->readable + chain->writable;

	if (!len)
		return "a descriptor is empty";
	if (!write && chain->writable)
		return "a readable descriptor follows a writable one";
	if (chain->readable_bytes + chain->writable_bytes + len > CHAIN_MAX_BYTES)
		return "a chain is longer than 4 GiB";
	int n = gm_map(vq->mem, le64toh(d->addr), len, write ? GM_TO_GUEST : GM_FROM_GUEST,
		       chain->iov + used, chain->iov_max - used);
	if (n == -E2BIG)
		return "a chain has too many pieces";
	if (n < 0)
		return "a descriptor points outside RAM";
	if (write) {
		chain->writable += n;
		chain->writable_bytes += len;
	} else {
		chain->readable += n;
		chain->readable_bytes += len;
	}
	return NULL;
}

/* Copies an indirect table whole (2.7.5.3); *count is its length. NULL or what is wrong. */
static const char *table_load(struct virtqueue *vq, const struct vq_desc *d, unsigned *count)
{
	uint32_t len = le32toh(d->len);

	if (!vq->indirect)
		return "an indirect descriptor was not negotiated";
	if (le16toh(d->flags) & VQ_DESC_NEXT)
		return "an indirect descriptor has a successor";
	if (!len || len % sizeof(struct vq_desc))
		return "an indirect table's size is no multiple of 16";
	if (len > VQ_MAX_TABLE * sizeof(struct vq_desc))
		return "an indirect table is too long";
	if (!gm_read(vq->mem, le64toh(d->addr), vq->table, len))
		return "an indirect table is not in RAM";
	*count = len / sizeof(struct vq_desc);
	return NULL;
}

/* A table of n descriptors has no chain of more than n: a longer one is a loop. */
static const char *chain_walk(struct virtqueue *vq, struct vq_chain *chain)
{
	unsigned count = vq->size, i = chain->head, hops = 0;
	bool in_table = false;

	for (;;) {
		if (hops++ == count)
			return "a chain loops";
		struct vq_desc d = in_table ? vq->table[i] : ring_desc(vq, i);
		uint16_t flags = le16toh(d.flags);
		const char *wrong;

		if (flags & VQ_DESC_INDIRECT) {
			if (in_table)
				return "an indirect table holds an indirect descriptor";
			wrong = table_load(vq, &d, &count);
			if (wrong)
				return wrong;
			in_table = true;
			i = hops = 0;
			continue;
		}
		wrong = chain_add(vq, chain, &d);
		if (wrong)
			return wrong;
		if (!(flags & VQ_DESC_NEXT))
			return NULL;
		i = le16toh(d.next);
		if (i >= count)
			return "a chain leaves its table";
	}
}

/* The next chain's head, which stays where it is: 1, 0, or -EINVAL. */
static int next_head(struct virtqueue *vq, uint16_t *head)
{
	size_t slot = vq->last_avail & (vq->size - 1);

	if (vq->returned_count) {
		*head = vq->returned[vq->returned_count - 1];
		return 1;
	}
	if (vq->avail_seen == vq->last_avail) {
		int ready = vq_look(vq);

		if (ready <= 0)
			return ready;
	}
	*head = ring_load(vq->avail, RING_ENTRIES + AVAIL_ENTRY * slot, __ATOMIC_RELAXED);
	return 1;
}

int vq_pop(struct virtqueue *vq, struct vq_chain *chain)
{
	int found;

	if (!vq_usable(vq))
		return vq->broken ? -EINVAL : 0;
	found = next_head(vq, &chain->head);
	if (found <= 0)
		return found;
	if (vq->in_flight >= vq->size) {
		vq_break(vq, "more chains are in flight than the ring holds");
		return -EINVAL;
	}
	chain->readable = chain->writable = 0;
	chain->readable_bytes = chain->writable_bytes = 0;
	const char *wrong = chain->head < vq->size ? chain_walk(vq, chain)
						   : "a chain's head is outside the ring";
	if (wrong) {
		vq_break(vq, wrong);
		return -EINVAL;
	}
	if (vq->returned_count)
		vq->returned_count--;
	else
		vq->last_avail++;
	vq->in_flight++;
	return 1;
}

void vq_unpop(struct virtqueue *vq, const struct vq_chain *chain)
{
	if (!vq->in_flight || vq->returned_count == VQ_MAX_SIZE)
		return;
	vq->returned[vq->returned_count++] = chain->head;
	vq->in_flight--;
}

bool vq_rewind(struct virtqueue *vq)
{
	uint16_t count = vq->returned_count, from = vq->last_avail - count;

	for (uint16_t i = 0; i < count; i++) {
		size_t slot = (uint16_t)(from + i) & (vq->size - 1);

		if (ring_load(vq->avail, RING_ENTRIES + AVAIL_ENTRY * slot, __ATOMIC_RELAXED) !=
		    vq->returned[count - 1 - i])
			return false;
	}
	vq->last_avail = vq->avail_seen = from;
	vq->returned_count = 0;
	return vq->used_next == vq->last_avail;
}

void vq_resume_at(struct virtqueue *vq, int last_avail)
{
	if (!vq->used)
		return;
	vq->used_next = vq->used_published = ring_load(vq->used, RING_IDX, __ATOMIC_ACQUIRE);
	vq->last_avail = vq->avail_seen = last_avail < 0 ? vq->used_next : last_avail;
	vq->in_flight = 0;
}

void vq_mark_written(struct virtqueue *vq, const void *hva, size_t len)
{
	if (!vq->dirty_log || !vq->snapshot)
		return;
	for (size_t i = 0; i < vq->snapshot->count; i++) {
		const struct mem_region *r = &vq->snapshot->regions[i];
		size_t offset = (const uint8_t *)hva - r->hva;

		if ((const uint8_t *)hva >= r->hva && range_inside(offset, len, r->size)) {
			gm_mark_dirty(vq->mem, r->gpa + offset, len);
			return;
		}
	}
}

void vq_push(struct virtqueue *vq, const struct vq_chain *chain, uint32_t written)
{
	if (!vq_usable(vq))
		return;
	if (vq->dirty_log)
		for (unsigned i = 0; i < chain->writable; i++) {
			const struct iovec *v = &chain->iov[chain->readable + i];

			vq_mark_written(vq, v->iov_base, v->iov_len);
		}
	size_t slot = vq->used_next & (vq->size - 1);
	uint32_t *entry = (uint32_t *)(vq->used + RING_ENTRIES + USED_ENTRY * slot);

	__atomic_store_n(&entry[0], htole32(chain->head), __ATOMIC_RELAXED);
	__atomic_store_n(&entry[1], htole32(written), __ATOMIC_RELAXED);
	vq->used_next++;
	vq->in_flight--;
}

/* Whether moving an index from old to new passed the event (2.7.10). */
static bool event_passed(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

bool vq_publish(struct virtqueue *vq)
{
	uint16_t old = vq->used_published, new = vq->used_next;

	if (old == new || !vq_usable(vq))
		return false;
	ring_store(vq->used, RING_IDX, new, __ATOMIC_RELEASE);
	vq->used_published = new;
	if (vq->dirty_log)
		gm_mark_dirty(vq->mem, vq->used_gpa, used_size(vq));
	atomic_thread_fence(memory_order_seq_cst);

	if (vq->notify_on_empty && !vq->in_flight && !vq->returned_count &&
	    ring_load(vq->avail, RING_IDX, __ATOMIC_RELAXED) == vq->last_avail)
		return true;
	if (vq->event_idx)
		return event_passed(ring_load(vq->avail, used_event_offset(vq), __ATOMIC_RELAXED),
				    new, old);
	return !(ring_load(vq->avail, RING_FLAGS, __ATOMIC_RELAXED) & AVAIL_NO_INTERRUPT);
}

void vq_disable_notify(struct virtqueue *vq)
{
	if (!vq->notify || !vq_usable(vq))
		return;
	vq->notify = false;
	/* With event indices nothing need be said: the event lies behind, and is not passed again.
	 */
	if (!vq->event_idx)
		ring_store(vq->used, RING_FLAGS, USED_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool vq_enable_notify(struct virtqueue *vq)
{
	if (!vq_usable(vq))
		return false;
	if (vq->event_idx)
		ring_store(vq->used, avail_event_offset(vq), vq->last_avail, __ATOMIC_RELAXED);
	else
		ring_store(vq->used, RING_FLAGS, 0, __ATOMIC_RELAXED);
	vq->notify = true;
	atomic_thread_fence(memory_order_seq_cst);
	return vq_look(vq) > 0 || vq->returned_count;
}

bool vq_has_work(struct virtqueue *vq)
{
	return vq_usable(vq) &&
	       (vq->returned_count || vq->avail_seen != vq->last_avail || vq_look(vq) > 0);
}

void vq_iov_cut_front(struct iovec **iov, unsigned *count, size_t n)
{
	while (*count && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

void vq_iov_cut_back(struct iovec *iov, unsigned *count, size_t n)
{
	while (*count && n >= iov[*count - 1].iov_len) {
		n -= iov[*count - 1].iov_len;
		(*count)--;
	}
	if (*count)
		iov[*count - 1].iov_len -= n;
}

static bool vq_post_load(void *object, unsigned version, struct error **err)
{
	struct virtqueue *vq = object;

	if (!is_pow2(vq->size) || vq->size > vq->size_max) {
		error_set(err, "virtqueue %u: size %u is not possible", vq->index, vq->size);
		return false;
	}
	if ((uint16_t)(vq->last_avail - vq->used_next) != vq->returned_count) {
		error_set(err, "virtqueue %u: %u requests in flight", vq->index,
			  (uint16_t)(vq->last_avail - vq->used_next - vq->returned_count));
		return false;
	}
	for (unsigned i = 0; i < vq->returned_count; i++) {
		if (vq->returned[i] >= vq->size) {
			error_set(err, "virtqueue %u: a chain's head is outside the ring",
				  vq->index);
			return false;
		}
	}
	vq->used_published = vq->used_next;
	return true;
}

static const struct state_field vq_fields[] = {
	STATE_FIELD(struct virtqueue, size, STATE_U16),
	STATE_FIELD(struct virtqueue, enabled, STATE_BOOL),
	STATE_FIELD(struct virtqueue, desc_gpa, STATE_U64),
	STATE_FIELD(struct virtqueue, avail_gpa, STATE_U64),
	STATE_FIELD(struct virtqueue, used_gpa, STATE_U64),
	STATE_FIELD(struct virtqueue, last_avail, STATE_U16),
	STATE_FIELD(struct virtqueue, used_next, STATE_U16),
	STATE_FIELD(struct virtqueue, returned_count, STATE_U32),
	{.name = "returned",
	 .type = STATE_U16,
	 .offset = offsetof(struct virtqueue, returned),
	 .count = VQ_MAX_SIZE,
	 .count_offset = offsetof(struct virtqueue, returned_count)},
	{.type = STATE_END},
};

const struct state_desc vq_state = {
	.name = "virtqueue",
	.version = 1,
	.fields = vq_fields,
	.post_load = vq_post_load,
};
