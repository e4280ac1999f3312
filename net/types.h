/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of network back end: one descriptor each, all of them in the array of types.c, which
 * feeds -netdev, -nic, netdev_add and the manual. Main thread.
 */
#ifndef NET_TYPES_H
#define NET_TYPES_H

#include "net/net.h"

struct net_option {
	const char *name;  /* "hostfwd" */
	const char *value; /* "[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport" */
	const char *help;
	bool repeats; /* may be given several times */
};

struct net_type {
	const char *name;		  /* "user" */
	const char *help;		  /* one line */
	const struct net_option *options; /* ends with a NULL name */
	/* opts holds options of the table alone. NULL and an error, or a back end that is the
	 * caller's. */
	struct netdev *(*create)(const struct net_context *context, const char *id,
				 struct opts *opts, struct error **err);
};

extern const struct net_type net_type_bridge, net_type_dgram, net_type_socket, net_type_stream,
	net_type_tap, net_type_user, net_type_vhost_user;

extern const struct net_type *const net_types[]; /* ends with NULL */
/* Brings opts into the form that types read (JSON's lists become repeated options) and refuses what
 * is missing or unknown. Opens nothing. */
bool net_check_options(struct opts *opts, struct error **err);
/* NULL and an error that names the nearest. */
const struct net_type *net_type_find(const char *name, struct error **err);

#endif
