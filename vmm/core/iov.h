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

/* The pieces of [skip, skip + bytes), one after another: {iov, count, skip, bytes} to begin with. */
struct iov_walk {
	const struct iovec *iov;
	int count;
	size_t skip, bytes;
};

/* The next piece's bytes, never an empty one; 0 behind the last. */
static inline size_t iov_next(struct iov_walk *w, void **piece)
{
	while (w->count && w->bytes) {
		const struct iovec *v = w->iov++;
		size_t len = v->iov_len, skip = w->skip;

		w->count--;
		if (skip >= len) {
			w->skip -= len;
			continue;
		}
		*piece = (char *)v->iov_base + skip;
		len = len - skip < w->bytes ? len - skip : w->bytes;
		w->skip = 0;
		w->bytes -= len;
		return len;
	}
	return 0;
}

size_t iov_bytes(const struct iovec *iov, int count);
/* How many bytes there were. Each is read once, which matters where a guest may change them. */
size_t iov_to_buf(const struct iovec *iov, int count, size_t skip, void *buf, size_t bytes);
size_t iov_from_buf(const struct iovec *iov, int count, size_t skip, const void *buf, size_t bytes);
/* out has room for max entries (count always do); the number used, or -1 if max is too small. */
int iov_slice(const struct iovec *iov, int count, size_t skip, size_t bytes, struct iovec *out,
	      int max);

#endif
