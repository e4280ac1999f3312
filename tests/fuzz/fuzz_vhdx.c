/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHDX images. They are megabytes long and full of checksums, so the input is changes to a small
 * new image, 4 bytes each: which table, where in it, and what; then sums are made
 * right.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/create.h"
#include "block/format/vhdx.h"
#include "tests/lib/block_memdisk.h"
#include "tests/lib/image_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IMAGE = 4 << 20 };

static void put_sum(uint8_t *buf, size_t bytes)
{
	store_le32(buf + 4, 0);
	store_le32(buf + 4, vhdx_crc(0, buf, bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Where the format has something: headers, regions, metadata, table, log. */
	static const uint32_t places[] = {0x10000,  0x20000,  0x30000,	0x40000,
					  0x200000, 0x210000, 0x300000, 0x100000};
	struct opts opts = {0};
	struct block_create create = {.size = 20 * MiB, .opts = &opts};
	char path[] = "/tmp/vmm-fuzz-XXXXXX";
	int fd = mkstemp(path);
	uint8_t *image = xcalloc(1, IMAGE);

	if (fd >= 0 && block_find_driver("vhdx")->create(path, &create, NULL) &&
	    pread(fd, image, IMAGE, 0) == IMAGE) {
		for (size_t i = 0; i + 4 <= size; i += 4) {
			uint32_t place = places[data[i] % ARRAY_SIZE(places)];

			image[place + load_le16(data + i + 1) % 4096] = data[i + 3];
		}
		put_sum(image + 0x10000, 4096);
		put_sum(image + 0x20000, 4096);
		put_sum(image + 0x30000, 65536);
		put_sum(image + 0x40000, 65536);
		image_fuzz("vhdx", image, IMAGE);
	}
	if (fd >= 0)
		close(fd);
	unlink(path);
	free(image);
	return 0;
}
