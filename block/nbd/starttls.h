/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS below libnbd: asks a server for TLS, shakes hands, and then passes bytes between the server
 * and a socket pair, whose other end sees the server's greeting anew and no TLS. That way
 * credentials, names and checks are the same as everywhere else here (vmm/core/tls.h), also on a
 * unix socket, and nothing of a handshake blocks.
 *
 * Thread: the link's loop.
 */
#ifndef BLOCK_NBD_STARTTLS_H
#define BLOCK_NBD_STARTTLS_H

#include <stdbool.h>

#include "vmm/core/evloop.h"
#include "vmm/core/tls.h"

struct nbd_starttls;

/*
 * fd is a connected socket that does not block, and becomes its own. done is called once, from the
 * loop: with a socket for libnbd, which becomes the callee's, or with -1 and why (the callee's to
 * free).
 */
struct nbd_starttls *nbd_starttls_new(struct evloop *loop, int fd, const struct tls_creds *creds,
				      const char *hostname,
				      void (*done)(void *opaque, int fd, struct error *why),
				      void *opaque, struct error **err);
/* Sends what can be sent at once and closes both sockets. NULL is allowed. */
void nbd_starttls_free(struct nbd_starttls *t);
void nbd_starttls_detach(struct nbd_starttls *t);
void nbd_starttls_attach(struct nbd_starttls *t, struct evloop *loop);

#endif
