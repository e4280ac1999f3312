/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share; others include pci.h. */
#ifndef HW_PCI_INTERNAL_H
#define HW_PCI_INTERNAL_H

#include "hw/pci/pci.h"

/* A header of type 1 and the bus behind it. Bridges' structs begin with it. */
struct pci_bridge {
	struct pci_device pci;
	struct pci_bus secondary;
	bool bus_reset_held;
};

/* config.c: one register access of a device that was found. Under root->lock. */
uint32_t pci_device_config_read(struct pci_device *dev, unsigned offset, unsigned size);
void pci_device_config_write(struct pci_device *dev, unsigned offset, uint32_t value,
			     unsigned size);
/* Whether [offset, offset + size) touches [reg, reg + len). */
static inline bool pci_touches(unsigned offset, unsigned size, unsigned reg, unsigned len)
{
	return offset < reg + len && reg < offset + size;
}

/* device.c. All under root->lock. */
/* Makes what follows from configuration space: decoding, interrupts, the command register's copy.
 */
void pci_device_sync(struct pci_device *dev);
/* Whether it is there for the guest and in D0. */
bool pci_device_is_awake(const struct pci_device *dev);
/* A reset by function or by bus: silent at once, desc->reset on the main loop. */
void pci_device_begin_reset(struct pci_device *dev);
/* Bars, interrupts and resets of all devices below a bus. */
void pci_bus_sync(struct pci_bus *bus);
void pci_bus_begin_reset(struct pci_bus *bus);

/* bar.c */
unsigned pci_bar_register(const struct pci_device *dev, unsigned n);
bool pci_rom_init(struct pci_device *dev, struct error **err);

/* bridge.c */
bool pci_bridge_init(struct pci_bridge *br, const struct pci_info *info, bool express,
		     struct error **err);
void pci_bridge_exit(struct pci_bridge *br);
void pci_bridge_config_written(struct pci_device *dev, unsigned offset, unsigned size);
/* Whether it passes [addr, addr + size) on to its secondary side. Under root->lock. */
bool pci_bridge_forwards(const struct pci_device *dev, bool io, uint64_t addr, uint64_t size);
bool pci_bridge_passes_config(struct pci_device *dev);
extern const struct state_desc pci_bridge_state;
#define PCI_BRIDGE_STATE                                                                           \
	{                                                                                          \
		.name = "bridge", .type = STATE_STRUCT, .offset = 0,                               \
		.size = sizeof(struct pci_bridge), .desc = &pci_bridge_state                       \
	}

/* intx.c; level and pin as the guest reads them. Under root->lock. */
void pci_intx_set_allowed(struct pci_device *dev, bool allowed);
bool pci_intx_level(struct pci_device *dev);
/* The root's input that the device's pin leads to; it has a pin, and the root knows where to. */
unsigned pci_intx_input(const struct pci_device *dev);
void pci_intx_restored(struct pci_device *dev);

/* msi.c, msix.c. Under root->lock; may_send: bus mastering is on and the device is awake. */
void pci_msi_sync(struct pci_device *dev, bool may_send);
void pci_msi_reset(struct pci_device *dev);
uint32_t pci_msi_pending(struct pci_device *dev);
void pci_msix_sync(struct pci_device *dev, bool may_send);
void pci_msix_reset(struct pci_device *dev);
void pci_msix_exit(struct pci_device *dev);
extern const struct state_desc pci_msix_vector_state;
void pci_msix_pre_save(struct pci_device *dev);
void pci_msix_restored(struct pci_device *dev);

#endif
