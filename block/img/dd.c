/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img dd: a part of an image into a new one. As in qemu-img count is counted from the input's
 * beginning, so that skip is part of it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "block/img/copy.h"

struct settings {
	const char *format, *out_format, *in, *out;
	uint64_t bs, count, skip;
	bool image_opts, has_count;
	uint32_t flags;
};

/* bs=, count=, skip=, if=, of=. */
static int operand(struct settings *set, const char *arg)
{
	static const char *const names[] = {"if", "of", "bs", "count", "skip"};
	const char *value = strchr(arg, '=');
	uint64_t n = 0;
	size_t i = 0, len;

	if (!value)
		return img_usage("unrecognized operand %s", arg);
	len = value++ - arg;
	while (i < ARRAY_SIZE(names) && (strlen(names[i]) != len || strncmp(names[i], arg, len)))
		i++;
	if (i == ARRAY_SIZE(names))
		return img_usage("unrecognized operand %.*s", (int)len, arg);
	if (i >= 2 && (!parse_size(value, 1, &n) || n > INT64_MAX))
		return img_usage("Invalid %s specified. You may use k, M, G, T, P or E suffixes "
				 "for kilobytes, megabytes, gigabytes, terabytes, petabytes and "
				 "exabytes.",
				 names[i]);
	switch (i) {
	case 0:
		set->in = value;
		break;
	case 1:
		set->out = value;
		break;
	case 2:
		if (!n || n > INT32_MAX)
			return img_usage("Invalid bs specified. Must be between 1 and 2147483647.");
		set->bs = n;
		break;
	case 3:
		set->count = n;
		set->has_count = true;
		break;
	default:
		set->skip = n;
	}
	return 0;
}

static int copy(struct img_copy *c, const struct settings *set, struct error **err)
{
	struct block_create create = {0};
	struct opts opts;
	uint64_t size = block_length(c->src[0]), skip, count;
	int ret = -1;

	if (__builtin_mul_overflow(set->skip, set->bs, &skip))
		skip = UINT64_MAX;
	if (__builtin_mul_overflow(set->count, set->bs, &count))
		count = UINT64_MAX;
	if (set->has_count)
		size = MIN(size, count);
	if (skip > size) {
		fprintf(stderr, "vmm-img: %s: cannot skip to specified offset\n", set->in);
		skip = size;
	}
	c->bytes = size - skip;
	c->src_skip = skip;
	if (!img_create_options(set->out_format, NULL, &create, &opts, err))
		return -1;
	/* Sizes are whole sectors here; qemu-img cuts the rest off. */
	c->bytes = ALIGN_DOWN(c->bytes, 512);
	create.size = c->bytes;
	if (img_create_file(set->out, set->out_format, &create, err))
		c->dst = img_open(c->img, set->out, set->out_format, false, NULL,
				  BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP, err);
	opts_free(&opts);
	if (!c->dst)
		return -1;
	c->zero_target = c->dst->file && c->dst->file->zero_past_end && !c->dst->key_secret;
	if (c->bytes)
		ret = img_copy(c);
	else
		ret = 0;
	if (ret)
		img_copy_error(c, ret, err);
	block_unref(c->dst);
	return ret;
}

int img_dd(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {
		{"image-opts", 0, 0, 1}, {"force-share", 0, 0, 'U'}, {0}};
	struct settings set = {.bs = 512, .out_format = "raw"};
	struct block_node *src;
	struct img_copy c = {
		.img = img, .src = &src, .srcs = 1, .sparse = 4096, .workers = 8, .ordered = true};
	struct error *err = NULL;
	int o, ret;

	while ((o = getopt_long(argc, argv, "f:O:U", longs, NULL)) != -1) {
		switch (o) {
		case 'f':
			set.format = optarg;
			break;
		case 'O':
			set.out_format = optarg;
			break;
		case 'U':
			set.flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 1:
			set.image_opts = true;
			break;
		default:
			return 1;
		}
	}
	for (int i = optind; i < argc; i++) {
		ret = operand(&set, argv[i]);
		if (ret)
			return ret;
	}
	if (!set.in || !set.out)
		return img_usage("Must specify both input and output files");
	if (set.image_opts && set.format)
		return img_usage("--image-opts and --format are mutually exclusive");
	src = img_open(img, set.in, set.format, set.image_opts, NULL, set.flags, &err);
	if (!src)
		return img_fail(err);
	ret = copy(&c, &set, &err);
	block_unref(src);
	return ret ? img_fail(err) : 0;
}
