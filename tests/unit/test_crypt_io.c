/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to an encrypted disk that completes in random order: parts of one sector written side by
 * side, more requests than there are buffers, vectors that are cut anywhere, a disk that fails.
 * What is read must be what a plain disk would hold, and nothing of it may be seen in the file.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/crypt/luks.h"
#include "tests/lib/block_memdisk.h"
#include "tests/lib/crypt_secret.h"

enum { SIZE = 6 << 20, SLOTS = 200, VECTORS = 3 };

struct bench {
	struct evloop *loop;
	struct objects *secrets;
	struct memdisk *disk;
	struct block_node *node;
	uint8_t *model;
	unsigned busy, failed;
};

struct slot {
	struct bench *b;
	struct block_req *req;
	uint8_t *buf;
	struct iovec iov[VECTORS];
	bool busy;
};

static void setup(struct bench *b)
{
	struct opts opts = {0};
	struct error *err = NULL;
	struct luks_params p;
	uint64_t payload;
	uint8_t *header;
	size_t len;

	*b = (struct bench){.loop = evloop_new(NULL, NULL), .secrets = crypt_secrets()};
	opts_add(&opts, "key-secret", "s");
	opts_add(&opts, "iter-time", "1");
	assert_true(luks_params_read(&p, &opts, "", b->secrets, NULL));
	payload = luks_params_payload(&p);
	header = luks_make(&p, &len, NULL);
	assert_non_null(header);
	b->disk = memdisk_new(b->loop, NULL, payload + SIZE, payload + SIZE);
	memcpy(b->disk->data, header, len);
	b->disk->objects = b->secrets;
	b->disk->seed = 3;
	free(header);
	opts_free(&opts);
	b->node = memdisk_open(b->disk, "luks", NULL, BLOCK_OPEN_RDWR, &err);
	if (!b->node)
		fail_msg("%s", error_message(err));
	assert_int_equal(block_length(b->node), SIZE);
	b->model = calloc(1, SIZE);
	assert_int_equal(block_zero(b->node, 0, SIZE, 0), 0);
}

static void teardown(struct bench *b)
{
	block_unref(b->node);
	memdisk_free(b->disk);
	objects_free(b->secrets);
	evloop_free(b->loop);
	free(b->model);
}

static void compare(struct bench *b)
{
	uint8_t *all = malloc(SIZE);

	assert_int_equal(block_pread(b->node, 0, all, SIZE), 0);
	assert_memory_equal(all, b->model, SIZE);
	free(all);
}

static void slot_done(struct block_req *req, int ret)
{
	struct slot *s = req->ctx;

	s->busy = false;
	s->b->busy--;
	s->b->failed += ret != 0;
	if (!ret && req->op == BLOCK_READ)
		assert_memory_equal(s->buf, s->b->model + req->offset, req->bytes);
}

static bool overlaps(struct slot *slots, uint64_t at, uint64_t bytes)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].busy &&
		    ranges_overlap(at, bytes, slots[i].req->offset, slots[i].req->bytes))
			return true;
	return false;
}

static void start(struct slot *s, enum block_op op, uint64_t at, uint64_t bytes, unsigned *seed)
{
	uint64_t first = rand_r(seed) % (bytes + 1), second = rand_r(seed) % (bytes - first + 1);

	s->buf = realloc(s->buf, bytes);
	if (op == BLOCK_WRITE) {
		for (uint64_t i = 0; i < bytes; i++)
			s->buf[i] = rand_r(seed);
		memcpy(s->b->model + at, s->buf, bytes);
	} else if (op == BLOCK_WRITE_ZEROES) {
		memset(s->b->model + at, 0, bytes);
	}
	s->iov[0] = (struct iovec){s->buf, first};
	s->iov[1] = (struct iovec){s->buf + first, second};
	s->iov[2] = (struct iovec){s->buf + first + second, bytes - first - second};
	s->req->node = s->b->node;
	s->req->op = op;
	s->req->flags = op != BLOCK_READ && rand_r(seed) % 4 == 0 ? BLOCK_FUA : 0;
	s->req->offset = at;
	s->req->bytes = bytes;
	s->req->iov = op == BLOCK_WRITE_ZEROES ? NULL : s->iov;
	s->req->iovcnt = op == BLOCK_WRITE_ZEROES ? 0 : VECTORS;
	s->req->done = slot_done;
	s->req->ctx = s;
	s->busy = true;
	s->b->busy++;
	block_submit(s->req);
}

/* Requests that do not overlap, though the sectors that they touch do. */
static void run_random(struct bench *b, unsigned count, uint64_t span, uint64_t most, unsigned seed)
{
	struct slot *slots = calloc(SLOTS, sizeof(*slots));

	for (unsigned i = 0; i < SLOTS; i++) {
		slots[i].b = b;
		slots[i].req = calloc(1, block_req_size(b->node));
	}
	while (count || b->busy) {
		for (unsigned i = 0; i < SLOTS && count; i++) {
			uint64_t bytes = 1 + rand_r(&seed) % (rand_r(&seed) % 4 ? 700 : most);
			uint64_t at = rand_r(&seed) % (span - MIN(bytes, span - 1));
			unsigned what = rand_r(&seed) % 8;

			bytes = MIN(bytes, span - at);
			if (slots[i].busy || overlaps(slots, at, bytes))
				continue;
			start(&slots[i],
			      what < 4	 ? BLOCK_WRITE
			      : what < 5 ? BLOCK_WRITE_ZEROES
					 : BLOCK_READ,
			      at, bytes, &seed);
			count--;
		}
		evloop_run_once(b->loop, b->busy ? -1 : 0);
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		free(slots[i].req);
		free(slots[i].buf);
	}
	free(slots);
}

static void test_parts_of_sectors(void **state)
{
	struct bench b;

	setup(&b);
	run_random(&b, 3000, 20000, 3000, 11);
	assert_int_equal(b.failed, 0);
	compare(&b);
	teardown(&b);
}

static void test_more_than_buffers(void **state)
{
	struct bench b;

	setup(&b);
	run_random(&b, 600, SIZE, 1500000, 12);
	assert_int_equal(b.failed, 0);
	compare(&b);
	teardown(&b);
}

/* One byte of each of a sector's requests, all at once. */
static void test_single_bytes(void **state)
{
	struct slot slots[SLOTS] = {0};
	unsigned seed = 5;
	struct bench b;

	setup(&b);
	for (unsigned i = 0; i < SLOTS; i++) {
		slots[i].b = &b;
		slots[i].req = calloc(1, block_req_size(b.node));
		start(&slots[i], BLOCK_WRITE, 1000 + i * 3, 1, &seed);
	}
	while (b.busy)
		evloop_run_once(b.loop, -1);
	compare(&b);
	for (unsigned i = 0; i < SLOTS; i++) {
		free(slots[i].req);
		free(slots[i].buf);
	}
	teardown(&b);
}

/* Whatever fails, all requests end, the disk can be drained, and goes on when it works again. */
static void test_failing_disk(void **state)
{
	for (uint64_t n = 1; n < 400; n += 23) {
		struct bench b;
		uint8_t *zero = calloc(1, 1 << 20);

		setup(&b);
		b.disk->fail_at = b.disk->ops + n;
		b.disk->fail_with = -EIO;
		b.disk->fail_on = n % 2;
		memset(b.model, 0, SIZE);
		/* Reads are compared with the model only where no write may have failed: here there
		 * are none but of zeroes. */
		for (unsigned i = 0; i < 40; i++)
			block_pwrite(b.node, i * 70001, zero, 1 + i * 1000, 0);
		block_drain(b.node);
		b.disk->fail_at = 0;
		b.disk->fail_on = false;
		assert_int_equal(block_pwrite(b.node, 100, zero, 100000, BLOCK_FUA), 0);
		compare(&b);
		free(zero);
		teardown(&b);
	}
}

static void test_ciphertext(void **state)
{
	struct bench b;
	uint8_t *text;
	uint64_t payload;

	setup(&b);
	text = malloc(4096);
	payload = b.disk->size - SIZE;
	memset(text, 'A', 4096);
	assert_int_equal(block_pwrite(b.node, 8192, text, 4096, 0), 0);
	assert_null(memmem(b.disk->data, b.disk->size, "AAAAAAAA", 8));
	/* Equal sectors do not look equal. */
	assert_memory_not_equal(b.disk->data + payload + 8192, b.disk->data + payload + 8704, 512);
	/* A discard gives nothing away, and changes nothing. */
	assert_int_equal(block_discard(b.node, 8192, 4096), 0);
	memset(b.model + 8192, 'A', 4096);
	compare(&b);
	assert_int_equal(b.disk->discards, 0);
	free(text);
	teardown(&b);
}

static struct block_node *open_as(struct bench *b, bool blockdev, const char *path,
				  const char *secret, struct error **err)
{
	const struct block_names names = {.objects = b->secrets};
	struct block_node *node;
	struct opts opts = {0};

	opts_add(&opts, blockdev ? "driver" : "format", "luks");
	opts_add(&opts, blockdev ? "file.driver" : "file", blockdev ? "file" : path);
	if (blockdev)
		opts_add(&opts, "file.filename", path);
	if (secret)
		opts_add(&opts, "key-secret", secret);
	node = blockdev ? block_open_blockdev(b->loop, &opts, &names, err)
			: block_open_drive(b->loop, "d", &opts, &names, err);
	opts_free(&opts);
	return node;
}

/* As a machine opens its disks. */
static void test_drive_and_blockdev(void **state)
{
	static const char *const wrong[][2] = {
		{NULL, "key-secret"}, {"nobody", "nobody"}, {"t", "Invalid password"}};
	char path[] = "/tmp/vmm-luks-XXXXXX";
	int fd = mkstemp(path);
	struct opts opts = {0};
	struct error *err = NULL;
	struct bench b;
	struct block_create create = {.size = 1 << 20, .opts = &opts};
	uint8_t byte = 7;

	assert_true(fd >= 0);
	close(fd);
	setup(&b);
	create.objects = b.secrets;
	opts_add(&opts, "key-secret", "s");
	opts_add(&opts, "iter-time", "1");
	assert_true(block_find_driver("luks")->create(path, &create, NULL));
	opts_free(&opts);
	for (int blockdev = 0; blockdev < 2; blockdev++) {
		struct block_node *node = open_as(&b, blockdev, path, "s", &err);

		if (!node)
			fail_msg("%s", error_message(err));
		assert_int_equal(block_length(node), 1 << 20);
		assert_true(block_encrypted(node));
		assert_int_equal(block_pwrite(node, 1000 + blockdev, &byte, 1, 0), 0);
		assert_int_equal(block_pread(node, 1000, &byte, 1), 0);
		assert_int_equal(byte, 7);
		block_unref(node);
		for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
			assert_null(open_as(&b, blockdev, path, wrong[i][0], &err));
			assert_non_null(strstr(error_message(err), wrong[i][1]));
			error_free(err);
			err = NULL;
		}
	}
	unlink(path);
	teardown(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts_of_sectors), cmocka_unit_test(test_more_than_buffers),
		cmocka_unit_test(test_single_bytes),	 cmocka_unit_test(test_failing_disk),
		cmocka_unit_test(test_ciphertext),	 cmocka_unit_test(test_drive_and_blockdev),
	};

	if (!crypt_find_alg("", "aes-128", NULL))
		return 0; /* built without nettle */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
