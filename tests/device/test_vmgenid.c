/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VM generation ID: where the guest finds it, and how it learns of a new one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hw/acpi/pm.h"
#include "hw/acpi/vmgenid.h"
#include "hw/fw_cfg/fw_cfg.h"
#include "tests/lib/acpi_fake.h"
#include "vmm/core/util.h"

#define GUID "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"

enum { PAGE = 0x5000, REQUEST = 0x1000, BUFFER = 0x2000 };

/* As a guest reads it. */
static const uint8_t guest_guid[16] = {0xaf, 0x6e, 0x4e, 0x32, 0xd1, 0xd1, 0xf6, 0x4b,
				       0xbf, 0x41, 0xb9, 0xbb, 0x6c, 0x91, 0xfb, 0x87};

struct rig {
	struct acpi_fake f;
	struct acpi_pm pm;
	struct device *fw, *dev;
	struct vmgenid *v;
};

static void start(struct rig *r, const char *guid)
{
	acpi_fake_init(&r->f);
	acpi_pm_init(&r->pm, &r->f.vm);
	r->fw = device_new(&r->f.vm, &fw_cfg_desc, NULL);
	assert_true(device_realize(r->fw, NULL, NULL));
	assert_null(vmgenid_find(&r->f.vm));
	r->dev = device_new(&r->f.vm, &vmgenid_desc, "gen");
	if (guid)
		assert_true(device_set(r->dev, "guid", guid, NULL));
	assert_true(device_realize(r->dev, NULL, NULL));
	r->v = vmgenid_find(&r->f.vm);
	assert_ptr_equal(r->v, r->dev);
}

static void stop(struct rig *r)
{
	acpi_pm_destroy(&r->pm);
	acpi_fake_destroy(&r->f);
}

static bool event_pending(struct rig *r)
{
	return r->pm.gpe0_sts[0] & 1 << ACPI_GPE_VMGENID;
}

/* Selects a file and moves its first len bytes by DMA. */
static bool transfer(struct rig *r, const char *name, bool write, uint32_t len)
{
	uint8_t e[64], *ram = r->f.ram;
	uint32_t count;

	acpi_fake_out(&r->f, 0x510, 2, FW_CFG_FILE_DIR);
	for (unsigned i = 0; i < 4; i++)
		e[i] = acpi_fake_in(&r->f, 0x511, 1);
	for (count = load_be32(e); count; count--) {
		for (unsigned i = 0; i < 64; i++)
			e[i] = acpi_fake_in(&r->f, 0x511, 1);
		if (!strcmp((char *)e + 8, name))
			break;
	}
	assert_true(count);
	store_be32(ram + REQUEST, load_be16(e + 4) << 16 | 8 | (write ? 16 : 2));
	store_be32(ram + REQUEST + 4, len);
	store_be64(ram + REQUEST + 8, BUFFER);
	acpi_fake_out(&r->f, 0x518, 4, htobe32(REQUEST));
	return load_be32(ram + REQUEST) == 0;
}

static void test_firmware(void **state)
{
	static struct rig r;
	uint8_t fresh[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
	uint8_t zero[VMGENID_PAGE_SIZE] = {0};

	start(&r, GUID);
	vmgenid_connect(r.v, &r.pm, (struct fw_cfg *)r.fw);
	assert_true(transfer(&r, "etc/vmgenid_guid", false, VMGENID_PAGE_SIZE));
	assert_memory_equal(r.f.ram + BUFFER, zero, VMGENID_GUID_OFFSET);
	assert_memory_equal(r.f.ram + BUFFER + VMGENID_GUID_OFFSET, guest_guid, 16);

	/* Not told where the page is, there is nobody to tell. */
	vmgenid_set_guid(r.v, fresh);
	assert_false(event_pending(&r));
	assert_true(transfer(&r, "etc/vmgenid_guid", false, VMGENID_PAGE_SIZE));
	assert_memory_equal(r.f.ram + BUFFER + VMGENID_GUID_OFFSET, "\4\3\2\1\6\5\x8\7\x9", 9);

	store_le64(r.f.ram + BUFFER, PAGE + VMGENID_GUID_OFFSET);
	assert_true(transfer(&r, "etc/vmgenid_addr", true, 8));
	vmgenid_set_guid(r.v, NULL);
	assert_true(event_pending(&r));
	assert_memory_not_equal(r.f.ram + PAGE + VMGENID_GUID_OFFSET, "\4\3\2\1\6\5\x8\7\x9", 9);
	assert_int_equal(r.f.ram[PAGE + VMGENID_GUID_OFFSET - 1], 0xee);
	assert_int_equal(r.f.ram[PAGE + VMGENID_GUID_OFFSET + 16], 0xee);

	/* Firmware starts over. */
	vmgenid_desc.reset(r.dev);
	acpi_pm_reset(&r.pm);
	vmgenid_set_guid(r.v, fresh);
	assert_false(event_pending(&r));

	/* An address that is no memory. */
	store_le64(r.f.ram + BUFFER, UINT64_MAX - 7);
	assert_true(transfer(&r, "etc/vmgenid_addr", true, 8));
	vmgenid_set_guid(r.v, fresh);
	assert_false(event_pending(&r));
	stop(&r);
}

static void test_direct_boot_and_restore(void **state)
{
	static struct rig r;

	start(&r, GUID);
	vmgenid_connect(r.v, &r.pm, NULL);
	assert_true(vmgenid_place(r.v, PAGE));
	assert_memory_equal(r.f.ram + PAGE + VMGENID_GUID_OFFSET, guest_guid, 16);
	assert_false(event_pending(&r));
	memset(r.f.ram + PAGE, 0, VMGENID_PAGE_SIZE);
	assert_true(vmgenid_desc.state->post_load(r.v, 1, NULL));
	assert_memory_equal(r.f.ram + PAGE + VMGENID_GUID_OFFSET, guest_guid, 16);
	assert_true(event_pending(&r));
	assert_false(vmgenid_place(r.v, ACPI_FAKE_RAM));
	stop(&r);
}

static void test_properties(void **state)
{
	static struct rig r;
	struct error *err = NULL;
	struct device *second;

	start(&r, NULL);
	vmgenid_connect(r.v, &r.pm, (struct fw_cfg *)r.fw);
	assert_true(transfer(&r, "etc/vmgenid_guid", false, VMGENID_PAGE_SIZE));
	/* Random: version 4, in the third field's high byte. */
	assert_int_equal(r.f.ram[BUFFER + VMGENID_GUID_OFFSET + 7] >> 4, 4);
	second = device_new(&r.f.vm, &vmgenid_desc, NULL);
	assert_false(device_set(second, "guid", "12-34", NULL));
	assert_false(device_realize(second, NULL, &err));
	assert_string_equal(error_message(err), "at most one vmgenid device is permitted");
	error_free(err);
	device_free(second);
	stop(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_firmware),
		cmocka_unit_test(test_direct_boot_and_restore),
		cmocka_unit_test(test_properties),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
