/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named CPU models, and -cpu help. A model is constant data: adding one is adding an entry. The
 * figures are QEMU's, since a guest must not see a difference between the two.
 */
#include "target-x86/cpu_internal.h"

#include <string.h>

#include "vmm/core/util.h"

/* What both generic 64-bit models have: x87 up to SSE2, paging extensions, the local APIC. */
enum {
	GENERIC_1_EDX = 1u << 0 | 1u << 2 | 1u << 3 | F1D_TSC | 1u << 5 | 1u << 6 | F1D_MCE |
			1u << 8 | F1D_APIC | F1D_SEP | F1D_MTRR | 1u << 13 | F1D_MCA | 1u << 15 |
			F1D_PAT | 1u << 17 | 1u << 19 | 1u << 23 | 1u << 24 | 1u << 25 | 1u << 26,
	GENERIC_1_ECX = 1u << 0 | 1u << 13 | F1C_X2APIC | F1C_HYPERVISOR,
	GENERIC_EXT_EDX = F81D_SYSCALL | F81D_NX | F81D_LM,
	/* kvmclock (old, new, stable), no port 0x80 delay, asynchronous faults, steal time, EOI. */
	GENERIC_KVM = 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 24,
};

const struct cpu_model_desc cpu_models[] = {
	{
		.name = "host",
		.help = "the host's processor, all that KVM gives of it",
		.host = true,
	},
	{
		.name = "max",
		.help = "all features that can be had here: as host",
		.host = true,
	},
	{
		.name = "qemu64",
		.help = "QEMU Virtual CPU version 2.5+, the default",
		.model_id = "QEMU Virtual CPU version 2.5+",
		.family = 15,
		.model = 107,
		.stepping = 1,
		.level = 0xd,
		.xlevel = 0x8000000a,
		.words =
			{
				[CW_1_EDX] = GENERIC_1_EDX,
				[CW_1_ECX] = GENERIC_1_ECX,
				[CW_80000001_EDX] = GENERIC_EXT_EDX,
				[CW_80000001_ECX] = 1u << 0,
				[CW_KVM_EAX] = GENERIC_KVM,
			},
	},
	{
		.name = "kvm64",
		.help = "Common KVM processor",
		.model_id = "Common KVM processor",
		.family = 15,
		.model = 6,
		.stepping = 1,
		.level = 0xd,
		.xlevel = 0x80000008,
		.words =
			{
				[CW_1_EDX] = GENERIC_1_EDX | 1u << 1,
				[CW_1_ECX] = GENERIC_1_ECX,
				[CW_80000001_EDX] = GENERIC_EXT_EDX,
				[CW_KVM_EAX] = GENERIC_KVM,
			},
	},
};
const size_t cpu_model_count = ARRAY_SIZE(cpu_models);

static void help_names(FILE *out)
{
	int column = 0;
	for (int w = 0; w < CPU_WORDS; w++) {
		for (int bit = 0; bit < 32; bit++) {
			const char *name = cpu_words[w].names[bit];
			if (!name || (w == CW_KVM_EAX && bit == 3)) /* kvmclock's second bit */
				continue;
			int len = strlen(name);
			if (column + 1 + len > 78) {
				fputc('\n', out);
				column = 0;
			}
			column += fprintf(out, "%s%s", column ? " " : "  ", name);
		}
	}
	fputc('\n', out);
}

void cpu_help(FILE *out)
{
	fprintf(out, "Available CPUs:\n");
	for (size_t i = 0; i < cpu_model_count; i++)
		fprintf(out, "x86 %-20s  %s\n", cpu_models[i].name, cpu_models[i].help);
	fprintf(out,
		"\nProperties (NAME=VALUE):\n"
		"  vendor model-id family model stepping level xlevel kvm pmu check enforce\n"
		"  migratable phys-bits host-phys-bits host-phys-bits-limit host-cache-info\n"
		"  l3-cache\n"
		"\nRecognized CPUID flags:\n");
	help_names(out);
}
