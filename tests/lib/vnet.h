/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network card's driver, for tests of virtio-net over a fake back end.
 */
#ifndef TESTS_LIB_VNET_H
#define TESTS_LIB_VNET_H

#include "hw/virtio/virtio_net.h"
#include "tests/lib/fake_netdev.h"
#include "tests/lib/vdriver.h"

enum {
	VNET_PAIRS = 8,
	VNET_ALL_OFFLOADS = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 |
			    NET_OFFLOAD_ECN | NET_OFFLOAD_UFO | NET_OFFLOAD_USO4 | NET_OFFLOAD_USO6,
	VNET_RING = 256,
	VNET_PENDING = 0xee,  /* an answer that has not come */
	VNET_LARGEST = 65550, /* frame */
};

struct vnet_posted {
	uint64_t gpa;
	uint32_t len;
};

struct vnet {
	struct vguest g;
	struct vdriver d;
	struct fake_netdev net;
	struct iothread *iothread;
	struct device *dev;
	unsigned pairs, hdr; /* bytes of a header in the guest */
	struct vring *rx[VNET_PAIRS], *tx[VNET_PAIRS], *ctrl;
	struct vnet_posted posted[VNET_PAIRS][1024]; /* by the chain's head */
};

/* The back end is made with these, and named n0. */
void vnet_init(struct vnet *v, unsigned queues, unsigned vnet_hdr, unsigned offloads);
void vnet_destroy(struct vnet *v);
/* Of cmocka: one pair of queues over a back end that can do everything, or nothing. */
int vnet_setup(void **state);
int vnet_setup_plain(void **state);
int vnet_teardown(void **state);
/* props besides netdev=n0. */
void vnet_add(struct vnet *v, const char *props);
/* Sets the device up with all its rings: pair p has vectors 2p + 1 and 2p + 2. */
void vnet_drive(struct vnet *v, bool legacy, uint64_t features, bool msix);
/* The rest of it, after a reset. */
void vnet_drive_again(struct vnet *v, uint64_t features);

/* vnet_add() and vnet_drive() with MSI-X. */
void vnet_start(struct vnet *v, const char *props, uint64_t features);

/* Buffers of len bytes, one descriptor each, for a receive queue; kicked. */
void vnet_post(struct vnet *v, unsigned pair, unsigned count, uint32_t len);
/* The next packet of a receive queue, header and all, put together from its buffers; how long. 0:
 * none. buffers may be NULL. */
size_t vnet_take(struct vnet *v, unsigned pair, void *packet, size_t room, unsigned *buffers);
/* Makes a chain of header and frame in `pieces` parts; not kicked. */
uint16_t vnet_put(struct vnet *v, unsigned pair, const struct virtio_net_hdr *hdr,
		  const void *frame, size_t len, unsigned pieces);
/* Likewise, kicked, and done with. hdr NULL: zeros. */
void vnet_send(struct vnet *v, unsigned pair, const struct virtio_net_hdr *hdr, const void *frame,
	       size_t len);
uint8_t vnet_command(struct vnet *v, uint8_t class, uint8_t cmd, const void *data, size_t len);

/* A frame to the card's own address (or dst) of len bytes that says who it is. */
void vnet_frame(uint8_t *frame, size_t len, const uint8_t *dst, unsigned seed);
/* With the header that the back end would write, if it writes any; false: no room. */
bool vnet_arrive(struct vnet *v, unsigned queue, const void *frame, size_t len);

/* That a frame of len bytes arrives as it was sent, and leaves so. */
void vnet_check_receives(struct vnet *v, unsigned pair, size_t len, unsigned seed);
void vnet_check_sends(struct vnet *v, unsigned pair, size_t len, unsigned seed);
/* Both, with buffers of its own. */
void vnet_check_works(struct vnet *v);

extern const uint8_t vnet_mac[6], vnet_broadcast[6];

#endif
