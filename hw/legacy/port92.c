/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System control port A, 0x92: bit 0 resets the machine, bit 1 is the A20 gate. Addresses are never
 * wrapped here, so the gate only remembers what it was told; it starts open, as firmware leaves it.
 *
 * Thread: vCPU threads; one atomic byte. Owner: the machine.
 */
#include <stdatomic.h>

#include "hw/legacy/legacy.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/vm.h"

enum {
	PORT92_RESET = 1 << 0,
	PORT92_A20 = 1 << 1,
};

struct port92 {
	struct device dev;
	struct io_region io;
	uint8_t value;
};

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
	struct port92 *p = opaque;

	return __atomic_load_n(&p->value, __ATOMIC_RELAXED);
}

static void port92_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct port92 *p = opaque;
	uint8_t old = __atomic_exchange_n(&p->value, (uint8_t)value, __ATOMIC_RELAXED);

	if ((value & PORT92_RESET) && !(old & PORT92_RESET))
		vm_request_reset(p->dev.vm, CAUSE_GUEST_RESET);
}

static const struct io_ops port92_ops = {.read = port92_read, .write = port92_write};

static void port92_reset(struct device *dev)
{
	__atomic_store_n(&((struct port92 *)dev)->value, PORT92_A20, __ATOMIC_RELAXED);
}

static bool port92_realize(struct device *dev, struct error **err)
{
	struct port92 *p = (struct port92 *)dev;

	port92_reset(dev);
	p->io = (struct io_region){.base = 0x92,
				   .size = 1,
				   .ops = &port92_ops,
				   .opaque = p,
				   .name = "port92",
				   .max_access = 1};
	return io_bus_add(&dev->vm->pio, &p->io, err);
}

static void port92_unrealize(struct device *dev)
{
	struct port92 *p = (struct port92 *)dev;

	io_bus_remove(&dev->vm->pio, &p->io);
	io_bus_quiesce(&dev->vm->pio);
}

static const struct state_desc port92_state = {
	.name = "port92",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct port92, value, STATE_U8),
			{0},
		},
};

const struct device_desc port92_desc = {
	.name = "port92",
	.help = "A20 gate and fast reset",
	.bus = "isa",
	.size = sizeof(struct port92),
	.state = &port92_state,
	.internal = true,
	.realize = port92_realize,
	.reset = port92_reset,
	.unrealize = port92_unrealize,
};
