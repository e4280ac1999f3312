/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img io: commands about the image as a whole.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/img/io.h"
#include "block/qcow2/qcow2.h"

/* What reopen -o changed: later keys are instead of those before. */
static bool more_options(struct opts *opts, const char *text, struct error **err)
{
	struct opts more;
	bool ok = opts_parse(&more, text, NULL, err);

	for (size_t i = 0; ok && i < more.count; i++) {
		for (size_t k = 0; k < opts->count;) {
			struct opt *o = &opts->items[k];

			if (strcmp(o->key, more.items[i].key)) {
				k++;
				continue;
			}
			free(o->key);
			free(o->value);
			*o = opts->items[--opts->count];
		}
		opts_add(opts, more.items[i].key, more.items[i].value);
	}
	if (ok)
		opts_free(&more);
	return ok;
}

bool io_open(struct io *io, struct error **err)
{
	const struct io_how *how = &io->how;
	uint32_t flags = how->flags;
	struct opts opts = {0};

	if (how->image_opts) {
		if (!opts_parse(&opts, how->name, NULL, err))
			return false;
		flags |= BLOCK_OPEN_BLOCKDEV;
	} else {
		opts_add(&opts, "file", how->name);
		if (how->format)
			opts_add(&opts, "format", how->format);
		if (how->aio)
			opts_add(&opts, "file.aio", how->aio);
		if (how->discard)
			opts_add(&opts, "discard", how->discard);
	}
	if (how->snapshot)
		flags &= ~BLOCK_OPEN_RDWR;
	if (!how->more || more_options(&opts, how->more, err))
		io->node = block_open_tool(io->img->loop, &opts, flags, &io->img->names, err);
	opts_free(&opts);
	if (io->node && how->snapshot) {
		struct block_open above = {.loop = io->img->loop, .home = io->img->loop};

		io->node = block_overlay(&above, io->node, err);
	}
	if (io->node && how->copy_on_read) {
		io->node = block_filter_above(&block_copy_on_read, io->node);
		if (!block_copy_on_read_init(io->node, err)) {
			block_unref(io->node);
			io->node = NULL;
		}
	}
	if (!io->node)
		error_prefix(err, "can't open%s%s: ", how->image_opts ? "" : " device ",
			     how->image_opts ? "" : how->name);
	return io->node != NULL;
}

void io_close(struct io *io)
{
	block_unref(io->node);
	io->node = NULL;
}

static void fail(struct io *io, struct error *err)
{
	img_fail(err);
	io->failed = true;
}

static void do_open(struct io *io, struct io_args *a)
{
	uint32_t flags = BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP;
	const char *discard = NULL, *options = NULL, *cache = "writeback", *aio = NULL;
	struct error *err = NULL;
	bool copy = false, snapshot = false;
	int c;

	optind = 0;
	while ((c = getopt(a->argc, a->argv, "+rsnkCUi:t:d:o:")) != -1) {
		switch (c) {
		case 'r':
			flags &= ~BLOCK_OPEN_RDWR;
			break;
		case 'n':
			cache = "none";
			break;
		case 'k':
			aio = "native";
			break;
		case 'i':
			aio = optarg;
			break;
		case 's':
			snapshot = true;
			break;
		case 'C':
			copy = true;
			break;
		case 'U':
			flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 't':
			cache = optarg;
			break;
		case 'd':
			discard = optarg;
			break;
		case 'o':
			options = optarg;
			break;
		default:
			io_wrong(io, a->argv[0]);
			return;
		}
	}
	if (io->node) {
		fprintf(stderr, "file open already, try 'help close'\n");
		io->failed = true;
		return;
	}
	if (a->argc - optind != !options) {
		io_wrong(io, a->argv[0]);
		return;
	}
	if (!block_parse_cache(cache, &flags)) {
		error_set(&err, "Invalid cache option: %s", cache);
		fail(io, err);
		return;
	}
	free(io->how.name);
	free(io->how.discard);
	free(io->how.aio);
	io->how.name = xstrdup(options ? options : a->argv[optind]);
	io->how.discard = discard ? xstrdup(discard) : NULL;
	io->how.aio = aio ? xstrdup(aio) : NULL;
	io->how.image_opts = options != NULL;
	io->how.flags = flags;
	io->how.copy_on_read = copy;
	io->how.snapshot = snapshot;
	free(io->how.more);
	io->how.more = NULL;
	if (!io_open(io, &err))
		fail(io, err);
}

static void do_close(struct io *io, struct io_args *a)
{
	io_wait(io);
	io_close(io);
}

static void do_reopen(struct io *io, struct io_args *a)
{
	struct io_how before = io->how;
	bool readonly = false, writable = false;
	struct error *err = NULL;
	const char *cache = NULL, *options = NULL;
	int c;

	optind = 0;
	while ((c = getopt(a->argc, a->argv, "+c:o:rw")) != -1) {
		switch (c) {
		case 'c':
			cache = optarg;
			break;
		case 'o':
			options = optarg;
			break;
		case 'r':
			readonly = true;
			break;
		case 'w':
			writable = true;
			break;
		default:
			io_wrong(io, a->argv[0]);
			return;
		}
	}
	if (a->argc != optind) {
		io_wrong(io, a->argv[0]);
		return;
	}
	if (readonly && writable)
		error_set(&err, "Only one -r/-w option may be given");
	if (cache && !err) {
		io->how.flags &= ~(BLOCK_OPEN_DIRECT | BLOCK_OPEN_NO_FLUSH |
				   BLOCK_OPEN_WRITETHROUGH);
		if (!block_parse_cache(cache, &io->how.flags))
			error_set(&err, "Invalid cache option: %s", cache);
	}
	if (err) {
		io->how = before;
		fail(io, err);
		return;
	}
	if (readonly)
		io->how.flags &= ~BLOCK_OPEN_RDWR;
	if (writable)
		io->how.flags |= BLOCK_OPEN_RDWR;
	if (options)
		io->how.more = before.more ? xasprintf("%s,%s", before.more, options)
					   : xstrdup(options);
	io_wait(io);
	io_close(io);
	if (io_open(io, &err)) {
		if (options)
			free(before.more);
		return;
	}
	fail(io, err);
	if (options)
		free(io->how.more);
	io->how = before;
	err = NULL;
	if (!io_open(io, &err))
		fail(io, err);
}

static void do_length(struct io *io, struct io_args *a)
{
	char buf[48];

	printf("%s\n", io_size(buf, block_length(io->node)));
}

static void do_truncate(struct io *io, struct io_args *a)
{
	enum block_prealloc mode = PREALLOC_OFF;
	struct error *err = NULL;
	uint64_t size;
	int c;

	optind = 0;
	while ((c = getopt(a->argc, a->argv, "+m:")) != -1) {
		if (c != 'm') {
			io_wrong(io, a->argv[0]);
			return;
		}
		if (!img_parse_prealloc(optarg, &mode, &err)) {
			fail(io, err);
			return;
		}
	}
	if (a->argc - optind != 1) {
		io_wrong(io, a->argv[0]);
		return;
	}
	if (io_number(io, a->argv[optind], &size) && block_grow(io->node, size, mode, &err))
		fail(io, err);
}

/* The run from at on that this layer has, or has not. */
static int allocated_run(struct io *io, uint64_t at, uint64_t bytes, uint64_t *run, bool *allocated)
{
	struct block_extent x;
	int ret;

	for (*run = 0; *run < bytes; *run += x.bytes) {
		ret = block_status(io->node, at + *run, bytes - *run, &x);
		if (ret)
			return ret;
		if (!*run)
			*allocated = x.allocated;
		else if (x.allocated != *allocated)
			break;
	}
	return 0;
}

static void do_alloc(struct io *io, struct io_args *a)
{
	uint64_t offset, bytes = 512, end, sum = 0, run;
	char buf[48];
	bool yes = false;

	if (!io_number(io, a->argv[1], &offset) || (a->argc > 2 && !io_number(io, a->argv[2], &bytes)))
		return;
	end = offset > block_length(io->node) ? offset
					      : MIN(block_length(io->node), offset + bytes);
	bytes = end - offset;
	for (uint64_t at = offset; at < end; at += run) {
		int ret = allocated_run(io, at, end - at, &run, &yes);

		if (ret) {
			printf("is_allocated failed: %s\n", strerror(-ret));
			io->failed = true;
			return;
		}
		sum += yes ? run : 0;
	}
	printf("%llu/%llu bytes allocated at offset %s\n", (unsigned long long)sum,
	       (unsigned long long)bytes, io_size(buf, offset));
}

static void do_map(struct io *io, struct io_args *a)
{
	uint64_t end = block_length(io->node), run;
	bool yes = false;

	for (uint64_t at = 0; at < end; at += run) {
		int ret = allocated_run(io, at, end - at, &run, &yes);
		char size[48], offset[48];

		if (ret) {
			printf("Failed to get allocation status: %s\n", strerror(-ret));
			io->failed = true;
			return;
		}
		printf("%s (0x%llx) bytes %s allocated at offset %s (0x%llx)\n",
		       io_size(size, run), (unsigned long long)run, yes ? "   " : "not",
		       io_size(offset, at), (unsigned long long)at);
	}
}

static void do_info(struct io *io, struct io_args *a)
{
	uint64_t cluster = 0, vm_state = 0;
	char buf[48];

	if (io->node->drv == &block_qcow2) {
		struct qcow2 *s = io->node->opaque;

		cluster = s->cluster_size;
		vm_state = ALIGN_UP(s->h.size, UINT64_C(1) << (s->cluster_bits + s->l2_bits));
	}
	printf("format name: %s\n", block_format(io->node));
	printf("cluster size: %s\n", io_size(buf, cluster));
	printf("vm state offset: %s\n", io_size(buf, vm_state));
	img_print_specific(io->node);
}

static void do_sleep(struct io *io, struct io_args *a)
{
	uint64_t ms;

	if (!parse_u64(a->argv[1], &ms)) {
		printf("%s is not a valid number\n", a->argv[1]);
		io->failed = true;
		return;
	}
	/* Requests in the background go on. */
	for (int64_t end = evloop_now(io->img->loop) +
			   (int64_t)MIN(ms, UINT64_C(1000000)) * 1000000,
		     left;
	     (left = end - evloop_now(io->img->loop)) > 0;)
		evloop_run_once(io->img->loop, left);
}

static void do_quit(struct io *io, struct io_args *a)
{
	io->quit = true;
}

static void do_help(struct io *io, struct io_args *a)
{
	const struct io_command *c;
	const char *last = "";

	if (a->argc > 1) {
		c = io_find(a->argv[1]);
		if (c)
			io_print_usage(c);
		else
			printf("command %s not found\n", a->argv[1]);
		return;
	}
	while ((c = io_next(last))) {
		io_print_usage(c);
		last = c->name;
	}
	printf("\nUse 'help commandname' for one command.\n");
}

const struct io_command io_file_commands[] = {
	{"alloc", NULL, do_alloc, 1, 2, false, false, "offset [count]",
	 "how much of it this image has itself"},
	{"close", "c", do_close, 0, 0, false, false, "", "closes the image"},
	{"help", "?", do_help, 0, 1, false, true, "[command]", "lists the commands"},
	{"info", "i", do_info, 0, 0, false, false, "", "tells about the image"},
	{"length", "l", do_length, 0, 0, false, false, "", "the disk's size"},
	{"map", NULL, do_map, 0, 0, false, false, "", "what this image has itself"},
	{"open", "o", do_open, 1, -1, false, true,
	 "[-rsCnkU] [-t cache] [-d discard] [-i aio] [-o options] [path]", "opens an image"},
	{"quit", "q", do_quit, 0, 0, false, true, "", "ends the program"},
	{"reopen", NULL, do_reopen, 0, -1, false, false, "[(-r|-w)] [-c cache] [-o options]",
	 "opens the same image in another way"},
	{"sleep", NULL, do_sleep, 1, 1, false, false, "", "waits for so many milliseconds"},
	{"truncate", "t", do_truncate, 1, -1, true, false, "[-m prealloc_mode] off",
	 "changes the disk's size"},
	{0},
};
