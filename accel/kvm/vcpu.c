/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes vCPUs, runs them and decodes why they stopped (Linux: Documentation/virt/kvm/api.rst,
 * KVM_RUN and struct kvm_run). On the vCPU's thread, kicks from any.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "accel/kvm/kvm.h"

static _Atomic uint8_t *immediate_exit(struct kvm_vcpu *kv)
{
	return (_Atomic uint8_t *)&kv->run->immediate_exit;
}

struct vcpu *kvm_vcpu_create(struct accel *a, unsigned index, uint32_t apic_id, struct error **err)
{
	struct kvm_accel *k = to_kvm(a);
	struct kvm_vcpu *kv;

	/* The first vCPU is the one that boots; KVM takes the number 0 for it unless told. */
	if (!index && apic_id)
		kvm_ioctl_value(k->vm_fd, KVM_SET_BOOT_CPU_ID, apic_id);
	if (!kvm_irqchip_create(k, err))
		return NULL;
	kv = xcalloc(1, sizeof(*kv));
	kv->accel = k;
	kv->base.accel = a;
	kv->base.index = index;
	kv->base.apic_id = apic_id;
	kv->pristine = true;
	kv->extint = -1;
	kv->fd = kvm_ioctl_value(k->vm_fd, KVM_CREATE_VCPU, apic_id);
	if (kv->fd < 0) {
		error_set_errno(err, kv->fd, "KVM cannot create CPU %u (APIC ID %u)", index,
				apic_id);
		goto fail;
	}
	kv->run = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, kv->fd, 0);
	if (kv->run == MAP_FAILED) {
		error_set_errno(err, errno, "cannot map the run area of CPU %u", index);
		goto fail_fd;
	}
	kv->next = k->vcpus;
	k->vcpus = kv;
	return &kv->base;
fail_fd:
	close(kv->fd);
fail:
	free(kv);
	return NULL;
}

void kvm_vcpu_destroy(struct vcpu *v)
{
	struct kvm_vcpu *kv = to_kvm_vcpu(v);

	for (struct kvm_vcpu **p = &kv->accel->vcpus; *p; p = &(*p)->next) {
		if (*p == kv) {
			*p = kv->next;
			break;
		}
	}
	munmap(kv->run, kv->accel->run_size);
	close(kv->fd);
	free(kv);
}

void kvm_vcpu_kick(struct vcpu *v)
{
	/* The flag catches a thread that is about to enter, the signal one that is inside. */
	atomic_store(immediate_exit(to_kvm_vcpu(v)), 1);
	if (v->thread_started)
		pthread_kill(v->thread, VCPU_SIGNAL);
}

static void decode_io(struct kvm_run *run, struct vcpu_exit *exit)
{
	exit->kind = VCPU_EXIT_IO;
	exit->io.port = run->io.port;
	exit->io.size = run->io.size;
	exit->io.write = run->io.direction == KVM_EXIT_IO_OUT;
	exit->io.count = run->io.count;
	exit->io.data = (uint8_t *)run + run->io.data_offset;
}

static void decode_mmio(struct kvm_run *run, struct vcpu_exit *exit)
{
	exit->kind = VCPU_EXIT_MMIO;
	exit->mmio.addr = run->mmio.phys_addr;
	exit->mmio.data = run->mmio.data;
	exit->mmio.len = run->mmio.len;
	exit->mmio.write = run->mmio.is_write;
}

static void decode_msr(struct kvm_run *run, struct vcpu_exit *exit)
{
	exit->kind = run->exit_reason == KVM_EXIT_X86_RDMSR ? VCPU_EXIT_MSR_READ :
							      VCPU_EXIT_MSR_WRITE;
	exit->msr.index = run->msr.index;
	exit->msr.value = run->msr.data;
	exit->msr.refused = &run->msr.error;
	exit->msr.result = (uint64_t *)&run->msr.data;
}

static enum vcpu_exit_kind system_event(const struct kvm_run *run)
{
	switch (run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		return VCPU_EXIT_POWEROFF;
	case KVM_SYSTEM_EVENT_RESET:
		return VCPU_EXIT_RESET;
	case KVM_SYSTEM_EVENT_CRASH:
		return VCPU_EXIT_CRASH;
	}
	return VCPU_EXIT_INTERNAL_ERROR;
}

static void decode(struct kvm_run *run, struct vcpu_exit *exit)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		decode_io(run, exit);
		break;
	case KVM_EXIT_MMIO:
		decode_mmio(run, exit);
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		decode_msr(run, exit);
		break;
	case KVM_EXIT_IOAPIC_EOI:
		exit->kind = VCPU_EXIT_EOI;
		exit->eoi_vector = run->eoi.vector;
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR:
	case KVM_EXIT_TPR_ACCESS:
	case KVM_EXIT_X86_BUS_LOCK:
		exit->kind = VCPU_EXIT_INTR;
		break;
	case KVM_EXIT_HLT:
		exit->kind = VCPU_EXIT_HLT;
		break;
	case KVM_EXIT_SHUTDOWN:
		exit->kind = VCPU_EXIT_SHUTDOWN;
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		exit->kind = system_event(run);
		break;
	case KVM_EXIT_DEBUG:
		exit->kind = VCPU_EXIT_DEBUG;
		break;
	case KVM_EXIT_NOTIFY:
		exit->kind = run->notify.flags & KVM_NOTIFY_CONTEXT_INVALID ?
				     VCPU_EXIT_INTERNAL_ERROR :
				     VCPU_EXIT_INTR;
		break;
	default:
		exit->kind = VCPU_EXIT_INTERNAL_ERROR;
	}
}

/*
 * An 8259 of the board's at LINT0 (Linux: api.rst, KVM_INTERRUPT and struct kvm_run). KVM says after
 * each run whether the guest and its local APIC take such an interrupt now; if not, it is told to
 * come back when they do. A kick can be quicker than KVM's delivery of the vector that it has; then
 * it takes no other yet.
 */
static void offer_extint(struct kvm_vcpu *kv)
{
	const struct vcpu_irq_ops *ops = kv->base.irq_ops;
	void *opaque = kv->base.irq_opaque;
	bool waiting = kv->extint >= 0 || ops->extint_pending(opaque);

	if (waiting && kv->run->ready_for_interrupt_injection) {
		struct kvm_interrupt intr;

		if (kv->extint < 0)
			kv->extint = ops->extint_acknowledge(opaque);
		intr.irq = kv->extint;
		if (kvm_ioctl(kv->fd, KVM_INTERRUPT, &intr) != -EEXIST)
			kv->extint = -1;
		waiting = kv->extint >= 0 || ops->extint_pending(opaque);
	}
	kv->run->request_interrupt_window = waiting;
}

static void run(struct kvm_vcpu *kv, struct vcpu_exit *exit)
{
	kv->pristine = false;
	if (!ioctl(kv->fd, KVM_RUN, 0)) {
		kv->run_errno = 0;
		decode(kv->run, exit);
		return;
	}
	kv->run_errno = errno;
	if (errno == EINTR) {
		/* Whoever kicked set its own flag before: clear ours, then that is looked at. */
		atomic_store(immediate_exit(kv), 0);
		exit->kind = VCPU_EXIT_INTR;
	} else if (errno == EAGAIN) {
		/* A CPU that waited for its start-up message got it. */
		exit->kind = VCPU_EXIT_INTR;
	} else {
		exit->kind = VCPU_EXIT_INTERNAL_ERROR;
	}
}

void kvm_vcpu_run(struct vcpu *v, struct vcpu_exit *exit)
{
	struct kvm_vcpu *kv = to_kvm_vcpu(v);

	if (v->irq_ops && v->irq_ops->extint_pending)
		offer_extint(kv);
	run(kv, exit);
}

bool kvm_vcpu_complete_io(struct vcpu *v, struct vcpu_exit *exit)
{
	struct kvm_vcpu *kv = to_kvm_vcpu(v);

	/* KVM finishes what an exit began before it looks at the flag. */
	atomic_store(immediate_exit(kv), 1);
	run(kv, exit);
	return exit->kind != VCPU_EXIT_INTR;
}
