/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -netdev socket, the older way to say stream and dgram: exactly one of fd=, listen=, connect=,
 * mcast= and udp=. Main thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "net/dgram.h"
#include "net/stream.h"
#include "net/types.h"
#include "vmm/core/util.h"

static struct netdev *create_stream(const struct net_context *context, const char *id,
				    struct net_addr *addr, bool server, struct error **err)
{
	struct net_stream *s = net_stream_new(context->loop, "socket", id, addr, server);

	if (net_stream_start(s, err))
		return &s->nd;
	net_free(&s->nd);
	return NULL;
}

static struct netdev *create_tcp(const struct net_context *context, const char *id,
				 const char *text, bool server, struct error **err)
{
	struct net_addr addr;

	if (!net_addr_parse_short(&addr, text, server ? "listen" : "connect", SOCK_STREAM, err))
		return NULL;
	return create_stream(context, id, &addr, server, err);
}

static struct netdev *create_udp(const char *id, const char *text, const char *localaddr,
				 struct error **err)
{
	struct net_addr local, remote;

	if (!localaddr) {
		error_set(err, "localaddr= is mandatory with udp=");
		return NULL;
	}
	if (!net_addr_parse_short(&remote, text, "udp", SOCK_DGRAM, err))
		return NULL;
	if (!net_addr_parse_short(&local, localaddr, "localaddr", SOCK_DGRAM, err)) {
		net_addr_destroy(&remote);
		return NULL;
	}
	return dgram_new_pair("socket", id, &local, &remote, err);
}

/* localaddr= is a host alone. */
static bool parse_interface(struct net_addr *local, const char *host, struct error **err)
{
	char *text = xasprintf("%s:0", host);
	bool ok = net_addr_parse_short(local, text, "localaddr", SOCK_DGRAM, err);

	free(text);
	return ok;
}

static struct netdev *create_group(const char *id, const char *text, const char *localaddr,
				   struct error **err)
{
	struct net_addr local = {.fd = -1}, group;
	struct netdev *nd = NULL;

	if (!net_addr_parse_short(&group, text, "mcast", SOCK_DGRAM, err))
		return NULL;
	if (!net_addr_is_multicast(&group))
		error_set(err, "Parameter 'mcast' expects a multicast group, not '%s'", text);
	else if (!localaddr || parse_interface(&local, localaddr, err))
		nd = dgram_new_group("socket", id, &local, &group, err);
	net_addr_destroy(&group);
	return nd;
}

static struct netdev *create_fd(const struct net_context *context, const char *id, const char *text,
				struct error **err)
{
	socklen_t len = sizeof(int);
	struct net_addr addr;
	int type;

	if (!net_addr_parse_fd(&addr, text, "fd", err))
		return NULL;
	if (getsockopt(addr.fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0) {
		error_set_errno(err, errno, "file descriptor %d is no socket", addr.fd);
		net_addr_destroy(&addr);
		return NULL;
	}
	if (type == SOCK_DGRAM)
		return dgram_new_fd("socket", id, &addr, err);
	return create_stream(context, id, &addr, false, err);
}

static struct netdev *create(const struct net_context *context, const char *id, struct opts *opts,
			     struct error **err)
{
	const char *fd = opts_get(opts, "fd"), *listen = opts_get(opts, "listen");
	const char *connect = opts_get(opts, "connect"), *mcast = opts_get(opts, "mcast");
	const char *udp = opts_get(opts, "udp"), *localaddr = opts_get(opts, "localaddr");

	if (!!fd + !!listen + !!connect + !!mcast + !!udp != 1) {
		error_set(err, "exactly one of fd=, listen=, connect=, mcast= or udp= is required");
		return NULL;
	}
	if (localaddr && !mcast && !udp) {
		error_set(err, "localaddr= is only valid with mcast= or udp=");
		return NULL;
	}
	if (fd)
		return create_fd(context, id, fd, err);
	if (mcast)
		return create_group(id, mcast, localaddr, err);
	if (udp)
		return create_udp(id, udp, localaddr, err);
	return create_tcp(context, id, listen ?: connect, listen, err);
}

const struct net_type net_type_socket = {
	.name = "socket",
	.help = "packets over TCP or UDP to another guest, in the older way of writing",
	.options =
		(const struct net_option[]){
			{"fd", "number", "an open stream or connected datagram socket"},
			{"listen", "[host]:port", "wait for another guest"},
			{"connect", "host:port", "go to one that waits"},
			{"mcast", "group:port", "a multicast group"},
			{"udp", "host:port", "datagrams to there,"},
			{"localaddr", "host[:port]", "and from here, or the group's interface"},
			{0},
		},
	.create = create,
};
