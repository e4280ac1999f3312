/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img bitmap: makes, changes and removes a persistent bitmap of an image, in the order of the
 * options.
 */
#include "block/bitmap.h"

#include <stdio.h>
#include <stdlib.h>

#include "block/img/img.h"

enum action_kind { ADD = 1, REMOVE, CLEAR, ENABLE, DISABLE, MERGE, IMAGE_OPTS };

struct action {
	enum action_kind kind;
	const char *source; /* MERGE */
};

struct settings {
	struct action *actions;
	size_t count;
	const char *format, *name, *bitmap, *source_name, *source_format;
	uint64_t granularity;
	bool image_opts, add, merge;
	struct block_node *source;
};

/* An action's name is longs[kind - 1]. */
static const struct option longs[] = {
	{"add", 0, 0, ADD},
	{"remove", 0, 0, REMOVE},
	{"clear", 0, 0, CLEAR},
	{"enable", 0, 0, ENABLE},
	{"disable", 0, 0, DISABLE},
	{"merge", 1, 0, MERGE},
	{"image-opts", 0, 0, IMAGE_OPTS},
	{"source-file", 1, 0, 'b'},
	{"source-format", 1, 0, 'F'},
	{"granularity", 1, 0, 'g'},
	{0},
};

static struct block_bitmap *find(struct block_node *node, const char *name, struct error **err)
{
	struct block_bitmap *bm = block_bitmap_find(node, name);

	if (!bm)
		error_set(err, "Dirty bitmap '%s' not found", name);
	return bm;
}

static bool carry_out(struct settings *set, struct block_node *node, const struct action *a,
		      struct error **err)
{
	struct block_bitmap *bm = NULL, *from;

	if (a->kind == ADD)
		return block_bitmap_add(node, set->bitmap, set->granularity, true, err);
	bm = find(node, set->bitmap, err);
	if (!bm)
		return false;
	switch (a->kind) {
	case REMOVE:
		return block_bitmap_remove(node, bm, err);
	case CLEAR:
		return block_bitmap_clear(node, bm, err);
	case MERGE:
		from = find(set->source ? set->source : node, a->source, err);
		return from &&
		       block_bitmap_merge(node, bm, set->source ? set->source : node, from, err);
	default:
		return block_bitmap_enable(node, bm, a->kind == ENABLE, err);
	}
}

static bool run(struct settings *set, struct block_node *node, struct error **err)
{
	bool ok = true;
	int ret;

	for (size_t i = 0; i < set->count && ok; i++) {
		ok = carry_out(set, node, &set->actions[i], err);
		if (!ok)
			error_prefix(err, "Operation %s on bitmap %s failed: ",
				     longs[set->actions[i].kind - 1].name, set->bitmap);
	}
	/* What came before the failure counts. */
	ret = block_bitmaps_store(node);
	if (ret && ok) {
		error_set_errno(err, ret, "Could not store the bitmaps of '%s'", set->name);
		ok = false;
	}
	return ok;
}

static void add_action(struct settings *set, enum action_kind kind, const char *source)
{
	set->actions = xrealloc(set->actions, (set->count + 1) * sizeof(*set->actions));
	set->actions[set->count++] = (struct action){kind, source};
	set->add |= kind == ADD;
	set->merge |= kind == MERGE;
}

static int parse(struct settings *set, int argc, char **argv)
{
	int o;

	while ((o = getopt_long(argc, argv, "b:f:F:g:", longs, NULL)) != -1) {
		switch (o) {
		case 'b':
			set->source_name = optarg;
			break;
		case 'f':
			set->format = optarg;
			break;
		case 'F':
			set->source_format = optarg;
			break;
		case 'g':
			if (!parse_size(optarg, 1, &set->granularity) || !set->granularity)
				return img_usage("Invalid granularity specified. You may use k, M, "
						 "G, T, P or E suffixes for kilobytes, megabytes, "
						 "gigabytes, terabytes, petabytes and exabytes.");
			break;
		case ADD ... MERGE:
			add_action(set, o, optarg);
			break;
		case IMAGE_OPTS:
			set->image_opts = true;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 2)
		return img_usage("Expecting filename and bitmap name");
	if (!set->count)
		return img_usage("Need at least one of --add, --remove, --clear, --enable, "
				 "--disable, or --merge");
	if (set->granularity && !set->add)
		return img_usage("granularity only supported with --add");
	if (set->source_format && !set->source_name)
		return img_usage("-F only supported with -b");
	if (set->source_name && !set->merge)
		return img_usage("Merge bitmap source file only supported with --merge");
	if (set->image_opts && set->format)
		return img_usage("--image-opts and --format are mutually exclusive");
	set->name = argv[optind];
	set->bitmap = argv[optind + 1];
	return 0;
}

int img_bitmap(struct img *img, int argc, char **argv)
{
	struct settings set = {0};
	struct block_node *node = NULL;
	struct error *err = NULL;
	int ret = parse(&set, argc, argv);

	if (ret)
		goto out;
	node = img_open(img, set.name, set.format, set.image_opts, NULL,
			BLOCK_OPEN_RDWR | BLOCK_OPEN_NO_BACKING | BLOCK_OPEN_UNMAP, &err);
	if (node && set.source_name) {
		set.source = img_open(img, set.source_name, set.source_format, false, NULL,
				      BLOCK_OPEN_NO_BACKING, &err);
		if (!set.source) {
			ret = img_fail(err);
			goto out;
		}
	}
	if (!node || !run(&set, node, &err))
		ret = img_fail(err);
out:
	block_unref(set.source);
	block_unref(node);
	free(set.actions);
	return ret;
}
