/* SPDX-License-Identifier: Apache-2.0 */
/* What is in a frame; see frame.h. Any thread. */
#include "hw/net/frame.h"

#include "vmm/core/inet.h"
#include "vmm/core/util.h"

enum {
	TYPE_IPV4 = 0x0800,
	TYPE_IPV6 = 0x86dd,
	IPV4_HEADER = 20,
	IPV6_HEADER = 40,
	PROTO_HOP_BY_HOP = 0,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_DESTINATION = 60,
	EXT_HEADERS_MAX = 8,
	TCP_HEADER = 20,
	TCP_OFFSET = 12,
	UDP_HEADER = 8,
	UDP_SUM = 6,
};

/* end: where IP says that its packet ends; it is inside the frame. */
static void look_at_l4(struct net_frame *f, const uint8_t *frame, uint8_t proto, size_t at,
		       size_t end)
{
	size_t header;

	if (at > end)
		return;
	f->l4_at = at;
	f->l4_len = end - at;
	if (proto == PROTO_TCP && f->l4_len >= TCP_HEADER) {
		header = (frame[at + TCP_OFFSET] >> 4) * 4;
		if (header < TCP_HEADER || header > f->l4_len)
			return;
		f->l4 = NET_FRAME_TCP;
		f->data = at + header;
	} else if (proto == PROTO_UDP && f->l4_len >= UDP_HEADER) {
		f->l4 = NET_FRAME_UDP;
		f->data = at + UDP_HEADER;
	}
}

static void look_at_ipv4(struct net_frame *f, const uint8_t *frame, size_t len)
{
	const uint8_t *ip = frame + f->ip;
	size_t header, total;

	if (len - f->ip < IPV4_HEADER || ip[0] >> 4 != 4)
		return;
	header = (ip[0] & 15) * 4;
	total = load_be16(ip + 2);
	if (header < IPV4_HEADER || total < header || total > len - f->ip)
		return;
	f->ip_version = 4;
	f->ip_id = load_be16(ip + 4);
	f->fragment = load_be16(ip + 6) & 0x3fff;
	if (!f->fragment)
		look_at_l4(f, frame, ip[9], f->ip + header, f->ip + total);
}

static void look_at_ipv6(struct net_frame *f, const uint8_t *frame, size_t len)
{
	const uint8_t *ip = frame + f->ip;
	size_t at = f->ip + IPV6_HEADER, end;
	uint8_t next;

	if (len - f->ip < IPV6_HEADER || ip[0] >> 4 != 6)
		return;
	end = at + load_be16(ip + 4);
	if (end > len)
		return;
	f->ip_version = 6;
	next = ip[6];
	for (int i = 0; i < EXT_HEADERS_MAX; i++) {
		if (next == PROTO_FRAGMENT) {
			f->fragment = true;
			return;
		}
		if (next != PROTO_HOP_BY_HOP && next != PROTO_ROUTING &&
		    next != PROTO_DESTINATION) {
			look_at_l4(f, frame, next, at, end);
			return;
		}
		if (end - at < 8 || end - at < 8 * ((size_t)frame[at + 1] + 1))
			return;
		next = frame[at];
		at += 8 * ((size_t)frame[at + 1] + 1);
	}
}

void net_frame_look(struct net_frame *f, const uint8_t *frame, size_t len, uint16_t vlan_type)
{
	uint16_t type = load_be16(frame + NET_FRAME_TYPE_AT);

	*f = (struct net_frame){.ip = NET_FRAME_HEADER};
	if (type == vlan_type && len >= NET_FRAME_HEADER + NET_FRAME_TAG) {
		f->tagged = true;
		f->tag = load_be16(frame + NET_FRAME_HEADER);
		f->ip += NET_FRAME_TAG;
		type = load_be16(frame + f->ip - 2);
	}
	if (type == TYPE_IPV4)
		look_at_ipv4(f, frame, len);
	else if (type == TYPE_IPV6)
		look_at_ipv6(f, frame, len);
}

bool net_frame_ip_sum_is_right(const struct net_frame *f, const uint8_t *frame)
{
	return inet_checksum(frame + f->ip, (frame[f->ip] & 15) * 4, 0) == 0;
}

bool net_frame_udp_has_sum(const struct net_frame *f, const uint8_t *frame)
{
	return load_be16(frame + f->l4_at + UDP_SUM) != 0;
}

bool net_frame_l4_sum_is_right(const struct net_frame *f, const uint8_t *frame)
{
	uint8_t pseudo[40] = {0};
	size_t addrs = f->ip_version == 4 ? 8 : 32;
	uint16_t sum;

	memcpy(pseudo, frame + f->ip + (f->ip_version == 4 ? 12 : 8), addrs);
	store_be32(pseudo + addrs, f->l4_len);
	pseudo[addrs + 7] = f->l4 == NET_FRAME_TCP ? PROTO_TCP : PROTO_UDP;
	sum = ~inet_checksum(pseudo, sizeof(pseudo), 0);
	return inet_checksum(frame + f->l4_at, f->l4_len, sum) == 0;
}

uint32_t net_frame_crc(const uint8_t *frame, size_t len)
{
	/* Of each half byte; the polynomial is 0xedb88320, the lowest bit comes first. */
	static const uint32_t table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
		0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
		0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < len; i++) {
		crc = crc >> 4 ^ table[(crc ^ frame[i]) & 15];
		crc = crc >> 4 ^ table[(crc ^ frame[i] >> 4) & 15];
	}
	return ~crc;
}
