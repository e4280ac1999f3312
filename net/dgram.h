/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets as datagrams: -netdev dgram, and the datagram kinds of -netdev socket; see dgram.c.
 * Threads: as net/net.h says.
 */
#ifndef NET_DGRAM_H
#define NET_DGRAM_H

#include <netinet/in.h>

#include "net/addr.h"
#include "net/net.h"

struct dgram {
	struct netdev nd;
	char *info;
	struct net_addr local, remote;
	int fd;		/* receives, and sends unless there is */
	int group_fd;	/* sends to a multicast group; -1: none */
	bool multicast; /* what our group_fd sent comes back, and is dropped: */
	struct sockaddr_in own;

	/* The queue's loop's. */
	bool connected; /* to remote, where that is a path */
	bool idle;	/* the front end has no room: not reading */
	bool full;	/* the front end waits */
	unsigned ask;	/* packets asked for in one call: few where few come */
	struct ev_fd ev, group_ev;
	struct ev_timer look; /* for a peer that came back under its path */
};

/* Each makes a back end of type "dgram" or "socket" that takes the addresses over, also if it
 * fails. */
/* Datagrams between two addresses of the same kind, inet or unix. */
struct netdev *dgram_new_pair(const char *type, const char *id, struct net_addr *local,
			      struct net_addr *remote, struct error **err);
/* A connected socket that somebody else made. */
struct netdev *dgram_new_fd(const char *type, const char *id, struct net_addr *local,
			    struct error **err);
/* Members of a multicast group; local: NONE, the interface's address, or a descriptor that is bound
 * to the group. */
struct netdev *dgram_new_group(const char *type, const char *id, struct net_addr *local,
			       struct net_addr *group, struct error **err);

#endif
