/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CD-ROM commands (MMC-3; SPC-3; SFF-8020i): what a packet asks of a drive, and the answer.
 *
 * Nothing here touches a disk or guest memory, so that a fuzzer can call it. Any thread.
 */
#ifndef HW_ATA_ATAPI_H
#define HW_ATA_ATAPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ATAPI_CDB = 16, ATAPI_BLOCK = 2048, ATAPI_REPLY = 512 };

enum {
	SENSE_NONE = 0x0,
	SENSE_NOT_READY = 0x2,
	SENSE_MEDIUM_ERROR = 0x3,
	SENSE_ILLEGAL_REQUEST = 0x5,
	SENSE_UNIT_ATTENTION = 0x6,

	ASC_INVALID_OPCODE = 0x20,
	ASC_LBA_RANGE = 0x21,
	ASC_INVALID_FIELD = 0x24,
	ASC_MEDIUM_CHANGED = 0x28,
	ASC_NO_MEDIUM = 0x3a,
	ASC_REMOVAL_PREVENTED = 0x53,
	ASC_READ_ERROR = 0x11,
	ASC_ILLEGAL_MODE = 0x64,
};

enum atapi_event { ATAPI_EVENT_NONE, ATAPI_EVENT_EJECT, ATAPI_EVENT_NEW, ATAPI_EVENT_REMOVED };

struct atapi_unit {
	uint64_t blocks; /* of 2048 bytes; 0 without a medium */
	bool medium;	 /* one is in the drive */
	bool tray_open, locked;
	bool attention; /* the medium changed, and the guest was not told */
	uint8_t event;	/* enum atapi_event, for GET EVENT STATUS */
	uint8_t sense_key, asc, ascq;
	char model[17], version[5];
};

enum atapi_action {
	ATAPI_DONE,
	ATAPI_FAILED, /* the sense says why */
	ATAPI_DATA,   /* len bytes of data */
	ATAPI_READ,   /* blocks from lba, both checked */
	ATAPI_TRAY,   /* the unit's tray_open was changed */
	ATAPI_LOCK,   /* the unit's locked was changed */
};

struct atapi_reply {
	enum atapi_action action;
	uint32_t lba, blocks;
	uint32_t len;
	uint8_t data[ATAPI_REPLY];
};

void atapi_command(struct atapi_unit *u, const uint8_t cdb[ATAPI_CDB], struct atapi_reply *r);
/* Whether it is one by which guests ask, every now and then, if there is a disc. */
bool atapi_asks_for_medium(const uint8_t cdb[ATAPI_CDB]);
void atapi_sense(struct atapi_unit *u, uint8_t key, uint8_t asc, uint8_t ascq);

#endif
