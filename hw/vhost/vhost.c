/* SPDX-License-Identifier: Apache-2.0 */
/* What servers of both kinds have in common: rings are lent and taken back; see vhost.h. */
#include "hw/vhost/vhost.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "hw/virtio/virtio.h"
#include "vmm/core/util.h"

bool vhost_init(struct vhost *v, const struct vhost_protocol *protocol, struct virtio_device *vdev,
		unsigned first, unsigned count, struct error **err)
{
	*v = (struct vhost){.protocol = protocol,
			    .vdev = vdev,
			    .fd = -1,
			    .first = first,
			    .count = count,
			    .enabled = count,
			    .tap_fd = -1};
	v->rings = xcalloc(count, sizeof(*v->rings));
	for (unsigned i = 0; i < count; i++) {
		v->rings[i].vhost = v;
		v->rings[i].vq = &vdev->queues[first + i];
		v->rings[i].call.fd = v->rings[i].call_fd = -1;
	}
	for (unsigned i = 0; i < count; i++) {
		int r = event_notifier_init(&v->rings[i].call);

		if (r < 0) {
			v->rings[i].call.fd = -1;
			error_set_errno(err, r, "%s: cannot make %u queues", vdev->label, count);
			vhost_destroy(v);
			return false;
		}
	}
	return true;
}

void vhost_destroy(struct vhost *v)
{
	for (unsigned i = 0; i < v->count; i++)
		if (v->rings[i].call.fd >= 0)
			event_notifier_destroy(&v->rings[i].call);
	free(v->rings);
	v->rings = NULL;
	v->count = 0;
}

bool vhost_is_running(const struct vhost *v)
{
	for (unsigned i = 0; i < v->count; i++)
		if (v->rings[i].running)
			return true;
	return false;
}

/* ---- interrupts ---- */

static void on_call(void *opaque, uint32_t revents)
{
	struct vhost_ring *ring = opaque;
	struct virtio_device *vdev = ring->vhost->vdev;

	if (event_notifier_test_and_clear(&ring->call))
		vdev->transport->interrupt(vdev, ring->vq);
}

/* The vector's eventfd if it has one. What the server signals meanwhile goes one way or the other:
 * ours is looked at once more. */
static int point_call(struct vhost_ring *ring)
{
	struct vhost *v = ring->vhost;
	struct virtio_device *vdev = v->vdev;
	int fd = vdev->transport->interrupt_fd ? vdev->transport->interrupt_fd(vdev, ring->vq) : -1;
	int r = 0;

	if (fd < 0)
		fd = ring->call.fd;
	if (fd == ring->call_fd)
		return 0;
	if (fd == ring->call.fd && !ring->call_ev.added)
		r = evloop_fd_add(vdev->loop, &ring->call_ev, fd, EPOLLIN, on_call, ring);
	if (r == 0)
		r = v->protocol->set_ring_call(v, ring - v->rings, fd);
	if (r < 0)
		return r;
	ring->call_fd = fd;
	if (fd != ring->call.fd) {
		evloop_fd_del(vdev->loop, &ring->call_ev);
		on_call(ring, 0);
	}
	return 0;
}

/* ---- rings ---- */

static int start_ring(struct vhost_ring *ring)
{
	struct vhost *v = ring->vhost;
	const struct vhost_protocol *p = v->protocol;
	struct virtqueue *vq = ring->vq;
	unsigned i = ring - v->rings;
	const struct vhost_addresses at = {i, vq->desc, vq->avail, vq->used};
	int r;

	if (!virtio_lend_queue(v->vdev, vq))
		return -EBUSY;
	ring->running = true;
	ring->call_fd = -1;
	if ((r = p->set_ring_size(v, i, vq->size)) < 0 ||
	    (r = p->set_ring_base(v, i, vq->last_avail)) < 0 ||
	    (r = p->set_ring_addresses(v, &at)) < 0 ||
	    (r = p->set_ring_kick(v, i, virtio_notify_fd(v->vdev, vq->index))) < 0 ||
	    (r = point_call(ring)) < 0)
		return r;
	return i < v->enabled ? p->enable_ring(v, i, true) : 0;
}

static void stop_ring(struct vhost_ring *ring, bool dead)
{
	struct vhost *v = ring->vhost;
	unsigned i = ring - v->rings, base = 0;

	if (!ring->running)
		return;
	if (!dead) {
		if (i < v->enabled)
			v->protocol->enable_ring(v, i, false);
		dead = v->protocol->get_ring_base(v, i, &base) < 0;
	}
	evloop_fd_del(v->vdev->loop, &ring->call_ev);
	ring->running = false;
	ring->call_fd = -1;
	/* The last of its interrupts. */
	on_call(ring, 0);
	virtio_reclaim_queue(v->vdev, ring->vq, dead ? -1 : (int)(uint16_t)base);
}

int vhost_start(struct vhost *v, uint64_t features)
{
	const struct vhost_protocol *p = v->protocol;
	int r;

	if (features & ~v->able)
		return -EINVAL;
	r = p->set_features(v, features);
	if (r == 0)
		r = p->set_memory(v, guest_mem_get(&v->vdev->vm->mem));
	if (r == 0 && p->prepare)
		r = p->prepare(v);
	if (r == 0)
		r = vhost_refresh(v);
	return r;
}

int vhost_set_enabled(struct vhost *v, unsigned n)
{
	unsigned old = v->enabled;

	v->enabled = n;
	for (unsigned i = MIN(old, n); i < MAX(old, n); i++) {
		int r = v->rings[i].running ? v->protocol->enable_ring(v, i, i < n) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

int vhost_refresh(struct vhost *v)
{
	for (unsigned i = 0; i < v->count; i++) {
		struct vhost_ring *ring = &v->rings[i];
		int r = 0;

		if (ring->running)
			r = point_call(ring);
		else if (ring->vq->live)
			r = start_ring(ring);
		if (r < 0) {
			vhost_stop(v, false);
			return r;
		}
	}
	return 0;
}

void vhost_stop(struct vhost *v, bool dead)
{
	for (unsigned i = 0; i < v->count; i++)
		stop_ring(&v->rings[i], dead);
}

int vhost_memory_changed(struct vhost *v)
{
	if (!vhost_is_running(v))
		return 0;
	return v->protocol->set_memory(v, guest_mem_get(&v->vdev->vm->mem));
}
