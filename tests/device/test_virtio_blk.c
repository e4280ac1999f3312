/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk driven through its registers and rings, over a disk in memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hw/virtio/virtio_blk.h"
#include "tests/lib/fake_block.h"
#include "tests/lib/state_copy.h"
#include "tests/lib/vblk.h"

enum { DISK = 8 << 20, CONFIG_WRITEBACK = 32 };
#define ALL_FEATURES UINT64_MAX

struct fixture {
	struct vguest g;
	struct vdriver d;
	struct drive drive;
	struct block_node *node;
	struct iothread *iothread;
	struct device *dev;
	struct vring *q;
	uint64_t buf; /* 1 MiB of guest memory */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	vguest_init(&f->g);
	f->node = fake_block_new(f->g.vm.loop, DISK);
	for (unsigned i = 0; i < DISK; i++)
		f->node->data[i] = i / 512 + i;
	f->drive = (struct drive){.id = "d0",
				  .node = f->node,
				  .rerror = BLOCK_ERR_REPORT,
				  .werror = BLOCK_ERR_ENOSPC,
				  .serial = "SERIAL"};
	vguest_object(&f->g, "d0", &f->drive);
	f->buf = vguest_alloc(&f->g, MiB, 4096);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vguest_destroy(&f->g);
	assert_null(f->drive.taken_by);
	assert_int_equal(f->node->refs, 1);
	block_unref(f->node);
	if (f->iothread)
		iothread_free(f->iothread);
	free(f);
	return 0;
}

static void add(struct fixture *f, const char *props)
{
	char all[256];

	snprintf(all, sizeof(all), "drive=d0%s%s", props ? "," : "", props ? props : "");
	f->dev = vguest_add(&f->g, &virtio_blk_pci_desc, all, NULL);
	vguest_boot(&f->g);
}

static void drive_it(struct fixture *f, bool legacy, uint64_t features, bool msix)
{
	vdriver_open(&f->d, &f->g, f->dev, legacy);
	vdriver_reset(&f->d);
	if (msix)
		vdriver_enable_msix(&f->d, 2);
	vdriver_negotiate(&f->d, features);
	if (msix)
		vdriver_config_vector(&f->d, 0);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	vguest_settle(&f->g);
}

static void start(struct fixture *f, const char *props)
{
	add(f, props);
	drive_it(f, false, ALL_FEATURES, true);
}

/* Another ring, as after a reset. */
static void restart(struct fixture *f)
{
	vdriver_negotiate(&f->d, ALL_FEATURES);
	if (f->d.msix)
		vdriver_config_vector(&f->d, 0);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	vguest_settle(&f->g);
}

static void check_works(struct fixture *f)
{
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 7, f->buf, 512), VIRTIO_BLK_S_OK);
	assert_memory_equal(vguest_ptr(&f->g, f->buf), f->node->data + 7 * 512, 512);
}

/* ---- negotiation and configuration ---- */

static void features_and_status(void **state)
{
	struct fixture *f = *state;
	struct vdriver *d = &f->d;
	uint64_t offered;

	add(f, NULL);
	vdriver_open(d, &f->g, f->dev, false);
	offered = vdriver_offered(d);
	assert_true(offered & VIRTIO_F_VERSION_1);
	assert_true(offered & VIRTIO_F_EVENT_IDX);
	assert_true(offered & VIRTIO_F_INDIRECT_DESC);
	assert_false(offered & (VIRTIO_LEGACY_FEATURES | VIRTIO_F_ACCESS_PLATFORM));
	assert_true(offered & VIRTIO_BLK_F_FLUSH);
	assert_true(offered & VIRTIO_BLK_F_CONFIG_WCE);
	assert_true(offered & VIRTIO_BLK_F_DISCARD);
	assert_true(offered & VIRTIO_BLK_F_WRITE_ZEROES);
	assert_false(offered & (VIRTIO_BLK_F_RO | VIRTIO_BLK_F_MQ));

	/* A driver that wants what was not offered, or no VERSION_1, is refused. */
	vdriver_set_status(d, 1);
	vdriver_set_status(d, 3);
	vdriver_write_features(d, VIRTIO_F_VERSION_1 | VIRTIO_BLK_F_RO);
	vdriver_set_status(d, 11);
	assert_int_equal(vdriver_status(d), 3);
	vdriver_write_features(d, VIRTIO_BLK_F_FLUSH);
	vdriver_set_status(d, 11);
	assert_int_equal(vdriver_status(d), 3);
	/* DRIVER_OK needs FEATURES_OK. */
	vdriver_set_status(d, 7);
	assert_int_equal(vdriver_status(d), 3);
	vdriver_write_features(d, VIRTIO_F_VERSION_1 | VIRTIO_BLK_F_FLUSH);
	vdriver_set_status(d, 11);
	assert_int_equal(vdriver_status(d), 11);
	/* The choice is final. */
	vdriver_write_features(d, VIRTIO_F_VERSION_1);
	vguest_out(&f->g, false, d->common + 8, 0, 4);
	assert_int_equal(vguest_in(&f->g, false, d->common + 12, 4), VIRTIO_BLK_F_FLUSH);
	vdriver_set_status(d, 0);
	assert_int_equal(vdriver_status(d), 0);
	assert_int_equal(vguest_in(&f->g, false, d->common + 12, 4), 0);
}

static void configuration_space(void **state)
{
	struct fixture *f = *state;
	struct vdriver *d = &f->d;

	add(f,
	    "logical_block_size=1024,physical_block_size=4096,min_io_size=4096,opt_io_size=65536,"
	    "num-queues=3,queue-size=128,max-discard-sectors=1000");
	vdriver_open(d, &f->g, f->dev, false);
	assert_int_equal(vdriver_config_read(d, 0, 8), DISK / 512);
	assert_int_equal(vdriver_config_read(d, 4, 4), 0);
	assert_int_equal(vdriver_config_read(d, 12, 4), 126);
	assert_int_equal(vdriver_config_read(d, 20, 4), 1024);
	assert_int_equal(vdriver_config_read(d, 24, 1), 2);
	assert_int_equal(vdriver_config_read(d, 26, 2), 4);
	assert_int_equal(vdriver_config_read(d, 28, 4), 64);
	assert_int_equal(vdriver_config_read(d, 32, 1), 1);
	assert_int_equal(vdriver_config_read(d, 34, 2), 3);
	assert_int_equal(vdriver_config_read(d, 36, 4), 1000);
	assert_int_equal(vdriver_config_read(d, 40, 4), 1);
	assert_int_equal(vdriver_config_read(d, 44, 4), 8);
	assert_int_equal(vdriver_config_read(d, 48, 4), 4194303);
	assert_int_equal(vdriver_config_read(d, 52, 4), 1);
	assert_int_equal(vdriver_config_read(d, 56, 1), 1);
	assert_int_equal(vdriver_config_read(d, 60, 4), 0xffffffff); /* the end */
	assert_int_equal(vguest_in(&f->g, false, d->common + 18, 2), 3);
	assert_int_equal(vguest_in(&f->g, false, d->common + 24, 2), 128);
	assert_true(vdriver_offered(d) & VIRTIO_BLK_F_MQ);
	/* A queue that is not there. */
	vguest_out(&f->g, false, d->common + 22, 3, 2);
	assert_int_equal(vguest_in(&f->g, false, d->common + 24, 2), 0);
	vguest_out(&f->g, false, d->common + 28, 1, 2);
	assert_int_equal(vguest_in(&f->g, false, d->common + 28, 2), 0);
	assert_int_equal(vguest_in(&f->g, false, d->common + 26, 2), VIRTIO_NO_VECTOR);
}

static void number_of_queues_follows_the_cpus(void **state)
{
	struct fixture *f = *state;

	f->g.vm.cpu_count = 6;
	add(f, NULL);
	vdriver_open(&f->d, &f->g, f->dev, false);
	assert_int_equal(vguest_in(&f->g, false, f->d.common + 18, 2), 6);
	assert_int_equal(f->d.pci->msix.count, 7);
}

static void bad_properties_are_refused(void **state)
{
	struct fixture *f = *state;
	static const char *const bad[] = {
		"queue-size=100,drive=d0",
		"queue-size=2048,drive=d0",
		"logical_block_size=100,drive=d0",
		"logical_block_size=4096,physical_block_size=512,drive=d0",
		"opt_io_size=100,drive=d0",
		"discard_granularity=100,drive=d0",
		"disable-legacy=on,disable-modern=on,drive=d0",
		"iommu_platform=on,drive=d0",
		"vectors=5000,drive=d0",
		"num-queues=2000,drive=d0",
		"werror=perhaps,drive=d0",
		"serial=x",
		"drive=nothing",
		"drive=empty",
		"drive=taken",
	};
	struct drive empty = {.id = "empty"};
	struct drive taken = {.id = "taken", .node = f->node, .taken_by = "somebody"};

	vguest_object(&f->g, "empty", &empty);
	vguest_object(&f->g, "taken", &taken);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error *err = NULL;

		if (vguest_add(&f->g, &virtio_blk_pci_desc, bad[i], &err))
			fail_msg("%s was accepted", bad[i]);
		assert_non_null(err);
		error_free(err);
		assert_null(f->drive.taken_by);
		assert_int_equal(f->node->refs, 1);
	}
	start(f, NULL);
	check_works(f);
}

static void the_size_may_change(void **state)
{
	struct fixture *f = *state;
	uint8_t generation;

	start(f, NULL);
	generation = vguest_in(&f->g, false, f->d.common + 21, 1);
	fake_block_resize(f->node, 2 * DISK + 512);
	assert_int_equal(f->g.msi[0], 1);
	assert_int_not_equal(vguest_in(&f->g, false, f->d.common + 21, 1), generation);
	assert_int_equal(vdriver_config_read(&f->d, 0, 4), 2 * DISK / 512 + 1);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 2 * DISK / 512, f->buf, 512), 0);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 2 * DISK / 512 + 1, f->buf, 512), 1);
}

/* ---- requests ---- */

static void every_kind_of_request(void **state)
{
	struct fixture *f = *state;
	uint8_t *buf = vguest_ptr(&f->g, f->buf);
	struct fake_seen *last;
	uint32_t len;
	struct vblk_req req;

	start(f, NULL);
	check_works(f);
	memset(buf, 0x5a, 4096);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_OUT, 100, f->buf, 4096), VIRTIO_BLK_S_OK);
	assert_memory_equal(f->node->data + 51200, buf, 4096);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(fake_block_count(f->node, BLOCK_FLUSH), 1);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_GET_ID, 0, f->buf, 20), VIRTIO_BLK_S_OK);
	assert_memory_equal(buf, "SERIAL\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_GET_ID, 0, f->buf, 19), VIRTIO_BLK_S_IOERR);

	struct virtio_blk_range range = {.sector = 200, .num_sectors = 8};
	memcpy(buf, &range, sizeof(range));
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_DISCARD, 0, f->buf, 16), VIRTIO_BLK_S_OK);
	last = &f->node->seen[f->node->seen_count - 1];
	assert_int_equal(last->op, BLOCK_DISCARD);
	assert_int_equal(last->offset, 200 * 512);
	assert_int_equal(last->bytes, 4096);
	assert_int_equal(last->iovcnt, 0);
	range.flags = VIRTIO_BLK_RANGE_UNMAP;
	memcpy(buf, &range, sizeof(range));
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_WRITE_ZEROES, 0, f->buf, 16), VIRTIO_BLK_S_OK);
	last = &f->node->seen[f->node->seen_count - 1];
	assert_int_equal(last->op, BLOCK_WRITE_ZEROES);
	assert_int_equal(last->flags, BLOCK_MAY_UNMAP);
	assert_int_equal(f->node->data[200 * 512], 0);

	/* What used lengths say. */
	vring_recycle(f->q);
	vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 0, f->buf, 1024, 2, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_true(vring_used(f->q, NULL, &len));
	assert_int_equal(len, 1025);
}

static void requests_are_checked(void **state)
{
	struct fixture *f = *state;
	uint8_t *buf = vguest_ptr(&f->g, f->buf);
	uint64_t end = DISK / 512;
	unsigned before;

	start(f, "logical_block_size=1024,max-discard-sectors=16");
	before = f->node->seen_count;
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, end, f->buf, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, end - 2, f->buf, 2048), VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_OUT, UINT64_MAX, f->buf, 1024),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_OUT, UINT64_MAX / 512 + 1, f->buf, 1024),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 1, f->buf, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 2, f->buf, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 2, f->buf, 1000), VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 2, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(vblk_do(f->q, 99, 0, f->buf, 512), VIRTIO_BLK_S_UNSUPP);
	static const struct {
		struct virtio_blk_range range;
		uint32_t len;
		uint8_t discard, zeroes;
	} ranges[] = {
		{{0, 0, 0}, 16, 0, 0},
		{{0, 18, 0}, 16, 1, 0},
		{{1, 2, 0}, 16, 1, 1},
		{{DISK / 512, 2, 0}, 16, 1, 1},
		{{UINT64_MAX, UINT32_MAX, 0}, 16, 1, 1},
		{{0, 2, 1}, 16, 2, 0},
		{{0, 2, 2}, 16, 2, 2},
		{{0, 2, 0}, 15, 2, 2},
		{{0, 2, 0}, 32, 2, 2},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
		memcpy(buf, &ranges[i].range, 16);
		assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_DISCARD, 0, f->buf, ranges[i].len),
				 ranges[i].discard);
		assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_WRITE_ZEROES, 0, f->buf, ranges[i].len),
				 ranges[i].zeroes);
	}
	assert_int_equal(f->node->seen_count, before + 2);
	assert_int_equal(vdriver_status(&f->d), 15);
}

static void a_read_only_disk_is_not_written(void **state)
{
	struct fixture *f = *state;

	f->node->read_only = true;
	start(f, NULL);
	assert_true(f->d.features & VIRTIO_BLK_F_RO);
	assert_false(f->d.features & (VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES));
	check_works(f);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_OUT, 0, f->buf, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_DISCARD, 0, f->buf, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(fake_block_count(f->node, BLOCK_WRITE), 0);
}

static void pieces_and_tables(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;

	start(f, NULL);
	for (int indirect = 0; indirect < 2; indirect++) {
		memset(vguest_ptr(&f->g, f->buf), 0, 131072);
		vring_recycle(f->q);
		vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 64, f->buf, 131072, 100, indirect);
		vring_kick(f->q);
		vguest_settle(&f->g);
		assert_int_equal(vblk_status(f->q, &req), VIRTIO_BLK_S_OK);
		assert_memory_equal(vguest_ptr(&f->g, f->buf), f->node->data + 64 * 512, 131072);
		assert_true(vring_used(f->q, NULL, NULL));
	}
}

/* Nothing says how a request is divided into descriptors. */
static void any_layout(void **state)
{
	struct fixture *f = *state;
	uint64_t h = vguest_alloc(&f->g, 4096, 4096);
	uint8_t *p = vguest_ptr(&f->g, h);
	/* The header in three, with data in the last; then in the other direction data and status
	 * in one. */
	struct vbuf out[] = {{h, 1}, {h + 1, 10}, {h + 11, 5 + 100}, {h + 116, 412}, {h + 4000, 1}};
	struct vbuf in[] = {{h, 16}, {h + 1024, 200}, {h + 1224, 313}};

	start(f, NULL);
	store_le32(p, VIRTIO_BLK_T_OUT);
	store_le64(p + 8, 9);
	memset(p + 16, 0x77, 512);
	p[4000] = VBLK_PENDING;
	vring_add(f->q, out, 4, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(p[4000], VIRTIO_BLK_S_OK);
	assert_memory_equal(f->node->data + 9 * 512, p + 16, 512);
	store_le32(p, VIRTIO_BLK_T_IN);
	p[1536] = VBLK_PENDING;
	vring_add(f->q, in, 1, 2, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(p[1536], VIRTIO_BLK_S_OK);
	assert_memory_equal(f->node->data + 9 * 512, p + 1024, 512);
}

static void a_queue_1024_deep(void **state)
{
	struct fixture *f = *state;
	static struct vblk_req reqs[1024];
	uint16_t head;

	start(f, "queue-size=1024,request-merging=off");
	assert_int_equal(f->q->size, 1024);
	f->node->hold = true;
	for (int i = 0; i < 1024; i++)
		vblk_add(f->q, &reqs[i], VIRTIO_BLK_T_IN, i, f->buf + 512 * i, 512, 1, true);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(f->node->seen_count, 1024);
	assert_int_equal(f->g.msi[1], 0);
	f->node->hold = false;
	fake_block_release(f->node, 1024);
	vguest_settle(&f->g);
	assert_int_equal(f->g.msi[1], 1); /* all in one batch */
	for (int i = 0; i < 1024; i++) {
		assert_true(vring_used(f->q, &head, NULL));
		assert_int_equal(head, i);
		assert_int_equal(vblk_status(f->q, &reqs[i]), VIRTIO_BLK_S_OK);
	}
	assert_memory_equal(vguest_ptr(&f->g, f->buf), f->node->data, 1024 * 512);
}

/* ---- merging ---- */

static void neighbours_are_joined(void **state)
{
	struct fixture *f = *state;
	struct vblk_req reqs[8];
	static const uint64_t sectors[8] = {10, 11, 12, 14, 15, 30, 31, 31};

	start(f, NULL);
	for (int i = 0; i < 8; i++)
		vblk_add(f->q, &reqs[i], VIRTIO_BLK_T_IN, sectors[i], f->buf + 512 * i, 512,
			 i % 2 + 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(f->node->seen_count, 4);
	assert_int_equal(f->node->seen[0].bytes, 3 * 512);
	assert_int_equal(f->node->seen[0].iovcnt, 4);
	assert_int_equal(f->node->seen[1].bytes, 2 * 512);
	assert_int_equal(f->node->seen[2].bytes, 2 * 512);
	assert_int_equal(f->node->seen[3].bytes, 512);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(vblk_status(f->q, &reqs[i]), VIRTIO_BLK_S_OK);
		assert_memory_equal(vguest_ptr(&f->g, f->buf + 512 * i),
				    f->node->data + 512 * sectors[i], 512);
	}
}

static void a_joined_request_fails_in_part(void **state)
{
	struct fixture *f = *state;
	struct vblk_req reqs[4];

	start(f, NULL);
	for (int i = 0; i < 4; i++)
		vblk_add(f->q, &reqs[i], VIRTIO_BLK_T_OUT, 10 + i, f->buf + 512 * i, 512, 1, false);
	f->node->fail_count = 2;
	f->node->fail_error = -EIO;
	f->node->fail_offset = 12 * 512;
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(f->node->seen_count, 5);
	for (int i = 0; i < 4; i++)
		assert_int_equal(vblk_status(f->q, &reqs[i]),
				 i == 2 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

static void joining_keeps_within_limits(void **state)
{
	struct fixture *f = *state;
	struct vblk_req reqs[8];

	f->node->limits.max_transfer = 1024;
	f->node->limits.max_iov = 3;
	start(f, NULL);
	assert_int_equal(vdriver_config_read(&f->d, 12, 4), 3);
	for (int i = 0; i < 8; i++)
		vblk_add(f->q, &reqs[i], VIRTIO_BLK_T_OUT, i, f->buf, 512, i < 4 ? 1 : 2, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	/* Pairs by bytes, then each alone by pieces. */
	assert_int_equal(f->node->seen_count, 6);
	for (int i = 0; i < 8; i++)
		assert_int_equal(vblk_status(f->q, &reqs[i]), VIRTIO_BLK_S_OK);
}

/* ---- failure ---- */

static void a_broken_driver_needs_a_reset(void **state)
{
	struct fixture *f = *state;
	uint64_t h = vguest_alloc(&f->g, 4096, 16);
	struct vbuf bufs[] = {{h, 15}, {h + 16, 1}, {h + 32, 16}};
	struct vblk_req req;

	start(f, NULL);
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
		restart(f);
		check_works(f);
	}
}

static void rings_outside_memory_need_a_reset(void **state)
{
	struct fixture *f = *state;

	add(f, NULL);
	vdriver_open(&f->d, &f->g, f->dev, false);
	vdriver_reset(&f->d);
	vdriver_negotiate(&f->d, ALL_FEATURES);
	vguest_out(&f->g, false, f->d.common + 36, 0xffffffff, 4);
	vguest_out(&f->g, false, f->d.common + 28, 1, 2);
	vdriver_set_status(&f->d, 15);
	vguest_settle(&f->g);
	assert_int_equal(vdriver_status(&f->d), 15 | VIRTIO_STATUS_NEEDS_RESET);
	vdriver_reset(&f->d);
	restart(f);
	check_works(f);
}

static void host_errors_are_reported(void **state)
{
	struct fixture *f = *state;

	start(f, NULL);
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
	check_works(f);
}

static void host_errors_may_be_ignored(void **state)
{
	struct fixture *f = *state;

	start(f, "rerror=ignore,werror=ignore");
	f->node->fail_count = 2;
	f->node->fail_error = -EIO;
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 0, f->buf, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_OUT, 0, f->buf, 512), VIRTIO_BLK_S_OK);
	assert_string_equal(f->g.last_event.action, "ignore");
}

static void a_full_host_disk_stops_the_guest_and_nothing_is_lost(void **state)
{
	struct fixture *f = *state;
	struct vblk_req reqs[8];

	start(f, "request-merging=off");
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
	check_works(f);
}

static void what_waits_for_a_retry_is_dropped_by_a_reset(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;

	start(f, "werror=stop");
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
	struct fixture *f = *state;
	struct vblk_req req;

	start(f, NULL);
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

static void submit_held(struct fixture *f, struct vblk_req *req)
{
	f->node->hold = true;
	vblk_add(f->q, req, VIRTIO_BLK_T_IN, 0, f->buf, 512, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_int_equal(f->node->tail - f->node->head, 1);
}

static void a_reset_waits_for_requests_in_flight(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;

	start(f, NULL);
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
	restart(f);
	check_works(f);
}

static void a_driver_that_does_not_poll_waits(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;

	start(f, NULL);
	submit_held(f, &req);
	vdriver_set_status(&f->d, 0);
	vdriver_set_status(&f->d, VIRTIO_STATUS_ACKNOWLEDGE);
	assert_int_equal(vdriver_status(&f->d), VIRTIO_STATUS_ACKNOWLEDGE);
	assert_int_equal(f->node->tail, f->node->head);
	f->node->hold = false;
	restart(f);
	check_works(f);
}

static void the_machine_may_be_reset_at_any_moment(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;

	start(f, NULL);
	submit_held(f, &req);
	vm_reset(&f->g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	assert_int_equal(f->node->tail, f->node->head);
	f->node->hold = false;
	vguest_boot(&f->g);
	vdriver_open(&f->d, &f->g, f->dev, false);
	assert_int_equal(vdriver_status(&f->d), 0);
	drive_it(f, false, ALL_FEATURES, true);
	check_works(f);
}

static void it_may_be_unplugged_with_requests_in_flight(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;

	start(f, NULL);
	submit_held(f, &req);
	device_free(f->dev);
	assert_int_equal(f->node->tail, f->node->head);
	assert_null(f->drive.taken_by);
	assert_int_equal(f->g.vm.mmio.doorbell_count, 0);
	assert_false(vring_used(f->q, NULL, NULL));
	f->node->hold = false;
	start(f, NULL);
	check_works(f);
}

static void unplug_it(void *opaque)
{
	device_unplugged(opaque);
}

/* Waiting for requests turns the loop, and something there wants to free the device. */
static void it_may_be_let_go_during_a_reset(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;
	struct ev_work work;

	start(f, NULL);
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
			start(f, NULL);
	}
}

/* ---- the write cache ---- */

static void the_guest_switches_the_write_cache(void **state)
{
	struct fixture *f = *state;

	start(f, NULL);
	assert_true(f->node->writeback);
	vdriver_config_write(&f->d, CONFIG_WRITEBACK, 0, 1);
	vguest_settle(&f->g);
	assert_false(f->node->writeback);
	assert_int_equal(vdriver_config_read(&f->d, CONFIG_WRITEBACK, 1), 0);
	vdriver_config_write(&f->d, 0, 0, 4); /* the capacity is not for writing */
	assert_int_equal(vdriver_config_read(&f->d, 0, 4), DISK / 512);
	vdriver_reset(&f->d);
	vguest_settle(&f->g);
	assert_true(f->node->writeback);
}

static void drivers_that_cannot_flush_need_not(void **state)
{
	struct fixture *f = *state;

	add(f, NULL);
	drive_it(f, false, 0, false);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_OUT, 0, f->buf, 512), VIRTIO_BLK_S_OK);
	assert_false(f->node->seen[0].writeback);
	vdriver_reset(&f->d);
	vdriver_negotiate(&f->d, VIRTIO_BLK_F_FLUSH);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_OUT, 0, f->buf, 512), VIRTIO_BLK_S_OK);
	assert_true(f->node->seen[1].writeback);
	assert_false(vdriver_config_read(&f->d, CONFIG_WRITEBACK, 1) == 0);
}

static void write_cache_off(void **state)
{
	struct fixture *f = *state;

	start(f, "write-cache=off,config-wce=off");
	assert_false(f->d.features & (VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE));
	assert_false(f->node->writeback);
}

/* ---- threads ---- */

static void many_queues_in_an_iothread(void **state)
{
	struct fixture *f = *state;
	static struct vblk_req reqs[4][64];
	struct vring *q[4];
	struct error *err = NULL;

	f->iothread = iothread_new("io0", &err);
	assert_non_null(f->iothread);
	vguest_object(&f->g, "io0", f->iothread);
	add(f, "iothread=io0,num-queues=4,request-merging=off");
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
	struct fixture *f = *state;
	struct vblk_req req;
	struct error *err = NULL;

	f->iothread = iothread_new("io0", &err);
	assert_non_null(f->iothread);
	evloop_call(f->iothread->loop, poll_long, f->iothread->loop);
	vguest_object(&f->g, "io0", f->iothread);
	add(f, "iothread=io0");
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
	struct fixture *f = *state;
	struct vblk_req req;

	start(f, NULL);
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
	struct fixture *f = *state, *to;
	static uint8_t saved[65536];
	struct error *err = NULL;
	struct vblk_req req;
	size_t len;
	void *other;

	start(f, NULL);
	check_works(f);
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

	setup(&other);
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
	check_works(to);
	teardown(&other);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(features_and_status),
		TEST(configuration_space),
		TEST(number_of_queues_follows_the_cpus),
		TEST(bad_properties_are_refused),
		TEST(the_size_may_change),
		TEST(every_kind_of_request),
		TEST(requests_are_checked),
		TEST(a_read_only_disk_is_not_written),
		TEST(pieces_and_tables),
		TEST(any_layout),
		TEST(a_queue_1024_deep),
		TEST(neighbours_are_joined),
		TEST(a_joined_request_fails_in_part),
		TEST(joining_keeps_within_limits),
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
		TEST(the_guest_switches_the_write_cache),
		TEST(drivers_that_cannot_flush_need_not),
		TEST(write_cache_off),
		TEST(many_queues_in_an_iothread),
		TEST(a_polling_loop_needs_no_kicks),
		TEST(kicks_are_saved_while_it_works),
		TEST(another_device_goes_on_where_this_one_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
