/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio network device: its pairs of queues served by the host's kernel (vhost-net), each by an
 * open device of its own, or all by one process (vhost-user). The control queue stays here, and
 * what the driver asks for there goes to the back end as ever.
 *
 * The kernel's way is one of two: where it fails, or while the link is down or the guest stands
 * still, the queues are served here. Thread: realize and unrealize main, the rest the device's
 * loop.
 */
#include <errno.h>
#include <stdlib.h>

#include "hw/vhost/vhost.h"
#include "hw/virtio/virtio_net.h"
#include "vmm/core/util.h"

/* linux/vhost.h: the server puts headers in front of packets itself. */
#define VHOST_NET_F_VIRTIO_NET_HDR (UINT64_C(1) << 27)

/* What is between driver and server; the rest is between driver and us. */
#define KERNEL_FEATURES                                                                            \
	(VIRTIO_F_NOTIFY_ON_EMPTY | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX |                  \
	 VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM | VIRTIO_NET_F_MRG_RXBUF |                  \
	 VIRTIO_NET_F_HASH_REPORT | VIRTIO_NET_F_RSS)

/* Another process does all that is about packets. */
#define USER_FEATURES                                                                              \
	(KERNEL_FEATURES | VIRTIO_F_ANY_LAYOUT | VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GSO |            \
	 VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN |                 \
	 VIRTIO_NET_F_HOST_UFO | VIRTIO_NET_F_HOST_USO | VIRTIO_NET_F_MTU | VIRTIO_NET_F_MQ |      \
	 VIRTIO_NET_GUEST_OFFLOADS)

struct virtio_net_vhost {
	struct virtio_net *net;
	bool user;
	struct notifier memory_changed;
	bool failed; /* not tried again before a reset */
	unsigned count;
	struct vhost servers[NET_MAX_QUEUES];
};

static uint64_t features_for(const struct virtio_net *net, const struct vhost *v)
{
	uint64_t f;

	/* A server that came back must be able to do what the guest was told. */
	if (net->vhost->user)
		return net->vdev.guest_features & USER_FEATURES;
	f = net->vdev.guest_features & KERNEL_FEATURES & v->able;
	return net->netdev->vnet_hdr_max ? f : f | VHOST_NET_F_VIRTIO_NET_HDR;
}

static void give_up(struct virtio_net_vhost *vh, const char *what, int error)
{
	log_warn("%s: %s: %s; %s", vh->net->vdev.label, what, strerror(-error),
		 vh->user ? "packets are lost until it comes back"
			  : "its queues are served without vhost");
	virtio_net_vhost_stop(vh->net);
	vh->failed = true;
}

static bool has_live_queue(const struct vhost *v)
{
	const struct virtqueue *q = &v->vdev->queues[v->first];

	for (unsigned i = 0; i < v->count; i++)
		if (q[i].live)
			return true;
	return false;
}

static bool is_running(const struct virtio_net_vhost *vh)
{
	for (unsigned i = 0; i < vh->count; i++)
		if (vhost_is_running(&vh->servers[i]))
			return true;
	return false;
}

/* A new connection, if there is none yet. */
static int connect_user(struct virtio_net_vhost *vh)
{
	struct netdev *nd = vh->net->netdev;
	struct vhost *v = &vh->servers[0];
	int fd;

	if (!vh->user || v->fd >= 0)
		return 0;
	fd = nd->ops->vhost_socket(nd);
	return fd < 0 ? -ENOTCONN : vhost_user_connect(v, fd);
}

void virtio_net_vhost_start(struct virtio_net *net)
{
	struct virtio_net_vhost *vh = net->vhost;
	int r;

	if (!vh || vh->failed || !net->netdev || !net_link(net->netdev))
		return;
	/* What was taken out of the rings goes back first. */
	for (unsigned i = 0; i < net->pairs_max && !is_running(vh); i++) {
		virtio_net_rx_drain(&net->rx[i]);
		virtio_net_tx_drain(&net->tx[i]);
	}
	r = connect_user(vh);
	for (unsigned i = 0; i < vh->count && r == 0; i++) {
		struct vhost *v = &vh->servers[i];

		if (vhost_is_running(v))
			r = vhost_refresh(v);
		else if (has_live_queue(v))
			r = vhost_start(v, features_for(net, v));
	}
	if (r < 0)
		give_up(vh, "vhost cannot take the queues", r);
}

void virtio_net_vhost_set_pairs(struct virtio_net *net)
{
	struct virtio_net_vhost *vh = net->vhost;
	int r;

	if (!vh || !vh->user)
		return;
	r = vhost_set_enabled(&vh->servers[0], 2 * net->pairs);
	if (r < 0)
		give_up(vh, "vhost cannot switch queues", r);
}

void virtio_net_vhost_stop(struct virtio_net *net)
{
	struct virtio_net_vhost *vh = net->vhost;

	bool gone = net->netdev && !net->netdev->link_up;

	if (!vh)
		return;
	for (unsigned i = 0; i < vh->count; i++)
		vhost_stop(&vh->servers[i], vh->user && gone);
	if (vh->user && gone)
		vhost_user_disconnect(&vh->servers[0]);
	/* A reset gives it another chance, and so does a server that comes back. */
	if (!net->vdev.active) {
		vh->failed = false;
		if (vh->user)
			vhost_user.forget(&vh->servers[0]);
	}
	if (gone)
		vh->failed = false;
}

static void follow_memory(void *opaque)
{
	struct virtio_net_vhost *vh = opaque;

	for (unsigned i = 0; i < vh->count; i++) {
		int r = vhost_memory_changed(&vh->servers[i]);

		if (r < 0) {
			give_up(vh, "vhost cannot follow the guest's memory", r);
			return;
		}
	}
}

static void memory_changed(struct notifier *n, void *data)
{
	struct virtio_net_vhost *vh = container_of(n, struct virtio_net_vhost, memory_changed);

	evloop_call(vh->net->vdev.loop, follow_memory, vh);
}

/* ---- life ---- */

/* The device was another card's before: it is ours still. */
static int own(struct vhost *v)
{
	int r = v->protocol->set_owner(v);

	if (r == 0 || r == -EBUSY)
		r = v->protocol->get_features(v, &v->able);
	return r;
}

static bool make_kernel_servers(struct virtio_net_vhost *vh, int *error, struct error **err)
{
	struct virtio_net *net = vh->net;

	for (unsigned i = 0; i < net->pairs_max; i++) {
		struct vhost *v = &vh->servers[i];

		if (!vhost_init(v, &vhost_kernel, &net->vdev, 2 * i, 2, err))
			return false;
		vh->count++;
		v->fd = net->netdev->vhost.vhost_fd[i];
		v->tap_fd = net->netdev->vhost.tap_fd[i];
		v->poll_us = net->netdev->vhost.poll_us;
		*error = own(v);
		if (*error < 0)
			return true;
	}
	return true;
}

static void destroy(struct virtio_net_vhost *vh)
{
	while (vh->count) {
		struct vhost *v = &vh->servers[--vh->count];

		if (vh->user)
			vhost_user_destroy(v);
		else
			vhost_destroy(v);
	}
	free(vh);
}

static bool is_shareable(const struct gm_snapshot *mem)
{
	for (size_t i = 0; i < mem->count; i++)
		if (mem->regions[i].fd < 0)
			return false;
	return true;
}

static bool make_user_server(struct virtio_net_vhost *vh, struct error **err)
{
	struct virtio_net *net = vh->net;
	struct vhost *v = &vh->servers[0];
	const char *id = net->netdev->id;
	int r;

	if (!is_shareable(guest_mem_get(&net->vdev.vm->mem))) {
		error_set(err,
			  "netdev %s: vhost-user needs guest memory that can be shared with "
			  "another process, and this guest was started without a vhost-user "
			  "netdev",
			  id);
		return false;
	}
	if (!vhost_user_init(v, &net->vdev, 0, 2 * net->pairs_max, err))
		return false;
	vh->count = 1;
	r = connect_user(vh);
	if (r == -ENOSPC)
		error_set(err, "netdev %s: the server has fewer than %u queue pairs", id,
			  net->pairs_max);
	else if (r < 0)
		error_set_errno(err, r, "netdev %s: the vhost-user server does not answer", id);
	if (r < 0)
		return false;
	v->enabled = 2;
	net->vdev.host_features &= v->able | ~USER_FEATURES;
	/* It sees what was negotiated, and nothing of what is switched later. */
	net->vdev.host_features &= ~VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
	return true;
}

static void follow(struct virtio_net_vhost *vh)
{
	vh->net->vhost = vh;
	vh->memory_changed.fn = memory_changed;
	notifier_add(&vh->net->vdev.vm->mem.changed, &vh->memory_changed);
}

bool virtio_net_vhost_realize(struct virtio_net *net, struct error **err)
{
	struct netdev *nd = net->netdev;
	struct virtio_net_vhost *vh;
	int error = 0;

	if (!nd || nd->vhost.kind == NET_VHOST_NONE)
		return true;
	vh = xcalloc(1, sizeof(*vh));
	vh->net = net;
	vh->user = nd->vhost.kind == NET_VHOST_USER;
	if (vh->user) {
		if (!make_user_server(vh, err)) {
			destroy(vh);
			return false;
		}
		follow(vh);
		return true;
	}
	if (!make_kernel_servers(vh, &error, err)) {
		destroy(vh);
		return false;
	}
	if (error < 0) {
		if (nd->vhost.forced)
			error_set_errno(err, error, "netdev %s: vhost-net cannot be used", nd->id);
		else
			log_warn("netdev %s: vhost-net cannot be used (%s): vhost=off is used "
				 "instead",
				 nd->id, strerror(-error));
		destroy(vh);
		return !nd->vhost.forced;
	}
	for (unsigned i = 0; i < vh->count; i++)
		net->vdev.host_features &= vh->servers[i].able | ~KERNEL_FEATURES;
	follow(vh);
	return true;
}

void virtio_net_vhost_unrealize(struct virtio_net *net)
{
	if (!net->vhost)
		return;
	notifier_remove(&net->vdev.vm->mem.changed, &net->vhost->memory_changed);
	destroy(net->vhost);
	net->vhost = NULL;
}
