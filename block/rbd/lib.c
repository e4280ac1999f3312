/* SPDX-License-Identifier: Apache-2.0 */
/* Loading librbd and librados; see rbd.h. Main thread. */
#include "block/rbd/rbd.h"

#ifdef CONFIG_RBD
#include "vmm/core/library.h"

bool rbd_load(struct rbd_calls *calls, struct error **err)
{
	void *rados = library_open("librados.so.2", err);
	void *rbd = rados ? library_open("librbd.so.1", err) : NULL;

	if (!rbd)
		return false;
#define FIND_RADOS(name) library_find(rados, #name, &calls->name, err) &&
#define FIND_RBD(name)	 library_find(rbd, #name, &calls->name, err) &&
	return RADOS_CALLS(FIND_RADOS) RBD_CALLS(FIND_RBD) true;
}
#endif
