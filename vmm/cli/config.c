/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct vm_config: its defaults and its end. Main thread; owned by the program's main.
 */
#include "vmm/config.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

#define DEFAULT_MEMORY (128 * MiB)

void config_init(struct vm_config *config)
{
	*config = (struct vm_config){
		.memory = { .size = DEFAULT_MEMORY, .maxmem = DEFAULT_MEMORY },
		.smp = { 1, 1, 1, 1, 1, 1, NULL },
		.machine = { .type = xstrdup("q35"),
			     .accel = xstrdup("kvm"),
			     .dump_guest_core = true,
			     .mem_merge = true },
		.escape_char = 1,
		.panic_action = CONFIG_PANIC_SHUTDOWN,
	};
}

struct config_item *config_list_add(struct config_list *list, const char *from)
{
	struct config_item *item;

	list->items = xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
	item = &list->items[list->count++];
	*item = (struct config_item){ .from = xstrdup(from) };
	return item;
}

void config_list_free(struct config_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		opts_free(&list->items[i].opts);
		free(list->items[i].from);
	}
	free(list->items);
	*list = (struct config_list){0};
}

struct config_drive *config_find_drive(const struct vm_config *config, const char *id)
{
	for (size_t i = 0; i < config->drive_count; i++)
		if (!strcmp(config->drives[i].id, id))
			return &config->drives[i];
	return NULL;
}

static void drives_free(struct vm_config *config)
{
	for (size_t i = 0; i < config->drive_count; i++) {
		struct config_drive *d = &config->drives[i];

		free(d->id);
		free(d->serial);
		free(d->from);
		opts_free(&d->block);
	}
	free(config->drives);
}

void config_free(struct vm_config *config)
{
	struct config_list *lists[] = { &config->chardevs, &config->objects, &config->blockdevs,
					&config->devices,  &config->fw_cfg,  &config->smbios,
					&config->netdevs };
	char *strings[] = {
		config->device_help_of,
		config->memory.from,
		config->memory.path,
		config->machine.memory_backend,
		config->smp.from,
		config->machine.type,
		config->machine.version,
		config->machine.accel,
		config->machine.from,
		config->cpu,
		config->kernel,
		config->initrd,
		config->append,
		config->bios,
		config->boot.order,
		config->boot.once,
		config->cloud_init.user_data,
		config->cloud_init.meta_data,
		config->cloud_init.network_config,
		config->cloud_init.ssh_key,
		config->cloud_init.from,
		config->name,
		config->process_name,
		config->pidfile,
		config->log_file,
		config->log_items,
	};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		config_list_free(lists[i]);
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
		free(strings[i]);
	for (size_t i = 0; i < ARRAY_SIZE(config->serials); i++)
		free(config->serials[i].chardev);
	for (size_t i = 0; i < config->monitor_count; i++) {
		free(config->monitors[i].chardev);
		free(config->monitors[i].from);
	}
	free(config->monitors);
	drives_free(config);
	opts_free(&config->globals);
	*config = (struct vm_config){ 0 };
}
