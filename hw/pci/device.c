/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common part of every PCI device: header, properties, state, resets.
 * PCI Local Bus 3.0, 6.2; PCI Express Base 4.0, 6.6. Main thread, but for what is said to run under
 * root->lock.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

const struct prop pci_device_props[] = {
	{.name = "addr",
	 .type = PROP_PCI_ADDR,
	 .offset = offsetof(struct pci_device, addr),
	 .help = "slot and function on the bus"},
	{.name = "multifunction",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct pci_device, multifunction),
	 .help = "function 0 of a slot that has others"},
	{.name = "rombar",
	 .type = PROP_U32,
	 .offset = offsetof(struct pci_device, rombar),
	 .def = "1",
	 .help = "0: no expansion ROM"},
	{.name = "romfile",
	 .type = PROP_STRING,
	 .offset = offsetof(struct pci_device, romfile),
	 .help = "file with the expansion ROM, in its directory or where ROMs are installed"},
	{.type = PROP_END},
};

static void header_init(struct pci_device *dev)
{
	const struct pci_info *info = dev->info;
	uint8_t *c = dev->config, *w = dev->wmask;

	pci_set16(c + PCI_VENDOR_ID, info->vendor_id);
	pci_set16(c + PCI_DEVICE_ID, info->device_id);
	pci_set32(c + PCI_REVISION, info->class_code << 8 | info->revision);
	c[PCI_HEADER_TYPE] = info->bridge ? PCI_HEADER_BRIDGE : PCI_HEADER_NORMAL;
	if (dev->multifunction)
		c[PCI_HEADER_TYPE] |= PCI_HEADER_MULTIFUNCTION;
	c[PCI_INTERRUPT_PIN] = info->intx_pin;
	pci_set16(w + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
					   PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
					   (info->intx_pin ? PCI_COMMAND_INTX_DISABLE : 0));
	pci_set16(dev->w1cmask + PCI_STATUS, PCI_STATUS_W1C);
	w[PCI_CACHE_LINE_SIZE] = 0xff;
	w[PCI_INTERRUPT_LINE] = 0xff;
	if (!info->express)
		w[PCI_LATENCY_TIMER] = 0xff;
	if (!info->bridge) {
		pci_set16(c + PCI_SUBSYSTEM_VENDOR_ID, info->subsystem_vendor_id);
		pci_set16(c + PCI_SUBSYSTEM_ID, info->subsystem_id);
	}
}

static void run_reset(void *opaque)
{
	struct pci_device *dev = opaque;

	if (dev->dev.desc->reset)
		dev->dev.desc->reset(&dev->dev);
	else
		pci_device_reset(dev);
}

bool pci_device_init(struct pci_device *dev, const struct pci_info *info, struct error **err)
{
	struct pci_root *root = dev->bus->root;

	assert(!dev->initialised);
	dev->info = info;
	dev->config_size = info->express ? PCIE_CONFIG_SIZE : PCI_CONFIG_SIZE;
	memset(dev->config, 0, sizeof(dev->config));
	dev->wmask = xcalloc(3, dev->config_size);
	dev->w1cmask = dev->wmask + dev->config_size;
	dev->initial = dev->w1cmask + dev->config_size;
	dev->next_cap = 0x40;
	dev->next_ext_cap = PCI_CONFIG_SIZE;
	dev->last_ext_cap = 0;
	dev->intx_level = false;
	dev->intx_allowed = true;
	dev->intx_asserted = -1;
	dev->log = LOG_RATELIMIT;
	for (unsigned n = 0; n <= PCI_ROM_BAR; n++)
		dev->bars[n] = (struct pci_bar){.addr = PCI_UNMAPPED};
	header_init(dev);
	if (!pci_rom_init(dev, err)) {
		free(dev->wmask);
		dev->wmask = NULL;
		return false;
	}
	pthread_mutex_init(&dev->msi_lock, NULL);
	ev_work_init(&dev->reset_work, run_reset, dev);
	pthread_mutex_lock(&root->lock);
	dev->serial = ++root->next_serial;
	dev->initialised = true;
	pthread_mutex_unlock(&root->lock);
	return true;
}

void pci_device_exit(struct pci_device *dev)
{
	struct pci_root *root;
	struct vm *vm = dev->dev.vm;

	if (!dev->initialised)
		return;
	root = dev->bus->root;
	pthread_mutex_lock(&root->lock);
	dev->visible = false;
	dev->resetting = false;
	pci_device_sync(dev);
	dev->initialised = false;
	pthread_mutex_unlock(&root->lock);
	evloop_unpost(vm->loop, &dev->reset_work);
	io_bus_quiesce(&vm->pio);
	io_bus_quiesce(&vm->mmio);
	pci_msix_exit(dev);
	memset(&dev->msi, 0, sizeof(dev->msi));
	dev->pm_pos = dev->express_pos = 0;
	pthread_mutex_destroy(&dev->msi_lock);
	free(dev->rom_data);
	free(dev->wmask);
	dev->rom_data = dev->wmask = dev->w1cmask = dev->initial = NULL;
}

bool pci_device_is_awake(const struct pci_device *dev)
{
	if (!dev->visible || dev->resetting)
		return false;
	return !dev->pm_pos || !(dev->config[dev->pm_pos + PCI_PM_CTRL] & PCI_PM_CTRL_STATE_MASK);
}

void pci_device_sync(struct pci_device *dev)
{
	struct pci_bus *below = pci_bridge_secondary(dev);
	uint16_t command = pci_get16(dev->config + PCI_COMMAND);
	bool awake = pci_device_is_awake(dev);

	if (!dev->initialised)
		return;
	if (below)
		atomic_store_explicit(&below->number, dev->config[PCI_SECONDARY_BUS],
				      memory_order_relaxed);
	if (!awake)
		command &= ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	atomic_store_explicit(&dev->command, command, memory_order_release);
	pci_update_mappings(dev);
	pci_msi_sync(dev, command & PCI_COMMAND_MASTER);
	pci_msix_sync(dev, command & PCI_COMMAND_MASTER);
	pci_intx_set_allowed(dev, awake && !(command & PCI_COMMAND_INTX_DISABLE) &&
					  !dev->msi.enabled && !pci_msix_enabled(dev));
}

void pci_device_reset(struct pci_device *dev)
{
	struct pci_root *root = dev->bus->root;

	/* The one that is going on does for one that was asked for meanwhile. */
	evloop_unpost(dev->dev.vm->loop, &dev->reset_work);
	pthread_mutex_lock(&root->lock);
	dev->resetting = false;
	if (dev->visible)
		memcpy(dev->config, dev->initial, dev->config_size);
	pci_msi_reset(dev);
	pci_msix_reset(dev);
	pci_device_sync(dev);
	pthread_mutex_unlock(&root->lock);
	pci_irq_set(dev, false);
}

void pci_device_begin_reset(struct pci_device *dev)
{
	if (!dev->visible || dev->resetting)
		return;
	dev->resetting = true;
	pci_device_sync(dev);
	evloop_post(dev->dev.vm->loop, &dev->reset_work);
}

bool pci_device_unplug(struct device *d, struct error **err)
{
	struct pci_device *dev = pci_device_of(d);

	if (!dev->bus->hotplug || !dev->bus->hotplug->unplug_request) {
		error_set(err, "Bus '%s' does not support hotplugging", dev->bus->bus.name);
		return false;
	}
	return dev->bus->hotplug->unplug_request(dev->bus, dev, err);
}

uint16_t pci_requester_id(const struct pci_device *dev)
{
	return pci_bus_number(dev->bus) << 8 | dev->devfn;
}

/* State. */

static void pre_save(void *object)
{
	pci_msix_pre_save(object);
}

/* Bits that no guest can write are the device's own, whatever the file says. */
static bool post_load(void *object, unsigned version, struct error **err)
{
	struct pci_device *dev = object;
	struct pci_root *root = dev->bus->root;

	pthread_mutex_lock(&root->lock);
	for (unsigned i = 0; i < dev->config_size; i++) {
		uint8_t theirs = dev->wmask[i] | dev->w1cmask[i];

		dev->config[i] = (dev->config[i] & theirs) | (dev->initial[i] & ~theirs);
	}
	pci_device_sync(dev);
	pci_msix_restored(dev);
	pci_intx_restored(dev);
	if (dev->resetting)
		evloop_post(dev->dev.vm->loop, &dev->reset_work);
	pthread_mutex_unlock(&root->lock);
	return true;
}

const struct state_desc pci_device_state = {
	.name = "pci-device",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct pci_device, resetting, STATE_BOOL),
			STATE_BUFFER(struct pci_device, config),
			STATE_FIELD(struct pci_device, intx_level, STATE_BOOL),
			{.name = "msi_pending",
			 .type = STATE_U32,
			 .offset = offsetof(struct pci_device, msi.pending)},
			{.name = "msix",
			 .type = STATE_PTR,
			 .offset = offsetof(struct pci_device, msix.vectors),
			 .size = sizeof(struct pci_msix_vector),
			 .count = PCI_MSIX_MAX_VECTORS,
			 .count_offset = offsetof(struct pci_device, msix.count),
			 .desc = &pci_msix_vector_state},
			{.type = STATE_END},
		},
	.pre_save = pre_save,
	.post_load = post_load,
};
