/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How what a guest programs into flash gets to the drive behind: sector by sector, with a flush at
 * the end. An error under werror=stop leaves the sectors dirty until the guest is told to go on.
 *
 * Thread: main loop; dirty is set by vCPU threads under the device's lock, which is never held
 * while the drive is called. Owner: the device.
 */
#include "hw/legacy/pflash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum { BOUNCE_SIZE = 64 << 10 };

static void write_some(struct pflash *p);

static void failed(struct pflash *p, int ret)
{
	enum block_on_error action = block_error_action(p->drive->werror, ret);
	struct vm_event event = {.kind = VM_EVENT_BLOCK_IO_ERROR,
				 .device = p->drive->id,
				 .operation = "write",
				 .error = -ret,
				 .action = action == BLOCK_ERR_STOP	? "stop"
					   : action == BLOCK_ERR_IGNORE ? "ignore"
									: "report"};

	/* The guest was told long ago that its bytes are there: this line is all the report. */
	log_error("%s: writing flash to its drive: %s", device_label(&p->dev), strerror(-ret));
	vm_send_event(p->dev.vm, &event);
	if (action != BLOCK_ERR_STOP)
		return;
	pthread_mutex_lock(&p->lock);
	if (p->req->op == BLOCK_WRITE)
		for (uint64_t i = 0; i < p->req->bytes / p->sector_length; i++)
			p->dirty[p->req->offset / p->sector_length + i] = true;
	pthread_mutex_unlock(&p->lock);
	p->unflushed = true;
	p->stopped_on_error = true;
	vm_request_stop(p->dev.vm, RUN_STATE_IO_ERROR);
}

static void written(struct block_req *req, int ret)
{
	struct pflash *p = req->ctx;

	p->busy = false;
	if (ret < 0)
		failed(p, ret);
	if (!p->stopped_on_error)
		write_some(p);
}

/* Copies the next run of dirty sectors; its length in bytes, 0 if there is none. */
static uint64_t take_dirty(struct pflash *p, uint64_t *offset)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&p->lock);
	for (uint64_t i = 0; i < pflash_sectors(p); i++) {
		if (!p->dirty[i]) {
			if (bytes)
				break;
			continue;
		}
		if (bytes + p->sector_length > MAX((uint64_t)BOUNCE_SIZE, p->sector_length))
			break;
		if (!bytes)
			*offset = i * p->sector_length;
		p->dirty[i] = false;
		bytes += p->sector_length;
	}
	memcpy(p->bounce, p->memory + (bytes ? *offset : 0), bytes);
	pthread_mutex_unlock(&p->lock);
	return bytes;
}

static void write_some(struct pflash *p)
{
	uint64_t offset = 0, bytes;

	if (p->busy)
		return;
	bytes = take_dirty(p, &offset);
	if (!bytes && !p->unflushed)
		return;
	p->req->node = p->drive->node;
	p->req->op = bytes ? BLOCK_WRITE : BLOCK_FLUSH;
	p->req->flags = 0;
	p->req->offset = offset;
	p->req->bytes = bytes;
	p->iov = (struct iovec){p->bounce, bytes};
	p->req->iov = bytes ? &p->iov : NULL;
	p->req->iovcnt = bytes ? 1 : 0;
	p->req->done = written;
	p->req->ctx = p;
	p->unflushed = bytes != 0;
	p->busy = true;
	block_submit(p->req);
}

static void write_work(void *opaque)
{
	struct pflash *p = opaque;

	if (!p->stopped_on_error)
		write_some(p);
}

static void state_changed(struct notifier *n, void *data)
{
	struct pflash *p = container_of(n, struct pflash, state_changed);

	if (*(const enum run_state *)data != RUN_STATE_RUNNING || !p->stopped_on_error)
		return;
	p->stopped_on_error = false;
	write_some(p);
}

void pflash_drive_write_all(struct pflash *p)
{
	uint64_t offset, bytes;
	int ret = 0;

	if (p->read_only)
		return;
	block_drain(p->drive->node);
	while ((bytes = take_dirty(p, &offset))) {
		ret = block_pwrite(p->drive->node, offset, p->bounce, bytes, 0);
		p->unflushed = true;
		if (ret < 0)
			break;
	}
	if (ret >= 0 && p->unflushed)
		ret = block_flush(p->drive->node);
	p->unflushed = false;
	if (ret < 0)
		log_error("%s: writing flash to its drive: %s", device_label(&p->dev),
			  strerror(-ret));
}

void pflash_drive_init(struct pflash *p)
{
	p->dirty = xcalloc(pflash_sectors(p), sizeof(*p->dirty));
	p->req = xcalloc(1, block_req_size(p->drive->node));
	p->bounce = xmalloc(MAX((uint64_t)BOUNCE_SIZE, p->sector_length));
	ev_work_init(&p->write_work, write_work, p);
	p->state_changed.fn = state_changed;
	notifier_add(&p->dev.vm->state_changed, &p->state_changed);
}

void pflash_drive_release(struct pflash *p)
{
	notifier_remove(&p->dev.vm->state_changed, &p->state_changed);
	evloop_unpost(p->dev.vm->loop, &p->write_work);
	free(p->dirty);
	free(p->req);
	free(p->bounce);
	p->dirty = NULL;
	p->req = NULL;
	p->bounce = NULL;
}
