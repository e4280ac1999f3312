/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block layer of the test's own, in memory: included by one file of a program, whose definitions
 * then stand in for libblock's. Requests are kept until the loop's next turn, or until they are let
 * go; some may be made to fail; what came is on record.
 */
#ifndef TESTS_LIB_FAKE_BLOCK_H
#define TESTS_LIB_FAKE_BLOCK_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/block.h"
#include "vmm/core/util.h"

enum { FAKE_BLOCK_LOG = 4096, FAKE_BLOCK_QUEUE = 65536 };

struct fake_seen {
	enum block_op op;
	uint32_t flags;
	uint64_t offset, bytes;
	int iovcnt;
	bool writeback;
};

struct block_node {
	struct evloop *loop;
	struct block_limits limits;
	uint8_t *data;
	uint64_t length;
	bool read_only, writeback;
	unsigned refs;
	struct notifier_list resize;

	bool hold;	      /* requests stay until fake_block_release() */
	unsigned fail_count;  /* this many requests fail */
	int fail_error;	      /* with this -errno */
	uint64_t fail_offset; /* only those that touch it; UINT64_MAX: all */
	bool fail_reads, fail_writes;

	/* A drive of the host's. */
	bool has_tray, tray_open, tray_locked, empty;
	int tray_error; /* of the next movement */

	struct block_req *queue[FAKE_BLOCK_QUEUE];
	unsigned head, tail;
	struct ev_work work;
	struct fake_seen seen[FAKE_BLOCK_LOG];
	unsigned seen_count;
};

enum { FAKE_BLOCK_CTX = 64 };

static void fake_copy(struct block_node *node, const struct block_req *req)
{
	uint64_t at = req->offset;

	for (int i = 0; i < req->iovcnt; i++) {
		if (req->op == BLOCK_READ)
			memcpy(req->iov[i].iov_base, node->data + at, req->iov[i].iov_len);
		else
			memcpy(node->data + at, req->iov[i].iov_base, req->iov[i].iov_len);
		at += req->iov[i].iov_len;
	}
	if (at != req->offset + req->bytes)
		abort(); /* the iovecs must add up */
}

static int fake_carry_out(struct block_node *node, struct block_req *req)
{
	bool read = req->op == BLOCK_READ;

	if (node->fail_count && (read ? node->fail_reads : node->fail_writes) &&
	    (node->fail_offset == UINT64_MAX ||
	     (node->fail_offset >= req->offset && node->fail_offset < req->offset + req->bytes))) {
		node->fail_count--;
		return node->fail_error;
	}
	if (!range_inside(req->offset, req->bytes, node->length))
		return -EIO;
	switch (req->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		fake_copy(node, req);
		break;
	case BLOCK_WRITE_ZEROES:
		memset(node->data + req->offset, 0, req->bytes);
		break;
	case BLOCK_DISCARD:
		memset(node->data + req->offset, 0xdd, req->bytes);
		break;
	case BLOCK_FLUSH:
		break;
	}
	return 0;
}

/* Ends the n oldest requests. */
static void fake_block_release(struct block_node *node, unsigned n)
{
	while (n-- && node->head != node->tail) {
		struct block_req *req = node->queue[node->head++ % FAKE_BLOCK_QUEUE];

		req->done(req, fake_carry_out(node, req));
	}
}

static void fake_work(void *opaque)
{
	struct block_node *node = opaque;

	if (!node->hold)
		fake_block_release(node, node->tail - node->head);
}

static struct block_node *fake_block_new(struct evloop *loop, uint64_t length)
{
	struct block_node *node = calloc(1, sizeof(*node));

	node->loop = loop;
	node->length = length;
	node->data = calloc(1, length);
	node->writeback = true;
	node->refs = 1;
	node->fail_offset = UINT64_MAX;
	node->fail_reads = node->fail_writes = true;
	node->limits = (struct block_limits){
		.request_alignment = 1,
		.max_iov = 1024,
		.max_transfer = GiB,
		.discard_alignment = 4096,
		.max_discard = INT64_MAX,
		.max_write_zeroes = INT64_MAX,
		.physical_block = 4096,
		.discard = true,
		.write_zeroes = true,
	};
	ev_work_init(&node->work, fake_work, node);
	return node;
}

static inline void fake_block_resize(struct block_node *node, uint64_t length)
{
	node->data = realloc(node->data, length);
	node->length = length;
	notifier_fire(&node->resize, node);
}

/* How many requests of a kind came. */
static inline unsigned fake_block_count(const struct block_node *node, enum block_op op)
{
	unsigned n = 0;

	for (unsigned i = 0; i < node->seen_count && i < FAKE_BLOCK_LOG; i++)
		n += node->seen[i].op == op;
	return n;
}

/* ---- block.h ---- */

size_t block_req_size(const struct block_node *node)
{
	return sizeof(struct block_req) + FAKE_BLOCK_CTX;
}

void block_submit(struct block_req *req)
{
	struct block_node *node = req->node;

	if (!evloop_is_mine(node->loop) || node->tail - node->head == FAKE_BLOCK_QUEUE)
		abort();
	memset(req->driver, 0xa5, FAKE_BLOCK_CTX);
	if (node->seen_count < FAKE_BLOCK_LOG)
		node->seen[node->seen_count] = (struct fake_seen){
			.op = req->op,
			.flags = req->flags,
			.offset = req->offset,
			.bytes = req->bytes,
			.iovcnt = req->iovcnt,
			.writeback = node->writeback,
		};
	node->seen_count++;
	node->queue[node->tail++ % FAKE_BLOCK_QUEUE] = req;
	evloop_post(node->loop, &node->work);
}

void block_ref(struct block_node *node)
{
	node->refs++;
}

void block_unref(struct block_node *node)
{
	if (--node->refs)
		return;
	if (node->head != node->tail || node->resize.first)
		abort();
	free(node->data);
	free(node);
}

void block_drain(struct block_node *node)
{
	/* Turns the loop, as the real one does, so that others run meanwhile. */
	while (node->head != node->tail) {
		fake_block_release(node, 1);
		evloop_run_once(node->loop, 0);
	}
}

void block_set_loop(struct block_node *node, struct evloop *loop)
{
	block_drain(node);
	evloop_unpost(node->loop, &node->work);
	node->loop = loop;
}

uint64_t block_length(const struct block_node *node)
{
	return node->length;
}

bool block_read_only(const struct block_node *node)
{
	return node->read_only;
}

const struct block_limits *block_limits(const struct block_node *node)
{
	return &node->limits;
}

struct notifier_list *block_resize_notifiers(struct block_node *node)
{
	return &node->resize;
}

void block_set_writeback(struct block_node *node, bool writeback)
{
	if (!evloop_is_mine(node->loop))
		abort();
	node->writeback = writeback;
}

bool block_writeback(const struct block_node *node)
{
	return node->writeback;
}

int block_tray(struct block_node *node, enum block_tray action)
{
	int ret = node->tray_error;

	if (!evloop_is_mine(node->loop))
		abort();
	if (!node->has_tray)
		return -ENOTSUP;
	if (action == BLOCK_TRAY_LOCK || action == BLOCK_TRAY_UNLOCK) {
		node->tray_locked = action == BLOCK_TRAY_LOCK;
		return 0;
	}
	if (action != BLOCK_TRAY_LOOK) {
		node->tray_error = 0;
		if (!ret)
			node->tray_open = action == BLOCK_TRAY_OPEN;
	}
	return action != BLOCK_TRAY_LOOK && ret ? ret : !node->tray_open && !node->empty;
}

enum block_on_error block_error_action(enum block_on_error policy, int ret)
{
	if (policy == BLOCK_ERR_ENOSPC)
		return ret == -ENOSPC ? BLOCK_ERR_STOP : BLOCK_ERR_REPORT;
	return policy;
}

#endif
