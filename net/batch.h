/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many packets of one descriptor in one system call, where the kernel has a call for one only (tap
 * devices): io_uring(7), used as if it were readvm(2) and writevm(2). Nothing is in flight when a
 * call returns. The queue's loop.
 */
#ifndef NET_BATCH_H
#define NET_BATCH_H

#include "net/net.h"

struct net_batch;

/* NULL: this host has no io_uring. fd is borrowed. */
struct net_batch *net_batch_new(int fd);
/* NULL is allowed. */
void net_batch_free(struct net_batch *b);

/*
 * Reads into or writes n packets (at most NET_BATCH), in order and without waiting; results[i] is
 * what readv(2) or writev(2) would have returned, or -errno. An error does not keep those behind it
 * from being tried. False: the kernel cannot do this with such a descriptor, and has done nothing.
 */
bool net_batch_read(struct net_batch *b, const struct net_packet *pkts, unsigned n, int *results);
bool net_batch_write(struct net_batch *b, const struct net_packet *pkts, unsigned n, int *results);

#endif
