/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An accelerator that runs nothing: it lists the CPUID leaves that a test gives it, and remembers
 * what was set on its one vCPU.
 */
#ifndef TESTS_LIB_X86_FAKE_H
#define TESTS_LIB_X86_FAKE_H

#include "accel/accel.h"
#include "accel/x86.h"

struct x86_fake {
	struct accel accel;
	struct accel_ops ops;
	struct accel_x86_ops x86;
	struct vcpu vcpu;

	const struct x86_cpuid *supported;
	int supported_count;
	uint32_t khz;
	uint32_t refused_msr; /* set_msrs stops before this one; 0: takes all */

	struct x86_cpuid cpuid[256];
	int cpuid_count;
	struct x86_regs regs;
	struct x86_sregs sregs;
	struct x86_msr msrs[128];
	int msr_count;
	enum x86_mp_state mp_state;
	char order[16]; /* s, r, m, x (reset_rest), p */
};

void x86_fake_init(struct x86_fake *f, const struct x86_cpuid *supported, int count);
/* The value last set, or other. */
uint64_t x86_fake_msr(const struct x86_fake *f, uint32_t index, uint64_t other);

#endif
