/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which packets a guest's driver wants to see: virtio 1.2, sections 5.1.6.5.1 to 5.1.6.5.3.
 * Pure functions; the struct is its owner's, here the loop of the device that embeds it.
 */
#ifndef HW_VIRTIO_VIRTIO_NET_FILTER_H
#define HW_VIRTIO_VIRTIO_NET_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VIRTIO_NET_MAC = 6,
	VIRTIO_NET_FILTER_MACS = 64, /* beyond them, all of that kind pass */
	VIRTIO_NET_VLANS = 4096,
	VIRTIO_NET_FILTER_LOOKS = 18, /* bytes of a frame that decide */
};

struct virtio_net_filter {
	uint8_t mac[VIRTIO_NET_MAC];
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	bool uni_overflow, multi_overflow; /* the driver has more than fit */
	uint32_t uni_count, multi_count;
	uint8_t uni[VIRTIO_NET_FILTER_MACS][VIRTIO_NET_MAC];
	uint8_t multi[VIRTIO_NET_FILTER_MACS][VIRTIO_NET_MAC];
	bool vlan_filter; /* else all pass */
	uint8_t vlans[VIRTIO_NET_VLANS / 8];
};

/* All pass, as drivers expect that know of no filters. */
void virtio_net_filter_reset(struct virtio_net_filter *f);
/* head: the frame's first bytes, len of them, zeros behind. */
bool virtio_net_filter_pass(const struct virtio_net_filter *f,
			    const uint8_t head[VIRTIO_NET_FILTER_LOOKS]);
/* Whether what came from elsewhere is within bounds. */
bool virtio_net_filter_valid(const struct virtio_net_filter *f);

#endif
