/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to encrypted bytes; see crypt_io.h. A request is worked off in pieces of a buffer's
 * size: it takes the piece's range, then a buffer, and gives both back before the next piece.
 * Nobody waits for a range while holding a buffer, so that there is always one who goes on.
 *
 * Thread: the node's loop.
 */
#include "block/crypt/crypt_io.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/core/secret.h"

enum { SMALL = 16 << 10, SMALLS = 64, LARGE = 512 << 10, LARGES = 8 };

static void piece_step(struct crypt_req *q);

void crypt_io_init(struct crypt_io *io, struct block_node *node, struct crypt *crypt,
		   uint64_t payload)
{
	io->node = node;
	io->crypt = crypt;
	io->payload = payload;
	io->pools[0] = (struct crypt_pool){.bytes = SMALL, .max = SMALLS};
	io->pools[1] = (struct crypt_pool){.bytes = LARGE, .max = LARGES};
}

void crypt_io_destroy(struct crypt_io *io)
{
	for (unsigned i = 0; i < CRYPT_POOLS; i++) {
		struct crypt_buf *buf;

		while ((buf = io->pools[i].idle)) {
			io->pools[i].idle = buf->next;
			secret_free(buf->data, io->pools[i].bytes);
			free(buf);
		}
	}
	crypt_free(io->crypt);
	io->crypt = NULL;
}

static bool take_buf(struct crypt_pool *pool, struct crypt_buf **out)
{
	struct crypt_buf *buf = pool->idle;

	if (buf) {
		pool->idle = buf->next;
	} else if (pool->count < pool->max) {
		buf = malloc(sizeof(*buf));
		if (buf && posix_memalign((void **)&buf->data, 4096, pool->bytes)) {
			free(buf);
			buf = NULL;
		}
		pool->count += buf != NULL;
	}
	*out = buf;
	return buf != NULL;
}

static void run_waiters(struct crypt_io *io)
{
	struct waiter *w;

	if (io->running)
		return;
	io->running = true;
	while ((w = waitq_pop(&io->runq)))
		w->fn(w);
	io->running = false;
}

static void drop(struct crypt_req *q)
{
	struct crypt_io *io = q->io;
	struct waiter *w;

	if (q->buf) {
		q->buf->next = q->pool->idle;
		q->pool->idle = q->buf;
		q->buf = NULL;
		w = waitq_pop(&q->pool->wait);
		if (w)
			waitq_add(&io->runq, w);
	}
	if (q->ranged)
		range_drop(&q->range, &io->runq);
	q->ranged = false;
}

static void end(struct crypt_req *q, int ret)
{
	drop(q);
	block_complete(q->req, ret);
}

static void wake(struct waiter *w)
{
	struct crypt_req *q = container_of(w, struct crypt_req, waiter);

	q->step(q);
}

static void child_done(struct block_req *child, int ret)
{
	struct crypt_req *q = child->ctx;
	struct crypt_io *io = q->io;

	q->ret = ret;
	if (ret)
		end(q, ret);
	else
		q->step(q);
	run_waiters(io);
}

/* Transfers the bytes of the buffer for [from, to) of the node. */
static void transfer(struct crypt_req *q, enum block_op op, uint64_t from, uint64_t to,
		     void (*step)(struct crypt_req *q))
{
	struct block_req *child = block_child_req(q->req);

	q->step = step;
	q->iov = (struct iovec){q->buf->data + (from - q->from), to - from};
	child->node = q->io->node->file;
	child->op = op;
	child->flags = op == BLOCK_WRITE ? q->req->act_flags & BLOCK_FUA : 0;
	child->offset = q->io->payload + from;
	child->bytes = to - from;
	child->iov = &q->iov;
	child->iovcnt = 1;
	child->done = child_done;
	child->ctx = q;
	block_submit(child);
}

static uint64_t sector_of(const struct crypt_req *q, uint64_t offset)
{
	return (offset + q->iv_offset) / CRYPT_SECTOR;
}

static void advance(struct crypt_req *q)
{
	drop(q);
	q->offset += q->chunk;
	q->at += q->chunk;
	q->left -= q->chunk;
	q->step = piece_step;
	piece_step(q);
}

static void have_read(struct crypt_req *q)
{
	crypt_decrypt(q->io->crypt, sector_of(q, q->from), q->buf->data, q->to - q->from);
	iov_from_buf(q->req->iov, q->req->iovcnt, q->req->iov_skip + q->at,
		     q->buf->data + (q->offset - q->from), q->chunk);
	advance(q);
}

/* The buffer's borders are there, decrypted. */
static void write_piece(struct crypt_req *q)
{
	uint8_t *at = q->buf->data + (q->offset - q->from);

	if (q->req->act == BLOCK_WRITE)
		iov_to_buf(q->req->iov, q->req->iovcnt, q->req->iov_skip + q->at, at, q->chunk);
	else
		memset(at, 0, q->chunk);
	crypt_encrypt(q->io->crypt, sector_of(q, q->from), q->buf->data, q->to - q->from);
	transfer(q, BLOCK_WRITE, q->from, q->to, advance);
}

static void tail_read(struct crypt_req *q)
{
	uint64_t last = q->to - CRYPT_SECTOR;

	crypt_decrypt(q->io->crypt, sector_of(q, last), q->buf->data + (last - q->from),
		      CRYPT_SECTOR);
	write_piece(q);
}

static void read_tail(struct crypt_req *q)
{
	uint64_t last = q->to - CRYPT_SECTOR;

	/* The only sector may have been read as the first one. */
	if (q->offset + q->chunk < q->to && (last > q->from || q->offset == q->from))
		transfer(q, BLOCK_READ, last, q->to, tail_read);
	else
		write_piece(q);
}

static void head_read(struct crypt_req *q)
{
	crypt_decrypt(q->io->crypt, sector_of(q, q->from), q->buf->data, CRYPT_SECTOR);
	read_tail(q);
}

static void buf_step(struct crypt_req *q)
{
	if (!take_buf(q->pool, &q->buf)) {
		if (!q->pool->count) {
			end(q, -ENOMEM);
			return;
		}
		waitq_add(&q->pool->wait, &q->waiter);
		return;
	}
	if (q->req->act == BLOCK_READ)
		transfer(q, BLOCK_READ, q->from, q->to, have_read);
	else if (q->offset > q->from)
		transfer(q, BLOCK_READ, q->from, q->from + CRYPT_SECTOR, head_read);
	else
		read_tail(q);
}

static void piece_step(struct crypt_req *q)
{
	struct crypt_io *io = q->io;
	struct range *other;
	bool exclusive;

	if (!q->left) {
		end(q, 0);
		return;
	}
	q->from = ALIGN_DOWN(q->offset, CRYPT_SECTOR);
	q->to = ALIGN_UP(q->offset + q->left, CRYPT_SECTOR);
	q->pool = &io->pools[q->to - q->from > SMALL];
	q->to = MIN(q->to, q->from + q->pool->bytes);
	q->chunk = MIN(q->offset + q->left, q->to) - q->offset;
	exclusive = q->req->act != BLOCK_READ &&
		    (q->offset > q->from || q->offset + q->chunk < q->to);
	other = range_conflict(&io->ranges, q->from, q->to, exclusive);
	if (other) {
		waitq_add(&other->waiters, &q->waiter);
		return;
	}
	range_take(&io->ranges, &q->range, q->from, q->to, exclusive);
	q->ranged = true;
	q->step = buf_step;
	buf_step(q);
}

static void flush_done(struct block_req *child, int ret)
{
	block_complete(child->ctx, ret);
}

static void flush(struct crypt_io *io, struct block_req *req)
{
	struct block_req *child = block_child_req(req);

	child->node = io->node->file;
	child->op = BLOCK_FLUSH;
	child->flags = 0;
	child->offset = child->bytes = 0;
	child->iov = NULL;
	child->iovcnt = 0;
	child->done = flush_done;
	child->ctx = req;
	block_submit(child);
}

void crypt_io_submit(struct crypt_io *io, struct block_req *req)
{
	struct crypt_req *q = block_ctx(req);

	if (req->act == BLOCK_FLUSH) {
		flush(io, req);
		return;
	}
	if (req->act == BLOCK_DISCARD) {
		/* Which sectors are in use stays hidden; and what was let go would read as
		 * noise. */
		block_complete(req, 0);
		return;
	}
	if (!io->other_iv)
		q->iv_offset = 0;
	q->req = req;
	q->io = io;
	q->waiter.fn = wake;
	q->waiter.error = 0;
	q->ranged = false;
	q->buf = NULL;
	q->offset = req->offset;
	q->left = req->bytes;
	q->at = 0;
	q->step = piece_step;
	piece_step(q);
	run_waiters(io);
}
