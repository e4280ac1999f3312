/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img io: commands that hold requests at a blkdebug node, and those that end the program badly.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/filter/blkdebug.h"
#include "block/img/io.h"

static void report(void *opaque, const char *tag, bool resumed)
{
	printf("blkdebug: %s request '%s'\n", resumed ? "Resuming" : "Suspended", tag);
	fflush(stdout);
}

static void conclude(struct io *io, int ret, const char *what)
{
	if (ret) {
		printf("Could not %s: %s\n", what, strerror(-ret));
		io->failed = true;
	}
}

static void do_break(struct io *io, struct io_args *a)
{
	conclude(io, blkdebug_break(io->node, a->argv[1], a->argv[2], report, NULL),
		 "set breakpoint");
}

static void do_remove_break(struct io *io, struct io_args *a)
{
	char *what = xasprintf("remove breakpoint %s", a->argv[1]);

	conclude(io, blkdebug_remove_break(io->node, a->argv[1]), what);
	free(what);
}

static void do_resume(struct io *io, struct io_args *a)
{
	conclude(io, blkdebug_resume(io->node, a->argv[1]), "resume request");
}

static void do_wait_break(struct io *io, struct io_args *a)
{
	while (!blkdebug_is_suspended(io->node, a->argv[1])) {
		if (!io->in_flight) {
			printf("No request is under way that '%s' could suspend\n", a->argv[1]);
			io->failed = true;
			return;
		}
		evloop_run_once(io->img->loop, -1);
	}
}

static void do_sigraise(struct io *io, struct io_args *a)
{
	uint64_t sig;

	if (!parse_u64(a->argv[1], &sig) || sig > 64) {
		printf("%s is not a valid number\n", a->argv[1]);
		io->failed = true;
		return;
	}
	fflush(stdout);
	raise(sig);
}

static void do_abort(struct io *io, struct io_args *a)
{
	fflush(stdout);
	abort();
}

const struct io_command io_debug_commands[] = {
	{"abort", NULL, do_abort, 0, 0, false, true, "", "ends as a crash does"},
	{"break", NULL, do_break, 2, 2, false, false, "event tag",
	 "suspends the request that comes upon a blkdebug event, and calls it tag"},
	{"remove_break", NULL, do_remove_break, 1, 1, false, false, "tag",
	 "takes breakpoints away, and resumes what they suspended"},
	{"resume", NULL, do_resume, 1, 1, false, false, "tag", "resumes a suspended request"},
	{"sigraise", NULL, do_sigraise, 1, 1, false, true, "signal", "sends itself a signal"},
	{"wait_break", NULL, do_wait_break, 1, 1, false, false, "tag",
	 "waits until a request is suspended"},
	{0},
};
