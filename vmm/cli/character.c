/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character devices and who uses them: -chardev, -serial, -monitor, -mon, -qmp, -nographic. What
 * -serial and its like describe becomes a chardev of its own ("serial0", "compat_monitor0"), so
 * that whoever opens them knows one kind of thing. Main thread.
 */
#include "vmm/cli/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/chardev/chardev.h"
#include "vmm/core/util.h"

static bool id_taken(const struct vm_config *config, const char *id)
{
	for (size_t i = 0; i < config->chardevs.count; i++) {
		const char *other = opts_peek(&config->chardevs.items[i].opts, "id");

		if (other && !strcmp(other, id))
			return true;
	}
	return false;
}

CLI_HANDLER(cli_opt_chardev)
{
	struct config_item *item;
	struct opts opts = { 0 };
	const char *id, *backend;

	if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
		for (const char *const *name = chardev_backend_names(); *name; name++)
			printf("%s\n", *name);
		cli->answered = true;
		return true;
	}
	if (!opts_parse(&opts, arg, "backend", err))
		return false;
	id = opts_peek(&opts, "id");
	backend = opts_peek(&opts, "backend");
	if (!backend || !*backend)
		error_set(err, "the back end's name is missing");
	else if (!id || !*id)
		error_set(err, "id is missing");
	else if (id_taken(cli->config, id))
		error_set(err, "there is a chardev '%s' already", id);
	else {
		item = config_list_add(&cli->config->chardevs, cli->from);
		item->opts = opts;
		return true;
	}
	opts_free(&opts);
	return false;
}

/* "HOST:PORT[,opts]", "[ADDRESS]:PORT[,opts]", ":PORT[,opts]" */
static bool parse_tcp(struct opts *opts, const char *text, struct error **err)
{
	size_t len = strcspn(text, ",");
	char *place = xstrndup(text, len), *port, *host = place;
	bool ok = true;

	if (*host == '[' && (port = strchr(host, ']'))) {
		host++;
		*port++ = '\0';
		if (*port == ':')
			port++;
		else
			ok = false;
	} else if ((port = strrchr(host, ':'))) {
		*port++ = '\0';
	} else {
		ok = false;
	}
	if (!ok || !*port) {
		error_set(err, "tcp needs HOST:PORT");
		ok = false;
	}
	if (ok && text[len])
		ok = opts_parse(opts, text + len + 1, NULL, err);
	if (ok) {
		opts_add(opts, "backend", "socket");
		opts_add(opts, "host", *host ? host : "");
		opts_add(opts, "port", port);
	}
	free(place);
	return ok;
}

static bool parse_unix(struct opts *opts, const char *text, struct error **err)
{
	if (!opts_parse(opts, text, "path", err))
		return false;
	opts_add(opts, "backend", "socket");
	return true;
}

/* The short form of -serial, -monitor, -qmp into -chardev's keys. */
static bool parse_short(struct opts *opts, const char *text, struct error **err)
{
	static const char *const plain[] = { "null", "stdio", "pty", "ringbuf" };
	static const char *const absent[] = { "vc",	  "pipe",     "udp",	   "telnet",
					      "tn3270",	  "con",      "websocket", "braille",
					      "msmouse",  "wctablet", "/dev/",	   "COM",
					      "parallel", "spicevmc", "dbus" };

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		if (!strcmp(text, plain[i])) {
			opts_add(opts, "backend", plain[i]);
			return true;
		}
	}
	if (!strncmp(text, "file:", 5)) {
		opts_add(opts, "backend", "file");
		opts_add(opts, "path", text + 5);
		return true;
	}
	if (!strncmp(text, "tcp:", 4))
		return parse_tcp(opts, text + 4, err);
	if (!strncmp(text, "unix:", 5))
		return parse_unix(opts, text + 5, err);
	for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
		if (!strncmp(text, absent[i], strlen(absent[i]))) {
			error_set(err, "'%s' is not supported by this build", text);
			return false;
		}
	}
	error_set(err,
		  "unknown back end '%s': it is stdio, pty, null, file:PATH, unix:PATH, "
		  "tcp:HOST:PORT or chardev:ID",
		  text);
	return false;
}

static void add_monitor(struct cli *cli, const char *chardev, bool qmp, bool pretty)
{
	struct vm_config *config = cli->config;

	config->monitors = xrealloc(config->monitors,
				    (config->monitor_count + 1) * sizeof(*config->monitors));
	config->monitors[config->monitor_count++] = (struct config_monitor){
		.chardev = xstrdup(chardev),
		.qmp = qmp,
		.pretty = pretty,
		.from = xstrdup(cli->from),
	};
}

char *cli_make_chardev(struct cli *cli, const char *text, const char *id, struct error **err)
{
	struct config_item *item;
	struct opts opts = { 0 };
	bool mux = !strncmp(text, "mon:", 4);

	if (!strncmp(text, "chardev:", 8))
		return xstrdup(text + 8);
	if (id_taken(cli->config, id)) {
		error_set(err, "there is a chardev '%s' already", id);
		return NULL;
	}
	if (!parse_short(&opts, mux ? text + 4 : text, err)) {
		opts_free(&opts);
		return NULL;
	}
	opts_add(&opts, "id", id);
	if (mux)
		opts_add(&opts, "mux", "on");
	if (mux && !strcmp(text + 4, "stdio"))
		opts_add(&opts, "signal", "off"); /* Ctrl-C is the guest's */
	item = config_list_add(&cli->config->chardevs, cli->from);
	item->opts = opts;
	if (mux)
		add_monitor(cli, id, false, false);
	return xstrdup(id);
}

CLI_HANDLER(cli_opt_serial)
{
	struct config_serial *serial;
	char id[16];

	cli->default_serial = false;
	if (!strncmp(arg, "mon:", 4))
		cli->default_monitor = false;
	if (cli->serial_count == ARRAY_SIZE(cli->config->serials)) {
		error_set(err, "the machine has at most %zu serial ports",
			  ARRAY_SIZE(cli->config->serials));
		return false;
	}
	serial = &cli->config->serials[cli->serial_count];
	snprintf(id, sizeof(id), "serial%u", cli->serial_count++);
	if (!strcmp(arg, "none"))
		return true;
	serial->chardev = cli_make_chardev(cli, arg, id, err);
	serial->present = serial->chardev != NULL;
	return serial->present;
}

CLI_HANDLER(cli_opt_parallel)
{
	if (!strcmp(arg, "none"))
		return true;
	error_set(err, "parallel ports are not supported by this build");
	return false;
}

static bool compat_monitor(struct cli *cli, const char *arg, bool qmp, bool pretty,
			   struct error **err)
{
	char id[32], *chardev;

	cli->default_monitor = false;
	if (!strcmp(arg, "none"))
		return true;
	snprintf(id, sizeof(id), "compat_monitor%u", cli->compat_monitors++);
	if (!strncmp(arg, "mon:", 4))
		arg += 4;
	chardev = cli_make_chardev(cli, arg, id, err);
	if (!chardev)
		return false;
	add_monitor(cli, chardev, qmp, pretty);
	free(chardev);
	return true;
}

CLI_HANDLER(cli_opt_monitor)
{
	return compat_monitor(cli, arg, false, false, err);
}

CLI_HANDLER(cli_opt_qmp)
{
	return compat_monitor(cli, arg, true, false, err);
}

CLI_HANDLER(cli_opt_qmp_pretty)
{
	return compat_monitor(cli, arg, true, true, err);
}

CLI_HANDLER(cli_opt_mon)
{
	static const char *const known[] = { "chardev", "mode", "pretty", "id", NULL };
	static const char *const modes[] = { "readline", "control", NULL };
	struct opts opts = { 0 };
	const char *chardev;
	bool pretty = false, ok;
	int mode = 0;

	cli->default_monitor = false;
	ok = opts_parse(&opts, arg, "chardev", err) &&
	     opts_get_enum(&opts, "mode", modes, &mode, err) &&
	     opts_get_bool(&opts, "pretty", &pretty, err);
	chardev = ok ? opts_get(&opts, "chardev") : NULL;
	opts_get(&opts, "id");
	ok = ok && cli_check_used(&opts, known, err);
	if (ok && !chardev) {
		error_set(err, "chardev is missing");
		ok = false;
	}
	if (ok && pretty && mode == 0) {
		error_set(err, "pretty is for mode=control");
		ok = false;
	}
	if (ok)
		add_monitor(cli, chardev, mode == 1, pretty);
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_nographic)
{
	cli->config->nographic = true;
	return true;
}

/* 0x1 to 0x1f, or any byte, or a bare character's number. */
CLI_HANDLER(cli_opt_echr)
{
	uint64_t value;

	if (!parse_u64(arg, &value) || value > 255) {
		error_set(err, "it is a character's code: 1 to 255, 0x1d is Ctrl-]");
		return false;
	}
	cli->config->escape_char = value;
	return true;
}

CLI_HANDLER(cli_opt_display)
{
	cli->display = true;
	if (!strcmp(arg, "none"))
		return true;
	error_set(err, "screens are not supported by this build; use none or -nographic");
	return false;
}

CLI_HANDLER(cli_opt_vga)
{
	if (!strcmp(arg, "none"))
		return true;
	error_set(err, "display adapters are not supported by this build; use none");
	return false;
}

/* What -nographic puts on the terminal: whatever of serial port and monitor nobody asked for. */
static bool default_terminal(struct cli *cli, struct error **err)
{
	bool serial = cli->default_serial, monitor = cli->default_monitor;

	cli->from = "-nographic";
	if (serial)
		return cli_opt_serial(cli, monitor ? "mon:stdio" : "stdio", err);
	return !monitor || cli_opt_monitor(cli, "stdio", err);
}

static bool check_references(const struct vm_config *config, struct error **err)
{
	for (size_t i = 0; i < ARRAY_SIZE(config->serials); i++) {
		const char *id = config->serials[i].chardev;

		if (id && !id_taken(config, id)) {
			error_set(err, "-serial chardev:%s: there is no chardev '%s'", id, id);
			return false;
		}
	}
	for (size_t i = 0; i < config->monitor_count; i++) {
		const struct config_monitor *m = &config->monitors[i];

		if (!id_taken(config, m->chardev)) {
			error_set(err, "%s: there is no chardev '%s'", m->from, m->chardev);
			return false;
		}
	}
	return true;
}

/* One process has one terminal, and a daemon has none. */
static bool check_stdio(const struct vm_config *config, struct error **err)
{
	bool seen = false;

	for (size_t i = 0; i < config->chardevs.count; i++) {
		const struct config_item *item = &config->chardevs.items[i];

		if (strcmp(opts_peek(&item->opts, "backend"), "stdio"))
			continue;
		if (config->daemonize || seen) {
			error_set(err, "%s: %s", item->from,
				  seen ? "stdio is used by another chardev already"
				       : "stdio cannot be used with -daemonize");
			return false;
		}
		seen = true;
	}
	return true;
}

bool cli_finish_character(struct cli *cli, struct error **err)
{
	struct vm_config *config = cli->config;

	if (config->nographic && config->daemonize) {
		error_set(err, "-nographic: it cannot be used with -daemonize");
		return false;
	}
	if (config->nographic) {
		if (!default_terminal(cli, err))
			return false;
	} else if (cli->default_serial) {
		config->serials[0].present = true;
		config->console_hidden = cli->default_monitor && !cli->display &&
					 !config->daemonize;
	}
	cli->from = NULL;
	return check_references(config, err) && check_stdio(config, err);
}
