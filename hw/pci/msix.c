/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MSI-X: PCI Local Bus 3.0, 6.8.2. Table and pending bits are memory of the device, written by vCPU
 * threads; a vector in use is an eventfd that is bound to its message while it may be delivered.
 *
 * All under msi_lock, but for the eventfds: those may be written at any time, by anybody. What is
 * written while no route is bound stays in the eventfd, which then is the pending bit; binding
 * delivers it.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

enum {
	ENTRY_ADDRESS = 0,
	ENTRY_DATA = 8,
	ENTRY_CONTROL = 12,
	CONTROL_MASK = 1,
	CAP_SIZE = 12,
};

static struct msi_msg vector_message(const struct pci_msix_vector *vec)
{
	return (struct msi_msg){
		/* Bits 1:0 of the address are always zero. */
		.addr = load_le64(vec->entry + ENTRY_ADDRESS) & ~UINT64_C(3),
		.data = load_le32(vec->entry + ENTRY_DATA),
	};
}

static bool notifier_is_set(const struct pci_msix_vector *vec)
{
	struct pollfd p = {.fd = vec->notifier.fd, .events = POLLIN};

	return vec->notifier.fd >= 0 && poll(&p, 1, 0) > 0;
}

static bool vector_is_pending(const struct pci_msix_vector *vec)
{
	/* A bound eventfd is emptied by whom it is bound to. */
	return vec->pending || (!vec->direct && notifier_is_set(vec));
}

static void vector_bind(struct pci_device *dev, struct pci_msix_vector *vec)
{
	struct msi_sink *sink = dev->dev.vm->msi;
	struct msi_msg msg = vector_message(vec);
	int ret;

	if (vec->routed) {
		if (vec->routed_msg.addr == msg.addr && vec->routed_msg.data == msg.data)
			return;
		ret = sink->ops->route_update(sink, &vec->route, msg);
		if (ret < 0) {
			vec->direct = false;
			vec->routed = false;
			sink->ops->route_remove(sink, &vec->route);
		}
	} else if (!dev->msix.no_routes && sink->ops->route_add) {
		ret = sink->ops->route_add(sink, &vec->route, vec->notifier.fd, msg,
					   pci_requester_id(dev));
		vec->routed = ret == 0;
		vec->direct = ret == 0;
	} else {
		ret = -ENOSYS;
	}
	if (ret == -ENOSYS)
		dev->msix.no_routes = true;
	else if (ret < 0)
		log_guest_error(&dev->log,
				"%s: an MSI-X vector has no route (%s) and takes a slower way",
				device_label(&dev->dev), strerror(-ret));
	if (ret == 0)
		vec->routed_msg = msg;
}

static void vector_unbind(struct pci_device *dev, struct pci_msix_vector *vec)
{
	struct msi_sink *sink = dev->dev.vm->msi;

	vec->direct = false;
	if (vec->routed)
		sink->ops->route_remove(sink, &vec->route);
	vec->routed = false;
}

static void vector_send(struct pci_device *dev, struct pci_msix_vector *vec)
{
	if (vec->direct)
		event_notifier_set(&vec->notifier);
	else
		msi_send(dev->dev.vm->msi, vector_message(vec), pci_requester_id(dev));
}

/* Brings the route into step with what the guest wrote. */
static void vector_update(struct pci_device *dev, struct pci_msix_vector *vec)
{
	struct pci_msix *msix = &dev->msix;

	vec->live = msix->enabled && msix->may_send && !msix->function_masked &&
		    !(vec->entry[ENTRY_CONTROL] & CONTROL_MASK);
	if (!vec->live) {
		vector_unbind(dev, vec);
		return;
	}
	if (vec->users)
		vector_bind(dev, vec);
	else
		vector_unbind(dev, vec);
	if (!vec->direct && vec->notifier.fd >= 0 && event_notifier_test_and_clear(&vec->notifier))
		vec->pending = true;
	if (vec->pending) {
		vec->pending = false;
		vector_send(dev, vec);
	}
}

static void vector_forget(struct pci_msix_vector *vec)
{
	vec->pending = false;
	if (vec->notifier.fd >= 0)
		event_notifier_test_and_clear(&vec->notifier);
}

/* No msi_lock held: tells the device whose vectors changed. */
static void tell(struct pci_device *dev, unsigned first, unsigned count)
{
	const struct pci_device_ops *ops = dev->info->ops;

	if (!ops || !ops->msix_changed)
		return;
	for (unsigned v = first; v < first + count; v++) {
		struct pci_msix_vector *vec = &dev->msix.vectors[v];
		bool changed;

		pthread_mutex_lock(&dev->msi_lock);
		changed = vec->told_live != vec->live;
		vec->told_live = vec->live;
		pthread_mutex_unlock(&dev->msi_lock);
		if (changed)
			ops->msix_changed(dev, v);
	}
}

void pci_msix_sync(struct pci_device *dev, bool may_send)
{
	struct pci_msix *msix = &dev->msix;
	uint16_t flags;
	bool enabled, masked, disabled_now;

	if (!msix->pos)
		return;
	flags = pci_get16(dev->config + msix->pos + PCI_MSIX_FLAGS);
	enabled = flags & PCI_MSIX_FLAGS_ENABLE;
	masked = flags & PCI_MSIX_FLAGS_MASKALL;
	pthread_mutex_lock(&dev->msi_lock);
	if (msix->enabled == enabled && msix->function_masked == masked &&
	    msix->may_send == may_send) {
		pthread_mutex_unlock(&dev->msi_lock);
		return;
	}
	disabled_now = msix->enabled && !enabled;
	atomic_store_explicit(&msix->enabled, enabled, memory_order_release);
	msix->function_masked = masked;
	msix->may_send = may_send;
	msi_batch_begin(dev->dev.vm->msi);
	for (uint32_t v = 0; v < msix->count; v++) {
		vector_update(dev, &msix->vectors[v]);
		if (disabled_now)
			vector_forget(&msix->vectors[v]);
	}
	msi_batch_end(dev->dev.vm->msi);
	pthread_mutex_unlock(&dev->msi_lock);
	tell(dev, 0, msix->count);
}

/* Configuration space is as after reset; pci_msix_sync() follows. */
void pci_msix_reset(struct pci_device *dev)
{
	pthread_mutex_lock(&dev->msi_lock);
	for (uint32_t v = 0; v < dev->msix.count; v++) {
		struct pci_msix_vector *vec = &dev->msix.vectors[v];

		memset(vec->entry, 0, sizeof(vec->entry));
		vec->entry[ENTRY_CONTROL] = CONTROL_MASK;
		vector_update(dev, vec);
		vector_forget(vec);
	}
	pthread_mutex_unlock(&dev->msi_lock);
	tell(dev, 0, dev->msix.count);
}

/* The table and the pending bits in their BARs. Other than aligned accesses are undefined there:
 * they read as all ones and write nothing. */

static uint64_t table_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_device *dev = opaque;
	uint64_t value;

	if (offset & (size - 1) || offset / PCI_MSIX_ENTRY_SIZE >= dev->msix.count)
		return UINT64_MAX;
	pthread_mutex_lock(&dev->msi_lock);
	value = load_le(dev->msix.vectors[offset / PCI_MSIX_ENTRY_SIZE].entry +
				offset % PCI_MSIX_ENTRY_SIZE,
			size);
	pthread_mutex_unlock(&dev->msi_lock);
	return value;
}

static void table_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_device *dev = opaque;
	unsigned v = offset / PCI_MSIX_ENTRY_SIZE, at = offset % PCI_MSIX_ENTRY_SIZE;
	struct pci_msix_vector *vec;

	if (offset & (size - 1) || v >= dev->msix.count)
		return;
	vec = &dev->msix.vectors[v];
	pthread_mutex_lock(&dev->msi_lock);
	store_le(vec->entry + at, size, value);
	/* All but the mask is reserved. */
	store_le32(vec->entry + ENTRY_CONTROL,
		   load_le32(vec->entry + ENTRY_CONTROL) & CONTROL_MASK);
	vector_update(dev, vec);
	pthread_mutex_unlock(&dev->msi_lock);
	tell(dev, v, 1);
}

static uint64_t pba_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_device *dev = opaque;
	uint64_t bits = 0;

	if (offset & (size - 1))
		return UINT64_MAX;
	pthread_mutex_lock(&dev->msi_lock);
	for (unsigned i = 0; i < 8 * size && 8 * offset + i < dev->msix.count; i++)
		bits |= (uint64_t)vector_is_pending(&dev->msix.vectors[8 * offset + i]) << i;
	pthread_mutex_unlock(&dev->msi_lock);
	return bits;
}

static const struct io_ops table_ops = {.read = table_read, .write = table_write};
static const struct io_ops pba_ops = {.read = pba_read};

static uint64_t pba_size(unsigned vectors)
{
	return div_round_up(vectors, 64) * 8;
}

bool pci_msix_init(struct pci_device *dev, unsigned vectors, unsigned table_bar,
		   uint64_t table_offset, unsigned pba_bar, uint64_t pba_offset, struct error **err)
{
	struct pci_msix *msix = &dev->msix;
	uint8_t *c;

	assert(vectors && vectors <= PCI_MSIX_MAX_VECTORS && !msix->pos);
	assert(!(table_offset & 7) && !(pba_offset & 7));
	msix->pos = pci_add_capability(dev, PCI_CAP_MSIX, 0, CAP_SIZE);
	if (!msix->pos) {
		error_set(err, "%s: no room for the MSI-X capability", device_label(&dev->dev));
		return false;
	}
	msix->count = vectors;
	msix->vectors = xcalloc(vectors, sizeof(*msix->vectors));
	for (unsigned v = 0; v < vectors; v++) {
		msix->vectors[v].entry[ENTRY_CONTROL] = CONTROL_MASK;
		msix->vectors[v].notifier.fd = -1;
	}
	c = dev->config + msix->pos;
	pci_set16(c + PCI_MSIX_FLAGS, vectors - 1);
	pci_set16(dev->wmask + msix->pos + PCI_MSIX_FLAGS,
		  PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	pci_set32(c + PCI_MSIX_TABLE, table_offset | table_bar);
	pci_set32(c + PCI_MSIX_PBA, pba_offset | pba_bar);
	msix->table.io = (struct io_region){.size = (uint64_t)vectors * PCI_MSIX_ENTRY_SIZE,
					    .ops = &table_ops,
					    .opaque = dev,
					    .name = "msix-table",
					    .priority = 15,
					    .max_access = 4};
	msix->pba.io = (struct io_region){.size = pba_size(vectors),
					  .ops = &pba_ops,
					  .opaque = dev,
					  .name = "msix-pba",
					  .priority = 15};
	pci_bar_add_region(dev, table_bar, table_offset, &msix->table);
	pci_bar_add_region(dev, pba_bar, pba_offset, &msix->pba);
	return true;
}

bool pci_msix_init_exclusive(struct pci_device *dev, unsigned vectors, unsigned bar,
			     struct error **err)
{
	uint64_t table = (uint64_t)vectors * PCI_MSIX_ENTRY_SIZE, size = 4096;
	uint64_t half;

	/* Half for the table, half for the pending bits. */
	while (size / 2 < table)
		size *= 2;
	half = size / 2;
	pci_bar_init(dev, bar, PCI_BAR_MEM32, size);
	return pci_msix_init(dev, vectors, bar, 0, bar, half, err);
}

void pci_msix_exit(struct pci_device *dev)
{
	struct pci_msix *msix = &dev->msix;

	for (uint32_t v = 0; v < msix->count; v++) {
		vector_unbind(dev, &msix->vectors[v]);
		if (msix->vectors[v].notifier.fd >= 0)
			event_notifier_destroy(&msix->vectors[v].notifier);
	}
	free(msix->vectors);
	memset(msix, 0, sizeof(*msix));
}

/* For the device. */

bool pci_msix_masked(struct pci_device *dev, unsigned v)
{
	bool live;

	if (v >= dev->msix.count)
		return true;
	pthread_mutex_lock(&dev->msi_lock);
	live = dev->msix.vectors[v].live;
	pthread_mutex_unlock(&dev->msi_lock);
	return !live;
}

int pci_msix_vector_use(struct pci_device *dev, unsigned v)
{
	struct pci_msix_vector *vec;
	int ret = 0;

	if (v >= dev->msix.count)
		return -EINVAL;
	vec = &dev->msix.vectors[v];
	pthread_mutex_lock(&dev->msi_lock);
	if (vec->notifier.fd < 0) {
		ret = event_notifier_init(&vec->notifier);
		if (ret < 0)
			vec->notifier.fd = -1;
	}
	if (!ret && vec->users++ == 0)
		vector_update(dev, vec);
	pthread_mutex_unlock(&dev->msi_lock);
	return ret;
}

void pci_msix_vector_unuse(struct pci_device *dev, unsigned v)
{
	struct pci_msix_vector *vec;

	if (v >= dev->msix.count)
		return;
	vec = &dev->msix.vectors[v];
	pthread_mutex_lock(&dev->msi_lock);
	if (vec->users && --vec->users == 0)
		vector_update(dev, vec);
	pthread_mutex_unlock(&dev->msi_lock);
}

int pci_msix_vector_fd(struct pci_device *dev, unsigned v)
{
	int fd = -1;

	if (v >= dev->msix.count)
		return -1;
	pthread_mutex_lock(&dev->msi_lock);
	if (!dev->msix.no_routes && dev->dev.vm->msi->ops->route_add)
		fd = dev->msix.vectors[v].notifier.fd;
	pthread_mutex_unlock(&dev->msi_lock);
	return fd;
}

void pci_msix_notify(struct pci_device *dev, unsigned v)
{
	struct pci_msix_vector *vec;

	if (v >= dev->msix.count)
		return;
	vec = &dev->msix.vectors[v];
	if (atomic_load_explicit(&vec->direct, memory_order_acquire)) {
		event_notifier_set(&vec->notifier);
		return;
	}
	pthread_mutex_lock(&dev->msi_lock);
	if (vec->live)
		vector_send(dev, vec);
	else if (dev->msix.enabled)
		vec->pending = true;
	pthread_mutex_unlock(&dev->msi_lock);
}

/* State. A signal that waits in an eventfd is saved as the pending bit that it is. */

void pci_msix_pre_save(struct pci_device *dev)
{
	pthread_mutex_lock(&dev->msi_lock);
	for (uint32_t v = 0; v < dev->msix.count; v++) {
		struct pci_msix_vector *vec = &dev->msix.vectors[v];

		if (!vec->direct && vec->notifier.fd >= 0 &&
		    event_notifier_test_and_clear(&vec->notifier))
			vec->pending = true;
	}
	pthread_mutex_unlock(&dev->msi_lock);
}

/* Loaded entries: what is reserved is zero; routes follow when the device's own are loaded. */
void pci_msix_restored(struct pci_device *dev)
{
	pthread_mutex_lock(&dev->msi_lock);
	for (uint32_t v = 0; v < dev->msix.count; v++) {
		struct pci_msix_vector *vec = &dev->msix.vectors[v];

		store_le32(vec->entry + ENTRY_CONTROL,
			   load_le32(vec->entry + ENTRY_CONTROL) & CONTROL_MASK);
		vector_update(dev, vec);
	}
	pthread_mutex_unlock(&dev->msi_lock);
	tell(dev, 0, dev->msix.count);
}

const struct state_desc pci_msix_vector_state = {
	.name = "msix-vector",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_BUFFER(struct pci_msix_vector, entry),
			STATE_FIELD(struct pci_msix_vector, pending, STATE_BOOL),
			{.type = STATE_END},
		},
};
