/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CD-ROM commands executed on a description of the drive (atapi.h; MMC-3 chapter 6, SPC-3).
 * The medium is one data track. Any thread.
 */
#include "hw/ata/atapi.h"

#include "vmm/core/util.h"

enum {
	CMD_TEST_UNIT_READY = 0x00,
	CMD_REQUEST_SENSE = 0x03,
	CMD_INQUIRY = 0x12,
	CMD_START_STOP = 0x1b,
	CMD_PREVENT_ALLOW = 0x1e,
	CMD_READ_CAPACITY = 0x25,
	CMD_READ_10 = 0x28,
	CMD_SEEK = 0x2b,
	CMD_READ_TOC = 0x43,
	CMD_GET_CONFIGURATION = 0x46,
	CMD_EVENT_STATUS = 0x4a,
	CMD_DISC_INFORMATION = 0x51,
	CMD_TRACK_INFORMATION = 0x52,
	CMD_MODE_SENSE_10 = 0x5a,
	CMD_READ_12 = 0xa8,
	CMD_SET_SPEED = 0xbb,
	CMD_MECHANISM_STATUS = 0xbd,
	CMD_READ_CD = 0xbe,

	FRAMES_PER_SECOND = 75,
	MSF_OFFSET = 150,   /* frames before block 0 */
	CD_BLOCKS = 360000, /* more than 80 minutes: a DVD */

	PROFILE_CD_ROM = 0x08,
	PROFILE_DVD_ROM = 0x10,

	PAGE_ERROR_RECOVERY = 0x01,
	PAGE_CAPABILITIES = 0x2a,
	PAGE_ALL = 0x3f,
};

void atapi_sense(struct atapi_unit *u, uint8_t key, uint8_t asc, uint8_t ascq)
{
	u->sense_key = key;
	u->asc = asc;
	u->ascq = ascq;
}

static void fail(struct atapi_unit *u, struct atapi_reply *r, uint8_t key, uint8_t asc)
{
	atapi_sense(u, key, asc, key == SENSE_NOT_READY && u->tray_open ? 2 : 0);
	r->action = ATAPI_FAILED;
}

/* The answer is len bytes, of which the guest takes as many as it said it has room for. */
static void answer(struct atapi_reply *r, uint32_t len, uint32_t room)
{
	r->len = MIN(len, room);
	r->action = r->len ? ATAPI_DATA : ATAPI_DONE;
}

static bool ready(const struct atapi_unit *u)
{
	return u->medium && !u->tray_open;
}

static bool is_dvd(const struct atapi_unit *u)
{
	return u->blocks > CD_BLOCKS;
}

static void put_msf(uint8_t *out, uint32_t block)
{
	uint32_t frames = block + MSF_OFFSET;

	out[0] = 0;
	out[1] = (uint8_t)(frames / FRAMES_PER_SECOND / 60);
	out[2] = frames / FRAMES_PER_SECOND % 60;
	out[3] = frames % FRAMES_PER_SECOND;
}

static void put_address(uint8_t *out, uint32_t block, bool msf)
{
	if (msf)
		put_msf(out, block);
	else
		store_be32(out, block);
}

static uint32_t end_block(const struct atapi_unit *u)
{
	return (uint32_t)MIN(u->blocks, (uint64_t)UINT32_MAX);
}

static void request_sense(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	r->data[0] = 0x70;
	r->data[2] = u->sense_key;
	r->data[7] = 10;
	r->data[12] = u->asc;
	r->data[13] = u->ascq;
	if (u->sense_key == SENSE_UNIT_ATTENTION)
		u->attention = false;
	atapi_sense(u, SENSE_NONE, 0, 0);
	answer(r, 18, cdb[4]);
}

static void put_text(uint8_t *out, const char *text, size_t len)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < len; i++)
		out[i] = i < n ? (uint8_t)text[i] : ' ';
}

static void inquiry(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	if ((cdb[1] & 1) || cdb[2]) {
		fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
		return;
	}
	r->data[0] = 0x05; /* CD-ROM */
	r->data[1] = 0x80; /* removable */
	r->data[3] = 0x21; /* ATAPI-2, response format */
	r->data[4] = 31;
	put_text(r->data + 8, "VMM", 8);
	put_text(r->data + 16, u->model, 16);
	put_text(r->data + 32, u->version, 4);
	answer(r, 36, load_be16(cdb + 3));
}

static void start_stop(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	bool start = cdb[4] & 1, eject = cdb[4] & 2;

	/* Without the eject bit, or with a power condition: nothing spins here. */
	if (!eject || (cdb[4] & 0xf0) || u->tray_open == !start)
		return;
	if (!start && u->locked) {
		fail(u, r, u->medium ? SENSE_ILLEGAL_REQUEST : SENSE_NOT_READY,
		     ASC_REMOVAL_PREVENTED);
		u->ascq = 2;
		return;
	}
	u->tray_open = !start;
	if (start && u->medium) {
		u->event = ATAPI_EVENT_NEW;
		u->attention = true;
	}
	r->action = ATAPI_TRAY;
}

static void read_capacity(struct atapi_unit *u, struct atapi_reply *r)
{
	store_be32(r->data, end_block(u) ? end_block(u) - 1 : 0);
	store_be32(r->data + 4, ATAPI_BLOCK);
	answer(r, 8, 8);
}

static void read_blocks(struct atapi_unit *u, struct atapi_reply *r, uint32_t lba, uint32_t blocks)
{
	if (!blocks)
		return;
	if (!range_inside(lba, blocks, u->blocks)) {
		fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_LBA_RANGE);
		return;
	}
	r->lba = lba;
	r->blocks = blocks;
	r->action = ATAPI_READ;
}

static void read_cd(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	uint32_t blocks = load_be32(cdb + 5) & 0xffffff;

	/* Of a sector of mode 1 there is the user data, and nothing else to give. */
	if ((cdb[9] & 0xf8) == 0 || !blocks)
		return;
	if ((cdb[9] & 0xf8) != 0x10)
		fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
	else
		read_blocks(u, r, load_be32(cdb + 2), blocks);
}

/* Format 0: the tracks and the lead-out. */
static uint32_t toc_tracks(const struct atapi_unit *u, uint8_t first, bool msf, uint8_t *out)
{
	uint8_t *p = out + 4;

	if (first > 1 && first != 0xaa)
		return 0;
	out[2] = out[3] = 1;
	if (first <= 1) {
		p[1] = 0x14; /* data track */
		p[2] = 1;
		put_address(p + 4, 0, msf);
		p += 8;
	}
	p[1] = 0x14;
	p[2] = 0xaa;
	put_address(p + 4, end_block(u), msf);
	return (uint32_t)(p + 8 - out);
}

/* Format 1: the only session. */
static uint32_t toc_session(bool msf, uint8_t *out)
{
	out[2] = out[3] = 1;
	out[5] = 0x14;
	out[6] = 1;
	put_address(out + 8, 0, msf);
	return 12;
}

/* Format 2: as the lead-in has it. */
static uint32_t toc_raw(const struct atapi_unit *u, uint8_t *out)
{
	static const uint8_t points[] = {0xa0, 0xa1, 0xa2, 1};

	out[2] = out[3] = 1;
	for (unsigned i = 0; i < ARRAY_SIZE(points); i++) {
		uint8_t *p = out + 4 + 11 * i;

		p[0] = 1;
		p[1] = 0x14;
		p[3] = points[i];
		if (points[i] == 0xa0 || points[i] == 0xa1)
			p[8] = 1;
		else
			put_msf(p + 7, points[i] == 1 ? 0 : end_block(u));
	}
	return 4 + 11 * ARRAY_SIZE(points);
}

static void read_toc(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	unsigned format = cdb[2] & 0x0f ? cdb[2] & 0x0f : cdb[9] >> 6;
	bool msf = cdb[1] & 2;
	uint32_t len = 0;

	switch (format) {
	case 0:
		len = toc_tracks(u, cdb[6], msf, r->data);
		break;
	case 1:
		len = toc_session(msf, r->data);
		break;
	case 2:
		len = toc_raw(u, r->data);
		break;
	}
	if (!len) {
		fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
		return;
	}
	store_be16(r->data, (uint16_t)(len - 2));
	answer(r, len, load_be16(cdb + 7));
}

static uint8_t *put_feature(uint8_t *p, uint16_t code, uint8_t flags, uint8_t len)
{
	store_be16(p, code);
	p[2] = flags;
	p[3] = len;
	return p + 4;
}

static void get_configuration(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	uint16_t start = load_be16(cdb + 2);
	unsigned type = cdb[1] & 3; /* 0: all, 1: current, 2: the one named */
	uint8_t *p = r->data + 8;

	if (type == 3) {
		fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
		return;
	}
	if (ready(u))
		store_be16(r->data + 6, is_dvd(u) ? PROFILE_DVD_ROM : PROFILE_CD_ROM);
	if (start == 0) { /* profiles */
		p = put_feature(p, 0, 0x03, 8);
		store_be16(p, PROFILE_DVD_ROM);
		p[2] = ready(u) && is_dvd(u);
		store_be16(p + 4, PROFILE_CD_ROM);
		p[6] = ready(u) && !is_dvd(u);
		p += 8;
	}
	if (start == 1 || (start < 1 && type != 2)) { /* core: ATAPI, events by interrupt */
		p = put_feature(p, 1, 0x0b, 8);
		store_be32(p, 2);
		p[4] = 1;
		p += 8;
	}
	if (start == 3 || (start < 3 && type != 2)) { /* removable: tray, eject, lock */
		p = put_feature(p, 3, 0x03, 4);
		p[0] = 0x39;
		p += 4;
	}
	store_be32(r->data, (uint32_t)(p - r->data - 4));
	answer(r, (uint32_t)(p - r->data), load_be16(cdb + 7));
}

static void event_status(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	static const uint8_t codes[] = {[ATAPI_EVENT_NONE] = 0,
					[ATAPI_EVENT_EJECT] = 1,
					[ATAPI_EVENT_NEW] = 2,
					[ATAPI_EVENT_REMOVED] = 3};
	uint32_t len = 4;

	if (!(cdb[1] & 1)) { /* events are polled for only */
		fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
		return;
	}
	r->data[3] = 1 << 4; /* the media class alone */
	if (cdb[4] & 1 << 4) {
		r->data[2] = 4;
		r->data[4] = codes[u->event & 3];
		r->data[5] = (u->tray_open ? 1 : 0) | (u->medium ? 2 : 0);
		u->event = ATAPI_EVENT_NONE;
		len = 8;
	} else {
		r->data[2] = 0x80; /* none of the classes asked for */
	}
	store_be16(r->data, (uint16_t)(len - 2));
	answer(r, len, load_be16(cdb + 7));
}

static void disc_information(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	if (cdb[1] & 7) {
		fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
		return;
	}
	store_be16(r->data, 32);
	r->data[2] = 0x0e; /* complete, not erasable */
	r->data[3] = 1;	   /* first track */
	r->data[4] = 1;	   /* sessions */
	r->data[5] = 1;	   /* first track of the last session */
	r->data[6] = 1;	   /* last track of the last session */
	r->data[7] = 0x20; /* unrestricted use */
	answer(r, 34, load_be16(cdb + 7));
}

static void track_information(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	store_be16(r->data, 34);
	r->data[2] = 1;	   /* track */
	r->data[3] = 1;	   /* session */
	r->data[5] = 0x04; /* data */
	r->data[6] = 0x01; /* mode 1 */
	store_be32(r->data + 24, end_block(u));
	answer(r, 36, load_be16(cdb + 7));
}

static void mode_sense(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	unsigned page = cdb[2] & 0x3f, control = cdb[2] >> 6;
	uint8_t *p = r->data + 8;

	if (control == 3) { /* saved values */
		atapi_sense(u, SENSE_ILLEGAL_REQUEST, 0x39, 0);
		r->action = ATAPI_FAILED;
		return;
	}
	r->data[2] = !ready(u) ? (u->tray_open ? 0x71 : 0x70) : is_dvd(u) ? 0x41 : 0x01;
	if (page == PAGE_ERROR_RECOVERY || page == PAGE_ALL) {
		p[0] = PAGE_ERROR_RECOVERY;
		p[1] = 6;
		p[3] = control == 1 ? 0 : 5; /* retries */
		p += 8;
	}
	if (page == PAGE_CAPABILITIES || page == PAGE_ALL) {
		p[0] = PAGE_CAPABILITIES;
		p[1] = 18;
		p[2] = 0x3b;			   /* reads CD-R, CD-RW, DVD-ROM, DVD-R */
		p[4] = 0x70;			   /* XA, multi-session */
		p[6] = 0x29 | (u->locked ? 2 : 0); /* tray, eject, lock */
		store_be16(p + 8, 706 * 4);	   /* kB/s */
		store_be16(p + 10, 2);
		store_be16(p + 12, 512); /* buffer, KiB */
		store_be16(p + 14, 706 * 4);
		p += 20;
	}
	if (p == r->data + 8) {
		fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
		return;
	}
	store_be16(r->data, (uint16_t)(p - r->data - 2));
	answer(r, (uint32_t)(p - r->data), load_be16(cdb + 7));
}

static void mechanism_status(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	r->data[1] = u->tray_open ? 1 << 4 : 0;
	r->data[5] = 1;
	answer(r, 8, load_be16(cdb + 8));
}

/* Commands that need a medium, and no pending news of it. */
static void medium_command(struct atapi_unit *u, const uint8_t *cdb, struct atapi_reply *r)
{
	if (!ready(u)) {
		fail(u, r, SENSE_NOT_READY, ASC_NO_MEDIUM);
		return;
	}
	switch (cdb[0]) {
	case CMD_READ_CAPACITY:
		read_capacity(u, r);
		break;
	case CMD_READ_10:
		read_blocks(u, r, load_be32(cdb + 2), load_be16(cdb + 7));
		break;
	case CMD_READ_12:
		read_blocks(u, r, load_be32(cdb + 2), load_be32(cdb + 6));
		break;
	case CMD_READ_CD:
		read_cd(u, cdb, r);
		break;
	case CMD_SEEK:
		if (load_be32(cdb + 2) >= u->blocks)
			fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_LBA_RANGE);
		break;
	case CMD_READ_TOC:
		read_toc(u, cdb, r);
		break;
	case CMD_DISC_INFORMATION:
		disc_information(u, cdb, r);
		break;
	case CMD_TRACK_INFORMATION:
		track_information(u, cdb, r);
		break;
	}
}

bool atapi_asks_for_medium(const uint8_t cdb[ATAPI_CDB])
{
	return cdb[0] == CMD_TEST_UNIT_READY || cdb[0] == CMD_EVENT_STATUS;
}

void atapi_command(struct atapi_unit *u, const uint8_t cdb[ATAPI_CDB], struct atapi_reply *r)
{
	uint8_t op = cdb[0];

	memset(r, 0, sizeof(*r));
	if (op == CMD_REQUEST_SENSE) {
		request_sense(u, cdb, r);
		return;
	}
	/* News of the medium goes before everything but the commands that describe the drive. */
	if (u->attention && op != CMD_INQUIRY && op != CMD_EVENT_STATUS &&
	    op != CMD_GET_CONFIGURATION) {
		u->attention = false;
		fail(u, r, SENSE_UNIT_ATTENTION, ASC_MEDIUM_CHANGED);
		return;
	}
	atapi_sense(u, SENSE_NONE, 0, 0);
	switch (op) {
	case CMD_INQUIRY:
		inquiry(u, cdb, r);
		break;
	case CMD_START_STOP:
		start_stop(u, cdb, r);
		break;
	case CMD_PREVENT_ALLOW:
		u->locked = cdb[4] & 1;
		r->action = ATAPI_LOCK;
		break;
	case CMD_GET_CONFIGURATION:
		get_configuration(u, cdb, r);
		break;
	case CMD_EVENT_STATUS:
		event_status(u, cdb, r);
		break;
	case CMD_MODE_SENSE_10:
		mode_sense(u, cdb, r);
		break;
	case CMD_MECHANISM_STATUS:
		mechanism_status(u, cdb, r);
		break;
	case CMD_SET_SPEED:
		break;
	case CMD_TEST_UNIT_READY:
	case CMD_READ_CAPACITY:
	case CMD_READ_10:
	case CMD_READ_12:
	case CMD_READ_CD:
	case CMD_SEEK:
	case CMD_READ_TOC:
	case CMD_DISC_INFORMATION:
	case CMD_TRACK_INFORMATION:
		medium_command(u, cdb, r);
		break;
	default:
		fail(u, r, SENSE_ILLEGAL_REQUEST, ASC_INVALID_OPCODE);
		break;
	}
}
