/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and host block devices: the bottom of every stack. Requests here, opening in file_open.c.
 *
 * Reads, writes and syncs go to the engine. What has no asynchronous call (zeroing, discarding,
 * transfers that O_DIRECT does not take as they are) goes to the node's pool of threads.
 *
 * With O_DIRECT, a write whose ends are off the alignment reads the blocks at its ends, and so must
 * have them to itself: it holds its aligned range exclusively, other writes hold theirs shared.
 *
 * Thread: the node's loop; *_job functions run on the pool's threads and touch only their request.
 */
#include "block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BOUNCE = 1 << 20 };

static void file_start(struct block_node *node, struct file_req *f);

static void complete(struct file_req *f, int ret)
{
	struct block_req *req = f->req;
	struct file_node *s = req->node->opaque;

	if (f->ranged)
		range_drop(&f->range, &s->runq);
	block_complete(req, ret);
	if (s->runq.first)
		waitq_run(&s->runq, &s->running);
}

static void op_done(struct io_op *op, int ret)
{
	struct file_req *f = container_of(op, struct file_req, op);

	if (op->kind == IO_SYNC && ret)
		((struct file_node *)f->req->node->opaque)->sync_failed = true;
	complete(f, ret);
}

static void job_done(struct pool_job *job, int ret)
{
	struct file_req *f = container_of(job, struct file_req, op.job);

	complete(f, ret);
}

static void start_job(struct file_req *f, int (*fn)(struct pool_job *job))
{
	struct file_node *s = f->req->node->opaque;

	f->op.job.fn = fn;
	f->op.job.done = job_done;
	pool_submit(s->pool, &f->op.job);
}

/* pread or pwrite of an aligned bounce buffer, whole. Reads are zero past the end. */
static int bounce_io(struct file_node *s, enum io_kind kind, void *buf, size_t bytes,
		     uint64_t offset)
{
	struct iovec iov = {buf, bytes};
	struct io_op op = {
		.kind = kind,
		.fd = s->fd,
		.align = s->align,
		.offset = offset,
		.bytes = bytes,
		.iov = &iov,
		.iovcnt = 1,
	};

	return io_run(&op);
}

/* One piece of at most BOUNCE bytes: [start, end) is aligned and holds [offset, offset + bytes). */
static int bounce_piece(struct file_node *s, struct block_req *req, void *buf, uint64_t offset,
			size_t bytes, size_t skip)
{
	uint64_t start = ALIGN_DOWN(offset, s->align), end = ALIGN_UP(offset + bytes, s->align);
	char *b = buf;
	int ret;

	if (req->act == BLOCK_READ) {
		ret = bounce_io(s, IO_READ, buf, end - start, start);
		if (!ret)
			iov_from_buf(req->iov, req->iovcnt, skip, b + (offset - start), bytes);
		return ret;
	}
	if (start < offset) {
		ret = bounce_io(s, IO_READ, buf, s->align, start);
		if (ret)
			return ret;
	}
	if (end > offset + bytes && (end - start > s->align || start == offset)) {
		ret = bounce_io(s, IO_READ, b + (end - start - s->align), s->align, end - s->align);
		if (ret)
			return ret;
	}
	if (req->act == BLOCK_WRITE)
		iov_to_buf(req->iov, req->iovcnt, skip, b + (offset - start), bytes);
	else
		memset(b + (offset - start), 0, bytes);
	return bounce_io(s, IO_WRITE, buf, end - start, start);
}

/* Also writes zeroes where the host has no call for that. */
static int bounce_job(struct pool_job *job)
{
	struct file_req *f = container_of(job, struct file_req, op.job);
	struct block_req *req = f->req;
	struct file_node *s = req->node->opaque;
	uint64_t offset = req->offset, left = req->bytes;
	size_t size = MIN((uint64_t)BOUNCE, ALIGN_UP(left + 2 * (uint64_t)s->align, 4096)),
	       skip = 0;
	void *buf;
	int ret = 0;

	size = MAX(size, 2 * (size_t)s->align);
	if (posix_memalign(&buf, MAX(s->mem_align, 4096u), size))
		return -ENOMEM;
	while (left && !ret) {
		uint64_t room = size - (offset & (s->align - 1));
		size_t n = MIN(left, ALIGN_DOWN(offset + room, s->align) - offset);

		ret = bounce_piece(s, req, buf, offset, n, req->iov_skip + skip);
		offset += n;
		skip += n;
		left -= n;
	}
	free(buf);
	if (!ret && (req->act_flags & BLOCK_FUA) && fdatasync(s->fd) < 0)
		ret = -errno;
	return ret;
}

static int punch(struct file_node *s, uint64_t offset, uint64_t bytes)
{
	uint64_t range[2] = {offset, bytes};

	if (s->is_block) {
		if (!ioctl(s->fd, BLKDISCARD, range))
			return 0;
	} else if (!fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes)) {
		return 0;
	}
	return -errno;
}

static bool unsupported(int ret)
{
	return ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -ENOTTY || ret == -EINVAL ||
	       ret == -EPERM;
}

static int discard_job(struct pool_job *job)
{
	struct file_req *f = container_of(job, struct file_req, op.job);
	struct file_node *s = f->req->node->opaque;
	uint32_t unit = s->is_block ? MAX(s->align, 512u) : s->align;
	uint64_t start = ALIGN_UP(f->req->offset, unit);
	uint64_t end = ALIGN_DOWN(f->req->offset + f->req->bytes, unit);
	int ret = start < end ? punch(s, start, end - start) : 0;

	return unsupported(ret) ? 0 : ret; /* it was a hint */
}

static int try_zero(struct file_node *s, uint64_t offset, uint64_t bytes, bool unmap)
{
	uint64_t range[2] = {offset, bytes};
	int ret;

	if (s->is_block) {
		/* On a block device a hole reads as zero, which a mere discard does not promise. */
		if (unmap &&
		    !fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes))
			return 0;
		return ioctl(s->fd, BLKZEROOUT, range) < 0 ? -errno : 0;
	}
	if (!unmap && !s->no_zero_range) {
		if (!fallocate(s->fd, FALLOC_FL_ZERO_RANGE, offset, bytes))
			return 0;
		if (!unsupported(-errno))
			return -errno;
		__atomic_store_n(&s->no_zero_range, true, __ATOMIC_RELAXED);
	}
	if (s->no_punch)
		return -EOPNOTSUPP;
	ret = punch(s, offset, bytes);
	if (unsupported(ret)) {
		__atomic_store_n(&s->no_punch, true, __ATOMIC_RELAXED);
		return -EOPNOTSUPP;
	}
	/* The hole keeps the size: the last byte makes the file reach as far as a write would have,
	 * and it is this request's own, so no other write can lose by it. */
	if (!ret && fallocate(s->fd, 0, unmap ? offset + bytes - 1 : offset, unmap ? 1 : bytes) < 0)
		ret = unsupported(-errno) ? -EOPNOTSUPP : -errno;
	return ret;
}

static int zero_job(struct pool_job *job)
{
	struct file_req *f = container_of(job, struct file_req, op.job);
	struct block_req *req = f->req;
	struct file_node *s = req->node->opaque;
	bool unmap = req->act_flags & BLOCK_MAY_UNMAP;
	struct stat st;
	int ret = -EOPNOTSUPP;

	if (IS_ALIGNED(req->offset | req->bytes, s->align)) {
		/* Inside the file a hole is enough and nothing needs to grow. */
		if (unmap && !s->is_block && !s->no_punch && !fstat(s->fd, &st) &&
		    req->offset + req->bytes <= (uint64_t)st.st_size)
			ret = punch(s, req->offset, req->bytes);
		else
			ret = try_zero(s, req->offset, req->bytes, unmap);
	}
	if (unsupported(ret))
		return req->act_flags & BLOCK_NO_FALLBACK ? -ENOTSUP : bounce_job(job);
	if (!ret && (req->act_flags & BLOCK_FUA) && fdatasync(s->fd) < 0)
		ret = -errno;
	return ret;
}

static bool memory_aligned(const struct file_node *s, const struct block_req *req)
{
	struct iovec iov[16];
	int n;

	if (req->act == BLOCK_WRITE_ZEROES)
		return true;
	n = iov_slice(req->iov, req->iovcnt, req->iov_skip, req->bytes, iov, 16);
	if (n < 0)
		return false;
	for (int i = 0; i < n; i++) {
		if (!IS_ALIGNED((uintptr_t)iov[i].iov_base, s->mem_align) ||
		    !IS_ALIGNED(iov[i].iov_len, s->align))
			return false;
	}
	return true;
}

static void retry(struct waiter *w)
{
	struct file_req *f = container_of(w, struct file_req, waiter);

	file_start(f->req->node, f);
}

/* O_DIRECT only. False: waits for another write. */
static bool take_range(struct file_node *s, struct file_req *f)
{
	struct block_req *req = f->req;
	bool whole = IS_ALIGNED(req->offset | req->bytes, s->align);
	uint64_t start = ALIGN_DOWN(req->offset, s->align);
	uint64_t end = ALIGN_UP(req->offset + req->bytes, s->align);
	struct range *other = range_conflict(&s->writes, start, end, !whole);

	if (other) {
		waitq_add(&other->waiters, &f->waiter);
		return false;
	}
	range_take(&s->writes, &f->range, start, end, !whole);
	f->ranged = true;
	return true;
}

static void start_io(struct file_node *s, struct file_req *f, enum io_kind kind)
{
	struct block_req *req = f->req;
	struct io_op *op = &f->op;

	op->kind = kind;
	op->dsync = kind == IO_WRITE && (req->act_flags & BLOCK_FUA);
	op->fd = s->fd;
	op->align = s->align;
	op->offset = req->offset;
	op->bytes = req->bytes;
	op->iov = req->iov;
	op->iovcnt = req->iovcnt;
	op->skip = req->iov_skip;
	op->done = op_done;
	s->engine->ops->submit(s->engine, op);
}

static void file_start(struct block_node *node, struct file_req *f)
{
	struct file_node *s = node->opaque;
	struct block_req *req = f->req;

	if (req->act == BLOCK_FLUSH) {
		if (node->no_flush)
			block_complete(req, 0);
		else if (s->sync_failed)
			block_complete(req, -EIO);
		else
			start_io(s, f, IO_SYNC);
		return;
	}
	if (req->act == BLOCK_DISCARD || req->act == BLOCK_WRITE_ZEROES)
		s->data_end = 0;
	if (s->align > 1 && req->act != BLOCK_READ && !take_range(s, f))
		return;
	if (req->act == BLOCK_DISCARD)
		start_job(f, discard_job);
	else if (req->act == BLOCK_WRITE_ZEROES)
		start_job(f, zero_job);
	else if (s->direct &&
		 (!IS_ALIGNED(req->offset | req->bytes, s->align) || !memory_aligned(s, req)))
		start_job(f, bounce_job);
	else
		start_io(s, f, req->act == BLOCK_READ ? IO_READ : IO_WRITE);
}

void file_submit(struct block_node *node, struct block_req *req)
{
	struct file_req *f = block_ctx(req);

	f->req = req;
	f->ranged = false;
	f->waiter.fn = retry;
	file_start(node, f);
}

void file_attach(struct block_node *node, struct evloop *loop)
{
	struct file_node *s = node->opaque;

	pool_attach(s->pool, loop);
	s->engine->ops->attach(s->engine, loop);
}

void file_detach(struct block_node *node)
{
	struct file_node *s = node->opaque;

	if (!s->engine)
		return;
	s->engine->ops->detach(s->engine);
	pool_detach(s->pool);
}

const struct block_driver block_file = {
	.name = "file",
	.node_size = sizeof(struct file_node),
	.req_size = sizeof(struct file_req),
	.protocol = true,
	.fast_zeroes = true,
	.open = file_open,
	.close = file_close,
	.submit = file_submit,
	.attach = file_attach,
	.detach = file_detach,
	.truncate = file_truncate,
	.preallocate = file_preallocate,
	.status = file_status,
	.allocated = file_allocated,
};

const struct block_driver block_host_device = {
	.name = "host_device",
	.node_size = sizeof(struct file_node),
	.req_size = sizeof(struct file_req),
	.protocol = true,
	.fast_zeroes = true,
	.open = host_device_open,
	.close = file_close,
	.submit = file_submit,
	.attach = file_attach,
	.detach = file_detach,
	.truncate = file_truncate,
	.preallocate = file_preallocate,
	.status = file_status,
	.allocated = file_allocated,
};
