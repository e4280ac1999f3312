/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI PM block through its ports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hw/acpi/pm.h"
#include "tests/lib/acpi_fake.h"
#include "vmm/core/util.h"

enum { BASE = 0x600, PM1_STS = BASE, PM1_EN = BASE + 2, PM1_CNT = BASE + 4, TMR = BASE + 8 };
enum { GPE_STS = BASE + 0x20, GPE_EN = BASE + 0x28, SMI_EN = BASE + 0x30, SMI_STS = BASE + 0x34 };

struct rig {
	struct acpi_fake f;
	struct acpi_pm pm;
	struct notifier events;
	enum vm_event_kind event;
	enum shutdown_cause cause;
	unsigned event_count;
};

static void on_event(struct notifier *n, void *data)
{
	struct rig *r = container_of(n, struct rig, events);
	const struct vm_event *e = data;

	r->event = e->kind;
	r->cause = e->cause;
	r->event_count++;
}

static int setup(void **state)
{
	static struct rig rig;

	memset(&rig, 0, sizeof(rig));
	acpi_fake_init(&rig.f);
	rig.events.fn = on_event;
	notifier_add(&rig.f.vm.events, &rig.events);
	acpi_pm_init(&rig.pm, &rig.f.vm);
	acpi_pm_set_sci(&rig.pm, &rig.f.line);
	acpi_pm_set_base(&rig.pm, BASE, true);
	acpi_fake_set_state(&rig.f, RUN_STATE_RUNNING);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	acpi_pm_destroy(&r->pm);
	acpi_fake_destroy(&r->f);
	return 0;
}

static void test_reset_values(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;

	assert_int_equal(acpi_fake_in(f, PM1_STS, 2), 0);
	assert_int_equal(acpi_fake_in(f, PM1_EN, 2), 0);
	assert_int_equal(acpi_fake_in(f, PM1_CNT, 2), 1);
	assert_int_equal(acpi_fake_in(f, SMI_EN, 4), 0x20);
	assert_int_equal(acpi_fake_in(f, SMI_STS, 4), 0);
	assert_int_equal(acpi_fake_in(f, BASE + 0x7c, 4), 0);

	acpi_fake_out(f, PM1_EN, 2, 0xffff);
	acpi_fake_out(f, PM1_CNT, 2, 7 << 10 | 2);
	acpi_fake_out(f, GPE_EN, 1, 0xff);
	acpi_fake_out(f, SMI_EN, 4, 0);
	acpi_pm_gpe(&r->pm, 3);
	assert_true(f->level);
	assert_int_equal(acpi_fake_in(f, PM1_EN, 2), 0x521);
	assert_int_equal(acpi_fake_in(f, PM1_CNT, 2), 7 << 10 | 3);
	assert_int_equal(acpi_fake_in(f, SMI_EN, 4), 0x20);
	acpi_pm_reset(&r->pm);
	assert_false(f->level);
	assert_int_equal(acpi_fake_in(f, PM1_EN, 2), 0);
	assert_int_equal(acpi_fake_in(f, PM1_CNT, 4), 1);
	assert_int_equal(acpi_fake_in(f, GPE_STS, 4), 0);
	assert_int_equal(acpi_fake_in(f, GPE_EN, 4), 0);
}

static void test_power_button(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;

	/* Nobody wants to know. */
	vm_request_powerdown(&f->vm);
	acpi_fake_advance(f, 0);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 2), 0);
	assert_int_equal(r->event, VM_EVENT_POWERDOWN);

	acpi_fake_out(f, PM1_EN, 2, 0x100);
	assert_false(f->level);
	vm_request_powerdown(&f->vm);
	acpi_fake_advance(f, 0);
	assert_true(f->level);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 2), 0x100);
	acpi_fake_out(f, PM1_STS, 2, 0x20);
	assert_true(f->level);
	acpi_fake_out(f, PM1_STS, 2, 0x100);
	assert_false(f->level);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 2), 0);
}

/* Status and enable in one access, and byte by byte. */
static void test_access_sizes(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;

	acpi_fake_out(f, PM1_EN + 1, 1, 0x01);
	acpi_fake_out(f, PM1_EN, 1, 0x20);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 4), 0x01200000);
	vm_request_powerdown(&f->vm);
	acpi_fake_advance(f, 0);
	assert_int_equal(acpi_fake_in(f, PM1_STS + 1, 1), 0x01);
	acpi_fake_out(f, PM1_STS, 4, 0x00000100);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 4), 0);
}

static void test_timer_counts_guest_time(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;
	uint32_t start = acpi_fake_in(f, TMR, 4);

	acpi_fake_advance(f, NSEC_PER_SEC);
	assert_in_range(acpi_fake_in(f, TMR, 4) - start, 3579544, 3579546);
	assert_int_equal(acpi_fake_in(f, TMR, 2), acpi_fake_in(f, TMR, 4) & 0xffff);
	acpi_fake_set_state(f, RUN_STATE_PAUSED);
	acpi_fake_advance(f, 100 * NSEC_PER_SEC);
	acpi_fake_set_state(f, RUN_STATE_RUNNING);
	assert_in_range(acpi_fake_in(f, TMR, 4) - start, 3579544, 3579546);
	acpi_fake_advance(f, 4 * NSEC_PER_SEC);
	assert_in_range((acpi_fake_in(f, TMR, 4) - start) & 0xffffff, 17897724 - 16777216,
			17897726 - 16777216);
	/* It cannot be written. */
	acpi_fake_out(f, TMR, 4, 0);
	assert_true(acpi_fake_in(f, TMR, 4) > 1000000);
}

/* 2^23 ticks take 2.3435 s. */
static void test_timer_status(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;

	acpi_fake_advance(f, 2343 * NSEC_PER_MSEC);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 2), 0);
	acpi_fake_advance(f, 1 * NSEC_PER_MSEC);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 2), 1);
	assert_false(f->level);
	acpi_fake_out(f, PM1_STS, 2, 1);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 2), 0);
	acpi_fake_advance(f, 2342 * NSEC_PER_MSEC);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 2), 0);
	acpi_fake_advance(f, 2 * NSEC_PER_MSEC);
	assert_int_equal(acpi_fake_in(f, PM1_STS, 2), 1);
}

static void test_timer_interrupt(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;

	acpi_fake_out(f, PM1_EN, 2, 1);
	acpi_fake_advance(f, 2343 * NSEC_PER_MSEC);
	assert_false(f->level);
	/* The timer knows nothing of time that the guest did not see. */
	acpi_fake_set_state(f, RUN_STATE_PAUSED);
	acpi_fake_advance(f, 10 * NSEC_PER_SEC);
	assert_false(f->level);
	acpi_fake_set_state(f, RUN_STATE_RUNNING);
	acpi_fake_advance(f, 0);
	assert_false(f->level);
	acpi_fake_advance(f, NSEC_PER_MSEC);
	assert_true(f->level);
	acpi_fake_out(f, PM1_STS, 2, 1);
	assert_false(f->level);
	acpi_fake_advance(f, 2345 * NSEC_PER_MSEC);
	assert_true(f->level);
	acpi_fake_out(f, PM1_EN, 2, 0);
	assert_false(f->level);
	acpi_fake_out(f, PM1_STS, 2, 1);
	acpi_fake_advance(f, 3 * NSEC_PER_SEC);
	assert_false(f->level);
}

static void test_gpe(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;

	acpi_pm_gpe(&r->pm, ACPI_GPE_VMGENID);
	acpi_pm_gpe(&r->pm, 63);
	acpi_pm_gpe(&r->pm, 64);
	assert_int_equal(acpi_fake_in(f, GPE_STS, 4), 0x20);
	assert_int_equal(acpi_fake_in(f, GPE_STS + 7, 1), 0x80);
	assert_false(f->level);
	acpi_fake_out(f, GPE_EN + 7, 1, 0x80);
	assert_true(f->level);
	acpi_fake_out(f, GPE_EN, 1, 0x20);
	acpi_fake_out(f, GPE_STS + 7, 1, 0x80);
	assert_true(f->level);
	acpi_fake_out(f, GPE_STS, 1, 0x20);
	assert_false(f->level);
}

static void test_soft_off(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;

	acpi_fake_out(f, PM1_CNT, 2, 1 | 1 << 10 | 1 << 13); /* S3 is not there */
	acpi_fake_out(f, PM1_CNT, 2, 1);		     /* type 0, not enabled */
	acpi_fake_advance(f, 0);
	assert_int_equal(r->event_count, 0);
	acpi_fake_out(f, PM1_CNT, 2, 1 | 1 << 13);
	assert_int_equal(acpi_fake_in(f, PM1_CNT, 2), 1); /* write-only */
	acpi_fake_advance(f, 0);
	assert_int_equal(r->event, VM_EVENT_SHUTDOWN);
	assert_int_equal(r->cause, CAUSE_GUEST_SHUTDOWN);
}

static void test_moving(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;

	acpi_pm_set_base(&r->pm, 0xb000, true);
	assert_int_equal(acpi_fake_in(f, SMI_EN, 4), 0xffffffff);
	assert_int_equal(acpi_fake_in(f, 0xb030, 4), 0x20);
	acpi_pm_set_base(&r->pm, 0xb000, false);
	assert_int_equal(acpi_fake_in(f, 0xb030, 4), 0xffffffff);
	acpi_pm_set_base(&r->pm, BASE, true);
	assert_int_equal(acpi_fake_in(f, SMI_EN, 4), 0x20);

	/* A pending event moves with the line. */
	acpi_pm_gpe(&r->pm, 0);
	acpi_fake_out(f, GPE_EN, 1, 1);
	assert_true(f->level);
	acpi_pm_set_sci(&r->pm, NULL);
	assert_false(f->level);
	acpi_pm_set_sci(&r->pm, &f->line);
	assert_true(f->level);
}

static void test_state(void **state)
{
	struct rig *r = *state;
	struct acpi_fake *f = &r->f;
	struct error *err = NULL;
	uint32_t before;

	acpi_fake_advance(f, NSEC_PER_SEC);
	acpi_fake_set_state(f, RUN_STATE_PAUSED);
	before = acpi_fake_in(f, TMR, 4);
	acpi_pm_state.pre_save(&r->pm);
	r->pm.pm1_cnt = 0xffff;
	r->pm.pm1_en = 0xffff;
	r->pm.smi_en = 0;
	r->pm.gpe0_sts[0] = r->pm.gpe0_en[0] = 1;
	assert_true(acpi_pm_state.post_load(&r->pm, 1, NULL));
	assert_true(f->level);
	assert_int_equal(acpi_fake_in(f, TMR, 4), before);
	assert_int_equal(acpi_fake_in(f, PM1_CNT, 2), 7 << 10 | 3);
	assert_int_equal(acpi_fake_in(f, PM1_EN, 2), 0x521);
	assert_int_equal(acpi_fake_in(f, SMI_EN, 4), 0x20);
	r->pm.guest_ns = -1;
	assert_false(acpi_pm_state.post_load(&r->pm, 1, &err));
	error_free(err);
	r->pm.guest_ns = 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_reset_values), TEST(test_power_button),
		TEST(test_access_sizes), TEST(test_timer_counts_guest_time),
		TEST(test_timer_status), TEST(test_timer_interrupt),
		TEST(test_gpe),		 TEST(test_soft_off),
		TEST(test_moving),	 TEST(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
