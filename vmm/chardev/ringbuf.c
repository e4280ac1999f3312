/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Back ends without an outside: null, and a ring buffer that keeps the newest bytes for
 * ringbuf-read. Main thread.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/chardev/backend.h"
#include "vmm/core/util.h"

#define RINGBUF_DEFAULT (64 * KiB)
#define RINGBUF_MAX	(64 * MiB)

static size_t null_write(struct chardev *c, const uint8_t *data, size_t len)
{
	return len;
}

static void null_destroy(struct chardev *c)
{
	free(c);
}

static const struct chardev_ops null_ops = {
	.write = null_write,
	.destroy = null_destroy,
};

static struct chardev *null_create(struct chardevs *set, const char *id, struct opts *opts,
				   struct error **err)
{
	struct chardev *c = xcalloc(1, sizeof(*c));

	c->ops = &null_ops;
	return c;
}

const struct chardev_backend chardev_backend_null = {
	.name = "null",
	.create = null_create,
};

struct ringbuf {
	struct chardev base;
	uint64_t size;	     /* power of two */
	uint64_t head, tail; /* bytes ever written and ever read; head - tail <= size */
	uint8_t *bytes;
};

static size_t ringbuf_put(struct chardev *c, const uint8_t *data, size_t len)
{
	struct ringbuf *r = container_of(c, struct ringbuf, base);

	for (size_t i = 0; i < len; i++)
		r->bytes[r->head++ & (r->size - 1)] = data[i];
	if (r->head - r->tail > r->size)
		r->tail = r->head - r->size;
	return len;
}

static void ringbuf_destroy(struct chardev *c)
{
	struct ringbuf *r = container_of(c, struct ringbuf, base);

	free(r->bytes);
	free(r);
}

static const struct chardev_ops ringbuf_ops = {
	.write = ringbuf_put,
	.destroy = ringbuf_destroy,
};

static struct chardev *ringbuf_create(struct chardevs *set, const char *id, struct opts *opts,
				      struct error **err)
{
	uint64_t size = RINGBUF_DEFAULT;
	struct ringbuf *r;

	if (!opts_get_size(opts, "size", 1, &size, err))
		return NULL;
	if (!is_pow2(size) || size > RINGBUF_MAX) {
		error_set(err, "size is a power of two, at most 64M, not %" PRIu64, size);
		return NULL;
	}
	r = xcalloc(1, sizeof(*r));
	r->base.ops = &ringbuf_ops;
	r->base.open = true;
	r->size = size;
	r->bytes = xmalloc(size);
	return &r->base;
}

long ringbuf_read(struct chardev *c, uint8_t *buf, size_t len)
{
	struct ringbuf *r = container_of(c, struct ringbuf, base);
	size_t n = 0;

	while (n < len && r->tail < r->head)
		buf[n++] = r->bytes[r->tail++ & (r->size - 1)];
	return n;
}

/* As if it came from outside. */
long ringbuf_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	const struct chardev_peer *peer = c->peer;
	size_t room = peer ? peer->can_receive(peer->opaque) : 0;

	len = MIN(len, room);
	if (len)
		peer->receive(peer->opaque, buf, len);
	return len;
}

static const char *const ringbuf_keys[] = { "size", NULL };

const struct chardev_backend chardev_backend_ringbuf = {
	.name = "ringbuf",
	.keys = ringbuf_keys,
	.create = ringbuf_create,
};
