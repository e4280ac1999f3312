/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One AHCI port: registers, the command list, and the FISes it leaves in memory
 * (AHCI 1.3.1, 3.3, 4.2, 5.3; Serial ATA 3.0, 10.3).
 *
 * The guest's list is read entry by entry when the main loop gets to it, each once. A task whose
 * port is reset while a disk still works on it is dropped: CR stays up until the last of them is
 * back, so that the guest does not reuse memory that a disk still writes.
 *
 * Threads: registers on vCPU threads, the rest on the main loop, under hba->lock. Owner: the
 * adapter.
 */
#include <stdlib.h>

#include "hw/ata/ahci_port.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	PX_CLB = 0x00,
	PX_CLBU = 0x04,
	PX_FB = 0x08,
	PX_FBU = 0x0c,
	PX_IS = 0x10,
	PX_IE = 0x14,
	PX_CMD = 0x18,
	PX_TFD = 0x20,
	PX_SIG = 0x24,
	PX_SSTS = 0x28,
	PX_SCTL = 0x2c,
	PX_SERR = 0x30,
	PX_SACT = 0x34,
	PX_CI = 0x38,

	IS_DHRS = 1 << 0, /* device to host register FIS */
	IS_PSS = 1 << 1,  /* PIO setup FIS */
	IS_SDBS = 1 << 3, /* set device bits FIS */
	IS_PCS = 1 << 6,
	IS_HBFS = 1 << 29, /* the guest's addresses are no memory */
	IS_TFES = 1 << 30, /* task file error */

	CMD_ST = 1 << 0,
	CMD_SUD = 1 << 1,
	CMD_POD = 1 << 2,
	CMD_CLO = 1 << 3,
	CMD_FRE = 1 << 4,
	CMD_CCS_SHIFT = 8,
	CMD_CCS = 0x1f << CMD_CCS_SHIFT,
	CMD_FR = 1 << 14,
	CMD_CR = 1 << 15,
	CMD_ATAPI = 1 << 24,
	CMD_DLAE = 1 << 25,
	CMD_WRITABLE = CMD_ST | CMD_FRE | CMD_ATAPI | CMD_DLAE,

	SSTS_UP = 0x133, /* device present, 6 Gb/s, active */
	SCTL_DET = 0x0f,
	SCTL_WRITABLE = 0xfff,
	SERR_CHANGED = 1 << 26,

	FIS_PIO_SETUP = 0x5f,
	FIS_D2H = 0x34,
	FIS_SET_BITS = 0xa1,
	FIS_INTERRUPT = 0x40,
	FIS_TO_HOST = 0x20,
	RX_PIO_SETUP = 0x20, /* offsets in the receive area */
	RX_D2H = 0x40,
	RX_SET_BITS = 0x58,

	HEADER_SIZE = 32,
	HEADER_CFL = 0x1f,
	HEADER_ATAPI = 1 << 5,
	TABLE_CDB = 0x40,
	TABLE_PRDT = 0x80,

	TFD_NO_DEVICE = 0x7f,
	SIG_NO_DEVICE = -1,
};

static const struct guest_mem *port_mem(const struct ahci_port *p)
{
	return &p->hba->pci.dev.vm->mem;
}

static uint64_t list_base(const struct ahci_port *p)
{
	return (uint64_t)p->clbu << 32 | p->clb;
}

unsigned ahci_port_index(const struct ahci_port *p)
{
	return p->index;
}

/* FISes to the host. */

static void interrupt(struct ahci_port *p, uint32_t bits)
{
	p->is |= bits;
	ahci_update_irq(p->hba, p->is & p->ie & bits);
}

static void halt(struct ahci_port *p, uint32_t why)
{
	p->halted = true;
	interrupt(p, why);
}

static void post_fis(struct ahci_port *p, unsigned offset, const uint8_t *fis, size_t len)
{
	uint64_t base = (uint64_t)p->fbu << 32 | p->fb;

	if (!(p->cmd & CMD_FRE))
		return;
	if (!gm_write(port_mem(p), base + offset, fis, len)) {
		log_guest_error(&p->limit, "ahci: receive area of port %u is not memory", p->index);
		halt(p, IS_HBFS);
	}
}

static void put_taskfile(uint8_t *fis, const struct ata_taskfile *tf, uint8_t status, uint8_t error)
{
	fis[2] = status;
	fis[3] = error;
	for (int i = 0; i < 3; i++) {
		fis[4 + i] = (uint8_t)(tf->lba >> (8 * i));
		fis[8 + i] = (uint8_t)(tf->lba >> (24 + 8 * i));
	}
	fis[7] = tf->device;
	fis[12] = (uint8_t)tf->count;
	fis[13] = (uint8_t)(tf->count >> 8);
}

static void send_d2h(struct ahci_port *p, const struct ata_taskfile *tf, uint8_t status,
		     uint8_t error, bool irq)
{
	uint8_t fis[20] = {FIS_D2H, irq ? FIS_INTERRUPT : 0};

	put_taskfile(fis, tf, status, error);
	p->tfd = status | error << 8;
	post_fis(p, RX_D2H, fis, sizeof(fis));
	if (irq)
		interrupt(p, IS_DHRS);
}

static void send_pio_setup(struct ahci_port *p, const struct ata_task *t)
{
	uint8_t fis[20] = {FIS_PIO_SETUP, FIS_INTERRUPT | FIS_TO_HOST};

	put_taskfile(fis, &t->out, ATA_STATUS_OK | ATA_STATUS_DRQ, 0);
	fis[15] = t->status;
	store_le16(fis + 16, (uint16_t)MIN(t->transferred, 0xffff));
	p->tfd = t->status | t->error << 8;
	post_fis(p, RX_PIO_SETUP, fis, sizeof(fis));
	interrupt(p, IS_PSS);
}

static void send_set_bits(struct ahci_port *p, uint32_t slots, uint8_t status, uint8_t error)
{
	uint8_t fis[8] = {FIS_SET_BITS, FIS_INTERRUPT, status & 0x77, error};

	store_le32(fis + 4, slots);
	p->tfd = (p->tfd & (ATA_STATUS_BSY | ATA_STATUS_DRQ)) | (status & 0x77) | error << 8;
	p->sact &= ~slots;
	post_fis(p, RX_SET_BITS, fis, sizeof(fis));
	interrupt(p, IS_SDBS);
}

static void send_signature(struct ahci_port *p)
{
	struct ata_taskfile tf = {0};
	uint8_t status = ide_dev_is_cdrom(p->dev) ? 0 : ATA_STATUS_OK;

	ata_signature(p->dev, &tf);
	p->sig = (uint32_t)tf.lba << 8 | tf.count;
	send_d2h(p, &tf, status, 1, false);
}

/* Tasks. */

/* The guest no longer wants what is under way. */
static void drop_tasks(struct ahci_port *p)
{
	for (unsigned i = 0; i < AHCI_SLOTS; i++)
		if (p->active & 1u << i)
			p->tasks[i].dropped = true;
	p->ci = p->sact = 0;
	if (p->dev)
		ata_io_forget(p->dev);
}

static void stop_engine(struct ahci_port *p)
{
	drop_tasks(p);
	p->halted = false;
	p->cmd &= ~CMD_CCS;
	if (!p->active)
		p->cmd &= ~CMD_CR;
}

static void task_finished(struct ahci_port *p, struct ata_task *t)
{
	uint32_t bit = 1u << t->slot;
	bool failed = t->status & ATA_STATUS_ERR;
	uint8_t count[4];

	store_le32(count, t->transferred);
	gm_write(port_mem(p), t->header + 4, count, sizeof(count));
	if (t->ncq) {
		/* A failed one keeps its bit, and so do those that the failure aborts. */
		send_set_bits(p, failed ? 0 : bit, t->status, t->error);
	} else {
		/* The guest looks for cleared bits once it is interrupted. */
		if (!failed)
			p->ci &= ~bit;
		if (t->pio_in && !failed)
			send_pio_setup(p, t);
		else
			send_d2h(p, &t->out, t->status, t->error, true);
	}
	if (failed)
		halt(p, IS_TFES);
}

void ata_task_done(struct ata_task *t)
{
	struct ahci_port *p = t->port;
	uint32_t bit = 1u << t->slot;
	bool dropped = t->dropped || (t->ncq && p->halted);

	t->active = t->dropped = false;
	p->active &= ~bit;
	p->queued &= ~bit;
	if (!dropped)
		task_finished(p, t);
	if (!p->active && !(p->cmd & CMD_ST))
		p->cmd &= ~CMD_CR;
	ahci_task_gone(p->hba);
	if (p->ci & ~p->active)
		evloop_post(p->hba->pci.dev.vm->loop, &p->hba->work);
}

/* A register FIS that only has the control register: software reset, both edges. */
static void control(struct ahci_port *p, unsigned slot, const struct ata_taskfile *tf)
{
	p->ci &= ~(1u << slot);
	if (tf->control & ATA_CONTROL_SRST) {
		p->srst = true;
		p->tfd |= ATA_STATUS_BSY;
	} else if (p->srst) {
		p->srst = false;
		ide_dev_reset(p->dev);
		send_signature(p);
	}
}

/* Reads slot's header and command. False if there is nothing to be done for it now. */
static bool fetch(struct ahci_port *p, unsigned slot, struct ata_task *t)
{
	uint64_t header = list_base(p) + slot * HEADER_SIZE, table;
	uint8_t raw[HEADER_SIZE], fis[ATA_FIS_H2D_SIZE];

	if (!gm_read(port_mem(p), header, raw, sizeof(raw)))
		goto fault;
	uint32_t word = load_le32(raw);
	table = load_le64(raw + 8) & ~UINT64_C(0x7f);
	if (!gm_read(port_mem(p), table, fis, sizeof(fis)))
		goto fault;
	if ((word & HEADER_CFL) * 4 < sizeof(fis) || !ata_parse_fis(fis, &t->tf)) {
		log_guest_error(&p->limit, "ahci: no command FIS in slot %u of port %u", slot,
				p->index);
		halt(p, IS_HBFS);
		return false;
	}
	t->header = header;
	t->prdt = table + TABLE_PRDT;
	t->prdtl = word >> 16;
	memset(t->cdb, 0, sizeof(t->cdb));
	if ((word & HEADER_ATAPI) && !gm_read(port_mem(p), table + TABLE_CDB, t->cdb, ATAPI_CDB))
		goto fault;
	return true;
fault:
	log_guest_error(&p->limit, "ahci: command list of port %u is not memory", p->index);
	halt(p, IS_HBFS);
	return false;
}

/* False: it has to wait for those before it. */
static bool start(struct ahci_port *p, unsigned slot)
{
	struct ata_task *t = &p->tasks[slot];
	uint32_t bit = 1u << slot;

	if (!fetch(p, slot, t))
		return false;
	if (!t->tf.is_command) {
		control(p, slot, &t->tf);
		return true;
	}
	bool ncq = !ide_dev_is_cdrom(p->dev) &&
		   (t->tf.command == ATA_CMD_READ_FPDMA || t->tf.command == ATA_CMD_WRITE_FPDMA);
	if (p->active & (ncq ? ~p->queued : UINT32_MAX))
		return false;
	t->port = p;
	t->slot = slot;
	t->dev = p->dev;
	t->out = t->tf;
	t->transferred = 0;
	t->status = t->error = 0;
	t->ncq = t->pio_in = t->dropped = false;
	t->active = true;
	t->iovcnt = t->extent_count = 0;
	p->active |= bit;
	p->cmd = (p->cmd & ~CMD_CCS) | slot << CMD_CCS_SHIFT;
	if (ncq) {
		/* Accepted: the slot's command is over, its tag is not. */
		t->ncq = true;
		p->queued |= bit;
		p->ci &= ~bit;
		if ((t->tf.count >> 3 & 0x1f) != slot) {
			log_guest_error(&p->limit, "ahci: tag %u in slot %u",
					t->tf.count >> 3 & 0x1f, slot);
			ata_task_fail(t, ATA_ERROR_ABRT);
			return true;
		}
	} else {
		p->tfd |= ATA_STATUS_BSY;
	}
	p->dev->execute(p->dev, t);
	return true;
}

void ahci_port_run(struct ahci_port *p)
{
	/* Fairly: begins after the slot that was served last. */
	unsigned first = (p->cmd & CMD_CCS) >> CMD_CCS_SHIFT;

	for (unsigned i = 1; i <= AHCI_SLOTS; i++) {
		unsigned slot = (first + i) % AHCI_SLOTS;

		if (!p->dev || p->halted || !(p->cmd & CMD_ST) || !(p->cmd & CMD_CR))
			return;
		/* A dropped task may still be out under the same number. */
		if ((p->ci & ~p->active & 1u << slot) && !start(p, slot))
			return;
	}
}

/* Registers. */

static void link_reset(struct ahci_port *p)
{
	p->srst = false;
	if (!p->dev) {
		p->ssts = 0;
		p->sig = (uint32_t)SIG_NO_DEVICE;
		p->tfd = TFD_NO_DEVICE;
		return;
	}
	ide_dev_reset(p->dev);
	p->ssts = SSTS_UP;
	p->serr |= SERR_CHANGED;
	send_signature(p);
}

static void write_sctl(struct ahci_port *p, uint32_t value)
{
	uint32_t before = p->sctl & SCTL_DET, after = value & SCTL_DET;

	p->sctl = value & SCTL_WRITABLE;
	if (before != 1 && after == 1) {
		drop_tasks(p);
		p->ssts = p->dev ? 1 : 0; /* present, no communication yet */
		p->tfd = TFD_NO_DEVICE | ATA_STATUS_BSY;
	} else if (before == 1 && after == 0) {
		link_reset(p);
	} else if (after == 4) {
		p->ssts = p->dev ? 4 : 0; /* off line */
	} else if (before == 4 && after == 0) {
		link_reset(p);
	}
}

static void write_cmd(struct ahci_port *p, uint32_t value)
{
	uint32_t old = p->cmd;

	p->cmd = (old & ~CMD_WRITABLE) | (value & CMD_WRITABLE);
	if (value & CMD_CLO)
		p->tfd &= ~(ATA_STATUS_BSY | ATA_STATUS_DRQ);
	if (p->cmd & CMD_FRE)
		p->cmd |= CMD_FR;
	else
		p->cmd &= ~CMD_FR;
	if (!(old & CMD_FRE) && (p->cmd & CMD_FRE) && p->dev && p->ssts == SSTS_UP && !p->active)
		send_signature(p);
	if ((old & CMD_ST) && !(p->cmd & CMD_ST))
		stop_engine(p);
	else if (!(old & CMD_ST) && (p->cmd & CMD_ST))
		p->cmd |= CMD_CR;
}

uint32_t ahci_port_read(const struct ahci_port *p, unsigned reg)
{
	switch (reg) {
	case PX_CLB:
		return p->clb;
	case PX_CLBU:
		return p->clbu;
	case PX_FB:
		return p->fb;
	case PX_FBU:
		return p->fbu;
	case PX_IS:
		return p->is | (p->serr & SERR_CHANGED ? IS_PCS : 0);
	case PX_IE:
		return p->ie;
	case PX_CMD:
		return p->cmd;
	case PX_TFD:
		return p->tfd;
	case PX_SIG:
		return p->sig;
	case PX_SSTS:
		return p->ssts;
	case PX_SCTL:
		return p->sctl;
	case PX_SERR:
		return p->serr;
	case PX_SACT:
		return p->sact;
	case PX_CI:
		return p->ci;
	}
	return 0;
}

void ahci_port_write(struct ahci_port *p, unsigned reg, uint32_t value)
{
	switch (reg) {
	case PX_CLB:
		p->clb = value & ~0x3ffu;
		break;
	case PX_CLBU:
		p->clbu = value;
		break;
	case PX_FB:
		p->fb = value & ~0xffu;
		break;
	case PX_FBU:
		p->fbu = value;
		break;
	case PX_IS:
		p->is &= ~value;
		ahci_update_irq(p->hba, false);
		break;
	case PX_IE:
		p->ie = value & 0xfdc000ff;
		ahci_update_irq(p->hba, true);
		break;
	case PX_CMD:
		write_cmd(p, value);
		break;
	case PX_SCTL:
		write_sctl(p, value);
		break;
	case PX_SERR:
		p->serr &= ~value;
		break;
	case PX_SACT:
		if (p->cmd & CMD_ST)
			p->sact |= value;
		break;
	case PX_CI:
		if (!(p->cmd & CMD_ST))
			break;
		p->ci |= value;
		evloop_post(p->hba->pci.dev.vm->loop, &p->hba->work);
		break;
	}
}

void ahci_port_reset(struct ahci_port *p)
{
	drop_tasks(p);
	p->clb = p->clbu = p->fb = p->fbu = 0;
	p->is = p->ie = p->sctl = p->serr = 0;
	p->cmd = CMD_SUD | CMD_POD;
	p->halted = false;
	link_reset(p);
	p->serr = 0;
}

void ahci_port_connect(struct ahci_port *p, struct ide_dev *d)
{
	pthread_mutex_lock(&p->hba->lock);
	p->dev = d;
	link_reset(p);
	p->serr = 0;
	pthread_mutex_unlock(&p->hba->lock);
}

/* The device goes: what its disk still has must come back first. */
void ahci_port_disconnect(struct ahci_port *p)
{
	struct ide_dev *d = p->dev;

	pthread_mutex_lock(&p->hba->lock);
	drop_tasks(p);
	pthread_mutex_unlock(&p->hba->lock);
	if (d->drive->node)
		block_drain(d->drive->node);
	pthread_mutex_lock(&p->hba->lock);
	p->dev = NULL;
	link_reset(p);
	for (unsigned i = 0; i < AHCI_SLOTS; i++)
		ata_task_release(&p->tasks[i]);
	pthread_mutex_unlock(&p->hba->lock);
}

/* Saved while nothing is with a disk, except what an error stopped: that starts anew. */
bool ahci_port_loaded(struct ahci_port *p, struct error **err)
{
	p->clb &= ~0x3ffu;
	p->fb &= ~0xffu;
	if (!p->dev && (p->ci || p->sact))
		p->ci = p->sact = 0;
	if (!p->halted)
		p->ci |= p->sact;
	return true;
}

const struct state_desc ahci_port_state = {
	.name = "ahci-port",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct ahci_port, clb, STATE_U32),
			STATE_FIELD(struct ahci_port, clbu, STATE_U32),
			STATE_FIELD(struct ahci_port, fb, STATE_U32),
			STATE_FIELD(struct ahci_port, fbu, STATE_U32),
			STATE_FIELD(struct ahci_port, is, STATE_U32),
			STATE_FIELD(struct ahci_port, ie, STATE_U32),
			STATE_FIELD(struct ahci_port, cmd, STATE_U32),
			STATE_FIELD(struct ahci_port, tfd, STATE_U32),
			STATE_FIELD(struct ahci_port, sig, STATE_U32),
			STATE_FIELD(struct ahci_port, ssts, STATE_U32),
			STATE_FIELD(struct ahci_port, sctl, STATE_U32),
			STATE_FIELD(struct ahci_port, serr, STATE_U32),
			STATE_FIELD(struct ahci_port, sact, STATE_U32),
			STATE_FIELD(struct ahci_port, ci, STATE_U32),
			STATE_FIELD(struct ahci_port, halted, STATE_BOOL),
			STATE_FIELD(struct ahci_port, srst, STATE_BOOL),
			{0},
		},
};
