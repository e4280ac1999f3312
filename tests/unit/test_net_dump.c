/* SPDX-License-Identifier: Apache-2.0 */
/*
 * filter-dump: what stands in the file after packets went by a back end that the test plays.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/dump.h"
#include "vmm/core/util.h"

enum { FRAME = 2000 };

struct fixture {
	struct evloop *loop;
	struct netdev nd;
	char dir[32], *file;
	uint8_t *data; /* of the file */
	size_t len, at;
	unsigned takes; /* how many packets are sent yet */
	bool answers;	/* each packet at once */
	uint8_t room[NET_PACKET_MAX], frame[FRAME];
	struct iovec iov[200];
	unsigned pieces; /* of the guest's room */
};

static unsigned send_packets(struct net_queue *q, const struct net_packet *pkts, unsigned n)
{
	struct fixture *x = container_of(q->netdev, struct fixture, nd);
	const struct iovec reply = {"the answer to the packet", 24};
	unsigned taken = MIN(n, x->takes);

	x->takes -= taken;
	for (unsigned i = 0; i < taken && x->answers; i++)
		net_receive_copy(q, &reply, 1);
	return taken;
}

static void ready(struct net_queue *q)
{
}

static bool attach(struct net_queue *q, struct error **err)
{
	return true;
}

static void detach(struct net_queue *q)
{
}

static const struct netdev_ops ops = {.type = "test",
				      .send = send_packets,
				      .receive_ready = ready,
				      .attach = attach,
				      .detach = detach};

/* Room in many pieces of 16 bytes: more than one write takes. */
static unsigned buffers(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n)
{
	struct fixture *x = opaque;

	for (unsigned i = 0; i < x->pieces; i++)
		x->iov[i] = (struct iovec){x->room + i * 16, 16};
	pkts[0] = (struct net_packet){x->iov, x->pieces, x->pieces * 16};
	return 1;
}

static void received(void *opaque, unsigned queue, const struct net_packet *pkts, unsigned n)
{
}

static int setup(void **state)
{
	struct fixture *x = xcalloc(1, sizeof(*x));

	x->loop = evloop_new(NULL, NULL);
	netdev_init(&x->nd, &ops, "n0", 1);
	strcpy(x->dir, "/tmp/vmm-dump-XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	x->file = xasprintf("%s/pcap", x->dir);
	x->takes = UINT32_MAX;
	x->pieces = 8;
	for (size_t i = 0; i < FRAME; i++)
		x->frame[i] = i * 3;
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	netdev_destroy(&x->nd);
	evloop_free(x->loop);
	unlink(x->file);
	rmdir(x->dir);
	free(x->file);
	free(x->data);
	free(x);
	return 0;
}

static struct net_dump *start(struct fixture *x, const char *more, const struct net_peer *peer)
{
	char *text = xasprintf("file=%s%s", x->file, more);
	struct error *err = NULL;
	struct net_dump *d;
	struct opts opts;

	assert_true(opts_parse(&opts, text, NULL, NULL));
	d = net_dump_new(&x->nd, &opts, &err);
	if (!d)
		fail_msg("%s: %s", text, error_message(err));
	assert_true(net_attach(&x->nd, peer, &x->loop, 1, NULL));
	opts_free(&opts);
	free(text);
	return d;
}

static void stop(struct fixture *x, struct net_dump *d)
{
	FILE *in = fopen(x->file, "r");

	net_detach(&x->nd);
	net_dump_free(d);
	assert_null(x->nd.filters);
	x->data = xmalloc(1 << 20);
	x->len = fread(x->data, 1, 1 << 20, in);
	fclose(in);
	assert_int_equal(load_le32(x->data), 0xa1b2c3d4);
	assert_int_equal(load_le16(x->data + 4), 2);
	assert_int_equal(load_le16(x->data + 6), 4);
	assert_int_equal(load_le32(x->data + 20), 1);
	x->at = 24;
}

/* The next record: kept bytes, of len. */
static const uint8_t *record(struct fixture *x, size_t kept, size_t len)
{
	const uint8_t *r = x->data + x->at;

	assert_true(x->at + 16 + kept <= x->len);
	assert_true(load_le32(r + 4) < 1000000);
	assert_int_equal(load_le32(r + 8), kept);
	assert_int_equal(load_le32(r + 12), len);
	x->at += 16 + kept;
	return r + 16;
}

static unsigned say(struct fixture *x, size_t hdr, size_t len, unsigned count)
{
	static uint8_t header[12];
	struct iovec iov[3] = {{header, hdr}, {x->frame, 100}, {x->frame + 100, len - 100}};
	struct net_packet pkts[4];

	for (unsigned i = 0; i < count; i++)
		pkts[i] = (struct net_packet){hdr ? iov : iov + 1, hdr ? 3 : 2, hdr + len};
	return net_send(&x->nd, 0, pkts, count);
}

static struct net_peer make_peer(struct fixture *x)
{
	return (struct net_peer){.buffers = buffers, .received = received, .opaque = x};
}

static void test_both_ways(void **state)
{
	struct fixture *x = *state;
	const struct net_peer peer = make_peer(x);
	struct net_dump *d = start(x, "", &peer);

	/* A question stands before its answer, though the answer comes while it is being sent. */
	x->answers = true;
	assert_int_equal(say(x, 0, 1500, 2), 2);
	stop(x, d);
	assert_int_equal(load_le32(x->data + 16), 65536);
	for (int i = 0; i < 2; i++) {
		assert_memory_equal(record(x, 1500, 1500), x->frame, 1500);
		assert_memory_equal(record(x, 24, 24), "the answer to the packet", 24);
	}
	assert_int_equal(x->at, x->len);
}

static void test_header(void **state)
{
	struct fixture *x = *state;
	const struct net_peer peer = make_peer(x);
	struct net_dump *d = start(x, ",maxlen=64", &peer);
	const struct iovec reply = {x->frame, 130};

	x->nd.vnet_hdr_max = 12;
	net_set_vnet_hdr(&x->nd, 12);
	x->pieces = 100;
	say(x, 12, 1500, 1);
	net_receive_copy(&x->nd.queue[0], &reply, 1);
	stop(x, d);
	assert_int_equal(load_le32(x->data + 16), 64);
	assert_memory_equal(record(x, 64, 1500), x->frame, 64);
	assert_memory_equal(record(x, 64, 118), x->frame + 12, 64);
	assert_int_equal(x->at, x->len);
}

static void test_many_pieces(void **state)
{
	struct fixture *x = *state;
	const struct net_peer peer = make_peer(x);
	struct net_dump *d = start(x, "", &peer);
	const struct iovec frame = {x->frame, 2000};

	x->pieces = 200;
	net_receive_copy(&x->nd.queue[0], &frame, 1);
	stop(x, d);
	assert_memory_equal(record(x, 2000, 2000), x->frame, 2000);
}

/* What is not taken is written once, when it goes; what a pulled cable loses is not. */
static void test_back_pressure(void **state)
{
	struct fixture *x = *state;
	const struct net_peer peer = make_peer(x);
	struct net_dump *d = start(x, "", &peer);

	x->takes = 1;
	assert_int_equal(say(x, 0, 200, 3), 1);
	assert_int_equal(say(x, 0, 200, 2), 0);
	x->takes = 2;
	assert_int_equal(say(x, 0, 200, 2), 2);
	net_set_link(&x->nd, false);
	assert_int_equal(say(x, 0, 200, 4), 4);
	stop(x, d);
	for (int i = 0; i < 3; i++)
		record(x, 200, 200);
	assert_int_equal(x->at, x->len);
}

static void test_direction(void **state)
{
	struct fixture *x = *state;
	const struct net_peer peer = make_peer(x);
	struct net_dump *d = start(x, ",queue=tx", &peer);

	x->answers = true;
	say(x, 0, 200, 1);
	stop(x, d);
	record(x, 24, 24);
	assert_int_equal(x->at, x->len);
}

/* A host whose disk is full costs the file's rest, no packet. */
static void test_full_disk(void **state)
{
	struct fixture *x = *state;
	const struct net_peer peer = make_peer(x);
	struct error *err = NULL;
	struct opts opts = {0};

	signal(SIGPIPE, SIG_IGN);
	opts_add(&opts, "file", "/dev/full");
	assert_null(net_dump_new(&x->nd, &opts, &err));
	assert_non_null(strstr(error_message(err), "No space left"));
	error_free(err);
	err = NULL;
	opts_add(&opts, "file", "/nonexistent/x");
	assert_null(net_dump_new(&x->nd, &opts, &err));
	assert_non_null(strstr(error_message(err), "cannot write"));
	error_free(err);
	err = NULL;
	opts_add(&opts, "maxlen", "0");
	assert_null(net_dump_new(&x->nd, &opts, &err));
	assert_non_null(strstr(error_message(err), "'maxlen'"));
	error_free(err);
	opts_free(&opts);
	assert_null(x->nd.filters);
	assert_true(net_attach(&x->nd, &peer, &x->loop, 1, NULL));
	assert_int_equal(say(x, 0, 200, 1), 1);
	net_detach(&x->nd);
}

int main(void)
{
#define DUMP_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		DUMP_TEST(test_both_ways),   DUMP_TEST(test_header),
		DUMP_TEST(test_many_pieces), DUMP_TEST(test_back_pressure),
		DUMP_TEST(test_direction),   DUMP_TEST(test_full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
