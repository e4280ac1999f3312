/* SPDX-License-Identifier: Apache-2.0 */
/* vmm-img io: what its commands share. io.c has the requests, io_file.c the image as a whole,
 * io_debug.c breakpoints and crashes. */
#ifndef BLOCK_IMG_IO_H
#define BLOCK_IMG_IO_H

#include "block/img/img.h"

enum { IO_MAX_ARGS = 64 };

/* How the image was opened, to open it again. */
struct io_how {
	char *name, *format, *discard, *aio;
	char *more; /* options that came with reopen, or NULL */
	bool image_opts, copy_on_read, snapshot;
	uint32_t flags;
};

struct io {
	struct img *img;
	struct block_node *node; /* NULL: none is open */
	struct io_how how;
	unsigned in_flight; /* aio */
	bool failed, quit, misalign;
};

struct io_args {
	int argc;
	char *argv[IO_MAX_ARGS];
};

struct io_command {
	const char *name, *alias;
	void (*run)(struct io *io, struct io_args *a);
	int min, max; /* arguments; max -1: any number */
	bool writes, no_file;
	const char *args, *help;
};
/* These end with name NULL. */
extern const struct io_command io_request_commands[], io_file_commands[], io_debug_commands[];

/* A number from the user; false after a message. */
bool io_number(struct io *io, const char *s, uint64_t *out);
void io_print_usage(const struct io_command *c);
/* The command's line, for options that it does not know; it has failed then. */
void io_wrong(struct io *io, const char *name);
const struct io_command *io_find(const char *name);
/* The one after that in the order of names; NULL after the last. */
const struct io_command *io_next(const char *name);
void io_wait(struct io *io);
/* "64 KiB", "3.750 MiB", as qemu-io prints sizes. buf has 48 bytes. */
const char *io_size(char *buf, double bytes);

/* io_file.c: opens what io->how says. */
bool io_open(struct io *io, struct error **err);
void io_close(struct io *io);

#endif
