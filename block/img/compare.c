/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img compare [-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-s] [-U] [--image-opts] FILE1 FILE2
 *
 * Exit codes: 0 the same, 1 different, 2 cannot be opened, 3 maps unreadable, 4 data unreadable.
 */
#include <stdio.h>
#include <stdlib.h>

#include "block/img/img.h"

enum { CHUNK = 2 << 20 };

struct compare {
	struct block_node *a, *b;
	uint8_t *abuf, *bbuf;
	bool strict, quiet;
	struct img_progress progress;
};

static int differ(struct compare *c, const char *fmt, uint64_t offset)
{
	if (!c->quiet)
		printf(fmt, (unsigned long long)offset);
	return 1;
}

/* The first sector that differs; bytes if none does. */
static uint64_t mismatch(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += 512)
		if (memcmp(a + at, b + at, MIN(UINT64_C(512), bytes - at)))
			return at;
	return bytes;
}

static int read_both(struct compare *c, const struct img_range *ra, const struct img_range *rb,
		     uint64_t at, uint64_t n)
{
	int ret = 0;

	if (ra->zero)
		memset(c->abuf, 0, n);
	else
		ret = block_pread(c->a, at, c->abuf, n);
	if (!ret && rb->zero)
		memset(c->bbuf, 0, n);
	else if (!ret)
		ret = block_pread(c->b, at, c->bbuf, n);
	return ret;
}

static int compare_common(struct compare *c, uint64_t end)
{
	for (uint64_t at = 0, n; at < end; at += n) {
		struct img_range ra, rb;
		uint64_t same;

		n = MIN((uint64_t)CHUNK, end - at);
		if (img_resolve(c->a, at, n, &ra) || img_resolve(c->b, at, n, &rb)) {
			fprintf(stderr, "vmm-img: Sector allocation test failed\n");
			return 3;
		}
		n = MIN(n, MIN(ra.length, rb.length));
		if (c->strict && ra.present != rb.present)
			return differ(c, "Strict mode: Offset %llu block status mismatch!\n", at);
		if (!(ra.zero && rb.zero)) {
			if (read_both(c, &ra, &rb, at, n)) {
				fprintf(stderr, "vmm-img: Error while reading offset %llu\n",
					(unsigned long long)at);
				return 4;
			}
			same = mismatch(c->abuf, c->bbuf, n);
			if (same < n)
				return differ(c, "Content mismatch at offset %llu!\n", at + same);
		}
		img_progress(&c->progress, at + n, end);
	}
	return 0;
}

/* What the longer image has beyond the other has to be zero. */
static int compare_rest(struct compare *c, struct block_node *longer, uint64_t from)
{
	for (uint64_t at = from, n; at < block_length(longer); at += n) {
		struct img_range r;
		uint64_t end = block_length(longer);

		if (img_resolve(longer, at, MIN((uint64_t)CHUNK, end - at), &r)) {
			fprintf(stderr, "vmm-img: Sector allocation test failed\n");
			return 3;
		}
		n = r.length;
		if (r.zero)
			continue;
		if (block_pread(longer, at, c->abuf, n)) {
			fprintf(stderr, "vmm-img: Error while reading offset %llu\n",
				(unsigned long long)at);
			return 4;
		}
		memset(c->bbuf, 0, n);
		if (mismatch(c->abuf, c->bbuf, n) < n)
			return differ(c, "Content mismatch at offset %llu!\n",
				      at + mismatch(c->abuf, c->bbuf, n));
	}
	return 0;
}

static int run(struct compare *c)
{
	uint64_t la = block_length(c->a), lb = block_length(c->b), common = MIN(la, lb);
	int ret;

	img_progress_start(&c->progress);
	if (c->strict && la != lb) {
		if (!c->quiet)
			printf("Strict mode: Image size mismatch!\n");
		return 1;
	}
	c->abuf = malloc(CHUNK);
	c->bbuf = malloc(CHUNK);
	if (!c->abuf || !c->bbuf)
		return 4;
	ret = compare_common(c, common);
	if (!ret && la != lb) {
		if (!c->quiet)
			printf("Warning: Image size mismatch!\n");
		ret = compare_rest(c, la > lb ? c->a : c->b, common);
	}
	img_progress_end(&c->progress, !ret);
	if (!ret && !c->quiet)
		printf("Images are identical.\n");
	return ret;
}

int img_compare(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {
		{"image-opts", 0, 0, 1}, {"force-share", 0, 0, 'U'}, {0}};
	const char *formats[2] = {NULL, NULL}, *cache = NULL;
	struct compare c = {0};
	struct error *err = NULL;
	bool image_opts = false;
	uint32_t flags = 0;
	int o, ret = 2;

	while ((o = getopt_long(argc, argv, "f:F:T:pqsU", longs, NULL)) != -1) {
		switch (o) {
		case 'f':
			formats[0] = optarg;
			break;
		case 'F':
			formats[1] = optarg;
			break;
		case 'T':
			cache = optarg;
			break;
		case 'p':
			c.progress.on = true;
			break;
		case 'q':
			c.quiet = true;
			break;
		case 's':
			c.strict = true;
			break;
		case 'U':
			flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 1:
			image_opts = true;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 2) {
		img_usage("Expecting two image file names");
		return 2;
	}
	c.a = img_open(img, argv[optind], formats[0], image_opts, cache, flags, &err);
	if (c.a)
		c.b = img_open(img, argv[optind + 1], formats[1], image_opts, cache, flags, &err);
	if (c.b)
		ret = run(&c);
	else
		img_fail(err);
	free(c.abuf);
	free(c.bbuf);
	block_unref(c.b);
	block_unref(c.a);
	return ret;
}
