/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets over a connection: -netdev stream, and the connecting kinds of -netdev socket. Between
 * their files: stream.c has the data path, stream_link.c who is connected, socket.c and
 * stream_options.c make them of options. Threads: as net/net.h says.
 *
 * A connection is made and ended on the main loop, and used on the queue's. Whoever finds it broken
 * there stops using it and posts to the main loop, which closes it, tells the front end that the
 * link is down, and waits for the next: a server for a client, a client with reconnect= for its
 * time.
 */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include "net/addr.h"
#include "net/frames.h"
#include "net/net.h"

enum {
	STREAM_RX = 256 * 1024,
	STREAM_TX = NET_FRAMES_HEADER + NET_PACKET_MAX,
};

struct net_stream {
	struct netdev nd;

	/* The main loop's. */
	struct evloop *main_loop;
	struct net_addr addr;
	bool server;
	uint64_t reconnect_ns; /* 0: not */
	int listen_fd;
	struct ev_fd listen_ev;
	int connect_fd; /* on the way */
	unsigned connect_next;
	struct ev_fd connect_ev;
	struct ev_timer reconnect;
	bool told; /* of the last failure to connect */
	struct ev_work lost_work, arrived_work;
	char *peer_text; /* "tcp:127.0.0.1:1234" */
	char *peer_host, *peer_port;

	/* The queue's loop's; the main thread's through evloop_call(), or while none is attached.
	 */
	int fd; /* -1: nobody is connected */
	struct ev_fd ev;
	bool idle; /* the front end has no room: not reading */
	uint8_t *rx;
	size_t rx_start, rx_end; /* what was read and not delivered */
	uint8_t *tx;
	size_t tx_start, tx_end; /* the rest of a packet that was sent in part; if any, the front
				  * end waits */
};

/* ---- stream.c: on the queue's loop ---- */

/* fd becomes the connection. */
void net_stream_use(struct net_stream *s, int fd);
/* Closes it, forgets what was under way. */
void net_stream_drop(struct net_stream *s);

/* A back end of that type whose address is taken over (and freed if it fails), not yet connected.
 */
struct net_stream *net_stream_new(struct evloop *main_loop, const char *type, const char *id,
				  struct net_addr *addr, bool server);

/* ---- stream_link.c: on the main loop ---- */

/* Listens, or begins to connect. */
bool net_stream_start(struct net_stream *s, struct error **err);
void net_stream_stop(struct net_stream *s);
void net_stream_on_lost(void *opaque);
void net_stream_on_arrived(void *opaque);
void net_stream_on_reconnect(void *opaque);

#endif
