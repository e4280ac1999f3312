/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a stack of nodes by options, as -drive and -blockdev write them.
 *
 * Keys of every node: node-name, driver (or -drive's format), read-only, auto-read-only, discard,
 * detect-zeroes, cache.direct, cache.no-flush, force-share, and what its driver reads. Children's
 * keys begin with "file." and "backing.". -drive's short-hands (file, format, cache, aio, readonly,
 * snapshot, copy-on-read) are for the top (drive.c). A key that nobody read is refused by name.
 *
 * Main thread, on a private loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "block/driver.h"
#include "block/nbd/uri.h"
#include "block/rbd/rbd.h"
#include "vmm/core/log.h"

static const struct block_driver *const drivers[] = {
	&block_file,	 &block_host_device, &block_host_cdrom,  &block_raw,   &block_qcow2, &block_null_co,
	&block_null_aio, &block_vdi,	      &block_vpc,   &block_vhdx,  &block_vmdk,
	&block_throttle, &block_copy_on_read, &block_qcow1, &block_qed,	  &block_parallels,
	&block_bochs,	 &block_cloop,	      &block_dmg,   &block_luks,  &block_blkdebug,
	&block_delay,	 &block_nbd,
#ifdef CONFIG_RBD
	&block_rbd,
#endif
};

static const char *const discard_names[] = {"ignore", "off", "unmap", "on", NULL};
static const char *const zeroes_names[] = {"off", "on", "unmap", NULL};

/* What children take over from their parent. */
enum {
	INHERITED = BLOCK_OPEN_RDWR | BLOCK_OPEN_AUTO_RO | BLOCK_OPEN_BACKING |
		    BLOCK_OPEN_FORCE_SHARE | BLOCK_OPEN_DIRECT | BLOCK_OPEN_NO_FLUSH |
		    BLOCK_OPEN_BLOCKDEV | BLOCK_OPEN_NO_WARN | BLOCK_OPEN_NO_IO,
};

const struct block_driver *block_find_driver(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
		if (!strcmp(drivers[i]->name, name))
			return drivers[i];
	return NULL;
}

const struct block_driver *block_driver_at(size_t i)
{
	return i < ARRAY_SIZE(drivers) ? drivers[i] : NULL;
}

static const struct block_driver *need_driver(const char *name, struct error **err)
{
	const struct block_driver *drv = block_find_driver(name);
	const char *names[ARRAY_SIZE(drivers)], *nearest;

	if (drv)
		return drv;
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
		names[i] = drivers[i]->name;
	nearest = nearest_name(name, names, ARRAY_SIZE(drivers));
	error_set(err, "Unknown driver '%s'%s%s%s", name, nearest ? " (did you mean '" : "",
		  nearest ? nearest : "", nearest ? "'?)" : "");
	return NULL;
}

static bool flag_option(struct opts *opts, const char *key, uint32_t *flags, uint32_t bit,
			struct error **err)
{
	bool on = *flags & bit;

	if (!opts_get_bool(opts, key, &on, err))
		return false;
	*flags = on ? *flags | bit : *flags & ~bit;
	return true;
}

/* The keys of every node. node gets what concerns it alone. */
static bool common_options(struct block_open *how, struct opts *opts, struct block_node *node,
			   struct error **err)
{
	bool read_only = !(how->flags & BLOCK_OPEN_RDWR);
	int discard = how->flags & BLOCK_OPEN_UNMAP ? 2 : 0;
	const char *name = opts_get(opts, "node-name");

	if (name && !*name) {
		error_set(err, "Invalid node-name: ''");
		return false;
	}
	if (name)
		node->name = xstrdup(name);
	if (!opts_get_bool(opts, "read-only", &read_only, err) ||
	    !flag_option(opts, "auto-read-only", &how->flags, BLOCK_OPEN_AUTO_RO, err) ||
	    !flag_option(opts, "cache.direct", &how->flags, BLOCK_OPEN_DIRECT, err) ||
	    !flag_option(opts, "cache.no-flush", &how->flags, BLOCK_OPEN_NO_FLUSH, err) ||
	    !flag_option(opts, "force-share", &how->flags, BLOCK_OPEN_FORCE_SHARE, err) ||
	    !opts_get_enum(opts, "discard", discard_names, &discard, err) ||
	    !opts_get_enum(opts, "detect-zeroes", zeroes_names, &node->detect_zeroes, err))
		return false;
	if ((how->flags & BLOCK_OPEN_BACKING) && !read_only) {
		error_set(err, "A backing file is read-only");
		return false;
	}
	how->flags = read_only ? how->flags & ~BLOCK_OPEN_RDWR : how->flags | BLOCK_OPEN_RDWR;
	node->ignore_discard = discard < 2;
	node->no_flush = how->flags & BLOCK_OPEN_NO_FLUSH;
	if (node->detect_zeroes == 2 && node->ignore_discard) {
		error_set(err,
			  "setting detect-zeroes to unmap is not allowed without setting discard "
			  "operation to unmap");
		return false;
	}
	if ((how->flags & BLOCK_OPEN_FORCE_SHARE) && !read_only) {
		error_set(err, "force-share=on can only be used with read-only images");
		return false;
	}
	return true;
}

/* "nbd:..." has one, "/a:b", "./a:b" and "a/b:c" have none. */
static size_t protocol_length(const char *name)
{
	size_t n = strcspn(name, ":/");

	return name[n] == ':' ? n : 0;
}

/* CONFIG:IMAGE; CONFIG may be empty. */
static bool blkdebug_options(const char *text, struct opts *opts, struct error **err)
{
	size_t n = strcspn(text, ":");
	char *config;

	if (!text[n]) {
		error_set(err, "blkdebug requires both config file and image path");
		return false;
	}
	config = xstrndup(text, n);
	opts_add(opts, "driver", "blkdebug");
	if (n)
		opts_add(opts, "config", config);
	opts_add(opts, "image.filename", text + n + 1);
	free(config);
	return true;
}

/* Turns a file name as users and images write it into options of the protocol's driver. */
static bool filename_options(const char *name, struct opts *opts, struct error **err)
{
	size_t n = protocol_length(name);
	struct stat st;

	if (n == 4 && !strncmp(name, "json", 4)) {
		struct opts json;

		if (name[5] != '{') {
			error_set(err, "Could not parse the JSON options");
			return false;
		}
		if (!opts_parse(&json, name + 5, NULL, err))
			return false;
		for (size_t i = 0; i < json.count; i++)
			opts_add(opts, json.items[i].key, json.items[i].value);
		opts_free(&json);
		return true;
	}
	if (n == 8 && !strncmp(name, "blkdebug", 8))
		return blkdebug_options(name + 9, opts, err);
	if (nbd_is_filename(name))
		return nbd_parse_filename(name, opts, err);
	if (n == 3 && !strncmp(name, "rbd", 3) && block_find_driver("rbd"))
		return rbd_parse_filename(name + 4, opts, err);
	if (n == 4 && !strncmp(name, "file", 4)) {
		name += 5;
	} else if (n) {
		error_set(err, "Unknown protocol '%.*s'", (int)n, name);
		return false;
	}
	if (!opts_has(opts, "driver"))
		opts_add(opts, "driver",
			 stat(name, &st) || !S_ISBLK(st.st_mode) ? "file"
			 : block_is_host_cdrom(name)		 ? "host_cdrom"
								 : "host_device");
	opts_add(opts, "filename", name);
	return true;
}

static struct block_node *take_named(const struct block_open *how, const char *name,
				     const char *key, struct error **err)
{
	const struct block_names *names = how->names;
	struct block_node *node = names && names->find ? names->find(names->opaque, name) : NULL;

	if (!node) {
		error_set(err, "Cannot find device='' nor node-name='%s'", name);
		return NULL;
	}
	if (node->owned) {
		error_set(err, "Node '%s' is already in use; it cannot be the '%s' of another",
			  name, key);
		return NULL;
	}
	block_ref(node);
	node->owned = true;
	block_set_loop(node, how->loop);
	return node;
}

/* Opens sub, whose keys must all be known then. */
static struct block_node *open_nested(const struct block_open *how, struct opts *sub,
				      struct error **err)
{
	struct block_node *node = block_open_node(how, sub, err);

	if (node && !opts_check_used(sub, NULL, 0, err)) {
		block_abandon(node, how->home);
		node = NULL;
	}
	if (node)
		node->owned = true;
	return node;
}

/* A format's child "file" (or as key says): nested file.*, a node's name, or (in -drive) a file
 * name. */
static struct block_node *open_file_child(const struct block_open *how, const char *key,
					  struct opts *opts, bool grows, struct error **err)
{
	struct block_open child = *how;
	struct block_node *node = NULL;
	const char *file = opts_get(opts, key);
	char *prefix = xasprintf("%s.", key);
	struct opts sub;

	child.flags = (how->flags & INHERITED) | BLOCK_OPEN_UNMAP;
	if (grows)
		child.flags |= BLOCK_OPEN_RESIZE;
	child.depth++;
	opts_sub(opts, prefix, &sub);
	free(prefix);
	if (file && (how->flags & BLOCK_OPEN_BLOCKDEV)) {
		if (sub.count)
			error_set(err, "'%s' is both a node's name and an object", key);
		else
			node = take_named(&child, file, key, err);
	} else if (!file && !sub.count) {
		error_set(err, "A block device must be specified for \"%s\"", key);
	} else {
		/* Inside nested options a "file" is a node's name, except that there is none to
		 * find. */
		if ((file && filename_options(file, &sub, err)) ||
		    (!file && (opts_has(&sub, "driver") || !opts_has(&sub, "filename") ||
			       filename_options(opts_peek(&sub, "filename"), &sub, err)))) {
			child.flags |= BLOCK_OPEN_BLOCKDEV;
			node = open_nested(&child, &sub, err);
		}
	}
	opts_free(&sub);
	for (struct block_node *n = node; n && grows; n = n->drv->filter ? n->file : NULL)
		n->growable = true;
	return node;
}

bool block_open_extent(struct block_node *node, const struct block_open *how, const char *driver,
		       const char *filename, struct error **err)
{
	struct block_open child = *how;
	bool file = !strcmp(driver, "file");
	struct block_node *extent, **grown;
	struct opts opts = {0};

	child.flags = (how->flags & INHERITED) | BLOCK_OPEN_UNMAP | BLOCK_OPEN_BLOCKDEV;
	if (node->read_only)
		child.flags &= ~(BLOCK_OPEN_RDWR | BLOCK_OPEN_AUTO_RO);
	child.depth++;
	opts_add(&opts, "driver", driver);
	if (!file)
		opts_add(&opts, "file.driver", "file");
	opts_add(&opts, file ? "filename" : "file.filename", filename);
	extent = open_nested(&child, &opts, err);
	opts_free(&opts);
	if (!extent)
		return false;
	grown = realloc(node->extents, (node->extent_count + 1) * sizeof(*grown));
	if (!grown) {
		block_abandon(extent, how->home);
		error_set_errno(err, ENOMEM, "Could not open '%s'", filename);
		return false;
	}
	node->extents = grown;
	node->extents[node->extent_count++] = extent;
	return true;
}

static const struct block_driver *guess_format(struct block_node *file, struct error **err)
{
	uint8_t buf[BLOCK_PROBE_SIZE];
	size_t len = MIN((uint64_t)sizeof(buf), file->length);
	const struct block_driver *drv;
	const char *unsupported;
	int ret = block_pread(file, 0, buf, len);

	if (ret < 0) {
		error_set_errno(err, ret, "Could not read '%s' for determining its format",
				file->filename);
		return NULL;
	}
	drv = block_probe(buf, len, &unsupported);
	/* An Apple disk image has nothing at its beginning: the name tells, as for QEMU. */
	len = strlen(file->filename);
	if (drv == &block_raw && !unsupported && len > 4 &&
	    !strcmp(file->filename + len - 4, ".dmg"))
		return &block_dmg;
	if (unsupported) {
		error_set(err, "Image '%s' is of format '%s', which is not supported",
			  file->filename, unsupported);
		return NULL;
	}
	return drv;
}

/* file becomes the child of a node of format drv (NULL: guess it). Consumes file and node. */
static struct block_node *open_format(const struct block_open *how, struct block_node *node,
				      const struct block_driver *drv, struct opts *opts,
				      struct error **err)
{
	struct block_open mine = *how;
	bool grows = drv && drv->filter ? how->flags & BLOCK_OPEN_RESIZE : drv != &block_raw;
	struct block_node *file = open_file_child(how, drv && drv->child ? drv->child : "file", opts,
						  grows, err);

	if (!file)
		goto fail;
	node->file = file;
	if (!drv) {
		drv = guess_format(file, err);
		if (!drv)
			goto fail;
		mine.flags |= BLOCK_OPEN_PROBED;
		node->probed = drv == &block_raw;
	}
	node->drv = drv;
	node->opaque = drv->node_size ? xcalloc(1, drv->node_size) : NULL;
	node->filename = xstrdup(file->filename ? file->filename : "");
	node->read_only = !(how->flags & BLOCK_OPEN_RDWR) || file->read_only;
	if (node->read_only && (how->flags & BLOCK_OPEN_RDWR) &&
	    !(how->flags & BLOCK_OPEN_AUTO_RO)) {
		error_set(err, "Block node '%s' is read-only", block_name(file));
		goto fail;
	}
	if (drv == &block_raw)
		file->growable = false;
	if (node->probed && !node->read_only && !(how->flags & BLOCK_OPEN_NO_WARN))
		log_warn("Image format was not specified for '%s' and probing guessed raw. "
			 "Automatically detecting the format is dangerous for raw images, write "
			 "operations on block 0 will be restricted. Specify the 'raw' format "
			 "explicitly to remove the restrictions.",
			 node->filename);
	block_init_req_bytes(node);
	if (!drv->open(node, &mine, opts, err))
		goto fail;
	block_init_req_bytes(node);
	return node;
fail:
	block_abandon(node, how->home);
	return NULL;
}

/* A node before its driver is known; it can be abandoned. */
static const struct block_driver unknown = {.name = ""};

/* A name that is json:{...} stands for the node's own keys. False: it is wrong; *is: it is one. */
static bool expand_json_name(struct opts *opts, bool *is, struct error **err)
{
	const char *file = opts_peek(opts, "file"), *format = opts_peek(opts, "format"), *driver;
	struct opts json;
	size_t n = 0;

	*is = file && !strncmp(file, "json:", 5);
	if (!*is)
		return true;
	if (file[5] != '{') {
		error_set(err, "Could not parse the JSON options");
		return false;
	}
	if (!opts_parse(&json, file + 5, NULL, err))
		return false;
	driver = opts_peek(&json, "driver");
	if (format && driver && strcmp(format, driver)) {
		error_set(err, "Driver specified twice");
		opts_free(&json);
		return false;
	}
	if (format && !driver)
		opts_add(&json, "driver", format);
	/* What was given beside the name stays. */
	for (size_t i = 0; i < opts->count; i++) {
		struct opt *o = &opts->items[i];

		if (strcmp(o->key, "file") && strcmp(o->key, "format")) {
			opts->items[n++] = *o;
			continue;
		}
		free(o->key);
		free(o->value);
	}
	opts->count = n;
	for (size_t i = 0; i < json.count; i++)
		opts_add(opts, json.items[i].key, json.items[i].value);
	opts_free(&json);
	return true;
}

struct block_node *block_open_node(const struct block_open *how, struct opts *opts,
				   struct error **err)
{
	struct block_open mine = *how;
	bool blockdev = how->flags & BLOCK_OPEN_BLOCKDEV, json = false;
	const struct block_driver *drv = NULL;
	const char *driver, *file;
	struct block_node *node;

	if (!blockdev && !expand_json_name(opts, &json, err))
		return NULL;
	blockdev |= json;
	mine.flags |= json ? BLOCK_OPEN_BLOCKDEV : 0;
	driver = opts_get(opts, "driver");

	if (how->depth > BLOCK_CHAIN_MAX) {
		error_set(err, "More than %d images lie upon one another", BLOCK_CHAIN_MAX);
		return NULL;
	}
	if (!blockdev && opts_has(opts, "format"))
		driver = opts_get(opts, "format");
	if (driver && !(drv = need_driver(driver, err)))
		return NULL;
	node = block_node_new(&unknown, how->loop);
	if (!common_options(&mine, opts, node, err)) {
		block_node_free(node);
		return NULL;
	}
	if (!drv || !drv->protocol)
		return open_format(&mine, node, drv, opts, err);

	node->drv = drv;
	node->opaque = drv->node_size ? xcalloc(1, drv->node_size) : NULL;
	file = blockdev ? NULL : opts_get(opts, "file");
	if (file && !opts_has(opts, "filename"))
		opts_add(opts, "filename", file);
	node->read_only = !(mine.flags & BLOCK_OPEN_RDWR);
	if (!drv->open(node, &mine, opts, err)) {
		block_abandon(node, how->home);
		return NULL;
	}
	block_init_req_bytes(node);
	return node;
}

char *block_backing_path(const char *image, const char *backing)
{
	const char *slash = strrchr(image, '/');

	if (backing[0] == '/' || protocol_length(backing) || !slash)
		return xstrdup(backing);
	return xasprintf("%.*s%s", (int)(slash - image + 1), image, backing);
}

/* The header's name: sub gets what is needed to open it. */
static bool backing_from_header(struct block_node *node, struct opts *sub, struct error **err)
{
	char *path = block_backing_path(node->filename, node->backing_name);
	struct opts file = {0};
	bool ok = filename_options(path, &file, err), format = false;

	/* json: may describe the format as well; a plain name is the file below it. */
	if (ok && !strncmp(path, "json:", 5)) {
		const char *name = opts_peek(&file, "driver");
		const struct block_driver *drv = name ? block_find_driver(name) : NULL;

		format = drv && !drv->protocol;
	}
	for (size_t i = 0; ok && i < file.count; i++) {
		char *key = xasprintf("%s%s", format ? "" : "file.", file.items[i].key);

		opts_add(sub, key, file.items[i].value);
		free(key);
	}
	if (ok && !format && node->backing_format && !opts_has(sub, "driver"))
		opts_add(sub, "driver", node->backing_format);
	opts_free(&file);
	free(path);
	return ok;
}

bool block_open_backing(struct block_node *node, const struct block_open *how, struct opts *opts,
			struct error **err)
{
	struct block_open below = *how;
	struct block_chain here = {.up = how->up};
	const char *name = opts_get(opts, "backing");
	struct opts sub;
	bool ok = true;

	opts_sub(opts, "backing.", &sub);
	if ((how->flags & BLOCK_OPEN_NO_BACKING) || (name && !*name) ||
	    (!name && !sub.count && !node->backing_name))
		goto out;
	below.flags = (how->flags & INHERITED & ~(BLOCK_OPEN_RDWR | BLOCK_OPEN_AUTO_RO)) |
		      BLOCK_OPEN_BACKING | BLOCK_OPEN_BLOCKDEV;
	below.depth++;
	if (block_file_identity(node, &here.dev, &here.ino))
		below.up = &here;
	if (name) {
		ok = false;
		if (sub.count)
			error_set(err, "'backing' is both a node's name and an object");
		else
			ok = (node->backing = take_named(&below, name, "backing", err)) != NULL;
		goto out;
	}
	if (!opts_has(&sub, "file") && !opts_has(&sub, "file.filename") &&
	    !opts_has(&sub, "file.driver") && !opts_has(&sub, "filename") && node->backing_name)
		ok = backing_from_header(node, &sub, err);
	if (ok) {
		node->backing = open_nested(&below, &sub, err);
		ok = node->backing != NULL;
	}
	if (!ok)
		error_prefix(err, "Could not open backing file: ");
out:
	opts_free(&sub);
	if (ok && node->backing)
		block_init_req_bytes(node);
	return ok;
}

bool block_open_data_file(struct block_node *node, const struct block_open *how, struct opts *opts,
			  const char *name, struct error **err)
{
	struct block_open child = *how;
	const char *given = opts_get(opts, "data-file");
	struct opts sub;

	child.flags = (how->flags & INHERITED) | BLOCK_OPEN_UNMAP | BLOCK_OPEN_BLOCKDEV |
		      BLOCK_OPEN_RESIZE;
	child.depth++;
	opts_sub(opts, "data-file.", &sub);
	if (given && sub.count) {
		error_set(err, "'data-file' is both a node's name and an object");
	} else if (given) {
		node->data = take_named(&child, given, "data-file", err);
	} else if (!sub.count && !name) {
		error_set(err, "'data-file' is required for this image");
	} else if (!sub.count && protocol_length(name) && strncmp(name, "file:", 5)) {
		/* The image's word, which may name a file, but not describe anything else. */
		error_set(err,
			  "The image names '%.60s' as its data file, which is not a file's name",
			  name);
	} else if (sub.count || filename_options(name, &sub, err)) {
		if (!opts_has(&sub, "driver"))
			opts_add(&sub, "driver", "file");
		node->data = open_nested(&child, &sub, err);
	}
	opts_free(&sub);
	if (!node->data)
		return false;
	node->data->growable = true;
	block_init_req_bytes(node);
	return true;
}

struct block_node *block_open_tool(struct evloop *loop, struct opts *opts, uint32_t flags,
				   const struct block_names *names, struct error **err)
{
	struct block_open how = {.flags = flags, .names = names, .loop = loop, .home = loop};
	struct block_node *node = block_open_node(&how, opts, err);

	if (node && !opts_check_used(opts, NULL, 0, err)) {
		block_abandon(node, loop);
		node = NULL;
	}
	if (node)
		node->writeback = !(flags & BLOCK_OPEN_WRITETHROUGH);
	return node;
}

struct block_node *block_open_file(struct evloop *loop, const char *filename, const char *format,
				   uint32_t flags, const struct block_names *names,
				   struct error **err)
{
	struct opts opts = {0};
	struct block_node *node;

	opts_add(&opts, "file", filename);
	if (format)
		opts_add(&opts, "format", format);
	node = block_open_tool(loop, &opts, flags, names, err);
	opts_free(&opts);
	return node;
}
