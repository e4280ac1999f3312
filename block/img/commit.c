/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img commit: what an image and those between it and its base hold goes into the base; then the
 * image is emptied (unless -d, or -b).
 *
 * Three views are open meanwhile: the image alone, for its lock and for emptying; the whole chain,
 * for reading, without locks; and the base, for writing. The chain's view of the base is never
 * read.
 */
#include <stdio.h>
#include <stdlib.h>

#include "block/img/copy.h"

struct settings {
	const char *name, *format, *cache, *base;
	bool image_opts, drop, quiet;
	uint64_t rate;
	struct img_progress progress;
};

/* The node of the chain that the user means; *depth is how many lie above it. */
static struct block_node *find_base(struct block_node *top, const struct settings *set,
				    unsigned *depth, struct error **err)
{
	struct block_node *above = top;

	*depth = 1;
	if (!top->backing) {
		error_set(err, "Image does not have a backing file");
		return NULL;
	}
	for (; set->base && above->backing; above = above->backing, ++*depth) {
		char *full = block_backing_path(block_filename(above), set->base);
		bool found = !strcmp(block_filename(above->backing), full) ||
			     !strcmp(block_filename(above->backing), set->base) ||
			     (above->backing_name && !strcmp(above->backing_name, set->base));

		free(full);
		if (found)
			break;
	}
	if (!above->backing)
		error_set(err, "Did not find '%s' in the backing chain of '%s'", set->base,
			  set->name);
	return above->backing;
}

bool img_commit_down(struct img_copy *c, struct block_node *top, struct error **err)
{
	int ret = 0;

	if (block_length(c->dst) < c->bytes)
		ret = block_truncate(c->dst, c->bytes, err);
	if (!ret && c->bytes) {
		ret = img_copy(c);
		if (ret)
			img_copy_error(c, ret, err);
	}
	if (ret || !top)
		return !ret;
	/* What is read there stays the same, from the base from now on. */
	ret = block_do(top, BLOCK_DISCARD, 0, NULL, 0, block_length(top), BLOCK_UNCHANGED);
	if (!ret)
		ret = block_flush(top);
	if (ret)
		error_set_errno(err, ret, "Could not empty %s", block_filename(top));
	return !ret;
}

/* top: is emptied, unless NULL. */
static bool copy_down(struct img *img, struct settings *set, struct block_node *chain,
		      struct block_node *top, struct error **err)
{
	struct img_copy c = {
		.img = img,
		.src = &chain,
		.srcs = 1,
		.sparse = 4096,
		.no_scan = true,
		.workers = 8,
		.rate = set->rate,
		.progress = &set->progress,
		.bytes = block_length(chain),
	};
	struct block_node *base = find_base(chain, set, &c.depth, err);
	bool ok;

	if (!base)
		return false;
	c.dst = img_open_key(img, block_filename(base), block_format(base), false, set->cache,
			     BLOCK_OPEN_RDWR | BLOCK_OPEN_RESIZE | BLOCK_OPEN_UNMAP,
			     base->key_option, base->key_secret, err);
	if (!c.dst)
		return false;
	ok = img_commit_down(&c, top, err);
	block_unref(c.dst);
	return ok;
}

static bool commit(struct img *img, struct settings *set, struct error **err)
{
	struct block_node *top, *chain;
	bool ok = false;

	top = img_open(img, set->name, set->format, set->image_opts, set->cache,
		       BLOCK_OPEN_RDWR | BLOCK_OPEN_NO_BACKING | BLOCK_OPEN_UNMAP, err);
	if (!top)
		return false;
	if (top->data && !set->drop) {
		error_set(err, "'%s' has an external data file and cannot be emptied; use -d",
			  set->name);
		block_unref(top);
		return false;
	}
	chain = img_open(img, set->name, block_format(top), set->image_opts, set->cache,
			 BLOCK_OPEN_FORCE_SHARE, err);
	if (chain) {
		img_progress_start(&set->progress);
		ok = copy_down(img, set, chain, set->drop ? NULL : top, err);
		img_progress_end(&set->progress, ok);
	}
	block_unref(chain);
	block_unref(top);
	return ok;
}

int img_commit(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {{"image-opts", 0, 0, 1}, {0}};
	struct settings set = {0};
	struct error *err = NULL;
	int o;

	while ((o = getopt_long(argc, argv, "f:t:b:dpqr:", longs, NULL)) != -1) {
		switch (o) {
		case 'f':
			set.format = optarg;
			break;
		case 't':
			set.cache = optarg;
			break;
		case 'b':
			set.base = optarg;
			set.drop = true; /* those between would shine through */
			break;
		case 'd':
			set.drop = true;
			break;
		case 'p':
			set.progress.on = true;
			break;
		case 'q':
			set.quiet = true;
			break;
		case 'r':
			if (!parse_size(optarg, 1, &set.rate) || set.rate > INT64_MAX)
				return img_usage("Invalid rate limit specified. You may use k, M, "
						 "G, T, P or E suffixes for kilobytes, megabytes, "
						 "gigabytes, terabytes, petabytes and exabytes.");
			break;
		case 1:
			set.image_opts = true;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1)
		return img_usage("Expecting one image file name");
	set.progress.on &= !set.quiet;
	set.name = argv[optind];
	if (!commit(img, &set, &err))
		return img_fail(err);
	if (!set.quiet)
		printf("Image committed.\n");
	return 0;
}
