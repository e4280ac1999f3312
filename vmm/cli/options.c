/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option table: what there is, how it is written, what it does. Parsing, -h and the manual read
 * nothing else. Below it stand the options of QEMU that are known and not there. Main thread.
 */
#include "vmm/cli/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"
#include "vmm/core/version.h"

static const char *const section_titles[CLI_SECTIONS] = {
	[CLI_STANDARD] = "Machine",
	[CLI_STORAGE] = "Disks",
	[CLI_CHARACTER] = "Consoles and character devices",
	[CLI_NETWORK] = "Networks",
	[CLI_BOOT] = "Start",
	[CLI_CONTROL] = "Control",
	[CLI_PROCESS] = "Process",
	[CLI_HOST] = "Help",
};

const struct cli_option cli_options[] = {
	{ "machine", "[type=]NAME[,accel=kvm][,kernel-irqchip=on|split][,...]",
	  "the board: q35, or pc-q35-N.M for a version of it; help lists them\n"
	  "dump-guest-core=on|off and mem-merge=on|off: what the host may do with guest memory",
	  CLI_STANDARD, cli_opt_machine },
	{ "M", "NAME", NULL, CLI_STANDARD, cli_opt_machine },
	{ "accel", "[accel=]kvm[,kernel-irqchip=on|split]",
	  "what runs the guest: kvm; help tells whether it can here", CLI_STANDARD, cli_opt_accel },
	{ "enable-kvm", NULL, "the same as -accel kvm, which is the default", CLI_STANDARD,
	  cli_opt_enable_kvm },
	{ "cpu", "MODEL[,+FEATURE][,-FEATURE][,FEATURE=on|off]",
	  "the processor: host, max or a named model; help lists them", CLI_STANDARD, cli_opt_cpu },
	{ "smp", "[[cpus=]N][,maxcpus=N][,sockets=N][,dies=N][,cores=N][,threads=N]",
	  "how many processors and how they are arranged [1]\n"
	  "What is left out follows from the rest; the product must be maxcpus.",
	  CLI_STANDARD, cli_opt_smp },
	{ "m", "[size=]SIZE[,slots=N,maxmem=SIZE]",
	  "guest memory, in MiB unless a suffix (K M G T) says otherwise [128M]", CLI_STANDARD,
	  cli_opt_m },
	{ "mem-path", "PATH", "guest memory in this file, or in a file of this folder (huge pages)",
	  CLI_STANDARD, cli_opt_mem_path },
	{ "mem-prealloc", NULL, "take all of guest memory from the host at start", CLI_STANDARD,
	  cli_opt_mem_prealloc },
	{ "numa", "node,memdev=ID", "the object that is the guest's memory, as -machine "
	  "memory-backend=ID", CLI_STANDARD, cli_opt_numa },
	{ "name", "[guest=]NAME[,process=NAME][,debug-threads=on|off]",
	  "the guest's name; the process's name; names of threads by what they do", CLI_STANDARD,
	  cli_opt_name },
	{ "uuid", "UUID", "the machine's identity, as SMBIOS shows it", CLI_STANDARD,
	  cli_opt_uuid },
	{ "rtc", "[base=utc|localtime|DATE][,clock=host|rt|vm][,driftfix=none|slew]",
	  "what the clock shows at start and what moves it [utc, host]\n"
	  "DATE is 2026-01-31 or 2026-01-31T16:01:21.",
	  CLI_STANDARD, cli_opt_rtc },
	{ "overcommit", "mem-lock=on|off", "lock guest memory in the host's [off]", CLI_STANDARD,
	  cli_opt_overcommit },
	{ "device", "NAME[,id=ID][,bus=BUS][,addr=SLOT.FUNCTION][,PROPERTY=VALUE][,...]",
	  "adds a device; help lists them, NAME,help lists its properties", CLI_STANDARD,
	  cli_opt_device },
	{ "global", "DEVICE.PROPERTY=VALUE", "a property's default for all devices of that name",
	  CLI_STANDARD, cli_opt_global },
	{ "object", "TYPE,id=ID[,PROPERTY=VALUE][,...]",
	  "something devices, disks and memory use: iothread, rng-random, throttle-group, secret, "
	  "memory-backend-memfd; help lists "
	  "them\n"
	  "secret,id=ID,file=NAME[,format=raw|base64][,keyid=ID,iv=TEXT] is a password; data=TEXT "
	  "in file's place is for tests, as the command line is for all to see.\n"
	  "filter-dump,id=ID,netdev=ID,file=FILE[,maxlen=BYTES][,queue=all|rx|tx]: a back end's "
	  "packets as a pcap file; rx are those that the guest sent.",
	  CLI_STANDARD, cli_opt_object },
	{ "nodefaults", NULL, "nothing but what the command line names", CLI_STANDARD,
	  cli_opt_nodefaults },
	{ "no-user-config", NULL, "there are no configuration files; accepted for QEMU's scripts",
	  CLI_STANDARD, cli_opt_nothing },

	{ "drive",
	  "file=FILE[,format=raw|qcow2][,if=virtio|none|ide|pflash][,media=disk|cdrom][,index=N]"
	  "[,id=ID][,readonly=on|off][,cache=MODE][,aio=ENGINE][,discard=unmap|ignore]"
	  "[,detect-zeroes=on|off|unmap][,copy-on-read=on|off][,rerror=ACTION][,werror=ACTION]"
	  "[,serial=TEXT]"
	  "[,bps=N][,bps_rd=N][,bps_wr=N][,iops=N][,iops_rd=N][,iops_wr=N][,*_max=N]"
	  "[,*_max_length=SECONDS][,iops_size=BYTES][,group=NAME]"
	  "[,key-secret=ID][,encrypt.key-secret=ID][,...]",
	  "a disk and the device it is in [if=virtio]\n"
	  "media=cdrom is an IDE CD-ROM, or, if its volume is called cidata, a read-only virtio "
	  "disk that every cloud image can read; an explicit if= is obeyed.\n"
	  "cache is writeback, none, writethrough, directsync or unsafe [writeback].\n"
	  "rerror is report, stop or ignore; werror can also be enospc, its default: stop when the "
	  "host's disk is full, report other errors to the guest.\n"
	  "copy-on-read writes what was read from a backing file into the image.\n"
	  "key-secret names the -object secret that opens a LUKS image, encrypt.key-secret the one "
	  "that opens an encrypted qcow2 image.\n"
	  "bps and iops limit bytes and requests a second, of both directions or of reads (_rd) and "
	  "writes (_wr); with _max a burst may be that fast for _max_length seconds [1]. A request "
	  "counts once for each iops_size bytes. Drives of one group share its limits, those given "
	  "last or -object throttle-group's. The long names (throttling.bps-total-max) do as well.",
	  CLI_STORAGE, cli_opt_drive },
	{ "blockdev", "DRIVER,node-name=NAME[,OPTION=VALUE][,...] | JSON",
	  "a node of the block layer, for -device ...,drive=NAME", CLI_STORAGE, cli_opt_blockdev },
	{ "hda", "FILE", "the first disk, as is a FILE without option", CLI_STORAGE, cli_opt_hda },
	{ "hdb", "FILE", "the second disk", CLI_STORAGE, cli_opt_hdb },
	{ "hdc", "FILE", "the third disk", CLI_STORAGE, cli_opt_hdc },
	{ "hdd", "FILE", "the fourth disk", CLI_STORAGE, cli_opt_hdd },
	{ "cdrom", "FILE", "the same as -drive file=FILE,media=cdrom", CLI_STORAGE, cli_opt_cdrom },
	{ "pflash", "FILE", "parallel flash: firmware, then its variables", CLI_STORAGE,
	  cli_opt_pflash },
	{ "snapshot", NULL, "writes go to temporary files and are lost at the end", CLI_STORAGE,
	  cli_opt_snapshot },

	{ "nographic", NULL,
	  "the first serial port and the monitor share this terminal\n"
	  "Ctrl-A x ends, Ctrl-A c switches between the two, Ctrl-A h helps.",
	  CLI_CHARACTER, cli_opt_nographic },
	{ "serial",
	  "stdio | mon:stdio | pty | null | none | file:PATH | unix:PATH[,server=on][,wait=off] | "
	  "tcp:[HOST]:PORT[,server=on][,wait=off] | chardev:ID",
	  "the next of four serial ports; mon: in front shares it with the monitor", CLI_CHARACTER,
	  cli_opt_serial },
	{ "chardev", "BACKEND,id=ID[,mux=on|off][,OPTION=VALUE][,...]",
	  "a character device's outer end, for -serial, -mon, -device; help lists back ends\n"
	  "stdio[,signal=on|off]\n"
	  "null\n"
	  "pty\n"
	  "ringbuf[,size=SIZE]\n"
	  "file,path=PATH[,append=on|off]\n"
	  "socket,path=PATH[,server=on|off][,wait=on|off][,reconnect=SECONDS]\n"
	  "socket,host=HOST,port=PORT[,server=on|off][,wait=on|off][,nodelay=on|off]"
	  "[,reconnect=SECONDS]",
	  CLI_CHARACTER, cli_opt_chardev },
	{ "echr", "NUMBER", "the character that stands for Ctrl-A on shared terminals [1]",
	  CLI_CHARACTER, cli_opt_echr },
	{ "parallel", "none", "there are no parallel ports", CLI_CHARACTER, cli_opt_parallel },
	{ "display", "none", "there is no screen", CLI_CHARACTER, cli_opt_display },
	{ "vga", "none", "there is no display adapter", CLI_CHARACTER, cli_opt_vga },

	{ "nic", "none | [TYPE][,model=DEVICE][,mac=ADDRESS][,id=ID][,OPTION=VALUE][,...]",
	  "a network card and the back end behind it [user, virtio-net-pci]\n"
	  "OPTION is any of -netdev's for that TYPE. help lists types, model=help lists cards.\n"
	  "Without -nic, -netdev, -net and -nodefaults there is one card on a user-mode network.",
	  CLI_NETWORK, cli_opt_nic },
	{ "netdev", "TYPE,id=ID[,OPTION=VALUE][,...] | JSON",
	  "a back end alone, for -device ...,netdev=ID; help lists types, TYPE,help its options",
	  CLI_NETWORK, cli_opt_netdev },
	{ "net",
	  "none | nic[,model=DEVICE][,macaddr=ADDRESS][,netdev=ID][,name=ID][,addr=SLOT.FUNCTION]"
	  "[,vectors=N] | TYPE[,OPTION=VALUE][,...]",
	  "the old way: one card and one back end, which meet; there are no hubs", CLI_NETWORK,
	  cli_opt_net },

	{ "kernel", "FILE", "boots a Linux bzImage, a PVH or a multiboot kernel directly", CLI_BOOT,
	  cli_opt_kernel },
	{ "initrd", "FILE", "its initial RAM disk; multiboot: modules, separated by commas",
	  CLI_BOOT, cli_opt_initrd },
	{ "append", "TEXT", "its command line", CLI_BOOT, cli_opt_append },
	{ "bios", "FILE", "the firmware [SeaBIOS, where the host has it]", CLI_BOOT, cli_opt_bios },
	{ "boot", "[order=LETTERS][,once=LETTERS][,menu=on|off][,strict=on|off][,splash-time=MS]",
	  "what the firmware starts: c disks, d CD-ROMs, n networks\n"
	  "bootindex= of a device says it more exactly.",
	  CLI_BOOT, cli_opt_boot },
	{ "cloud-init", "user-data=FILE[,meta-data=FILE][,network-config=FILE][,ssh-key=FILE]",
	  "makes a NoCloud seed of these files and attaches it as a read-only disk\n"
	  "meta-data: an instance-id that follows the content, and -name as host name.\n"
	  "ssh-key: public keys for the image's default user.",
	  CLI_BOOT, cli_opt_cloud_init },
	{ "smbios", "type=N[,FIELD=VALUE][,...] | file=FILE",
	  "a field of an SMBIOS table, or a whole table", CLI_BOOT, cli_opt_smbios },
	{ "fw_cfg", "[name=]NAME,file=FILE|string=TEXT", "a file for firmware and guest to read",
	  CLI_BOOT, cli_opt_fw_cfg },

	{ "monitor", "stdio | pty | unix:PATH,server=on,wait=off | tcp:... | chardev:ID | none",
	  "a monitor for people", CLI_CONTROL, cli_opt_monitor },
	{ "qmp", "unix:PATH,server=on,wait=off | tcp:... | stdio | chardev:ID",
	  "a monitor for programs (QMP)", CLI_CONTROL, cli_opt_qmp },
	{ "qmp-pretty", "unix:PATH,server=on,wait=off | ...", "QMP in indented lines", CLI_CONTROL,
	  cli_opt_qmp_pretty },
	{ "mon", "[chardev=]ID[,mode=readline|control][,pretty=on|off]",
	  "a monitor, for people or for programs, on a chardev", CLI_CONTROL, cli_opt_mon },
	{ "S", NULL, "waits for cont before the first instruction", CLI_CONTROL, cli_opt_S },
	{ "no-reboot", NULL, "a reset ends the process", CLI_CONTROL, cli_opt_no_reboot },
	{ "no-shutdown", NULL, "a power-off leaves the process, paused", CLI_CONTROL,
	  cli_opt_no_shutdown },
	{ "action",
	  "[reboot=reset|shutdown][,shutdown=poweroff|pause]"
	  "[,panic=shutdown|pause|exit-failure|none]",
	  "what a reset, a power-off, a panic of the guest leads to", CLI_CONTROL, cli_opt_action },

	{ "daemonize", NULL, "goes to the background once the pid file and all sockets are there",
	  CLI_PROCESS, cli_opt_daemonize },
	{ "pidfile", "FILE", "writes the process's number there; locked, removed at the end",
	  CLI_PROCESS, cli_opt_pidfile },
	{ "msg", "timestamp=on|off", "messages begin with the time", CLI_PROCESS, cli_opt_msg },
	{ "d", "ITEM[,...]", "logs more; help lists the items", CLI_PROCESS, cli_opt_d },
	{ "D", "FILE", "where that goes [standard error]", CLI_PROCESS, cli_opt_D },
	{ "sandbox", "off", "no system-call filter", CLI_PROCESS, cli_opt_sandbox },

	{ "h", NULL, "this text", CLI_HOST, cli_opt_help },
	{ "help", NULL, NULL, CLI_HOST, cli_opt_help },
	{ "version", NULL, "the version", CLI_HOST, cli_opt_version },
	{ "check-host", NULL, "what this host has and lacks for guests, and what helps", CLI_HOST,
	  cli_opt_check_host },
	{ "help-manual", NULL, "the options as Markdown", CLI_HOST, cli_opt_manual,
	  .hidden = true },
	{ NULL },
};

/* Options of QEMU that exist there and not here: refused by name rather than as unknown. */
static const char *const absent[] = {
	"acpitable",
	"add-fd",
	"alt-grab",
	"async-teardown",
	"audio",
	"audiodev",
	"chroot",
	"compat",
	"ctrl-grab",
	"debugcon",
	"device-tree",
	"dfilter",
	"dtb",
	"dump-vmstate",
	"fda",
	"fdb",
	"fsdev",
	"full-screen",
	"g",
	"gdb",
	"icount",
	"incoming",
	"iscsi",
	"k",
	"L",
	"loadvm",
	"machine-type",
	"mtdblock",
	"no-acpi",
	"no-fd-bootchk",
	"no-hpet",
	"only-migratable",
	"option-rom",
	"plugin",
	"preconfig",
	"prom-env",
	"readconfig",
	"realtime",
	"rotate",
	"run-with",
	"runas",
	"s",
	"sd",
	"seed",
	"semihosting",
	"set",
	"singlestep",
	"smb",
	"spice",
	"tb-size",
	"tftp",
	"tpmdev",
	"trace",
	"usb",
	"usbdevice",
	"virtfs",
	"virtioserial",
	"vnc",
	"watchdog",
	"watchdog-action",
	"win2k-hack",
	"xen-attach",
	"xen-domid",
};

const struct cli_option *cli_option_find(const char *name, struct error **err)
{
	const char *names[ARRAY_SIZE(cli_options)], *near;
	size_t count = 0;

	for (const struct cli_option *o = cli_options; o->name; o++) {
		if (!strcmp(o->name, name))
			return o;
		if (!o->hidden)
			names[count++] = o->name;
	}
	for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
		if (!strcmp(absent[i], name)) {
			error_set(err, "-%s: not supported by this build", name);
			return NULL;
		}
	}
	near = nearest_name(name, names, count);
	if (near)
		error_set(err, "-%s: unknown option; did you mean '-%s'?", name, near);
	else
		error_set(err, "-%s: unknown option (-h lists them)", name);
	return NULL;
}

#define HELP_INDENT 18
#define HELP_WIDTH  98

/* Text from column on, in lines of HELP_WIDTH, the others indented; breaks at blanks and newlines,
 * and in syntax before '['. Returns the column it ended at. */
static int print_wrapped(FILE *out, const char *text, int column)
{
	while (*text) {
		size_t len = strcspn(text + 1, " [\n") + 1;
		bool newline = text[0] == '\n';

		if (newline || (column + (int)len > HELP_WIDTH && column > HELP_INDENT)) {
			text += *text == ' ' || newline;
			column = fprintf(out, "\n%*s", HELP_INDENT, "") - 1;
			continue;
		}
		fwrite(text, 1, len, out);
		column += len;
		text += len;
	}
	return column;
}

static void print_option(FILE *out, const struct cli_option *o)
{
	int column = fprintf(out, "  -%s%s", o->name, o->arg ? " " : "");

	if (o->arg)
		column = print_wrapped(out, o->arg, column);
	if (column >= HELP_INDENT) {
		fputc('\n', out);
		column = 0;
	}
	fprintf(out, "%*s", HELP_INDENT - column, "");
	if (o->help)
		print_wrapped(out, o->help, HELP_INDENT);
	else
		fprintf(out, "the same as -%s", o[-1].name);
	fputc('\n', out);
}

void cli_print_help(FILE *out)
{
	fputs("Usage: vmm [OPTION]... [DISK]\n"
	      "Runs a virtual machine on KVM. Options are QEMU's, with one dash or two.\n\n"
	      "  vmm -m 4G -smp 4 -drive file=debian.qcow2 -cloud-init user-data=seed.yaml "
	      "-nographic\n",
	      out);
	for (int section = 0; section < CLI_SECTIONS; section++) {
		fprintf(out, "\n%s:\n", section_titles[section]);
		for (const struct cli_option *o = cli_options; o->name; o++)
			if ((int)o->section == section && !o->hidden)
				print_option(out, o);
	}
	fputs("\nA mistake is told in one line on standard error; the exit status is then 1.\n",
	      out);
}

void cli_print_version(FILE *out)
{
	fprintf(out, "vmm %s\n", VMM_VERSION);
}

/* The first line of help is a sentence without capital and full stop. */
static void manual_help(FILE *out, const char *help)
{
	size_t len = strcspn(help, "\n");

	fprintf(out, ": %.*s%s", (int)len, help, help[len] ? ".\n" : "\n");
	while (help[len]) {
		help += len + 1;
		len = strcspn(help, "\n");
		fprintf(out, "  %.*s\n", (int)len, help);
	}
}

void cli_print_manual(FILE *out)
{
	fputs("# vmm's options\n\n"
	      "This page is made from the program's own option table (`make docs`); `vmm -h` "
	      "prints "
	      "the same.\n"
	      "Options have QEMU's names, meanings and defaults and are written with one dash or "
	      "two. Three defaults\n"
	      "differ: a `-drive` without `if=` is virtio, the machine is q35, and a network card "
	      "without `model=` is\n"
	      "virtio-net-pci.\n",
	      out);
	for (int section = 0; section < CLI_SECTIONS; section++) {
		fprintf(out, "\n## %s\n\n", section_titles[section]);
		for (const struct cli_option *o = cli_options; o->name; o++) {
			if ((int)o->section != section || o->hidden)
				continue;
			fprintf(out, "* `-%s%s%s`", o->name, o->arg ? " " : "",
				o->arg ? o->arg : "");
			if (o->help)
				manual_help(out, o->help);
			else
				fprintf(out, ": the same as `-%s`\n", o[-1].name);
		}
		if (section == CLI_NETWORK)
			cli_print_net_manual(out);
	}
}
