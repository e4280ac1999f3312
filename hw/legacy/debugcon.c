/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug console: a port that firmware writes text to, one byte at a time (Bochs' port 0xe9; SeaBIOS
 * and OVMF use 0x402). A read tells the firmware that somebody listens.
 *
 * Threads: the port on vCPU threads, the chardev on the main loop, under the device's lock.
 * Owner: the machine.
 */
#include <pthread.h>

#include "hw/legacy/char_out.h"
#include "hw/legacy/legacy.h"
#include "vmm/core/chardev.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

struct debugcon {
	struct device dev;
	uint32_t iobase, readback;
	struct chardev *chr;

	pthread_mutex_t lock;
	struct io_region io;
	struct chardev_peer peer;
	struct char_out out;
	struct log_ratelimit limit;
};

static uint64_t debugcon_read(void *opaque, uint64_t offset, unsigned size)
{
	return ((struct debugcon *)opaque)->readback;
}

/* There is nothing to tell the guest to wait with, so what does not fit is lost. */
static void debugcon_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct debugcon *d = opaque;

	pthread_mutex_lock(&d->lock);
	bool fits = char_out_put(&d->out, value);
	pthread_mutex_unlock(&d->lock);
	if (!fits)
		log_guest_error(&d->limit, "%s: the chardev is full, output is lost",
				device_label(&d->dev));
}

static const struct io_ops debugcon_ops = {.read = debugcon_read, .write = debugcon_write};

static size_t debugcon_can_receive(void *opaque)
{
	return SIZE_MAX; /* and ignored: the port has no input */
}

static void debugcon_receive(void *opaque, const uint8_t *data, size_t len)
{
}

static void debugcon_writable(void *opaque)
{
	char_out_writable(&((struct debugcon *)opaque)->out);
}

static bool debugcon_realize(struct device *dev, struct error **err)
{
	struct debugcon *d = (struct debugcon *)dev;

	char_out_init(&d->out, dev->vm->loop, d->chr, &d->lock, NULL, NULL);
	d->limit = LOG_RATELIMIT;
	d->io = (struct io_region){.base = d->iobase,
				   .size = 1,
				   .ops = &debugcon_ops,
				   .opaque = d,
				   .name = "debugcon",
				   .max_access = 1};
	if (!io_bus_add(&dev->vm->pio, &d->io, err))
		return false;
	d->peer = (struct chardev_peer){.can_receive = debugcon_can_receive,
					.receive = debugcon_receive,
					.writable = debugcon_writable,
					.opaque = d};
	if (d->chr)
		chardev_attach(d->chr, &d->peer);
	return true;
}

static void debugcon_unrealize(struct device *dev)
{
	struct debugcon *d = (struct debugcon *)dev;

	io_bus_remove(&dev->vm->pio, &d->io);
	io_bus_quiesce(&dev->vm->pio);
	char_out_destroy(&d->out);
	if (d->chr)
		chardev_attach(d->chr, NULL);
}

static void debugcon_init(struct device *dev)
{
	pthread_mutex_init(&((struct debugcon *)dev)->lock, NULL);
}

static void debugcon_destroy(struct device *dev)
{
	pthread_mutex_destroy(&((struct debugcon *)dev)->lock);
}

static const struct prop debugcon_props[] = {
	{.name = "iobase",
	 .type = PROP_U32,
	 .offset = offsetof(struct debugcon, iobase),
	 .def = "0xe9",
	 .max = 0xffff,
	 .help = "the I/O port"},
	{.name = "readback",
	 .type = PROP_U32,
	 .offset = offsetof(struct debugcon, readback),
	 .def = "0xe9",
	 .max = 0xff,
	 .help = "what the port reads as"},
	{.name = "chardev",
	 .type = PROP_CHARDEV,
	 .offset = offsetof(struct debugcon, chr),
	 .help = "where the text goes"},
	{0},
};

static const struct state_desc debugcon_state = {
	.name = "debugcon",
	.version = 1,
	.fields =
		(const struct state_field[]){
			{.name = "out",
			 .type = STATE_STRUCT,
			 .offset = offsetof(struct debugcon, out),
			 .size = sizeof(struct char_out),
			 .desc = &char_out_state},
			{0},
		},
};

const struct device_desc isa_debugcon_desc = {
	.name = "isa-debugcon",
	.help = "debug console port of firmware",
	.bus = "isa",
	.size = sizeof(struct debugcon),
	.props = (const struct prop_set[]){{debugcon_props, 0}, {0}},
	.state = &debugcon_state,
	.init = debugcon_init,
	.realize = debugcon_realize,
	.unrealize = debugcon_unrealize,
	.destroy = debugcon_destroy,
};
