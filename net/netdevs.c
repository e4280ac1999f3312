/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's back ends by id, and its cards' addresses; see net.h. Main thread; owned by the
 * program's main.
 */
#include <string.h>

#include "net/net.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

static void remove_from(struct netdevs *set, struct netdev *nd)
{
	struct netdev **p = &set->first;

	while (*p != nd)
		p = &(*p)->next;
	*p = nd->next;
	net_free(nd);
}

static void on_sweep(void *opaque)
{
	struct netdevs *set = opaque;
	struct netdev *next;

	for (struct netdev *nd = set->first; nd; nd = next) {
		next = nd->next;
		if (nd->doomed && !nd->peer)
			remove_from(set, nd);
	}
}

void netdevs_init(struct netdevs *set, const struct net_context *context)
{
	*set = (struct netdevs){.context = *context};
	ev_work_init(&set->sweep, on_sweep, set);
}

void netdevs_destroy(struct netdevs *set)
{
	while (set->first)
		remove_from(set, set->first);
	if (set->context.loop)
		evloop_unpost(set->context.loop, &set->sweep);
}

struct netdev *netdevs_find(const struct netdevs *set, const char *id)
{
	for (struct netdev *nd = set->first; nd; nd = nd->next)
		if (!nd->doomed && !strcmp(nd->id, id))
			return nd;
	return NULL;
}

struct netdev *netdevs_find_end(const struct netdevs *set, const char *name)
{
	struct netdev *nd = netdevs_find(set, name);

	for (struct netdev *i = set->first; i && !nd; i = i->next)
		if (i->peer && i->peer->name && !strcmp(i->peer->name, name))
			nd = i;
	return nd;
}

static void relay(struct notifier *n, void *data)
{
	notifier_fire(&container_of(n, struct netdev, relay)->set->events, data);
}

bool netdevs_add(struct netdevs *set, struct opts *opts, struct error **err)
{
	const char *id = opts_peek(opts, "id");
	struct netdev **end = &set->first, *nd;

	if (id && netdevs_find(set, id)) {
		error_set(err, "Duplicate ID '%s' for netdev", id);
		return false;
	}
	nd = net_new(&set->context, opts, err);
	if (!nd)
		return false;
	nd->set = set;
	nd->relay.fn = relay;
	notifier_add(&nd->events, &nd->relay);
	while (*end)
		end = &(*end)->next;
	*end = nd;
	return true;
}

bool netdevs_del(struct netdevs *set, const char *id, struct error **err)
{
	struct netdev *nd = netdevs_find(set, id);

	if (!nd) {
		error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", id);
		return false;
	}
	if (nd->filters) {
		error_set(err, "netdev '%s' has a filter", id);
		return false;
	}
	if (!nd->peer) {
		remove_from(set, nd);
		return true;
	}
	net_set_link(nd, false);
	nd->doomed = true;
	return true;
}

/* Cards' addresses */

static const uint8_t mac_base[5] = {0x52, 0x54, 0x00, 0x12, 0x34};
enum { MAC_FIRST = 0x56 };

void net_mac_take(struct vm *vm, uint8_t mac[6])
{
	static const uint8_t none[6];

	if (!memcmp(mac, none, sizeof(none))) {
		unsigned last = MAC_FIRST;

		/* With all 170 in use, the last is given again. */
		while (last < 0xff && vm->mac_uses[last])
			last++;
		memcpy(mac, mac_base, sizeof(mac_base));
		mac[5] = last;
	}
	if (!memcmp(mac, mac_base, sizeof(mac_base)))
		vm->mac_uses[mac[5]]++;
}

void net_mac_release(struct vm *vm, const uint8_t mac[6])
{
	if (!memcmp(mac, mac_base, sizeof(mac_base)) && vm->mac_uses[mac[5]])
		vm->mac_uses[mac[5]]--;
}
