/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output into a file. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/chardev/backend.h"
#include "vmm/chardev/stream.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

struct file_chardev {
	struct stream stream;
	int fd;
};

static void file_closed(struct stream *s)
{
	log_warn("chardev %s: the file takes no more; the rest is lost", s->base.id);
	stream_stop(s);
}

static void file_destroy(struct chardev *c)
{
	struct file_chardev *f = container_of(c, struct file_chardev, stream.base);

	stream_flush(&f->stream);
	stream_stop(&f->stream);
	if (f->fd >= 0)
		close(f->fd);
	free(f);
}

static const struct chardev_ops file_ops = {
	.write = stream_write,
	.destroy = file_destroy,
};

static struct chardev *file_create(struct chardevs *set, const char *id, struct opts *opts,
				   struct error **err)
{
	const char *path = opts_get(opts, "path");
	bool append = false;
	struct file_chardev *f;
	int ret;

	if (!opts_get_bool(opts, "append", &append, err))
		return NULL;
	if (!path || !*path) {
		error_set(err, "path is missing");
		return NULL;
	}
	f = xcalloc(1, sizeof(*f));
	stream_init(&f->stream, set->loop, &file_ops, file_closed);
	f->fd = open(path,
		     O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (append ? O_APPEND : O_TRUNC),
		     0666);
	if (f->fd < 0) {
		error_set_errno(err, errno, "cannot open '%s'", path);
		file_destroy(&f->stream.base);
		return NULL;
	}
	/* A terminal or a FIFO must not hold up the loop; the file description is our own. */
	fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) | O_NONBLOCK);
	ret = stream_start(&f->stream, -1, f->fd);
	if (ret < 0) {
		error_set_errno(err, ret, "cannot use '%s'", path);
		file_destroy(&f->stream.base);
		return NULL;
	}
	f->stream.base.open = true;
	return &f->stream.base;
}

static const char *const file_keys[] = { "path", "append", NULL };

const struct chardev_backend chardev_backend_file = {
	.name = "file",
	.keys = file_keys,
	.create = file_create,
};
