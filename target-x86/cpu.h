/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kind of CPU the guest sees: a model, features added and taken away, checked against what the
 * host can give, written out as CPUID leaves (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix
 * E; Linux Documentation/virt/kvm/x86/cpuid.rst).
 *
 * Main thread; a struct cpu_type does not change once made, so vCPU threads may read it.
 */
#ifndef TARGET_X86_CPU_H
#define TARGET_X86_CPU_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "accel/accel.h"
#include "accel/x86.h"
#include "target-x86/topology.h"
#include "vmm/core/error.h"

#define CPU_DEFAULT_MODEL "qemu64"

struct cpu_type;

/*
 * text is the argument of -cpu, NULL for CPU_DEFAULT_MODEL: "MODEL[,+feature][,-feature]
 * [,feature=on|off][,property=value]". Unknown names are errors that tell the nearest known one. A
 * feature that the host lacks is one warning and is left out; with "enforce" it is an error.
 * The topology is copied.
 */
struct cpu_type *cpu_type_new(struct accel *a, const char *text,
			      const struct cpu_topology *topology, struct error **err);
void cpu_type_free(struct cpu_type *t); /* NULL is allowed */
/* Gives a vCPU its CPUID leaves; before it first runs. */
bool cpu_type_apply(const struct cpu_type *t, struct vcpu *v, struct error **err);

/* Physical address width in bits, as CPUID tells it. */
unsigned cpu_type_phys_bits(const struct cpu_type *t);
/* Leaf 1: signature (eax) and feature flags (edx), what SMBIOS calls the processor's id. */
void cpu_type_signature(const struct cpu_type *t, uint32_t *eax, uint32_t *edx);
/* By its name as on the command line; false for unknown names too. */
bool cpu_type_has(const struct cpu_type *t, const char *feature);
/* The brand string, without padding. */
const char *cpu_type_model_id(const struct cpu_type *t);
/* The leaves of one CPU; at most max, returns how many. For tests and introspection. */
int cpu_type_cpuid(const struct cpu_type *t, uint32_t apic_id, struct x86_cpuid *out, int max);

/* -cpu help. */
void cpu_help(FILE *out);

#endif
