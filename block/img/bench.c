/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img bench: how long so many requests take, with so many in flight. Offsets go up by the step
 * and begin anew where the next one would reach past the end.
 */
#include <stdio.h>
#include <stdlib.h>

#include "block/img/img.h"

struct bench {
	struct block_node *node;
	struct img *img;
	bool write, drain, flushing;
	uint64_t count, depth, bytes, step, start, flush_interval;
	uint64_t offset, sent, done, in_flight;
	uint64_t since_flush, flushes_due;
	int ret;
	uint8_t *buf;
	struct bench_slot {
		struct bench *b;
		struct bench_slot *next;
		struct iovec iov;
		struct block_req *req;
	} *slots, *idle;
	struct block_req *flush_req;
};

static void send_next(struct bench *b);

static void request_done(struct block_req *req, int ret)
{
	struct bench_slot *slot = req->ctx;
	struct bench *b = slot->b;

	slot->next = b->idle;
	b->idle = slot;
	b->in_flight--;
	b->done++;
	if (ret && !b->ret)
		b->ret = ret;
	if (b->flush_interval && ++b->since_flush == b->flush_interval) {
		b->since_flush = 0;
		b->flushes_due++;
	}
	send_next(b);
}

static void flush_done(struct block_req *req, int ret)
{
	struct bench *b = req->ctx;

	b->flushing = false;
	b->flushes_due--;
	if (ret && !b->ret)
		b->ret = ret;
	send_next(b);
}

static void send_flush(struct bench *b)
{
	b->flushing = true;
	*b->flush_req = (struct block_req){
		.node = b->node, .op = BLOCK_FLUSH, .done = flush_done, .ctx = b};
	block_submit(b->flush_req);
}

static void send_one(struct bench *b)
{
	struct bench_slot *slot = b->idle;

	b->idle = slot->next;
	*slot->req = (struct block_req){
		.node = b->node,
		.op = b->write ? BLOCK_WRITE : BLOCK_READ,
		.offset = b->offset,
		.bytes = b->bytes,
		.iov = &slot->iov,
		.iovcnt = 1,
		.done = request_done,
		.ctx = slot,
	};
	b->offset += b->step;
	if (b->offset > block_length(b->node) - b->bytes)
		b->offset = b->start;
	b->sent++;
	b->in_flight++;
	block_submit(slot->req);
}

static void send_next(struct bench *b)
{
	if (b->flushes_due && !b->flushing && (!b->drain || !b->in_flight))
		send_flush(b);
	if (b->drain && b->flushes_due)
		return; /* nothing new before the flush has ended */
	while (!b->ret && b->sent < b->count && b->idle)
		send_one(b);
}

static bool make_slots(struct bench *b)
{
	size_t size = MAX(b->bytes, UINT64_C(1));

	if (b->depth > SIZE_MAX / size || posix_memalign((void **)&b->buf, 4096, b->depth * size)) {
		b->buf = NULL;
		return false;
	}
	b->slots = calloc(b->depth, sizeof(*b->slots));
	if (!b->slots)
		return false;
	for (uint64_t i = 0; i < b->depth; i++) {
		struct bench_slot *slot = &b->slots[i];

		slot->b = b;
		slot->iov = (struct iovec){b->buf + i * b->bytes, b->bytes};
		slot->req = malloc(block_req_size(b->node));
		if (!slot->req)
			return false;
		slot->next = b->idle;
		b->idle = slot;
	}
	b->flush_req = malloc(block_req_size(b->node));
	return b->flush_req != NULL;
}

static void free_slots(struct bench *b)
{
	for (uint64_t i = 0; b->slots && i < b->depth; i++)
		free(b->slots[i].req);
	free(b->slots);
	free(b->flush_req);
	free(b->buf);
}

static int run(struct bench *b, int pattern, bool quiet)
{
	int64_t begin, end;

	if (b->start > block_length(b->node) || b->bytes > block_length(b->node) - b->start)
		return img_usage("Failed request: Input/output error");
	if (!make_slots(b))
		return img_usage("Could not allocate the requests' buffers");
	memset(b->buf, pattern, b->depth * b->bytes);
	if (!quiet) {
		printf("Sending %llu %s requests, %llu bytes each, %llu in parallel (starting at "
		       "offset %llu, step size %llu)\n",
		       (unsigned long long)b->count, b->write ? "write" : "read",
		       (unsigned long long)b->bytes, (unsigned long long)b->depth,
		       (unsigned long long)b->start, (unsigned long long)b->step);
		if (b->flush_interval)
			printf("Sending flush every %llu %srequests\n",
			       (unsigned long long)b->flush_interval, b->drain ? "" : "in-flight ");
		fflush(stdout);
	}
	begin = clock_now(&clock_monotonic);
	b->offset = b->start;
	send_next(b);
	while (b->in_flight || b->flushing)
		evloop_run_once(b->img->loop, -1);
	end = clock_now(&clock_monotonic);
	if (b->ret)
		return img_usage("Failed request: %s", strerror(-b->ret));
	if (!quiet)
		printf("Run completed in %3.3f seconds.\n", (end - begin) / 1e9);
	return 0;
}

struct settings {
	const char *format, *cache, *aio;
	bool image_opts, quiet, native;
	uint64_t pattern;
	uint32_t flags;
};

static struct block_node *open_it(struct img *img, const struct settings *set, const char *name,
				  struct error **err)
{
	struct opts opts = {0};
	struct block_node *node = NULL;
	uint32_t flags = set->flags;

	if (set->cache && !block_parse_cache(set->cache, &flags)) {
		error_set(err, "Invalid cache mode");
		return NULL;
	}
	if (set->image_opts) {
		if (!opts_parse(&opts, name, NULL, err))
			return NULL;
		flags |= BLOCK_OPEN_BLOCKDEV;
	} else {
		opts_add(&opts, "file", name);
		if (set->format)
			opts_add(&opts, "format", set->format);
	}
	if (set->aio)
		opts_add(&opts, "file.aio", set->aio);
	node = block_open_tool(img->loop, &opts, flags, &img->names, err);
	opts_free(&opts);
	if (!node)
		error_prefix(err, "Could not open '%s': ", name);
	return node;
}

static bool number(const char *what, const char *s, uint64_t max, uint64_t *out)
{
	if (parse_size(s, 1, out) && *out <= max)
		return true;
	img_usage("Invalid %s specified", what);
	return false;
}

enum { FLUSH_INTERVAL = 1, NO_DRAIN, PATTERN, IMAGE_OPTS };

static int parse(struct bench *b, struct settings *set, int argc, char **argv)
{
	static const struct option longs[] = {{"flush-interval", 1, 0, FLUSH_INTERVAL},
					      {"no-drain", 0, 0, NO_DRAIN},
					      {"pattern", 1, 0, PATTERN},
					      {"image-opts", 0, 0, IMAGE_OPTS},
					      {"force-share", 0, 0, 'U'},
					      {0}};
	bool ok = true;
	int o;

	while (ok && (o = getopt_long(argc, argv, "c:d:f:i:no:qs:S:t:wU", longs, NULL)) != -1) {
		switch (o) {
		case 'c':
			ok = number("request count", optarg, INT32_MAX, &b->count);
			break;
		case 'd':
			ok = number("queue depth", optarg, 65536, &b->depth);
			break;
		case 'f':
			set->format = optarg;
			break;
		case 'i':
			set->aio = optarg;
			ok = !strcmp(optarg, "threads") || !strcmp(optarg, "native") ||
			     !strcmp(optarg, "io_uring");
			if (!ok)
				img_usage("Invalid aio option: %s", optarg);
			break;
		case 'n':
			set->aio = "native";
			break;
		case 'o':
			ok = parse_size(optarg, 1, &b->start) && b->start <= INT64_MAX;
			if (!ok)
				img_usage("Invalid offset specified. You may use k, M, G, T, P or "
					  "E suffixes for kilobytes, megabytes, gigabytes, "
					  "terabytes, petabytes and exabytes.");
			break;
		case 'q':
			set->quiet = true;
			break;
		case 's':
			ok = number("buffer size", optarg, INT32_MAX, &b->bytes);
			break;
		case 'S':
			ok = number("step size", optarg, INT32_MAX, &b->step);
			break;
		case 't':
			set->cache = optarg;
			break;
		case 'w':
			b->write = true;
			set->flags |= BLOCK_OPEN_RDWR;
			break;
		case 'U':
			set->flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case FLUSH_INTERVAL:
			ok = number("flush interval", optarg, INT32_MAX, &b->flush_interval);
			break;
		case NO_DRAIN:
			b->drain = false;
			break;
		case PATTERN:
			ok = parse_u64(optarg, &set->pattern) && set->pattern <= 255;
			if (!ok)
				img_usage("Invalid pattern byte specified");
			break;
		case IMAGE_OPTS:
			set->image_opts = true;
			break;
		default:
			ok = false;
		}
	}
	return ok ? 0 : 1;
}

int img_bench(struct img *img, int argc, char **argv)
{
	struct bench b = {.img = img, .drain = true, .count = 75000, .depth = 64, .bytes = 4096};
	struct settings set = {0};
	struct error *err = NULL;
	int ret = parse(&b, &set, argc, argv);

	if (ret)
		return ret;
	if (argc - optind != 1)
		return img_usage("Expecting one image file name");
	if (!b.depth)
		return img_usage("Invalid queue depth specified");
	if (!b.write && b.flush_interval)
		return img_usage("--flush-interval is only available in write tests");
	if (b.flush_interval && b.flush_interval < b.depth)
		return img_usage("Flush interval can't be smaller than depth");
	if (!b.step)
		b.step = b.bytes;
	b.node = open_it(img, &set, argv[optind], &err);
	if (!b.node)
		return img_fail(err);
	ret = run(&b, set.pattern, set.quiet);
	free_slots(&b);
	block_unref(b.node);
	return ret;
}
