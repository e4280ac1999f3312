/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The q35 memory controller hub, device 0: PCIEXBAR, PAM, SMRAM (Intel 3 Series Express Chipset
 * datasheet, 5.1). Registers under root->lock.
 *
 * There is no SMM: SMRAM can be opened, closed and locked as firmware does, and what it hides is
 * hidden, but no CPU ever runs there.
 */
#include <string.h>

#include "hw/pci/internal.h"
#include "hw/pci/q35_chipset.h"
#include "vmm/core/util.h"

struct q35_mch {
	struct pci_device pci;
	const struct q35_mch_ops *ops;
	void *opaque;
	/* What the board was last told. */
	uint8_t shadow[Q35_SHADOW_PIECES];
	struct q35_smram smram;
	uint64_t ecam_base, ecam_size;
};

enum {
	EXT_TSEG = 0x50, /* MiB of the largest TSEG; a write of all ones asks for it */
	PCIEXBAR = 0x60,
	PAM0 = 0x90,
	PAM_COUNT = 7,
	SMRAM = 0x9d,
	ESMRAMC = 0x9e,
};

enum {
	PCIEXBAR_ENABLE = 1 << 0,
	PCIEXBAR_LENGTH_SHIFT = 1,
	PCIEXBAR_LENGTH_MASK = 3,
	SMRAM_BASE_SEG = 0x02,
	SMRAM_ENABLE = 0x08,
	SMRAM_LOCK = 0x10,
	SMRAM_CLOSED = 0x20,
	SMRAM_OPEN = 0x40,
	ESMRAMC_TSEG_ENABLE = 0x01,
	ESMRAMC_TSEG_SIZE = 0x06,
	ESMRAMC_CACHE_BITS = 0x38, /* read as ones */
	ESMRAMC_ERROR = 0x40,
	ESMRAMC_HIGH = 0x80,
	EXT_TSEG_MIB = 16,
};
#define PCIEXBAR_WRITABLE (UINT64_C(0xffc000000) | PCIEXBAR_LENGTH_MASK << 1 | PCIEXBAR_ENABLE)
#define PCIEXBAR_DEFAULT  UINT64_C(0xb0000000)

void q35_mch_set_ops(struct device *dev, const struct q35_mch_ops *ops, void *opaque)
{
	struct q35_mch *mch = (struct q35_mch *)dev;

	mch->ops = ops;
	mch->opaque = opaque;
}

static void update_ecam(struct q35_mch *mch)
{
	uint64_t reg = load_le64(mch->pci.config + PCIEXBAR), base = 0, size = 0;
	unsigned length = reg >> PCIEXBAR_LENGTH_SHIFT & PCIEXBAR_LENGTH_MASK;
	struct error *err = NULL;

	/* 256, 128, 64 MiB; the fourth is reserved. */
	if (reg & PCIEXBAR_ENABLE && length < 3) {
		size = (256 * MiB) >> length;
		base = reg & UINT64_C(0xffc000000) & ~(size - 1);
	}
	if (base == mch->ecam_base && size == mch->ecam_size)
		return;
	mch->ecam_base = base;
	mch->ecam_size = size;
	if (!pci_root_set_ecam(mch->pci.bus->root, base, size, &err)) {
		log_guest_error(&mch->pci.log, "mch: PCIEXBAR: %s", error_message(err));
		error_free(err);
		base = size = 0;
	}
	if (mch->ops && mch->ops->ecam_changed)
		mch->ops->ecam_changed(mch->opaque, base, size);
}

/* PAM0's upper half is 0xf0000 to 0xfffff; each further register has two pieces from 0xc0000 on. */
static void update_shadow(struct q35_mch *mch)
{
	const uint8_t *pam = mch->pci.config + PAM0;
	uint8_t shadow[Q35_SHADOW_PIECES];

	for (unsigned i = 0; i < 12; i++)
		shadow[i] = pam[1 + i / 2] >> (i & 1 ? 4 : 0) & 3;
	for (unsigned i = 12; i < Q35_SHADOW_PIECES; i++)
		shadow[i] = pam[0] >> 4 & 3;
	if (!memcmp(shadow, mch->shadow, sizeof(shadow)))
		return;
	memcpy(mch->shadow, shadow, sizeof(shadow));
	if (mch->ops && mch->ops->shadow_changed)
		mch->ops->shadow_changed(mch->opaque, shadow);
}

static uint64_t tseg_size(uint8_t smram, uint8_t esmramc)
{
	static const uint8_t mib[] = {1, 2, 8, EXT_TSEG_MIB};

	if (!(smram & SMRAM_ENABLE) || !(esmramc & ESMRAMC_TSEG_ENABLE))
		return 0;
	return mib[(esmramc & ESMRAMC_TSEG_SIZE) >> 1] * MiB;
}

static void update_smram(struct q35_mch *mch)
{
	uint8_t *c = mch->pci.config, *w = mch->pci.wmask;
	struct q35_smram now;

	/* The lock closes, and only a reset undoes it. */
	if (c[SMRAM] & SMRAM_LOCK) {
		c[SMRAM] &= ~SMRAM_OPEN;
		w[SMRAM] = SMRAM_CLOSED;
		w[ESMRAMC] = 0;
	} else {
		w[SMRAM] = SMRAM_ENABLE | SMRAM_LOCK | SMRAM_CLOSED | SMRAM_OPEN;
		w[ESMRAMC] = ESMRAMC_HIGH | ESMRAMC_TSEG_SIZE | ESMRAMC_TSEG_ENABLE;
	}
	now.open = c[SMRAM] & SMRAM_ENABLE && c[SMRAM] & SMRAM_OPEN && !(c[SMRAM] & SMRAM_CLOSED);
	now.tseg_size = tseg_size(c[SMRAM], c[ESMRAMC]);
	if (now.open == mch->smram.open && now.tseg_size == mch->smram.tseg_size)
		return;
	mch->smram = now;
	if (mch->ops && mch->ops->smram_changed)
		mch->ops->smram_changed(mch->opaque, &now);
}

static void config_written(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
	struct q35_mch *mch = (struct q35_mch *)dev;

	if (offset == EXT_TSEG && size == 2 && value == 0xffff)
		pci_set16(dev->config + EXT_TSEG, EXT_TSEG_MIB);
	if (pci_touches(offset, size, PCIEXBAR, 8))
		update_ecam(mch);
	if (pci_touches(offset, size, PAM0, PAM_COUNT))
		update_shadow(mch);
	if (pci_touches(offset, size, SMRAM, 2))
		update_smram(mch);
}

static const struct pci_device_ops mch_ops = {.config_written = config_written};

static const struct pci_info mch_info = {
	.vendor_id = 0x8086,
	.device_id = 0x29c0,
	.subsystem_vendor_id = 0x1af4,
	.subsystem_id = 0x1100,
	.class_code = 0x060000,
	.ops = &mch_ops,
};

static void init(struct device *dev)
{
	pci_device_of(dev)->addr = Q35_MCH_DEVFN;
}

static bool realize(struct device *dev, struct error **err)
{
	struct q35_mch *mch = (struct q35_mch *)dev;
	struct pci_device *pci = &mch->pci;

	if (!pci_device_init(pci, &mch_info, err))
		return false;
	pci_set16(pci->config + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	store_le64(pci->config + PCIEXBAR, PCIEXBAR_DEFAULT);
	store_le64(pci->wmask + PCIEXBAR, PCIEXBAR_WRITABLE);
	pci->wmask[PAM0] = 0x30;
	memset(pci->wmask + PAM0 + 1, 0x33, PAM_COUNT - 1);
	pci->config[SMRAM] = SMRAM_BASE_SEG;
	pci->config[ESMRAMC] = ESMRAMC_CACHE_BITS;
	pci->w1cmask[ESMRAMC] = ESMRAMC_ERROR;
	update_smram(mch);
	return true;
}

static void update_all(struct q35_mch *mch)
{
	struct pci_root *root = mch->pci.bus->root;

	pthread_mutex_lock(&root->lock);
	update_ecam(mch);
	update_shadow(mch);
	update_smram(mch);
	pthread_mutex_unlock(&root->lock);
}

static void reset(struct device *dev)
{
	pci_device_reset(pci_device_of(dev));
	update_all((struct q35_mch *)dev);
}

static void unrealize(struct device *dev)
{
	struct q35_mch *mch = (struct q35_mch *)dev;

	pci_root_set_ecam(mch->pci.bus->root, 0, 0, NULL);
	pci_device_exit(&mch->pci);
}

/* The bits that only the lock makes read-only were checked as such, or as writable: both are what a
 * guest can bring about. */
static bool post_load(void *object, unsigned version, struct error **err)
{
	update_all(object);
	return true;
}

const struct device_desc q35_mch_desc = {
	.name = "mch",
	.help = "Host bridge of the q35 board",
	.bus = "pci",
	.internal = true,
	.size = sizeof(struct q35_mch),
	.props = (const struct prop_set[]){PCI_DEVICE_PROPS, {}},
	.state =
		&(const struct state_desc){
			.name = "mch",
			.version = 1,
			.fields = (const struct state_field[]){PCI_DEVICE_STATE,
							       {.type = STATE_END}},
			.post_load = post_load,
		},
	.init = init,
	.realize = realize,
	.reset = reset,
	.unrealize = unrealize,
};

void q35_chipset_firmware_init(struct device *mch, struct device *lpc, uint64_t ecam_base,
			       uint16_t pm_base)
{
	static const uint8_t links[8] = {10, 10, 11, 11, 10, 10, 11, 11};
	struct pci_root *root = pci_device_of(mch)->bus->root;
	uint8_t at = pci_device_of(lpc)->devfn;

	pci_config_write(root, 0, Q35_MCH_DEVFN, PCIEXBAR + 4, ecam_base >> 32, 4);
	pci_config_write(root, 0, Q35_MCH_DEVFN, PCIEXBAR, (uint32_t)ecam_base | PCIEXBAR_ENABLE,
			 4);
	for (unsigned i = 0; i < 8; i++)
		pci_config_write(root, 0, at, (i < 4 ? 0x60 : 0x64) + i, links[i], 1);
	pci_config_write(root, 0, at, 0x40, pm_base, 4);
	pci_config_write(root, 0, at, 0x44, 0x80, 1);
	pci_config_write(root, 0, at, 0xf0, 0xfed1c001, 4);
}
