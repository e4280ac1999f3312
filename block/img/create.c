/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img create [-q] [-u] [-f FMT] [-b BACKING [-F FMT]] [-o OPTIONS] FILE [SIZE]
 * vmm-img resize [-q] [-f FMT] [--image-opts] [--shrink] FILE [+|-]SIZE
 */
#include <stdio.h>
#include <stdlib.h>

#include "block/img/img.h"

/* The size of the backing file, and whether it can be opened at all. */
static bool ask_backing(struct img *img, const char *filename, struct block_create *c,
			bool has_size, struct error **err)
{
	char *path = block_backing_path(filename, c->backing);
	struct block_node *node = img_open(img, path, c->backing_format, false, NULL, 0, err);

	free(path);
	if (!node)
		return false;
	if (!has_size)
		c->size = block_length(node);
	block_unref(node);
	return true;
}

static void print_own(const struct block_driver *drv, const struct block_create *c)
{
	for (const struct block_create_option *o = drv->create_options; o->name; o++) {
		const char *value = opts_peek(c->opts, o->name);
		uint64_t bytes;

		if (!strcmp(o->name, "size"))
			printf(" size=%llu", (unsigned long long)c->size);
		else if (!strcmp(o->name, "backing_file") || !strcmp(o->name, "backing_fmt"))
			value = !strcmp(o->name, "backing_file") ? c->backing : c->backing_format;
		else if (!value)
			value = o->def;
		if (!value || !strcmp(o->name, "size"))
			continue;
		if (!strcmp(o->type, "size") && parse_size(value, 1, &bytes))
			printf(" %s=%llu", o->name, (unsigned long long)bytes);
		else
			printf(" %s=%s", o->name, value);
	}
}

static void print_formatting(const char *filename, const char *format, const struct block_create *c)
{
	const struct block_driver *drv = block_find_driver(format);

	printf("Formatting '%s', fmt=%s", filename, format);
	if (strcmp(format, "qcow2") && strcmp(format, "raw")) {
		print_own(drv, c);
		printf("\n");
		return;
	}
	for (const struct block_create_option *o = drv->create_options; o->name; o++)
		if (!strncmp(o->name, "encrypt.", 8) && opts_has(c->opts, o->name))
			printf(" %s=%s", o->name, opts_peek(c->opts, o->name));
	if (!strcmp(format, "qcow2"))
		printf(" cluster_size=%u extended_l2=%s compression_type=%s",
		       c->cluster_bits ? 1u << c->cluster_bits : 65536,
		       c->extended_l2 ? "on" : "off", c->zstd ? "zstd" : "zlib");
	printf(" size=%llu", (unsigned long long)c->size);
	if (c->backing)
		printf(" backing_file=%s backing_fmt=%s", c->backing, c->backing_format);
	if (!strcmp(format, "qcow2")) {
		if (c->v2)
			printf(" compat=0.10");
		printf(" lazy_refcounts=%s refcount_bits=%u", c->lazy_refcounts ? "on" : "off",
		       c->refcount_bits ? c->refcount_bits : 16);
	}
	printf("\n");
}

int img_create(struct img *img, int argc, char **argv)
{
	const char *format = "raw", *options = NULL, *filename;
	struct block_create c = {0};
	struct opts opts = {0};
	struct error *err = NULL;
	bool quiet = false, unsafe = false, has_size, ok;
	char *joined = NULL;
	int o;

	while ((o = getopt(argc, argv, "qub:F:f:o:")) != -1) {
		switch (o) {
		case 'q':
			quiet = true;
			break;
		case 'u':
			unsafe = true;
			break;
		case 'b':
			c.backing = optarg;
			break;
		case 'F':
			c.backing_format = optarg;
			break;
		case 'f':
			format = optarg;
			break;
		case 'o': {
			char *more = joined ? xasprintf("%s,%s", joined, optarg) : xstrdup(optarg);

			free(joined);
			joined = more;
			break;
		}
		default:
			return 1;
		}
	}
	options = joined;
	if (argc - optind < 1 || argc - optind > 2) {
		free(joined);
		return img_usage(argc - optind < 1 ? "Expecting image file name"
						   : "Unexpected argument: %s",
				 argc - optind < 1 ? "" : argv[optind + 2]);
	}
	filename = argv[optind];
	ok = img_create_options(format, options, &c, &opts, &err);
	c.objects = img->names.objects;
	has_size = opts_has(&opts, "size");
	if (ok && argc - optind == 2) {
		has_size = true;
		if (!parse_size(argv[optind + 1], 1, &c.size) || c.size > INT64_MAX) {
			error_set(&err,
				  "Invalid image size specified! You must provide a size such "
				  "as 10G");
			ok = false;
		}
	}
	if (ok && c.backing && !img_takes_backing(format)) {
		error_set(&err, "%s: Backing file not supported for file format '%s'", filename,
			  format);
		ok = false;
	}
	if (ok && c.backing && !c.backing_format) {
		error_set(&err, "%s: Backing file specified without backing format", filename);
		ok = false;
	}
	if (ok && c.backing && !(unsafe && has_size))
		ok = ask_backing(img, filename, &c, has_size, &err);
	if (ok && !has_size && !c.backing) {
		error_set(&err, "%s: Image creation needs a size parameter", filename);
		ok = false;
	}
	if (ok && !quiet)
		print_formatting(filename, format, &c);
	if (ok)
		ok = img_create_file(filename, format, &c, &err);
	opts_free(&opts);
	free(joined);
	return ok ? 0 : img_fail(err);
}

int img_resize(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {{"image-opts", 0, 0, 1}, {"shrink", 0, 0, 2},
					      {"preallocation", 1, 0, 3}, {0}};
	const char *format = NULL, *size_text, *filename;
	bool quiet = false, image_opts = false, shrink = false;
	enum block_prealloc prealloc = PREALLOC_OFF;
	struct block_node *node;
	struct error *err = NULL;
	uint64_t size, old;
	char sign;
	int o, ret;

	/* "-1G" at the end is a size, not options. */
	if (argc < 3)
		return img_usage("Expecting image file name and size");
	size_text = argv[argc - 1];
	argv[argc - 1] = NULL;
	while ((o = getopt_long(argc - 1, argv, "qf:", longs, NULL)) != -1) {
		switch (o) {
		case 'q':
			quiet = true;
			break;
		case 'f':
			format = optarg;
			break;
		case 1:
			image_opts = true;
			break;
		case 2:
			shrink = true;
			break;
		case 3:
			if (!img_parse_prealloc(optarg, &prealloc, &err))
				return img_fail(err);
			break;
		default:
			return 1;
		}
	}
	if (argc - 1 - optind != 1)
		return img_usage("Expecting image file name and size");
	filename = argv[optind];
	sign = *size_text == '+' || *size_text == '-' ? *size_text++ : 0;
	if (!parse_size(size_text, 1, &size) || size > INT64_MAX)
		return img_usage(
			"Invalid image size specified! You must provide a size such as 10G");
	node = img_open(img, filename, format, image_opts, NULL,
			BLOCK_OPEN_RDWR | BLOCK_OPEN_RESIZE, &err);
	if (!node)
		return img_fail(err);
	old = block_length(node);
	if (sign == '+')
		size = size > INT64_MAX - old ? INT64_MAX : old + size;
	else if (sign == '-')
		size = size > old ? 0 : old - size;
	size = ALIGN_UP(size, 512);
	if (!size) {
		error_set(&err, "New image size must be positive");
		ret = 1;
	} else if (size < old && !shrink) {
		error_set(&err,
			  "Use the --shrink option to perform a shrink operation. Shrinking an "
			  "image will delete all data beyond the shrunken image's end. Before "
			  "performing such an operation, make sure there is no important data "
			  "there.");
		ret = 1;
	} else {
		ret = block_grow(node, size, prealloc, &err);
	}
	block_unref(node);
	if (ret)
		return img_fail(err);
	if (!quiet)
		printf("Image resized.\n");
	return 0;
}
