/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk driven through its registers and rings, over a disk in memory: negotiation and
 * configuration, requests, merging, the write cache. The rest: test_virtio_blk_life.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/lib/vblk_disk.h"

enum { CONFIG_WRITEBACK = 32 };

/* ---- negotiation and configuration ---- */

static void features_and_status(void **state)
{
	struct vblk_disk *f = *state;
	struct vdriver *d = &f->d;
	uint64_t offered;

	vblk_disk_add(f, NULL);
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
	struct vblk_disk *f = *state;
	struct vdriver *d = &f->d;

	vblk_disk_add(f, "logical_block_size=1024,physical_block_size=4096,min_io_size=4096,opt_io_"
			 "size=65536,"
			 "num-queues=3,queue-size=128,max-discard-sectors=1000");
	vdriver_open(d, &f->g, f->dev, false);
	assert_int_equal(vdriver_config_read(d, 0, 8), VBLK_DISK_SIZE / 512);
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
	struct vblk_disk *f = *state;

	f->g.vm.cpu_count = 6;
	vblk_disk_add(f, NULL);
	vdriver_open(&f->d, &f->g, f->dev, false);
	assert_int_equal(vguest_in(&f->g, false, f->d.common + 18, 2), 6);
	assert_int_equal(f->d.pci->msix.count, 7);
}

static void bad_properties_are_refused(void **state)
{
	struct vblk_disk *f = *state;
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
	vblk_disk_start(f, NULL);
	vblk_disk_check(f);
}

static void the_size_may_change(void **state)
{
	struct vblk_disk *f = *state;
	uint8_t generation;

	vblk_disk_start(f, NULL);
	generation = vguest_in(&f->g, false, f->d.common + 21, 1);
	fake_block_resize(f->node, 2 * VBLK_DISK_SIZE + 512);
	assert_int_equal(f->g.msi[0], 1);
	assert_int_not_equal(vguest_in(&f->g, false, f->d.common + 21, 1), generation);
	assert_int_equal(vdriver_config_read(&f->d, 0, 4), 2 * VBLK_DISK_SIZE / 512 + 1);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 2 * VBLK_DISK_SIZE / 512, f->buf, 512), 0);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 2 * VBLK_DISK_SIZE / 512 + 1, f->buf, 512),
			 1);
}

/* ---- requests ---- */

static void every_kind_of_request(void **state)
{
	struct vblk_disk *f = *state;
	uint8_t *buf = vguest_ptr(&f->g, f->buf);
	struct fake_seen *last;
	uint32_t len;
	struct vblk_req req;

	vblk_disk_start(f, NULL);
	vblk_disk_check(f);
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
	struct vblk_disk *f = *state;
	uint8_t *buf = vguest_ptr(&f->g, f->buf);
	uint64_t end = VBLK_DISK_SIZE / 512;
	unsigned before;

	vblk_disk_start(f, "logical_block_size=1024,max-discard-sectors=16");
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
		{{VBLK_DISK_SIZE / 512, 2, 0}, 16, 1, 1},
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
	struct vblk_disk *f = *state;

	f->node->read_only = true;
	vblk_disk_start(f, NULL);
	assert_true(f->d.features & VIRTIO_BLK_F_RO);
	assert_false(f->d.features & (VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES));
	vblk_disk_check(f);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_OUT, 0, f->buf, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_DISCARD, 0, f->buf, 16), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(fake_block_count(f->node, BLOCK_WRITE), 0);
}

static void pieces_and_tables(void **state)
{
	struct vblk_disk *f = *state;
	struct vblk_req req;

	vblk_disk_start(f, NULL);
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
	struct vblk_disk *f = *state;
	uint64_t h = vguest_alloc(&f->g, 4096, 4096);
	uint8_t *p = vguest_ptr(&f->g, h);
	/* The header in three, with data in the last; then in the other direction data and status
	 * in one. */
	struct vbuf out[] = {{h, 1}, {h + 1, 10}, {h + 11, 5 + 100}, {h + 116, 412}, {h + 4000, 1}};
	struct vbuf in[] = {{h, 16}, {h + 1024, 200}, {h + 1224, 313}};

	vblk_disk_start(f, NULL);
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
	struct vblk_disk *f = *state;
	static struct vblk_req reqs[1024];
	uint16_t head;

	vblk_disk_start(f, "queue-size=1024,request-merging=off");
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
	struct vblk_disk *f = *state;
	struct vblk_req reqs[8];
	static const uint64_t sectors[8] = {10, 11, 12, 14, 15, 30, 31, 31};

	vblk_disk_start(f, NULL);
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
	struct vblk_disk *f = *state;
	struct vblk_req reqs[4];

	vblk_disk_start(f, NULL);
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
	struct vblk_disk *f = *state;
	struct vblk_req reqs[8];

	f->node->limits.max_transfer = 1024;
	f->node->limits.max_iov = 3;
	vblk_disk_start(f, NULL);
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

/* ---- the write cache ---- */

static void the_guest_switches_the_write_cache(void **state)
{
	struct vblk_disk *f = *state;

	vblk_disk_start(f, NULL);
	assert_true(f->node->writeback);
	vdriver_config_write(&f->d, CONFIG_WRITEBACK, 0, 1);
	vguest_settle(&f->g);
	assert_false(f->node->writeback);
	assert_int_equal(vdriver_config_read(&f->d, CONFIG_WRITEBACK, 1), 0);
	vdriver_config_write(&f->d, 0, 0, 4); /* the capacity is not for writing */
	assert_int_equal(vdriver_config_read(&f->d, 0, 4), VBLK_DISK_SIZE / 512);
	vdriver_reset(&f->d);
	vguest_settle(&f->g);
	assert_true(f->node->writeback);
}

static void drivers_that_cannot_flush_need_not(void **state)
{
	struct vblk_disk *f = *state;

	vblk_disk_add(f, NULL);
	vblk_disk_drive(f, false, 0, false);
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
	struct vblk_disk *f = *state;

	vblk_disk_start(f, "write-cache=off,config-wce=off");
	assert_false(f->d.features & (VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE));
	assert_false(f->node->writeback);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, vblk_disk_setup, vblk_disk_teardown)

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
		TEST(the_guest_switches_the_write_cache),
		TEST(drivers_that_cannot_flush_need_not),
		TEST(write_cache_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
