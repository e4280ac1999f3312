/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network back end for tests of cards: what was sent is kept, what is to come is given by the
 * test. One thread.
 */
#ifndef TESTS_LIB_FAKE_NETDEV_H
#define TESTS_LIB_FAKE_NETDEV_H

#include "net/net.h"

enum { FAKE_NETDEV_PACKETS = 512 };

struct fake_netdev_packet {
	unsigned queue, iovcnt;
	size_t len;
	uint8_t *data; /* header and all */
};

struct fake_netdev {
	struct netdev nd;
	bool alive;

	/* Set by the test. */
	unsigned take; /* packets that send() takes before it is full; UINT_MAX: any number */
	void (*on_send)(void *opaque); /* before it takes some; may be NULL */
	void *opaque;

	/* What was seen. */
	struct fake_netdev_packet sent[FAKE_NETDEV_PACKETS];
	unsigned sent_count, send_calls;
	unsigned ready[NET_MAX_QUEUES]; /* receive_ready() calls */
	unsigned attached, pairs, offloads, largest_batch;
};

/* vnet_hdr: 0, 10 or 12; offloads: NET_OFFLOAD_*. */
void fake_netdev_init(struct fake_netdev *f, const char *id, unsigned queues, unsigned vnet_hdr,
		      unsigned offloads);
/* Fails the test if a card still has it. */
void fake_netdev_destroy(struct fake_netdev *f);
/* Forgets what was sent. */
void fake_netdev_clear(struct fake_netdev *f);
/* One packet comes for a queue, with its header if there are headers. False: no room. */
bool fake_netdev_receive(struct fake_netdev *f, unsigned queue, const void *data, size_t len);
/* Several in one batch; how many there was room for. A length of 0 is a room not used. */
unsigned fake_netdev_receive_batch(struct fake_netdev *f, unsigned queue,
				   const struct iovec *packets, unsigned n);

#endif
