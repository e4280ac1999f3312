/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtqueue whose rings, descriptors and tables are arbitrary and change while it works. Input:
 * two bytes that choose features and size, then a run of operations, a byte that says which and its
 * operands; numbers are little-endian.
 */
#include <stdlib.h>

#include "hw/virtio/virtqueue.h"
#include "tests/lib/fuzz_input.h"
#include "vmm/core/util.h"

enum {
	RAM = 1 << 16,
	DESC = 0x0000,
	AVAIL = 0x1000,
	USED = 0x2000,
	MAX_SIZE = 64,
	IOVS = 40,
	MAX_HELD = 2 * MAX_SIZE,
};

enum op { PATCH, OFFER, DESCRIBE, POP, PUSH, PUBLISH, ENABLE, DISABLE, LOOK, REMAP, OPS };

static void on_fail(struct virtqueue *vq, const char *why)
{
	if (!why || !vq->broken)
		abort();
}

struct machine {
	struct guest_mem mem;
	struct mem_region region;
	struct virtqueue vq;
	uint8_t *ram;
	uint16_t avail_idx;
	struct held {
		struct vq_chain chain;
		struct iovec iov[IOVS];
	} held[MAX_HELD];
	unsigned count;
};

/* What vq_pop() promises. */
static void check_chain(const struct machine *m, const struct vq_chain *c)
{
	unsigned n = c->readable + c->writable;
	uint64_t bytes = 0;
	uint8_t buf[64];

	if (!n || n > c->iov_max || c->head >= m->vq.size || m->vq.in_flight > m->vq.size)
		abort();
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *p = c->iov[i].iov_base;

		if (!c->iov[i].iov_len || p < m->ram || p + c->iov[i].iov_len > m->ram + RAM)
			abort();
		bytes += c->iov[i].iov_len;
	}
	if (bytes != c->readable_bytes + c->writable_bytes)
		abort();
	iov_to_buf(c->iov, c->readable, 0, buf, sizeof(buf));
	iov_from_buf(c->iov + c->readable, c->writable, 3, buf, sizeof(buf));
}

static void pop(struct machine *m)
{
	struct held *h = &m->held[m->count];

	if (m->count == MAX_HELD)
		return;
	h->chain.iov = h->iov;
	h->chain.iov_max = IOVS;
	if (vq_pop(&m->vq, &h->chain) > 0) {
		check_chain(m, &h->chain);
		m->count++;
	}
}

static void push(struct machine *m, unsigned which, uint32_t written)
{
	if (!m->count)
		return;
	which %= m->count;
	vq_push(&m->vq, &m->held[which].chain, written);
	/* Another takes its place; the iovecs go with their chain. */
	m->held[which] = m->held[--m->count];
	m->held[which].chain.iov = m->held[which].iov;
}

static void remap(struct machine *m)
{
	guest_mem_remove(&m->mem, m->region.gpa);
	guest_mem_add(&m->mem, &m->region, NULL);
}

static void patch(struct machine *m, struct fuzz_input *in)
{
	unsigned offset = fuzz_take(in, 2), len = fuzz_take(in, 1);

	for (unsigned i = 0; i < len && in->left; i++)
		m->ram[(offset + i) % RAM] = fuzz_take(in, 1);
}

static void describe(struct machine *m, struct fuzz_input *in)
{
	uint8_t *p = m->ram + DESC + 16 * (fuzz_take(in, 1) % MAX_SIZE);

	store_le64(p, fuzz_take(in, 2));
	store_le32(p + 8, fuzz_take(in, 2));
	store_le16(p + 12, fuzz_take(in, 1));
	store_le16(p + 14, fuzz_take(in, 1));
}

static void offer(struct machine *m, struct fuzz_input *in)
{
	unsigned slot = m->avail_idx++ & (m->vq.size - 1);

	store_le16(m->ram + AVAIL + 4 + 2 * slot, fuzz_take(in, 1));
	store_le16(m->ram + AVAIL + 2, m->avail_idx);
}

static void run(struct machine *m, struct fuzz_input *in)
{
	while (in->left) {
		switch ((enum op)(fuzz_take(in, 1) % OPS)) {
		case PATCH:
			patch(m, in);
			break;
		case OFFER:
			offer(m, in);
			break;
		case DESCRIBE:
			describe(m, in);
			break;
		case POP:
			pop(m);
			break;
		case PUSH:
			push(m, fuzz_take(in, 1), fuzz_take(in, 2));
			break;
		case PUBLISH:
			vq_publish(&m->vq);
			break;
		case ENABLE:
			vq_enable_notify(&m->vq);
			break;
		case DISABLE:
			vq_disable_notify(&m->vq);
			break;
		case LOOK:
			vq_has_work(&m->vq);
			break;
		case REMAP:
			remap(m);
			break;
		case OPS:
			break;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct machine *m = xcalloc(1, sizeof(*m));
	uint8_t features = fuzz_take(&in, 1);

	m->ram = aligned_alloc(4096, RAM);
	memset(m->ram, 0, RAM);
	m->region = (struct mem_region){.size = RAM, .hva = m->ram, .fd = -1};
	guest_mem_init(&m->mem);
	guest_mem_add(&m->mem, &m->region, NULL);
	vq_init(&m->vq, &m->mem, 0, MAX_SIZE, on_fail, m);
	m->vq.size = 1 << fuzz_take(&in, 1) % 7;
	m->vq.desc_gpa = DESC;
	m->vq.avail_gpa = AVAIL;
	m->vq.used_gpa = USED;
	m->vq.event_idx = features & 1;
	m->vq.indirect = features & 2;
	m->vq.notify_on_empty = features & 4;
	m->vq.enabled = true;
	vq_start(&m->vq);
	run(m, &in);
	vq_destroy(&m->vq);
	guest_mem_destroy(&m->mem);
	free(m->ram);
	free(m);
	return 0;
}
