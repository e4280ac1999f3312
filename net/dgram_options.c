/* SPDX-License-Identifier: Apache-2.0 */
/* -netdev dgram: options (QEMU 7.2's); see dgram.h. Main thread. */
#include "net/dgram.h"
#include "net/types.h"
#include "vmm/core/util.h"

/* Which of the makers; NULL and an error that both are told by. */
static struct netdev *make(const char *id, struct net_addr *local, struct net_addr *remote,
			   struct error **err)
{
	if (remote->type == NET_ADDR_FD)
		error_set(err, "remote.type expects inet or unix, not fd");
	else if (net_addr_is_multicast(remote) && local->type != NET_ADDR_UNIX)
		return dgram_new_group("dgram", id, local, remote, err);
	else if (local->type == NET_ADDR_NONE)
		error_set(err, "Parameter 'local.type' is missing");
	else if (local->type == NET_ADDR_FD && remote->type != NET_ADDR_NONE)
		error_set(err, "with local.type=fd no remote is needed, unless it is a multicast "
			       "group");
	else if (local->type == NET_ADDR_FD)
		return dgram_new_fd("dgram", id, local, err);
	else if (remote->type == NET_ADDR_NONE)
		error_set(err, "Parameter 'remote.type' is missing");
	else if (remote->type != local->type)
		error_set(err, "local.type and remote.type differ");
	else
		return dgram_new_pair("dgram", id, local, remote, err);
	return NULL;
}

static struct netdev *create(const struct net_context *context, const char *id, struct opts *opts,
			     struct error **err)
{
	struct net_addr local, remote;
	struct netdev *nd = NULL;

	if (!net_addr_parse(&remote, opts, "remote.", SOCK_DGRAM, err))
		return NULL;
	/* Of a multicast group's local address only the host counts. */
	if (net_addr_is_multicast(&remote) && opts_has(opts, "local.host") &&
	    !opts_has(opts, "local.port"))
		opts_add(opts, "local.port", "0");
	if (net_addr_parse(&local, opts, "local.", SOCK_DGRAM, err)) {
		nd = make(id, &local, &remote, err);
		net_addr_destroy(&local);
	}
	net_addr_destroy(&remote);
	return nd;
}

const struct net_type net_type_dgram = {
	.name = "dgram",
	.help = "packets as datagrams to another guest or program, or to a multicast group",
	.options =
		(const struct net_option[]){
			{"local.type", "inet|unix|fd", "where packets come in"},
			{"local.host", "host", "inet: name or number"},
			{"local.port", "port", "inet: number or service"},
			{"local.numeric", "on|off", "inet: no name is looked up"},
			{"local.ipv4", "on|off", "inet: whether IPv4 is used"},
			{"local.ipv6", "on|off", "inet: whether IPv6 is used"},
			{"local.path", "path", "unix: the socket"},
			{"local.abstract", "on|off", "unix: in the abstract namespace"},
			{"local.tight", "on|off",
			 "unix: an abstract name has no zero bytes behind"},
			{"local.str", "number",
			 "fd: a connected socket, or one bound to the group"},
			{"remote.type", "inet|unix", "where packets go"},
			{"remote.host", "host", "inet: name or number, or a multicast group"},
			{"remote.port", "port", "inet: number or service"},
			{"remote.numeric", "on|off", "inet: no name is looked up"},
			{"remote.ipv4", "on|off", "inet: whether IPv4 is used"},
			{"remote.ipv6", "on|off", "inet: whether IPv6 is used"},
			{"remote.path", "path", "unix: the socket"},
			{"remote.abstract", "on|off", "unix: in the abstract namespace"},
			{"remote.tight", "on|off",
			 "unix: an abstract name has no zero bytes behind"},
			{0},
		},
	.create = create,
};
