/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -netdev user's options into libslirp's: addresses that are left out follow from the network, as
 * QEMU's do; see user.h. Pure; main thread.
 */
#include "config.h"

#ifdef CONFIG_SLIRP
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "net/user.h"
#include "vmm/core/util.h"

enum { NAME_MAX_LEN = 255, BOOTFILE_MAX = 127, PREFIX_BITS_MAX = 126, SEARCH_MAX = 64 };

static bool get_addr(struct opts *opts, const char *key, struct in_addr *addr, struct error **err)
{
	const char *text = opts_get(opts, key);

	if (!text || inet_aton(text, addr))
		return true;
	error_set(err, "Parameter '%s' expects an IPv4 address, not '%s'", key, text);
	return false;
}

static bool get_addr6(struct opts *opts, const char *key, struct in6_addr *addr, struct error **err)
{
	const char *text = opts_get(opts, key);

	if (!text || inet_pton(AF_INET6, text, addr) == 1)
		return true;
	error_set(err, "Parameter '%s' expects an IPv6 address, not '%s'", key, text);
	return false;
}

/* The mask of a network that is given without one: its class's, or that of the private range it
 * lies in. */
static uint32_t class_mask(uint32_t addr)
{
	if (!(addr & 0x80000000))
		return 0xff000000;
	if ((addr & 0xfff00000) == 0xac100000) /* 172.16.0.0/12 */
		return 0xfff00000;
	if ((addr & 0xc0000000) == 0x80000000)
		return 0xffff0000;
	if ((addr & 0xffff0000) == 0xc0a80000) /* 192.168.0.0/16 */
		return 0xffff0000;
	if ((addr & 0xffff0000) == 0xc6120000) /* 198.18.0.0/15 */
		return 0xfffe0000;
	if ((addr & 0xe0000000) == 0xc0000000)
		return 0xffffff00;
	return 0xfffffff0;
}

/* "10.0.2.0/24", "10.0.2.0/255.255.255.0", "10.0.0.0" */
static bool parse_net(const char *text, struct in_addr *net, struct in_addr *mask,
		      struct error **err)
{
	const char *slash = strchr(text, '/');
	char *addr = slash ? xstrndup(text, slash - text) : xstrdup(text);
	bool ok = inet_aton(addr, net);
	uint64_t bits;

	free(addr);
	if (!ok) {
		error_set(err, "Parameter 'net' expects ADDRESS/BITS, not '%s'", text);
		return false;
	}
	if (!slash) {
		mask->s_addr = htonl(class_mask(ntohl(net->s_addr)));
	} else if (parse_u64(slash + 1, &bits)) {
		if (bits < 4 || bits > 32) {
			error_set(err, "Parameter 'net': a mask has 4 to 32 bits, not %s",
				  slash + 1);
			return false;
		}
		mask->s_addr = htonl(UINT32_MAX << (32 - bits));
	} else if (!inet_aton(slash + 1, mask)) {
		error_set(err, "Parameter 'net': '%s' is no mask", slash + 1);
		return false;
	}
	net->s_addr &= mask->s_addr;
	return true;
}

static bool outside(const SlirpConfig *c, struct in_addr addr)
{
	return (addr.s_addr & c->vnetmask.s_addr) != c->vnetwork.s_addr;
}

static bool check_ipv4(const SlirpConfig *c, struct error **err)
{
	const char *what = NULL;

	if (outside(c, c->vhost))
		what = "host is not in the network";
	else if (c->restricted && outside(c, c->vnameserver))
		what = "dns is not in the network, which restrict=on needs";
	else if (c->vnameserver.s_addr == c->vhost.s_addr)
		what = "dns and host must differ";
	else if (outside(c, c->vdhcp_start))
		what = "dhcpstart is not in the network";
	else if (c->vdhcp_start.s_addr == c->vhost.s_addr ||
		 c->vdhcp_start.s_addr == c->vnameserver.s_addr)
		what = "dhcpstart must differ from host and dns";
	if (what)
		error_set(err, "%s", what);
	return !what;
}

static bool parse_ipv4(SlirpConfig *c, struct opts *opts, struct error **err)
{
	const char *net = opts_get(opts, "net");

	c->vnetwork.s_addr = htonl(0x0a000200);
	c->vnetmask.s_addr = htonl(0xffffff00);
	if (net && !parse_net(net, &c->vnetwork, &c->vnetmask, err))
		return false;
	c->vhost.s_addr = c->vnetwork.s_addr | (htonl(0x0202) & ~c->vnetmask.s_addr);
	c->vnameserver.s_addr = c->vnetwork.s_addr | (htonl(0x0203) & ~c->vnetmask.s_addr);
	c->vdhcp_start.s_addr = c->vnetwork.s_addr | (htonl(0x020f) & ~c->vnetmask.s_addr);
	return get_addr(opts, "host", &c->vhost, err) &&
	       get_addr(opts, "dns", &c->vnameserver, err) &&
	       get_addr(opts, "dhcpstart", &c->vdhcp_start, err) && check_ipv4(c, err);
}

static bool same_net6(const struct in6_addr *a, const struct in6_addr *b, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(a, b, whole))
		return false;
	return !rest || !((a->s6_addr[whole] ^ b->s6_addr[whole]) >> (8 - rest));
}

/* ipv6-net=PREFIX/BITS, or the two by their own names. */
static bool parse_prefix(SlirpConfig *c, struct opts *opts, struct error **err)
{
	const char *net = opts_get(opts, "ipv6-net"), *slash = net ? strchr(net, '/') : NULL;
	uint64_t bits = 64;
	char *addr;
	bool ok;

	inet_pton(AF_INET6, "fec0::", &c->vprefix_addr6);
	if (!get_addr6(opts, "ipv6-prefix", &c->vprefix_addr6, err) ||
	    !opts_get_u64(opts, "ipv6-prefixlen", &bits, err))
		return false;
	if (net) {
		addr = slash ? xstrndup(net, slash - net) : xstrdup(net);
		ok = inet_pton(AF_INET6, addr, &c->vprefix_addr6) == 1 &&
		     (!slash || parse_u64(slash + 1, &bits));
		free(addr);
		if (!ok) {
			error_set(err, "Parameter 'ipv6-net' expects PREFIX/BITS, not '%s'", net);
			return false;
		}
	}
	if (bits > PREFIX_BITS_MAX) {
		error_set(err, "an IPv6 prefix has at most %d bits", PREFIX_BITS_MAX);
		return false;
	}
	c->vprefix_len = bits ? bits : 64;
	return true;
}

static bool parse_ipv6(SlirpConfig *c, struct opts *opts, struct error **err)
{
	if (!parse_prefix(c, opts, err))
		return false;
	c->vhost6 = c->vnameserver6 = c->vprefix_addr6;
	c->vhost6.s6_addr[15] |= 2;
	c->vnameserver6.s6_addr[15] |= 3;
	if (!get_addr6(opts, "ipv6-host", &c->vhost6, err) ||
	    !get_addr6(opts, "ipv6-dns", &c->vnameserver6, err))
		return false;
	if (!same_net6(&c->vprefix_addr6, &c->vhost6, c->vprefix_len)) {
		error_set(err, "ipv6-host is not in the network");
		return false;
	}
	if (c->restricted && !same_net6(&c->vprefix_addr6, &c->vnameserver6, c->vprefix_len)) {
		error_set(err, "ipv6-dns is not in the network, which restrict=on needs");
		return false;
	}
	return true;
}

/* One of the two alone switches the other off or on: ipv6=on means no IPv4, ipv4=off too. */
static bool parse_families(SlirpConfig *c, struct opts *opts, struct error **err)
{
	static const char *const keys4[] = {"net", "host", "dns", "dhcpstart"};
	static const char *const keys6[] = {"ipv6-net", "ipv6-prefix", "ipv6-prefixlen",
					    "ipv6-host", "ipv6-dns"};
	bool has4 = opts_has(opts, "ipv4"), has6 = opts_has(opts, "ipv6");
	bool ipv4 = true, ipv6 = true;

	if (!opts_get_bool(opts, "ipv4", &ipv4, err) || !opts_get_bool(opts, "ipv6", &ipv6, err))
		return false;
	c->in_enabled = has4 ? ipv4 : !(has6 && ipv6);
	c->in6_enabled = has6 ? ipv6 : !(has4 && ipv4);
	if (!c->in_enabled && !c->in6_enabled) {
		error_set(err, "ipv4 and ipv6 are both off");
		return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys4) && !c->in_enabled; i++) {
		if (opts_has(opts, keys4[i])) {
			error_set(err, "%s needs IPv4, which is off", keys4[i]);
			return false;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys6) && !c->in6_enabled; i++) {
		if (opts_has(opts, keys6[i])) {
			error_set(err, "%s needs IPv6, which is off", keys6[i]);
			return false;
		}
	}
	return true;
}

static bool get_name(struct opts *opts, const char *key, size_t max, const char **out,
		     struct error **err)
{
	*out = opts_get(opts, key);
	if (*out && strlen(*out) > max) {
		error_set(err, "Parameter '%s' has at most %zu bytes", key, max);
		return false;
	}
	return true;
}

static bool parse_names(struct user_config *config, struct opts *opts, struct error **err)
{
	SlirpConfig *c = &config->slirp;
	const char *search;
	size_t pos = 0, count = 0;

	if (!get_name(opts, "hostname", NAME_MAX_LEN, &c->vhostname, err) ||
	    !get_name(opts, "domainname", NAME_MAX_LEN, &c->vdomainname, err) ||
	    !get_name(opts, "tftp-server-name", NAME_MAX_LEN, &c->tftp_server_name, err) ||
	    !get_name(opts, "bootfile", BOOTFILE_MAX, &c->bootfile, err))
		return false;
	if (c->vdomainname && !*c->vdomainname) {
		error_set(err, "Parameter 'domainname' cannot be empty");
		return false;
	}
	c->tftp_path = opts_get(opts, "tftp");
	config->dnssearch = xcalloc(SEARCH_MAX + 1, sizeof(*config->dnssearch));
	while ((search = opts_next_all(opts, "dnssearch", &pos))) {
		if (count == SEARCH_MAX) {
			error_set(err, "Parameter 'dnssearch' may be given %d times", SEARCH_MAX);
			return false;
		}
		config->dnssearch[count++] = search;
	}
	if (count)
		c->vdnssearch = config->dnssearch;
	return true;
}

bool user_config_parse(struct user_config *config, struct opts *opts, struct error **err)
{
	SlirpConfig *c = &config->slirp;
	bool restricted = false;

	*config = (struct user_config){.slirp.version = MIN(SLIRP_CONFIG_VERSION_MAX, 4)};
	if (!opts_get_bool(opts, "restrict", &restricted, err))
		return false;
	c->restricted = restricted;
	return parse_families(c, opts, err) && parse_ipv4(c, opts, err) &&
	       parse_ipv6(c, opts, err) && parse_names(config, opts, err);
}

void user_config_free(struct user_config *config)
{
	free(config->dnssearch);
	config->dnssearch = NULL;
}
#endif
