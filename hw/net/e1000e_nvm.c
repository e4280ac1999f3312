/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The card's non-volatile memory: 64 words, reached a word at a time through EERD and EEWR (82574
 * datasheet, sections 6.1 and 10.2.2). What the guest writes lasts as long as the guest.
 *
 * Thread: registers', under the lock. Owner: struct e1000e.
 */
#include "hw/net/e1000e.h"

#include "vmm/core/util.h"

enum {
	WORD_COMPAT = 0x03,
	WORD_IMAGE_VERSION = 0x05,
	WORD_PART_NUMBER = 0x08, /* 2 */
	WORD_INIT_1 = 0x0a,
	WORD_SUBSYSTEM = 0x0b,
	WORD_SUBSYSTEM_VENDOR = 0x0c,
	WORD_DEVICE = 0x0d,
	WORD_VENDOR = 0x0e,
	WORD_INIT_2 = 0x0f,
	WORD_BOOT_AGENT = 0x30,
	WORD_OTHER_ADDRESS = 0x37,
	WORD_CHECKSUM = 0x3f,

	INIT_1 = 0x026b, /* ids are loaded from here; no wake-up */
	INIT_2 = 0x0000, /* no management firmware */
	COMPAT = 0x0420, /* a card of the maker's own for clients */
	IMAGE_VERSION = 0x2010,
	CHECKSUM = 0xbaba,
	NONE = 0xffff,
};

void e1000e_nvm_init(struct e1000e *d, const uint8_t mac[E1000E_MAC])
{
	uint16_t *nvm = d->nvm, sum = 0;

	memset(nvm, 0xff, sizeof(d->nvm));
	for (unsigned i = 0; i < E1000E_MAC / 2; i++)
		nvm[i] = load_le16(mac + 2 * i);
	nvm[WORD_COMPAT] = COMPAT;
	nvm[WORD_IMAGE_VERSION] = IMAGE_VERSION;
	nvm[WORD_PART_NUMBER] = nvm[WORD_PART_NUMBER + 1] = 0;
	nvm[WORD_INIT_1] = INIT_1;
	nvm[WORD_SUBSYSTEM] = d->subsystem;
	nvm[WORD_SUBSYSTEM_VENDOR] = d->subsystem_vendor;
	nvm[WORD_DEVICE] = d->info.device_id;
	nvm[WORD_VENDOR] = d->info.vendor_id;
	nvm[WORD_INIT_2] = INIT_2;
	/* The initialisation words that follow: no wake-up, no second function. */
	memset(nvm + WORD_INIT_2 + 1, 0, (WORD_BOOT_AGENT - WORD_INIT_2 - 1) * sizeof(*nvm));
	nvm[WORD_OTHER_ADDRESS] = NONE;
	for (unsigned i = 0; i < WORD_CHECKSUM; i++)
		sum += nvm[i];
	nvm[WORD_CHECKSUM] = CHECKSUM - sum;
}

void e1000e_nvm_load(struct e1000e *d)
{
	*e1000e_reg(d, E1000E_RAL) = d->nvm[0] | (uint32_t)d->nvm[1] << 16;
	*e1000e_reg(d, E1000E_RAH) = d->nvm[2] | E1000E_RAH_AV;
}

static unsigned word_of(uint32_t value)
{
	return value >> E1000E_NVM_ADDR_SHIFT & E1000E_NVM_ADDR_MASK;
}

void e1000e_nvm_read(struct e1000e *d, uint32_t eerd)
{
	uint32_t result = eerd & ~(UINT32_MAX << E1000E_NVM_DATA_SHIFT) & ~E1000E_NVM_DONE;
	unsigned word = word_of(eerd);

	if (eerd & E1000E_NVM_START) {
		result |= E1000E_NVM_DONE;
		if (word < E1000E_NVM_WORDS)
			result |= (uint32_t)d->nvm[word] << E1000E_NVM_DATA_SHIFT;
	}
	*e1000e_reg(d, E1000E_EERD) = result;
}

void e1000e_nvm_write(struct e1000e *d, uint32_t eewr)
{
	unsigned word = word_of(eewr);

	if ((eewr & E1000E_NVM_START) && word < E1000E_NVM_WORDS)
		d->nvm[word] = eewr >> E1000E_NVM_DATA_SHIFT;
	*e1000e_reg(d, E1000E_EEWR) = (eewr & ~E1000E_NVM_START) | E1000E_NVM_DONE;
}
