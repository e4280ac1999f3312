/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data path of the virtio block device: virtio 1.2, section 5.2.6.
 *
 * kick() takes chains, parses them, and joins those that follow one another on the disk into one
 * request to the node: the first carries the others in its list, and its iovec array, which has
 * room behind its own data, carries theirs. Should a joined request fail, its parts are tried
 * alone, so that only the bad one fails for the guest.
 *
 * Thread: the device's loop. Owner: struct virtio_blk.
 */
#include <errno.h>
#include <stdlib.h>

#include "hw/virtio/virtio_blk.h"
#include "vmm/core/util.h"

/* Beyond the header, the status and seg_max data descriptors: for those who split the header, and
 * for descriptors that lie across two memory regions. */
enum { SPARE_IOVS = 16 };

static struct virtio_blk *blk_of(struct virtio_device *vdev)
{
	return container_of(vdev, struct virtio_blk, vdev);
}

static void tell_error(void *opaque)
{
	struct virtio_blk *blk = opaque;
	struct virtio_blk_error_event *e = &blk->error_event;
	struct vm_event event = {
		.kind = VM_EVENT_BLOCK_IO_ERROR,
		.device = blk->drive->id ? blk->drive->id : "",
		.operation = e->operation,
		.action = e->action,
		.error = e->error,
	};

	atomic_store_explicit(&e->busy, false, memory_order_release);
	vm_send_event(blk->vdev.vm, &event);
}

/* ---- the pool ---- */

/* One more than can be in flight: the one to pop into. */
static size_t pool_size(const struct virtio_blk *blk)
{
	return blk->queue_size + 1;
}

void virtio_blk_io_init(struct virtio_blk *blk)
{
	size_t size = offsetof(struct virtio_blk_req, block) + block_req_size(blk->node);

	blk->request_size = ALIGN_UP(MAX(size, sizeof(struct virtio_blk_req)), (size_t)16);
	blk->iov_max = MIN(blk->seg_max + 2 + SPARE_IOVS, (unsigned)VQ_MAX_IOV);
	blk->retry_last = &blk->retry_first;
	ev_work_init(&blk->error_event.work, tell_error, blk);
	blk->queues = xcalloc(blk->vdev.queue_count, sizeof(*blk->queues));
	for (unsigned i = 0; i < blk->vdev.queue_count; i++) {
		struct virtio_blk_queue *q = &blk->queues[i];

		q->blk = blk;
		q->vq = &blk->vdev.queues[i];
		q->requests = xcalloc(pool_size(blk), blk->request_size);
		q->iovs = xcalloc(pool_size(blk) * blk->iov_max, sizeof(*q->iovs));
	}
}

void virtio_blk_io_destroy(struct virtio_blk *blk)
{
	for (unsigned i = 0; blk->queues && i < blk->num_queues; i++) {
		free(blk->queues[i].requests);
		free(blk->queues[i].iovs);
	}
	free(blk->queues);
	blk->queues = NULL;
}

static struct virtio_blk_req *get_request(struct virtio_blk_queue *q)
{
	struct virtio_blk *blk = q->blk;
	struct virtio_blk_req *req = q->free;

	if (req) {
		q->free = req->next;
	} else if (q->fresh < pool_size(blk)) {
		req = (struct virtio_blk_req *)(q->requests + blk->request_size * q->fresh);
		req->queue = q;
		req->chain.iov = q->iovs + (size_t)blk->iov_max * q->fresh;
		req->chain.iov_max = blk->iov_max;
		q->fresh++;
	} else {
		return NULL;
	}
	req->next = NULL;
	req->merged_last = req;
	return req;
}

static void put_request(struct virtio_blk_req *req)
{
	req->next = req->queue->free;
	req->queue->free = req;
}

/* ---- completion ---- */

static void complete(struct virtio_blk_req *req, uint8_t status)
{
	struct virtio_blk_queue *q = req->queue;
	uint32_t written = 1;

	if (status == VIRTIO_BLK_S_OK && req->cmd.action == VIRTIO_BLK_READ)
		written += req->cmd.bytes;
	else if (status == VIRTIO_BLK_S_OK && req->cmd.action == VIRTIO_BLK_GET_ID)
		written += VIRTIO_BLK_ID_BYTES;
	*req->cmd.status_byte = status;
	vq_mark_written(q->vq, req->cmd.status_byte, 1);
	virtio_push(&q->blk->vdev, q->vq, &req->chain, written);
	put_request(req);
}

/* Events go out on the main thread; of those that come while one is on its way nothing is told. */
static void post_error(struct virtio_blk *blk, bool read, const char *action, int ret)
{
	struct virtio_blk_error_event *e = &blk->error_event;

	if (atomic_exchange_explicit(&e->busy, true, memory_order_acq_rel))
		return;
	e->operation = read ? "read" : "write";
	e->action = action;
	e->error = -ret;
	evloop_post(blk->vdev.vm->loop, &e->work);
}

static void hold_for_retry(struct virtio_blk *blk, struct virtio_blk_req *req)
{
	req->next = NULL;
	*blk->retry_last = req;
	blk->retry_last = &req->next;
}

static void fail_request(struct virtio_blk_req *req, int ret)
{
	struct virtio_blk *blk = req->queue->blk;
	bool read = req->cmd.action == VIRTIO_BLK_READ;

	if (ret == -ENOTSUP) {
		/* Nobody below can; a discard is a hint and may well have no effect. */
		complete(req, req->cmd.action == VIRTIO_BLK_DISCARD ? VIRTIO_BLK_S_OK
								    : VIRTIO_BLK_S_UNSUPP);
		return;
	}
	switch (block_error_action(read ? blk->on_read_error : blk->on_write_error, ret)) {
	case BLOCK_ERR_STOP:
		hold_for_retry(blk, req);
		post_error(blk, read, "stop", ret);
		vm_request_stop(blk->vdev.vm, RUN_STATE_IO_ERROR);
		break;
	case BLOCK_ERR_IGNORE:
		post_error(blk, read, "ignore", ret);
		complete(req, VIRTIO_BLK_S_OK);
		break;
	default:
		post_error(blk, read, "report", ret);
		complete(req, VIRTIO_BLK_S_IOERR);
	}
}

static void submit(struct virtio_blk_req *req);

static void submit_alone(struct virtio_blk_req *req)
{
	req->next = NULL;
	req->merged_last = req;
	req->block.bytes = req->cmd.bytes;
	req->block.iovcnt = req->cmd.data_count;
	submit(req);
}

static void request_done(struct block_req *block, int ret)
{
	struct virtio_blk_req *req = container_of(block, struct virtio_blk_req, block), *next;
	struct virtio_blk *blk = req->queue->blk;
	bool merged = req->next != NULL;

	blk->in_flight--;
	for (; req; req = next) {
		next = req->next;
		if (blk->vdev.resetting)
			put_request(req);
		else if (ret < 0 && merged)
			submit_alone(req);
		else if (ret < 0)
			fail_request(req, ret);
		else
			complete(req, VIRTIO_BLK_S_OK);
	}
	virtio_request_done(&blk->vdev);
}

/* ---- submission ---- */

static void submit(struct virtio_blk_req *req)
{
	struct virtio_blk *blk = req->queue->blk;

	blk->in_flight++;
	block_submit(&req->block);
}

static void prepare(struct virtio_blk_req *req)
{
	static const enum block_op ops[] = {
		[VIRTIO_BLK_READ] = BLOCK_READ,
		[VIRTIO_BLK_WRITE] = BLOCK_WRITE,
		[VIRTIO_BLK_FLUSH] = BLOCK_FLUSH,
		[VIRTIO_BLK_DISCARD] = BLOCK_DISCARD,
		[VIRTIO_BLK_WRITE_ZEROES] = BLOCK_WRITE_ZEROES,
	};
	struct virtio_blk_cmd *cmd = &req->cmd;
	struct block_req *block = &req->block;
	bool transfer = cmd->action == VIRTIO_BLK_READ || cmd->action == VIRTIO_BLK_WRITE;

	block->node = req->queue->blk->node;
	block->op = ops[cmd->action];
	block->flags = cmd->unmap ? BLOCK_MAY_UNMAP : 0;
	block->offset = cmd->offset;
	block->bytes = cmd->bytes;
	block->iov = transfer ? cmd->data : NULL;
	block->iovcnt = transfer ? cmd->data_count : 0;
	block->done = request_done;
	block->ctx = NULL;
}

static bool can_merge(const struct virtio_blk *blk, const struct virtio_blk_req *first,
		      const struct virtio_blk_req *req)
{
	size_t room = first->chain.iov + first->chain.iov_max - first->cmd.data;
	unsigned count = first->block.iovcnt + req->cmd.data_count;

	return first->block.op == req->block.op &&
	       first->block.offset + first->block.bytes == req->cmd.offset && count <= room &&
	       count <= blk->merge_iov && first->block.bytes + req->cmd.bytes <= blk->merge_bytes;
}

static void merge(struct virtio_blk_req *first, struct virtio_blk_req *req)
{
	memcpy(first->cmd.data + first->block.iovcnt, req->cmd.data,
	       req->cmd.data_count * sizeof(*req->cmd.data));
	first->block.iovcnt += req->cmd.data_count;
	first->block.bytes += req->cmd.bytes;
	first->merged_last->next = req;
	first->merged_last = req;
}

/* *pending is the transfer that others may still join; NULL req submits it. */
static void queue_transfer(struct virtio_blk *blk, struct virtio_blk_req **pending,
			   struct virtio_blk_req *req)
{
	if (*pending && req && blk->request_merging && can_merge(blk, *pending, req)) {
		merge(*pending, req);
		return;
	}
	if (*pending)
		submit(*pending);
	*pending = req;
}

static void get_id(struct virtio_blk *blk, struct virtio_blk_req *req)
{
	const char *serial = blk->serial ? blk->serial : blk->drive->serial;
	char id[VIRTIO_BLK_ID_BYTES] = {0};

	if (serial)
		memcpy(id, serial, strnlen(serial, sizeof(id)));
	if (iov_from_buf(req->cmd.data, req->cmd.data_count, 0, id, sizeof(id)) == sizeof(id))
		complete(req, VIRTIO_BLK_S_OK);
	else
		complete(req, VIRTIO_BLK_S_IOERR);
}

static void start(struct virtio_blk *blk, struct virtio_blk_req *req,
		  struct virtio_blk_req **pending)
{
	const char *wrong = virtio_blk_parse(&req->chain, &blk->limits, &req->cmd);

	if (wrong) {
		virtio_device_fail(&blk->vdev, "%s", wrong);
		put_request(req);
		return;
	}
	switch (req->cmd.action) {
	case VIRTIO_BLK_ANSWER:
		complete(req, req->cmd.status);
		break;
	case VIRTIO_BLK_GET_ID:
		get_id(blk, req);
		break;
	case VIRTIO_BLK_READ:
	case VIRTIO_BLK_WRITE:
		prepare(req);
		queue_transfer(blk, pending, req);
		break;
	default:
		prepare(req);
		submit(req);
	}
}

void virtio_blk_kick(struct virtio_device *vdev, struct virtqueue *vq)
{
	struct virtio_blk *blk = blk_of(vdev);
	struct virtio_blk_queue *q = &blk->queues[vq->index];
	struct virtio_blk_req *pending = NULL, *req;
	/* A driver that adds as fast as we answer must not keep the loop from others. */
	unsigned budget = vq->size;

	do {
		vq_disable_notify(vq);
		while ((req = get_request(q))) {
			if (!budget || vq_pop(vq, &req->chain) <= 0) {
				put_request(req);
				break;
			}
			budget--;
			start(blk, req, &pending);
		}
		queue_transfer(blk, &pending, NULL);
		if (!budget) {
			virtio_again(vdev, vq);
			return;
		}
	} while (vq_enable_notify(vq));
}

/* ---- stops and goes ---- */

/* The waiting requests, oldest first; the list is empty afterwards. */
static struct virtio_blk_req *take_retries(struct virtio_blk *blk)
{
	struct virtio_blk_req *first = blk->retry_first;

	blk->retry_first = NULL;
	blk->retry_last = &blk->retry_first;
	return first;
}

void virtio_blk_stop(struct virtio_device *vdev)
{
	struct virtio_blk_req *next;

	for (struct virtio_blk_req *req = take_retries(blk_of(vdev)); req; req = next) {
		next = req->next;
		put_request(req);
	}
}

void virtio_blk_resume(struct virtio_device *vdev)
{
	struct virtio_blk_req *next;

	for (struct virtio_blk_req *req = take_retries(blk_of(vdev)); req; req = next) {
		next = req->next;
		submit_alone(req);
	}
}

bool virtio_blk_is_idle(struct virtio_device *vdev)
{
	return !blk_of(vdev)->in_flight;
}

void virtio_blk_drain(struct virtio_device *vdev)
{
	struct virtio_blk *blk = blk_of(vdev);

	if (blk->in_flight)
		block_drain(blk->node);
}
