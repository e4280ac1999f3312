/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nbd driver's parts: block/nbd/client.c (requests), client_open.c (options, connecting and
 * connecting again). For these files only; built with libnbd.
 *
 * A request lives on one list at a time: waiting (for a connection), live (with libnbd), finished
 * (libnbd has done with it; looked at outside of libnbd's calls, since it can then be given more).
 * When a connection is lost what was live waits again: every request may be carried out twice.
 *
 * Thread: the node's loop.
 */
#ifndef BLOCK_NBD_CLIENT_H
#define BLOCK_NBD_CLIENT_H

#include "block/driver.h"
#include "block/nbd/link.h"
#include "block/wait.h"

enum {
	NBD_BOUNCE = 256 << 10,
	NBD_MAX_TRIES = 5, /* connections that one request may outlive */
};

struct nbd_req;

struct nbd_queue {
	struct nbd_req *first, **last;
};

struct nbd_node {
	struct block_node *node;
	struct nbd_target target;
	struct nbd_link link;
	struct tls_creds *own_creds; /* nbds:// without tls-creds */
	uint64_t size;		     /* the export's, to the byte */
	uint32_t min, max;	     /* block sizes: what it takes, what it takes at once */
	bool flush, fua, trim, zero, fast_zero, status;
	bool up, opening;
	bool gave_up; /* reconnect-delay is over */

	struct nbd_queue waiting, live, finished;
	struct ev_work work;

	uint64_t reconnect_delay, open_timeout; /* s */
	int64_t backoff;			/* ns until the next attempt */
	struct ev_timer retry, give_up, deadline;
	struct error *why; /* the last attempt failed; while opening */

	/* Where the server takes only whole blocks. */
	struct range_set writes;
	struct waitq runq;
	uint8_t *bounce;
	struct nbd_req *bouncer; /* who has it */
	struct waitq bounce_wait;
};

enum nbd_phase { NBD_DIRECT, NBD_FILL, NBD_STORE, NBD_LAST_FLUSH };

struct nbd_req {
	struct nbd_node *s;
	struct block_req *req; /* NULL: block status */
	struct nbd_req *next, **pprev;
	uint64_t bytes; /* of the request, as far as the export has them */
	unsigned pieces, tries;
	bool lost, ranged;
	int ret;
	enum nbd_phase phase;
	uint64_t at; /* bounced: bytes done */
	struct waiter waiter;
	struct range range;
	/* Block status */
	uint64_t offset;
	struct block_extent *extent;
	bool done;
};

/* client.c */
void nbd_submit(struct block_node *node, struct block_req *req);
int nbd_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_extent *out);
/* What waits is given to a new connection. */
void nbd_resubmit(struct nbd_node *s);
/* The connection is gone, and with it what libnbd knew of live requests. */
void nbd_take_back(struct nbd_node *s);
void nbd_fail_waiting(struct nbd_node *s);
/* Those that libnbd has done with. */
void nbd_run_finished(void *opaque);

/* client_open.c */
bool nbd_open(struct block_node *node, const struct block_open *how, struct opts *opts,
	      struct error **err);
void nbd_close_node(struct block_node *node);
void nbd_attach(struct block_node *node, struct evloop *loop);
void nbd_detach(struct block_node *node);

static inline void nbd_enqueue(struct nbd_queue *q, struct nbd_req *r)
{
	if (!q->first)
		q->last = &q->first;
	r->next = NULL;
	r->pprev = q->last;
	*q->last = r;
	q->last = &r->next;
}

static inline void nbd_dequeue(struct nbd_queue *q, struct nbd_req *r)
{
	*r->pprev = r->next;
	if (r->next)
		r->next->pprev = r->pprev;
	else
		q->last = r->pprev;
}

#endif
