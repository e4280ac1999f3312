/* SPDX-License-Identifier: Apache-2.0 */
/*
 * APIC ids from the place of a CPU (Intel SDM volume 3, 9.9). Pure functions.
 */
#include "target-x86/topology.h"

/* Bits that hold 0 .. count - 1. */
static unsigned width(unsigned count)
{
	return count > 1 ? 32 - __builtin_clz(count - 1) : 0;
}

unsigned cpu_topology_core_shift(const struct cpu_topology *t)
{
	return width(t->threads);
}

unsigned cpu_topology_die_shift(const struct cpu_topology *t)
{
	return cpu_topology_core_shift(t) + width(t->cores);
}

unsigned cpu_topology_package_shift(const struct cpu_topology *t)
{
	return cpu_topology_die_shift(t) + width(t->dies);
}

uint64_t cpu_topology_places(const struct cpu_topology *t)
{
	return (uint64_t)t->sockets * t->dies * t->cores * t->threads;
}

uint32_t cpu_topology_apic_id(const struct cpu_topology *t, unsigned index)
{
	unsigned thread = index % t->threads;
	unsigned core = index / t->threads % t->cores;
	unsigned die = index / t->threads / t->cores % t->dies;
	unsigned package = index / t->threads / t->cores / t->dies;
	return package << cpu_topology_package_shift(t) | die << cpu_topology_die_shift(t) |
	       core << cpu_topology_core_shift(t) | thread;
}
