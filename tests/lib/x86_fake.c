/* SPDX-License-Identifier: Apache-2.0 */
/* See x86_fake.h. */
#include "tests/lib/x86_fake.h"

#include "vmm/core/util.h"

static struct x86_fake *of_accel(struct accel *a)
{
	return container_of(a, struct x86_fake, accel);
}

static struct x86_fake *of_vcpu(struct vcpu *v)
{
	return container_of(v, struct x86_fake, vcpu);
}

static void note(struct x86_fake *f, char what)
{
	size_t n = strlen(f->order);

	if (n + 1 < sizeof(f->order))
		f->order[n] = what;
}

static int supported_cpuid(struct accel *a, struct x86_cpuid *entries, int max)
{
	struct x86_fake *f = of_accel(a);
	int n = MIN(max, f->supported_count);

	memcpy(entries, f->supported, n * sizeof(*entries));
	return n;
}

static uint32_t tsc_khz(struct accel *a)
{
	return of_accel(a)->khz;
}

static int set_cpuid(struct vcpu *v, const struct x86_cpuid *entries, int count)
{
	struct x86_fake *f = of_vcpu(v);

	memcpy(f->cpuid, entries, count * sizeof(*entries));
	f->cpuid_count = count;
	return 0;
}

static int set_regs(struct vcpu *v, const struct x86_regs *regs)
{
	of_vcpu(v)->regs = *regs;
	note(of_vcpu(v), 'r');
	return 0;
}

static int set_sregs(struct vcpu *v, const struct x86_sregs *sregs)
{
	of_vcpu(v)->sregs = *sregs;
	note(of_vcpu(v), 's');
	return 0;
}

static int set_msrs(struct vcpu *v, const struct x86_msr *msrs, int count)
{
	struct x86_fake *f = of_vcpu(v);
	int i = 0;

	note(f, 'm');
	for (; i < count && msrs[i].index != f->refused_msr; i++)
		if (f->msr_count < (int)ARRAY_SIZE(f->msrs))
			f->msrs[f->msr_count++] = msrs[i];
	return i;
}

static int set_mp_state(struct vcpu *v, enum x86_mp_state state)
{
	of_vcpu(v)->mp_state = state;
	note(of_vcpu(v), 'p');
	return 0;
}

static int reset_rest(struct vcpu *v)
{
	note(of_vcpu(v), 'x');
	return 0;
}

void x86_fake_init(struct x86_fake *f, const struct x86_cpuid *supported, int count)
{
	memset(f, 0, sizeof(*f));
	f->supported = supported;
	f->supported_count = count;
	f->x86 = (struct accel_x86_ops){
		.supported_cpuid = supported_cpuid,
		.tsc_khz = tsc_khz,
		.set_cpuid = set_cpuid,
		.set_regs = set_regs,
		.set_sregs = set_sregs,
		.set_msrs = set_msrs,
		.set_mp_state = set_mp_state,
		.reset_rest = reset_rest,
	};
	f->ops.x86 = &f->x86;
	f->accel.ops = &f->ops;
	f->vcpu.accel = &f->accel;
}

uint64_t x86_fake_msr(const struct x86_fake *f, uint32_t index, uint64_t other)
{
	for (int i = f->msr_count; i-- > 0;)
		if (f->msrs[i].index == index)
			return f->msrs[i].value;
	return other;
}
