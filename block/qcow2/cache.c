/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices of L2 tables and refcount blocks in memory: bounded in number, found by their place in the
 * file, let go oldest first. A slice is at most 4 KiB, so that a lookup in an image with 2 MiB
 * clusters does not read 2 MiB.
 *
 * A dirty slice of an L2 table is written by commits alone (qcow2.h, rule 1). A dirty slice of
 * refcounts may be written at any time: what is raised in it is at worst a leak, and what is
 * lowered was let go on the disk before.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2.h"

static struct qslice **bucket(struct qcache *c, uint64_t offset)
{
	uint64_t h = offset / 512 * UINT64_C(0x9e3779b97f4a7c15);

	return &c->hash[(h >> 32) & (c->buckets - 1)];
}

static struct qslice *lookup(struct qcache *c, uint64_t offset)
{
	struct qslice *e = *bucket(c, offset);

	while (e && e->offset != offset)
		e = e->hash_next;
	return e;
}

static void unlink_age(struct qcache *c, struct qslice *e)
{
	*(e->older ? &e->older->newer : &c->oldest) = e->newer;
	*(e->newer ? &e->newer->older : &c->newest) = e->older;
}

static void link_newest(struct qcache *c, struct qslice *e)
{
	e->older = c->newest;
	e->newer = NULL;
	*(c->newest ? &c->newest->newer : &c->oldest) = e;
	c->newest = e;
}

static void link_oldest(struct qcache *c, struct qslice *e)
{
	e->newer = c->oldest;
	e->older = NULL;
	*(c->oldest ? &c->oldest->older : &c->newest) = e;
	c->oldest = e;
}

/* It holds nothing afterwards, and is the first to be used again. */
static void empty(struct qcache *c, struct qslice *e)
{
	struct qslice **p = bucket(c, e->offset);

	while (*p != e)
		p = &(*p)->hash_next;
	*p = e->hash_next;
	e->offset = 0;
	e->ready = false;
	unlink_age(c, e);
	link_oldest(c, e);
}

bool qcache_init(struct qcache *c, struct qcow2 *s, bool is_refcount, uint64_t bytes)
{
	c->s = s;
	c->is_refcount = is_refcount;
	c->slice_size = UINT64_C(1) << c->slice_bits;
	c->max = MAX(bytes / c->slice_size, UINT64_C(8));
	for (c->buckets = 16; c->buckets < c->max && c->buckets < 4096;)
		c->buckets *= 2;
	c->hash = calloc(c->buckets, sizeof(*c->hash));
	return c->hash != NULL;
}

void qcache_destroy(struct qcache *c)
{
	struct qslice *e, *next;

	for (e = c->oldest; e; e = next) {
		next = e->newer;
		free(e->req);
		free(e->data);
		free(e);
	}
	free(c->hash);
	*c = (struct qcache){0};
}

static void slice_io_done(struct block_req *req, int ret);

static struct qslice *new_slice(struct qcache *c)
{
	struct qslice *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	if (posix_memalign((void **)&e->data, 4096, c->slice_size)) {
		free(e);
		return NULL;
	}
	e->cache = c;
	e->req = qcow2_file_req(c->s, slice_io_done, e);
	c->count++;
	link_oldest(c, e);
	return e;
}

/* A slice to fill, or NULL with w queued or *ret set. */
static struct qslice *make_room(struct qcache *c, struct waiter *w, int *ret)
{
	struct qslice *e, *dirty = NULL;

	*ret = -EAGAIN;
	for (e = c->oldest; e && e->offset; e = e->newer) {
		if (c->count < c->max)
			break; /* a new one is better than an old one's loss */
		if (e->ready && !e->dirty && !e->writing) {
			empty(c, e);
			return e;
		}
		if (!dirty && e->dirty && !e->writing)
			dirty = e;
	}
	if (e && !e->offset)
		return e;
	if (c->count < c->max) {
		e = new_slice(c);
		if (e)
			return e;
		if (!c->count) {
			*ret = -ENOMEM;
			return NULL;
		}
	}
	if (dirty && c->is_refcount) {
		qcache_write(dirty);
		waitq_add(&dirty->waiters, w);
	} else if (dirty) {
		qcow2_commit(c->s, w);
	} else {
		waitq_add(&c->crowded, w);
	}
	return NULL;
}

int qcache_get(struct qcache *c, uint64_t offset, struct waiter *w, struct qslice **out)
{
	struct qcow2 *s = c->s;
	struct qslice *e = lookup(c, offset), **head;
	int ret;

	if (e)
		e->used = true;
	if (e && e->ready) {
		if (e != c->newest) {
			unlink_age(c, e);
			link_newest(c, e);
		}
		*out = e;
		return 0;
	}
	if (!e) {
		e = make_room(c, w, &ret);
		if (!e)
			return ret;
		e->offset = offset;
		e->used = true;
		head = bucket(c, offset);
		e->hash_next = *head;
		*head = e;
		unlink_age(c, e);
		link_newest(c, e);
		block_tell(s->file, c->is_refcount ? BLOCK_EV_REFBLOCK_LOAD : BLOCK_EV_L2_LOAD);
		qcow2_file_io(s, e->req, BLOCK_READ, offset, &e->iov, e->data, c->slice_size);
	}
	waitq_add(&e->waiters, w);
	return -EAGAIN;
}

void qcache_dirty(struct qslice *e)
{
	struct qcache *c = e->cache;

	if (e->dirty)
		return;
	e->dirty = true;
	c->dirty++;
	/* Before there is nothing clean left to let go. */
	if (!c->is_refcount && c->dirty > c->max / 2)
		qcow2_commit(c->s, NULL);
}

void qcache_forget(struct qcache *c, uint64_t cluster)
{
	for (uint64_t at = 0; at < c->s->cluster_size; at += c->slice_size) {
		struct qslice *e = lookup(c, cluster + at);

		if (e && e->ready && !e->dirty && !e->writing)
			empty(c, e);
		else if (e && !e->ready)
			e->stale = true;
	}
}

void qcache_clear(struct qcache *c)
{
	struct qslice *e, *next;

	/* Whoever changed the disk may have let go of compressed clusters. */
	c->s->packed = 0;
	qunpack_forget(c->s, 0);
	for (e = c->oldest; e; e = next) {
		next = e->newer;
		if (e->ready && !e->dirty && !e->writing)
			empty(c, e);
	}
}

bool qcache_overlaps(struct qcache *c, uint64_t offset, uint64_t bytes)
{
	uint64_t at = ALIGN_DOWN(offset, c->slice_size), end = offset + bytes;

	/* A large write may be longer than the cache. */
	if ((end - at) / c->slice_size > c->count) {
		for (struct qslice *e = c->newest; e; e = e->older)
			if (e->offset && ranges_overlap(e->offset, c->slice_size, offset, bytes))
				return true;
		return false;
	}
	for (; at < end; at += c->slice_size)
		if (lookup(c, at))
			return true;
	return false;
}

void qcache_clean(struct qcache *c)
{
	struct qslice *e, *next;

	for (e = c->oldest; e; e = next) {
		bool idle = !e->offset || (e->ready && !e->used && !e->dirty && !e->writing);

		next = e->newer;
		e->used = false;
		if (!idle)
			continue;
		if (e->offset)
			empty(c, e);
		unlink_age(c, e);
		free(e->req);
		free(e->data);
		free(e);
		c->count--;
	}
}

void qcache_write(struct qslice *e)
{
	struct qcow2 *s = e->cache->s;

	e->dirty = false;
	e->cache->dirty--;
	e->writing = true;
	block_tell(s->file,
		   e->cache->is_refcount ? BLOCK_EV_REFBLOCK_UPDATE : BLOCK_EV_L2_UPDATE);
	qcow2_file_io(s, e->req, BLOCK_WRITE, e->offset, &e->iov, e->data,
		      e->cache->slice_size);
}

static void slice_written(struct qcow2 *s, struct qslice *e, int ret)
{
	bool commit = e->in_commit;

	e->writing = false;
	if (ret && !e->dirty) {
		e->dirty = true;
		e->cache->dirty++;
	}
	if (!ret)
		s->unsynced = true;
	if (commit && !ret && e->dirty) {
		qcache_write(e); /* changed while an older state was on its way */
		return;
	}
	e->in_commit = false;
	if (commit)
		qcow2_commit_written(s, ret);
}

static void slice_io_done(struct block_req *req, int ret)
{
	struct qslice *e = req->ctx;
	struct qcache *c = e->cache;
	struct qcow2 *s = c->s;

	if (e->writing)
		slice_written(s, e, ret);
	else if (!ret && !e->stale)
		e->ready = true;
	else
		empty(c, e);
	e->stale = false;
	waitq_move(&s->runq, &e->waiters, ret);
	waitq_move(&s->runq, &c->crowded, 0);
	qcow2_run_waiters(s);
}

unsigned qcache_write_all(struct qcache *c)
{
	unsigned n = 0;

	for (struct qslice *e = c->newest; e; e = e->older) {
		if (!e->dirty && !e->writing)
			continue;
		e->in_commit = true;
		n++;
		if (!e->writing)
			qcache_write(e);
	}
	return n;
}
