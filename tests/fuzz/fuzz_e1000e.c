/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e1000e driven by arbitrary register accesses, descriptors and frames, over a network that is full
 * at times. Input: a byte that chooses the back end's headers and MSI-X, then a run of operations,
 * a byte that says which and its operands; numbers are little-endian. Each kind of guest is made
 * once; each input begins with a reset and cleared memory.
 */
#include <limits.h>
#include <stdlib.h>

#include "tests/lib/e1000e_rig.h"
#include "tests/lib/state_copy.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

enum op {
	WRITE,
	WRITE_ANY,
	READ,
	PORT,
	PATCH,
	SEND,
	SEND_BYTES,
	KICK,
	OFFER,
	ARRIVE,
	TURN,
	TAKE,
	WRITABLE,
	LINK,
	PAUSE,
	CONFIG,
	SAVE,
	OPS
};

/* Registers that do something. */
static const uint16_t regs[] = {
	E1000E_CTRL, E1000E_CTRL_EXT, E1000E_MDIC,  E1000E_EERD,   E1000E_EEWR,	  E1000E_ICR,
	E1000E_ICS,  E1000E_IMS,      E1000E_IMC,   E1000E_IAM,	   E1000E_EIAC,	  E1000E_IVAR,
	E1000E_ITR,  E1000E_EITR,     E1000E_RCTL,  E1000E_PSRCTL, E1000E_RXCSUM, E1000E_RFCTL,
	E1000E_MRQC, E1000E_RETA,     E1000E_RDBAL, E1000E_RDBAH,  E1000E_RDLEN,  E1000E_RDH,
	E1000E_RDT,  E1000E_TDBAL,    E1000E_TDBAH, E1000E_TDLEN,  E1000E_TDH,	  E1000E_TDT,
	E1000E_TCTL, E1000E_VET,      E1000E_RAH,   E1000E_TARC,   E1000E_RSRPD,  0x2900,
	0x2908,	     0x2910,	      0x2918,	    0x3900,	   0x3908,	  0x3910,
	0x3918,	     E1000E_TIMINCA,  E1000E_EECD,  E1000E_SWSM,   E1000E_STATUS, E1000E_VFTA,
};

struct input {
	const uint8_t *data;
	size_t size;
};

static uint64_t take(struct input *in, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n && in->size; i++, in->data++, in->size--)
		v |= (uint64_t)*in->data << (8 * i);
	return v;
}

static struct e1000e_rig *make_rig(unsigned how)
{
	struct e1000e_rig *r = xcalloc(1, sizeof(*r));

	log_set_file("/dev/null");
	e1000e_rig_init(r, how & 1 ? 12 : 0,
			how & 1 ? NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_ECN : 0, NULL);
	return r;
}

static void begin(struct e1000e_rig *r, unsigned how)
{
	vm_start(&r->m.vm);
	r->net.take = UINT_MAX;
	net_set_link(&r->net.nd, true);
	net_writable(&r->net.nd.queue[0]);
	vm_reset(&r->m.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	memset(r->ram, 0, E1000E_RIG_RX_BYTES + (1 << 16));
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0, 4, E1000E_RIG_BAR);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0 + 8, 4, E1000E_RIG_PORT);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0 + 12, 4, E1000E_RIG_MSIX);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_COMMAND, 2, 7);
	if (how & 2)
		e1000e_rig_use_msix(r);
	e1000e_rig_settle(r);
	e1000e_rig_start(r, 2, how >> 2 & 1 ? E1000E_RCTL_UPE | E1000E_RCTL_LPE : 0);
	fake_netdev_clear(&r->net);
}

static void patch(struct e1000e_rig *r, struct input *in)
{
	unsigned offset = take(in, 2), len = take(in, 1);

	for (unsigned i = 0; i < len && in->size; i++)
		r->ram[E1000E_RIG_TX + (offset + i) % 0x10000] = take(in, 1);
}

static void send_bytes(struct e1000e_rig *r, struct input *in)
{
	static uint8_t data[1 << 16];
	unsigned queue = take(in, 1) & 1;
	uint32_t command = take(in, 2), status = take(in, 4);
	size_t len = take(in, 2);

	for (unsigned at = 0; at < 80 && at < len && in->size; at++)
		data[at] = take(in, 1);
	e1000e_rig_put_bytes(r, queue, data, len, command << 16, status);
}

static void arrive(struct e1000e_rig *r, struct input *in)
{
	static uint8_t data[4][NET_PACKET_MAX];
	struct iovec batch[4];
	unsigned n = 1 + take(in, 1) % 4;

	for (unsigned i = 0; i < n; i++) {
		size_t len = take(in, 2) % NET_PACKET_MAX;

		for (unsigned at = 0; at < 80 && at < len && in->size; at++)
			data[i][at] = take(in, 1);
		batch[i] = (struct iovec){data[i], len};
	}
	fake_netdev_receive_batch(&r->net, 0, batch, n);
}

/* What is saved can be loaded, here and now. */
static void save(struct e1000e_rig *r)
{
	static uint8_t bytes[1 << 17];
	size_t len = state_save(e1000e_desc.state, r->dev, bytes, sizeof(bytes));

	state_load(e1000e_desc.state, r->dev, bytes, len, NULL);
}

static void step(struct e1000e_rig *r, struct input *in)
{
	unsigned reg, queue;
	uint64_t addr;
	uint32_t command;

	switch ((enum op)(take(in, 1) % OPS)) {
	case WRITE:
		reg = regs[take(in, 1) % ARRAY_SIZE(regs)];
		e1000e_rig_write(r, reg, take(in, 4));
		break;
	case WRITE_ANY:
		reg = take(in, 2) << 1;
		pci_mem_write(&r->m, E1000E_RIG_BAR + reg, 1 << take(in, 1) % 4, take(in, 4));
		break;
	case READ:
		reg = take(in, 2) << 1;
		pci_mem_read(&r->m, E1000E_RIG_BAR + reg, 1 << take(in, 1) % 4);
		break;
	case PORT:
		reg = take(in, 1) % E1000E_IO_SIZE;
		pci_port_read(&r->m, E1000E_RIG_PORT + reg, 4);
		pci_port_write(&r->m, E1000E_RIG_PORT + reg, 4, take(in, 4));
		break;
	case PATCH:
		patch(r, in);
		break;
	case SEND:
		queue = take(in, 1) & 1;
		addr = take(in, 8);
		command = take(in, 4);
		e1000e_rig_put(r, queue, addr, command, take(in, 4));
		break;
	case SEND_BYTES:
		send_bytes(r, in);
		break;
	case KICK:
		queue = take(in, 1) & 1;
		e1000e_rig_write(r, E1000E_TDT + queue * 0x100, r->tail[queue]);
		break;
	case OFFER:
		queue = take(in, 1) & 1;
		e1000e_rig_offer(r, queue, take(in, 1) % E1000E_RIG_RING);
		break;
	case ARRIVE:
		arrive(r, in);
		break;
	case TURN:
		evloop_run_once(r->m.vm.loop, 0);
		break;
	case TAKE:
		r->net.take = take(in, 1) % 4;
		break;
	case WRITABLE:
		r->net.take = UINT_MAX;
		net_writable(&r->net.nd.queue[0]);
		break;
	case LINK:
		net_set_link(&r->net.nd, take(in, 1) & 1);
		break;
	case PAUSE:
		if (take(in, 1) & 1)
			vm_stop(&r->m.vm, RUN_STATE_PAUSED);
		else
			vm_start(&r->m.vm);
		break;
	case CONFIG:
		reg = take(in, 1) & ~3u;
		pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, reg, 4, take(in, 4));
		break;
	case SAVE:
		save(r);
		break;
	case OPS:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct e1000e_rig *rigs[2];
	struct input in = {data, size};
	unsigned how = take(&in, 1);
	struct e1000e_rig **r = &rigs[how & 1];

	if (!*r)
		*r = make_rig(how & 1);
	begin(*r, how);
	while (in.size)
		step(*r, &in);
	for (int i = 0; i < 20; i++)
		evloop_run_once((*r)->m.vm.loop, 0);
	return 0;
}
