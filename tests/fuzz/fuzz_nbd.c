/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An NBD server's client. Input: a byte that says where it begins (0: the greeting; 1: requests
 * with simple replies; 2: requests with structured ones and block status), and what it sends.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/nbd_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_INPUT = 64 << 10, TURNS = 2000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char sink[1 << 16];
	struct nbd_peer p;
	size_t at = 1;

	if (!size || size > MAX_INPUT)
		return 0;
	nbd_peer_init(&p, NULL, 2);
	nbd_peer_connect(&p);
	if (data[0] % 3)
		nbd_peer_go(&p, data[0] % 3 == 2);
	for (int i = 0; i < TURNS && nbd_server_clients(p.server); i++) {
		ssize_t n = 0;

		if (at < size)
			n = send(p.fd, data + at, size - at, MSG_NOSIGNAL);
		at += n > 0 ? n : 0;
		if (at == size)
			shutdown(p.fd, SHUT_WR);
		while (recv(p.fd, sink, sizeof(sink), 0) > 0)
			;
		evloop_run_once(p.loop, 0);
	}
	nbd_peer_destroy(&p);
	return 0;
}
