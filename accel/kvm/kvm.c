/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens KVM, makes the virtual machine, and takes both down (Linux:
 * Documentation/virt/kvm/api.rst, sections 4.1 to 4.4). Main thread.
 *
 * The order of calls is chosen for a quick start: interrupt controllers and doorbells register on
 * the kernel's I/O bus, which leaves a lazy grace period behind; a change of memory slots waits
 * for it (7 to 17 ms measured). So controllers are made by the first vCPU, doorbells at the first
 * resume, and memory comes before both.
 */
#include "accel/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accel/kvm/caps.h"

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int ret;

	do
		ret = ioctl(fd, request, arg);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : ret;
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long arg)
{
	return kvm_ioctl(fd, request, (void *)arg);
}

int kvm_check(struct kvm_accel *k, int cap)
{
	int ret = kvm_ioctl_value(k->vm_fd, KVM_CHECK_EXTENSION, cap);

	return ret < 0 ? 0 : ret;
}

static void access_error(struct error **err)
{
	struct stat st;
	const struct group *group = NULL;

	if (!stat("/dev/kvm", &st) && (st.st_mode & S_IWGRP) && st.st_gid)
		group = getgrgid(st.st_gid);
	if (group)
		error_set(err, "no right to use /dev/kvm: put the user into the group '%s' "
			       "(usermod -aG %s USER) and log in again",
			  group->gr_name, group->gr_name);
	else
		error_set(err, "no right to use /dev/kvm: run as root, or let a group use it "
			       "(chgrp kvm /dev/kvm; chmod 660 /dev/kvm) and put the user into it");
}

int kvm_open_device(struct error **err)
{
	int fd, version;

	do
		fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd < 0) {
		if (errno == EACCES || errno == EPERM)
			access_error(err);
		else if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
			error_set(err, "there is no /dev/kvm: load the module (modprobe kvm_intel "
				       "or kvm_amd) and enable virtualization in the firmware");
		else
			error_set_errno(err, errno, "/dev/kvm");
		return -1;
	}
	version = kvm_ioctl_value(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		if (version < 0)
			error_set_errno(err, version, "/dev/kvm is not KVM's device");
		else
			error_set(err,
				  "/dev/kvm speaks version %d of KVM's interface instead of %d: "
				  "another kernel is needed",
				  version, KVM_API_VERSION);
		close(fd);
		return -1;
	}
	return fd;
}

int kvm_create_vm(int fd, struct error **err)
{
	int vm = kvm_ioctl_value(fd, KVM_CREATE_VM, 0);

	if (vm >= 0)
		return vm;
	switch (vm) {
	case -EBUSY:
		error_set(err, "the processor's virtualization is in use by another hypervisor: "
			       "stop it (VirtualBox, VMware, ...) first");
		break;
	case -EOPNOTSUPP:
	case -ENODEV:
		error_set(err, "KVM cannot use this processor's virtualization: "
			       "enable it in the firmware");
		break;
	default:
		error_set_errno(err, vm, "KVM cannot create a virtual machine");
	}
	return -1;
}

static bool check_caps(struct kvm_accel *k, struct error **err)
{
	for (const struct kvm_cap *c = kvm_caps; c->name; c++) {
		if (c->need == KVM_CAP_NICE ||
		    (c->need == KVM_CAP_NEEDED_SPLIT && k->base.config.irqchip != IRQCHIP_SPLIT))
			continue;
		if (!kvm_check(k, c->number)) {
			error_set_class(err, ERROR_KVM_MISSING_CAP,
					"this kernel's KVM lacks %s (%s): a newer kernel is needed",
					c->name, c->use);
			return false;
		}
	}
	return true;
}

static bool set_up(struct kvm_accel *k, struct error **err)
{
	uint64_t identity = KVM_IDENTITY_MAP_ADDR;
	int ret, max;

	if (!check_caps(k, err))
		return false;

	max = kvm_check(k, KVM_CAP_MAX_VCPUS);
	if (!max)
		max = kvm_check(k, KVM_CAP_NR_VCPUS);
	if (k->base.config.max_cpus > (unsigned)max) {
		error_set(err, "%u CPUs are more than this host's KVM allows (%d)",
			  k->base.config.max_cpus, max);
		return false;
	}
	if (k->base.config.irqchip == IRQCHIP_KERNEL && k->base.config.pit &&
	    !kvm_check(k, KVM_CAP_PIT2)) {
		error_set(err, "this kernel's KVM has no PIT: use -machine kernel_irqchip=split");
		return false;
	}

	ret = kvm_ioctl_value(k->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (ret < (int)sizeof(struct kvm_run)) {
		error_set_errno(err, ret < 0 ? ret : -EINVAL, "KVM_GET_VCPU_MMAP_SIZE");
		return false;
	}
	k->run_size = ret;

	ret = kvm_ioctl(k->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (!ret)
		ret = kvm_ioctl_value(k->vm_fd, KVM_SET_TSS_ADDR, KVM_TSS_ADDR);
	if (ret) {
		error_set_errno(err, ret, "KVM_SET_TSS_ADDR");
		return false;
	}

	ret = kvm_check(k, KVM_CAP_NR_MEMSLOTS);
	k->slot_max = ret ? ret : 32;
	ret = kvm_check(k, KVM_CAP_IRQ_ROUTING);
	k->gsi_max = ret;
	k->any_length_doorbells = kvm_check(k, KVM_CAP_IOEVENTFD_ANY_LENGTH);
	return true;
}

static void destroy(struct accel *a)
{
	struct kvm_accel *k = to_kvm(a);

	if (k->vm_fd >= 0)
		close(k->vm_fd);
	if (k->fd >= 0)
		close(k->fd);
	kvm_irq_destroy(k);
	kvm_mem_destroy(k);
	free(k);
}

static int clock_get(struct accel *a, uint64_t *ns)
{
	struct kvm_accel *k = to_kvm(a);
	struct kvm_clock_data data = { 0 };
	int ret;

	if (k->clock_stopped && k->clock_valid) {
		*ns = k->clock_ns;
		return 0;
	}
	ret = kvm_ioctl(k->vm_fd, KVM_GET_CLOCK, &data);
	*ns = data.clock;
	return ret;
}

static int clock_set(struct accel *a, uint64_t ns)
{
	struct kvm_accel *k = to_kvm(a);
	struct kvm_clock_data data = { .clock = ns };

	if (k->clock_stopped) {
		k->clock_ns = ns;
		k->clock_valid = true;
		return 0;
	}
	return kvm_ioctl(k->vm_fd, KVM_SET_CLOCK, &data);
}

static void pause_clock(struct accel *a)
{
	struct kvm_accel *k = to_kvm(a);

	if (k->clock_stopped)
		return;
	k->clock_valid = !clock_get(a, &k->clock_ns);
	k->clock_stopped = true;
}

/* The kernel's 8254 runs on while the machine stands and would make up for all of its ticks at once:
 * loaded anew, it forgets them. Only where it ticks: a single shot would come twice. */
static void forget_ticks(struct kvm_accel *k)
{
	struct kvm_pit_state2 pit;

	if (k->base.config.irqchip != IRQCHIP_KERNEL || !k->base.config.pit ||
	    kvm_ioctl(k->vm_fd, KVM_GET_PIT2, &pit))
		return;
	if (pit.channels[0].mode == 2 || pit.channels[0].mode == 3)
		kvm_ioctl(k->vm_fd, KVM_SET_PIT2, &pit);
}

static void resume_clock(struct accel *a)
{
	struct kvm_accel *k = to_kvm(a);

	if (!k->started) {
		k->started = true;
		io_bus_set_doorbell_ops(&a->vm->pio, &kvm_doorbell_ops, &k->pio);
		io_bus_set_doorbell_ops(&a->vm->mmio, &kvm_doorbell_ops, &k->mmio);
	}
	if (!k->clock_stopped)
		return;
	k->clock_stopped = false;
	if (!k->clock_valid)
		return;
	clock_set(a, k->clock_ns);
	forget_ticks(k);
	/* Tells guests that use the clock, so that their watchdogs forgive; others refuse it. */
	for (struct kvm_vcpu *v = k->vcpus; v; v = v->next)
		kvm_ioctl_value(v->fd, KVM_KVMCLOCK_CTRL, 0);
}

static const struct accel_ops kvm_ops = {
	.destroy = destroy,
	.mem_map = kvm_mem_map,
	.mem_unmap = kvm_mem_unmap,
	.dirty_get = kvm_dirty_get,
	.vcpu_create = kvm_vcpu_create,
	.vcpu_destroy = kvm_vcpu_destroy,
	.vcpu_run = kvm_vcpu_run,
	.vcpu_kick = kvm_vcpu_kick,
	.vcpu_complete_io = kvm_vcpu_complete_io,
	.vcpu_report = kvm_vcpu_report,
	.pause = pause_clock,
	.resume = resume_clock,
	.irq_set = kvm_irq_set,
	.irqfd_add = kvm_irqfd_add,
	.irqfd_remove = kvm_irqfd_remove,
	.clock_get = clock_get,
	.clock_set = clock_set,
	.x86 = &kvm_x86_ops,
};

static struct accel *kvm_open(struct vm *vm, const struct accel_config *config, struct error **err)
{
	struct kvm_accel *k = xcalloc(1, sizeof(*k));

	k->base.ops = &kvm_ops;
	k->base.vm = vm;
	k->base.config = *config;
	k->base.msi.ops = &kvm_msi_ops;
	k->base.msi.opaque = k;
	for (unsigned i = 0; i < ARRAY_SIZE(k->base.gsi); i++)
		k->base.gsi[i] = (struct irq_line){ kvm_gsi_line_set, k, i };
	k->base.reserved_base = KVM_IDENTITY_MAP_ADDR;
	k->base.reserved_size = KVM_TSS_ADDR + 3 * 4096 - KVM_IDENTITY_MAP_ADDR;
	k->pio = (struct kvm_doorbell_bus){ k, true };
	k->mmio = (struct kvm_doorbell_bus){ k, false };
	k->vm_fd = -1;
	k->clock_stopped = true;
	pthread_mutex_init(&k->slot_lock, NULL);
	kvm_irq_init(k);

	k->fd = kvm_open_device(err);
	if (k->fd < 0)
		goto fail;
	k->vm_fd = kvm_create_vm(k->fd, err);
	if (k->vm_fd < 0 || !set_up(k, err))
		goto fail;
	return &k->base;
fail:
	destroy(&k->base);
	return NULL;
}

const struct accel_desc kvm_accel_desc = {
	.name = "kvm",
	.help = "Linux KVM: the processor's own virtualization, through /dev/kvm",
	.open = kvm_open,
};
