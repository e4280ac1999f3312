/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the guest to the back end (82574 datasheet, section 7.2).
 *
 * A pass takes descriptors one after another: each is read once, its bytes are copied behind those
 * of the packet's other descriptors, and it is told done. With the last one the packet is whole:
 * tagged, its checksums finished or left to the back end in a virtio header, cut into segments if
 * the back end does not take large ones. What the back end has no room for waits for it, and the
 * ring with it. A pass ends after so many descriptors and segments, and goes on in another one.
 *
 * Thread: the main loop. Owner: struct e1000e.
 */
#include <stdlib.h>

#include "hw/net/e1000e.h"
#include "vmm/core/inet.h"
#include "vmm/core/util.h"

enum {
	BUDGET = 256,	       /* descriptors and segments in one pass */
	ROOM = NET_PACKET_MAX, /* of a packet; longer ones are lost */
	LEGACY_TAIL = 12,      /* the descriptor's word that is written back */
	CRC = 4,
};

struct desc {
	uint64_t addr; /* of a context: the offsets */
	uint32_t command, status;
};

void e1000e_tx_init(struct e1000e *d)
{
	for (unsigned i = 0; i < E1000E_QUEUES; i++) {
		d->tx[i].d = d;
		d->tx[i].index = i;
		d->tx[i].packet = xmalloc(E1000E_TX_HEADROOM + ROOM);
	}
}

void e1000e_tx_destroy(struct e1000e *d)
{
	for (unsigned i = 0; i < E1000E_QUEUES; i++) {
		free(d->tx[i].packet);
		d->tx[i].packet = NULL;
	}
}

static void forget(struct e1000e_tx *tx)
{
	tx->gathering = tx->lost = tx->ready = false;
	tx->len = 0;
}

void e1000e_tx_reset(struct e1000e *d)
{
	for (unsigned i = 0; i < E1000E_QUEUES; i++) {
		forget(&d->tx[i]);
		memset(&d->tx[i].context, 0, sizeof(d->tx[i].context));
	}
}

/* ---- a whole packet ---- */

/* Two addresses move to the front, and the tag comes behind them. */
static void insert_tag(struct e1000e_tx *tx, uint16_t tag)
{
	tx->frame -= NET_FRAME_TAG;
	tx->frame_len += NET_FRAME_TAG;
	memmove(tx->frame, tx->frame + NET_FRAME_TAG, 2 * NET_FRAME_MAC);
	store_be16(tx->frame + NET_FRAME_TYPE_AT, e1000e_get(tx->d, E1000E_VET));
	store_be16(tx->frame + NET_FRAME_TYPE_AT + 2, tag);
}

/* From start to the byte at end (0: the last one); offsets that lie outside ask for nothing. */
static void insert_checksum(struct e1000e_tx *tx, size_t start, size_t end, size_t field)
{
	size_t len = end ? end + 1 : tx->frame_len;

	if (len <= tx->frame_len && start < len && field >= start)
		inet_finish_checksum(tx->frame, len, start, field - start);
}

static unsigned able(const struct e1000e *d)
{
	return d->host_hdr ? d->netdev->offloads_able : 0;
}

/* tag: how far the offsets of the context have moved. */
static void finish_l4(struct e1000e_tx *tx, size_t tag)
{
	const struct e1000e_context *c = &tx->context;
	size_t start = c->l4_start + tag, field = c->l4_sum + tag;
	size_t end = c->l4_end ? c->l4_end + tag : 0;

	if (!(able(tx->d) & NET_OFFLOAD_CSUM) || (end && end + 1 != tx->frame_len) ||
	    field < start || !range_inside(field, 2, tx->frame_len)) {
		insert_checksum(tx, start, end, field);
		return;
	}
	tx->hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	tx->hdr.csum_start = htole16(start);
	tx->hdr.csum_offset = htole16(field - start);
}

static void finish_ip(struct e1000e_tx *tx, size_t tag)
{
	const struct e1000e_context *c = &tx->context;

	insert_checksum(tx, c->ip_start + tag, c->ip_end ? c->ip_end + tag : 0, c->ip_sum + tag);
}

/* Whole, if the back end takes it so. */
static bool leave_large(struct e1000e_tx *tx)
{
	struct net_segments *s = &tx->segments;
	unsigned needed = NET_OFFLOAD_CSUM | (s->ipv4 ? NET_OFFLOAD_TSO4 : NET_OFFLOAD_TSO6) |
			  (net_segments_has_cwr(s) ? NET_OFFLOAD_ECN : 0);

	if (!s->tcp || s->count == 1 || needed & ~able(tx->d) || !net_segments_whole(s))
		return false;
	tx->hdr = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = (s->ipv4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6) |
			    (net_segments_has_cwr(s) ? VIRTIO_NET_HDR_GSO_ECN : 0),
		.hdr_len = htole16(s->headers),
		.gso_size = htole16(s->mss),
		.csum_start = htole16(s->l4),
		.csum_offset = htole16(s->l4_sum - s->l4),
	};
	return true;
}

static bool finish_large(struct e1000e_tx *tx, size_t tag)
{
	const struct e1000e_context *c = &tx->context;
	struct net_segments *s = &tx->segments;

	s->frame = tx->frame;
	s->len = tx->frame_len;
	s->ip = c->ip_start + tag;
	s->l4 = c->l4_start + tag;
	s->l4_sum = c->l4_sum + tag;
	s->headers = c->header_len + tag;
	s->mss = c->mss;
	s->ipv4 = c->ipv4;
	s->tcp = c->tcp;
	if (!net_segments_begin(s))
		return false;
	e1000e_count(tx->d, E1000E_TSCTC, 1);
	tx->cut = !leave_large(tx);
	tx->next_segment = 0;
	return true;
}

static void pad(struct e1000e_tx *tx)
{
	if (tx->frame_len >= NET_FRAME_MIN || !(e1000e_get(tx->d, E1000E_TCTL) & E1000E_TCTL_PSP))
		return;
	memset(tx->frame + tx->frame_len, 0, NET_FRAME_MIN - tx->frame_len);
	tx->frame_len = NET_FRAME_MIN;
}

/* The last descriptor came. NULL, and it is ready; or what is wrong with it. */
static const char *finish(struct e1000e_tx *tx, const struct desc *desc)
{
	size_t tag = 0;

	tx->frame = tx->packet + E1000E_TX_HEADROOM;
	tx->frame_len = tx->len;
	tx->cut = false;
	memset(&tx->hdr, 0, sizeof(tx->hdr));
	if (tx->len < NET_FRAME_HEADER)
		return "a packet is shorter than an Ethernet header";
	if (!(desc->command & E1000E_TXD_DEXT) && desc->command & E1000E_TXD_IC)
		insert_checksum(tx, desc->status >> E1000E_TXD_CSS_SHIFT & 0xff, 0,
				desc->command >> E1000E_TXD_CSO_SHIFT & 0xff);
	if (desc->command & E1000E_TXD_VLE && e1000e_get(tx->d, E1000E_CTRL) & E1000E_CTRL_VME) {
		insert_tag(tx, desc->status >> E1000E_TXD_SPECIAL_SHIFT);
		tag = NET_FRAME_TAG;
	}
	if (tx->large) {
		if (!finish_large(tx, tag))
			return "a large segment does not fit its context";
	} else {
		if (tx->options & E1000E_TXD_POPTS_IXSM)
			finish_ip(tx, tag);
		if (tx->options & E1000E_TXD_POPTS_TXSM)
			finish_l4(tx, tag);
		pad(tx);
	}
	tx->ready = true;
	return NULL;
}

static void count_frame(struct e1000e *d, const uint8_t *frame, size_t len)
{
	e1000e_count(d, E1000E_TPT, 1);
	e1000e_count(d, E1000E_GPTC, 1);
	e1000e_count64(d, E1000E_TOTL, len + CRC);
	e1000e_count64(d, E1000E_GOTCL, len + CRC);
	e1000e_count_size(d, E1000E_PTC64, len + CRC);
	e1000e_count_dst(d, frame, E1000E_BPTC, E1000E_MPTC);
}

static bool loops_back(const struct e1000e *d)
{
	return e1000e_get(d, E1000E_RCTL) & E1000E_RCTL_LBM || e1000e_phy_loops_back(d);
}

/* A frame that comes back must be finished here. */
static void loop_back(struct e1000e_tx *tx, uint8_t *frame, size_t len)
{
	if (tx->hdr.gso_type)
		return; /* larger than any that can be received */
	if (tx->hdr.flags)
		inet_finish_checksum(frame, len, le16toh(tx->hdr.csum_start),
				     le16toh(tx->hdr.csum_offset));
	e1000e_rx_loop_back(tx->d, frame, len);
}

/* Lock held, but not while the back end works. False: it has no room, or all is void now. */
static bool send_frame(struct e1000e_tx *tx, uint8_t *frame, size_t len)
{
	struct e1000e *d = tx->d;
	struct iovec iov[2] = {{&tx->hdr, d->host_hdr}, {frame, len}};
	struct net_packet pkt = {iov, 2, d->host_hdr + len};
	unsigned epoch = d->epoch, taken = 1;

	if (loops_back(d)) {
		loop_back(tx, frame, len);
		count_frame(d, frame, len);
		return true;
	}
	if (!d->host_hdr)
		pkt = (struct net_packet){iov + 1, 1, len};
	pthread_mutex_unlock(&d->lock);
	if (d->netdev)
		taken = net_send(d->netdev, 0, &pkt, 1);
	pthread_mutex_lock(&d->lock);
	if (d->epoch != epoch)
		return false;
	if (taken)
		count_frame(d, frame, len);
	tx->waiting = !taken;
	return taken;
}

/* The packet that is ready; false if it cannot go on now. */
static bool flush(struct e1000e_tx *tx, unsigned *budget)
{
	struct net_segments *s = &tx->segments;

	if (!tx->cut) {
		if (!send_frame(tx, tx->frame, tx->frame_len))
			return false;
		forget(tx);
		return true;
	}
	while (tx->next_segment < s->count && *budget) {
		size_t len;
		uint8_t *frame = net_segments_make(s, tx->next_segment, &len);

		if (!send_frame(tx, frame, len))
			return false;
		tx->next_segment++;
		(*budget)--;
	}
	if (tx->next_segment == s->count)
		forget(tx);
	return true;
}

/* ---- descriptors ---- */

static unsigned ring_reg(const struct e1000e_tx *tx, unsigned reg)
{
	return reg + tx->index * E1000E_QUEUE_STRIDE;
}

static uint32_t ring(const struct e1000e_tx *tx, unsigned reg)
{
	return e1000e_get(tx->d, ring_reg(tx, reg));
}

static bool has_descriptors(const struct e1000e_tx *tx)
{
	uint32_t size = ring(tx, E1000E_TDLEN) / E1000E_DESC;

	/* A tail that the head can never meet is no ring. */
	return e1000e_get(tx->d, E1000E_TCTL) & E1000E_TCTL_EN &&
	       ring(tx, E1000E_TARC) & E1000E_TARC_ENABLE && ring(tx, E1000E_TDH) < size &&
	       ring(tx, E1000E_TDT) < size && ring(tx, E1000E_TDH) != ring(tx, E1000E_TDT);
}

static void set_context(struct e1000e_tx *tx, const struct desc *desc)
{
	uint64_t a = desc->addr;

	tx->context = (struct e1000e_context){
		.ip_start = a,
		.ip_sum = a >> 8,
		.ip_end = a >> 16,
		.l4_start = a >> 32,
		.l4_sum = a >> 40,
		.l4_end = a >> 48,
		.header_len = desc->status >> 8,
		.mss = desc->status >> 16,
		.ipv4 = desc->command & E1000E_TXD_IP,
		.tcp = desc->command & E1000E_TXD_TCP,
	};
}

static void guest_error(struct e1000e *d, const char *what)
{
	log_guest_error(&d->guest_errors, "%s: %s; dropped", device_label(&d->pci.dev), what);
}

static void gather(struct e1000e_tx *tx, const struct desc *desc)
{
	struct e1000e *d = tx->d;
	bool extended = desc->command & E1000E_TXD_DEXT;
	size_t len = desc->command & (extended ? E1000E_TXD_LEN : E1000E_TXD_LEN_LEGACY);
	const char *wrong = NULL;

	if (!tx->gathering) {
		tx->gathering = true;
		tx->options = extended ? desc->status : 0;
		tx->large = extended && desc->command & E1000E_TXD_TSE;
	}
	if (!tx->lost &&
	    (len > ROOM - tx->len || !gm_read(&d->pci.dev.vm->mem, desc->addr,
					      tx->packet + E1000E_TX_HEADROOM + tx->len, len))) {
		tx->lost = true;
		wrong = "a packet is too long, or not in memory";
	}
	if (!tx->lost)
		tx->len += len;
	if (desc->command & E1000E_TXD_EOP) {
		if (!tx->lost)
			wrong = finish(tx, desc);
		if (!tx->ready)
			forget(tx);
	}
	if (wrong)
		guest_error(d, wrong);
}

/* The status, once all else is done. */
static void write_back(struct e1000e_tx *tx, uint64_t gpa, const struct desc *desc)
{
	uint32_t *p = gm_ptr(&tx->d->pci.dev.vm->mem, gpa + LEGACY_TAIL, sizeof(*p), GM_TO_GUEST);

	if (p)
		__atomic_store_n(p, htole32(desc->status | E1000E_TXD_DD), __ATOMIC_RELEASE);
}

/* One descriptor; the causes it raises. False: the ring is not in memory. */
static bool take(struct e1000e_tx *tx, uint32_t *causes)
{
	struct e1000e *d = tx->d;
	uint32_t head = ring(tx, E1000E_TDH);
	uint64_t gpa = e1000e_get64(d, ring_reg(tx, E1000E_TDBAL)) + head * (uint64_t)E1000E_DESC;
	uint8_t bytes[E1000E_DESC];
	struct desc desc;

	if (!gm_read(&d->pci.dev.vm->mem, gpa, bytes, sizeof(bytes))) {
		guest_error(d, "a transmit ring is not in memory");
		return false;
	}
	desc = (struct desc){load_le64(bytes), load_le32(bytes + 8), load_le32(bytes + 12)};
	if ((desc.command & (E1000E_TXD_DEXT | E1000E_TXD_DTYP)) == E1000E_TXD_DEXT)
		set_context(tx, &desc);
	else
		gather(tx, &desc);
	if (desc.command & E1000E_TXD_RS || e1000e_get(d, E1000E_IVAR) & E1000E_IVAR_EVERY_WB) {
		write_back(tx, gpa, &desc);
		*causes |= e1000e_irq_tx_cause(d, tx->index);
	}
	head++;
	*e1000e_reg(d, ring_reg(tx, E1000E_TDH)) = head < ring(tx, E1000E_TDLEN) / E1000E_DESC
							   ? head
							   : 0;
	return true;
}

/* Lock held. True: there is more to do. */
static bool run(struct e1000e_tx *tx)
{
	struct e1000e *d = tx->d;
	unsigned budget = BUDGET;
	uint32_t causes = 0;
	bool worked = false;

	while (budget && !tx->waiting) {
		if (tx->ready) {
			if (!flush(tx, &budget) && !tx->waiting)
				return true; /* a reset came between */
			continue;
		}
		if (!has_descriptors(tx) || !take(tx, &causes))
			break;
		worked = true;
		budget--;
	}
	if (worked && !has_descriptors(tx))
		causes |= E1000E_INT_TXQE;
	if (causes)
		e1000e_irq_raise(d, causes);
	return !budget;
}

void e1000e_tx_work(void *opaque)
{
	struct e1000e *d = opaque;
	bool more = false;

	if (!e1000e_is_live(d))
		return; /* posted again when it is */
	pthread_mutex_lock(&d->lock);
	for (unsigned i = 0; i < E1000E_QUEUES; i++)
		more |= run(&d->tx[i]);
	pthread_mutex_unlock(&d->lock);
	if (more)
		evloop_post(d->pci.dev.vm->loop, &d->tx_work);
}

/* One back end queue serves both rings. */
void e1000e_tx_writable(void *opaque, unsigned queue)
{
	struct e1000e *d = opaque;

	for (unsigned i = 0; i < E1000E_QUEUES; i++)
		d->tx[i].waiting = false;
	evloop_post(d->pci.dev.vm->loop, &d->tx_work);
}

void e1000e_tx_announce(void *opaque)
{
	struct e1000e *d = opaque;
	struct virtio_net_hdr hdr = {0};
	uint8_t frame[NET_ANNOUNCE_FRAME], mac[8];
	struct iovec iov[2] = {{&hdr, d->host_hdr}, {frame, sizeof(frame)}};
	struct net_packet pkt = {iov, 2, d->host_hdr + sizeof(frame)};

	if (!d->netdev || !vm_is_running(d->pci.dev.vm))
		return;
	pthread_mutex_lock(&d->lock);
	store_le64(mac, e1000e_get64(d, E1000E_RAL));
	pthread_mutex_unlock(&d->lock);
	net_make_announcement(frame, mac);
	if (!d->host_hdr)
		pkt = (struct net_packet){iov + 1, 1, sizeof(frame)};
	net_send(d->netdev, 0, &pkt, 1);
}
