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
	const struct block_driver *drv = block_find_driver(format);
	const struct block_create_option *o = drv ? drv->create_options : NULL;
	bool any = false;

	if (!drv)
		return img_usage("Unknown file format '%s'", format);
	for (; o && o->name; o++) {
		int width;

		if (amend ? !o->amend : o->amend_only)
			continue;
		if (!any)
			printf(amend ? "Amend options for '%s':\n" : "Supported %s options:\n",
			       format);
		any = true;
		width = printf("  %s=<%s>", o->name, o->type);
		printf("%*s - %s\n", MAX(0, 24 - width), "", o->help);
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
