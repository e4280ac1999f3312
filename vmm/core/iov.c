/* SPDX-License-Identifier: Apache-2.0 */
/* Scatter lists; see iov.h. Any thread. */
#include "vmm/core/iov.h"

#include <stdatomic.h>
#include <string.h>

size_t iov_bytes(const struct iovec *iov, int count)
{
	size_t bytes = 0;

	for (int i = 0; i < count; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

size_t iov_to_buf(const struct iovec *iov, int count, size_t skip, void *buf, size_t bytes)
{
	struct iov_walk walk = {iov, count, skip, bytes};
	char *at = buf;
	void *piece;

	for (size_t n; (n = iov_next(&walk, &piece)); at += n)
		memcpy(at, piece, n);
	/* The compiler must not fetch a guest's bytes again in place of the copy. */
	atomic_signal_fence(memory_order_seq_cst);
	return at - (char *)buf;
}

size_t iov_from_buf(const struct iovec *iov, int count, size_t skip, const void *buf, size_t bytes)
{
	struct iov_walk walk = {iov, count, skip, bytes};
	const char *at = buf;
	void *piece;

	for (size_t n; (n = iov_next(&walk, &piece)); at += n)
		memcpy(piece, at, n);
	return at - (const char *)buf;
}

int iov_slice(const struct iovec *iov, int count, size_t skip, size_t bytes, struct iovec *out,
	      int max)
{
	struct iov_walk walk = {iov, count, skip, bytes};
	void *piece;
	int n = 0;

	for (size_t len; (len = iov_next(&walk, &piece)); n++) {
		if (n == max)
			return -1;
		out[n] = (struct iovec){piece, len};
	}
	return n;
}
