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
json_t *event_named(const char *name, json_t *data); /* takes data, which may be NULL */

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

/* network.c: announce-self goes on for some time. */
struct announcer {
	struct control *control;
	struct ev_timer timer;
	json_t *names; /* of back ends or cards; NULL: all */
	int64_t delay, max, step, rounds; /* ms */
};

struct control {
	struct vm *vm;
	struct chardevs *chardevs;
	struct drive **drives;
	struct netdevs *netdevs;
	struct notifier net_events;
	struct announcer announcer;
	struct session *first;
	struct notifier events;
	struct throttle throttle;
	bool held; /* clients' input waits */
};

/* commands.c: QMP's commands. */
enum qmp_arg_type { QMP_STRING, QMP_BOOL, QMP_INT, QMP_LIST };

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
	bool more_args; /* what the table does not name is for run to judge */
};
extern const struct qmp_command qmp_commands[]; /* ends with name NULL */
const struct qmp_command *qmp_command_find(const char *name);
/* Against the command's table: names, types, presence. */
bool qmp_check_args(const struct qmp_command *command, const json_t *args, struct error **err);

/* network.c */
json_t *net_cmd_set_link(struct control *c, const json_t *args, struct error **err);
json_t *net_cmd_add(struct control *c, const json_t *args, struct error **err);
json_t *net_cmd_del(struct control *c, const json_t *args, struct error **err);
json_t *net_cmd_announce(struct control *c, const json_t *args, struct error **err);
json_t *net_cmd_query_rx_filter(struct control *c, const json_t *args, struct error **err);
void net_info_network(struct control *c, FILE *out);
void net_info_usernet(struct control *c, FILE *out);
/* id NULL: the first back end that can. */
bool net_hostfwd(struct control *c, const char *id, const char *rule, bool add,
		 struct error **err);
/* netdev_add of the monitor: "user,id=n0". */
bool net_add_line(struct control *c, const char *line, struct error **err);
void net_init(struct control *c);
void net_destroy(struct control *c);

/* session.c: to all monitors. */
void control_tell(struct control *c, const struct vm_event *event, const json_t *json);

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
