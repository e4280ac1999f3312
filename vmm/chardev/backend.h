/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of back ends, for chardevs.c. Each constructor takes its keys from opts and returns a
 * chardev that ops->destroy frees whole, or NULL with err. Main thread.
 */
#ifndef VMM_CHARDEV_BACKEND_H
#define VMM_CHARDEV_BACKEND_H

#include "vmm/chardev/chardev.h"

struct chardev_backend {
	const char *name;
	const char *const *keys; /* its own, ends with NULL; NULL: none */
	struct chardev *(*create)(struct chardevs *set, const char *id, struct opts *opts,
				  struct error **err);
	/* "unix:/x,server=on", allocated; NULL: the name. */
	char *(*filename)(const struct chardev *c);
};

extern const struct chardev_backend chardev_backend_stdio;
extern const struct chardev_backend chardev_backend_file;
extern const struct chardev_backend chardev_backend_pty;
extern const struct chardev_backend chardev_backend_socket;
extern const struct chardev_backend chardev_backend_null;
extern const struct chardev_backend chardev_backend_ringbuf;

long ringbuf_read(struct chardev *c, uint8_t *buf, size_t len);
long ringbuf_write(struct chardev *c, const uint8_t *buf, size_t len);

/* mux.c: several front ends, one back end, which it attaches itself to but does not own. */
struct mux;
struct mux *mux_new(struct chardevs *set, struct chardev *backend);
struct chardev *mux_take(struct mux *m, struct error **err);
bool mux_release(struct mux *m, struct chardev *c);
void mux_free(struct mux *m);

#endif
