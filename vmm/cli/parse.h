/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of vmm/cli/ share: the option table's type, and what is known only while the
 * command line is being read. Main thread.
 */
#ifndef VMM_CLI_PARSE_H
#define VMM_CLI_PARSE_H

#include "vmm/cli/cli.h"

/* What -smp said; 0: not given. Resolved when the machine's version is known. */
struct cli_smp {
	uint64_t cpus, maxcpus, sockets, dies, cores, threads;
};

/* A -drive (or -hda, ...) before its place among the others is known. */
struct cli_drive {
	struct opts opts;
	char *from;
	bool any_if; /* a shorthand: if= was not the user's to give */
};

struct cli {
	struct vm_config *config;
	const char *from; /* "-m 4G": the option being read */
	struct cli_smp smp;
	struct cli_drive *drives;
	size_t drive_count;
	unsigned serial_count, compat_monitors;
	/* Whether nothing took away the default serial port and monitor. */
	bool default_serial, default_monitor;
	bool snapshot;
	/* Network cards, in order; they come before other devices. Those of -net want a partner. */
	struct config_list cards;
	size_t net_card, net_cards; /* the last of -net nic without netdev=, and their count */
	char *net_backend;	    /* id of -net TYPE's */
	size_t net_backends, backend_ids;
	bool network_given; /* no default card */
	bool display;  /* -display was given: no hint at -nographic */
	bool answered; /* something was printed: CLI_DONE */
};

enum cli_section {
	CLI_STANDARD,
	CLI_STORAGE,
	CLI_CHARACTER,
	CLI_NETWORK,
	CLI_BOOT,
	CLI_CONTROL,
	CLI_PROCESS,
	CLI_HOST,
	CLI_SECTIONS,
};

struct cli_option {
	const char *name; /* without dash */
	const char *arg;  /* its syntax, NULL: takes no argument */
	const char
		*help; /* lines; the first says what it is; NULL: as the one before (a synonym) */
	enum cli_section section;
	bool (*handle)(struct cli *cli, const char *arg, struct error **err);
	bool hidden;
};

extern const struct cli_option cli_options[]; /* ends with name NULL */
/* NULL with err ("unknown option ...; did you mean ...") */
const struct cli_option *cli_option_find(const char *name, struct error **err);

/* One handler an option, by file. */
#define CLI_HANDLER(name) bool name(struct cli *cli, const char *arg, struct error **err)

/* machine.c */
CLI_HANDLER(cli_opt_machine);
CLI_HANDLER(cli_opt_accel);
CLI_HANDLER(cli_opt_enable_kvm);
CLI_HANDLER(cli_opt_cpu);
CLI_HANDLER(cli_opt_smp);
CLI_HANDLER(cli_opt_m);
CLI_HANDLER(cli_opt_mem_path);
CLI_HANDLER(cli_opt_mem_prealloc);
CLI_HANDLER(cli_opt_numa);
CLI_HANDLER(cli_opt_name);
CLI_HANDLER(cli_opt_uuid);
CLI_HANDLER(cli_opt_rtc);
CLI_HANDLER(cli_opt_overcommit);
CLI_HANDLER(cli_opt_device);
CLI_HANDLER(cli_opt_global);
CLI_HANDLER(cli_opt_object);
CLI_HANDLER(cli_opt_nodefaults);
CLI_HANDLER(cli_opt_nothing);
bool cli_finish_machine(struct cli *cli, struct error **err);
/* Pure: fills what is left out; prefer_sockets as machines before 6.2 did. */
bool cli_resolve_smp(const struct cli_smp *given, bool prefer_sockets, struct config_smp *smp,
		     struct error **err);

/* boot.c */
CLI_HANDLER(cli_opt_kernel);
CLI_HANDLER(cli_opt_initrd);
CLI_HANDLER(cli_opt_append);
CLI_HANDLER(cli_opt_bios);
CLI_HANDLER(cli_opt_fw_cfg);
CLI_HANDLER(cli_opt_smbios);
CLI_HANDLER(cli_opt_boot);
CLI_HANDLER(cli_opt_cloud_init);
bool cli_finish_boot(struct cli *cli, struct error **err);

/* storage.c */
CLI_HANDLER(cli_opt_drive);
CLI_HANDLER(cli_opt_blockdev);
CLI_HANDLER(cli_opt_hda);
CLI_HANDLER(cli_opt_hdb);
CLI_HANDLER(cli_opt_hdc);
CLI_HANDLER(cli_opt_hdd);
CLI_HANDLER(cli_opt_cdrom);
CLI_HANDLER(cli_opt_pflash);
CLI_HANDLER(cli_opt_snapshot);
bool cli_finish_storage(struct cli *cli, struct error **err);

/* character.c */
CLI_HANDLER(cli_opt_chardev);
CLI_HANDLER(cli_opt_serial);
CLI_HANDLER(cli_opt_parallel);
CLI_HANDLER(cli_opt_monitor);
CLI_HANDLER(cli_opt_mon);
CLI_HANDLER(cli_opt_qmp);
CLI_HANDLER(cli_opt_qmp_pretty);
CLI_HANDLER(cli_opt_nographic);
CLI_HANDLER(cli_opt_echr);
CLI_HANDLER(cli_opt_display);
CLI_HANDLER(cli_opt_vga);
bool cli_finish_character(struct cli *cli, struct error **err);
/* Makes the chardev that text asks for ("stdio", "tcp:HOST:PORT", "chardev:ID"); the id it has in
 * the end, allocated, or NULL. */
char *cli_make_chardev(struct cli *cli, const char *text, const char *id, struct error **err);

/* network.c */
CLI_HANDLER(cli_opt_netdev);
CLI_HANDLER(cli_opt_nic);
CLI_HANDLER(cli_opt_net);
void cli_print_net_manual(FILE *out);
/* Before cli_finish_storage(). */
bool cli_finish_network(struct cli *cli, struct error **err);

/* process.c */
CLI_HANDLER(cli_opt_help);
CLI_HANDLER(cli_opt_version);
CLI_HANDLER(cli_opt_manual);
CLI_HANDLER(cli_opt_check_host);
CLI_HANDLER(cli_opt_S);
CLI_HANDLER(cli_opt_no_reboot);
CLI_HANDLER(cli_opt_no_shutdown);
CLI_HANDLER(cli_opt_action);
CLI_HANDLER(cli_opt_daemonize);
CLI_HANDLER(cli_opt_pidfile);
CLI_HANDLER(cli_opt_msg);
CLI_HANDLER(cli_opt_D);
CLI_HANDLER(cli_opt_d);
CLI_HANDLER(cli_opt_sandbox);

/* Replaces an owned string. */
void cli_set_string(char **where, const char *value);
/* opts_check_used() against a NULL-terminated list of known keys, for the hint. */
bool cli_check_used(const struct opts *opts, const char *const *known, struct error **err);

#endif
