/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The q35 board: memory, processors, chipset, firmware or direct boot, and the tables that tell a
 * guest about them. It is what QEMU's "q35" machine is to a guest, without SMM.
 *
 * Physical memory (bytes):
 *   0                    RAM up to 640 KiB
 *   0xa0000              VGA; RAM while firmware opens SMRAM
 *   0xc0000 .. 0xfffff   RAM or firmware's shadow, 16 KiB pieces, as the PAM registers say
 *   1 MiB ..             RAM, up to 2 GiB (2.75 GiB when that holds all of it)
 *   0xb0000000           ECAM, 256 MiB, movable by firmware
 *   .. 0xfebfffff        PCI memory
 *   0xfec00000           I/O APIC;  0xfee00000 local APICs
 *   .. 4 GiB             firmware
 *   4 GiB ..             the rest of RAM, then 64-bit PCI memory
 *
 * Main thread, but for the chipset's calls on vCPU threads (memory layout, interrupts).
 */
#ifndef TARGET_X86_Q35_H
#define TARGET_X86_Q35_H

#include <stdbool.h>
#include <stdint.h>

#include "accel/accel.h"
#include "target-x86/smbios.h"
#include "target-x86/topology.h"
#include "vmm/core/memory_backend.h"
#include "vmm/core/opts.h"
#include "vmm/core/vm.h"

enum { Q35_SERIALS = 4, Q35_PFLASHES = 2 };

/* Plain data; everything is borrowed for as long as the board lives. */
struct q35_config {
	const struct memory_backend *ram;

	unsigned cpus, max_cpus;
	struct cpu_topology topology;
	const char *cpu; /* -cpu, NULL: the default model */

	/* Firmware, unless kernel is given. bios NULL: the packaged SeaBIOS. */
	const char *bios;
	struct {
		const char *drive; /* its id; NULL: no such unit */
		const char *from;  /* the option, for messages */
	} pflash[Q35_PFLASHES];
	const char *kernel, *initrd, *append;

	struct {
		bool present;
		const char *chardev; /* id; NULL: nobody at the other end */
	} serials[Q35_SERIALS];

	const char *rtc_base;  /* properties of mc146818rtc as text; NULL: default */
	const char *rtc_clock;
	bool rtc_slew;

	const char *boot_order; /* "cad"; NULL: default */
	const char *boot_once;	/* the same for the first start only */
	bool boot_menu, boot_strict;
	uint64_t boot_menu_wait_ms; /* 0: firmware's own */
	bool nographic;

	struct opts **fw_cfg; /* -fw_cfg, fw_cfg_count of them */
	size_t fw_cfg_count;
	const struct smbios_options *smbios;
	const char *version; /* of vmm */
};

struct q35;

/*
 * Makes the machine up to the point where -device adds to it: RAM is mapped, vCPUs exist (threads
 * not started), buses "pcie.0", "isa.0" and "ide.0" to "ide.5" take devices. accel is the engine
 * that opened vm. On the notifier vm->reset the board does the rest.
 */
struct q35 *q35_new(struct vm *vm, struct accel *accel, const struct q35_config *config,
		    struct error **err);
/* What can only be checked when all devices are there (PCI resources, boot order, tables): before
 * vm_start(). */
bool q35_complete(struct q35 *board, struct error **err);
/* After the vCPUs are destroyed; devices are freed here. NULL is allowed. */
void q35_free(struct q35 *board);

#endif
