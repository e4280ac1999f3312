/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who controls the guest: QMP servers for programs, monitors for people, each on a chardev.
 *
 * Main thread. A client that breaks the protocol loses its connection and nothing else.
 */
#ifndef VMM_CONTROL_CONTROL_H
#define VMM_CONTROL_CONTROL_H

#include <stdbool.h>

#include "block/block.h"
#include "net/net.h"
#include "vmm/chardev/chardev.h"
#include "vmm/core/error.h"
#include "vmm/core/vm.h"

struct control;

/* chardevs, what *drives begins (a list through drive->next) and netdevs are borrowed. */
struct control *control_new(struct vm *vm, struct chardevs *chardevs, struct drive **drives,
			    struct netdevs *netdevs);
/*
 * While held, clients are greeted and what they say waits: a guest that is half made, whose disks
 * turn the loop while they are opened, obeys nobody. Not held at first.
 */
void control_hold(struct control *c, bool hold);
/* A monitor on the chardev called id. Before serial ports take shared chardevs: the last has the
 * terminal's focus. */
bool control_add(struct control *c, const char *chardev, bool qmp, bool pretty, struct error **err);
/* Before chardevs_destroy(); tells clients nothing more. */
void control_free(struct control *c);

#endif
