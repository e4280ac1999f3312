/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What virtio-net's filters let through, for those who ask; virtio 1.2 section 5.1.6.5. Main
 * thread; the filter is the loop's, which is asked for a copy.
 */
#include <string.h>

#include "hw/virtio/virtio_net.h"
#include "vmm/core/util.h"

_Static_assert((int)NET_RX_MACS >= (int)VIRTIO_NET_FILTER_MACS, "the tables fit");
_Static_assert((int)NET_RX_VLANS == (int)VIRTIO_NET_VLANS, "the bits fit");

struct look {
	const struct virtio_net *net;
	struct net_rx_filter *out;
};

static enum net_rx_state state_of(bool none, bool all)
{
	return none ? NET_RX_NONE : all ? NET_RX_ALL : NET_RX_NORMAL;
}

static bool any_vlan(const struct virtio_net_filter *f)
{
	for (size_t i = 0; i < sizeof(f->vlans); i++)
		if (f->vlans[i])
			return true;
	return false;
}

/* Loop. */
static void copy(void *opaque)
{
	const struct look *look = opaque;
	const struct virtio_net_filter *f = &look->net->filter;
	struct net_rx_filter *out = look->out;

	out->promiscuous = f->promisc;
	out->broadcast = !f->nobcast;
	out->unicast_overflow = f->uni_overflow;
	out->multicast_overflow = f->multi_overflow;
	out->unicast = state_of(f->nouni, f->alluni);
	out->multicast = state_of(f->nomulti, f->allmulti);
	out->vlan = state_of(f->vlan_filter && !any_vlan(f), !f->vlan_filter);
	memcpy(out->mac, f->mac, sizeof(out->mac));
	out->unicast_count = MIN(f->uni_count, (unsigned)VIRTIO_NET_FILTER_MACS);
	out->multicast_count = MIN(f->multi_count, (unsigned)VIRTIO_NET_FILTER_MACS);
	memcpy(out->unicast_table, f->uni, sizeof(f->uni));
	memcpy(out->multicast_table, f->multi, sizeof(f->multi));
	memcpy(out->vlans, f->vlans, sizeof(f->vlans));
}

void virtio_net_query_filter(void *opaque, struct net_rx_filter *filter)
{
	struct virtio_net *net = opaque;
	struct look look = {net, filter};

	*filter = (struct net_rx_filter){0};
	evloop_call(net->vdev.loop, copy, &look);
}
