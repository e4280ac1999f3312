/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which frames the guest wants (82574 datasheet, section 7.1.1: exact addresses, a hash of group
 * addresses, VLANs), and which of the two queues they go to (7.1.10: receive side scaling).
 *
 * Thread: the loop, under the lock. Owner: struct e1000e.
 */
#include "hw/net/e1000e.h"
#include "hw/virtio/virtio_net_hash.h"
#include "vmm/core/util.h"

enum {
	CFI = 1 << 12,
	VLAN_ID = 0xfff,
	RETA_ENTRIES = 128,
	RETA_QUEUE = 7, /* the bit */
};

static bool bit_of(const struct e1000e *d, unsigned table, unsigned bit)
{
	return e1000e_get(d, table + bit / 32 * 4) >> bit % 32 & 1;
}

static bool vlan_passes(const struct e1000e *d, const struct net_frame *f)
{
	uint32_t rctl = e1000e_get(d, E1000E_RCTL);

	if (!(rctl & E1000E_RCTL_VFE) || !f->tagged)
		return true;
	if (rctl & E1000E_RCTL_CFIEN && !(f->tag & CFI) != !(rctl & E1000E_RCTL_CFI))
		return false;
	return bit_of(d, E1000E_VFTA, f->tag & VLAN_ID);
}

static bool is_listed(const struct e1000e *d, const uint8_t *frame)
{
	for (unsigned i = 0; i < E1000E_RAS; i++) {
		uint64_t entry = e1000e_get64(d, E1000E_RAL + 8 * i);
		uint32_t high = entry >> 32;
		uint8_t bytes[8];
		const uint8_t *mac = frame;

		if (!(high & E1000E_RAH_AV))
			continue;
		if ((high & E1000E_RAH_ASEL) == E1000E_RAH_ASEL_SOURCE)
			mac += NET_FRAME_MAC;
		store_le64(bytes, entry);
		if (!memcmp(bytes, mac, NET_FRAME_MAC))
			return true;
	}
	return false;
}

static bool is_hashed(const struct e1000e *d, const uint8_t *mac)
{
	static const uint8_t shifts[] = {4, 3, 2, 0};
	unsigned how = e1000e_get(d, E1000E_RCTL) >> E1000E_RCTL_MO_SHIFT & 3;

	return bit_of(d, E1000E_MTA, load_le16(mac + 4) >> shifts[how] & 0xfff);
}

bool e1000e_filter_pass(const struct e1000e *d, const struct net_frame *f, const uint8_t *frame)
{
	static const uint8_t broadcast[NET_FRAME_MAC] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	uint32_t rctl = e1000e_get(d, E1000E_RCTL);

	if (!vlan_passes(d, f))
		return false;
	if (!memcmp(frame, broadcast, sizeof(broadcast)) && rctl & E1000E_RCTL_BAM)
		return true;
	if (rctl & (frame[0] & 1 ? E1000E_RCTL_MPE : E1000E_RCTL_UPE))
		return true;
	return is_listed(d, frame) || (frame[0] & 1 && is_hashed(d, frame));
}

static uint32_t hash_types(uint32_t mrqc)
{
	return (mrqc & E1000E_MRQC_TCPIPV4 ? VIRTIO_NET_HASH_TYPE_TCPV4 : 0) |
	       (mrqc & E1000E_MRQC_IPV4 ? VIRTIO_NET_HASH_TYPE_IPV4 : 0) |
	       (mrqc & E1000E_MRQC_TCPIPV6 ? VIRTIO_NET_HASH_TYPE_TCPV6 : 0) |
	       (mrqc & E1000E_MRQC_IPV6EX ? VIRTIO_NET_HASH_TYPE_IP_EX : 0) |
	       (mrqc & E1000E_MRQC_IPV6 ? VIRTIO_NET_HASH_TYPE_IPV6 : 0);
}

static unsigned hash_name(uint16_t report)
{
	switch (report) {
	case VIRTIO_NET_HASH_REPORT_TCPV4:
		return E1000E_RSS_TCPIPV4;
	case VIRTIO_NET_HASH_REPORT_IPV4:
		return E1000E_RSS_IPV4;
	case VIRTIO_NET_HASH_REPORT_TCPV6:
		return E1000E_RSS_TCPIPV6;
	case VIRTIO_NET_HASH_REPORT_IPV6_EX:
		return E1000E_RSS_IPV6EX;
	case VIRTIO_NET_HASH_REPORT_IPV6:
		return E1000E_RSS_IPV6;
	}
	return 0;
}

/* The hash takes the packet checksum's place, in descriptors that have one: without, there is none.
 */
static bool does_rss(const struct e1000e *d)
{
	return (e1000e_get(d, E1000E_MRQC) & E1000E_MRQC_ENABLE) == E1000E_MRQC_RSS &&
	       e1000e_get(d, E1000E_RXCSUM) & E1000E_RXCSUM_PCSD &&
	       e1000e_get(d, E1000E_RFCTL) & E1000E_RFCTL_EXTEN;
}

unsigned e1000e_filter_queue(const struct e1000e *d, const uint8_t *frame, size_t len,
			     unsigned *type, uint32_t *hash)
{
	uint8_t key[VIRTIO_NET_HASH_KEY];
	unsigned entry;

	*type = 0;
	*hash = 0;
	if (!does_rss(d))
		return 0;
	for (unsigned i = 0; i < sizeof(key); i += 4)
		store_le32(key + i, e1000e_get(d, E1000E_RSSRK + i));
	*type = hash_name(virtio_net_hash(frame, MIN(len, (size_t)VIRTIO_NET_HASH_LOOKS),
					  hash_types(e1000e_get(d, E1000E_MRQC)), key, hash));
	if (!*type)
		return 0;
	entry = *hash % RETA_ENTRIES;
	return e1000e_get(d, E1000E_RETA + entry / 4 * 4) >> (8 * (entry % 4) + RETA_QUEUE) & 1;
}
