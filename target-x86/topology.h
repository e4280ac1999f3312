/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a CPU sits: sockets of dies of cores of threads, and the APIC id that says so. Each level
 * has a bit field of the id, as wide as its count needs (Intel SDM volume 3, 9.9, x2APIC ids), so
 * ids have gaps when counts are not powers of two. Pure functions.
 */
#ifndef TARGET_X86_TOPOLOGY_H
#define TARGET_X86_TOPOLOGY_H

#include <stdbool.h>
#include <stdint.h>

struct cpu_topology {
	unsigned sockets, dies, cores, threads; /* in the machine, per socket, per die, per core */
};

/* CPUs are numbered threads first, then cores, dies, sockets. */
uint32_t cpu_topology_apic_id(const struct cpu_topology *t, unsigned index);
/* Shift of an APIC id to the id of the core, die, package. */
unsigned cpu_topology_core_shift(const struct cpu_topology *t);
unsigned cpu_topology_die_shift(const struct cpu_topology *t);
unsigned cpu_topology_package_shift(const struct cpu_topology *t);
/* Places of the whole topology, hotpluggable ones included. */
uint64_t cpu_topology_places(const struct cpu_topology *t);

#endif
