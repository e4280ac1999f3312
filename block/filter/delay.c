/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delay: a disk that is slow, for tests of what is above it. Each request goes to the child once
 * its time has passed, so that requests also overtake one another as a slow disk's do.
 *
 * Options, nanoseconds: read-latency-ns, write-latency-ns (writes, zeroes and discards),
 * flush-latency-ns. Thread: the node's loop.
 */
#include "block/filter/filter.h"

#define LATENCY_MAX (60 * (uint64_t)NSEC_PER_SEC)

struct delay {
	uint64_t read, write, flush;
};

struct delayed {
	struct block_req *req;
	struct ev_timer timer;
};

static void go_on(void *opaque)
{
	struct delayed *d = opaque;

	block_filter_pass(d->req, 0);
}

static void delay_submit(struct block_node *node, struct block_req *req)
{
	struct delay *s = node->opaque;
	struct delayed *d = block_ctx(req);
	uint64_t ns = req->act == BLOCK_READ	? s->read
		      : req->act == BLOCK_FLUSH ? s->flush
						: s->write;

	if (!ns) {
		block_filter_pass(req, 0);
		return;
	}
	d->req = req;
	ev_timer_init(&d->timer, go_on, d);
	evloop_timer_arm(node->loop, &d->timer, evloop_now(node->loop) + ns);
}

static bool delay_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		       struct error **err)
{
	struct delay *s = node->opaque;

	block_filter_init(node);
	if (!opts_get_u64(opts, "read-latency-ns", &s->read, err) ||
	    !opts_get_u64(opts, "write-latency-ns", &s->write, err) ||
	    !opts_get_u64(opts, "flush-latency-ns", &s->flush, err))
		return false;
	if (MAX(s->read, MAX(s->write, s->flush)) > LATENCY_MAX) {
		error_set(err, "Latencies of more than a minute are not allowed");
		return false;
	}
	return true;
}

const struct block_driver block_delay = {
	.name = "delay",
	.node_size = sizeof(struct delay),
	.req_size = sizeof(struct delayed),
	.filter = true,
	.compresses = true,
	.open = delay_open,
	.submit = delay_submit,
	.truncate = block_filter_truncate,
	.status = block_filter_status,
};
