/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and layouts of the virtio network device: virtio 1.2, section 5.1. The packet header is in
 * virtio_net_hdr.h.
 */
#ifndef HW_VIRTIO_VIRTIO_NET_SPEC_H
#define HW_VIRTIO_VIRTIO_NET_SPEC_H

#include <stddef.h>
#include <stdint.h>

#include "hw/virtio/virtio_spec.h"

/* Features (5.1.3). */
#define VIRTIO_NET_F_CSUM		 VIRTIO_BIT(0)
#define VIRTIO_NET_F_GUEST_CSUM		 VIRTIO_BIT(1)
#define VIRTIO_NET_F_CTRL_GUEST_OFFLOADS VIRTIO_BIT(2)
#define VIRTIO_NET_F_MTU		 VIRTIO_BIT(3)
#define VIRTIO_NET_F_MAC		 VIRTIO_BIT(5)
#define VIRTIO_NET_F_GSO		 VIRTIO_BIT(6) /* legacy */
#define VIRTIO_NET_F_GUEST_TSO4		 VIRTIO_BIT(7)
#define VIRTIO_NET_F_GUEST_TSO6		 VIRTIO_BIT(8)
#define VIRTIO_NET_F_GUEST_ECN		 VIRTIO_BIT(9)
#define VIRTIO_NET_F_GUEST_UFO		 VIRTIO_BIT(10)
#define VIRTIO_NET_F_HOST_TSO4		 VIRTIO_BIT(11)
#define VIRTIO_NET_F_HOST_TSO6		 VIRTIO_BIT(12)
#define VIRTIO_NET_F_HOST_ECN		 VIRTIO_BIT(13)
#define VIRTIO_NET_F_HOST_UFO		 VIRTIO_BIT(14)
#define VIRTIO_NET_F_MRG_RXBUF		 VIRTIO_BIT(15)
#define VIRTIO_NET_F_STATUS		 VIRTIO_BIT(16)
#define VIRTIO_NET_F_CTRL_VQ		 VIRTIO_BIT(17)
#define VIRTIO_NET_F_CTRL_RX		 VIRTIO_BIT(18)
#define VIRTIO_NET_F_CTRL_VLAN		 VIRTIO_BIT(19)
#define VIRTIO_NET_F_CTRL_RX_EXTRA	 VIRTIO_BIT(20)
#define VIRTIO_NET_F_GUEST_ANNOUNCE	 VIRTIO_BIT(21)
#define VIRTIO_NET_F_MQ			 VIRTIO_BIT(22)
#define VIRTIO_NET_F_CTRL_MAC_ADDR	 VIRTIO_BIT(23)
#define VIRTIO_NET_F_GUEST_USO4		 VIRTIO_BIT(54)
#define VIRTIO_NET_F_GUEST_USO6		 VIRTIO_BIT(55)
#define VIRTIO_NET_F_HOST_USO		 VIRTIO_BIT(56)
#define VIRTIO_NET_F_HASH_REPORT	 VIRTIO_BIT(57)
#define VIRTIO_NET_F_RSS		 VIRTIO_BIT(60)
#define VIRTIO_NET_F_SPEED_DUPLEX	 VIRTIO_BIT(63)

/* Configuration space (5.1.4). */
struct virtio_net_config {
	uint8_t mac[6];
	uint16_t status;
	uint16_t max_virtqueue_pairs;
	uint16_t mtu;
	uint32_t speed; /* Mbit/s */
	uint8_t duplex;
	uint8_t rss_max_key_size;
	uint16_t rss_max_indirection_table_length;
	uint32_t supported_hash_types;
};
_Static_assert(offsetof(struct virtio_net_config, speed) == 12, "virtio_net_config");
_Static_assert(sizeof(struct virtio_net_config) == 24, "virtio_net_config");

enum {
	VIRTIO_NET_S_LINK_UP = 1,
	VIRTIO_NET_S_ANNOUNCE = 2,

	VIRTIO_NET_DUPLEX_HALF = 0,
	VIRTIO_NET_DUPLEX_FULL = 1,
	VIRTIO_NET_DUPLEX_UNKNOWN = 0xff,
};

/* The control queue (5.1.6.5): class, command, data; the device answers with one byte. */
enum {
	VIRTIO_NET_OK = 0,
	VIRTIO_NET_ERR = 1,

	VIRTIO_NET_CTRL_RX = 0,
	VIRTIO_NET_CTRL_RX_PROMISC = 0,
	VIRTIO_NET_CTRL_RX_ALLMULTI = 1,
	VIRTIO_NET_CTRL_RX_ALLUNI = 2,
	VIRTIO_NET_CTRL_RX_NOMULTI = 3,
	VIRTIO_NET_CTRL_RX_NOUNI = 4,
	VIRTIO_NET_CTRL_RX_NOBCAST = 5,

	VIRTIO_NET_CTRL_MAC = 1,
	VIRTIO_NET_CTRL_MAC_TABLE_SET = 0,
	VIRTIO_NET_CTRL_MAC_ADDR_SET = 1,

	VIRTIO_NET_CTRL_VLAN = 2,
	VIRTIO_NET_CTRL_VLAN_ADD = 0,
	VIRTIO_NET_CTRL_VLAN_DEL = 1,

	VIRTIO_NET_CTRL_ANNOUNCE = 3,
	VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0,

	VIRTIO_NET_CTRL_MQ = 4,
	VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0,
	VIRTIO_NET_CTRL_MQ_RSS_CONFIG = 1,
	VIRTIO_NET_CTRL_MQ_HASH_CONFIG = 2,

	VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5,
	VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0,
};

#endif
