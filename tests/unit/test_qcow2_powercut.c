/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts: a guest writes, zeroes, discards and flushes through qcow2 on a recording disk that
 * completes in random order. Then the disk is put together as a power cut at each moment could have
 * left it: what a completed flush covers is there, of the rest any sectors may be. The image must
 * open, have leaks at most, and hold every sector as the guest last flushed it, or newer.
 *
 * Each sector of the guest's is filled with its number and a version, so that bytes that came from
 * elsewhere show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/qcow2/check.h"
#include "config.h"
#include "tests/lib/block_memdisk.h"
#include "tests/lib/crypt_secret.h"

/* MADE: the events that put the new image on the disk; no cut comes before them. */
enum { SLOTS = 8, SECTOR = 512, MADE = 4 };

/* Versions of one sector: 0 is what was below; a discard allows anything older, or zero. */
struct version {
	uint32_t op;
	bool zero, discard;
};

struct op {
	enum block_op kind;
	uint64_t offset, bytes;
	bool issued, done, packed;
	uint64_t floor_after; /* FLUSH: writes with done before its issue count */
};

struct history {
	struct version *versions;
	unsigned count;
};

struct scenario {
	const char *name;
	unsigned cluster_bits, refcount_bits;
	bool v2, backing;
	uint64_t size, disk;
	unsigned ops;
	uint64_t most;	 /* bytes of one request */
	unsigned stride; /* every how many events a cut is played */
	bool extended;	 /* L2 entries */
	bool lazy;	 /* refcounts, which opening for writing then counts anew */
	bool luks;	 /* encrypted */
	bool packed;	 /* most writes are of whole clusters, compressed */
};

struct guest {
	const struct scenario *sc;
	struct evloop *loop;
	struct memdisk *disk, *below;
	struct objects *secrets;
	struct block_node *node;
	struct op *ops;
	struct history *sectors;
	unsigned next, seed;
	struct slot {
		struct guest *g;
		struct block_req *req;
		unsigned op;
		bool busy;
		uint8_t *buf;
		struct iovec iov;
	} slots[SLOTS];
};

static void stamp(uint8_t *buf, uint64_t sector, uint32_t op)
{
	uint64_t value = sector << 32 | (op + 1);

	for (int i = 0; i < SECTOR / 8; i++)
		store_le64(buf + i * 8, value);
}

static bool overlaps_busy(const struct guest *g, uint64_t offset, uint64_t bytes)
{
	for (int i = 0; i < SLOTS; i++) {
		const struct op *op = &g->ops[g->slots[i].op];

		if (g->slots[i].busy && ranges_overlap(offset, bytes, op->offset, op->bytes))
			return true;
	}
	return false;
}

static void choose(struct guest *g, struct op *op)
{
	unsigned what = rand_r(&g->seed) % 100;
	uint64_t sectors = g->sc->size / SECTOR, n, at;
	unsigned tries = 0;
	bool packed;

	*op = (struct op){.kind = BLOCK_FLUSH};
	if (what < 12)
		return;
	do {
		/* There may be no place left for whole clusters. */
		if (tries++ == 100)
			return;
		n = 1 + rand_r(&g->seed) % (what % 3 ? 4 : g->sc->most / SECTOR);
		n = MIN(n, sectors);
		at = rand_r(&g->seed) % (sectors - n + 1);
		if (what % 2) {
			uint64_t per = (UINT64_C(1) << g->sc->cluster_bits) / SECTOR;

			at -= at % per;
		}
		n = MIN(n, sectors - at);
		packed = g->sc->packed && what < 70 && what % 4;
		if (packed) {
			uint64_t per = (UINT64_C(1) << g->sc->cluster_bits) / SECTOR;

			at -= at % per;
			n = MIN(ALIGN_UP(n, per), 3 * per);
			n = MIN(n, sectors - at);
		}
	} while (overlaps_busy(g, at * SECTOR, n * SECTOR));
	op->packed = packed;
	op->kind = what < 70 ? BLOCK_WRITE : what < 85 ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES;
	op->offset = at * SECTOR;
	op->bytes = n * SECTOR;
}

static void op_done(struct block_req *req, int ret)
{
	struct slot *slot = req->ctx;
	struct guest *g = slot->g;

	assert_int_equal(ret, 0);
	slot->busy = false;
	g->ops[slot->op].done = true;
	memdisk_mark(g->disk, slot->op << 1 | 1);
	free(slot->buf);
	slot->buf = NULL;
}

static void issue(struct guest *g, struct slot *slot)
{
	unsigned number = g->next++;
	struct op *op = &g->ops[number];

	choose(g, op);
	op->issued = true;
	slot->op = number;
	slot->busy = true;
	memdisk_mark(g->disk, number << 1);
	slot->buf = op->kind == BLOCK_WRITE ? xmalloc(op->bytes) : NULL;
	for (uint64_t i = 0; i < op->bytes / SECTOR; i++) {
		uint64_t sector = op->offset / SECTOR + i;
		struct history *h = &g->sectors[sector];

		if (op->kind == BLOCK_WRITE)
			stamp(slot->buf + i * SECTOR, sector, number);
		h->versions = xrealloc(h->versions, (h->count + 1) * sizeof(*h->versions));
		h->versions[h->count++] = (struct version){.op = number,
							   .zero = op->kind == BLOCK_WRITE_ZEROES,
							   .discard = op->kind == BLOCK_DISCARD};
	}
	slot->iov = (struct iovec){slot->buf, op->bytes};
	slot->req->node = g->node;
	slot->req->op = op->kind;
	slot->req->flags = op->kind == BLOCK_WRITE_ZEROES && number % 2 ? BLOCK_MAY_UNMAP : 0;
	if (op->packed)
		slot->req->flags = BLOCK_COMPRESSED;
	slot->req->offset = op->offset;
	slot->req->bytes = op->bytes;
	slot->req->iov = &slot->iov;
	slot->req->iovcnt = 1;
	slot->req->done = op_done;
	slot->req->ctx = slot;
	block_submit(slot->req);
}

static bool any_busy(const struct guest *g)
{
	for (int i = 0; i < SLOTS; i++)
		if (g->slots[i].busy)
			return true;
	return false;
}

static void run_guest(struct guest *g)
{
	for (int i = 0; i < SLOTS; i++) {
		g->slots[i].g = g;
		g->slots[i].req = xcalloc(1, block_req_size(g->node));
	}
	while (g->next < g->sc->ops || any_busy(g)) {
		for (int i = 0; i < SLOTS; i++)
			if (!g->slots[i].busy && g->next < g->sc->ops && rand_r(&g->seed) % 3)
				issue(g, &g->slots[i]);
		evloop_run_once(g->loop, any_busy(g) ? -1 : 0);
	}
	for (int i = 0; i < SLOTS; i++)
		free(g->slots[i].req);
}

/* Replaying */

struct replay {
	struct guest *g;
	uint8_t *durable, *all;
	struct memdisk *disk, *below; /* what the image is opened on */
	struct out {
		const struct mem_event *e;
		bool done;
	} * out; /* writes that no flush covers yet, in the order of their issue */
	size_t out_count;
	uint8_t *issued, *done; /* guest operations at this moment */
	uint32_t *covered;	/* for a flush under way: the writes done before, by id */
	unsigned *floor;	/* of each sector: the first version that may still be seen */
	unsigned seed, cuts;
};

/* The versions below the last flushed one may not come back. */
static void raise_floors(struct replay *r, const uint8_t *done_then)
{
	for (uint64_t s = 0; s < r->g->sc->size / SECTOR; s++) {
		struct history *h = &r->g->sectors[s];

		for (unsigned v = r->floor[s]; v < h->count; v++)
			if (done_then[h->versions[v].op])
				r->floor[s] = v + 1; /* counted from 1; 0 is what was below */
	}
}

static void check_sector(struct replay *r, uint64_t sector, const uint8_t *got)
{
	struct history *h = &r->g->sectors[sector];
	uint64_t value = load_le64(got);
	unsigned first = r->floor[sector];
	bool zero = block_buf_is_zero(got, SECTOR);

	for (int i = 1; i < SECTOR / 8; i++)
		assert_true(load_le64(got + i * 8) == value);
	if (!zero)
		assert_int_equal(value >> 32, sector);
	if (!first) {
		uint8_t was[SECTOR] = {0};

		if (r->g->below)
			memcpy(was, r->g->below->data + sector * SECTOR, SECTOR);
		if (!memcmp(was, got, SECTOR))
			return;
	}
	for (unsigned v = first ? first - 1 : 0; v < h->count; v++) {
		const struct version *ver = &h->versions[v];

		if (!r->issued[ver->op])
			break;
		if (ver->discard) {
			/* Anything of this sector's past, or zero. */
			if (zero || (uint32_t)value <= ver->op + 1 || (uint32_t)value == UINT32_MAX)
				return;
		} else if (ver->zero ? zero : (!zero && (uint32_t)value == ver->op + 1)) {
			return;
		}
	}
	fail_msg("sector %llu holds version %lld, flushed was version %u of %u",
		 (unsigned long long)sector, (long long)(uint32_t)value - 1, first, h->count);
}

static void check_image(struct replay *r, bool write_on)
{
	const struct scenario *sc = r->g->sc;
	struct block_check result;
	struct error *err = NULL;
	struct block_node *node;
	uint8_t *all = r->all;

	node = memdisk_open(r->disk, "qcow2", r->below, write_on || sc->lazy ? BLOCK_OPEN_RDWR : 0,
			    &err);
	if (!node)
		fail_msg("%s", error_message(err));
	assert_int_equal(qcow2_check(node, 0, &result, NULL, NULL), 0);
	if (result.corruptions)
		fail_msg("%s: %llu corruptions at cut %u", sc->name,
			 (unsigned long long)result.corruptions, r->cuts);
	assert_int_equal(block_pread(node, 0, all, sc->size), 0);
	for (uint64_t s = 0; s < sc->size / SECTOR; s++)
		check_sector(r, s, all + s * SECTOR);
	if (write_on) {
		/* Life goes on: all is written over, and still nothing collides. */
		assert_int_equal(block_pwrite(node, 0, all, sc->size, BLOCK_FUA), 0);
		assert_int_equal(qcow2_check(node, 0, &result, NULL, NULL), 0);
		assert_int_equal(result.corruptions, 0);
	}
	block_unref(node);
}

/* Each sector of each write is there or not, with the odds in a hundred. */
static void cut(struct replay *r, int odds, bool torn)
{
	memdisk_again(r->disk, r->durable, r->g->sc->disk);
	for (size_t i = 0; i < r->out_count; i++) {
		const struct mem_event *e = r->out[i].e;
		bool whole = (int)(rand_r(&r->seed) % 100) < odds;

		for (uint64_t at = 0; at < e->bytes; at += SECTOR) {
			bool there = torn ? (int)(rand_r(&r->seed) % 100) < odds : whole;

			if (there)
				memcpy(r->disk->data + e->offset + at, e->data + at,
				       MIN((uint64_t)SECTOR, e->bytes - at));
		}
	}
	r->cuts++;
	check_image(r, r->cuts % 37 == 0);
}

static void play(struct guest *g, unsigned *cuts)
{
	const struct scenario *sc = g->sc;
	struct memdisk *disk = g->disk;
	struct replay r = {.g = g, .seed = 5};
	uint8_t **flush_done = xcalloc(g->next + 1, sizeof(*flush_done));
	uint32_t *flush_mark = xcalloc(disk->next_id + 1, sizeof(*flush_mark));

	r.durable = xcalloc(1, sc->disk);
	r.all = xmalloc(sc->size);
	r.disk = memdisk_new(g->loop, NULL, sc->disk, sc->disk);
	r.disk->objects = g->secrets;
	r.below = g->below ? memdisk_new(g->loop, g->below->data, sc->size, sc->size) : NULL;
	r.out = xcalloc(disk->count + 1, sizeof(*r.out));
	r.issued = xcalloc(1, g->next + 1);
	r.done = xcalloc(1, g->next + 1);
	r.floor = xcalloc(sc->size / SECTOR, sizeof(*r.floor));
	for (size_t i = 0; i < disk->count; i++) {
		const struct mem_event *e = &disk->events[i];
		size_t keep = 0;

		switch (e->type) {
		case MEM_WRITE:
			r.out[r.out_count++].e = e;
			r.out[r.out_count - 1].done = false;
			break;
		case MEM_WRITE_DONE:
			for (size_t k = 0; k < r.out_count; k++)
				if (r.out[k].e->id == e->id)
					r.out[k].done = true;
			break;
		case MEM_FLUSH:
			flush_mark[e->id] = i + 1;
			break;
		case MEM_FLUSH_DONE:
			/* Covers the writes whose end comes before the flush's beginning. */
			for (size_t k = 0; k < r.out_count; k++) {
				bool covered = false;

				for (size_t b = flush_mark[e->id]; r.out[k].done && b-- > 0;) {
					if (disk->events[b].type == MEM_WRITE_DONE &&
					    disk->events[b].id == r.out[k].e->id) {
						covered = true;
						break;
					}
					if (&disk->events[b] == r.out[k].e)
						break;
				}
				if (covered)
					memcpy(r.durable + r.out[k].e->offset, r.out[k].e->data,
					       r.out[k].e->bytes);
				else
					r.out[keep++] = r.out[k];
			}
			r.out_count = keep;
			break;
		case MEM_MARK: {
			uint32_t op = e->id >> 1;

			if (!(e->id & 1)) {
				r.issued[op] = 1;
				if (g->ops[op].kind == BLOCK_FLUSH) {
					flush_done[op] = xmalloc(g->next + 1);
					memcpy(flush_done[op], r.done, g->next + 1);
				}
			} else {
				r.done[op] = 1;
				if (flush_done[op])
					raise_floors(&r, flush_done[op]);
			}
			break;
		}
		}
		if (i < MADE || i % sc->stride)
			continue;
		cut(&r, 100, false);
		if (!r.out_count)
			continue; /* all others would be the same */
		cut(&r, 0, false);
		if (r.out_count > 1)
			cut(&r, 50, false);
		cut(&r, 10 + rand_r(&r.seed) % 80, true);
	}
	if (r.below)
		assert_int_equal(r.below->writes + r.below->discards, 0);
	*cuts += r.cuts;
	for (unsigned i = 0; i < g->next; i++)
		free(flush_done[i]);
	free(flush_done);
	free(flush_mark);
	free(r.durable);
	free(r.all);
	memdisk_free(r.disk);
	memdisk_free(r.below);
	free(r.out);
	free(r.issued);
	free(r.done);
	free(r.floor);
}

/* The image as it was made, written and flushed, becomes the beginning of the record. */
static void put_first(struct memdisk *disk, uint8_t *image, uint64_t length)
{
	struct mem_event *all = xmalloc((disk->count + MADE) * sizeof(*all));

	all[0] = (struct mem_event){.type = MEM_WRITE, .bytes = length, .data = image};
	all[1] = (struct mem_event){.type = MEM_WRITE_DONE};
	all[2] = (struct mem_event){.type = MEM_FLUSH, .id = disk->next_id};
	all[3] = (struct mem_event){.type = MEM_FLUSH_DONE, .id = disk->next_id};
	memcpy(all + MADE, disk->events, disk->count * sizeof(*all));
	free(disk->events);
	disk->events = all;
	disk->count += MADE;
	disk->next_id++;
}

static void run_scenario(const struct scenario *sc, unsigned seed, unsigned *cuts)
{
	struct block_create create = {.size = sc->size,
				      .cluster_bits = sc->cluster_bits,
				      .refcount_bits = sc->refcount_bits,
				      .v2 = sc->v2,
				      .extended_l2 = sc->extended,
				      .lazy_refcounts = sc->lazy};
	struct guest g = {.sc = sc, .seed = seed, .secrets = sc->luks ? crypt_secrets() : NULL};
	struct error *err = NULL;
	struct opts opts = {0};
	uint64_t length = 0;
	uint8_t *image;

	if (sc->luks) {
		create.luks = true;
		create.objects = g.secrets;
		create.opts = &opts;
		opts_add(&opts, "encrypt.key-secret", "s");
		opts_add(&opts, "encrypt.cipher-alg", "aes-128");
		opts_add(&opts, "encrypt.cipher-mode", "cbc");
		opts_add(&opts, "encrypt.iter-time", "1");
	}
	image = memdisk_make_qcow2(&create, &length);
	opts_free(&opts);
	assert_non_null(image);
	assert_true(length <= sc->disk);
	g.loop = evloop_new(NULL, NULL);
	g.disk = memdisk_new(g.loop, image, length, sc->disk);
	g.disk->seed = seed;
	g.disk->objects = g.secrets;
	if (sc->backing) {
		g.below = memdisk_new(g.loop, NULL, sc->size, sc->size);
		for (uint64_t s = 0; s < sc->size / SECTOR; s++)
			stamp(g.below->data + s * SECTOR, s, UINT32_MAX - 1);
	}
	g.disk->record = true;
	g.disk->next_id = 1;
	/* The image as made lies on the disk already. */
	g.node = memdisk_open(g.disk, "qcow2", g.below, BLOCK_OPEN_RDWR, &err);
	assert_non_null(g.node);
	g.ops = xcalloc(sc->ops + 1, sizeof(*g.ops));
	g.sectors = xcalloc(sc->size / SECTOR, sizeof(*g.sectors));
	run_guest(&g);
	block_unref(g.node);
	put_first(g.disk, image, length);
	play(&g, cuts);
	for (uint64_t s = 0; s < sc->size / SECTOR; s++)
		free(g.sectors[s].versions);
	free(g.sectors);
	free(g.ops);
	memdisk_free(g.disk);
	memdisk_free(g.below);
	objects_free(g.secrets);
	evloop_free(g.loop);
}

static const struct scenario scenarios[] = {
	{"512", 9, 16, false, false, 96 << 10, 640 << 10, 400, 8192, 3},
	{"512, backing", 9, 16, false, true, 64 << 10, 640 << 10, 300, 8192, 3},
	{"v2", 9, 16, true, false, 64 << 10, 640 << 10, 300, 8192, 5},
	{"v2, backing", 9, 16, true, true, 64 << 10, 640 << 10, 300, 8192, 5},
	{"4k, 1 bit", 12, 1, false, false, 256 << 10, 1 << 20, 300, 16384, 5},
	{"4k, backing", 12, 16, false, true, 256 << 10, 1 << 20, 300, 16384, 5},
	{"64k", 16, 16, false, true, 512 << 10, 3 << 20, 150, 65536, 5},
	{"subclusters", 14, 16, false, false, 256 << 10, 1 << 20, 300, 16384, 5, true},
	{"subclusters, backing", 14, 16, false, true, 256 << 10, 1 << 20, 300, 16384, 5, true},
	{"lazy", 9, 16, false, false, 96 << 10, 640 << 10, 300, 8192, 5, false, true},
	{"lazy, 4k, backing", 12, 1, false, true, 256 << 10, 1 << 20, 200, 16384, 5, false, true},
};

#if defined(CONFIG_ZLIB) || defined(CONFIG_LIBDEFLATE)
static const struct scenario packed[] = {
	{"packed, 4k", 12, 16, false, false, 256 << 10, 1 << 20, 300, 16384, 5, .packed = true},
	{"packed, 4k, 1 bit", 12, 1, false, true, 256 << 10, 1 << 20, 200, 16384, 7, .packed = true},
	{"packed, 64k", 16, 16, false, true, 512 << 10, 3 << 20, 150, 65536, 9, .packed = true},
	{"packed, subclusters", 14, 16, false, true, 256 << 10, 1 << 20, 200, 16384, 7, true,
	 .packed = true},
};
#endif

static void test_packed(void **state)
{
#if defined(CONFIG_ZLIB) || defined(CONFIG_LIBDEFLATE)
	unsigned cuts = 0;

	for (size_t i = 0; i < ARRAY_SIZE(packed); i++)
		run_scenario(&packed[i], 300 + i, &cuts);
	assert_true(cuts >= 500);
	print_message("%u cuts\n", cuts);
#else
	skip();
#endif
}

#ifdef CONFIG_NETTLE
static const struct scenario encrypted[] = {
	{"luks", 9, 16, false, false, 96 << 10, 1280 << 10, 200, 8192, 7, .luks = true},
	{"luks, backing", 12, 16, false, true, 256 << 10, 2 << 20, 200, 16384, 13, .luks = true},
	{"luks, subclusters", 14, 16, false, true, 256 << 10, 2 << 20, 150, 16384, 13, true,
	 .luks = true},
};
#endif

static void test_power_cuts(void **state)
{
	unsigned cuts = 0;

	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
		run_scenario(&scenarios[i], 100 + i, &cuts);
	assert_true(cuts >= 4000);
	print_message("%u cuts\n", cuts);
}

static void test_encrypted(void **state)
{
#ifdef CONFIG_NETTLE
	unsigned cuts = 0;

	for (size_t i = 0; i < ARRAY_SIZE(encrypted); i++)
		run_scenario(&encrypted[i], 200 + i, &cuts);
	assert_true(cuts >= 500);
	print_message("%u cuts\n", cuts);
#else
	skip();
#endif
}

/* 64-bit counts on 512-byte clusters: the refcount table fills at 2 MiB and has to move. */
static void test_growing_refcount_table(void **state)
{
	static const struct scenario sc = {"growing", 9,       64,  false, false,
					   3 << 20,   6 << 20, 260, 65536, 97};
	unsigned cuts = 0;

	run_scenario(&sc, 3, &cuts);
	assert_true(cuts > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_cuts),
		cmocka_unit_test(test_packed),
		cmocka_unit_test(test_growing_refcount_table),
		cmocka_unit_test(test_encrypted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
