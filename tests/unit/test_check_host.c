/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report of what the host can do, on whatever host this is: every line says something, and the
 * verdict follows from the lines.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/accel.h"
#include "accel/check-host.h"

static void test_report(void **state)
{
	char *text = NULL, *line, *save = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	bool ok = check_host(f), kvm = false, hardware = false;

	fclose(f);
	assert_non_null(strstr(text, ok ? "A stock guest can run on this host.\n" :
					  "A stock guest cannot run on this host.\n"));
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!strncmp(line, "A stock", 7))
			break;
		assert_true(strlen(line) > 34);
		assert_true(strstr(line, " yes ") || strstr(line, " NO "));
		kvm |= !strncmp(line, "needed capabilities", 19);
		hardware |= !strncmp(line, "hardware", 8) && strstr(line, " yes ");
	}
	assert_int_equal(ok, kvm && hardware);
	free(text);
}

static void test_accelerators(void **state)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	accel_help(f);
	fclose(f);
	assert_non_null(strstr(text, "\nkvm "));
	assert_non_null(accel_find("kvm"));
	assert_null(accel_find("tcg"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_report),
		cmocka_unit_test(test_accelerators),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
