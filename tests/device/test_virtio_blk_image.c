/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk over real images: what the guest writes is in the file, on either loop. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "hw/virtio/virtio_blk.h"
#include "tests/lib/vblk.h"
#include "vmm/core/util.h"

enum { SECTORS = 8192, CHUNK = 64 };

struct fixture {
	struct vguest g;
	struct vdriver d;
	struct drive drive;
	struct iothread *iothread;
	char path[64];
	uint64_t buf;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char opts_text[160];
	struct error *err = NULL;
	struct opts opts = {0};
	int fd;

	vguest_init(&f->g);
	snprintf(f->path, sizeof(f->path), "/tmp/test_virtio_blk.XXXXXX");
	fd = mkstemp(f->path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SECTORS * 512), 0);
	close(fd);
	snprintf(opts_text, sizeof(opts_text), "file=%s,format=raw,discard=unmap", f->path);
	assert_true(opts_parse(&opts, opts_text, NULL, &err));
	f->drive = (struct drive){.id = "d0"};
	f->drive.node = block_open(f->g.vm.loop, &opts, &err);
	if (!f->drive.node)
		fail_msg("%s", error_message(err));
	opts_free(&opts);
	vguest_object(&f->g, "d0", &f->drive);
	f->buf = vguest_alloc(&f->g, MiB, 4096);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	/* The node goes before the loop that it is on. */
	device_free(f->g.vm.devices);
	block_unref(f->drive.node);
	vguest_destroy(&f->g);
	if (f->iothread)
		iothread_free(f->iothread);
	unlink(f->path);
	free(f);
	return 0;
}

static void wait_for(struct fixture *f, struct vring *r, unsigned count)
{
	for (unsigned tries = 0; count;) {
		if (vring_used(r, NULL, NULL)) {
			count--;
			continue;
		}
		assert_true(tries++ < 20000);
		evloop_run_once(f->g.vm.loop, NSEC_PER_MSEC);
	}
}

static void pattern(uint8_t *p, unsigned sector)
{
	for (unsigned i = 0; i < 512; i++)
		p[i] = sector * 7 + i;
}

static void write_and_read_back(struct fixture *f, const char *props)
{
	static struct vblk_req reqs[CHUNK];
	uint8_t *buf = vguest_ptr(&f->g, f->buf), want[512];
	struct vring *r;
	int fd;

	vguest_add(&f->g, &virtio_blk_pci_desc, props, NULL);
	vguest_boot(&f->g);
	vdriver_open(&f->d, &f->g, f->g.vm.devices, false);
	vdriver_reset(&f->d);
	vdriver_negotiate(&f->d, UINT64_MAX);
	r = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	/* Some follow one another, some do not. */
	for (int i = 0; i < CHUNK; i++) {
		pattern(buf + 512 * i, i * (i % 4 ? 1 : 3));
		vblk_add(r, &reqs[i], VIRTIO_BLK_T_OUT, i * (i % 4 ? 1 : 3), f->buf + 512 * i, 512,
			 1 + i % 3, true);
		if (i % 16 == 15) {
			vring_kick(r);
			wait_for(f, r, 16);
		}
	}
	for (int i = 0; i < CHUNK; i++)
		assert_int_equal(vblk_status(r, &reqs[i]), VIRTIO_BLK_S_OK);
	assert_int_equal(vblk_do(r, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	fd = open(f->path, O_RDONLY | O_CLOEXEC);
	for (int i = 1; i < CHUNK; i += 4) {
		assert_int_equal(pread(fd, buf, 512, 512 * i), 512);
		pattern(want, i);
		assert_memory_equal(buf, want, 512);
	}
	memset(buf, 0, 4096);
	assert_int_equal(vblk_do(r, VIRTIO_BLK_T_IN, 5, f->buf, 512), VIRTIO_BLK_S_OK);
	pattern(want, 5);
	assert_memory_equal(buf, want, 512);
	memcpy(buf, &(struct virtio_blk_range){.sector = 0, .num_sectors = 64}, 16);
	assert_int_equal(vblk_do(r, VIRTIO_BLK_T_WRITE_ZEROES, 0, f->buf, 16), VIRTIO_BLK_S_OK);
	assert_int_equal(vblk_do(r, VIRTIO_BLK_T_DISCARD, 0, f->buf, 16), VIRTIO_BLK_S_OK);
	memset(want, 0, 512);
	assert_int_equal(pread(fd, buf, 512, 512 * 5), 512);
	assert_memory_equal(buf, want, 512);
	close(fd);
	/* A reset while the host is working on a few. */
	vring_recycle(r);
	for (int i = 0; i < CHUNK; i++)
		vblk_add(r, &reqs[i], VIRTIO_BLK_T_IN, i * 8, f->buf + 512 * i, 512, 1, true);
	vring_kick(r);
	evloop_run_once(f->g.vm.loop, 0);
	vdriver_reset(&f->d);
}

static void on_the_main_loop(void **state)
{
	write_and_read_back(*state, "drive=d0");
}

static void in_an_iothread(void **state)
{
	struct fixture *f = *state;
	struct error *err = NULL;

	f->iothread = iothread_new("io0", &err);
	assert_non_null(f->iothread);
	vguest_object(&f->g, "io0", f->iothread);
	write_and_read_back(f, "drive=d0,iothread=io0");
}

static void poll_briefly(void *opaque)
{
	evloop_set_poll_ns(opaque, 100000);
}

static void in_an_iothread_that_polls(void **state)
{
	struct fixture *f = *state;
	struct error *err = NULL;

	f->iothread = iothread_new("io0", &err);
	assert_non_null(f->iothread);
	evloop_call(f->iothread->loop, poll_briefly, f->iothread->loop);
	vguest_object(&f->g, "io0", f->iothread);
	write_and_read_back(f, "drive=d0,iothread=io0,num-queues=2");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(on_the_main_loop),
		TEST(in_an_iothread),
		TEST(in_an_iothread_that_polls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
