/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our stream, dgram and socket back ends with QEMU's on the other end: a QEMU without a guest,
 * whose hub carries packets from one of its back ends to another, between two of ours.
 */
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/net_fake.h"
#include "tests/lib/net_make.h"
#include "vmm/core/util.h"

#define QEMU "/usr/bin/qemu-system-x86_64"
enum { PACKETS = 100 };

extern char **environ;

struct fixture {
	struct evloop *loop;
	char dir[40];
	struct netdev *nd[2];
	struct net_fake f[2];
	pid_t qemu;
};

static void path(struct fixture *x, char *out, size_t size, const char *text)
{
	char *at;

	/* @ stands for the directory. */
	for (; (at = strchr(text, '@')); text = at + 1) {
		int n = snprintf(out, size, "%.*s%s", (int)(at - text), text, x->dir);

		out += n, size -= n;
	}
	snprintf(out, size, "%s", text);
}

static int setup(void **state)
{
	struct fixture *x = xcalloc(1, sizeof(*x));

	x->loop = evloop_new(NULL, NULL);
	strcpy(x->dir, "/tmp/test_net_qemu.XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	*state = x;
	return 0;
}

static void start_qemu(struct fixture *x, const char *a, const char *b)
{
	char na[256], nb[256];
	char *argv[] = {QEMU,	    "-M",
			"none",	    "-nodefaults",
			"-display", "none",
			"-netdev",  na,
			"-netdev",  nb,
			"-netdev",  "hubport,id=ha,hubid=0,netdev=a",
			"-netdev",  "hubport,id=hb,hubid=0,netdev=b",
			NULL};

	path(x, na, sizeof(na), a);
	path(x, nb, sizeof(nb), b);
	assert_int_equal(posix_spawn(&x->qemu, QEMU, NULL, NULL, argv, environ), 0);
}

static void add(struct fixture *x, unsigned i, const char *text)
{
	char full[256];

	path(x, full, sizeof(full), text);
	x->nd[i] = net_must_make(x->loop, "%s", full);
	net_fake_init(&x->f[i], x->nd[i], x->loop, 1, 2048, 2);
	net_fake_add_room(&x->f[i], 0, NET_FAKE_ROOM);
}

static int teardown(void **state)
{
	struct fixture *x = *state;
	char file[64];

	if (x->qemu) {
		kill(x->qemu, SIGTERM);
		waitpid(x->qemu, NULL, 0);
	}
	for (unsigned i = 0; i < 2; i++)
		if (x->nd[i]) {
			net_fake_destroy(&x->f[i]);
			net_free(x->nd[i]);
		}
	/* QEMU leaves its datagram socket's file. */
	path(x, file, sizeof(file), "@/theirs");
	unlink(file);
	assert_int_equal(rmdir(x->dir), 0);
	evloop_free(x->loop);
	free(x);
	return 0;
}

/* From one through QEMU to the other, once it is there. */
static void check_way(struct net_fake *from, struct net_fake *to)
{
	uint8_t out[1514], in[2048];
	int64_t end = clock_now(&clock_monotonic) + 20 * NSEC_PER_SEC;

	memset(out, 0, sizeof(out));
	while (!net_fake_count(to, 0)) {
		assert_true(clock_now(&clock_monotonic) < end);
		net_fake_send(from, 0, out, 60);
		evloop_run_once(from->loop, 20 * NSEC_PER_MSEC);
	}
	net_fake_settle(from);
	usleep(50000);
	net_fake_settle(from);
	while (net_fake_take(to, 0, in) >= 0)
		;
	net_fake_add_room(to, 0, NET_FAKE_ROOM);
	for (unsigned i = 0; i < PACKETS;) {
		memset(out, i, sizeof(out));
		if (net_fake_send(from, 0, out, 60 + 14 * i))
			i++;
		else
			assert_true(clock_now(&clock_monotonic) < end);
		/* Its hub loses what one of its ends cannot take at once. */
		evloop_run_once(from->loop, NSEC_PER_MSEC);
	}
	assert_true(net_fake_wait(to, 0, PACKETS));
	for (unsigned i = 0; i < PACKETS; i++) {
		memset(out, i, sizeof(out));
		assert_int_equal(net_fake_take(to, 0, in), 60 + 14 * i);
		assert_memory_equal(in, out, 60 + 14 * i);
	}
}

static void check_both_ways(struct fixture *x)
{
	check_way(&x->f[0], &x->f[1]);
	check_way(&x->f[1], &x->f[0]);
}

static void stream_and_dgram(void **state)
{
	struct fixture *x = *state;

	add(x, 0, "stream,server=on,addr.type=unix,addr.path=@/s");
	add(x, 1, "dgram,local.type=unix,local.path=@/ours,remote.type=unix,remote.path=@/theirs");
	start_qemu(x, "stream,id=a,addr.type=unix,addr.path=@/s",
		   "dgram,id=b,local.type=unix,local.path=@/theirs,remote.type=unix,"
		   "remote.path=@/ours");
	check_both_ways(x);
}

static void server_and_udp(void **state)
{
	struct fixture *x = *state;
	char theirs[128], ours[128];
	unsigned base = 20000 + getpid() % 20000;

	snprintf(ours, sizeof(ours), "socket,udp=127.0.0.1:%u,localaddr=127.0.0.1:%u", base,
		 base + 1);
	snprintf(theirs, sizeof(theirs), "socket,id=b,udp=127.0.0.1:%u,localaddr=127.0.0.1:%u",
		 base + 1, base);
	add(x, 1, ours);
	/* It listens, some time from now. */
	add(x, 0, "stream,addr.type=unix,addr.path=@/s,reconnect-ms=50");
	start_qemu(x, "stream,id=a,server=on,addr.type=unix,addr.path=@/s", theirs);
	check_both_ways(x);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(stream_and_dgram), TEST(server_and_udp)};

	if (access(QEMU, X_OK)) {
		print_message("no " QEMU " here\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
