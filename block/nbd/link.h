/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection to an NBD server: the socket, TLS if asked for, libnbd's handle, all of it on an
 * event loop and without waiting. When it is lost it stays lost; nbd_link_start() begins anew.
 *
 * Thread: the loop's. Built with libnbd only.
 */
#ifndef BLOCK_NBD_LINK_H
#define BLOCK_NBD_LINK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "block/nbd/calls.h"
#include "vmm/core/evloop.h"
#include "vmm/core/tls.h"

enum { NBD_ADDRESSES = 8 };

/* Where a server is, and as what it is asked for. */
struct nbd_target {
	struct nbd_address {
		struct sockaddr_storage address;
		socklen_t len;
	} addresses[NBD_ADDRESSES]; /* tried in turn */
	unsigned count;
	char *export, *context; /* context: block status' */
	const struct tls_creds *tls;
	char *hostname; /* on its certificate; or NULL */
	bool list;	/* stops before an export is chosen, for nbd_aio_opt_*() */
};

/* A path, or else host and port. Resolving a name waits. */
bool nbd_target_set(struct nbd_target *t, const char *path, const char *host, const char *port,
		    struct error **err);
void nbd_target_destroy(struct nbd_target *t);

enum nbd_link_phase {
	NBD_LINK_IDLE,
	NBD_LINK_CONNECT,
	NBD_LINK_TLS,
	NBD_LINK_NEGOTIATE,
	NBD_LINK_UP,
	NBD_LINK_LOST
};

struct nbd_link {
	struct evloop *loop;
	const struct nbd_target *target;
	/* From the loop, after libnbd did something: commands may have ended, the link be up (once)
	 * or lost. Never from inside nbd_link_*(). */
	void (*progress)(void *opaque);
	void *opaque;

	enum nbd_link_phase phase;
	struct nbd_calls lib; /* the user's to load, before the first start */
	struct nbd_handle *h;
	struct nbd_starttls *tls;
	struct error *why; /* it was lost */
	int fd;		   /* until libnbd has it; -1 */
	struct ev_fd ev;
	struct ev_work work;
	unsigned next; /* address */
};

void nbd_link_init(struct nbd_link *l, const struct nbd_target *target,
		   void (*progress)(void *opaque), void *opaque);
/* Idle or lost before. */
void nbd_link_start(struct nbd_link *l, struct evloop *loop);
/* After commands were given to l->h. */
void nbd_link_poke(struct nbd_link *l);
/* No callback of libnbd's comes after this; idle then. polite: the server is told. */
void nbd_link_stop(struct nbd_link *l, bool polite);
void nbd_link_detach(struct nbd_link *l);
void nbd_link_attach(struct nbd_link *l, struct evloop *loop);

#endif
