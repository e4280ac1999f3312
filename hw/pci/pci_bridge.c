/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bridges to a conventional bus: pci-bridge, itself conventional, and pcie-pci-bridge. PCI-to-PCI
 * Bridge Architecture 1.2; PCI Express to PCI/PCI-X Bridge 1.0.
 */
#include "hw/pci/internal.h"
#include "vmm/core/util.h"

struct conventional_bridge {
	struct pci_bridge br;
	uint8_t chassis_nr;
};

static void unrealize(struct device *dev)
{
	pci_bridge_exit((struct pci_bridge *)dev);
}

static void reset(struct device *dev)
{
	pci_device_reset(pci_device_of(dev));
	((struct pci_bridge *)dev)->bus_reset_held = false;
}

static const struct pci_info pci_bridge_info = {
	.vendor_id = 0x1b36,
	.device_id = 0x0001,
	.class_code = 0x060400,
	.bridge = true,
};

/* Expansion slot register and chassis number: PCI-to-PCI Bridge 1.2, 13. */
static bool slot_id_init(struct pci_device *dev, uint8_t chassis, struct error **err)
{
	uint8_t pos = pci_add_capability(dev, PCI_CAP_SLOT_ID, 0, 4);

	if (!pos) {
		error_set(err, "%s: no room for the slot identification capability",
			  device_label(&dev->dev));
		return false;
	}
	dev->config[pos + 2] = 0x20; /* first in its chassis, no slots that plug */
	dev->config[pos + 3] = chassis;
	dev->wmask[pos + 3] = 0xff;
	return true;
}

static bool pci_bridge_realize(struct device *dev, struct error **err)
{
	struct conventional_bridge *b = (struct conventional_bridge *)dev;

	if (!b->chassis_nr) {
		error_set(err, "chassis_nr is missing: each bridge needs one of its own, above 0");
		return false;
	}
	if (!pci_bridge_init(&b->br, &pci_bridge_info, false, err))
		return false;
	if (!slot_id_init(&b->br.pci, b->chassis_nr, err)) {
		pci_bridge_exit(&b->br);
		return false;
	}
	return true;
}

static const struct prop pci_bridge_props[] = {
	{.name = "chassis_nr",
	 .type = PROP_U8,
	 .offset = offsetof(struct conventional_bridge, chassis_nr),
	 .help = "number of the chassis, above 0"},
	{.type = PROP_END},
};

const struct device_desc pci_bridge_desc = {
	.name = "pci-bridge",
	.help = "Standard PCI bridge",
	.bus = "pci",
	.size = sizeof(struct conventional_bridge),
	.props = (const struct prop_set[]){PCI_DEVICE_PROPS, {.props = pci_bridge_props}, {}},
	.state =
		&(const struct state_desc){
			.name = "pci-bridge",
			.version = 1,
			.fields = (const struct state_field[]){PCI_BRIDGE_STATE,
							       {.type = STATE_END}},
		},
	.realize = pci_bridge_realize,
	.reset = reset,
	.unrealize = unrealize,
};

static const struct pci_info pcie_pci_bridge_info = {
	.vendor_id = 0x1b36,
	.device_id = 0x000e,
	.class_code = 0x060400,
	.express = true,
	.bridge = true,
};

static bool pcie_pci_bridge_realize(struct device *dev, struct error **err)
{
	struct pci_bridge *br = (struct pci_bridge *)dev;

	if (!br->pci.bus->express) {
		error_set(err, "pcie-pci-bridge needs a PCI Express bus, and '%s' is none",
			  br->pci.bus->bus.name);
		return false;
	}
	if (!pci_bridge_init(br, &pcie_pci_bridge_info, false, err))
		return false;
	if (!pci_pm_init(&br->pci, err) || !pcie_cap_init(&br->pci, PCIE_TO_PCI_BRIDGE, 0, err)) {
		pci_bridge_exit(br);
		return false;
	}
	return true;
}

const struct device_desc pcie_pci_bridge_desc = {
	.name = "pcie-pci-bridge",
	.help = "PCI Express to PCI bridge",
	.bus = "pci",
	.size = sizeof(struct pci_bridge),
	.props = (const struct prop_set[]){PCI_DEVICE_PROPS, {}},
	.state =
		&(const struct state_desc){
			.name = "pcie-pci-bridge",
			.version = 1,
			.fields = (const struct state_field[]){PCI_BRIDGE_STATE,
							       {.type = STATE_END}},
		},
	.hotpluggable = true,
	.unplug = pci_device_unplug,
	.realize = pcie_pci_bridge_realize,
	.reset = reset,
	.unrealize = unrealize,
};
