/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of CPU features (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; Linux
 * Documentation/virt/kvm/x86/cpuid.rst). Constant data and pure functions.
 *
 * A bit without a name never reaches a guest unless migratable=off: nobody here knows whether it
 * needs more than CPUID to work. osxsave and ospke follow the guest's CR4, which the engine does.
 */
#include "target-x86/cpu_features.h"

#include "vmm/core/util.h"

const struct cpu_word_desc cpu_words[CPU_WORDS] = {
	[CW_1_EDX] = {
		.leaf = 1, .reg = CPU_EDX,
		.names = {
			"fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce",
			"cx8", "apic", NULL, "sep", "mtrr", "pge", "mca", "cmov",
			"pat", "pse36", "pn", "clflush", NULL, "ds", "acpi", "mmx",
			"fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe",
		},
		.not_automatic = F1D_HTT, /* follows the topology */
	},
	[CW_1_ECX] = {
		.leaf = 1, .reg = CPU_ECX,
		.names = {
			"pni", "pclmulqdq", "dtes64", "monitor",
			"ds-cpl", "vmx", "smx", "est",
			"tm2", "ssse3", "cid", NULL, "fma", "cx16", "xtpr", "pdcm",
			NULL, "pcid", "dca", "sse4.1", "sse4.2", "x2apic", "movbe",
			"popcnt",
			"tsc-deadline", "aes", "xsave", NULL, "avx", "f16c", "rdrand", "hypervisor",
		},
	},
	[CW_6_EAX] = {
		.leaf = 6, .reg = CPU_EAX,
		.names = { [2] = "arat" },
	},
	[CW_7_EBX] = {
		.leaf = 7, .reg = CPU_EBX,
		.names = {
			"fsgsbase", "tsc-adjust", "sgx", "bmi1", "hle", "avx2", "fdp-excptn-only",
			"smep",
			"bmi2", "erms", "invpcid", "rtm", NULL, "zero-fcs-fds", "mpx", NULL,
			"avx512f", "avx512dq", "rdseed", "adx", "smap", "avx512ifma", "pcommit",
			"clflushopt",
			"clwb", "intel-pt", "avx512pf", "avx512er", "avx512cd", "sha-ni",
			"avx512bw", "avx512vl",
		},
	},
	[CW_7_ECX] = {
		.leaf = 7, .reg = CPU_ECX,
		.names = {
			NULL, "avx512vbmi", "umip", "pku", NULL, "waitpkg", "avx512vbmi2", NULL,
			"gfni", "vaes", "vpclmulqdq", "avx512vnni", "avx512bitalg", NULL,
			"avx512-vpopcntdq", NULL,
			"la57", NULL, NULL, NULL, NULL, NULL, "rdpid", NULL,
			"bus-lock-detect", "cldemote", NULL, "movdiri", "movdir64b", NULL,
			"sgxlc", "pks",
		},
	},
	[CW_7_EDX] = {
		.leaf = 7, .reg = CPU_EDX,
		.names = {
			NULL, NULL, "avx512-4vnniw", "avx512-4fmaps", "fsrm", NULL, NULL, NULL,
			"avx512-vp2intersect", NULL, "md-clear", NULL, NULL, NULL, "serialize",
			NULL,
			"tsx-ldtrk", NULL, NULL, "arch-lbr", NULL, NULL, "amx-bf16", "avx512-fp16",
			"amx-tile", "amx-int8", "spec-ctrl", "stibp", "flush-l1d",
			"arch-capabilities", "core-capability", "ssbd",
		},
	},
	[CW_7_1_EAX] = {
		.leaf = 7, .subleaf = 1, .reg = CPU_EAX,
		.names = {
			[0] = "sha512", [1] = "sm3", [2] = "sm4", [4] = "avx-vnni",
			[5] = "avx512-bf16", [7] = "cmpccxadd", [10] = "fzrm", [11] = "fsrs",
			[12] = "fsrc", [17] = "fred", [18] = "lkgs", [19] = "wrmsrns",
			[21] = "amx-fp16", [23] = "avx-ifma", [26] = "lam",
		},
	},
	[CW_7_1_EDX] = {
		.leaf = 7, .subleaf = 1, .reg = CPU_EDX,
		.names = {
			[4] = "avx-vnni-int8", [5] = "avx-ne-convert", [8] = "amx-complex",
			[10] = "avx-vnni-int16", [14] = "prefetchiti",
		},
	},
	[CW_7_2_EDX] = {
		.leaf = 7, .subleaf = 2, .reg = CPU_EDX,
		.names = {
			"intel-psfd", "ipred-ctrl", "rrsba-ctrl", "ddpd-u", "bhi-ctrl", "mcdt-no",
		},
	},
	[CW_D_1_EAX] = {
		.leaf = 0xd, .subleaf = 1, .reg = CPU_EAX,
		.names = { "xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd" },
	},
	[CW_KVM_EAX] = {
		.leaf = 0x40000001, .reg = CPU_EAX,
		.names = {
			"kvmclock", "kvm-nopiodelay", "kvm-mmu", "kvmclock", "kvm-asyncpf",
			"kvm-steal-time", "kvm-pv-eoi", "kvm-pv-unhalt",
			NULL, "kvm-pv-tlb-flush", "kvm-asyncpf-vmexit", "kvm-pv-ipi",
			"kvm-poll-control", "kvm-pv-sched-yield", "kvm-asyncpf-int",
			"kvm-msi-ext-dest-id",
			[24] = "kvmclock-stable-bit",
		},
	},
	[CW_KVM_EDX] = {
		.leaf = 0x40000001, .reg = CPU_EDX,
		.names = { "kvm-hint-dedicated" },
		.not_automatic = ~0u,
	},
	[CW_80000001_EDX] = {
		.leaf = 0x80000001, .reg = CPU_EDX,
		.names = {
			[11] = "syscall", [19] = "mp", [20] = "nx", [22] = "mmxext",
			[25] = "fxsr-opt", [26] = "pdpe1gb", [27] = "rdtscp",
			[29] = "lm", [30] = "3dnowext", [31] = "3dnow",
		},
		.not_automatic = 1u << 19,
	},
	[CW_80000001_ECX] = {
		.leaf = 0x80000001, .reg = CPU_ECX,
		.names = {
			"lahf-lm", "cmp-legacy", "svm", "extapic", "cr8legacy", "abm", "sse4a",
			"misalignsse",
			"3dnowprefetch", "osvw", "ibs", "xop", "skinit", "wdt", NULL, "lwp",
			"fma4", "tce", NULL, "nodeid-msr", NULL, "tbm", "topoext", "perfctr-core",
			"perfctr-nb",
		},
		/* Both follow the topology. */
		.not_automatic = F81C_TOPOEXT | F81C_CMP_LEGACY,
	},
	[CW_80000007_EBX] = {
		.leaf = 0x80000007, .reg = CPU_EBX,
		.names = { "overflow-recov", "succor" },
	},
	[CW_80000007_EDX] = {
		.leaf = 0x80000007, .reg = CPU_EDX,
		.names = { [8] = "invtsc" },
		.not_automatic = F87D_INVTSC, /* a guest that relies on it cannot migrate */
	},
	[CW_80000008_EBX] = {
		.leaf = 0x80000008, .reg = CPU_EBX,
		.names = {
			[0] = "clzero", [2] = "xsaveerptr", [9] = "wbnoinvd", [12] = "ibpb",
			[14] = "ibrs", [15] = "amd-stibp", [17] = "stibp-always-on",
			[24] = "amd-ssbd", [25] = "virt-ssbd", [26] = "amd-no-ssb",
			[28] = "amd-psfd",
		},
	},
	[CW_8000000A_EDX] = {
		.leaf = 0x8000000a, .reg = CPU_EDX,
		.names = {
			"npt", "lbrv", "svm-lock", "nrip-save", "tsc-scale", "vmcb-clean",
			"flushbyasid", "decodeassists",
			NULL, NULL, "pause-filter", NULL, "pfthreshold", "avic", NULL,
			"v-vmsave-vmload",
			"vgif", [25] = "vnmi", [28] = "svme-addr-chk",
		},
	},
	[CW_80000021_EAX] = {
		.leaf = 0x80000021, .reg = CPU_EAX,
		.names = {
			[0] = "no-nested-data-bp", [2] = "lfence-always-serializing",
			[6] = "null-sel-clr-base", [8] = "auto-ibrs",
		},
	},
};

/* Other names of features. */
static const struct {
	const char *alias, *name;
} aliases[] = {
	{"sse3", "pni"},
	{"pclmuldq", "pclmulqdq"},
	{"sse4-1", "sse4.1"},
	{"sse4-2", "sse4.2"},
	{"xd", "nx"},
	{"ffxsr", "fxsr-opt"},
	{"i64", "lm"},
	{"nripsave", "nrip-save"},
};

static char hyphen(char c)
{
	return c == '_' ? '-' : c;
}

bool cpu_name_equal(const char *a, const char *b)
{
	while (*a && hyphen(*a) == hyphen(*b)) {
		a++;
		b++;
	}
	return hyphen(*a) == hyphen(*b);
}

bool cpu_feature_find(const char *name, uint32_t mask[CPU_WORDS])
{
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
		if (cpu_name_equal(name, aliases[i].alias))
			name = aliases[i].name;
	for (int w = 0; w < CPU_WORDS; w++) {
		mask[w] = 0;
		for (int bit = 0; bit < 32; bit++) {
			const char *known = cpu_words[w].names[bit];

			if (!known || !cpu_name_equal(name, known))
				continue;
			mask[w] |= 1u << bit;
			found = true;
		}
	}
	return found;
}

uint32_t cpu_word_named(enum cpu_word w)
{
	uint32_t mask = 0;
	for (int bit = 0; bit < 32; bit++)
		if (cpu_words[w].names[bit])
			mask |= 1u << bit;
	return mask;
}

const char *cpu_register_name(enum cpu_register reg)
{
	static const char *const names[] = { "EAX", "EBX", "ECX", "EDX" };
	return names[reg];
}
