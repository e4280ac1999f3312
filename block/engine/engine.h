/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways to do I/O on a file descriptor without blocking the loop: io_uring, libaio, threads. Each
 * node that owns a descriptor owns its engine and its pool of threads; nothing is shared between
 * nodes.
 *
 * Thread: the node's loop; a pool's jobs run on its threads.
 */
#ifndef BLOCK_ENGINE_ENGINE_H
#define BLOCK_ENGINE_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/core/error.h"
#include "vmm/core/evloop.h"

enum { ENGINE_DEPTH = 128, ENGINE_IOV = 2048 };

/* A job for a thread: fn there, done with its result on the loop. */
struct pool_job {
	int (*fn)(struct pool_job *job);
	void (*done)(struct pool_job *job, int ret);
	int ret;
	struct pool_job *next;
};

struct pool;
struct pool *pool_new(void);
/* Idle by then. NULL is allowed. */
void pool_free(struct pool *pool);
void pool_attach(struct pool *pool, struct evloop *loop);
void pool_detach(struct pool *pool);
void pool_submit(struct pool *pool, struct pool_job *job);

enum io_kind { IO_READ, IO_WRITE, IO_SYNC };

/*
 * One transfer, embedded in the request. done gets 0 or -errno, never from inside submit; what a
 * read finds past the end of the file is zero. iov, with skip bytes left out in front, holds bytes.
 */
struct io_op {
	enum io_kind kind;
	bool dsync; /* IO_WRITE: durable when done */
	int fd;
	uint32_t align; /* O_DIRECT's; 1 without: a read that ends off it has met the end of the
			   file */
	uint64_t offset;
	size_t bytes;
	const struct iovec *iov;
	int iovcnt;
	size_t skip;
	void (*done)(struct io_op *op, int ret);

	struct io_op *next; /* the engine's own from here */
	bool alone;	    /* never part of a larger transfer */
	union {
		struct pool_job job;
		unsigned char iocb[64];
	};
};

struct engine;
struct engine_ops {
	const char *name;
	void (*submit)(struct engine *e, struct io_op *op);
	void (*attach)(struct engine *e, struct evloop *loop);
	void (*detach)(struct engine *e);
	void (*free)(struct engine *e);
};
struct engine {
	const struct engine_ops *ops;
};

/* Each may fail, with err, where the host refuses. pool outlives the engine. */
struct engine *engine_uring_new(int fd, struct error **err);
struct engine *engine_aio_new(struct pool *pool, struct error **err);
struct engine *engine_threads_new(struct pool *pool);

/* The result of a system call that moved n bytes (or -errno): true when op has ended, with *ret;
 * false when the rest is still to be moved. */
bool io_advance(struct io_op *op, int64_t n, int *ret);
/* Does the whole of op in the calling thread; 0 or -errno. */
int io_run(struct io_op *op);

#endif
