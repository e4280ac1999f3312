/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -object filter-dump: a back end's packets in a pcap file, without virtio header, in the order in
 * which they went by (draft-ietf-opsawg-pcap, Ethernet).
 *
 * Made and freed on the main thread while the back end is not attached; packets come on its queues'
 * loops. The caller owns it and frees it before the back end.
 */
#ifndef NET_DUMP_H
#define NET_DUMP_H

#include "net/net.h"

struct net_dump;

/* opts: "file", "maxlen", "queue". */
struct net_dump *net_dump_new(struct netdev *nd, struct opts *opts, struct error **err);
/* NULL is allowed. */
void net_dump_free(struct net_dump *dump);

#endif
