/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The top of a stack: -drive's short-hands, -blockdev, and the temporary overlay of snapshot=on.
 * Main thread. Opening waits for I/O and so has a loop of its own; the whole stack then moves.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/create.h"
#include "block/driver.h"
#include "block/filter/throttle.h"
#include "vmm/core/util.h"

static const char *const cache_names[] = {"none",	"off",	  "writeback", "writethrough",
					  "directsync", "unsafe", NULL};
static const uint32_t cache_flags[] = {
	BLOCK_OPEN_DIRECT,
	BLOCK_OPEN_DIRECT,
	0,
	BLOCK_OPEN_WRITETHROUGH,
	BLOCK_OPEN_DIRECT | BLOCK_OPEN_WRITETHROUGH,
	BLOCK_OPEN_NO_FLUSH,
};
static const char *const aio_names[] = {"threads", "native", "io_uring", NULL};

bool block_parse_cache(const char *name, uint32_t *flags)
{
	for (size_t i = 0; cache_names[i]; i++) {
		if (!strcmp(cache_names[i], name)) {
			*flags |= cache_flags[i];
			return true;
		}
	}
	return false;
}

/* What lies above a -drive's image. */
struct above {
	bool snapshot, copy_on_read;
	struct throttle_group *group;
};

static bool drive_options(struct block_open *how, struct opts *opts, struct above *above,
			  struct error **err)
{
	bool read_only = false, writeback = true;
	int cache = 2, aio = -1;

	how->flags = BLOCK_OPEN_AUTO_RO;
	if (!opts_get_bool(opts, "readonly", &read_only, err) ||
	    !opts_get_bool(opts, "read-only", &read_only, err) ||
	    !opts_get_bool(opts, "snapshot", &above->snapshot, err) ||
	    !opts_get_bool(opts, "copy-on-read", &above->copy_on_read, err) ||
	    !opts_get_enum(opts, "cache", cache_names, &cache, err) ||
	    !opts_get_bool(opts, "cache.writeback", &writeback, err) ||
	    !opts_get_enum(opts, "aio", aio_names, &aio, err))
		return false;
	if (!read_only)
		how->flags |= BLOCK_OPEN_RDWR;
	how->flags |= cache_flags[cache];
	if (!writeback)
		how->flags |= BLOCK_OPEN_WRITETHROUGH;
	how->aio = aio < 0 ? BLOCK_AIO_DEFAULT : aio + BLOCK_AIO_THREADS;
	return true;
}

static struct block_node *find_base(void *opaque, const char *name)
{
	return opaque;
}

struct block_node *block_overlay(const struct block_open *how, struct block_node *base,
				 struct error **err)
{
	const char *dir = getenv("TMPDIR");
	char *path = xasprintf("%s/vl.XXXXXX", dir && *dir ? dir : "/var/tmp");
	struct block_names names = {.find = find_base, .opaque = base};
	struct block_open top = *how;
	struct block_create create = {.size = base->length};
	struct opts opts = {0};
	struct block_node *node = NULL;
	int fd = mkstemp(path);

	if (fd < 0) {
		error_set_errno(err, errno, "Could not create the temporary image '%s'", path);
		goto out;
	}
	close(fd);
	if (block_create_qcow2(path, &create, err)) {
		opts_add(&opts, "driver", "qcow2");
		opts_add(&opts, "file.driver", "file");
		opts_add(&opts, "file.filename", path);
		opts_add(&opts, "backing", "base");
		top.flags = BLOCK_OPEN_RDWR | BLOCK_OPEN_BLOCKDEV | BLOCK_OPEN_UNMAP |
			    BLOCK_OPEN_NO_FLUSH | (how->flags & BLOCK_OPEN_DIRECT);
		top.names = &names;
		node = block_open_node(&top, &opts, err);
	}
	unlink(path);
out:
	/* The overlay has a reference of its own, or nobody has. */
	if (node)
		base->refs--;
	else
		block_abandon(base, how->home);
	opts_free(&opts);
	free(path);
	return node;
}

static struct block_node *copy_on_read(struct block_node *node, struct evloop *home,
				       struct error **err)
{
	node = block_filter_above(&block_copy_on_read, node);
	if (block_copy_on_read_init(node, err))
		return node;
	block_abandon(node, home);
	return NULL;
}

static struct block_node *open_top(struct block_open *how, struct opts *opts,
				   const struct above *above, struct evloop *loop,
				   struct error **err)
{
	/* What is left over is unknown, and is answered with the nearest of these. */
	static const char *const known[] = {
		"file",
		"format",
		"if",
		"media",
		"index",
		"bus",
		"unit",
		"id",
		"readonly",
		"snapshot",
		"cache",
		"aio",
		"discard",
		"detect-zeroes",
		"rerror",
		"werror",
		"copy-on-read",
		"serial",
		"cache.direct",
		"cache.no-flush",
		"cache.writeback",
		"driver",
		"node-name",
		"backing",
		"read-only",
		"auto-read-only",
		"force-share",
		"l2-cache-size",
		"refcount-cache-size",
		"cache-size",
		"cache-clean-interval",
		"lazy-refcounts",
		"bps",
		"bps_rd",
		"bps_wr",
		"bps_max",
		"iops",
		"iops_rd",
		"iops_wr",
		"iops_max",
		"iops_size",
		"group",
		"throttling.group",
		"throttling.bps-total",
		"throttling.iops-total",
		"key-secret",
		"encrypt.format",
		"encrypt.key-secret",
	};
	struct block_node *node;
	bool discard;

	how->home = loop;
	how->loop = evloop_new(NULL, err);
	if (!how->loop)
		return NULL;
	if (above->snapshot)
		how->flags &= ~BLOCK_OPEN_RDWR;
	node = block_open_node(how, opts, err);
	if (node && !opts_check_used(opts, known, ARRAY_SIZE(known), err)) {
		block_abandon(node, loop);
		node = NULL;
	}
	if (node && above->snapshot) {
		int zeroes = node->detect_zeroes;

		discard = !node->ignore_discard;
		node->detect_zeroes = 0;
		node = block_overlay(how, node, err);
		if (node) {
			node->ignore_discard = !discard;
			node->detect_zeroes = zeroes;
		}
	}
	if (node && above->copy_on_read)
		node = copy_on_read(node, loop, err);
	if (node && above->group)
		throttle_gate_open(node, above->group);
	if (node) {
		node->writeback = !(how->flags & BLOCK_OPEN_WRITETHROUGH);
		block_set_loop(node, loop);
	}
	evloop_free(how->loop);
	return node;
}

struct block_node *block_open_drive(struct evloop *loop, const char *id, struct opts *opts,
				    const struct block_names *names, struct error **err)
{
	struct throttle_groups *groups = names ? names->throttles : NULL;
	struct block_open how = {.names = names};
	struct above above = {0};
	struct block_node *node;

	if (!drive_options(&how, opts, &above, err) ||
	    (groups && !throttle_drive_options(groups, id, opts, &above.group, err)))
		return NULL;
	node = open_top(&how, opts, &above, loop, err);
	throttle_group_put(above.group);
	return node;
}

struct block_node *block_open(struct evloop *loop, struct opts *opts, struct error **err)
{
	return block_open_drive(loop, NULL, opts, NULL, err);
}

struct block_node *block_open_blockdev(struct evloop *loop, struct opts *opts,
				       const struct block_names *names, struct error **err)
{
	struct block_open how = {.flags = BLOCK_OPEN_RDWR | BLOCK_OPEN_BLOCKDEV, .names = names};
	struct above above = {0};

	if (!opts_has(opts, "driver")) {
		error_set(err, "Parameter 'driver' is missing");
		return NULL;
	}
	return open_top(&how, opts, &above, loop, err);
}
