/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux KVM as a guest CPU engine (Linux: Documentation/virt/kvm/api.rst). Included by this folder
 * and by the table of engines.
 *
 * Files: kvm.c opens and closes; memory.c slots; irq.c interrupt controllers, routes and irqfds;
 * doorbell.c ioeventfds; vcpu.c runs and decodes exits; report.c says what went wrong; x86.c state.
 *
 * Locks, each a leaf: slot_lock (slots), irq_lock (routes).
 */
#ifndef ACCEL_KVM_KVM_H
#define ACCEL_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "accel/accel.h"
#include "accel/x86.h"
#include "vmm/core/util.h"

extern const struct accel_desc kvm_accel_desc;

enum {
	KVM_IOAPIC_NR_PINS = 24,
	KVM_PIC_NR_PINS = 16,
	KVM_FIRST_FREE_GSI = KVM_IOAPIC_NR_PINS,
};

/* Three pages for a task state segment and one of page tables, for real mode on Intel's processors
 * that cannot run it; the board's map of the last 20 MiB below 4 GiB leaves them free. */
#define KVM_IDENTITY_MAP_ADDR UINT64_C(0xfeffc000)
#define KVM_TSS_ADDR UINT64_C(0xfeffd000)

struct kvm_slot {
	uint64_t gpa, size;
	void *hva;
	uint32_t flags; /* ACCEL_MEM_* */
	uint32_t id;	/* the kernel's number */
};

/* One message that the kernel can send by itself: MSI route or I/O APIC pin. */
struct kvm_gsi {
	bool used;
	bool routed; /* msg is to be in the kernel's table */
	struct msi_msg msg;
	struct msi_route *waiting; /* its irqfd is bound once the table is in the kernel */
};

struct kvm_doorbell_bus {
	struct kvm_accel *accel;
	bool pio;
};

struct kvm_accel {
	struct accel base;
	int fd;	   /* /dev/kvm */
	int vm_fd;
	size_t run_size; /* bytes of a vCPU's run area */
	size_t xsave_size;
	bool any_length_doorbells;
	bool irqchip_created;
	bool started;	  /* vCPUs have run: state is no longer that of power-on */

	pthread_mutex_t slot_lock;
	struct kvm_slot *slots; /* sorted by gpa */
	size_t slot_count, slot_space, slot_max;
	uint64_t *slot_ids; /* bit set: taken; slot_space bits */

	pthread_mutex_t irq_lock;
	struct kvm_gsi *gsis; /* by GSI */
	unsigned gsi_count, gsi_max;
	struct kvm_irq_routing *table; /* scratch, grown with gsis */
	unsigned batch; /* depth of batch_owner's */
	pthread_t batch_owner;
	bool table_stale; /* gsis differ from the kernel's table */

	struct kvm_doorbell_bus pio, mmio;

	bool clock_stopped, clock_valid;
	uint64_t clock_ns; /* while stopped */

	struct kvm_vcpu *vcpus;
};

struct kvm_vcpu {
	struct vcpu base;
	struct kvm_accel *accel;
	int fd;
	struct kvm_run *run;
	bool pristine; /* registers that reset_rest() writes are as KVM made them */
	int extint;    /* vector taken from the board's 8259 and not from us yet, or -1 */
	int run_errno; /* why KVM_RUN failed, if it did */
	struct kvm_vcpu *next;
};

static inline struct kvm_accel *to_kvm(struct accel *a)
{
	return container_of(a, struct kvm_accel, base);
}

static inline struct kvm_vcpu *to_kvm_vcpu(struct vcpu *v)
{
	return container_of(v, struct kvm_vcpu, base);
}

/* ioctl() that gives -errno and goes on after signals. */
int kvm_ioctl(int fd, unsigned long request, void *arg);
int kvm_ioctl_value(int fd, unsigned long request, unsigned long arg);
/* The capability's value; 0 where it is missing. */
int kvm_check(struct kvm_accel *k, int cap);
/* Opens /dev/kvm and checks its version; makes a virtual machine. A descriptor, or -1 with a remedy
 * in err. check-host asks too. */
int kvm_open_device(struct error **err);
int kvm_create_vm(int fd, struct error **err);

/* memory.c */
int kvm_mem_map(struct accel *a, uint64_t gpa, uint64_t size, void *hva, uint32_t flags);
int kvm_mem_unmap(struct accel *a, uint64_t gpa, uint64_t size);
int kvm_dirty_get(struct accel *a, uint64_t gpa, uint64_t size, uint64_t *bitmap);
/* Copies what a guest sees at gpa; the number of bytes, fewer at the end of memory. Any thread. */
size_t kvm_mem_peek(struct kvm_accel *k, uint64_t gpa, void *buf, size_t len);
void kvm_mem_destroy(struct kvm_accel *k);

/* irq.c */
extern const struct msi_sink_ops kvm_msi_ops;
void kvm_irq_init(struct kvm_accel *k);
/* Makes the interrupt controllers, which must be there before the first vCPU and are better made
 * after the memory slots. */
bool kvm_irqchip_create(struct kvm_accel *k, struct error **err);
int kvm_irq_set(struct accel *a, unsigned gsi, bool level);
void kvm_gsi_line_set(struct irq_line *line, bool level);
int kvm_irqfd_add(struct accel *a, int fd, unsigned gsi, int resample);
int kvm_irqfd_remove(struct accel *a, int fd, unsigned gsi);
void kvm_irq_destroy(struct kvm_accel *k);

/* doorbell.c */
extern const struct io_doorbell_ops kvm_doorbell_ops;

/* vcpu.c */
struct vcpu *kvm_vcpu_create(struct accel *a, unsigned index, uint32_t apic_id, struct error **err);
void kvm_vcpu_destroy(struct vcpu *v);
void kvm_vcpu_run(struct vcpu *v, struct vcpu_exit *exit);
void kvm_vcpu_kick(struct vcpu *v);
bool kvm_vcpu_complete_io(struct vcpu *v, struct vcpu_exit *exit);

/* report.c */
void kvm_vcpu_report(struct vcpu *v, char *buf, size_t len);

/* x86.c */
extern const struct accel_x86_ops kvm_x86_ops;

#endif
