/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's requests to its export: from the header to the block layer and back. Thread: the
 * server's loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/nbd/conn.h"

bool nbd_serve(struct nbd_conn *c)
{
	for (size_t i = 0; i < NBD_SLOTS; i++) {
		c->slots[i].req = malloc(block_req_size(c->export->node));
		if (!c->slots[i].req)
			return false;
	}
	c->negotiated = true;
	c->stage = NBD_STAGE_REQUEST;
	evloop_timer_cancel(c->server->loop, &c->timer);
	return true;
}

static void queue_reply(struct nbd_slot *slot)
{
	struct nbd_conn *c = slot->conn;

	if (c->closed) {
		nbd_slot_free(slot);
		return;
	}
	slot->next = NULL;
	if (!c->replies)
		c->replies_tail = &c->replies;
	*c->replies_tail = slot;
	c->replies_tail = &slot->next;
	nbd_conn_kick(c); /* replies of one turn go out together */
}

/* Takes the connection's last reference with it, perhaps. */
void nbd_slot_free(struct nbd_slot *slot)
{
	struct nbd_conn *c = slot->conn;

	c->bytes -= slot->charged;
	slot->charged = 0;
	if (slot->room > NBD_KEEP_BYTES) {
		free(slot->buf);
		slot->buf = NULL;
		slot->room = 0;
	}
	slot->next = c->idle;
	c->idle = slot;
	if (c->waiting) {
		c->waiting = false;
		nbd_conn_kick(c);
	}
	nbd_conn_put(c);
}

static void on_done(struct block_req *req, int ret)
{
	struct nbd_slot *slot = req->ctx;

	/* A discard is only known to be durable once it was flushed. */
	if (!ret && req->op == BLOCK_DISCARD && (slot->r.flags & NBD_CMD_FLAG_FUA)) {
		req->op = BLOCK_FLUSH;
		req->offset = req->bytes = 0;
		block_submit(req);
		return;
	}
	slot->error = ret;
	queue_reply(slot);
}

static void start_status(struct nbd_slot *slot)
{
	struct nbd_server *server = slot->conn->server;

	slot->next = NULL;
	if (!server->status)
		server->status_tail = &server->status;
	*server->status_tail = slot;
	server->status_tail = &slot->next;
	evloop_post(server->loop, &server->status_work);
}

static enum block_op op_of(uint16_t type)
{
	switch (type) {
	case NBD_CMD_WRITE:
		return BLOCK_WRITE;
	case NBD_CMD_FLUSH:
		return BLOCK_FLUSH;
	case NBD_CMD_TRIM:
		return BLOCK_DISCARD;
	case NBD_CMD_WRITE_ZEROES:
		return BLOCK_WRITE_ZEROES;
	default:
		return BLOCK_READ; /* CACHE as well */
	}
}

static uint32_t flags_of(const struct nbd_request *r)
{
	uint32_t flags = 0;

	if ((r->flags & NBD_CMD_FLAG_FUA) &&
	    (r->type == NBD_CMD_WRITE || r->type == NBD_CMD_WRITE_ZEROES))
		flags |= BLOCK_FUA;
	if (r->type == NBD_CMD_WRITE_ZEROES && !(r->flags & NBD_CMD_FLAG_NO_HOLE))
		flags |= BLOCK_MAY_UNMAP;
	if (r->type == NBD_CMD_WRITE_ZEROES && (r->flags & NBD_CMD_FLAG_FAST_ZERO))
		flags |= BLOCK_NO_FALLBACK;
	return flags;
}

void nbd_slot_start(struct nbd_slot *slot)
{
	struct nbd_request *r = &slot->r;

	if (r->type == NBD_CMD_BLOCK_STATUS) {
		start_status(slot);
		return;
	}
	slot->iov = (struct iovec){slot->buf, r->length};
	*slot->req = (struct block_req){
		.node = slot->conn->export->node,
		.op = op_of(r->type),
		.flags = flags_of(r),
		.offset = r->offset,
		.bytes = r->length,
		.iov = &slot->iov,
		.iovcnt = 1,
		.done = on_done,
		.ctx = slot,
	};
	block_submit(slot->req);
}

/* Of its buffer. */
static size_t needed(const struct nbd_conn *c, const struct nbd_request *r)
{
	switch (r->type) {
	case NBD_CMD_READ:
	case NBD_CMD_WRITE:
	case NBD_CMD_CACHE:
		return r->length;
	case NBD_CMD_BLOCK_STATUS:
		return __builtin_popcount(c->contexts) * NBD_MAX_EXTENTS * 8;
	default:
		return 0;
	}
}

static bool make_room(struct nbd_slot *slot, size_t bytes)
{
	size_t room = ALIGN_UP(bytes, 4096);

	if (room <= slot->room)
		return true;
	free(slot->buf);
	slot->room = 0;
	if (posix_memalign((void **)&slot->buf, 4096, room)) {
		slot->buf = NULL;
		return false;
	}
	slot->room = room;
	return true;
}

bool nbd_on_request(struct nbd_conn *c, const uint8_t *data)
{
	struct nbd_request r;
	struct nbd_slot *slot = c->idle;
	size_t bytes;
	int error;

	if (!nbd_parse_request(data, &r) || r.type == NBD_CMD_DISC) {
		if (c->tls)
			tls_bye(c->tls);
		nbd_conn_close(c);
		return true;
	}
	error = nbd_check_request(&r, &c->agreed);
	bytes = error ? 0 : needed(c, &r);
	if (!slot || (c->bytes && c->bytes + bytes > NBD_INFLIGHT_BYTES))
		return false;
	if (!error && !make_room(slot, bytes))
		error = ENOMEM;
	c->idle = slot->next;
	slot->r = r;
	slot->error = error;
	slot->replied = 0;
	slot->charged = error ? 0 : bytes;
	c->bytes += slot->charged;
	nbd_conn_get(c);
	if (error) {
		if (nbd_has_payload(&r) && r.length) {
			c->skip = r.length;
			c->stage = NBD_STAGE_SKIP;
			c->after_skip = NBD_STAGE_REQUEST;
		}
		queue_reply(slot);
	} else if (nbd_has_payload(&r)) {
		c->incoming = slot;
		c->got = 0;
		c->stage = NBD_STAGE_PAYLOAD;
	} else {
		nbd_slot_start(slot);
	}
	return true;
}

/* Block status */

/* What the disk is at offset: where the first layer that has it is, and how it reads. */
static int look(struct block_node *top, uint64_t offset, uint64_t bytes, struct block_extent *x,
		unsigned *depth)
{
	struct block_node *node = top;

	*depth = 1;
	for (;;) {
		int ret = block_status(node, offset, bytes, x);

		if (ret)
			return ret;
		bytes = MIN(bytes, x->bytes);
		if (x->allocated)
			break;
		if (!node->backing || offset >= node->backing->length) {
			*depth = 0;
			x->zero = true;
			x->data = false;
			break;
		}
		bytes = MIN(bytes, node->backing->length - offset);
		node = node->backing;
		(*depth)++;
	}
	x->bytes = bytes;
	return bytes ? 0 : -EIO;
}

/* How far it is dirty, or clean, from offset on. */
static uint64_t look_dirty(const struct dirty_bitmap *bm, uint64_t offset, uint64_t bytes,
			   uint32_t *flags)
{
	uint64_t start, length;

	*flags = 0;
	if (!dirty_bitmap_next(bm, offset, &start, &length) || start >= offset + bytes)
		return bytes;
	if (start > offset)
		return start - offset;
	*flags = NBD_STATE_DIRTY;
	return MIN(bytes, start + length - offset);
}

/* What a context says of the disk at offset, and how far that goes. */
static int look_context(struct nbd_slot *slot, const struct nbd_context *context, uint64_t offset,
			uint64_t *bytes, uint32_t *flags)
{
	struct block_extent x;
	unsigned depth;
	int ret;

	if (context->kind == NBD_BITMAP) {
		*bytes = look_dirty(context->bitmap, offset, *bytes, flags);
		return 0;
	}
	ret = look(slot->conn->export->node, offset, *bytes, &x, &depth);
	*bytes = x.bytes;
	*flags = context->kind == NBD_DEPTH
			 ? depth
			 : (x.data ? 0 : NBD_STATE_HOLE) | (x.zero ? NBD_STATE_ZERO : 0);
	return ret;
}

/* At least one extent of a context from the request's offset on, into the slot's buffer. */
static int find_extents(struct nbd_slot *slot, unsigned id, uint8_t *out)
{
	const struct nbd_context *context = &slot->conn->export->contexts[id];
	uint64_t at = slot->r.offset, end = at + slot->r.length, bytes;
	uint32_t count = 0, last = 0, flags;
	int ret = 0;

	while (at < end && !slot->conn->closed) {
		bytes = end - at;
		ret = look_context(slot, context, at, &bytes, &flags);
		if (ret)
			break;
		if (count && flags == last) {
			uint8_t *length = out + (count - 1) * 8;

			store_be32(length, load_be32(length) + bytes);
		} else {
			if (count == NBD_MAX_EXTENTS ||
			    (count && (slot->r.flags & NBD_CMD_FLAG_REQ_ONE)))
				break;
			store_be32(out + count * 8, bytes);
			store_be32(out + count * 8 + 4, flags);
			last = flags;
			count++;
		}
		at += bytes;
	}
	slot->extents[id] = count;
	return count ? 0 : ret ? ret : -EIO;
}

void nbd_run_status(void *opaque)
{
	struct nbd_server *server = opaque;
	struct nbd_slot *slot = server->status;
	uint8_t *out;

	if (server->in_status || !slot)
		return;
	server->status = slot->next;
	server->in_status = true;
	out = slot->buf;
	for (unsigned i = 0; i < NBD_CONTEXTS && !slot->error; i++) {
		if (!(slot->conn->contexts & 1u << i))
			continue;
		slot->error = find_extents(slot, i, out);
		out += slot->extents[i] * 8;
	}
	server->in_status = false;
	queue_reply(slot);
	if (server->status)
		evloop_post(server->loop, &server->status_work);
}
