/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the 16550: its registers' bits and its state, between the registers (serial_uart.c) and
 * the main loop's side of the device (serial.c). Everything is guarded by the device's lock.
 */
#ifndef HW_LEGACY_SERIAL_H
#define HW_LEGACY_SERIAL_H

#include <pthread.h>

#include "hw/legacy/char_out.h"
#include "hw/legacy/irq_share.h"
#include "vmm/core/chardev.h"
#include "vmm/core/device.h"
#include "vmm/core/io_bus.h"
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

	bool timeout_live;  /* the main loop watches for the timeout */
	int64_t rx_touched; /* when the FIFO was last filled or read */
	struct ev_work timeout_work;
	struct ev_timer timeout_timer;

	struct ev_work line_work; /* parameters and break, to the chardev */
	bool send_break;

	struct char_out out;
};

extern const struct io_ops uart_ops;

/* With the lock held. */
unsigned uart_rx_capacity(const struct isa_serial *s);
/* The guest writes up to a FIFO's worth for each THRE, so all of that must fit. */
bool uart_tx_empty(const struct isa_serial *s);
/* Four characters' time of silence, ns. */
int64_t uart_rx_timeout(const struct isa_serial *s);
void uart_rx_put(struct isa_serial *s, uint8_t byte, uint8_t error);
/* After the FIFO was touched: what is left below the trigger level must time out. */
void uart_rx_watch(struct isa_serial *s);
void uart_rx_clear(struct isa_serial *s);
void uart_update_irq(struct isa_serial *s);

#endif
