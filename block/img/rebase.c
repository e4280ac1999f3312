/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img rebase: another backing file. Unless -u says that both hold the same, what the old one
 * has otherwise than the new one is written into the image first.
 * vmm-img amend: other changes to an image's header.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/img/img.h"

enum { PIECE = 1 << 20 };

struct rebase {
	struct block_node *node, *new; /* new NULL: none */
	unsigned shared;	       /* layers from that depth on are new's too; 0: none are */
	uint64_t unit;
	uint8_t *old_buf, *new_buf;
	struct img_progress progress;
};

/* Bytes of a backing file that may end before, or not be there. */
static int read_backing(struct block_node *node, uint64_t at, uint8_t *buf, uint64_t bytes)
{
	uint64_t n = 0;
	int ret = 0;

	if (node && at < block_length(node))
		n = MIN(bytes, block_length(node) - at);
	if (n)
		ret = block_pread(node, at, buf, n);
	memset(buf + n, 0, bytes - n);
	return ret;
}

static bool both_zero(const struct rebase *r, uint64_t at, uint64_t bytes)
{
	struct img_range range;

	if (r->new && at < block_length(r->new)) {
		uint64_t n = MIN(bytes, block_length(r->new) - at);

		if (img_resolve(r->new, at, n, &range) || !range.zero || range.length < n)
			return false;
	}
	return true;
}

/* [at, at + bytes) comes from below the image. */
static int keep_differences(struct rebase *r, uint64_t at, uint64_t bytes)
{
	int ret = read_backing(r->node->backing, at, r->old_buf, bytes);

	if (!ret)
		ret = read_backing(r->new, at, r->new_buf, bytes);
	for (uint64_t in = 0, n; !ret && in < bytes; in += n) {
		n = MIN(r->unit - (at + in) % r->unit, bytes - in);
		if (!memcmp(r->old_buf + in, r->new_buf + in, n))
			continue;
		if (block_buf_is_zero(r->old_buf + in, n))
			ret = block_zero(r->node, at + in, n, BLOCK_MAY_UNMAP);
		else
			ret = block_pwrite(r->node, at + in, r->old_buf + in, n, 0);
	}
	return ret;
}

static int work(struct rebase *r)
{
	uint64_t size = block_length(r->node);

	for (uint64_t at = 0, n; at < size; at += n) {
		struct img_range range;
		int ret = img_resolve(r->node, at, size - at, &range);

		if (ret)
			return ret;
		n = range.length;
		img_progress(&r->progress, at, size);
		if (range.present && !range.depth)
			continue;
		if (r->shared && range.depth >= r->shared)
			continue;
		if (range.zero && both_zero(r, at, n))
			continue;
		n = MIN(n, (uint64_t)PIECE);
		ret = keep_differences(r, at, n);
		if (ret)
			return ret;
	}
	return block_flush(r->node);
}

/* From which layer on both chains are the same; beyond new's end nothing is. */
static unsigned common_depth(struct block_node *node, struct block_node *new)
{
	unsigned depth = 0;
	dev_t dev, other_dev;
	ino_t ino, other_ino;

	if (!new || !block_file_identity(new, &dev, &ino))
		return 0;
	for (struct block_node *n = node; n; n = n->backing, depth++)
		if (depth && n->drv == new->drv && block_file_identity(n, &other_dev, &other_ino) &&
		    dev == other_dev && ino == other_ino)
			return depth;
	return 0;
}

static int safe(struct img *img, struct rebase *r, const char *backing, const char *format,
		const char *cache, struct error **err)
{
	uint32_t flags = 0;
	int ret = 0;

	if (backing) {
		char *path = block_backing_path(block_filename(r->node), backing);

		if (cache && !block_parse_cache(cache, &flags)) {
			error_set(err, "Invalid source cache option: %s", cache);
			ret = -1;
		} else {
			r->new = block_open_file(img->loop, path, format, flags, &img->names, err);
			if (!r->new) {
				error_prefix(err, "Could not open new backing file '%s': ",
					     backing);
				ret = -1;
			}
		}
		free(path);
	}
	r->shared = common_depth(r->node, r->new);
	r->unit = MAX(block_limits(r->node)->discard_alignment, 512u);
	if (!ret && (posix_memalign((void **)&r->old_buf, 4096, PIECE) ||
		     posix_memalign((void **)&r->new_buf, 4096, PIECE))) {
		error_set_errno(err, ENOMEM, "Could not rebase");
		ret = -1;
	}
	if (!ret) {
		img_progress_start(&r->progress);
		ret = work(r);
		img_progress_end(&r->progress, !ret);
		if (ret)
			error_set_errno(err, ret, "error while comparing the backing files");
	}
	free(r->old_buf);
	free(r->new_buf);
	block_unref(r->new);
	return ret;
}

int img_rebase(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {
		{"image-opts", 0, 0, 1}, {"force-share", 0, 0, 'U'}, {0}};
	const char *format = NULL, *cache = NULL, *src_cache = NULL, *backing = NULL;
	const char *backing_format = NULL;
	bool image_opts = false, unsafe = false, quiet = false, given = false;
	struct rebase r = {0};
	struct error *err = NULL;
	uint32_t flags = BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP;
	int o, ret = 0;

	while ((o = getopt_long(argc, argv, "f:b:F:t:T:upqU", longs, NULL)) != -1) {
		switch (o) {
		case 'f':
			format = optarg;
			break;
		case 'b':
			given = true;
			backing = *optarg ? optarg : NULL;
			break;
		case 'F':
			backing_format = optarg;
			break;
		case 't':
			cache = optarg;
			break;
		case 'T':
			src_cache = optarg;
			break;
		case 'u':
			unsafe = true;
			break;
		case 'p':
			r.progress.on = true;
			break;
		case 'q':
			quiet = true;
			break;
		case 'U':
			flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 1:
			image_opts = true;
			break;
		default:
			return 1;
		}
	}
	r.progress.on &= !quiet;
	if (argc - optind != 1)
		return img_usage("Expecting one image file name");
	if (!unsafe && !given)
		return img_usage("Must specify backing file (-b) or use unsafe mode (-u)");
	if (backing_format && !block_find_driver(backing_format))
		return img_usage("Invalid format name: '%s'", backing_format);
	r.node = img_open(img, argv[optind], format, image_opts, cache,
			  flags | (unsafe ? BLOCK_OPEN_NO_BACKING : 0), &err);
	if (!r.node)
		return img_fail(err);
	if (!unsafe)
		ret = safe(img, &r, backing, backing_format, src_cache, &err);
	if (!ret && !r.node->drv->change_backing) {
		error_set(&err, "Could not change the backing file to '%s': Operation not "
			       "supported", backing ? backing : "");
		ret = -1;
	} else if (!ret && backing && !backing_format) {
		error_set(&err,
			  "Could not change the backing file to '%s': backing format must be "
			  "specified",
			  backing);
		ret = -1;
	} else if (!ret) {
		ret = !r.node->drv->change_backing(r.node, backing, backing_format, &err);
	}
	block_unref(r.node);
	return ret ? img_fail(err) : 0;
}

/* Known for new images, but not to be changed later? */
static bool may_be_amended(const struct block_driver *drv, const struct opts *opts,
			   struct error **err)
{
	for (size_t i = 0; i < opts->count; i++) {
		const struct block_create_option *o = drv->create_options;

		while (o->name && strcmp(o->name, opts->items[i].key))
			o++;
		if (o->name && o->amend)
			continue;
		error_set(err, "Invalid parameter '%s'%s", opts->items[i].key,
			  o->name ? "\nThis option is only supported for image creation" : "");
		return false;
	}
	return true;
}

int img_amend(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {{"image-opts", 0, 0, 1}, {"force", 0, 0, 2}, {0}};
	const char *format = NULL, *cache = NULL;
	bool image_opts = false, quiet = false, force = false, ok = false;
	struct img_progress progress = {0};
	struct block_node *node;
	struct error *err = NULL;
	struct opts opts = {0};
	char *options = NULL;
	int o, ret = 0;

	while (!ret && (o = getopt_long(argc, argv, "f:o:t:pq", longs, NULL)) != -1) {
		switch (o) {
		case 'f':
			format = optarg;
			break;
		case 'o':
			img_join_options(&options, optarg);
			break;
		case 't':
			cache = optarg;
			break;
		case 'p':
			progress.on = true;
			break;
		case 'q':
			quiet = true;
			break;
		case 1:
			image_opts = true;
			break;
		case 2:
			force = true;
			break;
		default:
			ret = 1;
		}
	}
	progress.on &= !quiet;
	if (!ret && !options)
		ret = img_usage("Must specify options (-o)");
	if (!ret && img_wants_help(options) && format)
		ret = img_print_options(format, true);
	else if (!ret && argc - optind != 1)
		ret = img_usage("Expecting one image file name");
	else if (!ret) {
		node = img_open(img, argv[optind], format, image_opts, cache,
				BLOCK_OPEN_RDWR | BLOCK_OPEN_RESIZE | BLOCK_OPEN_UNMAP |
					BLOCK_OPEN_NO_BACKING,
				&err);
		if (node && !node->drv->amend) {
			error_set(&err, "Format driver '%s' does not support option amendment",
				  block_format(node));
		} else if (node && opts_parse(&opts, options, NULL, &err)) {
			img_progress_start(&progress);
			ok = may_be_amended(node->drv, &opts, &err) &&
			     node->drv->amend(node, &opts, force, img->names.objects, &err);
			img_progress_end(&progress, ok);
		}
		ret = ok ? 0 : img_fail(err);
		opts_free(&opts);
		block_unref(node);
	}
	free(options);
	return ret;
}
