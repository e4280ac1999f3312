/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Persistent bitmaps ("Bitmaps extension" and what follows it in the format's document); for
 * block/qcow2/ only.
 *
 *   bitmap_dir.c    the extension's data and the directory (pure)
 *   bitmap.c        opening, marking as in use, the way from and to block/bitmap.h
 *   bitmap_store.c  a bitmap's table and clusters
 *   extension.c     the extension in the header
 *
 * An image that is opened costs nothing for its bitmaps but their directory: bits that are set
 * later are in memory and are added to those on the disk when they are stored. The directory says
 * "in use" durably before the first change that a bitmap has to record, and says otherwise again
 * only when all bits are durable. While it says so the bitmap's clusters and table are written in
 * place, and a cut leaves an inconsistent bitmap. What else changes (bitmaps come and go, tables
 * move) is written beside what there is, synced, and switched to by the header's extension.
 */
#ifndef BLOCK_QCOW2_BITMAP_H
#define BLOCK_QCOW2_BITMAP_H

#include "block/bitmap.h"
#include "block/qcow2/qcow2.h"

enum {
	QBITMAP_EXT_BYTES = 24,
	QBITMAP_MAX = 65535,
	QBITMAP_MAX_DIR = QBITMAP_MAX * 1024,
	QBITMAP_MAX_TABLE = 0x8000000, /* entries */
	QBITMAP_MAX_BYTES = 512 << 20, /* of one bitmap's clusters */
	QBITMAP_HEAD = 24,	       /* of a directory entry */
	QBITMAP_OFF_FLAGS = 12,
	QBITMAP_TYPE_DIRTY = 1,
};

enum {
	QBITMAP_IN_USE = 1 << 0,
	QBITMAP_AUTO = 1 << 1,
	QBITMAP_EXTRA_COMPATIBLE = 1 << 2,
	QBITMAP_FLAGS = 7,
};

#define QBITMAP_ENTRY_OFFSET   UINT64_C(0x00fffffffffffe00)
#define QBITMAP_ENTRY_RESERVED UINT64_C(0xff000000000001fe)
#define QBITMAP_ENTRY_ONES     UINT64_C(1)

/* The extension's data. */
struct qbitmap_ext {
	uint32_t count;
	uint64_t dir_bytes, dir_offset;
};

/* One entry of the directory; the pointers lead into it. */
struct qbitmap_entry {
	uint64_t table;
	uint32_t entries, flags;
	uint8_t type, shift;
	uint16_t name_len;
	uint32_t extra_len;
	const uint8_t *extra, *name;
	uint64_t bytes; /* of the entry, padded */
};

/* What block_bitmap.stored points to. */
struct qbitmap {
	uint64_t table;
	uint32_t entries;
	uint32_t flags; /* as the disk has them */
	uint64_t at;	/* in the directory */
	uint32_t extra_len;
	uint8_t *extra;
	/* Written, and not yet in the directory. */
	uint64_t new_table;
	uint32_t new_entries;
};

/* bitmap_dir.c: false with *what is wrong */
bool qbitmap_ext_parse(struct qbitmap_ext *x, const uint8_t *data, uint32_t len,
		       uint64_t cluster_size, uint64_t file_size, const char **what);
void qbitmap_ext_put(uint8_t data[QBITMAP_EXT_BYTES], const struct qbitmap_ext *x);
bool qbitmap_entry_parse(struct qbitmap_entry *e, const uint8_t *dir, uint64_t bytes, uint64_t at,
			 const char **what);
/* What an entry says against the image's limits; size: of the disk. */
bool qbitmap_entry_check(const struct qbitmap_entry *e, uint64_t cluster_size, uint64_t file_size,
			 uint64_t size, const char **what);
uint64_t qbitmap_entry_bytes(uint64_t name_len, uint64_t extra_len);
void qbitmap_entry_put(uint8_t *p, const struct block_bitmap *bm, const struct qbitmap *q);

/* bitmap.c */
extern const struct block_bitmap_ops qcow2_bitmap_ops;
/* Of x in the first cluster. */
bool qcow2_bitmaps_open(struct qcow2 *s, const struct qcow2_extensions *x, const uint8_t *first,
			const struct block_open *how, struct error **err);
void qcow2_bitmaps_close(struct qcow2 *s);
/* Opened for writing: what nobody keeps up to date goes from the header. */
int qcow2_bitmaps_tidy(struct qcow2 *s);
/* The same for those that store() is to change, and waiting. */
int qcow2_bitmaps_mark_now(struct qcow2 *s, bool (*which)(const struct block_bitmap *bm));
/* All go; for a version of the format that has none. */
int qcow2_bitmaps_drop(struct qcow2 *s);
/* Before the disk's size changes: they are in memory then, and stored anew. */
bool qcow2_bitmaps_may_resize(struct qcow2 *s, struct error **err);
/* Clusters that one on a disk of that size takes. */
uint64_t qbitmap_clusters(const struct block_bitmap *bm, uint64_t cluster_size);

struct qcounts;
/* bitmap_store.c: 0 or -errno. Nothing else is under way, and no metadata is dirty. */
int qbitmap_load(struct qcow2 *s, struct block_bitmap *bm);
/* To a new table, which is not yet in the directory, or into the one that there is. */
int qbitmap_write(struct qcow2 *s, struct block_bitmap *bm);
/* Counts what a table takes up. */
int qbitmap_count(struct qcow2 *s, struct qcounts *c, uint64_t table, uint32_t entries);

/* extension.c: the header names x from now on, durably, or (NULL) no bitmaps. The autoclear bit
 * follows. */
int qcow2_put_bitmaps(struct qcow2 *s, const struct qbitmap_ext *x);
/* Whether the header has room for the extension. */
bool qcow2_bitmaps_fit(struct qcow2 *s);

#endif
