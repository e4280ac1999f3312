/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/image_fuzz.h"

#include <stdlib.h>

#include "block/check.h"
#include "tests/lib/block_memdisk.h"
#include "vmm/core/log.h"

enum { PIECE = 70000, ROOM = 4 << 20 };

static void use(struct block_node *node)
{
	uint64_t length = block_length(node), step = MAX(length / 8, (uint64_t)PIECE);
	uint8_t *buf = xmalloc(PIECE);
	struct block_check result = {0};
	struct block_extent x;

	for (uint64_t at = 0; at < length && at / step < 9; at += step) {
		size_t n = MIN(length - at, (uint64_t)PIECE);

		block_pread(node, at, buf, n);
		block_status(node, at, length - at, &x);
		if (!block_read_only(node)) {
			block_pwrite(node, at, buf, MIN(n, (size_t)5000), 0);
			block_zero(node, at + n / 2, n - n / 2, BLOCK_MAY_UNMAP);
			block_discard(node, at, n / 3);
		}
	}
	if (length)
		block_pread(node, length - MIN(length, 512), buf, MIN(length, 512));
	block_flush(node);
	/* A disk of many terabytes takes as long as its table is. */
	if (node->drv->check && length < 64 * GiB)
		node->drv->check(node, 0, &result, NULL);
	free(buf);
}

/* As vmm-img check -r all does. */
static void repair(struct block_node *node)
{
	struct block_check result = {0}, again = {0};

	if (!node->drv->check || block_length(node) >= 64 * GiB)
		return;
	if (!node->drv->check(node, BLOCK_FIX_ALL, &result, NULL))
		node->drv->check(node, 0, &again, NULL);
}

static void once(const char *driver, const uint8_t *data, size_t size, uint32_t flags)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct memdisk *m = memdisk_new(loop, data, size, size + ROOM);
	struct error *err = NULL;
	struct block_node *node;

	node = memdisk_open(m, driver, NULL, flags | BLOCK_OPEN_NO_BACKING | BLOCK_OPEN_AUTO_RO,
			    &err);
	if (node && (flags & BLOCK_OPEN_CHECK))
		repair(node);
	else if (node)
		use(node);
	error_free(err);
	block_unref(node);
	memdisk_free(m);
	evloop_free(loop);
}

void image_fuzz(const char *driver, const uint8_t *data, size_t size)
{
	if (!log_set_file("/dev/null"))
		return;
	if (size > 4 << 20)
		return;
	once(driver, data, size, 0);
	once(driver, data, size, BLOCK_OPEN_RDWR);
	once(driver, data, size, BLOCK_OPEN_RDWR | BLOCK_OPEN_CHECK);
}
