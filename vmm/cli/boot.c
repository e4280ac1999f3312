/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options that say what the machine starts: -kernel, -initrd, -append, -bios, -boot, -fw_cfg,
 * -smbios, -cloud-init. Main thread.
 */
#include "vmm/cli/parse.h"

#include <string.h>

#include "vmm/core/util.h"

#define FW_CFG_NAME_MAX 55 /* 56 bytes with its end, in the directory of files */

CLI_HANDLER(cli_opt_kernel)
{
	cli_set_string(&cli->config->kernel, arg);
	return true;
}

CLI_HANDLER(cli_opt_initrd)
{
	cli_set_string(&cli->config->initrd, arg);
	return true;
}

CLI_HANDLER(cli_opt_append)
{
	cli_set_string(&cli->config->append, arg);
	return true;
}

CLI_HANDLER(cli_opt_bios)
{
	cli_set_string(&cli->config->bios, arg);
	return true;
}

CLI_HANDLER(cli_opt_fw_cfg)
{
	struct config_item *item = config_list_add(&cli->config->fw_cfg, cli->from);
	const char *name;

	if (!opts_parse(&item->opts, arg, "name", err))
		return false;
	name = opts_peek(&item->opts, "name");
	if (!name || !*name) {
		error_set(err, "name is missing");
		return false;
	}
	if (strlen(name) > FW_CFG_NAME_MAX) {
		error_set(err, "the name is longer than %d bytes", FW_CFG_NAME_MAX);
		return false;
	}
	if (opts_has(&item->opts, "file") == opts_has(&item->opts, "string")) {
		error_set(err, "it needs either file or string");
		return false;
	}
	for (size_t i = 0; i < item->opts.count; i++) {
		const char *key = item->opts.items[i].key;

		if (strcmp(key, "name") && strcmp(key, "file") && strcmp(key, "string")) {
			error_set(err, "unknown parameter '%s'", key);
			return false;
		}
	}
	return true;
}

CLI_HANDLER(cli_opt_smbios)
{
	struct config_item *item = config_list_add(&cli->config->smbios, cli->from);

	if (!opts_parse(&item->opts, arg, NULL, err))
		return false;
	if (opts_has(&item->opts, "file") == opts_has(&item->opts, "type")) {
		error_set(err, "it needs either type=NUMBER or file=FILE");
		return false;
	}
	return true;
}

static bool check_boot_devices(const char *devices, struct error **err)
{
	unsigned seen = 0;

	for (const char *p = devices; *p; p++) {
		unsigned bit;

		if (*p < 'a' || *p > 'p') {
			error_set(err,
				  "'%c' is not a boot device (a floppy, c disk, d CD-ROM, n "
				  "network)",
				  *p);
			return false;
		}
		bit = 1u << (*p - 'a');
		if (seen & bit) {
			error_set(err, "boot device '%c' stands twice", *p);
			return false;
		}
		seen |= bit;
	}
	return true;
}

static bool boot_options(struct config_boot *boot, struct opts *opts, struct error **err)
{
	static const char *const known[] = {
		"order", "once", "menu", "strict", "splash-time", NULL
	};
	const char *value;

	if ((value = opts_get(opts, "order"))) {
		if (!check_boot_devices(value, err))
			return false;
		cli_set_string(&boot->order, value);
	}
	if ((value = opts_get(opts, "once"))) {
		if (!check_boot_devices(value, err))
			return false;
		cli_set_string(&boot->once, value);
	}
	if (!opts_get_bool(opts, "menu", &boot->menu, err) ||
	    !opts_get_bool(opts, "strict", &boot->strict, err) ||
	    !opts_get_u64(opts, "splash-time", &boot->splash_time, err) ||
	    !cli_check_used(opts, known, err))
		return false;
	if (boot->splash_time > UINT16_MAX) {
		error_set(err, "splash-time is at most 65535 ms");
		return false;
	}
	boot->splash_time_set |= opts_has(opts, "splash-time");
	return true;
}

CLI_HANDLER(cli_opt_boot)
{
	struct opts opts = { 0 };
	bool ok = opts_parse(&opts, arg, "order", err) &&
		  boot_options(&cli->config->boot, &opts, err);

	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_cloud_init)
{
	static const char *const known[] = { "user-data", "meta-data", "network-config", "ssh-key",
					     NULL };
	struct config_cloud_init *ci = &cli->config->cloud_init;
	char **where[] = { &ci->user_data, &ci->meta_data, &ci->network_config, &ci->ssh_key };
	struct opts opts = { 0 };
	bool ok;

	if (ci->from) {
		error_set(err, "a guest has one seed");
		return false;
	}
	cli_set_string(&ci->from, cli->from);
	ok = opts_parse(&opts, arg, "user-data", err);
	for (size_t i = 0; ok && i < ARRAY_SIZE(where); i++) {
		const char *value = opts_get(&opts, known[i]);

		if (value)
			cli_set_string(where[i], value);
	}
	ok = ok && cli_check_used(&opts, known, err);
	if (ok && !ci->user_data) {
		error_set(err, "user-data=FILE is missing");
		ok = false;
	}
	opts_free(&opts);
	return ok;
}

bool cli_finish_boot(struct cli *cli, struct error **err)
{
	const struct vm_config *config = cli->config;

	if (!config->kernel && (config->append || config->initrd)) {
		const char *which = config->append ? "-append" : "-initrd";

		error_set(err, "%s %s: it is for the kernel of -kernel, which is missing", which,
			  config->append ? config->append : config->initrd);
		return false;
	}
	return true;
}
