/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio network device: properties, features, configuration space, link, life. virtio 1.2,
 * sections 5.1.2 to 5.1.5; the data path is virtio_net_rx.c and virtio_net_tx.c.
 *
 * Thread: realize, links and announcements main; configuration vCPUs under vdev.lock; the rest the
 * device's loop. Owner: the device that embeds struct virtio_net.
 */
#include "hw/virtio/virtio_net.h"

#include <stdlib.h>

#include "vmm/core/util.h"

enum { QUEUE_SIZE_MIN = 256 };

#define NET_PROP(name_, type_, member, def_, help_)                                                \
	{                                                                                          \
		.name = name_, .type = type_, .offset = offsetof(struct virtio_net, member),       \
		.def = def_, .help = help_                                                         \
	}

const struct prop virtio_net_props[] = {
	NET_PROP("mac", PROP_MAC, first_mac, NULL,
		 "the card's address; none: the next free one from 52:54:00:12:34:56 on"),
	NET_PROP("netdev", PROP_NETDEV, netdev, NULL, "the network; none: packets are lost"),
	NET_PROP("iothread", PROP_IOTHREAD, iothread, NULL,
		 "the thread that serves it; none: the main loop"),
	NET_PROP("bootindex", PROP_I32, bootindex, "-1", "place in the boot order; negative: none"),
	NET_PROP("mq", PROP_BOOL, mq, "off", "as many queue pairs as the netdev has"),
	NET_PROP("rx_queue_size", PROP_U16, rx_queue_size, "256",
		 "entries of a receive queue, a power of two from 256 to 1024"),
	NET_PROP("tx_queue_size", PROP_U16, tx_queue_size, "256",
		 "entries of a transmit queue, a power of two from 256 to 1024"),
	NET_PROP("tx", PROP_STRING, tx_kind, NULL, "bh: packets go out at once"),
	NET_PROP("host_mtu", PROP_U16, host_mtu, "0", "bytes the guest is told; 0: nothing"),
	NET_PROP("speed", PROP_I32, speed, "-1", "Mbit/s the guest is told; -1: nothing"),
	NET_PROP("duplex", PROP_STRING, duplex, NULL, "what the guest is told: half or full"),
	NET_PROP("csum", PROP_BOOL, csum, "on", "the guest may leave checksums to the host"),
	NET_PROP("guest_csum", PROP_BOOL, guest_csum, "on", "the host to the guest"),
	NET_PROP("gso", PROP_BOOL, gso, "on", "host_tso4 and host_tso6 for old drivers"),
	NET_PROP("guest_tso4", PROP_BOOL, guest_tso4, "on", "the guest takes large IPv4 segments"),
	NET_PROP("guest_tso6", PROP_BOOL, guest_tso6, "on", "large IPv6 segments"),
	NET_PROP("guest_ecn", PROP_BOOL, guest_ecn, "on", "large segments with ECN"),
	NET_PROP("guest_ufo", PROP_BOOL, guest_ufo, "on", "large UDP packets to be fragmented"),
	NET_PROP("guest_uso4", PROP_BOOL, guest_uso4, "on", "trains of IPv4 UDP packets"),
	NET_PROP("guest_uso6", PROP_BOOL, guest_uso6, "on", "trains of IPv6 UDP packets"),
	NET_PROP("host_tso4", PROP_BOOL, host_tso4, "on", "the host takes large IPv4 segments"),
	NET_PROP("host_tso6", PROP_BOOL, host_tso6, "on", "large IPv6 segments"),
	NET_PROP("host_ecn", PROP_BOOL, host_ecn, "on", "large segments with ECN"),
	NET_PROP("host_ufo", PROP_BOOL, host_ufo, "on", "large UDP packets to be fragmented"),
	NET_PROP("host_uso", PROP_BOOL, host_uso, "on", "trains of UDP packets"),
	NET_PROP("mrg_rxbuf", PROP_BOOL, mrg_rxbuf, "on", "a packet may fill several buffers"),
	NET_PROP("status", PROP_BOOL, has_status, "on", "the guest sees the link's state"),
	NET_PROP("guest_announce", PROP_BOOL, guest_announce, "on",
		 "the guest is asked to tell the network where it is"),
	NET_PROP("ctrl_vq", PROP_BOOL, ctrl_vq, "on", "a control queue"),
	NET_PROP("ctrl_rx", PROP_BOOL, ctrl_rx, "on", "the guest chooses which packets it gets"),
	NET_PROP("ctrl_vlan", PROP_BOOL, ctrl_vlan, "on", "by VLAN, too"),
	NET_PROP("ctrl_rx_extra", PROP_BOOL, ctrl_rx_extra, "on", "by kinds of address, too"),
	NET_PROP("ctrl_mac_addr", PROP_BOOL, ctrl_mac_addr, "on", "it sets its address"),
	NET_PROP("ctrl_guest_offloads", PROP_BOOL, ctrl_guest_offloads, "on",
		 "it switches guest_ offloads while it runs"),
	NET_PROP("rss", PROP_BOOL, rss_offered, "off", "queues are chosen by hashes of packets"),
	NET_PROP("hash", PROP_BOOL, hash, "off", "the guest sees hashes of packets"),
	{.type = PROP_END},
};

/* What of the features a property switches, and what it takes besides. */
static const struct feature {
	uint64_t bit;
	size_t prop;
	bool control;	   /* the control queue */
	unsigned offloads; /* packets with headers, and the back end's help with these */
} features[] = {
#define PLAIN(bit, member)                                                                         \
	{                                                                                          \
		VIRTIO_NET_F_##bit, offsetof(struct virtio_net, member), false, 0                  \
	}
#define CONTROL(bit, member)                                                                       \
	{                                                                                          \
		VIRTIO_NET_F_##bit, offsetof(struct virtio_net, member), true, 0                   \
	}
#define OFFLOAD(bit, member, o)                                                                    \
	{                                                                                          \
		VIRTIO_NET_F_##bit, offsetof(struct virtio_net, member), false, o                  \
	}
	OFFLOAD(CSUM, csum, NET_OFFLOAD_CSUM),
	OFFLOAD(GUEST_CSUM, guest_csum, NET_OFFLOAD_CSUM),
	OFFLOAD(GSO, gso, NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6),
	OFFLOAD(GUEST_TSO4, guest_tso4, NET_OFFLOAD_TSO4),
	OFFLOAD(GUEST_TSO6, guest_tso6, NET_OFFLOAD_TSO6),
	OFFLOAD(GUEST_ECN, guest_ecn, NET_OFFLOAD_ECN),
	OFFLOAD(GUEST_UFO, guest_ufo, NET_OFFLOAD_UFO),
	OFFLOAD(GUEST_USO4, guest_uso4, NET_OFFLOAD_USO4),
	OFFLOAD(GUEST_USO6, guest_uso6, NET_OFFLOAD_USO6),
	OFFLOAD(HOST_TSO4, host_tso4, NET_OFFLOAD_TSO4),
	OFFLOAD(HOST_TSO6, host_tso6, NET_OFFLOAD_TSO6),
	OFFLOAD(HOST_ECN, host_ecn, NET_OFFLOAD_ECN),
	OFFLOAD(HOST_UFO, host_ufo, NET_OFFLOAD_UFO),
	OFFLOAD(HOST_USO, host_uso, NET_OFFLOAD_USO4 | NET_OFFLOAD_USO6),
	PLAIN(MRG_RXBUF, mrg_rxbuf),
	PLAIN(STATUS, has_status),
	PLAIN(CTRL_VQ, ctrl_vq),
	CONTROL(CTRL_RX, ctrl_rx),
	CONTROL(CTRL_VLAN, ctrl_vlan),
	CONTROL(CTRL_RX_EXTRA, ctrl_rx_extra),
	CONTROL(CTRL_MAC_ADDR, ctrl_mac_addr),
	CONTROL(GUEST_ANNOUNCE, guest_announce),
	CONTROL(RSS, rss_offered),
	CONTROL(HASH_REPORT, hash),
	{VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, offsetof(struct virtio_net, ctrl_guest_offloads), true,
	 NET_OFFLOAD_CSUM},
#undef PLAIN
#undef CONTROL
#undef OFFLOAD
};

static struct virtio_net *net_of(struct virtio_device *vdev)
{
	return container_of(vdev, struct virtio_net, vdev);
}

static uint64_t net_features(const struct virtio_net *net)
{
	const struct netdev *nd = net->netdev;
	unsigned able = nd && nd->vnet_hdr_max ? nd->offloads_able : 0;
	uint64_t f = VIRTIO_NET_F_MAC;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const bool *wanted = (const bool *)((const char *)net + features[i].prop);

		if (*wanted && (!features[i].control || net->ctrl_vq) &&
		    !(features[i].offloads & ~able))
			f |= features[i].bit;
	}
	if (net->ctrl_vq && net->pairs_max > 1)
		f |= VIRTIO_NET_F_MQ;
	if (net->host_mtu)
		f |= VIRTIO_NET_F_MTU;
	if (net->speed >= 0 || net->duplex)
		f |= VIRTIO_NET_F_SPEED_DUPLEX;
	return f;
}

/* ---- configuration space ---- */

static uint8_t duplex_code(const char *name)
{
	if (!name)
		return VIRTIO_NET_DUPLEX_UNKNOWN;
	return !strcmp(name, "full") ? VIRTIO_NET_DUPLEX_FULL : VIRTIO_NET_DUPLEX_HALF;
}

static void read_config(struct virtio_device *vdev, uint8_t *config)
{
	const struct virtio_net *net = net_of(vdev);
	bool hashes = vdev->host_features & (VIRTIO_NET_F_RSS | VIRTIO_NET_F_HASH_REPORT);
	struct virtio_net_config c = {
		.status = htole16((net->link_up ? VIRTIO_NET_S_LINK_UP : 0) |
				  (net->announce ? VIRTIO_NET_S_ANNOUNCE : 0)),
		.max_virtqueue_pairs = htole16(net->pairs_max),
		.mtu = htole16(net->host_mtu),
		.speed = htole32(net->speed),
		.duplex = duplex_code(net->duplex),
		.rss_max_key_size = hashes ? VIRTIO_NET_HASH_KEY : 0,
		.rss_max_indirection_table_length = htole16(hashes ? VIRTIO_NET_RSS_TABLE : 0),
		.supported_hash_types = htole32(hashes ? VIRTIO_NET_HASH_TYPES : 0),
	};

	memcpy(c.mac, net->mac, sizeof(c.mac));
	memcpy(config, &c, sizeof(c));
}

/* Loop. */
static void take_mac(void *opaque)
{
	struct virtio_net *net = opaque;

	pthread_mutex_lock(&net->vdev.lock);
	memcpy(net->filter.mac, net->mac, sizeof(net->mac));
	pthread_mutex_unlock(&net->vdev.lock);
}

/* Lock held. */
static void set_mac(struct virtio_net *net, const uint8_t *mac)
{
	if (!memcmp(net->mac, mac, sizeof(net->mac)) || net->vdev.closed)
		return;
	memcpy(net->mac, mac, sizeof(net->mac));
	evloop_post(net->vdev.loop, &net->mac_work);
}

/* How drivers set their address before there was a command for it (5.1.5). */
static void write_config(struct virtio_device *vdev, const uint8_t *config, unsigned offset,
			 unsigned size)
{
	if (offset < VIRTIO_NET_MAC &&
	    !virtio_has_feature(vdev, VIRTIO_F_VERSION_1 | VIRTIO_NET_F_CTRL_MAC_ADDR))
		set_mac(net_of(vdev), config);
}

static void net_reset(struct virtio_device *vdev)
{
	struct virtio_net *net = net_of(vdev);

	net->announce = false;
	set_mac(net, net->first_mac);
}

/* ---- what the driver wants, on the loop ---- */

static unsigned offload_bits(uint64_t offloads)
{
	static const struct {
		uint64_t feature;
		unsigned bit;
	} map[] = {
		{VIRTIO_NET_F_GUEST_CSUM, NET_OFFLOAD_CSUM},
		{VIRTIO_NET_F_GUEST_TSO4, NET_OFFLOAD_TSO4},
		{VIRTIO_NET_F_GUEST_TSO6, NET_OFFLOAD_TSO6},
		{VIRTIO_NET_F_GUEST_ECN, NET_OFFLOAD_ECN},
		{VIRTIO_NET_F_GUEST_UFO, NET_OFFLOAD_UFO},
		{VIRTIO_NET_F_GUEST_USO4, NET_OFFLOAD_USO4},
		{VIRTIO_NET_F_GUEST_USO6, NET_OFFLOAD_USO6},
	};
	unsigned bits = 0;

	/* Segments have unfinished checksums. */
	for (size_t i = 0; i < ARRAY_SIZE(map) && (offloads & VIRTIO_NET_F_GUEST_CSUM); i++)
		if (offloads & map[i].feature)
			bits |= map[i].bit;
	return bits;
}

bool virtio_net_set_offloads(struct virtio_net *net, uint64_t offloads)
{
	if (net->host_hdr && !net_set_offloads(net->netdev, offload_bits(offloads)))
		return false;
	net->offloads = offloads;
	for (unsigned i = 0; i < net->pairs_max; i++)
		virtio_net_rx_start(&net->rx[i]);
	return true;
}

bool virtio_net_set_pairs(struct virtio_net *net, unsigned pairs)
{
	if (net->netdev && !net_set_queues(net->netdev, pairs))
		return false;
	net->pairs = pairs;
	virtio_net_vhost_set_pairs(net);
	/* Some may have been kicked before. */
	for (unsigned i = 0; i < 2 * pairs; i++)
		virtio_again(&net->vdev, &net->vdev.queues[i]);
	return true;
}

static unsigned header_size(const struct virtio_net *net)
{
	if (virtio_has_feature(&net->vdev, VIRTIO_NET_F_HASH_REPORT))
		return VIRTIO_NET_HDR_HASH;
	if (virtio_has_feature(&net->vdev, VIRTIO_F_VERSION_1 | VIRTIO_NET_F_MRG_RXBUF))
		return VIRTIO_NET_HDR_PLAIN;
	return VIRTIO_NET_HDR_LEGACY;
}

/* Tells the back end what is in force. */
static void apply(struct virtio_net *net)
{
	struct netdev *nd = net->netdev;

	net->guest_hdr = header_size(net);
	net->host_hdr = 0;
	net->mergeable = virtio_has_feature(&net->vdev, VIRTIO_NET_F_MRG_RXBUF);
	if (nd && nd->vnet_hdr_max) {
		net->host_hdr = MIN(MIN(net->guest_hdr, (unsigned)VIRTIO_NET_HDR_PLAIN),
				    nd->vnet_hdr_max);
		net_set_vnet_hdr(nd, net->host_hdr);
	}
	net->filter.vlan_filter = virtio_has_feature(&net->vdev, VIRTIO_NET_F_CTRL_VLAN);
	virtio_net_set_offloads(net, net->offloads);
	virtio_net_set_pairs(net, net->pairs);
}

static void start(struct virtio_device *vdev)
{
	struct virtio_net *net = net_of(vdev);

	if (!net->loaded)
		net->offloads = vdev->guest_features & VIRTIO_NET_GUEST_OFFLOADS;
	apply(net);
}

static void set_defaults(struct virtio_net *net)
{
	virtio_net_filter_reset(&net->filter);
	net->rss = (struct virtio_net_rss){.table_len = 1};
	net->offloads = 0;
	net->pairs = 1;
	net->loaded = false;
}

static void stop(struct virtio_device *vdev)
{
	struct virtio_net *net = net_of(vdev);

	virtio_net_vhost_stop(net);
	for (unsigned i = 0; i < net->pairs_max; i++) {
		virtio_net_rx_stop(&net->rx[i]);
		virtio_net_tx_stop(&net->tx[i]);
	}
	set_defaults(net);
	if (net->netdev)
		net_set_queues(net->netdev, 1);
	virtio_net_set_offloads(net, 0);
}

static void drain(struct virtio_device *vdev)
{
	struct virtio_net *net = net_of(vdev);

	virtio_net_vhost_stop(net);
	for (unsigned i = 0; i < net->pairs_max; i++) {
		virtio_net_rx_drain(&net->rx[i]);
		virtio_net_tx_drain(&net->tx[i]);
	}
}

/* Where the control queue is depends on what the driver knows of (5.1.2). */
static bool is_control(const struct virtio_net *net, const struct virtqueue *vq)
{
	bool many = virtio_has_feature(&net->vdev, VIRTIO_NET_F_MQ | VIRTIO_NET_F_RSS);

	return virtio_has_feature(&net->vdev, VIRTIO_NET_F_CTRL_VQ) &&
	       vq->index == (many ? 2 * net->pairs_max : 2);
}

static void kick(struct virtio_device *vdev, struct virtqueue *vq)
{
	struct virtio_net *net = net_of(vdev);
	unsigned pair = vq->index / 2;

	if (is_control(net, vq))
		virtio_net_ctrl_kick(net, vq);
	else if (pair >= net->pairs)
		return;
	else if (vq->index % 2)
		virtio_net_tx_kick(&net->tx[pair]);
	else
		virtio_net_rx_kick(&net->rx[pair]);
}

static void queues_ready(struct virtio_device *vdev)
{
	virtio_net_vhost_start(net_of(vdev));
}

static void net_pause(struct virtio_device *vdev)
{
	virtio_net_vhost_stop(net_of(vdev));
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_NET,
	.name = "virtio-net",
	.read_config = read_config,
	.write_config = write_config,
	.start = start,
	.queues_ready = queues_ready,
	.pause = net_pause,
	.kick = kick,
	.stop = stop,
	.drain = drain,
	.reset = net_reset,
};

/* ---- the link, and where the guest is ---- */

/* Loop: both ends may have waited for one another while the link was down. */
static void follow_link(void *opaque)
{
	struct virtio_net *net = opaque;

	if (net->netdev && !net_link(net->netdev))
		virtio_net_vhost_stop(net);
	for (unsigned i = 0; i < net->pairs_max; i++) {
		net->rx[i].starved = true;
		if (!net->vdev.queues[2 * i].live || !virtio_is_live(&net->vdev))
			continue;
		virtio_net_rx_kick(&net->rx[i]);
		if (net->tx[i].waiting && net->vdev.queues[2 * i + 1].live)
			virtio_net_tx_writable(net, i);
	}
	if (virtio_is_live(&net->vdev))
		virtio_net_vhost_start(net);
}

static void link_changed(void *opaque, bool up)
{
	struct virtio_net *net = opaque;

	pthread_mutex_lock(&net->vdev.lock);
	net->link_up = up;
	pthread_mutex_unlock(&net->vdev.lock);
	virtio_config_changed(&net->vdev);
	evloop_post(net->vdev.loop, &net->link_work);
}

/* Loop. */
static void announce_for_guest(void *opaque)
{
	struct virtio_net *net = opaque;
	uint8_t hdr[VIRTIO_NET_HDR_PLAIN] = {0}, frame[NET_ANNOUNCE_FRAME];
	struct iovec iov[2] = {{hdr, net->host_hdr}, {frame, sizeof(frame)}};
	struct net_packet pkt = {iov, 2, net->host_hdr + sizeof(frame)};

	if (!virtio_is_live(&net->vdev))
		return;
	net_make_announcement(frame, net->filter.mac);
	if (!net->host_hdr)
		pkt = (struct net_packet){iov + 1, 1, sizeof(frame)};
	net_send(net->netdev, 0, &pkt, 1);
}

static void announce(void *opaque)
{
	struct virtio_net *net = opaque;
	bool by_guest;

	pthread_mutex_lock(&net->vdev.lock);
	by_guest = virtio_has_feature(&net->vdev, VIRTIO_NET_F_GUEST_ANNOUNCE) &&
		   virtio_has_feature(&net->vdev, VIRTIO_NET_F_CTRL_VQ) &&
		   virtio_has_feature(&net->vdev, VIRTIO_NET_F_STATUS);
	net->announce = by_guest;
	pthread_mutex_unlock(&net->vdev.lock);
	if (by_guest)
		virtio_config_changed(&net->vdev);
	else
		evloop_post(net->vdev.loop, &net->announce_work);
}

static char *info(void *opaque)
{
	struct virtio_net *net = opaque;
	uint8_t m[VIRTIO_NET_MAC];

	pthread_mutex_lock(&net->vdev.lock);
	memcpy(m, net->mac, sizeof(m));
	pthread_mutex_unlock(&net->vdev.lock);
	return xasprintf("model=virtio-net-pci,macaddr=%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1],
			 m[2], m[3], m[4], m[5]);
}

/* ---- life ---- */

static bool check_queue_size(const char *name, unsigned size, struct error **err)
{
	if (is_pow2(size) && size >= QUEUE_SIZE_MIN && size <= VQ_MAX_SIZE)
		return true;
	error_set(err, "Invalid %s (= %u), must be a power of 2 between %u and %u.", name, size,
		  (unsigned)QUEUE_SIZE_MIN, (unsigned)VQ_MAX_SIZE);
	return false;
}

static bool check_props(const struct virtio_net *net, struct error **err)
{
	if (net->tx_kind && strcmp(net->tx_kind, "bh")) {
		error_set(err, "tx=%s is not supported, tx=bh is", net->tx_kind);
		return false;
	}
	if (net->speed < -1) {
		error_set(err, "'speed' must be between 0 and INT_MAX");
		return false;
	}
	if (net->duplex && strcmp(net->duplex, "half") && strcmp(net->duplex, "full")) {
		error_set(err, "'duplex' must be 'half' or 'full'");
		return false;
	}
	if (net->first_mac[0] & 1) {
		error_set(err, "'mac' must be the address of one card, not of a group");
		return false;
	}
	if (net->netdev && net->netdev->peer) {
		error_set(err, "Property 'netdev' can't take value '%s', it's in use",
			  net->netdev->id);
		return false;
	}
	return check_queue_size("rx_queue_size", net->rx_queue_size, err) &&
	       check_queue_size("tx_queue_size", net->tx_queue_size, err);
}

bool virtio_net_realize(struct virtio_net *net, struct vm *vm, const char *label,
			struct error **err)
{
	struct evloop *loop = net->iothread ? net->iothread->loop : vm->loop;
	unsigned queues;

	if (!check_props(net, err))
		return false;
	net->pairs_max = net->netdev && net->mq ? net->netdev->queues : 1;
	queues = 2 * net->pairs_max + (net->ctrl_vq ? 1 : 0);
	ev_work_init(&net->mac_work, take_mac, net);
	ev_work_init(&net->link_work, follow_link, net);
	ev_work_init(&net->announce_work, announce_for_guest, net);
	if (!virtio_init(&net->vdev, &ops, vm, loop, label, net_features(net),
			 sizeof(struct virtio_net_config), queues, net->rx_queue_size, err))
		return false;
	for (unsigned i = 0; i < net->pairs_max; i++)
		virtio_set_queue_max(&net->vdev, 2 * i + 1, net->tx_queue_size);
	if (net->ctrl_vq)
		virtio_set_queue_max(&net->vdev, queues - 1, VIRTIO_NET_CTRL_QUEUE_SIZE);
	if (!virtio_net_vhost_realize(net, err)) {
		virtio_exit(&net->vdev);
		return false;
	}
	net_mac_take(vm, net->first_mac);
	memcpy(net->mac, net->first_mac, sizeof(net->mac));
	memcpy(net->filter.mac, net->first_mac, sizeof(net->mac));
	net->link_up = !net->netdev || net_link(net->netdev);
	virtio_net_rx_init(net);
	virtio_net_tx_init(net);
	set_defaults(net);
	return true;
}

bool virtio_net_attach(struct virtio_net *net, struct error **err)
{
	struct evloop *loops[NET_MAX_QUEUES];

	for (unsigned i = 0; i < NET_MAX_QUEUES; i++)
		loops[i] = net->vdev.loop;
	net->peer = (struct net_peer){
		.buffers = virtio_net_rx_buffers,
		.received = virtio_net_rx_received,
		.writable = virtio_net_tx_writable,
		.link_changed = link_changed,
		.name = net->vdev.label,
		.info = info,
		.announce = announce,
		.rx_filter = virtio_net_query_filter,
		.opaque = net,
	};
	if (!net->netdev)
		return true;
	if (!net_attach(net->netdev, &net->peer, loops, net->pairs_max, err)) {
		net->netdev = NULL;
		return false;
	}
	/* It may have changed meanwhile. */
	net->link_up = net_link(net->netdev);
	return true;
}

/* The next card may know of no headers. */
static void end_headers(void *opaque)
{
	struct netdev *nd = opaque;

	if (nd->vnet_hdr)
		net_set_vnet_hdr(nd, 0);
}

static void leave_loop(void *opaque)
{
	struct virtio_net *net = opaque;

	evloop_unpost(net->vdev.loop, &net->mac_work);
	evloop_unpost(net->vdev.loop, &net->link_work);
	evloop_unpost(net->vdev.loop, &net->announce_work);
}

void virtio_net_detach(struct virtio_net *net)
{
	if (net->netdev) {
		evloop_call(net->vdev.loop, end_headers, net->netdev);
		net_detach(net->netdev);
	}
	net->netdev = NULL;
	evloop_call(net->vdev.loop, leave_loop, net);
}

void virtio_net_unrealize(struct virtio_net *net)
{
	virtio_net_vhost_unrealize(net);
	virtio_net_rx_destroy(net);
	virtio_net_tx_destroy(net);
	net_mac_release(net->vdev.vm, net->first_mac);
}

/* ---- state ---- */

static const struct state_field filter_fields[] = {
	STATE_FIELD(struct virtio_net_filter, promisc, STATE_BOOL),
	STATE_FIELD(struct virtio_net_filter, allmulti, STATE_BOOL),
	STATE_FIELD(struct virtio_net_filter, alluni, STATE_BOOL),
	STATE_FIELD(struct virtio_net_filter, nomulti, STATE_BOOL),
	STATE_FIELD(struct virtio_net_filter, nouni, STATE_BOOL),
	STATE_FIELD(struct virtio_net_filter, nobcast, STATE_BOOL),
	STATE_FIELD(struct virtio_net_filter, uni_overflow, STATE_BOOL),
	STATE_FIELD(struct virtio_net_filter, multi_overflow, STATE_BOOL),
	STATE_FIELD(struct virtio_net_filter, uni_count, STATE_U32),
	STATE_FIELD(struct virtio_net_filter, multi_count, STATE_U32),
	STATE_BUFFER(struct virtio_net_filter, uni),
	STATE_BUFFER(struct virtio_net_filter, multi),
	STATE_BUFFER(struct virtio_net_filter, vlans),
	{.type = STATE_END},
};

static const struct state_desc filter_state = {
	.name = "virtio-net-filter",
	.version = 1,
	.fields = filter_fields,
};

static const struct state_field rss_fields[] = {
	STATE_FIELD(struct virtio_net_rss, redirect, STATE_BOOL),
	STATE_FIELD(struct virtio_net_rss, types, STATE_U32),
	STATE_FIELD(struct virtio_net_rss, table_len, STATE_U32),
	STATE_FIELD(struct virtio_net_rss, fallback, STATE_U16),
	STATE_ARRAY(struct virtio_net_rss, table, STATE_U16),
	STATE_BUFFER(struct virtio_net_rss, key),
	{.type = STATE_END},
};

static const struct state_desc rss_state = {
	.name = "virtio-net-rss",
	.version = 1,
	.fields = rss_fields,
};

static const struct state_field saved_fields[] = {
	STATE_BUFFER(struct virtio_net_saved, mac),
	STATE_FIELD(struct virtio_net_saved, announce, STATE_BOOL),
	STATE_FIELD(struct virtio_net_saved, pairs, STATE_U16),
	STATE_FIELD(struct virtio_net_saved, offloads, STATE_U64),
	{.name = "filter",
	 .type = STATE_STRUCT,
	 .offset = offsetof(struct virtio_net_saved, filter),
	 .size = sizeof(struct virtio_net_filter),
	 .desc = &filter_state},
	{.name = "rss",
	 .type = STATE_STRUCT,
	 .offset = offsetof(struct virtio_net_saved, rss),
	 .size = sizeof(struct virtio_net_rss),
	 .desc = &rss_state},
	{.type = STATE_END},
};

const struct state_desc virtio_net_saved_state = {
	.name = "virtio-net-card",
	.version = 1,
	.fields = saved_fields,
};

static void save_on_loop(void *opaque)
{
	struct virtio_net *net = opaque;

	pthread_mutex_lock(&net->vdev.lock);
	memcpy(net->saved.mac, net->mac, sizeof(net->mac));
	net->saved.announce = net->announce;
	pthread_mutex_unlock(&net->vdev.lock);
	net->saved.pairs = net->pairs;
	net->saved.offloads = net->offloads;
	net->saved.filter = net->filter;
	net->saved.rss = net->rss;
}

void virtio_net_save(struct virtio_net *net)
{
	evloop_call(net->vdev.loop, save_on_loop, net);
}

static bool is_loadable(const struct virtio_net *net)
{
	const struct virtio_net_saved *s = &net->saved;

	if (!s->pairs || s->pairs > net->pairs_max || !virtio_net_filter_valid(&s->filter) ||
	    s->offloads & ~(net->vdev.guest_features & VIRTIO_NET_GUEST_OFFLOADS) ||
	    s->rss.types & ~VIRTIO_NET_HASH_TYPES || !is_pow2(s->rss.table_len) ||
	    s->rss.table_len > VIRTIO_NET_RSS_TABLE)
		return false;
	return true; /* queues that are not there are not chosen */
}

static void load_on_loop(void *opaque)
{
	struct virtio_net *net = opaque;

	pthread_mutex_lock(&net->vdev.lock);
	memcpy(net->mac, net->saved.mac, sizeof(net->mac));
	net->announce = net->saved.announce;
	pthread_mutex_unlock(&net->vdev.lock);
	net->filter = net->saved.filter;
	memcpy(net->filter.mac, net->saved.mac, sizeof(net->filter.mac));
	net->rss = net->saved.rss;
	net->pairs = net->saved.pairs;
	net->offloads = net->saved.offloads;
	net->loaded = true;
	if (net->vdev.active)
		apply(net);
}

bool virtio_net_load(struct virtio_net *net, struct error **err)
{
	if (!is_loadable(net)) {
		error_set(err, "%s: the saved state of the card cannot be", net->vdev.label);
		return false;
	}
	evloop_call(net->vdev.loop, load_on_loop, net);
	return true;
}
