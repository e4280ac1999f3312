/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The libaio engine (io_submit(2)): aio=native, for O_DIRECT descriptors. Batched as uring.c is; an
 * eventfd tells of completions. Syncs go to the pool, since the kernel's would block or be missing.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "block/driver.h"
#include "block/engine/engine.h"
#include "vmm/core/notifier.h"

#ifdef CONFIG_LIBAIO
#include <libaio.h>

_Static_assert(sizeof(struct iocb) <= sizeof(((struct io_op *)0)->iocb),
	       "io_op has room for an iocb");

struct aio {
	struct engine engine;
	struct engine *syncs;
	io_context_t ctx;
	struct event_notifier notifier;
	struct evloop *loop;
	struct ev_fd ef;
	struct ev_hook hook;
	struct ev_work again;
	bool polled;	    /* the host had no room to watch the eventfd: look every turn */
	unsigned in_flight; /* at the kernel */
	struct io_op *line, **line_tail;
	struct iovec iov[ENGINE_IOV];
};

static void enqueue(struct aio *a, struct io_op *op)
{
	op->next = NULL;
	*a->line_tail = op;
	a->line_tail = &op->next;
}

static void aio_submit(struct engine *e, struct io_op *op)
{
	struct aio *a = container_of(e, struct aio, engine);

	if (op->kind == IO_SYNC)
		a->syncs->ops->submit(a->syncs, op);
	else
		enqueue(a, op);
}

static void drop_first(struct aio *a)
{
	a->line = a->line->next;
	if (!a->line)
		a->line_tail = &a->line;
}

static void prepare(struct aio *a, struct io_op *op, const struct iovec *iov, int count)
{
	struct iocb *cb = (struct iocb *)op->iocb;

	if (op->kind == IO_READ)
		io_prep_preadv(cb, op->fd, iov, count, op->offset);
	else
		io_prep_pwritev2(cb, op->fd, iov, count, op->offset, op->dsync ? RWF_DSYNC : 0);
	io_set_eventfd(cb, a->notifier.fd);
	cb->data = op;
}

static void hand_over(struct aio *a)
{
	while (a->line && a->in_flight < ENGINE_DEPTH) {
		struct iocb *batch[ENGINE_DEPTH];
		unsigned n = 0, used = 0;
		int ret;

		for (struct io_op *op = a->line; op && a->in_flight + n < ENGINE_DEPTH;
		     op = op->next) {
			int count = iov_slice(op->iov, op->iovcnt, op->skip, op->bytes,
					      &a->iov[used], MIN(ENGINE_IOV - used, 1024u));

			if (count < 0)
				break;
			prepare(a, op, &a->iov[used], count);
			batch[n++] = (struct iocb *)op->iocb;
			used += count;
		}
		ret = io_submit(a->ctx, n, batch);
		if (ret == -EAGAIN && a->in_flight)
			return; /* a completion will run the line again */
		if (ret <= 0) {
			/* The first one is what the kernel does not take. */
			struct io_op *op = a->line;

			if (ret == -EAGAIN || ret == -EINTR || ret == 0) {
				evloop_post(a->loop, &a->again);
				return;
			}
			drop_first(a);
			op->done(op, ret);
			evloop_post(a->loop, &a->again); /* done may have submitted elsewhere */
			continue;
		}
		a->in_flight += ret;
		while (ret--)
			drop_first(a);
	}
}

static void on_ready(void *opaque, uint32_t revents)
{
	struct aio *a = opaque;
	struct io_event ev[16];
	struct timespec zero = {0, 0};
	int n;

	event_notifier_test_and_clear(&a->notifier);
	while ((n = io_getevents(a->ctx, 0, ARRAY_SIZE(ev), ev, &zero)) > 0) {
		a->in_flight -= n;
		for (int i = 0; i < n; i++) {
			struct io_op *op = ev[i].data;
			int ret;

			if (io_advance(op, (long)ev[i].res, &ret))
				op->done(op, ret);
			else
				enqueue(a, op);
		}
	}
}

static void before_sleep(void *opaque)
{
	struct aio *a = opaque;

	hand_over(a);
	if (a->polled && a->in_flight) {
		on_ready(a, 0);
		evloop_post(a->loop, &a->again);
	}
}

static void aio_attach(struct engine *e, struct evloop *loop)
{
	struct aio *a = container_of(e, struct aio, engine);

	a->loop = loop;
	a->hook = (struct ev_hook){.before_sleep = before_sleep, .opaque = a};
	evloop_hook_add(loop, &a->hook);
	a->polled = evloop_fd_add(loop, &a->ef, a->notifier.fd, EPOLLIN, on_ready, a) < 0;
}

static void aio_detach(struct engine *e)
{
	struct aio *a = container_of(e, struct aio, engine);

	evloop_unpost(a->loop, &a->again);
	evloop_fd_del(a->loop, &a->ef);
	evloop_hook_del(a->loop, &a->hook);
	a->loop = NULL;
}

static void aio_free(struct engine *e)
{
	struct aio *a = container_of(e, struct aio, engine);

	io_destroy(a->ctx);
	event_notifier_destroy(&a->notifier);
	a->syncs->ops->free(a->syncs);
	free(a);
}

static const struct engine_ops aio_ops = {
	"native", aio_submit, aio_attach, aio_detach, aio_free,
};

struct engine *engine_aio_new(struct pool *pool, struct error **err)
{
	struct aio *a = xcalloc(1, sizeof(*a));
	int ret = io_setup(ENGINE_DEPTH, &a->ctx);

	if (ret < 0) {
		error_set_errno(err, ret, "aio=native is not available on this host");
		free(a);
		return NULL;
	}
	ret = event_notifier_init(&a->notifier);
	if (ret < 0) {
		error_set_errno(err, ret, "aio=native is not available on this host");
		io_destroy(a->ctx);
		free(a);
		return NULL;
	}
	a->syncs = engine_threads_new(pool);
	a->engine.ops = &aio_ops;
	a->line_tail = &a->line;
	ev_work_init(&a->again, before_sleep, a);
	return &a->engine;
}

#else

struct engine *engine_aio_new(struct pool *pool, struct error **err)
{
	error_set(err, "this program was built without aio=native");
	return NULL;
}

#endif
