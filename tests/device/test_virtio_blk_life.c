/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk driven through its registers and rings, over a disk in memory: drivers that break the
 * rules, failures of the host, resets and unplugging with requests in flight, threads, saved state.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/lib/state_copy.h"
#include "tests/lib/vblk_disk.h"

#define ALL_FEATURES UINT64_MAX
enum { CONFIG_WRITEBACK = 32 };

/* ---- failure ---- */

static void a_broken_driver_needs_a_reset(void **state)
{
	struct vblk_disk *f = *state;
	uint64_t h = vguest_alloc(&f->g, 4096, 16);
	struct vbuf bufs[] = {{h, 15}, {h + 16, 1}, {h + 32, 16}};
	struct vblk_req req;

	vblk_disk_start(f, NULL);
	for (int what = 0; what < 5; what++) {
		unsigned config_irqs = f->g.msi[0];

		/* One that is in flight meanwhile. */
		f->node->hold = true;
		vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 0, f->buf, 512, 1, false);
		vring_kick(f->q);
		vguest_settle(&f->g);
		switch (what) {
		case 0: /* a short header */
			vring_add(f->q, bufs, 1, 1, false);
			break;
		case 1: /* no status */
			vring_add(f->q, bufs + 2, 1, 0, false);
			break;
		case 2: /* no header */
			vring_add(f->q, bufs + 1, 0, 1, false);
			break;
		case 3: /* a loop */
			vring_desc(f->q, 100, h, 16, VQ_DESC_NEXT, 100);
			vring_offer(f->q, 100);
			break;
		case 4: /* the index jumps */
			f->q->avail_idx += 1000;
			vring_offer(f->q, 0);
			break;
		}
		vring_ring(f->q);
		vguest_settle(&f->g);
		assert_int_equal(vdriver_status(&f->d), 15 | VIRTIO_STATUS_NEEDS_RESET);
		assert_int_equal(f->g.msi[0], config_irqs + 1);
		/* It does nothing more until then. */
		vring_ring(f->q);
		f->node->hold = false;
		fake_block_release(f->node, 100);
		vguest_settle(&f->g);
		assert_false(vring_used(f->q, NULL, NULL));
		vdriver_reset(&f->d);
		vblk_disk_restart(f);
		vblk_disk_check(f);
	}
}

static void rings_outside_memory_need_a_reset(void **state)
{
	struct vblk_disk *f = *state;

	vblk_disk_add(f, NULL);
	vdriver_open(&f->d, &f->g, f->dev, false);
	vdriver_reset(&f->d);
	vdriver_negotiate(&f->d, ALL_FEATURES);
	vguest_out(&f->g, false, f->d.common + 36, 0xffffffff, 4);
	vguest_out(&f->g, false, f->d.common + 28, 1, 2);
	vdriver_set_status(&f->d, 15);
	vguest_settle(&f->g);
	assert_int_equal(vdriver_status(&f->d), 15 | VIRTIO_STATUS_NEEDS_RESET);
	vdriver_reset(&f->d);
	vblk_disk_restart(f);
	vblk_disk_check(f);
}

static void host_errors_are_reported(void **state)
{
	struct vblk_disk *f = *state;

	vblk_disk_start(f, NULL);
	f->node->fail_count = 1;
	f->node->fail_error = -EIO;
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 0, f->buf, 512), VIRTIO_BLK_S_IOERR);
	vguest_settle(&f->g);
	assert_int_equal(f->g.event_count, 2); /* the first is RESUME */
	assert_int_equal(f->g.last_event.kind, VM_EVENT_BLOCK_IO_ERROR);
	assert_string_equal(f->g.last_event.device, "d0");
	assert_string_equal(f->g.last_event.operation, "read");
	assert_string_equal(f->g.last_event.action, "report");
	assert_int_equal(f->g.last_event.error, EIO);
	f->node->fail_count = 1;
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_IOERR);
	vguest_settle(&f->g);
	assert_string_equal(f->g.last_event.operation, "write");
	assert_true(vm_is_running(&f->g.vm));
	vblk_disk_check(f);
}

static void host_errors_may_be_ignored(void **state)
{
	struct vblk_disk *f = *state;

	vblk_disk_start(f, "rerror=ignore,werror=ignore");
	f->node->fail_count = 2;
	f->node->fail_error = -EIO;
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 0, f->buf, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_OUT, 0, f->buf, 512), VIRTIO_BLK_S_OK);
	assert_string_equal(f->g.last_event.action, "ignore");
}

static void a_full_host_disk_stops_the_guest_and_nothing_is_lost(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req reqs[8];

	vblk_disk_start(f, "request-merging=off");
	for (int i = 0; i < 8; i++) {
		memset(vguest_ptr(&f->g, f->buf + 512 * i), 0x10 + i, 512);
		vblk_add(f->q, &reqs[i], VIRTIO_BLK_T_OUT, 20 + i, f->buf + 512 * i, 512, 1, false);
	}
	f->node->fail_count = 5;
	f->node->fail_error = -ENOSPC;
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(f->g.vm.state, RUN_STATE_IO_ERROR);
	for (int i = 0; i < 8; i++)
		assert_int_equal(vblk_status(f->q, &reqs[i]), i < 5 ? VBLK_PENDING : 0);
	/* Still no room: it stops once more. */
	f->node->fail_count = 2;
	vm_start(&f->g.vm);
	vguest_settle(&f->g);
	assert_int_equal(f->g.vm.state, RUN_STATE_IO_ERROR);
	vm_start(&f->g.vm);
	vguest_settle(&f->g);
	assert_true(vm_is_running(&f->g.vm));
	for (int i = 0; i < 8; i++) {
		assert_int_equal(vblk_status(f->q, &reqs[i]), VIRTIO_BLK_S_OK);
		assert_true(vring_used(f->q, NULL, NULL));
		assert_memory_equal(vguest_ptr(&f->g, f->buf + 512 * i),
				    f->node->data + 512 * (20 + i), 512);
	}
	assert_false(vring_used(f->q, NULL, NULL));
	vblk_disk_check(f);
}

static void what_waits_for_a_retry_is_dropped_by_a_reset(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;

	vblk_disk_start(f, "werror=stop");
	f->node->fail_count = 1;
	f->node->fail_error = -EIO;
	vblk_add(f->q, &req, VIRTIO_BLK_T_OUT, 0, f->buf, 512, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(f->g.vm.state, RUN_STATE_IO_ERROR);
	virtio_pci_reset(f->dev);
	vm_start(&f->g.vm);
	vguest_settle(&f->g);
	assert_int_equal(fake_block_count(f->node, BLOCK_WRITE), 1);
}

static void a_paused_guest_sees_no_progress(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;

	vblk_disk_start(f, NULL);
	vm_stop(&f->g.vm, RUN_STATE_PAUSED);
	vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 0, f->buf, 512, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(f->node->seen_count, 0);
	vm_start(&f->g.vm);
	vguest_settle(&f->g);
	assert_int_equal(vblk_status(f->q, &req), VIRTIO_BLK_S_OK);
}

/* ---- reset ---- */

static void submit_held(struct vblk_disk *f, struct vblk_req *req)
{
	f->node->hold = true;
	vblk_add(f->q, req, VIRTIO_BLK_T_IN, 0, f->buf, 512, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(f->node->tail - f->node->head, 1);
}

static void a_reset_waits_for_requests_in_flight(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;

	vblk_disk_start(f, NULL);
	submit_held(f, &req);
	vdriver_set_status(&f->d, 0);
	vguest_settle(&f->g);
	assert_int_not_equal(vdriver_status(&f->d), 0);
	f->node->hold = false;
	fake_block_release(f->node, 1);
	vguest_settle(&f->g);
	assert_int_equal(vdriver_status(&f->d), 0);
	assert_false(vring_used(f->q, NULL, NULL));
	assert_int_equal(vblk_status(f->q, &req), VBLK_PENDING);
	assert_int_equal(f->g.msi[1], 0);
	vblk_disk_restart(f);
	vblk_disk_check(f);
}

static void a_driver_that_does_not_poll_waits(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;

	vblk_disk_start(f, NULL);
	submit_held(f, &req);
	vdriver_set_status(&f->d, 0);
	vdriver_set_status(&f->d, VIRTIO_STATUS_ACKNOWLEDGE);
	assert_int_equal(vdriver_status(&f->d), VIRTIO_STATUS_ACKNOWLEDGE);
	assert_int_equal(f->node->tail, f->node->head);
	f->node->hold = false;
	vblk_disk_restart(f);
	vblk_disk_check(f);
}

static void the_machine_may_be_reset_at_any_moment(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;

	vblk_disk_start(f, NULL);
	submit_held(f, &req);
	vm_reset(&f->g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	assert_int_equal(f->node->tail, f->node->head);
	f->node->hold = false;
	vguest_boot(&f->g);
	vdriver_open(&f->d, &f->g, f->dev, false);
	assert_int_equal(vdriver_status(&f->d), 0);
	vblk_disk_drive(f, false, ALL_FEATURES, true);
	vblk_disk_check(f);
}

static void it_may_be_unplugged_with_requests_in_flight(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;

	vblk_disk_start(f, NULL);
	submit_held(f, &req);
	device_free(f->dev);
	assert_int_equal(f->node->tail, f->node->head);
	assert_null(f->drive.taken_by);
	assert_int_equal(f->g.vm.mmio.doorbell_count, 0);
	assert_false(vring_used(f->q, NULL, NULL));
	f->node->hold = false;
	vblk_disk_start(f, NULL);
	vblk_disk_check(f);
}

static void unplug_it(void *opaque)
{
	device_unplugged(opaque);
}

/* Waiting for requests turns the loop, and something there wants to free the device. */
static void it_may_be_let_go_during_a_reset(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;
	struct ev_work work;

	vblk_disk_start(f, NULL);
	for (int machine = 0; machine < 2; machine++) {
		submit_held(f, &req);
		ev_work_init(&work, unplug_it, f->dev);
		evloop_post(f->g.vm.loop, &work);
		if (machine)
			vm_reset(&f->g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
		else
			virtio_pci_reset(f->dev);
		assert_true(f->dev->unplug_due);
		assert_ptr_equal(f->drive.taken_by, device_label(f->dev));
		vguest_settle(&f->g);
		assert_null(f->drive.taken_by);
		assert_int_equal(f->g.last_event.kind, VM_EVENT_DEVICE_DELETED);
		f->node->hold = false;
		if (!machine)
			vblk_disk_start(f, NULL);
	}
}

/* ---- threads ---- */

static void many_queues_in_an_iothread(void **state)
{
	struct vblk_disk *f = *state;
	static struct vblk_req reqs[4][64];
	struct vring *q[4];
	struct error *err = NULL;

	f->iothread = iothread_new("io0", &err);
	assert_non_null(f->iothread);
	vguest_object(&f->g, "io0", f->iothread);
	vblk_disk_add(f, "iothread=io0,num-queues=4,request-merging=off");
	vdriver_open(&f->d, &f->g, f->dev, false);
	vdriver_reset(&f->d);
	vdriver_enable_msix(&f->d, 5);
	vdriver_negotiate(&f->d, ALL_FEATURES);
	for (int i = 0; i < 4; i++)
		q[i] = vdriver_ring(&f->d, i, 0);
	vdriver_ok(&f->d);
	for (int i = 0; i < 64; i++) {
		for (int j = 0; j < 4; j++) {
			uint64_t sector = 64 * j + i;

			vblk_add(q[j], &reqs[j][i], VIRTIO_BLK_T_IN, sector, f->buf + 512 * sector,
				 512, 1, true);
			vring_kick(q[j]);
		}
	}
	for (int j = 0; j < 4; j++) {
		for (int i = 0, tries = 0; i < 64;) {
			assert_true(tries++ < 100000);
			if (vring_used(q[j], NULL, NULL))
				i++;
			else
				evloop_run_once(f->g.vm.loop, NSEC_PER_MSEC / 10);
		}
		for (int tries = 0; !f->g.msi[j + 1]; tries++) {
			assert_true(tries < 10000); /* the interrupt comes after the index */
			evloop_run_once(f->g.vm.loop, NSEC_PER_MSEC / 10);
		}
	}
	assert_memory_equal(vguest_ptr(&f->g, f->buf), f->node->data, 256 * 512);
	/* A reset, a pause and an unplug from this thread while that one works. */
	for (int round = 0; round < 20; round++) {
		vdriver_reset(&f->d);
		vdriver_negotiate(&f->d, ALL_FEATURES);
		q[0] = vdriver_ring(&f->d, 0, 0);
		vdriver_ok(&f->d);
		f->g.next = f->buf + MiB;
		for (int i = 0; i < 64; i++)
			vblk_add(q[0], &reqs[0][i], VIRTIO_BLK_T_IN, i, f->buf, 512, 1, true);
		vring_kick(q[0]);
		if (round == 5)
			vm_stop(&f->g.vm, RUN_STATE_PAUSED);
		if (round == 6)
			vm_start(&f->g.vm);
	}
	device_free(f->dev);
	assert_ptr_equal(f->node->loop, f->g.vm.loop);
}

static void poll_long(void *opaque)
{
	evloop_set_poll_ns(opaque, 10 * NSEC_PER_SEC);
}

static void a_polling_loop_needs_no_kicks(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;
	struct error *err = NULL;

	f->iothread = iothread_new("io0", &err);
	assert_non_null(f->iothread);
	evloop_call(f->iothread->loop, poll_long, f->iothread->loop);
	vguest_object(&f->g, "io0", f->iothread);
	vblk_disk_add(f, "iothread=io0");
	vdriver_open(&f->d, &f->g, f->dev, false);
	vdriver_reset(&f->d);
	vdriver_negotiate(&f->d, ALL_FEATURES);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	for (int i = 0; i < 3; i++) {
		vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 3, f->buf, 512, 1, false);
		for (int tries = 0; !vring_used(f->q, NULL, NULL); tries++) {
			assert_true(tries < 1000);
			evloop_run_once(f->g.vm.loop, NSEC_PER_MSEC);
		}
		assert_int_equal(vblk_status(f->q, &req), VIRTIO_BLK_S_OK);
	}
	assert_int_equal(f->q->kicks, 0);
}

static void kicks_are_saved_while_it_works(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;

	vblk_disk_start(f, NULL);
	/* It is asleep and asks for a kick, and for one only until it has looked. */
	vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 0, f->buf, 512, 1, false);
	assert_true(vring_kick(f->q));
	vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 0, f->buf, 512, 1, false);
	assert_false(vring_kick(f->q));
	vguest_settle(&f->g);
	assert_int_equal(fake_block_count(f->node, BLOCK_READ), 2);
}

/* ---- state ---- */

static void another_device_goes_on_where_this_one_was(void **state)
{
	struct vblk_disk *f = *state, *to;
	static uint8_t saved[65536];
	struct error *err = NULL;
	struct vblk_req req;
	size_t len;
	void *other;

	vblk_disk_start(f, NULL);
	vblk_disk_check(f);
	vdriver_config_write(&f->d, CONFIG_WRITEBACK, 0, 1);
	/* One that nobody has looked at yet, and one that is in flight. */
	f->node->hold = true;
	vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 9, f->buf, 512, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	vm_stop(&f->g.vm, RUN_STATE_PAUSED);
	vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 20, f->buf + 4096, 512, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	vring_set_used_event(f->q, 2);
	len = state_save(f->dev->desc->state, f->dev, saved, sizeof(saved));

	vblk_disk_setup(&other);
	to = other;
	to->dev = vguest_add(&to->g, &virtio_blk_pci_desc, "drive=d0", NULL);
	memcpy(to->g.ram, f->g.ram, to->g.next > f->g.next ? to->g.next : f->g.next);
	to->g.next = f->g.next;
	if (!state_load(to->dev->desc->state, to->dev, saved, len, &err))
		fail_msg("%s", error_message(err));
	vm_stop(&to->g.vm, RUN_STATE_PAUSED);
	to->g.vm.state = RUN_STATE_PAUSED;
	to->g.vm.launched = true; /* as after loading a state */
	vm_start(&to->g.vm);
	vguest_settle(&to->g);
	vdriver_open(&to->d, &to->g, to->dev, false);
	to->d.features = f->d.features;
	to->d.msix = true;
	to->d.rings[0] = f->d.rings[0];
	to->q = &to->d.rings[0];
	to->q->d = &to->d;
	assert_int_equal(vblk_status(to->q, &req), VIRTIO_BLK_S_OK);
	assert_memory_equal(vguest_ptr(&to->g, f->buf + 4096), to->node->data + 20 * 512, 512);
	assert_int_equal(to->g.msi[1], 1);
	assert_int_equal(to->g.vm.mmio.doorbell_count, 1);
	assert_false(to->node->writeback);
	for (int i = 0; i < 2; i++)
		assert_true(vring_used(to->q, NULL, NULL));
	vblk_disk_check(to);
	vblk_disk_teardown(&other);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, vblk_disk_setup, vblk_disk_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_broken_driver_needs_a_reset),
		TEST(rings_outside_memory_need_a_reset),
		TEST(host_errors_are_reported),
		TEST(host_errors_may_be_ignored),
		TEST(a_full_host_disk_stops_the_guest_and_nothing_is_lost),
		TEST(what_waits_for_a_retry_is_dropped_by_a_reset),
		TEST(a_paused_guest_sees_no_progress),
		TEST(a_reset_waits_for_requests_in_flight),
		TEST(a_driver_that_does_not_poll_waits),
		TEST(the_machine_may_be_reset_at_any_moment),
		TEST(it_may_be_unplugged_with_requests_in_flight),
		TEST(it_may_be_let_go_during_a_reset),
		TEST(many_queues_in_an_iothread),
		TEST(a_polling_loop_needs_no_kicks),
		TEST(kicks_are_saved_while_it_works),
		TEST(another_device_goes_on_where_this_one_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
