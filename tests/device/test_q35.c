/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The q35 board on an engine that only remembers memory slots: what a CPU would find at each
 * address, after start, after the chipset's registers were written, after reset; and that the maps
 * told to the guest agree with it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/block.h"
#include "hw/legacy/legacy.h"
#include "hw/virtio/virtio_rng.h"
#include "target-x86/q35_internal.h"
#include "vmm/core/util.h"

enum { MAX_SLOTS = 64, LARGE_PAGE = 2 << 20, BIOS_SIZE = 256 << 10 };

struct slot {
	uint64_t gpa, size;
	uint8_t *hva;
	uint32_t flags;
};

struct machine {
	unsigned irqchip_resets;
	struct accel accel;
	struct accel_ops ops;
	struct accel_x86_ops x86;
	struct slot slots[MAX_SLOTS];
	unsigned slot_count, changes;
	unsigned phys_bits;

	struct vm vm;
	struct io_reader pio, mmio;
	struct q35_config config;
	uint64_t ram_size;
	struct memory_backend *ram;
	struct smbios_options *smbios;
	struct q35 *board;
	struct drive drives[2];
	int bios, kernel;
	char bios_path[64], kernel_path[64];
};

/* ---- the engine ---- */

static struct machine *of_accel(struct accel *a)
{
	return container_of(a, struct machine, accel);
}

static int mem_map(struct accel *a, uint64_t gpa, uint64_t size, void *hva, uint32_t flags)
{
	struct machine *m = of_accel(a);

	assert_int_equal((gpa | size | (uintptr_t)hva) & 4095, 0);
	assert_true(size);
	for (unsigned i = 0; i < m->slot_count; i++)
		if (gpa < m->slots[i].gpa + m->slots[i].size && m->slots[i].gpa < gpa + size)
			fail_msg("slots overlap at 0x%llx", (unsigned long long)gpa);
	assert_true(m->slot_count < MAX_SLOTS);
	m->slots[m->slot_count++] = (struct slot){gpa, size, hva, flags};
	m->changes++;
	return 0;
}

static int mem_unmap(struct accel *a, uint64_t gpa, uint64_t size)
{
	struct machine *m = of_accel(a);

	for (unsigned i = 0; i < m->slot_count; i++) {
		if (m->slots[i].gpa != gpa || m->slots[i].size != size)
			continue;
		m->slots[i] = m->slots[--m->slot_count];
		m->changes++;
		return 0;
	}
	fail_msg("no slot at 0x%llx", (unsigned long long)gpa);
	return -ENOENT;
}

static struct vcpu *vcpu_create(struct accel *a, unsigned index, uint32_t apic_id,
				struct error **err)
{
	struct vcpu *v = xcalloc(1, sizeof(*v));

	v->accel = a;
	v->index = index;
	v->apic_id = apic_id;
	return v;
}

static void vcpu_destroy(struct vcpu *v)
{
	free(v);
}

static void nothing(struct accel *a)
{
}

static int supported_cpuid(struct accel *a, struct x86_cpuid *out, int max)
{
	const struct x86_cpuid leaves[] = {
		{0x0, 0, false, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69},
		{0x1, 0, false, 0x00050654, 0, 0xfffab223, 0x0fabfbff},
		{0x80000000, 0, false, 0x80000008, 0, 0, 0},
		{0x80000001, 0, false, 0, 0, 0x121, 0x2c100800},
		{0x80000008, 0, false, 0x3000 | of_accel(a)->phys_bits, 0, 0, 0},
	};
	int n = MIN(max, (int)ARRAY_SIZE(leaves));

	memcpy(out, leaves, n * sizeof(*out));
	return n;
}

static uint32_t tsc_khz(struct accel *a)
{
	return 0;
}

static int set_cpuid(struct vcpu *v, const struct x86_cpuid *entries, int count)
{
	return 0;
}

static int set_regs(struct vcpu *v, const struct x86_regs *regs)
{
	return 0;
}

static int set_sregs(struct vcpu *v, const struct x86_sregs *sregs)
{
	return 0;
}

static int set_msrs(struct vcpu *v, const struct x86_msr *msrs, int count)
{
	return count;
}

static int set_mp_state(struct vcpu *v, enum x86_mp_state state)
{
	return 0;
}

static int reset_rest(struct vcpu *v)
{
	return 0;
}

static int reset_irqchip(struct accel *a)
{
	container_of(a, struct machine, accel)->irqchip_resets++;
	return 0;
}

static void msi_nowhere(struct msi_sink *sink, struct msi_msg msg, uint32_t requester)
{
}

static int no_route(struct msi_sink *sink, struct msi_route *route, int fd, struct msi_msg msg,
		    uint32_t requester)
{
	return -ENOSYS;
}

static const struct msi_sink_ops msi_ops = {.send = msi_nowhere, .route_add = no_route};

static void irq_nowhere(struct irq_line *line, bool level)
{
}

/* ---- the machine ---- */

static void *resolve(void *opaque, const struct prop *prop, const char *name, struct error **err)
{
	struct machine *m = opaque;

	for (unsigned i = 0; i < ARRAY_SIZE(m->drives); i++)
		if (prop->type == PROP_DRIVE && m->drives[i].id && !strcmp(name, m->drives[i].id))
			return &m->drives[i];
	return NULL;
}

/* Each 4 KiB of the firmware begin with their number. */
static void make_bios(struct machine *m)
{
	uint8_t page[4096] = {0};

	m->bios = memfd_create("bios", MFD_CLOEXEC);
	for (unsigned i = 0; i < BIOS_SIZE / 4096; i++) {
		page[0] = i;
		assert_int_equal(write(m->bios, page, sizeof(page)), sizeof(page));
	}
	snprintf(m->bios_path, sizeof(m->bios_path), "/proc/self/fd/%d", m->bios);
	m->config.bios = m->bios_path;
}

/* A PVH kernel of one page at 1 MiB. */
static void make_kernel(struct machine *m)
{
	struct {
		Elf64_Ehdr e;
		Elf64_Phdr p[2];
		uint32_t note[3];
		char name[4];
		uint32_t entry;
	} k = {
		.e = {.e_ident = ELFMAG "\2\1",
		      .e_type = ET_EXEC,
		      .e_machine = EM_X86_64,
		      .e_phoff = sizeof(k.e),
		      .e_phentsize = sizeof(k.p[0]),
		      .e_phnum = 2},
		.p = {{.p_type = PT_LOAD, .p_paddr = MiB, .p_filesz = 64, .p_memsz = 4096},
		      {.p_type = PT_NOTE, .p_offset = offsetof(typeof(k), note), .p_filesz = 20}},
		.note = {4, 4, 18},
		.name = "Xen",
		.entry = MiB,
	};

	m->kernel = memfd_create("kernel", MFD_CLOEXEC);
	assert_int_equal(write(m->kernel, &k, sizeof(k)), sizeof(k));
	snprintf(m->kernel_path, sizeof(m->kernel_path), "/proc/self/fd/%d", m->kernel);
	m->config.kernel = m->kernel_path;
}

static void machine_init(struct machine *m)
{
	memset(m, 0, sizeof(*m));
	m->x86 = (struct accel_x86_ops){
		.supported_cpuid = supported_cpuid,
		.tsc_khz = tsc_khz,
		.set_cpuid = set_cpuid,
		.set_regs = set_regs,
		.set_sregs = set_sregs,
		.set_msrs = set_msrs,
		.set_mp_state = set_mp_state,
		.reset_rest = reset_rest,
		.reset_irqchip = reset_irqchip,
	};
	m->ops = (struct accel_ops){
		.mem_map = mem_map,
		.mem_unmap = mem_unmap,
		.vcpu_create = vcpu_create,
		.vcpu_destroy = vcpu_destroy,
		.pause = nothing,
		.resume = nothing,
		.x86 = &m->x86,
	};
	m->accel.ops = &m->ops;
	m->accel.vm = &m->vm;
	m->accel.msi.ops = &msi_ops;
	for (unsigned i = 0; i < ARRAY_SIZE(m->accel.gsi); i++)
		m->accel.gsi[i] = (struct irq_line){.set = irq_nowhere};
	m->phys_bits = 46;
	m->bios = m->kernel = -1;
	vm_init(&m->vm, evloop_new(NULL, NULL));
	m->vm.resolver = (struct prop_resolver){resolve, m};
	io_reader_register(&m->vm.pio, &m->pio);
	io_reader_register(&m->vm.mmio, &m->mmio);
	m->smbios = smbios_options_new();
	m->ram_size = 128 * MiB;
	m->config = (struct q35_config){
		.cpus = 1,
		.max_cpus = 1,
		.topology = {1, 1, 1, 1},
		.cpu = "host",
		.smbios = m->smbios,
		.version = "1",
	};
}

/* A flash image whose first byte is 0x70 and its unit, its last 0x5a. */
static void add_flash(struct machine *m, unsigned unit, uint64_t size)
{
	static const char *const ids[] = {"flash0", "flash1"};
	struct drive *d = &m->drives[unit];
	int fd = memfd_create("flash", MFD_CLOEXEC);
	struct error *err = NULL;
	struct opts opts = {0};
	char path[64];

	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(pwrite(fd, &(uint8_t){0x70 + unit}, 1, 0), 1);
	assert_int_equal(pwrite(fd, &(uint8_t){0x5a}, 1, size - 1), 1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	opts_add(&opts, "file", path);
	opts_add(&opts, "format", "raw");
	*d = (struct drive){.id = (char *)ids[unit], .node = block_open(m->vm.loop, &opts, &err)};
	if (!d->node)
		fail_msg("%s", error_message(err));
	opts_free(&opts);
	close(fd);
	m->config.pflash[unit].drive = m->config.pflash[unit].from = ids[unit];
}

static bool new_board(struct machine *m, struct error **err)
{
	m->ram = memory_backend_new(m->ram_size, false, &(struct memory_defaults){0}, err);
	m->config.ram = m->ram;
	m->board = q35_new(&m->vm, &m->accel, &m->config, err);
	return m->board != NULL;
}

static bool build(struct machine *m, struct error **err)
{
	return new_board(m, err) && q35_complete(m->board, err);
}

static void start(struct machine *m)
{
	struct error *err = NULL;

	if (!build(m, &err))
		fail_msg("%s", error_message(err));
	vm_start(&m->vm);
}

/* The board refuses, and says so with these words. */
static void refused(struct machine *m, const char *said)
{
	struct error *err = NULL;

	assert_false(build(m, &err));
	if (!strstr(error_message(err), said))
		fail_msg("it says: %s", error_message(err));
	error_free(err);
}

static void machine_destroy(struct machine *m)
{
	struct evloop *loop = m->vm.loop;

	vcpus_destroy(&m->vm);
	q35_free(m->board);
	io_reader_unregister(&m->vm.pio, &m->pio);
	io_reader_unregister(&m->vm.mmio, &m->mmio);
	vm_destroy(&m->vm);
	for (unsigned i = 0; i < ARRAY_SIZE(m->drives); i++)
		if (m->drives[i].node)
			block_unref(m->drives[i].node);
	memory_backend_free(m->ram);
	smbios_options_free(m->smbios);
	evloop_free(loop);
	if (m->bios >= 0)
		close(m->bios);
	if (m->kernel >= 0)
		close(m->kernel);
}

/* ---- what a CPU does and sees ---- */

static const struct slot *slot_at(const struct machine *m, uint64_t gpa)
{
	for (unsigned i = 0; i < m->slot_count; i++)
		if (gpa - m->slots[i].gpa < m->slots[i].size)
			return &m->slots[i];
	return NULL;
}

static const uint8_t *seen_at(const struct machine *m, uint64_t gpa)
{
	const struct slot *s = slot_at(m, gpa);

	return s ? s->hva + (gpa - s->gpa) : NULL;
}

static void assert_ram(const struct machine *m, uint64_t gpa)
{
	assert_non_null(slot_at(m, gpa));
	assert_ptr_equal(seen_at(m, gpa), gm_ptr(&m->vm.mem, gpa, 1, GM_FROM_GUEST));
	assert_int_equal(slot_at(m, gpa)->flags, 0);
}

static void assert_rom(const struct machine *m, uint64_t gpa, uint8_t byte)
{
	assert_non_null(slot_at(m, gpa));
	assert_ptr_not_equal(seen_at(m, gpa), gm_ptr(&m->vm.mem, gpa, 1, GM_FROM_GUEST));
	assert_int_equal(slot_at(m, gpa)->flags, ACCEL_MEM_READONLY);
	assert_int_equal(*seen_at(m, gpa), byte);
}

static void out(struct machine *m, uint16_t port, uint32_t value, unsigned size)
{
	io_bus_write(&m->vm.pio, &m->pio, port, &value, size);
}

static void mch_write(struct machine *m, unsigned offset, uint8_t value)
{
	out(m, 0xcf8, 0x80000000 | (offset & ~3u), 4);
	out(m, 0xcfc + (offset & 3), value, 1);
}

static void mmio_write8(struct machine *m, uint64_t gpa, uint8_t value)
{
	assert_null(slot_at(m, gpa)); /* else no exit would be made */
	io_bus_write(&m->vm.mmio, &m->mmio, gpa, &value, 1);
}

enum { PAM0 = 0x90, SMRAM = 0x9d };

/* ---- tests ---- */

static void test_shadow(void **state)
{
	struct machine m;

	machine_init(&m);
	make_bios(&m);
	start(&m);
	assert_ram(&m, 0);
	assert_ram(&m, 0x9f000);
	assert_null(slot_at(&m, 0xa0000));
	assert_null(slot_at(&m, 0xc0000));
	assert_rom(&m, 0xe0000, BIOS_SIZE / 4096 - 32);
	assert_rom(&m, 0xff000, BIOS_SIZE / 4096 - 1);
	assert_rom(&m, 0xfffff000, BIOS_SIZE / 4096 - 1);
	assert_ram(&m, MiB);

	mch_write(&m, PAM0, 0x30); /* 0xf0000: all to RAM */
	assert_ram(&m, 0xf0000);
	assert_ram(&m, 0xfffff);
	assert_rom(&m, 0xec000, BIOS_SIZE / 4096 - 20);
	mch_write(&m, PAM0, 0x10); /* read-only */
	assert_int_equal(slot_at(&m, 0xf0000)->flags, ACCEL_MEM_READONLY);
	assert_ptr_equal(seen_at(&m, 0xf0000), gm_ptr(&m.vm.mem, 0xf0000, 1, GM_FROM_GUEST));
	mch_write(&m, PAM0 + 1, 0x03); /* the first piece alone */
	assert_ram(&m, 0xc0000);
	assert_ram(&m, 0xc3fff);
	assert_null(slot_at(&m, 0xc4000));
	mch_write(&m, PAM0 + 6, 0x33); /* 0xe8000, 0xec000 */
	assert_rom(&m, 0xe7000, BIOS_SIZE / 4096 - 25);
	assert_ram(&m, 0xe8000);
	assert_ram(&m, 0xec000);

	/* What was written there stays; what a CPU sees after reset is the firmware again. */
	assert_int_equal(m.irqchip_resets, 1);
	vm_reset(&m.vm, CAUSE_GUEST_RESET);
	assert_int_equal(m.irqchip_resets, 2);
	assert_null(slot_at(&m, 0xc0000));
	assert_rom(&m, 0xe8000, BIOS_SIZE / 4096 - 24);
	assert_rom(&m, 0xff000, BIOS_SIZE / 4096 - 1);
	machine_destroy(&m);
}

/* A register that says what it said already costs no slot, and neighbours share one. */
static void test_shadow_is_cheap(void **state)
{
	struct machine m;
	unsigned changes, slots;

	machine_init(&m);
	make_bios(&m);
	start(&m);
	slots = m.slot_count;
	for (unsigned i = 1; i <= 6; i++)
		mch_write(&m, PAM0 + i, 0x33);
	mch_write(&m, PAM0, 0x30);
	assert_int_equal(m.slot_count, slots);
	changes = m.changes;
	mch_write(&m, PAM0, 0x30);
	vm_stop(&m.vm, RUN_STATE_PAUSED);
	assert_int_equal(m.changes, changes);
	machine_destroy(&m);
}

static void test_smram(void **state)
{
	struct machine m;

	machine_init(&m);
	make_bios(&m);
	start(&m);
	mch_write(&m, SMRAM, 0x4a); /* open */
	assert_ram(&m, 0xa0000);
	assert_ram(&m, 0xbffff);
	mch_write(&m, SMRAM, 0x0a);
	assert_null(slot_at(&m, 0xa0000));
	mch_write(&m, SMRAM, 0x4a);
	vm_reset(&m.vm, CAUSE_GUEST_RESET);
	assert_null(slot_at(&m, 0xa0000));
	mch_write(&m, SMRAM, 0x1a); /* locked: stays closed */
	mch_write(&m, SMRAM, 0x4a);
	assert_null(slot_at(&m, 0xa0000));
	machine_destroy(&m);
}

static void test_flash(void **state)
{
	const uint64_t code = Q35_4G - 2 * MiB, variables = code - 512 * KiB;
	struct machine m;

	machine_init(&m);
	add_flash(&m, 0, 2 * MiB);
	add_flash(&m, 1, 512 * KiB);
	start(&m);
	assert_rom(&m, code, 0x70);
	assert_rom(&m, Q35_4G - 1, 0x5a);
	assert_rom(&m, 0xfffff, 0x5a);
	assert_rom(&m, variables, 0x71);
	assert_null(slot_at(&m, variables - 1));

	/* A write to the slot exits: the same as a write where there is none. */
	assert_true(io_bus_write(&m.vm.mmio, &m.mmio, variables, &(uint8_t){0x70}, 1));
	assert_null(slot_at(&m, variables));
	assert_rom(&m, code, 0x70);
	mmio_write8(&m, variables, 0xff);
	assert_rom(&m, variables, 0x71);
	assert_true(io_bus_write(&m.vm.mmio, &m.mmio, code, &(uint8_t){0x90}, 1));
	assert_null(slot_at(&m, code));
	assert_rom(&m, 0xfffff, 0x5a);
	vm_reset(&m.vm, CAUSE_GUEST_RESET);
	assert_rom(&m, code, 0x70);
	machine_destroy(&m);
}

static void test_flash_limits(void **state)
{
	struct machine m;

	machine_init(&m);
	add_flash(&m, 0, 17 * MiB);
	refused(&m, "16 MiB");
	machine_destroy(&m);

	machine_init(&m);
	add_flash(&m, 0, 8 * MiB);
	add_flash(&m, 1, 9 * MiB);
	refused(&m, "16 MiB");
	machine_destroy(&m);

	machine_init(&m);
	add_flash(&m, 0, 65536 + 512);
	refused(&m, "flash0: a flash image must have a multiple of 4096");
	machine_destroy(&m);
}

static void test_sizes_refused(void **state)
{
	struct machine m;

	machine_init(&m);
	make_bios(&m);
	m.ram_size = 640 * KiB;
	refused(&m, "1 MiB");
	machine_destroy(&m);

	/* Before anything is mapped, since the kernel's tables for it would take minutes. */
	machine_init(&m);
	make_bios(&m);
	m.ram_size = 8 * TiB;
	m.phys_bits = 40;
	refused(&m, "40 address bits");
	assert_int_equal(m.changes, 0);
	machine_destroy(&m);

	machine_init(&m);
	make_kernel(&m);
	m.ram_size = MiB;
	refused(&m, "needs more memory");
	machine_destroy(&m);
}

static void test_direct_boot(void **state)
{
	struct machine m;
	uint8_t *ram;

	machine_init(&m);
	make_kernel(&m);
	start(&m);
	for (uint64_t gpa = 0xc0000; gpa < MiB; gpa += 4096)
		assert_ram(&m, gpa);
	assert_null(slot_at(&m, 0xa0000));
	assert_null(slot_at(&m, Q35_4G - 4096));
	assert_int_equal(m.board->ecam.base, Q35_ECAM_BASE);
	ram = gm_ptr(&m.vm.mem, 0, 2 * MiB, GM_FROM_GUEST);
	assert_memory_equal(ram + Q35_RSDP, "RSD PTR ", 8);
	assert_memory_equal(ram + MiB, ELFMAG, SELFMAG);

	/* A second start finds all of it again, whatever the guest made of it. */
	memset(ram, 0xcc, 2 * MiB);
	mch_write(&m, PAM0, 0);
	mch_write(&m, 0x60, 0);
	assert_int_equal(m.board->ecam.size, 0);
	vm_reset(&m.vm, CAUSE_GUEST_RESET);
	assert_int_equal(m.board->ecam.base, Q35_ECAM_BASE);
	assert_memory_equal(ram + Q35_RSDP, "RSD PTR ", 8);
	assert_memory_equal(ram + MiB, ELFMAG, SELFMAG);
	assert_int_equal(ram[MiB + 4095], 0);
	machine_destroy(&m);
}

static void add_device(struct machine *m, const char *args)
{
	struct opts opts = {0};
	struct error *err = NULL;

	assert_true(opts_parse(&opts, args, "driver", &err));
	if (!device_add(&m->vm, &opts, &err))
		fail_msg("%s", error_message(err));
	opts_free(&opts);
}

/* Each bridge with a legacy device behind it takes 4 KiB of ports. */
static void test_direct_boot_with_many_ports(void **state)
{
	static const struct device_desc *const table[] = {&pcie_root_port_desc,
							  &virtio_rng_pci_desc, NULL};
	struct error *err = NULL;
	struct machine m;
	char text[80];

	machine_init(&m);
	make_kernel(&m);
	m.vm.device_table = table;
	assert_true(new_board(&m, &err));
	for (unsigned i = 1; i <= 15; i++) {
		snprintf(text, sizeof(text), "pcie-root-port,id=r%u,slot=%u", i, i);
		add_device(&m, text);
		snprintf(text, sizeof(text), "virtio-rng-pci,disable-legacy=off,bus=r%u", i);
		add_device(&m, text);
	}
	if (!q35_complete(m.board, &err))
		fail_msg("%s", error_message(err));
	machine_destroy(&m);
}

static void assert_apart(struct acpi_range a, struct acpi_range b)
{
	if (a.size && b.size && a.base < b.base + b.size && b.base < a.base + a.size)
		fail_msg("0x%llx+0x%llx overlaps 0x%llx+0x%llx", (unsigned long long)a.base,
			 (unsigned long long)a.size, (unsigned long long)b.base,
			 (unsigned long long)b.size);
}

/* RAM, windows, ECAM and what chips decode are apart; what E820 calls RAM is RAM. */
static void check_maps(struct machine *m)
{
	const struct q35 *b = m->board;
	const struct acpi_config *a = &b->acpi;
	const struct acpi_range chips = {Q35_IOAPIC_BASE, Q35_4G - Q35_IOAPIC_BASE};
	uint64_t total = 0;

	assert_int_equal(gm_total(&m->vm.mem), m->ram_size);
	for (size_t i = 0; i < b->e820.count; i++) {
		const struct e820_entry *e = &b->e820.entries[i];

		if (e->type != E820_RAM)
			continue;
		total += e->size;
		assert_non_null(gm_ptr(&m->vm.mem, e->base, e->size, GM_FROM_GUEST));
		assert_apart((struct acpi_range){e->base, e->size}, chips);
		for (unsigned k = 0; k < a->mem_window_count; k++)
			if (a->mem_windows[k].base >= MiB)
				assert_apart((struct acpi_range){e->base, e->size},
					     a->mem_windows[k]);
	}
	assert_true(total <= m->ram_size && m->ram_size - total <= 384 * KiB + KiB);
	for (unsigned i = 0; i < a->mem_window_count; i++) {
		struct acpi_range w = a->mem_windows[i];

		assert_true(w.size && w.base + w.size > w.base);
		assert_true(w.base + w.size <= UINT64_C(1) << m->phys_bits);
		assert_true(w.base >= Q35_4G || w.base + w.size <= Q35_4G);
		assert_apart(w, chips);
		assert_apart(w, b->ecam);
		for (unsigned k = 0; k < i; k++)
			assert_apart(w, a->mem_windows[k]);
	}
	for (unsigned i = 0; i < m->slot_count; i++) {
		struct slot s = m->slots[i];

		assert_apart((struct acpi_range){s.gpa, s.size}, b->ecam);
		/* Pages of the host can be large. */
		if (s.size >= LARGE_PAGE && !s.flags)
			assert_int_equal(s.gpa % LARGE_PAGE, (uintptr_t)s.hva % LARGE_PAGE);
	}
}

/* The file that the firmware would ask for, as fw_cfg's directory names it; its first bytes. */
static size_t read_file(struct machine *m, const char *name, uint8_t *buf, size_t len)
{
	uint8_t entry[64];
	uint32_t count = 0;
	size_t size = 0;
	uint16_t key = 0;

	out(m, 0x510, 0x19, 2);
	for (unsigned i = 0; i < 4; i++) {
		uint8_t byte;

		io_bus_read(&m->vm.pio, &m->pio, 0x511, &byte, 1);
		count = count << 8 | byte;
	}
	for (uint32_t i = 0; i < count; i++) {
		for (unsigned k = 0; k < sizeof(entry); k++)
			io_bus_read(&m->vm.pio, &m->pio, 0x511, &entry[k], 1);
		if (!strcmp((char *)entry + 8, name)) {
			size = load_be32(entry);
			key = load_be16(entry + 4);
		}
	}
	assert_true(key);
	out(m, 0x510, key, 2);
	for (size_t i = 0; i < MIN(size, len); i++)
		io_bus_read(&m->vm.pio, &m->pio, 0x511, &buf[i], 1);
	return MIN(size, len);
}

/* Base and last bus of the MCFG in the tables that firmware gets; 0: none. */
static uint64_t mcfg_base(struct machine *m, uint8_t *last)
{
	static uint8_t tables[256 << 10];
	size_t len = read_file(m, "etc/acpi/tables", tables, sizeof(tables));
	const uint8_t *p = memmem(tables, len, "MCFG", 4);

	*last = p ? p[44 + 11] : 0;
	return p ? load_le64(p + 44) : 0;
}

static void test_tables_follow_the_ecam(void **state)
{
	struct machine m;
	uint8_t last;

	machine_init(&m);
	make_bios(&m);
	start(&m);
	assert_int_equal(mcfg_base(&m, &last), 0);
	vm_reset(&m.vm, CAUSE_GUEST_RESET);
	mch_write(&m, 0x63, 0xd0);
	mch_write(&m, 0x60, 0x03); /* 128 MiB */
	assert_int_equal(mcfg_base(&m, &last), 0xd0000000);
	assert_int_equal(last, 127);
	check_maps(&m);
	/* A new start forgets it. */
	vm_reset(&m.vm, CAUSE_GUEST_RESET);
	assert_int_equal(mcfg_base(&m, &last), 0);
	machine_destroy(&m);
}

static void test_maps_of_all_sizes(void **state)
{
	static const struct {
		uint64_t size;
		unsigned bits;
	} cases[] = {
		{2 * MiB, 36},	     {3 * MiB, 46},
		{16 * MiB, 46},	     {2 * GiB - 4 * KiB, 46},
		{2 * GiB, 46},	     {2 * GiB + 8 * KiB, 46},
		{2815 * MiB, 46},    {2816 * MiB - 8 * KiB, 46},
		{2816 * MiB, 46},    {2816 * MiB + 8 * KiB, 46},
		{3 * GiB, 46},	     {4 * GiB, 46},
		{5 * GiB + MiB, 46}, {60 * GiB, 36},
		{900 * GiB, 40},     {1012 * GiB, 40},
		{1020 * GiB, 40},    {TiB, 46},
		{1022 * GiB, 48},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (int direct = 0; direct < 2; direct++) {
			struct machine m;

			machine_init(&m);
			m.ram_size = cases[i].size;
			m.phys_bits = cases[i].bits;
			if (direct)
				make_kernel(&m);
			else
				make_bios(&m);
			start(&m);
			check_maps(&m);
			assert_int_equal(m.board->ecam.size, direct ? Q35_ECAM_SIZE : 0);
			machine_destroy(&m);
		}
	}
}

/* The last that is refused and the first that is taken, at the edge of what the CPU reaches. */
static void test_address_bits(void **state)
{
	struct machine m;

	machine_init(&m);
	make_bios(&m);
	m.phys_bits = 36;
	m.ram_size = 62 * GiB;
	refused(&m, "36 address bits");
	machine_destroy(&m);

	machine_init(&m);
	make_bios(&m);
	m.phys_bits = 36;
	m.ram_size = 61 * GiB;
	start(&m);
	check_maps(&m);
	machine_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shadow),
		cmocka_unit_test(test_shadow_is_cheap),
		cmocka_unit_test(test_smram),
		cmocka_unit_test(test_flash),
		cmocka_unit_test(test_flash_limits),
		cmocka_unit_test(test_sizes_refused),
		cmocka_unit_test(test_direct_boot),
		cmocka_unit_test(test_maps_of_all_sizes),
		cmocka_unit_test(test_tables_follow_the_ecam),
		cmocka_unit_test(test_direct_boot_with_many_ports),
		cmocka_unit_test(test_address_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
