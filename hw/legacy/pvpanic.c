/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pvpanic on the ISA bus: the guest says that it panicked, that its crash kernel takes over, or
 * that it shuts down (QEMU docs/specs/pvpanic). A read tells which of these are understood.
 *
 * Thread: vCPU threads; requests and the posted event do the rest. Owner: the machine.
 */
#include "hw/legacy/legacy.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/log.h"
#include "vmm/core/vm.h"

enum {
	PVPANIC_PANICKED = 1 << 0,
	PVPANIC_CRASH_LOADED = 1 << 1,
	PVPANIC_SHUTDOWN = 1 << 2,
	PVPANIC_ALL = PVPANIC_PANICKED | PVPANIC_CRASH_LOADED | PVPANIC_SHUTDOWN,
};

struct pvpanic {
	struct device dev;
	uint32_t ioport;
	uint8_t events;
	struct io_region io;
	struct ev_work crash_loaded;
	struct log_ratelimit limit;
};

static uint64_t pvpanic_read(void *opaque, uint64_t offset, unsigned size)
{
	return ((struct pvpanic *)opaque)->events;
}

static void pvpanic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pvpanic *p = opaque;

	if (value & ~(uint64_t)PVPANIC_ALL)
		log_guest_error(&p->limit, "pvpanic: unknown event 0x%x", (unsigned)value);
	if (value & p->events & PVPANIC_PANICKED)
		vm_request_panic(p->dev.vm);
	else if (value & p->events & PVPANIC_CRASH_LOADED)
		evloop_post(p->dev.vm->loop, &p->crash_loaded);
	else if (value & p->events & PVPANIC_SHUTDOWN)
		vm_request_shutdown(p->dev.vm, CAUSE_GUEST_SHUTDOWN);
}

static const struct io_ops pvpanic_ops = {.read = pvpanic_read, .write = pvpanic_write};

static void crash_loaded(void *opaque)
{
	struct pvpanic *p = opaque;
	struct vm_event event = {.kind = VM_EVENT_GUEST_CRASHLOADED, .action = "run"};

	vm_send_event(p->dev.vm, &event);
}

static bool pvpanic_realize(struct device *dev, struct error **err)
{
	struct pvpanic *p = (struct pvpanic *)dev;

	ev_work_init(&p->crash_loaded, crash_loaded, p);
	p->limit = LOG_RATELIMIT;
	p->io = (struct io_region){.base = p->ioport,
				   .size = 1,
				   .ops = &pvpanic_ops,
				   .opaque = p,
				   .name = "pvpanic",
				   .max_access = 1};
	return io_bus_add(&dev->vm->pio, &p->io, err);
}

static void pvpanic_unrealize(struct device *dev)
{
	struct pvpanic *p = (struct pvpanic *)dev;

	io_bus_remove(&dev->vm->pio, &p->io);
	io_bus_quiesce(&dev->vm->pio);
	evloop_unpost(dev->vm->loop, &p->crash_loaded);
}

static const struct prop pvpanic_props[] = {
	{.name = "ioport",
	 .type = PROP_U32,
	 .offset = offsetof(struct pvpanic, ioport),
	 .def = "0x505",
	 .max = 0xffff,
	 .help = "the I/O port"},
	{.name = "events",
	 .type = PROP_U8,
	 .offset = offsetof(struct pvpanic, events),
	 .def = "7",
	 .max = PVPANIC_ALL,
	 .help = "what is understood: 1 panicked, 2 crash kernel loaded, 4 shutdown"},
	{0},
};

static const struct state_desc pvpanic_state = {
	.name = "pvpanic",
	.version = 1,
	.fields = (const struct state_field[]){{0}},
};

const struct device_desc pvpanic_desc = {
	.name = "pvpanic",
	.help = "port where a guest reports its panic",
	.bus = "isa",
	.size = sizeof(struct pvpanic),
	.props = (const struct prop_set[]){{pvpanic_props, 0}, {0}},
	.state = &pvpanic_state,
	.realize = pvpanic_realize,
	.unrealize = pvpanic_unrealize,
};
