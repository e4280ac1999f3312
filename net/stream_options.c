/* SPDX-License-Identifier: Apache-2.0 */
/* -netdev stream: options (QEMU 7.2's, and reconnect= of QEMU 8); see stream.h. Main thread. */
#include "net/stream.h"
#include "net/types.h"
#include "vmm/core/util.h"

enum { RECONNECT_MAX = 86400 };

static bool read_reconnect(struct opts *opts, bool server, uint64_t *ns, struct error **err)
{
	bool both = opts_has(opts, "reconnect") && opts_has(opts, "reconnect-ms");
	uint64_t s = 0, ms = 0;

	if (!opts_get_u64(opts, "reconnect", &s, err) ||
	    !opts_get_u64(opts, "reconnect-ms", &ms, err))
		return false;
	if (both)
		error_set(err, "reconnect= and reconnect-ms= are invalid together");
	else if (server && (s || ms))
		error_set(err, "reconnect= is for clients, not for server=on");
	else if (s > RECONNECT_MAX || ms > RECONNECT_MAX * UINT64_C(1000))
		error_set(err, "reconnect= is at most %d seconds", RECONNECT_MAX);
	else {
		*ns = s * NSEC_PER_SEC + ms * NSEC_PER_MSEC;
		return true;
	}
	return false;
}

static struct netdev *create(const struct net_context *context, const char *id, struct opts *opts,
			     struct error **err)
{
	uint64_t reconnect = 0;
	struct net_addr addr;
	bool server = false;
	struct net_stream *s;

	if (!opts_get_bool(opts, "server", &server, err) ||
	    !read_reconnect(opts, server, &reconnect, err) ||
	    !net_addr_parse(&addr, opts, "addr.", SOCK_STREAM, err))
		return NULL;
	if (addr.type == NET_ADDR_NONE) {
		error_set(err, "Parameter 'addr.type' is missing");
		return NULL;
	}
	if (addr.type == NET_ADDR_FD && reconnect) {
		error_set(err, "reconnect= needs an address, not addr.type=fd");
		net_addr_destroy(&addr);
		return NULL;
	}
	s = net_stream_new(context->loop, "stream", id, &addr, server);
	s->reconnect_ns = reconnect;
	if (net_stream_start(s, err))
		return &s->nd;
	net_free(&s->nd);
	return NULL;
}

const struct net_type net_type_stream = {
	.name = "stream",
	.help = "packets over a connection to another guest or program",
	.options =
		(const struct net_option[]){
			{"server", "on|off", "wait for the other end (default: off)"},
			{"reconnect", "seconds",
			 "try again when the connection is lost (default: "
			 "0, no)"},
			{"reconnect-ms", "milliseconds", "the same"},
			{"addr.type", "inet|unix|fd", "where the other end is"},
			{"addr.host", "host", "inet: name or number"},
			{"addr.port", "port", "inet: number or service"},
			{"addr.to", "port", "inet, server: try ports up to this one"},
			{"addr.numeric", "on|off", "inet: no name is looked up"},
			{"addr.keep-alive", "on|off", "inet: notice a dead peer"},
			{"addr.mptcp", "on|off", "inet: Multipath TCP"},
			{"addr.ipv4", "on|off", "inet: whether IPv4 is used"},
			{"addr.ipv6", "on|off", "inet: whether IPv6 is used"},
			{"addr.path", "path", "unix: the socket"},
			{"addr.abstract", "on|off", "unix: in the abstract namespace"},
			{"addr.tight", "on|off", "unix: an abstract name has no zero bytes behind"},
			{"addr.str", "number", "fd: an open socket"},
			{0},
		},
	.create = create,
};
