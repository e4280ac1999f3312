/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86 CPU state as an engine takes and gives it. What the numbers mean is target-x86's business.
 */
#ifndef ACCEL_X86_H
#define ACCEL_X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vcpu;
struct accel;

struct x86_regs {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rip, rflags;
};

struct x86_segment {
	uint64_t base;
	uint32_t limit; /* bytes */
	uint16_t selector;
	uint8_t type, present, dpl, db, s, l, g, avl, unusable;
};

struct x86_table {
	uint64_t base;
	uint16_t limit;
};

struct x86_sregs {
	struct x86_segment cs, ds, es, fs, gs, ss, tr, ldt;
	struct x86_table gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
};

struct x86_cpuid {
	uint32_t function, index;
	bool index_significant;
	uint32_t eax, ebx, ecx, edx;
};

struct x86_msr {
	uint32_t index;
	uint64_t value;
};

enum x86_mp_state { X86_MP_RUNNABLE, X86_MP_UNINITIALIZED, X86_MP_INIT, X86_MP_HALTED, X86_MP_SIPI };

/* What else a saved CPU has: opaque to all but the engine of the same host kind. */
enum x86_blob { X86_BLOB_XSAVE, X86_BLOB_XCRS, X86_BLOB_EVENTS, X86_BLOB_DEBUGREGS, X86_BLOB_LAPIC };

struct accel_x86_ops {
	/* What the host can give a guest: at most max entries; returns the number or -errno. */
	int (*supported_cpuid)(struct accel *a, struct x86_cpuid *entries, int max);
	/* Indices of MSRs worth saving; the number or -errno. */
	int (*msr_list)(struct accel *a, uint32_t *indices, int max);
	uint32_t (*tsc_khz)(struct accel *a);

	int (*set_cpuid)(struct vcpu *v, const struct x86_cpuid *entries, int count);
	int (*get_regs)(struct vcpu *v, struct x86_regs *regs);
	int (*set_regs)(struct vcpu *v, const struct x86_regs *regs);
	int (*get_sregs)(struct vcpu *v, struct x86_sregs *sregs);
	int (*set_sregs)(struct vcpu *v, const struct x86_sregs *sregs);
	/* Number of MSRs set or got, in order, until the first that the host refuses. */
	int (*get_msrs)(struct vcpu *v, struct x86_msr *msrs, int count);
	int (*set_msrs)(struct vcpu *v, const struct x86_msr *msrs, int count);
	int (*get_mp_state)(struct vcpu *v, enum x86_mp_state *state);
	int (*set_mp_state)(struct vcpu *v, enum x86_mp_state state);
	/* FPU, XSAVE, XCR0, debug registers, pending events, local APIC as after power-on. */
	int (*reset_rest)(struct vcpu *v);
	/* Size of the blob, or bytes written, or -errno. */
	int (*get_blob)(struct vcpu *v, enum x86_blob kind, void *buf, size_t len);
	int (*set_blob)(struct vcpu *v, enum x86_blob kind, const void *buf, size_t len);
	/* IRQCHIP_KERNEL: PIC master, slave, IOAPIC, PIT, as the engine keeps them. */
	int (*get_irqchip)(struct accel *a, unsigned chip, void *buf, size_t len);
	int (*set_irqchip)(struct accel *a, unsigned chip, const void *buf, size_t len);
	/* Puts the interrupt controllers and the timer into their state after power-on. */
	int (*reset_irqchip)(struct accel *a);
};

#endif
