/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers of the modern virtio PCI interface: virtio 1.2, sections 4.1.4.3 to 4.1.4.9.
 *
 * Thread: vCPUs, without a lock; each access takes what it needs. Owner: struct virtio_pci.
 */
#include "hw/virtio/virtio_pci.h"

#include "vmm/core/util.h"

/* struct virtio_pci_common_cfg. */
enum {
	COMMON_DEVICE_FEATURE_SELECT = 0,
	COMMON_DEVICE_FEATURE = 4,
	COMMON_DRIVER_FEATURE_SELECT = 8,
	COMMON_DRIVER_FEATURE = 12,
	COMMON_CONFIG_VECTOR = 16,
	COMMON_NUM_QUEUES = 18,
	COMMON_STATUS = 20,
	COMMON_GENERATION = 21,
	COMMON_QUEUE_SELECT = 22,
	COMMON_QUEUE_SIZE = 24,
	COMMON_QUEUE_VECTOR = 26,
	COMMON_QUEUE_ENABLE = 28,
	COMMON_QUEUE_NOTIFY_OFF = 30,
	COMMON_QUEUE_DESC = 32,
	COMMON_QUEUE_DRIVER = 40,
	COMMON_QUEUE_DEVICE = 48,
};

/* struct virtio_pci_cap and what follows it (4.1.4). */
enum {
	CAP_LEN = 2,
	CAP_TYPE = 3,
	CAP_BAR = 4,
	CAP_OFFSET = 8,
	CAP_LENGTH = 12,
	CAP_SIZE = 16,
	CAP_NOTIFY_MULTIPLIER = 16,
	CAP_WINDOW_DATA = 16,
	CAP_LONG_SIZE = 20,
};

enum {
	CAP_TYPE_COMMON = 1,
	CAP_TYPE_NOTIFY = 2,
	CAP_TYPE_ISR = 3,
	CAP_TYPE_DEVICE = 4,
	CAP_TYPE_WINDOW = 5,
};

const char *const virtio_pci_piece_names[VIRTIO_PCI_PIECES] = {
	[VIRTIO_PCI_COMMON] = "virtio-pci-common",
	[VIRTIO_PCI_ISR] = "virtio-pci-isr",
	[VIRTIO_PCI_DEVICE] = "virtio-pci-device",
	[VIRTIO_PCI_NOTIFY] = "virtio-pci-notify",
};

static uint32_t address_half(uint64_t address, uint64_t offset)
{
	return offset & 4 ? address >> 32 : address;
}

static uint64_t queue_read(struct virtio_pci *vpci, uint64_t offset)
{
	struct virtio_device *vdev = vpci->vdev;
	unsigned index = vpci->queue_select;
	struct virtqueue copy;

	if (index >= vdev->queue_count)
		return offset == COMMON_QUEUE_VECTOR ? VIRTIO_NO_VECTOR : 0;
	pthread_mutex_lock(&vdev->lock);
	copy.size = vdev->queues[index].size;
	copy.enabled = vdev->queues[index].enabled;
	copy.desc_gpa = vdev->queues[index].desc_gpa;
	copy.avail_gpa = vdev->queues[index].avail_gpa;
	copy.used_gpa = vdev->queues[index].used_gpa;
	pthread_mutex_unlock(&vdev->lock);
	switch (offset) {
	case COMMON_QUEUE_SIZE:
		return copy.size;
	case COMMON_QUEUE_VECTOR:
		return vpci->queues[index].vector;
	case COMMON_QUEUE_ENABLE:
		return copy.enabled;
	case COMMON_QUEUE_NOTIFY_OFF:
		return index;
	case COMMON_QUEUE_DESC:
	case COMMON_QUEUE_DESC + 4:
		return address_half(copy.desc_gpa, offset);
	case COMMON_QUEUE_DRIVER:
	case COMMON_QUEUE_DRIVER + 4:
		return address_half(copy.avail_gpa, offset);
	case COMMON_QUEUE_DEVICE:
	case COMMON_QUEUE_DEVICE + 4:
		return address_half(copy.used_gpa, offset);
	}
	return 0;
}

static uint32_t offered_word(const struct virtio_device *vdev, uint32_t word)
{
	return word > 1 ? 0 : virtio_offered_features(vdev, false) >> (32 * word);
}

static uint64_t common_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_pci *vpci = opaque;
	struct virtio_device *vdev = vpci->vdev;

	switch (offset) {
	case COMMON_DEVICE_FEATURE_SELECT:
		return vpci->device_feature_select;
	case COMMON_DEVICE_FEATURE:
		return offered_word(vdev, vpci->device_feature_select);
	case COMMON_DRIVER_FEATURE_SELECT:
		return vpci->driver_feature_select;
	case COMMON_DRIVER_FEATURE:
		return virtio_chosen_features(vdev, vpci->driver_feature_select);
	case COMMON_CONFIG_VECTOR:
		return vpci->config_vector;
	case COMMON_NUM_QUEUES:
		return vdev->queue_count;
	case COMMON_STATUS:
		return virtio_get_status(vdev, false);
	case COMMON_GENERATION:
		return virtio_config_generation(vdev);
	case COMMON_QUEUE_SELECT:
		return vpci->queue_select;
	}
	return queue_read(vpci, offset);
}

static void set_half(uint64_t *address, uint64_t offset, uint32_t value)
{
	unsigned shift = offset & 4 ? 32 : 0;

	*address &= ~((uint64_t)UINT32_MAX << shift);
	*address |= (uint64_t)value << shift;
}

static void queue_write(struct virtio_pci *vpci, uint64_t offset, uint64_t value)
{
	struct virtio_device *vdev = vpci->vdev;
	struct virtqueue *vq = virtio_queue_begin(vdev, vpci->queue_select);
	bool enable = false;

	if (!vq)
		return;
	switch (offset) {
	case COMMON_QUEUE_SIZE:
		vq->size = value;
		break;
	case COMMON_QUEUE_ENABLE:
		enable = (uint16_t)value == 1;
		break;
	case COMMON_QUEUE_DESC:
	case COMMON_QUEUE_DESC + 4:
		set_half(&vq->desc_gpa, offset, value);
		break;
	case COMMON_QUEUE_DRIVER:
	case COMMON_QUEUE_DRIVER + 4:
		set_half(&vq->avail_gpa, offset, value);
		break;
	case COMMON_QUEUE_DEVICE:
	case COMMON_QUEUE_DEVICE + 4:
		set_half(&vq->used_gpa, offset, value);
		break;
	}
	virtio_queue_end(vdev, vq, enable);
}

static void common_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_pci *vpci = opaque;
	struct virtio_device *vdev = vpci->vdev;
	unsigned queue = vpci->queue_select;

	switch (offset) {
	case COMMON_DEVICE_FEATURE_SELECT:
		vpci->device_feature_select = value;
		break;
	case COMMON_DRIVER_FEATURE_SELECT:
		vpci->driver_feature_select = value;
		break;
	case COMMON_DRIVER_FEATURE:
		virtio_set_features(vdev, vpci->driver_feature_select, value, false);
		break;
	case COMMON_CONFIG_VECTOR:
		virtio_pci_set_vector(vpci, &vpci->config_vector, value);
		break;
	case COMMON_STATUS:
		virtio_set_status(vdev, value, false);
		break;
	case COMMON_QUEUE_SELECT:
		vpci->queue_select = value;
		break;
	case COMMON_QUEUE_VECTOR:
		if (queue < vdev->queue_count)
			virtio_pci_set_vector(vpci, &vpci->queues[queue].vector, value);
		break;
	default:
		queue_write(vpci, offset, value);
	}
}

static uint64_t isr_read(void *opaque, uint64_t offset, unsigned size)
{
	return offset ? 0 : virtio_pci_take_isr(opaque);
}

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_pci *vpci = opaque;

	return virtio_config_read(vpci->vdev, offset, size);
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_pci *vpci = opaque;

	virtio_config_write(vpci->vdev, offset, value, size);
}

static uint64_t notify_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}

/* Reached when the doorbell is not on the bus as such. */
static void notify_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_pci *vpci = opaque;

	virtio_notify(vpci->vdev, offset / VIRTIO_PCI_NOTIFY_STRIDE);
}

const struct io_ops virtio_pci_modern_ops[VIRTIO_PCI_PIECES] = {
	[VIRTIO_PCI_COMMON] = {common_read, common_write},
	[VIRTIO_PCI_ISR] = {isr_read, NULL},
	[VIRTIO_PCI_DEVICE] = {device_read, device_write},
	[VIRTIO_PCI_NOTIFY] = {notify_read, notify_write},
};

/* ---- capabilities ---- */

static uint8_t add_cap(struct virtio_pci *vpci, unsigned type, unsigned size, uint32_t offset,
		       uint32_t length)
{
	uint8_t pos = pci_add_capability(&vpci->pci, PCI_CAP_VENDOR, 0, size);
	uint8_t *cap = vpci->pci.config + pos;

	if (!pos)
		return 0;
	cap[CAP_LEN] = size;
	cap[CAP_TYPE] = type;
	cap[CAP_BAR] = VIRTIO_PCI_MODERN_BAR;
	pci_set32(cap + CAP_OFFSET, offset);
	pci_set32(cap + CAP_LENGTH, length);
	return pos;
}

bool virtio_pci_add_modern_caps(struct virtio_pci *vpci, struct error **err)
{
	static const struct {
		unsigned type, size;
	} caps[VIRTIO_PCI_PIECES] = {
		[VIRTIO_PCI_COMMON] = {CAP_TYPE_COMMON, CAP_SIZE},
		[VIRTIO_PCI_ISR] = {CAP_TYPE_ISR, CAP_SIZE},
		[VIRTIO_PCI_DEVICE] = {CAP_TYPE_DEVICE, CAP_SIZE},
		[VIRTIO_PCI_NOTIFY] = {CAP_TYPE_NOTIFY, CAP_LONG_SIZE},
	};
	uint8_t pos, *wmask;

	for (unsigned i = 0; i < VIRTIO_PCI_PIECES; i++) {
		if (i == VIRTIO_PCI_DEVICE && !vpci->vdev->config_size)
			continue;
		pos = add_cap(vpci, caps[i].type, caps[i].size, vpci->pieces[i].offset,
			      VIRTIO_PCI_PIECE_SIZE);
		if (!pos)
			goto full;
		if (i == VIRTIO_PCI_NOTIFY)
			pci_set32(vpci->pci.config + pos + CAP_NOTIFY_MULTIPLIER,
				  VIRTIO_PCI_NOTIFY_STRIDE);
	}
	pos = add_cap(vpci, CAP_TYPE_WINDOW, CAP_LONG_SIZE, 0, 0);
	if (!pos)
		goto full;
	wmask = vpci->pci.wmask + pos;
	wmask[CAP_BAR] = 0xff;
	pci_set32(wmask + CAP_OFFSET, UINT32_MAX);
	pci_set32(wmask + CAP_LENGTH, UINT32_MAX);
	pci_set32(wmask + CAP_WINDOW_DATA, UINT32_MAX);
	vpci->window_pos = pos;
	return true;
full:
	error_set(err, "no room for virtio's PCI capabilities");
	return false;
}

/* The piece of BAR 4 that the window points at now, or NULL. */
static const struct io_ops *window_target(struct virtio_pci *vpci, uint32_t *offset,
					  uint32_t *length)
{
	const uint8_t *cap = vpci->pci.config + vpci->window_pos;
	uint32_t piece;

	*offset = pci_get32(cap + CAP_OFFSET);
	*length = pci_get32(cap + CAP_LENGTH);
	piece = *offset / VIRTIO_PCI_PIECE_SIZE;
	if (cap[CAP_BAR] != VIRTIO_PCI_MODERN_BAR || piece >= VIRTIO_PCI_PIECES ||
	    (*length != 1 && *length != 2 && *length != 4) || *offset % *length)
		return NULL;
	*offset %= VIRTIO_PCI_PIECE_SIZE;
	return &virtio_pci_modern_ops[piece];
}

/* Configuration accesses are serialised for all of PCI: they do not wait for a reset under way. */
static bool window_hit(struct virtio_pci *vpci, unsigned offset, unsigned size)
{
	enum virtio_phase phase;

	if (!vpci->window_pos ||
	    !ranges_overlap(offset, size, vpci->window_pos + CAP_WINDOW_DATA, 4))
		return false;
	pthread_mutex_lock(&vpci->vdev->lock);
	phase = vpci->vdev->phase;
	pthread_mutex_unlock(&vpci->vdev->lock);
	return phase != VIRTIO_RESETTING;
}

uint32_t virtio_pci_window_read(struct pci_device *dev, unsigned offset, unsigned size,
				uint32_t value)
{
	struct virtio_pci *vpci = container_of(dev, struct virtio_pci, pci);
	uint8_t *data = dev->config + vpci->window_pos + CAP_WINDOW_DATA;
	const struct io_ops *ops;
	uint32_t at, length;

	if (!window_hit(vpci, offset, size))
		return value;
	ops = window_target(vpci, &at, &length);
	if (!ops)
		return value;
	store_le(data, length, ops->read(vpci, at, length));
	return load_le(dev->config + offset, size);
}

void virtio_pci_window_written(struct pci_device *dev, unsigned offset, unsigned size,
			       uint32_t value)
{
	struct virtio_pci *vpci = container_of(dev, struct virtio_pci, pci);
	uint8_t *data = dev->config + vpci->window_pos + CAP_WINDOW_DATA;
	const struct io_ops *ops;
	uint32_t at, length;

	if (!window_hit(vpci, offset, size))
		return;
	ops = window_target(vpci, &at, &length);
	if (ops && ops->write)
		ops->write(vpci, at, load_le(data, length), length);
}
