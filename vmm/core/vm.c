/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's run state: who may ask for what, and what then happens in which order; see vm.h.
 *
 * Requests are bits that any thread sets; the main thread takes them all at once. The gravest wins:
 * a guest that asks for a reset and dies in the same breath is shut down.
 */
#include "vmm/core/vm.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

enum {
	REQUEST_RESET = 1 << 0,
	REQUEST_SHUTDOWN = 1 << 1,
	REQUEST_POWERDOWN = 1 << 2,
	REQUEST_STOP = 1 << 3,
	REQUEST_PANIC = 1 << 4,
	REQUEST_EXIT = 1 << 5,
};

const char *run_state_name(enum run_state state)
{
	static const char *const names[] = {
		[RUN_STATE_PRELAUNCH] = "prelaunch",
		[RUN_STATE_INMIGRATE] = "inmigrate",
		[RUN_STATE_RUNNING] = "running",
		[RUN_STATE_PAUSED] = "paused",
		[RUN_STATE_DEBUG] = "debug",
		[RUN_STATE_SHUTDOWN] = "shutdown",
		[RUN_STATE_IO_ERROR] = "io-error",
		[RUN_STATE_INTERNAL_ERROR] = "internal-error",
		[RUN_STATE_GUEST_PANICKED] = "guest-panicked",
		[RUN_STATE_WATCHDOG] = "watchdog",
		[RUN_STATE_SAVE_VM] = "save-vm",
		[RUN_STATE_RESTORE_VM] = "restore-vm",
		[RUN_STATE_FINISH_MIGRATE] = "finish-migrate",
		[RUN_STATE_POSTMIGRATE] = "postmigrate",
	};
	return names[state];
}

const char *shutdown_cause_name(enum shutdown_cause cause)
{
	static const char *const names[] = {
		[CAUSE_NONE] = "none",
		[CAUSE_HOST_ERROR] = "host-error",
		[CAUSE_HOST_QMP_QUIT] = "host-qmp-quit",
		[CAUSE_HOST_QMP_SYSTEM_RESET] = "host-qmp-system-reset",
		[CAUSE_HOST_SIGNAL] = "host-signal",
		[CAUSE_HOST_UI] = "host-ui",
		[CAUSE_GUEST_SHUTDOWN] = "guest-shutdown",
		[CAUSE_GUEST_RESET] = "guest-reset",
		[CAUSE_GUEST_PANIC] = "guest-panic",
	};
	return names[cause];
}

static void handle_requests(void *opaque);

static void unplug_due(void *opaque)
{
	device_unplug_due(opaque);
}

void vm_init(struct vm *vm, struct evloop *loop)
{
	memset(vm, 0, sizeof(*vm));
	vm->loop = loop;
	vm->state = RUN_STATE_PRELAUNCH;
	guest_mem_init(&vm->mem);
	io_bus_init(&vm->pio, 4);
	io_bus_init(&vm->mmio, 8);
	ev_work_init(&vm->request_work, handle_requests, vm);
	ev_work_init(&vm->unplug_work, unplug_due, vm);
}

void vm_destroy(struct vm *vm)
{
	/* Owners of buses were realized before what sits on them. */
	while (vm->devices) {
		struct device *last = vm->devices;

		while (last->next)
			last = last->next;
		device_free(last);
	}
	while (vm->buses)
		bus_destroy(vm, vm->buses);
	evloop_unpost(vm->loop, &vm->request_work);
	evloop_unpost(vm->loop, &vm->unplug_work);
	opts_free(&vm->globals);
	guest_mem_destroy(&vm->mem);
	io_bus_destroy(&vm->pio);
	io_bus_destroy(&vm->mmio);
	free(vm->name);
	vm->name = NULL;
}

void vm_send_event(struct vm *vm, const struct vm_event *event)
{
	notifier_fire(&vm->events, (void *)event);
}

static void set_state(struct vm *vm, enum run_state state)
{
	vm->state = state;
	notifier_fire(&vm->state_changed, &state);
}

static void pause_cpus(struct vm *vm)
{
	atomic_store(&vm->stop_requested, true);
	if (vm->cpu_ops)
		vm->cpu_ops->pause_all(vm);
}

static void resume_cpus(struct vm *vm)
{
	atomic_store(&vm->stop_requested, false);
	/* Who has asked for something since then stands still until handle_requests() served it. */
	if (atomic_load(&vm->requests)) {
		atomic_store(&vm->stop_requested, true);
		return;
	}
	if (vm->cpu_ops)
		vm->cpu_ops->resume_all(vm);
}

/* Everything into its state after power-on; vCPUs are paused. */
static void reset_machine(struct vm *vm)
{
	device_hold(vm);
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->desc->reset)
			d->desc->reset(d);
	device_release(vm);
	notifier_fire(&vm->reset, NULL);
	if (vm->cpu_ops)
		vm->cpu_ops->reset_all(vm);
}

void vm_start(struct vm *vm)
{
	if (vm_is_running(vm) || vm->exiting)
		return;
	if (!vm->launched)
		reset_machine(vm);
	vm->launched = true;
	set_state(vm, RUN_STATE_RUNNING);
	vm_send_event(vm, &(struct vm_event){ .kind = VM_EVENT_RESUME });
	resume_cpus(vm);
}

void vm_stop(struct vm *vm, enum run_state state)
{
	if (!vm_is_running(vm))
		return;
	pause_cpus(vm);
	set_state(vm, state);
	vm_send_event(vm, &(struct vm_event){ .kind = VM_EVENT_STOP });
}

void vm_reset(struct vm *vm, enum shutdown_cause cause)
{
	bool running = vm_is_running(vm);

	pause_cpus(vm);
	if (vm->launched)
		reset_machine(vm);
	vm_send_event(vm, &(struct vm_event){ .kind = VM_EVENT_RESET, .cause = cause });
	if (running)
		resume_cpus(vm);
	else if (vm->state != RUN_STATE_PRELAUNCH && vm->state != RUN_STATE_INMIGRATE)
		set_state(vm, RUN_STATE_PRELAUNCH); /* as QEMU: it stands at its first instruction */
}

static void leave(struct vm *vm)
{
	pause_cpus(vm);
	vm->exiting = true;
	evloop_stop(vm->loop);
}

static void shut_down(struct vm *vm, enum shutdown_cause cause)
{
	vm_send_event(vm, &(struct vm_event){ .kind = VM_EVENT_SHUTDOWN, .cause = cause });
	/* -no-shutdown is about guests and resets, not about quit and signals. */
	bool asked_to_end = cause == CAUSE_HOST_QMP_QUIT || cause == CAUSE_HOST_SIGNAL ||
			    cause == CAUSE_HOST_UI || cause == CAUSE_HOST_ERROR;

	if (vm->no_shutdown && !asked_to_end)
		vm_stop(vm, cause == CAUSE_GUEST_PANIC ? RUN_STATE_GUEST_PANICKED :
							 RUN_STATE_SHUTDOWN);
	else
		leave(vm);
}

static void panicked(struct vm *vm)
{
	static const char *const actions[] = {
		[PANIC_SHUTDOWN] = "poweroff",
		[PANIC_PAUSE] = "pause",
		[PANIC_EXIT_FAILURE] = "poweroff",
		[PANIC_NONE] = "run",
	};

	vm_send_event(vm, &(struct vm_event){ .kind = VM_EVENT_GUEST_PANICKED,
					      .action = actions[vm->panic_action] });
	switch (vm->panic_action) {
	case PANIC_EXIT_FAILURE:
		vm->exit_status = 1;
		__attribute__((fallthrough));
	case PANIC_SHUTDOWN:
		shut_down(vm, CAUSE_GUEST_PANIC);
		break;
	case PANIC_PAUSE:
		vm_stop(vm, RUN_STATE_GUEST_PANICKED);
		break;
	case PANIC_NONE:
		break;
	}
}

static void handle_requests(void *opaque)
{
	struct vm *vm = opaque;
	uint32_t r = atomic_exchange(&vm->requests, 0);
	enum shutdown_cause reset_cause = atomic_load(&vm->reset_cause);

	if (vm->exiting)
		return;
	if ((r & REQUEST_RESET) && vm->no_reboot) {
		r = (r & ~REQUEST_RESET) | REQUEST_SHUTDOWN;
		atomic_store(&vm->shutdown_cause, reset_cause);
	}
	if (r & REQUEST_POWERDOWN) {
		vm_send_event(vm, &(struct vm_event){ .kind = VM_EVENT_POWERDOWN });
		notifier_fire(&vm->powerdown, NULL);
	}
	if (r & REQUEST_PANIC)
		panicked(vm);
	if (r & REQUEST_EXIT)
		leave(vm);
	if (vm->exiting)
		return;
	if (r & REQUEST_SHUTDOWN)
		shut_down(vm, atomic_load(&vm->shutdown_cause));
	else if (r & REQUEST_RESET)
		vm_reset(vm, reset_cause);
	if (r & REQUEST_STOP)
		vm_stop(vm, atomic_load(&vm->stop_state));
	/* The asking vCPU stood still meanwhile. */
	if (vm_is_running(vm) && !vm->exiting && atomic_load(&vm->stop_requested))
		resume_cpus(vm);
}

static void request(struct vm *vm, uint32_t bit)
{
	/* In this order: who resumes the vCPUs clears the one and then looks at the other. */
	atomic_fetch_or(&vm->requests, bit);
	if (bit != REQUEST_POWERDOWN)
		atomic_store(&vm->stop_requested, true);
	evloop_post(vm->loop, &vm->request_work);
}

void vm_request_reset(struct vm *vm, enum shutdown_cause cause)
{
	atomic_store(&vm->reset_cause, cause);
	request(vm, REQUEST_RESET);
}

void vm_request_shutdown(struct vm *vm, enum shutdown_cause cause)
{
	atomic_store(&vm->shutdown_cause, cause);
	request(vm, REQUEST_SHUTDOWN);
}

void vm_request_powerdown(struct vm *vm)
{
	request(vm, REQUEST_POWERDOWN);
}

void vm_request_stop(struct vm *vm, enum run_state state)
{
	atomic_store(&vm->stop_state, state);
	request(vm, REQUEST_STOP);
}

void vm_request_panic(struct vm *vm)
{
	request(vm, REQUEST_PANIC);
}

void vm_request_exit(struct vm *vm, int status)
{
	vm->exit_status = status;
	request(vm, REQUEST_EXIT);
}
