/* SPDX-License-Identifier: Apache-2.0 */
/* Apple's images (dmg). Input: the image's file. */
#include "tests/lib/image_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	image_fuzz("dmg", data, size);
	return 0;
}
