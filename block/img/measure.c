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
#include "block/qcow2/qcow2.h"

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

static void print(enum img_output output, uint64_t required, uint64_t all, bool has_bitmaps)
{
	if (output == OUTPUT_HUMAN) {
		printf("required size: %llu\nfully allocated size: %llu\n",
		       (unsigned long long)required, (unsigned long long)all);
		if (has_bitmaps)
			printf("bitmaps size: 0\n");
		return;
	}
	printf("{\n%s    \"required\": %llu,\n    \"fully-allocated\": %llu\n}\n",
	       has_bitmaps ? "    \"bitmaps\": 0,\n" : "", (unsigned long long)required,
	       (unsigned long long)all);
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
	uint64_t required, all, metadata = 0, cluster, crypt = 0;
	bool bitmaps = false;
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
		bitmaps = node && node->drv == &block_qcow2 && !c.v2 &&
			  ((struct qcow2 *)node->opaque)->h.version >= 3;
	}
	opts_free(&opts);
	if (ret)
		error_set_errno(err, ret, "Unable to get block status");
	else
		print(output, required, all, bitmaps);
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
