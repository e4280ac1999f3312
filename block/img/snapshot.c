/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img snapshot: the states that an image keeps inside; and -l of other subcommands, which reads
 * one of them.
 */
#include "block/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "block/img/img.h"

void img_print_snapshot(const struct block_snapshot *sn, bool first)
{
	time_t when = sn->date_sec;
	uint64_t secs = sn->vm_clock_ns / NSEC_PER_SEC;
	char size[32], date[32] = "", clock[64], icount[32] = "";
	struct tm tm;

	if (first)
		printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE",
		       "DATE", "VM CLOCK", "ICOUNT");
	if (localtime_r(&when, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(clock, sizeof(clock), "%02" PRIu64 ":%02u:%02u.%03u", secs / 3600,
		 (unsigned)(secs / 60 % 60), (unsigned)(secs % 60),
		 (unsigned)(sn->vm_clock_ns / 1000000 % 1000));
	if (sn->icount != BLOCK_SNAPSHOT_NO_ICOUNT)
		snprintf(icount, sizeof(icount), "%" PRIu64, sn->icount);
	printf("%-9s %-16s %8s%20s%13s%11s\n", sn->id, sn->name,
	       img_size(size, sn->vm_state_bytes), date, clock, icount);
}

static void list_snapshots(const struct block_node *node)
{
	size_t count = 0;
	const struct block_snapshot *list =
		block_has_snapshots(node) ? block_snapshots(node, &count) : NULL;

	for (size_t i = 0; i < count; i++)
		img_print_snapshot(&list[i], !i);
}

bool img_show_snapshot(struct block_node *node, const char *text, struct error **err)
{
	const struct block_snapshot *sn = NULL;
	struct opts opts = {0};

	if (!block_has_snapshots(node)) {
		error_set(err, "Failed to load snapshot: Device does not support internal "
			       "snapshots");
		return false;
	}
	if (!strncmp(text, "snapshot.", 9)) {
		if (!opts_parse(&opts, text, NULL, err))
			return false;
		sn = block_snapshot_find_both(node, opts_get(&opts, "snapshot.id"),
					      opts_get(&opts, "snapshot.name"));
		if (!opts_check_used(&opts, NULL, 0, err)) {
			opts_free(&opts);
			return false;
		}
		opts_free(&opts);
	} else {
		sn = block_snapshot_find(node, text);
	}
	if (!sn) {
		error_set(err, "Failed to load snapshot: Can't find snapshot");
		return false;
	}
	if (block_snapshot_show(node, sn, err))
		return true;
	error_prefix(err, "Failed to load snapshot: ");
	return false;
}

static int change(struct block_node *node, int what, const char *name)
{
	struct block_snapshot info = {.name = (char *)name, .icount = 0};
	const struct block_snapshot *sn =
		block_has_snapshots(node) ? block_snapshot_find(node, name) : NULL;
	struct error *err = NULL;
	bool ok;

	if (what == 'c') {
		if (!block_has_snapshots(node))
			return img_usage("Could not create snapshot '%s': -95 (Operation not "
					 "supported)",
					 name);
		ok = block_snapshot_create(node, &info, &err);
		error_prefix(&err, "Could not create snapshot '%s': ", name);
	} else if (what == 'a') {
		if (!block_has_snapshots(node))
			return img_usage("Could not apply snapshot '%s': Block driver does not "
					 "support snapshots",
					 name);
		if (!sn)
			return img_usage("Could not apply snapshot '%s': Failed to load snapshot: "
					 "No such file or directory",
					 name);
		ok = block_snapshot_apply(node, sn, &err);
		error_prefix(&err, "Could not apply snapshot '%s': ", name);
	} else {
		if (!sn)
			return img_usage("Could not delete snapshot '%s': snapshot not found",
					 name);
		ok = block_snapshot_delete(node, sn, &err);
		error_prefix(&err, "Could not delete snapshot '%s': ", name);
	}
	return ok ? 0 : img_fail(err);
}

int img_snapshot(struct img *img, int argc, char **argv)
{
	static const struct option longs[] = {
		{"image-opts", 0, 0, 1}, {"force-share", 0, 0, 'U'}, {0}};
	const char *name = NULL;
	struct block_node *node;
	struct error *err = NULL;
	bool image_opts = false;
	uint32_t flags = 0;
	int o, what = 0, ret = 0;

	while ((o = getopt_long(argc, argv, "la:c:d:qU", longs, NULL)) != -1) {
		switch (o) {
		case 'l':
		case 'a':
		case 'c':
		case 'd':
			if (what)
				return img_usage("Cannot mix '-l', '-a', '-c', '-d'");
			what = o;
			name = optarg;
			break;
		case 'q': /* there is nothing to say */
			break;
		case 'U':
			flags |= BLOCK_OPEN_FORCE_SHARE;
			break;
		case 1:
			image_opts = true;
			break;
		default:
			return 1;
		}
	}
	if (argc - optind != 1)
		return img_usage("Expecting one image file name");
	if (what && what != 'l')
		flags |= BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP;
	node = img_open(img, argv[optind], NULL, image_opts, NULL, flags, &err);
	if (!node)
		return img_fail(err);
	if (what == 'l')
		list_snapshots(node);
	else if (what)
		ret = change(node, what, name);
	block_unref(node);
	return ret;
}
