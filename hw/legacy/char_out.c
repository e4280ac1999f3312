/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way out for serial ports and the debug console (char_out.h).
 *
 * Threads: char_out_put() on vCPU threads under the device's lock; everything else on the main
 * loop. The chardev is never called with the lock held: it may call back into the device.
 * Owner: the device that embeds it.
 */
#include "hw/legacy/char_out.h"

#include "vmm/core/util.h"

/* Writes until the ring is empty or the chardev full; returns whether any byte left. */
static bool drain(struct char_out *o)
{
	bool moved = false;

	pthread_mutex_lock(o->lock);
	while (o->count) {
		const uint8_t *from = o->ring + o->start;
		uint32_t len = MIN(o->count, CHAR_OUT_RING - o->start);

		/* Only this thread takes bytes out, so these stay where they are. */
		pthread_mutex_unlock(o->lock);
		uint32_t taken = (uint32_t)chardev_write(o->chr, from, len);
		pthread_mutex_lock(o->lock);
		if (!taken)
			break;
		o->start = (o->start + taken) % CHAR_OUT_RING;
		o->count -= taken;
		moved = true;
	}
	if (moved && o->drained)
		o->drained(o->opaque);
	pthread_mutex_unlock(o->lock);
	return moved;
}

static void linger(struct char_out *o)
{
	evloop_timer_arm(o->loop, &o->timer, evloop_now(o->loop) + CHAR_OUT_LINGER);
}

static void work(void *opaque)
{
	struct char_out *o = opaque;

	drain(o);
	linger(o);
}

static void lingered(void *opaque)
{
	struct char_out *o = opaque;

	if (drain(o)) {
		linger(o);
		return;
	}
	/* Nothing new, or a chardev that is full and will call char_out_writable(). A byte that
	 * came since drain() looked found us awake, so look once more under the lock. */
	pthread_mutex_lock(o->lock);
	bool blocked = o->count != 0;
	o->awake = blocked;
	pthread_mutex_unlock(o->lock);
	if (blocked)
		char_out_writable(o);
}

void char_out_writable(struct char_out *o)
{
	bool moved = drain(o);

	pthread_mutex_lock(o->lock);
	/* A full chardev keeps us awake without a timer: its call is the next look. */
	o->awake = moved || o->count;
	pthread_mutex_unlock(o->lock);
	if (moved)
		linger(o);
}

bool char_out_put(struct char_out *o, uint8_t byte)
{
	if (o->count == CHAR_OUT_RING)
		return false;
	o->ring[(o->start + o->count++) % CHAR_OUT_RING] = byte;
	if (!o->awake || o->count == CHAR_OUT_RING / 2) {
		o->awake = true;
		evloop_post(o->loop, &o->work);
	}
	return true;
}

void char_out_init(struct char_out *o, struct evloop *loop, struct chardev *chr,
		   pthread_mutex_t *lock, void (*drained)(void *opaque), void *opaque)
{
	o->loop = loop;
	o->chr = chr;
	o->lock = lock;
	o->drained = drained;
	o->opaque = opaque;
	o->start = o->count = 0;
	o->awake = false;
	ev_work_init(&o->work, work, o);
	ev_timer_init(&o->timer, lingered, o);
}

void char_out_destroy(struct char_out *o)
{
	o->drained = NULL;
	drain(o);
	evloop_unpost(o->loop, &o->work);
	evloop_timer_cancel(o->loop, &o->timer);
}

/* The ring is saved from its beginning, so that the state does not depend on where it was. */
static void pre_save(void *object)
{
	struct char_out *o = object;
	uint8_t straight[CHAR_OUT_RING];

	pthread_mutex_lock(o->lock);
	for (uint32_t i = 0; i < o->count; i++)
		straight[i] = o->ring[(o->start + i) % CHAR_OUT_RING];
	memcpy(o->ring, straight, o->count);
	o->start = 0;
	pthread_mutex_unlock(o->lock);
}

static bool post_load(void *object, unsigned version, struct error **err)
{
	struct char_out *o = object;

	if (o->count > CHAR_OUT_RING) {
		error_set(err, "%u bytes in a transmit ring of %d", o->count, CHAR_OUT_RING);
		o->count = 0;
		return false;
	}
	o->start = 0;
	if (o->count) {
		o->awake = true;
		evloop_post(o->loop, &o->work);
	}
	return true;
}

const struct state_desc char_out_state = {
	.name = "char-out",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct char_out, count, STATE_U32),
			{.name = "ring",
			 .type = STATE_U8,
			 .offset = offsetof(struct char_out, ring),
			 .count = CHAR_OUT_RING,
			 .count_offset = offsetof(struct char_out, count)},
			{0},
		},
	.pre_save = pre_save,
	.post_load = post_load,
};
