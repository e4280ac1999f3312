/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio entropy device: virtio 1.2, section 5.4. One queue of buffers to fill.
 *
 * Thread: the main loop. A guest gets at most max-bytes in a period; chains beyond that wait in the
 * ring for the next one.
 */
#ifndef HW_VIRTIO_VIRTIO_RNG_H
#define HW_VIRTIO_VIRTIO_RNG_H

#include <stdbool.h>
#include <stdint.h>

#include "hw/virtio/rng_backend.h"
#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio_pci.h"

enum {
	VIRTIO_RNG_QUEUE_SIZE = 8,
	/* Bytes into one chain: a driver takes what it gets (5.4.6.2). */
	VIRTIO_RNG_MAX_REQUEST = 65536,
};

struct virtio_rng {
	struct virtio_device vdev;

	/* Properties. */
	uint64_t max_bytes;
	uint32_t period; /* ms */
	struct rng_backend *rng;

	/* The loop's. */
	uint64_t quota; /* bytes left in this period */
	struct ev_timer timer;
	struct ev_fd readable;
	struct iovec iov[VQ_MAX_IOV];
	struct vq_chain chain;
	bool waiting; /* chain is popped, the source has nothing */
};

struct virtio_rng_pci {
	struct virtio_pci vpci;
	struct virtio_rng rng;
};

extern const struct device_desc virtio_rng_pci_desc;
extern const struct device_desc virtio_rng_pci_non_transitional_desc;
extern const struct device_desc virtio_rng_pci_transitional_desc;

#endif
