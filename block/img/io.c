/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img io: qemu-io's commands, so that the block layer is driven without a guest.
 *
 *   vmm-img io [-c COMMAND]... [-C] [-f FMT] [-r] [-s] [-m] [-n] [-t CACHE] [-d DISCARD] [-i AIO]
 *              [-k] [-U] [--image-opts] [FILE]
 *
 * Without -c commands come from standard input. The exit code is 1 if any command failed; those in
 * the background (aio_*) only say so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/img/io.h"

enum { MAX_REQUEST = 0x7ffffe00, MISALIGN = 16 };

/* A request and what it is to say at its end. */
struct io_request {
	struct io *io;
	const char *verb;
	bool quiet, dump, check, csv, aio;
	bool vm_state; /* not the disk's bytes, but those behind them */
	bool invalid;  /* asked for by -i: nothing is done */
	int pattern;
	size_t check_at, check_len; /* of the buffer */
	uint64_t offset, bytes;
	int64_t start;
	char *buf, *room; /* the buffer, and what was allocated for it */
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

const char *io_size(char *buf, double bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	size_t unit = 0, len;

	while (bytes >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		bytes /= 1024;
		unit++;
	}
	len = snprintf(buf, 32, "%.3f", bytes);
	if (len > 4 && !strcmp(buf + len - 4, ".000"))
		len -= 4;
	snprintf(buf + len, 48 - len, " %s", units[unit]);
	return buf;
}

static void report(const struct io_request *r)
{
	double seconds = (clock_now(&clock_monotonic) - r->start) / 1e9;
	unsigned minutes = seconds / 60;
	char size[48], rate[48], time[48];

	if (r->quiet)
		return;
	if (seconds <= 0)
		seconds = 1e-9;
	if (minutes || r->csv)
		snprintf(time, sizeof(time), "%u:%02u:%05.2f", minutes / 60, minutes % 60,
			 seconds - minutes * 60.0);
	else
		snprintf(time, sizeof(time), "%05.2f sec", seconds);
	if (r->csv) {
		printf("%llu,1,%s,%.3f,%.3f\n", (unsigned long long)r->bytes, time,
		       r->bytes / seconds, 1 / seconds);
		return;
	}
	printf("%s %llu/%llu bytes at offset %llu\n", r->verb, (unsigned long long)r->bytes,
	       (unsigned long long)r->bytes, (unsigned long long)r->offset);
	printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", io_size(size, r->bytes), time,
	       io_size(rate, r->bytes / seconds), 1 / seconds);
}

static void verify(struct io_request *r)
{
	const unsigned char *at = (const unsigned char *)r->buf + r->check_at;

	/* The first is as it should be, and each is as the one before. */
	if (!r->check_len || (at[0] == r->pattern && !memcmp(at, at + 1, r->check_len - 1)))
		return;
	printf("Pattern verification failed at offset %llu, %zu bytes\n",
	       (unsigned long long)(r->offset + r->check_at), r->check_len);
	r->io->failed |= !r->aio;
}

static void conclude(struct io_request *r)
{
	const char *verb = !strcmp(r->verb, "wrote") ? "write" : r->verb;

	if (r->ret < 0) {
		if (r->aio)
			verb = !strcmp(verb, "write") ? "aio_write" : "readv";
		printf("%s failed: %s\n", verb, strerror(-r->ret));
		r->io->failed |= !r->aio;
	} else {
		if (r->check)
			verify(r);
		if (r->dump)
			dump(r->buf, r->offset, r->bytes);
		report(r);
	}
	fflush(stdout);
}

static void free_request(struct io_request *r)
{
	free(r->room);
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
	r->aio = aio;
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
		evloop_run_once(io->img->loop, -1);
	conclude(r);
	free_request(r);
}

/* In the image only while nothing else goes on. */
static void submit_vm_state(struct io_request *r, bool write)
{
	struct block_node *node = r->io->node;

	io_wait(r->io);
	r->start = clock_now(&clock_monotonic);
	r->ret = block_vm_state(node, write, r->offset, r->buf, r->bytes);
	conclude(r);
	free_request(r);
}

/* Offset and length of what is done sector by sector. */
static bool sectors_only(const struct io_request *r)
{
	const char *what = r->offset & 511 ? "offset" : r->bytes & 511 ? "count" : NULL;

	if (!what)
		return true;
	printf("%llu is not a sector-aligned value for '%s'\n",
	       (unsigned long long)(r->offset & 511 ? r->offset : r->bytes), what);
	r->io->failed = true;
	return false;
}

bool io_number(struct io *io, const char *s, uint64_t *out)
{
	if (parse_size(s, 1, out) && *out <= INT64_MAX)
		return true;
	printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n", s);
	io->failed = true;
	return false;
}

void io_print_usage(const struct io_command *c)
{
	printf("%s %s -- %s\n", c->name, c->args, c->help);
}

void io_wrong(struct io *io, const char *name)
{
	io_print_usage(io_find(name));
	io->failed = true;
}

/* The numbers at the command's end. Of the vectored and background commands further lengths, which
 * go into one buffer all the same. */
static bool parse_range(struct io *io, struct io_args *a, struct io_request *r, bool bounded,
			bool many)
{
	int left = a->argc - optind;

	if (many ? left < 2 : left != 2) {
		io_wrong(io, a->argv[0]);
		return false;
	}
	if (!io_number(io, a->argv[optind], &r->offset))
		return false;
	for (int i = optind + 1; i < a->argc; i++) {
		uint64_t more;

		if (!io_number(io, a->argv[i], &more))
			return false;
		if (bounded && (more > MAX_REQUEST || r->bytes + more > MAX_REQUEST)) {
			if (many)
				printf("Argument '%s' exceeds maximum size %u\n", a->argv[i],
				       MAX_REQUEST);
			else
				printf("length cannot exceed %u%s, given %s\n", MAX_REQUEST,
				       !strcmp(r->verb, "wrote") ? " without -n" : "", a->argv[i]);
			io->failed = true;
			return false;
		}
		r->bytes += more;
	}
	return true;
}

static bool alloc_buf(struct io *io, struct io_request *r, int fill)
{
	size_t off = io->misalign ? MISALIGN : 0;

	if (posix_memalign((void **)&r->room, 4096, r->bytes + off + 1)) {
		r->room = NULL;
		printf("%s\n", strerror(ENOMEM));
		io->failed = true;
		return false;
	}
	r->buf = r->room + off;
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

static bool is_many(const struct io_args *a)
{
	return !strncmp(a->argv[0], "aio", 3) || strchr(a->argv[0], 'v');
}

static void do_read(struct io *io, struct io_args *a)
{
	struct io_request *r = new_request(io, "read");
	bool aio = !strncmp(a->argv[0], "aio", 3), has_len = false, has_at = false;
	uint64_t n = 0, at = 0, len = 0;
	int c;

	optind = 0;
	while ((c = getopt(a->argc, a->argv, is_many(a) ? aio ? "+CiP:qv" : "+CP:qv" : "+bCl:pP:qs:v")) != -1) {
		switch (c) {
		case 'b':
			r->vm_state = true;
			break;
		case 'C':
			r->csv = true;
			break;
		case 'i':
			r->invalid = true;
			break;
		case 'P':
			if (!io_number(io, optarg, &n))
				goto bad;
			r->check = true;
			r->pattern = n & 0xff;
			break;
		case 's':
			has_at = true;
			if (!io_number(io, optarg, &at))
				goto bad;
			break;
		case 'l':
			has_len = true;
			if (!io_number(io, optarg, &len))
				goto bad;
			break;
		case 'p': /* preads it is, always */
			break;
		case 'q':
			r->quiet = true;
			break;
		case 'v':
			r->dump = true;
			break;
		default:
			io_wrong(io, a->argv[0]);
			goto bad;
		}
	}
	if (r->invalid)
		printf("injecting invalid read request\n");
	if (r->invalid || !parse_range(io, a, r, true, is_many(a)))
		goto bad;
	if ((has_len || has_at) && !r->check) {
		io_wrong(io, a->argv[0]);
		goto bad;
	}
	if (at > r->bytes || len > r->bytes - at) {
		printf("pattern verification range exceeds end of read data\n");
		io->failed = true;
		goto bad;
	}
	r->check_at = at;
	r->check_len = has_len ? len : r->bytes - at;
	if ((r->vm_state && !sectors_only(r)) || !alloc_buf(io, r, 0xab))
		goto bad;
	if (r->vm_state)
		submit_vm_state(r, false);
	else
		submit(r, BLOCK_READ, 0, aio);
	return;
bad:
	free_request(r);
}

/* The file's bytes, over and over. */
static bool fill_from(struct io *io, struct io_request *r, const char *name)
{
	FILE *f = fopen(name, "r");
	size_t n = f ? fread(r->buf, 1, r->bytes, f) : 0;

	if (!f || (!n && r->bytes)) {
		printf("%s: %s\n", name, f ? "file is empty" : strerror(errno));
		io->failed = true;
	}
	for (size_t at = n; n && at < r->bytes; at++)
		r->buf[at] = r->buf[at - n];
	if (f)
		fclose(f);
	return n || (f && !r->bytes);
}

struct write_options {
	bool zero, pattern, compress, vm_state;
	uint64_t fill;
	const char *source;
	uint32_t flags;
};

static bool write_options_ok(struct io *io, const struct write_options *w)
{
	const char *what = NULL;

	if (w->vm_state && w->zero)
		what = "-b and -z cannot be specified at the same time";
	else if ((w->flags & BLOCK_FUA) && (w->vm_state || w->compress))
		what = "-f and -b or -c cannot be specified at the same time";
	else if (!w->zero && (w->flags & BLOCK_NO_FALLBACK))
		what = "-n requires -z to be specified";
	else if (w->zero + w->pattern + (w->source != NULL) > 1)
		what = "Only one of -z, -P, and -s can be specified at the same time";
	else if (!w->zero && (w->flags & BLOCK_MAY_UNMAP))
		what = "-u requires -z to be specified";
	if (what)
		printf("%s\n", what);
	io->failed |= what != NULL;
	return !what;
}

static void do_write(struct io *io, struct io_args *a)
{
	struct io_request *r = new_request(io, "wrote");
	bool aio = !strncmp(a->argv[0], "aio", 3);
	const char *known = aio ? "+CfiP:quz" : is_many(a) ? "+CfP:q" : "+bcCfnpP:qs:uz";
	struct write_options w = {.fill = 0xcd};
	int c;

	optind = 0;
	while ((c = getopt(a->argc, a->argv, known)) != -1) {
		switch (c) {
		case 'b':
			w.vm_state = true;
			break;
		case 'c':
			w.compress = true;
			break;
		case 'i':
			r->invalid = true;
			break;
		case 'n':
			w.flags |= BLOCK_NO_FALLBACK;
			break;
		case 'C':
			r->csv = true;
			break;
		case 'P':
			w.pattern = true;
			if (!io_number(io, optarg, &w.fill))
				goto bad;
			break;
		case 's':
			w.source = optarg;
			break;
		case 'z':
			w.zero = true;
			break;
		case 'u':
			w.flags |= BLOCK_MAY_UNMAP;
			break;
		case 'f':
			w.flags |= BLOCK_FUA;
			break;
		case 'p': /* pwrites it is, always */
			break;
		case 'q':
			r->quiet = true;
			break;
		default:
			io_wrong(io, a->argv[0]);
			goto bad;
		}
	}
	if (!write_options_ok(io, &w))
		goto bad;
	if (w.zero && is_many(a) && a->argc - optind != 2) {
		printf("-z supports only a single length parameter\n");
		io->failed = true;
		goto bad;
	}
	if (r->invalid)
		printf("injecting invalid write request\n");
	if (r->invalid || !parse_range(io, a, r, !w.zero, is_many(a)) ||
	    ((w.compress || w.vm_state) && !sectors_only(r)))
		goto bad;
	if (!w.zero &&
	    (!alloc_buf(io, r, w.fill & 0xff) || (w.source && !fill_from(io, r, w.source))))
		goto bad;
	if (w.vm_state)
		submit_vm_state(r, true);
	else
		submit(r, w.zero ? BLOCK_WRITE_ZEROES : BLOCK_WRITE,
		       w.flags | (w.compress && !w.zero ? BLOCK_COMPRESSED : 0), aio);
	return;
bad:
	free_request(r);
}

static void do_discard(struct io *io, struct io_args *a)
{
	struct io_request *r = new_request(io, "discard");
	int c;

	optind = 0;
	while ((c = getopt(a->argc, a->argv, "+Cq")) != -1) {
		if (c == 'q') {
			r->quiet = true;
		} else if (c == 'C') {
			r->csv = true;
		} else {
			io_wrong(io, a->argv[0]);
			free_request(r);
			return;
		}
	}
	if (parse_range(io, a, r, false, false))
		submit(r, BLOCK_DISCARD, 0, false);
	else
		free_request(r);
}

void io_wait(struct io *io)
{
	/* What a breakpoint suspends goes on. */
	if (io->in_flight && io->node)
		block_drain(io->node);
	while (io->in_flight)
		evloop_run_once(io->img->loop, -1);
}

static void do_aio_flush(struct io *io, struct io_args *a)
{
	io_wait(io);
}

static void do_flush(struct io *io, struct io_args *a)
{
	int ret = block_flush(io->node);

	if (ret) {
		printf("flush failed: %s\n", strerror(-ret));
		io->failed = true;
	}
}

const struct io_command io_request_commands[] = {
	{"aio_flush", NULL, do_aio_flush, 0, 0, false, false, "",
	 "waits for the requests in the background"},
	{"aio_read", NULL, do_read, 2, -1, false, false, "[-Ciqv] [-P pattern] off len [len..]",
	 "reads in the background"},
	{"aio_write", NULL, do_write, 2, -1, true, false, "[-Cfiquz] [-P pattern] off len [len..]",
	 "writes in the background"},
	{"discard", "d", do_discard, 2, -1, true, false, "[-Cq] off len", "throws bytes away"},
	{"flush", "f", do_flush, 0, 0, false, false, "", "makes what was written durable"},
	{"read", "r", do_read, 2, -1, false, false, "[-bCqv] [-P pattern [-s off] [-l len]] off len",
	 "reads, and compares with a pattern"},
	{"readv", "rv", do_read, 2, -1, false, false, "[-Cqv] [-P pattern] off len [len..]",
	 "reads into several buffers"},
	{"write", "w", do_write, 2, -1, true, false,
	 "[-bcCfnquz] [-P pattern | -s source_file] off len", "writes bytes, zeroes, or a file"},
	{"writev", "wv", do_write, 2, -1, true, false, "[-Cfq] [-P pattern] off len [len..]",
	 "writes from several buffers"},
	{0},
};

static const struct io_command *const tables[] = {io_request_commands, io_file_commands,
						  io_debug_commands};

const struct io_command *io_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		for (const struct io_command *c = tables[i]; c->name; c++)
			if (!strcmp(c->name, name) || (c->alias && !strcmp(c->alias, name)))
				return c;
	return NULL;
}

const struct io_command *io_next(const char *name)
{
	const struct io_command *next = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		for (const struct io_command *c = tables[i]; c->name; c++)
			if (strcmp(c->name, name) > 0 && (!next || strcmp(c->name, next->name) < 0))
				next = c;
	return next;
}

/* Whether the command can be run with so many arguments, and now. */
static bool may_run(const struct io *io, const struct io_command *c, int n)
{
	if (!c->no_file && !io->node) {
		fprintf(stderr, "no file open, try 'help open'\n");
		return false;
	}
	if (n < c->min || (c->max >= 0 && n > c->max)) {
		fprintf(stderr, "bad argument count %d to %s, expected ", n, c->name);
		if (c->max < 0)
			fprintf(stderr, "at least %d arguments\n", c->min);
		else if (c->min == c->max)
			fprintf(stderr, "%d arguments\n", c->min);
		else
			fprintf(stderr, "between %d and %d arguments\n", c->min, c->max);
		return false;
	}
	if (c->writes && block_read_only(io->node)) {
		fprintf(stderr, "vmm-img: Block node is read-only\n");
		return false;
	}
	return true;
}

static void run_command(struct io *io, const char *text)
{
	struct io_args a = {0};
	char *copy = xstrdup(text), *save = NULL;

	for (char *word = strtok_r(copy, " \t\n", &save); word && a.argc < IO_MAX_ARGS - 1;
	     word = strtok_r(NULL, " \t\n", &save))
		a.argv[a.argc++] = word;
	if (a.argc) {
		const struct io_command *c = io_find(a.argv[0]);

		if (!c)
			fprintf(stderr, "command \"%s\" not found\n", a.argv[0]);
		if (c && may_run(io, c, a.argc - 1)) {
			a.argv[0] = (char *)c->name;
			c->run(io, &a);
		} else {
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

static int run(struct io *io, char **commands, unsigned n)
{
	struct error *err = NULL;

	if (io->how.name && !io_open(io, &err))
		return img_fail(err);
	for (unsigned i = 0; i < n && !io->quit; i++)
		run_command(io, commands[i]);
	if (!n)
		interactive(io);
	io_wait(io);
	io_close(io);
	return io->failed;
}

static bool one_of(const char *what, const char *s, const char *const *names)
{
	for (; *names; names++)
		if (!strcmp(*names, s))
			return true;
	img_usage("Invalid %s option: %s", what, s);
	return false;
}

static void set(char **to, const char *value)
{
	free(*to);
	*to = value ? xstrdup(value) : NULL;
}

int img_io(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {
		{"cmd", 1, 0, 'c'},	   {"format", 1, 0, 'f'},	{"read-only", 0, 0, 'r'},
		{"nocache", 0, 0, 'n'},	   {"cache", 1, 0, 't'},	{"discard", 1, 0, 'd'},
		{"aio", 1, 0, 'i'},	   {"force-share", 0, 0, 'U'},	{"image-opts", 0, 0, 1},
		{"native-aio", 0, 0, 'k'}, {"copy-on-read", 0, 0, 'C'}, {"snapshot", 0, 0, 's'},
		{"misalign", 0, 0, 'm'},   {0}};
	static const char *const aios[] = {"threads", "native", "io_uring", NULL};
	static const char *const discards[] = {"ignore", "off", "unmap", "on", NULL};
	struct io io = {.img = img, .how.flags = BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP};
	const char *cache = "writeback";
	char **commands = NULL;
	unsigned n = 0;
	int c, ret = 0;

	while (!ret && (c = getopt_long(argc, argv, "c:Cf:rsmnt:d:i:kU", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			commands = xrealloc(commands, (n + 1) * sizeof(*commands));
			commands[n++] = optarg;
			break;
		case 'C':
			io.how.copy_on_read = true;
			break;
		case 'f':
			set(&io.how.format, optarg);
			break;
		case 'r':
			io.how.flags &= ~BLOCK_OPEN_RDWR;
			break;
		case 's':
			io.how.snapshot = true;
			break;
		case 'm':
			io.misalign = true;
			break;
		case 'n':
			cache = "none";
			break;
		case 't':
			cache = optarg;
			break;
		case 'd':
			ret = !one_of("discard", optarg, discards);
			set(&io.how.discard, optarg);
			break;
		case 'i':
			ret = !one_of("aio", optarg, aios);
			set(&io.how.aio, optarg);
			break;
		case 'k':
			set(&io.how.aio, "native");
			break;
		case 'U':
			io.how.flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 1:
			io.how.image_opts = true;
			break;
		default:
			ret = 1;
		}
	}
	if (!ret && argc - optind > 1)
		ret = img_usage("io: one file name is expected");
	if (!ret && !block_parse_cache(cache, &io.how.flags))
		ret = img_usage("Invalid cache option: %s", cache);
	if (!ret) {
		if (optind < argc)
			set(&io.how.name, argv[optind]);
		ret = run(&io, commands, n);
	}
	free(io.how.name);
	free(io.how.more);
	free(io.how.format);
	free(io.how.aio);
	free(io.how.discard);
	free(commands);
	return ret;
}
