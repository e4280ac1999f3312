/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets for tests of encrypted images: "s" is "abc123", "t" is "def456". */
#ifndef TESTS_LIB_CRYPT_SECRET_H
#define TESTS_LIB_CRYPT_SECRET_H

#include "vmm/core/objects.h"

struct objects *crypt_secrets(void);
/* One more; false with err. */
bool crypt_secret_add(struct objects *objects, const char *text, struct error **err);

#endif
