/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio block requests as bytes (virtio 1.2, section 5.2.6): from a chain to what is wanted. A
 * pure function, so that a fuzzer can call it; any thread.
 */
#ifndef HW_VIRTIO_VIRTIO_BLK_PARSE_H
#define HW_VIRTIO_VIRTIO_BLK_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "hw/virtio/virtqueue.h"

enum {
	VIRTIO_BLK_SECTOR = 512, /* unit of all sector numbers, whatever the block size */
	VIRTIO_BLK_ID_BYTES = 20,
};

enum {
	VIRTIO_BLK_T_IN = 0,
	VIRTIO_BLK_T_OUT = 1,
	VIRTIO_BLK_T_FLUSH = 4,
	VIRTIO_BLK_T_GET_ID = 8,
	VIRTIO_BLK_T_DISCARD = 11,
	VIRTIO_BLK_T_WRITE_ZEROES = 13,
};

enum {
	VIRTIO_BLK_S_OK = 0,
	VIRTIO_BLK_S_IOERR = 1,
	VIRTIO_BLK_S_UNSUPP = 2,
};

/* struct virtio_blk_req's head. */
struct virtio_blk_outhdr {
	uint32_t type;
	uint32_t ioprio;
	uint64_t sector;
};
_Static_assert(sizeof(struct virtio_blk_outhdr) == 16, "virtio_blk_req");

struct virtio_blk_range {
	uint64_t sector;
	uint32_t num_sectors;
	uint32_t flags;
};
_Static_assert(sizeof(struct virtio_blk_range) == 16, "virtio_blk_discard_write_zeroes");
enum { VIRTIO_BLK_RANGE_UNMAP = 1 };

/* What requests are checked against. */
struct virtio_blk_limits {
	uint64_t capacity;	/* bytes */
	uint32_t logical_block; /* bytes */
	bool read_only;
	uint32_t max_discard_sectors;	   /* 0: DISCARD is not offered */
	uint32_t max_write_zeroes_sectors; /* 0: WRITE_ZEROES is not offered */
};

enum virtio_blk_action {
	VIRTIO_BLK_ANSWER, /* nothing to do: status says it */
	VIRTIO_BLK_READ,
	VIRTIO_BLK_WRITE,
	VIRTIO_BLK_FLUSH,
	VIRTIO_BLK_GET_ID,
	VIRTIO_BLK_DISCARD,
	VIRTIO_BLK_WRITE_ZEROES,
};

struct virtio_blk_cmd {
	enum virtio_blk_action action;
	uint8_t status;		/* of ANSWER */
	bool unmap;		/* WRITE_ZEROES: space may be given back */
	uint64_t offset, bytes; /* READ, WRITE, DISCARD, WRITE_ZEROES: inside the disk, aligned */
	struct iovec *data;	/* READ, WRITE: bytes in all; GET_ID: where the name goes */
	unsigned data_count;
	uint8_t *status_byte; /* always */
};

/*
 * NULL: cmd is filled in, and entries of chain->iov are shortened so that cmd->data can point into
 * it. Otherwise the chain has no room for a header or a status, and the text says so: the driver is
 * broken.
 */
const char *virtio_blk_parse(struct vq_chain *chain, const struct virtio_blk_limits *limits,
			     struct virtio_blk_cmd *cmd);

#endif
