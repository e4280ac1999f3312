/* SPDX-License-Identifier: Apache-2.0 */
/* Sources of random bytes: see rng_backend.h. */
#include "hw/virtio/rng_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "vmm/core/util.h"

struct rng_backend *rng_random_new(const char *id, const char *filename, struct error **err)
{
	struct rng_backend *rng;
	int fd;

	if (!filename)
		filename = "/dev/urandom";
	fd = open(filename, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		error_set_errno(err, errno, "Could not open '%s'", filename);
		return NULL;
	}
	rng = xcalloc(1, sizeof(*rng));
	rng->id = xstrdup(id);
	rng->filename = xstrdup(filename);
	rng->fd = fd;
	return rng;
}

struct rng_backend *rng_builtin_new(const char *id)
{
	struct rng_backend *rng = xcalloc(1, sizeof(*rng));

	rng->id = xstrdup(id);
	rng->fd = -1;
	return rng;
}

void rng_backend_free(struct rng_backend *rng)
{
	if (!rng)
		return;
	if (rng->fd >= 0)
		close(rng->fd);
	free(rng->filename);
	free(rng->id);
	free(rng);
}

ssize_t rng_backend_read(struct rng_backend *rng, void *buf, size_t len)
{
	ssize_t n;

	do
		n = rng && rng->fd >= 0 ? read(rng->fd, buf, len)
					: getrandom(buf, len, GRND_NONBLOCK);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n || !len ? n : -ENODATA;
}
