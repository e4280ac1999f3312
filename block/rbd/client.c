/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ceph RBD images as disks (librbd's C interface). Options as QEMU's: pool, namespace, image,
 * snapshot, conf, user, auth-client-required.N, key-secret, server.N.host and .port; and
 * keyvalue.N.key and .value, which is what a file name's further options become.
 *
 * librbd calls back on threads of its own: what is done goes on a list under a lock, and the node's
 * loop is told. Connecting gives up after 30 seconds, unless the configuration says otherwise.
 *
 * Thread: the node's loop; called_back() any.
 */
#include "block/rbd/rbd.h"

#ifdef CONFIG_RBD
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "block/driver.h"
#include "vmm/core/secret.h"

struct rbd_req {
	struct block_req *req;
	struct rbd_req *next;
	struct rbd_node *s;
	struct iovec *slice; /* of the request's, if they are not just its bytes; else NULL */
	int iovcnt;
	bool synced; /* FUA: the flush behind the write is under way */
	int64_t ret;
};

struct rbd_node {
	struct rbd_calls call;
	rados_t cluster;
	rados_ioctx_t io;
	rbd_image_t image;
	bool connected, has_io, is_open;
	uint64_t object_bytes;

	pthread_mutex_t lock;
	bool has_lock;
	struct rbd_req *done; /* newest first */
	struct ev_work work;
	struct block_node *node;
};

/* Connecting */

static bool set(struct rbd_node *s, const char *key, const char *value, struct error **err)
{
	int ret = s->call.rados_conf_set(s->cluster, key, value);

	if (ret < 0)
		error_set_errno(err, ret, "invalid conf option %s", key);
	return ret >= 0;
}

static bool set_pairs(struct rbd_node *s, struct opts *opts, struct error **err)
{
	bool ok = true;

	for (unsigned i = 0; ok; i++) {
		char *key = xasprintf("keyvalue.%u.key", i),
		     *value = xasprintf("keyvalue.%u.value", i);
		const char *k = opts_get(opts, key), *v = opts_get(opts, value);

		free(key);
		free(value);
		if (!k || !v)
			break;
		ok = set(s, k, v, err);
	}
	return ok;
}

/* What server.N and auth-client-required.N say, joined by sep. NULL: nothing. */
static char *join(struct opts *opts, const char *prefix, const char *suffix, const char *suffix2,
		  const char *sep)
{
	char *all = NULL;

	for (unsigned i = 0;; i++) {
		char *key = xasprintf("%s.%u%s", prefix, i, suffix), *one;
		char *key2 = xasprintf("%s.%u%s", prefix, i, suffix2);
		const char *value = opts_get(opts, key),
			   *second = *suffix2 ? opts_get(opts, key2) : NULL;
		bool v6 = value && *suffix && strchr(value, ':');

		free(key);
		free(key2);
		if (!value)
			return all;
		one = xasprintf("%s%s%s%s%s%s%s", all ? all : "", all ? sep : "", v6 ? "[" : "",
				value, v6 ? "]" : "", second ? ":" : "", second ? second : "");
		free(all);
		all = one;
	}
}

static bool set_joined(struct rbd_node *s, const char *key, char *value, struct error **err)
{
	bool ok = !value || set(s, key, value, err);

	free(value);
	return ok;
}

static bool set_key(struct rbd_node *s, const char *id, const struct objects *objects,
		    struct error **err)
{
	const uint8_t *secret;
	size_t len;
	char *key;
	bool ok;

	if (!id)
		return true;
	secret = secret_find(objects, id, &len, err);
	if (!secret)
		return false;
	key = rbd_base64(secret, len);
	ok = set(s, "key", key, err);
	secret_free(key, strlen(key) + 1);
	return ok;
}

static bool configure(struct rbd_node *s, struct opts *opts, const struct objects *objects,
		      struct error **err)
{
	const char *conf = opts_get(opts, "conf");
	int ret;

	/* Nobody waits for a cluster that is not there for ever. */
	if (!set(s, "client_mount_timeout", "30", err) ||
	    !set(s, "rados_mon_op_timeout", "30", err))
		return false;
	ret = s->call.rados_conf_read_file(s->cluster, conf);
	if (ret < 0 && conf) {
		error_set_errno(err, ret, "error reading conf file %s", conf);
		return false;
	}
	return set_key(s, opts_get(opts, "key-secret"), objects, err) &&
	       set_joined(s, "auth_client_required",
			  join(opts, "auth-client-required", "", "", ";"), err) &&
	       set_joined(s, "mon_host", join(opts, "server", ".host", ".port", ";"), err) &&
	       set_pairs(s, opts, err);
}

static void disconnect(struct rbd_node *s)
{
	if (s->is_open)
		s->call.rbd_close(s->image);
	if (s->has_io)
		s->call.rados_ioctx_destroy(s->io);
	if (s->connected)
		s->call.rados_shutdown(s->cluster);
	s->is_open = s->has_io = s->connected = false;
}

/* Up to the pool. */
static bool connect_pool(struct rbd_node *s, struct opts *opts, const struct objects *objects,
			 struct error **err)
{
	const char *pool = opts_get(opts, "pool"), *namespace = opts_get(opts, "namespace");
	int ret;

	if (!pool) {
		error_set(err, "Parameter 'pool' is missing");
		return false;
	}
	if (!rbd_load(&s->call, err))
		return false;
	ret = s->call.rados_create(&s->cluster, opts_get(opts, "user"));
	if (ret < 0) {
		error_set_errno(err, ret, "error initializing");
		return false;
	}
	s->connected = true;
	if (!configure(s, opts, objects, err))
		return false;
	ret = s->call.rados_connect(s->cluster);
	if (ret < 0) {
		error_set_errno(err, ret, "error connecting");
		return false;
	}
	ret = s->call.rados_ioctx_create(s->cluster, pool, &s->io);
	if (ret < 0) {
		error_set_errno(err, ret, "error opening pool %s", pool);
		return false;
	}
	s->has_io = true;
	s->call.rados_ioctx_set_namespace(s->io, namespace);
	return true;
}

/* Requests */

static void finish(struct rbd_req *r)
{
	struct block_req *req = r->req;

	free(r->slice);
	/* A short read is one past the end. */
	block_complete(req, r->ret < 0 ? r->ret : 0);
}

static void start(struct rbd_req *r, enum block_op op);

static void run_done(void *opaque)
{
	struct rbd_node *s = opaque;
	struct rbd_req *r, *next;

	pthread_mutex_lock(&s->lock);
	r = s->done;
	s->done = NULL;
	pthread_mutex_unlock(&s->lock);
	for (; r; r = next) {
		struct block_req *req = r->req;

		next = r->next;
		if (r->ret >= 0 && (req->act_flags & BLOCK_FUA) && !r->synced &&
		    (req->act == BLOCK_WRITE || req->act == BLOCK_WRITE_ZEROES)) {
			r->synced = true;
			start(r, BLOCK_FLUSH);
		} else {
			finish(r);
		}
	}
}

/* Any thread. */
static void called_back(rbd_completion_t c, void *opaque)
{
	struct rbd_req *r = opaque;
	struct rbd_node *s = r->s;

	r->ret = s->call.rbd_aio_get_return_value(c);
	s->call.rbd_aio_release(c);
	pthread_mutex_lock(&s->lock);
	r->next = s->done;
	s->done = r;
	/* Under the lock: once the list was taken nothing here is touched any more. */
	evloop_post(s->node->loop, &s->work);
	pthread_mutex_unlock(&s->lock);
}

static int start_op(struct rbd_req *r, enum block_op op, rbd_completion_t c)
{
	struct block_req *req = r->req;
	struct rbd_node *s = r->s;
	const struct iovec *iov = r->slice ? r->slice : req->iov;

	switch (op) {
	case BLOCK_READ:
		return s->call.rbd_aio_readv(s->image, iov, r->iovcnt, req->offset, c);
	case BLOCK_WRITE:
		return s->call.rbd_aio_writev(s->image, iov, r->iovcnt, req->offset, c);
	case BLOCK_FLUSH:
		return s->call.rbd_aio_flush(s->image, c);
	case BLOCK_DISCARD:
		return s->call.rbd_aio_discard(s->image, req->offset, req->bytes, c);
	case BLOCK_WRITE_ZEROES:
		return s->call.rbd_aio_write_zeroes(s->image, req->offset, req->bytes, c,
						    req->act_flags & BLOCK_MAY_UNMAP
							    ? 0
							    : RBD_WRITE_ZEROES_FLAG_THICK_PROVISION,
						    0);
	}
	return -ENOTSUP;
}

static void start(struct rbd_req *r, enum block_op op)
{
	struct rbd_node *s = r->s;
	rbd_completion_t c;
	int ret = s->call.rbd_aio_create_completion(r, called_back, &c);

	if (ret >= 0) {
		ret = start_op(r, op, c);
		if (ret >= 0)
			return;
		s->call.rbd_aio_release(c);
	}
	r->ret = ret;
	finish(r);
}

/* The iovecs from req->iov_skip on, req->bytes long, if that is not all of them. */
static int slice_iov(struct rbd_req *r)
{
	struct block_req *req = r->req;

	r->iovcnt = req->iovcnt;
	if (!req->iovcnt || (!req->iov_skip && iov_bytes(req->iov, req->iovcnt) == req->bytes))
		return 0;
	r->slice = calloc(req->iovcnt, sizeof(*r->slice));
	if (!r->slice)
		return -ENOMEM;
	r->iovcnt = iov_slice(req->iov, req->iovcnt, req->iov_skip, req->bytes, r->slice,
			      req->iovcnt);
	return r->iovcnt < 0 ? -EINVAL : 0;
}

static void rbd_submit(struct block_node *node, struct block_req *req)
{
	struct rbd_node *s = node->opaque;
	struct rbd_req *r = block_ctx(req);
	uint64_t end = req->offset + req->bytes;
	int ret = 0;

	*r = (struct rbd_req){.req = req, .s = s};
	if (node->growable && end > node->length &&
	    (req->act == BLOCK_WRITE || req->act == BLOCK_WRITE_ZEROES)) {
		/* The format above writes behind the end. */
		ret = s->call.rbd_resize(s->image, ALIGN_UP(end, 512));
		if (ret >= 0)
			block_set_length(node, ALIGN_UP(end, 512));
	}
	if (ret >= 0 && (req->act == BLOCK_READ || req->act == BLOCK_WRITE))
		ret = slice_iov(r);
	/* Behind the end of a file that grows there are zeroes. */
	if (req->act == BLOCK_READ && end > node->length)
		block_iov_zero(req->iov, req->iovcnt, req->iov_skip, req->bytes);
	if (ret < 0 || (req->act == BLOCK_READ && req->offset >= node->length)) {
		r->ret = ret;
		finish(r);
		return;
	}
	start(r, req->act);
}

/* Opening */

static bool rbd_open_node(struct block_node *node, const struct block_open *how, struct opts *opts,
			  struct error **err)
{
	struct rbd_node *s = node->opaque;
	const char *image = opts_get(opts, "image"), *snapshot = opts_get(opts, "snapshot");
	rbd_image_info_t info;
	int ret;

	s->node = node;
	pthread_mutex_init(&s->lock, NULL);
	s->has_lock = true;
	ev_work_init(&s->work, run_done, s);
	if (!image) {
		error_set(err, "Parameter 'image' is missing");
		return false;
	}
	if (snapshot && !node->read_only && (how->flags & BLOCK_OPEN_AUTO_RO))
		node->read_only = true;
	if (snapshot && !node->read_only) {
		error_set(err, "Cannot write to a snapshot of an rbd image");
		return false;
	}
	if (!connect_pool(s, opts, how->names ? how->names->objects : NULL, err))
		return false;
	ret = node->read_only ? s->call.rbd_open_read_only(s->io, image, &s->image, snapshot)
			      : s->call.rbd_open(s->io, image, &s->image, NULL);
	if (ret == -EROFS && !node->read_only && (how->flags & BLOCK_OPEN_AUTO_RO)) {
		node->read_only = true;
		ret = s->call.rbd_open_read_only(s->io, image, &s->image, NULL);
	}
	if (ret < 0) {
		error_set_errno(err, ret, "error reading header from %s", image);
		return false;
	}
	s->is_open = true;
	ret = s->call.rbd_stat(s->image, &info, sizeof(info));
	if (ret < 0) {
		error_set_errno(err, ret, "could not get the size of %s", image);
		return false;
	}
	s->object_bytes = info.obj_size;
	node->length = ALIGN_UP(MIN(info.size, (uint64_t)INT64_MAX - 511), 512);
	node->filename = xasprintf("rbd:%s/%s%s%s", opts_get(opts, "pool"), image,
				   snapshot ? "@" : "", snapshot ? snapshot : "");
	node->zero_past_end = true;
	node->limits.discard = node->limits.write_zeroes = true;
	node->limits.discard_alignment = is_pow2(s->object_bytes) ? s->object_bytes : 1;
	node->limits.max_transfer = GiB;
	return true;
}

static void rbd_close_node(struct block_node *node)
{
	struct rbd_node *s = node->opaque;

	disconnect(s);
	if (s->has_lock)
		pthread_mutex_destroy(&s->lock);
	s->has_lock = false;
}

static void rbd_detach(struct block_node *node)
{
	struct rbd_node *s = node->opaque;

	if (s->node)
		evloop_unpost(node->loop, &s->work);
}

static int rbd_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	struct rbd_node *s = node->opaque;
	int ret = s->call.rbd_resize(s->image, bytes);

	if (ret < 0)
		error_set_errno(err, ret, "Failed to resize file");
	else
		block_set_length(node, bytes);
	return MIN(ret, 0);
}

static void rbd_info(struct block_node *node, struct block_info *info)
{
	info->cluster_size = ((struct rbd_node *)node->opaque)->object_bytes;
}

static bool rbd_create_image(const char *filename, const struct block_create *c, struct error **err)
{
	uint64_t object_bytes = 4 * MiB;
	struct rbd_node s = {0};
	struct opts opts = {0};
	int ret, order;
	bool ok = false;

	if (strncmp(filename, "rbd:", 4)) {
		error_set(err, "File name must start with 'rbd:'");
		return false;
	}
	if (!opts_get_size(c->opts, "cluster_size", 1, &object_bytes, err))
		return false;
	if (!is_pow2(object_bytes) || object_bytes < 4096 || object_bytes > 64 * MiB) {
		error_set(err, "obj size must be a power of two between 4 KiB and 64 MiB");
		return false;
	}
	order = __builtin_ctzll(object_bytes);
	if (rbd_parse_filename(filename + 4, &opts, err) &&
	    connect_pool(&s, &opts, c->objects, err)) {
		ret = s.call.rbd_create(s.io, opts_get(&opts, "image"), c->size, &order);
		ok = ret >= 0;
		if (!ok)
			error_set_errno(err, ret, "error rbd create");
	}
	disconnect(&s);
	opts_free(&opts);
	return ok;
}

static const struct block_create_option options[] = {
	{"cluster_size", "size", NULL, "RBD object size"},
	{"size", "size", NULL, "Virtual disk size"},
	{0},
};

const struct block_driver block_rbd = {
	.name = "rbd",
	.node_size = sizeof(struct rbd_node),
	.req_size = sizeof(struct rbd_req),
	.protocol = true,
	.open = rbd_open_node,
	.close = rbd_close_node,
	.submit = rbd_submit,
	.detach = rbd_detach,
	.truncate = rbd_truncate,
	.info = rbd_info,
	.create = rbd_create_image,
	.create_options = options,
};
#endif
