/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk on PCI: the three devices that a user may add. virtio 1.2, sections 4.1 and 5.2.
 * Thread: main. Owner: the PCI bus it sits on.
 */
#include "hw/virtio/virtio_blk.h"

#include "vmm/core/util.h"

#define CLASS_SCSI_STORAGE 0x010000

static struct virtio_blk_pci *of(struct device *dev)
{
	return (struct virtio_blk_pci *)dev;
}

static bool realize(struct device *dev, struct error **err)
{
	struct virtio_blk_pci *d = of(dev);

	if (!virtio_blk_realize(&d->blk, dev->vm, device_label(dev), err))
		return false;
	if (virtio_pci_init(&d->vpci, &d->blk.vdev, CLASS_SCSI_STORAGE, err))
		return true;
	virtio_close(&d->blk.vdev);
	virtio_blk_detach(&d->blk);
	virtio_exit(&d->blk.vdev);
	virtio_blk_unrealize(&d->blk);
	return false;
}

static void unrealize(struct device *dev)
{
	struct virtio_blk_pci *d = of(dev);

	virtio_close(&d->blk.vdev);
	virtio_blk_detach(&d->blk);
	virtio_pci_exit(&d->vpci);
	virtio_blk_unrealize(&d->blk);
}

static const struct prop_set props[] = {
	PCI_DEVICE_PROPS,
	{virtio_pci_props, 0},
	{virtio_pci_mode_props, 0},
	{virtio_props, offsetof(struct virtio_blk_pci, blk.vdev)},
	{virtio_blk_props, offsetof(struct virtio_blk_pci, blk)},
	{NULL, 0},
};

static const struct prop_set props_fixed_mode[] = {
	PCI_DEVICE_PROPS,
	{virtio_pci_props, 0},
	{virtio_props, offsetof(struct virtio_blk_pci, blk.vdev)},
	{virtio_blk_props, offsetof(struct virtio_blk_pci, blk)},
	{NULL, 0},
};

static bool post_load(void *object, unsigned version, struct error **err)
{
	struct virtio_blk_pci *d = object;

	evloop_post(d->blk.vdev.loop, &d->blk.writeback_work);
	return true;
}

static const struct state_field state_fields[] = {
	{.name = "virtio-pci",
	 .type = STATE_STRUCT,
	 .offset = offsetof(struct virtio_blk_pci, vpci),
	 .size = sizeof(struct virtio_pci),
	 .desc = &virtio_pci_state},
	{.name = "writeback",
	 .type = STATE_BOOL,
	 .offset = offsetof(struct virtio_blk_pci, blk.writeback)},
	{.type = STATE_END},
};

static const struct state_desc blk_state = {
	.name = "virtio-blk",
	.version = 1,
	.fields = state_fields,
	.post_load = post_load,
};

#define COMMON                                                                                     \
	.bus = "pci", .size = sizeof(struct virtio_blk_pci), .state = &blk_state,                  \
	.hotpluggable = true, .realize = realize, .reset = virtio_pci_reset,                       \
	.unplug = pci_device_unplug, .unrealize = unrealize

const struct device_desc virtio_blk_pci_desc = {
	.name = "virtio-blk-pci",
	.alias = "virtio-blk",
	.help = "virtio block device",
	.props = props,
	COMMON,
};

const struct device_desc virtio_blk_pci_non_transitional_desc = {
	.name = "virtio-blk-pci-non-transitional",
	.help = "virtio block device, modern only",
	.props = props_fixed_mode,
	.init = virtio_pci_set_modern_only,
	COMMON,
};

const struct device_desc virtio_blk_pci_transitional_desc = {
	.name = "virtio-blk-pci-transitional",
	.help = "virtio block device, modern and legacy",
	.props = props_fixed_mode,
	.init = virtio_pci_set_transitional,
	COMMON,
};
