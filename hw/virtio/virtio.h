/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device, ignorant of its transport (virtio 1.2, sections 2 and 3): feature negotiation,
 * status, configuration space, queues, interrupts, reset at any moment.
 *
 * Between a transport (virtio_pci.h) below and a device type (virtio_blk.h) above:
 *
 *   transport -> virtio_set_status() ...    vCPU threads, from register handlers
 *   doorbell  -> event_notifier             -> ops->kick() on the device's loop
 *   type      -> virtio_push() ...          on the loop; published once a turn of it
 *   virtio    -> transport->interrupt()     from the loop, without a lock
 *
 * Threads. Registers (status, features, a queue's set-up half, configuration) belong to vdev->lock,
 * which vCPU threads, the main thread and the loop take, and under which only leaf locks are taken
 * (bus, interrupt lines). The data path belongs to vdev->loop, the main loop or an iothread's, and
 * takes no lock: once a driver says DRIVER_OK the queues are handed to the loop, and they come back
 * when a reset is complete.
 *
 * Reset. A driver may reset the device while requests are in flight. Their memory is the guest's
 * again only when they have ended, so a reset begins at once (no chain is taken, nothing is pushed)
 * and is complete, and status reads 0, when the last of them is done. Modern drivers poll for that.
 * What a driver that does not poll does next waits for it, at most VIRTIO_RESET_WAIT_NS.
 *
 * Guests that break the rules of a ring or a request meet virtio_device_fail(): DEVICE_NEEDS_RESET
 * and a line in the log.
 */
#ifndef HW_VIRTIO_VIRTIO_H
#define HW_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "hw/virtio/virtio_spec.h"
#include "hw/virtio/virtqueue.h"
#include "vmm/core/evloop.h"
#include "vmm/core/log.h"
#include "vmm/core/notifier.h"
#include "vmm/core/prop.h"
#include "vmm/core/state.h"
#include "vmm/core/vm.h"

enum {
	VIRTIO_MAX_QUEUES = 1024,
	VIRTIO_CONFIG_MAX = 256, /* bytes */
};
#define VIRTIO_RESET_WAIT_NS (5 * NSEC_PER_SEC)

struct virtio_device;

/* What a device type is. */
struct virtio_ops {
	uint16_t id; /* VIRTIO_ID_* */
	const char *name;

	/* Fills vdev->config_size bytes. Lock held. NULL: there is no configuration space. */
	void (*read_config)(struct virtio_device *vdev, uint8_t *config);
	/* size bytes at offset differ from what read_config() said: config is the whole. Lock held.
	 * NULL: writes are ignored. */
	void (*write_config)(struct virtio_device *vdev, const uint8_t *config, unsigned offset,
			     unsigned size);
	/* vdev->guest_features is final. Lock held. May be NULL. */
	void (*negotiated)(struct virtio_device *vdev);

	/* Loop: the driver is there and guest_features final; kicks for all queues follow. May be
	 * NULL. */
	void (*start)(struct virtio_device *vdev);
	/* Loop: queues that the driver enabled have become live, or their interrupts were pointed
	 * elsewhere. For those who lend queues. May be NULL. */
	void (*queues_ready)(struct virtio_device *vdev);
	/* Loop: chains may be waiting in vq. Need not empty it in one go; says with virtio_again()
	 * that it left something. */
	void (*kick)(struct virtio_device *vdev, struct virtqueue *vq);
	/* Loop: a reset begins, perhaps before start() came. Drop what has not been started. May be
	 * NULL. */
	void (*stop)(struct virtio_device *vdev);
	/* Loop: whether no request is in flight. NULL: never one outside kick(). */
	bool (*is_idle)(struct virtio_device *vdev);
	/* Loop: returns once is_idle() holds. NULL like is_idle. */
	void (*drain)(struct virtio_device *vdev);
	/* Loop: the guest stands still. May be NULL. */
	void (*pause)(struct virtio_device *vdev);
	/* Loop: the guest runs again after a pause. Kicks for all queues follow. May be NULL. */
	void (*resume)(struct virtio_device *vdev);
	/* Back to power-on. Lock held, nothing in flight. May be NULL. */
	void (*reset)(struct virtio_device *vdev);
};

/* What a transport offers. */
struct virtio_transport {
	/* vq has used buffers that the driver wants to hear of. Any thread. */
	void (*interrupt)(struct virtio_device *vdev, struct virtqueue *vq);
	/* An eventfd that does the same as interrupt(), or -1: there is none. May be NULL. Loop. */
	int (*interrupt_fd)(struct virtio_device *vdev, struct virtqueue *vq);
	/* Configuration or status changed. Any thread. */
	void (*config_interrupt)(struct virtio_device *vdev);
	/* The queues were handed to the loop: doorbells may go there directly. Lock held. */
	void (*started)(struct virtio_device *vdev);
	/* A reset is complete. Lock held. */
	void (*reset)(struct virtio_device *vdev);
};

/* Whose the queues are; changes under the lock. */
enum virtio_phase {
	VIRTIO_STOPPED,	  /* the driver's, which sets them up */
	VIRTIO_RUNNING,	  /* the loop's */
	VIRTIO_RESETTING, /* the loop's, which is letting go */
};

/* A queue's doorbell. */
struct virtio_kick {
	struct virtio_device *vdev;
	struct virtqueue *vq;
	struct event_notifier notifier;
	struct ev_fd fd;
	bool silenced; /* kicks are off because the loop polls */
};

struct virtio_device {
	const struct virtio_ops *ops;
	const struct virtio_transport *transport;
	void *transport_opaque;
	struct vm *vm;
	struct evloop *loop;
	const char *label; /* for the log */

	/* Properties: virtio_props. */
	bool iommu_platform, event_idx, indirect_desc, any_layout, notify_on_empty;

	/* Set by virtio_init(), fixed from then on. */
	uint64_t host_features;
	uint32_t config_size;
	uint32_t queue_count;
	struct virtqueue *queues;
	struct virtio_kick *kicks;

	pthread_mutex_t lock;
	pthread_cond_t reset_done;
	enum virtio_phase phase;
	uint8_t status;
	uint8_t config_generation;
	bool legacy; /* the driver uses the legacy interface */
	bool closed; /* for good: no driver may start it */
	uint64_t guest_features;

	/* The loop's. */
	bool active;	/* queues may be live */
	bool resetting; /* waiting for is_idle() */
	bool failed;
	bool paused; /* the guest is */
	bool pushed; /* something awaits vq_publish() */
	struct ev_work sync_work;
	struct ev_hook hook;

	struct notifier state_changed, vcpus_awaited;
	struct log_ratelimit guest_errors;
};

extern const struct prop virtio_props[];
extern const struct state_desc virtio_state;

/* ---- for device types ---- */

/*
 * Makes the device: features are the type's own, the rest is added from the properties. From now on
 * ops may be called. Main thread, in realize. False when the host has no file descriptors left.
 */
bool virtio_init(struct virtio_device *vdev, const struct virtio_ops *ops, struct vm *vm,
		 struct evloop *loop, const char *label, uint64_t features, unsigned config_size,
		 unsigned queue_count, unsigned queue_size, struct error **err);
/* In realize, before the transport is made: another size for one queue. */
void virtio_set_queue_max(struct virtio_device *vdev, unsigned index, unsigned size);
/* Resets (waits for requests in flight), leaves the loop, frees. Main thread. */
void virtio_exit(struct virtio_device *vdev);

static inline bool virtio_has_feature(const struct virtio_device *vdev, uint64_t feature)
{
	return (vdev->guest_features & feature) != 0;
}

/* Loop. vq_push(), published and signalled before the loop sleeps. */
void virtio_push(struct virtio_device *vdev, struct virtqueue *vq, const struct vq_chain *chain,
		 uint32_t written);
/* Loop. The same at once, for those whose driver may go on with these while they do with others. */
void virtio_publish(struct virtio_device *vdev, struct virtqueue *vq);
/* Loop. kick() left chains in vq: call it again in the loop's next turn. */
void virtio_again(struct virtio_device *vdev, struct virtqueue *vq);
/* Loop. A live queue is served by somebody else from now on (hw/vhost/): its doorbell is theirs, it
 * is no longer live here, and its rings stay where they are. False if chains of it are in flight or
 * were put back in another order. */
bool virtio_lend_queue(struct virtio_device *vdev, struct virtqueue *vq);
/* Loop. It is ours again, at last_avail (-1: behind what was used last); live, unless the device
 * stops. */
void virtio_reclaim_queue(struct virtio_device *vdev, struct virtqueue *vq, int last_avail);
/* Any thread. The transport points interrupts of queues elsewhere. */
void virtio_interrupts_moved(struct virtio_device *vdev);
/* Loop. Whether chains may be taken now. */
static inline bool virtio_is_live(const struct virtio_device *vdev)
{
	return vdev->active && !vdev->failed && !vdev->paused;
}
/* Loop. A request ended: completes a reset that waited for the last one. */
void virtio_request_done(struct virtio_device *vdev);
/* Any thread, lock not held. read_config() says something new. */
void virtio_config_changed(struct virtio_device *vdev);
/* Loop, lock not held. The driver broke a rule; the device stops until it is reset. */
void virtio_device_fail(struct virtio_device *vdev, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- for transports; the lock is taken inside unless said otherwise ---- */

/* What a driver may choose from, by the modern or the legacy interface. */
uint64_t virtio_offered_features(const struct virtio_device *vdev, bool legacy);
/* 32 bits of what it chose. */
uint32_t virtio_chosen_features(struct virtio_device *vdev, unsigned word);
/* 32 bits of the driver's choice; ignored once FEATURES_OK is set. */
void virtio_set_features(struct virtio_device *vdev, unsigned word, uint32_t value, bool legacy);
/* 0 resets. */
void virtio_set_status(struct virtio_device *vdev, uint8_t status, bool legacy);
/* Legacy drivers do not poll: for them a reset is waited for. */
uint8_t virtio_get_status(struct virtio_device *vdev, bool legacy);
uint64_t virtio_config_read(struct virtio_device *vdev, uint64_t offset, unsigned size);
void virtio_config_write(struct virtio_device *vdev, uint64_t offset, uint64_t value,
			 unsigned size);
uint8_t virtio_config_generation(struct virtio_device *vdev);

/* Takes the lock to change a queue's set-up half, waiting for a reset under way. False, and the
 * lock not taken, if there is no such queue or it is enabled. virtio_queue_end() gives it back. */
struct virtqueue *virtio_queue_begin(struct virtio_device *vdev, unsigned index);
void virtio_queue_end(struct virtio_device *vdev, struct virtqueue *vq, bool enable);

/* A doorbell that arrived as a register write. Any thread, no lock. */
void virtio_notify(struct virtio_device *vdev, unsigned index);
/* The eventfd for a queue's doorbell. */
int virtio_notify_fd(const struct virtio_device *vdev, unsigned index);

/* Main thread: resets the device and keeps drivers from starting it again; virtio_exit() follows.
 */
void virtio_close(struct virtio_device *vdev);
/* Main thread: reset from outside (machine, bus, unplug); complete on return. */
void virtio_reset(struct virtio_device *vdev);

#endif
