/* SPDX-License-Identifier: Apache-2.0 */
/* What -global does to devices that are made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "vmm/core/device.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

struct thing {
	struct device dev;
	uint32_t size;
};

static const struct prop thing_props[] = {
	{.name = "size", .type = PROP_U32, .offset = offsetof(struct thing, size), .def = "7"},
	{.type = PROP_END},
};

static const struct device_desc thing_desc = {
	.name = "thing",
	.alias = "gadget",
	.help = "a thing",
	.size = sizeof(struct thing),
	.props = (const struct prop_set[]){{.props = thing_props}, {NULL}},
};

static const struct device_desc *const table[] = {&thing_desc, NULL};

/* -device thing[,size=...] under these -globals; its size, or 0 and what is wrong. */
static uint32_t made(const char *const *globals, const char *args, char message[256])
{
	struct vm vm;
	struct evloop *loop = evloop_new(NULL, NULL);
	struct error *err = NULL;
	struct opts opts = {0};
	struct device *d;
	uint32_t size = 0;

	vm_init(&vm, loop);
	vm.device_table = table;
	for (; *globals; globals += 2)
		opts_add(&vm.globals, globals[0], globals[1]);
	assert_true(opts_parse(&opts, args, "driver", NULL));
	d = device_add(&vm, &opts, &err);
	if (d)
		size = container_of(d, struct thing, dev)->size;
	else
		snprintf(message, 256, "%s", error_message(err));
	error_free(err);
	opts_free(&opts);
	vm_destroy(&vm);
	evloop_free(loop);
	return size;
}

#define GLOBALS(...)                                                                               \
	(const char *const[])                                                                      \
	{                                                                                          \
		__VA_ARGS__, NULL, NULL,                                                           \
	}

static void test_globals(void **state)
{
	char message[256];

	assert_int_equal(made(GLOBALS("other.size", "x"), "thing", message), 7);
	assert_int_equal(made(GLOBALS("thing.size", "3"), "thing", message), 3);
	assert_int_equal(made(GLOBALS("thing.size", "3", "thing.size", "4"), "thing", message), 4);
	assert_int_equal(made(GLOBALS("thing.size", "3"), "thing,size=5", message), 5);
	assert_int_equal(made(GLOBALS("gadget.size", "3"), "thing", message), 3);
	assert_int_equal(made(GLOBALS("thin.size", "3"), "thing", message), 7);
	assert_int_equal(made(GLOBALS("things.size", "3"), "thing", message), 7);
}

/* Neither a wrong value nor an unknown property is passed over. */
static void test_bad_globals(void **state)
{
	char message[256];

	assert_int_equal(made(GLOBALS("thing.size", "many"), "thing", message), 0);
	assert_int_equal(strncmp(message, "-global thing.size=many: ", 25), 0);
	assert_int_equal(made(GLOBALS("thing.size", "many"), "thing,size=5", message), 0);
	assert_int_equal(made(GLOBALS("thing.color", "red"), "thing", message), 0);
	assert_non_null(strstr(message, "-global thing.color=red: Property 'color' not found"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_globals),
		cmocka_unit_test(test_bad_globals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
