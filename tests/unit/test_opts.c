/* SPDX-License-Identifier: Apache-2.0 */
/* Options, numbers and properties: what is accepted, and what a refusal says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "vmm/core/opts.h"
#include "vmm/core/prop.h"
#include "vmm/core/util.h"

static void test_commas_implied_keys_and_flags(void **state)
{
	struct opts o;
	bool wait = true, server = false;

	assert_true(opts_parse(&o, "unix:/a,,b=c,path=x,,y,server,nowait,path=z", "backend", NULL));
	assert_string_equal(o.items[0].key, "unix:/a,b");
	opts_free(&o);
	assert_true(opts_parse(&o, "unix,path=x,,y,server,nowait,path=z", "backend", NULL));
	assert_string_equal(opts_get(&o, "backend"), "unix");
	assert_string_equal(opts_get(&o, "path"), "z");
	assert_true(opts_get_bool(&o, "server", &server, NULL));
	assert_true(opts_get_bool(&o, "wait", &wait, NULL));
	assert_true(server);
	assert_false(wait);
	assert_true(opts_check_used(&o, NULL, 0, NULL));
	opts_free(&o);
}

static void test_unknown_keys_name_the_nearest(void **state)
{
	static const char *const known[] = { "format", "file", "cache" };
	struct error *err = NULL;
	struct opts o;

	assert_true(opts_parse(&o, "file=x,fromat=raw", NULL, NULL));
	opts_get(&o, "file");
	assert_false(opts_check_used(&o, known, 3, &err));
	assert_string_equal(error_message(err),
			    "Invalid parameter 'fromat' (did you mean 'format'?)");
	error_free(err);
	err = NULL;
	opts_free(&o);
	assert_true(opts_parse(&o, "cahce=none", NULL, NULL)); /* changed places are one mistake */
	assert_false(opts_check_used(&o, known, 3, &err));
	assert_string_equal(error_message(err), "Invalid parameter 'cahce' (did you mean 'cache'?)");
	error_free(err);
	opts_free(&o);
	assert_false(opts_parse(&o, "a=1,,=2,=3", NULL, NULL) && o.count == 0);
	opts_free(&o);
}

static void test_json(void **state)
{
	struct error *err = NULL;
	struct opts o, sub;

	assert_true(opts_parse(&o,
			       "{\"driver\":\"qcow2\",\"read-only\":true,"
			       "\"file\":{\"driver\":\"file\",\"filename\":\"a,b\"},\"l\":[1,2]}",
			       "driver", NULL));
	assert_string_equal(opts_get(&o, "driver"), "qcow2");
	assert_string_equal(opts_get(&o, "l.1"), "2");
	opts_sub(&o, "file.", &sub);
	assert_string_equal(opts_get(&sub, "filename"), "a,b");
	opts_free(&sub);
	opts_free(&o);
	assert_false(opts_parse(&o, "{\"a\":", NULL, &err));
	assert_non_null(err);
	error_free(err);
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t unit, value;
	} good[] = {
		{ "128", MiB, 128 * MiB }, { "4G", MiB, 4 * GiB },	{ "0", 1, 0 },
		{ "1.5G", 1, 3 * GiB / 2 }, { "0x10", 1, 16 },		{ "64k", 1, 64 * KiB },
		{ "512B", MiB, 512 },	   { "16383P", 1, UINT64_C(16383) << 50 },
	};
	static const char *const bad[] = { "",	 "G",	 "-1", "1GG", "1 G", "16E", "18446744073709551616",
					   "1.", "1.x", "0.5" };
	uint64_t v;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(parse_size(good[i].text, good[i].unit, &v));
		assert_int_equal(v, good[i].value);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(parse_size(bad[i], 1, &v));
}

struct thing {
	uint32_t header;
	uint16_t queue_size;
	bool flag;
	char *serial;
	uint8_t mac[6];
	uint8_t uuid[16];
	int32_t addr;
	int mode;
};

static const char *const modes[] = { "slow", "fast", NULL };
static const struct prop props[] = {
	{ .name = "queue-size", .type = PROP_U16, .offset = offsetof(struct thing, queue_size),
	  .def = "256", .min = 2, .max = 1024 },
	{ .name = "flag", .type = PROP_BOOL, .offset = offsetof(struct thing, flag), .def = "on" },
	{ .name = "serial", .type = PROP_STRING, .offset = offsetof(struct thing, serial) },
	{ .name = "mac", .type = PROP_MAC, .offset = offsetof(struct thing, mac) },
	{ .name = "uuid", .type = PROP_UUID, .offset = offsetof(struct thing, uuid) },
	{ .name = "addr", .type = PROP_PCI_ADDR, .offset = offsetof(struct thing, addr) },
	{ .name = "mode", .type = PROP_ENUM, .offset = offsetof(struct thing, mode), .names = modes },
	{ .type = PROP_END },
};
static const struct prop_set sets[] = { { props, 0 }, { NULL } };

static void test_properties(void **state)
{
	struct thing t = { 0 };
	struct error *err = NULL;
	const struct prop_set *set;
	const struct prop *uuid;
	char *text;

	prop_set_defaults(sets, &t);
	assert_int_equal(t.queue_size, 256);
	assert_true(t.flag);
	assert_int_equal(t.addr, -1);
	assert_true(prop_assign(sets, &t, "addr", "1f.3", NULL, NULL));
	assert_int_equal(t.addr, 0x1f << 3 | 3);
	assert_true(prop_assign(sets, &t, "mac", "52:54:00:12:34:5f", NULL, NULL));
	assert_int_equal(t.mac[5], 0x5f);
	assert_true(prop_assign(sets, &t, "mode", "fast", NULL, NULL));
	assert_int_equal(t.mode, 1);
	assert_true(prop_assign(sets, &t, "serial", "abc", NULL, NULL));
	assert_true(prop_assign(sets, &t, "serial", "def", NULL, NULL));
	assert_true(prop_assign(sets, &t, "uuid", "00112233-4455-6677-8899-aabbccddeeff", NULL, NULL));
	uuid = prop_find(sets, "uuid", &set);
	text = prop_to_text(uuid, set, &t);
	assert_string_equal(text, "00112233-4455-6677-8899-aabbccddeeff");
	free(text);
	assert_false(prop_assign(sets, &t, "queue-size", "2048", NULL, &err));
	assert_string_equal(error_message(err),
			    "Property 'queue-size' is 2048: it takes values from 2 to 1024");
	error_free(err);
	err = NULL;
	assert_false(prop_assign(sets, &t, "queue_size", "8", NULL, &err));
	assert_string_equal(error_message(err),
			    "Property 'queue_size' not found (did you mean 'queue-size'?)");
	error_free(err);
	assert_false(prop_assign(sets, &t, "addr", "20", NULL, NULL));
	assert_false(prop_assign(sets, &t, "addr", "1.8", NULL, NULL));
	assert_false(prop_assign(sets, &t, "mac", "52:54:00:12:34", NULL, NULL));
	assert_false(prop_assign(sets, &t, "uuid", "00112233", NULL, NULL));
	prop_release(sets, &t);
	assert_null(t.serial);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commas_implied_keys_and_flags),
		cmocka_unit_test(test_unknown_keys_name_the_nearest),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_properties),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
