/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes on their way from a port that the guest writes to a character device: a ring that vCPU
 * threads fill under the device's lock and the main loop empties.
 *
 * The first byte after a pause wakes the main loop at once. While bytes keep coming it looks again
 * after CHAR_OUT_LINGER by itself, so that a line of text costs one or two wake-ups and not one a
 * byte. A chardev that takes nothing leaves the bytes in the ring; the device sees that in
 * char_out_room() and tells its guest.
 */
#ifndef HW_LEGACY_CHAR_OUT_H
#define HW_LEGACY_CHAR_OUT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/chardev.h"
#include "vmm/core/evloop.h"
#include "vmm/core/state.h"

enum { CHAR_OUT_RING = 8192 };
#define CHAR_OUT_LINGER INT64_C(500000) /* ns */

struct char_out {
	struct evloop *loop;
	struct chardev *chr;   /* borrowed; NULL: bytes vanish */
	pthread_mutex_t *lock; /* the device's */
	/* Under the lock, on the main loop: there is room again. NULL: not wanted. */
	void (*drained)(void *opaque);
	void *opaque;

	struct ev_work work;
	struct ev_timer timer;
	bool awake; /* the main loop looks by itself */

	uint8_t ring[CHAR_OUT_RING];
	uint32_t start, count;
};

void char_out_init(struct char_out *o, struct evloop *loop, struct chardev *chr,
		   pthread_mutex_t *lock, void (*drained)(void *opaque), void *opaque);
/* Gives the chardev what it still takes. */
void char_out_destroy(struct char_out *o);

/* With the lock held, any thread. */
static inline uint32_t char_out_room(const struct char_out *o)
{
	return CHAR_OUT_RING - o->count;
}
/* False, and the byte is lost, if there is no room. */
bool char_out_put(struct char_out *o, uint8_t byte);

/* Main thread, without the lock: the chardev can take more. */
void char_out_writable(struct char_out *o);

extern const struct state_desc char_out_state;

#endif
