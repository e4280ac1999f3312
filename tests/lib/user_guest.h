/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's end of a network, in process: a fake card with few buffers in odd pieces, and as much
 * ARP, IPv4, UDP and TCP as tests of back ends need. Test thread.
 */
#ifndef TESTS_USER_GUEST_H
#define TESTS_USER_GUEST_H

#include "net/net.h"

enum { GUEST_ROOMS = 64, GUEST_INBOX = 4096, GUEST_FRAME = NET_PACKET_MAX };

struct guest_frame {
	uint8_t *data;
	size_t len;
};

struct guest {
	struct netdev *nd;
	struct evloop *loop;
	struct net_peer peer;
	uint8_t mac[6], gateway_mac[6];
	uint32_t ip;	/* host order */
	unsigned rooms; /* how many packets it takes before guest_turn() makes room again */
	unsigned hdr;	/* bytes of virtio header */
	bool stalled;	/* no room at all */
	uint8_t *room[GUEST_ROOMS];
	struct iovec iov[GUEST_ROOMS][2];
	struct guest_frame inbox[GUEST_INBOX];
	unsigned in_first, in_count;
	unsigned calls; /* of received() */
	unsigned links; /* changes told */
	unsigned arps;	/* requests answered */
	struct guest_tcp *tcps;
	uint16_t next_port;
	uint8_t last_hdr[12]; /* of the newest frame */
	uint8_t largest_hdr[12];
	uint8_t send_hdr[12]; /* of the next frame it sends */
	bool large;	      /* it sends segments of many MSS, their checksums unfinished */
	size_t largest;
};

struct guest_tcp {
	struct guest *guest;
	uint32_t peer_ip;
	uint16_t port, peer_port;
	uint32_t snd_una, snd_nxt, rcv_nxt;
	uint16_t window;
	bool listening, open, fin_seen, reset;
	uint8_t *in;
	size_t in_len;
	struct guest_tcp *next;
};

void guest_init(struct guest *g, struct evloop *loop, struct netdev *nd);
void guest_destroy(struct guest *g);
void guest_send(struct guest *g, const void *frame, size_t len);
/* Turns the loop until it is quiet for quiet_ms, answers ARP, moves TCP on. */
void guest_turn(struct guest *g, int quiet_ms);
/* The next frame that was no ARP request and no TCP of a connection here; false: none within the
 * time. The frame is the caller's to free. */
bool guest_next(struct guest *g, struct guest_frame *frame, int ms);
bool guest_find_gateway(struct guest *g, uint32_t gateway);

void guest_send_ip(struct guest *g, uint32_t dst, uint8_t proto, const void *data, size_t len);
void guest_send_udp(struct guest *g, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport,
		    const void *data, size_t len);

struct guest_tcp *guest_listen(struct guest *g, uint16_t port);
struct guest_tcp *guest_connect(struct guest *g, uint32_t dst, uint16_t port);
/* Waits until it is acknowledged; how much was. */
size_t guest_write(struct guest_tcp *t, const void *data, size_t len);
/* Waits until there are len bytes. */
bool guest_wait(struct guest_tcp *t, size_t len, int ms);
void guest_close(struct guest_tcp *t);
uint16_t guest_checksum(const void *data, size_t len, uint32_t sum);

#endif
