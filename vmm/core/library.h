/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared libraries that few guests need, loaded when one does: each that the program is linked with
 * costs every start its pages and relocations. Main thread.
 */
#ifndef VMM_CORE_LIBRARY_H
#define VMM_CORE_LIBRARY_H

#include <stdbool.h>

#include "vmm/core/error.h"

/* soname's handle, or NULL. */
void *library_open(const char *soname, struct error **err);
/* Only for a library that leaves no thread behind; the others stay loaded. */
void library_close(void *library);
/* Stores the function's address in *out, a pointer to a function. */
bool library_find(void *library, const char *name, void *out, struct error **err);

#endif
