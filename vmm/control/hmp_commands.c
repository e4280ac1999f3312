/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person may type at a monitor, in one table. Commands that QMP has are QMP's: a line
 * becomes its arguments, and its answer becomes text. Main thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/internal.h"
#include "vmm/core/util.h"
#include "vmm/core/version.h"

#define MAX_WORDS 8

struct hmp_command {
	const char *name, *alias;
	const char *args; /* for help; "" for none */
	const char *help;
	void (*run)(struct control *c, int argc, char **argv, FILE *out); /* argv[0]: the name */
	int min_args, max_args;
};

static void print_error(FILE *out, struct error *err)
{
	fprintf(out, "Error: %s\n", error_message(err));
	error_free(err);
}

/* Runs the QMP command of that name; args is taken. */
static void run_qmp(struct control *c, const char *name, json_t *args, FILE *out)
{
	const struct qmp_command *command = qmp_command_find(name);
	struct error *err = NULL;
	json_t *result = NULL;

	if (qmp_check_args(command, args, &err))
		result = command->run(c, args, &err);
	if (err)
		print_error(out, err);
	json_decref(result);
	json_decref(args);
}

static void do_stop(struct control *c, int argc, char **argv, FILE *out)
{
	run_qmp(c, "stop", NULL, out);
}

static void do_cont(struct control *c, int argc, char **argv, FILE *out)
{
	run_qmp(c, "cont", NULL, out);
}

static void do_reset(struct control *c, int argc, char **argv, FILE *out)
{
	run_qmp(c, "system_reset", NULL, out);
}

static void do_powerdown(struct control *c, int argc, char **argv, FILE *out)
{
	run_qmp(c, "system_powerdown", NULL, out);
}

static void do_quit(struct control *c, int argc, char **argv, FILE *out)
{
	run_qmp(c, "quit", NULL, out);
}

static void do_eject(struct control *c, int argc, char **argv, FILE *out)
{
	bool force = !strcmp(argv[1], "-f");

	if (force && argc < 3) {
		fprintf(out, "Error: the device is missing\n");
		return;
	}
	run_qmp(c, "eject", json_pack("{s:s, s:b}", "device", argv[1 + force], "force", force),
		out);
}

static void do_change(struct control *c, int argc, char **argv, FILE *out)
{
	json_t *args = json_pack("{s:s, s:s}", "device", argv[1], "filename", argv[2]);

	if (argc > 3)
		json_object_set_new(args, "format", json_string(argv[3]));
	run_qmp(c, "blockdev-change-medium", args, out);
}

static void do_set_link(struct control *c, int argc, char **argv, FILE *out)
{
	bool up;

	if (!parse_bool(argv[2], &up)) {
		fprintf(out, "Error: a link is on or off, not '%s'\n", argv[2]);
		return;
	}
	run_qmp(c, "set_link", json_pack("{s:s, s:b}", "name", argv[1], "up", up), out);
}

static void do_netdev_add(struct control *c, int argc, char **argv, FILE *out)
{
	struct error *err = NULL;

	if (!net_add_line(c, argv[1], &err))
		print_error(out, err);
}

static void do_netdev_del(struct control *c, int argc, char **argv, FILE *out)
{
	run_qmp(c, "netdev_del", json_pack("{s:s}", "id", argv[1]), out);
}

static void do_announce_self(struct control *c, int argc, char **argv, FILE *out)
{
	json_t *args = json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds", 5,
				 "step", 100);

	if (argc > 1)
		json_object_set_new(args, "interfaces", json_pack("[s]", argv[1]));
	run_qmp(c, "announce-self", args, out);
}

static void do_hostfwd(struct control *c, int argc, char **argv, FILE *out)
{
	bool add = !strcmp(argv[0], "hostfwd_add");
	const char *rule = argv[argc - 1];
	struct error *err = NULL;

	if (!net_hostfwd(c, argc > 2 ? argv[1] : NULL, rule, add, &err))
		print_error(out, err);
	else if (!add)
		fprintf(out, "host forwarding rule for %s removed\n", rule);
}

static void info_status(struct control *c, FILE *out)
{
	if (vm_is_running(c->vm))
		fprintf(out, "VM status: running\n");
	else if (c->vm->state == RUN_STATE_PAUSED)
		fprintf(out, "VM status: paused\n");
	else
		fprintf(out, "VM status: paused (%s)\n", run_state_name(c->vm->state));
}

static void info_version(struct control *c, FILE *out)
{
	fprintf(out, "vmm %s (speaks QEMU %d.%d's QMP)\n", VMM_VERSION, QEMU_VERSION_MAJOR,
		QEMU_VERSION_MINOR);
}

static void info_name(struct control *c, FILE *out)
{
	if (c->vm->name)
		fprintf(out, "%s\n", c->vm->name);
}

static void info_uuid(struct control *c, FILE *out)
{
	json_t *json = qmp_command_find("query-uuid")->run(c, NULL, NULL);

	fprintf(out, "%s\n", json_string_value(json_object_get(json, "UUID")));
	json_decref(json);
}

static void info_kvm(struct control *c, FILE *out)
{
	fprintf(out, "kvm support: enabled\n");
}

static void print_chardev(void *opaque, const char *id, const char *filename, bool open)
{
	fprintf(opaque, "%s: filename=%s\n", id, filename);
}

static void info_chardev(struct control *c, FILE *out)
{
	chardevs_each(c->chardevs, print_chardev, out);
}

static void info_block(struct control *c, FILE *out)
{
	for (struct drive *d = c->drives ? *c->drives : NULL; d; d = d->next) {
		if (d->node)
			fprintf(out, "%s: %s (%s%s)\n", d->id, block_filename(d->node),
				block_format(d->node),
				block_read_only(d->node) ? ", read-only" : "");
		else
			fprintf(out, "%s: [not inserted]\n", d->id);
		if (d->taken_by)
			fprintf(out, "    Attached to:      %s\n", d->taken_by);
		if (d->cdrom)
			fprintf(out, "    Removable device: %slocked\n",
				d->removable_locked ? "" : "not ");
	}
}

static void print_properties(const struct device *dev, FILE *out)
{
	for (const struct prop_set *set = dev->desc->props; set && set->props; set++) {
		for (const struct prop *p = set->props; p->type != PROP_END; p++) {
			char *value = prop_to_text(p, set, dev);

			if (value)
				fprintf(out, "    %s = %s\n", p->name, value);
			free(value);
		}
	}
}

static void info_qtree(struct control *c, FILE *out)
{
	for (const struct bus *bus = c->vm->buses; bus; bus = bus->next) {
		fprintf(out, "bus: %s (%s)%s%s\n", bus->name, bus->type, bus->owner ? " of " : "",
			bus->owner ? device_label(bus->owner) : "");
		for (const struct device *dev = bus->first; dev; dev = dev->next_on_bus) {
			fprintf(out, "  dev: %s, id \"%s\"\n", dev->desc->name,
				dev->id ? dev->id : "");
			print_properties(dev, out);
		}
	}
}

static const struct {
	const char *name, *help;
	void (*run)(struct control *c, FILE *out);
} infos[] = {
	{ "block", "disks and what is in them", info_block },
	{ "chardev", "character devices", info_chardev },
	{ "kvm", "what runs the guest", info_kvm },
	{ "name", "the guest's name", info_name },
	{ "network", "network cards and what is behind them", net_info_network },
	{ "qtree", "devices, by bus, and their properties", info_qtree },
	{ "status", "whether the guest runs", info_status },
	{ "usernet", "connections of user-mode networks", net_info_usernet },
	{ "uuid", "the guest's UUID", info_uuid },
	{ "version", "the version", info_version },
};

static void do_info(struct control *c, int argc, char **argv, FILE *out)
{
	const char *names[ARRAY_SIZE(infos)], *near;

	for (size_t i = 0; i < ARRAY_SIZE(infos); i++) {
		names[i] = infos[i].name;
		if (argc < 2)
			fprintf(out, "info %-10s %s\n", infos[i].name, infos[i].help);
		else if (!strcmp(infos[i].name, argv[1])) {
			infos[i].run(c, out);
			return;
		}
	}
	if (argc < 2)
		return;
	near = nearest_name(argv[1], names, ARRAY_SIZE(names));
	fprintf(out, "unknown command: 'info %s'%s%s\n", argv[1], near ? "; did you mean " : "",
		near ? near : "");
}

static void do_help(struct control *c, int argc, char **argv, FILE *out);

static const struct hmp_command commands[] = {
	{ "announce_self", NULL, "[NAME]", "has guests' addresses told to their networks",
	  do_announce_self, 0, 1 },
	{ "change", NULL, "DEVICE FILE [FORMAT]", "puts another medium into a drive", do_change, 2,
	  3 },
	{ "cont", "c", "", "lets the guest run", do_cont, 0, 0 },
	{ "eject", NULL, "[-f] DEVICE", "takes the medium out; -f: even if the guest holds it",
	  do_eject, 1, 2 },
	{ "help", "?", "[COMMAND]", "this text", do_help, 0, 1 },
	{ "hostfwd_add", NULL, "[ID] [tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT",
	  "forwards a port of the host's to the guest", do_hostfwd, 1, 2 },
	{ "hostfwd_remove", NULL, "[ID] [tcp|udp]:[HOSTADDR]:HOSTPORT", "ends that", do_hostfwd, 1,
	  2 },
	{ "info", NULL, "[WHAT]", "tells about the guest", do_info, 0, 1 },
	{ "netdev_add", NULL, "TYPE,id=ID[,OPTION=VALUE][,...]", "adds a network back end",
	  do_netdev_add, 1, 1 },
	{ "netdev_del", NULL, "ID", "takes one away", do_netdev_del, 1, 1 },
	{ "quit", "q", "", "ends the guest and vmm", do_quit, 0, 0 },
	{ "set_link", NULL, "NAME on|off", "plugs a network cable in, or pulls it", do_set_link, 2,
	  2 },
	{ "stop", "s", "", "halts the guest", do_stop, 0, 0 },
	{ "system_powerdown", NULL, "", "presses the power button", do_powerdown, 0, 0 },
	{ "system_reset", NULL, "", "presses the reset button", do_reset, 0, 0 },
};

static void do_help(struct control *c, int argc, char **argv, FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct hmp_command *h = &commands[i];
		int n;

		if (argc > 1 && strcmp(argv[1], h->name) &&
		    (!h->alias || strcmp(argv[1], h->alias)))
			continue;
		n = fprintf(out, "%s%s%s %s", h->name, h->alias ? "|" : "",
			    h->alias ? h->alias : "", h->args);
		fprintf(out, "%*s -- %s\n", n < 32 ? 32 - n : 0, "", h->help);
	}
}

static const struct hmp_command *find(const char *name, FILE *out)
{
	const char *names[ARRAY_SIZE(commands)], *near;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct hmp_command *h = &commands[i];

		names[i] = h->name;
		if (!strcmp(h->name, name) || (h->alias && !strcmp(h->alias, name)))
			return h;
	}
	near = nearest_name(name, names, ARRAY_SIZE(names));
	fprintf(out, "unknown command: '%s'%s%s\n", name, near ? "; did you mean " : "",
		near ? near : "");
	return NULL;
}

/* Words at blanks; "..." keeps blanks together, \ the next character. In place. */
static int split(char *line, char **words)
{
	char *in = line, *out = line;
	bool quoted = false;
	int n = 0;

	for (;;) {
		while (*in == ' ' || *in == '\t')
			in++;
		if (!*in || n == MAX_WORDS)
			return *in ? -1 : n;
		words[n++] = out;
		for (; *in && (quoted || (*in != ' ' && *in != '\t')); in++) {
			if (*in == '"')
				quoted = !quoted;
			else
				*out++ = *in == '\\' && in[1] ? *++in : *in;
		}
		in += *in != '\0';
		*out++ = '\0';
	}
}

void hmp_run(struct control *control, const char *line, FILE *out)
{
	char *copy = xstrdup(line), *words[MAX_WORDS];
	const struct hmp_command *h;
	int n = split(copy, words);

	if (n < 0) {
		fprintf(out, "too many words\n");
	} else if (n > 0 && (h = find(words[0], out))) {
		if (n - 1 < h->min_args || n - 1 > h->max_args)
			fprintf(out, "usage: %s %s\n", h->name, h->args);
		else
			h->run(control, n, words, out);
	}
	free(copy);
}
