/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's events as QMP tells them (qapi/run-state.json, qapi/block-core.json,
 * qapi/misc-target.json). Main thread.
 */
#include <errno.h>
#include <string.h>

#include "vmm/control/internal.h"
#include "vmm/core/util.h"

static const char *const names[] = {
	[VM_EVENT_STOP] = "STOP",
	[VM_EVENT_RESUME] = "RESUME",
	[VM_EVENT_RESET] = "RESET",
	[VM_EVENT_SHUTDOWN] = "SHUTDOWN",
	[VM_EVENT_POWERDOWN] = "POWERDOWN",
	[VM_EVENT_GUEST_PANICKED] = "GUEST_PANICKED",
	[VM_EVENT_DEVICE_DELETED] = "DEVICE_DELETED",
	[VM_EVENT_BLOCK_IO_ERROR] = "BLOCK_IO_ERROR",
	[VM_EVENT_RTC_CHANGE] = "RTC_CHANGE",
	[VM_EVENT_TRAY_MOVED] = "DEVICE_TRAY_MOVED",
	[VM_EVENT_BLOCK_IMAGE_CORRUPTED] = "BLOCK_IMAGE_CORRUPTED",
};

static json_t *io_error_data(const struct vm_event *e)
{
	return json_pack("{s:s, s:s, s:s, s:b, s:s}", "device", e->device ? e->device : "",
			 "operation", e->operation, "action", e->action, "nospace",
			 e->error == ENOSPC, "reason", strerror(e->error));
}

/* The image is not used any more, which is what "fatal" means. */
static json_t *corrupted_data(const struct vm_event *e)
{
	json_t *data = json_pack("{s:s, s:s, s:b}", "device", e->device ? e->device : "", "msg",
				 e->message, "fatal", 1);

	if (e->node_name && *e->node_name)
		json_object_set_new(data, "node-name", json_string(e->node_name));
	return data;
}

/* NULL: the event has none. */
static json_t *event_data(const struct vm_event *e)
{
	switch (e->kind) {
	case VM_EVENT_RESET:
	case VM_EVENT_SHUTDOWN:
		return json_pack("{s:b, s:s}", "guest", shutdown_cause_is_guest(e->cause), "reason",
				 shutdown_cause_name(e->cause));
	case VM_EVENT_GUEST_PANICKED:
		return json_pack("{s:s}", "action", e->action);
	case VM_EVENT_DEVICE_DELETED:
		return e->device && *e->device
			       ? json_pack("{s:s, s:o}", "device", e->device, "path",
					   json_sprintf("/machine/peripheral/%s", e->device))
			       : json_object();
	case VM_EVENT_BLOCK_IO_ERROR:
		return io_error_data(e);
	case VM_EVENT_BLOCK_IMAGE_CORRUPTED:
		return corrupted_data(e);
	case VM_EVENT_RTC_CHANGE:
		return json_pack("{s:I}", "offset", (json_int_t)e->value);
	case VM_EVENT_TRAY_MOVED:
		return json_pack("{s:s, s:s, s:b}", "device", e->device ? e->device : "", "id",
				 e->device ? e->device : "", "tray-open", e->value != 0);
	default:
		return NULL;
	}
}

json_t *event_named(const char *name, json_t *data)
{
	int64_t now = clock_now(&clock_realtime);
	json_t *json = json_pack("{s:{s:I, s:I}, s:s}", "timestamp", "seconds",
				 (json_int_t)(now / NSEC_PER_SEC), "microseconds",
				 (json_int_t)(now % NSEC_PER_SEC / 1000), "event", name);

	if (data)
		json_object_set_new(json, "data", data);
	return json;
}

json_t *event_to_json(const struct vm_event *event)
{
	return event_named(names[event->kind], event_data(event));
}
