/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHDX's log ([MS-VHDX] 2.3): a ring of entries, each with sectors of metadata that are to be
 * written. The valid sequence with the highest number is what the image's last writer had not
 * finished.
 *
 * Anything may be in there: an entry counts if its checksum and identity are right, and the work
 * that checksums of overlapping entries could make is bounded. Main thread, at open.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/format/vhdx.h"

enum {
	LOG_HEADER = 64,
	LOG_DESCRIPTOR = 32,
	LOG_CHECKSUM = 4,
	LOG_LENGTH = 8,
	LOG_TAIL = 12,
	LOG_SEQUENCE = 16,
	LOG_DESCRIPTORS = 24,
	LOG_GUID = 32,
	LOG_FLUSHED = 48,
	LOG_LAST = 56,
};

uint32_t vhdx_crc(uint32_t crc, const void *buf, size_t len)
{
	static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
					   0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
					   0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
					   0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
	const uint8_t *p = buf;

	crc = ~crc;
	while (len--) {
		crc ^= *p++;
		crc = table[crc & 15] ^ crc >> 4;
		crc = table[crc & 15] ^ crc >> 4;
	}
	return ~crc;
}

/* The i-th sector of the entry at that offset of the ring. */
static const uint8_t *sector(const struct vhdx_log *log, uint32_t at, uint32_t i)
{
	return log->data + (at + (uint64_t)i * VHDX_SECTOR) % log->length;
}

/* Its length, or 0 if no valid entry is there. *work: bytes that may still be summed. */
static uint32_t entry_length(const struct vhdx_log *log, uint32_t at, uint64_t *work)
{
	static const uint8_t none[4];
	const uint8_t *h = sector(log, at, 0);
	uint32_t length = load_le32(h + LOG_LENGTH), count = load_le32(h + LOG_DESCRIPTORS), crc;
	uint64_t head = ALIGN_UP(LOG_HEADER + (uint64_t)count * LOG_DESCRIPTOR, VHDX_SECTOR);

	if (memcmp(h, "loge", 4) || !length || length > log->length ||
	    !IS_ALIGNED(length, VHDX_SECTOR) || head > length ||
	    memcmp(h + LOG_GUID, log->guid, 16) || !load_le64(h + LOG_SEQUENCE) ||
	    load_le32(h + LOG_TAIL) >= log->length ||
	    !IS_ALIGNED(load_le32(h + LOG_TAIL), VHDX_SECTOR) || length > *work)
		return 0;
	*work -= length;
	crc = vhdx_crc(0, h, LOG_CHECKSUM);
	crc = vhdx_crc(crc, none, 4);
	crc = vhdx_crc(crc, h + LOG_CHECKSUM + 4, VHDX_SECTOR - LOG_CHECKSUM - 4);
	for (uint32_t i = 1; i < length / VHDX_SECTOR; i++)
		crc = vhdx_crc(crc, sector(log, at, i), VHDX_SECTOR);
	return crc == load_le32(h + LOG_CHECKSUM) ? length : 0;
}

/* Follows entries with consecutive numbers from start on; whether the last one's tail is one of
 * them. Then tail and count are set. */
static bool follow(struct vhdx_log *log, const uint32_t *lengths, uint32_t start,
		   uint64_t *sequence)
{
	uint32_t at = start, left = log->length, head = start, count = 0, tail;
	uint64_t number = load_le64(log->data + start + LOG_SEQUENCE);

	while (left && lengths[at / VHDX_SECTOR] && lengths[at / VHDX_SECTOR] <= left &&
	       load_le64(log->data + at + LOG_SEQUENCE) == number + count) {
		head = at;
		count++;
		left -= lengths[at / VHDX_SECTOR];
		at = (at + lengths[at / VHDX_SECTOR]) % log->length;
	}
	tail = load_le32(log->data + head + LOG_TAIL);
	/* Only a sequence that begins at its tail; others are found from there. */
	if (!count || tail != start)
		return false;
	*sequence = number + count - 1;
	log->tail = start;
	log->count = count;
	log->flushed = load_le64(log->data + head + LOG_FLUSHED);
	log->last = load_le64(log->data + head + LOG_LAST);
	return true;
}

bool vhdx_log_find(struct vhdx_log *log, struct error **err)
{
	uint32_t sectors = log->length / VHDX_SECTOR, *lengths;
	uint64_t work = 4 * (uint64_t)log->length, steps = 64 * (uint64_t)sectors, best = 0;
	struct vhdx_log found = *log;

	log->count = 0;
	lengths = calloc(sectors + 1, sizeof(*lengths));
	if (!lengths) {
		error_set_errno(err, ENOMEM, "Could not read the image's log");
		return false;
	}
	for (uint32_t i = 0; i < sectors; i++)
		lengths[i] = entry_length(log, i * VHDX_SECTOR, &work);
	for (uint32_t i = 0; i < sectors && steps; i++) {
		uint64_t sequence;

		if (!lengths[i] ||
		    load_le32(log->data + i * VHDX_SECTOR + LOG_TAIL) != i * VHDX_SECTOR)
			continue;
		if (follow(&found, lengths, i * VHDX_SECTOR, &sequence) && sequence > best) {
			best = sequence;
			*log = found;
		}
		steps -= MIN(steps, (uint64_t)sectors / 64 + 1);
	}
	free(lengths);
	if (log->count && (log->last > VHDX_MAX_FILE || log->flushed > log->last)) {
		error_set(err, "The image's log speaks of a file of %llu bytes",
			  (unsigned long long)log->last);
		return false;
	}
	return true;
}

static int replay_one(const struct vhdx_log *log, uint32_t at, uint32_t *data, const uint8_t *d,
		      struct block_node *file)
{
	uint64_t sequence = load_le64(log->data + at + LOG_SEQUENCE), offset = load_le64(d + 16);
	uint8_t buf[VHDX_SECTOR];
	const uint8_t *s;

	if (load_le64(d + 24) != sequence || !IS_ALIGNED(offset, VHDX_SECTOR))
		return -EINVAL;
	if (!memcmp(d, "zero", 4)) {
		uint64_t bytes = load_le64(d + 8);

		if (!IS_ALIGNED(bytes, VHDX_SECTOR) || !range_inside(offset, bytes, log->last))
			return -EINVAL;
		return bytes ? block_zero(file, offset, bytes, 0) : 0;
	}
	if (memcmp(d, "desc", 4) || !range_inside(offset, VHDX_SECTOR, log->last) ||
	    *data >= load_le32(log->data + at + LOG_LENGTH) / VHDX_SECTOR)
		return -EINVAL;
	s = sector(log, at, (*data)++);
	if (memcmp(s, "data", 4) || load_le32(s + 4) != sequence >> 32 ||
	    load_le32(s + 4092) != (uint32_t)sequence)
		return -EINVAL;
	memcpy(buf, d + 8, 8);
	memcpy(buf + 8, s + 8, 4084);
	memcpy(buf + 4092, d + 4, 4);
	return block_pwrite(file, offset, buf, sizeof(buf), 0);
}

static int replay_entry(const struct vhdx_log *log, uint32_t at, struct block_node *file)
{
	const uint8_t *h = log->data + at;
	uint32_t count = load_le32(h + LOG_DESCRIPTORS), data;
	int ret = 0;

	data = ALIGN_UP(LOG_HEADER + (uint64_t)count * LOG_DESCRIPTOR, VHDX_SECTOR) / VHDX_SECTOR;
	for (uint32_t i = 0; i < count && !ret; i++) {
		uint64_t d = LOG_HEADER + (uint64_t)i * LOG_DESCRIPTOR;

		ret = replay_one(log, at, &data, sector(log, at, d / VHDX_SECTOR) + d % VHDX_SECTOR,
				 file);
	}
	return ret;
}

bool vhdx_log_replay(struct vhdx_log *log, struct block_node *file, struct error **err)
{
	uint32_t at = log->tail;
	int ret = 0;

	if (log->flushed > file->length) {
		error_set(err, "The image's file is shorter than its log says");
		return false;
	}
	for (uint32_t i = 0; i < log->count && !ret; i++) {
		ret = replay_entry(log, at, file);
		at = (at + load_le32(log->data + at + LOG_LENGTH)) % log->length;
	}
	if (!ret)
		ret = block_flush(file);
	if (ret)
		error_set_errno(err, ret, "Could not replay the image's log");
	return !ret;
}
