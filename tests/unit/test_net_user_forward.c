/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of the host that lead into a user-mode network, and addresses in it that lead to chardevs
 * and programs, against the real libslirp.
 */
#include "config.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/user_net.h"
#include "vmm/core/util.h"

#ifdef CONFIG_SLIRP
#include "net/user.h"

enum { FORWARD = 0x0a000264 };

static void talk_in(struct guest *g, struct guest_tcp *t, int fd)
{
	char buf[8] = {0};

	assert_true(fd >= 0);
	for (int i = 0; i < 500 && !t->open; i++)
		guest_turn(g, 2);
	assert_true(t->open);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	assert_true(guest_wait(t, 5, 2000));
	assert_memory_equal(t->in, "hello", 5);
	assert_int_equal(guest_write(t, "world", 5), 5);
	assert_int_equal(user_net_read(g, fd, buf, 5, 2000), 5);
	assert_string_equal(buf, "world");
}

static void test_hostfwd(void **state)
{
	uint16_t port = user_net_free_port(SOCK_STREAM), udp = user_net_free_port(SOCK_DGRAM);
	char *text = xasprintf("user,id=n0,hostfwd=tcp:127.0.0.1:%u-:22,"
			       "hostfwd=udp:127.0.0.1:%u-10.0.2.15:53",
			       port, udp);
	struct guest *g = user_net_start(*state, text);
	struct guest_tcp *t = guest_listen(g, 22);
	struct guest_frame f;
	int fd = user_net_connect(SOCK_STREAM, port);

	/* The guest was never heard of: the network asks for it. */
	talk_in(g, t, fd);
	assert_true(g->arps > 0);
	close(fd);

	fd = user_net_connect(SOCK_DGRAM, udp);
	assert_int_equal(send(fd, "query", 5, 0), 5);
	assert_true(guest_next(g, &f, 1000));
	assert_int_equal(load_be16(f.data + 36), 53);
	assert_memory_equal(f.data + 42, "query", 5);
	free(f.data);
	close(fd);
	free(text);
}

static void test_hostfwd_unix(void **state)
{
	char dir[] = "/tmp/vmm-hostfwd-XXXXXX", *text;
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct user_net *x = *state;
	struct stat st;
	struct guest *g;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(un.sun_path, sizeof(un.sun_path), "%s/a-b", dir);
	text = xasprintf("user,id=n0,hostfwd=unix:%s-:22", un.sun_path);
	g = user_net_start(x, text);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	talk_in(g, guest_listen(g, 22), fd);
	close(fd);
	net_detach(x->nd);
	guest_destroy(g);
	net_free(x->nd);
	x->nd = NULL;
	assert_int_equal(stat(un.sun_path, &st), -1);
	assert_int_equal(rmdir(dir), 0);
	free(text);
}

static void test_hostfwd_while_running(void **state)
{
	struct user_net *x = *state;
	struct guest *g = user_net_start(x, "user,id=n0");
	struct guest_tcp *t = guest_listen(g, 80);
	uint16_t port = user_net_free_port(SOCK_STREAM);
	char *rule = xasprintf("tcp:127.0.0.1:%u-:80", port), *text, *where;
	struct error *err = NULL;
	int fd;

	assert_int_equal(user_net_connect(SOCK_STREAM, port), -1);
	assert_true(x->nd->ops->hostfwd_add(x->nd, rule, NULL));
	fd = user_net_connect(SOCK_STREAM, port);
	talk_in(g, t, fd);
	text = x->nd->ops->connections(x->nd);
	where = xasprintf("%u", port);
	assert_non_null(strstr(text, "TCP[HOST_FORWARD]"));
	assert_non_null(strstr(text, where));
	free(text);
	free(where);
	/* Taken. */
	assert_false(x->nd->ops->hostfwd_add(x->nd, rule, &err));
	assert_non_null(strstr(error_message(err), "Address already in use"));
	error_free(err);
	err = NULL;
	*strrchr(rule, '-') = '\0';
	assert_true(x->nd->ops->hostfwd_remove(x->nd, rule, NULL));
	assert_false(x->nd->ops->hostfwd_remove(x->nd, rule, &err));
	assert_non_null(strstr(error_message(err), "not found"));
	error_free(err);
	assert_int_equal(user_net_connect(SOCK_STREAM, port), -1);
	close(fd);
	free(rule);
}

static void test_guestfwd_chardev(void **state)
{
	struct user_net *x = *state;
	struct guest *g = user_net_start(x, "user,id=n0,restrict=on,"
					    "guestfwd=tcp:10.0.2.100:1234-chardev:end");
	uint8_t out[6000];
	struct guest_tcp *t;

	assert_true(guest_find_gateway(g, FORWARD));
	t = guest_connect(g, FORWARD, 1234);
	assert_true(t->open);
	assert_int_equal(guest_write(t, "hello", 5), 5);
	assert_memory_equal(x->end.in, "hello", 5);
	assert_true(x->end.chardev.peer->can_receive(x->end.chardev.peer->opaque) >= 6);
	x->end.chardev.peer->receive(x->end.chardev.peer->opaque, (uint8_t *)"answer", 6);
	assert_true(guest_wait(t, 6, 1000));
	assert_memory_equal(t->in, "answer", 6);

	/* An end that takes its time loses nothing. */
	user_net_pattern(out, sizeof(out));
	x->end.len = 0;
	x->end.takes = 100;
	guest_write(t, out, 1000);
	assert_int_equal(x->end.len, 100);
	x->end.takes = 500;
	x->end.chardev.peer->writable(x->end.chardev.peer->opaque);
	assert_int_equal(x->end.len, 600);
	x->end.takes = SIZE_MAX;
	x->end.chardev.peer->writable(x->end.chardev.peer->opaque);
	assert_int_equal(x->end.len, 1000);
	assert_int_equal(guest_write(t, out + 1000, 5000), 5000);
	assert_int_equal(x->end.len, 6000);
	assert_memory_equal(x->end.in, out, 6000);

	/* restrict=on: nothing else is there. */
	t = guest_connect(g, USER_NET_GATEWAY, user_net_free_port(SOCK_STREAM));
	assert_false(t->open);
	net_detach(x->nd);
	guest_destroy(g);
	net_free(x->nd);
	x->nd = NULL;
	assert_true(x->end.released);
	assert_null(x->end.chardev.peer);
}

static void test_guestfwd_command(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0,guestfwd=tcp:10.0.2.100:7-cmd:cat");
	struct guest_tcp *t;

	assert_true(guest_find_gateway(g, FORWARD));
	t = guest_connect(g, FORWARD, 7);
	assert_true(t->open);
	assert_int_equal(guest_write(t, "echo me", 7), 7);
	assert_true(guest_wait(t, 7, 3000));
	assert_memory_equal(t->in, "echo me", 7);
}

/* A device that goes and another that comes find the network as it was. */
static void test_attach_again(void **state)
{
	struct user_net *x = *state;
	uint16_t port = user_net_free_port(SOCK_STREAM);
	char *text = xasprintf("user,id=n0,hostfwd=tcp:127.0.0.1:%u-:22", port);
	struct guest *g = user_net_start(x, text);
	struct error *err = NULL;
	int fd;

	assert_true(guest_find_gateway(g, USER_NET_GATEWAY));
	assert_false(net_attach(x->nd, &g->peer, &x->loop, 1, &err));
	assert_non_null(strstr(error_message(err), "in use"));
	error_free(err);
	net_detach(x->nd);
	fd = user_net_connect(SOCK_STREAM, port); /* waits in the listener's queue */
	while (evloop_run_once(x->loop, 0))
		;
	assert_true(net_attach(x->nd, &g->peer, &x->loop, 1, NULL));
	talk_in(g, guest_listen(g, 22), fd);
	close(fd);
	free(text);
}

static void test_rules(void **state)
{
	struct user_rule r;

	assert_true(user_rule_parse(&r, "::2222-:22", false, NULL));
	assert_false(r.udp);
	assert_int_equal(r.host.in.sin_addr.s_addr, 0);
	assert_int_equal(ntohs(r.host.in.sin_port), 2222);
	assert_int_equal(ntohs(r.guest.sin_port), 22);
	assert_true(user_rule_parse(&r, "udp:127.0.0.1:0x10-10.0.2.20:53", false, NULL));
	assert_true(r.udp);
	assert_int_equal(ntohs(r.host.in.sin_port), 16);
	assert_int_equal(ntohl(r.guest.sin_addr.s_addr), 0x0a000214);
	assert_true(user_rule_parse(&r, "tcp::2222", true, NULL));
	assert_false(user_rule_parse(&r, "2222", true, NULL));
}

int main(void)
{
#define NET_TEST(f) cmocka_unit_test_setup_teardown(f, user_net_setup, user_net_teardown)
	const struct CMUnitTest tests[] = {
		NET_TEST(test_hostfwd),
		NET_TEST(test_hostfwd_unix),
		NET_TEST(test_hostfwd_while_running),
		NET_TEST(test_guestfwd_chardev),
		NET_TEST(test_guestfwd_command),
		NET_TEST(test_attach_again),
		cmocka_unit_test(test_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
	return 0;
}
#endif
