/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2: the input is an image. It is opened for reading, for writing and for repair; read,
 * written, zeroed, discarded and checked. Whatever it holds, errors are all that may come of it.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/bitmap.h"
#include "block/qcow2/check.h"
#include "tests/lib/block_memdisk.h"
#include "tests/lib/crypt_secret.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROOM = 256 << 10, SPAN = 64 << 10 };

static void use_bitmaps(struct block_node *node)
{
	struct block_bitmap *bm = block_bitmaps(node);
	uint64_t bits = 0;

	for (; bm && bits < MiB; bm = bm->next) {
		bits += bm->dirty.bits;
		if (bits < MiB)
			block_bitmap_load(node, bm, NULL);
	}
	bm = block_bitmaps(node);
	if (!bm || block_read_only(node) || bits >= MiB)
		return;
	block_bitmap_merge(node, bm, node, bm->next ? bm->next : bm, NULL);
	block_bitmaps_store(node);
	block_bitmap_add(node, "another", 0, true, NULL);
	block_bitmaps_store(node);
	block_bitmap_remove(node, bm, NULL);
}

static void use(struct block_node *node, const uint8_t *data, size_t size)
{
	uint64_t span = MIN(block_length(node), (uint64_t)SPAN);
	uint8_t *buf = xcalloc(1, SPAN);
	struct block_extent x;

	block_pread(node, 0, buf, span);
	block_pread(node, block_length(node) - span, buf, span);
	block_status(node, 0, span, &x);
	/* The image's last bytes say what is done to it. */
	for (size_t i = 0; i < MIN(size, (size_t)16); i++) {
		uint64_t at = (data[size - 1 - i] & 0x3f) * UINT64_C(1000),
			 bytes = 700 * (1 + i % 5);

		if (at + bytes > span)
			continue;
		if (data[size - 1 - i] & 0x80)
			block_pwrite(node, at, buf, bytes, i % 4 ? 0 : BLOCK_FUA);
		else if (data[size - 1 - i] & 0x40)
			block_discard(node, at, bytes);
		else
			block_zero(node, at, bytes, BLOCK_MAY_UNMAP);
	}
	block_flush(node);
	free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t flags[] = {0, BLOCK_OPEN_RDWR, BLOCK_OPEN_RDWR | BLOCK_OPEN_CHECK};
	struct objects *secrets = NULL;
	struct evloop *loop;

	if (!size || size > ROOM / 2)
		return 0;
	loop = evloop_new(NULL, NULL);
	/* AES has a password without asking for iterations (fuzz_luks.c has those). */
	if (size > 36 && load_be32(data + 32) == 1)
		secrets = crypt_secrets();
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		struct memdisk *disk = memdisk_new(loop, data, size, ROOM);
		struct block_node *node;
		struct block_check result;

		disk->objects = secrets;
		node = memdisk_open(disk, "qcow2", NULL, flags[i] | BLOCK_OPEN_NO_BACKING, NULL);
		if (node) {
			if (!(flags[i] & BLOCK_OPEN_RDWR) || (flags[i] & BLOCK_OPEN_CHECK))
				qcow2_check(node, flags[i] & BLOCK_OPEN_CHECK ? BLOCK_FIX_ALL : 0,
					    &result, NULL, NULL);
			use(node, data, size);
			use_bitmaps(node);
			block_unref(node);
		}
		memdisk_free(disk);
	}
	objects_free(secrets);
	evloop_free(loop);
	return 0;
}
