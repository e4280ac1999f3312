/* SPDX-License-Identifier: Apache-2.0 */
/* ELF kernels with a PVH entry: program headers, notes, and loading. Input: the kernel's file. */
#include <stddef.h>
#include <stdint.h>

#include "tests/lib/boot_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_source src = {.kind = BOOT_PVH};

	boot_file_from_bytes(&src.kernel, data, size);
	if (elf_parse(&src.kernel, &src.elf, NULL) && src.elf.has_pvh_entry)
		boot_fuzz_load(&src);
	return 0;
}
