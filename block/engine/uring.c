/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring engine (io_uring(7)). Submission entries are written as requests come and handed
 * over in one call a turn, just before the loop would sleep; the ring's descriptor in the loop's
 * epoll tells of completions.
 *
 * Scatter lists that need cutting are cut into an arena that lives until the hand-over: the kernel
 * has copied them by then (IORING_FEAT_SUBMIT_STABLE). Requests beyond the ring's depth wait in
 * line.
 *
 * Writes through the page cache go to a worker of the kernel's, one at a time for a file. Those of a
 * turn that lie side by side are one write there, since waking us for each costs as much as copying
 * some pages; but not the first ones, so that it has something to do while we wake. What such a write
 * did not do whole is done again one by one, each with its own result.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "block/driver.h"
#include "block/engine/engine.h"

#ifdef CONFIG_LIBURING
#include <liburing.h>

/* Bytes that must be ahead of a write that is joined; its bytes and pieces, at most. */
enum { JOIN_BEHIND = 64 << 10, JOIN_BYTES = 512 << 10, JOIN_IOV = 256 };

struct uring {
	struct engine engine;
	struct io_uring ring;
	struct evloop *loop;
	struct ev_fd ef;
	struct ev_hook hook;
	struct ev_work again; /* a submission that the kernel put off */
	bool polled;	      /* the host had no room for the ring's descriptor in the loop's set */
	bool fixed;	      /* the descriptor is registered as number 0 */
	unsigned prepared;    /* entries not handed over yet */
	unsigned in_flight;
	size_t writing; /* bytes of writes in flight */
	struct io_op *line, **line_tail;
	/* The write prepared last, while the next one may still join it. */
	struct {
		struct io_uring_sqe *sqe; /* NULL: none */
		struct io_op *last;
		uint64_t end;
		size_t bytes;
		unsigned iov, count; /* its part of the arena */
	} join;
	unsigned iov_used;
	struct iovec iov[ENGINE_IOV];
};

static void hand_over(struct uring *u)
{
	int ret;

	if (!u->prepared)
		return;
	u->join.sqe = NULL;
	ret = io_uring_submit(&u->ring);
	if (ret >= 0)
		u->prepared -= MIN(u->prepared, (unsigned)ret);
	if (!u->prepared)
		u->iov_used = 0;
	else
		evloop_post(u->loop, &u->again);
}

static bool joinable(const struct io_op *op)
{
	return op->kind == IO_WRITE && op->align == 1 && !op->alone;
}

/* Whether op became part of the write prepared last. */
static bool join(struct uring *u, struct io_op *op)
{
	struct io_uring_sqe *sqe = u->join.sqe;
	int count;

	if (!sqe || !joinable(op) || op->offset != u->join.end || op->fd != u->join.last->fd ||
	    op->dsync != u->join.last->dsync || op->bytes > JOIN_BYTES - u->join.bytes ||
	    u->writing - u->join.bytes < JOIN_BEHIND)
		return false;
	count = iov_slice(op->iov, op->iovcnt, op->skip, op->bytes, &u->iov[u->iov_used],
			  MIN(ENGINE_IOV - u->iov_used, JOIN_IOV - u->join.count));
	if (count < 0)
		return false;
	u->iov_used += count;
	u->join.count += count;
	u->join.bytes += op->bytes;
	u->writing += op->bytes;
	u->join.end += op->bytes;
	u->join.last->next = op;
	u->join.last = op;
	op->next = NULL;
	sqe->opcode = IORING_OP_WRITEV;
	sqe->addr = (uintptr_t)&u->iov[u->join.iov];
	sqe->len = u->join.count;
	return true;
}

/* op, just prepared, may be joined by the next. */
static void let_join(struct uring *u, struct io_op *op, struct io_uring_sqe *sqe, int count)
{
	u->join.sqe = NULL;
	if (!joinable(op) || op->bytes >= JOIN_BYTES || count > JOIN_IOV)
		return;
	u->join.sqe = sqe;
	u->join.last = op;
	u->join.end = op->offset + op->bytes;
	u->join.bytes = op->bytes;
	u->join.iov = u->iov_used;
	u->join.count = count;
}

/* False: no room now. */
static bool prepare(struct uring *u, struct io_op *op)
{
	struct io_uring_sqe *sqe;
	struct iovec *iov = &u->iov[u->iov_used];
	int fd = u->fixed ? 0 : op->fd, count = 0;

	if (join(u, op))
		return true;
	if (u->in_flight >= 2 * ENGINE_DEPTH || !io_uring_sq_space_left(&u->ring))
		return false;
	if (op->kind != IO_SYNC) {
		count = iov_slice(op->iov, op->iovcnt, op->skip, op->bytes, iov,
				  MIN(ENGINE_IOV - u->iov_used, 1024u));
		if (count < 0)
			return false;
	}
	op->next = NULL;
	sqe = io_uring_get_sqe(&u->ring);
	if (op->kind == IO_SYNC)
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	else if (op->kind == IO_READ && count == 1)
		io_uring_prep_read(sqe, fd, iov->iov_base, iov->iov_len, op->offset);
	else if (op->kind == IO_READ)
		io_uring_prep_readv(sqe, fd, iov, count, op->offset);
	else if (count == 1)
		io_uring_prep_write(sqe, fd, iov->iov_base, iov->iov_len, op->offset);
	else
		io_uring_prep_writev(sqe, fd, iov, count, op->offset);
	if (op->kind == IO_WRITE && op->dsync)
		sqe->rw_flags = RWF_DSYNC;
	if (u->fixed)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, op);
	let_join(u, op, sqe, count);
	if (op->kind == IO_WRITE)
		u->writing += op->bytes;
	if (count > 1 || u->join.sqe)
		u->iov_used += count;
	u->prepared++;
	u->in_flight++;
	return true;
}

static void run_line(struct uring *u)
{
	while (u->line) {
		struct io_op *op = u->line, *next = op->next;

		if (!prepare(u, op)) {
			hand_over(u);
			if (!prepare(u, op))
				return;
		}
		u->line = next;
		if (!next)
			u->line_tail = &u->line;
	}
}

static void submit(struct uring *u, struct io_op *op)
{
	if (!u->line && prepare(u, op))
		return;
	op->next = NULL;
	*u->line_tail = op;
	u->line_tail = &op->next;
	run_line(u);
}

static void uring_submit(struct engine *e, struct io_op *op)
{
	op->alone = false;
	submit(container_of(e, struct uring, engine), op);
}

/* The end of a write that others joined: of the first n bytes, if it is not an error. */
static void joined_done(struct uring *u, struct io_op *op, int64_t n)
{
	for (struct io_op *next; op; op = next) {
		next = op->next;
		u->writing -= op->bytes;
		if (n >= (int64_t)op->bytes) {
			n -= op->bytes;
			op->done(op, 0);
		} else {
			n = 0;
			op->alone = true;
			submit(u, op);
		}
	}
}

static void on_ready(void *opaque, uint32_t revents)
{
	struct uring *u = opaque;
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&u->ring, &cqe)) {
		struct io_op *op = io_uring_cqe_get_data(cqe);
		int res = cqe->res, ret;

		io_uring_cqe_seen(&u->ring, cqe);
		u->in_flight--;
		if (op->next) {
			joined_done(u, op, res);
			continue;
		}
		if (op->kind == IO_WRITE)
			u->writing -= op->bytes;
		if (io_advance(op, res, &ret))
			op->done(op, ret);
		else
			submit(u, op);
	}
}

static void before_sleep(void *opaque)
{
	struct uring *u = opaque;

	run_line(u);
	hand_over(u);
	if (u->polled && u->in_flight) {
		on_ready(u, 0);
		evloop_post(u->loop, &u->again);
	}
}

static void uring_attach(struct engine *e, struct evloop *loop)
{
	struct uring *u = container_of(e, struct uring, engine);

	u->loop = loop;
	u->hook = (struct ev_hook){.before_sleep = before_sleep, .opaque = u};
	evloop_hook_add(loop, &u->hook);
	u->polled = evloop_fd_add(loop, &u->ef, u->ring.ring_fd, EPOLLIN, on_ready, u) < 0;
}

static void uring_detach(struct engine *e)
{
	struct uring *u = container_of(e, struct uring, engine);

	evloop_unpost(u->loop, &u->again);
	evloop_fd_del(u->loop, &u->ef);
	evloop_hook_del(u->loop, &u->hook);
	u->loop = NULL;
}

static void uring_free(struct engine *e)
{
	struct uring *u = container_of(e, struct uring, engine);

	io_uring_queue_exit(&u->ring);
	free(u);
}

static const struct engine_ops uring_ops = {
	"io_uring", uring_submit, uring_attach, uring_detach, uring_free,
};

struct engine *engine_uring_new(int fd, struct error **err)
{
	struct uring *u = xcalloc(1, sizeof(*u));
	struct io_uring_params p = {.flags = IORING_SETUP_COOP_TASKRUN};
	int ret = io_uring_queue_init_params(ENGINE_DEPTH, &u->ring, &p);

	if (ret == -EINVAL) { /* before Linux 5.19 */
		p = (struct io_uring_params){0};
		ret = io_uring_queue_init_params(ENGINE_DEPTH, &u->ring, &p);
	}
	if (ret < 0) {
		error_set_errno(err, ret, "io_uring is not available on this host");
		free(u);
		return NULL;
	}
	if ((p.features & (IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_NODROP)) !=
	    (IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_NODROP)) {
		error_set(err, "io_uring of this host is too old (Linux 5.6 is needed)");
		io_uring_queue_exit(&u->ring);
		free(u);
		return NULL;
	}
	io_uring_ring_dontfork(&u->ring);
	u->fixed = io_uring_register_files(&u->ring, &fd, 1) == 0;
	u->engine.ops = &uring_ops;
	u->line_tail = &u->line;
	ev_work_init(&u->again, before_sleep, u);
	return &u->engine;
}

#else

struct engine *engine_uring_new(int fd, struct error **err)
{
	error_set(err, "this program was built without io_uring");
	return NULL;
}

#endif
