/* SPDX-License-Identifier: Apache-2.0 */
/* VHDX's log. Input: the identity, 16 bytes, and the ring. */
#include <stdlib.h>

#include "block/format/vhdx.h"
#include "tests/lib/block_memdisk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vhdx_log log = {.guid = data};
	struct evloop *loop;
	struct memdisk *m;
	uint8_t *ring;

	if (size < 16 + VHDX_SECTOR || size > 1 << 20)
		return 0;
	log.length = ALIGN_DOWN(size - 16, VHDX_SECTOR);
	ring = xmalloc(log.length);
	memcpy(ring, data + 16, log.length);
	/* What a fuzzer cannot guess: entries whose sum is right, as far as they do not wrap. */
	for (uint32_t at = 0; at < log.length; at += VHDX_SECTOR) {
		uint32_t bytes = load_le32(ring + at + 8);

		if (memcmp(ring + at, "loge", 4) || !bytes || bytes > log.length - at)
			continue;
		store_le32(ring + at + 4, 0);
		store_le32(ring + at + 4, vhdx_crc(0, ring + at, bytes));
	}
	log.data = ring;
	if (vhdx_log_find(&log, NULL) && log.count) {
		loop = evloop_new(NULL, NULL);
		m = memdisk_new(loop, NULL, MiB, 4 * MiB);
		m->node->growable = true;
		vhdx_log_replay(&log, m->node, NULL);
		memdisk_free(m);
		evloop_free(loop);
	}
	free(ring);
	return 0;
}
