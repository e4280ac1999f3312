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
#include <pthread.h>

#include "hw/legacy/char_out.h"
#include "hw/legacy/irq_share.h"
#include "hw/legacy/legacy.h"
#include "vmm/core/chardev.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	REG_DATA = 0, /* DLAB: divisor, low byte */
	REG_IER,      /* DLAB: divisor, high byte */
	REG_IIR,      /* write: FCR */
	REG_LCR,
	REG_MCR,
	REG_LSR,
	REG_MSR,
	REG_SCR,
	REG_COUNT,
};

enum {
	IER_RX = 1 << 0,
	IER_THRE = 1 << 1,
	IER_LINE = 1 << 2,
	IER_MODEM = 1 << 3,

	IIR_NONE = 0x01,
	IIR_MODEM = 0x00,
	IIR_THRE = 0x02,
	IIR_RX = 0x04,
	IIR_LINE = 0x06,
	IIR_TIMEOUT = 0x0c,
	IIR_FIFOS = 0xc0,

	FCR_ENABLE = 1 << 0,
	FCR_CLEAR_RX = 1 << 1,
	FCR_CLEAR_TX = 1 << 2,
	FCR_DMA = 1 << 3,
	FCR_TRIGGER = 0xc0,

	LCR_STOP = 1 << 2,
	LCR_PARITY = 1 << 3,
	LCR_EVEN = 1 << 4,
	LCR_BREAK = 1 << 6,
	LCR_DLAB = 1 << 7,

	MCR_DTR = 1 << 0,
	MCR_RTS = 1 << 1,
	MCR_OUT1 = 1 << 2,
	MCR_OUT2 = 1 << 3,
	MCR_LOOP = 1 << 4,
	MCR_MASK = 0x1f,

	LSR_READY = 1 << 0,
	LSR_OVERRUN = 1 << 1,
	LSR_PARITY = 1 << 2,
	LSR_FRAMING = 1 << 3,
	LSR_BREAK = 1 << 4,
	LSR_THRE = 1 << 5,
	LSR_TEMT = 1 << 6,
	LSR_FIFO_ERROR = 1 << 7,
	LSR_ERRORS = LSR_OVERRUN | LSR_PARITY | LSR_FRAMING | LSR_BREAK,

	MSR_DELTAS = 0x0f,
	MSR_CTS = 1 << 4,
	MSR_DSR = 1 << 5,
	MSR_RI = 1 << 6,
	MSR_DCD = 1 << 7,

	FIFO_SIZE = 16,
	DIVISOR_9600 = 12,
};

struct isa_serial {
	struct device dev;
	uint32_t index, iobase, irq;
	struct chardev *chr;

	pthread_mutex_t lock;
	struct io_region io;
	struct chardev_peer peer;
	struct irq_share *share;
	bool irq_up;

	uint8_t ier, fcr, lcr, mcr, msr, scr;
	uint8_t line_errors; /* LSR_OVERRUN, and what the byte on top came with */
	uint16_t divisor;
	bool thre_pending, timeout_pending;
	bool tx_held; /* THRE went down for want of room */

	uint8_t rx[FIFO_SIZE], rx_error[FIFO_SIZE];
	uint32_t rx_start, rx_count;
	bool rx_refused; /* the chardev holds bytes that did not fit */
	struct ev_work accept_work;

	bool timeout_live; /* the main loop watches for the timeout */
	int64_t rx_touched; /* when the FIFO was last filled or read */
	struct ev_work timeout_work;
	struct ev_timer timeout_timer;

	struct ev_work line_work; /* parameters and break, to the chardev */
	bool send_break;

	struct char_out out;
};

static const struct {
	uint16_t base;
	uint8_t irq;
} com_ports[] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };

static bool fifos_on(const struct isa_serial *s)
{
	return s->fcr & FCR_ENABLE;
}

static unsigned rx_capacity(const struct isa_serial *s)
{
	return fifos_on(s) ? FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct isa_serial *s)
{
	static const uint8_t levels[] = { 1, 4, 8, 14 };

	return fifos_on(s) ? levels[s->fcr >> 6] : 1;
}

/* The guest writes up to a FIFO's worth for each THRE, so all of that must fit. */
static bool tx_empty(const struct isa_serial *s)
{
	return char_out_room(&s->out) >= FIFO_SIZE;
}

static uint8_t line_status(const struct isa_serial *s)
{
	uint8_t lsr = s->line_errors;

	if (tx_empty(s))
		lsr |= LSR_THRE | LSR_TEMT;
	if (s->rx_count)
		lsr |= LSR_READY;
	if (fifos_on(s))
		for (uint32_t i = 0; i < s->rx_count; i++)
			if (s->rx_error[(s->rx_start + i) % FIFO_SIZE])
				lsr |= LSR_FIFO_ERROR;
	return lsr;
}

static uint8_t modem_status(const struct isa_serial *s)
{
	uint8_t msr = s->msr;

	if (s->mcr & MCR_LOOP) {
		msr &= MSR_DELTAS;
		msr |= s->mcr & MCR_RTS ? MSR_CTS : 0;
		msr |= s->mcr & MCR_DTR ? MSR_DSR : 0;
		msr |= s->mcr & MCR_OUT1 ? MSR_RI : 0;
		msr |= s->mcr & MCR_OUT2 ? MSR_DCD : 0;
	}
	return msr;
}

static uint8_t interrupt_id(const struct isa_serial *s)
{
	if ((s->ier & IER_LINE) && (s->line_errors & LSR_ERRORS))
		return IIR_LINE;
	if ((s->ier & IER_RX) && s->rx_count >= rx_trigger(s))
		return IIR_RX;
	if ((s->ier & IER_RX) && s->timeout_pending)
		return IIR_TIMEOUT;
	if ((s->ier & IER_THRE) && s->thre_pending)
		return IIR_THRE;
	if ((s->ier & IER_MODEM) && (s->msr & MSR_DELTAS))
		return IIR_MODEM;
	return IIR_NONE;
}

static void update_irq(struct isa_serial *s)
{
	irq_share_set(s->share, &s->irq_up, interrupt_id(s) != IIR_NONE);
}

/* Four characters' time of silence, ns. */
static int64_t rx_timeout(const struct isa_serial *s)
{
	unsigned bits = 1 + 5 + (s->lcr & 3) + !!(s->lcr & LCR_PARITY) + 1 + !!(s->lcr & LCR_STOP);

	return (int64_t)MAX(s->divisor, 1) * NSEC_PER_SEC / 115200 * bits * 4;
}

/* Errors belong to the byte on top: they show when it gets there. */
static void rx_surface(struct isa_serial *s)
{
	if (s->rx_count) {
		s->line_errors |= s->rx_error[s->rx_start];
		s->rx_error[s->rx_start] = 0;
	}
}

static void rx_put(struct isa_serial *s, uint8_t byte, uint8_t error)
{
	if (s->rx_count >= rx_capacity(s)) {
		s->line_errors |= LSR_OVERRUN;
		if (fifos_on(s))
			return;
		s->rx_count = 0; /* without FIFOs the new byte takes the place */
	}
	uint32_t at = (s->rx_start + s->rx_count++) % FIFO_SIZE;
	s->rx[at] = byte;
	s->rx_error[at] = error;
	if (s->rx_count == 1)
		rx_surface(s);
}

/* After the FIFO was touched: what is left below the trigger level must time out. */
static void rx_watch(struct isa_serial *s)
{
	if (!fifos_on(s) || !s->rx_count || s->timeout_pending || !(s->ier & IER_RX))
		return;
	s->rx_touched = evloop_now(s->dev.vm->loop);
	if (!s->timeout_live) {
		s->timeout_live = true;
		evloop_post(s->dev.vm->loop, &s->timeout_work);
	}
}

static void rx_clear(struct isa_serial *s)
{
	s->rx_start = s->rx_count = 0;
	s->timeout_pending = false;
	memset(s->rx_error, 0, sizeof(s->rx_error));
	if (s->rx_refused) {
		s->rx_refused = false;
		evloop_post(s->dev.vm->loop, &s->accept_work);
	}
}

static uint8_t rx_get(struct isa_serial *s)
{
	uint8_t byte = s->rx[s->rx_start];

	s->timeout_pending = false;
	if (!s->rx_count)
		return byte;
	s->rx_start = (s->rx_start + 1) % FIFO_SIZE;
	s->rx_count--;
	rx_surface(s);
	if (s->rx_count) {
		rx_watch(s);
	} else if (s->rx_refused) {
		s->rx_refused = false;
		evloop_post(s->dev.vm->loop, &s->accept_work);
	}
	return byte;
}

static uint64_t serial_read(void *opaque, uint64_t offset, unsigned size)
{
	struct isa_serial *s = opaque;
	uint8_t value = 0;

	pthread_mutex_lock(&s->lock);
	switch (offset) {
	case REG_DATA:
		value = s->lcr & LCR_DLAB ? s->divisor & 0xff : rx_get(s);
		break;
	case REG_IER:
		value = s->lcr & LCR_DLAB ? s->divisor >> 8 : s->ier;
		break;
	case REG_IIR:
		value = interrupt_id(s);
		if (value == IIR_THRE)
			s->thre_pending = false;
		if (fifos_on(s))
			value |= IIR_FIFOS;
		break;
	case REG_LCR:
		value = s->lcr;
		break;
	case REG_MCR:
		value = s->mcr;
		break;
	case REG_LSR:
		value = line_status(s);
		s->line_errors = 0;
		break;
	case REG_MSR:
		value = modem_status(s);
		s->msr &= ~MSR_DELTAS;
		break;
	case REG_SCR:
		value = s->scr;
		break;
	}
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
	return value;
}

static void transmit(struct isa_serial *s, uint8_t byte)
{
	s->thre_pending = false;
	if (s->mcr & MCR_LOOP) {
		rx_put(s, byte, 0);
		rx_watch(s);
	} else {
		/* A guest that goes on after THRE went down loses bytes, as on a real line. */
		char_out_put(&s->out, byte);
	}
	s->thre_pending = tx_empty(s);
	s->tx_held = !s->thre_pending;
}

static void write_fcr(struct isa_serial *s, uint8_t value)
{
	bool toggled = (value ^ s->fcr) & FCR_ENABLE;

	if (toggled || (value & FCR_CLEAR_RX))
		rx_clear(s);
	/* What was written has left for the line already: clearing the transmitter finds nothing. */
	if (toggled || (value & FCR_CLEAR_TX))
		s->thre_pending = tx_empty(s);
	s->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER) : 0;
	if (s->rx_count)
		rx_watch(s);
}

static void write_ier(struct isa_serial *s, uint8_t value)
{
	uint8_t raised = value & ~s->ier & 0x0f;

	s->ier = value & 0x0f;
	/* Enabling it while the register is empty interrupts at once. */
	if ((raised & IER_THRE) && tx_empty(s))
		s->thre_pending = true;
	if (raised & IER_RX)
		rx_watch(s);
}

static void write_lcr(struct isa_serial *s, uint8_t value)
{
	uint8_t changed = value ^ s->lcr;

	s->lcr = value;
	if ((changed & LCR_BREAK) && (value & LCR_BREAK)) {
		if (s->mcr & MCR_LOOP)
			rx_put(s, 0, LSR_BREAK | LSR_FRAMING);
		else
			s->send_break = true;
	}
	/* Divisor and format are told together, once the latch is closed again. */
	if (s->send_break || ((changed & ~LCR_BREAK) && !(value & LCR_DLAB)))
		evloop_post(s->dev.vm->loop, &s->line_work);
}

static void write_mcr(struct isa_serial *s, uint8_t value)
{
	uint8_t before = modem_status(s);

	s->mcr = value & MCR_MASK;

	uint8_t after = modem_status(s), changed = before ^ after;
	s->msr |= (changed & (MSR_CTS | MSR_DSR | MSR_DCD)) >> 4;
	if ((before & MSR_RI) && !(after & MSR_RI))
		s->msr |= MSR_RI >> 4;
	if (!(s->mcr & MCR_LOOP) && s->rx_refused) {
		s->rx_refused = false;
		evloop_post(s->dev.vm->loop, &s->accept_work);
	}
}

static void serial_write(void *opaque, uint64_t offset, uint64_t value64, unsigned size)
{
	struct isa_serial *s = opaque;
	uint8_t value = value64;

	pthread_mutex_lock(&s->lock);
	switch (offset) {
	case REG_DATA:
		if (s->lcr & LCR_DLAB)
			s->divisor = (s->divisor & 0xff00) | value;
		else
			transmit(s, value);
		break;
	case REG_IER:
		if (s->lcr & LCR_DLAB)
			s->divisor = (s->divisor & 0x00ff) | value << 8;
		else
			write_ier(s, value);
		break;
	case REG_IIR:
		write_fcr(s, value);
		break;
	case REG_LCR:
		write_lcr(s, value);
		break;
	case REG_MCR:
		write_mcr(s, value);
		break;
	case REG_SCR:
		s->scr = value;
		break;
	}
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

static const struct io_ops serial_ops = { .read = serial_read, .write = serial_write };

/* The main loop's side. */

static void tx_drained(void *opaque)
{
	struct isa_serial *s = opaque;

	if (!s->tx_held || !tx_empty(s))
		return;
	s->tx_held = false;
	s->thre_pending = true;
	update_irq(s);
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
	size_t room = s->mcr & MCR_LOOP ? 0 : rx_capacity(s) - MIN(s->rx_count, rx_capacity(s));
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
		rx_put(s, data[i], 0);
	if (s->rx_count >= rx_capacity(s))
		s->rx_refused = true;
	rx_watch(s);
	update_irq(s);
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
	rx_put(s, 0, LSR_BREAK | LSR_FRAMING);
	rx_watch(s);
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

static void timeout_work(void *opaque)
{
	struct isa_serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	evloop_timer_arm(s->dev.vm->loop, &s->timeout_timer, s->rx_touched + rx_timeout(s));
	pthread_mutex_unlock(&s->lock);
}

static void timed_out(void *opaque)
{
	struct isa_serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	int64_t deadline = s->rx_touched + rx_timeout(s);
	if (!s->rx_count || s->timeout_pending) {
		s->timeout_live = false;
	} else if (evloop_now(s->dev.vm->loop) < deadline) {
		evloop_timer_arm(s->dev.vm->loop, &s->timeout_timer, deadline);
	} else {
		s->timeout_live = false;
		s->timeout_pending = true;
		update_irq(s);
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
				      !(lcr & LCR_PARITY) ? 'N' : lcr & LCR_EVEN ? 'E' : 'O',
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
	rx_clear(s);
	update_irq(s);
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

	s->io = (struct io_region){ .base = s->iobase, .size = REG_COUNT, .ops = &serial_ops,
				    .opaque = s, .name = "serial", .max_access = 1 };
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
	s->peer = (struct chardev_peer){ .can_receive = serial_can_receive,
					 .receive = serial_receive,
					 .writable = serial_writable,
					 .event = serial_event,
					 .opaque = s };
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
	s->tx_held = !tx_empty(s);
	rx_watch(s);
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
	evloop_post(s->dev.vm->loop, &s->line_work);
	return true;
}

static const struct prop serial_props[] = {
	{ .name = "index", .type = PROP_U32, .offset = offsetof(struct isa_serial, index),
	  .def = "4294967295", .help = "0 to 3: COM1 to COM4; default: the first free one" },
	{ .name = "iobase", .type = PROP_U32, .offset = offsetof(struct isa_serial, iobase),
	  .def = "4294967295", .help = "first I/O port; default: by index" },
	{ .name = "irq", .type = PROP_U32, .offset = offsetof(struct isa_serial, irq),
	  .def = "4294967295", .help = "ISA interrupt; default: by index" },
	{ .name = "chardev", .type = PROP_CHARDEV, .offset = offsetof(struct isa_serial, chr),
	  .help = "what is at the other end of the line" },
	{ 0 },
};

static const struct state_desc serial_state = {
	.name = "serial",
	.version = 1,
	.fields = (const struct state_field[]){
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
		{ .name = "out", .type = STATE_STRUCT, .offset = offsetof(struct isa_serial, out),
		  .size = sizeof(struct char_out), .desc = &char_out_state },
		{ 0 },
	},
	.post_load = serial_post_load,
};

const struct device_desc isa_serial_desc = {
	.name = "isa-serial",
	.help = "16550A serial port",
	.bus = "isa",
	.size = sizeof(struct isa_serial),
	.props = (const struct prop_set[]){ { serial_props, 0 }, { 0 } },
	.state = &serial_state,
	.init = serial_init,
	.realize = serial_realize,
	.reset = serial_reset,
	.unrealize = serial_unrealize,
	.destroy = serial_destroy,
};
