/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Apple's disk images (UDIF): what the parsers in dmg_parse.c hand to the driver, dmg.c.
 */
#ifndef BLOCK_FORMAT_DMG_H
#define BLOCK_FORMAT_DMG_H

#include "block/driver.h"

enum {
	DMG_TRAILER = 512,
	DMG_MAX_TEXT = 16 << 20,
	DMG_MAX_CHUNK = 64 << 20, /* bytes, packed or not, of a compressed chunk */
	DMG_ZERO = 0,
	DMG_RAW = 1,
	DMG_IGNORED = 2,
};
#define DMG_ADC	    UINT32_C(0x80000004)
#define DMG_ZLIB    UINT32_C(0x80000005)
#define DMG_BZIP2   UINT32_C(0x80000006)
#define DMG_LZFSE   UINT32_C(0x80000007)
#define DMG_LZMA    UINT32_C(0x80000008)
#define DMG_COMMENT UINT32_C(0x7ffffffe)
#define DMG_END	    UINT32_C(0xffffffff)

struct dmg_chunk {
	uint32_t type;
	uint64_t sector, sectors; /* of the disk */
	uint64_t offset, bytes;	  /* in the file */
};
struct dmg_chunks {
	struct dmg_chunk *list;
	size_t count, room;
	uint64_t data_fork; /* what offsets count from */
	uint64_t file_size;
};

/* All pure. They add to c; the caller frees c->list, also after false. */
bool dmg_parse_mish(struct dmg_chunks *c, const uint8_t *buf, size_t len, struct error **err);
bool dmg_parse_plist(struct dmg_chunks *c, const char *text, size_t len, struct error **err);
bool dmg_parse_resources(struct dmg_chunks *c, const uint8_t *buf, size_t len, struct error **err);
/* Puts them in order; false if two overlap. */
bool dmg_sort(struct dmg_chunks *c, struct error **err);

#endif
