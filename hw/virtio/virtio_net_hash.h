/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What received packets hash to, for spreading them over queues and for reports: virtio 1.2,
 * section 5.1.6.4.3 (Toeplitz hashes over addresses and ports). Pure functions, any thread.
 */
#ifndef HW_VIRTIO_VIRTIO_NET_HASH_H
#define HW_VIRTIO_VIRTIO_NET_HASH_H

#include <stddef.h>
#include <stdint.h>

enum {
	/* Bits of hash_types. */
	VIRTIO_NET_HASH_TYPE_IPV4 = 1 << 0,
	VIRTIO_NET_HASH_TYPE_TCPV4 = 1 << 1,
	VIRTIO_NET_HASH_TYPE_UDPV4 = 1 << 2,
	VIRTIO_NET_HASH_TYPE_IPV6 = 1 << 3,
	VIRTIO_NET_HASH_TYPE_TCPV6 = 1 << 4,
	VIRTIO_NET_HASH_TYPE_UDPV6 = 1 << 5,
	VIRTIO_NET_HASH_TYPE_IP_EX = 1 << 6,
	VIRTIO_NET_HASH_TYPE_TCP_EX = 1 << 7,
	VIRTIO_NET_HASH_TYPE_UDP_EX = 1 << 8,
	VIRTIO_NET_HASH_TYPES = (1 << 9) - 1,

	/* Values of hash_report. */
	VIRTIO_NET_HASH_REPORT_NONE = 0,
	VIRTIO_NET_HASH_REPORT_IPV4 = 1,
	VIRTIO_NET_HASH_REPORT_TCPV4 = 2,
	VIRTIO_NET_HASH_REPORT_UDPV4 = 3,
	VIRTIO_NET_HASH_REPORT_IPV6 = 4,
	VIRTIO_NET_HASH_REPORT_TCPV6 = 5,
	VIRTIO_NET_HASH_REPORT_UDPV6 = 6,
	VIRTIO_NET_HASH_REPORT_IPV6_EX = 7,
	VIRTIO_NET_HASH_REPORT_TCPV6_EX = 8,
	VIRTIO_NET_HASH_REPORT_UDPV6_EX = 9,

	VIRTIO_NET_HASH_KEY = 40, /* bytes, as many as the longest input needs */
	VIRTIO_NET_HASH_LOOKS =
		256, /* bytes of a frame that decide: ports behind them are not seen */
};

/* At most 36 bytes of data. */
uint32_t virtio_net_toeplitz(const uint8_t key[VIRTIO_NET_HASH_KEY], const uint8_t *data,
			     size_t len);
/* Of the frame's first len bytes: what was hashed (VIRTIO_NET_HASH_REPORT_*), and the hash. */
uint16_t virtio_net_hash(const uint8_t *frame, size_t len, uint32_t types,
			 const uint8_t key[VIRTIO_NET_HASH_KEY], uint32_t *hash);

#endif
