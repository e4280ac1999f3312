/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts while an image grows and shrinks: beyond its L1 table, into the middle of clusters and
 * subclusters, over a longer backing file, with snapshots, with preallocation. The size is the old
 * one or the new one; all that was flushed below both is there; what lies behind the old end is
 * zero, also when the image grows again after the cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/qcow2/check.h"
#include "block/qcow2/qcow2.h"
#include "block/snapshot.h"
#include "tests/lib/block_powercut.h"

enum { SECTOR = 512, PHASES = 40 };

struct scenario {
	const char *name;
	unsigned cluster_bits;
	uint64_t most, room; /* bytes: of the disk, of the file */
	unsigned stride;
	bool v2, extended, lazy;
	bool backing; /* as long as the disk may become */
	bool snaps, grows_only;
	bool prealloc;	/* of what is new, in every mode */
	unsigned moves; /* of the L1 table at least */
};

struct world {
	const struct scenario *sc;
	struct evloop *loop;
	struct memdisk *disk, *below, *cut, *cut_below; /* cut: what a cut left is opened on */
	struct block_node *node;
	uint8_t *got;
	unsigned seed, phases, moves;
	struct state {
		uint8_t *disk;
		uint64_t size;
	} states[PHASES + 1];
};

static void fill(uint8_t *buf, uint64_t sector, uint32_t version)
{
	for (int i = 0; i < SECTOR / 8; i++)
		store_le64(buf + i * 8, sector << 32 | version);
}

static struct state *next_state(struct world *w)
{
	const struct state *old = &w->states[w->phases];
	struct state *new = &w->states[w->phases + 1];

	new->size = old->size;
	new->disk = xcalloc(1, w->sc->most);
	memcpy(new->disk, old->disk, w->sc->most);
	return new;
}

/* Some of the writes reach the disk's end, which resizing then moves. */
static void write_phase(struct world *w)
{
	struct state *new = next_state(w);
	uint64_t sectors = new->size / SECTOR;

	for (int k = 0; k < 6 && sectors; k++) {
		uint64_t n = 1 + rand_r(&w->seed) % 40, at;

		n = MIN(n, sectors);
		at = k % 3 ? rand_r(&w->seed) % (sectors - n + 1) : sectors - n;

		if (k == 5) {
			memset(new->disk + at *SECTOR, 0, n * SECTOR);
			assert_int_equal(
				block_zero(w->node, at * SECTOR, n * SECTOR, BLOCK_MAY_UNMAP), 0);
			continue;
		}
		for (uint64_t i = at; i < at + n; i++)
			fill(new->disk + i *SECTOR, i, w->phases + 1);
		assert_int_equal(
			block_pwrite(w->node, at * SECTOR, new->disk + at *SECTOR, n * SECTOR, 0),
			0);
	}
	assert_int_equal(block_flush(w->node), 0);
}

/* The more phases there were, the larger it may become. */
static void resize_phase(struct world *w)
{
	const struct scenario *sc = w->sc;
	struct state *new = next_state(w);
	uint64_t span = sc->most / SECTOR * (w->phases + 2) / (PHASES + 2), bytes;
	enum block_prealloc mode = PREALLOC_OFF;
	struct error *err = NULL;
	struct qcow2 *s = w->node->opaque;
	uint64_t l1 = s->h.l1_offset;

	bytes = (1 + rand_r(&w->seed) % span) * SECTOR;
	if (rand_r(&w->seed) % 4 == 0)
		bytes = MIN(ALIGN_UP(bytes, UINT64_C(1) << sc->cluster_bits), sc->most);
	if (sc->grows_only)
		bytes = MAX(bytes, new->size);
	if (sc->prealloc && bytes > new->size)
		mode = rand_r(&w->seed) % 4;
	if (block_grow(w->node, bytes, mode, &err))
		fail_msg("%s: %s", sc->name, error_message(err));
	if (bytes < new->size)
		memset(new->disk + bytes, 0, new->size - bytes);
	new->size = bytes;
	w->moves += s->h.l1_offset != l1;
}

static struct block_node *open_disk(struct memdisk *disk, struct memdisk *below, uint32_t flags)
{
	struct error *err = NULL;
	struct block_node *node = memdisk_open(disk, "qcow2", below, flags, &err);

	if (!node)
		fail_msg("%s", error_message(err));
	return node;
}

static void check_no_corruption(const struct world *w, struct block_node *node)
{
	struct block_check result;

	assert_int_equal(qcow2_check(node, 0, &result, NULL, NULL), 0);
	if (result.corruptions)
		fail_msg("%s: %llu corruptions", w->sc->name,
			 (unsigned long long)result.corruptions);
}

static bool same_disk(const struct world *w, struct block_node *node, const struct state *st)
{
	if (block_length(node) != st->size)
		return false;
	assert_int_equal(block_pread(node, 0, w->got, st->size), 0);
	return !memcmp(w->got, st->disk, st->size);
}

/* Each sector as it was before the phase, zeroed or written in it. */
static bool between(const struct world *w, struct block_node *node, unsigned phase)
{
	const struct state *old = &w->states[phase];
	uint8_t wrote[SECTOR];
	bool ok = block_length(node) == old->size;

	assert_int_equal(block_pread(node, 0, w->got, block_length(node)), 0);
	for (uint64_t at = 0; ok && at < old->size; at += SECTOR) {
		fill(wrote, at / SECTOR, phase + 1);
		ok = !memcmp(w->got + at, old->disk + at, SECTOR) ||
		     !memcmp(w->got + at, wrote, SECTOR) || block_buf_is_zero(w->got + at, SECTOR);
	}
	return ok;
}

/* As large as it may become, and all of it written. */
static void go_on(const struct world *w, struct block_node *node)
{
	uint64_t size = block_length(node), most = w->sc->most;

	assert_int_equal(block_truncate(node, most, NULL), 0);
	assert_int_equal(block_pread(node, size, w->got, most - size), 0);
	if (!block_buf_is_zero(w->got, most - size))
		fail_msg("%s: growing on showed something", w->sc->name);
	memset(w->got, 0xdb, most);
	assert_int_equal(block_pwrite(node, 0, w->got, most, BLOCK_FUA), 0);
	check_no_corruption(w, node);
}

static void check_cut(const struct world *w, unsigned phase, bool inside, bool write_on)
{
	const struct state *old = &w->states[phase], *new = &w->states[phase + inside];
	struct block_node *node;

	node = open_disk(w->cut, w->cut_below, write_on || w->sc->lazy ? BLOCK_OPEN_RDWR : 0);
	check_no_corruption(w, node);
	if (inside && phase % 2 == 0) {
		if (!between(w, node, phase))
			fail_msg("%s: lost in phase %u", w->sc->name, phase);
	} else if (!same_disk(w, node, old) && !same_disk(w, node, new)) {
		fail_msg("%s: phase %u, from %llu to %llu: neither of both at %llu", w->sc->name,
			 phase, (unsigned long long)old->size, (unsigned long long)new->size,
			 (unsigned long long)block_length(node));
	}
	if (write_on)
		go_on(w, node);
	block_unref(node);
}

static void begin(struct world *w, uint8_t **image, uint64_t *length)
{
	const struct scenario *sc = w->sc;
	struct state *st = &w->states[0];
	struct block_create create = {.size = 20 * SECTOR,
				      .cluster_bits = sc->cluster_bits,
				      .v2 = sc->v2,
				      .extended_l2 = sc->extended,
				      .lazy_refcounts = sc->lazy,
				      .backing = sc->backing ? "below" : NULL,
				      .backing_format = sc->backing ? "raw" : NULL};

	*image = memdisk_make_qcow2(&create, length);
	assert_non_null(*image);
	w->loop = evloop_new(NULL, NULL);
	w->disk = memdisk_new(w->loop, *image, *length, sc->room);
	w->disk->seed = w->seed;
	w->got = xmalloc(sc->most);
	st->size = create.size;
	st->disk = xcalloc(1, sc->most);
	if (sc->backing) {
		for (uint64_t i = 0; i < sc->most / SECTOR; i++)
			fill(w->got + i * SECTOR, i, 0x77777777);
		memcpy(st->disk, w->got, st->size);
		w->below = memdisk_new(w->loop, w->got, sc->most, sc->most);
		w->cut_below = memdisk_new(w->loop, w->got, sc->most, sc->most);
	}
	w->disk->record = true;
	w->disk->next_id = 1;
	w->node = open_disk(w->disk, w->below, BLOCK_OPEN_RDWR);
}

static void end(struct world *w)
{
	for (unsigned i = 0; i <= w->phases; i++)
		free(w->states[i].disk);
	free(w->got);
	memdisk_free(w->disk);
	memdisk_free(w->below);
	memdisk_free(w->cut);
	memdisk_free(w->cut_below);
	evloop_free(w->loop);
}

static void play(struct world *w, const uint8_t *first, uint64_t length, unsigned *cuts)
{
	struct powercut power;
	unsigned phase = 0;
	bool inside = false;

	powercut_init(&power, w->disk, first, length);
	w->cut = memdisk_new(w->loop, NULL, w->sc->room, w->sc->room);
	for (size_t i = 0; i < w->disk->count; i++) {
		const struct mem_event *e = &w->disk->events[i];

		if (e->type == MEM_MARK) {
			inside = !(e->id & 1);
			phase = (e->id >> 1) + !inside;
		}
		/* Writing has cuts of its own elsewhere. */
		if (phase == PHASES || i % (phase % 2 ? w->sc->stride : w->sc->stride * 8))
			continue;
		for (int odds = 0; odds <= 100; odds += 50) {
			powercut_play(&power, i + 1, odds, &w->seed, w->cut);
			check_cut(w, phase, inside, *cuts % 7 == 0);
			++*cuts;
		}
	}
	powercut_destroy(&power);
}

static void run_scenario(const struct scenario *sc, unsigned seed, unsigned *cuts)
{
	struct world w = {.sc = sc, .seed = seed};
	struct block_snapshot info = {.name = (char *)"x", .date_sec = 1};
	uint64_t length;
	uint8_t *first;

	begin(&w, &first, &length);
	for (; w.phases < PHASES; w.phases++) {
		memdisk_mark(w.disk, w.phases << 1);
		if (w.phases % 2)
			resize_phase(&w);
		else
			write_phase(&w);
		memdisk_mark(w.disk, w.phases << 1 | 1);
		if (!same_disk(&w, w.node, &w.states[w.phases + 1]))
			fail_msg("%s: wrong after phase %u", sc->name, w.phases);
		if (sc->snaps && w.phases % 12 == 0)
			assert_true(block_snapshot_create(w.node, &info, NULL));
		check_no_corruption(&w, w.node);
	}
	block_unref(w.node);
	assert_true(w.moves >= sc->moves);
	play(&w, first, length, cuts);
	free(first);
	end(&w);
}

static const struct scenario scenarios[] = {
	{"512", 9, 256 << 10, 1 << 20, 5, .moves = 3},
	{"512, backing", 9, 256 << 10, 1 << 20, 5, .backing = true, .moves = 3},
	{"512, snapshots", 9, 192 << 10, 2 << 20, 7, .snaps = true, .moves = 2},
	{"512, lazy", 9, 192 << 10, 1 << 20, 7, .lazy = true, .moves = 2},
	{"v2", 9, 192 << 10, 1 << 20, 7, .v2 = true, .moves = 2},
	{"v2, backing", 9, 128 << 10, 1 << 20, 5, .v2 = true, .backing = true, .grows_only = true,
	 .moves = 1},
	{"two clusters of L1 table", 9, 3 << 20, 6 << 20, 29, .moves = 4},
	{"64k, backing", 16, 512 << 10, 4 << 20, 5, .backing = true},
	{"subclusters", 14, 256 << 10, 2 << 20, 3, .extended = true},
	{"subclusters, backing", 14, 256 << 10, 2 << 20, 3, .extended = true, .backing = true},
};

static const struct scenario preallocated[] = {
	{"preallocated, 512", 9, 192 << 10, 1 << 20, 7, .prealloc = true, .moves = 2},
	{"preallocated, v2", 9, 128 << 10, 1 << 20, 11, .v2 = true, .prealloc = true, .moves = 1},
	{"preallocated, 4k", 12, 256 << 10, 2 << 20, 5, .prealloc = true},
	{"preallocated, 4k, backing", 12, 256 << 10, 2 << 20, 5, .prealloc = true, .backing = true},
	{"preallocated, subclusters", 14, 256 << 10, 2 << 20, 5, .extended = true,
	 .prealloc = true},
	{"preallocated, subclusters, backing", 14, 256 << 10, 2 << 20, 5, .extended = true,
	 .prealloc = true, .backing = true},
};

static void run_all(const struct scenario *list, size_t n, unsigned least)
{
	unsigned cuts = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned before = cuts;

		run_scenario(&list[i], 11 + i, &cuts);
		print_message("%s: %u cuts\n", list[i].name, cuts - before);
	}
	assert_true(cuts >= least);
}

static void test_resize(void **state)
{
	run_all(scenarios, ARRAY_SIZE(scenarios), 3000);
}

static void test_preallocation(void **state)
{
	run_all(preallocated, ARRAY_SIZE(preallocated), 1500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_preallocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
