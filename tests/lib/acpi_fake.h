/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest for the ACPI and fw_cfg tests: memory, ports, a loop with a clock that moves when told,
 * an interrupt line; and running iasl and acpiexec on a table. One thread; the test owns it.
 */
#ifndef TESTS_LIB_ACPI_FAKE_H
#define TESTS_LIB_ACPI_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hw/acpi/tables.h"
#include "vmm/core/evloop.h"
#include "vmm/core/irq.h"
#include "vmm/core/vm.h"

enum { ACPI_FAKE_RAM = 2 << 20, ACPI_FAKE_CPUS = 300 };

struct acpi_fake {
	struct clock clock;
	int64_t now;
	struct evloop *loop;
	struct vm vm;
	struct io_reader reader;
	uint8_t *ram; /* at guest address 0 */
	struct irq_line line;
	bool level;
};

void acpi_fake_init(struct acpi_fake *f);
void acpi_fake_destroy(struct acpi_fake *f);
uint32_t acpi_fake_in(struct acpi_fake *f, uint16_t port, unsigned size);
void acpi_fake_out(struct acpi_fake *f, uint16_t port, unsigned size, uint32_t value);
/* Moves the clock and lets the loop run what is due. */
void acpi_fake_advance(struct acpi_fake *f, int64_t ns);
void acpi_fake_set_state(struct acpi_fake *f, enum run_state state);

/* A q35 with this many processors (at most ACPI_FAKE_CPUS) and one of everything, but no COM3. */
struct acpi_config acpi_fake_config(unsigned cpus);

bool iasl_present(void);
/* Disassembles the table and compiles the result; prints what iasl said when there was an error, or
 * a wrong checksum. source, if not NULL, receives the disassembly, allocated. */
bool iasl_accepts(const void *table, size_t len, char **source);

bool acpiexec_present(void);
/* What ACPICA's interpreter prints when it loads the table and runs its debugger's commands,
 * separated by semicolons; allocated. NULL if it fails. */
char *acpiexec(const void *table, size_t len, const char *commands);

#endif
