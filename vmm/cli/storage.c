/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks: -drive and its shorthands, -blockdev. Each drive gets QEMU's interface, index and id, and
 * those of if=virtio and if=ide their device. Main thread.
 *
 * Two rules differ from QEMU's and are told in the manual: a drive without if= is virtio, and a
 * media=cdrom drive without if= whose ISO is called cidata becomes a read-only virtio disk.
 */
#include "vmm/cli/parse.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cli/iso.h"
#include "vmm/core/util.h"

#define AHCI_PORTS   6
#define PFLASH_UNITS 2
#define MAX_INDEX    1024

static struct cli_drive *add_drive(struct cli *cli)
{
	struct cli_drive *d;

	cli->drives = xrealloc(cli->drives, (cli->drive_count + 1) * sizeof(*cli->drives));
	d = &cli->drives[cli->drive_count++];
	*d = (struct cli_drive){ .from = xstrdup(cli->from) };
	return d;
}

CLI_HANDLER(cli_opt_drive)
{
	return opts_parse(&add_drive(cli)->opts, arg, NULL, err);
}

static void add_shorthand(struct cli *cli, const char *file, const char *key, const char *value)
{
	struct cli_drive *d = add_drive(cli);

	opts_add(&d->opts, "file", file);
	opts_add(&d->opts, key, value);
}

CLI_HANDLER(cli_opt_hda)
{
	add_shorthand(cli, arg, "index", "0");
	return true;
}

CLI_HANDLER(cli_opt_hdb)
{
	add_shorthand(cli, arg, "index", "1");
	return true;
}

CLI_HANDLER(cli_opt_hdc)
{
	add_shorthand(cli, arg, "index", "2");
	return true;
}

CLI_HANDLER(cli_opt_hdd)
{
	add_shorthand(cli, arg, "index", "3");
	return true;
}

CLI_HANDLER(cli_opt_cdrom)
{
	add_shorthand(cli, arg, "media", "cdrom");
	return true;
}

CLI_HANDLER(cli_opt_pflash)
{
	add_shorthand(cli, arg, "if", "pflash");
	opts_add(&cli->drives[cli->drive_count - 1].opts, "format", "raw");
	return true;
}

CLI_HANDLER(cli_opt_snapshot)
{
	cli->snapshot = true;
	return true;
}

CLI_HANDLER(cli_opt_blockdev)
{
	struct config_list *list = &cli->config->blockdevs;
	struct config_item *item = config_list_add(list, cli->from);
	const char *name;

	if (!opts_parse(&item->opts, arg, "driver", err))
		return false;
	if (!opts_has(&item->opts, "driver")) {
		error_set(err, "driver is missing");
		return false;
	}
	name = opts_peek(&item->opts, "node-name");
	if (!name || !*name) {
		error_set(err, "node-name is missing");
		return false;
	}
	for (size_t i = 0; i + 1 < list->count; i++) {
		if (!strcmp(opts_peek(&list->items[i].opts, "node-name"), name)) {
			error_set(err, "there is a node '%s' already", name);
			return false;
		}
	}
	return true;
}

static bool drive_interface(struct cli_drive *raw, struct config_drive *d, struct error **err)
{
	static const char *const names[] = { "none", "virtio", "ide", "pflash" };
	static const char *const absent[] = { "scsi", "sd", "floppy", "mtd", "xen" };
	const char *iface = opts_get(&raw->opts, "if");
	const char *file, *near;

	if (!iface || !strcmp(iface, "default")) {
		d->iface = CONFIG_IF_VIRTIO;
		if (d->cdrom) {
			file = opts_peek(&raw->opts, "file");
			if (!file || !iso_is_cidata(file))
				d->iface = CONFIG_IF_IDE;
		}
		return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(iface, names[i])) {
			d->iface = i;
			return true;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
		if (!strcmp(iface, absent[i])) {
			error_set(err, "if=%s is not supported by this build", iface);
			return false;
		}
	}
	near = nearest_name(iface, names, ARRAY_SIZE(names));
	if (near)
		error_set(err, "unknown interface 'if=%s'; did you mean '%s'?", iface, near);
	else
		error_set(err, "unknown interface 'if=%s': it is virtio, ide, pflash or none",
			  iface);
	return false;
}

static bool drive_policy(struct opts *opts, const char *key, enum config_on_error *out,
			 struct error **err)
{
	static const char *const names[] = { "report", "ignore", "stop", "enospc", NULL };
	int value = *out;

	if (!opts_get_enum(opts, key, names, &value, err))
		return false;
	if (!strcmp(key, "rerror") && value == CONFIG_ON_ERROR_ENOSPC) {
		error_set(err, "rerror is report, ignore or stop: reads need no space");
		return false;
	}
	*out = value;
	return true;
}

static bool index_taken(const struct vm_config *config, enum config_drive_if iface, unsigned index)
{
	for (size_t i = 0; i < config->drive_count; i++)
		if (config->drives[i].iface == iface && config->drives[i].index == index)
			return true;
	return false;
}

/* index=, or bus= and unit=, of which each interface here has but one per bus or one bus. */
static bool drive_place(const struct vm_config *config, struct cli_drive *raw,
			struct config_drive *d, struct error **err)
{
	static const unsigned limits[] = { MAX_INDEX, MAX_INDEX, AHCI_PORTS, PFLASH_UNITS };
	uint64_t index = UINT64_MAX, bus = 0, unit = 0;
	bool placed = opts_has(&raw->opts, "bus") || opts_has(&raw->opts, "unit");

	if (!opts_get_u64(&raw->opts, "index", &index, err) ||
	    !opts_get_u64(&raw->opts, "bus", &bus, err) ||
	    !opts_get_u64(&raw->opts, "unit", &unit, err))
		return false;
	if (placed) {
		if (index != UINT64_MAX) {
			error_set(err, "index says the same as bus and unit: give one of them");
			return false;
		}
		if (d->iface == CONFIG_IF_IDE ? unit : bus) {
			error_set(err, "there is no bus %" PRIu64 " with a unit %" PRIu64, bus,
				  unit);
			return false;
		}
		index = d->iface == CONFIG_IF_IDE ? bus : unit;
	}
	if (index == UINT64_MAX) {
		index = !strncmp(raw->from, "-cdrom ", 7) && d->iface == CONFIG_IF_IDE ? 2 : 0;
		while (index_taken(config, d->iface, index))
			index++;
	}
	if (index >= limits[d->iface]) {
		error_set(err, "there is no place %" PRIu64 ": the interface has %u", index,
			  limits[d->iface]);
		return false;
	}
	if (index_taken(config, d->iface, index)) {
		error_set(err, "there is a drive with index %" PRIu64 " already", index);
		return false;
	}
	d->index = index;
	return true;
}

static bool drive_id(const struct vm_config *config, struct cli_drive *raw, struct config_drive *d,
		     struct error **err)
{
	static const char *const prefix[] = { "none", "virtio", "ide", "pflash" };
	const char *id = opts_get(&raw->opts, "id");

	if (id)
		d->id = xstrdup(id);
	else if (d->iface == CONFIG_IF_IDE)
		d->id = xasprintf("ide%u-%s0", d->index, d->cdrom ? "cd" : "hd");
	else
		d->id = xasprintf("%s%u", prefix[d->iface], d->index);
	if (config_find_drive(config, d->id)) {
		error_set(err, "there is a drive '%s' already", d->id);
		return false;
	}
	return true;
}

/* What was not taken here is block_open()'s to know. */
static void drive_block_options(struct cli *cli, struct cli_drive *raw, struct config_drive *d)
{
	static const char *const ours[] = { "if",     "index",	  "bus",      "unit",
					    "media",  "id",	  "serial",   "rerror",
					    "werror", "readonly", "read-only" };
	bool snapshot = false;

	for (size_t i = 0; i < raw->opts.count; i++) {
		const struct opt *o = &raw->opts.items[i];
		bool mine = false;

		for (size_t k = 0; k < ARRAY_SIZE(ours); k++)
			mine |= !strcmp(o->key, ours[k]);
		if (mine || (!strcmp(o->key, "file") && !*o->value))
			continue;
		opts_add(&d->block, o->key, o->value);
		d->has_medium |= !strcmp(o->key, "file") || !strncmp(o->key, "file.", 5) ||
				 !strcmp(o->key, "driver");
		snapshot |= !strcmp(o->key, "snapshot");
	}
	if (d->readonly)
		opts_add(&d->block, "read-only", "on");
	else if (cli->snapshot && !snapshot && d->has_medium)
		opts_add(&d->block, "snapshot", "on");
}

static bool settle_drive(struct cli *cli, struct cli_drive *raw, struct config_drive *d,
			 struct error **err)
{
	static const char *const media[] = { "disk", "cdrom", NULL };
	struct opts *opts = &raw->opts;
	const char *serial;
	int medium = 0;

	d->from = xstrdup(raw->from);
	d->werror = CONFIG_ON_ERROR_ENOSPC;
	if (!opts_get_enum(opts, "media", media, &medium, err))
		return false;
	d->cdrom = medium == 1;
	d->readonly = d->cdrom;
	if (!opts_get_bool(opts, "readonly", &d->readonly, err) ||
	    !opts_get_bool(opts, "read-only", &d->readonly, err))
		return false;
	d->readonly |= d->cdrom;
	if (!drive_interface(raw, d, err) || !drive_place(cli->config, raw, d, err) ||
	    !drive_id(cli->config, raw, d, err) || !drive_policy(opts, "rerror", &d->rerror, err) ||
	    !drive_policy(opts, "werror", &d->werror, err))
		return false;
	if (d->cdrom && d->iface == CONFIG_IF_VIRTIO)
		d->cdrom = false; /* a plain disk that cannot be written */
	if ((serial = opts_get(opts, "serial")))
		cli_set_string(&d->serial, serial);
	drive_block_options(cli, raw, d);
	if (!d->has_medium && !(d->cdrom || d->iface == CONFIG_IF_NONE)) {
		error_set(err, "file=FILE is missing");
		return false;
	}
	return true;
}

/* The device in front of a drive, as if -device had asked for it. */
static void add_device(struct vm_config *config, const struct config_drive *d)
{
	struct config_item *item = config_list_add(&config->devices, d->from);
	bool ide = d->iface == CONFIG_IF_IDE;
	char *bus;

	opts_add(&item->opts, "driver", !ide ? "virtio-blk-pci" : d->cdrom ? "ide-cd" : "ide-hd");
	opts_add(&item->opts, "drive", d->id);
	if (ide) {
		bus = xasprintf("ide.%u", d->index);
		opts_add(&item->opts, "bus", bus);
		free(bus);
	}
}

/* The board's own ports fill first, then what -device asked for, then virtio disks: QEMU's order,
 * which decides slots. */
static void add_devices(struct vm_config *config)
{
	struct config_list asked = config->devices;

	config->devices = (struct config_list){ 0 };
	for (size_t i = 0; i < config->drive_count; i++)
		if (config->drives[i].iface == CONFIG_IF_IDE)
			add_device(config, &config->drives[i]);
	for (size_t i = 0; i < asked.count; i++) {
		struct config_item *item = config_list_add(&config->devices, asked.items[i].from);

		item->opts = asked.items[i].opts;
		free(asked.items[i].from);
	}
	free(asked.items);
	for (size_t i = 0; i < config->drive_count; i++)
		if (config->drives[i].iface == CONFIG_IF_VIRTIO)
			add_device(config, &config->drives[i]);
}

bool cli_finish_storage(struct cli *cli, struct error **err)
{
	struct vm_config *config = cli->config;

	config->drives = xcalloc(cli->drive_count + 1, sizeof(*config->drives));
	for (size_t i = 0; i < cli->drive_count; i++) {
		struct config_drive d = { 0 };
		bool ok = settle_drive(cli, &cli->drives[i], &d, err);

		if (!ok)
			error_prefix(err, "%s: ", cli->drives[i].from);
		config->drives[config->drive_count++] = d;
		if (!ok)
			return false;
	}
	add_devices(config);
	return true;
}
