/* SPDX-License-Identifier: Apache-2.0 */
/* A user-mode network with a guest in it; see user_net.h. */
#include "tests/lib/user_net.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/core/util.h"

static size_t end_write(struct chardev *c, const uint8_t *data, size_t len)
{
	struct user_net_end *e = (struct user_net_end *)c;
	size_t n = MIN(MIN(len, e->takes), sizeof(e->in) - e->len);

	memcpy(e->in + e->len, data, n);
	e->len += n;
	e->takes -= n;
	return n;
}

static const struct chardev_ops end_ops = {.write = end_write};

static struct chardev *take(void *opaque, const char *id, struct error **err)
{
	struct user_net *x = opaque;

	return strcmp(id, "end") ? NULL : &x->end.chardev;
}

static void release(void *opaque, struct chardev *c)
{
	struct user_net *x = opaque;

	x->end.released = true;
}

int user_net_setup(void **state)
{
	struct user_net *x = xcalloc(1, sizeof(*x));

	signal(SIGPIPE, SIG_IGN);
	x->loop = evloop_new(NULL, NULL);
	x->context = (struct net_context){x->loop, take, release, NULL, x};
	x->end.chardev.ops = &end_ops;
	x->end.takes = SIZE_MAX;
	*state = x;
	return 0;
}

int user_net_teardown(void **state)
{
	struct user_net *x = *state;

	if (x->nd) {
		net_detach(x->nd);
		guest_destroy(&x->guest);
		net_free(x->nd);
	}
	evloop_free(x->loop);
	free(x);
	return 0;
}

struct netdev *user_net_make(struct user_net *x, const char *text, struct error **err)
{
	struct opts opts;
	struct netdev *nd;

	assert_true(opts_parse(&opts, text, "type", err));
	nd = net_new(&x->context, &opts, err);
	opts_free(&opts);
	return nd;
}

struct guest *user_net_start(struct user_net *x, const char *text)
{
	struct error *err = NULL;

	x->nd = user_net_make(x, text, &err);
	if (!x->nd)
		fail_msg("%s: %s", text, error_message(err));
	guest_init(&x->guest, x->loop, x->nd);
	assert_true(net_attach(x->nd, &x->guest.peer, &x->loop, 1, NULL));
	return &x->guest;
}

int user_net_listen(int type, uint16_t *port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	*port = ntohs(in.sin_port);
	return fd;
}

uint16_t user_net_free_port(int type)
{
	uint16_t port;

	close(user_net_listen(type, &port));
	return port;
}

int user_net_connect(int type, uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons(port)};
	int fd = socket(AF_INET, type, 0);

	if (connect(fd, (struct sockaddr *)&in, sizeof(in)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

size_t user_net_read(struct guest *g, int fd, void *buf, size_t len, int ms)
{
	int64_t end = evloop_now(g->loop) + ms * NSEC_PER_MSEC;
	size_t done = 0;

	while (done < len && evloop_now(g->loop) < end) {
		ssize_t n = recv(fd, (char *)buf + done, len - done, MSG_DONTWAIT);

		if (n > 0)
			done += n;
		else if (n == 0)
			break;
		else
			guest_turn(g, 1);
	}
	return done;
}

int user_net_accept(struct guest *g, int listener)
{
	int fd;

	for (int i = 0; i < 500; i++) {
		fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		if (fd >= 0)
			return fd;
		guest_turn(g, 1);
	}
	return -1;
}

void user_net_pattern(uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = i * 7 + (i >> 8);
}
