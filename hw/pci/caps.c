/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capability lists, and the capabilities without an engine behind them: power management (PCI Power
 * Management 1.2, 3.2) and PCI Express (PCI Express Base 4.0, 7.5.3). At realize.
 */
#include <assert.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

uint8_t pci_add_capability(struct pci_device *dev, uint8_t id, uint8_t pos, uint8_t size)
{
	unsigned at = pos ? pos : ALIGN_UP(dev->next_cap, 4);

	if (at < 0x40 || at + size > PCI_CONFIG_SIZE)
		return 0;
	dev->config[at] = id;
	dev->config[at + 1] = dev->config[PCI_CAPABILITY_LIST];
	dev->config[PCI_CAPABILITY_LIST] = at;
	dev->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	dev->next_cap = MAX(dev->next_cap, at + size);
	return at;
}

uint16_t pci_add_ext_capability(struct pci_device *dev, uint16_t id, uint8_t version, uint16_t size)
{
	unsigned at = ALIGN_UP(dev->next_ext_cap, 4);
	uint8_t *last = dev->config + dev->last_ext_cap;

	if (dev->config_size < PCIE_CONFIG_SIZE || at + size > PCIE_CONFIG_SIZE)
		return 0;
	pci_set32(dev->config + at, id | (uint32_t)version << 16);
	if (dev->last_ext_cap)
		pci_set32(last, (pci_get32(last) & 0xfffff) | at << 20);
	dev->last_ext_cap = at;
	dev->next_ext_cap = at + size;
	return at;
}

uint8_t pci_find_capability(const struct pci_device *dev, uint8_t id)
{
	uint8_t at = dev->config[PCI_CAPABILITY_LIST];

	while (at && dev->config[at] != id)
		at = dev->config[at + 1];
	return at;
}

static bool no_room(struct pci_device *dev, const char *what, struct error **err)
{
	error_set(err, "%s: no room for the %s capability", device_label(&dev->dev), what);
	return false;
}

bool pci_pm_init(struct pci_device *dev, struct error **err)
{
	uint8_t pos = pci_add_capability(dev, PCI_CAP_PM, 0, PCI_PM_SIZE);

	if (!pos)
		return no_room(dev, "power management", err);
	dev->pm_pos = pos;
	pci_set16(dev->config + pos + PCI_PM_CAP, 3); /* version 1.2; no D1, no D2, no PME */
	pci_set16(dev->config + pos + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET);
	pci_set16(dev->wmask + pos + PCI_PM_CTRL, PCI_PM_CTRL_STATE_MASK);
	return true;
}

enum {
	LINK_SPEED = 4,			    /* 16 GT/s */
	LINK_WIDTH = 32,		    /* lanes */
	LINK_SPEEDS = 0x1e,		    /* all up to that, as LNKCAP2 counts */
	DEVCTL_WRITABLE = 0x7fff & ~0x0600, /* no phantom functions, no auxiliary power */
	DEVCTL_DEFAULT = 0x2810,	    /* 512-byte reads, no snoop, relaxed ordering */
};

static void link_init(struct pci_device *dev, enum pcie_type type, uint8_t port)
{
	uint8_t *c = dev->config + dev->express_pos, *w = dev->wmask + dev->express_pos;

	pci_set32(c + PCI_EXP_LNKCAP, (uint32_t)port << 24 | LINK_WIDTH << 4 | LINK_SPEED);
	pci_set16(c + PCI_EXP_LNKSTA, LINK_WIDTH << 4 | LINK_SPEED);
	pci_set16(w + PCI_EXP_LNKCTL, 0x00c3); /* ASPM, common clock, extended synch */
	pci_set32(c + PCI_EXP_LNKCAP2, LINK_SPEEDS);
	pci_set16(c + PCI_EXP_LNKCTL2, LINK_SPEED);
	pci_set16(w + PCI_EXP_LNKCTL2, 0x000f);
}

bool pcie_cap_init(struct pci_device *dev, enum pcie_type type, uint8_t port, struct error **err)
{
	uint8_t pos, *c, *w;

	assert(dev->info->express);
	pos = pci_add_capability(dev, PCI_CAP_EXPRESS, 0, PCI_EXP_SIZE);
	if (!pos)
		return no_room(dev, "PCI Express", err);
	dev->express_pos = pos;
	c = dev->config + pos;
	w = dev->wmask + pos;
	pci_set16(c + PCI_EXP_FLAGS, 2 | type << 4);
	pci_set32(c + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER);
	pci_set16(c + PCI_EXP_DEVCTL, DEVCTL_DEFAULT);
	pci_set16(w + PCI_EXP_DEVCTL, DEVCTL_WRITABLE);
	pci_set16(dev->w1cmask + pos + PCI_EXP_DEVSTA, 0x000f);
	if (type == PCIE_ENDPOINT || type == PCIE_LEGACY_ENDPOINT || type == PCIE_RC_ENDPOINT)
		pci_set32(c + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER | PCI_EXP_DEVCAP_FLR);
	if (type != PCIE_RC_ENDPOINT)
		link_init(dev, type, port);
	return true;
}
