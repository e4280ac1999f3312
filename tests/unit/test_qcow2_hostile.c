/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images that lie: header fields at and beyond their limits are refused in one line, and whatever
 * else is damaged at random, opening, reading, writing, checking and repairing end with an error at
 * worst.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/qcow2/check.h"
#include "block/qcow2/header.h"
#include "tests/lib/block_memdisk.h"

enum { DISK = 1 << 20, SIZE = 256 << 10 };

/* The refusal's text, or "" if it was taken. */
static const char *parse(uint8_t *buf, size_t len, uint64_t file_size)
{
	static char text[200];
	struct error *err = NULL;
	struct qcow2_header h;

	text[0] = '\0';
	if (!qcow2_header_parse(&h, buf, len, file_size, &err)) {
		snprintf(text, sizeof(text), "%s", error_message(err));
		error_free(err);
	}
	return text;
}

static uint8_t *fresh(unsigned cluster_bits, uint64_t *length)
{
	struct block_create create = {.size = SIZE, .cluster_bits = cluster_bits};
	uint8_t *image = memdisk_make_qcow2(&create, length);

	assert_non_null(image);
	return image;
}

static void expect(const char *what, size_t at, unsigned bytes, uint64_t value)
{
	uint64_t length;
	uint8_t *image = fresh(16, &length);
	const char *got;

	if (bytes == 4)
		store_be32(image + at, value);
	else
		store_be64(image + at, value);
	got = parse(image, 512, length);
	if (!strstr(got, what) || strchr(got, '\n'))
		fail_msg("at %zu: '%s' is not about '%s'", at, got, what);
	free(image);
}

static void test_header_limits(void **state)
{
	uint64_t length;
	uint8_t *image = fresh(16, &length);

	assert_string_equal(parse(image, 512, length), "");
	assert_string_equal(parse(image, 103, length), "Image is not in qcow2 format");
	free(image);
	expect("not in qcow2", 0, 4, 0x514649fa);
	expect("version 4", 4, 4, 4);
	expect("cluster size", 20, 4, 8);
	expect("cluster size", 20, 4, 22);
	expect("cluster size", 20, 4, UINT32_MAX);
}

static void test_tables(void **state)
{
	expect("L1 table too large", QCOW2_OFF_L1_SIZE, 4, UINT32_MAX);
	expect("L1 table is too small", QCOW2_OFF_L1_SIZE, 4, 0);
	expect("L1 table is too small", QCOW2_OFF_SIZE, 8, UINT64_C(1) << 62);
	expect("L1 table is too small", QCOW2_OFF_SIZE, 8, UINT64_MAX);
	expect("L1 table offset invalid", QCOW2_OFF_L1, 8, 12345);
	expect("L1 table offset invalid", QCOW2_OFF_L1, 8, UINT64_MAX << 16);
	expect("L1 table lies outside", QCOW2_OFF_L1, 8, UINT64_C(1) << 40);
	expect("L1 table lies outside", QCOW2_OFF_L1, 8, 0);
	expect("count table offset invalid", QCOW2_OFF_REFTABLE, 8, 1);
	expect("count table lies outside", QCOW2_OFF_REFTABLE, 8, UINT64_C(1) << 40);
	expect("count table too large", QCOW2_OFF_REFTABLE_CLUSTERS, 4, UINT32_MAX);
	expect("not contain a reference count table", QCOW2_OFF_REFTABLE_CLUSTERS, 4, 0);
	expect("Too many snapshots", 60, 4, UINT32_MAX);
	expect("Reference count entry width", 96, 4, 7);
	expect("too short", 100, 4, 72);
	expect("exceeds cluster size", 100, 4, 65544);
}

static void test_backing(void **state)
{
	uint64_t length;
	uint8_t *image = fresh(16, &length);

	store_be64(image + 8, 512);
	store_be32(image + 16, 2000);
	assert_string_equal(parse(image, 512, length), "Backing file name too long");
	store_be32(image + 16, UINT32_MAX);
	assert_string_equal(parse(image, 512, length), "Invalid backing file offset");
	store_be64(image + 8, UINT64_MAX - 5);
	store_be32(image + 16, 10);
	assert_string_equal(parse(image, 512, length), "Invalid backing file offset");
	store_be64(image + 8, 4);
	assert_string_equal(parse(image, 512, length), "Invalid backing file offset");
	free(image);
}

static void use(struct block_node *node, unsigned *seed)
{
	uint8_t *buf = xmalloc(SIZE);

	block_pread(node, 0, buf, MIN(block_length(node), (uint64_t)SIZE));
	for (int i = 0; i < 12; i++) {
		uint64_t bytes = 1 + rand_r(seed) % 9000, at = rand_r(seed) % (SIZE - 9000);

		if (at + bytes > block_length(node))
			continue;
		switch (rand_r(seed) % 5) {
		case 0:
			block_pread(node, at, buf, bytes);
			break;
		case 1:
			block_zero(node, at, bytes, BLOCK_MAY_UNMAP);
			break;
		case 2:
			block_discard(node, at, bytes);
			break;
		default:
			block_pwrite(node, at, buf, bytes, rand_r(seed) % 8 ? 0 : BLOCK_FUA);
		}
	}
	block_flush(node);
	free(buf);
}

/* A used image, so that there is something to damage. */
static uint8_t *used(struct evloop *loop, unsigned cluster_bits, uint64_t *length)
{
	uint8_t *image = fresh(cluster_bits, length), *copy = xmalloc(DISK);
	struct memdisk *disk = memdisk_new(loop, image, *length, DISK);
	struct block_node *node = memdisk_open(disk, "qcow2", NULL, BLOCK_OPEN_RDWR, NULL);
	unsigned seed = 4;

	use(node, &seed);
	block_unref(node);
	memcpy(copy, disk->data, DISK);
	*length = disk->node->length;
	memdisk_free(disk);
	free(image);
	return copy;
}

static const uint8_t nasty[] = {0, 1, 2, 0x7f, 0x80, 0xc0, 0xff, 0x40, 0x41};

static void damage(uint8_t *image, uint64_t length, unsigned cluster_bits, unsigned *seed)
{
	uint64_t cluster = UINT64_C(1) << cluster_bits;
	/* Header, refcount table and block, L1 and the first L2 tables lie in front. */
	uint64_t front = MIN(length, 8 * cluster);

	for (unsigned n = 1 + rand_r(seed) % 6; n; n--) {
		uint64_t at = rand_r(seed) % (rand_r(seed) % 3 ? front : 112);

		if (rand_r(seed) % 2 && at + 8 <= front) {
			/* An entry that points somewhere on the disk: onto other metadata, mostly.
			 */
			at &= ~UINT64_C(7);
			store_be64(image + at, (rand_r(seed) % 12) * cluster |
						       (uint64_t)(rand_r(seed) % 2) << 63 |
						       (uint64_t) !(rand_r(seed) % 4) << 62);
		} else {
			image[at] = nasty[rand_r(seed) % sizeof(nasty)];
		}
	}
}

static void try_image(struct evloop *loop, const uint8_t *image, uint64_t length, unsigned seed)
{
	static const uint32_t flags[] = {BLOCK_OPEN_RDWR, 0, BLOCK_OPEN_RDWR | BLOCK_OPEN_CHECK};
	struct block_check result;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		struct memdisk *disk = memdisk_new(loop, image, length, DISK);
		struct error *err = NULL;
		struct block_node *node = memdisk_open(disk, "qcow2", NULL,
						       flags[i] | BLOCK_OPEN_NO_BACKING, &err);

		if (!node) {
			assert_non_null(err);
			assert_null(strchr(error_message(err), '\n'));
			error_free(err);
		} else if (flags[i] & BLOCK_OPEN_CHECK) {
			qcow2_check(node, BLOCK_FIX_ALL, &result, NULL, NULL);
			qcow2_check(node, 0, &result, NULL, NULL);
			use(node, &seed);
			block_unref(node);
		} else {
			qcow2_check(node, 0, &result, NULL, NULL);
			use(node, &seed);
			block_unref(node);
		}
		memdisk_free(disk);
	}
}

static void test_random_damage(void **state)
{
	static const unsigned bits[] = {9, 12};
	struct evloop *loop = evloop_new(NULL, NULL);
	int quiet = open("/dev/null", O_WRONLY), saved = dup(2);
	unsigned seed = 1;

	dup2(quiet, 2); /* "Marking image as corrupt" a thousand times */
	for (size_t b = 0; b < ARRAY_SIZE(bits); b++) {
		uint64_t length;
		uint8_t *image = used(loop, bits[b], &length), *copy = xmalloc(DISK);

		for (int i = 0; i < 600; i++) {
			memcpy(copy, image, DISK);
			damage(copy, length, bits[b], &seed);
			try_image(loop, copy, length, i);
		}
		free(image);
		free(copy);
	}
	dup2(saved, 2);
	close(saved);
	close(quiet);
	evloop_free(loop);
}

/* Data that L2 entries put on top of the tables is not written there. */
struct heard {
	struct block_watch watch;
	unsigned count;
};

static void on_corrupted(struct block_watch *watch, const struct block_node *node,
			 const char *message)
{
	assert_string_equal(block_format(node), "qcow2");
	assert_non_null(strstr(message, "0x"));
	container_of(watch, struct heard, watch)->count++;
}

static void test_metadata_is_not_overwritten(void **state)
{
	struct heard heard = {.watch.corrupted = on_corrupted};
	struct evloop *loop = evloop_new(NULL, NULL);
	uint64_t length, l1, l2;
	uint8_t *image = used(loop, 12, &length), buf[4096];
	int quiet = open("/dev/null", O_WRONLY), saved = dup(2);

	dup2(quiet, 2);
	l1 = load_be64(image + QCOW2_OFF_L1);
	l2 = load_be64(image + l1) & UINT64_C(0x00fffffffffffe00);
	for (uint64_t victim = 0; victim <= l1; victim += 4096) {
		struct memdisk *disk;
		struct block_node *node;

		store_be64(image + l2, victim | UINT64_C(1) << 63);
		disk = memdisk_new(loop, image, length, DISK);
		node = memdisk_open(disk, "qcow2", NULL, BLOCK_OPEN_RDWR, NULL);
		assert_non_null(node);
		heard.count = 0;
		block_set_watch(node, &heard.watch);
		memset(buf, 0x55, sizeof(buf));
		if (victim)
			assert_int_equal(block_pwrite(node, 0, buf, sizeof(buf), 0), -EIO);
		else
			assert_int_equal(block_pwrite(node, 0, buf, sizeof(buf), 0), 0);
		assert_int_equal(heard.count, victim != 0);
		block_unref(node);
		assert_memory_not_equal(disk->data + victim, buf, sizeof(buf));
		memdisk_free(disk);
	}
	dup2(saved, 2);
	close(saved);
	close(quiet);
	free(image);
	evloop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header_limits),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_backing),
		cmocka_unit_test(test_random_damage),
		cmocka_unit_test(test_metadata_is_not_overwritten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
