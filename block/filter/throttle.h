/* SPDX-License-Identifier: Apache-2.0 */
/* What the block layer needs of throttling: a gate before a node's own driver. */
#ifndef BLOCK_FILTER_THROTTLE_H
#define BLOCK_FILTER_THROTTLE_H

#include "block/driver.h"
#include "block/throttle.h"

struct throttle_group;
struct throttle_member;

/*
 * The settings of a -drive; group is NULL if it has none. Its group is called like the drive unless
 * it names one, is made if there is none, and takes over the limits if there are any.
 */
bool throttle_drive_options(struct throttle_groups *groups, const char *id, struct opts *opts,
			    struct throttle_group **group, struct error **err);
/* Gives the group up if no disk came into it. NULL is allowed. */
void throttle_group_put(struct throttle_group *group);
/* node->gate, on the node's loop or while nobody runs it: requests go through the group from now
 * on; and no more, at which those that wait go on. */
void throttle_gate_open(struct block_node *node, struct throttle_group *group);
void throttle_gate_close(struct block_node *node);
/* A request whose driver is to have it when its time has come. */
void throttle_take(struct throttle_member *m, struct block_req *req);
/* Somebody waits for all requests to end: they go at once. */
void throttle_hurry(struct throttle_member *m);
/* Drained, and about to leave the loop. */
void throttle_stop(struct throttle_member *m);

#endif
