/* SPDX-License-Identifier: Apache-2.0 */
/* Split virtqueues against a driver that is correct, and against one that is not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hw/virtio/virtqueue.h"
#include "tests/lib/vdriver.h"
#include "vmm/core/util.h"

struct fixture {
	struct vguest g;
	struct vdriver d;
	struct vring ring;
	struct virtqueue vq;
	struct iovec iov[64];
	struct vq_chain chain;
	const char *failed;
};

static void on_fail(struct virtqueue *vq, const char *why)
{
	struct fixture *f = vq->opaque;

	f->failed = why;
}

static void place(struct fixture *f, unsigned size)
{
	struct vring *r = &f->ring;

	memset(r, 0, sizeof(*r));
	r->d = &f->d;
	r->size = size;
	r->event_idx = f->vq.event_idx;
	r->desc = vguest_alloc(&f->g, 16 * size, 16);
	r->avail = vguest_alloc(&f->g, 6 + 2 * size, 2);
	r->used = vguest_alloc(&f->g, 6 + 8 * size, 4);
	memset(vguest_ptr(&f->g, r->desc), 0, f->g.next - r->desc);
	f->vq.size = size;
	f->vq.desc_gpa = r->desc;
	f->vq.avail_gpa = r->avail;
	f->vq.used_gpa = r->used;
	f->vq.enabled = true;
}

static void start(struct fixture *f, unsigned size, bool event_idx)
{
	vq_reset(&f->vq);
	f->failed = NULL;
	f->vq.event_idx = event_idx;
	f->vq.indirect = true;
	place(f, size);
	assert_true(vq_start(&f->vq));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	vguest_init(&f->g);
	f->d.g = &f->g;
	vq_init(&f->vq, &f->g.vm.mem, 0, 1024, on_fail, f);
	f->chain.iov = f->iov;
	f->chain.iov_max = ARRAY_SIZE(f->iov);
	start(f, 8, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vq_destroy(&f->vq);
	vguest_destroy(&f->g);
	free(f);
	return 0;
}

static void chains_come_as_they_were_made(void **state)
{
	struct fixture *f = *state;
	uint64_t a = vguest_alloc(&f->g, 8192, 4096);
	struct vbuf bufs[] = {{a, 16}, {a + 100, 50}, {a + 4096, 512}, {a + 5000, 1}};

	for (int indirect = 0; indirect < 2; indirect++) {
		assert_int_equal(vq_pop(&f->vq, &f->chain), 0);
		uint16_t head = vring_add(&f->ring, bufs, 2, 2, indirect);
		assert_true(vq_has_work(&f->vq));
		assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
		assert_int_equal(f->chain.head, head);
		assert_int_equal(f->chain.readable, 2);
		assert_int_equal(f->chain.writable, 2);
		assert_int_equal(f->chain.readable_bytes, 66);
		assert_int_equal(f->chain.writable_bytes, 513);
		for (int i = 0; i < 4; i++) {
			assert_ptr_equal(f->iov[i].iov_base, vguest_ptr(&f->g, bufs[i].gpa));
			assert_int_equal(f->iov[i].iov_len, bufs[i].len);
		}
		assert_int_equal(vq_pop(&f->vq, &f->chain), 0);
	}
	assert_int_equal(f->vq.in_flight, 2);
}

static void used_ring_keeps_the_order_of_pushes(void **state)
{
	struct fixture *f = *state;
	uint64_t a = vguest_alloc(&f->g, 4096, 4096);
	struct vbuf buf = {a, 4};
	struct vq_chain c[4];
	struct iovec iov[4][2];
	uint16_t head;
	uint32_t len;

	for (int i = 0; i < 4; i++) {
		c[i].iov = iov[i];
		c[i].iov_max = 2;
		vring_add(&f->ring, &buf, 0, 1, false);
		assert_int_equal(vq_pop(&f->vq, &c[i]), 1);
	}
	vq_push(&f->vq, &c[2], 3);
	vq_push(&f->vq, &c[0], 1);
	assert_false(vring_used(&f->ring, &head, &len)); /* not published yet */
	assert_true(vq_publish(&f->vq));
	assert_false(vq_publish(&f->vq));
	assert_true(vring_used(&f->ring, &head, &len));
	assert_int_equal(head, 2);
	assert_int_equal(len, 3);
	assert_true(vring_used(&f->ring, &head, &len));
	assert_int_equal(head, 0);
	assert_int_equal(len, 1);
	assert_false(vring_used(&f->ring, &head, &len));
	assert_int_equal(f->vq.in_flight, 2);
}

static void one_request(struct fixture *f)
{
	struct vbuf buf = {1 << 20, 4};

	f->ring.free = 0;
	vring_add(&f->ring, &buf, 0, 1, false);
	assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
	vq_push(&f->vq, &f->chain, 0);
}

static void interrupts_follow_the_event_index(void **state)
{
	struct fixture *f = *state;

	vring_set_used_event(&f->ring, 0);
	one_request(f);
	assert_true(vq_publish(&f->vq));
	one_request(f);
	assert_false(vq_publish(&f->vq)); /* passed 0 long ago */
	vring_set_used_event(&f->ring, 3);
	one_request(f);
	assert_false(vq_publish(&f->vq));
	one_request(f);
	assert_true(vq_publish(&f->vq)); /* the index went from 3 to 4 */
	vring_set_used_event(&f->ring, 5);
	for (int i = 0; i < 4; i++)
		one_request(f);
	assert_true(vq_publish(&f->vq)); /* a batch passes it in one go */
	/* All the way around, where the 16-bit indices wrap. */
	for (unsigned i = 8; i < 65536 + 100; i++) {
		uint16_t index = i;

		vring_set_used_event(&f->ring, i % 3 ? (uint16_t)(index + 5) : index);
		one_request(f);
		assert_int_equal(vq_publish(&f->vq), i % 3 == 0);
	}
}

static void interrupts_follow_the_flag(void **state)
{
	struct fixture *f = *state;

	start(f, 8, false);
	one_request(f);
	assert_true(vq_publish(&f->vq));
	vring_suppress(&f->ring, true);
	one_request(f);
	assert_false(vq_publish(&f->vq));
	f->vq.notify_on_empty = true;
	one_request(f);
	assert_true(vq_publish(&f->vq));
}

static void kicks_are_asked_for_when_needed(void **state)
{
	struct fixture *f = *state;
	struct vbuf buf = {1 << 20, 4};

	for (int event_idx = 0; event_idx < 2; event_idx++) {
		start(f, 8, event_idx);
		f->d.legacy = true; /* vring_kick() then writes a port that nobody has */
		assert_false(vq_enable_notify(&f->vq));
		vring_add(&f->ring, &buf, 0, 1, false);
		assert_true(vring_kick(&f->ring));
		vq_disable_notify(&f->vq);
		vring_add(&f->ring, &buf, 0, 1, false);
		assert_false(vring_kick(&f->ring));
		assert_true(vq_enable_notify(&f->vq)); /* both are there already */
		assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
		assert_true(vq_enable_notify(&f->vq));
		assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
		assert_false(vq_enable_notify(&f->vq));
		vring_add(&f->ring, &buf, 0, 1, false);
		assert_true(vring_kick(&f->ring));
	}
}

static void rings_of_every_size_wrap(void **state)
{
	struct fixture *f = *state;
	struct vbuf buf = {1 << 20, 4};

	for (unsigned size = 1; size <= 1024; size *= 2) {
		start(f, size, true);
		for (unsigned i = 0; i < 3 * size; i++) {
			uint16_t head;

			f->ring.free = i % size;
			vring_add(&f->ring, &buf, 0, 1, false);
			assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
			vq_push(&f->vq, &f->chain, 0);
			vq_publish(&f->vq);
			assert_true(vring_used(&f->ring, &head, NULL));
			assert_int_equal(head, i % size);
		}
	}
}

static void a_full_ring_is_in_flight(void **state)
{
	struct fixture *f = *state;
	struct vbuf buf = {1 << 20, 4};

	start(f, 1024, true);
	for (int i = 0; i < 1024; i++)
		vring_add(&f->ring, &buf, 0, 1, false);
	for (int i = 0; i < 1024; i++)
		assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
	assert_int_equal(vq_pop(&f->vq, &f->chain), 0);
	assert_null(f->failed);
	/* One more than the ring holds: the driver used a head twice. */
	vring_offer(&f->ring, 0);
	assert_int_equal(vq_pop(&f->vq, &f->chain), -EINVAL);
	assert_non_null(f->failed);
}

/* What a hostile driver may write, and that it breaks the queue and nothing else. */
static void malformed_chains_break_the_queue(void **state)
{
	struct fixture *f = *state;
	struct vring *r = &f->ring;
	uint64_t ok = 1 << 20, table;

	for (int what = 0;; what++) {
		start(f, 8, true);
		table = vguest_alloc(&f->g, 4096, 16);
		struct vq_desc *t = vguest_ptr(&f->g, table);

		memset(t, 0, 4096);
		t[0] = (struct vq_desc){ok, 4, 0, 0};
		switch (what) {
		case 0: /* a loop of one */
			vring_desc(r, 0, ok, 4, VQ_DESC_NEXT, 0);
			break;
		case 1: /* a loop of two */
			vring_desc(r, 0, ok, 4, VQ_DESC_NEXT, 1);
			vring_desc(r, 1, ok, 4, VQ_DESC_NEXT, 0);
			break;
		case 2: /* next outside the table */
			vring_desc(r, 0, ok, 4, VQ_DESC_NEXT, 8);
			break;
		case 3: /* empty */
			vring_desc(r, 0, ok, 0, 0, 0);
			break;
		case 4: /* beyond RAM */
			vring_desc(r, 0, VGUEST_RAM, 1, 0, 0);
			break;
		case 5: /* across the end of RAM */
			vring_desc(r, 0, VGUEST_RAM - 1, 2, VQ_DESC_WRITE, 0);
			break;
		case 6: /* around the end of the address space */
			vring_desc(r, 0, UINT64_MAX, 2, 0, 0);
			break;
		case 7: /* readable behind writable */
			vring_desc(r, 0, ok, 4, VQ_DESC_WRITE | VQ_DESC_NEXT, 1);
			vring_desc(r, 1, ok, 4, 0, 0);
			break;
		case 8: /* more than 4 GiB in all: not even RAM has as much */
			vring_desc(r, 0, 0, UINT32_MAX, 0, 0);
			break;
		case 9: /* an indirect table of no whole descriptor */
			vring_desc(r, 0, table, 17, VQ_DESC_INDIRECT, 0);
			break;
		case 10: /* an empty one */
			vring_desc(r, 0, table, 0, VQ_DESC_INDIRECT, 0);
			break;
		case 11: /* too long */
			vring_desc(r, 0, 0, 1025 * 16, VQ_DESC_INDIRECT, 0);
			break;
		case 12: /* huge */
			vring_desc(r, 0, 0, UINT32_MAX & ~15u, VQ_DESC_INDIRECT, 0);
			break;
		case 13: /* not in RAM */
			vring_desc(r, 0, UINT64_MAX - 15, 32, VQ_DESC_INDIRECT, 0);
			break;
		case 14: /* with a successor */
			vring_desc(r, 0, table, 16, VQ_DESC_INDIRECT | VQ_DESC_NEXT, 1);
			vring_desc(r, 1, ok, 4, 0, 0);
			break;
		case 15: /* one inside another */
			t[0] = (struct vq_desc){table, 16, VQ_DESC_INDIRECT, 0};
			vring_desc(r, 0, table, 16, VQ_DESC_INDIRECT, 0);
			break;
		case 16: /* a loop in a table */
			t[0] = (struct vq_desc){ok, 4, VQ_DESC_NEXT, 1};
			t[1] = (struct vq_desc){ok, 4, VQ_DESC_NEXT, 0};
			vring_desc(r, 0, table, 32, VQ_DESC_INDIRECT, 0);
			break;
		case 17: /* out of a table */
			t[0] = (struct vq_desc){ok, 4, VQ_DESC_NEXT, 1};
			vring_desc(r, 0, table, 16, VQ_DESC_INDIRECT, 0);
			break;
		case 18: /* more pieces than the device has room for */
			for (int i = 0; i < 65; i++)
				t[i] = (struct vq_desc){ok, 4, VQ_DESC_NEXT, i + 1};
			vring_desc(r, 0, table, 66 * 16, VQ_DESC_INDIRECT, 0);
			break;
		case 19: /* not negotiated */
			f->vq.indirect = false;
			vring_desc(r, 0, table, 16, VQ_DESC_INDIRECT, 0);
			break;
		case 20: /* a head outside the ring */
			vring_offer(r, 8);
			goto pop;
		case 21: /* the index jumps */
			r->avail_idx = 8;
			break;
		case 22: /* or goes back */
			r->avail_idx = UINT16_MAX - 1;
			break;
		default:
			return;
		}
		vring_offer(r, 0);
	pop:
		if (vq_pop(&f->vq, &f->chain) != -EINVAL || !f->failed)
			fail_msg("malformed chain %d was taken", what);
		assert_int_equal(vq_pop(&f->vq, &f->chain), -EINVAL);
		assert_false(vq_has_work(&f->vq));
		assert_false(vq_enable_notify(&f->vq));
		vq_disable_notify(&f->vq);
		vq_push(&f->vq, &f->chain, 0);
		assert_false(vq_publish(&f->vq));
	}
}

static void bad_rings_do_not_start(void **state)
{
	struct fixture *f = *state;
	struct {
		unsigned size;
		uint64_t desc, avail, used;
	} bad[] = {
		{0, 0, 0, 0},
		{3, 0, 0, 0},
		{2048, 0, 0, 0},
		{8, 8, 0, 0},
		{8, 0, 1, 0},
		{8, 0, 0, 2},
		{8, VGUEST_RAM, 0, 0},
		{8, VGUEST_RAM - 16, 0, 0},
		{8, 0, VGUEST_RAM - 4, 0},
		{8, 0, 0, VGUEST_RAM - 8},
		{8, ~UINT64_C(15), 0, 0},
		{8, 0, 0, ~UINT64_C(3)},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		vq_reset(&f->vq);
		f->failed = NULL;
		f->vq.size = bad[i].size;
		f->vq.desc_gpa = bad[i].desc;
		f->vq.avail_gpa = bad[i].avail;
		f->vq.used_gpa = bad[i].used;
		assert_false(vq_start(&f->vq)); /* not enabled */
		assert_null(f->failed);
		f->vq.enabled = true;
		assert_false(vq_start(&f->vq));
		assert_non_null(f->failed);
		assert_int_equal(vq_pop(&f->vq, &f->chain), -EINVAL);
	}
}

static void buffers_may_lie_across_regions(void **state)
{
	struct fixture *f = *state;
	static uint8_t more[8192] __attribute__((aligned(4096)));
	struct mem_region region = {.gpa = VGUEST_RAM, .size = 8192, .hva = more, .fd = -1};
	struct vbuf bufs[] = {{VGUEST_RAM - 100, 200}, {VGUEST_RAM + 8000, 192}};

	/* The rings are resolved anew, since the snapshot has changed. */
	assert_true(guest_mem_add(&f->g.vm.mem, &region, NULL));
	vring_add(&f->ring, bufs, 1, 1, false);
	assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
	assert_int_equal(f->chain.readable, 2);
	assert_int_equal(f->iov[0].iov_len, 100);
	assert_ptr_equal(f->iov[1].iov_base, more);
	assert_int_equal(f->chain.writable, 1);
	assert_ptr_equal(f->iov[2].iov_base, more + 8000);
	guest_mem_remove(&f->g.vm.mem, VGUEST_RAM);
	vring_add(&f->ring, bufs, 1, 1, false);
	assert_int_equal(vq_pop(&f->vq, &f->chain), -EINVAL);
}

static void rings_that_are_unplugged_break_it(void **state)
{
	struct fixture *f = *state;
	struct vbuf buf = {1 << 20, 4};

	vring_add(&f->ring, &buf, 0, 1, false);
	assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
	guest_mem_remove(&f->g.vm.mem, 0);
	vq_push(&f->vq, &f->chain, 0);
	assert_non_null(f->failed);
	assert_false(vq_publish(&f->vq));
	assert_int_equal(vq_pop(&f->vq, &f->chain), -EINVAL);
}

static bool is_dirty(const _Atomic uint64_t *bits, uint64_t gpa)
{
	return bits[gpa / 4096 / 64] >> (gpa / 4096 % 64) & 1;
}

static void writes_are_marked_dirty(void **state)
{
	struct fixture *f = *state;
	size_t words = VGUEST_RAM / 4096 / 64;
	_Atomic uint64_t *bits = calloc(words, 8);
	struct mem_region region = {.size = VGUEST_RAM,
				    .hva = f->g.ram,
				    .fd = -1,
				    .flags = GM_DIRTY_LOG,
				    .dirty = bits};
	uint64_t a = vguest_alloc(&f->g, 16384, 4096);
	struct vbuf bufs[] = {{a, 16}, {a + 4096, 5000}};

	guest_mem_remove(&f->g.vm.mem, 0);
	assert_true(guest_mem_add(&f->g.vm.mem, &region, NULL));
	vring_add(&f->ring, bufs, 1, 1, false);
	assert_int_equal(vq_pop(&f->vq, &f->chain), 1);
	memset(bits, 0, words * 8); /* a round of migration while it is in flight */
	vq_push(&f->vq, &f->chain, 5000);
	vq_publish(&f->vq);
	assert_false(is_dirty(bits, a));
	assert_true(is_dirty(bits, a + 4096));
	assert_true(is_dirty(bits, a + 8192));
	assert_false(is_dirty(bits, a + 12288));
	assert_true(is_dirty(bits, f->ring.used));
	vq_mark_written(&f->vq, vguest_ptr(&f->g, a + 12288), 1);
	assert_true(is_dirty(bits, a + 12288));
	guest_mem_remove(&f->g.vm.mem, 0);
	free(bits);
}

static void iovecs_are_read_written_and_cut(void **state)
{
	char a[] = "abc", b[] = "defg", c[] = "h", buf[16] = {0};
	struct iovec iov[] = {{a, 3}, {b, 4}, {c, 1}}, *p = iov;
	unsigned n = 3;

	assert_int_equal(iov_to_buf(iov, 3, 2, buf, sizeof(buf)), 6);
	assert_string_equal(buf, "cdefgh");
	assert_int_equal(iov_to_buf(iov, 3, 3, buf, 2), 2);
	assert_memory_equal(buf, "de", 2);
	assert_int_equal(iov_to_buf(iov, 3, 8, buf, 2), 0);
	assert_int_equal(iov_from_buf(iov, 3, 1, "12345", 5), 5);
	assert_memory_equal(a, "a12", 3);
	assert_memory_equal(b, "345g", 4);
	vq_iov_cut_front(&p, &n, 4);
	assert_int_equal(n, 2);
	assert_ptr_equal(p[0].iov_base, b + 1);
	vq_iov_cut_back(p, &n, 2);
	assert_int_equal(n, 1);
	assert_int_equal(p[0].iov_len, 2);
	vq_iov_cut_front(&p, &n, 2);
	assert_int_equal(n, 0);
}

static void loaded_state_is_checked(void **state)
{
	struct fixture *f = *state;
	struct virtqueue *vq = &f->vq;

	assert_true(vq_state.post_load(vq, 1, NULL));
	vq->size = 7;
	assert_false(vq_state.post_load(vq, 1, NULL));
	vq->size = 8;
	vq->last_avail = 3;
	assert_false(vq_state.post_load(vq, 1, NULL));
	vq->used_next = 3;
	assert_true(vq_state.post_load(vq, 1, NULL));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(chains_come_as_they_were_made),
		TEST(used_ring_keeps_the_order_of_pushes),
		TEST(interrupts_follow_the_event_index),
		TEST(interrupts_follow_the_flag),
		TEST(kicks_are_asked_for_when_needed),
		TEST(rings_of_every_size_wrap),
		TEST(a_full_ring_is_in_flight),
		TEST(malformed_chains_break_the_queue),
		TEST(bad_rings_do_not_start),
		TEST(buffers_may_lie_across_regions),
		TEST(rings_that_are_unplugged_break_it),
		TEST(writes_are_marked_dirty),
		TEST(iovecs_are_read_written_and_cut),
		TEST(loaded_state_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
