/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a CPU at its first instruction: after reset (Intel SDM volume 3, 10.1; AMD APM
 * volume 2, 14.1), or as a boot protocol promises it to a kernel, set through the engine rather
 * than by stub code in the guest.
 */
#ifndef TARGET_X86_CPU_STATE_H
#define TARGET_X86_CPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "accel/accel.h"
#include "accel/x86.h"
#include "target-x86/cpu.h"

/* The first CPU's state at direct boot. apic_base is not looked at: that is always as after reset.
 */
struct x86_boot_state {
	struct x86_regs regs;
	struct x86_sregs sregs;
};

/* A GDT that Linux' boot protocol wants: null, null, 0x10 flat code, 0x18 flat data, 0x20 TSS. */
#define X86_BOOT_GDT_SIZE 48
void x86_boot_gdt(uint8_t gdt[X86_BOOT_GDT_SIZE], bool code64);
/* Identity maps the first 4 GiB with 2 MiB pages; tables is 6 pages that will lie at gpa. */
#define X86_BOOT_PAGES_SIZE (6 * 4096)
void x86_boot_page_tables(uint8_t tables[X86_BOOT_PAGES_SIZE], uint64_t gpa);

/* Long mode at entry, paging through cr3, the GDT above at gdt. Other registers are 0. */
void x86_boot_state_long(struct x86_boot_state *s, uint64_t entry, uint64_t cr3, uint64_t gdt);
/* 32-bit protected mode at entry, flat segments, no paging, no interrupts. gdt 0: no table in
 * memory (PVH and multiboot do not promise one). */
void x86_boot_state_protected(struct x86_boot_state *s, uint32_t entry, uint64_t gdt);

/*
 * What vcpu->reset is set to; opaque is a struct cpu_reset, alive as long as the vCPUs. The vCPU
 * with index 0 is the boot processor: it starts at boot, or at the firmware's reset vector when
 * boot is NULL. The others wait for INIT and SIPI.
 */
struct cpu_reset {
	const struct cpu_type *type;
	const struct x86_boot_state *boot;
};
bool cpu_reset(struct vcpu *v, void *opaque);

#endif
