/* SPDX-License-Identifier: Apache-2.0 */
/* Shared libraries loaded when they are needed; see library.h. Main thread. */
#include "vmm/core/library.h"

#include <dlfcn.h>

void *library_open(const char *soname, struct error **err)
{
	void *library = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

	if (!library)
		error_set(err, "Could not load a library: %s", dlerror());
	return library;
}

void library_close(void *library)
{
	dlclose(library);
}

bool library_find(void *library, const char *name, void *out, struct error **err)
{
	void *symbol = dlsym(library, name);

	if (!symbol)
		error_set(err, "A library has no function '%s'", name);
	*(void **)out = symbol;
	return symbol;
}
