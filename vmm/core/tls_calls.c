/* SPDX-License-Identifier: Apache-2.0 */
/* Loading GnuTLS; see tls_calls.h. Main thread. */
#include "config.h"

#ifdef CONFIG_GNUTLS
#include "vmm/core/tls_calls.h"

#include "vmm/core/library.h"

bool tls_calls_load(struct tls_calls *calls, struct error **err)
{
	void *library = library_open("libgnutls.so.30", err);

#define FIND(name) &&library_find(library, "gnutls_" #name, &calls->name, err)
	return library TLS_CALLS(FIND);
}
#endif
