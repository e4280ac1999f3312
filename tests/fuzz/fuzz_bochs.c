/* SPDX-License-Identifier: Apache-2.0 */
/* Bochs' images (bochs). Input: the image's file. */
#include "tests/lib/image_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	image_fuzz("bochs", data, size);
	return 0;
}
