/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest: what every room hangs its state on. One per process, passed everywhere, never found in
 * a global. It knows no CPU, no disk and no board: those fill in the pointers.
 *
 * Run state and its transitions belong to the main thread. vCPU threads and devices ask through
 * vm_request_*(), which work from any thread, never block, and stop the asking vCPU before its
 * next instruction.
 */
#ifndef VMM_CORE_VM_H
#define VMM_CORE_VM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/device.h"
#include "vmm/core/evloop.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/irq.h"
#include "vmm/core/notifier.h"

/* QMP's RunState (qapi/run-state.json). */
enum run_state {
	RUN_STATE_PRELAUNCH,
	RUN_STATE_INMIGRATE,
	RUN_STATE_RUNNING,
	RUN_STATE_PAUSED,
	RUN_STATE_DEBUG,
	RUN_STATE_SHUTDOWN,
	RUN_STATE_IO_ERROR,
	RUN_STATE_INTERNAL_ERROR,
	RUN_STATE_GUEST_PANICKED,
	RUN_STATE_WATCHDOG,
	RUN_STATE_SAVE_VM,
	RUN_STATE_RESTORE_VM,
	RUN_STATE_FINISH_MIGRATE,
	RUN_STATE_POSTMIGRATE,
};
const char *run_state_name(enum run_state state); /* "internal-error" */

/* QMP's ShutdownCause. */
enum shutdown_cause {
	CAUSE_NONE,
	CAUSE_HOST_ERROR,
	CAUSE_HOST_QMP_QUIT,
	CAUSE_HOST_QMP_SYSTEM_RESET,
	CAUSE_HOST_SIGNAL,
	CAUSE_HOST_UI,
	CAUSE_GUEST_SHUTDOWN,
	CAUSE_GUEST_RESET,
	CAUSE_GUEST_PANIC,
};
const char *shutdown_cause_name(enum shutdown_cause cause); /* "guest-shutdown" */
static inline bool shutdown_cause_is_guest(enum shutdown_cause cause)
{
	return cause >= CAUSE_GUEST_SHUTDOWN;
}

enum vm_event_kind {
	VM_EVENT_STOP,
	VM_EVENT_RESUME,
	VM_EVENT_RESET,
	VM_EVENT_SHUTDOWN,
	VM_EVENT_POWERDOWN,
	VM_EVENT_GUEST_PANICKED,
	VM_EVENT_DEVICE_DELETED,
	VM_EVENT_BLOCK_IO_ERROR,
	VM_EVENT_RTC_CHANGE,
	VM_EVENT_TRAY_MOVED,
	VM_EVENT_GUEST_CRASHLOADED,
	VM_EVENT_NETDEV, /* control's own, of struct net_event */
	VM_EVENT_BLOCK_IMAGE_CORRUPTED,
};

/* What vm->events tells. Fields that a kind does not use are zero. */
struct vm_event {
	enum vm_event_kind kind;
	enum shutdown_cause cause; /* RESET, SHUTDOWN */
	const char *device;	   /* DEVICE_DELETED, BLOCK_*, TRAY_MOVED: id or "" */
	const char *operation;	   /* BLOCK_IO_ERROR: "read", "write" */
	const char *action;	   /* BLOCK_IO_ERROR: "report", "stop"; PANICKED: "pause", ... */
	int error;		   /* BLOCK_IO_ERROR: errno */
	const char *node_name;	   /* BLOCK_IMAGE_CORRUPTED: or "" */
	const char *message;	   /* BLOCK_IMAGE_CORRUPTED */
	int64_t value;		   /* RTC_CHANGE: offset in s; TRAY_MOVED: open */
};

enum panic_action { PANIC_SHUTDOWN, PANIC_PAUSE, PANIC_EXIT_FAILURE, PANIC_NONE };

/* What vcpus do when the guest is stopped and started; accel/vcpu.c fills it in. Main thread. */
struct vm_cpu_ops {
	void (*pause_all)(struct vm *vm); /* returns once every vCPU is out of the guest */
	void (*resume_all)(struct vm *vm);
	void (*reset_all)(struct vm *vm); /* while paused */
	void (*kick_all)(struct vm *vm);  /* any thread: makes them see vm->stop_requested */
};

struct vm {
	char *name;	  /* -name */
	uint8_t uuid[16]; /* -uuid; zero when not given */
	bool uuid_set;
	bool debug_threads;

	struct evloop *loop; /* main */
	struct guest_mem mem;
	struct io_bus pio, mmio;
	struct msi_sink *msi;
	/* The board's interrupt inputs (ISA numbers, then PCI's), NULL where there is none. */
	struct irq_line *gsi[24];

	const struct device_desc *const *device_table; /* ends with NULL */
	struct prop_resolver resolver;
	struct bus *buses;
	struct device *devices; /* in order of realization */
	unsigned device_holds;	/* device_hold() */
	struct ev_work unplug_work;
	/* -global driver.property=value: applied by device_new() */
	struct opts globals;

	enum run_state state; /* main thread */
	bool launched;	      /* it has run: prelaunch comes again when it is reset while stopped */
	bool shared_ram; /* RAM must be one that other processes can map: boards obey */
	uint16_t mac_uses[256]; /* net_mac_take(): cards at 52:54:00:12:34:xx */
	unsigned cpu_count; /* -smp: how many queues a device makes that has one a vCPU; 0: unknown */
	const struct vm_cpu_ops *cpu_ops;
	void *cpus; /* accel/vcpu.c's */
	_Atomic bool stop_requested; /* vCPUs: do not enter the guest */
	_Atomic uint32_t requests;   /* vm.c's */
	_Atomic int reset_cause, shutdown_cause, stop_state;
	struct ev_work request_work;

	struct notifier_list events;	    /* data: const struct vm_event * */
	struct notifier_list state_changed; /* data: const enum run_state *, the new one */
	struct notifier_list reset;	    /* the board and what is not a device; data: NULL */
	struct notifier_list powerdown;	    /* the ACPI power button; data: NULL */
	/* While the main thread waits for vCPUs to leave the guest, which must not wait for it
	 * meanwhile: serves what register handlers may wait for; data: NULL */
	struct notifier_list vcpus_awaited;

	bool no_reboot;	  /* -no-reboot, -action reboot=shutdown */
	bool no_shutdown; /* -no-shutdown, -action shutdown=pause */
	enum panic_action panic_action;
	int exit_status; /* of the process, once the main loop has ended */
	bool exiting;
};

/* loop is borrowed. */
void vm_init(struct vm *vm, struct evloop *loop);
/* Frees all devices in reverse order, buses, memory map. vCPUs are gone. */
void vm_destroy(struct vm *vm);

static inline bool vm_is_running(const struct vm *vm)
{
	return vm->state == RUN_STATE_RUNNING;
}

/* Main thread. Starting from prelaunch resets the machine first. */
void vm_start(struct vm *vm);
void vm_stop(struct vm *vm, enum run_state state);
void vm_reset(struct vm *vm, enum shutdown_cause cause);
void vm_send_event(struct vm *vm, const struct vm_event *event);

/* Any thread. */
void vm_request_reset(struct vm *vm, enum shutdown_cause cause);
void vm_request_shutdown(struct vm *vm, enum shutdown_cause cause);
/* The power button. */
void vm_request_powerdown(struct vm *vm);
/* An I/O error under werror=stop, an internal error, a watchdog. */
void vm_request_stop(struct vm *vm, enum run_state state);
void vm_request_panic(struct vm *vm);
/* Ends the process with this status, disks flushed: isa-debug-exit. */
void vm_request_exit(struct vm *vm, int status);

#endif
