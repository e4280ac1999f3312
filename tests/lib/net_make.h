/* SPDX-License-Identifier: Apache-2.0 */
/* Back ends from the command line's text, for tests. */
#ifndef TESTS_LIB_NET_MAKE_H
#define TESTS_LIB_NET_MAKE_H

#include "net/net.h"

/* "tap,ifname=x" with an id of n0; NULL and err. */
struct netdev *net_make(struct evloop *loop, const char *text, struct error **err);
/* Ends the test if it fails. The text may be a format. */
struct netdev *net_must_make(struct evloop *loop, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Ends the test unless it is refused with a message that contains why. */
void net_must_refuse(const char *text, const char *why);

#endif
