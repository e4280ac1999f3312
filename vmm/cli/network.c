/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks: -netdev, -nic, -net, and the card that is there when none of them was given. A card
 * becomes a device like those of -device, in front of them; a back end one of -netdev. What back
 * ends there are and what they take stands in net/types.h's tables. Main thread.
 *
 * One rule differs from QEMU's and is told in the manual: a card without model= is virtio-net-pci.
 */
#include "config.h"

#include "vmm/cli/parse.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/types.h"
#include "vmm/core/util.h"

#define DEFAULT_CARD "virtio-net-pci"
/* Only with libslirp is there a network that asks nothing of anybody. */
#ifdef CONFIG_SLIRP
#define DEFAULT_NETWORK true
#else
#define DEFAULT_NETWORK false
#endif

static bool is_help(const char *arg)
{
	return !strcmp(arg, "help") || !strcmp(arg, "?");
}

static void print_types(FILE *out)
{
	fputs("Network back ends:\n", out);
	for (const struct net_type *const *t = net_types; *t; t++)
		fprintf(out, "%-12s %s\n", (*t)->name, (*t)->help);
}

/* "help"; true if that was asked. */
static bool lists_types(struct cli *cli, const char *arg)
{
	if (!is_help(arg))
		return false;
	print_types(stdout);
	cli->answered = true;
	return true;
}

static void print_options(FILE *out, const struct net_type *type)
{
	fprintf(out, "%s options:\n", type->name);
	for (const struct net_option *o = type->options; o->name; o++) {
		int used = fprintf(out, "  %s=%s", o->name, o->value);

		fprintf(out, "%*s - %s\n", used < 32 ? 32 - used : 0, "", o->help ? o->help : "");
	}
}

/* Vertical bars would end the table's column. */
static void print_cell(FILE *out, const char *text)
{
	for (; *text; text++)
		fprintf(out, "%s%c", *text == '|' ? "\\" : "", *text);
}

void cli_print_net_manual(FILE *out)
{
	for (const struct net_type *const *t = net_types; *t; t++) {
		fprintf(out,
			"\n### -netdev %s\n\n%s\n\n| option | value | |\n| --- | --- | --- |\n",
			(*t)->name, (*t)->help);
		for (const struct net_option *o = (*t)->options; o->name; o++) {
			fprintf(out, "| %s | ", o->name);
			print_cell(out, o->value);
			fputs(" | ", out);
			print_cell(out, o->help ? o->help : "");
			fprintf(out, "%s |\n", o->repeats ? "; may be given several times" : "");
		}
	}
}

/* "TYPE,help"; true if that was asked. */
static bool answer_help(struct cli *cli, const struct opts *opts)
{
	const char *name = opts_peek(opts, "type");
	const struct net_type *type;

	if (!name || !opts_has(opts, "help") || !(type = net_type_find(name, NULL)))
		return false;
	print_options(stdout, type);
	cli->answered = true;
	return true;
}

/* Back ends */

static bool backend_exists(const struct vm_config *config, const char *id)
{
	/* The newest is the one that asks. */
	for (size_t i = 0; i + 1 < config->netdevs.count; i++) {
		const char *other = opts_peek(&config->netdevs.items[i].opts, "id");

		if (other && !strcmp(other, id))
			return true;
	}
	return false;
}

/* A guestfwd may end in what -serial takes: that becomes a chardev of its own. */
static bool settle_guestfwd(struct cli *cli, struct opt *o, struct error **err)
{
	char *dash = strchr(o->value, '-'), *port, *id, *chardev;

	if (!dash || !strncmp(dash + 1, "cmd:", 4) || !strncmp(dash + 1, "chardev:", 8))
		return true;
	*dash = '\0';
	port = strrchr(o->value, ':');
	id = xasprintf("guestfwd.tcp.%s", port ? port + 1 : "");
	chardev = cli_make_chardev(cli, dash + 1, id, err);
	free(id);
	if (!chardev) {
		error_prefix(err, "guestfwd=%s: ", o->value);
		return false;
	}
	id = xasprintf("%s-chardev:%s", o->value, chardev);
	free(chardev);
	free(o->value);
	o->value = id;
	return true;
}

static bool settle_backend(struct cli *cli, struct config_item *item, struct error **err)
{
	struct opts *opts = &item->opts;

	if (!net_check_options(opts, err))
		return false;
	if (backend_exists(cli->config, opts_peek(opts, "id"))) {
		error_set(err, "Duplicate ID '%s' for netdev", opts_peek(opts, "id"));
		return false;
	}
	for (size_t i = 0; i < opts->count; i++)
		if (!strcmp(opts->items[i].key, "guestfwd") &&
		    !settle_guestfwd(cli, &opts->items[i], err))
			return false;
	return true;
}

CLI_HANDLER(cli_opt_netdev)
{
	struct config_item *item;

	if (lists_types(cli, arg))
		return true;
	cli->network_given = true;
	item = config_list_add(&cli->config->netdevs, cli->from);
	if (!opts_parse(&item->opts, arg, "type", err))
		return false;
	return answer_help(cli, &item->opts) || settle_backend(cli, item, err);
}

/* Cards */

static bool check_mac(const char *text, struct error **err)
{
	unsigned group = 0;

	for (const char *p = text; group < 6; p += 3, group++) {
		bool last = group == 5;

		if (!isxdigit(p[0]) || !isxdigit(p[1]) ||
		    (last ? p[2] : p[2] != ':' && p[2] != '-'))
			break;
	}
	if (group < 6) {
		error_set(err, "'%s' is no Ethernet address such as 52:54:00:12:34:56", text);
		return false;
	}
	if (strtoul((char[]){text[0], text[1], 0}, NULL, 16) & 1) {
		error_set(err, "NIC cannot have multicast MAC address");
		return false;
	}
	return true;
}

/* The device; what names another one in front of a value is -device's name for it. */
static bool add_card(struct cli *cli, struct opts *from, const char *mac_key, struct error **err)
{
	static const char *const kept[] = {"netdev", "addr", "vectors"};
	struct config_item *item = config_list_add(&cli->cards, cli->from);
	const char *model = opts_get(from, "model"), *mac = opts_get(from, mac_key);

	if (model && !strcmp(model, "virtio"))
		model = DEFAULT_CARD;
	opts_add(&item->opts, "driver", model ? model : DEFAULT_CARD);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		const char *value = opts_get(from, kept[i]);

		if (value)
			opts_add(&item->opts, kept[i], value);
	}
	if (!mac)
		return true;
	opts_add(&item->opts, "mac", mac);
	return check_mac(mac, err);
}

/* A back end of these options but those that are the card's; its id, borrowed. */
static const char *add_backend(struct cli *cli, const struct opts *from, struct error **err)
{
	static const char *const cards[] = {"model", "mac"};
	struct config_item *item = config_list_add(&cli->config->netdevs, cli->from);
	char *id = NULL;

	if (!opts_has(from, "type"))
		opts_add(&item->opts, "type", "user");
	for (size_t i = 0; i < from->count; i++) {
		bool card = false;

		for (size_t k = 0; k < ARRAY_SIZE(cards); k++)
			card |= !strcmp(from->items[i].key, cards[k]);
		if (!card)
			opts_add(&item->opts, from->items[i].key, from->items[i].value);
	}
	if (!opts_has(from, "id")) {
		/* No id that a user may give has this sign. */
		id = xasprintf("#net%03zu", cli->backend_ids++);
		opts_add(&item->opts, "id", id);
		free(id);
	}
	return settle_backend(cli, item, err) ? opts_peek(&item->opts, "id") : NULL;
}

static bool add_nic(struct cli *cli, struct opts *opts, struct error **err)
{
	const char *id = add_backend(cli, opts, err);
	struct opts card = {0};
	bool ok;

	if (!id)
		return false;
	opts_add(&card, "netdev", id);
	if (opts_has(opts, "model"))
		opts_add(&card, "model", opts_peek(opts, "model"));
	if (opts_has(opts, "mac"))
		opts_add(&card, "mac", opts_peek(opts, "mac"));
	ok = add_card(cli, &card, "mac", err);
	opts_free(&card);
	return ok;
}

static bool asks_for_models(struct cli *cli, const struct opts *opts)
{
	const char *model = opts_peek(opts, "model");

	if (!model || !is_help(model))
		return false;
	cli->config->nic_help = true;
	return true;
}

/* What -nic and -net have in common; add() gets the options of one that is neither a question nor
 * "none". */
static bool card_option(struct cli *cli, const char *arg,
			bool (*add)(struct cli *cli, struct opts *opts, struct error **err),
			struct error **err)
{
	struct opts opts;
	bool ok;

	if (lists_types(cli, arg))
		return true;
	cli->network_given = true;
	if (!strcmp(arg, "none"))
		return true;
	if (!opts_parse(&opts, arg, "type", err))
		return false;
	ok = asks_for_models(cli, &opts) || answer_help(cli, &opts) || add(cli, &opts, err);
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_nic)
{
	return card_option(cli, arg, add_nic, err);
}

static bool add_old_card(struct cli *cli, struct opts *opts, struct error **err)
{
	static const char *const known[] = {"type", "model", "macaddr", "netdev", "name",
					    "id",   "addr",  "vectors", NULL};
	const char *id = opts_get(opts, "name");

	if (!add_card(cli, opts, "macaddr", err))
		return false;
	opts_get(opts, "type");
	id = opts_has(opts, "id") ? opts_get(opts, "id") : id;
	if (id)
		opts_add(&cli->cards.items[cli->cards.count - 1].opts, "id", id);
	if (!opts_has(opts, "netdev")) {
		cli->net_card = cli->cards.count - 1;
		cli->net_cards++;
	}
	return cli_check_used(opts, known, err);
}

static bool add_old_backend(struct cli *cli, struct opts *opts, struct error **err)
{
	const char *id = add_backend(cli, opts, err);

	if (!id)
		return false;
	cli_set_string(&cli->net_backend, id);
	cli->net_backends++;
	return true;
}

static bool add_old(struct cli *cli, struct opts *opts, struct error **err)
{
	const char *type = opts_peek(opts, "type");
	bool card = type && !strcmp(type, "nic");

	if (!(card ? add_old_card(cli, opts, err) : add_old_backend(cli, opts, err)))
		return false;
	if (cli->net_cards > 1 || cli->net_backends > 1) {
		error_set(err, "hubs are not supported: one '-net nic' meets one '-net TYPE'; "
			       "use -nic or -netdev for more");
		return false;
	}
	return true;
}

CLI_HANDLER(cli_opt_net)
{
	return card_option(cli, arg, add_old, err);
}

static bool add_default_card(struct cli *cli, struct error **err)
{
	struct opts opts = {0};
	bool ok;

	cli->from = "the default network card (-nic none: none)";
	ok = add_nic(cli, &opts, err);
	if (!ok)
		error_prefix(err, "%s: ", cli->from);
	cli->from = NULL;
	return ok;
}

bool cli_finish_network(struct cli *cli, struct error **err)
{
	struct config_list *devices = &cli->config->devices, asked;

	if (DEFAULT_NETWORK && !cli->network_given && !cli->config->nodefaults &&
	    !add_default_card(cli, err))
		return false;
	if (cli->net_cards && cli->net_backend)
		opts_add(&cli->cards.items[cli->net_card].opts, "netdev", cli->net_backend);
	asked = *devices;
	*devices = cli->cards;
	cli->cards = (struct config_list){0};
	for (size_t i = 0; i < asked.count; i++) {
		struct config_item *item = config_list_add(devices, asked.items[i].from);

		item->opts = asked.items[i].opts;
		asked.items[i].opts = (struct opts){0};
	}
	config_list_free(&asked);
	return true;
}
