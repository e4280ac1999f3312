/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells served by the kernel (Linux: Documentation/virt/kvm/api.rst, KVM_IOEVENTFD): a guest's
 * write becomes a write to an eventfd without leaving the kernel. Any thread, under the bus's lock.
 */
#include <errno.h>

#include "accel/kvm/kvm.h"

static int ioeventfd(struct kvm_doorbell_bus *bus, const struct io_doorbell *db, uint32_t flags)
{
	struct kvm_ioeventfd io = {
		.addr = db->addr,
		.len = db->size,
		.fd = db->fd,
		.flags = flags,
	};

	if (!db->size && (db->match || !bus->accel->any_length_doorbells))
		return -ENOTSUP;
	if (bus->pio)
		io.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (db->match) {
		io.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
		io.datamatch = db->value;
	}
	return kvm_ioctl(bus->accel->vm_fd, KVM_IOEVENTFD, &io);
}

static int doorbell_add(void *opaque, const struct io_doorbell *db)
{
	return ioeventfd(opaque, db, 0);
}

static void doorbell_remove(void *opaque, const struct io_doorbell *db)
{
	ioeventfd(opaque, db, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

const struct io_doorbell_ops kvm_doorbell_ops = {
	.add = doorbell_add,
	.remove = doorbell_remove,
};
