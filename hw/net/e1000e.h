/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e1000e: Intel's 82574L network card (82574 GbE Controller Family Datasheet), for guests that have
 * no virtio driver: install media, firmware, Windows.
 *
 *   e1000e_spec.h    registers and descriptors by their numbers
 *   e1000e.c         the PCI device, its properties, its state, the link, its life
 *   e1000e_regs.c    the table of registers, and how a guest reaches them
 *   e1000e_nvm.c     the memory with its address, as EERD and EEWR see it
 *   e1000e_phy.c     the PHY behind MDIC
 *   e1000e_irq.c     causes, masks, moderation; INTx, MSI and MSI-X
 *   e1000e_tx.c      from the guest to the back end
 *   e1000e_rx.c      from the back end to the guest: rooms, rings, descriptors
 *   e1000e_filter.c  which frames the guest wants, and which queue they go to
 *   frame.c, segment.c   frames and large segments, for any card
 *
 * Threads. Registers are the vCPUs' and the main loop's, under the device's lock. Packets are the
 * main loop's: a tail register that moves posts work there, which does a bounded piece and posts
 * itself for the rest. The lock is held while rings and guest memory are touched, never across a
 * call of the back end; whoever comes back from one looks whether `epoch` tells of a reset
 * meanwhile.
 *
 * Delays of single interrupts (RDTR, RADV, TIDV, TADV, RAID) are not kept: a pass over a ring ends
 * in one interrupt at most. The intervals between interrupts (ITR, EITR) are.
 */
#ifndef HW_NET_E1000E_H
#define HW_NET_E1000E_H

#include <pthread.h>

#include "hw/net/e1000e_spec.h"
#include "hw/net/frame.h"
#include "hw/net/segment.h"
#include "hw/pci/pci.h"
#include "hw/virtio/virtio_net_hdr.h"
#include "net/net.h"

struct e1000e;

/* What the last context descriptor of a queue said. Offsets are of the frame as the guest made it;
 * an end of 0 is the frame's. */
struct e1000e_context {
	uint8_t ip_start, ip_sum, l4_start, l4_sum;
	uint16_t ip_end, l4_end;
	uint8_t header_len;
	uint16_t mss;
	bool ipv4, tcp;
};

enum { E1000E_TX_HEADROOM = 64 }; /* bytes in front of a frame: for its tag */

struct e1000e_tx {
	struct e1000e *d;
	unsigned index;

	/* Under the lock. */
	struct e1000e_context context;
	bool gathering;	  /* a packet's first descriptor was seen, its last was not */
	bool lost;	  /* what comes up to its last is thrown away */
	uint32_t options; /* POPTS of the first, in its place */
	bool large;
	size_t len;

	/* The loop's: a whole packet that the back end has not taken yet. */
	uint8_t *packet; /* headroom, then the bytes */
	bool ready;
	bool waiting; /* the back end says when it takes more */
	uint8_t *frame;
	size_t frame_len;
	struct virtio_net_hdr hdr;
	bool cut; /* into the segments that follow */
	struct net_segments segments;
	size_t next_segment;
};

/* A frame on its way to the guest. */
struct e1000e_arrival {
	uint8_t *bytes;
	size_t len;
	uint32_t status; /* and errors, as extended descriptors have them */
	uint16_t tag;
	unsigned queue, rss_type;
	uint32_t hash;
	uint16_t ip_id, checksum;
	size_t header; /* of a frame that may be split; 0: it may not */
};

enum { E1000E_RX_ROOMS = 16 };

/* Frames that came and have no place in the guest yet stand in rooms[next] to rooms[end - 1]. */
struct e1000e_rx {
	uint8_t *bytes; /* E1000E_RX_ROOMS times NET_PACKET_MAX, touched when they must */
	struct iovec iov[E1000E_RX_ROOMS];
	size_t len[E1000E_RX_ROOMS];
	unsigned next, end;
	unsigned epoch;		       /* when they came */
	struct e1000e_arrival arrival; /* rooms[next], */
	bool looked;		       /* if it was looked at already */
	bool starved;		       /* the back end waits for net_receive_ready() */
};

struct e1000e {
	struct pci_device pci;

	/* Properties. */
	uint8_t first_mac[E1000E_MAC];
	struct netdev *netdev;
	int32_t bootindex;
	bool disable_vnet_hdr;
	uint16_t subsystem_vendor, subsystem;

	/* From realize on. */
	struct pci_info info;
	struct pci_bar_region regs_region, io_region;
	struct net_peer peer;
	unsigned host_hdr; /* bytes of the header in front of packets at the back end */
	struct notifier state_changed;
	struct log_ratelimit guest_errors;

	pthread_mutex_t lock;
	uint32_t regs[E1000E_REGS_END / 4];
	uint32_t io_addr;
	uint16_t nvm[E1000E_NVM_WORDS];
	uint16_t phy[E1000E_PHY_PAGES][E1000E_PHY_REGS];
	bool link_up;	    /* the network's */
	bool negotiated;    /* with it */
	bool negotiate;	    /* the timer is to be set */
	uint64_t time_base; /* of SYSTIM: ns of the loop's clock, and what it showed then */
	uint64_t time_value;
	uint32_t time_increment, time_latched;
	unsigned epoch;

	/* Moderation: when a vector may be raised again (ns), and whether it should be. Vector 0 is
	 * that of MSI and INTx as well. */
	int64_t quiet_until[E1000E_VECTORS];
	bool postponed[E1000E_VECTORS];
	bool line;

	/* The loop's. */
	struct ev_work tx_work, rx_work, timer_work, announce_work;
	struct ev_timer irq_timer, link_timer;
	struct e1000e_tx tx[E1000E_QUEUES];
	struct e1000e_rx rx;
};

extern const struct device_desc e1000e_desc;

/* ---- between the files of this device; under the lock unless they say otherwise ---- */

static inline uint32_t *e1000e_reg(struct e1000e *d, unsigned offset)
{
	return &d->regs[offset / 4];
}

static inline uint32_t e1000e_get(const struct e1000e *d, unsigned offset)
{
	return d->regs[offset / 4];
}

/* Bits of a register of a 64-bit pair: the high half follows. */
static inline uint64_t e1000e_get64(const struct e1000e *d, unsigned offset)
{
	return d->regs[offset / 4] | (uint64_t)d->regs[offset / 4 + 1] << 32;
}

/* e1000e_regs.c */
extern const struct io_ops e1000e_regs_ops, e1000e_io_ops; /* take the lock */
/* As after power-on, but for NVM and PHY. */
void e1000e_regs_reset(struct e1000e *d);
/* What goes on by itself, in front of saving and after loading, whose values are hostile. */
void e1000e_regs_save(struct e1000e *d);
void e1000e_regs_loaded(struct e1000e *d);
/* Counters stick at their end. */
void e1000e_count(struct e1000e *d, unsigned offset, uint32_t n);
void e1000e_count64(struct e1000e *d, unsigned offset, uint64_t n);
/* By size: the first of six counters, PRC64 or PTC64. */
void e1000e_count_size(struct e1000e *d, unsigned first, size_t frame_and_crc);
/* By where it goes. */
void e1000e_count_dst(struct e1000e *d, const uint8_t *frame, unsigned broadcasts,
		      unsigned multicasts);

/* e1000e_nvm.c */
void e1000e_nvm_init(struct e1000e *d, const uint8_t mac[E1000E_MAC]);
/* The address in it goes to the filter's first place. */
void e1000e_nvm_load(struct e1000e *d);
void e1000e_nvm_read(struct e1000e *d, uint32_t eerd);
void e1000e_nvm_write(struct e1000e *d, uint32_t eewr);

/* e1000e_phy.c */
void e1000e_phy_reset(struct e1000e *d);
void e1000e_phy_mdic(struct e1000e *d, uint32_t mdic);
bool e1000e_phy_has_link(const struct e1000e *d);
bool e1000e_phy_loops_back(const struct e1000e *d);
/* The other end came or went, or is to be asked anew: the link follows, some time later if it is to
 * come. Raises LSC. */
void e1000e_phy_negotiate(struct e1000e *d);
/* Registers were loaded: those that tell of the link tell of this one. */
void e1000e_phy_loaded(struct e1000e *d);
/* On the loop: sets the timer if it is to be set. */
void e1000e_phy_arm(struct e1000e *d);
/* That time is over; the loop, takes the lock. */
void e1000e_phy_timer(void *opaque);

/* e1000e_irq.c */
void e1000e_irq_raise(struct e1000e *d, uint32_t causes);
uint32_t e1000e_irq_read_icr(struct e1000e *d);
void e1000e_irq_write_icr(struct e1000e *d, uint32_t value);
void e1000e_irq_enable(struct e1000e *d, uint32_t causes);
void e1000e_irq_disable(struct e1000e *d, uint32_t causes);
void e1000e_irq_reset(struct e1000e *d);
/* What is pending is raised again: MSI came, or a state was loaded. */
void e1000e_irq_again(struct e1000e *d);
/* Main loop, takes the lock: sends what may go now, sets timers for the rest. */
void e1000e_irq_arm(void *opaque);
/* Causes of a queue's descriptors that were written back. */
uint32_t e1000e_irq_rx_cause(struct e1000e *d, unsigned queue);
uint32_t e1000e_irq_tx_cause(struct e1000e *d, unsigned queue);

/* e1000e_tx.c. The loop's, without the lock, but for what is said. */
void e1000e_tx_init(struct e1000e *d);
void e1000e_tx_destroy(struct e1000e *d);
/* Under the lock, any thread: what was gathered is forgotten. */
void e1000e_tx_reset(struct e1000e *d);
void e1000e_tx_work(void *opaque);
void e1000e_tx_writable(void *opaque, unsigned queue);
void e1000e_tx_announce(void *opaque);

/* e1000e_rx.c. Likewise. */
void e1000e_rx_init(struct e1000e *d);
void e1000e_rx_destroy(struct e1000e *d);
void e1000e_rx_work(void *opaque);
unsigned e1000e_rx_buffers(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n);
void e1000e_rx_received(void *opaque, unsigned queue, const struct net_packet *pkts, unsigned n);
/* A frame of the guest's own comes back; under the lock. */
void e1000e_rx_loop_back(struct e1000e *d, const uint8_t *frame, size_t len);

/* e1000e_filter.c. len at least NET_FRAME_HEADER. */
bool e1000e_filter_pass(const struct e1000e *d, const struct net_frame *f, const uint8_t *frame);
/* The queue; *type and *hash: what the descriptor tells, 0 if nothing was hashed. */
unsigned e1000e_filter_queue(const struct e1000e *d, const uint8_t *frame, size_t len,
			     unsigned *type, uint32_t *hash);

/* Whether packets move: the guest runs and lets the card reach its memory. Main loop. */
static inline bool e1000e_is_live(const struct e1000e *d)
{
	return vm_is_running(d->pci.dev.vm) && pci_device_is_master(&d->pci);
}

#endif
