/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several front ends on one back end, such as serial port and monitor on a terminal. Output of all
 * is shown as it comes; input goes to the one that has the focus, and an escape character (Ctrl-A)
 * begins a command to the mux itself.
 *
 * Input waits in a queue for each front end, so that a guest that reads nothing does not keep
 * Ctrl-A x from being seen. Main thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/chardev/backend.h"
#include "vmm/core/util.h"

#define MUX_FRONTS 4

struct mux_front {
	struct chardev base;
	struct mux *mux;
	bool used;
	bool waits; /* its write was not taken whole */
	uint8_t in[CHARDEV_BUFFER];
	size_t in_start, in_len;
};

struct mux {
	struct chardevs *set;
	struct chardev *backend;
	struct chardev_peer peer;
	struct mux_front fronts[MUX_FRONTS];
	struct mux_front *focus; /* NULL before the first */
	bool escaped;		 /* the escape character came */
	bool timestamps, line_start;
	int64_t first_stamp; /* ns; time 0 of timestamps */
	char notice[512];    /* text of the mux itself that waits for room */
	size_t notice_start, notice_len;
};

static bool send_notice(struct mux *m)
{
	size_t n;

	if (!m->notice_len)
		return true;
	n = chardev_write(m->backend, m->notice + m->notice_start, m->notice_len);
	m->notice_start += n;
	m->notice_len -= n;
	return !m->notice_len;
}

static void notice(struct mux *m, const char *text)
{
	size_t len = MIN(strlen(text), sizeof(m->notice));

	if (!send_notice(m))
		return; /* the user looks at nothing now */
	memcpy(m->notice, text, len);
	m->notice_start = 0;
	m->notice_len = len;
	send_notice(m);
}

static void stamp(struct mux *m)
{
	int64_t ms;
	char text[40];

	if (!m->first_stamp)
		m->first_stamp = evloop_now(m->set->loop);
	ms = (evloop_now(m->set->loop) - m->first_stamp) / NSEC_PER_MSEC;
	snprintf(text, sizeof(text), "[%02" PRId64 ":%02" PRId64 ":%02" PRId64 ".%03" PRId64 "] ",
		 ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
	notice(m, text);
}

static size_t write_stamped(struct mux *m, const uint8_t *data, size_t len)
{
	size_t taken = 0;

	while (taken < len) {
		const uint8_t *end = memchr(data + taken, '\n', len - taken);
		size_t piece = end ? (size_t)(end - data) + 1 - taken : len - taken, n;

		if (m->line_start) {
			m->line_start = false;
			stamp(m);
		}
		if (!send_notice(m))
			break;
		n = chardev_write(m->backend, data + taken, piece);
		taken += n;
		if (n < piece)
			break;
		m->line_start = end != NULL;
	}
	return taken;
}

static size_t front_write(struct chardev *c, const uint8_t *data, size_t len)
{
	struct mux_front *f = container_of(c, struct mux_front, base);
	struct mux *m = f->mux;
	size_t taken;

	if (m->timestamps)
		taken = write_stamped(m, data, len);
	else
		taken = send_notice(m) ? chardev_write(m->backend, data, len) : 0;
	f->waits |= taken < len;
	return taken;
}

static void on_writable(void *opaque)
{
	struct mux *m = opaque;

	if (!send_notice(m))
		return;
	for (size_t i = 0; i < MUX_FRONTS; i++) {
		struct mux_front *f = &m->fronts[i];

		if (!f->used || !f->waits)
			continue;
		f->waits = false;
		if (f->base.peer && f->base.peer->writable)
			f->base.peer->writable(f->base.peer->opaque);
	}
}

static void tell(struct mux_front *f, enum chardev_event event)
{
	if (f && f->base.peer && f->base.peer->event)
		f->base.peer->event(f->base.peer->opaque, event);
}

static void set_focus(struct mux *m, struct mux_front *f)
{
	struct mux_front *before = m->focus;

	if (f == before)
		return;
	m->focus = f;
	tell(before, CHARDEV_MUX_OUT);
	tell(f, CHARDEV_MUX_IN);
	chardev_accept_input(m->backend); /* the one before may have been full */
}

static void next_focus(struct mux *m)
{
	size_t at = m->focus ? m->focus - m->fronts : 0;

	for (size_t i = 1; i <= MUX_FRONTS; i++) {
		struct mux_front *f = &m->fronts[(at + i) % MUX_FRONTS];

		if (f->used) {
			set_focus(m, f);
			return;
		}
	}
}

static void deliver(struct mux_front *f)
{
	const struct chardev_peer *peer = f->base.peer;

	while (f->in_len && peer && peer == f->base.peer) {
		size_t n = MIN(peer->can_receive(peer->opaque), f->in_len);

		if (!n)
			return;
		f->in_start += n;
		f->in_len -= n;
		peer->receive(peer->opaque, f->in + f->in_start - n, n);
	}
}

static void queue_byte(struct mux_front *f, uint8_t byte)
{
	if (!f)
		return;
	if (f->in_start + f->in_len == sizeof(f->in)) {
		memmove(f->in, f->in + f->in_start, f->in_len);
		f->in_start = 0;
	}
	if (f->in_len < sizeof(f->in))
		f->in[f->in_start + f->in_len++] = byte;
}

static void show_help(struct mux *m)
{
	char name[8], text[400];
	int c = m->set->escape_char;

	if (c > 0 && c < 27)
		snprintf(name, sizeof(name), "C-%c", c + 'a' - 1);
	else
		snprintf(name, sizeof(name), "0x%02x", c);
	snprintf(text, sizeof(text),
		 "\r\n%s h    this help\r\n"
		 "%s x    end the guest and vmm\r\n"
		 "%s c    switch between console and monitor\r\n"
		 "%s b    send a break\r\n"
		 "%s t    switch time stamps on and off\r\n"
		 "%s %s  send %s\r\n",
		 name, name, name, name, name, name, name, name);
	notice(m, text);
}

static void command(struct mux *m, uint8_t byte)
{
	switch (byte) {
	case 'h':
	case '?':
		show_help(m);
		break;
	case 'x':
		notice(m, "\r\nvmm: terminated\r\n");
		if (m->set->quit)
			m->set->quit(m->set->opaque);
		break;
	case 'c': /* what was typed before is the one's that had the focus */
		if (m->focus)
			deliver(m->focus);
		next_focus(m);
		break;
	case 'b':
		tell(m->focus, CHARDEV_BREAK);
		break;
	case 't':
		m->timestamps = !m->timestamps;
		m->line_start = false;
		m->first_stamp = 0;
		break;
	}
}

/* One byte for the queue of whoever has the focus, or for us. */
static void take_byte(struct mux *m, uint8_t byte)
{
	if (m->escaped) {
		m->escaped = false;
		if (byte == m->set->escape_char)
			queue_byte(m->focus, byte);
		else
			command(m, byte);
	} else if (byte == m->set->escape_char) {
		m->escaped = true;
	} else {
		queue_byte(m->focus, byte);
	}
}

static size_t on_can_receive(void *opaque)
{
	struct mux *m = opaque;

	return m->focus ? sizeof(m->focus->in) - m->focus->in_len : 0;
}

static void on_receive(void *opaque, const uint8_t *data, size_t len)
{
	struct mux *m = opaque;

	/* Room was promised for the one that has the focus now; a longer text finds some each time. */
	for (size_t i = 0; i < len; i++) {
		take_byte(m, data[i]);
		if (m->focus && m->focus->in_len >= sizeof(m->focus->in) / 2)
			deliver(m->focus);
	}
	if (m->focus)
		deliver(m->focus);
}

static void on_event(void *opaque, enum chardev_event event)
{
	struct mux *m = opaque;

	if (event == CHARDEV_BREAK) {
		tell(m->focus, event);
		return;
	}
	for (size_t i = 0; i < MUX_FRONTS; i++) {
		m->fronts[i].base.open = m->backend->open;
		if (m->fronts[i].used)
			tell(&m->fronts[i], event);
	}
}

static void front_accept_input(struct chardev *c)
{
	struct mux_front *f = container_of(c, struct mux_front, base);

	deliver(f);
	if (f == f->mux->focus)
		chardev_accept_input(f->mux->backend);
}

static void front_set_line(struct chardev *c, unsigned baud, unsigned data_bits, char parity,
			   unsigned stop_bits)
{
	struct chardev *backend = container_of(c, struct mux_front, base)->mux->backend;

	if (backend->ops->set_line)
		backend->ops->set_line(backend, baud, data_bits, parity, stop_bits);
}

static void front_send_break(struct chardev *c)
{
	struct chardev *backend = container_of(c, struct mux_front, base)->mux->backend;

	if (backend->ops->send_break)
		backend->ops->send_break(backend);
}

static void front_disconnect(struct chardev *c)
{
	chardev_disconnect(container_of(c, struct mux_front, base)->mux->backend);
}

static const struct chardev_ops front_ops = {
	.write = front_write,
	.accept_input = front_accept_input,
	.set_line = front_set_line,
	.send_break = front_send_break,
	.disconnect = front_disconnect,
};

struct mux *mux_new(struct chardevs *set, struct chardev *backend)
{
	struct mux *m = xcalloc(1, sizeof(*m));

	m->set = set;
	m->backend = backend;
	m->peer = (struct chardev_peer){
		.can_receive = on_can_receive,
		.receive = on_receive,
		.writable = on_writable,
		.event = on_event,
		.opaque = m,
	};
	chardev_attach(backend, &m->peer);
	return m;
}

struct chardev *mux_take(struct mux *m, struct error **err)
{
	for (size_t i = 0; i < MUX_FRONTS; i++) {
		struct mux_front *f = &m->fronts[i];

		if (f->used)
			continue;
		*f = (struct mux_front){ .mux = m, .used = true };
		f->base.ops = &front_ops;
		f->base.id = m->backend->id;
		f->base.open = m->backend->open;
		f->base.taken = true;
		set_focus(m, f);
		return &f->base;
	}
	error_set(err, "chardev '%s' is shared by %d already", m->backend->id, MUX_FRONTS);
	return NULL;
}

bool mux_release(struct mux *m, struct chardev *c)
{
	for (size_t i = 0; i < MUX_FRONTS; i++) {
		struct mux_front *f = &m->fronts[i];

		if (&f->base != c)
			continue;
		f->base.peer = NULL;
		f->used = false;
		if (m->focus == f) {
			m->focus = NULL;
			next_focus(m);
		}
		return true;
	}
	return false;
}

void mux_free(struct mux *m)
{
	if (!m)
		return;
	chardev_attach(m->backend, NULL);
	free(m);
}
