/* SPDX-License-Identifier: Apache-2.0 */
/* CPU models: what -cpu means, which leaves come out, against hosts made up here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "target-x86/cpu.h"
#include "target-x86/cpu_features.h"
#include "tests/lib/x86_fake.h"
#include "vmm/core/util.h"

/* An Intel server: AVX-512, PKU, a PMU, 46 bits. */
static const struct x86_cpuid intel[] = {
	{0x0, 0, false, 0x16, 0x756e6547, 0x6c65746e, 0x49656e69},
	{0x1, 0, false, 0x00050654, 0, 0xfffab223, 0x0fabfbff},
	{0x2, 0, false, 0x76036301, 0x00f0b5ff, 0, 0x00c30000},
	{0x4, 0, true, 0x7c004121, 0x01c0003f, 0x3f, 0},
	{0x4, 1, true, 0x7c004122, 0x01c0003f, 0x3f, 0},
	{0x4, 2, true, 0x7c004143, 0x03c0003f, 0x3ff, 0},
	{0x4, 3, true, 0x7c0fc163, 0x0280003f, 0x9fff, 4},
	{0x6, 0, false, 4, 0, 0, 0},
	{0x7, 0, true, 0, 0xd39ffffb, 0x0000000c, 0xac000400},
	{0xa, 0, false, 0x07300402, 0, 0, 0x603},
	{0xd, 0, true, 0x2ff, 0xa88, 0xa88, 0},
	{0xd, 1, true, 0xf, 0xa88, 0, 0},
	{0xd, 2, true, 0x100, 0x240, 0, 0},
	{0xd, 3, true, 0x40, 0x3c0, 0, 0},
	{0xd, 4, true, 0x40, 0x400, 0, 0},
	{0xd, 5, true, 0x40, 0x440, 0, 0},
	{0xd, 6, true, 0x200, 0x480, 0, 0},
	{0xd, 7, true, 0x400, 0x680, 0, 0},
	{0xd, 9, true, 0x8, 0xa80, 0, 0},
	{0x40000000, 0, false, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d},
	{0x40000001, 0, false, 0x01007efb, 0, 0, 0},
	{0x80000000, 0, false, 0x80000008, 0, 0, 0},
	{0x80000001, 0, false, 0, 0, 0x121, 0x2c100800},
	{0x80000007, 0, false, 0, 0, 0, 0x100},
	{0x80000008, 0, false, 0x302e, 0, 0, 0},
};

/* An AMD server: 48 bits, no AVX-512. */
static const struct x86_cpuid amd[] = {
	{0x0, 0, false, 0xd, 0x68747541, 0x444d4163, 0x69746e65},
	{0x1, 0, false, 0x00830f10, 0, 0xfef83203, 0x078bfbff},
	{0x7, 0, true, 0, 0x219c01a9, 0x00400004, 0},
	{0xd, 0, true, 0x7, 0x340, 0x340, 0},
	{0xd, 1, true, 0x7, 0x340, 0, 0},
	{0xd, 2, true, 0x100, 0x240, 0, 0},
	{0x40000000, 0, false, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d},
	{0x40000001, 0, false, 0x01007efb, 0, 0, 0},
	{0x80000000, 0, false, 0x8000001f, 0x68747541, 0x444d4163, 0x69746e65},
	{0x80000001, 0, false, 0x00830f10, 0, 0x004003f3, 0x2fd3fbff},
	{0x80000008, 0, false, 0x3030, 0x205, 0, 0},
	{0x8000001d, 0, true, 0x4121, 0x01c0003f, 0x3f, 0},
	{0x8000001d, 1, true, 0x4122, 0x01c0003f, 0x3f, 0},
	{0x8000001d, 2, true, 0x4143, 0x01c0003f, 0x3ff, 2},
	{0x8000001d, 3, true, 0x1c163, 0x03c0003f, 0x3fff, 1},
	{0x8000001d, 4, true, 0, 0, 0, 0},
};

struct outcome {
	struct x86_fake fake;
	struct cpu_type *type;
	struct x86_cpuid leaves[256];
	int count;
	char warnings[2048];
	char message[512];
};

/* Makes a type with standard error caught. */
static void make(struct outcome *o, const struct x86_cpuid *host, int count, const char *text,
		 struct cpu_topology topology, uint32_t apic_id)
{
	struct error *err = NULL;
	FILE *file = tmpfile();
	int saved = dup(2);

	memset(o, 0, sizeof(*o));
	x86_fake_init(&o->fake, host, count);
	o->fake.khz = 2400000;
	fflush(stderr);
	dup2(fileno(file), 2);
	o->type = cpu_type_new(&o->fake.accel, text, &topology, &err);
	fflush(stderr);
	dup2(saved, 2);
	close(saved);
	rewind(file);
	o->warnings[fread(o->warnings, 1, sizeof(o->warnings) - 1, file)] = '\0';
	fclose(file);
	if (!o->type) {
		snprintf(o->message, sizeof(o->message), "%s", error_message(err));
		error_free(err);
		return;
	}
	assert_null(err);
	o->count = cpu_type_cpuid(o->type, apic_id, o->leaves, 256);
}

#define ONE		    ((struct cpu_topology){1, 1, 1, 1})
#define MAKE_INTEL(o, text) make(o, intel, ARRAY_SIZE(intel), text, ONE, 0)
#define MAKE_AMD(o, text)   make(o, amd, ARRAY_SIZE(amd), text, ONE, 0)

static struct x86_cpuid leaf(const struct outcome *o, uint32_t function, uint32_t index)
{
	struct x86_cpuid none = {0};

	for (int i = 0; i < o->count; i++) {
		const struct x86_cpuid *e = &o->leaves[i];
		if (e->function == function && (!e->index_significant || e->index == index))
			return *e;
	}
	return none;
}

static void done(struct outcome *o)
{
	cpu_type_free(o->type);
}

static void test_host_takes_what_the_host_has(void **state)
{
	struct outcome o;
	MAKE_INTEL(&o, "host");
	assert_string_equal(o.warnings, "");
	struct x86_cpuid l = leaf(&o, 0, 0);
	assert_int_equal(l.eax, 0x16);
	assert_int_equal(l.ebx, 0x756e6547);
	assert_int_equal(l.ecx, 0x6c65746e);
	assert_int_equal(l.edx, 0x49656e69);
	l = leaf(&o, 1, 0);
	assert_int_equal(l.eax, 0x00050654);
	assert_int_equal(l.ebx, 8 << 8);
	/* hypervisor and the deadline timer are added, osxsave is the guest's CR4's */
	assert_int_equal(l.ecx, (0xfffab223 | 1u << 31 | 1u << 24) & ~(1u << 27));
	assert_int_equal(l.edx & (1u << 28), 0);
	l = leaf(&o, 7, 0);
	/* sgx, intel-pt and what has no name stay behind */
	assert_int_equal(l.ebx, 0xd39ffffb & ~(1u << 2 | 1u << 25 | 1u << 12 | 1u << 15));
	l = leaf(&o, 0x80000008, 0);
	assert_int_equal(l.eax, 0x302e);
	assert_int_equal(cpu_type_phys_bits(o.type), 46);
	/* The PMU is there, invtsc is not. */
	assert_int_equal(leaf(&o, 0xa, 0).eax, 0x07300402);
	assert_int_equal(leaf(&o, 0x80000007, 0).edx, 0);
	assert_true(cpu_type_has(o.type, "avx512f"));
	assert_true(cpu_type_has(o.type, "sse4_2"));
	assert_false(cpu_type_has(o.type, "svm"));
	assert_false(cpu_type_has(o.type, "nonsense"));
	done(&o);
}

static void test_qemu64_has_the_hosts_vendor(void **state)
{
	struct outcome o;
	MAKE_INTEL(&o, NULL);
	assert_string_equal(o.warnings, "");
	assert_int_equal(leaf(&o, 0, 0).ebx, 0x756e6547);
	assert_int_equal(leaf(&o, 0, 0).eax, 0xd);
	assert_int_equal(leaf(&o, 1, 0).eax, 0x00060fb1);
	assert_int_equal(leaf(&o, 1, 0).edx, 0x078bfbfd);
	assert_int_equal(leaf(&o, 1, 0).ecx, 0x80202001);
	assert_int_equal(leaf(&o, 0x80000001, 0).edx, 0x20100800);
	assert_int_equal(leaf(&o, 0x80000001, 0).ecx, 1);
	assert_int_equal(leaf(&o, 0x80000008, 0).eax, 0x3028);
	assert_int_equal(leaf(&o, 0xa, 0).eax, 0);
	assert_string_equal(cpu_type_model_id(o.type), "QEMU Virtual CPU version 2.5+");
	assert_int_equal(leaf(&o, 0x80000002, 0).eax, load_le32("QEMU"));
	done(&o);

	MAKE_AMD(&o, "qemu64");
	/* AMD repeats leaf 1's bits. */
	assert_int_equal(leaf(&o, 0x80000001, 0).edx, 0x20100800 | (0x078bfbfd & 0x0183f3ff));
	assert_int_equal(leaf(&o, 4, 0).eax, 0);
	assert_int_equal(leaf(&o, 0x80000006, 0).edx, 16384 / 512 << 18 | 8 << 12 | 1 << 8 | 64);
	done(&o);
}

static void test_features_are_added_and_taken_away(void **state)
{
	struct outcome o;
	MAKE_INTEL(&o, "host,-avx,aes=off,-rdrand,+rdrand,rdseed=off,rdseed=on,+invtsc");
	assert_string_equal(o.warnings, "");
	assert_false(cpu_type_has(o.type, "avx"));
	assert_false(cpu_type_has(o.type, "avx2"));
	assert_false(cpu_type_has(o.type, "avx512bw"));
	assert_false(cpu_type_has(o.type, "aes"));
	/* Minus wins whatever the order; of two =, the last. */
	assert_false(cpu_type_has(o.type, "rdrand"));
	assert_true(cpu_type_has(o.type, "rdseed"));
	assert_int_equal(leaf(&o, 0x80000007, 0).edx, 0x100);
	/* With a constant TSC the guest learns its rate. */
	assert_int_equal(leaf(&o, 0x40000000, 0).eax, 0x40000010);
	assert_int_equal(leaf(&o, 0x40000010, 0).eax, 2400000);
	assert_int_equal(leaf(&o, 0x40000010, 0).ebx, 1000000);
	/* XSAVE knows only what is left: x87, SSE, MPX (not asked away), PKRU. */
	assert_int_equal(leaf(&o, 0xd, 0).eax, 0x21b);
	assert_int_equal(leaf(&o, 0xd, 0).ecx, 0xa88);
	assert_int_equal(leaf(&o, 0xd, 2).eax, 0);
	assert_int_equal(leaf(&o, 0xd, 9).ebx, 0xa80);
	done(&o);

	MAKE_INTEL(&o, "host,-xsave");
	assert_int_equal(leaf(&o, 0xd, 0).eax, 0);
	assert_false(cpu_type_has(o.type, "pku"));
	done(&o);

	MAKE_INTEL(&o, "host,-mpx,-pku,-avx512f");
	assert_int_equal(leaf(&o, 0xd, 0).eax, 7);
	assert_int_equal(leaf(&o, 0xd, 0).ecx, 0x340);
	assert_false(cpu_type_has(o.type, "avx512vl"));
	assert_true(cpu_type_has(o.type, "avx2"));
	done(&o);

	MAKE_INTEL(&o, "host,migratable=off");
	assert_int_equal(leaf(&o, 0x80000007, 0).edx, 0x100);
	done(&o);
}

static void test_what_the_host_lacks_is_a_warning(void **state)
{
	struct outcome o;
	MAKE_INTEL(&o, "qemu64,+svm,+sse4a");
	assert_string_equal(o.warnings, "vmm: warning: host doesn't support requested feature: "
					"CPUID.80000001H:ECX.svm [bit 2]\n"
					"vmm: warning: host doesn't support requested feature: "
					"CPUID.80000001H:ECX.sse4a [bit 6]\n");
	assert_non_null(o.type);
	assert_false(cpu_type_has(o.type, "svm"));
	done(&o);

	MAKE_INTEL(&o, "qemu64,+svm,check=off");
	assert_string_equal(o.warnings, "");
	done(&o);

	MAKE_INTEL(&o, "qemu64,+svm,enforce");
	assert_null(o.type);
	assert_string_equal(o.message, "Host doesn't support requested features");

	MAKE_INTEL(&o, "qemu64,+avx");
	assert_string_equal(o.warnings,
			    "vmm: warning: This feature depends on other features that were not "
			    "requested: CPUID.01H:ECX.avx [bit 28]\n");
	done(&o);
}

static void test_x2apic_warning_is_qemus(void **state)
{
	struct x86_cpuid host[ARRAY_SIZE(intel)];
	struct outcome o;
	memcpy(host, intel, sizeof(host));
	host[1].ecx &= ~(1u << 21);
	make(&o, host, ARRAY_SIZE(host), "qemu64", ONE, 0);
	assert_string_equal(o.warnings, "vmm: warning: host doesn't support requested feature: "
					"CPUID.01H:ECX.x2apic [bit 21]\n");
	done(&o);
	/* Ids above 254 need it. */
	make(&o, host, ARRAY_SIZE(host), "qemu64", (struct cpu_topology){256, 1, 1, 1}, 0);
	assert_null(o.type);
	make(&o, intel, ARRAY_SIZE(intel), "qemu64", (struct cpu_topology){300, 1, 1, 1}, 299);
	assert_non_null(o.type);
	assert_int_equal(leaf(&o, 1, 0).ebx >> 24, 299 & 0xff);
	assert_int_equal(leaf(&o, 0xb, 0).edx, 299);
	done(&o);
}

static void test_host_without_avx512_state_has_no_avx512(void **state)
{
	struct x86_cpuid host[ARRAY_SIZE(intel)];
	struct outcome o;
	memcpy(host, intel, sizeof(host));
	host[10].eax = 7;
	make(&o, host, ARRAY_SIZE(host), "host", ONE, 0);
	assert_false(cpu_type_has(o.type, "avx512f"));
	assert_false(cpu_type_has(o.type, "avx512vl"));
	assert_false(cpu_type_has(o.type, "mpx"));
	assert_true(cpu_type_has(o.type, "avx2"));
	assert_string_equal(o.warnings, "");
	done(&o);
}

static void test_bad_options_are_errors(void **state)
{
	static const char *const bad[][2] = {
		{"qemu46", "unable to find CPU model 'qemu46' (did you mean 'qemu64'?)"},
		{"", "unable to find CPU model '' (-cpu help lists them)"},
		{"host,+invtcs",
		 "unknown CPU feature or property 'invtcs' (did you mean 'invtsc'?)"},
		{"host,zzzzzzzzzzzz", "unknown CPU feature or property 'zzzzzzzzzzzz'"},
		{"host,avx=maybe", "avx=maybe: expected on or off"},
		{"host,vendor=Intel", "vendor=Intel: a vendor has 12 characters"},
		{"host,family=271", "family=271: expected a number from 0 to 270"},
		{"host,stepping=-1", "stepping=-1: expected a number from 0 to 15"},
		{"host,,avx", "empty item in the list of features"},
		{"host,+avx=on", "'+avx' takes no value"},
		{"host,phys-bits=52", "phys-bits=52: this host has 46"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct outcome o;
		MAKE_INTEL(&o, bad[i][0]);
		assert_null(o.type);
		assert_string_equal(o.message, bad[i][1]);
	}
}

static void test_properties(void **state)
{
	struct outcome o;
	MAKE_INTEL(&o, "host,vendor=AuthenticAMD,family=25,model=33,stepping=2,model-id=My CPU,"
		       "kvm=off,pmu=off,host-phys-bits-limit=40,l3-cache=off");
	assert_int_equal(leaf(&o, 0, 0).ebx, 0x68747541);
	assert_int_equal(leaf(&o, 1, 0).eax, 0x00a20f12);
	assert_int_equal(leaf(&o, 0x80000002, 0).eax, load_le32("My C"));
	assert_int_equal(leaf(&o, 0x80000002, 0).ecx, 0);
	assert_int_equal(leaf(&o, 0x40000000, 0).eax, 0);
	assert_int_equal(leaf(&o, 0x40000001, 0).eax, 0);
	assert_int_equal(leaf(&o, 1, 0).ecx >> 31, 1); /* still says it is a guest */
	assert_int_equal(leaf(&o, 0xa, 0).eax, 0);
	assert_int_equal(leaf(&o, 0x80000008, 0).eax & 0xff, 40);
	assert_int_equal(leaf(&o, 0x80000006, 0).edx, 0);
	done(&o);

	MAKE_INTEL(&o, "kvm64,-hypervisor,-kvmclock,phys-bits=38,level=5");
	assert_int_equal(leaf(&o, 1, 0).ecx >> 31, 0);
	assert_int_equal(leaf(&o, 1, 0).edx & 2, 2);
	assert_int_equal(leaf(&o, 0x40000001, 0).eax & 9, 0);
	assert_int_equal(leaf(&o, 0x80000008, 0).eax & 0xff, 38);
	assert_int_equal(leaf(&o, 0, 0).eax, 5);
	assert_int_equal(leaf(&o, 0xb, 0).ebx, 0);
	done(&o);
}

static void test_topology_on_intel(void **state)
{
	/* 2 sockets of 3 cores of 2 threads: package 4 bits up, core 1. */
	struct cpu_topology t = {2, 1, 3, 2};
	struct outcome o;
	static const uint32_t ids[] = {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13};
	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++)
		assert_int_equal(cpu_topology_apic_id(&t, i), ids[i]);
	make(&o, intel, ARRAY_SIZE(intel), "host", t, 11);
	struct x86_cpuid l = leaf(&o, 1, 0);
	assert_int_equal(l.ebx, 11 << 24 | 6 << 16 | 8 << 8);
	assert_int_equal(l.edx >> 28 & 1, 1);
	l = leaf(&o, 4, 0);
	assert_int_equal(l.eax, 0x121 | 1 << 14 | 3u << 26);
	assert_int_equal(l.ebx, 63 | 7 << 22);
	assert_int_equal(l.ecx, 63);
	assert_int_equal(leaf(&o, 4, 3).eax, 0x163 | 7 << 14 | 3u << 26);
	l = leaf(&o, 0xb, 0);
	assert_int_equal(l.eax, 1);
	assert_int_equal(l.ebx, 2);
	assert_int_equal(l.ecx, 1 << 8);
	assert_int_equal(l.edx, 11);
	l = leaf(&o, 0xb, 1);
	assert_int_equal(l.eax, 3);
	assert_int_equal(l.ebx, 6);
	assert_int_equal(l.ecx, 2 << 8 | 1);
	l = leaf(&o, 0xb, 2);
	assert_int_equal(l.eax | l.ebx, 0);
	assert_int_equal(l.ecx, 2);
	assert_int_equal(leaf(&o, 0x1f, 0).ecx, 0);
	/* Intel has no such bit. */
	assert_int_equal(leaf(&o, 0x80000001, 0).ecx & 2, 0);
	done(&o);

	make(&o, intel, ARRAY_SIZE(intel), "host", (struct cpu_topology){1, 2, 2, 2}, 5);
	assert_int_equal(leaf(&o, 0, 0).eax, 0x1f);
	assert_int_equal(leaf(&o, 0x1f, 1).eax, 2);
	assert_int_equal(leaf(&o, 0x1f, 1).ebx, 4);
	assert_int_equal(leaf(&o, 0x1f, 2).eax, 3);
	assert_int_equal(leaf(&o, 0x1f, 2).ebx, 8);
	assert_int_equal(leaf(&o, 0x1f, 2).ecx, 5 << 8 | 2);
	assert_int_equal(leaf(&o, 0x1f, 3).ecx, 3);
	assert_int_equal(leaf(&o, 0xb, 1).eax, 3);
	done(&o);
}

static void test_topology_on_amd(void **state)
{
	struct outcome o;
	make(&o, amd, ARRAY_SIZE(amd), "host", (struct cpu_topology){1, 2, 4, 2}, 11);
	assert_true(cpu_type_has(o.type, "topoext"));
	assert_int_equal(leaf(&o, 0x80000001, 0).ecx & 2, 2);
	assert_int_equal(leaf(&o, 0x80000008, 0).ecx, 4 << 12 | 15);
	struct x86_cpuid l = leaf(&o, 0x8000001e, 0);
	assert_int_equal(l.eax, 11);
	assert_int_equal(l.ebx, 1 << 8 | 1);
	assert_int_equal(l.ecx, 1 << 8 | 1);
	l = leaf(&o, 0x8000001d, 0);
	assert_int_equal(l.eax, 0x121 | 1 << 14);
	assert_int_equal(leaf(&o, 0x8000001d, 3).eax, 0x163 | 7 << 14);
	done(&o);

	make(&o, amd, ARRAY_SIZE(amd), "qemu64", (struct cpu_topology){2, 1, 2, 1}, 0);
	assert_false(cpu_type_has(o.type, "topoext"));
	assert_int_equal(leaf(&o, 0x8000001e, 0).eax, 0);
	done(&o);
	make(&o, amd, ARRAY_SIZE(amd), "qemu64", (struct cpu_topology){1, 1, 2, 2}, 3);
	assert_int_equal(leaf(&o, 0x8000001e, 0).ebx, 1 << 8 | 1);
	assert_int_equal(leaf(&o, 0x80000000, 0).eax, 0x8000001e);
	done(&o);
	make(&o, amd, ARRAY_SIZE(amd), "host,-topoext", (struct cpu_topology){1, 1, 2, 2}, 3);
	assert_int_equal(leaf(&o, 0x8000001e, 0).ebx, 0);
	done(&o);
}

static void test_host_caches_pass_through(void **state)
{
	struct outcome o;
	make(&o, intel, ARRAY_SIZE(intel), "host,host-cache-info=on",
	     (struct cpu_topology){1, 1, 4, 1}, 0);
	assert_int_equal(leaf(&o, 2, 0).eax, 0x76036301);
	/* The level 3 cache was shared by 64, here there are 4. */
	assert_int_equal(leaf(&o, 4, 3).eax, 0x163 | 3 << 14 | 3u << 26);
	assert_int_equal(leaf(&o, 4, 3).ecx, 0x9fff);
	done(&o);
	make(&o, amd, ARRAY_SIZE(amd), "host,host-cache-info=on", (struct cpu_topology){1, 1, 4, 1},
	     0);
	assert_int_equal(leaf(&o, 0x8000001d, 3).eax, 0x163 | 3 << 14);
	assert_int_equal(leaf(&o, 0x8000001d, 0).eax, 0x4121);
	done(&o);
}

static void test_leaves_reach_the_vcpu(void **state)
{
	struct outcome o;
	MAKE_AMD(&o, "host");
	o.fake.vcpu.apic_id = 0;
	assert_true(cpu_type_apply(o.type, &o.fake.vcpu, NULL));
	assert_int_equal(o.fake.cpuid_count, o.count);
	for (int i = 0; i < o.count; i++) {
		assert_int_equal(o.fake.cpuid[i].function, o.leaves[i].function);
		assert_int_equal(o.fake.cpuid[i].ebx, o.leaves[i].ebx);
	}
	/* Old kernels take 80 at most. */
	assert_true(o.count <= 80);
	done(&o);
}

static void test_names_of_features(void **state)
{
	uint32_t a[CPU_WORDS], b[CPU_WORDS];

	/* Hyphens and underscores, older names, one name for two bits. */
	assert_true(cpu_feature_find("sse4.1", a));
	assert_int_equal(a[CW_1_ECX], 1u << 19);
	assert_true(cpu_feature_find("sse4_1", b));
	assert_memory_equal(a, b, sizeof(a));
	assert_true(cpu_feature_find("pni", a) && cpu_feature_find("sse3", b));
	assert_memory_equal(a, b, sizeof(a));
	assert_true(cpu_feature_find("kvmclock", a));
	assert_int_equal(a[CW_KVM_EAX], 1 | 1 << 3);
	assert_false(cpu_feature_find("sse4", a));
	assert_false(cpu_feature_find("sse4.11", a));
	assert_false(cpu_feature_find("", a));
}

static void test_help_lists_models_and_flags(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	cpu_help(f);
	fclose(f);
	assert_non_null(strstr(text, "x86 qemu64"));
	assert_non_null(strstr(text, " tsc-deadline"));
	assert_non_null(strstr(text, " sse4.1"));
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
		assert_true(end - line <= 80);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_host_takes_what_the_host_has),
		cmocka_unit_test(test_qemu64_has_the_hosts_vendor),
		cmocka_unit_test(test_features_are_added_and_taken_away),
		cmocka_unit_test(test_what_the_host_lacks_is_a_warning),
		cmocka_unit_test(test_x2apic_warning_is_qemus),
		cmocka_unit_test(test_host_without_avx512_state_has_no_avx512),
		cmocka_unit_test(test_bad_options_are_errors),
		cmocka_unit_test(test_properties),
		cmocka_unit_test(test_topology_on_intel),
		cmocka_unit_test(test_topology_on_amd),
		cmocka_unit_test(test_host_caches_pass_through),
		cmocka_unit_test(test_leaves_reach_the_vcpu),
		cmocka_unit_test(test_names_of_features),
		cmocka_unit_test(test_help_lists_models_and_flags),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
