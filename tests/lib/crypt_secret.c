/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/crypt_secret.h"

#include <stddef.h>

bool crypt_secret_add(struct objects *objects, const char *text, struct error **err)
{
	struct opts opts;
	bool ok = opts_parse(&opts, text, "qom-type", err);

	if (ok) {
		ok = objects_add(objects, &opts, err);
		opts_free(&opts);
	}
	return ok;
}

struct objects *crypt_secrets(void)
{
	struct objects *objects = objects_new();

	crypt_secret_add(objects, "secret,id=s,data=abc123", NULL);
	crypt_secret_add(objects, "secret,id=t,data=def456", NULL);
	return objects;
}
