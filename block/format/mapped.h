/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the foreign image formats have in common: a disk cut into units, and a table that says where
 * in the file each unit is. A format's driver parses the header and answers two questions (where
 * a unit's entry is, what an entry says); requests, allocation, caching and the order of writes are
 * here, once.
 *
 *   mapped.c   requests: steps that run to their end, and waits between them
 *   pages.c    tables in memory, page by page, and writing them back
 *   mapped_check.c  checking
 *
 * Why no byte is lost
 * -------------------
 *  1. New units are appended: behind m->end nothing is that an entry refers to. A unit is written
 *     whole (the request's bytes, what was below, or zeroes) before its entry changes in memory.
 *  2. Entries reach the file in a commit only, which a flush is: sync (the units are durable), then
 *     sectors marked "first" and the tail, sync, then all other changed sectors, sync. "First" is
 *     what must be true before an entry counts: how many blocks are in use (vdi); the tail is the
 *     footer behind the last block (vpc). Without either, that round is left out.
 *  3. From before the first sync to behind the last write no entry changes and no unit is handed
 *     out (m->frozen): what is written refers to nothing that was not synced.
 *  4. Entries lie inside one sector, which is written atomically. So a power cut leaves entries
 *     that were not written yet: space at the end of the file that nobody refers to, and old
 *     contents for what was never flushed.
 *  5. When a write fails the sectors stay dirty and the next commit writes them again.
 *
 * Thread: the node's loop. An entry is checked against the file's length when it is used, which is
 * what bounds it; tables that are read whole at open are bounded before that by their format.
 */
#ifndef BLOCK_FORMAT_MAPPED_H
#define BLOCK_FORMAT_MAPPED_H

#include "block/check.h"
#include "block/driver.h"
#include "block/wait.h"

enum { MAPPED_PAGE = 4096, MAPPED_PAGES = 512, MAPPED_HASH = 128, MAPPED_SECTORS = 8 };

enum mapped_type {
	MAPPED_NONE,   /* as the backing file has it, or zero */
	MAPPED_ZERO,   /* zero whatever is below */
	MAPPED_DATA,   /* in the file */
	MAPPED_PACKED, /* compressed in the file */
};

/* Guest bytes that are alike. */
struct mapped_run {
	enum mapped_type type;
	uint64_t bytes; /* from the offset asked for */
	uint64_t host;	/* DATA: of that offset's byte; PACKED: of the packed data's first */
	/* PACKED: how long it is, and the guest range that it unpacks to. */
	uint32_t packed;
	uint64_t start, size;
	unsigned method;
};

struct mapped;

struct mapped_ops {
	/* Where in the file unit's entry is; *at 0: in a table that is not there, whose units are
	 * MAPPED_NONE. 0, or -EIO for units behind the table's end. Does not wait. */
	int (*entry_at)(struct mapped *m, uint64_t unit, uint64_t *at);
	/* An entry's meaning: type, host and the PACKED fields, for the unit's first byte; bytes is
	 * set. Checks it, with mapped_inside(). 0 or -EIO. */
	int (*decode)(struct mapped *m, uint64_t unit, const uint8_t *entry,
		      struct mapped_run *run);
	/* Instead of both: the run at offset, for formats without a plain table. bytes of the run
	 * may be more than asked for. */
	int (*find)(struct mapped *m, uint64_t offset, struct waiter *w, struct mapped_run *run);

	/* Writing, NULL for formats that are only read. Enters a unit that is wholly at host; all
	 * pages are fetched before anything is changed, so that -EAGAIN can be run again. */
	int (*link)(struct mapped *m, uint64_t unit, uint64_t host, struct waiter *w);
	/* Before a write in place, of bytes inside one unit. Waits for m->thawed if it has
	 * something to change while m->frozen. NULL: nothing to do. */
	int (*touch)(struct mapped *m, uint64_t offset, uint64_t bytes, uint64_t host,
		     struct waiter *w);
	/* Instead of link's unit: a unit's bytes, in, packed into out, which has room for twice as
	 * many; how many, or -errno. What is packed is written once. NULL: units are plain. */
	int64_t (*pack)(struct mapped *m, uint64_t unit, const uint8_t *in, uint8_t *out);
	/* PACKED: run->size bytes into out. Any input; -EIO if it is not exactly that. */
	int (*unpack)(struct mapped *m, const struct mapped_run *run, const uint8_t *in,
		      uint8_t *out);
};

struct mapped_page {
	uint64_t offset; /* in the file, a multiple of MAPPED_PAGE */
	uint8_t data[MAPPED_PAGE];
	bool ready;
	uint8_t dirty, first; /* a bit for each sector */
	uint8_t writing;      /* sectors in the write under way; writes of a page are one by one */
	struct mapped_page *hash_next, *older, *newer;
	struct waitq waiters;
	struct mapped *m;
	struct iovec iov;
	struct block_req *req;
};

enum mapped_phase { PHASE_IDLE, PHASE_SYNC, PHASE_FIRST, PHASE_SYNC_FIRST, PHASE_REST, PHASE_LAST };

struct mapped {
	struct block_node *node, *file;
	const struct mapped_ops *ops;
	uint64_t unit;	      /* bytes of the disk that an entry stands for */
	unsigned entry_bytes; /* 4 or 8; entries are aligned to that */
	uint64_t data_start;  /* no unit is below */

	/* Writing */
	uint64_t end;	    /* where the next unit's head goes */
	uint32_t head;	    /* bytes in front of each unit */
	uint8_t *head_data; /* what they are; NULL without */
	uint64_t fresh; /* what lies behind was never written: it reads as zero, if that is known */
	uint8_t *tail;	/* 512 bytes that belong at end; NULL without */
	bool tail_dirty;

	/* Pages */
	struct mapped_page *hash[MAPPED_HASH], *oldest, *newest;
	unsigned pages, dirty_pages;
	struct waitq crowded;

	enum mapped_phase phase;
	bool frozen;
	unsigned writes; /* of this phase, under way */
	int commit_error;
	struct block_req *commit_req, *tail_req;
	struct iovec tail_iov;
	struct waitq commit_now, commit_next, thawed;

	struct range_set ranges; /* of the disk */
	struct waitq runq;
	bool running;

	/* What was unpacked last. */
	uint8_t *packed, *unpacked;
	size_t packed_room, unpacked_room;
	uint64_t unpacked_start, unpacked_bytes; /* 0 bytes: nothing */
	bool unpacking;
	struct waitq unpack_wait;
};

/* A request's state between its steps: struct block_driver's req_size. For mapped.c only. */
enum mapped_step { STEP_GO, STEP_WAIT };
struct mapped_req {
	struct block_req *req;
	struct mapped *m;
	struct waiter waiter;
	struct range range;
	bool ranged, unpacks;
	bool taken; /* host is a new unit's, which nothing refers to yet */
	bool fresh;
	enum mapped_step (*step)(struct mapped_req *q);
	int ret; /* of the I/O before this step */
	uint64_t offset, left;
	size_t at;	/* bytes of the request that are done */
	uint64_t chunk; /* bytes of the piece in work */
	struct mapped_run run;
	uint64_t host;		 /* the new unit's head */
	uint64_t fill, fill_end; /* what is still to be copied from below */
	uint64_t piece;
	uint8_t *bounce;
	struct iovec iov;
};
#define MAPPED_REQ_SIZE sizeof(struct mapped_req)

/* m is zeroed, and in node->opaque (first, so that the driver's own may follow). The caller has set
 * unit, entry_bytes, data_start; for writing end, head, tail. */
void mapped_init(struct mapped *m, struct block_node *node, const struct mapped_ops *ops);

/* For struct block_driver. */
void mapped_close(struct block_node *node);
void mapped_submit(struct block_node *node, struct block_req *req);
int mapped_status(struct block_node *node, uint64_t offset, uint64_t bytes,
		  struct block_extent *out);


/* mapped_check.c: a check under way. */
struct mapped_check {
	struct mapped *m;
	struct block_check *r;
	const struct block_check_out *out;
	uint64_t table_units; /* of each table, if there is more than one; else 0 */
	bool repair;	      /* entries that lead nowhere become MAPPED_NONE */
	uint64_t next;	      /* where the next unit is expected */
	struct mapped_span {
		uint64_t start, bytes;
	} * spans;
	size_t count, room;
};
void mapped_check_say(const struct mapped_check *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* One more finding: "Repairing cluster 5 is outside image", counted as fixed then, or "ERROR ...". */
void mapped_check_found(struct mapped_check *c, bool repaired, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The units' entries, counted in r; what was repaired is on the disk then. */
int mapped_check_units(struct mapped_check *c);
/* One more range of the file that is in use. */
int mapped_check_span(struct mapped_check *c, uint64_t start, uint64_t bytes);
/* Counts ranges used twice as corruptions; how many bytes are used. */
uint64_t mapped_check_overlaps(struct mapped_check *c);
void mapped_check_end(struct mapped_check *c);
/* All of it, for formats with nothing more; result has corruptions alone. allocated may be NULL. */
int mapped_check(struct block_node *node, uint64_t table_units, struct block_check *result,
		 const struct block_check_out *out, uint64_t *allocated);
/* For struct block_driver. */
void mapped_info(struct block_node *node, struct block_info *info);

/* Whether an entry's host range may be what it says it is: behind the tables, begun before the
 * file's end (the last unit of a file may be cut short, and reads as zero from there on). */
bool mapped_inside(const struct mapped *m, uint64_t host);
/* The file's first n bytes. */
bool mapped_read_header(struct block_node *node, uint8_t *buf, size_t n, struct error **err);
/* Opens as reading only: an image that can only be read, opened for writing, is refused or, with
 * auto-read-only or for a check, which may repair its tables in the file, taken. */
bool mapped_read_only(struct block_node *node, const struct block_open *how, struct error **err);
/* Reads a table into memory that the caller frees; NULL with err. bytes is bounded by the caller
 * and is inside the file here. */
void *mapped_read_table(struct block_node *node, uint64_t offset, uint64_t bytes, const char *what,
			struct error **err);

/* pages.c: the bytes at that offset of the file, in memory, good until the step's end; they do not
 * reach beyond the page. -EAGAIN: w is queued. */
int mapped_page(struct mapped *m, uint64_t offset, struct waiter *w, struct mapped_page **out);
static inline uint8_t *mapped_at(struct mapped_page *page, uint64_t offset)
{
	return page->data + (offset - page->offset);
}
/* The sector with that offset was changed. Not while m->frozen. first: to be written and synced
 * before the others. */
void mapped_dirty(struct mapped *m, struct mapped_page *page, uint64_t offset, bool first);
/* Those bytes of the file are now what data has (NULL: no matter). */
void mapped_replace(struct mapped *m, uint64_t offset, const uint8_t *data, uint64_t bytes);
bool mapped_is_dirty(const struct mapped *m);
void mapped_commit(struct mapped *m, struct waiter *w);
void mapped_pages_free(struct mapped *m);
void mapped_run_waiters(struct mapped *m);
struct block_req *mapped_file_req(struct mapped *m, void *ctx,
				  void (*done)(struct block_req *req, int ret));

#endif
