/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded pool of threads for what has no asynchronous call, and the engine on top of it.
 *
 * Threads start when there is work and nobody idle, and stay. A thread posts completions while it
 * holds the pool's lock, so that detach, which takes the lock, knows that none is inside
 * evloop_post().
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "block/driver.h"
#include "block/engine/engine.h"
#include "vmm/core/thread.h"

enum { POOL_THREADS = 16 };

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct pool_job *todo, **todo_tail;
	struct pool_job *ended, **ended_tail;
	unsigned threads, idle, queued;
	bool quit;
	pthread_t thread[POOL_THREADS];
	struct evloop *loop;
	struct ev_work work;
};

static void run_ended(void *opaque)
{
	struct pool *pool = opaque;
	struct pool_job *job, *next;

	pthread_mutex_lock(&pool->lock);
	job = pool->ended;
	pool->ended = NULL;
	pool->ended_tail = &pool->ended;
	pthread_mutex_unlock(&pool->lock);
	for (; job; job = next) {
		next = job->next;
		job->done(job, job->ret);
	}
}

static void *pool_thread(void *opaque)
{
	struct pool *pool = opaque;

	pthread_mutex_lock(&pool->lock);
	while (!pool->quit) {
		struct pool_job *job = pool->todo;

		if (!job) {
			pool->idle++;
			pthread_cond_wait(&pool->wake, &pool->lock);
			pool->idle--;
			continue;
		}
		pool->todo = job->next;
		if (!pool->todo)
			pool->todo_tail = &pool->todo;
		pool->queued--;
		pthread_mutex_unlock(&pool->lock);
		job->ret = job->fn(job);
		pthread_mutex_lock(&pool->lock);
		job->next = NULL;
		*pool->ended_tail = job;
		pool->ended_tail = &job->next;
		evloop_post(pool->loop, &pool->work);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

struct pool *pool_new(void)
{
	struct pool *pool = xcalloc(1, sizeof(*pool));

	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	pool->todo_tail = &pool->todo;
	pool->ended_tail = &pool->ended;
	ev_work_init(&pool->work, run_ended, pool);
	return pool;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->quit = true;
	pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->threads; i++)
		pthread_join(pool->thread[i], NULL);
	pthread_cond_destroy(&pool->wake);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

void pool_attach(struct pool *pool, struct evloop *loop)
{
	pthread_mutex_lock(&pool->lock);
	pool->loop = loop;
	pthread_mutex_unlock(&pool->lock);
}

void pool_detach(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	if (pool->loop)
		evloop_unpost(pool->loop, &pool->work);
	pool->loop = NULL;
	pthread_mutex_unlock(&pool->lock);
}

void pool_submit(struct pool *pool, struct pool_job *job)
{
	bool inline_run = false;

	job->next = NULL;
	pthread_mutex_lock(&pool->lock);
	*pool->todo_tail = job;
	pool->todo_tail = &job->next;
	if (++pool->queued > pool->idle && pool->threads < POOL_THREADS) {
		if (thread_start(&pool->thread[pool->threads], "worker", pool_thread, pool, NULL))
			pool->threads++;
		else
			inline_run = !pool->threads;
	}
	pthread_cond_signal(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	/* The host has no thread for us, not even one: slow is better than never. */
	if (inline_run) {
		pthread_mutex_lock(&pool->lock);
		pool->todo = NULL;
		pool->todo_tail = &pool->todo;
		pool->queued--;
		job->ret = job->fn(job);
		*pool->ended_tail = job;
		pool->ended_tail = &job->next;
		evloop_post(pool->loop, &pool->work);
		pthread_mutex_unlock(&pool->lock);
	}
}

bool io_advance(struct io_op *op, int64_t n, int *ret)
{
	*ret = 0;
	if (n == -EINTR || n == -EAGAIN)
		return false;
	if (n < 0) {
		*ret = (int)n;
		return true;
	}
	if (op->kind == IO_SYNC)
		return true;
	if (!n && op->kind == IO_WRITE) {
		*ret = -EIO;
		return true;
	}
	op->skip += n;
	op->offset += n;
	op->bytes -= n;
	if (op->kind == IO_READ && op->bytes && (!n || n % op->align)) {
		block_iov_zero(op->iov, op->iovcnt, op->skip, op->bytes);
		return true;
	}
	return !op->bytes;
}

int io_run(struct io_op *op)
{
	struct iovec iov[IOV_MAX];
	int64_t n;
	int ret;

	do {
		int count = 0;

		if (op->kind == IO_SYNC) {
			n = fdatasync(op->fd);
		} else {
			count = iov_slice(op->iov, op->iovcnt, op->skip, op->bytes, iov, IOV_MAX);
			if (count < 0)
				return -EINVAL;
			if (op->kind == IO_READ)
				n = preadv(op->fd, iov, count, op->offset);
			else
				n = pwritev2(op->fd, iov, count, op->offset,
					     op->dsync ? RWF_DSYNC : 0);
		}
		if (n < 0)
			n = -errno;
	} while (!io_advance(op, n, &ret));
	return ret;
}

struct threads {
	struct engine engine;
	struct pool *pool;
};

static int job_run(struct pool_job *job)
{
	return io_run(container_of(job, struct io_op, job));
}

static void job_done(struct pool_job *job, int ret)
{
	struct io_op *op = container_of(job, struct io_op, job);

	op->done(op, ret);
}

static void threads_submit(struct engine *e, struct io_op *op)
{
	struct threads *t = container_of(e, struct threads, engine);

	op->job.fn = job_run;
	op->job.done = job_done;
	pool_submit(t->pool, &op->job);
}

static void threads_attach(struct engine *e, struct evloop *loop)
{
}

static void threads_detach(struct engine *e)
{
}

static void threads_free(struct engine *e)
{
	free(container_of(e, struct threads, engine));
}

static const struct engine_ops threads_ops = {
	"threads", threads_submit, threads_attach, threads_detach, threads_free,
};

struct engine *engine_threads_new(struct pool *pool)
{
	struct threads *t = xcalloc(1, sizeof(*t));

	t->engine.ops = &threads_ops;
	t->pool = pool;
	return &t->engine;
}
