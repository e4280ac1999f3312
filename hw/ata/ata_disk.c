/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ide-hd: commands of a disk carried out on its drive (ATA8-ACS chapter 7).
 * Thread: main loop, with the adapter's lock. Owner: the bus.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw/ata/ata.h"
#include "vmm/core/util.h"

/* What word 105 of IDENTIFY promises to take, and a little more. */
enum { TRIM_MAX_BLOCKS = 8, TRIM_PER_BLOCK = ATA_SECTOR / 8 };

void ata_task_fail(struct ata_task *t, uint8_t error)
{
	struct ata_disk *disk = &t->dev->disk;

	t->status = ATA_STATUS_OK | ATA_STATUS_ERR;
	t->error = error;
	if (t->ncq && !disk->ncq_failed) {
		disk->ncq_failed = true;
		disk->ncq_tag = (uint8_t)t->slot;
		disk->ncq_status = t->status;
		disk->ncq_error = error;
		disk->ncq_lba = t->tf.lba;
		disk->ncq_count = t->tf.features;
	}
	ata_task_done(t);
}

void ata_task_succeed(struct ata_task *t)
{
	t->status = ATA_STATUS_OK;
	t->error = 0;
	ata_task_done(t);
}

static void transferred(struct ata_task *t, int ret)
{
	if (ret < 0) {
		ata_task_fail(t, t->op == BLOCK_READ ? ATA_ERROR_UNC : ATA_ERROR_ABRT);
		return;
	}
	t->transferred = (uint32_t)t->bytes;
	ata_task_succeed(t);
}

static void transfer(struct ide_dev *d, struct ata_task *t, const struct ata_plan *p)
{
	bool read = p->action == ATA_READ;
	uint64_t bytes = (uint64_t)p->sectors * ATA_SECTOR;

	if (!range_inside(p->lba, p->sectors, d->disk.sectors)) {
		ata_task_fail(t, ATA_ERROR_IDNF);
		return;
	}
	if (!read && d->disk.read_only) {
		ata_task_fail(t, ATA_ERROR_ABRT);
		return;
	}
	int ret = ata_task_map(t, bytes, read ? GM_TO_GUEST : GM_FROM_GUEST);
	if (ret < 0) {
		log_guest_error(&d->limit, "%s: bad data buffers (%s)", device_label(&d->dev),
				strerror(-ret));
		ata_task_fail(t, ATA_ERROR_ABRT);
		return;
	}
	t->pio_in = p->pio && read;
	ata_io_start(t, read ? BLOCK_READ : BLOCK_WRITE, p->lba * ATA_SECTOR, bytes,
		     p->fua ? BLOCK_FUA : 0, transferred);
}

static void flushed(struct ata_task *t, int ret)
{
	if (ret < 0)
		ata_task_fail(t, ATA_ERROR_ABRT);
	else
		ata_task_succeed(t);
}

/* One range after the other; a node that cannot discard has taken the hint. */
static void trim_next(struct ata_task *t, int ret)
{
	uint64_t lba;
	uint32_t sectors;

	if (ret < 0 && ret != -ENOTSUP && ret != -EOPNOTSUPP) {
		ata_task_fail(t, ATA_ERROR_ABRT);
		return;
	}
	while (t->range_next < t->range_count) {
		if (!ata_trim_range(t->ranges + 8 * t->range_next++, &lba, &sectors))
			continue;
		ata_io_start(t, BLOCK_DISCARD, lba * ATA_SECTOR, (uint64_t)sectors * ATA_SECTOR, 0,
			     trim_next);
		return;
	}
	ata_task_succeed(t);
}

static void trim(struct ide_dev *d, struct ata_task *t, const struct ata_plan *p)
{
	uint32_t bytes = p->sectors * ATA_SECTOR;
	uint64_t lba;
	uint32_t sectors;

	if (!d->disk.trim || d->disk.read_only || p->sectors > TRIM_MAX_BLOCKS) {
		ata_task_fail(t, ATA_ERROR_ABRT);
		return;
	}
	if (!t->ranges)
		t->ranges = xmalloc(TRIM_MAX_BLOCKS * ATA_SECTOR);
	if (ata_task_take(t, t->ranges, bytes) != bytes) {
		ata_task_fail(t, ATA_ERROR_ABRT);
		return;
	}
	t->range_count = p->sectors * TRIM_PER_BLOCK;
	t->range_next = 0;
	for (uint32_t i = 0; i < t->range_count; i++)
		if (ata_trim_range(t->ranges + 8 * i, &lba, &sectors) &&
		    !range_inside(lba, sectors, d->disk.sectors)) {
			ata_task_fail(t, ATA_ERROR_IDNF);
			return;
		}
	trim_next(t, 0);
}

static void give_table(struct ata_task *t, const struct ata_plan *p, const uint8_t *table)
{
	int64_t n = ata_task_give(t, table, ATA_SECTOR);

	if (n < 0) {
		ata_task_fail(t, ATA_ERROR_ABRT);
		return;
	}
	t->transferred = (uint32_t)n;
	t->pio_in = p->pio;
	ata_task_succeed(t);
}

static void table(struct ide_dev *d, struct ata_task *t, const struct ata_plan *p)
{
	uint8_t out[ATA_SECTOR];

	switch (p->action) {
	case ATA_TABLE_IDENTIFY:
		ata_identify_disk(&d->disk, d->text_serial, d->text_version, d->text_model, out);
		break;
	case ATA_TABLE_SMART_DATA:
		ata_smart_data(out);
		break;
	case ATA_TABLE_SMART_THRESHOLDS:
		ata_smart_thresholds(out);
		break;
	default:
		if (p->sectors != 1 ||
		    !ata_log_page(&d->disk, p->lba & 0xff, (uint16_t)(p->lba >> 8), out)) {
			ata_task_fail(t, ATA_ERROR_ABRT);
			return;
		}
		break;
	}
	give_table(t, p, out);
}

static void set_features(struct ide_dev *d, struct ata_task *t)
{
	bool cache = d->disk.write_cache;

	if (!ata_set_features(&d->disk, &t->tf)) {
		ata_task_fail(t, ATA_ERROR_ABRT);
		return;
	}
	block_set_writeback(d->drive->node, d->disk.write_cache);
	/* What was cached until now must not be lost later. */
	if (cache && !d->disk.write_cache)
		ata_io_start(t, BLOCK_FLUSH, 0, 0, 0, flushed);
	else
		ata_task_succeed(t);
}

static void max_address(struct ide_dev *d, struct ata_task *t, const struct ata_plan *p)
{
	uint64_t last = d->disk.sectors - 1;

	if (!p->lba48) {
		last = MIN(last, (uint64_t)0x0fffffff);
		t->out.device = (t->tf.device & 0xf0) | (last >> 24 & 0x0f);
		last &= 0xffffff;
	}
	t->out.lba = last;
	ata_task_succeed(t);
}

void ata_disk_execute(struct ide_dev *d, struct ata_task *t)
{
	struct ata_plan p;

	ata_decode(&t->tf, &p);
	t->ncq = p.ncq;
	/* After a queued command failed, the host must read the log first. */
	if (d->disk.ncq_failed && p.action != ATA_TABLE_LOG) {
		ata_task_fail(t, ATA_ERROR_ABRT);
		return;
	}
	switch (p.action) {
	case ATA_READ:
	case ATA_WRITE:
		transfer(d, t, &p);
		break;
	case ATA_VERIFY:
		if (range_inside(p.lba, p.sectors, d->disk.sectors))
			ata_task_succeed(t);
		else
			ata_task_fail(t, ATA_ERROR_IDNF);
		break;
	case ATA_FLUSH:
		ata_io_start(t, BLOCK_FLUSH, 0, 0, 0, flushed);
		break;
	case ATA_TRIM:
		trim(d, t, &p);
		break;
	case ATA_TABLE_IDENTIFY:
	case ATA_TABLE_SMART_DATA:
	case ATA_TABLE_SMART_THRESHOLDS:
	case ATA_TABLE_LOG:
		table(d, t, &p);
		break;
	case ATA_SMART_STATUS: /* the key unchanged: no threshold exceeded */
	case ATA_NOTHING:
		ata_task_succeed(t);
		break;
	case ATA_SET_FEATURES:
		set_features(d, t);
		break;
	case ATA_SET_MULTIPLE:
		if (t->tf.count & 0xff & ~0x1f || (t->tf.count && !is_pow2(t->tf.count & 0xff)) ||
		    (t->tf.count & 0xff) > 16) {
			ata_task_fail(t, ATA_ERROR_ABRT);
			break;
		}
		d->disk.multiple = t->tf.count & 0xff;
		ata_task_succeed(t);
		break;
	case ATA_CHECK_POWER:
		t->out.count = 0xff; /* active or idle */
		ata_task_succeed(t);
		break;
	case ATA_MAX_ADDRESS:
		max_address(d, t, &p);
		break;
	case ATA_DIAGNOSTIC:
		ata_signature(d, &t->out);
		t->status = ATA_STATUS_OK;
		t->error = 1; /* passed */
		ata_task_done(t);
		break;
	case ATA_ABORT:
		ata_task_fail(t, ATA_ERROR_ABRT);
		break;
	}
}
