/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options that say what the machine is: -machine, -accel, -cpu, -smp, -m, -name, -uuid, -rtc,
 * -overcommit, -device, -global, -object. Main thread.
 */
#include "vmm/cli/parse.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmm/core/util.h"

#define MAX_CPUS 255 /* APIC IDs are 8 bits wide */

CLI_HANDLER(cli_opt_nothing)
{
	return true;
}

CLI_HANDLER(cli_opt_nodefaults)
{
	cli->config->nodefaults = true;
	cli->default_serial = cli->default_monitor = false;
	return true;
}

/* "7.2" of "pc-q35-7.2". */
static bool is_version(const char *s)
{
	int major, minor, len = 0;

	return sscanf(s, "%2d.%2d%n", &major, &minor, &len) == 2 && !s[len] && isdigit(s[0]) &&
	       major >= 2;
}

static bool set_machine_type(struct cli *cli, const char *type, struct error **err)
{
	static const char *const names[] = { "q35" };
	struct config_machine *machine = &cli->config->machine;
	const char *near;

	if (!strcmp(type, "q35"))
		return true;
	if (!strncmp(type, "pc-q35-", 7) && is_version(type + 7)) {
		cli_set_string(&machine->version, type + 7);
		return true;
	}
	if (!strcmp(type, "pc") || !strncmp(type, "pc-i440fx-", 10))
		error_set(err, "machine '%s' is not supported; use q35", type);
	else if (!strcmp(type, "microvm") || !strcmp(type, "isapc") || !strcmp(type, "none"))
		error_set(err, "machine '%s' is not supported by this build; use q35", type);
	else if ((near = nearest_name(type, names, ARRAY_SIZE(names))))
		error_set(err, "unknown machine '%s'; did you mean '%s'?", type, near);
	else
		error_set(err, "unknown machine '%s' (-machine help lists them)", type);
	return false;
}

/* "kvm", or QEMU's list of what to try: "kvm:tcg". */
static bool set_accel(struct cli *cli, const char *list, struct error **err)
{
	const char *p = list;

	while (*p) {
		size_t len = strcspn(p, ":");

		if (len == 3 && !strncmp(p, "kvm", 3))
			return true;
		p += len;
		p += *p == ':';
	}
	error_set(err, "accelerator '%s' is not supported; use kvm", list);
	return false;
}

static bool set_irqchip(struct cli *cli, const char *value, struct error **err)
{
	enum config_irqchip *chip = &cli->config->machine.kernel_irqchip;
	bool on;

	if (!strcmp(value, "split")) {
		*chip = CONFIG_IRQCHIP_SPLIT;
		return true;
	}
	if (!parse_bool(value, &on)) {
		error_set(err, "kernel-irqchip is 'on' or 'split', not '%s'", value);
		return false;
	}
	if (!on) {
		error_set(err, "kernel-irqchip=off is not supported by this build; use split");
		return false;
	}
	*chip = CONFIG_IRQCHIP_ON;
	return true;
}

/* Machine options for hardware that is never there (or always is): only one value is true. */
static bool check_fixed_options(struct opts *opts, struct error **err)
{
	static const struct {
		const char *key;
		bool value;
	} fixed[] = { { "usb", false }, { "hpet", false }, { "vmport", false }, { "nvdimm", false },
		      { "smm", false }, { "acpi", true },  { "pit", true },	{ "pic", true },
		      { "sata", true }, { "i8042", true } };

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		const char *text = opts_get(opts, fixed[i].key);
		bool value = fixed[i].value;

		if (!text || !strcmp(text, "auto"))
			continue;
		if (!parse_bool(text, &value)) {
			error_set(err, "%s is 'on' or 'off', not '%s'", fixed[i].key, text);
			return false;
		}
		if (value != fixed[i].value) {
			error_set(err, "%s=%s is not supported by this build", fixed[i].key, text);
			return false;
		}
	}
	return true;
}

static bool machine_options(struct cli *cli, struct opts *opts, struct error **err)
{
	static const char *const known[] = { "type",
					     "accel",
					     "kernel_irqchip",
					     "kernel-irqchip",
					     "dump-guest-core",
					     "mem-merge",
					     "memory-backend",
					     "usb",
					     "hpet",
					     "vmport",
					     "nvdimm",
					     "smm",
					     "acpi",
					     "pit",
					     "pic",
					     "sata",
					     "i8042",
					     NULL };
	struct config_machine *machine = &cli->config->machine;
	const char *value;

	if ((value = opts_get(opts, "type")) && !set_machine_type(cli, value, err))
		return false;
	if ((value = opts_get(opts, "memory-backend")))
		cli_set_string(&machine->memory_backend, value);
	if ((value = opts_get(opts, "accel")) && !set_accel(cli, value, err))
		return false;
	if ((value = opts_get(opts, "kernel_irqchip")) && !set_irqchip(cli, value, err))
		return false;
	if ((value = opts_get(opts, "kernel-irqchip")) && !set_irqchip(cli, value, err))
		return false;
	return opts_get_bool(opts, "dump-guest-core", &machine->dump_guest_core, err) &&
	       opts_get_bool(opts, "mem-merge", &machine->mem_merge, err) &&
	       check_fixed_options(opts, err) && cli_check_used(opts, known, err);
}

static bool is_help(const char *arg)
{
	return !strcmp(arg, "help") || !strcmp(arg, "?");
}

CLI_HANDLER(cli_opt_machine)
{
	struct opts opts = { 0 };
	bool ok;

	if (is_help(arg)) {
		cli->config->machine_help = true;
		return true;
	}
	cli_set_string(&cli->config->machine.from, cli->from);
	ok = opts_parse(&opts, arg, "type", err) && machine_options(cli, &opts, err);
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_accel)
{
	static const char *const known[] = { "accel", "kernel-irqchip", NULL };
	struct opts opts = { 0 };
	const char *value;
	bool ok;

	if (is_help(arg)) {
		cli->config->accel_help = true;
		return true;
	}
	ok = opts_parse(&opts, arg, "accel", err);
	if (ok && (value = opts_get(&opts, "accel")))
		ok = set_accel(cli, value, err);
	if (ok && (value = opts_get(&opts, "kernel-irqchip")))
		ok = set_irqchip(cli, value, err);
	ok = ok && cli_check_used(&opts, known, err);
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_enable_kvm)
{
	return true; /* it is the only one */
}

CLI_HANDLER(cli_opt_cpu)
{
	if (is_help(arg))
		cli->config->cpu_help = true;
	else
		cli_set_string(&cli->config->cpu, arg);
	return true;
}

static bool smp_number(struct opts *opts, const char *key, uint64_t *out, struct error **err)
{
	bool given = opts_has(opts, key);

	if (!opts_get_u64(opts, key, out, err))
		return false;
	if (given && *out == 0) {
		error_set(err, "%s must be greater than zero", key);
		return false;
	}
	if (*out > UINT16_MAX) {
		error_set(err, "%s=%" PRIu64 " is too many", key, *out);
		return false;
	}
	return true;
}

CLI_HANDLER(cli_opt_smp)
{
	static const char *const known[] = { "cpus",	 "maxcpus", "sockets", "dies",
					     "clusters", "cores",   "threads", NULL };
	struct opts opts = { 0 };
	struct cli_smp *smp = &cli->smp;
	uint64_t clusters = 1;
	bool ok;

	cli_set_string(&cli->config->smp.from, cli->from);
	*smp = (struct cli_smp){ 0 };
	ok = opts_parse(&opts, arg, "cpus", err) && smp_number(&opts, "cpus", &smp->cpus, err) &&
	     smp_number(&opts, "maxcpus", &smp->maxcpus, err) &&
	     smp_number(&opts, "sockets", &smp->sockets, err) &&
	     smp_number(&opts, "dies", &smp->dies, err) &&
	     smp_number(&opts, "clusters", &clusters, err) &&
	     smp_number(&opts, "cores", &smp->cores, err) &&
	     smp_number(&opts, "threads", &smp->threads, err) && cli_check_used(&opts, known, err);
	opts_free(&opts);
	if (ok && clusters != 1) {
		error_set(err, "this machine has no clusters of cores");
		ok = false;
	}
	return ok;
}

bool cli_resolve_smp(const struct cli_smp *given, bool prefer_sockets, struct config_smp *smp,
		     struct error **err)
{
	uint64_t cpus = given->cpus, maxcpus = given->maxcpus;
	uint64_t sockets = given->sockets, dies = given->dies ? given->dies : 1;
	uint64_t cores = given->cores, threads = given->threads, product;

	if (!cpus && !maxcpus) {
		sockets = sockets ? sockets : 1;
		cores = cores ? cores : 1;
		threads = threads ? threads : 1;
	} else {
		maxcpus = maxcpus ? maxcpus : cpus;
		if (prefer_sockets && !sockets) {
			cores = cores ? cores : 1;
			threads = threads ? threads : 1;
			sockets = maxcpus / (dies * cores * threads);
		} else if (!cores) {
			sockets = sockets ? sockets : 1;
			threads = threads ? threads : 1;
			cores = maxcpus / (sockets * dies * threads);
		} else if (!sockets) {
			threads = threads ? threads : 1;
			sockets = maxcpus / (dies * cores * threads);
		}
		if (!threads)
			threads = maxcpus / (sockets * dies * cores);
	}
	/* Each is below 2^16, so that the product fits. */
	product = sockets * dies * cores * threads;
	maxcpus = maxcpus ? maxcpus : product;
	cpus = cpus ? cpus : maxcpus;

	if (product != maxcpus) {
		error_set(err,
			  "sockets (%" PRIu64 ") * dies (%" PRIu64 ") * cores (%" PRIu64
			  ") * threads (%" PRIu64 ") is not maxcpus (%" PRIu64 ")",
			  sockets, dies, cores, threads, maxcpus);
		return false;
	}
	if (cpus > maxcpus) {
		error_set(err, "cpus (%" PRIu64 ") is more than maxcpus (%" PRIu64 ")", cpus,
			  maxcpus);
		return false;
	}
	if (maxcpus > MAX_CPUS) {
		error_set(err, "%" PRIu64 " CPUs: machine 'q35' has at most %d", maxcpus, MAX_CPUS);
		return false;
	}
	smp->cpus = cpus;
	smp->maxcpus = maxcpus;
	smp->sockets = sockets;
	smp->dies = dies;
	smp->cores = cores;
	smp->threads = threads;
	return true;
}

static bool memory_options(struct config_memory *m, struct opts *opts, struct error **err)
{
	static const char *const known[] = { "size", "slots", "maxmem", NULL };
	uint64_t size = m->size, maxmem = 0, slots = 0;

	if (!opts_get_size(opts, "size", MiB, &size, err) ||
	    !opts_get_size(opts, "maxmem", 1, &maxmem, err) ||
	    !opts_get_u64(opts, "slots", &slots, err))
		return false;
	if (!cli_check_used(opts, known, err))
		return false;
	if (size == 0) {
		error_set(err, "a guest without memory cannot run");
		return false;
	}
	if (size > 64 * TiB) {
		error_set(err, "the guest can have at most 64 TiB");
		return false;
	}
	size = ALIGN_UP(size, 8 * KiB);
	if (opts_has(opts, "slots") && !opts_has(opts, "maxmem")) {
		error_set(err, "slots needs maxmem");
		return false;
	}
	if (opts_has(opts, "maxmem") && maxmem < size) {
		error_set(err, "maxmem is less than the memory at start");
		return false;
	}
	if (slots && maxmem == size) {
		error_set(err, "memory slots need a maxmem above the memory at start");
		return false;
	}
	if (maxmem > size) {
		error_set(err, "memory hotplug (maxmem above size) is not supported by this build");
		return false;
	}
	m->size = m->maxmem = size;
	m->slots = slots;
	return true;
}

CLI_HANDLER(cli_opt_m)
{
	struct opts opts = { 0 };
	bool ok;

	cli_set_string(&cli->config->memory.from, cli->from);
	ok = opts_parse(&opts, arg, "size", err) &&
	     memory_options(&cli->config->memory, &opts, err);
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_mem_path)
{
	cli_set_string(&cli->config->memory.path, arg);
	return true;
}

CLI_HANDLER(cli_opt_mem_prealloc)
{
	cli->config->memory.prealloc = true;
	return true;
}

/* One node, with all of the machine in it: what names its memory. */
CLI_HANDLER(cli_opt_numa)
{
	static const char *const known[] = { "type", "nodeid", "memdev", NULL };
	char **backend = &cli->config->machine.memory_backend;
	struct opts opts = { 0 };
	const char *type, *memdev;
	uint64_t nodeid = 0;
	bool ok = false;

	if (!opts_parse(&opts, arg, "type", err))
		return false;
	type = opts_get(&opts, "type");
	memdev = opts_get(&opts, "memdev");
	if (!opts_get_u64(&opts, "nodeid", &nodeid, err))
		goto out;
	if (!type || strcmp(type, "node") || nodeid || !memdev || opts_has(&opts, "cpus")) {
		error_set(err, "more than 'node,memdev=ID', one node with all of the machine in it, "
			       "is not supported by this build");
		goto out;
	}
	if (*backend) {
		error_set(err, "the machine's memory is '%s' already", *backend);
		goto out;
	}
	ok = cli_check_used(&opts, known, err);
	if (ok)
		cli_set_string(backend, memdev);
out:
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_name)
{
	static const char *const known[] = { "guest", "process", "debug-threads", NULL };
	struct vm_config *config = cli->config;
	struct opts opts = { 0 };
	const char *value;
	bool ok;

	ok = opts_parse(&opts, arg, "guest", err);
	if (ok && (value = opts_get(&opts, "guest")))
		cli_set_string(&config->name, value);
	if (ok && (value = opts_get(&opts, "process")))
		cli_set_string(&config->process_name, value);
	ok = ok && opts_get_bool(&opts, "debug-threads", &config->debug_threads, err) &&
	     cli_check_used(&opts, known, err);
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_uuid)
{
	size_t digits = 0;

	for (size_t i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		unsigned char c = arg[i];

		if (dash ? c != '-' : !isxdigit(c))
			goto bad; /* the end of the string, too */
		if (!dash) {
			unsigned v = isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;
			uint8_t *byte = &cli->config->uuid[digits++ / 2];

			*byte = *byte << 4 | v;
		}
	}
	if (arg[36])
		goto bad;
	cli->config->uuid_set = true;
	return true;
bad:
	error_set(err, "not a UUID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)");
	return false;
}

static bool rtc_base(struct config_rtc *rtc, const char *base, struct error **err)
{
	struct tm tm = { 0 };
	const char *end;

	if (!strcmp(base, "utc")) {
		rtc->base = CONFIG_RTC_UTC;
		return true;
	}
	if (!strcmp(base, "localtime")) {
		rtc->base = CONFIG_RTC_LOCALTIME;
		return true;
	}
	end = strptime(base, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!end || *end) {
		tm = (struct tm){ 0 };
		end = strptime(base, "%Y-%m-%d", &tm);
	}
	if (!end || *end) {
		error_set(err, "base is utc, localtime, 2026-01-31 or 2026-01-31T16:01:21");
		return false;
	}
	rtc->base = CONFIG_RTC_DATE;
	rtc->date = timegm(&tm);
	return true;
}

CLI_HANDLER(cli_opt_rtc)
{
	static const char *const known[] = { "base", "clock", "driftfix", NULL };
	static const char *const clocks[] = { "host", "rt", "vm", NULL };
	static const char *const fixes[] = { "none", "slew", NULL };
	struct config_rtc *rtc = &cli->config->rtc;
	struct opts opts = { 0 };
	int clock = rtc->clock, fix = rtc->driftfix_slew;
	const char *base;
	bool ok;

	ok = opts_parse(&opts, arg, NULL, err);
	if (ok && (base = opts_get(&opts, "base")))
		ok = rtc_base(rtc, base, err);
	ok = ok && opts_get_enum(&opts, "clock", clocks, &clock, err) &&
	     opts_get_enum(&opts, "driftfix", fixes, &fix, err) &&
	     cli_check_used(&opts, known, err);
	rtc->clock = clock;
	rtc->driftfix_slew = fix;
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_overcommit)
{
	static const char *const known[] = { "mem-lock", "cpu-pm", NULL };
	struct opts opts = { 0 };
	bool cpu_pm = false, ok;

	ok = opts_parse(&opts, arg, NULL, err) &&
	     opts_get_bool(&opts, "mem-lock", &cli->config->mem_lock, err) &&
	     opts_get_bool(&opts, "cpu-pm", &cpu_pm, err) && cli_check_used(&opts, known, err);
	if (ok && cpu_pm) {
		error_set(err, "cpu-pm=on is not supported by this build");
		ok = false;
	}
	opts_free(&opts);
	return ok;
}

CLI_HANDLER(cli_opt_device)
{
	struct config_item *item;
	const char *driver;

	if (is_help(arg)) {
		cli->config->device_help = true;
		return true;
	}
	item = config_list_add(&cli->config->devices, cli->from);
	if (!opts_parse(&item->opts, arg, "driver", err))
		return false;
	driver = opts_peek(&item->opts, "driver");
	if (!driver || !*driver) {
		error_set(err, "the device's name is missing");
		return false;
	}
	for (size_t i = 0; i < item->opts.count; i++)
		if (item->opts.items[i].bare && is_help(item->opts.items[i].key))
			cli_set_string(&cli->config->device_help_of, driver);
	if (!strcmp(driver, "isa-serial"))
		cli->default_serial = false;
	return true;
}

/* "driver.property=value", or driver=, property=, value=. */
CLI_HANDLER(cli_opt_global)
{
	const char *dot = strchr(arg, '.'), *equals = strchr(arg, '=');
	struct opts opts = { 0 };
	const char *driver, *property, *value;
	char *key = NULL;
	bool ok = false;

	if (dot && equals && dot < equals && dot > arg && equals > dot + 1) {
		key = xstrndup(arg, equals - arg);
		opts_add(&cli->config->globals, key, equals + 1);
		ok = true;
	} else if (opts_parse(&opts, arg, NULL, err)) {
		driver = opts_get(&opts, "driver");
		property = opts_get(&opts, "property");
		value = opts_get(&opts, "value");
		ok = driver && property && value;
		if (ok) {
			key = xasprintf("%s.%s", driver, property);
			opts_add(&cli->config->globals, key, value);
		} else {
			error_set(err, "it is driver.property=value");
		}
	}
	free(key);
	opts_free(&opts);
	return ok;
}

static const char *const object_types[] = {
	"iothread",
	"rng-random",
	"rng-builtin",
	"memory-backend-ram",
	"memory-backend-file",
	"memory-backend-memfd",
	"throttle-group",
	"secret",
	"tls-creds-x509",
	"tls-creds-psk",
	"filter-dump",
};

static bool check_object_type(const char *type, struct error **err)
{
	const char *near;

	for (size_t i = 0; i < ARRAY_SIZE(object_types); i++)
		if (!strcmp(type, object_types[i]))
			return true;
	near = nearest_name(type, object_types, ARRAY_SIZE(object_types));
	if (near)
		error_set(err, "unknown object type '%s'; did you mean '%s'?", type, near);
	else
		error_set(err, "unknown object type '%s' (-object help lists them)", type);
	return false;
}

CLI_HANDLER(cli_opt_object)
{
	struct vm_config *config = cli->config;
	struct config_item *item;
	const char *type, *id;

	if (is_help(arg)) {
		for (size_t i = 0; i < ARRAY_SIZE(object_types); i++)
			printf("%s\n", object_types[i]);
		cli->answered = true;
		return true;
	}
	item = config_list_add(&config->objects, cli->from);
	if (!opts_parse(&item->opts, arg, "qom-type", err))
		return false;
	type = opts_peek(&item->opts, "qom-type");
	id = opts_peek(&item->opts, "id");
	if (!type || !*type) {
		error_set(err, "the object's type is missing");
		return false;
	}
	if (!check_object_type(type, err))
		return false;
	if (!id || !*id) {
		error_set(err, "id is missing");
		return false;
	}
	for (size_t i = 0; i + 1 < config->objects.count; i++) {
		const char *other = opts_peek(&config->objects.items[i].opts, "id");

		if (other && !strcmp(other, id)) {
			error_set(err, "there is an object '%s' already", id);
			return false;
		}
	}
	return true;
}

bool cli_finish_machine(struct cli *cli, struct error **err)
{
	struct vm_config *config = cli->config;
	int major, minor;
	bool prefer_sockets = config->machine.version &&
			      sscanf(config->machine.version, "%d.%d", &major, &minor) == 2 &&
			      (major < 6 || (major == 6 && minor < 2));

	if (!cli_resolve_smp(&cli->smp, prefer_sockets, &config->smp, err)) {
		error_prefix(err, "%s: ", config->smp.from ? config->smp.from : "-smp 1");
		return false;
	}
	return true;
}
