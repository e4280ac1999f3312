/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block layer's core: when done comes, what options mean and refuse, stacks of nodes, moving to
 * another loop, snapshot=on.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/create.h"
#include "block/driver.h"
#include "tests/lib/block_memdisk.h"
#include "vmm/core/thread.h"

struct fixture {
	struct evloop *loop;
	char dir[64];
	char path[128];
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->loop = evloop_new(NULL, NULL);
	strcpy(f->dir, "/tmp/vmm-block-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char *command = xasprintf("rm -rf %s", f->dir);

	evloop_free(f->loop);
	if (system(command))
		return -1;
	free(command);
	free(f);
	return 0;
}

static const char *at(struct fixture *f, const char *name)
{
	snprintf(f->path, sizeof(f->path), "%s/%s", f->dir, name);
	return f->path;
}

static void make(struct fixture *f, const char *name, bool qcow2, uint64_t size,
		 const char *backing, const char *format)
{
	struct block_create c = {.size = size, .backing = backing, .backing_format = format};
	struct error *err = NULL;

	assert_true(qcow2 ? block_create_qcow2(at(f, name), &c, &err)
			  : block_create_raw(at(f, name), &c, &err));
}

/* %s in text is the directory. */
static char *expand(const char *text, const char *dir)
{
	const char *mark = strstr(text, "%s");

	return mark ? xasprintf("%.*s%s%s", (int)(mark - text), text, dir, mark + 2)
		    : xstrdup(text);
}

static struct block_node *drive(struct fixture *f, const char *text,
				const struct block_names *names, bool blockdev, struct error **err)
{
	char *full = expand(text, f->dir);
	struct opts opts;
	struct block_node *node;

	assert_true(opts_parse(&opts, full, "file", NULL));
	node = blockdev ? block_open_blockdev(f->loop, &opts, names, err)
			: block_open(f->loop, &opts, err);
	opts_free(&opts);
	free(full);
	return node;
}

static struct block_node *good(struct fixture *f, const char *text)
{
	struct error *err = NULL;
	struct block_node *node = drive(f, text, NULL, false, &err);

	if (!node)
		fail_msg("%s: %s", text, error_message(err));
	return node;
}

static void bad(struct fixture *f, const char *text, const char *why)
{
	struct error *err = NULL;
	struct block_node *node = drive(f, text, NULL, false, &err);

	assert_null(node);
	if (!strstr(error_message(err), why))
		fail_msg("%s: '%s' is not about '%s'", text, error_message(err), why);
	error_free(err);
}

static void expect_bytes(struct block_node *node, uint64_t offset, int byte, size_t n)
{
	uint8_t *buf = xmalloc(n);

	assert_int_equal(block_pread(node, offset, buf, n), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(buf[i], byte);
	free(buf);
}

static void put_bytes(struct block_node *node, uint64_t offset, int byte, size_t n)
{
	uint8_t *buf = xmalloc(n);

	memset(buf, byte, n);
	assert_int_equal(block_pwrite(node, offset, buf, n, 0), 0);
	free(buf);
}

struct seen {
	int calls, ret;
	bool inside, wrong;
};

static void see(struct block_req *req, int ret)
{
	struct seen *s = req->ctx;

	s->calls++;
	s->ret = ret;
	s->wrong |= s->inside;
}

static void submit_one(struct block_node *node, struct seen *s, enum block_op op, uint64_t offset,
		       struct iovec *iov, uint64_t bytes, int want)
{
	struct block_req *req = xcalloc(1, block_req_size(node));

	*s = (struct seen){.inside = true};
	*req = (struct block_req){.node = node,
				  .op = op,
				  .offset = offset,
				  .bytes = bytes,
				  .iov = iov,
				  .iovcnt = iov ? 1 : 0,
				  .done = see,
				  .ctx = s};
	block_submit(req);
	s->inside = false;
	assert_int_equal(s->calls, 0);
	while (!s->calls)
		evloop_run_once(node->loop, -1);
	for (int i = 0; i < 3; i++)
		evloop_run_once(node->loop, 0);
	assert_int_equal(s->calls, 1);
	assert_int_equal(s->ret, want);
	free(req);
}

static void test_done_is_never_inside_submit(void **state)
{
	struct fixture *f = *state;
	char buf[512];
	struct iovec iov = {buf, sizeof(buf)};
	struct block_node *node;
	struct seen s;

	make(f, "a.qcow2", true, MiB, NULL, NULL);
	make(f, "a.raw", false, MiB, NULL, NULL);
	static const char *const kinds[] = {"file=%s/a.qcow2", "file=%s/a.raw,format=raw",
					    "driver=null-co,size=1M"};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		node = good(f, kinds[i]);
		submit_one(node, &s, BLOCK_READ, 0, &iov, 512, 0);
		submit_one(node, &s, BLOCK_READ, MiB, &iov, 512, -EIO);
		submit_one(node, &s, BLOCK_READ, UINT64_MAX, &iov, 512, -EIO);
		submit_one(node, &s, BLOCK_WRITE, 512, &iov, 512, 0);
		submit_one(node, &s, BLOCK_WRITE_ZEROES, 0, NULL, MiB, 0);
		submit_one(node, &s, BLOCK_DISCARD, 0, NULL, MiB, 0);
		submit_one(node, &s, BLOCK_READ, 0, NULL, 0, 0);
		submit_one(node, &s, BLOCK_FLUSH, 0, NULL, 0, 0);
		block_unref(node);
	}
}

static void test_read_only(void **state)
{
	struct fixture *f = *state;
	struct block_node *node;
	char buf[512] = "";

	make(f, "a.qcow2", true, MiB, NULL, NULL);
	node = good(f, "file=%s/a.qcow2,readonly=on");
	assert_true(block_read_only(node));
	assert_int_equal(block_pwrite(node, 0, buf, 512, 0), -EPERM);
	assert_int_equal(block_zero(node, 0, 512, 0), -EPERM);
	assert_int_equal(block_discard(node, 0, 512), -EPERM);
	expect_bytes(node, 0, 0, 512);
	assert_int_equal(block_flush(node), 0);
	block_unref(node);
}

static void test_options_that_are_refused(void **state)
{
	struct fixture *f = *state;

	make(f, "a.qcow2", true, MiB, NULL, NULL);
	make(f, "a.raw", false, MiB, NULL, NULL);
	bad(f, "file=%s/a.raw,format=raw,nonsense=1", "Invalid parameter 'nonsense'");
	bad(f, "file=%s/a.raw,format=raw,file.nonsense=1", "Invalid parameter 'nonsense'");
	bad(f, "file=%s/a.raw,format=raw,bps=1000", "'bps'");
	bad(f, "file=%s/a.raw,format=raw,copy-on-read=on,readonly=on", "read-only");
	bad(f, "file=%s/a.raw,format=raw,cache=lots", "cache");
	bad(f, "file=%s/a.raw,format=raw,aio=native", "requires cache.direct=on");
	bad(f, "file=%s/a.raw,format=raw,detect-zeroes=unmap", "without setting discard");
	bad(f, "file=%s/a.raw,format=raw,size=100", "not multiple of 512");
	bad(f, "file=%s/a.raw,format=raw,offset=2M", "cannot be greater");
	bad(f, "file=%s/a.raw,format=qcow3", "Unknown driver 'qcow3'");
	bad(f, "file=%s/a.raw,format=qcow2", "not in qcow2 format");
	bad(f, "file=%s/missing", "No such file");
	bad(f, "file=%s,format=raw", "Is a directory");
	bad(f, "file=gluster:localhost:10809", "Unknown protocol 'gluster'");
	bad(f, "file=%s/a.qcow2,l2-cache-size=x", "l2-cache-size");
	bad(f, "format=raw", "must be specified");
}

static void test_detect_zeroes_and_discard(void **state)
{
	struct fixture *f = *state;
	struct block_extent x;
	struct block_node *node;

	make(f, "a.qcow2", true, MiB, NULL, NULL);
	node = good(f, "file=%s/a.qcow2,discard=unmap,detect-zeroes=unmap");
	put_bytes(node, 0, 0, 128 << 10);
	assert_int_equal(block_status(node, 0, MiB, &x), 0);
	assert_false(x.data);
	put_bytes(node, 0, 1, 128 << 10);
	put_bytes(node, 0, 0, 64 << 10);
	assert_int_equal(block_status(node, 0, MiB, &x), 0);
	assert_true(x.zero && x.bytes == 64 << 10);
	block_unref(node);
	node = good(f, "file=%s/a.qcow2");
	assert_int_equal(block_discard(node, 64 << 10, 64 << 10), 0);
	expect_bytes(node, 64 << 10, 1, 64 << 10);
	block_unref(node);
}

static unsigned entries_in(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_snapshot_on_forgets(void **state)
{
	struct fixture *f = *state;
	struct block_node *node;

	make(f, "a.raw", false, MiB, NULL, NULL);
	node = good(f, "file=%s/a.raw,format=raw");
	put_bytes(node, 0, 5, 4096);
	block_unref(node);
	setenv("TMPDIR", f->dir, 1);
	node = good(f, "file=%s/a.raw,format=raw,snapshot=on");
	assert_int_equal(entries_in(f->dir), 3); /* nothing but . and .. and a.raw */
	expect_bytes(node, 0, 5, 4096);
	put_bytes(node, 0, 6, 4096);
	put_bytes(node, MiB - 512, 6, 512);
	expect_bytes(node, 0, 6, 4096);
	block_unref(node);
	unsetenv("TMPDIR");
	node = good(f, "file=%s/a.raw,format=raw");
	expect_bytes(node, 0, 5, 4096);
	expect_bytes(node, MiB - 512, 0, 512);
	block_unref(node);
}

static void test_backing_loops_and_depth(void **state)
{
	struct fixture *f = *state;
	char name[32], below[32];

	make(f, "self.qcow2", true, MiB, "self.qcow2", "qcow2");
	bad(f, "file=%s/self.qcow2,readonly=on", "loop");
	make(f, "x.qcow2", true, MiB, "y.qcow2", "qcow2");
	make(f, "y.qcow2", true, MiB, "x.qcow2", "qcow2");
	bad(f, "file=%s/x.qcow2,readonly=on", "loop");
	bad(f, "file=%s/x.qcow2", "loop");
	make(f, "odd.qcow2", true, MiB, "http://example.org/x", "qcow2");
	bad(f, "file=%s/odd.qcow2", "Could not open backing file: Unknown protocol 'http'");
	make(f, "fmt.qcow2", true, MiB, "x.qcow2", "hologram");
	bad(f, "file=%s/fmt.qcow2", "Unknown driver 'hologram'");
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "d%d.qcow2", i);
		snprintf(below, sizeof(below), "d%d.qcow2", i + 1);
		make(f, name, true, MiB, below, "qcow2");
	}
	bad(f, "file=%s/d290.qcow2", "No such file");
}

static void test_json_names(void **state)
{
	struct fixture *f = *state;
	struct block_node *node;
	char *text;

	make(f, "base.raw", false, MiB, NULL, NULL);
	node = good(f, "file=%s/base.raw,format=raw");
	put_bytes(node, 0, 3, MiB);
	block_unref(node);
	text = xasprintf("json:{\"driver\":\"raw\",\"size\":4096,\"offset\":512,"
			 "\"file\":{\"driver\":\"file\",\"filename\":\"%s/base.raw\"}}",
			 f->dir);
	make(f, "top.qcow2", true, MiB, text, NULL);
	free(text);
	node = good(f, "file=%s/top.qcow2");
	expect_bytes(node, 0, 3, 4096);
	expect_bytes(node, 4096, 0, 4096);
	assert_string_equal(node->backing->drv->name, "raw");
	block_unref(node);
	node = good(f, "file=%s/top.qcow2,backing=");
	expect_bytes(node, 0, 0, 4096);
	block_unref(node);
}

static struct block_node *find_named(void *opaque, const char *name)
{
	struct block_node **nodes = opaque;

	for (int i = 0; nodes[i]; i++)
		if (!strcmp(block_name(nodes[i]), name))
			return nodes[i];
	return NULL;
}

static void test_blockdev_graph(void **state)
{
	struct fixture *f = *state;
	struct block_node *nodes[4] = {NULL}, *top, *other;
	struct block_names names = {find_named, nodes};
	struct error *err = NULL;

	make(f, "base.raw", false, MiB, NULL, NULL);
	make(f, "top.qcow2", true, MiB, "base.raw", "raw");
	nodes[0] = drive(f, "driver=file,node-name=f0,filename=%s/top.qcow2", &names, true, &err);
	assert_non_null(nodes[0]);
	nodes[1] = drive(f,
			 "driver=raw,node-name=b0,read-only=on,file.driver=file,"
			 "file.filename=%s/base.raw",
			 &names, true, &err);
	assert_non_null(nodes[1]);
	top = drive(f, "driver=qcow2,node-name=t0,file=f0,backing=b0,discard=unmap", &names, true,
		    &err);
	assert_non_null(top);
	assert_ptr_equal(top->file, nodes[0]);
	assert_ptr_equal(top->backing, nodes[1]);
	put_bytes(top, 100, 9, 5000);
	expect_bytes(top, 100, 9, 5000);
	/* A node has one parent. */
	other = drive(f, "driver=raw,file=f0", &names, true, &err);
	assert_null(other);
	assert_non_null(strstr(error_message(err), "already in use"));
	error_free(err);
	err = NULL;
	assert_null(drive(f, "driver=raw,file=nobody", &names, true, &err));
	assert_non_null(strstr(error_message(err), "nobody"));
	error_free(err);
	err = NULL;
	assert_null(drive(f, "node-name=x,file=f0", &names, true, &err));
	error_free(err);
	err = NULL;
	block_unref(top);
	/* Free again, and still open. */
	top = drive(f, "driver=qcow2,file=f0,backing=b0", &names, true, &err);
	assert_non_null(top);
	expect_bytes(top, 100, 9, 5000);
	block_unref(top);
	block_unref(nodes[0]);
	block_unref(nodes[1]);
}

struct away {
	struct block_node *node;
	struct evloop *loop, *there;
};

static void use_away(void *opaque)
{
	struct away *a = opaque;

	put_bytes(a->node, 4096, 8, 70000);
	expect_bytes(a->node, 4096, 8, 70000);
	assert_int_equal(block_flush(a->node), 0);
}

static void take_home(void *opaque)
{
	struct away *a = opaque;

	block_set_loop(a->node, a->loop);
}

static void bring(void *opaque)
{
	struct away *a = opaque;

	block_set_loop(a->node, a->there);
}

static void test_moves_between_loops(void **state)
{
	struct fixture *f = *state;
	static const char *const kinds[] = {"file=%s/a.qcow2", "file=%s/a.qcow2,file.aio=threads",
					    "file=%s/a.qcow2,cache=none,file.aio=native"};

	make(f, "a.qcow2", true, MiB, NULL, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct iothread *t = iothread_new("t0", NULL);
		struct away a = {good(f, kinds[i]), f->loop, t->loop};

		put_bytes(a.node, 0, 7, 4096);
		evloop_call(t->loop, bring, &a);
		evloop_call(t->loop, use_away, &a);
		evloop_call(t->loop, take_home, &a);
		iothread_free(t);
		expect_bytes(a.node, 0, 7, 4096);
		expect_bytes(a.node, 4096, 8, 70000);
		block_unref(a.node);
	}
}

static void count_resize(struct notifier *n, void *data)
{
	assert_true(block_length(data) == 3 * MiB);
	n->fn = NULL;
}

static void test_resize_tells(void **state)
{
	struct fixture *f = *state;
	struct notifier n = {.fn = count_resize};
	struct block_node *node;

	make(f, "a.qcow2", true, MiB, NULL, NULL);
	node = good(f, "file=%s/a.qcow2");
	notifier_add(block_resize_notifiers(node), &n);
	assert_int_equal(block_truncate(node, 3 * MiB, NULL), 0);
	assert_null(n.fn);
	put_bytes(node, 3 * MiB - 512, 1, 512);
	notifier_remove(block_resize_notifiers(node), &n);
	block_unref(node);
}

static void test_policies(void **state)
{
	assert_int_equal(block_error_action(BLOCK_ERR_ENOSPC, -ENOSPC), BLOCK_ERR_STOP);
	assert_int_equal(block_error_action(BLOCK_ERR_ENOSPC, -EIO), BLOCK_ERR_REPORT);
	assert_int_equal(block_error_action(BLOCK_ERR_IGNORE, -EIO), BLOCK_ERR_IGNORE);
}

/* Writethrough: each write is followed by a sync of the disk below. */
static void test_writethrough_syncs(void **state)
{
	struct fixture *f = *state;
	struct block_create c = {.size = MiB};
	uint64_t length;
	uint8_t *image = memdisk_make_qcow2(&c, &length);
	struct memdisk *disk = memdisk_new(f->loop, image, length, 2 * MiB);
	struct block_node *node = memdisk_open(disk, "qcow2", NULL, BLOCK_OPEN_RDWR, NULL);
	uint64_t before;

	free(image);
	put_bytes(node, 0, 1, 512);
	before = disk->flushes;
	assert_true(block_writeback(node));
	block_set_writeback(node, false);
	put_bytes(node, 0, 2, 512);
	assert_true(disk->flushes > before);
	block_unref(node);
	memdisk_free(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_done_is_never_inside_submit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_options_that_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_detect_zeroes_and_discard, setup, teardown),
		cmocka_unit_test_setup_teardown(test_snapshot_on_forgets, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backing_loops_and_depth, setup, teardown),
		cmocka_unit_test_setup_teardown(test_json_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_blockdev_graph, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moves_between_loops, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resize_tells, setup, teardown),
		cmocka_unit_test_setup_teardown(test_policies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_writethrough_syncs, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
