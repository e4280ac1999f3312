/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header in front of each packet of a virtio network device: virtio 1.2, section 5.1.6.
 * Pure functions, any thread: bytes from a guest come in, what may be done with the packet goes
 * out.
 */
#ifndef HW_VIRTIO_VIRTIO_NET_HDR_H
#define HW_VIRTIO_VIRTIO_NET_HDR_H

#include <stddef.h>
#include <stdint.h>

/* Flags and kinds of segmentation. */
enum {
	VIRTIO_NET_HDR_F_NEEDS_CSUM = 1,
	VIRTIO_NET_HDR_F_DATA_VALID = 2,
	VIRTIO_NET_HDR_F_RSC_INFO = 4,

	VIRTIO_NET_HDR_GSO_NONE = 0,
	VIRTIO_NET_HDR_GSO_TCPV4 = 1,
	VIRTIO_NET_HDR_GSO_UDP = 3,
	VIRTIO_NET_HDR_GSO_TCPV6 = 4,
	VIRTIO_NET_HDR_GSO_UDP_L4 = 5,
	VIRTIO_NET_HDR_GSO_ECN = 0x80,
};

/* Little-endian; legacy drivers' too, as their guests are. */
struct virtio_net_hdr {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers; /* not if VIRTIO_NET_HDR_LEGACY */
	uint32_t hash_value;  /* the rest only if VIRTIO_NET_HDR_HASH */
	uint16_t hash_report;
	uint16_t padding;
};
_Static_assert(offsetof(struct virtio_net_hdr, num_buffers) == 10, "virtio_net_hdr");
_Static_assert(offsetof(struct virtio_net_hdr, hash_value) == 12, "virtio_net_hdr");
_Static_assert(sizeof(struct virtio_net_hdr) == 20, "virtio_net_hdr");

enum {
	VIRTIO_NET_HDR_LEGACY = 10,
	VIRTIO_NET_HDR_PLAIN = 12,
	VIRTIO_NET_HDR_HASH = 20,

	VIRTIO_NET_FRAME_MIN = 14,
	/* An IPv4 packet at its largest, or an IPv6 one, behind an Ethernet header and two tags. */
	VIRTIO_NET_FRAME_MAX = 65535 + 40 + 14 + 8,
};

/*
 * What a driver that negotiated features put in front of a frame of len bytes: NULL, and hdr holds
 * nothing that reaches beyond the frame or means nothing (what a reader must ignore is zero); or
 * what is wrong with it, and the packet must be dropped.
 */
const char *virtio_net_hdr_check(struct virtio_net_hdr *hdr, uint64_t features, size_t len);

#endif
