/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICH9 AHCI controller (8086:2922; AHCI 1.3.1; Intel ICH9 datasheet, chapter 15): PCI function,
 * generic host registers in BAR 5, interrupts. ahci_port.c has the ports.
 *
 * Threads: registers on vCPU threads, commands on the main loop, under hba->lock. Owner: the board
 * or the user.
 */
#include "hw/ata/ahci.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "hw/ata/ahci_port.h"
#include "vmm/core/util.h"

enum {
	REG_CAP = 0x00,
	REG_GHC = 0x04,
	REG_IS = 0x08,
	REG_PI = 0x0c,
	REG_VS = 0x10,
	REGS_SIZE = 0x1000,
	PORTS_AT = 0x100,
	ABAR = 5,

	CAP_SLOTS = (AHCI_SLOTS - 1) << 8,
	CAP_AHCI_ONLY = 1 << 18,
	CAP_GEN3 = 3 << 20,
	CAP_CLO = 1 << 24,
	CAP_NCQ = 1 << 30,

	GHC_RESET = 1 << 0,
	GHC_IE = 1 << 1,

	VERSION = 0x00010301,
	ADDRESS_MAP = 0x90, /* configuration space: bits 7:6 = 01, AHCI */
};
#define CAP_64BIT (1u << 31)
#define GHC_AE	  (1u << 31)

static uint32_t capabilities(void)
{
	return CAP_64BIT | CAP_NCQ | CAP_CLO | CAP_GEN3 | CAP_AHCI_ONLY | CAP_SLOTS |
	       (AHCI_PORTS - 1);
}

void ahci_update_irq(struct ahci *hba, bool again)
{
	uint32_t before = hba->is;

	for (unsigned i = 0; i < AHCI_PORTS; i++)
		if (hba->ports[i].is & hba->ports[i].ie)
			hba->is |= 1u << i;
	bool level = hba->is && (hba->ghc & GHC_IE);
	if (pci_msi_enabled(&hba->pci)) {
		if (level && (again || !hba->irq_level || (hba->is & ~before)))
			pci_msi_notify(&hba->pci, 0);
		hba->irq_level = level;
		pci_irq_set(&hba->pci, false);
		return;
	}
	hba->irq_level = level;
	pci_irq_set(&hba->pci, level);
}

static void reset_registers(struct ahci *hba)
{
	hba->ghc = GHC_AE;
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_port_reset(&hba->ports[i]);
	hba->is = 0;
	ahci_update_irq(hba, false);
}

/* GHC.HR reads as one until the last disk let go of guest memory. */
static void finish_reset(struct ahci *hba)
{
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		if (hba->ports[i].active)
			return;
	hba->resetting = false;
}

void ahci_task_gone(struct ahci *hba)
{
	if (hba->resetting)
		finish_reset(hba);
}

static void write_ghc(struct ahci *hba, uint32_t value)
{
	if (value & GHC_RESET) {
		reset_registers(hba);
		hba->resetting = true;
		finish_reset(hba);
		return;
	}
	hba->ghc = GHC_AE | (value & GHC_IE);
	ahci_update_irq(hba, true);
}

static uint64_t regs_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ahci *hba = opaque;
	unsigned shift = 8 * (offset & 3);
	uint32_t value = 0;

	offset &= ~UINT64_C(3);
	pthread_mutex_lock(&hba->lock);
	if (offset >= PORTS_AT) {
		unsigned port = (unsigned)((offset - PORTS_AT) / AHCI_PORT_REGS);

		if (port < AHCI_PORTS)
			value = ahci_port_read(&hba->ports[port], offset % AHCI_PORT_REGS);
	} else {
		switch (offset) {
		case REG_CAP:
			value = capabilities();
			break;
		case REG_GHC:
			value = hba->ghc | (hba->resetting ? GHC_RESET : 0);
			break;
		case REG_IS:
			value = hba->is;
			break;
		case REG_PI:
			value = (1u << AHCI_PORTS) - 1;
			break;
		case REG_VS:
			value = VERSION;
			break;
		}
	}
	pthread_mutex_unlock(&hba->lock);
	return value >> shift;
}

static void regs_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ahci *hba = opaque;

	/* The registers are written as a whole: the specification allows nothing else. */
	if (size != 4 || (offset & 3))
		return;
	pthread_mutex_lock(&hba->lock);
	if (hba->resetting) {
		/* Nobody is there yet. */
	} else if (offset >= PORTS_AT) {
		unsigned port = (unsigned)((offset - PORTS_AT) / AHCI_PORT_REGS);

		if (port < AHCI_PORTS)
			ahci_port_write(&hba->ports[port], offset % AHCI_PORT_REGS,
					(uint32_t)value);
	} else if (offset == REG_GHC) {
		write_ghc(hba, (uint32_t)value);
	} else if (offset == REG_IS) {
		hba->is &= ~(uint32_t)value;
		ahci_update_irq(hba, true);
	}
	pthread_mutex_unlock(&hba->lock);
}

static const struct io_ops regs_ops = {.read = regs_read, .write = regs_write};

static void work(void *opaque)
{
	struct ahci *hba = opaque;

	if (!pci_device_is_master(&hba->pci))
		return; /* posted again when it becomes one */
	pthread_mutex_lock(&hba->lock);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_port_run(&hba->ports[i]);
	pthread_mutex_unlock(&hba->lock);
}

static void config_written(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
	struct ahci *hba = (struct ahci *)dev;

	if (ranges_overlap(offset, size, PCI_COMMAND, 2) && pci_device_is_master(dev))
		evloop_post(dev->dev.vm->loop, &hba->work);
}

static const struct pci_device_ops ahci_ops = {.config_written = config_written};

static const struct pci_info ahci_info = {
	.vendor_id = 0x8086,
	.device_id = 0x2922,
	.subsystem_vendor_id = 0x1af4,
	.subsystem_id = 0x1100,
	.class_code = 0x010601,
	.revision = 2,
	.intx_pin = 1,
	.ops = &ahci_ops,
};

/* The bus of a port. */

static bool port_attach(struct bus *bus, struct device *dev, struct error **err)
{
	struct ahci_port *p = container_of(bus, struct ahci_port, bus);
	struct ide_dev *d = (struct ide_dev *)dev;

	if (bus->first) {
		error_set(err, "bus '%s' is full: a SATA port has one device", bus->name);
		return false;
	}
	d->port = p;
	d->lock = &p->hba->lock;
	return true;
}

static bool port_has_room(struct bus *bus)
{
	return !bus->first;
}

static void ahci_reset(struct device *dev)
{
	struct ahci *hba = (struct ahci *)dev;

	pci_device_reset(&hba->pci);
	pthread_mutex_lock(&hba->lock);
	hba->resetting = false;
	reset_registers(hba);
	pthread_mutex_unlock(&hba->lock);
	/* What disks still have is waited for: the next guest may use any memory. */
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ide_dev *d = hba->ports[i].dev;

		if (hba->ports[i].active && d && d->drive->node)
			block_drain(d->drive->node);
	}
}

static bool ahci_realize(struct device *dev, struct error **err)
{
	struct ahci *hba = (struct ahci *)dev;
	char name[64];

	if (!pci_device_init(&hba->pci, &ahci_info, err))
		return false;
	hba->regs.io = (struct io_region){.size = REGS_SIZE,
					  .ops = &regs_ops,
					  .opaque = hba,
					  .name = "ahci",
					  .max_access = 4};
	pci_bar_init(&hba->pci, ABAR, PCI_BAR_MEM32, REGS_SIZE);
	pci_bar_add_region(&hba->pci, ABAR, 0, &hba->regs);
	hba->pci.config[ADDRESS_MAP] = 1 << 6;
	if (!pci_msi_init(&hba->pci, 1, false, err)) {
		pci_device_exit(&hba->pci);
		return false;
	}
	ev_work_init(&hba->work, work, hba);
	for (unsigned i = 0; i < AHCI_PORTS; i++) {
		struct ahci_port *p = &hba->ports[i];

		p->hba = hba;
		p->index = i;
		p->limit = LOG_RATELIMIT;
		p->bus.attach = port_attach;
		p->bus.has_room = port_has_room;
		snprintf(name, sizeof(name), "%s.%u", dev->id ? dev->id : "ide", i);
		bus_init(dev->vm, &p->bus, "ide", name, dev);
	}
	reset_registers(hba);
	return true;
}

static void ahci_unrealize(struct device *dev)
{
	struct ahci *hba = (struct ahci *)dev;

	for (unsigned i = 0; i < AHCI_PORTS; i++)
		bus_destroy(dev->vm, &hba->ports[i].bus);
	pci_device_exit(&hba->pci);
	evloop_unpost(dev->vm->loop, &hba->work);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		for (unsigned k = 0; k < AHCI_SLOTS; k++)
			ata_task_release(&hba->ports[i].tasks[k]);
}

static void ahci_init(struct device *dev)
{
	pthread_mutex_init(&((struct ahci *)dev)->lock, NULL);
}

static void ahci_destroy(struct device *dev)
{
	pthread_mutex_destroy(&((struct ahci *)dev)->lock);
}

static bool ahci_post_load(void *object, unsigned version, struct error **err)
{
	struct ahci *hba = object;

	pthread_mutex_lock(&hba->lock);
	hba->ghc = GHC_AE | (hba->ghc & GHC_IE);
	for (unsigned i = 0; i < AHCI_PORTS; i++)
		ahci_port_loaded(&hba->ports[i], err);
	ahci_update_irq(hba, false);
	pthread_mutex_unlock(&hba->lock);
	evloop_post(hba->pci.dev.vm->loop, &hba->work);
	return true;
}

static const struct state_desc ahci_state = {
	.name = "ich9-ahci",
	.version = 1,
	.fields =
		(const struct state_field[]){
			PCI_DEVICE_STATE,
			STATE_FIELD(struct ahci, ghc, STATE_U32),
			STATE_FIELD(struct ahci, is, STATE_U32),
			{.name = "ports",
			 .type = STATE_STRUCT,
			 .offset = offsetof(struct ahci, ports),
			 .size = sizeof(struct ahci_port),
			 .count = AHCI_PORTS,
			 .desc = &ahci_port_state},
			{0},
		},
	.post_load = ahci_post_load,
};

const struct device_desc ich9_ahci_desc = {
	.name = "ich9-ahci",
	.alias = "ahci",
	.help = "SATA controller with six ports",
	.bus = "pci",
	.size = sizeof(struct ahci),
	.props = (const struct prop_set[]){PCI_DEVICE_PROPS, {0}},
	.state = &ahci_state,
	.init = ahci_init,
	.realize = ahci_realize,
	.reset = ahci_reset,
	.unrealize = ahci_unrealize,
	.destroy = ahci_destroy,
};
