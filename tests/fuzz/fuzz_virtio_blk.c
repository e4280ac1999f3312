/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk driven by arbitrary rings, requests and register accesses, modern and legacy, over a
 * disk in memory. Input: a byte that chooses the interface, then a run of operations, a byte that
 * says which and its operands; numbers are little-endian. The guest is made once; each input begins
 * with a reset and cleared memory.
 */
#include <limits.h>
#include <stdlib.h>

#include "hw/virtio/virtio_blk.h"
#include "tests/lib/fake_block.h"
#include "tests/lib/fuzz_input.h"
#include "tests/lib/vdriver.h"
#include "vmm/core/log.h"

enum {
	DISK = 64 << 10,
	PLAY = 1 << 20, /* where rings are placed and what inputs write to: 64 KiB */
	PLAY_SIZE = 1 << 16,
	QUEUE_SIZE = 64,
};

enum op {
	PATCH,
	DESCRIBE,
	OFFER,
	KICK,
	TURN,
	COMMON,
	CONFIG,
	LEGACY,
	WINDOW,
	HOLD,
	FAIL,
	RELEASE,
	RESIZE,
	OPS
};

struct machine {
	struct vguest g;
	struct vdriver d;
	struct drive drive;
	struct block_node *node;
	struct device *dev;
	struct vring *q;
};

static struct machine *make_machine(void)
{
	struct machine *m = xcalloc(1, sizeof(*m));

	log_set_file("/dev/null");
	vguest_init(&m->g);
	m->node = fake_block_new(m->g.vm.loop, DISK);
	m->drive = (struct drive){.id = "d0", .node = m->node, .werror = BLOCK_ERR_ENOSPC};
	vguest_object(&m->g, "d0", &m->drive);
	m->dev = vguest_add(&m->g, &virtio_blk_pci_desc, "drive=d0,queue-size=64,num-queues=2",
			    NULL);
	vguest_boot(&m->g);
	return m;
}

static void begin(struct machine *m, bool legacy)
{
	vm_start(&m->g.vm);
	m->node->hold = false;
	m->node->fail_count = 0;
	m->node->seen_count = 0;
	vdriver_open(&m->d, &m->g, m->dev, legacy);
	vdriver_reset(&m->d);
	m->g.next = PLAY;
	memset(vguest_ptr(&m->g, PLAY), 0, PLAY_SIZE);
	vdriver_negotiate(&m->d, UINT64_MAX);
	m->q = vdriver_ring(&m->d, 0, 0);
	vdriver_ok(&m->d);
}

static void describe(struct machine *m, struct fuzz_input *in)
{
	unsigned i = fuzz_take(in, 1) % QUEUE_SIZE;
	uint64_t gpa = PLAY + fuzz_take(in, 2);
	uint32_t len = fuzz_take(in, 2);
	uint16_t flags = fuzz_take(in, 1);

	vring_desc(m->q, i, gpa, len, flags, fuzz_take(in, 1));
}

static void window(struct machine *m, struct fuzz_input *in)
{
	unsigned offset = 0x40 + fuzz_take(in, 1) % 0xc0;
	unsigned size = 1 << fuzz_take(in, 1) % 3;

	/* Not the power state or MSI-X, which would only end the run. */
	vdriver_pci_read(&m->d, offset, size);
	if (offset >= pci_device_of(m->dev)->msix.pos + 12u)
		vdriver_pci_write(&m->d, offset, fuzz_take(in, 4), size);
}

static void step(struct machine *m, struct fuzz_input *in)
{
	unsigned offset, len;

	switch ((enum op)(fuzz_take(in, 1) % OPS)) {
	case PATCH:
		offset = fuzz_take(in, 2);
		len = fuzz_take(in, 1);
		for (unsigned i = 0; i < len && in->left; i++)
			*(uint8_t *)vguest_ptr(&m->g,
					       PLAY + (offset + i) % PLAY_SIZE) = fuzz_take(in, 1);
		break;
	case DESCRIBE:
		describe(m, in);
		break;
	case OFFER:
		vring_offer(m->q, fuzz_take(in, 1));
		break;
	case KICK:
		vring_ring(m->q);
		break;
	case TURN:
		evloop_run_once(m->g.vm.loop, 0);
		break;
	case COMMON:
		offset = fuzz_take(in, 1) % 64;
		len = 1 << fuzz_take(in, 1) % 4;
		vguest_out(&m->g, false, m->d.common + offset, fuzz_take(in, len), len);
		vguest_in(&m->g, false, m->d.common + offset, len);
		break;
	case CONFIG:
		offset = fuzz_take(in, 1) % 64;
		vdriver_config_write(&m->d, offset, fuzz_take(in, 2), 1 << fuzz_take(in, 1) % 3);
		break;
	case LEGACY:
		offset = fuzz_take(in, 1) % 128;
		vguest_out(&m->g, true, pci_bar_addr(m->d.pci, 0) + offset, fuzz_take(in, 4),
			   1 << fuzz_take(in, 1) % 3);
		vguest_in(&m->g, true, pci_bar_addr(m->d.pci, 0) + offset, 1);
		break;
	case WINDOW:
		window(m, in);
		break;
	case HOLD:
		m->node->hold = fuzz_take(in, 1) & 1;
		break;
	case FAIL:
		m->node->fail_count = fuzz_take(in, 1) % 4;
		m->node->fail_error = fuzz_take(in, 1) & 1 ? -ENOSPC : -EIO;
		break;
	case RELEASE:
		fake_block_release(m->node, fuzz_take(in, 1));
		break;
	case RESIZE:
		fake_block_resize(m->node, fuzz_take(in, 1) % 128 * 512 + 512);
		break;
	case OPS:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine *m;
	struct fuzz_input in = {data, size};

	if (!m)
		m = make_machine();
	begin(m, fuzz_take(&in, 1) & 1);
	while (in.left)
		step(m, &in);
	m->node->hold = false;
	for (int i = 0; i < 20; i++) {
		fake_block_release(m->node, UINT_MAX);
		evloop_run_once(m->g.vm.loop, 0);
	}
	return 0;
}
