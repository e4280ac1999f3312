/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A user-mode network with a guest in it (user_guest.h), and sockets of the host's side, for tests.
 */
#ifndef TESTS_LIB_USER_NET_H
#define TESTS_LIB_USER_NET_H

#include "net/net.h"
#include "tests/lib/user_guest.h"

enum { USER_NET_GATEWAY = 0x0a000202 };

/* A chardev whose other end is the test. */
struct user_net_end {
	struct chardev chardev;
	char in[1 << 16];
	size_t len, takes; /* how much it takes now */
	bool released;
};

struct user_net {
	struct evloop *loop;
	struct net_context context;
	struct netdev *nd;
	struct guest guest;
	struct user_net_end end;
};

int user_net_setup(void **state);
int user_net_teardown(void **state);
/* text is -netdev's. */
struct netdev *user_net_make(struct user_net *x, const char *text, struct error **err);
/* Likewise, with the guest in it. */
struct guest *user_net_start(struct user_net *x, const char *text);

/* A socket on a port of its own of 127.0.0.1; type SOCK_STREAM or SOCK_DGRAM. */
int user_net_listen(int type, uint16_t *port);
uint16_t user_net_free_port(int type);
/* Or -1. */
int user_net_connect(int type, uint16_t port);
/* Both turn the guest's loop meanwhile. */
size_t user_net_read(struct guest *g, int fd, void *buf, size_t len, int ms);
int user_net_accept(struct guest *g, int listener);

void user_net_pattern(uint8_t *p, size_t len);

#endif
