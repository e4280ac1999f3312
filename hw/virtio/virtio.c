/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport-neutral part of every virtio device: see virtio.h. virtio 1.2, sections 2 and 3.
 *
 * Thread: registers on vCPU threads under vdev->lock, everything named "on the loop" on vdev->loop.
 */
#include "hw/virtio/virtio.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

#include "vmm/core/util.h"

/* A reset of an idle device takes a few microseconds on its loop. A status read waits that long,
 * because drivers sleep for a millisecond when it was not enough. */
#define RESET_GRACE_NS (INT64_C(300) * 1000)

const struct prop virtio_props[] = {
	{.name = "iommu_platform",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct virtio_device, iommu_platform),
	 .def = "off",
	 .help = "offer ACCESS_PLATFORM: addresses are the platform's"},
	{.name = "event_idx",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct virtio_device, event_idx),
	 .def = "on",
	 .help = "offer event indices, which spare kicks and interrupts"},
	{.name = "indirect_desc",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct virtio_device, indirect_desc),
	 .def = "on",
	 .help = "offer indirect descriptor tables"},
	{.name = "any_layout",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct virtio_device, any_layout),
	 .def = "on",
	 .help = "legacy: requests need no particular division into descriptors"},
	{.name = "notify_on_empty",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct virtio_device, notify_on_empty),
	 .def = "on",
	 .help = "legacy: interrupt when a queue runs empty, whatever the driver suppressed"},
	{.type = PROP_END},
};

/* ---- on the loop ---- */

static void run_queue(struct virtio_device *vdev, struct virtqueue *vq)
{
	if (virtio_is_live(vdev) && vq->live)
		vdev->ops->kick(vdev, vq);
}

static void run_all(struct virtio_device *vdev)
{
	for (unsigned i = 0; i < vdev->queue_count; i++)
		run_queue(vdev, &vdev->queues[i]);
}

void virtio_push(struct virtio_device *vdev, struct virtqueue *vq, const struct vq_chain *chain,
		 uint32_t written)
{
	vq_push(vq, chain, written);
	vdev->pushed = true;
}

void virtio_publish(struct virtio_device *vdev, struct virtqueue *vq)
{
	if (vq_publish(vq))
		vdev->transport->interrupt(vdev, vq);
}

void virtio_again(struct virtio_device *vdev, struct virtqueue *vq)
{
	event_notifier_set(&vdev->kicks[vq->index].notifier);
}

static void before_sleep(void *opaque)
{
	struct virtio_device *vdev = opaque;

	if (!vdev->pushed)
		return;
	vdev->pushed = false;
	for (unsigned i = 0; i < vdev->queue_count; i++)
		virtio_publish(vdev, &vdev->queues[i]);
}

/* Whether the device took something: some leave chains in the ring until they can serve them. */
static bool run_and_look(struct virtio_device *vdev, struct virtqueue *vq)
{
	uint16_t before = vq->last_avail;

	run_queue(vdev, vq);
	return vq->last_avail != before;
}

/* While the loop polls, drivers need not kick; poll_end() asks for kicks again. */
static bool poll_queues(void *opaque)
{
	struct virtio_device *vdev = opaque;
	bool found = false;

	if (!virtio_is_live(vdev))
		return false;
	for (unsigned i = 0; i < vdev->queue_count && virtio_is_live(vdev); i++) {
		struct virtqueue *vq = &vdev->queues[i];

		if (!vq->live)
			continue;
		/* What the device itself keeps silent stays so at the end. */
		if (vq->notify)
			vdev->kicks[i].silenced = true;
		vq_disable_notify(vq);
		if (vq_has_work(vq) && run_and_look(vdev, vq))
			found = true;
	}
	return found;
}

static bool poll_end(void *opaque)
{
	struct virtio_device *vdev = opaque;
	bool found = false;

	for (unsigned i = 0; i < vdev->queue_count && virtio_is_live(vdev); i++) {
		struct virtqueue *vq = &vdev->queues[i];

		if (!vdev->kicks[i].silenced)
			continue;
		vdev->kicks[i].silenced = false;
		if (vq->live && !vq->notify && vq_enable_notify(vq) && run_and_look(vdev, vq))
			found = true;
	}
	return found;
}

/* Lock held, nothing in flight. */
static void reset_registers(struct virtio_device *vdev)
{
	for (unsigned i = 0; i < vdev->queue_count; i++)
		vq_reset(&vdev->queues[i]);
	vdev->guest_features = 0;
	vdev->status = 0;
	vdev->legacy = false;
	if (vdev->ops->reset)
		vdev->ops->reset(vdev);
	if (vdev->transport)
		vdev->transport->reset(vdev);
	vdev->phase = VIRTIO_STOPPED;
	pthread_cond_broadcast(&vdev->reset_done);
}

static void finish_reset_if_idle(struct virtio_device *vdev)
{
	if (!vdev->resetting || (vdev->ops->is_idle && !vdev->ops->is_idle(vdev)))
		return;
	vdev->resetting = vdev->failed = vdev->pushed = false;
	pthread_mutex_lock(&vdev->lock);
	reset_registers(vdev);
	pthread_mutex_unlock(&vdev->lock);
}

void virtio_request_done(struct virtio_device *vdev)
{
	finish_reset_if_idle(vdev);
}

static void begin_reset(struct virtio_device *vdev)
{
	if (vdev->resetting)
		return;
	vdev->active = false;
	vdev->resetting = true;
	for (unsigned i = 0; i < vdev->queue_count; i++)
		vq_stop(&vdev->queues[i]);
	if (vdev->ops->stop)
		vdev->ops->stop(vdev);
	finish_reset_if_idle(vdev);
}

static void start_queues(struct virtio_device *vdev)
{
	bool enabled[VIRTIO_MAX_QUEUES];

	/* An enabled queue's fields are fixed, but enabling one is the driver's at any time. */
	pthread_mutex_lock(&vdev->lock);
	for (unsigned i = 0; i < vdev->queue_count; i++)
		enabled[i] = vdev->queues[i].enabled;
	pthread_mutex_unlock(&vdev->lock);

	if (!vdev->active) {
		vdev->active = true;
		if (vdev->ops->start)
			vdev->ops->start(vdev);
	}
	for (unsigned i = 0; i < vdev->queue_count && !vdev->failed; i++) {
		struct virtqueue *vq = &vdev->queues[i];

		if (enabled[i] && !vq->live && !vq->lent && !vq->broken)
			vq_start(vq);
	}
	if (!vdev->failed && !vdev->paused && vdev->ops->queues_ready)
		vdev->ops->queues_ready(vdev);
	run_all(vdev);
}

/* Makes the loop's side follow the phase. */
static void sync_phase(void *opaque)
{
	struct virtio_device *vdev = opaque;
	enum virtio_phase phase;

	pthread_mutex_lock(&vdev->lock);
	phase = vdev->phase;
	pthread_mutex_unlock(&vdev->lock);
	if (phase == VIRTIO_RUNNING)
		start_queues(vdev);
	else if (phase == VIRTIO_RESETTING)
		begin_reset(vdev);
}

/* Lock held: the driver's choices are final, the queues become the loop's. */
static void begin_running(struct virtio_device *vdev)
{
	for (unsigned i = 0; i < vdev->queue_count; i++) {
		struct virtqueue *vq = &vdev->queues[i];

		vq->event_idx = virtio_has_feature(vdev, VIRTIO_F_EVENT_IDX);
		vq->indirect = virtio_has_feature(vdev, VIRTIO_F_INDIRECT_DESC);
		vq->notify_on_empty = virtio_has_feature(vdev, VIRTIO_F_NOTIFY_ON_EMPTY);
	}
	if (vdev->ops->negotiated)
		vdev->ops->negotiated(vdev);
	vdev->phase = VIRTIO_RUNNING;
	vdev->transport->started(vdev);
}

static void kicked(void *opaque, uint32_t revents)
{
	struct virtio_kick *kick = opaque;
	struct virtio_device *vdev = kick->vdev;
	bool early = false;

	event_notifier_test_and_clear(&kick->notifier);
	if (!vdev->active && !vdev->resetting) {
		/* Some legacy drivers use a queue before they say DRIVER_OK (3.1.1 allows it to
		 * those of that time). */
		pthread_mutex_lock(&vdev->lock);
		early = vdev->phase == VIRTIO_STOPPED && vdev->legacy && kick->vq->enabled &&
			(vdev->status & VIRTIO_STATUS_DRIVER);
		if (early)
			begin_running(vdev);
		pthread_mutex_unlock(&vdev->lock);
	}
	if (early)
		sync_phase(vdev);
	else
		run_queue(vdev, kick->vq);
}

bool virtio_lend_queue(struct virtio_device *vdev, struct virtqueue *vq)
{
	if (!vq->live || vq->in_flight || !vq_rewind(vq))
		return false;
	if (vq_publish(vq))
		vdev->transport->interrupt(vdev, vq);
	vq_stop(vq);
	vq->lent = true;
	evloop_fd_del(vdev->loop, &vdev->kicks[vq->index].fd);
	/* What is in the ring already is for the new one to find. */
	event_notifier_set(&vdev->kicks[vq->index].notifier);
	return true;
}

void virtio_reclaim_queue(struct virtio_device *vdev, struct virtqueue *vq, int last_avail)
{
	struct virtio_kick *kick = &vdev->kicks[vq->index];
	int r = evloop_fd_add(vdev->loop, &kick->fd, kick->notifier.fd, EPOLLIN, kicked, kick);

	vq->lent = false;
	vq_resume_at(vq, last_avail);
	if (r < 0) {
		virtio_device_fail(vdev, "queue %u: its doorbell cannot be watched any more",
				   vq->index);
		return;
	}
	if (!vdev->active || vdev->failed)
		return;
	vq_start(vq);
	event_notifier_set(&kick->notifier);
}

void virtio_interrupts_moved(struct virtio_device *vdev)
{
	if (vdev->ops->queues_ready)
		evloop_post(vdev->loop, &vdev->sync_work);
}

void virtio_device_fail(struct virtio_device *vdev, const char *fmt, ...)
{
	char text[160];
	bool tell;
	va_list ap;

	if (vdev->failed)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_guest_error(&vdev->guest_errors, "%s: the guest's driver is at fault: %s", vdev->label,
			text);
	vdev->failed = true;
	for (unsigned i = 0; i < vdev->queue_count; i++)
		vq_stop(&vdev->queues[i]);
	pthread_mutex_lock(&vdev->lock);
	if (virtio_has_feature(vdev, VIRTIO_F_VERSION_1))
		vdev->status |= VIRTIO_STATUS_NEEDS_RESET;
	tell = (vdev->status & VIRTIO_STATUS_NEEDS_RESET) &&
	       (vdev->status & VIRTIO_STATUS_DRIVER_OK);
	pthread_mutex_unlock(&vdev->lock);
	if (tell)
		vdev->transport->config_interrupt(vdev);
}

static void queue_failed(struct virtqueue *vq, const char *why)
{
	virtio_device_fail(vq->opaque, "queue %u: %s", vq->index, why);
}

/* ---- run state ---- */

static void follow_run_state(void *opaque)
{
	struct virtio_device *vdev = opaque;
	bool was_paused = vdev->paused;

	vdev->paused = !vm_is_running(vdev->vm);
	if (vdev->paused && !was_paused && vdev->ops->pause)
		vdev->ops->pause(vdev);
	if (!was_paused || vdev->paused)
		return;
	if (vdev->active && !vdev->failed && vdev->ops->resume)
		vdev->ops->resume(vdev);
	if (vdev->active && !vdev->failed && vdev->ops->queues_ready)
		vdev->ops->queues_ready(vdev);
	run_all(vdev);
}

static void state_changed(struct notifier *n, void *data)
{
	struct virtio_device *vdev = container_of(n, struct virtio_device, state_changed);

	evloop_call(vdev->loop, follow_run_state, vdev);
}

/* A vCPU may stand in wait_reset() while the main loop waits for that vCPU. What has requests in
 * flight still needs the loop itself, and the vCPU gives up waiting some time. */
static void vcpus_awaited(struct notifier *n, void *data)
{
	struct virtio_device *vdev = container_of(n, struct virtio_device, vcpus_awaited);
	bool resetting;

	pthread_mutex_lock(&vdev->lock);
	resetting = vdev->phase == VIRTIO_RESETTING;
	pthread_mutex_unlock(&vdev->lock);
	if (resetting && evloop_is_mine(vdev->loop))
		begin_reset(vdev);
}

/* ---- life ---- */

static uint64_t common_features(const struct virtio_device *vdev)
{
	return VIRTIO_F_VERSION_1 | (vdev->iommu_platform ? VIRTIO_F_ACCESS_PLATFORM : 0) |
	       (vdev->event_idx ? VIRTIO_F_EVENT_IDX : 0) |
	       (vdev->indirect_desc ? VIRTIO_F_INDIRECT_DESC : 0) |
	       (vdev->any_layout ? VIRTIO_F_ANY_LAYOUT : 0) |
	       (vdev->notify_on_empty ? VIRTIO_F_NOTIFY_ON_EMPTY : 0);
}

struct attach {
	struct virtio_device *vdev;
	int error;
};

static void detach_loop(void *opaque)
{
	struct virtio_device *vdev = opaque;

	for (unsigned i = 0; i < vdev->queue_count; i++)
		evloop_fd_del(vdev->loop, &vdev->kicks[i].fd);
	evloop_hook_del(vdev->loop, &vdev->hook);
	evloop_unpost(vdev->loop, &vdev->sync_work);
}

static void attach_loop(void *opaque)
{
	struct attach *a = opaque;
	struct virtio_device *vdev = a->vdev;

	vdev->hook = (struct ev_hook){.before_sleep = before_sleep,
				      .poll = poll_queues,
				      .poll_end = poll_end,
				      .opaque = vdev};
	evloop_hook_add(vdev->loop, &vdev->hook);
	for (unsigned i = 0; i < vdev->queue_count && !a->error; i++) {
		struct virtio_kick *kick = &vdev->kicks[i];

		a->error = evloop_fd_add(vdev->loop, &kick->fd, kick->notifier.fd, EPOLLIN, kicked,
					 kick);
	}
	if (a->error)
		detach_loop(vdev);
}

static void free_queues(struct virtio_device *vdev)
{
	for (unsigned i = 0; i < vdev->queue_count; i++) {
		if (vdev->kicks[i].notifier.fd >= 0)
			event_notifier_destroy(&vdev->kicks[i].notifier);
		vq_destroy(&vdev->queues[i]);
	}
	free(vdev->queues);
	free(vdev->kicks);
	vdev->queues = NULL;
	vdev->kicks = NULL;
	vdev->queue_count = 0;
}

static int make_queues(struct virtio_device *vdev, unsigned count, unsigned size)
{
	int error = 0;

	vdev->queue_count = count;
	vdev->queues = xcalloc(count, sizeof(*vdev->queues));
	vdev->kicks = xcalloc(count, sizeof(*vdev->kicks));
	for (unsigned i = 0; i < count; i++) {
		struct virtio_kick *kick = &vdev->kicks[i];

		vq_init(&vdev->queues[i], &vdev->vm->mem, i, size, queue_failed, vdev);
		kick->vdev = vdev;
		kick->vq = &vdev->queues[i];
		kick->notifier.fd = -1;
		if (!error)
			error = event_notifier_init(&kick->notifier);
	}
	return error;
}

bool virtio_init(struct virtio_device *vdev, const struct virtio_ops *ops, struct vm *vm,
		 struct evloop *loop, const char *label, uint64_t features, unsigned config_size,
		 unsigned queue_count, unsigned queue_size, struct error **err)
{
	struct attach attach = {.vdev = vdev};
	pthread_condattr_t attr;

	vdev->ops = ops;
	vdev->vm = vm;
	vdev->loop = loop;
	vdev->label = label;
	vdev->host_features = features | common_features(vdev);
	vdev->config_size = config_size;
	vdev->paused = !vm_is_running(vm);
	vdev->guest_errors = LOG_RATELIMIT;
	ev_work_init(&vdev->sync_work, sync_phase, vdev);
	attach.error = make_queues(vdev, queue_count, queue_size);
	if (!attach.error)
		evloop_call(loop, attach_loop, &attach);
	if (attach.error) {
		error_set_errno(err, attach.error, "%s: cannot make %u queues", label, queue_count);
		free_queues(vdev);
		return false;
	}
	pthread_mutex_init(&vdev->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vdev->reset_done, &attr);
	pthread_condattr_destroy(&attr);
	vdev->state_changed.fn = state_changed;
	notifier_add(&vm->state_changed, &vdev->state_changed);
	vdev->vcpus_awaited.fn = vcpus_awaited;
	notifier_add(&vm->vcpus_awaited, &vdev->vcpus_awaited);
	return true;
}

void virtio_set_queue_max(struct virtio_device *vdev, unsigned index, unsigned size)
{
	vdev->queues[index].size_max = vdev->queues[index].size = size;
}

void virtio_exit(struct virtio_device *vdev)
{
	virtio_close(vdev);
	notifier_remove(&vdev->vm->vcpus_awaited, &vdev->vcpus_awaited);
	notifier_remove(&vdev->vm->state_changed, &vdev->state_changed);
	evloop_call(vdev->loop, detach_loop, vdev);
	free_queues(vdev);
	pthread_cond_destroy(&vdev->reset_done);
	pthread_mutex_destroy(&vdev->lock);
}

/* ---- reset, from registers and from outside ---- */

static void reset_on_loop(void *opaque)
{
	struct virtio_device *vdev = opaque;

	evloop_unpost(vdev->loop, &vdev->sync_work);
	sync_phase(vdev);
	if (vdev->resetting && vdev->ops->drain)
		vdev->ops->drain(vdev);
	finish_reset_if_idle(vdev);
}

/* Lock held. */
static void start_reset(struct virtio_device *vdev)
{
	if (vdev->phase == VIRTIO_STOPPED) {
		reset_registers(vdev);
	} else {
		vdev->phase = VIRTIO_RESETTING;
		evloop_post(vdev->loop, &vdev->sync_work);
	}
}

void virtio_reset(struct virtio_device *vdev)
{
	bool wait;

	pthread_mutex_lock(&vdev->lock);
	start_reset(vdev);
	wait = vdev->phase == VIRTIO_RESETTING;
	pthread_mutex_unlock(&vdev->lock);
	if (!wait)
		return;
	/* Waiting turns the loop. */
	device_hold(vdev->vm);
	evloop_call(vdev->loop, reset_on_loop, vdev);
	device_release(vdev->vm);
}

void virtio_close(struct virtio_device *vdev)
{
	if (vdev->closed)
		return;
	pthread_mutex_lock(&vdev->lock);
	vdev->closed = true;
	pthread_mutex_unlock(&vdev->lock);
	virtio_reset(vdev);
}

/* Lock held, and held again on return. False if the reset is not complete even then. */
static bool wait_reset(struct virtio_device *vdev, int64_t ns)
{
	struct timespec until;

	if (vdev->phase != VIRTIO_RESETTING)
		return true;
	if (evloop_is_mine(vdev->loop)) {
		pthread_mutex_unlock(&vdev->lock);
		reset_on_loop(vdev);
		pthread_mutex_lock(&vdev->lock);
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	ns += until.tv_nsec;
	until.tv_sec += ns / NSEC_PER_SEC;
	until.tv_nsec = ns % NSEC_PER_SEC;
	while (vdev->phase == VIRTIO_RESETTING)
		if (pthread_cond_timedwait(&vdev->reset_done, &vdev->lock, &until))
			break;
	return vdev->phase != VIRTIO_RESETTING;
}

/* ---- registers ---- */

uint64_t virtio_offered_features(const struct virtio_device *vdev, bool legacy)
{
	if (legacy)
		return vdev->host_features & UINT32_MAX;
	return vdev->host_features & ~VIRTIO_LEGACY_FEATURES;
}

uint32_t virtio_chosen_features(struct virtio_device *vdev, unsigned word)
{
	uint64_t features;

	if (word > 1)
		return 0;
	pthread_mutex_lock(&vdev->lock);
	features = vdev->guest_features;
	pthread_mutex_unlock(&vdev->lock);
	return features >> (32 * word);
}

void virtio_set_features(struct virtio_device *vdev, unsigned word, uint32_t value, bool legacy)
{
	unsigned shift = word * 32;

	if (word > 1)
		return;
	pthread_mutex_lock(&vdev->lock);
	if (wait_reset(vdev, VIRTIO_RESET_WAIT_NS) && vdev->phase == VIRTIO_STOPPED &&
	    !(vdev->status & VIRTIO_STATUS_FEATURES_OK)) {
		/* A legacy driver's choice cannot be refused, so what was not offered is dropped.
		 */
		if (legacy)
			value &= virtio_offered_features(vdev, true);
		vdev->guest_features &= ~((uint64_t)UINT32_MAX << shift);
		vdev->guest_features |= (uint64_t)value << shift;
	}
	pthread_mutex_unlock(&vdev->lock);
}

/* Whether the driver's choice is one we can work with (3.1.1, step 5). */
static bool features_acceptable(const struct virtio_device *vdev)
{
	uint64_t must = VIRTIO_F_VERSION_1 | (vdev->host_features & VIRTIO_F_ACCESS_PLATFORM);

	return !(vdev->guest_features & ~virtio_offered_features(vdev, false)) &&
	       (vdev->guest_features & must) == must;
}

void virtio_set_status(struct virtio_device *vdev, uint8_t status, bool legacy)
{
	pthread_mutex_lock(&vdev->lock);
	if (!status) {
		start_reset(vdev);
		goto out;
	}
	if (!wait_reset(vdev, VIRTIO_RESET_WAIT_NS) || vdev->closed)
		goto out;
	vdev->legacy = legacy;
	status &= ~VIRTIO_STATUS_NEEDS_RESET;
	status |= vdev->status & VIRTIO_STATUS_NEEDS_RESET;
	if (!legacy) {
		if (!(vdev->status & VIRTIO_STATUS_FEATURES_OK) && !features_acceptable(vdev))
			status &= ~VIRTIO_STATUS_FEATURES_OK;
		if (!(status & VIRTIO_STATUS_FEATURES_OK))
			status &= ~VIRTIO_STATUS_DRIVER_OK;
	}
	vdev->status = status;
	if ((status & VIRTIO_STATUS_DRIVER_OK) && vdev->phase == VIRTIO_STOPPED) {
		begin_running(vdev);
		evloop_post(vdev->loop, &vdev->sync_work);
	}
out:
	pthread_mutex_unlock(&vdev->lock);
}

uint8_t virtio_get_status(struct virtio_device *vdev, bool legacy)
{
	uint8_t status;

	pthread_mutex_lock(&vdev->lock);
	if (legacy)
		wait_reset(vdev, VIRTIO_RESET_WAIT_NS);
	else if (!evloop_is_mine(vdev->loop))
		wait_reset(vdev, RESET_GRACE_NS);
	status = vdev->status;
	/* A reset that was asked for when nothing was set yet must show, too. */
	if (vdev->phase == VIRTIO_RESETTING && !status)
		status = VIRTIO_STATUS_ACKNOWLEDGE;
	pthread_mutex_unlock(&vdev->lock);
	return status;
}

struct virtqueue *virtio_queue_begin(struct virtio_device *vdev, unsigned index)
{
	if (index >= vdev->queue_count)
		return NULL;
	pthread_mutex_lock(&vdev->lock);
	if (wait_reset(vdev, VIRTIO_RESET_WAIT_NS) && !vdev->queues[index].enabled)
		return &vdev->queues[index];
	pthread_mutex_unlock(&vdev->lock);
	return NULL;
}

void virtio_queue_end(struct virtio_device *vdev, struct virtqueue *vq, bool enable)
{
	if (enable) {
		vq->enabled = true;
		if (vdev->phase == VIRTIO_RUNNING) {
			vdev->transport->started(vdev);
			evloop_post(vdev->loop, &vdev->sync_work);
		}
	}
	pthread_mutex_unlock(&vdev->lock);
}

void virtio_notify(struct virtio_device *vdev, unsigned index)
{
	if (index < vdev->queue_count)
		event_notifier_set(&vdev->kicks[index].notifier);
}

int virtio_notify_fd(const struct virtio_device *vdev, unsigned index)
{
	return vdev->kicks[index].notifier.fd;
}

/* ---- configuration space ---- */

uint64_t virtio_config_read(struct virtio_device *vdev, uint64_t offset, unsigned size)
{
	uint8_t config[VIRTIO_CONFIG_MAX] = {0};

	if (!vdev->ops->read_config || !range_inside(offset, size, vdev->config_size))
		return UINT64_MAX >> (64 - 8 * size);
	pthread_mutex_lock(&vdev->lock);
	vdev->ops->read_config(vdev, config);
	pthread_mutex_unlock(&vdev->lock);
	return load_le(config + offset, size);
}

void virtio_config_write(struct virtio_device *vdev, uint64_t offset, uint64_t value, unsigned size)
{
	uint8_t config[VIRTIO_CONFIG_MAX] = {0};

	if (!vdev->ops->write_config || !range_inside(offset, size, vdev->config_size))
		return;
	pthread_mutex_lock(&vdev->lock);
	vdev->ops->read_config(vdev, config);
	store_le(config + offset, size, value);
	vdev->ops->write_config(vdev, config, offset, size);
	pthread_mutex_unlock(&vdev->lock);
}

uint8_t virtio_config_generation(struct virtio_device *vdev)
{
	uint8_t generation;

	pthread_mutex_lock(&vdev->lock);
	generation = vdev->config_generation;
	pthread_mutex_unlock(&vdev->lock);
	return generation;
}

void virtio_config_changed(struct virtio_device *vdev)
{
	bool tell;

	pthread_mutex_lock(&vdev->lock);
	vdev->config_generation++;
	tell = (vdev->status & VIRTIO_STATUS_DRIVER_OK) != 0;
	pthread_mutex_unlock(&vdev->lock);
	if (tell)
		vdev->transport->config_interrupt(vdev);
}

/* ---- state ---- */

static void drain_on_loop(void *opaque)
{
	struct virtio_device *vdev = opaque;

	if (vdev->ops->drain)
		vdev->ops->drain(vdev);
	before_sleep(vdev);
}

static void virtio_pre_save(void *object)
{
	struct virtio_device *vdev = object;

	evloop_call(vdev->loop, drain_on_loop, vdev);
}

static bool virtio_post_load(void *object, unsigned version, struct error **err)
{
	struct virtio_device *vdev = object;

	if (vdev->guest_features & ~vdev->host_features) {
		error_set(err, "%s: the driver uses features that are not offered here",
			  vdev->label);
		return false;
	}
	pthread_mutex_lock(&vdev->lock);
	if (vdev->status & VIRTIO_STATUS_DRIVER_OK) {
		begin_running(vdev);
		if (!(vdev->status & VIRTIO_STATUS_NEEDS_RESET))
			evloop_post(vdev->loop, &vdev->sync_work);
	}
	pthread_mutex_unlock(&vdev->lock);
	return true;
}

static const struct state_field virtio_fields[] = {
	STATE_FIELD(struct virtio_device, status, STATE_U8),
	STATE_FIELD(struct virtio_device, config_generation, STATE_U8),
	STATE_FIELD(struct virtio_device, legacy, STATE_BOOL),
	STATE_FIELD(struct virtio_device, guest_features, STATE_U64),
	{.name = "queues",
	 .type = STATE_PTR,
	 .offset = offsetof(struct virtio_device, queues),
	 .size = sizeof(struct virtqueue),
	 .count = VIRTIO_MAX_QUEUES,
	 .count_offset = offsetof(struct virtio_device, queue_count),
	 .desc = &vq_state},
	{.type = STATE_END},
};

const struct state_desc virtio_state = {
	.name = "virtio",
	.version = 1,
	.fields = virtio_fields,
	.pre_save = virtio_pre_save,
	.post_load = virtio_post_load,
};
