/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed clusters: zlib (raw deflate) and zstd. The data that follows a cluster's own in its
 * last sector is somebody else's, and is not looked at once the cluster is full.
 *
 * Nothing about the input is trusted: the output is exactly one cluster or the read fails.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2.h"

#ifdef CONFIG_ZLIB
#include <zlib.h>
#endif
#ifdef CONFIG_ZSTD
#include <zstd.h>
#include <zstd_errors.h>
#endif

bool qcow2_inflate_init(struct qcow2 *s, struct error **err)
{
#ifndef CONFIG_ZSTD
	if (s->h.compression == QCOW2_ZSTD) {
		error_set(err,
			  "This program was built without zstd, which the image's clusters need");
		return false;
	}
#endif
	return true;
}

void qcow2_inflate_destroy(struct qcow2 *s)
{
#ifdef CONFIG_ZSTD
	ZSTD_freeDCtx(s->zstd);
#endif
	s->zstd = NULL;
	free(s->inflate_in);
	free(s->inflate_out);
	s->inflate_in = s->inflate_out = NULL;
}

static int inflate_zlib(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
#ifdef CONFIG_ZLIB
	z_stream z = {.next_in = (uint8_t *)in,
		      .avail_in = in_len,
		      .next_out = out,
		      .avail_out = out_len};
	int ret;

	if (inflateInit2(&z, -12) != Z_OK)
		return -ENOMEM;
	ret = inflate(&z, Z_FINISH);
	/* Full before the stream's end is as good: what follows is not ours. */
	ret = (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
	inflateEnd(&z);
	return ret;
#else
	return -ENOTSUP;
#endif
}

static int inflate_zstd(struct qcow2 *s, const uint8_t *in, size_t in_len, uint8_t *out,
			size_t out_len)
{
#ifdef CONFIG_ZSTD
	ZSTD_inBuffer i = {in, in_len, 0};
	ZSTD_outBuffer o = {out, out_len, 0};

	if (!s->zstd)
		s->zstd = ZSTD_createDCtx();
	if (!s->zstd)
		return -ENOMEM;
	ZSTD_DCtx_reset(s->zstd, ZSTD_reset_session_only);
	while (o.pos < o.size) {
		size_t before_in = i.pos, before_out = o.pos;
		size_t ret = ZSTD_decompressStream(s->zstd, &o, &i);

		if (ZSTD_isError(ret) || (i.pos == before_in && o.pos == before_out))
			return -EIO;
		if (!ret && o.pos < o.size && i.pos == i.size)
			return -EIO;
	}
	return 0;
#else
	return -ENOTSUP;
#endif
}

#ifdef CONFIG_ZSTD
static int deflate_zstd(struct qpack *p, size_t size)
{
	size_t n;

	if (!p->context)
		p->context = ZSTD_createCCtx();
	if (!p->context)
		return -ENOMEM;
	n = ZSTD_compressCCtx(p->context, p->out, size - 1, p->in, size, ZSTD_CLEVEL_DEFAULT);
	if (ZSTD_isError(n))
		return ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall ? -E2BIG : -EIO;
	p->len = n;
	return 0;
}
#endif

#ifdef CONFIG_ZLIB
static int deflate_zlib(struct qpack *p, size_t size)
{
	z_stream *z = p->context;

	if (!z) {
		z = calloc(1, sizeof(*z));
		if (!z)
			return -ENOMEM;
		if (deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9,
				 Z_DEFAULT_STRATEGY) != Z_OK) {
			free(z);
			return -ENOMEM;
		}
		p->context = z;
	} else {
		deflateReset(z);
	}
	z->next_in = p->in;
	z->avail_in = size;
	z->next_out = p->out;
	z->avail_out = size - 1;
	if (deflate(z, Z_FINISH) != Z_STREAM_END)
		return -E2BIG;
	p->len = size - 1 - z->avail_out;
	return 0;
}
#endif

int qcow2_deflate(const struct qcow2 *s, struct qpack *p)
{
#ifdef CONFIG_ZSTD
	if (s->h.compression == QCOW2_ZSTD)
		return deflate_zstd(p, s->cluster_size);
#endif
#ifdef CONFIG_ZLIB
	if (s->h.compression == QCOW2_ZLIB)
		return deflate_zlib(p, s->cluster_size);
#endif
	return -ENOTSUP;
}

void qcow2_deflate_end(struct qpack *p)
{
	if (!p->context)
		return;
#ifdef CONFIG_ZSTD
	if (p->s->h.compression == QCOW2_ZSTD)
		ZSTD_freeCCtx(p->context);
#endif
#ifdef CONFIG_ZLIB
	if (p->s->h.compression == QCOW2_ZLIB) {
		deflateEnd(p->context);
		free(p->context);
	}
#endif
}

int qcow2_inflate(struct qcow2 *s, const uint8_t *in, size_t in_len, uint8_t *out)
{
	if (s->h.compression == QCOW2_ZSTD)
		return inflate_zstd(s, in, in_len, out, s->cluster_size);
	return inflate_zlib(in, in_len, out, s->cluster_size);
}
