/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86 state to and from KVM (Linux: Documentation/virt/kvm/api.rst); see accel/x86.h. On the vCPU's
 * thread or while it is paused; what concerns the machine, the main thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/kvm/kvm.h"

enum {
	MSR_BATCH = 64,
	MSR_APIC_BASE = 0x1b,
};

static int supported_cpuid(struct accel *a, struct x86_cpuid *entries, int max)
{
	struct kvm_accel *k = to_kvm(a);
	struct kvm_cpuid2 *c = NULL;
	int ret = -E2BIG;

	for (unsigned n = 128; ret == -E2BIG && n <= 4096; n *= 2) {
		free(c);
		c = xcalloc(1, sizeof(*c) + n * sizeof(c->entries[0]));
		c->nent = n;
		ret = kvm_ioctl(k->fd, KVM_GET_SUPPORTED_CPUID, c);
	}
	if (!ret && (int)c->nent > max)
		ret = -E2BIG;
	for (unsigned i = 0; !ret && i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];

		entries[i] = (struct x86_cpuid){
			.function = e->function,
			.index = e->index,
			.index_significant = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = e->eax,
			.ebx = e->ebx,
			.ecx = e->ecx,
			.edx = e->edx,
		};
	}
	if (!ret)
		ret = c->nent;
	free(c);
	return ret;
}

static int msr_list(struct accel *a, uint32_t *indices, int max)
{
	struct kvm_accel *k = to_kvm(a);
	struct kvm_msr_list probe = { 0 }, *list;
	int ret;

	ret = kvm_ioctl(k->fd, KVM_GET_MSR_INDEX_LIST, &probe);
	if (ret != -E2BIG)
		return ret;
	list = xcalloc(1, sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
	list->nmsrs = probe.nmsrs;
	ret = kvm_ioctl(k->fd, KVM_GET_MSR_INDEX_LIST, list);
	if (!ret && (int)list->nmsrs > max)
		ret = -E2BIG;
	if (!ret) {
		memcpy(indices, list->indices, list->nmsrs * sizeof(list->indices[0]));
		ret = list->nmsrs;
	}
	free(list);
	return ret;
}

/* Older kernels answer only through a vCPU. */
static uint32_t tsc_khz(struct accel *a)
{
	struct kvm_accel *k = to_kvm(a);
	int ret = -EINVAL;

	if (k->vcpus)
		ret = kvm_ioctl_value(k->vcpus->fd, KVM_GET_TSC_KHZ, 0);
	if (ret <= 0)
		ret = kvm_ioctl_value(k->vm_fd, KVM_GET_TSC_KHZ, 0);
	return ret > 0 ? ret : 0;
}

static int set_cpuid(struct vcpu *v, const struct x86_cpuid *entries, int count)
{
	struct kvm_cpuid2 *c = xcalloc(1, sizeof(*c) + count * sizeof(c->entries[0]));
	int ret;

	c->nent = count;
	for (int i = 0; i < count; i++) {
		const struct x86_cpuid *e = &entries[i];

		c->entries[i] = (struct kvm_cpuid_entry2){
			.function = e->function,
			.index = e->index,
			.flags = e->index_significant ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = e->eax,
			.ebx = e->ebx,
			.ecx = e->ecx,
			.edx = e->edx,
		};
	}
	ret = kvm_ioctl(to_kvm_vcpu(v)->fd, KVM_SET_CPUID2, c);
	free(c);
	return ret;
}

/* Both structs have the same registers, in another order. */
#define FOR_EACH_REG(X)                                                                     \
	X(rax) X(rbx) X(rcx) X(rdx) X(rsi) X(rdi) X(rsp) X(rbp) X(r8) X(r9) X(r10) X(r11)   \
	X(r12) X(r13) X(r14) X(r15) X(rip) X(rflags)

static int get_regs(struct vcpu *v, struct x86_regs *regs)
{
	struct kvm_regs r;
	int ret = kvm_ioctl(to_kvm_vcpu(v)->fd, KVM_GET_REGS, &r);

	if (ret)
		return ret;
#define X(name) regs->name = r.name;
	FOR_EACH_REG(X)
#undef X
	return 0;
}

static int set_regs(struct vcpu *v, const struct x86_regs *regs)
{
	struct kvm_regs r = { 0 };

#define X(name) r.name = regs->name;
	FOR_EACH_REG(X)
#undef X
	return kvm_ioctl(to_kvm_vcpu(v)->fd, KVM_SET_REGS, &r);
}

#define FOR_EACH_SEGMENT_FIELD(X)                                                           \
	X(base) X(limit) X(selector) X(type) X(present) X(dpl) X(db) X(s) X(l) X(g) X(avl)  \
	X(unusable)

static void segment_from_kvm(struct x86_segment *d, const struct kvm_segment *s)
{
	*d = (struct x86_segment){0};
#define X(name) d->name = s->name;
	FOR_EACH_SEGMENT_FIELD(X)
#undef X
}

static void segment_to_kvm(struct kvm_segment *d, const struct x86_segment *s)
{
	*d = (struct kvm_segment){0};
#define X(name) d->name = s->name;
	FOR_EACH_SEGMENT_FIELD(X)
#undef X
}

#define FOR_EACH_SEGMENT(X) X(cs) X(ds) X(es) X(fs) X(gs) X(ss) X(tr) X(ldt)
#define FOR_EACH_CONTROL(X) X(cr0) X(cr2) X(cr3) X(cr4) X(cr8) X(efer) X(apic_base)

static int get_sregs(struct vcpu *v, struct x86_sregs *sregs)
{
	struct kvm_sregs s;
	int ret = kvm_ioctl(to_kvm_vcpu(v)->fd, KVM_GET_SREGS, &s);

	if (ret)
		return ret;
#define X(name) segment_from_kvm(&sregs->name, &s.name);
	FOR_EACH_SEGMENT(X)
#undef X
#define X(name) sregs->name = s.name;
	FOR_EACH_CONTROL(X)
#undef X
	sregs->gdt = (struct x86_table){ s.gdt.base, s.gdt.limit };
	sregs->idt = (struct x86_table){ s.idt.base, s.idt.limit };
	return 0;
}

static int set_sregs(struct vcpu *v, const struct x86_sregs *sregs)
{
	struct kvm_sregs s = { 0 };

#define X(name) segment_to_kvm(&s.name, &sregs->name);
	FOR_EACH_SEGMENT(X)
#undef X
#define X(name) s.name = sregs->name;
	FOR_EACH_CONTROL(X)
#undef X
	s.gdt.base = sregs->gdt.base;
	s.gdt.limit = sregs->gdt.limit;
	s.idt.base = sregs->idt.base;
	s.idt.limit = sregs->idt.limit;
	return kvm_ioctl(to_kvm_vcpu(v)->fd, KVM_SET_SREGS, &s);
}

struct msr_batch {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[MSR_BATCH];
};

static int get_msrs(struct vcpu *v, struct x86_msr *msrs, int count)
{
	int done = 0;

	while (done < count) {
		struct msr_batch b = { .head.nmsrs = MIN(count - done, MSR_BATCH) };
		int ret;

		for (unsigned i = 0; i < b.head.nmsrs; i++)
			b.entries[i].index = msrs[done + i].index;
		ret = kvm_ioctl(to_kvm_vcpu(v)->fd, KVM_GET_MSRS, &b);
		if (ret < 0)
			return done ? done : ret;
		for (int i = 0; i < ret; i++)
			msrs[done + i].value = b.entries[i].data;
		done += ret;
		if (ret < (int)b.head.nmsrs)
			break;
	}
	return done;
}

static int set_msrs(struct vcpu *v, const struct x86_msr *msrs, int count)
{
	int done = 0;

	while (done < count) {
		struct msr_batch b = { .head.nmsrs = MIN(count - done, MSR_BATCH) };
		int ret;

		for (unsigned i = 0; i < b.head.nmsrs; i++) {
			b.entries[i].index = msrs[done + i].index;
			b.entries[i].data = msrs[done + i].value;
		}
		ret = kvm_ioctl(to_kvm_vcpu(v)->fd, KVM_SET_MSRS, &b);
		if (ret < 0)
			return done ? done : ret;
		done += ret;
		if (ret < (int)b.head.nmsrs)
			break;
	}
	return done;
}

static const uint32_t mp_states[] = {
	[X86_MP_RUNNABLE] = KVM_MP_STATE_RUNNABLE,
	[X86_MP_UNINITIALIZED] = KVM_MP_STATE_UNINITIALIZED,
	[X86_MP_INIT] = KVM_MP_STATE_INIT_RECEIVED,
	[X86_MP_HALTED] = KVM_MP_STATE_HALTED,
	[X86_MP_SIPI] = KVM_MP_STATE_SIPI_RECEIVED,
};

static int get_mp_state(struct vcpu *v, enum x86_mp_state *state)
{
	struct kvm_mp_state mp;
	int ret = kvm_ioctl(to_kvm_vcpu(v)->fd, KVM_GET_MP_STATE, &mp);

	if (ret)
		return ret;
	for (unsigned i = 0; i < ARRAY_SIZE(mp_states); i++) {
		if (mp_states[i] == mp.mp_state) {
			*state = i;
			return 0;
		}
	}
	return -EINVAL;
}

static int set_mp_state(struct vcpu *v, enum x86_mp_state state)
{
	struct kvm_mp_state mp = { .mp_state = mp_states[state] };

	return kvm_ioctl(to_kvm_vcpu(v)->fd, KVM_SET_MP_STATE, &mp);
}

/* Registers of a local APIC after power-on (Intel SDM volume 3, 11.4.7.1), but for the boot CPU's
 * LINT0: as firmware leaves it, open for the 8259's interrupts, which is also how KVM begins. */
static void lapic_power_on(struct kvm_lapic_state *l, const struct kvm_vcpu *kv, uint32_t version)
{
	static const uint16_t lvt[] = { 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x2f0 };
	unsigned last = MIN(version >> 16 & 0xff, ARRAY_SIZE(lvt) - 1);

	store_le32(l->regs + 0x20, kv->base.apic_id << 24);
	store_le32(l->regs + 0x30, version);
	store_le32(l->regs + 0xe0, 0xffffffff); /* destination format: flat */
	store_le32(l->regs + 0xf0, 0xff);	/* spurious vector, software-disabled */
	for (unsigned i = 0; i <= last; i++)
		store_le32(l->regs + lvt[i], 0x10000);
	if (!kv->base.index)
		store_le32(l->regs + 0x350, 0x700);
}

static int reset_lapic(struct kvm_vcpu *kv)
{
	const struct x86_msr base = {
		MSR_APIC_BASE,
		UINT64_C(0xfee00800) | (kv->base.index == 0 ? 0x100 : 0),
	};
	struct kvm_lapic_state old, l = { 0 };
	int ret;

	/* Back from x2APIC mode first: the registers that follow are those of xAPIC. */
	if (set_msrs(&kv->base, &base, 1) != 1)
		return -EINVAL;
	ret = kvm_ioctl(kv->fd, KVM_GET_LAPIC, &old);
	if (ret)
		return ret;
	lapic_power_on(&l, kv, load_le32(old.regs + 0x30));
	return kvm_ioctl(kv->fd, KVM_SET_LAPIC, &l);
}

/* Every component in its initial state; x87 and MXCSR also as bytes, as after FNINIT. */
static int reset_xsave(struct kvm_vcpu *kv)
{
	struct kvm_xsave *x = xcalloc(1, MAX(kv->accel->xsave_size, sizeof(*x)));
	uint8_t *bytes = (uint8_t *)x->region;
	int ret;

	store_le16(bytes, 0x37f);	   /* FCW */
	store_le32(bytes + 24, 0x1f80);	   /* MXCSR */
	store_le32(bytes + 28, 0x2ffff); /* MXCSR_MASK: only reported */
	ret = kvm_ioctl(kv->fd, KVM_SET_XSAVE, x);
	free(x);
	return ret;
}

static size_t xsave_size(struct kvm_accel *k)
{
	if (!k->xsave_size) {
		k->xsave_size = kvm_check(k, KVM_CAP_XSAVE2);
		k->xsave_size = MAX(k->xsave_size, sizeof(struct kvm_xsave));
	}
	return k->xsave_size;
}

static int reset_rest(struct vcpu *v)
{
	struct kvm_vcpu *kv = to_kvm_vcpu(v);
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0] = { .xcr = 0, .value = 1 } };
	struct kvm_debugregs debug = { .dr6 = 0xffff0ff0, .dr7 = 0x400 };
	struct kvm_vcpu_events events = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
	};
	int ret;

	kv->extint = -1;
	if (kv->pristine)
		return 0;
	if (kvm_check(kv->accel, KVM_CAP_X86_SMM))
		events.flags |= KVM_VCPUEVENT_VALID_SMM;
	xsave_size(kv->accel);
	ret = reset_xsave(kv);
	if (!ret && kvm_check(kv->accel, KVM_CAP_XCRS))
		ret = kvm_ioctl(kv->fd, KVM_SET_XCRS, &xcrs);
	/* A guest without XSAVE has no XCR0 to set. */
	if (ret == -EINVAL)
		ret = 0;
	if (!ret)
		ret = kvm_ioctl(kv->fd, KVM_SET_DEBUGREGS, &debug);
	if (!ret)
		ret = kvm_ioctl(kv->fd, KVM_SET_VCPU_EVENTS, &events);
	if (!ret)
		ret = reset_lapic(kv);
	return ret;
}

static size_t blob_size(struct kvm_accel *k, enum x86_blob kind)
{
	switch (kind) {
	case X86_BLOB_XSAVE:
		return xsave_size(k);
	case X86_BLOB_XCRS:
		return sizeof(struct kvm_xcrs);
	case X86_BLOB_EVENTS:
		return sizeof(struct kvm_vcpu_events);
	case X86_BLOB_DEBUGREGS:
		return sizeof(struct kvm_debugregs);
	case X86_BLOB_LAPIC:
		return sizeof(struct kvm_lapic_state);
	}
	return 0;
}

static unsigned long blob_get_request(size_t xsave, enum x86_blob kind)
{
	switch (kind) {
	case X86_BLOB_XSAVE:
		return xsave > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
	case X86_BLOB_XCRS:
		return KVM_GET_XCRS;
	case X86_BLOB_EVENTS:
		return KVM_GET_VCPU_EVENTS;
	case X86_BLOB_DEBUGREGS:
		return KVM_GET_DEBUGREGS;
	case X86_BLOB_LAPIC:
		return KVM_GET_LAPIC;
	}
	return 0;
}

static unsigned long blob_set_request(enum x86_blob kind)
{
	switch (kind) {
	case X86_BLOB_XSAVE:
		return KVM_SET_XSAVE;
	case X86_BLOB_XCRS:
		return KVM_SET_XCRS;
	case X86_BLOB_EVENTS:
		return KVM_SET_VCPU_EVENTS;
	case X86_BLOB_DEBUGREGS:
		return KVM_SET_DEBUGREGS;
	case X86_BLOB_LAPIC:
		return KVM_SET_LAPIC;
	}
	return 0;
}

static int get_blob(struct vcpu *v, enum x86_blob kind, void *buf, size_t len)
{
	struct kvm_vcpu *kv = to_kvm_vcpu(v);
	size_t size = blob_size(kv->accel, kind);
	int ret;

	if (!buf)
		return size;
	if (len < size)
		return -ENOSPC;
	memset(buf, 0, size);
	ret = kvm_ioctl(kv->fd, blob_get_request(size, kind), buf);
	return ret < 0 ? ret : (int)size;
}

static int set_blob(struct vcpu *v, enum x86_blob kind, const void *buf, size_t len)
{
	struct kvm_vcpu *kv = to_kvm_vcpu(v);
	size_t size = blob_size(kv->accel, kind);
	void *copy;
	int ret;

	if (len != size)
		return -EINVAL;
	copy = xmalloc(size);
	memcpy(copy, buf, size);
	kv->pristine = false;
	ret = kvm_ioctl(kv->fd, blob_set_request(kind), copy);
	free(copy);
	return ret < 0 ? ret : (int)size;
}

enum { CHIP_PIT = 3 };

static int get_irqchip(struct accel *a, unsigned chip, void *buf, size_t len)
{
	struct kvm_accel *k = to_kvm(a);
	size_t size = chip == CHIP_PIT ? sizeof(struct kvm_pit_state2) : sizeof(struct kvm_irqchip);
	struct kvm_irqchip state = { .chip_id = chip };
	struct kvm_pit_state2 pit = { 0 };
	int ret;

	if (chip > CHIP_PIT || (chip == CHIP_PIT && !a->config.pit))
		return -ENOENT;
	if (!buf)
		return size;
	if (len < size)
		return -ENOSPC;
	if (chip == CHIP_PIT)
		ret = kvm_ioctl(k->vm_fd, KVM_GET_PIT2, &pit);
	else
		ret = kvm_ioctl(k->vm_fd, KVM_GET_IRQCHIP, &state);
	if (ret < 0)
		return ret;
	memcpy(buf, chip == CHIP_PIT ? (void *)&pit : (void *)&state, size);
	return size;
}

static int set_irqchip(struct accel *a, unsigned chip, const void *buf, size_t len)
{
	struct kvm_accel *k = to_kvm(a);
	struct kvm_irqchip state;
	struct kvm_pit_state2 pit;

	if (chip > CHIP_PIT || (chip == CHIP_PIT && !a->config.pit))
		return -ENOENT;
	if (chip == CHIP_PIT) {
		if (len != sizeof(pit))
			return -EINVAL;
		memcpy(&pit, buf, len);
		return kvm_ioctl(k->vm_fd, KVM_SET_PIT2, &pit);
	}
	if (len != sizeof(state))
		return -EINVAL;
	memcpy(&state, buf, len);
	if (state.chip_id != chip)
		return -EINVAL;
	return kvm_ioctl(k->vm_fd, KVM_SET_IRQCHIP, &state);
}

/* What KVM_CREATE_IRQCHIP and KVM_CREATE_PIT2 make. */
static void irqchip_power_on(struct kvm_irqchip *state, unsigned chip)
{
	*state = (struct kvm_irqchip){ .chip_id = chip };
	switch (chip) {
	case KVM_IRQCHIP_PIC_MASTER:
		state->chip.pic.elcr_mask = 0xf8; /* 0 to 2 cannot be level-triggered */
		break;
	case KVM_IRQCHIP_PIC_SLAVE:
		state->chip.pic.elcr_mask = 0xde; /* nor can 8 and 13 */
		break;
	case KVM_IRQCHIP_IOAPIC:
		state->chip.ioapic.base_address = 0xfec00000;
		for (unsigned i = 0; i < KVM_IOAPIC_NR_PINS; i++)
			state->chip.ioapic.redirtbl[i].fields.mask = 1;
		break;
	}
}

static int reset_pit(struct kvm_accel *k)
{
	struct kvm_pit_state2 pit = { 0 };

	for (unsigned i = 0; i < ARRAY_SIZE(pit.channels); i++) {
		pit.channels[i].count = 0x10000;
		pit.channels[i].mode = 0xff; /* not programmed yet */
		pit.channels[i].gate = i != 2;
	}
	return kvm_ioctl(k->vm_fd, KVM_SET_PIT2, &pit);
}

static int reset_irqchip(struct accel *a)
{
	struct kvm_accel *k = to_kvm(a);
	int ret = 0;

	if (a->config.irqchip != IRQCHIP_KERNEL || !k->started)
		return 0;
	for (unsigned chip = 0; !ret && chip < CHIP_PIT; chip++) {
		struct kvm_irqchip state;

		irqchip_power_on(&state, chip);
		ret = kvm_ioctl(k->vm_fd, KVM_SET_IRQCHIP, &state);
	}
	if (!ret && a->config.pit)
		ret = reset_pit(k);
	return ret;
}

const struct accel_x86_ops kvm_x86_ops = {
	.supported_cpuid = supported_cpuid,
	.msr_list = msr_list,
	.tsc_khz = tsc_khz,
	.set_cpuid = set_cpuid,
	.get_regs = get_regs,
	.set_regs = set_regs,
	.get_sregs = get_sregs,
	.set_sregs = set_sregs,
	.get_msrs = get_msrs,
	.set_msrs = set_msrs,
	.get_mp_state = get_mp_state,
	.set_mp_state = set_mp_state,
	.reset_rest = reset_rest,
	.get_blob = get_blob,
	.set_blob = set_blob,
	.get_irqchip = get_irqchip,
	.set_irqchip = set_irqchip,
	.reset_irqchip = reset_irqchip,
};
