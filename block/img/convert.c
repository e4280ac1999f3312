/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img convert [-f FMT] [-O FMT] [-o OPTIONS] [-B BACKING [-F FMT]] [-t CACHE] [-T CACHE] [-S
 * SIZE]
 *                 [-m N] [-W] [-n] [-p] [-q] [-U] [--target-is-zero] [--image-opts] FILE OUTPUT
 *
 * Pieces are read and written by -m workers at once, so that reading, writing and the search for
 * zeroes overlap. Ranges that read as zero by the maps are never read.
 */
#include <stdio.h>
#include <stdlib.h>

#include "block/img/img.h"

enum { CHUNK = 2 << 20, MAX_WORKERS = 16 };

struct convert {
	struct evloop *loop;
	struct block_node *src, *dst;
	uint64_t at, end, done;
	uint64_t sparse;  /* a run of zeroes this long is left out */
	bool zero_target; /* what is not written reads as zero */
	bool has_backing;
	int ret;
	const char *what; /* failed */
	uint64_t failed_at;
	unsigned busy;
	struct img_progress progress;
	struct worker {
		struct convert *c;
		bool busy;
		uint8_t *buf;
		uint64_t offset, bytes, pos; /* pos: written or left out so far */
		struct iovec iov;
		struct block_req *req;
	} workers[MAX_WORKERS];
};

static void write_next(struct worker *w);

static void finish_piece(struct worker *w, int ret, const char *what)
{
	struct convert *c = w->c;

	w->busy = false;
	c->busy--;
	c->done += w->bytes;
	if (ret && !c->ret) {
		c->ret = ret;
		c->what = what;
		c->failed_at = w->offset + w->pos;
	}
	img_progress(&c->progress, c->done, c->end);
}

static void start(struct worker *w, struct block_node *node, enum block_op op, uint64_t pos,
		  uint64_t bytes, uint32_t flags, void (*done)(struct block_req *req, int ret))
{
	w->iov = (struct iovec){w->buf + pos, bytes};
	*w->req = (struct block_req){.node = node,
				     .op = op,
				     .flags = flags,
				     .offset = w->offset + pos,
				     .bytes = bytes,
				     .iov = &w->iov,
				     .iovcnt = 1,
				     .done = done,
				     .ctx = w};
	block_submit(w->req);
}

static void piece_written(struct block_req *req, int ret)
{
	struct worker *w = req->ctx;

	if (ret) {
		finish_piece(w, ret, "writing");
		return;
	}
	w->pos += req->bytes;
	write_next(w);
}

/* How many bytes from pos on are alike, all zero or all to be written. */
static uint64_t alike(const struct worker *w, bool *zero)
{
	uint64_t unit = w->c->sparse ? w->c->sparse : w->bytes, at = w->pos, n;

	n = MIN(unit - (w->offset + at) % unit, w->bytes - at);
	*zero = w->c->sparse && block_buf_is_zero(w->buf + at, n);
	for (at += n; at < w->bytes; at += n) {
		n = MIN(unit, w->bytes - at);
		if (*zero != (w->c->sparse && block_buf_is_zero(w->buf + at, n)))
			break;
	}
	return at - w->pos;
}

static void write_next(struct worker *w)
{
	struct convert *c = w->c;

	while (w->pos < w->bytes) {
		bool zero;
		uint64_t n = alike(w, &zero);

		if (!zero) {
			start(w, c->dst, BLOCK_WRITE, w->pos, n, 0, piece_written);
			return;
		}
		if (!c->zero_target) {
			start(w, c->dst, BLOCK_WRITE_ZEROES, w->pos, n, BLOCK_MAY_UNMAP,
			      piece_written);
			return;
		}
		w->pos += n;
	}
	finish_piece(w, 0, NULL);
}

static void piece_read(struct block_req *req, int ret)
{
	struct worker *w = req->ctx;

	if (ret)
		finish_piece(w, ret, "reading");
	else
		write_next(w);
}

/* The next piece of work for an idle worker; false: there is none. */
static bool give(struct convert *c, struct worker *w)
{
	while (c->at < c->end && !c->ret) {
		struct img_range r;
		int ret = img_resolve(c->src, c->at, c->end - c->at, &r);

		if (ret) {
			c->ret = ret;
			c->what = "reading the map of";
			c->failed_at = c->at;
			return false;
		}
		if (c->has_backing && r.depth) {
			c->at += r.length; /* the target's backing file has it */
			c->done += r.length;
			continue;
		}
		if (r.zero && c->zero_target && !(c->has_backing && r.present)) {
			c->at += r.length;
			c->done += r.length;
			continue;
		}
		w->offset = c->at;
		w->pos = 0;
		w->bytes = r.zero ? r.length : MIN(r.length, (uint64_t)CHUNK);
		c->at += w->bytes;
		w->busy = true;
		c->busy++;
		if (r.zero)
			start(w, c->dst, BLOCK_WRITE_ZEROES, 0, w->bytes, BLOCK_MAY_UNMAP,
			      piece_written);
		else
			start(w, c->src, BLOCK_READ, 0, w->bytes, 0, piece_read);
		return true;
	}
	return false;
}

static int copy(struct convert *c, unsigned workers)
{
	size_t size = MAX(block_req_size(c->src), block_req_size(c->dst));

	for (unsigned i = 0; i < workers; i++) {
		struct worker *w = &c->workers[i];

		w->c = c;
		w->req = xmalloc(size);
		if (posix_memalign((void **)&w->buf, 4096, CHUNK))
			w->buf = NULL;
	}
	for (bool more = true; more || c->busy;) {
		for (unsigned i = 0; i < workers && more; i++) {
			struct worker *w = &c->workers[i];

			if (!w->busy && w->buf)
				more = give(c, w);
		}
		if (c->busy)
			evloop_run_once(c->loop, -1);
		else if (!c->workers[0].buf)
			break;
		more = c->at < c->end && !c->ret;
	}
	for (unsigned i = 0; i < workers; i++) {
		free(c->workers[i].req);
		free(c->workers[i].buf);
	}
	return c->ret;
}

struct settings {
	const char *format, *out_format, *options, *cache, *src_cache, *backing, *backing_format;
	bool image_opts, no_create, target_is_zero, quiet, progress;
	uint64_t sparse;
	unsigned workers;
	uint32_t flags;
};

static bool make_target(const struct settings *set, const char *filename, uint64_t size,
			struct error **err)
{
	struct block_create create = {.size = size};
	struct opts opts;
	bool ok = img_create_options(set->out_format, set->options, &create, &opts, err);

	if (!ok)
		return false;
	create.size = size;
	if (set->backing) {
		create.backing = set->backing;
		create.backing_format = set->backing_format;
	}
	if (create.backing && !img_takes_backing(set->out_format)) {
		error_set(err, "Backing file not supported for file format '%s'", set->out_format);
		ok = false;
	} else if (create.backing && !create.backing_format) {
		error_set(err, "backing format must be specified (-F)");
		ok = false;
	} else {
		ok = img_create_file(filename, set->out_format, &create, err);
	}
	opts_free(&opts);
	return ok;
}

static int run(struct evloop *loop, const struct settings *set, const char *from, const char *to)
{
	struct convert c = {
		.loop = loop, .sparse = set->sparse, .progress.on = set->progress && !set->quiet};
	struct error *err = NULL;
	int ret = 1;

	c.src = img_open(loop, from, set->format, set->image_opts, set->src_cache, set->flags,
			 &err);
	if (!c.src)
		return img_fail(err);
	c.end = block_length(c.src);
	if (!set->no_create && !make_target(set, to, c.end, &err))
		goto fail;
	c.dst = img_open(loop, to, set->out_format, false, set->cache,
			 BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP, &err);
	if (!c.dst)
		goto fail;
	if (block_length(c.dst) < c.end) {
		error_set(&err, "Output file is smaller than input file");
		goto fail;
	}
	c.has_backing = set->backing != NULL;
	c.zero_target = set->target_is_zero ||
			(!set->no_create && !c.has_backing && c.dst->file->zero_past_end);
	ret = copy(&c, set->workers);
	if (ret) {
		error_set_errno(&err, ret, "error while %s at byte %llu", c.what,
				(unsigned long long)c.failed_at);
		goto fail;
	}
	img_progress(&c.progress, c.end, c.end);
	block_unref(c.dst);
	block_unref(c.src);
	return 0;
fail:
	block_unref(c.dst);
	block_unref(c.src);
	return img_fail(err);
}

int img_convert(struct evloop *loop, int argc, char **argv)
{
	static const struct option longs[] = {{"image-opts", 0, 0, 1},
					      {"target-is-zero", 0, 0, 2},
					      {"force-share", 0, 0, 'U'},
					      {0}};
	struct settings set = {
		.out_format = "raw", .cache = "unsafe", .sparse = 4096, .workers = 8};
	uint64_t n;
	int o;

	while ((o = getopt_long(argc, argv, "f:O:o:B:F:t:T:S:m:WnpqU", longs, NULL)) != -1) {
		switch (o) {
		case 'f':
			set.format = optarg;
			break;
		case 'O':
			set.out_format = optarg;
			break;
		case 'o':
			set.options = optarg;
			break;
		case 'B':
			set.backing = optarg;
			break;
		case 'F':
			set.backing_format = optarg;
			break;
		case 't':
			set.cache = optarg;
			break;
		case 'T':
			set.src_cache = optarg;
			break;
		case 'S':
			if (!parse_size(optarg, 1, &set.sparse) || set.sparse % 512 ||
			    set.sparse > CHUNK)
				return img_usage("Invalid sparse size specified");
			break;
		case 'm':
			if (!parse_u64(optarg, &n) || n < 1 || n > MAX_WORKERS)
				return img_usage("Invalid number of coroutines. Allowed number of "
						 "coroutines is between 1 and %d",
						 MAX_WORKERS);
			set.workers = n;
			break;
		case 'W': /* writes are never kept in order */
			break;
		case 'n':
			set.no_create = true;
			break;
		case 'p':
			set.progress = true;
			break;
		case 'q':
			set.quiet = true;
			break;
		case 'U':
			set.flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 1:
			set.image_opts = true;
			break;
		case 2:
			set.target_is_zero = true;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 2)
		return img_usage("Must specify image file name and output file name");
	if (set.target_is_zero && !set.no_create)
		return img_usage("--target-is-zero requires use of -n flag");
	if (set.no_create && set.options)
		return img_usage("-o has no effect when skipping image creation");
	return run(loop, &set, argv[optind], argv[optind + 1]);
}
