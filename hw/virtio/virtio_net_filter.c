/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receive filters: see virtio_net_filter.h. virtio 1.2, section 5.1.6.5.
 * Thread: any. Owner: none, pure functions.
 */
#include "hw/virtio/virtio_net_filter.h"

#include "vmm/core/util.h"

enum { TYPE_AT = 12, TAG_AT = 14, TYPE_VLAN = 0x8100 };

void virtio_net_filter_reset(struct virtio_net_filter *f)
{
	uint8_t mac[VIRTIO_NET_MAC];

	memcpy(mac, f->mac, sizeof(mac));
	memset(f, 0, sizeof(*f));
	memcpy(f->mac, mac, sizeof(mac));
	f->promisc = true;
}

static bool is_listed(const uint8_t list[][VIRTIO_NET_MAC], uint32_t count, const uint8_t *mac)
{
	for (uint32_t i = 0; i < count; i++)
		if (!memcmp(list[i], mac, VIRTIO_NET_MAC))
			return true;
	return false;
}

static bool vlan_passes(const struct virtio_net_filter *f, const uint8_t *head)
{
	unsigned vid = load_be16(head + TAG_AT) % VIRTIO_NET_VLANS;

	return !f->vlan_filter || load_be16(head + TYPE_AT) != TYPE_VLAN ||
	       (f->vlans[vid / 8] >> vid % 8 & 1);
}

bool virtio_net_filter_pass(const struct virtio_net_filter *f,
			    const uint8_t head[VIRTIO_NET_FILTER_LOOKS])
{
	static const uint8_t broadcast[VIRTIO_NET_MAC] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (f->promisc)
		return true;
	if (!vlan_passes(f, head))
		return false;
	if (!memcmp(head, broadcast, sizeof(broadcast)))
		return !f->nobcast;
	if (head[0] & 1)
		return !f->nomulti && (f->allmulti || f->multi_overflow ||
				       is_listed(f->multi, f->multi_count, head));
	return !f->nouni &&
	       (f->alluni || f->uni_overflow || !memcmp(head, f->mac, VIRTIO_NET_MAC) ||
		is_listed(f->uni, f->uni_count, head));
}

bool virtio_net_filter_valid(const struct virtio_net_filter *f)
{
	return f->uni_count <= VIRTIO_NET_FILTER_MACS && f->multi_count <= VIRTIO_NET_FILTER_MACS;
}
