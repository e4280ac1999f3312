/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server with one export on a disk in memory, and the other end of a connection to it, for tests
 * that say to it what they like. One thread: reading runs the server's loop.
 */
#ifndef TESTS_LIB_NBD_PEER_H
#define TESTS_LIB_NBD_PEER_H

#include "block/nbd/proto.h"
#include "block/nbd/server.h"
#include "tests/lib/block_memdisk.h"

enum { NBD_PEER_SIZE = 1 << 20 };

struct nbd_peer {
	struct evloop *loop;
	struct memdisk *disk;
	struct nbd_server *server;
	int fd; /* ours of a socket pair; -1 */
	unsigned left, negotiated;
};

/* clock NULL: the real one. */
void nbd_peer_init(struct nbd_peer *p, const struct clock *clock, unsigned max_clients);
void nbd_peer_export(struct nbd_peer *p);
void nbd_peer_destroy(struct nbd_peer *p);
/* Another connection takes the place of the one there is, which stays open for the server. */
int nbd_peer_connect(struct nbd_peer *p);
void nbd_peer_close(struct nbd_peer *p);
/* Turns of the loop until nothing more happens. */
void nbd_peer_settle(struct nbd_peer *p);

/* Everything is taken, however little at once (step; 0: all of it). */
void nbd_peer_send(struct nbd_peer *p, const void *data, size_t bytes, size_t step);
/* How many came: fewer only at the connection's end. */
size_t nbd_peer_read(struct nbd_peer *p, void *data, size_t bytes);
bool nbd_peer_at_end(struct nbd_peer *p);

void nbd_peer_option(struct nbd_peer *p, uint32_t option, const void *data, size_t bytes);
/* The reply's type; its data is thrown away. 0 at the end. */
uint32_t nbd_peer_reply(struct nbd_peer *p);
/* The greeting, and the export called "". */
void nbd_peer_go(struct nbd_peer *p, bool structured);
void nbd_peer_request(struct nbd_peer *p, uint16_t type, uint16_t flags, uint64_t cookie,
		      uint64_t offset, uint32_t length);

#endif
