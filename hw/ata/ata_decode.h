/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ATA commands as register values (ATA8-ACS; Serial ATA 3.0 for FPDMA): what they ask, and the
 * tables that answer some of them. Pure functions on guest bytes, any thread.
 */
#ifndef HW_ATA_ATA_DECODE_H
#define HW_ATA_ATA_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	ATA_SECTOR = 512,

	ATA_STATUS_ERR = 1 << 0,
	ATA_STATUS_DRQ = 1 << 3,
	ATA_STATUS_DSC = 1 << 4,
	ATA_STATUS_DF = 1 << 5,
	ATA_STATUS_DRDY = 1 << 6,
	ATA_STATUS_BSY = 1 << 7,
	ATA_STATUS_OK = ATA_STATUS_DRDY | ATA_STATUS_DSC,

	ATA_ERROR_ABRT = 1 << 2,
	ATA_ERROR_IDNF = 1 << 4,
	ATA_ERROR_UNC = 1 << 6,
	ATA_ERROR_ICRC = 1 << 7,

	ATA_CMD_DEVICE_RESET = 0x08,
	ATA_CMD_DSM = 0x06,
	ATA_CMD_READ_LOG = 0x2f,
	ATA_CMD_READ_LOG_DMA = 0x47,
	ATA_CMD_READ_FPDMA = 0x60,
	ATA_CMD_WRITE_FPDMA = 0x61,
	ATA_CMD_DIAGNOSTIC = 0x90,
	ATA_CMD_PACKET = 0xa0,
	ATA_CMD_IDENTIFY_PACKET = 0xa1,
	ATA_CMD_SMART = 0xb0,
	ATA_CMD_SET_MULTIPLE = 0xc6,
	ATA_CMD_CHECK_POWER = 0xe5,
	ATA_CMD_IDENTIFY = 0xec,
	ATA_CMD_SET_FEATURES = 0xef,

	ATA_DEVICE_LBA = 1 << 6,
	ATA_DEVICE_FUA = 1 << 7,
	ATA_CONTROL_SRST = 1 << 2,
};

/* The registers of a host to device FIS. */
struct ata_taskfile {
	uint8_t command, device, control;
	bool is_command;   /* else control alone was written */
	uint16_t features; /* with the previous value in the high byte */
	uint16_t count;
	uint64_t lba; /* 48 bits */
};

enum { ATA_FIS_H2D = 0x27, ATA_FIS_H2D_SIZE = 20 };
/* False if it is no host to device register FIS, or is for a port behind a multiplier. */
bool ata_parse_fis(const uint8_t fis[ATA_FIS_H2D_SIZE], struct ata_taskfile *tf);

enum ata_action {
	ATA_ABORT,
	ATA_NOTHING, /* done as soon as it is asked */
	ATA_READ,
	ATA_WRITE,
	ATA_VERIFY,
	ATA_FLUSH,
	ATA_TRIM,	    /* sectors: blocks of ranges */
	ATA_TABLE_IDENTIFY, /* data of 512 bytes to the host */
	ATA_TABLE_SMART_DATA,
	ATA_TABLE_SMART_THRESHOLDS,
	ATA_TABLE_LOG, /* lba: log address in the low byte, page above it; sectors: pages */
	ATA_SMART_STATUS,
	ATA_SET_FEATURES,
	ATA_SET_MULTIPLE,
	ATA_CHECK_POWER,
	ATA_MAX_ADDRESS,
	ATA_DIAGNOSTIC,
};

struct ata_plan {
	enum ata_action action;
	uint64_t lba;
	uint32_t sectors;
	bool ncq, fua, pio, lba48;
};

/* What a disk's command asks. Bounds of the disk are the caller's business. */
void ata_decode(const struct ata_taskfile *tf, struct ata_plan *plan);

/* A disk's settings that commands change, and what it tells of itself. */
struct ata_disk {
	uint64_t sectors; /* of 512 bytes */
	uint32_t physical_block;
	uint16_t rotation_rate;
	uint64_t wwn;
	bool read_only, trim;
	bool write_cache, look_ahead, smart;
	uint8_t multiple; /* sectors per READ MULTIPLE interrupt */
	uint8_t udma;
	/* The first NCQ error, for log 0x10. */
	bool ncq_failed;
	uint8_t ncq_tag, ncq_status, ncq_error;
	uint64_t ncq_lba;
	uint32_t ncq_count;
};

/* False: no such feature. The caller applies write_cache. */
bool ata_set_features(struct ata_disk *d, const struct ata_taskfile *tf);

void ata_identify_disk(const struct ata_disk *d, const char *serial, const char *version,
		       const char *model, uint8_t out[512]);
void ata_identify_cdrom(const char *serial, const char *version, const char *model,
			uint8_t out[512]);
void ata_smart_data(uint8_t out[512]);
void ata_smart_thresholds(uint8_t out[512]);
/* False: no such log page. Reading log 0x10 ends the state of error. */
bool ata_log_page(struct ata_disk *d, uint8_t log, uint16_t page, uint8_t out[512]);

/* One entry of a TRIM list. False if it is empty. */
bool ata_trim_range(const uint8_t entry[8], uint64_t *lba, uint32_t *sectors);

#endif
