/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC's old devices: what a board creates, wires and asks of them.
 *
 * Devices on the "isa" bus take their ports on vm->pio and their interrupts from vm->gsi[] by
 * number when they are realized. Register handlers run on vCPU threads under the device's own lock;
 * everything declared here is called on the main thread unless its comment says otherwise.
 */
#ifndef HW_LEGACY_LEGACY_H
#define HW_LEGACY_LEGACY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/device.h"
#include "vmm/core/evloop.h"
#include "vmm/core/irq.h"

/* 16550A UART. Properties index (0..3: COM1..COM4), iobase, irq, chardev. */
extern const struct device_desc isa_serial_desc;

/* Output-only debug port and the two ways a guest tells its end. */
extern const struct device_desc isa_debugcon_desc;
extern const struct device_desc isa_debug_exit_desc;
extern const struct device_desc pvpanic_desc;

/* MC146818 clock and CMOS RAM at 0x70. Properties base, clock, driftfix. */
extern const struct device_desc mc146818rtc_desc;
/* CMOS RAM as the board fills it, before the guest runs or after each reset; index 0..127. */
void cmos_set(struct device *dev, uint8_t index, uint8_t value);
uint8_t cmos_get(struct device *dev, uint8_t index);
/* Before realize: where clock=host and clock=rt|vm get their time from (tests). */
void cmos_set_clocks(struct device *dev, const struct clock *host, const struct clock *monotonic);
/* Seconds by which the guest set its clock off the time that -rtc base= asked for. */
int64_t cmos_offset(struct device *dev);

/* Keyboard and mouse controller at 0x60 and 0x64, with a keyboard and a mouse. */
extern const struct device_desc i8042_desc;
/* Key code: the PC's set 1 make code, plus PS2_KEY_E0 for keys with that prefix. */
enum { PS2_KEY_E0 = 0x80 };
void ps2_key(struct device *dev, uint8_t code, bool down);
/* Relative motion, right and up positive; wheel towards the user positive; buttons: left 1, right
 * 2, middle 4. */
void ps2_mouse(struct device *dev, int dx, int dy, int dz, uint8_t buttons);

/* System control port A: A20 and fast reset at 0x92. */
extern const struct device_desc port92_desc;

/*
 * Intel command set flash at a fixed address: properties drive, base (default: set by the board
 * with pflash_place()), sector-length, name. Reads of the array may be served by an accelerator
 * slot over pflash_memory(); the board is told when that slot must come and go.
 */
extern const struct device_desc pflash_desc;
/* Before realize: the last byte of the flash is at end - 1. Its size is the drive's. */
void pflash_place_below(struct device *dev, uint64_t end);
uint64_t pflash_base(const struct device *dev);
uint64_t pflash_size(const struct device *dev);
uint8_t *pflash_memory(const struct device *dev);
bool pflash_array_mode(const struct device *dev);
/* fn(array): whether reads may come straight from memory. Called on vCPU threads under the device's
 * lock, and on the main thread at reset; not called for the state at the time of this call. */
void pflash_set_mode_callback(struct device *dev,
			      void (*fn)(struct device *dev, bool array, void *opaque),
			      void *opaque);

/*
 * Interrupt controllers and timer for boards that bring their own (kernel_irqchip=split). All but
 * creation may be called from any thread.
 */
/* Two cascaded i8259s at 0x20 and 0xa0 with the ELCR at 0x4d0. */
extern const struct device_desc i8259_desc;
struct irq_line *i8259_input(struct device *dev, unsigned irq); /* 0..15 */
/* Before realize: where the master's INTR output goes (a CPU's LINT0). */
void i8259_set_output(struct device *dev, struct irq_line *intr);
/* The vector of the interrupt acknowledged, as a CPU's INTA cycle reads it. */
uint8_t i8259_acknowledge(struct device *dev);
bool i8259_pending(struct device *dev);

/* I/O APIC with 24 inputs at 0xfec00000; sends through vm->msi. */
extern const struct device_desc ioapic_desc;
struct irq_line *ioapic_input(struct device *dev, unsigned pin); /* 0..23 */
/* The local APICs ended this vector: level interrupts that are still up are sent again. */
void ioapic_eoi(struct device *dev, uint8_t vector);

/* i8254 timer at 0x40 with the speaker port 0x61; output of counter 0 is vm->gsi[0]. */
extern const struct device_desc i8254_desc;

#endif
