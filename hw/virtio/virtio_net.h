/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio network device: virtio 1.2, section 5.1.
 *
 *   virtio_net_hdr.c     packet headers: what a driver may ask of whom
 *   virtio_net_filter.c  which packets the driver wants
 *   virtio_net_hash.c    Toeplitz hashes of packets
 *   virtio_net_rx.c      the data path to the guest
 *   virtio_net_tx.c      the data path from the guest
 *   virtio_net_ctrl.c    the control queue
 *   virtio_net.c         features, configuration space, link, life
 *   virtio_net_vhost.c   queues that the host's kernel or another process serves
 *   virtio_net_pci.c     the PCI devices
 *
 * Threads. All queues belong to one event loop, the iothread's or the main one, which the back end
 * attaches to; the data path takes no lock and does not allocate. The configuration space is read
 * on vCPU threads under vdev.lock. Links change on the main thread.
 */
#ifndef HW_VIRTIO_VIRTIO_NET_H
#define HW_VIRTIO_VIRTIO_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio_net_filter.h"
#include "hw/virtio/virtio_net_hash.h"
#include "hw/virtio/virtio_net_hdr.h"
#include "hw/virtio/virtio_net_spec.h"
#include "hw/virtio/virtio_pci.h"
#include "net/net.h"
#include "vmm/core/thread.h"

enum {
	VIRTIO_NET_CTRL_QUEUE_SIZE = 64,
	VIRTIO_NET_RSS_TABLE = 128, /* entries */

	/* Pieces of one chain, and of one packet: a header and a place for what is too much come
	 * on top, and readv(2) takes 1024. */
	VIRTIO_NET_CHAIN_IOVS = 1020,
	VIRTIO_NET_PACKET_IOVS = VIRTIO_NET_CHAIN_IOVS + 4,
};

struct virtio_net;

/* A chain of a receive queue, from its pop to its push. */
struct virtio_net_rx_chain {
	struct vq_chain chain;
	bool used; /* pushed */
};

/* Room for a packet. */
struct virtio_net_room {
	struct iovec *iov; /* what the back end reads into */
	unsigned iovcnt;
	unsigned chain; /* of the borrowed ones, its first */
	unsigned chains;
	size_t bytes; /* of the chains, header and all */
	size_t len;   /* of the packet, with the back end's header; 0: none */
};

/*
 * Receiving. Chains are popped ahead, as many as the next packets may need, and stand in a list;
 * those that rooms were made of are borrowed until the packets have come. Each room ends in a place
 * outside the guest, so that no packet is cut; what lands there is copied into further chains.
 */
struct virtio_net_rx {
	struct virtio_net *net;
	struct virtqueue *vq;
	unsigned index;

	struct virtio_net_rx_chain *chains; /* [first, first + count) are in the list */
	unsigned chains_max, first, count;
	struct iovec *iovs; /* theirs, in the list's order, up to iovs_end */
	unsigned iovs_end;

	struct virtio_net_room rooms[NET_BATCH];
	struct iovec *room_iovs;
	uint8_t *spill; /* NET_BATCH times NET_PACKET_MAX bytes, touched when they must */
	unsigned room_count;
	unsigned borrowed;  /* chains in rooms */
	unsigned extra;	    /* used behind them */
	unsigned next, end; /* packets that came and could not all be placed yet */
	/* Bytes of guest memory for a packet, if there are: what an ordinary frame takes, or what
	 * the largest may take while large ones come. */
	size_t want, want_frame, want_large;
	unsigned frames; /* in a row */
	bool starved;	 /* the back end waits for net_receive_ready() */
};

/* A packet on its way out. */
struct virtio_net_tx_packet {
	struct vq_chain chain;
	struct virtio_net_hdr hdr;
};

struct virtio_net_tx {
	struct virtio_net *net;
	struct virtqueue *vq;
	unsigned index;

	struct iovec *iovs;
	unsigned iovs_end;
	struct virtio_net_tx_packet packets[NET_BATCH];
	struct net_packet out[NET_BATCH];
	unsigned count, sent; /* packets[sent] to [count] wait for the back end */
	bool waiting;	      /* it says when it takes them */
};

/* Receive side scaling and hash reports. The loop's. */
struct virtio_net_rss {
	bool redirect; /* the table chooses queues */
	uint32_t types;
	uint32_t table_len; /* a power of two */
	uint16_t fallback;  /* for packets without a hash */
	uint16_t table[VIRTIO_NET_RSS_TABLE];
	uint8_t key[VIRTIO_NET_HASH_KEY];
};

/* What goes elsewhere with the guest, apart from what all virtio devices have. */
struct virtio_net_saved {
	uint8_t mac[VIRTIO_NET_MAC];
	bool announce;
	uint16_t pairs;
	uint64_t offloads;
	struct virtio_net_filter filter;
	struct virtio_net_rss rss;
};

struct virtio_net {
	struct virtio_device vdev;

	/* Properties. */
	struct netdev *netdev;
	struct iothread *iothread;
	uint8_t first_mac[VIRTIO_NET_MAC]; /* zero: the next free one */
	bool csum, guest_csum, gso, guest_tso4, guest_tso6, guest_ecn, guest_ufo;
	bool host_tso4, host_tso6, host_ecn, host_ufo;
	bool guest_uso4, guest_uso6, host_uso;
	bool mrg_rxbuf, has_status, guest_announce;
	bool ctrl_vq, ctrl_rx, ctrl_vlan, ctrl_rx_extra, ctrl_mac_addr, ctrl_guest_offloads;
	bool mq, rss_offered, hash;
	uint16_t host_mtu, rx_queue_size, tx_queue_size;
	int32_t speed;
	char *duplex, *tx_kind;
	int32_t bootindex;

	/* From realize on. */
	struct net_peer peer;
	unsigned pairs_max;
	struct virtio_net_rx *rx;
	struct virtio_net_tx *tx;
	struct virtio_net_vhost *vhost; /* NULL: all queues are served here */
	struct ev_work mac_work, link_work, announce_work;

	/* Under vdev.lock. */
	uint8_t mac[VIRTIO_NET_MAC];
	bool link_up, announce;

	/* The loop's. */
	uint16_t pairs; /* in use */
	bool mergeable;
	unsigned guest_hdr; /* bytes in front of a packet, in the guest and at the back end */
	unsigned host_hdr;
	uint64_t offloads; /* GUEST_ features in force */
	struct virtio_net_filter filter;
	struct virtio_net_rss rss;
	struct iovec ctrl_iovs[VQ_MAX_IOV];
	bool loaded; /* a state was, which the start must not undo */

	struct virtio_net_saved saved; /* on its way */
};

extern const struct prop virtio_net_props[];

bool virtio_net_realize(struct virtio_net *net, struct vm *vm, const char *label,
			struct error **err);
/* After the transport is made: packets may come. */
bool virtio_net_attach(struct virtio_net *net, struct error **err);
/* After virtio_close(), before virtio_exit(): the back end leaves the device's loop. */
void virtio_net_detach(struct virtio_net *net);
/* After virtio_exit(): frees. */
void virtio_net_unrealize(struct virtio_net *net);

/* For the state table, net->saved. What was loaded is hostile. */
extern const struct state_desc virtio_net_saved_state;
void virtio_net_save(struct virtio_net *net);
bool virtio_net_load(struct virtio_net *net, struct error **err);

/* ---- between the files of this device; the loop's ---- */

/* What the driver negotiated is in force. */
void virtio_net_rx_start(struct virtio_net_rx *rx);
void virtio_net_rx_init(struct virtio_net *net);
void virtio_net_rx_destroy(struct virtio_net *net);
void virtio_net_rx_kick(struct virtio_net_rx *rx);
/* Forgets chains and packets: their memory is the driver's again. */
void virtio_net_rx_stop(struct virtio_net_rx *rx);
/* Puts chains back into the ring; packets that could not be placed are lost. */
void virtio_net_rx_drain(struct virtio_net_rx *rx);
unsigned virtio_net_rx_buffers(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n);
void virtio_net_rx_received(void *opaque, unsigned queue, const struct net_packet *pkts,
			    unsigned n);

void virtio_net_tx_init(struct virtio_net *net);
void virtio_net_tx_destroy(struct virtio_net *net);
void virtio_net_tx_kick(struct virtio_net_tx *tx);
void virtio_net_tx_stop(struct virtio_net_tx *tx);
void virtio_net_tx_drain(struct virtio_net_tx *tx);
void virtio_net_tx_writable(void *opaque, unsigned queue);

/* Main thread, after virtio_init(): what the back end's server cannot is not offered. */
bool virtio_net_vhost_realize(struct virtio_net *net, struct error **err);
void virtio_net_vhost_unrealize(struct virtio_net *net);
/* Queues are live: lends them if the link is up. */
void virtio_net_vhost_start(struct virtio_net *net);
/* net->pairs changed. */
void virtio_net_vhost_set_pairs(struct virtio_net *net);
/* They are back. */
void virtio_net_vhost_stop(struct virtio_net *net);

void virtio_net_ctrl_kick(struct virtio_net *net, struct virtqueue *vq);
/* How many pairs the guest uses from now on. */
bool virtio_net_set_pairs(struct virtio_net *net, unsigned pairs);
/* GUEST_ features that the driver wants in force. */
bool virtio_net_set_offloads(struct virtio_net *net, uint64_t offloads);
/* Those that it may choose from. */
#define VIRTIO_NET_GUEST_OFFLOADS                                                                  \
	(VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6 |             \
	 VIRTIO_NET_F_GUEST_ECN | VIRTIO_NET_F_GUEST_UFO | VIRTIO_NET_F_GUEST_USO4 |               \
	 VIRTIO_NET_F_GUEST_USO6)

/* ---- PCI ---- */

struct virtio_net_pci {
	struct virtio_pci vpci;
	struct virtio_net net;
};

extern const struct device_desc virtio_net_pci_desc;
extern const struct device_desc virtio_net_pci_non_transitional_desc;
extern const struct device_desc virtio_net_pci_transitional_desc;

/* virtio_net_query.c: struct net_peer's rx_filter. */
void virtio_net_query_filter(void *opaque, struct net_rx_filter *filter);

#endif
