/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packet headers as bytes: see virtio_net_hdr.h. virtio 1.2, section 5.1.6.2.
 * Thread: any. Owner: none, pure functions.
 */
#include "hw/virtio/virtio_net_hdr.h"

#include "hw/virtio/virtio_net_spec.h"
#include "vmm/core/util.h"

/* The features of which one must have been negotiated for a kind of segmentation; 0: there is no
 * such kind. GSO is what drivers before 1.0 said for all TCP. */
static uint64_t gso_features(uint8_t kind)
{
	switch (kind) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_GSO;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_GSO;
	case VIRTIO_NET_HDR_GSO_UDP:
		return VIRTIO_NET_F_HOST_UFO;
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		return VIRTIO_NET_F_HOST_USO;
	}
	return 0;
}

static const char *check_gso(struct virtio_net_hdr *hdr, uint64_t features)
{
	uint8_t kind = hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
	bool ecn = hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN;
	bool tcp = kind == VIRTIO_NET_HDR_GSO_TCPV4 || kind == VIRTIO_NET_HDR_GSO_TCPV6;

	if (hdr->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		hdr->gso_size = 0;
		return NULL;
	}
	if (!gso_features(kind))
		return "a packet's gso_type is unknown";
	if (!(features & gso_features(kind)))
		return "a packet wants segmentation that was not negotiated";
	if (ecn && (!tcp || !(features & (VIRTIO_NET_F_HOST_ECN | VIRTIO_NET_F_GSO))))
		return "a packet wants ECN that was not negotiated";
	if (!hdr->gso_size)
		return "a packet's gso_size is 0";
	if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return "a packet wants segmentation without a checksum";
	return NULL;
}

const char *virtio_net_hdr_check(struct virtio_net_hdr *hdr, uint64_t features, size_t len)
{
	size_t start = le16toh(hdr->csum_start), offset = le16toh(hdr->csum_offset);

	if (len < VIRTIO_NET_FRAME_MIN)
		return "a packet is shorter than an Ethernet header";
	if (len > VIRTIO_NET_FRAME_MAX)
		return "a packet is longer than 64 KiB";
	hdr->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	hdr->num_buffers = 0;
	if (hdr->flags) {
		if (!(features & VIRTIO_NET_F_CSUM))
			return "a packet wants a checksum that was not negotiated";
		if (!range_inside(start + offset, sizeof(uint16_t), len))
			return "a packet's checksum lies behind its end";
	} else {
		hdr->csum_start = hdr->csum_offset = 0;
	}
	/* A hint, and no more: hosts refuse what it makes too long. */
	if (le16toh(hdr->hdr_len) > len)
		hdr->hdr_len = 0;
	return check_gso(hdr, features);
}
