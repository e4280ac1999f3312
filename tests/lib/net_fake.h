/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A front end for tests of network back ends: as much room as it is told, cut into pieces, and what
 * arrived in order.
 */
#ifndef TESTS_LIB_NET_FAKE_H
#define TESTS_LIB_NET_FAKE_H

#include "net/net.h"

enum { NET_FAKE_ROOM = 256, NET_FAKE_IOV = 8 };

struct net_fake_queue {
	/* A ring: [got, next) arrived and was not taken, [next, next + room) may be written. */
	uint8_t *slots[NET_FAKE_ROOM];
	size_t lens[NET_FAKE_ROOM];
	struct iovec iov[NET_FAKE_ROOM][NET_FAKE_IOV];
	unsigned got, next, room;
	unsigned batches, writables;
};

struct net_fake {
	struct netdev *nd;
	struct evloop *loop;
	struct net_peer peer;
	size_t size;	 /* of a packet's room */
	unsigned pieces; /* it is cut into, at most NET_FAKE_IOV */
	unsigned pairs;
	bool link;
	unsigned link_changes;
	struct net_fake_queue q[NET_MAX_QUEUES];
};

/* Attaches to nd; no room yet. */
void net_fake_init(struct net_fake *f, struct netdev *nd, struct evloop *loop, unsigned pairs,
		   size_t size, unsigned pieces);
void net_fake_destroy(struct net_fake *f);
/* Room for n more packets. */
void net_fake_add_room(struct net_fake *f, unsigned queue, unsigned n);
/* Sends one packet of one piece; whether it was taken. */
bool net_fake_send(struct net_fake *f, unsigned queue, const void *data, size_t len);
/* The oldest packet that arrived and was not taken: its length, or -1. buf has f->size bytes. */
ssize_t net_fake_take(struct net_fake *f, unsigned queue, void *buf);
/* How many there are. */
unsigned net_fake_count(const struct net_fake *f, unsigned queue);
/* Turns the loop until there are n, or two seconds went by; whether there are. */
bool net_fake_wait(struct net_fake *f, unsigned queue, unsigned n);
/* The same for the link. */
bool net_fake_wait_link(struct net_fake *f, bool up);
/* Turns the loop until nothing is left to do. */
void net_fake_settle(struct net_fake *f);

#endif
