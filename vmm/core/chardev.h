/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character devices: a byte stream between a front end (serial port, console, monitor) and a back
 * end (terminal, file, socket; vmm/chardev/), with back-pressure both ways.
 *
 * Main thread only. One front end at a time; a mux back end gives each of several its own chardev.
 */
#ifndef VMM_CORE_CHARDEV_H
#define VMM_CORE_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum chardev_event {
	CHARDEV_OPENED, /* a peer is there (also told on attach if it already is) */
	CHARDEV_CLOSED,
	CHARDEV_BREAK,
	CHARDEV_MUX_IN, /* this front end got the terminal's focus */
	CHARDEV_MUX_OUT,
};

struct chardev;

/* The front end. */
struct chardev_peer {
	/* How many bytes receive() would take now. */
	size_t (*can_receive)(void *opaque);
	void (*receive)(void *opaque, const uint8_t *data, size_t len);
	/* chardev_write() took less than asked, and now there is room again. NULL: not wanted. */
	void (*writable)(void *opaque);
	void (*event)(void *opaque, enum chardev_event event); /* NULL: not wanted */
	void *opaque;
};

struct chardev_ops {
	/* Bytes taken, 0..len. With nobody connected everything is taken and dropped. */
	size_t (*write)(struct chardev *c, const uint8_t *data, size_t len);
	/* The front end's can_receive() may have grown. */
	void (*accept_input)(struct chardev *c);
	/* Serial line parameters and break, for back ends that have them; may be NULL. */
	void (*set_line)(struct chardev *c, unsigned baud, unsigned data_bits, char parity,
			 unsigned stop_bits);
	void (*send_break)(struct chardev *c);
	/* Drops the client that misbehaves, once the loop turns; NULL where there are no clients. */
	void (*disconnect)(struct chardev *c);
	/* For front ends that talk to a socket themselves, descriptors and all: the connection's,
	 * or -1; the chardev's to close, when it tells CLOSED. Nothing is read here from now on.
	 * NULL: it is no socket. */
	int (*socket)(struct chardev *c);
	void (*destroy)(struct chardev *c);
};

struct chardev {
	const struct chardev_ops *ops;
	char *id; /* owned */
	const struct chardev_peer *peer;
	bool open; /* a peer is connected */
	bool taken;
};

static inline size_t chardev_write(struct chardev *c, const void *data, size_t len)
{
	return c ? c->ops->write(c, data, len) : len;
}

static inline void chardev_accept_input(struct chardev *c)
{
	if (c && c->ops->accept_input)
		c->ops->accept_input(c);
}

static inline void chardev_disconnect(struct chardev *c)
{
	if (c && c->ops->disconnect)
		c->ops->disconnect(c);
}

/* peer is borrowed; NULL detaches. */
static inline void chardev_attach(struct chardev *c, const struct chardev_peer *peer)
{
	c->peer = peer;
	if (peer && c->open && peer->event)
		peer->event(peer->opaque, CHARDEV_OPENED);
	if (peer)
		chardev_accept_input(c);
}

#endif
