/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qcow2 driver's inner contracts; the format is QEMU's docs/interop/qcow2.txt. For block/qcow2/
 * only.
 *
 *   header.c    parsing the header (pure)
 *   open.c      opening, closing, the driver's table
 *   request.c   what a guest's request goes through
 *   cluster.c   guest offset -> host cluster; changing L2 entries
 *   refcount.c  finding free clusters; refcount blocks and table
 *   cache.c     slices of L2 tables and refcount blocks in memory
 *   commit.c    writing metadata back in order; giving clusters back
 *   compress.c  compressing and decompressing a cluster
 *   pack.c      compressed writes; unpack.c: compressed reads
 *   check.c     finding and repairing leaks and corruptions
 *   counts.c    refcounts in bulk; snapshot.c, snapshot_table.c: snapshots
 *   bitmap.h    persistent bitmaps: bitmap_dir.c, bitmap.c, bitmap_store.c, extension.c
 *   subcluster.c  extended L2 entries
 *   options.c   options of an open image; overlap.c: tables that nothing may be written over
 *   lazy.c      lazy refcounts; refcount_order.c: all refcounts written anew
 *   data_file.c the guest's bytes in a file of their own; crypt.c: and encrypted
 *   vm_state.c  what lies behind the disk
 *   prealloc.c  preallocation; resize.c: growing and shrinking; amend.c: changing the header
 *
 * Why no byte is lost
 * -------------------
 * A cluster belongs to whoever refers to it: an L1 entry to an L2 table, an L2 entry to data. The
 * image is good as long as, at any moment, with any subset of the writes that were in flight, on
 * the disk (R) every cluster's refcount is at least the number of references to it, and (D) what an
 * entry refers to is wholly there: data with its copied borders, or a whole table. A refcount too
 * high is a leak, which costs space; never the reverse. Writes are cut into steps that keep (R) and
 * (D) by these rules:
 *
 *  1. Refcounts go up before anything refers: allocation raises them in memory (refcount.c) and
 * only then is the cluster written and linked. A commit writes refcounts, syncs, and only then
 * writes L2 slices and after another sync L1 entries. From before the refcounts to behind the L1
 * entries, metadata in memory is frozen (s->frozen): whoever would change it waits. So what is
 * written after the sync refers to nothing that was not counted before it.
 *  2. Data goes first: an entry is set in memory when the write of its cluster, borders copied, has
 *     completed; the commit's sync lies between that and the entry's own write. The same goes for
 * new L2 tables, refcount blocks and a new refcount table, which are written whole before their
 *     entry, or the header, is.
 *  3. References go away before refcounts: a cluster that an entry let go stands on a list and
 * stays counted, in memory too, so that nobody can reuse it. A commit takes the list as it is when
 * it freezes, and lowers the counts when the sync behind its last write has succeeded.
 *  4. A cluster's contents are not touched by two hands: requests hold guest ranges, shared for
 *     reading and writing in place, exclusively for clusters that they allocate or let go. So no
 *     transfer is under way in a cluster that is let go, and two allocating writes to one cluster
 *     follow one another. A request holds one range at a time, and never waits for a second.
 *  5. When a step fails, nothing is taken back that may have reached the disk: entries stay dirty
 *     and are written again by the next commit; lists stay; what was allocated in vain goes to the
 *     list. A failed sync makes all later ones fail (file.c).
 *  6. Snapshots are taken, applied and deleted while nothing else goes on and nothing is dirty, by
 * the same rules in bulk: counts go up, sync; COPIED flags go off, sync; the header's sector
 * switches to the other table of snapshots, L1 table or size at once, sync; counts go down. COPIED
 * means that its cluster may be written in place, so it may be off where it could be on, never the
 * reverse. The dirty bit (version 3) stands around all that, so that leaks and flags are mended.
 *  7. With an external data file a cluster lies there at the guest's own offset and is not
 * counted. A sync is one of the data file and then one of the image. What an entry once referred to
 * stays: zeroing and discarding go to the data file in place.
 *  8. Persistent bitmaps that record writes are "in use" on the disk, durably, before the first
 * write goes on, and until they are stored; see bitmap.h.
 * A flush is a commit, or the mere sync of the file if no metadata is dirty. Sector-sized writes
 * are atomic; entries (1 to 8 bytes, aligned) never straddle one, and the header's fields that
 * change lie in its first 512 bytes.
 *
 * Thread: the node's loop. One request's steps run to their end without interruption; what is not
 * in memory makes them wait and start the step again.
 */
#ifndef BLOCK_QCOW2_QCOW2_H
#define BLOCK_QCOW2_QCOW2_H

#include "block/driver.h"
#include "block/engine/engine.h"
#include "block/qcow2/header.h"
#include "block/snapshot.h"
#include "block/wait.h"

#define L2_COMPRESSED	  (UINT64_C(1) << 62)
#define ENTRY_COPIED	  (UINT64_C(1) << 63)
#define L2_ZERO		  UINT64_C(1)
#define ENTRY_OFFSET	  UINT64_C(0x00fffffffffffe00)
#define L2_RESERVED	  UINT64_C(0x3f000000000001fe)
#define L1_RESERVED	  UINT64_C(0x7f000000000001ff)
#define REFTABLE_RESERVED UINT64_C(0x1ff)

struct qcow2;
struct qcache;

struct qslice {
	uint64_t offset; /* in the file; 0: holds nothing */
	uint8_t *data;	 /* cache->slice_size bytes */
	bool ready, dirty, writing;
	bool used; /* since the cache was cleaned */
	bool in_commit; /* a commit waits for its write */
	bool stale;	/* forgotten while it was being read */
	struct qslice *hash_next, *older, *newer;
	struct qcache *cache;
	struct waitq waiters;
	struct iovec iov;
	struct block_req *req; /* its loads and writes */
};

struct qcache {
	struct qcow2 *s;
	bool is_refcount;
	unsigned slice_bits; /* set before qcache_init() */
	uint64_t slice_size;
	unsigned count, max, dirty;
	unsigned buckets; /* a power of two */
	struct qslice **hash;
	struct qslice *oldest, *newest;
	struct waitq crowded; /* no slice can be let go right now */
};

/* Why a cluster was let go: which of the pass-discard options it concerns. */
enum qfree_kind { QFREE_REQUEST, QFREE_SNAPSHOT, QFREE_OTHER };
struct qfree {
	uint64_t offset;
	uint64_t clusters;
	enum qfree_kind kind;
};
enum { QCOW2_FREES = 4096 };
struct qfree_list {
	unsigned count;
	struct qfree items[QCOW2_FREES];
};

enum commit_step {
	COMMIT_IDLE,
	COMMIT_TABLE_SYNC,
	COMMIT_TABLE,
	COMMIT_REFCOUNTS,
	COMMIT_SYNC,
	COMMIT_L2,
	COMMIT_L1,
	COMMIT_LAST_SYNC,
	COMMIT_FREES,
};

/* Making a table: one at a time (refcount.c, cluster.c). */
struct qjob {
	bool busy;
	struct waitq waiters;
	struct waiter waiter;
	struct block_req *req;
	struct iovec iov;
	uint8_t *buf;
	void (*next)(struct qcow2 *s, int ret); /* after I/O, or a wait */
	uint64_t index, host, old;
	uint64_t blocks, tables; /* growing: clusters of each */
};

struct qbuf {
	struct qbuf *next;
	uint8_t *data;
};

/* What the format keeps of a snapshot beside struct block_snapshot. */
struct qsnapshot {
	uint64_t l1_offset;
	uint32_t l1_size; /* entries; neither is checked before use */
	uint32_t extra_len;
	uint8_t *extra; /* of later versions of the format; kept */
};

struct qsnapshots {
	unsigned count;
	struct block_snapshot *pub;
	struct qsnapshot *more;
	uint64_t bytes; /* of the table in the file */
	bool bad;	/* opened for a check: the table cannot be read */
};

/* Persistent bitmaps, beside node->bitmaps (bitmap.h). */
struct qbitmap_gone {
	uint64_t table;
	uint32_t entries;
};
struct qbitmaps {
	uint32_t count; /* in the directory; 0: there is none */
	uint64_t dir_offset, dir_bytes;
	uint8_t *dir;
	const char *bad; /* opened for a check: why it cannot be used */
	bool stale;	 /* an extension that somebody did not keep up to date */
	bool unmarked;	 /* the disk does not yet say "in use" of what records writes */
	bool marking;
	bool moved; /* the directory is to be put together anew */
	struct waitq waiters;
	struct block_req *req;
	struct iovec iov;
	struct qbitmap_gone *gone; /* tables that the new directory lets go */
	unsigned gone_count;
};

struct qcow2 {
	struct block_node *node, *file;
	/* file, unless the guest's bytes are in a file of their own; encrypted: a node above it */
	struct block_node *data; /* NULL in a node for metadata alone */
	bool external;		 /* they are */
	bool raw_data;		 /* and that file alone is the disk */
	uint64_t crypt_offset, crypt_bytes; /* where the LUKS header is; or 0 */
	struct luks *luks;	 /* as read, or NULL */
	bool guest_iv;		 /* encrypted by the guest's offsets */
	char *data_name;	 /* as the header has it, or NULL */
	struct block_req *data_req;
	bool data_unsynced; /* as unsynced, of data */
	int data_synced;    /* the step of the commit that has flushed it already */
	struct qcow2_header h;
	uint8_t header[512]; /* as on the disk */
	uint64_t cluster_size;
	unsigned cluster_bits, l2_bits, block_bits; /* entries: 2^bits */
	unsigned entry_bits; /* an L2 entry is 2^entry_bits bytes: 8, or 16 if it is extended */
	bool extended;
	bool broken; /* marked corrupt while open: everything fails */
	bool opened;
	struct block_req *mark_req;
	struct iovec mark_iov;

	uint64_t *l1;	   /* host order */
	uint8_t *l1_dirty; /* one for each 64 entries */
	uint64_t *reftable;
	uint32_t reftable_size; /* entries */
	uint8_t *reftable_dirty;
	bool any_l1_dirty, any_reftable_dirty;
	struct qcache l2, refcounts;
	struct qsnapshots snapshots;
	struct qbitmaps bm;

	uint64_t free_hint; /* cluster; none below is free */
	uint64_t fresh;	    /* bytes from here on were never written, and read as zero */
	bool fresh_is_zero;

	struct range_set ranges;
	struct waitq runq, later; /* later: when the loop has had a turn */
	bool running;
	struct ev_work run_work;

	enum commit_step step;
	bool frozen;
	bool unsynced; /* writes have completed since the last sync began */
	bool commit_wanted;
	int commit_error;
	unsigned commit_writes;
	struct block_req *commit_req;
	struct iovec commit_iov;
	uint8_t *commit_buf; /* 64 entries, in the disk's order */
	uint32_t commit_at;
	struct waitq commit_now, commit_next, thawed;
	struct qfree_list *frees, *freeing;
	unsigned freeing_at;
	uint64_t freeing_done;	    /* clusters of that item */
	uint64_t freeing_discarded; /* the cluster whose discard has ended */
	struct waiter freeing_waiter;

	struct qjob job;

	struct qbuf *bufs;
	unsigned buf_count, buf_max;
	struct waitq buf_wait;

	/* Clusters being decompressed, and those that were last; the latest is first. */
	struct qunpack *unpacks;
	unsigned unpack_count, unpack_max;
	struct waitq unpack_wait;

	/* Compressed writes: where the last cluster has room (0: nowhere), and who compresses. */
	uint64_t packed;
	struct qpack *packs; /* idle */
	struct pool *pool;   /* its threads compress and decompress; from the first cluster on */

	unsigned pass_discard; /* 1 << enum qfree_kind */
	unsigned overlap;      /* OVERLAP_* */
	struct qguard *guard;  /* overlap.c's, or NULL */
	uint64_t *inactive_l2, inactive_l2_count;
	bool lazy;   /* refcounts wait for the image's end */
	bool marked; /* by us: the dirty bit, for that */
	bool full_commit; /* writes them all the same */
	uint64_t clean_ns;
	struct ev_timer clean_timer;
};

enum {
	OVERLAP_HEADER = 1 << 0,
	OVERLAP_ACTIVE_L1 = 1 << 1,
	OVERLAP_ACTIVE_L2 = 1 << 2,
	OVERLAP_REFTABLE = 1 << 3,
	OVERLAP_REFBLOCK = 1 << 4,
	OVERLAP_SNAPSHOTS = 1 << 5,
	OVERLAP_INACTIVE_L1 = 1 << 6,
	OVERLAP_INACTIVE_L2 = 1 << 7,
	OVERLAP_BITMAP_DIR = 1 << 8,
	OVERLAP_CONSTANT = OVERLAP_HEADER | OVERLAP_ACTIVE_L1 | OVERLAP_REFTABLE |
			   OVERLAP_SNAPSHOTS | OVERLAP_BITMAP_DIR,
	OVERLAP_CACHED =
		OVERLAP_CONSTANT | OVERLAP_ACTIVE_L2 | OVERLAP_REFBLOCK | OVERLAP_INACTIVE_L1,
	OVERLAP_ALL = OVERLAP_CACHED | OVERLAP_INACTIVE_L2,
};

/* One cluster being compressed, with what the compressor keeps between clusters. */
struct qpack {
	struct pool_job job;
	struct qcow2 *s;
	struct qreq *q;
	uint8_t *in, *out;
	size_t len;  /* of out */
	uint64_t at; /* in the file */
	void *context;
	struct qpack *next;
};

/* One cluster being decompressed, or kept. */
struct qunpack {
	struct pool_job job;
	struct qcow2 *s;
	struct qreq *q;
	uint64_t entry; /* of the cluster in out; 0: none */
	bool busy;	/* that is only about to be there */
	uint8_t *in, *out;
	size_t in_len;
	void *context;
	struct waitq waiters; /* for this cluster */
	struct qunpack *next;
};

enum qtype { Q_UNALLOCATED, Q_ZERO, Q_ZERO_ALLOC, Q_DATA, Q_COMPRESSED };

/* A run of guest bytes that are alike and, if they are in the file, contiguous there. */
struct qmap {
	enum qtype type;
	bool copied;
	uint64_t bytes;
	uint64_t host;	 /* of the first byte; of the cluster for Q_ZERO_ALLOC */
	uint64_t entry;	 /* the first cluster's */
	uint64_t bitmap; /* its subclusters, if entries are extended */
};

/* All steps below: 0; -EAGAIN if w was queued and the step is to be run again; or -errno. */

/* cache.c */
bool qcache_init(struct qcache *c, struct qcow2 *s, bool is_refcount, uint64_t bytes);
void qcache_destroy(struct qcache *c);
int qcache_get(struct qcache *c, uint64_t offset, struct waiter *w, struct qslice **out);
void qcache_dirty(struct qslice *e);
/* Forgets what it has of a cluster that gets a new meaning. */
void qcache_forget(struct qcache *c, uint64_t cluster);
/* Forgets everything that is not dirty. */
void qcache_clear(struct qcache *c);
/* Whether it has a table's slice there. */
bool qcache_overlaps(struct qcache *c, uint64_t offset, uint64_t bytes);
/* Frees what was not used since the last time. */
void qcache_clean(struct qcache *c);
void qcache_write(struct qslice *e);
/* Starts writing all that is dirty; how many. Each end calls qcow2_commit_written(). */
unsigned qcache_write_all(struct qcache *c);

/* refcount.c */
uint64_t refcount_get(const uint8_t *block, unsigned order, uint64_t index);
void refcount_set(uint8_t *block, unsigned order, uint64_t index, uint64_t value);
int qcow2_alloc(struct qcow2 *s, uint64_t want, struct waiter *w, uint64_t *host, uint64_t *got);
/* Lowers one cluster's count; *left is what remains. */
int qcow2_refcount_lower(struct qcow2 *s, uint64_t cluster, struct waiter *w, bool peek,
			 uint64_t *left);

/* Counts a cluster that is in use once more; -EOVERFLOW if it cannot be. */
int qcow2_refcount_raise(struct qcow2 *s, uint64_t cluster, struct waiter *w);

void qcow2_job_io_done(struct block_req *req, int ret);
void qcow2_job_wake(struct waiter *w);
void qcow2_job_io(struct qcow2 *s, enum block_op op, uint64_t offset, void *buf, uint64_t bytes,
		  void (*next)(struct qcow2 *s, int ret));
bool qcow2_job_thawed(struct qcow2 *s, void (*next)(struct qcow2 *s, int ret));
void qcow2_job_end(struct qcow2 *s, int ret);

/* cluster.c */
int qcow2_map(struct qcow2 *s, uint64_t offset, uint64_t bytes, struct waiter *w, struct qmap *map);
/* The slice with offset's entry, in a table that only the active image uses. */
int qcow2_own_slice(struct qcow2 *s, uint64_t offset, struct waiter *w, struct qslice **out,
		    unsigned *index);
void qcow2_compressed_range(const struct qcow2 *s, uint64_t entry, uint64_t *offset,
			    uint64_t *bytes);
enum qtype qcow2_entry_type(const struct qcow2 *s, uint64_t entry);
/* Puts what entry refers to on the list; qcow2_frees_room() was asked before. */
void qcow2_let_go(struct qcow2 *s, uint64_t entry, enum qfree_kind kind);

/* overlap.c */
bool qcow2_overlap_options(struct qcow2 *s, struct opts *opts, struct error **err);
/* Whether something else than the L1 or refcount table may lie there, or than snapshots' and bitmaps';
 * whatever the options say. */
bool qcow2_tables_ok(const struct qcow2 *s, uint64_t host, uint64_t bytes);
bool qcow2_host_ok(const struct qcow2 *s, uint64_t host, uint64_t bytes);
/* Whether it overlaps a table that overlap-check protects. */
bool qcow2_overlaps(struct qcow2 *s, uint64_t host, uint64_t bytes);
/* Whether a guest's bytes may be written there, else the image is marked corrupt. */
bool qcow2_data_ok(struct qcow2 *s, uint64_t host, uint64_t bytes);
/* A new L2 table or refcount block; or many have changed. */
void qcow2_guard_add(struct qcow2 *s, uint64_t host, uint32_t index, bool refcounts);
void qcow2_guard_drop(struct qcow2 *s);
/* Snapshots came or went; waits. */
int qcow2_overlap_read_snapshots(struct qcow2 *s);

/* options.c */
bool qcow2_read_options(struct qcow2 *s, struct opts *opts, struct error **err);
void qcow2_clean_arm(struct qcow2 *s, struct evloop *loop);
void qcow2_clean_cancel(struct qcow2 *s);

/* lazy.c */
/* Whether the image must be marked dirty before clusters are given out; marks it, which makes w
 * wait: -EAGAIN. */
bool qcow2_needs_mark(const struct qcow2 *s);
int qcow2_mark_dirty(struct qcow2 *s, struct waiter *w);
/* Writes everything, and takes the mark off; waits. */
int qcow2_mark_clean(struct qcow2 *s);

/* subcluster.c: images with extended L2 entries */
int qsub_map(struct qcow2 *s, const struct qslice *e, unsigned index, uint64_t offset,
	     uint64_t bytes, struct qmap *map);
bool qsub_entry_ok(const struct qcow2 *s, uint64_t entry, uint64_t bitmap);

/* commit.c */
void qcow2_commit(struct qcow2 *s, struct waiter *w);
void qcow2_commit_poll(struct qcow2 *s);
void qcow2_commit_io_done(struct block_req *req, int ret);
void qcow2_freeing_wake(struct waiter *w);
/* The data file's flush has ended. */
void qcow2_commit_data_synced(struct qcow2 *s, int ret);
bool qcow2_is_dirty(const struct qcow2 *s);
void qcow2_commit_written(struct qcow2 *s, int ret);
bool qcow2_frees_room(const struct qcow2 *s, unsigned items);
void qcow2_free_later(struct qcow2 *s, uint64_t offset, uint64_t clusters, enum qfree_kind kind);
int qcow2_commit_sync(struct qcow2 *s); /* waits; for open, close, tools */

/* bitmap.c: before the first change that bitmaps record, the disk says so; s->bm.waiters wait. */
void qcow2_bitmaps_mark(struct qcow2 *s);
/* Whether a bitmap's table, or their directory, lies there. */
bool qcow2_in_bitmaps(const struct qcow2 *s, uint64_t host, uint64_t bytes);

/* data_file.c */
bool qcow2_open_data(struct qcow2 *s, const struct block_open *how, struct opts *opts,
		     struct error **err);
/* Flushes the data file as part of a commit's sync. True: that is under way. */
bool qcow2_sync_data(struct qcow2 *s);

/* request.c */
void qcow2_submit(struct block_node *node, struct block_req *req);
void qcow2_run_waiters(struct qcow2 *s);
void qcow2_run_soon(struct qcow2 *s);

/* compress.c */
bool qcow2_compression_ok(const struct qcow2 *s, struct error **err);
/* u->in to u->out, a whole cluster; any thread. */
int qcow2_inflate(const struct qcow2 *s, struct qunpack *u);
void qcow2_inflate_end(struct qunpack *u);
/* p->in to p->out; any thread. -E2BIG: it would not become smaller. */
int qcow2_deflate(const struct qcow2 *s, struct qpack *p);
void qcow2_deflate_end(struct qpack *p);

/* pack.c */
void qpack_free(struct qpack *p);
struct pool *qcow2_pool(struct qcow2 *s);

/* unpack.c */
void qunpack_init(struct qcow2 *s);
void qunpack_destroy(struct qcow2 *s);
/* The cluster of this entry (0: any) is another's now. */
void qunpack_forget(struct qcow2 *s, uint64_t entry);

/* open.c */
void qcow2_mark_corrupt(struct qcow2 *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
int qcow2_write_header(struct qcow2 *s); /* the first 512 bytes; waits */
/* File requests of the driver's own. */
struct block_req *qcow2_file_req(struct qcow2 *s, void (*done)(struct block_req *req, int ret),
				 void *ctx);
void qcow2_file_io(struct qcow2 *s, struct block_req *req, enum block_op op, uint64_t offset,
		   struct iovec *iov, void *buf, uint64_t bytes);

/* refcount_order.c; all wait */
/* New blocks and a new table behind base, the file's clusters: of those count() tells the counts.
 * *end: the file's clusters then. The header has them; reload() makes the memory follow. */
int qcow2_refcounts_write(struct qcow2 *s, uint64_t base, unsigned order,
			  int (*count)(void *opaque, uint64_t cluster, uint64_t *out), void *opaque,
			  uint64_t *end);
int qcow2_refcounts_reload(struct qcow2 *s, uint64_t clusters);
/* Counts become 2^order bits wide. */
bool qcow2_change_order(struct qcow2 *s, unsigned order, struct error **err);

/* prealloc.c */
int qcow2_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode);

/* amend.c */
bool qcow2_change_backing(struct block_node *node, const char *backing, const char *format,
			  struct error **err);
bool qcow2_amend(struct block_node *node, struct opts *opts, bool force,
		 const struct objects *objects, struct error **err);

/* crypt.c */
bool qcow2_open_crypt(struct qcow2 *s, const struct block_open *how, struct opts *opts,
		      struct error **err);
bool qcow2_amend_crypt(struct qcow2 *s, struct opts *opts, bool force,
		       const struct objects *objects, struct error **err);

/* resize.c */
/* Up to want clusters side by side, or just as many as there are to be; both wait. */
int qcow2_alloc_some(struct qcow2 *s, uint64_t want, uint64_t *host, uint64_t *got);
int qcow2_alloc_now(struct qcow2 *s, uint64_t clusters, uint64_t *host);
int qcow2_truncate(struct block_node *node, uint64_t bytes, struct error **err);
/* The active L1 table moves to where it has room for so many entries, as the disk's size changes. */
int qcow2_grow_l1(struct qcow2 *s, uint64_t entries, uint64_t size);

/* vm_state.c */
int qcow2_vm_state(struct block_node *node, bool write, uint64_t offset, void *buf, size_t bytes);

static inline uint64_t qcow2_cluster_start(const struct qcow2 *s, uint64_t offset)
{
	return ALIGN_DOWN(offset, s->cluster_size);
}

#endif
