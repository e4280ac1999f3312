/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot paths as QEMU writes them for the same devices, and the order of the file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hw/fw_cfg/bootorder.h"
#include "vmm/core/util.h"

#define DEVFN(slot, function) ((slot) << 3 | (function))

static void test_paths(void **state)
{
	static const struct {
		struct boot_entry entry;
		const char *path;
	} cases[] = {
		{{.kind = BOOT_VIRTIO_BLK, .path = {DEVFN(1, 0)}, .path_len = 1},
		 "/pci@i0cf8/scsi@1/disk@0,0"},
		{{.kind = BOOT_VIRTIO_BLK, .path = {DEVFN(2, 3)}, .path_len = 1},
		 "/pci@i0cf8/scsi@2,3/disk@0,0"},
		{{.kind = BOOT_VIRTIO_BLK, .path = {DEVFN(4, 0), 0}, .path_len = 2},
		 "/pci@i0cf8/pci-bridge@4/scsi@0/disk@0,0"},
		{{.kind = BOOT_VIRTIO_BLK,
		  .path = {DEVFN(0x1c, 2), 0, DEVFN(10, 0)},
		  .path_len = 3},
		 "/pci@i0cf8/pci-bridge@1c,2/pci-bridge@0/scsi@a/disk@0,0"},
		{{.kind = BOOT_ETHERNET, .path = {DEVFN(2, 0)}, .path_len = 1},
		 "/pci@i0cf8/ethernet@2/ethernet-phy@0"},
		{{.kind = BOOT_VIRTIO_SCSI,
		  .path = {DEVFN(3, 0)},
		  .path_len = 1,
		  .target = 3,
		  .lun = 1},
		 "/pci@i0cf8/scsi@3/channel@0/disk@3,1"},
		{{.kind = BOOT_NVME,
		  .path = {DEVFN(5, 0)},
		  .path_len = 1,
		  .vendor = 0x1b36,
		  .device = 0x10,
		  .target = 1},
		 "/pci@i0cf8/pci1b36,0010@5/namespace@1,0"},
		{{.kind = BOOT_AHCI_DISK,
		  .path = {DEVFN(0x1f, 2)},
		  .path_len = 1,
		  .vendor = 0x8086,
		  .device = 0x2922,
		  .target = 2},
		 "/pci@i0cf8/pci8086,2922@1f,2/drive@2/disk@0"},
		{{.kind = BOOT_AHCI_CDROM,
		  .path = {DEVFN(0x1f, 2)},
		  .path_len = 1,
		  .vendor = 0x8086,
		  .device = 0x2922},
		 "/pci@i0cf8/pci8086,2922@1f,2/drive@0/disk@0"},
		{{.kind = BOOT_FLOPPY, .path = {DEVFN(0x1f, 0)}, .path_len = 1, .target = 1},
		 "/pci@i0cf8/isa@1f/fdc@03f0/floppy@1"},
		{{.kind = BOOT_ROM, .rom = "genroms/linuxboot.bin"}, "/rom@genroms/linuxboot.bin"},
		{{.kind = BOOT_PCI,
		  .path = {DEVFN(7, 1)},
		  .path_len = 1,
		  .vendor = 0x8086,
		  .device = 0x10d3},
		 "/pci@i0cf8/pci8086,10d3@7,1"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *path = boot_path(&cases[i].entry);

		assert_string_equal(path, cases[i].path);
		free(path);
	}
}

static const struct boot_entry three[] = {
	{.kind = BOOT_VIRTIO_BLK, .bootindex = 7, .path = {DEVFN(1, 0)}, .path_len = 1},
	{.kind = BOOT_VIRTIO_BLK, .bootindex = -1, .path = {DEVFN(2, 0)}, .path_len = 1},
	{.kind = BOOT_ETHERNET, .bootindex = 0, .path = {DEVFN(3, 0)}, .path_len = 1},
};

static void test_order(void **state)
{
	char *text;
	size_t len;

	assert_true(boot_order_build(three, 3, false, &text, &len, NULL));
	assert_string_equal(text, "/pci@i0cf8/ethernet@3/ethernet-phy@0\n"
				  "/pci@i0cf8/scsi@1/disk@0,0");
	assert_int_equal(len, strlen(text) + 1);
	free(text);
	assert_true(boot_order_build(three, 3, true, &text, &len, NULL));
	assert_string_equal(text, "/pci@i0cf8/ethernet@3/ethernet-phy@0\n"
				  "/pci@i0cf8/scsi@1/disk@0,0\nHALT");
	assert_int_equal(len, strlen(text) + 1);
	free(text);
}

static void test_nothing(void **state)
{
	char *text = (char *)1;
	size_t len = 1;

	assert_true(boot_order_build(three + 1, 1, true, &text, &len, NULL));
	assert_null(text);
	assert_int_equal(len, 0);
	assert_true(boot_order_build(NULL, 0, false, &text, &len, NULL));
	assert_null(text);
}

static void test_twice(void **state)
{
	struct boot_entry two[2] = {three[0], three[2]};
	struct error *err = NULL;
	char *text;
	size_t len;

	two[1].bootindex = 7;
	assert_false(boot_order_build(two, 2, false, &text, &len, &err));
	assert_string_equal(error_message(err), "The bootindex 7 has already been used");
	error_free(err);
	assert_null(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
