/* SPDX-License-Identifier: Apache-2.0 */
/* A guest's end of a network; see user_guest.h. Test thread. */
#include "tests/lib/user_guest.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

enum { ETH = 14, IP = 20, TCP = 20, MSS = 1460 };
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static unsigned buffers(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n)
{
	struct guest *g = opaque;
	unsigned count = g->stalled ? 0 : MIN(n, g->rooms);

	for (unsigned i = 0; i < count; i++) {
		/* The first piece is odd and small, so that packets lie in both. */
		g->iov[i][0] = (struct iovec){g->room[i], 61};
		g->iov[i][1] = (struct iovec){g->room[i] + 61, GUEST_FRAME - 61};
		pkts[i] = (struct net_packet){g->iov[i], 2, GUEST_FRAME};
	}
	return count;
}

static void received(void *opaque, unsigned queue, const struct net_packet *pkts, unsigned n)
{
	struct guest *g = opaque;

	g->calls++;
	for (unsigned i = 0; i < n; i++) {
		struct guest_frame *f = &g->inbox[(g->in_first + g->in_count) % GUEST_INBOX];
		size_t len = pkts[i].len;

		if (len < g->hdr || !len || g->in_count == GUEST_INBOX)
			continue;
		memcpy(g->last_hdr, g->room[i], g->hdr);
		f->len = len - g->hdr;
		f->data = xmalloc(f->len);
		memcpy(f->data, g->room[i] + g->hdr, f->len);
		if (f->len > g->largest) {
			g->largest = f->len;
			memcpy(g->largest_hdr, g->last_hdr, sizeof(g->last_hdr));
		}
		g->in_count++;
	}
	g->rooms -= n;
}

static void link_changed(void *opaque, bool up)
{
	struct guest *g = opaque;

	g->links++;
}

void guest_init(struct guest *g, struct evloop *loop, struct netdev *nd)
{
	*g = (struct guest){
		.nd = nd,
		.loop = loop,
		.peer = {.buffers = buffers,
			 .received = received,
			 .link_changed = link_changed,
			 .name = "card0",
			 .opaque = g},
		.mac = {0x52, 0x54, 0, 0x12, 0x34, 0x56},
		.ip = 0x0a00020f,
		.rooms = GUEST_ROOMS,
		.next_port = 40000,
	};
	for (unsigned i = 0; i < GUEST_ROOMS; i++)
		g->room[i] = xmalloc(GUEST_FRAME);
}

void guest_destroy(struct guest *g)
{
	while (g->in_count--)
		free(g->inbox[g->in_first++ % GUEST_INBOX].data);
	while (g->tcps) {
		struct guest_tcp *t = g->tcps;

		g->tcps = t->next;
		free(t->in);
		free(t);
	}
	for (unsigned i = 0; i < GUEST_ROOMS; i++)
		free(g->room[i]);
}

void guest_send(struct guest *g, const void *frame, size_t len)
{
	uint8_t *hdr = g->send_hdr;
	size_t head = MIN(len, 20);
	struct iovec iov[3] = {
		{hdr, g->hdr}, {(void *)frame, head}, {(uint8_t *)frame + head, len - head}};
	struct net_packet pkt = {g->hdr ? iov : iov + 1, g->hdr ? 3 : 2, len + g->hdr};

	net_send(g->nd, 0, &pkt, 1);
	memset(g->send_hdr, 0, sizeof(g->send_hdr));
}

uint16_t guest_checksum(const void *data, size_t len, uint32_t sum)
{
	const uint8_t *p = data;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += load_be16(p + i);
	if (len & 1)
		sum += p[len - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void send_ip_from(struct guest *g, uint32_t src, uint32_t dst, uint8_t proto,
			 const void *data, size_t len)
{
	uint8_t *f = xcalloc(1, ETH + IP + len);

	memcpy(f, dst == UINT32_MAX ? (const uint8_t *)"\377\377\377\377\377\377" : g->gateway_mac,
	       6);
	memcpy(f + 6, g->mac, 6);
	store_be16(f + 12, 0x0800);
	f[14] = 0x45;
	store_be16(f + 16, IP + len);
	f[22] = 64;
	f[23] = proto;
	store_be32(f + 26, src);
	store_be32(f + 30, dst);
	store_be16(f + 24, guest_checksum(f + ETH, IP, 0));
	memcpy(f + ETH + IP, data, len);
	guest_send(g, f, ETH + IP + len);
	free(f);
}

void guest_send_ip(struct guest *g, uint32_t dst, uint8_t proto, const void *data, size_t len)
{
	send_ip_from(g, g->ip, dst, proto, data, len);
}

static uint32_t pseudo(uint32_t src, uint32_t dst, uint8_t proto, size_t len)
{
	return (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff) + proto + len;
}

void guest_send_udp(struct guest *g, uint32_t src, uint32_t dst, uint16_t sport, uint16_t dport,
		    const void *data, size_t len)
{
	uint8_t *u = xcalloc(1, 8 + len);

	store_be16(u, sport);
	store_be16(u + 2, dport);
	store_be16(u + 4, 8 + len);
	memcpy(u + 8, data, len);
	store_be16(u + 6, guest_checksum(u, 8 + len, pseudo(src, dst, 17, 8 + len)));
	send_ip_from(g, src, dst, 17, u, 8 + len);
	free(u);
}

static void send_tcp(struct guest_tcp *t, uint8_t flags, const void *data, size_t len)
{
	size_t options = flags & SYN ? 4 : 0, total = TCP + options + len;
	uint8_t *s = xcalloc(1, total);

	store_be16(s, t->port);
	store_be16(s + 2, t->peer_port);
	store_be32(s + 4, t->snd_nxt);
	store_be32(s + 8, flags & ACK ? t->rcv_nxt : 0);
	s[12] = (TCP + options) / 4 << 4;
	s[13] = flags;
	store_be16(s + 14, 65535);
	if (options) {
		s[20] = 2;
		s[21] = 4;
		store_be16(s + 22, MSS);
	}
	if (len)
		memcpy(s + TCP + options, data, len);
	if (t->guest->large) {
		uint8_t *h = t->guest->send_hdr;

		store_be16(s + 16,
			   ~guest_checksum(NULL, 0, pseudo(t->guest->ip, t->peer_ip, 6, total)));
		h[0] = 1;
		h[1] = len > MSS;
		store_le16(h + 2, ETH + IP + TCP);
		store_le16(h + 4, len > MSS ? MSS : 0);
		store_le16(h + 6, ETH + IP);
		store_le16(h + 8, 16);
	} else {
		store_be16(s + 16,
			   guest_checksum(s, total, pseudo(t->guest->ip, t->peer_ip, 6, total)));
	}
	guest_send_ip(t->guest, t->peer_ip, 6, s, total);
	free(s);
	t->snd_nxt += len + !!(flags & (SYN | FIN));
}

static bool tcp_receive(struct guest *g, const uint8_t *f, size_t len)
{
	const uint8_t *s = f + ETH + IP;
	size_t head, data;
	struct guest_tcp *t;
	uint32_t seq, ack;

	for (t = g->tcps; t; t = t->next)
		if (t->port == load_be16(s + 2) && (t->listening || t->peer_port == load_be16(s)))
			break;
	if (!t)
		return false;
	head = (s[12] >> 4) * 4;
	data = load_be16(f + 16) - IP - head;
	seq = load_be32(s + 4);
	ack = load_be32(s + 8);
	if (s[13] & RST) {
		t->reset = true;
		return true;
	}
	if (s[13] & SYN) {
		t->peer_ip = load_be32(f + 26);
		t->peer_port = load_be16(s);
		t->rcv_nxt = seq + 1;
		if (t->listening) {
			t->listening = false;
			send_tcp(t, SYN | ACK, NULL, 0);
			return true;
		}
	}
	if (s[13] & ACK) {
		t->open = true;
		if ((int32_t)(ack - t->snd_una) > 0)
			t->snd_una = ack;
		t->window = load_be16(s + 14);
	}
	if (data && seq == t->rcv_nxt) {
		t->in = xrealloc(t->in, t->in_len + data);
		memcpy(t->in + t->in_len, s + head, data);
		t->in_len += data;
		t->rcv_nxt += data;
	}
	if (s[13] & FIN && seq + data == t->rcv_nxt) {
		t->fin_seen = true;
		t->rcv_nxt++;
	}
	if (data || s[13] & (SYN | FIN))
		send_tcp(t, ACK, NULL, 0);
	return true;
}

static void answer_arp(struct guest *g, const uint8_t *q)
{
	uint8_t a[42];

	memcpy(a, q, 42);
	memcpy(a, q + 6, 6);
	memcpy(a + 6, g->mac, 6);
	store_be16(a + 20, 2);
	memcpy(a + 22, g->mac, 6);
	store_be32(a + 28, g->ip);
	memcpy(a + 32, q + 22, 10);
	g->arps++;
	guest_send(g, a, sizeof(a));
}

/* True: it is dealt with. */
static bool handle(struct guest *g, const struct guest_frame *f)
{
	uint16_t type = f->len >= ETH ? load_be16(f->data + 12) : 0;

	if (type == 0x0806 && f->len >= 42 && load_be16(f->data + 20) == 1) {
		if (load_be32(f->data + 38) == g->ip)
			answer_arp(g, f->data);
		return true;
	}
	return type == 0x0800 && f->len >= ETH + IP + TCP && f->data[23] == 6 &&
	       tcp_receive(g, f->data, f->len);
}

static void make_room(struct guest *g)
{
	g->rooms = GUEST_ROOMS;
	if (!g->stalled && g->nd->queue[0].loop)
		net_receive_ready(g->nd, 0);
}

/* The first frame that handle() leaves, or NULL. */
static struct guest_frame *sort_inbox(struct guest *g)
{
	while (g->in_count) {
		struct guest_frame *f = &g->inbox[g->in_first], frame = *f;

		if (g->in_count == GUEST_INBOX)
			return NULL;
		if (!handle(g, f))
			return f;
		free(frame.data);
		g->in_first = (g->in_first + 1) % GUEST_INBOX;
		g->in_count--;
	}
	return NULL;
}

void guest_turn(struct guest *g, int quiet_ms)
{
	do {
		make_room(g);
		sort_inbox(g);
	} while (evloop_run_once(g->loop, quiet_ms * NSEC_PER_MSEC));
	make_room(g);
	sort_inbox(g);
}

bool guest_next(struct guest *g, struct guest_frame *frame, int ms)
{
	int64_t end = evloop_now(g->loop) + ms * NSEC_PER_MSEC;
	struct guest_frame *f;

	while (!(f = sort_inbox(g)) && evloop_now(g->loop) < end) {
		make_room(g);
		evloop_run_once(g->loop, 5 * NSEC_PER_MSEC);
	}
	if (!f)
		return false;
	*frame = *f;
	g->in_first = (g->in_first + 1) % GUEST_INBOX;
	g->in_count--;
	return true;
}

bool guest_find_gateway(struct guest *g, uint32_t gateway)
{
	struct guest_frame f;
	uint8_t q[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	memcpy(q + 6, g->mac, 6);
	memcpy(q + 12, "\x08\x06\0\1\x08\0\6\4\0\1", 10);
	memcpy(q + 22, g->mac, 6);
	store_be32(q + 28, g->ip);
	store_be32(q + 38, gateway);
	guest_send(g, q, sizeof(q));
	while (guest_next(g, &f, 1000)) {
		bool found = load_be16(f.data + 12) == 0x0806 && load_be16(f.data + 20) == 2 &&
			     load_be32(f.data + 28) == gateway;

		if (found)
			memcpy(g->gateway_mac, f.data + 22, 6);
		free(f.data);
		if (found)
			return true;
	}
	return false;
}

static struct guest_tcp *add_tcp(struct guest *g, uint16_t port)
{
	struct guest_tcp *t = xcalloc(1, sizeof(*t));

	t->guest = g;
	t->port = port;
	t->snd_una = t->snd_nxt = 1000;
	t->next = g->tcps;
	g->tcps = t;
	return t;
}

struct guest_tcp *guest_listen(struct guest *g, uint16_t port)
{
	struct guest_tcp *t = add_tcp(g, port);

	t->listening = true;
	return t;
}

struct guest_tcp *guest_connect(struct guest *g, uint32_t dst, uint16_t port)
{
	struct guest_tcp *t = add_tcp(g, g->next_port++);

	t->peer_ip = dst;
	t->peer_port = port;
	send_tcp(t, SYN, NULL, 0);
	for (int i = 0; i < 200 && !t->open && !t->reset; i++)
		guest_turn(g, 2);
	return t;
}

size_t guest_write(struct guest_tcp *t, const void *data, size_t len)
{
	uint32_t start = t->snd_nxt;

	for (int idle = 0; t->snd_una - start < len && idle < 200 && !t->reset; idle++) {
		uint32_t before = t->snd_una;

		/* Go back to what was not acknowledged: what was lost is sent again. */
		if (idle % 50 == 49)
			t->snd_nxt = t->snd_una;
		while (t->snd_nxt - start < len && t->snd_nxt - t->snd_una < t->window) {
			size_t room = t->window - (t->snd_nxt - t->snd_una);
			size_t left = len - (t->snd_nxt - start);

			send_tcp(t, ACK | PSH, (const uint8_t *)data + (t->snd_nxt - start),
				 MIN(MIN(room, left), t->guest->large ? 20 * MSS : MSS));
		}
		guest_turn(t->guest, idle ? 2 : 0);
		if (t->snd_una != before)
			idle = -1;
	}
	return t->snd_una - start;
}

bool guest_wait(struct guest_tcp *t, size_t len, int ms)
{
	int64_t end = evloop_now(t->guest->loop) + ms * NSEC_PER_MSEC;

	while (t->in_len < len && evloop_now(t->guest->loop) < end)
		guest_turn(t->guest, 2);
	return t->in_len >= len;
}

void guest_close(struct guest_tcp *t)
{
	send_tcp(t, FIN | ACK, NULL, 0);
	guest_turn(t->guest, 2);
}
