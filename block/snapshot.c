/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots inside images: finding them, and the way to the format's driver. See snapshot.h.
 */
#include "block/snapshot.h"

#include <errno.h>
#include <time.h>

#include "block/driver.h"

bool block_has_snapshots(const struct block_node *node)
{
	return node->drv->snapshots != NULL;
}

const struct block_snapshot *block_snapshots(const struct block_node *node, size_t *count)
{
	*count = 0;
	return node->drv->snapshots ? node->drv->snapshots->list(node, count) : NULL;
}

const struct block_snapshot *block_snapshot_find_both(const struct block_node *node, const char *id,
						      const char *name)
{
	size_t count;
	const struct block_snapshot *list = block_snapshots(node, &count);

	for (size_t i = 0; i < count; i++)
		if ((!id || !strcmp(list[i].id, id)) && (!name || !strcmp(list[i].name, name)))
			return &list[i];
	return NULL;
}

const struct block_snapshot *block_snapshot_find(const struct block_node *node,
						 const char *id_or_name)
{
	const struct block_snapshot *sn = block_snapshot_find_both(node, id_or_name, NULL);

	return sn ? sn : block_snapshot_find_both(node, NULL, id_or_name);
}

static bool may_change(struct block_node *node, struct error **err)
{
	if (!node->drv->snapshots) {
		error_set(err, "Format '%s' has no internal snapshots", block_format(node));
		return false;
	}
	if (node->read_only) {
		error_set(err, "Image is read-only");
		return false;
	}
	block_drain(node);
	return true;
}

bool block_snapshot_create(struct block_node *node, const struct block_snapshot *info,
			   struct error **err)
{
	struct block_snapshot now = *info;
	struct timespec ts;

	if (!may_change(node, err))
		return false;
	if (!now.date_sec) {
		clock_gettime(CLOCK_REALTIME, &ts);
		now.date_sec = ts.tv_sec;
		now.date_nsec = ts.tv_nsec;
	}
	now.disk_size = node->length;
	return node->drv->snapshots->create(node, &now, err);
}

bool block_snapshot_apply(struct block_node *node, const struct block_snapshot *sn,
			  struct error **err)
{
	if (!may_change(node, err))
		return false;
	/* They could not say what has changed. */
	if (node->bitmaps) {
		error_set(err, "Device has active dirty bitmaps");
		return false;
	}
	return node->drv->snapshots->apply(node, sn, err);
}

bool block_snapshot_delete(struct block_node *node, const struct block_snapshot *sn,
			   struct error **err)
{
	return may_change(node, err) && node->drv->snapshots->remove(node, sn, err);
}

bool block_snapshot_show(struct block_node *node, const struct block_snapshot *sn,
			 struct error **err)
{
	if (!node->drv->snapshots) {
		error_set(err, "Format '%s' has no internal snapshots", block_format(node));
		return false;
	}
	if (!node->read_only) {
		error_set(err, "Device is not readonly");
		return false;
	}
	block_drain(node);
	return node->drv->snapshots->show(node, sn, err);
}
