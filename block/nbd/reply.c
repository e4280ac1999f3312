/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies, cut into pieces that are made only when they go out: a structured read has a chunk for
 * each run of data or zeroes, block status one for each context. Thread: the server's loop.
 */
#include "block/nbd/conn.h"

enum { HOLE_UNIT = 64 << 10 };

static void pop(struct nbd_conn *c, struct nbd_piece *p)
{
	p->slot = c->replies;
	c->replies = p->slot->next;
}

static void simple(struct nbd_slot *slot, struct nbd_piece *p)
{
	nbd_put_simple(p->head, nbd_error_number(slot->error), slot->r.cookie);
	p->head_len = NBD_SIMPLE_BYTES;
	if (slot->r.type == NBD_CMD_READ && !slot->error) {
		p->data = slot->buf;
		p->data_len = slot->r.length;
	}
}

static void error_chunk(struct nbd_slot *slot, struct nbd_piece *p)
{
	nbd_put_chunk(p->head, NBD_REPLY_DONE, NBD_REPLY_ERROR, slot->r.cookie, 6);
	store_be32(p->head + NBD_CHUNK_BYTES, nbd_error_number(slot->error));
	store_be16(p->head + NBD_CHUNK_BYTES + 4, 0); /* no message */
	p->head_len = NBD_CHUNK_BYTES + 6;
}

/* How far what was read goes on from at as it begins, zeroes or data, in units of the disk. */
static uint32_t run(const struct nbd_slot *slot, uint32_t at, bool *zero)
{
	uint32_t end = at, n;

	while (end < slot->r.length) {
		bool z;

		n = HOLE_UNIT - (slot->r.offset + end) % HOLE_UNIT;
		n = MIN(n, slot->r.length - end);
		z = block_buf_is_zero(slot->buf + end, n);
		if (end == at)
			*zero = z;
		else if (z != *zero)
			break;
		end += n;
	}
	return end - at;
}

/* Whether it was the last. */
static bool read_chunk(struct nbd_slot *slot, struct nbd_piece *p)
{
	uint32_t at = slot->replied, n = slot->r.length;
	bool zero = false, done;

	if (!n) {
		nbd_put_chunk(p->head, NBD_REPLY_DONE, NBD_REPLY_NONE, slot->r.cookie, 0);
		p->head_len = NBD_CHUNK_BYTES;
		return true;
	}
	if (!(slot->r.flags & NBD_CMD_FLAG_DF))
		n = run(slot, at, &zero);
	slot->replied += n;
	done = slot->replied == slot->r.length;
	nbd_put_chunk(p->head, done ? NBD_REPLY_DONE : 0,
		      zero ? NBD_REPLY_OFFSET_HOLE : NBD_REPLY_OFFSET_DATA, slot->r.cookie,
		      zero ? 12 : 8 + n);
	store_be64(p->head + NBD_CHUNK_BYTES, slot->r.offset + at);
	p->head_len = NBD_CHUNK_BYTES + 8;
	if (zero) {
		store_be32(p->head + p->head_len, n);
		p->head_len += 4;
	} else {
		p->data = slot->buf + at;
		p->data_len = n;
	}
	return done;
}

static bool status_chunk(struct nbd_slot *slot, struct nbd_piece *p)
{
	unsigned contexts = slot->conn->contexts, id = __builtin_ctz(contexts >> slot->replied);
	const uint8_t *data = slot->buf;
	bool done;

	id += slot->replied;
	for (unsigned i = 0; i < id; i++)
		if (contexts & 1u << i)
			data += slot->extents[i] * 8;
	slot->replied = id + 1;
	done = !(contexts >> slot->replied);
	p->data = data;
	p->data_len = slot->extents[id] * 8;
	nbd_put_chunk(p->head, done ? NBD_REPLY_DONE : 0, NBD_REPLY_BLOCK_STATUS, slot->r.cookie,
		      4 + p->data_len);
	store_be32(p->head + NBD_CHUNK_BYTES, id);
	p->head_len = NBD_CHUNK_BYTES + 4;
	return done;
}

bool nbd_next_piece(struct nbd_conn *c, struct nbd_piece *p)
{
	struct nbd_slot *slot = c->replies;
	bool done = true;

	if (!slot)
		return false;
	*p = (struct nbd_piece){0};
	if (!c->structured ||
	    (slot->r.type != NBD_CMD_READ && slot->r.type != NBD_CMD_BLOCK_STATUS))
		simple(slot, p);
	else if (slot->error)
		error_chunk(slot, p);
	else if (slot->r.type == NBD_CMD_READ)
		done = read_chunk(slot, p);
	else
		done = status_chunk(slot, p);
	if (done)
		pop(c, p);
	return true;
}
