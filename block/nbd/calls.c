/* SPDX-License-Identifier: Apache-2.0 */
/* Loading libnbd; see calls.h. Main thread. */
#include "config.h"

#ifdef CONFIG_LIBNBD
#include "block/nbd/calls.h"

#include <dlfcn.h>

static bool find(void *lib, const char *name, void *out, struct error **err)
{
	void *call = dlsym(lib, name);

	if (!call)
		error_set(err, "libnbd has no function '%s'", name);
	*(void **)out = call;
	return call;
}

bool nbd_calls_load(struct nbd_calls *calls, struct error **err)
{
	void *lib = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);

	if (!lib) {
		error_set(err, "Could not load libnbd: %s", dlerror());
		return false;
	}
#define FIND(name) find(lib, "nbd_" #name, &calls->name, err) &&
	return NBD_CALLS(FIND) true;
}
#endif
