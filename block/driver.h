/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a block driver is, for the files of this room only: consumers see block/block.h.
 *
 * A driver's submit() starts a request and returns; the request ends with block_complete(), from
 * inside submit() or later on the node's loop, exactly once. The driver's context for a request is
 * block_ctx(req), drv->req_size bytes, uninitialised; behind it lies room for one request to a
 * child, block_child_req(req), which serves one child at a time.
 *
 * open() and close() run on a private loop that nobody else uses, so they may use block_pread() and
 * its like on children. All of a node's functions run on the node's loop (or while nobody runs it).
 */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include <sys/types.h>

#include "block/block.h"
#include "block/create.h"
#include "vmm/core/iov.h"
#include "vmm/core/util.h"

#define BLOCK_CHAIN_MAX	 200 /* nodes below one another */
#define BLOCK_PROBE_SIZE 2048
#define BLOCK_REQ_ALIGN	 16

enum {
	BLOCK_OPEN_RDWR = 1 << 0,
	BLOCK_OPEN_NO_BACKING = 1 << 1,	 /* info: opens nothing that the image names */
	BLOCK_OPEN_CHECK = 1 << 3,	 /* a dirty or corrupt image opens for repair */
	BLOCK_OPEN_AUTO_RO = 1 << 4,	 /* falls back to reading if writing is not allowed */
	BLOCK_OPEN_BACKING = 1 << 5,	 /* is somebody's backing file */
	BLOCK_OPEN_NO_WARN = 1 << 6,	 /* a guess of raw is not worth a warning */
	BLOCK_OPEN_FORCE_SHARE = 1 << 7, /* takes no locks against writers */
	BLOCK_OPEN_DIRECT = 1 << 8,	 /* cache.direct, and below the default for children */
	BLOCK_OPEN_NO_FLUSH = 1 << 9,
	BLOCK_OPEN_WRITETHROUGH = 1 << 10, /* the top node starts with writeback off */
	BLOCK_OPEN_RESIZE = 1 << 11,	   /* the format above may grow the file */
	BLOCK_OPEN_PROBED = 1 << 12,	   /* the format was guessed */
	BLOCK_OPEN_BLOCKDEV = 1 << 13,	   /* -blockdev's reading of "file" */
	BLOCK_OPEN_UNMAP = 1 << 14,	   /* discard=unmap unless it says otherwise */
	BLOCK_OPEN_NO_IO = 1 << 15,	   /* metadata is enough: no password is asked for */
};

/* In act_flags of a read that is done: some of it came from the backing file. */
#define BLOCK_FROM_BELOW (UINT32_C(1) << 31)

/* A file that is open further up the chain, to find loops. */
struct block_chain {
	const struct block_chain *up;
	dev_t dev;
	ino_t ino;
};

struct block_open {
	uint32_t flags; /* BLOCK_OPEN_* */
	int aio;	/* enum block_aio */
	int depth;
	const struct block_names *names;
	const struct block_chain *up;
	struct evloop *loop; /* private */
	struct evloop *home; /* where named nodes go back to if it fails */
};

enum block_aio { BLOCK_AIO_DEFAULT, BLOCK_AIO_THREADS, BLOCK_AIO_NATIVE, BLOCK_AIO_IO_URING };

/* What a range reads as, and from where; for map, compare and convert. */
struct block_extent {
	uint64_t bytes; /* from the offset asked for; never 0 inside the node */
	bool allocated; /* in this node, not below */
	bool zero;	/* reads as zero */
	bool data;	/* takes up space */
	bool compressed;
	bool has_offset;
	uint64_t offset; /* in file */
};

/* What formats tell their file that they begin, for rules of blkdebug (filter/blkdebug.c). */
enum block_event {
	BLOCK_EV_NONE,
	BLOCK_EV_L1_UPDATE,
	BLOCK_EV_L2_LOAD,
	BLOCK_EV_L2_UPDATE,
	BLOCK_EV_L2_ALLOC_COW_READ,
	BLOCK_EV_L2_ALLOC_WRITE,
	BLOCK_EV_READ_AIO,
	BLOCK_EV_READ_BACKING_AIO,
	BLOCK_EV_READ_COMPRESSED,
	BLOCK_EV_WRITE_AIO,
	BLOCK_EV_WRITE_COMPRESSED,
	BLOCK_EV_COW_READ,
	BLOCK_EV_COW_WRITE,
	BLOCK_EV_REFTABLE_LOAD,
	BLOCK_EV_REFTABLE_UPDATE,
	BLOCK_EV_REFBLOCK_LOAD,
	BLOCK_EV_REFBLOCK_UPDATE,
	BLOCK_EV_REFBLOCK_ALLOC,
	BLOCK_EV_REFBLOCK_ALLOC_WRITE,
	BLOCK_EV_REFBLOCK_ALLOC_WRITE_TABLE,
	BLOCK_EV_REFBLOCK_ALLOC_SWITCH_TABLE,
	BLOCK_EV_CLUSTER_ALLOC,
	BLOCK_EV_CLUSTER_FREE,
	BLOCK_EV_FLUSH_TO_OS,
	BLOCK_EV_FLUSH_TO_DISK,
	BLOCK_EV_PWRITEV,
	BLOCK_EV_PWRITEV_ZERO,
	BLOCK_EV_PWRITEV_DONE,
};

/* Snapshots inside the image, as in block/snapshot.h; sn is an entry of list(). */
struct block_snapshot;
struct block_snapshot_ops {
	const struct block_snapshot *(*list)(const struct block_node *node, size_t *count);
	bool (*create)(struct block_node *node, const struct block_snapshot *info,
		       struct error **err);
	bool (*apply)(struct block_node *node, const struct block_snapshot *sn, struct error **err);
	bool (*remove)(struct block_node *node, const struct block_snapshot *sn,
		       struct error **err);
	bool (*show)(struct block_node *node, const struct block_snapshot *sn, struct error **err);
};
/* Bitmaps that the image keeps, as in block/bitmap.h. */
struct block_bitmap;
struct block_bitmap_ops {
	bool (*supported)(const struct block_node *node);
	/* Whether there is room for one more; the error says why not. */
	bool (*can_add)(struct block_node *node, const char *name, uint64_t granularity,
			struct error **err);
	/* What the image has of it goes into bm->dirty. */
	int (*load)(struct block_node *node, struct block_bitmap *bm);
	/* It is no longer on the list: from the image as well, with all that store() does. */
	int (*remove)(struct block_node *node, struct block_bitmap *bm);
	int (*store)(struct block_node *node);
	/* The list, or who is enabled, has changed. */
	void (*changed)(struct block_node *node);
};
/* block/create.h */
struct block_create;
struct block_create_option;

/* block/check.h */
struct block_check;
struct block_check_out;

/* For info and QMP. */
struct block_info {
	uint64_t cluster_size; /* 0: has none */
	bool dirty;	       /* was not closed properly */
	bool encrypted;
	struct json_t *specific; /* of the format: {"type": ..., "data": ...}, the caller's; or NULL */
};

struct block_driver {
	const char *name;
	size_t node_size; /* of the driver's state; zeroed */
	size_t req_size;  /* of its context in a request */
	bool protocol;	  /* opens a file name, not a child */
	bool compresses;  /* takes BLOCK_COMPRESSED */
	bool fast_zeroes; /* obeys BLOCK_NO_FALLBACK; without, such requests fail */
	bool filter;	  /* what file is, byte for byte */
	const char *child; /* what options call its file; NULL: "file" */
	/* Of the first BLOCK_PROBE_SIZE bytes (fewer in a short file). NULL: never guessed. */
	bool (*probe)(const uint8_t *buf, size_t len);
	bool (*open)(struct block_node *node, const struct block_open *how, struct opts *opts,
		     struct error **err);
	/* Nothing is in flight. Metadata is written here; a failure is logged. */
	void (*close)(struct block_node *node);
	void (*submit)(struct block_node *node, struct block_req *req);
	/* Somebody drains: requests that are only held back go on. NULL: holds none back. */
	void (*hurry)(struct block_node *node);
	/* What the format above is about to do. NULL: does not care. */
	void (*event)(struct block_node *node, enum block_event event);
	/* NULL: has none. */
	int (*tray)(struct block_node *node, enum block_tray action);
	/* The node's loop comes and goes. NULL: does not care. */
	void (*attach)(struct block_node *node, struct evloop *loop);
	void (*detach)(struct block_node *node);
	/* Changes the length; synchronous, drained. */
	int (*truncate)(struct block_node *node, uint64_t bytes, struct error **err);
	/* What lies from there to the end, new and nothing but zeroes, gets its place on the disk.
	 * -ENOTSUP: not in that way. NULL: in none. */
	int (*preallocate)(struct block_node *node, uint64_t from, enum block_prealloc mode);
	/* Synchronous; NULL: all data. */
	int (*status)(struct block_node *node, uint64_t offset, uint64_t bytes,
		      struct block_extent *out);
	/* Bytes on the host's disk, or -errno. */
	int64_t (*allocated)(struct block_node *node);
	/* Changes what the header says; synchronous, drained. backing NULL: none from now on. The node's
	 * own backing stays what it is. */
	bool (*change_backing)(struct block_node *node, const char *backing, const char *format,
			       struct error **err);
	/* The options of create_options that are marked for it; force: what loses data, too. */
	bool (*amend)(struct block_node *node, struct opts *opts, bool force,
		      const struct objects *objects, struct error **err);
	const struct block_snapshot_ops *snapshots; /* NULL: the format has none */
	/* Reads or writes a machine's state behind the disk; synchronous, drained. NULL: no place. */
	int (*vm_state)(struct block_node *node, bool write, uint64_t offset, void *buf,
			size_t bytes);
	const struct block_bitmap_ops *bitmaps;	    /* NULL: the format keeps none */
	/* Whether the image is right, and (BLOCK_FIX_*) making it so. 0, -ENOTSUP if it cannot fix, or
	 * -errno when it could not be carried through. NULL: the format has nothing to check. */
	int (*check)(struct block_node *node, unsigned fix, struct block_check *result,
		     const struct block_check_out *out);
	/* What its header says beyond the disk's size; NULL: nothing. */
	void (*info)(struct block_node *node, struct block_info *info);
	/* A new image file, main thread, synchronous; NULL: this driver makes none. */
	bool (*create)(const char *filename, const struct block_create *c, struct error **err);
	const struct block_create_option *create_options; /* in print order; ends with name NULL */
};

struct block_node {
	const struct block_driver *drv;
	struct evloop *loop;
	void *opaque; /* the driver's state */
	struct block_watch *watch;    /* or NULL */
	struct throttle_member *gate; /* limits (filter/throttle.h), or NULL */
	struct block_node *file, *backing;
	struct block_node *data; /* where a format keeps the disk's bytes, if not in file */
	/* An image of several files: these, closed with it. */
	struct block_node **extents;
	unsigned extent_count;
	char *name;
	char *filename;	    /* as given; of the lowest file for a format */
	char *backing_name; /* as the header has it, or NULL */
	char *backing_format;
	char *key_secret;	/* the secret that unlocked it, or NULL; and the option for that: */
	const char *key_option; /* "encrypt.key-secret" */
	bool read_only;
	bool probed; /* the format was guessed: sector 0 is guarded */
	bool writeback;
	bool ignore_discard; /* discard=ignore */
	bool growable; /* a format's file: what lies past the end is right, and reads as zero */
	bool owned;    /* some node's child */
	bool implicit; /* a filter for -drive's keys: it passes for file */
	bool no_flush;
	bool packs;	    /* takes compressed writes of whole units only, each once */
	bool written;	    /* since it was opened */
	bool zero_past_end; /* what lies beyond the end reads as zero once it is inside */
	int detect_zeroes;  /* 0 off, 1 on, 2 unmap */
	uint64_t length;
	struct block_limits limits;
	size_t req_bytes; /* block_req_size() */
	struct notifier_list resized;
	struct block_bitmap *bitmaps; /* block/bitmap.h; the format frees what it stored */

	unsigned refs;
	unsigned in_flight; /* requests and the driver's own jobs */
	unsigned submitting;
	struct block_req *deferred, **deferred_tail;
	struct ev_work deferred_work;
};

/* node.c */
struct block_node *block_node_new(const struct block_driver *drv, struct evloop *loop);
void block_node_free(struct block_node *node); /* the struct alone: a node that never opened */
void block_abandon(struct block_node *node, struct evloop *home);
void block_init_req_bytes(struct block_node *node);
/* A node of drv above node, for -drive's keys; node becomes its own. Not yet opened by drv. */
struct block_node *block_filter_above(const struct block_driver *drv, struct block_node *node);

/* block.c */
void block_deferred_init(struct block_node *node);
void block_complete(struct block_req *req, int ret);
/* For drivers: as block_submit(), from skip bytes into the iov. */
void block_submit_at(struct block_req *req, size_t skip);
/* A driver's job that block_drain() must wait for. */
static inline void block_busy(struct block_node *node)
{
	node->in_flight++;
}
static inline void block_idle(struct block_node *node)
{
	node->in_flight--;
}
/* Any operation, with the node's loop run until it is done. */
int block_do(struct block_node *node, enum block_op op, uint64_t offset, const struct iovec *iov,
	     int iovcnt, uint64_t bytes, uint32_t flags);
int block_truncate(struct block_node *node, uint64_t bytes, struct error **err);
/* The same, and what is new gets its place. */
int block_grow(struct block_node *node, uint64_t bytes, enum block_prealloc mode,
	       struct error **err);
int block_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode);
/* Writes zeroes, as bytes, from there to the end. */
int block_write_nothing(struct block_node *node, uint64_t from);
int block_status(struct block_node *node, uint64_t offset, uint64_t bytes,
		 struct block_extent *out);
/* What an image keeps of a virtual machine beside its disk. What was not written is zero. */
int block_vm_state(struct block_node *node, bool write, uint64_t offset, void *buf, size_t bytes);
int64_t block_allocated(struct block_node *node);
void block_set_length(struct block_node *node, uint64_t bytes);

static inline void block_tell(struct block_node *file, enum block_event event)
{
	if (file->drv->event)
		file->drv->event(file, event);
}

static inline void *block_ctx(struct block_req *req)
{
	return req->driver;
}
static inline struct block_req *block_child_req(struct block_req *req)
{
	return (struct block_req *)(req->driver +
				    ALIGN_UP(req->node->drv->req_size, BLOCK_REQ_ALIGN));
}

/* bitmap.c */
struct block_bitmap *block_bitmap_new(const char *name, uint64_t size, unsigned shift);
void block_bitmap_free(struct block_bitmap *bm);
/* Something is about to be written: on the node's loop. */
void block_bitmaps_record(struct block_node *node, uint64_t offset, uint64_t bytes);
void block_bitmaps_free(struct block_node *node);

/* iov.c; copies and slices are vmm/core/iov.h's */
void block_iov_zero(const struct iovec *iov, int iovcnt, size_t skip, size_t bytes);
bool block_iov_is_zero(const struct iovec *iov, int iovcnt, size_t skip, size_t bytes);
bool block_buf_is_zero(const void *buf, size_t bytes);

/*
 * open.c: one node with everything below. The keys that the layers know are marked in opts; the
 * caller refuses the rest.
 */
struct block_node *block_open_node(const struct block_open *how, struct opts *opts,
				   struct error **err);
/* For tools, on a loop that is theirs alone. format NULL: probed. flags:
 * BLOCK_OPEN_*. */
struct block_node *block_open_file(struct evloop *loop, const char *filename, const char *format,
				   uint32_t flags, const struct block_names *names,
				   struct error **err);
struct block_node *block_open_tool(struct evloop *loop, struct opts *opts, uint32_t flags,
				   const struct block_names *names, struct error **err);
/* One more of node->extents: a file as it is (driver "file"), or an image of that format in it. The
 * name is a path, whatever characters it has. */
bool block_open_extent(struct block_node *node, const struct block_open *how, const char *driver,
		       const char *filename, struct error **err);
/*
 * Sets node->backing: nested backing.*, a node's name, none for backing=null, or what the image's
 * header has in node->backing_name and backing_format.
 */
bool block_open_backing(struct block_node *node, const struct block_open *how, struct opts *opts,
			struct error **err);
/* Sets node->data: nested data-file.*, a node's name, or name, a plain file that the header has (or
 * NULL: an error). */
bool block_open_data_file(struct block_node *node, const struct block_open *how, struct opts *opts,
			  const char *name, struct error **err);
/* A backing file's name as seen from the image that names it. Allocated. */
char *block_backing_path(const char *image, const char *backing);
const struct block_driver *block_find_driver(const char *name);
const struct block_driver *block_driver_at(size_t i); /* NULL behind the last */
/* The driver whose magic is there; raw if none is. *unsupported: a format known only by name. */
const struct block_driver *block_probe(const uint8_t *buf, size_t len, const char **unsupported);

/* cdrom.c: whether the path is such a drive. */
bool block_is_host_cdrom(const char *path);

/* file_open.c */
bool block_file_identity(const struct block_node *node, dev_t *dev, ino_t *ino);

/* drive.c: base, read-only, goes under a new image that has no name any more. Consumes base. */
struct block_node *block_overlay(const struct block_open *how, struct block_node *base,
				 struct error **err);
/* drive.c: a -drive cache= mode as BLOCK_OPEN_ flags, added to *flags. */
bool block_parse_cache(const char *name, uint32_t *flags);

extern const struct block_driver block_file, block_host_device, block_host_cdrom, block_raw, block_qcow2;
extern const struct block_driver block_vdi, block_vhdx, block_vpc, block_vmdk;
extern const struct block_driver block_qcow1, block_qed, block_parallels, block_bochs, block_cloop,
	block_dmg;
extern const struct block_driver block_null_co, block_null_aio;
extern const struct block_driver block_luks, block_rbd;
extern const struct block_driver block_throttle, block_copy_on_read, block_blkdebug, block_delay;
extern const struct block_driver block_nbd;

/* filter/copy_on_read.c: its open(), without options. */
bool block_copy_on_read_init(struct block_node *node, struct error **err);

#endif
