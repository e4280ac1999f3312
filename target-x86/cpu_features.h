/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of CPU features: name <-> bit of a CPUID register. Names are those that QEMU's and
 * libvirt's users know; '_' may stand for '-'. A model is its words of bits.
 * Constant data and pure functions; private to target-x86.
 */
#ifndef TARGET_X86_CPU_FEATURES_H
#define TARGET_X86_CPU_FEATURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cpu_word {
	CW_1_EDX,
	CW_1_ECX,
	CW_6_EAX,
	CW_7_EBX,
	CW_7_ECX,
	CW_7_EDX,
	CW_7_1_EAX,
	CW_7_1_EDX,
	CW_7_2_EDX,
	CW_D_1_EAX,
	CW_KVM_EAX,
	CW_KVM_EDX, /* hints to the guest */
	CW_80000001_EDX,
	CW_80000001_ECX,
	CW_80000007_EBX,
	CW_80000007_EDX,
	CW_80000008_EBX,
	CW_8000000A_EDX,
	CW_80000021_EAX,
	CPU_WORDS
};

enum cpu_register { CPU_EAX, CPU_EBX, CPU_ECX, CPU_EDX };

struct cpu_word_desc {
	uint32_t leaf, subleaf;
	enum cpu_register reg;
	/* By bit. NULL: not for guests. */
	const char *names[32];
	/* Named, but taken by -cpu host and max only when asked for by name. */
	uint32_t not_automatic;
};

extern const struct cpu_word_desc cpu_words[CPU_WORDS];

/* Every bit that goes by this name (kvmclock has two), or an older one. False if there is none. */
bool cpu_feature_find(const char *name, uint32_t mask[CPU_WORDS]);
/* Compares as the command line does: '_' and '-' are one. */
bool cpu_name_equal(const char *a, const char *b);
/* All bits of a word that have a name. */
uint32_t cpu_word_named(enum cpu_word w);
/* "ecx" and the like, in capitals. */
const char *cpu_register_name(enum cpu_register reg);

/* Bits that code looks at. */
enum {
	F1D_TSC = 1u << 4, F1D_APIC = 1u << 9, F1D_MTRR = 1u << 12, F1D_PAT = 1u << 16,
	F1D_MCE = 1u << 7, F1D_MCA = 1u << 14, F1D_SEP = 1u << 11, F1D_HTT = 1u << 28,
	F1D_ACPI = 1u << 22,
	F1C_MONITOR = 1u << 3, F1C_VMX = 1u << 5, F1C_PDCM = 1u << 15, F1C_X2APIC = 1u << 21,
	F1C_TSC_DEADLINE = 1u << 24, F1C_XSAVE = 1u << 26, F1C_OSXSAVE = 1u << 27,
	F1C_HYPERVISOR = 1u << 31,
	F6A_ARAT = 1u << 2,
	F7B_TSC_ADJUST = 1u << 1,
	F7C_LA57 = 1u << 16, F7C_WAITPKG = 1u << 5,
	F7D_ARCH_LBR = 1u << 19, F7D_AMX_TILE = 1u << 24, F7D_SPEC_CTRL = 1u << 26,
	FD1_XSAVES = 1u << 3, FD1_XFD = 1u << 4,
	F81D_SYSCALL = 1u << 11, F81D_NX = 1u << 20, F81D_RDTSCP = 1u << 27, F81D_LM = 1u << 29,
	F81C_CMP_LEGACY = 1u << 1, F81C_SVM = 1u << 2, F81C_TOPOEXT = 1u << 22,
	F81C_PERFCTR_CORE = 1u << 23,
	F87D_INVTSC = 1u << 8,
	/* Bits of 1:EDX that AMD repeats in 80000001:EDX. */
	F81D_ALIASES = 0x0183f3ff,
};

#endif
