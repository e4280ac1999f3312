/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of vmm/control/ share. Main thread.
 *
 * A session is one monitor: a chardev, text on its way out, and what a mode (QMP, people) makes of
 * bytes that come in.
 */
#ifndef VMM_CONTROL_INTERNAL_H
#define VMM_CONTROL_INTERNAL_H

#include <jansson.h>

#include "vmm/control/control.h"

/* A client that lets this much wait for it does not read. Sockets lose it; a terminal loses text.
 */
#define SESSION_MAX_OUTPUT (4u << 20)

struct session {
	struct control *control;
	struct chardev *chardev;
	struct chardev_peer peer;
	char *out;
	size_t out_start, out_len, out_room;
	void (*free)(struct session *s);
	/* All output has gone. */
	void (*drained)(struct session *s);
	/* vm->events, in order. */
	void (*vm_event)(struct session *s, const struct vm_event *event, const json_t *json);
	struct session *next;
};

/* session.c */
bool session_open(struct session *s, struct control *control, const char *chardev,
		  struct error **err);
void session_close(struct session *s);
void session_write(struct session *s, const char *text, size_t len);
void session_puts(struct session *s, const char *text);
/* Forgets what waits: the client is gone. */
void session_drop_output(struct session *s);

/* qmp.c, hmp.c */
struct session *qmp_new(struct control *control, const char *chardev, bool pretty,
			struct error **err);
struct session *hmp_new(struct control *control, const char *chardev, struct error **err);

/* events.c: QMP's event object. */
json_t *event_to_json(const struct vm_event *event);

/*
 * throttle.c: events that a guest can cause at will are told once a second, the newest of each
 * kind and device; others at once. So a guest can neither keep the loop busy nor cost a client that
 * reads slowly its connection.
 */
struct throttle {
	struct control *control;
	struct throttled *first;
	void (*tell)(struct control *control, const struct vm_event *event, const json_t *json);
};
void throttle_event(struct throttle *t, const struct vm_event *event);
void throttle_destroy(struct throttle *t);

struct control {
	struct vm *vm;
	struct chardevs *chardevs;
	struct drive **drives;
	struct session *first;
	struct notifier events;
	struct throttle throttle;
	bool held; /* clients' input waits */
};

/* commands.c: QMP's commands. */
enum qmp_arg_type { QMP_STRING, QMP_BOOL, QMP_INT };

struct qmp_arg {
	const char *name;
	enum qmp_arg_type type;
	bool optional;
};

struct qmp_command {
	const char *name;
	const struct qmp_arg *args; /* ends with name NULL; NULL: none */
	/* The value of "return", owned by the caller, or NULL with err. */
	json_t *(*run)(struct control *control, const json_t *args, struct error **err);
	/* The reply waits for one of these events (bits of 1 << enum vm_event_kind). */
	unsigned after_events;
};
extern const struct qmp_command qmp_commands[]; /* ends with name NULL */
const struct qmp_command *qmp_command_find(const char *name);
/* Against the command's table: names, types, presence. */
bool qmp_check_args(const struct qmp_command *command, const json_t *args, struct error **err);

/* hmp_commands.c: one line of a person's, with text for an answer. */
void hmp_run(struct control *control, const char *line, FILE *out);

/* medium.c */
/* filename NULL: takes the medium out. */
bool medium_change(struct control *control, const char *device, const char *filename,
		   const char *format, bool force, struct error **err);

/* limits.c: args are block_set_io_throttle's; what query-block tells of them. */
bool limits_change(struct control *control, const char *device, const json_t *args,
		   struct error **err);
void limits_describe(const struct drive *d, json_t *inserted);
struct drive *drive_find(struct control *control, const char *id);

#endif
