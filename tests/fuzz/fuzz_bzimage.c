/* SPDX-License-Identifier: Apache-2.0 */
/* Linux bzImage files: the setup header, and loading by it. Input: the kernel's file. */
#include <stddef.h>
#include <stdint.h>

#include "tests/lib/boot_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_source src = {.kind = BOOT_BZIMAGE};

	boot_file_from_bytes(&src.kernel, data, size);
	if (bzimage_parse(&src.kernel, &src.bzimage, NULL))
		boot_fuzz_load(&src);
	return 0;
}
