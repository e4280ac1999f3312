/* SPDX-License-Identifier: Apache-2.0 */
/* A server under test and its peer; see nbd_peer.h. */
#include "tests/lib/nbd_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { QUIET_TURNS = 8, REPLY_MAX = 1 << 16 };

static void client_left(void *opaque, unsigned clients, bool negotiated)
{
	struct nbd_peer *p = opaque;

	p->left++;
	p->negotiated += negotiated;
}

void nbd_peer_export(struct nbd_peer *p)
{
	const struct nbd_export_config export = {
		.name = "",
		.description = "memory",
		.node = p->disk->node,
		.allocation_depth = true,
	};

	if (!nbd_server_add(p->server, &export, NULL))
		abort();
}

void nbd_peer_init(struct nbd_peer *p, const struct clock *clock, unsigned max_clients)
{
	struct nbd_server_config config = {
		.max_clients = max_clients,
		.handshake_ns = 10 * NSEC_PER_SEC,
		.client_left = client_left,
		.opaque = p,
	};
	uint8_t *image = xmalloc(NBD_PEER_SIZE);

	for (size_t i = 0; i < NBD_PEER_SIZE; i += 256)
		memset(image + i, i / 65536 & 1 ? i >> 8 : 0, 256);
	*p = (struct nbd_peer){.fd = -1};
	p->loop = evloop_new(clock, NULL);
	p->disk = memdisk_new(p->loop, image, NBD_PEER_SIZE, NBD_PEER_SIZE);
	p->server = nbd_server_new(p->loop, &config);
	free(image);
	nbd_peer_export(p);
}

void nbd_peer_destroy(struct nbd_peer *p)
{
	nbd_peer_close(p);
	nbd_server_free(p->server);
	memdisk_free(p->disk);
	evloop_free(p->loop);
}

int nbd_peer_connect(struct nbd_peer *p)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		abort();
	p->fd = fds[0];
	nbd_server_accept(p->server, fds[1]);
	return p->fd;
}

void nbd_peer_close(struct nbd_peer *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	nbd_peer_settle(p);
}

void nbd_peer_settle(struct nbd_peer *p)
{
	for (int quiet = 0; quiet < QUIET_TURNS;)
		quiet = evloop_run_once(p->loop, 0) ? 0 : quiet + 1;
}

void nbd_peer_send(struct nbd_peer *p, const void *data, size_t bytes, size_t step)
{
	const char *at = data;

	for (int stuck = 0; bytes && stuck < 1000;) {
		ssize_t n = send(p->fd, at, step ? MIN(step, bytes) : bytes, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return; /* it has hung up */
		stuck = n > 0 ? 0 : stuck + 1;
		at += MAX(n, 0);
		bytes -= MAX(n, 0);
		evloop_run_once(p->loop, 0);
	}
}

size_t nbd_peer_read(struct nbd_peer *p, void *data, size_t bytes)
{
	size_t got = 0;

	for (int quiet = 0; got < bytes && quiet < 1000;) {
		ssize_t n = recv(p->fd, (char *)data + got, bytes - got, 0);

		if (!n || (n < 0 && errno != EAGAIN))
			break;
		got += MAX(n, 0);
		quiet = evloop_run_once(p->loop, 0) || n > 0 ? 0 : quiet + 1;
	}
	return got;
}

bool nbd_peer_at_end(struct nbd_peer *p)
{
	char byte;

	nbd_peer_settle(p);
	return !nbd_peer_read(p, &byte, 1) && recv(p->fd, &byte, 1, 0) <= 0 && errno != EAGAIN;
}

void nbd_peer_option(struct nbd_peer *p, uint32_t option, const void *data, size_t bytes)
{
	uint8_t head[NBD_OPTION_BYTES];

	store_be64(head, NBD_OPTION_MAGIC);
	store_be32(head + 8, option);
	store_be32(head + 12, bytes);
	nbd_peer_send(p, head, sizeof(head), 0);
	nbd_peer_send(p, data, bytes, 0);
}

uint32_t nbd_peer_reply(struct nbd_peer *p)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES], *data;
	uint32_t length;

	if (nbd_peer_read(p, head, sizeof(head)) < sizeof(head) ||
	    load_be64(head) != NBD_REPLY_MAGIC)
		return 0;
	length = load_be32(head + 16);
	if (length > REPLY_MAX)
		return 0;
	data = xmalloc(length + 1);
	length -= nbd_peer_read(p, data, length);
	free(data);
	return length ? 0 : load_be32(head + 12);
}

void nbd_peer_go(struct nbd_peer *p, bool structured)
{
	static const uint8_t flags[4] = {0, 0, 0, 3}, go[6],
			     meta[] = "\0\0\0\0\0\0\0\1\0\0\0\17base:allocation";
	uint8_t hello[NBD_HELLO_BYTES];

	nbd_peer_read(p, hello, sizeof(hello));
	nbd_peer_send(p, flags, sizeof(flags), 0);
	if (structured) {
		nbd_peer_option(p, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		nbd_peer_reply(p);
		nbd_peer_option(p, NBD_OPT_SET_META_CONTEXT, meta, sizeof(meta) - 1);
		nbd_peer_reply(p);
		nbd_peer_reply(p);
	}
	nbd_peer_option(p, NBD_OPT_GO, go, sizeof(go));
	while (nbd_peer_reply(p) == NBD_REP_INFO)
		;
}

void nbd_peer_request(struct nbd_peer *p, uint16_t type, uint16_t flags, uint64_t cookie,
		      uint64_t offset, uint32_t length)
{
	uint8_t r[NBD_REQUEST_BYTES];

	store_be32(r, NBD_REQUEST_MAGIC);
	store_be16(r + 4, flags);
	store_be16(r + 6, type);
	store_be64(r + 8, cookie);
	store_be64(r + 16, offset);
	store_be32(r + 24, length);
	nbd_peer_send(p, r, sizeof(r), 0);
}
