/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_set_io_throttle: a drive's limits while it works. Main thread; the drive's own is told.
 */
#include <stdio.h>
#include <string.h>

#include "vmm/control/internal.h"

bool limits_change(struct control *control, const char *device, const json_t *args,
		   struct error **err)
{
	struct drive *d = drive_find(control, device);
	struct opts opts = { 0 };
	const char *key;
	json_t *value;
	char text[32];
	bool ok;

	if (!d) {
		error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", device);
		return false;
	}
	if (!d->node || !d->throttles) {
		error_set(err, "Device '%s' has no medium", device);
		return false;
	}
	json_object_foreach((json_t *)args, key, value)
	{
		snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
		if (json_is_integer(value))
			opts_add(&opts, key, text);
		else if (!strcmp(key, "group"))
			opts_add(&opts, key, json_string_value(value));
	}
	ok = throttle_change(d->throttles, d->node, d->id, &opts, err);
	opts_free(&opts);
	return ok;
}

static void put(void *opaque, const char *key, uint64_t value)
{
	json_object_set_new(opaque, key, json_integer(value));
}

void limits_describe(const struct drive *d, json_t *inserted)
{
	const char *group = throttle_group_of(d->node);

	throttle_describe(d->node, put, inserted);
	if (group)
		json_object_set_new(inserted, "group", json_string(group));
}
