/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHDX: the log's replay (vhdx_log.c) and the checksum, apart from the driver (vhdx.c). The format
 * is Microsoft's [MS-VHDX].
 */
#ifndef BLOCK_FORMAT_VHDX_H
#define BLOCK_FORMAT_VHDX_H

#include "block/driver.h"

enum { VHDX_SECTOR = 4096, VHDX_MAX_LOG = 64 << 20 };
#define VHDX_MAX_FILE (UINT64_C(1) << 47) /* 128 TiB: a 64 TiB disk and what belongs to it */

/* CRC-32C; start with 0. */
uint32_t vhdx_crc(uint32_t crc, const void *buf, size_t len);

/* A run of log entries that belong together, in a log that is in memory. */
struct vhdx_log {
	const uint8_t *data;
	uint32_t length; /* a multiple of VHDX_SECTOR */
	const uint8_t *guid;
	uint32_t tail, count;	/* the first entry's offset, and how many there are; 0: none */
	uint64_t flushed, last; /* how long the file must be, and what it will be */
};
/* Finds the sequence to replay. Pure. False: the log makes no sense. */
bool vhdx_log_find(struct vhdx_log *log, struct error **err);
/* Writes its contents to file, which is synced then. */
bool vhdx_log_replay(struct vhdx_log *log, struct block_node *file, struct error **err);

#endif
