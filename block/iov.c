/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scatter lists beyond vmm/core/iov.h: zeroes, and whether all of it is zero. Pure functions, any
 * thread.
 *
 * skip is counted in bytes from the list's beginning; callers see to it that skip + bytes lie
 * inside.
 */
#include "block/driver.h"

/* Calls fn for each piece of [skip, skip + bytes) until it returns false. */
static bool for_pieces(const struct iovec *iov, int iovcnt, size_t skip, size_t bytes,
		       bool (*fn)(void *opaque, void *piece, size_t len), void *opaque)
{
	for (int i = 0; i < iovcnt && bytes; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		size_t len = MIN(iov[i].iov_len - skip, bytes);
		if (!fn(opaque, (char *)iov[i].iov_base + skip, len))
			return false;
		skip = 0;
		bytes -= len;
	}
	return true;
}

static bool piece_zero(void *opaque, void *piece, size_t len)
{
	memset(piece, 0, len);
	return true;
}

static bool piece_is_zero(void *opaque, void *piece, size_t len)
{
	return block_buf_is_zero(piece, len);
}

void block_iov_zero(const struct iovec *iov, int iovcnt, size_t skip, size_t bytes)
{
	for_pieces(iov, iovcnt, skip, bytes, piece_zero, NULL);
}

bool block_iov_is_zero(const struct iovec *iov, int iovcnt, size_t skip, size_t bytes)
{
	return for_pieces(iov, iovcnt, skip, bytes, piece_is_zero, NULL);
}

bool block_buf_is_zero(const void *buf, size_t bytes)
{
	const unsigned char *p = buf;

	/* Zero at the front, and each byte equal to the one 16 before it. */
	for (size_t i = 0; i < MIN(bytes, (size_t)16); i++)
		if (p[i])
			return false;
	return bytes <= 16 || !memcmp(p, p + 16, bytes - 16);
}
