/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events at the rate of people rather than guests; see internal.h. Main thread.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/control/internal.h"
#include "vmm/core/util.h"

#define PERIOD_NS NSEC_PER_SEC

/* One kind of one device, from its first event on; as many as there are devices. */
struct throttled {
	struct throttle *owner;
	enum vm_event_kind kind;
	char *device;
	struct ev_timer timer; /* armed: told less than a period ago */
	json_t *pending;
	struct throttled *next;
};

static bool is_throttled(enum vm_event_kind kind)
{
	return kind == VM_EVENT_RTC_CHANGE || kind == VM_EVENT_BLOCK_IO_ERROR ||
	       kind == VM_EVENT_TRAY_MOVED || kind == VM_EVENT_GUEST_PANICKED;
}

static void arm(struct throttled *e)
{
	struct evloop *loop = e->owner->control->vm->loop;

	evloop_timer_arm(loop, &e->timer, evloop_now(loop) + PERIOD_NS);
}

static void on_timer(void *opaque)
{
	struct throttled *e = opaque;
	struct vm_event event = { .kind = e->kind };
	json_t *json = e->pending;

	if (!json)
		return;
	e->pending = NULL;
	arm(e);
	e->owner->tell(e->owner->control, &event, json);
	json_decref(json);
}

static struct throttled *find(struct throttle *t, const struct vm_event *event)
{
	const char *device = event->device ? event->device : "";
	struct throttled *e = t->first;

	while (e && (e->kind != event->kind || strcmp(e->device, device)))
		e = e->next;
	if (e)
		return e;
	e = xcalloc(1, sizeof(*e));
	e->owner = t;
	e->kind = event->kind;
	e->device = xstrdup(device);
	ev_timer_init(&e->timer, on_timer, e);
	e->next = t->first;
	t->first = e;
	return e;
}

void throttle_event(struct throttle *t, const struct vm_event *event)
{
	struct throttled *e = is_throttled(event->kind) ? find(t, event) : NULL;
	json_t *json = event_to_json(event);

	if (e && ev_timer_armed(&e->timer)) {
		json_decref(e->pending);
		e->pending = json;
		return;
	}
	if (e)
		arm(e);
	t->tell(t->control, event, json);
	json_decref(json);
}

void throttle_destroy(struct throttle *t)
{
	while (t->first) {
		struct throttled *e = t->first;

		t->first = e->next;
		evloop_timer_cancel(t->control->vm->loop, &e->timer);
		json_decref(e->pending);
		free(e->device);
		free(e);
	}
}
