/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD servers as file names: the URIs of the reference implementation's doc/uri.md, and QEMU's
 * older nbd:HOST:PORT[:exportname=NAME] and nbd:unix:PATH[:exportname=NAME]. Pure; any thread.
 */
#ifndef BLOCK_NBD_URI_H
#define BLOCK_NBD_URI_H

#include <stdbool.h>

#include "vmm/core/opts.h"

/* Whether name begins as one of them. */
bool nbd_is_filename(const char *name);
/* Adds driver=nbd, server.*, export and tls* as -blockdev has them. */
bool nbd_parse_filename(const char *name, struct opts *opts, struct error **err);
/* The URI of a server. Allocated. path NULL: host and port. */
char *nbd_make_uri(bool tls, const char *path, const char *host, const char *port,
		   const char *export);

#endif
