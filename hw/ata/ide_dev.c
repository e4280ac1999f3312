/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ide-hd and ide-cd as devices: properties, names, life, state.
 * Thread: main. Owner: the machine.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "hw/ata/ahci.h"
#include "hw/ata/ahci_port.h"
#include "hw/ata/ata.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

void ata_signature(const struct ide_dev *d, struct ata_taskfile *tf)
{
	tf->count = 1;
	tf->lba = ide_dev_is_cdrom(d) ? 0xeb1401 : 0x000001;
	tf->device = 0;
}

void ide_dev_reset(struct ide_dev *d)
{
	d->disk.ncq_failed = false;
	d->disk.multiple = 16;
	d->disk.look_ahead = d->disk.smart = true;
	d->disk.udma = 5;
	atapi_sense(&d->cdrom, SENSE_NONE, 0, 0);
}

static void state_changed(struct notifier *n, void *data)
{
	struct ide_dev *d = container_of(n, struct ide_dev, state_changed);

	if (*(const enum run_state *)data == RUN_STATE_RUNNING)
		ata_io_resume(d);
}

/* The port that the bus belongs to: attach put the device there. */
static bool take_drive(struct ide_dev *d, struct error **err)
{
	if (!d->drive) {
		error_set(err, "drive property not set");
		return false;
	}
	if (d->drive->taken_by) {
		error_set(err, "drive '%s' is in use by '%s'", d->drive->id, d->drive->taken_by);
		return false;
	}
	if (d->logical_block_size != ATA_SECTOR) {
		error_set(err, "logical_block_size must be 512 for IDE");
		return false;
	}
	if (!is_pow2(d->physical_block_size) || d->physical_block_size < ATA_SECTOR ||
	    d->physical_block_size > MiB) {
		error_set(err, "physical_block_size must be a power of two from 512 to 1 MiB");
		return false;
	}
	if (d->unit != UINT32_MAX && d->unit != 0) {
		error_set(err, "a SATA port has unit 0 only");
		return false;
	}
	d->drive->taken_by = device_label(&d->dev);
	return true;
}

static void set_texts(struct ide_dev *d, const char *model)
{
	const char *serial = d->serial ? d->serial : d->drive->serial;

	if (serial)
		snprintf(d->text_serial, sizeof(d->text_serial), "%s", serial);
	else
		snprintf(d->text_serial, sizeof(d->text_serial), "VM%05u",
			 ahci_port_index(d->port) + 1);
	snprintf(d->text_model, sizeof(d->text_model), "%s", d->model ? d->model : model);
	snprintf(d->text_version, sizeof(d->text_version), "%s", d->version ? d->version : "1.0");
}

static void connect(struct ide_dev *d)
{
	ide_dev_reset(d);
	d->limit = LOG_RATELIMIT;
	d->state_changed.fn = state_changed;
	notifier_add(&d->dev.vm->state_changed, &d->state_changed);
	ahci_port_connect(d->port, d);
}

static bool hd_realize(struct device *dev, struct error **err)
{
	struct ide_dev *d = (struct ide_dev *)dev;

	if (!take_drive(d, err))
		return false;
	if (!d->drive->node || d->drive->cdrom) {
		error_set(err,
			  d->drive->cdrom ? "drive '%s' is a CD-ROM: use ide-cd"
					  : "drive '%s' has no medium",
			  d->drive->id);
		d->drive->taken_by = NULL;
		return false;
	}
	block_set_loop(d->drive->node, dev->vm->loop);
	d->execute = ata_disk_execute;
	d->disk = (struct ata_disk){
		.sectors = block_length(d->drive->node) / ATA_SECTOR,
		.physical_block = d->physical_block_size,
		.rotation_rate = d->rotation_rate,
		.wwn = d->wwn,
		.read_only = block_read_only(d->drive->node),
		.trim = block_limits(d->drive->node)->discard,
		.write_cache = block_writeback(d->drive->node),
	};
	set_texts(d, "VMM HARDDISK");
	connect(d);
	return true;
}

static bool cd_realize(struct device *dev, struct error **err)
{
	struct ide_dev *d = (struct ide_dev *)dev;

	if (!d->drive)
		d->drive = &d->no_drive;
	if (!take_drive(d, err)) {
		if (d->drive == &d->no_drive)
			d->drive = NULL;
		return false;
	}
	d->drive->cdrom = true;
	d->execute = ata_cdrom_execute;
	set_texts(d, "VMM DVD-ROM");
	snprintf(d->cdrom.model, sizeof(d->cdrom.model), "%.16s", d->text_model);
	snprintf(d->cdrom.version, sizeof(d->cdrom.version), "%.4s", d->text_version);
	if (d->drive->node)
		block_set_loop(d->drive->node, dev->vm->loop);
	ata_cdrom_update(d);
	d->drive->medium_changed = ata_cdrom_medium_changed;
	d->drive->opaque = d;
	connect(d);
	return true;
}

static void ide_unrealize(struct device *dev)
{
	struct ide_dev *d = (struct ide_dev *)dev;

	ahci_port_disconnect(d->port);
	notifier_remove(&dev->vm->state_changed, &d->state_changed);
	if (ide_dev_is_cdrom(d)) {
		d->drive->medium_changed = NULL;
		d->drive->opaque = NULL;
		ata_cdrom_lock(d, false);
	}
	d->drive->taken_by = NULL;
	if (d->drive == &d->no_drive)
		d->drive = NULL;
}

/* The port resets what hangs on it; the tray's lock is the drive's own. */
static void cd_reset(struct device *dev)
{
	struct ide_dev *d = (struct ide_dev *)dev;

	pthread_mutex_lock(d->lock);
	ata_cdrom_lock(d, false);
	d->cdrom.tray_open = false;
	d->cdrom.attention = false;
	d->cdrom.event = ATAPI_EVENT_NONE;
	pthread_mutex_unlock(d->lock);
}

#define IDE_PROPS                                                                                  \
	{.name = "drive",                                                                          \
	 .type = PROP_DRIVE,                                                                       \
	 .offset = offsetof(struct ide_dev, drive),                                                \
	 .help = "the drive behind it"},                                                           \
		{.name = "bootindex",                                                              \
		 .type = PROP_I32,                                                                 \
		 .offset = offsetof(struct ide_dev, bootindex),                                    \
		 .def = "-1",                                                                      \
		 .help = "place in the boot order"},                                               \
		{.name = "unit",                                                                   \
		 .type = PROP_U32,                                                                 \
		 .offset = offsetof(struct ide_dev, unit),                                         \
		 .def = "4294967295",                                                              \
		 .help = "0: a SATA port has one device"},                                         \
		{.name = "serial",                                                                 \
		 .type = PROP_STRING,                                                              \
		 .offset = offsetof(struct ide_dev, serial),                                       \
		 .help = "serial number, up to 20 characters"},                                    \
		{.name = "model",                                                                  \
		 .type = PROP_STRING,                                                              \
		 .offset = offsetof(struct ide_dev, model),                                        \
		 .help = "model, up to 40 characters"},                                            \
		{.name = "ver",                                                                    \
		 .type = PROP_STRING,                                                              \
		 .offset = offsetof(struct ide_dev, version),                                      \
		 .help = "firmware revision, up to 8 characters"},                                 \
		{.name = "wwn",                                                                    \
		 .type = PROP_U64,                                                                 \
		 .offset = offsetof(struct ide_dev, wwn),                                          \
		 .help = "world wide name"},                                                       \
		{.name = "logical_block_size",                                                     \
		 .type = PROP_U32,                                                                 \
		 .offset = offsetof(struct ide_dev, logical_block_size),                           \
		 .def = "512",                                                                     \
		 .help = "bytes; 512"},                                                            \
	{                                                                                          \
		.name = "physical_block_size", .type = PROP_U32,                                   \
		.offset = offsetof(struct ide_dev, physical_block_size), .def = "512",             \
		.help = "bytes that one write should cover"                                        \
	}

static const struct prop hd_props[] = {
	IDE_PROPS,
	{.name = "rotation_rate",
	 .type = PROP_U16,
	 .offset = offsetof(struct ide_dev, rotation_rate),
	 .help = "revolutions a minute; 1: not rotating, 0: not told"},
	{0},
};
static const struct prop cd_props[] = {IDE_PROPS, {0}};

static bool hd_post_load(void *object, unsigned version, struct error **err)
{
	struct ide_dev *d = object;

	if (d->disk.multiple > 16 || d->disk.udma > 6) {
		error_set(err, "ide-hd: settings out of range");
		ide_dev_reset(d);
		return false;
	}
	block_set_writeback(d->drive->node, d->disk.write_cache);
	return true;
}

static const struct state_desc hd_state = {
	.name = "ide-hd",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct ide_dev, disk.write_cache, STATE_BOOL),
			STATE_FIELD(struct ide_dev, disk.look_ahead, STATE_BOOL),
			STATE_FIELD(struct ide_dev, disk.multiple, STATE_U8),
			STATE_FIELD(struct ide_dev, disk.udma, STATE_U8),
			STATE_FIELD(struct ide_dev, disk.ncq_failed, STATE_BOOL),
			STATE_FIELD(struct ide_dev, disk.ncq_tag, STATE_U8),
			STATE_FIELD(struct ide_dev, disk.ncq_status, STATE_U8),
			STATE_FIELD(struct ide_dev, disk.ncq_error, STATE_U8),
			STATE_FIELD(struct ide_dev, disk.ncq_lba, STATE_U64),
			STATE_FIELD(struct ide_dev, disk.ncq_count, STATE_U32),
			{0},
		},
	.post_load = hd_post_load,
};

static bool cd_post_load(void *object, unsigned version, struct error **err)
{
	struct ide_dev *d = object;

	d->cdrom.event &= 3;
	d->drive->removable_locked = d->cdrom.locked;
	return true;
}

static const struct state_desc cd_state = {
	.name = "ide-cd",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct ide_dev, cdrom.tray_open, STATE_BOOL),
			STATE_FIELD(struct ide_dev, cdrom.locked, STATE_BOOL),
			STATE_FIELD(struct ide_dev, cdrom.attention, STATE_BOOL),
			STATE_FIELD(struct ide_dev, cdrom.event, STATE_U8),
			STATE_FIELD(struct ide_dev, cdrom.sense_key, STATE_U8),
			STATE_FIELD(struct ide_dev, cdrom.asc, STATE_U8),
			STATE_FIELD(struct ide_dev, cdrom.ascq, STATE_U8),
			{0},
		},
	.post_load = cd_post_load,
};

const struct device_desc ide_hd_desc = {
	.name = "ide-hd",
	.help = "SATA disk",
	.bus = "ide",
	.size = sizeof(struct ide_dev),
	.props = (const struct prop_set[]){{hd_props, 0}, {0}},
	.state = &hd_state,
	.realize = hd_realize,
	.unrealize = ide_unrealize,
};

const struct device_desc ide_cd_desc = {
	.name = "ide-cd",
	.help = "SATA CD-ROM drive",
	.bus = "ide",
	.size = sizeof(struct ide_dev),
	.props = (const struct prop_set[]){{cd_props, 0}, {0}},
	.state = &cd_state,
	.realize = cd_realize,
	.reset = cd_reset,
	.unrealize = ide_unrealize,
};
