/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest on a user-mode network that sends arbitrary packets with arbitrary headers, and arbitrary
 * packets on their way to it, which may be joined. The network is restricted: nothing leaves the
 * process. Input: a byte that chooses header and offloads, then packets: a byte that says which
 * way, their length in two bytes, little-endian, and themselves.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "net/net.h"
#include "vmm/core/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef CONFIG_SLIRP
#include "net/user.h"

enum { ROOMS = 4 };

static unsigned buffers(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n)
{
	struct iovec *iov = opaque;

	for (unsigned i = 0; i < MIN(n, ROOMS); i++)
		pkts[i] = (struct net_packet){&iov[i], 1, iov[i].iov_len};
	return MIN(n, ROOMS);
}

static void received(void *opaque, unsigned queue, const struct net_packet *pkts, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (pkts[i].len > NET_PACKET_MAX)
			abort();
}

static void exchange(struct netdev *nd, const uint8_t *data, size_t size)
{
	while (size > 3) {
		size_t len = MIN(load_le16(data + 1), size - 3);
		struct iovec iov[2] = {{(void *)(data + 3), nd->vnet_hdr},
				       {(void *)(data + 3 + nd->vnet_hdr), len - nd->vnet_hdr}};
		struct net_packet pkt = {iov, 2, len};

		if (data[0] & 1)
			user_to_guest(user_of(nd), data + 3, len);
		else if (len >= nd->vnet_hdr)
			net_send(nd, 0, &pkt, 1);
		if (data[0] & 2)
			user_flush(user_of(nd));
		data += 3 + len;
		size -= 3 + len;
	}
	user_flush(user_of(nd));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct net_context context = {.loop = loop};
	struct iovec rooms[ROOMS];
	struct net_peer peer = {.buffers = buffers, .received = received, .opaque = rooms};
	struct opts opts;
	struct netdev *nd;

	for (int i = 0; i < ROOMS; i++)
		rooms[i] = (struct iovec){xmalloc(NET_PACKET_MAX), NET_PACKET_MAX};
	opts_parse(&opts, "user,id=n0,restrict=on,hostname=box", "type", NULL);
	nd = net_new(&context, &opts, NULL);
	opts_free(&opts);
	if (!nd || !net_attach(nd, &peer, &loop, 1, NULL))
		abort();
	if (size && data[0] & 1) {
		net_set_vnet_hdr(nd, data[0] & 2 ? 12 : 10);
		net_set_offloads(nd, data[0] & 4 ? NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 : 0);
	}
	if (size)
		exchange(nd, data + 1, size - 1);
	evloop_run_once(loop, 0);
	net_detach(nd);
	net_free(nd);
	for (int i = 0; i < ROOMS; i++)
		free(rooms[i].iov_base);
	evloop_free(loop);
	return 0;
}
#else
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return 0;
}
#endif
