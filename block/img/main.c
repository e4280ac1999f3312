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
#include "vmm/core/version.h"

static const struct {
	const char *name;
	int (*run)(struct img *img, int argc, char **argv);
	const char *help, *args;
} commands[] = {
	{"amend", img_amend, "change what an image's header says",
	 "[--image-opts] [-p] [-q] [-f FMT] [-t CACHE] [--force] -o OPTIONS FILE"},
	{"bench", img_bench, "time requests",
	 "[-c COUNT] [-d DEPTH] [-f FMT] [--flush-interval=N] [-i AIO] [-n] "
	 "[--no-drain] [-o OFFSET] [--pattern=BYTE] [-q] [-s SIZE] [-S STEP] [-t "
	 "CACHE] [-w] [-U] FILE"},
	{"bitmap", img_bitmap, "records of what was written, that an image keeps inside",
	 "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b SOURCE_FILE "
	 "[-F FMT]] [-g GRANULARITY] [--image-opts | -f FMT] FILE BITMAP"},
	{"check", img_check, "find and repair leaks and corruptions",
	 "[--image-opts] [-q] [-f FMT] [--output=human|json] [-r leaks|all] [-T CACHE] "
	 "[-U] FILE"},
	{"commit", img_commit, "write an image into its backing file",
	 "[--image-opts] [-q] [-f FMT] [-t CACHE] [-b BASE] [-r RATE] [-d] [-p] FILE"},
	{"compare", img_compare, "whether two images have the same contents",
	 "[--image-opts] [-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-s] [-U] FILE1 FILE2"},
	{"convert", img_convert, "copy an image into another format",
	 "[--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps] [-U] [-C] [-c] [-p] "
	 "[-q] [-n] [-f FMT] [-t CACHE] [-T CACHE] [-O FMT] [-B BACKING [-F FMT]] [-o "
	 "OPTIONS] [-l SNAPSHOT] [-S SPARSE] [-r RATE] [-m WORKERS] [-W] [--salvage] "
	 "FILE... TARGET"},
	{"create", img_create, "make a new image",
	 "[-q] [-f FMT] [-b BACKING [-F FMT]] [-u] [-o OPTIONS] FILE [SIZE]"},
	{"dd", img_dd, "copy a part of an image",
	 "[--image-opts] [-U] [-f FMT] [-O FMT] [bs=SIZE] [count=BLOCKS] [skip=BLOCKS] "
	 "if=FILE of=FILE"},
	{"info", img_info, "tell about an image",
	 "[--image-opts] [-f FMT] [--output=human|json] [--backing-chain] [-U] FILE"},
	{"io", img_io, "read and write by commands",
	 "[-c COMMAND]... [-C] [-f FMT] [-r] [-n] [-t CACHE] [-d DISCARD] [-i AIO] [-k] "
	 "[-U] [--image-opts] [FILE]"},
	{"map", img_map, "where an image's contents are",
	 "[--image-opts] [-f FMT] [--start-offset=OFFSET] [--max-length=LENGTH] "
	 "[--output=human|json] [-U] FILE"},
	{"measure", img_measure, "how long a new image's file will be",
	 "[--output=human|json] [-O FMT] [-o OPTIONS] [--size N | [--image-opts] [-f "
	 "FMT] [-l SNAPSHOT] FILE]"},
	{"nbd", img_nbd, "serve an image over the network", NULL},
	{"rebase", img_rebase, "change an image's backing file",
	 "[--image-opts] [-U] [-q] [-f FMT] [-t CACHE] [-T CACHE] [-p] [-u] -b BACKING "
	 "[-F FMT] FILE"},
	{"resize", img_resize, "change an image's size",
	 "[--image-opts] [-f FMT] [--preallocation=MODE] [-q] [--shrink] FILE "
	 "[+|-]SIZE"},
	{"snapshot", img_snapshot, "states that an image keeps inside",
	 "[--image-opts] [-U] [-q] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] FILE"},
};

static void help(FILE *out)
{
	fprintf(out, "usage: vmm-img COMMAND [--object OBJECT]... [OPTIONS] ...\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
	fprintf(out, "\nvmm-img COMMAND --help tells a command's options.\nSupported formats:");
	for (size_t i = 0; block_driver_at(i); i++)
		fprintf(out, " %s", block_driver_at(i)->name);
	fprintf(out, "\n");
}

/* The name is what scripts look at that were written for qemu-img. */
static void print_version(const char *argv0)
{
	const char *name = strrchr(argv0, '/');

	name = name ? name + 1 : argv0;
	if (!strcmp(name, "qemu-img"))
		printf("qemu-img version %d.%d.%d (vmm-img " VMM_VERSION ")\n", QEMU_VERSION_MAJOR,
		       QEMU_VERSION_MINOR, QEMU_VERSION_MICRO);
	else
		printf("vmm-img version " VMM_VERSION "\n");
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	return false;
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
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		print_version(argv[0]);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		names[i] = commands[i].name;
		if (strcmp(argv[1], commands[i].name))
			continue;
		if (commands[i].args && wants_help(argc - 2, argv + 2)) {
			printf("usage: vmm-img %s %s\n%s\n", commands[i].name,
			       commands[i].args, commands[i].help);
			return 0;
		}
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
