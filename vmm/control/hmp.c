/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A monitor for people: a banner, a prompt, a line, an answer. On a shared terminal it shows itself
 * when it gets the focus. Main thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/internal.h"
#include "vmm/control/readline.h"
#include "vmm/core/util.h"
#include "vmm/core/version.h"

struct hmp {
	struct session session;
	struct readline readline;
	struct ev_work greet_work; /* prompts once the loop turned: the focus may still move on */
	bool greeted, hidden;
	bool busy; /* in a command, which may turn the loop */
};

static void show(void *opaque, const char *text, size_t len)
{
	session_write(opaque, text, len);
}

static void greet(struct hmp *h)
{
	if (!h->session.chardev->open || h->hidden || h->session.control->vm->exiting)
		return;
	if (!h->greeted)
		session_puts(&h->session,
			     "vmm " VMM_VERSION " monitor - type 'help' for more information\r\n");
	h->greeted = true;
	readline_show(&h->readline);
}

static void on_greet(void *opaque)
{
	greet(opaque);
}

/* Line feeds become what a raw terminal needs. */
static void write_answer(struct session *s, const char *text)
{
	while (*text) {
		size_t len = strcspn(text, "\n");

		session_write(s, text, len);
		text += len;
		if (*text) {
			session_puts(s, "\r\n");
			text++;
		}
	}
}

static void on_line(void *opaque, const char *line)
{
	struct hmp *h = opaque;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (out) {
		h->busy = true;
		hmp_run(h->session.control, line, out);
		h->busy = false;
		fclose(out);
		write_answer(&h->session, text);
		free(text);
	}
	/* What was asked for happens when the loop turns, and may be the end. */
	if (atomic_load(&h->session.control->vm->requests))
		evloop_post(h->session.control->vm->loop, &h->greet_work);
	else
		readline_show(&h->readline);
}

static size_t can_receive(void *opaque)
{
	struct hmp *h = opaque;

	return h->session.control->held || h->busy || h->session.out_len ? 0 : 64;
}

static void receive(void *opaque, const uint8_t *data, size_t len)
{
	struct hmp *h = opaque;

	for (size_t i = 0; i < len; i++)
		readline_put(&h->readline, data[i]);
	chardev_accept_input(h->session.chardev);
}

static void on_drained(struct session *s)
{
	chardev_accept_input(s->chardev);
}

static void on_event(void *opaque, enum chardev_event event)
{
	struct hmp *h = opaque;

	switch (event) {
	case CHARDEV_OPENED:
		h->greeted = false;
		evloop_post(h->session.control->vm->loop, &h->greet_work);
		break;
	case CHARDEV_CLOSED:
		session_drop_output(&h->session);
		break;
	case CHARDEV_MUX_IN:
		h->hidden = false;
		if (h->greeted)
			session_puts(&h->session, "\r\n");
		greet(h);
		break;
	case CHARDEV_MUX_OUT:
		h->hidden = true;
		if (h->greeted)
			session_puts(&h->session, "\r\n");
		break;
	case CHARDEV_BREAK:
		break;
	}
}

static void hmp_free(struct session *s)
{
	struct hmp *h = container_of(s, struct hmp, session);

	evloop_unpost(s->control->vm->loop, &h->greet_work);
	session_close(s);
	readline_destroy(&h->readline);
	free(h);
}

struct session *hmp_new(struct control *control, const char *chardev, struct error **err)
{
	struct hmp *h = xcalloc(1, sizeof(*h));

	h->session.free = hmp_free;
	h->session.drained = on_drained;
	h->session.peer.can_receive = can_receive;
	h->session.peer.receive = receive;
	h->session.peer.event = on_event;
	ev_work_init(&h->greet_work, on_greet, h);
	readline_init(&h->readline, "(vmm) ", show, on_line, &h->session);
	h->session.control = control;
	if (!session_open(&h->session, control, chardev, err)) {
		free(h);
		return NULL;
	}
	return &h->session;
}
