/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An NBD server: exports, which are nodes under a name, for clients that come to its sockets.
 *
 * Thread: the server's loop, which is also its exports' nodes'. Whoever made the server owns the
 * nodes and keeps them open until the export is removed or the server freed.
 */
#ifndef BLOCK_NBD_SERVER_H
#define BLOCK_NBD_SERVER_H

#include <stdbool.h>

#include "block/block.h"
#include "vmm/core/tls.h"

struct nbd_server;

struct nbd_server_config {
	const struct tls_creds *tls; /* NULL: none. With them nobody is served without TLS */
	unsigned max_clients;	     /* 0: any number */
	int64_t handshake_ns;	     /* a client that is not served by then is put out; 0: never */
	/* A client is gone; negotiated: an export was served to it. Called from the loop, with
	 * nothing of that client's in flight. */
	void (*client_left)(void *opaque, unsigned clients, bool negotiated);
	void *opaque;
};

struct nbd_export_config {
	const char *name;	 /* at most NBD_MAX_STRING bytes */
	const char *description; /* or NULL */
	struct block_node *node;
	bool read_only;	       /* even if the node is not */
	bool allocation_depth; /* qemu:allocation-depth */
	/* Dirty bitmaps of the node or below, as qemu:dirty-bitmap:NAME; ends with NULL. Or NULL.
	 */
	const char *const *bitmaps;
};

struct nbd_server *nbd_server_new(struct evloop *loop, const struct nbd_server_config *config);
/* Closes what listens and every connection, and waits for what is in flight. NULL is allowed. */
void nbd_server_free(struct nbd_server *server);
/* A listening socket of any family, which becomes the server's. 0 or -errno. */
int nbd_server_listen(struct nbd_server *server, int fd);
/* A connected socket, which becomes the server's. */
void nbd_server_accept(struct nbd_server *server, int fd);
/* False if there is an export of that name, or no such bitmap. The node is drained. */
bool nbd_server_add(struct nbd_server *server, const struct nbd_export_config *config,
		    struct error **err);
/* Its clients lose their connections; waits for what is in flight. False if there is none. */
bool nbd_server_remove(struct nbd_server *server, const char *name);
unsigned nbd_server_clients(const struct nbd_server *server);

#endif
