/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What virtio-net makes of bytes by pure functions: a packet's header, its hash, its fate in the
 * filter. Input: 8 bytes of features, 20 of a header, 4 of hash types, 40 of key, the rest a frame.
 */
#include <stdlib.h>

#include "hw/virtio/virtio_net_filter.h"
#include "hw/virtio/virtio_net_hash.h"
#include "hw/virtio/virtio_net_hdr.h"
#include "vmm/core/util.h"

enum { HEAD = 8 + 20 + 4 + VIRTIO_NET_HASH_KEY };

/* What virtio_net_hdr_check() promises. */
static void check_header(const struct virtio_net_hdr *h, size_t len)
{
	uint32_t sum = (uint32_t)le16toh(h->csum_start) + le16toh(h->csum_offset);

	if (len < VIRTIO_NET_FRAME_MIN || len > VIRTIO_NET_FRAME_MAX || h->num_buffers ||
	    h->flags > 1 || (h->flags && sum + 2 > len) || (!h->flags && sum) ||
	    le16toh(h->hdr_len) > len || (h->gso_type && (!h->gso_size || !h->flags)) ||
	    (!h->gso_type && h->gso_size))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_net_filter filter = {.mac = {2, 0, 0, 0, 0, 1}, .vlan_filter = true};
	uint8_t head[VIRTIO_NET_FILTER_LOOKS] = {0}, *frame;
	struct virtio_net_hdr hdr;
	uint32_t hash;
	size_t len;

	if (size < HEAD)
		return 0;
	len = size - HEAD;
	memcpy(&hdr, data + 8, sizeof(hdr));
	if (!virtio_net_hdr_check(&hdr, load_le64(data), len))
		check_header(&hdr, len);
	/* A copy of its own, so that a look behind its end is seen. */
	frame = malloc(len + !len);
	memcpy(frame, data + HEAD, len);
	if (virtio_net_hash(frame, len, load_le32(data + 28), data + 32, &hash) > 9)
		abort();
	memcpy(head, frame, MIN(len, sizeof(head)));
	virtio_net_filter_pass(&filter, head);
	free(frame);
	return 0;
}
