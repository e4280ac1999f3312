/* SPDX-License-Identifier: Apache-2.0 */
/* The stream and socket back ends over connections: two of ours, or one and a plain socket. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/frames.h"
#include "tests/lib/net_fake.h"
#include "tests/lib/net_make.h"
#include "vmm/core/thread.h"
#include "vmm/core/util.h"

struct fixture {
	struct evloop *loop;
	char dir[32], path[64];
};

static int setup(void **state)
{
	struct fixture *x = xcalloc(1, sizeof(*x));

	x->loop = evloop_new(NULL, NULL);
	strcpy(x->dir, "/tmp/test_net_stream.XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	snprintf(x->path, sizeof(x->path), "%s/s", x->dir);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	/* Who made a socket's file has removed it. */
	assert_int_equal(rmdir(x->dir), 0);
	evloop_free(x->loop);
	free(x);
	return 0;
}

/* ---- a plain socket on the other side ---- */

static int plain_connect(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(un.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static int plain_listen(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(un.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void plain_send(int fd, const void *data, uint32_t len)
{
	uint8_t length[4];

	store_be32(length, len);
	assert_int_equal(send(fd, length, 4, 0), 4);
	assert_int_equal(send(fd, data, len, 0), len);
}

/* Reads exactly that much, turning the loop meanwhile. */
static void plain_read(struct net_fake *f, int fd, void *buf, size_t len)
{
	int64_t end = clock_now(&clock_monotonic) + 2 * NSEC_PER_SEC;

	for (size_t at = 0; at < len;) {
		ssize_t n = recv(fd, (char *)buf + at, len - at, MSG_DONTWAIT);

		if (n > 0) {
			at += n;
			continue;
		}
		assert_true(n < 0 && errno == EAGAIN);
		assert_true(clock_now(&clock_monotonic) < end);
		evloop_run_once(f->loop, NSEC_PER_MSEC);
	}
}

/* ---- two of ours ---- */

static void exchange(struct net_fake *a, struct net_fake *b)
{
	uint8_t in[2048], out[1500];

	assert_true(net_fake_wait_link(a, true));
	assert_true(net_fake_wait_link(b, true));
	net_fake_add_room(a, 0, 100);
	net_fake_add_room(b, 0, 100);
	for (unsigned i = 0; i < 100; i++) {
		memset(out, i, sizeof(out));
		assert_true(net_fake_send(a, 0, out, 15 * (i + 1)));
		assert_true(net_fake_send(b, 0, out, 1500 - i));
		if (i % 16 == 0)
			net_fake_settle(a);
	}
	assert_true(net_fake_wait(a, 0, 100));
	assert_true(net_fake_wait(b, 0, 100));
	for (unsigned i = 0; i < 100; i++) {
		memset(out, i, sizeof(out));
		assert_int_equal(net_fake_take(b, 0, in), 15 * (i + 1));
		assert_memory_equal(in, out, 15 * (i + 1));
		assert_int_equal(net_fake_take(a, 0, in), 1500 - i);
		assert_memory_equal(in, out, 1500 - i);
	}
}

static void between(struct fixture *x, const char *server, const char *client)
{
	struct netdev *s = net_must_make(x->loop, "%s", server);
	struct netdev *c = net_must_make(x->loop, "%s", client);
	struct net_fake fs, fc;

	assert_false(net_link(s));
	assert_false(net_link(c));
	net_fake_init(&fs, s, x->loop, 1, 2048, 1);
	net_fake_init(&fc, c, x->loop, 1, 2048, 5);
	exchange(&fs, &fc);
	net_fake_destroy(&fc);
	net_free(c);
	assert_true(net_fake_wait_link(&fs, false));
	assert_int_equal(fs.link_changes, 2);
	/* And anew. */
	c = net_must_make(x->loop, "%s", client);
	net_fake_init(&fc, c, x->loop, 1, 2048, 3);
	exchange(&fs, &fc);
	net_fake_destroy(&fs);
	net_free(s);
	assert_true(net_fake_wait_link(&fc, false));
	net_fake_destroy(&fc);
	net_free(c);
}

static void test_unix(void **state)
{
	struct fixture *x = *state;
	char server[128], client[128];

	snprintf(server, sizeof(server), "stream,server=on,addr.type=unix,addr.path=%s", x->path);
	snprintf(client, sizeof(client), "stream,addr.type=unix,addr.path=%s", x->path);
	between(x, server, client);
	between(x, "stream,server=on,addr.type=unix,addr.path=vmm-test-a,addr.abstract=on",
		"stream,addr.type=unix,addr.path=vmm-test-a,addr.abstract=on");
}

static unsigned free_port(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(in);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	close(fd);
	return ntohs(in.sin_port);
}

static void test_inet(void **state)
{
	char server[128], client[128];
	unsigned port = free_port();

	snprintf(server, sizeof(server),
		 "stream,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=%u", port);
	snprintf(client, sizeof(client),
		 "stream,addr.type=inet,addr.host=localhost,addr.port=%u,addr.ipv4=on", port);
	between(*state, server, client);
	snprintf(server, sizeof(server), "socket,listen=:%u", port);
	snprintf(client, sizeof(client), "socket,connect=127.0.0.1:%u", port);
	between(*state, server, client);
}

static void test_fd(void **state)
{
	struct fixture *x = *state;
	struct net_fake fa, fb;
	struct netdev *a, *b;
	char *info;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	a = net_must_make(x->loop, "stream,addr.type=fd,addr.str=%d", sv[0]);
	b = net_must_make(x->loop, "socket,fd=%d", sv[1]);
	net_fake_init(&fa, a, x->loop, 1, 2048, 1);
	net_fake_init(&fb, b, x->loop, 1, 2048, 1);
	exchange(&fa, &fb);
	info = net_info(a);
	assert_non_null(strstr(info, "type=stream,fd:"));
	free(info);
	net_fake_destroy(&fa);
	net_free(a);
	assert_true(net_fake_wait_link(&fb, false));
	net_fake_destroy(&fb);
	net_free(b);
}

/* ---- framing ---- */

struct server {
	struct netdev *nd;
	struct net_fake f;
};

static void start_server(struct fixture *x, struct server *s)
{
	s->nd = net_must_make(x->loop, "stream,server=on,addr.type=unix,addr.path=%s", x->path);
	net_fake_init(&s->f, s->nd, x->loop, 1, 2048, 3);
}

static void stop_server(struct server *s)
{
	net_fake_destroy(&s->f);
	net_free(s->nd);
}

static void test_pieces(void **state)
{
	struct fixture *x = *state;
	uint8_t out[304], in[2048];
	struct server s;
	int fd;

	start_server(x, &s);
	fd = plain_connect(x->path);
	assert_true(net_fake_wait_link(&s.f, true));
	net_fake_add_room(&s.f, 0, 10);
	for (unsigned i = 0; i < 300; i++)
		out[4 + i] = i;
	store_be32(out, 300);
	/* A byte at a time, then three in one, with one of no bytes among them. */
	for (unsigned i = 0; i < sizeof(out); i++) {
		assert_int_equal(send(fd, out + i, 1, 0), 1);
		net_fake_settle(&s.f);
		assert_int_equal(net_fake_count(&s.f, 0), i == sizeof(out) - 1);
	}
	plain_send(fd, out + 4, 60);
	plain_send(fd, out, 0);
	plain_send(fd, out + 4, 61);
	assert_true(net_fake_wait(&s.f, 0, 3));
	assert_int_equal(net_fake_take(&s.f, 0, in), 300);
	assert_memory_equal(in, out + 4, 300);
	assert_int_equal(net_fake_take(&s.f, 0, in), 60);
	assert_int_equal(net_fake_take(&s.f, 0, in), 61);
	assert_memory_equal(in, out + 4, 61);
	close(fd);
	stop_server(&s);
}

static void test_malformed(void **state)
{
	struct fixture *x = *state;
	uint8_t length[4], big[NET_FRAMES_MAX] = {0}, in[2048];
	struct server s;
	int fd;

	start_server(x, &s);
	for (unsigned i = 0; i < 2; i++) {
		fd = plain_connect(x->path);
		assert_true(net_fake_wait_link(&s.f, true));
		net_fake_add_room(&s.f, 0, 1);
		store_be32(length, i ? UINT32_MAX : NET_FRAMES_MAX + 1);
		assert_int_equal(send(fd, length, 4, 0), 4);
		assert_true(net_fake_wait_link(&s.f, false));
		assert_int_equal(recv(fd, in, 1, 0), 0);
		close(fd);
	}
	/* The next client is served. One larger than the guest takes is lost alone. */
	fd = plain_connect(x->path);
	assert_true(net_fake_wait_link(&s.f, true));
	plain_send(fd, "hello", 5);
	plain_send(fd, big, 60000);
	plain_send(fd, "there", 5);
	net_fake_add_room(&s.f, 0, 5);
	assert_true(net_fake_wait(&s.f, 0, 2));
	assert_int_equal(net_fake_take(&s.f, 0, in), 5);
	assert_memory_equal(in, "hello", 5);
	assert_int_equal(net_fake_take(&s.f, 0, in), 5);
	assert_memory_equal(in, "there", 5);
	close(fd);
	stop_server(&s);
}

static void test_no_room(void **state)
{
	struct fixture *x = *state;
	uint8_t out[1000], in[2048];
	unsigned sent = 0, got = 0;
	struct server s;
	int fd;

	start_server(x, &s);
	fd = plain_connect(x->path);
	assert_true(net_fake_wait_link(&s.f, true));
	memset(out, 1, sizeof(out));
	/* Until the sender has to wait: we do not read more than a bounded amount. */
	for (unsigned quiet = 0; quiet < 10;) {
		uint8_t frame[4 + sizeof(out)];

		store_be32(frame, sizeof(out));
		memcpy(frame + 4, out, sizeof(out));
		if (send(fd, frame, sizeof(frame), 0) == sizeof(frame))
			sent++, quiet = 0;
		else
			quiet++;
		net_fake_settle(&s.f);
	}
	assert_in_range(sent, 10, 1000);
	assert_false(evloop_run_once(x->loop, 0));
	while (got < sent) {
		net_fake_add_room(&s.f, 0, 7);
		assert_true(net_fake_wait(&s.f, 0, MIN(7, sent - got)));
		while (net_fake_take(&s.f, 0, in) == sizeof(out))
			got++;
	}
	assert_int_equal(got, sent);
	/* With set_link off, packets are lost instead. */
	net_set_link(s.nd, false);
	plain_send(fd, out, 10);
	net_fake_settle(&s.f);
	net_set_link(s.nd, true);
	plain_send(fd, "x", 1);
	net_fake_add_room(&s.f, 0, 2);
	assert_true(net_fake_wait(&s.f, 0, 1));
	assert_int_equal(net_fake_take(&s.f, 0, in), 1);
	/* Gone while nobody reads. */
	s.f.q[0].room = 0;
	plain_send(fd, out, 10);
	net_fake_settle(&s.f);
	close(fd);
	assert_true(net_fake_wait_link(&s.f, false));
	stop_server(&s);
}

/* A reader that is slower than the guest: whole packets, in order, however they were cut. */
static void test_full(void **state)
{
	enum { LEN = 1400, STALLS = 5 };
	struct fixture *x = *state;
	uint8_t data[NET_BATCH][LEN], in[4 + LEN];
	struct net_packet pkts[NET_BATCH];
	struct iovec iov[NET_BATCH][2];
	unsigned sent = 0, got = 0;
	struct server s;
	int fd;

	start_server(x, &s);
	fd = plain_connect(x->path);
	assert_true(net_fake_wait_link(&s.f, true));
	for (unsigned stalls = 0; stalls < STALLS;) {
		unsigned taken;

		for (unsigned i = 0; i < NET_BATCH; i++) {
			memset(data[i], sent + i, LEN);
			iov[i][0] = (struct iovec){data[i], 14};
			iov[i][1] = (struct iovec){data[i] + 14, LEN - 14};
			pkts[i] = (struct net_packet){iov[i], 2, LEN};
		}
		taken = net_send(s.nd, 0, pkts, NET_BATCH);
		sent += taken;
		if (taken == NET_BATCH)
			continue;
		assert_int_equal(net_send(s.nd, 0, pkts, NET_BATCH), 0);
		assert_int_equal(s.f.q[0].writables, stalls++);
		while (got < sent && s.f.q[0].writables < stalls) {
			plain_read(&s.f, fd, in, sizeof(in));
			assert_int_equal(load_be32(in), LEN);
			for (unsigned i = 4; i < sizeof(in); i++)
				assert_int_equal(in[i], (uint8_t)got);
			got++;
			evloop_run_once(x->loop, 0);
		}
		assert_int_equal(s.f.q[0].writables, stalls);
	}
	/* Gone while the guest waits: it is told, and what it sends is lost. */
	while (net_send(s.nd, 0, pkts, NET_BATCH) == NET_BATCH)
		;
	close(fd);
	assert_true(net_fake_wait_link(&s.f, false));
	assert_int_equal(s.f.q[0].writables, STALLS + 1);
	assert_int_equal(net_send(s.nd, 0, pkts, NET_BATCH), NET_BATCH);
	stop_server(&s);
}

/* More pieces than one system call takes, and a packet of more than is allowed. */
static void test_shapes(void **state)
{
	enum { PIECES = 1024 };
	struct fixture *x = *state;
	static uint8_t data[70000], in[70000];
	struct iovec iov[PIECES], large = {data, sizeof(data)};
	struct net_packet pkts[3] = {
		{iov, PIECES, 2 * PIECES}, {&large, 1, sizeof(data)}, {&large, 1, 100}};
	struct server s;
	int fd;

	start_server(x, &s);
	fd = plain_connect(x->path);
	assert_true(net_fake_wait_link(&s.f, true));
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = i * 3;
	for (unsigned i = 0; i < PIECES; i++)
		iov[i] = (struct iovec){data + 2 * i, 2};
	assert_int_equal(net_send(s.nd, 0, pkts, 3), 3);
	plain_read(&s.f, fd, in, 4 + 2 * PIECES);
	assert_int_equal(load_be32(in), 2 * PIECES);
	assert_memory_equal(in + 4, data, 2 * PIECES);
	/* The second was too long, the third does not add up. */
	large.iov_len = 100;
	assert_int_equal(net_send(s.nd, 0, pkts + 2, 1), 1);
	plain_read(&s.f, fd, in, 104);
	assert_int_equal(load_be32(in), 100);
	close(fd);
	assert_true(net_fake_wait_link(&s.f, false));
	/* Nobody there: taken and lost. */
	assert_int_equal(net_send(s.nd, 0, pkts + 2, 1), 1);
	stop_server(&s);
}

/* ---- coming back ---- */

struct listener {
	struct notifier n;
	unsigned connected, disconnected;
	char type[8], path[64];
};

static void on_net_event(struct notifier *n, void *data)
{
	struct listener *l = container_of(n, struct listener, n);
	const struct net_event *e = data;

	*(e->connected ? &l->connected : &l->disconnected) += 1;
	snprintf(l->type, sizeof(l->type), "%s", e->type);
	snprintf(l->path, sizeof(l->path), "%s", e->path ?: "");
}

static void test_reconnect(void **state)
{
	struct fixture *x = *state;
	struct listener l = {.n.fn = on_net_event};
	struct net_fake f;
	struct netdev *nd;
	uint8_t in[8];
	int listening, fd;

	/* Nobody there yet. */
	nd = net_must_make(x->loop, "stream,addr.type=unix,addr.path=%s,reconnect-ms=20", x->path);
	notifier_add(&nd->events, &l.n);
	net_fake_init(&f, nd, x->loop, 1, 2048, 1);
	net_fake_settle(&f);
	assert_false(net_link(nd));
	listening = plain_listen(x->path);
	for (unsigned i = 1; i <= 3; i++) {
		assert_true(net_fake_wait_link(&f, true));
		assert_int_equal(l.connected, i);
		assert_string_equal(l.type, "unix");
		assert_string_equal(l.path, x->path);
		fd = accept(listening, NULL, NULL);
		assert_true(fd >= 0);
		assert_true(net_fake_send(&f, 0, "abc", 3));
		plain_read(&f, fd, in, 7);
		assert_memory_equal(in, "\0\0\0\3abc", 7);
		/* In the middle of a packet. */
		assert_int_equal(send(fd, "\0\0\0\5ab", 6, 0), 6);
		close(fd);
		assert_true(net_fake_wait_link(&f, false));
		assert_int_equal(l.disconnected, i);
	}
	close(listening);
	unlink(x->path);
	net_fake_destroy(&f);
	net_free(nd);
}

static void test_detach(void **state)
{
	struct fixture *x = *state;
	struct server s;
	uint8_t in[2048];
	int fd;

	start_server(x, &s);
	fd = plain_connect(x->path);
	assert_true(net_fake_wait_link(&s.f, true));
	/* A second device finds the connection as it was. */
	net_fake_destroy(&s.f);
	plain_send(fd, "one", 3);
	net_fake_init(&s.f, s.nd, x->loop, 1, 2048, 1);
	assert_true(s.f.link);
	net_fake_add_room(&s.f, 0, 1);
	assert_true(net_fake_wait(&s.f, 0, 1));
	assert_int_equal(net_fake_take(&s.f, 0, in), 3);
	/* Half a packet went to the first device: the stream cannot go on. */
	assert_int_equal(send(fd, "\0\0\0\5ab", 6, 0), 6);
	net_fake_settle(&s.f);
	net_fake_destroy(&s.f);
	net_fake_init(&s.f, s.nd, x->loop, 1, 2048, 1);
	assert_true(net_fake_wait_link(&s.f, false));
	close(fd);
	stop_server(&s);
}

/* The queue on a thread of its own, clients that come and go on the main one. */
static void send_some(void *opaque)
{
	struct net_fake *f = opaque;
	uint8_t packet[1500] = {0};

	net_fake_add_room(f, 0, 8);
	for (unsigned i = 0; i < 50; i++)
		net_fake_send(f, 0, packet, sizeof(packet));
	while (net_fake_count(f, 0))
		net_fake_take(f, 0, packet);
}

static void turn_until_link(struct evloop *loop, struct net_fake *f, bool up)
{
	int64_t end = clock_now(&clock_monotonic) + 5 * NSEC_PER_SEC;

	while (net_link(f->nd) != up) {
		assert_true(clock_now(&clock_monotonic) < end);
		evloop_call(f->loop, send_some, f);
		evloop_run_once(loop, NSEC_PER_MSEC);
	}
}

static void test_threads(void **state)
{
	struct fixture *x = *state;
	struct iothread *t = iothread_new("io", NULL);
	struct netdev *nd = net_must_make(x->loop, "stream,server=on,addr.type=unix,addr.path=%s",
					  x->path);
	struct net_fake f;

	net_fake_init(&f, nd, t->loop, 1, 2048, 2);
	for (unsigned i = 0; i < 100; i++) {
		int fd = plain_connect(x->path);

		turn_until_link(x->loop, &f, true);
		for (unsigned k = 0; k < 20; k++)
			plain_send(fd, "hello", 5);
		if (i % 3 == 0)
			send(fd, "\xff\xff\xff\xff", 4, 0);
		evloop_call(t->loop, send_some, &f);
		close(fd);
		turn_until_link(x->loop, &f, false);
	}
	net_fake_destroy(&f);
	net_free(nd);
	iothread_free(t);
}

static void test_options(void **state)
{
	net_must_refuse("stream", "'addr.type' is missing");
	net_must_refuse("stream,addr.type=tcp", "does not accept value 'tcp'");
	net_must_refuse("stream,addr.type=inet,addr.host=x", "addr: Parameter 'port' is missing");
	net_must_refuse("stream,addr.type=unix", "addr: Parameter 'path' expects");
	net_must_refuse("stream,addr.type=unix,addr.path=/x,addr.port=1", "Invalid parameter");
	net_must_refuse("stream,addr.type=unix,addr.path=/nonexistent/s",
			"cannot connect to unix:");
	net_must_refuse("stream,server=on,addr.type=unix,addr.path=/nonexistent/s", "cannot bind");
	net_must_refuse("stream,server=on,reconnect=1,addr.type=unix,addr.path=/x",
			"reconnect= is for clients");
	net_must_refuse("stream,addr.type=fd,addr.str=x", "expects an open file descriptor");
	net_must_refuse("stream,addr.type=fd,addr.str=0", "is no stream socket");
	net_must_refuse("stream,addr.type=inet,addr.host=no name,addr.port=1,addr.numeric=on",
			"address resolution failed");
	net_must_refuse("socket", "exactly one of");
	net_must_refuse("socket,listen=:1,connect=x:1", "exactly one of");
	net_must_refuse("socket,listen=:1,localaddr=x", "only valid with");
	net_must_refuse("socket,udp=127.0.0.1:1", "localaddr= is mandatory");
	net_must_refuse("socket,mcast=127.0.0.1:1", "expects a multicast group");
	net_must_refuse("socket,connect=127.0.0.1", "expects HOST:PORT");
	net_must_refuse("socket,fd=0", "is no socket");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_unix),   TEST(test_inet),	 TEST(test_fd),
		TEST(test_pieces), TEST(test_malformed), TEST(test_no_room),
		TEST(test_full),   TEST(test_shapes),	 TEST(test_reconnect),
		TEST(test_detach), TEST(test_threads),	 cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
