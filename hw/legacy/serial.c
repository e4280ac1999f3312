/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A UART on the ISA bus, COM1 to COM4 (National Semiconductor PC16550D).
 *
 * The line is as fast as the chardev behind it: a byte written leaves for a ring at once, and the
 * holding register is empty again as long as the ring has room for a FIFO's worth. Only then does
 * THRE go down, until the main loop has drained some. Received bytes wait at the chardev until the
 * FIFO has room.
 *
 * Threads: register handlers on vCPU threads, chardev callbacks and timers on the main loop, all
 * under the device's lock. Owner: the machine.
 */
#include "hw/legacy/serial.h"

#include "hw/legacy/legacy.h"
#include "vmm/core/util.h"

static const struct {
	uint16_t base;
	uint8_t irq;
} com_ports[] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

/* The main loop's side. */

static void tx_drained(void *opaque)
{
	struct isa_serial *s = opaque;

	if (!s->tx_held || !uart_tx_empty(s))
		return;
	s->tx_held = false;
	s->thre_pending = true;
	uart_update_irq(s);
}

static void accept_again(void *opaque)
{
	struct isa_serial *s = opaque;

	chardev_accept_input(s->chr);
}

static size_t serial_can_receive(void *opaque)
{
	struct isa_serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	size_t room = s->mcr & MCR_LOOP
			      ? 0
			      : uart_rx_capacity(s) - MIN(s->rx_count, uart_rx_capacity(s));
	if (!room)
		s->rx_refused = true;
	pthread_mutex_unlock(&s->lock);
	return room;
}

static void serial_receive(void *opaque, const uint8_t *data, size_t len)
{
	struct isa_serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < len; i++)
		uart_rx_put(s, data[i], 0);
	if (s->rx_count >= uart_rx_capacity(s))
		s->rx_refused = true;
	uart_rx_watch(s);
	uart_update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

static void serial_writable(void *opaque)
{
	struct isa_serial *s = opaque;

	char_out_writable(&s->out);
}

static void serial_event(void *opaque, enum chardev_event event)
{
	struct isa_serial *s = opaque;

	if (event != CHARDEV_BREAK)
		return;
	pthread_mutex_lock(&s->lock);
	uart_rx_put(s, 0, LSR_BREAK | LSR_FRAMING);
	uart_rx_watch(s);
	uart_update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

static void timeout_work(void *opaque)
{
	struct isa_serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	evloop_timer_arm(s->dev.vm->loop, &s->timeout_timer, s->rx_touched + uart_rx_timeout(s));
	pthread_mutex_unlock(&s->lock);
}

static void timed_out(void *opaque)
{
	struct isa_serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	int64_t deadline = s->rx_touched + uart_rx_timeout(s);
	if (!s->rx_count || s->timeout_pending) {
		s->timeout_live = false;
	} else if (evloop_now(s->dev.vm->loop) < deadline) {
		evloop_timer_arm(s->dev.vm->loop, &s->timeout_timer, deadline);
	} else {
		s->timeout_live = false;
		s->timeout_pending = true;
		uart_update_irq(s);
	}
	pthread_mutex_unlock(&s->lock);
}

static void tell_line(void *opaque)
{
	struct isa_serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	uint8_t lcr = s->lcr;
	unsigned baud = 115200 / MAX(s->divisor, 1);
	bool brk = s->send_break;
	s->send_break = false;
	pthread_mutex_unlock(&s->lock);

	if (!s->chr)
		return;
	if (s->chr->ops->set_line)
		s->chr->ops->set_line(s->chr, baud, 5 + (lcr & 3),
				      !(lcr & LCR_PARITY) ? 'N'
				      : lcr & LCR_EVEN	  ? 'E'
							  : 'O',
				      lcr & LCR_STOP ? 2 : 1);
	if (brk && s->chr->ops->send_break)
		s->chr->ops->send_break(s->chr);
}

static void serial_reset(struct device *dev)
{
	struct isa_serial *s = (struct isa_serial *)dev;

	pthread_mutex_lock(&s->lock);
	s->ier = s->fcr = s->lcr = s->scr = s->line_errors = 0;
	s->mcr = MCR_OUT2;
	s->msr = MSR_DCD | MSR_DSR | MSR_CTS;
	s->divisor = DIVISOR_9600;
	s->thre_pending = s->tx_held = s->send_break = false;
	uart_rx_clear(s);
	uart_update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

/* The first of the four ports that no other serial device of the machine has. */
static uint32_t free_index(const struct isa_serial *s)
{
	uint32_t used = 0;

	for (const struct device *d = s->dev.vm->devices; d; d = d->next)
		if (d->desc == &isa_serial_desc && d != &s->dev)
			used |= 1u << ((const struct isa_serial *)d)->index;
	for (uint32_t i = 0; i < ARRAY_SIZE(com_ports); i++)
		if (!(used & 1u << i))
			return i;
	return ARRAY_SIZE(com_ports);
}

static struct irq_share *find_share(const struct isa_serial *s)
{
	for (const struct device *d = s->dev.vm->devices; d; d = d->next) {
		const struct isa_serial *other = (const struct isa_serial *)d;

		if (d->desc == &isa_serial_desc && other != s && other->share &&
		    other->irq == s->irq)
			return irq_share_ref(other->share);
	}
	return irq_share_new(s->dev.vm->gsi[s->irq]);
}

static bool serial_realize(struct device *dev, struct error **err)
{
	struct isa_serial *s = (struct isa_serial *)dev;

	if (s->index == UINT32_MAX)
		s->index = free_index(s);
	if (s->index >= ARRAY_SIZE(com_ports)) {
		error_set(err, "there are only four serial ports");
		return false;
	}
	if (s->iobase == UINT32_MAX)
		s->iobase = com_ports[s->index].base;
	if (s->irq == UINT32_MAX)
		s->irq = com_ports[s->index].irq;
	if (s->iobase > 0xffff || s->irq >= ARRAY_SIZE(dev->vm->gsi)) {
		error_set(err, "no such port or interrupt: iobase=0x%x, irq=%u", s->iobase, s->irq);
		return false;
	}

	s->io = (struct io_region){.base = s->iobase,
				   .size = REG_COUNT,
				   .ops = &uart_ops,
				   .opaque = s,
				   .name = "serial",
				   .max_access = 1};
	s->share = find_share(s);
	char_out_init(&s->out, dev->vm->loop, s->chr, &s->lock, tx_drained, s);
	ev_work_init(&s->accept_work, accept_again, s);
	ev_work_init(&s->timeout_work, timeout_work, s);
	ev_work_init(&s->line_work, tell_line, s);
	ev_timer_init(&s->timeout_timer, timed_out, s);
	serial_reset(dev);

	if (!io_bus_add(&dev->vm->pio, &s->io, err)) {
		irq_share_unref(s->share);
		s->share = NULL;
		return false;
	}
	s->peer = (struct chardev_peer){.can_receive = serial_can_receive,
					.receive = serial_receive,
					.writable = serial_writable,
					.event = serial_event,
					.opaque = s};
	if (s->chr)
		chardev_attach(s->chr, &s->peer);
	return true;
}

static void serial_unrealize(struct device *dev)
{
	struct isa_serial *s = (struct isa_serial *)dev;

	io_bus_remove(&dev->vm->pio, &s->io);
	io_bus_quiesce(&dev->vm->pio);
	char_out_destroy(&s->out);
	if (s->chr)
		chardev_attach(s->chr, NULL);
	evloop_unpost(dev->vm->loop, &s->accept_work);
	evloop_unpost(dev->vm->loop, &s->timeout_work);
	evloop_unpost(dev->vm->loop, &s->line_work);
	evloop_timer_cancel(dev->vm->loop, &s->timeout_timer);
	irq_share_set(s->share, &s->irq_up, false);
	irq_share_unref(s->share);
	s->share = NULL;
}

static void serial_init(struct device *dev)
{
	pthread_mutex_init(&((struct isa_serial *)dev)->lock, NULL);
}

static void serial_destroy(struct device *dev)
{
	pthread_mutex_destroy(&((struct isa_serial *)dev)->lock);
}

static bool serial_post_load(void *object, unsigned version, struct error **err)
{
	struct isa_serial *s = object;

	if (s->rx_start >= FIFO_SIZE || s->rx_count > FIFO_SIZE) {
		error_set(err, "serial: receive FIFO out of range");
		s->rx_start = s->rx_count = 0;
		return false;
	}
	s->mcr &= MCR_MASK;
	s->ier &= 0x0f;
	pthread_mutex_lock(&s->lock);
	s->tx_held = !uart_tx_empty(s);
	uart_rx_watch(s);
	uart_update_irq(s);
	pthread_mutex_unlock(&s->lock);
	evloop_post(s->dev.vm->loop, &s->line_work);
	return true;
}

static const struct prop serial_props[] = {
	{.name = "index",
	 .type = PROP_U32,
	 .offset = offsetof(struct isa_serial, index),
	 .def = "4294967295",
	 .help = "0 to 3: COM1 to COM4; default: the first free one"},
	{.name = "iobase",
	 .type = PROP_U32,
	 .offset = offsetof(struct isa_serial, iobase),
	 .def = "4294967295",
	 .help = "first I/O port; default: by index"},
	{.name = "irq",
	 .type = PROP_U32,
	 .offset = offsetof(struct isa_serial, irq),
	 .def = "4294967295",
	 .help = "ISA interrupt; default: by index"},
	{.name = "chardev",
	 .type = PROP_CHARDEV,
	 .offset = offsetof(struct isa_serial, chr),
	 .help = "what is at the other end of the line"},
	{0},
};

static const struct state_desc serial_state = {
	.name = "serial",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct isa_serial, ier, STATE_U8),
			STATE_FIELD(struct isa_serial, fcr, STATE_U8),
			STATE_FIELD(struct isa_serial, lcr, STATE_U8),
			STATE_FIELD(struct isa_serial, mcr, STATE_U8),
			STATE_FIELD(struct isa_serial, msr, STATE_U8),
			STATE_FIELD(struct isa_serial, scr, STATE_U8),
			STATE_FIELD(struct isa_serial, line_errors, STATE_U8),
			STATE_FIELD(struct isa_serial, divisor, STATE_U16),
			STATE_FIELD(struct isa_serial, thre_pending, STATE_BOOL),
			STATE_FIELD(struct isa_serial, timeout_pending, STATE_BOOL),
			STATE_FIELD(struct isa_serial, rx_start, STATE_U32),
			STATE_FIELD(struct isa_serial, rx_count, STATE_U32),
			STATE_BUFFER(struct isa_serial, rx),
			STATE_BUFFER(struct isa_serial, rx_error),
			{.name = "out",
			 .type = STATE_STRUCT,
			 .offset = offsetof(struct isa_serial, out),
			 .size = sizeof(struct char_out),
			 .desc = &char_out_state},
			{0},
		},
	.post_load = serial_post_load,
};

const struct device_desc isa_serial_desc = {
	.name = "isa-serial",
	.help = "16550A serial port",
	.bus = "isa",
	.size = sizeof(struct isa_serial),
	.props = (const struct prop_set[]){{serial_props, 0}, {0}},
	.state = &serial_state,
	.init = serial_init,
	.realize = serial_realize,
	.reset = serial_reset,
	.unrealize = serial_unrealize,
	.destroy = serial_destroy,
};
