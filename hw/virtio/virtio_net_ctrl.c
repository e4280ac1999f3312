/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control queue: virtio 1.2, section 5.1.6.5. A command is a class, a number and data; the
 * answer is one byte.
 *
 * Thread: the device's loop. Owner: struct virtio_net.
 */
#include "hw/virtio/virtio_net.h"
#include "vmm/core/util.h"

/* A command's data, read in order; each byte once. */
struct data {
	const struct iovec *iov;
	unsigned iovcnt;
	size_t at, left;
};

static bool take(struct data *d, void *to, size_t n)
{
	if (n > d->left)
		return false;
	iov_to_buf(d->iov, d->iovcnt, d->at, to, n);
	d->at += n;
	d->left -= n;
	return true;
}

static bool take_u8(struct data *d, uint8_t *v)
{
	return take(d, v, sizeof(*v));
}

static bool take_u16(struct data *d, uint16_t *v)
{
	bool ok = take(d, v, sizeof(*v));

	*v = ok ? le16toh(*v) : 0;
	return ok;
}

static bool take_u32(struct data *d, uint32_t *v)
{
	bool ok = take(d, v, sizeof(*v));

	*v = ok ? le32toh(*v) : 0;
	return ok;
}

static bool has(const struct virtio_net *net, uint64_t feature)
{
	return virtio_has_feature(&net->vdev, feature);
}

/* ---- which packets (5.1.6.5.1 to 5.1.6.5.3) ---- */

static bool rx_mode(struct virtio_net *net, uint8_t cmd, struct data *d)
{
	struct virtio_net_filter *f = &net->filter;
	bool *const modes[] = {
		[VIRTIO_NET_CTRL_RX_PROMISC] = &f->promisc,
		[VIRTIO_NET_CTRL_RX_ALLMULTI] = &f->allmulti,
		[VIRTIO_NET_CTRL_RX_ALLUNI] = &f->alluni,
		[VIRTIO_NET_CTRL_RX_NOMULTI] = &f->nomulti,
		[VIRTIO_NET_CTRL_RX_NOUNI] = &f->nouni,
		[VIRTIO_NET_CTRL_RX_NOBCAST] = &f->nobcast,
	};
	uint8_t on;

	if (cmd >= ARRAY_SIZE(modes) || !take_u8(d, &on) || d->left)
		return false;
	if (!has(net, cmd >= VIRTIO_NET_CTRL_RX_ALLUNI ? VIRTIO_NET_F_CTRL_RX_EXTRA
						       : VIRTIO_NET_F_CTRL_RX))
		return false;
	*modes[cmd] = on != 0;
	return true;
}

/* A count and as many addresses. More than fit are read over, and all of their kind pass then. */
static bool take_macs(struct data *d, uint8_t macs[][VIRTIO_NET_MAC], uint32_t *kept, bool *over)
{
	uint32_t count;

	if (!take_u32(d, &count) || count > d->left / VIRTIO_NET_MAC)
		return false;
	*over = count > VIRTIO_NET_FILTER_MACS;
	*kept = *over ? 0 : count;
	if (!*over)
		return take(d, macs, count * VIRTIO_NET_MAC);
	d->at += (size_t)count * VIRTIO_NET_MAC;
	d->left -= (size_t)count * VIRTIO_NET_MAC;
	return true;
}

static bool set_mac_table(struct virtio_net *net, struct data *d)
{
	struct virtio_net_filter f = net->filter;

	if (!has(net, VIRTIO_NET_F_CTRL_RX) ||
	    !take_macs(d, f.uni, &f.uni_count, &f.uni_overflow) ||
	    !take_macs(d, f.multi, &f.multi_count, &f.multi_overflow) || d->left)
		return false;
	net->filter = f;
	return true;
}

static bool set_mac(struct virtio_net *net, struct data *d)
{
	uint8_t mac[VIRTIO_NET_MAC];

	if (!has(net, VIRTIO_NET_F_CTRL_MAC_ADDR) || !take(d, mac, sizeof(mac)) || d->left)
		return false;
	memcpy(net->filter.mac, mac, sizeof(mac));
	pthread_mutex_lock(&net->vdev.lock);
	memcpy(net->mac, mac, sizeof(mac));
	pthread_mutex_unlock(&net->vdev.lock);
	return true;
}

static bool mac_command(struct virtio_net *net, uint8_t cmd, struct data *d)
{
	switch (cmd) {
	case VIRTIO_NET_CTRL_MAC_TABLE_SET:
		return set_mac_table(net, d);
	case VIRTIO_NET_CTRL_MAC_ADDR_SET:
		return set_mac(net, d);
	}
	return false;
}

static bool vlan_command(struct virtio_net *net, uint8_t cmd, struct data *d)
{
	uint16_t vid;

	if (!has(net, VIRTIO_NET_F_CTRL_VLAN) || !take_u16(d, &vid) || d->left ||
	    vid >= VIRTIO_NET_VLANS)
		return false;
	switch (cmd) {
	case VIRTIO_NET_CTRL_VLAN_ADD:
		net->filter.vlans[vid / 8] |= 1 << vid % 8;
		return true;
	case VIRTIO_NET_CTRL_VLAN_DEL:
		net->filter.vlans[vid / 8] &= ~(1 << vid % 8);
		return true;
	}
	return false;
}

static bool announce_command(struct virtio_net *net, uint8_t cmd, struct data *d)
{
	bool was;

	if (!has(net, VIRTIO_NET_F_GUEST_ANNOUNCE) || cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK ||
	    d->left)
		return false;
	pthread_mutex_lock(&net->vdev.lock);
	was = net->announce;
	net->announce = false;
	pthread_mutex_unlock(&net->vdev.lock);
	return was;
}

/* ---- how many queues, and which (5.1.6.5.5 to 5.1.6.5.7) ---- */

static bool set_pairs(struct virtio_net *net, struct data *d)
{
	uint16_t pairs;

	if (!has(net, VIRTIO_NET_F_MQ) || !take_u16(d, &pairs) || d->left || !pairs ||
	    pairs > net->pairs_max || !virtio_net_set_pairs(net, pairs))
		return false;
	net->rss.redirect = false;
	if (!has(net, VIRTIO_NET_F_HASH_REPORT))
		net->rss.types = 0;
	return true;
}

static bool take_key(struct data *d, struct virtio_net_rss *rss)
{
	uint8_t len;

	memset(rss->key, 0, sizeof(rss->key));
	return take_u8(d, &len) && len <= sizeof(rss->key) && take(d, rss->key, len) && !d->left &&
	       (len || !rss->types);
}

static bool set_rss(struct virtio_net *net, struct data *d)
{
	struct virtio_net_rss rss = {.redirect = true};
	uint16_t mask, pairs;

	if (!has(net, VIRTIO_NET_F_RSS) || !take_u32(d, &rss.types) || !take_u16(d, &mask) ||
	    !take_u16(d, &rss.fallback))
		return false;
	rss.table_len = (uint32_t)mask + 1;
	if (rss.types & ~VIRTIO_NET_HASH_TYPES || !is_pow2(rss.table_len) ||
	    rss.table_len > VIRTIO_NET_RSS_TABLE || rss.fallback >= net->pairs_max)
		return false;
	for (unsigned i = 0; i < rss.table_len; i++)
		if (!take_u16(d, &rss.table[i]) || rss.table[i] >= net->pairs_max)
			return false;
	if (!take_u16(d, &pairs) || !take_key(d, &rss) || !pairs || pairs > net->pairs_max ||
	    !virtio_net_set_pairs(net, pairs))
		return false;
	net->rss = rss;
	return true;
}

static bool set_hash(struct virtio_net *net, struct data *d)
{
	struct virtio_net_rss rss = net->rss;
	uint16_t reserved[4];

	if (!has(net, VIRTIO_NET_F_HASH_REPORT) || !take_u32(d, &rss.types) ||
	    rss.types & ~VIRTIO_NET_HASH_TYPES || !take(d, reserved, sizeof(reserved)) ||
	    !take_key(d, &rss))
		return false;
	net->rss = rss;
	return true;
}

static bool mq_command(struct virtio_net *net, uint8_t cmd, struct data *d)
{
	switch (cmd) {
	case VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET:
		return set_pairs(net, d);
	case VIRTIO_NET_CTRL_MQ_RSS_CONFIG:
		return set_rss(net, d);
	case VIRTIO_NET_CTRL_MQ_HASH_CONFIG:
		return set_hash(net, d);
	}
	return false;
}

static bool offloads_command(struct virtio_net *net, uint8_t cmd, struct data *d)
{
	uint64_t offloads;

	if (!has(net, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
	    cmd != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || !take(d, &offloads, sizeof(offloads)) ||
	    d->left)
		return false;
	offloads = le64toh(offloads);
	return !(offloads & ~(VIRTIO_NET_GUEST_OFFLOADS & net->vdev.guest_features)) &&
	       virtio_net_set_offloads(net, offloads);
}

/* ---- the queue ---- */

static bool command(struct virtio_net *net, struct data *d)
{
	uint8_t class, cmd;

	if (!take_u8(d, &class) || !take_u8(d, &cmd))
		return false;
	switch (class) {
	case VIRTIO_NET_CTRL_RX:
		return rx_mode(net, cmd, d);
	case VIRTIO_NET_CTRL_MAC:
		return mac_command(net, cmd, d);
	case VIRTIO_NET_CTRL_VLAN:
		return vlan_command(net, cmd, d);
	case VIRTIO_NET_CTRL_ANNOUNCE:
		return announce_command(net, cmd, d);
	case VIRTIO_NET_CTRL_MQ:
		return mq_command(net, cmd, d);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return offloads_command(net, cmd, d);
	}
	return false;
}

void virtio_net_ctrl_kick(struct virtio_net *net, struct virtqueue *vq)
{
	struct vq_chain chain = {.iov = net->ctrl_iovs, .iov_max = ARRAY_SIZE(net->ctrl_iovs)};
	unsigned budget = vq->size;

	do {
		vq_disable_notify(vq);
		while (budget && vq_pop(vq, &chain) > 0) {
			struct data d = {chain.iov, chain.readable, 0, chain.readable_bytes};
			uint8_t answer;

			budget--;
			if (!chain.writable_bytes) {
				virtio_device_fail(&net->vdev,
						   "a command has no room for an answer");
				return;
			}
			answer = command(net, &d) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
			iov_from_buf(chain.iov + chain.readable, chain.writable, 0, &answer, 1);
			virtio_push(&net->vdev, vq, &chain, 1);
		}
		if (!budget) {
			virtio_again(&net->vdev, vq);
			return;
		}
	} while (vq_enable_notify(vq));
}
