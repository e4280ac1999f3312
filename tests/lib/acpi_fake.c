/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See acpi_fake.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hw/fw_cfg/fw_cfg.h"
#include "tests/lib/acpi_fake.h"
#include "vmm/core/util.h"

static int64_t fake_now(const struct clock *clock)
{
	return container_of(clock, struct acpi_fake, clock)->now;
}

static void set_level(struct irq_line *line, bool level)
{
	container_of(line, struct acpi_fake, line)->level = level;
}

void acpi_fake_init(struct acpi_fake *f)
{
	struct mem_region region = {.size = ACPI_FAKE_RAM, .fd = -1};

	memset(f, 0, sizeof(*f));
	f->clock.now = fake_now;
	f->now = 1000;
	f->loop = evloop_new(&f->clock, NULL);
	f->line.set = set_level;
	vm_init(&f->vm, f->loop);
	f->ram = aligned_alloc(4096, ACPI_FAKE_RAM);
	memset(f->ram, 0xee, ACPI_FAKE_RAM);
	region.hva = f->ram;
	guest_mem_add(&f->vm.mem, &region, NULL);
	io_reader_register(&f->vm.pio, &f->reader);
}

void acpi_fake_destroy(struct acpi_fake *f)
{
	io_reader_unregister(&f->vm.pio, &f->reader);
	vm_destroy(&f->vm);
	evloop_free(f->loop);
	free(f->ram);
}

uint32_t acpi_fake_in(struct acpi_fake *f, uint16_t port, unsigned size)
{
	uint8_t bytes[4] = {0};

	io_bus_read(&f->vm.pio, &f->reader, port, bytes, size);
	return load_le32(bytes);
}

void acpi_fake_out(struct acpi_fake *f, uint16_t port, unsigned size, uint32_t value)
{
	uint8_t bytes[4];

	store_le32(bytes, value);
	io_bus_write(&f->vm.pio, &f->reader, port, bytes, size);
}

void acpi_fake_advance(struct acpi_fake *f, int64_t ns)
{
	f->now += ns;
	while (evloop_run_once(f->loop, 0))
		;
}

void acpi_fake_set_state(struct acpi_fake *f, enum run_state state)
{
	f->vm.state = state;
	notifier_fire(&f->vm.state_changed, &state);
}

struct acpi_config acpi_fake_config(unsigned cpus)
{
	static uint32_t apic_ids[ACPI_FAKE_CPUS];
	struct acpi_config c = {
		.apic_ids = apic_ids,
		.cpu_count = cpus,
		.lapic_base = 0xfee00000,
		.ioapic_base = 0xfec00000,
		.overrides = {{0, 2, 0}, {5, 5, 0xd}, {9, 9, 0xd}, {10, 10, 0xd}, {11, 11, 0xd}},
		.override_count = 5,
		.pm_base = 0x600,
		.sci_irq = 9,
		.reset_port = 0xcf9,
		.reset_value = 0xf,
		.rtc_century = 0x32,
		.ecam = {0xb0000000, 0x10000000},
		.bus_last = 0xff,
		.io_windows = {{0, 0xcf8}, {0xd00, 0xf300}},
		.io_window_count = 2,
		.mem_windows = {{0xa0000, 0x20000},
				{0xc0000000, 0x3ec00000},
				{0x100000000, 0x800000000}},
		.mem_window_count = 3,
		.pci_slots = 0xffffffff,
		.lpc_devfn = 0x1f << 3,
		.pirq_gsi = {16, 17, 18, 19, 20, 21, 22, 23},
		.pirq_isa = {5, 10, 11},
		.pirq_isa_count = 3,
		.rtc_port = 0x70,
		.rtc_irq = 8,
		.i8042 = true,
		.kbd_irq = 1,
		.mouse_irq = 12,
		.uarts = {{0x3f8, 4}, {0x2f8, 3}, {0}, {0x2e8, 3}},
		.fw_cfg_port = 0x510,
		.fw_cfg_ports = FW_CFG_PORTS,
		.pvpanic_port = 0x505,
		.vmgenid = true,
	};

	for (unsigned i = 0; i < ACPI_FAKE_CPUS; i++)
		apic_ids[i] = i;
	for (unsigned slot = 0; slot < ACPI_PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < 4; pin++)
			c.pirq[slot][pin] = slot < 25 ? 4 + (slot + pin) % 4 : pin;
	return c;
}

bool iasl_present(void)
{
	return !system("command -v iasl >/dev/null 2>&1");
}

static char *slurp(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text = calloc(1, 1 << 20);

	if (file) {
		text[fread(text, 1, (1 << 20) - 1, file)] = 0;
		fclose(file);
	}
	return text;
}

static bool save(const char *path, const void *bytes, size_t len)
{
	FILE *file = fopen(path, "w");
	bool ok = file && fwrite(bytes, 1, len, file) == len;

	if (file)
		fclose(file);
	return ok;
}

static bool remove_dir(const char *dir)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return !system(command);
}

bool iasl_accepts(const void *table, size_t len, char **source)
{
	char dir[] = "/tmp/vmm-iasl-XXXXXX", path[64], command[256], *log;
	bool ok;

	if (!mkdtemp(dir))
		return false;
	snprintf(path, sizeof(path), "%s/t.aml", dir);
	ok = save(path, table, len);
	snprintf(command, sizeof(command),
		 "cd %s && iasl -d t.aml >log 2>&1 && iasl -ve -p out t.dsl >>log 2>&1", dir);
	ok = ok && !system(command);
	snprintf(path, sizeof(path), "%s/log", dir);
	log = slurp(path);
	ok = ok && strstr(log, " 0 Errors") && !strstr(log, "Incorrect") &&
	     !strstr(log, "Warning (");
	if (!ok)
		fprintf(stderr, "%s", log);
	free(log);
	if (source) {
		snprintf(path, sizeof(path), "%s/t.dsl", dir);
		*source = slurp(path);
	}
	return remove_dir(dir) && ok;
}

bool acpiexec_present(void)
{
	return !system("command -v acpiexec >/dev/null 2>&1");
}

char *acpiexec(const void *table, size_t len, const char *commands)
{
	char dir[] = "/tmp/vmm-acpiexec-XXXXXX", path[64], command[1024], *log = NULL;

	if (!mkdtemp(dir))
		return NULL;
	snprintf(path, sizeof(path), "%s/t.aml", dir);
	snprintf(command, sizeof(command), "cd %s && acpiexec -di -b '%s;quit' t.aml >log 2>&1",
		 dir, commands);
	if (save(path, table, len) && !system(command)) {
		snprintf(path, sizeof(path), "%s/log", dir);
		log = slurp(path);
	}
	remove_dir(dir);
	return log;
}
