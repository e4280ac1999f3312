/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ceph RBD: names, and the driver on a library of this program's own, whose image is in memory and
 * which calls back from a thread of its own, in any order.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block/driver.h"
#include "block/rbd/rbd.h"

static void try_name(const char *name, const char *want)
{
	struct opts opts = {0};
	struct error *err = NULL;
	char *text = xstrdup("");

	if (!rbd_parse_filename(name, &opts, &err)) {
		if (want)
			fail_msg("%s: %s", name, error_message(err));
		error_free(err);
	} else {
		for (size_t i = 1; i < opts.count; i++) {
			char *more = xasprintf("%s%s%s=%s", text, i > 1 ? "," : "",
					       opts.items[i].key, opts.items[i].value);

			free(text);
			text = more;
		}
		if (!want || strcmp(text, want))
			fail_msg("%s: %s", name, text);
	}
	free(text);
	opts_free(&opts);
}

static void test_names(void **state)
{
	try_name("p/i", "pool=p,image=i");
	try_name("p/n/i@s:id=admin:conf=/etc/x", "pool=p,namespace=n,image=i,snapshot=s,user=admin,"
						 "conf=/etc/x");
	try_name("p\\/q/i\\@j\\:k\\\\", "pool=p/q,image=i@j:k\\");
	try_name("p/i:mon_host=h\\:1\\;g:a=b",
		 "pool=p,image=i,keyvalue.0.key=mon_host,keyvalue.0.value=h:1;g,"
		 "keyvalue.1.key=a,keyvalue.1.value=b");
	try_name("p/a/b/c", "pool=p,namespace=a,image=b/c");
	try_name("p", NULL);
	try_name("p/", NULL);
	try_name("/i", NULL);
	try_name("p/i@", NULL);
	try_name("p/i:", NULL);
	try_name("p/i:conf", NULL);
	try_name("", NULL);
}

static void test_base64(void **state)
{
	const char *const pairs[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}};

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		char *out = rbd_base64(pairs[i][0], strlen(pairs[i][0]));

		assert_string_equal(out, pairs[i][1]);
		free(out);
	}
}

#ifdef CONFIG_RBD
/* The library */

struct op {
	void *arg;
	rbd_callback_t call;
	int64_t ret;
	bool held; /* not yet to be done */
	struct op *next;
};

/* One image for the whole process, as the functions have no other place for it. */
struct fake {
	uint8_t *data;
	uint64_t size;
	int fail; /* what the next write returns */
	unsigned flushes, confs;
	char key[64];
	bool open;
};

static struct fake *fake(void)
{
	static struct fake f;

	return &f;
}

static int f_create(rados_t *cluster, const char *id)
{
	*cluster = fake();
	return id && !strcmp(id, "nobody") ? -EACCES : 0;
}

static int f_conf_file(rados_t cluster, const char *path)
{
	return path && strcmp(path, "/dev/null") ? -ENOENT : 0;
}

static int f_conf_set(rados_t cluster, const char *option, const char *value)
{
	fake()->confs++;
	if (!strcmp(option, "key") || !strcmp(option, "mon_host"))
		snprintf(fake()->key, sizeof(fake()->key), "%s", value);
	return !strcmp(option, "wrong") ? -EINVAL : 0;
}

static int f_connect(rados_t cluster)
{
	return 0;
}

static void f_shutdown(rados_t cluster)
{
}

static int f_io(rados_t cluster, const char *pool, rados_ioctx_t *io)
{
	*io = fake();
	return strcmp(pool, "p") ? -ENOENT : 0;
}

static void f_namespace(rados_ioctx_t io, const char *name)
{
}

static void f_io_destroy(rados_ioctx_t io)
{
}

static int f_open(rados_ioctx_t io, const char *name, rbd_image_t *image, const char *snapshot)
{
	*image = fake();
	if (strcmp(name, "i"))
		return -ENOENT;
	fake()->open = true;
	return 0;
}

static int f_close(rbd_image_t image)
{
	fake()->open = false;
	return 0;
}

static int f_stat(rbd_image_t image, rbd_image_info_t *info, size_t bytes)
{
	*info = (rbd_image_info_t){.size = fake()->size, .obj_size = 4 * MiB};
	return 0;
}

static int f_resize(rbd_image_t image, uint64_t size)
{
	fake()->data = xrealloc(fake()->data, size);
	if (size > fake()->size)
		memset(fake()->data + fake()->size, 0, size - fake()->size);
	fake()->size = size;
	return 0;
}

static int f_make(rados_ioctx_t io, const char *name, uint64_t size, int *order)
{
	return f_resize(NULL, size);
}

static int f_completion(void *arg, rbd_callback_t call, rbd_completion_t *c)
{
	struct op *op = xcalloc(1, sizeof(*op));

	op->arg = arg;
	op->call = call;
	*c = op;
	return 0;
}

static ssize_t f_value(rbd_completion_t c)
{
	return ((struct op *)c)->ret;
}

static void f_release(rbd_completion_t c)
{
	free(c);
}

static void *later(void *opaque)
{
	struct op *op = opaque;

	op->call(op, op->arg);
	return NULL;
}

static int end(struct op *op, int64_t ret)
{
	pthread_t thread;

	op->ret = ret;
	if (pthread_create(&thread, NULL, later, op))
		return -EAGAIN;
	pthread_detach(thread);
	return 0;
}

static int f_readv(rbd_image_t image, const struct iovec *iov, int n, uint64_t at,
		   rbd_completion_t c)
{
	uint64_t start = at;

	for (int i = 0; i < n; at += iov[i++].iov_len)
		if (at < fake()->size)
			memcpy(iov[i].iov_base, fake()->data + at,
			       MIN(iov[i].iov_len, fake()->size - at));
	return end(c, MIN(at, fake()->size) - start);
}

static int f_writev(rbd_image_t image, const struct iovec *iov, int n, uint64_t at,
		    rbd_completion_t c)
{
	int ret = fake()->fail;

	fake()->fail = 0;
	for (int i = 0; i < n && !ret; at += iov[i++].iov_len)
		memcpy(fake()->data + at, iov[i].iov_base, iov[i].iov_len);
	return end(c, ret);
}

static int f_flush(rbd_image_t image, rbd_completion_t c)
{
	fake()->flushes++;
	return end(c, 0);
}

static int f_discard(rbd_image_t image, uint64_t at, uint64_t len, rbd_completion_t c)
{
	memset(fake()->data + at, 0, len);
	return end(c, 0);
}

static int f_zeroes(rbd_image_t image, uint64_t at, size_t len, rbd_completion_t c, int flags,
		    int op)
{
	memset(fake()->data + at, 0, len);
	return end(c, 0);
}

bool rbd_load(struct rbd_calls *calls, struct error **err)
{
	*calls = (struct rbd_calls){
		f_create,    f_conf_file,  f_conf_set,	 f_connect, f_shutdown, f_io,
		f_namespace, f_io_destroy, f_open,	 f_open,    f_close,	f_stat,
		f_resize,    f_make,	   f_completion, f_value,   f_release,	f_readv,
		f_writev,    f_flush,	   f_discard,	 f_zeroes,
	};
	return true;
}

static struct block_node *open_text(struct evloop *loop, const char *text, uint32_t flags,
				    struct error **err)
{
	struct opts opts = {0};
	struct block_node *node;

	assert_true(opts_parse(&opts, text, NULL, err));
	node = block_open_tool(loop, &opts, flags | BLOCK_OPEN_BLOCKDEV, NULL, err);
	opts_free(&opts);
	return node;
}

static void test_requests(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct error *err = NULL;
	struct block_node *node;
	uint8_t a[6000], b[6000], c[3];
	struct iovec iov[] = {{a, 1000}, {a + 1000, 5000}, {c, 3}};

	f_resize(NULL, MiB);
	node = open_text(loop,
			 "driver=rbd,pool=p,image=i,server.0.host=h,server.0.port=1,"
			 "server.1.host=::1",
			 BLOCK_OPEN_RDWR, &err);
	assert_non_null(node);
	assert_string_equal(fake()->key, "h:1;[::1]");
	assert_string_equal(block_filename(node), "rbd:p/i");
	for (size_t i = 0; i < sizeof(a); i++)
		a[i] = i * 7;
	/* More iovecs than bytes; a write that must be durable flushes. */
	assert_int_equal(block_do(node, BLOCK_WRITE, 512, iov, 3, 5632, BLOCK_FUA), 0);
	assert_int_equal(fake()->flushes, 1);
	assert_memory_equal(fake()->data + 512, a, 5632);
	assert_int_equal(block_pread(node, 512, b, 5632), 0);
	assert_memory_equal(a, b, 5632);
	assert_int_equal(block_zero(node, 1024, 512, 0), 0);
	assert_true(block_buf_is_zero(fake()->data + 1024, 512));
	fake()->fail = -ENOSPC;
	assert_int_equal(block_pwrite(node, 0, a, 512, BLOCK_FUA), -ENOSPC);
	assert_int_equal(block_flush(node), 0);
	assert_int_equal(fake()->flushes, 2);
	assert_int_equal(block_truncate(node, 2 * MiB, &err), 0);
	assert_int_equal(block_length(node), 2 * MiB);
	block_unref(node);
	assert_false(fake()->open);
	evloop_free(loop);
}

static void test_many_at_once(void **state)
{
	enum { N = 40 };
	struct evloop *loop = evloop_new(NULL, NULL);
	struct block_node *node = open_text(loop,
					    "driver=qcow2,file.driver=rbd,file.pool=p,file.image=i",
					    BLOCK_OPEN_RDWR, NULL);
	const struct block_driver *rbd = block_find_driver("rbd");
	struct opts opts = {0};
	struct block_create c = {.size = 4096, .opts = &opts};
	struct error *err = NULL;
	uint8_t buf[8192];

	assert_null(node); /* there is no image yet */
	assert_true(rbd->create("rbd:p/i", &c, &err));
	/* A format grows its file. */
	node = open_text(loop, "driver=rbd,pool=p,image=i", BLOCK_OPEN_RDWR, NULL);
	node->growable = true;
	for (unsigned i = 0; i < N; i++) {
		memset(buf, i + 1, sizeof(buf));
		assert_int_equal(block_pwrite(node, i * sizeof(buf), buf, sizeof(buf), 0), 0);
	}
	assert_int_equal(fake()->size, N * sizeof(buf));
	memset(buf, 1, sizeof(buf));
	assert_int_equal(block_pread(node, N * sizeof(buf) - 512, buf, 1024), 0);
	assert_int_equal(buf[511], N);
	assert_true(block_buf_is_zero(buf + 512, 512));
	block_unref(node);
	evloop_free(loop);
	free(fake()->data);
	fake()->data = NULL;
	fake()->size = 0;
}

static void test_refusals(void **state)
{
	static const char *const texts[] = {
		"driver=rbd,image=i",
		"driver=rbd,pool=p",
		"driver=rbd,pool=q,image=i",
		"driver=rbd,pool=p,image=j",
		"driver=rbd,pool=p,image=i,user=nobody",
		"driver=rbd,pool=p,image=i,conf=/none",
		"driver=rbd,pool=p,image=i,key-secret=s",
		"driver=rbd,pool=p,image=i,snapshot=s",
		"driver=rbd,pool=p,image=i,keyvalue.0.key=wrong,keyvalue.0.value=1",
		"driver=rbd,pool=p,image=i,encrypt.format=luks",
	};
	struct evloop *loop = evloop_new(NULL, NULL);

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct error *err = NULL;

		if (open_text(loop, texts[i], BLOCK_OPEN_RDWR, &err))
			fail_msg("%s", texts[i]);
		assert_non_null(error_message(err));
		error_free(err);
		assert_false(fake()->open);
	}
	evloop_free(loop);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	 cmocka_unit_test(test_base64),
#ifdef CONFIG_RBD
		cmocka_unit_test(test_requests), cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_refusals),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
