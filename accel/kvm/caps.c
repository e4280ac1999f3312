/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of KVM, in one table for opening and for --check-host.
 */
#include "accel/kvm/caps.h"

#include <linux/kvm.h>

const struct kvm_cap kvm_caps[] = {
#define NEEDED(name, use) { KVM_CAP_##name, "KVM_CAP_" #name, use, KVM_CAP_NEEDED }
#define SPLIT(name, use) { KVM_CAP_##name, "KVM_CAP_" #name, use, KVM_CAP_NEEDED_SPLIT }
#define NICE(name, use) { KVM_CAP_##name, "KVM_CAP_" #name, use, KVM_CAP_NICE }
	NEEDED(USER_MEMORY, "guest memory"),
	NEEDED(SET_TSS_ADDR, "real mode"),
	NEEDED(SET_IDENTITY_MAP_ADDR, "real mode"),
	NEEDED(EXT_CPUID, "CPU identification"),
	NEEDED(IRQCHIP, "interrupt controllers"),
	NEEDED(IRQ_ROUTING, "message-signalled interrupts"),
	NEEDED(SIGNAL_MSI, "message-signalled interrupts"),
	NEEDED(IRQFD, "interrupts from I/O threads"),
	NEEDED(IOEVENTFD, "doorbells of I/O threads"),
	NEEDED(IMMEDIATE_EXIT, "pausing"),
	NEEDED(MP_STATE, "several CPUs"),
	NEEDED(VCPU_EVENTS, "reset"),
	NEEDED(DEBUGREGS, "reset"),
	NEEDED(XSAVE, "reset"),
	NEEDED(READONLY_MEM, "ROM and flash"),
	NEEDED(ADJUST_CLOCK, "guest time"),
	SPLIT(SPLIT_IRQCHIP, "kernel_irqchip=split"),
	NICE(PIT2, "the 8254 timer in the kernel"),
	NICE(XCRS, "AVX"),
	NICE(GET_TSC_KHZ, "the TSC's frequency"),
	NICE(TSC_DEADLINE_TIMER, "cheap guest timers"),
	NICE(KVMCLOCK_CTRL, "no false lock-up warnings after a pause"),
	NICE(IRQFD_RESAMPLE, "level-triggered interrupts of passed-through devices"),
	NICE(IOEVENTFD_ANY_LENGTH, "fast virtio doorbells"),
	NICE(X2APIC_API, "more than 255 CPUs"),
	NICE(EXCEPTION_PAYLOAD, "exact saved state"),
	NICE(X86_SMM, "system management mode (secure boot)"),
#undef NEEDED
#undef SPLIT
#undef NICE
	{ 0 },
};
