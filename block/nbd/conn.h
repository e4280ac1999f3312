/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server's parts: block/nbd/server.c (exports, listening), conn.c (bytes in and out of a
 * connection), options.c (the handshake), request.c (an export's requests). For these files only.
 *
 * A client can make the server hold: its input buffer, NBD_SLOTS requests, NBD_INFLIGHT_BYTES of
 * their data, and the replies to one option at a time. More input waits in the socket.
 *
 * Thread: the server's loop. A connection is freed when it is closed and nothing of it is in flight
 * or on the stack.
 */
#ifndef BLOCK_NBD_CONN_H
#define BLOCK_NBD_CONN_H

#include "block/dirty_bitmap.h"
#include "block/driver.h"
#include "block/nbd/proto.h"
#include "block/nbd/server.h"

enum {
	NBD_SLOTS = 16,
	NBD_INFLIGHT_BYTES = 64 << 20,
	NBD_KEEP_BYTES = 256 << 10, /* a slot's buffer stays that long */
	NBD_PIECES = 16,
	NBD_RECORD = 16 << 10,	/* bytes given to TLS at once */
	NBD_MAX_EXTENTS = 2048, /* of one context in one reply */
	NBD_CONTEXTS = 16,	/* of an export */
};

/* Metadata that clients can ask block status for; the id is the place in the export's list. */
struct nbd_context {
	char *name;
	enum { NBD_ALLOCATION, NBD_DEPTH, NBD_BITMAP } kind;
	const struct dirty_bitmap *bitmap;
};

struct nbd_export {
	char *name, *description;
	struct block_node *node;
	uint16_t flags;
	struct nbd_context contexts[NBD_CONTEXTS];
	unsigned context_count;
	struct nbd_export *next;
};

struct nbd_listener {
	int fd;
	struct ev_fd ev;
	struct nbd_server *server;
	struct nbd_listener *next;
};

struct nbd_server {
	struct evloop *loop;
	struct nbd_server_config config;
	struct nbd_export *exports; /* in the order they were added */
	struct nbd_listener *listeners;
	struct nbd_conn *conns; /* also those that are closed and have something in flight */
	unsigned clients;	/* of conns, those that are not closed */
	bool listening;
	/* Block status may wait for I/O with the loop running: one at a time, so that they never
	 * pile up on the stack. */
	struct nbd_slot *status, **status_tail;
	struct ev_work status_work;
	bool in_status;
};

/* A request, from its header to its reply's last byte. */
struct nbd_slot {
	struct nbd_conn *conn;
	struct nbd_slot *next;
	struct nbd_request r;
	struct block_req *req;
	struct iovec iov;
	uint8_t *buf;
	size_t room;
	size_t charged;			/* counted in the connection's bytes */
	uint32_t replied;		/* bytes, or contexts, that pieces were made of */
	uint32_t extents[NBD_CONTEXTS]; /* in buf, one context's behind the other's */
	int error;
};

/* What goes out at once: a head and data that lies in a slot's buffer. */
struct nbd_piece {
	uint8_t head[NBD_CHUNK_BYTES + 12];
	unsigned head_len, head_sent;
	const uint8_t *data;
	size_t data_len;
	struct nbd_slot *slot; /* it is free behind this piece; or NULL */
};

enum nbd_stage {
	NBD_STAGE_FLAGS, /* the client's answer to our greeting */
	NBD_STAGE_OPTION,
	NBD_STAGE_OPTION_DATA,
	NBD_STAGE_SKIP, /* an option's data that is too long, or a refused write's */
	NBD_STAGE_TLS,	/* handshake */
	NBD_STAGE_REQUEST,
	NBD_STAGE_PAYLOAD,
	NBD_STAGE_LAST, /* what is to be sent goes out, then it is closed */
};

struct nbd_conn {
	struct nbd_server *server;
	struct nbd_conn *next, **pprev;
	int fd;
	struct ev_fd ev;
	struct ev_work work;
	struct ev_timer timer; /* the handshake's */
	struct tls_session *tls;
	enum nbd_stage stage;
	bool closed, starttls, no_zeroes, fixed, structured;
	bool negotiated; /* export was served */
	unsigned refs;	 /* calls on the stack, slots in use */

	struct nbd_export *export;
	const struct nbd_export *context_export; /* what contexts were set for */
	unsigned contexts;			 /* bits of ids */
	struct nbd_agreed agreed;

	uint8_t *in; /* NBD_MAX_OPTION + NBD_OPTION_BYTES */
	size_t in_at, in_end;
	struct nbd_option option;
	uint64_t skip;
	enum nbd_stage after_skip;
	struct nbd_slot *incoming; /* its payload is being read */
	size_t got;

	struct nbd_slot slots[NBD_SLOTS], *idle;
	size_t bytes;
	bool waiting; /* the request at in_at needs a slot or room for its bytes */

	/* Out: the handshake's text, then pieces made of the queue of replies. */
	uint8_t *text;
	size_t text_len, text_sent, text_room;
	struct nbd_slot *replies, **replies_tail;
	struct nbd_piece pieces[NBD_PIECES];
	unsigned piece_count;
	uint8_t *record; /* TLS: what is being sent */
	size_t record_len;
};

/* server.c */
struct nbd_export *nbd_find_export(const struct nbd_server *server, struct nbd_string name);
void nbd_conn_left(struct nbd_conn *conn); /* it is closed now */
void nbd_conn_gone(struct nbd_conn *conn); /* it is about to be freed */

/* conn.c */
void nbd_conn_new(struct nbd_server *server, int fd);
void nbd_conn_close(struct nbd_conn *conn);
static inline void nbd_conn_get(struct nbd_conn *conn)
{
	conn->refs++;
}
void nbd_conn_put(struct nbd_conn *conn);
/* Output that was made, or room for input, gets its turn. */
void nbd_conn_kick(struct nbd_conn *conn);
/* The handshake's text. */
void nbd_conn_write(struct nbd_conn *conn, const void *data, size_t bytes);

/* options.c: each takes the bytes of its stage from data. */
void nbd_start(struct nbd_conn *conn);
void nbd_on_flags(struct nbd_conn *conn, const uint8_t *data);
void nbd_on_option(struct nbd_conn *conn, const uint8_t *data);
void nbd_on_option_data(struct nbd_conn *conn, const uint8_t *data);

/* request.c */
bool nbd_serve(struct nbd_conn *conn);
/* A request whose header is at data, if there is room for it; false: it waits. */
bool nbd_on_request(struct nbd_conn *conn, const uint8_t *data);
void nbd_slot_start(struct nbd_slot *slot);
void nbd_slot_free(struct nbd_slot *slot);
void nbd_run_status(void *opaque);

/* reply.c: false when there is none. */
bool nbd_next_piece(struct nbd_conn *conn, struct nbd_piece *piece);

#endif
