/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dgram and socket back ends over datagrams: two of ours, or one and a plain socket. Multicast
 * has a network namespace of its own where that may be made.
 */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/net_fake.h"
#include "tests/lib/net_make.h"
#include "vmm/core/util.h"

struct fixture {
	struct evloop *loop;
	char dir[32], a[64], b[64];
};

static int setup(void **state)
{
	struct fixture *x = xcalloc(1, sizeof(*x));

	x->loop = evloop_new(NULL, NULL);
	strcpy(x->dir, "/tmp/test_net_dgram.XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	snprintf(x->a, sizeof(x->a), "%s/a", x->dir);
	snprintf(x->b, sizeof(x->b), "%s/b", x->dir);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	assert_int_equal(rmdir(x->dir), 0);
	evloop_free(x->loop);
	free(x);
	return 0;
}

/* One end, with its front end. */
struct end {
	struct netdev *nd;
	struct net_fake f;
};

static void start(struct fixture *x, struct end *e, const char *text)
{
	e->nd = net_must_make(x->loop, "%s", text);
	assert_true(net_link(e->nd));
	net_fake_init(&e->f, e->nd, x->loop, 1, 2048, 2);
}

static void start_unix(struct fixture *x, struct end *e, const char *local, const char *remote)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "dgram,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", local,
		 remote);
	start(x, e, text);
}

static void stop(struct end *e)
{
	net_fake_destroy(&e->f);
	net_free(e->nd);
}

/* n packets of different lengths from one to the other. */
static void transfer(struct end *from, struct end *to, unsigned n)
{
	uint8_t in[2048], out[1500];

	net_fake_add_room(&to->f, 0, n);
	for (unsigned i = 0; i < n; i++) {
		memset(out, i, sizeof(out));
		assert_true(net_fake_send(&from->f, 0, out, 60 + i));
	}
	assert_true(net_fake_wait(&to->f, 0, n));
	for (unsigned i = 0; i < n; i++) {
		memset(out, i, sizeof(out));
		assert_int_equal(net_fake_take(&to->f, 0, in), 60 + i);
		assert_memory_equal(in, out, 60 + i);
	}
}

static void test_unix(void **state)
{
	struct fixture *x = *state;
	struct end a, b;
	char *info;

	start_unix(x, &a, x->a, x->b);
	/* The other end is not there yet: lost. */
	assert_true(net_fake_send(&a.f, 0, "lost", 4));
	start_unix(x, &b, x->b, x->a);
	transfer(&a, &b, 100);
	transfer(&b, &a, 100);
	/* A hundred in a few batches. */
	assert_in_range(a.f.q[0].batches, 1, 10);
	info = net_info(a.nd);
	assert_non_null(strstr(info, "type=dgram,local=unix:"));
	free(info);
	/* Gone, and back under its path; the first to speak is the one that stayed. */
	stop(&b);
	assert_true(net_fake_send(&a.f, 0, "lost", 4));
	start_unix(x, &b, x->b, x->a);
	transfer(&a, &b, 10);
	transfer(&b, &a, 10);
	/* Or the one that came back: the other looks for it by and by. */
	stop(&b);
	start_unix(x, &b, x->b, x->a);
	net_fake_add_room(&a.f, 0, 1);
	for (unsigned i = 0; i < 200 && !net_fake_count(&a.f, 0); i++) {
		net_fake_send(&b.f, 0, "hello", 5);
		evloop_run_once(x->loop, 10 * NSEC_PER_MSEC);
	}
	assert_true(net_fake_count(&a.f, 0) > 0);
	stop(&a);
	stop(&b);
}

static int plain_bind(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	strcpy(un.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void plain_send(int fd, const char *path, const void *data, size_t len)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	strcpy(un.sun_path, path);
	assert_int_equal(sendto(fd, data, len, 0, (struct sockaddr *)&un, sizeof(un)), len);
}

/* A peer that is not connected, whose socket holds but a few: the guest waits. */
static void test_full(void **state)
{
	struct fixture *x = *state;
	unsigned sent = 0, got = 0;
	uint8_t in[2048];
	struct end a;
	int fd = plain_bind(x->b);

	start_unix(x, &a, x->a, x->b);
	while (sent < 100000 && net_fake_send(&a.f, 0, in, 100))
		sent++;
	assert_in_range(sent, 1, 99999);
	assert_false(net_fake_send(&a.f, 0, in, 100));
	net_fake_settle(&a.f);
	assert_int_equal(a.f.q[0].writables, 0);
	while (recv(fd, in, sizeof(in), 0) == 100)
		got++;
	assert_int_equal(got, sent);
	net_fake_settle(&a.f);
	assert_int_equal(a.f.q[0].writables, 1);
	/* Full when it goes away: what is sent then is lost, nobody waits. */
	while (net_fake_send(&a.f, 0, in, 100))
		;
	close(fd);
	unlink(x->b);
	net_fake_settle(&a.f);
	assert_int_equal(a.f.q[0].writables, 2);
	assert_true(net_fake_send(&a.f, 0, in, 100));
	stop(&a);
}

static void test_no_room(void **state)
{
	struct fixture *x = *state;
	static uint8_t big[3000];
	uint8_t in[2048];
	struct end a;
	int fd = plain_bind(x->b);

	start_unix(x, &a, x->a, x->b);
	for (unsigned i = 0; i < 5; i++)
		plain_send(fd, x->a, "hello", 5);
	net_fake_settle(&a.f);
	/* Quiet while there is no room. */
	assert_false(evloop_run_once(x->loop, 0));
	assert_int_equal(a.f.q[0].batches, 0);
	net_fake_add_room(&a.f, 0, 3);
	assert_int_equal(net_fake_count(&a.f, 0), 3);
	net_fake_add_room(&a.f, 0, 10);
	assert_true(net_fake_wait(&a.f, 0, 5));
	while (net_fake_take(&a.f, 0, in) == 5)
		;
	/* Longer than the room for it, and one of nothing: lost alone. */
	plain_send(fd, x->a, big, sizeof(big));
	plain_send(fd, x->a, "", 0);
	plain_send(fd, x->a, "there", 5);
	assert_true(net_fake_wait(&a.f, 0, 1));
	assert_int_equal(net_fake_take(&a.f, 0, in), 5);
	close(fd);
	unlink(x->b);
	stop(&a);
}

static void free_ports(unsigned ports[2])
{
	int fds[2];

	for (unsigned i = 0; i < 2; i++) {
		struct sockaddr_in in = {.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t len = sizeof(in);

		fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
		assert_int_equal(bind(fds[i], (struct sockaddr *)&in, sizeof(in)), 0);
		assert_int_equal(getsockname(fds[i], (struct sockaddr *)&in, &len), 0);
		ports[i] = ntohs(in.sin_port);
	}
	close(fds[0]);
	close(fds[1]);
}

static void test_inet(void **state)
{
	struct fixture *x = *state;
	static uint8_t big[65550];
	unsigned port[2];
	char text[256];
	struct end a, b;

	free_ports(port);
	snprintf(text, sizeof(text),
		 "dgram,local.type=inet,local.host=127.0.0.1,local.port=%u,"
		 "remote.type=inet,remote.host=127.0.0.1,remote.port=%u",
		 port[0], port[1]);
	start(x, &a, text);
	/* Nobody there: the host's answer does no harm. */
	for (unsigned i = 0; i < 5; i++) {
		assert_true(net_fake_send(&a.f, 0, "lost", 4));
		net_fake_settle(&a.f);
	}
	assert_false(evloop_run_once(x->loop, 0));
	snprintf(text, sizeof(text), "socket,udp=127.0.0.1:%u,localaddr=127.0.0.1:%u", port[0],
		 port[1]);
	start(x, &b, text);
	transfer(&a, &b, 50);
	transfer(&b, &a, 50);
	/* Longer than UDP carries. */
	assert_true(net_fake_send(&a.f, 0, big, sizeof(big)));
	transfer(&a, &b, 5);
	/* An address is nobody else's meanwhile. */
	net_must_refuse(text, "cannot bind udp:127.0.0.1");
	stop(&a);
	stop(&b);
}

static void test_fd(void **state)
{
	struct fixture *x = *state;
	struct end a, b;
	char text[64];
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv), 0);
	snprintf(text, sizeof(text), "dgram,local.type=fd,local.str=%d", sv[0]);
	start(x, &a, text);
	snprintf(text, sizeof(text), "socket,fd=%d", sv[1]);
	start(x, &b, text);
	transfer(&a, &b, 20);
	transfer(&b, &a, 20);
	stop(&b);
	assert_true(net_fake_send(&a.f, 0, "lost", 4));
	net_fake_settle(&a.f);
	assert_false(evloop_run_once(x->loop, 0));
	stop(&a);
}

/* A namespace whose only interface is the loopback, which multicast leaves through. */
static bool enter_namespace(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_MULTICAST};
	int fd, r;

	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return false;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	r = ioctl(fd, SIOCSIFFLAGS, &ifr);
	close(fd);
	return r == 0;
}

static void test_multicast(void **state)
{
	struct fixture *x = *state;
	uint8_t in[2048];
	struct end e[3];

	start(x, &e[0],
	      "dgram,remote.type=inet,remote.host=230.0.0.1,remote.port=1234,"
	      "local.type=inet,local.host=127.0.0.1");
	start(x, &e[1], "socket,mcast=230.0.0.1:1234,localaddr=127.0.0.1");
	start(x, &e[2], "socket,mcast=230.0.0.1:1234,localaddr=127.0.0.1");
	for (unsigned i = 0; i < 3; i++)
		net_fake_add_room(&e[i].f, 0, 100);
	for (unsigned from = 0; from < 3; from++) {
		assert_true(net_fake_send(&e[from].f, 0, "hello", 5));
		/* All the others, and not the sender. */
		for (unsigned to = 0; to < 3; to++) {
			if (to == from)
				continue;
			assert_true(net_fake_wait(&e[to].f, 0, 1));
			assert_int_equal(net_fake_take(&e[to].f, 0, in), 5);
		}
		net_fake_settle(&e[from].f);
		assert_int_equal(net_fake_count(&e[from].f, 0), 0);
	}
	for (unsigned i = 0; i < 3; i++)
		stop(&e[i]);
}

static void test_options(void **state)
{
	net_must_refuse("dgram", "'local.type' is missing");
	net_must_refuse("dgram,local.type=unix,local.path=/tmp/x", "'remote.type' is missing");
	net_must_refuse("dgram,local.type=unix,local.path=/tmp/x,remote.type=inet,"
			"remote.host=127.0.0.1,remote.port=1",
			"differ");
	net_must_refuse("dgram,remote.type=fd", "remote: Parameter 'str' expects an open file");
	net_must_refuse("dgram,local.type=fd,local.str=0", "is no datagram socket");
	net_must_refuse("dgram,local.type=unix,remote.type=unix,remote.path=/x",
			"local: Parameter 'path' expects");
	net_must_refuse("dgram,local.type=unix,local.path=/nonexistent/x,remote.type=unix,"
			"remote.path=/x",
			"cannot bind unix:/nonexistent/x");
	net_must_refuse("dgram,local.typ=unix", "did you mean 'local.type'");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_unix), TEST(test_full), TEST(test_no_room),
		TEST(test_inet), TEST(test_fd),	  cmocka_unit_test(test_options),
	};
	const struct CMUnitTest groups[] = {TEST(test_multicast)};
	int failed = cmocka_run_group_tests_name("pairs", tests, NULL, NULL);

	if (!enter_namespace()) {
		print_message("no network namespace here: no multicast\n");
		return failed;
	}
	return failed + cmocka_run_group_tests_name("multicast", groups, NULL, NULL);
}
