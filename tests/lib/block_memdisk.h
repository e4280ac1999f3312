/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk in memory for tests of the block layer: completes requests in random order, fails them
 * when told, and records writes and flushes so that a power cut can be played at any moment.
 */
#ifndef TESTS_LIB_BLOCK_MEMDISK_H
#define TESTS_LIB_BLOCK_MEMDISK_H

#include "block/driver.h"

enum mem_event_type { MEM_WRITE, MEM_WRITE_DONE, MEM_FLUSH, MEM_FLUSH_DONE, MEM_MARK };

struct mem_event {
	enum mem_event_type type;
	uint32_t id; /* of the write or flush; for a mark: the test's own */
	uint64_t offset, bytes;
	uint8_t *data; /* MEM_WRITE: what is written */
	uint64_t at;   /* its number among all events of the disks that share a clock */
};

struct memdisk {
	struct block_node *node;
	uint8_t *data;
	uint64_t size;
	unsigned seed;
	bool record;
	uint64_t ops;	  /* requests so far */
	uint64_t fail_at; /* the first that fails; 0: none */
	int fail_with;	  /* -EIO */
	bool fail_on;	  /* all that follow fail as well */
	/* Borrowed; if there are any, what is opened upon it is encrypted with the secret "s". */
	struct objects *objects;
	uint64_t reads, writes, flushes, discards;

	uint64_t *clock; /* borrowed; NULL: of its own */
	struct mem_event *events;
	size_t count, room;
	uint32_t next_id;
	/* Requests like that stay until memdisk_release(): not carried out yet, or (reads) only not
	 * completed. */
	bool (*holds)(const struct block_req *req);
	struct block_req *held[64];
	unsigned held_count;
	struct block_req *pending[1024];
	unsigned pending_count;
	struct ev_work pump;
};

/* size bytes of room; the image, length bytes of it, is copied (NULL: zeroes). */
struct memdisk *memdisk_new(struct evloop *loop, const void *image, uint64_t length, uint64_t size);
/* As memdisk_new() with the same size, without the price of new memory; nothing is recorded. */
void memdisk_again(struct memdisk *m, const void *image, uint64_t length);
/* The node's reference is given up; the node is closed by then or is closed here. */
void memdisk_free(struct memdisk *m);
/* What it held goes on, and it holds nothing more. */
void memdisk_release(struct memdisk *m);
void memdisk_mark(struct memdisk *m, uint32_t id);

/* An open qcow2 (or other) node on m; backing may be NULL. Opens as the flags say. */
struct block_node *memdisk_open(struct memdisk *m, const char *driver, struct memdisk *backing,
				uint32_t flags, struct error **err);

/* A new image's bytes, made by block_create_qcow2(). Freed by the caller. */
struct block_create;
uint8_t *memdisk_make_qcow2(const struct block_create *c, uint64_t *length);

#endif
