/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks: nodes that stack (virtio-blk -> throttle -> qcow2 -> file), one way in and one way out.
 *
 * A node belongs to one event loop; its functions are called on that loop's thread, or while nobody
 * runs the loop. It moves to another loop only by block_set_loop(), which drains it first.
 *
 *   block_submit(req)   starts a request; never calls done from inside
 *   req->done(req, ret) exactly once, on the node's loop; ret 0 or -errno
 *
 * Requests in flight at the same time may be carried out in any order. A flush makes every write
 * that was done before the flush was submitted durable. Offsets and lengths are bytes; a node with
 * block_limits().request_alignment > 1 takes care of unaligned requests itself.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/core/error.h"
#include "vmm/core/evloop.h"
#include "vmm/core/notifier.h"
#include "vmm/core/opts.h"

enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,
	BLOCK_DISCARD,	    /* the bytes may become anything readable; a hint */
	BLOCK_WRITE_ZEROES, /* the bytes read as zero afterwards; iov unused */
};

enum {
	BLOCK_FUA = 1 << 0,	  /* WRITE, WRITE_ZEROES: durable when done */
	BLOCK_MAY_UNMAP = 1 << 1, /* WRITE_ZEROES: space may be given back */
	/* WRITE: stored compressed. Whole clusters of the image; -ENOTSUP if the format cannot. */
	BLOCK_COMPRESSED = 1 << 2,
	/* WRITE, WRITE_ZEROES, DISCARD: what is read there stays what it was. */
	BLOCK_UNCHANGED = 1 << 3,
	/* WRITE_ZEROES: -ENOTSUP rather than writing them one by one. */
	BLOCK_NO_FALLBACK = 1 << 4,
};

struct block_node;

/*
 * Embedded by the submitter, last in its struct, with block_req_size(node) bytes in all: the
 * drivers' context for the request lies behind it, so that no I/O allocates. The submitter fills op
 * .. ctx each time and leaves the struct, the iov array and the buffers alone until done.
 */
struct block_req {
	struct block_node *node;
	enum block_op op;
	uint32_t flags;
	uint64_t offset, bytes;	 /* FLUSH: both 0 */
	const struct iovec *iov; /* READ, WRITE: bytes in all */
	int iovcnt;
	void (*done)(struct block_req *req, int ret);
	void *ctx;

	/* The block layer's own; block_submit() sets it. */
	enum block_op act; /* op and flags as the node's policy made them */
	uint32_t act_flags;
	size_t iov_skip; /* bytes of iov that come before offset */
	int ret;
	struct block_req *next; /* completions that wait for the loop */
	_Alignas(16) unsigned char driver[];
};

/* sizeof(struct block_req) and what the drivers below need. Changes only while drained. */
size_t block_req_size(const struct block_node *node);
void block_submit(struct block_req *req);

/*
 * Opens what opts name (-blockdev's keys, or -drive's file, format, cache, aio, ...;
 * block/options.c has the table) with all nodes below it. The reference belongs to the caller.
 */
struct block_node *block_open(struct evloop *loop, struct opts *opts, struct error **err);
/* The same for the drive id of a machine, whose opts may have limits (block/throttle.h). */
struct block_names;
struct block_node *block_open_drive(struct evloop *loop, const char *id, struct opts *opts,
				    const struct block_names *names, struct error **err);
/*
 * The same with -blockdev's reading of the keys: "driver" is needed, and "file", "backing" may name
 * a node, which find() returns (borrowed; NULL if there is none). That node becomes the new one's
 * own.
 */
struct throttle_groups;
struct objects;
struct block_names {
	struct block_node *(*find)(void *opaque, const char *node_name); /* -drive has none */
	void *opaque;
	struct throttle_groups *throttles; /* block/throttle.h; NULL: there are none */
	struct objects *objects;	   /* vmm/core/objects.h; NULL: there are none */
};
struct block_node *block_open_blockdev(struct evloop *loop, struct opts *opts,
				       const struct block_names *names, struct error **err);
void block_ref(struct block_node *node);
/* The last reference closes: flushes metadata, releases locks. Drained by then. */
void block_unref(struct block_node *node);

/* Waits until nothing is in flight in node or below; runs the loop meanwhile. No new requests may
 * be submitted by then. */
void block_drain(struct block_node *node);
/* Touches both loops: called on the thread of one while the other stands still (waits in
 * evloop_call(), say) or is nobody's. Already drained unless the old loop is the caller's. */
void block_set_loop(struct block_node *node, struct evloop *loop);

/* For set-up, tools and slow devices: submits and runs the node's loop until done. 0 or -errno. */
int block_pread(struct block_node *node, uint64_t offset, void *buf, size_t bytes);
int block_pwrite(struct block_node *node, uint64_t offset, const void *buf, size_t bytes,
		 uint32_t flags);
int block_flush(struct block_node *node);
int block_zero(struct block_node *node, uint64_t offset, uint64_t bytes, uint32_t flags);
int block_discard(struct block_node *node, uint64_t offset, uint64_t bytes);

struct block_limits {
	uint32_t request_alignment; /* bytes; 1: any */
	uint32_t max_iov;
	uint64_t max_transfer;	    /* bytes in one read or write */
	uint32_t discard_alignment; /* bytes; what discards should be aligned to */
	uint64_t max_discard, max_write_zeroes;
	uint32_t physical_block; /* bytes; the host's, for topology */
	bool discard, write_zeroes;
};

uint64_t block_length(const struct block_node *node); /* bytes, multiple of 512 */
bool block_read_only(const struct block_node *node);
bool block_encrypted(const struct block_node *node); /* what the image's file has of the disk */
const struct block_limits *block_limits(const struct block_node *node);
const char *block_name(const struct block_node *node);	 /* node-name */
const char *block_format(const struct block_node *node); /* "qcow2" */
const char *block_filename(const struct block_node *node);
/* data: the node. On the node's loop, after the size changed. */
struct notifier_list *block_resize_notifiers(struct block_node *node);
/* -drive cache=, and virtio's config-wce: with writeback off every write is FUA. */
void block_set_writeback(struct block_node *node, bool writeback);
bool block_writeback(const struct block_node *node);

/*
 * New limits for a node that works (a drive's top), by -drive's keys: without any rate it has none
 * any more. They are those of its group, or of the one that "group" names, made if need be; the
 * first time of one called id.
 */
bool throttle_change(struct throttle_groups *groups, struct block_node *node, const char *id,
		     struct opts *opts, struct error **err);
/* Its limits by -drive's short keys: the six rates always, the rest if it is there. */
void throttle_describe(struct block_node *node,
		       void (*put)(void *opaque, const char *key, uint64_t value), void *opaque);
/* Or NULL. */
const char *throttle_group_of(const struct block_node *node);

/*
 * Who hears of an image that proved corrupt. It fails everything from then on, and is marked corrupt
 * on the disk where that can be, so that nobody opens it for writing any more. Called on the node's
 * loop, from inside the block layer. watch outlives the node, or is taken away (NULL).
 */
struct block_watch {
	void (*corrupted)(struct block_watch *watch, const struct block_node *node,
			  const char *message);
};
void block_set_watch(struct block_node *node, struct block_watch *watch); /* and all below it */

/*
 * The tray of a CD-ROM drive of the host's below node. LOOK finds out whether the disc was changed.
 * OPEN, CLOSE, LOOK: whether there is a disc now (block_length() is its), 1 or 0. LOCK, UNLOCK: 0.
 * -ENOTSUP if there is no such drive, or another errno. On the node's loop.
 */
enum block_tray {
	BLOCK_TRAY_OPEN,
	BLOCK_TRAY_CLOSE,
	BLOCK_TRAY_LOCK,
	BLOCK_TRAY_UNLOCK,
	BLOCK_TRAY_LOOK,
};
int block_tray(struct block_node *node, enum block_tray action);

/* What to do when the host fails a request. */
enum block_on_error { BLOCK_ERR_REPORT, BLOCK_ERR_IGNORE, BLOCK_ERR_STOP, BLOCK_ERR_ENOSPC };
/* ENOSPC resolved: STOP for -ENOSPC, else REPORT. */
enum block_on_error block_error_action(enum block_on_error policy, int ret);

/*
 * A guest's drive: the medium, which may be absent or change, and the policy. -drive makes it, one
 * device takes it. Main thread; node is used on the node's loop.
 */
struct drive {
	char *id;
	struct block_node *node; /* NULL: no medium */
	bool cdrom;		 /* media=cdrom */
	bool removable_locked;	 /* the guest locked the tray */
	enum block_on_error rerror, werror;
	char *serial;	      /* or NULL */
	struct throttle_groups *throttles; /* the machine's, or NULL */
	const char *taken_by; /* the device's label, NULL while free */
	/* The medium changed: node is new. Set by the device that took the drive; NULL if it
	 * cannot. */
	void (*medium_changed)(struct drive *drive, void *opaque);
	void *opaque;
	struct drive *next;
};

#endif
