/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing qcow2 images, and the driver's table.
 *
 * Main thread, on a private loop; then the node's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/create.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/check.h"
#include "block/qcow2/request.h"
#include "block/qcow2/snapshot.h"
#include "vmm/core/log.h"

enum { BUF_BYTES = 4 << 20 };

struct block_req *qcow2_file_req(struct qcow2 *s, void (*done)(struct block_req *req, int ret),
				 void *ctx)
{
	struct block_req *req = xcalloc(1, block_req_size(s->file));

	req->node = s->file;
	req->done = done;
	req->ctx = ctx;
	return req;
}

void qcow2_file_io(struct qcow2 *s, struct block_req *req, enum block_op op, uint64_t offset,
		   struct iovec *iov, void *buf, uint64_t bytes)
{
	if (iov)
		*iov = (struct iovec){buf, bytes};
	req->op = op;
	req->flags = 0;
	req->offset = offset;
	req->bytes = bytes;
	req->iov = iov;
	req->iovcnt = iov ? 1 : 0;
	block_submit(req);
}

int qcow2_write_header(struct qcow2 *s)
{
	return block_pwrite(s->file, 0, s->header, sizeof(s->header), 0);
}

static void marked(struct block_req *req, int ret)
{
	struct qcow2 *s = req->ctx;

	block_idle(s->node);
}

void qcow2_mark_corrupt(struct qcow2 *s, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	if (s->broken)
		return;
	s->broken = true;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (s->node->watch)
		s->node->watch->corrupted(s->node->watch, s->node, text);
	if (s->node->read_only || s->h.version < 3) {
		log_error("qcow2: Image '%s' is corrupt: %s; further corruption events will be "
			  "suppressed",
			  s->node->filename, text);
		return;
	}
	log_error("qcow2: Marking image '%s' as corrupt: %s; further corruption events will be "
		  "suppressed",
		  s->node->filename, text);
	s->h.incompatible |= QCOW2_INCOMPAT_CORRUPT;
	store_be64(s->header + QCOW2_OFF_INCOMPATIBLE, s->h.incompatible);
	block_busy(s->node);
	qcow2_file_io(s, s->mark_req, BLOCK_WRITE, 0, &s->mark_iov, s->header, sizeof(s->header));
}

/* Reads a table of big-endian entries. */
static bool read_table(struct qcow2 *s, const char *name, uint64_t offset, uint64_t entries,
		       uint64_t **table, uint8_t **dirty, struct error **err)
{
	int ret = 0;

	*table = calloc(MAX(entries, UINT64_C(1)), 8);
	*dirty = calloc(entries / 64 + 1, 1);
	if (!*table || !*dirty)
		ret = -ENOMEM;
	else if (entries)
		ret = block_pread(s->file, offset, *table, entries * 8);
	if (ret) {
		error_set_errno(err, ret, "Could not read %s", name);
		return false;
	}
	for (uint64_t i = 0; i < entries; i++)
		(*table)[i] = be64toh((*table)[i]);
	return true;
}

static bool read_first_cluster(struct qcow2 *s, const struct block_open *how, struct error **err)
{
	struct block_node *node = s->node;
	uint64_t len = MIN(s->cluster_size, s->file->length);
	struct qcow2_extensions x;
	uint8_t *first = malloc(len);
	bool ok = false;
	int ret = first ? block_pread(s->file, 0, first, len) : -ENOMEM;

	if (ret) {
		error_set_errno(err, ret, "Could not read the qcow2 header");
	} else if (s->h.backing_offset &&
		   !range_inside(s->h.backing_offset, s->h.backing_len, len)) {
		error_set(err, "Backing file name lies outside of the file");
	} else {
		ok = qcow2_extensions_parse(&x, &s->h, first, len, s->file->length, err) &&
		     qcow2_features_check(&s->h, &x, first, err);
	}
	if (ok && s->h.backing_offset && s->h.backing_len) {
		node->backing_name = xstrndup((char *)first + s->h.backing_offset,
					      s->h.backing_len);
		if (x.backing_format[0])
			node->backing_format = xstrdup(x.backing_format);
	}
	if (ok) {
		s->crypt_offset = x.crypt_offset;
		s->crypt_bytes = x.crypt_bytes;
	}
	ok = ok && qcow2_bitmaps_open(s, &x, first, how, err);
	s->external = s->h.incompatible & QCOW2_INCOMPAT_DATA_FILE;
	s->raw_data = s->external && (s->h.autoclear & QCOW2_AUTOCLEAR_RAW_DATA);
	if (ok && s->external && x.data_len)
		s->data_name = xstrndup((char *)first + x.data_offset, x.data_len);
	free(first);
	return ok;
}

static bool read_header(struct qcow2 *s, const struct block_open *how, struct error **err)
{
	size_t len = MIN((uint64_t)sizeof(s->header), s->file->length);
	int ret = len ? block_pread(s->file, 0, s->header, len) : 0;

	if (ret) {
		error_set_errno(err, ret, "Could not read the qcow2 header");
		return false;
	}
	if (!qcow2_header_parse(&s->h, s->header, len, s->file->length, err))
		return false;
	s->cluster_bits = s->h.cluster_bits;
	s->cluster_size = UINT64_C(1) << s->cluster_bits;
	s->extended = s->h.incompatible & QCOW2_INCOMPAT_EXTL2;
	s->entry_bits = s->extended ? 4 : 3;
	s->l2_bits = s->cluster_bits - s->entry_bits;
	s->block_bits = s->cluster_bits + 3 - s->h.refcount_order;
	s->reftable_size = (uint64_t)s->h.reftable_clusters << (s->cluster_bits - 3);
	if (!read_first_cluster(s, how, err) ||
	    !read_table(s, "L1 table", s->h.l1_offset, s->h.l1_size, &s->l1, &s->l1_dirty, err))
		return false;
	block_tell(s->file, BLOCK_EV_REFTABLE_LOAD);
	return read_table(s, "refcount table", s->h.reftable_offset, s->reftable_size, &s->reftable,
			  &s->reftable_dirty, err);
}

static void run_work(void *opaque)
{
	struct qcow2 *s = opaque;

	waitq_move(&s->runq, &s->later, 0);
	qcow2_run_waiters(s);
}

static bool init_state(struct qcow2 *s, struct error **err)
{
	s->commit_req = qcow2_file_req(s, qcow2_commit_io_done, s);
	s->job.req = qcow2_file_req(s, qcow2_job_io_done, s);
	s->mark_req = qcow2_file_req(s, marked, s);
	s->job.waiter.fn = qcow2_job_wake;
	s->freeing_waiter.fn = qcow2_freeing_wake;
	ev_work_init(&s->run_work, run_work, s);
	qunpack_init(s);
	s->buf_max = MIN(MAX(BUF_BYTES >> s->cluster_bits, 2), 64);
	s->free_hint = 1;
	s->fresh = ALIGN_UP(s->file->length, s->cluster_size);
	s->fresh_is_zero = s->file->zero_past_end && !s->h.crypt_method;
	s->frees = calloc(1, sizeof(*s->frees));
	s->freeing = calloc(1, sizeof(*s->freeing));
	if (!s->frees || !s->freeing || posix_memalign((void **)&s->commit_buf, 4096, 4096)) {
		error_set_errno(err, ENOMEM, "Could not open the image");
		return false;
	}
	return true;
}

/* What opening for writing changes: the dirty bit, and features that nobody keeps up to date. */
static bool prepare_writing(struct qcow2 *s, const struct block_open *how, struct error **err)
{
	uint64_t known = QCOW2_AUTOCLEAR_BITMAPS | (s->external ? QCOW2_AUTOCLEAR_RAW_DATA : 0);
	struct block_check result;
	int ret = 0;

	if ((s->h.incompatible & QCOW2_INCOMPAT_CORRUPT) && !(how->flags & BLOCK_OPEN_CHECK)) {
		error_set(err, "qcow2: Image is corrupt; cannot be opened read/write");
		return false;
	}
	if (s->h.autoclear & ~known) {
		s->h.autoclear &= known;
		store_be64(s->header + QCOW2_OFF_AUTOCLEAR, s->h.autoclear);
		ret = qcow2_write_header(s);
		if (!ret)
			ret = block_flush(s->file);
	}
	if (!ret)
		ret = qcow2_bitmaps_tidy(s);
	if (ret) {
		error_set_errno(err, ret, "Could not update the qcow2 header");
		return false;
	}
	if ((s->h.incompatible & QCOW2_INCOMPAT_DIRTY) && !(how->flags & BLOCK_OPEN_CHECK)) {
		ret = qcow2_check(s->node, BLOCK_FIX_ALL, &result, NULL, NULL);
		if (ret || result.check_errors || result.corruptions) {
			error_set_errno(err, ret ? ret : -EIO, "Could not repair dirty image");
			return false;
		}
	}
	return true;
}

static bool qcow2_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		       struct error **err)
{
	struct qcow2 *s = node->opaque;

	s->node = node;
	s->file = node->file;
	if (!read_header(s, how, err) || !qcow2_read_options(s, opts, err) ||
	    !qcow2_compression_ok(s, err) || !init_state(s, err))
		return false;
	if (qcow2_snapshots_read(s, err)) {
		if (!(how->flags & BLOCK_OPEN_CHECK))
			return false;
		s->snapshots.bad = true;
		error_free(err ? *err : NULL);
		if (err)
			*err = NULL;
	}
	if (!qcow2_open_data(s, how, opts, err) || !qcow2_open_crypt(s, how, opts, err))
		return false;
	node->length = ALIGN_DOWN(s->h.size, 512);
	node->limits = s->data ? s->data->limits : s->file->limits;
	node->limits.request_alignment = 1;
	node->limits.discard = node->limits.write_zeroes = true;
	node->limits.discard_alignment = s->cluster_size;
	s->opened = true;
	if (!node->read_only && !prepare_writing(s, how, err))
		return false;
	if (qcow2_overlap_read_snapshots(s)) {
		error_set(err, "Could not read the snapshots' tables");
		return false;
	}
	qcow2_clean_arm(s, node->loop);
	return block_open_backing(node, how, opts, err);
}

static void qcow2_close(struct block_node *node)
{
	struct qcow2 *s = node->opaque;
	struct qpack *pack;
	struct qbuf *buf;
	int ret;

	if (s->opened && !node->read_only && !s->broken) {
		ret = block_bitmaps_store(node);
		if (ret)
			log_error("qcow2: lost persistent bitmaps of '%s': %s", node->filename,
				  strerror(-ret));
		ret = qcow2_mark_clean(s);
		if (ret)
			log_error("qcow2: could not write the metadata of '%s': %s", node->filename,
				  strerror(-ret));
	}
	if (s->opened)
		block_drain(node);
	if (s->opened)
		evloop_unpost(node->loop, &s->run_work);
	qcache_destroy(&s->l2);
	qcache_destroy(&s->refcounts);
	while ((buf = s->bufs)) {
		s->bufs = buf->next;
		free(buf->data);
		free(buf);
	}
	if (s->pool && node->loop)
		pool_detach(s->pool);
	pool_free(s->pool);
	s->pool = NULL;
	while ((pack = s->packs)) {
		s->packs = pack->next;
		qpack_free(pack);
	}
	qunpack_destroy(s);
	free(s->commit_req);
	free(s->job.req);
	free(s->mark_req);
	free(s->data_req);
	free(s->data_name);
	free(s->luks);
	free(s->commit_buf);
	free(s->frees);
	free(s->freeing);
	free(s->l1);
	free(s->l1_dirty);
	free(s->reftable);
	free(s->reftable_dirty);
	qcow2_snapshots_free(s);
	qcow2_guard_drop(s);
	free(s->inactive_l2);
	s->inactive_l2 = NULL;
	qcow2_clean_cancel(s);
	qcow2_bitmaps_close(s);
	s->opened = false;
}

static void qcow2_attach(struct block_node *node, struct evloop *loop)
{
	struct qcow2 *s = node->opaque;

	if (s->pool)
		pool_attach(s->pool, loop);
	if (s->commit_wanted)
		qcow2_run_soon(s);
	if (s->opened)
		qcow2_clean_arm(s, loop);
}

static void qcow2_detach(struct block_node *node)
{
	struct qcow2 *s = node->opaque;

	if (s->opened)
		evloop_unpost(node->loop, &s->run_work);
	qcow2_clean_cancel(s);
	if (s->pool)
		pool_detach(s->pool);
}

static bool qcow2_probe(const uint8_t *buf, size_t len)
{
	return len >= 8 && load_be32(buf) == QCOW2_MAGIC && load_be32(buf + 4) >= 2;
}

static void status_wake(struct waiter *w)
{
	w->next = w; /* marks the end of the wait */
}

/* Waits for the map by running the loop. */
static int map_now(struct qcow2 *s, uint64_t offset, uint64_t bytes, struct qmap *map)
{
	struct waiter w = {.fn = status_wake};
	int ret;

	while ((ret = qcow2_map(s, offset, bytes, &w, map)) == -EAGAIN) {
		while (w.next != &w)
			evloop_run_once(s->node->loop, -1);
		w.next = NULL;
		if (w.error)
			return w.error;
	}
	return ret;
}

/* A cluster may be a hole in the file, after preallocation for one. */
static void look_for_hole(struct qcow2 *s, struct block_extent *out)
{
	struct block_extent in_file;

	if (!s->data || s->h.crypt_method)
		return;
	if (out->offset >= s->data->length) {
		out->zero = s->data->zero_past_end;
		return;
	}
	if (block_status(s->data, out->offset, out->bytes, &in_file))
		return;
	out->bytes = MIN(out->bytes, in_file.bytes);
	out->zero = in_file.zero;
}

static int qcow2_status(struct block_node *node, uint64_t offset, uint64_t bytes,
			struct block_extent *out)
{
	struct qcow2 *s = node->opaque;
	struct qmap map;
	int ret;

	if (s->broken)
		return -EIO;
	ret = map_now(s, offset, bytes, &map);
	if (ret)
		return ret;
	out->bytes = map.bytes;
	out->allocated = map.type != Q_UNALLOCATED;
	out->data = map.type == Q_DATA || map.type == Q_COMPRESSED;
	out->zero = map.type == Q_ZERO || map.type == Q_ZERO_ALLOC;
	out->compressed = map.type == Q_COMPRESSED;
	out->has_offset = map.type == Q_DATA || map.type == Q_ZERO_ALLOC;
	out->offset = map.host;
	if (map.type == Q_ZERO_ALLOC)
		out->offset += offset & (s->cluster_size - 1);
	if (map.type == Q_DATA)
		look_for_hole(s, out);
	return 0;
}

static int check(struct block_node *node, unsigned fix, struct block_check *result,
		 const struct block_check_out *out)
{
	return qcow2_check(node, fix, result, out ? out->message : NULL, out ? out->opaque : NULL);
}

const struct block_driver block_qcow2 = {
	.name = "qcow2",
	.node_size = sizeof(struct qcow2),
	.req_size = sizeof(struct qreq),
	.compresses = true,
	.fast_zeroes = true,
	.probe = qcow2_probe,
	.open = qcow2_open,
	.close = qcow2_close,
	.submit = qcow2_submit,
	.attach = qcow2_attach,
	.detach = qcow2_detach,
	.truncate = qcow2_truncate,
	.preallocate = qcow2_preallocate,
	.change_backing = qcow2_change_backing,
	.amend = qcow2_amend,
	.status = qcow2_status,
	.check = check,
	.create = block_create_qcow2,
	.create_options = block_qcow2_create_options,
	.snapshots = &qcow2_snapshot_ops,
	.vm_state = qcow2_vm_state,
	.bitmaps = &qcow2_bitmap_ops,
};
