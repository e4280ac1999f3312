/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Persistent bitmaps under power cuts and failing hosts: whatever is left of the image, it opens
 * without corruptions, and a bitmap that does not say "in use" covers every sector that is
 * different from what it was when the bitmap was made or cleared. Bitmaps that do not record are
 * what they were before an operation or what they are after it, and are never in doubt by others'
 * doing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/bitmap.h"
#include "block/create.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/check.h"
#include "tests/lib/block_powercut.h"

enum { SECTOR = 512, PHASES = 56, MAPS = 4 };

/* One bitmap as it should be. */
struct map {
	char name[8];
	bool enabled;
	uint8_t *base; /* the disk when it was made or cleared; NULL: it does not cover changes */
	struct dirty_bitmap bits;
};

struct state {
	unsigned maps;
	struct map map[MAPS];
	int touched; /* the one that the phase was about; -1: none */
	bool stored; /* at the phase's end */
};

struct scenario {
	unsigned cluster_bits;
	uint64_t granularity, size, room;
	unsigned stride;
	bool lazy;
};

struct world {
	const struct scenario *sc;
	struct evloop *loop;
	struct memdisk *disk, *cut;
	struct block_node *node;
	unsigned seed, phases, made;
	struct state states[PHASES + 1];
	uint8_t *bases[PHASES + 1];
	unsigned base_count;
	uint8_t *got;
};

static struct block_node *open_disk(struct memdisk *disk, uint32_t flags)
{
	struct error *err = NULL;
	struct block_node *node = memdisk_open(disk, "qcow2", NULL, flags, &err);

	if (!node)
		fail_msg("%s", error_message(err));
	return node;
}

static void copy_bits(struct dirty_bitmap *to, const struct dirty_bitmap *from)
{
	dirty_bitmap_init(to, from->size, from->shift);
	dirty_bitmap_merge(to, from);
}

static void next_state(struct world *w)
{
	const struct state *old = &w->states[w->phases];
	struct state *new = &w->states[w->phases + 1];

	*new = *old;
	new->touched = -1;
	new->stored = false;
	for (unsigned i = 0; i < new->maps; i++)
		copy_bits(&new->map[i].bits, &old->map[i].bits);
}

static uint8_t *disk_now(struct world *w)
{
	uint8_t *all = xmalloc(w->sc->size);

	assert_int_equal(block_pread(w->node, 0, all, w->sc->size), 0);
	w->bases[w->base_count++] = all;
	return all;
}

static void change_disk(struct world *w, struct state *st)
{
	uint64_t sectors = w->sc->size / SECTOR;
	uint8_t *buf = xmalloc(40 * SECTOR);

	for (int k = 0; k < 5; k++) {
		uint64_t n = 1 + rand_r(&w->seed) % 40, at = rand_r(&w->seed) % (sectors - n);
		unsigned what = rand_r(&w->seed) % 6;

		memset(buf, 1 + w->phases, n * SECTOR);
		if (what == 0)
			assert_int_equal(
				block_zero(w->node, at * SECTOR, n * SECTOR, BLOCK_MAY_UNMAP), 0);
		else if (what == 1)
			assert_int_equal(block_discard(w->node, at * SECTOR, n * SECTOR), 0);
		else
			assert_int_equal(block_pwrite(w->node, at * SECTOR, buf, n * SECTOR, 0), 0);
		for (unsigned i = 0; i < st->maps; i++)
			if (st->map[i].enabled)
				dirty_bitmap_set(&st->map[i].bits, at * SECTOR, n * SECTOR);
	}
	free(buf);
	if (rand_r(&w->seed) % 2)
		assert_int_equal(block_flush(w->node), 0);
}

static void add_map(struct world *w, struct state *st)
{
	struct map *m = &st->map[st->maps];

	*m = (struct map){.enabled = true};
	snprintf(m->name, sizeof(m->name), "b%u", w->made++);
	m->base = disk_now(w);
	dirty_bitmap_init(&m->bits, w->sc->size, __builtin_ctzll(w->sc->granularity));
	assert_non_null(block_bitmap_add(w->node, m->name, w->sc->granularity, true, NULL));
	st->touched = st->maps++;
}

static void change_map(struct world *w, struct state *st)
{
	unsigned i = rand_r(&w->seed) % st->maps, k = rand_r(&w->seed) % st->maps;
	struct map *m = &st->map[i];
	struct block_bitmap *bm = block_bitmap_find(w->node, m->name);

	assert_non_null(bm);
	st->touched = i;
	switch (rand_r(&w->seed) % 6) {
	case 0:
		assert_true(block_bitmap_clear(w->node, bm, NULL));
		dirty_bitmap_clear(&m->bits);
		m->base = m->enabled ? disk_now(w) : NULL;
		return;
	case 1:
		assert_true(block_bitmap_merge(w->node, bm, w->node,
					       block_bitmap_find(w->node, st->map[k].name), NULL));
		if (i != k)
			dirty_bitmap_merge(&m->bits, &st->map[k].bits);
		return;
	case 2:
		assert_true(block_bitmap_remove(w->node, bm, NULL));
		dirty_bitmap_clear(&m->bits);
		memmove(m, m + 1, (--st->maps - i) * sizeof(*m));
		st->touched = -1;
		st->stored = true;
		return;
	default:
		m->enabled = !m->enabled;
		m->base = NULL;
		assert_true(block_bitmap_enable(w->node, bm, m->enabled, NULL));
	}
}

static void phase(struct world *w)
{
	struct state *st = &w->states[w->phases + 1];

	next_state(w);
	if (w->phases % 2 == 0 && rand_r(&w->seed) % 3 == 0) {
		st->stored = w->states[w->phases].stored;
	} else if (w->phases % 2 == 0) {
		change_disk(w, st);
	} else if (w->phases % 4 == 3) {
		block_unref(w->node);
		w->node = open_disk(w->disk, BLOCK_OPEN_RDWR);
		st->stored = true;
	} else {
		if (!st->maps || (st->maps < MAPS && rand_r(&w->seed) % 3 == 0))
			add_map(w, st);
		else
			change_map(w, st);
		if (rand_r(&w->seed) % 3) {
			assert_int_equal(block_bitmaps_store(w->node), 0);
			st->stored = true;
		}
	}
}

static void print_line(void *opaque, const char *line)
{
	if (!strncmp(line, "ERROR", 5))
		print_message("%s\n", line);
}

static void check_clean(struct block_node *node)
{
	struct block_check result;

	assert_int_equal(qcow2_check(node, 0, &result, print_line, NULL), 0);
	assert_int_equal(result.corruptions, 0);
}

static bool same_bits(const struct dirty_bitmap *a, const struct dirty_bitmap *b)
{
	if (a->dirty != b->dirty)
		return false;
	for (uint64_t at = 0; at < a->size; at += UINT64_C(1) << a->shift)
		if (dirty_bitmap_get(a, at) != dirty_bitmap_get(b, at))
			return false;
	return true;
}

/* Every sector of got that is not base's is dirty. */
static bool covers(const struct block_bitmap *bm, const uint8_t *got, const uint8_t *base,
		   uint64_t size)
{
	for (uint64_t at = 0; at < size; at += SECTOR)
		if (memcmp(got + at, base + at, SECTOR) && !dirty_bitmap_get(&bm->dirty, at))
			return false;
	return true;
}

static const struct map *map_of(const struct state *st, const char *name)
{
	for (unsigned i = 0; i < st->maps; i++)
		if (!strcmp(st->map[i].name, name))
			return &st->map[i];
	return NULL;
}

/* A bitmap that was there before and after is there. */
static void check_gone(const struct world *w, const struct block_node *node, unsigned first,
		       unsigned last)
{
	for (unsigned i = 0; i < w->states[first].maps; i++) {
		const char *name = w->states[first].map[i].name;
		bool always = true;

		for (unsigned k = first; k <= last; k++)
			always &= map_of(&w->states[k], name) != NULL;
		assert_true(!always || block_bitmap_find(node, name));
	}
}

/* One bitmap of a cut in the phase from states[first] on; unstored changes may be older. */
static void check_map(struct world *w, struct block_node *node, struct block_bitmap *bm,
		      unsigned first, unsigned last)
{
	bool known = false, recorded = false, right = false;
	struct error *err = NULL;

	if (!bm->inconsistent && !block_bitmap_load(node, bm, &err))
		fail_msg("%s", error_message(err));
	for (unsigned i = first; i <= last; i++) {
		const struct map *m = map_of(&w->states[i], bm->name);

		if (!m)
			continue;
		known = true;
		recorded |= m->enabled || w->states[i].touched == m - w->states[i].map;
		if (bm->inconsistent)
			continue;
		if (bm->enabled && m->enabled)
			right |= !m->base || covers(bm, w->got, m->base, w->sc->size);
		else if (!bm->enabled && !m->enabled)
			right |= same_bits(&bm->dirty, &m->bits);
	}
	assert_true(known);
	if (bm->inconsistent)
		assert_true(recorded);
	else
		assert_true(right);
}

static void check_cut(struct world *w, unsigned first, unsigned last, bool write_on)
{
	struct memdisk *disk = w->cut;
	struct block_node *node;
	uint8_t *junk;

	/* Lazy refcounts are mended by opening for writing. */
	node = open_disk(disk, w->sc->lazy ? BLOCK_OPEN_RDWR : 0);
	check_clean(node);
	assert_int_equal(block_pread(node, 0, w->got, w->sc->size), 0);
	for (struct block_bitmap *bm = block_bitmaps(node); bm; bm = bm->next)
		check_map(w, node, bm, first, last);
	check_gone(w, node, first, last);
	block_unref(node);
	if (!write_on)
		return;
	/* Life goes on. */
	junk = xmalloc(w->sc->size);
	memset(junk, 0xdb, w->sc->size);
	node = open_disk(disk, BLOCK_OPEN_RDWR);
	assert_int_equal(block_pwrite(node, 0, junk, w->sc->size, 0), 0);
	block_unref(node);
	node = open_disk(disk, BLOCK_OPEN_RDWR);
	check_clean(node);
	for (struct block_bitmap *bm = block_bitmaps(node); bm; bm = bm->next) {
		if (bm->inconsistent)
			continue;
		assert_true(block_bitmap_load(node, bm, NULL));
		assert_true(!bm->enabled || bm->dirty.dirty == bm->dirty.bits);
	}
	while (block_bitmaps(node))
		assert_true(block_bitmap_remove(node, block_bitmaps(node), NULL));
	check_clean(node);
	block_unref(node);
	free(junk);
}

static void begin(struct world *w, uint8_t **image, uint64_t *length)
{
	struct block_create create = {.size = w->sc->size,
				      .cluster_bits = w->sc->cluster_bits,
				      .lazy_refcounts = w->sc->lazy};

	*image = memdisk_make_qcow2(&create, length);
	assert_non_null(*image);
	w->loop = evloop_new(NULL, NULL);
	w->disk = memdisk_new(w->loop, *image, *length, w->sc->room);
	w->cut = memdisk_new(w->loop, NULL, w->sc->room, w->sc->room);
	w->disk->record = true;
	w->disk->next_id = 1;
	w->got = xmalloc(w->sc->size);
	w->states[0] = (struct state){.touched = -1, .stored = true};
	w->node = open_disk(w->disk, BLOCK_OPEN_RDWR);
}

static void end(struct world *w)
{
	for (unsigned i = 0; i <= w->phases; i++)
		for (unsigned k = 0; k < w->states[i].maps; k++)
			dirty_bitmap_clear(&w->states[i].map[k].bits);
	for (unsigned i = 0; i < w->base_count; i++)
		free(w->bases[i]);
	free(w->got);
	memdisk_free(w->disk);
	memdisk_free(w->cut);
	evloop_free(w->loop);
}

/* The last state before the phase that was stored: what the disk has may be as old. */
static unsigned last_stored(const struct world *w, unsigned phase)
{
	while (!w->states[phase].stored)
		phase--;
	return phase;
}

static void run_scenario(const struct scenario *sc, unsigned seed, unsigned *cuts)
{
	struct world w = {.sc = sc, .seed = seed};
	struct powercut power;
	unsigned number = 0;
	uint64_t length;
	uint8_t *first;

	begin(&w, &first, &length);
	for (; w.phases < PHASES; w.phases++) {
		memdisk_mark(w.disk, w.phases);
		phase(&w);
	}
	block_unref(w.node);
	powercut_init(&power, w.disk, first, length);
	for (size_t i = 0; i < w.disk->count; i++) {
		if (w.disk->events[i].type == MEM_MARK)
			number = w.disk->events[i].id;
		if (i % sc->stride)
			continue;
		for (int odds = 0; odds <= 100; odds += 25) {
			powercut_play(&power, i + 1, odds, &w.seed, w.cut);
			check_cut(&w, last_stored(&w, number), number + 1, *cuts % 13 == 0);
			++*cuts;
		}
	}
	powercut_destroy(&power);
	free(first);
	end(&w);
}

static void test_power_cuts(void **state)
{
	static const struct scenario scenarios[] = {
		{9, 512, 96 << 10, 512 << 10, 2, false},  {9, 512, 2560 << 10, 5 << 20, 23, false},
		{12, 4096, 256 << 10, 1 << 20, 2, false}, {16, 65536, 512 << 10, 4 << 20, 9, false},
		{12, 512, 128 << 10, 1 << 20, 5, true},
	};
	unsigned cuts = 0;

	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
		run_scenario(&scenarios[i], 21 + i, &cuts);
	assert_true(cuts > 1000);
	print_message("%u cuts\n", cuts);
}

/* The first write is the directory's, and a flush has ended before the second. */
static void expect_mark_first(const struct world *w, size_t from, uint64_t dir)
{
	unsigned writes = 0;
	bool flushed = false;

	for (size_t i = from; i < w->disk->count && writes < 2; i++) {
		const struct mem_event *e = &w->disk->events[i];

		if (e->type == MEM_FLUSH_DONE && writes)
			flushed = true;
		if (e->type != MEM_WRITE)
			continue;
		if (!writes++) {
			assert_int_equal(e->offset, dir);
			assert_true(load_be32(e->data + QBITMAP_OFF_FLAGS) & QBITMAP_IN_USE);
		} else {
			assert_true(flushed);
		}
	}
	assert_int_equal(writes, 2);
}

static void test_order(void **state)
{
	static const struct scenario sc = {12, 512, 256 << 10, 1 << 20, 1, false};
	struct world w = {.sc = &sc, .seed = 3};
	struct block_bitmap *a, *b;
	uint64_t length, dir;
	uint8_t *first, buf[4096] = {1};
	size_t from;

	begin(&w, &first, &length);
	a = block_bitmap_add(w.node, "a", 512, true, NULL);
	b = block_bitmap_add(w.node, "b", 512, true, NULL);
	assert_true(block_bitmap_enable(w.node, b, false, NULL));
	assert_int_equal(block_pwrite(w.node, 0, buf, 4096, 0), 0);
	block_unref(w.node);
	w.node = open_disk(w.disk, BLOCK_OPEN_RDWR);
	dir = ((struct qcow2 *)w.node->opaque)->bm.dir_offset;
	a = block_bitmap_find(w.node, "a");
	b = block_bitmap_find(w.node, "b");
	assert_true(a->enabled && !b->enabled);
	/* Reading and flushing changes nothing, and so does what changes nothing. */
	from = w.disk->count;
	assert_int_equal(block_pread(w.node, 0, buf, 4096), 0);
	assert_int_equal(block_flush(w.node), 0);
	assert_int_equal(block_bitmaps_store(w.node), 0);
	for (size_t i = from; i < w.disk->count; i++)
		assert_int_not_equal(w.disk->events[i].type, MEM_WRITE);
	assert_int_equal(block_pwrite(w.node, 8192, buf, 4096, 0), 0);
	expect_mark_first(&w, from, dir);
	assert_false(((struct qbitmap *)b->stored)->flags & QBITMAP_IN_USE);
	assert_int_equal(block_bitmaps_store(w.node), 0);
	/* One that does not record is marked as well before its bits change. */
	from = w.disk->count;
	assert_true(block_bitmap_merge(w.node, b, w.node, a, NULL));
	assert_false(b->complete);
	assert_int_equal(block_bitmaps_store(w.node), 0);
	for (; w.disk->events[from].type != MEM_WRITE; from++)
		assert_true(from + 1 < w.disk->count);
	assert_int_equal(w.disk->events[from].offset, dir);
	assert_int_equal(w.disk->events[from + 2].type, MEM_FLUSH);
	block_unref(w.node);
	free(first);
	end(&w);
}

/* All that is done to bitmaps, until something fails. */
static bool use_all(struct world *w, uint8_t *buf)
{
	struct block_bitmap *a = block_bitmap_find(w->node, "a"), *c;

	if (block_pwrite(w->node, 0, buf, 4096, 0) || block_bitmaps_store(w->node))
		return false;
	c = block_bitmap_add(w->node, "c", 512, true, NULL);
	if (!c || block_bitmaps_store(w->node) ||
	    block_pwrite(w->node, 65536, buf, 4096, BLOCK_FUA))
		return false;
	if (!block_bitmap_merge(w->node, block_bitmap_find(w->node, "b"), w->node, a, NULL) ||
	    block_bitmaps_store(w->node) || !block_bitmap_clear(w->node, c, NULL) ||
	    block_bitmaps_store(w->node) || !block_bitmap_remove(w->node, a, NULL))
		return false;
	return !block_truncate(w->node, w->sc->size * 2, NULL) && !block_bitmaps_store(w->node);
}

/* The host fails at each request in turn, once or for good. */
static void test_errors(void **state)
{
	static const struct scenario sc = {9, 512, 128 << 10, 640 << 10, 1, false};
	uint8_t buf[4096];
	bool ok = false;

	memset(buf, 0x77, sizeof(buf));
	for (unsigned at = 1; at < 2000 && !ok; at += 2) {
		struct world w = {.sc = &sc, .seed = 3};
		uint64_t length;
		uint8_t *first;

		begin(&w, &first, &length);
		w.disk->record = false;
		assert_non_null(block_bitmap_add(w.node, "a", 512, true, NULL));
		assert_non_null(block_bitmap_add(w.node, "b", 4096, true, NULL));
		block_unref(w.node);
		w.node = open_disk(w.disk, BLOCK_OPEN_RDWR);
		assert_true(
			block_bitmap_enable(w.node, block_bitmap_find(w.node, "b"), false, NULL));
		w.disk->fail_at = w.disk->ops + at;
		w.disk->fail_on = at % 4 == 1;
		ok = use_all(&w, buf);
		if (!w.disk->fail_on)
			w.disk->fail_at = 0;
		block_unref(w.node);
		w.disk->fail_at = 0;
		w.node = open_disk(w.disk, BLOCK_OPEN_RDWR);
		check_clean(w.node);
		for (struct block_bitmap *bm = block_bitmaps(w.node); bm; bm = bm->next) {
			if (bm->inconsistent || !bm->enabled || strcmp(bm->name, "a"))
				continue;
			/* It says that it is right: what was written shows. */
			assert_true(block_bitmap_load(w.node, bm, NULL));
			for (uint64_t s = 0; s < sc.size; s += 512) {
				uint8_t got[512];

				assert_int_equal(block_pread(w.node, s, got, 512), 0);
				assert_true(block_buf_is_zero(got, 512) ||
					    dirty_bitmap_get(&bm->dirty, s));
			}
		}
		while (block_bitmaps(w.node))
			assert_true(block_bitmap_remove(w.node, block_bitmaps(w.node), NULL));
		check_clean(w.node);
		block_unref(w.node);
		free(first);
		end(&w);
	}
	assert_true(ok);
}

/* Bytes of the directory, the extension and the tables at random; what opens does no harm. */
static void test_hostile(void **state)
{
	static const struct scenario sc = {9, 512, 64 << 10, 512 << 10, 1, false};
	struct world w = {.sc = &sc, .seed = 5};
	uint8_t *first, *image = xmalloc(sc.room), buf[4096] = {1};
	uint64_t length, dir, dir_bytes, table;
	unsigned opened = 0, refused = 0;
	const struct qcow2 *s;

	begin(&w, &first, &length);
	assert_non_null(block_bitmap_add(w.node, "one", 512, true, NULL));
	assert_non_null(block_bitmap_add(w.node, "two", 4096, true, NULL));
	assert_int_equal(block_pwrite(w.node, 8192, buf, 4096, 0), 0);
	assert_int_equal(block_bitmaps_store(w.node), 0);
	s = w.node->opaque;
	dir = s->bm.dir_offset;
	dir_bytes = s->bm.dir_bytes;
	table = ((struct qbitmap *)block_bitmaps(w.node)->stored)->table;
	block_unref(w.node);
	memcpy(image, w.disk->data, sc.room);
	for (int round = 0; round < 3000; round++) {
		uint32_t flags = round % 3 == 0	  ? 0
				 : round % 3 == 1 ? BLOCK_OPEN_RDWR
						  : BLOCK_OPEN_RDWR | BLOCK_OPEN_CHECK;
		struct block_check result;
		struct block_node *node;

		memdisk_again(w.cut, image, sc.room);
		for (unsigned n = 1 + rand_r(&w.seed) % 3; n; n--) {
			unsigned r = rand_r(&w.seed), what = r % 8;
			uint64_t at = what < 5	 ? dir + r / 8 % dir_bytes
				      : what < 7 ? table + r / 8 % 16
						 : 112 + r / 8 % 40;
			static const uint8_t bytes[] = {0, 1, 2, 0x7f, 0x80, 0xff, 8, 31};

			w.cut->data[at] = rand_r(&w.seed) % 2 ? bytes[rand_r(&w.seed) % 8]
							      : rand_r(&w.seed);
		}
		node = memdisk_open(w.cut, "qcow2", NULL, flags, NULL);
		opened += node != NULL;
		refused += node == NULL;
		if (!node)
			continue;
		for (struct block_bitmap *bm = block_bitmaps(node); bm; bm = bm->next)
			block_bitmap_load(node, bm, NULL);
		if (!flags || (flags & BLOCK_OPEN_CHECK))
			qcow2_check(node, flags ? BLOCK_FIX_ALL : 0, &result, NULL, NULL);
		if (flags) {
			block_pwrite(node, 4096, buf, 4096, 0);
			block_bitmap_add(node, "three", 512, true, NULL);
			block_bitmaps_store(node);
			if (block_bitmaps(node))
				block_bitmap_remove(node, block_bitmaps(node), NULL);
		}
		block_unref(node);
		/* What repair has done lasts. */
		if (!(flags & BLOCK_OPEN_CHECK))
			continue;
		node = memdisk_open(w.cut, "qcow2", NULL, 0, NULL);
		assert_non_null(node);
		block_unref(node);
	}
	assert_true(opened > 500 && refused > 500);
	free(image);
	free(first);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_cuts),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
