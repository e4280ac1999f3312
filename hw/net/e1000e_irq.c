/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts: causes and masks, what clears them by itself, intervals, and the three ways out
 * (82574 datasheet, sections 7.4 and 10.2.4).
 *
 * With MSI-X five causes of their own (two queues each way, and OTHER for the rest) have the
 * vectors that IVAR gives them. A vector that fires clears its cause if EIAC says so, and masks it.
 *
 * Thread: any, under the lock; timers are the main loop's. Owner: struct e1000e.
 */
#include "hw/net/e1000e.h"

#include "vmm/core/util.h"

enum {
	ITR_UNIT = 256, /* ns */
	ITR_MASK = 0xffff,
	MSIX_FIRST = 20, /* the lowest bit of E1000E_INT_MSIX */
	MSIX_CAUSES = 5,
};

static int64_t now(const struct e1000e *d)
{
	return evloop_now(d->pci.dev.vm->loop);
}

static uint32_t pending(const struct e1000e *d)
{
	return e1000e_get(d, E1000E_ICR) & e1000e_get(d, E1000E_IMS) & E1000E_INT_ALL;
}

static int64_t interval(const struct e1000e *d, unsigned vector)
{
	unsigned reg = pci_msix_enabled(&((struct e1000e *)d)->pci) ? E1000E_EITR + 4 * vector
								    : E1000E_ITR;

	return (int64_t)(e1000e_get(d, reg) & ITR_MASK) * ITR_UNIT;
}

/* True: not now, but once the interval is over. */
static bool postpone(struct e1000e *d, unsigned vector)
{
	int64_t t = now(d), wait = interval(d, vector);

	/* A guest may have shortened it meanwhile. */
	if (t < d->quiet_until[vector] && d->quiet_until[vector] - t <= wait) {
		if (!d->postponed[vector]) {
			d->postponed[vector] = true;
			evloop_post(d->pci.dev.vm->loop, &d->timer_work);
		}
		return true;
	}
	d->quiet_until[vector] = t + wait;
	d->postponed[vector] = false;
	return false;
}

static void count(struct e1000e *d)
{
	e1000e_count(d, E1000E_IAC, 1);
}

/* A cause with a vector of its own. */
static void fire(struct e1000e *d, uint32_t cause)
{
	unsigned n = __builtin_ctz(cause) - MSIX_FIRST;
	uint32_t entry = e1000e_get(d, E1000E_IVAR) >> n * E1000E_IVAR_BITS;
	uint32_t control = e1000e_get(d, E1000E_CTRL_EXT);
	uint32_t clear = e1000e_get(d, E1000E_EIAC) & cause;
	unsigned vector = entry & E1000E_IVAR_VECTOR;

	if (entry & E1000E_IVAR_VALID && vector < E1000E_VECTORS && !postpone(d, vector)) {
		count(d);
		pci_msix_notify(&d->pci, vector);
	}
	*e1000e_reg(d, E1000E_ICR) &= ~clear;
	/* A driver that chose IAME unmasks nothing but what it has masked. */
	if (!(control & E1000E_CTRL_EXT_IAME))
		*e1000e_reg(d, E1000E_IMS) &= ~clear;
	if (control & E1000E_CTRL_EXT_EIAME)
		*e1000e_reg(d, E1000E_IMS) &= ~(e1000e_get(d, E1000E_IAM) & cause);
}

static void fire_all(struct e1000e *d, uint32_t causes)
{
	for (causes &= E1000E_INT_MSIX; causes; causes &= causes - 1)
		fire(d, causes & -causes);
}

static void send_msi(struct e1000e *d)
{
	if (postpone(d, 0))
		return;
	count(d);
	pci_msi_notify(&d->pci, 0);
}

/* The pin follows what is pending; its rising waits for the interval. */
static void drive_line(struct e1000e *d)
{
	bool level = pending(d) != 0;

	if (level && !d->line && postpone(d, 0))
		return;
	if (level && !d->line)
		count(d);
	d->line = level;
	pci_irq_set(&d->pci, level);
}

/* A vector that fired may have masked its cause: the bit stays until that is cleared. */
static void show_asserted(struct e1000e *d)
{
	uint32_t *icr = e1000e_reg(d, E1000E_ICR);

	if (pending(d))
		*icr |= E1000E_INT_ASSERTED;
	else if (!pci_msix_enabled(&d->pci) || !(*icr & E1000E_INT_ALL))
		*icr &= ~E1000E_INT_ASSERTED;
}

/* before: what was pending when the change began. */
static void update(struct e1000e *d, uint32_t before)
{
	uint32_t raised;

	if (pci_msix_enabled(&d->pci) && e1000e_get(d, E1000E_ICR) & E1000E_INT_OTHERS)
		*e1000e_reg(d, E1000E_ICR) |= E1000E_INT_OTHER;
	raised = pending(d) & ~before;
	show_asserted(d);
	if (pci_msix_enabled(&d->pci)) {
		fire_all(d, raised);
		return;
	}
	if (!pci_msi_enabled(&d->pci))
		drive_line(d);
	else if (raised)
		send_msi(d);
}

void e1000e_irq_raise(struct e1000e *d, uint32_t causes)
{
	uint32_t before = pending(d);

	*e1000e_reg(d, E1000E_ICR) |= causes & E1000E_INT_ALL;
	update(d, before);
}

void e1000e_irq_enable(struct e1000e *d, uint32_t causes)
{
	uint32_t before = pending(d);

	*e1000e_reg(d, E1000E_IMS) |= causes & E1000E_INT_ALL;
	update(d, before);
}

/* Fewer causes: nothing fires, the pin may fall. */
static void lowered(struct e1000e *d)
{
	show_asserted(d);
	if (!pci_msix_enabled(&d->pci) && !pci_msi_enabled(&d->pci))
		drive_line(d);
	if (!pending(d))
		d->postponed[0] = d->postponed[0] && pci_msix_enabled(&d->pci);
}

void e1000e_irq_disable(struct e1000e *d, uint32_t causes)
{
	*e1000e_reg(d, E1000E_IMS) &= ~causes;
	lowered(d);
}

static void auto_mask(struct e1000e *d)
{
	if (e1000e_get(d, E1000E_CTRL_EXT) & E1000E_CTRL_EXT_IAME)
		*e1000e_reg(d, E1000E_IMS) &= ~e1000e_get(d, E1000E_IAM);
}

/* Without MSI-X every read clears: drivers that poll rely on it. */
uint32_t e1000e_irq_read_icr(struct e1000e *d)
{
	uint32_t icr = e1000e_get(d, E1000E_ICR);

	if (icr & E1000E_INT_ASSERTED)
		auto_mask(d);
	if (icr & E1000E_INT_ASSERTED || !e1000e_get(d, E1000E_IMS) || !pci_msix_enabled(&d->pci))
		*e1000e_reg(d, E1000E_ICR) = 0;
	lowered(d);
	return icr;
}

void e1000e_irq_write_icr(struct e1000e *d, uint32_t value)
{
	/* Drivers clear OTHER and mean all that it stands for. */
	if (value & E1000E_INT_OTHER)
		value |= E1000E_INT_OTHERS;
	if (e1000e_get(d, E1000E_ICR) & E1000E_INT_ASSERTED)
		auto_mask(d);
	*e1000e_reg(d, E1000E_ICR) &= ~value;
	lowered(d);
}

void e1000e_irq_reset(struct e1000e *d)
{
	memset(d->quiet_until, 0, sizeof(d->quiet_until));
	memset(d->postponed, 0, sizeof(d->postponed));
	d->line = false;
	pci_irq_set(&d->pci, false);
}

void e1000e_irq_again(struct e1000e *d)
{
	d->line = false;
	update(d, 0);
}

/* What was postponed, and may go now. MSI-X causes have cleared themselves long since: the vector
 * is owed. */
static void send_postponed(struct e1000e *d)
{
	for (unsigned v = 0; v < E1000E_VECTORS; v++) {
		if (!d->postponed[v] || postpone(d, v))
			continue;
		if (pci_msix_enabled(&d->pci)) {
			count(d);
			pci_msix_notify(&d->pci, v);
		} else if (pci_msi_enabled(&d->pci)) {
			if (v == 0 && pending(d)) {
				count(d);
				pci_msi_notify(&d->pci, 0);
			}
		} else if (v == 0 && pending(d)) {
			count(d);
			d->line = true;
			pci_irq_set(&d->pci, true);
		}
	}
}

void e1000e_irq_arm(void *opaque)
{
	struct e1000e *d = opaque;
	int64_t first = INT64_MAX;

	pthread_mutex_lock(&d->lock);
	e1000e_phy_arm(d);
	send_postponed(d);
	for (unsigned v = 0; v < E1000E_VECTORS; v++)
		if (d->postponed[v])
			first = MIN(first, d->quiet_until[v]);
	if (first == INT64_MAX)
		evloop_timer_cancel(d->pci.dev.vm->loop, &d->irq_timer);
	else
		evloop_timer_arm(d->pci.dev.vm->loop, &d->irq_timer, first);
	pthread_mutex_unlock(&d->lock);
}

uint32_t e1000e_irq_rx_cause(struct e1000e *d, unsigned queue)
{
	return pci_msix_enabled(&d->pci) ? (uint32_t)E1000E_INT_RXQ0 << queue : E1000E_INT_RXT0;
}

uint32_t e1000e_irq_tx_cause(struct e1000e *d, unsigned queue)
{
	return pci_msix_enabled(&d->pci) ? (uint32_t)E1000E_INT_TXQ0 << queue : E1000E_INT_TXDW;
}
