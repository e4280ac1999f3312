/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways in and out of a user-mode network: hostfwd= from the host to the guest, guestfwd= from the
 * guest to a chardev or a command; see user.h. Rules are added and removed on the main thread;
 * what touches libslirp runs where it runs.
 */
#include "config.h"

#ifdef CONFIG_SLIRP
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/user.h"
#include "vmm/core/util.h"

enum { BACKLOG_MAX = 4 << 20, ETHERTYPE_IPV4 = 0x0800, TCP = 6 };

/* Text */

static bool parse_port(const char *text, unsigned min, unsigned *port)
{
	uint64_t value;

	if (!parse_u64(text, &value) || value < min || value > 65535)
		return false;
	*port = value;
	return true;
}

/* "ADDRESS:PORT", in place; an empty address is 0.0.0.0. NULL, or what is wrong. */
static const char *parse_end(char *text, unsigned min_port, struct sockaddr_in *in)
{
	char *colon = strrchr(text, ':');
	unsigned port;

	if (!colon)
		return "a ':' is missing";
	*colon = '\0';
	*in = (struct sockaddr_in){.sin_family = AF_INET};
	if (*text && !inet_aton(text, &in->sin_addr))
		return "that is no IPv4 address";
	if (!parse_port(colon + 1, min_port, &port))
		return min_port ? "a port is 1 to 65535" : "a port is 0 to 65535";
	in->sin_port = htons(port);
	return NULL;
}

static const char *parse_host_end(struct user_rule *rule, char *text)
{
	const char *wrong;

	if (rule->family_unix) {
		if (!*text || strlen(text) >= sizeof(rule->host.un.sun_path))
			return "a socket's path has 1 to 107 bytes";
		rule->host.un = (struct sockaddr_un){.sun_family = AF_UNIX};
		strcpy(rule->host.un.sun_path, text);
		rule->host_len = sizeof(rule->host.un);
		return NULL;
	}
	wrong = parse_end(text, 0, &rule->host.in);
	rule->host_len = sizeof(rule->host.in);
	return wrong;
}

static const char *parse_rule(struct user_rule *rule, char *text, bool removing)
{
	char *host = strchr(text, ':'), *dash;
	const char *wrong;

	if (!host)
		return "it begins with tcp:, udp: or unix:";
	*host++ = '\0';
	rule->udp = !strcmp(text, "udp");
	rule->family_unix = !strcmp(text, "unix");
	if (*text && !rule->udp && !rule->family_unix && strcmp(text, "tcp"))
		return "it begins with tcp:, udp: or unix:";
	dash = strrchr(host, '-');
	if (removing)
		return parse_host_end(rule, host);
	if (!dash)
		return "a '-' is missing between the host's end and the guest's";
	*dash++ = '\0';
	wrong = parse_host_end(rule, host);
	return wrong ? wrong : parse_end(dash, 1, &rule->guest);
}

bool user_rule_parse(struct user_rule *rule, const char *text, bool removing, struct error **err)
{
	char *copy = xstrdup(text);
	const char *wrong;

	*rule = (struct user_rule){0};
	wrong = parse_rule(rule, copy, removing);
	if (wrong)
		error_set(err, "Invalid host forwarding rule '%s' (%s)", text, wrong);
	free(copy);
	return !wrong;
}

/* hostfwd */

struct forwarding {
	struct user *user;
	const struct user_rule *rule;
	int error; /* errno */
};

static void add_forwarding(void *opaque)
{
	struct forwarding *f = opaque;
	const struct user_rule *r = f->rule;

	errno = 0;
	if (slirp_add_hostxfwd(f->user->slirp, &r->host.sa, r->host_len,
			       (const struct sockaddr *)&r->guest, sizeof(r->guest),
			       r->udp ? SLIRP_HOSTFWD_UDP : 0) < 0)
		f->error = errno ? errno : EINVAL;
	f->user->changed = true;
}

static void remove_forwarding(void *opaque)
{
	struct forwarding *f = opaque;
	const struct user_rule *r = f->rule;

	if (slirp_remove_hostxfwd(f->user->slirp, &r->host.sa, r->host_len,
				  r->udp ? SLIRP_HOSTFWD_UDP : 0) < 0)
		f->error = ENOENT;
	f->user->changed = true;
}

static void remember_path(struct user *u, const char *path)
{
	struct user_path *p = xcalloc(1, sizeof(*p));

	p->path = xstrdup(path);
	p->next = u->paths;
	u->paths = p;
}

static void forget_path(struct user *u, const char *path)
{
	struct user_path **p = &u->paths, *gone;

	while (*p && strcmp((*p)->path, path))
		p = &(*p)->next;
	gone = *p;
	if (!gone)
		return;
	*p = gone->next;
	unlink(gone->path);
	free(gone->path);
	free(gone);
}

bool user_hostfwd_add(struct netdev *nd, const char *text, struct error **err)
{
	struct user_rule rule;
	struct forwarding f = {.user = user_of(nd), .rule = &rule};

	if (!user_rule_parse(&rule, text, false, err))
		return false;
	user_call(f.user, add_forwarding, &f);
	if (f.error) {
		error_set_errno(err, f.error, "Could not set up host forwarding rule '%s'", text);
		return false;
	}
	if (rule.family_unix)
		remember_path(f.user, rule.host.un.sun_path);
	return true;
}

bool user_hostfwd_remove(struct netdev *nd, const char *text, struct error **err)
{
	struct user_rule rule;
	struct forwarding f = {.user = user_of(nd), .rule = &rule};

	if (!user_rule_parse(&rule, text, true, err))
		return false;
	user_call(f.user, remove_forwarding, &f);
	if (f.error) {
		error_set(err, "host forwarding rule for %s not found", text);
		return false;
	}
	if (rule.family_unix)
		forget_path(f.user, rule.host.un.sun_path);
	return true;
}

/* guestfwd: what the guest says */

static void keep(struct user_forward *f, const uint8_t *data, size_t len)
{
	if (f->backlog_len + len > BACKLOG_MAX)
		return; /* user_forward_blocked() let no more than a batch of packets come here */
	if (f->backlog_start + f->backlog_len + len > f->backlog_room) {
		if (f->backlog_len)
			memmove(f->backlog, f->backlog + f->backlog_start, f->backlog_len);
		f->backlog_start = 0;
		f->backlog_room = MAX(f->backlog_room, f->backlog_len + len);
		f->backlog = xrealloc(f->backlog, f->backlog_room);
	}
	memcpy(f->backlog + f->backlog_start + f->backlog_len, data, len);
	f->backlog_len += len;
}

static ssize_t on_guest_data(const void *buf, size_t len, void *opaque)
{
	struct user_forward *f = opaque;
	size_t taken = f->backlog_len ? 0 : chardev_write(f->chardev, buf, len);

	if (taken < len)
		keep(f, (const uint8_t *)buf + taken, len - taken);
	return len;
}

static void on_writable(void *opaque)
{
	struct user_forward *f = opaque;
	size_t taken;

	if (!f->backlog_len)
		return;
	taken = chardev_write(f->chardev, f->backlog + f->backlog_start, f->backlog_len);
	f->backlog_start += taken;
	f->backlog_len -= taken;
}

bool user_forward_blocked(const struct user *u, const uint8_t *frame, size_t len)
{
	size_t header;

	for (const struct user_forward *f = u->forwards; f; f = f->next) {
		if (!f->backlog_len || len < 34 || load_be16(frame + 12) != ETHERTYPE_IPV4 ||
		    frame[23] != TCP || memcmp(frame + 30, &f->server, 4))
			continue;
		header = 14 + (frame[14] & 0xf) * 4;
		if (len >= header + 4 && load_be16(frame + header + 2) == f->port)
			return true;
	}
	return false;
}

/* and what it hears */

static size_t can_receive(void *opaque)
{
	struct user_forward *f = opaque;

	return f->user->loop ? slirp_socket_can_recv(f->user->slirp, f->server, f->port) : 0;
}

static void receive(void *opaque, const uint8_t *data, size_t len)
{
	struct user_forward *f = opaque;
	struct user *u = f->user;

	user_tick(u);
	slirp_socket_recv(u->slirp, f->server, f->port, data, len);
	user_flush(u);
	u->changed = true;
}

void user_forwards_accept(struct user *u)
{
	for (struct user_forward *f = u->forwards; f; f = f->next)
		chardev_accept_input(f->chardev);
}

void user_forwards_free(struct user *u)
{
	while (u->forwards) {
		struct user_forward *f = u->forwards;

		u->forwards = f->next;
		if (f->chardev) {
			chardev_attach(f->chardev, NULL);
			u->context->release_chardev(u->context->opaque, f->chardev);
		}
		free(f->backlog);
		free(f);
	}
}

static bool forward_to_chardev(struct user *u, const char *id, struct sockaddr_in *server,
			       struct error **err)
{
	struct user_forward *f;
	struct chardev *c = NULL;

	if (u->context->take_chardev)
		c = u->context->take_chardev(u->context->opaque, id, err);
	if (!c) {
		error_set(err, "there is no chardev '%s'", id);
		return false;
	}
	f = xmalloc(sizeof(*f));
	*f = (struct user_forward){
		.user = u,
		.chardev = c,
		.peer = {.can_receive = can_receive,
			 .receive = receive,
			 .writable = on_writable,
			 .opaque = f},
		.server = server->sin_addr,
		.port = ntohs(server->sin_port),
		.next = u->forwards,
	};
	u->forwards = f;
	if (slirp_add_guestfwd(u->slirp, on_guest_data, f, &f->server, f->port) < 0) {
		error_set(err, "the address is not in the network, or taken");
		return false;
	}
	chardev_attach(c, &f->peer);
	return true;
}

static bool add_guestfwd(struct user *u, char *text, struct error **err)
{
	char *end = strchr(text, ':'), *dash = end ? strchr(end, '-') : NULL;
	struct sockaddr_in server;
	const char *wrong = NULL;

	if (!end || !dash || (end != text && strncmp(text, "tcp:", 4)))
		wrong = "it is tcp:SERVER:PORT-chardev:ID or tcp:SERVER:PORT-cmd:COMMAND";
	if (!wrong) {
		*dash++ = '\0';
		wrong = parse_end(end + 1, 1, &server);
	}
	if (!wrong && !strncmp(dash, "cmd:", 4)) {
		if (slirp_add_exec(u->slirp, dash + 4, &server.sin_addr, ntohs(server.sin_port)) >=
		    0)
			return true;
		wrong = "the address is not in the network, or taken";
	}
	if (!wrong && !strncmp(dash, "chardev:", 8))
		return forward_to_chardev(u, dash + 8, &server, err);
	error_set(err, "%s", wrong ? wrong : "it ends with chardev:ID or cmd:COMMAND");
	return false;
}

bool user_guestfwd_add(struct user *u, const char *text, struct error **err)
{
	char *copy = xstrdup(text);
	bool ok = add_guestfwd(u, copy, err);

	if (!ok)
		error_prefix(err, "Invalid guest forwarding rule '%s': ", text);
	free(copy);
	return ok;
}
#endif
