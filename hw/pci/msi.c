/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Message signalled interrupts: PCI Local Bus 3.0, 6.8.1. The guest's registers are in
 * configuration space; what a sender needs of them is copied under msi_lock when they change.
 */
#include <assert.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

enum {
	MSI_DATA = 12, /* with 64-bit addresses, as here */
	MSI_MASK = 16,
	MSI_SIZE = 14,
	MSI_SIZE_MASKABLE = 24,
	MSI_VECTORS_MAX = 32,
};

bool pci_msi_init(struct pci_device *dev, unsigned vectors, bool maskable, struct error **err)
{
	struct pci_msi *msi = &dev->msi;
	unsigned log2 = __builtin_ctz(vectors);
	uint8_t *c, *w;

	assert(is_pow2(vectors) && vectors <= MSI_VECTORS_MAX && !msi->pos);
	msi->pos = pci_add_capability(dev, PCI_CAP_MSI, 0, maskable ? MSI_SIZE_MASKABLE : MSI_SIZE);
	if (!msi->pos) {
		error_set(err, "%s: no room for the MSI capability", device_label(&dev->dev));
		return false;
	}
	msi->maskable = maskable;
	c = dev->config + msi->pos;
	w = dev->wmask + msi->pos;
	pci_set16(c + PCI_MSI_FLAGS,
		  PCI_MSI_FLAGS_64BIT | (maskable ? PCI_MSI_FLAGS_MASKBIT : 0) | log2 << 1);
	pci_set16(w + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	pci_set32(w + PCI_MSI_ADDRESS, 0xfffffffc);
	pci_set32(w + PCI_MSI_ADDRESS + 4, 0xffffffff);
	pci_set16(w + MSI_DATA, 0xffff);
	if (maskable)
		pci_set32(w + MSI_MASK, UINT32_MAX >> (32 - vectors));
	return true;
}

/* msi_lock held. The low bits of the data tell the vectors apart. */
static void send_vector(struct pci_device *dev, unsigned v)
{
	struct msi_msg msg = dev->msi.msg;

	msg.data = (msg.data & ~((1u << dev->msi.granted_log2) - 1)) | v;
	msi_send(dev->dev.vm->msi, msg, pci_requester_id(dev));
}

void pci_msi_sync(struct pci_device *dev, bool may_send)
{
	struct pci_msi *msi = &dev->msi;
	const uint8_t *c = dev->config + msi->pos;
	uint16_t flags;
	uint32_t due;

	if (!msi->pos)
		return;
	flags = pci_get16(c + PCI_MSI_FLAGS);
	pthread_mutex_lock(&dev->msi_lock);
	msi->enabled = flags & PCI_MSI_FLAGS_ENABLE;
	/* Guests may ask for more than is offered: they get what is offered. */
	msi->granted_log2 = MIN((flags & PCI_MSI_FLAGS_QSIZE) >> 4,
				(flags & PCI_MSI_FLAGS_QMASK) >> 1);
	msi->msg.addr = pci_get32(c + PCI_MSI_ADDRESS) |
			(uint64_t)pci_get32(c + PCI_MSI_ADDRESS + 4) << 32;
	msi->msg.data = pci_get16(c + MSI_DATA);
	msi->mask = msi->maskable ? pci_get32(c + MSI_MASK) : 0;
	if (!msi->enabled)
		msi->pending = 0;
	if (!may_send)
		msi->mask = UINT32_MAX;
	due = msi->pending & ~msi->mask;
	msi->pending &= ~due;
	for (; due; due &= due - 1)
		if ((unsigned)__builtin_ctz(due) < 1u << msi->granted_log2)
			send_vector(dev, __builtin_ctz(due));
	pthread_mutex_unlock(&dev->msi_lock);
}

void pci_msi_reset(struct pci_device *dev)
{
	pthread_mutex_lock(&dev->msi_lock);
	dev->msi.pending = 0;
	pthread_mutex_unlock(&dev->msi_lock);
}

uint32_t pci_msi_pending(struct pci_device *dev)
{
	uint32_t pending;

	pthread_mutex_lock(&dev->msi_lock);
	pending = dev->msi.pending;
	pthread_mutex_unlock(&dev->msi_lock);
	return pending;
}

bool pci_msi_enabled(struct pci_device *dev)
{
	return atomic_load_explicit(&dev->msi.enabled, memory_order_acquire);
}

unsigned pci_msi_vectors(struct pci_device *dev)
{
	unsigned n;

	pthread_mutex_lock(&dev->msi_lock);
	n = dev->msi.enabled ? 1u << dev->msi.granted_log2 : 0;
	pthread_mutex_unlock(&dev->msi_lock);
	return n;
}

void pci_msi_notify(struct pci_device *dev, unsigned v)
{
	struct pci_msi *msi = &dev->msi;

	pthread_mutex_lock(&dev->msi_lock);
	if (msi->enabled && v < 1u << msi->granted_log2) {
		if (msi->mask >> v & 1)
			msi->pending |= 1u << v;
		else
			send_vector(dev, v);
	}
	pthread_mutex_unlock(&dev->msi_lock);
}
