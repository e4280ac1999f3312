/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug exit port: a test guest writes v, the process ends with status (v << 1) | 1, which is never
 * the 0 of a shutdown (QEMU's isa-debug-exit).
 *
 * Thread: vCPU threads; the request does the rest. Stateless. Owner: the machine.
 */
#include "hw/legacy/legacy.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/vm.h"

struct debug_exit {
	struct device dev;
	uint32_t iobase, iosize;
	struct io_region io;
};

static uint64_t debug_exit_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}

static void debug_exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct debug_exit *d = opaque;

	vm_request_exit(d->dev.vm, (int)((value << 1 | 1) & 0xff));
}

static const struct io_ops debug_exit_ops = {.read = debug_exit_read, .write = debug_exit_write};

static bool debug_exit_realize(struct device *dev, struct error **err)
{
	struct debug_exit *d = (struct debug_exit *)dev;

	d->io = (struct io_region){.base = d->iobase,
				   .size = d->iosize,
				   .ops = &debug_exit_ops,
				   .opaque = d,
				   .name = "debug-exit",
				   .max_access = 4};
	return io_bus_add(&dev->vm->pio, &d->io, err);
}

static void debug_exit_unrealize(struct device *dev)
{
	struct debug_exit *d = (struct debug_exit *)dev;

	io_bus_remove(&dev->vm->pio, &d->io);
	io_bus_quiesce(&dev->vm->pio);
}

static const struct prop debug_exit_props[] = {
	{.name = "iobase",
	 .type = PROP_U32,
	 .offset = offsetof(struct debug_exit, iobase),
	 .def = "0x501",
	 .max = 0xffff,
	 .help = "first I/O port"},
	{.name = "iosize",
	 .type = PROP_U32,
	 .offset = offsetof(struct debug_exit, iosize),
	 .def = "2",
	 .min = 1,
	 .max = 8,
	 .help = "number of I/O ports"},
	{0},
};

static const struct state_desc debug_exit_state = {
	.name = "debug-exit",
	.version = 1,
	.fields = (const struct state_field[]){{0}},
};

const struct device_desc isa_debug_exit_desc = {
	.name = "isa-debug-exit",
	.help = "port that ends the process with a status",
	.bus = "isa",
	.size = sizeof(struct debug_exit),
	.props = (const struct prop_set[]){{debug_exit_props, 0}, {0}},
	.state = &debug_exit_state,
	.realize = debug_exit_realize,
	.unrealize = debug_exit_unrealize,
};
