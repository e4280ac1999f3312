/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic of throttling: leaky buckets, as QEMU's docs/throttle.txt describes them to users.
 *
 * Each limit has a bucket that leaks at the rate avg. A request may start while the bucket is not
 * over its size, and then adds itself whole, so that one large request is late for those after it
 * and never stuck. Without max the size is what avg lets through in 100 ms; with max it is max for
 * length seconds. If length is more than 1 a second bucket, leaking at max and 100 ms of max big,
 * keeps a burst from coming all at once.
 *
 * Levels are kept in units times nanoseconds per second, integers, so that a schedule is exact.
 * Pure data and functions: any thread, the owner's lock.
 */
#ifndef BLOCK_FILTER_BUCKET_H
#define BLOCK_FILTER_BUCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"
#include "vmm/core/opts.h"

enum throttle_dir { THROTTLE_READ, THROTTLE_WRITE, THROTTLE_DIRS };

enum throttle_kind {
	THROTTLE_BPS_TOTAL,
	THROTTLE_BPS_READ,
	THROTTLE_BPS_WRITE,
	THROTTLE_IOPS_TOTAL,
	THROTTLE_IOPS_READ,
	THROTTLE_IOPS_WRITE,
	THROTTLE_KINDS,
};

struct throttle_limit {
	uint64_t avg; /* a second; 0: no limit */
	uint64_t max;
	uint64_t length; /* seconds */
};

struct throttle_limits {
	struct throttle_limit of[THROTTLE_KINDS];
	uint64_t iops_size; /* bytes that count as one request; 0: any */
};

struct throttle_bucket {
	unsigned __int128 level, burst;
};

struct throttle {
	struct throttle_limits limits;
	struct throttle_bucket of[THROTTLE_KINDS];
	int64_t leaked; /* until when */
};

/* The keys of a -drive (short ones as well) or of an object. *any: whether there was one. */
bool throttle_read_limits(struct opts *opts, bool drive, struct throttle_limits *out, bool *any,
			  struct error **err);
/* The same, the other way round. */
void throttle_list_limits(const struct throttle_limits *limits,
			  void (*put)(void *opaque, const char *key, uint64_t value), void *opaque);
/* New limits with empty buckets. */
void throttle_set(struct throttle *t, const struct throttle_limits *limits);
/* Nanoseconds until a request may start; 0: now. */
int64_t throttle_wait(struct throttle *t, enum throttle_dir dir, int64_t now);
void throttle_account(struct throttle *t, enum throttle_dir dir, uint64_t bytes);

#endif
