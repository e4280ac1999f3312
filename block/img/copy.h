/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying what images hold into another: convert, commit and dd. One thread, the loop's.
 */
#ifndef BLOCK_IMG_COPY_H
#define BLOCK_IMG_COPY_H

#include "block/img/img.h"

enum { COPY_CHUNK = 1 << 19, COPY_WORKERS_MAX = 16 };

struct img_copy {
	struct img *img;
	struct block_node **src; /* one behind the other */
	unsigned srcs;
	struct block_node *dst;
	uint64_t bytes;	   /* how much of them */
	uint64_t begin;	   /* what comes before is there already */
	uint64_t src_skip; /* where in the first; dst begins at 0 */
	uint64_t sparse;   /* a run of zeroes this long is left out; 0: everything is written */
	bool zero_target;  /* what is not written reads as zero */
	unsigned depth;	   /* only what the first so many layers of a source have; 0: all */
	uint64_t unit;	   /* pieces end on multiples of it; 0: any */
	bool no_scan; /* zeroes are only where the maps say so */
	bool compressed, ordered, salvage, quiet;
	uint64_t rate; /* bytes/s; 0: as fast as it goes */
	unsigned workers;
	struct img_progress *progress;

	const char *what; /* that failed */
	uint64_t failed_at;
};

/* 0 or -errno. */
int img_copy(struct img_copy *c);
/* commit.c: the copy into a dst that becomes as long as it needs; once that is durable, top (NULL:
 * nothing), the source's first layer opened by itself, is emptied. */
bool img_commit_down(struct img_copy *c, struct block_node *top, struct error **err);
/* offload.c: lets the host copy what it can from the beginning on, and moves begin behind that. */
void img_offload(struct img_copy *c);
/* The error's text of a copy that ended with ret. */
void img_copy_error(const struct img_copy *c, int ret, struct error **err);

#endif
