/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large segments (TCP, and trains of UDP datagrams) cut into frames, for cards whose drivers leave
 * that to them and whose network does not take them whole. RFC 9293, 768, 791, 8200.
 *
 * The frames are made one after another in the large one's own bytes: the header of the next is
 * laid over the end of the one before, which has been sent. Pure functions, any thread. What the
 * large frame says comes from a guest: it is checked by net_segments_begin().
 */
#ifndef HW_NET_SEGMENT_H
#define HW_NET_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NET_SEGMENT_HEADERS = 260 }; /* bytes, at most */

struct net_segments {
	/* Filled in by the caller. */
	uint8_t *frame;
	size_t len;
	size_t ip, l4, l4_sum, headers; /* offsets: of headers, of the checksum, of the data */
	size_t mss;			/* bytes of data in each */
	bool ipv4, tcp;

	/* The rest is net_segments_begin()'s. */
	size_t count;
	uint8_t template[NET_SEGMENT_HEADERS];
};

/* False if it cannot be: offsets that do not fit the headers, no room for data. */
bool net_segments_begin(struct net_segments *s);
/* The i-th of s->count, in order; one may be made again if it is the one that was made last. The
 * checksum field in the large frame holds the pseudo header's sum without a length. */
uint8_t *net_segments_make(struct net_segments *s, size_t i, size_t *len);
/* The large one as virtio 1.2, section 5.1.6.2 wants it: lengths, the IP header's checksum, the
 * pseudo header's sum with its length. False if its length does not fit into its header. */
bool net_segments_whole(struct net_segments *s);
/* Whether the sender has told that it slowed down (CWR), which only the first frame may say. */
bool net_segments_has_cwr(const struct net_segments *s);

#endif
