/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pseudo terminal (pty(7)): the user opens its other end. The kernel does not tell when somebody
 * does, so that while nobody has it open a timer looks, and so does each write. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/chardev/backend.h"
#include "vmm/chardev/stream.h"
#include "vmm/core/util.h"

#define LOOK_NS (500 * NSEC_PER_MSEC)

struct pty_chardev {
	struct stream stream;
	struct ev_timer timer;
	int fd;
	char name[64];
};

/* Whether the other end is open, taking notice of it. */
static bool pty_look(struct pty_chardev *p)
{
	struct pollfd pfd = { .fd = p->fd, .events = POLLIN };

	if (p->stream.base.open)
		return true;
	if (poll(&pfd, 1, 0) < 0 || (pfd.revents & POLLHUP))
		return false;
	if (stream_start(&p->stream, p->fd, p->fd) < 0)
		return false;
	evloop_timer_cancel(p->stream.loop, &p->timer);
	stream_set_open(&p->stream, true);
	return true;
}

static void pty_wait(struct pty_chardev *p)
{
	evloop_timer_arm(p->stream.loop, &p->timer, evloop_now(p->stream.loop) + LOOK_NS);
}

static void pty_timer(void *opaque)
{
	struct pty_chardev *p = opaque;

	if (!pty_look(p))
		pty_wait(p);
}

static void pty_closed(struct stream *s)
{
	struct pty_chardev *p = container_of(s, struct pty_chardev, stream);

	stream_stop(s);
	stream_set_open(s, false);
	pty_wait(p);
}

static size_t pty_write(struct chardev *c, const uint8_t *data, size_t len)
{
	struct pty_chardev *p = container_of(c, struct pty_chardev, stream.base);

	if (!pty_look(p))
		return len;
	return stream_write(c, data, len);
}

static void pty_destroy(struct chardev *c)
{
	struct pty_chardev *p = container_of(c, struct pty_chardev, stream.base);

	stream_flush(&p->stream);
	stream_stop(&p->stream);
	evloop_timer_cancel(p->stream.loop, &p->timer);
	if (p->fd >= 0)
		close(p->fd);
	free(p);
}

static const struct chardev_ops pty_ops = {
	.write = pty_write,
	.accept_input = stream_accept_input,
	.destroy = pty_destroy,
};

/* Raw, and opened once, so that the kernel reports a hang-up until the user opens it. */
static int prepare(struct pty_chardev *p)
{
	struct termios t;
	int other;

	p->fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (p->fd < 0 || grantpt(p->fd) < 0 || unlockpt(p->fd) < 0)
		return -errno;
	if ((errno = ptsname_r(p->fd, p->name, sizeof(p->name))))
		return -errno;
	other = open(p->name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (other < 0)
		return -errno;
	if (!tcgetattr(other, &t)) {
		cfmakeraw(&t);
		tcsetattr(other, TCSAFLUSH, &t);
	}
	close(other);
	return 0;
}

static struct chardev *pty_create(struct chardevs *set, const char *id, struct opts *opts,
				  struct error **err)
{
	struct pty_chardev *p = xcalloc(1, sizeof(*p));
	int ret;

	stream_init(&p->stream, set->loop, &pty_ops, pty_closed);
	p->stream.hup_closes = true;
	ev_timer_init(&p->timer, pty_timer, p);
	ret = prepare(p);
	if (ret < 0) {
		error_set_errno(err, ret, "cannot make a pseudo terminal");
		pty_destroy(&p->stream.base);
		return NULL;
	}
	/* Scripts read this line. */
	printf("char device redirected to %s (label %s)\n", p->name, id);
	fflush(stdout);
	pty_wait(p);
	return &p->stream.base;
}

static char *pty_filename(const struct chardev *c)
{
	return xasprintf("pty:%s", container_of(c, struct pty_chardev, stream.base)->name);
}

const struct chardev_backend chardev_backend_pty = {
	.name = "pty",
	.create = pty_create,
	.filename = pty_filename,
};
