/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a card sees in a frame from the network: its tag, its IP header, TCP or UDP, whether their
 * checksums are right. IEEE 802.1Q, RFC 791, 8200, 9293, 768. Pure functions, any thread; the bytes
 * are anybody's.
 */
#ifndef HW_NET_FRAME_H
#define HW_NET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	NET_FRAME_MAC = 6,
	NET_FRAME_TYPE_AT = 12,
	NET_FRAME_HEADER = 14,
	NET_FRAME_TAG = 4,
};

enum net_frame_l4 { NET_FRAME_L4_NONE, NET_FRAME_TCP, NET_FRAME_UDP };

struct net_frame {
	bool tagged;	     /* its type is the card's for VLANs */
	uint16_t tag;	     /* priority, CFI, VLAN */
	unsigned ip_version; /* 4, 6; 0: no IP packet, or one that is cut */
	bool fragment;	     /* one of several: what it carries cannot be judged */
	uint16_t ip_id;
	enum net_frame_l4 l4; /* whose header is wholly there */
	size_t ip, l4_at;     /* offsets */
	size_t l4_len;	      /* bytes, header and all, as IP tells; padding left out */
	size_t data;	      /* where what TCP or UDP carry begins */
};

/* len at least NET_FRAME_HEADER. vlan_type: as registers hold it, 0x8100. */
void net_frame_look(struct net_frame *f, const uint8_t *frame, size_t len, uint16_t vlan_type);
/* IP version 4 alone has one. */
bool net_frame_ip_sum_is_right(const struct net_frame *f, const uint8_t *frame);
/* For frames with TCP or UDP; UDP without a checksum is not asked for. */
bool net_frame_l4_sum_is_right(const struct net_frame *f, const uint8_t *frame);
bool net_frame_udp_has_sum(const struct net_frame *f, const uint8_t *frame);
/* CRC-32 as Ethernet's check sequence has it. */
uint32_t net_frame_crc(const uint8_t *frame, size_t len);

#endif
