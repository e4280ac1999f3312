/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LPC bridge of the ICH9 (Intel I/O Controller Hub 9 datasheet, 10 and 13): interrupt routing,
 * the place of the power management block, reset control, APM ports, the root complex registers
 * that matter for interrupts.
 *
 * A PIRQ goes two ways at once: to its own input of the I/O APIC (GSI 16 to 23), and to the ISA
 * interrupt that its routing register names. The SCI shares either. A GSI is high while any of its
 * sources is.
 *
 * Configuration registers under root->lock; what interrupts need of them is copied under lpc->lock,
 * which nests inside root->lock and intx_lock, and inside the power management block's.
 */
#include <string.h>

#include "hw/pci/internal.h"
#include "hw/pci/q35_chipset.h"
#include "vmm/core/util.h"

enum {
	PIRQS = 8,
	PIRQ_GSI = 16, /* of PIRQA */
	GSIS = 24,
	/* Root complex registers: the interrupt routes of devices 25 to 31, and general control. */
	RCBA_SIZE = 0x4000,
	ROUTES = 0x3140,
	ROUTES_SIZE = 0x12,
	GENERAL_CONTROL = 0x3410,
	DEFAULT_ROUTE = 0x3210, /* INTA# to PIRQA .. INTD# to PIRQD */
};

/* Configuration registers. */
enum {
	PMBASE = 0x40,
	ACPI_CNTL = 0x44,
	PIRQA_ROUT = 0x60,
	SERIRQ_CNTL = 0x64,
	PIRQE_ROUT = 0x68,
	LPC_IO_DECODE = 0x80,
	LPC_ENABLES = 0x82,
	LPC_GENERIC_DECODE = 0x84, /* four of them */
	GEN_PMCON_1 = 0xa0,
	FWH_SELECT_1 = 0xd0,
	FWH_SELECT_2 = 0xd4,
	FWH_DECODE = 0xd8,
	BIOS_CONTROL = 0xdc,
	RCBA = 0xf0,
	PMBASE_IS_IO = 0x01,
	ACPI_ENABLE = 0x80,
	ACPI_SCI_SELECT = 0x07,
	PIRQ_NOT_ISA = 0x80,
	PMCON_SMI_LOCK = 0x10,
	RCBA_ENABLE = 0x01,
	RESET_CPU = 0x04,
	RESET_WRITABLE = 0x0a,
};

struct ich9_lpc {
	struct pci_device pci;
	struct acpi_pm pm;
	struct irq_line sci; /* what pm drives */
	struct io_region apm_ports, rcba;
	bool apm_mapped, rcba_mapped;

	pthread_mutex_t lock;
	uint8_t apm[2];
	uint8_t reset_control;
	uint8_t routes[ROUTES_SIZE]; /* D31IR to D25IR */
	uint32_t general_control;
	uint8_t pirq_isa[PIRQS]; /* 0: none */
	uint8_t sci_gsi;
	uint8_t pirq_level; /* bit n: PIRQ n */
	bool sci_level;
	uint32_t gsi_level;
};

struct acpi_pm *ich9_lpc_pm(struct device *dev)
{
	return &((struct ich9_lpc *)dev)->pm;
}

/* Interrupts. */

/* lock held. */
static void update_gsis(struct ich9_lpc *lpc)
{
	struct vm *vm = lpc->pci.dev.vm;
	uint32_t level = (uint32_t)lpc->pirq_level << PIRQ_GSI, changed;

	for (unsigned i = 0; i < PIRQS; i++)
		if (lpc->pirq_level >> i & 1 && lpc->pirq_isa[i])
			level |= 1u << lpc->pirq_isa[i];
	if (lpc->sci_level)
		level |= 1u << lpc->sci_gsi;
	changed = level ^ lpc->gsi_level;
	lpc->gsi_level = level;
	for (; changed; changed &= changed - 1)
		irq_set(vm->gsi[__builtin_ctz(changed)], level >> __builtin_ctz(changed) & 1);
}

static void sci_set(struct irq_line *line, bool level)
{
	struct ich9_lpc *lpc = line->opaque;

	pthread_mutex_lock(&lpc->lock);
	lpc->sci_level = level;
	update_gsis(lpc);
	pthread_mutex_unlock(&lpc->lock);
}

static void set_pirq(void *opaque, unsigned pirq, bool level)
{
	struct ich9_lpc *lpc = opaque;

	if (pirq >= PIRQS)
		return;
	pthread_mutex_lock(&lpc->lock);
	if (level)
		lpc->pirq_level |= 1 << pirq;
	else
		lpc->pirq_level &= ~(1 << pirq);
	update_gsis(lpc);
	pthread_mutex_unlock(&lpc->lock);
}

/* lock held. Slots below 25 and the bridge at 30 are wired on the board: PIRQE to PIRQH. */
static unsigned slot_pirq(const struct ich9_lpc *lpc, unsigned slot, unsigned pin)
{
	/* Where the registers of slots 25 to 31 lie behind D31IR. */
	static const uint8_t at[] = {0x10, 0x0c, 0x08, 0x06, 0x04, 0, 0x00};

	if (slot < 25)
		return 4 + (slot + pin) % PCI_PINS;
	if (slot == 30)
		return 4 + pin;
	return load_le16(lpc->routes + at[slot - 25]) >> (4 * pin) & 7;
}

static unsigned map_pirq(void *opaque, uint8_t devfn, unsigned pin)
{
	struct ich9_lpc *lpc = opaque;
	unsigned pirq;

	pthread_mutex_lock(&lpc->lock);
	pirq = slot_pirq(lpc, PCI_SLOT(devfn), pin);
	pthread_mutex_unlock(&lpc->lock);
	return pirq;
}

unsigned ich9_lpc_pirq(struct device *dev, unsigned slot, unsigned pin)
{
	return map_pirq(dev, PCI_DEVFN(slot, 0), pin);
}

uint8_t ich9_lpc_line(void *opaque, unsigned input)
{
	struct ich9_lpc *lpc = opaque;
	uint8_t isa;

	pthread_mutex_lock(&lpc->lock);
	isa = input < PIRQS ? lpc->pirq_isa[input] : 0;
	pthread_mutex_unlock(&lpc->lock);
	return isa ? isa : 0xff;
}

static const struct pci_root_ops intx_ops = {.map_intx = map_pirq, .set_intx = set_pirq};

/* Which ISA interrupts a PIRQ may be routed to: 3-7, 9-12, 14, 15. */
static uint8_t isa_of(uint8_t rout)
{
	uint8_t irq = rout & 0xf;

	return rout & PIRQ_NOT_ISA || !(0xdef8 >> irq & 1) ? 0 : irq;
}

static uint8_t sci_of(uint8_t acpi_cntl)
{
	static const uint8_t gsis[] = {9, 10, 11, 9, 20, 21, 22, 23};

	return gsis[acpi_cntl & ACPI_SCI_SELECT];
}

/* Ports. */

static uint64_t apm_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ich9_lpc *lpc = opaque;
	uint8_t v;

	pthread_mutex_lock(&lpc->lock);
	v = lpc->apm[offset & 1];
	pthread_mutex_unlock(&lpc->lock);
	return v;
}

/* Commands to an SMI handler that is not there: ACPI mode is what the guest finds. */
static void apm_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ich9_lpc *lpc = opaque;

	pthread_mutex_lock(&lpc->lock);
	lpc->apm[offset & 1] = value;
	pthread_mutex_unlock(&lpc->lock);
}

static const struct io_ops apm_ops = {.read = apm_read, .write = apm_write};

static uint64_t reset_port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ich9_lpc *lpc = opaque;
	uint8_t v;

	pthread_mutex_lock(&lpc->lock);
	v = lpc->reset_control;
	pthread_mutex_unlock(&lpc->lock);
	return v;
}

static void reset_port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ich9_lpc *lpc = opaque;

	if (value & RESET_CPU) {
		vm_request_reset(lpc->pci.dev.vm, CAUSE_GUEST_RESET);
		return;
	}
	pthread_mutex_lock(&lpc->lock);
	lpc->reset_control = value & RESET_WRITABLE;
	pthread_mutex_unlock(&lpc->lock);
}

static const struct io_ops reset_port_ops = {.read = reset_port_read, .write = reset_port_write};

/* The root complex registers. */

static uint8_t *rcba_register(struct ich9_lpc *lpc, uint64_t offset, unsigned size)
{
	if (offset >= ROUTES && offset + size <= ROUTES + ROUTES_SIZE)
		return lpc->routes + (offset - ROUTES);
	if (offset >= GENERAL_CONTROL && offset + size <= GENERAL_CONTROL + 4)
		return (uint8_t *)&lpc->general_control + (offset - GENERAL_CONTROL);
	return NULL;
}

static uint64_t rcba_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ich9_lpc *lpc = opaque;
	const uint8_t *reg = rcba_register(lpc, offset, size);
	uint64_t v = 0;

	pthread_mutex_lock(&lpc->lock);
	if (reg)
		v = load_le(reg, size);
	pthread_mutex_unlock(&lpc->lock);
	return v;
}

static void rcba_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ich9_lpc *lpc = opaque;
	uint8_t *reg = rcba_register(lpc, offset, size);

	if (!reg)
		return;
	pthread_mutex_lock(&lpc->lock);
	store_le(reg, size, value);
	pthread_mutex_unlock(&lpc->lock);
	if (offset < ROUTES + ROUTES_SIZE)
		pci_root_intx_rerouted(lpc->pci.bus->root);
}

static const struct io_ops rcba_ops = {.read = rcba_read, .write = rcba_write};

/* Configuration. */

static void update_rcba(struct ich9_lpc *lpc)
{
	uint32_t reg = pci_get32(lpc->pci.config + RCBA);
	uint64_t base = reg & ~(uint32_t)(RCBA_SIZE - 1);
	struct io_bus *mmio = &lpc->pci.dev.vm->mmio;
	bool on = reg & RCBA_ENABLE && base;
	struct error *err = NULL;

	if (lpc->rcba_mapped == on && (!on || lpc->rcba.base == base))
		return;
	if (lpc->rcba_mapped)
		io_bus_remove(mmio, &lpc->rcba);
	lpc->rcba_mapped = false;
	if (!on)
		return;
	lpc->rcba.base = base;
	lpc->rcba_mapped = io_bus_add(mmio, &lpc->rcba, &err);
	if (err) {
		log_guest_error(&lpc->pci.log, "ICH9-LPC: RCBA: %s", error_message(err));
		error_free(err);
	}
}

static void update_routing(struct ich9_lpc *lpc)
{
	const uint8_t *c = lpc->pci.config;

	pthread_mutex_lock(&lpc->lock);
	for (unsigned i = 0; i < PIRQS; i++)
		lpc->pirq_isa[i] = isa_of(c[i < 4 ? PIRQA_ROUT + i : PIRQE_ROUT + i - 4]);
	lpc->sci_gsi = sci_of(c[ACPI_CNTL]);
	update_gsis(lpc);
	pthread_mutex_unlock(&lpc->lock);
}

/* Under root->lock. */
static void update_all(struct ich9_lpc *lpc)
{
	uint8_t *c = lpc->pci.config;
	uint16_t base = pci_get16(c + PMBASE) & 0xff80;

	update_routing(lpc);
	acpi_pm_set_base(&lpc->pm, base, base && c[ACPI_CNTL] & ACPI_ENABLE);
	update_rcba(lpc);
	/* Once set, the lock stays until reset. */
	lpc->pci.wmask[GEN_PMCON_1] = c[GEN_PMCON_1] & PMCON_SMI_LOCK ? 0x0f : 0x1f;
}

static void config_written(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
	update_all((struct ich9_lpc *)dev);
}

static const struct pci_device_ops lpc_ops = {.config_written = config_written};

static const struct pci_info lpc_info = {
	.vendor_id = 0x8086,
	.device_id = 0x2918,
	.subsystem_vendor_id = 0x1af4,
	.subsystem_id = 0x1100,
	.class_code = 0x060100,
	.revision = 2,
	.ops = &lpc_ops,
};

static void registers_init(struct pci_device *pci)
{
	uint8_t *c = pci->config, *w = pci->wmask;

	pci_set16(c + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	pci_set16(w + PCI_COMMAND, PCI_COMMAND_PARITY | PCI_COMMAND_SERR);
	pci_set32(c + PMBASE, PMBASE_IS_IO);
	pci_set32(w + PMBASE, 0xff80);
	w[ACPI_CNTL] = ACPI_ENABLE | ACPI_SCI_SELECT;
	for (unsigned i = 0; i < 4; i++) {
		c[PIRQA_ROUT + i] = c[PIRQE_ROUT + i] = PIRQ_NOT_ISA;
		w[PIRQA_ROUT + i] = w[PIRQE_ROUT + i] = PIRQ_NOT_ISA | 0x0f;
		pci_set32(w + LPC_GENERIC_DECODE + 4 * i, 0x00fcfffd);
	}
	c[SERIRQ_CNTL] = 0x10;
	w[SERIRQ_CNTL] = 0xff;
	pci_set16(w + LPC_IO_DECODE, 0x1373);
	pci_set16(w + LPC_ENABLES, 0x3f0f);
	pci_set32(c + FWH_SELECT_1, 0x00112233);
	pci_set32(w + FWH_SELECT_1, 0xffffffff);
	pci_set16(c + FWH_SELECT_2, 0x4567);
	pci_set16(w + FWH_SELECT_2, 0xffff);
	pci_set16(c + FWH_DECODE, 0xffcf);
	pci_set16(w + FWH_DECODE, 0xffff);
	w[BIOS_CONTROL] = 0x03;
	pci_set32(w + RCBA, ~(uint32_t)(RCBA_SIZE - 1) | RCBA_ENABLE);
}

static void own_registers_reset(struct ich9_lpc *lpc)
{
	pthread_mutex_lock(&lpc->lock);
	memset(lpc->apm, 0, sizeof(lpc->apm));
	lpc->reset_control = 0;
	lpc->general_control = 0;
	for (unsigned i = 0; i < ROUTES_SIZE; i += 2)
		store_le16(lpc->routes + i, DEFAULT_ROUTE);
	pthread_mutex_unlock(&lpc->lock);
}

static void init(struct device *dev)
{
	pci_device_of(dev)->addr = Q35_LPC_DEVFN;
	pci_device_of(dev)->multifunction = true;
}

static bool realize(struct device *dev, struct error **err)
{
	struct ich9_lpc *lpc = (struct ich9_lpc *)dev;
	struct pci_root *root = lpc->pci.bus->root;

	if (!pci_device_init(&lpc->pci, &lpc_info, err))
		return false;
	registers_init(&lpc->pci);
	lpc->apm_ports = (struct io_region){.base = ICH9_APM_PORT,
					    .size = sizeof(lpc->apm),
					    .ops = &apm_ops,
					    .opaque = lpc,
					    .name = "apm",
					    .max_access = 1};
	if (!io_bus_add(&dev->vm->pio, &lpc->apm_ports, err)) {
		pci_device_exit(&lpc->pci);
		return false;
	}
	lpc->rcba = (struct io_region){.size = RCBA_SIZE,
				       .ops = &rcba_ops,
				       .opaque = lpc,
				       .name = "rcba",
				       .priority = -1,
				       .max_access = 4};
	pthread_mutex_init(&lpc->lock, NULL);
	own_registers_reset(lpc);
	lpc->sci = (struct irq_line){.set = sci_set, .opaque = lpc};
	acpi_pm_init(&lpc->pm, dev->vm);
	acpi_pm_set_sci(&lpc->pm, &lpc->sci);
	pci_root_set_reset_port(root, &reset_port_ops, lpc);
	pci_root_set_intx(root, &intx_ops, lpc);
	pthread_mutex_lock(&root->lock);
	update_all(lpc);
	pthread_mutex_unlock(&root->lock);
	return true;
}

static void reset(struct device *dev)
{
	struct ich9_lpc *lpc = (struct ich9_lpc *)dev;
	struct pci_root *root = lpc->pci.bus->root;

	pci_device_reset(&lpc->pci);
	own_registers_reset(lpc);
	acpi_pm_reset(&lpc->pm);
	pthread_mutex_lock(&root->lock);
	update_all(lpc);
	pthread_mutex_unlock(&root->lock);
	pci_root_intx_rerouted(root);
}

static void unrealize(struct device *dev)
{
	struct ich9_lpc *lpc = (struct ich9_lpc *)dev;
	struct pci_root *root = lpc->pci.bus->root;

	io_bus_remove(&dev->vm->pio, &lpc->apm_ports);
	if (lpc->rcba_mapped)
		io_bus_remove(&dev->vm->mmio, &lpc->rcba);
	pci_root_set_reset_port(root, NULL, NULL);
	pci_root_set_intx(root, NULL, NULL);
	pci_device_exit(&lpc->pci);
	acpi_pm_destroy(&lpc->pm);
	pthread_mutex_destroy(&lpc->lock);
}

static bool post_load(void *object, unsigned version, struct error **err)
{
	struct ich9_lpc *lpc = object;
	struct pci_root *root = lpc->pci.bus->root;

	pthread_mutex_lock(&root->lock);
	update_all(lpc);
	pthread_mutex_unlock(&root->lock);
	pci_root_intx_rerouted(root);
	return true;
}

const struct device_desc ich9_lpc_desc = {
	.name = "ICH9-LPC",
	.help = "LPC bridge of the ICH9",
	.bus = "pci",
	.internal = true,
	.size = sizeof(struct ich9_lpc),
	.props = (const struct prop_set[]){PCI_DEVICE_PROPS, {}},
	.state =
		&(const struct state_desc){
			.name = "ICH9-LPC",
			.version = 1,
			.fields =
				(const struct state_field[]){
					PCI_DEVICE_STATE,
					{.name = "pm",
					 .type = STATE_STRUCT,
					 .offset = offsetof(struct ich9_lpc, pm),
					 .size = sizeof(struct acpi_pm),
					 .desc = &acpi_pm_state},
					STATE_BUFFER(struct ich9_lpc, apm),
					STATE_FIELD(struct ich9_lpc, reset_control, STATE_U8),
					STATE_BUFFER(struct ich9_lpc, routes),
					STATE_FIELD(struct ich9_lpc, general_control, STATE_U32),
					{.type = STATE_END},
				},
			.post_load = post_load,
		},
	.init = init,
	.realize = realize,
	.reset = reset,
	.unrealize = unrealize,
};
