/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtqueues: split rings (virtio 1.2, section 2.7) seen from the device.
 *
 * A queue has two halves. The transport fills the set-up half (size, addresses) while the queue is
 * not live; vq_start() checks it whole and makes the queue live. From then until vq_stop() the queue
 * belongs to one thread, the event loop that its device runs in, and every function below is called
 * there. Nothing here takes a lock, allocates, or calls the system.
 *
 * The usual handler, which loses no kick and batches both directions:
 *
 *	do {
 *		vq_disable_notify(vq);
 *		while (vq_pop(vq, &req->chain) > 0)
 *			start(req);
 *	} while (vq_enable_notify(vq));
 *
 * and whenever requests end, in any order and as many at a time as there are:
 *
 *	vq_push(vq, &req->chain, bytes_written);
 *	...
 *	if (vq_publish(vq))
 *		interrupt the guest;
 *
 * The rings are guest memory and the guest is hostile. Every index, descriptor and table entry is
 * loaded once into a local, checked, and used from there. What a guest gets wrong makes the queue
 * broken: vq->fail is called with a sentence for the log, and until the device is reset vq_pop()
 * returns -EINVAL and the rest does nothing.
 *
 * Ring pointers are resolved through guest_mem and kept as long as its snapshot is the current one.
 */
#ifndef HW_VIRTIO_VIRTQUEUE_H
#define HW_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/core/guest_mem.h"
#include "vmm/core/iov.h"
#include "vmm/core/state.h"

enum {
	VQ_MAX_SIZE = 1024,  /* entries of a ring */
	VQ_MAX_TABLE = 1024, /* descriptors of an indirect table */
	VQ_MAX_IOV = 1024,   /* pieces of one chain: what readv(2) takes */
};

/* A descriptor as it lies in guest memory (2.7.5). */
struct vq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
_Static_assert(sizeof(struct vq_desc) == 16, "virtq_desc");

enum {
	VQ_DESC_NEXT = 1,
	VQ_DESC_WRITE = 2,
	VQ_DESC_INDIRECT = 4,
};

/*
 * One request of the driver: what the device may read, then what it may write, as host addresses.
 * Embedded in the device's request; iov and iov_max are the caller's and stay, the rest is filled
 * in by vq_pop(). The device may shorten entries in place (headers, trailers); what it cuts off a
 * writable one and yet writes, it marks with vq_mark_written().
 */
struct vq_chain {
	struct iovec *iov;	     /* readable entries first, then writable ones */
	uint16_t iov_max;	     /* at most VQ_MAX_IOV */
	uint16_t head;		     /* the driver's name for it */
	uint16_t readable, writable; /* entries */
	uint64_t readable_bytes, writable_bytes;
};

struct virtqueue {
	/* Set-up half: the transport's, while not live. Sizes in entries, addresses physical. */
	uint16_t index;
	uint16_t size_max;
	uint16_t size;
	bool enabled;
	uint64_t desc_gpa, avail_gpa, used_gpa;

	/* Negotiated; set before vq_start(). */
	bool event_idx, indirect, notify_on_empty;

	/* Live half: the loop's. */
	bool live, broken;
	bool lent;		 /* somebody else serves it: virtio_lend_queue() */
	bool notify;		 /* kicks are asked for */
	bool dirty_log;		 /* some memory is being watched */
	uint16_t last_avail;	 /* next entry of the available ring */
	uint16_t avail_seen;	 /* the driver's index when it was last looked at */
	uint16_t used_next;	 /* next entry of the used ring */
	uint16_t used_published; /* what the driver was told */
	uint16_t in_flight;	 /* popped and not pushed */
	uint32_t returned_count;
	uint16_t returned[VQ_MAX_SIZE]; /* heads that were popped and put back, the next one last */
	const struct gm_snapshot *snapshot;
	const uint8_t *desc, *avail;
	uint8_t *used;
	struct vq_desc *table; /* an indirect table's copy; VQ_MAX_TABLE entries */

	struct guest_mem *mem;
	void (*fail)(struct virtqueue *vq, const char *why);
	void *opaque; /* the device's */
};

extern const struct state_desc vq_state;

/* max: entries, a power of two up to VQ_MAX_SIZE, which is also the size until the driver asks for
 * less. The queue starts out as after vq_reset(). */
void vq_init(struct virtqueue *vq, struct guest_mem *mem, uint16_t index, uint16_t max,
	     void (*fail)(struct virtqueue *vq, const char *why), void *opaque);
void vq_destroy(struct virtqueue *vq);
/* Back to power-on: not live, not enabled, no addresses, not broken. Popped chains are forgotten;
 * the device must have let go of their memory. */
void vq_reset(struct virtqueue *vq);

/* Makes an enabled queue live. A size that is no power of two, misaligned rings and rings that are
 * not wholly in RAM break it. Rings continue at last_avail and used_next (0 after a reset). */
bool vq_start(struct virtqueue *vq);
/* No more popping or pushing until vq_start(); the indices stay. */
void vq_stop(struct virtqueue *vq);
/* Chains that were put back become available as if they had never been popped; false if chains
 * behind them were used meanwhile, so that it cannot be. */
bool vq_rewind(struct virtqueue *vq);
/* Somebody else has served the ring: continues at last_avail (-1: behind what was used last), and
 * where that one left the used ring. Stopped, with its pointers as they were. */
void vq_resume_at(struct virtqueue *vq, int last_avail);

/*
 * Takes the next chain. 1: chain is filled in and counts as in flight until it is pushed; 0: the
 * ring is empty, or the queue is not live; -EINVAL: the queue is broken, now or already.
 *
 * A chain has at least one descriptor; readable descriptors come before writable ones, none is
 * empty, all of them lie in RAM, and their lengths add up to at most 4 GiB. There are at most
 * iov_max pieces (a descriptor over two adjacent memory regions makes two). At most `size` chains
 * are in flight.
 */
int vq_pop(struct virtqueue *vq, struct vq_chain *chain);

/* Puts a popped chain back, untouched: the next vq_pop() takes it again. Those who put back several
 * begin with the newest. */
void vq_unpop(struct virtqueue *vq, const struct vq_chain *chain);

/* Gives a chain back, written bytes at the front of its writable part having been filled. Chains
 * may come back in any order. The driver sees it at the next vq_publish(). */
void vq_push(struct virtqueue *vq, const struct vq_chain *chain, uint32_t written);

/* Tells the driver of everything pushed so far; true if it wants an interrupt for that. */
bool vq_publish(struct virtqueue *vq);

/* Asks the driver not to kick. A hint: kicks may come all the same. */
void vq_disable_notify(struct virtqueue *vq);
/* Asks for a kick for the next chain. True if one was added meanwhile, for which no kick may come:
 * the caller must go on popping. */
bool vq_enable_notify(struct virtqueue *vq);

/* Whether vq_pop() would find something; for polling. */
bool vq_has_work(struct virtqueue *vq);

/* The device wrote to a chain's memory outside its writable entries as they stand at vq_push(). */
void vq_mark_written(struct virtqueue *vq, const void *hva, size_t len);

/* Cuts n bytes off the front, or off the end: entries that become empty drop out of the range that
 * *iov and *count stand for. The caller knows that there are as many. */
void vq_iov_cut_front(struct iovec **iov, unsigned *count, size_t n);
void vq_iov_cut_back(struct iovec *iov, unsigned *count, size_t n);

#endif
