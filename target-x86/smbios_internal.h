/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The -smbios options, as smbios_options.c takes them and smbios.c writes them out.
 * Main thread; private to target-x86/smbios*.c.
 */
#ifndef TARGET_X86_SMBIOS_INTERNAL_H
#define TARGET_X86_SMBIOS_INTERNAL_H

#include "target-x86/smbios.h"

/* Every string that can be set. */
enum smbios_string {
	T0_VENDOR,
	T0_VERSION,
	T0_DATE,
	T1_MANUFACTURER,
	T1_PRODUCT,
	T1_VERSION,
	T1_SERIAL,
	T1_SKU,
	T1_FAMILY,
	T2_MANUFACTURER,
	T2_PRODUCT,
	T2_VERSION,
	T2_SERIAL,
	T2_ASSET,
	T2_LOCATION,
	T3_MANUFACTURER,
	T3_VERSION,
	T3_SERIAL,
	T3_ASSET,
	T3_SKU,
	T4_SOCK_PFX,
	T4_MANUFACTURER,
	T4_VERSION,
	T4_SERIAL,
	T4_ASSET,
	T4_PART,
	T17_LOC_PFX,
	T17_BANK,
	T17_MANUFACTURER,
	T17_SERIAL,
	T17_ASSET,
	T17_PART,
	SMBIOS_STRINGS
};

struct smbios_options {
	char *strings[SMBIOS_STRINGS]; /* owned; NULL: not given */
	bool type0, type2;	       /* -smbios named them */
	bool uefi, uuid_set;
	uint8_t release_major, release_minor;
	uint8_t uuid[16];
	uint64_t processor_id;
	bool processor_id_set;
	uint16_t max_speed, current_speed; /* MHz */
	uint16_t memory_speed;		   /* MT/s */
	char **oem;			   /* type 11, owned */
	size_t oem_count;
	uint8_t *blob; /* file=: whole structures, behind one another */
	size_t blob_len;
	bool blob_types[256]; /* that it has, and are not made then */
};

#define SMBIOS_MAX_STRINGS 255

/* Length of the structure at p with its strings, or 0 if there is no whole one in len bytes. */
size_t smbios_structure_len(const uint8_t *p, size_t len);

#endif
