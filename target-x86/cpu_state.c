/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CPU's state at its first instruction: after power-on or INIT (Intel SDM volume 3, table 10-1),
 * and as boot protocols promise it (Linux Documentation/arch/x86/boot.rst; Xen's pvh.pandoc;
 * Multiboot 0.6.96, 3.2).
 * On the vCPU's thread, or while it is paused.
 */
#include "target-x86/cpu_state.h"

#include "target-x86/cpu_internal.h"
#include "vmm/core/util.h"

enum {
	CR0_PE = 1u << 0,
	CR0_ET = 1u << 4,
	CR0_NW = 1u << 29,
	CR0_CD = 1u << 30,
	CR0_PG = 1u << 31,
	CR4_PAE = 1u << 5,
	EFER_LME = 1u << 8,
	EFER_LMA = 1u << 10,
	RFLAGS_FIXED = 1u << 1,
	APIC_BASE = 0xfee00000,
	APIC_BASE_BSP = 1u << 8,
	APIC_BASE_ENABLE = 1u << 11,
	/* Segment types */
	SEG_DATA = 0x3,
	SEG_CODE = 0xb,
	SEG_LDT = 0x2,
	SEG_TSS_BUSY = 0xb,
};

static struct x86_segment real_segment(uint16_t selector, uint32_t base, uint8_t type)
{
	return (struct x86_segment){
		.base = base,
		.limit = 0xffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
	};
}

static struct x86_segment system_segment(uint8_t type, uint32_t limit)
{
	return (struct x86_segment){.limit = limit, .type = type, .present = 1};
}

static struct x86_segment flat_segment(uint16_t selector, uint8_t type, bool code64)
{
	return (struct x86_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.db = !code64,
		.l = code64,
		.g = 1,
	};
}

static void reset_sregs(struct x86_sregs *s)
{
	*s = (struct x86_sregs){
		.cs = real_segment(0xf000, 0xffff0000, SEG_CODE),
		.ds = real_segment(0, 0, SEG_DATA),
		.es = real_segment(0, 0, SEG_DATA),
		.fs = real_segment(0, 0, SEG_DATA),
		.gs = real_segment(0, 0, SEG_DATA),
		.ss = real_segment(0, 0, SEG_DATA),
		.ldt = system_segment(SEG_LDT, 0xffff),
		.tr = system_segment(SEG_TSS_BUSY, 0xffff),
		.gdt.limit = 0xffff,
		.idt.limit = 0xffff,
		.cr0 = CR0_CD | CR0_NW | CR0_ET,
	};
}

/* An 8-byte descriptor with base 0. */
static uint64_t descriptor(uint32_t limit, uint8_t access, uint8_t flags)
{
	return (limit & 0xffff) | (uint64_t)access << 40 | (uint64_t)(limit >> 16 & 0xf) << 48 |
	       (uint64_t)(flags & 0xf) << 52;
}

void x86_boot_gdt(uint8_t gdt[X86_BOOT_GDT_SIZE], bool code64)
{
	memset(gdt, 0, X86_BOOT_GDT_SIZE);
	/* flags: granularity 8, 32-bit 4, 64-bit 2 */
	store_le64(gdt + 0x10, descriptor(0xfffff, 0x9b, code64 ? 0xa : 0xc));
	store_le64(gdt + 0x18, descriptor(0xfffff, 0x93, 0xc));
	/* In long mode this one takes two places. */
	store_le64(gdt + 0x20, descriptor(0x67, 0x8b, 0));
}

void x86_boot_page_tables(uint8_t tables[X86_BOOT_PAGES_SIZE], uint64_t gpa)
{
	enum { TABLE = 0x3 /* present, writable */, LARGE = 0x83 };
	memset(tables, 0, 2 * 4096);
	store_le64(tables, (gpa + 4096) | TABLE);
	for (unsigned i = 0; i < 4; i++)
		store_le64(tables + 4096 + 8 * i, (gpa + (2 + i) * 4096) | TABLE);
	for (unsigned i = 0; i < 4 * 512; i++)
		store_le64(tables + 2 * 4096 + 8 * i, i * 2 * MiB | LARGE);
}

static void flat_state(struct x86_boot_state *s, uint64_t entry, uint64_t gdt, bool code64)
{
	struct x86_segment data = flat_segment(0x18, SEG_DATA, false);
	memset(s, 0, sizeof(*s));
	reset_sregs(&s->sregs);
	s->regs.rip = entry;
	s->regs.rflags = RFLAGS_FIXED;
	s->sregs.cs = flat_segment(0x10, SEG_CODE, code64);
	s->sregs.ds = s->sregs.es = s->sregs.fs = s->sregs.gs = s->sregs.ss = data;
	s->sregs.tr = system_segment(SEG_TSS_BUSY, 0x67);
	s->sregs.tr.selector = gdt ? 0x20 : 0;
	s->sregs.gdt = (struct x86_table){gdt, gdt ? X86_BOOT_GDT_SIZE - 1 : 0};
	s->sregs.idt.limit = 0;
	s->sregs.cr0 = CR0_PE | CR0_ET;
}

void x86_boot_state_long(struct x86_boot_state *s, uint64_t entry, uint64_t cr3, uint64_t gdt)
{
	flat_state(s, entry, gdt, true);
	s->sregs.cr0 |= CR0_PG;
	s->sregs.cr3 = cr3;
	s->sregs.cr4 = CR4_PAE;
	s->sregs.efer = EFER_LME | EFER_LMA;
}

void x86_boot_state_protected(struct x86_boot_state *s, uint32_t entry, uint64_t gdt)
{
	flat_state(s, entry, gdt, false);
}

struct msr_list {
	struct x86_msr msrs[96];
	int count;
};

static void msr(struct msr_list *l, uint32_t index, uint64_t value)
{
	if (l->count < (int)ARRAY_SIZE(l->msrs))
		l->msrs[l->count++] = (struct x86_msr){index, value};
}

static void mtrr_msrs(struct msr_list *l, bool direct)
{
	static const uint16_t fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
					 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
	for (uint32_t i = 0; i < 8; i++) {
		msr(l, 0x200 + 2 * i, 0);
		msr(l, 0x201 + 2 * i, 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		msr(l, fixed[i], 0);
	/* Off after reset, and firmware turns them on. Without firmware the kernel must find them
	 * on, everything write-back: Linux would otherwise do without PAT. */
	msr(l, 0x2ff, direct ? 1u << 11 | 6 : 0);
}

static void kvm_msrs(struct msr_list *l, const struct cpu_type *t)
{
	uint32_t f = t->words[CW_KVM_EAX];
	if (f & 1u << 3) { /* kvmclock, in the numbers that are in use */
		msr(l, 0x4b564d00, 0);
		msr(l, 0x4b564d01, 0);
	}
	if (f & 1u << 4)
		msr(l, 0x4b564d02, 0); /* asynchronous page faults */
	if (f & 1u << 5)
		msr(l, 0x4b564d03, 0); /* steal time */
	if (f & 1u << 6)
		msr(l, 0x4b564d04, 0); /* EOI */
	if (f & 1u << 12)
		msr(l, 0x4b564d05, 1); /* the host may poll when this CPU halts */
	if (f & 1u << 14)
		msr(l, 0x4b564d06, 0); /* its interrupt for asynchronous page faults */
}

static void collect_msrs(struct msr_list *l, const struct cpu_type *t, bool direct)
{
	l->count = 0;
	msr(l, 0x10, 0); /* TSC */
	if (t->words[CW_7_EBX] & F7B_TSC_ADJUST)
		msr(l, 0x3b, 0);
	msr(l, 0x277, UINT64_C(0x0007040600070406)); /* PAT */
	if (t->words[CW_1_EDX] & F1D_SEP)
		for (uint32_t i = 0x174; i <= 0x176; i++)
			msr(l, i, 0);
	if (t->words[CW_80000001_EDX] & F81D_LM) {
		for (uint32_t i = 0xc0000081; i <= 0xc0000084; i++) /* STAR .. FMASK */
			msr(l, i, 0);
		msr(l, 0xc0000102, 0); /* KERNEL_GS_BASE */
	}
	if (t->words[CW_80000001_EDX] & F81D_RDTSCP)
		msr(l, 0xc0000103, 0); /* TSC_AUX */
	if (t->words[CW_1_ECX] & F1C_TSC_DEADLINE)
		msr(l, 0x6e0, 0);
	if (t->words[CW_1_EDX] & F1D_MCE)
		msr(l, 0x17a, 0); /* MCG_STATUS */
	msr(l, 0x1a0, 1);	  /* MISC_ENABLE: fast strings */
	if (t->words[CW_1_ECX] & F1C_VMX)
		msr(l, 0x3a, 0); /* FEATURE_CONTROL, unlocked */
	if (t->words[CW_80000001_ECX] & F81C_SVM)
		msr(l, 0xc0010117, 0); /* VM_HSAVE_PA */
	if (t->words[CW_7_EDX] & F7D_SPEC_CTRL)
		msr(l, 0x48, 0);
	if (t->words[CW_D_1_EAX] & FD1_XSAVES)
		msr(l, 0xda0, 0); /* XSS */
	if (t->words[CW_D_1_EAX] & FD1_XFD)
		msr(l, 0x1c4, 0);
	if (t->words[CW_7_ECX] & F7C_WAITPKG)
		msr(l, 0xe1, 0); /* UMWAIT_CONTROL */
	if (t->pmu && t->vendor_kind == VENDOR_INTEL) {
		msr(l, 0x38d, 0); /* FIXED_CTR_CTRL */
		msr(l, 0x38f, 0); /* PERF_GLOBAL_CTRL */
	}
	kvm_msrs(l, t);
	if (t->words[CW_1_EDX] & F1D_MTRR)
		mtrr_msrs(l, direct);
}

/* A host that refuses one does not have it, so there is nothing to be reset: go on behind it. */
static bool set_msrs(struct vcpu *v, const struct msr_list *l)
{
	for (int done = 0; done < l->count;) {
		int n = v->accel->ops->x86->set_msrs(v, l->msrs + done, l->count - done);
		if (n < 0)
			return false;
		done += n;
		if (done < l->count)
			done++;
	}
	return true;
}

bool cpu_reset(struct vcpu *v, void *opaque)
{
	const struct cpu_reset *r = opaque;
	const struct accel_x86_ops *ops = v->accel->ops->x86;
	bool first = v->index == 0, direct = first && r->boot;
	struct x86_sregs sregs;
	struct x86_regs regs = {.rip = 0xfff0, .rflags = RFLAGS_FIXED, .rdx = r->type->signature};
	struct msr_list msrs;

	reset_sregs(&sregs);
	if (direct) {
		sregs = r->boot->sregs;
		regs = r->boot->regs;
	}
	sregs.apic_base = APIC_BASE | APIC_BASE_ENABLE | (first ? APIC_BASE_BSP : 0);
	collect_msrs(&msrs, r->type, r->boot != NULL);
	/* The local APIC's registers mean what apic_base says, so sregs come before the rest. */
	return ops->set_sregs(v, &sregs) == 0 && ops->reset_rest(v) == 0 && set_msrs(v, &msrs) &&
	       ops->set_regs(v, &regs) == 0 &&
	       ops->set_mp_state(v, first ? X86_MP_RUNNABLE : X86_MP_UNINITIALIZED) == 0;
}
