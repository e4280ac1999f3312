/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where random bytes come from: -object rng-random,filename=...; for -object rng-builtin, and for
 * devices without an object, getrandom(2).
 *
 * Made and freed by the main thread; read by the event loop of the one device that uses it.
 */
#ifndef HW_VIRTIO_RNG_BACKEND_H
#define HW_VIRTIO_RNG_BACKEND_H

#include <stddef.h>
#include <sys/types.h>

#include "vmm/core/error.h"

struct rng_backend {
	char *id;
	char *filename; /* NULL: getrandom(2) */
	int fd;		/* non-blocking, or -1 */
};

/* rng-random; filename NULL: /dev/urandom. */
struct rng_backend *rng_random_new(const char *id, const char *filename, struct error **err);
/* rng-builtin. */
struct rng_backend *rng_builtin_new(const char *id);
void rng_backend_free(struct rng_backend *rng);

/* Up to len bytes; how many, or -errno (-EAGAIN: poll rng->fd). rng NULL is the same as
 * rng-builtin. */
ssize_t rng_backend_read(struct rng_backend *rng, void *buf, size_t len);

#endif
