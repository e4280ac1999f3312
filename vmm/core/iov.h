/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scatter lists: copies in and out, slices. Pure functions, any thread.
 *
 * skip is counted in bytes from the list's beginning; what lies behind its end is left out.
 */
#ifndef VMM_CORE_IOV_H
#define VMM_CORE_IOV_H

#include <stddef.h>
#include <sys/uio.h>

size_t iov_bytes(const struct iovec *iov, int count);
/* How many bytes there were. Each is read once, which matters where a guest may change them. */
size_t iov_to_buf(const struct iovec *iov, int count, size_t skip, void *buf, size_t bytes);
size_t iov_from_buf(const struct iovec *iov, int count, size_t skip, const void *buf, size_t bytes);
/* out has room for max entries (count always do); the number used, or -1 if max is too small. */
int iov_slice(const struct iovec *iov, int count, size_t skip, size_t bytes, struct iovec *out,
	      int max);

#endif
