/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A deflate encoder (RFC 1951) for blocks in memory whose readers have a window of 4 KiB, as qcow2's
 * do. Pure; a struct deflate belongs to one thread at a time.
 */
#ifndef BLOCK_QCOW2_DEFLATE_H
#define BLOCK_QCOW2_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

struct deflate;

struct deflate *deflate_new(void); /* NULL without memory */
void deflate_free(struct deflate *d);
/* The length of out, which has room for max bytes; 0: it does not fit. */
size_t deflate_block(struct deflate *d, const uint8_t *in, size_t len, uint8_t *out, size_t max);

#endif
