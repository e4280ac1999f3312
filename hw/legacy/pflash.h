/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the parallel flash: its state, between the command registers (pflash.c) and the way to the
 * drive (pflash_drive.c).
 */
#ifndef HW_LEGACY_PFLASH_H
#define HW_LEGACY_PFLASH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "block/block.h"
#include "vmm/core/device.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/log.h"
#include "vmm/core/notifier.h"

enum {
	PFLASH_CFI_SIZE = 0x36,
	PFLASH_BUFFER_SHIFT = 5,
	PFLASH_BUFFER_SIZE = 1 << PFLASH_BUFFER_SHIFT,
};

struct pflash {
	struct device dev;
	struct drive *drive;
	uint64_t base;
	uint64_t end; /* of pflash_place_below(), or 0 */
	uint64_t sector_length;
	char *name;

	pthread_mutex_t lock;
	struct io_region io;
	uint8_t *memory;
	uint64_t size;
	bool read_only;
	uint8_t cfi[PFLASH_CFI_SIZE];
	void (*mode_fn)(struct device *dev, bool array, void *opaque);
	void *mode_opaque;
	struct log_ratelimit limit;

	uint8_t mode, step, status;
	uint8_t buffer[PFLASH_BUFFER_SIZE];
	uint64_t buffer_at;
	uint32_t buffer_len, buffer_fill;

	/* The way to the drive. dirty: under the lock; the rest is the main loop's. */
	bool *dirty; /* one a sector */
	struct ev_work write_work;
	struct block_req *req;
	uint8_t *bounce;
	struct iovec iov;
	bool busy, unflushed, stopped_on_error;
	struct notifier state_changed;
};

static inline uint64_t pflash_sectors(const struct pflash *p)
{
	return p->size / p->sector_length;
}

/* pflash_drive.c, main thread, without the lock. */
void pflash_drive_init(struct pflash *p);
void pflash_drive_release(struct pflash *p);
/* Everything to the drive before this returns. */
void pflash_drive_write_all(struct pflash *p);

#endif
