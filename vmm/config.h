/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the user asked for: plain data, checked in itself (sizes, topology, names, combinations) but
 * nothing opened. vmm/cli/ fills it in; vmm/main.c and the board's set-up read it.
 *
 * Where it came from stays with each part ("-drive file=x"), for messages:
 * error_prefix(err, "%s: ", item->from).
 *
 * Main thread. config_init(), cli_parse() (vmm/cli/cli.h), config_free().
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/opts.h"

/* One option group, in the order of the command line. */
struct config_item {
	struct opts opts;
	char *from; /* "-device virtio-rng-pci" */
};

struct config_list {
	struct config_item *items;
	size_t count;
};

enum config_tristate { CONFIG_AUTO, CONFIG_ON, CONFIG_OFF };

struct config_memory {
	uint64_t size;	 /* bytes; multiple of 4 KiB */
	uint64_t maxmem; /* bytes; == size without hotplug */
	uint64_t slots;
	char *path;    /* -mem-path, or NULL */
	bool prealloc; /* -mem-prealloc */
	char *from;    /* NULL: no -m */
};

/* All resolved: sockets * dies * cores * threads == maxcpus >= cpus >= 1. */
struct config_smp {
	unsigned cpus, maxcpus, sockets, dies, cores, threads;
	char *from;
};

enum config_irqchip { CONFIG_IRQCHIP_DEFAULT, CONFIG_IRQCHIP_ON, CONFIG_IRQCHIP_SPLIT };

struct config_machine {
	char *type;    /* "q35": versions ("pc-q35-7.2") are resolved */
	char *version; /* "7.2", or NULL */
	char *accel;   /* "kvm" */
	enum config_irqchip kernel_irqchip;
	bool dump_guest_core; /* default on */
	bool mem_merge;	      /* default on: MADV_MERGEABLE */
	char *memory_backend; /* id of the -object that is its RAM, or NULL */
	char *from;
};

enum config_drive_if {
	CONFIG_IF_NONE,
	CONFIG_IF_VIRTIO,
	CONFIG_IF_IDE,
	CONFIG_IF_PFLASH,
};

enum config_on_error {
	CONFIG_ON_ERROR_REPORT,
	CONFIG_ON_ERROR_IGNORE,
	CONFIG_ON_ERROR_STOP,
	CONFIG_ON_ERROR_ENOSPC,
};

/*
 * A -drive, -hda, -cdrom, ... The device in front of if=virtio and if=ide stands in
 * vm_config.devices like any -device; if=pflash drives are the board's.
 */
struct config_drive {
	char *id; /* given, or QEMU's: "virtio0", "ide2-cd0", "none0", "pflash1" */
	enum config_drive_if iface;
	unsigned index; /* among those of its interface */
	bool cdrom;
	bool readonly;
	enum config_on_error rerror, werror; /* as enum block_on_error */
	char *serial;
	bool has_medium;   /* a file= or other image was given */
	struct opts block; /* for block_open(): file, format, cache, aio, read-only... */
	char *from;
};

struct config_serial {
	bool present;
	char *chardev; /* id, or NULL: the port is there and nobody at its other end */
};

/* A monitor, human or QMP, on a chardev. */
struct config_monitor {
	char *chardev; /* id */
	bool qmp;
	bool pretty;
	char *from;
};

enum config_rtc_base { CONFIG_RTC_UTC, CONFIG_RTC_LOCALTIME, CONFIG_RTC_DATE };
enum config_rtc_clock { CONFIG_RTC_CLOCK_HOST, CONFIG_RTC_CLOCK_RT, CONFIG_RTC_CLOCK_VM };

struct config_rtc {
	enum config_rtc_base base;
	int64_t date; /* CONFIG_RTC_DATE: seconds since 1970, what the clock shows at start */
	enum config_rtc_clock clock;
	bool driftfix_slew;
};

struct config_boot {
	char *order; /* "cdn", or NULL */
	char *once;
	bool menu;
	bool strict;
	uint64_t splash_time; /* ms */
	bool splash_time_set;
};

enum config_panic {
	CONFIG_PANIC_SHUTDOWN,
	CONFIG_PANIC_PAUSE,
	CONFIG_PANIC_EXIT,
	CONFIG_PANIC_NONE
};

struct config_cloud_init {
	char *user_data, *meta_data, *network_config, *ssh_key; /* file names, or NULL */
	char *from;						/* NULL: no -cloud-init */
};

struct vm_config {
	/* Questions that end the program: main answers what the parser cannot. */
	bool machine_help, cpu_help, accel_help, check_host;
	bool device_help;     /* -device help */
	bool nic_help;	      /* -nic model=help */
	char *device_help_of; /* -device NAME,help */
	bool manual;	      /* --help-manual: cli_print_manual(), cli_print_device_manual() */

	struct config_memory memory;
	struct config_smp smp;
	struct config_machine machine;
	char *cpu; /* "host,+avx"; NULL: the machine's default */

	/* Chardevs come first: serial ports, monitors and devices name them. Each one's opts have
	 * "id" and "backend"; vmm/chardev/chardev.h takes them as they are. */
	struct config_list chardevs;
	struct config_serial serials[4];
	struct config_monitor *monitors;
	size_t monitor_count;
	int escape_char;     /* -echr: 1 is Ctrl-A */
	bool console_hidden; /* nothing was said about serial port, monitor or screen: worth a hint
			      */

	struct config_list objects;   /* opts have "qom-type" and "id" */
	struct config_list blockdevs; /* for block_open_blockdev() as they are */
	struct config_drive *drives;
	size_t drive_count;
	struct config_list netdevs; /* opts have "type" and "id"; for netdevs_add() as they are */
	struct config_list devices; /* opts have "driver"; for device_add() as they are */
	struct opts globals;	    /* "driver.property" = value */

	char *kernel, *initrd, *append, *bios;
	struct config_list fw_cfg; /* name=, file= or string= */
	struct config_list smbios; /* file= or type=, ... */
	struct config_boot boot;
	struct config_rtc rtc;
	struct config_cloud_init cloud_init;

	char *name;	    /* -name guest= */
	char *process_name; /* -name process= */
	bool debug_threads;
	uint8_t uuid[16];
	bool uuid_set;

	bool no_reboot;	  /* -no-reboot, -action reboot=shutdown */
	bool no_shutdown; /* -no-shutdown, -action shutdown=pause */
	enum config_panic panic_action;
	bool start_paused; /* -S */
	bool nodefaults;
	bool nographic;
	bool mem_lock; /* -overcommit mem-lock=on */

	bool daemonize;
	char *pidfile;
	bool msg_timestamps;
	char *log_file;	 /* -D */
	char *log_items; /* -d */
};

void config_init(struct vm_config *config);
void config_free(struct vm_config *config);
/* Appends an empty item; text is "-OPT ARG". Valid until the next one. */
struct config_item *config_list_add(struct config_list *list, const char *from);
void config_list_free(struct config_list *list);
struct config_drive *config_find_drive(const struct vm_config *config, const char *id);

#endif
