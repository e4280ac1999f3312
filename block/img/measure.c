/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img measure: how long the file of a new image would be, with what the source holds, and with
 * everything allocated.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/crypt/luks.h"
#include "block/img/img.h"
#include "block/qcow2/bitmap.h"

/* Clusters of refcount blocks and of their table that count so many others and themselves. */
static uint64_t refcount_clusters(uint64_t clusters, uint64_t cluster_size, unsigned bits)
{
	uint64_t per_block = cluster_size * 8 / bits, blocks = 0, table = 0, last;

	do {
		last = blocks + table;
		blocks = div_round_up(clusters + blocks + table, per_block);
		table = div_round_up(blocks * 8, cluster_size);
	} while (blocks + table != last);
	return last;
}

/* crypt: bytes of a LUKS header. */
static uint64_t qcow2_metadata(const struct block_create *c, uint64_t size, uint64_t crypt)
{
	uint64_t cluster = UINT64_C(1) << (c->cluster_bits ? c->cluster_bits : 16);
	uint64_t data = div_round_up(size, cluster);
	uint64_t l2 = div_round_up(data * 8, cluster), l1 = div_round_up(l2 * 8, cluster);

	uint64_t header = 1 + div_round_up(crypt, cluster);

	return (header + l1 + l2 +
		refcount_clusters(header + l1 + l2 + data, cluster,
				  c->refcount_bits ? c->refcount_bits : 16)) *
	       cluster;
}

/* Bytes of the clusters that have data. */
static int data_bytes(struct block_node *node, uint64_t cluster, uint64_t *bytes)
{
	uint64_t size = block_length(node), counted = 0;
	struct img_range r;

	*bytes = 0;
	for (uint64_t at = 0; at < size; at += r.length) {
		uint64_t first, end;
		int ret = img_resolve(node, at, size - at, &r);

		if (ret)
			return ret;
		if (r.zero)
			continue;
		first = MAX(ALIGN_DOWN(at, cluster), counted);
		end = ALIGN_UP(at + r.length, cluster);
		*bytes += end - first;
		counted = end;
	}
	return 0;
}

/* Bytes that a copy of the bitmaps would take, each of its clusters allocated. */
static uint64_t bitmap_bytes(const struct block_node *node, uint64_t cluster)
{
	uint64_t bytes = 0, dir = 0;

	for (const struct block_bitmap *bm = block_bitmaps(node); bm; bm = bm->next) {
		uint64_t n = qbitmap_clusters(bm, cluster);

		bytes += n * cluster + ALIGN_UP(n * 8, cluster);
		dir += qbitmap_entry_bytes(strlen(bm->name), 0);
	}
	return bytes + ALIGN_UP(dir, cluster);
}

/* bitmaps: NULL where there cannot be any. */
static void print(enum img_output output, uint64_t required, uint64_t all, const uint64_t *bitmaps)
{
	if (output == OUTPUT_HUMAN) {
		printf("required size: %llu\nfully allocated size: %llu\n",
		       (unsigned long long)required, (unsigned long long)all);
		if (bitmaps)
			printf("bitmaps size: %llu\n", (unsigned long long)*bitmaps);
		return;
	}
	printf("{\n");
	if (bitmaps)
		printf("    \"bitmaps\": %llu,\n", (unsigned long long)*bitmaps);
	printf("    \"required\": %llu,\n    \"fully-allocated\": %llu\n}\n",
	       (unsigned long long)required, (unsigned long long)all);
}

static bool crypt_bytes(const struct block_create *c, struct opts *opts,
			const struct objects *objects, uint64_t *bytes, struct error **err)
{
	struct luks_params p;

	if (!luks_params_read(&p, opts, c->luks ? "encrypt." : "", objects, err))
		return false;
	*bytes = luks_params_payload(&p);
	return true;
}

static int measure(struct block_node *node, const char *format, const char *text, uint64_t size,
		   enum img_output output, const struct objects *objects, struct error **err)
{
	struct block_create c = {0};
	struct opts opts;
	uint64_t required, all, metadata = 0, cluster, crypt = 0, bitmaps = 0;
	bool has_bitmaps = false;
	int ret = 0;

	if (strcmp(format, "qcow2") && strcmp(format, "raw") && strcmp(format, "luks")) {
		error_set(err,
			  block_find_driver(format) ? "Block driver '%s' does not support size "
						      "measurement"
						    : "Unknown file format '%s'",
			  format);
		return -1;
	}
	if (!img_create_options(format, text, &c, &opts, err))
		return -1;
	if ((c.luks || !strcmp(format, "luks")) && !crypt_bytes(&c, &opts, objects, &crypt, err)) {
		opts_free(&opts);
		return -1;
	}
	size = ALIGN_UP(node ? block_length(node) : size, 512);
	required = all = size + (c.luks ? 0 : crypt);
	if (!strcmp(format, "qcow2")) {
		cluster = UINT64_C(1) << (c.cluster_bits ? c.cluster_bits : 16);
		metadata = qcow2_metadata(&c, size, crypt);
		all = ALIGN_UP(size, cluster) + metadata;
		required = all;
		if (c.prealloc == PREALLOC_OFF || c.prealloc == PREALLOC_METADATA)
			required = metadata;
		if (node && !c.backing && required == metadata) {
			ret = data_bytes(node, cluster, &required);
			required += metadata;
		} else if (node && c.backing) {
			required = all;
		}
		has_bitmaps = node && !c.v2 && block_keeps_bitmaps(node);
		if (has_bitmaps)
			bitmaps = bitmap_bytes(node, cluster);
	}
	opts_free(&opts);
	if (ret)
		error_set_errno(err, ret, "Unable to get block status");
	else
		print(output, required, all, has_bitmaps ? &bitmaps : NULL);
	return ret;
}

enum { OUTPUT = 1, SIZE, IMAGE_OPTS };

int img_measure(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {{"output", 1, 0, OUTPUT},
					      {"size", 1, 0, SIZE},
					      {"image-opts", 0, 0, IMAGE_OPTS},
					      {"force-share", 0, 0, 'U'},
					      {0}};
	const char *format = NULL, *out_format = "raw", *snapshot = NULL;
	enum img_output output = OUTPUT_HUMAN;
	bool image_opts = false, has_size = false;
	struct block_node *node = NULL;
	struct error *err = NULL;
	char *options = NULL;
	uint32_t flags = 0;
	uint64_t size = 0;
	int o, ret = 0;

	while (!ret && (o = getopt_long(argc, argv, "f:O:o:l:U", longs, NULL)) != -1) {
		switch (o) {
		case 'f':
			format = optarg;
			break;
		case 'O':
			out_format = optarg;
			break;
		case 'o':
			img_join_options(&options, optarg);
			break;
		case 'l':
			snapshot = optarg;
			break;
		case 'U':
			flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case OUTPUT:
			if (!img_parse_output(optarg, &output))
				ret = img_usage("--output must be used with human or json as "
						"argument.");
			break;
		case SIZE:
			has_size = true;
			if (!parse_size(optarg, 1, &size) || size > INT64_MAX - 511)
				ret = img_usage("Invalid image size specified! You must provide a "
						"size such as 10G");
			break;
		case IMAGE_OPTS:
			image_opts = true;
			break;
		default:
			ret = 1;
		}
	}
	if (!ret && options && img_wants_help(options)) {
		ret = img_print_options(out_format, false);
		free(options);
		return ret;
	}
	if (!ret && has_size && argc - optind > 0)
		ret = img_usage("--size N cannot be used together with a filename.");
	else if (!ret && has_size == (argc - optind == 1))
		ret = img_usage("Either --size N or one filename must be specified.");
	else if (!ret && has_size && (format || image_opts || snapshot))
		ret = img_usage("--image-opts, -f, or -l can only be used with a filename argument.");
	if (!ret && !has_size) {
		node = img_open(img, argv[optind], format, image_opts, NULL, flags, &err);
		if (!node || (snapshot && !img_show_snapshot(node, snapshot, &err)))
			ret = img_fail(err);
	}
	if (!ret && measure(node, out_format, options, size, output, img->names.objects, &err))
		ret = img_fail(err);
	block_unref(node);
	free(options);
	return ret;
}
