/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks while the guest runs: links, back ends that come and go, ports that are forwarded, and
 * what of it programs are told (qapi/net.json). Main thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/internal.h"
#include "vmm/core/util.h"

json_t *net_cmd_set_link(struct control *c, const json_t *args, struct error **err)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	struct netdev *nd = netdevs_find_end(c->netdevs, name);

	if (!nd) {
		error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", name);
		return NULL;
	}
	net_set_link(nd, json_is_true(json_object_get(args, "up")));
	return json_object();
}

json_t *net_cmd_add(struct control *c, const json_t *args, struct error **err)
{
	struct opts opts;
	bool ok;

	if (!opts_from_json(&opts, args, err))
		return NULL;
	ok = netdevs_add(c->netdevs, &opts, err);
	opts_free(&opts);
	return ok ? json_object() : NULL;
}

bool net_add_line(struct control *c, const char *line, struct error **err)
{
	struct opts opts;
	bool ok = opts_parse(&opts, line, "type", err);

	ok = ok && netdevs_add(c->netdevs, &opts, err);
	opts_free(&opts);
	return ok;
}

json_t *net_cmd_del(struct control *c, const json_t *args, struct error **err)
{
	const char *id = json_string_value(json_object_get(args, "id"));

	return netdevs_del(c->netdevs, id, err) ? json_object() : NULL;
}

bool net_hostfwd(struct control *c, const char *id, const char *rule, bool add, struct error **err)
{
	struct netdev *nd = id ? netdevs_find(c->netdevs, id) : c->netdevs->first;

	while (!id && nd && (nd->doomed || !nd->ops->hostfwd_add))
		nd = nd->next;
	if (id && !nd) {
		error_set(err, "unrecognized netdev id '%s'", id);
		return false;
	}
	if (!nd || !nd->ops->hostfwd_add) {
		error_set(err, "%s%suser mode network stack not in use", id ? id : "",
			  id ? ": " : "");
		return false;
	}
	return add ? nd->ops->hostfwd_add(nd, rule, err) : nd->ops->hostfwd_remove(nd, rule, err);
}

/* For people */

static void print_card(const struct netdev *nd, FILE *out)
{
	const struct net_peer *peer = nd->peer;
	char *info = peer->info ? peer->info(peer->opaque) : NULL;

	fprintf(out, "%s: index=0,type=nic%s%s%s\n \\ ", peer->name ? peer->name : "nic",
		info ? "," : "", info ? info : "", net_link(nd) ? "" : " (link down)");
	free(info);
}

void net_info_network(struct control *c, FILE *out)
{
	for (struct netdev *nd = c->netdevs->first; nd; nd = nd->next) {
		char *info = net_info(nd);

		if (nd->peer)
			print_card(nd, out);
		fprintf(out, "%s: %s\n", nd->id, info);
		free(info);
	}
}

void net_info_usernet(struct control *c, FILE *out)
{
	for (struct netdev *nd = c->netdevs->first; nd; nd = nd->next) {
		char *text = nd->ops->connections ? nd->ops->connections(nd) : NULL;

		/* No back end is on a hub, which this line begins with. */
		if (text)
			fprintf(out, "Hub -1 (%s):\n%s", nd->id, text);
		free(text);
	}
}

/* announce-self: cards tell their networks where their guest is, several times, ever slower. */

static bool is_named(const struct announcer *a, const struct netdev *nd)
{
	size_t i;
	json_t *name;

	if (!a->names)
		return true;
	json_array_foreach(a->names, i,
			   name) if (!strcmp(json_string_value(name), nd->id) ||
				     (nd->peer->name && !strcmp(json_string_value(name),
								nd->peer->name))) return true;
	return false;
}

static void announce(void *opaque)
{
	struct announcer *a = opaque;
	struct evloop *loop = a->control->vm->loop;

	for (struct netdev *nd = a->control->netdevs->first; nd; nd = nd->next)
		if (nd->peer && nd->peer->announce && is_named(a, nd))
			nd->peer->announce(nd->peer->opaque);
	if (--a->rounds <= 0)
		return;
	evloop_timer_arm(loop, &a->timer, evloop_now(loop) + a->delay * NSEC_PER_MSEC);
	a->delay = MIN(a->delay + a->step, a->max);
}

static bool announce_number(const json_t *args, const char *key, int64_t min, int64_t max,
			    int64_t *out, struct error **err)
{
	*out = json_integer_value(json_object_get(args, key));
	if (*out >= min && *out <= max)
		return true;
	error_set(err, "Parameter '%s' expects a value between %lld and %lld", key, (long long)min,
		  (long long)max);
	return false;
}

json_t *net_cmd_announce(struct control *c, const json_t *args, struct error **err)
{
	struct announcer *a = &c->announcer, new = {.control = c};
	json_t *names = json_object_get(args, "interfaces"), *name;
	size_t i;

	if (!announce_number(args, "initial", 1, 100000, &new.delay, err) ||
	    !announce_number(args, "max", 1, 100000, &new.max, err) ||
	    !announce_number(args, "rounds", 1, 1000, &new.rounds, err) ||
	    !announce_number(args, "step", 0, 10000, &new.step, err))
		return NULL;
	json_array_foreach(names, i, name)
	{
		if (!json_is_string(name)) {
			error_set(err,
				  "Invalid parameter type for 'interfaces', expected: strings");
			return NULL;
		}
	}
	/* The newest wish counts. */
	evloop_timer_cancel(c->vm->loop, &a->timer);
	json_decref(a->names);
	new.names = json_incref(names);
	*a = new;
	ev_timer_init(&a->timer, announce, a);
	announce(a);
	return json_object();
}

/* query-rx-filter */

static json_t *describe_macs(const uint8_t (*macs)[6], unsigned count)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < count; i++)
		json_array_append_new(list, json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x",
							 macs[i][0], macs[i][1], macs[i][2],
							 macs[i][3], macs[i][4], macs[i][5]));
	return list;
}

static json_t *describe_vlans(const struct net_rx_filter *f)
{
	json_t *list = json_array();

	for (int i = 0; i < NET_RX_VLANS; i++)
		if (f->vlans[i / 8] >> i % 8 & 1)
			json_array_append_new(list, json_integer(i));
	return list;
}

static json_t *describe_filter(const char *name, const struct net_rx_filter *f)
{
	static const char *const states[] = {"normal", "none", "all"};
	json_t *mac = describe_macs(&f->mac, 1);
	json_t *json = json_pack(
		"{s:s, s:b, s:s, s:s, s:s, s:b, s:b, s:b, s:O, s:o, s:o, s:o}", "name", name,
		"promiscuous", f->promiscuous, "unicast", states[f->unicast], "multicast",
		states[f->multicast], "vlan", states[f->vlan], "broadcast-allowed", f->broadcast,
		"unicast-overflow", f->unicast_overflow, "multicast-overflow",
		f->multicast_overflow, "main-mac", json_array_get(mac, 0), "unicast-table",
		describe_macs(f->unicast_table, f->unicast_count), "multicast-table",
		describe_macs(f->multicast_table, f->multicast_count), "vlan-table",
		describe_vlans(f));

	json_decref(mac);
	return json;
}

json_t *net_cmd_query_rx_filter(struct control *c, const json_t *args, struct error **err)
{
	const char *name = json_string_value(json_object_get(args, "name"));
	struct netdev *only = name ? netdevs_find_end(c->netdevs, name) : NULL;
	struct net_rx_filter filter;
	json_t *list = json_array();

	for (struct netdev *nd = c->netdevs->first; nd; nd = nd->next) {
		const struct net_peer *peer = nd->peer;

		if ((name && nd != only) || !peer || !peer->rx_filter)
			continue;
		peer->rx_filter(peer->opaque, &filter);
		json_array_append_new(list, describe_filter(peer->name, &filter));
	}
	if (!name || json_array_size(list))
		return list;
	json_decref(list);
	if (only)
		error_set(err, "net client(%s) doesn't support rx-filter querying", name);
	else
		error_set(err, "invalid net client name: %s", name);
	return NULL;
}

/* Connections of back ends that have some */

static json_t *address(const struct net_event *e)
{
	json_t *addr = json_pack("{s:s}", "type", e->type);

	if (e->host)
		json_object_set_new(addr, "host", json_string(e->host));
	if (e->port)
		json_object_set_new(addr, "port", json_string(e->port));
	if (e->path)
		json_object_set_new(addr, "path", json_string(e->path));
	if (e->str)
		json_object_set_new(addr, "str", json_string(e->str));
	return addr;
}

static void on_net_event(struct notifier *n, void *data)
{
	struct control *c = container_of(n, struct control, net_events);
	const struct vm_event kind = {.kind = VM_EVENT_NETDEV};
	const struct net_event *e = data;
	json_t *about = json_pack("{s:s}", "netdev-id", e->netdev->id), *json;

	if (e->connected)
		json_object_set_new(about, "addr", address(e));
	json = event_named(e->connected ? "NETDEV_STREAM_CONNECTED" : "NETDEV_STREAM_DISCONNECTED",
			   about);
	control_tell(c, &kind, json);
	json_decref(json);
}

void net_init(struct control *c)
{
	c->net_events.fn = on_net_event;
	notifier_add(&c->netdevs->events, &c->net_events);
	c->announcer.control = c;
	ev_timer_init(&c->announcer.timer, announce, &c->announcer);
}

void net_destroy(struct control *c)
{
	evloop_timer_cancel(c->vm->loop, &c->announcer.timer);
	json_decref(c->announcer.names);
	notifier_remove(&c->netdevs->events, &c->net_events);
}
