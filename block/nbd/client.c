/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nbd driver: requests to a server through libnbd; see client.h. Opening is in client_open.c.
 * Thread: the node's loop.
 */
#include "config.h"
#ifdef CONFIG_LIBNBD
#include "block/nbd/client.h"

#include <errno.h>
#include <stdlib.h>

enum { MANY = 1 << 30 }; /* bytes zeroed or given back by one command */

static void begin(struct nbd_req *r);

/* From inside libnbd: nothing of it may be called here. */
static int on_piece(void *opaque, int *error)
{
	struct nbd_req *r = opaque;

	if (*error == ENOTCONN)
		r->lost = true;
	else if (*error && !r->ret)
		r->ret = -*error;
	if (!--r->pieces) {
		nbd_dequeue(&r->s->live, r);
		nbd_enqueue(&r->s->finished, r);
	}
	return 1;
}

static nbd_completion_callback piece_of(struct nbd_req *r)
{
	r->pieces++;
	return (nbd_completion_callback){.callback = on_piece, .user_data = r};
}

/* A command that libnbd did not even take: it may have found the connection dead. */
static void refused(struct nbd_req *r)
{
	int error = r->s->link.lib.get_errno();

	r->pieces--;
	if (r->s->link.lib.aio_is_dead(r->s->link.h) || r->s->link.lib.aio_is_closed(r->s->link.h))
		r->lost = true;
	else if (!r->ret)
		r->ret = error ? -error : -EIO;
}

static void read_piece(struct nbd_req *r, void *buf, size_t bytes, uint64_t offset)
{
	if (r->s->link.lib.aio_pread(r->s->link.h, buf, bytes, offset, piece_of(r), 0) < 0)
		refused(r);
}

static void write_piece(struct nbd_req *r, const void *buf, size_t bytes, uint64_t offset)
{
	bool fua = (r->req->act_flags & BLOCK_FUA) && r->s->fua;

	if (r->s->link.lib.aio_pwrite(r->s->link.h, buf, bytes, offset, piece_of(r),
				      fua ? LIBNBD_CMD_FLAG_FUA : 0) < 0)
		refused(r);
}

/* Each stretch of memory is a command; the server carries them out side by side. */
static void give_iov(struct nbd_req *r)
{
	const struct block_req *req = r->req;
	size_t skip = req->iov_skip;
	uint64_t done = 0;

	for (int i = 0; i < req->iovcnt && done < r->bytes && !r->lost; i++) {
		size_t left = req->iov[i].iov_len, n;

		if (skip >= left) {
			skip -= left;
			continue;
		}
		for (left = MIN(left - skip, r->bytes - done); left && !r->lost; left -= n) {
			char *buf = (char *)req->iov[i].iov_base + skip;

			n = MIN(left, r->s->max);
			if (req->act == BLOCK_READ)
				read_piece(r, buf, n, req->offset + done);
			else
				write_piece(r, buf, n, req->offset + done);
			skip += n;
			done += n;
		}
		skip = 0;
	}
}

static uint32_t zero_flags(const struct nbd_req *r)
{
	const struct block_req *req = r->req;

	return ((req->act_flags & BLOCK_FUA) && r->s->fua ? LIBNBD_CMD_FLAG_FUA : 0) |
	       (req->act_flags & BLOCK_MAY_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE) |
	       (req->act_flags & BLOCK_NO_FALLBACK ? LIBNBD_CMD_FLAG_FAST_ZERO : 0);
}

static void give_range(struct nbd_req *r)
{
	struct nbd_handle *h = r->s->link.h;
	bool zero = r->req->act == BLOCK_WRITE_ZEROES;

	for (uint64_t at = 0, n; at < r->bytes && !r->lost; at += n) {
		uint64_t offset = r->req->offset + at;

		n = MIN(r->bytes - at, (uint64_t)MANY);
		if ((zero ? r->s->link.lib.aio_zero(h, n, offset, piece_of(r), zero_flags(r))
			  : r->s->link.lib.aio_trim(h, n, offset, piece_of(r), 0)) < 0)
			refused(r);
	}
}

static int on_extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
		      size_t count, int *error)
{
	struct nbd_req *r = opaque;
	struct block_extent *x = r->extent;

	/* One that was asked for; two numbers each. */
	if (strcmp(context, r->s->target.context) || count < 2 || x->bytes)
		return 0;
	x->bytes = entries[0];
	x->data = !(entries[1] & LIBNBD_STATE_HOLE);
	x->zero = entries[1] & LIBNBD_STATE_ZERO;
	return 0;
}

static void give_status(struct nbd_req *r)
{
	nbd_extent_callback extents = {.callback = on_extents, .user_data = r};

	r->extent->bytes = 0;
	if (r->s->link.lib.aio_block_status(r->s->link.h, r->bytes, r->offset, extents, piece_of(r),
					    LIBNBD_CMD_FLAG_REQ_ONE) < 0)
		refused(r);
}

static void give_flush(struct nbd_req *r)
{
	if (r->s->link.lib.aio_flush(r->s->link.h, piece_of(r), 0) < 0)
		refused(r);
}

/* Where a bounced request is: whole blocks, which hold [*from, *from + *bytes) of it. */
static void bounce_span(const struct nbd_req *r, uint64_t *start, uint64_t *end, uint64_t *from,
			size_t *bytes)
{
	uint64_t min = r->s->min;

	*from = r->req->offset + r->at;
	*start = ALIGN_DOWN(*from, min);
	*end = MIN(ALIGN_UP(r->req->offset + r->bytes, min),
		   *start + MIN((uint32_t)NBD_BOUNCE, r->s->max));
	*bytes = MIN(r->req->offset + r->bytes, *end) - *from;
}

static void give_bounced(struct nbd_req *r)
{
	const struct block_req *req = r->req;
	uint64_t start, end, from;
	uint8_t *buf = r->s->bounce;
	size_t bytes;

	bounce_span(r, &start, &end, &from, &bytes);
	if (r->phase == NBD_FILL) {
		/* What is written whole need not be read. */
		if (req->act == BLOCK_READ || bytes != end - start) {
			read_piece(r, buf, end - start, start);
			return;
		}
		r->phase = NBD_STORE;
	}
	if (req->act == BLOCK_WRITE)
		iov_to_buf(req->iov, req->iovcnt, req->iov_skip + r->at, buf + (from - start),
			   bytes);
	else
		memset(buf + (from - start), 0, bytes);
	write_piece(r, buf, end - start, start);
}

/* To libnbd, or to those that wait for it. */
static void give(struct nbd_req *r)
{
	struct nbd_node *s = r->s;

	if (!s->up) {
		if (s->gave_up) {
			r->ret = -EIO;
			nbd_enqueue(&s->finished, r);
			evloop_post(s->node->loop, &s->work);
		} else {
			nbd_enqueue(&s->waiting, r);
		}
		return;
	}
	r->lost = false;
	nbd_enqueue(&s->live, r);
	r->pieces = 1; /* held, so that it does not end while it begins */
	if (!r->req)
		give_status(r);
	else if (r->phase == NBD_LAST_FLUSH || r->req->act == BLOCK_FLUSH)
		give_flush(r);
	else if (r->phase != NBD_DIRECT)
		give_bounced(r);
	else if (r->req->act == BLOCK_READ || r->req->act == BLOCK_WRITE)
		give_iov(r);
	else
		give_range(r);
	if (!--r->pieces) {
		nbd_dequeue(&s->live, r);
		nbd_enqueue(&s->finished, r);
	}
	if (s->finished.first)
		evloop_post(s->node->loop, &s->work);
	nbd_link_poke(&s->link);
}

/* Requests whose turn has come run from here, never inside one another. */
static void run_waiters(struct nbd_node *s)
{
	struct waiter *w;

	while ((w = waitq_pop(&s->runq)))
		w->fn(w);
}

static void end(struct nbd_req *r, int ret)
{
	struct nbd_node *s = r->s;

	if (s->bouncer == r) {
		s->bouncer = NULL;
		waitq_move(&s->runq, &s->bounce_wait, 0);
	}
	if (r->ranged)
		range_drop(&r->range, &s->runq);
	if (r->req)
		block_complete(r->req, ret);
	else {
		r->ret = ret;
		r->done = true;
	}
	run_waiters(s);
}

/* A piece of a bounced request is done. Whether it has more. */
static bool advance(struct nbd_req *r)
{
	const struct block_req *req = r->req;
	uint64_t start, end, from;
	size_t bytes;

	bounce_span(r, &start, &end, &from, &bytes);
	if (r->phase == NBD_FILL && req->act != BLOCK_READ) {
		r->phase = NBD_STORE;
		return true;
	}
	if (req->act == BLOCK_READ)
		iov_from_buf(req->iov, req->iovcnt, req->iov_skip + r->at,
			     r->s->bounce + (from - start), bytes);
	r->at += bytes;
	r->phase = NBD_FILL;
	return r->at < r->bytes;
}

static bool wants_last_flush(const struct nbd_req *r)
{
	return r->req && (r->req->act == BLOCK_WRITE || r->req->act == BLOCK_WRITE_ZEROES) &&
	       (r->req->act_flags & BLOCK_FUA) && !r->s->fua && r->s->flush &&
	       r->phase != NBD_LAST_FLUSH;
}

static void finished(struct nbd_req *r)
{
	if (r->ret) {
		end(r, r->ret);
	} else if (r->lost) {
		if (++r->tries > NBD_MAX_TRIES) {
			end(r, -EIO);
			return;
		}
		/* Until progress tells of it the connection may still seem to be up. */
		if (r->phase == NBD_STORE)
			r->phase = NBD_FILL;
		nbd_enqueue(&r->s->waiting, r);
	} else if ((r->phase == NBD_FILL || r->phase == NBD_STORE) && advance(r)) {
		give(r);
	} else if (wants_last_flush(r)) {
		r->phase = NBD_LAST_FLUSH;
		give(r);
	} else {
		end(r, 0);
	}
}

void nbd_run_finished(void *opaque)
{
	struct nbd_node *s = opaque;

	while (s->finished.first) {
		struct nbd_req *r = s->finished.first;

		nbd_dequeue(&s->finished, r);
		finished(r);
	}
}

void nbd_take_back(struct nbd_node *s)
{
	while (s->live.first) {
		struct nbd_req *r = s->live.first;

		nbd_dequeue(&s->live, r);
		r->pieces = 0;
		r->lost = true;
		nbd_enqueue(&s->finished, r);
	}
	nbd_run_finished(s);
}

void nbd_resubmit(struct nbd_node *s)
{
	struct nbd_queue q = s->waiting;

	/* What is lost again at once goes to the end of the real list. */
	s->waiting.first = NULL;
	while (q.first) {
		struct nbd_req *r = q.first;

		q.first = r->next;
		give(r);
	}
}

void nbd_fail_waiting(struct nbd_node *s)
{
	while (s->waiting.first) {
		struct nbd_req *r = s->waiting.first;

		nbd_dequeue(&s->waiting, r);
		end(r, -EIO);
	}
}

/* Requests */

static void on_turn(struct waiter *w)
{
	begin(container_of(w, struct nbd_req, waiter));
}

static bool aligned(const struct nbd_req *r)
{
	const struct block_req *req = r->req;
	uint32_t min = r->s->min;
	size_t skip = req->iov_skip;

	if (!IS_ALIGNED(req->offset | r->bytes, min))
		return false;
	if (req->act != BLOCK_READ && req->act != BLOCK_WRITE)
		return true;
	for (int i = 0; i < req->iovcnt; i++) {
		size_t len = req->iov[i].iov_len;

		if (skip >= len)
			skip -= len;
		else if (!IS_ALIGNED(len - skip, min) && i + 1 < req->iovcnt)
			return false;
		else
			skip = 0;
	}
	return true;
}

/* Writes keep out of the blocks that another one reads, changes and writes back. */
static bool take_range(struct nbd_req *r)
{
	struct nbd_node *s = r->s;
	bool whole = r->phase == NBD_DIRECT;
	uint64_t start = ALIGN_DOWN(r->req->offset, s->min);
	uint64_t end = ALIGN_UP(r->req->offset + r->bytes, s->min);
	struct range *other = range_conflict(&s->writes, start, end, !whole);

	if (other) {
		waitq_add(&other->waiters, &r->waiter);
		return false;
	}
	range_take(&s->writes, &r->range, start, end, !whole);
	r->ranged = true;
	return true;
}

/* May be called again after a wait. */
static void begin(struct nbd_req *r)
{
	struct nbd_node *s = r->s;
	enum block_op act = r->req->act;

	if (act == BLOCK_FLUSH) {
		give(r);
		return;
	}
	if (s->min > 1 && act != BLOCK_READ && !r->ranged && !take_range(r))
		return;
	if (r->phase != NBD_DIRECT && s->bouncer != r) {
		if (s->bouncer) {
			waitq_add(&s->bounce_wait, &r->waiter);
			return;
		}
		if (!s->bounce)
			s->bounce = malloc(NBD_BOUNCE);
		if (!s->bounce) {
			end(r, -ENOMEM);
			return;
		}
		s->bouncer = r;
	}
	give(r);
}

/* The last sector of an export that ends inside it, and what a format asks for behind the end.
 * Whether something is left to do; else *ret. */
static bool clip(struct nbd_req *r, int *ret)
{
	const struct block_req *req = r->req;
	uint64_t size = r->s->size, inside;

	*ret = 0;
	r->bytes = req->bytes;
	if (range_inside(req->offset, req->bytes, size))
		return true;
	inside = req->offset < size ? size - req->offset : 0;
	if (req->act == BLOCK_READ)
		block_iov_zero(req->iov, req->iovcnt, req->iov_skip + inside, req->bytes - inside);
	else if (req->offset + req->bytes > ALIGN_UP(size, 512) ||
		 (req->act == BLOCK_WRITE &&
		  !block_iov_is_zero(req->iov, req->iovcnt, req->iov_skip + inside,
				     req->bytes - inside))) {
		*ret = -ENOSPC;
		return false;
	}
	r->bytes = inside;
	return inside;
}

/* What the server cannot do, or need not. Whether there is something to do; else *ret. */
static bool possible(const struct nbd_req *r, int *ret)
{
	const struct nbd_node *s = r->s;
	const struct block_req *req = r->req;

	*ret = 0;
	if (req->act == BLOCK_FLUSH)
		return s->flush && !s->node->no_flush;
	if (req->act == BLOCK_DISCARD)
		return s->trim && IS_ALIGNED(req->offset | r->bytes, s->min);
	if (req->act == BLOCK_WRITE_ZEROES && (req->act_flags & BLOCK_NO_FALLBACK) &&
	    !(s->fast_zero && IS_ALIGNED(req->offset | r->bytes, s->min))) {
		*ret = -ENOTSUP;
		return false;
	}
	return true;
}

void nbd_submit(struct block_node *node, struct block_req *req)
{
	struct nbd_node *s = node->opaque;
	struct nbd_req *r = block_ctx(req);
	int ret;

	*r = (struct nbd_req){.s = s, .req = req, .waiter.fn = on_turn};
	if ((req->act != BLOCK_FLUSH && !clip(r, &ret)) || !possible(r, &ret)) {
		block_complete(req, ret);
		return;
	}
	if (req->act != BLOCK_FLUSH &&
	    (!aligned(r) || (req->act == BLOCK_WRITE_ZEROES && !s->zero)))
		r->phase = NBD_FILL;
	begin(r);
}

int nbd_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_extent *out)
{
	struct nbd_node *s = node->opaque;
	struct nbd_req r = {.s = s, .extent = out};
	uint64_t end = MIN(ALIGN_UP(offset + bytes, s->min), s->size);

	out->bytes = bytes;
	out->allocated = out->data = out->has_offset = true;
	out->offset = offset;
	if (!s->status)
		return 0;
	if (offset >= s->size) { /* inside the last sector */
		out->data = false;
		out->zero = true;
		return 0;
	}
	r.offset = ALIGN_DOWN(offset, s->min);
	r.bytes = MIN(end - r.offset, (uint64_t)MANY);
	give(&r);
	while (!r.done)
		evloop_run_once(node->loop, -1);
	if (r.ret)
		return r.ret;
	if (out->bytes <= offset - r.offset)
		return -EIO; /* it said nothing about what was asked */
	out->bytes = MIN(out->bytes - (offset - r.offset), bytes);
	/* The last sector's end is not the server's. */
	if (offset + out->bytes >= s->size)
		out->bytes = bytes;
	return 0;
}

static int nbd_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	error_set(err, "Cannot resize NBD nodes");
	return -ENOTSUP;
}

const struct block_driver block_nbd = {
	.name = "nbd",
	.node_size = sizeof(struct nbd_node),
	.req_size = sizeof(struct nbd_req),
	.protocol = true,
	.fast_zeroes = true,
	.open = nbd_open,
	.close = nbd_close_node,
	.submit = nbd_submit,
	.attach = nbd_attach,
	.detach = nbd_detach,
	.truncate = nbd_truncate,
	.status = nbd_status,
};

#else
#include "block/driver.h"

static bool nbd_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		     struct error **err)
{
	error_set(err, "NBD disks are not supported by this build (libnbd was missing)");
	return false;
}

const struct block_driver block_nbd = {
	.name = "nbd",
	.protocol = true,
	.open = nbd_open,
};
#endif
