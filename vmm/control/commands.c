/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP's commands, in one table: names, arguments, what they do. query-commands and the check of
 * arguments read the same table. Main thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/internal.h"
#include "vmm/core/util.h"
#include "vmm/core/version.h"

#define RINGBUF_READ_MAX (1 << 20)

static const char *string_arg(const json_t *args, const char *name)
{
	return json_string_value(json_object_get(args, name));
}

static json_t *cmd_query_status(struct control *c, const json_t *args, struct error **err)
{
	return json_pack("{s:s, s:b, s:b}", "status", run_state_name(c->vm->state), "singlestep", 0,
			 "running", vm_is_running(c->vm));
}

static json_t *cmd_query_version(struct control *c, const json_t *args, struct error **err)
{
	return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "micro", QEMU_VERSION_MICRO, "minor",
			 QEMU_VERSION_MINOR, "major", QEMU_VERSION_MAJOR, "package",
			 "vmm " VMM_VERSION);
}

static json_t *cmd_query_name(struct control *c, const json_t *args, struct error **err)
{
	return c->vm->name ? json_pack("{s:s}", "name", c->vm->name) : json_object();
}

static json_t *cmd_query_uuid(struct control *c, const json_t *args, struct error **err)
{
	const uint8_t *u = c->vm->uuid;

	return json_pack("{s:o}", "UUID",
			 json_sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
				      "%02x%02x%02x%02x%02x%02x",
				      u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9],
				      u[10], u[11], u[12], u[13], u[14], u[15]));
}

static json_t *cmd_query_kvm(struct control *c, const json_t *args, struct error **err)
{
	return json_pack("{s:b, s:b}", "enabled", 1, "present", 1);
}

static json_t *cmd_query_target(struct control *c, const json_t *args, struct error **err)
{
	return json_pack("{s:s}", "arch", "x86_64");
}

static void add_chardev(void *opaque, const char *id, const char *filename, bool open)
{
	json_array_append_new(opaque, json_pack("{s:b, s:s, s:s}", "frontend-open", open,
						"filename", filename, "label", id));
}

static json_t *cmd_query_chardev(struct control *c, const json_t *args, struct error **err)
{
	json_t *list = json_array();

	chardevs_each(c->chardevs, add_chardev, list);
	return list;
}

static json_t *cmd_query_commands(struct control *c, const json_t *args, struct error **err)
{
	json_t *list = json_array();

	json_array_append_new(list, json_pack("{s:s}", "name", "qmp_capabilities"));
	for (const struct qmp_command *command = qmp_commands; command->name; command++)
		json_array_append_new(list, json_pack("{s:s}", "name", command->name));
	return list;
}

static json_t *describe_medium(const struct drive *d)
{
	const struct block_node *node = d->node;

	json_t *o = json_pack("{s:s, s:s, s:b, s:s, s:b, s:{s:s, s:s, s:I}}", "file",
			      block_filename(node), "drv", block_format(node), "ro",
			      block_read_only(node), "node-name", block_name(node), "encrypted",
			      block_encrypted(node), "image", "filename", block_filename(node), "format",
			      block_format(node), "virtual-size", (json_int_t)block_length(node));

	limits_describe(d, o);
	return o;
}

static json_t *cmd_query_block(struct control *c, const json_t *args, struct error **err)
{
	json_t *list = json_array();

	for (struct drive *d = c->drives ? *c->drives : NULL; d; d = d->next) {
		json_t *info = json_pack("{s:s, s:b, s:b, s:s}", "device", d->id, "locked",
					 d->removable_locked, "removable", d->cdrom, "type",
					 "unknown");

		if (d->taken_by)
			json_object_set_new(info, "qdev", json_string(d->taken_by));
		if (d->node)
			json_object_set_new(info, "inserted", describe_medium(d));
		json_array_append_new(list, info);
	}
	return list;
}

static json_t *cmd_stop(struct control *c, const json_t *args, struct error **err)
{
	vm_stop(c->vm, RUN_STATE_PAUSED);
	return json_object();
}

static json_t *cmd_cont(struct control *c, const json_t *args, struct error **err)
{
	if (c->vm->state == RUN_STATE_SHUTDOWN || c->vm->state == RUN_STATE_INTERNAL_ERROR) {
		error_set(err, "Resetting the Virtual Machine is required");
		return NULL;
	}
	vm_start(c->vm);
	return json_object();
}

static json_t *cmd_system_reset(struct control *c, const json_t *args, struct error **err)
{
	vm_request_reset(c->vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	return json_object();
}

static json_t *cmd_system_powerdown(struct control *c, const json_t *args, struct error **err)
{
	vm_request_powerdown(c->vm);
	return json_object();
}

static json_t *cmd_quit(struct control *c, const json_t *args, struct error **err)
{
	vm_request_shutdown(c->vm, CAUSE_HOST_QMP_QUIT);
	return json_object();
}

static json_t *cmd_human(struct control *c, const json_t *args, struct error **err)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	json_t *result;

	if (!out) {
		error_set_errno(err, errno, "no memory for the answer");
		return NULL;
	}
	hmp_run(c, string_arg(args, "command-line"), out);
	fclose(out);
	result = json_stringn(text, len);
	free(text);
	if (!result)
		error_set(err, "the answer is not UTF-8");
	return result;
}

/* QMP names a drive by its id, in either of two arguments. */
static const char *drive_arg(const json_t *args, struct error **err)
{
	const char *device = string_arg(args, "device"), *id = string_arg(args, "id");

	if (!device == !id)
		error_set(err, "Need exactly one of 'device' and 'id'");
	return !device == !id ? NULL : device ? device : id;
}

static json_t *cmd_eject(struct control *c, const json_t *args, struct error **err)
{
	const char *drive = drive_arg(args, err);
	bool force = json_is_true(json_object_get(args, "force"));

	return drive && medium_change(c, drive, NULL, NULL, force, err) ? json_object() : NULL;
}

static json_t *cmd_change_medium(struct control *c, const json_t *args, struct error **err)
{
	const char *drive = drive_arg(args, err);
	bool force = json_is_true(json_object_get(args, "force"));

	if (!drive || !medium_change(c, drive, string_arg(args, "filename"),
				     string_arg(args, "format"), force, err))
		return NULL;
	return json_object();
}

static json_t *cmd_set_io_throttle(struct control *c, const json_t *args, struct error **err)
{
	const char *drive = drive_arg(args, err);

	return drive && limits_change(c, drive, args, err) ? json_object() : NULL;
}

static bool ringbuf_error(long n, const char *id, struct error **err)
{
	if (n == -ENOENT)
		error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", id);
	else if (n < 0)
		error_set(err, "'%s' is not a ringbuf device", id);
	return n < 0;
}

static json_t *cmd_ringbuf_read(struct control *c, const json_t *args, struct error **err)
{
	const char *device = string_arg(args, "device");
	json_int_t size = json_integer_value(json_object_get(args, "size"));
	json_t *result = NULL;
	uint8_t *buf;
	long n;

	if (size <= 0 || size > RINGBUF_READ_MAX) {
		error_set(err, "size must be greater than zero and at most %d", RINGBUF_READ_MAX);
		return NULL;
	}
	buf = xmalloc(size);
	n = chardevs_ringbuf_read(c->chardevs, device, buf, size);
	if (!ringbuf_error(n, device, err)) {
		/* A guest may write anything; QMP carries text. */
		for (long i = 0; i < n; i++)
			if (buf[i] >= 0x80 || buf[i] == 0)
				buf[i] = '?';
		result = json_stringn((char *)buf, n);
	}
	free(buf);
	return result;
}

static json_t *cmd_ringbuf_write(struct control *c, const json_t *args, struct error **err)
{
	const char *device = string_arg(args, "device"), *data = string_arg(args, "data");
	long n = chardevs_ringbuf_write(c->chardevs, device, (const uint8_t *)data, strlen(data));

	return ringbuf_error(n, device, err) ? NULL : json_object();
}

static const struct qmp_arg human_args[] = { { "command-line", QMP_STRING }, { NULL } };
static const struct qmp_arg eject_args[] = { { "device", QMP_STRING, true },
					     { "id", QMP_STRING, true },
					     { "force", QMP_BOOL, true },
					     { NULL } };
static const struct qmp_arg change_args[] = {
	{ "device", QMP_STRING, true }, { "id", QMP_STRING, true },  { "filename", QMP_STRING },
	{ "format", QMP_STRING, true }, { "force", QMP_BOOL, true }, { NULL }
};
static const struct qmp_arg throttle_args[] = {
	{ "device", QMP_STRING, true },
	{ "id", QMP_STRING, true },
	{ "group", QMP_STRING, true },
	{ "bps", QMP_INT },
	{ "bps_rd", QMP_INT },
	{ "bps_wr", QMP_INT },
	{ "iops", QMP_INT },
	{ "iops_rd", QMP_INT },
	{ "iops_wr", QMP_INT },
	{ "bps_max", QMP_INT, true },
	{ "bps_max_length", QMP_INT, true },
	{ "bps_rd_max", QMP_INT, true },
	{ "bps_rd_max_length", QMP_INT, true },
	{ "bps_wr_max", QMP_INT, true },
	{ "bps_wr_max_length", QMP_INT, true },
	{ "iops_max", QMP_INT, true },
	{ "iops_max_length", QMP_INT, true },
	{ "iops_rd_max", QMP_INT, true },
	{ "iops_rd_max_length", QMP_INT, true },
	{ "iops_wr_max", QMP_INT, true },
	{ "iops_wr_max_length", QMP_INT, true },
	{ "iops_size", QMP_INT, true },
	{ NULL },
};
static const struct qmp_arg set_link_args[] = {{"name", QMP_STRING}, {"up", QMP_BOOL}, {NULL}};
static const struct qmp_arg netdev_add_args[] = {{"type", QMP_STRING}, {"id", QMP_STRING}, {NULL}};
static const struct qmp_arg netdev_del_args[] = {{"id", QMP_STRING}, {NULL}};
static const struct qmp_arg rx_filter_args[] = {{"name", QMP_STRING, true}, {NULL}};
static const struct qmp_arg announce_args[] = {{"initial", QMP_INT},
					       {"max", QMP_INT},
					       {"rounds", QMP_INT},
					       {"step", QMP_INT},
					       {"interfaces", QMP_LIST, true},
					       {NULL}};
static const struct qmp_arg ringbuf_read_args[] = { { "device", QMP_STRING },
						    { "size", QMP_INT },
						    { NULL } };
static const struct qmp_arg ringbuf_write_args[] = { { "device", QMP_STRING },
						     { "data", QMP_STRING },
						     { NULL } };

const struct qmp_command qmp_commands[] = {
	{ "block_set_io_throttle", throttle_args, cmd_set_io_throttle },
	{ "announce-self", announce_args, net_cmd_announce },
	{ "blockdev-change-medium", change_args, cmd_change_medium },
	{ "cont", NULL, cmd_cont },
	{ "eject", eject_args, cmd_eject },
	{ "human-monitor-command", human_args, cmd_human },
	{ "netdev_add", netdev_add_args, net_cmd_add, .more_args = true },
	{ "netdev_del", netdev_del_args, net_cmd_del },
	{ "query-block", NULL, cmd_query_block },
	{ "query-chardev", NULL, cmd_query_chardev },
	{ "query-commands", NULL, cmd_query_commands },
	{ "query-kvm", NULL, cmd_query_kvm },
	{ "query-name", NULL, cmd_query_name },
	{ "query-rx-filter", rx_filter_args, net_cmd_query_rx_filter },
	{ "query-status", NULL, cmd_query_status },
	{ "query-target", NULL, cmd_query_target },
	{ "query-uuid", NULL, cmd_query_uuid },
	{ "query-version", NULL, cmd_query_version },
	{ "quit", NULL, cmd_quit, 1 << VM_EVENT_SHUTDOWN },
	{ "ringbuf-read", ringbuf_read_args, cmd_ringbuf_read },
	{ "ringbuf-write", ringbuf_write_args, cmd_ringbuf_write },
	{ "set_link", set_link_args, net_cmd_set_link },
	{ "stop", NULL, cmd_stop },
	{ "system_powerdown", NULL, cmd_system_powerdown, 1 << VM_EVENT_POWERDOWN },
	{ "system_reset", NULL, cmd_system_reset, 1 << VM_EVENT_RESET | 1 << VM_EVENT_SHUTDOWN },
	{ NULL },
};

const struct qmp_command *qmp_command_find(const char *name)
{
	for (const struct qmp_command *c = qmp_commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static bool has_type(const json_t *value, enum qmp_arg_type type)
{
	switch (type) {
	case QMP_STRING:
		return json_is_string(value);
	case QMP_BOOL:
		return json_is_boolean(value);
	case QMP_INT:
		return json_is_integer(value);
	case QMP_LIST:
		return json_is_array(value);
	}
	return false;
}

bool qmp_check_args(const struct qmp_command *command, const json_t *args, struct error **err)
{
	static const char *const type_names[] = { "string", "boolean", "integer", "array" };
	const struct qmp_arg *a;
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)args, key, value)
	{
		for (a = command->args; a && a->name && strcmp(a->name, key); a++)
			;
		if ((!a || !a->name) && command->more_args)
			continue;
		if (!a || !a->name) {
			error_set(err, "Parameter '%s' is unexpected", key);
			return false;
		}
		if (!has_type(value, a->type)) {
			error_set(err, "Invalid parameter type for '%s', expected: %s", key,
				  type_names[a->type]);
			return false;
		}
	}
	for (a = command->args; a && a->name; a++) {
		if (!a->optional && !json_object_get(args, a->name)) {
			error_set(err, "Parameter '%s' is missing", a->name);
			return false;
		}
	}
	return true;
}
