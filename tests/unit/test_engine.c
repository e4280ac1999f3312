/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Engines: writes that lie side by side, which io_uring's carries out as one, each end as if they had
 * been alone, whatever becomes of the whole.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/engine/engine.h"
#include "vmm/core/util.h"

enum { OPS = 96, PIECE = 8192, ROUNDS = 4 };

struct fixture {
	struct evloop *loop;
	struct pool *pool;
	struct engine *engine;
	int fd;
	unsigned left;
	struct write {
		struct fixture *f;
		struct io_op op;
		struct iovec iov[3];
		uint8_t data[PIECE];
		unsigned again, ended;
		int ret;
	} writes[OPS];
};

static int setup(void **state, bool threads)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	char path[] = "/tmp/vmm-engine-XXXXXX";
	struct error *err = NULL;

	f->fd = mkstemp(path);
	if (f->fd < 0 || unlink(path))
		return -1;
	f->loop = evloop_new(NULL, NULL);
	f->pool = pool_new();
	pool_attach(f->pool, f->loop);
	f->engine = threads ? engine_threads_new(f->pool) : engine_uring_new(f->fd, &err);
	error_free(err);
	if (f->engine)
		f->engine->ops->attach(f->engine, f->loop);
	*state = f;
	return 0;
}

static int setup_uring(void **state)
{
	return setup(state, false);
}

static int setup_threads(void **state)
{
	return setup(state, true);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->engine) {
		f->engine->ops->detach(f->engine);
		f->engine->ops->free(f->engine);
	}
	pool_detach(f->pool);
	pool_free(f->pool);
	evloop_free(f->loop);
	close(f->fd);
	free(f);
	return 0;
}

static void start(struct write *w);

static void done(struct io_op *op, int ret)
{
	struct write *w = container_of(op, struct write, op);

	w->ended++;
	w->ret = ret;
	w->f->left--;
	if (w->again) {
		w->again--;
		start(w);
	}
}

/* The i-th piece of the file, in one to three parts, of which one lies behind skipped bytes. */
static void start(struct write *w)
{
	unsigned i = w - w->f->writes, parts = 1 + i % 3, at = 0;

	memset(w->data, 1 + i + w->again, sizeof(w->data));
	for (unsigned k = 0; k < parts; k++) {
		unsigned n = k + 1 < parts ? 512u * (1 + (i + k) % 4) : PIECE - at;

		w->iov[k] = (struct iovec){w->data + at, n};
		at += n;
	}
	w->op = (struct io_op){
		.kind = IO_WRITE,
		.dsync = i / 20 == 2,
		.fd = w->f->fd,
		.align = 1,
		.offset = i * (uint64_t)PIECE,
		.bytes = PIECE,
		.iov = w->iov,
		.iovcnt = parts,
		.done = done,
		/* What was in the struct before is not the engine's. */
		.next = &w->op,
		.alone = i % 2,
	};
	w->f->left++;
	w->f->engine->ops->submit(w->f->engine, &w->op);
}

static void run(struct fixture *f)
{
	while (f->left)
		evloop_run_once(f->loop, -1);
}

static void submit_all(struct fixture *f, unsigned again)
{
	for (unsigned i = 0; i < OPS; i++) {
		/* Mostly up, with leaps back. */
		struct write *w = &f->writes[i / 16 * 16 + (i % 16 + i / 16 * 5) % 16];

		w->f = f;
		w->again = again;
		start(w);
		assert_int_equal(w->ended, 0);
	}
	run(f);
}

static void check_piece(struct fixture *f, unsigned i)
{
	uint8_t got[PIECE];

	assert_int_equal(pread(f->fd, got, PIECE, i * (off_t)PIECE), PIECE);
	assert_memory_equal(got, f->writes[i].data, PIECE);
}

static void test_side_by_side(void **state)
{
	struct fixture *f = *state;

	if (!f->engine)
		skip();
	submit_all(f, ROUNDS);
	for (unsigned i = 0; i < OPS; i++) {
		assert_int_equal(f->writes[i].ended, ROUNDS + 1);
		assert_int_equal(f->writes[i].ret, 0);
		check_piece(f, i);
	}
}

/* The file may not grow beyond the middle of a piece that is one of many. */
static void test_each_has_its_own_error(void **state)
{
	struct fixture *f = *state;
	unsigned last = OPS / 2 + 3;
	struct rlimit old, limit;

	if (!f->engine)
		skip();
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){last * PIECE + 1000, old.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	submit_all(f, 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	for (unsigned i = 0; i < OPS; i++) {
		assert_int_equal(f->writes[i].ended, 1);
		assert_int_equal(f->writes[i].ret, i < last ? 0 : -EFBIG);
		if (i < last)
			check_piece(f, i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_side_by_side, setup_uring, teardown),
		cmocka_unit_test_setup_teardown(test_side_by_side, setup_threads, teardown),
		cmocka_unit_test_setup_teardown(test_each_has_its_own_error, setup_uring, teardown),
		cmocka_unit_test_setup_teardown(test_each_has_its_own_error, setup_threads, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
