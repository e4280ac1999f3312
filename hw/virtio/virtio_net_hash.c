/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Toeplitz hashes of packets: see virtio_net_hash.h. virtio 1.2, section 5.1.6.4.3.
 * Thread: any. Owner: none, pure functions.
 */
#include "hw/virtio/virtio_net_hash.h"

#include "vmm/core/util.h"

enum {
	ETHERTYPE_AT = 12,
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_IPV6 = 0x86dd,
	ETHERTYPE_VLAN = 0x8100,
	ETHERTYPE_SERVICE_VLAN = 0x88a8,
	VLAN_TAG = 4,

	PROTO_HOP_BY_HOP = 0,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_DESTINATION = 60,

	IPV4_HEADER = 20,
	IPV6_HEADER = 40,
	IPV6_ADDR = 16,
	EXT_HEADERS_MAX = 8,
	ROUTING_TYPE_2 = 2,
	OPTION_PAD1 = 0,
	OPTION_HOME_ADDRESS = 0xc9,
};

/* What a packet's headers say. */
struct flow {
	unsigned version;	     /* 4, 6; 0: no IP packet */
	const uint8_t *src, *dst;    /* of the IP header */
	const uint8_t *home, *route; /* what extension headers name instead; or the same */
	bool extended;		     /* there are extension headers */
	uint8_t proto;		     /* TCP, UDP, or 0 */
	const uint8_t *ports;	     /* 4 bytes, of TCP and UDP */
};

uint32_t virtio_net_toeplitz(const uint8_t key[VIRTIO_NET_HASH_KEY], const uint8_t *data,
			     size_t len)
{
	uint64_t window = load_be64(key); /* the key's bits from the current one on */
	uint32_t hash = 0;

	for (size_t i = 0; i < len && i + 4 < VIRTIO_NET_HASH_KEY; i++) {
		for (int bit = 7; bit >= 0; bit--) {
			if (data[i] >> bit & 1)
				hash ^= window >> 32;
			window <<= 1;
		}
		/* Eight bits have left at the top: the next byte comes in below. */
		if (i + 8 < VIRTIO_NET_HASH_KEY)
			window |= key[i + 8];
	}
	return hash;
}

static void look_at_ports(struct flow *f, uint8_t proto, const uint8_t *p, const uint8_t *end)
{
	if ((proto == PROTO_TCP || proto == PROTO_UDP) && end - p >= 4) {
		f->proto = proto;
		f->ports = p;
	}
}

static void look_at_ipv4(struct flow *f, const uint8_t *p, const uint8_t *end)
{
	size_t header = (p[0] & 15) * 4;

	if (p[0] >> 4 != 4 || header < IPV4_HEADER || (size_t)(end - p) < header)
		return;
	f->version = 4;
	f->src = p + 12;
	f->dst = p + 16;
	/* Only the first fragment has ports, and the others must go where it goes. */
	if (!(load_be16(p + 6) & 0x3fff))
		look_at_ports(f, p[9], p + header, end);
}

/* The mobile node's own address, in a destination options header of len bytes. */
static void look_at_options(struct flow *f, const uint8_t *p, size_t len)
{
	size_t at = 2;

	while (at < len) {
		size_t n;

		if (p[at] == OPTION_PAD1) {
			at++;
			continue;
		}
		if (at + 2 > len)
			return;
		n = p[at + 1];
		if (at + 2 + n > len)
			return;
		if (p[at] == OPTION_HOME_ADDRESS && n == IPV6_ADDR)
			f->home = p + at + 2;
		at += 2 + n;
	}
}

static void look_at_ipv6(struct flow *f, const uint8_t *p, const uint8_t *end)
{
	uint8_t next = p[6];

	if (p[0] >> 4 != 6)
		return;
	f->version = 6;
	f->src = f->home = p + 8;
	f->dst = f->route = p + 24;
	p += IPV6_HEADER;
	for (int i = 0; i < EXT_HEADERS_MAX; i++) {
		size_t len;

		if (next != PROTO_HOP_BY_HOP && next != PROTO_ROUTING && next != PROTO_FRAGMENT &&
		    next != PROTO_DESTINATION) {
			look_at_ports(f, next, p, end);
			return;
		}
		f->extended = true;
		if (end - p < 8)
			return;
		len = next == PROTO_FRAGMENT ? 8 : 8 * ((size_t)p[1] + 1);
		if ((size_t)(end - p) < len || next == PROTO_FRAGMENT)
			return;
		if (next == PROTO_DESTINATION)
			look_at_options(f, p, len);
		else if (next == PROTO_ROUTING && p[2] == ROUTING_TYPE_2 && len >= 24)
			f->route = p + 8;
		next = p[0];
		p += len;
	}
}

static void look(struct flow *f, const uint8_t *frame, size_t len)
{
	const uint8_t *end = frame + len;
	size_t at = ETHERTYPE_AT;
	uint16_t type;

	*f = (struct flow){0};
	for (int tags = 0;; tags++) {
		if (at + 2 > len)
			return;
		type = load_be16(frame + at);
		if ((type != ETHERTYPE_VLAN && type != ETHERTYPE_SERVICE_VLAN) || tags == 2)
			break;
		at += VLAN_TAG;
	}
	at += 2;
	if (type == ETHERTYPE_IPV4 && len - at >= IPV4_HEADER)
		look_at_ipv4(f, frame + at, end);
	else if (type == ETHERTYPE_IPV6 && len - at >= IPV6_HEADER)
		look_at_ipv6(f, frame + at, end);
}

/* Of the kinds that fit the packet the first that was asked for; the order is the
 * specification's. */
static uint16_t choose(const struct flow *f, uint32_t types)
{
	bool tcp = f->proto == PROTO_TCP, udp = f->proto == PROTO_UDP;
	const struct {
		bool fits;
		uint32_t type;
		uint16_t report;
	} kinds[] = {
		{f->version == 4 && tcp, VIRTIO_NET_HASH_TYPE_TCPV4, VIRTIO_NET_HASH_REPORT_TCPV4},
		{f->version == 4 && udp, VIRTIO_NET_HASH_TYPE_UDPV4, VIRTIO_NET_HASH_REPORT_UDPV4},
		{f->version == 4, VIRTIO_NET_HASH_TYPE_IPV4, VIRTIO_NET_HASH_REPORT_IPV4},
		{f->extended && tcp, VIRTIO_NET_HASH_TYPE_TCP_EX, VIRTIO_NET_HASH_REPORT_TCPV6_EX},
		{f->extended && udp, VIRTIO_NET_HASH_TYPE_UDP_EX, VIRTIO_NET_HASH_REPORT_UDPV6_EX},
		{f->extended, VIRTIO_NET_HASH_TYPE_IP_EX, VIRTIO_NET_HASH_REPORT_IPV6_EX},
		{f->version == 6 && tcp, VIRTIO_NET_HASH_TYPE_TCPV6, VIRTIO_NET_HASH_REPORT_TCPV6},
		{f->version == 6 && udp, VIRTIO_NET_HASH_TYPE_UDPV6, VIRTIO_NET_HASH_REPORT_UDPV6},
		{f->version == 6, VIRTIO_NET_HASH_TYPE_IPV6, VIRTIO_NET_HASH_REPORT_IPV6},
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].fits && (types & kinds[i].type))
			return kinds[i].report;
	return VIRTIO_NET_HASH_REPORT_NONE;
}

uint16_t virtio_net_hash(const uint8_t *frame, size_t len, uint32_t types,
			 const uint8_t key[VIRTIO_NET_HASH_KEY], uint32_t *hash)
{
	uint8_t data[2 * IPV6_ADDR + 4];
	struct flow f;
	uint16_t report;
	size_t addr, n;
	bool mobile;

	*hash = 0;
	look(&f, frame, len);
	report = choose(&f, types);
	if (report == VIRTIO_NET_HASH_REPORT_NONE)
		return report;
	mobile = report >= VIRTIO_NET_HASH_REPORT_IPV6_EX;
	addr = f.version == 4 ? 4 : IPV6_ADDR;
	memcpy(data, mobile ? f.home : f.src, addr);
	memcpy(data + addr, mobile ? f.route : f.dst, addr);
	n = 2 * addr;
	if (report != VIRTIO_NET_HASH_REPORT_IPV4 && report != VIRTIO_NET_HASH_REPORT_IPV6 &&
	    report != VIRTIO_NET_HASH_REPORT_IPV6_EX) {
		memcpy(data + n, f.ports, 4);
		n += 4;
	}
	*hash = virtio_net_toeplitz(key, data, n);
	return report;
}
