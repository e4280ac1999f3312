/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large segments and unfinished checksums (struct virtio_net_hdr, virtio 1.2 section 5.1.6) for a
 * TCP/IP stack that knows neither; see user.h. What the guest sends in one segment of 64 KiB,
 * libslirp takes as one once its header and checksum are right. What libslirp sends in many, the
 * guest gets as one. Thread: the loop.
 */
#include "config.h"

#ifdef CONFIG_SLIRP
#include <string.h>

#include "net/user.h"
#include "vmm/core/inet.h"
#include "vmm/core/util.h"

enum {
	HDR_NEEDS_CSUM = 1,
	HDR_DATA_VALID = 2,
	HDR_TCPV4 = 1,
	HDR_ECN = 0x80,

	ETH = 14,
	IP = 20,
	HEADERS = ETH + IP + 20, /* of the segments that are joined: no options */
	JOINED_MAX = ETH + 65535,

	ETHERTYPE_IPV4 = 0x0800,
	TCP = 6,
	TCP_PSH = 8,
	TCP_ACK = 16,
};

static void finish_ip(uint8_t *frame, size_t len)
{
	uint16_t sum;

	store_be16(frame + 16, len - ETH);
	memset(frame + 24, 0, 2);
	sum = inet_checksum(frame + ETH, IP, 0);
	memcpy(frame + 24, &sum, 2);
}

/* From the guest */

bool user_finish_frame(const uint8_t *hdr, uint8_t *frame, size_t len)
{
	size_t start = load_le16(hdr + 6), offset = load_le16(hdr + 8);
	unsigned gso = hdr[1] & ~HDR_ECN;

	if (gso) {
		/* An IP header with options is no sender's of large segments. */
		if (gso != HDR_TCPV4 || !(hdr[0] & HDR_NEEDS_CSUM) || len < HEADERS ||
		    len > JOINED_MAX || load_be16(frame + 12) != ETHERTYPE_IPV4 ||
		    frame[ETH] != 0x45)
			return false;
		finish_ip(frame, len);
	}
	if (!(hdr[0] & HDR_NEEDS_CSUM))
		return true;
	return start >= ETH && inet_finish_checksum(frame, len, start, offset);
}

/* To the guest */

void user_make_header(const struct user *u, uint8_t hdr[12], size_t len, uint16_t segment)
{
	memset(hdr, 0, 12);
	if (!segment) {
		/* libslirp has made the checksum itself. */
		hdr[0] = u->offloads & NET_OFFLOAD_CSUM ? HDR_DATA_VALID : 0;
		return;
	}
	hdr[0] = HDR_NEEDS_CSUM;
	hdr[1] = HDR_TCPV4;
	store_le16(hdr + 2, HEADERS);
	store_le16(hdr + 4, segment);
	store_le16(hdr + 6, ETH + IP);
	store_le16(hdr + 8, 16);
}

/* Bytes of data, 0: not one that may be joined with others. */
static size_t joinable(const uint8_t *frame, size_t len)
{
	if (len <= HEADERS || load_be16(frame + 12) != ETHERTYPE_IPV4 || frame[ETH] != 0x45 ||
	    frame[23] != TCP || load_be16(frame + 20) & 0x3fff || frame[46] != 5 << 4 ||
	    (frame[47] & ~TCP_PSH) != TCP_ACK || load_be16(frame + 16) != len - ETH)
		return 0;
	return len - HEADERS;
}

static bool join(struct user *u, const uint8_t *frame, size_t len)
{
	size_t data = joinable(frame, len);
	uint8_t *held = u->held;

	/* Addresses of Ethernet and IP, ports; what follows what is held. */
	if (!u->held_len || u->held_closed || !data || data > u->held_segment ||
	    u->held_len + data > JOINED_MAX || memcmp(held, frame, 12) ||
	    memcmp(held + 26, frame + 26, 12) ||
	    load_be32(frame + 38) != load_be32(held + 38) + (u->held_len - HEADERS))
		return false;
	memcpy(held + u->held_len, frame + HEADERS, data);
	u->held_len += data;
	u->held_count++;
	memcpy(held + 42, frame + 42, 4); /* acknowledgement, */
	memcpy(held + 48, frame + 48, 2); /* window: the newest */
	held[47] |= frame[47];
	u->held_closed = data < u->held_segment || frame[47] & TCP_PSH;
	return true;
}

bool user_hold(struct user *u, const uint8_t *frame, size_t len)
{
	size_t data;

	if (join(u, frame, len))
		return true;
	user_release(u);
	data = joinable(frame, len);
	if (!data || frame[47] & TCP_PSH)
		return false;
	memcpy(u->held, frame, len);
	u->held_len = len;
	u->held_segment = data;
	u->held_count = 1;
	u->held_closed = false;
	return true;
}

void user_release(struct user *u)
{
	uint8_t *f = u->held, pseudo[12];
	size_t len = u->held_len;
	uint16_t sum;

	if (!len)
		return;
	u->held_len = 0;
	if (u->held_count == 1) {
		user_deliver(u, f, len, 0);
		return;
	}
	finish_ip(f, len);
	memcpy(pseudo, f + 26, 8);
	pseudo[8] = 0;
	pseudo[9] = TCP;
	store_be16(pseudo + 10, len - ETH - IP);
	sum = ~inet_checksum(pseudo, sizeof(pseudo), 0);
	memcpy(f + 50, &sum, 2);
	user_deliver(u, f, len, u->held_segment);
}
#endif
