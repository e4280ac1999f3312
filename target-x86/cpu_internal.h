/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the CPU model share: the parsed option, the models, and the finished type.
 * Main thread; private to target-x86/cpu*.c.
 */
#ifndef TARGET_X86_CPU_INTERNAL_H
#define TARGET_X86_CPU_INTERNAL_H

#include "target-x86/cpu.h"
#include "target-x86/cpu_features.h"

enum cpu_vendor { VENDOR_OTHER, VENDOR_INTEL, VENDOR_AMD };

/* A named CPU. host and max take everything from the host. */
struct cpu_model_desc {
	const char *name, *help;
	bool host;
	const char *model_id;
	uint8_t family, model, stepping;
	uint32_t level, xlevel;
	uint32_t words[CPU_WORDS];
};
extern const struct cpu_model_desc cpu_models[];
extern const size_t cpu_model_count;

/* -cpu as written. A number that was not given is -1. */
struct cpu_options {
	const struct cpu_model_desc *model;
	uint32_t on[CPU_WORDS], off[CPU_WORDS]; /* disjoint */
	bool kvm, check, enforce, migratable, host_cache_info, l3_cache;
	int pmu, host_phys_bits; /* -1: the model's default */
	int family, model_number, stepping, phys_bits, host_phys_bits_limit;
	int64_t level, xlevel;
	char vendor[13];   /* empty: the host's */
	char model_id[49]; /* empty: the model's */
	bool model_id_set;
};
bool cpu_options_parse(struct cpu_options *o, const char *text, struct error **err);

#define CPU_MAX_LEAVES 256

struct cpu_type {
	struct cpu_topology topology;
	struct x86_cpuid host[CPU_MAX_LEAVES]; /* what the engine supports */
	int host_count;
	uint32_t words[CPU_WORDS];
	enum cpu_vendor vendor_kind;
	char vendor[13], model_id[49];
	uint32_t signature;
	uint32_t level, xlevel;
	unsigned phys_bits;
	uint64_t xcr0; /* XSAVE components that the features stand for */
	uint32_t tsc_khz;
	bool kvm, pmu, host_cache_info, l3_cache;
};

/* NULL if the engine does not list it. */
const struct x86_cpuid *cpu_host_leaf(const struct cpu_type *t, uint32_t leaf, uint32_t subleaf);
uint32_t cpu_host_register(const struct cpu_type *t, uint32_t leaf, uint32_t subleaf,
			   enum cpu_register reg);

#endif
