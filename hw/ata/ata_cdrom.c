/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ide-cd: a CD-ROM drive on its port (ATA8-ACS PACKET feature set); what the packets mean is
 * atapi.c's. Thread: main loop, with the adapter's lock. Owner: the bus.
 *
 * A drive of the host's behind it follows: its tray moves and is locked as the guest says, and a
 * guest that asks whether the unit is ready learns of a disc that somebody has changed by hand.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "hw/ata/ata.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum { REASON_COMMAND = 1 << 0, REASON_TO_HOST = 1 << 1 };

/* Every packet ends with the reason in the count register, and its length in the LBA's bytes. */
static void packet_end(struct ata_task *t)
{
	t->out.count = (t->out.count & 0xff00) | REASON_COMMAND | REASON_TO_HOST;
}

static void check_condition(struct ide_dev *d, struct ata_task *t)
{
	packet_end(t);
	t->status = ATA_STATUS_OK | ATA_STATUS_ERR;
	t->error = (uint8_t)(d->cdrom.sense_key << 4) | ATA_ERROR_ABRT;
	ata_task_done(t);
}

static void packet_done(struct ata_task *t, uint32_t bytes)
{
	uint32_t shown = MIN(bytes, 0xfffe);

	packet_end(t);
	t->transferred = bytes;
	t->out.lba = (t->tf.lba & 0xff) | shown << 8;
	ata_task_succeed(t);
}

static void blocks_read(struct ata_task *t, int ret)
{
	if (ret < 0) {
		atapi_sense(&t->dev->cdrom, SENSE_MEDIUM_ERROR, ASC_READ_ERROR, 0);
		check_condition(t->dev, t);
		return;
	}
	packet_done(t, (uint32_t)t->bytes);
}

static void read_blocks(struct ide_dev *d, struct ata_task *t, const struct atapi_reply *r)
{
	uint64_t bytes = (uint64_t)r->blocks * ATAPI_BLOCK;

	if (bytes > UINT32_MAX || ata_task_map(t, bytes, GM_TO_GUEST) < 0) {
		log_guest_error(&d->limit, "%s: bad data buffers for %u blocks",
				device_label(&d->dev), r->blocks);
		atapi_sense(&d->cdrom, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0);
		check_condition(d, t);
		return;
	}
	ata_io_start(t, BLOCK_READ, (uint64_t)r->lba * ATAPI_BLOCK, bytes, 0, blocks_read);
}

/* 1, 0: there is a disc in the host's drive, or none; or -errno. */
static int host_tray(struct ide_dev *d, enum block_tray action)
{
	int ret = d->drive->node ? block_tray(d->drive->node, action) : -ENOTSUP;

	if (ret < 0 && ret != -ENOTSUP)
		log_guest_error(&d->limit, "%s: the host's drive did not obey: %s",
				device_label(&d->dev), strerror(-ret));
	return ret;
}

/* The medium may be another one now. */
static void look(struct ide_dev *d)
{
	bool medium = d->cdrom.medium;
	uint64_t blocks = d->cdrom.blocks;

	ata_cdrom_update(d);
	if (d->cdrom.medium == medium && d->cdrom.blocks == blocks)
		return;
	d->cdrom.attention = d->cdrom.medium;
	d->cdrom.event = d->cdrom.medium ? ATAPI_EVENT_NEW : ATAPI_EVENT_REMOVED;
}

static void tray_moved(struct ide_dev *d)
{
	struct vm_event event = {.kind = VM_EVENT_TRAY_MOVED,
				 .device = d->drive->id ? d->drive->id : "",
				 .value = d->cdrom.tray_open};

	if (host_tray(d, d->cdrom.tray_open ? BLOCK_TRAY_OPEN : BLOCK_TRAY_CLOSE) != -ENOTSUP)
		look(d);
	vm_send_event(d->dev.vm, &event);
}

void ata_cdrom_lock(struct ide_dev *d, bool locked)
{
	if (locked != d->drive->removable_locked)
		host_tray(d, locked ? BLOCK_TRAY_LOCK : BLOCK_TRAY_UNLOCK);
	d->cdrom.locked = d->drive->removable_locked = locked;
}

static void packet(struct ide_dev *d, struct ata_task *t)
{
	struct atapi_reply r;
	int64_t n = 0;

	if (atapi_asks_for_medium(t->cdb))
		look(d);
	atapi_command(&d->cdrom, t->cdb, &r);
	switch (r.action) {
	case ATAPI_FAILED:
		check_condition(d, t);
		return;
	case ATAPI_READ:
		read_blocks(d, t, &r);
		return;
	case ATAPI_DATA:
		n = ata_task_give(t, r.data, r.len);
		if (n < 0) {
			atapi_sense(&d->cdrom, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0);
			check_condition(d, t);
			return;
		}
		break;
	case ATAPI_TRAY:
		tray_moved(d);
		break;
	case ATAPI_LOCK:
		ata_cdrom_lock(d, d->cdrom.locked);
		break;
	case ATAPI_DONE:
		break;
	}
	packet_done(t, (uint32_t)n);
}

static void identify(struct ide_dev *d, struct ata_task *t)
{
	uint8_t out[512];

	ata_identify_cdrom(d->text_serial, d->text_version, d->text_model, out);
	int64_t n = ata_task_give(t, out, sizeof(out));
	if (n < 0) {
		ata_task_fail(t, ATA_ERROR_ABRT);
		return;
	}
	t->transferred = (uint32_t)n;
	t->pio_in = true;
	ata_task_succeed(t);
}

void ata_cdrom_execute(struct ide_dev *d, struct ata_task *t)
{
	struct ata_disk none = {0};

	switch (t->tf.command) {
	case ATA_CMD_PACKET:
		packet(d, t);
		break;
	case ATA_CMD_IDENTIFY_PACKET:
		identify(d, t);
		break;
	case ATA_CMD_SET_FEATURES:
		if (ata_set_features(&none, &t->tf))
			ata_task_succeed(t);
		else
			ata_task_fail(t, ATA_ERROR_ABRT);
		break;
	case ATA_CMD_DEVICE_RESET:
	case ATA_CMD_DIAGNOSTIC:
		ata_signature(d, &t->out);
		t->status = 0;
		t->error = 1;
		ata_task_done(t);
		break;
	case ATA_CMD_CHECK_POWER:
		t->out.count = 0xff;
		ata_task_succeed(t);
		break;
	case 0xe0: /* STANDBY IMMEDIATE */
	case 0xe1: /* IDLE IMMEDIATE */
		ata_task_succeed(t);
		break;
	case ATA_CMD_IDENTIFY:
	case 0x20: /* READ SECTORS */
		/* Both tell by their registers that this is no disk. */
		ata_signature(d, &t->out);
		ata_task_fail(t, ATA_ERROR_ABRT);
		break;
	default:
		ata_task_fail(t, ATA_ERROR_ABRT);
		break;
	}
}

void ata_cdrom_update(struct ide_dev *d)
{
	struct block_node *node = d->drive->node;

	/* A drive may be empty, an image is a disc. */
	d->cdrom.medium = node && host_tray(d, BLOCK_TRAY_LOOK) != 0;
	d->cdrom.blocks = d->cdrom.medium ? block_length(node) / ATAPI_BLOCK : 0;
}

void ata_cdrom_medium_changed(struct drive *drive, void *opaque)
{
	struct ide_dev *d = opaque;

	/* Before the lock: moving a node may run the loop. */
	if (drive->node)
		block_set_loop(drive->node, d->dev.vm->loop);
	pthread_mutex_lock(d->lock);
	if (d->cdrom.locked)
		host_tray(d, BLOCK_TRAY_LOCK);
	ata_cdrom_update(d);
	d->cdrom.tray_open = false;
	d->cdrom.attention = d->cdrom.medium;
	d->cdrom.event = d->cdrom.medium ? ATAPI_EVENT_NEW : ATAPI_EVENT_REMOVED;
	pthread_mutex_unlock(d->lock);
}
