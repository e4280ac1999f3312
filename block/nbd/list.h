/* SPDX-License-Identifier: Apache-2.0 */
/* What a server offers, for people to read. Main thread. */
#ifndef BLOCK_NBD_LIST_H
#define BLOCK_NBD_LIST_H

#include <stdbool.h>

#include "vmm/core/evloop.h"
#include "vmm/core/tls.h"

struct nbd_list_config {
	const char *path; /* a unix socket, or */
	const char *host, *port;
	const struct tls_creds *tls;
	const char *tls_hostname; /* NULL: host */
};
/* Prints them to standard output, as qemu-nbd does. Waits on loop. */
bool nbd_list(struct evloop *loop, const struct nbd_list_config *config, struct error **err);

#endif
