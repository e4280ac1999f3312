/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio block device: properties, features, configuration space, life. virtio 1.2, sections 5.2.3
 * to 5.2.5; the data path is virtio_blk_io.c.
 *
 * Thread: realize and its undoing main; configuration vCPUs under vdev.lock; what touches the node
 * the device's loop. Owner: the device that embeds struct virtio_blk.
 */
#include "hw/virtio/virtio_blk.h"

#include <stdlib.h>

#include "vmm/core/util.h"

/* What a request may have when the ring's size does not decide. */
enum { DEFAULT_SEG_MAX = 126 };
/* 2 GiB less a block: what the widest signed 32-bit byte count holds. */
#define MAX_RANGE_SECTORS "4194303"

static const char *const read_error_names[] = {"auto", "report", "ignore", "stop", NULL};
static const char *const write_error_names[] = {"auto", "report", "ignore", "stop", "enospc", NULL};

#define BLK_PROP(name_, type_, member, def_, help_)                                                \
	{                                                                                          \
		.name = name_, .type = type_, .offset = offsetof(struct virtio_blk, member),       \
		.def = def_, .help = help_                                                         \
	}

const struct prop virtio_blk_props[] = {
	BLK_PROP("drive", PROP_DRIVE, drive, NULL, "the disk"),
	BLK_PROP("iothread", PROP_IOTHREAD, iothread, NULL,
		 "the thread that serves it; none: the main loop"),
	BLK_PROP("serial", PROP_STRING, serial, NULL, "name the guest reads, 20 bytes count"),
	BLK_PROP("bootindex", PROP_I32, bootindex, "-1", "place in the boot order; negative: none"),
	{.name = "num-queues",
	 .type = PROP_U16,
	 .offset = offsetof(struct virtio_blk, num_queues),
	 .def = "0",
	 .help = "request queues; 0: one a vCPU",
	 .max = VIRTIO_MAX_QUEUES - 1},
	{.name = "queue-size",
	 .type = PROP_U16,
	 .offset = offsetof(struct virtio_blk, queue_size),
	 .def = "256",
	 .help = "entries of a queue, a power of two",
	 .min = 4,
	 .max = VQ_MAX_SIZE},
	BLK_PROP("seg-max-adjust", PROP_BOOL, seg_max_adjust, "on",
		 "a request may have as many pieces as the queue has room for"),
	BLK_PROP("request-merging", PROP_BOOL, request_merging, "on",
		 "join requests that follow one another on the disk"),
	BLK_PROP("config-wce", PROP_BOOL, config_wce, "on", "the guest may switch the write cache"),
	BLK_PROP("write-cache", PROP_TRISTATE, write_cache, "auto",
		 "off: a write is durable when it is done; auto: as the drive says"),
	BLK_PROP("discard", PROP_BOOL, discard, "on", "offer discard"),
	BLK_PROP("write-zeroes", PROP_BOOL, write_zeroes, "on", "offer write zeroes"),
	BLK_PROP("max-discard-sectors", PROP_U32, max_discard_sectors, MAX_RANGE_SECTORS,
		 "of 512 bytes, in one request"),
	BLK_PROP("max-write-zeroes-sectors", PROP_U32, max_write_zeroes_sectors, MAX_RANGE_SECTORS,
		 "of 512 bytes, in one request"),
	BLK_PROP("logical_block_size", PROP_U32, logical_block_size, "512",
		 "bytes, a power of two: the unit of reading and writing"),
	BLK_PROP("physical_block_size", PROP_U32, physical_block_size, "0",
		 "bytes, a power of two: the unit of writing fast; 0: the host's"),
	BLK_PROP("min_io_size", PROP_U16, min_io_size, "0", "bytes; a hint"),
	BLK_PROP("opt_io_size", PROP_U32, opt_io_size, "0", "bytes; a hint"),
	BLK_PROP("discard_granularity", PROP_U32, discard_granularity, "4294967295",
		 "bytes; 4294967295: the image's"),
	{.name = "rerror",
	 .type = PROP_ENUM,
	 .offset = offsetof(struct virtio_blk, rerror),
	 .def = "auto",
	 .help = "when the host fails a read; auto: as the drive says",
	 .names = read_error_names},
	{.name = "werror",
	 .type = PROP_ENUM,
	 .offset = offsetof(struct virtio_blk, werror),
	 .def = "auto",
	 .help = "when the host fails a write; auto: as the drive says",
	 .names = write_error_names},
	{.type = PROP_END},
};

static struct virtio_blk *blk_of(struct virtio_device *vdev)
{
	return container_of(vdev, struct virtio_blk, vdev);
}

/* ---- the write cache ---- */

/* Loop. */
static void apply_writeback(void *opaque)
{
	struct virtio_blk *blk = opaque;
	bool writeback;

	pthread_mutex_lock(&blk->vdev.lock);
	writeback = blk->writeback;
	pthread_mutex_unlock(&blk->vdev.lock);
	block_set_writeback(blk->node, writeback);
}

/* Lock held. Takes effect on the loop, before chains that were added later. */
static void set_writeback(struct virtio_blk *blk, bool writeback)
{
	if (blk->writeback == writeback || blk->vdev.closed)
		return;
	blk->writeback = writeback;
	evloop_post(blk->vdev.loop, &blk->writeback_work);
}

/* A driver that knows nothing of flushes must not need them (5.2.6.2). */
static void negotiated(struct virtio_device *vdev)
{
	if (!virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE))
		set_writeback(blk_of(vdev), virtio_has_feature(vdev, VIRTIO_BLK_F_FLUSH));
}

static void blk_reset(struct virtio_device *vdev)
{
	set_writeback(blk_of(vdev), blk_of(vdev)->initial_writeback);
}

/* ---- configuration space ---- */

static uint32_t discard_alignment(const struct virtio_blk *blk)
{
	uint32_t bytes = blk->discard_granularity;

	if (bytes == UINT32_MAX)
		bytes = blk->image_discard_alignment;
	return MAX(bytes, blk->logical_block_size) / VIRTIO_BLK_SECTOR;
}

static void read_config(struct virtio_device *vdev, uint8_t *config)
{
	const struct virtio_blk *blk = blk_of(vdev);
	struct virtio_blk_config c = {
		.capacity = htole64(blk->capacity / VIRTIO_BLK_SECTOR),
		.seg_max = htole32(blk->seg_max),
		.blk_size = htole32(blk->logical_block_size),
		.physical_block_exp =
			__builtin_ctz(blk->physical_block_size / blk->logical_block_size),
		.min_io_size = htole16(blk->min_io_size / blk->logical_block_size),
		.opt_io_size = htole32(blk->opt_io_size / blk->logical_block_size),
		.writeback = blk->writeback,
		.num_queues = htole16(blk->num_queues),
		.max_discard_sectors = htole32(blk->limits.max_discard_sectors),
		.max_write_zeroes_sectors = htole32(blk->limits.max_write_zeroes_sectors),
	};

	if (blk->limits.max_discard_sectors) {
		c.max_discard_seg = htole32(1);
		c.discard_sector_alignment = htole32(discard_alignment(blk));
	}
	if (blk->limits.max_write_zeroes_sectors) {
		c.max_write_zeroes_seg = htole32(1);
		c.write_zeroes_may_unmap = 1;
	}
	memcpy(config, &c, VIRTIO_BLK_CONFIG_SIZE);
}

static void write_config(struct virtio_device *vdev, const uint8_t *config, unsigned offset,
			 unsigned size)
{
	unsigned at = offsetof(struct virtio_blk_config, writeback);

	if (virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE) && offset <= at && at < offset + size)
		set_writeback(blk_of(vdev), config[at] != 0);
}

/* Loop. */
static void resized(struct notifier *n, void *data)
{
	struct virtio_blk *blk = container_of(n, struct virtio_blk, resized);
	uint64_t length = block_length(blk->node);

	length -= length % blk->logical_block_size;
	blk->limits.capacity = length;
	pthread_mutex_lock(&blk->vdev.lock);
	blk->capacity = length;
	pthread_mutex_unlock(&blk->vdev.lock);
	virtio_config_changed(&blk->vdev);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_BLOCK,
	.name = "virtio-blk",
	.read_config = read_config,
	.write_config = write_config,
	.negotiated = negotiated,
	.kick = virtio_blk_kick,
	.stop = virtio_blk_stop,
	.is_idle = virtio_blk_is_idle,
	.drain = virtio_blk_drain,
	.resume = virtio_blk_resume,
	.reset = blk_reset,
};

/* ---- life ---- */

static bool check_block_size(const char *name, uint32_t size, struct error **err)
{
	if (is_pow2(size) && size >= VIRTIO_BLK_SECTOR && size <= 2 * MiB)
		return true;
	error_set(err, "%s=%u: it must be a power of two from 512 to 2M", name, size);
	return false;
}

static bool check_sizes(struct virtio_blk *blk, struct error **err)
{
	const struct block_limits *below = block_limits(blk->drive->node);
	uint32_t logical = blk->logical_block_size;

	if (!is_pow2(blk->queue_size)) {
		error_set(err, "queue-size=%u: it must be a power of two from 4 to %u",
			  blk->queue_size, (unsigned)VQ_MAX_SIZE);
		return false;
	}
	if (!check_block_size("logical_block_size", logical, err))
		return false;
	if (!blk->physical_block_size)
		blk->physical_block_size = is_pow2(below->physical_block)
						   ? MAX(below->physical_block, logical)
						   : logical;
	if (!check_block_size("physical_block_size", blk->physical_block_size, err))
		return false;
	if (logical > blk->physical_block_size) {
		error_set(err, "logical_block_size is larger than physical_block_size");
		return false;
	}
	if (blk->min_io_size % logical || blk->opt_io_size % logical) {
		error_set(err, "min_io_size and opt_io_size must be multiples of "
			       "logical_block_size");
		return false;
	}
	if (blk->discard_granularity != UINT32_MAX && blk->discard_granularity % logical) {
		error_set(err, "discard_granularity must be a multiple of logical_block_size");
		return false;
	}
	return true;
}

static uint32_t max_sectors(bool wanted, uint32_t limit, uint64_t below)
{
	if (!wanted)
		return 0;
	return below ? MIN(limit, MAX(below / VIRTIO_BLK_SECTOR, UINT64_C(1))) : limit;
}

static void take_limits(struct virtio_blk *blk)
{
	const struct block_limits *below = block_limits(blk->node);
	uint32_t pieces = below->max_iov ? below->max_iov : VQ_MAX_IOV;
	bool read_only = block_read_only(blk->node);
	uint64_t length = block_length(blk->node);

	blk->capacity = length - length % blk->logical_block_size;
	blk->limits = (struct virtio_blk_limits){
		.capacity = blk->capacity,
		.logical_block = blk->logical_block_size,
		.read_only = read_only,
		.max_discard_sectors = max_sectors(blk->discard && !read_only,
						   blk->max_discard_sectors, below->max_discard),
		.max_write_zeroes_sectors = max_sectors(blk->write_zeroes && !read_only,
							blk->max_write_zeroes_sectors,
							below->max_write_zeroes),
	};
	blk->image_discard_alignment = below->discard_alignment;
	blk->seg_max = blk->queue_size - 2;
	if (!blk->seg_max_adjust)
		blk->seg_max = MIN(blk->seg_max, (uint32_t)DEFAULT_SEG_MAX);
	blk->seg_max = MIN(blk->seg_max, pieces);
	blk->merge_iov = pieces;
	blk->merge_bytes = below->max_transfer ? below->max_transfer : UINT64_C(1) * GiB;
}

static uint64_t blk_features(const struct virtio_blk *blk)
{
	uint64_t f = VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_TOPOLOGY;

	if (blk->limits.read_only)
		f |= VIRTIO_BLK_F_RO;
	if (blk->config_wce)
		f |= VIRTIO_BLK_F_CONFIG_WCE;
	if (blk->config_wce || blk->initial_writeback)
		f |= VIRTIO_BLK_F_FLUSH;
	if (blk->num_queues > 1)
		f |= VIRTIO_BLK_F_MQ;
	if (blk->limits.max_discard_sectors)
		f |= VIRTIO_BLK_F_DISCARD;
	if (blk->limits.max_write_zeroes_sectors)
		f |= VIRTIO_BLK_F_WRITE_ZEROES;
	return f;
}

/* On the device's loop, with the main one standing still and the node drained: it changes hands. */
static void attach_node(void *opaque)
{
	struct virtio_blk *blk = opaque;

	if (blk->vdev.loop != blk->vdev.vm->loop)
		block_set_loop(blk->node, blk->vdev.loop);
	notifier_add(block_resize_notifiers(blk->node), &blk->resized);
}

/* Likewise, back again. */
static void detach_node(void *opaque)
{
	struct virtio_blk *blk = opaque;

	evloop_unpost(blk->vdev.loop, &blk->writeback_work);
	notifier_remove(block_resize_notifiers(blk->node), &blk->resized);
	block_set_writeback(blk->node, blk->initial_writeback);
	if (blk->vdev.loop != blk->vdev.vm->loop)
		block_set_loop(blk->node, blk->vdev.vm->loop);
}

static bool take_drive(struct virtio_blk *blk, const char *label, struct error **err)
{
	struct drive *drive = blk->drive;

	if (!drive) {
		error_set(err, "drive property not set");
		return false;
	}
	if (!drive->node) {
		error_set(err, "Device needs media, but drive is empty");
		return false;
	}
	if (drive->taken_by) {
		error_set(err, "Drive '%s' is already in use by device '%s'", drive->id,
			  drive->taken_by);
		return false;
	}
	if (!check_sizes(blk, err))
		return false;
	drive->taken_by = label;
	blk->node = drive->node;
	block_ref(blk->node);
	return true;
}

static void choose_policies(struct virtio_blk *blk)
{
	/* "auto" is 0, then the block layer's in its order. */
	blk->on_read_error = blk->rerror ? (enum block_on_error)(blk->rerror - 1)
					 : blk->drive->rerror;
	blk->on_write_error = blk->werror ? (enum block_on_error)(blk->werror - 1)
					  : blk->drive->werror;
	if (blk->write_cache != TRISTATE_AUTO)
		block_set_writeback(blk->node, blk->write_cache == TRISTATE_ON);
	blk->initial_writeback = blk->writeback = block_writeback(blk->node);
}

static uint16_t default_queues(const struct vm *vm)
{
	/* One MSI-X vector is for the configuration. */
	return MAX(1u, MIN(vm->cpu_count, (unsigned)VIRTIO_MAX_QUEUES - 1));
}

bool virtio_blk_realize(struct virtio_blk *blk, struct vm *vm, const char *label,
			struct error **err)
{
	struct evloop *loop = blk->iothread ? blk->iothread->loop : vm->loop;

	if (!take_drive(blk, label, err))
		return false;
	if (!blk->num_queues)
		blk->num_queues = default_queues(vm);
	choose_policies(blk);
	take_limits(blk);
	ev_work_init(&blk->writeback_work, apply_writeback, blk);
	blk->resized.fn = resized;
	if (!virtio_init(&blk->vdev, &ops, vm, loop, label, blk_features(blk),
			 VIRTIO_BLK_CONFIG_SIZE, blk->num_queues, blk->queue_size, err)) {
		block_unref(blk->node);
		blk->node = NULL;
		blk->drive->taken_by = NULL;
		return false;
	}
	virtio_blk_io_init(blk);
	block_drain(blk->node);
	evloop_call(loop, attach_node, blk);
	return true;
}

void virtio_blk_detach(struct virtio_blk *blk)
{
	evloop_call(blk->vdev.loop, detach_node, blk);
	evloop_unpost(blk->vdev.vm->loop, &blk->error_event.work);
}

void virtio_blk_unrealize(struct virtio_blk *blk)
{
	virtio_blk_io_destroy(blk);
	block_unref(blk->node);
	blk->node = NULL;
	blk->drive->taken_by = NULL;
}
