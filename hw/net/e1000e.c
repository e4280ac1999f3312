/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e1000e: the PCI function of an 82574L (8086:10d3; 82574 datasheet, chapter 9), its properties,
 * its state, the link, its life. e1000e.h tells where the rest is.
 *
 * Thread: main, but for configuration hooks, which are the vCPUs'. Owner: the PCI bus it sits on.
 */
#include "hw/net/e1000e.h"

#include <stdlib.h>

#include "vmm/core/util.h"

enum {
	SERIAL_NUMBER_SIZE = 12, /* of the capability */
	MSI_VECTORS = 1,
};

static struct e1000e *of(struct device *dev)
{
	return (struct e1000e *)dev;
}

static struct evloop *loop_of(const struct e1000e *d)
{
	return d->pci.dev.vm->loop;
}

/* ---- configuration space ---- */

/* Bus mastering, and how interrupts leave: what waited for either goes on. */
static void config_written(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
	struct e1000e *d = (struct e1000e *)dev;

	if (!ranges_overlap(offset, size, PCI_COMMAND, 2) || !pci_device_is_master(dev))
		return;
	evloop_post(loop_of(d), &d->tx_work);
	evloop_post(loop_of(d), &d->rx_work);
}

static const struct pci_device_ops ops = {.config_written = config_written};

static bool add_capabilities(struct e1000e *d, struct error **err)
{
	struct pci_device *pci = &d->pci;
	enum pcie_type type = pci_bus_is_root(pci->bus) ? PCIE_RC_ENDPOINT : PCIE_ENDPOINT;
	const uint8_t *mac = d->first_mac;
	uint16_t serial;

	if (!pci_pm_init(pci, err) || !pci_msi_init(pci, MSI_VECTORS, false, err) ||
	    !pci_msix_init(pci, E1000E_VECTORS, E1000E_BAR_MSIX, 0, E1000E_BAR_MSIX,
			   E1000E_MSIX_PBA, err))
		return false;
	if (!d->info.express)
		return true;
	if (!pcie_cap_init(pci, type, 0, err))
		return false;
	/* The address as an EUI-64. */
	serial = pci_add_ext_capability(pci, PCI_EXT_CAP_DSN, 1, SERIAL_NUMBER_SIZE);
	if (serial) {
		pci_set32(pci->config + serial + 4,
			  mac[5] | mac[4] << 8 | mac[3] << 16 | 0xffu << 24);
		pci_set32(pci->config + serial + 8,
			  0xff | mac[2] << 8 | mac[1] << 16 | (uint32_t)mac[0] << 24);
	}
	return true;
}

static void add_bars(struct e1000e *d)
{
	d->regs_region.io = (struct io_region){.size = E1000E_REGS_SIZE,
					       .ops = &e1000e_regs_ops,
					       .opaque = d,
					       .name = "e1000e",
					       .max_access = 4};
	d->io_region.io = (struct io_region){
		.size = E1000E_IO_SIZE, .ops = &e1000e_io_ops, .opaque = d, .name = "e1000e-io"};
	pci_bar_init(&d->pci, E1000E_BAR_REGS, PCI_BAR_MEM32, E1000E_REGS_SIZE);
	pci_bar_add_region(&d->pci, E1000E_BAR_REGS, 0, &d->regs_region);
	/* Erased: nothing answers, all ones. */
	pci_bar_init(&d->pci, E1000E_BAR_FLASH, PCI_BAR_MEM32, E1000E_FLASH_SIZE);
	pci_bar_init(&d->pci, E1000E_BAR_IO, PCI_BAR_IO, E1000E_IO_SIZE);
	pci_bar_add_region(&d->pci, E1000E_BAR_IO, 0, &d->io_region);
	pci_bar_init(&d->pci, E1000E_BAR_MSIX, PCI_BAR_MEM32, E1000E_MSIX_SIZE);
}

/* ---- the link, and who asks for it ---- */

static void link_changed(void *opaque, bool up)
{
	struct e1000e *d = opaque;

	pthread_mutex_lock(&d->lock);
	d->link_up = up;
	e1000e_phy_negotiate(d);
	pthread_mutex_unlock(&d->lock);
	/* Both ends may have waited for one another meanwhile. */
	d->rx.starved = true;
	e1000e_tx_writable(d, 0);
}

static void announce(void *opaque)
{
	struct e1000e *d = opaque;

	evloop_post(loop_of(d), &d->announce_work);
}

static char *info(void *opaque)
{
	struct e1000e *d = opaque;
	uint8_t m[8];

	pthread_mutex_lock(&d->lock);
	store_le64(m, e1000e_get64(d, E1000E_RAL));
	pthread_mutex_unlock(&d->lock);
	return xasprintf("model=e1000e,macaddr=%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2],
			 m[3], m[4], m[5]);
}

static void state_changed(struct notifier *n, void *data)
{
	struct e1000e *d = container_of(n, struct e1000e, state_changed);

	evloop_post(loop_of(d), &d->tx_work);
	evloop_post(loop_of(d), &d->rx_work);
}

static bool attach(struct e1000e *d, struct error **err)
{
	struct netdev *nd = d->netdev;
	struct evloop *loop = loop_of(d);

	d->link_up = true;
	if (!nd)
		return true;
	d->peer = (struct net_peer){
		.buffers = e1000e_rx_buffers,
		.received = e1000e_rx_received,
		.writable = e1000e_tx_writable,
		.link_changed = link_changed,
		.name = device_label(&d->pci.dev),
		.info = info,
		.announce = announce,
		.opaque = d,
	};
	if (nd->vnet_hdr_max && !d->disable_vnet_hdr)
		d->host_hdr = MIN((unsigned)VIRTIO_NET_HDR_PLAIN, nd->vnet_hdr_max);
	if (!net_attach(nd, &d->peer, &loop, 1, err)) {
		d->netdev = NULL;
		return false;
	}
	d->link_up = net_link(nd);
	if (d->host_hdr) {
		net_set_vnet_hdr(nd, d->host_hdr);
		/* Sums that were left out are made here, and those that were checked are not
		 * checked again. */
		net_set_offloads(nd, nd->offloads_able & NET_OFFLOAD_CSUM);
	}
	return true;
}

static void detach(struct e1000e *d)
{
	struct netdev *nd = d->netdev;

	if (nd && d->host_hdr) {
		net_set_offloads(nd, 0);
		net_set_vnet_hdr(nd, 0);
	}
	if (nd)
		net_detach(nd);
	d->netdev = NULL;
}

/* ---- life ---- */

static void power_on(struct e1000e *d)
{
	pthread_mutex_lock(&d->lock);
	d->io_addr = 0;
	e1000e_nvm_init(d, d->first_mac);
	e1000e_regs_reset(d);
	/* There was time enough. */
	d->negotiated = d->link_up;
	e1000e_phy_reset(d);
	pthread_mutex_unlock(&d->lock);
}

static bool check_props(const struct e1000e *d, struct error **err)
{
	if (d->first_mac[0] & 1) {
		error_set(err, "'mac' must be the address of one card, not of a group");
		return false;
	}
	if (d->netdev && d->netdev->peer) {
		error_set(err, "Property 'netdev' can't take value '%s', it's in use",
			  d->netdev->id);
		return false;
	}
	return true;
}

static void identify(struct e1000e *d)
{
	d->info = (struct pci_info){
		.vendor_id = 0x8086,
		.device_id = 0x10d3,
		.subsystem_vendor_id = d->subsystem_vendor,
		.subsystem_id = d->subsystem,
		.class_code = 0x020000,
		.intx_pin = 1,
		.express = d->pci.bus->express,
		/* Firmware knows no network of its own. */
		.default_rom = d->bootindex >= 0 ? "efi-e1000e.rom" : NULL,
		.ops = &ops,
	};
}

static void start_works(struct e1000e *d)
{
	ev_work_init(&d->tx_work, e1000e_tx_work, d);
	ev_work_init(&d->rx_work, e1000e_rx_work, d);
	ev_work_init(&d->timer_work, e1000e_irq_arm, d);
	ev_work_init(&d->announce_work, e1000e_tx_announce, d);
	ev_timer_init(&d->irq_timer, e1000e_irq_arm, d);
	ev_timer_init(&d->link_timer, e1000e_phy_timer, d);
	d->state_changed.fn = state_changed;
	notifier_add(&d->pci.dev.vm->state_changed, &d->state_changed);
}

static void end_works(struct e1000e *d)
{
	struct evloop *loop = loop_of(d);

	notifier_remove(&d->pci.dev.vm->state_changed, &d->state_changed);
	evloop_unpost(loop, &d->tx_work);
	evloop_unpost(loop, &d->rx_work);
	evloop_unpost(loop, &d->timer_work);
	evloop_unpost(loop, &d->announce_work);
	evloop_timer_cancel(loop, &d->irq_timer);
	evloop_timer_cancel(loop, &d->link_timer);
}

static void free_all(struct e1000e *d)
{
	pci_device_exit(&d->pci);
	end_works(d);
	e1000e_tx_destroy(d);
	e1000e_rx_destroy(d);
	net_mac_release(d->pci.dev.vm, d->first_mac);
}

static bool realize(struct device *dev, struct error **err)
{
	struct e1000e *d = of(dev);

	if (!check_props(d, err))
		return false;
	identify(d);
	if (!pci_device_init(&d->pci, &d->info, err))
		return false;
	net_mac_take(dev->vm, d->first_mac);
	d->guest_errors = LOG_RATELIMIT;
	e1000e_tx_init(d);
	e1000e_rx_init(d);
	start_works(d);
	add_bars(d);
	if (!add_capabilities(d, err) || !attach(d, err)) {
		free_all(d);
		return false;
	}
	power_on(d);
	return true;
}

static void unrealize(struct device *dev)
{
	struct e1000e *d = of(dev);

	detach(d);
	free_all(d);
}

static void reset(struct device *dev)
{
	struct e1000e *d = of(dev);

	pci_device_reset(&d->pci);
	power_on(d);
}

static void init(struct device *dev)
{
	pthread_mutex_init(&of(dev)->lock, NULL);
}

static void destroy(struct device *dev)
{
	pthread_mutex_destroy(&of(dev)->lock);
}

/* ---- properties ---- */

static const struct prop props[] = {
	{.name = "mac",
	 .type = PROP_MAC,
	 .offset = offsetof(struct e1000e, first_mac),
	 .help = "the card's address; none: the next free one from 52:54:00:12:34:56 on"},
	{.name = "netdev",
	 .type = PROP_NETDEV,
	 .offset = offsetof(struct e1000e, netdev),
	 .help = "the network; none: packets are lost"},
	{.name = "bootindex",
	 .type = PROP_I32,
	 .offset = offsetof(struct e1000e, bootindex),
	 .def = "-1",
	 .help = "place in the boot order; negative: none"},
	{.name = "disable_vnet_hdr",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct e1000e, disable_vnet_hdr),
	 .def = "off",
	 .help = "checksums and segments are made here, not left to the netdev"},
	{.name = "subsys_ven",
	 .type = PROP_U16,
	 .offset = offsetof(struct e1000e, subsystem_vendor),
	 .def = "0x8086",
	 .help = "PCI subsystem vendor id"},
	{.name = "subsys",
	 .type = PROP_U16,
	 .offset = offsetof(struct e1000e, subsystem),
	 .def = "0",
	 .help = "PCI subsystem id"},
	{.type = PROP_END},
};

/* ---- state ---- */

static const struct state_field context_fields[] = {
	STATE_FIELD(struct e1000e_context, ip_start, STATE_U8),
	STATE_FIELD(struct e1000e_context, ip_sum, STATE_U8),
	STATE_FIELD(struct e1000e_context, l4_start, STATE_U8),
	STATE_FIELD(struct e1000e_context, l4_sum, STATE_U8),
	STATE_FIELD(struct e1000e_context, ip_end, STATE_U16),
	STATE_FIELD(struct e1000e_context, l4_end, STATE_U16),
	STATE_FIELD(struct e1000e_context, header_len, STATE_U8),
	STATE_FIELD(struct e1000e_context, mss, STATE_U16),
	STATE_FIELD(struct e1000e_context, ipv4, STATE_BOOL),
	STATE_FIELD(struct e1000e_context, tcp, STATE_BOOL),
	{.type = STATE_END},
};

static const struct state_desc context_state = {
	.name = "e1000e-context",
	.version = 1,
	.fields = context_fields,
};

/* A packet whose bytes were read and not sent is lost, as networks lose them. */
static const struct state_field tx_fields[] = {
	{.name = "context",
	 .type = STATE_STRUCT,
	 .offset = offsetof(struct e1000e_tx, context),
	 .size = sizeof(struct e1000e_context),
	 .desc = &context_state},
	STATE_FIELD(struct e1000e_tx, gathering, STATE_BOOL),
	{.type = STATE_END},
};

static const struct state_desc tx_state = {
	.name = "e1000e-tx",
	.version = 1,
	.fields = tx_fields,
};

static bool post_load(void *object, unsigned version, struct error **err)
{
	struct e1000e *d = object;

	pthread_mutex_lock(&d->lock);
	d->epoch++;
	for (unsigned i = 0; i < E1000E_QUEUES; i++) {
		d->tx[i].ready = d->tx[i].waiting = false;
		d->tx[i].lost = d->tx[i].gathering;
		d->tx[i].len = 0;
	}
	e1000e_regs_loaded(d);
	memset(d->quiet_until, 0, sizeof(d->quiet_until));
	e1000e_irq_again(d);
	e1000e_phy_loaded(d);
	pthread_mutex_unlock(&d->lock);
	evloop_post(loop_of(d), &d->timer_work);
	evloop_post(loop_of(d), &d->tx_work);
	evloop_post(loop_of(d), &d->rx_work);
	return true;
}

static void pre_save(void *object)
{
	struct e1000e *d = object;

	pthread_mutex_lock(&d->lock);
	e1000e_regs_save(d);
	pthread_mutex_unlock(&d->lock);
}

static const struct state_field state_fields[] = {
	PCI_DEVICE_STATE,
	STATE_ARRAY(struct e1000e, regs, STATE_U32),
	STATE_FIELD(struct e1000e, io_addr, STATE_U32),
	STATE_ARRAY(struct e1000e, nvm, STATE_U16),
	{.name = "phy",
	 .type = STATE_U16,
	 .offset = offsetof(struct e1000e, phy),
	 .count = E1000E_PHY_PAGES * E1000E_PHY_REGS},
	STATE_FIELD(struct e1000e, negotiated, STATE_BOOL),
	STATE_FIELD(struct e1000e, time_value, STATE_U64),
	STATE_FIELD(struct e1000e, time_increment, STATE_U32),
	STATE_FIELD(struct e1000e, time_latched, STATE_U32),
	STATE_ARRAY(struct e1000e, postponed, STATE_BOOL),
	{.name = "tx",
	 .type = STATE_STRUCT,
	 .offset = offsetof(struct e1000e, tx),
	 .size = sizeof(struct e1000e_tx),
	 .count = E1000E_QUEUES,
	 .desc = &tx_state},
	{.type = STATE_END},
};

static const struct state_desc state = {
	.name = "e1000e",
	.version = 1,
	.fields = state_fields,
	.pre_save = pre_save,
	.post_load = post_load,
};

const struct device_desc e1000e_desc = {
	.name = "e1000e",
	.help = "Intel 82574L network card",
	.bus = "pci",
	.size = sizeof(struct e1000e),
	.props = (const struct prop_set[]){PCI_DEVICE_PROPS, {.props = props}, {0}},
	.state = &state,
	.hotpluggable = true,
	.init = init,
	.realize = realize,
	.reset = reset,
	.unplug = pci_device_unplug,
	.unrealize = unrealize,
	.destroy = destroy,
};
