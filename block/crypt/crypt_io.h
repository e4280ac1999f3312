/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to encrypted bytes: what lies in a node's file is sectors of 512 bytes, each encrypted
 * for itself. Shared by the driver luks and by qcow2, whose data goes through a node "crypt".
 *
 * Every transfer goes through a bounce buffer, so that neither a guest sees ciphertext in its
 * memory nor changes what is being encrypted. There are so many bytes of buffers for a node and no
 * more; who finds none waits. A write that covers a sector in part reads it first, and holds it for
 * itself meanwhile: so parts of one sector are never lost to one another. Whole sectors are written
 * without reading, in as many transfers at a time as there are buffers.
 *
 * Power cuts: a sector is written at once, in place. What a write leaves if it is cut off is what
 * it leaves of a plain disk: each of its sectors old or new. Parts of a sector that was not written
 * are as durable as they were.
 *
 * Thread: the node's loop.
 */
#ifndef BLOCK_CRYPT_CRYPT_IO_H
#define BLOCK_CRYPT_CRYPT_IO_H

#include "block/crypt/cipher.h"
#include "block/driver.h"
#include "block/wait.h"

struct crypt_buf {
	struct crypt_buf *next;
	uint8_t *data;
};

struct crypt_pool {
	size_t bytes; /* of each */
	unsigned count, max;
	struct crypt_buf *idle;
	struct waitq wait;
};

enum { CRYPT_POOLS = 2 };

struct crypt_io {
	struct block_node *node;
	struct crypt *crypt; /* its own */
	uint64_t payload;    /* where in the file offset 0 is */
	bool other_iv;	     /* the IV's offset is not the request's: crypt_io_set_iv() */
	struct range_set ranges;
	struct waitq runq;
	bool running;
	struct crypt_pool pools[CRYPT_POOLS];
};

struct crypt_req {
	uint64_t iv_offset; /* minus the request's offset */
	struct block_req *req;
	struct crypt_io *io;
	struct waiter waiter;
	struct range range;
	bool ranged;
	void (*step)(struct crypt_req *q);
	int ret;
	uint64_t offset, left;
	size_t at; /* bytes of the request that are done */
	uint64_t from, to, chunk;
	struct crypt_pool *pool;
	struct crypt_buf *buf;
	struct iovec iov;
};

/* Takes crypt. */
void crypt_io_init(struct crypt_io *io, struct block_node *node, struct crypt *crypt,
		   uint64_t payload);
/* Nothing is in flight. What was never set up, zeroed, is allowed. */
void crypt_io_destroy(struct crypt_io *io);
/* A driver's submit(), with struct crypt_req as its context. */
void crypt_io_submit(struct crypt_io *io, struct block_req *req);

/* For a node with other_iv: the offset whose sectors make the IV, for a request not yet
 * submitted. */
static inline void crypt_io_set_iv(struct block_req *req, uint64_t offset)
{
	struct crypt_req *q = block_ctx(req);

	q->iv_offset = offset - req->offset;
}

/*
 * A node that encrypts everything above file, which becomes its own; for qcow2, whose metadata goes
 * past it. The IV is the offset's in the file, or the one given with crypt_io_set_iv(). Takes
 * crypt.
 */
struct block_node *crypt_node_above(struct block_node *file, struct crypt *crypt, bool other_iv);

#endif
