/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtqueues that somebody else serves: the host's kernel (linux/vhost.h) or another process (the
 * vhost-user protocol). A struct vhost is one such server and consecutive queues of one device.
 *
 * Lending. While a vhost runs, its queues are lent (virtio_lend_queue()): their doorbells go to the
 * server, which reads and writes rings and buffers by itself and raises interrupts through an
 * eventfd: the MSI-X vector's own where the accelerator takes it, else one that the device's loop
 * watches. When it stops, each queue is handed back where the server left off.
 *
 * Memory. The server has a table of guest memory, which follows hotplug (vhost_memory_changed()).
 * Writes of the server's are not in the dirty log: VHOST_F_LOG_ALL is not offered yet, and whoever
 * wants one stops the vhost first.
 *
 * Threads. vhost_init() and vhost_destroy() on the main thread; the rest on the device's loop.
 */
#ifndef HW_VHOST_VHOST_H
#define HW_VHOST_VHOST_H

#include <stdbool.h>
#include <stdint.h>

#include "net/net.h"
#include "vmm/core/evloop.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/notifier.h"

struct virtio_device;
struct virtqueue;

enum { VHOST_MAX_RINGS = 2 * NET_MAX_QUEUES, VHOST_MAX_REGIONS = 64 };

struct vhost;

/* Where a ring lies in this process. */
struct vhost_addresses {
	unsigned ring;
	const void *desc, *avail;
	void *used;
};

/* How servers are spoken to: 0 or -errno. */
struct vhost_protocol {
	const char *name;
	int (*get_features)(struct vhost *v, uint64_t *features);
	int (*set_owner)(struct vhost *v);
	int (*set_features)(struct vhost *v, uint64_t features);
	int (*set_memory)(struct vhost *v, const struct gm_snapshot *mem);
	/* Before the first ring; NULL: nothing to do. */
	int (*prepare)(struct vhost *v);
	/* What a server left unfinished is of no interest any more. May be NULL. */
	void (*forget)(struct vhost *v);
	int (*set_ring_size)(struct vhost *v, unsigned ring, unsigned entries);
	int (*set_ring_base)(struct vhost *v, unsigned ring, unsigned base);
	int (*set_ring_addresses)(struct vhost *v, const struct vhost_addresses *at);
	int (*set_ring_kick)(struct vhost *v, unsigned ring, int fd);
	int (*set_ring_call)(struct vhost *v, unsigned ring, int fd);
	/* The ring is served from now on, or (false) no longer. */
	int (*enable_ring)(struct vhost *v, unsigned ring, bool on);
	/* Stops the ring: the next entry of the available ring. */
	int (*get_ring_base)(struct vhost *v, unsigned ring, unsigned *base);
};

struct vhost_ring {
	struct vhost *vhost;
	struct virtqueue *vq;
	bool running;
	struct event_notifier call; /* when the vector has none */
	struct ev_fd call_ev;
	int call_fd; /* in force: call's, or the vector's; borrowed */
};

struct vhost_user; /* vhost_user.c */

struct vhost {
	const struct vhost_protocol *protocol;
	struct virtio_device *vdev;
	int fd;		       /* the kernel's device, borrowed, or the connection */
	unsigned first, count; /* queues of vdev */
	unsigned enabled;      /* of them are in use: all, or vhost_set_enabled() */
	uint64_t able;	       /* features of the server */
	struct vhost_ring *rings;
	uint32_t poll_us;	 /* kernel */
	int tap_fd;		 /* kernel: what carries packets */
	struct vhost_user *user; /* vhost-user */
};

extern const struct vhost_protocol vhost_kernel, vhost_user;

/* Rings, without a server yet. False if the host has no file descriptors left. */
bool vhost_init(struct vhost *v, const struct vhost_protocol *protocol, struct virtio_device *vdev,
		unsigned first, unsigned count, struct error **err);
/* Stopped. */
void vhost_destroy(struct vhost *v);

/* Lends those of the queues that are live, and gives them to the server; or nothing and -errno. */
int vhost_start(struct vhost *v, uint64_t features);
/* More queues may be live, or vectors have changed. */
int vhost_refresh(struct vhost *v);
/* All queues are back, and live; dead: the server is gone, nothing is asked of it. */
void vhost_stop(struct vhost *v, bool dead);
/* The first n are in use by the guest: the server spreads packets over these. */
int vhost_set_enabled(struct vhost *v, unsigned n);
bool vhost_is_running(const struct vhost *v);
int vhost_memory_changed(struct vhost *v);

/* ---- vhost-user: instead of vhost_init() and vhost_destroy(), and on the device's loop ---- */

bool vhost_user_init(struct vhost *v, struct virtio_device *vdev, unsigned first, unsigned count,
		     struct error **err);
void vhost_user_destroy(struct vhost *v);
/* fd becomes ours. Asks what the server can; -ENOSPC: not that many queues. */
int vhost_user_connect(struct vhost *v, int fd);
/* Stopped, or stopped as dead. */
void vhost_user_disconnect(struct vhost *v);

#endif
