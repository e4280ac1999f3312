/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What to tell people when a vCPU cannot go on: KVM's reason in words, the instruction, the
 * registers. On the vCPU's thread, or while it is paused.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "accel/kvm/insn.h"
#include "accel/kvm/kvm.h"

struct text {
	char *buf;
	size_t len, used;
};

static void __attribute__((format(printf, 2, 3))) put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (t->used >= t->len)
		return;
	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->used, t->len - t->used, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->used = MIN(t->len, t->used + n);
}

static const char *exit_name(uint32_t reason)
{
#define NAME(x) case KVM_EXIT_##x: return "KVM_EXIT_" #x
	switch (reason) {
	NAME(UNKNOWN);
	NAME(EXCEPTION);
	NAME(IO);
	NAME(HYPERCALL);
	NAME(DEBUG);
	NAME(HLT);
	NAME(MMIO);
	NAME(SHUTDOWN);
	NAME(FAIL_ENTRY);
	NAME(NMI);
	NAME(INTERNAL_ERROR);
	NAME(SYSTEM_EVENT);
	NAME(HYPERV);
	NAME(XEN);
	NAME(NOTIFY);
#ifdef KVM_EXIT_MEMORY_FAULT
	NAME(MEMORY_FAULT);
#endif
	}
#undef NAME
	return "an exit that this program does not know";
}

static void put_internal(struct text *t, const struct kvm_run *run)
{
	switch (run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		put(t, "KVM internal error 1: its instruction emulator cannot execute this "
		       "instruction");
		break;
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		put(t, "KVM internal error 2: two exceptions at once");
		break;
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		put(t, "KVM internal error 3: an exit while an interrupt or exception was being "
		       "delivered (the interrupt table or stack lies in no memory)");
		break;
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		put(t, "KVM internal error 4: the processor left the guest for an unexpected "
		       "reason");
		break;
	default:
		put(t, "KVM internal error %u", run->internal.suberror);
	}
	if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata) {
		put(t, "; data");
		for (unsigned i = 0; i < MIN(run->internal.ndata, 16u); i++)
			put(t, " 0x%" PRIx64, (uint64_t)run->internal.data[i]);
	}
	put(t, "\n");
}

static void put_reason(struct text *t, const struct kvm_vcpu *kv)
{
	const struct kvm_run *run = kv->run;

	put(t, "CPU %u cannot go on: ", kv->base.index);
	if (kv->run_errno) {
		put(t, "KVM_RUN: %s", strerror(kv->run_errno));
		if (kv->run_errno == EFAULT)
			put(t, " (guest memory that the host cannot give)");
		put(t, "\n");
		return;
	}
	switch (run->exit_reason) {
	case KVM_EXIT_INTERNAL_ERROR:
		put_internal(t, run);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		put(t,
		    "the processor refuses to enter the guest (hardware reason 0x%" PRIx64
		    "%s)\n",
		    (uint64_t)run->fail_entry.hardware_entry_failure_reason,
		    run->fail_entry.hardware_entry_failure_reason == 0x80000021 ?
			    ": invalid guest state" :
			    "");
		break;
	case KVM_EXIT_UNKNOWN:
		put(t, "KVM_EXIT_UNKNOWN (hardware reason 0x%" PRIx64 ")\n",
		    (uint64_t)run->hw.hardware_exit_reason);
		break;
	case KVM_EXIT_EXCEPTION:
		put(t, "KVM_EXIT_EXCEPTION %u (error code 0x%x)\n", run->ex.exception,
		    run->ex.error_code);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		put(t, "KVM_EXIT_SYSTEM_EVENT of unknown type %u\n", run->system_event.type);
		break;
	default:
		put(t, "%s (%u)\n", exit_name(run->exit_reason), run->exit_reason);
	}
}

static uint64_t rip_linear(const struct kvm_regs *r, const struct kvm_sregs *s)
{
	return s->cs.l ? r->rip : (uint32_t)(s->cs.base + r->rip);
}

/* The bytes at the instruction pointer, as the emulator or the guest's memory has them. */
static size_t fetch(struct kvm_vcpu *kv, uint64_t linear, uint8_t *bytes, size_t max,
		    const char **why)
{
	const struct kvm_run *run = kv->run;
	size_t done = 0;

	if (!kv->run_errno && run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
	    run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
	    run->emulation_failure.ndata >= 3 &&
	    (run->emulation_failure.flags &
	     KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
		size_t n = MIN(max, (size_t)run->emulation_failure.insn_size);

		n = MIN(n, sizeof(run->emulation_failure.insn_bytes));
		memcpy(bytes, run->emulation_failure.insn_bytes, n);
		if (n)
			return n;
	}
	while (done < max) {
		struct kvm_translation tr = { .linear_address = linear + done };
		size_t n = MIN(max - done, 4096 - ((linear + done) & 4095)), got;

		if (kvm_ioctl(kv->fd, KVM_TRANSLATE, &tr) || !tr.valid) {
			*why = "no page is mapped there";
			break;
		}
		got = kvm_mem_peek(kv->accel, tr.physical_address, bytes + done, n);
		done += got;
		if (got < n) {
			*why = "neither RAM nor ROM is there";
			break;
		}
	}
	return done;
}

static void put_insn(struct text *t, struct kvm_vcpu *kv, const struct kvm_regs *r,
		     const struct kvm_sregs *s)
{
	const char *why = "nothing could be read", *name;
	uint8_t bytes[15];
	size_t n = fetch(kv, rip_linear(r, s), bytes, sizeof(bytes), &why);

	put(t, "  instruction at %04x:%016" PRIx64 ":", s->cs.selector, (uint64_t)r->rip);
	if (!n) {
		put(t, " %s: the guest jumped astray\n", why);
		return;
	}
	for (size_t i = 0; i < n; i++)
		put(t, " %02x", bytes[i]);
	name = insn_name(bytes, n, s->cs.l);
	if (name)
		put(t, " (%s)", name);
	put(t, "\n");
}

static const char *mode_name(const struct kvm_regs *r, const struct kvm_sregs *s)
{
	if (!(s->cr0 & 1))
		return "real mode";
	if (r->rflags & (1 << 17))
		return "virtual 8086 mode";
	if (s->cs.l)
		return "64-bit mode";
	return s->cs.db ? "32-bit mode" : "16-bit protected mode";
}

static void put_segment(struct text *t, const char *name, const struct kvm_segment *s)
{
	put(t,
	    "  %s=%04x base=%016" PRIx64 " limit=%08x type=%x s=%u dpl=%u p=%u db=%u l=%u g=%u%s\n",
	    name, s->selector, (uint64_t)s->base, s->limit, s->type, s->s, s->dpl, s->present,
	    s->db, s->l, s->g, s->unusable ? " unusable" : "");
}

static void put_registers(struct text *t, const struct kvm_regs *r, const struct kvm_sregs *s)
{
	const struct {
		const char *name;
		uint64_t value;
	} regs[] = {
		{ "RAX", r->rax }, { "RBX", r->rbx }, { "RCX", r->rcx }, { "RDX", r->rdx },
		{ "RSI", r->rsi }, { "RDI", r->rdi }, { "RBP", r->rbp }, { "RSP", r->rsp },
		{ "R8 ", r->r8 },  { "R9 ", r->r9 },  { "R10", r->r10 }, { "R11", r->r11 },
		{ "R12", r->r12 }, { "R13", r->r13 }, { "R14", r->r14 }, { "R15", r->r15 },
		{ "CR0", s->cr0 }, { "CR2", s->cr2 }, { "CR3", s->cr3 }, { "CR4", s->cr4 },
	};

	put(t, "  %s, ring %u, RIP=%016" PRIx64 " RFLAGS=%08" PRIx64 " EFER=%" PRIx64 "\n",
	    mode_name(r, s), s->ss.dpl, (uint64_t)r->rip, (uint64_t)r->rflags,
	    (uint64_t)s->efer);
	for (size_t i = 0; i < ARRAY_SIZE(regs); i++)
		put(t, "%s%s=%016" PRIx64 "%s", i % 4 ? " " : "  ", regs[i].name, regs[i].value,
		    i % 4 == 3 ? "\n" : "");
	put_segment(t, "CS ", &s->cs);
	put_segment(t, "SS ", &s->ss);
	put_segment(t, "DS ", &s->ds);
	put_segment(t, "ES ", &s->es);
	put_segment(t, "FS ", &s->fs);
	put_segment(t, "GS ", &s->gs);
	put_segment(t, "TR ", &s->tr);
	put_segment(t, "LDT", &s->ldt);
	put(t, "  GDT=%016" PRIx64 " limit=%04x IDT=%016" PRIx64 " limit=%04x\n",
	    (uint64_t)s->gdt.base, s->gdt.limit, (uint64_t)s->idt.base, s->idt.limit);
}

void kvm_vcpu_report(struct vcpu *v, char *buf, size_t len)
{
	struct kvm_vcpu *kv = to_kvm_vcpu(v);
	struct text t = { buf, len, 0 };
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	put_reason(&t, kv);
	if (kvm_ioctl(kv->fd, KVM_GET_REGS, &regs) || kvm_ioctl(kv->fd, KVM_GET_SREGS, &sregs)) {
		put(&t, "  its registers cannot be read");
		return;
	}
	put_insn(&t, kv, &regs, &sregs);
	put_registers(&t, &regs, &sregs);
	if (!access("/sys/module/kvm_pvm", F_OK))
		put(&t, "  This host has page-table KVM (kvm_pvm), which interprets kernels "
			"instruction by instruction:\n"
			"  a stock kernel needs a host with VT-x or AMD-V (vmm --check-host).\n");
	put(&t, "  The guest stays paused in 'internal-error'; a reset starts it again.");
}
