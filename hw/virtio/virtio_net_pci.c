/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net on PCI: the three devices that a user may add. virtio 1.2, sections 4.1 and 5.1.
 * Thread: main. Owner: the PCI bus it sits on.
 */
#include "hw/virtio/virtio_net.h"

#include "vmm/core/util.h"

#define CLASS_ETHERNET 0x020000

static struct virtio_net_pci *of(struct device *dev)
{
	return (struct virtio_net_pci *)dev;
}

static bool realize(struct device *dev, struct error **err)
{
	struct virtio_net_pci *d = of(dev);

	if (!virtio_net_realize(&d->net, dev->vm, device_label(dev), err))
		return false;
	/* Firmware knows no network of its own. */
	if (d->net.bootindex >= 0)
		d->vpci.default_rom = "efi-virtio.rom";
	if (!virtio_pci_init(&d->vpci, &d->net.vdev, CLASS_ETHERNET, err)) {
		virtio_exit(&d->net.vdev);
		virtio_net_unrealize(&d->net);
		return false;
	}
	if (virtio_net_attach(&d->net, err))
		return true;
	virtio_pci_exit(&d->vpci);
	virtio_net_unrealize(&d->net);
	return false;
}

static void unrealize(struct device *dev)
{
	struct virtio_net_pci *d = of(dev);

	virtio_close(&d->net.vdev);
	virtio_net_detach(&d->net);
	virtio_pci_exit(&d->vpci);
	virtio_net_unrealize(&d->net);
}

static const struct prop_set props[] = {
	PCI_DEVICE_PROPS,
	{virtio_pci_props, 0},
	{virtio_pci_mode_props, 0},
	{virtio_props, offsetof(struct virtio_net_pci, net.vdev)},
	{virtio_net_props, offsetof(struct virtio_net_pci, net)},
	{NULL, 0},
};

static const struct prop_set props_fixed_mode[] = {
	PCI_DEVICE_PROPS,
	{virtio_pci_props, 0},
	{virtio_props, offsetof(struct virtio_net_pci, net.vdev)},
	{virtio_net_props, offsetof(struct virtio_net_pci, net)},
	{NULL, 0},
};

static void pre_save(void *object)
{
	virtio_net_save(&((struct virtio_net_pci *)object)->net);
}

static bool post_load(void *object, unsigned version, struct error **err)
{
	return virtio_net_load(&((struct virtio_net_pci *)object)->net, err);
}

static const struct state_field state_fields[] = {
	{.name = "virtio-pci",
	 .type = STATE_STRUCT,
	 .offset = offsetof(struct virtio_net_pci, vpci),
	 .size = sizeof(struct virtio_pci),
	 .desc = &virtio_pci_state},
	{.name = "card",
	 .type = STATE_STRUCT,
	 .offset = offsetof(struct virtio_net_pci, net.saved),
	 .size = sizeof(struct virtio_net_saved),
	 .desc = &virtio_net_saved_state},
	{.type = STATE_END},
};

static const struct state_desc net_state = {
	.name = "virtio-net",
	.version = 1,
	.fields = state_fields,
	.pre_save = pre_save,
	.post_load = post_load,
};

#define COMMON                                                                                     \
	.bus = "pci", .size = sizeof(struct virtio_net_pci), .state = &net_state,                  \
	.hotpluggable = true, .realize = realize, .reset = virtio_pci_reset,                       \
	.unplug = pci_device_unplug, .unrealize = unrealize

const struct device_desc virtio_net_pci_desc = {
	.name = "virtio-net-pci",
	.alias = "virtio-net",
	.help = "virtio network device",
	.props = props,
	COMMON,
};

const struct device_desc virtio_net_pci_non_transitional_desc = {
	.name = "virtio-net-pci-non-transitional",
	.help = "virtio network device, modern only",
	.props = props_fixed_mode,
	.init = virtio_pci_set_modern_only,
	COMMON,
};

const struct device_desc virtio_net_pci_transitional_desc = {
	.name = "virtio-net-pci-transitional",
	.help = "virtio network device, modern and legacy",
	.props = props_fixed_mode,
	.init = virtio_pci_set_transitional,
	COMMON,
};
