/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio entropy device: see virtio_rng.h. virtio 1.2, section 5.4.
 * Thread: the main loop. Owner: the PCI bus it sits on.
 */
#include "hw/virtio/virtio_rng.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "vmm/core/util.h"

#define CLASS_OTHER 0x00ff00

static struct virtio_rng *rng_of(struct virtio_device *vdev)
{
	return container_of(vdev, struct virtio_rng, vdev);
}

/* A new period begins with the first byte that is given out in it. */
static void start_period(struct virtio_rng *rng)
{
	if (ev_timer_armed(&rng->timer))
		return;
	rng->quota = rng->max_bytes;
	evloop_timer_arm(rng->vdev.loop, &rng->timer,
			 evloop_now(rng->vdev.loop) + rng->period * NSEC_PER_MSEC);
}

static void period_over(void *opaque)
{
	struct virtio_rng *rng = opaque;

	rng->quota = rng->max_bytes;
	virtio_again(&rng->vdev, &rng->vdev.queues[0]);
}

/* Fills what it can of the chain; how many bytes, or -errno if there was not even one. */
static ssize_t fill(struct virtio_rng *rng)
{
	const struct iovec *iov = rng->chain.iov + rng->chain.readable;
	size_t left = MIN(rng->quota, (uint64_t)VIRTIO_RNG_MAX_REQUEST), done = 0;

	for (unsigned i = 0; i < rng->chain.writable && left; i++) {
		size_t want = MIN(iov[i].iov_len, left);
		ssize_t n = rng_backend_read(rng->rng, iov[i].iov_base, want);

		if (n < 0)
			return done ? (ssize_t)done : n;
		done += n;
		left -= n;
		if ((size_t)n < want)
			break;
	}
	return done;
}

static void source_readable(void *opaque, uint32_t revents);

/* False if the source has nothing now. */
static bool answer(struct virtio_rng *rng)
{
	ssize_t n = fill(rng);

	/* Watched only while it is waited for: a source at its end is always "readable". */
	if (n == -EAGAIN && rng->rng &&
	    !evloop_fd_add(rng->vdev.loop, &rng->readable, rng->rng->fd, EPOLLIN, source_readable,
			   rng)) {
		rng->waiting = true;
		return false;
	}
	if (n < 0)
		n = 0; /* a source that failed: the driver sees an empty answer */
	rng->quota -= n;
	virtio_push(&rng->vdev, &rng->vdev.queues[0], &rng->chain, n);
	return true;
}

static void kick(struct virtio_device *vdev, struct virtqueue *vq)
{
	struct virtio_rng *rng = rng_of(vdev);
	unsigned budget = vq->size;

	if (rng->waiting)
		return;
	do {
		vq_disable_notify(vq);
		for (;;) {
			if (ev_timer_armed(&rng->timer) && !rng->quota)
				return; /* until the period is over */
			if (!budget--) {
				virtio_again(vdev, vq);
				return;
			}
			if (vq_pop(vq, &rng->chain) <= 0)
				break;
			start_period(rng);
			if (!answer(rng))
				return;
		}
	} while (vq_enable_notify(vq));
}

static void source_readable(void *opaque, uint32_t revents)
{
	struct virtio_rng *rng = opaque;

	evloop_fd_del(rng->vdev.loop, &rng->readable);
	rng->waiting = false;
	if (answer(rng))
		kick(&rng->vdev, &rng->vdev.queues[0]);
}

static void stop(struct virtio_device *vdev)
{
	struct virtio_rng *rng = rng_of(vdev);

	rng->waiting = false;
	evloop_fd_del(vdev->loop, &rng->readable);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_RNG,
	.name = "virtio-rng",
	.kick = kick,
	.stop = stop,
};

/* ---- PCI ---- */

static struct virtio_rng_pci *of(struct device *dev)
{
	return (struct virtio_rng_pci *)dev;
}

static void leave_loop(struct virtio_rng *rng)
{
	evloop_timer_cancel(rng->vdev.loop, &rng->timer);
	evloop_fd_del(rng->vdev.loop, &rng->readable);
}

static bool realize(struct device *dev, struct error **err)
{
	struct virtio_rng_pci *d = of(dev);
	struct virtio_rng *rng = &d->rng;

	if (!rng->period) {
		error_set(err, "'period' parameter expects a positive integer");
		return false;
	}
	rng->chain.iov = rng->iov;
	rng->chain.iov_max = ARRAY_SIZE(rng->iov);
	ev_timer_init(&rng->timer, period_over, rng);
	if (!virtio_init(&rng->vdev, &ops, dev->vm, dev->vm->loop, device_label(dev), 0, 0, 1,
			 VIRTIO_RNG_QUEUE_SIZE, err))
		return false;
	if (virtio_pci_init(&d->vpci, &rng->vdev, CLASS_OTHER, err))
		return true;
	leave_loop(rng);
	virtio_exit(&rng->vdev);
	return false;
}

static void unrealize(struct device *dev)
{
	struct virtio_rng_pci *d = of(dev);

	virtio_close(&d->rng.vdev);
	leave_loop(&d->rng);
	virtio_pci_exit(&d->vpci);
}

static const char *const rng_types[] = {"rng-random", "rng-builtin", NULL};

static const struct prop rng_props[] = {
	{.name = "rng",
	 .type = PROP_BACKEND,
	 .offset = offsetof(struct virtio_rng, rng),
	 .names = rng_types,
	 .help = "an rng-random or rng-builtin object; none: the host's getrandom"},
	{.name = "max-bytes",
	 .type = PROP_U64,
	 .offset = offsetof(struct virtio_rng, max_bytes),
	 .def = "9223372036854775807",
	 .min = 1,
	 .max = INT64_MAX,
	 .help = "bytes the guest gets in a period"},
	{.name = "period",
	 .type = PROP_U32,
	 .offset = offsetof(struct virtio_rng, period),
	 .def = "65536",
	 .help = "ms"},
	{.type = PROP_END},
};

static const struct prop_set props[] = {
	PCI_DEVICE_PROPS,
	{virtio_pci_props, 0},
	{virtio_pci_mode_props, 0},
	{virtio_props, offsetof(struct virtio_rng_pci, rng.vdev)},
	{rng_props, offsetof(struct virtio_rng_pci, rng)},
	{NULL, 0},
};

static const struct prop_set props_fixed_mode[] = {
	PCI_DEVICE_PROPS,
	{virtio_pci_props, 0},
	{virtio_props, offsetof(struct virtio_rng_pci, rng.vdev)},
	{rng_props, offsetof(struct virtio_rng_pci, rng)},
	{NULL, 0},
};

#define COMMON                                                                                     \
	.bus = "pci", .size = sizeof(struct virtio_rng_pci), .state = &virtio_pci_state,           \
	.hotpluggable = true, .realize = realize, .reset = virtio_pci_reset,                       \
	.unplug = pci_device_unplug, .unrealize = unrealize

const struct device_desc virtio_rng_pci_desc = {
	.name = "virtio-rng-pci",
	.alias = "virtio-rng",
	.help = "virtio entropy device",
	.props = props,
	COMMON,
};

const struct device_desc virtio_rng_pci_non_transitional_desc = {
	.name = "virtio-rng-pci-non-transitional",
	.help = "virtio entropy device, modern only",
	.props = props_fixed_mode,
	.init = virtio_pci_set_modern_only,
	COMMON,
};

const struct device_desc virtio_rng_pci_transitional_desc = {
	.name = "virtio-rng-pci-transitional",
	.help = "virtio entropy device, modern and legacy",
	.props = props_fixed_mode,
	.init = virtio_pci_set_transitional,
	COMMON,
};
