/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QMP server (docs/interop/qmp-spec of QEMU): greeting, negotiation, one command at a time,
 * events. Main thread.
 *
 * Bytes are hostile. JSON that is merely wrong is answered; what no client of good will sends (bad
 * UTF-8, endless values, endless nesting, never reading) costs the connection.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/control/internal.h"
#include "vmm/control/json_stream.h"
#include "vmm/core/util.h"
#include "vmm/core/version.h"

struct qmp {
	struct session session;
	struct json_stream stream;
	uint8_t in[CHARDEV_BUFFER]; /* behind a command whose answer is still on its way */
	size_t in_start, in_len;
	bool pretty;
	bool connected, negotiated;
	bool busy;	     /* in a command, which may turn the loop */
	unsigned connection; /* counts clients: an answer is for the one who asked */
	bool dead;	     /* misbehaved: its connection is about to go */
	/* A reply that waits for its event, and the work that sends it should none come. */
	json_t *waiting;
	unsigned waiting_events;
	struct ev_work reply_work;
};

static void send_json(struct qmp *q, const json_t *json)
{
	char *text = json_dumps(json, JSON_ENSURE_ASCII | (q->pretty ? JSON_INDENT(4) : 0));

	if (text && q->connected && !q->dead) {
		session_puts(&q->session, text);
		session_puts(&q->session, "\r\n");
	}
	free(text);
}

static void send_greeting(struct qmp *q)
{
	json_t *json = json_pack("{s:{s:{s:{s:i, s:i, s:i}, s:s}, s:[]}}", "QMP", "version", "qemu",
				 "micro", QEMU_VERSION_MICRO, "minor", QEMU_VERSION_MINOR, "major",
				 QEMU_VERSION_MAJOR, "package", "vmm " VMM_VERSION, "capabilities");

	send_json(q, json);
	json_decref(json);
}

static json_t *error_reply(struct error *err)
{
	json_t *json = json_pack("{s:{s:s, s:s}}", "error", "class", error_class_name(err), "desc",
				 error_message(err));

	/* Text from the client that is quoted in a message was UTF-8; file names need not be. */
	if (!json)
		json = json_pack("{s:{s:s, s:s}}", "error", "class", error_class_name(err), "desc",
				 "the error's text is not UTF-8");
	error_free(err);
	return json;
}

static void misbehaved(struct qmp *q, const char *how)
{
	struct error *err = NULL;
	json_t *reply;

	error_set(&err, "%s: the connection is closed", how);
	reply = error_reply(err);
	send_json(q, reply);
	json_decref(reply);
	q->dead = true;
	json_stream_destroy(&q->stream);
	chardev_disconnect(q->session.chardev);
}

static void send_waiting(struct qmp *q)
{
	json_t *reply = q->waiting;

	if (!reply)
		return;
	q->waiting = NULL;
	send_json(q, reply);
	json_decref(reply);
	evloop_post(q->session.control->vm->loop, &q->reply_work);
}

/* One command at a time, and none while answers wait to be read. */
static bool blocked(const struct qmp *q)
{
	return q->busy || (!q->dead && (q->waiting || q->session.out_len));
}

static void handle_input(struct qmp *q);

static void go_on(struct qmp *q)
{
	handle_input(q);
	if (!blocked(q))
		chardev_accept_input(q->session.chardev);
}

static void on_drained(struct session *session)
{
	go_on(container_of(session, struct qmp, session));
}

static void on_reply_work(void *opaque)
{
	struct qmp *q = opaque;

	if (q->waiting)
		send_waiting(q);
	else
		go_on(q);
}

static void on_vm_event(struct session *session, const struct vm_event *event, const json_t *json)
{
	struct qmp *q = container_of(session, struct qmp, session);

	if (q->negotiated)
		send_json(q, json);
	if (q->waiting_events & (1u << event->kind))
		send_waiting(q);
}

static json_t *negotiate(struct qmp *q, const json_t *args, struct error **err)
{
	const json_t *enable = json_object_get(args, "enable");
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)args, key, value)
	{
		if (strcmp(key, "enable")) {
			error_set(err, "Parameter '%s' is unexpected", key);
			return NULL;
		}
	}
	if (enable && (!json_is_array(enable) || json_array_size(enable))) {
		error_set(err, "there are no capabilities to enable");
		return NULL;
	}
	q->negotiated = true;
	return json_object();
}

/* The parts of a request, borrowed from it. */
struct request {
	const char *execute;
	const json_t *args;
	json_t *id;
};

static bool read_request(const json_t *json, struct request *r, struct error **err)
{
	const char *key;
	json_t *value;

	*r = (struct request){ 0 };
	if (!json_is_object(json)) {
		error_set(err, "QMP input must be a JSON object");
		return false;
	}
	r->id = json_object_get(json, "id");
	json_object_foreach((json_t *)json, key, value)
	{
		if (!strcmp(key, "execute")) {
			r->execute = json_string_value(value);
			if (!r->execute) {
				error_set(err, "QMP input member 'execute' must be a string");
				return false;
			}
		} else if (!strcmp(key, "arguments")) {
			r->args = value;
			if (!json_is_object(value)) {
				error_set(err, "QMP input member 'arguments' must be an object");
				return false;
			}
		} else if (strcmp(key, "id")) {
			error_set(err, "QMP input member '%s' is unexpected", key);
			return false;
		}
	}
	if (!r->execute)
		error_set(err, "QMP input lacks member 'execute'");
	return r->execute != NULL;
}

static json_t *run(struct qmp *q, const struct request *r, unsigned *after, struct error **err)
{
	const struct qmp_command *command;
	bool caps = !strcmp(r->execute, "qmp_capabilities");

	if (!q->negotiated && caps)
		return negotiate(q, r->args, err);
	if (!q->negotiated || caps) {
		error_set_class(
			err, ERROR_COMMAND_NOT_FOUND,
			caps ? "Capabilities negotiation is already complete, command ignored"
			     : "Expecting capabilities negotiation with 'qmp_capabilities'");
		return NULL;
	}
	command = qmp_command_find(r->execute);
	if (!command) {
		error_set_class(err, ERROR_COMMAND_NOT_FOUND, "The command %s has not been found",
				r->execute);
		return NULL;
	}
	if (!qmp_check_args(command, r->args, err))
		return NULL;
	*after = command->after_events;
	return command->run(q->session.control, r->args, err);
}

static void handle_value(struct qmp *q, const json_t *json)
{
	struct vm *vm = q->session.control->vm;
	struct error *err = NULL;
	json_t *result = NULL, *reply;
	struct request r;
	bool failed;
	unsigned after = 0, connection = q->connection;

	q->busy = true;
	if (read_request(json, &r, &err))
		result = run(q, &r, &after, &err);
	q->busy = false;
	failed = err != NULL;
	reply = failed ? error_reply(err) : json_pack("{s:o}", "return", result);
	if (r.id)
		json_object_set(reply, "id", r.id);
	if (connection != q->connection) {
		json_decref(reply);
		return;
	}
	if (!failed && after && !vm->exiting) {
		/* What was asked for happens when the loop turns; its event comes first. */
		q->waiting = reply;
		q->waiting_events = after;
		evloop_post(vm->loop, &q->reply_work);
		return;
	}
	send_json(q, reply);
	json_decref(reply);
}

static void handle_text(struct qmp *q)
{
	json_error_t where;
	json_t *json = json_loadb(q->stream.buf, q->stream.len, JSON_REJECT_DUPLICATES, &where);
	struct error *err = NULL;
	json_t *reply;

	if (json) {
		handle_value(q, json);
		json_decref(json);
		return;
	}
	if (json_error_code(&where) == json_error_invalid_utf8) {
		misbehaved(q, "JSON parse error, invalid UTF-8");
		return;
	}
	error_set(&err, "JSON parse error, %s", where.text);
	reply = error_reply(err);
	send_json(q, reply);
	json_decref(reply);
}

static size_t can_receive(void *opaque)
{
	struct qmp *q = opaque;

	return q->session.control->held || blocked(q) || q->in_len ? 0 : sizeof(q->in);
}

static void garbage(struct qmp *q, uint8_t byte)
{
	struct error *err = NULL;
	json_t *reply;

	if (byte >= 0x80) {
		misbehaved(q, "JSON parse error, invalid UTF-8");
		return;
	}
	error_set(&err, "JSON parse error, a value begins with '{'");
	reply = error_reply(err);
	send_json(q, reply);
	json_decref(reply);
}

static void handle_byte(struct qmp *q, uint8_t byte)
{
	switch (json_stream_put(&q->stream, byte)) {
	case JSON_STREAM_MORE:
		break;
	case JSON_STREAM_VALUE:
		handle_text(q);
		break;
	case JSON_STREAM_GARBAGE:
		garbage(q, byte);
		break;
	case JSON_STREAM_TOO_BIG:
		misbehaved(q, "JSON token size limit exceeded");
		break;
	case JSON_STREAM_TOO_DEEP:
		misbehaved(q, "JSON nesting depth limit exceeded");
		break;
	}
}

static void handle_input(struct qmp *q)
{
	while (q->in_len && !blocked(q)) {
		q->in_len--;
		handle_byte(q, q->in[q->in_start++]);
		if (q->dead)
			q->in_len = 0;
	}
}

static void receive(void *opaque, const uint8_t *data, size_t len)
{
	struct qmp *q = opaque;

	if (q->dead)
		return;
	memcpy(q->in, data, len);
	q->in_start = 0;
	q->in_len = len;
	go_on(q);
}

static void forget_client(struct qmp *q)
{
	q->connected = q->negotiated = q->dead = false;
	q->connection++;
	q->in_len = 0;
	session_drop_output(&q->session);
	json_stream_destroy(&q->stream);
	json_stream_init(&q->stream);
	evloop_unpost(q->session.control->vm->loop, &q->reply_work);
	json_decref(q->waiting);
	q->waiting = NULL;
}

static void on_chardev_event(void *opaque, enum chardev_event event)
{
	struct qmp *q = opaque;

	if (event == CHARDEV_OPENED) {
		forget_client(q);
		q->connected = true;
		send_greeting(q);
	} else if (event == CHARDEV_CLOSED) {
		forget_client(q);
	}
}

static void qmp_free(struct session *s)
{
	struct qmp *q = container_of(s, struct qmp, session);

	/* A reply to quit may still wait: its event was sent. */
	send_waiting(q);
	forget_client(q);
	session_close(s);
	json_stream_destroy(&q->stream);
	free(q);
}

struct session *qmp_new(struct control *control, const char *chardev, bool pretty,
			struct error **err)
{
	struct qmp *q = xcalloc(1, sizeof(*q));

	q->pretty = pretty;
	q->session.free = qmp_free;
	q->session.vm_event = on_vm_event;
	q->session.drained = on_drained;
	q->session.peer.can_receive = can_receive;
	q->session.peer.receive = receive;
	q->session.peer.event = on_chardev_event;
	json_stream_init(&q->stream);
	ev_work_init(&q->reply_work, on_reply_work, q);
	if (!session_open(&q->session, control, chardev, err)) {
		free(q);
		return NULL;
	}
	return &q->session;
}
