/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets in a byte stream, as QEMU's stream and socket back ends, passt and others speak: each has
 * its length in front, 4 bytes, big-endian. Pure functions; the bytes are another process's.
 */
#ifndef NET_FRAMES_H
#define NET_FRAMES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
	NET_FRAMES_HEADER = 4,
	NET_FRAMES_MAX = 4096 + 65536, /* bytes of a packet; longer ones end the connection */
};

/*
 * Finds whole packets at the front of len bytes: how many, at most max; *used: how many bytes they
 * and their lengths are. Packets of no bytes are passed over. -1: a length that cannot be; the ones
 * before it are lost with the connection.
 */
ssize_t net_frames_cut(const uint8_t *bytes, size_t len, struct iovec *packets, unsigned max,
		       size_t *used);

#endif
