/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of every CPUID leaf of one CPU (Intel SDM volume 2, CPUID; AMD APM volume 3,
 * appendix E.3 and E.4; hypervisor leaves: Linux Documentation/virt/kvm/x86/cpuid.rst and
 * VMware's 40000010). Leaves that are all zero are left out: an engine answers them so.
 * Pure functions of a finished type.
 */
#include "target-x86/cpu_internal.h"

#include "vmm/core/util.h"

struct leaves {
	struct x86_cpuid *out;
	int count, max;
};

static void put(struct leaves *l, struct x86_cpuid leaf)
{
	if (l->count < l->max)
		l->out[l->count++] = leaf;
}

static void put_plain(struct leaves *l, uint32_t function, uint32_t eax, uint32_t ebx, uint32_t ecx,
		      uint32_t edx)
{
	if (eax | ebx | ecx | edx)
		put(l, (struct x86_cpuid){function, 0, false, eax, ebx, ecx, edx});
}

static void put_sub(struct leaves *l, uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx,
		    uint32_t ecx, uint32_t edx)
{
	put(l, (struct x86_cpuid){function, index, true, eax, ebx, ecx, edx});
}

/* Number of CPUs in a package. */
static unsigned per_package(const struct cpu_type *t)
{
	return t->topology.dies * t->topology.cores * t->topology.threads;
}

/*
 * Caches that the guest is told of when it does not see the host's. The sizes are those that QEMU
 * tells: programs tune themselves by them.
 */
enum cache_type { CACHE_DATA = 1, CACHE_CODE, CACHE_UNIFIED };
struct cache {
	enum cache_type type;
	unsigned level, kib, ways, sets;
	bool no_invd_sharing; /* flushing one CPU's does not flush its siblings' */
	bool inclusive, complex_index;
};
#define CACHE_LINE 64

static const struct cache intel_caches[] = {
	{CACHE_DATA, 1, 32, 8, 64, true, false, false},
	{CACHE_CODE, 1, 32, 8, 64, true, false, false},
	{CACHE_UNIFIED, 2, 4096, 16, 4096, true, false, false},
	{CACHE_UNIFIED, 3, 16384, 16, 16384, false, true, true},
};
static const struct cache amd_caches[] = {
	{CACHE_DATA, 1, 64, 2, 512, true, false, false},
	{CACHE_CODE, 1, 64, 2, 512, true, false, false},
	{CACHE_UNIFIED, 2, 512, 16, 512, false, false, false},
	{CACHE_UNIFIED, 3, 16384, 16, 16384, false, true, true},
};

/* Leaf 4 and leaf 8000001d share their layout, but for the cores in a package. */
static void put_cache(struct leaves *l, const struct cpu_type *t, uint32_t function, uint32_t index,
		      const struct cache *c)
{
	unsigned shift = c->level == 3 ? cpu_topology_die_shift(&t->topology)
				       : cpu_topology_core_shift(&t->topology);
	uint32_t sharing = (1u << MIN(shift, 12u)) - 1;
	uint32_t eax = c->type | c->level << 5 | 1u << 8 | sharing << 14;
	if (function == 4) {
		unsigned cores = cpu_topology_package_shift(&t->topology) -
				 cpu_topology_core_shift(&t->topology);
		eax |= ((1u << MIN(cores, 6u)) - 1) << 26;
	}
	put_sub(l, function, index, eax, (CACHE_LINE - 1) | (c->ways - 1) << 22, c->sets - 1,
		(uint32_t)c->no_invd_sharing | (uint32_t)c->inclusive << 1 |
			(uint32_t)c->complex_index << 2);
}

/* The host's caches, shared among no more CPUs than this guest has. */
static void put_host_caches(struct leaves *l, const struct cpu_type *t, uint32_t function)
{
	unsigned package = MIN(cpu_topology_package_shift(&t->topology), 12u);
	unsigned cores = cpu_topology_package_shift(&t->topology) -
			 cpu_topology_core_shift(&t->topology);
	for (uint32_t i = 0; i < 8; i++) {
		const struct x86_cpuid *h = cpu_host_leaf(t, function, i);
		if (!h || !(h->eax & 0x1f))
			break;
		uint32_t sharing = MIN(h->eax >> 14 & 0xfff, (1u << package) - 1);
		uint32_t eax = (h->eax & 0x3fff) | sharing << 14;
		if (function == 4)
			eax |= ((1u << MIN(cores, 6u)) - 1) << 26;
		put_sub(l, function, i, eax, h->ebx, h->ecx, h->edx);
	}
}

static void put_caches(struct leaves *l, const struct cpu_type *t, uint32_t function)
{
	if (t->host_cache_info) {
		put_host_caches(l, t, function);
		return;
	}
	const struct cache *caches = function == 4 ? intel_caches : amd_caches;
	for (uint32_t i = 0; i < (t->l3_cache ? 4 : 3); i++)
		put_cache(l, t, function, i, &caches[i]);
}

static void put_leaf_1(struct leaves *l, const struct cpu_type *t, uint32_t apic_id)
{
	uint32_t ebx = (apic_id & 0xff) << 24 | (CACHE_LINE / 8) << 8;
	if (per_package(t) > 1)
		ebx |= MIN(per_package(t), 255u) << 16;
	put_plain(l, 1, t->signature, ebx, t->words[CW_1_ECX], t->words[CW_1_EDX]);
}

static void put_leaf_7(struct leaves *l, const struct cpu_type *t)
{
	uint32_t last = 0;
	if (t->words[CW_7_1_EAX] | t->words[CW_7_1_EDX])
		last = 1;
	if (t->words[CW_7_2_EDX])
		last = 2;
	put_sub(l, 7, 0, last, t->words[CW_7_EBX], t->words[CW_7_ECX], t->words[CW_7_EDX]);
	if (last >= 1)
		put_sub(l, 7, 1, t->words[CW_7_1_EAX], 0, 0, t->words[CW_7_1_EDX]);
	if (last >= 2)
		put_sub(l, 7, 2, 0, 0, 0, t->words[CW_7_2_EDX]);
}

/* Leaf b knows threads and cores, leaf 1f dies besides. */
static void put_topology(struct leaves *l, const struct cpu_type *t, uint32_t function,
			 uint32_t apic_id)
{
	enum { SMT = 1, CORE = 2, DIE = 5 };
	const struct cpu_topology *top = &t->topology;
	bool dies = function == 0x1f;
	unsigned package_shift = cpu_topology_package_shift(top);
	put_sub(l, function, 0, cpu_topology_core_shift(top), top->threads, SMT << 8, apic_id);
	put_sub(l, function, 1, dies ? cpu_topology_die_shift(top) : package_shift,
		(dies ? top->cores * top->threads : per_package(t)) & 0xffff, CORE << 8 | 1,
		apic_id);
	if (dies)
		put_sub(l, function, 2, package_shift, per_package(t) & 0xffff, DIE << 8 | 2,
			apic_id);
	put_sub(l, function, dies ? 3 : 2, 0, 0, dies ? 3 : 2, apic_id);
}

/* Offsets and sizes are the processor's own, since the guest's XSAVE is executed by it. */
static void put_leaf_d(struct leaves *l, const struct cpu_type *t)
{
	if (!t->xcr0)
		return;
	uint32_t size = 512 + 64;
	for (uint32_t i = 2; i < 63; i++) {
		const struct x86_cpuid *h = cpu_host_leaf(t, 0xd, i);
		if ((t->xcr0 >> i & 1) && h)
			size = MAX(size, h->eax + h->ebx);
	}
	/* ebx: the size for what is enabled in XCR0, which the engine keeps up to date. */
	put_sub(l, 0xd, 0, (uint32_t)t->xcr0, 512 + 64, size, (uint32_t)(t->xcr0 >> 32));
	put_sub(l, 0xd, 1, t->words[CW_D_1_EAX], 0, 0, 0);
	for (uint32_t i = 2; i < 63; i++) {
		const struct x86_cpuid *h = cpu_host_leaf(t, 0xd, i);
		if ((t->xcr0 >> i & 1) && h)
			put_sub(l, 0xd, i, h->eax, h->ebx, h->ecx & 7, 0);
	}
}

static void put_host_copy(struct leaves *l, const struct cpu_type *t, uint32_t function)
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct x86_cpuid *h = cpu_host_leaf(t, function, i);
		if (h && (i == 0 || h->index_significant))
			put(l, *h);
	}
}

static void put_basic(struct leaves *l, const struct cpu_type *t, uint32_t apic_id)
{
	put(l, (struct x86_cpuid){.eax = t->level,
				  .ebx = load_le32(t->vendor),
				  .edx = load_le32(t->vendor + 4),
				  .ecx = load_le32(t->vendor + 8)});
	put_leaf_1(l, t, apic_id);
	if (t->vendor_kind != VENDOR_AMD) {
		/* Descriptor ff: look at leaf 4. */
		if (t->host_cache_info)
			put_host_copy(l, t, 2);
		else
			put_plain(l, 2, 0x0000ff01, 0, 0, 0);
		put_caches(l, t, 4);
	}
	put_plain(l, 5, 0, 0, 3, 0); /* MONITOR: what the leaf enumerates, and nothing of it */
	put_plain(l, 6, t->words[CW_6_EAX], 0, 0, 0);
	if (t->level >= 7)
		put_leaf_7(l, t);
	if (t->pmu && t->level >= 0xa)
		put_host_copy(l, t, 0xa);
	if (t->level >= 0xb)
		put_topology(l, t, 0xb, apic_id);
	if (t->level >= 0xd)
		put_leaf_d(l, t);
	if (t->words[CW_7_EDX] & F7D_AMX_TILE) {
		put_host_copy(l, t, 0x1d);
		put_host_copy(l, t, 0x1e);
	}
	if (t->topology.dies > 1 && t->level >= 0x1f)
		put_topology(l, t, 0x1f, apic_id);
}

/* Guests look for the signature, then for the features. */
static void put_hypervisor(struct leaves *l, const struct cpu_type *t)
{
	if (!t->kvm)
		return;
	/* The TSC's rate holds for good only if the clock never stops or changes. */
	bool rate = t->tsc_khz && (t->words[CW_80000007_EDX] & F87D_INVTSC);
	put_plain(l, 0x40000000, rate ? 0x40000010 : 0x40000001, load_le32("KVMK"),
		  load_le32("VMKV"), load_le32("M\0\0"));
	put_plain(l, 0x40000001, t->words[CW_KVM_EAX], 0, 0, t->words[CW_KVM_EDX]);
	if (rate)
		put_plain(l, 0x40000010, t->tsc_khz, 1000000 /* kHz, the local APIC's bus */, 0, 0);
}

/* Encoding of the number of ways in leaf 80000006. */
static uint32_t ways_code(unsigned ways)
{
	return ways == 16 ? 8 : ways == 8 ? 6 : ways;
}

static void put_amd_caches(struct leaves *l, const struct cpu_type *t)
{
	if (t->host_cache_info) {
		put_host_copy(l, t, 0x80000005);
		put_host_copy(l, t, 0x80000006);
		return;
	}
	const struct cache *c = amd_caches;
	uint32_t l1_tlb = 1u << 24 | 255u << 16 | 1u << 8 | 255;
	if (t->vendor_kind == VENDOR_AMD)
		put_plain(l, 0x80000005, l1_tlb, l1_tlb,
			  c[0].kib << 24 | c[0].ways << 16 | 1u << 8 | CACHE_LINE,
			  c[1].kib << 24 | c[1].ways << 16 | 1u << 8 | CACHE_LINE);
	uint32_t l2_tlb = 4u << 28 | 512u << 16 | 4u << 12 | 512;
	put_plain(l, 0x80000006, 0, t->vendor_kind == VENDOR_AMD ? l2_tlb : 0,
		  c[2].kib << 16 | ways_code(c[2].ways) << 12 | 1u << 8 | CACHE_LINE,
		  t->l3_cache && t->vendor_kind == VENDOR_AMD
			  ? c[3].kib / 512 << 18 | ways_code(c[3].ways) << 12 | 1u << 8 | CACHE_LINE
			  : 0);
}

static void put_leaf_80000008(struct leaves *l, const struct cpu_type *t)
{
	unsigned virt_bits = t->words[CW_7_ECX] & F7C_LA57 ? 57 : 48;
	if (!(t->words[CW_80000001_EDX] & F81D_LM))
		virt_bits = 32;
	uint32_t ecx = 0;
	if (per_package(t) > 1)
		ecx = cpu_topology_package_shift(&t->topology) << 12 |
		      (MIN(per_package(t), 256u) - 1);
	put_plain(l, 0x80000008, t->phys_bits | virt_bits << 8, t->words[CW_80000008_EBX], ecx, 0);
}

static void put_leaf_8000001e(struct leaves *l, const struct cpu_type *t, uint32_t apic_id)
{
	const struct cpu_topology *top = &t->topology;
	unsigned core_shift = cpu_topology_core_shift(top), die_shift = cpu_topology_die_shift(top);
	uint32_t core = apic_id >> core_shift & ((1u << (die_shift - core_shift)) - 1);
	put_plain(l, 0x8000001e, apic_id, (top->threads - 1) << 8 | (core & 0xff),
		  ((top->dies - 1) & 7) << 8 | (apic_id >> die_shift & 0xff), 0);
}

static void put_extended(struct leaves *l, const struct cpu_type *t, uint32_t apic_id)
{
	bool amd = t->vendor_kind == VENDOR_AMD;
	uint32_t vendor[3] = {load_le32(t->vendor), load_le32(t->vendor + 4),
			      load_le32(t->vendor + 8)};
	put_plain(l, 0x80000000, t->xlevel, vendor[0], vendor[2], vendor[1]);
	uint32_t edx = t->words[CW_80000001_EDX];
	if (amd)
		edx |= t->words[CW_1_EDX] & F81D_ALIASES;
	put_plain(l, 0x80000001, amd ? t->signature : 0, 0, t->words[CW_80000001_ECX], edx);
	char id[48] = "";
	memcpy(id, t->model_id, MIN(strlen(t->model_id), sizeof(id)));
	for (uint32_t i = 0; i < 3; i++)
		put_plain(l, 0x80000002 + i, load_le32(id + i * 16), load_le32(id + i * 16 + 4),
			  load_le32(id + i * 16 + 8), load_le32(id + i * 16 + 12));
	put_amd_caches(l, t);
	put_plain(l, 0x80000007, 0, t->words[CW_80000007_EBX], 0, t->words[CW_80000007_EDX]);
	put_leaf_80000008(l, t);
	if (t->words[CW_80000001_ECX] & F81C_SVM)
		put_plain(l, 0x8000000a, 1, 16 /* ASIDs */, 0, t->words[CW_8000000A_EDX]);
	if (amd && (t->words[CW_80000001_ECX] & F81C_TOPOEXT)) {
		put_caches(l, t, 0x8000001d);
		put_leaf_8000001e(l, t, apic_id);
	}
	put_plain(l, 0x80000021, t->words[CW_80000021_EAX], 0, 0, 0);
}

int cpu_type_cpuid(const struct cpu_type *t, uint32_t apic_id, struct x86_cpuid *out, int max)
{
	struct leaves l = {out, 0, max};
	put_basic(&l, t, apic_id);
	put_hypervisor(&l, t);
	put_extended(&l, t, apic_id);
	return l.count;
}
