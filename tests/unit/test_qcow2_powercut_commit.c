/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts while an overlay is committed into its base. Both lie on recording disks with one
 * order of events; a cut hits both at once. Then both open, have leaks at most, and the overlay
 * over the base reads as it did before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/img/copy.h"
#include "block/qcow2/check.h"
#include "tests/lib/block_powercut.h"

enum { SECTOR = 512 };

struct scenario {
	const char *name;
	unsigned cluster_bits, base_bits;
	uint64_t size, base_size, room;
	unsigned stride;
	bool v2, extended, lazy; /* both */
	bool below;		 /* the base has a backing file, as long as the overlay */
	bool drop;		 /* -d: the overlay is not emptied */
};

/* One image, and what a cut made of it. */
struct image {
	struct memdisk *disk, *cut;
	struct powercut power;
	uint8_t *first; /* when the record began */
	size_t events;	/* before the cut */
};

struct world {
	const struct scenario *sc;
	struct evloop *loop;
	struct image top, base;
	struct memdisk *below;
	uint64_t clock;
	uint8_t *want, *got;
	unsigned seed;
};

static void fill(uint8_t *buf, uint64_t sector, uint32_t version)
{
	for (int i = 0; i < SECTOR / 8; i++)
		store_le64(buf + i * 8, sector << 32 | version);
}

static struct block_node *find(void *opaque, const char *name)
{
	struct block_node **nodes = opaque;

	return nodes[strcmp(name, "file") != 0];
}

/* Several nodes may lie on one disk, as several opens of one file. below may be NULL. */
static struct block_node *open_image(struct memdisk *disk, struct block_node *below, uint32_t flags)
{
	struct block_node *nodes[] = {disk->node, below};
	struct block_names names = {.find = find, .opaque = nodes};
	struct block_open how = {.flags = flags | BLOCK_OPEN_BLOCKDEV | BLOCK_OPEN_UNMAP,
				 .names = &names,
				 .loop = disk->node->loop,
				 .home = disk->node->loop};
	struct error *err = NULL;
	struct block_node *node;
	struct opts opts = {0};

	disk->node->owned = false;
	opts_add(&opts, "driver", "qcow2");
	opts_add(&opts, "file", "file");
	if (below) {
		below->owned = false;
		opts_add(&opts, "backing", "backing");
	}
	node = block_open_node(&how, &opts, &err);
	opts_free(&opts);
	if (!node)
		fail_msg("%s", error_message(err));
	return node;
}

/* The overlay over the base; *below is for the caller to unref as well. */
static struct block_node *open_chain(const struct world *w, struct memdisk *top,
				     struct memdisk *base, uint32_t flags,
				     struct block_node **below)
{
	*below = open_image(base, w->below ? w->below->node : NULL, flags);
	return open_image(top, *below, flags);
}

static void make(struct world *w, struct image *image, uint64_t size, unsigned bits)
{
	struct block_create create = {.size = size,
				      .cluster_bits = bits,
				      .v2 = w->sc->v2,
				      .extended_l2 = w->sc->extended,
				      .lazy_refcounts = w->sc->lazy};
	uint64_t length;
	uint8_t *bytes = memdisk_make_qcow2(&create, &length);

	assert_non_null(bytes);
	image->disk = memdisk_new(w->loop, bytes, length, w->sc->room);
	image->cut = memdisk_new(w->loop, NULL, w->sc->room, w->sc->room);
	image->disk->seed = w->seed;
	image->disk->clock = &w->clock;
	free(bytes);
}

/* Data, zeroes and discarded places, all over the disk. */
static void scribble(struct world *w, struct block_node *node, uint32_t version)
{
	uint64_t sectors = block_length(node) / SECTOR;

	for (int k = 0; k < 24; k++) {
		uint64_t n = 1 + rand_r(&w->seed) % 30, at = rand_r(&w->seed) % (sectors - n);

		if (k % 4 == 3) {
			assert_int_equal(block_zero(node, at * SECTOR, n * SECTOR,
						    k % 8 == 3 ? BLOCK_MAY_UNMAP : 0),
					 0);
			continue;
		}
		for (uint64_t i = 0; i < n; i++)
			fill(w->got + i * SECTOR, at + i, version + k);
		assert_int_equal(block_pwrite(node, at * SECTOR, w->got, n * SECTOR, 0), 0);
	}
	assert_int_equal(block_flush(node), 0);
}

static void check_node(const struct world *w, struct block_node *node)
{
	struct block_check result;

	assert_int_equal(qcow2_check(node, 0, &result, NULL, NULL), 0);
	if (result.corruptions)
		fail_msg("%s: %llu corruptions", w->sc->name,
			 (unsigned long long)result.corruptions);
}

static void check_chain(const struct world *w, struct memdisk *top, struct memdisk *base,
			uint32_t flags)
{
	struct block_node *below, *node = open_chain(w, top, base, flags, &below);

	check_node(w, below);
	check_node(w, node);
	assert_true(block_length(below) == w->sc->base_size ||
		    block_length(below) == MAX(w->sc->size, w->sc->base_size));
	assert_int_equal(block_length(node), w->sc->size);
	assert_int_equal(block_pread(node, 0, w->got, w->sc->size), 0);
	for (uint64_t at = 0; at < w->sc->size; at += SECTOR)
		if (memcmp(w->got + at, w->want + at, SECTOR))
			fail_msg("%s: sector %llu has changed", w->sc->name,
				 (unsigned long long)(at / SECTOR));
	block_unref(node);
	block_unref(below);
}

static void commit(struct world *w, bool empty)
{
	struct img img = {.loop = w->loop};
	struct img_progress progress = {0};
	struct block_node *below, *chain, *top;
	struct error *err = NULL;
	struct img_copy c = {.img = &img,
			     .srcs = 1,
			     .sparse = 4096,
			     .no_scan = true,
			     .workers = 8,
			     .depth = 1,
			     .progress = &progress,
			     .bytes = w->sc->size};

	top = open_image(w->top.disk, NULL, BLOCK_OPEN_RDWR | BLOCK_OPEN_NO_BACKING);
	chain = open_chain(w, w->top.disk, w->base.disk, 0, &below);
	c.src = &chain;
	c.dst = open_image(w->base.disk, w->below ? w->below->node : NULL, BLOCK_OPEN_RDWR);
	if (!img_commit_down(&c, empty ? top : NULL, &err))
		fail_msg("%s: %s", w->sc->name, error_message(err));
	block_unref(c.dst);
	block_unref(chain);
	block_unref(below);
	block_unref(top);
}

static void record(const struct world *w, struct image *image)
{
	image->first = xmalloc(w->sc->room);
	memcpy(image->first, image->disk->data, w->sc->room);
	image->disk->record = true;
	image->disk->next_id = 1;
}

static void play_image(struct world *w, struct image *image, uint64_t now, int odds)
{
	while (image->events < image->disk->count && image->disk->events[image->events].at < now)
		image->events++;
	powercut_play(&image->power, image->events, odds, &w->seed, image->cut);
}

static void play(struct world *w, unsigned *cuts)
{
	static const int odds[][2] = {{0, 0}, {100, 100}, {50, 50}, {0, 100}, {100, 0}};

	w->clock++;
	powercut_init(&w->top.power, w->top.disk, w->top.first, w->sc->room);
	powercut_init(&w->base.power, w->base.disk, w->base.first, w->sc->room);
	for (uint64_t now = 0; now <= w->clock; now += w->sc->stride) {
		for (size_t i = 0; i < ARRAY_SIZE(odds); i++) {
			play_image(w, &w->top, now, odds[i][0]);
			play_image(w, &w->base, now, odds[i][1]);
			check_chain(w, w->top.cut, w->base.cut,
				    w->sc->lazy || *cuts % 19 == 0 ? BLOCK_OPEN_RDWR : 0);
			++*cuts;
		}
	}
	powercut_destroy(&w->top.power);
	powercut_destroy(&w->base.power);
}

static bool is_empty(struct block_node *node)
{
	struct block_extent x = {0};
	bool empty = true;

	for (uint64_t at = 0; empty && at < block_length(node); at += x.bytes)
		empty = !block_status(node, at, block_length(node) - at, &x) && !x.allocated;
	return empty;
}

static void free_image(struct image *image)
{
	memdisk_free(image->disk);
	memdisk_free(image->cut);
	free(image->first);
}

static void run_scenario(const struct scenario *sc, unsigned seed, unsigned *cuts)
{
	struct world w = {.sc = sc, .seed = seed};
	struct block_node *node, *below;

	w.loop = evloop_new(NULL, NULL);
	w.want = xmalloc(sc->size);
	w.got = xmalloc(sc->size);
	if (sc->below) {
		for (uint64_t i = 0; i < sc->size / SECTOR; i++)
			fill(w.want + i * SECTOR, i, 0x77777777);
		w.below = memdisk_new(w.loop, w.want, sc->size, sc->size);
	}
	make(&w, &w.base, sc->base_size, sc->base_bits);
	make(&w, &w.top, sc->size, sc->cluster_bits);
	node = open_chain(&w, w.top.disk, w.base.disk, BLOCK_OPEN_RDWR, &below);
	scribble(&w, below, 1);
	scribble(&w, node, 1000);
	assert_int_equal(block_pread(node, 0, w.want, sc->size), 0);
	block_unref(node);
	block_unref(below);
	w.clock = 0;
	record(&w, &w.top);
	record(&w, &w.base);
	commit(&w, !sc->drop);
	w.top.disk->record = w.base.disk->record = false;
	check_chain(&w, w.top.disk, w.base.disk, 0);
	node = open_image(w.top.disk, NULL, BLOCK_OPEN_NO_BACKING);
	assert_true(is_empty(node) == !sc->drop);
	block_unref(node);
	play(&w, cuts);
	if (w.below)
		assert_int_equal(w.below->writes + w.below->discards, 0);
	free_image(&w.top);
	free_image(&w.base);
	memdisk_free(w.below);
	free(w.want);
	free(w.got);
	evloop_free(w.loop);
}

static const struct scenario scenarios[] = {
	{"512", 9, 9, 128 << 10, 128 << 10, 640 << 10, 5},
	{"-d", 9, 9, 128 << 10, 128 << 10, 640 << 10, 3, .drop = true},
	{"a shorter base", 9, 9, 192 << 10, 50 << 10, 640 << 10, 5},
	{"a longer base", 9, 12, 64 << 10, 192 << 10, 1 << 20, 5},
	{"a shorter base over a longer file", 9, 9, 192 << 10, 50 << 10, 640 << 10, 5,
	 .below = true},
	{"v2", 9, 9, 128 << 10, 64 << 10, 640 << 10, 5, .v2 = true},
	{"4k into 64k", 12, 16, 256 << 10, 200 << 10, 2 << 20, 2},
	{"64k into 4k", 16, 12, 256 << 10, 200 << 10, 2 << 20, 2, .below = true},
	{"lazy", 9, 9, 128 << 10, 64 << 10, 640 << 10, 5, .lazy = true},
	{"subclusters", 14, 14, 256 << 10, 200 << 10, 2 << 20, 2, .extended = true, .below = true},
};

static void test_commit(void **state)
{
	unsigned cuts = 0;

	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
		unsigned before = cuts;

		run_scenario(&scenarios[i], 21 + i, &cuts);
		print_message("%s: %u cuts\n", scenarios[i].name, cuts - before);
	}
	assert_true(cuts >= 3000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_commit)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
