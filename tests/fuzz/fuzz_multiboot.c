/* SPDX-License-Identifier: Apache-2.0 */
/* Multiboot kernels: the header, the ELF or flat file behind it, and loading. Input: the kernel's
 * file. */
#include <stddef.h>
#include <stdint.h>

#include "tests/lib/boot_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_source src = {.kind = BOOT_MULTIBOOT};

	boot_file_from_bytes(&src.kernel, data, size);
	if (multiboot_parse(&src.kernel, &src.multiboot, NULL))
		boot_fuzz_load(&src);
	return 0;
}
