/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who serves lent virtqueues, for tests of hw/vhost/: rings without event indices, in the test's
 * own thread, whenever the test says so.
 */
#ifndef TESTS_LIB_VHOST_SERVER_H
#define TESTS_LIB_VHOST_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VHOST_SERVER_REGIONS = 8, VHOST_SERVER_RINGS = 16 };

struct vhost_server_region {
	uint64_t gpa, size;
	uint8_t *at;	 /* in the server's address space */
	uint64_t theirs; /* in the front end's */
};

struct vhost_server_ring {
	uint16_t size, next;
	uint8_t *desc, *avail, *used;
	int kick, call;
	bool on;
};

struct vhost_server {
	unsigned region_count;
	struct vhost_server_region regions[VHOST_SERVER_REGIONS];
	struct vhost_server_ring rings[VHOST_SERVER_RINGS];
};

/* NULL if it lies in no region. */
uint8_t *vhost_server_gpa(struct vhost_server *s, uint64_t gpa, uint64_t len);
uint8_t *vhost_server_theirs(struct vhost_server *s, uint64_t addr, uint64_t len);
/* The next chain's readable bytes, which is used then; -1: there is none, or the ring is off. */
long vhost_server_take(struct vhost_server *s, unsigned ring, void *buf, size_t room);
/* Bytes into the next chain, which is used then. */
bool vhost_server_give(struct vhost_server *s, unsigned ring, const void *data, size_t len);
/* Whether the doorbell was rung; it is silent then. */
bool vhost_server_kicked(struct vhost_server *s, unsigned ring);

#endif
