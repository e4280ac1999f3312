/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap or macvtap device as a network back end, between its files: tap_options.c makes it of
 * options, tap_device.c speaks to the kernel's driver, tap_run.c starts scripts and the bridge
 * helper, tap.c moves packets. Threads: as net/net.h says; making and configuring is the main
 * thread's.
 */
#ifndef NET_TAP_H
#define NET_TAP_H

#include <net/if.h>

#include "net/net.h"

#define TAP_TUN_DEVICE	 "/dev/net/tun"
#define TAP_VHOST_DEVICE "/dev/vhost-net"
#define TAP_SCRIPT	 "/etc/qemu-ifup"
#define TAP_DOWNSCRIPT	 "/etc/qemu-ifdown"
#define TAP_HELPER	 "/usr/lib/qemu/qemu-bridge-helper"
#define TAP_BRIDGE	 "br0"

struct tap;

struct tap_queue {
	struct tap *tap;
	struct net_queue *queue;
	int fd;
	_Atomic bool enabled;  /* the kernel spreads packets to it */
	struct ev_work resume; /* enabled changed: watch it, or no longer */
	/* The queue's loop's. */
	bool attached;
	bool idle; /* the front end has no room: not reading */
	bool full; /* the kernel takes no more: the front end waits */
	unsigned ask; /* packets asked for in one call: few where few come */
	struct net_batch *batch; /* from the first burst on, if the host has any */
	bool batch_tried;
	bool endless; /* the kernel takes all: no send buffer is too small */
	struct ev_fd ev;
};

struct tap {
	struct netdev nd;
	struct evloop *main_loop;
	struct ev_work gone_work; /* the device was deleted from under us */
	struct tap_queue q[NET_MAX_QUEUES];
	char ifname[IFNAMSIZ]; /* "" where the device came as descriptors */
	bool host_hdr;	       /* IFF_VNET_HDR */
	bool persistent;
	unsigned hdr;	    /* bytes of the kernel's header */
	unsigned found_hdr; /* what a persistent device had */
	char *downscript;   /* NULL: none */
	char *info;
};

/* ---- tap_device.c; 0 or more, or -1 with err ---- */

/* Opens a queue of the device, which is created if need be: ifname is a name, or a pattern that the
 * kernel fills in. *hdr: whether packets have a header; must: it is a mistake if not. */
int tap_device_open(char ifname[IFNAMSIZ], bool *hdr, bool must, bool multi_queue,
		    struct error **err);
/* A descriptor that somebody else opened: whether it is a tap, and has headers. Makes it
 * non-blocking and ours alone. */
bool tap_device_check(int fd, bool *hdr, struct error **err);
bool tap_device_set_sndbuf(int fd, int bytes, struct error **err);
/* Whether it has no limit. */
bool tap_device_is_endless(int fd);
/* Reads what was set, finds out what can be: fills persistent, hdr, nd.vnet_hdr_max and
 * nd.offloads_able. All queues are open. */
void tap_device_probe(struct tap *t);
bool tap_device_set_offloads(struct tap *t, unsigned offloads);
void tap_device_set_hdr(struct tap *t, unsigned bytes);
bool tap_device_set_queue(struct tap_queue *q, bool on);
/* A persistent device becomes what it was. */
void tap_device_restore(struct tap *t);

/* ---- tap_run.c ---- */

/* Runs a script on an interface and waits for it. */
bool tap_run_script(const char *script, const char *ifname, struct error **err);
/* A tap on the bridge that the set-uid helper opened. */
int tap_run_helper(const char *helper, const char *bridge, struct error **err);

/* ---- tap.c ---- */

/* A back end without devices yet: q[i].fd are -1. */
struct tap *tap_new(struct evloop *main_loop, const char *type, const char *id, unsigned queues);

#endif
