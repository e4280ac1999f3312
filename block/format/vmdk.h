/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMware disks (VMware's "Virtual Disk Format 5.0"): what the parsers in vmdk_parse.c hand to the
 * driver (vmdk.c), and what vmdk_create.c shares with them. For block/format/vmdk*.c and tests.
 */
#ifndef BLOCK_FORMAT_VMDK_H
#define BLOCK_FORMAT_VMDK_H

#include "block/create.h"
#include "block/driver.h"

enum {
	VMDK_HEADER = 512,
	VMDK_MAX_TEXT = 64 << 10,
	VMDK_MAX_EXTENTS = 4096,
	VMDK_MAX_GD = 64 << 20, /* bytes: 8 TiB in grains of 4 KiB */
	VMDK_FLAG_NEWLINES = 1 << 0,
	VMDK_FLAG_RGD = 1 << 1,
	VMDK_FLAG_ZERO_GRAIN = 1 << 2,
	VMDK_FLAG_COMPRESSED = 1 << 16,
	VMDK_FLAG_MARKERS = 1 << 17,
};
#define VMDK_GD_AT_END UINT64_MAX
#define VMDK_NO_PARENT UINT32_C(0xffffffff)

/* A sparse extent's header; sectors are 512 bytes. */
struct vmdk_sparse {
	uint32_t version, flags;
	uint64_t capacity, grain;	  /* sectors */
	uint64_t text_offset, text_bytes; /* of the descriptor in it; 0: none */
	uint32_t gtes;			  /* entries of a grain table */
	uint64_t rgd, gd, overhead;	  /* sectors */
	uint64_t tables;		  /* entries of the grain directory */
};
/* Pure. file_size bounds everything; gd at the end is the caller's to look for. */
bool vmdk_parse_sparse(struct vmdk_sparse *h, const uint8_t *buf, uint64_t file_size,
		       struct error **err);

enum vmdk_kind { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO };
struct vmdk_extent {
	enum vmdk_kind kind;
	uint64_t sectors, offset; /* offset: FLAT's, in its file, in sectors */
	char *name;
};
struct vmdk_text {
	char type[32]; /* createType */
	uint32_t cid, parent_cid;
	size_t cid_at; /* where it is in the text; 0: nowhere */
	unsigned cid_digits; /* as they stand in the text */
	char *parent;  /* parentFileNameHint, or NULL */
	struct vmdk_extent *extents;
	unsigned count;
};
/* Pure. text need not end with a NUL. */
bool vmdk_parse_text(struct vmdk_text *t, const char *text, size_t len, struct error **err);
void vmdk_text_free(struct vmdk_text *t);
/* Whether a name keeps an extent beside its descriptor. */
bool vmdk_plain_name(const char *name);

extern const struct block_create_option vmdk_create_options[];
bool vmdk_create(const char *filename, const struct block_create *c, struct error **err);

#endif
