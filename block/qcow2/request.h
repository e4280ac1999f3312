/* SPDX-License-Identifier: Apache-2.0 */
/* A request's state between its steps; for request.c and write.c. */
#ifndef BLOCK_QCOW2_REQUEST_H
#define BLOCK_QCOW2_REQUEST_H

#include "block/qcow2/qcow2.h"

/* What a step leaves behind: another step to run now, or a wait, or the end of the request. */
enum qstep { STEP_GO, STEP_WAIT };

struct qreq {
	struct block_req *req;
	struct qcow2 *s;
	struct waiter waiter;
	struct range range;
	bool ranged;
	bool host_taken; /* host has clusters that no entry refers to yet */
	bool reused;	 /* or that were this guest cluster's all along (Q_ZERO_ALLOC) */
	enum qstep (*step)(struct qreq *q);
	enum qstep (*after_unpack)(struct qreq *q);
	int ret; /* of the I/O before this step */
	uint64_t offset, left;
	size_t at;	/* bytes of the request that are done */
	uint64_t chunk; /* bytes of the piece in work */
	struct qmap map;
	uint64_t host; /* clusters being written */
	uint64_t clusters;
	struct qbuf *buf;
	struct qpack *pack;
	struct qunpack *unpack;
	uint64_t from, to, fill; /* of a cluster whose subclusters are made whole */
	struct iovec iov;
};

enum qstep qreq_end(struct qreq *q, int ret);
/* After -EAGAIN: waits, and runs the same step again. Otherwise ends the request with ret. */
enum qstep qreq_wait_or_end(struct qreq *q, int ret);
/* True: somebody holds the range, and the request waits for that. */
bool qreq_blocked(struct qreq *q, uint64_t start, uint64_t end, bool exclusive);
void qreq_drop_range(struct qreq *q);
/* Starts I/O on child; step runs when it is done. buf NULL: the request's own bytes. */
enum qstep qreq_io(struct qreq *q, struct block_node *child, enum block_op op, uint64_t offset,
		   void *buf, uint64_t bytes, enum qstep (*step)(struct qreq *q));
/* The piece is done. */
void qreq_advance(struct qreq *q);
enum qstep qreq_finish_write(struct qreq *q);
/* Reads the compressed cluster of q->map.entry; step runs with q->ret, and finds the bytes in
 * q->unpack->out, until it ends. */
enum qstep qreq_unpack(struct qreq *q, enum qstep (*step)(struct qreq *q));

/* Runs q->step from outside of the node's own callbacks. */
void qreq_resume(struct qreq *q);
/* The next piece of at most limit bytes, as plain data. */
enum qstep qreq_write_piece(struct qreq *q, uint64_t limit);
enum qstep qreq_start_of(struct qreq *q);
/* The slice with q->offset's entry, at a moment when it may be changed and clusters let go. 0,
 * -EAGAIN (q waits) or -errno. */
int qreq_own_slice(struct qreq *q, struct qslice **e, unsigned *index);
bool qreq_take_buf(struct qreq *q);
void qreq_drop_pack(struct qreq *q);

/* subcluster.c */
enum qstep qsub_write(struct qreq *q, uint64_t limit);
enum qstep qsub_zero(struct qreq *q);
enum qstep qsub_discard(struct qreq *q);

enum qstep qwrite_step(struct qreq *q);
enum qstep qpack_step(struct qreq *q);
enum qstep qzero_step(struct qreq *q);
enum qstep qdiscard_step(struct qreq *q);

#endif
