/* SPDX-License-Identifier: Apache-2.0 */
/* Toeplitz hashes and receive filters of virtio-net. The key, packets and hashes are those by which
 * RSS implementations are verified the world over. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hw/virtio/virtio_net_filter.h"
#include "hw/virtio/virtio_net_hash.h"
#include "vmm/core/util.h"

static const uint8_t key[40] = {
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
	0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
	0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

enum { TCP = 6, UDP = 17, ANY = VIRTIO_NET_HASH_TYPES };

struct packet {
	uint8_t data[256];
	size_t len, ip; /* where the IP header begins */
};

static void put(struct packet *p, const void *data, size_t len)
{
	if (len)
		memcpy(p->data + p->len, data, len);
	p->len += len;
}

static void ethernet(struct packet *p, uint16_t type, unsigned tags)
{
	uint8_t two[2];

	memset(p, 0, sizeof(*p));
	p->len = 12;
	for (unsigned i = 0; i < tags; i++) {
		store_be16(two, i + 1 < tags ? 0x88a8 : 0x8100);
		put(p, two, 2);
		put(p, "\0\5", 2);
	}
	store_be16(two, type);
	put(p, two, 2);
	p->ip = p->len;
}

static void ports(struct packet *p, uint16_t source, uint16_t dest)
{
	uint8_t four[4];

	store_be16(four, source);
	store_be16(four + 2, dest);
	put(p, four, 4);
}

static void ipv4(struct packet *p, const char *src, uint16_t sport, const char *dst, uint16_t dport,
		 uint8_t proto, unsigned tags)
{
	uint8_t header[20] = {0x45, [9] = proto};

	ethernet(p, 0x0800, tags);
	assert_int_equal(inet_pton(AF_INET, src, header + 12), 1);
	assert_int_equal(inet_pton(AF_INET, dst, header + 16), 1);
	put(p, header, 20);
	ports(p, sport, dport);
}

/* ext: extension headers, already linked to proto; first is the number of the first. */
static void ipv6(struct packet *p, const char *src, uint16_t sport, const char *dst, uint16_t dport,
		 uint8_t first, const void *ext, size_t ext_len)
{
	uint8_t header[40] = {0x60, [6] = first};

	ethernet(p, 0x86dd, 0);
	assert_int_equal(inet_pton(AF_INET6, src, header + 8), 1);
	assert_int_equal(inet_pton(AF_INET6, dst, header + 24), 1);
	put(p, header, 40);
	put(p, ext, ext_len);
	ports(p, sport, dport);
}

static void check(const struct packet *p, uint32_t types, uint16_t report, uint32_t hash)
{
	/* An exact copy, so that a look beyond the end is seen. */
	uint8_t *exact = malloc(p->len);
	uint32_t got;

	memcpy(exact, p->data, p->len);
	assert_int_equal(virtio_net_hash(exact, p->len, types, key, &got), report);
	assert_int_equal(got, hash);
	free(exact);
}

static void ipv4_vectors(void **state)
{
	static const struct {
		const char *dst;
		uint16_t dport;
		const char *src;
		uint16_t sport;
		uint32_t ip, tcp;
	} v[] = {
		{"161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e8fc2, 0x51ccc178},
		{"65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718262a, 0xc626b0ea},
		{"12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0a5de, 0x5c2b394a},
		{"209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xafc7327f},
		{"202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d1809c5, 0x10e828a2},
	};
	struct packet p;

	for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
		for (unsigned tags = 0; tags < 3; tags++) {
			ipv4(&p, v[i].src, v[i].sport, v[i].dst, v[i].dport, TCP, tags);
			check(&p, ANY, VIRTIO_NET_HASH_REPORT_TCPV4, v[i].tcp);
			check(&p, VIRTIO_NET_HASH_TYPE_IPV4, VIRTIO_NET_HASH_REPORT_IPV4, v[i].ip);
			check(&p, VIRTIO_NET_HASH_TYPE_UDPV4, VIRTIO_NET_HASH_REPORT_NONE, 0);
			check(&p, 0, VIRTIO_NET_HASH_REPORT_NONE, 0);
		}
		ipv4(&p, v[i].src, v[i].sport, v[i].dst, v[i].dport, UDP, 0);
		check(&p, ANY, VIRTIO_NET_HASH_REPORT_UDPV4, v[i].tcp);
		ipv4(&p, v[i].src, v[i].sport, v[i].dst, v[i].dport, 1, 0);
		check(&p, ANY, VIRTIO_NET_HASH_REPORT_IPV4, v[i].ip);
		/* Of fragments none has ports. */
		ipv4(&p, v[i].src, v[i].sport, v[i].dst, v[i].dport, TCP, 0);
		p.data[p.ip + 6] = 0x20;
		check(&p, ANY, VIRTIO_NET_HASH_REPORT_IPV4, v[i].ip);
		p.data[p.ip + 6] = 0;
		p.data[p.ip + 7] = 1;
		check(&p, ANY, VIRTIO_NET_HASH_REPORT_IPV4, v[i].ip);
	}
}

static const struct {
	const char *dst;
	uint16_t dport;
	const char *src;
	uint16_t sport;
	uint32_t ip, tcp;
} v6[] = {
	{"3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc18cd5, 0x40207d3d},
	{"ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c461c, 0xdde51bbf},
	{"fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251,
	 0x4b61e985, 0x02d1feef},
};

static void ipv6_vectors(void **state)
{
	struct packet p;

	for (unsigned i = 0; i < ARRAY_SIZE(v6); i++) {
		ipv6(&p, v6[i].src, v6[i].sport, v6[i].dst, v6[i].dport, TCP, NULL, 0);
		check(&p, ANY, VIRTIO_NET_HASH_REPORT_TCPV6, v6[i].tcp);
		check(&p, VIRTIO_NET_HASH_TYPE_IPV6, VIRTIO_NET_HASH_REPORT_IPV6, v6[i].ip);
		check(&p, VIRTIO_NET_HASH_TYPE_TCP_EX, VIRTIO_NET_HASH_REPORT_NONE, 0);
		ipv6(&p, v6[i].src, v6[i].sport, v6[i].dst, v6[i].dport, UDP, NULL, 0);
		check(&p, ANY, VIRTIO_NET_HASH_REPORT_UDPV6, v6[i].tcp);
		ipv6(&p, v6[i].src, v6[i].sport, v6[i].dst, v6[i].dport, 58, NULL, 0);
		check(&p, ANY, VIRTIO_NET_HASH_REPORT_IPV6, v6[i].ip);
	}
}

/* What the home address option and the type 2 routing header name stands for source and
 * destination. */
static void ipv6_extension_headers(void **state)
{
	uint8_t ext[8 + 24 + 24] = {43};
	struct packet p;

	for (unsigned i = 0; i < ARRAY_SIZE(v6); i++) {
		ext[8] = 60; /* routing, 24 bytes, type 2 */
		ext[9] = 2;
		ext[10] = 2;
		inet_pton(AF_INET6, v6[i].dst, ext + 16);
		ext[32] = TCP; /* destination options: padding, home address */
		ext[33] = 2;
		ext[34] = 1;
		ext[35] = 2;
		ext[38] = 0xc9;
		ext[39] = 16;
		inet_pton(AF_INET6, v6[i].src, ext + 40);
		ipv6(&p, "::1", v6[i].sport, "::2", v6[i].dport, 0, ext, sizeof(ext));
		check(&p, ANY, VIRTIO_NET_HASH_REPORT_TCPV6_EX, v6[i].tcp);
		check(&p, ANY & ~VIRTIO_NET_HASH_TYPE_TCP_EX, VIRTIO_NET_HASH_REPORT_IPV6_EX,
		      v6[i].ip);
		/* Without those kinds they are skipped. */
		ipv6(&p, v6[i].src, v6[i].sport, v6[i].dst, v6[i].dport, 0, ext, sizeof(ext));
		check(&p, VIRTIO_NET_HASH_TYPE_TCPV6, VIRTIO_NET_HASH_REPORT_TCPV6, v6[i].tcp);
		/* A fragment. */
		ext[0] = 44;
		ipv6(&p, v6[i].src, v6[i].sport, v6[i].dst, v6[i].dport, 0, ext, 16);
		check(&p, VIRTIO_NET_HASH_TYPE_TCPV6 | VIRTIO_NET_HASH_TYPE_IPV6,
		      VIRTIO_NET_HASH_REPORT_IPV6, v6[i].ip);
		ext[0] = 43;
	}
}

static void nothing_behind_the_end_is_looked_at(void **state)
{
	uint8_t ext[24] = {60, 2, 1, 20};
	struct packet p;
	uint32_t hash;

	for (int kind = 0; kind < 4; kind++) {
		if (kind < 2)
			ipv4(&p, "1.2.3.4", 5, "6.7.8.9", 10, TCP, kind * 2);
		else
			ipv6(&p, "::1", 5, "::2", 6, kind == 2 ? TCP : 0, ext, 24);
		for (size_t len = 0; len <= p.len; len++) {
			uint8_t *exact = malloc(len + 1);

			memcpy(exact, p.data, len);
			virtio_net_hash(exact, len, ANY, key, &hash);
			free(exact);
		}
	}
	/* Header lengths that cannot be. */
	ipv4(&p, "1.2.3.4", 5, "6.7.8.9", 10, TCP, 0);
	for (unsigned first = 0; first < 256; first++) {
		p.data[p.ip] = first;
		virtio_net_hash(p.data, p.len, ANY, key, &hash);
	}
}

/* ---- filters ---- */

static bool passes(const struct virtio_net_filter *f, const char *dst, int vlan)
{
	uint8_t head[VIRTIO_NET_FILTER_LOOKS] = {0};

	memcpy(head, dst, 6);
	store_be16(head + 12, vlan < 0 ? 0x800 : 0x8100);
	store_be16(head + 14, vlan | 0xe000);
	return virtio_net_filter_pass(f, head);
}

#define OWN	     "\2\0\0\0\0\1"
#define OTHER	     "\2\0\0\0\0\2"
#define LISTED	     "\2\0\0\0\0\3"
#define GROUP	     "\1\0\x5e\0\0\1"
#define LISTED_GROUP "\1\0\x5e\0\0\2"
#define ALL_OF_THEM  "\xff\xff\xff\xff\xff\xff"

static void every_mode_of_the_filter(void **state)
{
	struct virtio_net_filter f = {.mac = OWN};

	virtio_net_filter_reset(&f);
	assert_memory_equal(f.mac, OWN, 6);
	assert_true(passes(&f, OTHER, -1) && passes(&f, GROUP, 5));
	f.promisc = false;
	f.uni_count = f.multi_count = 1;
	memcpy(f.uni[0], LISTED, 6);
	memcpy(f.multi[0], LISTED_GROUP, 6);
	assert_true(passes(&f, OWN, -1) && passes(&f, LISTED, -1));
	assert_false(passes(&f, OTHER, -1));
	assert_true(passes(&f, ALL_OF_THEM, -1) && passes(&f, LISTED_GROUP, -1));
	assert_false(passes(&f, GROUP, -1));
	f.allmulti = true;
	assert_true(passes(&f, GROUP, -1));
	f.allmulti = false;
	f.multi_overflow = true;
	assert_true(passes(&f, GROUP, -1));
	f.nomulti = true;
	assert_false(passes(&f, GROUP, -1) || passes(&f, LISTED_GROUP, -1));
	assert_true(passes(&f, ALL_OF_THEM, -1));
	f.nobcast = true;
	assert_false(passes(&f, ALL_OF_THEM, -1));
	f.alluni = true;
	assert_true(passes(&f, OTHER, -1));
	f.alluni = false;
	f.uni_overflow = true;
	assert_true(passes(&f, OTHER, -1));
	f.nouni = true;
	assert_false(passes(&f, OWN, -1));
	f.nouni = false;
	f.vlan_filter = true;
	f.vlans[100 / 8] = 1 << 100 % 8;
	assert_true(passes(&f, OWN, 100) && passes(&f, OWN, -1));
	assert_false(passes(&f, OWN, 101) || passes(&f, OWN, 0));
	f.promisc = true;
	assert_true(passes(&f, OWN, 101));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv4_vectors),
		cmocka_unit_test(ipv6_vectors),
		cmocka_unit_test(ipv6_extension_headers),
		cmocka_unit_test(nothing_behind_the_end_is_looked_at),
		cmocka_unit_test(every_mode_of_the_filter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
