/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A full host disk under a qcow2 image, by blkdebug's rules at each kind of write that the format
 * makes: the guest is paused, goes on after cont, and every byte it wrote is there, in an image
 * without corruptions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/driver.h"
#include "block/qcow2/check.h"
#include "hw/virtio/virtio_blk.h"
#include "tests/lib/vblk.h"
#include "vmm/core/util.h"

enum { REQUESTS = 48, BYTES = 2048, STRIDE = 40 /* sectors */ };

struct fixture {
	struct vguest g;
	struct vdriver d;
	struct drive drive;
	char path[64];
	unsigned stops;
};

static void open_drive(struct fixture *f, const char *event)
{
	struct block_create c = {.size = 4 * MiB, .cluster_bits = 12};
	struct error *err = NULL;
	struct opts opts;
	char *text;

	snprintf(f->path, sizeof(f->path), "/tmp/test_virtio_blk_errors.XXXXXX");
	close(mkstemp(f->path));
	assert_true(block_create_qcow2(f->path, &c, &err));
	/* Two different requests find the disk full. */
	text = xasprintf("driver=qcow2,discard=unmap,file.driver=blkdebug,file.image.driver=file,"
			 "file.image.filename=%s,"
			 "file.inject-error.0.event=%s,file.inject-error.0.errno=28,"
			 "file.inject-error.0.once=on,file.inject-error.0.state=1,"
			 "file.inject-error.1.event=%s,file.inject-error.1.errno=28,"
			 "file.inject-error.1.once=on,file.inject-error.1.state=2,"
			 "file.set-state.0.event=%s,file.set-state.0.state=1,"
			 "file.set-state.0.new_state=2",
			 f->path, event, event, event);
	assert_true(opts_parse(&opts, text, NULL, &err));
	f->drive = (struct drive){.id = "d0", .werror = BLOCK_ERR_ENOSPC};
	f->drive.node = block_open_blockdev(f->g.vm.loop, &opts, NULL, &err);
	if (!f->drive.node)
		fail_msg("%s", error_message(err));
	opts_free(&opts);
	free(text);
}

static void fill(uint8_t *p, unsigned i)
{
	for (unsigned k = 0; k < BYTES; k++)
		p[k] = i * 13 + k / 512 + 1;
}

/* Turns the loop until count requests have come back; a guest that was stopped is told to go on. */
static void wait_for(struct fixture *f, struct vring *r, unsigned count)
{
	for (unsigned tries = 0; count;) {
		if (vring_used(r, NULL, NULL)) {
			count--;
			continue;
		}
		assert_true(tries++ < 5000);
		evloop_run_once(f->g.vm.loop, NSEC_PER_MSEC);
		if (f->g.vm.state == RUN_STATE_IO_ERROR) {
			f->stops++;
			vm_start(&f->g.vm);
		}
	}
}

static void run_guest(struct fixture *f, struct vring *r, uint64_t buf)
{
	static struct vblk_req reqs[REQUESTS + 1];

	for (unsigned i = 0; i < REQUESTS; i++) {
		fill(vguest_ptr(&f->g, buf + i * BYTES), i);
		vblk_add(r, &reqs[i], VIRTIO_BLK_T_OUT, i * STRIDE, buf + i * BYTES, BYTES, 1,
			 true);
		if (i % 8 != 7)
			continue;
		vring_kick(r);
		wait_for(f, r, 8);
		vblk_add(r, &reqs[REQUESTS], VIRTIO_BLK_T_FLUSH, 0, 0, 0, 0, true);
		vring_kick(r);
		wait_for(f, r, 1);
		assert_int_equal(vblk_status(r, &reqs[REQUESTS]), VIRTIO_BLK_S_OK);
	}
	for (unsigned i = 0; i < REQUESTS; i++)
		assert_int_equal(vblk_status(r, &reqs[i]), VIRTIO_BLK_S_OK);
}

/* The image as another program finds it. */
static void check_image(struct fixture *f, const char *event)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct block_node *node = block_open_file(loop, f->path, "qcow2", 0, NULL, NULL);
	uint8_t want[BYTES], got[BYTES];
	struct block_check result;

	assert_non_null(node);
	assert_int_equal(qcow2_check(node, 0, &result, NULL, NULL), 0);
	if (result.corruptions)
		fail_msg("%s: %u corruptions", event, (unsigned)result.corruptions);
	for (unsigned i = 0; i < REQUESTS; i++) {
		fill(want, i);
		assert_int_equal(block_pread(node, i * STRIDE * 512, got, BYTES), 0);
		if (memcmp(want, got, BYTES))
			fail_msg("%s: request %u was lost", event, i);
	}
	block_unref(node);
	evloop_free(loop);
}

static void play(const char *event)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct vring *r;
	uint64_t buf;

	vguest_init(&f->g);
	open_drive(f, event);
	vguest_object(&f->g, "d0", &f->drive);
	buf = vguest_alloc(&f->g, REQUESTS * BYTES, 4096);
	vguest_add(&f->g, &virtio_blk_pci_desc, "drive=d0", NULL);
	vguest_boot(&f->g);
	vdriver_open(&f->d, &f->g, f->g.vm.devices, false);
	vdriver_reset(&f->d);
	vdriver_negotiate(&f->d, UINT64_MAX);
	r = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	run_guest(f, r, buf);
	if (!f->stops)
		fail_msg("%s: the disk was never full", event);
	device_free(f->g.vm.devices);
	block_unref(f->drive.node);
	vguest_destroy(&f->g);
	check_image(f, event);
	unlink(f->path);
	free(f);
}

static void nothing_is_lost(void **state)
{
	static const char *const events[] = {
		"cluster_alloc", "write_aio",	    "l2_alloc.write", "l1_update", "l2_update",
		"refblock_load", "refblock_update", "flush_to_os",    "pwritev",   "flush_to_disk",
	};

	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		play(events[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
