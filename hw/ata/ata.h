/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between an ATA host adapter and the device on its port.
 *
 * The adapter makes a task of what the guest asked, the device executes it and calls
 * ata_task_done(): at once or when its disk has answered, always on the main loop with the
 * adapter's lock held. Tasks are the adapter's; a device keeps none after that.
 */
#ifndef HW_ATA_ATA_H
#define HW_ATA_ATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "block/block.h"
#include "hw/ata/ata_decode.h"
#include "hw/ata/atapi.h"
#include "vmm/core/device.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/log.h"
#include "vmm/core/notifier.h"

struct ide_dev;
struct ahci_port;

struct ata_extent {
	uint64_t gpa;
	uint32_t len;
};

struct ata_task {
	struct ahci_port *port;
	unsigned slot;

	/* What was asked. */
	struct ata_taskfile tf;
	uint8_t cdb[ATAPI_CDB];
	/* Its data in guest memory: addresses and lengths are checked when they are mapped. */
	uint64_t prdt;
	uint32_t prdtl;
	uint64_t header;

	/* What came of it. */
	struct ata_taskfile out; /* lba, count, device */
	uint8_t status, error;
	uint32_t transferred; /* bytes */
	bool ncq, pio_in;

	/* Disk I/O (ata_io.c). */
	struct ide_dev *dev;
	void (*io_done)(struct ata_task *t, int ret);
	enum block_op op;
	uint32_t flags;
	uint64_t offset, bytes, done_bytes, piece;
	struct iovec *iov; /* the whole transfer; iov_room entries, grows up to ATA_MAX_IOV */
	int iovcnt, iov_room;
	struct ata_extent *extents; /* the same in guest addresses, as many entries at most */
	int extent_count;
	struct iovec *part; /* of the request in flight */
	struct block_req *req;
	size_t req_size;
	bool active;  /* the adapter's: the device has it */
	bool dropped; /* the guest reset the port meanwhile: nobody wants the result */
	struct ata_task *next_parked;
	/* TRIM: ranges not yet sent. */
	uint8_t *ranges;
	uint32_t range_count, range_next;
};

enum { ATA_MAX_IOV = 4096, ATA_PART_IOV = 1024 };

/* ahci_dma.c: the task's data in guest memory. */
/* Maps exactly bytes into t->iov. 0, -EFAULT (not RAM), -E2BIG (too many pieces), -EMSGSIZE (the
 * guest's list is shorter). */
int ata_task_map(struct ata_task *t, uint64_t bytes, enum gm_direction dir);
/* Copies as much of len as the list has room for; how much, or -EFAULT. */
int64_t ata_task_give(struct ata_task *t, const void *data, uint32_t len);
int64_t ata_task_take(struct ata_task *t, void *data, uint32_t len);
/* What was mapped to the guest has been written. */
void ata_task_mark_dirty(const struct ata_task *t);
/* ahci.c */
void ata_task_done(struct ata_task *t);

/* ata_io.c: a request to the drive's node with the drive's error policy. io_done is called with the
 * lock held; not if the task was dropped meanwhile. */
void ata_io_start(struct ata_task *t, enum block_op op, uint64_t offset, uint64_t bytes,
		  uint32_t flags, void (*io_done)(struct ata_task *t, int ret));
/* The guest runs again: what an error had stopped. */
void ata_io_resume(struct ide_dev *d);
/* The port is reset: forgets what an error had stopped. */
void ata_io_forget(struct ide_dev *d);
void ata_task_release(struct ata_task *t);

/* ide-hd and ide-cd. */
struct ide_dev {
	struct device dev;
	struct drive *drive;
	struct drive no_drive; /* stands in for an ide-cd without one: never has a medium */
	char *serial, *model, *version;
	int32_t bootindex;
	uint32_t unit;
	uint32_t logical_block_size, physical_block_size;
	uint16_t rotation_rate;
	uint64_t wwn;

	struct ahci_port *port; /* while realized */
	pthread_mutex_t *lock;	/* the adapter's */
	struct notifier state_changed;
	struct ata_task *parked; /* stopped by an error */
	struct log_ratelimit limit;
	void (*execute)(struct ide_dev *d, struct ata_task *t);

	struct ata_disk disk;	 /* ide-hd */
	struct atapi_unit cdrom; /* ide-cd */
	uint8_t identify[512];
	char text_serial[21], text_model[41], text_version[9];
};

static inline bool ide_dev_is_cdrom(const struct ide_dev *d)
{
	return d->drive->cdrom;
}

/* Shared by both kinds: finishes with an error, or well. */
void ata_task_fail(struct ata_task *t, uint8_t error);
void ata_task_succeed(struct ata_task *t);
/* The registers that a reset leaves: how hosts tell disks from CD-ROMs. */
void ata_signature(const struct ide_dev *d, struct ata_taskfile *tf);
/* A reset of the port: settings back to what they were at power-on. */
void ide_dev_reset(struct ide_dev *d);

void ata_disk_execute(struct ide_dev *d, struct ata_task *t);
void ata_cdrom_execute(struct ide_dev *d, struct ata_task *t);
/* The medium came or went: drive->medium_changed. */
void ata_cdrom_medium_changed(struct drive *drive, void *opaque);
/* What a new medium makes of the unit. */
void ata_cdrom_update(struct ide_dev *d);
/* The drive's tray, and that of a drive of the host's below. */
void ata_cdrom_lock(struct ide_dev *d, bool locked);

#endif
