/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text on its way to a monitor's client, and the set of monitors. Main thread.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/control/internal.h"
#include "vmm/core/util.h"

static void drain(struct session *s)
{
	size_t n;

	if (!s->out_len)
		return;
	n = chardev_write(s->chardev, s->out + s->out_start, s->out_len);
	s->out_start += n;
	s->out_len -= n;
	if (s->out_len)
		return;
	free(s->out);
	s->out = NULL;
	s->out_start = s->out_room = 0;
}

static void on_writable(void *opaque)
{
	struct session *s = opaque;

	drain(s);
	if (!s->out_len && s->drained)
		s->drained(s);
}

void session_drop_output(struct session *s)
{
	free(s->out);
	s->out = NULL;
	s->out_start = s->out_len = s->out_room = 0;
}

void session_write(struct session *s, const char *text, size_t len)
{
	if (!len)
		return;
	if (s->out_len + len > SESSION_MAX_OUTPUT) {
		session_drop_output(s);
		chardev_disconnect(s->chardev);
		return;
	}
	if (s->out_start + s->out_len + len > s->out_room) {
		s->out_room = (s->out_len + len) * 2;
		if (s->out_len)
			memmove(s->out, s->out + s->out_start, s->out_len);
		s->out_start = 0;
		s->out = xrealloc(s->out, s->out_room);
	}
	memcpy(s->out + s->out_start + s->out_len, text, len);
	s->out_len += len;
	drain(s);
}

void session_puts(struct session *s, const char *text)
{
	session_write(s, text, strlen(text));
}

bool session_open(struct session *s, struct control *control, const char *chardev,
		  struct error **err)
{
	s->control = control;
	s->peer.opaque = s;
	s->peer.writable = on_writable;
	s->chardev = chardevs_take(control->chardevs, chardev, err);
	if (!s->chardev)
		return false;
	chardev_attach(s->chardev, &s->peer); /* the event of being open may write at once */
	return true;
}

void session_close(struct session *s)
{
	if (s->chardev)
		chardevs_release(s->control->chardevs, s->chardev);
	session_drop_output(s);
}

void control_tell(struct control *c, const struct vm_event *event, const json_t *json)
{
	for (struct session *s = c->first; s; s = s->next)
		if (s->vm_event)
			s->vm_event(s, event, json);
}

static void on_vm_event(struct notifier *n, void *data)
{
	throttle_event(&container_of(n, struct control, events)->throttle, data);
}

struct control *control_new(struct vm *vm, struct chardevs *chardevs, struct drive **drives,
			    struct netdevs *netdevs)
{
	struct control *c = xcalloc(1, sizeof(*c));

	c->vm = vm;
	c->chardevs = chardevs;
	c->drives = drives;
	c->netdevs = netdevs;
	c->throttle = (struct throttle){ .control = c, .tell = control_tell };
	c->events.fn = on_vm_event;
	notifier_add(&vm->events, &c->events);
	net_init(c);
	return c;
}

void control_hold(struct control *c, bool hold)
{
	c->held = hold;
	if (hold)
		return;
	for (struct session *s = c->first; s; s = s->next)
		chardev_accept_input(s->chardev);
}

bool control_add(struct control *c, const char *chardev, bool qmp, bool pretty, struct error **err)
{
	struct session *s = qmp ? qmp_new(c, chardev, pretty, err) : hmp_new(c, chardev, err);

	if (!s)
		return false;
	s->next = c->first;
	c->first = s;
	return true;
}

void control_free(struct control *c)
{
	if (!c)
		return;
	notifier_remove(&c->vm->events, &c->events);
	net_destroy(c);
	throttle_destroy(&c->throttle);
	while (c->first) {
		struct session *s = c->first;

		c->first = s->next;
		s->free(s);
	}
	free(c);
}
