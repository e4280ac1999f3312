/* SPDX-License-Identifier: Apache-2.0 */
/* Log items: which of them -d switches on. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "vmm/core/log.h"

static void test_items(void **state)
{
	assert_false(log_enabled("pci"));
	assert_false(log_enabled(""));
	log_enable("");
	log_enable("guest_errors");
	log_enable("pci");
	log_enable("pci");
	assert_true(log_enabled("guest_errors"));
	assert_true(log_enabled("pci"));
	/* Whole names alone, and no search without an end. */
	assert_false(log_enabled("errors"));
	assert_false(log_enabled("guest"));
	assert_false(log_enabled(""));
	assert_false(log_enabled(","));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_items),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
