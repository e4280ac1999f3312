/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img convert: images, one behind the other, into a new one or (-n) one that is there.
 */
#include <stdio.h>
#include <stdlib.h>

#include "block/bitmap.h"
#include "block/img/copy.h"

enum { SPARSE_MAX = 16 << 20 };

struct settings {
	const char *format, *out_format, *cache, *src_cache, *backing, *backing_format, *snapshot;
	char *options;
	const char *key_option;
	char *key_secret; /* of the target, if it is made here and encrypted */
	bool image_opts, target_image_opts, no_create, target_is_zero, backed;
	bool bitmaps, skip_broken, offload, sparse_given;
	uint32_t flags;
	struct img_copy copy;
	struct img_progress progress;
};

static bool make_target(struct img *img, struct settings *set, const char *filename, struct error **err)
{
	struct block_create create = {0};
	struct opts opts;
	uint64_t size = set->copy.bytes;
	bool ok;

	if (!img_create_options(set->out_format, set->options, &create, &opts, err))
		return false;
	if (!opts_has(&opts, "size"))
		create.size = size;
	create.objects = img->names.objects;
	/* What it is made with is what it opens with. */
	set->key_option = create.luks ? "encrypt.key-secret" : "key-secret";
	if (opts_has(&opts, set->key_option))
		set->key_secret = xstrdup(opts_get(&opts, set->key_option));
	if (set->backing) {
		create.backing = set->backing;
		create.backing_format = set->backing_format;
	}
	set->backed = create.backing;
	ok = !set->copy.compressed || block_find_driver(set->out_format)->compresses;
	if (!ok)
		error_set(err, "Compression not supported for this file format");
	else if (set->copy.compressed && create.luks) {
		error_set(err, "Compression and encryption not supported at the same time");
		ok = false;
	} else if (create.backing && !create.backing_format) {
		error_set(err, "Use of backing file requires explicit backing format");
		ok = false;
	} else if (create.backing && !img_takes_backing(set->out_format)) {
		error_set(err, "Backing file not supported for file format '%s'", set->out_format);
		ok = false;
	}
	if (ok)
		ok = img_create_file(filename, set->out_format, &create, err);
	opts_free(&opts);
	return ok;
}

static bool open_sources(struct img *img, struct settings *set, int n, char **names,
			 struct error **err)
{
	struct img_copy *c = &set->copy;

	for (c->srcs = 0; c->srcs < (unsigned)n; c->srcs++) {
		c->src[c->srcs] = img_open(img, names[c->srcs], set->format, set->image_opts,
					   set->src_cache, set->flags, err);
		if (!c->src[c->srcs])
			return false;
		if (set->snapshot &&
		    !img_show_snapshot(c->src[c->srcs], set->snapshot, err)) {
			c->srcs++;
			return false;
		}
		c->bytes += block_length(c->src[c->srcs]);
	}
	return true;
}

static bool open_target(struct img *img, struct settings *set, const char *to, struct error **err)
{
	struct img_copy *c = &set->copy;
	struct block_node *file;

	if (!block_find_driver(set->out_format)) {
		error_set(err, "Unknown file format '%s'", set->out_format);
		return false;
	}
	if (!set->no_create && !make_target(img, set, to, err))
		return false;
	c->dst = img_open_key(img, to, set->target_image_opts ? NULL : set->out_format,
			      set->target_image_opts, set->cache,
			      BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP, set->key_option, set->key_secret,
			      err);
	if (!c->dst)
		return false;
	if (block_length(c->dst) < c->bytes) {
		error_set(err, "output file is smaller than input file");
		return false;
	}
	c->compressed |= c->dst->packs;
	if (c->compressed && c->dst->key_secret) {
		error_set(err, "Compression and encryption not supported at the same time");
		return false;
	}
	if (c->compressed && !c->dst->drv->compresses) {
		error_set(err, "Compression not supported for this file format");
		return false;
	}
	file = c->dst->file ? c->dst->file : c->dst;
	c->zero_target = set->target_is_zero ||
			 (!set->no_create && !set->backed && file->zero_past_end &&
			  !c->dst->key_secret);
	if (set->backing)
		c->depth = 1;
	if (c->compressed)
		c->unit = block_limits(c->dst)->discard_alignment;
	return true;
}

/* Whether --bitmaps can be done. */
static bool check_bitmaps(const struct settings *set, struct error **err)
{
	const struct img_copy *c = &set->copy;

	if (!block_keeps_bitmaps(c->src[0])) {
		error_set(err, "Source lacks bitmap support");
		return false;
	}
	for (const struct block_bitmap *bm = block_bitmaps(c->src[0]); bm; bm = bm->next)
		if (bm->persistent && bm->inconsistent && !set->skip_broken) {
			error_set(err,
				  "Cannot copy inconsistent bitmap '%s'\nTry "
				  "--skip-broken-bitmaps, or use 'vmm-img bitmap --remove' to "
				  "delete it",
				  bm->name);
			return false;
		}
	return true;
}

static bool copy_bitmap(const struct img_copy *c, struct block_bitmap *bm, struct error **err)
{
	struct block_bitmap *copy;

	copy = block_bitmap_add(c->dst, bm->name, block_bitmap_granularity(bm), true, err);
	if (!copy) {
		error_prefix(err, "Failed to create bitmap %s: ", bm->name);
		return false;
	}
	if (block_bitmap_merge(c->dst, copy, c->src[0], bm, err))
		return block_bitmap_enable(c->dst, copy, bm->enabled, err);
	error_prefix(err, "Failed to populate bitmap %s: ", bm->name);
	block_bitmap_remove(c->dst, copy, NULL);
	return false;
}

static bool copy_bitmaps(const struct settings *set, struct error **err)
{
	const struct img_copy *c = &set->copy;
	int ret;

	for (struct block_bitmap *bm = block_bitmaps(c->src[0]); bm; bm = bm->next) {
		if (bm->inconsistent)
			fprintf(stderr, "vmm-img: warning: Skipping inconsistent bitmap '%s'\n",
				bm->name);
		else if (!copy_bitmap(c, bm, err))
			return false;
		/* One after the other is in memory. */
		dirty_bitmap_clear(&bm->dirty);
		bm->complete = false;
	}
	ret = block_bitmaps_store(c->dst);
	if (ret)
		error_set_errno(err, ret, "Could not store the bitmaps");
	return !ret;
}

static int run(struct img *img, struct settings *set, int n, char **names)
{
	struct img_copy *c = &set->copy;
	struct error *err = NULL;
	int ret;
	bool ok;

	c->img = img;
	c->progress = &set->progress;
	c->src = xcalloc(n - 1, sizeof(*c->src));
	ok = open_sources(img, set, n - 1, names, &err) &&
	     (!set->bitmaps || check_bitmaps(set, &err)) &&
	     open_target(img, set, names[n - 1], &err);
	if (ok && set->bitmaps && !block_keeps_bitmaps(c->dst)) {
		error_set(&err, "Format driver '%s' does not support bitmaps",
			  block_format(c->dst));
		ok = false;
	}
	if (ok) {
		img_progress_start(&set->progress);
		if (set->offload)
			img_offload(c);
		ret = img_copy(c);
		img_progress_end(&set->progress, !ret);
		if (ret) {
			img_copy_error(c, ret, &err);
			ok = false;
		}
	}
	if (ok && set->bitmaps)
		ok = copy_bitmaps(set, &err);
	block_unref(c->dst);
	while (c->srcs)
		block_unref(c->src[--c->srcs]);
	free(c->src);
	free(set->key_secret);
	return ok ? 0 : img_fail(err);
}

static int check_settings(const struct settings *set, int names)
{
	if (names < 2)
		return img_usage("Must specify image file name");
	if (set->offload && set->sparse_given)
		return img_usage("Cannot enable copy offloading when -S is used");
	if (set->offload && set->copy.compressed)
		return img_usage("Cannot enable copy offloading when -c is used");
	if (set->offload && set->copy.salvage)
		return img_usage("Cannot use copy offloading in salvaging mode");
	if (set->image_opts && set->format)
		return img_usage("--image-opts and --format are mutually exclusive");
	if (set->target_image_opts && !set->no_create)
		return img_usage("--target-image-opts requires use of -n flag");
	if (set->target_is_zero && !set->no_create)
		return img_usage("--target-is-zero requires use of -n flag");
	if (set->no_create && set->options)
		return img_usage("-o has no effect when skipping image creation");
	if (set->backing && names > 2)
		return img_usage("Having a backing file for the target makes no sense when "
				 "concatenating multiple input images");
	if (set->skip_broken && !set->bitmaps)
		return img_usage("Use of --skip-broken-bitmaps requires --bitmaps");
	if (set->bitmaps && names > 2)
		return img_usage("Copying bitmaps only possible with single source");
	if (set->snapshot && names > 2)
		return img_usage("No support for concatenating multiple snapshot");
	if (set->backing && set->no_create)
		return img_usage("-B has no effect when skipping image creation");
	if (set->backing_format && !set->backing)
		return img_usage("-F makes no sense without -B");
	return 0;
}

enum { IMAGE_OPTS = 1, TARGET_IS_ZERO, TARGET_IMAGE_OPTS, SALVAGE, BITMAPS, SKIP_BROKEN };

static int parse(struct settings *set, int argc, char **argv)
{
	static const struct option longs[] = {{"image-opts", 0, 0, IMAGE_OPTS},
					      {"target-is-zero", 0, 0, TARGET_IS_ZERO},
					      {"target-image-opts", 0, 0, TARGET_IMAGE_OPTS},
					      {"salvage", 0, 0, SALVAGE},
					      {"force-share", 0, 0, 'U'},
					      {"bitmaps", 0, 0, BITMAPS},
					      {"skip-broken-bitmaps", 0, 0, SKIP_BROKEN},
					      {0}};
	struct img_copy *c = &set->copy;
	uint64_t n;
	int o;

	while ((o = getopt_long(argc, argv, "f:O:o:B:F:l:t:T:S:m:r:WnpqcUC", longs, NULL)) != -1) {
		switch (o) {
		case 'f':
			set->format = optarg;
			break;
		case 'O':
			set->out_format = optarg;
			break;
		case 'o':
			img_join_options(&set->options, optarg);
			break;
		case 'B':
			set->backing = optarg;
			break;
		case 'F':
			set->backing_format = optarg;
			break;
		case 'l':
			set->snapshot = optarg;
			break;
		case 't':
			set->cache = optarg;
			break;
		case 'T':
			set->src_cache = optarg;
			break;
		case 'S':
			if (!parse_size(optarg, 1, &c->sparse) || c->sparse % 512 ||
			    c->sparse > SPARSE_MAX)
				return img_usage("Invalid buffer size for sparse output specified. "
						 "Valid sizes are multiples of 512 up to %d. "
						 "Select 0 to disable sparse detection (fully "
						 "allocates output).",
						 SPARSE_MAX);
			set->sparse_given = true;
			break;
		case 'm':
			if (!parse_u64(optarg, &n) || n < 1 || n > COPY_WORKERS_MAX)
				return img_usage("Invalid number of coroutines. Allowed number of "
						 "coroutines is between 1 and %d",
						 COPY_WORKERS_MAX);
			c->workers = n;
			break;
		case 'r':
			if (!img_parse_rate(optarg, &c->rate))
				return 1;
			break;
		case 'W':
			c->ordered = false;
			break;
		case 'n':
			set->no_create = true;
			break;
		case 'p':
			set->progress.on = true;
			break;
		case 'q':
			c->quiet = true;
			break;
		case 'c':
			c->compressed = true;
			break;
		case 'C':
			set->offload = true;
			break;
		case 'U':
			set->flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case IMAGE_OPTS:
			set->image_opts = true;
			break;
		case TARGET_IS_ZERO:
			set->target_is_zero = true;
			break;
		case TARGET_IMAGE_OPTS:
			set->target_image_opts = true;
			break;
		case SALVAGE:
			c->salvage = true;
			break;
		case BITMAPS:
			set->bitmaps = true;
			break;
		case SKIP_BROKEN:
			set->skip_broken = true;
			break;
		default:
			return 1;
		}
	}
	set->progress.on &= !c->quiet;
	return 0;
}

int img_convert(struct img *img, int argc, char **argv)
{
	struct settings set = {
		.out_format = "raw",
		.cache = "unsafe",
		.copy = {.sparse = 4096, .workers = 8, .ordered = true},
	};
	int ret = parse(&set, argc, argv);

	if (!ret && set.options && img_wants_help(set.options)) {
		ret = img_print_options(set.out_format, false);
		free(set.options);
		return ret;
	}
	if (!ret)
		ret = check_settings(&set, argc - optind);
	if (!ret)
		ret = run(img, &set, argc - optind, argv + optind);
	free(set.options);
	return ret;
}
