/* SPDX-License-Identifier: Apache-2.0 */
/* Run state: what requests lead to, in which order events come, and that vCPUs follow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "vmm/core/util.h"
#include "vmm/core/vm.h"

struct fixture {
	struct vm vm;
	struct evloop *loop;
	struct notifier events, reset;
	char trace[256];
	bool cpus_run;
};

static struct fixture *of(struct vm *vm)
{
	return container_of(vm, struct fixture, vm);
}

static void say(struct fixture *f, const char *word)
{
	strncat(f->trace, word, sizeof(f->trace) - strlen(f->trace) - 1);
	strncat(f->trace, " ", sizeof(f->trace) - strlen(f->trace) - 1);
}

static void pause_all(struct vm *vm)
{
	if (of(vm)->cpus_run)
		say(of(vm), "pause");
	of(vm)->cpus_run = false;
}

static void resume_all(struct vm *vm)
{
	say(of(vm), "resume");
	of(vm)->cpus_run = true;
}

static void reset_all(struct vm *vm)
{
	say(of(vm), "cpus");
}

static void kick_all(struct vm *vm)
{
}

static const struct vm_cpu_ops cpu_ops = { pause_all, resume_all, reset_all, kick_all };

static void on_event(struct notifier *n, void *data)
{
	static const char *const names[] = { "STOP", "RESUME", "RESET", "SHUTDOWN", "POWERDOWN",
					     "PANICKED" };
	const struct vm_event *e = data;
	struct fixture *f = container_of(n, struct fixture, events);

	say(f, e->kind < ARRAY_SIZE(names) ? names[e->kind] : "?");
	if (e->kind == VM_EVENT_SHUTDOWN || e->kind == VM_EVENT_RESET)
		say(f, shutdown_cause_name(e->cause));
}

static void on_reset(struct notifier *n, void *data)
{
	say(container_of(n, struct fixture, reset), "board");
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->loop = evloop_new(NULL, NULL);
	vm_init(&f->vm, f->loop);
	f->vm.cpu_ops = &cpu_ops;
	f->events.fn = on_event;
	f->reset.fn = on_reset;
	notifier_add(&f->vm.events, &f->events);
	notifier_add(&f->vm.reset, &f->reset);
	vm_start(&f->vm);
	assert_string_equal(f->trace, "board cpus RESUME resume ");
	assert_int_equal(f->vm.state, RUN_STATE_RUNNING);
	f->trace[0] = '\0';
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	vm_destroy(&f->vm);
	evloop_free(f->loop);
	free(f);
	return 0;
}

static void test_stop_and_cont(void **state)
{
	struct fixture *f = *state;

	vm_stop(&f->vm, RUN_STATE_PAUSED);
	vm_stop(&f->vm, RUN_STATE_PAUSED);
	assert_true(f->vm.stop_requested);
	vm_start(&f->vm);
	assert_false(f->vm.stop_requested);
	assert_string_equal(f->trace, "pause STOP RESUME resume ");
}

static void test_a_guest_resets(void **state)
{
	struct fixture *f = *state;

	vm_request_reset(&f->vm, CAUSE_GUEST_RESET);
	assert_true(f->vm.stop_requested);
	assert_string_equal(f->trace, "");
	evloop_run_once(f->loop, 0);
	assert_string_equal(f->trace, "pause board cpus RESET guest-reset resume ");
	assert_int_equal(f->vm.state, RUN_STATE_RUNNING);
}

static void test_no_reboot_makes_it_a_shutdown(void **state)
{
	struct fixture *f = *state;

	f->vm.no_reboot = true;
	vm_request_reset(&f->vm, CAUSE_GUEST_RESET);
	evloop_run_once(f->loop, 0);
	assert_string_equal(f->trace, "SHUTDOWN guest-reset pause ");
	assert_true(f->vm.exiting);
	f->trace[0] = '\0';
	vm_start(&f->vm);
	vm_request_reset(&f->vm, CAUSE_GUEST_RESET);
	evloop_run_once(f->loop, 0);
	assert_string_equal(f->trace, "");
}

static void test_no_reboot_and_no_shutdown_pause_at_any_reset(void **state)
{
	struct fixture *f = *state;

	f->vm.no_reboot = f->vm.no_shutdown = true;
	vm_request_reset(&f->vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	evloop_run_once(f->loop, 0);
	assert_string_equal(f->trace, "SHUTDOWN host-qmp-system-reset pause STOP ");
	assert_int_equal(f->vm.state, RUN_STATE_SHUTDOWN);
}

static void test_no_shutdown_pauses_a_guest_that_powers_off(void **state)
{
	struct fixture *f = *state;

	f->vm.no_shutdown = true;
	vm_request_shutdown(&f->vm, CAUSE_GUEST_SHUTDOWN);
	evloop_run_once(f->loop, 0);
	assert_string_equal(f->trace, "SHUTDOWN guest-shutdown pause STOP ");
	assert_int_equal(f->vm.state, RUN_STATE_SHUTDOWN);
	assert_false(f->vm.exiting);
	f->trace[0] = '\0';
	vm_reset(&f->vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	assert_string_equal(f->trace, "board cpus RESET host-qmp-system-reset ");
	assert_int_equal(f->vm.state, RUN_STATE_PRELAUNCH);
	f->trace[0] = '\0';
	vm_start(&f->vm); /* without another reset */
	assert_string_equal(f->trace, "RESUME resume ");
	vm_stop(&f->vm, RUN_STATE_PAUSED);
	f->trace[0] = '\0';
	vm_request_shutdown(&f->vm, CAUSE_HOST_SIGNAL);
	evloop_run_once(f->loop, 0);
	assert_string_equal(f->trace, "SHUTDOWN host-signal ");
	assert_true(f->vm.exiting);
}

static void test_the_gravest_request_wins(void **state)
{
	struct fixture *f = *state;

	vm_request_reset(&f->vm, CAUSE_GUEST_RESET);
	vm_request_powerdown(&f->vm);
	vm_request_shutdown(&f->vm, CAUSE_GUEST_SHUTDOWN);
	evloop_run_once(f->loop, 0);
	assert_string_equal(f->trace, "POWERDOWN SHUTDOWN guest-shutdown pause ");
}

static void test_an_internal_error_pauses(void **state)
{
	struct fixture *f = *state;

	vm_request_stop(&f->vm, RUN_STATE_INTERNAL_ERROR);
	evloop_run_once(f->loop, 0);
	assert_int_equal(f->vm.state, RUN_STATE_INTERNAL_ERROR);
	assert_string_equal(run_state_name(f->vm.state), "internal-error");
	assert_string_equal(f->trace, "pause STOP ");
}

static void test_a_panic_does_what_was_asked_for(void **state)
{
	struct fixture *f = *state;

	f->vm.panic_action = PANIC_PAUSE;
	vm_request_panic(&f->vm);
	evloop_run_once(f->loop, 0);
	assert_string_equal(f->trace, "PANICKED pause STOP ");
	assert_int_equal(f->vm.state, RUN_STATE_GUEST_PANICKED);
	f->vm.panic_action = PANIC_EXIT_FAILURE;
	vm_start(&f->vm);
	vm_request_panic(&f->vm);
	evloop_run_once(f->loop, 0);
	assert_true(f->vm.exiting);
	assert_int_equal(f->vm.exit_status, 1);
}

static void test_exit_with_a_status(void **state)
{
	struct fixture *f = *state;

	vm_request_exit(&f->vm, 33);
	evloop_run(f->loop);
	assert_int_equal(f->vm.exit_status, 33);
	assert_string_equal(f->trace, "pause ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stop_and_cont, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_guest_resets, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_reboot_makes_it_a_shutdown, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_reboot_and_no_shutdown_pause_at_any_reset,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_shutdown_pauses_a_guest_that_powers_off, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_the_gravest_request_wins, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_an_internal_error_pauses, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_panic_does_what_was_asked_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_exit_with_a_status, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
