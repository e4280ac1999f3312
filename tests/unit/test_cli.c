/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: options into struct vm_config, and every mistake as one line.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/iso.h"
#include "vmm/cli/parse.h"
#include "vmm/core/util.h"

#define MAX_WORDS 32

/* Splits line at blanks and parses it. */
static enum cli_result parse_words(struct vm_config *config, const char *line, struct error **err)
{
	char *copy = xstrdup(line), *save = NULL, *words[MAX_WORDS];
	enum cli_result result;
	int argc = 0;

	for (char *w = strtok_r(copy, " ", &save); w && argc < MAX_WORDS;
	     w = strtok_r(NULL, " ", &save))
		words[argc++] = w;
	config_init(config);
	result = cli_parse(config, argc, words, err);
	free(copy);
	return result;
}

/* Without the card that is there when none is asked for. */
static enum cli_result parse(struct vm_config *config, const char *line, struct error **err)
{
	char *whole = xasprintf("vmm -nic none %s", line);
	enum cli_result result = parse_words(config, whole, err);

	free(whole);
	return result;
}

static void good(struct vm_config *config, const char *line)
{
	struct error *err = NULL;

	if (parse(config, line, &err) == CLI_ERROR)
		fail_msg("'%s': %s", line, error_message(err));
}

static void bad(const char *line, const char *message)
{
	struct vm_config config;
	struct error *err = NULL;

	if (parse(&config, line, &err) != CLI_ERROR)
		fail_msg("'%s' was taken", line);
	if (!strstr(error_message(err), message) || strchr(error_message(err), '\n'))
		fail_msg("'%s': '%s' is not '%s'", line, error_message(err), message);
	error_free(err);
	config_free(&config);
}

static void test_defaults(void **state)
{
	struct vm_config c;

	good(&c, "");
	assert_int_equal(c.memory.size, 128 * MiB);
	assert_int_equal(c.smp.cpus, 1);
	assert_string_equal(c.machine.type, "q35");
	assert_true(c.serials[0].present);
	assert_null(c.serials[0].chardev);
	assert_int_equal(c.monitor_count, 0);
	assert_int_equal(c.devices.count, 0);
	config_free(&c);
}

static void test_memory(void **state)
{
	struct vm_config c;

	good(&c, "-m 4G");
	assert_int_equal(c.memory.size, 4 * GiB);
	assert_string_equal(c.memory.from, "-m 4G");
	config_free(&c);
	good(&c, "--m size=512");
	assert_int_equal(c.memory.size, 512 * MiB);
	config_free(&c);
	bad("-m abc", "-m abc: ");
	bad("-m 1G,slots=2", "-m 1G,slots=2: slots needs maxmem");
	bad("-m 1G,maxmem=512M", "maxmem");
	bad("-m 1G,slots=2,maxmem=1G", "slots");
	good(&c, "-machine q35,memory-backend=ram0 -mem-prealloc");
	assert_string_equal(c.machine.memory_backend, "ram0");
	assert_true(c.memory.prealloc);
	assert_null(c.memory.from);
	config_free(&c);
	good(&c, "-numa node,nodeid=0,memdev=ram0 -mem-path /dev/shm");
	assert_string_equal(c.machine.memory_backend, "ram0");
	assert_string_equal(c.memory.path, "/dev/shm");
	config_free(&c);
	bad("-numa node,memdev=a -numa node,memdev=b", "the machine's memory is 'a' already");
	bad("-numa node,nodeid=1,memdev=a", "not supported");
	bad("-numa node,cpus=0,memdev=a", "not supported");
	bad("-numa dist,src=0,dst=1,val=20", "not supported");
	bad("-m 0", "-m 0: ");
	bad("-m 99999999999999999999G", "-m ");
	bad("-m 1G,size2=3", "size2");
	bad("-m", "-m: an argument is missing");
}

static void test_smp(void **state)
{
	static const struct {
		const char *arg;
		unsigned cpus, maxcpus, sockets, dies, cores, threads;
	} ok[] = {
		{ "4", 4, 4, 1, 1, 4, 1 },
		{ "cpus=2,maxcpus=8", 2, 8, 1, 1, 8, 1 },
		{ "8,sockets=2", 8, 8, 2, 1, 4, 1 },
		{ "8,cores=2", 8, 8, 4, 1, 2, 1 },
		{ "8,sockets=2,cores=2", 8, 8, 2, 1, 2, 2 },
		{ "sockets=2,dies=2,cores=3,threads=2", 24, 24, 2, 2, 3, 2 },
		{ "8,dies=2,threads=2", 8, 8, 1, 2, 2, 2 },
	};
	struct vm_config c;

	for (size_t i = 0; i < ARRAY_SIZE(ok); i++) {
		char *line = xasprintf("-smp %s", ok[i].arg);

		good(&c, line);
		assert_int_equal(c.smp.cpus, ok[i].cpus);
		assert_int_equal(c.smp.maxcpus, ok[i].maxcpus);
		assert_int_equal(c.smp.sockets, ok[i].sockets);
		assert_int_equal(c.smp.dies, ok[i].dies);
		assert_int_equal(c.smp.cores, ok[i].cores);
		assert_int_equal(c.smp.threads, ok[i].threads);
		config_free(&c);
		free(line);
	}
	/* Machines before 6.2 made sockets of what was left. */
	good(&c, "-smp 4 -M pc-q35-6.1");
	assert_int_equal(c.smp.sockets, 4);
	config_free(&c);
	bad("-smp 4,sockets=3", "-smp 4,sockets=3: sockets (3)");
	bad("-smp 0", "greater than zero");
	bad("-smp 2,maxcpus=1", "-smp 2,maxcpus=1: ");
	bad("-smp 300", "at most 255");
	bad("-smp 65535,cores=65535,threads=65535,dies=65535", "is not maxcpus");
	bad("-smp 4,socket=3", "socket");
	bad("-smp 4,clusters=2", "clusters");
}

static void test_machine(void **state)
{
	struct vm_config c;

	good(&c, "-machine pc-q35-7.2,accel=kvm:tcg,kernel_irqchip=split,usb=off,mem-merge=off");
	assert_string_equal(c.machine.type, "q35");
	assert_string_equal(c.machine.version, "7.2");
	assert_int_equal(c.machine.kernel_irqchip, CONFIG_IRQCHIP_SPLIT);
	assert_false(c.machine.mem_merge);
	config_free(&c);
	/* What else is there need not make sense beside a question. */
	good(&c, "-M help -append x");
	assert_true(c.machine_help);
	config_free(&c);
	bad("-M pc", "use q35");
	bad("-M pc-i440fx-7.2", "use q35");
	bad("-M q36", "did you mean 'q35'?");
	bad("-M pc-q35-7.x", "unknown machine");
	bad("-M q35,accel=tcg", "use kvm");
	bad("-accel tcg", "use kvm");
	bad("-M q35,usb=on", "usb=on is not supported");
	bad("-M q35,kernel-irqchip=off", "not supported");
	bad("-M q35,acel=kvm", "acel");
}

static void test_unknown(void **state)
{
	bad("-nografic", "-nografic: unknown option; did you mean '-nographic'?");
	bad("--drives file=x", "did you mean '-drive'?");
	bad("-xyzzy-plugh", "unknown option (-h lists them)");
	bad("-vnc :1", "-vnc: not supported by this build");
	bad("-tpmdev x", "-tpmdev: not supported by this build");
	bad("-sandbox on", "not supported");
}

static const char *device(const struct vm_config *c, size_t i, const char *key)
{
	const char *value = opts_peek(&c->devices.items[i].opts, key);

	return value ? value : "";
}

static void test_drives(void **state)
{
	struct vm_config c;

	good(&c,
	     "-device virtio-rng-pci -drive file=/nonexistent/a,format=raw,cache=none,serial=S1 "
	     "-drive file=b,if=none,id=d1,werror=stop -drive file=/nonexistent/c,media=cdrom "
	     "-drive file=v,if=pflash,readonly=on,unit=0 -cdrom /nonexistent/e");
	assert_int_equal(c.drive_count, 5);
	assert_string_equal(c.drives[0].id, "virtio0");
	assert_string_equal(c.drives[0].serial, "S1");
	assert_string_equal(opts_peek(&c.drives[0].block, "cache"), "none");
	assert_null(opts_peek(&c.drives[0].block, "serial"));
	assert_int_equal(c.drives[0].werror, CONFIG_ON_ERROR_ENOSPC);
	assert_int_equal(c.drives[1].iface, CONFIG_IF_NONE);
	assert_int_equal(c.drives[1].werror, CONFIG_ON_ERROR_STOP);
	assert_string_equal(c.drives[2].id, "ide0-cd0");
	assert_true(c.drives[2].cdrom);
	assert_string_equal(opts_peek(&c.drives[2].block, "read-only"), "on");
	assert_int_equal(c.drives[3].iface, CONFIG_IF_PFLASH);
	assert_string_equal(c.drives[4].id, "ide2-cd0");
	/* IDE first, then what was asked for, then virtio. */
	assert_int_equal(c.devices.count, 4);
	assert_string_equal(device(&c, 0, "driver"), "ide-cd");
	assert_string_equal(device(&c, 0, "bus"), "ide.0");
	assert_string_equal(device(&c, 1, "bus"), "ide.2");
	assert_string_equal(device(&c, 2, "driver"), "virtio-rng-pci");
	assert_string_equal(device(&c, 3, "driver"), "virtio-blk-pci");
	assert_string_equal(device(&c, 3, "drive"), "virtio0");
	config_free(&c);

	good(&c, "disk.img -hdb other.img");
	assert_string_equal(c.drives[1].id, "virtio1");
	config_free(&c);
	good(&c, "-snapshot -drive file=a -drive if=ide,media=cdrom");
	assert_string_equal(opts_peek(&c.drives[0].block, "snapshot"), "on");
	assert_false(c.drives[1].has_medium);
	config_free(&c);

	bad("-drive if=virtio", "-drive if=virtio: file=FILE is missing");
	bad("-drive file=a,if=scsi", "if=scsi is not supported");
	bad("-drive file=a,if=virtoi", "did you mean 'virtio'?");
	bad("-drive file=a,index=0 -drive file=b,index=0", "-drive file=b,index=0: ");
	bad("-drive file=a,if=ide,index=6", "no place 6");
	bad("-drive file=a,id=x -drive file=b,id=x", "already");
	bad("-drive file=a,rerror=enospc", "rerror");
	bad("-drive file=a,werror=maybe", "werror");
	bad("-drive file=a,media=floppy", "media");
	bad("-hda a -hda b", "-hda b: ");
}

static void write_iso(char *path, const char *label)
{
	uint8_t sector[2048] = { 1, 'C', 'D', '0', '0', '1', 1 };
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	memset(sector + 40, ' ', 32);
	memcpy(sector + 40, label, strlen(label));
	assert_int_equal(pwrite(fd, sector, sizeof(sector), ISO_PRIMARY_OFFSET), sizeof(sector));
	close(fd);
}

static void test_seed(void **state)
{
	char seed[] = "/tmp/vmm-test-seed-XXXXXX", other[] = "/tmp/vmm-test-iso-XXXXXX";
	struct vm_config c;
	char *line;

	write_iso(seed, "CIDATA");
	write_iso(other, "Debian 12");
	line = xasprintf("-drive file=%s,media=cdrom -drive file=%s,media=cdrom "
			 "-drive file=%s,media=cdrom,if=ide,index=3",
			 seed, other, seed);
	good(&c, line);
	assert_int_equal(c.drives[0].iface, CONFIG_IF_VIRTIO);
	assert_false(c.drives[0].cdrom);
	assert_true(c.drives[0].readonly);
	assert_int_equal(c.drives[1].iface, CONFIG_IF_IDE);
	assert_int_equal(c.drives[2].iface, CONFIG_IF_IDE);
	config_free(&c);
	free(line);
	unlink(seed);
	unlink(other);
}

static const char *chardev(const struct vm_config *c, size_t i, const char *key)
{
	const char *value = opts_peek(&c->chardevs.items[i].opts, key);

	return value ? value : "";
}

static void test_terminals(void **state)
{
	struct vm_config c;

	good(&c, "-nographic");
	assert_int_equal(c.chardevs.count, 1);
	assert_string_equal(chardev(&c, 0, "id"), "serial0");
	assert_string_equal(chardev(&c, 0, "backend"), "stdio");
	assert_string_equal(chardev(&c, 0, "mux"), "on");
	assert_string_equal(chardev(&c, 0, "signal"), "off");
	assert_string_equal(c.serials[0].chardev, "serial0");
	assert_int_equal(c.monitor_count, 1);
	assert_string_equal(c.monitors[0].chardev, "serial0");
	config_free(&c);

	good(&c, "-nographic -qmp unix:/tmp/q,server,nowait");
	assert_int_equal(c.chardevs.count, 2);
	assert_string_equal(chardev(&c, 0, "path"), "/tmp/q");
	assert_string_equal(chardev(&c, 1, "backend"), "stdio");
	assert_string_equal(chardev(&c, 1, "mux"), "");
	assert_int_equal(c.monitor_count, 1);
	assert_true(c.monitors[0].qmp);
	config_free(&c);

	good(&c, "-nographic -serial none");
	assert_false(c.serials[0].present);
	assert_string_equal(c.monitors[0].chardev, "compat_monitor0");
	config_free(&c);

	good(&c, "-nographic -nodefaults");
	assert_int_equal(c.chardevs.count, 0);
	config_free(&c);

	good(&c, "-chardev socket,id=x,host=::1,port=4,server=on,wait=off -serial chardev:x "
		 "-serial tcp:[::1]:77,server=on -serial tcp::78,nodelay -serial file:/a,b "
		 "-mon x,mode=control");
	assert_string_equal(c.serials[0].chardev, "x");
	assert_string_equal(chardev(&c, 1, "host"), "::1");
	assert_string_equal(chardev(&c, 1, "port"), "77");
	assert_string_equal(chardev(&c, 2, "host"), "");
	assert_string_equal(chardev(&c, 3, "path"), "/a,b");
	assert_true(c.monitors[0].qmp);
	config_free(&c);

	bad("-serial bogus", "-serial bogus: unknown back end 'bogus'");
	bad("-serial vc", "not supported");
	bad("-serial tcp:nowhere", "HOST:PORT");
	bad("-serial chardev:x", "no chardev 'x'");
	bad("-mon x", "-mon x: there is no chardev 'x'");
	bad("-serial stdio -monitor stdio", "-monitor stdio: stdio is used");
	bad("-daemonize -nographic", "-nographic: ");
	bad("-daemonize -serial stdio", "-daemonize");
	bad("-chardev null", "id is missing");
	bad("-chardev null,id=a -chardev null,id=a", "already");
	bad("-serial null -serial null -serial null -serial null -serial null", "at most 4");
	bad("-parallel pty", "not supported");
}

static void test_boot(void **state)
{
	struct vm_config c;
	char *argv[] = { "vmm",
			 "-kernel",
			 "k",
			 "-append",
			 "a b",
			 "-boot",
			 "once=d,order=cn,menu=on",
			 "-cloud-init",
			 "user-data=u,ssh-key=k" };
	struct error *err = NULL;
	int fd;

	config_init(&c);
	assert_int_equal(cli_parse(&c, ARRAY_SIZE(argv), argv, &err), CLI_RUN);
	assert_string_equal(c.append, "a b");
	assert_string_equal(c.boot.once, "d");
	assert_true(c.boot.menu);
	assert_string_equal(c.cloud_init.ssh_key, "k");
	config_free(&c);

	good(&c, "-cloud-init user-data=/dev/null");
	if (cli_make_seed(&c, &fd, &err)) { /* built with libisofs */
		assert_string_equal(c.drives[0].id, "cloud-init");
		assert_string_equal(device(&c, 0, "drive"), "cloud-init");
		assert_true(iso_is_cidata(opts_peek(&c.drives[0].block, "file")));
		close(fd);
	} else {
		assert_non_null(strstr(error_message(err), "libisofs"));
		error_free(err);
	}
	config_free(&c);

	bad("-append x", "-append x: ");
	bad("-initrd x", "-initrd x: ");
	bad("-boot z", "-boot z: 'z' is not a boot device");
	bad("-boot cc", "twice");
	bad("-boot c,ordre=c", "ordre");
	bad("-cloud-init meta-data=x", "user-data=FILE is missing");
	bad("-cloud-init user-dat=x", "user-data");
	bad("-fw_cfg opt/x", "either file or string");
	bad("-smbios uuid=x", "either type");
}

static void test_names(void **state)
{
	static const uint8_t uuid[16] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
					  0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
	struct vm_config c;

	good(&c, "-name web,process=vm1,debug-threads=on "
		 "-uuid 00112233-4455-6677-8899-AABBccddeeff -rtc base=1970-01-02,clock=vm "
		 "-global virtio-blk-pci.num-queues=2 -action reboot=shutdown,panic=pause -S");
	assert_string_equal(c.name, "web");
	assert_string_equal(c.process_name, "vm1");
	assert_true(c.debug_threads);
	assert_memory_equal(c.uuid, uuid, sizeof(uuid));
	assert_int_equal(c.rtc.date, 86400);
	assert_int_equal(c.rtc.clock, CONFIG_RTC_CLOCK_VM);
	assert_string_equal(opts_peek(&c.globals, "virtio-blk-pci.num-queues"), "2");
	assert_true(c.no_reboot);
	assert_int_equal(c.panic_action, CONFIG_PANIC_PAUSE);
	assert_true(c.start_paused);
	config_free(&c);

	bad("-name a,bar=1", "-name a,bar=1: ");
	bad("-uuid 00112233", "not a UUID");
	bad("-uuid 00112233-4455-6677-8899-AABBccddeeff0", "not a UUID");
	bad("-rtc base=foo", "base is");
	bad("-rtc clock=moon", "clock");
	bad("-action reboot=foo", "reboot");
	bad("-global foo", "driver.property=value");
	bad("-echr 300", "-echr 300: ");
	bad("-d foo", "no log item 'foo'");
	bad("-overcommit cpu-pm=on", "not supported");
}

static void test_objects(void **state)
{
	struct vm_config c;

	good(&c, "-object iothread,id=io0 -object {\"qom-type\":\"rng-random\",\"id\":\"r\"}");
	assert_string_equal(opts_peek(&c.objects.items[1].opts, "id"), "r");
	config_free(&c);
	bad("-object iothread", "id is missing");
	bad("-object iothred,id=a", "did you mean 'iothread'?");
	bad("-object memory-backend-rma,id=m,size=1G", "did you mean 'memory-backend-ram'?");
	bad("-object iothread,id=a -object iothread,id=a", "already");
	bad("-blockdev file,filename=x", "node-name is missing");
	bad("-device id=x", "name is missing");
	good(&c, "-device virtio-blk-pci,help");
	assert_string_equal(c.device_help_of, "virtio-blk-pci");
	config_free(&c);
}

static void test_help(void **state)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	cli_print_help(out);
	fflush(out);
	for (const struct cli_option *o = cli_options; o->name; o++) {
		char *name = xasprintf("\n  -%s", o->name);

		if (!o->hidden && !strstr(text, name))
			fail_msg("-%s is not in the help", o->name);
		free(name);
	}
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (strlen(line) > 112)
			fail_msg("too long: %s", line);
	fclose(out);
	free(text);
}

static const char *backend(const struct vm_config *c, size_t i, const char *key)
{
	assert_true(i < c->netdevs.count);
	return opts_peek(&c->netdevs.items[i].opts, key);
}

static const char *card(const struct vm_config *c, size_t i, const char *key)
{
	assert_true(i < c->devices.count);
	return opts_peek(&c->devices.items[i].opts, key);
}

static void test_netdev(void **state)
{
	struct vm_config c;
	size_t pos = 0;

	good(&c, "-netdev user,id=n0,hostfwd=tcp::2222-:22,hostfwd=::80-:80,net=10.1.0.0/16");
	assert_int_equal(c.netdevs.count, 1);
	assert_string_equal(backend(&c, 0, "type"), "user");
	assert_string_equal(backend(&c, 0, "id"), "n0");
	assert_string_equal(c.netdevs.items[0].from,
			    "-netdev user,id=n0,hostfwd=tcp::2222-:22,hostfwd=::80-:80,net=10.1.0.0/16");
	assert_int_equal(c.devices.count, 0);
	config_free(&c);
	/* JSON's lists */
	good(&c, "-netdev {\"type\":\"user\",\"id\":\"n1\",\"restrict\":true,"
		 "\"hostfwd\":[{\"str\":\"tcp::1-:2\"},{\"str\":\"udp::3-:4\"}]}");
	assert_string_equal(backend(&c, 0, "restrict"), "on");
	assert_string_equal(opts_next_all(&c.netdevs.items[0].opts, "hostfwd", &pos), "tcp::1-:2");
	assert_string_equal(opts_next_all(&c.netdevs.items[0].opts, "hostfwd", &pos), "udp::3-:4");
	config_free(&c);
	/* A guestfwd's end may be what -serial takes. */
	good(&c, "-netdev user,id=n0,guestfwd=tcp:10.0.2.100:80-tcp:127.0.0.1:81,"
		 "guestfwd=tcp:10.0.2.100:7-cmd:cat");
	assert_int_equal(c.chardevs.count, 1);
	assert_string_equal(opts_peek(&c.chardevs.items[0].opts, "id"), "guestfwd.tcp.80");
	assert_string_equal(opts_peek(&c.chardevs.items[0].opts, "port"), "81");
	pos = 0;
	assert_string_equal(opts_next_all(&c.netdevs.items[0].opts, "guestfwd", &pos),
			    "tcp:10.0.2.100:80-chardev:guestfwd.tcp.80");
	config_free(&c);
	bad("-netdev user", "-netdev user: Parameter 'id' is missing");
	bad("-netdev usr,id=a", "did you mean 'user'?");
	bad("-netdev hubport,id=a,hubid=1", "'hubport' is not supported");
	bad("-netdev user,id=a,guestfdw=x", "did you mean 'guestfwd'?");
	bad("-netdev user,id=a -netdev user,id=a", "Duplicate ID 'a' for netdev");
	bad("-netdev id=a", "Parameter 'type' is missing");
	bad("-netdev user,id=a,guestfwd=tcp:10.0.2.100:80-vc", "guestfwd=tcp:10.0.2.100:80: 'vc'");
}

static void test_nic(void **state)
{
	struct vm_config c;

	good(&c, "-device virtio-rng-pci -nic user,mac=52:54:00:00:00:01,hostfwd=::1-:2 "
		 "-nic user,id=n1,model=e1000e -drive file=x");
	assert_int_equal(c.netdevs.count, 2);
	assert_string_equal(backend(&c, 0, "hostfwd"), "::1-:2");
	assert_null(backend(&c, 0, "mac"));
	assert_string_equal(backend(&c, 0, "id"), "#net000");
	assert_string_equal(backend(&c, 1, "id"), "n1");
	assert_null(backend(&c, 1, "model"));
	/* Cards come before other devices. */
	assert_int_equal(c.devices.count, 4);
	assert_string_equal(card(&c, 0, "driver"), "virtio-net-pci");
	assert_string_equal(card(&c, 0, "netdev"), "#net000");
	assert_string_equal(card(&c, 0, "mac"), "52:54:00:00:00:01");
	assert_string_equal(card(&c, 1, "driver"), "e1000e");
	assert_string_equal(card(&c, 1, "netdev"), "n1");
	assert_null(card(&c, 1, "mac"));
	assert_string_equal(c.devices.items[1].from, "-nic user,id=n1,model=e1000e");
	assert_string_equal(card(&c, 2, "driver"), "virtio-rng-pci");
	assert_string_equal(card(&c, 3, "driver"), "virtio-blk-pci");
	config_free(&c);
	good(&c, "-nic model=virtio");
	assert_string_equal(backend(&c, 0, "type"), "user");
	assert_string_equal(card(&c, 0, "driver"), "virtio-net-pci");
	config_free(&c);
	good(&c, "-nic none -net none -netdev user,id=a");
	assert_int_equal(c.devices.count, 0);
	config_free(&c);
	good(&c, "-nic model=help");
	assert_true(c.nic_help);
	config_free(&c);
	bad("-nic user,mac=01:00:5e:00:00:01", "multicast");
	bad("-nic user,mac=52:54:00", "no Ethernet address");
	bad("-nic user,modell=x", "modell");
	bad("-nic usr", "-nic usr: ");
}

static void test_default_card(void **state)
{
#ifdef CONFIG_SLIRP
	static const char *const without[] = {"vmm -nodefaults", "vmm -netdev user,id=a",
					      "vmm -net none", "vmm -nic none"};
	struct vm_config c;

	assert_int_equal(parse_words(&c, "vmm -device virtio-rng-pci", NULL), CLI_RUN);
	assert_int_equal(c.devices.count, 2);
	assert_string_equal(card(&c, 0, "driver"), "virtio-net-pci");
	assert_string_equal(card(&c, 0, "netdev"), backend(&c, 0, "id"));
	assert_string_equal(backend(&c, 0, "type"), "user");
	config_free(&c);
	for (size_t i = 0; i < ARRAY_SIZE(without); i++) {
		assert_int_equal(parse_words(&c, without[i], NULL), CLI_RUN);
		assert_int_equal(c.devices.count, 0);
		config_free(&c);
	}
#endif
}

static void test_net(void **state)
{
	struct vm_config c;

	good(&c, "-net user,hostfwd=::1-:2 -net nic,model=virtio-net-pci,macaddr=52:54:00:00:00:07");
	assert_string_equal(card(&c, 0, "netdev"), backend(&c, 0, "id"));
	assert_string_equal(card(&c, 0, "mac"), "52:54:00:00:00:07");
	config_free(&c);
	good(&c, "-netdev user,id=a -net nic,netdev=a,name=card,addr=5 -net nic -net user");
	assert_int_equal(c.devices.count, 2);
	assert_string_equal(card(&c, 0, "netdev"), "a");
	assert_string_equal(card(&c, 0, "id"), "card");
	assert_string_equal(card(&c, 0, "addr"), "5");
	assert_string_equal(card(&c, 1, "netdev"), backend(&c, 1, "id"));
	config_free(&c);
	good(&c, "-net nic");
	assert_null(card(&c, 0, "netdev"));
	config_free(&c);
	bad("-net nic -net nic -net user", "-net nic: hubs are not supported");
	bad("-net user -net user", "-net user: hubs are not supported");
	bad("-net nic,mac=x", "did you mean 'macaddr'?");
	bad("-net socket7", "socket7");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_netdev),
		cmocka_unit_test(test_nic), cmocka_unit_test(test_default_card),
		cmocka_unit_test(test_net),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_smp),	 cmocka_unit_test(test_machine),
		cmocka_unit_test(test_unknown),	 cmocka_unit_test(test_drives),
		cmocka_unit_test(test_seed),	 cmocka_unit_test(test_terminals),
		cmocka_unit_test(test_boot),	 cmocka_unit_test(test_names),
		cmocka_unit_test(test_objects),	 cmocka_unit_test(test_help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
