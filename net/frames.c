/* SPDX-License-Identifier: Apache-2.0 */
/* Packets in a byte stream; see frames.h. */
#include "net/frames.h"

#include "vmm/core/util.h"

ssize_t net_frames_cut(const uint8_t *bytes, size_t len, struct iovec *packets, unsigned max,
		       size_t *used)
{
	unsigned n = 0;
	size_t at = 0;

	while (n < max && len - at >= NET_FRAMES_HEADER) {
		size_t size = load_be32(bytes + at);

		if (size > NET_FRAMES_MAX)
			return -1;
		if (size > len - at - NET_FRAMES_HEADER)
			break;
		at += NET_FRAMES_HEADER;
		if (size)
			packets[n++] = (struct iovec){(void *)(bytes + at), size};
		at += size;
	}
	*used = at;
	return n;
}
