/* SPDX-License-Identifier: Apache-2.0 */
/* Names of NBD servers, as users and image headers have them. */
#include <stdlib.h>

#include "block/nbd/uri.h"
#include "vmm/core/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *name = xstrndup((const char *)data, size);
	struct error *err = NULL;
	struct opts opts = {0};

	if (nbd_is_filename(name)) {
		nbd_parse_filename(name, &opts, &err);
		error_free(err);
		opts_free(&opts);
	}
	free(name);
	return 0;
}
