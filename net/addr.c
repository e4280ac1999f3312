/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of sockets; see addr.h. Main thread. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/core/util.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static const char *const kind_names[] = {"inet", "unix", "fd", NULL};

/* ---- reading ---- */

/* ipv4 and ipv6: what of the two is wanted. */
static bool look_up(struct net_addr *a, int socktype, bool numeric, bool ipv4, bool ipv6,
		    struct error **err)
{
	struct addrinfo *list,
		hints = {
			.ai_family = ipv4 && ipv6 ? AF_UNSPEC
				     : ipv6	  ? AF_INET6
						  : AF_INET,
			.ai_socktype = socktype,
			.ai_flags = AI_PASSIVE | (numeric ? AI_NUMERICHOST | AI_NUMERICSERV : 0),
		};
	int r = getaddrinfo(*a->host ? a->host : NULL, a->port, &hints, &list);

	if (r) {
		error_set(err, "address resolution failed for %s:%s: %s", a->host, a->port,
			  gai_strerror(r));
		return false;
	}
	for (struct addrinfo *i = list; i && a->count < NET_ADDR_MAX; i = i->ai_next) {
		memcpy(&a->sa[a->count], i->ai_addr, i->ai_addrlen);
		a->sa_len[a->count++] = i->ai_addrlen;
	}
	freeaddrinfo(list);
	return true;
}

static bool parse_inet(struct net_addr *a, struct opts *o, int socktype, struct error **err)
{
	bool numeric = false, ipv4 = true, ipv6 = true;
	const char *host = opts_get(o, "host"), *port = opts_get(o, "port");
	uint64_t to = 0, first;

	if (!host || !port) {
		error_set(err, "Parameter '%s' is missing", host ? "port" : "host");
		return false;
	}
	a->host = xstrdup(host);
	a->port = xstrdup(port);
	/* One of the two switched on is the other switched off. */
	if (opts_has(o, "ipv4") != opts_has(o, "ipv6")) {
		bool *asked = opts_has(o, "ipv4") ? &ipv4 : &ipv6;

		if (!opts_get_bool(o, opts_has(o, "ipv4") ? "ipv4" : "ipv6", asked, err))
			return false;
		*(asked == &ipv4 ? &ipv6 : &ipv4) = !*asked;
	}
	if (!opts_get_bool(o, "ipv4", &ipv4, err) || !opts_get_bool(o, "ipv6", &ipv6, err) ||
	    !opts_get_bool(o, "numeric", &numeric, err) ||
	    !opts_get_bool(o, "keep-alive", &a->keep_alive, err) ||
	    !opts_get_bool(o, "mptcp", &a->mptcp, err) || !opts_get_u64(o, "to", &to, err))
		return false;
	if (!ipv4 && !ipv6) {
		error_set(err, "ipv4=off and ipv6=off leave no address");
		return false;
	}
	if (to && (!parse_u64(port, &first) || to < first || to > UINT16_MAX)) {
		error_set(err, "Parameter 'to' expects a port from %s to 65535", port);
		return false;
	}
	a->to = to;
	return look_up(a, socktype, numeric, ipv4, ipv6, err);
}

static bool parse_unix(struct net_addr *a, struct opts *o, struct error **err)
{
	const char *path = opts_get(o, "path");
	struct sockaddr_un *un = (struct sockaddr_un *)&a->sa[0];
	size_t len = path ? strlen(path) : 0;

	a->tight = true;
	if (!opts_get_bool(o, "abstract", &a->abstract, err) ||
	    !opts_get_bool(o, "tight", &a->tight, err))
		return false;
	if (!len || len >= sizeof(un->sun_path)) {
		error_set(err, "Parameter 'path' expects 1 to %zu bytes", sizeof(un->sun_path) - 1);
		return false;
	}
	a->path = xstrdup(path);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path + a->abstract, path, len);
	a->sa_len[0] = a->abstract && a->tight ? offsetof(struct sockaddr_un, sun_path) + 1 + len
					       : sizeof(*un);
	a->count = 1;
	return true;
}

bool net_addr_parse_fd(struct net_addr *a, const char *text, const char *option, struct error **err)
{
	uint64_t fd;

	*a = (struct net_addr){.type = NET_ADDR_FD, .fd = -1};
	if (!parse_u64(text, &fd) || fd > INT_MAX || fcntl(fd, F_GETFD) < 0) {
		error_set(err, "Parameter '%s' expects an open file descriptor, not '%s'", option,
			  text);
		return false;
	}
	a->str = xstrdup(text);
	a->fd = fd;
	return true;
}

static bool parse_kind(struct net_addr *a, struct opts *o, int socktype, struct error **err)
{
	int kind = -1;

	if (!opts_get_enum(o, "type", kind_names, &kind, err))
		return false;
	if (kind < 0) {
		error_set(err, "Parameter 'type' is missing");
		return false;
	}
	a->type = NET_ADDR_INET + kind;
	switch (a->type) {
	case NET_ADDR_INET:
		return parse_inet(a, o, socktype, err);
	case NET_ADDR_UNIX:
		return parse_unix(a, o, err);
	default:
		return net_addr_parse_fd(a, opts_get(o, "str") ?: "", "str", err);
	}
}

bool net_addr_parse(struct net_addr *a, struct opts *opts, const char *prefix, int socktype,
		    struct error **err)
{
	struct error *why = NULL;
	struct opts sub = {0};
	bool ok;

	*a = (struct net_addr){.fd = -1};
	opts_sub(opts, prefix, &sub);
	if (!sub.count)
		return true;
	ok = parse_kind(a, &sub, socktype, &why) && opts_check_used(&sub, NULL, 0, &why);
	if (!ok) {
		error_prefix(&why, "%.*s: ", (int)strlen(prefix) - 1, prefix);
		error_propagate(err, why);
		net_addr_destroy(a);
	}
	opts_free(&sub);
	return ok;
}

bool net_addr_parse_short(struct net_addr *a, const char *text, const char *option, int socktype,
			  struct error **err)
{
	const char *colon = strrchr(text, ':'), *host = text;
	size_t len = colon ? colon - text : 0;
	struct error *why = NULL;

	*a = (struct net_addr){.type = NET_ADDR_INET, .fd = -1};
	if (!colon || !colon[1]) {
		error_set(err, "Parameter '%s' expects HOST:PORT, not '%s'", option, text);
		return false;
	}
	if (len >= 2 && host[0] == '[' && host[len - 1] == ']')
		host++, len -= 2;
	a->host = xstrndup(host, len);
	a->port = xstrdup(colon + 1);
	if (look_up(a, socktype, false, true, len && strchr(a->host, ':'), &why))
		return true;
	error_prefix(&why, "%s=%s: ", option, text);
	error_propagate(err, why);
	net_addr_destroy(a);
	return false;
}

void net_addr_destroy(struct net_addr *a)
{
	if (a->bound && !a->abstract)
		unlink(a->path);
	free(a->host);
	free(a->port);
	free(a->path);
	free(a->str);
	*a = (struct net_addr){.fd = -1};
}

/* ---- names ---- */

char *net_addr_text(const struct net_addr *a, const char *inet)
{
	switch (a->type) {
	case NET_ADDR_INET:
		return xasprintf(strchr(a->host, ':') ? "%s:[%s]:%s" : "%s:%s:%s", inet, a->host,
				 a->port);
	case NET_ADDR_UNIX:
		return xasprintf("unix:%s", a->path);
	case NET_ADDR_FD:
		return xasprintf("fd:%s", a->str);
	default:
		return xstrdup("");
	}
}

char *net_addr_name_text(const struct sockaddr_storage *sa, const char *inet)
{
	char host[INET6_ADDRSTRLEN] = "", port[6] = "";
	int r = sa->ss_family == AF_UNIX
			? -1
			: getnameinfo((struct sockaddr *)sa, sizeof(*sa), host, sizeof(host), port,
				      sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);

	if (r)
		return xstrdup("");
	return xasprintf(strchr(host, ':') ? "%s:[%s]:%s" : "%s:%s:%s", inet, host, port);
}

bool net_addr_is_multicast(const struct net_addr *a)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)&a->sa[0];

	return a->type == NET_ADDR_INET && a->count && in->sin_family == AF_INET &&
	       IN_MULTICAST(ntohl(in->sin_addr.s_addr));
}

/* ---- sockets ---- */

static int open_socket(const struct net_addr *a, unsigned i, int socktype)
{
	int family = a->sa[i].ss_family, one = 1, zero = 0;
	bool mptcp = a->mptcp && socktype == SOCK_STREAM;
	int fd = socket(family, socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, mptcp ? IPPROTO_MPTCP : 0);

	if (fd < 0 || a->type != NET_ADDR_INET)
		return fd;
	if (socktype == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* A wildcard that was found for both serves both. */
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (socktype == SOCK_STREAM && a->keep_alive)
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	return fd;
}

/* A socket's file that nobody has open any more would keep the name busy for ever. */
static bool bind_one(struct net_addr *a, int fd, unsigned i)
{
	if (a->type == NET_ADDR_UNIX && !a->abstract && unlink(a->path) < 0 && errno != ENOENT)
		return false;
	if (bind(fd, (struct sockaddr *)&a->sa[i], a->sa_len[i]) < 0)
		return false;
	a->bound = a->type == NET_ADDR_UNIX;
	return true;
}

/* Ports are in the same place in both kinds of address. */
static void set_port(struct net_addr *a, unsigned i, uint16_t port)
{
	((struct sockaddr_in *)&a->sa[i])->sin_port = htons(port);
}

static int bind_any(struct net_addr *a, int socktype, struct error **err)
{
	unsigned first = a->type == NET_ADDR_INET
				 ? ntohs(((struct sockaddr_in *)&a->sa[0])->sin_port)
				 : 0;
	char *text;
	int e = EADDRNOTAVAIL;

	for (unsigned port = first; port <= MAX(first, a->to); port++) {
		for (unsigned i = 0; i < a->count; i++) {
			int fd = open_socket(a, i, socktype);

			if (fd >= 0 && port != first)
				set_port(a, i, port);
			if (fd >= 0 && bind_one(a, fd, i) &&
			    (socktype == SOCK_DGRAM || listen(fd, 1) == 0))
				return fd;
			e = errno;
			if (fd >= 0)
				close(fd);
		}
	}
	text = net_addr_text(a, socktype == SOCK_STREAM ? "tcp" : "udp");
	error_set_errno(err, e, "cannot bind %s", text);
	free(text);
	return -1;
}

int net_addr_listen(struct net_addr *a, struct error **err)
{
	return bind_any(a, SOCK_STREAM, err);
}

int net_addr_bind(struct net_addr *a, struct error **err)
{
	return bind_any(a, SOCK_DGRAM, err);
}

int net_addr_connect(const struct net_addr *a, unsigned *next, bool *under_way, struct error **err)
{
	int e = EADDRNOTAVAIL;
	char *text;

	while (*next < a->count) {
		unsigned i = (*next)++;
		int fd = open_socket(a, i, SOCK_STREAM);

		*under_way = false;
		if (fd >= 0 && connect(fd, (struct sockaddr *)&a->sa[i], a->sa_len[i]) == 0)
			return fd;
		e = errno;
		if (fd >= 0 && e == EINPROGRESS) {
			*under_way = true;
			return fd;
		}
		if (fd >= 0)
			close(fd);
	}
	text = net_addr_text(a, "tcp");
	error_set_errno(err, e, "cannot connect to %s", text);
	free(text);
	return -1;
}

int net_addr_take_fd(struct net_addr *a, int socktype, bool listening, struct error **err)
{
	int type = -1, accepts = 0, fd = a->fd;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != socktype) {
		error_set(err, "file descriptor %d is no %s socket", fd,
			  socktype == SOCK_STREAM ? "stream" : "datagram");
		return -1;
	}
	len = sizeof(int);
	if (socktype == SOCK_STREAM &&
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &len) == 0 &&
	    !accepts == listening) {
		error_set(err, "file descriptor %d is %s socket", fd,
			  listening ? "no listening" : "a listening");
		return -1;
	}
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	a->fd = -1;
	return fd;
}
