/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options on the life of the process and of the guest, and questions: -S, -no-reboot, -action,
 * -daemonize, -pidfile, -msg, -D, -d, -h. Main thread.
 */
#include "vmm/cli/parse.h"

#include <stdio.h>
#include <string.h>

#include "vmm/core/util.h"

CLI_HANDLER(cli_opt_help)
{
	cli_print_help(stdout);
	cli->answered = true;
	return true;
}

CLI_HANDLER(cli_opt_version)
{
	cli_print_version(stdout);
	cli->answered = true;
	return true;
}

CLI_HANDLER(cli_opt_manual)
{
	cli->config->manual = true;
	return true;
}

CLI_HANDLER(cli_opt_check_host)
{
	cli->config->check_host = true;
	return true;
}

CLI_HANDLER(cli_opt_S)
{
	cli->config->start_paused = true;
	return true;
}

CLI_HANDLER(cli_opt_no_reboot)
{
	cli->config->no_reboot = true;
	return true;
}

CLI_HANDLER(cli_opt_no_shutdown)
{
	cli->config->no_shutdown = true;
	return true;
}

CLI_HANDLER(cli_opt_action)
{
	static const char *const known[] = { "reboot", "shutdown", "panic", NULL };
	static const char *const reboots[] = { "reset", "shutdown", NULL };
	static const char *const shutdowns[] = { "poweroff", "pause", NULL };
	static const char *const panics[] = { "shutdown", "pause", "exit-failure", "none", NULL };
	struct vm_config *config = cli->config;
	int reboot = config->no_reboot, shutdown = config->no_shutdown;
	int panic = config->panic_action;
	struct opts opts = { 0 };
	bool ok;

	ok = opts_parse(&opts, arg, NULL, err) &&
	     opts_get_enum(&opts, "reboot", reboots, &reboot, err) &&
	     opts_get_enum(&opts, "shutdown", shutdowns, &shutdown, err) &&
	     opts_get_enum(&opts, "panic", panics, &panic, err);
	if (ok && opts_has(&opts, "watchdog")) {
		error_set(err, "watchdogs are not supported by this build");
		ok = false;
	}
	ok = ok && cli_check_used(&opts, known, err);
	config->no_reboot = reboot;
	config->no_shutdown = shutdown;
	config->panic_action = panic;
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_daemonize)
{
	cli->config->daemonize = true;
	return true;
}

CLI_HANDLER(cli_opt_pidfile)
{
	cli_set_string(&cli->config->pidfile, arg);
	return true;
}

CLI_HANDLER(cli_opt_msg)
{
	static const char *const known[] = { "timestamp", NULL };
	struct opts opts = { 0 };
	bool ok;

	ok = opts_parse(&opts, arg, NULL, err) &&
	     opts_get_bool(&opts, "timestamp", &cli->config->msg_timestamps, err) &&
	     cli_check_used(&opts, known, err);
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_D)
{
	cli_set_string(&cli->config->log_file, arg);
	return true;
}

static const char *const log_items[] = { "guest_errors" };

CLI_HANDLER(cli_opt_d)
{
	const char *p = arg;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		printf("guest_errors   what guests do wrong, one line each\n");
		cli->answered = true;
		return true;
	}
	while (*p) {
		size_t len = strcspn(p, ",");
		bool known = false;

		for (size_t i = 0; i < ARRAY_SIZE(log_items); i++)
			known |= strlen(log_items[i]) == len && !strncmp(log_items[i], p, len);
		if (!known) {
			error_set(err, "there is no log item '%.*s' (-d help lists them)", (int)len,
				  p);
			return false;
		}
		p += len;
		p += *p == ',';
	}
	cli_set_string(&cli->config->log_items, arg);
	return true;
}

CLI_HANDLER(cli_opt_sandbox)
{
	if (!strcmp(arg, "off"))
		return true;
	error_set(err, "the sandbox is not supported by this build; use off");
	return false;
}
