/* SPDX-License-Identifier: Apache-2.0 */
/* A CPU at its first instruction: after reset, at a kernel's 64-bit and 32-bit entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "target-x86/cpu_state.h"
#include "tests/lib/x86_fake.h"
#include "vmm/core/util.h"

static const struct x86_cpuid host[] = {
	{0x0, 0, false, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69},
	{0x1, 0, false, 0x00050654, 0, 0xfffab223, 0x0fabfbff},
	{0x40000001, 0, false, 0x01007efb, 0, 0, 0},
	{0x80000000, 0, false, 0x80000008, 0, 0, 0},
	{0x80000001, 0, false, 0, 0, 0x121, 0x2c100800},
	{0x80000008, 0, false, 0x302e, 0, 0, 0},
};

static struct cpu_type *make_type(struct x86_fake *f)
{
	struct cpu_topology one = {2, 1, 1, 1};
	x86_fake_init(f, host, ARRAY_SIZE(host));
	struct cpu_type *t = cpu_type_new(&f->accel, "qemu64", &one, NULL);
	assert_non_null(t);
	return t;
}

static void test_reset_vector(void **state)
{
	struct x86_fake f;
	struct cpu_reset r = {make_type(&f), NULL};
	assert_true(cpu_reset(&f.vcpu, &r));
	assert_int_equal(f.regs.rip, 0xfff0);
	assert_int_equal(f.regs.rflags, 2);
	assert_int_equal(f.regs.rdx, 0x60fb1);
	assert_int_equal(f.regs.rax, 0);
	assert_int_equal(f.sregs.cs.selector, 0xf000);
	assert_int_equal(f.sregs.cs.base, 0xffff0000);
	assert_int_equal(f.sregs.cs.limit, 0xffff);
	assert_int_equal(f.sregs.cs.type, 0xb);
	assert_int_equal(f.sregs.ds.type, 3);
	assert_int_equal(f.sregs.cr0, 0x60000010);
	assert_int_equal(f.sregs.idt.limit, 0xffff);
	assert_int_equal(f.sregs.apic_base, 0xfee00900);
	assert_int_equal(f.mp_state, X86_MP_RUNNABLE);
	/* The local APIC must be in the mode that apic_base says before its registers are set. */
	assert_true(strchr(f.order, 's') < strchr(f.order, 'x'));
	assert_int_equal(x86_fake_msr(&f, 0x277, 0), UINT64_C(0x0007040600070406));
	assert_int_equal(x86_fake_msr(&f, 0x1a0, 0), 1);
	assert_int_equal(x86_fake_msr(&f, 0x10, 1), 0);
	assert_int_equal(x86_fake_msr(&f, 0x2ff, 1), 0);
	assert_int_equal(x86_fake_msr(&f, 0x4b564d01, 1), 0);
	cpu_type_free((void *)r.type);
}

static void test_other_cpus_wait(void **state)
{
	struct x86_fake f;
	struct x86_boot_state boot;
	struct cpu_reset r = {make_type(&f), &boot};
	x86_boot_state_protected(&boot, 0x100000, 0);
	f.vcpu.index = 1;
	assert_true(cpu_reset(&f.vcpu, &r));
	assert_int_equal(f.mp_state, X86_MP_UNINITIALIZED);
	assert_int_equal(f.regs.rip, 0xfff0);
	assert_int_equal(f.sregs.apic_base, 0xfee00800);
	/* No firmware: memory types are on from the start, on every CPU. */
	assert_int_equal(x86_fake_msr(&f, 0x2ff, 1), 0x806);
	cpu_type_free((void *)r.type);
}

static void test_a_refused_msr_does_not_stop_the_others(void **state)
{
	struct x86_fake f;
	struct cpu_reset r = {make_type(&f), NULL};
	f.refused_msr = 0x277;
	assert_true(cpu_reset(&f.vcpu, &r));
	assert_int_equal(x86_fake_msr(&f, 0x277, 0), 0);
	assert_int_equal(x86_fake_msr(&f, 0x10, 1), 0);
	assert_int_equal(x86_fake_msr(&f, 0x2ff, 1), 0);
	cpu_type_free((void *)r.type);
}

static void test_long_mode_entry(void **state)
{
	struct x86_fake f;
	struct x86_boot_state boot;
	struct cpu_reset r = {make_type(&f), &boot};
	x86_boot_state_long(&boot, 0x1000200, 0x11000, 0x10000);
	boot.regs.rsi = 0x20000;
	assert_true(cpu_reset(&f.vcpu, &r));
	assert_int_equal(f.regs.rip, 0x1000200);
	assert_int_equal(f.regs.rsi, 0x20000);
	assert_int_equal(f.regs.rflags, 2);
	assert_int_equal(f.sregs.cr0, 0x80000011);
	assert_int_equal(f.sregs.cr3, 0x11000);
	assert_int_equal(f.sregs.cr4, 0x20);
	assert_int_equal(f.sregs.efer, 0x500);
	assert_int_equal(f.sregs.cs.l, 1);
	assert_int_equal(f.sregs.cs.db, 0);
	assert_int_equal(f.sregs.cs.selector, 0x10);
	assert_int_equal(f.sregs.ss.selector, 0x18);
	assert_int_equal(f.sregs.gdt.base, 0x10000);
	assert_int_equal(f.sregs.gdt.limit, 47);
	assert_int_equal(f.sregs.tr.type, 0xb);
	assert_int_equal(f.sregs.apic_base, 0xfee00900);
	cpu_type_free((void *)r.type);
}

static void test_protected_entry(void **state)
{
	struct x86_boot_state s;
	x86_boot_state_protected(&s, 0x100080, 0);
	assert_int_equal(s.regs.rip, 0x100080);
	assert_int_equal(s.sregs.cr0, 0x11);
	assert_int_equal(s.sregs.cr4, 0);
	assert_int_equal(s.sregs.efer, 0);
	assert_int_equal(s.sregs.cs.limit, 0xffffffff);
	assert_int_equal(s.sregs.cs.db, 1);
	assert_int_equal(s.sregs.cs.l, 0);
	assert_int_equal(s.sregs.gdt.limit, 0);
	assert_int_equal(s.sregs.tr.limit, 0x67);
}

static void test_gdt_and_page_tables(void **state)
{
	uint8_t gdt[X86_BOOT_GDT_SIZE];
	static uint8_t pages[X86_BOOT_PAGES_SIZE];
	x86_boot_gdt(gdt, true);
	assert_int_equal(load_le64(gdt + 8), 0);
	assert_int_equal(load_le64(gdt + 0x10), UINT64_C(0x00af9b000000ffff));
	assert_int_equal(load_le64(gdt + 0x18), UINT64_C(0x00cf93000000ffff));
	x86_boot_gdt(gdt, false);
	assert_int_equal(load_le64(gdt + 0x10), UINT64_C(0x00cf9b000000ffff));
	memset(pages, 0xaa, sizeof(pages));
	x86_boot_page_tables(pages, 0x11000);
	assert_int_equal(load_le64(pages), 0x12003);
	assert_int_equal(load_le64(pages + 8), 0);
	assert_int_equal(load_le64(pages + 0x1000), 0x13003);
	assert_int_equal(load_le64(pages + 0x1018), 0x16003);
	assert_int_equal(load_le64(pages + 0x1020), 0);
	assert_int_equal(load_le64(pages + 0x2008), 0x200083);
	assert_int_equal(load_le64(pages + 0x5ff8), 0xffe00083);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset_vector),
		cmocka_unit_test(test_other_cpus_wait),
		cmocka_unit_test(test_a_refused_msr_does_not_stop_the_others),
		cmocka_unit_test(test_long_mode_entry),
		cmocka_unit_test(test_protected_entry),
		cmocka_unit_test(test_gdt_and_page_tables),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
