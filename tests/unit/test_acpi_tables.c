/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables: what a guest would find in them, both ways of handing them over give the same bytes,
 * and iasl agrees.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hw/acpi/pm.h"
#include "hw/acpi/tables.h"
#include "hw/acpi/vmgenid.h"
#include "hw/fw_cfg/fw_cfg.h"
#include "tests/lib/acpi_fake.h"
#include "vmm/core/util.h"

enum { RSDP_GPA = 0xf0040, TABLES_GPA = 0x100000, VMGENID_GPA = 0x180000 };
enum { CPUS_MAX = ACPI_FAKE_CPUS };

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s += *p++;
	return s;
}

/* A table by its address, checked as an operating system does. */
static const uint8_t *table_at(const struct acpi_fake *f, uint64_t gpa, const char *signature)
{
	const uint8_t *t = f->ram + gpa;

	assert_true(range_inside(gpa, 36, ACPI_FAKE_RAM));
	if (memcmp(t, signature, 4))
		return NULL;
	assert_true(range_inside(gpa, load_le32(t + 4), ACPI_FAKE_RAM));
	assert_int_equal(sum(t, load_le32(t + 4)), 0);
	return t;
}

/* Through the XSDT, which must agree with the RSDT. */
static const uint8_t *find_table(const struct acpi_fake *f, const char *signature)
{
	const uint8_t *rsdp = f->ram + RSDP_GPA, *rsdt, *xsdt, *t;
	unsigned count;

	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(rsdp[15], 2);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	rsdt = table_at(f, load_le32(rsdp + 16), "RSDT");
	xsdt = table_at(f, load_le64(rsdp + 24), "XSDT");
	assert_non_null(rsdt);
	assert_non_null(xsdt);
	count = (load_le32(xsdt + 4) - 36) / 8;
	assert_int_equal(count, (load_le32(rsdt + 4) - 36) / 4);
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(load_le64(xsdt + 36 + 8 * i), load_le32(rsdt + 36 + 4 * i));
		t = table_at(f, load_le64(xsdt + 36 + 8 * i), signature);
		if (t)
			return t;
	}
	return NULL;
}

static void place(struct acpi_fake *f, const struct acpi_config *c)
{
	struct acpi_tables t;

	acpi_fake_init(f);
	acpi_tables_build(&t, c);
	assert_true(acpi_tables_place(&t, &f->vm.mem, RSDP_GPA, TABLES_GPA,
				      c->vmgenid ? VMGENID_GPA : 0));
	acpi_tables_destroy(&t);
}

static void test_fadt(void **state)
{
	struct acpi_config c = acpi_fake_config(4);
	struct acpi_fake f;
	const uint8_t *fadt, *dsdt, *facs;

	place(&f, &c);
	fadt = find_table(&f, "FACP");
	assert_non_null(fadt);
	assert_int_equal(load_le32(fadt + 4), 276);
	assert_int_equal(fadt[8], 6);
	dsdt = table_at(&f, load_le32(fadt + 40), "DSDT");
	assert_non_null(dsdt);
	assert_int_equal(load_le64(fadt + 140), load_le32(fadt + 40));
	facs = f.ram + load_le32(fadt + 36);
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal(load_le32(fadt + 36) % 64, 0);
	assert_int_equal(load_le64(fadt + 132), 0); /* one of the two, not both */
	assert_int_equal(load_le16(fadt + 46), 9);
	assert_int_equal(load_le32(fadt + 48), 0); /* no SMI command: ACPI mode already */
	assert_int_equal(load_le32(fadt + 56), 0x600);
	assert_int_equal(load_le32(fadt + 64), 0x604);
	assert_int_equal(load_le32(fadt + 76), 0x608);
	assert_int_equal(load_le32(fadt + 80), 0x620);
	assert_int_equal(fadt[92], 16);
	assert_int_equal(load_le64(fadt + 152), 0x600);
	assert_int_equal(load_le64(fadt + 224), 0x620);
	assert_int_equal(fadt[108], 0x32);
	assert_int_equal(load_le16(fadt + 109), 0x7); /* legacy, 8042, no VGA */
	assert_true(load_le32(fadt + 112) & 1 << 10);
	assert_false(load_le32(fadt + 112) & 1 << 4); /* the power button is a fixed one */
	assert_false(load_le32(fadt + 112) & 1 << 18);
	assert_int_equal(load_le64(fadt + 120), 0xcf9);
	assert_int_equal(fadt[128], 0xf);
	acpi_fake_destroy(&f);

	c = acpi_fake_config(9);
	c.vga = true;
	c.i8042 = false;
	place(&f, &c);
	fadt = find_table(&f, "FACP");
	assert_int_equal(load_le16(fadt + 109), 0x1);
	assert_true(load_le32(fadt + 112) & 1 << 18);
	acpi_fake_destroy(&f);
}

/* Entries of one type in the MADT. */
static unsigned count_madt(const uint8_t *madt, uint8_t type)
{
	uint32_t len = load_le32(madt + 4), at = 44;
	unsigned n = 0;

	for (; at < len; at += madt[at + 1]) {
		assert_true(madt[at + 1] >= 6);
		n += madt[at] == type;
	}
	assert_int_equal(at, len);
	return n;
}

static void test_madt(void **state)
{
	struct acpi_config c = acpi_fake_config(4);
	struct acpi_fake f;
	const uint8_t *madt;

	place(&f, &c);
	madt = find_table(&f, "APIC");
	assert_int_equal(load_le32(madt + 36), 0xfee00000);
	assert_int_equal(count_madt(madt, 0), 4);
	assert_int_equal(count_madt(madt, 9), 0);
	assert_int_equal(count_madt(madt, 1), 1);
	assert_int_equal(count_madt(madt, 2), 5);
	assert_int_equal(count_madt(madt, 4), 1);
	assert_int_equal(count_madt(madt, 10), 0);
	assert_int_equal(madt[44 + 8 + 2], 1);
	assert_int_equal(madt[44 + 8 + 3], 1);
	acpi_fake_destroy(&f);

	/* Ids that the old entry cannot hold. */
	c = acpi_fake_config(CPUS_MAX);
	place(&f, &c);
	madt = find_table(&f, "APIC");
	assert_int_equal(count_madt(madt, 0), 255);
	assert_int_equal(count_madt(madt, 9), 45);
	assert_int_equal(count_madt(madt, 10), 1);
	acpi_fake_destroy(&f);
}

static void test_mcfg_and_vmgenid(void **state)
{
	struct acpi_config c = acpi_fake_config(1);
	struct acpi_fake f;
	const uint8_t *t;

	place(&f, &c);
	t = find_table(&f, "MCFG");
	assert_int_equal(load_le64(t + 44), 0xb0000000);
	assert_int_equal(t[55], 0xff);
	assert_non_null(find_table(&f, "WAET"));
	t = find_table(&f, "SSDT");
	assert_memory_equal(t + 36, "\x08VGIA\x0c", 6);
	assert_int_equal(load_le32(t + 42), VMGENID_GPA);
	acpi_fake_destroy(&f);

	c.ecam.size = 0;
	c.vmgenid = false;
	place(&f, &c);
	assert_null(find_table(&f, "MCFG"));
	assert_null(find_table(&f, "SSDT"));
	acpi_fake_destroy(&f);
}

static void test_not_ram(void **state)
{
	struct acpi_config c = acpi_fake_config(1);
	struct acpi_tables t;
	struct acpi_fake f;

	acpi_fake_init(&f);
	acpi_tables_build(&t, &c);
	assert_false(acpi_tables_place(&t, &f.vm.mem, RSDP_GPA, ACPI_FAKE_RAM - 64, 0));
	assert_false(acpi_tables_place(&t, &f.vm.mem, ACPI_FAKE_RAM, TABLES_GPA, 0));
	acpi_tables_destroy(&t);
	acpi_fake_destroy(&f);
}

/* ---- firmware's way ---- */

struct blob {
	char name[56];
	uint8_t *bytes; /* in guest memory */
	uint64_t gpa;
	size_t len;
};

struct firmware {
	struct acpi_fake *f;
	struct blob blobs[8];
	unsigned count;
	uint64_t next_high, next_fseg;
	uint64_t vmgenid_addr;
};

static bool read_file(struct acpi_fake *f, const char *name, uint8_t *out, size_t *len, size_t max)
{
	unsigned count = 0;

	acpi_fake_out(f, 0x510, 2, FW_CFG_FILE_DIR);
	for (unsigned i = 0; i < 4; i++)
		count = count << 8 | acpi_fake_in(f, 0x511, 1);
	while (count--) {
		uint8_t e[64];

		for (unsigned i = 0; i < sizeof(e); i++)
			e[i] = acpi_fake_in(f, 0x511, 1);
		if (strcmp((char *)e + 8, name))
			continue;
		*len = load_be32(e);
		assert_true(*len <= max);
		acpi_fake_out(f, 0x510, 2, load_be16(e + 4));
		for (size_t i = 0; i < *len; i++)
			out[i] = acpi_fake_in(f, 0x511, 1);
		return true;
	}
	return false;
}

static struct blob *blob(struct firmware *fw, const char *name)
{
	for (unsigned i = 0; i < fw->count; i++)
		if (!strcmp(fw->blobs[i].name, name))
			return &fw->blobs[i];
	fail_msg("the script uses '%s' before it allocates it", name);
	return NULL;
}

static void run_allocate(struct firmware *fw, const uint8_t *e)
{
	uint64_t *next = e[64] == 2 ? &fw->next_fseg : &fw->next_high;
	struct blob *b = &fw->blobs[fw->count++];

	assert_true(e[64] == 1 || e[64] == 2);
	strcpy(b->name, (const char *)e + 4);
	b->gpa = ALIGN_UP(*next, (uint64_t)load_le32(e + 60));
	b->bytes = fw->f->ram + b->gpa;
	assert_true(read_file(fw->f, b->name, b->bytes, &b->len, ACPI_FAKE_RAM / 4));
	*next = b->gpa + b->len;
}

static void run_entry(struct firmware *fw, const uint8_t *e)
{
	struct blob *b, *target;
	uint32_t offset;

	switch (load_le32(e)) {
	case 0: /* unused */
		break;
	case 1:
		run_allocate(fw, e);
		break;
	case 2:
		b = blob(fw, (const char *)e + 4);
		target = blob(fw, (const char *)e + 60);
		offset = load_le32(e + 116);
		assert_true(range_inside(offset, e[120], b->len));
		assert_true(load_le(b->bytes + offset, e[120]) < target->len);
		store_le(b->bytes + offset, e[120],
			 load_le(b->bytes + offset, e[120]) + target->gpa);
		break;
	case 3:
		b = blob(fw, (const char *)e + 4);
		offset = load_le32(e + 60);
		assert_true(range_inside(load_le32(e + 64), load_le32(e + 68), b->len));
		assert_int_equal(b->bytes[offset], 0); /* some firmware counts it */
		b->bytes[offset] = -sum(b->bytes + load_le32(e + 64), load_le32(e + 68));
		break;
	case 4:
		assert_string_equal((const char *)e + 4, "etc/vmgenid_addr");
		assert_int_equal(load_le32(e + 116), 0);
		assert_int_equal(e[124], 8);
		fw->vmgenid_addr = blob(fw, (const char *)e + 60)->gpa + load_le32(e + 120);
		break;
	default:
		fail_msg("command %u", load_le32(e));
	}
}

struct refresh {
	struct fw_cfg *fw;
	struct acpi_config config;
	unsigned calls;
};

/* What a board does: the windows and the ECAM have moved. */
static void refresh(void *opaque)
{
	struct refresh *r = opaque;
	struct acpi_tables t;

	r->calls++;
	acpi_tables_build(&t, &r->config);
	acpi_tables_to_fw_cfg(&t, r->fw, NULL, NULL);
	acpi_tables_destroy(&t);
}

static void test_loader(void **state)
{
	struct refresh r = {.config = acpi_fake_config(4)};
	struct firmware fw = {.next_high = TABLES_GPA, .next_fseg = RSDP_GPA};
	struct acpi_fake f, direct;
	struct acpi_tables t;
	struct device *dev, *gen;
	uint8_t script[16384];
	size_t len, tables_len, script_len;

	acpi_fake_init(&f);
	fw.f = &f;
	dev = device_new(&f.vm, &fw_cfg_desc, NULL);
	assert_true(device_realize(dev, NULL, NULL));
	gen = device_new(&f.vm, &vmgenid_desc, NULL);
	assert_true(device_realize(gen, NULL, NULL));
	r.fw = (struct fw_cfg *)dev;
	vmgenid_connect((struct vmgenid *)gen, NULL, r.fw);
	/* Before firmware has run there is no ECAM. */
	r.config.ecam.size = 0;
	acpi_tables_build(&t, &r.config);
	acpi_tables_to_fw_cfg(&t, r.fw, refresh, &r);
	acpi_tables_destroy(&t);
	tables_len = fw_cfg_file_len(r.fw, "etc/acpi/tables");
	script_len = fw_cfg_file_len(r.fw, "etc/table-loader");

	r.config.ecam = (struct acpi_range){0xe0000000, 0x10000000};
	r.config.mem_windows[1] = (struct acpi_range){0x80000000, 0x60000000};
	r.config.mem_windows[3] = (struct acpi_range){0xf0000000, 0xc000000};
	r.config.mem_window_count = 4;
	assert_true(read_file(&f, "etc/table-loader", script, &len, sizeof(script)));
	assert_true(r.calls);
	assert_int_equal(len, script_len);
	assert_int_equal(len % 128, 0);
	for (size_t at = 0; at < len; at += 128)
		run_entry(&fw, script + at);
	assert_int_equal(blob(&fw, "etc/acpi/tables")->len, tables_len);
	assert_int_equal(blob(&fw, "etc/acpi/tables")->gpa, TABLES_GPA);
	assert_int_equal(blob(&fw, "etc/acpi/rsdp")->gpa, RSDP_GPA);
	assert_int_equal(fw.vmgenid_addr, blob(&fw, "etc/vmgenid_guid")->gpa + VMGENID_GUID_OFFSET);
	assert_int_equal(load_le64(find_table(&f, "MCFG") + 44), 0xe0000000);

	/* The same bytes as at direct boot. */
	acpi_fake_init(&direct);
	acpi_tables_build(&t, &r.config);
	assert_true(acpi_tables_place(&t, &direct.vm.mem, RSDP_GPA, TABLES_GPA,
				      blob(&fw, "etc/vmgenid_guid")->gpa));
	tables_len = t.len;
	acpi_tables_destroy(&t);
	assert_memory_equal(direct.ram + RSDP_GPA, f.ram + RSDP_GPA, ACPI_RSDP_SIZE);
	assert_memory_equal(direct.ram + TABLES_GPA, f.ram + TABLES_GPA, tables_len);
	acpi_fake_destroy(&direct);
	acpi_fake_destroy(&f);
}

/* ---- somebody else's reader ---- */

static void expect_in(const char *source, const char *const *expected, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!strstr(source, expected[i]))
			fail_msg("no '%s' in\n%s", expected[i], source);
}

static void test_iasl_dsdt(void **state)
{
	static const char *const expected[] = {
		"Name (_S5, Package (0x04)",
		"Device (PCI0)",
		"EisaId (\"PNP0A08\")",
		"0xFEBFFFFF,         // Range Maximum",
		"0x00000008FFFFFFFF, // Range Maximum",
		"Method (_OSC, 4, Serialized)",
		"Method (_PRT, 0, NotSerialized)",
		"Return (PRTA)",
		"Device (LNKA)",
		"Device (LNKH)",
		"IQST (PRQE)",
		"Device (GSIH)",
		"OperationRegion (PIRQ, PCI_Config, 0x60, 0x0C)",
		"Device (COM1)",
		"Device (COM2)",
		"Device (COM4)",
		"Device (RTC)",
		"Device (KBD)",
		"Device (MOU)",
		"\"QEMU0001\"",
		"\"QEMU0002\"",
		"EisaId (\"PNP0C02\")",
		"Device (C003)",
		"\"ACPI0007\"",
	};
	struct acpi_config c = acpi_fake_config(4);
	const uint8_t *t;
	struct acpi_fake f;
	char *source;

	if (!iasl_present())
		skip();
	place(&f, &c);
	t = f.ram + load_le32(find_table(&f, "FACP") + 40);
	assert_true(iasl_accepts(t, load_le32(t + 4), &source));
	expect_in(source, expected, ARRAY_SIZE(expected));
	assert_null(strstr(source, "COM3"));
	assert_null(strstr(source, "C004"));
	free(source);
	acpi_fake_destroy(&f);
}

/* The smallest and the largest machine compile, too. */
static void test_iasl_extremes(void **state)
{
	struct acpi_config c = acpi_fake_config(CPUS_MAX);
	const uint8_t *t;
	struct acpi_fake f;

	if (!iasl_present())
		skip();
	c.ecam = (struct acpi_range){0x800000000, 0x10000000};
	place(&f, &c);
	t = f.ram + load_le32(find_table(&f, "FACP") + 40);
	assert_true(iasl_accepts(t, load_le32(t + 4), NULL));
	acpi_fake_destroy(&f);

	c = acpi_fake_config(1);
	c.pci_slots = 1;
	memset(c.uarts, 0, sizeof(c.uarts));
	c.rtc_port = c.fw_cfg_port = c.pvpanic_port = 0;
	c.i8042 = false;
	c.ecam.size = 0;
	place(&f, &c);
	t = f.ram + load_le32(find_table(&f, "FACP") + 40);
	assert_true(iasl_accepts(t, load_le32(t + 4), NULL));
	acpi_fake_destroy(&f);
}

static void test_iasl_others(void **state)
{
	static const char *const signatures[] = {"FACP", "APIC", "MCFG", "WAET", "SSDT"};
	struct acpi_config c = acpi_fake_config(2);
	struct acpi_fake f;
	char *source;

	if (!iasl_present())
		skip();
	place(&f, &c);
	for (size_t i = 0; i < ARRAY_SIZE(signatures); i++) {
		const uint8_t *t = find_table(&f, signatures[i]);

		assert_true(iasl_accepts(t, load_le32(t + 4), &source));
		if (!strcmp(signatures[i], "SSDT"))
			expect_in(source,
				  (const char *const[]){"\"VMGC0001\"", "\"VM_Gen_Counter\"",
							"VGIA + 0x28", "\\_GPE._E05"},
				  4);
		free(source);
	}
	acpi_fake_destroy(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fadt),
		cmocka_unit_test(test_madt),
		cmocka_unit_test(test_mcfg_and_vmgenid),
		cmocka_unit_test(test_not_ram),
		cmocka_unit_test(test_loader),
		cmocka_unit_test(test_iasl_dsdt),
		cmocka_unit_test(test_iasl_extremes),
		cmocka_unit_test(test_iasl_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
