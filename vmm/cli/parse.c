/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads argv by the option table, then settles what depends on several options at once: defaults,
 * topology, the places of drives, the terminal. Main thread.
 */
#include "vmm/cli/parse.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

void cli_set_string(char **where, const char *value)
{
	free(*where);
	*where = xstrdup(value);
}

bool cli_check_used(const struct opts *opts, const char *const *known, struct error **err)
{
	size_t count = 0;

	while (known[count])
		count++;
	return opts_check_used(opts, known, count, err);
}

static bool handle(struct cli *cli, const struct cli_option *option, const char *arg,
		   struct error **err)
{
	char *from = option->arg ? xasprintf("-%s %s", option->name, arg)
				 : xasprintf("-%s", option->name);
	bool ok;

	cli->from = from;
	ok = option->handle(cli, arg, err);
	if (!ok)
		error_prefix(err, "%s: ", from);
	cli->from = NULL;
	free(from);
	return ok;
}

/* Takes one option, and its argument, from argv[*i]. */
static bool parse_one(struct cli *cli, int argc, char *const *argv, int *i, struct error **err)
{
	const char *word = argv[(*i)++];
	const struct cli_option *option;
	const char *arg = NULL;

	if (word[0] != '-' || !word[1]) {
		/* A bare file name is the first disk. */
		return handle(cli, cli_option_find("hda", NULL), word, err);
	}
	option = cli_option_find(word[1] == '-' ? word + 2 : word + 1, err);
	if (!option)
		return false;
	if (option->arg) {
		if (*i >= argc) {
			error_set(err, "%s: an argument is missing: %s %s", word, word,
				  option->arg);
			return false;
		}
		arg = argv[(*i)++];
	}
	return handle(cli, option, arg, err);
}

static bool finish(struct cli *cli, struct error **err)
{
	return cli_finish_machine(cli, err) && cli_finish_boot(cli, err) &&
	       cli_finish_network(cli, err) && cli_finish_storage(cli, err) && cli_finish_character(cli, err);
}

/* main answers these; the rest of the command line need not make sense then. */
static bool is_question(const struct vm_config *config)
{
	return config->machine_help || config->nic_help || config->cpu_help || config->accel_help ||
	       config->check_host || config->device_help || config->device_help_of ||
	       config->manual;
}

enum cli_result cli_parse(struct vm_config *config, int argc, char *const *argv, struct error **err)
{
	struct cli cli = { .config = config, .default_serial = true, .default_monitor = true };
	bool ok = true;
	int i = 1;

	while (ok && !cli.answered && i < argc)
		ok = parse_one(&cli, argc, argv, &i, err);
	if (ok && !cli.answered && !is_question(config))
		ok = finish(&cli, err);

	for (size_t n = 0; n < cli.drive_count; n++) {
		opts_free(&cli.drives[n].opts);
		free(cli.drives[n].from);
	}
	free(cli.drives);
	free(cli.net_backend);
	config_list_free(&cli.cards);
	if (!ok)
		return CLI_ERROR;
	return cli.answered ? CLI_DONE : CLI_RUN;
}
