/* SPDX-License-Identifier: Apache-2.0 */
/* Power cuts of a recording disk; see block_powercut.h. */
#include "tests/lib/block_powercut.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

enum { SECTOR = 512 };

static size_t durable_at(const struct memdisk *disk, size_t write)
{
	bool done = false, flushing = false;

	for (size_t k = write; k < disk->count; k++) {
		const struct mem_event *e = &disk->events[k];

		if (e->type == MEM_WRITE_DONE && e->id == disk->events[write].id)
			done = true;
		else if (e->type == MEM_FLUSH && done)
			flushing = true;
		else if (e->type == MEM_FLUSH_DONE && flushing)
			return k;
	}
	return SIZE_MAX;
}

void powercut_init(struct powercut *p, const struct memdisk *disk, const void *image,
		   uint64_t length)
{
	*p = (struct powercut){.disk = disk};
	p->base = xcalloc(1, disk->size);
	memcpy(p->base, image, length);
	p->durable = xcalloc(disk->count + 1, sizeof(*p->durable));
	for (size_t i = 0; i < disk->count; i++)
		if (disk->events[i].type == MEM_WRITE)
			p->durable[i] = durable_at(disk, i);
}

void powercut_destroy(struct powercut *p)
{
	free(p->base);
	free(p->durable);
}

void powercut_play(struct powercut *p, size_t events, int odds, unsigned *seed, struct memdisk *to)
{
	const struct mem_event *e = p->disk->events;

	for (; p->applied < events; p->applied++) {
		if (e[p->applied].type != MEM_WRITE)
			continue;
		if (p->durable[p->applied] >= events)
			break;
		memcpy(p->base + e[p->applied].offset, e[p->applied].data, e[p->applied].bytes);
	}
	memdisk_again(to, p->base, p->disk->size);
	for (size_t i = p->applied; i < events; i++) {
		if (e[i].type != MEM_WRITE)
			continue;
		for (uint64_t at = 0; at < e[i].bytes; at += SECTOR)
			if (p->durable[i] < events || (int)(rand_r(seed) % 100) < odds)
				memcpy(to->data + e[i].offset + at, e[i].data + at,
				       MIN((uint64_t)SECTOR, e[i].bytes - at));
	}
}
