/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -netdev tap and -netdev bridge: options, which of them go together, and where the descriptors
 * come from: a name, descriptors of whoever started us, or the bridge helper. See tap.h. Main
 * thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net/tap.h"
#include "net/types.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

struct config {
	const char *ifname, *fd, *fds, *script, *downscript, *br, *helper, *vhostfd, *vhostfds;
	bool vnet_hdr, vhost, vhostforce;
	bool vnet_hdr_given, vhost_given, queues_given;
	uint64_t queues, sndbuf, poll_us;
};

static bool read_numbers(struct config *c, struct opts *opts, struct error **err)
{
	c->vnet_hdr_given = opts_has(opts, "vnet_hdr");
	c->vhost_given = opts_has(opts, "vhost");
	c->queues_given = opts_has(opts, "queues");
	c->vnet_hdr = true;
	c->queues = 1;
	if (!opts_get_bool(opts, "vnet_hdr", &c->vnet_hdr, err) ||
	    !opts_get_bool(opts, "vhost", &c->vhost, err) ||
	    !opts_get_bool(opts, "vhostforce", &c->vhostforce, err) ||
	    !opts_get_u64(opts, "queues", &c->queues, err) ||
	    !opts_get_size(opts, "sndbuf", 1, &c->sndbuf, err) ||
	    !opts_get_u64(opts, "poll-us", &c->poll_us, err))
		return false;
	if (c->queues < 1 || c->queues > NET_MAX_QUEUES) {
		error_set(err, "Parameter 'queues' expects a number from 1 to %d", NET_MAX_QUEUES);
		return false;
	}
	if (c->sndbuf > INT_MAX || c->poll_us > UINT32_MAX) {
		error_set(err, "Parameter '%s' is too large",
			  c->sndbuf > INT_MAX ? "sndbuf" : "poll-us");
		return false;
	}
	return true;
}

static bool read_config(struct config *c, struct opts *opts, struct error **err)
{
	c->ifname = opts_get(opts, "ifname");
	c->fd = opts_get(opts, "fd");
	c->fds = opts_get(opts, "fds");
	c->script = opts_get(opts, "script");
	c->downscript = opts_get(opts, "downscript");
	c->br = opts_get(opts, "br");
	c->helper = opts_get(opts, "helper");
	c->vhostfd = opts_get(opts, "vhostfd");
	c->vhostfds = opts_get(opts, "vhostfds");
	return read_numbers(c, opts, err);
}

/* What makes no sense beside fd=, fds=, or a helper. */
static bool check_combination(const struct config *c, struct error **err)
{
	bool named = c->ifname || c->script || c->downscript || c->vnet_hdr_given ||
		     c->queues_given;
	bool helped = c->helper || c->br;

	if (c->fd && (named || helped || c->fds || c->vhostfds))
		error_set(err, "ifname=, script=, downscript=, vnet_hdr=, helper=, br=, queues=, "
			       "fds=, and vhostfds= are invalid with fd=");
	else if (c->fds && (named || helped || c->vhostfd))
		error_set(err, "ifname=, script=, downscript=, vnet_hdr=, helper=, br=, queues=, "
			       "and vhostfd= are invalid with fds=");
	else if (helped && (named || c->vhostfds))
		error_set(err, "ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= "
			       "are invalid with helper= and br=");
	else if (c->vhostfd && c->vhostfds)
		error_set(err, "vhostfd= and vhostfds= are invalid together");
	else if ((c->vhostfd || c->vhostfds) && c->vhost_given && !c->vhost)
		error_set(err, "vhostfd(s)= is not valid without vhost");
	else
		return true;
	return false;
}

/* "3:4:5" */
static int parse_fds(const char *list, int fds[NET_MAX_QUEUES], const char *option,
		     struct error **err)
{
	int n = 0;

	for (const char *at = list;; at++) {
		char *end;
		long v;

		errno = 0;
		v = strtol(at, &end, 10);
		if (end == at || (*end && *end != ':') || errno || v < 0 || v > INT_MAX ||
		    fcntl(v, F_GETFD) < 0) {
			error_set(err, "Parameter '%s' expects open file descriptors, not '%s'",
				  option, list);
			return -1;
		}
		if (n == NET_MAX_QUEUES) {
			error_set(err, "Parameter '%s' takes at most %d file descriptors", option,
				  NET_MAX_QUEUES);
			return -1;
		}
		for (int i = 0; i < n; i++)
			if (fds[i] == v) {
				error_set(err, "Parameter '%s' names file descriptor %ld twice",
					  option, v);
				return -1;
			}
		fds[n++] = v;
		at = end;
		if (!*at)
			return n;
	}
}

/* ---- devices ---- */

static bool open_fds(struct tap *t, const struct config *c, struct error **err)
{
	int fds[NET_MAX_QUEUES];
	int n = parse_fds(c->fd ?: c->fds, fds, c->fd ? "fd" : "fds", err);

	if (n < 0)
		return false;
	if (c->fd && n > 1) {
		error_set(err, "Parameter 'fd' expects one file descriptor");
		return false;
	}
	for (int i = 0; i < n; i++) {
		bool hdr;

		if (!tap_device_check(fds[i], &hdr, err))
			return false;
		if (i && hdr != t->host_hdr) {
			error_set(err, "vnet_hdr not consistent across given tap fds");
			return false;
		}
		t->host_hdr = hdr;
	}
	/* Ours from here on, and closed with the rest. */
	for (int i = 0; i < n; i++)
		t->q[i].fd = fds[i];
	t->nd.queues = n;
	t->info = c->fd ? xasprintf("fd=%d", fds[0]) : xasprintf("fds=%s", c->fds);
	return true;
}

static bool open_helper(struct tap *t, const char *helper, const char *br, bool bridge,
			struct error **err)
{
	t->q[0].fd = tap_run_helper(helper, br, err);
	if (t->q[0].fd < 0 || !tap_device_check(t->q[0].fd, &t->host_hdr, err))
		return false;
	t->info = bridge ? xasprintf("helper=%s,br=%s", helper, br)
			 : xasprintf("helper=%s", helper);
	return true;
}

static const char *script_or(const char *given, const char *standard)
{
	const char *script = given ?: standard;

	return *script && strcmp(script, "no") ? script : NULL;
}

/* A down script that nobody asked for and is not there is none. */
static bool run_scripts(struct tap *t, const struct config *c, struct error **err)
{
	const char *up = script_or(c->script, TAP_SCRIPT);
	const char *down = script_or(c->downscript, TAP_DOWNSCRIPT);

	if (up && !tap_run_script(up, t->ifname, err)) {
		if (!c->script)
			error_prefix(err, "(script=no runs none) ");
		return false;
	}
	if (down && (c->downscript || access(down, X_OK) == 0))
		t->downscript = xstrdup(down);
	t->info = xasprintf("ifname=%s,script=%s,downscript=%s", t->ifname, up ?: "no",
			    t->downscript ?: "no");
	return true;
}

static bool open_named(struct tap *t, const struct config *c, struct error **err)
{
	const char *name = c->ifname ?: "tap%d";

	if (!*name || strlen(name) >= IFNAMSIZ) {
		error_set(err, "Parameter 'ifname' expects 1 to %d characters, not '%s'",
			  IFNAMSIZ - 1, name);
		return false;
	}
	strcpy(t->ifname, name);
	t->host_hdr = c->vnet_hdr;
	for (unsigned i = 0; i < t->nd.queues; i++) {
		t->q[i].fd = tap_device_open(t->ifname, &t->host_hdr, c->vnet_hdr_given,
					     t->nd.queues > 1, err);
		if (t->q[i].fd < 0)
			return false;
	}
	return run_scripts(t, c, err);
}

/* ---- vhost ---- */

static bool adopt_vhost_fds(struct tap *t, const struct config *c, struct error **err)
{
	int fds[NET_MAX_QUEUES];
	int n = parse_fds(c->vhostfd ?: c->vhostfds, fds, c->vhostfd ? "vhostfd" : "vhostfds", err);

	if (n < 0)
		return false;
	if ((unsigned)n != t->nd.queues) {
		error_set(err, "the number of vhost fds (%d) is not that of the tap's queues (%u)",
			  n, t->nd.queues);
		return false;
	}
	for (int i = 0; i < n; i++) {
		fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_NONBLOCK);
		fcntl(fds[i], F_SETFD, FD_CLOEXEC);
		t->nd.vhost.vhost_fd[i] = fds[i];
	}
	return true;
}

/* A kernel that has no vhost-net serves the tap all the same, through us. */
static bool open_vhost_fds(struct tap *t, const struct config *c, bool *opened, struct error **err)
{
	struct net_vhost *v = &t->nd.vhost;

	for (unsigned i = 0; i < t->nd.queues; i++) {
		v->vhost_fd[i] = open(TAP_VHOST_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
		if (v->vhost_fd[i] >= 0)
			continue;
		if (c->vhostforce) {
			error_set_errno(err, errno, "tap: open vhost char device failed");
			return false;
		}
		log_warn("netdev %s: could not open " TAP_VHOST_DEVICE
			 " (%s): vhost=off is used instead",
			 t->nd.id, strerror(errno));
		while (i--) {
			close(v->vhost_fd[i]);
			v->vhost_fd[i] = -1;
		}
		*opened = false;
		return true;
	}
	*opened = true;
	return true;
}

static bool set_up_vhost(struct tap *t, const struct config *c, struct error **err)
{
	bool given = c->vhostfd || c->vhostfds, opened = true;
	struct net_vhost *v = &t->nd.vhost;

	if (!(c->vhost_given ? c->vhost : given || c->vhostforce)) {
		if (c->poll_us)
			error_set(err, "poll-us= is not valid without vhost");
		return !c->poll_us;
	}
	if (given ? !adopt_vhost_fds(t, c, err) : !open_vhost_fds(t, c, &opened, err))
		return false;
	if (!opened)
		return true;
	v->kind = NET_VHOST_KERNEL;
	v->forced = c->vhostforce;
	v->poll_us = c->poll_us;
	for (unsigned i = 0; i < t->nd.queues; i++)
		v->tap_fd[i] = t->q[i].fd;
	return true;
}

/* ---- both types ---- */

static bool finish(struct tap *t, const struct config *c, struct error **err)
{
	for (unsigned i = 0; i < t->nd.queues; i++)
		if (!tap_device_set_sndbuf(t->q[i].fd, c->sndbuf, err))
			return false;
	tap_device_probe(t);
	return set_up_vhost(t, c, err);
}

static struct netdev *create_tap(const struct net_context *context, const char *id,
				 struct opts *opts, struct error **err)
{
	struct config c = {0};
	struct tap *t;
	bool ok;

	if (!read_config(&c, opts, err) || !check_combination(&c, err))
		return NULL;
	t = tap_new(context->loop, "tap", id, c.queues);
	if (c.fd || c.fds)
		ok = open_fds(t, &c, err);
	else if (c.helper || c.br)
		ok = open_helper(t, c.helper ?: TAP_HELPER, c.br ?: TAP_BRIDGE, false, err);
	else
		ok = open_named(t, &c, err);
	if (ok && finish(t, &c, err))
		return &t->nd;
	net_free(&t->nd);
	return NULL;
}

static struct netdev *create_bridge(const struct net_context *context, const char *id,
				    struct opts *opts, struct error **err)
{
	const char *helper = opts_get(opts, "helper") ?: TAP_HELPER;
	const char *br = opts_get(opts, "br") ?: TAP_BRIDGE;
	struct tap *t = tap_new(context->loop, "bridge", id, 1);
	const struct config none = {0};

	if (open_helper(t, helper, br, true, err) && finish(t, &none, err))
		return &t->nd;
	net_free(&t->nd);
	return NULL;
}

const struct net_type net_type_tap = {
	.name = "tap",
	.help = "a tap or macvtap device of the host",
	.options =
		(const struct net_option[]){
			{"ifname", "name",
			 "which device; created unless it is there (default: the "
			 "next tapN)"},
			{"fd", "number", "an open tap or macvtap device"},
			{"fds", "x:y:...", "the same, one for each queue pair"},
			{"script", "file|no", "run to bring it up (default: " TAP_SCRIPT ")"},
			{"downscript", "file|no",
			 "run to bring it down (default: " TAP_DOWNSCRIPT ")"},
			{"br", "bridge",
			 "the bridge that the helper puts a new tap on (default: "
			 "" TAP_BRIDGE ")"},
			{"helper", "command",
			 "opens a tap on the bridge (default: " TAP_HELPER ")"},
			{"queues", "n", "queue pairs of the device (default: 1)"},
			{"vnet_hdr", "on|off", "offloads through the device (default: if it can)"},
			{"sndbuf", "size",
			 "packets that may wait in the device (default: 0, no "
			 "limit)"},
			{"vhost", "on|off", "the host's kernel moves the packets of a virtio card"},
			{"vhostforce", "on|off", "it is an error if the kernel cannot"},
			{"vhostfd", "number", "an open vhost-net device"},
			{"vhostfds", "x:y:...", "the same, one for each queue pair"},
			{"poll-us", "n",
			 "microseconds that vhost polls before it sleeps (default: "
			 "0)"},
			{0},
		},
	.create = create_tap,
};

const struct net_type net_type_bridge = {
	.name = "bridge",
	.help = "a new tap device on a bridge of the host",
	.options =
		(const struct net_option[]){
			{"br", "bridge", "which (default: " TAP_BRIDGE ")"},
			{"helper", "command", "opens it (default: " TAP_HELPER ")"},
			{0},
		},
	.create = create_bridge,
};
