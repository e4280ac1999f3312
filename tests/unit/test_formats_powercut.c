/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts under the foreign formats that are written: what reached the disk is every write that
 * was flushed, and any of the others. The image must open, and each sector must hold what was
 * flushed or something written since.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/create.h"
#include "tests/lib/block_memdisk.h"

enum { DISK = 4 << 20, SECTORS = DISK / 512, OPS = 120, CUTS = 150, ROOM = 8 << 20 };

struct op {
	uint32_t start, count; /* sectors; count 0: a flush */
};

struct history {
	struct op ops[OPS];
	unsigned count;
};

static uint8_t *make(const char *format, const char *options, uint64_t *length)
{
	struct opts opts = {0};
	struct block_create create = {.size = DISK, .opts = &opts};
	char path[] = "/tmp/vmm-test-XXXXXX";
	int fd = mkstemp(path);
	uint8_t *data;

	assert_true(fd >= 0 && opts_parse(&opts, options, NULL, NULL));
	assert_true(block_find_driver(format)->create(path, &create, NULL));
	*length = lseek(fd, 0, SEEK_END);
	data = xmalloc(*length);
	assert_int_equal(pread(fd, data, *length, 0), *length);
	close(fd);
	unlink(path);
	opts_free(&opts);
	return data;
}

/* The value that op i writes; 0 is what was there at first. */
static uint8_t value(unsigned i)
{
	return i + 1;
}

static void work(struct memdisk *m, const char *format, struct history *h)
{
	struct block_node *node = memdisk_open(m, format, NULL, BLOCK_OPEN_RDWR, NULL);
	unsigned seed = 7;
	uint8_t *buf = xmalloc(40 * 512);

	assert_non_null(node);
	m->record = true;
	for (unsigned i = 0; i < OPS; i++) {
		struct op *op = &h->ops[i];

		*op = (struct op){rand_r(&seed) % (SECTORS - 40), 1 + rand_r(&seed) % 40};
		if (i % 5 == 4)
			op->count = 0;
		memdisk_mark(m, i);
		memset(buf, value(i), 40 * 512);
		if (op->count)
			assert_int_equal(
				block_pwrite(node, op->start * 512, buf, op->count * 512, 0), 0);
		else
			assert_int_equal(block_flush(node), 0);
	}
	memdisk_mark(m, OPS);
	h->count = OPS;
	block_unref(node);
	m->record = false;
	free(buf);
}

/* The disk after a cut before event number cut; how many operations had begun and, of those, how
 * many lie before a flush that was done. */
static void cut_at(const struct memdisk *m, size_t cut, unsigned *seed, uint8_t *disk,
		   const struct history *h, unsigned *begun, unsigned *flushed)
{
	bool *done = xcalloc(m->next_id, 1), *durable = xcalloc(m->next_id, 1);
	bool *at_flush = xcalloc(m->next_id, 1);

	*begun = *flushed = 0;
	for (size_t i = 0; i < cut; i++) {
		const struct mem_event *e = &m->events[i];

		if (e->type == MEM_WRITE_DONE)
			done[e->id] = true;
		else if (e->type == MEM_FLUSH)
			memcpy(at_flush, done, m->next_id);
		else if (e->type == MEM_FLUSH_DONE)
			memcpy(durable, at_flush, m->next_id);
		else if (e->type == MEM_MARK) {
			*begun = MIN(e->id + 1, h->count);
			if (e->id && !h->ops[e->id - 1].count)
				*flushed = e->id;
		}
	}
	for (size_t i = 0; i < cut; i++) {
		const struct mem_event *e = &m->events[i];

		if (e->type == MEM_WRITE && (durable[e->id] || rand_r(seed) % 2))
			memcpy(disk + e->offset, e->data, e->bytes);
	}
	free(done);
	free(durable);
	free(at_flush);
}

static void verify(struct memdisk *m, uint8_t *buf, const char *format, const struct history *h,
		   unsigned begun, unsigned flushed, size_t cut)
{
	struct error *err = NULL;
	struct block_node *node = memdisk_open(m, format, NULL, 0, &err);
	uint8_t sure[SECTORS] = {0};
	bool *other = xcalloc(SECTORS, 256);

	if (!node)
		fail_msg("%s, cut at %zu: %s", format, cut, error_message(err));
	for (unsigned i = 0; i < begun; i++) {
		for (uint32_t s = h->ops[i].start; s < h->ops[i].start + h->ops[i].count; s++) {
			if (i < flushed)
				sure[s] = value(i);
			else
				other[s * 256 + value(i)] = true;
		}
	}
	assert_int_equal(block_pread(node, 0, buf, DISK), 0);
	for (uint32_t s = 0; s < SECTORS; s++)
		if (buf[s * 512] != sure[s] && !other[s * 256 + buf[s * 512]])
			fail_msg("%s, cut at %zu: sector %u holds %u instead of %u", format, cut, s,
				 buf[s * 512], sure[s]);
	block_unref(node);
	free(other);
}

static void check(const char *format, const char *options)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct history *h = xcalloc(1, sizeof(*h));
	uint8_t *start, *disk = xmalloc(ROOM), *buf = xmalloc(DISK);
	uint64_t length;
	struct memdisk *m, *after;
	unsigned seed = 1;

	start = make(format, options, &length);
	m = memdisk_new(loop, start, length, ROOM);
	m->seed = 3;
	free(start);
	/* What opening wrote belongs to the image that is cut. */
	block_unref(memdisk_open(m, format, NULL, BLOCK_OPEN_RDWR, NULL));
	start = xmalloc(ROOM);
	memcpy(start, m->data, ROOM);
	work(m, format, h);
	after = memdisk_new(loop, NULL, ROOM, ROOM);
	for (unsigned i = 0; i < CUTS; i++) {
		size_t cut = m->count * i / CUTS;
		unsigned begun, flushed;

		memcpy(disk, start, ROOM);
		cut_at(m, cut, &seed, disk, h, &begun, &flushed);
		memdisk_again(after, disk, ROOM);
		verify(after, buf, format, h, begun, flushed, cut);
	}
	memdisk_free(after);
	memdisk_free(m);
	evloop_free(loop);
	free(start);
	free(disk);
	free(buf);
	free(h);
}

static void test_vdi(void **state)
{
	check("vdi", "");
}

static void test_vpc(void **state)
{
	check("vpc", "force_size=on");
}

static void test_vhdx(void **state)
{
	check("vhdx", "block_size=1M");
}

static void test_vmdk(void **state)
{
	check("vmdk", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vdi),
		cmocka_unit_test(test_vpc),
		cmocka_unit_test(test_vhdx),
		cmocka_unit_test(test_vmdk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
