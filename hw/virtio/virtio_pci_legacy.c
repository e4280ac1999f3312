/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers of the legacy virtio PCI interface, one BAR of I/O ports: virtio 1.2, section 4.1.4.10,
 * and virtio 0.9.5, section 2.
 *
 * Thread: vCPUs, without a lock; each access takes what it needs. Owner: struct virtio_pci.
 */
#include "hw/virtio/virtio_pci.h"

#include "vmm/core/util.h"

enum {
	LEGACY_DEVICE_FEATURES = 0,
	LEGACY_DRIVER_FEATURES = 4,
	LEGACY_QUEUE_PFN = 8,
	LEGACY_QUEUE_SIZE = 12,
	LEGACY_QUEUE_SELECT = 14,
	LEGACY_QUEUE_NOTIFY = 16,
	LEGACY_STATUS = 18,
	LEGACY_ISR = 19,
	LEGACY_CONFIG_VECTOR = 20, /* these two only while MSI-X is enabled */
	LEGACY_QUEUE_VECTOR = 22,

	LEGACY_HEADER = 20,
	LEGACY_HEADER_MSIX = 24,
	LEGACY_PAGE_SHIFT = 12, /* of ring addresses, and the used ring's alignment */
};

unsigned virtio_pci_legacy_header(const struct virtio_pci *vpci)
{
	return pci_msix_enabled(&vpci->pci) ? LEGACY_HEADER_MSIX : LEGACY_HEADER;
}

static uint64_t queue_read(struct virtio_pci *vpci, uint64_t offset)
{
	struct virtio_device *vdev = vpci->vdev;
	unsigned index = vpci->queue_select;
	uint64_t value;

	if (index >= vdev->queue_count)
		return 0;
	pthread_mutex_lock(&vdev->lock);
	value = offset == LEGACY_QUEUE_PFN ? vdev->queues[index].desc_gpa >> LEGACY_PAGE_SHIFT
					   : vdev->queues[index].size;
	pthread_mutex_unlock(&vdev->lock);
	return value;
}

static uint64_t legacy_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio_pci *vpci = opaque;
	struct virtio_device *vdev = vpci->vdev;
	unsigned header = virtio_pci_legacy_header(vpci);
	unsigned queue = vpci->queue_select;

	if (offset >= header)
		return virtio_config_read(vdev, offset - header, size);
	switch (offset) {
	case LEGACY_DEVICE_FEATURES:
		return virtio_offered_features(vdev, true);
	case LEGACY_DRIVER_FEATURES:
		return virtio_chosen_features(vdev, 0);
	case LEGACY_QUEUE_PFN:
	case LEGACY_QUEUE_SIZE:
		return queue_read(vpci, offset);
	case LEGACY_QUEUE_SELECT:
		return queue;
	case LEGACY_STATUS:
		return virtio_get_status(vdev, true);
	case LEGACY_ISR:
		return virtio_pci_take_isr(vpci);
	case LEGACY_CONFIG_VECTOR:
		return vpci->config_vector;
	case LEGACY_QUEUE_VECTOR:
		return queue < vdev->queue_count ? vpci->queues[queue].vector : VIRTIO_NO_VECTOR;
	}
	return UINT64_MAX >> (64 - 8 * size);
}

/* One page number places all three rings, in the layout of 2.7.2; 0 is a reset. */
static void set_rings(struct virtio_pci *vpci, uint32_t pfn)
{
	struct virtio_device *vdev = vpci->vdev;
	struct virtqueue *vq;
	uint64_t end;

	if (!pfn) {
		virtio_set_status(vdev, 0, true);
		return;
	}
	vq = virtio_queue_begin(vdev, vpci->queue_select);
	if (!vq)
		return;
	vq->desc_gpa = (uint64_t)pfn << LEGACY_PAGE_SHIFT;
	vq->avail_gpa = vq->desc_gpa + sizeof(struct vq_desc) * vq->size;
	end = vq->avail_gpa + 2 * (UINT64_C(3) + vq->size);
	vq->used_gpa = ALIGN_UP(end, UINT64_C(1) << LEGACY_PAGE_SHIFT);
	virtio_queue_end(vdev, vq, true);
}

static void legacy_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio_pci *vpci = opaque;
	struct virtio_device *vdev = vpci->vdev;
	unsigned header = virtio_pci_legacy_header(vpci);
	unsigned queue = vpci->queue_select;

	if (offset >= header) {
		virtio_config_write(vdev, offset - header, value, size);
		return;
	}
	switch (offset) {
	case LEGACY_DRIVER_FEATURES:
		virtio_set_features(vdev, 0, value, true);
		break;
	case LEGACY_QUEUE_PFN:
		set_rings(vpci, value);
		break;
	case LEGACY_QUEUE_SELECT:
		vpci->queue_select = value;
		break;
	case LEGACY_QUEUE_NOTIFY:
		virtio_notify(vdev, (uint16_t)value);
		break;
	case LEGACY_STATUS:
		virtio_set_status(vdev, value, true);
		break;
	case LEGACY_CONFIG_VECTOR:
		virtio_pci_set_vector(vpci, &vpci->config_vector, value);
		break;
	case LEGACY_QUEUE_VECTOR:
		if (queue < vdev->queue_count)
			virtio_pci_set_vector(vpci, &vpci->queues[queue].vector, value);
		break;
	}
}

const struct io_ops virtio_pci_legacy_ops = {legacy_read, legacy_write};
