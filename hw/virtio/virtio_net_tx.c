/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the guest to the back end: virtio 1.2, section 5.1.6.2.
 *
 * A kick takes chains, up to NET_BATCH at a time, checks their headers, and hands them to the back
 * end as they lie in guest memory. What the back end does not take waits until it says so, and
 * kicks are not asked for meanwhile.
 *
 * Thread: the device's loop. Owner: struct virtio_net.
 */
#include <stdlib.h>

#include "hw/virtio/virtio_net.h"
#include "vmm/core/util.h"

/* Of all packets of a batch; one more long chain must fit for it to go on. */
enum { TX_IOVS = 2 * VIRTIO_NET_PACKET_IOVS };
/* So many at once are the driver's before the rest is sent; few are not worth an interrupt. */
enum { TX_PUBLISH = 16 };

void virtio_net_tx_init(struct virtio_net *net)
{
	net->tx = xcalloc(net->pairs_max, sizeof(*net->tx));
	for (unsigned i = 0; i < net->pairs_max; i++) {
		struct virtio_net_tx *tx = &net->tx[i];

		tx->net = net;
		tx->vq = &net->vdev.queues[2 * i + 1];
		tx->index = i;
		tx->iovs = xcalloc(TX_IOVS, sizeof(*tx->iovs));
	}
}

void virtio_net_tx_destroy(struct virtio_net *net)
{
	for (unsigned i = 0; net->tx && i < net->pairs_max; i++)
		free(net->tx[i].iovs);
	free(net->tx);
	net->tx = NULL;
}

static void forget(struct virtio_net_tx *tx)
{
	tx->count = tx->sent = tx->iovs_end = 0;
	tx->waiting = false;
}

void virtio_net_tx_stop(struct virtio_net_tx *tx)
{
	forget(tx);
}

void virtio_net_tx_drain(struct virtio_net_tx *tx)
{
	while (tx->count > tx->sent)
		vq_unpop(tx->vq, &tx->packets[--tx->count].chain);
	forget(tx);
}

/* NULL, and the packet stands in the batch; or why it is dropped. */
static const char *add(struct virtio_net_tx *tx)
{
	struct virtio_net *net = tx->net;
	struct virtio_net_tx_packet *p = &tx->packets[tx->count];
	struct net_packet *out = &tx->out[tx->count];
	struct iovec *iov = p->chain.iov;
	unsigned iovcnt = p->chain.readable;
	const char *wrong;

	memset(&p->hdr, 0, sizeof(p->hdr));
	iov_to_buf(iov, iovcnt, 0, &p->hdr, MIN(net->guest_hdr, sizeof(p->hdr)));
	vq_iov_cut_front(&iov, &iovcnt, net->guest_hdr);
	out->len = p->chain.readable_bytes - net->guest_hdr;
	wrong = virtio_net_hdr_check(&p->hdr, net->vdev.guest_features, out->len);
	if (wrong)
		return wrong;
	/* A place in front was left for the header that was checked. */
	if (net->host_hdr) {
		*--iov = (struct iovec){&p->hdr, net->host_hdr};
		iovcnt++;
		out->len += net->host_hdr;
	}
	out->iov = iov;
	out->iovcnt = iovcnt;
	tx->count++;
	return NULL;
}

/* Fills the batch. */
static void collect(struct virtio_net_tx *tx, unsigned *budget)
{
	struct virtio_device *vdev = &tx->net->vdev;

	while (tx->count < NET_BATCH && *budget &&
	       tx->iovs_end + VIRTIO_NET_PACKET_IOVS <= TX_IOVS) {
		struct vq_chain *chain = &tx->packets[tx->count].chain;
		const char *wrong;

		chain->iov = tx->iovs + tx->iovs_end + 1;
		chain->iov_max = VIRTIO_NET_CHAIN_IOVS;
		if (vq_pop(tx->vq, chain) <= 0)
			return;
		(*budget)--;
		if (chain->readable_bytes < tx->net->guest_hdr) {
			virtio_device_fail(vdev, "a packet has no header");
			return;
		}
		wrong = add(tx);
		if (!wrong) {
			tx->iovs_end += 1 + chain->readable + chain->writable;
			continue;
		}
		log_guest_error(&vdev->guest_errors, "%s: %s; dropped", vdev->label, wrong);
		virtio_push(vdev, tx->vq, chain, 0);
	}
}

/* False if the back end has not taken all. */
static bool flush(struct virtio_net_tx *tx)
{
	struct virtio_net *net = tx->net;
	unsigned left = tx->count - tx->sent, taken = left;

	if (!left)
		return true;
	if (net->netdev)
		taken = net_send(net->netdev, tx->index, tx->out + tx->sent, left);
	for (unsigned i = 0; i < taken; i++)
		virtio_push(&net->vdev, tx->vq, &tx->packets[tx->sent++].chain, 0);
	if (taken >= TX_PUBLISH)
		virtio_publish(&net->vdev, tx->vq);
	if (tx->sent < tx->count) {
		tx->waiting = true;
		return false;
	}
	forget(tx);
	return true;
}

void virtio_net_tx_kick(struct virtio_net_tx *tx)
{
	/* A driver that adds as fast as we send must not keep the loop from others. */
	unsigned budget = tx->vq->size;

	if (tx->waiting || !flush(tx))
		return;
	do {
		vq_disable_notify(tx->vq);
		for (;;) {
			collect(tx, &budget);
			if (!tx->count)
				break;
			if (!flush(tx))
				return;
		}
		if (!budget) {
			virtio_again(&tx->net->vdev, tx->vq);
			return;
		}
	} while (vq_enable_notify(tx->vq));
}

void virtio_net_tx_writable(void *opaque, unsigned queue)
{
	struct virtio_net *net = opaque;
	struct virtio_net_tx *tx = &net->tx[queue];

	tx->waiting = false;
	/* Else it goes on when the guest does. */
	if (virtio_is_live(&net->vdev) && tx->vq->live)
		virtio_net_tx_kick(tx);
}
