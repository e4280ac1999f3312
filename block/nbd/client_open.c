/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nbd driver: options, connecting, and connecting again; see client.h.
 *
 * reconnect-delay, as QEMU has it: for so many seconds after a connection was lost requests wait
 * for a new one, then they fail, and so do all that follow until there is one. Attempts go on for
 * ever, further and further apart.
 *
 * Opening on a private loop, main thread; the rest on the node's loop.
 */
#include "config.h"
#ifdef CONFIG_LIBNBD
#include <errno.h>
#include <stdlib.h>

#include "block/nbd/client.h"
#include "block/nbd/proto.h"
#include "block/nbd/uri.h"
#include "vmm/core/log.h"

#define ATTEMPT_NS     (30 * NSEC_PER_SEC) /* until an export is there, or it counts as lost */
#define BACKOFF_MAX_NS (16 * NSEC_PER_SEC)

static int64_t now(const struct nbd_node *s)
{
	return evloop_now(s->node->loop);
}

static void arm(struct nbd_node *s, struct ev_timer *t, int64_t deadline)
{
	evloop_timer_arm(s->node->loop, t, deadline);
}

/* A deadline of 0 tells that it is not armed, wherever the node moves. */
static void disarm(struct nbd_node *s, struct ev_timer *t)
{
	if (s->node->loop)
		evloop_timer_cancel(s->node->loop, t);
	t->deadline = 0;
}

static void attempt(struct nbd_node *s)
{
	arm(s, &s->deadline, now(s) + ATTEMPT_NS);
	nbd_link_start(&s->link, s->node->loop);
}

/* What the server is good for. False: it is not the disk that it was. */
static bool adopt(struct nbd_node *s, struct error **err)
{
	struct nbd_handle *h = s->link.h;
	int64_t size = s->link.lib.get_size(h),
		min = s->link.lib.get_block_size(h, LIBNBD_SIZE_MINIMUM),
		max = s->link.lib.get_block_size(h, LIBNBD_SIZE_MAXIMUM);
	bool first = s->opening;

	if (min < 1)
		min = 1;
	if (max < 1 || max > NBD_MAX_PAYLOAD)
		max = NBD_MAX_PAYLOAD;
	max = ALIGN_DOWN(max, min);
	if (size < 0 || size > INT64_MAX - 511 || !is_pow2(min) || min > 65536 || !max ||
	    size % min) {
		error_set(err, "The server's export has an impossible size or block size");
		return false;
	}
	if (!first && ((uint64_t)size < s->size || min > s->min ||
		       (s->link.lib.is_read_only(h) > 0 && !s->node->read_only))) {
		error_set(err, "The server's export is no longer what it was");
		return false;
	}
	if (first) {
		s->size = size;
		s->min = min;
	}
	s->max = ALIGN_DOWN(max, s->min);
	s->flush = s->link.lib.can_flush(h) > 0;
	s->fua = s->link.lib.can_fua(h) > 0;
	s->trim = s->link.lib.can_trim(h) > 0;
	s->zero = s->link.lib.can_zero(h) > 0;
	s->fast_zero = s->link.lib.can_fast_zero(h) > 0;
	s->status = s->link.lib.can_meta_context(h, s->target.context) > 0;
	return true;
}

static void lose(struct nbd_node *s, struct error *why)
{
	bool was_up = s->up;

	s->up = false;
	disarm(s, &s->deadline);
	nbd_link_stop(&s->link, false);
	nbd_take_back(s);
	if (s->opening) {
		error_free(s->why);
		s->why = why;
		return;
	}
	if (was_up) {
		log_warn("'%s': the connection is lost: %s", s->node->filename, error_message(why));
		s->backoff = 0;
		s->gave_up = !s->reconnect_delay;
		if (s->reconnect_delay)
			arm(s, &s->give_up, now(s) + (int64_t)s->reconnect_delay * NSEC_PER_SEC);
	}
	error_free(why);
	if (s->gave_up)
		nbd_fail_waiting(s);
	arm(s, &s->retry, now(s) + s->backoff);
	s->backoff = MIN(MAX(s->backoff * 2, NSEC_PER_SEC), BACKOFF_MAX_NS);
}

static void connected(struct nbd_node *s)
{
	struct error *why = NULL;

	if (!adopt(s, &why)) {
		lose(s, why);
		return;
	}
	disarm(s, &s->deadline);
	disarm(s, &s->give_up);
	s->up = true;
	s->gave_up = false;
	if (!s->opening)
		log_info("'%s': connected again", s->node->filename);
	nbd_resubmit(s);
}

static void on_progress(void *opaque)
{
	struct nbd_node *s = opaque;
	struct error *why = s->link.why;

	nbd_run_finished(s);
	if (s->link.phase == NBD_LINK_UP && !s->up) {
		connected(s);
	} else if (s->link.phase == NBD_LINK_LOST) {
		s->link.why = NULL;
		lose(s, why);
	}
}

static void on_retry(void *opaque)
{
	struct nbd_node *s = opaque;

	s->retry.deadline = 0;
	attempt(s);
}

static void on_give_up(void *opaque)
{
	struct nbd_node *s = opaque;

	s->give_up.deadline = 0;
	s->gave_up = true;
	nbd_fail_waiting(s);
}

static void on_deadline(void *opaque)
{
	struct nbd_node *s = opaque;
	struct error *why = NULL;

	s->deadline.deadline = 0;
	error_set(&why, "The server does not answer");
	lose(s, why);
}

/* Waits for a connection, until open-timeout is over. */
static bool wait_open(struct nbd_node *s, struct error **err)
{
	int64_t end = now(s) + (int64_t)s->open_timeout * NSEC_PER_SEC, left;

	for (;;) {
		attempt(s);
		while (!s->up && !s->why)
			evloop_run_once(s->node->loop, -1);
		if (s->up)
			return true;
		left = end - now(s);
		if (left <= 0)
			break;
		error_free(s->why);
		s->why = NULL;
		for (int64_t again = now(s) + MIN(left, NSEC_PER_SEC); (left = again - now(s)) > 0;)
			evloop_run_once(s->node->loop, left);
	}
	error_propagate(err, s->why);
	s->why = NULL;
	return false;
}

/* The server's address: server.*, or the older keys without. */
static bool server_options(struct nbd_node *s, struct opts *opts, struct error **err)
{
	static const char *const types[] = {"inet", "unix", NULL};
	struct opts *from = opts, server;
	const char *path, *host, *port;
	int type = -1;
	bool ok;

	opts_sub(opts, "server.", &server);
	if (server.count)
		from = &server;
	ok = opts_get_enum(from, "type", types, &type, err);
	path = opts_get(from, "path");
	host = opts_get(from, "host");
	port = opts_get(from, "port");
	if (ok && (path ? host || port || type == 0 : !host || type == 1)) {
		error_set(err, path || host ? "NBD server address has both a path and a host, or "
					      "another type"
					    : "NBD server address missing");
		ok = false;
	}
	if (ok && !path && !port)
		port = "10809";
	ok = ok && opts_check_used(&server, NULL, 0, err) &&
	     nbd_target_set(&s->target, path, host, port, err);
	if (ok) {
		s->node->filename = nbd_make_uri(s->target.tls, path, host, port, s->target.export);
		if (!s->target.hostname && host)
			s->target.hostname = xstrdup(host);
	}
	opts_free(&server);
	return ok;
}

static bool tls_options(struct nbd_node *s, const struct block_open *how, struct opts *opts,
			struct error **err)
{
	const char *creds = opts_get(opts, "tls-creds"), *hostname = opts_get(opts, "tls-hostname");
	bool tls = creds;

	if (!opts_get_bool(opts, "tls", &tls, err))
		return false;
	if (creds && !tls) {
		error_set(err, "tls=off and tls-creds exclude each other");
		return false;
	}
	if (hostname && !tls) {
		error_set(err, "tls-hostname needs tls-creds");
		return false;
	}
	if (creds)
		s->target.tls = tls_creds_find(how->names ? how->names->objects : NULL, creds,
					       false, err);
	else if (tls)
		s->target.tls = s->own_creds = tls_creds_system(err);
	if (tls && !s->target.tls)
		return false;
	s->target.hostname = hostname ? xstrdup(hostname) : NULL;
	return true;
}

static bool read_options(struct nbd_node *s, const struct block_open *how, struct opts *opts,
			 struct error **err)
{
	const char *export = opts_get(opts, "export"), *context = opts_get(opts, "x-dirty-bitmap");

	if (!opts_get_u64(opts, "reconnect-delay", &s->reconnect_delay, err) ||
	    !opts_get_u64(opts, "open-timeout", &s->open_timeout, err))
		return false;
	if (MAX(s->reconnect_delay, s->open_timeout) > UINT32_MAX) {
		error_set(err, "reconnect-delay and open-timeout are seconds, 32 bits of them");
		return false;
	}
	if ((export && strlen(export) > NBD_MAX_STRING) ||
	    (context && strlen(context) > NBD_MAX_STRING)) {
		error_set(err, "export name or x-dirty-bitmap is too long to send to the server");
		return false;
	}
	s->target.export = xstrdup(export ? export : "");
	s->target.context = xstrdup(context ? context : "base:allocation");
	return tls_options(s, how, opts, err) && server_options(s, opts, err) &&
	       opts_check_used(opts, NULL, 0, err);
}

bool nbd_open(struct block_node *node, const struct block_open *how, struct opts *opts,
	      struct error **err)
{
	struct nbd_node *s = node->opaque;
	bool asked_context;

	s->node = node;
	nbd_link_init(&s->link, &s->target, on_progress, s);
	ev_timer_init(&s->retry, on_retry, s);
	ev_timer_init(&s->give_up, on_give_up, s);
	ev_timer_init(&s->deadline, on_deadline, s);
	ev_work_init(&s->work, nbd_run_finished, s);
	asked_context = opts_has(opts, "x-dirty-bitmap");
	if (!nbd_calls_load(&s->link.lib, err) || !read_options(s, how, opts, err))
		return false;
	s->opening = true;
	if (!wait_open(s, err))
		return false;
	s->opening = false;
	if (asked_context && !s->status) {
		error_set(err, "requested x-dirty-bitmap %s not found", s->target.context);
		return false;
	}
	if (s->link.lib.is_read_only(s->link.h) > 0 && !node->read_only) {
		if (!(how->flags & BLOCK_OPEN_AUTO_RO)) {
			error_set(err, "The server's export '%s' is read-only", s->target.export);
			return false;
		}
		node->read_only = true;
	}
	node->length = ALIGN_UP(s->size, 512);
	node->limits.discard = s->trim;
	node->limits.write_zeroes = s->zero;
	node->limits.discard_alignment = s->min;
	return true;
}

/* Also after an open that failed midway. */
void nbd_close_node(struct block_node *node)
{
	struct nbd_node *s = node->opaque;

	if (!s->node)
		return;
	nbd_detach(node);
	nbd_link_stop(&s->link, true);
	nbd_target_destroy(&s->target);
	tls_creds_free(s->own_creds);
	error_free(s->why);
	free(s->bounce);
	s->bounce = NULL;
	s->node = NULL;
}

void nbd_attach(struct block_node *node, struct evloop *loop)
{
	struct nbd_node *s = node->opaque;
	struct ev_timer *timers[] = {&s->retry, &s->give_up, &s->deadline};

	for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
		if (timers[i]->deadline)
			evloop_timer_arm(loop, timers[i], timers[i]->deadline);
	nbd_link_attach(&s->link, loop);
}

void nbd_detach(struct block_node *node)
{
	struct nbd_node *s = node->opaque;
	struct ev_timer *timers[] = {&s->retry, &s->give_up, &s->deadline};

	if (!s->node)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
		evloop_timer_cancel(node->loop, timers[i]);
	evloop_unpost(node->loop, &s->work);
	nbd_link_detach(&s->link);
}
#endif
