/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets: what -object secret names, for those who must have a password or a key (encrypted
 * images). QEMU's options: data= or file=, format=raw|base64, and keyid=, iv= where what is given
 * is itself encrypted (AES-256-CBC, padded as PKCS#7) with another secret's 32 bytes.
 *
 * Bytes that are secret lie in buffers of their own, which are wiped before they are freed.
 * Main thread.
 */
#ifndef VMM_CORE_SECRET_H
#define VMM_CORE_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"
#include "vmm/core/objects.h"

enum { SECRET_MAX_BYTES = 8 << 20 };

extern const struct object_type secret_type;

/* The bytes, borrowed, or NULL. */
const uint8_t *secret_find(const struct objects *objects, const char *id, size_t *len,
			   struct error **err);

/* Wipes len bytes and frees them. NULL is allowed. */
void secret_free(void *p, size_t len);
/* Decodes in place; newlines are skipped. *len is what remains. False: this is not base64. */
bool secret_base64(uint8_t *buf, size_t *len);

#endif
