/* SPDX-License-Identifier: Apache-2.0 */
/* Loading libnbd; see calls.h. Main thread. */
#include "config.h"

#ifdef CONFIG_LIBNBD
#include "block/nbd/calls.h"

#include "vmm/core/library.h"

bool nbd_calls_load(struct nbd_calls *calls, struct error **err)
{
	void *library = library_open("libnbd.so.0", err);

#define FIND(name) &&library_find(library, "nbd_" #name, &calls->name, err)
	return library NBD_CALLS(FIND);
}
#endif
