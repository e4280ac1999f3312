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

struct virtio_net_vhost {
	struct virtio_net *net;
	struct notifier memory_changed;
	bool failed; /* not tried again before a reset */
	unsigned count;
	struct vhost servers[NET_MAX_QUEUES];
};

static uint64_t features_for(const struct virtio_net *net, const struct vhost *v)
{
	uint64_t f = net->vdev.guest_features & KERNEL_FEATURES & v->able;

	return net->netdev->vnet_hdr_max ? f : f | VHOST_NET_F_VIRTIO_NET_HDR;
}

static void give_up(struct virtio_net_vhost *vh, const char *what, int error)
{
	log_warn("%s: %s: %s; its queues are served without vhost", vh->net->vdev.label, what,
		 strerror(-error));
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

void virtio_net_vhost_start(struct virtio_net *net)
{
	struct virtio_net_vhost *vh = net->vhost;

	if (!vh || vh->failed || !net->netdev || !net_link(net->netdev))
		return;
	/* What was taken out of the rings goes back first. */
	for (unsigned i = 0; i < net->pairs_max && !is_running(vh); i++) {
		virtio_net_rx_drain(&net->rx[i]);
		virtio_net_tx_drain(&net->tx[i]);
	}
	for (unsigned i = 0; i < vh->count; i++) {
		struct vhost *v = &vh->servers[i];
		int r = 0;

		if (vhost_is_running(v))
			r = vhost_refresh(v);
		else if (has_live_queue(v))
			r = vhost_start(v, features_for(net, v));
		if (r < 0) {
			give_up(vh, "vhost cannot take the queues", r);
			return;
		}
	}
}

void virtio_net_vhost_stop(struct virtio_net *net)
{
	struct virtio_net_vhost *vh = net->vhost;

	for (unsigned i = 0; vh && i < vh->count; i++)
		vhost_stop(&vh->servers[i], false);
	/* A reset gives it another chance. */
	if (vh && !net->vdev.active)
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
	while (vh->count)
		vhost_destroy(&vh->servers[--vh->count]);
	free(vh);
}

bool virtio_net_vhost_realize(struct virtio_net *net, struct error **err)
{
	struct netdev *nd = net->netdev;
	struct virtio_net_vhost *vh;
	int error = 0;

	if (!nd || nd->vhost.kind != NET_VHOST_KERNEL)
		return true;
	vh = xcalloc(1, sizeof(*vh));
	vh->net = net;
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
	net->vhost = vh;
	vh->memory_changed.fn = memory_changed;
	notifier_add(&net->vdev.vm->mem.changed, &vh->memory_changed);
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
