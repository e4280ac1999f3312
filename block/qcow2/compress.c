/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed clusters: raw deflate (RFC 1951) and zstd. The data that follows a cluster's own in its
 * last sector is somebody else's, and is not looked at once the cluster is full.
 *
 * libdeflate is about twice as fast as zlib, both ways. It looks back 32 KiB, as RFC 1951 allows and
 * the format's document, which names that and no smaller window, does. QEMU's zlib is told to look
 * back 4 KiB (windowBits -12), which saves memory when it compresses. When it decompresses that
 * bounds only what is remembered from one call to the next: within a call it looks back at the
 * output itself, and QEMU, systemd and nbdkit decompress a cluster in one call, to its whole length.
 * Cloud Hypervisor, imago (libkrun's) and go-qcow2reader (lima's) have libraries that know of
 * 32 KiB only. Some want the stream to end where the cluster does, as it does here. A window of
 * 4 KiB, which zlib makes where libdeflate is missing, takes twice as long and a tenth more space.
 * tests/image/test_convert.py has qemu-img read matches of every distance.
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
#ifdef CONFIG_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef CONFIG_ZSTD
#include <zstd.h>
#include <zstd_errors.h>
#endif

bool qcow2_compression_ok(const struct qcow2 *s, struct error **err)
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

static int inflate_deflate(struct qunpack *u, size_t out_len)
{
#ifdef CONFIG_LIBDEFLATE
	size_t in, out;

	if (!u->context)
		u->context = libdeflate_alloc_decompressor();
	if (u->context && libdeflate_deflate_decompress_ex(u->context, u->in, u->in_len, u->out,
							   out_len, &in, &out) == LIBDEFLATE_SUCCESS &&
	    out == out_len)
		return 0;
	/* It wants the stream to end where the cluster does, which zlib need not. */
#endif
	return inflate_zlib(u->in, u->in_len, u->out, out_len);
}

static int inflate_zstd(struct qunpack *u, size_t out_len)
{
#ifdef CONFIG_ZSTD
	ZSTD_inBuffer i = {u->in, u->in_len, 0};
	ZSTD_outBuffer o = {u->out, out_len, 0};

	if (!u->context)
		u->context = ZSTD_createDCtx();
	if (!u->context)
		return -ENOMEM;
	ZSTD_DCtx_reset(u->context, ZSTD_reset_session_only);
	while (o.pos < o.size) {
		size_t before_in = i.pos, before_out = o.pos;
		size_t ret = ZSTD_decompressStream(u->context, &o, &i);

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

int qcow2_inflate(const struct qcow2 *s, struct qunpack *u)
{
	if (s->h.compression == QCOW2_ZSTD)
		return inflate_zstd(u, s->cluster_size);
	return inflate_deflate(u, s->cluster_size);
}

void qcow2_inflate_end(struct qunpack *u)
{
	if (!u->context)
		return;
#ifdef CONFIG_ZSTD
	if (u->s->h.compression == QCOW2_ZSTD)
		ZSTD_freeDCtx(u->context);
#endif
#ifdef CONFIG_LIBDEFLATE
	if (u->s->h.compression == QCOW2_ZLIB)
		libdeflate_free_decompressor(u->context);
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

#if defined(CONFIG_LIBDEFLATE)
enum { LEVEL = 6 };

static int deflate_deflate(struct qpack *p, size_t size)
{
	if (!p->context)
		p->context = libdeflate_alloc_compressor(LEVEL);
	if (!p->context)
		return -ENOMEM;
	p->len = libdeflate_deflate_compress(p->context, p->in, size, p->out, size - 1);
	return p->len ? 0 : -E2BIG;
}

static void deflate_free(void *context)
{
	libdeflate_free_compressor(context);
}
#elif defined(CONFIG_ZLIB)
static int deflate_deflate(struct qpack *p, size_t size)
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

static void deflate_free(void *context)
{
	deflateEnd(context);
	free(context);
}
#else
static int deflate_deflate(struct qpack *p, size_t size)
{
	return -ENOTSUP;
}

static void deflate_free(void *context)
{
}
#endif

int qcow2_deflate(const struct qcow2 *s, struct qpack *p)
{
#ifdef CONFIG_ZSTD
	if (s->h.compression == QCOW2_ZSTD)
		return deflate_zstd(p, s->cluster_size);
#endif
	return s->h.compression == QCOW2_ZLIB ? deflate_deflate(p, s->cluster_size) : -ENOTSUP;
}

void qcow2_deflate_end(struct qpack *p)
{
	if (!p->context)
		return;
#ifdef CONFIG_ZSTD
	if (p->s->h.compression == QCOW2_ZSTD)
		ZSTD_freeCCtx(p->context);
#endif
	if (p->s->h.compression == QCOW2_ZLIB)
		deflate_free(p->context);
}
