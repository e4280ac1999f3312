/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SMBIOS tables (DMTF DSP0134 3.x): what dmidecode shows, and where cloud-init finds
 * "ds=nocloud;..." in the system's serial number. Types 0, 1, 2, 3, 4, 11, 16, 17, 19, 32, 127.
 *
 * The manufacturer of everything is "vmm" unless -smbios says otherwise. Nothing that guests look
 * for depends on the name: systemd-detect-virt and cloud-init recognise KVM by CPUID and the bit in
 * type 0 that says "virtual machine"; cloud-init's ds-identify matches the system's serial number
 * (ds=nocloud) and other clouds' names.
 *
 * Types 0 and 2 are there when -smbios gives them something; type 0 besides when no firmware
 * follows that would add its own.
 *
 * Main thread, at start-up.
 */
#ifndef TARGET_X86_SMBIOS_H
#define TARGET_X86_SMBIOS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "target-x86/topology.h"
#include "vmm/core/error.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/opts.h"

/* The -smbios options given. */
struct smbios_options;
struct smbios_options *smbios_options_new(void);
void smbios_options_free(struct smbios_options *o); /* NULL is allowed */
/* One -smbios: "type=N[,key=value...]" or "file=FILE" (raw structures, read here). */
bool smbios_options_add(struct smbios_options *o, struct opts *opts, struct error **err);

enum smbios_entry_point {
	SMBIOS_EP_AUTO, /* 32-bit unless the tables do not fit it */
	SMBIOS_EP_32,	/* SMBIOS 2.8 */
	SMBIOS_EP_64,	/* SMBIOS 3.0 */
};

struct smbios_mem_range {
	uint64_t base, size;
};

/* The machine as it is. */
struct smbios_machine {
	enum smbios_entry_point entry_point;
	const char *name;	 /* system product, e.g. "pc-q35" */
	const char *version;	 /* of vmm */
	const char *cpu_version; /* cpu_type_model_id(); NULL: version */
	bool bios;		 /* no firmware follows: describe it here */
	const uint8_t *uuid; /* 16 bytes as written; NULL: not set (-smbios type=1,uuid= wins) */
	struct cpu_topology topology;
	uint32_t cpu_signature, cpu_features; /* cpu_type_signature() */
	uint64_t ram_size;
	uint64_t max_ram_size; /* with slots for memory to be plugged; at least ram_size */
	unsigned slots;	       /* free DIMM slots of those */
	const struct smbios_mem_range *ranges; /* RAM in guest physical memory */
	unsigned range_count;
};

struct smbios_tables {
	uint8_t *anchor; /* fw_cfg etc/smbios/smbios-anchor; table address 0 until smbios_place() */
	size_t anchor_len;
	uint8_t *tables; /* fw_cfg etc/smbios/smbios-tables */
	size_t tables_len;
};

/* o may be NULL. */
bool smbios_build(const struct smbios_options *o, const struct smbios_machine *machine,
		  struct smbios_tables *out, struct error **err);
void smbios_tables_destroy(struct smbios_tables *t);
/* For direct boot: writes anchor (at base) and tables behind it into [base, end) of guest memory.
 * base is 16-byte aligned in 0xf0000..0xfffff. *used is the number of bytes from base. */
bool smbios_place(struct smbios_tables *t, struct guest_mem *mem, uint64_t base, uint64_t end,
		  size_t *used, struct error **err);

#endif
