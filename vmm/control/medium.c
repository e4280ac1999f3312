/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking the medium out of a CD-ROM drive and putting another one in. Main thread; the device that
 * has the drive is told and tells the guest.
 */
#include <string.h>

#include "vmm/control/internal.h"

struct drive *drive_find(struct control *control, const char *id)
{
	struct drive *d = control->drives ? *control->drives : NULL;

	while (d && strcmp(d->id, id))
		d = d->next;
	return d;
}

static struct block_node *open_medium(struct control *control, const char *filename,
				      const char *format, struct error **err)
{
	struct opts opts = { 0 };
	struct block_node *node;

	opts_add(&opts, "file", filename);
	opts_add(&opts, "read-only", "on");
	if (format)
		opts_add(&opts, "format", format);
	node = block_open(control->vm->loop, &opts, err);
	opts_free(&opts);
	return node;
}

bool medium_change(struct control *control, const char *device, const char *filename,
		   const char *format, bool force, struct error **err)
{
	struct drive *d = drive_find(control, device);
	struct block_node *old, *node = NULL;

	if (!d) {
		error_set_class(err, ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", device);
		return false;
	}
	if (!d->cdrom || (d->taken_by && !d->medium_changed)) {
		error_set(err, "Device '%s' is not removable", device);
		return false;
	}
	if (d->removable_locked && !force) {
		error_set(err, "Device '%s' is locked by the guest and force was not given",
			  device);
		return false;
	}
	if (filename) {
		node = open_medium(control, filename, format, err);
		if (!node)
			return false;
	}
	old = d->node;
	if (old)
		block_drain(old);
	d->node = node;
	if (d->medium_changed)
		d->medium_changed(d, d->opaque);
	if (old)
		block_unref(old);
	return true;
}
