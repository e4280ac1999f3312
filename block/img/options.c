/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the subcommands' option parsers share, and the lists of -o help.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "block/img/img.h"

/* Options of new images. amend: those that can be changed later. */
static const struct {
	const char *format, *name, *type, *help;
	bool amend;
} options[] = {
	{"qcow2", "backing_file", "str", "the image that has what this one has not", true},
	{"qcow2", "backing_fmt", "str", "the backing file's format", true},
	{"qcow2", "cluster_size", "size", "bytes, 512 to 2M", false},
	{"qcow2", "compat", "str", "version of the format: v2 (0.10) or v3 (1.1)", true},
	{"qcow2", "compression_type", "str", "of compressed clusters: zlib or zstd", false},
	{"qcow2", "lazy_refcounts", "bool (on/off)", "refcounts are written late", true},
	{"qcow2", "preallocation", "str", "off, metadata, falloc or full", false},
	{"qcow2", "refcount_bits", "num", "1 to 64, a power of two", false},
	{"qcow2", "size", "size", "the disk's size", true},
	{"raw", "preallocation", "str", "off, falloc or full", false},
	{"raw", "size", "size", "the disk's size", true},
};

bool img_wants_help(const char *text)
{
	struct opts opts;
	bool wants = false;

	if (!opts_parse(&opts, text, NULL, NULL))
		return false;
	for (size_t i = 0; i < opts.count; i++)
		if (opts.items[i].bare &&
		    (!strcmp(opts.items[i].key, "help") || !strcmp(opts.items[i].key, "?")))
			wants = true;
	opts_free(&opts);
	return wants;
}

int img_print_options(const char *format, bool amend)
{
	bool any = false;

	if (!block_find_driver(format))
		return img_usage("Unknown file format '%s'", format);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		int width;

		if (strcmp(options[i].format, format) || (amend && !options[i].amend))
			continue;
		if (!any)
			printf(amend ? "Amend options for '%s':\n" : "Supported %s options:\n",
			       format);
		any = true;
		width = printf("  %s=<%s>", options[i].name, options[i].type);
		printf("%*s - %s\n", MAX(0, 24 - width), "", options[i].help);
	}
	if (!any)
		return img_usage(amend ? "Format driver '%s' does not support option amendment"
				       : "Format driver '%s' does not support image creation",
				 format);
	return 0;
}

void img_join_options(char **joined, const char *more)
{
	char *text = *joined ? xasprintf("%s,%s", *joined, more) : xstrdup(more);

	free(*joined);
	*joined = text;
}

int img_object(const char *text)
{
	return img_usage("--object %s: no image format here takes a secret", text);
}

bool img_parse_rate(const char *s, uint64_t *rate)
{
	if (parse_size(s, 1, rate) && *rate && *rate <= INT64_MAX)
		return true;
	img_usage("Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for "
		  "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
	return false;
}

/* Without -p SIGUSR1 asks how far it is. Before any thread starts, so that none takes the signal. */
void img_progress_start(struct img_progress *p)
{
	sigset_t set;

	p->fd = -1;
	if (p->on) {
		printf("    (0.00/100%%)\r");
		fflush(stdout);
		return;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	p->fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

void img_progress(struct img_progress *p, uint64_t done, uint64_t all)
{
	int now = all ? (int)(done * 10000.0 / all) : 10000;
	struct signalfd_siginfo info;

	if (!p)
		return;
	if (!p->on) {
		if (p->fd >= 0 && read(p->fd, &info, sizeof(info)) > 0)
			fprintf(stderr, "    (%.2f/100%%)\n", now / 100.0);
		return;
	}
	if (now < p->last + 100 || now == 10000)
		return;
	p->last = now;
	printf("    (%.2f/100%%)\r", now / 100.0);
	fflush(stdout);
}

void img_progress_end(struct img_progress *p, bool ok)
{
	if (p->on)
		printf(ok ? "    (100.00/100%%)\r\n" : "\n");
	if (!p->on && p->fd >= 0)
		close(p->fd);
}
