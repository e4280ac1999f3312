/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest CPU engine must do: memory slots, vCPUs, interrupts, doorbells. One implementation
 * (kvm/) serves today; nothing outside this room names it.
 *
 * Threads: the main thread creates and destroys everything and maps memory; a vCPU's functions are
 * called on its own thread, or while it is paused. Kick, interrupts, slots: any thread.
 */
#ifndef ACCEL_ACCEL_H
#define ACCEL_ACCEL_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vmm/core/error.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/irq.h"
#include "vmm/core/vm.h"

enum irqchip_mode {
	IRQCHIP_KERNEL, /* PIC, IOAPIC, PIT and local APICs in the accelerator */
	IRQCHIP_SPLIT,	/* local APICs only; the board brings the rest */
};

struct accel_config {
	enum irqchip_mode irqchip;
	unsigned max_cpus;
	bool pit; /* IRQCHIP_KERNEL: an i8254 in the accelerator */
};

enum {
	ACCEL_MEM_READONLY = 1 << 0, /* guest writes exit as MMIO */
	ACCEL_MEM_DIRTY_LOG = 1 << 1,
};

struct accel;
struct vcpu;

enum vcpu_exit_kind {
	VCPU_EXIT_INTR,	      /* kicked, or a signal: look at the flags and come back */
	VCPU_EXIT_IO,	      /* port access: count items of size bytes */
	VCPU_EXIT_MMIO,
	VCPU_EXIT_HLT,	      /* only without an irqchip */
	VCPU_EXIT_SHUTDOWN,   /* triple fault */
	VCPU_EXIT_RESET,      /* the engine says the guest asked to be reset */
	VCPU_EXIT_POWEROFF,
	VCPU_EXIT_CRASH,      /* paravirtual panic */
	VCPU_EXIT_EOI,	      /* split irqchip: vector of an ended level interrupt */
	VCPU_EXIT_MSR_READ, VCPU_EXIT_MSR_WRITE,
	VCPU_EXIT_DEBUG,
	VCPU_EXIT_INTERNAL_ERROR, /* cannot go on: report[] tells */
};

struct vcpu_exit {
	enum vcpu_exit_kind kind;
	union {
		struct {
			uint16_t port;
			uint8_t size; /* 1, 2, 4 */
			bool write;
			uint32_t count;
			void *data; /* count * size bytes, in the vCPU's run area */
		} io;
		struct {
			uint64_t addr;
			uint8_t *data; /* 8 bytes */
			uint32_t len;  /* 1..8 */
			bool write;
		} mmio;
		struct {
			uint32_t index;
			uint64_t value;	  /* in for write, out for read */
			uint8_t *refused; /* set to 1: #GP in the guest */
			uint64_t *result;
		} msr;
		uint8_t eoi_vector;
	};
};

struct accel_ops {
	/* After vcpus_destroy() and vm_destroy(): devices use its message sink until then. */
	void (*destroy)(struct accel *a);

	/*
	 * One slot of guest-visible memory. size, gpa, hva: page aligned. Slots may not overlap:
	 * unmap first; between the two the range is nobody's. The same gpa, size and hva once more
	 * changes ACCEL_MEM_DIRTY_LOG in place. 0 or -errno (-EEXIST: overlap, -ENOSPC: no slot
	 * left).
	 *
	 * Map what is there from the start before vcpus_create(): creating interrupt controllers
	 * and doorbells leaves the kernel with work for which a later change of slots waits 10 ms
	 * or so.
	 */
	int (*mem_map)(struct accel *a, uint64_t gpa, uint64_t size, void *hva, uint32_t flags);
	int (*mem_unmap)(struct accel *a, uint64_t gpa, uint64_t size);
	/* Fetches and clears: one bit a page of the slot that begins at gpa. */
	int (*dirty_get)(struct accel *a, uint64_t gpa, uint64_t size, uint64_t *bitmap);

	struct vcpu *(*vcpu_create)(struct accel *a, unsigned index, uint32_t apic_id,
				    struct error **err);
	void (*vcpu_destroy)(struct vcpu *v);
	/* Runs the guest until it exits; fills exit. Completing an I/O read exit happens by calling
	 * again. */
	void (*vcpu_run)(struct vcpu *v, struct vcpu_exit *exit);
	/* Makes vcpu_run return INTR, now or at its next call. Any thread. */
	void (*vcpu_kick)(struct vcpu *v);
	/* Finishes a pending I/O exit without running the guest, so that state can be read. True:
	 * that led to another exit, to be dispatched before calling again. On the vCPU's thread. */
	bool (*vcpu_complete_io)(struct vcpu *v, struct vcpu_exit *exit);
	/* What went wrong at the last INTERNAL_ERROR, in several lines: registers, the
	 * instruction's bytes, what they mean. */
	void (*vcpu_report)(struct vcpu *v, char *buf, size_t len);

	/* Every vCPU is out of the guest: its clock stops. Every vCPU is about to enter it (again).
	 * Main thread, by turns, beginning with resume. */
	void (*pause)(struct accel *a);
	void (*resume)(struct accel *a);

	/* IRQCHIP_KERNEL, from vcpus_create() on: input line n (GSI). GSI 0 leads to the PIC's
	 * input 0 and the I/O APIC's pin 2; the others to the pins of their number. -ENOSYS with
	 * IRQCHIP_SPLIT: the board's I/O APIC sends through the message sink and tells it
	 * msi_ioapic_pin(). */
	int (*irq_set)(struct accel *a, unsigned gsi, bool level);
	/* An eventfd raises gsi; resample >= 0 is signalled when the guest ends the interrupt. */
	int (*irqfd_add)(struct accel *a, int fd, unsigned gsi, int resample);
	int (*irqfd_remove)(struct accel *a, int fd, unsigned gsi);

	/* Guest time, saved and restored with the machine; it stands while that is paused. ns. */
	int (*clock_get)(struct accel *a, uint64_t *ns);
	int (*clock_set)(struct accel *a, uint64_t ns);

	/* accel/x86.h */
	const struct accel_x86_ops *x86;
};

struct accel {
	const struct accel_ops *ops;
	struct vm *vm;
	struct accel_config config;
	struct msi_sink msi;	  /* becomes vm->msi */
	struct irq_line gsi[24];  /* IRQCHIP_KERNEL: becomes vm->gsi */
	/* Guest addresses that the engine keeps for itself: neither RAM nor a window, and reserved
	 * in the map that the guest sees. */
	uint64_t reserved_base, reserved_size;
};

struct accel_desc {
	const char *name; /* "kvm" */
	const char *help;
	/* Opens, checks what is needed. Serves the doorbells of vm->pio and vm->mmio from the first
	 * resume on. */
	struct accel *(*open)(struct vm *vm, const struct accel_config *config, struct error **err);
};
/* Ends with NULL. */
extern const struct accel_desc *const accel_table[];
const struct accel_desc *accel_find(const char *name);
/* What -accel help prints. */
void accel_help(FILE *out);

/* What a board gives its vCPUs that brings interrupt controllers of its own (IRQCHIP_SPLIT). On the
 * vCPU's thread. */
struct vcpu_irq_ops {
	/* The local APIC ended this level-triggered interrupt. */
	void (*eoi)(void *opaque, uint8_t vector);
	/* The 8259 at this CPU's LINT0: whether it has an interrupt, and which (that is taken then).
	 * NULL, both: nothing is there. When its output rises the board calls vcpu_interrupt(). */
	bool (*extint_pending)(void *opaque);
	uint8_t (*extint_acknowledge)(void *opaque);
};

/*
 * The vCPU thread (vcpu.c): runs, dispatches exits on the buses, stops when asked. Fills in
 * vm->cpu_ops. The engine's struct begins with struct vcpu.
 */
#define VCPU_SIGNAL (SIGRTMIN) /* gets a thread out of the guest; its handler does nothing */

struct vcpu {
	struct accel *accel;
	unsigned index;
	uint32_t apic_id;
	pthread_t thread;
	bool thread_started;
	_Atomic bool paused;	      /* out of the guest, waiting */
	_Atomic bool halted_for_ever; /* internal error: never entered again until reset */
	struct io_reader pio_reader, mmio_reader;
	/* Puts the CPU into its state after reset (target-x86); on the vCPU's thread or while
	 * paused. */
	bool (*reset)(struct vcpu *v, void *opaque);
	void *reset_opaque;
	/* The board's; may be NULL. */
	bool (*msr_access)(struct vcpu *v, struct vcpu_exit *exit);
	const struct vcpu_irq_ops *irq_ops;
	void *irq_opaque;
	struct vcpu *next;

	/* vcpu.c's, under its lock unless atomic */
	pthread_cond_t wake;
	_Atomic bool attention; /* leave the run loop and look at the rest */
	bool io_pending;	/* the vCPU thread's: the last exit has a second half */
	void (*call_fn)(struct vcpu *v, void *opaque);
	void *call_opaque;
};

/* Creates count vCPUs of the machine with the given APIC ids, threads not yet started. */
bool vcpus_create(struct accel *a, unsigned count, const uint32_t *apic_ids, struct error **err);
/* Starts the threads, paused. */
bool vcpus_start(struct vm *vm, struct error **err);
/* Ends the threads. The vCPUs stay, for devices that still tell them something. */
void vcpus_stop(struct vm *vm);
/* Stops and destroys the vCPUs: no other thread knows of them any more. */
void vcpus_destroy(struct vm *vm);
struct vcpu *vcpu_get(struct vm *vm, unsigned index);
/* Makes v look at its 8259 before it goes on in the guest. Any thread, under a lock or not. */
void vcpu_interrupt(struct vcpu *v);
/* Runs fn on the vCPU's thread, out of the guest, and waits. Main thread. */
void vcpu_call(struct vcpu *v, void (*fn)(struct vcpu *v, void *opaque), void *opaque);

#endif
