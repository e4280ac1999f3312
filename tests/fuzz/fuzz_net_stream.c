/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the other end of a stream back end sends. Input: a byte that chooses how much the guest has
 * room for, a byte for the length of the pieces in which the rest arrives.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/frames.h"
#include "net/stream.h"
#include "tests/lib/net_fake.h"
#include "vmm/core/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is found lies inside, in order, and is what was used. */
static void check_cut(const uint8_t *data, size_t size)
{
	struct iovec packets[3];
	size_t used = 0, sum = 0;
	ssize_t n = net_frames_cut(data, size, packets, ARRAY_SIZE(packets), &used);
	const uint8_t *at = data;

	for (ssize_t i = 0; i < n; i++) {
		const uint8_t *p = packets[i].iov_base;

		if (p < at + NET_FRAMES_HEADER || !packets[i].iov_len)
			abort();
		at = p + packets[i].iov_len;
		sum += NET_FRAMES_HEADER + packets[i].iov_len;
	}
	if (n >= 0 && (used > size || sum > used || at > data + used))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct net_addr addr = {.type = NET_ADDR_FD};
	unsigned room, chunk;
	struct net_fake f;
	struct net_stream *s;
	uint8_t out[256];
	int sv[2];

	check_cut(data, size);
	if (size < 2 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv)) {
		evloop_free(loop);
		return 0;
	}
	room = data[0];
	chunk = 1 + data[1] * 16;
	data += 2, size -= 2;
	addr.fd = sv[0];
	addr.str = xstrdup("3");
	s = net_stream_new(loop, "stream", "n0", &addr, false);
	net_stream_start(s, NULL);
	net_fake_init(&f, &s->nd, loop, 1, 256, 3);
	net_fake_add_room(&f, 0, room);
	for (unsigned turns = 0; size && turns < 1000; turns++) {
		ssize_t n = send(sv[1], data, MIN(size, chunk), MSG_NOSIGNAL);

		if (n > 0)
			data += n, size -= n;
		net_fake_settle(&f);
		while (net_fake_take(&f, 0, out) >= 0)
			;
		net_fake_add_room(&f, 0, room);
	}
	close(sv[1]);
	net_fake_settle(&f);
	net_fake_destroy(&f);
	net_free(&s->nd);
	evloop_free(loop);
	return 0;
}
