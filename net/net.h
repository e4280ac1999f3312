/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network back ends: what carries a network card's packets to the world. One back end (struct
 * netdev: user, tap, stream, vhost-user, ...) has one front end (struct net_peer: a virtio-net or
 * e1000e device) and 1 to NET_MAX_QUEUES queue pairs.
 *
 *   front end -> net_send()            -> ops->send       packets out, in batches
 *   back end  -> net_receive_buffers() -> peer->buffers   where the next packets may be written
 *   back end  -> net_received()        -> peer->received  they were
 *
 * A packet is an iovec array. Sending is over when the call returns; receiving goes straight into
 * the guest's buffers (readv(2), recvmmsg(2)): a packet is copied once at most, and nothing here
 * allocates for one. Back-pressure: send() takes fewer packets than it was given, and calls
 * peer->writable() when it may take more; buffers() gives fewer than it was asked for, and the
 * front end calls net_receive_ready() when it has more. A back end stops reading its descriptor
 * meanwhile.
 *
 * Header. If the back end can (netdev->vnet_hdr_max > 0) and the front end wishes, packets in both
 * directions begin with a struct virtio_net_hdr of netdev->vnet_hdr bytes (10 or 12; virtio 1.2,
 * section 5.1.6, little-endian), which carries checksum and segmentation offloads. Otherwise a
 * packet begins with the Ethernet header and is a plain frame. num_buffers belongs to the front
 * end: back ends leave it alone, and received() comes before it is filled in. In what is sent the
 * header is iov[0], and nothing else is; in room for what is received it is at the front, in any
 * number of pieces.
 *
 * Rooms are good until the callback of the loop in which net_receive_buffers() gave them ends: a
 * back end reads into them and says so at once. Calls do not nest: receive_ready() never comes from
 * inside net_receive_buffers() or net_received(), nor writable() from inside net_send().
 *
 * Threads. A queue belongs to the loop that net_attach() named for it; all functions that take a
 * queue, and the peer's about that queue, run on that loop: net_attach() and net_detach() see to it
 * for attach() and detach(), while the main thread waits. The guest's wishes (set_queues(),
 * set_vnet_hdr(), set_offloads()) come on the loop of queue 0. The rest is the main thread's. A back
 * end whose packets all meet in one place (libslirp) has one queue.
 *
 * Ownership. A guest's back ends stand in one struct netdevs, which makes them from -netdev's
 * options and frees them. A back end that is taken away while a device uses it (netdev_del) loses
 * its link and goes when the device does.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/core/chardev.h"
#include "vmm/core/error.h"
#include "vmm/core/evloop.h"
#include "vmm/core/notifier.h"
#include "vmm/core/opts.h"

enum {
	NET_MAX_QUEUES = 16, /* pairs */
	NET_BATCH = 64,	     /* packets in one call, at most */
	NET_PACKET_MAX = 65550 +
			 20, /* bytes: a 64 KiB segment, Ethernet and VLAN header, and ours */
	NET_FRAME_MIN = 60,  /* what a wire carries at least; virtual ones do without */
};

/* Offloads that the guest takes on receiving (net_set_offloads()): bits of TUNSETOFFLOAD. */
enum {
	NET_OFFLOAD_CSUM = 1 << 0, /* unfinished checksums */
	NET_OFFLOAD_TSO4 = 1 << 1,
	NET_OFFLOAD_TSO6 = 1 << 2,
	NET_OFFLOAD_ECN = 1 << 3,
	NET_OFFLOAD_UFO = 1 << 4,
	NET_OFFLOAD_USO4 = 1 << 5,
	NET_OFFLOAD_USO6 = 1 << 6,
};

struct net_packet {
	struct iovec *iov;
	unsigned iovcnt;
	size_t len; /* bytes: of the packet, or of the room for one */
};

struct netdev;

/* A queue pair. */
struct net_queue {
	struct netdev *netdev;
	unsigned index;
	struct evloop *loop; /* NULL while nobody is attached */
	bool told;	     /* filters have seen the packet that is sent next */
};

/* What a card lets through to its guest: query-rx-filter. */
enum net_rx_state { NET_RX_NORMAL, NET_RX_NONE, NET_RX_ALL }; /* normal: by the table */
enum { NET_RX_MACS = 64, NET_RX_VLANS = 4096 };
struct net_rx_filter {
	bool promiscuous, broadcast;
	bool unicast_overflow, multicast_overflow; /* the guest has more than fit */
	enum net_rx_state unicast, multicast, vlan;
	uint8_t mac[6];
	unsigned unicast_count, multicast_count;
	uint8_t unicast_table[NET_RX_MACS][6], multicast_table[NET_RX_MACS][6];
	uint8_t vlans[NET_RX_VLANS / 8]; /* bits */
};

/* The front end. */
struct net_peer {
	/*
	 * Fills pkts with room for up to n packets, each of at least NET_PACKET_MAX bytes (with its
	 * header); how many. Asked again before received(): the same room.
	 */
	unsigned (*buffers)(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n);
	/* The first n of them now hold packets of pkts[i].len bytes, 0: none, that room is free
	 * again. */
	void (*received)(void *opaque, unsigned queue, const struct net_packet *pkts, unsigned n);
	/* net_send() took fewer than given, and would take more now. */
	void (*writable)(void *opaque, unsigned queue);
	/* The link came or went: net_link(). When it came, net_receive_ready() is due for each
	 * queue, on its loop. Main thread. */
	void (*link_changed)(void *opaque, bool up);
	/* For people, and for set_link: the card's id, or a name of its own; borrowed. */
	const char *name;
	/* "model=virtio-net-pci,macaddr=52:54:00:12:34:56"; caller frees. Main thread. */
	char *(*info)(void *opaque);
	/* announce-self: the guest's address is told to the network anew. NULL: it cannot. Main
	 * thread. */
	void (*announce)(void *opaque);
	/* NULL: it has none. Main thread. */
	void (*rx_filter)(void *opaque, struct net_rx_filter *filter);
	void *opaque;
};

/*
 * For front ends that can hand their queues to the host's kernel or to another process: how to
 * reach it. hw/vhost/ speaks the protocols.
 */
enum net_vhost_kind { NET_VHOST_NONE, NET_VHOST_KERNEL, NET_VHOST_USER };
struct net_vhost {
	enum net_vhost_kind kind;
	bool forced;			 /* vhostforce=: for guests without MSI-X as well */
	uint32_t poll_us;		 /* KERNEL: poll-us=, how long it polls before sleeping */
	int vhost_fd[NET_MAX_QUEUES];	 /* KERNEL: open /dev/vhost-net, one a pair */
	int tap_fd[NET_MAX_QUEUES];	 /* KERNEL: what VHOST_NET_SET_BACKEND takes */
};

struct netdev_ops {
	const char *type; /* "tap" */
	/* How many of the n packets were taken: sent, or lost as networks lose them. Fewer than n:
	 * the rest waits for peer->writable(). */
	unsigned (*send)(struct net_queue *q, const struct net_packet *pkts, unsigned n);
	/* The front end has buffers again. */
	void (*receive_ready)(struct net_queue *q);
	/* The queue's loop is set, and this its thread: watch descriptors there; false if the host
	 * refuses. */
	bool (*attach)(struct net_queue *q, struct error **err);
	/* Leave the loop, on its thread. No call about the queue after this. */
	void (*detach)(struct net_queue *q);
	/* How many of the pairs the guest uses (the others: detached from the host's side, so that
	 * it does not spread packets there). NULL: nothing to do. */
	bool (*set_queues)(struct netdev *nd, unsigned pairs);
	/* 0, 10 or 12. Only if vnet_hdr_max > 0. */
	void (*set_vnet_hdr)(struct netdev *nd, unsigned bytes);
	/* NET_OFFLOAD_*: what may be received. Returns false if some cannot be had. */
	bool (*set_offloads)(struct netdev *nd, unsigned offloads);
	/* One line for `info network`: "ifname=tap0,script=no". Caller frees. */
	char *(*info)(struct netdev *nd);
	/* User mode alone, while running; main thread. rule as in hostfwd=, or, to remove,
	 * "[tcp|udp]:[hostaddr]:hostport". */
	bool (*hostfwd_add)(struct netdev *nd, const char *rule, struct error **err);
	bool (*hostfwd_remove)(struct netdev *nd, const char *rule, struct error **err);
	/* `info usernet`; lines; caller frees. */
	char *(*connections)(struct netdev *nd);
	/* NET_VHOST_USER: a descriptor of the caller's for the connection to the server, or -1:
	 * nobody is connected, which the link says, too. Any thread. */
	int (*vhost_socket)(struct netdev *nd);
	void (*destroy)(struct netdev *nd);
};

/* What back ends are made with. */
struct net_context {
	struct evloop *loop; /* main */
	/* For back ends that talk through a chardev: taken for good until it is released; may be
	 * NULL: there are none. */
	struct chardev *(*take_chardev)(void *opaque, const char *id, struct error **err);
	void (*release_chardev)(void *opaque, struct chardev *c);
	/* Until somebody is at its other end; while the guest runs, an error if nobody is. */
	bool (*wait_chardev)(void *opaque, struct chardev *c, struct error **err);
	void *opaque;
};

struct netdev {
	const struct netdev_ops *ops;
	char *id; /* owned */
	unsigned queues;
	struct net_queue queue[NET_MAX_QUEUES];

	unsigned vnet_hdr_max;	/* bytes; 0: plain frames only */
	unsigned offloads_able; /* NET_OFFLOAD_* that set_offloads() can grant, and send() takes */
	unsigned vnet_hdr;	/* in force */
	struct net_vhost vhost;

	_Atomic bool link_up;  /* the back end's own: a socket's peer is there */
	_Atomic bool link_set; /* set_link of the monitor; starts true */
	const struct net_peer *peer;
	struct net_filter *filters;
	struct notifier_list events; /* data: struct net_event *; main thread */
	struct notifier relay;	     /* to set->events */
	bool doomed;		     /* taken away while attached: goes with its front end */
	struct netdevs *set;
	struct netdev *next; /* in set, in order of creation */
};

/* What QMP tells of a connection: NETDEV_STREAM_CONNECTED, NETDEV_STREAM_DISCONNECTED. Both come
 * from the main loop, never from within net_new(). */
struct net_event {
	struct netdev *netdev;
	bool connected;
	const char *type; /* "inet", "unix", "fd"; and where: host and port, path, or str */
	const char *host, *port, *path, *str; /* NULL where the type has none */
};

/* opts: "type", "id" and the type's own (net/types.h has the table). context is borrowed and
 * outlives the back end. The caller frees it. */
struct netdev *net_new(const struct net_context *context, struct opts *opts, struct error **err);
/* Detached. NULL is allowed. */
void net_free(struct netdev *nd);

/* ---- a guest's back ends; main thread ---- */

struct netdevs {
	struct net_context context;
	struct netdev *first;
	struct notifier_list events; /* of all of them: netdev.events */
	struct ev_work sweep; /* frees those that were doomed and are detached now */
};
void netdevs_init(struct netdevs *set, const struct net_context *context);
/* Front ends are gone. */
void netdevs_destroy(struct netdevs *set);
bool netdevs_add(struct netdevs *set, struct opts *opts, struct error **err);
bool netdevs_del(struct netdevs *set, const char *id, struct error **err);
/* By the back end's id or the name of the card that has it: what set_link takes. */
struct netdev *netdevs_find_end(const struct netdevs *set, const char *name);
/* NULL if there is none of that id. */
struct netdev *netdevs_find(const struct netdevs *set, const char *id);

/* ---- for front ends ---- */

/* Takes the back end: peer is borrowed; queue i runs on loops[i], pairs of them (at most
 * nd->queues), and may call the peer at once. Fails if it is taken. Main thread. */
bool net_attach(struct netdev *nd, const struct net_peer *peer, struct evloop *const *loops,
		unsigned pairs, struct error **err);
/* Main thread; once it returns nobody calls the peer. */
void net_detach(struct netdev *nd);

/* As ops->send(); with the link down all packets are taken and lost. */
unsigned net_send(struct netdev *nd, unsigned queue, const struct net_packet *pkts, unsigned n);
void net_receive_ready(struct netdev *nd, unsigned queue);
bool net_set_queues(struct netdev *nd, unsigned pairs);
/* bytes 0 or at most vnet_hdr_max. */
void net_set_vnet_hdr(struct netdev *nd, unsigned bytes);
bool net_set_offloads(struct netdev *nd, unsigned offloads);
/* What the guest's card should say: both ends are up. */
static inline bool net_link(const struct netdev *nd)
{
	return nd->link_up && nd->link_set;
}

/* ---- for back ends ---- */

void netdev_init(struct netdev *nd, const struct netdev_ops *ops, const char *id, unsigned queues);
void netdev_destroy(struct netdev *nd);
/* Queue's loop. None while the link is down, nobody is attached, or the guest has no buffers: then
 * the back end waits for ops->receive_ready(). */
unsigned net_receive_buffers(struct net_queue *q, struct net_packet *pkts, unsigned n);
void net_received(struct net_queue *q, const struct net_packet *pkts, unsigned n);
/* For back ends that have the packet already: copies it, or loses it if the link is down. False: no
 * room now; receive_ready() will come. */
bool net_receive_copy(struct net_queue *q, const struct iovec *iov, unsigned iovcnt);
/* The same for n packets of one piece each; how many there was room for. */
unsigned net_receive_frames(struct net_queue *q, const struct iovec *frames, unsigned n);
/* What the two do: lays a packet into room that buffers() gave, whose len becomes the packet's; 0 if
 * it is larger than any that may come, and lost. */
void net_fill(struct net_packet *room, const struct iovec *iov, unsigned iovcnt);
void net_writable(struct net_queue *q);
/* Main thread. */
void net_link_changed(struct netdev *nd, bool up);

/* ---- monitor and QMP; main thread ---- */

void net_set_link(struct netdev *nd, bool up);
/* "index=0,type=user,..."; caller frees. */
char *net_info(struct netdev *nd);

/*
 * Cards' addresses: 52:54:00:12:34:56 and up for those that were given none (all zero), in order
 * of their making, leaving out what others were given. Main thread; release what was taken.
 */
struct vm;
void net_mac_take(struct vm *vm, uint8_t mac[6]);
void net_mac_release(struct vm *vm, const uint8_t mac[6]);

/* A reverse ARP request of a card for itself (RFC 903), which switches learn from. Any thread. */
enum { NET_ANNOUNCE_FRAME = 60 };
void net_make_announcement(uint8_t frame[NET_ANNOUNCE_FRAME], const uint8_t mac[6]);

/* ---- filters: what sees every packet (filter-dump) ---- */

struct net_filter {
	/* Called on the queue's loop, maybe of several queues at once. hdr: how many bytes of the
	 * packet are virtio header. */
	void (*packet)(struct net_filter *f, bool to_guest, const struct net_packet *pkt,
		       unsigned hdr);
	void *opaque;
	struct net_filter *next;
};
/* Main thread, while the back end is not attached, or its loops stand still. */
void net_filter_add(struct netdev *nd, struct net_filter *f);
void net_filter_del(struct netdev *nd, struct net_filter *f);

#endif
