/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of the 82574L: one table, through BAR 0 or through the address and data ports of
 * BAR 2 (82574 datasheet, chapter 10). They are read and written as 32-bit words.
 *
 * Threads: any, under the device's lock, which the accessors take. Owner: struct e1000e.
 */
#include "hw/net/e1000e.h"

#include "vmm/core/util.h"

struct reg {
	uint32_t first, count; /* words in a row */
	uint32_t writable, initial;
	/* Instead of what is kept. */
	uint32_t (*read)(struct e1000e *d, unsigned offset);
	void (*write)(struct e1000e *d, unsigned offset, uint32_t value);
};

enum {
	ALL = -1,
	LOW16 = 0xffff,
	CTRL_DEFAULT = E1000E_CTRL_FD | E1000E_CTRL_SLU | E1000E_CTRL_SPEED_1000 |
		       E1000E_CTRL_SWDPIN2,
	BASE_LOW = ~0xf,
	CLOCK_PERIOD = 40, /* ns: 25 MHz drive SYSTIM */
	INCREMENT_MASK = 0xffffff,
	PERIOD_SHIFT = 24,
};

static void post_tx(struct e1000e *d)
{
	evloop_post(d->pci.dev.vm->loop, &d->tx_work);
}

static void post_rx(struct e1000e *d)
{
	evloop_post(d->pci.dev.vm->loop, &d->rx_work);
}

/* ---- control and status ---- */

static uint32_t read_status(struct e1000e *d, unsigned offset)
{
	uint32_t ctrl = e1000e_get(d, E1000E_CTRL);

	return (e1000e_get(d, E1000E_STATUS) & E1000E_STATUS_PHYRA) | E1000E_STATUS_SPEED_1000 |
	       E1000E_STATUS_ASDV_1000 | (ctrl & E1000E_CTRL_FD ? E1000E_STATUS_FD : 0) |
	       (ctrl & E1000E_CTRL_MASTER_DISABLE ? 0 : E1000E_STATUS_MASTER) |
	       (e1000e_phy_has_link(d) ? E1000E_STATUS_LU : 0);
}

static void write_status(struct e1000e *d, unsigned offset, uint32_t value)
{
	*e1000e_reg(d, offset) &= value;
}

static void write_ctrl(struct e1000e *d, unsigned offset, uint32_t value)
{
	if (value & E1000E_CTRL_RST)
		e1000e_regs_reset(d);
	else
		*e1000e_reg(d, offset) = value & ~E1000E_CTRL_PHY_RST;
	if (value & E1000E_CTRL_PHY_RST) {
		*e1000e_reg(d, E1000E_STATUS) |= E1000E_STATUS_PHYRA;
		e1000e_phy_reset(d);
		e1000e_phy_negotiate(d);
	}
}

static void write_ctrl_ext(struct e1000e *d, unsigned offset, uint32_t value)
{
	if (value & E1000E_CTRL_EXT_EE_RST)
		e1000e_nvm_load(d);
	*e1000e_reg(d, offset) = value & ~E1000E_CTRL_EXT_EE_RST;
}

static void write_eecd(struct e1000e *d, unsigned offset, uint32_t value)
{
	uint32_t kept = e1000e_get(d, offset) & E1000E_EECD_READ_ONLY;

	/* Nobody else wants the memory, and an update is done at once. */
	value &= ~(uint32_t)(E1000E_EECD_READ_ONLY | E1000E_EECD_FLUPD);
	if (value & E1000E_EECD_REQ)
		kept |= E1000E_EECD_GNT;
	else
		kept &= ~E1000E_EECD_GNT;
	*e1000e_reg(d, offset) = kept | value;
}

static void write_eerd(struct e1000e *d, unsigned offset, uint32_t value)
{
	e1000e_nvm_read(d, value);
}

static void write_eewr(struct e1000e *d, unsigned offset, uint32_t value)
{
	e1000e_nvm_write(d, value);
}

static void write_mdic(struct e1000e *d, unsigned offset, uint32_t value)
{
	e1000e_phy_mdic(d, value);
}

/* A semaphore: who reads it as 0 has it. */
static uint32_t read_swsm(struct e1000e *d, unsigned offset)
{
	uint32_t value = e1000e_get(d, offset);

	*e1000e_reg(d, offset) |= E1000E_SWSM_SMBI;
	return value;
}

static void write_swsm(struct e1000e *d, unsigned offset, uint32_t value)
{
	*e1000e_reg(d, offset) = value;
}

/* ---- interrupts ---- */

static uint32_t read_icr(struct e1000e *d, unsigned offset)
{
	return e1000e_irq_read_icr(d);
}

static void write_icr(struct e1000e *d, unsigned offset, uint32_t value)
{
	e1000e_irq_write_icr(d, value);
}

static void write_ics(struct e1000e *d, unsigned offset, uint32_t value)
{
	e1000e_irq_raise(d, value);
}

static void write_ims(struct e1000e *d, unsigned offset, uint32_t value)
{
	e1000e_irq_enable(d, value);
}

static void write_imc(struct e1000e *d, unsigned offset, uint32_t value)
{
	e1000e_irq_disable(d, value);
}

/* ---- rings ---- */

static void write_rx(struct e1000e *d, unsigned offset, uint32_t value)
{
	*e1000e_reg(d, offset) = value;
	post_rx(d);
}

static void write_rdt(struct e1000e *d, unsigned offset, uint32_t value)
{
	*e1000e_reg(d, offset) = value & LOW16;
	post_rx(d);
}

static void write_tx(struct e1000e *d, unsigned offset, uint32_t value)
{
	*e1000e_reg(d, offset) = value;
	post_tx(d);
}

static void write_tdt(struct e1000e *d, unsigned offset, uint32_t value)
{
	*e1000e_reg(d, offset) = value & LOW16;
	post_tx(d);
}

/* ---- statistics ---- */

void e1000e_count(struct e1000e *d, unsigned offset, uint32_t n)
{
	uint32_t *p = e1000e_reg(d, offset);

	*p = *p > UINT32_MAX - n ? UINT32_MAX : *p + n;
}

void e1000e_count64(struct e1000e *d, unsigned offset, uint64_t n)
{
	uint64_t old = e1000e_get64(d, offset), sum = old > UINT64_MAX - n ? UINT64_MAX : old + n;

	*e1000e_reg(d, offset) = sum;
	*e1000e_reg(d, offset + 4) = sum >> 32;
}

void e1000e_count_size(struct e1000e *d, unsigned first, size_t frame_and_crc)
{
	static const uint16_t bounds[] = {64, 127, 255, 511, 1023};
	unsigned i = 0;

	while (i < ARRAY_SIZE(bounds) && frame_and_crc > bounds[i])
		i++;
	e1000e_count(d, first + 4 * i, 1);
}

void e1000e_count_dst(struct e1000e *d, const uint8_t *frame, unsigned broadcasts,
		      unsigned multicasts)
{
	static const uint8_t broadcast[NET_FRAME_MAC] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (!memcmp(frame, broadcast, sizeof(broadcast)))
		e1000e_count(d, broadcasts, 1);
	else if (frame[0] & 1)
		e1000e_count(d, multicasts, 1);
}

/* Reading clears; of 64 bits, reading the upper half. */
static uint32_t read_stat(struct e1000e *d, unsigned offset)
{
	static const uint16_t wide[] = {E1000E_GORCL, E1000E_GOTCL, E1000E_TORL, E1000E_TOTL};
	uint32_t value = e1000e_get(d, offset);

	for (size_t i = 0; i < ARRAY_SIZE(wide); i++) {
		if (offset == wide[i])
			return value;
		if (offset == wide[i] + 4u)
			*e1000e_reg(d, wide[i]) = 0;
	}
	*e1000e_reg(d, offset) = 0;
	return value;
}

/* ---- system time ---- */

static uint64_t system_time(struct e1000e *d)
{
	uint32_t period = d->time_increment >> PERIOD_SHIFT;
	uint64_t ticks;

	if (!period)
		return d->time_value;
	ticks = ((uint64_t)evloop_now(d->pci.dev.vm->loop) - d->time_base) /
		(CLOCK_PERIOD * period);
	return d->time_value + ticks * (d->time_increment & INCREMENT_MASK);
}

static void set_system_time(struct e1000e *d, uint64_t value)
{
	d->time_value = value;
	d->time_base = evloop_now(d->pci.dev.vm->loop);
}

static uint32_t read_time_low(struct e1000e *d, unsigned offset)
{
	uint64_t value = system_time(d);

	d->time_latched = value >> 32;
	return value;
}

static uint32_t read_time_high(struct e1000e *d, unsigned offset)
{
	return d->time_latched;
}

static void write_time_low(struct e1000e *d, unsigned offset, uint32_t value)
{
	set_system_time(d, (system_time(d) & ~(uint64_t)UINT32_MAX) | value);
}

static void write_time_high(struct e1000e *d, unsigned offset, uint32_t value)
{
	set_system_time(d, (uint32_t)system_time(d) | (uint64_t)value << 32);
}

static uint32_t read_increment(struct e1000e *d, unsigned offset)
{
	return d->time_increment;
}

static void write_increment(struct e1000e *d, unsigned offset, uint32_t value)
{
	set_system_time(d, system_time(d));
	d->time_increment = value;
}

/* ---- the table ---- */

#define KEPT(reg, n)                                                                               \
	{                                                                                          \
		.first = E1000E_##reg, .count = n, .writable = (uint32_t)ALL                       \
	}
#define KEPT_FROM(reg, n, initial_)                                                                \
	{                                                                                          \
		.first = E1000E_##reg, .count = n, .writable = (uint32_t)ALL, .initial = initial_  \
	}
#define MASKED(reg, n, mask, initial_)                                                             \
	{                                                                                          \
		.first = E1000E_##reg, .count = n, .writable = (uint32_t)(mask),                   \
		.initial = initial_                                                                \
	}
#define ACTS(reg, initial_, read_, write_)                                                         \
	{                                                                                          \
		.first = E1000E_##reg, .count = 1, .initial = initial_, .read = read_,             \
		.write = write_                                                                    \
	}
#define RING(q)                                                                                    \
	MASKED(RDBAL + q, 1, BASE_LOW, 0), KEPT(RDBAH + q, 1),                                     \
		MASKED(RDLEN + q, 1, E1000E_RING_MASK, 0), MASKED(RDH + q, 1, LOW16, 0),           \
		ACTS(RDT + q, 0, NULL, write_rdt), KEPT_FROM(RXDCTL + q, 1, 0x00010000),           \
		MASKED(TDBAL + q, 1, BASE_LOW, 0), KEPT(TDBAH + q, 1),                             \
		MASKED(TDLEN + q, 1, E1000E_RING_MASK, 0), MASKED(TDH + q, 1, LOW16, 0),           \
		ACTS(TDT + q, 0, NULL, write_tdt), KEPT(TXDCTL + q, 1),                            \
		KEPT_FROM(TARC + q, 1, 0x00000403)

static const struct reg table[] = {
	ACTS(ICR, 0, read_icr, write_icr),
	ACTS(IMS, 0, NULL, write_ims),
	ACTS(IMC, 0, NULL, write_imc),
	ACTS(ICS, 0, NULL, write_ics),
	RING(0),
	RING(E1000E_QUEUE_STRIDE),
	ACTS(CTRL, CTRL_DEFAULT, NULL, write_ctrl),
	ACTS(STATUS, E1000E_STATUS_PHYRA, read_status, write_status),
	ACTS(EECD, E1000E_EECD_PRES | E1000E_EECD_AUTO_RD, NULL, write_eecd),
	ACTS(EERD, E1000E_NVM_DONE, NULL, write_eerd),
	ACTS(EEWR, E1000E_NVM_DONE, NULL, write_eewr),
	ACTS(CTRL_EXT, 0, NULL, write_ctrl_ext),
	ACTS(MDIC, E1000E_MDIC_READY, NULL, write_mdic),
	KEPT(FLA, 1),
	KEPT_FROM(FCAL, 1, 0x00c28001),
	KEPT_FROM(FCAH, 1, 0x00000100),
	KEPT_FROM(FCT, 1, 0x00008808),
	MASKED(VET, 1, LOW16, 0x8100),
	MASKED(ITR, 1, LOW16, 0),
	MASKED(EIAC, 1, E1000E_INT_MSIX, 0),
	KEPT(IAM, 1),
	KEPT(IVAR, 1),
	MASKED(EITR, E1000E_VECTORS, LOW16, 0),
	ACTS(RCTL, 0, NULL, write_rx),
	KEPT(FCTTV, 1),
	KEPT(TXCW, 1),
	MASKED(RXCW, 1, 0, 0),
	ACTS(TCTL, 0, NULL, write_tx),
	KEPT_FROM(TIPG, 1, 0x00602008),
	KEPT(AIT, 1),
	KEPT_FROM(LEDCTL, 1, 0x07068302),
	KEPT(EXTCNF_CTRL, 1),
	KEPT(EXTCNF_SIZE, 1),
	KEPT_FROM(PBA, 1, 0x00140014),
	KEPT(PBS, 1),
	KEPT_FROM(EEMNGCTL, 1, 1 << 18), /* configuration is done */
	KEPT(FLMNGCTL, 1),
	KEPT(EEARBC, 1),
	KEPT(FLASHT, 1),
	KEPT(FLSWCTL, 1),
	KEPT(FLOP, 1),
	KEPT(ERT, 1),
	KEPT(FCRTL, 1),
	KEPT(FCRTH, 1),
	KEPT_FROM(PSRCTL, 1, 0x00040402),
	KEPT(RDTR, 1),
	KEPT(RADV, 1),
	MASKED(RSRPD, 1, 0xfff, 0),
	KEPT(RAID, 1),
	KEPT(KABGTXD, 1),
	KEPT(TIDV, 1),
	KEPT(TADV, 1),
	{.first = E1000E_STATS, .count = (E1000E_STATS_END - E1000E_STATS) / 4, .read = read_stat},
	KEPT_FROM(RXCSUM, 1, E1000E_RXCSUM_IPOFL | E1000E_RXCSUM_TUOFL),
	KEPT(RFCTL, 1),
	KEPT(MTA, 128),
	KEPT(RAL, 2 * E1000E_RAS),
	KEPT(VFTA, 128),
	KEPT(WUC, 1),
	KEPT(WUFC, 1),
	KEPT(WUS, 1),
	KEPT(MRQC, 1),
	KEPT(MANC, 1),
	KEPT(IPAV, 1),
	KEPT(IP4AT, 7),
	KEPT(MANC2H, 1),
	KEPT(IP6AT, 4),
	KEPT(MDEF, 8),
	KEPT(WUPL, 1),
	KEPT(WUPM, 32),
	KEPT(GCR, 1),
	KEPT(FUNCTAG, 1),
	KEPT(GSCL, 8),
	KEPT_FROM(FACTPS, 1, 0x20000004), /* the port has power */
	KEPT(GIOANACTL, 5),
	ACTS(SWSM, 0, read_swsm, write_swsm),
	KEPT(FWSM, 1),
	KEPT(GCR2, 1),
	MASKED(PBACLR, 1, 0, 0),
	KEPT(RETA, 32),
	KEPT(RSSRK, 10),
	KEPT(FFLT, 12),
	ACTS(SYSTIML, 0, read_time_low, write_time_low),
	ACTS(SYSTIMH, 0, read_time_high, write_time_high),
	ACTS(TIMINCA, 0, read_increment, write_increment),
};

/* Where the 8254x family had them, and a second place of CTRL. */
static const struct {
	uint16_t from, to, count;
} aliases[] = {
	{0x0004, E1000E_CTRL, 1},  {0x0040, E1000E_RAL, 2 * E1000E_RAS},
	{0x0108, E1000E_RDTR, 1},  {0x0110, E1000E_RDBAL, 3},
	{0x0120, E1000E_RDH, 1},   {0x0128, E1000E_RDT, 1},
	{0x0160, E1000E_FCRTL, 1}, {0x0168, E1000E_FCRTH, 1},
	{0x0200, E1000E_MTA, 128}, {0x0420, E1000E_TDBAL, 3},
	{0x0430, E1000E_TDH, 1},   {0x0438, E1000E_TDT, 1},
	{0x0440, E1000E_TIDV, 1},  {0x0600, E1000E_VFTA, 128},
};

static unsigned resolve(unsigned offset)
{
	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
		if (offset >= aliases[i].from && offset < aliases[i].from + 4u * aliases[i].count)
			return aliases[i].to + (offset - aliases[i].from);
	return offset;
}

static const struct reg *find(unsigned offset)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (offset >= table[i].first && offset < table[i].first + 4 * table[i].count)
			return &table[i];
	return NULL;
}

/* What is not there reads as 0. */
static uint32_t read_reg(struct e1000e *d, unsigned offset)
{
	const struct reg *r;

	offset = resolve(offset);
	r = find(offset);
	if (!r)
		return 0;
	return r->read ? r->read(d, offset) : e1000e_get(d, offset);
}

static void write_reg(struct e1000e *d, unsigned offset, uint32_t value)
{
	const struct reg *r;
	uint32_t *p;

	offset = resolve(offset);
	r = find(offset);
	if (!r)
		return;
	if (r->write) {
		r->write(d, offset, value);
		return;
	}
	if (offset >= E1000E_REGS_END)
		return;
	p = e1000e_reg(d, offset);
	*p = (*p & ~r->writable) | (value & r->writable);
}

void e1000e_regs_reset(struct e1000e *d)
{
	memset(d->regs, 0, sizeof(d->regs));
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		for (uint32_t n = 0; n < table[i].count; n++)
			if (table[i].initial && table[i].first < E1000E_REGS_END)
				*e1000e_reg(d, table[i].first + 4 * n) = table[i].initial;
	d->time_value = 0;
	d->time_increment = d->time_latched = 0;
	d->epoch++;
	e1000e_nvm_load(d);
	e1000e_irq_reset(d);
	e1000e_tx_reset(d);
}

void e1000e_regs_save(struct e1000e *d)
{
	set_system_time(d, system_time(d));
}

void e1000e_regs_loaded(struct e1000e *d)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct reg *r = &table[i];

		for (uint32_t n = 0; n < r->count && !r->write && !r->read; n++) {
			uint32_t *p = e1000e_reg(d, r->first + 4 * n);

			*p = (*p & r->writable) | (r->initial & ~r->writable);
		}
	}
	*e1000e_reg(d, E1000E_ICR) &= E1000E_INT_ALL;
	*e1000e_reg(d, E1000E_IMS) &= E1000E_INT_ALL;
	set_system_time(d, d->time_value);
}

/* ---- access ---- */

static uint64_t regs_read(void *opaque, uint64_t offset, unsigned size)
{
	struct e1000e *d = opaque;
	uint32_t value;

	pthread_mutex_lock(&d->lock);
	value = read_reg(d, offset & ~UINT64_C(3));
	pthread_mutex_unlock(&d->lock);
	return value >> 8 * (offset & 3);
}

static void regs_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct e1000e *d = opaque;

	if (size != 4 || offset & 3)
		return;
	pthread_mutex_lock(&d->lock);
	write_reg(d, offset, value);
	pthread_mutex_unlock(&d->lock);
}

const struct io_ops e1000e_regs_ops = {.read = regs_read, .write = regs_write};

static uint64_t io_read(void *opaque, uint64_t offset, unsigned size)
{
	struct e1000e *d = opaque;
	uint32_t value = 0;

	if (size != 4)
		return 0;
	pthread_mutex_lock(&d->lock);
	if (offset == E1000E_IOADDR)
		value = d->io_addr;
	else if (offset == E1000E_IODATA && d->io_addr < E1000E_REGS_SIZE)
		value = read_reg(d, d->io_addr & ~3u);
	pthread_mutex_unlock(&d->lock);
	return value;
}

static void io_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct e1000e *d = opaque;

	if (size != 4)
		return;
	pthread_mutex_lock(&d->lock);
	if (offset == E1000E_IOADDR)
		d->io_addr = value;
	else if (offset == E1000E_IODATA && d->io_addr < E1000E_REGS_SIZE)
		write_reg(d, d->io_addr & ~3u, value);
	pthread_mutex_unlock(&d->lock);
}

const struct io_ops e1000e_io_ops = {.read = io_read, .write = io_write};
