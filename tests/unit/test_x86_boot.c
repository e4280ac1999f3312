/* SPDX-License-Identifier: Apache-2.0 */
/* Direct boot: kernels made up here, of all three formats, sound and unsound, into guest memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "target-x86/boot/boot.h"
#include "target-x86/boot/bzimage_parse.h"
#include "vmm/core/util.h"

#define RAM_SIZE (64 * MiB)

/* A file without a name in any folder. */
struct file {
	int fd;
	char path[64];
};

static void file_make(struct file *f, const void *bytes, size_t size)
{
	f->fd = memfd_create("kernel", MFD_CLOEXEC);
	assert_true(f->fd >= 0);
	assert_int_equal(write_full(f->fd, bytes, size), 0);
	snprintf(f->path, sizeof(f->path), "/proc/self/fd/%d", f->fd);
}

struct machine {
	struct guest_mem mem;
	struct e820 map;
	struct boot_layout layout;
	struct x86_boot_state out;
	uint8_t *ram;
};

static void machine_init(struct machine *m)
{
	memset(m, 0, sizeof(*m));
	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(m->ram != MAP_FAILED);
	guest_mem_init(&m->mem);
	struct mem_region r = {.size = RAM_SIZE, .hva = m->ram, .fd = -1};
	assert_true(guest_mem_add(&m->mem, &r, NULL));
	e820_init(&m->map);
	e820_add(&m->map, 0, RAM_SIZE, E820_RAM);
	e820_add(&m->map, 0x9fc00, 0x60400, E820_RESERVED);
	e820_add(&m->map, RAM_SIZE - MiB, MiB, E820_ACPI);
	m->layout = (struct boot_layout){&m->map, 0xe0010, true};
}

static void machine_destroy(struct machine *m)
{
	guest_mem_destroy(&m->mem);
	e820_destroy(&m->map);
	munmap(m->ram, RAM_SIZE);
}

/* Opens and loads; *message is the error, or "". */
static bool boot(struct machine *m, const void *bytes, size_t size, const char *initrd,
		 const char *cmdline, char message[512])
{
	struct error *err = NULL;
	struct file f;
	bool ok = false;
	file_make(&f, bytes, size);
	struct boot_source *src = boot_source_open(f.path, initrd, cmdline, &err);
	if (src)
		ok = boot_load(src, &m->layout, &m->mem, &m->out, &err);
	boot_source_close(src);
	close(f.fd);
	snprintf(message, 512, "%s", err ? error_message(err) : "");
	error_free(err);
	assert_int_equal(ok, !*message);
	return ok;
}

/* --- bzImage --- */

enum { SETUP = 512 * 3, PAYLOAD = 10000 };

/* 2.15, 64-bit entry, wants 16 MiB, 8 MiB large, 4 sectors or fewer of setup. */
static void make_bzimage(uint8_t *k)
{
	memset(k, 0, SETUP + PAYLOAD);
	k[BP_SETUP_SECTS] = 2;
	store_le32(k + BP_SYSSIZE, PAYLOAD / 16);
	store_le16(k + BP_BOOT_FLAG, 0xaa55);
	store_le16(k + BP_JUMP, 0x6aeb);
	memcpy(k + BP_MAGIC, "HdrS", 4);
	store_le16(k + BP_VERSION, 0x020f);
	k[BP_LOADFLAGS] = 1;
	store_le32(k + BP_INITRD_ADDR_MAX, 0x7fffffff);
	store_le32(k + BP_KERNEL_ALIGNMENT, 0x200000);
	k[BP_RELOCATABLE] = 1;
	store_le16(k + BP_XLOADFLAGS, 3);
	store_le32(k + BP_CMDLINE_SIZE, 100);
	store_le64(k + BP_PREF_ADDRESS, 16 * MiB);
	store_le32(k + BP_INIT_SIZE, 8 * MiB);
	for (size_t i = 0; i < PAYLOAD; i++)
		k[SETUP + i] = (uint8_t)(i * 7);
}

static void test_bzimage_in_long_mode(void **state)
{
	static uint8_t k[SETUP + PAYLOAD];
	struct machine m;
	struct file initrd;
	char message[512];
	make_bzimage(k);
	file_make(&initrd, "initrd bytes", 12);
	machine_init(&m);
	assert_true(boot(&m, k, sizeof(k), initrd.path, "console=ttyS0 quiet", message));
	assert_memory_equal(m.ram + 16 * MiB, k + SETUP, PAYLOAD);
	assert_int_equal(m.out.regs.rip, 16 * MiB + 0x200);
	assert_int_equal(m.out.sregs.efer, 0x500);

	const uint8_t *p = m.ram + m.out.regs.rsi;
	assert_memory_equal(p + BP_MAGIC, "HdrS", 4);
	assert_int_equal(p[BP_TYPE_OF_LOADER], 0xff);
	assert_int_equal(load_le64(p + BP_ACPI_RSDP), 0xe0010);
	assert_int_equal(load_le32(p + BP_CODE32_START), 16 * MiB);
	assert_string_equal((const char *)m.ram + load_le32(p + BP_CMD_LINE_PTR),
			    "console=ttyS0 quiet");
	/* At the top of RAM, below the ACPI tables. */
	assert_int_equal(load_le32(p + BP_RAMDISK_IMAGE), RAM_SIZE - MiB - 4096);
	assert_int_equal(load_le32(p + BP_RAMDISK_SIZE), 12);
	assert_memory_equal(m.ram + RAM_SIZE - MiB - 4096, "initrd bytes", 12);
	assert_int_equal(p[BP_E820_ENTRIES], 4);
	assert_int_equal(load_le64(p + BP_E820_TABLE + 8), 0x9fc00);
	assert_int_equal(load_le32(p + BP_E820_TABLE + 3 * 20 + 16), E820_ACPI);

	/* The random seed. */
	const uint8_t *seed = m.ram + load_le64(p + BP_SETUP_DATA);
	assert_int_equal(load_le64(seed), 0);
	assert_int_equal(load_le32(seed + 8), 9);
	assert_int_equal(load_le32(seed + 12), 32);
	assert_true(load_le64(seed + 16) || load_le64(seed + 24));

	/* Page tables and GDT lie where the registers say. */
	assert_int_equal(load_le64(m.ram + m.out.sregs.cr3), (m.out.sregs.cr3 + 4096) | 3);
	assert_int_equal(load_le64(m.ram + m.out.sregs.gdt.base + 0x10),
			 UINT64_C(0x00af9b000000ffff));
	assert_true(m.out.sregs.cr3 >= BOOT_LOW_BASE);
	assert_true(load_le32(p + BP_CMD_LINE_PTR) + 20 <= BOOT_LOW_END);
	close(initrd.fd);
	machine_destroy(&m);
}

static void test_bzimage_in_protected_mode(void **state)
{
	static uint8_t k[SETUP + PAYLOAD];
	struct machine m;
	char message[512];
	make_bzimage(k);
	store_le16(k + BP_VERSION, 0x0204);
	store_le32(k + BP_SYSSIZE, PAYLOAD / 16);
	machine_init(&m);
	assert_true(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_memory_equal(m.ram + MiB, k + SETUP, PAYLOAD);
	assert_int_equal(m.out.regs.rip, MiB);
	assert_int_equal(m.out.sregs.cr0, 0x11);
	const uint8_t *p = m.ram + m.out.regs.rsi;
	assert_int_equal(load_le32(p + BP_RAMDISK_SIZE), 0);
	assert_int_equal(*(m.ram + load_le32(p + BP_CMD_LINE_PTR)), 0);
	machine_destroy(&m);
}

static void test_bzimage_moves_if_it_may(void **state)
{
	static uint8_t k[SETUP + PAYLOAD];
	struct machine m;
	char message[512];
	make_bzimage(k);
	machine_init(&m);
	e820_add(&m.map, 17 * MiB, 0x1000, E820_RESERVED);
	assert_true(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_int_equal(m.out.regs.rip, 18 * MiB + 0x200);
	k[BP_RELOCATABLE] = 0;
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(strstr(message, "needs more memory: 8 MiB from 0x1000000 on"));
	machine_destroy(&m);
}

static void test_bzimage_with_a_long_memory_map(void **state)
{
	static uint8_t k[SETUP + PAYLOAD];
	struct machine m;
	char message[512];
	make_bzimage(k);
	machine_init(&m);
	for (uint64_t i = 0; i < 100; i++)
		e820_add(&m.map, GiB + i * 2 * MiB, MiB, E820_RESERVED);
	e820_add(&m.map, 8 * GiB, MiB, E820_PMEM);
	for (uint64_t i = 0; i < 40; i++)
		e820_add(&m.map, 2 * GiB + i * 2 * MiB, MiB, E820_RESERVED);
	assert_int_equal(m.map.count, 145);
	assert_true(boot(&m, k, sizeof(k), NULL, NULL, message));
	const uint8_t *p = m.ram + m.out.regs.rsi;
	assert_int_equal(p[BP_E820_ENTRIES], 128);
	const uint8_t *seed = m.ram + load_le64(p + BP_SETUP_DATA);
	const uint8_t *ext = m.ram + load_le64(seed);
	assert_int_equal(load_le64(ext), 0);
	assert_int_equal(load_le32(ext + 8), 1);
	assert_int_equal(load_le32(ext + 12), 17 * 20);
	assert_int_equal(load_le64(ext + 16 + 16 * 20), 8 * GiB);
	assert_int_equal(load_le32(ext + 16 + 16 * 20 + 16), E820_PMEM);
	machine_destroy(&m);
}

static void test_bad_bzimages(void **state)
{
	static uint8_t k[SETUP + PAYLOAD], junk[8192];
	char message[512], *cmdline = xcalloc(1, 102);
	struct machine m;
	struct file initrd;
	machine_init(&m);

	make_bzimage(k);
	assert_false(boot(&m, k, SETUP + PAYLOAD - 100, NULL, NULL, message));
	assert_non_null(strstr(message, "truncated kernel: 11436 of 11536 bytes"));
	assert_non_null(strstr(message, "-kernel /proc/self/fd/"));
	assert_false(boot(&m, k, SETUP, NULL, NULL, message));
	assert_non_null(strstr(message, "truncated kernel: 1536 bytes, only its header"));
	assert_false(boot(&m, k, 0x208, NULL, NULL, message));
	assert_non_null(strstr(message, "truncated kernel"));
	assert_false(boot(&m, k, 100, NULL, NULL, message));
	assert_non_null(strstr(message, "truncated, or not a kernel: 100 bytes"));
	assert_false(boot(&m, "", 0, NULL, NULL, message));
	assert_false(boot(&m, junk, sizeof(junk), NULL, NULL, message));
	assert_non_null(strstr(message, "not a kernel: neither bzImage, nor ELF, nor multiboot"));

	store_le32(k + BP_INIT_SIZE, 60 * MiB);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(strstr(message, "needs more memory: 60 MiB from 0x1000000 on"));
	make_bzimage(k);
	store_le32(k + BP_KERNEL_ALIGNMENT, 0x300000);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	make_bzimage(k);
	store_le64(k + BP_PREF_ADDRESS, 0);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	make_bzimage(k);
	k[BP_LOADFLAGS] = 0;
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(strstr(message, "too old a kernel"));

	make_bzimage(k);
	memset(cmdline, 'x', 101);
	assert_false(boot(&m, k, sizeof(k), NULL, cmdline, message));
	assert_string_equal(message, "-append: command line too long: 101 bytes, this kernel takes "
				     "100");
	cmdline[100] = '\0';
	assert_true(boot(&m, k, sizeof(k), NULL, cmdline, message));

	file_make(&initrd, "", 0);
	assert_int_equal(ftruncate(initrd.fd, 62 * MiB), 0);
	assert_false(boot(&m, k, sizeof(k), initrd.path, NULL, message));
	assert_non_null(strstr(message, "too big: no room for 63488 KiB"));
	assert_int_equal(strncmp(message, "-initrd /proc/self/fd/", 22), 0);
	assert_false(boot(&m, k, sizeof(k), "/nonexistent", NULL, message));
	assert_string_equal(message,
			    "-initrd /nonexistent: cannot open: No such file or directory");
	assert_false(boot(&m, k, sizeof(k), "/", NULL, message));
	assert_non_null(strstr(message, "not a regular file"));
	close(initrd.fd);
	free(cmdline);
	machine_destroy(&m);
}

/* --- PVH --- */

enum { ELF_SIZE = 8192 };

/* Two segments (0x1000 bytes at 1 MiB; 16 bytes and 0x2000 of zeros at 2 MiB), two notes. */
static void make_elf64(uint8_t *k)
{
	Elf64_Ehdr e = {.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_phoff = 64,
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 3,
			.e_entry = 0xffffffff81000000};
	Elf64_Phdr p[3] = {
		{.p_type = PT_LOAD,
		 .p_offset = 0x1000,
		 .p_paddr = MiB,
		 .p_vaddr = 0xffffffff81000000,
		 .p_filesz = 0x1000,
		 .p_memsz = 0x1000},
		{.p_type = PT_LOAD,
		 .p_offset = 0x1f00,
		 .p_paddr = 2 * MiB,
		 .p_filesz = 16,
		 .p_memsz = 0x2000},
		{.p_type = PT_NOTE, .p_offset = 0x400, .p_filesz = 16 + 4 + 20},
	};
	memcpy(e.e_ident, ELFMAG, SELFMAG);
	e.e_ident[EI_CLASS] = ELFCLASS64;
	e.e_ident[EI_DATA] = ELFDATA2LSB;
	memset(k, 0, ELF_SIZE);
	memcpy(k, &e, sizeof(e));
	memcpy(k + 64, p, sizeof(p));
	/* GNU, 3 bytes; Xen, 18: the entry. */
	store_le32(k + 0x400, 4);
	store_le32(k + 0x404, 3);
	store_le32(k + 0x408, 3);
	memcpy(k + 0x40c, "GNU", 4);
	store_le32(k + 0x414, 4);
	store_le32(k + 0x418, 4);
	store_le32(k + 0x41c, 18);
	memcpy(k + 0x420, "Xen", 4);
	store_le32(k + 0x424, MiB + 0x80);
	memset(k + 0x1000, 0x90, 0x1000);
}

static void test_pvh(void **state)
{
	static uint8_t k[ELF_SIZE];
	struct machine m;
	struct file initrd;
	char message[512];
	make_elf64(k);
	file_make(&initrd, "module", 6);
	machine_init(&m);
	m.layout.ram_is_zero = false;
	memset(m.ram + 2 * MiB, 0xee, 0x3000);
	assert_true(boot(&m, k, sizeof(k), initrd.path, "root=/dev/vda", message));
	assert_int_equal(m.out.regs.rip, MiB + 0x80);
	assert_int_equal(m.out.sregs.cr0, 0x11);
	assert_int_equal(m.ram[MiB], 0x90);
	assert_int_equal(m.ram[2 * MiB + 15], 0x90);
	assert_int_equal(m.ram[2 * MiB + 16], 0);
	assert_int_equal(m.ram[2 * MiB + 0x1fff], 0);
	assert_int_equal(m.ram[2 * MiB + 0x2000], 0xee);

	const uint8_t *p = m.ram + m.out.regs.rbx;
	assert_int_equal(load_le32(p), 0x336ec578);
	assert_int_equal(load_le32(p + 4), 1);
	assert_int_equal(load_le32(p + 12), 1);
	assert_string_equal((const char *)m.ram + load_le64(p + 24), "root=/dev/vda");
	assert_int_equal(load_le64(p + 32), 0xe0010);
	const uint8_t *module = m.ram + load_le64(p + 16);
	assert_memory_equal(m.ram + load_le64(module), "module", 6);
	assert_int_equal(load_le64(module + 8), 6);
	const uint8_t *map = m.ram + load_le64(p + 40);
	assert_int_equal(load_le32(p + 48), 4);
	assert_int_equal(load_le64(map + 8), 0x9fc00);
	assert_int_equal(load_le32(map + 16), E820_RAM);
	assert_int_equal(load_le64(map + 72), RAM_SIZE - MiB);
	close(initrd.fd);
	machine_destroy(&m);
}

static void test_pvh_keeps_out_of_the_kernels_way(void **state)
{
	static uint8_t k[ELF_SIZE];
	struct machine m;
	char message[512];
	make_elf64(k);
	/* The first segment lies where boot parameters would. */
	store_le64(k + 64 + offsetof(Elf64_Phdr, p_paddr), BOOT_LOW_BASE);
	store_le32(k + 0x424, BOOT_LOW_BASE);
	machine_init(&m);
	assert_true(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_int_equal(m.out.regs.rbx, BOOT_LOW_BASE + 0x1000);
	machine_destroy(&m);
}

static void test_bad_elf_files(void **state)
{
	static uint8_t k[ELF_SIZE];
	struct machine m;
	char message[512];
	machine_init(&m);
	make_elf64(k);
	store_le32(k + 0x41c, 17);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(strstr(message, "without a PVH entry"));
	make_elf64(k);
	store_le32(k + 0x424, 0x5000000);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(strstr(message, "PVH entry 0x5000000 lies outside of it"));
	make_elf64(k);
	assert_false(boot(&m, k, 0x1800, NULL, NULL, message));
	assert_non_null(strstr(message, "truncated kernel: a segment ends at byte 8192 of 6144"));
	assert_false(boot(&m, k, 70, NULL, NULL, message));
	assert_non_null(strstr(message, "truncated kernel"));
	store_le64(k + 64 + offsetof(Elf64_Phdr, p_paddr), UINT64_MAX - 10);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(strstr(message, "not a sound kernel: segment at 0xfffffffffffffff5"));
	make_elf64(k);
	store_le64(k + 64 + 56 + offsetof(Elf64_Phdr, p_memsz), 62 * MiB);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(strstr(message, "needs more memory: 63488 KiB from 0x200000 on"));
	make_elf64(k);
	store_le16(k + offsetof(Elf64_Ehdr, e_machine), EM_AARCH64);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(strstr(message, "not for x86"));
	make_elf64(k);
	store_le32(k + 0x400, 0xffffffff);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	machine_destroy(&m);
}

/* --- multiboot --- */

static void multiboot_header(uint8_t *p, uint32_t flags)
{
	store_le32(p, 0x1badb002);
	store_le32(p + 4, flags);
	store_le32(p + 8, -(0x1badb002 + flags));
}

static void test_multiboot_with_addresses(void **state)
{
	static uint8_t k[6000];
	struct machine m;
	struct file one, two;
	char message[512], modules[256];
	memset(k, 0x55, sizeof(k));
	multiboot_header(k + 64, 0x10003);
	store_le32(k + 76, 0x200040); /* header */
	store_le32(k + 80, 0x200000); /* load */
	store_le32(k + 84, 0x201000); /* load end */
	store_le32(k + 88, 0x203000); /* bss end */
	store_le32(k + 92, 0x200100); /* entry */
	file_make(&one, "first", 5);
	file_make(&two, "second", 6);
	snprintf(modules, sizeof(modules), "%s a=1,,2 b,%s", one.path, two.path);
	machine_init(&m);
	assert_true(boot(&m, k, sizeof(k), modules, "verbose", message));
	assert_int_equal(m.out.regs.rax, 0x2badb002);
	assert_int_equal(m.out.regs.rip, 0x200100);
	assert_memory_equal(m.ram + 0x200000, k, 0x1000);
	assert_int_equal(m.ram[0x201000], 0);

	const uint8_t *p = m.ram + m.out.regs.rbx;
	assert_int_equal(load_le32(p), 1 | 4 | 8 | 64 | 512);
	assert_int_equal(load_le32(p + 4), 639);
	assert_int_equal(load_le32(p + 8), 62 * 1024);
	const char *cmdline = (const char *)m.ram + load_le32(p + 16);
	assert_int_equal(strncmp(cmdline, "/proc/self/fd/", 14), 0);
	assert_string_equal(strchr(cmdline, ' '), " verbose");
	assert_int_equal(load_le32(p + 20), 2);
	const uint8_t *mod = m.ram + load_le32(p + 24);
	assert_int_equal(load_le32(mod), 0x203000);
	assert_int_equal(load_le32(mod + 4), 0x203005);
	assert_memory_equal(m.ram + 0x203000, "first", 5);
	assert_string_equal(strchr((const char *)m.ram + load_le32(mod + 8), ' '), " a=1,2 b");
	assert_int_equal(load_le32(mod + 16), 0x204000);
	assert_memory_equal(m.ram + 0x204000, "second", 6);
	assert_int_equal(load_le32(p + 44), 4 * 24);
	const uint8_t *map = m.ram + load_le32(p + 48);
	assert_int_equal(load_le32(map), 20);
	assert_int_equal(load_le64(map + 12), 0x9fc00);
	assert_int_equal(load_le32(map + 20), 1);

	store_le32(k + 84, 0x204000);
	store_le32(k + 88, 0);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(
		strstr(message, "truncated kernel: its multiboot header wants 16384 bytes"));
	store_le32(k + 80, 0x200044);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	multiboot_header(k + 64, 0x10013);
	assert_false(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_non_null(strstr(message, "requires what is unknown (flags 0x10013)"));
	close(one.fd);
	close(two.fd);
	machine_destroy(&m);
}

static void test_multiboot_elf(void **state)
{
	static uint8_t k[ELF_SIZE];
	struct machine m;
	char message[512];
	Elf32_Ehdr e = {.e_type = ET_EXEC,
			.e_machine = EM_386,
			.e_phoff = 52,
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 1,
			.e_entry = 0x100020};
	Elf32_Phdr p = {.p_type = PT_LOAD,
			.p_offset = 0x1000,
			.p_paddr = 0x100000,
			.p_filesz = 0x1000,
			.p_memsz = 0x1800};
	memcpy(e.e_ident, ELFMAG, SELFMAG);
	e.e_ident[EI_CLASS] = ELFCLASS32;
	e.e_ident[EI_DATA] = ELFDATA2LSB;
	memset(k, 0x77, sizeof(k));
	memcpy(k, &e, sizeof(e));
	memcpy(k + 52, &p, sizeof(p));
	multiboot_header(k + 0x1000, 0);
	machine_init(&m);
	assert_true(boot(&m, k, sizeof(k), NULL, NULL, message));
	assert_int_equal(m.out.regs.rip, 0x100020);
	assert_memory_equal(m.ram + 0x100000, k + 0x1000, 0x1000);
	machine_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bzimage_in_long_mode),
		cmocka_unit_test(test_bzimage_in_protected_mode),
		cmocka_unit_test(test_bzimage_moves_if_it_may),
		cmocka_unit_test(test_bzimage_with_a_long_memory_map),
		cmocka_unit_test(test_bad_bzimages),
		cmocka_unit_test(test_pvh),
		cmocka_unit_test(test_pvh_keeps_out_of_the_kernels_way),
		cmocka_unit_test(test_bad_elf_files),
		cmocka_unit_test(test_multiboot_with_addresses),
		cmocka_unit_test(test_multiboot_elf),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
