/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio block device: virtio 1.2, section 5.2.
 *
 *   virtio_blk_parse.c   bytes of a chain -> what is wanted
 *   virtio_blk_io.c      the data path: requests, merging, completion, error policy (the loop's)
 *   virtio_blk.c         features, configuration space, life
 *   virtio_blk_pci.c     the PCI devices
 *
 * Threads. The data path and the block node belong to one event loop, the iothread's or the main
 * one; it takes no lock and does not allocate: the requests that a ring has entries for are made at
 * realize. The configuration space is read on vCPU threads under vdev.lock.
 */
#ifndef HW_VIRTIO_VIRTIO_BLK_H
#define HW_VIRTIO_VIRTIO_BLK_H

#include <stdbool.h>
#include <stdint.h>

#include "block/block.h"
#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio_blk_parse.h"
#include "hw/virtio/virtio_pci.h"
#include "vmm/core/thread.h"

#define VIRTIO_BLK_F_SEG_MAX	  VIRTIO_BIT(2)
#define VIRTIO_BLK_F_RO		  VIRTIO_BIT(5)
#define VIRTIO_BLK_F_BLK_SIZE	  VIRTIO_BIT(6)
#define VIRTIO_BLK_F_FLUSH	  VIRTIO_BIT(9)
#define VIRTIO_BLK_F_TOPOLOGY	  VIRTIO_BIT(10)
#define VIRTIO_BLK_F_CONFIG_WCE	  VIRTIO_BIT(11)
#define VIRTIO_BLK_F_MQ		  VIRTIO_BIT(12)
#define VIRTIO_BLK_F_DISCARD	  VIRTIO_BIT(13)
#define VIRTIO_BLK_F_WRITE_ZEROES VIRTIO_BIT(14)

/* Configuration space (5.2.4). */
struct virtio_blk_config {
	uint64_t capacity; /* sectors of 512 bytes */
	uint32_t size_max;
	uint32_t seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp;
	uint8_t alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback;
	uint8_t unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
};
_Static_assert(offsetof(struct virtio_blk_config, writeback) == 32, "virtio_blk_config");
_Static_assert(sizeof(struct virtio_blk_config) == 64, "virtio_blk_config with its padding");
enum { VIRTIO_BLK_CONFIG_SIZE = 60 };

struct virtio_blk;

/* One request of the guest, from its pop to its push. The block layer's part comes last. */
struct virtio_blk_req {
	struct virtio_blk_queue *queue;
	struct virtio_blk_req *next;	    /* free, waiting, or merged into the first */
	struct virtio_blk_req *merged_last; /* of the first: end of that list */
	struct vq_chain chain;
	struct virtio_blk_cmd cmd;
	struct block_req block;
};

struct virtio_blk_queue {
	struct virtio_blk *blk;
	struct virtqueue *vq;
	unsigned char *requests; /* the pool, blk->request_size apart */
	struct iovec *iovs;	 /* for each of them blk->iov_max */
	struct virtio_blk_req *free;
	unsigned fresh; /* requests from here on were never used: memory not touched yet */
};

/* Waiting to be told to the main thread. */
struct virtio_blk_error_event {
	struct ev_work work;
	_Atomic bool busy;
	const char *operation, *action;
	int error;
};

struct virtio_blk {
	struct virtio_device vdev;

	/* Properties. */
	struct drive *drive;
	struct iothread *iothread;
	char *serial;
	uint16_t num_queues, queue_size;
	bool seg_max_adjust, request_merging, config_wce, discard, write_zeroes;
	int write_cache; /* enum prop_tristate */
	int rerror, werror;
	uint32_t logical_block_size, physical_block_size;
	uint16_t min_io_size;
	uint32_t opt_io_size, discard_granularity;
	uint32_t max_discard_sectors, max_write_zeroes_sectors;
	int32_t bootindex;

	/* From realize on. */
	struct block_node *node;
	struct virtio_blk_queue *queues;
	size_t request_size;
	unsigned iov_max;
	uint32_t seg_max;
	uint32_t merge_iov; /* pieces and bytes of a merged request */
	uint64_t merge_bytes;
	uint32_t image_discard_alignment;
	enum block_on_error on_read_error, on_write_error;
	bool initial_writeback;
	struct notifier resized;

	/* The loop's. */
	struct virtio_blk_limits limits;
	unsigned in_flight; /* submitted to the node */
	struct virtio_blk_req *retry_first,
		**retry_last; /* failed, waiting for the guest to go on */
	struct ev_work writeback_work;

	/* Under vdev.lock. */
	uint64_t capacity; /* bytes */
	bool writeback;

	struct virtio_blk_error_event error_event;
};

extern const struct prop virtio_blk_props[];

bool virtio_blk_realize(struct virtio_blk *blk, struct vm *vm, const char *label,
			struct error **err);
/* After virtio_close(), before virtio_exit(): the node leaves the device's loop. */
void virtio_blk_detach(struct virtio_blk *blk);
/* After virtio_exit(): gives the drive back, frees. */
void virtio_blk_unrealize(struct virtio_blk *blk);

/* ---- between the files of this device ---- */

void virtio_blk_io_init(struct virtio_blk *blk);
void virtio_blk_io_destroy(struct virtio_blk *blk);
void virtio_blk_kick(struct virtio_device *vdev, struct virtqueue *vq);
void virtio_blk_stop(struct virtio_device *vdev);
bool virtio_blk_is_idle(struct virtio_device *vdev);
void virtio_blk_drain(struct virtio_device *vdev);
void virtio_blk_resume(struct virtio_device *vdev);

/* ---- PCI ---- */

struct virtio_blk_pci {
	struct virtio_pci vpci;
	struct virtio_blk blk;
};

extern const struct device_desc virtio_blk_pci_desc;
extern const struct device_desc virtio_blk_pci_non_transitional_desc;
extern const struct device_desc virtio_blk_pci_transitional_desc;

#endif
