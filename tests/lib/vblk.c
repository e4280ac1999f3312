/* SPDX-License-Identifier: Apache-2.0 */
/* Block requests as a driver makes them: see vblk.h. */
#include "tests/lib/vblk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "hw/virtio/virtio_blk_parse.h"
#include "vmm/core/util.h"

void vblk_add(struct vring *r, struct vblk_req *req, uint32_t type, uint64_t sector, uint64_t data,
	      uint32_t len, unsigned pieces, bool indirect)
{
	struct vguest *g = r->d->g;
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	struct vbuf bufs[1024];
	unsigned n = 0;
	uint8_t *p;

	req->header = vguest_alloc(g, 17, 16);
	req->status = req->header + 16;
	req->data = data;
	req->len = len;
	p = vguest_ptr(g, req->header);
	store_le32(p, type);
	store_le32(p + 4, 0);
	store_le64(p + 8, sector);
	p[16] = VBLK_PENDING;
	bufs[n++] = (struct vbuf){req->header, 16};
	for (unsigned i = 0; len && i < pieces; i++) {
		uint32_t piece = i + 1 < pieces ? len / pieces
						: len - (pieces - 1) * (len / pieces);

		bufs[n++] = (struct vbuf){data + (uint64_t)i * (len / pieces), piece};
	}
	bufs[n++] = (struct vbuf){req->status, 1};
	req->head = vring_add(r, bufs, in ? 1 : n - 1, in ? n - 1 : 1, indirect);
}

uint8_t vblk_status(struct vring *r, const struct vblk_req *req)
{
	return __atomic_load_n((uint8_t *)vguest_ptr(r->d->g, req->status), __ATOMIC_ACQUIRE);
}

uint8_t vblk_do(struct vring *r, uint32_t type, uint64_t sector, uint64_t data, uint32_t len)
{
	struct vguest *g = r->d->g;
	struct vblk_req req;
	uint16_t head;

	if (r->free + 3 > r->size)
		vring_recycle(r);
	vblk_add(r, &req, type, sector, data, len, 1, false);
	vring_kick(r);
	for (int i = 0; !vring_used(r, &head, NULL); i++) {
		assert_true(i < 5000);
		evloop_run_once(g->vm.loop, NSEC_PER_MSEC);
	}
	assert_int_equal(head, req.head);
	return vblk_status(r, &req);
}
