/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of mapped images. A step that finds something missing queues the request on what it
 * waits for and is run again from its beginning; nothing is changed before everything needed is at
 * hand. Wakes go to a run queue that is worked off outside of any step.
 *
 * Thread: the node's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/format/mapped.h"

enum { BOUNCE = 64 << 10 };

static void run(struct mapped_req *q)
{
	while (q->step(q) == STEP_GO)
		;
}

static enum mapped_step end(struct mapped_req *q, int ret)
{
	struct mapped *m = q->m;

	if (q->taken && m->end == q->host + m->head + m->unit) {
		/* The last one in the file: it can be had again, but is no longer untouched. */
		m->fresh = MAX(m->fresh, m->end);
		m->end = q->host;
		m->tail_dirty = m->tail != NULL;
	}
	q->taken = false;
	if (q->unpacks) {
		m->unpacking = false;
		waitq_move(&m->runq, &m->unpack_wait, 0);
	}
	if (q->ranged)
		range_drop(&q->range, &m->runq);
	q->ranged = false;
	free(q->bounce);
	block_complete(q->req, ret);
	return STEP_WAIT;
}

static enum mapped_step wait_or_end(struct mapped_req *q, int ret)
{
	return ret == -EAGAIN ? STEP_WAIT : end(q, ret);
}

static void wake(struct waiter *w)
{
	struct mapped_req *q = container_of(w, struct mapped_req, waiter);
	int error = w->error;

	w->error = 0;
	if (error)
		end(q, error);
	else
		run(q);
}

void mapped_run_waiters(struct mapped *m)
{
	struct waiter *w;

	if (m->running)
		return;
	m->running = true;
	while ((w = waitq_pop(&m->runq)))
		w->fn(w);
	m->running = false;
}

static void child_done(struct block_req *child, int ret)
{
	struct mapped_req *q = child->ctx;
	struct mapped *m = q->m;

	q->ret = ret;
	run(q);
	mapped_run_waiters(m);
}

/* Starts I/O on child; step runs when it is done. buf NULL: the request's own bytes. */
static enum mapped_step io(struct mapped_req *q, struct block_node *node, enum block_op op,
			   uint64_t offset, void *buf, uint64_t bytes,
			   enum mapped_step (*step)(struct mapped_req *q))
{
	struct block_req *child = block_child_req(q->req);

	q->step = step;
	child->node = node;
	child->op = op;
	child->flags = op == BLOCK_WRITE_ZEROES ? BLOCK_MAY_UNMAP : 0;
	child->offset = offset;
	child->bytes = bytes;
	child->done = child_done;
	child->ctx = q;
	if (buf) {
		q->iov = (struct iovec){buf, bytes};
		child->iov = &q->iov;
		child->iovcnt = 1;
		block_submit_at(child, 0);
	} else {
		child->iov = q->req->iov;
		child->iovcnt = q->req->iovcnt;
		block_submit_at(child, q->req->iov_skip + q->at);
	}
	return STEP_WAIT;
}

static bool blocked(struct mapped_req *q, uint64_t start, uint64_t stop, bool exclusive)
{
	struct range *other = range_conflict(&q->m->ranges, start, stop, exclusive);

	if (other) {
		waitq_add(&other->waiters, &q->waiter);
		return true;
	}
	range_take(&q->m->ranges, &q->range, start, stop, exclusive);
	q->ranged = true;
	return false;
}

static void advance(struct mapped_req *q)
{
	q->offset += q->chunk;
	q->at += q->chunk;
	q->left -= q->chunk;
	if (q->ranged)
		range_drop(&q->range, &q->m->runq);
	q->ranged = false;
}

/* Finding */

bool mapped_inside(const struct mapped *m, uint64_t host)
{
	return host >= m->data_start && host < MAX(m->file->length, m->end);
}

static int find_in_table(struct mapped *m, uint64_t offset, uint64_t bytes, struct waiter *w,
			 struct mapped_run *r)
{
	uint64_t unit = offset / m->unit, in = offset % m->unit, at, next;
	struct mapped_page *page;
	struct mapped_run more;
	int ret = m->ops->entry_at(m, unit, &at);

	if (ret)
		return ret;
	*r = (struct mapped_run){.type = MAPPED_NONE, .bytes = m->unit - in};
	if (!at)
		return 0;
	ret = mapped_page(m, at, w, &page);
	if (!ret)
		ret = m->ops->decode(m, unit, mapped_at(page, at), r);
	if (ret || r->type == MAPPED_PACKED)
		return ret;
	if (r->type == MAPPED_DATA)
		r->host += in;
	/* What follows in the same way belongs to the run. */
	while (r->bytes < bytes) {
		if (m->ops->entry_at(m, ++unit, &next) || next != at + m->entry_bytes ||
		    next - page->offset >= MAPPED_PAGE)
			break;
		at = next;
		more = (struct mapped_run){.type = MAPPED_NONE};
		if (m->ops->decode(m, unit, mapped_at(page, at), &more) || more.type != r->type ||
		    (r->type == MAPPED_DATA && more.host != r->host + r->bytes))
			break;
		r->bytes += m->unit;
	}
	return 0;
}

static int find(struct mapped *m, uint64_t offset, uint64_t bytes, struct waiter *w,
		struct mapped_run *r)
{
	int ret;

	*r = (struct mapped_run){.type = MAPPED_NONE};
	if (m->ops->find)
		ret = m->ops->find(m, offset, w, r);
	else
		ret = find_in_table(m, offset, bytes, w, r);
	if (!ret && r->type == MAPPED_PACKED) {
		r->start = m->ops->find ? r->start : offset - offset % m->unit;
		r->size = m->ops->find ? r->size : m->unit;
		r->bytes = r->start + r->size - offset;
	}
	r->bytes = MIN(r->bytes, bytes);
	return ret;
}

/* Reading */

static enum mapped_step read_step(struct mapped_req *q);

static enum mapped_step read_done(struct mapped_req *q)
{
	if (q->ret)
		return end(q, q->ret);
	advance(q);
	q->step = read_step;
	return STEP_GO;
}

static bool room(uint8_t **buf, size_t *have, uint64_t need)
{
	if (need <= *have)
		return true;
	free(*buf);
	*have = 0;
	*buf = malloc(need);
	if (!*buf)
		return false;
	*have = need;
	return true;
}

static enum mapped_step packed_read(struct mapped_req *q)
{
	struct mapped *m = q->m;

	if (!q->ret)
		q->ret = m->ops->unpack(m, &q->run, m->packed, m->unpacked);
	if (!q->ret) {
		m->unpacked_start = q->run.start;
		m->unpacked_bytes = q->run.size;
	}
	m->unpacking = q->unpacks = false;
	waitq_move(&m->runq, &m->unpack_wait, 0);
	if (q->ret)
		return end(q, q->ret);
	q->step = read_step;
	return STEP_GO;
}

/* One is unpacked at a time, and kept. */
static enum mapped_step unpack(struct mapped_req *q)
{
	struct mapped *m = q->m;

	if (m->unpacking) {
		waitq_add(&m->unpack_wait, &q->waiter);
		return STEP_WAIT;
	}
	m->unpacked_bytes = 0;
	if (!room(&m->packed, &m->packed_room, q->run.packed) ||
	    !room(&m->unpacked, &m->unpacked_room, q->run.size))
		return end(q, -ENOMEM);
	m->unpacking = q->unpacks = true;
	return io(q, m->file, BLOCK_READ, q->run.host, m->packed, q->run.packed, packed_read);
}

static enum mapped_step read_step(struct mapped_req *q)
{
	struct mapped *m = q->m;
	struct block_node *backing = m->node->backing;
	struct block_req *req = q->req;
	int ret;

	if (!q->left)
		return end(q, 0);
	ret = find(m, q->offset, q->left, &q->waiter, &q->run);
	if (ret)
		return wait_or_end(q, ret);
	q->chunk = q->run.bytes;
	switch (q->run.type) {
	case MAPPED_DATA:
		if (blocked(q, q->offset, q->offset + q->chunk, false))
			return STEP_WAIT;
		return io(q, m->file, BLOCK_READ, q->run.host, NULL, q->chunk, read_done);
	case MAPPED_PACKED:
		if (!m->unpacked_bytes || m->unpacked_start != q->run.start ||
		    m->unpacked_bytes != q->run.size)
			return unpack(q);
		iov_from_buf(req->iov, req->iovcnt, req->iov_skip + q->at,
			     m->unpacked + (q->offset - q->run.start), q->chunk);
		break;
	case MAPPED_NONE:
		if (backing && q->offset < backing->length) {
			q->chunk = MIN(q->chunk, backing->length - q->offset);
			return io(q, backing, BLOCK_READ, q->offset, NULL, q->chunk, read_done);
		}
		__attribute__((fallthrough));
	case MAPPED_ZERO:
		block_iov_zero(req->iov, req->iovcnt, req->iov_skip + q->at, q->chunk);
		break;
	}
	advance(q);
	return STEP_GO;
}

/* Flushing */

static enum mapped_step end_step(struct mapped_req *q)
{
	return end(q, q->ret);
}

static enum mapped_step flush_step(struct mapped_req *q)
{
	struct mapped *m = q->m;

	q->ret = 0;
	if (!mapped_is_dirty(m) && m->phase == PHASE_IDLE)
		return io(q, m->file, BLOCK_FLUSH, 0, NULL, 0, end_step);
	q->step = end_step;
	mapped_commit(m, &q->waiter);
	return STEP_WAIT;
}

/* Writing */

static enum mapped_step write_step(struct mapped_req *q);

static enum mapped_step write_done(struct mapped_req *q)
{
	if (q->ret)
		return end(q, q->ret);
	advance(q);
	q->step = write_step;
	return STEP_GO;
}

/* The new unit is whole: its entry. */
static enum mapped_step link_step(struct mapped_req *q)
{
	struct mapped *m = q->m;
	int ret;

	if (m->frozen) {
		waitq_add(&m->thawed, &q->waiter);
		return STEP_WAIT;
	}
	ret = m->ops->link(m, q->offset / m->unit, q->host + m->head, &q->waiter);
	if (ret)
		return wait_or_end(q, ret);
	q->taken = false;
	q->ret = 0;
	return write_done(q);
}

static enum mapped_step fill_step(struct mapped_req *q);

static enum mapped_step fill_read(struct mapped_req *q)
{
	struct mapped *m = q->m;
	uint64_t at = q->fill;

	if (q->ret)
		return end(q, q->ret);
	q->fill += q->piece;
	return io(q, m->file, BLOCK_WRITE, q->host + m->head + at % m->unit, q->bounce, q->piece,
		  fill_step);
}

static enum mapped_step data_step(struct mapped_req *q);

/* Copies [fill, fill_end) of the disk from below into the new unit, or zeroes. */
static enum mapped_step fill_step(struct mapped_req *q)
{
	struct mapped *m = q->m;
	struct block_node *backing = q->run.type == MAPPED_NONE ? m->node->backing : NULL;
	uint64_t at = q->fill, left = q->fill_end - q->fill;
	bool head = q->fill_end <= q->offset;

	if (q->ret)
		return end(q, q->ret);
	if (left && backing && at < backing->length) {
		if (!q->bounce)
			q->bounce = malloc(BOUNCE);
		if (!q->bounce)
			return end(q, -ENOMEM);
		q->piece = MIN(MIN(left, backing->length - at), (uint64_t)BOUNCE);
		return io(q, backing, BLOCK_READ, at, q->bounce, q->piece, fill_read);
	}
	if (left && !(head && q->fresh)) {
		/* Behind fresh data this only makes the file reach to the unit's end. */
		q->fill = q->fill_end;
		return io(q, m->file, BLOCK_WRITE_ZEROES, q->host + m->head + at % m->unit, NULL,
			  left, fill_step);
	}
	q->step = head ? data_step : link_step;
	return STEP_GO;
}

static enum mapped_step data_written(struct mapped_req *q)
{
	q->fill = q->offset + q->chunk;
	q->fill_end = q->offset - q->offset % q->m->unit + q->m->unit;
	return fill_step(q);
}

static enum mapped_step data_step(struct mapped_req *q)
{
	struct mapped *m = q->m;
	uint64_t host = q->host + m->head + q->offset % m->unit;

	if (q->req->act == BLOCK_WRITE)
		return io(q, m->file, BLOCK_WRITE, host, NULL, q->chunk, data_written);
	return io(q, m->file, BLOCK_WRITE_ZEROES, host, NULL, q->chunk, data_written);
}

static enum mapped_step head_written(struct mapped_req *q)
{
	uint64_t start = q->offset - q->offset % q->m->unit;

	q->fill = start;
	q->fill_end = q->offset;
	return fill_step(q);
}

/* One unit is q's alone, at a moment when there may be new ones. False: it waits. */
static bool take_unit(struct mapped_req *q)
{
	struct mapped *m = q->m;
	uint64_t start = q->offset - q->offset % m->unit;

	q->chunk = MIN(q->left, start + m->unit - q->offset);
	if (m->frozen) {
		waitq_add(&m->thawed, &q->waiter);
		return false;
	}
	return !blocked(q, start, start + m->unit, true);
}

static enum mapped_step new_unit(struct mapped_req *q)
{
	struct mapped *m = q->m;

	if (!take_unit(q))
		return STEP_WAIT;
	q->host = m->end;
	q->fresh = m->file->zero_past_end && q->host + m->head >= m->fresh;
	m->end += m->head + m->unit;
	m->tail_dirty = m->tail != NULL; /* the new unit is where it was */
	q->taken = true;
	q->ret = 0;
	if (!m->head)
		return head_written(q);
	mapped_replace(m, q->host, m->head_data, m->head);
	return io(q, m->file, BLOCK_WRITE, q->host, m->head_data, m->head, head_written);
}

static enum mapped_step pack_written(struct mapped_req *q)
{
	if (q->ret)
		return end(q, q->ret);
	free(q->bounce);
	q->bounce = NULL;
	q->step = link_step;
	return STEP_GO;
}

/* A unit that is packed: what the request does not have of it is zero. */
static enum mapped_step new_packed(struct mapped_req *q)
{
	struct mapped *m = q->m;
	uint64_t start = q->offset - q->offset % m->unit;
	struct block_req *req = q->req;
	uint8_t *plain;
	int64_t n;

	if (!take_unit(q))
		return STEP_WAIT;
	plain = calloc(1, m->unit);
	q->bounce = malloc(2 * m->unit);
	n = plain && q->bounce ? 0 : -ENOMEM;
	if (!n) {
		iov_to_buf(req->iov, req->iovcnt, req->iov_skip + q->at,
			   plain + (q->offset - start), q->chunk);
		n = m->ops->pack(m, start / m->unit, plain, q->bounce);
	}
	free(plain);
	if (n < 0)
		return end(q, n);
	memset(q->bounce + n, 0, ALIGN_UP(n, 512) - n);
	q->host = m->end;
	m->end += ALIGN_UP(n, 512);
	return io(q, m->file, BLOCK_WRITE, q->host, q->bounce, ALIGN_UP(n, 512), pack_written);
}

static enum mapped_step in_place(struct mapped_req *q)
{
	struct mapped *m = q->m;
	int ret;

	if (m->ops->touch) {
		q->chunk = MIN(q->chunk, m->unit - q->offset % m->unit);
		ret = m->ops->touch(m, q->offset, q->chunk, q->run.host, &q->waiter);
		if (ret)
			return wait_or_end(q, ret);
	}
	if (blocked(q, q->offset, q->offset + q->chunk, false))
		return STEP_WAIT;
	return io(q, m->file, q->req->act, q->run.host, NULL, q->chunk, write_done);
}

/* Writes, and zeroes where they must be written. */
static enum mapped_step write_step(struct mapped_req *q)
{
	struct mapped *m = q->m;
	struct block_node *backing = m->node->backing;
	int ret;

	if (!q->left) {
		if (!(q->req->act_flags & BLOCK_FUA))
			return end(q, 0);
		q->step = flush_step;
		return STEP_GO;
	}
	ret = find(m, q->offset, q->left, &q->waiter, &q->run);
	if (ret)
		return wait_or_end(q, ret);
	q->chunk = q->run.bytes;
	if (q->run.type == MAPPED_DATA)
		return in_place(q);
	if (q->run.type == MAPPED_PACKED)
		return end(q, -EIO); /* compressed units are written once */
	if (q->req->act == BLOCK_WRITE_ZEROES &&
	    (q->run.type == MAPPED_ZERO || !backing || q->offset >= backing->length)) {
		advance(q);
		return STEP_GO;
	}
	if (m->ops->pack)
		return new_packed(q);
	return new_unit(q);
}

static enum mapped_step discard_step(struct mapped_req *q);

static enum mapped_step discard_done(struct mapped_req *q)
{
	if (q->ret)
		return end(q, q->ret);
	advance(q);
	q->step = discard_step;
	return STEP_GO;
}

/* A discard is passed on to the file; the unit stays. */
static enum mapped_step discard_step(struct mapped_req *q)
{
	struct mapped *m = q->m;
	int ret;

	if (!q->left)
		return end(q, 0);
	ret = find(m, q->offset, q->left, &q->waiter, &q->run);
	if (ret)
		return wait_or_end(q, ret);
	q->chunk = q->run.bytes;
	if (q->run.type == MAPPED_DATA) {
		if (blocked(q, q->offset, q->offset + q->chunk, false))
			return STEP_WAIT;
		return io(q, m->file, BLOCK_DISCARD, q->run.host, NULL, q->chunk, discard_done);
	}
	advance(q);
	return STEP_GO;
}

void mapped_submit(struct block_node *node, struct block_req *req)
{
	static enum mapped_step (*const first[])(struct mapped_req * q) = {
		[BLOCK_READ] = read_step,	   [BLOCK_WRITE] = write_step,
		[BLOCK_FLUSH] = flush_step,	   [BLOCK_DISCARD] = discard_step,
		[BLOCK_WRITE_ZEROES] = write_step,
	};
	struct mapped *m = node->opaque;
	struct mapped_req *q = block_ctx(req);

	*q = (struct mapped_req){.req = req, .m = m};
	q->waiter.fn = wake;
	q->step = first[req->act];
	q->offset = req->offset;
	q->left = req->bytes;
	run(q);
	mapped_run_waiters(m);
}

/* For drivers */

void mapped_init(struct mapped *m, struct block_node *node, const struct mapped_ops *ops)
{
	m->node = node;
	m->file = node->file;
	m->ops = ops;
	m->fresh = ALIGN_UP(MAX(m->file->length, m->end), 512);
	node->limits = node->file->limits;
	node->limits.request_alignment = 1;
	node->limits.discard = node->limits.write_zeroes = true;
}

void mapped_close(struct block_node *node)
{
	struct mapped *m = node->opaque;

	mapped_pages_free(m);
	free(m->packed);
	free(m->unpacked);
	free(m->head_data);
	free(m->tail);
	m->packed = m->unpacked = m->head_data = m->tail = NULL;
}

bool mapped_read_header(struct block_node *node, uint8_t *buf, size_t n, struct error **err)
{
	int ret = block_pread(node->file, 0, buf, n);

	if (ret)
		error_set_errno(err, ret, "Could not read the image's header");
	return !ret;
}

bool mapped_read_only(struct block_node *node, const struct block_open *how, struct error **err)
{
	if (node->read_only)
		return true;
	if (!(how->flags & (BLOCK_OPEN_AUTO_RO | BLOCK_OPEN_CHECK))) {
		error_set(err, "Images of format '%s' can only be read", node->drv->name);
		return false;
	}
	node->read_only = true;
	return true;
}

void *mapped_read_table(struct block_node *node, uint64_t offset, uint64_t bytes, const char *what,
			struct error **err)
{
	void *table;
	int ret;

	if (!range_inside(offset, bytes, node->file->length)) {
		error_set(err, "The %s lies outside of the file", what);
		return NULL;
	}
	table = malloc(MAX(bytes, (uint64_t)1));
	ret = table ? block_pread(node->file, offset, table, bytes) : -ENOMEM;
	if (ret) {
		error_set_errno(err, ret, "Could not read the %s", what);
		free(table);
		return NULL;
	}
	return table;
}

struct status_wait {
	struct waiter waiter;
	bool woken;
};

static void status_wake(struct waiter *w)
{
	container_of(w, struct status_wait, waiter)->woken = true;
}

int mapped_status(struct block_node *node, uint64_t offset, uint64_t bytes,
		  struct block_extent *out)
{
	struct mapped *m = node->opaque;
	struct status_wait wait = {.waiter.fn = status_wake};
	struct block_extent in_file;
	struct mapped_run r;
	int ret;

	while ((ret = find(m, offset, bytes, &wait.waiter, &r)) == -EAGAIN) {
		while (!wait.woken)
			evloop_run_once(node->loop, -1);
		wait.woken = false;
		if (wait.waiter.error)
			return wait.waiter.error;
	}
	if (ret)
		return ret;
	out->bytes = r.bytes;
	out->allocated = r.type != MAPPED_NONE;
	out->data = r.type == MAPPED_DATA || r.type == MAPPED_PACKED;
	out->zero = r.type == MAPPED_ZERO;
	out->compressed = r.type == MAPPED_PACKED;
	out->has_offset = r.type == MAPPED_DATA;
	out->offset = r.host;
	/* A unit may be a hole in the file. */
	if (r.type != MAPPED_DATA)
		return 0;
	if (r.host >= m->file->length)
		out->zero = m->file->zero_past_end;
	else if (!block_status(m->file, r.host, r.bytes, &in_file)) {
		out->bytes = MIN(out->bytes, in_file.bytes);
		out->zero = in_file.zero;
	}
	return 0;
}
