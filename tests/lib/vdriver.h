/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's virtio driver in the test's own process: memory and a PCI root without CPUs, an
 * allocator of guest memory, set-up of devices through their registers, modern or legacy, and
 * rings. What a correct driver would not do, tests do by writing the rings themselves.
 *
 * The test's thread is every vCPU, the main thread and, unless a device has an iothread, its loop.
 */
#ifndef TESTS_LIB_VDRIVER_H
#define TESTS_LIB_VDRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "hw/pci/pci.h"
#include "hw/virtio/virtio_spec.h"
#include "hw/virtio/virtqueue.h"
#include "vmm/core/vm.h"

enum {
	VGUEST_RAM = 64 << 20, /* bytes, from guest physical 0 */
	VGUEST_VECTORS = 256,
	VGUEST_OBJECTS = 8,
};

struct vguest {
	struct vm vm;
	struct pci_root root;
	struct io_reader pio, mmio;
	uint8_t *ram;
	uint64_t next; /* of the allocator */
	struct msi_sink sink;
	_Atomic unsigned msi[VGUEST_VECTORS]; /* messages seen, by their data */
	bool intx;			      /* any pin is up */
	struct {
		const char *name;
		void *object;
	} objects[VGUEST_OBJECTS]; /* what properties may name */
	struct notifier events;
	struct vm_event last_event;
	unsigned event_count;
};

void vguest_init(struct vguest *g);
void vguest_destroy(struct vguest *g);
void vguest_object(struct vguest *g, const char *name, void *object);
/* props: "name=value,name=value" or NULL. On the root bus. NULL with err, or fails the test if err
 * is NULL. */
struct device *vguest_add(struct vguest *g, const struct device_desc *desc, const char *props,
			  struct error **err);
struct device *vguest_add_on(struct vguest *g, struct bus *bus, const struct device_desc *desc,
			     const char *id, const char *props, struct error **err);
/* Starts the guest; BARs are placed. */
void vguest_boot(struct vguest *g);
/* Turns the main loop until nothing is ready. */
void vguest_settle(struct vguest *g);

uint64_t vguest_alloc(struct vguest *g, uint64_t size, uint64_t align);
static inline void *vguest_ptr(struct vguest *g, uint64_t gpa)
{
	return g->ram + gpa;
}
uint64_t vguest_in(struct vguest *g, bool port, uint64_t addr, unsigned size);
void vguest_out(struct vguest *g, bool port, uint64_t addr, uint64_t value, unsigned size);

/* A piece of a request. */
struct vbuf {
	uint64_t gpa;
	uint32_t len;
};

struct vdriver;

struct vring {
	struct vdriver *d;
	uint16_t index, size;
	uint64_t desc, avail, used;
	uint16_t free; /* next descriptor; descriptors are not reused until the ring is set up
			* again, unless vring_recycle() */
	uint16_t avail_idx, used_idx;
	uint16_t kicked_idx;
	bool event_idx;
	unsigned kicks; /* made */
};

struct vdriver {
	struct vguest *g;
	struct pci_device *pci;
	bool legacy;
	uint64_t port;			      /* legacy registers */
	uint64_t common, isr, config, notify; /* modern ones */
	uint32_t notify_stride;
	uint64_t msix_table;
	bool msix;
	uint64_t features; /* negotiated */
	struct vring rings[64];
};

/* Configuration space. */
uint32_t vdriver_pci_read(struct vdriver *d, unsigned offset, unsigned size);
void vdriver_pci_write(struct vdriver *d, unsigned offset, uint32_t value, unsigned size);
/* Finds the registers. */
void vdriver_open(struct vdriver *d, struct vguest *g, struct device *dev, bool legacy);
uint8_t vdriver_status(struct vdriver *d);
void vdriver_set_status(struct vdriver *d, uint8_t status);
/* 0, then polling as the specification has it. */
void vdriver_reset(struct vdriver *d);
uint64_t vdriver_offered(struct vdriver *d);
/* ACKNOWLEDGE, DRIVER, the features that are both offered and wanted, FEATURES_OK. */
void vdriver_negotiate(struct vdriver *d, uint64_t wanted);
void vdriver_write_features(struct vdriver *d, uint64_t features);
/* Turns MSI-X on with message data v for vector v; before the rings. */
void vdriver_enable_msix(struct vdriver *d, unsigned vectors);
void vdriver_mask_vector(struct vdriver *d, unsigned vector, bool masked);
/* Vector for configuration changes. */
void vdriver_config_vector(struct vdriver *d, uint16_t vector);
/* Sets a ring up; with MSI-X its vector is index + 1. size 0: the device's. */
struct vring *vdriver_ring(struct vdriver *d, unsigned index, unsigned size);
void vdriver_ok(struct vdriver *d);
uint64_t vdriver_config_read(struct vdriver *d, unsigned offset, unsigned size);
void vdriver_config_write(struct vdriver *d, unsigned offset, uint64_t value, unsigned size);
uint8_t vdriver_isr(struct vdriver *d);

/* One descriptor of the ring's table. */
void vring_desc(struct vring *r, unsigned i, uint64_t gpa, uint32_t len, uint16_t flags,
		uint16_t next);
/* Chains pieces up, out readable ones then in writable ones, directly or through a table; makes the
 * chain available. Returns its head. */
uint16_t vring_add(struct vring *r, const struct vbuf *bufs, unsigned out, unsigned in,
		   bool indirect);
/* Makes a head available. */
void vring_offer(struct vring *r, uint16_t head);
/* Rings if the device asked for it; says whether. */
bool vring_kick(struct vring *r);
/* Rings in any case. */
void vring_ring(struct vring *r);
bool vring_used(struct vring *r, uint16_t *head, uint32_t *len);
/* All used again: descriptors may be handed out from the first. */
void vring_recycle(struct vring *r);
/* Asks for an interrupt when the used index passes event. */
void vring_set_used_event(struct vring *r, uint16_t event);
void vring_suppress(struct vring *r, bool on);

#endif
