/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the back end to the guest (82574 datasheet, section 7.1).
 *
 * The back end reads frames into rooms outside the guest. Each is looked at there, filtered, its
 * checksums judged, its tag taken off, and copied into as many of the ring's buffers as it fills. A
 * frame that the ring has no room for waits, and the back end with it, until the guest moves a
 * tail: nothing is lost but what the guest does not want or could never take.
 *
 * Descriptors are of three kinds: legacy, extended, and split, whose first buffer takes headers.
 *
 * Thread: the main loop. Owner: struct e1000e.
 */
#include <stdlib.h>

#include "hw/net/e1000e.h"
#include "vmm/core/inet.h"
#include "vmm/core/util.h"

enum {
	CRC = 4,
	PLAIN_MAX = 1514, /* of a frame without tag and CRC */
	LONG_MAX = 16384 - CRC,
	BUFFERS = 4, /* of a split descriptor */
	HEADER_UNIT = 128,
	HEADER_MAX = 1023, /* that a descriptor can tell of */
	LEGACY_ERRORS_SHIFT = 24,
};

/* How the rings are laid out, as registers say now. */
struct layout {
	bool extended, split;
	unsigned desc_size;
	size_t buffer[BUFFERS]; /* bytes; [0] alone but for split ones */
	size_t rest;		/* of those behind the first */
};

/* One descriptor as it is written back. */
struct piece {
	uint64_t gpa;
	bool last;
	size_t header_status, length[BUFFERS];
};

void e1000e_rx_init(struct e1000e *d)
{
	/* And one for frames that come back. */
	d->rx.bytes = xmalloc((size_t)(E1000E_RX_ROOMS + 1) * NET_PACKET_MAX);
	d->rx.starved = true;
}

void e1000e_rx_destroy(struct e1000e *d)
{
	free(d->rx.bytes);
	d->rx.bytes = NULL;
}

static unsigned ring_reg(unsigned queue, unsigned reg)
{
	return reg + queue * E1000E_QUEUE_STRIDE;
}

static uint32_t ring(const struct e1000e *d, unsigned queue, unsigned reg)
{
	return e1000e_get(d, ring_reg(queue, reg));
}

static size_t buffer_size(uint32_t rctl)
{
	unsigned flexible = rctl >> E1000E_RCTL_FLXBUF_SHIFT & 15;
	unsigned code = rctl >> E1000E_RCTL_BSIZE_SHIFT & 3;

	if (flexible)
		return flexible * KiB;
	if (rctl & E1000E_RCTL_BSEX && code)
		return (32 * KiB) >> code;
	return (2 * KiB) >> code;
}

static void look_at_layout(const struct e1000e *d, struct layout *l)
{
	uint32_t rctl = e1000e_get(d, E1000E_RCTL), sizes = e1000e_get(d, E1000E_PSRCTL);

	*l = (struct layout){.extended = e1000e_get(d, E1000E_RFCTL) & E1000E_RFCTL_EXTEN};
	l->split = l->extended && rctl & E1000E_RCTL_DTYP_PS;
	l->desc_size = l->split ? E1000E_DESC_SPLIT : E1000E_DESC;
	if (!l->split) {
		l->buffer[0] = buffer_size(rctl);
		return;
	}
	l->buffer[0] = (sizes & 0x7f) * HEADER_UNIT;
	for (unsigned i = 1; i < BUFFERS; i++) {
		l->buffer[i] = (sizes >> 8 * i & 0x3f) * KiB;
		l->rest += l->buffer[i];
	}
}

static unsigned ring_size(const struct e1000e *d, const struct layout *l, unsigned queue)
{
	return ring(d, queue, E1000E_RDLEN) / l->desc_size;
}

/* Descriptors that the guest has given. */
static unsigned ring_free(const struct e1000e *d, const struct layout *l, unsigned queue)
{
	uint32_t size = ring_size(d, l, queue), head = ring(d, queue, E1000E_RDH),
		 tail = ring(d, queue, E1000E_RDT);

	if (head >= size || tail >= size)
		return 0;
	return tail >= head ? tail - head : size - head + tail;
}

static bool is_open(const struct e1000e *d)
{
	struct layout l;

	if (!e1000e_is_live(d) || !(e1000e_get(d, E1000E_RCTL) & E1000E_RCTL_EN) ||
	    !e1000e_phy_has_link(d) || d->rx.next < d->rx.end)
		return false;
	look_at_layout(d, &l);
	for (unsigned i = 0; i < E1000E_QUEUES; i++)
		if (ring_free(d, &l, i))
			return true;
	return false;
}

/* ---- what a frame is ---- */

/* A sum that the back end left to us. */
static void complete(uint8_t *frame, size_t len, struct virtio_net_hdr *hdr)
{
	if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return;
	if (inet_finish_checksum(frame, len, le16toh(hdr->csum_start), le16toh(hdr->csum_offset)))
		hdr->flags |= VIRTIO_NET_HDR_F_DATA_VALID;
}

static void judge_checksums(const struct e1000e *d, struct e1000e_arrival *a,
			    const struct net_frame *f, bool trusted)
{
	uint32_t wanted = e1000e_get(d, E1000E_RXCSUM), rfctl = e1000e_get(d, E1000E_RFCTL);

	if (!(wanted & (E1000E_RXCSUM_IPOFL | E1000E_RXCSUM_TUOFL))) {
		a->status |= E1000E_RXD_IXSM;
		return;
	}
	if (f->ip_version == 4 && wanted & E1000E_RXCSUM_IPOFL) {
		a->status |= E1000E_RXD_IPCS;
		if (!net_frame_ip_sum_is_right(f, a->bytes))
			a->status |= E1000E_RXD_IPE;
	}
	if (!(wanted & E1000E_RXCSUM_TUOFL) || f->l4 == NET_FRAME_L4_NONE ||
	    (f->ip_version == 6 && rfctl & (E1000E_RFCTL_IPV6_DIS | E1000E_RFCTL_IPV6_XSUM_DIS)))
		return;
	if (f->l4 == NET_FRAME_UDP) {
		if (!net_frame_udp_has_sum(f, a->bytes))
			return;
		a->status |= E1000E_RXD_UDPCS | E1000E_RXD_UDPV;
	}
	a->status |= E1000E_RXD_L4CS;
	if (!trusted && !net_frame_l4_sum_is_right(f, a->bytes))
		a->status |= E1000E_RXD_L4E;
}

static void name_type(struct e1000e_arrival *a, const struct net_frame *f)
{
	bool l4 = f->l4 != NET_FRAME_L4_NONE;
	uint32_t type = f->ip_version == 4   ? l4 ? E1000E_RXD_TYPE_IPV4_L4 : E1000E_RXD_TYPE_IPV4
			: f->ip_version == 6 ? l4 ? E1000E_RXD_TYPE_IPV6_L4 : E1000E_RXD_TYPE_IPV6
					     : 0;

	a->status |= type << E1000E_RXD_TYPE_SHIFT;
}

/* The sum over all of the frame from a given byte on, or what of IP stands in its place. */
static void name_sums(const struct e1000e *d, struct e1000e_arrival *a, const struct net_frame *f)
{
	uint32_t rxcsum = e1000e_get(d, E1000E_RXCSUM);
	size_t start = rxcsum & E1000E_RXCSUM_PCSS;
	uint16_t sum;

	if (rxcsum & E1000E_RXCSUM_PCSD || start >= a->len)
		return;
	sum = inet_checksum(a->bytes + start, a->len - start, 0);
	a->checksum = load_be16(&sum);
	if (f->ip_version == 4) {
		a->ip_id = f->ip_id;
		a->status |= E1000E_RXD_IPIDV;
	}
}

static void take_tag_off(const struct e1000e *d, struct e1000e_arrival *a, struct net_frame *f)
{
	if (!f->tagged || !(e1000e_get(d, E1000E_CTRL) & E1000E_CTRL_VME))
		return;
	a->status |= E1000E_RXD_VP;
	a->tag = f->tag;
	memmove(a->bytes + NET_FRAME_TAG, a->bytes, 2 * NET_FRAME_MAC);
	a->bytes += NET_FRAME_TAG;
	a->len -= NET_FRAME_TAG;
	f->data -= f->data ? NET_FRAME_TAG : 0;
}

/* Where a split frame is split. */
static size_t header_of(const struct e1000e *d, const struct net_frame *f)
{
	uint32_t rfctl = e1000e_get(d, E1000E_RFCTL);

	if (f->l4 == NET_FRAME_L4_NONE || (f->ip_version == 6 && rfctl & E1000E_RFCTL_IPV6_DIS))
		return 0;
	return f->data;
}

static void count_frame(struct e1000e *d, const uint8_t *frame, size_t len)
{
	e1000e_count(d, E1000E_GPRC, 1);
	e1000e_count64(d, E1000E_GORCL, len + CRC);
	e1000e_count_size(d, E1000E_PRC64, len + CRC);
	e1000e_count_dst(d, frame, E1000E_BPRC, E1000E_MPRC);
}

/* False: the guest does not want it. bytes has room for padding and CRC. */
static bool look(struct e1000e *d, struct e1000e_arrival *a, struct virtio_net_hdr *hdr)
{
	uint32_t rctl = e1000e_get(d, E1000E_RCTL);
	struct net_frame f;
	size_t max;

	if (a->len < NET_FRAME_HEADER)
		return false;
	if (a->len < NET_FRAME_MIN) {
		memset(a->bytes + a->len, 0, NET_FRAME_MIN - a->len);
		a->len = NET_FRAME_MIN;
	}
	e1000e_count(d, E1000E_TPR, 1);
	e1000e_count64(d, E1000E_TORL, a->len + CRC);
	net_frame_look(&f, a->bytes, a->len, e1000e_get(d, E1000E_VET));
	max = rctl & E1000E_RCTL_LPE ? LONG_MAX : PLAIN_MAX + (f.tagged ? NET_FRAME_TAG : 0);
	if (a->len > max) {
		e1000e_count(d, E1000E_ROC, 1);
		return false;
	}
	if (!e1000e_filter_pass(d, &f, a->bytes))
		return false;
	count_frame(d, a->bytes, a->len);
	complete(a->bytes, a->len, hdr);
	a->queue = e1000e_filter_queue(d, a->bytes, a->len, &a->rss_type, &a->hash);
	judge_checksums(d, a, &f, hdr->flags & VIRTIO_NET_HDR_F_DATA_VALID);
	name_type(a, &f);
	take_tag_off(d, a, &f);
	name_sums(d, a, &f);
	a->header = header_of(d, &f);
	if (!(rctl & E1000E_RCTL_SECRC)) {
		store_le32(a->bytes + a->len, net_frame_crc(a->bytes, a->len));
		a->len += CRC;
	}
	return true;
}

/* ---- into the ring ---- */

static void put_bytes(struct e1000e *d, uint64_t gpa, const uint8_t *from, size_t len)
{
	/* A buffer at 0 is none, and what would go there is lost. */
	if (len && gpa && !gm_write(&d->pci.dev.vm->mem, gpa, from, len))
		log_guest_error(&d->guest_errors, "%s: a receive buffer is not in memory",
				device_label(&d->pci.dev));
}

/* Halves of 8 bytes: the one with the status comes last, and a guest that sees it sees all. */
static void write_back(struct e1000e *d, const struct layout *l, const struct e1000e_arrival *a,
		       const struct piece *p)
{
	uint8_t *desc = gm_ptr(&d->pci.dev.vm->mem, p->gpa, l->desc_size, GM_TO_GUEST);
	uint32_t status = E1000E_RXD_DD | (p->last ? a->status | E1000E_RXD_EOP : 0);
	uint64_t word;
	uint32_t mrq = a->rss_type | a->queue << E1000E_MRQ_QUEUE_SHIFT;

	if (!desc)
		return;
	if (!l->extended) {
		word = p->length[0] | (uint64_t)a->checksum << 16 |
		       (uint64_t)(uint8_t)status << 32 |
		       (uint64_t)(status >> LEGACY_ERRORS_SHIFT) << 40 | (uint64_t)a->tag << 48;
		__atomic_store_n((uint64_t *)(desc + 8), htole64(word), __ATOMIC_RELEASE);
		return;
	}
	word = a->rss_type ? a->hash : a->ip_id | (uint32_t)a->checksum << 16;
	store_le64(desc, mrq | word << 32);
	if (l->split) {
		store_le64(desc + 16, p->header_status | (uint64_t)p->length[1] << 16 |
					      (uint64_t)p->length[2] << 32 |
					      (uint64_t)p->length[3] << 48);
		store_le64(desc + 24, 0);
	}
	word = status | (uint64_t)p->length[0] << 32 | (uint64_t)a->tag << 48;
	__atomic_store_n((uint64_t *)(desc + 8), htole64(word), __ATOMIC_RELEASE);
}

/* How many descriptors it takes; 0: no number is enough. */
static unsigned count_needed(const struct layout *l, struct e1000e_arrival *a)
{
	size_t rest = a->len;

	if (!l->split)
		return l->buffer[0] ? div_round_up(rest, l->buffer[0]) : 0;
	if (a->header > MIN(l->buffer[0], (size_t)HEADER_MAX))
		a->header = 0;
	rest -= a->header ? a->header : MIN(rest, l->buffer[0]);
	if (!rest)
		return 1;
	return l->rest ? div_round_up(rest, l->rest) : 0;
}

/* Fills one descriptor's buffers from a->bytes + done; how many bytes. */
static size_t fill(struct e1000e *d, const struct layout *l, const struct e1000e_arrival *a,
		   size_t done, const uint8_t *desc, struct piece *p)
{
	size_t from = done;

	for (unsigned i = 0; i < (l->split ? BUFFERS : 1); i++) {
		size_t room = l->buffer[i], n;

		/* The first buffer is for headers; a frame that is not split begins there. */
		if (l->split && i == 0)
			room = from ? 0 : a->header ? a->header : room;
		n = MIN(a->len - done, room);
		put_bytes(d, load_le64(desc + 8 * i), a->bytes + done, n);
		p->length[i] = n;
		done += n;
	}
	if (l->split && !from && a->header)
		p->header_status = E1000E_RXD_HDRSP | a->header;
	p->last = done == a->len;
	return done - from;
}

static uint32_t threshold_cause(const struct e1000e *d, const struct layout *l, unsigned queue,
				unsigned before, unsigned after)
{
	unsigned code = e1000e_get(d, E1000E_RCTL) >> E1000E_RCTL_RDMTS_SHIFT & 3;
	unsigned threshold = ring_size(d, l, queue) >> (code + 1);

	return before > threshold && after <= threshold ? E1000E_INT_RXDMT0 : 0;
}

static void advance(struct e1000e *d, const struct layout *l, unsigned queue)
{
	uint32_t head = ring(d, queue, E1000E_RDH) + 1;

	*e1000e_reg(d, ring_reg(queue, E1000E_RDH)) = head < ring_size(d, l, queue) ? head : 0;
}

static bool put(struct e1000e *d, const struct layout *l, const struct e1000e_arrival *a)
{
	uint64_t base = e1000e_get64(d, ring_reg(a->queue, E1000E_RDBAL));
	size_t done = 0;

	do {
		struct piece p = {
			.gpa = base + ring(d, a->queue, E1000E_RDH) * (uint64_t)l->desc_size,
		};
		uint8_t desc[E1000E_DESC_SPLIT];

		if (!gm_read(&d->pci.dev.vm->mem, p.gpa, desc, l->desc_size)) {
			log_guest_error(&d->guest_errors, "%s: a receive ring is not in memory",
					device_label(&d->pci.dev));
			return false;
		}
		done += fill(d, l, a, done, desc, &p);
		write_back(d, l, a, &p);
		advance(d, l, a->queue);
	} while (done < a->len);
	return true;
}

/* False: the ring has no room for it yet. causes: what it raises. */
static bool place(struct e1000e *d, struct e1000e_arrival *a, uint32_t *causes)
{
	struct layout l;
	unsigned needed, available;

	look_at_layout(d, &l);
	needed = count_needed(&l, a);
	if (!needed || needed >= ring_size(d, &l, a->queue)) {
		e1000e_count(d, E1000E_MPC, 1); /* it never will */
		return true;
	}
	available = ring_free(d, &l, a->queue);
	if (needed > available)
		return false;
	if (!put(d, &l, a)) {
		e1000e_count(d, E1000E_MPC, 1);
		return true;
	}
	*causes |= e1000e_irq_rx_cause(d, a->queue) |
		   threshold_cause(d, &l, a->queue, available, available - needed);
	if (a->len <= e1000e_get(d, E1000E_RSRPD))
		*causes |= E1000E_INT_SRPD;
	return true;
}

static uint8_t *room(const struct e1000e *d, unsigned i)
{
	return d->rx.bytes + (size_t)i * NET_PACKET_MAX;
}

void e1000e_rx_loop_back(struct e1000e *d, const uint8_t *frame, size_t len)
{
	struct virtio_net_hdr hdr = {0};
	struct e1000e_arrival a = {.bytes = room(d, E1000E_RX_ROOMS), .len = len};
	uint32_t causes = 0;

	if (!(e1000e_get(d, E1000E_RCTL) & E1000E_RCTL_EN) || len > LONG_MAX)
		return;
	memcpy(a.bytes, frame, len);
	if (!look(d, &a, &hdr))
		return;
	if (!place(d, &a, &causes))
		e1000e_count(d, E1000E_MPC, 1);
	if (causes)
		e1000e_irq_raise(d, causes);
}

/* ---- rooms ---- */

/* The frame in the room that is next; false: the guest does not want it. */
static bool look_at_next(struct e1000e *d)
{
	struct e1000e_rx *rx = &d->rx;
	struct virtio_net_hdr hdr = {0};
	size_t len = rx->len[rx->next];

	if (len < d->host_hdr)
		return false;
	memcpy(&hdr, room(d, rx->next), d->host_hdr);
	rx->arrival = (struct e1000e_arrival){
		.bytes = room(d, rx->next) + d->host_hdr,
		.len = len - d->host_hdr,
	};
	/* Large segments were never asked for. */
	return !hdr.gso_type && look(d, &rx->arrival, &hdr);
}

/* Lock held. What came before a reset, or while nothing is received, is lost. */
static void place_all(struct e1000e *d)
{
	struct e1000e_rx *rx = &d->rx;
	uint32_t causes = 0;

	if (rx->epoch != d->epoch || !(e1000e_get(d, E1000E_RCTL) & E1000E_RCTL_EN))
		rx->next = rx->end;
	for (; rx->next < rx->end; rx->next++) {
		if (!rx->looked && !look_at_next(d))
			continue;
		if (!place(d, &rx->arrival, &causes)) {
			if (!rx->looked)
				e1000e_count(d, E1000E_RNBC, 1);
			rx->looked = true;
			break;
		}
		rx->looked = false;
	}
	if (rx->next == rx->end)
		rx->looked = false;
	if (causes)
		e1000e_irq_raise(d, causes);
}

unsigned e1000e_rx_buffers(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n)
{
	struct e1000e *d = opaque;
	bool open;

	pthread_mutex_lock(&d->lock);
	open = is_open(d);
	if (open)
		d->rx.epoch = d->epoch;
	pthread_mutex_unlock(&d->lock);
	if (!open) {
		d->rx.starved = true;
		return 0;
	}
	n = MIN(n, (unsigned)E1000E_RX_ROOMS);
	for (unsigned i = 0; i < n; i++) {
		d->rx.iov[i] = (struct iovec){room(d, i), NET_PACKET_MAX};
		pkts[i] = (struct net_packet){&d->rx.iov[i], 1, NET_PACKET_MAX};
	}
	return n;
}

void e1000e_rx_received(void *opaque, unsigned queue, const struct net_packet *pkts, unsigned n)
{
	struct e1000e *d = opaque;
	struct e1000e_rx *rx = &d->rx;

	n = MIN(n, (unsigned)E1000E_RX_ROOMS);
	for (unsigned i = 0; i < n; i++)
		rx->len[i] = MIN(pkts[i].len, (size_t)NET_PACKET_MAX);
	pthread_mutex_lock(&d->lock);
	rx->next = 0;
	rx->end = n;
	place_all(d);
	pthread_mutex_unlock(&d->lock);
}

void e1000e_rx_work(void *opaque)
{
	struct e1000e *d = opaque;
	bool open;

	if (!e1000e_is_live(d))
		return; /* posted again when it is */
	pthread_mutex_lock(&d->lock);
	place_all(d);
	open = is_open(d);
	pthread_mutex_unlock(&d->lock);
	if (!open || !d->rx.starved || !d->netdev)
		return;
	d->rx.starved = false;
	net_receive_ready(d->netdev, 0);
}
