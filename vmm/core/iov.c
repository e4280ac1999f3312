/* SPDX-License-Identifier: Apache-2.0 */
/* Scatter lists; see iov.h. Any thread. */
#include "vmm/core/iov.h"

#include <stdatomic.h>
#include <string.h>

#include "vmm/core/util.h"

size_t iov_bytes(const struct iovec *iov, int count)
{
	size_t bytes = 0;

	for (int i = 0; i < count; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

size_t iov_to_buf(const struct iovec *iov, int count, size_t skip, void *buf, size_t bytes)
{
	size_t done = 0;

	for (int i = 0; i < count && done < bytes; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		size_t n = MIN(iov[i].iov_len - skip, bytes - done);

		memcpy((char *)buf + done, (const char *)iov[i].iov_base + skip, n);
		done += n;
		skip = 0;
	}
	/* The compiler must not fetch a guest's bytes again in place of the copy. */
	atomic_signal_fence(memory_order_seq_cst);
	return done;
}

size_t iov_from_buf(const struct iovec *iov, int count, size_t skip, const void *buf, size_t bytes)
{
	size_t done = 0;

	for (int i = 0; i < count && done < bytes; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		size_t n = MIN(iov[i].iov_len - skip, bytes - done);

		memcpy((char *)iov[i].iov_base + skip, (const char *)buf + done, n);
		done += n;
		skip = 0;
	}
	return done;
}

int iov_slice(const struct iovec *iov, int count, size_t skip, size_t bytes, struct iovec *out,
	      int max)
{
	int n = 0;

	for (int i = 0; i < count && bytes; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		if (n == max)
			return -1;
		out[n].iov_base = (char *)iov[i].iov_base + skip;
		out[n].iov_len = MIN(iov[i].iov_len - skip, bytes);
		bytes -= out[n++].iov_len;
		skip = 0;
	}
	return n;
}
