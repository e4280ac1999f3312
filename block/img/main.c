/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img's entry: finds the subcommand. Owner of the loop that the images are opened on,
 * and of what --object makes, which every subcommand takes.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "block/img/img.h"
#include "vmm/core/log.h"

static const struct {
	const char *name;
	int (*run)(struct img *img, int argc, char **argv);
	const char *help;
} commands[] = {
	{"amend", img_amend, "change what an image's header says"},
	{"bench", img_bench, "time requests"},
	{"bitmap", img_bitmap, "records of what was written, that an image keeps inside"},
	{"check", img_check, "find and repair leaks and corruptions"},
	{"commit", img_commit, "write an image into its backing file"},
	{"compare", img_compare, "whether two images have the same contents"},
	{"convert", img_convert, "copy an image into another format"},
	{"create", img_create, "make a new image"},
	{"dd", img_dd, "copy a part of an image"},
	{"info", img_info, "tell about an image"},
	{"io", img_io, "read and write by commands"},
	{"map", img_map, "where an image's contents are"},
	{"measure", img_measure, "how long a new image's file will be"},
	{"nbd", img_nbd, "serve an image over the network"},
	{"rebase", img_rebase, "change an image's backing file"},
	{"resize", img_resize, "change an image's size"},
	{"snapshot", img_snapshot, "states that an image keeps inside"},
};

static void help(FILE *out)
{
	fprintf(out, "usage: vmm-img COMMAND [OPTIONS] ...\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
}

static bool add_object(struct objects *objects, const char *text, struct error **err)
{
	struct opts opts;
	bool ok = opts_parse(&opts, text, "qom-type", err);

	if (ok) {
		ok = objects_add(objects, &opts, err);
		opts_free(&opts);
	}
	if (!ok)
		error_prefix(err, "--object %s: ", text);
	return ok;
}

/* Makes what every --object asks for, and leaves the rest of the arguments. */
static bool take_objects(struct objects *objects, int *argc, char **argv, struct error **err)
{
	static const char name[] = "--object";
	const size_t len = sizeof(name) - 1;
	int left = 0, i = 0;
	bool ok = true;

	while (i < *argc && strcmp(argv[i], "--")) {
		if (!ok || strncmp(argv[i], name, len) || (argv[i][len] && argv[i][len] != '=')) {
			argv[left++] = argv[i++];
		} else if (argv[i][len]) {
			ok = add_object(objects, argv[i++] + len + 1, err);
		} else if (i + 1 < *argc) {
			ok = add_object(objects, argv[i + 1], err);
			i += 2;
		} else {
			error_set(err, "option '--object' requires an argument");
			ok = false;
		}
	}
	while (i < *argc)
		argv[left++] = argv[i++];
	argv[left] = NULL;
	*argc = left;
	return ok;
}

int main(int argc, char **argv)
{
	const char *names[ARRAY_SIZE(commands)], *nearest;
	struct error *err = NULL;
	struct img img = {0};
	int ret;

	log_set_program("vmm-img");
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		fprintf(stderr, "vmm-img: Not enough arguments\nTry 'vmm-img --help' for more "
				"information\n");
		return 1;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		help(stdout);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		names[i] = commands[i].name;
		if (strcmp(argv[1], commands[i].name))
			continue;
		img.loop = evloop_new(NULL, &err);
		if (!img.loop)
			return img_fail(err);
		img.names.objects = objects_new();
		argc--;
		argv++;
		if (take_objects(img.names.objects, &argc, argv, &err))
			ret = commands[i].run(&img, argc, argv);
		else
			ret = img_fail(err);
		objects_free(img.names.objects);
		evloop_free(img.loop);
		return ret;
	}
	nearest = nearest_name(argv[1], names, ARRAY_SIZE(commands));
	fprintf(stderr, "vmm-img: Command not found: %s%s%s%s\n", argv[1],
		nearest ? " (did you mean '" : "", nearest ? nearest : "", nearest ? "'?)" : "");
	return 1;
}
