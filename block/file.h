/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file driver's parts: block/file.c (requests), block/file_open.c (opening, probing), block/
 * file_lock.c (image locks). For these files only.
 */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include "block/driver.h"
#include "block/engine/engine.h"
#include "block/wait.h"

struct file_node {
	int fd;
	int lock_fd; /* a description of its own: a ring of io_uring holds fd's past our exit */
	bool direct, is_block;
	bool no_zero_range, no_punch; /* the file system said it cannot */
	bool sync_failed;	      /* the kernel may have dropped dirty pages */
	bool tray_locked;	      /* a CD-ROM drive's, by us */
	/* What status() found last: data, since nothing was discarded or zeroed. */
	uint64_t data_start, data_end;
	uint32_t align, mem_align;    /* O_DIRECT's; 1 without */
	struct engine *engine;
	struct pool *pool;
	struct range_set writes; /* only with align > 1 */
	struct waitq runq;
	bool running;
};

struct file_req {
	struct block_req *req;
	struct io_op op;
	struct waiter waiter;
	struct range range;
	bool ranged;
};

/*
 * Image locks, at QEMU's byte positions, so that both exclude each other: 100 + bit says what the
 * holder does, 200 + bit what it does not let others do.
 */
enum {
	FILE_PERM_CONSISTENT_READ = 1 << 0,
	FILE_PERM_WRITE = 1 << 1,
	FILE_PERM_RESIZE = 1 << 3,
};
/* The locks live as long as fd. */
bool file_lock(int fd, const char *filename, uint32_t perm, uint32_t unshared, struct error **err);

bool file_open(struct block_node *node, const struct block_open *how, struct opts *opts,
	       struct error **err);
bool host_device_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		      struct error **err);
void file_close(struct block_node *node);
void file_submit(struct block_node *node, struct block_req *req);
void file_attach(struct block_node *node, struct evloop *loop);
void file_detach(struct block_node *node);
int file_truncate(struct block_node *node, uint64_t bytes, struct error **err);
int file_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode);
int file_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_extent *out);
int64_t file_allocated(struct block_node *node);

#endif
