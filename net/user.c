/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back end `user`: a network without privileges, behind an address translation of our own
 * process (libslirp); see user.h. One queue. Thread: the loop it is attached to.
 */
#include "config.h"

#include "net/types.h"

#ifdef CONFIG_SLIRP
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/user.h"
#include "vmm/core/iov.h"
#include "vmm/core/util.h"

/* Packets to the guest: they are laid into its buffers while libslirp makes them, and handed over
 * together (user_flush()) when it is done. */

static void give_batch(struct user *u)
{
	unsigned used = u->batch_used;

	u->batch_used = u->batch_count = 0;
	if (used)
		net_received(&u->nd.queue[0], u->batch, used);
}

static bool have_room(struct user *u)
{
	if (u->batch_used < u->batch_count)
		return true;
	give_batch(u);
	u->batch_count = net_receive_buffers(&u->nd.queue[0], u->batch, NET_BATCH);
	return u->batch_count > 0;
}

static void put(struct user *u, const uint8_t *frame, size_t len, uint16_t segment)
{
	unsigned hdr = u->nd.vnet_hdr;
	uint8_t header[12];
	const struct iovec iov[2] = {{header, hdr}, {(void *)frame, len}};

	if (hdr)
		user_make_header(u, header, len, segment);
	net_fill(&u->batch[u->batch_used++], hdr ? iov : iov + 1, hdr ? 2 : 1);
}

static void keep(struct user *u, const uint8_t *frame, size_t len, uint16_t segment)
{
	struct user_pending *p;

	if (u->pending_count == USER_PENDING_MAX)
		return; /* as networks lose them */
	p = malloc(sizeof(*p) + len);
	if (!p)
		return;
	p->len = len;
	p->segment = segment;
	memcpy(p->data, frame, len);
	u->pending[(u->pending_first + u->pending_count++) % USER_PENDING_MAX] = p;
}

static struct user_pending *take_pending(struct user *u)
{
	struct user_pending *p = u->pending[u->pending_first];

	u->pending_first = (u->pending_first + 1) % USER_PENDING_MAX;
	u->pending_count--;
	return p;
}

static void forget_pending(struct user *u)
{
	while (u->pending_count)
		free(take_pending(u));
}

void user_deliver(struct user *u, const uint8_t *frame, size_t len, uint16_t segment)
{
	if (!u->pending_count && have_room(u))
		put(u, frame, len, segment);
	else
		keep(u, frame, len, segment);
}

void user_to_guest(struct user *u, const void *frame, size_t len)
{
	if (!u->loop || !net_link(&u->nd))
		return;
	if (!(u->offloads & NET_OFFLOAD_TSO4) || !user_hold(u, frame, len))
		user_deliver(u, frame, len, 0);
}

void user_flush(struct user *u)
{
	user_release(u);
	give_batch(u);
}

static void receive_ready(struct net_queue *q)
{
	struct user *u = user_of(q->netdev);

	while (u->pending_count && have_room(u)) {
		struct user_pending *p = take_pending(u);

		/* A guest that was reset meanwhile may take no large segments any more. */
		if (!p->segment || u->offloads & NET_OFFLOAD_TSO4)
			put(u, p->data, p->len, p->segment);
		free(p);
	}
	give_batch(u);
}

/* Packets from the guest. libslirp copies a packet before it reads more of it than its type, but
 * those of few bytes (ARP) it reads where they lie: they are copied here, as are those in pieces.
 */
static void send_packet(struct user *u, const struct net_packet *pkt)
{
	unsigned hdr = u->nd.vnet_hdr;
	uint8_t *frame = u->frame + hdr;
	size_t len = pkt->len - hdr;

	if (pkt->len > USER_FRAME_MAX || pkt->len < hdr)
		return;
	iov_to_buf(pkt->iov, pkt->iovcnt, 0, u->frame, pkt->len);
	if (hdr && !user_finish_frame(u->frame, frame, len))
		return;
	if (!user_forward_blocked(u, frame, len))
		slirp_input(u->slirp, frame, len);
}

static unsigned send_packets(struct net_queue *q, const struct net_packet *pkts, unsigned n)
{
	struct user *u = user_of(q->netdev);

	user_tick(u);
	for (unsigned i = 0; i < n; i++)
		send_packet(u, &pkts[i]);
	/* What waited for the guest's answer to ARP can go now. */
	slirp_pollfds_poll(u->slirp, 1, NULL, NULL);
	user_flush(u);
	u->changed = true;
	return n;
}

static bool attach(struct net_queue *q, struct error **err)
{
	struct user *u = user_of(q->netdev);

	if (u->forwards && q->loop != u->context->loop) {
		error_set(err, "netdev '%s': guestfwd to a chardev needs a device without iothread",
			  u->nd.id);
		return false;
	}
	user_loop_attach(u, q->loop);
	return true;
}

static void detach(struct net_queue *q)
{
	struct user *u = user_of(q->netdev);

	u->batch_used = u->batch_count = 0;
	u->held_len = 0;
	forget_pending(u);
	user_loop_detach(u);
}

static bool set_offloads(struct netdev *nd, unsigned offloads)
{
	struct user *u = user_of(nd);

	if (offloads & ~nd->offloads_able)
		return false;
	user_flush(u);
	u->offloads = offloads;
	return true;
}

static char *info(struct netdev *nd)
{
	struct user *u = user_of(nd);
	char addr[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &u->net, addr, sizeof(addr));
	return xasprintf("net=%s,restrict=%s", addr, u->restricted ? "on" : "off");
}

struct connections {
	struct user *user;
	char *text;
};

static void ask_connections(void *opaque)
{
	struct connections *c = opaque;

	c->text = slirp_connection_info(c->user->slirp);
}

static char *connections(struct netdev *nd)
{
	struct connections c = {.user = user_of(nd)};

	user_call(c.user, ask_connections, &c);
	return c.text;
}

static void destroy(struct netdev *nd)
{
	struct user *u = user_of(nd);

	if (u->slirp)
		slirp_cleanup(u->slirp);
	user_forwards_free(u);
	while (u->paths) {
		struct user_path *p = u->paths;

		u->paths = p->next;
		unlink(p->path);
		free(p->path);
		free(p);
	}
	while (u->timers)
		user_callbacks.timer_free(u->timers, u);
	user_loop_destroy(u);
	forget_pending(u);
	free(u->frame);
	free(u->held);
	netdev_destroy(nd);
	free(u);
}

static const struct netdev_ops user_ops = {
	.type = "user",
	.send = send_packets,
	.receive_ready = receive_ready,
	.attach = attach,
	.detach = detach,
	.set_offloads = set_offloads,
	.info = info,
	.hostfwd_add = user_hostfwd_add,
	.hostfwd_remove = user_hostfwd_remove,
	.connections = connections,
	.destroy = destroy,
};

static bool add_rules(struct user *u, struct opts *opts, struct error **err)
{
	const char *rule;
	size_t pos = 0;

	while ((rule = opts_next_all(opts, "hostfwd", &pos)))
		if (!user_hostfwd_add(&u->nd, rule, err))
			return false;
	pos = 0;
	while ((rule = opts_next_all(opts, "guestfwd", &pos)))
		if (!user_guestfwd_add(u, rule, err))
			return false;
	return true;
}

static struct netdev *create(const struct net_context *context, const char *id, struct opts *opts,
			     struct error **err)
{
	struct user_config config;
	struct user *u;

	if (!user_config_parse(&config, opts, err)) {
		user_config_free(&config);
		return NULL;
	}
	u = xcalloc(1, sizeof(*u));
	netdev_init(&u->nd, &user_ops, id, 1);
	u->context = context;
	u->net = config.slirp.vnetwork;
	u->restricted = config.slirp.restricted;
	u->nd.vnet_hdr_max = 12;
	u->nd.offloads_able = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4;
	u->frame = xmalloc(USER_FRAME_MAX);
	u->held = xmalloc(USER_FRAME_MAX);
	u->slirp = slirp_new(&config.slirp, &user_callbacks, u);
	user_config_free(&config);
	if (!u->slirp)
		error_set(err, "libslirp %s refuses these options", slirp_version_string());
	if (!u->slirp || !add_rules(u, opts, err)) {
		destroy(&u->nd);
		return NULL;
	}
	user_tick(u);
	return &u->nd;
}
#else
static struct netdev *create(const struct net_context *context, const char *id, struct opts *opts,
			     struct error **err)
{
	error_set(err, "user-mode networks are not in this build: it was made without libslirp");
	return NULL;
}
#endif

static const struct net_option options[] = {
	{"ipv4", "on|off", "whether there is IPv4; off means IPv6 alone [on]"},
	{"net", "ADDRESS[/BITS]", "the guest's network [10.0.2.0/24]"},
	{"host", "ADDRESS", "the host as the guest sees it [the second address]"},
	{"ipv6", "on|off", "whether there is IPv6; on alone means IPv6 without IPv4 [on]"},
	{"ipv6-net", "PREFIX[/BITS]", "the guest's IPv6 network [fec0::/64]"},
	{"ipv6-prefix", "PREFIX", "the same in two parts"},
	{"ipv6-prefixlen", "BITS", NULL},
	{"ipv6-host", "ADDRESS", "the host as the guest sees it [PREFIX2]"},
	{"restrict", "on|off", "the guest reaches nothing but what guestfwd names [off]"},
	{"hostname", "NAME", "the guest's name, told by DHCP"},
	{"dhcpstart", "ADDRESS", "the first of 16 addresses that DHCP gives [the fifteenth]"},
	{"dns", "ADDRESS", "the name server as the guest sees it [the third]"},
	{"ipv6-dns", "ADDRESS", "the same for IPv6 [PREFIX3]"},
	{"dnssearch", "DOMAIN", "a domain to look names up in, told by DHCP", .repeats = true},
	{"domainname", "DOMAIN", "the guest's domain, told by DHCP"},
	{"tftp", "DIR", "files that the guest may read by TFTP"},
	{"tftp-server-name", "NAME", "what DHCP names as the boot server (option 66)"},
	{"bootfile", "FILE", "what DHCP names as the file to boot, for PXE"},
	{"hostfwd",
	 "[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT | unix:PATH-[GUESTADDR]:GUESTPORT",
	 "connections to the host's port (or socket file) go to the guest's", .repeats = true},
	{"guestfwd", "[tcp]:SERVER:PORT-CHARDEV | [tcp]:SERVER:PORT-cmd:COMMAND",
	 "the guest's connections to that address of its network go to a chardev (chardev:ID, or "
	 "on "
	 "the command line anything that -serial takes), or each to a new command",
	 .repeats = true},
	{NULL},
};

const struct net_type net_type_user = {
	.name = "user",
	.help = "a network without privileges: TCP, UDP and ICMP of this process's own",
	.options = options,
	.create = create,
};
