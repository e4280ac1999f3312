/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img: the image tool, with qemu-img's subcommands, options, output and exit codes.
 * One thread; each subcommand is a file and opens its images on the one loop.
 */
#ifndef BLOCK_IMG_IMG_H
#define BLOCK_IMG_IMG_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/create.h"
#include "block/driver.h"
#include "vmm/core/error.h"
#include "vmm/core/evloop.h"
#include "vmm/core/objects.h"

/* What all subcommands stand on. */
struct img {
	struct evloop *loop;
	struct block_names names; /* --object's */
};

/* argv[0] is the subcommand; --object was taken out. The exit code. */
int img_create(struct img *img, int argc, char **argv);
int img_info(struct img *img, int argc, char **argv);
int img_check(struct img *img, int argc, char **argv);
int img_convert(struct img *img, int argc, char **argv);
int img_resize(struct img *img, int argc, char **argv);
int img_compare(struct img *img, int argc, char **argv);
int img_map(struct img *img, int argc, char **argv);
int img_amend(struct img *img, int argc, char **argv);
int img_bench(struct img *img, int argc, char **argv);
int img_bitmap(struct img *img, int argc, char **argv);
int img_commit(struct img *img, int argc, char **argv);
int img_dd(struct img *img, int argc, char **argv);
int img_measure(struct img *img, int argc, char **argv);
int img_nbd(struct img *img, int argc, char **argv);
int img_rebase(struct img *img, int argc, char **argv);
int img_snapshot(struct img *img, int argc, char **argv);
int img_io(struct img *img, int argc, char **argv);

/* common.c */

/* Prints the error as qemu-img would, frees it; 1. */
int img_fail(struct error *err);
int img_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* image_opts: name is a list of options. cache NULL: writeback. */
struct block_node *img_open(struct img *img, const char *name, const char *format, bool image_opts,
			    const char *cache, uint32_t flags, struct error **err);
/* The same with the secret that unlocks it (NULL: none), and the option for that. */
struct block_node *img_open_key(struct img *img, const char *name, const char *format,
				bool image_opts, const char *cache, uint32_t flags,
				const char *key_option, const char *key_secret, struct error **err);
/* "1.5 GiB", as qemu-img prints sizes. buf has 32 bytes. */
const char *img_size(char *buf, uint64_t bytes);
/* -o NAME=VALUE,... of a format; the creation's parameters. */
bool img_create_options(const char *format, const char *text, struct block_create *c,
			struct opts *opts, struct error **err);
/* Whether new images of the format can have a backing file. */
bool img_takes_backing(const char *format);
bool img_create_file(const char *filename, const char *format, const struct block_create *c,
		     struct error **err);
enum img_output { OUTPUT_HUMAN, OUTPUT_JSON };
/* "off", "metadata", "falloc", "full". */
bool img_parse_prealloc(const char *s, enum block_prealloc *mode, struct error **err);
bool img_parse_output(const char *s, enum img_output *out);

/* A range of the disk that comes from one layer in one way. */
struct img_range {
	uint64_t start, length, offset;
	unsigned depth; /* 0: the top image */
	bool present, zero, data, has_offset;
	const char *filename;
	struct block_node *node; /* the layer */
};
int img_resolve(struct block_node *top, uint64_t start, uint64_t bytes, struct img_range *e);

/* -p: prints how far it got, now and then. */
struct img_progress {
	bool on;
	int last; /* hundredths of a per cent */
	int fd;	  /* SIGUSR1's */
};
void img_progress_start(struct img_progress *p);
void img_progress(struct img_progress *p, uint64_t done, uint64_t all);
void img_progress_end(struct img_progress *p, bool ok);

/* info.c: "Format specific information", if there is any. */
void img_print_specific(const struct block_node *node);

/* snapshot.c */
struct block_snapshot;
/* A line of the list; before the first its head. */
void img_print_snapshot(const struct block_snapshot *sn, bool first);
/* -l: the node, read-only, shows that snapshot; "snapshot.id=,snapshot.name=", or an id or name. */
bool img_show_snapshot(struct block_node *node, const char *text, struct error **err);

/* options.c */
/* -o help, or with other options. */
bool img_wants_help(const char *text);
/* What a format's new images, or amend, take; the exit code. */
int img_print_options(const char *format, bool amend);
/* A further -o. */
void img_join_options(char **joined, const char *more);
/* -r; false after a message. */
bool img_parse_rate(const char *s, uint64_t *rate);

#endif
