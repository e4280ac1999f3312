/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Back ends of character devices: stdio, file, pty, socket (unix, tcp), null, ringbuf, and the mux
 * that lets several front ends share one of them.
 *
 * A back end holds at most CHARDEV_BUFFER bytes in either direction: what a front end writes beyond
 * that is left with it (vmm/core/chardev.h), what the outside sends beyond that stays in the
 * kernel.
 *
 * Main thread only; everything here runs on the loop given to chardevs_init().
 */
#ifndef VMM_CHARDEV_CHARDEV_H
#define VMM_CHARDEV_CHARDEV_H

#include "vmm/core/chardev.h"
#include "vmm/core/evloop.h"
#include "vmm/core/opts.h"

#define CHARDEV_BUFFER 4096

/* All of a guest's chardevs by id. */
struct chardevs {
	struct evloop *loop;
	struct chardev_entry *first;
	int escape_char; /* of muxes: 1 is Ctrl-A */
	/* Ctrl-A x; may be NULL. */
	void (*quit)(void *opaque);
	void *opaque;
	bool cancelled;
};

void chardevs_init(struct chardevs *set, struct evloop *loop);
/* Front ends are detached by then. What is buffered gets a moment to leave; socket files are
 * removed, the terminal is restored. */
void chardevs_destroy(struct chardevs *set);
/* At start: runs the loop until somebody is at c's other end. */
bool chardevs_wait(struct chardevs *set, const struct chardev *c, const char *label,
		   struct error **err);
/* Ends chardevs_wait(), and a chardevs_add() that waits: what a signal does. */
void chardevs_cancel(struct chardevs *set);

/* opts: "backend", "id" and the back end's own keys (-chardev's). Opens it; a server with wait=on
 * waits here for its client, running the loop. */
bool chardevs_add(struct chardevs *set, struct opts *opts, struct error **err);
/* The chardev for one front end. A back end without mux=on is given once; of a mux, each call gives
 * another one, and the last taken has the focus: monitors are to be taken before serial ports.
 * Owned by the set. */
struct chardev *chardevs_take(struct chardevs *set, const char *id, struct error **err);
/* Gives it back: what a front end does when it goes (device_del). */
void chardevs_release(struct chardevs *set, struct chardev *c);

/* "-chardev help". */
const char *const *chardev_backend_names(void);

/* For query-chardev and "info chardev": calls fn for each. filename: "pty:/dev/pts/3". */
void chardevs_each(const struct chardevs *set,
		   void (*fn)(void *opaque, const char *id, const char *filename, bool open),
		   void *opaque);
/* Up to len bytes of a ringbuf, oldest first; -ENOENT, -EINVAL if it is not a ringbuf. */
long chardevs_ringbuf_read(struct chardevs *set, const char *id, uint8_t *buf, size_t len);
long chardevs_ringbuf_write(struct chardevs *set, const char *id, const uint8_t *buf, size_t len);

#endif
