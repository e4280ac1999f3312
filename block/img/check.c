/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img check [-q] [-f FMT] [--output=FMT] [-r leaks|all] [-T CACHE] [-U] [--image-opts] FILE
 *
 * Exit codes: 0 clean, 1 the check could not be done, 2 corruptions, 3 leaks, 63 not for this
 * format.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/check.h"
#include "block/img/img.h"

static void print_line(void *opaque, const char *line)
{
	bool *quiet = opaque;

	if (!*quiet)
		fprintf(stderr, "%s\n", line);
}

static void print_human(const struct block_check *r)
{
	char fragmented[64] = "";

	if (!r->corruptions && !r->leaks && !r->check_errors) {
		printf("No errors were found on the image.\n");
	} else {
		if (r->corruptions)
			printf("\n%llu errors were found on the image.\nData may be corrupted, or "
			       "further writes to the image may corrupt it.\n",
			       (unsigned long long)r->corruptions);
		if (r->leaks)
			printf("\n%llu leaked clusters were found on the image.\nThis means waste "
			       "of "
			       "disk space, but no harm to data.\n",
			       (unsigned long long)r->leaks);
		if (r->check_errors)
			printf("\n%llu internal errors have occurred during the check.\n",
			       (unsigned long long)r->check_errors);
	}
	if (r->total_clusters && r->allocated_clusters) {
		snprintf(fragmented, sizeof(fragmented),
			 "%.2f%% fragmented, %.2f%% compressed "
			 "clusters",
			 r->fragmented_clusters * 100.0 / r->allocated_clusters,
			 r->compressed_clusters * 100.0 / r->allocated_clusters);
		printf("%llu/%llu = %.2f%% allocated, %s\n",
		       (unsigned long long)r->allocated_clusters,
		       (unsigned long long)r->total_clusters,
		       r->allocated_clusters * 100.0 / r->total_clusters, fragmented);
	}
	if (r->image_end)
		printf("Image end offset: %llu\n", (unsigned long long)r->image_end);
}

static void put_count(json_t *o, const char *name, uint64_t value)
{
	if (value)
		json_object_set_new(o, name, json_integer(value));
}

static void print_json(const char *filename, const char *format, const struct block_check *r)
{
	json_t *o = json_object();

	put_count(o, "image-end-offset", r->image_end);
	put_count(o, "total-clusters", r->total_clusters);
	json_object_set_new(o, "check-errors", json_integer(r->check_errors));
	put_count(o, "corruptions-fixed", r->corruptions_fixed);
	put_count(o, "leaks-fixed", r->leaks_fixed);
	put_count(o, "allocated-clusters", r->allocated_clusters);
	json_object_set_new(o, "filename", json_string(filename));
	json_object_set_new(o, "format", json_string(format));
	put_count(o, "compressed-clusters", r->compressed_clusters);
	put_count(o, "fragmented-clusters", r->fragmented_clusters);
	put_count(o, "leaks", r->leaks);
	put_count(o, "corruptions", r->corruptions);
	json_dumpf(o, stdout, JSON_INDENT(4));
	printf("\n");
	json_decref(o);
}

static int run(struct img *img, const char *filename, const char *format, bool image_opts,
	       const char *cache, uint32_t flags, unsigned fix, bool quiet, enum img_output output)
{
	struct block_check result = {0}, again = {0};
	const struct block_check_out lines = {print_line, &quiet};
	struct block_node *node;
	struct error *err = NULL;
	int ret;

	node = img_open(img, filename, format, image_opts, cache,
			flags | BLOCK_OPEN_CHECK | BLOCK_OPEN_NO_BACKING | BLOCK_OPEN_NO_WARN |
				BLOCK_OPEN_NO_IO |
				(fix ? BLOCK_OPEN_RDWR : 0),
			&err);
	if (!node)
		return img_fail(err);
	ret = node->drv->check ? node->drv->check(node, fix, &result, &lines) : -ENOTSUP;
	if (ret == -ENOTSUP) {
		fprintf(stderr, "vmm-img: This image format does not support checks\n");
		block_unref(node);
		return 63;
	}
	if (!ret && (result.corruptions_fixed || result.leaks_fixed)) {
		if (output == OUTPUT_HUMAN && !quiet)
			printf("The following inconsistencies were found and repaired:\n\n"
			       "    %llu leaked clusters\n    %llu corruptions\n\n"
			       "Double checking the fixed image now...\n",
			       (unsigned long long)result.leaks_fixed,
			       (unsigned long long)result.corruptions_fixed);
		ret = node->drv->check(node, 0, &again, &lines);
		again.corruptions_fixed = result.corruptions_fixed;
		again.leaks_fixed = result.leaks_fixed;
		result = again;
	}
	if (ret)
		fprintf(stderr, "vmm-img: Check failed: %s\n", strerror(-ret));
	else if (output == OUTPUT_JSON)
		print_json(filename, block_format(node), &result);
	else if (!quiet)
		print_human(&result);
	block_unref(node);
	if (ret || result.check_errors)
		return 1;
	return result.corruptions ? 2 : result.leaks ? 3 : 0;
}

int img_check(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {{"format", 1, 0, 'f'},
					      {"repair", 1, 0, 'r'},
					      {"quiet", 0, 0, 'q'},
					      {"output", 1, 0, 1},
					      {"image-opts", 0, 0, 2},
					      {"force-share", 0, 0, 'U'},
					      {0}};
	const char *format = NULL, *cache = NULL;
	enum img_output output = OUTPUT_HUMAN;
	bool quiet = false, image_opts = false;
	uint32_t flags = 0;
	unsigned fix = 0;
	int c;

	while ((c = getopt_long(argc, argv, "f:r:T:qU", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			format = optarg;
			break;
		case 'r':
			if (!strcmp(optarg, "leaks"))
				fix = BLOCK_FIX_LEAKS;
			else if (!strcmp(optarg, "all"))
				fix = BLOCK_FIX_ALL;
			else
				return img_usage("Unknown option value for -r "
						 "(expecting 'leaks' or 'all'): %s",
						 optarg);
			break;
		case 'T':
			cache = optarg;
			break;
		case 'q':
			quiet = true;
			break;
		case 'U':
			flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 1:
			if (!img_parse_output(optarg, &output))
				return img_usage("--output must be used with human or json as "
						 "argument.");
			break;
		case 2:
			image_opts = true;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1)
		return img_usage("Expecting one image file name");
	return run(img, argv[optind], format, image_opts, cache, flags, fix, quiet, output);
}
