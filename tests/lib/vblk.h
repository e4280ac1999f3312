/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block requests as a driver makes them, for tests of virtio-blk and its fuzzers.
 */
#ifndef TESTS_LIB_VBLK_H
#define TESTS_LIB_VBLK_H

#include "tests/lib/vdriver.h"

/* A request's place in guest memory. */
struct vblk_req {
	uint64_t header, data, status;
	uint32_t len; /* of data */
	uint16_t head;
};

enum { VBLK_PENDING = 0xee }; /* the status byte until the device writes it */

/* Makes a request and its chain: header, data in `pieces` descriptors (readable or writable as the
 * type has it), status. Nothing is kicked. */
void vblk_add(struct vring *r, struct vblk_req *req, uint32_t type, uint64_t sector, uint64_t data,
	      uint32_t len, unsigned pieces, bool indirect);
uint8_t vblk_status(struct vring *r, const struct vblk_req *req);
/* Kicks, lets the guest run, and returns the status of one request, which has come back. */
uint8_t vblk_do(struct vring *r, uint32_t type, uint64_t sector, uint64_t data, uint32_t len);

#endif
