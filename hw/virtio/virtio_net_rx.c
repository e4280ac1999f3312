/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the back end to the guest: virtio 1.2, section 5.1.6.3 and 5.1.6.4.
 *
 * The back end asks for rooms (virtio_net_rx_buffers()), reads packets straight into them, and says
 * so (virtio_net_rx_received()). Then each packet is filtered, perhaps hashed, its header is
 * completed in place, and its chains are pushed. It is copied only if RSS sends it to another
 * queue, or if it was longer than expected. One that needs more chains than the driver has added
 * waits for them, and the back end with it.
 *
 * Thread: the device's loop. Owner: struct virtio_net.
 */
#include <stdlib.h>

#include "hw/virtio/virtio_net.h"
#include "vmm/core/util.h"

enum {
	RX_IOVS = 4 * VIRTIO_NET_PACKET_IOVS,
	ROOM_IOVS = 2 * VIRTIO_NET_PACKET_IOVS,
	TAGGED_HEADER = 14 + 4,
	PLAIN_MTU = 1500,
	/* Rooms for large packets are costly to make: after so many frames they are made for frames
	 * again. */
	FRAMES_IN_A_ROW = 256,
	/* Rooms that large packets, which must be copied then, may surprise. */
	SURPRISES_MAX = 16,
	NUM_BUFFERS_AT = offsetof(struct virtio_net_hdr, num_buffers),
};

/* What came of a packet. */
struct verdict {
	bool accepted;
	unsigned queue;
	uint16_t report;
	uint32_t hash;
};

void virtio_net_rx_init(struct virtio_net *net)
{
	net->rx = xcalloc(net->pairs_max, sizeof(*net->rx));
	for (unsigned i = 0; i < net->pairs_max; i++) {
		struct virtio_net_rx *rx = &net->rx[i];

		rx->net = net;
		rx->vq = &net->vdev.queues[2 * i];
		rx->index = i;
		rx->starved = true;
		rx->chains_max = net->rx_queue_size;
		rx->chains = xcalloc(rx->chains_max, sizeof(*rx->chains));
		rx->iovs = xcalloc(RX_IOVS, sizeof(*rx->iovs));
		rx->room_iovs = xcalloc(ROOM_IOVS + VIRTIO_NET_PACKET_IOVS, sizeof(struct iovec));
		rx->spill = xmalloc((size_t)NET_BATCH * NET_PACKET_MAX);
	}
}

void virtio_net_rx_destroy(struct virtio_net *net)
{
	for (unsigned i = 0; net->rx && i < net->pairs_max; i++) {
		free(net->rx[i].chains);
		free(net->rx[i].iovs);
		free(net->rx[i].room_iovs);
		free(net->rx[i].spill);
	}
	free(net->rx);
	net->rx = NULL;
}

void virtio_net_rx_start(struct virtio_net_rx *rx)
{
	const struct virtio_net *net = rx->net;
	uint64_t large = net->offloads & ~(VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_ECN);

	rx->want_frame = net->guest_hdr + TAGGED_HEADER + MAX(net->host_mtu, (unsigned)PLAIN_MTU);
	rx->want_large = large ? net->guest_hdr + TAGGED_HEADER + 65535u : rx->want_frame;
	rx->want = rx->want_frame;
	rx->frames = 0;
}

static bool is_held(const struct virtio_net_rx *rx)
{
	return rx->next < rx->end;
}

void virtio_net_rx_stop(struct virtio_net_rx *rx)
{
	rx->first = rx->count = rx->iovs_end = 0;
	rx->room_count = rx->borrowed = rx->extra = 0;
	rx->next = rx->end = 0;
}

void virtio_net_rx_drain(struct virtio_net_rx *rx)
{
	while (rx->count)
		if (!rx->chains[rx->first + --rx->count].used)
			vq_unpop(rx->vq, &rx->chains[rx->first + rx->count].chain);
	virtio_net_rx_stop(rx);
}

/* ---- the list of chains ---- */

static struct virtio_net_rx_chain *chain_at(const struct virtio_net_rx *rx, unsigned i)
{
	return &rx->chains[rx->first + i];
}

/* Moves the list to the front of its arrays. Rooms have copies of the iovecs. */
static void close_ranks(struct virtio_net_rx *rx)
{
	unsigned end = 0;

	if (rx->first)
		memmove(rx->chains, rx->chains + rx->first, rx->count * sizeof(*rx->chains));
	rx->first = 0;
	for (unsigned i = 0; i < rx->count; i++) {
		struct vq_chain *c = &rx->chains[i].chain;

		memmove(rx->iovs + end, c->iov, c->writable * sizeof(*c->iov));
		c->iov = rx->iovs + end;
		end += c->writable;
	}
	rx->iovs_end = end;
}

static bool has_space(const struct virtio_net_rx *rx)
{
	return rx->first + rx->count < rx->chains_max &&
	       rx->iovs_end + VIRTIO_NET_CHAIN_IOVS <= RX_IOVS;
}

/* One more at the end of the list; false if there is none, or no space for it. */
static bool pop(struct virtio_net_rx *rx)
{
	struct virtio_net_rx_chain *rc;
	struct vq_chain *c;

	if (!has_space(rx)) {
		close_ranks(rx);
		if (!has_space(rx))
			return false;
	}
	rc = chain_at(rx, rx->count);
	c = &rc->chain;
	c->iov = rx->iovs + rx->iovs_end;
	c->iov_max = VIRTIO_NET_CHAIN_IOVS;
	if (vq_pop(rx->vq, c) <= 0)
		return false;
	if (c->writable_bytes < rx->net->guest_hdr) {
		virtio_device_fail(&rx->net->vdev, "a receive buffer has no room for a header");
		return false;
	}
	/* What the driver lets us read means nothing. */
	memmove(c->iov, c->iov + c->readable, c->writable * sizeof(*c->iov));
	c->readable = 0;
	c->readable_bytes = 0;
	rc->used = false;
	rx->iovs_end += c->writable;
	rx->count++;
	return true;
}

/* Takes those that were used out; the others keep their order. */
static void give_back(struct virtio_net_rx *rx)
{
	unsigned from = rx->borrowed + rx->extra, to = from;

	while (from--)
		if (!chain_at(rx, from)->used && from != --to)
			*chain_at(rx, to) = *chain_at(rx, from);
	rx->first += to;
	rx->count -= to;
	rx->borrowed = rx->extra = rx->room_count = 0;
	rx->next = rx->end = 0;
	if (!rx->count)
		rx->first = rx->iovs_end = 0;
}

/* ---- rooms ---- */

/* The iovecs of a room whose chains are known. The guest's header may be longer than the back
 * end's. */
static void lay_out(struct virtio_net_rx *rx, struct virtio_net_room *room)
{
	const struct virtio_net *net = rx->net;
	const struct vq_chain *c = &chain_at(rx, room->chain)->chain;
	struct iovec *to = room->iov;

	if (net->host_hdr == net->guest_hdr) {
		memcpy(to, c->iov, c->writable * sizeof(*to));
		to += c->writable;
	} else {
		to += iov_slice(c->iov, c->writable, 0, net->host_hdr, to, c->writable);
		to += iov_slice(c->iov, c->writable, net->guest_hdr, c->writable_bytes, to,
				c->writable);
	}
	for (unsigned i = 1; i < room->chains; i++) {
		c = &chain_at(rx, room->chain + i)->chain;
		memcpy(to, c->iov, c->writable * sizeof(*to));
		to += c->writable;
	}
	*to++ = (struct iovec){rx->spill + (size_t)rx->room_count * NET_PACKET_MAX, NET_PACKET_MAX};
	room->iovcnt = to - room->iov;
}

/* False if there are no chains for one more. */
static bool make_room(struct virtio_net_rx *rx, unsigned *iovs_used)
{
	struct virtio_net_room *room = &rx->rooms[rx->room_count];
	size_t want = rx->net->mergeable ? rx->want : 1;
	unsigned iovs = 0;

	if (*iovs_used + VIRTIO_NET_PACKET_IOVS > ROOM_IOVS)
		return false;
	*room = (struct virtio_net_room){.iov = rx->room_iovs + *iovs_used, .chain = rx->borrowed};
	while (room->bytes < want) {
		unsigned next = room->chain + room->chains;
		const struct vq_chain *c;

		if (next == rx->count && !pop(rx))
			break;
		c = &chain_at(rx, next)->chain;
		if (iovs + c->writable > VIRTIO_NET_CHAIN_IOVS)
			break;
		iovs += c->writable;
		room->bytes += c->writable_bytes;
		room->chains++;
	}
	/* Only the first may be short of guest memory. */
	if (!room->chains || (rx->room_count && room->bytes < want))
		return false;
	lay_out(rx, room);
	*iovs_used += room->iovcnt;
	rx->borrowed += room->chains;
	rx->room_count++;
	return true;
}

static bool is_open(const struct virtio_net_rx *rx)
{
	return virtio_is_live(&rx->net->vdev) && rx->vq->live && rx->index < rx->net->pairs &&
	       !is_held(rx);
}

unsigned virtio_net_rx_buffers(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n)
{
	struct virtio_net *net = opaque;
	struct virtio_net_rx *rx = &net->rx[queue];

	if (rx->want < rx->want_large)
		n = MIN(n, (unsigned)SURPRISES_MAX);
	while (is_open(rx)) {
		unsigned iovs_used = 0;

		rx->room_count = rx->borrowed = rx->extra = 0;
		while (rx->room_count < MIN(n, (unsigned)NET_BATCH) && make_room(rx, &iovs_used)) {
			const struct virtio_net_room *room = &rx->rooms[rx->room_count - 1];

			*pkts++ = (struct net_packet){
				.iov = room->iov,
				.iovcnt = room->iovcnt,
				.len = room->bytes - net->guest_hdr + net->host_hdr +
				       NET_PACKET_MAX,
			};
		}
		if (rx->room_count) {
			vq_disable_notify(rx->vq);
			return rx->room_count;
		}
		if (!vq_enable_notify(rx->vq))
			break;
	}
	rx->starved = true;
	return 0;
}

/* ---- packets ---- */

static unsigned choose_queue(const struct virtio_net *net, const struct verdict *v, unsigned queue)
{
	const struct virtio_net_rss *rss = &net->rss;
	unsigned to = queue;

	if (rss->redirect)
		to = v->report == VIRTIO_NET_HASH_REPORT_NONE
			     ? rss->fallback
			     : rss->table[v->hash & (rss->table_len - 1)];
	return to < net->pairs ? to : queue;
}

/* The guest may change the bytes that are looked at meanwhile, and hurts itself alone. */
static void judge(struct virtio_net_rx *rx, const struct virtio_net_room *room, struct verdict *v)
{
	struct virtio_net *net = rx->net;
	uint8_t head[VIRTIO_NET_HASH_LOOKS] = {0};
	size_t len;

	*v = (struct verdict){.accepted = true, .queue = rx->index};
	if (room->len < net->host_hdr + VIRTIO_NET_FRAME_MIN) {
		v->accepted = false;
		return;
	}
	if (net->filter.promisc && !net->rss.types && !net->rss.redirect)
		return;
	len = MIN(room->len - net->host_hdr,
		  net->rss.types ? sizeof(head) : (size_t)VIRTIO_NET_FILTER_LOOKS);
	iov_to_buf(room->iov, room->iovcnt, net->host_hdr, head, len);
	v->accepted = virtio_net_filter_pass(&net->filter, head);
	if (!v->accepted)
		return;
	if (net->rss.types)
		v->report = virtio_net_hash(head, len, net->rss.types, net->rss.key, &v->hash);
	v->queue = choose_queue(net, v, rx->index);
}

/* What the back end did not write of the header in front of a packet in `buffers` chains. */
static void complete_header(struct virtio_net_rx *rx, const struct vq_chain *c, unsigned host_hdr,
			    unsigned buffers, const struct verdict *v)
{
	struct virtio_net_hdr hdr = {
		.num_buffers = htole16(buffers),
		.hash_value = htole32(v->hash),
		.hash_report = htole16(v->report),
	};
	unsigned from = MIN(host_hdr, (unsigned)NUM_BUFFERS_AT);

	iov_from_buf(c->iov, c->writable, from, (uint8_t *)&hdr + from, rx->net->guest_hdr - from);
}

/* How many chains, from the list's `at` on, hold `bytes`; 0 if there are not as many. */
static unsigned gather(struct virtio_net_rx *rx, unsigned at, size_t bytes)
{
	size_t sum = 0;
	unsigned n = 0;

	while (sum < bytes) {
		if (at + n == rx->count && !pop(rx))
			return 0;
		sum += chain_at(rx, at + n++)->chain.writable_bytes;
	}
	return n;
}

/* Pushes chains from the list's `at` on, until `bytes` are told of. */
static void push(struct virtio_net_rx *rx, unsigned at, size_t bytes)
{
	for (; bytes; at++) {
		struct virtio_net_rx_chain *rc = chain_at(rx, at);
		size_t n = MIN(bytes, (size_t)rc->chain.writable_bytes);

		virtio_push(&rx->net->vdev, rx->vq, &rc->chain, n);
		rc->used = true;
		bytes -= n;
	}
}

static unsigned chains_for(const struct virtio_net_rx *rx, const struct virtio_net_room *room,
			   size_t bytes)
{
	unsigned n = 0;

	for (size_t sum = 0; sum < bytes; n++)
		sum += chain_at(rx, room->chain + n)->chain.writable_bytes;
	return n;
}

/* Lays bytes into chains from the list's `at` on, offset bytes into the first. */
static void fill(struct virtio_net_rx *rx, unsigned at, size_t offset, const struct iovec *iov,
		 unsigned iovcnt, size_t bytes)
{
	struct vq_chain *c = &chain_at(rx, at)->chain;

	for (unsigned i = 0; i < iovcnt && bytes; i++) {
		size_t len = MIN(iov[i].iov_len, bytes), done = 0;

		while (done < len) {
			size_t n = iov_from_buf(c->iov, c->writable, offset,
						(uint8_t *)iov[i].iov_base + done, len - done);

			done += n;
			offset += n;
			if (offset == c->writable_bytes && bytes - done) {
				c = &chain_at(rx, ++at)->chain;
				offset = 0;
			}
		}
		bytes -= len;
	}
}

/* The end of a packet lies outside the guest: it goes into chains behind those of the rooms. False
 * if the driver has not added enough. */
static bool place_long(struct virtio_net_rx *rx, const struct virtio_net_room *room, size_t total,
		       const struct verdict *v)
{
	unsigned at = rx->borrowed + rx->extra, n;
	size_t rest = total - room->bytes;

	if (!rx->net->mergeable)
		return true; /* lost: the driver's buffers are too small */
	n = gather(rx, at, rest);
	if (!n) {
		/* With the whole ring popped, no more will come: lost, too. */
		if (!virtio_is_live(&rx->net->vdev))
			return true;
		return rx->vq->in_flight >= rx->vq->size || !has_space(rx);
	}
	rx->want = MAX(MAX(rx->want, rx->want_large), MIN(total, (size_t)NET_PACKET_MAX));
	fill(rx, at, 0, &room->iov[room->iovcnt - 1], 1, rest);
	complete_header(rx, &chain_at(rx, room->chain)->chain, rx->net->host_hdr, room->chains + n,
			v);
	push(rx, room->chain, room->bytes);
	push(rx, at, rest);
	rx->extra += n;
	return true;
}

/* False if the packet must wait. */
static bool place(struct virtio_net_rx *rx, const struct virtio_net_room *room,
		  const struct verdict *v)
{
	size_t total = room->len - rx->net->host_hdr + rx->net->guest_hdr;

	if (total > rx->want_frame)
		rx->frames = 0;
	else if (++rx->frames >= FRAMES_IN_A_ROW)
		rx->want = rx->want_frame;
	if (total > room->bytes)
		return place_long(rx, room, total, v);
	complete_header(rx, &chain_at(rx, room->chain)->chain, rx->net->host_hdr,
			chains_for(rx, room, total), v);
	push(rx, room->chain, total);
	return true;
}

/* Another queue's packet. A queue without buffers loses it, as a card's would. */
static void pass_on(struct virtio_net_rx *from, const struct virtio_net_room *room,
		    const struct verdict *v)
{
	struct virtio_net *net = from->net;
	struct virtio_net_rx *rx = &net->rx[v->queue];
	size_t frame = room->len - net->host_hdr, total = frame + net->guest_hdr;
	uint8_t hdr[sizeof(struct virtio_net_hdr)] = {0};
	struct iovec *iov = from->room_iovs + ROOM_IOVS; /* behind the rooms' */
	unsigned n, iovcnt = room->iovcnt;

	if (!is_open(rx))
		return;
	rx->room_count = rx->borrowed = rx->extra = 0;
	n = gather(rx, 0, total);
	if (!n || (n > 1 && !net->mergeable))
		return;
	iov_to_buf(room->iov, room->iovcnt, 0, hdr, net->host_hdr);
	iov_from_buf(chain_at(rx, 0)->chain.iov, chain_at(rx, 0)->chain.writable, 0, hdr,
		     net->guest_hdr);
	memcpy(iov, room->iov, iovcnt * sizeof(*iov));
	vq_iov_cut_front(&iov, &iovcnt, net->host_hdr);
	fill(rx, 0, net->guest_hdr, iov, iovcnt, frame);
	complete_header(rx, &chain_at(rx, 0)->chain, net->host_hdr, n, v);
	push(rx, 0, total);
	rx->extra = n;
	give_back(rx);
}

/* Packets that came, from the first that has no place yet. */
static void place_all(struct virtio_net_rx *rx)
{
	for (; is_held(rx); rx->next++) {
		const struct virtio_net_room *room = &rx->rooms[rx->next];
		struct verdict v;

		judge(rx, room, &v);
		if (!v.accepted)
			continue;
		if (v.queue != rx->index) {
			pass_on(rx, room, &v);
			continue;
		}
		while (!place(rx, room, &v))
			if (!vq_enable_notify(rx->vq))
				return;
	}
	give_back(rx);
}

void virtio_net_rx_received(void *opaque, unsigned queue, const struct net_packet *pkts, unsigned n)
{
	struct virtio_net *net = opaque;
	struct virtio_net_rx *rx = &net->rx[queue];

	if (!is_open(rx))
		return;
	n = MIN(n, rx->room_count);
	for (unsigned i = 0; i < n; i++)
		rx->rooms[i].len = pkts[i].len;
	rx->next = 0;
	rx->end = n;
	place_all(rx);
	virtio_publish(&net->vdev, rx->vq);
}

void virtio_net_rx_kick(struct virtio_net_rx *rx)
{
	struct virtio_net *net = rx->net;

	if (is_held(rx))
		place_all(rx);
	if (!rx->starved || !net->netdev || !is_open(rx))
		return;
	vq_disable_notify(rx->vq);
	if (!rx->count && !vq_has_work(rx->vq) && !vq_enable_notify(rx->vq))
		return;
	rx->starved = false;
	net_receive_ready(net->netdev, rx->index);
}
