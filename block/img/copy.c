/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several workers, each with a piece of the disk: it is read, searched for zeroes and written. So
 * reading, writing and compressing overlap; the loop's thread only looks for zeroes. What the maps
 * say is zero is never read.
 *
 * Pieces are small enough that all workers' buffers stay in the processor's caches. With "ordered"
 * writes are started in the disk's order, so that a new image's clusters lie in that order too.
 */
#include "block/img/copy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct copy;

struct worker {
	struct copy *x;
	bool busy, has_turn, waiting;
	uint64_t seq;
	bool salvaging;
	bool zero;	 /* nothing needs to be read */
	uint8_t *buf;
	uint64_t offset; /* in dst */
	uint64_t bytes, pos; /* pos: read so far, then written or left out */
	struct iovec iov;
	struct block_req *req;
};

struct copy {
	struct img_copy *c;
	uint64_t at, done; /* bytes given out, and finished */
	uint64_t known; /* the map's range goes so far */
	struct img_range range;
	uint64_t seq, turn;
	uint64_t chunk; /* bytes of a worker's buffer */
	int64_t next_time; /* by the rate */
	unsigned busy;
	int ret;
	struct worker workers[COPY_WORKERS_MAX];
};

static void write_next(struct worker *w);

static void finish_piece(struct worker *w)
{
	struct copy *x = w->x;

	w->busy = false;
	x->busy--;
	x->done += w->bytes;
	img_progress(x->c->progress, x->done, x->c->bytes);
}

/* Nobody waits for a turn any more. */
static void fail(struct copy *x, int ret, const char *what, uint64_t at)
{
	if (x->ret)
		return;
	x->ret = ret;
	x->c->what = what;
	x->c->failed_at = at;
	for (unsigned i = 0; i < x->c->workers; i++) {
		if (x->workers[i].waiting) {
			x->workers[i].waiting = false;
			finish_piece(&x->workers[i]);
		}
	}
}

/* The next piece in order may be written. */
static void pass_turn(struct worker *w)
{
	struct copy *x = w->x;

	if (!w->has_turn)
		return;
	w->has_turn = false;
	x->turn++;
	for (unsigned i = 0; i < x->c->workers; i++) {
		struct worker *other = &x->workers[i];

		if (!other->waiting || other->seq != x->turn)
			continue;
		other->waiting = false;
		other->has_turn = true;
		write_next(other);
		break;
	}
}

static void start(struct worker *w, struct block_node *node, enum block_op op, uint64_t offset,
		  uint64_t bytes, uint32_t flags, void (*done)(struct block_req *req, int ret))
{
	w->iov = (struct iovec){w->buf + w->pos, bytes};
	*w->req = (struct block_req){.node = node,
				     .op = op,
				     .flags = flags,
				     .offset = offset,
				     .bytes = bytes,
				     .iov = op == BLOCK_WRITE_ZEROES ? NULL : &w->iov,
				     .iovcnt = op == BLOCK_WRITE_ZEROES ? 0 : 1,
				     .done = done,
				     .ctx = w};
	block_submit(w->req);
}

static void piece_written(struct block_req *req, int ret)
{
	struct worker *w = req->ctx;

	if (ret) {
		fail(w->x, ret, "writing", w->offset + w->pos);
		finish_piece(w);
		return;
	}
	w->pos += req->bytes;
	write_next(w);
}

static bool looks_zero(const struct worker *w, uint64_t pos, uint64_t n)
{
	return w->x->c->sparse && !w->x->c->no_scan && block_buf_is_zero(w->buf + pos, n);
}

/* How many bytes from pos on are alike, all zero or all to be written. */
static uint64_t alike(const struct worker *w, bool *zero)
{
	const struct img_copy *c = w->x->c;
	uint64_t unit, at = w->pos, n;

	if (c->compressed) {
		*zero = looks_zero(w, at, w->bytes - at);
		return w->bytes - at;
	}
	unit = c->sparse && !c->no_scan ? c->sparse : w->bytes;
	n = MIN(unit - (w->offset + at) % unit, w->bytes - at);
	*zero = looks_zero(w, at, n);
	for (at += n; at < w->bytes; at += n) {
		n = MIN(unit, w->bytes - at);
		if (*zero != looks_zero(w, at, n))
			break;
	}
	return at - w->pos;
}

static void write_next(struct worker *w)
{
	struct copy *x = w->x;
	struct img_copy *c = x->c;

	while (w->pos < w->bytes) {
		bool zero = w->zero;
		uint64_t n = zero ? w->bytes : alike(w, &zero), pos = w->pos;

		if (zero && c->zero_target) {
			w->pos += n;
			continue;
		}
		if (zero)
			start(w, c->dst, BLOCK_WRITE_ZEROES, w->offset + pos, n, BLOCK_MAY_UNMAP,
			      piece_written);
		else
			start(w, c->dst, BLOCK_WRITE, w->offset + pos, n,
			      c->compressed ? BLOCK_COMPRESSED : 0, piece_written);
		if (pos + n == w->bytes)
			pass_turn(w);
		return;
	}
	pass_turn(w);
	finish_piece(w);
}

static void await_turn(struct worker *w)
{
	struct copy *x = w->x;

	w->pos = 0;
	if (x->ret) {
		finish_piece(w);
		return;
	}
	if (x->c->ordered && w->seq != x->turn) {
		w->waiting = true;
		return;
	}
	w->has_turn = x->c->ordered;
	write_next(w);
}

/* The source that has the byte at, counted over all of them, and where in it. */
static struct block_node *source_at(const struct img_copy *c, uint64_t at, uint64_t *in)
{
	unsigned i = 0;

	at += c->src_skip;
	while (i + 1 < c->srcs && at >= block_length(c->src[i]))
		at -= block_length(c->src[i++]);
	*in = at;
	return c->src[i];
}

static void read_next(struct worker *w);

static void piece_read(struct block_req *req, int ret)
{
	struct worker *w = req->ctx;
	struct copy *x = w->x;

	if (ret && x->c->salvage && !w->salvaging) {
		/* Sector by sector; those that cannot be read are zero. */
		w->salvaging = true;
		ret = 0;
	} else if (ret && x->c->salvage) {
		memset(w->buf + w->pos, 0, req->bytes);
		if (!x->c->quiet)
			fprintf(stderr, "vmm-img: warning: error while reading offset %llu: %s\n",
				(unsigned long long)(w->offset + w->pos), strerror(-ret));
		w->pos += req->bytes;
		ret = 0;
	} else {
		w->pos += req->bytes;
	}
	if (ret)
		fail(x, ret, "reading", w->offset);
	if (x->ret)
		finish_piece(w);
	else
		read_next(w);
}

static void read_next(struct worker *w)
{
	uint64_t in, left = w->bytes - w->pos;
	struct block_node *src;

	if (!left) {
		await_turn(w);
		return;
	}
	src = source_at(w->x->c, w->offset + w->pos, &in);
	left = MIN(left, block_length(src) - in);
	start(w, src, BLOCK_READ, in, w->salvaging ? MIN(left, UINT64_C(512)) : left, 0,
	      piece_read);
}

/* The map at x->at: x->range is from there on. False: it cannot be read. */
static bool look_up(struct copy *x)
{
	struct img_copy *c = x->c;
	struct block_node *src;
	uint64_t in;
	int ret;

	if (x->at < x->known)
		return true;
	src = source_at(c, x->at, &in);
	ret = img_resolve(src, in, MIN(c->bytes - x->at, block_length(src) - in), &x->range);
	if (ret && c->salvage) {
		x->range = (struct img_range){.present = true, .length = 512, .data = true};
		ret = 0;
	}
	if (ret) {
		fail(x, ret, "reading block status", x->at);
		return false;
	}
	x->known = x->at + x->range.length;
	return true;
}

/* How many bytes from x->at on need no work, in whole units. */
static uint64_t skippable(const struct copy *x)
{
	const struct img_copy *c = x->c;
	uint64_t end = x->known;

	if (c->depth ? x->range.depth < c->depth
		     : !x->range.zero || !c->sparse || !c->zero_target)
		return 0;
	if (c->unit && end < c->bytes)
		end -= end % c->unit;
	return end > x->at ? end - x->at : 0;
}

/* Gives w the next piece. False: there is none. */
static bool give(struct copy *x, struct worker *w)
{
	struct img_copy *c = x->c;

	while (x->at < c->bytes && !x->ret) {
		uint64_t n;

		if (!look_up(x))
			return false;
		n = skippable(x);
		if (n) {
			x->at += n;
			x->done += n;
			img_progress(c->progress, x->done, c->bytes);
			continue;
		}
		n = x->known - x->at;
		w->zero = x->range.zero && c->sparse && (!c->unit || n >= c->unit);
		if (w->zero && c->unit)
			n -= n % c->unit;
		else if (c->unit) /* all of it goes through the buffer, whatever the map says */
			n = MIN(c->unit, c->bytes - x->at);
		else if (!w->zero)
			n = MIN(n, x->chunk);
		w->offset = x->at;
		w->pos = 0;
		w->bytes = n;
		w->busy = true;
		w->salvaging = false;
		x->at += n;
		x->busy++;
		if (c->rate)
			x->next_time = MAX(x->next_time, evloop_now(c->img->loop)) +
				       (int64_t)(n * 1e9 / c->rate);
		if (w->zero) {
			write_next(w);
			return true;
		}
		w->seq = x->seq++;
		read_next(w);
		return true;
	}
	return false;
}

static bool make_workers(struct copy *x)
{
	struct img_copy *c = x->c;
	size_t size = block_req_size(c->dst);

	for (unsigned i = 0; i < c->srcs; i++)
		size = MAX(size, block_req_size(c->src[i]));
	for (unsigned i = 0; i < c->workers; i++) {
		struct worker *w = &x->workers[i];

		w->x = x;
		w->req = xmalloc(size);
		if (posix_memalign((void **)&w->buf, 4096, x->chunk)) {
			w->buf = NULL;
			fail(x, -ENOMEM, "reading", 0);
			return false;
		}
	}
	return true;
}

int img_copy(struct img_copy *c)
{
	struct copy *x = xcalloc(1, sizeof(*x));
	int ret;

	x->c = c;
	x->at = x->done = c->begin;
	x->chunk = MAX((uint64_t)COPY_CHUNK, MAX(c->unit, c->sparse));
	c->workers = MIN(MAX(c->workers, 1u), (unsigned)COPY_WORKERS_MAX);
	make_workers(x);
	while (!x->ret ? x->at < c->bytes || x->busy : x->busy) {
		int64_t wait = -1;

		for (unsigned i = 0; i < c->workers; i++) {
			if (x->workers[i].busy)
				continue;
			if (c->rate && (wait = x->next_time - evloop_now(c->img->loop)) > 0)
				break;
			wait = -1;
			if (!give(x, &x->workers[i]))
				break;
		}
		if (x->busy || wait > 0)
			evloop_run_once(c->img->loop, wait);
	}
	for (unsigned i = 0; i < c->workers; i++) {
		free(x->workers[i].req);
		free(x->workers[i].buf);
	}
	ret = x->ret;
	if (!ret) {
		ret = block_flush(c->dst);
		if (ret) {
			c->what = "writing";
			c->failed_at = c->bytes;
		}
	}
	free(x);
	return ret;
}

void img_copy_error(const struct img_copy *c, int ret, struct error **err)
{
	error_set_errno(err, ret, "error while %s at byte %llu", c->what,
			(unsigned long long)c->failed_at);
}
