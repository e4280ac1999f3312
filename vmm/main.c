/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program: options -> struct vm_config -> machine -> run. Everything is made here, in the order
 * in which things need one another, and ended in the opposite one.
 *
 * Main thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "accel/accel.h"
#include "accel/check-host.h"
#include "target-x86/cpu.h"
#include "target-x86/q35.h"
#include "vmm/chardev/chardev.h"
#include "vmm/cli/cli.h"
#include "vmm/config.h"
#include "vmm/control/control.h"
#include "vmm/control/lifecycle.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"
#include "vmm/core/version.h"
#include "vmm/core/vm.h"
#include "vmm/devices.h"
#include "vmm/resources.h"

/* All that one guest is made of. */
struct program {
	struct vm_config config;
	struct lifecycle lifecycle;
	struct evloop *loop;
	struct vm vm;
	bool vm_ready;
	struct chardevs chardevs;
	struct resources resources;
	struct control *control;
	struct accel *accel;
	struct q35 *board;
	struct smbios_options *smbios;
	struct opts **fw_cfg;
	int seed_fd; /* -cloud-init's image; -1: none */
};

static void quit(void *opaque)
{
	struct program *p = opaque;

	/* Someone may still wait for a chardev's client. */
	chardevs_cancel(&p->chardevs);
	vm_request_shutdown(&p->vm, CAUSE_HOST_SIGNAL);
}

static void quit_from_terminal(void *opaque)
{
	struct program *p = opaque;

	vm_request_shutdown(&p->vm, CAUSE_HOST_UI);
}

/* Questions that need more than the parser knows; true when one was asked. */
static bool answer(const struct vm_config *c, struct error **err, int *status)
{
	*status = 0;
	if (c->machine_help)
		printf("Supported machines are:\n"
		       "q35                  Standard PC (Q35 + ICH9, 2009) (default)\n"
		       "pc-q35-VERSION       the same: scripts may name QEMU's versions\n");
	else if (c->cpu_help)
		cpu_help(stdout);
	else if (c->accel_help)
		accel_help(stdout);
	else if (c->check_host)
		*status = check_host(stdout) ? 0 : 1;
	else if (c->manual) {
		cli_print_manual(stdout);
		cli_print_device_manual(stdout, device_table);
	} else if (c->nic_help)
		nic_help(stdout);
	else if (c->device_help)
		device_help(stdout);
	else if (c->device_help_of)
		*status = device_help_of(stdout, c->device_help_of, err) ? 0 : 1;
	else
		return false;
	return true;
}

/* The process: background, signals, pid file. Before any thread. */
static bool start_process(struct program *p, struct error **err)
{
	const struct vm_config *c = &p->config;

	log_set_timestamps(c->msg_timestamps);
	if (c->log_file && !log_set_file(c->log_file)) {
		error_set(err, "-D %s: cannot write there", c->log_file);
		return false;
	}
	for (char *items = c->log_items, *item; items && (item = strsep(&items, ","));)
		log_enable(item);
	if (c->process_name)
		lifecycle_set_name(c->process_name);
	if (c->daemonize && !lifecycle_daemonize(&p->lifecycle, err))
		return false;
	p->loop = evloop_new(NULL, err);
	return p->loop && lifecycle_signals(&p->lifecycle, p->loop, quit, p, err) &&
	       (!c->pidfile || lifecycle_pidfile(&p->lifecycle, c->pidfile, err)) &&
	       (!c->mem_lock || lifecycle_lock_memory(err));
}

static void init_vm(struct program *p)
{
	const struct vm_config *c = &p->config;
	struct vm *vm = &p->vm;
	static const enum panic_action panic[] = {
		[CONFIG_PANIC_SHUTDOWN] = PANIC_SHUTDOWN,
		[CONFIG_PANIC_PAUSE] = PANIC_PAUSE,
		[CONFIG_PANIC_EXIT] = PANIC_EXIT_FAILURE,
		[CONFIG_PANIC_NONE] = PANIC_NONE,
	};

	vm_init(vm, p->loop);
	vm->name = c->name ? xstrdup(c->name) : NULL;
	memcpy(vm->uuid, c->uuid, sizeof(vm->uuid));
	vm->uuid_set = c->uuid_set;
	vm->debug_threads = c->debug_threads;
	vm->cpu_count = c->smp.cpus;
	vm->no_reboot = c->no_reboot;
	vm->no_shutdown = c->no_shutdown;
	vm->panic_action = panic[c->panic_action];
	vm->device_table = device_table;
	for (size_t i = 0; i < c->globals.count; i++)
		opts_add(&vm->globals, c->globals.items[i].key, c->globals.items[i].value);
	chardevs_init(&p->chardevs, p->loop);
	p->chardevs.escape_char = c->escape_char;
	p->chardevs.quit = quit_from_terminal;
	p->chardevs.opaque = p;
	resources_init(&p->resources, vm, &p->chardevs);
	p->vm_ready = true;
}

static bool open_chardevs(struct program *p, struct error **err)
{
	const struct vm_config *c = &p->config;

	for (size_t i = 0; i < c->chardevs.count; i++) {
		if (!chardevs_add(&p->chardevs, &c->chardevs.items[i].opts, err)) {
			error_prefix(err, "%s: ", c->chardevs.items[i].from);
			return false;
		}
	}
	p->control = control_new(&p->vm, &p->chardevs, &p->resources.drives,
				 &p->resources.netdevs);
	control_hold(p->control, true);
	for (size_t i = 0; i < c->monitor_count; i++) {
		const struct config_monitor *m = &c->monitors[i];

		if (!control_add(p->control, m->chardev, m->qmp, m->pretty, err)) {
			error_prefix(err, "%s: ", m->from);
			return false;
		}
	}
	return true;
}

static bool open_accel(struct program *p, struct error **err)
{
	const struct vm_config *c = &p->config;
	const struct accel_desc *desc = accel_find(c->machine.accel);
	struct accel_config config = {
		.irqchip = c->machine.kernel_irqchip == CONFIG_IRQCHIP_SPLIT ? IRQCHIP_SPLIT :
									       IRQCHIP_KERNEL,
		.max_cpus = c->smp.maxcpus,
		.pit = c->machine.kernel_irqchip != CONFIG_IRQCHIP_SPLIT,
	};

	if (!desc) {
		error_set(err, "-accel %s: no such accelerator ('-accel help' lists them)",
			  c->machine.accel);
		return false;
	}
	p->accel = desc->open(&p->vm, &config, err);
	return p->accel != NULL;
}

static bool board_options(struct program *p, struct q35_config *q, char *rtc_date, size_t len,
			  struct error **err)
{
	const struct vm_config *c = &p->config;
	static const char *const clocks[] = { "host", "rt", "vm" };

	p->smbios = smbios_options_new();
	for (size_t i = 0; i < c->smbios.count; i++) {
		if (!smbios_options_add(p->smbios, &c->smbios.items[i].opts, err)) {
			error_prefix(err, "%s: ", c->smbios.items[i].from);
			return false;
		}
	}
	p->fw_cfg = xcalloc(c->fw_cfg.count, sizeof(*p->fw_cfg));
	for (size_t i = 0; i < c->fw_cfg.count; i++)
		p->fw_cfg[i] = &c->fw_cfg.items[i].opts;
	switch (c->rtc.base) {
	case CONFIG_RTC_UTC:
		q->rtc_base = "utc";
		break;
	case CONFIG_RTC_LOCALTIME:
		q->rtc_base = "localtime";
		break;
	case CONFIG_RTC_DATE:
		strftime(rtc_date, len, "%Y-%m-%dT%H:%M:%S", gmtime(&(time_t){ c->rtc.date }));
		q->rtc_base = rtc_date;
		break;
	}
	q->rtc_clock = clocks[c->rtc.clock];
	q->rtc_slew = c->rtc.driftfix_slew;
	for (unsigned i = 0; i < Q35_SERIALS; i++) {
		q->serials[i].present = c->serials[i].present;
		q->serials[i].chardev = c->serials[i].chardev;
	}
	for (size_t i = 0; i < c->drive_count; i++) {
		const struct config_drive *d = &c->drives[i];

		if (d->iface != CONFIG_IF_PFLASH)
			continue;
		if (d->index >= Q35_PFLASHES || !d->has_medium) {
			error_set(err, "%s: %s", d->from,
				  d->has_medium ? "there are two flash units, 0 and 1" :
						  "a flash unit needs a file");
			return false;
		}
		q->pflash[d->index].drive = d->id;
		q->pflash[d->index].from = d->from;
	}
	if (q->pflash[1].drive && !q->pflash[0].drive) {
		error_set(err, "%s: flash unit 1 is given without unit 0, which holds the firmware",
			  q->pflash[1].from);
		return false;
	}
	return true;
}

static bool make_board(struct program *p, struct error **err)
{
	const struct vm_config *c = &p->config;
	char rtc_date[64];
	struct q35_config q = {
		.ram = resources_ram(&p->resources, c, err),
		.cpus = c->smp.cpus,
		.max_cpus = c->smp.maxcpus,
		.topology = { c->smp.sockets, c->smp.dies, c->smp.cores, c->smp.threads },
		.cpu = c->cpu,
		.bios = c->bios,
		.kernel = c->kernel,
		.initrd = c->initrd,
		.append = c->append,
		.boot_order = c->boot.order,
		.boot_once = c->boot.once,
		.boot_menu = c->boot.menu,
		.boot_strict = c->boot.strict,
		.boot_menu_wait_ms = c->boot.splash_time_set ? c->boot.splash_time : 0,
		.nographic = c->nographic,
		.fw_cfg_count = c->fw_cfg.count,
		.version = VMM_VERSION,
	};

	if (!q.ram)
		return false;
	if (!board_options(p, &q, rtc_date, sizeof(rtc_date), err))
		return false;
	q.smbios = p->smbios;
	q.fw_cfg = p->fw_cfg;
	p->board = q35_new(&p->vm, p->accel, &q, err);
	return p->board != NULL;
}

static bool add_devices(struct program *p, struct error **err)
{
	const struct vm_config *c = &p->config;

	for (size_t i = 0; i < c->devices.count; i++) {
		if (!device_add(&p->vm, &c->devices.items[i].opts, err)) {
			error_prefix(err, "%s: ", c->devices.items[i].from);
			return false;
		}
	}
	return true;
}

static bool start(struct program *p, struct error **err)
{
	if (!start_process(p, err))
		return false;
	init_vm(p);
	if (!cli_make_seed(&p->config, &p->seed_fd, err) || !open_chardevs(p, err) ||
	    !open_accel(p, err) || !resources_open(&p->resources, &p->config, err) || !make_board(p, err) ||
	    !add_devices(p, err) || !q35_complete(p->board, err) || !vcpus_start(&p->vm, err))
		return false;
	device_check_globals(&p->vm);
	resources_check_use(&p->resources);
	return lifecycle_ready(&p->lifecycle, err);
}

/* Also after a start that failed half-way. */
static void finish(struct program *p)
{
	if (p->vm_ready) {
		vcpus_stop(&p->vm);
		control_free(p->control);
		q35_free(p->board);
		resources_close(&p->resources);
		vcpus_destroy(&p->vm);
		vm_destroy(&p->vm);
		if (p->accel)
			p->accel->ops->destroy(p->accel);
		chardevs_destroy(&p->chardevs);
	}
	smbios_options_free(p->smbios);
	free(p->fw_cfg);
	if (p->seed_fd >= 0)
		close(p->seed_fd);
	lifecycle_destroy(&p->lifecycle);
	evloop_free(p->loop);
	config_free(&p->config);
}

int main(int argc, char **argv)
{
	struct program p = { .seed_fd = -1 };
	struct error *err = NULL;
	int status = 1;

	config_init(&p.config);
	lifecycle_init(&p.lifecycle);
	switch (cli_parse(&p.config, argc, argv, &err)) {
	case CLI_DONE:
		status = 0;
		break;
	case CLI_ERROR:
		break;
	case CLI_RUN:
		if (answer(&p.config, &err, &status))
			break;
		status = 1;
		if (!start(&p, &err))
			break;
		if (p.config.console_hidden)
			log_info("nothing shows the guest's console; -nographic does, here");
		if (!p.config.start_paused)
			vm_start(&p.vm);
		control_hold(p.control, false);
		evloop_run(p.loop);
		status = p.vm.exit_status;
		break;
	}
	if (err)
		error_report(err);
	finish(&p);
	return status;
}
