/* SPDX-License-Identifier: Apache-2.0 */
/* Large segments; see segment.h. Any thread. */
#include "hw/net/segment.h"

#include "vmm/core/inet.h"
#include "vmm/core/util.h"

enum {
	IPV4_HEADER = 20,
	IPV4_LENGTH = 2,
	IPV4_ID = 4,
	IPV4_SUM = 10,
	IPV6_HEADER = 40,
	IPV6_LENGTH = 4,
	TCP_HEADER = 20,
	TCP_SEQ = 4,
	TCP_FLAGS = 13,
	TCP_FIN = 1 << 0,
	TCP_PSH = 1 << 3,
	TCP_CWR = 1 << 7,
	UDP_HEADER = 8,
	UDP_LENGTH = 4,
};

bool net_segments_begin(struct net_segments *s)
{
	size_t ip_header = s->ipv4 ? IPV4_HEADER : IPV6_HEADER;
	size_t l4_header = s->tcp ? TCP_HEADER : UDP_HEADER;

	if (!s->mss || s->headers > NET_SEGMENT_HEADERS || s->headers > s->len)
		return false;
	if (s->l4 < s->ip + ip_header || s->headers < s->l4 + l4_header)
		return false;
	if (s->l4_sum < s->l4 || !range_inside(s->l4_sum, 2, s->headers))
		return false;
	if (s->frame[s->ip] >> 4 != (s->ipv4 ? 4 : 6))
		return false;
	if (s->ipv4) {
		ip_header = (s->frame[s->ip] & 15) * 4;
		if (ip_header < IPV4_HEADER || s->ip + ip_header > s->l4)
			return false;
	}
	s->count = MAX(div_round_up(s->len - s->headers, s->mss), UINT64_C(1));
	memcpy(s->template, s->frame, s->headers);
	return true;
}

/* IP lengths and its checksum, for a frame of len bytes. */
static void finish_ip(const struct net_segments *s, uint8_t *frame, size_t len)
{
	uint8_t *ip = frame + s->ip;
	uint16_t sum;

	if (!s->ipv4) {
		store_be16(ip + IPV6_LENGTH, len - s->ip - IPV6_HEADER);
		return;
	}
	store_be16(ip + IPV4_LENGTH, len - s->ip);
	memset(ip + IPV4_SUM, 0, 2);
	sum = inet_checksum(ip, (s->template[s->ip] & 15) * 4, 0);
	memcpy(ip + IPV4_SUM, &sum, 2);
}

static void add_length(const struct net_segments *s, uint8_t *frame, size_t len)
{
	uint8_t *field = frame + s->l4_sum;
	uint32_t sum = load_be16(field) + (uint32_t)(len - s->l4);

	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	store_be16(field, sum);
}

uint8_t *net_segments_make(struct net_segments *s, size_t i, size_t *len)
{
	size_t offset = i * s->mss, data = MIN(s->len - s->headers - offset, s->mss);
	uint8_t *frame = s->frame + offset, *l4 = frame + s->l4;
	bool last = i + 1 == s->count;

	*len = s->headers + data;
	memcpy(frame, s->template, s->headers);
	if (s->ipv4)
		store_be16(frame + s->ip + IPV4_ID, load_be16(s->template + s->ip + IPV4_ID) + i);
	finish_ip(s, frame, *len);
	if (s->tcp) {
		store_be32(l4 + TCP_SEQ, load_be32(s->template + s->l4 + TCP_SEQ) + offset);
		if (i)
			l4[TCP_FLAGS] &= ~TCP_CWR;
		if (!last)
			l4[TCP_FLAGS] &= ~(TCP_FIN | TCP_PSH);
	} else {
		store_be16(l4 + UDP_LENGTH, *len - s->l4);
	}
	/* Where the checksum is, is the guest's choice: its seed is the template's. */
	memcpy(frame + s->l4_sum, s->template + s->l4_sum, 2);
	add_length(s, frame, *len);
	inet_finish_checksum(frame, *len, s->l4, s->l4_sum - s->l4);
	return frame;
}

bool net_segments_whole(struct net_segments *s)
{
	if (s->len - s->ip - (s->ipv4 ? 0 : IPV6_HEADER) > UINT16_MAX)
		return false;
	finish_ip(s, s->frame, s->len);
	memcpy(s->frame + s->l4_sum, s->template + s->l4_sum, 2);
	add_length(s, s->frame, s->len);
	return true;
}

bool net_segments_has_cwr(const struct net_segments *s)
{
	return s->tcp && s->template[s->l4 + TCP_FLAGS] & TCP_CWR;
}
