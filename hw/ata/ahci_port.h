/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the AHCI adapter: its ports and what they share.
 *
 * hba->lock guards everything here. Register handlers take it on vCPU threads; command lists are
 * walked, devices called and completions taken by the main loop, with it held.
 */
#ifndef HW_ATA_AHCI_PORT_H
#define HW_ATA_AHCI_PORT_H

#include <pthread.h>

#include "hw/ata/ata.h"
#include "hw/pci/pci.h"

enum { AHCI_PORTS = 6, AHCI_SLOTS = 32, AHCI_PORT_REGS = 0x80 };

struct ahci_port {
	struct ahci *hba;
	unsigned index;
	struct bus bus;
	struct ide_dev *dev; /* NULL: nothing connected */

	uint32_t clb, clbu, fb, fbu;
	uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;

	struct ata_task tasks[AHCI_SLOTS];
	uint32_t active; /* tasks that the device has */
	uint32_t queued; /* of these, NCQ */
	bool halted;	 /* after an error: until the guest clears ST */
	bool srst;	 /* software reset is being asserted */
	struct log_ratelimit limit;
};

struct ahci {
	struct pci_device pci;
	pthread_mutex_t lock;
	struct pci_bar_region regs;
	struct ev_work work;
	uint32_t ghc, is;
	bool irq_level;
	bool resetting; /* GHC.HR: waits for tasks that are still with a disk */
	struct ahci_port ports[AHCI_PORTS];
};

unsigned ahci_port_index(const struct ahci_port *p);
/* Main thread: when a device is realized on its bus, and when it goes. */
void ahci_port_connect(struct ahci_port *p, struct ide_dev *d);
void ahci_port_disconnect(struct ahci_port *p);

/* With the lock held. */
uint32_t ahci_port_read(const struct ahci_port *p, unsigned reg);
void ahci_port_write(struct ahci_port *p, unsigned reg, uint32_t value);
/* Registers as after power-on; tasks still with a disk are dropped. */
void ahci_port_reset(struct ahci_port *p);
/* Gives the device what the guest issued. Main loop. */
void ahci_port_run(struct ahci_port *p);
bool ahci_port_loaded(struct ahci_port *p, struct error **err);

/* ahci.c, with the lock held: a port's interrupt state changed. again: what is pending is told once
 * more (message interrupts have no level). */
void ahci_update_irq(struct ahci *hba, bool again);
/* A dropped task came back: a reset may be waiting for it. */
void ahci_task_gone(struct ahci *hba);

extern const struct state_desc ahci_port_state;

#endif
