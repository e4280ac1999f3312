/* SPDX-License-Identifier: Apache-2.0 */
/* What the filters share: what passes through unchanged. Thread: the node's loop. */
#ifndef BLOCK_FILTER_FILTER_H
#define BLOCK_FILTER_FILTER_H

#include "block/driver.h"

/* Takes over the child's length and limits. */
void block_filter_init(struct block_node *node);
/* Submits req to the child, as node's policy made it; ctx is the child request's. */
void block_filter_submit(struct block_req *req, void (*done)(struct block_req *child, int ret),
			 void *ctx);
/* The same for a filter that wants nothing more of req: it completes as the child does. shift: how
 * much further on its bytes are there. */
void block_filter_pass(struct block_req *req, uint64_t shift);
int block_filter_truncate(struct block_node *node, uint64_t bytes, struct error **err);
int block_filter_status(struct block_node *node, uint64_t offset, uint64_t bytes,
			struct block_extent *out);

#endif
