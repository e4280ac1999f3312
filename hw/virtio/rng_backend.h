/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where random bytes come from: -object rng-random,filename=... or, without one, getrandom(2).
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
	char *filename;
	int fd; /* non-blocking */
};

/* filename NULL: /dev/urandom. */
struct rng_backend *rng_backend_new(const char *id, const char *filename, struct error **err);
void rng_backend_free(struct rng_backend *rng);

/* Up to len bytes; how many, or -errno (-EAGAIN: poll rng->fd). rng NULL: getrandom(2). */
ssize_t rng_backend_read(struct rng_backend *rng, void *buf, size_t len);

#endif
