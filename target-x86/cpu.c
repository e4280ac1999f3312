/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From -cpu and the host to a finished CPU type: which features the guest gets, which identity, how
 * far the leaves go. Their registers are written in cpu_leaves.c.
 * Main thread; the type belongs to the board.
 */
#include "target-x86/cpu_internal.h"

#include <cpuid.h>
#include <stdlib.h>

#include "vmm/core/log.h"
#include "vmm/core/util.h"

/* What QEMU tells guests of models that do not take the host's width. */
#define DEFAULT_PHYS_BITS 40

/* Named, yet never given: they need machinery beyond CPUID (enclave memory, trace buffers, saved
 * supervisor state) that is not here. */
static const uint32_t withheld[CPU_WORDS] = {
	[CW_1_ECX] = F1C_OSXSAVE,
	[CW_7_EBX] = 1u << 2 | 1u << 25,	    /* sgx, intel-pt */
	[CW_7_ECX] = 1u << 4 | 1u << 30 | 1u << 31, /* ospke, sgxlc, pks */
	[CW_7_EDX] = F7D_ARCH_LBR,
	[CW_80000001_EDX] = F81D_ALIASES,
};

/* XSAVE components that a feature needs, and that the host must have for it. */
static const struct {
	enum cpu_word word;
	uint32_t bit;
	uint64_t components;
} xsave_needs[] = {
	{CW_1_ECX, 1u << 28, 1u << 2},		     /* avx: upper halves */
	{CW_7_EBX, 1u << 14, 3u << 3},		     /* mpx: bound registers */
	{CW_7_EBX, 1u << 16, 7u << 5},		     /* avx512f: masks, upper registers */
	{CW_7_ECX, 1u << 3, 1u << 9},		     /* pku: PKRU */
	{CW_7_EDX, F7D_AMX_TILE, UINT64_C(3) << 17}, /* tile configuration and data */
};

/* Without the first, none of the others. In order, so that it works through chains. */
static const struct {
	const char *feature;
	const char *others; /* separated by blanks */
} needs[] = {
	{"xsave", "xsaveopt xsavec xgetbv1 xsaves xfd avx mpx pku amx-tile"},
	{"avx", "fma f16c xop fma4 avx2 vaes vpclmulqdq avx-vnni avx-ifma avx-vnni-int8 "
		"avx-ne-convert avx-vnni-int16 avx512f"},
	{"avx512f", "avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi "
		    "avx512vbmi2 avx512vnni avx512bitalg avx512-vpopcntdq avx512-4vnniw "
		    "avx512-4fmaps avx512-vp2intersect avx512-bf16 avx512-fp16"},
	{"amx-tile", "amx-bf16 amx-int8 amx-fp16 amx-complex xfd"},
	{"svm", "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists "
		"pause-filter pfthreshold avic v-vmsave-vmload vgif vnmi svme-addr-chk"},
};

const struct x86_cpuid *cpu_host_leaf(const struct cpu_type *t, uint32_t leaf, uint32_t subleaf)
{
	for (int i = 0; i < t->host_count; i++) {
		const struct x86_cpuid *e = &t->host[i];
		if (e->function == leaf && (!e->index_significant || e->index == subleaf))
			return e;
	}
	return NULL;
}

uint32_t cpu_host_register(const struct cpu_type *t, uint32_t leaf, uint32_t subleaf,
			   enum cpu_register reg)
{
	const struct x86_cpuid *e = cpu_host_leaf(t, leaf, subleaf);
	if (!e)
		return 0;
	return reg == CPU_EAX ? e->eax : reg == CPU_EBX ? e->ebx : reg == CPU_ECX ? e->ecx : e->edx;
}

static uint64_t host_xcr0(const struct cpu_type *t)
{
	return cpu_host_register(t, 0xd, 0, CPU_EAX) |
	       (uint64_t)cpu_host_register(t, 0xd, 0, CPU_EDX) << 32;
}

/* What the guest could have of a word: what the engine lists, and what every KVM with a local APIC
 * in the kernel does without listing it. */
static uint32_t host_word(const struct cpu_type *t, enum cpu_word w)
{
	const struct cpu_word_desc *d = &cpu_words[w];
	uint32_t bits = cpu_host_register(t, d->leaf, d->subleaf, d->reg);
	switch (w) {
	case CW_1_EDX:
		bits |= F1D_MTRR | F1D_PAT | F1D_MCE | F1D_MCA | F1D_HTT;
		break;
	case CW_1_ECX:
		bits |= F1C_HYPERVISOR | F1C_TSC_DEADLINE;
		break;
	case CW_6_EAX:
		bits |= F6A_ARAT;
		break;
	case CW_80000001_EDX:
		bits |= 1u << 19; /* "mp" says nothing but that there are several */
		break;
	case CW_80000001_ECX:
		if (t->vendor_kind == VENDOR_AMD)
			bits |= F81C_TOPOEXT;
		bits |= F81C_CMP_LEGACY;
		break;
	case CW_KVM_EDX:
		bits |= 1; /* a hint is a promise of the user, not of the host */
		break;
	default:
		break;
	}
	bits &= ~withheld[w];
	for (size_t i = 0; i < ARRAY_SIZE(xsave_needs); i++)
		if (xsave_needs[i].word == w &&
		    (host_xcr0(t) & xsave_needs[i].components) != xsave_needs[i].components)
			bits &= ~xsave_needs[i].bit;
	if ((w == CW_KVM_EAX || w == CW_KVM_EDX) && !t->kvm)
		bits = 0;
	return bits;
}

static void warn_bits(const char *what, enum cpu_word w, uint32_t bits)
{
	const struct cpu_word_desc *d = &cpu_words[w];
	for (int bit = 0; bit < 32; bit++) {
		if (!(bits & 1u << bit))
			continue;
		const char *name = d->names[bit];
		log_warn("%s: CPUID.%02XH:%s%s%s [bit %d]", what, d->leaf,
			 cpu_register_name(d->reg), name ? "." : "", name ? name : "", bit);
	}
}

static bool has_all(const uint32_t *words, const uint32_t *mask)
{
	for (int w = 0; w < CPU_WORDS; w++)
		if (mask[w] & ~words[w])
			return false;
	return true;
}

/* Takes away what lacks its ground; warns where the user had asked for it. */
static void drop_dependents(uint32_t *words, const uint32_t *asked, bool warn)
{
	for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
		uint32_t mask[CPU_WORDS];
		if (cpu_feature_find(needs[i].feature, mask) && has_all(words, mask))
			continue;
		for (const char *p = needs[i].others; *p;) {
			char name[32];
			size_t len = strcspn(p, " ");
			snprintf(name, sizeof(name), "%.*s", (int)len, p);
			p += len + (p[len] == ' ');
			cpu_feature_find(name, mask);
			for (int w = 0; w < CPU_WORDS; w++) {
				if (warn)
					warn_bits("This feature depends on other features that "
						  "were not requested",
						  w, mask[w] & words[w] & asked[w]);
				words[w] &= ~mask[w];
			}
		}
	}
}

/* Bits that come from the machine unless the user decides: the topology's and the PMU's. */
static void add_machine_features(struct cpu_type *t, const struct cpu_options *o)
{
	const struct cpu_topology *top = &t->topology;
	bool several = (uint64_t)top->dies * top->cores * top->threads > 1;
	if (several)
		t->words[CW_1_EDX] |= F1D_HTT & ~o->off[CW_1_EDX];
	if (t->vendor_kind == VENDOR_AMD) {
		uint32_t bits = 0;
		if (several)
			bits |= F81C_CMP_LEGACY;
		if (o->model->host || top->threads > 1)
			bits |= F81C_TOPOEXT;
		t->words[CW_80000001_ECX] |= bits & ~o->off[CW_80000001_ECX];
	}
	if (!t->pmu) {
		t->words[CW_1_ECX] &= ~F1C_PDCM;
		t->words[CW_80000001_ECX] &= ~F81C_PERFCTR_CORE;
	}
}

static bool resolve_features(struct cpu_type *t, const struct cpu_options *o, struct error **err)
{
	for (int w = 0; w < CPU_WORDS; w++) {
		uint32_t base = o->model->words[w];
		if (o->model->host) {
			base = host_word(t, w) & ~cpu_words[w].not_automatic;
			if (o->migratable)
				base &= cpu_word_named(w);
			else if (w == CW_80000007_EDX)
				base |= host_word(t, w) & F87D_INVTSC;
		}
		if ((w == CW_KVM_EAX || w == CW_KVM_EDX) && !t->kvm)
			base = 0;
		t->words[w] = (base | o->on[w]) & ~o->off[w];
	}
	drop_dependents(t->words, o->on, o->check || o->enforce);
	bool missing = false;
	for (int w = 0; w < CPU_WORDS; w++) {
		uint32_t lacking = t->words[w] & ~host_word(t, w);
		missing = missing || lacking;
		if (o->check || o->enforce)
			warn_bits("host doesn't support requested feature", w, lacking);
		t->words[w] &= ~lacking;
	}
	if (missing && o->enforce) {
		error_set(err, "Host doesn't support requested features");
		return false;
	}
	drop_dependents(t->words, o->on, false);
	add_machine_features(t, o);
	return true;
}

static enum cpu_vendor vendor_kind(const char *vendor)
{
	if (!strcmp(vendor, "AuthenticAMD") || !strcmp(vendor, "HygonGenuine"))
		return VENDOR_AMD;
	if (!strcmp(vendor, "GenuineIntel"))
		return VENDOR_INTEL;
	return VENDOR_OTHER;
}

/* The brand string lies in three leaves; engines leave it to whoever is interested. */
static void host_model_id(char out[49])
{
	uint32_t r[12] = {0};
	for (uint32_t i = 0; i < 3; i++)
		__get_cpuid(0x80000002 + i, &r[i * 4], &r[i * 4 + 1], &r[i * 4 + 2], &r[i * 4 + 3]);
	memcpy(out, r, 48);
	out[48] = '\0';
	size_t len = strlen(out), lead = strspn(out, " ");
	memmove(out, out + lead, len - lead + 1);
	for (len -= lead; len && out[len - 1] == ' ';)
		out[--len] = '\0';
}

static void resolve_identity(struct cpu_type *t, const struct cpu_options *o)
{
	const struct cpu_model_desc *m = o->model;
	if (o->vendor[0]) {
		memcpy(t->vendor, o->vendor, sizeof(t->vendor));
	} else {
		store_le32(t->vendor, cpu_host_register(t, 0, 0, CPU_EBX));
		store_le32(t->vendor + 4, cpu_host_register(t, 0, 0, CPU_EDX));
		store_le32(t->vendor + 8, cpu_host_register(t, 0, 0, CPU_ECX));
	}
	t->vendor_kind = vendor_kind(t->vendor);

	uint32_t host = cpu_host_register(t, 1, 0, CPU_EAX);
	unsigned family = m->family, model = m->model, stepping = m->stepping;
	if (m->host) {
		family = host >> 8 & 0xf;
		model = (host >> 4 & 0xf) | (host >> 12 & 0xf0);
		stepping = host & 0xf;
		if (family == 0xf)
			family += host >> 20 & 0xff;
	}
	family = o->family >= 0 ? (unsigned)o->family : family;
	model = o->model_number >= 0 ? (unsigned)o->model_number : model;
	stepping = o->stepping >= 0 ? (unsigned)o->stepping : stepping;
	t->signature = stepping | (model & 0xf) << 4 | (model >> 4) << 16 |
		       (family > 0xf ? 0xf00 | (family - 0xf) << 20 : family << 8);

	if (o->model_id_set)
		memcpy(t->model_id, o->model_id, sizeof(t->model_id));
	else if (m->host)
		host_model_id(t->model_id);
	else
		snprintf(t->model_id, sizeof(t->model_id), "%s", m->model_id);
}

static bool resolve_phys_bits(struct cpu_type *t, const struct cpu_options *o, struct error **err)
{
	unsigned host = cpu_host_register(t, 0x80000008, 0, CPU_EAX) & 0xff;
	if (!host)
		host = 36; /* long mode without leaf 80000008 */
	bool from_host = o->host_phys_bits >= 0 ? o->host_phys_bits : o->model->host;
	if (o->phys_bits > (int)host) {
		error_set(err, "phys-bits=%d: this host has %u", o->phys_bits, host);
		return false;
	}
	t->phys_bits = from_host ? host : MIN(host, DEFAULT_PHYS_BITS);
	if (from_host && o->host_phys_bits_limit > 0)
		t->phys_bits = MIN(t->phys_bits, (unsigned)o->host_phys_bits_limit);
	if (o->phys_bits > 0)
		t->phys_bits = o->phys_bits;
	return true;
}

/* The highest leaf of each range: the model's, or as far as the features need. */
static void resolve_levels(struct cpu_type *t, const struct cpu_options *o)
{
	t->level = o->model->host ? cpu_host_register(t, 0, 0, CPU_EAX) : o->model->level;
	t->xlevel = o->model->host ? cpu_host_register(t, 0x80000000, 0, CPU_EAX)
				   : o->model->xlevel;
	for (int w = 0; w < CPU_WORDS; w++) {
		if (!t->words[w] || w == CW_KVM_EAX || w == CW_KVM_EDX)
			continue;
		uint32_t *top = cpu_words[w].leaf & 0x80000000 ? &t->xlevel : &t->level;
		*top = MAX(*top, cpu_words[w].leaf);
	}
	if (t->words[CW_7_EDX] & F7D_AMX_TILE)
		t->level = MAX(t->level, 0x1eu);
	if (t->topology.dies > 1)
		t->level = MAX(t->level, 0x1fu);
	/* Topology is told whatever the model. */
	t->level = MAX(t->level, 0xbu);
	t->xlevel = MAX(t->xlevel, 0x80000008u);
	if (t->words[CW_80000001_ECX] & F81C_TOPOEXT)
		t->xlevel = MAX(t->xlevel, 0x8000001eu);
	if (o->level >= 0)
		t->level = (uint32_t)o->level;
	if (o->xlevel >= 0)
		t->xlevel = (uint32_t)o->xlevel;
}

static void resolve_xcr0(struct cpu_type *t)
{
	t->xcr0 = 0;
	if (!(t->words[CW_1_ECX] & F1C_XSAVE))
		return;
	t->xcr0 = 3; /* x87 and SSE */
	for (size_t i = 0; i < ARRAY_SIZE(xsave_needs); i++)
		if (t->words[xsave_needs[i].word] & xsave_needs[i].bit)
			t->xcr0 |= xsave_needs[i].components;
}

static bool check_apic_ids(const struct cpu_type *t, struct error **err)
{
	uint64_t places = cpu_topology_places(&t->topology);
	uint32_t top = cpu_topology_apic_id(&t->topology, (unsigned)places - 1);
	if (top <= 254 || (t->words[CW_1_ECX] & F1C_X2APIC))
		return true;
	error_set(err, "APIC id %u of the last CPU needs the feature x2apic", top);
	return false;
}

struct cpu_type *cpu_type_new(struct accel *a, const char *text,
			      const struct cpu_topology *topology, struct error **err)
{
	struct cpu_options o;
	if (!cpu_options_parse(&o, text, err))
		return NULL;
	struct cpu_type *t = xcalloc(1, sizeof(*t));
	t->topology = *topology;
	t->kvm = o.kvm;
	t->pmu = o.pmu >= 0 ? o.pmu : o.model->host;
	t->host_cache_info = o.host_cache_info;
	t->l3_cache = o.l3_cache;
	t->host_count = a->ops->x86->supported_cpuid(a, t->host, CPU_MAX_LEAVES);
	if (t->host_count < 0) {
		error_set_errno(err, t->host_count, "cannot ask which CPU features are supported");
		goto fail;
	}
	resolve_identity(t, &o);
	if (!resolve_features(t, &o, err) || !resolve_phys_bits(t, &o, err) ||
	    !check_apic_ids(t, err))
		goto fail;
	resolve_levels(t, &o);
	resolve_xcr0(t);
	t->tsc_khz = a->ops->x86->tsc_khz(a);
	return t;
fail:
	cpu_type_free(t);
	return NULL;
}

void cpu_type_free(struct cpu_type *t)
{
	free(t);
}

bool cpu_type_apply(const struct cpu_type *t, struct vcpu *v, struct error **err)
{
	struct x86_cpuid leaves[CPU_MAX_LEAVES];
	int count = cpu_type_cpuid(t, v->apic_id, leaves, CPU_MAX_LEAVES);
	int ret = v->accel->ops->x86->set_cpuid(v, leaves, count);
	if (ret < 0) {
		error_set_errno(err, ret, "CPU %u: the host refuses these CPUID leaves", v->index);
		return false;
	}
	return true;
}

unsigned cpu_type_phys_bits(const struct cpu_type *t)
{
	return t->phys_bits;
}

void cpu_type_signature(const struct cpu_type *t, uint32_t *eax, uint32_t *edx)
{
	*eax = t->signature;
	*edx = t->words[CW_1_EDX];
}

bool cpu_type_has(const struct cpu_type *t, const char *feature)
{
	uint32_t mask[CPU_WORDS];
	return cpu_feature_find(feature, mask) && has_all(t->words, mask);
}

const char *cpu_type_model_id(const struct cpu_type *t)
{
	return t->model_id;
}
