/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making images. Main thread; synchronous.
 */
#ifndef BLOCK_CREATE_H
#define BLOCK_CREATE_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/error.h"
#include "vmm/core/opts.h"

enum block_prealloc { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

struct block_create {
	uint64_t size;		/* bytes; rounded up to 512 */
	unsigned cluster_bits;	/* qcow2; 0: 16 */
	unsigned refcount_bits; /* qcow2; 0: 16 */
	bool v2;		/* qcow2: compat=0.10 */
	bool lazy_refcounts, zstd, extended_l2;
	const char *data_file; /* qcow2: where the guest's bytes go; made as well. Or NULL */
	bool raw_data;	       /* qcow2: that file alone is the disk */
	bool luks;	       /* qcow2: encrypted, as opts' "encrypt." say */
	const char *backing, *backing_format; /* as the header is to have them, or NULL */
	enum block_prealloc prealloc;
	struct opts *opts; /* the format's own options (its create_options), or NULL */
	struct objects *objects; /* that options name; NULL: there are none */
};

/* What -o of a new image takes. */
struct block_create_option {
	const char *name, *type; /* type: "size", "str", "num", "bool (on/off)" */
	const char *def;	 /* told when the image is made; NULL: only if it was given */
	const char *help;
	bool amend;	 /* can be changed later */
	bool amend_only; /* and not given for a new image */
};
extern const struct block_create_option block_raw_create_options[], block_qcow2_create_options[];

/* For drivers: the file, empty and locked, open for reading and writing; or -1. */
int block_create_file(const char *filename, struct error **err);
/* That file once more: as it is, locked, and where it was. */
int block_create_again(const char *filename, struct error **err);
/* What a format's create() ends with: closes fd and, if ret is an errno, says so and removes the
 * file. */
bool block_create_end(const char *filename, int fd, int ret, struct error **err);
/* 0 or -errno. */
int block_create_write(int fd, uint64_t offset, const void *buf, size_t bytes);
int block_create_fill(int fd, uint64_t offset, uint8_t byte, uint64_t bytes);
void block_create_uuid(uint8_t uuid[16]); /* random, version 4, in RFC 4122's byte order */
bool block_create_raw(const char *filename, const struct block_create *c, struct error **err);
bool block_create_qcow2(const char *filename, const struct block_create *c, struct error **err);

#endif
