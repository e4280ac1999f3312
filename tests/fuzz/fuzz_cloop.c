/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed loop images (cloop). Input: the image's file. */
#include "tests/lib/image_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	image_fuzz("cloop", data, size);
	return 0;
}
