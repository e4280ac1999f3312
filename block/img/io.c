/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img io: qemu-io's commands, so that the block layer is driven without a guest.
 *
 *   vmm-img io [-c COMMAND]... [-f FMT] [-r] [-n] [-t CACHE] [-d DISCARD] [-i AIO] [-U]
 * [--image-opts] FILE
 *
 * Without -c commands come from standard input. The exit code is 1 if any command failed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/img/img.h"

enum { MAX_ARGS = 64, MAX_REQUEST = 0x7ffffe00 };

struct io {
	struct evloop *loop;
	struct block_node *node;
	unsigned in_flight; /* aio */
	bool failed, quit;
};

struct io_args {
	int argc;
	char *argv[MAX_ARGS];
};

/* A request and what it is to say at its end. */
struct io_request {
	struct io *io;
	const char *verb;
	bool quiet, dump, check;
	int pattern;
	size_t check_at, check_len; /* of the buffer */
	uint64_t offset, bytes;
	int64_t start;
	char *buf;
	struct iovec iov;
	bool done;
	int ret;
	struct block_req *req;
};

static void dump(const char *buf, uint64_t offset, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 16) {
		printf("%08llx:  ", (unsigned long long)(offset + i));
		for (size_t k = 0; k < 16 && i + k < bytes; k++)
			printf("%02x ", (unsigned char)buf[i + k]);
		putchar(' ');
		for (size_t k = 0; k < 16 && i + k < bytes; k++) {
			char c = buf[i + k];

			putchar(c >= ' ' && c <= '~' ? c : '.');
		}
		putchar('\n');
	}
}

/* "4 KiB", "63.701 MiB": three decimals, none if they are all zero. */
static const char *exact_size(char *buf, double value)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	char number[32];
	size_t unit = 0, len;

	for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units); unit++)
		value /= 1024;
	snprintf(number, sizeof(number), "%.3f", value);
	len = strlen(number);
	if (!strcmp(number + len - 4, ".000"))
		number[len - 4] = '\0';
	snprintf(buf, 64, "%s %s", number, units[unit]);
	return buf;
}

static void report(const struct io_request *r)
{
	double seconds = (clock_now(&clock_monotonic) - r->start) / 1e9;
	char size[64], rate[64];

	if (r->quiet)
		return;
	if (seconds <= 0)
		seconds = 1e-9;
	exact_size(size, r->bytes);
	exact_size(rate, r->bytes / seconds);
	printf("%s %llu/%llu bytes at offset %llu\n", r->verb, (unsigned long long)r->bytes,
	       (unsigned long long)r->bytes, (unsigned long long)r->offset);
	printf("%s, 1 ops; %05.2f sec (%s/sec and %.4f ops/sec)\n", size, seconds, rate,
	       1 / seconds);
}

static void conclude(struct io_request *r)
{
	struct io *io = r->io;
	const char *verb = !strcmp(r->verb, "wrote") ? "write" : r->verb;

	if (r->ret < 0) {
		printf("%s failed: %s\n", verb, strerror(-r->ret));
		io->failed = true;
	} else {
		if (r->check) {
			for (size_t i = 0; i < r->check_len; i++) {
				if ((unsigned char)r->buf[r->check_at + i] == r->pattern)
					continue;
				printf("Pattern verification failed at offset %llu, %zu bytes\n",
				       (unsigned long long)(r->offset + r->check_at), r->check_len);
				io->failed = true;
				break;
			}
		}
		if (r->dump)
			dump(r->buf, r->offset, r->bytes);
		report(r);
	}
	fflush(stdout);
}

static void free_request(struct io_request *r)
{
	free(r->buf);
	free(r->req);
	free(r);
}

static void request_done(struct block_req *req, int ret)
{
	struct io_request *r = req->ctx;

	r->ret = ret;
	r->done = true;
}

static void aio_done(struct block_req *req, int ret)
{
	struct io_request *r = req->ctx;
	struct io *io = r->io;

	r->ret = ret;
	conclude(r);
	io->in_flight--;
	free_request(r);
}

static void submit(struct io_request *r, enum block_op op, uint32_t flags, bool aio)
{
	struct io *io = r->io;

	r->start = clock_now(&clock_monotonic);
	r->req = xmalloc(block_req_size(io->node));
	r->iov = (struct iovec){r->buf, r->bytes};
	*r->req = (struct block_req){
		.node = io->node,
		.op = op,
		.flags = flags,
		.offset = r->offset,
		.bytes = r->bytes,
		.iov = r->buf ? &r->iov : NULL,
		.iovcnt = r->buf ? 1 : 0,
		.done = aio ? aio_done : request_done,
		.ctx = r,
	};
	if (aio) {
		io->in_flight++;
		block_submit(r->req);
		return;
	}
	block_submit(r->req);
	while (!r->done)
		evloop_run_once(io->loop, -1);
	conclude(r);
	free_request(r);
}

/* The numbers at the command's end; false after a message. */
static bool parse_number(struct io *io, const char *s, uint64_t *out)
{
	if (parse_size(s, 1, out) && *out <= INT64_MAX)
		return true;
	printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n", s);
	io->failed = true;
	return false;
}

static bool wrong_usage(struct io *io, const char *command)
{
	printf("%s: wrong number of arguments\n", command);
	io->failed = true;
	return false;
}

static bool parse_range(struct io *io, struct io_args *a, struct io_request *r, bool bounded)
{
	if (a->argc - optind < 2)
		return wrong_usage(io, a->argv[0]);
	if (!parse_number(io, a->argv[optind], &r->offset) ||
	    !parse_number(io, a->argv[optind + 1], &r->bytes))
		return false;
	/* readv and writev: further lengths, one buffer all the same. */
	for (int i = optind + 2; i < a->argc; i++) {
		uint64_t more;

		if (!strchr(a->argv[0], 'v') && strncmp(a->argv[0], "aio", 3))
			return wrong_usage(io, a->argv[0]);
		if (!parse_number(io, a->argv[i], &more))
			return false;
		r->bytes += more;
	}
	if (bounded && r->bytes > MAX_REQUEST) {
		printf("length cannot exceed %u, given %s\n", MAX_REQUEST, a->argv[optind + 1]);
		io->failed = true;
		return false;
	}
	return true;
}

static bool alloc_buf(struct io *io, struct io_request *r, int fill)
{
	if (posix_memalign((void **)&r->buf, 4096, MAX(r->bytes, UINT64_C(1)))) {
		r->buf = NULL;
		printf("%s\n", strerror(ENOMEM));
		io->failed = true;
		return false;
	}
	memset(r->buf, fill, r->bytes);
	return true;
}

static struct io_request *new_request(struct io *io, const char *verb)
{
	struct io_request *r = xcalloc(1, sizeof(*r));

	r->io = io;
	r->verb = verb;
	return r;
}

static void do_read(struct io *io, struct io_args *a)
{
	struct io_request *r = new_request(io, "read");
	bool aio = !strncmp(a->argv[0], "aio", 3), has_len = false, has_at = false;
	uint64_t n = 0, at = 0, len = 0;
	int c;

	optind = 0;
	while ((c = getopt(a->argc, a->argv, "+l:P:qs:v")) != -1) {
		switch (c) {
		case 'P':
			if (!parse_number(io, optarg, &n))
				goto bad;
			r->check = true;
			r->pattern = n & 0xff;
			break;
		case 's':
			has_at = true;
			if (!parse_number(io, optarg, &at))
				goto bad;
			break;
		case 'l':
			has_len = true;
			if (!parse_number(io, optarg, &len))
				goto bad;
			break;
		case 'q':
			r->quiet = true;
			break;
		case 'v':
			r->dump = true;
			break;
		default:
			printf("%s: invalid option\n", a->argv[0]);
			io->failed = true;
			goto bad;
		}
	}
	if (!parse_range(io, a, r, true))
		goto bad;
	if ((has_len || has_at) && (!r->check || at > r->bytes || len > r->bytes - at)) {
		printf("pattern verification range exceeds end of read data\n");
		io->failed = true;
		goto bad;
	}
	r->check_at = at;
	r->check_len = has_len ? len : r->bytes - at;
	if (!alloc_buf(io, r, 0xab))
		goto bad;
	submit(r, BLOCK_READ, 0, aio);
	return;
bad:
	free_request(r);
}

static void do_write(struct io *io, struct io_args *a)
{
	struct io_request *r = new_request(io, "wrote");
	bool aio = !strncmp(a->argv[0], "aio", 3), zero = false, pattern = false;
	uint64_t n = 0xcd;
	uint32_t flags = 0;
	int c;

	optind = 0;
	while ((c = getopt(a->argc, a->argv, "+fP:quz")) != -1) {
		switch (c) {
		case 'P':
			pattern = true;
			if (!parse_number(io, optarg, &n))
				goto bad;
			break;
		case 'z':
			zero = true;
			break;
		case 'u':
			flags |= BLOCK_MAY_UNMAP;
			break;
		case 'f':
			flags |= BLOCK_FUA;
			break;
		case 'q':
			r->quiet = true;
			break;
		default:
			printf("%s: invalid option\n", a->argv[0]);
			io->failed = true;
			goto bad;
		}
	}
	if ((zero && pattern) || (!zero && (flags & BLOCK_MAY_UNMAP))) {
		printf(zero ? "-z and -P cannot be specified at the same time\n"
			    : "-u requires -z to be specified\n");
		io->failed = true;
		goto bad;
	}
	if (!parse_range(io, a, r, !zero) || (!zero && !alloc_buf(io, r, n & 0xff)))
		goto bad;
	submit(r, zero ? BLOCK_WRITE_ZEROES : BLOCK_WRITE, flags, aio);
	return;
bad:
	free_request(r);
}

static void do_discard(struct io *io, struct io_args *a)
{
	struct io_request *r = new_request(io, "discard");
	int c;

	optind = 0;
	while ((c = getopt(a->argc, a->argv, "+q")) == 'q')
		r->quiet = true;
	if (c != -1) {
		printf("%s: invalid option\n", a->argv[0]);
		io->failed = true;
	}
	if (c == -1 && parse_range(io, a, r, false))
		submit(r, BLOCK_DISCARD, 0, false);
	else
		free_request(r);
}

static void wait_aio(struct io *io)
{
	while (io->in_flight)
		evloop_run_once(io->loop, -1);
}

static void do_aio_flush(struct io *io, struct io_args *a)
{
	wait_aio(io);
}

static void do_flush(struct io *io, struct io_args *a)
{
	int ret = block_flush(io->node);

	if (ret) {
		printf("flush failed: %s\n", strerror(-ret));
		io->failed = true;
	}
}

static void do_length(struct io *io, struct io_args *a)
{
	char buf[64];

	printf("%s\n", exact_size(buf, block_length(io->node)));
}

static void do_truncate(struct io *io, struct io_args *a)
{
	struct error *err = NULL;
	uint64_t size;

	if (a->argc != 2) {
		wrong_usage(io, a->argv[0]);
		return;
	}
	if (!parse_number(io, a->argv[1], &size))
		return;
	if (block_truncate(io->node, size, &err)) {
		printf("%s\n", error_message(err));
		error_free(err);
		io->failed = true;
	}
}

static void do_sleep(struct io *io, struct io_args *a)
{
	uint64_t ms;

	if (a->argc == 2 && parse_number(io, a->argv[1], &ms))
		usleep(MIN(ms, UINT64_C(1000000)) * 1000);
	else
		wrong_usage(io, a->argv[0]);
}

static void do_quit(struct io *io, struct io_args *a)
{
	io->quit = true;
}

static const struct {
	const char *name;
	void (*run)(struct io *io, struct io_args *a);
} commands[] = {
	{"read", do_read},	     {"r", do_read},	      {"readv", do_read},
	{"aio_read", do_read},	     {"write", do_write},     {"w", do_write},
	{"writev", do_write},	     {"aio_write", do_write}, {"discard", do_discard},
	{"d", do_discard},	     {"flush", do_flush},     {"f", do_flush},
	{"aio_flush", do_aio_flush}, {"length", do_length},   {"l", do_length},
	{"truncate", do_truncate},   {"t", do_truncate},      {"sleep", do_sleep},
	{"quit", do_quit},	     {"q", do_quit},
};

static void run_command(struct io *io, const char *text)
{
	struct io_args a = {0};
	char *copy = xstrdup(text), *save = NULL;

	for (char *word = strtok_r(copy, " \t\n", &save); word && a.argc < MAX_ARGS - 1;
	     word = strtok_r(NULL, " \t\n", &save))
		a.argv[a.argc++] = word;
	if (a.argc) {
		size_t i = 0;

		while (i < ARRAY_SIZE(commands) && strcmp(commands[i].name, a.argv[0]))
			i++;
		if (i < ARRAY_SIZE(commands)) {
			commands[i].run(io, &a);
		} else {
			printf("command \"%s\" not found\n", a.argv[0]);
			io->failed = true;
		}
		fflush(stdout);
	}
	free(copy);
}

static void interactive(struct io *io)
{
	char *line = NULL;
	size_t room = 0;

	while (!io->quit && getline(&line, &room, stdin) >= 0)
		run_command(io, line);
	free(line);
}

int img_io(struct evloop *loop, int argc, char **argv)
{
	static const struct option longs[] = {{"cmd", 1, 0, 'c'},	{"format", 1, 0, 'f'},
					      {"read-only", 0, 0, 'r'}, {"nocache", 0, 0, 'n'},
					      {"cache", 1, 0, 't'},	{"discard", 1, 0, 'd'},
					      {"aio", 1, 0, 'i'},	{"force-share", 0, 0, 'U'},
					      {"image-opts", 0, 0, 1},	{0}};
	const char *commands_given[MAX_ARGS], *format = NULL, *cache = "writeback";
	const char *discard = NULL, *aio = NULL;
	struct io io = {.loop = loop};
	struct opts opts = {0};
	struct error *err = NULL;
	uint32_t flags = BLOCK_OPEN_RDWR;
	bool image_opts = false;
	int c, n = 0;

	while ((c = getopt_long(argc, argv, "c:f:rnt:d:i:U", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			if (n == MAX_ARGS)
				return img_usage("too many commands");
			commands_given[n++] = optarg;
			break;
		case 'f':
			format = optarg;
			break;
		case 'r':
			flags &= ~BLOCK_OPEN_RDWR;
			break;
		case 'n':
			cache = "none";
			break;
		case 't':
			cache = optarg;
			break;
		case 'd':
			discard = optarg;
			break;
		case 'i':
			aio = optarg;
			break;
		case 'U':
			flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 1:
			image_opts = true;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1)
		return img_usage("io: one file name is expected");
	if (!block_parse_cache(cache, &flags))
		return img_usage("Invalid cache option: %s", cache);
	if (image_opts && !opts_parse(&opts, argv[optind], NULL, &err))
		return img_fail(err);
	if (image_opts) {
		flags |= BLOCK_OPEN_BLOCKDEV;
	} else {
		opts_add(&opts, "file", argv[optind]);
		if (format)
			opts_add(&opts, "format", format);
		if (aio)
			opts_add(&opts, "file.aio", aio);
		if (discard)
			opts_add(&opts, "discard", discard);
	}
	io.node = block_open_tool(loop, &opts, flags, &err);
	opts_free(&opts);
	if (!io.node) {
		error_prefix(&err, "can't open device %s: ", argv[optind]);
		return img_fail(err);
	}
	for (int i = 0; i < n && !io.quit; i++)
		run_command(&io, commands_given[i]);
	if (!n)
		interactive(&io);
	wait_aio(&io);
	block_unref(io.node);
	return io.failed;
}
