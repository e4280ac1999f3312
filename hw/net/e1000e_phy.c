/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PHY of the 82574L behind MDIC (82574 datasheet, sections 9.4 and 10.2.2.7; IEEE 802.3, clause
 * 22): always 1000 Mbit/s in full duplex with a partner that can all of it. Registers below 16 are
 * in every page, register 22 chooses the page of the others.
 *
 * Thread: registers', under the lock; the timer is the main loop's. Owner: struct e1000e.
 */
#include "hw/net/e1000e.h"

#include "vmm/core/util.h"

enum {
	ID1 = 0x0141,
	ID2 = 0x0cb1,
	CTRL_DEFAULT = 0x1140, /* negotiates; full duplex, 1000 Mbit/s */
	CTRL_SELF_CLEARING = E1000E_PHY_CTRL_RESET | E1000E_PHY_CTRL_RESTART,
	CTRL_WRITABLE = 0xffc0,
	STATUS_ABLE = 0x7949, /* what it can: 10, 100, negotiation, extended registers */
	ADVERTISE_DEFAULT = 0x0de1,
	PARTNER_ALL = 0x4de1,
	EXPANSION_PARTNER_ABLE = 0x0001,
	NEXT_PAGE_DEFAULT = 0x2001,
	CTRL_1000_DEFAULT = 0x0e00,
	STATUS_1000_UP = 0x7c00,
	EXT_STATUS_1000 = 0x3000,
	COPPER_CTRL_DEFAULT = 0x0360,
	COPPER_STATUS_UP = 0xac08,
	COPPER_STATUS_DOWN = 0x8000,

	MDIC_REG_SHIFT = 16,
	MDIC_ADDR_SHIFT = 21,
	MDIC_FIELD = 31,
};
#define NEGOTIATION (250 * NSEC_PER_MSEC) /* as drivers expect some time to go by */

bool e1000e_phy_has_link(const struct e1000e *d)
{
	return d->link_up && d->negotiated &&
	       !(d->phy[0][E1000E_PHY_CTRL] & E1000E_PHY_CTRL_POWER_DOWN);
}

bool e1000e_phy_loops_back(const struct e1000e *d)
{
	return d->phy[0][E1000E_PHY_CTRL] & E1000E_PHY_CTRL_LOOPBACK;
}

/* The registers that tell of the link. */
static void show_link(struct e1000e *d)
{
	bool up = e1000e_phy_has_link(d);
	uint16_t *phy = d->phy[0];

	phy[E1000E_PHY_STATUS] = STATUS_ABLE | (up ? E1000E_PHY_STATUS_LINK : 0) |
				 (d->negotiated ? E1000E_PHY_STATUS_DONE : 0);
	phy[E1000E_PHY_PARTNER] = up ? PARTNER_ALL : 0;
	phy[E1000E_PHY_EXPANSION] = up ? EXPANSION_PARTNER_ABLE : 0;
	phy[E1000E_PHY_STATUS_1000] = up ? STATUS_1000_UP : 0;
	phy[E1000E_PHY_COPPER_STATUS] = up ? COPPER_STATUS_UP : COPPER_STATUS_DOWN;
}

/* A change is told. */
static void show_and_tell(struct e1000e *d)
{
	bool before = d->phy[0][E1000E_PHY_STATUS] & E1000E_PHY_STATUS_LINK;

	show_link(d);
	if (e1000e_phy_has_link(d) == before)
		return;
	e1000e_irq_raise(d, E1000E_INT_LSC);
	evloop_post(d->pci.dev.vm->loop, &d->rx_work);
}

void e1000e_phy_negotiate(struct e1000e *d)
{
	d->negotiated = false;
	d->negotiate = true;
	show_and_tell(d);
	/* The timer is the loop's to set. */
	evloop_post(d->pci.dev.vm->loop, &d->timer_work);
}

void e1000e_phy_arm(struct e1000e *d)
{
	struct evloop *loop = d->pci.dev.vm->loop;

	if (!d->negotiate)
		return;
	d->negotiate = false;
	if (d->link_up)
		evloop_timer_arm(loop, &d->link_timer, evloop_now(loop) + NEGOTIATION);
	else
		evloop_timer_cancel(loop, &d->link_timer);
}

void e1000e_phy_timer(void *opaque)
{
	struct e1000e *d = opaque;

	pthread_mutex_lock(&d->lock);
	d->negotiated = d->link_up;
	show_and_tell(d);
	pthread_mutex_unlock(&d->lock);
}

void e1000e_phy_reset(struct e1000e *d)
{
	memset(d->phy, 0, sizeof(d->phy));
	d->phy[0][E1000E_PHY_CTRL] = CTRL_DEFAULT;
	d->phy[0][E1000E_PHY_ID1] = ID1;
	d->phy[0][E1000E_PHY_ID2] = ID2;
	d->phy[0][E1000E_PHY_ADVERTISE] = ADVERTISE_DEFAULT;
	d->phy[0][E1000E_PHY_NEXT_PAGE] = NEXT_PAGE_DEFAULT;
	d->phy[0][E1000E_PHY_CTRL_1000] = CTRL_1000_DEFAULT;
	d->phy[0][E1000E_PHY_EXT_STATUS] = EXT_STATUS_1000;
	d->phy[0][E1000E_PHY_COPPER_CTRL] = COPPER_CTRL_DEFAULT;
	show_link(d);
}

void e1000e_phy_loaded(struct e1000e *d)
{
	if (d->link_up && !d->negotiated)
		d->negotiate = true;
	d->negotiated &= d->link_up;
	d->phy[0][E1000E_PHY_ID1] = ID1;
	d->phy[0][E1000E_PHY_ID2] = ID2;
	d->phy[0][E1000E_PHY_EXT_STATUS] = EXT_STATUS_1000;
	show_and_tell(d);
}

/* Where a register is, for the page that is chosen. */
static uint16_t *phy_reg(struct e1000e *d, unsigned reg)
{
	unsigned page = d->phy[0][E1000E_PHY_PAGE];

	if (reg < E1000E_PHY_PAGED || reg == E1000E_PHY_PAGE)
		page = 0;
	return page < E1000E_PHY_PAGES ? &d->phy[page][reg] : NULL;
}

static bool is_read_only(const struct e1000e *d, const uint16_t *reg)
{
	switch (reg - d->phy[0]) {
	case E1000E_PHY_STATUS:
	case E1000E_PHY_ID1:
	case E1000E_PHY_ID2:
	case E1000E_PHY_PARTNER:
	case E1000E_PHY_EXPANSION:
	case E1000E_PHY_STATUS_1000:
	case E1000E_PHY_EXT_STATUS:
	case E1000E_PHY_COPPER_STATUS:
		return true;
	}
	return false;
}

static void write_ctrl(struct e1000e *d, uint16_t value)
{
	uint16_t *ctrl = &d->phy[0][E1000E_PHY_CTRL], changed = *ctrl ^ value;

	if (value & E1000E_PHY_CTRL_RESET) {
		e1000e_phy_reset(d);
		e1000e_phy_negotiate(d);
		return;
	}
	*ctrl = value & CTRL_WRITABLE & ~CTRL_SELF_CLEARING;
	if (value & E1000E_PHY_CTRL_RESTART || changed & E1000E_PHY_CTRL_POWER_DOWN)
		e1000e_phy_negotiate(d);
}

static void write_reg(struct e1000e *d, unsigned reg, uint16_t value)
{
	uint16_t *p = phy_reg(d, reg);

	if (reg == E1000E_PHY_CTRL)
		write_ctrl(d, value);
	else if (p && !is_read_only(d, p))
		*p = value;
}

void e1000e_phy_mdic(struct e1000e *d, uint32_t mdic)
{
	unsigned reg = mdic >> MDIC_REG_SHIFT & MDIC_FIELD;
	uint32_t result = mdic & ~(uint32_t)E1000E_MDIC_ERROR;

	if ((mdic >> MDIC_ADDR_SHIFT & MDIC_FIELD) != E1000E_PHY_ADDR) {
		result |= E1000E_MDIC_ERROR;
	} else if ((mdic & E1000E_MDIC_OP) == E1000E_MDIC_OP_READ) {
		const uint16_t *p = phy_reg(d, reg);

		result = (result & ~UINT32_C(0xffff)) | (p ? *p : 0);
	} else if ((mdic & E1000E_MDIC_OP) == E1000E_MDIC_OP_WRITE) {
		write_reg(d, reg, mdic);
	} else {
		result |= E1000E_MDIC_ERROR;
	}
	*e1000e_reg(d, E1000E_MDIC) = result | E1000E_MDIC_READY;
	if (mdic & E1000E_MDIC_INT)
		e1000e_irq_raise(d, E1000E_INT_MDAC);
}
