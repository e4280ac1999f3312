/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of the 16550A (National Semiconductor PC16550D, chapter 8): FIFOs, line and modem
 * status, interrupts and their order. serial.c has the device around them.
 *
 * Threads: vCPU threads, under the device's lock. Owner: the device.
 */
#include "hw/legacy/serial.h"

#include <string.h>

#include "vmm/core/util.h"

static bool fifos_on(const struct isa_serial *s)
{
	return s->fcr & FCR_ENABLE;
}

unsigned uart_rx_capacity(const struct isa_serial *s)
{
	return fifos_on(s) ? FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct isa_serial *s)
{
	static const uint8_t levels[] = {1, 4, 8, 14};

	return fifos_on(s) ? levels[s->fcr >> 6] : 1;
}

bool uart_tx_empty(const struct isa_serial *s)
{
	return char_out_room(&s->out) >= FIFO_SIZE;
}

static uint8_t line_status(const struct isa_serial *s)
{
	uint8_t lsr = s->line_errors;

	if (uart_tx_empty(s))
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

void uart_update_irq(struct isa_serial *s)
{
	irq_share_set(s->share, &s->irq_up, interrupt_id(s) != IIR_NONE);
}

int64_t uart_rx_timeout(const struct isa_serial *s)
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

void uart_rx_put(struct isa_serial *s, uint8_t byte, uint8_t error)
{
	if (s->rx_count >= uart_rx_capacity(s)) {
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

void uart_rx_watch(struct isa_serial *s)
{
	if (!fifos_on(s) || !s->rx_count || s->timeout_pending || !(s->ier & IER_RX))
		return;
	s->rx_touched = evloop_now(s->dev.vm->loop);
	if (!s->timeout_live) {
		s->timeout_live = true;
		evloop_post(s->dev.vm->loop, &s->timeout_work);
	}
}

void uart_rx_clear(struct isa_serial *s)
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
		uart_rx_watch(s);
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
	uart_update_irq(s);
	pthread_mutex_unlock(&s->lock);
	return value;
}

static void transmit(struct isa_serial *s, uint8_t byte)
{
	s->thre_pending = false;
	if (s->mcr & MCR_LOOP) {
		uart_rx_put(s, byte, 0);
		uart_rx_watch(s);
	} else {
		/* A guest that goes on after THRE went down loses bytes, as on a real line. */
		char_out_put(&s->out, byte);
	}
	s->thre_pending = uart_tx_empty(s);
	s->tx_held = !s->thre_pending;
}

static void write_fcr(struct isa_serial *s, uint8_t value)
{
	bool toggled = (value ^ s->fcr) & FCR_ENABLE;

	if (toggled || (value & FCR_CLEAR_RX))
		uart_rx_clear(s);
	/* What was written has left for the line already: clearing the transmitter finds nothing.
	 */
	if (toggled || (value & FCR_CLEAR_TX))
		s->thre_pending = uart_tx_empty(s);
	s->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER) : 0;
	if (s->rx_count)
		uart_rx_watch(s);
}

static void write_ier(struct isa_serial *s, uint8_t value)
{
	uint8_t raised = value & ~s->ier & 0x0f;

	s->ier = value & 0x0f;
	/* Enabling it while the register is empty interrupts at once. */
	if ((raised & IER_THRE) && uart_tx_empty(s))
		s->thre_pending = true;
	if (raised & IER_RX)
		uart_rx_watch(s);
}

static void write_lcr(struct isa_serial *s, uint8_t value)
{
	uint8_t changed = value ^ s->lcr;

	s->lcr = value;
	if ((changed & LCR_BREAK) && (value & LCR_BREAK)) {
		if (s->mcr & MCR_LOOP)
			uart_rx_put(s, 0, LSR_BREAK | LSR_FRAMING);
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
	uart_update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

const struct io_ops uart_ops = {.read = serial_read, .write = serial_write};
