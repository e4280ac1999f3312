/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -cloud-init: the seed, and the read-only disk it is in. Main thread.
 */
#include <stdlib.h>
#include <unistd.h>

#include "vmm/cli/cli.h"
#include "vmm/cloudinit/seed.h"
#include "vmm/core/util.h"

static void add_drive(struct vm_config *config, int fd)
{
	struct config_item *device;
	struct config_drive *d;
	char *path = xasprintf("/proc/self/fd/%d", fd);

	config->drives = xrealloc(config->drives,
				  (config->drive_count + 1) * sizeof(*config->drives));
	d = &config->drives[config->drive_count++];
	*d = (struct config_drive){
		.id = xstrdup("cloud-init"),
		.iface = CONFIG_IF_VIRTIO,
		.index = UINT16_MAX, /* beyond those that can be asked for */
		.readonly = true,
		.werror = CONFIG_ON_ERROR_ENOSPC,
		.has_medium = true,
		.from = xstrdup(config->cloud_init.from),
	};
	opts_add(&d->block, "file", path);
	opts_add(&d->block, "format", "raw");
	opts_add(&d->block, "read-only", "on");
	free(path);
	device = config_list_add(&config->devices, config->cloud_init.from);
	opts_add(&device->opts, "driver", "virtio-blk-pci");
	opts_add(&device->opts, "drive", d->id);
}

bool cli_make_seed(struct vm_config *config, int *fd, struct error **err)
{
	const struct config_cloud_init *ci = &config->cloud_init;
	struct seed_options o = {
		.user_data = ci->user_data,
		.meta_data = ci->meta_data,
		.network_config = ci->network_config,
		.ssh_key = ci->ssh_key,
		.name = config->name,
	};

	*fd = -1;
	if (!ci->from)
		return true;
	*fd = seed_build(&o, err);
	if (*fd < 0 || config_find_drive(config, "cloud-init")) {
		if (*fd >= 0) {
			error_set(err, "there is a drive 'cloud-init' already");
			close(*fd);
			*fd = -1;
		}
		error_prefix(err, "%s: ", ci->from);
		return false;
	}
	add_drive(config, *fd);
	return true;
}
