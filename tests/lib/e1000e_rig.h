/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest without CPUs that has an e1000e over a fake back end, and the rings of its driver. One
 * thread.
 */
#ifndef TESTS_LIB_E1000E_RIG_H
#define TESTS_LIB_E1000E_RIG_H

#include "hw/net/e1000e.h"
#include "tests/lib/fake_netdev.h"
#include "tests/lib/pci_machine.h"

enum {
	E1000E_RIG_RAM = 4 << 20,
	E1000E_RIG_DEVFN = PCI_DEVFN(3, 0),
	E1000E_RIG_PORT = 0xc000,
	E1000E_RIG_INPUT = 3,	 /* where its INTA# goes */
	E1000E_RIG_TX = 0x10000, /* rings: queue 1's 0x1000 further */
	E1000E_RIG_RX = 0x14000,
	E1000E_RIG_RING = 16,	       /* descriptors */
	E1000E_RIG_TX_BYTES = 0x40000, /* frames that go out */
	E1000E_RIG_RX_BYTES = 0x80000, /* buffers for those that come, 0x4000 each */
	E1000E_RIG_RX_STRIDE = 0x4000,
};
#define E1000E_RIG_BAR	UINT64_C(0xf0000000)
#define E1000E_RIG_MSIX UINT64_C(0xf0100000)

struct e1000e_rig {
	struct pci_machine m;
	struct fake_netdev net;
	struct device *dev;
	struct e1000e *d;
	uint8_t *ram;
	unsigned tail[2]; /* of transmit rings */
	unsigned rx_tail[2];
	size_t tx_at;
};

/* The back end as fake_netdev_init() takes it; props: of the card, or NULL. The guest runs. */
void e1000e_rig_init(struct e1000e_rig *r, unsigned vnet_hdr, unsigned offloads, const char *props);
void e1000e_rig_destroy(struct e1000e_rig *r);
uint32_t e1000e_rig_read(struct e1000e_rig *r, unsigned reg);
void e1000e_rig_write(struct e1000e_rig *r, unsigned reg, uint32_t value);
/* Until the loop has nothing to do now. */
void e1000e_rig_settle(struct e1000e_rig *r);

/* Both rings of queue 0 (and 1 if queues is 2), receiving with RCTL's further bits. */
void e1000e_rig_start(struct e1000e_rig *r, unsigned queues, uint32_t rctl);
/* One descriptor behind the others of a transmit ring; the tail is not written. */
void e1000e_rig_put(struct e1000e_rig *r, unsigned queue, uint64_t addr, uint32_t command,
		    uint32_t status);
/* With these bytes, which are copied to memory first. */
void e1000e_rig_put_bytes(struct e1000e_rig *r, unsigned queue, const void *bytes, size_t len,
			  uint32_t command, uint32_t status);
void e1000e_rig_kick(struct e1000e_rig *r, unsigned queue);
/* n buffers for receiving, of the kind that registers say. */
void e1000e_rig_offer(struct e1000e_rig *r, unsigned queue, unsigned n);
/* The i-th receive descriptor, and its buffer (or of a split one the k-th). */
uint8_t *e1000e_rig_rx_desc(struct e1000e_rig *r, unsigned queue, unsigned i);
uint8_t *e1000e_rig_buffer(struct e1000e_rig *r, unsigned queue, unsigned i, unsigned k);
/* MSI-X on, vector v unmasked with data 0x40 + v. */
void e1000e_rig_use_msix(struct e1000e_rig *r);

#endif
