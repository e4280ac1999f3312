/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process's standard input and output. A terminal becomes raw.
 *
 * Its file description is shared with the shell and whoever else has it, so that O_NONBLOCK must
 * not be set on it: the descriptors are opened anew through /proc, or, where that is not allowed,
 * written to one byte at a time when poll(2) says so. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/chardev/backend.h"
#include "vmm/chardev/stream.h"
#include "vmm/chardev/terminal.h"
#include "vmm/core/util.h"

struct stdio_chardev {
	struct stream stream;
	int in_fd, out_fd; /* our own descriptors */
};

/* Our own descriptor for what fd is, non-blocking if that can be had without others noticing. */
static int own_descriptor(int fd, int mode, bool *blocking)
{
	struct stat st;
	char path[32];
	int own = -1;

	*blocking = false;
	if (!fstat(fd, &st) && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode))) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		*blocking = own < 0;
	}
	/* Files do not block, and sockets are asked not to with each call. */
	return own >= 0 ? own : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static void stdio_closed(struct stream *s)
{
	/* One end may go on without the other: "vmm ... </dev/null", "vmm ... | head". */
	if (s->out_failed)
		stream_stop_output(s);
	else
		stream_stop_input(s);
}

static void stdio_destroy(struct chardev *c)
{
	struct stdio_chardev *s = container_of(c, struct stdio_chardev, stream.base);

	stream_flush(&s->stream);
	stream_stop(&s->stream);
	terminal_restore();
	if (s->in_fd >= 0)
		close(s->in_fd);
	if (s->out_fd >= 0)
		close(s->out_fd);
	free(s);
}

static const struct chardev_ops stdio_ops = {
	.write = stream_write,
	.accept_input = stream_accept_input,
	.destroy = stdio_destroy,
};

static struct chardev *stdio_create(struct chardevs *set, const char *id, struct opts *opts,
				    struct error **err)
{
	struct stdio_chardev *s;
	bool signals = true, in_blocks, out_blocks;
	int ret;

	if (!opts_get_bool(opts, "signal", &signals, err))
		return NULL;
	s = xcalloc(1, sizeof(*s));
	stream_init(&s->stream, set->loop, &stdio_ops, stdio_closed);
	s->in_fd = own_descriptor(STDIN_FILENO, O_RDONLY, &in_blocks);
	s->out_fd = own_descriptor(STDOUT_FILENO, O_WRONLY, &out_blocks);
	s->stream.one_by_one = out_blocks;
	ret = stream_start(&s->stream, s->in_fd, s->out_fd);
	if (!ret)
		ret = terminal_raw(STDIN_FILENO, signals);
	if (ret) {
		error_set_errno(err, ret, "cannot use standard input and output");
		stdio_destroy(&s->stream.base);
		return NULL;
	}
	s->stream.base.open = true;
	return &s->stream.base;
}

static const char *const stdio_keys[] = { "signal", NULL };

const struct chardev_backend chardev_backend_stdio = {
	.name = "stdio",
	.keys = stdio_keys,
	.create = stdio_create,
};
