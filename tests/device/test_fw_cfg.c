/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fw_cfg through its ports, as firmware drives it, and as it should not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "hw/fw_cfg/fw_cfg.h"
#include "tests/lib/acpi_fake.h"
#include "vmm/core/util.h"

enum { REQUEST = 0x1000, BUFFER = 0x2000 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

struct rig {
	struct acpi_fake f;
	struct fw_cfg *fw;
	struct device *dev;
	unsigned selects;
};

static int setup(void **state)
{
	static struct rig rig;

	memset(&rig, 0, sizeof(rig));
	acpi_fake_init(&rig.f);
	rig.dev = device_new(&rig.f.vm, &fw_cfg_desc, NULL);
	rig.fw = (struct fw_cfg *)rig.dev;
	assert_true(device_realize(rig.dev, NULL, NULL));
	fw_cfg_desc.reset(rig.dev);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	acpi_fake_destroy(&r->f);
	return 0;
}

static void select_key(struct rig *r, uint16_t key)
{
	acpi_fake_out(&r->f, 0x510, 2, key);
}

static uint8_t next(struct rig *r)
{
	return acpi_fake_in(&r->f, 0x511, 1);
}

static void expect_bytes(struct rig *r, const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(next(r), ((const uint8_t *)bytes)[i]);
}

/* The key of a file, and what the directory says of its length. */
static uint16_t find(struct rig *r, const char *name, uint32_t *len)
{
	uint8_t count[4], e[64];

	select_key(r, FW_CFG_FILE_DIR);
	for (unsigned i = 0; i < 4; i++)
		count[i] = next(r);
	for (uint32_t n = load_be32(count); n; n--) {
		for (unsigned i = 0; i < sizeof(e); i++)
			e[i] = next(r);
		if (strcmp((char *)e + 8, name))
			continue;
		if (len)
			*len = load_be32(e);
		return load_be16(e + 4);
	}
	return 0;
}

static uint32_t dma_at(struct rig *r, uint64_t request)
{
	acpi_fake_out(&r->f, 0x514, 4, htobe32(request >> 32));
	acpi_fake_out(&r->f, 0x518, 4, htobe32(request));
	return request < ACPI_FAKE_RAM - 4 ? load_be32(r->f.ram + request) : 0;
}

static uint32_t dma(struct rig *r, uint32_t control, uint32_t len, uint64_t gpa)
{
	store_be32(r->f.ram + REQUEST, control);
	store_be32(r->f.ram + REQUEST + 4, len);
	store_be64(r->f.ram + REQUEST + 8, gpa);
	return dma_at(r, REQUEST);
}

static void test_ports(void **state)
{
	struct rig *r = *state;

	expect_bytes(r, "QEMU\0\0\0", 7);
	select_key(r, FW_CFG_ID);
	expect_bytes(r, "\3\0\0\0\0", 5);
	fw_cfg_add_u16(r->fw, FW_CFG_NB_CPUS, 0x1234);
	fw_cfg_add_u64(r->fw, FW_CFG_RAM_SIZE, 0x8877665544332211);
	fw_cfg_add_u32(r->fw, FW_CFG_X86_IRQ0_OVERRIDE, 1);
	select_key(r, FW_CFG_NB_CPUS);
	expect_bytes(r, "\x34\x12\0\0", 4);
	select_key(r, FW_CFG_RAM_SIZE);
	expect_bytes(r, "\x11\x22\x33\x44\x55\x66\x77\x88\0", 9);
	select_key(r, FW_CFG_X86_IRQ0_OVERRIDE);
	expect_bytes(r, "\1\0\0\0", 4);
	/* Nothing there. */
	select_key(r, 0x7777);
	expect_bytes(r, "\0\0\0", 3);
	/* Selecting starts anew; writes to the data port do nothing. */
	select_key(r, FW_CFG_SIGNATURE);
	acpi_fake_out(&r->f, 0x511, 1, 'x');
	expect_bytes(r, "QE", 2);
	select_key(r, FW_CFG_SIGNATURE);
	expect_bytes(r, "QEMU", 4);
	assert_int_equal(acpi_fake_in(&r->f, 0x514, 4), load_le32("QEMU"));
	assert_int_equal(acpi_fake_in(&r->f, 0x518, 4), load_le32(" CFG"));
	assert_int_equal(acpi_fake_in(&r->f, 0x512, 2), 0xffff);
	assert_int_equal(acpi_fake_in(&r->f, 0x51c, 1), 0xff);
}

static void test_directory(void **state)
{
	struct rig *r = *state;
	uint32_t len;
	uint8_t e[64];

	fw_cfg_add_string(r->fw, "etc/zebra", "stripes");
	fw_cfg_add_file_u64(r->fw, "etc/apple", 5);
	fw_cfg_add_blob(r->fw, "bootorder", "", 0);
	assert_true(fw_cfg_has_file(r->fw, "etc/zebra"));
	assert_false(fw_cfg_has_file(r->fw, "etc/zebr"));
	select_key(r, FW_CFG_FILE_DIR);
	expect_bytes(r, "\0\0\0\3", 4);
	expect_bytes(r, "\0\0\0\0\0\x22\0\0bootorder\0", 18);
	for (unsigned i = 18; i < 64; i++)
		assert_int_equal(next(r), 0);
	for (unsigned i = 0; i < 64; i++)
		e[i] = next(r);
	assert_string_equal((char *)e + 8, "etc/apple");
	assert_int_equal(load_be32(e), 8);
	select_key(r, find(r, "etc/zebra", &len));
	assert_int_equal(len, 8);
	expect_bytes(r, "stripes\0\0", 9);

	fw_cfg_replace(r->fw, "etc/zebra", "spots", 5);
	select_key(r, find(r, "etc/zebra", &len));
	assert_int_equal(len, 5);
	expect_bytes(r, "spots\0", 6);
}

static void test_names(void **state)
{
	struct rig *r = *state;
	struct fw_cfg_file file = {.data = "x", .len = 1};
	struct error *err = NULL;
	char name[80];

	memset(name, 'n', sizeof(name));
	name[FW_CFG_NAME_MAX] = 0;
	file.name = name;
	assert_true(fw_cfg_add_file(r->fw, &file, NULL));
	assert_true(find(r, name, NULL));
	assert_false(fw_cfg_add_file(r->fw, &file, &err));
	assert_non_null(strstr(error_message(err), "duplicate fw_cfg file name: nnn"));
	error_free(err);
	name[FW_CFG_NAME_MAX] = 'n';
	name[FW_CFG_NAME_MAX + 1] = 0;
	err = NULL;
	assert_false(fw_cfg_add_file(r->fw, &file, &err));
	assert_string_equal(error_message(err), "name too long (max. 55 char)");
	error_free(err);
	for (unsigned i = 1; i < FW_CFG_FILES_MAX; i++) {
		snprintf(name, sizeof(name), "opt/%u", i);
		assert_true(fw_cfg_add_file(r->fw, &file, NULL));
	}
	file.name = "opt/last";
	assert_false(fw_cfg_add_file(r->fw, &file, NULL));
}

static void test_dma_read(void **state)
{
	struct rig *r = *state;
	uint8_t *out = r->f.ram + BUFFER;

	fw_cfg_add_blob(r->fw, "f", "0123456789", 10);
	assert_int_equal(dma(r, find(r, "f", NULL) << 16 | DMA_SELECT | DMA_READ, 4, BUFFER), 0);
	assert_memory_equal(out, "0123\xee", 5);
	assert_int_equal(dma(r, DMA_SKIP, 3, 0), 0);
	assert_int_equal(next(r), '7');
	/* Beyond the end there are zeroes. */
	assert_int_equal(dma(r, DMA_READ, 5, BUFFER), 0);
	assert_memory_equal(out, "89\0\0\0\xee", 6);
	assert_int_equal(dma(r, DMA_READ, 2, BUFFER), 0);
	assert_memory_equal(out, "\0\0", 2);
	assert_int_equal(dma(r, DMA_SKIP, 0xffffffff, BUFFER), 0);
	assert_int_equal(dma(r, DMA_SKIP, 0xffffffff, BUFFER), 0);
	assert_int_equal(next(r), 0);
	/* An item that does not exist. */
	assert_int_equal(dma(r, 0x3ffU << 16 | DMA_SELECT | DMA_READ, 1, BUFFER + 2), 0);
	assert_int_equal(out[2], 0);
	/* Nothing asked for. */
	assert_int_equal(dma(r, 0, 4, BUFFER), 0);
}

static void test_dma_write(void **state)
{
	struct rig *r = *state;
	uint8_t target[9] = "abcdefgh";
	struct fw_cfg_file file = {.name = "w", .data = target, .len = 8, .writable = true};
	uint32_t key;

	assert_true(fw_cfg_add_file(r->fw, &file, NULL));
	fw_cfg_add_blob(r->fw, "ro", "abcdefgh", 8);
	memcpy(r->f.ram + BUFFER, "WXYZ5678", 8);
	key = find(r, "w", NULL);
	assert_int_equal(dma(r, key << 16 | DMA_SELECT | DMA_SKIP, 2, 0), 0);
	assert_int_equal(dma(r, DMA_WRITE, 4, BUFFER), 0);
	assert_string_equal((char *)target, "abWXYZgh");
	/* Too long, or from nowhere: nothing is written. */
	assert_int_equal(dma(r, key << 16 | DMA_SELECT | DMA_WRITE, 9, BUFFER), DMA_ERROR);
	assert_int_equal(dma(r, key << 16 | DMA_SELECT | DMA_WRITE, 8, ACPI_FAKE_RAM - 4),
			 DMA_ERROR);
	assert_string_equal((char *)target, "abWXYZgh");
	key = find(r, "ro", NULL);
	assert_int_equal(dma(r, key << 16 | DMA_SELECT | DMA_WRITE, 4, BUFFER), DMA_ERROR);
	select_key(r, key);
	expect_bytes(r, "abcdefgh", 8);
	assert_int_equal(dma(r, 0x3ffU << 16 | DMA_SELECT | DMA_WRITE, 1, BUFFER), DMA_ERROR);
	assert_int_equal(dma(r, FW_CFG_SIGNATURE << 16 | DMA_SELECT | DMA_WRITE, 1, BUFFER),
			 DMA_ERROR);
}

static void test_dma_hostile(void **state)
{
	struct rig *r = *state;
	uint8_t before[16];

	/* Requests outside RAM, at its edge, and wrapping. */
	assert_int_equal(dma_at(r, 0x123456789abc), 0);
	assert_int_equal(dma_at(r, UINT64_MAX), 0);
	memset(r->f.ram + ACPI_FAKE_RAM - 8, 0, 8);
	dma_at(r, ACPI_FAKE_RAM - 8);
	assert_int_equal(load_be32(r->f.ram + ACPI_FAKE_RAM - 8), DMA_ERROR);
	/* Targets, too: nothing of them is touched. */
	memcpy(before, r->f.ram + ACPI_FAKE_RAM - 16, 16);
	assert_int_equal(dma(r, DMA_SELECT | DMA_READ, 32, ACPI_FAKE_RAM - 16), DMA_ERROR);
	assert_memory_equal(before, r->f.ram + ACPI_FAKE_RAM - 16, 16);
	assert_int_equal(dma(r, DMA_READ, 0xffffffff, 0), DMA_ERROR);
	assert_int_equal(dma(r, DMA_READ, 16, UINT64_MAX - 8), DMA_ERROR);
	/* A request that is overwritten by its own data. */
	assert_int_equal(dma(r, DMA_SELECT | DMA_READ, 16, REQUEST), 0);
	assert_memory_equal(r->f.ram + REQUEST, "\0\0\0\0", 4);
	/* The first half alone does nothing, and is forgotten after a run. */
	store_be32(r->f.ram + REQUEST, DMA_SELECT | DMA_READ);
	store_be32(r->f.ram + REQUEST + 4, 4);
	store_be64(r->f.ram + REQUEST + 8, BUFFER);
	acpi_fake_out(&r->f, 0x514, 4, htobe32(1));
	assert_int_equal(r->f.ram[BUFFER], 0xee);
	acpi_fake_out(&r->f, 0x518, 4, htobe32(REQUEST));
	assert_int_equal(r->f.ram[BUFFER], 0xee);
	acpi_fake_out(&r->f, 0x518, 4, htobe32(REQUEST));
	assert_memory_equal(r->f.ram + BUFFER, "QEMU", 4);
	/* Other sizes are no registers. */
	acpi_fake_out(&r->f, 0x510, 4, FW_CFG_ID);
	acpi_fake_out(&r->f, 0x510, 1, FW_CFG_ID);
	acpi_fake_out(&r->f, 0x518, 2, 0);
	acpi_fake_out(&r->f, 0x516, 4, 0);
}

static void on_select(void *opaque)
{
	struct rig *r = opaque;

	r->selects++;
	fw_cfg_replace(r->fw, "lazy", "made", 4);
}

static void test_select_callback(void **state)
{
	struct rig *r = *state;
	struct fw_cfg_file file = {
		.name = "lazy", .data = "none", .len = 4, .select = on_select, .opaque = r};
	uint16_t key;

	assert_true(fw_cfg_add_file(r->fw, &file, NULL));
	key = find(r, "lazy", NULL);
	assert_int_equal(r->selects, 0);
	select_key(r, key);
	assert_int_equal(r->selects, 1);
	expect_bytes(r, "made\0", 5);
	dma(r, (uint32_t)key << 16 | DMA_SELECT | DMA_READ, 4, BUFFER);
	assert_int_equal(r->selects, 2);
	assert_memory_equal(r->f.ram + BUFFER, "made", 4);
}

static bool user(struct rig *r, const char *text, char *message)
{
	struct error *err = NULL;
	struct opts opts;
	bool ok;

	assert_true(opts_parse(&opts, text, "name", NULL));
	ok = fw_cfg_add_user(r->fw, &opts, &err);
	opts_free(&opts);
	strcpy(message, err ? error_message(err) : "");
	error_free(err);
	return ok;
}

static void test_user(void **state)
{
	struct rig *r = *state;
	char path[] = "/tmp/vmm-fwcfg-XXXXXX", text[128], message[256];
	int fd = mkstemp(path);
	uint32_t len;

	assert_int_equal(write(fd, "from\0file", 9), 9);
	close(fd);
	assert_true(user(r, "name=opt/a,string=hello", message));
	select_key(r, find(r, "opt/a", &len));
	assert_int_equal(len, 5);
	expect_bytes(r, "hello\0", 6);
	snprintf(text, sizeof(text), "opt/b,file=%s", path);
	assert_true(user(r, text, message));
	unlink(path);
	select_key(r, find(r, "opt/b", &len));
	assert_int_equal(len, 9);
	expect_bytes(r, "from\0file", 9);

	assert_false(user(r, "name=opt/a,string=again", message));
	assert_string_equal(message, "duplicate fw_cfg file name: opt/a");
	assert_false(user(r, "name=opt/c", message));
	assert_string_equal(message, "name, plus exactly one of file and string, are needed");
	assert_false(user(r, "string=x", message));
	assert_false(user(r, "name=opt/c,string=x,file=y", message));
	assert_false(user(r, "name=opt/c,file=/nonexistent", message));
	assert_string_equal(message, "can't load /nonexistent: No such file or directory");
	assert_false(user(r, "name=opt/c,file=/", message));
	assert_false(user(r, "name=opt/c,string=x,colour=red", message));
	assert_non_null(strstr(message, "colour"));
	assert_false(fw_cfg_has_file(r->fw, "opt/c"));
	/* Allowed with a warning. */
	assert_true(user(r, "name=etc/mine,string=x", message));
}

/* A selection and an offset that come from outside are harmless. */
static void test_state_is_position(void **state)
{
	struct rig *r = *state;
	const struct state_field *fields = fw_cfg_desc.state->fields;

	assert_string_equal(fields[0].name, "selected");
	store_le16((uint8_t *)r->dev + fields[0].offset, 0xffff);
	store_le32((uint8_t *)r->dev + fields[1].offset, 0xffffffff);
	assert_int_equal(next(r), 0);
	store_le16((uint8_t *)r->dev + fields[0].offset, 0);
	assert_int_equal(next(r), 0);
	fw_cfg_desc.reset(r->dev);
	assert_int_equal(next(r), 'Q');
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_ports),	    TEST(test_directory), TEST(test_names),
		TEST(test_dma_read),	    TEST(test_dma_write), TEST(test_dma_hostile),
		TEST(test_select_callback), TEST(test_user),	  TEST(test_state_is_position),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
