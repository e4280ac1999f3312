/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio over PCI: virtio 1.2, section 4.1, and the legacy interface of its 4.1.4.8.
 *
 * A device that drivers of both kinds can use (transitional) has registers in two places:
 *
 *   BAR 0  I/O ports, legacy: virtio_pci_legacy.c
 *   BAR 1  memory, MSI-X table and pending bits
 *   BAR 4  memory, 64-bit, modern: virtio_pci_modern.c; a page each of common configuration,
 *          interrupt status, device configuration, and doorbells (4 bytes a queue)
 *
 * A concrete device's struct begins with struct virtio_pci and holds its struct virtio_device
 * elsewhere. Its realize calls virtio_init() and then virtio_pci_init(), its unrealize
 * virtio_pci_exit(), which undoes both.
 *
 * Threads. Handlers run on vCPU threads, interrupts are raised from the device's loop. Lock order:
 * pci root->lock, vdev->lock, vector_lock, isr_lock, pci's interrupt locks.
 */
#ifndef HW_VIRTIO_VIRTIO_PCI_H
#define HW_VIRTIO_VIRTIO_PCI_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "hw/pci/pci.h"
#include "hw/virtio/virtio.h"

enum {
	VIRTIO_PCI_LEGACY_BAR = 0,
	VIRTIO_PCI_MSIX_BAR = 1,
	VIRTIO_PCI_MODERN_BAR = 4,
};

/* Pieces of the modern BAR, a page each. */
enum virtio_pci_piece {
	VIRTIO_PCI_COMMON,
	VIRTIO_PCI_ISR,
	VIRTIO_PCI_DEVICE,
	VIRTIO_PCI_NOTIFY,
	VIRTIO_PCI_PIECES,
};
enum { VIRTIO_PCI_PIECE_SIZE = 0x1000, VIRTIO_PCI_NOTIFY_STRIDE = 4 };

/* What the transport keeps of a queue. */
struct virtio_pci_queue {
	_Atomic uint16_t vector;
	/* Doorbells on the buses; addresses they were put at. Under vdev->lock. */
	bool modern_bell, legacy_bell;
	uint64_t modern_addr, legacy_addr;
};

struct virtio_pci {
	struct pci_device pci;
	struct virtio_device *vdev;

	/* Properties. */
	int disable_legacy; /* enum prop_tristate */
	bool disable_modern;
	bool ioeventfd;
	uint32_t vectors;

	struct pci_info info;
	const char *default_rom; /* set before virtio_pci_init() */
	bool legacy, modern; /* which interfaces there are */
	struct pci_bar_region legacy_region;
	struct pci_bar_region pieces[VIRTIO_PCI_PIECES];
	uint8_t window_pos; /* of the capability that reaches BAR 4 through configuration space */

	/* Registers of the transport itself. */
	_Atomic uint32_t device_feature_select, driver_feature_select;
	_Atomic uint16_t queue_select;
	_Atomic uint16_t config_vector;
	uint32_t queue_count;
	struct virtio_pci_queue *queues;

	pthread_mutex_t vector_lock; /* taking and giving back of MSI-X vectors */
	pthread_mutex_t isr_lock;    /* the status byte and the pin that follows it */
	uint8_t isr;

	/* Where doorbells are, or PCI_UNMAPPED. Under vdev->lock. */
	uint64_t modern_base, legacy_base;
};

/* Property tables for a descriptor: base is where struct virtio_pci lies (0). The second is for
 * devices whose user may choose between the interfaces. */
extern const struct prop virtio_pci_props[];
extern const struct prop virtio_pci_mode_props[];
extern const struct state_desc virtio_pci_state;

/* desc->init of devices that are only modern, or always both. */
void virtio_pci_set_modern_only(struct device *dev);
void virtio_pci_set_transitional(struct device *dev);

/* vdev went through virtio_init(). class_code as in struct pci_info. On failure everything but vdev
 * is undone. */
bool virtio_pci_init(struct virtio_pci *vpci, struct virtio_device *vdev, uint32_t class_code,
		     struct error **err);
/* Stops the device, takes it from the guest's sight, ends it and vdev (virtio_exit()). */
void virtio_pci_exit(struct virtio_pci *vpci);
/* For desc->reset. */
void virtio_pci_reset(struct device *dev);

static inline struct virtio_pci *virtio_pci_of(struct device *dev)
{
	return (struct virtio_pci *)dev;
}

/* ---- between the files of this transport ---- */

extern const struct io_ops virtio_pci_legacy_ops;
extern const struct io_ops virtio_pci_modern_ops[VIRTIO_PCI_PIECES];
extern const char *const virtio_pci_piece_names[VIRTIO_PCI_PIECES];

/* Registers of the legacy BAR in front of the device's configuration. */
unsigned virtio_pci_legacy_header(const struct virtio_pci *vpci);
/* Gives *slot another MSI-X vector; VIRTIO_NO_VECTOR when there is no such one. */
void virtio_pci_set_vector(struct virtio_pci *vpci, _Atomic uint16_t *slot, uint16_t vector);
/* Reads and clears the interrupt status, which lowers the pin. */
uint8_t virtio_pci_take_isr(struct virtio_pci *vpci);

/* Adds the capabilities of the modern interface. False if they do not fit. */
bool virtio_pci_add_modern_caps(struct virtio_pci *vpci, struct error **err);
/* The window into BAR 4: hooks for configuration accesses. */
uint32_t virtio_pci_window_read(struct pci_device *dev, unsigned offset, unsigned size,
				uint32_t value);
void virtio_pci_window_written(struct pci_device *dev, unsigned offset, unsigned size,
			       uint32_t value);

#endif
