/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of KVM that is read and set: the clock, CPUs, interrupt controllers, and what a reset makes
 * of them. Skipped where there is no /dev/kvm.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/guest/guest.h"

GUEST_CODE_PIECE(hello);
GUEST_CODE_PIECE(legacy_chips);
GUEST_CODE_PIECE(spin);

static void test_clock(void **state)
{
	const struct accel_ops *ops;
	uint64_t a, b;
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(spin), .cpus = 1});
	ops = g.accel->ops;
	vm_start(&g.vm);
	assert_int_equal(ops->clock_get(g.accel, &a), 0);
	usleep(2000);
	assert_int_equal(ops->clock_get(g.accel, &b), 0);
	assert_true(b >= a + 2000000);
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	assert_int_equal(ops->clock_get(g.accel, &a), 0);
	assert_true(a >= b);
	usleep(20000);
	assert_int_equal(ops->clock_get(g.accel, &b), 0);
	assert_int_equal(a, b);
	assert_int_equal(ops->clock_set(g.accel, a + 3600 * UINT64_C(1000000000)), 0);
	vm_start(&g.vm);
	assert_int_equal(ops->clock_get(g.accel, &b), 0);
	assert_true(b >= a + 3600 * UINT64_C(1000000000));
	assert_true(b < a + 3610 * UINT64_C(1000000000));
	guest_destroy(&g);
}

struct cpu_state {
	struct x86_regs regs;
	struct x86_sregs sregs;
	enum x86_mp_state mp;
	uint8_t blob[5][8192];
	int blob_size[5];
};

static void save_cpu(struct guest *g, struct vcpu *v, struct cpu_state *c)
{
	const struct accel_x86_ops *x86 = g->accel->ops->x86;

	memset(c, 0, sizeof(*c));
	assert_int_equal(x86->get_regs(v, &c->regs), 0);
	assert_int_equal(x86->get_sregs(v, &c->sregs), 0);
	assert_int_equal(x86->get_mp_state(v, &c->mp), 0);
	for (unsigned i = 0; i < 5; i++) {
		c->blob_size[i] = x86->get_blob(v, i, NULL, 0);
		assert_in_range(c->blob_size[i], 1, sizeof(c->blob[i]));
		assert_int_equal(x86->get_blob(v, i, c->blob[i], sizeof(c->blob[i])),
				 c->blob_size[i]);
	}
}

/* State that is saved and set again goes on as before. */
static void test_cpu_state(void **state)
{
	struct cpu_state *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
	const struct accel_x86_ops *x86;
	struct x86_msr msrs[2] = {{0x277, 0}, {0xc0000081, 0}};
	uint32_t list[1024];
	struct guest g;
	struct vcpu *v;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(hello)});
	x86 = g.accel->ops->x86;
	v = vcpu_get(&g.vm, 0);
	assert_true(guest_run(&g));
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	save_cpu(&g, v, a);
	assert_true(x86->msr_list(g.accel, list, 1024) > 20);
	assert_true(x86->tsc_khz(g.accel) > 100000);
	msrs[1].value = 0x23001000000000;
	msrs[0].value = 0x0007040600070406;
	assert_int_equal(x86->set_msrs(v, msrs, 2), 2);
	msrs[0].value = msrs[1].value = 0;
	assert_int_equal(x86->get_msrs(v, msrs, 2), 2);
	assert_int_equal(msrs[1].value, 0x23001000000000);
	assert_int_equal(msrs[0].value, 0x0007040600070406);
	vm_reset(&g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	assert_int_equal(x86->set_sregs(v, &a->sregs), 0);
	assert_int_equal(x86->set_regs(v, &a->regs), 0);
	assert_int_equal(x86->set_mp_state(v, a->mp), 0);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(x86->set_blob(v, i, a->blob[i], a->blob_size[i]), a->blob_size[i]);
		assert_int_equal(x86->set_blob(v, i, a->blob[i], a->blob_size[i] - 1), -EINVAL);
	}
	save_cpu(&g, v, b);
	assert_memory_equal(a, b, sizeof(*a));
	guest_destroy(&g);
	free(a);
	free(b);
}

/* PIC, PIC, I/O APIC or PIT, but for the times at which counters were loaded. */
static void save_chip(struct guest *g, unsigned chip, uint8_t state[1024])
{
	struct kvm_pit_state2 *pit = (struct kvm_pit_state2 *)state;

	memset(state, 0, 1024);
	assert_true(g->accel->ops->x86->get_irqchip(g->accel, chip, state, 1024) > 0);
	for (unsigned i = 0; chip == 3 && i < 3; i++)
		pit->channels[i].count_load_time = 0;
}

/* After a reset controllers, timer and CPU are as after creation, whatever was done to them. */
static void test_reset_state(void **state)
{
	struct cpu_state *fresh = calloc(1, sizeof(*fresh)), *after = calloc(1, sizeof(*after));
	const struct accel_x86_ops *x86;
	_Alignas(8) uint8_t chips[4][1024], chip[1024];
	struct x86_msr x2apic = {0x1b, 0xfee00d00};
	struct guest g;
	bool differed = false;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(legacy_chips), .pit = true});
	x86 = g.accel->ops->x86;
	for (unsigned i = 0; i < 4; i++)
		save_chip(&g, i, chips[i]);
	g.vm.cpu_ops->reset_all(&g.vm);
	save_cpu(&g, vcpu_get(&g.vm, 0), fresh);
	assert_true(guest_run(&g));
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	for (unsigned i = 0; i < 4; i++) {
		save_chip(&g, i, chip);
		if (memcmp(chip, chips[i], sizeof(chip)))
			differed = true;
	}
	assert_true(differed);
	assert_int_equal(x86->set_msrs(vcpu_get(&g.vm, 0), &x2apic, 1), 1);
	vm_reset(&g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	assert_int_equal(x86->reset_irqchip(g.accel), 0);
	for (unsigned i = 0; i < 4; i++) {
		save_chip(&g, i, chip);
		assert_memory_equal(chip, chips[i], sizeof(chip));
	}
	save_cpu(&g, vcpu_get(&g.vm, 0), after);
	assert_memory_equal(fresh, after, sizeof(*fresh));
	guest_destroy(&g);
	free(fresh);
	free(after);
}

/* An argument chooses tests by a pattern ("test_mm*"). */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_cpu_state),
		cmocka_unit_test(test_reset_state),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
