/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared libraries that few guests need, loaded when one does: each that the program is linked with
 * costs every start its pages and relocations. Main thread.
 */
#ifndef VMM_CORE_LIBRARY_H
#define VMM_CORE_LIBRARY_H

#include <stdbool.h>

#include "vmm/core/error.h"

/* soname's handle, or NULL. It stays loaded: some have threads of their own. */
void *library_open(const char *soname, struct error **err);
/* Stores the function's address in *out, a pointer to a function. */
bool library_find(void *library, const char *name, void *out, struct error **err);

#endif
