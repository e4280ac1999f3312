/* SPDX-License-Identifier: Apache-2.0 */
/* See vhost_server.h. */
#include "tests/lib/vhost_server.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/core/util.h"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

uint8_t *vhost_server_gpa(struct vhost_server *s, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < s->region_count; i++)
		if (gpa >= s->regions[i].gpa &&
		    range_inside(gpa - s->regions[i].gpa, len, s->regions[i].size))
			return s->regions[i].at + (gpa - s->regions[i].gpa);
	return NULL;
}

uint8_t *vhost_server_theirs(struct vhost_server *s, uint64_t addr, uint64_t len)
{
	for (unsigned i = 0; i < s->region_count; i++)
		if (addr >= s->regions[i].theirs &&
		    range_inside(addr - s->regions[i].theirs, len, s->regions[i].size))
			return s->regions[i].at + (addr - s->regions[i].theirs);
	return NULL;
}

static bool next_head(struct vhost_server_ring *r, uint16_t *head)
{
	if (!r->on || !r->avail || load_le16(r->avail + 2) == r->next)
		return false;
	*head = load_le16(r->avail + 4 + 2 * (r->next++ % r->size));
	return true;
}

static void use(struct vhost_server_ring *r, uint16_t head, uint32_t written)
{
	uint16_t index = load_le16(r->used + 2);
	uint8_t *entry = r->used + 4 + 8 * (index % r->size);
	uint64_t one = 1;

	store_le32(entry, head);
	store_le32(entry + 4, written);
	store_le16(r->used + 2, index + 1);
	if (r->call >= 0 && !(load_le16(r->avail) & 1) && write(r->call, &one, sizeof(one)) < 0)
		abort();
}

/* Copies from (or to) the chain's descriptors of one direction; how much. */
static size_t walk(struct vhost_server *s, struct vhost_server_ring *r, uint16_t head, uint8_t *buf,
		   size_t room, bool to_guest)
{
	uint8_t *table = r->desc;
	size_t done = 0;

	for (unsigned i = head;;) {
		uint8_t *d = table + 16 * i;
		uint16_t flags = load_le16(d + 12);
		size_t len = MIN(load_le32(d + 8), room - done);
		uint8_t *at = vhost_server_gpa(s, load_le64(d), len);

		if (!at)
			abort();
		if (flags & INDIRECT) {
			table = vhost_server_gpa(s, load_le64(d), load_le32(d));
			i = 0;
			continue;
		}
		if (!!(flags & WRITE) == to_guest) {
			memcpy(to_guest ? at : buf + done, to_guest ? buf + done : at, len);
			done += len;
		}
		if (!(flags & NEXT))
			return done;
		i = load_le16(d + 14);
	}
}

long vhost_server_take(struct vhost_server *s, unsigned ring, void *buf, size_t room)
{
	struct vhost_server_ring *r = &s->rings[ring];
	uint16_t head;
	size_t n;

	if (!next_head(r, &head))
		return -1;
	n = walk(s, r, head, buf, room, false);
	use(r, head, 0);
	return n;
}

bool vhost_server_give(struct vhost_server *s, unsigned ring, const void *data, size_t len)
{
	struct vhost_server_ring *r = &s->rings[ring];
	uint16_t head;

	if (!next_head(r, &head))
		return false;
	if (walk(s, r, head, (uint8_t *)data, len, true) != len)
		abort();
	use(r, head, len);
	return true;
}

bool vhost_server_kicked(struct vhost_server *s, unsigned ring)
{
	struct pollfd p = {.fd = s->rings[ring].kick, .events = POLLIN};
	uint64_t count;

	return p.fd >= 0 && poll(&p, 1, 0) == 1 &&
	       read(p.fd, &count, sizeof(count)) == sizeof(count);
}
