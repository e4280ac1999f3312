/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DSDT's methods, run by ACPICA's own interpreter: what a guest's operating system does with
 * them at boot.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hw/acpi/tables.h"
#include "tests/lib/acpi_fake.h"
#include "vmm/core/util.h"

#define OSC "execute \\_SB.PCI0._OSC (5B4DDB33F71F1C4096577441C03DD766) "

/* What the interpreter says; the caller frees it. */
static char *run(const struct acpi_config *c, const char *commands)
{
	struct acpi_tables t;
	const uint8_t *dsdt;
	char *log;

	if (!acpiexec_present())
		skip();
	acpi_tables_build(&t, c);
	dsdt = t.data + 64; /* behind the FACS */
	assert_memory_equal(dsdt, "DSDT", 4);
	log = acpiexec(dsdt, load_le32(dsdt + 4), commands);
	acpi_tables_destroy(&t);
	assert_non_null(log);
	return log;
}

/* The texts come in this order. */
static void expect(const char *log, const char *const *texts, size_t count)
{
	const char *at = log;

	for (size_t i = 0; i < count; i++) {
		at = strstr(at, texts[i]);
		if (!at)
			fail_msg("no '%s' (or not there) in\n%s", texts[i], log);
		at += strlen(texts[i]);
	}
}

#define RUN(config, commands, ...)                                                                 \
	do {                                                                                       \
		const char *const texts[] = {__VA_ARGS__};                                         \
		char *log = run(config, commands);                                                 \
                                                                                                   \
		if (strstr(log, "ACPI Error"))                                                     \
			fail_msg("%s", log);                                                       \
		expect(log, texts, ARRAY_SIZE(texts));                                             \
		free(log);                                                                         \
	} while (0)

/* Slot 2's INTA is PIRQG, slot 31's PIRQA. */
static void test_interrupt_routing(void **state)
{
	struct acpi_config c = acpi_fake_config(1);

	c.pci_slots = 1u << 2 | 1u << 31;
	RUN(&c, "execute \\_PIC 0;execute \\_SB.PCI0._PRT", "Contains 8 Elements", "2FFFF",
	    "Name LNKG", "Name LNKH", "Name LNKE", "Name LNKF", "1FFFFF", "Name LNKA", "Name LNKB",
	    "Name LNKC", "Name LNKD");
	RUN(&c, "execute \\_PIC 1;execute \\_SB.PCI0._PRT", "Contains 8 Elements", "2FFFF",
	    "Name GSIG", "1FFFFF", "Name GSIA");
	RUN(&c, "execute \\_SB.GSIA._CRS;execute \\_SB.GSIH._CRS", "89 06 00 09 01 10 00 00 00",
	    "89 06 00 09 01 17 00 00 00");
}

static void test_links(void **state)
{
	struct acpi_config c = acpi_fake_config(1);

	RUN(&c,
	    "execute \\_SB.LNKA._PRS;"
	    "execute \\_SB.LNKA._SRS (89 06 00 09 01 0B 00 00 00 79 00);execute \\_SB.LNKA._CRS;"
	    "execute \\_SB.LNKA._STA;execute \\_SB.LNKA._DIS;execute \\_SB.LNKA._STA;"
	    "execute \\_SB.LNKB._STA",
	    "05 00 00 00 0A 00 00 00 0B 00 00", "LNKA._CRS", "89 06 00 09 01 0B 00 00 00 79 00",
	    "[Integer] = 000000000000000B", "[Integer] = 0000000000000009",
	    "[Integer] = 000000000000000B");
}

/* Granted as asked; more than there is; a revision, then a UUID, that nobody knows. */
static void test_osc(void **state)
{
	struct acpi_config c = acpi_fake_config(1);

	RUN(&c,
	    OSC "1 3 (00 00 00 00 1F 00 00 00 1D 00 00 00);" OSC
		"1 3 (00 00 00 00 1F 00 00 00 3F 00 00 00);" OSC
		"2 3 (00 00 00 00 1F 00 00 00 1F 00 00 00);"
		"execute \\_SB.PCI0._OSC (00000000000000000000000000000000) 1 3 "
		"(00 00 00 00 1F 00 00 00 1F 00 00 00)",
	    "00 00 00 00 1F 00 00 00 1D 00 00 00", "10 00 00 00 1F 00 00 00 1F 00 00 00",
	    "08 00 00 00 1F 00 00 00 1F 00 00 00", "04 00 00 00 1F 00 00 00 1F 00 00 00");
}

static void test_processors(void **state)
{
	struct acpi_config c = acpi_fake_config(ACPI_FAKE_CPUS);

	RUN(&c,
	    "execute \\_SB.CPUS.C002._MAT;execute \\_SB.CPUS.C12B._MAT;"
	    "execute \\_SB.CPUS.C12B._UID",
	    "00 08 02 02 01 00 00 00", "09 10 00 00 2B 01 00 00 01 00 00 00 2B 01 00 00",
	    "[Integer] = 000000000000012B");
}

/* Everything that the interpreter knows by name is evaluated and has the right type. Arguments are
 * made up, and _SRS's is not the template that it must be. */
static void test_predefined_names(void **state)
{
	struct acpi_config c = acpi_fake_config(2);
	char *log = run(&c, "execute predefined"), *rest = log, *line;
	unsigned good = 0;

	while ((line = strsep(&rest, "\n"))) {
		if (!strstr(line, "returned AE_") || strstr(line, "._SRS"))
			continue;
		if (!strstr(line, "returned AE_OK"))
			fail_msg("%s", line);
		good++;
	}
	assert_true(good > 100);
	free(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interrupt_routing),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_osc),
		cmocka_unit_test(test_processors),
		cmocka_unit_test(test_predefined_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
