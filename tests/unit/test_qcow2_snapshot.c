/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internal snapshots: what each holds stays, whatever is done to the disk and to the others; a
 * power cut at any moment of taking, applying and deleting leaves the image as it was before or as
 * it is after; failures at every request; tables that lie.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/qcow2/check.h"
#include "block/qcow2/qcow2.h"
#include "block/snapshot.h"
#include "tests/lib/block_powercut.h"

enum { SECTOR = 512, PHASES = 40, SNAPS = 4 };

/* What an image should hold. */
struct state {
	uint8_t *disk;
	unsigned snaps;
	char names[SNAPS][8];
	uint8_t *shots[SNAPS]; /* borrowed from an earlier state's disk */
};

struct scenario {
	unsigned cluster_bits, refcount_bits;
	bool v2, backing;
	uint64_t size, room;
	unsigned stride;
	bool extended; /* L2 entries */
};

struct world {
	const struct scenario *sc;
	struct evloop *loop;
	struct memdisk *disk, *below, *cut, *cut_below; /* cut: what a cut left is opened on */
	uint8_t *got;
	struct block_node *node;
	unsigned seed, phases, taken;
	bool is_op[PHASES]; /* otherwise writes */
	struct state states[PHASES + 1];
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

	*new = *old;
	new->disk = xmalloc(w->sc->size);
	memcpy(new->disk, old->disk, w->sc->size);
	return new;
}

static void write_phase(struct world *w)
{
	struct state *new = next_state(w);
	uint64_t sectors = w->sc->size / SECTOR;

	for (int k = 0; k < 6; k++) {
		uint64_t n = 1 + rand_r(&w->seed) % 40, at = rand_r(&w->seed) % (sectors - n);
		bool zero = rand_r(&w->seed) % 4 == 0;

		for (uint64_t i = at; i < at + n; i++) {
			if (zero)
				memset(new->disk + i *SECTOR, 0, SECTOR);
			else
				fill(new->disk + i *SECTOR, i, w->phases + 1);
		}
		if (zero)
			assert_int_equal(
				block_zero(w->node, at * SECTOR, n * SECTOR, BLOCK_MAY_UNMAP), 0);
		else
			assert_int_equal(block_pwrite(w->node, at * SECTOR, new->disk + at *SECTOR,
						      n * SECTOR, 0),
					 0);
	}
	assert_int_equal(block_flush(w->node), 0);
}

static void op_phase(struct world *w)
{
	struct state *new = next_state(w);
	unsigned what = rand_r(&w->seed) % 10, i = new->snaps ? rand_r(&w->seed) % new->snaps : 0;
	struct error *err = NULL;
	bool ok;

	w->is_op[w->phases] = true;
	if (!new->snaps || (what < 5 && new->snaps < SNAPS)) {
		struct block_snapshot info = {.name = new->names[new->snaps], .date_sec = 1};

		snprintf(info.name, sizeof(new->names[0]), "s%u", w->taken++);
		ok = block_snapshot_create(w->node, &info, &err);
		new->shots[new->snaps++] = w->states[w->phases].disk;
	} else if (what < 8) {
		ok = block_snapshot_apply(w->node, block_snapshot_find(w->node, new->names[i]),
					  &err);
		memcpy(new->disk, new->shots[i], w->sc->size);
	} else {
		ok = block_snapshot_delete(w->node, block_snapshot_find(w->node, new->names[i]),
					   &err);
		new->snaps--;
		memmove(new->names[i], new->names[i + 1], (new->snaps - i) * sizeof(new->names[0]));
		memmove(&new->shots[i], &new->shots[i + 1],
			(new->snaps - i) * sizeof(new->shots[0]));
	}
	if (!ok)
		fail_msg("%s", error_message(err));
}

static bool same_disk(const struct world *w, struct block_node *node, const uint8_t *disk)
{
	assert_int_equal(block_length(node), w->sc->size);
	assert_int_equal(block_pread(node, 0, w->got, w->sc->size), 0);
	return !memcmp(w->got, disk, w->sc->size);
}

static struct block_node *open_disk(const struct world *w, struct memdisk *disk,
				    struct memdisk *below, uint32_t flags)
{
	struct error *err = NULL;
	struct block_node *node = memdisk_open(disk, "qcow2", below, flags, &err);

	if (!node)
		fail_msg("%s", error_message(err));
	return node;
}

static bool same_list(struct block_node *node, const struct state *st)
{
	size_t count;
	const struct block_snapshot *list = block_snapshots(node, &count);

	if (count != st->snaps)
		return false;
	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i].name, st->names[i]))
			return false;
	return true;
}

static void check_clean(struct block_node *node)
{
	struct block_check result;

	assert_int_equal(qcow2_check(node, 0, &result, NULL, NULL), 0);
	assert_int_equal(result.corruptions, 0);
}

/* Each sector as it was before the phase, zeroed or written in it. */
static bool between(const struct world *w, struct block_node *node, unsigned phase)
{
	uint8_t *got = w->got, wrote[SECTOR];
	bool ok = true;

	assert_int_equal(block_pread(node, 0, got, w->sc->size), 0);
	for (uint64_t at = 0; at < w->sc->size && ok; at += SECTOR) {
		fill(wrote, at / SECTOR, phase + 1);
		ok = !memcmp(got + at, w->states[phase].disk + at, SECTOR) ||
		     !memcmp(got + at, wrote, SECTOR) || block_buf_is_zero(got + at, SECTOR);
	}
	return ok;
}

/* w->cut is the disk at a cut within phase (whole: at its end). */
static void check_cut(struct world *w, unsigned phase, bool inside, bool write_on)
{
	struct memdisk *disk = w->cut, *below = w->cut_below;
	const struct state *old = &w->states[phase], *new = &w->states[phase + inside], *now;
	struct block_node *node;

	node = open_disk(w, disk, below, write_on ? BLOCK_OPEN_RDWR : 0);
	check_clean(node);
	now = same_list(node, old) ? old : new;
	assert_true(same_list(node, now));
	if (inside && !w->is_op[phase])
		assert_true(between(w, node, phase));
	else
		assert_true(same_disk(w, node, now->disk) || same_disk(w, node, new->disk));
	if (write_on) {
		uint8_t *junk = xmalloc(w->sc->size);

		memset(junk, 0xdb, w->sc->size);
		assert_int_equal(block_pwrite(node, 0, junk, w->sc->size, BLOCK_FUA), 0);
		free(junk);
		check_clean(node);
	}
	block_unref(node);
	for (unsigned i = 0; i < now->snaps; i++) {
		node = open_disk(w, disk, below, 0);
		assert_true(
			block_snapshot_show(node, block_snapshot_find(node, now->names[i]), NULL));
		assert_true(same_disk(w, node, now->shots[i]));
		block_unref(node);
	}
}

static void begin(struct world *w, uint8_t **image, uint64_t *length)
{
	struct block_create create = {.size = w->sc->size,
				      .cluster_bits = w->sc->cluster_bits,
				      .refcount_bits = w->sc->refcount_bits,
				      .v2 = w->sc->v2,
				      .extended_l2 = w->sc->extended};

	*image = memdisk_make_qcow2(&create, length);
	assert_non_null(*image);
	w->loop = evloop_new(NULL, NULL);
	w->disk = memdisk_new(w->loop, *image, *length, w->sc->room);
	w->states[0].disk = xcalloc(1, w->sc->size);
	w->got = xmalloc(w->sc->size);
	if (w->sc->backing) {
		for (uint64_t i = 0; i < w->sc->size / SECTOR; i++)
			fill(w->states[0].disk + i * SECTOR, i, 0x77777777);
		w->below = memdisk_new(w->loop, w->states[0].disk, w->sc->size, w->sc->size);
	}
	w->disk->record = true;
	w->disk->next_id = 1;
	w->node = open_disk(w, w->disk, w->below, BLOCK_OPEN_RDWR);
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

static void run_scenario(const struct scenario *sc, unsigned seed, unsigned *cuts)
{
	struct world w = {.sc = sc, .seed = seed};
	struct powercut power;
	unsigned phase = 0;
	bool inside = false;
	uint64_t length;
	uint8_t *first;

	begin(&w, &first, &length);
	for (; w.phases < PHASES; w.phases++) {
		memdisk_mark(w.disk, w.phases << 1);
		if (w.phases % 2)
			op_phase(&w);
		else
			write_phase(&w);
		memdisk_mark(w.disk, w.phases << 1 | 1);
		assert_true(same_disk(&w, w.node, w.states[w.phases + 1].disk));
		check_clean(w.node);
	}
	block_unref(w.node);
	powercut_init(&power, w.disk, first, length);
	w.cut = memdisk_new(w.loop, NULL, sc->room, sc->room);
	if (w.below)
		w.cut_below = memdisk_new(w.loop, w.below->data, sc->size, sc->size);
	for (size_t i = 0; i < w.disk->count; i++) {
		if (w.disk->events[i].type == MEM_MARK) {
			phase = w.disk->events[i].id >> 1;
			inside = !(w.disk->events[i].id & 1);
			if (!inside)
				phase++;
		}
		if (i % sc->stride || phase == PHASES)
			continue;
		for (int odds = 0; odds <= 100; odds += 50) {
			powercut_play(&power, i + 1, odds, &w.seed, w.cut);
			check_cut(&w, phase, inside, *cuts % 11 == 0);
			++*cuts;
		}
	}
	if (w.below)
		assert_int_equal(w.cut_below->writes + w.cut_below->discards, 0);
	powercut_destroy(&power);
	free(first);
	end(&w);
}

static void test_power_cuts(void **state)
{
	static const struct scenario scenarios[] = {
		{9, 16, false, false, 96 << 10, 640 << 10, 7},
		{9, 16, true, true, 64 << 10, 640 << 10, 7},
		{12, 4, false, true, 256 << 10, 2 << 20, 5},
		{16, 16, false, false, 512 << 10, 8 << 20, 7},
		{14, 16, false, true, 256 << 10, 4 << 20, 7, true},
	};
	unsigned cuts = 0;

	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
		run_scenario(&scenarios[i], 7 + i, &cuts);
	assert_true(cuts > 1000);
	print_message("%u cuts\n", cuts);
}

/* The host fails at each request in turn: the image stays good. */
static void test_errors(void **state)
{
	static const struct scenario sc = {9, 16, false, false, 64 << 10, 640 << 10, 1};

	for (unsigned at = 1; at < 400; at += 3) {
		struct block_snapshot info = {.name = (char *)"x", .date_sec = 1};
		struct world w = {.sc = &sc, .seed = 3};
		struct block_node *node;
		uint64_t length;
		uint8_t *first;
		bool ok[3] = {0};

		begin(&w, &first, &length);
		w.disk->record = false;
		for (; w.phases < 1; w.phases++)
			write_phase(&w);
		assert_true(block_snapshot_create(w.node, &info, NULL));
		w.disk->fail_at = w.disk->ops + at;
		ok[0] = block_snapshot_create(w.node, &info, NULL);
		ok[1] = ok[0] &&
			block_snapshot_apply(w.node, block_snapshot_find(w.node, "1"), NULL);
		ok[2] = ok[1] &&
			block_snapshot_delete(w.node, block_snapshot_find(w.node, "2"), NULL);
		w.disk->fail_at = 0;
		block_unref(w.node);
		/* Writing mends what a failure left; the disk and the snapshot are there. */
		node = open_disk(&w, w.disk, NULL, BLOCK_OPEN_RDWR);
		check_clean(node);
		assert_true(same_disk(&w, node, w.states[1].disk));
		block_unref(node);
		node = open_disk(&w, w.disk, NULL, 0);
		assert_true(block_snapshot_show(node, block_snapshot_find(node, "1"), NULL));
		assert_true(same_disk(&w, node, w.states[1].disk));
		block_unref(node);
		free(first);
		end(&w);
		if (ok[2])
			break;
	}
}

/* 1-bit refcounts have no room for a second reference; nothing changes then. */
static void test_full_counts(void **state)
{
	static const struct scenario sc = {12, 1, false, false, 64 << 10, 640 << 10, 1};
	struct block_snapshot info = {.name = (char *)"x", .date_sec = 1};
	struct world w = {.sc = &sc, .seed = 3};
	struct error *err = NULL;
	uint64_t length;
	uint8_t *first;

	begin(&w, &first, &length);
	write_phase(&w);
	w.phases++;
	assert_false(block_snapshot_create(w.node, &info, &err));
	assert_non_null(strstr(error_message(err), "Could not create snapshot 'x'"));
	error_free(err);
	check_clean(w.node);
	assert_true(same_disk(&w, w.node, w.states[1].disk));
	block_unref(w.node);
	free(first);
	end(&w);
}

/* Snapshots in an image of which any byte of the metadata may be wrong. */
static void use(struct block_node *node)
{
	uint8_t buf[20000] = {1};

	for (uint64_t at = 0; at + sizeof(buf) < block_length(node); at += 30000) {
		block_pread(node, at, buf, sizeof(buf));
		block_pwrite(node, at, buf, sizeof(buf) - 7, 0);
		block_zero(node, at, sizeof(buf), BLOCK_MAY_UNMAP);
		block_discard(node, at, sizeof(buf));
	}
}

static void run_hostile(const struct scenario *sc)
{
	struct block_snapshot info = {.name = (char *)"x", .date_sec = 1};
	struct world w = {.sc = sc, .seed = 3};
	uint64_t length, at, table, l2;
	uint8_t *first, *good;

	begin(&w, &first, &length);
	write_phase(&w);
	w.phases++;
	assert_true(block_snapshot_create(w.node, &info, NULL));
	assert_true(block_snapshot_create(w.node, &info, NULL));
	table = ((struct qcow2 *)w.node->opaque)->h.snapshots_offset;
	l2 = ((struct qcow2 *)w.node->opaque)->l1[0] & ENTRY_OFFSET;
	block_unref(w.node);
	good = xmalloc(sc->room);
	memcpy(good, w.disk->data, sc->room);
	for (int i = 0; i < 600; i++) {
		struct memdisk *disk = memdisk_new(w.loop, good, sc->room, sc->room);
		struct block_node *node;
		struct block_check result;
		const struct block_snapshot *sn;
		size_t count;

		for (int k = 0; k < 1 + i % 3; k++) {
			at = i % 2   ? table + rand_r(&w.seed) % 160
			     : i % 3 ? l2 + rand_r(&w.seed) % 160
				     : rand_r(&w.seed) % (sc->room / 2);
			disk->data[at] = rand_r(&w.seed) % 3 ? rand_r(&w.seed) : 0xff;
		}
		node = memdisk_open(disk, "qcow2", NULL,
				    BLOCK_OPEN_RDWR | (i % 4 == 3 ? BLOCK_OPEN_CHECK : 0), NULL);
		if (node) {
			block_snapshots(node, &count);
			use(node);
			sn = block_snapshot_find(node, "2");
			if (sn)
				block_snapshot_apply(node, sn, NULL);
			sn = block_snapshot_find(node, "1");
			if (sn)
				block_snapshot_delete(node, sn, NULL);
			block_snapshot_create(node, &info, NULL);
			qcow2_check(node, i % 5 ? 0 : BLOCK_FIX_ALL, &result, NULL, NULL);
			block_unref(node);
		}
		memdisk_free(disk);
	}
	free(good);
	free(first);
	end(&w);
}

static void test_hostile(void **state)
{
	static const struct scenario plain = {9, 16, false, false, 64 << 10, 256 << 10, 1};
	static const struct scenario extended = {14,	    16,	       false, false,
						 128 << 10, 512 << 10, 1,     true};

	run_hostile(&plain);
	run_hostile(&extended);
}

/* A guest's cluster that lies on metadata is not written: the image is marked corrupt instead. */
static void test_overlaps(void **state)
{
	static const struct scenario sc = {12, 16, false, false, 64 << 10, 512 << 10, 1};

	for (int what = 0; what < 7; what++) {
		struct block_snapshot info = {.name = (char *)"x", .date_sec = 1};
		struct world w = {.sc = &sc, .seed = 3};
		uint8_t buf[4096] = {1}, before[4096];
		uint64_t length, l2, on[7];
		struct block_node *node;
		struct qcow2 *s;
		uint8_t *first;

		begin(&w, &first, &length);
		assert_true(block_snapshot_create(w.node, &info, NULL));
		assert_int_equal(block_pwrite(w.node, 0, buf, sizeof(buf), BLOCK_FUA), 0);
		s = w.node->opaque;
		l2 = s->l1[0] & ENTRY_OFFSET;
		on[0] = 0;
		on[1] = s->h.l1_offset;
		on[2] = s->h.reftable_offset;
		on[3] = s->reftable[0];
		on[4] = l2;
		on[5] = s->h.snapshots_offset;
		on[6] = s->snapshots.more[0].l1_offset;
		block_unref(w.node);
		store_be64(w.disk->data + l2 + 8, on[what] | ENTRY_COPIED | (what ? 0 : 512));
		memcpy(before, w.disk->data + on[what], sizeof(before));
		node = open_disk(&w, w.disk, NULL, BLOCK_OPEN_RDWR);
		/* Brings the first refcount block into the cache. */
		assert_int_equal(block_pwrite(node, 9 * 4096, buf, sizeof(buf), BLOCK_FUA), 0);
		if (what == 3 || what == 4) /* they have changed by right */
			memcpy(before, w.disk->data + on[what], sizeof(before));
		assert_int_equal(block_pwrite(node, 4096, buf, sizeof(buf), 0), -EIO);
		assert_int_equal(block_pread(node, 0, buf, 512), -EIO);
		block_unref(node);
		assert_memory_equal(before + 80, w.disk->data + on[what] + 80, sizeof(before) - 80);
		assert_true(load_be64(w.disk->data + QCOW2_OFF_INCOMPATIBLE) &
			    QCOW2_INCOMPAT_CORRUPT);
		assert_null(memdisk_open(w.disk, "qcow2", NULL, BLOCK_OPEN_RDWR, NULL));
		free(first);
		end(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_cuts),  cmocka_unit_test(test_errors),
		cmocka_unit_test(test_full_counts), cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_overlaps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
