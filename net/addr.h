/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where sockets of back ends come from and go to: QEMU's addr.type=inet|unix|fd, and the older
 * "host:port". Names are looked up once, when the back end is made. Main thread; the caller owns
 * the struct and every descriptor that comes out of it.
 */
#ifndef NET_ADDR_H
#define NET_ADDR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "vmm/core/error.h"
#include "vmm/core/opts.h"

enum net_addr_type { NET_ADDR_NONE, NET_ADDR_INET, NET_ADDR_UNIX, NET_ADDR_FD };

enum { NET_ADDR_MAX = 8 }; /* of one name */

struct net_addr {
	enum net_addr_type type;
	char *host, *port; /* INET */
	unsigned to;	   /* last port to try when listening; 0: only the one */
	bool keep_alive, mptcp;
	char *path;	/* UNIX */
	bool bound;	/* and there is a socket of ours at path */
	bool abstract;	/* in the abstract namespace, */
	bool tight;	/* where the name ends with its last byte */
	char *str;	/* FD */
	int fd;		/* until net_addr_take_fd() */
	unsigned count; /* of sa, all of the same kind */
	struct sockaddr_storage sa[NET_ADDR_MAX];
	socklen_t sa_len[NET_ADDR_MAX];
};

/* Takes prefix ("addr.") and "type", "host", ... of opts. type NONE if there is none of them. The
 * names are looked up for sockets of that kind (SOCK_STREAM, SOCK_DGRAM). */
bool net_addr_parse(struct net_addr *a, struct opts *opts, const char *prefix, int socktype,
		    struct error **err);
/* "host:port", "[host]:port", ":port"; option is what to call it. */
bool net_addr_parse_short(struct net_addr *a, const char *text, const char *option, int socktype,
			  struct error **err);
/* A descriptor by its number. */
bool net_addr_parse_fd(struct net_addr *a, const char *text, const char *option,
		       struct error **err);
/* Removes the file of a socket that was bound here. */
void net_addr_destroy(struct net_addr *a);

/* For people: "tcp:host:port", "unix:path", "fd:3". The caller frees. */
char *net_addr_text(const struct net_addr *a, const char *inet);
/* Of a socket's own end or its peer's: "tcp:127.0.0.1:1234". */
char *net_addr_name_text(const struct sockaddr_storage *sa, const char *inet);
bool net_addr_is_multicast(const struct net_addr *a);

/* All of these: descriptors that are non-blocking and close-on-exec; -1 with err. */
int net_addr_listen(struct net_addr *a, struct error **err);
/* A datagram socket that has this address. */
int net_addr_bind(struct net_addr *a, struct error **err);
/* *under_way: not there yet, EPOLLOUT will tell. *next (0 at first): which of the addresses. */
int net_addr_connect(const struct net_addr *a, unsigned *next, bool *under_way, struct error **err);
/* The given descriptor, which is a socket of that kind and listens, or does not. */
int net_addr_take_fd(struct net_addr *a, int socktype, bool listening, struct error **err);

#endif
