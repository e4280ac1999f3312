/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration accesses: from ports 0xcf8 and 0xcfc or the memory-mapped window, down the bridges
 * to one device's registers. PCI Local Bus 3.0, 3.2.2.3 and 6; PCI Express Base 4.0, 7.2.
 *
 * vCPU threads, one access at a time under root->lock.
 */
#include <string.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

static uint32_t all_ones(unsigned size)
{
	return UINT32_MAX >> (32 - 8 * size);
}

/* One device. */

static uint16_t pm_state(const struct pci_device *dev)
{
	return pci_get16(dev->config + dev->pm_pos + PCI_PM_CTRL) & PCI_PM_CTRL_STATE_MASK;
}

/* Bits that follow from elsewhere at every moment. */
static void refresh_live_bits(struct pci_device *dev, unsigned offset, unsigned size)
{
	if (pci_touches(offset, size, PCI_STATUS, 1)) {
		dev->config[PCI_STATUS] &= ~PCI_STATUS_INTERRUPT;
		if (dev->info->intx_pin && pci_intx_level(dev))
			dev->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	}
	if (dev->msi.pos && dev->msi.maskable && pci_touches(offset, size, dev->msi.pos + 20, 4))
		pci_set32(dev->config + dev->msi.pos + 20, pci_msi_pending(dev));
}

uint32_t pci_device_config_read(struct pci_device *dev, unsigned offset, unsigned size)
{
	const struct pci_device_ops *ops = dev->info->ops;
	uint32_t value;

	refresh_live_bits(dev, offset, size);
	value = load_le(dev->config + offset, size);
	if (ops && ops->config_read)
		value = ops->config_read(dev, offset, size, value);
	return value;
}

/* Function level reset: the bit itself reads as zero. True if one has begun. */
static bool take_flr(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
	unsigned reg = dev->express_pos + PCI_EXP_DEVCTL + 1;

	if (!dev->express_pos || !pci_touches(offset, size, reg, 1) ||
	    !(pci_get32(dev->config + dev->express_pos + PCI_EXP_DEVCAP) & PCI_EXP_DEVCAP_FLR) ||
	    !(value >> (8 * (reg - offset)) & PCI_EXP_DEVCTL_FLR >> 8))
		return false;
	pci_device_begin_reset(dev);
	return true;
}

void pci_device_config_write(struct pci_device *dev, unsigned offset, uint32_t value, unsigned size)
{
	const struct pci_device_ops *ops = dev->info->ops;
	uint16_t old_pm = dev->pm_pos ? pm_state(dev) : 0;

	if (take_flr(dev, offset, size, value))
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = value >> (8 * i), *reg = &dev->config[offset + i];
		uint8_t writable = dev->wmask[offset + i];

		*reg = (*reg & ~writable) | (byte & writable);
		*reg &= ~(byte & dev->w1cmask[offset + i]);
	}
	/* D1 and D2 are not there: such a write changes nothing. */
	if (dev->pm_pos && (pm_state(dev) == 1 || pm_state(dev) == 2)) {
		uint8_t *ctrl = dev->config + dev->pm_pos + PCI_PM_CTRL;

		*ctrl = (*ctrl & ~PCI_PM_CTRL_STATE_MASK) | old_pm;
	}
	pci_device_sync(dev);
	if (dev->info->bridge)
		pci_bridge_config_written(dev, offset, size);
	if (ops && ops->config_written)
		ops->config_written(dev, offset, size, value);
}

/* Which device. */

static struct pci_bus *bus_below(struct pci_bus *bus, uint8_t number)
{
	for (unsigned i = 0; i < PCI_DEVFNS; i++) {
		struct pci_device *dev = bus->devices[i];
		struct pci_bus *below = dev && dev->visible ? pci_bridge_secondary(dev) : NULL;

		if (below && dev->config[PCI_SECONDARY_BUS] &&
		    dev->config[PCI_SECONDARY_BUS] <= number &&
		    dev->config[PCI_SUBORDINATE_BUS] >= number)
			return pci_bridge_passes_config(dev) ? below : NULL;
	}
	return NULL;
}

/* NULL: nobody answers. A conventional bus on the way cannot carry the upper 3840 bytes. */
static struct pci_device *find_device(struct pci_root *root, uint8_t number, uint8_t devfn,
				      unsigned offset)
{
	struct pci_bus *bus = &root->bus;
	struct pci_device *dev;
	bool express = bus->express;

	while (pci_bus_number(bus) != number) {
		bus = bus_below(bus, number);
		if (!bus)
			return NULL;
		express = express && bus->express;
	}
	dev = bus->devices[devfn];
	if (!dev || !dev->visible || dev->resetting || offset >= dev->config_size ||
	    (offset >= PCI_CONFIG_SIZE && !express))
		return NULL;
	return dev;
}

static bool access_is_sound(unsigned offset, unsigned size)
{
	return (size == 1 || size == 2 || size == 4) && offset < PCIE_CONFIG_SIZE &&
	       (offset & 3) + size <= 4;
}

static uint32_t read_locked(struct pci_root *root, uint8_t bus, uint8_t devfn, unsigned offset,
			    unsigned size)
{
	struct pci_device *dev;

	if (!access_is_sound(offset, size))
		return UINT32_MAX;
	dev = find_device(root, bus, devfn, offset);
	return dev ? pci_device_config_read(dev, offset, size) : all_ones(size);
}

static void write_locked(struct pci_root *root, uint8_t bus, uint8_t devfn, unsigned offset,
			 uint32_t value, unsigned size)
{
	struct pci_device *dev;

	if (!access_is_sound(offset, size))
		return;
	dev = find_device(root, bus, devfn, offset);
	if (dev)
		pci_device_config_write(dev, offset, value, size);
}

uint32_t pci_config_read(struct pci_root *root, uint8_t bus, uint8_t devfn, unsigned offset,
			 unsigned size)
{
	uint32_t value;

	pthread_mutex_lock(&root->lock);
	value = read_locked(root, bus, devfn, offset, size);
	pthread_mutex_unlock(&root->lock);
	return value;
}

void pci_config_write(struct pci_root *root, uint8_t bus, uint8_t devfn, unsigned offset,
		      uint32_t value, unsigned size)
{
	pthread_mutex_lock(&root->lock);
	write_locked(root, bus, devfn, offset, value, size);
	pthread_mutex_unlock(&root->lock);
}

/* Ports. */

enum {
	ADDRESS_PORT = 0xcf8,
	DATA_PORT = 0xcfc,
	RESET_PORT = 0xcf9,
};
#define ADDRESS_ENABLE	 UINT32_C(0x80000000)
#define ADDRESS_WRITABLE UINT32_C(0x80fffffc)

static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_root *root = opaque;
	uint32_t value;

	if (size == 1 && ADDRESS_PORT + offset == RESET_PORT && root->reset_port)
		return root->reset_port->read(root->reset_port_opaque, 0, 1);
	if (size != 4)
		return UINT64_MAX;
	pthread_mutex_lock(&root->lock);
	value = root->config_address;
	pthread_mutex_unlock(&root->lock);
	return value;
}

static void address_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_root *root = opaque;

	if (size == 1 && ADDRESS_PORT + offset == RESET_PORT && root->reset_port) {
		root->reset_port->write(root->reset_port_opaque, 0, value, 1);
		return;
	}
	if (size != 4)
		return;
	pthread_mutex_lock(&root->lock);
	root->config_address = value & ADDRESS_WRITABLE;
	pthread_mutex_unlock(&root->lock);
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_root *root = opaque;
	uint32_t address, value = all_ones(size);

	pthread_mutex_lock(&root->lock);
	address = root->config_address;
	if (address & ADDRESS_ENABLE)
		value = read_locked(root, address >> 16, address >> 8, (address & 0xfc) + offset,
				    size);
	pthread_mutex_unlock(&root->lock);
	return value;
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_root *root = opaque;
	uint32_t address;

	pthread_mutex_lock(&root->lock);
	address = root->config_address;
	if (address & ADDRESS_ENABLE)
		write_locked(root, address >> 16, address >> 8, (address & 0xfc) + offset, value,
			     size);
	pthread_mutex_unlock(&root->lock);
}

static const struct io_ops address_ops = {.read = address_read, .write = address_write};
static const struct io_ops data_ops = {.read = data_read, .write = data_write};

bool pci_root_map_ports(struct pci_root *root, struct error **err)
{
	root->address_port = (struct io_region){.base = ADDRESS_PORT,
						.size = 4,
						.ops = &address_ops,
						.opaque = root,
						.name = "pci-config-address"};
	root->data_port = (struct io_region){.base = DATA_PORT,
					     .size = 4,
					     .ops = &data_ops,
					     .opaque = root,
					     .name = "pci-config-data"};
	if (!io_bus_add(&root->vm->pio, &root->address_port, err))
		return false;
	if (!io_bus_add(&root->vm->pio, &root->data_port, err)) {
		io_bus_remove(&root->vm->pio, &root->address_port);
		return false;
	}
	root->ports_mapped = true;
	return true;
}

void pci_root_set_reset_port(struct pci_root *root, const struct io_ops *ops, void *opaque)
{
	root->reset_port = ops;
	root->reset_port_opaque = opaque;
}

/* The memory-mapped window: bus in bits 27:20, device and function in 19:12. */

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
	return pci_config_read(opaque, offset >> 20, offset >> 12, offset & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	pci_config_write(opaque, offset >> 20, offset >> 12, offset & 0xfff, value, size);
}

static const struct io_ops ecam_ops = {.read = ecam_read, .write = ecam_write};

bool pci_root_set_ecam(struct pci_root *root, uint64_t base, uint64_t size, struct error **err)
{
	struct io_bus *mmio = &root->vm->mmio;

	if (root->ecam_mapped) {
		if (root->ecam.base == base && root->ecam.size == size)
			return true;
		io_bus_remove(mmio, &root->ecam);
		root->ecam_mapped = false;
	}
	if (!size)
		return true;
	/* Firmware chooses the place: what the board put there answers first, BARs last. */
	root->ecam = (struct io_region){.base = base,
					.size = size,
					.ops = &ecam_ops,
					.opaque = root,
					.name = "pcie-mmcfg",
					.priority = -2,
					.max_access = 4};
	root->ecam_mapped = io_bus_add(mmio, &root->ecam, err);
	return root->ecam_mapped;
}
