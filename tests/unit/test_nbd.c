/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD: names of servers, messages, the server with clients of every kind, and the client with a
 * server that loses its connections, on disks that finish in random order.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/nbd/uri.h"
#include "config.h"
#include "tests/lib/nbd_peer.h"

/* Names */

/* "key=value;..." without the driver. */
static void assert_options(const char *name, const char *expect)
{
	struct opts opts = {0};
	struct error *err = NULL;
	char text[512] = "";
	size_t at = 0;

	assert_true(nbd_is_filename(name));
	if (!nbd_parse_filename(name, &opts, &err))
		fail_msg("%s: %s", name, error_message(err));
	assert_string_equal(opts_peek(&opts, "driver"), "nbd");
	for (size_t i = 1; i < opts.count; i++)
		at += snprintf(text + at, sizeof(text) - at, "%s=%s;", opts.items[i].key,
			       opts.items[i].value);
	assert_string_equal(text, expect);
	opts_free(&opts);
}

static void test_names(void **state)
{
	assert_options("nbd://h", "server.type=inet;server.port=10809;server.host=h;");
	assert_options("nbd://h:1/", "server.type=inet;server.port=1;server.host=h;");
	assert_options("nbd+tcp:///a%20b",
		       "server.type=inet;server.port=10809;server.host=localhost;export=a b;");
	assert_options("nbds://[::1]:65535/a/b",
		       "server.type=inet;server.port=65535;server.host=::1;export=a/b;tls=on;");
	assert_options("nbds://h/x?tls-hostname=y",
		       "server.type=inet;server.port=10809;server.host=h;export=x;tls=on;"
		       "tls-hostname=y;");
	assert_options("nbd+unix:///x?socket=/a%3fb",
		       "server.type=unix;export=x;server.path=/a?b;");
	assert_options("nbds+unix://?socket=s", "server.type=unix;tls=on;server.path=s;");
	assert_options("nbd:h:7", "server.type=inet;server.port=7;server.host=h;");
	assert_options("nbd:[::1]:7:exportname=a:b?c%20d",
		       "export=a:b?c%20d;server.type=inet;server.port=7;server.host=::1;");
	assert_options("nbd:unix:/a b:exportname=x", "export=x;server.type=unix;server.path=/a b;");
}

static void test_bad_names(void **state)
{
	static const char *const names[] = {
		"nbd:",
		"nbd:h",
		"nbd:unix:",
		"nbd://h:",
		"nbd://h:x",
		"nbd://h:65536",
		"nbd://[::1",
		"nbd://[::1]x",
		"nbd://h/%",
		"nbd://h/%2",
		"nbd://h/%2g",
		"nbd://h/%00",
		"nbd://h/x#y",
		"nbd://u@h/x",
		"nbd://h/x?socket=y",
		"nbd+unix:///x",
		"nbd+unix://h?socket=y",
		"nbd+unix:///x?socket=",
		"nbd+unix:///x?sock=y",
		"nbd://h/x?tls-hostname=y",
		"nbd://h:1:2/",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct opts opts = {0};
		struct error *err = NULL;

		/* A port may be left out behind its colon. */
		if (nbd_parse_filename(names[i], &opts, &err))
			assert_string_equal(names[i], "nbd://h:");
		else
			assert_non_null(error_message(err));
		error_free(err);
		opts_free(&opts);
	}
	assert_false(nbd_is_filename("nbd"));
	assert_false(nbd_is_filename("/nbd://x"));
	assert_false(nbd_is_filename("nbdx://x"));
}

/* What a node is called opens the same. */
static void test_made_names(void **state)
{
	static const char *const exports[] = {"", "x", "a b/c?d#e%f", "\xc3\xa4:1"};

	for (size_t i = 0; i < ARRAY_SIZE(exports); i++) {
		for (int local = 0; local < 2; local++) {
			char *uri = nbd_make_uri(i & 1, local ? "/t m?p#%" : NULL, "::1", "7",
						 exports[i]);
			struct opts opts = {0};

			assert_true(nbd_parse_filename(uri, &opts, NULL));
			if (*exports[i])
				assert_string_equal(opts_peek(&opts, "export"), exports[i]);
			if (local)
				assert_string_equal(opts_peek(&opts, "server.path"), "/t m?p#%");
			else
				assert_string_equal(opts_peek(&opts, "server.host"), "::1");
			assert_int_equal(opts_has(&opts, "tls"), i & 1);
			opts_free(&opts);
			free(uri);
		}
	}
}

/* Messages */

static void test_info_query(void **state)
{
	static const uint8_t good[] = "\0\0\0\2ab\0\3\0\1\0\3\0\77";
	struct nbd_info_query q;

	assert_true(nbd_parse_info(good, sizeof(good) - 1, &q));
	assert_true(nbd_string_is(q.name, "ab"));
	assert_true(q.wants_name && q.wants_block_size && !q.wants_description);
	for (size_t n = 0; n < sizeof(good) - 1; n++)
		assert_false(nbd_parse_info(good, n, &q));
	assert_false(nbd_parse_info(good, sizeof(good), &q));
}

static void test_meta_query(void **state)
{
	static const uint8_t good[] = "\0\0\0\1x\0\0\0\2\0\0\0\5base:\0\0\0\1y";
	struct nbd_meta_query q;
	struct nbd_string s;

	assert_true(nbd_parse_meta(good, sizeof(good) - 1, &q));
	assert_int_equal(q.count, 2);
	assert_true(nbd_next_meta(&q, &s) && nbd_string_is(s, "base:"));
	assert_true(nbd_meta_matches(s, "base:allocation", true));
	assert_false(nbd_meta_matches(s, "base:allocation", false));
	assert_false(nbd_meta_matches(s, "qemu:allocation-depth", true));
	assert_true(nbd_next_meta(&q, &s) && nbd_string_is(s, "y"));
	assert_false(nbd_next_meta(&q, &s));
	for (size_t n = 0; n < sizeof(good) - 1; n++)
		assert_false(nbd_parse_meta(good, n, &q));
	assert_false(nbd_parse_meta(good, sizeof(good), &q));
	s = (struct nbd_string){"qemu:dirty-bitmap:", 18};
	assert_true(nbd_meta_matches(s, "qemu:dirty-bitmap:b", true));
	s.length = 0;
	assert_false(nbd_meta_matches(s, "qemu:dirty-bitmap:b", true));
}

static void test_request_checks(void **state)
{
	const struct nbd_agreed rw = {
		.size = 1000,
		.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_TRIM |
			 NBD_FLAG_SEND_FUA,
		.structured = true,
	};
	struct nbd_agreed ro = rw;
	struct nbd_request r = {.type = NBD_CMD_READ, .length = 1000};

	ro.flags |= NBD_FLAG_READ_ONLY;
	assert_int_equal(nbd_check_request(&r, &rw), 0);
	r.offset = 1;
	assert_int_equal(nbd_check_request(&r, &rw), EINVAL);
	r.offset = UINT64_MAX;
	assert_int_equal(nbd_check_request(&r, &rw), EINVAL);
	r = (struct nbd_request){.type = NBD_CMD_WRITE, .offset = 999, .length = 2};
	assert_int_equal(nbd_check_request(&r, &rw), ENOSPC);
	assert_int_equal(nbd_check_request(&r, &ro), EPERM);
	r = (struct nbd_request){.type = NBD_CMD_WRITE_ZEROES, .length = 1};
	assert_int_equal(nbd_check_request(&r, &rw), EINVAL); /* not offered */
	r = (struct nbd_request){.type = NBD_CMD_TRIM, .length = 1, .flags = NBD_CMD_FLAG_FUA};
	assert_int_equal(nbd_check_request(&r, &rw), 0);
	r.flags = NBD_CMD_FLAG_DF;
	assert_int_equal(nbd_check_request(&r, &rw), EINVAL);
	r = (struct nbd_request){.type = NBD_CMD_BLOCK_STATUS, .length = 1};
	assert_int_equal(nbd_check_request(&r, &rw), EINVAL); /* no context */
}

/* The server */

static uint32_t simple_reply(struct nbd_peer *p, uint64_t *cookie)
{
	uint8_t head[NBD_SIMPLE_BYTES];

	assert_int_equal(nbd_peer_read(p, head, sizeof(head)), sizeof(head));
	assert_int_equal(load_be32(head), NBD_SIMPLE_MAGIC);
	*cookie = load_be64(head + 8);
	return load_be32(head + 4);
}

static uint8_t disk_byte(uint64_t at)
{
	return at / 65536 & 1 ? at >> 8 : 0;
}

/* More requests than there are slots; the answers come in any order. */
static void test_pipelining(void **state)
{
	enum { N = 100, LEN = 3000 };
	struct nbd_peer p;
	bool seen[N] = {0};
	uint8_t data[LEN];
	uint64_t cookie;

	nbd_peer_init(&p, NULL, 0);
	nbd_peer_connect(&p);
	nbd_peer_go(&p, false);
	for (uint64_t i = 0; i < N; i++)
		nbd_peer_request(&p, NBD_CMD_READ, 0, i, i * 10000, LEN);
	for (int i = 0; i < N; i++) {
		assert_int_equal(simple_reply(&p, &cookie), 0);
		assert_true(cookie < N && !seen[cookie]);
		seen[cookie] = true;
		assert_int_equal(nbd_peer_read(&p, data, LEN), LEN);
		for (int j = 0; j < LEN; j++)
			assert_int_equal(data[j], disk_byte(cookie * 10000 + j));
	}
	nbd_peer_destroy(&p);
}

/* However the bytes are cut, they mean the same. */
static void test_cut_input(void **state)
{
	static const size_t steps[] = {1, 3, 27, 29, 4096, 0};
	uint8_t data[5000], *stream = xmalloc(64 * KiB);
	uint64_t cookie;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		struct nbd_peer p;
		size_t at = 0;

		nbd_peer_init(&p, NULL, 0);
		nbd_peer_connect(&p);
		nbd_peer_go(&p, false);
		for (int n = 0; n < 4; n++) {
			store_be32(stream + at, NBD_REQUEST_MAGIC);
			store_be32(stream + at + 4, NBD_CMD_WRITE);
			store_be64(stream + at + 8, n);
			store_be64(stream + at + 16, n * 7000);
			store_be32(stream + at + 24, sizeof(data));
			memset(stream + at + NBD_REQUEST_BYTES, n + 1, sizeof(data));
			at += NBD_REQUEST_BYTES + sizeof(data);
		}
		nbd_peer_send(&p, stream, at, steps[i]);
		for (int n = 0; n < 4; n++)
			assert_int_equal(simple_reply(&p, &cookie), 0);
		for (int n = 0; n < 4; n++) {
			memset(data, n + 1, sizeof(data));
			assert_memory_equal(p.disk->data + n * 7000, data, sizeof(data));
		}
		nbd_peer_destroy(&p);
	}
	free(stream);
}

/* Chunks of data and of zeroes, which together are what was asked for. */
static void test_structured_read(void **state)
{
	enum { FROM = 65536 - 100, LEN = 3 * 65536 };
	uint8_t head[NBD_CHUNK_BYTES + 8], *data = xmalloc(LEN), hole[4];
	struct nbd_peer p;
	uint64_t at = FROM;
	int holes = 0;
	bool done = false;

	nbd_peer_init(&p, NULL, 0);
	nbd_peer_connect(&p);
	nbd_peer_go(&p, true);
	nbd_peer_request(&p, NBD_CMD_READ, 0, 5, FROM, LEN);
	while (!done) {
		uint32_t n;

		assert_int_equal(nbd_peer_read(&p, head, sizeof(head)), sizeof(head));
		assert_int_equal(load_be32(head), NBD_CHUNK_MAGIC);
		assert_int_equal(load_be64(head + 8), 5);
		assert_int_equal(load_be64(head + NBD_CHUNK_BYTES), at);
		done = load_be16(head + 4) & NBD_REPLY_DONE;
		n = load_be32(head + 16) - 8;
		if (load_be16(head + 6) == NBD_REPLY_OFFSET_HOLE) {
			nbd_peer_read(&p, hole, 4);
			n = load_be32(hole);
			memset(data, 0, n);
			holes++;
		} else {
			assert_int_equal(load_be16(head + 6), NBD_REPLY_OFFSET_DATA);
			assert_int_equal(nbd_peer_read(&p, data, n), n);
		}
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(data[i], disk_byte(at + i));
		at += n;
	}
	assert_int_equal(at, FROM + LEN);
	assert_int_equal(holes, 2);
	/* An error has no data. */
	p.disk->fail_at = p.disk->ops + 1;
	p.disk->fail_with = -EIO;
	nbd_peer_request(&p, NBD_CMD_READ, 0, 6, 0, 512);
	assert_int_equal(nbd_peer_read(&p, head, NBD_CHUNK_BYTES + 6), NBD_CHUNK_BYTES + 6);
	assert_int_equal(load_be16(head + 6), NBD_REPLY_ERROR);
	assert_int_equal(load_be32(head + NBD_CHUNK_BYTES), 5);
	free(data);
	nbd_peer_destroy(&p);
}

/* Whoever goes while the disk still works for him takes nothing with him. */
static void test_sudden_ends(void **state)
{
	struct nbd_peer p;
	int others[3];
	uint64_t cookie;

	nbd_peer_init(&p, NULL, 4);
	for (int i = 0; i < 3; i++) {
		others[i] = nbd_peer_connect(&p);
		nbd_peer_go(&p, true);
		for (int n = 0; n < 20; n++)
			nbd_peer_request(&p, n & 1 ? NBD_CMD_READ : NBD_CMD_BLOCK_STATUS, 0, n, 0,
					 NBD_PEER_SIZE);
		nbd_peer_request(&p, NBD_CMD_WRITE, 0, 99, 0, 1000);
		close(others[i]); /* its payload never comes */
		p.fd = -1;
	}
	nbd_peer_connect(&p);
	nbd_peer_go(&p, false);
	nbd_peer_request(&p, NBD_CMD_FLUSH, 0, 3, 0, 0);
	assert_int_equal(simple_reply(&p, &cookie), 0);
	assert_int_equal(cookie, 3);
	assert_int_equal(nbd_server_clients(p.server), 1);
	/* An export goes, and its clients with it. */
	nbd_peer_request(&p, NBD_CMD_READ, 0, 3, 0, NBD_PEER_SIZE);
	assert_true(nbd_server_remove(p.server, ""));
	assert_false(nbd_server_remove(p.server, ""));
	assert_int_equal(nbd_server_clients(p.server), 0);
	assert_int_equal(p.left, 4);
	assert_int_equal(p.negotiated, 4);
	nbd_peer_destroy(&p);
	/* The server goes in the middle of it all. */
	nbd_peer_init(&p, NULL, 0);
	nbd_peer_connect(&p);
	nbd_peer_go(&p, true);
	for (int n = 0; n < 40; n++)
		nbd_peer_request(&p, NBD_CMD_READ, 0, n, 0, NBD_PEER_SIZE);
	nbd_server_free(p.server);
	p.server = NULL;
	nbd_peer_destroy(&p);
}

struct fake_clock {
	struct clock clock;
	int64_t now;
};

static int64_t fake_now(const struct clock *clock)
{
	return container_of(clock, struct fake_clock, clock)->now;
}

/* A client that never comes to the point makes room for others; one that is served may be slow. */
static void test_handshake_timeout(void **state)
{
	struct fake_clock clock = {{fake_now}, 1};
	struct nbd_peer p;
	int served;

	nbd_peer_init(&p, &clock.clock, 0);
	served = nbd_peer_connect(&p);
	nbd_peer_go(&p, false);
	nbd_peer_connect(&p);
	nbd_peer_settle(&p);
	assert_int_equal(nbd_server_clients(p.server), 2);
	clock.now += 11 * NSEC_PER_SEC;
	nbd_peer_settle(&p);
	assert_int_equal(nbd_server_clients(p.server), 1);
	assert_int_equal(p.left, 1);
	assert_int_equal(p.negotiated, 0);
	close(served);
	nbd_peer_destroy(&p);
}

/* The client */

#ifdef CONFIG_LIBNBD

struct bench {
	struct nbd_peer p;
	struct block_node *node;
	uint8_t *model;
	unsigned busy, failed;
	int listener;
	char *path;
};

static void listen_on(struct bench *b, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	strcpy(address.sun_path, path);
	unlink(path);
	b->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(b->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(b->listener, 10), 0);
	assert_int_equal(nbd_server_listen(b->p.server, b->listener), 0);
}

static void open_client(struct bench *b, const char *more)
{
	char *path = xasprintf("/tmp/test_nbd.%d", (int)getpid()), *text;
	struct error *err = NULL;
	struct opts opts;

	nbd_peer_init(&b->p, NULL, 0);
	listen_on(b, path);
	text = xasprintf("driver=nbd,path=%s%s", path, more);
	assert_true(opts_parse(&opts, text, NULL, NULL));
	b->node = block_open_tool(b->p.loop, &opts,
				  BLOCK_OPEN_RDWR | BLOCK_OPEN_BLOCKDEV | BLOCK_OPEN_UNMAP, NULL,
				  &err);
	if (!b->node)
		fail_msg("%s", error_message(err));
	assert_int_equal(b->node->length, NBD_PEER_SIZE);
	opts_free(&opts);
	free(text);
	b->path = path;
}

static void close_client(struct bench *b)
{
	/* Closing is done on a loop of its own, where there is no server to flush. */
	b->node->written = false;
	block_unref(b->node);
	nbd_peer_destroy(&b->p);
	unlink(b->path);
	free(b->path);
}

struct op {
	struct bench *b;
	struct block_req *req;
	struct iovec iov[3];
	uint8_t *buf;
	bool busy;
};

static void op_done(struct block_req *req, int ret)
{
	struct op *op = req->ctx;

	op->busy = false;
	op->b->busy--;
	op->b->failed += ret != 0;
	if (!ret && req->op == BLOCK_READ)
		assert_memory_equal(op->buf, op->b->model + req->offset, req->bytes);
}

/* Each op has an eighth of the disk to itself, so that the model is right in any order. */
static void start_op(struct op *op, unsigned slot, unsigned *seed)
{
	enum { SHARE = NBD_PEER_SIZE / 8 };
	struct bench *b = op->b;
	uint64_t offset = rand_r(seed) % SHARE, bytes = 1 + rand_r(seed) % (SHARE - offset);
	static const enum block_op ops[] = {BLOCK_READ, BLOCK_WRITE, BLOCK_WRITE,
					    BLOCK_WRITE_ZEROES, BLOCK_FLUSH};
	enum block_op what = ops[rand_r(seed) % ARRAY_SIZE(ops)];
	uint64_t cut = rand_r(seed) % (bytes + 1);

	offset += (uint64_t)slot * SHARE;
	if (what == BLOCK_FLUSH)
		offset = bytes = cut = 0;
	if (what == BLOCK_WRITE)
		memset(op->buf, rand_r(seed), bytes);
	op->iov[0] = (struct iovec){op->buf, cut};
	op->iov[1] = (struct iovec){op->buf + cut, 0};
	op->iov[2] = (struct iovec){op->buf + cut, bytes - cut};
	*op->req = (struct block_req){
		.node = b->node,
		.op = what,
		.flags = what == BLOCK_WRITE && rand_r(seed) % 4 == 0 ? BLOCK_FUA : 0,
		.offset = offset,
		.bytes = bytes,
		.iov = op->iov,
		.iovcnt = 3,
		.done = op_done,
		.ctx = op,
	};
	if (what == BLOCK_WRITE)
		memcpy(b->model + offset, op->buf, bytes);
	if (what == BLOCK_WRITE_ZEROES)
		memset(b->model + offset, 0, bytes);
	op->busy = true;
	b->busy++;
	block_submit(op->req);
}

/* Random requests; every now and then all connections are cut. */
static void run_client(struct bench *b, unsigned seed, unsigned cuts)
{
	struct op ops[8] = {0};
	unsigned started = 0;

	b->model = xmalloc(NBD_PEER_SIZE);
	memcpy(b->model, b->p.disk->data, NBD_PEER_SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		ops[i].b = b;
		ops[i].buf = xmalloc(NBD_PEER_SIZE);
		ops[i].req = xmalloc(block_req_size(b->node));
	}
	while (started < 200 || b->busy) {
		for (unsigned i = 0; i < ARRAY_SIZE(ops) && started < 200; i++) {
			if (ops[i].busy)
				continue;
			start_op(&ops[i], i, &seed);
			started++;
		}
		if (cuts && rand_r(&seed) % 40 == 0) {
			nbd_server_remove(b->p.server, "");
			nbd_peer_export(&b->p);
			cuts--;
		}
		evloop_run_once(b->p.loop, b->busy ? -1 : 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		free(ops[i].buf);
		free(ops[i].req);
	}
	assert_int_equal(block_flush(b->node), 0);
	if (!b->failed)
		assert_memory_equal(b->model, b->p.disk->data, NBD_PEER_SIZE);
	free(b->model);
}

static void test_client(void **state)
{
	for (unsigned seed = 1; seed <= 5; seed++) {
		struct bench b = {.listener = -1};

		open_client(&b, "");
		run_client(&b, seed, 0);
		assert_int_equal(b.failed, 0);
		close_client(&b);
	}
}

static void test_client_reconnects(void **state)
{
	for (unsigned seed = 1; seed <= 10; seed++) {
		struct bench b = {.listener = -1};

		open_client(&b, ",reconnect-delay=20");
		/* A request gives up after five connections. */
		run_client(&b, seed, 3);
		assert_int_equal(b.failed, 0);
		close_client(&b);
	}
}

static void test_client_errors(void **state)
{
	struct block_extent x;
	struct bench b = {.listener = -1};
	uint8_t buf[512];

	open_client(&b, "");
	b.p.disk->fail_at = b.p.disk->ops + 1;
	b.p.disk->fail_with = -ENOSPC;
	assert_int_equal(block_pwrite(b.node, 0, buf, 512, 0), -ENOSPC);
	assert_int_equal(block_pwrite(b.node, 0, buf, 512, 0), 0);
	assert_int_equal(block_status(b.node, 0, NBD_PEER_SIZE, &x), 0);
	assert_int_equal(x.bytes, NBD_PEER_SIZE);
	assert_true(x.data && x.allocated && !x.zero);
	/* Without reconnect-delay what is under way fails; what comes later finds a new
	 * connection, once there is one. */
	nbd_server_remove(b.p.server, "");
	assert_int_equal(block_pread(b.node, 0, buf, 512), -EIO);
	nbd_peer_export(&b.p);
	for (int i = 0; i < 300 && block_pread(b.node, 0, buf, 512); i++)
		evloop_run_once(b.p.loop, 10 * NSEC_PER_MSEC);
	assert_int_equal(block_pread(b.node, 0, buf, 512), 0);
	close_client(&b);
}

/* To another loop and back, with an attempt to connect under way. */
static void test_client_moves(void **state)
{
	struct evloop *other = evloop_new(NULL, NULL);
	struct bench b = {.listener = -1};
	uint8_t buf[512];

	open_client(&b, ",reconnect-delay=20");
	block_set_loop(b.node, other);
	block_set_loop(b.node, b.p.loop);
	assert_int_equal(block_pread(b.node, 0, buf, 512), 0);
	nbd_server_remove(b.p.server, "");
	nbd_peer_export(&b.p);
	for (int i = 0; i < 3; i++) {
		block_set_loop(b.node, other);
		evloop_run_once(other, 0);
		block_set_loop(b.node, b.p.loop);
		evloop_run_once(b.p.loop, 0);
	}
	assert_int_equal(block_pread(b.node, 0, buf, 512), 0);
	close_client(&b);
	evloop_free(other);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_bad_names),
		cmocka_unit_test(test_made_names),
		cmocka_unit_test(test_info_query),
		cmocka_unit_test(test_meta_query),
		cmocka_unit_test(test_request_checks),
		cmocka_unit_test(test_pipelining),
		cmocka_unit_test(test_cut_input),
		cmocka_unit_test(test_structured_read),
		cmocka_unit_test(test_sudden_ends),
		cmocka_unit_test(test_handshake_timeout),
#ifdef CONFIG_LIBNBD
		cmocka_unit_test(test_client),
		cmocka_unit_test(test_client_reconnects),
		cmocka_unit_test(test_client_errors),
		cmocka_unit_test(test_client_moves),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
