/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net driven by arbitrary rings, headers, commands and register accesses, modern and legacy,
 * with packets that come and a network that is full at times. Input: a byte that chooses interface
 * and features, then a run of operations, a byte that says which and its operands; numbers are
 * little-endian. Each kind of guest is made once; each input begins with a reset and cleared
 * memory.
 */
#include <limits.h>
#include <stdlib.h>

#include "tests/lib/fuzz_input.h"
#include "tests/lib/vdriver.h"
#include "tests/lib/vnet.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

enum {
	PLAY = 1 << 20, /* where rings are placed and what inputs write to: 64 KiB */
	PLAY_SIZE = 1 << 16,
	QUEUE_SIZE = 64,
	PAIRS = 2,
	RINGS = 2 * PAIRS + 1,
};

enum op {
	PATCH,
	DESCRIBE,
	OFFER,
	KICK,
	TURN,
	COMMON,
	CONFIG,
	ARRIVE,
	TAKE,
	WRITABLE,
	LINK,
	PAUSE,
	ANNOUNCE,
	DRAIN,
	SELECT,
	OPS
};

struct machine {
	struct vnet v;
	struct vring *r; /* what DESCRIBE and OFFER are about */
	unsigned rings;
};

static struct machine *make_machine(bool headers)
{
	struct machine *m = xcalloc(1, sizeof(*m));

	log_set_file("/dev/null");
	vnet_init(&m->v, PAIRS, headers ? 12 : 0, headers ? VNET_ALL_OFFLOADS : 0);
	vnet_add(&m->v, "mq=on,rss=on,hash=on");
	return m;
}

static void begin(struct machine *m, unsigned how)
{
	bool legacy = how & 1;
	uint64_t features = UINT64_MAX;

	if (how & 4)
		features &= ~VIRTIO_NET_F_MRG_RXBUF;
	if (how & 8)
		features &= ~(VIRTIO_NET_F_HASH_REPORT | VIRTIO_NET_GUEST_OFFLOADS);
	if (how & 16)
		features &= ~(VIRTIO_NET_F_MQ | VIRTIO_NET_F_RSS);
	m->v.net.take = UINT_MAX;
	net_set_link(&m->v.net.nd, true);
	vm_start(&m->v.g.vm);
	vdriver_open(&m->v.d, &m->v.g, m->v.dev, legacy);
	vdriver_reset(&m->v.d);
	m->v.g.next = PLAY;
	memset(vguest_ptr(&m->v.g, PLAY), 0, PLAY_SIZE);
	vdriver_negotiate(&m->v.d, features);
	m->rings = features & VIRTIO_NET_F_MQ ? RINGS : 3;
	for (unsigned i = 0; i < m->rings; i++)
		vdriver_ring(&m->v.d, i, legacy ? 0 : QUEUE_SIZE);
	m->r = &m->v.d.rings[0];
	vdriver_ok(&m->v.d);
}

static void describe(struct machine *m, struct fuzz_input *in)
{
	unsigned i = fuzz_take(in, 1) % QUEUE_SIZE;
	uint64_t gpa = PLAY + fuzz_take(in, 2);
	uint32_t len = fuzz_take(in, 2);
	uint16_t flags = fuzz_take(in, 1);

	vring_desc(m->r, i, gpa, len, flags, fuzz_take(in, 1));
}

static void patch(struct machine *m, struct fuzz_input *in)
{
	unsigned offset = fuzz_take(in, 2), len = fuzz_take(in, 1);

	for (unsigned i = 0; i < len && in->left; i++)
		*(uint8_t *)vguest_ptr(&m->v.g, PLAY + (offset + i) % PLAY_SIZE) = fuzz_take(in, 1);
}

static void arrive(struct machine *m, struct fuzz_input *in)
{
	static uint8_t data[4][NET_PACKET_MAX];
	struct iovec batch[4];
	unsigned queue = fuzz_take(in, 1) % PAIRS, n = 1 + fuzz_take(in, 1) % 4;

	for (unsigned i = 0; i < n; i++) {
		size_t len = fuzz_take(in, 2) % NET_PACKET_MAX;

		for (unsigned at = 0; at < 40 && at < len && in->left; at++)
			data[i][at] = fuzz_take(in, 1);
		batch[i] = (struct iovec){data[i], len};
	}
	fake_netdev_receive_batch(&m->v.net, queue, batch, n);
}

static void on_drain(struct machine *m)
{
	vm_stop(&m->v.g.vm, RUN_STATE_PAUSED);
	virtio_state.pre_save(&((struct virtio_net_pci *)m->v.dev)->net.vdev);
	vm_start(&m->v.g.vm);
}

static void step(struct machine *m, struct fuzz_input *in)
{
	struct vnet *v = &m->v;
	unsigned offset, len;

	switch ((enum op)(fuzz_take(in, 1) % OPS)) {
	case PATCH:
		patch(m, in);
		break;
	case DESCRIBE:
		describe(m, in);
		break;
	case OFFER:
		vring_offer(m->r, fuzz_take(in, 1));
		break;
	case KICK:
		vring_ring(m->r);
		break;
	case TURN:
		evloop_run_once(v->g.vm.loop, 0);
		break;
	case COMMON:
		offset = fuzz_take(in, 1) % 64;
		len = 1 << fuzz_take(in, 1) % 4;
		if (v->d.legacy)
			vguest_out(&v->g, true, v->d.port + offset, fuzz_take(in, 4), MIN(len, 4u));
		else
			vguest_out(&v->g, false, v->d.common + offset, fuzz_take(in, len), len);
		break;
	case CONFIG:
		offset = fuzz_take(in, 1) % 32;
		vdriver_config_write(&v->d, offset, fuzz_take(in, 2), 1 << fuzz_take(in, 1) % 3);
		break;
	case ARRIVE:
		arrive(m, in);
		break;
	case TAKE:
		v->net.take = fuzz_take(in, 1) % 4;
		break;
	case WRITABLE:
		v->net.take = UINT_MAX;
		net_writable(&v->net.nd.queue[fuzz_take(in, 1) % PAIRS]);
		break;
	case LINK:
		net_set_link(&v->net.nd, fuzz_take(in, 1) & 1);
		break;
	case PAUSE:
		if (fuzz_take(in, 1) & 1)
			vm_stop(&v->g.vm, RUN_STATE_PAUSED);
		else
			vm_start(&v->g.vm);
		break;
	case ANNOUNCE:
		v->net.nd.peer->announce(v->net.nd.peer->opaque);
		break;
	case DRAIN:
		on_drain(m);
		break;
	case SELECT:
		m->r = &v->d.rings[fuzz_take(in, 1) % m->rings];
		break;
	case OPS:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine *machines[2];
	struct fuzz_input in = {data, size};
	unsigned how = fuzz_take(&in, 1);
	struct machine **m = &machines[how >> 1 & 1];

	if (!*m)
		*m = make_machine(how >> 1 & 1);
	begin(*m, how);
	while (in.left)
		step(*m, &in);
	for (int i = 0; i < 20; i++)
		evloop_run_once((*m)->v.g.vm.loop, 0);
	return 0;
}
