/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many packets in one system call; see batch.h. With RWF_NOWAIT every request ends while it is
 * handed over, so the ring serves as a list of calls and of their results. The queue's loop.
 */
#include "config.h"

#include "net/batch.h"

#ifdef CONFIG_LIBURING
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "vmm/core/util.h"

struct net_batch {
	struct io_uring ring;
	/* Not registered with the ring, whose end is the kernel's to choose: a tap device would
	 * outlive its last close(2). */
	int fd;
	bool broken;
};

struct net_batch *net_batch_new(int fd)
{
	struct net_batch *b = xcalloc(1, sizeof(*b));

	if (io_uring_queue_init(NET_BATCH, &b->ring, 0) < 0) {
		free(b);
		return NULL;
	}
	b->fd = fd;
	return b;
}

void net_batch_free(struct net_batch *b)
{
	if (!b)
		return;
	io_uring_queue_exit(&b->ring);
	free(b);
}

/* How many ended. */
static unsigned take_results(struct net_batch *b, int *results)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&b->ring, head, cqe) {
		results[cqe->user_data] = cqe->res;
		n++;
	}
	io_uring_cq_advance(&b->ring, n);
	return n;
}

static bool run(struct net_batch *b, unsigned n, int *results)
{
	for (unsigned i = 0; i < n; i++)
		results[i] = -EAGAIN;
	for (unsigned ended = 0; ended < n; ended += take_results(b, results)) {
		int r = io_uring_submit_and_wait(&b->ring, n - ended);

		if (r < 0 && r != -EINTR) {
			b->broken = true;
			return ended;
		}
	}
	/* A driver that cannot say "not now" (before Linux 6.4, tun was one). */
	b->broken = results[0] == -EOPNOTSUPP;
	return !b->broken;
}

static void prepare(struct net_batch *b, unsigned i, int op, const struct net_packet *pkt)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&b->ring);

	io_uring_prep_rw(op, sqe, b->fd, pkt->iov, pkt->iovcnt, -1);
	sqe->rw_flags = RWF_NOWAIT;
	sqe->user_data = i;
}

bool net_batch_read(struct net_batch *b, const struct net_packet *pkts, unsigned n, int *results)
{
	for (unsigned i = 0; i < n && !b->broken; i++)
		prepare(b, i, IORING_OP_READV, &pkts[i]);
	return !b->broken && run(b, n, results);
}

bool net_batch_write(struct net_batch *b, const struct net_packet *pkts, unsigned n, int *results)
{
	for (unsigned i = 0; i < n && !b->broken; i++)
		prepare(b, i, IORING_OP_WRITEV, &pkts[i]);
	return !b->broken && run(b, n, results);
}

#else

struct net_batch *net_batch_new(int fd)
{
	return NULL;
}

void net_batch_free(struct net_batch *b)
{
}

bool net_batch_read(struct net_batch *b, const struct net_packet *pkts, unsigned n, int *results)
{
	return false;
}

bool net_batch_write(struct net_batch *b, const struct net_packet *pkts, unsigned n, int *results)
{
	return false;
}

#endif
