/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See acpi_fake.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

bool iasl_accepts(const void *table, size_t len, char **source)
{
	char dir[] = "/tmp/vmm-iasl-XXXXXX", path[64], command[256], *log;
	bool ok = false;
	FILE *file;

	if (!mkdtemp(dir))
		return false;
	snprintf(path, sizeof(path), "%s/t.aml", dir);
	file = fopen(path, "w");
	if (file) {
		ok = fwrite(table, 1, len, file) == len;
		fclose(file);
	}
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
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return !system(command) && ok;
}
