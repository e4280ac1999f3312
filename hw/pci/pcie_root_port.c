/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pcie-root-port: a slot of the root complex, with native hotplug. PCI Express Base 4.0, 6.7 and
 * 7.5.3.9 to 7.5.3.12.
 *
 * Plugging in: the card is there (presence) and the attention button is pressed for the guest,
 * which powers the slot, sees the link come up, and enumerates. Taking out: the button is pressed;
 * the guest lets go of the card and powers the slot off, upon which the card is removed on the main
 * loop. A guest that powers the slot off unasked keeps the card, silent until there is power again.
 *
 * Registers under root->lock; the card comes and goes on the main thread.
 */
#include <string.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

struct pcie_root_port {
	struct pci_bridge br;
	uint8_t chassis, port;
	uint16_t slot;
	bool hotplug;

	uint16_t old_control;
	bool event; /* an enabled event waits */
	struct ev_work eject_work;
};

enum {
	INDICATOR_ON = 1,
	INDICATOR_BLINK = 2,
	INDICATOR_OFF = 3,
	POWER_INDICATOR_SHIFT = 8,
	ATTENTION_INDICATOR_SHIFT = 6,
	SLOT_NUMBER_SHIFT = 19,
	SLOT_NUMBER_MAX = 0x1fff,
	SLTCTL_WRITABLE = PCI_EXP_SLTCTL_ABPE | PCI_EXP_SLTCTL_PDCE | PCI_EXP_SLTCTL_CCIE |
			  PCI_EXP_SLTCTL_HPIE | PCI_EXP_SLTCTL_AIC | PCI_EXP_SLTCTL_PIC |
			  PCI_EXP_SLTCTL_PCC | PCI_EXP_SLTCTL_DLLSCE,
	SLTSTA_EVENTS = PCI_EXP_SLTSTA_ABP | PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_CC |
			PCI_EXP_SLTSTA_DLLSC,
};

static struct pcie_root_port *port_of_bus(struct pci_bus *bus)
{
	return container_of(bus, struct pcie_root_port, br.secondary);
}

static uint8_t *express(struct pcie_root_port *rp)
{
	return rp->br.pci.config + rp->br.pci.express_pos;
}

static void set_bits(uint8_t *reg, uint16_t bits, bool on)
{
	uint16_t v = pci_get16(reg);

	pci_set16(reg, on ? v | bits : v & ~bits);
}

static bool slot_is_empty(const struct pcie_root_port *rp)
{
	for (unsigned i = 0; i < PCI_DEVFNS; i++)
		if (rp->br.secondary.devices[i])
			return false;
	return true;
}

static bool powered(struct pcie_root_port *rp)
{
	return !rp->hotplug || !(pci_get16(express(rp) + PCI_EXP_SLTCTL) & PCI_EXP_SLTCTL_PCC);
}

static bool unplug_pending(const struct pcie_root_port *rp)
{
	for (unsigned i = 0; i < PCI_DEVFNS; i++) {
		const struct pci_device *dev = rp->br.secondary.devices[i];

		if (dev && dev->dev.unplug_pending)
			return true;
	}
	return false;
}

/* The interrupt of all slot events together: a message when the first arises, or a level. */
static void update_event(struct pcie_root_port *rp)
{
	uint16_t control = pci_get16(express(rp) + PCI_EXP_SLTCTL);
	uint16_t status = pci_get16(express(rp) + PCI_EXP_SLTSTA);
	bool event = control & status &
		     (PCI_EXP_SLTSTA_ABP | PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_CC);

	if (control & PCI_EXP_SLTCTL_DLLSCE && status & PCI_EXP_SLTSTA_DLLSC)
		event = true;
	event = event && control & PCI_EXP_SLTCTL_HPIE;
	if (event && !rp->event)
		pci_msi_notify(&rp->br.pci, 0);
	rp->event = event;
	pci_irq_set(&rp->br.pci, event);
}

/* The link is up while the card is there, has power, and nobody disabled it. */
static void update_link(struct pcie_root_port *rp, bool tell)
{
	uint8_t *status = express(rp) + PCI_EXP_LNKSTA;
	bool up = pci_get16(express(rp) + PCI_EXP_SLTSTA) & PCI_EXP_SLTSTA_PDS && powered(rp) &&
		  !(pci_get16(express(rp) + PCI_EXP_LNKCTL) & PCI_EXP_LNKCTL_DISABLE);
	bool was = pci_get16(status) & PCI_EXP_LNKSTA_DLLLA;

	set_bits(status, PCI_EXP_LNKSTA_DLLLA, up);
	if (up != was && tell && rp->hotplug)
		set_bits(express(rp) + PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_DLLSC, true);
	if (rp->br.secondary.off == !up)
		return;
	rp->br.secondary.off = !up;
	if (!up)
		pci_bus_begin_reset(&rp->br.secondary);
	pci_bus_sync(&rp->br.secondary);
}

/* As firmware finds it: power where there is a card. */
static void slot_power_on_state(struct pcie_root_port *rp)
{
	bool present = !slot_is_empty(rp);
	uint16_t control = INDICATOR_OFF << ATTENTION_INDICATOR_SHIFT;

	if (present)
		control |= INDICATOR_ON << POWER_INDICATOR_SHIFT;
	else
		control |= INDICATOR_OFF << POWER_INDICATOR_SHIFT | PCI_EXP_SLTCTL_PCC;
	set_bits(express(rp) + PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_PDS, present);
	if (rp->hotplug)
		pci_set16(express(rp) + PCI_EXP_SLTCTL, control);
	rp->old_control = pci_get16(express(rp) + PCI_EXP_SLTCTL);
	update_link(rp, false);
}

/* The card. Main thread. */

static void eject(void *opaque)
{
	struct pcie_root_port *rp = opaque;

	/* Function 0 last, as it came. */
	for (int i = PCI_DEVFNS - 1; i >= 0; i--)
		if (rp->br.secondary.devices[i])
			device_unplugged(&rp->br.secondary.devices[i]->dev);
}

static void card_plugged(struct pci_bus *bus, struct pci_device *dev)
{
	struct pcie_root_port *rp = port_of_bus(bus);

	/* The other functions appear together with function 0. */
	if (dev->dev.hotplugged && PCI_FUNC(dev->devfn))
		return;
	pthread_mutex_lock(&bus->root->lock);
	if (!dev->dev.hotplugged) {
		slot_power_on_state(rp);
	} else {
		set_bits(express(rp) + PCI_EXP_SLTSTA,
			 PCI_EXP_SLTSTA_PDS | PCI_EXP_SLTSTA_PDC | PCI_EXP_SLTSTA_ABP, true);
		update_link(rp, true);
		update_event(rp);
	}
	pthread_mutex_unlock(&bus->root->lock);
}

static bool card_unplug_request(struct pci_bus *bus, struct pci_device *dev, struct error **err)
{
	struct pcie_root_port *rp = port_of_bus(bus);
	uint16_t control;
	bool ok = true;

	pthread_mutex_lock(&bus->root->lock);
	control = pci_get16(express(rp) + PCI_EXP_SLTCTL);
	if (control & PCI_EXP_SLTCTL_PCC) {
		evloop_post(bus->root->vm->loop, &rp->eject_work);
	} else if ((control & PCI_EXP_SLTCTL_PIC) >> POWER_INDICATOR_SHIFT == INDICATOR_BLINK) {
		error_set(err, "the guest is busy with slot %u: its power indicator blinks",
			  rp->slot);
		ok = false;
	} else {
		set_bits(express(rp) + PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_ABP, true);
		update_event(rp);
	}
	pthread_mutex_unlock(&bus->root->lock);
	return ok;
}

static void card_unplugged(struct pci_bus *bus, struct pci_device *dev)
{
	struct pcie_root_port *rp = port_of_bus(bus);

	if (!rp->br.pci.visible || !slot_is_empty(rp))
		return;
	pthread_mutex_lock(&bus->root->lock);
	set_bits(express(rp) + PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_PDS, false);
	if (rp->hotplug)
		set_bits(express(rp) + PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_PDC, true);
	update_link(rp, true);
	update_event(rp);
	pthread_mutex_unlock(&bus->root->lock);
}

static const struct pci_hotplug_ops slot_ops = {
	.plugged = card_plugged,
	.unplug_request = card_unplug_request,
	.unplugged = card_unplugged,
};
/* hotplug=off: presence is still told. */
static const struct pci_hotplug_ops fixed_slot_ops = {
	.plugged = card_plugged,
	.unplugged = card_unplugged,
};

/* Registers. */

static void config_written(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
	struct pcie_root_port *rp = (struct pcie_root_port *)dev;
	unsigned pos = dev->express_pos;
	uint16_t control = pci_get16(express(rp) + PCI_EXP_SLTCTL);

	if (pci_touches(offset, size, pos + PCI_EXP_LNKCTL, 2))
		update_link(rp, true);
	if (rp->hotplug && pci_touches(offset, size, pos + PCI_EXP_SLTCTL, 2)) {
		if (~rp->old_control & control & PCI_EXP_SLTCTL_PCC && unplug_pending(rp))
			evloop_post(dev->dev.vm->loop, &rp->eject_work);
		rp->old_control = control;
		update_link(rp, true);
		set_bits(express(rp) + PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_CC, true);
	}
	/* Whoever enables events, clears them, or enables messages meets here. */
	update_event(rp);
}

static const struct pci_device_ops port_ops = {.config_written = config_written};

static const struct pci_info port_info = {
	.vendor_id = 0x1b36,
	.device_id = 0x000c,
	.class_code = 0x060400,
	.intx_pin = 1,
	.express = true,
	.bridge = true,
	.ops = &port_ops,
};

static void slot_init(struct pcie_root_port *rp)
{
	struct pci_device *dev = &rp->br.pci;
	uint8_t *c = express(rp), *w = dev->wmask + dev->express_pos;
	uint32_t caps = (uint32_t)rp->slot << SLOT_NUMBER_SHIFT;

	if (rp->hotplug)
		caps |= PCI_EXP_SLTCAP_ABP | PCI_EXP_SLTCAP_PCP | PCI_EXP_SLTCAP_AIP |
			PCI_EXP_SLTCAP_PIP | PCI_EXP_SLTCAP_HPS | PCI_EXP_SLTCAP_HPC;
	pci_set16(c + PCI_EXP_FLAGS, pci_get16(c + PCI_EXP_FLAGS) | PCI_EXP_FLAGS_SLOT);
	pci_set32(c + PCI_EXP_SLTCAP, caps);
	if (rp->hotplug) {
		pci_set16(w + PCI_EXP_SLTCTL, SLTCTL_WRITABLE);
		pci_set16(dev->w1cmask + dev->express_pos + PCI_EXP_SLTSTA, SLTSTA_EVENTS);
	}
	pci_set32(c + PCI_EXP_LNKCAP, pci_get32(c + PCI_EXP_LNKCAP) | PCI_EXP_LNKCAP_DLLLARC);
	pci_set16(w + PCI_EXP_LNKCTL, pci_get16(w + PCI_EXP_LNKCTL) | PCI_EXP_LNKCTL_DISABLE);
	pci_set16(w + PCI_EXP_RTCTL, 0x000f); /* system errors, PME interrupt */
}

static bool slot_is_taken(const struct pcie_root_port *rp)
{
	const struct vm *vm = rp->br.pci.dev.vm;

	for (const struct device *d = vm->devices; d; d = d->next) {
		const struct pcie_root_port *other = (const struct pcie_root_port *)d;

		if (d->desc == &pcie_root_port_desc && other != rp && other->slot == rp->slot &&
		    other->chassis == rp->chassis)
			return true;
	}
	return false;
}

static bool check(const struct pcie_root_port *rp, struct error **err)
{
	const struct pci_bus *bus = rp->br.pci.bus;

	if (!bus->express || !pci_bus_is_root(bus)) {
		error_set(err, "pcie-root-port belongs on a PCI Express root bus, and '%s' is none",
			  bus->bus.name);
		return false;
	}
	if (slot_is_taken(rp)) {
		error_set(err, "chassis %u slot %u is another root port's: give chassis= or slot=",
			  rp->chassis, rp->slot);
		return false;
	}
	return true;
}

static bool realize(struct device *dev, struct error **err)
{
	struct pcie_root_port *rp = (struct pcie_root_port *)dev;
	struct pci_device *pci = &rp->br.pci;

	if (!check(rp, err) || !pci_bridge_init(&rp->br, &port_info, true, err))
		return false;
	if (!pci_pm_init(pci, err) || !pci_msi_init(pci, 1, true, err) ||
	    !pcie_cap_init(pci, PCIE_ROOT_PORT, rp->port, err)) {
		pci_bridge_exit(&rp->br);
		return false;
	}
	rp->br.secondary.last_slot = 0;
	rp->br.secondary.hotplug = rp->hotplug ? &slot_ops : &fixed_slot_ops;
	rp->br.secondary.off = true;
	ev_work_init(&rp->eject_work, eject, rp);
	slot_init(rp);
	slot_power_on_state(rp);
	return true;
}

static void unrealize(struct device *dev)
{
	struct pcie_root_port *rp = (struct pcie_root_port *)dev;

	evloop_unpost(dev->vm->loop, &rp->eject_work);
	pci_bridge_exit(&rp->br);
}

static void reset(struct device *dev)
{
	struct pcie_root_port *rp = (struct pcie_root_port *)dev;
	struct pci_root *root = rp->br.pci.bus->root;

	pci_device_reset(&rp->br.pci);
	pthread_mutex_lock(&root->lock);
	rp->br.bus_reset_held = false;
	slot_power_on_state(rp);
	update_event(rp);
	/* The guest that was asked is gone, and so is its hold on the card. */
	if (unplug_pending(rp))
		evloop_post(dev->vm->loop, &rp->eject_work);
	pthread_mutex_unlock(&root->lock);
}

/* What the slot shows follows from what is in it. */
static bool post_load(void *object, unsigned version, struct error **err)
{
	struct pcie_root_port *rp = object;
	struct pci_root *root = rp->br.pci.bus->root;

	pthread_mutex_lock(&root->lock);
	set_bits(express(rp) + PCI_EXP_SLTSTA, PCI_EXP_SLTSTA_PDS, !slot_is_empty(rp));
	rp->old_control = pci_get16(express(rp) + PCI_EXP_SLTCTL);
	update_link(rp, false);
	pthread_mutex_unlock(&root->lock);
	return true;
}

static const struct prop port_props[] = {
	{.name = "chassis",
	 .type = PROP_U8,
	 .offset = offsetof(struct pcie_root_port, chassis),
	 .help = "number of the chassis; chassis and slot together are unique"},
	{.name = "slot",
	 .type = PROP_U16,
	 .offset = offsetof(struct pcie_root_port, slot),
	 .max = SLOT_NUMBER_MAX,
	 .help = "number of the slot"},
	{.name = "port",
	 .type = PROP_U8,
	 .offset = offsetof(struct pcie_root_port, port),
	 .help = "number of the port"},
	{.name = "hotplug",
	 .type = PROP_BOOL,
	 .offset = offsetof(struct pcie_root_port, hotplug),
	 .def = "on",
	 .help = "whether cards may come and go"},
	{.type = PROP_END},
};

const struct device_desc pcie_root_port_desc = {
	.name = "pcie-root-port",
	.help = "PCI Express Root Port",
	.bus = "pci",
	.size = sizeof(struct pcie_root_port),
	.props = (const struct prop_set[]){PCI_DEVICE_PROPS, {.props = port_props}, {}},
	.state =
		&(const struct state_desc){
			.name = "pcie-root-port",
			.version = 1,
			.fields =
				(const struct state_field[]){
					PCI_BRIDGE_STATE,
					STATE_FIELD(struct pcie_root_port, event, STATE_BOOL),
					{.type = STATE_END},
				},
			.post_load = post_load,
		},
	.realize = realize,
	.reset = reset,
	.unrealize = unrealize,
};
