/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task's requests to its drive: cut to what the node takes at once, and what happens when the
 * host fails one (rerror=, werror=).
 *
 * A task that an error stopped is parked with the piece that failed; when the guest is told to go
 * on, that piece is tried again. Thread: main loop. Lock: the adapter's. Owner: the task's adapter.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "hw/ata/ata.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

static void submit(struct ata_task *t);

static void finish(struct ata_task *t, int ret)
{
	if (t->op == BLOCK_READ && ret >= 0)
		ata_task_mark_dirty(t);
	if (t->dropped)
		ata_task_done(t);
	else
		t->io_done(t, ret);
}

/* What to do about an error, which management is told. */
static enum block_on_error report(struct ata_task *t, int ret)
{
	struct drive *drive = t->dev->drive;
	bool read = t->op == BLOCK_READ;
	enum block_on_error action = block_error_action(read ? drive->rerror : drive->werror, ret);
	struct vm_event event = {.kind = VM_EVENT_BLOCK_IO_ERROR,
				 .device = drive->id ? drive->id : "",
				 .operation = read ? "read" : "write",
				 .error = -ret,
				 .action = action == BLOCK_ERR_STOP	? "stop"
					   : action == BLOCK_ERR_IGNORE ? "ignore"
									: "report"};

	vm_send_event(t->dev->dev.vm, &event);
	if (action == BLOCK_ERR_STOP)
		vm_request_stop(t->dev->dev.vm, RUN_STATE_IO_ERROR);
	return action;
}

static void request_done(struct block_req *req, int ret)
{
	struct ata_task *t = req->ctx;
	struct ide_dev *d = t->dev;
	enum block_on_error action = BLOCK_ERR_REPORT;

	if (ret < 0 && !t->dropped)
		action = report(t, ret);
	if (action == BLOCK_ERR_IGNORE)
		ret = 0;
	pthread_mutex_lock(d->lock);
	if (ret >= 0)
		t->done_bytes += t->piece;
	if (t->dropped || (ret < 0 && action != BLOCK_ERR_STOP)) {
		finish(t, ret);
	} else if (ret < 0) {
		t->next_parked = d->parked;
		d->parked = t;
	} else if (t->done_bytes < t->bytes) {
		submit(t);
	} else {
		finish(t, 0);
	}
	pthread_mutex_unlock(d->lock);
}

/* The part of the transfer that begins at done_bytes and has at most max bytes; its length. */
static uint64_t cut_iov(struct ata_task *t, uint64_t max, int max_iov)
{
	uint64_t skip = t->done_bytes, len = 0;

	t->req->iov = t->part;
	t->req->iovcnt = 0;
	for (int i = 0; i < t->iovcnt && len < max && t->req->iovcnt < max_iov; i++) {
		if (skip >= t->iov[i].iov_len) {
			skip -= t->iov[i].iov_len;
			continue;
		}
		size_t n = MIN(t->iov[i].iov_len - skip, max - len);
		t->part[t->req->iovcnt++] = (struct iovec){(uint8_t *)t->iov[i].iov_base + skip, n};
		skip = 0;
		len += n;
	}
	/* Whole sectors: what is too much goes with the next part. */
	for (uint64_t excess = len % ATA_SECTOR; excess && t->req->iovcnt;) {
		struct iovec *last = &t->part[t->req->iovcnt - 1];
		size_t n = MIN(excess, last->iov_len);

		last->iov_len -= n;
		len -= n;
		excess -= n;
		if (!last->iov_len)
			t->req->iovcnt--;
	}
	return len;
}

static void submit(struct ata_task *t)
{
	struct block_node *node = t->dev->drive->node;
	const struct block_limits *limits;
	uint64_t left = t->bytes - t->done_bytes;

	if (!node) {
		finish(t, -ENOMEDIUM);
		return;
	}
	if (t->req_size < block_req_size(node)) {
		t->req_size = block_req_size(node);
		t->req = xrealloc(t->req, t->req_size);
	}
	limits = block_limits(node);
	t->req->iov = NULL;
	t->req->iovcnt = 0;
	t->piece = left;
	if (t->op == BLOCK_READ || t->op == BLOCK_WRITE) {
		uint64_t max = ALIGN_DOWN(MAX(limits->max_transfer, (uint64_t)ATA_SECTOR),
					  ATA_SECTOR);
		t->piece = cut_iov(t, MIN(left, max), MIN(limits->max_iov, ATA_PART_IOV));
	} else if (t->op == BLOCK_DISCARD && limits->max_discard) {
		t->piece = MIN(left, MAX(ALIGN_DOWN(limits->max_discard, ATA_SECTOR),
					 (uint64_t)ATA_SECTOR));
	}
	t->req->node = node;
	t->req->op = t->op;
	t->req->flags = t->flags;
	t->req->offset = t->offset + t->done_bytes;
	t->req->bytes = t->piece;
	t->req->done = request_done;
	t->req->ctx = t;
	if (left && !t->piece)
		finish(t, -EINVAL); /* less than a sector in as many pieces as one request takes */
	else
		block_submit(t->req);
}

void ata_io_start(struct ata_task *t, enum block_op op, uint64_t offset, uint64_t bytes,
		  uint32_t flags, void (*io_done)(struct ata_task *t, int ret))
{
	t->op = op;
	t->offset = offset;
	t->bytes = bytes;
	t->done_bytes = 0;
	t->flags = flags;
	t->io_done = io_done;
	if (!t->part)
		t->part = xcalloc(ATA_PART_IOV, sizeof(*t->part));
	submit(t);
}

void ata_io_resume(struct ide_dev *d)
{
	pthread_mutex_lock(d->lock);
	struct ata_task *t = d->parked;
	d->parked = NULL;
	while (t) {
		struct ata_task *next = t->next_parked;

		submit(t);
		t = next;
	}
	pthread_mutex_unlock(d->lock);
}

void ata_io_forget(struct ide_dev *d)
{
	struct ata_task *t = d->parked;

	d->parked = NULL;
	while (t) {
		struct ata_task *next = t->next_parked;

		t->dropped = true;
		ata_task_done(t);
		t = next;
	}
}

void ata_task_release(struct ata_task *t)
{
	free(t->iov);
	free(t->extents);
	free(t->part);
	free(t->req);
	free(t->ranges);
	t->iov = t->part = NULL;
	t->extents = NULL;
	t->req = NULL;
	t->ranges = NULL;
	t->iov_room = 0;
	t->req_size = 0;
}
