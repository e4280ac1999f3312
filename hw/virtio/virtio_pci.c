/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio PCI function: identity, BARs, interrupts, doorbells; see virtio_pci.h.
 * virtio 1.2, sections 4.1.2, 4.1.4 and 4.1.5.
 *
 * Thread: init and exit main, bar_moved under pci root->lock, interrupts any.
 * Owner: the concrete device, whose struct begins with struct virtio_pci.
 */
#include "hw/virtio/virtio_pci.h"

#include <stdlib.h>

#include "vmm/core/util.h"

enum {
	VENDOR_ID = 0x1af4,
	SUBSYSTEM_ID_MODERN = 0x1100,
	DEVICE_ID_MODERN = 0x1040, /* plus the device type */
	LEGACY_NOTIFY_PORT = 16,
};

const struct prop virtio_pci_props[] = {
	{.name = "ioeventfd",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct virtio_pci, ioeventfd),
	 .def = "on",
	 .help = "doorbells reach the device's thread without passing through the vCPU's"},
	{.name = "vectors",
	 .type = PROP_U32,
	 .offset = offsetof(struct virtio_pci, vectors),
	 .def = "4294967295",
	 .help = "MSI-X vectors; 0: none, 4294967295: one a queue and one for the rest"},
	{.type = PROP_END},
};

const struct prop virtio_pci_mode_props[] = {
	{.name = "disable-legacy",
	 .type = PROP_TRISTATE,
	 .offset = offsetof(struct virtio_pci, disable_legacy),
	 .def = "auto",
	 .help = "no legacy interface; auto: none behind a PCI Express port"},
	{.name = "disable-modern",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct virtio_pci, disable_modern),
	 .def = "off",
	 .help = "no modern interface"},
	{.type = PROP_END},
};

void virtio_pci_set_modern_only(struct device *dev)
{
	struct virtio_pci *vpci = virtio_pci_of(dev);

	vpci->disable_legacy = TRISTATE_ON;
	vpci->disable_modern = false;
}

void virtio_pci_set_transitional(struct device *dev)
{
	struct virtio_pci *vpci = virtio_pci_of(dev);

	vpci->disable_legacy = TRISTATE_OFF;
	vpci->disable_modern = false;
}

/* ---- interrupts ---- */

static void raise_isr(struct virtio_pci *vpci, uint8_t bit)
{
	pthread_mutex_lock(&vpci->isr_lock);
	vpci->isr |= bit;
	pci_irq_set(&vpci->pci, true);
	pthread_mutex_unlock(&vpci->isr_lock);
}

uint8_t virtio_pci_take_isr(struct virtio_pci *vpci)
{
	uint8_t isr;

	pthread_mutex_lock(&vpci->isr_lock);
	isr = vpci->isr;
	vpci->isr = 0;
	pci_irq_set(&vpci->pci, false);
	pthread_mutex_unlock(&vpci->isr_lock);
	return isr;
}

static void signal_guest(struct virtio_pci *vpci, _Atomic uint16_t *slot, uint8_t isr_bit)
{
	uint16_t vector = atomic_load_explicit(slot, memory_order_acquire);

	if (!pci_msix_enabled(&vpci->pci))
		raise_isr(vpci, isr_bit);
	else if (vector != VIRTIO_NO_VECTOR)
		pci_msix_notify(&vpci->pci, vector);
}

void virtio_pci_set_vector(struct virtio_pci *vpci, _Atomic uint16_t *slot, uint16_t vector)
{
	uint16_t old;

	pthread_mutex_lock(&vpci->vector_lock);
	old = *slot;
	/* Taken before the old one is given back: often they are the same. */
	if (vector != VIRTIO_NO_VECTOR &&
	    (vector >= vpci->vectors || pci_msix_vector_use(&vpci->pci, vector) < 0))
		vector = VIRTIO_NO_VECTOR;
	*slot = vector;
	if (old != VIRTIO_NO_VECTOR)
		pci_msix_vector_unuse(&vpci->pci, old);
	pthread_mutex_unlock(&vpci->vector_lock);
	if (vector != old)
		virtio_interrupts_moved(vpci->vdev);
}

/* ---- doorbells; vdev->lock held ---- */

static struct io_doorbell modern_doorbell(struct virtio_pci *vpci, unsigned i)
{
	/* Any size: what is written does not matter. */
	return (struct io_doorbell){.addr = vpci->queues[i].modern_addr,
				    .fd = virtio_notify_fd(vpci->vdev, i)};
}

static struct io_doorbell legacy_doorbell(struct virtio_pci *vpci, unsigned i)
{
	return (struct io_doorbell){.addr = vpci->queues[i].legacy_addr,
				    .size = 2,
				    .match = true,
				    .value = i,
				    .fd = virtio_notify_fd(vpci->vdev, i)};
}

static void add_doorbells(struct virtio_pci *vpci)
{
	struct virtio_device *vdev = vpci->vdev;
	struct vm *vm = vdev->vm;

	if (!vpci->ioeventfd || vdev->phase != VIRTIO_RUNNING)
		return;
	for (unsigned i = 0; i < vdev->queue_count; i++) {
		struct virtio_pci_queue *q = &vpci->queues[i];

		if (!vdev->queues[i].enabled)
			continue;
		if (!vdev->legacy && !q->modern_bell && vpci->modern_base != PCI_UNMAPPED) {
			q->modern_addr = vpci->modern_base + i * VIRTIO_PCI_NOTIFY_STRIDE +
					 vpci->pieces[VIRTIO_PCI_NOTIFY].offset;
			struct io_doorbell db = modern_doorbell(vpci, i);
			q->modern_bell = io_bus_add_doorbell(&vm->mmio, &db, NULL);
		}
		if (vdev->legacy && !q->legacy_bell && vpci->legacy_base != PCI_UNMAPPED) {
			q->legacy_addr = vpci->legacy_base + LEGACY_NOTIFY_PORT;
			struct io_doorbell db = legacy_doorbell(vpci, i);
			q->legacy_bell = io_bus_add_doorbell(&vm->pio, &db, NULL);
		}
	}
}

static void remove_doorbells(struct virtio_pci *vpci)
{
	struct vm *vm = vpci->vdev->vm;

	for (unsigned i = 0; i < vpci->vdev->queue_count; i++) {
		struct virtio_pci_queue *q = &vpci->queues[i];

		if (q->modern_bell) {
			struct io_doorbell db = modern_doorbell(vpci, i);
			io_bus_remove_doorbell(&vm->mmio, &db);
		}
		if (q->legacy_bell) {
			struct io_doorbell db = legacy_doorbell(vpci, i);
			io_bus_remove_doorbell(&vm->pio, &db);
		}
		q->modern_bell = q->legacy_bell = false;
	}
}

static void bar_moved(struct pci_device *dev, unsigned bar, uint64_t from, uint64_t to)
{
	struct virtio_pci *vpci = container_of(dev, struct virtio_pci, pci);

	if (bar != VIRTIO_PCI_MODERN_BAR && bar != VIRTIO_PCI_LEGACY_BAR)
		return;
	pthread_mutex_lock(&vpci->vdev->lock);
	remove_doorbells(vpci);
	if (bar == VIRTIO_PCI_MODERN_BAR)
		vpci->modern_base = to;
	else
		vpci->legacy_base = to;
	add_doorbells(vpci);
	pthread_mutex_unlock(&vpci->vdev->lock);
}

static const struct pci_device_ops pci_ops = {
	.config_read = virtio_pci_window_read,
	.config_written = virtio_pci_window_written,
	.bar_moved = bar_moved,
};

/* ---- what the device sees of its transport ---- */

static struct virtio_pci *of_vdev(struct virtio_device *vdev)
{
	return vdev->transport_opaque;
}

static void interrupt(struct virtio_device *vdev, struct virtqueue *vq)
{
	struct virtio_pci *vpci = of_vdev(vdev);

	signal_guest(vpci, &vpci->queues[vq->index].vector, VIRTIO_ISR_QUEUE);
}

static int interrupt_fd(struct virtio_device *vdev, struct virtqueue *vq)
{
	struct virtio_pci *vpci = of_vdev(vdev);
	uint16_t vector = vpci->queues[vq->index].vector;

	return pci_msix_enabled(&vpci->pci) && vector != VIRTIO_NO_VECTOR
		       ? pci_msix_vector_fd(&vpci->pci, vector)
		       : -1;
}

static void config_interrupt(struct virtio_device *vdev)
{
	struct virtio_pci *vpci = of_vdev(vdev);

	signal_guest(vpci, &vpci->config_vector, VIRTIO_ISR_CONFIG);
}

static void started(struct virtio_device *vdev)
{
	add_doorbells(of_vdev(vdev));
}

static void transport_reset(struct virtio_device *vdev)
{
	struct virtio_pci *vpci = of_vdev(vdev);

	remove_doorbells(vpci);
	vpci->device_feature_select = vpci->driver_feature_select = 0;
	vpci->queue_select = 0;
	if (vpci->pci.initialised) {
		virtio_pci_set_vector(vpci, &vpci->config_vector, VIRTIO_NO_VECTOR);
		for (unsigned i = 0; i < vdev->queue_count; i++)
			virtio_pci_set_vector(vpci, &vpci->queues[i].vector, VIRTIO_NO_VECTOR);
		virtio_pci_take_isr(vpci);
	}
}

static const struct virtio_transport transport = {
	.interrupt = interrupt,
	.interrupt_fd = interrupt_fd,
	.config_interrupt = config_interrupt,
	.started = started,
	.reset = transport_reset,
};

/* ---- life ---- */

/* Device types that existed before virtio 1.0 have an id of their own for transitional devices
 * (4.1.2.1); 0: there is none. */
static uint16_t transitional_id(uint16_t type)
{
	switch (type) {
	case VIRTIO_ID_NET:
		return 0x1000;
	case VIRTIO_ID_BLOCK:
		return 0x1001;
	case VIRTIO_ID_BALLOON:
		return 0x1002;
	case VIRTIO_ID_CONSOLE:
		return 0x1003;
	case VIRTIO_ID_SCSI:
		return 0x1004;
	case VIRTIO_ID_RNG:
		return 0x1005;
	}
	return 0;
}

static bool choose_interfaces(struct virtio_pci *vpci, bool behind_port, struct error **err)
{
	uint16_t type = vpci->vdev->ops->id;

	vpci->modern = !vpci->disable_modern;
	if (vpci->disable_legacy == TRISTATE_AUTO)
		vpci->legacy = transitional_id(type) && !behind_port;
	else
		vpci->legacy = vpci->disable_legacy == TRISTATE_OFF;
	if (vpci->legacy && !transitional_id(type)) {
		error_set(err, "device is modern-only, use disable-legacy=on");
		return false;
	}
	if (!vpci->modern && !vpci->legacy) {
		error_set(err, "device cannot work as neither modern nor legacy mode is enabled");
		return false;
	}
	if (vpci->legacy && vpci->vdev->iommu_platform) {
		error_set(err, "iommu_platform=on needs a device that is modern only "
			       "(disable-legacy=on)");
		return false;
	}
	return true;
}

static void identify(struct virtio_pci *vpci, uint32_t class_code, bool express)
{
	uint16_t type = vpci->vdev->ops->id;

	vpci->info = (struct pci_info){
		.vendor_id = VENDOR_ID,
		.device_id = vpci->legacy ? transitional_id(type) : DEVICE_ID_MODERN + type,
		.subsystem_vendor_id = VENDOR_ID,
		.subsystem_id = vpci->legacy ? type : SUBSYSTEM_ID_MODERN,
		.class_code = class_code,
		.revision = vpci->legacy ? 0 : 1,
		.intx_pin = 1,
		.express = express,
		.default_rom = vpci->default_rom,
		.ops = &pci_ops,
	};
}

static void add_legacy_bar(struct virtio_pci *vpci)
{
	uint64_t size = 32;

	while (size < 24u + vpci->vdev->config_size)
		size *= 2;
	pci_bar_init(&vpci->pci, VIRTIO_PCI_LEGACY_BAR, PCI_BAR_IO, size);
	vpci->legacy_region.io.size = size;
	vpci->legacy_region.io.ops = &virtio_pci_legacy_ops;
	vpci->legacy_region.io.opaque = vpci;
	vpci->legacy_region.io.name = "virtio-pci-legacy";
	pci_bar_add_region(&vpci->pci, VIRTIO_PCI_LEGACY_BAR, 0, &vpci->legacy_region);
}

static bool add_modern_bar(struct virtio_pci *vpci, struct error **err)
{
	pci_bar_init(&vpci->pci, VIRTIO_PCI_MODERN_BAR, PCI_BAR_MEM64_PREF,
		     VIRTIO_PCI_PIECES * VIRTIO_PCI_PIECE_SIZE);
	for (unsigned i = 0; i < VIRTIO_PCI_PIECES; i++) {
		struct pci_bar_region *r = &vpci->pieces[i];

		r->io.size = VIRTIO_PCI_PIECE_SIZE;
		r->io.ops = &virtio_pci_modern_ops[i];
		r->io.opaque = vpci;
		r->io.name = virtio_pci_piece_names[i];
		/* Doorbells are not cut: they would ring twice. */
		r->io.max_access = i == VIRTIO_PCI_NOTIFY ? 8 : 4;
		pci_bar_add_region(&vpci->pci, VIRTIO_PCI_MODERN_BAR, i * VIRTIO_PCI_PIECE_SIZE, r);
	}
	return virtio_pci_add_modern_caps(vpci, err);
}

static bool add_parts(struct virtio_pci *vpci, bool behind_port, struct error **err)
{
	struct virtio_device *vdev = vpci->vdev;

	if (behind_port &&
	    (!pcie_cap_init(&vpci->pci, PCIE_ENDPOINT, 0, err) || !pci_pm_init(&vpci->pci, err)))
		return false;
	if (vpci->legacy)
		add_legacy_bar(vpci);
	if (vpci->vectors == UINT32_MAX)
		vpci->vectors = MIN(vdev->queue_count + 1, (uint32_t)PCI_MSIX_MAX_VECTORS);
	if (vpci->vectors > PCI_MSIX_MAX_VECTORS) {
		error_set(err, "vectors=%u: a device has at most %u", vpci->vectors,
			  (unsigned)PCI_MSIX_MAX_VECTORS);
		return false;
	}
	if (vpci->vectors &&
	    !pci_msix_init_exclusive(&vpci->pci, vpci->vectors, VIRTIO_PCI_MSIX_BAR, err))
		return false;
	return !vpci->modern || add_modern_bar(vpci, err);
}

bool virtio_pci_init(struct virtio_pci *vpci, struct virtio_device *vdev, uint32_t class_code,
		     struct error **err)
{
	struct pci_bus *bus = vpci->pci.bus;
	bool behind_port = bus->express && !pci_bus_is_root(bus);

	vpci->vdev = vdev;
	if (!choose_interfaces(vpci, behind_port, err))
		return false;
	identify(vpci, class_code, behind_port);
	vpci->modern_base = vpci->legacy_base = PCI_UNMAPPED;
	vpci->config_vector = VIRTIO_NO_VECTOR;
	vpci->queue_count = vdev->queue_count;
	vpci->queues = xcalloc(vdev->queue_count, sizeof(*vpci->queues));
	for (unsigned i = 0; i < vdev->queue_count; i++)
		vpci->queues[i].vector = VIRTIO_NO_VECTOR;
	pthread_mutex_init(&vpci->vector_lock, NULL);
	pthread_mutex_init(&vpci->isr_lock, NULL);
	vdev->transport = &transport;
	vdev->transport_opaque = vpci;
	if (!vpci->modern)
		vdev->host_features &= UINT32_MAX;
	if (!pci_device_init(&vpci->pci, &vpci->info, err))
		goto fail;
	if (!add_parts(vpci, behind_port, err))
		goto fail_device;
	return true;
fail_device:
	pci_device_exit(&vpci->pci);
fail:
	vdev->transport = NULL;
	pthread_mutex_destroy(&vpci->vector_lock);
	pthread_mutex_destroy(&vpci->isr_lock);
	free(vpci->queues);
	vpci->queues = NULL;
	return false;
}

void virtio_pci_exit(struct virtio_pci *vpci)
{
	/* The data path first, so that no interrupt is raised on a function that is gone. */
	virtio_close(vpci->vdev);
	pci_device_exit(&vpci->pci);
	virtio_exit(vpci->vdev);
	pthread_mutex_destroy(&vpci->vector_lock);
	pthread_mutex_destroy(&vpci->isr_lock);
	free(vpci->queues);
	vpci->queues = NULL;
}

void virtio_pci_reset(struct device *dev)
{
	struct virtio_pci *vpci = virtio_pci_of(dev);

	pci_device_reset(&vpci->pci);
	virtio_reset(vpci->vdev);
}

/* ---- state ---- */

static bool take_vectors(void *object, unsigned version, struct error **err)
{
	struct virtio_pci *vpci = object;
	uint16_t vector = vpci->config_vector;

	vpci->config_vector = VIRTIO_NO_VECTOR;
	virtio_pci_set_vector(vpci, &vpci->config_vector, vector);
	for (unsigned i = 0; i < vpci->vdev->queue_count; i++) {
		vector = vpci->queues[i].vector;
		vpci->queues[i].vector = VIRTIO_NO_VECTOR;
		virtio_pci_set_vector(vpci, &vpci->queues[i].vector, vector);
	}
	if (vpci->isr)
		pci_irq_set(&vpci->pci, true);
	return true;
}

static const struct state_field queue_fields[] = {
	STATE_FIELD(struct virtio_pci_queue, vector, STATE_U16),
	{.type = STATE_END},
};

static const struct state_desc queue_state = {
	.name = "virtio-pci-queue",
	.version = 1,
	.fields = queue_fields,
};

static const struct state_field virtio_pci_fields[] = {
	PCI_DEVICE_STATE,
	STATE_FIELD(struct virtio_pci, device_feature_select, STATE_U32),
	STATE_FIELD(struct virtio_pci, driver_feature_select, STATE_U32),
	STATE_FIELD(struct virtio_pci, queue_select, STATE_U16),
	STATE_FIELD(struct virtio_pci, config_vector, STATE_U16),
	STATE_FIELD(struct virtio_pci, isr, STATE_U8),
	{.name = "vdev",
	 .type = STATE_PTR,
	 .offset = offsetof(struct virtio_pci, vdev),
	 .size = sizeof(struct virtio_device),
	 .desc = &virtio_state},
	{.name = "queues",
	 .type = STATE_PTR,
	 .offset = offsetof(struct virtio_pci, queues),
	 .size = sizeof(struct virtio_pci_queue),
	 .count = VIRTIO_MAX_QUEUES,
	 .count_offset = offsetof(struct virtio_pci, queue_count),
	 .desc = &queue_state},
	{.type = STATE_END},
};

const struct state_desc virtio_pci_state = {
	.name = "virtio-pci",
	.version = 1,
	.fields = virtio_pci_fields,
	.post_load = take_vectors,
};
