/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img info [-f FMT] [--output=FMT] [--backing-chain] [-U] [--image-opts] FILE
 * vmm-img map [-f FMT] [--output=FMT] [-U] [-s OFFSET] [-l LENGTH] [--image-opts] FILE
 *
 * Without --backing-chain info opens the one file and nothing that it names.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/crypt/luks_node.h"
#include "block/img/img.h"
#include "block/qcow2/bitmap.h"
#include "block/snapshot.h"

/* NULL if there are none. */
static json_t *bitmaps(const struct block_node *node)
{
	const struct block_bitmap *bm = block_bitmaps(node);
	json_t *all = bm ? json_array() : NULL;

	for (; bm; bm = bm->next) {
		const struct qbitmap *q = bm->stored;
		json_t *o = json_object(), *flags = json_array();

		if (q->flags & QBITMAP_IN_USE)
			json_array_append_new(flags, json_string("in-use"));
		if (q->flags & QBITMAP_AUTO)
			json_array_append_new(flags, json_string("auto"));
		json_object_set_new(o, "flags", flags);
		json_object_set_new(o, "name", json_string(bm->name));
		json_object_set_new(o, "granularity", json_integer(block_bitmap_granularity(bm)));
		json_array_append_new(all, o);
	}
	return all;
}

static json_t *qcow2_specific(const struct qcow2 *s)
{
	json_t *data = json_object(), *list = bitmaps(s->node), *o;

	json_object_set_new(data, "compat", json_string(s->h.version < 3 ? "0.10" : "1.1"));
	json_object_set_new(data, "compression-type",
			    json_string(s->h.compression ? "zstd" : "zlib"));
	if (s->h.version >= 3)
		json_object_set_new(data, "lazy-refcounts",
				    json_boolean(s->h.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS));
	if (list)
		json_object_set_new(data, "bitmaps", list);
	json_object_set_new(data, "refcount-bits", json_integer(1 << s->h.refcount_order));
	if (s->data_name)
		json_object_set_new(data, "data-file", json_string(s->data_name));
	if (s->external)
		json_object_set_new(data, "data-file-raw", json_boolean(s->raw_data));
	if (s->h.crypt_method) {
		o = json_object();
		if (s->luks)
			luks_info(s->luks, true, o);
		else
			json_object_set_new(o, "format", json_string("aes"));
		json_object_set_new(data, "encrypt", o);
	}
	if (s->h.version >= 3) {
		json_object_set_new(data, "corrupt",
				    json_boolean(s->h.incompatible & QCOW2_INCOMPAT_CORRUPT));
		json_object_set_new(data, "extended-l2", json_boolean(s->extended));
	}
	o = json_object();
	json_object_set_new(o, "type", json_string("qcow2"));
	json_object_set_new(o, "data", data);
	return o;
}

static json_t *snapshots(const struct block_node *node)
{
	size_t count = 0;
	const struct block_snapshot *list =
		block_has_snapshots(node) ? block_snapshots(node, &count) : NULL;
	json_t *all = json_array();

	for (size_t i = 0; i < count; i++) {
		const struct block_snapshot *sn = &list[i];
		json_t *o = json_object();

		if (sn->icount != BLOCK_SNAPSHOT_NO_ICOUNT)
			json_object_set_new(o, "icount", json_integer(sn->icount));
		json_object_set_new(o, "vm-clock-nsec",
				    json_integer(sn->vm_clock_ns % NSEC_PER_SEC));
		json_object_set_new(o, "name", json_string(sn->name));
		json_object_set_new(o, "date-sec", json_integer(sn->date_sec));
		json_object_set_new(o, "date-nsec", json_integer(sn->date_nsec));
		json_object_set_new(o, "vm-clock-sec",
				    json_integer(sn->vm_clock_ns / NSEC_PER_SEC));
		json_object_set_new(o, "id", json_string(sn->id));
		json_object_set_new(o, "vm-state-size", json_integer(sn->vm_state_bytes));
		json_array_append_new(all, o);
	}
	if (json_array_size(all))
		return all;
	json_decref(all);
	return NULL;
}

/* What other formats' headers say; of those that say nothing not even that they are clean. */
static void put_info(struct block_node *node, json_t *o)
{
	struct block_info info = {0};

	if (node->drv->info)
		node->drv->info(node, &info);
	else if (!node->drv->protocol && !node->drv->filter && node->drv != &block_raw)
		return;
	if (info.encrypted)
		json_object_set_new(o, "encrypted", json_true());
	if (info.cluster_size)
		json_object_set_new(o, "cluster-size", json_integer(info.cluster_size));
	if (info.specific)
		json_object_set_new(o, "format-specific", info.specific);
	json_object_set_new(o, "dirty-flag", json_boolean(info.dirty));
}

static json_t *describe(struct block_node *node, const char *filename)
{
	json_t *o = json_object(), *list;
	int64_t allocated = block_allocated(node);

	json_object_set_new(o, "virtual-size", json_integer(block_length(node)));
	json_object_set_new(o, "filename", json_string(filename));
	if (node->drv == &block_qcow2) {
		struct qcow2 *s = node->opaque;

		json_object_set_new(o, "cluster-size", json_integer(s->cluster_size));
		if (s->h.crypt_method)
			json_object_set_new(o, "encrypted", json_true());
		json_object_set_new(o, "format-specific", qcow2_specific(s));
		json_object_set_new(o, "dirty-flag",
				    json_boolean(s->h.incompatible & QCOW2_INCOMPAT_DIRTY));
	} else {
		put_info(node, o);
	}
	json_object_set_new(o, "format", json_string(block_format(node)));
	list = snapshots(node);
	if (list)
		json_object_set_new(o, "snapshots", list);
	if (allocated >= 0)
		json_object_set_new(o, "actual-size", json_integer(allocated));
	if (node->backing_name) {
		char *full = block_backing_path(block_filename(node), node->backing_name);

		json_object_set_new(o, "full-backing-filename", json_string(full));
		json_object_set_new(o, "backing-filename", json_string(node->backing_name));
		if (node->backing_format)
			json_object_set_new(o, "backing-filename-format",
					    json_string(node->backing_format));
		free(full);
	}
	return o;
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static void print_value(const char *label, const json_t *value, int indent);

/* An object's members in the order they were put in. */
static void print_members(const json_t *o, int indent)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)o, key, value) print_value(key, value, indent);
}

static void print_value(const char *key, const json_t *value, int indent)
{
	char *label = xstrdup(key);

	for (char *p = label; *p; p++)
		if (*p == '-')
			*p = ' ';
	printf("%*s%s:", indent, "", label);
	if (json_is_object(value)) {
		printf("\n");
		print_members(value, indent + 4);
	} else if (json_is_array(value)) {
		printf("\n");
		for (size_t i = 0; i < json_array_size(value); i++) {
			char number[32];

			snprintf(number, sizeof(number), "[%zu]", i);
			print_value(number, json_array_get(value, i), indent + 4);
		}
	} else if (json_is_string(value)) {
		printf(" %s\n", json_string_value(value));
	} else if (json_is_integer(value)) {
		printf(" %lld\n", (long long)json_integer_value(value));
	} else {
		printf(" %s\n", json_is_true(value) ? "true" : "false");
	}
	free(label);
}

static void print_specific(const json_t *specific)
{
	if (!specific)
		return;
	printf("Format specific information:\n");
	print_members(specific, 4);
}

void img_print_specific(const struct block_node *node)
{
	struct block_info info = {0};
	json_t *specific = NULL;

	if (node->drv == &block_qcow2)
		specific = qcow2_specific(node->opaque);
	else if (node->drv->info)
		node->drv->info((struct block_node *)node, &info);
	if (info.specific)
		specific = info.specific;
	print_specific(json_object_get(specific, "data"));
	json_decref(specific);
}

static void print_snapshots(const json_t *list)
{
	size_t i;
	json_t *o;

	json_array_foreach(list, i, o)
	{
		const json_t *icount = json_object_get(o, "icount");
		struct block_snapshot sn = {
			.id = (char *)text(o, "id"),
			.name = (char *)text(o, "name"),
			.vm_state_bytes = json_integer_value(json_object_get(o, "vm-state-size")),
			.date_sec = json_integer_value(json_object_get(o, "date-sec")),
			.vm_clock_ns =
				json_integer_value(json_object_get(o, "vm-clock-sec")) *
					NSEC_PER_SEC +
				json_integer_value(json_object_get(o, "vm-clock-nsec")),
			.icount = icount ? (uint64_t)json_integer_value(icount)
					 : BLOCK_SNAPSHOT_NO_ICOUNT,
		};

		img_print_snapshot(&sn, !i);
	}
}

static void print_human(const json_t *o)
{
	const json_t *specific = json_object_get(json_object_get(o, "format-specific"), "data");
	const json_t *cluster = json_object_get(o, "cluster-size");
	const json_t *actual = json_object_get(o, "actual-size");
	uint64_t size = json_integer_value(json_object_get(o, "virtual-size"));
	const char *backing = text(o, "backing-filename"), *full = text(o, "full-backing-filename");
	char buf[32];

	printf("image: %s\nfile format: %s\n", text(o, "filename"), text(o, "format"));
	printf("virtual size: %s (%llu bytes)\n", img_size(buf, size), (unsigned long long)size);
	if (actual)
		printf("disk size: %s\n", img_size(buf, json_integer_value(actual)));
	else
		printf("disk size: unavailable\n");
	if (json_is_true(json_object_get(o, "encrypted")))
		printf("encrypted: yes\n");
	if (cluster)
		printf("cluster_size: %lld\n", (long long)json_integer_value(cluster));
	if (json_is_true(json_object_get(o, "dirty-flag")))
		printf("cleanly shut down: no\n");
	if (*backing && strcmp(backing, full))
		printf("backing file: %s (actual path: %s)\n", backing, full);
	else if (*backing)
		printf("backing file: %s\n", backing);
	if (*text(o, "backing-filename-format"))
		printf("backing file format: %s\n", text(o, "backing-filename-format"));
	print_snapshots(json_object_get(o, "snapshots"));
	print_specific(specific);
}

static json_t *collect(struct img *img, const char *filename, const char *format, bool image_opts,
		       uint32_t flags, bool chain, struct error **err)
{
	struct block_node *node;
	json_t *list = json_array();

	/* Opening the whole chain first finds its loops and what is missing. */
	node = img_open(img, filename, format, image_opts, NULL,
			flags | (chain ? 0 : BLOCK_OPEN_NO_BACKING) | BLOCK_OPEN_CHECK |
				BLOCK_OPEN_NO_IO,
			err);
	if (!node) {
		json_decref(list);
		return NULL;
	}
	if (!strncmp(filename, "json:", 5))
		filename = block_filename(node);
	json_array_append_new(list, describe(node, filename));
	for (struct block_node *n = node->backing; chain && n; n = n->backing)
		json_array_append_new(list, describe(n, block_filename(n)));
	block_unref(node);
	return list;
}

int img_info(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {
		{"format", 1, 0, 'f'},	    {"output", 1, 0, 1},     {"backing-chain", 0, 0, 2},
		{"force-share", 0, 0, 'U'}, {"image-opts", 0, 0, 3}, {0}};
	enum img_output output = OUTPUT_HUMAN;
	bool chain = false, image_opts = false;
	const char *format = NULL;
	struct error *err = NULL;
	uint32_t flags = 0;
	json_t *list, *o;
	size_t i;
	int c;

	while ((c = getopt_long(argc, argv, "f:U", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			format = optarg;
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
			chain = true;
			break;
		case 3:
			image_opts = true;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1)
		return img_usage("Expecting one image file name");
	list = collect(img, argv[optind], format, image_opts, flags, chain, &err);
	if (!list)
		return img_fail(err);
	if (output == OUTPUT_JSON) {
		json_dumpf(chain ? list : json_array_get(list, 0), stdout, JSON_INDENT(4));
		printf("\n");
	} else {
		json_array_foreach(list, i, o)
		{
			if (i)
				printf("\n");
			print_human(o);
		}
	}
	json_decref(list);
	return 0;
}

static bool joins(const struct img_range *a, const struct img_range *b)
{
	return a->depth == b->depth && a->present == b->present && a->zero == b->zero &&
	       a->data == b->data && a->has_offset == b->has_offset &&
	       (!a->has_offset || a->offset + a->length == b->offset);
}

static void print_entry(const struct img_range *e, enum img_output output, bool first)
{
	if (output == OUTPUT_HUMAN) {
		if (e->data && !e->zero && e->has_offset)
			printf("%#-16llx%#-16llx%#-16llx%s\n", (unsigned long long)e->start,
			       (unsigned long long)e->length, (unsigned long long)e->offset,
			       e->filename);
		return;
	}
	printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, \"zero\": "
	       "%s, "
	       "\"data\": %s",
	       first ? "[" : ",\n", (unsigned long long)e->start, (unsigned long long)e->length,
	       e->depth, e->present ? "true" : "false", e->zero ? "true" : "false",
	       e->data ? "true" : "false");
	if (e->has_offset)
		printf(", \"offset\": %llu", (unsigned long long)e->offset);
	printf("}");
}

static int map(struct block_node *node, uint64_t at, uint64_t length, enum img_output output)
{
	uint64_t end = MIN(length, block_length(node) - MIN(at, block_length(node))) + at;
	struct img_range last = {0}, e;
	bool first = true;
	int ret = 0;

	if (output == OUTPUT_HUMAN)
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	while (at < end && !(ret = img_resolve(node, at, end - at, &e))) {
		at += e.length;
		if (last.length && joins(&last, &e)) {
			last.length += e.length;
			continue;
		}
		if (last.length) {
			print_entry(&last, output, first);
			first = false;
		}
		last = e;
	}
	if (last.length) {
		print_entry(&last, output, first);
		first = false;
	}
	if (output == OUTPUT_JSON)
		printf("%s]\n", first ? "[" : "");
	return ret;
}

int img_map(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {{"format", 1, 0, 'f'},
					      {"output", 1, 0, 1},
					      {"image-opts", 0, 0, 2},
					      {"force-share", 0, 0, 'U'},
					      {"start-offset", 1, 0, 's'},
					      {"max-length", 1, 0, 'l'},
					      {0}};
	enum img_output output = OUTPUT_HUMAN;
	uint64_t start = 0, length = INT64_MAX;
	const char *format = NULL;
	struct error *err = NULL;
	struct block_node *node;
	bool image_opts = false;
	uint32_t flags = 0;
	int c, ret;

	while ((c = getopt_long(argc, argv, "f:Us:l:", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			format = optarg;
			break;
		case 'U':
			flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 's':
			if (!parse_size(optarg, 1, &start))
				return img_usage("Invalid start offset specified");
			break;
		case 'l':
			if (!parse_size(optarg, 1, &length) || length > INT64_MAX)
				return img_usage("Invalid max length specified");
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
	node = img_open(img, argv[optind], format, image_opts, NULL, flags, &err);
	if (!node)
		return img_fail(err);
	ret = map(node, start, length, output);
	block_unref(node);
	if (ret)
		return img_usage("Could not read the image's map: %s", strerror(-ret));
	return 0;
}
