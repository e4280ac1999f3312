/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts played from what a memdisk has recorded: what a flush covers that has ended is there,
 * of the rest any sectors may be. For tests whose flushes come one at a time.
 */
#ifndef TESTS_LIB_BLOCK_POWERCUT_H
#define TESTS_LIB_BLOCK_POWERCUT_H

#include "tests/lib/block_memdisk.h"

struct powercut {
	const struct memdisk *disk;
	/* Of each write: the event at which the first flush after it has ended. */
	size_t *durable;
	/* The disk after the first `applied` events, all of which every later cut has in it. */
	uint8_t *base;
	size_t applied;
};

/* image is what was on the disk before the record began. */
void powercut_init(struct powercut *p, const struct memdisk *disk, const void *image,
		   uint64_t length);
void powercut_destroy(struct powercut *p);
/* to, a disk of the same size, becomes what a cut behind the first `events` events may have left;
 * each sector that is not certain is there with the odds in a hundred. events grows from call to
 * call, or stays. */
void powercut_play(struct powercut *p, size_t events, int odds, unsigned *seed, struct memdisk *to);

#endif
