/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ATA commands decoded (ATA8-ACS chapter 7; Serial ATA 3.0, 10.3 FIS types and 13.6 NCQ).
 * Pure functions, any thread.
 */
#include "hw/ata/ata_decode.h"

#include "vmm/core/util.h"

bool ata_parse_fis(const uint8_t fis[ATA_FIS_H2D_SIZE], struct ata_taskfile *tf)
{
	if (fis[0] != ATA_FIS_H2D || (fis[1] & 0x0f))
		return false;
	*tf = (struct ata_taskfile){
		.is_command = fis[1] & 0x80,
		.command = fis[2],
		.features = fis[3] | fis[11] << 8,
		.lba = (uint64_t)fis[4] | (uint64_t)fis[5] << 8 | (uint64_t)fis[6] << 16 |
		       (uint64_t)fis[8] << 24 | (uint64_t)fis[9] << 32 | (uint64_t)fis[10] << 40,
		.device = fis[7],
		.count = fis[12] | fis[13] << 8,
		.control = fis[15],
	};
	return true;
}

/* Address and length of the 28-bit and the 48-bit commands; a count of 0 is the most. CHS is gone.
 */
static void place28(const struct ata_taskfile *tf, struct ata_plan *p)
{
	if (!(tf->device & ATA_DEVICE_LBA)) {
		p->action = ATA_ABORT;
		return;
	}
	p->lba = (tf->lba & 0xffffff) | (uint64_t)(tf->device & 0x0f) << 24;
	p->sectors = tf->count & 0xff ? tf->count & 0xff : 256;
}

static void place48(const struct ata_taskfile *tf, struct ata_plan *p)
{
	p->lba = tf->lba;
	p->sectors = tf->count ? tf->count : 65536;
	p->lba48 = true;
}

static void place_ncq(const struct ata_taskfile *tf, struct ata_plan *p)
{
	p->lba = tf->lba;
	p->sectors = tf->features ? tf->features : 65536;
	p->fua = tf->device & ATA_DEVICE_FUA;
	p->ncq = p->lba48 = true;
}

enum { IS48 = 1 << 0, PIO = 1 << 1, FUA = 1 << 2, NCQ = 1 << 3 };

static const struct {
	uint8_t command, action, how;
} transfers[] = {
	{0x20, ATA_READ, PIO},
	{0x21, ATA_READ, PIO},
	{0x24, ATA_READ, IS48 | PIO},
	{0x25, ATA_READ, IS48},
	{0x29, ATA_READ, IS48 | PIO},
	{0xc4, ATA_READ, PIO},
	{0xc8, ATA_READ, 0},
	{0xc9, ATA_READ, 0},
	{0x30, ATA_WRITE, PIO},
	{0x31, ATA_WRITE, PIO},
	{0x34, ATA_WRITE, IS48 | PIO},
	{0x35, ATA_WRITE, IS48},
	{0x39, ATA_WRITE, IS48 | PIO},
	{0x3d, ATA_WRITE, IS48 | FUA},
	{0xc5, ATA_WRITE, PIO},
	{0xca, ATA_WRITE, 0},
	{0xcb, ATA_WRITE, 0},
	{0xce, ATA_WRITE, IS48 | PIO | FUA},
	{0x40, ATA_VERIFY, 0},
	{0x41, ATA_VERIFY, 0},
	{0x42, ATA_VERIFY, IS48},
	{ATA_CMD_READ_FPDMA, ATA_READ, NCQ},
	{ATA_CMD_WRITE_FPDMA, ATA_WRITE, NCQ},
};

static bool decode_transfer(const struct ata_taskfile *tf, struct ata_plan *p)
{
	for (size_t i = 0; i < ARRAY_SIZE(transfers); i++) {
		if (transfers[i].command != tf->command)
			continue;
		p->action = transfers[i].action;
		p->pio = transfers[i].how & PIO;
		if (transfers[i].how & NCQ)
			place_ncq(tf, p);
		else if (transfers[i].how & IS48)
			place48(tf, p);
		else
			place28(tf, p);
		p->fua |= !!(transfers[i].how & FUA);
		return true;
	}
	return false;
}

static void decode_smart(const struct ata_taskfile *tf, struct ata_plan *p)
{
	/* A key that keeps stray commands away. */
	if ((tf->lba >> 8 & 0xffff) != 0xc24f) {
		p->action = ATA_ABORT;
		return;
	}
	switch (tf->features & 0xff) {
	case 0xd0:
		p->action = ATA_TABLE_SMART_DATA;
		p->pio = true;
		p->sectors = 1;
		break;
	case 0xd1:
		p->action = ATA_TABLE_SMART_THRESHOLDS;
		p->pio = true;
		p->sectors = 1;
		break;
	case 0xda:
		p->action = ATA_SMART_STATUS;
		break;
	case 0xd2: /* attribute autosave */
	case 0xd8: /* enable */
	case 0xd9: /* disable */
		p->action = ATA_NOTHING;
		break;
	default:
		p->action = ATA_ABORT;
		break;
	}
}

void ata_decode(const struct ata_taskfile *tf, struct ata_plan *plan)
{
	*plan = (struct ata_plan){.action = ATA_ABORT};
	if (decode_transfer(tf, plan))
		return;
	switch (tf->command) {
	case ATA_CMD_DSM:
		if ((tf->features & 0xff) == 1 && tf->count) {
			plan->action = ATA_TRIM;
			plan->sectors = tf->count;
		}
		break;
	case ATA_CMD_READ_LOG:
	case ATA_CMD_READ_LOG_DMA:
		plan->action = tf->count ? ATA_TABLE_LOG : ATA_ABORT;
		plan->pio = tf->command == ATA_CMD_READ_LOG;
		/* The page number is in LBA mid and its previous value, the address in LBA low. */
		plan->lba = (tf->lba & 0xff) | (tf->lba >> 8 & 0xff) << 8 |
			    (tf->lba >> 32 & 0xff) << 16;
		plan->sectors = tf->count;
		break;
	case ATA_CMD_IDENTIFY:
		plan->action = ATA_TABLE_IDENTIFY;
		plan->pio = true;
		plan->sectors = 1;
		break;
	case ATA_CMD_SMART:
		decode_smart(tf, plan);
		break;
	case 0xe7: /* FLUSH CACHE */
	case 0xea: /* FLUSH CACHE EXT */
		plan->action = ATA_FLUSH;
		break;
	case ATA_CMD_SET_FEATURES:
		plan->action = ATA_SET_FEATURES;
		break;
	case ATA_CMD_SET_MULTIPLE:
		plan->action = ATA_SET_MULTIPLE;
		break;
	case ATA_CMD_CHECK_POWER:
		plan->action = ATA_CHECK_POWER;
		break;
	case 0xf8: /* READ NATIVE MAX ADDRESS */
		plan->action = ATA_MAX_ADDRESS;
		break;
	case 0x27: /* READ NATIVE MAX ADDRESS EXT */
		plan->action = ATA_MAX_ADDRESS;
		plan->lba48 = true;
		break;
	case ATA_CMD_DIAGNOSTIC:
		plan->action = ATA_DIAGNOSTIC;
		break;
	case 0x10: /* RECALIBRATE */
	case 0x70: /* SEEK */
	case 0x91: /* INITIALIZE DEVICE PARAMETERS */
	case 0xe0: /* STANDBY IMMEDIATE */
	case 0xe1: /* IDLE IMMEDIATE */
	case 0xe2: /* STANDBY */
	case 0xe3: /* IDLE */
	case 0xe6: /* SLEEP */
		plan->action = ATA_NOTHING;
		break;
	}
}

bool ata_set_features(struct ata_disk *d, const struct ata_taskfile *tf)
{
	switch (tf->features & 0xff) {
	case 0x02:
		d->write_cache = true;
		return true;
	case 0x82:
		d->write_cache = false;
		return true;
	case 0xaa:
		d->look_ahead = true;
		return true;
	case 0x55:
		d->look_ahead = false;
		return true;
	case 0x03: /* transfer mode: PIO and multiword are taken, Ultra DMA up to 6 remembered */
		switch (tf->count >> 3 & 0x1f) {
		case 0: /* PIO default */
		case 1: /* PIO with flow control */
		case 4: /* multiword DMA */
			return true;
		case 8:
			if ((tf->count & 7) > 6)
				return false;
			d->udma = tf->count & 7;
			return true;
		}
		return false;
	case 0x05: /* power management levels, releases, defaults: nothing that shows */
	case 0x85:
	case 0x42:
	case 0xc2:
	case 0x66:
	case 0xcc:
		return true;
	}
	return false;
}

/* Strings have the first character in the high byte of each word. */
static void put_text(uint8_t *out, const char *text, size_t len)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < len; i++)
		out[i ^ 1] = i < n ? (uint8_t)text[i] : ' ';
}

static void put_word(uint8_t *out, unsigned word, uint16_t value)
{
	store_le16(out + 2 * word, value);
}

static void put_names(uint8_t *out, const char *serial, const char *version, const char *model)
{
	put_text(out + 2 * 10, serial, 20);
	put_text(out + 2 * 23, version, 8);
	put_text(out + 2 * 27, model, 40);
}

/* Signature and a checksum that makes the bytes' sum 0. */
static void put_integrity(uint8_t *out)
{
	uint8_t sum = 0xa5;

	out[510] = 0xa5;
	for (int i = 0; i < 510; i++)
		sum += out[i];
	out[511] = (uint8_t)-sum;
}

static void put_modes(uint8_t *out, uint8_t udma)
{
	put_word(out, 53, 7);	/* words 54-58, 64-70, 88 are valid */
	put_word(out, 63, 7);	/* multiword DMA 0-2 */
	put_word(out, 64, 3);	/* PIO 3, 4 */
	put_word(out, 65, 120); /* cycle times, ns */
	put_word(out, 66, 120);
	put_word(out, 67, 120);
	put_word(out, 68, 120);
	put_word(out, 80, 0x01f0); /* ATA/ATAPI-4 to ATA8-ACS */
	put_word(out, 88, 0x7f | 1 << (8 + udma));
}

static uint32_t capped28(uint64_t sectors)
{
	return sectors > 0x0fffffff ? 0x0fffffff : (uint32_t)sectors;
}

static void put_geometry(uint8_t *out, uint64_t sectors)
{
	uint32_t chs = MIN(sectors, (uint64_t)16383 * 16 * 63);
	uint16_t cylinders = MAX(chs / (16 * 63), 1);

	put_word(out, 1, cylinders);
	put_word(out, 3, 16);
	put_word(out, 6, 63);
	put_word(out, 54, cylinders);
	put_word(out, 55, 16);
	put_word(out, 56, 63);
	chs = cylinders * 16 * 63;
	put_word(out, 57, chs & 0xffff);
	put_word(out, 58, chs >> 16);
	put_word(out, 60, capped28(sectors) & 0xffff);
	put_word(out, 61, capped28(sectors) >> 16);
	for (int i = 0; i < 4; i++)
		put_word(out, 100 + i, (uint16_t)(sectors >> (16 * i)));
}

static void put_sector_sizes(uint8_t *out, uint32_t physical)
{
	unsigned shift = 0;

	while (shift < 15 && ((uint32_t)ATA_SECTOR << shift) < physical)
		shift++;
	put_word(out, 106, 0x4000 | (shift ? 0x2000 | shift : 0));
	put_word(out, 209, 0x4000); /* the first logical sector begins a physical one */
}

void ata_identify_disk(const struct ata_disk *d, const char *serial, const char *version,
		       const char *model, uint8_t out[512])
{
	memset(out, 0, 512);
	put_word(out, 0, 0x0040);
	put_geometry(out, d->sectors);
	put_names(out, serial, version, model);
	put_word(out, 47, 0x8000 | 16);		      /* READ MULTIPLE up to 16 sectors */
	put_word(out, 49, 1 << 11 | 1 << 9 | 1 << 8); /* IORDY, LBA, DMA */
	put_word(out, 50, 1 << 14);
	put_word(out, 59, d->multiple ? 0x100 | d->multiple : 0);
	put_modes(out, d->udma);
	if (d->trim) {
		put_word(out, 105, 1); /* blocks in one DSM command */
		put_word(out, 169, 1);
	}
	put_word(out, 75, 31);				  /* queue depth - 1 */
	put_word(out, 76, 1 << 8 | 7 << 1);		  /* NCQ; 1.5, 3, 6 Gb/s */
	put_word(out, 82, 1 << 14 | 1 << 6 | 1 << 5 | 1); /* NOP, look-ahead, write cache, SMART */
	put_word(out, 83, 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10); /* flush, flush ext, 48 bit */
	put_word(out, 84, 1 << 14 | 1 << 6 | 1 << 5 | (d->wwn ? 1 << 8 : 0)); /* FUA, logs */
	put_word(out, 85,
		 1 << 14 | (d->look_ahead ? 1 << 6 : 0) | (d->write_cache ? 1 << 5 : 0) |
			 (d->smart ? 1 : 0));
	put_word(out, 86, 1 << 13 | 1 << 12 | 1 << 10);
	put_word(out, 87, 1 << 14 | 1 << 6 | 1 << 5 | (d->wwn ? 1 << 8 : 0));
	put_word(out, 93, 0);
	put_sector_sizes(out, d->physical_block);
	for (int i = 0; i < 4; i++)
		put_word(out, 108 + i, (uint16_t)(d->wwn >> (48 - 16 * i)));
	put_word(out, 217, d->rotation_rate);
	put_word(out, 222, 0x1000 | 0x3f); /* Serial ATA, up to 3.0 */
	put_integrity(out);
}

void ata_identify_cdrom(const char *serial, const char *version, const char *model,
			uint8_t out[512])
{
	memset(out, 0, 512);
	put_word(out, 0, 0x8580); /* ATAPI, CD-ROM, removable, DRQ within 50 us, 12-byte packets */
	put_names(out, serial, version, model);
	put_word(out, 49, 1 << 11 | 1 << 9 | 1 << 8);
	put_modes(out, 5);
	put_word(out, 76, 7 << 1);
	put_word(out, 82, 1 << 14 | 1 << 9 | 1 << 4); /* NOP, DEVICE RESET, PACKET */
	put_word(out, 83, 1 << 14);
	put_word(out, 84, 1 << 14);
	put_word(out, 85, 1 << 14 | 1 << 9 | 1 << 4);
	put_word(out, 87, 1 << 14);
	put_word(out, 222, 0x1000 | 0x3f);
	put_integrity(out);
}

static void put_checksum(uint8_t *out)
{
	uint8_t sum = 0;

	for (int i = 0; i < 511; i++)
		sum += out[i];
	out[511] = (uint8_t)-sum;
}

/* What monitors look at first: nothing reallocated, nothing pending, a temperature. */
static const struct {
	uint8_t id, flags, value, worst, threshold, raw;
} attributes[] = {
	{5, 0x03, 100, 100, 36, 0},  {9, 0x03, 100, 100, 0, 1},	  {12, 0x03, 100, 100, 0, 1},
	{190, 0x03, 69, 69, 50, 31}, {197, 0x03, 100, 100, 0, 0},
};

void ata_smart_data(uint8_t out[512])
{
	memset(out, 0, 512);
	out[0] = 1;
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++) {
		uint8_t *a = out + 2 + 12 * i;

		a[0] = attributes[i].id;
		a[1] = attributes[i].flags;
		a[3] = attributes[i].value;
		a[4] = attributes[i].worst;
		a[5] = attributes[i].raw;
	}
	out[362] = 0x82; /* off-line collection finished */
	put_checksum(out);
}

void ata_smart_thresholds(uint8_t out[512])
{
	memset(out, 0, 512);
	out[0] = 1;
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++) {
		out[2 + 12 * i] = attributes[i].id;
		out[3 + 12 * i] = attributes[i].threshold;
	}
	put_checksum(out);
}

bool ata_log_page(struct ata_disk *d, uint8_t log, uint16_t page, uint8_t out[512])
{
	memset(out, 0, 512);
	if (page)
		return false;
	switch (log) {
	case 0x00: /* the directory: pages of each log */
		put_word(out, 0, 1);
		put_word(out, 0x10, 1);
		return true;
	case 0x10: /* NCQ command error */
		out[0] = d->ncq_failed ? d->ncq_tag : 0x80;
		if (d->ncq_failed) {
			out[2] = d->ncq_status;
			out[3] = d->ncq_error;
			for (int i = 0; i < 3; i++) {
				out[4 + i] = (uint8_t)(d->ncq_lba >> (8 * i));
				out[8 + i] = (uint8_t)(d->ncq_lba >> (24 + 8 * i));
			}
			out[7] = ATA_DEVICE_LBA;
			out[12] = (uint8_t)d->ncq_count;
			out[13] = (uint8_t)(d->ncq_count >> 8);
		}
		d->ncq_failed = false;
		put_checksum(out);
		return true;
	}
	return false;
}

bool ata_trim_range(const uint8_t entry[8], uint64_t *lba, uint32_t *sectors)
{
	uint64_t e = load_le64(entry);

	*lba = e & 0xffffffffffff;
	*sectors = (uint32_t)(e >> 48);
	return *sectors != 0;
}
