/* SPDX-License-Identifier: Apache-2.0 */
/* What block/drive.c needs of the throttle filter: a -drive's limits around its node. */
#ifndef BLOCK_FILTER_THROTTLE_H
#define BLOCK_FILTER_THROTTLE_H

#include "block/driver.h"
#include "block/throttle.h"

struct throttle_group;

/*
 * The settings of a -drive; group is NULL if it has none. Its group is called like the drive unless
 * it names one, is made if there is none, and takes over the limits if there are any.
 */
bool throttle_drive_options(struct throttle_groups *groups, const char *id, struct opts *opts,
			    struct throttle_group **group, struct error **err);
/* Gives the group up if no disk came into it. NULL is allowed. */
void throttle_group_put(struct throttle_group *group);
/* A new node above node, which becomes its own. */
struct block_node *throttle_above(struct block_node *node, struct throttle_group *group);

#endif
