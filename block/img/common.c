/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vmm-img's subcommands share: opening, sizes, creation options.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/img/img.h"
#include "block/nbd/uri.h"

int img_fail(struct error *err)
{
	fprintf(stderr, "vmm-img: %s\n", error_message(err));
	error_free(err);
	return 1;
}

int img_usage(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "vmm-img: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	return 1;
}

struct block_node *img_open(struct img *img, const char *name, const char *format, bool image_opts,
			    const char *cache, uint32_t flags, struct error **err)
{
	return img_open_key(img, name, format, image_opts, cache, flags, NULL, NULL, err);
}

struct block_node *img_open_key(struct img *img, const char *name, const char *format,
				bool image_opts, const char *cache, uint32_t flags,
				const char *key_option, const char *key_secret, struct error **err)
{
	struct opts opts = {0};
	struct block_node *node;

	if (cache && !block_parse_cache(cache, &flags)) {
		error_set(err, "Invalid %scache option: %s",
			  flags & BLOCK_OPEN_RDWR ? "" : "source ", cache);
		return NULL;
	}
	if (image_opts) {
		if (!opts_parse(&opts, name, NULL, err))
			return NULL;
		flags |= BLOCK_OPEN_BLOCKDEV;
	} else {
		opts_add(&opts, "file", name);
		if (format)
			opts_add(&opts, "format", format);
	}
	if (key_secret)
		opts_add(&opts, key_option, key_secret);
	node = block_open_tool(img->loop, &opts, flags, &img->names, err);
	if (!node)
		error_prefix(err, "Could not open '%s': ", name);
	opts_free(&opts);
	return node;
}

const char *img_size(char *buf, uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	int exponent, unit;

	/* Three digits: from 1000 on it is the next unit's turn. */
	frexp(bytes / (1000.0 / 1024.0), &exponent);
	unit = MAX(exponent - 1, 0) / 10;
	snprintf(buf, 32, "%0.3g %s", bytes / (double)(UINT64_C(1) << (unit * 10)), units[unit]);
	return buf;
}

bool img_parse_prealloc(const char *s, enum block_prealloc *mode, struct error **err)
{
	static const char *const names[] = {"off", "metadata", "falloc", "full"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		*mode = i;
		if (!strcmp(names[i], s))
			return true;
	}
	error_set(err, "Invalid preallocation mode '%s'", s);
	return false;
}

bool img_parse_output(const char *s, enum img_output *out)
{
	if (!strcmp(s, "human"))
		*out = OUTPUT_HUMAN;
	else if (!strcmp(s, "json"))
		*out = OUTPUT_JSON;
	else
		return false;
	return true;
}

/* Marks what block_create_qcow2() reads. */
static bool encrypt_options(struct opts *opts, struct block_create *c, struct error **err)
{
	static const char *const names[] = {"key-secret",     "cipher-alg", "cipher-mode", "ivgen-alg",
					    "ivgen-hash-alg", "hash-alg",   "iter-time"};
	const char *format = opts_get(opts, "encrypt.format");
	bool aes = false, any = false, ok = false;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char *key = xasprintf("encrypt.%s", names[i]);

		any |= opts_get(opts, key) != NULL;
		free(key);
	}
	if (!opts_get_bool(opts, "encryption", &aes, err))
		return false;
	if (aes || (format && !strcmp(format, "aes")))
		error_set(err, "New images with AES encryption are not made, since it protects "
			       "little; use encrypt.format=luks");
	else if (any && !format)
		error_set(err, "Parameter 'encrypt.format' is missing");
	else if (format && strcmp(format, "luks"))
		error_set(err, "Parameter 'encrypt.format' does not accept value '%s'", format);
	else
		ok = true;
	c->luks = ok && format;
	return ok;
}

static bool qcow2_options(struct opts *opts, struct block_create *c, struct error **err)
{
	static const char *const compat[] = {"0.10", "v2", "1.1", "v3", NULL};
	static const char *const compression[] = {"zlib", "zstd", NULL};
	uint64_t cluster = 65536, bits = 16;
	int version = 2, type = 0;

	if (!opts_get_enum(opts, "compat", compat, &version, err) ||
	    !opts_get_enum(opts, "compression_type", compression, &type, err) ||
	    !opts_get_size(opts, "cluster_size", 1, &cluster, err) ||
	    !opts_get_u64(opts, "refcount_bits", &bits, err) ||
	    !opts_get_bool(opts, "extended_l2", &c->extended_l2, err) ||
	    !opts_get_bool(opts, "data_file_raw", &c->raw_data, err) ||
	    !opts_get_bool(opts, "lazy_refcounts", &c->lazy_refcounts, err) ||
	    !encrypt_options(opts, c, err))
		return false;
	if (!is_pow2(cluster) || cluster < 512 || cluster > 2 * MiB) {
		error_set(err, "Cluster size must be a power of two between 512 and 2048k");
		return false;
	}
	if (!is_pow2(bits) || bits > 64) {
		error_set(err, "Refcount width must be a power of two and may not exceed 64 bits");
		return false;
	}
	c->v2 = version < 2;
	c->zstd = type == 1;
	c->cluster_bits = __builtin_ctzll(cluster);
	c->refcount_bits = bits;
	/* The strings live as long as opts. */
	if (opts_has(opts, "data_file"))
		c->data_file = opts_get(opts, "data_file");
	if (opts_has(opts, "backing_file"))
		c->backing = opts_get(opts, "backing_file");
	if (opts_has(opts, "backing_fmt"))
		c->backing_format = opts_get(opts, "backing_fmt");
	return true;
}

/* Of a format whose create() reads them; here only their names are checked. */
static bool own_options(const struct block_driver *drv, struct block_create *c, struct opts *opts,
			struct error **err)
{
	for (size_t i = 0; i < opts->count; i++) {
		const struct block_create_option *o = drv->create_options;

		while (o->name && strcmp(o->name, opts->items[i].key))
			o++;
		if (!o->name || o->amend_only) {
			error_set(err, "Invalid parameter '%s'", opts->items[i].key);
			goto fail;
		}
	}
	if (opts_has(opts, "backing_file"))
		c->backing = opts_get(opts, "backing_file");
	if (opts_has(opts, "backing_fmt"))
		c->backing_format = opts_get(opts, "backing_fmt");
	if (opts_get_size(opts, "size", 1, &c->size, err))
		return true;
fail:
	opts_free(opts);
	return false;
}

bool img_takes_backing(const char *format)
{
	const struct block_driver *drv = block_find_driver(format);

	for (const struct block_create_option *o = drv ? drv->create_options : NULL; o && o->name;
	     o++)
		if (!strcmp(o->name, "backing_file"))
			return true;
	return false;
}

bool img_create_options(const char *format, const char *text, struct block_create *c,
			struct opts *opts, struct error **err)
{
	static const char *const prealloc[] = {"off", "metadata", "falloc", "full", NULL};
	const struct block_driver *drv = block_find_driver(format);
	bool qcow2 = !strcmp(format, "qcow2");
	int mode = 0;

	*opts = (struct opts){0};
	c->opts = opts;
	if (!drv || !drv->create) {
		error_set(err,
			  drv ? "Format driver '%s' does not support image creation"
			      : "Unknown file format '%s'",
			  format);
		return false;
	}
	if (text && !opts_parse(opts, text, NULL, err))
		return false;
	if (!qcow2 && strcmp(format, "raw"))
		return own_options(drv, c, opts, err);
	if (!opts_get_size(opts, "size", 1, &c->size, err) ||
	    !opts_get_enum(opts, "preallocation", prealloc, &mode, err) ||
	    (qcow2 && !qcow2_options(opts, c, err)))
		goto fail;
	if (!qcow2 && mode == PREALLOC_METADATA) {
		error_set(err, "Unsupported preallocation mode 'metadata'");
		goto fail;
	}
	c->prealloc = mode;
	if (opts_check_used(opts, NULL, 0, err))
		return true;
fail:
	opts_free(opts);
	return false;
}

/* A server's export cannot be made, only used: large enough, it is a raw image as it is. */
static bool use_export(const char *filename, const char *format, uint64_t size, struct error **err)
{
	struct evloop *loop;
	struct block_node *node;
	uint64_t length;

	if (strcmp(format, "raw")) {
		error_set(err,
			  "An image of format '%s' cannot be made on an NBD server; -n uses one "
			  "that is there",
			  format);
		return false;
	}
	loop = evloop_new(NULL, err);
	if (!loop)
		return false;
	node = block_open_file(loop, filename, format, BLOCK_OPEN_RDWR, NULL, err);
	length = node ? node->length : 0;
	block_unref(node);
	evloop_free(loop);
	if (node && length < size)
		error_set(err, "The export has %llu bytes, the image %llu",
			  (unsigned long long)length, (unsigned long long)size);
	return node && length >= size;
}

bool img_create_file(const char *filename, const char *format, const struct block_create *c,
		     struct error **err)
{
	bool ok = nbd_is_filename(filename) ? use_export(filename, format, c->size, err)
					    : block_find_driver(format)->create(filename, c, err);

	if (!ok)
		error_prefix(err, "%s: ", filename);
	return ok;
}

int img_resolve(struct block_node *top, uint64_t start, uint64_t bytes, struct img_range *e)
{
	struct block_node *node = top;
	struct block_extent x = {0};
	unsigned depth = 0;

	*e = (struct img_range){.start = start};
	for (;;) {
		int ret = block_status(node, start, bytes, &x);

		if (ret)
			return ret;
		bytes = MIN(bytes, x.bytes);
		if (x.allocated || !node->backing)
			break;
		if (start >= node->backing->length) {
			break; /* nothing is below: zero */
		}
		bytes = MIN(bytes, node->backing->length - start);
		node = node->backing;
		depth++;
	}
	e->length = bytes;
	e->depth = depth;
	e->present = x.allocated;
	e->zero = x.zero || !x.allocated;
	e->data = x.data;
	e->has_offset = x.has_offset;
	e->offset = x.offset;
	e->filename = block_filename(node->data ? node->data : node);
	e->node = node;
	return 0;
}
