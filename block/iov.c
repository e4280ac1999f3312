/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scatter lists beyond vmm/core/iov.h: zeroes, and whether all of it is zero. Pure functions, any
 * thread.
 *
 * skip is counted in bytes from the list's beginning; callers see to it that skip + bytes lie
 * inside.
 */
#include "block/driver.h"

void block_iov_zero(const struct iovec *iov, int iovcnt, size_t skip, size_t bytes)
{
	struct iov_walk walk = {iov, iovcnt, skip, bytes};
	void *piece;

	for (size_t n; (n = iov_next(&walk, &piece));)
		memset(piece, 0, n);
}

bool block_iov_is_zero(const struct iovec *iov, int iovcnt, size_t skip, size_t bytes)
{
	struct iov_walk walk = {iov, iovcnt, skip, bytes};
	void *piece;

	for (size_t n; (n = iov_next(&walk, &piece));)
		if (!block_buf_is_zero(piece, n))
			return false;
	return true;
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
