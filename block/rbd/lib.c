/* SPDX-License-Identifier: Apache-2.0 */
/* Loading librbd and librados; see rbd.h. Main thread. */
#include "block/rbd/rbd.h"

#ifdef CONFIG_RBD
#include <dlfcn.h>

static bool find(void *lib, const char *name, void *out, struct error **err)
{
	void *call = dlsym(lib, name);

	if (!call)
		error_set(err, "Ceph's library has no function '%s'", name);
	*(void **)out = call;
	return call;
}

bool rbd_load(struct rbd_calls *calls, struct error **err)
{
	/* It has threads of its own and is never let go. */
	const int flags = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
	void *rados = dlopen("librados.so.2", flags);
	void *rbd = rados ? dlopen("librbd.so.1", flags) : NULL;

	if (!rbd) {
		error_set(err, "Could not load Ceph's library: %s", dlerror());
		return false;
	}
#define FIND_RADOS(name) find(rados, #name, &calls->name, err) &&
#define FIND_RBD(name)	 find(rbd, #name, &calls->name, err) &&
	return RADOS_CALLS(FIND_RADOS) RBD_CALLS(FIND_RBD) true;
}
#endif
